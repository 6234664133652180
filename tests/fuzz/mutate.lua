--- What the fuzzers share: seeded draws, absurd values, and mutations of bytes and of trees that
--- came from JSON. math.randomseed decides everything.
local json = require "attune.util.json"

local mutate = {}
local random = math.random

function mutate.pick(list) return list[random(#list)] end

function mutate.chance(p) return random() < p end

--- A value nested in n lists.
function mutate.nested(n)
  local value = json.list()
  for _ = 1, n do value = json.list {value} end
  return value
end

--- The absurd values; `more` are the ones of one kind of file.
function mutate.absurd(more)
  local list = {
    function() return json.null end,
    function() return mutate.chance(0.5) end,
    function() return mutate.pick {0, -1, 1, 2, 7, 1 << 31, 1 << 32, 1 << 62} end,
    function() return mutate.pick {math.mininteger, math.maxinteger} end,
    function() return mutate.pick {0.5, -0.0, 1e308, -1e308, 5e-324, 1e15 + 0.5, 2.0 ^ 63} end,
    function() return mutate.pick {"", " ", "0", "nan", "inf", "-inf", "1e999", "0x7f"} end,
    function() return ("x"):rep(mutate.pick {200, 5000, 100000}) end,
    function() return mutate.pick {"%1000000000f", "%s%s%s%n", "%", "%%", "%5$s"} end,
    function() return mutate.pick {"a\0b", "\27[2J\27]0;owned\7", "line\nline\r\tline", "\127"} end,
    function() return mutate.pick {"\u{202e}reversed", "\u{9b}31m", "字幕", "\255\254", "é"} end,
    function() return mutate.pick {"<script>alert(1)</script>", "\"><img src=x>", "]]>", "|`*"} end,
    function() return mutate.pick {"../../outside/victim", "/etc/passwd", "a/b", ".", ".."} end,
    function() return json.list() end,
    function() return {} end,
    function() return json.list {json.list(), 1, "x", json.null} end,
    function() return {x = {y = {z = 1}}} end,
    function() return mutate.nested(mutate.pick {5, 50, 190}) end,
    function()
      local long, x = json.list(), mutate.pick {1, "x", 0.5}
      for i = 1, mutate.pick {1000, 20000} do long[i] = x end
      return long
    end,
  }
  for _, f in ipairs(more or {}) do
    list[#list + 1] = f
    list[#list + 1] = f -- twice as often
  end
  return list
end

-- Every slot of a tree as {container, key}.
local function slots(tree, found)
  found = found or {}
  for k, v in pairs(tree) do
    found[#found + 1] = {tree, k}
    if type(v) == "table" then slots(v, found) end
  end
  return found
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local out = setmetatable({}, getmetatable(value))
  for k, v in pairs(value) do out[k] = copy(v) end
  return out
end
mutate.copy = copy

-- pairs has no order that a seed decides, so that slots are sorted by their text.
local function sorted_slots(tree)
  local found = slots(tree)
  local texts = {}
  for _, slot in ipairs(found) do
    local value = slot[1][slot[2]]
    local kind = type(value) == "table" and "table" or tostring(value)
    texts[slot] = ("%s %s"):format(tostring(slot[2]), kind)
  end
  table.sort(found, function(a, b) return texts[a] < texts[b] end)
  return found
end

--- Changes one slot of a tree that came from JSON.
function mutate.tree(tree, absurd)
  local found = sorted_slots(tree)
  if #found == 0 then return end
  local slot = mutate.pick(found)
  local container, key = slot[1], slot[2]
  local way = random(8)
  if way <= 4 then
    container[key] = mutate.pick(absurd)()
  elseif way == 5 then
    if type(key) == "number" then table.remove(container, key) else container[key] = nil end
  elseif way == 6 then
    local other = mutate.pick(found)
    container[key] = copy(other[1][other[2]])
  elseif way == 7 and type(key) == "string" then
    local name = mutate.pick(absurd)()
    name = type(name) == "string" and not name:find "\0" and name or "renamed"
    container[name], container[key] = container[key], nil
  else
    local value = container[key]
    if type(key) == "number" then
      for _ = 1, mutate.pick {1, 3, 500} do table.insert(container, key, copy(value)) end
    else
      container[key .. "2"] = copy(value)
    end
  end
end

--- The text with one to five bytes, or one piece, changed.
function mutate.bytes(text)
  for _ = 1, random(5) do
    if text == "" then return text end
    local at, way = random(#text), random(7)
    if way == 1 then
      text = text:sub(1, at - 1) .. string.char(random(0, 255)) .. text:sub(at + 1)
    elseif way == 2 then
      text = text:sub(1, at - 1) .. text:sub(at + random(10))
    elseif way == 3 then
      text = text:sub(1, at) .. mutate.pick {"\0", "\"", "}", "[", "{", ",", "\n", "1e9", "\\u0000"}
        .. text:sub(at + 1)
    elseif way == 4 then
      text = text:sub(1, at - 1) -- cut short
    elseif way == 5 then
      local piece = text:sub(at, at + random(100))
      text = text:sub(1, at) .. piece:rep(mutate.pick {1, 2, 50}) .. text:sub(at + 1)
    elseif way == 6 then
      text = text:sub(1, at - 1) .. string.char(text:byte(at) ~ (1 << random(0, 7)))
        .. text:sub(at + 1)
    else
      local n = mutate.pick {10, 1000, 100000}
      text = text:sub(1, at) .. mutate.pick {"[", "{\"a\":", " ", "9", "x"}:rep(n)
        .. text:sub(at + 1)
    end
  end
  return text
end

return mutate
