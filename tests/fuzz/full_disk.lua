--- full_disk - runs an experiment in file systems that are too small: 4 KiB more each time,
--- and one file more each time, until a run has all it needs. So every write is once the one that
--- fails. A run must then say that the space is used up, and end with 2 or 1; records that were
--- whole before stay whole; the same command completes the results once there is space; nothing is
--- written elsewhere. It mounts file systems in memory, and so needs root.
local files = require "attune.util.files"
local run = require "tests.support.run"
local store = require "attune.results.store"
local text = require "attune.util.text"
local uv = require "luv"

local attune = uv.fs_realpath(os.getenv "ATTUNE_BUILD_DIR") .. "/attune"
local work = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/attune-full_disk-XXXXXX"))
local mount, elsewhere = work .. "/small", work .. "/elsewhere"
assert(files.make_folder(mount))
assert(files.make_folder(elsewhere))
local script = work .. "/filled.lua"
assert(files.write(script, [[
return require "attune.experiment" {
  name = "filled", timing = false, rounds = 3, grid = {a = {1, 2, 3, 4}},
  trial = function(p)
    local samples = {}
    for i = 1, 60 do samples[i] = i / 7 + p.seed end
    return {y = samples, z = p.a}
  end,
  plots = {{kind = "line", x = "a", y = "y"}},
  claims = {{"z is positive", function(r) return r:value("z", {a = 1}):above(0) end}},
}
]]))

local failures = 0
local function complain(what, format, ...)
  io.stderr:write(("full_disk: %s: %s\n"):format(what, format:format(...)))
  failures = failures + 1
end

local function sh(command)
  return run.in_folder(elsewhere, command)
end

local function attempt()
  return sh(("TMPDIR=%s HOME=%s %s run %s --out %s/out"):format(elsewhere, elsewhere, attune,
    script, mount))
end

-- The trials with a result, in the words of a run.
local function results()
  local list, count = {}, 0
  for _, record in ipairs((store.records(mount .. "/out"))) do
    local key = ("a %d (round %d)"):format(record.parameters.a, record.round)
    if list[key] then return nil, "two results of one trial" end
    list[key], count = true, count + 1
  end
  return list, count
end

-- What a full disk is called, by attune, gnuplot or the system.
local function says_full(said)
  return said:find("ENOSPC", 1, true) or said:find("o space left", 1, true)
end

local function try(options, larger)
  local what = "with " .. options
  assert(select(2, sh(("mount -t tmpfs -o %s none %s"):format(options, mount))) == 0)
  local said, status = attempt()
  local whole = status == 0
  if not whole then
    if status ~= 1 and status ~= 2 then complain(what, "status %s: %s", status, said) end
    if not says_full(said) then complain(what, "no word of the space: %s", said) end
    if said:find("traceback", 1, true) then complain(what, "a traceback: %s", said) end
    local before = results()
    sh(("mount -o remount,%s %s"):format(larger, mount))
    local again, then_status = attempt()
    if then_status ~= 0 then complain(what, "then status %s: %s", then_status, again) end
    local after, count = results()
    if not after or count ~= 12 then complain(what, "then %s", tostring(count)) end
    for key in pairs(before or {}) do
      if not (after and after[key]) then complain(what, "a result is gone") end
    end
    if not before then complain(what, "a trial is there twice") end
    for words in said:gmatch "%[%d+/12%] (a %d %(round %d%))" do
      if before and not before[words] then complain(what, "%s was told and is not there", words) end
    end
  end
  for _, name in ipairs(files.list(elsewhere)) do
    if not name:find "^%.cache" then complain(what, "%s was written elsewhere", name) end
  end
  for _, place in ipairs {"/out", "/out/trials", "/out/plots"} do
    for _, name in ipairs(files.list(mount .. place)) do
      if files.is_temporary(name) then complain(what, "%s/%s is left over", place, name) end
    end
  end
  sh("umount " .. mount)
  return whole
end

local tries = 0
for _, kind in ipairs {{"size=%dk,nr_inodes=0", 4, "size=64m"}, {"size=64m,nr_inodes=%d", 1,
  "nr_inodes=10000"}} do
  local n = 0
  repeat
    n = n + kind[2]
    tries = tries + 1
  until try(kind[1]:format(n), kind[3]) or failures > 5
end
if failures == 0 then run.remove(work) end
print(("%s, %s"):format(text.count(tries, "full disk"), text.count(failures, "failure")))
os.exit(failures == 0)
