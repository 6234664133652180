--- Rows whose scores are all very negative or very large, by score functions: many models pad by
-- adding -1e9, -1e10, -1e30 or the smallest f32. With equal scores the result is the mean of the
-- visible values. Any value of ones then gives ones, and the gradient of v sums to the rows.
local attune = require "attune"

local fails_with = require "tests.support.expect".fails_with

local SIZE, DIMS, PADDED = 12, 8, 4
local q = attune.randn({1, 2, SIZE, DIMS}, {seed = 1})
local k = attune.randn({1, 1, SIZE, DIMS}, {seed = 2})
local v = attune.ones {1, 1, SIZE, DIMS}

local function near(x, want, what)
  assert(
    math.abs(x - want) <= 1e-4 * math.max(1, math.abs(want)),
    ("%s: expected %g, got %g"):format(what, want, x)
  )
end

local function finite(t, what)
  local sum = t:to("f64"):sum():item()
  assert(sum == sum and math.abs(sum) < math.huge, what .. " is not finite")
end

local scores = {
  added = function(fill)
    return function(s, at) return s + (at.j:le(PADDED) | at.j:gt(at.i)):where(fill, 0) end
  end,
  replaced = function(fill)
    return function(s, at) return (at.j:le(PADDED) | at.j:gt(at.i)):where(fill, s) end
  end,
  read = function(fill)
    local rows = {}
    for i = 1, SIZE do
      rows[i] = {}
      for j = 1, SIZE do rows[i][j] = (j <= PADDED or j > i) and fill or 0 end
    end
    local bias = attune.tensor(rows)
    return function(s, at) return s + bias[at.i][at.j] end
  end,
  sloped = function(fill) -- as ALiBi at a long distance
    return function(s, at) return s + (at.j + SIZE - at.i) * fill end
  end,
}

describe("rows of large scores", function()
  for _, fill in ipairs {-1e4, -1e9, -1e10, -1e15, -1e30, -3.4028234663852886e38} do
    for kind, make in pairs(scores) do
      for _, engine in ipairs {"reference", "blis", "tiled"} do
        if not (kind == "sloped" and fill < -1e30) then
          it(("%s padding by %g, %s"):format(kind, fill, engine), function()
            local options = {engine = engine, score = make(fill), causal = kind == "sloped" or nil}
            local o, lse = attune.attention(q, k, v, options)
            for h = 1, 2 do
              for i = 1, SIZE do near(o[1][h][i][3]:item(), 1, "o of row " .. i) end
            end
            finite(lse, "lse")
            if engine == "blis" then return end
            local dq, dk, dv = attune.attention_backward(
              attune.ones(o.shape), q, k, v, o, lse, options
            )
            near(dv:sum():item(), 2 * SIZE * DIMS, "sum of dv")
            finite(dq, "dq")
            finite(dk, "dk")
          end)
        end
      end
      it(("%s padding by %g, attention_weights"):format(kind, fill), function()
        if kind == "sloped" and fill < -1e30 then return end
        local weights = attune.attention_weights(q, k, {score = make(fill)})
        for i = 1, SIZE do near(weights[1][2][i]:sum():item(), 1, "weights of row " .. i) end
      end)
    end
  end

  for _, score in ipairs {-3e38, -1e30, -1e10, -1e9, 1e9, 1e15, 1e30, 3e38} do
    for _, engine in ipairs {"reference", "blis", "tiled", "decode"} do
      it(("one score of %g, %s"):format(score, engine), function()
        local options = {engine = engine, score = function(s) return s * 0 + score end}
        local o, lse = attune.attention(q:slice(3, 1, 1), k, v, options)
        near(o[1][1][1][1]:item(), 1, "o")
        near(lse[1][1][1]:item(), score, "lse")
      end)
    end
    for _, dtype in ipairs {"f32", "bf16", "f16", "i8"} do
      it(("one score of %g, a cache of %s"):format(score, dtype), function()
        local cache = attune.cache {
          kv_heads = 1, head_dim = DIMS, capacity = SIZE, dtype = dtype,
        }
        cache:append(k, v)
        local o, lse = cache:attend(q:slice(3, SIZE, SIZE), {score = function(s)
          return s * 0 + score
        end})
        near(o[1][2][1][1]:item(), 1, "o")
        near(lse[1][2][1]:item(), score, "lse")
      end)
    end
  end

  it("a table that the score reads has a gradient", function()
    local bias = attune.zeros {SIZE} - 1e9
    local options = {score = function(s, at) return s * 0 + bias[at.j] end}
    local values = attune.randn({1, 1, SIZE, DIMS}, {seed = 4})
    local o, lse = attune.attention(q, k, values, options)
    local _, _, _, tables = attune.attention_backward(
      attune.ones(o.shape), q, k, values, o, lse, options
    )
    local sums, mean = {}, 0
    for j = 1, SIZE do
      sums[j] = values[1][1][j]:sum():item()
      mean = mean + sums[j] / SIZE
    end
    for j = 1, SIZE do near(tables[bias][j]:item(), 2 * (sums[j] - mean), "gradient " .. j) end
  end)
end)

