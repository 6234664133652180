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
    function Own:set_step(step) called = step end
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
