local attune = require "attune"
local expect = require "tests.support.expect"
local golden = require "tests.support.golden"

local fails = expect.fails

local function scores(q, k) return attune.matmul(q, k:transpose(3, 4)) end

-- The files' names of the fields of scaling.
local fields = {
  original_max_position_embeddings = "original", low_freq_factor = "low", high_freq_factor = "high",
  short_factor = "short", long_factor = "long",
}

local function scaling_of(p)
  if not (p.scaling and next(p.scaling)) then return nil end
  local s = {}
  for name, value in pairs(p.scaling) do s[fields[name] or name] = value end
  s.original = s.original or p.max_position
  return s
end

describe("golden RoPE", function()
  for _, name in ipairs(golden.files "rope") do
    local case, t = golden.load("rope/" .. name)
    local p = case.params
    local function make(angles, length)
      local s = scaling_of(p)
      if s then s.length = length end
      return attune.position("rope", {
        head_dim = t.q.shape[4], dims = p.dims, base = p.base, pairing = p.pairing, scaling = s,
        angles = angles,
      })
    end
    it(name, function()
      for _, angles in ipairs {"f64", "f32"} do
        local bounds = angles == "f64" and case.bounds_double_angles or case.bounds
        local pe = make(angles)
        expect.close(pe:rotate(t.q, t.positions), t.q_rot, bounds.q_rot)
        expect.close(pe:rotate(t.k, t.positions, "k"), t.k_rot, bounds.k_rot)
        if p.attention_factor then assert.near(p.attention_factor, pe.factor, 1e-12) end
      end
      local fixed = make("f64", case.length)
      expect.close(
        fixed:rotate(t.q, t.positions), t.q_rot, (case.bounds_double_angles or case.bounds).q_rot
      )
      if t.inv_freq then
        local expected = t.inv_freq:tolist()
        for i, f in ipairs(fixed.inv_freq:tolist()) do
          assert.near(expected[i], f, case.bounds.inv_freq)
          assert.is_true(math.abs(f / expected[i] - 1) <= case.relative_bounds.inv_freq)
        end
      end
    end)
  end
end)

describe("RoPE's frequencies", function()
  it("are those of the whole head with proportional scaling, of which some rotate", function()
    local pe = attune.position("rope", {
      head_dim = 16, dims = 4, base = 100, scaling = {type = "proportional", factor = 2},
    })
    local expected = {0.5, 100 ^ (-2 / 16) / 2, 0, 0, 0, 0, 0, 0}
    for i, f in ipairs(pe.inv_freq:tolist()) do assert.near(expected[i], f, 1e-15) end
    local x = attune.randn({1, 1, 3, 16}, {seed = 1})
    local y = pe:rotate(x)
    for _, dim in ipairs {3, 8, 11, 16} do
      assert.same(x:slice(4, dim, dim):tolist(), y:slice(4, dim, dim):tolist())
    end
    assert.not_same(x:slice(4, 9, 9):tolist(), y:slice(4, 9, 9):tolist())
    assert.has_error(function()
      attune.position("rope", {head_dim = 16, scaling = {type = "proportional", factor = 0.5}})
    end)
  end)
  it("may be given", function()
    local plain = attune.position("rope", {head_dim = 8, base = 50})
    local given = attune.position("rope", {head_dim = 8, inv_freq = plain.inv_freq:tolist()})
    local x = attune.randn({1, 2, 5, 8}, {seed = 2})
    assert.same(plain:rotate(x):tolist(), given:rotate(x):tolist())
    for expected, o in pairs {
      ["expected 4 numbers, one per pair of dims, got 3"] = {inv_freq = {1, 1, 1}},
      ["numbers from 0 on, got -1 at index 2"] = {inv_freq = {1, -1, 1, 1}},
      ["expected no scaling beside it"] = {
        inv_freq = {1, 1, 1, 1}, scaling = {type = "linear", factor = 2},
      },
    } do
      o.head_dim = 8
      local ok, message = pcall(attune.position, "rope", o)
      assert.is_false(ok)
      assert.truthy(message:find(expected, 1, true), message)
    end
  end)
  it("have LongRoPE's factors for short and for long calls", function()
    local function factor_of(o, tokens)
      local s = {
        type = "longrope", factor = 4, original = 8, short = {1, 1}, long = {2, 3},
        attention_factor = o.attention_factor, short_mscale = o.short_mscale,
        long_mscale = o.long_mscale,
      }
      local pe = attune.position("rope", {head_dim = 4, scaling = s})
      return pe:rotate(attune.ones {1, 1, tokens, 4})[1][1][1][1]:item()
    end
    assert.near(math.sqrt(1 + math.log(4) / math.log(8)), factor_of({}, 4), 1e-6)
    assert.near(1.5, factor_of({attention_factor = 1.5}, 4), 1e-6)
    assert.near(1.25, factor_of({short_mscale = 1.25, long_mscale = 1.75}, 8), 1e-6)
    assert.near(1.75, factor_of({short_mscale = 1.25, long_mscale = 1.75}, 9), 1e-6)
    assert.has_error(function() factor_of({short_mscale = 1.25}, 4) end)
  end)
end)