describe("a scale or softcap that f32 does not hold", function()
  local engines = {"reference", "blis", "tiled", "decode"}

  it("is refused by every engine, by weights and by a cache", function()
    for _, options in ipairs {
      {scale = 1e39}, {scale = -1e39}, {softcap = 1e39}, {softcap = 1e-46}, {softcap = 1.1e18},
    } do
      local name, value = next(options)
      local range = "from 1e-18 to 1e+18"
      if name == "scale" then range = "a magnitude of at most 3.40282e+38" end
      local want = ("%s: expected %s, except for f64, got %g"):format(name, range, value)
      fails_with(want, attune.attention_weights, q, k, options)
      local cache = attune.cache {kv_heads = 1, head_dim = DIMS, capacity = SIZE}
      cache:append(k, v)
      fails_with(want, cache.attend, cache, q, options)
      for _, engine in ipairs(engines) do
        local given = {[name] = value, engine = engine}
        for _, dtype in ipairs {"f32", "bf16", "f16"} do
          fails_with(want, attune.attention, q:to(dtype), k, v, given)
        end
      end
      finite(attune.attention(q:to "f64", k:to "f64", v:to "f64", options), "o of f64")
    end
  end)

  it("is refused where their quotient is too large", function()
    fails_with(
      "softcap: expected at least 0.00293874 with a scale of 1e+36, except for f64, got 0.001",
      attune.attention, q, k, v, {scale = 1e36, softcap = 1e-3}
    )
  end)

  it("at the limits gives the same in every engine, with gradients", function()
    local values = attune.randn({1, 1, SIZE, DIMS}, {seed = 4})
    for _, options in ipairs {
      {scale = 1e-18}, {scale = 1e-46}, {scale = -1e30}, {softcap = 1e18},
      {softcap = 1e-18}, {scale = 1e18, softcap = 1e-18},
      {scale = 1e-18, softcap = 1e18}, {scale = -1e18, softcap = 1},
    } do
      local function of(engine, x)
        options.engine = engine
        local o, lse = attune.attention(x, k, values, options)
        if engine == "blis" or engine == "decode" then return {o, lse} end
        local d_o = attune.ones(o.shape)
        return {o, lse, attune.attention_backward(d_o, x, k, values, o, lse, options)}
      end
      for _, x in ipairs {q, attune.zeros(q.shape)} do
        local want = of("reference", x)
        for _, engine in ipairs {"blis", "tiled", "decode"} do
          for n, t in ipairs(of(engine, x)) do
            if n > 5 then break end
            local off = (t - want[n]):abs():max():item()
            local most = want[n]:abs():max():item()
            -- Gradients of q and k are the scale times differences that f32 has to 1e-7.
            if not options.softcap then most = most + math.abs(options.scale) end
            assert(off <= 1e-5 * (1 + most), ("%s, result %d: off by %g"):format(engine, n, off))
          end
        end
      end
    end
  end)
end)
