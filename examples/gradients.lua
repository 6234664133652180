-- A tiny attention layer learns to copy the token before: gradients, updates, and a gradient check.
local attune = require "attune"
local layers = require "attune.autograd".layers

local vocab, d, tokens = 8, 16, 32
local function weight(seed, ...)
  return attune.randn({...}, {seed = seed, std = 0.3}):requires_grad()
end
local embed, place = weight(1, vocab, d), weight(2, tokens, d)
local wq, wk, wv, out = weight(3, d, d), weight(4, d, d), weight(5, d, d), weight(6, vocab, d)
local parameters = {embed, place, wq, wk, wv, out}

local ids = attune.uniform({1, tokens}, {low = 0, high = vocab - 1, seed = 7}):to "i64"
local before = attune.cat({ids:slice(2, tokens, tokens), ids:slice(2, 1, tokens - 1)}, 2)

local function loss_of()
  local x = layers.embedding(embed, ids) + place
  local function heads(w) return layers.linear(x, w):view(1, tokens, 1, d):transpose(2, 3) end
  local o = attune.attention(heads(wq), heads(wk), heads(wv), {window = 2, causal = true})
  o = o:transpose(2, 3):contiguous():view(1, tokens, d)
  return layers.cross_entropy(layers.linear(o, out), before)
end

for step = 1, 300 do
  local loss = loss_of()
  loss:backward()
  attune.no_grad(function()
    for _, p in ipairs(parameters) do
      p:copy(p - p.grad * 0.5)
      p.grad = nil
    end
  end)
  if step % 100 == 0 then print(("step %d: loss %.3f"):format(step, loss:item())) end
end
print("gelu's gradient agrees with differences", attune.gradcheck(wq.gelu, {wq}))
