local attune = require "attune"
local data = require "attune.data"
local expect = require "tests.support.expect"
local files = require "attune.util.files"
local nn = require "attune.nn"
local optim = require "attune.optim"
local run = require "tests.support.run"
local train = require "attune.train"

local function fails(word, fn, ...)
  local arguments = table.pack(...)
  return expect.fails_with(word, function() return fn(table.unpack(arguments, 1, arguments.n)) end)
end

local folder
before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  os.execute("mkdir -p " .. folder)
end)
after_each(function() os.execute("rm -rf " .. folder) end)

-- ---- optimisers -------------------------------------------------------------------------------

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
    assert.equal(0.5, optim.schedule {kind = "constant", lr = 0.5, steps = 3}(2))
    fails("kind", optim.schedule, {kind = "cosin", lr = 1, steps = 3})
    fails("lr", optim.schedule, {steps = 3})
    fails("steps", optim.schedule, {lr = 3})
  end)
end)

-- ---- runs -------------------------------------------------------------------------------------

local small = {
  vocab = 16, d_model = 16, layers = 2, heads = 2, kv_heads = 1, d_ff = 32, seed = 5, dropout = 0.1,
}

local function with(changes, base)
  local o = {}
  for name, value in pairs(base) do o[name] = value end
  for name, value in pairs(changes) do o[name] = value end
  return o
end

local function copy_task() return data.task("copy", {vocab = 16, tokens = 12, seed = 2}) end

local function options(changes)
  return with(changes or {}, {
    model = nn.Decoder(small), data = copy_task(), batch = 8, steps = 6,
    optimizer = {lr = 3e-3, betas = {0.9, 0.95}}, clip = 1, seed = 4, log = false,
    schedule = {kind = "cosine", warmup = 2},
  })
end

