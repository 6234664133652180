--- Normalisation: canonical, NFC and NFD, and by compatibility, NFKC and NFKD (Unicode Standard
--- Annex 15); lower case.
local nfc = {}

-- Hangul syllables are computed (Unicode 15, section 3.12).
local s_base, l_base, v_base, t_base = 0xAC00, 0x1100, 0x1161, 0x11A7
local l_count, v_count, t_count = 19, 21, 28
local s_count = l_count * v_count * t_count

local decomposition, class, composition

local function load_data()
  if decomposition then return end
  local data = require "attune.text.unicode_data"
  local excluded = {}
  decomposition, class, composition = {}, {}, {}
  for code in data.excluded:gmatch "%x+" do excluded[tonumber(code, 16)] = true end
  for first, last, number in data.classes:gmatch "(%x+)%-(%x+):(%d+)" do
    for code = tonumber(first, 16), tonumber(last, 16) do class[code] = tonumber(number) end
  end
  for code, first, second in data.decompositions:gmatch "(%x+)=(%x+)%+?(%x*)" do
    code, first, second = tonumber(code, 16), tonumber(first, 16), tonumber(second, 16)
    decomposition[code] = {first, second}
    if second and not excluded[code] then composition[first << 24 | second] = code end
  end
end

local compatible, lower

-- The tables that few tokenizers need.
local function load_more()
  if compatible then return end
  local data = require "attune.text.unicode_more"
  compatible, lower = {}, {}
  for code, parts in data.compatible:gmatch "(%x+)=([%x+]+)" do
    local list = {}
    for part in parts:gmatch "%x+" do list[#list + 1] = tonumber(part, 16) end
    compatible[tonumber(code, 16)] = list
  end
  for first, last, step, delta in data.lower:gmatch "(%x+)%-(%x+):(%d+):(%-?%d+)" do
    for code = tonumber(first, 16), tonumber(last, 16), tonumber(step) do
      lower[code] = code + tonumber(delta)
    end
  end
end

-- more: compatibility decompositions too, or nil.
local function decompose(code, out, more)
  local s = code - s_base
  if s >= 0 and s < s_count then
    out[#out + 1] = l_base + s // (v_count * t_count)
    out[#out + 1] = v_base + s % (v_count * t_count) // t_count
    if s % t_count > 0 then out[#out + 1] = t_base + s % t_count end
    return
  end
  local parts = decomposition[code] or more and more[code]
  if not parts then
    out[#out + 1] = code
    return
  end
  for _, part in ipairs(parts) do decompose(part, out, more) end
end

-- Sorts the combining marks at first .. last by class; equal classes keep their order.
local function sort_marks(codes, first, last)
  local marks_of, classes = {}, {}
  for i = first, last do
    local c = class[codes[i]]
    if not marks_of[c] then
      marks_of[c] = {}
      classes[#classes + 1] = c
    end
    table.insert(marks_of[c], codes[i])
  end
  table.sort(classes)
  local at = first
  for _, c in ipairs(classes) do
    table.move(marks_of[c], 1, #marks_of[c], at, codes)
    at = at + #marks_of[c]
  end
end

-- Sorts each run of combining marks.
local function reorder(codes)
  local first, before, is_sorted = nil, 0, true -- of the run; before: the class of its last mark
  for i = 1, #codes + 1 do
    local c = class[codes[i]]
    if c then
      first, is_sorted, before = first or i, is_sorted and c >= before, c
    elseif first then
      if not is_sorted then sort_marks(codes, first, i - 1) end
      first, before, is_sorted = nil, 0, true
    end
  end
end

local function composed(first, second)
  local l, v = first - l_base, second - v_base
  if l >= 0 and l < l_count and v >= 0 and v < v_count then
    return s_base + (l * v_count + v) * t_count
  end
  local s, t = first - s_base, second - t_base
  if s >= 0 and s < s_count and s % t_count == 0 and t > 0 and t < t_count then return first + t end
  return composition[first << 24 | second]
end

local function compose(codes)
  local out, starter, last = {}, nil, -1 -- last: class of the character before, since the starter
  for _, code in ipairs(codes) do
    local c = class[code] or 0
    local whole = starter and last < c and composed(out[starter], code)
    if not whole and starter and last == -1 then whole = composed(out[starter], code) end
    if whole then
      out[starter] = whole
    else
      out[#out + 1] = code
      if c == 0 then
        starter, last = #out, -1
      else
        last = c
      end
    end
  end
  return out
end

local function text_of(codes)
  local out = {}
  for at = 1, #codes, 200 do
    out[#out + 1] = utf8.char(table.unpack(codes, at, math.min(at + 199, #codes)))
  end
  return table.concat(out)
end

-- Texts below U+00C0 are normalised in either form.
local function is_plain(s) return not s:find "[\xC3-\xF4]" end

local function decomposed(s, more)
  load_data()
  local codes = {}
  for _, code in utf8.codes(s) do decompose(code, codes, more) end
  reorder(codes)
  return codes
end

--- Canonical decomposition.
---@param s string UTF-8
---@return string
function nfc.decompose(s)
  if is_plain(s) then return s end
  return text_of(decomposed(s))
end

--- Canonical decomposition, then composition.
---@param s string UTF-8
---@return string
function nfc.compose(s)
  if is_plain(s) then return s end
  return text_of(compose(decomposed(s)))
end

-- Of these forms texts below U+00A0.
local function is_plain_compatible(s) return not s:find "[\xC2-\xF4]" end

--- Decomposition by compatibility. The result has up to 11 times the bytes.
---@param s string UTF-8
---@return string
function nfc.decompose_compatible(s)
  if is_plain_compatible(s) then return s end
  load_more()
  return text_of(decomposed(s, compatible))
end

--- Decomposition by compatibility, then composition.
---@param s string UTF-8
---@return string
function nfc.compose_compatible(s)
  if is_plain_compatible(s) then return s end
  load_more()
  return text_of(compose(decomposed(s, compatible)))
end

local dotted_i = 0x130 -- the only character whose lower case is two

--- Every character in lower case, whatever its neighbours.
---@param s string UTF-8
---@return string
function nfc.lower(s)
  if is_plain_compatible(s) then return (s:gsub("%u", string.lower)) end
  load_more()
  local codes = {}
  for _, code in utf8.codes(s) do
    codes[#codes + 1] = code == dotted_i and 0x69 or lower[code] or code
    if code == dotted_i then codes[#codes + 1] = 0x307 end
  end
  return text_of(codes)
end

return nfc
