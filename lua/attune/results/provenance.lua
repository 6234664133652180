--- Where results come from: code, machine, circumstances. Each file of records starts with it.
local files = require "attune.util.files"
local uv = require "luv"

local function trimmed(path)
  local text = files.read(path)
  return text and text:match "^%s*(.-)%s*$"
end

local function git(folder)
  local commit = files.capture {"git", "-C", folder, "rev-parse", "HEAD"}
  if not commit then return nil end
  local changed = files.capture {"git", "-C", folder, "status", "--porcelain"}
  return {commit = commit, dirty = changed ~= nil}
end

local function blis_version()
  local version = files.capture {"dpkg-query", "-W", "-f", "${Version}", "libblis4-openmp"}
  return version ~= "" and version or nil
end

--- The header of a file of records.
---@param script string path of the experiment's script
---@param command string as it was typed
---@return attune.Provenance
return function(script, command)
  local core = require "attune.core"
  local machine = core.machine()
  local uname = uv.os_uname()
  return {
    time = os.date "!%Y-%m-%dT%H:%M:%SZ",
    attune = core.version,
    build = core.build,
    git = git(script:match "^(.*)/[^/]*$" or "."),
    blis = blis_version(),
    lua = _VERSION,
    system = ("%s %s %s"):format(uname.sysname, uname.release, uname.machine),
    host = uv.os_gethostname(),
    cpu = machine.cpu,
    cores = machine.cores,
    isa = machine.isa,
    features = machine.features,
    l2 = machine.l2,
    l3 = machine.l3,
    memory = machine.memory,
    threads = core.threads(),
    governor = trimmed "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    huge_pages = trimmed "/sys/kernel/mm/transparent_hugepage/enabled",
    load = ("%.2f"):format((uv.loadavg())),
    script = script,
    command = command,
  }
end
