-- Linear attention with FAVOR+ features, compared with exact attention.
local attune = require "attune"

local q = attune.randn({1, 2, 128, 32}, {seed = 1, std = 0.5})
local k = attune.randn({1, 2, 128, 32}, {seed = 2, std = 0.5})
local v = attune.randn({1, 2, 128, 32}, {seed = 3})
local exact = attune.attention(q, k, v, {causal = true})
for _, features in ipairs {32, 128, 512} do
  local projection = attune.favor_projection {head_dim = 32, features = features, seed = 1}
  local o = attune.linear_attention(q, k, v, {projection = projection, causal = true})
  local difference = o - exact
  local root = math.sqrt((difference * difference):mean():item())
  print(("%4d features: root mean square error %.4f"):format(features, root))
end
