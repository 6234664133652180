--- How close do the kernels come to the limits of this machine?
--
-- Each case (bench/cases.lua) is timed between readings of its ceilings: BLIS's sgemm, the peak of
-- multiply-adds, and the bandwidth of memory (t:against in docs/experiments.md). A round in which a
-- case exceeds a peak is void, and a warning says so. bench/figures.lua says what each case must
-- reach. `make bench` runs this, and `make bench-check` runs it with the builds of two commits.
local cases = require "cases"

local by_name, names = {}, {}
for i, case in ipairs(cases.list) do by_name[case.name], names[i] = case, case.name end

-- A field of the case as a parameter; a case without it has another value.
local function field(name, without)
  return function(p) return by_name[p.case][name] or without end
end

local function available(isa)
  for _, set in ipairs(require "attune".machine().isas) do
    if set == isa then return true end
  end
end

local metrics = {
  seconds = {unit = "s", better = "lower", about = "the fastest call of a round"},
  cpu_seconds = {unit = "s", better = "lower", about = "processor time of all processes"},
  bytes = {unit = "B", better = "lower", about = "scratch memory per thread; size of a report"},
  flop_rate = {unit = "FLOP/s", better = "higher", about = "useful operations per second"},
  intensity = {unit = "FLOP/B", about = "useful operations per byte that must be read"},
  fma = {unit = "FLOP/s", about = "f32 multiply-adds of the instruction set in use"},
  bf16 = {unit = "FLOP/s", about = "bf16 dot products of the instruction set in use"},
  sgemm = {unit = "FLOP/s", about = "BLIS sgemm, 2048 cubed"},
  read = {unit = "B/s", about = "reading far more than the last cache holds, 2 MiB pages"},
  of_roofline = {
    better = "higher", about = "the time that max(bytes / read, flops / peak) allows over seconds",
  },
}
for _, ceiling in ipairs {"fma", "bf16", "sgemm", "read"} do
  metrics["of_" .. ceiling] = {better = "higher", about = "the fraction of " .. ceiling}
end

return require "attune.experiment" {
  name = "kernels",
  about = "How close do the kernels come to the limits of this machine?",
  fixed = {shrink = 1},
  grid = {case = names},
  quick = {shrink = 16, rounds = 3},
  derived = {
    part = field "part",
    dtype = field("dtype", "f32"),
    tokens = function(p) return (by_name[p.case].tokens or 0) // p.shrink end,
    isa = field("isa", "default"),
    label = field("label", "-"),
  },
  order = {"case", "part", "label", "dtype", "tokens", "isa"},
  environment = function(p)
    -- An instruction set that this machine lacks would end the worker before its trial.
    return p.isa ~= "default" and available(p.isa) and {ATTUNE_ISA = p.isa} or nil
  end,
  rounds = 9,
  metrics = metrics,
  trial = function(p, t)
    local case = by_name[p.case]
    if p.isa ~= "default" and not available(p.isa) then
      return nil, "this machine does not have " .. p.isa
    end
    if case.measure then return case.measure(p, t) end
    local work = case.make(p.shrink)
    if not case.ceilings then return {seconds = t:time(work.run, {budget = 0.06})} end
    return t:against(work.run, {
      name = p.case,
      ceilings = case.ceilings,
      flops = work.flops,
      bytes = work.bytes,
      calls = work.calls,
      memory = work.memory,
      seconds = t.quick and 0.01 or 0.06,
    })
  end,
  plots = {
    {kind = "roofline", name = "roofline", title = "The cases under the machine's roofline",
      x = "intensity", y = "flop_rate", by = "dtype", label = "label", peak = {"fma", "bf16"},
      bandwidth = "read", where = {part = {"prefill", "decode"}, label = {
        "prefill, D 128", "prefill, D 64", "G 1", "G 4", "G 32", "G 71",
      }},
      caption = "G: query heads per key-value head, decoding one token."},
    {kind = "line", name = "prefill-time", title = "Prefill: causal, 8 heads, D 64, f32",
      x = "tokens", y = "seconds", by = "label", where = {part = "prefill-curve"},
      log = "xy"},
    {kind = "line", name = "decode-time",
      title = "Decoding one token: 32 heads, D 128, f32 cache in memory", x = "tokens",
      y = "seconds", by = "label", where = {part = "decode-curve"}, log = "xy"},
  },
  claims = require "figures",
}
