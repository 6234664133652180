--- What a script says, read from its text without running it.
local script_text = {}

-- ---- tokens -----------------------------------------------------------------------------------

local short = {
  a = "\a", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", v = "\v", ["\n"] = "\n",
}

-- The character of an escape that begins at `at`, after the backslash, and where it ends.
local function escape(inner, at)
  local hex = inner:match("^x(%x%x)", at)
  if hex then return string.char(tonumber(hex, 16)), at + 3 end
  local decimal = inner:match("^%d%d?%d?", at)
  if decimal and tonumber(decimal) < 256 then
    return string.char(tonumber(decimal)), at + #decimal
  end
  local code = inner:match("^u{(%x+)}", at)
  if code and #code <= 7 then return utf8.char(tonumber(code, 16)), at + #code + 3 end
  local spaces = inner:match("^z()%s*", at)
  if spaces then return "", inner:match("^%s*()", spaces) end
  local c = inner:sub(at, at)
  return short[c] or c, at + 1
end

-- The value of a quoted string's inner text.
local function unescape(inner)
  local parts, at = {}, 1
  while true do
    local plain, after = inner:match("^([^\\]*)()", at)
    parts[#parts + 1] = plain
    if after > #inner then return table.concat(parts) end
    parts[#parts + 1], at = escape(inner, after + 1)
  end
end

-- The end of a long bracket ([[..]], [=[..]=]) that begins at `at`, and its text; nil for none.
local function long_bracket(source, at)
  local level, open = source:match("^%[(=*)%[\n?()", at)
  if not level then return nil end
  local first, last = source:find("]" .. level .. "]", open, true)
  if not first then return #source + 1, nil end
  return last + 1, source:sub(open, first - 1)
end

-- The end of a quoted string that begins at `at`, and its value; nil where it does not end.
local function quoted(source, at)
  local quote, i = source:sub(at, at), at + 1
  while true do
    local c = source:sub(i, i)
    if c == quote then return i + 1, unescape(source:sub(at + 1, i - 1)) end
    if c == "" or c == "\n" then return nil end
    if c == "\\" and source:sub(i + 1, i + 1) == "z" then
      i = source:match("^%s*()", i + 2)
    else
      i = i + (c == "\\" and 2 or 1)
    end
  end
end

-- Where the token after spaces and comments begins.
local function skip(source, at)
  while true do
    at = source:match("^%s*()", at)
    if source:sub(at, at + 1) ~= "--" then return at end
    at = long_bracket(source, at + 2) or source:match("^[^\n]*()", at)
  end
end

local function next_token(source, at)
  local c = source:sub(at, at)
  if c:find "[%a_]" then
    local word, after = source:match("^([%w_]+)()", at)
    return {kind = "name", text = word}, after
  end
  if source:find("^%.?%d", at) then
    local number, after = source:match("^(%.?[%w.]+)()", at)
    return {kind = "number", text = number}, after
  end
  if c == '"' or c == "'" then
    local after, value = quoted(source, at)
    if not after then return nil, "a string that does not end" end
    return {kind = "string", text = value}, after
  end
  local after, value = long_bracket(source, at)
  if after then
    if not value then return nil, "a string that does not end" end
    return {kind = "string", text = value}, after
  end
  if source:sub(at, at + 1) == ".." then return {kind = "symbol", text = ".."}, at + 2 end
  return {kind = "symbol", text = c}, at + 1
end

--- The tokens of a Lua source, comments left out.
---@param source string
---@return {kind: "name"|"number"|"string"|"symbol", text: string}[]? tokens
---@return string? message
function script_text.tokens(source)
  local list, at = {}, source:match "^#[^\n]*()" or 1
  while true do
    at = skip(source, at)
    if at > #source then return list end
    local token, after = next_token(source, at)
    if not token then return nil, after end
    list[#list + 1], at = token, after
  end
end

-- ---- the declaration --------------------------------------------------------------------------

local opens = {["{"] = 1, ["("] = 1, ["["] = 1, ["}"] = -1, [")"] = -1, ["]"] = -1}
local blocks = {
  ["function"] = 1, ["do"] = 1, ["if"] = 1, ["repeat"] = 1, ["end"] = -1, ["until"] = -1,
}

-- How a token changes the depth of brackets and blocks.
local function step(token)
  if token.kind == "symbol" then return opens[token.text] or 0 end
  return token.kind == "name" and blocks[token.text] or 0
end

local function is(token, kind, text) return token and token.kind == kind and token.text == text end

-- The index after `require "attune.experiment"` at i, brackets allowed; nil for something else.
local function after_require(tokens, i)
  if not is(tokens[i], "name", "require") then return nil end
  local bracket = is(tokens[i + 1], "symbol", "(")
  local at = bracket and i + 2 or i + 1
  if not is(tokens[at], "string", "attune.experiment") then return nil end
  return bracket and at + 2 or at + 1
end

-- The index after the { of `attune.experiment {`; nil where the text has no such call.
local function find_call(tokens)
  local names = {}
  for i, token in ipairs(tokens) do
    local after = after_require(tokens, i)
    if after and is(tokens[i - 1], "symbol", "=") and tokens[i - 2].kind == "name" then
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
    if wanted == "string" then parts[#parts + 1] = token.text end
  end
  return (range.last - range.first) % 2 == 0 and table.concat(parts) or nil
end

--- Name and description that a script declares.
---@param source string
---@return {name: string?, about: string?}? outline a field that is not written as a string is nil
---@return string? message when the text has no declaration
function script_text.outline(source)
  local tokens, why = script_text.tokens(source)
  if not tokens then return nil, why end
  local fields = declaration(tokens)
  if not fields then return nil, "no call of attune.experiment with a table" end
  local outline = {}
  for _, name in ipairs {"name", "about"} do
    outline[name] = fields[name] and string_value(tokens, fields[name])
  end
  return outline
end

-- Fields that say what is measured where, and what is made of it, but not how. The parameters of a
-- trial are in its record anyway.
local apart = {
  name = true, about = true, fixed = true, grid = true, order = true, quick = true, metrics = true,
  rounds = true, timeout = true, plots = true, claims = true, where = true,
}

--- The part of a script that its measurements depend on: all tokens, without comments and without
--- the fields of the declaration that only choose points, plots and claims.
---@param source string
---@return string
function script_text.essence(source)
  local tokens = script_text.tokens(source)
  if not tokens then return source end
  local left_out = {}
  for name, range in pairs(declaration(tokens) or {}) do
    -- The name and the = before the value and the comma after it go with it.
    if apart[name] then
      for i = range.first - 2, range.last + 1 do left_out[i] = true end
    end
  end
  local words = {}
  for i, token in ipairs(tokens) do
    if not left_out[i] then words[#words + 1] = token.kind:sub(1, 1) .. token.text end
  end
  return table.concat(words, "\n")
end

return script_text