describe("golden xPos", function()
  for name, n in pairs {["xpos.safetensors"] = 15, ["xpos_partial.safetensors"] = 16} do
    it(name, function()
      local case, t = golden.load("position/" .. name)
      local p, D = case.params, t.q.shape[4]
      local options = {
        head_dim = D, dims = p.dims, base = p.base, pairing = p.pairing, scale_base = p.scale_base,
        center = n // 2,
      }
      local pe = attune.position("xpos", options)
      local q, k = pe:rotate(t.q, nil, "q"), pe:rotate(t.k, nil, "k")
      expect.close(q, t.q_rot, case.bounds.q_rot)
      expect.close(k, t.k_rot, case.bounds.k_rot)
      options.center = nil -- Scores do not depend on the center.
      local other = attune.position("xpos", options)
      local H, Hk = t.q.shape[2], t.k.shape[2]
      for _, encoding in ipairs {pe, other} do
        q, k = encoding:rotate(t.q, nil, "q"), encoding:rotate(t.k, nil, "k")
        for h = 1, H do
          local kv = (h - 1) // (H // Hk) + 1
          local s = scores(q:slice(2, h, h), k:slice(2, kv, kv)) * D ^ -0.5
          expect.close(s, t.scores:slice(2, h, h), case.bounds.scores)
        end
      end
    end)
  end
end)

describe("golden biases", function()
  it("alibi_slopes.safetensors", function()
    local case, t = golden.load "position/alibi_slopes.safetensors"
    for _, heads in ipairs(case.params.heads) do
      local name = "slopes." .. heads
      expect.close(attune.position("alibi", {heads = heads}).slopes, t[name], case.bounds[name])
    end
  end)
  for _, name in ipairs {"alibi_mpt", "alibi_bloom"} do
    -- The files keep one bias per key: -slope (i - j) plus a constant per row.
    it(name .. ".safetensors", function()
      local case, t = golden.load("position/" .. name .. ".safetensors")
      local heads, keys = t.bias.shape[1], t.bias.shape[2]
      local slopes = attune.position("alibi", {
        heads = heads, max_bias = case.params.max_bias,
      }).slopes:tolist()
      local bias = t.bias:tolist()
      for h = 1, heads do
        for j = 1, keys do
          assert.near(bias[h][j] - bias[h][1], slopes[h] * (j - 1), 2 * case.bounds.bias)
        end
      end
    end)
  end
  for _, name in ipairs {"t5_buckets", "t5_buckets_causal", "t5_buckets_few"} do
    it(name .. ".safetensors", function()
      local case, t = golden.load("position/" .. name .. ".safetensors")
      local p = case.params
      local pe = attune.position("t5", {
        heads = 1, buckets = p.buckets, max_distance = p.max_distance,
        bidirectional = p.bidirectional, seed = 1,
      })
      local expected = t.bucket:tolist()
      for i, relative in ipairs(t.relative:tolist()) do
        assert.same(expected[i], pe:bucket(relative))
      end
    end)
  end
  for _, name in ipairs {"t5_encoder", "t5_decoder"} do
    it(name .. ".safetensors", function()
      local case, t = golden.load("position/" .. name .. ".safetensors")
      local p, bias = case.params, t.bias:tolist()
      local pe = attune.position("t5", {
        table = t.table, max_distance = p.max_distance, bidirectional = p.bidirectional,
      })
      local weight = pe.table:tolist()
      for h = 1, #bias do
        for i = 1, #bias[h] do
          for j = 1, p.causal and i or #bias[h] do
            assert.near(bias[h][i][j], weight[pe:bucket(j - i) + 1][h], case.bounds.bias)
          end
        end
      end
    end)
  end
end)

