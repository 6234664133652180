---@meta
-- Types of score and mask programs, for a Lua language server. Nothing loads this file.
-- Indices count from 1. docs/programs.md describes the functions.

--- An operand of a traced value. A tensor has one element; it is read when the program runs.
---@alias attune.TracedOperand attune.Traced|number|attune.Tensor

--- What a score or mask function gets in place of numbers. The operators ==, <, and, or, not and
--- the statement if cannot be used on it: docs/programs.md.
---@class attune.Traced
---@operator add(attune.TracedOperand): attune.Traced
---@operator sub(attune.TracedOperand): attune.Traced
---@operator mul(attune.TracedOperand): attune.Traced
---@operator div(attune.TracedOperand): attune.Traced
---@operator idiv(attune.TracedOperand): attune.Traced
---@operator mod(attune.TracedOperand): attune.Traced
---@operator pow(attune.TracedOperand): attune.Traced
---@operator unm: attune.Traced
local Traced = {}
--- Whether self < y.
---@param y attune.TracedOperand
---@return attune.TracedTruth
function Traced:lt(y) end
--- Whether self <= y.
---@param y attune.TracedOperand
---@return attune.TracedTruth
function Traced:le(y) end
--- Whether self > y.
---@param y attune.TracedOperand
---@return attune.TracedTruth
function Traced:gt(y) end
--- Whether self >= y.
---@param y attune.TracedOperand
---@return attune.TracedTruth
function Traced:ge(y) end
--- Whether self == y.
---@param y attune.TracedOperand
---@return attune.TracedTruth
function Traced:eq(y) end
--- Whether self ~= y.
---@param y attune.TracedOperand
---@return attune.TracedTruth
function Traced:ne(y) end
--- The smaller of two; of two equal values the first gets the gradient.
---@param y attune.TracedOperand
---@return attune.Traced
function Traced:min(y) end
--- The larger of two; of two equal values the first gets the gradient.
---@param y attune.TracedOperand
---@return attune.Traced
function Traced:max(y) end
--- self where it is from low to high, else the nearer of the two.
---@param low attune.TracedOperand
---@param high attune.TracedOperand
---@return attune.Traced
function Traced:clamp(low, high) end
--- The absolute value; its derivative at 0 is 0.
---@return attune.Traced
function Traced:abs() end
--- e^self.
---@return attune.Traced
function Traced:exp() end
--- The natural logarithm.
---@return attune.Traced
function Traced:log() end
--- The square root.
---@return attune.Traced
function Traced:sqrt() end
--- The hyperbolic tangent.
---@return attune.Traced
function Traced:tanh() end
--- 1 / (1 + e^-self).
---@return attune.Traced
function Traced:sigmoid() end
--- Rounds down to an integer.
---@return attune.Traced
function Traced:floor() end

--- A comparison of traced values.
---@class attune.TracedTruth
---@operator band(attune.TracedTruth): attune.TracedTruth
---@operator bor(attune.TracedTruth): attune.TracedTruth
---@operator bnot: attune.TracedTruth
local TracedTruth = {}
--- x where the comparison is true, else y. Both are numbers, or both are comparisons.
---@generic T: attune.Traced|attune.TracedTruth
---@param x T|number|attune.Tensor
---@param y T|number|attune.Tensor
---@return T
function TracedTruth:where(x, y) end

--- The pair of query and key that a score or mask function computes. Indices count from 1. The last
--- query and the last key are the same token.
---@class attune.At
---@field b attune.Traced batch row
---@field h attune.Traced query head
---@field kv attune.Traced kv head
---@field i attune.Traced query token
---@field j attune.Traced key token

---@alias attune.ScoreFunction fun(s: attune.Traced, at: attune.At): attune.Traced|number
---@alias attune.MaskFunction fun(at: attune.At): attune.TracedTruth

--- A traced function. It can replace the function while nothing that the function uses changes.
---@class attune.Program
---@field kind "score"|"mask"
---@field tensors attune.Tensor[] those that it reads
local Program = {}
--- The program as text.
---@return string one instruction per line with the axes along which it varies: none, query, key,
--- distance, or both
function Program:disassemble() end

--- Numbers of tiles of 64 queries by 64 keys.
---@class attune.BlockCounts
---@field empty integer no pair is visible
---@field partial integer
---@field full integer all pairs are visible

---@class attune.BlockMap
---@field density number fraction of all pairs that are visible
---@field blocks attune.BlockCounts over all heads that differ
---@field heads integer number of heads that differ; 1 when the mask is the same for all
---@field rows string[] one per row of tiles; bytes: 0 empty, 1 partial, 2 full
local BlockMap = {}
--- The map as text, one character per tile; large maps are shown coarser.
---@param head? integer of the heads that differ; 1 by default
---@return string
function BlockMap:draw(head) end

---@class attune.BlockMapShape
---@field queries integer
---@field keys? integer as many as queries by default
---@field heads? integer 1 by default
---@field kv_heads? integer as many as heads by default
---@field batch? integer 1 by default

---@class attune
local attune = {}

--- Traces a function. With the arguments (s, at), or with s alone, it is a score; with one argument
--- of another name it is a mask.
---@param fn attune.ScoreFunction|attune.MaskFunction
---@return attune.Program
function attune.program(fn) end
--- Which tiles of 64 queries by 64 keys are visible under a mask.
---@param mask attune.MaskFunction|attune.Program
---@param shape attune.BlockMapShape
---@return attune.BlockMap
function attune.block_map(mask, shape) end

--- Mask functions: docs/programs.md has their definitions.
attune.masks = {
  ---@return attune.MaskFunction
  causal = function() end,
  ---@param w integer
  ---@return attune.MaskFunction
  sliding_window = function(w) end,
  ---@param n integer|attune.Tensor [batch]
  ---@return attune.MaskFunction
  prefix = function(n) end,
  ---@param ids integer[]|attune.Tensor [tokens] or [batch, tokens]
  ---@return attune.MaskFunction
  documents = function(ids) end,
  ---@param w integer
  ---@param step integer
  ---@return attune.MaskFunction
  dilated = function(w, step) end,
  ---@param globals integer
  ---@param w integer
  ---@return attune.MaskFunction
  global_local = function(globals, w) end,
  ---@param stride integer
  ---@return attune.MaskFunction
  strided = function(stride) end,
  ---@param w integer odd
  ---@param tokens? integer with it the window moves inwards at the ends, else it is cut off
  ---@return attune.MaskFunction
  natten = function(w, tokens) end,
  ---@param rows integer
  ---@param columns integer
  ---@param w integer odd
  ---@return attune.MaskFunction
  natten2d = function(rows, columns, w) end,
  ---@param ... attune.MaskFunction
  ---@return attune.MaskFunction
  all = function(...) end,
  ---@param ... attune.MaskFunction
  ---@return attune.MaskFunction
  any = function(...) end,
}
--- Score functions: docs/programs.md.
attune.scores = {
  ---@param c number
  ---@return attune.ScoreFunction
  softcap = function(c) end,
  ---@param slopes attune.Tensor [heads]
  ---@param options? {symmetric?: boolean} by |i - j|
  ---@return attune.ScoreFunction
  alibi = function(slopes, options) end,
  ---@param table attune.Tensor [buckets, heads]
  ---@param options? {max_distance?: integer, bidirectional?: boolean} 128, true
  ---@return attune.ScoreFunction
  t5 = function(table, options) end,
  ---@param slope number
  ---@return attune.ScoreFunction
  distance = function(slope) end,
}

return attune
