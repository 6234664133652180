--- Normalisers of tokenizer.json: functions from a text to a text of at most `limit` bytes.
local charsmap = require "attune.text.charsmap"
local failure = require "attune.text.failure"
local nfc = require "attune.text.nfc"
local pattern = require "attune.text.pattern"
local byte_level = require "attune.text.byte_level"

local field = failure.field

local normalizers = {}

--- The expression of a field {String = text} or {Regex = expression}.
function normalizers.pattern_of(spec, where)
  local given = field(spec, "pattern", "table", where)
  if type(given.String) == "string" then return pattern.literal(given.String, where) end
  if type(given.Regex) == "string" then return pattern.compile(given.Regex, where) end
  failure.raise("%s.pattern: expected a String or a Regex, got neither", where)
end

--- The character that stands for a space in a Metaspace, and where one is put before a text:
--- "always", "first" or "never".
function normalizers.metaspace(spec, where)
  local mark = field(spec, "replacement", "string", where)
  if utf8.len(mark) ~= 1 then
    failure.raise("%s.replacement: expected one character, got '%s'", where, mark)
  end
  local scheme = spec.prepend_scheme
  if scheme == nil then
    scheme = field(spec, "add_prefix_space", "boolean", where, true) and "always" or "never"
  end
  if spec.add_prefix_space == false and scheme ~= "never" then
    failure.raise("%s.prepend_scheme: expected never beside add_prefix_space = false, got '%s'",
      where, tostring(scheme))
  end
  if scheme ~= "always" and scheme ~= "first" and scheme ~= "never" then
    failure.raise("%s.prepend_scheme: expected always, first or never, got '%s'", where,
      tostring(scheme))
  end
  return mark, scheme
end

local makers = {}

function makers.Sequence(spec, where)
  local list = {}
  for i, inner in ipairs(field(spec, "normalizers", "list", where)) do
    list[i] = normalizers.new(inner, ("%s.normalizers[%d]"):format(where, i))
  end
  return function(s, limit)
    for _, normalise in ipairs(list) do s = normalise(s, limit) end
    return s
  end
end

function makers.Prepend(spec, where)
  local content = field(spec, "prepend", "string", where)
  return function(s, limit)
    if s ~= "" then pattern.check_size(#s + #content, limit) end
    return s == "" and s or content .. s
  end
end

function makers.Replace(spec, where)
  local regex = normalizers.pattern_of(spec, where)
  local content = field(spec, "content", "string", where)
  return function(s, limit) return pattern.replace(regex, s, content, limit) end
end

function makers.Strip(spec, where)
  local left = field(spec, "strip_left", "boolean", where, true)
  local right = field(spec, "strip_right", "boolean", where, true)
  local at_start = pattern.compile("\\A\\s+", where)
  local at_end = pattern.compile("\\s+\\z", where)
  return function(s)
    if left then s = pattern.replace(at_start, s, "", #s) end
    if right then s = pattern.replace(at_end, s, "", #s) end
    return s
  end
end

function makers.Precompiled(spec, where)
  return charsmap.new(charsmap.from_base64(field(spec, "precompiled_charsmap", "string", where)))
end

function makers.NFC() return nfc.compose end
function makers.NFD() return nfc.decompose end

-- These texts may grow beyond the limit.
local function limited(change)
  return function(s, limit)
    s = change(s)
    pattern.check_size(#s, limit)
    return s
  end
end

function makers.NFKC() return limited(nfc.compose_compatible) end
function makers.NFKD() return limited(nfc.decompose_compatible) end
function makers.Lowercase() return limited(nfc.lower) end

function makers.ByteLevel()
  return function(s, limit)
    s = byte_level.encode(s)
    pattern.check_size(#s, limit)
    return s
  end
end

--- A normaliser.
---@param spec table? of tokenizer.json; nil changes nothing
---@param where string the field, for messages
---@return fun(s: string, limit: integer): string
function normalizers.new(spec, where)
  if spec == nil then return function(s) return s end end
  if type(spec) ~= "table" then
    failure.raise("%s: expected an object, got a %s", where, type(spec))
  end
  local kind = field(spec, "type", "string", where)
  if not makers[kind] then failure.raise("%s: normaliser '%s' is not supported", where, kind) end
  return makers[kind](spec, where)
end

return normalizers
