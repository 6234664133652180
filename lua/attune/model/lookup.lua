--- Speculative decoding without a second model: what followed the last ids earlier in the text is
--- proposed, and one pass of the model checks all of it (Saxena 2023, prompt lookup decoding;
--- Leviathan et al. 2023, arXiv 2211.17192, for the check). Greedy only, so that a proposal stands
--- exactly where the model would have chosen it.
local options = require "attune.util.options"
local sampling = require "attune.nn.sampling"

local lookup = {}

---@class attune.model.LookupCounts
---@field passes integer of the model after the prompt
---@field proposed integer
---@field accepted integer

local longest = 64 -- a ring keeps that many tokens beyond its window

local function check(value, name, highest, level)
  if math.type(value) ~= "integer" or value < 1 or value > highest then
    error(("lookup.%s: expected an integer from 1 to %d, got %s"):format(
      name, highest, options.describe(value)), level + 1)
  end
end

--- From {ngram, tokens}; nil: no lookup.
function lookup.read(given, level)
  if given == nil then return nil end
  local o = options.read(given, {"ngram", "tokens"}, level + 1, "lookup")
  o.ngram, o.tokens = o.ngram or 3, o.tokens or 3
  check(o.ngram, "ngram", 64, level + 1)
  check(o.tokens, "tokens", longest - 1, level + 1)
  return o
end

local function same(ids, at, n)
  local last = #ids - n
  for k = n - 1, 0, -1 do
    if ids[at + k] ~= ids[last + 1 + k] then return false end
  end
  return true
end

--- The ids that followed the latest earlier occurrence of the last n ids, for the largest n up to
--- ngram that occurred.
---@param ids integer[]
---@param ngram integer
---@param max integer ids at most
---@return integer[]
function lookup.propose(ids, ngram, max)
  for n = math.min(ngram, #ids - 1), 1, -1 do
    for at = #ids - n, 1, -1 do
      if same(ids, at, n) then
        return table.move(ids, at + n, math.min(at + n + max - 1, #ids), 1, {})
      end
    end
  end
  return {}
end

--- The length from which on keys are rotated by the length of the text when they are appended
--- (dynamic scaling), so that tokens appended together are not as one by one; nil: no length.
---@param network table without encoder
---@return integer?
function lookup.dynamic_from(network)
  local from
  for _, block in ipairs(network.blocks) do
    local scaling = block.attention.position and block.attention.position.scaling
    if scaling and scaling.type == "dynamic" then
      from = math.min(from or math.huge, scaling.original)
    end
  end
  return from
end

-- How many more tokens the session takes in one way, together.
local function room(s, dynamic_from)
  local left = s.context - s.length
  if dynamic_from then left = math.min(left, math.max(1, dynamic_from - s.length)) end
  if s.switches_at and not s.long then left = math.min(left, s.switches_at - s.length) end
  return left
end

--- Continues ids in place, from the logits of its last one.
---@param s attune.model.Session of one row, which holds ids
---@param ids integer[]
---@param logits attune.Tensor [1, vocab]
---@param o {ngram: integer, tokens: integer}
---@param take fun(id: integer): boolean appends an id to ids; false ends the text
---@param counts attune.model.LookupCounts
function lookup.continue(s, ids, logits, o, take, counts)
  local id = sampling.greedy(logits)[1]
  local dynamic_from = lookup.dynamic_from(s.model.network)
  while take(id) do
    local proposed = lookup.propose(ids, o.ngram, math.min(o.tokens, room(s, dynamic_from) - 1))
    local piece = table.move(proposed, 1, #proposed, 2, {id})
    local chosen = sampling.greedy(s:append(piece):view(#piece, -1))
    local accepted, goes_on = 0, true
    while goes_on and proposed[accepted + 1] == chosen[accepted + 1] do
      accepted = accepted + 1
      goes_on = take(proposed[accepted])
    end
    counts.passes, counts.proposed = counts.passes + 1, counts.proposed + #proposed
    counts.accepted = counts.accepted + accepted
    if not goes_on then return end
    s:truncate(s.length - (#proposed - accepted))
    id = chosen[accepted + 1]
  end
end

return lookup
