--- Runs gnuplot. gnuplot works in a temporary folder of its own and knows no name but those that
--- attune made from letters and digits. Texts are quoted so that none is read as a command. A
--- picture is whole or is none.
local files = require "attune.util.files"
local latex = require "attune.util.latex"
local letters = require "attune.plot.letters"
local place = require "attune.place"
local process = require "attune.util.process"
local uv = require "luv"

local gnuplot = {}

local time_limit = 60 -- seconds for one picture
gnuplot.missing = "gnuplot: expected it to be installed, found none (Debian: gnuplot-nox)"

-- What the first letter of a string in a script says: a text, or the label of a tick, which gnuplot
-- formats so that % is doubled. texts_for takes these letters away; letters.clean lets none pass.
local text_mark, tick_mark = "\u{E000}", "\u{E001}"

--- A text as a single-quoted string of gnuplot, in which nothing is read as a command. A quote in
--- it becomes a typographic one: gnuplot 5.4 ends a string that begins with a doubled quote.
function gnuplot.quote(s) return "'" .. text_mark .. letters.clean(s):gsub("'", "’") .. "'" end

-- gnuplot 5.4 formats a label that holds a % in a buffer of 50 bytes, and cuts it there.
local max_formatted_bytes = 49

-- A label whose text is at most that long once `escape` has changed it.
local function fitted(s, escape)
  if not s:find("%", 1, true) then return escape(s) end
  local whole, count = escape(s), utf8.len(s)
  while #whole > max_formatted_bytes and count > 1 do
    count = count - 1
    whole = escape(s:sub(1, utf8.offset(s, count + 1) - 1)) .. "…"
  end
  return whole
end

local function unchanged(s) return s end

--- The label of a tick as a string of gnuplot.
function gnuplot.tick_label(s)
  return "'" .. tick_mark .. letters.clean(s):gsub("'", "’"):gsub("%%", "%%%%") .. "'"
end

