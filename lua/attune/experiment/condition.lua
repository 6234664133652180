--- The conditions of `run --only` and of `query`: a small part of Lua's expressions, read by a
--- parser of its own.
--
--     condition := comparisons and arithmetic joined by and, or, not, with parentheses
--     value     := number | 'text' | "text" | true | false | nil | name | `any name`
--
-- A name is letters, digits, _ and the dots of seconds.lo; any other name stands in backquotes.
-- Precedence is Lua's. No function can be called and nothing can loop: every condition ends.
local suggest = require "attune.util.suggest"
local text = require "attune.util.text"

local max_bytes, max_depth = 4096, 100

local condition = {}

-- compile and the function that it returns put the name of what they read before the message.
local function fail(format, ...) error({condition = format:format(...)}, 0) end

-- ---- tokens -----------------------------------------------------------------------------------

local symbols = {"==", "~=", "<=", ">=", "//", "<", ">", "+", "-", "*", "/", "%", "^", "(", ")"}
local words = {["and"] = true, ["or"] = true, ["not"] = true}
local constants = {["true"] = {value = true}, ["false"] = {value = false}, ["nil"] = {}}

local function number_token(source, at)
  local digits, after = source:match("^(0[xX]%x+)()", at)
  if not digits then digits, after = source:match("^(%d*%.?%d*[eE][+-]?%d+)()", at) end
  if not digits then digits, after = source:match("^(%d*%.?%d*)()", at) end
  local value = tonumber(digits)
  if not value or source:find("^[%w_.]", after) then
    fail("expected a number, got '%s'", source:match("^[%w_.]+", at))
  end
  return {kind = "value", value = value}, after
end

local function name_token(word, known, noun)
  for _, name in ipairs(known) do
    if name == word then return {kind = "name", name = word} end
  end
  fail("unknown %s '%s': %s", noun, text.printable(word), suggest(word, known))
end

