--- Two-dimensional RoPE.
local attune = require "attune"
local expect = require "tests.support.expect"

local fails = expect.fails

local function scores(q, k) return attune.matmul(q, k:transpose(3, 4)) end

local function range(first, last) return attune.arange(first, last, 1, {dtype = "i64"}) end

describe("rope2d", function()
  local grid = {}
  for row = 0, 2 do
    for column = 0, 3 do grid[#grid + 1] = {row, column} end
  end
  local function moved(rows, columns)
    local out = {}
    for i, at in ipairs(grid) do out[i] = {at[1] + rows, at[2] + columns} end
    return out
  end
  local q, k = attune.randn({1, 2, 12, 16}, {seed = 8}), attune.randn({1, 2, 12, 16}, {seed = 9})
  for _, pairing in ipairs {"half", "interleaved"} do
    it("rotates one half of the dims by rows, the other by columns, pairing " .. pairing, function()
      local pe = attune.position("rope2d", {head_dim = 16, base = 100, pairing = pairing})
      local rotated = pe:rotate(q, grid)
      for half = 1, 2 do
        local along = {}
        for i, at in ipairs(grid) do along[i] = at[half] end
        local expected = attune.rope(q:slice(4, 8 * half - 7, 8 * half), {
          base = 100, pairing = pairing, positions = along,
        })
        expect.close(rotated:slice(4, 8 * half - 7, 8 * half), expected, 1e-6)
      end
      expect.close(pe:rotate(q:to "f64", grid):to "f32", rotated, 1e-6)
      expect.close(pe:rotate(q, attune.tensor({grid}, {dtype = "i64"})), rotated, 0)
    end)
  end
  it("keeps scores when all rows and columns shift", function()
    local pe = attune.position("rope2d", {head_dim = 16})
    local function at(positions)
      return scores(pe:rotate(q, positions, "q"), pe:rotate(k, positions, "k"))
    end
    expect.close(at(grid), at(moved(5, 90)), 2e-5)
  end)
  it("gives the same outputs fused into attention as applied before it, and "
    .. "needs positions", function()
    local pe = attune.position("rope2d", {head_dim = 16})
    local v = attune.randn({1, 2, 12, 16}, {seed = 10})
    local few = q:slice(3, 8, 12)
    local expected = attune.attention(
      pe:rotate(few, {table.unpack(grid, 8)}), pe:rotate(k, grid), v
    )
    for _, engine in ipairs {"reference", "blis", "tiled", "decode"} do
      local o = attune.attention(few, k, v, {rotate = pe, positions = grid, engine = engine})
      expect.close(o, expected, 1e-5)
    end
    fails("positions: expected a row and a column for each token with rope2d, got none", function()
      attune.attention(q, k, v, {rotate = pe})
    end)
    fails("positions: expected a row and a column for each token with rope2d, got none", function()
      pe:rotate(q)
    end)
    fails("positions: expected %[12, 2%] or %[1, 12, 2%], got %[12%]", function()
      pe:rotate(q, range(0, 11))
    end)
    local cache = attune.cache {batch = 1, kv_heads = 2, head_dim = 16, capacity = 64}
    fails("rotate: expected an encoding with one position per token, as a cache has, "
      .. "got rope2d", function()
      cache:append(k, v, {rotate = pe})
    end)
    fails("head_dim: expected a multiple of 4", function()
      attune.position("rope2d", {head_dim = 6})
    end)
  end)
end)