local function parameters_of(model)
  local list = {}
  for _, p in ipairs(model:parameters()) do list[#list + 1] = p:tolist() end
  return list
end

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

  it("goes on from a checkpoint with the same bits", function()
    local whole = options()
    local expected = train.run(whole)
    local dir = folder .. "/run"
    local first = options {checkpoint = {dir = dir, every = 2}}
    first.log = function(e) if e.step == 5 then error("stopped", 0) end end
    fails("stopped", train.run, first)
    local second = options {checkpoint = {dir = dir, every = 2}}
    local seen = {}
    second.log = function(e) seen[#seen + 1] = e.step end
    local result = assert(train.run(second))
    assert.same({5, 6}, seen)
    assert.same(expected.losses, result.losses)
    assert.same(parameters_of(whole.model), parameters_of(second.model))
  end)

  -- A model of one weight whose loss has noise.
  local function noisy()
    local w = attune.ones({4}):requires_grad()
    return {
      parameters = function() return {w = w} end,
      state = function() return {w = w} end,
      load_state = function(_, state) attune.no_grad(function() w:copy(state.w) end) end,
      loss = function() return (w * w * attune.uniform {4}):sum() end,
    }
  end

  it("goes on with the same noise where draws have no seed", function()
    for _, seed in ipairs {false, 3} do
      local function run_to(steps, dir, stop)
        local o = options {
          model = noisy(), steps = steps,
          log = function(e) if e.step == stop then error("stopped", 0) end end,
        }
        o.seed, o.checkpoint = seed or nil, dir and {dir = folder .. "/" .. dir, every = 2}
        return train.run(o)
      end
      attune.set_seed(5)
      local expected = run_to(6)
      attune.set_seed(5)
      fails("stopped", run_to, 6, tostring(seed), 5)
      attune.set_seed(11)
      local result = run_to(6, tostring(seed))
      assert.equal(6, #expected.losses)
      assert.same(expected.losses, result.losses)
    end
  end)

  it("killed with SIGKILL, ends with the bits of a run that was not", function()
    local script = folder .. "/script.lua"
    local file = assert(io.open(script, "w"))
    file:write(([[
      local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"
      local dir, kill = arg[1], tonumber(arg[2])
      local model = nn.Decoder {vocab = 16, d_model = 16, layers = 1, heads = 2, seed = 5}
      local r = assert(train.run {
        model = model, data = data.task("copy", {vocab = 16, tokens = 12, seed = 2}), batch = 8,
        steps = 30, optimizer = {lr = 3e-3}, checkpoint = {dir = dir, every = 1},
        log = function(e)
          if e.step == kill then require "luv".kill(require "luv".os_getpid(), "sigkill") end
        end,
      })
      for k, loss in ipairs(r.losses) do print(("%%d %%a"):format(k, loss)) end
      for _, p in ipairs(model:parameters()) do print(data.sha256(tostring(p:sum():item()))) end
    ]]):format())
    file:close()
    local function run_in(dir, kill)
      local pipe = io.popen(("lua5.4 %s %s/%s %s 2>/dev/null"):format(script, folder, dir, kill))
      local said = pipe:read "a"
      pipe:close()
      return said
    end
    local expected = run_in("whole", "")
    assert.truthy(expected:find "^1 0x")
    assert.equal("", run_in("killed", 7))
    assert.equal("", run_in("killed", 19))
    assert.equal(expected, run_in("killed", ""))
  end)

  it("on a full disk keeps the checkpoint before, says so, and goes on from it later", function()
    local script = folder .. "/script.lua"
    assert(files.write(script, [[
      local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"
      local model = nn.Decoder {vocab = 16, d_model = 16, layers = 2, heads = 2, seed = 5}
      local result, why, code = train.run {
        model = model, data = data.task("copy", {vocab = 16, tokens = 12, seed = 2}), batch = 8,
        steps = 6, optimizer = {lr = 3e-3}, checkpoint = {dir = arg[1], every = 2},
        log = function(e) if e.step == tonumber(arg[2]) then os.exit(3) end end,
      }
      if not result then print("nil", why, code) end
      for k, loss in ipairs(result and result.losses or {}) do print(("%d %a"):format(k, loss)) end
      for _, p in ipairs(model:parameters()) do print(data.sha256(tostring(p:sum():item()))) end
    ]]))
    -- A limit on the size of files, in units of at most 1 KiB, acts as a disk that is full.
    local function run_in(dir, stop, limited)
      return (run.in_folder(folder, ("%slua5.4 %s %s %s"):format(
        limited and "trap '' XFSZ; ulimit -f 8; " or "", script, dir, stop)))
    end
    local expected = run_in("whole", "")
    assert.truthy(expected:find "^1 0x")
    assert.equal("", run_in("full", 3))
    local path = folder .. "/full/checkpoint.safetensors"
    local before = assert(files.read(path))
    assert.is_true(#before > 8 << 10)
    local said = run_in("full", "", true)
    assert.truthy(said:find("^nil\tfull/checkpoint.safetensors: writing: File too large\t"), said)
    assert.equal(before, (assert(files.read(path))))
    assert.same({"checkpoint.safetensors", "losses.jsonl"}, files.list(folder .. "/full"))
    assert.equal(expected, run_in("full", ""))
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

describe("train.save and train.load", function()
  it("keep model, optimiser, data and more", function()
    local model, task = nn.Decoder(small), copy_task()
    local o = optim.adamw(model:parameters(), {lr = 0.5})
    task:next(3)
    local path = folder .. "/a.safetensors"
    assert(train.save(path, {model = model, optimizer = o, data = task, step = 7,
      extra = {note = "text", list = {1, 2.5}}}))
    local model2, task2 = nn.Decoder(with({seed = 6}, small)), copy_task()
    local o2 = optim.adamw(model2:parameters())
    local record = assert(train.load(path, {model = model2, optimizer = o2, data = task2}))
    assert.equal(7, record.step)
    assert.same({note = "text", list = {1, 2.5}}, record.extra)
    assert.same({}, record.warnings)
    assert.equal(0.5, o2.lr)
    assert.same(parameters_of(model), parameters_of(model2))
    assert.same((task:next(1)):tolist(), (task2:next(1)):tolist())
    local ok, _, code = train.save("/nonexistent/x", {model = model})
    assert.is_nil(ok)
    assert.truthy(code)
    ok, _, code = train.load("/nonexistent/x", {model = model})
    assert.is_nil(ok)
    assert.truthy(code)
    assert(attune.save(path, {x = attune.ones {1}}))
    local none, message = train.load(path, {model = model})
    assert.is_nil(none)
    assert.truthy(message:find("expected a checkpoint", 1, true))
    fails("model", train.save, path, {model = 3})
    fails("path", train.save, nil, {})
  end)

  it("keep where random draws without a seed go on, which a failed load leaves", function()
    local path = folder .. "/a.safetensors"
    for _, seed in ipairs {5, math.mininteger, math.maxinteger} do
      attune.set_seed(seed)
      attune.randn {2}
      assert(train.save(path, {model = nn.Decoder(small)}))
      local expected = attune.randn({3}):tolist()
      attune.set_seed(1)
      assert(train.load(path, {model = nn.Decoder(small)}))
      assert.same(expected, attune.randn({3}):tolist())
    end
    attune.set_seed(1)
    local expected = attune.randn({3}):tolist()
    attune.set_seed(1)
    assert.is_nil(train.load(path, {model = nn.Decoder(with({d_ff = 48}, small))}))
    assert.same(expected, attune.randn({3}):tolist())
  end)
end)

describe("a checkpoint that does not fit", function()
  local function text(content)
    local path = ("%s/%s.txt"):format(folder, content:sub(1, 3))
    assert(files.write(path, content:rep(50)))
    return data.loader {corpus = assert(data.bytes(path)), tokens = 8, batch = 2}
  end
  local function bytes_model(changes)
    return nn.Decoder(with(changes or {}, with({vocab = 256, dropout = 0}, small)))
  end
  -- Saves `saved`, loads it into `other`, and expects that nothing of `other` changes.
  local function refused(word, saved, other)
    local path = folder .. "/a.safetensors"
    assert(train.save(path, saved))
    local weights, state = parameters_of(other.model), other.data and other.data:state()
    local steps, lr = other.optimizer.steps, other.optimizer.lr
    local record, message, code = train.load(path, other)
    assert.is_nil(record)
    assert.truthy(message:find("^.-a.safetensors: the checkpoint does not fit: [%w.]*" .. word),
      message)
    assert.equal("EFORMAT", code)
    assert.same(weights, parameters_of(other.model))
    assert.same(state, other.data and other.data:state())
    assert.same({steps, lr}, {other.optimizer.steps, other.optimizer.lr})
  end

  it("changes nothing, whichever part does not fit", function()
    local function parts(content, changes, optimizer)
      local model = bytes_model(changes)
      local o = optimizer(model)
      o.steps = changes.seed
      local loader = text(content)
      for _ = 1, changes.seed do loader:next() end
      return {model = model, optimizer = o, data = loader}
    end
    local function sgd(model)
      return optim.sgd(model:parameters(), {momentum = 0, lr = 1 / model:count()})
    end
    local function adamw(model) return optim.adamw(model:parameters()) end
    local saved = parts("one line\n", {seed = 7}, sgd)
    refused("sha256: expected", saved, parts("another line\n", {seed = 3}, sgd))
    refused(": expected shape", saved,
      parts("one line\n", {seed = 3, d_model = 32}, sgd))
    refused("kind: expected", saved, parts("one line\n", {seed = 3}, adamw))
  end)

  it("changes nothing where parts of users refuse it after a change", function()
    local function own(refuses)
      local t = {n = 1}
      function t:state() return {n = self.n} end
      function t:load_state(state)
        local before = self.n
        self.n = state.n
        if refuses and before == 1 then error "n: expected another one" end
      end
      return t
    end
    local function parts(seed, refuses)
      local model = bytes_model {seed = seed}
      return {model = model, optimizer = optim.adamw(model:parameters()), data = own(refuses)}
    end
    local saved = parts(1)
    saved.data.n = 5
    local other = parts(2, true)
    refused("n: expected another one", saved, other)
    -- A model of a user, whose error comes after its data was loaded.
    other = parts(2)
    local inner = other.model
    other.model = {
      parameters = function() return inner:parameters() end,
      state = function() return inner:state() end,
      load_state = function(_, state)
        inner:load_state(state)
        if other.model.once then return end
        other.model.once = true
        error "weights: expected others"
      end,
    }
    refused("weights: expected others", saved, other)
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
