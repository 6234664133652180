local attune = require "attune"
local expect = require "tests.support.expect"

local fails = expect.fails

describe("making tensors", function()
  it("takes nested lists and infers the shape", function()
    local t = attune.tensor {{1, 2, 3}, {4, 5, 6}}
    assert.same({2, 3}, t.shape)
    assert.same("f32", t.dtype)
    assert.same(24, t.nbytes)
    assert.same({{1, 2, 3}, {4, 5, 6}}, t:tolist())
    assert.same({3, 2}, attune.tensor({1, 2, 3, 4, 5, 6}, {shape = {3, 2}}).shape)
  end)
  it("refuses ragged lists, empty lists and values that are not numbers", function()
    fails("data: expected lists of 2", function() attune.tensor {{1, 2}, {3}} end)
    fails("data: expected", function() attune.tensor {} end)
    fails("data: expected numbers, got 'x'", function() attune.tensor {"x"} end)
    fails("shape: expected one of 3 elements", function()
      attune.tensor({1, 2, 3}, {shape = {2, 2}})
    end)
    fails("shape: expected an integer of at least 1, got 0", function() attune.zeros {2, 0} end)
    fails("unknown option 'dtpe': did you mean 'dtype'", function()
      attune.zeros({2}, {dtpe = "f32"})
    end)
    fails("dtype: expected", function() attune.zeros({2}, {dtype = "f23"}) end)
  end)
  it("supports every dtype", function()
    for name, bytes in pairs {f32 = 4, f64 = 8, bf16 = 2, f16 = 2, i8 = 1, i32 = 4, i64 = 8} do
      local t = attune.arange(-3, 3, 1, {dtype = name})
      assert.same(7 * bytes, t.nbytes)
      assert.same({-3, -2, -1, 0, 1, 2, 3}, t:tolist())
    end
  end)
  it("includes both ends of a range, and counts from 0 when given one number", function()
    assert.same({0, 1, 2, 3}, attune.arange(4):tolist())
    assert.same({1, 3, 5, 7}, attune.arange(1, 7, 2):tolist())
    fails("last: expected", function() attune.arange(3, 1) end)
  end)
  it("draws the same numbers from the same seed, and different ones without a seed", function()
    assert.same(attune.randn({5}, {seed = 1}):tolist(), attune.randn({5}, {seed = 1}):tolist())
    attune.set_seed(9)
    local a, b = attune.randn {5}:tolist(), attune.randn {5}:tolist()
    assert.not_same(a, b)
    attune.set_seed(9)
    assert.same(a, attune.randn {5}:tolist())
    local u = attune.uniform({10000}, {low = 2, high = 3, seed = 1})
    assert.near(2.5, u:mean():item(), 0.01)
    local n = attune.randn({10000}, {mean = 1, std = 2, seed = 1})
    assert.near(1, n:mean():item(), 0.05)
    assert.near(4, ((n - 1) ^ 2):mean():item(), 0.2)
  end)
end)

