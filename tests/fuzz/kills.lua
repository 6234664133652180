--- kills [--seed N] [--count N] - kills runs with SIGKILL at random moments: the runner, or its
--- workers, in turn. After each kill every trial whose end the run had told must have its record,
--- no trial may have two results, and the next run must go on.
local files = require "attune.util.files"
local run = require "tests.support.run"
local store = require "attune.results.store"
local text = require "attune.util.text"
local uv = require "luv"

local options = require "tests.fuzz.options"(arg, {seed = 1, count = 200})
local attune = uv.fs_realpath(os.getenv "ATTUNE_BUILD_DIR") .. "/attune"
local work = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/attune-kills-XXXXXX"))

local points, rounds = 6, 20
local script = work .. "/killed.lua"
assert(files.write(script, ([[
return require "attune.experiment" {
  name = "killed", timing = false, rounds = %d, grid = {a = {1, 2, 3, 4, 5, 6}},
  trial = function(p)
    require "luv".sleep(2)
    return {y = p.a, samples = {1.5, p.seed}}
  end,
}
]]):format(rounds)))

local state = options.seed
local function random(n)
  state = state * 6364136223846793005 + 1442695040888963407
  return (state >> 33) % n
end

local function fail(dir, format, ...)
  io.stderr:write(("kills: %s: %s\n"):format(dir, format:format(...)))
  os.exit(1)
end

-- The processes that a process has started.
local function children_of(process)
  local list = files.read(("/proc/%d/task/%d/children"):format(process, process), 1 << 16)
  return (list or ""):gmatch "%d+"
end

-- Runs attune in a folder and kills what `victim` says after some milliseconds. Returns what was
-- said, the exit status and the signal.
local function attack(dir, victim, milliseconds)
  local out, said, code, signal, killed = uv.new_pipe(false), "", nil, nil, false
  local handle, pid = uv.spawn(attune, {
    args = {"run", script, "--out", dir}, stdio = {nil, nil, out},
  }, function(c, s) code, signal = c, s end)
  local open = true
  out:read_start(function(_, chunk)
    if chunk then said = said .. chunk else open = false end
  end)
  local timer = uv.new_timer()
  timer:start(milliseconds, 0, function()
    if code then return end
    if victim == "runner" then
      killed = uv.kill(pid, "sigkill") == 0
    else
      for child in children_of(pid) do
        local line = files.read(("/proc/%s/cmdline"):format(child), 1 << 16) or ""
        killed = line:find "trial%z*$" and uv.kill(math.tointeger(child), "sigkill") == 0
          or killed
      end
    end
  end)
  while not code or open do uv.run "once" end
  for _, h in ipairs {timer, out, handle} do h:close() end
  uv.run "nowait"
  return said, code, signal, killed
end

-- Checks the records of a folder against what was told so far: {[trial in words] = true}.
local function check(dir, told)
  local ok = {}
  for _, record in ipairs((store.records(dir))) do
    local words = ("a %d (round %d)"):format(record.parameters.a, record.round)
    if record.status == "ok" then
      if ok[words] then fail(dir, "%s has two results", words) end
      if record.metrics.y ~= record.parameters.a then fail(dir, "%s: a wrong value", words) end
      ok[words] = true
    elseif record.signal ~= "SIGKILL" then
      fail(dir, "%s: expected ok or SIGKILL, got %s: %s", words, record.status, record.reason)
    end
  end
  local count = 0
  for words in pairs(told) do
    if not ok[words] then fail(dir, "%s was told and is not there", words) end
  end
  for _ in pairs(ok) do count = count + 1 end
  return count
end

local kills, folder, told, sums = 0, 0, {}, {runner = 0, worker = 0}
local dir = work .. "/results-0"
local typical = 400 -- milliseconds of a run; followed below
while kills < options.count do
  local victim = random(2) == 0 and "runner" or "worker"
  local begin = uv.hrtime()
  local said, code, signal, killed = attack(dir, victim, random(math.ceil(typical)))
  for line in said:gmatch "[^\n]+" do
    local words = line:match "^%[%d+/%d+%] (a %d+ %(round %d+%))"
    if words then told[words] = true end
  end
  if killed then kills, sums[victim] = kills + 1, sums[victim] + 1 end
  if signal ~= 9 and code ~= 0 and code ~= 1 then fail(dir, "status %d: %s", code, said) end
  local count = check(dir, told)
  if signal == 0 then
    typical = 0.7 * typical + 0.3 * math.min(2000, (uv.hrtime() - begin) * 1e-6)
  end
  if code == 0 and signal == 0 then
    if count ~= points * rounds then fail(dir, "%d results after a whole run", count) end
    folder, told = folder + 1, {}
    dir = ("%s/results-%d"):format(work, folder)
  end
end
print(("%d kills (%d of the runner, %d of its workers) in %s: every result that was told is there, "
  .. "none twice"):format(kills, sums.runner, sums.worker, text.count(folder + 1, "folder")))
run.remove(work)
