-- Every experiment that trains models, with models of a few thousand parameters: they run, and
-- their tables, claims and figures are there.
local files = require "attune.util.files"
local run = require "tests.support.run"
local store = require "attune.results.store"

local folder, path

setup(function()
  folder = run.empty_folder()
  path = folder .. "/text.txt"
  local verses = {}
  for k = 1, 400 do
    local words = {}
    for n = 1, 3 + k % 7 do words[n] = ("word%d"):format((k * n) % 23) end
    verses[k] = table.concat(words, " ") .. (k % 20 == 0 and "\n" or "")
  end
  assert(files.write(path, table.concat(verses, "\n")))
end)
teardown(function() run.remove(folder) end)

-- Runs an experiment with its smallest models. Returns its results.
local function results_of(name, set)
  local dir = ("%s/%s"):format(folder, name)
  local said, status = run.attune(("run experiments/%s.lua --quick --set %s --out %s"):format(
    name, set, dir))
  assert.same(0, status, said)
  assert.falsy(said:find("error:", 1, true), said)
  return assert(store.read(dir)), dir
end

-- Every point is ok and has the metrics.
local function check_points(results, count, metrics)
  assert.same(count, #results.points)
  for _, point in ipairs(results.points) do
    assert.same("ok", point.status, point.reason)
    for _, metric in ipairs(metrics) do
      local value = point.metrics[metric]
      assert.is_true(value ~= nil and value.centre == value.centre, metric)
    end
  end
end

local function of_text(more) return ("size=tiny,path=%s%s"):format(path, more or "") end

describe("the experiment", function()
  it("quality_mqa compares head sharing, at equal parameters too", function()
    local results, dir = results_of("quality_mqa", of_text ",seed=1,2,variant=MHA,MQA")
    check_points(results, 2, {"bits_per_byte", "cache_bytes", "parameters"})
    assert.same(8, results.points[1].metrics.cache_bytes.centre
      / results.points[2].metrics.cache_bytes.centre)
    assert.same("file", files.kind(dir .. "/plots/01-cache.svg"))
  end)
  it("quality_positions tests beyond the trained length, but not learned positions", function()
    local results = results_of("quality_positions", of_text ",seed=1,position=learned,alibi")
    check_points(results, 2, {"bits_per_byte", "parameters"})
    assert.same({16}, results.points[1].metrics.length.samples[1])
    assert.same({16, 32, 64, 128}, results.points[2].metrics.length.samples[1])
    assert.is_nil(results.points[1].metrics.growth_sliding)
    local counts = {}
    for k = 1, 2 do counts[k] = results.points[k].metrics.parameters.centre end
    assert.near(1, counts[1] / counts[2], 0.005)
  end)
  it("quality_packing trains on filled and on packed rows", function()
    local results = results_of("quality_packing", of_text ",seed=1,position=learned")
    check_points(results, 5, {"bits_per_byte", "tokens_computed"})
    local separate, packed = results.points[1], results.points[2]
    assert.is_true(separate.metrics.tokens_computed.centre > packed.metrics.tokens_computed.centre)
  end)
  it("quality_linear trains softmax and FAVOR+", function()
    check_points(results_of("quality_linear", of_text ",seed=1"), 8, {"bits_per_byte", "loss"})
  end)
  it("recall_heads measures recall and bytes of state", function()
    local results = results_of("recall_heads", "size=tiny,seed=1")
    check_points(results, 6, {"recall", "state_bytes"})
    local bytes = {}
    for k, point in ipairs(results.points) do bytes[k] = point.metrics.state_bytes.centre end
    -- 24 tokens, 2 layers, heads of 4 dims: K and V in f32; a window of 6; sums of 4 heads.
    assert.same({6144, 3072, 1536, 1536, 5120, 10240}, bytes)
  end)
  it("convert_heads takes the models of trained_mha", function()
    local results, dir = results_of("convert_heads", of_text ",seed=1,2")
    check_points(results, 12, {"bits_per_byte", "lost"})
    local all_heads = results.points[1]
    assert.same({8, 0}, {all_heads.parameters.kv_heads, all_heads.parameters.part})
    assert.same({0, 0}, all_heads.metrics.lost.values) -- the model itself
    assert.same(2, #assert(store.read(dir .. "/uses/trained_mha")).points)
  end)
  it("quality_rope_scaling scales the models of quality_positions", function()
    local results = results_of("quality_rope_scaling",
      of_text ",seed=1,2,position=rope,factor=8,scaling=none,yarn")
    check_points(results, 4, {"sliding", "separate", "growth"})
    local untuned, tuned = results.points[1], results.points[2]
    assert.same({false, true}, {untuned.parameters.tuned, tuned.parameters.tuned})
    assert.are_not.same(untuned.metrics.sliding.values, tuned.metrics.sliding.values)
  end)
  it("length_generalisation tests up to twice the trained length", function()
    local results = results_of("length_generalisation",
      "size=tiny,seed=1,position=none,learned,t5,task=copy,addition")
    check_points(results, 6, {"trained", "trained_ids", "beyond"})
    assert.same({4, 8, 12, 16, 20, 24, 28, 32}, results.points[1].metrics.length.samples[1])
    assert.same({1, 2, 3, 4, 5, 6, 7, 8}, results.points[4].metrics.length.samples[1])
  end)
end)
