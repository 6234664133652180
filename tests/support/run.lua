--- Running the command and keeping what it said.
local files = require "attune.util.files"

local run = {}

local build = os.getenv "ATTUNE_BUILD_DIR" or "build"

--- Output (both streams) and exit status.
function run.attune(arguments, input)
  local pipe = io.popen(
    ("%s/attune %s 2>&1 <%s; echo \"exit $?\""):format(build, arguments, input or "/dev/null")
  )
  local text = pipe:read "a"
  pipe:close()
  local said, status = text:match "^(.-)exit (%d+)%s*$"
  return said, math.tointeger(tonumber(status))
end

--- Runs a shell command in a folder. Returns its output on both streams and its status.
function run.in_folder(folder, command)
  local pipe = io.popen(("cd '%s' && { %s; } 2>&1; echo \"exit $?\""):format(folder, command))
  local said, status = pipe:read "a":match "^(.-)exit (%d+)%s*$"
  pipe:close()
  return said, math.tointeger(tonumber(status))
end

function run.folder()
  local path = os.tmpname()
  os.remove(path)
  return path
end

function run.empty_folder()
  local folder = run.folder()
  assert(files.make_folder(folder))
  return folder
end

--- Calls body with a new folder, and removes it, after an error too.
function run.with_folder(body)
  local folder = run.empty_folder()
  local ok, why = xpcall(body, debug.traceback, folder)
  run.remove(folder)
  if not ok then error(why, 0) end
end

--- A script with the text, in a new file.
function run.script(text)
  local path = os.tmpname() .. ".lua"
  local f = assert(io.open(path, "w"))
  f:write(text)
  f:close()
  return path
end

function run.remove(...)
  for _, path in ipairs {...} do os.execute("rm -rf '" .. path .. "'") end
end

return run