describe("RoPE", function()
  local x = attune.randn({1, 2, 6, 16}, {seed = 1})
  it("gives half and interleaved pairing results that differ by a permutation "
    .. "of the dims", function()
    local permuted = {}
    local rows = x:tolist()
    for h = 1, 2 do
      permuted[h] = {}
      for s = 1, 6 do
        permuted[h][s] = {}
        for i = 1, 8 do
          permuted[h][s][2 * i - 1], permuted[h][s][2 * i] = rows[1][h][s][i], rows[1][h][s][i + 8]
        end
      end
    end
    local a = attune.rope(x, {pairing = "half"}):tolist()
    local b = attune.rope(attune.tensor {permuted}, {pairing = "interleaved"}):tolist()
    for h = 1, 2 do
      for s = 1, 6 do
        for i = 1, 8 do
          assert.near(a[1][h][s][i], b[1][h][s][2 * i - 1], 1e-6)
          assert.near(a[1][h][s][i + 8], b[1][h][s][2 * i], 1e-6)
        end
      end
    end
  end)
  it("takes positions as lists, tensors or rows, and x of any dtype and strides", function()
    local by_list = attune.rope(x, {positions = {0, 1, 2, 3, 4, 9}})
    local by_row = attune.rope(x, {positions = {{0, 1, 2, 3, 4, 9}}})
    assert.same(by_list:tolist(), by_row:tolist())
    local strided = attune.rope(x:transpose(2, 3):contiguous():transpose(2, 3))
    assert.same(attune.rope(x):tolist(), strided:tolist())
    expect.close(attune.rope(x:to "f64"):to "f32", attune.rope(x), 1e-6)
    assert.same("bf16", attune.rope(x:to "bf16").dtype)
    local far = attune.rope(x, {positions = {0, 1, 2, 3, 4, 1000000}})
    expect.close(
      far, attune.rope(x:to "f64", {positions = {0, 1, 2, 3, 4, 1000000}}):to "f32", 1e-6
    )
  end)
  it("has its frequencies as a field", function()
    local pe = attune.position("rope", {head_dim = 8, base = 10000})
    local f = pe.inv_freq:tolist()
    for i = 1, 4 do assert.near(10000 ^ (-2 * (i - 1) / 8), f[i], 1e-15) end
    assert.same(1.0, pe.factor)
    assert.same("rope", pe.name)
    assert.is_nil(pe.score)
  end)
  it("refuses wrong arguments with a message that names them", function()
    fails("dims: expected an even number from 2 to head_dim, 8, got 12", function()
      attune.position("rope", {head_dim = 8, dims = 12})
    end)
    fails("head_dim: expected", function() attune.position("rope", {}) end)
    fails("unknown pairing 'halff'", function()
      attune.position("rope", {head_dim = 8, pairing = "halff"})
    end)
    fails("unknown positional encoding 'rop': did you mean 'rope'", function()
      attune.position("rop", {})
    end)
    fails("positions: expected %[6%] or %[1, 6%], got %[2%]", function()
      attune.rope(x, {positions = {1, 2}})
    end)
    fails("unknown option 'bse'", function() attune.rope(x, {bse = 3}) end)
  end)
end)

-- Every rotating encoding, head_dim 16. Scaling that depends on the length has a long one fixed.
local eight = {{1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7}, {2, 3, 4, 5, 6, 7, 8, 9}}
local rotating = {
  plain = {"rope", {}},
  partial = {"rope", {dims = 8, pairing = "interleaved", base = 500}},
  linear = {"rope", {scaling = {type = "linear", factor = 4}}},
  ntk = {"rope", {scaling = {type = "ntk", factor = 4}}},
  dynamic = {"rope", {scaling = {type = "dynamic", factor = 2, original = 8, length = 40}}},
  yarn = {"rope", {scaling = {type = "yarn", factor = 4, original = 64}}},
  longrope = {
    "rope",
    {
      scaling = {
        type = "longrope", factor = 4, original = 8, length = 40, short = eight[1], long = eight[2],
      },
    },
  },
  llama3 = {"rope", {scaling = {type = "llama3", factor = 8, original = 64}}},
  xpos = {"xpos", {scale_base = 32, pairing = "half", dims = 12}},
}

