--- Counting parameters and operations: nn.count and nn.match beside models that are built.
local attune = require "attune"
local expect = require "tests.support.expect"
local nn = require "attune.nn"

local function with(more)
  local o = {vocab = 11, d_model = 12, layers = 2, heads = 2, d_ff = 10, seed = 3}
  for name, value in pairs(more or {}) do o[name] = value end
  return o
end

local function fails(text, fn) return expect.fails_with(text, fn) end

local function flops(cfg) return (select(2, nn.count(cfg))) end

describe("nn.count of a function", function()
  it("counts tensors of one's own, and tied ones once", function()
    local Own, Tied = nn.module "Own", nn.module "Tied"
    function Own:init()
      self.w = attune.randn({8, 8}):requires_grad()
      self.proj = nn.Linear {input = 8, output = 8}
    end
    function Tied:init()
      self.a, self.b = nn.Linear {input = 8, output = 8}, nn.Linear {input = 8, output = 8}
      self.b.weight = self.a.weight
      attune.no_grad(function() self.a.weight:fill(0) end)
    end
    for class, parameters in pairs {[Own] = 128, [Tied] = 64} do
      local count, operations = nn.count(function() return class() end)
      assert.same({parameters, 256}, {count, operations})
      assert.same({parameters, 256}, {nn.count(class)})
      assert.same({parameters, 256}, {nn.count(class())})
      assert.equal(parameters, class():count())
    end
  end)

  it("draws no random numbers of the caller", function()
    local function draw() return attune.randn({1}):item() end
    attune.set_seed(1)
    local expected = draw()
    attune.set_seed(1)
    nn.count(function() return nn.Linear {input = 2, output = 2} end)
    assert.equal(expected, draw())
  end)

  it("may count within a count, and says what it expected", function()
    assert.equal(4, (nn.count(function()
      assert.equal(6, (nn.count(function() return nn.Linear {input = 2, output = 3} end)))
      return nn.Linear {input = 2, output = 2}
    end)))
    fails("cfg: expected a function that returns a module, got one that returns 3",
      function() nn.count(function() return 3 end) end)
    fails("cfg", function() nn.count(3) end)
    assert.equal(4, (nn.count(function() return nn.Linear {input = 2, output = 2} end)))
  end)
end)

describe("nn.count", function()
  it("gives the same for options, a module and a function", function()
    for _, more in ipairs {
      {}, {tied = false}, {position = "t5"}, {position = "learned", context = 7},
      {mlp = "swiglu", bias = true, context = 16}, {window = {7, 0}, context = 64},
      {linear = {features = "favor+", count = 4}, context = 64}, {qk_norm = true, sinks = true},
      {encoder_layers = 1, context = 16}, {encoder_layers = 2, position = "t5", tied = false},
      {pattern = {{window = 3}, {position = "none"}}, context = 9},
    } do
      local cfg = with(more)
      local class = more.encoder_layers and nn.EncoderDecoder or nn.Decoder
      local model = class(cfg)
      local expected = {model:count(), flops(cfg)}
      assert.same(expected, {nn.count(cfg)})
      assert.same(expected, {nn.count(model)})
      assert.same(expected, {nn.count(model.config)})
      assert.same(expected, {nn.count(function() return class(cfg) end)})
    end
  end)

  it("counts an embedding and a table of positions as no product", function()
    local base = flops(with())
    assert.equal(base, flops(with {tied = false}))
    assert.equal(base, flops(with {position = "t5"}))
    assert.equal(base, flops(with {position = "none"}))
    assert.equal(base - 2 * 11 * 12, 2 * 2 * (4 * 12 * 12 + 2 * 12 * 10))
    assert.equal(0, flops(function() return nn.Embedding {vocab = 4, d_model = 4} end))
  end)

  it("counts the visible tokens of windows and of both halves of a model", function()
    local plain = flops(with {layers = 1})
    local function attention(more)
      more.layers, more.context = 1, 64
      return (flops(with(more)) - plain) / (2 * 2 * (6 + 6)) -- 2 heads (head_dim + v_head_dim)
    end
    assert.equal(32, attention {})
    assert.equal(8, attention {window = 8})
    assert.equal(8, attention {window = {7, 0}})
    assert.equal(32, attention {window = {-1, 0}})
    assert.equal(64, attention {causal = false})
    assert.equal(15, attention {causal = false, window = 8})
    assert.equal(10, attention {causal = false, window = {7, 2}})
    -- The encoder: 64 tokens; the decoder: 32 and, of the source, 64.
    local both = with {encoder_layers = 1, layers = 1}
    local without = flops(both)
    both.context = 64
    assert.equal(64 + 32 + 64, (flops(both) - without) / (2 * 2 * (6 + 6)))
  end)

  it("lets nn.match match encoders and decoders by operations", function()
    local reference = with {
      d_model = 32, heads = 4, d_ff = 256, encoder_layers = 2, context = 16,
    }
    local cfg = nn.match {reference = reference, change = {kv_heads = 1}, by = "flops"}
    assert.is_true(math.abs(flops(cfg) / flops(reference) - 1) < 0.005)
    assert.is_true(cfg.d_ff > 256)
  end)
end)

describe("the config of a model", function()
  it("is a plain table that makes the same model again", function()
    for _, more in ipairs {
      {pattern = {{window = 2, heads = 3, head_dim = 4}, {share_kv = 1, heads = 3, head_dim = 4}}},
      {dropout = 0.1, block = "parallel", qk_norm = true, softcap = 0, position = "none"},
      {tied = false, linear = {features = "favor+", count = 4}},
      {position = "t5", t5 = {buckets = 8}, recompute = true},
    } do
      local model = nn.Decoder(with(more))
      local again = nn.Decoder(model.config)
      assert.same(model.config, again.config)
      for name, t in pairs(model:state()) do expect.close(again:state()[name], t, 0, name) end
      local names = {}
      for name in pairs(model.config) do names[#names + 1] = name end
      assert.is_true(#names > 10)
      local ids = {{1, 2, 3}}
      expect.close(again:forward(ids), model:forward(ids), 0)
    end
  end)

  it("is a copy, and no part of the state", function()
    local model = nn.Decoder(with {pattern = {{window = 2}}})
    model.config.pattern[1].window, model.config.d_model = 1, 1
    model.config.tensor = attune.ones {2}
    assert.is_nil(model:state()["config.tensor"])
    local expected = nn.Decoder(with {pattern = {{window = 2}}}):forward {{1, 2, 3}}
    expect.close(model:forward {{1, 2, 3}}, expected, 0)
    local half = nn.EncoderDecoder(with {encoder_layers = 1})
    for name, t in pairs(half:state()) do
      expect.close(nn.EncoderDecoder(half.config):state()[name], t, 0)
    end
  end)
end)
