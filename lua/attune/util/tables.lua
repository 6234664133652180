--- Keys and copies of tables, read raw: a metatable of the table is not asked.
local tables = {}

--- The keys, sorted by their text: an order that does not depend on hashing.
---@param t table
---@return any[]
function tables.sorted_keys(t)
  local keys = {}
  for key in next, t do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

--- A new table with the same fields.
---@param t table
---@return table
function tables.copy(t)
  local new = {}
  for key, value in next, t do new[key] = value end
  return new
end

return tables
