--- Packing short documents into rows of one length: first-fit decreasing. Krell et al. 2021 (arXiv
--- 2107.02027) compare it with other methods.
local core = require "attune.core"
local first_fit = require "attune.data.first_fit"
local options = require "attune.util.options"

local function describe(x, empty)
  if type(x) == "table" and rawlen(x) == 0 then return empty end
  return options.describe(x)
end

local function refuse(level, message, ...) error(message:format(...), level + 1) end

-- A copy of the ids of one document.
local function copy_ids(ids, n, capacity, level)
  if type(ids) ~= "table" or rawlen(ids) == 0 then
    refuse(
      level + 1, "documents: expected lists of at least one id, got %s as number %d",
      describe(ids, "an empty one"), n
    )
  end
  local size = rawlen(ids)
  if size > capacity then
    refuse(
      level + 1, "documents: expected at most capacity, %d tokens, got %d in number %d", capacity,
      size, n
    )
  end
  local copy = {}
  for k = 1, size do
    local id = rawget(ids, k)
    if math.type(id) ~= "integer" then
      refuse(
        level + 1, "documents: expected integers, got %s as id %d of number %d",
        options.describe(id), k, n
      )
    end
    copy[k] = id
  end
  return copy
end

-- Copies of the documents, and the capacity.
local function read(documents, given, level)
  if type(documents) ~= "table" or rawlen(documents) == 0 then
    refuse(
      level + 1, "documents: expected a list of lists of ids, got %s",
      describe(documents, "an empty list")
    )
  end
  local capacity =
    options.read(given, {"capacity"}, level + 1, "options", "{capacity = tokens}").capacity
  if math.type(capacity) ~= "integer" or capacity < 1 then
    refuse(
      level + 1, "capacity: expected an integer of at least 1, got %s",
      options.describe(capacity)
    )
  end
  local copies = {}
  for n = 1, rawlen(documents) do
    copies[n] = copy_ids(rawget(documents, n), n, capacity, level + 1)
  end
  return copies, capacity
end

-- The lists as a tensor [rows, capacity]; raises when there is not enough memory for it.
local function tensor_of(lists, capacity, counting)
  local ok, result = pcall(core._rows, lists, capacity, counting)
  if not ok then error(result == "interrupted!" and result or "capacity: " .. result, 3) end
  return result
end

---@class attune.Packed
---@field ids attune.Tensor [rows, capacity] i64
---@field positions attune.Tensor [rows, capacity] i64, from 0 in each document
---@field lengths integer[][] the tokens of each document of each row
---@field documents integer[][] the number of each document of each row
---@field waste number the part of all tokens that belong to no document

--- Rows of `capacity` tokens that hold the documents, longest first, each in the first row that has
--- room. What is left of a row is its last "document", with ids 0.
---@param documents integer[][]
---@param given {capacity: integer}
---@return attune.Packed
return function(documents, given)
  local capacity
  documents, capacity = read(documents, given, 2)
  local sizes = {}
  for n, document in ipairs(documents) do sizes[n] = #document end
  local rows, left = first_fit(sizes, capacity)
  local ids, positions, lengths, used = {}, {}, {}, 0
  for r, row in ipairs(rows) do
    ids[r], positions[r], lengths[r] = {}, {}, {}
    for k, n in ipairs(row) do
      for p, id in ipairs(documents[n]) do
        table.insert(ids[r], id)
        table.insert(positions[r], p - 1)
      end
      lengths[r][k] = #documents[n]
      used = used + #documents[n]
    end
    if left[r] > 0 then table.insert(lengths[r], left[r]) end
  end
  return {
    ids = tensor_of(ids, capacity, false),
    positions = tensor_of(positions, capacity, true),
    lengths = lengths,
    documents = rows,
    waste = 1 - used / (#rows * capacity),
  }
end
