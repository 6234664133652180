--- Runs gnuplot. Texts are quoted so that none is read as a command, and a picture appears whole or
--- not at all.
local files = require "attune.util.files"
local uv = require "luv"

local gnuplot = {}

--- A text as a single-quoted string of gnuplot, in which nothing is read as a command.
function gnuplot.quote(s) return "'" .. tostring(s):gsub("%c", " "):gsub("'", "''") .. "'" end

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
  return ("%.9g"):format(x)
end

--- A text as a field of a data file.
function gnuplot.field(s) return '"' .. tostring(s):gsub('[%c"\\]', " ") .. '"' end

-- Runs a script file. Returns true, or nil and gnuplot's message.
local function run(path)
  local err, out = uv.new_pipe(false), ""
  local code
  local options = {args = {path}, stdio = {nil, nil, err}}
  local handle, why = uv.spawn("gnuplot", options, function(c) code = c end)
  if not handle then
    err:close()
    local reason = tostring(why):gsub("^ENOENT.*", "expected it to be installed, found none")
    return nil, "gnuplot: " .. reason
  end
  local open = true
  err:read_start(function(_, chunk)
    if chunk then out = out .. chunk else open = false end
  end)
  while code == nil or open do uv.run "once" end
  err:close()
  handle:close()
  uv.run "nowait"
  if code == 0 then return true end
  local reason = out:match "line %d+: [^\n]*" or out:match "[^\n]+" or "status " .. code
  return nil, "gnuplot: " .. reason
end

---@class attune.Figure
---@field size {width: number, height: number} inches
---@field script string gnuplot commands, run after the theme
---@field data string content of the data file: blocks of rows, two empty lines between blocks

-- What theme.gp and the templates expect to be set.
local function header(format, image, size, numbers, folder)
  local head = {}
  gnuplot.add(head, "format = %s", gnuplot.quote(format))
  gnuplot.add(head, "target = %s", gnuplot.quote(image))
  gnuplot.add(head, "width = %g", size.width)
  gnuplot.add(head, "height = %g", size.height)
  gnuplot.add(head, "data = %s", gnuplot.quote(numbers))
  gnuplot.add(head, "plots = %s", gnuplot.quote(folder))
  gnuplot.add(head, "load plots.'/theme.gp'\n")
  return table.concat(head, "\n")
end

--- Draws one figure.
---@param target string the file, ending in .svg, .png or .pdf
---@param size {width: number, height: number} inches
---@param body string the script after the theme
---@param data string content of the data file
---@return string? path
---@return string? message
function gnuplot.draw(target, size, body, data)
  local folder = require "attune.place".folder "plots"
  if not folder then return nil, "the folder plots with the theme is missing" end
  local format = target:match "%.(%w+)$"
  local base = ("%s.%d"):format(target, uv.os_getpid())
  local image, script, numbers = base .. ".tmp." .. format, base .. ".gp", base .. ".dat"
  local head = header(format, image, size, numbers, folder)
  local ok, why = files.write(numbers, data)
  if ok then ok, why = files.write(script, head .. body .. "\nunset output\n") end
  if ok then ok, why = run(script) end
  if ok then
    local info = uv.fs_stat(image)
    if not info or info.size == 0 then ok, why = nil, "gnuplot: made an empty picture" end
  end
  if ok then ok, why = uv.fs_rename(image, target) end
  uv.fs_unlink(numbers)
  uv.fs_unlink(script)
  if not ok then uv.fs_unlink(image) end
  return ok and target or nil, why
end

return gnuplot
