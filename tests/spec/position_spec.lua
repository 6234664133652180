local attune = require "attune"
local golden = require "tests.support.golden"

local function fails(pattern, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(pattern), tostring(message))
end

describe("golden RoPE", function()
  for _, name in ipairs(golden.files "rope") do
    local case, t = golden.load("rope/" .. name)
    local p = case.params
    if not (p.scaling and next(p.scaling)) then
      it(name, function()
        local pe = attune.position("rope", {head_dim = t.q.shape[4], dims = p.dims, base = p.base, pairing = p.pairing})
        local bounds = case.bounds_double_angles or case.bounds
        assert.is_true(golden.difference(pe:rotate(t.q, t.positions), t.q_rot) <= bounds.q_rot)
        assert.is_true(golden.difference(pe:rotate(t.k, t.positions), t.k_rot) <= bounds.k_rot)
      end)
    end
  end
end)

describe("RoPE", function()
  local x = attune.randn({1, 2, 6, 16}, {seed = 1})
  it("pairs half and interleaved, one permutation of the dims apart", function()
    local permuted = {}
    local rows = x:tolist()
    for h = 1, 2 do
      permuted[h] = {}
      for s = 1, 6 do
        permuted[h][s] = {}
        for i = 1, 8 do permuted[h][s][2 * i - 1], permuted[h][s][2 * i] = rows[1][h][s][i], rows[1][h][s][i + 8] end
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
  it("leaves scores alone when all positions shift", function()
    local q, k = attune.randn({1, 2, 6, 16}, {seed = 2}), attune.randn({1, 2, 6, 16}, {seed = 3})
    local function scores(first)
      local positions = attune.arange(first, first + 5, 1, {dtype = "i64"})
      return attune.matmul(attune.rope(q, {positions = positions}), attune.rope(k, {positions = positions}):transpose(3, 4))
    end
    assert.is_true(golden.difference(scores(0), scores(1000)) < 2e-5)
  end)
  it("takes lists, tensors and rows of positions, any dtype and strides", function()
    local by_list = attune.rope(x, {positions = {0, 1, 2, 3, 4, 9}})
    local by_row = attune.rope(x, {positions = {{0, 1, 2, 3, 4, 9}}})
    assert.same(by_list:tolist(), by_row:tolist())
    local strided = attune.rope(x:transpose(2, 3):contiguous():transpose(2, 3))
    assert.same(attune.rope(x):tolist(), strided:tolist())
    assert.is_true(golden.difference(attune.rope(x:to "f64"):to "f32", attune.rope(x)) < 1e-6)
    assert.same("bf16", attune.rope(x:to "bf16").dtype)
    local far = attune.rope(x, {positions = {0, 1, 2, 3, 4, 1000000}})
    assert.is_true(golden.difference(far, attune.rope(x:to "f64", {positions = {0, 1, 2, 3, 4, 1000000}}):to "f32") < 1e-6)
  end)
  it("shows its frequencies", function()
    local pe = attune.position("rope", {head_dim = 8, base = 10000})
    local f = pe.inv_freq:tolist()
    for i = 1, 4 do assert.near(10000 ^ (-2 * (i - 1) / 8), f[i], 1e-15) end
    assert.same(1.0, pe.factor)
    assert.same("rope", pe.name)
    assert.is_nil(pe.score)
  end)
  it("refuses what is wrong", function()
    fails("dims: expected an even number from 2 to head_dim, 8, got 12", function() attune.position("rope", {head_dim = 8, dims = 12}) end)
    fails("head_dim: expected", function() attune.position("rope", {}) end)
    fails("unknown pairing 'halff'", function() attune.position("rope", {head_dim = 8, pairing = "halff"}) end)
    fails("unknown positional encoding 'rop': did you mean 'rope'", function() attune.position("rop", {}) end)
    fails("positions: expected %[6%] or %[1, 6%], got %[2%]", function() attune.rope(x, {positions = {1, 2}}) end)
    fails("unknown option 'bse'", function() attune.rope(x, {bse = 3}) end)
  end)
end)

describe("absolute positions", function()
  for name, layout in pairs {["sinusoidal.safetensors"] = "interleaved", ["sinusoidal_halves.safetensors"] = "halves"} do
    it(name, function()
      local case, t = golden.load("position/" .. name)
      local pe = attune.position("sinusoidal", {d_model = t.table.shape[2], layout = layout})
      local zeros = attune.zeros {1, t.table.shape[1], t.table.shape[2]}
      assert.is_true(golden.difference(pe:embed(zeros)[1], t.table) <= case.bounds.table)
    end)
  end
  it("learned ones add a row of the table", function()
    local pe = attune.position("learned", {d_model = 4, max_positions = 8, seed = 1})
    local weight = pe:parameters().weight
    local x = attune.ones {1, 2, 4}
    assert.is_true(golden.difference(pe:embed(x, {3, 0}), (x + 0) + attune.tensor {{weight[4]:tolist(), weight[1]:tolist()}}) < 1e-6)
    fails("positions: expected from 0 to 7", function() pe:embed(x, {8, 0}) end)
  end)
  it("encodings without a part give x itself", function()
    local x, y = attune.ones {1, 2, 4, 8}, attune.ones {1, 2, 8}
    local none = attune.position("none", {})
    assert.equal(x, none:rotate(x))
    assert.equal(y, none:embed(y))
    assert.equal(y, attune.position("rope", {head_dim = 8}):embed(y))
    assert.same({}, none:parameters())
  end)
end)
