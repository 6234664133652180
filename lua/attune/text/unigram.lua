--- Unigram segmentation (Kudo 2018, arXiv 1804.10959): of all ways to cut a word into tokens, the
--- one with the largest sum of scores (Viterbi).
local bpe = require "attune.text.bpe"
local failure = require "attune.text.failure"

local unigram = {}

-- A character without a token costs this much more than the worst token.
local unknown_penalty = 10

---@class attune.text.UnigramModel
---@field ids table<string, integer>
---@field scores number[] of token id + 1
---@field unknown? integer
---@field byte_fallback? boolean

-- The best way to each byte of the word: from[e] is where the last token begins, token[e] its
-- number. Positions are bytes before the end, from 0.
local function best_way(model, word, longest, unknown_score)
  local ids, scores, unknown = model.ids, model.scores, model.unknown
  local best, from, token = {[0] = 0}, {}, {}
  local start = 0
  while start < #word do
    local score = best[start]
    local length = utf8.offset(word, 2, start + 1) - start - 1
    local has_single, stop = false, start
    for _ = 1, longest do
      if stop >= #word then break end
      stop = utf8.offset(word, 2, stop + 1) - 1
      local id = ids[word:sub(start + 1, stop)]
      if id then
        local candidate = scores[id + 1] + score
        if not best[stop] or candidate > best[stop] then
          best[stop], from[stop], token[stop] = candidate, start, id
        end
        has_single = has_single or stop - start == length
      end
    end
    if not has_single then
      stop = start + length
      local candidate = unknown_score + score
      if not best[stop] or candidate > best[stop] then
        best[stop], from[stop], token[stop] = candidate, start, unknown or -1
      end
    end
    start = start + length
  end
  return from, token
end

--- A function from a word to the numbers of its tokens.
---@param model attune.text.UnigramModel
---@return fun(word: string): integer[]
function unigram.new(model)
  local longest, lowest = 1, math.huge
  for token in pairs(model.ids) do longest = math.max(longest, utf8.len(token) or 1) end
  for _, score in ipairs(model.scores) do lowest = math.min(lowest, score) end
  local unknown_score = lowest - unknown_penalty
  local byte_ids = model.byte_fallback and bpe.byte_tokens(model.ids)
  local unknown = model.unknown or -1
  -- Unknown characters next to each other are one unknown token, or their bytes.
  local function add_unknown(result, characters)
    local bytes = {}
    for i = 1, #characters do
      local id = byte_ids and byte_ids[characters:sub(i, i)]
      if not id then
        result[#result + 1] = model.unknown or failure.no_token(characters)
        return
      end
      bytes[i] = id
    end
    table.move(bytes, 1, #bytes, #result + 1, result)
  end
  return function(word)
    local from, token = best_way(model, word, longest, unknown_score)
    local pieces, stop = {}, #word
    while stop > 0 do
      pieces[#pieces + 1] = {token[stop], from[stop], stop}
      stop = from[stop]
    end
    local result, i = {}, #pieces
    while i >= 1 do
      local piece = pieces[i]
      if piece[1] == unknown then
        local last = i
        while last > 1 and pieces[last - 1][1] == unknown do last = last - 1 end
        add_unknown(result, word:sub(piece[2] + 1, pieces[last][3]))
        i = last
      else
        result[#result + 1] = piece[1]
      end
      i = i - 1
    end
    return result
  end
end

return unigram
