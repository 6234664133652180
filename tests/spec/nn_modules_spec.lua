--- Modules in use: dropout and its steps, the context of a call, attention and blocks in modules of
--- one's own.
local attune = require "attune"
local expect = require "tests.support.expect"
local nn = require "attune.nn"

local ids, targets = {{1, 2, 3, 4}}, {{2, 3, 4, 5}}

local function decoder(more)
  local o = {vocab = 8, d_model = 8, layers = 2, heads = 2, seed = 1}
  for name, value in pairs(more or {}) do o[name] = value end
  return nn.Decoder(o)
end

local function loss_of(model, context) return model:loss(ids, targets, nil, context):item() end

local function fails(text, fn, ...)
  local arguments = table.pack(...)
  return expect.fails_with(text, function() fn(table.unpack(arguments, 1, arguments.n)) end)
end

describe("dropout", function()
  it("is off without a step, and on with one", function()
    local model = decoder {dropout = 0.9}
    local plain = loss_of(decoder())
    assert.equal(plain, loss_of(model))
    model:set_step(1)
    local dropped = loss_of(model)
    assert.is_true(math.abs(dropped - plain) > 1e-4)
    local logits = model:forward(ids)
    model:set_step(nil)
    assert.equal(plain, loss_of(model))
    expect.differ(model:forward(ids), logits, 1e-4)
  end)

  it("is on with the model's step where the caller gives a context without one", function()
    for _, more in ipairs {{dropout = 0.9}, {dropout = 0.9, pattern = {{}, {share_kv = 1}}}} do
      local model = decoder(more)
      model:set_step(1)
      local dropped = loss_of(model)
      assert.equal(dropped, loss_of(model, {lengths = {4}}))
      assert.equal(dropped, loss_of(model, {dropout_step = 1}))
      assert.is_true(dropped ~= loss_of(model, {dropout_step = 2}))
      local plain = decoder {pattern = more.pattern}
      assert.equal(loss_of(plain), loss_of(model, {dropout_step = false}))
    end
  end)

  it("reaches the modules of a module of one's own", function()
    local Own = nn.module "Own"
    function Own:init()
      self.decoder = decoder {dropout = 0.9}
      self.list = {nn.Dropout {p = 0.5}}
      self._left_out = nn.Dropout {p = 0.5}
    end
    function Own:loss(...) return self.decoder:loss(...) end
    local own, model, x = Own(), decoder {dropout = 0.9}, attune.ones {8, 8}
    model:set_step(3)
    own:set_step(3)
    assert.equal(loss_of(model), loss_of(own))
    expect.differ(own.list[1](x), x, 0.5)
    expect.close(own.list[1](x), nn.Dropout {p = 0.5}(x, {dropout_step = 3}), 0)
    expect.close(own._left_out(x), x, 0)
    own:set_step(nil)
    assert.equal(loss_of(decoder()), loss_of(own))
    expect.close(own.list[1](x), x, 0)
    fails("set_step: expected the number of a step, or nil, got 'x'", own.set_step, own, "x")
  end)

  it("is on in train.run for a module that wraps a Decoder", function()
    local train = require "attune.train"
    local Own = nn.module "Own"
    function Own:init(p) self.decoder = decoder {dropout = p} end
    function Own:loss(...) return self.decoder:loss(...) end
    local function losses(p)
      local rows = attune.tensor(ids, {dtype = "i64"})
      return train.run {
        model = Own(p), data = function() return rows, rows end, steps = 1, log = false,
      }.losses
    end
    assert.is_true(math.abs(losses(0.9)[1] - losses(0)[1]) > 1e-4)
  end)

  it("calls the set_step of a module that has its own", function()
    local Own, Outer = nn.module "Own", nn.module "Outer"
    local called
    function Own.set_step(_, step) called = step end
    function Outer:init() self.own = Own() end
    Outer():set_step(4)
    assert.equal(4, called)
  end)

  it("drops differently in an encoder, a decoder and its cross-attention", function()
    local model = nn.EncoderDecoder {
      vocab = 8, d_model = 8, layers = 1, heads = 2, encoder_layers = 1, dropout = 0.5,
    }
    local block, other = model.decoder.blocks[1], model.encoder.blocks[1]
    local seen = {}
    for _, dropout in ipairs {
      model.decoder._dropout, block._dropout1, block._dropout2, block._dropout_cross,
      model.encoder._dropout, other._dropout1, other._dropout2,
    } do
      assert.is_nil(seen[dropout._layer])
      seen[dropout._layer] = true
    end
    local before = model:loss(ids, ids, targets):item()
    model:set_step(1)
    assert.is_true(math.abs(model:loss(ids, ids, targets):item() - before) > 1e-5)
  end)
end)

