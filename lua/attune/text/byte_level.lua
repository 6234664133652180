--- The alphabet of byte-level BPE (GPT-2): each byte is written as one character that prints. Bytes
--- that print in Latin-1 are themselves, the others U+0100 and up in order.
local byte_level = {}

local character_of, byte_of = {}, {}
do
  local extra = 0
  for byte = 0, 255 do
    local prints = byte >= 0x21 and byte <= 0x7E or byte >= 0xA1 and byte <= 0xAC or byte >= 0xAE
    local code = byte
    if not prints then
      code = 256 + extra
      extra = extra + 1
    end
    local byte_text = string.char(byte)
    character_of[byte_text] = utf8.char(code)
    byte_of[utf8.char(code)] = byte_text
  end
end

--- GPT-2's pattern, which ByteLevel splits by.
byte_level.pattern = [['s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+]]

--- Bytes as characters of the alphabet.
---@param s string
---@return string
function byte_level.encode(s) return (s:gsub("[\0-\255]", character_of)) end

--- The bytes of a token; a token with a character outside the alphabet stands for itself.
---@param token string
---@return string
function byte_level.decode(token)
  local out, n = {}, 0
  for c in token:gmatch(utf8.charpattern) do
    local byte = byte_of[c]
    if not byte then return token end
    n = n + 1
    out[n] = byte
  end
  return table.concat(out)
end

return byte_level