local function next_token(source, at, known, noun)
  if source:find("^%.?%d", at) then return number_token(source, at) end
  local word, after = source:match("^([%a_][%w_]*)()", at)
  if words[word] then return {kind = word}, after end
  if constants[word] then return {kind = "value", value = constants[word].value}, after end
  if word then
    word, after = source:match("^([%a_][%w_]*[%w_.]*)()", at)
    return name_token(word, known, noun), after
  end
  word, after = source:match("^`([^`]*)`()", at)
  if word then return name_token(word, known, noun), after end
  local quote = source:match("^['\"]", at)
  if quote then
    local last = source:find(quote, at + 1, true)
    if not last then fail("expected %s at the end of a text, got none", quote) end
    return {kind = "value", value = source:sub(at + 1, last - 1)}, last + 1
  end
  for _, symbol in ipairs(symbols) do
    if source:sub(at, at + #symbol - 1) == symbol then return {kind = symbol}, at + #symbol end
  end
  local c = text.printable(source:match("^" .. utf8.charpattern, at) or source:sub(at, at))
  if c == "=" then fail "expected == to compare, got =" end
  fail("expected comparisons, arithmetic, and, or, not, got '%s'", c)
end

local function tokens_of(source, known, noun)
  local list, at = {}, source:match "^%s*()"
  while at <= #source do
    local token, after = next_token(source, at, known, noun)
    list[#list + 1] = token
    at = source:match("^%s*()", after)
  end
  return list
end

-- ---- operators: functions of two values -------------------------------------------------------

local function kind_of(v) return v == nil and "nil" or "a " .. type(v) end

-- Where values may be missing, a sum with a missing value is missing, and no order holds for it.
local function arithmetic(symbol, apply)
  return function(x, y, may_miss)
    if may_miss and (x == nil or y == nil) then return nil end
    if type(x) ~= "number" or type(y) ~= "number" then
      fail("expected numbers around %s, got %s and %s", symbol, kind_of(x), kind_of(y))
    end
    local integers = math.type(x) == "integer" and math.type(y) == "integer"
    if integers and y == 0 and (symbol == "//" or symbol == "%") then
      fail("expected a divisor other than zero, got 0")
    end
    return apply(x, y)
  end
end

local function order(symbol, apply)
  return function(x, y, may_miss)
    if may_miss and (x == nil or y == nil) then return false end
    local kind = type(x)
    if kind ~= type(y) or (kind ~= "number" and kind ~= "string") then
      fail("expected two numbers or two texts around %s, got %s and %s", symbol, kind_of(x),
        kind_of(y))
    end
    return apply(x, y)
  end
end

local operators = {
  ["=="] = function(x, y) return x == y end,
  ["~="] = function(x, y) return x ~= y end,
  ["<"] = order("<", function(x, y) return x < y end),
  ["<="] = order("<=", function(x, y) return x <= y end),
  [">"] = order(">", function(x, y) return x > y end),
  [">="] = order(">=", function(x, y) return x >= y end),
  ["+"] = arithmetic("+", function(x, y) return x + y end),
  ["-"] = arithmetic("-", function(x, y) return x - y end),
  ["*"] = arithmetic("*", function(x, y) return x * y end),
  ["/"] = arithmetic("/", function(x, y) return x / y end),
  ["//"] = arithmetic("//", function(x, y) return x // y end),
  ["%"] = arithmetic("%", function(x, y) return x % y end),
  ["^"] = arithmetic("^", function(x, y) return x ^ y end),
}
local comparisons = {"==", "~=", "<", "<=", ">", ">="}
local sums, products = {"+", "-"}, {"*", "/", "//", "%"}

-- ---- the parser: each function returns a function of a point's parameters ---------------------

local Parser = {}
Parser.__index = Parser

-- Takes the next token when it is one of these kinds.
function Parser:take(kinds)
  local token = self.tokens[self.at]
  for _, kind in ipairs(kinds) do
    if token and token.kind == kind then
      self.at = self.at + 1
      return token
    end
  end
end

function Parser:primary()
  local token = self:take {"value", "name", "("}
  if not token then
    local got = self.tokens[self.at]
    fail("expected a parameter, a number or a text, got %s", got and "'" .. got.kind .. "'"
      or "the end")
  end
  if token.kind == "value" then return function() return token.value end end
  if token.kind == "name" then return function(p) return p[token.name] end end
  local inner = self:either()
  if not self:take {")"} then fail "expected a closing parenthesis, got none" end
  return inner
end

function Parser:power()
  local base = self:primary()
  if not self:take {"^"} then return base end
  local exponent = self:unary()
  local may_miss = self.may_miss
  return function(p) return operators["^"](base(p), exponent(p), may_miss) end
end

function Parser:unary()
  self.depth = self.depth + 1
  if self.depth > max_depth then fail("expected at most %d nested parts", max_depth) end
  local result
  if self:take {"not"} then
    local inner = self:unary()
    result = function(p) return not inner(p) end
  elseif self:take {"-"} then
    local inner = self:unary()
    local may_miss = self.may_miss
    result = function(p) return operators["-"](0, inner(p), may_miss) end
  else
    result = self:power()
  end
  self.depth = self.depth - 1
  return result
end

-- Operators of one rank, from left to right.
function Parser:chain(kinds, part)
  local left, may_miss = part(self), self.may_miss
  while true do
    local token = self:take(kinds)
    if not token then return left end
    local x, y, apply = left, part(self), operators[token.kind]
    left = function(p) return apply(x(p), y(p), may_miss) end
  end
end

function Parser:product() return self:chain(products, self.unary) end
function Parser:sum() return self:chain(sums, self.product) end
function Parser:comparison() return self:chain(comparisons, self.sum) end

function Parser:both()
  local left = self:comparison()
  while self:take {"and"} do
    local x, y = left, self:comparison()
    left = function(p) return x(p) and y(p) end
  end
  return left
end

function Parser:either()
  local left = self:both()
  while self:take {"or"} do
    local x, y = left, self:both()
    left = function(p) return x(p) or y(p) end
  end
  return left
end

local function parse(source, known, options)
  if #source > max_bytes then
    fail("expected at most %d bytes, got %d", max_bytes, #source)
  end
  local parser = setmetatable({
    tokens = tokens_of(source, known, options.noun or "parameter"),
    at = 1,
    depth = 0,
    may_miss = options.may_miss or false,
  }, Parser)
  local holds = parser:either()
  if parser.tokens[parser.at] then
    fail("expected and, or or the end, got '%s'", parser.tokens[parser.at].name
      or tostring(parser.tokens[parser.at].value or parser.tokens[parser.at].kind))
  end
  return holds
end

---@class attune.ConditionOptions
---@field label? string what stands before a message; "--only"
---@field noun? string what a name is, for messages; "parameter"
---@field may_miss? boolean values may be nil: comparisons with them do not hold

--- Reads a condition. Raises an error where it is none.
---@param source string
---@param known string[] names that may occur
---@param options? attune.ConditionOptions
---@return fun(values: table<string, attune.Scalar>): any raises an error for operands of the wrong
--- type; the condition holds when the value is neither false nor nil
function condition.compile(source, known, options)
  options = options or {}
  local function called(fn, ...)
    local ok, result = pcall(fn, ...)
    if ok then return result end
    if type(result) ~= "table" or not result.condition then error(result, 0) end
    error((options.label or "--only") .. ": " .. result.condition, 0)
  end
  local holds = called(parse, source, known, options)
  return function(values) return called(holds, values) end
end

return condition
