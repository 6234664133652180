--- What sweeps cost besides their trials: a point, a rerun that measures nothing, a report. Each is
--- a function that returns metrics: `seconds` that pass, and `cpu_seconds`, the processor time of
--- all processes of the command. On a machine that others use too the second is the one to judge
--- by.
local attune = require "attune"
local process = require "attune.util.process"
local uv = require "luv"

local sweeps = {}

local ticks_per_second = 100 -- USER_HZ, the same on every Linux that luv runs on

-- Processor time in seconds of the processes that this one has started and that have ended, and of
-- theirs: fields 16 and 17 of /proc/self/stat, the first two fields being "pid (name)".
local function children_seconds()
  local file = assert(io.open "/proc/self/stat")
  local fields = {}
  for field in file:read "a":match "^.*%) (.*)":gmatch "%S+" do fields[#fields + 1] = field end
  file:close()
  return (tonumber(fields[14]) + tonumber(fields[15])) / ticks_per_second
end

-- Runs attune. Returns the processor time and the time that passed, in seconds.
local function cost(...)
  local words = {os.getenv "ATTUNE_COMMAND" or "build/attune", ...}
  local cpu, start = children_seconds(), attune.clock()
  local ended = assert(process.run(words, 1, 600))
  assert(ended.code == 0, table.concat(words, " ") .. " failed")
  return {cpu = children_seconds() - cpu, elapsed = attune.clock() - start}
end

-- A script with n points whose trials do nothing.
local function nothing(folder, n)
  local path = ("%s/nothing%d.lua"):format(folder, n)
  local file = assert(io.open(path, "w"))
  file:write(([[
    local list = {}
    for i = 1, %d do list[i] = i end
    return require "attune.experiment" {
      name = "nothing", rounds = 1, timing = false, grid = {i = list},
      metrics = {x = {unit = "s", better = "lower"}},
      trial = function(p) return {x = p.i} end,
    }]]):format(n))
  file:close()
  return path
end

-- 1,000 points of 3 rounds, with samples and four figures.
local function full(folder)
  local path = folder .. "/full.lua"
  local file = assert(io.open(path, "w"))
  file:write [[
    local list = {}
    for i = 1, 100 do list[i] = i end
    return require "attune.experiment" {
      name = "full", rounds = 3, timing = false,
      grid = {i = list, k = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
      metrics = {seconds = {unit = "s", better = "lower"}, bytes = {unit = "B"}},
      trial = function(p)
        local samples = {}
        for j = 1, 20 do samples[j] = 1e-3 * p.i * (1 + 0.01 * math.random()) end
        return {seconds = samples, bytes = 1024 * p.i * p.k}
      end,
      plots = {
        {kind = "line", x = "i", y = "seconds", by = "k", log = "xy"},
        {kind = "heat", x = "i", y = "k", value = "bytes"},
        {kind = "bars", x = "i", y = "bytes", by = "k", where = {i = {1, 2, 3, 4}}},
        {kind = "scatter", x = "bytes", y = "seconds"},
      },
    }]]
  file:close()
  return path
end

local function size_of(path) return assert(uv.fs_stat(path)).size end

local function in_folder(body)
  local folder = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/attune-sweeps-XXXXXX"))
  local ok, result = pcall(body, folder)
  os.execute(("rm -rf '%s'"):format(folder))
  if not ok then error(result, 0) end
  return result
end

local function metrics(of, factor)
  return {seconds = of.elapsed * factor, cpu_seconds = of.cpu * factor}
end

-- A point of a sweep whose worker is reused, from runs of few and of many points.
sweeps["sweep-point"] = function(p)
  local few, many = 1000 // p.shrink, 10000 // p.shrink
  return in_folder(function(folder)
    local of_few = cost("run", nothing(folder, few), "--out", folder .. "/few")
    local of_many = cost("run", nothing(folder, many), "--out", folder .. "/many")
    return metrics({
      cpu = of_many.cpu - of_few.cpu, elapsed = of_many.elapsed - of_few.elapsed,
    }, 1 / (many - few))
  end)
end

-- A run of 10,000 points that are there.
sweeps["sweep-again"] = function(p)
  return in_folder(function(folder)
    local script = nothing(folder, 10000 // p.shrink)
    cost("run", script, "--out", folder .. "/many")
    return metrics(cost("run", script, "--out", folder .. "/many"), 1)
  end)
end

-- A report of 1,000 points and four figures.
sweeps["report"] = function()
  return in_folder(function(folder)
    cost("run", full(folder), "--out", folder .. "/full")
    local values = metrics(cost("report", folder .. "/full"), 1)
    values.bytes = size_of(folder .. "/full/report.html")
    return values
  end)
end

return sweeps
