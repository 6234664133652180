local attune = require "attune"
local expect = require "tests.support.expect"
local nn = require "attune.nn"
local core = require "attune.core"

local fails = expect.fails_with

local function with(changes, base)
  local o = {}
  for name, value in pairs(base or {
    vocab = 11, d_model = 12, layers = 2, heads = 2, kv_heads = 1, head_dim = 6, d_ff = 10,
    context = 7, seed = 3, dtype = "f64", std = 0.5,
  }) do o[name] = value end
  for name, value in pairs(changes) do o[name] = value end
  return o
end

local ids = {{1, 2, 3, 4, 5, 1}, {7, 10, 0, 7, 10, 0}}
local targets = {{2, 3, 4, 5, 1, 2}, {10, 0, 7, 10, 0, 7}}
local weights = {{1, 1, 0.5, 1, 0, 1}, {1, 1, 1, 1, 2, 1}}

local function loss_of(model, context)
  return attune.no_grad(function()
    return model:loss(ids, targets, weights, context):item()
  end)
end

-- Some elements of every parameter: the gradient against a central difference.
local function check_gradients(model, context, name)
  model:loss(ids, targets, weights, context):backward()
  for parameter_name, p in pairs(model:parameters()) do
    -- Sinks and tables of scores are f32 in every model.
    local h, bound = 1e-5, 1e-6
    if p.dtype == "f32" then h, bound = 0.01, 1e-4 end
    local count = 1
    for _, extent in ipairs(p.shape) do count = count * extent end
    assert.truthy(p.grad, parameter_name)
    local gradient = p.grad:view(-1):tolist()
    for _, k in ipairs {1, count // 2 + 1, count} do
      local flat = p:contiguous():view(-1):tolist()
      local function move(by)
        flat[k] = flat[k] + by
        core._copy(attune.tensor(flat, {dtype = p.dtype, shape = p.shape}), p)
        return loss_of(model, context)
      end
      local up = move(h)
      local down = move(-2 * h)
      move(h)
      local difference = (up - down) / (2 * h)
      local error_of = math.abs(difference - gradient[k])
      assert.is_true(error_of <= bound * math.max(1, math.abs(difference)),
        ("%s, %s[%d]: gradient %g, difference %g"):format(
          name, parameter_name, k, gradient[k], difference))
    end
  end
end

local options = {
  {"defaults", {}},
  {"gelu_tanh", {mlp = "gelu_tanh"}},
  {"relu", {mlp = "relu"}},
  {"silu", {mlp = "silu"}},
  {"relu2", {mlp = "relu2"}},
  {"swiglu with biases", {mlp = "swiglu", bias = true}},
  {"geglu", {mlp = "geglu"}},
  {"geglu_tanh", {mlp = "geglu_tanh"}},
  {"reglu", {mlp = "reglu"}},
  {"no MLP", {mlp = "none"}},
  {"layernorm", {norm = "layernorm", embed_norm = true}},
  {"layernorm without bias", {norm = "layernorm", norm_bias = false}},
  {"no norm", {norm = "none"}},
  {"rmsnorm with an offset", {norm_offset = 1}},
  {"norms after", {norm_place = "after"}},
  {"norms before and after", {norm_place = "both"}},
  {"norms of the sum", {norm_place = "residual"}},
  {"parallel", {block = "parallel"}},
  {"parallel with a shared norm", {block = "parallel", shared_norm = true}},
  {"untied with a bias", {tied = false, head_bias = true}},
  {"no positions", {position = "none"}},
  {"learned positions", {position = "learned"}},
  {"sinusoidal positions", {position = "sinusoidal"}},
  {"small sines", {position = "sinusoidal", sinusoidal = {scale = 0.03}}},
  {"interleaved rope", {rope = {pairing = "interleaved", dims = 4, base = 100}}},
  {"scaled rope", {rope = {scaling = {type = "linear", factor = 4}}}},
  {"xpos", {position = "xpos"}},
  {"alibi", {position = "alibi"}},
  {"t5", {position = "t5", t5 = {buckets = 8, max_distance = 8}}},
  {"a window, a softcap and a scale", {window = 3, softcap = 5, scale = 0.3}},
  {"sinks", {sinks = true}},
  {"qk_norm", {qk_norm = true}},
  {"qk_norm over all heads", {qk_norm = "all", kv_heads = 2}},
  {"gate", {gate = true}},
  {"k_equals_v", {k_equals_v = true}},
  {"v_head_dim", {v_head_dim = 4}},
  {"linear elu", {linear = {features = "elu"}}},
  {"linear favor+ with rope", {linear = {features = "favor+", count = 8}}},
  {"a pattern", {pattern = {{window = 2}, {position = "none"}}}},
  {"shared k and v", {pattern = {{}, {share_kv = 1}}}},
  {"scales", {embed_scale = 2, logit_scale = 0.5, residual_scale = 0.7}},
  {"a capped head", {logit_softcap = 3}},
  {"label smoothing and z_loss", {label_smoothing = 0.1, z_loss = 0.01}},
  {"dropout", {dropout = 0.3}, {dropout_step = 5}},
  {"recompute and dropout", {recompute = true, dropout = 0.3}, {dropout_step = 5}},
  {"documents", {}, {lengths = {{2, 4}, {6}}}},
  {"linear attention and documents", {linear = {features = "favor+", count = 8}},
    {lengths = {{2, 4}, {6}}}},
}

describe("gradients of a Decoder agree with differences in f64, with", function()
  for _, case in ipairs(options) do
    it(case[1], function() check_gradients(nn.Decoder(with(case[2])), case[3], case[1]) end)
  end
end)

describe("a Decoder in f32", function()
  it("computes what it computes in f64", function()
    for _, case in ipairs(options) do
      local wide = nn.Decoder(with(case[2]))
      local narrow = nn.Decoder(with({dtype = "f32"}, with(case[2])))
      local state = {}
      for name, t in pairs(wide:state()) do state[name] = t:to "f32" end
      narrow:load_state(state)
      local difference = math.abs(loss_of(wide, case[3]) - loss_of(narrow, case[3]))
      assert.is_true(difference < 2e-5, ("%s: %g"):format(case[1], difference))
    end
  end)

  it("gives logits [batch, tokens, vocab], and its loss is theirs", function()
    local model = nn.Decoder(with {dtype = "f32", logit_softcap = 3, logit_scale = 0.5})
    local logits = model:forward(ids)
    assert.same({2, 6, 11}, logits.shape)
    local layers = require "attune.autograd.layers"
    local plain = layers.cross_entropy(logits, targets)
    local fused, nll = model:loss(ids, targets)
    assert.is_true(math.abs(plain:item() - fused:item()) < 1e-5)
    assert.is_true(math.abs(plain:item() - nll) < 1e-5)
  end)

  it("adds sines times sinusoidal.scale", function()
    local function hidden(scale)
      local model = nn.Decoder(with {
        dtype = "f32", position = "sinusoidal", sinusoidal = {scale = scale}, final_norm = false,
      })
      return attune.no_grad(function()
        for name, p in pairs(model:state()) do
          if name ~= "embed.weight" then p:fill(0) end
        end
        return model:hidden(ids)
      end)
    end
    local embedded = hidden(1e-9)
    expect.close((hidden(0.25) - embedded) * 4, hidden() - embedded, 1e-6)
    assert.is_true((hidden() - embedded):abs():max():item() > 0.9)
  end)

  it("takes one row as a list, and tensors of any integer dtype", function()
    local model = nn.Decoder(with {dtype = "f32"})
    assert.same({1, 3, 11}, model:forward({1, 2, 3}).shape)
    local a = model:forward(ids)
    expect.close(model:forward(attune.tensor(ids, {dtype = "i32"})), a, 0)
    expect.close(model:forward(attune.tensor(ids, {dtype = "i64"})), a, 0)
  end)

  it("separates packed documents", function()
    local model = nn.Decoder(with {dtype = "f32"})
    local packed = model:forward({{1, 2, 3, 4, 5}}, {
      lengths = {{2, 3}}, positions = attune.tensor({{0, 1, 0, 1, 2}}, {dtype = "i64"}),
    })
    expect.close(packed:slice(2, 1, 2), model:forward {{1, 2}}, 1e-5)
    expect.close(packed:slice(2, 3, 5), model:forward {{3, 4, 5}}, 1e-5)
  end)

  it("has the same bits for one and two threads", function()
    local function run()
      local model = nn.Decoder(with({dtype = "f32", d_model = 64, d_ff = 256, head_dim = 32}))
      local loss = model:loss(ids, targets)
      loss:backward()
      local sum = {loss:item()}
      for _, p in ipairs(model:parameters()) do sum[#sum + 1] = p.grad:contiguous():tolist() end
      return sum
    end
    local before = attune.machine().threads or 2
    attune.threads(1)
    local one = run()
    attune.threads(2)
    local two = run()
    attune.threads(before)
    assert.same(one, two)
  end)
end)

describe("memory of a training step", function()
  -- The study of heads: d_model 96, 4 layers, 8 heads of 16, 32 contexts of 128 bytes.
  it("is above weights and gradients at most 1.1 times what the graph keeps", function()
    for _, mlp in ipairs {"gelu", "swiglu"} do
      local model = nn.Decoder {
        vocab = 256, d_model = 96, layers = 4, heads = 8, head_dim = 16, mlp = mlp,
      }
      local rows = attune.uniform({32, 128}, {low = 0, high = 255, seed = 1}):to "i64"
      for step = 1, 2 do -- the second step adds to gradients, which are there already
        collectgarbage()
        collectgarbage()
        local before = attune.memory().bytes
        attune.memory {reset_peak = true}
        local loss = model:loss(rows, rows)
        local kept = attune.graph_bytes(loss)
        loss:backward()
        local above = attune.memory().peak - before
        if step == 2 then assert.is_true(above <= 1.1 * kept, mlp .. above / kept) end
      end
    end
  end)
end)

describe("recompute", function()
  it("changes no bit of loss and gradients, and keeps less", function()
    local big = {dtype = "f32", d_model = 32, d_ff = 128, head_dim = 16, layers = 3, dropout = 0.1}
    local results, bytes = {}, {}
    for k, recompute in ipairs {false, true} do
      big.recompute = recompute
      local model = nn.Decoder(with(big))
      local loss = model:loss(ids, targets, weights, {dropout_step = 1})
      bytes[k] = attune.graph_bytes(loss)
      loss:backward()
      results[k] = {loss:item()}
      for _, p in ipairs(model:parameters()) do
        results[k][#results[k] + 1] = p.grad:contiguous():tolist()
      end
    end
    assert.same(results[1], results[2])
    assert.is_true(bytes[2] < 0.5 * bytes[1], bytes[2] / bytes[1])
  end)
end)

describe("initial values", function()
  it("follow from name and seed, so that variants share what they can", function()
    local base = {vocab = 16, d_model = 32, layers = 2, heads = 4, seed = 9}
    local mha = nn.Decoder(base):state()
    local mqa = nn.Decoder(with({kv_heads = 1}, base)):state()
    local other = nn.Decoder(with({seed = 10}, base)):state()
    for name, t in pairs(mha) do
      local same = table.concat(t.shape, "x") == table.concat(mqa[name].shape, "x")
      if same then expect.close(mqa[name], t, 0) end
      if #t.shape == 2 then expect.differ(other[name], t, 1e-3) end
    end
    local k = "blocks.1.attention.k.weight"
    expect.close(mqa[k], mha[k]:slice(1, 1, 8), 0)
    expect.differ(mha["blocks.2.attention.k.weight"], mha[k], 1e-3)
  end)

  it("have the standard deviation of the options", function()
    local state = nn.Decoder {vocab = 64, d_model = 64, layers = 8, heads = 4}:state()
    local function std(t) return math.sqrt((t * t):mean():item()) end
    assert.is_true(math.abs(std(state["embed.weight"]) - 0.02) < 0.001)
    assert.is_true(math.abs(std(state["blocks.1.attention.o.weight"]) - 0.005) < 0.0003)
    assert.is_true(math.abs(std(state["blocks.1.mlp.down.weight"]) - 0.005) < 0.0003)
  end)
end)

describe("state", function()
  it("has the documented names", function()
    local names = {}
    local model = nn.Decoder(with {
      position = "learned", mlp = "swiglu", tied = false, layers = 1, bias = true,
    })
    for name in pairs(model:state()) do names[#names + 1] = name end
    table.sort(names)
    assert.same({
      "blocks.1.attention.k.bias", "blocks.1.attention.k.weight", "blocks.1.attention.o.bias",
      "blocks.1.attention.o.weight", "blocks.1.attention.q.bias", "blocks.1.attention.q.weight",
      "blocks.1.attention.v.bias", "blocks.1.attention.v.weight", "blocks.1.mlp.down.bias",
      "blocks.1.mlp.down.weight", "blocks.1.mlp.gate.bias", "blocks.1.mlp.gate.weight",
      "blocks.1.mlp.up.bias", "blocks.1.mlp.up.weight", "blocks.1.norm1.weight",
      "blocks.1.norm2.weight", "embed.weight", "head.weight", "norm.weight", "position.weight",
    }, names)
    assert.truthy(nn.Decoder(with {position = "t5"}):state()["position.table"])
  end)

  it("is loaded whole or not at all", function()
    local one, two = nn.Decoder(with {}), nn.Decoder(with {seed = 4})
    expect.differ(one:state()["embed.weight"], two:state()["embed.weight"], 1e-3)
    two:load_state(one:state())
    assert.equal(loss_of(one), loss_of(two))
    local state = {}
    for name, t in pairs(one:state()) do state[name] = t end
    state["norm.wieght"] = state["norm.weight"]
    fails("norm.weight", two.load_state, two, state)
    state["norm.wieght"], state["norm.weight"] = nil, nil
    fails("norm.weight", two.load_state, two, state)
    state["norm.weight"] = attune.zeros {3}
    fails("expected shape {12}, got {3}", two.load_state, two, state)
    fails("state", two.load_state, two)
  end)

  it("counts a tied embedding once", function()
    local model = nn.Decoder(with {})
    assert.equal(#model:parameters(), #(function()
      local list = {}
      for name in pairs(model:state()) do list[#list + 1] = name end
      return list
    end)())
    assert.equal(model:count(), (nn.count(with {})))
  end)
end)

describe("a module of one's own", function()
  it("takes ten lines", function()
    local Gate = nn.module "Gate"
    function Gate:init(d)
      self.proj = nn.Linear {input = d, output = d, bias = true}
      self.scale = attune.ones({d}):requires_grad()
      self._hidden = attune.ones({d}):requires_grad()
      self.list = {nn.RMSNorm {size = d}}
    end
    function Gate:forward(x) return self.list[1](x) * self.proj(x):sigmoid() * self.scale end
    local gate = Gate(4)
    local names = {}
    for name in pairs(gate:parameters()) do names[#names + 1] = name end
    table.sort(names)
    assert.same({"list.1.weight", "proj.bias", "proj.weight", "scale"}, names)
    gate(attune.ones {2, 4}):sum():backward()
    for _, p in ipairs(gate:parameters()) do assert.truthy(p.grad) end
  end)

  it("differs from another of the same shape", function()
    local a, b = nn.Linear {input = 4, output = 4}, nn.Linear {input = 4, output = 4}
    expect.differ(a.weight, b.weight, 1e-4)
    local c = nn.Linear {input = 4, output = 4, name = "c", seed = 1}
    local d = nn.Linear {input = 4, output = 4, name = "c", seed = 1}
    expect.close(c.weight, d.weight, 0)
  end)
end)

describe("nn.Dropout", function()
  it("drops a part, keeps the mean, and follows from seed, step and layer", function()
    local x = attune.ones {100, 100}
    local drop = nn.Dropout {p = 0.25, seed = 1, layer = 2}
    local y = drop(x, {dropout_step = 1})
    local zero = 0
    for _, row in ipairs(y:tolist()) do
      for _, value in ipairs(row) do
        assert.is_true(value == 0 or math.abs(value - 4 / 3) < 1e-6)
        if value == 0 then zero = zero + 1 end
      end
    end
    assert.is_true(math.abs(zero / 10000 - 0.25) < 0.02)
    expect.close(drop(x, {dropout_step = 1}), y, 0)
    expect.differ(drop(x, {dropout_step = 2}), y, 0.1)
    expect.differ(nn.Dropout {p = 0.25, seed = 1, layer = 3}(x, {dropout_step = 1}), y, 0.1)
    expect.differ(nn.Dropout {p = 0.25, seed = 2, layer = 2}(x, {dropout_step = 1}), y, 0.1)
    expect.close(drop(x), x, 0)
    fails("dropout", nn.Dropout, {p = 1})
  end)
end)

-- Shazeer 2019 (arXiv 1911.02150): section 4.1 widens d_ff of the translation model from 4096 to
-- 5440, and to 6784 where h k is 128; the language model has 8192, 9088 and 9984.
describe("nn.match", function()
  local language = {
    vocab = 32000, d_model = 1024, layers = 6, heads = 8, head_dim = 128, d_ff = 8192,
    mlp = "relu", norm = "layernorm", position = "none",
  }
  local translation = with({d_ff = 4096, encoder_layers = 6}, language)

  it("gives Shazeer's widths", function()
    local function width(reference, change)
      return nn.match {reference = reference, change = change, multiple = 64}.d_ff
    end
    assert.equal(9088, width(language, {kv_heads = 1}))
    assert.equal(9984, width(language, {heads = 1, head_dim = 128}))
    assert.equal(9984, width(language, {heads = 8, head_dim = 16}))
    assert.equal(5440, width(translation, {kv_heads = 1}))
    assert.equal(6784, width(translation, {heads = 1, head_dim = 128}))
  end)

  it("comes within half a percent, by parameters and by operations", function()
    local base = {vocab = 256, d_model = 96, layers = 4, heads = 8, head_dim = 16, context = 128}
    for _, by in ipairs {"parameters", "flops"} do
      for _, mlp in ipairs {"gelu", "swiglu"} do
        local reference = with({mlp = mlp, d_ff = 384}, base)
        local cfg = nn.match {reference = reference, change = {kv_heads = 1}, by = by}
        assert.equal(1, cfg.kv_heads)
        local index = by == "parameters" and 1 or 2
        local a, b = select(index, nn.count(cfg)), select(index, nn.count(reference))
        assert.is_true(math.abs(a / b - 1) < 0.005)
        assert.is_true(cfg.d_ff > 384)
        assert.equal(nn.Decoder(cfg):count(), (nn.count(cfg)))
      end
    end
  end)

  it("counts what a function makes", function()
    local parameters, flops = nn.count(function() return nn.Linear {input = 3, output = 5} end)
    assert.equal(15, parameters)
    assert.equal(30, flops)
    assert.equal(15, (nn.count(nn.Linear {input = 3, output = 5})))
  end)

  it("says what does not match", function()
    fails("reference", nn.match, {change = {}})
    fails("change", nn.match, {reference = language})
    fails("by", nn.match, {reference = language, change = {}, by = "bytes"})
    fails("adjust", nn.match, {reference = language, change = {}, adjust = "seed"})
    fails("0.5%", nn.match, {reference = language, change = {kv_heads = 1}, multiple = 4096})
    fails("kv_heads", nn.match, {reference = language, change = {kv_heads = 3}})
  end)
end)

describe("an EncoderDecoder", function()
  it("looks at the source, not at later targets", function()
    local model = nn.EncoderDecoder(with {dtype = "f32", encoder_layers = 2, position = "t5"})
    local a = model:forward({{1, 2, 3}}, {{4, 5, 6}})
    assert.same({1, 3, 11}, a.shape)
    expect.close(model:forward({{1, 2, 3}}, {{4, 5, 7}}):slice(2, 1, 2), a:slice(2, 1, 2), 1e-6)
    expect.differ(model:forward({{1, 2, 4}}, {{4, 5, 6}}):slice(2, 1, 1), a:slice(2, 1, 1), 1e-4)
    model:loss({{1, 2, 3}}, {{4, 5, 6}}, {{5, 6, 7}}):backward()
    for name, p in pairs(model:parameters()) do assert.truthy(p.grad, name) end
  end)
end)

describe("the halves of an EncoderDecoder", function()
  it("have initial values of their own", function()
    local state = nn.EncoderDecoder(with {encoder_layers = 2, position = "t5"}):state()
    local compared = 0
    for name, t in pairs(state) do
      local other = #t.shape == 2 and state[name:gsub("^encoder", "decoder")]
      if other and other ~= t then
        expect.differ(t, other, 1e-4)
        compared = compared + 1
      end
    end
    assert.is_true(compared > 12)
  end)
end)

describe("wrong options of a Decoder", function()
  local function refused(word, changes) return fails(word, nn.Decoder, with(changes)) end
  it("are named, with what was expected", function()
    refused("kv_heads", {kv_hed = 1})
    refused("kv_heads: expected a divisor of heads, 3, got 2", {heads = 3, kv_heads = 2})
    refused("mlp: expected one of", {mlp = "swish"})
    refused("position: expected one of", {position = "rop"})
    refused("pattern", {pattern = {}})
    refused("pattern[1]", {pattern = {3}})
    refused("window", {pattern = {{windw = 3}}})
    refused("share_kv of layer 1", {pattern = {{share_kv = 1}}})
    refused("expected kv_heads 1 as layer 1 has, got 2", {
      pattern = {{}, {share_kv = 1, kv_heads = 2}},
    })
    refused("pattern", {pattern = {{}, {}, {}}})
    refused("layers", {layers = 0.5})
    fails("context: expected a number of tokens", nn.Decoder,
      {vocab = 4, d_model = 4, layers = 1, heads = 1, position = "learned"})
    refused("window: linear attention", {window = 3, linear = {features = "elu"}})
    refused("position: linear attention", {position = "alibi", linear = {features = "elu"}})
    refused("dropout", {dropout = 1})
    refused("sinusoidal.scale: expected a number above 0, got 0", {
      position = "sinusoidal", sinusoidal = {scale = 0},
    })
    refused("recompute", {recompute = true, pattern = {{}, {share_kv = 1}}})
    refused("head_dim", {heads = 5, kv_heads = 5, head_dim = false})
    fails("vocab", nn.Decoder, {d_model = 4, layers = 1, heads = 1})
  end)

  it("ids outside the vocabulary, and longer than a learned table, are errors", function()
    local model = nn.Decoder(with {position = "learned", dtype = "f32"})
    fails("ids: expected from 0 to 10, got 11", model.forward, model, {{11}})
    fails("ids: expected from 0 to 10, got -1", model.forward, model, {{-1}})
    fails("targets: expected ids from 0 to 10, got 11", model.loss, model, {{1}}, {{11}})
    fails("expected at most context = 7 tokens", model.forward, model, {{1, 2, 3, 4, 5, 6, 7, 8}})
    fails("ids", model.forward, model, "text")
    fails("ids: expected an integer, got 1.5", model.forward, model, {{1, 1.5}})
    fails("ids: expected lists of 2 integers each, got one of 1", model.forward, model,
      {{1, 2}, {1}})
    fails("targets: expected an integer, got 'a'", model.loss, model, {{1}}, {{"a"}})
    fails("weights", model.loss, model, {{1, 2}}, {{1, 2}}, {{1, -1}})
    fails("weights: expected [1, 2], as targets, got [1, 3]", model.loss, model, {{1, 2}},
      {{1, 2}}, {{1, 0, 1}})
    fails("targets", model.loss, model, {{1, 2}}, {{1}})
  end)

  it("positions of a learned table that do not fit the ids or the table are errors", function()
    local model = nn.Decoder(with {position = "learned", dtype = "f32"})
    local function refused_at(text, positions)
      fails("positions: expected " .. text, model.forward, model, {{1, 2}, {3, 4}},
        {positions = positions})
    end
    refused_at("[2] or [2, 2], got [1]", {3})
    refused_at("[2] or [2, 2], got [3]", {0, 1, 2})
    refused_at("[2] or [2, 2], got [1, 2]", {{0, 1}})
    refused_at("[2] or [2, 2], got [3, 2]", {{0, 1}, {0, 1}, {0, 1}})
    refused_at("from 0 to 6, as context = 7, got 7", {6, 7})
    refused_at("from 0 to 6, as context = 7, got -1", {{0, 1}, {-1, 0}})
    local context = {positions = attune.tensor({{0, 1}, {0, 1}}, {dtype = "i32"})}
    expect.close(model:forward({{1, 2}, {3, 4}}, context), model:forward {{1, 2}, {3, 4}}, 0)
  end)
end)
