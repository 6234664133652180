-- What experiments that compare trained models share: attune.train.study, data.windows, and claims
-- over a family of variants.
local claims = require "attune.results.claims"
local data = require "attune.data"
local expect = require "tests.support.expect"
local files = require "attune.util.files"
local nn = require "attune.nn"
local run = require "tests.support.run"
local stats = require "attune.results.statistics"
local train = require "attune.train"

local study = train.study
local folder, path

setup(function()
  folder = run.empty_folder()
  path = folder .. "/text.txt"
  local lines = {}
  for k = 1, 60 do lines[k] = ("line %d of the text"):format(k) end
  assert(files.write(path, table.concat(lines, "\n\n")))
end)
teardown(function() run.remove(folder) end)

local fails = expect.fails_with

-- The targets that count, window by window.
local function counted(windows)
  local list = {}
  for _, targets, weights in windows:each() do
    local t, w = targets:tolist(), weights and weights:tolist()
    for r = 1, #t do
      for k = 1, #t[r] do
        if not w or w[r][k] > 0 then list[#list + 1] = t[r][k] end
      end
    end
  end
  return list
end

describe("data.windows", function()
  local corpus
  setup(function() corpus = assert(data.bytes(path)) end)
  local function windows(tokens, stride)
    return data.windows {
      corpus = corpus, tokens = tokens, stride = stride, from = 64, count = 128 // stride,
      batch = 3,
    }
  end

  it("of all lengths and strides count the same targets, once each", function()
    local wanted = corpus.ids:slice(1, 66, 66 + 127):tolist()
    assert.same(wanted, counted(windows(8, 8)))
    assert.same(wanted, counted(windows(64, 64)))
    assert.same(wanted, counted(windows(64, 8)))
    assert.same(wanted, counted(windows(16, 4)))
  end)
  it("hold the text before the targets that count", function()
    local ids, targets, weights = windows(16, 4):each()()
    assert.same(corpus.ids:slice(1, 53, 68):tolist(), ids:tolist()[1])
    assert.same(corpus.ids:slice(1, 54, 69):tolist(), targets:tolist()[1])
    assert.same({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1}, weights:tolist()[1])
  end)
  it("leave out the first target of a document", function()
    local by_line = assert(data.bytes(path, {separator = "\n\n"}))
    local function count(c, stride)
      return #counted(data.windows {corpus = c, tokens = 32, stride = stride, from = 32, count = 4})
    end
    assert.is_true(count(by_line, 32) < 128)
    assert.is_true(count(by_line, 16) < count(corpus, 16))
  end)
  it("give a model the loss of its last targets", function()
    local model = nn.Decoder {vocab = 256, d_model = 8, layers = 1, heads = 1, std = 0.5, seed = 1}
    local found = train.evaluate(model, windows(16, 4))
    assert.same(128, found.tokens)
    local sum = 0
    for first = 64, 188, 4 do
      local window = corpus.ids:slice(1, first + 4 - 16 + 1, first + 4 + 1):tolist()
      local ids, targets = table.move(window, 1, 16, 1, {}), table.move(window, 2, 17, 1, {})
      local weights = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1}
      sum = sum + model:loss({ids}, {targets}, {weights}):item() * 4
    end
    assert.near(sum / 128, found.loss, 1e-5)
  end)
  it("refuse what the corpus does not have", function()
    fails("tokens: expected an integer from 1 to", data.windows,
      {corpus = corpus, tokens = 1 << 20})
    for name, value in pairs {tokens = "8", stride = 0, targets = 1.5} do
      local o = {tokens = 8}
      o[name] = value
      fails(name .. ": expected an integer of at least 1, got", study.bits_per_byte, {}, corpus, o)
    end
    fails("tokens: expected an integer of at least 1, got nil", study.bits_per_byte, {}, corpus, {})
    fails("targets: expected at least the 8 of one window, got 7", study.bits_per_byte, {}, corpus,
      {tokens = 8, targets = 7})
    fails("stride: expected an integer from 1 to 8, got 9", data.windows,
      {corpus = corpus, tokens = 8, stride = 9})
    fails("from: expected an integer from 4", data.windows,
      {corpus = corpus, tokens = 8, stride = 4, from = 3})
    fails("count: expected an integer from 1 to", data.windows,
      {corpus = corpus, tokens = 8, count = 1 << 20})
    fails("corpus: expected what data.bytes", data.windows, {corpus = {}, tokens = 8})
    fails("stride", data.windows, {corpus = corpus, tokens = 8, strid = 9})
  end)
end)

