--- The signals that end a run.
local uv = require "luv"

local signals = {}

local watched = {
  {"sigint", 130, "Ctrl-C"},
  {"sigterm", 143, "SIGTERM"},
  {"sighup", 129, "SIGHUP (the terminal was closed)"},
}

--- Signals set fields of control: `stop`, after which no trial starts; `kill`, after which running
--- trials end at once; `status`, the command's exit status; `signal`, the name of the first one.
--- Ctrl-C stops and, when it comes again, kills. What ends a session kills at once, as little time
--- may be left.
---@param control table
---@param say fun(message: string)
---@param words? table<string, string> what the first signal of a name does, in words
---@return fun() unwatch
function signals.watch(control, say, words)
  local handles = {}
  words = words or {sigint = "ending after the running trial; Ctrl-C again ends it now"}
  for _, signal in ipairs(watched) do
    local name, status, title = table.unpack(signal)
    local s = uv.new_signal()
    s:start(name, function()
      control.kill = control.stop or name ~= "sigint"
      control.stop = true
      if control.status then return end
      control.status, control.signal = status, name
      say(("%s: %s"):format(title, words[name] or "ending now"))
    end)
    s:unref()
    handles[#handles + 1] = s
  end
  return function()
    for _, s in ipairs(handles) do
      s:stop()
      s:close()
    end
    uv.run "nowait"
  end
end

return signals
