--- Reads of tensors inside score programs.
local attune = require "attune"
local expect = require "tests.support.expect"

local fails = expect.fails

describe("a read in a score program", function()
  local x = {}
  for n = 1, 3 do x[n] = attune.randn({1, 2, 8, 4}, {seed = n}) end
  local function run(score) return attune.attention(x[1], x[2], x[3], {score = score}) end

  it("refuses an index out of range for visible pairs only", function()
    local t = attune.ones {4}
    fails("score: expected an index in range of the tensor %[4%], from 1, got %[5%] for query 5 "
      .. "and key 1 of head 1 %(line %d+%)", function()
      run(function(s, at) return s + t[at.i] end)
    end)
    local function by_distance(s, at) return s + t[at.i - at.j + 1] end
    fails("got %[0%]", function() run(by_distance) end)
    fails("got %[5%]", function()
      attune.attention(x[1], x[2], x[3], {score = by_distance, causal = true})
    end)
    for _, options in ipairs {
      {score = by_distance, causal = true, window = 4},
      {score = by_distance, mask = function(at) return at.i:ge(at.j) & (at.i - at.j):lt(4) end},
      {score = by_distance, mask = function(at)
        local d = at.i - at.j
        return (d % 2):eq(0) & d:ge(0) & d:lt(4)
      end},
      {score = by_distance, causal = true, lengths = {4, 4}},
      {score = function(s, at)
        return s + t[at.i - at.j + at.h - 1]
      end, mask = function(at)
      local d = at.i - at.j + at.h - 1
      return d:ge(1) & d:le(4) end},
      {score = function(s, at) return s + t[at.i * at.j] end, mask = function(at)
        return (at.i * at.j):le(4)
      end},
    } do
      for _, engine in ipairs {"reference", "tiled", "blis"} do
        options.engine = engine
        assert.has_no.errors(function() attune.attention(x[1], x[2], x[3], options) end)
      end
    end
    fails("got %[5%]", function()
      attune.attention(x[1], x[2], x[3], {
        score = function(s, at) return s + t[at.i * at.j] end,
        mask = function(at) return (at.i * at.j):le(6) end,
      })
    end)
  end)
end)

-- Scores of 300 tokens fill several tiles, and some are beyond any table here.
describe("an index that depends on the score", function()
  local q, k, v = attune.randn({2, 4, 300, 8}, {seed = 1}),
    attune.randn({2, 2, 300, 8}, {seed = 2}), attune.randn({2, 2, 300, 8}, {seed = 3})
  local t = attune.randn({9}, {seed = 4})
  local engines = {"reference", "tiled", "blis", "decode"}

  -- o and lse by an engine, of the last 16 queries where that is all that it takes.
  local function attend(engine, options)
    local given = {engine = engine}
    for name, value in pairs(options) do given[name] = value end
    return attune.attention(engine == "decode" and q:slice(3, 285, 300) or q, k, v, given)
  end

  -- 1 to 9, and 21 to 29 for odd keys.
  local function odd_keys_outside(s, at)
    return s + t[(s:tanh() * 4):floor() + 5 + at.j % 2 * 20]
  end
  local function even_keys(at) return (at.j % 2):eq(0) end

  it("is in range by the scores that come", function()
    local function plain(s) return s end
    local function one(s) return s + t[s:floor():clamp(4, 4)] - t[4]:item() end
    for _, engine in ipairs(engines) do
      local options = {causal = true, softcap = 4}
      options.score = plain
      local o = attend(engine, options)
      options.score = one
      expect.close(attend(engine, options), o, 1e-5, engine)
      -- From -4 to 3, which no range proves.
      options.score = function(s) return s + t[s:floor() + 5] end
      local with = attend(engine, options)
      options.score = function(s) return s + t[(s:floor() + 5):clamp(1, 9)] end
      expect.close(with, (attend(engine, options)), 0, engine)
    end
  end)

  it("is an error where a visible pair reads outside, for every engine", function()
    for _, engine in ipairs(engines) do
      fails("score: expected an index in range of the tensor %[9%], from 1, got %[%-?%d+%] for "
        .. "query %d+ and key %d+ of head 1 %(line %d+%)", function()
        attend(engine, {causal = true, score = function(s) return s + t[s:floor() + 4] end})
      end)
    end
  end)

  it("names the same pair with any number of threads", function()
    local messages, threads = {}, attune.threads()
    for _, n in ipairs {1, 2} do
      attune.threads(n)
      messages[n] = select(2, pcall(attend, "tiled", {
        causal = true, score = function(s) return s + t[s:floor() + 4] end,
      }))
    end
    attune.threads(threads)
    assert.same(messages[1], messages[2])
  end)

  it("may be out of range where the mask hides the pair", function()
    for _, engine in ipairs(engines) do
      local options = {score = odd_keys_outside, mask = even_keys}
      local with = attend(engine, options)
      options.score = function(s) return s + t[((s:tanh() * 4):floor() + 5):clamp(1, 9)] end
      expect.close(with, (attend(engine, options)), 0, engine)
      fails("got %[2%d%] for query 290 and key 7 of head 1", function()
        attend(engine, {
          score = odd_keys_outside,
          mask = function(at) return even_keys(at) | (at.i:eq(290) & at.j:eq(7)) end,
        })
      end)
    end
  end)

  it("is checked in weights, gradients and caches too", function()
    local options = {score = function(s) return s + t[s:floor() + 4] end, causal = true}
    fails("score: expected an index in range", function()
      attune.attention_weights(q, k, options)
    end)
    local o, lse = attune.attention(q, k, v, {causal = true})
    for _, engine in ipairs {"tiled", "reference"} do
      options.engine = engine
      fails("score: expected an index in range", function()
        attune.attention_backward(o, q, k, v, o, lse, options)
      end)
    end
    local cache = attune.cache {batch = 2, kv_heads = 2, head_dim = 8, capacity = 300}
    cache:append(k, v)
    fails("score: expected an index in range", function()
      cache:attend(q:slice(3, 300, 300), {score = options.score})
    end)
    assert.same(300, cache.length)
  end)
end)
