--- The work that bench/kernels.lua times.
--
-- A case is {name, make, ceilings, ..}. make(shrink) prepares it with token counts divided by
-- shrink, and returns {run = function, flops, bytes, calls, memory}: flops and bytes are the min
-- that one call needs, and `run` makes `calls` calls (1 by default). Only useful work counts:
-- causal attention of S tokens has half of 4 B H S^2 D operations, its gradients 2.5 times that; a
-- decoded token reads each key and value once. `ceilings` are those of t:against; without them
-- seconds alone are measured. Other fields become parameters: part, dtype, tokens, isa, and
-- `label`, under which the pictures show the case. A case with `measure(p, t)` returns its metrics
-- from there.
local attune = require "attune"
local weights = require "weights"

local list = {}

local bytes_of = {f32 = 4, bf16 = 2, f16 = 2, i8 = 1}
-- Without these instructions bf16 is converted to f32 when it is loaded.
local with_dots = attune.measure.peak(0.001, "bf16") > 0

local function case(part, c)
  c.part = part
  list[#list + 1] = c
end

local function close(results)
  for _, t in ipairs(results) do
    if type(t) == "userdata" then t:close() end
  end
end

-- ---- products -----------------------------------------------------------------------------------

case("matmul", {name = "matmul", ceilings = {"sgemm", "fma"}, make = function(shrink)
  local n = 2048 // shrink
  local a, b = attune.randn({n, n}, {seed = 1}), attune.randn({n, n}, {seed = 2})
  return {run = function() attune.matmul(a, b):close() end, flops = 2 * n ^ 3}
end})

-- ---- prefill ------------------------------------------------------------------------------------

local function inputs(p, tokens)
  local function of(heads, seed)
    return attune.randn({1, heads, tokens, p.dim}, {seed = seed}):to(p.dtype or "f32")
  end
  return of(p.heads, 1), of(p.kv_heads, 2), of(p.kv_heads, 3)
end

-- With `threads` the work and its ceilings are measured on that number of threads.
local function prefill(part, c)
  c.ceilings = c.ceilings or {"sgemm", "fma"}
  c.make = function(shrink)
    if c.threads then attune.threads(c.threads) end
    local tokens = c.tokens // shrink
    local q, k, v = inputs(c, tokens)
    local options = {
      causal = true,
      engine = c.engine or "tiled",
      rotate = c.rotate and attune.position("rope", {head_dim = c.dim}),
      summaries = c.summaries,
    }
    return {run = function()
      local o, lse, summaries = attune.attention(q, k, v, options)
      close {o, lse}
      for _, summary in pairs(summaries or {}) do summary:close() end
    end, flops = 2 * c.heads * tokens ^ 2 * c.dim,
      bytes = 2 * (c.heads + c.kv_heads) * tokens * c.dim * bytes_of[c.dtype or "f32"]}
  end
  case(part, c)
end

for _, dim in ipairs {128, 64} do
  prefill("prefill", {name = "prefill-f32-" .. dim, heads = 8, kv_heads = 8, tokens = 4096,
    dim = dim, label = ("prefill, D %d"):format(dim)})
end
prefill("prefill", {name = "prefill-f32-128-mqa", heads = 8, kv_heads = 1, tokens = 4096,
  dim = 128})
prefill("prefill", {name = "prefill-bf16-128", heads = 8, kv_heads = 8, tokens = 4096, dim = 128,
  dtype = "bf16", ceilings = {with_dots and "bf16" or "fma"}, label = "prefill, D 128"})
prefill("prefill", {name = "prefill-f32-128-avx2", heads = 8, kv_heads = 8, tokens = 4096,
  dim = 128, isa = "avx2", ceilings = {"fma"}})
prefill("prefill", {name = "prefill-f32-128-one", heads = 8, kv_heads = 8, tokens = 4096,
  dim = 128, threads = 1, ceilings = {"fma"}})
prefill("prefill", {name = "prefill-f32-128-rope", heads = 8, kv_heads = 8, tokens = 4096,
  dim = 128, rotate = true})
prefill("prefill", {name = "prefill-f32-64-rows", heads = 8, kv_heads = 8, tokens = 4096, dim = 64,
  summaries = {"entropy", "distance", "sinks"}})
prefill("prefill", {name = "prefill-f32-64-columns", heads = 8, kv_heads = 8, tokens = 4096,
  dim = 64, summaries = {"columns"}})

-- ---- decode -------------------------------------------------------------------------------------

-- One token over each of several caches, which together have as many bytes as the readings of
-- bandwidth. So the processor's caches hold as little of them as of the memory that is read.
local function past_caches() return math.max(256 << 20, 6 * attune.machine().l3) end

local function decode(part, c)
  local dots = c.dots and with_dots
  -- Without 8-bit dot products i8 is still faster than f32, and no peak is read for it.
  c.ceilings = {"read", dots and "bf16" or c.dtype ~= "i8" and "fma" or nil}
  c.make = function(shrink)
    local tokens = c.tokens // shrink
    local bytes = 2 * c.kv_heads * tokens * c.dim * bytes_of[c.dtype]
      + (c.dtype == "i8" and 8 * c.kv_heads * tokens or 0)
    local caches = {}
    local count = shrink > 1 and 1 or math.ceil(past_caches() / bytes)
    local piece = math.min(512, tokens)
    local k = attune.randn({1, c.kv_heads, piece, c.dim}, {seed = 1})
    for i = 1, count do
      caches[i] = attune.cache {
        kv_heads = c.kv_heads, head_dim = c.dim, capacity = tokens, dtype = c.dtype,
      }
      for _ = 1, tokens // piece do caches[i]:append(k, k) end
    end
    local q = attune.randn({1, c.heads, 1, c.dim}, {seed = 2}):to(c.dots and "bf16" or "f32")
    local options = {rotate = c.rotate and attune.position("rope", {head_dim = c.dim})}
    return {run = function()
      for _, cache in ipairs(caches) do cache:attend(q, options) end
    end, flops = 4 * c.heads * tokens * c.dim, bytes = bytes, calls = #caches, memory = caches}
  end
  case(part, c)
end

-- Multi-head attention and small groups are limited by memory.
for _, dtype in ipairs {"f32", "bf16", "f16", "i8"} do
  for _, group in ipairs {1, 2} do
    decode("decode", {name = ("decode-%s-g%d"):format(dtype, group), heads = 32 * group,
      kv_heads = 32, tokens = 8192, dim = 128, dtype = dtype, dots = dtype == "bf16",
      label = dtype ~= "f16" and group == 1 and "G 1" or nil})
  end
  decode("decode", {name = ("decode-%s-g4"):format(dtype), heads = 32, kv_heads = 8, tokens = 32768,
    dim = 128, dtype = dtype, dots = dtype == "bf16",
    label = (dtype == "f32" or dtype == "bf16") and "G 4" or nil})
end

-- Multi-query attention is limited by arithmetic.
for _, group in ipairs {32, 48, 71} do
  for _, dtype in ipairs {"f32", "bf16", "i8"} do
    decode("decode", {name = ("decode-%s-g%d"):format(dtype, group), heads = group, kv_heads = 1,
      tokens = 8192, dim = 128, dtype = dtype, dots = dtype ~= "f32",
      label = dtype ~= "i8" and group ~= 48 and ("decode, G %d"):format(group) or nil})
  end
end
decode("decode", {name = "decode-f32-g32-rope", heads = 32, kv_heads = 1, tokens = 8192, dim = 128,
  dtype = "f32", rotate = true})

-- ---- weights ------------------------------------------------------------------------------------

-- One row of x times matrices of 4096 x 4096, which together are as large as the caches of decode.
for _, compute in ipairs {"f32", "i8"} do
  for format in ("F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K"):gmatch "%S+" do
    local is_plain = format:find "F16" ~= nil
    if compute == "f32" or not is_plain then
      case("weights", {name = ("weights-%s-%s"):format(format:lower(), compute),
          dtype = format:lower(), ceilings = {"read"}, make = function(shrink)
        local columns, rows = 4096, 4096 // shrink
        local least = shrink > 1 and 1 or past_caches()
        local matrices = weights.copies(format, rows, columns, compute, least)
        local x = attune.randn({1, columns}, {seed = 1})
        return {run = function()
          for _, matrix in ipairs(matrices) do matrix:apply(x):close() end
        end, flops = 2 * rows * columns, bytes = matrices[1].nbytes, calls = #matrices}
      end})
    end
  end
end

-- ---- backward -----------------------------------------------------------------------------------

for _, dim in ipairs {64, 128} do
  for _, kv_heads in ipairs {8, 1} do
    local p = {heads = 8, kv_heads = kv_heads, dim = dim}
    case("backward", {name = ("backward-%d-kv%d"):format(dim, kv_heads), tokens = 2048,
      kv_heads = kv_heads, dim = dim, ceilings = {"sgemm", "fma"}, make = function(shrink)
      local tokens = 2048 // shrink
      local q, k, v = inputs(p, tokens)
      local d_o = attune.randn({1, p.heads, tokens, dim}, {seed = 4})
      local o, lse = attune.attention(q, k, v, {causal = true})
      return {run = function()
        close {attune.attention_backward(d_o, q, k, v, o, lse, {causal = true})}
      end, flops = 5 * p.heads * tokens ^ 2 * dim}
    end})
  end
end

-- ---- programs: the cost of a score or a mask, compared with causal attention without it ---------

-- c.pairs(tokens): the visible pairs of one head; causal without it. c.options(tokens)
local function modified(part, c)
  c.ceilings = {"sgemm", "fma"}
  c.make = function(shrink)
    local tokens = c.tokens // shrink
    local visible_pairs = c.pairs and c.pairs(tokens) or tokens * (tokens + 1) / 2
    local q, k, v = inputs({heads = 8, kv_heads = 8, dim = 64}, tokens)
    local options = c.options(tokens)
    local o, lse = attune.attention(q, k, v, options)
    local d_o = attune.randn({1, 8, tokens, 64}, {seed = 4})
    return {run = function()
      if c.backward then
        close {attune.attention_backward(d_o, q, k, v, o, lse, options)}
      else
        close {attune.attention(q, k, v, options)}
      end
    end, flops = (c.backward and 10 or 4) * 8 * visible_pairs * 64}
  end
  case(part, c)
end

local with_programs = {
  {"plain", function() return {causal = true} end},
  {"alibi", function()
    return {causal = true, score = attune.position("alibi", {heads = 8}).score}
  end},
  {"softcap", function() return {causal = true, softcap = 20} end},
  {"softcap-program", function() return {causal = true, score = attune.scores.softcap(20)} end},
  {"t5", function()
    local t5 = attune.position("t5", {heads = 8, bidirectional = false, seed = 1})
    return {causal = true, score = t5.score}
  end, only_forward = true},
  {"mask-causal", function() return {mask = attune.masks.causal()} end, only_forward = true},
}
for _, direction in ipairs {"forward", "backward"} do
  for _, program in ipairs(with_programs) do
    if direction == "forward" or not program.only_forward then
      modified("program", {name = ("program-%s-%s"):format(direction, program[1]), tokens = 4096,
        options = program[2], backward = direction == "backward"})
    end
  end
end

local function documents_of(size, tokens)
  local ids = {}
  for n = 1, tokens do ids[n] = (n - 1) // size end
  return ids
end
modified("mask", {name = "mask-plain-8192", tokens = 8192, options = function()
  return {causal = true}
end})
modified("mask", {name = "mask-window-8192", tokens = 8192, pairs = function(tokens)
  return tokens * 256 - 256 * 255 / 2
end, options = function() return {mask = attune.masks.sliding_window(256)} end})
modified("mask", {name = "mask-documents-8192", tokens = 8192, pairs = function(tokens)
  return tokens * 513 / 2
end, options = function(tokens)
  local documents = attune.masks.documents(documents_of(512, tokens))
  return {mask = attune.masks.all(attune.masks.causal(), documents)}
end})

-- Tracing a mask and making its block map.
case("block-map", {name = "block-map", tokens = 8192, make = function(shrink)
  local tokens = 8192 // shrink
  local ids = attune.tensor(documents_of(500, tokens), {dtype = "i32"})
  return {run = function()
    attune.block_map(attune.masks.all(attune.masks.causal(), attune.masks.documents(ids)), {
      heads = 8, queries = tokens,
    })
  end}
end})

-- ---- linear attention ---------------------------------------------------------------------------

local function linear_options(causal)
  return {
    causal = causal,
    projection = attune.favor_projection {head_dim = 64, features = 256, seed = 1},
  }
end

-- 8 H S M D operations: the features of q and of k, the sums over keys, and their products with the
-- features of q. Products within a causal block are extra and do not count. The gradients have
-- 18 H S M D: the features of q and of k, S, R, and the gradients of both features, of q, k and v.
-- What is computed twice counts once.
local function linear(name, causal, tokens, backward)
  case("linear", {name = name, tokens = tokens, ceilings = {"sgemm", "fma"},
      make = function(shrink)
    local n = tokens // shrink
    local q, k, v = inputs({heads = 8, kv_heads = 8, dim = 64}, n)
    local options, d_o = linear_options(causal), attune.randn({1, 8, n, 64}, {seed = 4})
    return {run = function()
      if backward then
        close {attune.linear_attention_backward(d_o, q, k, v, options)}
      else
        attune.linear_attention(q, k, v, options):close()
      end
    end, flops = (backward and 18 or 8) * 8 * n * 256 * 64}
  end})
end

for _, kind in ipairs {"all", "causal"} do
  linear(("linear-%s-4096"):format(kind), kind == "causal", 4096)
  linear(("linear-%s-65536"):format(kind), kind == "causal", 65536)
  linear("linear-backward-" .. kind, kind == "causal", 4096, true)
end

-- ---- curves: only for the pictures --------------------------------------------------------------

for power = 8, 13 do
  local function curve(series, kv_heads, engine)
    prefill("prefill-curve", {name = ("curve-%s-%d"):format(series, 1 << power), heads = 8,
      kv_heads = kv_heads, tokens = 1 << power, dim = 64, engine = engine, label = series})
  end
  curve("tiled, 8 kv heads", 8, "tiled")
  curve("tiled, 1 kv head", 1, "tiled")
  if power < 13 then curve("textbook over BLIS, 8 kv heads", 8, "blis") end
end
for power = 9, 15 do
  for _, kv_heads in ipairs {32, 8, 1} do
    local series = ("%d kv head%s"):format(kv_heads, kv_heads > 1 and "s" or "")
    decode("decode-curve", {name = ("curve-%s-%d"):format(series, 1 << power), heads = 32,
      kv_heads = kv_heads, tokens = 1 << power, dim = 128, dtype = "f32", label = series})
  end
end

for _, c in ipairs(require "overheads") do list[#list + 1] = c end

return {list = list, with_dots = with_dots}
