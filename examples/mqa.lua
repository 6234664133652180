-- MHA, GQA and MQA are one call. The number of kv heads is the only difference.
local attune = require "attune"

local heads, tokens, head_dim = 8, 256, 64
local q = attune.randn({1, heads, tokens, head_dim}, {seed = 1})
for _, kv_heads in ipairs {8, 2, 1} do
  local k = attune.randn({1, kv_heads, tokens, head_dim}, {seed = 2})
  local v = attune.randn({1, kv_heads, tokens, head_dim}, {seed = 3})
  local start = attune.clock()
  local o = attune.attention(q, k, v, {causal = true})
  local seconds = attune.clock() - start
  print(("kv_heads %d: K and V take %d bytes, o sums to %.3f, %.4f s"):format(
    kv_heads, k.nbytes + v.nbytes, o:sum():item(), seconds))
end
