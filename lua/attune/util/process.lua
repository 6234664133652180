--- Runs a program and waits for its end. No shell reads the words.
local uv = require "luv"

local max_said_bytes = 1 << 16

local process = {}

---@class attune.Ended
---@field said string the first 64 KiB of what it printed on the stream
---@field code integer? exit status
---@field signal integer? the signal that ended it, else 0
---@field late boolean whether it was killed because its time was over

--- Runs a program.
---@param words string[] program and arguments
---@param stream 1|2 what is kept: standard output or standard error; the other is not read
---@param seconds number after which it is killed
---@param folder? string in which it works
---@return attune.Ended? ended nil when it cannot be started
---@return string? message
function process.run(words, stream, seconds, folder)
  local pipe, open = uv.new_pipe(false), true
  local ended = {said = "", late = false}
  local stdio = stream == 1 and {nil, pipe} or {nil, nil, pipe}
  local options = {args = {table.unpack(words, 2)}, cwd = folder, stdio = stdio}
  local handle, why = uv.spawn(words[1], options, function(code, signal)
    ended.code, ended.signal = code, signal
  end)
  if not handle then
    pipe:close()
    uv.run "nowait"
    return nil, tostring(why)
  end
  local timer = uv.new_timer()
  timer:start(seconds * 1000, 0, function()
    ended.late = true
    handle:kill "sigkill"
  end)
  pipe:read_start(function(_, chunk)
    if not chunk then
      open = false
    elseif #ended.said < max_said_bytes then
      ended.said = ended.said .. chunk
    end
  end)
  -- A child of the program may keep the pipe open.
  while ended.code == nil or (open and not ended.late) do uv.run "once" end
  for _, h in ipairs {timer, pipe, handle} do h:close() end
  uv.run "nowait"
  return ended
end

return process
