-- Optimisers, clipping and schedules.
local attune = require "attune"
local expect = require "tests.support.expect"
local optim = require "attune.optim"

local fails = expect.fails_with

-- A parameter [2, 3] in f64 and gradients for three steps.
local function problem()
  local p = attune.tensor({{0.5, -1, 2}, {0.1, 0.7, -0.3}}, {dtype = "f64"}):requires_grad()
  local gradients = {}
  for k = 1, 3 do gradients[k] = attune.randn({2, 3}, {seed = k, dtype = "f64"}) end
  return p, gradients
end

local function steps(optimizer, p, gradients)
  for _, gradient in ipairs(gradients) do
    p.grad = gradient
    optimizer:step()
  end
  return p:tolist()
end

-- Calls update(x, g, state, step) -> x for each element.
local function by_hand(update)
  local p, gradients = problem()
  local x, states = p:tolist(), {}
  for step, gradient in ipairs(gradients) do
    local g = gradient:tolist()
    for i = 1, 2 do
      for j = 1, 3 do
        local key = i * 3 + j
        states[key] = states[key] or {m = 0, v = 0}
        x[i][j] = update(x[i][j], g[i][j], states[key], step)
      end
    end
  end
  return x
end

local function same(a, b, bound)
  for i = 1, #a do
    for j = 1, #a[i] do
      assert.is_true(math.abs(a[i][j] - b[i][j]) <= bound, ("%g and %g"):format(a[i][j], b[i][j]))
    end
  end
end

