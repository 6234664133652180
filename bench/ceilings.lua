--- The limits of the machine. A reading takes some milliseconds; readings are taken before and
--- after every measurement.
local attune = require "attune"

local ceilings = {}

-- The memory to read. It is kept, as filling it costs more than reading it.
local memory

--- The number of bytes of which the processor's caches hold only a small part when they are read
--- again.
function ceilings.past_caches() return math.max(256 << 20, 6 * attune.machine().l3) end

-- BLIS's threads spin for about a millisecond after a product and would slow the next measurement
-- down.
local function rest(seconds)
  local until_then = attune.clock() + seconds
  while attune.clock() < until_then do end
end

--- name = {reading = function(seconds) -> units per second, unit, about, peak = true where no case
--- can exceed it}
ceilings.list = {
  fma = {unit = "FLOP/s", peak = true,
      about = "f32 multiply-adds of the instruction set in use, all threads",
      reading = function(seconds)
    return attune.measure.peak(seconds)
  end},
  fma_one = {unit = "FLOP/s", peak = true, about = "the same, one thread",
      reading = function(seconds)
    local all = attune.threads()
    attune.threads(1)
    local rate = attune.measure.peak(seconds)
    attune.threads(all)
    return rate
  end},
  bf16 = {unit = "FLOP/s", peak = true,
      about = "bf16 dot products of the instruction set in use, all threads",
      reading = function(seconds)
    return attune.measure.peak(seconds, "bf16")
  end},
  sgemm = {unit = "FLOP/s", about = "BLIS sgemm, 2048 cubed, all threads",
      reading = function(seconds)
    local rate = attune.measure.sgemm(seconds, 2048)
    rest(0.005)
    return rate
  end},
  read = {unit = "B/s", peak = true,
      about = "reading far more than the last cache holds, 2 MiB pages, all threads",
      reading = function(seconds, of)
    if of then return attune.measure.read(seconds, table.unpack(of)) end
    memory = memory or attune.zeros {ceilings.past_caches() // 4}
    return attune.measure.read(seconds, memory)
  end},
}

--- Names in the order in which they are printed.
ceilings.names = {"fma", "fma_one", "bf16", "sgemm", "read"}

return ceilings
