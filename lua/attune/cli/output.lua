--- Standard output of the command. print ignores that a disk is full or a pipe closed; here the
--- first failure is kept, and the command ends with it.
local text = require "attune.util.text"

local output = {}

local failure
local max_message_bytes, max_warnings, max_warning_bytes = 4000, 10, 400

local function note(ok, why)
  if not ok and not failure then failure = why or "cannot be written" end
end

--- Writes text as it is.
---@param s string
function output.write(s) note(io.stdout:write(s)) end

--- Writes one line. What is in it may come from a stranger: control characters are escaped.
---@param s string
function output.line(s) output.write(text.printable(s) .. "\n") end

--- Writes a message of a command to standard error, as one line.
---@param command string such as "attune run"
---@param message string
function output.complain(command, message)
  io.stderr:write(command, ": ", text.cut(text.printable(message), max_message_bytes), "\n")
end

--- Writes the first warnings of a list, one line each, and how many more there are. What many
--- trials say is written once, with the number of times.
---@param command string
---@param warnings string[]
function output.warn(command, warnings)
  local times, list = {}, {}
  for _, warning in ipairs(warnings) do
    if not times[warning] then list[#list + 1] = warning end
    times[warning] = (times[warning] or 0) + 1
  end
  for i = 1, math.min(#list, max_warnings) do
    local count = times[list[i]]
    output.complain(command, text.cut(list[i], max_warning_bytes)
      .. (count > 1 and (" (%d times)"):format(count) or ""))
  end
  if #list > max_warnings then
    output.complain(command, "and " .. text.count(#list - max_warnings, "more warning"))
  end
end

--- Writes what is still in the buffer.
---@return boolean ok
---@return string? message the first failure since the program started
function output.flush()
  note(io.stdout:flush())
  return failure == nil, failure
end

return output
