-- The training loop, and what it refuses.
local attune = require "attune"
local autograd = require "attune.autograd"
local core = require "attune.core"
local data = require "attune.data"
local expect = require "tests.support.expect"
local files = require "attune.util.files"
local nn = require "attune.nn"
local optim = require "attune.optim"
local run = require "tests.support.run"
local train = require "attune.train"
local training = require "tests.support.training"

local options, parameters_of = training.options, training.parameters_of
local small, with = training.small, training.with

local fails = expect.fails_with

local folder
before_each(function() folder = run.empty_folder() end)
after_each(function() run.remove(folder) end)

describe("train.run", function()
  it("lowers the loss, validates, and tells each step", function()
    local entries = {}
    local o = options {
      steps = 40, log = function(e) entries[#entries + 1] = e end, optimizer = {lr = 0.02},
      validate = {data = data.task("copy", {vocab = 16, tokens = 12, seed = 9}), every = 20,
        batch = 8, batches = 2},
    }
    local r = train.run(o)
    assert.equal(40, #r.losses)
    assert.equal(40, #entries)
    assert.is_true(r.losses[40] < r.losses[1] - 0.05, r.losses[40])
    assert.equal(2, #r.validation)
    assert.equal(40, r.validation[2].step)
    assert.equal(r.validation[2].loss, entries[40].validation)
    for _, p in ipairs(o.model:parameters()) do assert.is_nil(p.grad) end
  end)

  it("has the same losses twice, and with gradients of two batches added", function()
    local a, b = train.run(options()), train.run(options())
    assert.same(a, b)
    local plain = with({dropout = 0}, small)
    local one = options {model = nn.Decoder(plain), batch = 16, steps = 3}
    local two = options {model = nn.Decoder(plain), batch = 8, steps = 3, accumulate = 2}
    one, two = train.run(one), train.run(two)
    for k = 1, 3 do assert.is_true(math.abs(one.losses[k] - two.losses[k]) < 1e-4) end
  end)

  it("drops other elements in each batch of a step", function()
    local ids = attune.zeros({2, 12}, {dtype = "i64"})
    local function losses_of(accumulate)
      local model, list = nn.Decoder(with({dropout = 0.5}, small)), {}
      local loss = model.loss
      function model.loss(...)
        local l = loss(...)
        list[#list + 1] = l:item()
        return l
      end
      assert(train.run {
        model = model, data = function() return ids, ids end, steps = 6 // accumulate,
        accumulate = accumulate, optimizer = {lr = 0}, log = false,
      })
      return list
    end
    local one, three = losses_of(1), losses_of(3)
    assert.equal(6, #three)
    for k = 2, 6 do assert.are_not.equal(three[k - 1], three[k]) end
    -- The elements follow from the number of the batch.
    assert.same(one, three)
    local model = nn.Decoder(with({dropout = 0.5}, small))
    model:set_step(2)
    assert.equal(one[2], model:loss(ids, ids):item())
  end)

  it("stops at a number that is not finite, and names the tensor", function()
    local o = options()
    local weight = o.model.blocks[2].mlp.up.weight
    o.log = function(e)
      if e.step == 2 then attune.no_grad(function() weight:fill(1e38) end) end
    end
    local message = fails("finite loss", train.run, o)
    assert.truthy(message:find("step 3", 1, true))
    assert.truthy(message:find("blocks.2.mlp", 1, true), message)
    o = options()
    o.log = function(e)
      if e.step == 1 then attune.no_grad(function() o.model.norm.weight:fill(0 / 0) end) end
    end
    message = fails("parameter 'norm.weight' is not finite", train.run, o)
    assert.truthy(message:find("step 2", 1, true))
  end)

  it("computes the step again with modules of one's own, which may return more than one value",
    function()
      local Pair, Model = nn.module "Pair", nn.module "Model"
      function Pair:init() self.proj = nn.Linear {input = 4, output = 4, seed = 1} end
      function Pair:forward(x) return self.proj(x), x:argmax(-1), x:gt(0) end
      function Model:init() self.pair, self.own = Pair(), Pair() end
      function Model:loss(x)
        local y, largest, positive = self.pair(x)
        local z = (self.own(y) * 0):log() * positive:to "f32"
        return (z + largest:to "f32":view(-1, 1)):sum()
      end
      local model = Model()
      local function own(_, x) return model.own.proj(x) / 0 end
      model.own.forward = own
      fails("the result of 'own' is the first that is not finite", train.run, {
        model = model, data = function() return attune.ones {2, 4} end, steps = 1, log = false,
      })
      assert.equal(own, rawget(model.own, "forward"))
      assert.is_nil(rawget(model.pair, "forward"))
    end)

  it("names the first gradient in backward that is not finite", function()
    local function refused(word, loss, changes)
      local model = {first = nn.Linear {input = 2, output = 2}, second = nn.Linear {
        input = 2, output = 2,
      }, shared = nn.Linear {input = 2, output = 2}}
      local found = {}
      for name, part in pairs(model) do found[name .. ".weight"] = part.weight end
      function model.parameters() return found end
      model.loss = loss
      local o = with(changes or {}, {
        model = model, data = function() return attune.ones {2, 2} end, steps = 1, log = false,
      })
      fails(("at step 1; the gradient of '%s' is the first in backward that is not finite")
        :format(word), train.run, o)
      -- Another run is not watched any more.
      fails("gradient norm", train.run, o)
      for _, p in pairs(found) do assert.is_nil(getmetatable(core._node(p))) end
    end
    refused("second.weight", function(m, x) return (m.second(m.first(x)) * 0):sqrt():sum() end)
    refused("first.weight", function(m, x)
      local y = (m.first(x) * 0):sqrt():sum()
      return y + m.second(x):sum()
    end)
    -- The second use of a weight, which backward reaches first, has a finite gradient.
    refused("shared.weight", function(m, x)
      local y = (m.shared(m.first(x)) * 0):sqrt()
      return (y * 1 + m.second(m.shared(x))):sum()
    end)
    refused("second.weight", function(m, x)
      return autograd.checkpoint(function(y) return (m.second(y) * 0):sqrt() end, m.first(x)):sum()
    end, {accumulate = 2})
  end)

  it("says what a model, data or a schedule of a user lacks", function()
    local w = attune.ones({2}):requires_grad()
    local function model(loss)
      return {parameters = function() return {w = w} end, loss = loss}
    end
    local function product(_, x) return (w * attune.tensor(x)):sum() end
    local function refused(message, changes)
      local here = expect.here(1)
      local _, said = pcall(function() return train.run(with(changes, {
          model = model(product), data = function() return {1, 2} end, steps = 2, log = false,
        }))
      end)
      assert.equal(message, said:match "^[^\n]-%.lua:%d+: (.*)")
      assert.equal(here, said:match "[^/]+%.lua:%d+: ")
    end
    local given = "model: expected a model with loss and parameters, such as nn.Decoder, got "
    refused(given .. "3", {model = 3})
    refused(given .. "one without loss", {model = {parameters = function() end}})
    refused(given .. "one without parameters", {model = {loss = product}})
    refused("optimizer: parameters: expected at least one tensor that requires gradients, got none",
      {model = {loss = product, parameters = function() return {} end}})
    refused("optimizer: expected one over parameters of the model, got one over other tensors",
      {optimizer = optim.sgd {attune.ones({1}):requires_grad()}})
    local scalar = "model: expected loss to return a tensor of one element, got "
    refused(scalar .. "nil", {model = model(function() end)})
    refused(scalar .. "1.5", {model = model(function() return 1.5 end)})
    refused(scalar .. "2 f32 tensor", {model = model(function() return w * 2 end)})
    refused("model: expected a loss that depends on parameters, got one without a graph",
      {model = model(function() return attune.ones {1} end)})
    local ids = "data: expected ids, a tensor [batch, tokens] or a list of rows, got "
    refused(ids .. "nothing at step 1", {data = function() end})
    refused(ids .. "3 at step 1", {data = function() return 3 end})
    refused(ids .. "a table at step 1", {data = function() return {} end})
    local rate = "schedule: expected a number of at least 0 for step 1, got "
    refused(rate .. "nil", {schedule = function() end})
    refused(rate .. "-1", {schedule = function() return -1 end})
    refused("schedule: unknown option 'wrmup'; did you mean 'warmup'?", {schedule = {wrmup = 1}})
    refused("optimizer: unknown option 'ler'; did you mean 'lr'?", {optimizer = {ler = 1}})
    fails("step: expected a number from 1, got nil", optim.schedule {lr = 1, steps = 3})
  end)

  it("takes lists of ids, as a model does", function()
    local entries = {}
    local model = nn.Decoder(with({dropout = 0}, small))
    local r = train.run {
      model = model, steps = 1, data = function() return {{1, 2, 3}, {4, 5, 6}}, {{2, 3, 4},
        {5, 6, 7}} end, log = function(e) entries[#entries + 1] = e end,
    }
    assert.equal(1, #r.losses)
    assert.is_true(entries[1].tokens_per_s > 0)
  end)

  it("refuses wrong options and other checkpoints", function()
    fails("model", train.run, options {model = 3})
    fails("data", train.run, options {data = 3})
    fails("batch", function()
      local o = options()
      o.batch = nil
      train.run(o)
    end)
    fails("steps", train.run, options {steps = 0})
    fails("schedule", train.run, options {schdule = 1})
    fails("clip", train.run, options {clip = 0})
    fails("checkpoint.dir", train.run, options {checkpoint = {every = 1}})
    fails("checkpoint.every", train.run, options {checkpoint = {dir = folder}})
    local dir = folder .. "/run"
    assert(train.run(options {checkpoint = {dir = dir, every = 6}}))
    local other = nn.Decoder(with({d_ff = 48}, small))
    local r, message, code = train.run(options {model = other, checkpoint = {dir = dir, every = 6}})
    assert.is_nil(r)
    assert.truthy(message:find("expected shape", 1, true), message)
    assert.equal("EFORMAT", code)
    assert.same(parameters_of(nn.Decoder(with({d_ff = 48}, small))), parameters_of(other))
    local path = dir .. "/checkpoint.safetensors"
    local whole = assert(files.read(path))
    for _, bytes in ipairs {0, 5, 100, #whole // 2, #whole - 1} do
      assert(files.write(path, whole:sub(1, bytes)))
      local cut = options {checkpoint = {dir = dir, every = 6}}
      r, message, code = train.run(cut)
      assert.is_nil(r)
      assert.truthy(message:find("checkpoint.safetensors", 1, true), message)
      assert.equal("EFORMAT", code)
      assert.same(parameters_of(nn.Decoder(small)), parameters_of(cut.model))
      assert.equal(whole:sub(1, bytes), (assert(files.read(path))))
    end
  end)
end)

describe("a small model", function()
  it("learns to copy, and says so in accuracy", function()
    local model = nn.Decoder {
      vocab = 8, d_model = 32, layers = 2, heads = 2, position = "rope", seed = 1,
    }
    local task = data.task("copy", {vocab = 8, tokens = 9, seed = 1})
    train.run {
      model = model, data = task, batch = 32, steps = 250, optimizer = {lr = 5e-3}, log = false,
      schedule = {kind = "linear", warmup = 20},
    }
    local test = data.task("copy", {vocab = 8, tokens = 9, seed = 2})
    local tokens, rows = train.accuracy(model, test, {batches = 2})
    assert.is_true(tokens > 0.95, tokens)
    assert.is_true(rows <= tokens)
    local found = train.evaluate(model, test, {batches = 2})
    assert.is_true(found.loss < 0.3)
    assert.equal(2 * 32 * 4, found.tokens)
    local ids = train.generate(model, {0, 3, 1, 2, 5, 0}, {tokens = 4, temperature = 0})
    assert.same({0, 3, 1, 2, 5, 0, 3, 1, 2, 5}, ids)
  end)
end)

describe("train.evaluate and train.accuracy", function()
  it("leave dropout out, as generate does, and set its step again", function()
    local function model(dropout)
      return nn.Decoder {
        vocab = 16, d_model = 16, layers = 1, heads = 2, seed = 1, dropout = dropout,
      }
    end
    local function results(m)
      local copy = data.task("copy", {vocab = 16, tokens = 12, seed = 9})
      return {
        train.evaluate(m, copy, {batches = 1, batch = 4}).loss,
        train.accuracy(m, copy, {batches = 1, batch = 4}),
        train.generate(m, {1, 2}, {tokens = 4, temperature = 0}),
      }
    end
    local plain, dropping = model(0), model(0.9)
    dropping:set_step(3)
    assert.same(results(plain), results(dropping))
    local with_step = dropping:forward({{1, 2, 3}})
    assert.is_true((with_step - plain:forward({{1, 2, 3}})):abs():max():item() > 0)
    pcall(train.evaluate, dropping, function() error "stop" end)
    expect.close(dropping:forward({{1, 2, 3}}), with_step, 0)
  end)
  it("take lists, as a model does, and say what they expected", function()
    local model = nn.Decoder(with({dropout = 0}, small))
    local ids, targets, weights = {{1, 2}, {3, 4}}, {{2, 3}, {4, 5}}, {{1, 0}, {1, 0.5}}
    local function lists() return ids, targets, weights end
    local function tensors()
      return attune.tensor(ids, {dtype = "i64"}), attune.tensor(targets, {dtype = "i64"}),
        attune.tensor(weights)
    end
    local o = {batches = 2}
    assert.same(train.evaluate(model, tensors, o), train.evaluate(model, lists, o))
    assert.equal(5, train.evaluate(model, lists, o).tokens)
    assert.same({train.accuracy(model, tensors, o)}, {train.accuracy(model, lists, o)})
    local function one() return {1, 2}, {2, 3} end
    assert.equal(4, train.evaluate(model, one, o).tokens)
    assert.equal(0, (train.accuracy(model, function() return {1, 2}, {99, 99} end, o)))
    for _, fn in ipairs {train.evaluate, train.accuracy} do
      fails("data: expected a loader, a task, or a function", fn, model, 3)
      fails("data: expected a loader, a task, or a function", fn, model, {})
      -- Batches are counted down to 0.
      for _, count in ipairs {0, -1, 1.5, "2"} do
        fails("batches: expected an integer of at least 1, got", fn, model, lists,
          {batches = count})
        fails("batch: expected an integer of at least 1, got", fn, model, lists, {batch = count})
      end
    end
    fails("data: expected at least one token that counts, got none", train.accuracy, model,
      function() return ids, targets, {{0, 0}, {0, 0}} end, o)
    fails("data: expected targets as the second result, a tensor or a list of rows, got nil",
      train.evaluate, {loss = function() return attune.ones {1} end}, function() return ids end)
  end)
end)

describe("an EncoderDecoder", function()
  local model = nn.EncoderDecoder {
    vocab = 8, d_model = 8, layers = 1, heads = 2, encoder_layers = 1, std = 0.5, seed = 1,
  }
  -- The ids of the target, which are no weights, differ much.
  local batches = {
    {{{1, 2, 3}}, {{0, 1}}, {{1, 2}}, {{1, 1}}},
    {{{4, 5, 6}}, {{7, 6}}, {{6, 5}}, {{1, 0}}},
  }
  local function data_of()
    local n = 0
    return function()
      n = n % #batches + 1
      return table.unpack(batches[n])
    end
  end

  it("is evaluated by the weights of its targets", function()
    local a, b = model:loss(table.unpack(batches[1])), model:loss(table.unpack(batches[2]))
    local found = train.evaluate(model, data_of(), {batches = 2})
    assert.equal(3, found.tokens)
    assert.is_true(math.abs(found.loss - (2 * a:item() + b:item()) / 3) < 1e-6)
    local chosen = {}
    for n, batch in ipairs(batches) do
      chosen[n] = model:forward(batch[1], batch[2]):argmax(-1):tolist()[1]
    end
    local right = 0
    for n, places in ipairs {{1, 2}, {1}} do
      for _, k in ipairs(places) do
        if chosen[n][k] - 1 == batches[n][3][1][k] then right = right + 1 end
      end
    end
    assert.equal(right / 3, (train.accuracy(model, data_of(), {batches = 2})))
  end)

  it("is given its context by train.run", function()
    local seen
    local class, context = nn.EncoderDecoder, {lengths = {{1, 2}}}
    function model.loss(...)
      seen = table.pack(...)
      return class.loss(...)
    end
    train.run {
      model = model, steps = 1, log = false,
      data = function() return batches[1][1], batches[1][2], batches[1][3], nil, context end,
    }
    model.loss = nil
    assert.equal(context, seen[6])
  end)
end)

describe("train.generate", function()
  it("reads the last tokens that a learned table has", function()
    local function model(position)
      return nn.Decoder {
        vocab = 8, d_model = 16, layers = 1, heads = 2, position = position, context = 4, seed = 2,
      }
    end
    local learned, rope = model "learned", model "rope"
    local o = {tokens = 9, temperature = 1, seed = 3}
    local ids = train.generate(learned, {1, 2}, o)
    assert.equal(11, #ids)
    assert.same(ids, train.generate(learned, {1, 2}, with({context = 4}, o)))
    assert.equal(15, #train.generate(learned, {1, 2, 3, 4, 5, 6}, o))
    assert.equal(11, #train.generate(learned, {1, 2}, with({context = 2}, o)))
    fails("context: expected at most the 4 learned positions of the model, got 5", train.generate,
      learned, {1}, with({context = 5}, o))
    -- Other models read everything.
    assert.same(train.generate(rope, {1, 2}, o),
      train.generate(rope, {1, 2}, with({context = 99}, o)))
  end)
end)

describe("three steps of training agree with PyTorch in f64:", function()
  local golden = require "tests.support.golden"
  local json = require "attune.util.json"
  for _, name in ipairs(golden.files "train") do
    it(name, function()
      local tensors, metadata = assert(attune.load("tests/golden/train/" .. name))
      local before, after = {}, {}
      for key, t in pairs(tensors) do
        before[key:match "^before%.(.*)" or 0] = t
        after[key:match "^after%.(.*)" or 0] = t
      end
      before[0], after[0] = nil, nil
      local model = nn.Decoder(with({dtype = "f64"}, json.decode(metadata.model)))
      model:load_state(before)
      local given = json.decode(metadata.optimiser)
      local o = optim.adamw(model:parameters(), given)
      local losses, norms = tensors.losses:tolist(), tensors.norms:tolist()
      for step = 1, #losses do
        o:zero_grad()
        local loss = model:loss(tensors.ids, tensors.targets, tensors.weights)
        loss:backward()
        local norm = optim.clip(model:parameters(), tonumber(metadata.clip))
        o:step()
        assert.is_true(math.abs(loss:item() - losses[step]) < 1e-12, loss:item() - losses[step])
        assert.is_true(math.abs(norm - norms[step]) < 1e-12, norm - norms[step])
      end
      for key, p in pairs(model:state()) do expect.close(p, after[key], 1e-10, key) end
      -- The f32 model makes the same steps to the rounding of f32.
      local narrow = nn.Decoder(with({dtype = "f32"}, json.decode(metadata.model)))
      local state = {}
      for key, t in pairs(before) do state[key] = t:to "f32" end
      narrow:load_state(state)
      local fast = optim.adamw(narrow:parameters(), given)
      for step = 1, #losses do
        fast:zero_grad()
        local loss = narrow:loss(tensors.ids, tensors.targets, tensors.weights:to "f32")
        loss:backward()
        optim.clip(narrow:parameters(), tonumber(metadata.clip))
        fast:step()
        assert.is_true(math.abs(loss:item() - losses[step]) < 1e-4, loss:item() - losses[step])
      end
    end)
  end
end)
