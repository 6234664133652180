--- Options of models and layers: what is refused, what is repeated, and where errors point.
local attune = require "attune"
local expect = require "tests.support.expect"
local nn = require "attune.nn"

local ids = {{1, 2, 3, 4}}

local function with(more)
  local o = {vocab = 8, d_model = 8, layers = 2, heads = 2, seed = 1}
  for name, value in pairs(more or {}) do o[name] = value end
  return o
end

local function refused(text, more)
  return expect.fails_with(text, function() nn.Decoder(with(more)) end)
end

describe("an encoding that is added to the embeddings", function()
  it("is refused in an entry of the pattern, unless the model has it", function()
    for _, name in ipairs {"learned", "sinusoidal"} do
      refused("pattern[1].position: expected an encoding of one layer, got '" .. name .. "'",
        {context = 8, pattern = {{position = name}}})
      refused("pattern[2].position", {context = 8, pattern = {{}, {position = name}}})
      local own = {position = name, context = 8, pattern = {{position = name}, {window = 2}}}
      local model = nn.Decoder(with(own))
      model:loss(ids, ids):backward()
      for parameter, p in pairs(model:parameters()) do assert.truthy(p.grad, parameter) end
      own.pattern = {{}, {window = 2}}
      expect.close(nn.Decoder(with(own)):forward(ids), model:forward(ids), 0)
    end
    refused("pattern[1].sinusoidal", {
      position = "sinusoidal", pattern = {{position = "sinusoidal", sinusoidal = {scale = 0.5}}},
    })
  end)

  it("may be beside others of the layers", function()
    local model = nn.Decoder(with {
      position = "learned", context = 8, pattern = {{position = "rope"}, {position = "none"}},
    })
    model:loss(ids, ids):backward()
    assert.truthy(model:parameters()["position.weight"].grad)
  end)

  it("has one t5 table, of the same buckets and heads in all layers", function()
    refused("pattern: expected the same buckets in all layers of one t5 table, 8, got 16",
      {position = "t5", pattern = {{t5 = {buckets = 8}}, {t5 = {buckets = 16}}}})
    refused("pattern: expected the same heads in all layers of one t5 table, 2, got 4",
      {position = "t5", pattern = {{}, {heads = 4}}})
  end)

  it("makes no table that no layer uses", function()
    local model = nn.Decoder(with {position = "t5", pattern = {{position = "none"}}})
    assert.is_nil(model:state()["position.table"])
    assert.equal(model:count(), (nn.count(with {
      position = "t5", pattern = {{position = "none"}},
    })))
  end)
end)

describe("an entry of the pattern", function()
  local function shapes(model)
    local state = model:state()
    return {state["blocks.1.attention.k.weight"].shape[1],
      state["blocks.1.attention.v.weight"].shape[1], state["blocks.2.attention.k.weight"].shape[1]}
  end
  -- A model of the config has the same shapes.
  local function both(expected, more)
    local model = nn.Decoder(with(more))
    assert.same(expected, shapes(model))
    assert.same(expected, shapes(nn.Decoder(model.config)))
  end

  it("with other heads keeps the kv_heads that the model gives", function()
    both({4, 4, 4}, {kv_heads = 1, pattern = {{heads = 4}, {}}})
    both({16, 16, 8}, {pattern = {{heads = 4}, {}}})
    both({8, 8, 8}, {pattern = {{heads = 4, kv_heads = 2}, {}}})
    local sharing = {kv_heads = 1, pattern = {{}, {heads = 4, share_kv = 1}}}
    assert.equal(1, nn.Decoder(with(sharing)).blocks[2].attention._c.share_kv)
  end)

  it("with another head_dim has a v_head_dim of that, unless the model gives one", function()
    both({4, 4, 8}, {pattern = {{head_dim = 2}, {}}})
    both({4, 12, 8}, {v_head_dim = 6, pattern = {{head_dim = 2}, {}}})
    nn.Decoder(with {k_equals_v = true, pattern = {{head_dim = 2}, {}}}):forward(ids)
  end)
end)

describe("a rotation", function()
  it("of an odd number of dims is refused, also where parameters are only counted", function()
    local odd = {d_model = 9, heads = 3}
    local text = "head_dim: expected a multiple of 2, as position = 'rope' rotates pairs of them, "
      .. "got 3"
    assert.equal(text, refused(text, odd):match "head_dim.*")
    expect.fails_with(text, nn.count, with(odd))
    odd.pattern = {{position = "none"}, {}}
    refused("pattern[2]." .. text, odd)
    odd.rope = {dims = 2}
    nn.Decoder(with(odd)):forward(ids)
    refused("head_dim: expected a multiple of 4, as position = 'rope2d'",
      {d_model = 12, position = "rope2d"})
    refused("linear.count: expected a multiple of 2",
      {linear = {features = "favor+", count = 7}})
  end)
end)

