local attune = require "attune"
local expect = require "tests.support.expect"
local fails = expect.fails
local here = expect.here

describe("the library of masks and scores", function()
  local function visible(mask, tokens)
    local map = {}
    local t = {attune.zeros {1, 1, tokens, 1}, attune.zeros {1, 1, tokens, 1}}
    local w = attune.attention_weights(t[1], t[2], {mask = mask}):tolist()[1][1]
    for i = 1, tokens do
      map[i] = {}
      for j = 1, tokens do map[i][j] = w[i][j] > 0 and 1 or 0 end
    end
    return map
  end
  local function agrees(mask, tokens, fn)
    local expected = {}
    for i = 1, tokens do
      expected[i] = {}
      for j = 1, tokens do expected[i][j] = fn(i, j) and 1 or 0 end
    end
    assert.same(expected, visible(mask, tokens))
  end
  local masks = attune.masks
  it("has masks that match their definitions", function()
    agrees(masks.causal(), 9, function(i, j) return j <= i end)
    agrees(masks.sliding_window(3), 9, function(i, j) return j <= i and i - j < 3 end)
    agrees(masks.prefix(4), 9, function(i, j) return j <= 4 or j <= i end)
    local ids = {1, 1, 1, 2, 2, 3, 3, 3, 3}
    agrees(masks.documents(ids), 9, function(i, j) return ids[i] == ids[j] end)
    agrees(masks.dilated(3, 2), 9, function(i, j)
      return j <= i and (i - j) % 2 == 0 and i - j < 6
    end)
    agrees(masks.global_local(2, 1), 9, function(i, j)
      return math.abs(i - j) <= 1 or i <= 2 or j <= 2
    end)
    agrees(masks.strided(3), 9, function(i, j)
      return j <= i and (i - j < 3 or (i - j) % 3 == 0)
    end)
    agrees(masks.natten(3), 9, function(i, j) return math.abs(i - j) <= 1 end)
    agrees(masks.natten(3, 9), 9, function(i, j)
      local first = math.min(math.max(i - 1, 1), 7)
      return j >= first and j < first + 3
    end)
    agrees(masks.natten2d(3, 4, 3), 12, function(i, j)
      local function near(x, y, n)
        local first = math.min(math.max(x - 1, 0), n - 3)
        return y >= first and y < first + 3
      end
      return near((i - 1) // 4, (j - 1) // 4, 3) and near((i - 1) % 4, (j - 1) % 4, 4)
    end)
    agrees(masks.all(masks.causal(), masks.documents(ids)), 9, function(i, j)
      return j <= i and ids[i] == ids[j]
    end)
    agrees(masks.any(masks.causal(), masks.natten(3)), 9, function(i, j)
      return j <= i or math.abs(i - j) <= 1
    end)
    fails("w: expected an integer of at least 1, got 0", function() masks.sliding_window(0) end)
    fails("all: expected mask functions, got a number as number 1", function() masks.all(3) end)
    fails("n: expected an integer or a tensor %[batch%], got nil", function() masks.prefix() end)
    fails("ids: expected a list of integers or a tensor, got nil", function() masks.documents() end)
    for list, pattern in pairs {
      [{1, 1.5}] = "integers, got 1.5", [{}] = "at least one integer, got an empty list",
      [{"a"}] = "integers, got 'a'", [{{1, 2}, {1, 2.5}}] = "integers, got 2.5",
      [{
        {1, 2}, {1},
      }] = "lists of 2 integers each, got one of 1", [{1, {2}}] = "integers, got a table",
    } do
      fails(here(1) .. "ids: expected " .. pattern, function()
        local m = masks.documents(list)
        return m
      end)
    end
    assert.has_no.errors(function() masks.documents {{1, 2.0}, {3, 3}} end)
    local named = attune.scores
    fails("slopes: expected a tensor %[heads%], got nil", function() named.alibi() end)
    fails("unknown option 'symetric'; did you mean 'symmetric'", function()
      named.alibi(attune.ones {2}, {symetric = true})
    end)
    fails("table: expected a tensor %[buckets, heads%]", function() named.t5(attune.ones {2}) end)
    fails("table: expected at least 4 buckets, got 2", function() named.t5(attune.ones {2, 2}) end)
    fails("table: expected an even number of buckets where bidirectional, got 33", function()
      named.t5(attune.ones {33, 2})
    end)
    assert.has_no.errors(function() named.t5(attune.ones {33, 2}, {bidirectional = false}) end)
    fails("bidirectional: expected true or false, got 'x'", function()
      named.t5(attune.ones {32, 2}, {bidirectional = "x"})
    end)
    fails("symmetric: expected true or false, got 1", function()
      named.alibi(attune.ones {2}, {symmetric = 1})
    end)
    fails("max_distance: expected a finite number above 8.*got inf", function()
      named.t5(attune.ones {32, 2}, {max_distance = math.huge})
    end)
    fails("c: expected a positive number, got inf", function() named.softcap(math.huge) end)
    fails("slope: expected a finite number, got %-?nan", function() named.distance(0 / 0) end)
    fails("max_distance: expected a finite number above 8", function()
      named.t5(attune.ones {32, 2}, {max_distance = 8})
    end)
  end)

  it("has a softcap and windows that equal the options of attention", function()
    local x = {
      attune.randn({1, 4, 100, 16}, {seed = 1}), attune.randn({1, 2, 100, 16}, {seed = 2}),
      attune.randn({1, 2, 100, 16}, {seed = 3}),
    }
    local a = attune.attention(x[1], x[2], x[3], {softcap = 2})
    local b = attune.attention(x[1], x[2], x[3], {score = attune.scores.softcap(2)})
    expect.close(a, b, 2e-6)
    a = attune.attention(x[1], x[2], x[3], {causal = true, window = 7})
    b = attune.attention(x[1], x[2], x[3], {mask = masks.sliding_window(7)})
    expect.close(a, b, 1e-6)
  end)
end)

describe("a cache with programs", function()
  it("gives the same outputs as prefill, also for ring caches and rows of "
    .. "different length", function()
    local Bc, Hc, Kc, n = 2, 4, 2, 90
    local x = {
      attune.randn({Bc, Hc, n, 16}, {seed = 1}), attune.randn({Bc, Kc, n, 16}, {seed = 2}),
      attune.randn({Bc, Kc, n, 16}, {seed = 3}),
    }
    local bias = attune.randn({n}, {seed = 4})
    local options = {score = function(s, at) return s + bias[at.j] - (
      at.i - at.j
    ) * 0.1 * at.h + bias[at.i]:tanh() * s end, mask = function(at)
      return (at.j % 3):ne(1) | at.j:eq(at.i)
    end}
    local prefill = attune.attention(x[1], x[2], x[3], {
      causal = true, score = options.score, mask = options.mask,
    })
    local cache = attune.cache {batch = Bc, kv_heads = Kc, head_dim = 16, capacity = 100}
    for t = 1, n, 3 do
      cache:append(x[2]:slice(3, t, t + 2), x[3]:slice(3, t, t + 2))
      local o = cache:attend(x[1]:slice(3, t, t + 2), options)
      expect.close(o, prefill:slice(3, t, t + 2), 3e-6)
    end
    local windowed = attune.attention(x[1], x[2], x[3], {
      causal = true, window = 20, score = options.score, mask = options.mask,
    })
    local ring = attune.cache {batch = Bc, kv_heads = Kc, head_dim = 16, window = 20}
    for t = 1, n, 3 do
      ring:append(x[2]:slice(3, t, t + 2), x[3]:slice(3, t, t + 2))
      local o = ring:attend(x[1]:slice(3, t, t + 2), options)
      expect.close(o, windowed:slice(3, t, t + 2), 3e-6)
    end
    local uneven = attune.cache {batch = Bc, kv_heads = Kc, head_dim = 16, capacity = 100}
    uneven:append(x[2], x[3], {counts = {n, n - 30}})
    local last = attune.zeros {Bc, Hc, 1, 16}
    local o = uneven:attend(last, options)
    for b, length in ipairs {n, n - 30} do
      local function row(t) return t:slice(1, b, b):slice(3, 1, length) end
      local one = attune.attention(last:slice(1, b, b), row(x[2]), row(x[3]), options)
      expect.close(o:slice(1, b, b), one, 3e-6)
    end
  end)
end)

describe("pack", function()
  it("packs by first-fit decreasing and reports the wasted part", function()
    local documents = {}
    for n, size in ipairs {3, 7, 5, 2, 6, 1} do
      documents[n] = {}
      for p = 1, size do documents[n][p] = n * 10 + p end
    end
    local packed = attune.pack(documents, {capacity = 10})
    assert.same({{2, 1}, {5, 4, 6}, {3}}, packed.documents)
    assert.same({{7, 3}, {6, 2, 1, 1}, {5, 5}}, packed.lengths)
    assert.same({3, 10}, packed.ids.shape)
    assert.same({21, 22, 23, 24, 25, 26, 27, 11, 12, 13}, packed.ids:tolist()[1])
    assert.same({0, 1, 2, 3, 4, 5, 0, 1, 0, 0}, packed.positions:tolist()[2])
    assert.is_true(math.abs(packed.waste - 6 / 30) < 1e-12)
    fails("documents: expected at most capacity, 4 tokens, got 7 in number 2", function()
      attune.pack(documents, {capacity = 4})
    end)
    fails("unknown option 'capacty'; did you mean 'capacity'", function()
      attune.pack(documents, {capacty = 4})
    end)
  end)

  it("gives packed documents the attention and gradients of each document alone", function()
    local sizes, tokens = {5, 9, 2}, 16
    local x = {}
    for n = 1, 4 do x[n] = attune.randn({1, 2, tokens, 8}, {seed = n}) end
    local ids = {}
    for d, size in ipairs(sizes) do
      for _ = 1, size do ids[#ids + 1] = d end
    end
    local by_lengths = {causal = true, lengths = sizes}
    local by_mask = {causal = true, mask = attune.masks.documents(ids)}
    for _, options in ipairs {by_lengths, by_mask} do
      local o, lse = attune.attention(x[1], x[2], x[3], options)
      local grads = {attune.attention_backward(x[4], x[1], x[2], x[3], o, lse, options)}
      local first = 1
      for _, size in ipairs(sizes) do
        local function part(t) return t:slice(3, first, first + size - 1) end
        local o1, lse1 = attune.attention(part(x[1]), part(x[2]), part(x[3]), {causal = true})
        expect.close(part(o), o1, 1e-6)
        local alone = {
          attune.attention_backward(part(x[4]), part(x[1]), part(x[2]), part(x[3]), o1, lse1, {
            causal = true,
          }),
        }
        for n = 1, 3 do expect.close(part(grads[n]), alone[n], 2e-6) end
        first = first + size
      end
    end
  end)
end)
