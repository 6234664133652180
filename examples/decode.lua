-- Token by token through a cache, with RoPE, gives the same as all tokens at once.
local attune = require "attune"

local rope = attune.position("rope", {head_dim = 64})
local cache = attune.cache {batch = 1, kv_heads = 1, head_dim = 64, capacity = 64}
local q = attune.randn({1, 4, 20, 64}, {seed = 1})
local k = attune.randn({1, 1, 20, 64}, {seed = 2})
local v = attune.randn({1, 1, 20, 64}, {seed = 3})

local last
for t = 1, 20 do
  cache:append(k:slice(3, t, t), v:slice(3, t, t), {rotate = rope})
  last = cache:attend(q:slice(3, t, t), {rotate = rope})
end

local whole = attune.attention(q, k, v, {causal = true, rotate = rope})
local difference = (whole:slice(3, 20, 20) - last):abs():max():item()
print(("%d tokens, largest difference %.1e"):format(cache.length, difference))
assert(difference < 1e-5)
