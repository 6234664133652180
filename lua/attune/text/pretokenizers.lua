--- Pre-tokenisers of tokenizer.json: they cut a text into pieces, which the model then encodes one
--- by one. A piece is {text, starts}: starts says whether it begins where the whole text begins.
local byte_level = require "attune.text.byte_level"
local failure = require "attune.text.failure"
local normalizers = require "attune.text.normalizers"
local oniguruma = require "attune.text.oniguruma"
local pattern = require "attune.text.pattern"

local field = failure.field

local pretokenizers = {}

-- A function that cuts every piece of a list by an expression.
local function splitter(regex, behaviour, inverted)
  return function(pieces)
    local out = {}
    for _, piece in ipairs(pieces) do
      local s, starts = piece[1], piece[2]
      for _, part in ipairs(pattern.pieces(regex, s, behaviour, inverted)) do
        if part[2] >= part[1] then
          out[#out + 1] = {s:sub(part[1], part[2]), starts and part[1] == 1}
        end
      end
    end
    return out
  end
end

-- A function that changes the text of every piece.
local function mapper(change)
  return function(pieces)
    local out = {}
    for i, piece in ipairs(pieces) do out[i] = {change(piece[1], piece[2]), piece[2]} end
    return out
  end
end

local function chain(list)
  return function(pieces)
    for _, step in ipairs(list) do pieces = step(pieces) end
    return pieces
  end
end

local makers = {}

function makers.Sequence(spec, where)
  local list = {}
  for i, inner in ipairs(field(spec, "pretokenizers", "list", where)) do
    list[i] = pretokenizers.new(inner, ("%s.pretokenizers[%d]"):format(where, i))
  end
  return chain(list)
end

function makers.Split(spec, where)
  local behaviour = pattern.behaviour(spec.behavior, where .. ".behavior")
  local inverted = field(spec, "invert", "boolean", where, false)
  return splitter(normalizers.pattern_of(spec, where), behaviour, inverted)
end

function makers.ByteLevel(spec, where)
  local list = {}
  if field(spec, "add_prefix_space", "boolean", where, true) then
    list[1] = mapper(function(s) return s:sub(1, 1) == " " and s or " " .. s end)
  end
  if field(spec, "use_regex", "boolean", where, true) then
    list[#list + 1] = splitter(pattern.compile(byte_level.pattern, where), "isolated")
  end
  list[#list + 1] = mapper(byte_level.encode)
  return chain(list)
end

function makers.Digits(spec, where)
  local single = field(spec, "individual_digits", "boolean", where, false)
  return splitter(pattern.compile("\\p{N}", where), single and "isolated" or "contiguous")
end

function makers.Punctuation(spec, where)
  local behaviour = pattern.behaviour(spec.behavior or "Isolated", where .. ".behavior")
  return splitter(pattern.compile("[\\p{P}$+<=>^`|~]", where), behaviour)
end

function makers.WhitespaceSplit(_, where)
  return splitter(pattern.compile("\\s", where), "removed")
end

function makers.Whitespace(_, where)
  local source = ("[%s]+|[^%s\\s]+"):format(oniguruma.word, oniguruma.word)
  return splitter(pattern.compile(source, where), "removed", true)
end

function makers.Metaspace(spec, where)
  local mark, scheme = normalizers.metaspace(spec, where)
  local escaped = mark:gsub("%%", "%%%%")
  local list = {mapper(function(s, starts)
    s = s:gsub(" ", escaped)
    local wanted = scheme == "always" or scheme == "first" and starts
    return wanted and s:sub(1, #mark) ~= mark and mark .. s or s
  end)}
  if field(spec, "split", "boolean", where, true) then
    list[2] = splitter(pattern.literal(mark, where), "mergedwithnext")
  end
  return chain(list)
end

--- Cuts by several expressions, one after another, as the pre-tokenisers of GGUF files do; the
--- pieces are then bytes.
---@param sources string[]
function pretokenizers.by_patterns(sources, where)
  local list = {}
  for i, source in ipairs(sources) do
    list[i] = splitter(pattern.compile(source, where), "isolated")
  end
  list[#list + 1] = mapper(byte_level.encode)
  return chain(list)
end

--- A pre-tokeniser.
---@param spec table? of tokenizer.json; nil: the text is one piece
---@param where string the field, for messages
---@return fun(pieces: table[]): table[]
function pretokenizers.new(spec, where)
  if spec == nil then return function(pieces) return pieces end end
  if type(spec) ~= "table" then
    failure.raise("%s: expected an object, got a %s", where, type(spec))
  end
  local kind = field(spec, "type", "string", where)
  if not makers[kind] then failure.raise("%s: pre-tokeniser '%s' is not supported", where, kind) end
  return makers[kind](spec, where)
end

return pretokenizers
