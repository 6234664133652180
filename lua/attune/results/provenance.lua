--- Where results come from: code, machine, circumstances. Each file of records starts with it.
local files = require "attune.util.files"
local text = require "attune.util.text"
local uv = require "luv"

local function trimmed(path)
  local content = files.read(path, 1 << 16)
  return content and content:match "^%s*(.-)%s*$"
end

local function git(folder)
  -- A repository's own settings may name programs to run; git status would run this one.
  local words = {"git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", folder}
  local function capture(...)
    local all = table.move(words, 1, #words, 1, {})
    return files.capture(table.move({...}, 1, select("#", ...), #all + 1, all))
  end
  local commit = capture("rev-parse", "HEAD")
  if not commit then return nil end
  local changed = capture("status", "--porcelain")
  return {commit = commit, dirty = changed ~= nil}
end

local function blis_version()
  local version = files.capture {"dpkg-query", "-W", "-f", "${Version}", "libblis4-openmp"}
  return version ~= "" and version or nil
end

--- The header of a file of records. It names neither the machine nor the user, unless asked: the
--- home folder in paths is written ~.
---@param script string path of the experiment's script
---@param command string as it was typed
---@param options? {host: boolean?, source: string?, folder: string?} host: with the machine's name;
--- source: the fingerprint of the script; folder: whose commit is named, in place of the script's
---@return attune.Provenance
return function(script, command, options)
  options = options or {}
  local home = uv.os_homedir()
  local core = require "attune.core"
  local uname = uv.os_uname()
  local header = {
    time = os.date "!%Y-%m-%dT%H:%M:%SZ",
    attune = core.version,
    build = core.build,
    git = git(options.folder or script:match "^(.*)/[^/]*$" or "."),
    blis = blis_version(),
    lua = _VERSION,
    system = ("%s %s %s"):format(uname.sysname, uname.release, uname.machine),
    host = options.host and uv.os_gethostname() or nil,
    source = options.source,
    threads = core.threads(),
    governor = trimmed "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    huge_pages = trimmed "/sys/kernel/mm/transparent_hugepage/enabled",
    load = ("%.2f"):format((uv.loadavg())),
    script = text.without_home(script, home),
    command = text.without_home(command, home),
  }
  local machine = core.machine()
  for _, name in ipairs {"cpu", "cores", "isa", "features", "l2", "l3", "memory"} do
    header[name] = machine[name]
  end
  return header
end