describe("views", function()
  it("share memory and count from 1", function()
    local t = attune.tensor {{1, 2, 3}, {4, 5, 6}}
    assert.same({4, 5, 6}, t[2]:tolist())
    assert.same({4, 5, 6}, t[-1]:tolist())
    assert.same(6, t[2][3]:item())
    assert.same({{1, 4}, {2, 5}, {3, 6}}, t:transpose(1, 2):tolist())
    assert.same({{2, 3}, {5, 6}}, t:slice(2, 2, 3):tolist())
    assert.same({{2, 3}, {5, 6}}, t:slice(-1, -2, -1):tolist())
    assert.same({{1, 2}, {3, 4}, {5, 6}}, t:view(3, 2):tolist())
    assert.same({{1, 2}, {3, 4}, {5, 6}}, t:view {3, -1}:tolist())
    assert.same({{1, 2, 3}, {1, 2, 3}}, t[1]:view(1, 3):expand(2, 3):tolist())
    assert.same(2, #t)
  end)
  it("refuse indices, axes and ranges that are out of range", function()
    local t = attune.zeros {2, 3}
    fails("index: expected from 1 to 2, or from %-1 to %-2, got 3", function() return t[3] end)
    fails("index: expected", function() return t[0] end)
    fails("axis: expected from 1 to 2", function() t:slice(3, 1, 1) end)
    fails("axis: expected a tensor with axes", function() t:sum():cumsum(1) end)
    fails("axis: expected a tensor with axes", function() attune.cat {t:sum(), t:sum()} end)
    fails("last: expected at least first", function() t:slice(1, 2, 1) end)
    fails("contiguous", function() t:transpose(1, 2):view(6) end)
    fails("unknown method or field 'tolst': did you mean 'tolist'", function() t:tolst() end)
    fails("a: expected an integer, got nothing", function() t:transpose() end)
  end)
  it("report the line of the caller in errors", function()
    local message = fails("index", function() return attune.zeros {2}[5] end)
    assert.truthy(message:find "tensor_spec.lua:%d+: ")
  end)
end)

describe("arithmetic", function()
  local t = attune.tensor {{1, 2, 3}, {4, 5, 6}}
  it("follows Lua's operators and broadcasts", function()
    assert.same({{2, 4, 6}, {5, 7, 9}}, (t + t[1]):tolist())
    assert.same({{1, 0, -1}, {-2, -3, -4}}, (2 - t):tolist())
    assert.same({{-1, -4, -9}, {-16, -25, -36}}, (-t ^ 2):tolist())
    assert.same({{0.5, 1, 1.5}, {2, 2.5, 3}}, (t / 2):tolist())
    assert.same({{14, 32}, {32, 77}}, attune.matmul(t, t:transpose(1, 2)):tolist())
    fails("expected shapes that broadcast, got %[2, 3%] and %[2%]", function()
      return t + attune.ones {2}
    end)
    fails("one dtype, got f32 and f64", function() return t + t:to "f64" end)
    fails("right operand: expected a number, got 'x'", function() return t + "x" end)
  end)
  it("reduces over one axis or over all", function()
    assert.same({5, 7, 9}, t:sum(1):tolist())
    assert.same({2, 5}, t:mean(-1):tolist())
    assert.same({3, 6}, t:max(2):tolist())
    assert.same(21, t:sum():item())
    assert.same({}, t:sum().shape)
    fails("data: expected a table of numbers.* got the string '1, 2'", function()
      attune.tensor "1, 2"
    end)
    fails("item: expected a tensor of one element", function() t:item() end)
  end)
  it("has the elementwise functions", function()
    local x = attune.tensor {-2, -0.5, 0, 0.5, 2}
    local erf_half = {-0.04550026, -0.15426877, 0, 0.34573123, 1.9544997}
    for i, y in ipairs(x:gelu():tolist()) do assert.near(erf_half[i], y, 1e-6) end
    for i, y in ipairs(x:silu():tolist()) do
      assert.near(x[i]:item() / (1 + math.exp(-x[i]:item())), y, 1e-6)
    end
    for i, y in ipairs(x:tanh():tolist()) do
      assert.near((math.exp(2 * x[i]:item()) - 1) / (math.exp(2 * x[i]:item()) + 1), y, 1e-6)
    end
    for _, y in ipairs(x:exp():log():tolist()) do assert.is_true(math.abs(y) <= 2.0000005) end
    assert.near(1, x:softmax(1):sum():item(), 1e-6)
  end)
  it("rounds and saturates to i8", function()
    assert.same(
      {-128, -2, 0, 2, 127, 0}, attune.tensor {-1000, -1.5, 0.5, 2.5, 300, 0 / 0}:to "i8":tolist()
    )
  end)
end)

describe("handles", function()
  it("may be closed twice and are refused afterwards", function()
    local t = attune.zeros {2}
    t:close()
    t:close()
    fails("closed", function() return t + 1 end)
    fails("closed", function() return t.shape end)
    assert.same("closed tensor", tostring(t))
    do
      local scoped <close> = attune.zeros {2}
      assert.same({2}, scoped.shape)
    end
  end)
  it("tell the collector how many bytes they hold", function()
    collectgarbage()
    attune.memory {reset_peak = true}
    local before = attune.memory().bytes
    for _ = 1, 2000 do attune.zeros {262144} end
    assert.is_true(attune.memory().peak - before < 200e6)
    collectgarbage()
    assert.is_true(attune.memory().bytes - before < 4e6)
  end)
  it("raise an error that names bytes and limit when memory runs out, and stay usable", function()
    collectgarbage()
    attune.memory {limit = attune.memory().bytes + 1000000}
    local message = fails("out of memory", function() return attune.zeros {1000000} end)
    assert.truthy(message:find "4000000 bytes" and message:find "limit")
    local keep = attune.zeros {1000}
    attune.memory {limit = 0}
    assert.same({1000}, keep.shape)
    assert.same(4000000, attune.zeros {1000000}.nbytes)
  end)
  it("stay usable when any single allocation fails", function()
    local function script()
      local q, k = attune.randn({1, 4, 5, 8}, {seed = 1}), attune.randn({1, 2, 5, 8}, {seed = 2})
      local o = attune.attention(q, k, k, {causal = true, sinks = attune.zeros {4}})
      local cache = attune.cache {kv_heads = 2, head_dim = 8, capacity = 8, dtype = "bf16"}
      cache:append(attune.rope(k), k)
      local p = cache:attend(q)
      return (o + p):softmax(-1):sum():item()
    end
    local truth = script()
    collectgarbage()
    local before, n, result = attune.memory().bytes, 0, nil
    repeat
      n = n + 1
      attune._fail_at(n)
      local ok, value = pcall(script)
      attune._fail_at(0)
      -- One failing allocation is made up for by the collector and a second try; that too is a way
      -- to go on.
      if ok then result = value else assert.truthy(tostring(value):find "out of memory") end
      collectgarbage()
      assert.same(before, attune.memory().bytes)
    until n > 60
    assert.same(truth, result)
  end)
end)
