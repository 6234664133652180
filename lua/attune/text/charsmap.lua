--- SentencePiece's precompiled map of characters: a double-array trie (Aoe 1989, as darts-clone
--- stores it) from sequences of bytes to texts. Layout: u32 size of the trie in bytes, the trie's
--- u32 units, and the texts, each ended by a zero byte.
local failure = require "attune.text.failure"
local pattern = require "attune.text.pattern"

local charsmap = {}

local max_grapheme_bytes = 6 -- longer ones are mapped character by character

-- The parts of a unit (darts-clone, darts.h).
local function has_leaf(unit) return unit >> 8 & 1 == 1 end
local function value_of(unit) return unit & 0x7fffffff end
local function label_of(unit) return unit & 0x800000ff end
local function offset_of(unit) return unit >> 10 << ((unit & 0x200) >> 6) end

local digits = {}
for i = 1, 64 do
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  digits[alphabet:byte(i)] = i - 1
end

--- The bytes of a base64 text (RFC 4648), as tokenizer.json holds the map.
function charsmap.from_base64(text)
  local body = text:gsub("=+$", "")
  if body:find "[^%w+/]" or #body % 4 == 1 then
    failure.raise("precompiled_charsmap: expected base64, got another character")
  end
  local out = {}
  for at = 1, #body, 4 do
    local a, b, c, d = body:byte(at, at + 3)
    local word = digits[a] << 18 | digits[b] << 12 | (c and digits[c] or 0) << 6
      | (d and digits[d] or 0)
    local bytes = ("BBB"):pack(word >> 16, word >> 8 & 255, word & 255)
    out[#out + 1] = d and bytes or bytes:sub(1, c and 2 or 1)
  end
  return table.concat(out)
end

-- A function from a text to what its first match maps to; nil: nothing matches.
local function lookup_in(blob)
  if #blob < 4 then
    failure.raise("precompiled_charsmap: expected at least 4 bytes, got %d", #blob)
  end
  local size = ("<I4"):unpack(blob)
  if size % 4 ~= 0 or size > #blob - 4 then
    failure.raise("precompiled_charsmap: expected a trie within %d bytes, got %d", #blob - 4, size)
  end
  local units, first_text = size // 4, 5 + size
  local function unit_at(i)
    if i < 0 or i >= units then return nil end
    return (("<I4"):unpack(blob, 5 + 4 * i))
  end
  return function(s)
    local at = offset_of(unit_at(0) or 0)
    for i = 1, #s do
      local byte = s:byte(i)
      at = at ~ byte
      local unit = unit_at(at)
      if byte == 0 or not unit or label_of(unit) ~= byte then return nil end
      at = at ~ offset_of(unit)
      if has_leaf(unit) then
        local leaf = unit_at(at)
        local from = leaf and first_text + value_of(leaf)
        if not from or from > #blob then return nil end
        local stop = blob:find("\0", from, true) or #blob + 1
        local text = blob:sub(from, stop - 1)
        return utf8.len(text) and text or nil
      end
    end
  end
end

--- A function that maps a text. A grapheme of fewer than 6 bytes is mapped as a whole where its
--- beginning is in the map; else each of its characters is.
---@param blob string
---@return fun(s: string, limit: integer): string
function charsmap.new(blob)
  local lookup = lookup_in(blob)
  local grapheme = pattern.compile("\\X", "precompiled_charsmap")
  local kept = {}
  local function mapped(s, limit)
    local whole = #s < max_grapheme_bytes and lookup(s)
    if whole then return whole end
    local out = {}
    local size = 0
    for c in s:gmatch(utf8.charpattern) do
      local text = lookup(c) or c
      out[#out + 1] = text
      size = pattern.check_size(size + #text, limit)
    end
    return table.concat(out)
  end
  for byte = 0, 127 do kept[string.char(byte)] = mapped(string.char(byte), #blob) end
  return function(s, limit)
    local out, at, size = {}, 1, 0
    while at <= #s do
      local first, last = pattern.find(grapheme, s, at)
      if not first then break end
      local piece = s:sub(first, last)
      local text = kept[piece] or mapped(piece, limit)
      out[#out + 1] = text
      size = pattern.check_size(size + #text, limit)
      at = last + 1
    end
    return table.concat(out)
  end
end

return charsmap
