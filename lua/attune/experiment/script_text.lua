--- What a script says, read from its text without running it.
local lua_tokens = require "attune.util.lua_tokens"

local script_text = {}

-- ---- the declaration --------------------------------------------------------------------------

local opens = {["{"] = 1, ["("] = 1, ["["] = 1, ["}"] = -1, [")"] = -1, ["]"] = -1}
local blocks = {
  ["function"] = 1, ["do"] = 1, ["if"] = 1, ["repeat"] = 1, ["end"] = -1, ["until"] = -1,
}

-- How a token changes the depth of brackets and blocks.
local function step(token)
  if token.kind == "symbol" then return opens[token.text] or 0 end
  return token.kind == "keyword" and blocks[token.text] or 0
end

local function is(token, kind, text) return token and token.kind == kind and token.text == text end

local function is_string(token, value)
  return token and token.kind == "string" and lua_tokens.value(token) == value
end

-- The index after `require "attune.experiment"` at i, brackets allowed; nil for something else.
local function after_require(tokens, i)
  if not is(tokens[i], "name", "require") then return nil end
  local bracket = is(tokens[i + 1], "symbol", "(")
  local at = bracket and i + 2 or i + 1
  if not is_string(tokens[at], "attune.experiment") then return nil end
  return bracket and at + 2 or at + 1
end

-- The index after the { of `attune.experiment {`; nil where the text has no such call.
local function find_call(tokens)
  local names = {}
  for i, token in ipairs(tokens) do
    local after = after_require(tokens, i)
    if after and is(tokens[i - 1], "symbol", "=") and (tokens[i - 2] or {}).kind == "name" then
      names[tokens[i - 2].text] = true
    end
    if not after and token.kind == "name" and names[token.text] then after = i + 1 end
    if after and is(tokens[after], "symbol", "(") then after = after + 1 end
    if after and is(tokens[after], "symbol", "{") then return after + 1 end
  end
end

--- The fields of a script's declaration as ranges of tokens, and the range of the declaration.
---@param tokens table[]
---@return table<string, {first: integer, last: integer}>? fields nil where there is none
---@return {first: integer, last: integer}? range
local function declaration(tokens)
  local first = find_call(tokens)
  if not first then return nil end
  local fields, depth, i, current = {}, 1, first, nil
  local at_start = true
  while tokens[i] and depth > 0 do
    local token = tokens[i]
    if depth == 1 and at_start and token.kind == "name" and is(tokens[i + 1], "symbol", "=") then
      current = {first = i + 2, last = i + 1}
      fields[token.text] = current
    end
    local change = step(token)
    depth = depth + change
    local separator = depth == 1 and change == 0 and (token.text == "," or token.text == ";")
      and token.kind == "symbol"
    at_start = separator
    if current and not separator and depth > 0 and i >= current.first then current.last = i end
    if separator then current = nil end
    i = i + 1
  end
  return fields, {first = first, last = i - 1}
end

-- The value of a field that is written as strings joined by ..; nil for anything else.
local function string_value(tokens, range)
  local parts = {}
  for i = range.first, range.last do
    local wanted = (i - range.first) % 2 == 0 and "string" or "symbol"
    local token = tokens[i]
    if token.kind ~= wanted or (wanted == "symbol" and token.text ~= "..") then return nil end
    if wanted == "string" then parts[#parts + 1] = lua_tokens.value(token) end
  end
  return (range.last - range.first) % 2 == 0 and table.concat(parts) or nil
end

--- Name and description that a script declares.
---@param source string
---@return {name: string?, about: string?}? outline a field that is not written as a string is nil
---@return string? message when the text has no declaration
function script_text.outline(source)
  local tokens, why = lua_tokens.of(source)
  if why then return nil, why end
  local fields = declaration(tokens)
  if not fields then return nil, "no call of attune.experiment with a table" end
  local outline = {}
  for _, name in ipairs {"name", "about"} do
    outline[name] = fields[name] and string_value(tokens, fields[name])
  end
  return outline
end

--- The names of modules that a source requires by a text: `require "name"` and `require("name")`.
---@param source string
---@return string[] in the order of the source
function script_text.requires(source)
  local tokens, list, seen = lua_tokens.of(source), {}, {}
  for i, token in ipairs(tokens) do
    if is(token, "name", "require") then
      local at = is(tokens[i + 1], "symbol", "(") and i + 2 or i + 1
      local name = tokens[at] and tokens[at].kind == "string" and lua_tokens.value(tokens[at])
      if name and not seen[name] then
        seen[name] = true
        list[#list + 1] = name
      end
    end
  end
  return list
end

-- Fields that say what is measured where, and what is made of it, but not how. The parameters of a
-- trial are in its record anyway.
local apart = {
  name = true, about = true, fixed = true, grid = true, order = true, quick = true, metrics = true,
  rounds = true, timeout = true, plots = true, claims = true, where = true, list = true, zip = true,
  sample = true, seeds = true, stop_when = true, budget = true, reference = true,
}

-- Fields that may hold tables as values, with functions that trials call.
local of_values = {fixed = true, grid = true, list = true, zip = true, sample = true}

local function holds_function(tokens, range)
  for i = range.first, range.last do
    if is(tokens[i], "keyword", "function") then return true end
  end
  return false
end

--- The part of a script that its measurements depend on: all tokens, without comments and without
--- the fields of the declaration that only choose points, plots and claims. Values with functions
--- in them are a part.
---@param source string
---@return string
function script_text.essence(source)
  local tokens, why = lua_tokens.of(source)
  if why then return source end
  local left_out = {}
  for name, range in pairs(declaration(tokens) or {}) do
    -- The name and the = before the value and the comma after it go with it.
    if apart[name] and not (of_values[name] and holds_function(tokens, range)) then
      for i = range.first - 2, range.last + 1 do left_out[i] = true end
    end
  end
  local words = {}
  for i, token in ipairs(tokens) do
    local text = token.kind == "string" and lua_tokens.value(token) or token.text
    if not left_out[i] then words[#words + 1] = token.kind:sub(1, 1) .. text end
  end
  return table.concat(words, "\n")
end

return script_text