describe("linear attention", function()
  local linear = {features = "favor+", count = 8}
  local function run(model, rows, context)
    return attune.no_grad(function() return model:forward(rows, context) end)
  end

  it("keeps packed documents apart", function()
    for _, position in ipairs {"rope", "none"} do
      for _, causal in ipairs {true, false} do
        local model = nn.Decoder(with {linear = linear, position = position, causal = causal})
        local whole = run(model, {{1, 2, 3, 4, 5}, {6, 7, 0, 1, 2}}, {
          lengths = {{2, 0, 3}, {5}},
          positions = attune.tensor({{0, 1, 0, 1, 2}, {3, 4, 5, 6, 7}}, {dtype = "i64"}),
        })
        expect.close(whole:slice(1, 1, 1):slice(2, 1, 2), run(model, {{1, 2}}), 1e-5)
        expect.close(whole:slice(1, 1, 1):slice(2, 3, 5), run(model, {{3, 4, 5}}), 1e-5)
        expect.close(whole:slice(1, 2, 2), run(model, {{6, 7, 0, 1, 2}}), 1e-5)
        local both = run(model, {{1, 2, 3}, {4, 5, 6}}, {lengths = {1, 2}})
        expect.close(both:slice(2, 2, 3), run(model, {{2, 3}, {5, 6}}), 1e-5)
      end
    end
  end)

  it("refuses what it cannot do", function()
    local model = nn.Decoder(with {linear = linear})
    local function fails(text, context)
      expect.fails_with(text, function() run(model, {{1, 2, 3, 4}}, context) end)
    end
    fails("lengths: expected documents of 4 tokens in all, got 3", {lengths = {1, 2}})
    fails("lengths: expected integers of at least 0, got 2.5", {lengths = {2.5, 1.5}})
    fails("positions: expected positions that rise by 1 in each document", {
      positions = {0, 2, 4, 6},
    })
    refused("scale: linear attention never forms the scores", {linear = linear, scale = 0.5})
  end)
end)

describe("a layer by itself", function()
  it("has the same values for the same seed, with or without a name", function()
    local function same(class, o) expect.close(class(o).weight, class(o).weight, 0) end
    local function differ(class, a, b) expect.differ(class(a).weight, class(b).weight, 1e-4) end
    for _, case in ipairs {
      {nn.Linear, {input = 4, output = 4}}, {nn.Embedding, {vocab = 4, d_model = 4}},
    } do
      local class, o = case[1], case[2]
      differ(class, o, o)
      o.seed = 1
      same(class, o)
      local named = {name = "a"}
      for name, value in pairs(o) do named[name] = value end
      same(class, named)
      differ(class, o, named)
    end
    local mlp = nn.MLP {d_model = 4, d_ff = 4, kind = "swiglu", seed = 1}
    expect.differ(mlp.up.weight, mlp.gate.weight, 1e-4)
    expect.close(nn.MLP {d_model = 4, d_ff = 4, seed = 1}.up.weight, mlp.up.weight, 0)
  end)

  it("takes integers as seeds and strings as names", function()
    local function fails(text, class, o) expect.fails_with(text, function() class(o) end) end
    for _, name in ipairs {"x", false} do
      local o = {input = 2, output = 2, name = name or nil}
      for text, seed in pairs {["'q'"] = "q", ["1.5"] = 1.5, ["true"] = true} do
        o.seed = seed
        fails("seed: expected an integer, got " .. text, nn.Linear, o)
      end
    end
    fails("name: expected a string, got 5", nn.Embedding, {vocab = 2, d_model = 2, name = 5})
    fails("layer: expected an integer, got 0.5", nn.Dropout, {layer = 0.5})
  end)
end)