local function rotary(name)
  local options = {head_dim = 16}
  for k, v in pairs(rotating[name][2]) do options[k] = v end
  return attune.position(rotating[name][1], options)
end

local function range(first, last) return attune.arange(first, last, 1, {dtype = "i64"}) end

describe("every rotating encoding", function()
  local q = attune.randn({1, 2, 24, 16}, {seed = 2, dtype = "f64"})
  local k = attune.randn({1, 2, 24, 16}, {seed = 3, dtype = "f64"})
  local v = attune.randn({1, 2, 24, 16}, {seed = 4})
  for name in pairs(rotating) do
    it(name .. " keeps scores when all positions shift, and changes them "
      .. "when one shifts", function()
      local pe = rotary(name)
      local function at(first)
        return scores(
          pe:rotate(q, range(first, first + 23), "q"), pe:rotate(k, range(first, first + 23), "k")
        )
      end
      expect.close(at(0), at(777), 1e-10)
      expect.differ(
        at(0), scores(pe:rotate(q, range(1, 24), "q"), pe:rotate(k, range(0, 23), "k")), 1e-2
      )
    end)
    it(name .. " gives the same outputs for decoding as for prefill", function()
      local pe, q4, k4 = rotary(name), q:to "f32", k:to "f32"
      local o = attune.attention(q4, k4, v, {causal = true, rotate = pe})
      local cache = attune.cache {batch = 1, kv_heads = 2, head_dim = 16, capacity = 64}
      for t = 1, 24 do
        cache:append(k4:slice(3, t, t), v:slice(3, t, t), {rotate = pe})
        expect.close(cache:attend(q4:slice(3, t, t), {rotate = pe}), o:slice(3, t, t), 5e-6)
      end
    end)
    it(name .. " gives the same outputs fused into attention as applied before it", function()
      local pe, q4, k4 = rotary(name), q:to "f32", k:to "f32"
      local positions = {}
      for t = 1, 24 do positions[t] = t == 1 and 1500 or 3 * t end
      if name == "xpos" then positions[1] = 200 end
      local few = q4:slice(3, 17, 24)
      local expected = attune.attention(
        pe:rotate(few:to "f64", {table.unpack(positions, 17)}, "q"),
        pe:rotate(k, positions, "k"), v:to "f64", {causal = true}
      ):to "f32"
      for _, engine in ipairs {"reference", "blis", "tiled", "decode"} do
        local o = attune.attention(few, k4, v, {
          causal = true, rotate = pe, positions = positions, engine = engine,
        })
        expect.close(o, expected, 1e-5)
      end
    end)
  end
end)

