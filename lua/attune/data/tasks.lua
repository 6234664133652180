--- The sequences of the tasks: each function draws one of `tokens` + 1 ids into a list, and the
--- weight of each id as a target. `ids[1]` is never a target. A task's own ids come first in the
--- vocabulary, so that 0 is the separator of all.
local tasks = {}

-- `count` ids from first to last, all different if `distinct`.
local function draw_ids(draw, count, first, last, distinct)
  local ids = {}
  if distinct then
    ids = draw:choose(count, last - first + 1)
    for k = 1, count do ids[k] = ids[k] + first - 1 end
  else
    for k = 1, count do ids[k] = first + draw:up_to(last - first + 1) - 1 end
  end
  return ids
end

local separator = 0

-- A content of random ids, the separator, and what `answer` makes of the content; the answer
-- counts. An odd token is left over as a separator in front.
local function transform(answer)
  return {
    min_vocab = 3,
    min_tokens = 2,
    draw = function(o, draw)
      local n = o.tokens // 2
      local ids, weights = {}, {}
      for _ = 1, o.tokens - 2 * n do ids[#ids + 1] = separator end
      local content = draw_ids(draw, n, 1, o.vocab - 1)
      table.move(content, 1, n, #ids + 1, ids)
      ids[#ids + 1] = separator
      for _ = 1, #ids do weights[#weights + 1] = 0 end
      for _, id in ipairs(answer(content)) do
        ids[#ids + 1], weights[#weights + 1] = id, 1
      end
      return ids, weights
    end,
  }
end

--- content, separator, content
tasks.copy = transform(function(content) return content end)
--- content, separator, content from its end
tasks.reverse = transform(function(content)
  local reversed = {}
  for k = #content, 1, -1 do reversed[#reversed + 1] = content[k] end
  return reversed
end)
--- content, separator, content in ascending order
tasks.sorting = transform(function(content)
  local sorted = table.move(content, 1, #content, 1, {})
  table.sort(sorted)
  return sorted
end)

--- A run of different ids that repeats, its length drawn for each sequence, so that a fixed offset
--- does not help. The second occurrence counts from its second id on, which the first predicts.
--- Olsson et al. 2022 (arXiv 2209.11895): induction heads need two layers.
tasks.induction = {
  min_vocab = 4,
  min_tokens = 6,
  draw = function(o, draw)
    local total = o.tokens + 1
    local longest = math.min(total // 2, o.vocab)
    local shortest = math.max(2, total // 4)
    if shortest > longest then shortest = longest end
    local length = shortest + draw:up_to(longest - shortest + 1) - 1
    local run, ids, weights = draw_ids(draw, length, 0, o.vocab - 1, true), {}, {}
    for k = 1, total do
      ids[k] = run[(k - 1) % length + 1]
      weights[k] = k > length + 1 and k <= 2 * length and 1 or 0
    end
    return ids, weights
  end,
}

-- How often a slot of mqar is drawn, relative to others.
local function slot_weight(o, k) return o.power * k ^ (o.power - 1) end

local max_draws = 100000

-- A slot that is not taken. Where the slots that are left have hardly any probability, it is drawn
-- among them, which has the same distribution.
local function draw_slot(o, draw, taken)
  for _ = 1, max_draws do
    local x = draw:number() * o.cumulated[o.slots]
    local slot = 1
    while o.cumulated[slot] < x do slot = slot + 1 end
    if not taken[slot] then return slot end
  end
  local sum, last = 0, nil
  for slot = 1, o.slots do
    if not taken[slot] then sum = sum + slot_weight(o, slot) end
  end
  local x = draw:number() * sum
  for slot = 1, o.slots do
    if not taken[slot] then
      x, last = x - slot_weight(o, slot), slot
      if x <= 0 then return slot end
    end
  end
  return last -- rounding left something of x
end

--- Multi-query associative recall: pairs of a key and a value, then queries, keys that were given,
--- whose next id is the value; other ids are random. Only the values after queries count. Keys are
--- of the lower half of the vocabulary, values of the upper. Queries lie where a power law of
--- exponent -0.99 (option power) puts them, near the pairs more often than far. Arora et al. 2023
--- (arXiv 2312.04927), appendix E.
tasks.mqar = {
  min_vocab = 4,
  min_tokens = 4,
  options = {pairs = "integer", power = "number"},
  check = function(o)
    local pairs_wanted = o.pairs or math.max(1, o.tokens // 16)
    if pairs_wanted < 1 or pairs_wanted > o.tokens // 4 then
      return ("pairs: expected from 1 to tokens / 4, %d, got %d"):format(
        o.tokens // 4, pairs_wanted)
    end
    if pairs_wanted > o.vocab // 2 - 1 then
      return ("pairs: expected at most the %d keys of vocab %d, got %d"):format(
        o.vocab // 2 - 1, o.vocab, pairs_wanted)
    end
    local power = o.power or 0.01
    o.pairs, o.power = pairs_wanted, power
    -- Slots of two ids after the pairs, with the cumulated probability of each.
    o.slots, o.cumulated = (o.tokens - 2 * pairs_wanted) // 2, {}
    local sum = 0
    for k = 1, o.slots do
      sum = sum + slot_weight(o, k)
      o.cumulated[k] = sum
    end
    if not (power > 0 and sum > 0 and sum < math.huge) then
      return ("power: expected a number above 0 for which %d ^ (power - 1) is finite, got %s")
        :format(o.slots, tostring(power))
    end
  end,
  draw = function(o, draw)
    local half = o.vocab // 2
    local keys = draw_ids(draw, o.pairs, 1, half - 1, true)
    local values = draw_ids(draw, o.pairs, half, o.vocab - 1, true)
    local ids, weights = {}, {}
    for k = 1, o.tokens + 1 do ids[k], weights[k] = draw_ids(draw, 1, half, o.vocab - 1)[1], 0 end
    for k = 1, o.pairs do ids[2 * k - 1], ids[2 * k] = keys[k], values[k] end
    local taken = {}
    for k = 1, o.pairs do
      local slot = draw_slot(o, draw, taken)
      taken[slot] = true
      local at = 2 * o.pairs + 2 * slot - 1
      ids[at], ids[at + 1], weights[at + 1] = keys[k], values[k], 1
    end
    return ids, weights
  end,
}

local digits = 10
local plus, equals, pad = 10, 11, 12

-- The digits of a number, the lowest first.
local function digits_of(number, count)
  local list = {}
  for k = 1, count do
    list[k] = number % digits
    number = number // digits
  end
  return list
end

--- a + b = c with ids 0 .. 9 for digits, 10 for +, 11 for =, and 12 to fill up. All numbers have
--- `digits` digits (c has one more) and are written from the lowest digit, which is how a decoder
--- can add; reversed = false writes them as people do. The digits of c count.
tasks.addition = {
  min_vocab = 13,
  min_tokens = 5,
  options = {digits = "integer", reversed = "boolean"},
  check = function(o)
    local most = (o.tokens - 2) // 3
    o.digits = o.digits or math.min(most, 9)
    if o.digits < 1 or o.digits > most or o.digits > 18 then
      return ("digits: expected from 1 to %d for %d tokens, got %d"):format(
        math.min(most, 18), o.tokens, o.digits)
    end
    if o.reversed == nil then o.reversed = true end
  end,
  draw = function(o, draw)
    local n = o.digits
    local a, b, carry, sum = {}, {}, 0, {}
    for k = 1, n do
      a[k], b[k] = draw:up_to(digits) - 1, draw:up_to(digits) - 1
      sum[k] = (a[k] + b[k] + carry) % digits
      carry = (a[k] + b[k] + carry) // digits
    end
    sum[n + 1] = carry
    local ids, weights = {}, {}
    local function put(list, weight)
      for k = 1, #list do
        ids[#ids + 1] = o.reversed and list[k] or list[#list + 1 - k]
        weights[#weights + 1] = weight
      end
    end
    put(a, 0)
    put({plus}, 0)
    put(b, 0)
    put({equals}, 0)
    put(sum, 1)
    while #ids < o.tokens + 1 do ids[#ids + 1], weights[#weights + 1] = pad, 0 end
    return ids, weights
  end,
}
tasks.addition.digits_of = digits_of

--- A needle in a haystack: random ids, and somewhere among them a marker, a key and a value; at the
--- end the marker and the key, after which the value counts. Ids: 0 the marker, then keys, values
--- and hay, a third each.
tasks.needle = {
  min_vocab = 7,
  min_tokens = 5,
  draw = function(o, draw)
    local third = (o.vocab - 1) // 3
    local key = draw_ids(draw, 1, 1, third)[1]
    local value = draw_ids(draw, 1, third + 1, 2 * third)[1]
    local total = o.tokens + 1
    local ids, weights = draw_ids(draw, total, 2 * third + 1, o.vocab - 1), {}
    for k = 1, total do weights[k] = 0 end
    local at = draw:up_to(total - 5)
    ids[at], ids[at + 1], ids[at + 2] = separator, key, value
    ids[total - 2], ids[total - 1], ids[total] = separator, key, value
    weights[total] = 1
    return ids, weights
  end,
}

--- Indirect indexing: a list of different ids, the separator, one id of the list, and a shift; the
--- answer is the id that lies so far from the named one. It mixes what (the id) with where (the
--- shift). Gopalakrishnan et al. 2025 (arXiv 2509.10534). Ids: 0 the separator, then 2 * max_shift
--- + 1 shifts, then the list's.
tasks.indirect = {
  min_vocab = 8,
  min_tokens = 5,
  options = {max_shift = "integer"},
  check = function(o)
    local length = o.tokens - 3
    o.max_shift = o.max_shift or math.max(1, math.min(length // 4, 15))
    local left = o.vocab - 2 - 2 * o.max_shift
    if o.max_shift < 1 or o.max_shift >= length then
      return ("max_shift: expected from 1 to %d, got %d"):format(length - 1, o.max_shift)
    end
    if left < length then
      return ("vocab: expected at least %d ids for lists of %d with max_shift %d, got %d"):format(
        o.vocab - left + length, length, o.max_shift, o.vocab)
    end
  end,
  draw = function(o, draw)
    local length, shifts = o.tokens - 3, 2 * o.max_shift + 1
    local ids, weights = draw_ids(draw, length, shifts + 1, o.vocab - 1, true), {}
    local from = draw:up_to(length)
    local low, high = math.max(1, from - o.max_shift), math.min(length, from + o.max_shift)
    local to = low + draw:up_to(high - low + 1) - 1
    ids[length + 1], ids[length + 2] = separator, ids[from]
    ids[length + 3], ids[length + 4] = to - from + o.max_shift + 1, ids[to]
    for k = 1, #ids do weights[k] = k == #ids and 1 or 0 end
    return ids, weights
  end,
}

return tasks
