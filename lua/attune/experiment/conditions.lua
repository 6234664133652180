--- What else happened on the machine while something was timed, and the cause that it points to.
local uv = require "luv"

local conditions = {}

-- Sums over all processors, in ticks: those in use, those that the host took, all of them. Nil
-- where /proc/stat does not say. Guest time is part of user time (proc(5)).
local function processor_ticks()
  local file = io.open "/proc/stat"
  if not file then return nil end
  local line = file:read "l" or ""
  file:close()
  local fields = {}
  for number in line:gmatch "%d+" do fields[#fields + 1] = tonumber(number) end
  if not line:find "^cpu " or #fields < 8 then return nil end
  local user, nice, system, idle, iowait, irq, softirq, steal = table.unpack(fields, 1, 8)
  local used = user + nice + system + irq + softirq
  return {used = used, stolen = steal, all = used + steal + idle + iowait}
end

-- The first processor's frequency now; nil where the system does not say.
local function frequency()
  local file = io.open "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
  if not file then return nil end
  local value = tonumber(file:read "l")
  file:close()
  return value
end

local function seconds(t) return t.sec + t.usec * 1e-6 end

--- The state of the machine and of this process now.
---@return table
function conditions.now()
  local usage = uv.getrusage() or {}
  return {
    time = uv.hrtime() * 1e-9,
    processors = processor_ticks(),
    frequency = frequency(),
    own = usage.utime and seconds(usage.utime) + seconds(usage.stime) or 0,
    major_faults = usage.majflt or 0,
    minor_faults = usage.minflt or 0,
  }
end

local min_steal, min_load, min_frequency_change = 0.01, 0.2, 0.05
local faults_per_sample, min_samples = 20, 10
local ticks_per_second = 100 -- USER_HZ, the same on every Linux that luv runs on

---@alias attune.Unsteadiness
---| "steal"      the host gave the processor to others
---| "load"       other programs used at least a fifth of a processor
---| "faults"     memory was touched for the first time, or read back from a disk
---| "frequency"  the processor's frequency changed by more than 5%
---| "samples"    fewer than ten samples
---| "unknown"    none of these

--- The cause that the conditions before and after some samples point to.
---@param before table
---@param after table
---@param samples integer
---@return attune.Unsteadiness
function conditions.cause(before, after, samples)
  local elapsed = math.max(after.time - before.time, 1e-9)
  local p, q = before.processors, after.processors
  if p and q and q.all > p.all then
    if (q.stolen - p.stolen) / (q.all - p.all) > min_steal then return "steal" end
    local own = after.own - before.own
    -- One tick may be counted too early or too late.
    local others = (q.used - p.used - 1) / ticks_per_second - own
    if others / elapsed > min_load then return "load" end
  end
  local minor = after.minor_faults - before.minor_faults
  if after.major_faults > before.major_faults or minor > faults_per_sample * samples then
    return "faults"
  end
  if before.frequency and after.frequency then
    local ratio = after.frequency / before.frequency
    if math.abs(ratio - 1) > min_frequency_change then return "frequency" end
  end
  return samples < min_samples and "samples" or "unknown"
end

return conditions
