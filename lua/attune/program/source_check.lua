--- A look at the source of a traced function, for what Lua answers without asking a traced value:
--- `==` and `~=` with a number, and `or` after a comparison.
local lua_tokens = require "attune.util.lua_tokens"
local recording = require "attune.program.recording"
local traced = require "attune.program.traced"
local upvalues = require "attune.program.upvalues"

local source_check = {}

local function set_of(words)
  local set = {}
  for word in words:gmatch "%S+" do set[word] = true end
  return set
end

-- ---- functions ---------------------------------------------------------------------------------

-- The names of the parameters of the function whose keyword is token k, and the token ")".
local function parameters_of(tokens, k)
  local names = {}
  local is_method = false
  k = k + 1
  while tokens[k] and tokens[k].text ~= "(" do
    is_method = is_method or tokens[k].text == ":"
    k = k + 1
  end
  if is_method then names[1] = "self" end
  local open = k
  while tokens[k] and tokens[k].text ~= ")" do
    if tokens[k].kind == "name" then names[#names + 1] = tokens[k].text end
    k = k + 1
  end
  return names, open
end

-- The functions in a source: {first, last: tokens, line, open_line, last_line, names}. The line of
-- a function is that of its keyword or that of its "(".
local function functions_of(tokens)
  local found, stack = {}, {}
  for k, token in ipairs(tokens) do
    local text = token.kind == "keyword" and token.text
    if text == "function" then
      local names, open = parameters_of(tokens, k)
      stack[#stack + 1] = {
        first = k, line = token.line, open_line = (tokens[open] or token).line, names = names,
      }
    elseif text == "if" or text == "do" or text == "repeat" then
      stack[#stack + 1] = {}
    elseif text == "end" or text == "until" then
      local block = table.remove(stack)
      if block and block.first then
        block.last = k
        block.last_line = token.line
        found[#found + 1] = block
      end
    end
  end
  return found
end

local function has_parameters(f, info, names)
  if #names ~= info.nparams then return false end
  for n, name in ipairs(names) do
    if debug.getlocal(f, n) ~= name then return false end
  end
  return true
end

-- The ranges of tokens {first, last} that may be the function's: more than one where the same lines
-- hold several functions with the same parameters.
local function ranges_of(f, info, source)
  if info.what == "main" then return {{first = 1, last = #source.tokens}} end
  local list = {}
  for _, block in ipairs(source.functions) do
    if (block.line == info.linedefined or block.open_line == info.linedefined)
      and block.last_line == info.lastlinedefined and has_parameters(f, info, block.names) then
      list[#list + 1] = block
    end
  end
  return list
end

-- ---- expressions -------------------------------------------------------------------------------

local closers = {["("] = ")", ["["] = "]", ["{"] = "}"}
local openers = {[")"] = "(", ["]"] = "[", ["}"] = "{"}

-- What ends an operand of == and ~=: a keyword, a symbol that binds weaker, or a separator.
local ends_operand = set_of [[== ~= < > <= >= = , ; ::]]
local ends_alternative = set_of [[= , ; ::]] -- of what ends an operand of `or`

local literals = set_of "number string vararg"

local function is_term(token) return token.kind == "name" or literals[token.kind] end

-- The last token of an operand that begins beside token k, in the direction step, 1 or -1. Brackets
-- are skipped as a whole.
local function operand_end(tokens, k, step, first, last, stops, passes)
  local opens, closes = closers, openers
  if step < 0 then
    opens, closes = openers, closers
  end
  local depth, at = 0, k + step
  while at >= first and at <= last do
    local token, before = tokens[at], tokens[at - step]
    local text = not literals[token.kind] and token.text
    if depth == 0 then
      if closes[text] or stops[text] or token.kind == "keyword" and not passes[text] then break end
      -- Two terms side by side belong to two statements; a string after a name is a call.
      local left, right = before, token
      if step < 0 then
        left, right = token, before
      end
      if at ~= k + step and right.kind == "name" and (is_term(left) or openers[left.text]) then
        break
      end
    end
    if opens[text] then depth = depth + 1 end
    if closes[text] then depth = depth - 1 end
    at = at + step
  end
  return at - step
end

-- The token that closes the bracket at token k.
local function matching(tokens, k, last)
  local depth = 0
  for at = k, last do
    local text = tokens[at].kind == "symbol" and tokens[at].text
    if closers[text] then depth = depth + 1 end
    if openers[text] then depth = depth - 1 end
    if depth == 0 then return at end
  end
  return last
end

local comparison_names = set_of "lt le gt ge eq ne"

local function text_at(tokens, k, last) return k <= last and tokens[k].text or "" end

-- Whether the name at token k stands for a traced number: a field of at, or the score.
local function is_traced_name(tokens, k, last, names)
  local text, follows = tokens[k].text, text_at(tokens, k + 1, last)
  if names.at[text] and follows == "." then
    return traced.at_fields[text_at(tokens, k + 2, last)] ~= nil
  end
  return names.score[text] and follows ~= "." and follows ~= "[" and follows ~= "("
end

-- What an expression has outside the arguments of functions: a traced number, a comparison of some.
-- names: {at = set, score = set}.
local function contents(tokens, first, last, names)
  local number, comparison = false, false
  local k = first
  while k <= last do
    local text, follows = tokens[k].text, text_at(tokens, k + 1, last)
    local is_field = k > first and tokens[k - 1].text:find "^[.:]$"
    if text == ":" and comparison_names[follows] then comparison = true end
    if tokens[k].kind == "name" and not is_field and is_traced_name(tokens, k, last, names) then
      number = true
    end
    -- The arguments of a call.
    if follows == "(" and (tokens[k].kind == "name" or openers[text]) then
      k = matching(tokens, k + 1, last)
    end
    k = k + 1
  end
  return number, comparison
end

local advice = {
  equals = "== and ~= on a traced value are answered by Lua itself; write x:eq(y) or x:ne(y)",
  alternative = "`or` after a comparison takes the comparison and never what follows; write a | b",
}

local nothing = {}
local joined = set_of "and not"

-- What is wrong with the operator at token k of a function's range, or nil.
local function finding(tokens, k, range, names)
  local text = tokens[k].text
  if text == "==" or text == "~=" then
    local left = operand_end(tokens, k, -1, range.first, range.last, ends_operand, nothing)
    local right = operand_end(tokens, k, 1, range.first, range.last, ends_operand, nothing)
    if left == k - 1 and tokens[left].text == "nil" then return nil end
    if right == k + 1 and tokens[right].text == "nil" then return nil end
    if contents(tokens, left, k - 1, names) or contents(tokens, k + 1, right, names) then
      return advice.equals
    end
  elseif text == "or" then
    local left = operand_end(tokens, k, -1, range.first, range.last, ends_alternative, joined)
    local _, comparison = contents(tokens, left, k - 1, names)
    if comparison then return advice.alternative end
  end
end

-- ---- the check ---------------------------------------------------------------------------------

local function read_source(source)
  if source:sub(1, 1) == "=" then return "" end
  if source:sub(1, 1) ~= "@" then return source end
  local file = io.open(source:sub(2))
  local text = file and file:read "a" or ""
  if file then file:close() end
  return text
end

local latest -- the source that was loaded last: functions of one file are often traced in turn

-- The source of a function: {lines, tokens, functions}. Empty where it cannot be had.
local function load_source(name)
  local text = read_source(name)
  if latest and latest.text == text then return latest end
  local tokens, lines = lua_tokens.of(text), {}
  for line in (text .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = line end
  latest = {text = text, tokens = tokens, functions = functions_of(tokens), lines = lines}
  return latest
end

-- Names that stand for at and for the score in f: its parameters, and "at" and "s".
local function names_in(f, info, is_traced_function)
  local names = {at = {at = true}, score = {s = true}}
  for n = 1, math.min(info.nparams, 2) do
    local name = debug.getlocal(f, n)
    if name then names.at[name] = true end
  end
  local score = is_traced_function and info.nparams == 2 and debug.getlocal(f, 1)
  if score then names.score[score] = true end
  return names
end

-- The findings of one range: {line = advice}, the first of each line.
local function findings_of(source, range, names)
  local list = {}
  for k = range.first, range.last do
    local token = source.tokens[k]
    if not literals[token.kind] and not list[token.line] then
      list[token.line] = finding(source.tokens, k, range, names)
    end
  end
  return list
end

-- The lines that every range of the function agrees on, in order.
local function suspicious_lines(source, ranges, names)
  local lists, lines = {}, {}
  for n, range in ipairs(ranges) do lists[n] = findings_of(source, range, names) end
  for line, text in pairs(lists[1] or {}) do
    local everywhere = true
    for n = 2, #lists do everywhere = everywhere and lists[n][line] ~= nil end
    if everywhere then lines[#lines + 1] = {line, text} end
  end
  table.sort(lines, function(a, b) return a[1] < b[1] end)
  return lines
end

--- Lines where Lua itself may answer what was meant to be traced, in fn and in what it reaches:
--- {{line, text, advice, file, or nil for fn's own}, ..}. Each line occurs once.
---@param fn function
---@param done? table what was named before, and the functions that were looked at; filled
function source_check.suspicious(fn, done)
  local found, sources, own = {}, {}, debug.getinfo(fn, "S").source
  done = done or {}
  for _, f in ipairs(upvalues.reached(fn)) do
    local info = debug.getinfo(f, "Su")
    if not done[f] and info.what ~= "C" and not recording.is_library(info) then
      done[f] = true
      local source = sources[info.source] or load_source(info.source)
      sources[info.source] = source
      local ranges = ranges_of(f, info, source)
      for _, line in ipairs(suspicious_lines(source, ranges, names_in(f, info, f == fn))) do
        local number, key = line[1], info.source .. "\0" .. line[1]
        if not done[key] then
          done[key] = true
          local text = (source.lines[number] or ""):match "^%s*(.-)%s*$"
          found[#found + 1] = {number, text, line[2], info.source ~= own and info.short_src or nil}
        end
      end
    end
  end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  return found
end

return source_check
