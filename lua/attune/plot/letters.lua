--- How wide a text is when it is drawn, and how it fits into lines. gnuplot cannot tell before it
-- draws, so that widths are estimates from DejaVu Sans, rounded up.
local text = require "attune.util.text"

local letters = {}

-- Widths in em. A byte that is not listed: lower-case letters and digits 0.62, capitals 0.76.
local narrow_letters, broad_letters = {}, {}
for c in ("iljtfrI.,:;'|!()[]{} /\\`\""):gmatch "." do narrow_letters[c:byte()] = 0.42 end
for c in ("mwMWQO@%&+=<>~"):gmatch "." do broad_letters[c:byte()] = 0.98 end

local function letter_width(code)
  local known = narrow_letters[code] or broad_letters[code]
  if known then return known end
  if code >= 65 and code <= 90 then return 0.76 end
  if code < 128 then return 0.64 end
  -- From here on East Asian letters and pictures begin; they fill a square.
  return code >= 0x2E80 and 1.05 or 0.8
end

--- A text that can be drawn: one line, valid UTF-8 that XML allows, at most `max_letters` letters
--- (200 by default), with an ellipsis for what is beyond.
---@param s any
---@param max_letters integer?
---@return string
function letters.clean(s, max_letters)
  -- Cut first: what follows must not depend on the length of a hostile text.
  local one_line = text.printable(tostring(s):sub(1, 4096))
  -- U+E000 and U+E001 mark texts in scripts (plot/gnuplot.lua).
  one_line = one_line:gsub("\xEF\xBF[\xBE\xBF]", "?"):gsub("\xEE\x80[\x80\x81]", "?")
  max_letters = max_letters or 200
  if utf8.len(one_line) <= max_letters then return one_line end
  return one_line:sub(1, utf8.offset(one_line, max_letters) - 1) .. "…"
end

--- The width of a text in inches.
---@param s string valid UTF-8
---@param font number its size; a font of 100 is one inch
---@return number
function letters.width(s, font)
  local em = 0
  for _, code in utf8.codes(s) do em = em + letter_width(code) end
  return em * font / 100
end

-- Splits a word that is wider than a line.
local function pieces(word, font, room)
  local list, piece = {}, ""
  for _, code in utf8.codes(word) do
    local letter = utf8.char(code)
    if piece ~= "" and letters.width(piece .. letter, font) > room then
      list[#list + 1] = piece
      piece = ""
    end
    piece = piece .. letter
  end
  list[#list + 1] = piece
  return list
end

--- Breaks a list of words into lines that are at most `room` inches wide.
---@param words string[]
---@param separator string between two words of a line
---@param font number
---@param room number
---@return string[] lines
function letters.fill(words, separator, font, room)
  local lines, line = {}, nil
  for _, word in ipairs(words) do
    for _, piece in ipairs(pieces(word, font, room)) do
      local longer = line and line .. separator .. piece or piece
      if line and letters.width(longer, font) > room then
        lines[#lines + 1] = line
        longer = piece
      end
      line = longer
    end
  end
  lines[#lines + 1] = line
  return lines
end

--- Breaks a text into lines at its blanks.
---@param s string
---@param font number
---@param room number inches
---@return string[] lines
function letters.wrap(s, font, room)
  local words = {}
  for word in s:gmatch "%S+" do words[#words + 1] = word end
  return letters.fill(words, " ", font, room)
end

return letters
