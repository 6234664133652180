-- Runs that go on, and what their checkpoints hold.
local attune = require "attune"
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
local copy_task = training.copy_task

local fails = expect.fails_with

local folder
before_each(function() folder = run.empty_folder() end)
after_each(function() run.remove(folder) end)

describe("train.run with a checkpoint", function()
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

  it("goes on with the same validation losses where a task is validated", function()
    local function run_to(dir, stop)
      return train.run(options {
        validate = {data = data.task("copy", {vocab = 16, tokens = 12, seed = 9}), every = 1,
          batch = 4, batches = 2},
        checkpoint = dir and {dir = folder .. "/" .. dir, every = 2},
        log = function(e) if e.step == stop then error("stopped", 0) end end,
      })
    end
    local expected = run_to()
    fails("stopped", run_to, "run", 5)
    assert.same(expected, run_to "run")
  end)

  it("warns where a function gives the data, whose position is lost", function()
    local script = folder .. "/script.lua"
    assert(files.write(script, [[
      local attune, data = require "attune", require "attune.data"
      local train = require "attune.train"
      local w = attune.ones({4}):requires_grad()
      local function draw() return attune.ones {1, 4}, attune.ones {1, 4} end
      local given = {
        model = {
          parameters = function() return {w = w} end, state = function() return {w = w} end,
          load_state = function() end, loss = function(_, x) return (w * x):sum() end,
        },
        data = draw, steps = tonumber(arg[1]), log = false,
        checkpoint = {dir = "run", every = 1},
      }
      if arg[2] == "function" then given.validate = {data = draw, every = 1} end
      if arg[2] == "table" then given.validate = {data = {next = draw}, every = 1} end
      train.run(given)
    ]]))
    local function said(arguments)
      return (run.in_folder(folder, ("lua5.4 %s %s 2>&1"):format(script, arguments)))
    end
    assert.equal("", said "1")
    assert.equal("", said "1")
    local text = said "2"
    assert.truthy(text:find("attune: data is a function, whose position", 1, true), text)
    assert.is_nil(text:find("validate", 1, true))
    text = said "3 function"
    assert.truthy(text:find("attune: validate.data is a function", 1, true), text)
    text = said "4 table"
    assert.truthy(text:find("attune: validate.data is a table without state()", 1, true), text)
    -- A checkpoint of more steps is no reason for a warning about what comes next.
    assert.equal("attune: run/checkpoint.safetensors is of step 4, after the 2 steps of this run: "
      .. "nothing is trained, and the result is that of 4 steps\n", said "2")
    assert.equal("", said "4")
  end)

  it("refuses parts without a state before the first step", function()
    local steps = 0
    local function refused(word, changes)
      changes.checkpoint = {dir = folder .. "/run", every = 1}
      changes.log = function() steps = steps + 1 end
      fails(word .. ": expected state() and load_state(), which a checkpoint needs, got a table",
        train.run, options(changes))
    end
    local task = copy_task()
    local function draw() return task:next(8) end
    refused("data", {data = {batch = 8, next = draw}})
    refused("data", {data = {batch = 8, next = draw, state = function() return {} end}})
    local model = nn.Decoder(small)
    refused("model", {model = {
      loss = function(_, ...) return model:loss(...) end,
      parameters = function() return model:parameters() end,
    }})
    refused("optimizer", {optimizer = {step = function() end, lr = 1}})
    -- Where the state cannot be written, the first checkpoint would be too late to say so.
    local state
    local own = {batch = 8, next = draw, load_state = function() end}
    function own.state() return state end
    local section, log = {dir = folder .. "/run", every = 1}, function() steps = steps + 1 end
    local text = "data: expected state() to give what JSON can hold: expected "
    fails(text .. "numbers, strings, booleans and tables, got nil", train.run,
      options {data = own, checkpoint = section, log = log})
    state = {ids = attune.ones {1}}
    fails("validate." .. text .. "numbers, strings, booleans and tables, got a userdata", train.run,
      options {validate = {data = own, every = 9}, checkpoint = section, log = log})
    fails(text .. "numbers, strings, booleans and tables, got a userdata", train.save,
      folder .. "/a.safetensors", {data = own})
    assert.equal(0, steps)
    fails("validate.data: expected a loader", train.run, options {validate = {data = 3, every = 1}})
    fails("validate.data: expected a loader", train.run, options {validate = {every = 1}})
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
    assert(train.save(path, {extra = {best = math.huge, losses = {-math.huge, 0 / 0}}}))
    local extra = assert(train.load(path, {})).extra
    assert.same({math.huge, -math.huge}, {extra.best, extra.losses[1]})
    assert.equal("number", type(extra.losses[2]))
    assert(train.save(path, {model = model, optimizer = o, data = task, step = 7}))
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
    for _, step in ipairs {"abc", -1, 1.5} do
      fails("step: expected an integer of at least 0, got", train.save, path, {step = step})
    end
    fails("extra: expected a table", train.save, path, {extra = 3})
    fails("extra: expected a table", train.save, path, {extra = {print}})
    assert(attune.save(path, {x = attune.ones {1}}, {
      checkpoint = [[{"format": "attune.train.1"}]],
    }))
    none, message = train.load(path, {})
    assert.is_nil(none)
    assert.truthy(message:find("expected a checkpoint of attune.train, got one of step nil", 1,
      true))
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
    assert.truthy(message:find("^.-a.safetensors: the checkpoint does not fit: [%w.: ]*" .. word),
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
    local f64 = parts("one line\n", {seed = 7, dtype = "f64"}, sgd)
    refused("expected dtype f32, got f64; load the weights with attune.load", f64, saved)
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
