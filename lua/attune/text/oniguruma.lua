--- Regular expressions of Oniguruma in Ruby's syntax, in which the patterns of tokenizer.json are
--- written, as expressions of PCRE2. What PCRE2 would read in another way is translated or refused.
--- To be compiled with MULTILINE, as ^ and $ match at each line.
local failure = require "attune.text.failure"

local oniguruma = {}

--- What a word is made of (Unicode Technical Standard 18, annex C), for use within a class.
oniguruma.word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"

-- PCRE2's \s has U+180E too, its \w lacks marks and connectors, its \h is white space and not a
-- digit of base 16, its \v is more than U+000B. Outside of classes Oniguruma's \w has the
-- superscripts and fractions of Latin-1.
local word_in_class = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
local word = word_in_class .. "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
local hex = "0-9A-Fa-f"
local at_edge = ("(?:(?<=[%s])(?![%s])|(?<![%s])(?=[%s]))"):format(word, word, word, word)
local inside = ("(?:(?<=[%s])(?=[%s])|(?<![%s])(?![%s]))"):format(word, word, word, word)

local escapes = {
  s = "\\p{White_Space}", S = "\\P{White_Space}", w = "[" .. word .. "]", W = "[^" .. word .. "]",
  h = "[" .. hex .. "]", H = "[^" .. hex .. "]", v = "\\x0b", b = at_edge, B = inside,
}
local escapes_in_class = {
  s = escapes.s, S = escapes.S, w = word_in_class, h = hex, v = escapes.v,
}

-- Classes [:name:] and what they are where negated; nil: that cannot be said within a class.
local posix = {
  alpha = {"\\p{Alphabetic}", "\\P{Alphabetic}"}, digit = {"\\p{Nd}", "\\P{Nd}"},
  space = {escapes.s, escapes.S}, cntrl = {"\\p{Cc}", "\\P{Cc}"},
  upper = {"\\p{Uppercase}", "\\P{Uppercase}"}, lower = {"\\p{Lowercase}", "\\P{Lowercase}"},
  alnum = {"\\p{Alphabetic}\\p{Nd}"}, punct = {"\\p{P}\\p{S}"}, blank = {"\\t\\p{Zs}"},
  xdigit = {hex}, word = {word_in_class},
}

local function refuse_class(where, what)
  failure.raise("%s: %s within a class of characters is not supported", where, what)
end

-- \p{Name} or \P{Name}: that of a script has the characters of this script alone, and not those
-- that several scripts share, as in PCRE2. Outside of classes a negated one becomes a class: in
-- PCRE2 10.42 \P{L}+\P{N} does not match "1.", as if no character were in both.
local function property(reader, letter, name)
  local negation, bare = name:match "^(%^?)%s*(.-)%s*$"
  local is_negated = (letter == "P") ~= (negation == "^")
  if not bare:find "^%a%a?$" and reader.is_script(bare) then bare = "sc:" .. bare end
  if reader.depth > 0 then return ("\\%s{%s}"):format(is_negated and "P" or "p", bare) end
  return (is_negated and "[^\\p{%s}]" or "\\p{%s}"):format(bare)
end

-- An escape at `at`: what it becomes, and the position after it.
local function escape(reader, at)
  local source, in_class = reader.source, reader.depth > 0
  local letter = source:sub(at + 1, at + 1)
  if in_class and (letter == "W" or letter == "H") then
    refuse_class(reader.where, "\\" .. letter)
  end
  if letter == "p" or letter == "P" then
    local name = source:match("^{([^}]*)}", at + 2)
    if not name then
      failure.raise("%s: \\%s: expected a name in braces after it", reader.where, letter)
    end
    return property(reader, letter, name), at + 4 + #name
  end
  return (in_class and escapes_in_class or escapes)[letter] or "\\" .. letter, at + 2
end

-- The same within a class of characters. A class within a class adds its characters; one that is
-- negated, and intersections, PCRE2 cannot express.
local function in_class(reader, at)
  local source, where = reader.source, reader.where
  local c = source:sub(at, at)
  local negation, name = source:match("^%[:(%^?)(%a+):%]", at)
  local was_bracket = reader.after_bracket
  reader.after_bracket = false
  if name then
    local set = posix[name] and posix[name][negation == "" and 1 or 2]
    if not set then refuse_class(where, ("[:%s%s:]"):format(negation, name)) end
    return set, at + #negation + #name + 4
  elseif c == "[" then
    if source:sub(at + 1, at + 1) == "^" then refuse_class(where, "a negated class") end
    reader.depth, reader.after_bracket = reader.depth + 1, true
    local first = source:sub(at + 1, at + 1) == "]" and "\\]" or ""
    return first, at + 1 + #first // 2
  elseif c == "]" then
    reader.depth, reader.after_bracket = reader.depth - 1, true
    return reader.depth == 0 and "]" or "", at + 1
  elseif c == "&" and source:sub(at + 1, at + 1) == "&" then
    refuse_class(where, "an intersection")
  elseif c == "-" and source:sub(at + 1, at + 1) == "[" then
    refuse_class(where, "a range up to a class")
  elseif c == "-" and (was_bracket or source:sub(at + 1, at + 1) == "]") then
    return "\\-", at + 1 -- no range
  end
  return c, at + 1
end

-- A repetition such as {2,3}, and the position after it; nil: none. In Ruby's syntax + after it
-- repeats all of it once more, and ? after {n} makes it optional.
local function repetition(reader, at)
  local low, comma, high = reader.source:match("^{(%d*)(,?)(%d*)}", at)
  if not low or low == "" and high == "" then return nil end
  local stop = at + 2 + #low + #comma + #high
  local after = reader.source:sub(stop, stop)
  if low == "" then low = "0" end
  local reaches_all = low == "1" or comma ~= "" and (low == "0" or high == "")
  if after == "+" and reaches_all then
    return ("{%s,}"):format(low), stop + 1
  elseif after == "+" or after == "?" and comma == "" then
    failure.raise("%s: %s after %s is not supported", reader.where, after,
      reader.source:sub(at, stop - 1))
  end
  return ("{%s%s%s}"):format(low, comma, high), stop
end

-- The same outside of classes. In Ruby's syntax the option m lets the dot match line feeds.
local function outside(reader, at)
  local source = reader.source
  local c = source:sub(at, at)
  if c == "[" then
    -- A bracket that closes right after the opening one is a plain character.
    local start = source:match("^%[%^?%]?", at)
    reader.depth, reader.after_bracket = 1, start:sub(-1) ~= "]"
    return start, at + #start
  end
  local flags = c == "(" and source:match("^%(%?([imx%-]+)[:)]", at)
  if flags then return "(?" .. flags:gsub("m", "s"), at + 2 + #flags end
  local repeated, stop = repetition(reader, at)
  if repeated then return repeated, stop end
  return c, at + 1
end

--- The expression as PCRE2 has it; raises a failure for what it cannot express.
---@param source string
---@param where string the field, for messages
---@param is_script fun(name: string): boolean whether PCRE2 knows a script of that name
---@return string
function oniguruma.translate(source, where, is_script)
  local reader = {source = source, where = where, is_script = is_script, depth = 0}
  local out, at = {}, 1
  while at <= #source do
    local read = reader.depth > 0 and in_class or outside
    if source:sub(at, at) == "\\" then
      read, reader.after_bracket = escape, false
    end
    out[#out + 1], at = read(reader, at)
  end
  return table.concat(out)
end

return oniguruma
