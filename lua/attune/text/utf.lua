--- UTF-8 beyond Lua's library: decoding bytes that may be no UTF-8, piece by piece.
local utf = {}

utf.replacement = "\u{fffd}"

--- The position of the first byte that is not UTF-8; nil when the text is UTF-8.
---@param s string
---@return integer?
function utf.invalid(s)
  local length, at = utf8.len(s)
  return not length and at or nil
end

-- The bytes that may follow a lead byte: {length, lowest second byte, highest second byte}. Others
-- would be overlong, a surrogate, or beyond U+10FFFF (Unicode 15, table 3-7).
local leads = {}
for byte = 0xC2, 0xDF do leads[byte] = {2, 0x80, 0xBF} end
for byte = 0xE0, 0xEF do leads[byte] = {3, 0x80, 0xBF} end
for byte = 0xF0, 0xF4 do leads[byte] = {4, 0x80, 0xBF} end
leads[0xE0][2], leads[0xED][3], leads[0xF0][2], leads[0xF4][3] = 0xA0, 0x9F, 0x90, 0x8F

-- The length of the character at `at`; else nil, the length of its longest valid beginning, and
-- whether the text ends inside it.
local function character(s, at)
  local lead = s:byte(at)
  if lead < 0x80 then return 1 end
  local rule = leads[lead]
  if not rule then return nil, 1, false end
  for k = 1, rule[1] - 1 do
    local byte = s:byte(at + k)
    if not byte then return nil, k, true end
    local low, high = 0x80, 0xBF
    if k == 1 then
      low, high = rule[2], rule[3]
    end
    if byte < low or byte > high then return nil, k, false end
  end
  return rule[1]
end

--- Bytes as UTF-8: each longest beginning of a character that does not end becomes U+FFFD (Unicode
--- 15, section 3.9). With `more`, an incomplete character at the end is kept for later.
---@param s string
---@param more boolean? whether bytes may follow
---@return string text
---@return string rest what was kept
function utf.lossy(s, more)
  if utf8.len(s) then return s, "" end
  local out, at, plain = {}, 1, 1
  while at <= #s do
    local length, bad, cut = character(s, at)
    if length then
      at = at + length
    else
      out[#out + 1] = s:sub(plain, at - 1)
      if cut and more then return table.concat(out), s:sub(at) end
      out[#out + 1] = utf.replacement
      at = at + bad
      plain = at
    end
  end
  out[#out + 1] = s:sub(plain)
  return table.concat(out), ""
end

return utf
