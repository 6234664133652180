--- Writes in place between the forward pass and backward, into tensors that options, programs and
--- recomputed functions read.
local attune = require "attune"
local autograd = require "attune.autograd"
local layers = require "attune.autograd.layers"
local fails = require "tests.support.expect".fails
local nn = require "attune.nn"

local function heads(seed)
  return attune.randn({1, 2, 4, 8}, {seed = seed}):requires_grad()
end

local function ids(...) return attune.tensor({...}, {dtype = "i32"}) end

describe("errors of backward", function()
  it("name the line that called it", function()
    local here = require "tests.support.expect".here
    local x, w = attune.ones({2}):requires_grad(), attune.ones({2}):requires_grad()
    local function starts(start, fn)
      local _, message = pcall(fn)
      assert.equal(start, message:match "[^/]+$":sub(1, #start))
    end
    for _, forward in ipairs {
      function() return (x * w):sum() end,
      function() return autograd.checkpoint(function(y) return y * w end, x):sum() end,
    } do
      local loss = forward()
      attune.no_grad(function() w:fill(3) end)
      starts(here(1) .. "backward: a tensor that", function()
        loss:backward()
      end)
      starts(here(1) .. "backward: expected a graph that was not walked yet", function()
        loss:backward()
      end)
    end
  end)
end)

-- Runs forward, writes, and expects backward to raise; without the write it must not.
local function check(forward, write)
  forward():backward()
  local loss = forward()
  attune.no_grad(write)
  fails("modified in place", function() loss:backward() end)
  forward():backward()
end

describe("backward notices a write in place into", function()
  local q, k, v = heads(1), heads(2), heads(3)
  local function attention(options)
    return function() return (attune.attention(q, k, v, options)):sum() end
  end

  it("a tensor that a mask reads", function()
    local doc = ids(1, 1, 2, 2)
    check(attention {
      causal = true, mask = function(at) return doc[at.i]:eq(doc[at.j]) end,
    }, function() doc:copy(ids(1, 2, 2, 2)) end)
  end)

  it("a table of a score, with and without gradients", function()
    for _, wanted in ipairs {false, true} do
      local bias = attune.ones {4}
      if wanted then bias:requires_grad() end
      check(attention {score = function(s, at) return s + bias[at.kv] end},
        function() bias:fill(2) end)
    end
    local slopes = attune.tensor {0.5, 0.25}
    check(attention {score = attune.scores.alibi(slopes)}, function() slopes:fill(1) end)
  end)

  it("sinks and positions", function()
    local sinks = attune.ones {2}
    check(attention {sinks = sinks}, function() sinks:fill(2) end)
    local positions = ids(0, 1, 2, 3)
    check(attention {
      rotate = attune.position("rope", {head_dim = 8}), positions = positions,
    }, function() positions:fill(3) end)
  end)

  it("the projection of linear attention", function()
    local projection = attune.favor_projection {head_dim = 8, features = 4, seed = 1}
    check(function()
      return attune.linear_attention(q, k, v, {projection = projection}):sum()
    end, function() projection:fill(0.5) end)
  end)
end)

describe("a recomputed function: backward notices a write in place into", function()
  local x = attune.randn({2, 3}, {seed = 1}):requires_grad()
  local w = attune.randn({3, 3}, {seed = 2}):requires_grad()

  it("a weight that it reads, also through a view", function()
    for _, fn in ipairs {
      function(y) return layers.linear(y, w) end,
      function(y) return attune.matmul(y, w:transpose(1, 2)) end,
      function(y) return attune.cat({y, w}, 1) end,
      function(y) return attune.matmul(y, w:gt(0):to "f32") end,
    } do
      check(function() return autograd.checkpoint(fn, x):sum() end, function() w:fill(0.5) end)
    end
  end)

  it("what attention reads in it", function()
    local q, k = heads(1), heads(2)
    local bias = attune.ones({4}):requires_grad()
    local function forward()
      return autograd.checkpoint(function(y)
        return (attune.attention(y, k, k, {score = function(s, at) return s + bias[at.kv] end}))
      end, q):sum()
    end
    check(forward, function() bias:fill(2) end)
    check(forward, function() k:fill(2) end)
  end)

  it("a weight of a Decoder with recompute", function()
    local model = nn.Decoder {
      vocab = 8, d_model = 8, layers = 2, heads = 2, seed = 1, recompute = true,
    }
    for _, name in ipairs {"blocks.1.mlp.down.weight", "blocks.2.norm1.weight"} do
      check(function() return (model:loss({{1, 2, 3}}, {{2, 3, 4}})) end,
        function() model:parameters()[name]:fill(0.1) end)
    end
  end)
end)

describe("a recomputed function", function()
  it("may follow a write into weights that it does not read", function()
    local x, w = attune.ones({2, 3}):requires_grad(), attune.ones({3, 3}):requires_grad()
    local other = attune.ones({3}):requires_grad()
    local loss = autograd.checkpoint(function(y) return layers.linear(y, w) end, x):sum()
    attune.no_grad(function() other:fill(2) end)
    loss:backward()
  end)
end)
