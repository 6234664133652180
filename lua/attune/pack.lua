--- Packing short documents into rows of one length: first-fit decreasing (Krell et al. 2021, arXiv 2107.02027, compare it with others).
local core = require "attune.core"
local suggest = require "attune.util.suggest"

local function check(documents, options)
  if type(documents) ~= "table" or #documents == 0 then error(("documents: expected a list of lists of ids, got %s"):format(type(documents) == "table" and "an empty list" or "a " .. type(documents)), 3) end
  if type(options) ~= "table" then error(("options: expected {capacity = tokens}, got a %s"):format(type(options)), 3) end
  for name in pairs(options) do
    if name ~= "capacity" then error(("unknown option '%s'; %s"):format(tostring(name), suggest(tostring(name), {"capacity"})), 3) end
  end
  local capacity = options.capacity
  if math.type(capacity) ~= "integer" or capacity < 1 then error(("capacity: expected an integer of at least 1, got %s"):format(tostring(capacity)), 3) end
  for n, ids in ipairs(documents) do
    if type(ids) ~= "table" or #ids == 0 then error(("documents: expected lists of at least one id, got %s as number %d"):format(type(ids) == "table" and "an empty one" or "a " .. type(ids), n), 3) end
    if #ids > capacity then error(("documents: expected at most capacity, %d tokens, got %d in number %d"):format(capacity, #ids, n), 3) end
    for k, id in ipairs(ids) do
      if math.type(id) ~= "integer" then error(("documents: expected integers, got %s as id %d of number %d"):format(tostring(id), k, n), 3) end
    end
  end
  return capacity
end

--- Rows of `capacity` tokens that hold the documents, longest first, each in the first row that has room. What is left of a row is its last "document", with ids 0.
---@param documents integer[][]
---@param options {capacity: integer}
---@return {ids: attune.Tensor, lengths: integer[][], positions: attune.Tensor, documents: integer[][], waste: number} ids and positions [rows, capacity] i64, positions from 0 in each document; documents: which stand in each row; waste: the share of tokens that are none
return function(documents, options)
  local capacity = check(documents, options)
  local order, rows, used = {}, {}, 0
  for n = 1, #documents do order[n] = n end
  table.sort(order, function(a, b)
    if #documents[a] ~= #documents[b] then return #documents[a] > #documents[b] end
    return a < b
  end)
  -- The first row with room for so many tokens: rows are tried in order; rows that are full are not tried again.
  local open = {}
  for _, n in ipairs(order) do
    local size, row = #documents[n], nil
    for k = 1, #open do
      if rows[open[k]].left >= size then
        row = open[k]
        if rows[row].left == size then table.remove(open, k) end
        break
      end
    end
    if not row then
      row = #rows + 1
      rows[row] = {left = capacity}
      if size < capacity then open[#open + 1] = row end
    end
    rows[row][#rows[row] + 1] = n
    rows[row].left = rows[row].left - size
    used = used + size
  end
  local ids, positions, lengths, which = {}, {}, {}, {}
  for r, row in ipairs(rows) do
    ids[r], positions[r], lengths[r], which[r] = {}, {}, {}, {}
    for k, n in ipairs(row) do
      for p, id in ipairs(documents[n]) do
        ids[r][#ids[r] + 1] = id
        positions[r][#positions[r] + 1] = p - 1
      end
      lengths[r][k], which[r][k] = #documents[n], n
    end
    if row.left > 0 then lengths[r][#lengths[r] + 1] = row.left end
    for p = 1, row.left do
      ids[r][#ids[r] + 1] = 0
      positions[r][#positions[r] + 1] = p - 1
    end
  end
  return {
    ids = core.tensor(ids, {dtype = "i64"}),
    lengths = lengths,
    positions = core.tensor(positions, {dtype = "i64"}),
    documents = which,
    waste = 1 - used / (#rows * capacity),
  }
end
