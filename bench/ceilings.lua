--- What the machine allows, as readings that take some milliseconds each: they stand before and after every measurement.
local attune = require "attune"

local ceilings = {}

local past_caches -- memory to read, kept: filling it anew each time would cost more than reading it

-- BLIS's threads spin for about a millisecond after a product, and would take the processor from what comes next.
local function rest(seconds)
  local until_then = attune.clock() + seconds
  while attune.clock() < until_then do end
end

--- name = {reading = function(seconds) -> a second, unit, about, peak = true where nothing can exceed it}
ceilings.list = {
  fma = {unit = "FLOP/s", peak = true, about = "f32 multiply-adds of the instruction set in use, all threads", reading = function(seconds) return attune.measure.peak(seconds) end},
  sgemm = {unit = "FLOP/s", about = "BLIS sgemm, 2048 cubed, all threads", reading = function(seconds)
    local rate = attune.measure.sgemm(seconds, 2048)
    rest(0.005)
    return rate
  end},
  read = {unit = "B/s", peak = true, about = "reading far past the last cache, 2 MiB pages, all threads", reading = function(seconds)
    past_caches = past_caches or attune.zeros {math.max(256 << 20, 4 * attune.machine().l3) // 4}
    return attune.measure.read(seconds, past_caches)
  end},
}

--- Names in the order in which they are told.
ceilings.names = {"fma", "sgemm", "read"}

return ceilings
