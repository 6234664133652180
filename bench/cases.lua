--- The cases that are timed, and the figures: what each is compared with.
--
-- Only useful work counts: causal attention of S tokens has half of 4 B H S^2 D operations, its
-- gradients 2.5 times that; a decoded token reads each key and value once. bench/rounds.lua lists
-- the fields of a case. A case with `point` is drawn in the roofline picture under that name, and a
-- case with `curve` in the picture of time against tokens. A figure is {text, case, of, at_least}.
-- `of` is a ceiling or "roofline": the fraction of it that is reached; or another case: how many
-- times as fast as that one. Other comparisons have a function `ratio`, and `target` says what it
-- compares with.
local attune = require "attune"
local ceilings = require "bench.ceilings"
local rounds = require "bench.rounds"

local cases, figures = {}, {}

local bytes_of = {f32 = 4, bf16 = 2, f16 = 2, i8 = 1}
-- Without these instructions bf16 is converted to f32 when it is loaded.
local with_dots = attune.measure.peak(0.01, "bf16") > 0

local function case(c) cases[#cases + 1] = c end
local function figure(f) figures[#figures + 1] = f end

-- ---- products -----------------------------------------------------------------------------------

case {name = "matmul", ceilings = {"sgemm", "fma"}, make = function()
  local a, b = attune.randn({2048, 2048}, {seed = 1}), attune.randn({2048, 2048}, {seed = 2})
  return {run = function() attune.matmul(a, b) end, flops = 2 * 2048 ^ 3}
end}
figure {"matmul, f32, 2048 cubed", case = "matmul", of = "sgemm", at_least = 0.90}

-- ---- prefill ------------------------------------------------------------------------------------

local function inputs(p)
  local function of(heads, seed)
    return attune.randn({1, heads, p.tokens, p.dim}, {seed = seed}):to(p.dtype or "f32")
  end
  return of(p.heads, 1), of(p.kv_heads, 2), of(p.kv_heads, 3)
end

local function prefill(name, p)
  case {name = name, isa = p.isa, arithmetic = p.threads and "fma_one", point = p.point,
      curve = p.curve, tokens = p.tokens, ceilings = p.ceilings or {"sgemm", "fma"},
      dots = p.dtype == "bf16" and with_dots, make = function()
    local q, k, v = inputs(p)
    local options = {
      causal = true,
      engine = p.engine or "tiled",
      rotate = p.rotate and attune.position("rope", {head_dim = p.dim}),
      summaries = p.summaries,
    }
    local all = attune.threads()
    return {run = function()
      if p.threads then attune.threads(p.threads) end
      local o, lse, summaries = attune.attention(q, k, v, options)
      if p.threads then attune.threads(all) end
      o:close()
      lse:close()
      for _, summary in pairs(summaries or {}) do summary:close() end
    end, flops = 2 * p.heads * p.tokens ^ 2 * p.dim, bytes = 2 * (p.heads + p.kv_heads) * p.tokens
      * p.dim * bytes_of[p.dtype or "f32"]}
  end}
end

for _, dim in ipairs {128, 64} do
  local shape = ("H 8, S 4096, D %d"):format(dim)
  prefill("prefill-f32-" .. dim, {
    heads = 8,
    kv_heads = 8,
    tokens = 4096,
    dim = dim,
    point = ("prefill f32, D %d"):format(dim),
  })
  figure {
    "prefill, f32, causal, " .. shape, case = "prefill-f32-" .. dim, of = "sgemm",
    at_least = dim == 128 and 1.02 or 0.96,
  }
  figure {
    "the same", case = "prefill-f32-" .. dim, of = "fma", at_least = dim == 128 and 0.92 or 0.87,
  }
end
prefill("prefill-f32-128-mqa", {heads = 8, kv_heads = 1, tokens = 4096, dim = 128})
figure {
  "prefill, f32, H 8, D 128: one kv head against 8", case = "prefill-f32-128-mqa",
  of = "prefill-f32-128", at_least = 1,
}
prefill("prefill-bf16-128", {
  heads = 8,
  kv_heads = 8,
  tokens = 4096,
  dim = 128,
  dtype = "bf16",
  ceilings = with_dots and {"fma", "bf16"} or {"fma"},
  point = "prefill bf16, D 128",
})
if with_dots then
  figure {
    "prefill, bf16, causal, H 8, S 4096, D 128",
    case = "prefill-bf16-128",
    of = "bf16",
    at_least = attune.machine().isa == "amx" and 0.5 or 0.75,
  }
end
figure {
  "the same against f32", case = "prefill-bf16-128", of = "prefill-f32-128",
  at_least = with_dots and 1.6 or 0.9,
}
prefill("prefill-f32-128-avx2", {
  heads = 8,
  kv_heads = 8,
  tokens = 4096,
  dim = 128,
  isa = "avx2",
  ceilings = {"fma"},
})
figure {
  "prefill, f32, causal, H 8, S 4096, D 128, with ATTUNE_ISA=avx2",
  case = "prefill-f32-128-avx2",
  isa = "avx2",
  of = "fma",
  at_least = 0.80,
}
prefill("prefill-f32-128-one", {
  heads = 8,
  kv_heads = 8,
  tokens = 4096,
  dim = 128,
  threads = 1,
  ceilings = {"fma_one"},
})
figure {"prefill, f32, D 128: all threads against one", case = "prefill-f32-128",
    needs = {"prefill-f32-128-one"}, target = "the gain of the peak", at_least = 0.97,
    ratio = function(sample, samples)
  local other = rounds.same_round(sample, samples, "prefill-f32-128-one")
  return other and other.seconds / sample.seconds / (sample.ceiling.fma / other.ceiling.fma_one)
end}
prefill("prefill-f32-128-rope", {heads = 8, kv_heads = 8, tokens = 4096, dim = 128, rotate = true})
figure {
  "prefill, f32, D 128: with q and k rotated while packed, against without",
  case = "prefill-f32-128-rope",
  of = "prefill-f32-128",
  at_least = 0.97,
}
for name, p in pairs {
  rows = {{"entropy", "distance", "sinks"}, 1 / 1.15},
  columns = {{"columns"}, 1 / 1.7},
} do
  local case_name = "prefill-f32-64-" .. name
  prefill(case_name, {heads = 8, kv_heads = 8, tokens = 4096, dim = 64, summaries = p[1]})
  figure {
    "prefill, f32, D 64: with the summaries " .. table.concat(p[1], ", ") .. ", against without",
    case = case_name, of = "prefill-f32-64", at_least = p[2],
  }
end

-- ---- decode -------------------------------------------------------------------------------------

-- One token over each of several caches, which together have as many bytes as the readings of
-- bandwidth. So the processor's caches hold as little of them as of the memory that is read.
local function decode(name, p)
  local dots = p.dots and with_dots
  local bytes = 2 * p.kv_heads * p.tokens * p.dim * bytes_of[p.dtype]
    + (p.dtype == "i8" and 8 * p.kv_heads * p.tokens or 0)
  case {name = name, point = p.point, curve = p.curve, tokens = p.tokens,
    ceilings = dots and {"read", "fma", "bf16"} or {"read", "fma"}, heavy = true, cold = true,
    dots = dots,
    -- Without 8-bit dot products i8 is still faster than f32, and no ceiling is read for it.
    arithmetic = p.dtype == "i8" and not dots and "integers" or nil, make = function()
    local caches, k = {}, attune.randn({1, p.kv_heads, 512, p.dim}, {seed = 1})
    for i = 1, math.max(1, math.ceil(ceilings.past_caches() / bytes)) do
      caches[i] = attune.cache {
        kv_heads = p.kv_heads, head_dim = p.dim, capacity = p.tokens, dtype = p.dtype,
      }
      for _ = 1, p.tokens // 512 do caches[i]:append(k, k) end
    end
    local q = attune.randn({1, p.heads, 1, p.dim}, {seed = 2}):to(p.dots and "bf16" or "f32")
    local options = {rotate = p.rotate and attune.position("rope", {head_dim = p.dim})}
    return {run = function()
      for _, cache in ipairs(caches) do cache:attend(q, options) end
    end, flops = 4 * p.heads * p.tokens * p.dim * #caches, bytes = bytes * #caches,
      times = #caches, memory = caches}
  end}
end

-- Multi-head attention and small groups are limited by memory.
for _, dtype in ipairs {"f32", "bf16", "f16", "i8"} do
  for _, group in ipairs {1, 2} do
    local name = ("decode-%s-g%d"):format(dtype, group)
    decode(name, {
      heads = 32 * group,
      kv_heads = 32,
      tokens = 8192,
      dim = 128,
      dtype = dtype,
      dots = dtype == "bf16",
      point = dtype ~= "f16" and group == 1 and ("decode %s, G 1"):format(dtype),
    })
    figure {
      ("decode, %s cache, G %d, S 8192 (32 kv heads), D 128"):format(dtype, group),
      case = name,
      of = "read",
      at_least = dtype == "i8" and 0.90 or 0.95,
    }
  end
  local name = ("decode-%s-g4"):format(dtype)
  decode(name, {
    heads = 32,
    kv_heads = 8,
    tokens = 32768,
    dim = 128,
    dtype = dtype,
    dots = dtype == "bf16",
    point = (dtype == "f32" or dtype == "bf16") and ("decode %s, G 4"):format(dtype),
  })
  figure {
    ("decode, %s cache, G 4, S 32768 (8 kv heads), D 128"):format(dtype),
    case = name,
    of = "read",
    at_least = 0.90,
  }
end
figure {
  "decode, G 1: bf16 cache against f32", case = "decode-bf16-g1", of = "decode-f32-g1",
  at_least = 1.9,
}
figure {
  "decode, G 1: i8 cache against f32", case = "decode-i8-g1", of = "decode-f32-g1", at_least = 3.4,
}

-- Multi-query attention is limited by arithmetic.
for _, group in ipairs {32, 48, 71} do
  for _, dtype in ipairs {"f32", "bf16", "i8"} do
    local name = ("decode-%s-g%d"):format(dtype, group)
    local dots = dtype ~= "f32"
    decode(name, {
      heads = group,
      kv_heads = 1,
      tokens = 8192,
      dim = 128,
      dtype = dtype,
      dots = dots,
      point = dtype ~= "i8" and group ~= 48 and ("decode %s, G %d"):format(dtype, group),
    })
    local what = ("decode, %s cache, MQA with G %d, S 8192, D 128"):format(dtype, group)
    if dtype == "f32" then figure {what, case = name, of = "roofline", at_least = 0.88}
    elseif dtype == "bf16" and with_dots then
      figure {what .. ", bf16 q", case = name, of = "roofline", at_least = 0.75}
    elseif dtype == "i8" then
      figure {
        what .. ", against bf16",
        case = name,
        of = ("decode-bf16-g%d"):format(group),
        at_least = 1,
      }
    end
  end
end
decode("decode-f32-g32-rope", {
  heads = 32, kv_heads = 1, tokens = 8192, dim = 128, dtype = "f32", rotate = true,
})
figure {
  "decode, f32, G 32: with RoPE on q against without", case = "decode-f32-g32-rope",
  of = "decode-f32-g32", at_least = 0.97,
}

-- The fraction of the roofline's speed-up of one kv head over 32 that is reached.
local function speed_up(text, fast, slow, at_least)
  figure {text, case = fast, needs = {slow}, target = "the roofline's speed-up",
      at_least = at_least, ratio = function(sample, samples)
    local other = rounds.same_round(sample, samples, slow)
    return other
      and other.seconds / sample.seconds
        / (rounds.least_seconds(other) / rounds.least_seconds(sample))
  end}
end
speed_up("MQA against MHA, decode, f32, H 32, S 8192", "decode-f32-g32", "decode-f32-g1", 0.85)
if with_dots then
  speed_up("MQA against MHA, decode, bf16, H 32, S 8192", "decode-bf16-g32", "decode-bf16-g1", 0.75)
end

-- ---- backward -----------------------------------------------------------------------------------

for _, dim in ipairs {64, 128} do
  for _, kv_heads in ipairs {8, 1} do
    local p = {heads = 8, kv_heads = kv_heads, tokens = 2048, dim = dim}
    local name = ("backward-%d-kv%d"):format(dim, kv_heads)
    case {name = name, ceilings = {"sgemm", "fma"}, make = function()
      local q, k, v = inputs(p)
      local d_o = attune.randn({1, p.heads, p.tokens, p.dim}, {seed = 4})
      local o, lse = attune.attention(q, k, v, {causal = true})
      return {run = function()
        for _, t in ipairs {attune.attention_backward(d_o, q, k, v, o, lse, {causal = true})} do
          if type(t) == "userdata" then t:close() end
        end
      end, flops = 5 * p.heads * p.tokens ^ 2 * p.dim}
    end}
    figure {
      (
        "backward, f32, causal, H 8, %d kv head%s, S 2048, D %d"
      ):format(kv_heads, kv_heads > 1 and "s" or "", dim),
      case = name,
      of = "sgemm",
      at_least = 0.85,
    }
  end
end

-- ---- programs: the cost of a score or a mask, compared with causal attention without it ---------

-- p.pairs: the visible pairs of one head; causal without it.
local function modified(name, p)
  local tokens, visible_pairs = p.tokens, p.pairs or p.tokens * (p.tokens + 1) / 2
  case {name = name, ceilings = {"sgemm", "fma"}, make = function()
    local q, k, v = inputs {heads = 8, kv_heads = 8, tokens = tokens, dim = 64}
    local options = p.options()
    local o, lse = attune.attention(q, k, v, options)
    local d_o = attune.randn({1, 8, tokens, 64}, {seed = 4})
    return {run = function()
      local results = p.backward
        and {attune.attention_backward(d_o, q, k, v, o, lse, options)}
        or {attune.attention(q, k, v, options)}
      for _, t in ipairs(results) do
        if type(t) == "userdata" then t:close() end
      end
    end, flops = (p.backward and 10 or 4) * 8 * visible_pairs * 64}
  end}
end

-- {name, options, max ratio of times forward, backward, text}; nil: not measured.
local with_programs = {
  {"plain", function() return {causal = true} end},
  {
    "alibi",
    function() return {causal = true, score = attune.position("alibi", {heads = 8}).score} end,
    1.10,
    1.15,
    "ALiBi as a program",
  },
  {
    "softcap",
    function() return {causal = true, softcap = 20} end,
    1.15,
    1.15,
    "softcap, the option",
  },
  {
    "softcap-program",
    function() return {causal = true, score = attune.scores.softcap(20)} end,
    1.15,
    1.15,
    "softcap as a program",
  },
  {
    "t5",
    function()
      return {
        causal = true,
        score = attune.position("t5", {heads = 8, bidirectional = false, seed = 1}).score,
      }
    end,
    1.25,
    nil,
    "T5's bias: a table read by distance",
  },
  {
    "mask-causal",
    function() return {mask = attune.masks.causal()} end,
    1.05,
    nil,
    "causal as a mask program",
  },
}
for _, backward in ipairs {false, true} do
  local direction = backward and "backward" or "forward"
  for _, program in ipairs(with_programs) do
    local name, max = ("program-%s-%s"):format(direction, program[1]), program[backward and 4 or 3]
    if program[1] == "plain" or max then
      modified(name, {tokens = 4096, options = program[2], backward = backward})
    end
    if max then
      figure {
        (
          "%s, %s, f32, H 8, S 4096, D 64: against attention without it"
        ):format(program[5], direction),
        case = name,
        of = ("program-%s-plain"):format(direction),
        at_least = 1 / max,
      }
    end
  end
end

local function documents_of(size, tokens)
  local ids = {}
  for n = 1, tokens do ids[n] = (n - 1) // size end
  return ids
end
modified("mask-plain-8192", {tokens = 8192, options = function() return {causal = true} end})
modified("mask-window-8192", {tokens = 8192, pairs = 8192 * 256 - 256 * 255 / 2,
    options = function()
  return {mask = attune.masks.sliding_window(256)}
end})
modified("mask-documents-8192", {tokens = 8192, pairs = 8192 * 513 / 2, options = function()
  return {
    mask = attune.masks.all(attune.masks.causal(), attune.masks.documents(documents_of(512, 8192))),
  }
end})
-- The speed that the fraction of visible pairs allows: as many pairs per second as causal
-- attention.
local function by_density(text, name, at_least)
  figure {text, case = name, needs = {"mask-plain-8192"},
      target = "the speed that the visible pairs allow", at_least = at_least,
      ratio = function(sample, samples)
    local other = rounds.same_round(sample, samples, "mask-plain-8192")
    return other and sample.flops / sample.seconds / (other.flops / other.seconds)
  end}
end
by_density("mask: window of 256 at S 8192", "mask-window-8192", 0.70)
by_density("mask: causal documents of 512 at S 8192", "mask-documents-8192", 0.80)

-- Tracing a mask and making its block map should take at most 5 ms.
case {name = "block-map", ceilings = {"fma"}, make = function()
  local ids = attune.tensor(documents_of(500, 8192), {dtype = "i32"})
  return {
    run = function()
      attune.block_map(attune.masks.all(attune.masks.causal(), attune.masks.documents(ids)), {
        heads = 8, queries = 8192,
      })
    end,
    flops = 0,
  }
end}
figure {"tracing a mask of documents and its block map, S 8192", case = "block-map",
    target = "times in 5 ms", at_least = 1, ratio = function(sample)
  return 0.005 / sample.seconds
end}

-- ---- linear attention ---------------------------------------------------------------------------

-- 8 H S M D operations: the features of q and of k, the sums over keys, and their products with the
-- features of q. Products within a causal block are extra and do not count.
local function linear(p)
  local name = ("linear-%s-%d"):format(p.causal and "causal" or "all", p.tokens)
  case {name = name, ceilings = {"sgemm", "fma"}, make = function()
    local q, k, v = inputs {heads = 8, kv_heads = 8, tokens = p.tokens, dim = 64}
    local options = {
      causal = p.causal,
      projection = attune.favor_projection {head_dim = 64, features = 256, seed = 1},
    }
    return {
      run = function() attune.linear_attention(q, k, v, options):close() end,
      flops = 8 * 8 * p.tokens * 256 * 64,
    }
  end}
  return name
end

-- 18 H S M D operations: the features of q and of k, S, R, and the gradients of both features, of
-- q, k and v. What is computed twice counts once.
local function linear_backward(causal)
  local name = causal and "linear-backward-causal" or "linear-backward-all"
  case {name = name, ceilings = {"sgemm", "fma"}, make = function()
    local q, k, v = inputs {heads = 8, kv_heads = 8, tokens = 4096, dim = 64}
    local slopes = attune.randn({1, 8, 4096, 64}, {seed = 4})
    local options = {
      causal = causal,
      projection = attune.favor_projection {head_dim = 64, features = 256, seed = 1},
    }
    return {run = function()
      for _, gradient in ipairs {attune.linear_attention_backward(slopes, q, k, v, options)} do
        gradient:close()
      end
    end, flops = 18 * 8 * 4096 * 256 * 64}
  end}
  return name
end

for _, causal in ipairs {false, true} do
  local what = causal and "FAVOR+, causal" or "FAVOR+, all keys"
  local short = linear {causal = causal, tokens = 4096}
  local long = linear {causal = causal, tokens = 65536}
  figure {
    what .. ", f32, H 8, S 4096, D 64, 256 features", case = short, of = "sgemm",
    at_least = causal and 0.65 or 0.80,
  }
  figure {"the same, time per token at S 4096 over that at S 65536", case = long,
      needs = {short}, target = "constant time per token", at_least = 0.95,
      ratio = function(sample, samples)
    local other = rounds.same_round(sample, samples, short)
    -- Each is divided by the sgemm reading of its round, as the machine's speed may have changed.
    return other
      and other.seconds * other.ceiling.sgemm / 4096
        / (sample.seconds * sample.ceiling.sgemm / 65536)
  end}
  figure {
    what .. ", backward, f32, H 8, S 4096, D 64, 256 features",
    case = linear_backward(causal),
    of = "sgemm",
    at_least = causal and 0.55 or 0.70,
  }
end

-- ---- curves: only for the picture --------------------------------------------------------------

for tokens = 8, 13 do
  local shape = {heads = 8, tokens = 1 << tokens, dim = 64}
  local function curve(name, kv_heads, engine)
    prefill(("curve-%s-%d"):format(name, shape.tokens), {
      heads = 8, kv_heads = kv_heads, tokens = shape.tokens, dim = 64, engine = engine,
      curve = "prefill:" .. name,
    })
  end
  curve("tiled, 8 kv heads", 8, "tiled")
  curve("tiled, 1 kv head", 1, "tiled")
  if tokens < 13 then curve("textbook over BLIS, 8 kv heads", 8, "blis") end
end
for tokens = 9, 15 do
  for _, kv_heads in ipairs {32, 8, 1} do
    local name = ("%d kv head%s"):format(kv_heads, kv_heads > 1 and "s" or "")
    decode(("curve-%s-%d"):format(name, 1 << tokens), {
      heads = 32, kv_heads = kv_heads, tokens = 1 << tokens, dim = 128, dtype = "f32",
      curve = "decode:" .. name,
    })
  end
end

return {cases = cases, figures = figures}
