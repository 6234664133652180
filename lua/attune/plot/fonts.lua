--- Which letters the fonts of this machine have. In PNG and PDF a letter that no font has would be
--- a box as large as the picture; SVG is drawn with the fonts of its reader.
local process = require "attune.util.process"

local fonts = {}

local max_named = 12 -- letters in a warning

-- The Debian package with the letters of a range.
local packages = {
  {0x2E80, 0x9FFF, "fonts-noto-cjk"},
  {0xAC00, 0xD7FF, "fonts-noto-cjk"},
  {0xF900, 0xFAFF, "fonts-noto-cjk"},
  {0xFF00, 0xFFEF, "fonts-noto-cjk"},
  {0x1F000, 0x1FAFF, "fonts-noto-color-emoji"},
  {0x20000, 0x3FFFF, "fonts-noto-cjk"},
}

local function package_of(code)
  for _, range in ipairs(packages) do
    if code >= range[1] and code <= range[2] then return range[3] end
  end
  return "fonts-noto-core"
end

local max_seconds = 10

-- Whether a font has a letter; nil where fc-list does not answer: it is missing, failed, or was
-- killed because a busy machine had no time for it.
local function found(code)
  local words = {"fc-list", (":charset=%x"):format(code), "family"}
  local ended = process.run(words, 1, max_seconds)
  if not ended or ended.late or ended.code ~= 0 or ended.signal ~= 0 then return nil end
  return ended.said ~= ""
end

local known = {} -- by code point
local works -- whether fontconfig answers: it then finds "A"

-- Whether a font has a letter. True where fontconfig does not answer, as nothing is known then.
local function has(code)
  if works == nil then works = found(0x41) or false end
  if not works then return true end
  if known[code] == nil then known[code] = found(code) ~= false end
  return known[code]
end

--- The letters beyond ASCII that no font has, in order of appearance.
---@param figures attune.Figure[]
---@return string[]
function fonts.lacking(figures)
  local list, seen = {}, {}
  for _, figure in ipairs(figures) do
    for _, source in ipairs {figure.script, figure.data} do
      for letter in source:gmatch "[\xC2-\xF4][\x80-\xBF]*" do
        -- U+E000 and U+E001 mark texts in scripts (plot/gnuplot.lua).
        if not seen[letter] and not letter:find "^\xEE\x80[\x80\x81]$" then
          seen[letter] = true
          if not has(utf8.codepoint(letter)) then list[#list + 1] = letter end
        end
      end
    end
  end
  return list
end

--- A text with "?" in place of letters that no font has.
---@param s string
---@param lacking string[]
---@return string
function fonts.replaced(s, lacking)
  if #lacking == 0 then return s end
  local stand_in = {}
  for _, letter in ipairs(lacking) do stand_in[letter] = "?" end
  return (s:gsub("[\xC2-\xF4][\x80-\xBF]*", stand_in))
end

--- A warning that names the letters and the packages to install; nil when no letter is lacking.
---@param lacking string[]
---@return string?
function fonts.warning(lacking)
  if #lacking == 0 then return nil end
  local wanted, seen = {}, {}
  for _, letter in ipairs(lacking) do
    local package = package_of(utf8.codepoint(letter))
    if not seen[package] then wanted[#wanted + 1] = package end
    seen[package] = true
  end
  local format = "no font of this machine has %s%s: PNG and PDF show ? in their place. "
    .. "Install %s (Debian)"
  local named = table.concat(lacking, " ", 1, math.min(#lacking, max_named))
  return format:format(named, #lacking > max_named and " .." or "", table.concat(wanted, ", "))
end

return fonts
