--- Talking to gnuplot: texts made safe, scripts run, files that appear whole or not at all.
local files = require "attune.files"
local uv = require "luv"

local gnuplot = {}

--- A text as gnuplot's single-quoted string: nothing in it is ever read as a command.
function gnuplot.quote(s) return "'" .. tostring(s):gsub("[%c]", " "):gsub("'", "''") .. "'" end

function gnuplot.number(x)
  if x == nil or x ~= x or math.abs(x) == math.huge then return "NaN" end
  return ("%.9g"):format(x)
end

--- A text as a field of a data file.
function gnuplot.field(s) return '"' .. tostring(s):gsub('[%c"\\]', " ") .. '"' end

local function run(path)
  local err, out = uv.new_pipe(false), ""
  local code
  local handle, why = uv.spawn("gnuplot", {args = {path}, stdio = {nil, nil, err}}, function(c) code = c end)
  if not handle then
    err:close()
    return nil, "gnuplot: " .. tostring(why):gsub("^ENOENT.*", "expected it to be installed, found none")
  end
  local open = true
  err:read_start(function(_, chunk) if chunk then out = out .. chunk else open = false end end)
  while code == nil or open do uv.run "once" end
  err:close()
  handle:close()
  uv.run "nowait"
  if code ~= 0 then return nil, "gnuplot: " .. (out:match "line %d+: [^\n]*" or out:match "[^\n]+" or "status " .. code) end
  return true
end

--- Draws one figure: body is the script after the theme; data what it reads. Returns the path, or nil and a message.
---@param target string the file, ending in .svg, .png or .pdf
---@param size {width: number, height: number}
function gnuplot.draw(target, size, body, data)
  local folder = require "attune.place".folder "plots"
  if not folder then return nil, "the folder plots with the theme is missing" end
  local format = target:match "%.(%w+)$"
  local base = ("%s.%d"):format(target, uv.os_getpid())
  local image, script, numbers = base .. ".tmp." .. format, base .. ".gp", base .. ".dat"
  local head = ("format = %s\ntarget = %s\nwidth = %g\nheight = %g\ndata = %s\nplots = %s\nload plots.'/theme.gp'\n"):format(gnuplot.quote(format),
    gnuplot.quote(image), size.width, size.height, gnuplot.quote(numbers), gnuplot.quote(folder))
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
