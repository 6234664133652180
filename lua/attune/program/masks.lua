--- Masks that have names. Each call returns a mask function: a few lines over traced values, as you
--- would write it. at.i is the query's token, at.j the key's, both from 1.
local core = require "attune.core"
local describe = require "attune.util.options".describe
local trace = require "attune.program.trace"

local masks = {}

-- Raises an error for the caller of the mask's maker unless x is an integer of at least min.
local function check_integer(name, x, min)
  if math.type(x) ~= "integer" or x < min then
    local message = "%s: expected an integer of at least %d, got %s"
    error(message:format(name, min, describe(x)), 3)
  end
end

--- Visible to a query are its own token and the tokens before it.
function masks.causal()
  return function(at) return at.i:ge(at.j) end
end

--- Visible to a query are its own token and the w - 1 tokens before it (Child et al. 2019, arXiv
--- 1904.10509; Mistral).
---@param w integer
function masks.sliding_window(w)
  check_integer("w", w, 1)
  return function(at) return at.i:ge(at.j) & (at.i - at.j):lt(w) end
end

--- The first n tokens are visible to all queries, the others are causal (Raffel et al. 2020, arXiv
--- 1910.10683, figure 4).
---@param n integer|attune.Tensor one number for all batch rows, or one per batch row
function masks.prefix(n)
  if type(n) == "number" then
    check_integer("n", n, 0)
    return function(at) return at.j:le(n) | at.i:ge(at.j) end
  end
  if core._kind(n) ~= "tensor" then
    error(("n: expected an integer or a tensor [batch], got %s"):format(describe(n)), 2)
  end
  return function(at) return at.j:le(n[at.b]) | at.i:ge(at.j) end
end

-- Raises an error unless ids is a list of integers or, where rows is true, a list of such lists of
-- one length. Reads without metamethods.
local function check_ids(ids, rows)
  if rawlen(ids) == 0 then
    error("ids: expected at least one integer, got an empty list", 0)
  end
  local first = rawget(ids, 1)
  for n = 1, rawlen(ids) do
    local x = rawget(ids, n)
    if rows and type(x) == "table" and type(first) == "table" then
      if rawlen(x) ~= rawlen(first) then
        local message = "ids: expected lists of %d integers each, got one of %d"
        error(message:format(rawlen(first), rawlen(x)), 0)
      end
      check_ids(x, false)
    elseif type(x) ~= "number" or not math.tointeger(x) then
      error(("ids: expected integers, got %s"):format(describe(x)), 0)
    end
  end
end

--- Visible to a query are the tokens of its own document. For causal attention in documents write
--- all(causal(), documents(ids)).
---@param ids attune.Tensor|integer[] the document of each token, [tokens] or [batch, tokens]
function masks.documents(ids)
  if type(ids) == "table" then
    local ok, message = pcall(check_ids, ids, true)
    if not ok then error(message, 2) end
    ids = core.tensor(ids, {dtype = "i32"})
  end
  local kind, is_open = core._kind(ids)
  if kind ~= "tensor" or not is_open then
    error(("ids: expected a list of integers or a tensor, got %s"):format(describe(ids)), 2)
  end
  if #ids.shape ~= 1 and #ids.shape ~= 2 then
    local message = "ids: expected a tensor [tokens] or [batch, tokens], got %s"
    error(message:format(describe(ids)), 2)
  end
  if #ids.shape == 2 then
    return function(at) return ids[at.b][at.i]:eq(ids[at.b][at.j]) end
  end
  return function(at) return ids[at.i]:eq(ids[at.j]) end
end

--- Causal: of the tokens at distance 0, step, 2 step .. the first w (Longformer's dilated window,
--- Beltagy et al. 2020, arXiv 2004.05150, section 3.1).
---@param w integer
---@param step integer
function masks.dilated(w, step)
  check_integer("w", w, 1)
  check_integer("step", step, 1)
  local reach = w > math.maxinteger // step and math.maxinteger or w * step
  return function(at)
    local d = at.i - at.j
    return d:ge(0) & d:lt(reach) & (d % step):eq(0)
  end
end

--- A window of w tokens to each side. All keys are visible to the first `globals` tokens, and these
--- tokens are visible to all queries (Longformer, section 3.1).
---@param globals integer
---@param w integer
function masks.global_local(globals, w)
  check_integer("globals", globals, 0)
  check_integer("w", w, 0)
  return function(at) return (at.i - at.j):abs():le(w) | at.i:le(globals) | at.j:le(globals) end
end

--- Causal: the last `stride` tokens, and of the tokens before them those at a multiple of stride
--- (Child et al. 2019, arXiv 1904.10509, section 4.3).
---@param stride integer
function masks.strided(stride)
  check_integer("stride", stride, 1)
  return function(at)
    local d = at.i - at.j
    return d:ge(0) & (d:lt(stride) | (d % stride):eq(0))
  end
end

-- The first of the w positions around x, of 0 to n - 1: centred, and moved inwards at the ends.
local function window_start(x, w, n) return (x - w // 2):clamp(0, n - w) end

--- Neighborhood attention on a line: the w tokens around each token (Hassani et al. 2023, arXiv
--- 2204.07143, section 3).
---@param w integer odd
---@param tokens? integer with it the window moves inwards at the ends, else it is cut off
function masks.natten(w, tokens)
  check_integer("w", w, 1)
  if w % 2 == 0 then error(("w: expected an odd number, got %d"):format(w), 2) end
  if not tokens then
    return function(at) return (at.i - at.j):abs():le(w // 2) end
  end
  check_integer("tokens", tokens, w)
  return function(at)
    local first = window_start(at.i - 1, w, tokens) + 1
    return at.j:ge(first) & at.j:lt(first + w)
  end
end

--- Neighborhood attention on a grid of tokens, stored row by row: the w x w tokens around each
--- token (Hassani et al. 2023).
---@param rows integer
---@param columns integer
---@param w integer odd, at most rows and columns
function masks.natten2d(rows, columns, w)
  check_integer("rows", rows, 1)
  check_integer("columns", columns, 1)
  check_integer("w", w, 1)
  if w % 2 == 0 or w > rows or w > columns then
    local message = "w: expected an odd number, at most rows and columns (%d, %d), got %d"
    error(message:format(rows, columns, w), 2)
  end
  return function(at)
    local row, column = (at.i - 1) // columns, (at.i - 1) % columns
    local top, left = window_start(row, w, rows), window_start(column, w, columns)
    local key_row, key_column = (at.j - 1) // columns, (at.j - 1) % columns
    return key_row:ge(top) & key_row:lt(top + w) & key_column:ge(left) & key_column:lt(left + w)
  end
end

-- all and any make a tail call of this, so that level 2 is their caller.
local function joined(name, join, ...)
  local call_mask = trace.call_mask
  local parts = table.pack(...)
  if parts.n == 0 then error(("%s: expected at least one mask, got none"):format(name), 2) end
  for n = 1, parts.n do
    if type(parts[n]) ~= "function" then
      local message = "%s: expected mask functions, got a %s as number %d"
      error(message:format(name, type(parts[n]), n), 2)
    end
  end
  return function(at)
    local visible = call_mask(parts[1], at)
    for n = 2, parts.n do visible = join(visible, call_mask(parts[n], at)) end
    return visible
  end
end

--- Visible is what is visible under all of these masks.
function masks.all(...)
  return joined("all", function(x, y) return x & y end, ...)
end

--- Visible is what is visible under one of these masks or more.
function masks.any(...)
  return joined("any", function(x, y) return x | y end, ...)
end

return masks
