--- xPos scales a key at position t by up to 3.5^(t / scale_base), which leaves the range of f16 at
-- about 9 scale_base: the result is right or an error says so, never a silent infinity.
local attune = require "attune"

local fails = require "tests.support.expect".fails

local TOKENS, DIMS = 6000, 16
local pe = attune.position("xpos", {head_dim = DIMS})
local function randn(seed) return attune.randn({1, 1, TOKENS, DIMS}, {seed = seed}) end
local q, k, v = randn(1), randn(2), randn(3)
local last = q:slice(3, TOKENS, TOKENS)

describe("xpos beyond the range of f16", function()
  for _, engine in ipairs {"tiled", "decode", "blis", "reference"} do
    it("attention over tensors of f16 gives the right values, " .. engine, function()
      local options = {causal = true, rotate = pe, engine = engine}
      local half = {last:to "f16", k:to "f16", v:to "f16"}
      local o = attune.attention(half[1], half[2], half[3], options)
      options.engine = "reference"
      local want = attune.attention(
        half[1]:to "f64", half[2]:to "f64", half[3]:to "f64", options
      )
      for d = 1, DIMS do
        local got, expected = o[1][1][1][d]:item(), want[1][1][1][d]:item()
        assert(math.abs(got - expected) < 2e-3, ("%g, expected %g"):format(got, expected))
      end
    end)
  end

  it("a cache of f16 refuses the keys and stays as it was", function()
    local cache = attune.cache {kv_heads = 1, head_dim = DIMS, capacity = TOKENS, dtype = "f16"}
    cache:append(k:slice(3, 1, 2000), v:slice(3, 1, 2000), {rotate = pe})
    fails("range of f16", function()
      cache:append(k:slice(3, 2001, TOKENS), v:slice(3, 2001, TOKENS), {rotate = pe})
    end)
    assert.equal(2000, cache.length)
    for _, dtype in ipairs {"bf16", "f32"} do
      local wide = attune.cache {
        kv_heads = 1, head_dim = DIMS, capacity = TOKENS, dtype = dtype,
      }
      wide:append(k, v, {rotate = pe})
      local x = wide:attend(last, {rotate = pe})[1][1][1][1]:item()
      assert(math.abs(x) < 10)
    end
  end)

  it("rotating a tensor of f16 is refused, of q and of k", function()
    for _, which in ipairs {"q", "k"} do
      fails("range of f16", function() return pe:rotate(k:to "f16", nil, which) end)
      pe:rotate(k:slice(3, 1, 3000):to "f16", nil, which)
      pe:rotate(k:to "bf16", nil, which)
    end
  end)
end)

describe("positions without a rotation", function()
  local x = attune.ones {1, 1, 2, DIMS}

  it("are refused only where the call has them: a center far from 0", function()
    local far = attune.position("xpos", {head_dim = DIMS, center = 50000})
    local wide = far:rotate(x:to "f64", {50000, 50001}, "q")
    local difference = (far:rotate(x, {50000, 50001}, "q"):to "f64" - wide):abs():max():item()
    assert(difference < 1e-6, difference)
    fails("within 24521 of center, 50000, .* got 7$", function() far:rotate(x, {50000, 7}, "q") end)
  end)

  it("are named as they were given, by every engine and dtype", function()
    local f16 = attune.position("rope", {head_dim = DIMS, angles = "f16"})
    fails("got 70000$", function() f16:rotate(x, {0, 70000}) end)
    fails("got 70000$", function() f16:rotate(x:to "bf16", {70000, 0}) end)
    fails("got 24600$", function() pe:rotate(x, {0, 24600}, "k") end)
    for _, engine in ipairs {"tiled", "decode", "blis", "reference"} do
      local options = {rotate = f16, positions = {3, 70000}, engine = engine}
      fails("got 70000$", function() attune.attention(x, x, x, options) end)
    end
  end)
end)

describe("xpos in linear attention", function()
  local features = attune.position("xpos", {head_dim = DIMS, scale_base = 64})
  local function call(causal, of)
    local x = q:slice(3, 1, 40)
    return of(x, x, x, {features = "elu", rotate = features, causal = causal})
  end

  it("is refused unless causal", function()
    fails("causal", function() call(false, attune.linear_attention) end)
    local o = call(true, attune.linear_attention)
    assert(o[1][1][40][1]:item() == o[1][1][40][1]:item())
  end)
end)
