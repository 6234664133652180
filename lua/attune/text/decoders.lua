--- Decoders of tokenizer.json: from tokens to text, token by token. Decoding a list is pushing its
--- tokens and finishing, so that a stream gives the same text.
--
-- A stage is {push = function(token, emit), finish = function(emit)?}: it takes a token and emits
-- texts to the next stage.
local byte_level = require "attune.text.byte_level"
local failure = require "attune.text.failure"
local normalizers = require "attune.text.normalizers"
local pattern = require "attune.text.pattern"
local utf = require "attune.text.utf"

local field = failure.field

local decoders = {}

-- Each maker reads a spec and gives a function that makes a stage with a state of its own, and
-- whether the stages after it see all tokens as one text. Strip can treat the pieces of one text;
-- before another stage the pieces are collected, and nothing is given until the end.
local makers = {}

function makers.ByteLevel()
  return function()
    local rest = ""
    local function give(emit, more)
      local text
      text, rest = utf.lossy(rest, more)
      if text ~= "" then emit(text) end
    end
    return {
      push = function(token, emit)
        rest = rest .. byte_level.decode(token)
        give(emit, true)
      end,
      finish = function(emit) give(emit, false) end,
    }
  end, true
end

function makers.Replace(spec, where)
  local regex = normalizers.pattern_of(spec, where)
  local content = field(spec, "content", "string", where)
  local limit = 1 << 20 -- of one token, or of what Fuse joined
  return function()
    return {push = function(token, emit) emit(pattern.replace(regex, token, content, limit)) end}
  end
end

-- A run of byte tokens is its text when the whole run is UTF-8; else each byte becomes U+FFFD. So a
-- run is given only when it ends.
function makers.ByteFallback()
  return function()
    local bytes = {} -- of the run
    local function give(emit)
      if #bytes == 0 then return end
      local run = table.concat(bytes)
      bytes = {}
      emit(utf8.len(run) and run or utf.replacement:rep(#run))
    end
    return {
      push = function(token, emit)
        local hex = token:match "^<0x(%x%x)>$"
        if hex then
          bytes[#bytes + 1] = string.char(tonumber(hex, 16))
        else
          give(emit)
          emit(token)
        end
      end,
      finish = give,
    }
  end
end

function makers.Fuse()
  return function()
    return {push = function(token, emit) emit(token) end}
  end, true
end

-- Removes up to `start` characters at the beginning and `stop` at the end of each token, or of the
-- whole text after Fuse.
function makers.Strip(spec, where)
  local content = field(spec, "content", "string", where)
  local start = field(spec, "start", "integer", where, 0)
  local stop = field(spec, "stop", "integer", where, 0)
  local function strip_start(token, n)
    while n > 0 and token:sub(1, #content) == content do
      token = token:sub(#content + 1)
      n = n - 1
    end
    return token, n
  end
  -- Cuts the text before its last characters, at most n, that are the content.
  local function cut_end(text, n)
    local at = #text
    while n > 0 and at >= #content and text:sub(at - #content + 1, at) == content do
      at = at - #content
      n = n - 1
    end
    return text:sub(1, at), text:sub(at + 1)
  end
  return function(fused)
    if content == "" then return {push = function(token, emit) emit(token) end} end
    if not fused then
      return {push = function(token, emit)
        emit((cut_end(strip_start(token, start), stop)))
      end}
    end
    local left, held = start, ""
    return {push = function(token, emit)
      if token == "" then return end
      if left > 0 then
        token, left = strip_start(token, left)
        if token == "" then return end
        left = 0
      end
      local text
      text, held = cut_end(held .. token, stop)
      if text ~= "" then emit(text) end
    end}
  end
end

function makers.Metaspace(spec, where)
  local mark, scheme = normalizers.metaspace(spec, where)
  local function plain(token, content) return (token:gsub(mark:gsub("%p", "%%%0"), content)) end
  return function()
    local is_first = true
    return {push = function(token, emit)
      local drops = is_first and scheme ~= "never"
      is_first = false
      emit(plain(token, drops and "" or " "))
    end}
  end
end

local function flatten(spec, where, list)
  if type(spec) ~= "table" then
    failure.raise("%s: expected an object, got a %s", where, type(spec))
  end
  local kind = field(spec, "type", "string", where)
  if kind == "Sequence" then
    for i, inner in ipairs(field(spec, "decoders", "list", where)) do
      flatten(inner, ("%s.decoders[%d]"):format(where, i), list)
    end
    return
  end
  if not makers[kind] then failure.raise("%s: decoder '%s' is not supported", where, kind) end
  local make, joins = makers[kind](spec, where)
  list[#list + 1] = {make = make, joins = joins, kind = kind}
end

-- A stage that gives all that it got as one text, at the end.
local function collect()
  local held = {}
  return {
    push = function(token) held[#held + 1] = token end,
    finish = function(emit)
      if #held > 0 then emit(table.concat(held)) end
    end,
  }
end

--- A function that makes a decoder: {push = function(token) -> text, finish = function() -> text}.
---@param spec table? of tokenizer.json; nil: tokens are joined by spaces
---@param where string the field, for messages
function decoders.new(spec, where)
  local list = {}
  if spec ~= nil then flatten(spec, where, list) end
  return function()
    local stages, fused = {}, false
    if spec == nil then
      local is_first = true
      stages[1] = {push = function(token, emit)
        emit(is_first and token or " " .. token)
        is_first = false
      end}
    end
    for _, entry in ipairs(list) do
      if fused and entry.kind ~= "Strip" and entry.kind ~= "Fuse" then
        stages[#stages + 1] = collect()
        fused = false
      end
      stages[#stages + 1] = entry.make(fused)
      fused = fused or entry.joins
    end
    local out
    local function push(i, token)
      if i > #stages then
        out[#out + 1] = token
      else
        stages[i].push(token, function(text) push(i + 1, text) end)
      end
    end
    return {
      push = function(token)
        out = {}
        push(1, token)
        return table.concat(out)
      end,
      finish = function()
        out = {}
        for i, stage in ipairs(stages) do
          if stage.finish then stage.finish(function(text) push(i + 1, text) end) end
        end
        return table.concat(out)
      end,
    }
  end
end

return decoders
