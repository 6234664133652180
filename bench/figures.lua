--- What each case must reach, as claims of bench/kernels.lua: a min fraction of a ceiling, a min
--- ratio to the speed of another case, or a max number of seconds or bytes.
local attune = require "attune"

local with_dots = require "cases".with_dots
local claims = {}

-- A case without a value has had no round that counts.
local function has(r, case, metric)
  for _, point in ipairs(r.points) do
    if point.parameters.case == case then return point.metrics[metric] ~= nil end
  end
end

-- judge(r) returns a verdict. Every case of `cases` must be part of the run, with this metric.
local function claim(text, metric, cases, judge)
  local needs = {}
  for i, case in ipairs(cases) do needs[i] = {case = case} end
  claims[#claims + 1] = {text, function(r)
    for _, case in ipairs(cases) do
      if not has(r, case, metric) then return nil, case .. ": no round counts" end
    end
    return judge(r)
  end, needs = needs}
end

-- The fraction of a ceiling; "roofline" is the time that max(bytes / read, flops / fma) allows.
local function of(case, ceiling, at_least, text)
  local metric = "of_" .. ceiling
  claim(("%s: at least %.2f of %s"):format(text, at_least, ceiling), metric, {case}, function(r)
    return r:value(metric, {case = case}):above(at_least)
  end)
end

-- How many times as fast as another case.
local function against(case, other, at_least, text)
  claim(("%s: at least %.2f times as fast"):format(text, at_least), "seconds", {case, other},
    function(r) return r:ratio("seconds", {case = other}, {case = case}):above(at_least) end)
end

-- A metric that is divided by that of another case.
local function relative(metric, case, other, at_least, text)
  claim(("%s: at least %.2f"):format(text, at_least), metric, {case, other}, function(r)
    return r:ratio(metric, {case = case}, {case = other}):above(at_least)
  end)
end

local function at_most(metric, case, limit, text)
  claim(text, metric, {case}, function(r) return r:value(metric, {case = case}):below(limit) end)
end

of("matmul", "sgemm", 0.90, "matmul, f32, 2048 cubed")

-- ---- prefill ------------------------------------------------------------------------------------

of("prefill-f32-128", "sgemm", 1.02, "prefill, f32, causal, H 8, S 4096, D 128")
of("prefill-f32-128", "fma", 0.92, "prefill, f32, causal, H 8, S 4096, D 128")
of("prefill-f32-64", "sgemm", 0.96, "prefill, f32, causal, H 8, S 4096, D 64")
of("prefill-f32-64", "fma", 0.87, "prefill, f32, causal, H 8, S 4096, D 64")
against("prefill-f32-128-mqa", "prefill-f32-128", 1,
  "prefill, f32, H 8, D 128: one kv head against 8")
if with_dots then
  of("prefill-bf16-128", "bf16", attune.machine().isa == "amx" and 0.5 or 0.75,
    "prefill, bf16, causal, H 8, S 4096, D 128")
end
against("prefill-bf16-128", "prefill-f32-128", with_dots and 1.6 or 0.9,
  "prefill, D 128: bf16 against f32")
of("prefill-f32-128-avx2", "fma", 0.80,
  "prefill, f32, causal, H 8, S 4096, D 128, with ATTUNE_ISA=avx2")
relative("of_fma", "prefill-f32-128", "prefill-f32-128-one", 0.97,
  "prefill, f32, D 128: the fraction of the peak on all threads over that on one")
against("prefill-f32-128-rope", "prefill-f32-128", 0.97,
  "prefill, f32, D 128: with q and k rotated while packed, against without")
against("prefill-f32-64-rows", "prefill-f32-64", 1 / 1.15,
  "prefill, f32, D 64: with the summaries entropy, distance, sinks, against without")
against("prefill-f32-64-columns", "prefill-f32-64", 1 / 1.7,
  "prefill, f32, D 64: with the summary columns, against without")

-- ---- decode -------------------------------------------------------------------------------------

for _, dtype in ipairs {"f32", "bf16", "f16", "i8"} do
  for _, group in ipairs {1, 2} do
    of(("decode-%s-g%d"):format(dtype, group), "read", dtype == "i8" and 0.90 or 0.95,
      ("decode, %s cache, G %d, S 8192 (32 kv heads), D 128"):format(dtype, group))
  end
  of(("decode-%s-g4"):format(dtype), "read", 0.90,
    ("decode, %s cache, G 4, S 32768 (8 kv heads), D 128"):format(dtype))
end
against("decode-bf16-g1", "decode-f32-g1", 1.9, "decode, G 1: bf16 cache against f32")
against("decode-i8-g1", "decode-f32-g1", 3.4, "decode, G 1: i8 cache against f32")
for _, group in ipairs {32, 48, 71} do
  local function name(dtype) return ("decode-%s-g%d"):format(dtype, group) end
  local what = "decode, %s cache, MQA with G %d, S 8192, D 128"
  of(name "f32", "roofline", 0.88, what:format("f32", group))
  if with_dots then of(name "bf16", "roofline", 0.75, what:format("bf16", group) .. ", bf16 q") end
  against(name "i8", name "bf16", 1, what:format("i8", group) .. ", against bf16")