describe("the context of a call", function()
  it("has known names only, or names that begin with _", function()
    local model = decoder()
    fails("context: unknown field 'lenghts'; did you mean 'lengths'?", model.forward, model, ids,
      {lenghts = {2, 2}})
    fails("context: expected a plain table such as", model.forward, model, ids, 3)
    fails("context.attend: expected a function, got 3", model.loss, model, ids, targets, nil,
      {attend = 3})
    fails("context.memory: expected a tensor", model.forward, model, ids, {memory = {1}})
    fails("context.dropout_step: expected an integer or false", nn.Dropout {p = 0.5},
      attune.ones {2}, {dropout_step = "1"})
    local seen
    model.blocks[1].attention.attend = function(self, q, k, v, context)
      seen = context._mine
      return nn.Attention.attend(self, q, k, v, context)
    end
    model:forward(ids, {_mine = 5})
    assert.equal(5, seen)
  end)

  it("is not changed", function()
    local model = decoder {dropout = 0.5, pattern = {{}, {share_kv = 1}}}
    model:set_step(1)
    local given = {lengths = {{4}}}
    model:forward(ids, given)
    assert.same({lengths = {{4}}}, given)
  end)
end)

-- A stack of blocks as a Decoder has it.
local Stack = nn.module "Stack"
function Stack:init(more)
  self.blocks = {}
  for n = 1, 2 do
    local o = {d_model = 8, heads = 2, seed = 1, layers = 2, layer = n, name = "blocks." .. n}
    for name, value in pairs(more or {}) do o[name] = value end
    self.blocks[n] = nn.Block(o)
  end
end
function Stack:forward(x, context)
  for _, block in ipairs(self.blocks) do x = block(x, context) end
  return x
end

local variants = {
  {}, {kv_heads = 1}, {position = "none", window = 2}, {position = "alibi"},
  {softcap = 5, sinks = true, qk_norm = true, gate = true}, {head_dim = 6, scale = 0.3},
  {k_equals_v = true, bias = true}, {linear = {features = "favor+", count = 4}},
  {norm = "layernorm", causal = false},
}

describe("nn.Block by itself", function()
  it("computes what a block of a Decoder computes", function()
    local more = {
      {block = "parallel", shared_norm = true}, {norm_place = "both", mlp = "swiglu", d_ff = 12},
      {mlp = "none", residual_scale = 0.5}, {dropout = 0.5}, table.unpack(variants),
    }
    for _, options in ipairs(more) do
      local model, stack = decoder(options), Stack(options)
      local x = attune.randn({2, 4, 8}, {seed = 1})
      model:set_step(1)
      stack:set_step(1)
      local expected = x
      for _, block in ipairs(model.blocks) do expected = block(expected) end
      expect.close(stack(x), expected, 0)
      expect.close(stack(x, {lengths = {2, 2}}):slice(2, 1, 2), stack(x:slice(2, 1, 2)),
        options.dropout and math.huge or 1e-5)
    end
  end)

  it("has gradients of all parameters, state, and values of its own", function()
    for _, options in ipairs {{}, {position = "t5"}, {block = "parallel"}} do
      local stack = Stack(options)
      stack(attune.ones {1, 3, 8}):sum():backward()
      for name, p in pairs(stack:parameters()) do assert.truthy(p.grad, name) end
      local other = Stack(options):load_state(stack:state())
      expect.close(other(attune.ones {1, 3, 8}), stack(attune.ones {1, 3, 8}), 0)
    end
    assert.truthy(nn.Block {d_model = 8, heads = 2, position = "t5"}:state()["position.table"])
    local a, b = nn.Block {d_model = 8, heads = 2}, nn.Block {d_model = 8, heads = 2}
    expect.differ(a.attention.q.weight, b.attention.q.weight, 1e-4)
  end)

  it("with norms before and after has two norms of its cross-attention", function()
    local block = nn.Block {d_model = 8, heads = 2, cross = true, norm_place = "both", seed = 1}
    local state = block:state()
    assert.same({8}, state["norm_cross.weight"].shape)
    assert.same({8}, state["norm_cross_after.weight"].shape)
    local x, memory = attune.randn({1, 3, 8}, {seed = 1}), attune.randn({1, 2, 8}, {seed = 2})
    local before = block(x, {memory = memory})
    attune.no_grad(function() state["norm_cross_after.weight"]:fill(0) end)
    block:load_state(state)
    expect.differ(block(x, {memory = memory}), before, 1e-4)
  end)

  it("cannot be parallel where it has cross-attention, which would not be computed", function()
    local text = "cross: expected block = 'serial', as a parallel block has no cross-attention"
    fails(text, nn.Block, {d_model = 8, heads = 2, cross = true, block = "parallel"})
    fails(text, nn.EncoderDecoder, {
      vocab = 8, d_model = 8, layers = 1, heads = 2, encoder_layers = 1, block = "parallel",
    })
  end)

  it("reads a memory where it has cross-attention", function()
    local block = nn.Block {d_model = 8, heads = 2, cross = true}
    local x, memory = attune.ones {1, 3, 8}, attune.randn({1, 5, 8}, {seed = 1})
    expect.differ(block(x, {memory = memory}), block(x, {memory = memory * 2 + 1}), 1e-7)
    fails("context.memory: expected a tensor", block.forward, block, x)
  end)
end)

