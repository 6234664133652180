--- Block maps: which tiles of 64 queries by 64 keys are visible under a mask. Attention does not
--- run for this.
local core = require "attune.core"
local program = require "attune.program"
local options = require "attune.util.options"

---@class attune.BlockMap
---@field density number fraction of all pairs that are visible
---@field blocks {empty: integer, partial: integer, full: integer} over all heads that differ
---@field heads integer number of heads that differ; 1 where the mask is the same for all
---@field rows string[] one per row of tiles; bytes: 0 empty, 1 partial, 2 full
local BlockMap = {}
BlockMap.__index = BlockMap

local function check_map(map)
  if getmetatable(map) == BlockMap then return end
  error(("map: expected a block map, got %s"):format(options.describe(map)), 3)
end

local signs = {[0] = "·", [1] = "▒", [2] = "█"}

local max_drawn_rows = 64

-- The character for several tiles of a map at once: rows and columns of tiles, ends included.
local function sign_of(map, first_row, last_row, first_column, last_column)
  local min, max = 2, 0
  for y = first_row, last_row do
    for x = first_column, last_column do
      local state = map.rows[y]:byte(x)
      min, max = math.min(min, state), math.max(max, state)
    end
  end
  return signs[min == max and min or 1]
end

--- The map of one head as text, one character per tile: · empty, ▒ partial, █ full. In large
--- maps one character stands for several tiles.
---@param head? integer of the heads that differ; 1 by default
---@return string
function BlockMap:draw(head)
  check_map(self)
  head = head or 1
  if math.type(head) ~= "integer" or head < 1 or head > self.heads then
    error(("head: expected from 1 to %d, got %s"):format(self.heads, options.describe(head)), 2)
  end
  local rows = #self.rows // self.heads
  local before, columns = (head - 1) * rows, #self.rows[1]
  local step = math.max(1, math.ceil(math.max(rows, columns / 2) / max_drawn_rows))
  local lines = {}
  for r = 1, rows, step do
    local line = {}
    local last_row = math.min(r + step - 1, rows)
    for c = 1, columns, step do
      local last_column = math.min(c + step - 1, columns)
      line[#line + 1] = sign_of(self, before + r, before + last_row, c, last_column)
    end
    lines[#lines + 1] = table.concat(line)
  end
  return table.concat(lines, "\n") .. "\n"
end

function BlockMap:__tostring()
  check_map(self)
  local format = "block map: %.4g%% of pairs visible; tiles: %d empty, %d partial, %d full"
  local blocks = self.blocks
  return format:format(100 * self.density, blocks.empty, blocks.partial, blocks.full)
end

local known = {"batch", "heads", "kv_heads", "queries", "keys"}

-- A copy of the fields of shape. Raises an error for the caller of attune.block_map unless they are
-- valid.
local function read_shape(shape)
  shape = options.read(shape, known, 3, "shape", "{heads =, queries =, keys =}")
  for name, value in pairs(shape) do
    if math.type(value) ~= "integer" or value < 1 then
      local message = "%s: expected an integer of at least 1, got %s"
      error(message:format(name, options.describe(value)), 3)
    end
  end
  if not (shape.queries or shape.keys) then error("queries: expected an integer, got nil", 3) end
  local heads = shape.heads or 1
  local kv_heads = shape.kv_heads or heads
  if heads % kv_heads ~= 0 then
    error(("heads: expected a multiple of kv_heads, %d, got %d"):format(kv_heads, heads), 3)
  end
  return shape
end

--- The block map of a mask. The queries are the last ones of the keys' tokens. keys defaults to
--- queries, the other fields to 1.
---@param mask attune.MaskFunction|attune.Program
---@param shape attune.BlockMapShape
---@return attune.BlockMap
return function(mask, shape, ...)
  options.refuse_further("block_map: expected a mask and a shape", ...)
  shape = read_shape(shape)
  local queries, heads = shape.queries or shape.keys, shape.heads or 1
  local handle = program.handle(mask, "mask")
  local done, map = pcall(core._program_map, handle, shape.batch or 1, heads,
    shape.kv_heads or heads, queries, shape.keys or queries)
  if not done then error(map, 2) end
  return setmetatable({
    density = map.visible / map.pairs,
    blocks = {empty = map.empty, partial = map.partial, full = map.full},
    heads = map.heads,
    rows = map.rows,
  }, BlockMap)
end
