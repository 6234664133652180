--- The tokens of Lua source, for what reads a script without running it.
local lua_tokens = {}

---@class attune.Token
---@field kind "name"|"keyword"|"number"|"string"|"vararg"|"symbol"
---@field text string as the source has it, a string with its quotes
---@field line integer

-- Without true, false and nil, which stand where names do.
local keywords = {}
for word in ([[and break do else elseif end for function goto if in local not or repeat return then
  until while]]):gmatch "%S+" do
  keywords[word] = true
end

-- What a token is made of, the longest form first. Comments and strings are found before these.
local patterns = {
  {"name", "^[%a_][%w_]*"},
  {"number", "^0[xX][%x%.]+[pP][+-]?%d+"},
  {"number", "^0[xX][%x%.]+"},
  {"number", "^%d+%.?%d*[eE][+-]?%d+"},
  {"number", "^%d+%.?%d*"},
  {"number", "^%.%d+"},
  {"vararg", "^%.%.%."},
  {"symbol", "^[=~<>]="},
  {"symbol", "^%.%."},
  {"symbol", "^//"},
  {"symbol", "^<<"},
  {"symbol", "^>>"},
  {"symbol", "^::"},
  {"symbol", "^."},
}

-- ---- where tokens end --------------------------------------------------------------------------

-- The end of a string or comment in long brackets that begin at `start`, and whether it is closed;
-- nil where none begin.
local function long_bracket_end(source, start)
  local equals = source:match("^%[(=*)%[", start)
  if not equals then return nil end
  local _, stop = source:find("]" .. equals .. "]", start, true)
  return stop or #source, stop ~= nil
end

-- The end of a quoted string that begins at `start`, and whether it is closed.
local function quoted_end(source, start)
  local quote, at = source:sub(start, start), start + 1
  while at <= #source do
    local c = source:sub(at, at)
    if c == quote or c == "\n" then return at, c == quote end
    if c == "\\" and source:sub(at + 1, at + 1) == "z" then
      at = source:match("^%s*()", at + 2)
    else
      at = at + (c == "\\" and 2 or 1)
    end
  end
  return #source, false
end

-- The kind of the token at `start`, which is no white space, its end, and false for a string that
-- does not end. Comments have kind nil.
local function token_at(source, start)
  if source:find("^%-%-", start) then
    local stop = long_bracket_end(source, start + 2)
    return nil, stop or (source:find("\n", start, true) or #source + 1) - 1
  end
  local stop, closed = long_bracket_end(source, start)
  if not stop and source:find("^[\"']", start) then stop, closed = quoted_end(source, start) end
  if stop then return "string", stop, closed end
  for _, pattern in ipairs(patterns) do
    _, stop = source:find(pattern[2], start)
    if stop then return pattern[1], stop end
  end
end

--- The tokens of a source, comments and a first line with # left out.
---@param source string
---@return attune.Token[] tokens
---@return string? message when a string does not end
function lua_tokens.of(source)
  local tokens, line, start, message = {}, 1, 1, nil
  if source:sub(1, 1) == "#" then start = source:find("\n", 1, true) or #source + 1 end
  while start <= #source do
    local stop = select(2, source:find("^[ \t\r\f\v]+", start))
    if not stop and source:sub(start, start) == "\n" then
      stop = start
      line = line + 1
    elseif not stop then
      local kind, closed
      kind, stop, closed = token_at(source, start)
      local text = source:sub(start, stop)
      if closed == false then message = message or "a string that does not end" end
      if keywords[text] then kind = "keyword" end
      if kind then tokens[#tokens + 1] = {kind = kind, text = text, line = line} end
      line = line + select(2, text:gsub("\n", ""))
    end
    start = stop + 1
  end
  return tokens, message
end

-- ---- the values of strings ---------------------------------------------------------------------

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

--- The value of a string's token.
---@param token attune.Token
---@return string
function lua_tokens.value(token)
  local long = token.text:match "^%[=*%[\n?(.*)%]=*%]$"
  if long then return long end
  local inner = token.text:sub(2, -2)
  local parts, at = {}, 1
  while true do
    local plain, after = inner:match("^([^\\]*)()", at)
    parts[#parts + 1] = plain
    if after > #inner then return table.concat(parts) end
    parts[#parts + 1], at = escape(inner, after + 1)
  end
end

return lua_tokens
