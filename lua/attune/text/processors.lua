--- Post-processors of tokenizer.json: which special tokens stand before and after an encoded text.
local bpe = require "attune.text.bpe"
local failure = require "attune.text.failure"
local options = require "attune.util.options"

local field = failure.field

local processors = {}

local makers = {}

-- The numbers that a template's piece {SpecialToken = {id = name}} stands for.
local function special_ids(spec, name, where)
  local known = field(spec, "special_tokens", "table", where)
  local entry = field(known, name, "table", where .. ".special_tokens")
  local ids = field(entry, "ids", "list", where)
  for _, id in ipairs(ids) do
    if not bpe.is_id(id) then
      failure.raise("%s.special_tokens: expected integers from 0 to %d as ids of '%s', got %s",
        where, bpe.max_ids - 1, name, options.describe(id))
    end
  end
  return ids
end

function makers.TemplateProcessing(spec, where, before, after)
  local texts = 0
  for i, piece in ipairs(field(spec, "single", "list", where)) do
    local place = ("%s.single[%d]"):format(where, i)
    if type(piece) ~= "table" then failure.raise("%s: expected an object", place) end
    if piece.Sequence then
      texts = texts + 1
    else
      local token = field(piece, "SpecialToken", "table", place)
      local to = texts == 0 and before or after
      for _, id in ipairs(special_ids(spec, field(token, "id", "string", place), where)) do
        to[#to + 1] = id
      end
    end
  end
  if texts ~= 1 then
    failure.raise("%s.single: expected one Sequence, got %d", where, texts)
  end
end

-- The pair [text, id] of BertProcessing and RobertaProcessing.
local function id_of_pair(spec, name, where)
  local id = field(spec, name, "list", where)[2]
  if not bpe.is_id(id) then
    failure.raise("%s.%s: expected a text and an id from 0 to %d, got %s as the id", where, name,
      bpe.max_ids - 1, options.describe(id))
  end
  return id
end

local function cls_and_sep(spec, where, before, after)
  before[#before + 1] = id_of_pair(spec, "cls", where)
  after[#after + 1] = id_of_pair(spec, "sep", where)
end
makers.BertProcessing, makers.RobertaProcessing = cls_and_sep, cls_and_sep

-- It changes offsets only.
function makers.ByteLevel() end

-- Hugging Face's library hands a second processor the parts that the first one made, as if they
-- were texts: no file means that.
function makers.Sequence(spec, where, before, after)
  for i, inner in ipairs(field(spec, "processors", "list", where)) do
    local place = ("%s.processors[%d]"):format(where, i)
    local inner_before, inner_after = processors.new(inner, place)
    if #before + #after > 0 and #inner_before + #inner_after > 0 then
      failure.raise("%s: expected one processor of a Sequence that adds tokens, got a second one",
        place)
    end
    table.move(before, 1, #before, #inner_before + 1, inner_before)
    table.move(inner_before, 1, #inner_before, 1, before)
    table.move(inner_after, 1, #inner_after, #after + 1, after)
  end
end

--- The numbers before and after a text.
---@param spec table? of tokenizer.json; nil: none
---@param where string the field, for messages
---@return integer[] before
---@return integer[] after
function processors.new(spec, where)
  local before, after = {}, {}
  if spec == nil then return before, after end
  if type(spec) ~= "table" then
    failure.raise("%s: expected an object, got a %s", where, type(spec))
  end
  local kind = field(spec, "type", "string", where)
  if not makers[kind] then
    failure.raise("%s: post-processor '%s' is not supported", where, kind)
  end
  makers[kind](spec, where, before, after)
  return before, after
end

return processors
