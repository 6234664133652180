--- Score and mask functions over plain numbers: what a traced function must agree with. Numbers get
--- the traced values' methods, truth gets & | ~.
local plain = {}

local methods = {
  lt = function(x, y) return x < y end,
  le = function(x, y) return x <= y end,
  gt = function(x, y) return x > y end,
  ge = function(x, y) return x >= y end,
  eq = function(x, y) return x == y end,
  ne = function(x, y) return x ~= y end,
  min = function(x, y) return x < y and x or y end,
  max = function(x, y) return x > y and x or y end,
  clamp = function(x, low, high) return x < low and low or x > high and high or x end,
  abs = math.abs,
  exp = math.exp,
  log = math.log,
  sqrt = function(x) return x ^ 0.5 end,
  tanh = function(x)
    local e = math.exp(-2 * math.abs(x))
    local t = math.abs(x) < 1e-3 and math.abs(x) - math.abs(x) ^ 3 / 3 or (1 - e) / (1 + e)
    return x < 0 and -t or t
  end,
  sigmoid = function(x) return 1 / (1 + math.exp(-x)) end,
  floor = math.floor,
}

--- Runs fn while numbers and booleans have the methods.
function plain.with(fn, ...)
  local number, boolean = debug.getmetatable(0), debug.getmetatable(true)
  debug.setmetatable(0, {__index = methods})
  debug.setmetatable(true, {
    __index = {where = function(c, x, y)
      if c then return x end
      return y
    end},
    __band = function(x, y) return x and y end,
    __bor = function(x, y) return x or y end,
    __bnot = function(x) return not x end,
  })
  local result = table.pack(pcall(fn, ...))
  debug.setmetatable(0, number)
  debug.setmetatable(true, boolean)
  assert(result[1], result[2])
  return table.unpack(result, 2, result.n)
end

--- o of one problem, term by term. p: {q, k, v nested lists, B, H, K, Sq, Sk, D, scale}; score and
--- mask over plain numbers, or nil.
function plain.attention(p, score, mask)
  local o, group = {}, p.H // p.K
  for b = 1, p.B do
    o[b] = {}
    for h = 1, p.H do
      o[b][h] = {}
      local kv = (h - 1) // group + 1
      for row = 1, p.Sq do
        local i, weights, sum, max = row + p.Sk - p.Sq, {}, 0, -math.huge
        for j = 1, p.Sk do
          local at = {b = b, h = h, kv = kv, i = i, j = j}
          if not mask or mask(at) then
            local s = 0
            for d = 1, p.D do s = s + p.q[b][h][row][d] * p.k[b][kv][j][d] end
            s = s * p.scale
            weights[j] = score and score(s, at) + 0.0 or s
            max = math.max(max, weights[j])
          end
        end
        local out = {}
        for d = 1, p.D do out[d] = 0 end
        for j, s in pairs(weights) do
          weights[j] = math.exp(s - max)
          sum = sum + weights[j]
        end
        for j, w in pairs(weights) do
          for d = 1, p.D do out[d] = out[d] + w / sum * p.v[b][kv][j][d] end
        end
        o[b][h][row] = out
      end
    end
  end
  return o
end

return plain