describe("an unknown option", function()
  it("is reported at the line that gave it", function()
    local here = expect.here
    local function starts(start, text, fn)
      local _, message = pcall(fn)
      assert.equal(start, message:match "[^/]+$":sub(1, #start))
      assert.truthy(message:find(text, 1, true), message)
    end
    starts(here(1), "unknown option 'hedas'; did you mean 'heads'?", function()
      nn.Decoder(with {hedas = 2})
    end)
    starts(here(1), "unknown field 'windw' of pattern[1]", function()
      nn.Decoder(with {pattern = {{windw = 2}}})
    end)
    starts(here(1), "unknown option 'inptu'", function()
      nn.Linear {inptu = 2, output = 2}
    end)
    local Own = nn.module "Own"
    local line = here(1)
    function Own:init() self.proj = nn.Linear {inptu = 2, output = 2} end
    starts(line, "unknown option 'inptu'", function() Own() end)
  end)
end)

describe("options of a Decoder that contradict each other", function()
  it("are refused", function()
    for _, place in ipairs {"after", "both", "residual"} do
      refused("norm_place: expected 'before' with block = 'parallel'",
        {block = "parallel", norm_place = place})
    end
    nn.Decoder(with {block = "parallel", norm_place = "before"})
    refused("shared_norm: expected block = 'parallel'", {shared_norm = true})
    refused("head_bias: expected tied = false", {head_bias = true})
    nn.Decoder(with {head_bias = false, bias = true})
    refused("norm_offset: expected norm = 'rmsnorm'", {norm = "layernorm", norm_offset = 1})
    refused("norm_bias: expected norm = 'layernorm'", {norm_bias = true})
  end)

  it("are refused where a name in a table is unknown or a value is wrong", function()
    refused("unknown field 'bucket' of t5; did you mean 'buckets'?", {t5 = {bucket = 3}})
    refused("t5.buckets: expected an integer of at least 1, got 'x'", {t5 = {buckets = "x"}})
    refused("t5.buckets: expected an integer of at least 2, got 1",
      {position = "t5", t5 = {buckets = 1}})
    refused("t5.buckets: expected an even integer of at least 4",
      {position = "t5", causal = false, t5 = {buckets = 5}})
    refused("t5.max_distance: expected more than the 8 distances",
      {position = "t5", t5 = {buckets = 16, max_distance = 8}})
    refused("unknown field 'feature' of linear; did you mean 'features'?",
      {linear = {feature = "elu"}})
    refused("linear.features: expected one of favor+, trig, relu, elu, got 'exp'",
      {linear = {features = "exp"}})
    refused("linear.count: expected an even number", {linear = {features = "trig", count = 3}})
    refused("unknown field 'feature' of pattern[1].linear", {pattern = {{linear = {feature = 1}}}})
    refused("pattern: expected a list of entries", {pattern = {{}, window = 3}})
    refused("unknown option 'bas'", {rope = {bas = 3}})
  end)

  it("mean the same for logits and for the loss", function()
    local targets = {{2, 3, 4, 5}}
    local plain, off = nn.Decoder(with()), nn.Decoder(with {logit_softcap = 0})
    expect.close(off:forward(ids), plain:forward(ids), 0)
    assert.equal(plain:loss(ids, targets):item(), off:loss(ids, targets):item())
    for _, name in ipairs {"logit_softcap", "softcap", "z_loss"} do
      refused(name .. ": expected a finite number of at least 0, got -1", {[name] = -1})
    end
  end)
end)

describe("nn.loss", function()
  local x, w = attune.ones({1, 3, 4}):requires_grad(), attune.ones {5, 4}
  it("refuses unknown options", function()
    expect.fails_with("unknown option 'label_smooth'; did you mean 'label_smoothing'?", function()
      nn.loss(x, w, nil, {{1, 2, 3}}, nil, {label_smooth = 0.1})
    end)
    expect.fails_with("options: expected a table", function()
      nn.loss(x, w, nil, {{1, 2, 3}}, nil, 3)
    end)
  end)

  it("takes lists of weights, as of targets", function()
    local table_of, y = attune.randn({5, 4}, {seed = 1}), attune.randn({1, 3, 4}, {seed = 2})
    local expected = nn.loss(y, table_of, nil, {{1, 2, 3}}, attune.tensor {{1, 0, 2}}):item()
    assert.equal(expected, nn.loss(y, table_of, nil, {{1, 2, 3}}, {{1, 0, 2}}):item())
    assert.equal(expected, nn.loss(y, table_of, nil, {{1, 2, 3}}, {1, 0, 2}):item())
  end)

  it("refuses weights that require a gradient, which it does not have", function()
    local weights = attune.ones({1, 3}):requires_grad()
    expect.fails_with("weights: expected a tensor without gradients", function()
      nn.loss(x, w, nil, {{1, 2, 3}}, weights)
    end)
    attune.no_grad(function() nn.loss(x, w, nil, {{1, 2, 3}}, weights) end)
  end)
end)

describe("cross-attention", function()
  it("says that it needs a memory", function()
    local model = nn.Decoder(with {cross = true})
    for _, context in ipairs {false, {}, {lengths = {4}}} do
      expect.fails_with("context.memory: expected a tensor [batch, tokens, d_model]", function()
        model:forward(ids, context or nil)
      end)
    end
    model:forward(ids, {memory = attune.ones {1, 3, 8}})
  end)
end)