end
against("decode-f32-g32-rope", "decode-f32-g32", 0.97,
  "decode, f32, G 32: with RoPE on q against without")
for _, dtype in ipairs(with_dots and {"f32", "bf16"} or {"f32"}) do
  relative("of_roofline", ("decode-%s-g32"):format(dtype), ("decode-%s-g1"):format(dtype),
    dtype == "f32" and 0.85 or 0.75,
    ("MQA against MHA, decode, %s, H 32, S 8192: the fraction of the roofline's speed-up"):format(
      dtype))
end

-- ---- weights ------------------------------------------------------------------------------------

for _, format in ipairs {"F16", "BF16", "Q8_0", "Q4_0", "Q4_1"} do
  local what = "one row of x times weights of 4096 x 4096 in " .. format
  of(("weights-%s-f32"):format(format:lower()), "read", 0.85, what)
  if not format:find "F16" then
    of(("weights-%s-i8"):format(format:lower()), "read", 0.85, what .. ", in integers")
  end
end

-- ---- backward -----------------------------------------------------------------------------------

for _, dim in ipairs {64, 128} do
  for _, kv_heads in ipairs {8, 1} do
    of(("backward-%d-kv%d"):format(dim, kv_heads), "sgemm", 0.85,
      ("backward, f32, causal, H 8, %d kv head%s, S 2048, D %d"):format(kv_heads,
        kv_heads > 1 and "s" or "", dim))
  end
end

-- ---- programs -----------------------------------------------------------------------------------

-- {case, max ratio of times forward, backward, text}; nil: not measured.
for _, program in ipairs {
  {"alibi", 1.10, 1.15, "ALiBi as a program"},
  {"softcap", 1.15, 1.15, "softcap, the option"},
  {"softcap-program", 1.15, 1.15, "softcap as a program"},
  {"t5", 1.25, nil, "T5's bias: a table read by distance"},
  {"mask-causal", 1.05, nil, "causal as a mask program"},
} do
  for i, direction in ipairs {"forward", "backward"} do
    local max = program[1 + i]
    if max then
      against(("program-%s-%s"):format(direction, program[1]),
        ("program-%s-plain"):format(direction), 1 / max,
        ("%s, %s, f32, H 8, S 4096, D 64, against attention without it"):format(program[4],
          direction))
    end
  end
end
-- As many visible pairs per second as causal attention.
relative("flop_rate", "mask-window-8192", "mask-plain-8192", 0.70,
  "mask: window of 256 at S 8192: speed over the one that the visible pairs allow")
relative("flop_rate", "mask-documents-8192", "mask-plain-8192", 0.80,
  "mask: causal documents of 512 at S 8192: speed over the one that the visible pairs allow")
at_most("seconds", "block-map", 5e-3,
  "tracing a mask of documents and its block map, S 8192: at most 5 ms")

-- ---- linear attention ---------------------------------------------------------------------------

for _, kind in ipairs {"all", "causal"} do
  local what = kind == "causal" and "FAVOR+, causal" or "FAVOR+, all keys"
  local short, long = ("linear-%s-4096"):format(kind), ("linear-%s-65536"):format(kind)
  of(short, "sgemm", kind == "causal" and 0.65 or 0.80,
    what .. ", f32, H 8, S 4096, D 64, 256 features")
  relative("of_sgemm", long, short, 0.95,
    what .. ": speed at S 65536 over that at S 4096 (constant time per token)")
  of("linear-backward-" .. kind, "sgemm", kind == "causal" and 0.55 or 0.70,
    what .. ", backward, f32, H 8, S 4096, D 64, 256 features")
end

-- ---- overheads ----------------------------------------------------------------------------------

at_most("seconds", "overhead-call", 5e-6,
  "one attention call on tiny tensors, from Lua: at most 5 microseconds")
at_most("seconds", "overhead-version", 30e-3, "`attune --version`: at most 30 ms")
for _, kind in ipairs {{"cpu_seconds", "processor time"}, {"seconds", "elapsed"}} do
  at_most(kind[1], "overhead-sweep-point", 1e-3,
    "a point of a sweep, worker reused, " .. kind[2] .. ": at most 1 ms")
  at_most(kind[1], "overhead-sweep-again", 1,
    "a rerun of 10,000 measured points, " .. kind[2] .. ": at most 1 s")
  at_most(kind[1], "overhead-report", 5,
    "a report of 1,000 points, " .. kind[2] .. ": at most 5 s")
end
at_most("bytes", "overhead-report", 3e6, "a report of 1,000 points and four figures: at most 3 MB")
for _, direction in ipairs {"prefill", "backward"} do
  for _, dim in ipairs {64, 128} do
    for _, tokens in ipairs {2048, 16384} do
      local limit = direction == "prefill" and 2 << 20 or 4 << 20
      at_most("bytes", ("overhead-scratch-%s-%d-%d"):format(direction, dim, tokens), limit + 1,
        ("scratch per thread, %s, f32, H 8, S %d, D %d, without %s: at most %d MiB"):format(
          direction, tokens, dim,
          direction == "prefill" and "a packed copy of a head's K and V" or "lse and delta",
          limit >> 20))
    end
  end
end

return claims
