--- Block maps: which tiles of 64 queries by 64 keys a mask shows, without running attention.
local core = require "attune.core"
local program = require "attune.program"
local options = require "attune.util.options"

---@class attune.BlockMap
---@field density number fraction of all pairs that are visible
---@field blocks {empty: integer, partial: integer, full: integer} tiles, over all heads that differ
---@field heads integer 1 where the mask is the same for all heads and batch rows
---@field rows string[] a row of tiles each: bytes 0 empty, 1 partial, 2 full
local BlockMap = {}
BlockMap.__index = BlockMap

local signs = {[0] = "·", [1] = "▒", [2] = "█"}

--- The map of one head as text, a character a tile: · empty, ▒ partial, █ full. Large maps are drawn coarser.
---@param head? integer which of the heads that differ; 1
---@return string
function BlockMap:draw(head)
  head = head or 1
  if math.type(head) ~= "integer" or head < 1 or head > self.heads then error(("head: expected from 1 to %d, got %s"):format(self.heads, options.describe(head)), 2) end
  local rows = #self.rows // self.heads
  local first, columns = (head - 1) * rows, #self.rows[1]
  local step = math.max(1, math.ceil(math.max(rows, columns / 2) / 64))
  local lines = {}
  for r = 1, rows, step do
    local line = {}
    for c = 1, columns, step do
      local least, greatest = 2, 0
      for y = r, math.min(r + step - 1, rows) do
        for x = c, math.min(c + step - 1, columns) do
          local state = self.rows[first + y]:byte(x)
          least, greatest = math.min(least, state), math.max(greatest, state)
        end
      end
      line[#line + 1] = signs[least == greatest and least or 1]
    end
    lines[#lines + 1] = table.concat(line)
  end
  return table.concat(lines, "\n") .. "\n"
end

function BlockMap:__tostring()
  return ("block map: %.4g%% of pairs visible; tiles: %d empty, %d partial, %d full"):format(100 * self.density, self.blocks.empty, self.blocks.partial, self.blocks.full)
end

local known = {"batch", "heads", "kv_heads", "queries", "keys"}

--- The block map of a mask. queries are the last of the keys' tokens; keys defaults to queries, the rest to 1.
---@param mask function
---@param shape {heads?: integer, queries?: integer, keys?: integer, batch?: integer, kv_heads?: integer}
---@return attune.BlockMap
return function(mask, shape)
  shape = options.read(shape, known, 2, "shape", "{heads =, queries =, keys =}")
  for name, value in pairs(shape) do
    if math.type(value) ~= "integer" or value < 1 then
      local form = "%s: expected an integer of at least 1, got %s"
      error(form:format(name, options.describe(value)), 2)
    end
  end
  local queries = shape.queries or shape.keys
  if not queries then error("queries: expected an integer, got nil", 2) end
  local heads = shape.heads or 1
  local kv_heads = shape.kv_heads or heads
  if heads % kv_heads ~= 0 then error(("heads: expected a multiple of kv_heads, %d, got %d"):format(kv_heads, heads), 2) end
  local handle = program.handle_at(mask, "mask", 3)
  local done, m = pcall(core._program_map, handle, shape.batch or 1, heads, kv_heads, queries, shape.keys or queries)
  if not done then error(m, 2) end
  return setmetatable({
    density = m.visible / m.pairs,
    blocks = {empty = m.empty, partial = m.partial, full = m.full},
    heads = m.heads,
    rows = m.rows,
  }, BlockMap)
end
