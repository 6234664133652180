--- Regular expressions over UTF-8 (PCRE2, Debian's lua-rex-pcre2), and what splitting a text by one
--- gives.
local failure = require "attune.text.failure"
local oniguruma = require "attune.text.oniguruma"

local pattern = {}

local max_pattern_bytes = 10000

local library, compile_flags, match_flags
local function load_library()
  if library then return end
  local ok, rex = pcall(require, "rex_pcre2")
  if not ok then
    failure.raise("the Lua module rex_pcre2 is missing: install the Debian package lua-rex-pcre2")
  end
  local flags = rex.flags()
  library, match_flags = rex, flags.NO_UTF_CHECK
  compile_flags = flags.UTF | flags.UCP | flags.MULTILINE
end

-- Whether PCRE2 knows a script of that name.
local function is_script(name)
  return name:find "^[%w_ ]+$" ~= nil
    and (pcall(library.new, "\\p{sc:" .. name .. "}", compile_flags))
end

local compiled = {}

--- An expression of Oniguruma, compiled; raises a failure where it cannot be compiled.
---@param source string
---@param where string the field, for messages
function pattern.compile(source, where)
  if compiled[source] then return compiled[source] end
  load_library()
  if #source > max_pattern_bytes then
    failure.raise("%s: expected a pattern of at most %d bytes, got %d", where, max_pattern_bytes,
      #source)
  end
  local translated = oniguruma.translate(source, where, is_script)
  local ok, regex = pcall(library.new, translated, compile_flags)
  if not ok then
    failure.raise("%s: expected a regular expression of PCRE2, got one with an error: %s", where,
      tostring(regex))
  end
  pcall(regex.jit_compile, regex)
  compiled[source] = regex
  return regex
end

--- An expression that matches a text as it is.
function pattern.literal(s, where)
  return pattern.compile((s:gsub("[%p]", "\\%0")), where)
end

-- The first match from `init` on: its first and last byte; nil: there is none.
local function match(regex, s, init)
  local ok, first, last = pcall(regex.find, regex, s, init, match_flags)
  if not ok then
    error("text: a pattern of the file needs too many steps: " .. tostring(first), 0)
  end
  return first, last
end

--- The first match from `init` on that is not empty: its first and last byte; nil: there is none.
--- Raises where the pattern needs more steps than PCRE2 allows.
---@param s string UTF-8
function pattern.find(regex, s, init)
  while init <= #s do
    local first, last = match(regex, s, init)
    if not first then return nil end
    if last >= first then return first, last end
    init = utf8.offset(s, 2, first) or #s + 1
  end
end

--- The parts of a text: matches and what lies between, in order. A match may be empty, as that of a
--- lookahead is, but not where the match before it ends.
---@param s string UTF-8
---@param inverted boolean? what lies between counts as a match
---@return {[1]: integer, [2]: integer, [3]: boolean}[] first byte, last byte, whether it matched
function pattern.parts(regex, s, inverted)
  local list, at, init = {}, 1, 1 -- at: where the last match ends
  local is_first = true
  inverted = inverted or false
  while at <= #s and init <= #s + 1 do
    local first, last = match(regex, s, init)
    if not first then break end
    if last < first and first == at and not is_first then
      init = utf8.offset(s, 2, init) or #s + 2
    else
      if first > at then list[#list + 1] = {at, first - 1, inverted} end
      list[#list + 1] = {first, last, not inverted}
      at, init, is_first = last + 1, last + 1, false
    end
  end
  if at <= #s then list[#list + 1] = {at, #s, inverted} end
  return list
end

-- Joins each match to the part before it (or, on a reversed list, after it).
local function joined(list, join)
  local out, was_match = {}, false
  for _, part in ipairs(list) do
    if part[3] and not was_match and #out > 0 then
      join(out[#out], part)
    else
      out[#out + 1] = {part[1], part[2]}
    end
    was_match = part[3]
  end
  return out
end

local function reversed(list)
  local out = {}
  for i = #list, 1, -1 do out[#out + 1] = list[i] end
  return out
end

local behaviours = {
  isolated = function(list) return list end,
  removed = function(list)
    local out = {}
    for _, part in ipairs(list) do
      if not part[3] then out[#out + 1] = part end
    end
    return out
  end,
  contiguous = function(list)
    local out = {}
    for _, part in ipairs(list) do
      local last = out[#out]
      if last and last[3] == part[3] then
        last[2] = part[2]
      else
        out[#out + 1] = {part[1], part[2], part[3]}
      end
    end
    return out
  end,
  mergedwithprevious = function(list)
    return joined(list, function(last, part) last[2] = part[2] end)
  end,
  mergedwithnext = function(list)
    return reversed(joined(reversed(list), function(last, part) last[1] = part[1] end))
  end,
}

--- The name of a behaviour as `pattern.pieces` takes it; raises a failure for an unknown one.
function pattern.behaviour(name, where)
  local key = type(name) == "string" and name:lower():gsub("[^a-z]", "") or ""
  if not behaviours[key] then
    failure.raise("%s: expected Isolated, Removed, Contiguous, MergedWithPrevious or "
      .. "MergedWithNext, got '%s'", where, tostring(name))
  end
  return key
end

--- The pieces of a text under a behaviour: {first byte, last byte}.
---@param s string UTF-8
---@param behaviour string of `pattern.behaviour`
---@param inverted boolean?
function pattern.pieces(regex, s, behaviour, inverted)
  return behaviours[behaviour](pattern.parts(regex, s, inverted))
end

--- The size of a text that the file's rules make, as they may make it longer again and again.
--- Raises where it is above a limit.
---@param size integer
---@param limit integer
---@return integer size
function pattern.check_size(size, limit)
  if size <= limit then return size end
  error(("text: the file's rules make it longer than %d bytes"):format(limit), 0)
end

--- Replaces every match by a text. The result has at most `limit` bytes.
---@return string
function pattern.replace(regex, s, content, limit)
  local out, size = {}, 0
  for i, part in ipairs(pattern.parts(regex, s)) do
    out[i] = part[3] and content or s:sub(part[1], part[2])
    size = pattern.check_size(size + #out[i], limit)
  end
  return table.concat(out)
end

return pattern
