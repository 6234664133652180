--- What is measured, and what each figure is a share of.
--
-- Useful work only: causal attention of S tokens counts half of 4 B H S^2 D operations; a decoded token reads each key and value once.
local attune = require "attune"
local ceilings = require "bench.ceilings"

local cases, figures = {}, {}

local bytes_of = {f32 = 4, bf16 = 2, f16 = 2}

local function case(c) cases[#cases + 1] = c end
local function figure(f) figures[#figures + 1] = f end

-- ---- products -------------------------------------------------------------------------------------------------------

case {name = "matmul", ceilings = {"sgemm", "fma"}, make = function()
  local a, b = attune.randn({2048, 2048}, {seed = 1}), attune.randn({2048, 2048}, {seed = 2})
  return {run = function() attune.matmul(a, b) end, flops = 2 * 2048 ^ 3}
end}
figure {"matmul, f32, 2048 cubed", case = "matmul", of = "sgemm", at_least = 0.90}

-- ---- prefill --------------------------------------------------------------------------------------------------------

local function prefill(name, p)
  case {name = name, ceilings = {"sgemm", "fma"}, make = function()
    local q = attune.randn({1, p.heads, p.tokens, p.dim}, {seed = 1}):to(p.dtype)
    local k, v = attune.randn({1, p.kv_heads, p.tokens, p.dim}, {seed = 2}):to(p.dtype), attune.randn({1, p.kv_heads, p.tokens, p.dim}, {seed = 3}):to(p.dtype)
    local options = {causal = true, engine = "tiled"}
    return {run = function()
      local o, lse = attune.attention(q, k, v, options)
      o:close()
      lse:close()
    end, flops = 2 * p.heads * p.tokens ^ 2 * p.dim}
  end}
end

for _, dim in ipairs {128, 64} do
  prefill("prefill-f32-" .. dim, {heads = 8, kv_heads = 8, tokens = 4096, dim = dim, dtype = "f32"})
  figure {("prefill, f32, causal, H 8, S 4096, D %d"):format(dim), case = "prefill-f32-" .. dim, of = "sgemm", at_least = dim == 128 and 0.85 or 0.75}
end

-- ---- decode ---------------------------------------------------------------------------------------------------------

-- One token over caches used in turn, which take as much memory as the readings of bandwidth do: each finds its cache in memory, and no more of it by chance
-- in the last level than those do.
local function decode(name, p)
  local bytes = 2 * p.kv_heads * p.tokens * p.dim * bytes_of[p.dtype]
  case {name = name, ceilings = {"read", "fma"}, heavy = true, cold = true, make = function()
    local caches, k, turn = {}, attune.randn({1, p.kv_heads, 512, p.dim}, {seed = 1}), 0
    for i = 1, math.max(1, math.ceil(ceilings.past_caches() / bytes)) do
      caches[i] = attune.cache {kv_heads = p.kv_heads, head_dim = p.dim, capacity = p.tokens, dtype = p.dtype}
      for _ = 1, p.tokens // 512 do caches[i]:append(k, k) end
    end
    local q = attune.randn({1, p.heads, 1, p.dim}, {seed = 2})
    return {run = function()
      turn = turn % #caches + 1
      caches[turn]:attend(q)
    end, flops = 4 * p.heads * p.tokens * p.dim, bytes = bytes}
  end}
end

for _, dtype in ipairs {"f32", "bf16"} do
  for _, group in ipairs {1, 32} do
    local name = ("decode-%s-g%d"):format(dtype, group)
    decode(name, {heads = 32, kv_heads = 32 // group, tokens = 8192, dim = 128, dtype = dtype})
    figure {("decode, %s cache, H 32, kv heads %d, S 8192, D 128"):format(dtype, 32 // group), case = name, of = "roofline", at_least = 0.85}
  end
end

return {cases = cases, figures = figures}