--- Appends to a script, formatting the arguments. Without arguments the text is taken as it is.
---@param script string[]
---@param format string
function gnuplot.add(script, format, ...)
  script[#script + 1] = select("#", ...) > 0 and format:format(...) or format
end

--- A number as gnuplot reads it; NaN, which gnuplot leaves out, for what is not finite.
---@param x number?
---@return string
function gnuplot.number(x)
  if x == nil or x ~= x or math.abs(x) == math.huge then return "NaN" end
  return ("%.12g"):format(x)
end

--- A text as a field of a data file.
function gnuplot.field(s)
  return '"' .. text_mark .. letters.clean(s):gsub('["\\]', " ") .. '"'
end

--- A row of a data file: its fields with tabs between them.
function gnuplot.row(...) return table.concat({...}, "\t") end

--- A script or data with its texts as a format wants them.
---@param source string
---@param format "svg"|"png"|"pdf"|"tex"
---@return string
function gnuplot.texts_for(source, format)
  local escape = format == "tex" and latex or unchanged
  source = source:gsub("'\xEE\x80([\x80\x81])([^'\n]*)", function(kind, words)
    if kind == "\x80" then return "'" .. escape(words) end
    return "'" .. fitted((words:gsub("%%%%", "%%")), escape):gsub("%%", "%%%%")
  end)
  if format ~= "tex" then return (source:gsub("\xEE\x80[\x80\x81]", "")) end
  -- In double quotes gnuplot reads \ as the begin of a character.
  return (source:gsub('"\xEE\x80\x80([^"\n]*)', function(words)
    return '"' .. latex(words):gsub("\\", "\\\\")
  end))
end

-- The first line of what gnuplot said that names a mistake, or how it ended.
local function reason_of(ended)
  if ended.late then return ("took longer than %d s"):format(time_limit) end
  if ended.signal ~= 0 then return ("was ended by signal %d"):format(ended.signal) end
  local line = ended.said:match "line %d+: ([^\n]*)" or ended.said:match "%S[^\n]*"
  return line and letters.clean(line) or "ended with status " .. ended.code
end

-- Runs the script in the folder. Returns true, or nil and a message.
local function run(folder, name)
  -- Default settings: no file of the user's is read before the script.
  local words = {"gnuplot", "--default-settings", name .. ".gp"}
  local ended, why = process.run(words, 2, time_limit, folder)
  if not ended then return nil, why:find "ENOENT" and gnuplot.missing or "gnuplot: " .. why end
  if ended.code == 0 and ended.signal == 0 then return true end
  return nil, "gnuplot: " .. reason_of(ended)
end

-- How a whole file with each ending ends.
local tails = {svg = "</svg>%s*$", png = "IEND", pdf = "%%%%EOF", tex = "\\endgroup%s*$"}

-- The endings of the files that gnuplot makes for a format, after the figure's name.
local endings = {svg = {".svg"}, png = {".png"}, pdf = {".pdf"}, tex = {"-latex.tex", "-latex.pdf"}}

--- The endings of the pictures of a format, or nil for an unknown format.
function gnuplot.endings(format) return endings[format] end

-- A PDF without the time at which it was made: equal results have equal files. Offsets stay.
local function without_time(pdf)
  return (pdf:gsub("/CreationDate %(D:[^)]*%)", function(date)
    return date:gsub("%d", "0")
  end))
end

-- Writes one file of the temporary folder.
local function put(folder, name, content)
  local f, why = io.open(folder .. "/" .. name, "wb")
  if not f then return nil, why end
  local ok, write_why = f:write(content)
  -- A full disk shows when the rest is flushed.
  if ok then ok, write_why = f:flush() end
  f:close()
  return ok and true, write_why
end

local function clear(folder)
  for _, name in ipairs(files.list(folder)) do uv.fs_unlink(folder .. "/" .. name) end
  uv.fs_rmdir(folder)
end

-- Deletes the folders of processes that were killed while gnuplot drew. Only folders of this user.
local cleared
local function clear_left_over(parent)
  if cleared then return end
  cleared = true
  for _, name in ipairs(files.list(parent)) do
    local pid = math.tointeger(tonumber(name:match "^attune%-plot%-(%d+)%-%w+$"))
    local info = pid and not uv.kill(pid, 0) and uv.fs_lstat(parent .. "/" .. name)
    if info and info.type == "directory" and info.uid == uv.getuid() then
      clear(parent .. "/" .. name)
    end
  end
end

-- The content of a file of the theme, without its last line break.
local function template(name)
  local theme = place.folder "plots"
  if not theme then return nil, "the folder plots with the theme is missing" end
  local content, why = files.read(theme .. "/" .. name)
  return content and content:gsub("%s+$", ""), why
end

---@class attune.Figure
---@field size {width: number, height: number} inches
---@field script string gnuplot commands, run after the theme
---@field data string content of the data file: blocks of rows, two empty lines between blocks
---@field notes? string[] what the figure leaves out, in sentences
---@field spots? attune.Spot[] the marks of the figure with their values
---@field words? string the figure in sentences, for readers who do not see it
---@field term? fun(width: integer, colour: boolean): string[] the figure for a terminal

---@class attune.Spot
---@field x number inches from the left edge to the middle
---@field y number inches from the lower edge
---@field width number? inches; a circle without one
---@field height number?
---@field text string its value

--- The whole script of a figure: gnuplot needs no other file but the data to draw it.
---@param name string of the figure's files: letters, digits, - and _
---@param figure attune.Figure
---@param theme string
---@return string? script texts_for makes it ready for a format
---@return string? message
function gnuplot.script(name, figure, theme)
  local why
  local head = "# Draws NAME.svg from NAME.tsv; needs gnuplot 5.4 and nothing else:\n"
    .. "#   gnuplot NAME.gp\n#   gnuplot -e \"format='png'; theme='dark'\" NAME.gp\n"
  head = head:gsub("NAME", name)
  head = head .. "if (!exists('format')) format = 'svg' # svg, png, pdf or tex\n"
    .. ("if (!exists('theme')) theme = '%s' # screen, print, dark or slides\n"):format(theme)
    .. ("name = '%s'\nwidth = %.4f\nheight = %.4f\nload 'theme.gp'\n"):format(name,
      figure.size.width, figure.size.height)
  -- Texts hold no quote that would make them look like a command to load.
  local function load_template(file)
    local content, missing = template(file)
    why = why or missing
    return content or ""
  end
  local whole = head .. figure.script .. "\nunset output\n"
  whole = whole:gsub("load '(%a+%.gp)'", load_template)
  if why then return nil, why end
  return whole
end

-- Makes the temporary folder with the files that gnuplot reads.
local function prepare(name, script, data)
  local parent = uv.os_tmpdir()
  clear_left_over(parent)
  local folder, why = uv.fs_mkdtemp(("%s/attune-plot-%d-XXXXXX"):format(parent, uv.os_getpid()))
  if not folder then return nil, why end
  local ok
  ok, why = put(folder, name .. ".tsv", data)
  if ok then ok, why = put(folder, name .. ".gp", script) end
  return folder, not ok and (why or "cannot write") or nil
end

--- Draws one figure.
---@param format "svg"|"png"|"pdf"|"tex"
---@param name string of the figure's files
---@param script string as texts_for gives it
---@param data string content of the data file
---@return table<string, string>? pictures the content of each file by its ending
---@return string? message
function gnuplot.draw(format, name, script, data)
  local folder, why = prepare(name, ("format = '%s'\n"):format(format) .. script, data)
  if not folder then return nil, why end
  local ok, pictures = not why, {}
  if ok then ok, why = run(folder, name) end
  for _, ending in ipairs(endings[format]) do
    local picture
    if ok then picture, why = files.read(folder .. "/" .. name .. ending) end
    ok = picture ~= nil
    if ok and not picture:sub(-64):find(tails[ending:match "%a+$"]) then
      ok, why = nil, "gnuplot: made a picture that is cut short"
    end
    pictures[ending] = ok and ending:find "pdf$" and without_time(picture) or picture
  end
  clear(folder)
  if not ok then return nil, why end
  return pictures
end

return gnuplot
