-- A positional bias of your own, its gradient, and a mask of your own.
local attune = require "attune"

local q = attune.randn({1, 2, 64, 32}, {seed = 1})
local k = attune.randn({1, 2, 64, 32}, {seed = 2})
local v = attune.randn({1, 2, 64, 32}, {seed = 3})

local slope = attune.full({2}, 0.5) -- one slope per head
local options = {
  score = function(s, at) return s - slope[at.h] * (at.i - at.j):abs():sqrt() end,
  mask = function(at) return at.i:ge(at.j) & (at.j % 2):eq(0) end, -- only even keys
}
local o, lse = attune.attention(q, k, v, options)
local d_o = attune.ones(o.shape)
local _, _, _, tables = attune.attention_backward(d_o, q, k, v, o, lse, options)
print("gradient of slope", table.concat(tables[slope]:tolist(), " "))
print(attune.program(options.score):disassemble())