describe("train.study", function()
  it("names texts and tells them apart", function()
    local other = folder .. "/other.txt"
    assert(files.write(other, "another text\n"))
    assert.truthy(study.fingerprint(path):find "^%x%x%x%x%x%x%x%x%x%x%x%x$")
    assert.are_not.equal(study.fingerprint(path), study.fingerprint(other))
    assert.same("missing", study.fingerprint(folder .. "/none.txt"))
    assert.same({nil, folder .. "/none.txt: no such file or folder"},
      {study.path(folder .. "/none.txt")})
    local before = study.fingerprint(other)
    assert(files.write(other, "another text, and longer\n"))
    assert.are_not.equal(before, study.fingerprint(other))
    fails("name: expected", study.path, 3)
  end)
  it("divides a text by document", function()
    local training, validation = study.text(path, {separator = "\n\n", validation = 0.2})
    assert.same(60, training.documents + validation.documents)
    assert.near(0.2, validation.tokens / (training.tokens + validation.tokens), 0.03)
    assert.is_nil((study.text(folder .. "/none.txt")))
  end)
  it("draws a curve of means of equal parts", function()
    assert.same({1.5, 3.5, 5.5}, study.curve({1, 2, 3, 4, 5, 6}, 3))
    assert.same({1, 2}, study.curve({1, 2}, 100))
    assert.same({1.5, 4}, study.curve({1, 2, 3, 4, 5}, 2))
    assert.same({}, study.curve({}, 10))
  end)

  -- Trains a small model; fails at a step when asked.
  local function trained(t, stop)
    local training = assert(study.text(path))
    local model = nn.Decoder {vocab = 256, d_model = 8, layers = 1, heads = 1, seed = 3}
    local batches = data.loader {corpus = training, tokens = 16, batch = 2, seed = 3}
    local result = study.train(t, {
      model = model, data = batches, steps = 240, lr = 1e-2, seed = 3,
      log = function(entry) if entry.step == stop then error "stopped" end end,
    })
    return result.losses, model:state()
  end

  it("goes on where a trial was stopped, with the same bits, and leaves no checkpoint", function()
    local t = {file = function(_, name) return folder .. "/" .. name end}
    local losses, state = trained()
    assert.is_false(pcall(trained, t, 130))
    assert.same("file", files.kind(folder .. "/training/checkpoint.safetensors"))
    local seen, again, continued = 0, trained(t)
    assert.same(losses, again)
    for name, tensor in pairs(state) do
      assert.same(tensor:tolist(), continued[name]:tolist())
      seen = seen + 1
    end
    assert.is_true(seen > 5)
    assert.is_nil(files.kind(folder .. "/training/checkpoint.safetensors"))
    assert.same("file", files.kind(folder .. "/training/losses.jsonl"))
  end)
  it("refuses options that it does not have", function()
    local model = nn.Decoder {vocab = 8, d_model = 8, layers = 1, heads = 1}
    local task = data.task("copy", {vocab = 8, tokens = 8})
    fails("lr: expected a number above 0", study.train, nil,
      {model = model, data = task, steps = 1})
    fails("steps: expected an integer", study.train, nil,
      {model = model, data = task, lr = 1, steps = 0.5})
    fails("warmup", study.train, nil, {model = model, warmups = 1})
  end)
end)

-- ---- claims over a family ---------------------------------------------------------------------

local function value(values)
  local v = stats.summary(values)
  v.values, v.rounds = values, {}
  for i = 1, #values do v.rounds[i] = i end
  return v
end

local r = claims.over {
  parameters = {"variant"},
  metrics = {{name = "y"}},
  points = {
    {parameters = {variant = "MHA"}, metrics = {y = value {1, 1.1, 0.9, 1.2}}},
    {parameters = {variant = "MQA"}, metrics = {y = value {1.05, 1.16, 0.94, 1.26}}},
    {parameters = {variant = "GQA"}, metrics = {y = value {1.01, 1.09, 0.91, 1.21}}},
    {parameters = {variant = "none"}, metrics = {}},
  },
}

local function verdict(q)
  local claim = claims.judge({claims = {{"x", function() return q end}}}, {
    parameters = {}, points = {}, metrics = {},
  })[1]
  return claim.verdict, claim.detail
end

