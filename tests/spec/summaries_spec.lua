local attune = require "attune"
local expect = require "tests.support.expect"

local fails = expect.fails
local all = {"entropy", "distance", "sinks", "columns"}

-- The summaries of weights [heads, queries, keys] as lists of numbers. first: the token of the
-- first query, from 0.
local function summaries_of(weights, first)
  local out = {entropy = {}, distance = {}, sinks = {}, columns = {}}
  for h, rows in ipairs(weights:tolist()) do
    local entropy, distance, sinks, columns = {}, {}, {}, {}
    for i, row in ipairs(rows) do
      entropy[i], distance[i], sinks[i] = 0, 0, 0
      for j, w in ipairs(row) do
        if w > 0 then entropy[i] = entropy[i] - w * math.log(w) end
        distance[i] = distance[i] + w * math.abs(first + i - j)
        if j <= 4 then sinks[i] = sinks[i] + w end
        columns[j] = (columns[j] or 0) + w
      end
    end
    out.entropy[h], out.distance[h] = entropy, distance
    out.sinks[h], out.columns[h] = sinks, columns
  end
  return out
end

-- got: the third result, of one batch row; weights [heads, queries, keys].
local function agree(got, weights, first, bound, what)
  for name, expected in pairs(summaries_of(weights, first)) do
    local lists = got[name]:tolist()
    for h, list in ipairs(expected) do
      assert.same(#list, #lists[h], what .. ": " .. name)
      for i, x in ipairs(list) do
        local difference = math.abs(lists[h][i] - x)
        if not (difference <= bound * (1 + x)) then
          local text = "%s: %s[%d][%d]: expected %.9g, got %.9g"
          error(text:format(what, name, h, i, x, lists[h][i]))
        end
      end
    end
  end
end

local function row(summaries, b)
  local out = {}
  for name, t in pairs(summaries) do out[name] = t[b] end
  return out
end

local function with(options, more)
  local out = {}
  for name, value in pairs(options) do out[name] = value end
  for name, value in pairs(more) do out[name] = value end
  return out
end

describe("summaries of attention", function()
  local slopes = attune.tensor({0.5, 0.25, 0.1, 0.05}, {shape = {4}})
  local bias = attune.randn({4, 90, 90}, {seed = 9})
  local document = attune.tensor((function()
    local ids = {}
    for i = 1, 90 do ids[i] = i // 13 end
    return ids
  end)(), {shape = {90}, dtype = "i32"})
  local problems = {
    plain = {},
    causal = {causal = true},
    window = {causal = true, window = 20},
    ["a window of two sides"] = {window = {7, 3}},
    documents = {causal = true, lengths = {13, 0, 40, 37}},
    ["a softcap and a scale"] = {causal = true, softcap = 2, scale = 0.7},
    ["a negative scale"] = {scale = -0.3},
    sinks = {causal = true, sinks = attune.tensor({0.5, 3, -2, 30}, {shape = {4}})},
    ["a score"] = {causal = true, score = function(s, at)
      return s - slopes[at.h] * (at.i - at.j)
    end},
    ["a bias"] = {score = function(s, at) return s + bias[at.h][at.i][at.j] end},
    ["a mask with gaps"] = {mask = function(at)
      return document[at.i]:eq(document[at.j]) | ((at.i + at.j) % 7):eq(0)
    end},
    ["a mask that hides all"] = {mask = function(at) return at.i:lt(30) & at.j:le(at.i) end},
    rotation = {causal = true, rotate = attune.position("rope", {head_dim = 24})},
  }
  for name, options in pairs(problems) do
    it("agree with the weights: " .. name, function()
      local q = attune.randn({1, 4, 90, 24}, {seed = 1})
      local k = attune.randn({1, 2, 90, 24}, {seed = 2})
      local v = attune.randn({1, 2, 90, 16}, {seed = 3})
      local weights = attune.attention_weights(q:to "f64", k:to "f64", options)[1]
      for _, engine in ipairs {"reference", "tiled"} do
        local o, lse, summaries = attune.attention(
          q, k, v, with(options, {engine = engine, summaries = all})
        )
        agree(row(summaries, 1), weights, 0, 4e-6, engine)
        local plain, plain_lse = attune.attention(q, k, v, with(options, {engine = engine}))
        assert.same(plain:tolist(), o:tolist())
        assert.same(plain_lse:tolist(), lse:tolist())
      end
      if options.lengths then return end
      for _, first in ipairs {81, 90} do -- ten queries, and one
        local few = q:slice(3, first, 90)
        local expected = attune.attention_weights(few:to "f64", k:to "f64", options)[1]
        for _, engine in ipairs {"decode", "tiled"} do
          local _, _, summaries = attune.attention(
            few, k, v, with(options, {engine = engine, summaries = all})
          )
          agree(row(summaries, 1), expected, first - 1, 4e-6, engine .. " from " .. first)
        end
      end
    end)
  end
  it("are f64 for f64, and only those that are asked for", function()
    local q = attune.randn({1, 2, 9, 8}, {seed = 1, dtype = "f64"})
    local _, _, summaries = attune.attention(q, q, q, {summaries = {"columns", "entropy"}})
    assert.same("f64", summaries.columns.dtype)
    assert.same({1, 2, 9}, summaries.entropy.shape)
    assert.is_nil(summaries.distance)
    assert.is_nil(summaries.sinks)
    agree(
      row((select(3, attune.attention(q, q, q, {summaries = all}))), 1),
      attune.attention_weights(q, q)[1], 0, 1e-12, "f64"
    )
    local count = select("#", attune.attention(q, q, q, {summaries = {}}))
    assert.same(3, count)
    assert.same(2, (select("#", attune.attention(q, q, q))))
  end)
  it("come with gradients", function()
    local q = attune.randn({1, 2, 9, 8}, {seed = 1}):requires_grad()
    local k = attune.randn({1, 2, 9, 8}, {seed = 2})
    local o, _, summaries = attune.attention(q, k, k, {causal = true, summaries = all})
    assert.same({1, 2, 9}, summaries.distance.shape)
    o:sum():backward()
    assert.same({1, 2, 9, 8}, q.grad.shape)
  end)
  it("take no memory of tokens times tokens", function()
    local q = attune.randn({1, 1, 3000, 16}, {seed = 1})
    local before = attune.memory()
    finally(function() attune.memory {limit = before.limit} end)
    attune.memory {limit = before.bytes + 12 * 2 ^ 20 // 1 | 0} -- the matrix: 36 MB
    local _, _, summaries = attune.attention(q, q, q, {causal = true, summaries = all})
    assert.truthy(math.abs(summaries.columns:sum():item() - 3000) < 0.01)
  end)
  it("are refused where they cannot be given", function()
    local q = attune.randn({1, 1, 4, 8}, {seed = 1})
    fails("engine: blis gives no summaries; expected tiled, decode or reference", function()
      attune.attention(q, q, q, {engine = "blis", summaries = {"entropy"}})
    end)
    fails("unknown summaries 'column': did you mean 'columns'", function()
      attune.attention(q, q, q, {summaries = {"column"}})
    end)
    fails("summaries: expected a list of names, such as .*, got 'entropy'", function()
      attune.attention(q, q, q, {summaries = "entropy"})
    end)
    fails("summaries: expected a list of names, .*got a table of named fields", function()
      attune.attention(q, q, q, {summaries = {entropy = true}})
    end)
    fails("summaries: expected a name, got 3", function()
      attune.attention(q, q, q, {summaries = {3}})
    end)
    fails("summaries: expected none, as the weights themselves", function()
      attune.attention_weights(q, q, {summaries = all})
    end)
  end)
end)

describe("summaries of a cache", function()
  -- What a cache of a dtype holds of x, read back through weights on one key at a time.
  local function held(x, dtype)
    if dtype ~= "i8" then return x:to(dtype):to "f64" end
    local rows = {}
    for h, head in ipairs(x[1]:tolist()) do
      rows[h] = {}
      for t, token in ipairs(head) do
        local max = 0
        for _, value in ipairs(token) do max = math.max(max, math.abs(value)) end
        rows[h][t] = {}
        for d, value in ipairs(token) do
          rows[h][t][d] = math.floor(value / max * 127 + 0.5) * max / 127
        end
      end
    end
    local flat = {}
    for _, head in ipairs(rows) do
      for _, token in ipairs(head) do table.move(token, 1, #token, #flat + 1, flat) end
    end
    return attune.tensor(flat, {shape = x.shape, dtype = "f64"})
  end
  local k = attune.randn({1, 2, 700, 32}, {seed = 1})
  local v = attune.randn({1, 2, 700, 32}, {seed = 2})
  for dtype, bound in pairs {f32 = 4e-6, bf16 = 4e-6, f16 = 4e-6, i8 = 6e-4} do
    it("agree with the weights of what it holds: " .. dtype, function()
      local cache = attune.cache {kv_heads = 2, head_dim = 32, capacity = 700, dtype = dtype}
      cache:append(k, v)
      for _, n in ipairs {1, 5, 40} do
        local q = attune.randn({1, 4, n, 32}, {seed = 3})
        local o, _, summaries = cache:attend(q, {summaries = all})
        agree(
          row(summaries, 1),
          attune.attention_weights(q:to "f64", held(k, dtype), {causal = true})[1], 700 - n, bound,
          dtype
        )
        assert.same(cache:attend(q):tolist(), o:tolist())
      end
    end)
  end
  it("count the keys of a ring from the first token ever appended", function()
    local cache = attune.cache {kv_heads = 2, head_dim = 32, window = 100}
    for t = 1, 700, 50 do
      cache:append(k:slice(3, t, t + 49), v:slice(3, t, t + 49))
    end
    local q = attune.randn({1, 4, 3, 32}, {seed = 3})
    local _, _, summaries = cache:attend(q, {summaries = all})
    assert.same({1, 4, 700}, summaries.columns.shape)
    agree(
      row(summaries, 1),
      attune.attention_weights(q:to "f64", k:to "f64", {causal = true, window = 100})[1], 697, 4e-6,
      "ring"
    )
  end)
  it("know the length of each batch row", function()
    local cache = attune.cache {batch = 2, kv_heads = 2, head_dim = 32, capacity = 200}
    local two = attune.cat({k:slice(3, 1, 150), k:slice(3, 201, 350)}, 1)
    cache:append(two, two, {counts = {150, 90}})
    local q = attune.randn({2, 4, 2, 32}, {seed = 3})
    for _, engine in ipairs {"decode", "tiled"} do
      local _, _, summaries = cache:attend(q, {summaries = all, engine = engine})
      for b, length in ipairs {150, 90} do
        local own, held_keys = q:slice(1, b, b), two:slice(1, b, b):slice(3, 1, length)
        local weights = attune.attention_weights(
          own:to "f64", held_keys:to "f64", {causal = true}
        )[1]
        local got = row(summaries, b)
        if b == 2 then
          assert.same(0, got.columns:slice(2, 91, 150):max():item())
          got.columns = got.columns:slice(2, 1, 90)
        end
        agree(got, weights, length - 2, 4e-6, engine)
      end
    end
  end)
end)

describe("summaries of a model", function()
  it("come from forward, one table per block, and leave the logits", function()
    local m = assert(require "attune.model".load "tests/golden/models/gpt_oss")
    local ids = {{5, 6, 7, 8, 9, 10, 11, 12}}
    local logits, blocks = m:forward(ids, {summaries = all})
    assert.same(m:forward(ids):tolist(), logits:tolist())
    assert.is_true(#blocks > 0)
    for _, summaries in ipairs(blocks) do
      local shape = summaries.columns.shape
      assert.same({1, 8}, {shape[1], shape[3]})
      assert.same(shape, summaries.entropy.shape)
      -- The first token has one key.
      assert.same(0, summaries.distance:slice(3, 1, 1):max():item())
    end
    m = assert(require "attune.model".load "tests/golden/models/llama_tied")
    local columns = select(2, m:forward(ids, {summaries = {"columns"}}))[1].columns
    assert.truthy(math.abs(columns:sum(3):max():item() - 8) < 1e-5)
    fails("unknown option", function() m:forward(ids, {summary = all}) end)
  end)
end)
