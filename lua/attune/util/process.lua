--- Runs a program and waits for its end. No shell reads the words.
local uv = require "luv"

local max_said_bytes = 1 << 16

local process = {}

---@class attune.Ended
---@field said string the first 64 KiB of what it printed on the stream
---@field complained string? the same of standard error, where both are kept
---@field code integer? exit status
---@field signal integer? the signal that ended it, else 0
---@field late boolean whether it was killed because its time was over

--- Runs a program.
---@param words string[] program and arguments
---@param stream 1|2|"both" what is kept: standard output or standard error; the other is not read
---@param seconds number after which it is killed
---@param folder? string in which it works
---@return attune.Ended? ended nil when it cannot be started
---@return string? message
function process.run(words, stream, seconds, folder)
  local ended, pipes, open = {said = "", late = false}, {}, 0
  local function close()
    for _, pipe in pairs(pipes) do pipe:close() end
    uv.run "nowait"
  end
  for i = 1, 2 do
    if stream == i or stream == "both" then pipes[i] = uv.new_pipe(false) end
  end
  local options = {
    args = {table.unpack(words, 2)}, cwd = folder, stdio = {nil, pipes[1], pipes[2]},
  }
  local handle, why = uv.spawn(words[1], options, function(code, signal)
    ended.code, ended.signal = code, signal
  end)
  if not handle then
    close()
    return nil, tostring(why)
  end
  local timer = uv.new_timer()
  timer:start(seconds * 1000, 0, function()
    ended.late = true
    handle:kill "sigkill"
  end)
  local function keep(pipe, field)
    ended[field], open = "", open + 1
    pipe:read_start(function(_, chunk)
      if not chunk then
        open = open - 1
      elseif #ended[field] < max_said_bytes then
        ended[field] = ended[field] .. chunk
      end
    end)
  end
  for i, pipe in pairs(pipes) do
    keep(pipe, stream == "both" and i == 2 and "complained" or "said")
  end
  -- A child of the program may keep the pipes open.
  while ended.code == nil or (open > 0 and not ended.late) do uv.run "once" end
  timer:close()
  handle:close()
  close()
  return ended
end

return process