describe("optim.adamw", function()
  it("makes the steps of Loshchilov and Hutter's algorithm 2", function()
    local p, gradients = problem()
    local o = optim.adamw({w = p}, {lr = 0.1, betas = {0.8, 0.95}, eps = 1e-6, weight_decay = 0.3})
    same(steps(o, p, gradients), by_hand(function(x, g, s, step)
      s.m, s.v = 0.8 * s.m + 0.2 * g, 0.95 * s.v + 0.05 * g * g
      local m, v = s.m / (1 - 0.8 ^ step), s.v / (1 - 0.95 ^ step)
      return x - 0.1 * (m / (math.sqrt(v) + 1e-6) + 0.3 * x)
    end), 1e-14)
    assert.equal(3, o.steps)
  end)

  it("decays tensors of two axes, and groups override", function()
    local function decayed(name, shape, groups)
      local p = attune.ones(shape):requires_grad()
      local o = optim.adamw({[name] = p}, {lr = 0.5, weight_decay = 0.2, groups = groups})
      p.grad = attune.zeros(shape)
      o:step()
      return p:sum():item() / (#shape == 2 and 4 or 2)
    end
    assert.is_true(math.abs(decayed("w", {2, 2}) - 0.9) < 1e-6)
    assert.equal(1, decayed("b", {2}))
    assert.equal(1, decayed("embed.weight", {2, 2}, {{match = "^embed", weight_decay = 0}}))
    local slow = decayed("w", {2, 2}, {{match = "w", lr_factor = 0.5}})
    assert.is_true(math.abs(slow - 0.95) < 1e-6)
    fails("groups[1]", decayed, "w", {2, 2}, {{match = "w", wd = 1}})
    fails("groups[1].match", decayed, "w", {2, 2}, {{}})
    fails("groups[2].match: expected a Lua pattern that matches the name of a parameter, such as "
      .. "'w', got 'embd'", decayed, "w", {2, 2}, {{match = "w"}, {match = "embd"}})
  end)

  it("goes on from a state", function()
    local p, gradients = problem()
    local one = optim.adamw({w = p}, {lr = 0.1})
    steps(one, p, {gradients[1]})
    local q = attune.tensor(p:tolist(), {dtype = "f64"}):requires_grad()
    local two = optim.adamw({w = q}, {lr = 0.3})
    two:load_state(one:state())
    assert.same(steps(one, p, {gradients[2]}), steps(two, q, {gradients[2]}))
    fails("kind", two.load_state, two, optim.sgd({w = q}):state())
    fails("moments", two.load_state, two, {kind = "adamw", steps = 1, moments = {}})
  end)

  it("says what it expected", function()
    local p = problem()
    fails("lr", optim.adamw, {w = p}, {lr = -1})
    fails("beta", optim.adamw, {w = p}, {betas = {0.9}})
    fails("beta2", optim.adamw, {w = p}, {betas = {0.9, 1}})
    fails("weight_decay", optim.adamw, {w = p}, {weight_decy = 1})
    fails("parameters", optim.adamw, {})
    fails("parameters", optim.adamw, {w = 3})
    local o = optim.adamw({w = p})
    o.lr = 0 / 0
    fails("lr", o.step, o)
  end)
end)

describe("optim.sgd", function()
  it("has momentum as PyTorch has it", function()
    for _, nesterov in ipairs {false, true} do
      local p, gradients = problem()
      local o = optim.sgd({w = p}, {
        lr = 0.1, momentum = 0.8, weight_decay = 0.3, nesterov = nesterov,
      })
      same(steps(o, p, gradients), by_hand(function(x, g, s)
        local h = g + 0.3 * x
        s.m = 0.8 * s.m + h
        return x - 0.1 * (nesterov and h + 0.8 * s.m or s.m)
      end), 1e-14)
    end
    local p, gradients = problem()
    same(steps(optim.sgd({w = p}, {lr = 0.1, momentum = 0}), p, gradients),
      by_hand(function(x, g) return x - 0.1 * g end), 1e-14)
  end)
end)

describe("optim.muon", function()
  it("moves matrices by updates whose singular values are near 1", function()
    for _, shape in ipairs {{4, 4}, {3, 6}, {6, 3}} do
      local p = attune.zeros(shape, {dtype = "f64"}):requires_grad()
      local o = optim.muon({w = p}, {lr = 1, momentum = 0, nesterov = false, weight_decay = 0})
      p.grad = attune.randn(shape, {seed = 3, dtype = "f64"})
      o:step()
      -- U U^T of the short side has eigenvalues near 1, so that its trace is near its size.
      local short = math.min(shape[1], shape[2])
      local squares = (p * p):sum():item() / math.max(1, shape[1] / shape[2])
      assert.is_true(squares > 0.4 * short and squares < 1.5 * short, squares)
    end
  end)

  it("leaves vectors and embeddings to AdamW", function()
    local t = {
      ["embed.weight"] = attune.ones({2, 2}):requires_grad(),
      ["blocks.1.mlp.up.weight"] = attune.ones({2, 2}):requires_grad(),
      ["norm.weight"] = attune.ones({2}):requires_grad(),
    }
    local o = optim.muon(t, {lr = 0.02, adamw = {lr = 0.5}})
    for _, p in pairs(t) do p.grad = attune.ones(p.shape) end
    o:step()
    assert.is_true(math.abs(t["norm.weight"]:tolist()[1] - 0.5) < 1e-5)
    assert.is_nil(o:state().moments["v.blocks.1.mlp.up.weight"])
    assert.truthy(o:state().moments["v.embed.weight"])
  end)

  -- Tensors of ones after a step with gradients of 0: {name = value of an element}.
  local function decayed(shapes, options)
    local t = {}
    for name, shape in pairs(shapes) do
      t[name] = attune.ones(shape):requires_grad()
      t[name].grad = attune.zeros(shape)
    end
    optim.muon(t, options):step()
    local values = {}
    for name, p in pairs(t) do values[name] = math.floor(p:max():item() * 1e4 + 0.5) / 1e4 end
    return values
  end

  it("decays tensors of two axes only, by the decay of their own part, and groups override",
    function()
      local shapes = {a = {2, 2}, b = {2}, ["embed.weight"] = {2, 2}}
      assert.same({a = 0.98, b = 1, ["embed.weight"] = 0.9},
        decayed(shapes, {lr = 0.1, weight_decay = 0.2, adamw = {lr = 1, weight_decay = 0.1}}))
      -- Also where the two decays, or a decay and that of a group, are equal.
      assert.same({a = 0.99, b = 1, ["embed.weight"] = 0.99},
        decayed(shapes, {lr = 1, weight_decay = 0.01, adamw = {lr = 1}}))
      assert.same({a = 0.7, b = 1, ["embed.weight"] = 0.7}, decayed(shapes, {
        lr = 1, weight_decay = 0.3, adamw = {lr = 1, weight_decay = 0.1},
        groups = {{match = "embed", weight_decay = 0.3}},
      }))
      assert.same({a = 0.99, b = 0.5, ["embed.weight"] = 1}, decayed(shapes, {
        lr = 1, weight_decay = 0, adamw = {lr = 1},
        groups = {{match = "^b", weight_decay = 0.5}, {match = "^a", muon = false}, {
          match = "embed", muon = true,
        }},
      }))
    end)

  it("leaves embeddings and heads inside other modules to AdamW, and takes what groups say",
    function()
      local function takes(name, groups)
        local p = attune.ones({2, 2}):requires_grad()
        return optim.muon({[name] = p}, {groups = groups}):state().moments["v." .. name] == nil
      end
      for _, name in ipairs {
        "embed.weight", "d.embed.weight", "decoder.embed.weight", "embeds.1.weight",
        "token_embedding.weight", "d.position.table", "d.position.2.weight", "d.head.weight",
        "heads.2.weight", "lm_head.weight",
      } do
        assert.is_false(takes(name), name)
      end
      for _, name in ipairs {
        "blocks.1.attention.q.weight", "d.blocks.2.mlp.up.weight", "ahead.weight",
        "headers.weight", "1",
      } do
        assert.is_true(takes(name), name)
      end
      assert.is_false(takes("wte", {{match = "^wte", muon = false}}))
      assert.is_true(takes("embed.weight", {{match = "^embed", muon = true}}))
      fails("groups[1].muon: expected true or false, got 1", takes, "w", {{match = "w", muon = 1}})
      fails("groups: expected matrices where muon = true, got a 2 f32 tensor as 'w'", optim.muon,
        {w = attune.ones({2}):requires_grad()}, {groups = {{match = "w", muon = true}}})
      fails("unknown field 'muon' of groups[1]", optim.adamw,
        {w = attune.ones({2}):requires_grad()}, {groups = {{match = "w", muon = true}}})
    end)
end)

describe("each optimiser", function()
  local makers = {adamw = optim.adamw, sgd = optim.sgd, muon = optim.muon}
  local w
  before_each(function() w = attune.ones({2, 2}):requires_grad() end)

  local function refused(word, given, options)
    for _, make in pairs(makers) do fails(word, make, given, options) end
  end

  it("refuses tensors that it cannot step, when it is made", function()
    refused("parameters: expected tensors that require gradients, got a 2 f32 tensor as 'x', which "
      .. "does not (call requires_grad() on it first)", {w = w, x = attune.ones {2}})
    refused("parameters: expected tensors that require gradients, got a 2x2 f32 tensor as '1', the "
      .. "result of an operation", {w * 2})
    refused("parameters: expected f32 or f64 tensors, got a 2 i32 tensor as 'x'",
      {x = attune.ones({2}, {dtype = "i32"})})
    refused("parameters: expected f32 or f64 tensors, got a 2 bf16 tensor as 'x'",
      {x = attune.ones({2}):to "bf16":requires_grad()})
    refused("parameters: expected each tensor once, got one as '1' and as '2'", {w, w})
    refused("parameters: expected each tensor once, got one as 'a' and as 'b'", {b = w, a = w})
    w.grad = attune.ones {2, 2}
    fails("parameters: expected each tensor once", optim.clip, {w, w})
  end)

  it("refuses groups that would be ignored, or whose pattern is none", function()
    refused("groups: expected a list such as {{match = \"embed\", weight_decay = 0}}, got a table "
      .. "with the field 'match'", {w = w}, {groups = {match = "w"}})
    for _, groups in ipairs {{{match = "w"}, weight_decay = 0}, {[2] = {match = "w"}}} do
      refused("groups: expected a list such as", {w = w}, {groups = groups})
    end
    for _, pattern in ipairs {"(w", "w%", "[w", "%1"} do
      refused(("groups[1].match: expected a Lua pattern, got '%s' ("):format(pattern), {w = w},
        {groups = {{match = pattern}}})
    end
    for _, make in pairs(makers) do
      local here = expect.here(1)
      local _, message = pcall(function() make({w = w}, {groups = {{match = "w", wd = 1}}}) end)
      assert.equal(here, message:match "[^/]+%.lua:%d+: ")
      here = expect.here(1)
      _, message = pcall(function() make({w = w}, {groups = {{match = "(w"}}}) end)
      assert.equal(here, message:match "[^/]+%.lua:%d+: ")
    end
  end)
end)

describe("optim.clip", function()
  it("scales all gradients to the norm, and gives the norm before", function()
    local a, b = attune.ones({3}):requires_grad(), attune.ones({1}):requires_grad()
    a.grad, b.grad = attune.tensor({2, 4, 5}), attune.tensor({2})
    assert.equal(7, optim.clip({a = a, b = b}))
    assert.equal(7, optim.clip({a, b}, 8))
    assert.equal(7, optim.clip({a = a, b = b}, 3.5))
    assert.is_true(math.abs(a.grad:tolist()[3] - 2.5) < 1e-5)
    assert.is_true(math.abs(optim.clip({a, b}) - 3.5) < 1e-5)
    a.grad = attune.tensor({1e30, 0, 0})
    assert.is_true(math.abs(optim.clip({a}) / 1e30 - 1) < 1e-6)
    a.grad = attune.tensor({math.huge, 1, 1})
    assert.equal(math.huge, optim.clip({a}, 1))
    assert.equal(1, a.grad:tolist()[2])
    fails("max", optim.clip, {a}, 0)
  end)
end)

describe("optim.schedule", function()
  it("rises, and falls along its shape", function()
    local cosine = optim.schedule {kind = "cosine", lr = 1, steps = 110, warmup = 9, min = 0.1}
    assert.is_true(math.abs(cosine(1) - 0.1) < 1e-12)
    assert.equal(1, cosine(10))
    assert.is_true(math.abs(cosine(60) - (0.1 + 0.45 * (1 + math.cos(math.pi * 50 / 101)))) < 1e-12)
    assert.is_true(math.abs(cosine(1000) - 0.1) < 1e-12)
    local linear = optim.schedule {kind = "linear", lr = 1, steps = 10}
    assert.equal(1, linear(1))
    assert.is_true(math.abs(linear(6) - 0.5) < 1e-12)
    local wsd = optim.schedule {kind = "wsd", lr = 1, steps = 100, decay = 0.5}
    assert.equal(1, wsd(50))
    assert.is_true(math.abs(wsd(76) - 0.5) < 1e-12)
    local sudden = optim.schedule {kind = "wsd", lr = 1, steps = 10, decay = 0, min = 0.25}
    for step, rate in pairs {[1] = 1, [10] = 1, [11] = 0.25, [99] = 0.25} do
      assert.equal(rate, sudden(step))
    end
    assert.equal(0.5, optim.schedule {kind = "constant", lr = 0.5, steps = 3}(2))
    fails("kind", optim.schedule, {kind = "cosin", lr = 1, steps = 3})
    fails("lr", optim.schedule, {steps = 3})
    fails("steps", optim.schedule, {lr = 3})
  end)
end)
