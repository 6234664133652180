--- The lock of a folder of results: one run at a time writes there.
local core = require "attune.core"
local uv = require "luv"

local wait_milliseconds = 100

local lock = {}

--- Locks a folder, so that no trial is recorded twice. Waits, and says so, while another run holds
--- the lock, which ends when the descriptor is closed or the process ends.
---@param dir string
---@param say fun(message: string)
---@return integer|false|nil fd false where the file system has no locks; nil and a message when the
--- folder cannot be opened
---@return string? message
function lock.take(dir, say)
  local said
  while true do
    local fd, why, code = core._lock_folder(dir)
    if fd then
      -- The folder may have been replaced while this run waited.
      local locked, named = uv.fs_fstat(fd), uv.fs_stat(dir)
      if locked and named and locked.ino == named.ino and locked.dev == named.dev then return fd end
      uv.fs_close(fd)
      if not named then return nil, dir .. ": expected the folder to stay, but it was deleted" end
    elseif code == "unsupported" then
      say(dir .. ": this file system has no locks; do not run twice in this folder")
      return false
    elseif code ~= "busy" then
      return nil, why
    elseif not said then
      say(dir .. ": another run is writing to this folder; waiting for its end")
      said = true
    end
    uv.sleep(wait_milliseconds)
  end
end

--- Ends a lock.
---@param fd integer|false
function lock.release(fd)
  if fd then uv.fs_close(fd) end
end

--- Whether a run holds the lock of a folder on this machine.
---@param dir string
---@return boolean
function lock.is_held(dir)
  local fd, _, code = core._lock_folder(dir)
  lock.release(fd)
  return code == "busy"
end

return lock
