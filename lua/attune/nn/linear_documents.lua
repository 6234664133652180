--- Linear attention over packed documents: each document by itself, as if it were alone.
local core = require "attune.core"
local describe = require "attune.util.options".describe
local methods = core._tensor_methods

-- The lengths of the documents of batch row b; nil where there is one document.
local function lengths_of(lengths, b, tokens)
  local row = lengths[1]
  if type(row) == "table" then row = lengths[b] else row = lengths end
  if type(row) ~= "table" then
    core._raise(("lengths: expected the lengths of batch row %d, got %s"):format(b, describe(row)))
  end
  local sum = 0
  for _, length in ipairs(row) do
    if math.type(length) ~= "integer" or length < 0 then
      core._raise(("lengths: expected integers of at least 0, got %s"):format(describe(length)))
    end
    sum = sum + length
  end
  if sum ~= tokens then
    core._raise(("lengths: expected documents of %d tokens in all, got %d"):format(tokens, sum))
  end
  return row
end

-- Rotations depend on differences of positions only, so running positions and those that start
-- again in each document give the same. Others would need a rotation by position.
local function check_positions(positions, rows, batch, tokens)
  local list = core._integers(positions, "positions"):tolist()
  if type(list[1]) ~= "table" then list = {list} end
  for b = 1, batch do
    local row, start = list[b] or list[1], 1
    for _, length in ipairs(rows and rows[b] or {tokens}) do
      for t = start + 1, start + length - 1 do
        if row[t] ~= row[t - 1] + 1 then
          core._raise(("positions: expected positions that rise by 1 in each document, which is "
            .. "all that linear attention can rotate by, got %s after %s"):format(row[t],
            row[t - 1]))
        end
      end
      start = start + length
    end
  end
end

-- Calls attend(q, k, v) for each part of the tokens of one length, and joins what it returns.
local function by_document(attend, lengths, q, k, v)
  local parts, start = {}, 1
  for _, length in ipairs(lengths) do
    if length > 0 then
      local last = start + length - 1
      parts[#parts + 1] = attend(methods.slice(q, 3, start, last), methods.slice(k, 3, start, last),
        methods.slice(v, 3, start, last))
      start = last + 1
    end
  end
  return #parts == 1 and parts[1] or core.cat(parts, 3)
end

--- core.linear_attention of q, k and v [batch, heads, tokens, size], each document by itself.
---@param o table options of core.linear_attention
---@param context? attune.Context its lengths and positions
---@return attune.Tensor [batch, heads, tokens, v_head_dim]
return function(q, k, v, o, context)
  local function attend(a, b, c) return core.linear_attention(a, b, c, o) end
  local lengths, positions = context and context.lengths, context and context.positions
  if not lengths and not (positions and o.rotate) then return attend(q, k, v) end
  local batch, tokens, rows = q.shape[1], q.shape[3], nil
  if lengths then
    rows = {}
    for b = 1, batch do rows[b] = lengths_of(lengths, b, tokens) end
  end
  if positions and o.rotate then check_positions(positions, rows, batch, tokens) end
  if not lengths then return attend(q, k, v) end
  if type(lengths[1]) ~= "table" then return by_document(attend, lengths, q, k, v) end
  local parts = {}
  for b = 1, batch do
    parts[b] = by_document(attend, rows[b], methods.slice(q, 1, b, b), methods.slice(k, 1, b, b),
      methods.slice(v, 1, b, b))
  end
  return core.cat(parts, 1)
end