describe("a family of variants", function()
  it("pairs each with the reference, and adjusts the probabilities (Holm)", function()
    local family = r:family("y", {variant = "MHA"}, "difference")
    assert.same({"MQA", "GQA"}, family.names)
    local mqa, gqa = family:of "MQA", family:of "GQA"
    assert.near(0.0525, mqa.centre, 1e-12)
    -- Student's t of 4 pairs: t = 10.967 and 1, p = 0.001623 and 0.391; Holm doubles the smaller.
    assert.near(2 * 0.00162320, mqa.p, 1e-7)
    assert.near(0.391, gqa.p, 1e-3)
    assert.same({2, 2}, {mqa.comparisons, gqa.comparisons})
    assert.same("held", (verdict(mqa:differs())))
    assert.same("undecided", (verdict(gqa:differs())))
    assert.same("held", (verdict(mqa:above(0))))
  end)
  it("says what the run could have resolved", function()
    local mqa = r:family("y", {variant = "MHA"}, "difference"):of "MQA"
    -- t(0.975) + t(0.8) with 3 degrees of freedom, times the standard error of the mean.
    assert.near((3.182446 + 0.978472) * 0.009574271 / 2, mqa:resolves(), 1e-6)
    local ratio = r:family("y", {variant = "MHA"}, "ratio"):of "MQA"
    assert.near(0.0098, ratio:resolves(), 0.01)
    local _, detail = verdict(ratio:within(0.9, 1.1))
    assert.truthy(detail:find "; resolves [%d.]+%%; p [%de.-]+ %(Holm, 2 comparisons%)", detail)
  end)
  it("leaves a claim undecided about a variant that the run lacks", function()
    local family = r:family("y", {variant = "MHA"}, "ratio")
    for _, q in ipairs {family:of "none", family:of "other"} do
      for _, judged in ipairs {q:above(0), q:below(0), q:within(0, 1), q:differs()} do
        local word, detail = verdict(judged)
        assert.same("undecided", word)
        assert.truthy(detail:find("no y with variant = ", 1, true), detail)
      end
    end
    local without = r:where {variant = "MQA"}:family("y", {variant = "MHA"}, "ratio")
    assert.same("undecided", (verdict(without:of "MQA":above(0))))
  end)
  it("fails in a run of all points for a name that no point has, and for the base", function()
    local results, base = r.results, {variant = "MHA"}
    local function judged(name, is_incomplete)
      return claims.judge({claims = {{"x", function(over)
        return over:family("y", base, "ratio"):of(name):above(0)
      end}}}, results, is_incomplete)[1]
    end
    for name, wanted in pairs {
      MQE = "of: unknown variant 'MQE': did you mean 'MQA'?",
      MHA = "of: expected another variant than that of the comparison, got MHA",
    } do
      local claim = judged(name)
      assert.same("failed", claim.verdict)
      assert.truthy(claim.detail:find(wanted, 1, true), claim.detail)
      assert.same("undecided", judged(name, true).verdict)
    end
    assert.same("undecided", judged("none").verdict)
    base = {variant = "MHE"}
    assert.truthy(judged("MQA").detail:find("family: no point has variant MHE", 1, true))
  end)
  it("is exact where nothing scatters", function()
    local same = claims.over {
      parameters = {"v"}, metrics = {{name = "y"}},
      points = {
        {parameters = {v = 1}, metrics = {y = value {1, 2, 3}}},
        {parameters = {v = 2}, metrics = {y = value {1, 2, 3}}},
        {parameters = {v = 3}, metrics = {y = value {2, 4, 6}}},
      },
    }
    local family = same:family("y", {v = 1}, "ratio")
    assert.same({1.0, 0.0}, {family:of(2).p, family:of(3).p})
    assert.same("undecided", (verdict(family:of(2):differs())))
    assert.same("held", (verdict(family:of(3):differs())))
    assert.same(0, family:of(2):resolves())
  end)
  it("refuses what it cannot compare", function()
    fails("family: expected 'ratio' or 'difference'", r.family, r, "y", {variant = "MHA"}, "factor")
    fails("family: expected one parameter", r.family, r, "y", {}, "ratio")
    fails("unknown parameter 'varian'", r.family, r, "y", {varian = "MHA"}, "ratio")
    fails("unknown metric 'z'", r.family, r, "z", {variant = "MHA"}, "ratio")
  end)
end)

describe("a point that is measured with some of the seeds only", function()
  it("is ok", function()
    local points = require "attune.results.points"
    local function record(seed, status, y)
      return {
        index = 1, hash = "a", round = 1, seed = seed, status = status, parameters = {a = 1},
        metrics = y and {y = y}, reason = not y and "few seeds" or nil,
      }
    end
    local point = points.collect({record(1, "ok", 2), record(2, "skipped")}, {1, 2})[1]
    assert.same({"ok", 1}, {point.status, point.rounds})
    point = points.collect({record(1, "skipped"), record(2, "ok", 2)}, {1, 2})[1]
    assert.same({"ok", 1, nil}, {point.status, point.rounds, point.reason})
    point = points.collect({record(1, "skipped"), record(2, "skipped")}, {1, 2})[1]
    assert.same({"skipped", "few seeds"}, {point.status, point.reason})
    point = points.collect({record(1, "ok", 2), record(2, "failed")}, {1, 2})[1]
    assert.same("failed", point.status)
  end)
end)
