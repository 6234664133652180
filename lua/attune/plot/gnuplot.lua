--- Runs gnuplot. gnuplot works in a temporary folder of its own and knows no name but the fixed
--- ones below. Texts are quoted so that none is read as a command. A picture is whole or is none.
local files = require "attune.util.files"
local letters = require "attune.plot.letters"
local place = require "attune.place"
local process = require "attune.util.process"
local uv = require "luv"

local gnuplot = {}

local templates = {"theme.gp", "line.gp", "bars.gp", "heat.gp", "pixels.gp"}
local time_limit = 60 -- seconds for one picture
gnuplot.missing = "gnuplot: expected it to be installed, found none (Debian: gnuplot-nox)"

--- A text as a single-quoted string of gnuplot, in which nothing is read as a command. A quote in
--- it becomes a typographic one: gnuplot 5.4 ends a string that begins with a doubled quote.
function gnuplot.quote(s) return "'" .. letters.clean(s):gsub("'", "’") .. "'" end

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
function gnuplot.field(s) return '"' .. letters.clean(s):gsub('["\\]', " ") .. '"' end

-- The first line of what gnuplot said that names a mistake, or how it ended.
local function reason_of(ended)
  if ended.late then return ("took longer than %d s"):format(time_limit) end
  if ended.signal ~= 0 then return ("was ended by signal %d"):format(ended.signal) end
  local line = ended.said:match "line %d+: ([^\n]*)" or ended.said:match "%S[^\n]*"
  return line and letters.clean(line) or "ended with status " .. ended.code
end

-- Runs figure.gp in the folder. Returns true, or nil and a message.
local function run(folder)
  -- Default settings: no file of the user's is read before the script.
  local words = {"gnuplot", "--default-settings", "figure.gp"}
  local ended, why = process.run(words, 2, time_limit, folder)
  if not ended then return nil, why:find "ENOENT" and gnuplot.missing or "gnuplot: " .. why end
  if ended.code == 0 and ended.signal == 0 then return true end
  return nil, "gnuplot: " .. reason_of(ended)
end

-- How a whole file of each format ends.
local function is_whole(format, picture)
  local tail = picture:sub(-64)
  if format == "svg" then return tail:find "</svg>%s*$" ~= nil end
  if format == "png" then return tail:find("IEND", 1, true) ~= nil end
  return tail:find("%%EOF", 1, true) ~= nil
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

-- Makes the temporary folder and the files that gnuplot reads.
local function prepare(format, size, body, data)
  local theme = place.folder "plots"
  if not theme then return nil, "the folder plots with the theme is missing" end
  local parent = uv.os_tmpdir()
  clear_left_over(parent)
  local folder, why = uv.fs_mkdtemp(("%s/attune-plot-%d-XXXXXX"):format(parent, uv.os_getpid()))
  if not folder then return nil, why end
  local head = ("format = '%s'\nwidth = %.4f\nheight = %.4f\nload 'theme.gp'\n"):format(format,
    size.width, size.height)
  local ok
  ok, why = put(folder, "figure.dat", data)
  if ok then ok, why = put(folder, "figure.gp", head .. body .. "\nunset output\n") end
  for _, name in ipairs(templates) do
    local content
    if ok then content, why = files.read(theme .. "/" .. name) end
    ok = content and true
    if ok then ok, why = put(folder, name, content) end
  end
  return folder, not ok and (why or "cannot write") or nil
end

---@class attune.Figure
---@field size {width: number, height: number} inches
---@field script string gnuplot commands, run after the theme
---@field data string content of the data file: blocks of rows, two empty lines between blocks
---@field notes? string[] what the figure leaves out, in sentences

--- Draws one figure.
---@param format "svg"|"png"|"pdf"
---@param size {width: number, height: number} inches
---@param body string the script after the theme
---@param data string content of the data file
---@return string? picture the content of the file
---@return string? message
function gnuplot.draw(format, size, body, data)
  local folder, why = prepare(format, size, body, data)
  if not folder then return nil, why end
  local ok = not why
  if ok then ok, why = run(folder) end
  local picture
  if ok then picture, why = files.read(folder .. "/figure." .. format) end
  clear(folder)
  if not picture then return nil, why end
  if not is_whole(format, picture) then return nil, "gnuplot: made a picture that is cut short" end
  return picture
end

return gnuplot