describe("scaling that depends on the length", function()
  local x = attune.randn({1, 1, 12, 16}, {seed = 5})
  local function scaled(kind, length)
    return attune.position("rope", {head_dim = 16, scaling = {type = kind, factor = 4,
      original = 16, length = length,
      short = kind == "longrope"
        and eight[1] or nil, long = kind == "longrope" and eight[2] or nil}})
  end
  for _, kind in ipairs {"dynamic", "longrope"} do
    it(kind .. " chooses its table anew in each call", function()
      local pe = scaled(kind)
      for _, first in ipairs {0, 30, 0, 4, 5, 100, 30, 200000, 1} do
        local length = first + 12
        local expected = scaled(kind, length):rotate(x, range(first, first + 11))
        expect.close(pe:rotate(x, range(first, first + 11)), expected, 0)
        local f64 = pe:rotate(x:to "f64", range(first, first + 11)):to "f32"
        expect.close(f64, expected, 1e-6)
      end
      -- 16 tokens are the trained length, 17 are beyond it.
      expect.close(scaled(kind, 16):rotate(x), pe:rotate(x), 0)
      expect.differ(scaled(kind, 24):rotate(x), pe:rotate(x), 0.01)
    end)
    it(kind .. " depends on the keys' length in attention, for q too, "
      .. "forward and backward", function()
      local q, k = attune.randn({1, 1, 2, 16}, {seed = 6}), attune.randn({1, 1, 12, 16}, {seed = 7})
      -- The queries' own positions are short.
      local positions = {40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
      for _, engine in ipairs {"reference", "tiled"} do
        local function all(pe)
          local options = {rotate = pe, positions = positions, engine = engine}
          local o, lse = attune.attention(q, k, x, options)
          return o, attune.attention_backward(o, q, k, x, o, lse, options)
        end
        local o1, dq1, dk1 = all(scaled(kind))
        local o2, dq2, dk2 = all(scaled(kind, 41))
        expect.close(o1, o2, 0)
        expect.close(dq1, dq2, 0)
        expect.close(dk1, dk2, 0)
      end
    end)
  end
end)

describe("angles", function()
  local x = attune.ones {1, 1, 1, 16}
  local function far(angles, t) return attune.rope(x, {positions = {t}, angles = angles}) end
  it("in f64 are exact at position 1,000,000", function()
    local got = attune.rope(x:to "f64", {positions = {1000000}}):tolist()[1][1][1]
    for i = 0, 7 do
      local angle = 1000000 * 10000 ^ (-2 * i / 16)
      assert.near(math.cos(angle) - math.sin(angle), got[i + 1], 1e-9)
      assert.near(math.cos(angle) + math.sin(angle), got[i + 9], 1e-9)
    end
  end)
  it("in f32 and f16 have the error of their precision", function()
    expect.close(far("f32", 100), far("f64", 100), 1e-4)
    expect.differ(far("f32", 1000000), far("f64", 1000000), 1e-3)
    expect.close(far("f16", 3), far("f64", 3), 1e-2)
    local worst = 0
    for t = 2000, 2048 do
      worst = math.max(worst, golden.difference(far("f16", t), far("f64", t)))
    end
    assert.is_true(worst > 0.3)
    fails("positions: expected from %-65504 to 65504 with f16 angles", function()
      far("f16", 100000)
    end)
    expect.close(far("f16", 65504), far("f16", 65504), 0)
  end)
end)

describe("xPos", function()
  it("scales q and k differently, and makes scores decay with distance", function()
    local pe = attune.position("xpos", {head_dim = 16, scale_base = 64})
    local x = attune.ones({1, 1, 2, 16}, {dtype = "f64"})
    local function score(distance)
      return attune.matmul(
        pe:rotate(x, {distance, distance}, "q"), pe:rotate(x, {0, 0}, "k"):transpose(3, 4)
      ):tolist()[1][1][1][1]
    end
    assert.near(16, score(0), 1e-12)
    local expected = 0
    for i = 0, 7 do
      expected = expected + 2 * ((2 * i + 6.4) / 22.4) ^ (100 / 64) * math.cos(
        100 * 10000 ^ (-i / 8)
      )
    end
    assert.near(expected, score(100), 1e-9)
    fails("which: expected 'q' or 'k', which xpos tells apart, got nil", function()
      pe:rotate(x)
    end)
    fails("positions: expected within 3065 of center, 0, where xpos's scale fits "
      .. "f32, got 5000", function()
      pe:rotate(x, {0, 5000}, "q")
    end)
    assert.same(
      {1, 1, 2, 16},
      attune.position("xpos", {
        head_dim = 16, scale_base = 64, center = 5000,
      }):rotate(x, {4990, 5000}, "q").shape
    )
  end)
end)

describe("biases", function()
  it("have their tensors and their score as fields, the same on every access", function()
    local alibi = attune.position("alibi", {heads = 6})
    assert.equal(alibi.slopes, alibi.slopes)
    assert.equal(alibi.score, alibi.score)
    assert.is_function(alibi.score)
    assert.is_nil(alibi.table)
    assert.same({}, alibi:parameters())
    local t5 = attune.position("t5", {heads = 3, buckets = 8, max_distance = 20, seed = 1})
    assert.same({8, 3}, t5.table.shape)
    assert.equal(t5.table, t5:parameters().weight)
    assert.equal(t5.score, t5.score)
    assert.is_nil(t5.slopes)
    local weight = attune.randn({8, 3}, {seed = 1})
    assert.equal(weight, attune.position("t5", {table = weight}).table)
    assert.equal(weight, attune.position("learned", {table = weight}).table)
    local x = attune.ones {1, 1, 4, 8}
    assert.equal(x, alibi:rotate(x))
    assert.equal(x, t5:rotate(x))
    for _, name in ipairs {"rope", "rope2d", "xpos"} do
      assert.is_nil(attune.position(name, {head_dim = 8}).score)
    end
    assert.same("none", attune.position("none", {heads = 4, head_dim = 8, d_model = 8}).name)
  end)
  it("use in scores the bucket that pe:bucket returns, also at the edges", function()
    for _, case in ipairs {
      {32, 128, true}, {32, 128, false}, {64, 256, true}, {8, 20, true}, {32, 1024, true},
      {8, 32, false},
    } do
      local buckets, max_distance, bidirectional = table.unpack(case)
      local rows, tokens = {}, 300
      for n = 1, buckets do rows[n] = {(n - 1) / 4} end
      local pe = attune.position("t5", {
        table = attune.tensor(rows),
        max_distance = max_distance,
        bidirectional = bidirectional,
      })
      local q = attune.zeros({1, 1, tokens, 8}, {dtype = "f64"})
      local weights = attune.attention_weights(q, q, {score = pe.score}):tolist()[1][1]
      for _, i in ipairs {1, tokens} do
        -- of equal scores the weights tell the biases, a quarter of the bucket
        for j = 1, tokens do
          assert.near(
            pe:bucket(j - i), 4 * math.log(weights[i][j] / weights[i][i]), 1e-3,
            ("%d buckets, distance %d"):format(buckets, i - j)
          )
        end
      end
    end
  end)
  it("have a bucket for far keys in both directions", function()
    local both = attune.position("t5", {heads = 1, buckets = 8, max_distance = 20, seed = 1})
    local before = attune.position("t5", {
      heads = 1, buckets = 8, max_distance = 20, bidirectional = false, seed = 1,
    })
    assert.same({0, 1, 5, 3, 7}, {
      both:bucket(0), both:bucket(-1), both:bucket(1), both:bucket(-1000000), both:bucket(1000000),
    })
    assert.same({0, 1, 0, 7, 0}, {
      before:bucket(0), before:bucket(-1), before:bucket(1), before:bucket(math.mininteger),
      before:bucket(9),
    })
    fails("bucket: expected t5, got rope", function()
      attune.position("rope", {head_dim = 8}):bucket(1)
    end)
  end)
end)

describe("encodings refuse", function()
  local function refuses(pattern, name, options)
    it(pattern, function() fails(pattern, function() attune.position(name, options) end) end)
  end
  local function scaling(s) return {head_dim = 8, scaling = s} end
  refuses("unknown type 'yran': did you mean 'yarn'", "rope", scaling {type = "yran", factor = 2})
  refuses(
    "type: expected the name of a scaling, such as 'yarn', got nil", "rope", scaling {factor = 2}
  )
  refuses(
    "scaling: expected a table such as {type = 'linear', factor = 8}, got 'yarn'", "rope",
    scaling "yarn"
  )
  refuses("factor: expected a number, got nil", "rope", scaling {type = "linear"})
  refuses(
    "factor: expected a number of at least 1, got 0.5", "rope",
    scaling {type = "linear", factor = 0.5}
  )
  refuses("original: expected an integer, got nil", "rope", scaling {type = "dynamic", factor = 2})
  refuses(
    "unknown option 'beta_fsat': did you mean 'beta_fast'", "rope",
    scaling {type = "yarn", factor = 2, original = 64, beta_fsat = 3}
  )
  refuses(
    "unknown option 'low'", "rope", scaling {type = "yarn", factor = 2, original = 64, low = 3}
  )
  refuses(
    "beta_fast: expected at least beta_slow, 1, got 0.5", "rope",
    scaling {type = "yarn", factor = 2, original = 64, beta_fast = 0.5}
  )
  refuses(
    "short: expected a list of numbers, got nil", "rope",
    scaling {type = "longrope", factor = 2, original = 64}
  )
  refuses(
    "long: expected 4 numbers, one per pair of dims, got 3", "rope",
    scaling {type = "longrope", factor = 2, original = 64, short = {1, 1, 1, 1}, long = {1, 2, 3}}
  )
  refuses(
    "high: expected more than low, 2, got 1", "rope",
    scaling {type = "llama3", factor = 2, original = 64, low = 2, high = 1}
  )
  refuses("dims: expected at least 4 where the base is scaled, got 2", "rope", {
    head_dim = 2,
    scaling = {type = "ntk", factor = 2},
  })
  refuses("unknown angles 'f8'", "rope", {head_dim = 8, angles = "f8"})
  refuses("heads: expected an integer, got nil", "alibi", {})
  refuses("max_bias: expected a positive number, got %-8", "alibi", {heads = 4, max_bias = -8})
  refuses("unknown option 'bucket': did you mean 'buckets'", "t5", {heads = 4, bucket = 3})
  refuses("buckets: expected an even number of at least 4, got 7", "t5", {heads = 4, buckets = 7})
  refuses("max_distance: expected more than the 8 buckets of one distance, got 8", "t5", {
    heads = 4, max_distance = 8,
  })
  refuses("table: expected %[buckets, heads%], got %[4%]", "t5", {table = attune.ones {4}})
  refuses("table: expected %[buckets, 5%], got %[8, 4%]", "t5", {
    heads = 5,
    table = attune.ones {8, 4},
  })
  refuses("scale_base: expected a positive number", "xpos", {head_dim = 8, scale_base = 0})
end)

describe("absolute positions", function()
  for name, layout in pairs {
    ["sinusoidal.safetensors"] = "interleaved", ["sinusoidal_halves.safetensors"] = "halves",
  } do
    it(name, function()
      local case, t = golden.load("position/" .. name)
      local pe = attune.position("sinusoidal", {d_model = t.table.shape[2], layout = layout})
      local zeros = attune.zeros {1, t.table.shape[1], t.table.shape[2]}
      expect.close(pe:embed(zeros)[1], t.table, case.bounds.table)
    end)
  end
  it("add a row of the table when they are learned", function()
    local pe = attune.position("learned", {d_model = 4, max_positions = 8, seed = 1})
    local weight = pe:parameters().weight
    local x = attune.ones {1, 2, 4}
    expect.close(
      pe:embed(x, {3, 0}), (x + 0) + attune.tensor {{weight[4]:tolist(), weight[1]:tolist()}}, 1e-6
    )
    fails("positions: expected from 0 to 7", function() pe:embed(x, {8, 0}) end)
  end)
  it("return x itself from encodings that embed or rotate nothing", function()
    local x, y = attune.ones {1, 2, 4, 8}, attune.ones {1, 2, 8}
    local none = attune.position("none", {})
    assert.equal(x, none:rotate(x))
    assert.equal(y, none:embed(y))
    assert.equal(y, attune.position("rope", {head_dim = 8}):embed(y))
    assert.same({}, none:parameters())
  end)
end)

describe("encodings", function()
  it("refuse positions that are not integers, in tensors as in lists", function()
    local x, h = attune.randn({1, 2, 2, 4}, {seed = 1}), attune.randn({1, 2, 4}, {seed = 2})
    local rope = attune.position("rope", {head_dim = 4})
    local sinusoidal = attune.position("sinusoidal", {d_model = 4})
    for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
      for bad, said in pairs {[4.5] = "4.5", [math.huge] = "inf", [-math.huge] = "-inf"} do
        local positions = attune.tensor({1, bad}, {dtype = dtype})
        fails("positions: expected an integer, got " .. said:gsub("%-", "%%-"), function()
          rope:rotate(x, positions)
        end)
        fails("positions: expected an integer, got " .. said:gsub("%-", "%%-"), function()
          sinusoidal:embed(h, positions)
        end)
        fails("positions: expected an integer, got " .. said:gsub("%-", "%%-"), function()
          attune.attention(x, x, x, {rotate = rope, positions = positions})
        end)
      end
      fails("positions: expected an integer, got %-?nan", function()
        rope:rotate(x, attune.tensor({0 / 0, 1}, {dtype = dtype}))
      end)
      assert.same(
        0,
        golden.difference(
          rope:rotate(x, {3, 5}), rope:rotate(x, attune.tensor({3, 5}, {dtype = dtype}))
        )
      )
    end
  end)

  it("refuse a base of 0, and tables that contradict the other options", function()
    fails("base: expected a positive number, got 0", function()
      attune.position("sinusoidal", {d_model = 8, base = 0})
    end)
    local table = attune.ones {2, 32}
    fails("table: expected %[3, d_model%], got %[2, 32%]", function()
      attune.position("learned", {table = table, max_positions = 3})
    end)
    fails("table: expected %[max_positions, 8%], got %[2, 32%]", function()
      attune.position("learned", {table = table, d_model = 8})
    end)
    assert.has_no.errors(function()
      attune.position("learned", {table = table, d_model = 32, max_positions = 2})
    end)
    fails("table: expected %[buckets, 2%], got %[2, 32%]", function()
      attune.position("t5", {heads = 2, table = table})
    end)
    fails("table: expected a tensor of floats, got i32", function()
      attune.position("t5", {heads = 2, table = attune.ones({32, 2}, {dtype = "i32"})})
    end)
  end)
end)