describe("nn.Attention by itself", function()
  it("is attention between its projections", function()
    local attention = nn.Attention {d_model = 8, heads = 2, kv_heads = 1, window = 2}
    assert.same({4, 8}, attention.k.weight.shape)
    local x = attune.randn({1, 4, 8}, {seed = 1})
    local q, k, v = attention:project(x)
    local o = attune.attention(q, k, v, {
      causal = true, window = 2, rotate = attune.position("rope", {head_dim = 4}),
    })
    expect.close(attention(x), attention.o(o:transpose(2, 3):contiguous():view(1, 4, 8)), 1e-6)
  end)

  it("takes the options of a layer, and has gradients and state", function()
    for _, options in ipairs {{position = "t5"}, table.unpack(variants)} do
      local o = {d_model = 8, heads = 2, seed = 1}
      for name, value in pairs(options) do o[name] = value end
      local attention, other = nn.Attention(o), nn.Attention(o)
      local x = attune.randn({1, 4, 8}, {seed = 1})
      expect.close(attention(x), other(x), 0)
      attention(x):sum():backward()
      for name, p in pairs(attention:parameters()) do assert.truthy(p.grad, name) end
      expect.close(attention(x, {lengths = {{3, 1}}}):slice(2, 1, 3), attention(x:slice(2, 1, 3)),
        1e-6)
    end
  end)

  it("names what is wrong", function()
    local function refused(text, more, class)
      local o = {d_model = 8, heads = 2}
      for name, value in pairs(more) do o[name] = value end
      fails(text, class or nn.Attention, o)
    end
    fails("options: expected a table {d_model = 128, heads = 4}", nn.Attention)
    fails("heads: expected an integer of at least 1, got nil", nn.Block, {d_model = 8})
    refused("kv_heads: expected a divisor of heads, 2, got 3", {kv_heads = 3})
    refused("head_dim: expected heads to divide d_model 8, got 3 heads", {heads = 3})
    refused("unknown option 'kv_head'; did you mean 'kv_heads'?", {kv_head = 1})
    refused("unknown option 'vocab'", {vocab = 3}, nn.Block)
    refused("unknown option 'share_kv'", {share_kv = 1}, nn.Block)
    refused("position: expected an encoding of one layer, got 'learned'", {position = "learned"})
    refused("layer: expected at most layers, 2, got 3", {layers = 2, layer = 3}, nn.Block)
    local attention = nn.Attention {d_model = 8, heads = 2}
    fails("x: expected a tensor [batch, tokens, 8], got 3", attention.forward, attention, 3)
    fails("x: expected a tensor [batch, tokens, 8], got 2x8 f32 tensor", attention.forward,
      attention, attune.ones {2, 8})
    fails("unknown field 'lenghts'", attention.forward, attention, attune.ones {1, 2, 8},
      {lenghts = {2}})
  end)
end)
