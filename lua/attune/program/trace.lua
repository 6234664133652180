--- Running a score or a mask function once with traced values instead of numbers, to learn what it computes.
--
-- A traced value remembers the operation that made it and the line it stands on. What Lua gives no hook for (`if`, `and`, `==` with a number) cannot be seen; it is found
-- out afterwards, by comparisons that the result does not use, or by a look at the source.
local core = require "attune.core"
local suggest = require "attune.util.suggest"
local graph = require "attune.program.graph"

local trace = {}

local Value = {__name = "traced value"}
local recording -- {values = {..}, runner =, own = {file, line} or nil} while a function runs

local tensor_type = getmetatable(core.zeros {1})

local function is_traced(x) return getmetatable(x) == Value end
trace.is_traced = is_traced

-- The folder of the library, which holds this file's folder.
local here = debug.getinfo(1, "S").source:match "^(@.*/)[^/]*/[^/]*$" or "@attune/"

local function is_library(info) return info.source:sub(1, #here) == here end

-- Where a function begins; nil for the library's own.
local function beginning(fn)
  local info = debug.getinfo(fn, "S")
  if not is_library(info) then return {info.short_src, math.max(info.linedefined, 1)} end
end

-- The file and the line that run now: of the innermost function that is not the library's, or where the user's function began that has returned, or made a tail call;
-- nil where only the library runs.
local function place_now()
  for level = 3, math.huge do
    local info = debug.getinfo(level, "Slf")
    if not info or info.func == recording.runner then break end
    if info.currentline > 0 and not is_library(info) then return info.short_src, info.currentline end
  end
  if recording.own then return recording.own[1], recording.own[2] end
end

-- Who asked for the trace, where the function is the library's.
local function asked_from()
  for level = 3, math.huge do
    local info = debug.getinfo(level, "Sl")
    if not info then return "attune", 0 end
    if info.currentline > 0 and not is_library(info) then return info.short_src, info.currentline end
  end
end

local kept = "a traced value was kept and used after its function had returned"

local function fail(message, ...)
  if not recording then error(kept, 3) end
  local failure = {traced = true, message = message:format(...)}
  failure.file, failure.line = place_now()
  recording.failure = recording.failure or failure -- a pcall in the function does not hide it
  error(failure, 0)
end

local function new(op, ...)
  if not recording then error(kept, 3) end
  local value = setmetatable({op = op, ...}, Value)
  local file, line = place_now()
  rawset(value, "file", file)
  rawset(value, "line", line or 0)
  recording.values[#recording.values + 1] = value
  return value
end

local kinds = {} -- of traced values: "int", "float", "bool", "part" (a tensor not yet read to the end)
setmetatable(kinds, {__mode = "k"})

local function describe(x)
  if is_traced(x) then
    local kind = kinds[x]
    return kind == "bool" and "a comparison" or kind == "part" and "a tensor that has axes left to index" or "a traced value"
  end
  if getmetatable(x) == tensor_type then return "a tensor; read an element, table[at.h], or take a number, table[1]:item()" end
  return type(x) == "string" and ("%q"):format(x) or type(x) == "number" and tostring(x) or x == nil and "nil (what a Lua table gives for a traced value: make it a tensor)" or "a " .. type(x)
end

local function number_kind(x, what)
  if is_traced(x) then
    local kind = kinds[x]
    if kind == "bool" then fail("%s: a comparison is no number; write c:where(1, 0)", what) end
    if kind == "part" then
      fail("%s: the tensor %s has %d axes and was read with %d; write table[x][y], an index for each axis", what, "that was read", #x.tensor.shape, #x.indices)
    end
    return kind
  end
  if math.type(x) == "integer" then return "int" end
  if math.type(x) == "float" then return "float" end
  fail("%s: expected a number or a traced value, got %s", what, describe(x))
end

local function truth_kind(x, what)
  if is_traced(x) and kinds[x] == "bool" then return "bool" end
  fail("%s joins comparisons, got %s; write x:ne(0) for a number", what, describe(x))
end

local function arithmetic(op, symbol)
  return function(x, y)
    local a, b = number_kind(x, symbol), number_kind(y, symbol)
    local value = new(op, x, y)
    kinds[value] = (op == "div" or op == "pow" or a == "float" or b == "float") and "float" or "int"
    return value
  end
end

Value.__add, Value.__sub, Value.__mul = arithmetic("add", "+"), arithmetic("sub", "-"), arithmetic("mul", "*")
Value.__div, Value.__idiv, Value.__mod, Value.__pow = arithmetic("div", "/"), arithmetic("idiv", "//"), arithmetic("mod", "%"), arithmetic("pow", "^")

function Value.__unm(x)
  local kind = number_kind(x, "-")
  local value = new("neg", x)
  kinds[value] = kind
  return value
end

local function joining(op, symbol)
  return function(x, y)
    truth_kind(x, symbol)
    truth_kind(y, symbol)
    local value = new(op, x, y)
    kinds[value] = "bool"
    return value
  end
end
Value.__band, Value.__bor = joining("and", "&"), joining("or", "|")

function Value.__bnot(x)
  truth_kind(x, "~")
  local value = new("not", x)
  kinds[value] = "bool"
  return value
end

-- What Lua would answer with true or false, or not at all.
local function refused(what, instead)
  return function() fail("%s cannot be traced; write %s", what, instead) end
end
Value.__eq = refused("== between traced values", "x:eq(y), or x:ne(y) for ~=")
Value.__lt, Value.__le = refused("< between values (and math.max or math.min, which need it)", "x:lt(y) or x:gt(y), x:max(y) or x:min(y)"), refused("<= between values", "x:le(y), or x:ge(y) for >=")
Value.__concat, Value.__len, Value.__call = refused("..", "numbers only"), refused("#", "#tensor outside"), refused("a call of a traced value", "x:method()")
Value.__bxor, Value.__shl, Value.__shr = refused("~ between values", "x:ne(y), or (a & ~b) | (~a & b) between comparisons"), refused("<<", "* 2 ^ n"), refused(">>", "// 2 ^ n")
Value.__tostring = function(x) return ("traced value (%s)"):format(x.op) end
Value.__newindex = function() fail "a traced value has no fields to set; a score or mask only computes" end

local methods = {}

local function comparison(op, swap, negate)
  return function(x, y)
    number_kind(x, op)
    number_kind(y, op)
    local value = new(op, swap and y or x, swap and x or y)
    kinds[value] = "bool"
    rawset(value, "compares", true)
    if not negate then return value end
    local other = new("not", value)
    kinds[other] = "bool"
    return other
  end
end
methods.lt, methods.gt = comparison("lt"), comparison("lt", true)
methods.le, methods.ge = comparison("le"), comparison("le", true)
methods.eq, methods.ne = comparison("eq"), comparison("eq", false, true)

local function two(op)
  return function(x, y)
    local a, b = number_kind(x, op), number_kind(y, op)
    local value = new(op, x, y)
    kinds[value] = a == "int" and b == "int" and "int" or "float"
    return value
  end
end
methods.min, methods.max = two "min", two "max"

function methods.clamp(x, low, high) return methods.min(methods.max(x, low), high) end

local function one(op, kind)
  return function(x)
    local own = number_kind(x, op)
    local value = new(op, x)
    kinds[value] = kind or own
    return value
  end
end
methods.abs, methods.floor = one("abs"), one("floor", "int")
methods.exp, methods.log, methods.sqrt = one("exp", "float"), one("log", "float"), one("sqrt", "float")
methods.tanh, methods.sigmoid = one("tanh", "float"), one("sigmoid", "float")

function methods.where(c, x, y)
  truth_kind(c, "where")
  local a, b
  if is_traced(x) and kinds[x] == "bool" and is_traced(y) and kinds[y] == "bool" then
    a, b = "bool", "bool"
  else
    a, b = number_kind(x, "where"), number_kind(y, "where")
  end
  local value = new("where", c, x, y)
  kinds[value] = a == b and a or "float"
  return value
end

-- Fields of a value; of a part of a tensor, one more index.
local names = {}
for name in pairs(methods) do names[#names + 1] = name end
table.sort(names)

function Value.__index(x, key)
  if kinds[x] == "part" and type(key) ~= "string" then return trace.read(x, key) end
  if methods[key] then return methods[key] end
  if type(key) ~= "string" then fail("a traced number cannot be indexed; an index for each axis of the tensor has been given already") end
  fail("unknown method '%s' of a traced value; %s", key, suggest(key, names))
end

--- tensor[key], where the key is traced or the tensor already a part.
function trace.read(tensor, key)
  local indices = {}
  if is_traced(tensor) then
    for k, index in ipairs(tensor.indices) do indices[k] = index end
    tensor = tensor.tensor
  end
  if not recording then error(kept, 2) end
  local kind = number_kind(key, "index")
  if kind ~= "int" and not (math.type(key) == "float" and math.tointeger(key)) then
    fail("index: expected an integer, got a fraction; write x:floor() or a // b")
  end
  indices[#indices + 1] = key
  local axis, extent = #indices, tensor.shape[#indices]
  if not is_traced(key) and (key < 1 or key > extent) then fail("index: expected from 1 to %d on axis %d of the tensor, got %s", extent, axis, tostring(key)) end
  local value = new("read")
  rawset(value, "tensor", tensor)
  rawset(value, "indices", indices)
  for k, index in ipairs(indices) do rawset(value, k, index) end
  local dtype = tensor.dtype
  kinds[value] = #indices < #tensor.shape and "part" or (dtype == "i8" or dtype == "i32" or dtype == "i64") and "int" or "float"
  return value
end

core._hook("read", trace.read)

-- ---- running ------------------------------------------------------------------------------------------------------

local at_fields = {b = "batch", h = "head", kv = "kv_head", i = "query", j = "key"}

local function new_at()
  local fields = {}
  return setmetatable({}, {
    __index = function(_, key)
      if not at_fields[key] then fail("unknown field '%s' of at; %s", tostring(key), suggest(tostring(key), {"b", "h", "i", "j", "kv"})) end
      if not fields[key] then
        fields[key] = new(at_fields[key])
        kinds[fields[key]] = "int"
      end
      return fields[key]
    end,
    __newindex = function() fail "at has no fields to set" end,
  })
end

-- fn, the functions among its upvalues, theirs, and those in lists that the library's functions hold, as masks.all does.
local function reached(fn)
  local list, seen = {}, {[trace.part] = true}
  local function visit(f)
    if seen[f] then return end
    seen[f] = true
    list[#list + 1] = f
    local info = debug.getinfo(f, "S")
    for n = 1, info.what == "C" and 0 or 255 do
      local name, value = debug.getupvalue(f, n)
      if not name then break end
      if type(value) == "function" then
        visit(value)
      elseif name == "parts" and type(value) == "table" and is_library(info) then
        for _, part in ipairs(value) do visit(part) end
      end
    end
  end
  visit(fn)
  return list
end

-- Reads of globals are noted, so that a changed one is noticed: by fn and by the functions that it reaches.
local function watch_globals(fn)
  local globals, restores, env, watched = {}, {}, nil, nil
  watched = setmetatable({}, {
    __index = function(_, key)
      if key == "_G" then return watched end
      globals[key] = {}
      return env[key]
    end,
    __newindex = function(_, key, x)
      env[key] = x
      globals[key] = {}
    end,
  })
  for _, f in ipairs(reached(fn)) do
    for n = 1, 255 do
      local name, value = debug.getupvalue(f, n)
      if not name then break end
      if name == "_ENV" and type(value) == "table" and not rawequal(value, watched) and (env == nil or rawequal(value, env)) then
        env = value
        debug.setupvalue(f, n, watched)
        restores[#restores + 1] = function() debug.setupvalue(f, n, value) end
      end
    end
  end
  return setmetatable(globals, {env = env}), function()
    for n = #restores, 1, -1 do restores[n]() end
  end
end

-- What Lua's own messages mean here.
local function explain(message)
  if message:find("attempt to yield", 1, true) then return "a score or mask function cannot yield" end
  if message:find("'for'", 1, true) and message:find("got traced value", 1, true) then return "a loop cannot run to a traced value; loop over numbers" end
  if message:find("operand: expected a number, got a table", 1, true) then
    return "arithmetic of a whole tensor and a traced value cannot be traced; read an element, table[at.h], or take a number, table[1]:item()"
  end
  if message:find("number expected, got traced value", 1, true) or message:find("number expected, got table", 1, true) then
    local name = message:match "to '([%w_%.]+)'" or "the function"
    if not methods[name] or not math[name] then return name .. " takes numbers only; a traced value stands for the values of all pairs" end
    return ("math.%s takes numbers only; write the method, as x:%s(%s)"):format(name, name, (name == "max" or name == "min") and "y" or "")
  end
  return message
end

local function nodes_of(value, made, g)
  if not is_traced(value) then return g.number(value) end
  if made[value] then return made[value] end
  local operands = {}
  for k = 1, rawlen(value) do operands[k] = nodes_of(rawget(value, k), made, g) end
  g.line = value.line
  local node
  if value.op == "read" then
    node = g.read(value.tensor, operands)
  elseif #operands == 0 then
    node = g.leaf(value.op)
  elseif value.op == "where" then
    local x, y = operands[2], operands[3]
    if x.kind ~= y.kind and x.kind ~= "bool" then x, y = g.float(x), g.float(y) end
    node = g.make("where", operands[1], x, y)
  else
    node = g.make(value.op, table.unpack(operands))
  end
  made[value] = node
  return node
end

local function check_result(kind, result)
  local form = kind == "mask" and "a comparison, as at.i:ge(at.j)" or "a number or a traced value, as s - slope[at.h] * (at.i - at.j)"
  if result == nil then fail("%s: expected the function to return %s, got nothing", kind, form) end
  if type(result) == "boolean" then
    fail("%s: expected the function to return %s, got %s: == and ~= with a number, and `not`, are answered by Lua itself; write x:eq(y)", kind, form, tostring(result))
  end
  if kind == "mask" then
    if not is_traced(result) or kinds[result] ~= "bool" then
      fail("mask: expected the function to return %s, got %s; write x:ne(0)", form, is_traced(result) and "a number" or describe(result))
    end
  else
    if is_traced(result) and kinds[result] == "bool" then fail("score: expected the function to return %s, got a comparison; write c:where(a, b)", form) end
    number_kind(result, kind)
  end
end

local function reach(value, seen)
  if not is_traced(value) or seen[value] then return end
  seen[value] = true
  for k = 1, rawlen(value) do reach(rawget(value, k), seen) end
end

local function check_comparisons(kind, result)
  local seen = {}
  reach(result, seen)
  for _, value in ipairs(recording.values) do
    if rawget(value, "compares") and not seen[value] then
      error({traced = true, file = value.file, line = value.line, message = ("%s: a comparison is used nowhere in the result: `if`, `and`, `or` and `not` cannot see traced values; "
        .. "write c:where(a, b), and & | ~ between comparisons"):format(kind)}, 0)
    end
  end
end

--- Calls one of the masks that a mask of the library joins, and checks what it returns.
---@param mask function
function trace.part(mask, at)
  if not recording then return mask(at) end
  local outer = recording.own
  recording.own = beginning(mask)
  local seen = mask(at)
  check_result("mask", seen)
  recording.own = outer
  return seen
end

-- The lines of a function's source, where they can be had: all of its file.
local function source_lines(source)
  local lines = {}
  if source:sub(1, 1) == "@" then
    local file = io.open(source:sub(2))
    if not file then return lines end
    for line in file:lines() do lines[#lines + 1] = line end
    file:close()
  elseif source:sub(1, 1) ~= "=" then
    for line in (source .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = line end
  end
  return lines
end

-- Whether code compares a field of at, or the score, with == or ~=. called: their names.
local function compares(code, called)
  code = code:gsub("[=~]=%s*nil%f[^%w_]", "")
  if not code:find "[=~]=" then return false end
  for name in pairs(called.at) do
    for _, form in ipairs {"%f[%w_]" .. name .. "%.(%a+)%s*[=~]=", "[=~]=%s*" .. name .. "%.(%a+)"} do
      local field = code:match(form)
      if field and at_fields[field] then return true end
    end
  end
  for name in pairs(called.score) do
    if code:find("%f[%w_]" .. name .. "%s*[=~]=") or code:find("[=~]=%s*" .. name .. "%f[^%w_]") then return true end
  end
  return false
end

--- Lines where Lua itself may answer what was meant to be traced, in fn and what it reaches: {{line, text, advice, file, or nil for fn's own}, ..}.
---@param fn function
---@param done? table functions that were looked at before; filled
function trace.suspicious(fn, done)
  local found, files, own = {}, {}, debug.getinfo(fn, "S").source
  done = done or {}
  for _, f in ipairs(reached(fn)) do
    local info = debug.getinfo(f, "Su")
    if not done[f] and info.what ~= "C" and not is_library(info) then
      done[f] = true
      files[info.source] = files[info.source] or source_lines(info.source)
      local lines, called = files[info.source], {at = {at = true}, score = {s = true}}
      for n = 1, math.min(info.nparams, 2) do called.at[debug.getlocal(f, n)] = true end
      if rawequal(f, fn) and info.nparams == 2 then called.score[debug.getlocal(f, 1)] = true end
      for n = math.max(info.linedefined, 1), info.what == "main" and #lines or math.min(info.lastlinedefined, #lines) do
        local text = lines[n]
        local code = text:gsub("%-%-.*", ""):gsub('"[^"]*"', '""'):gsub("'[^']*'", "''")
        local advice
        if compares(code, called) then
          advice = "== and ~= on a traced value are answered by Lua itself; write x:eq(y) or x:ne(y)"
        elseif code:find ":[lg][te]%b().*%f[%w_]or%f[^%w_]" or code:find ":eq%b().*%f[%w_]or%f[^%w_]" or code:find ":ne%b().*%f[%w_]or%f[^%w_]" then
          advice = "`or` after a comparison takes the comparison and never what follows; write a | b"
        end
        if advice then found[#found + 1] = {n, (text:gsub("^%s+", "")), advice, info.source ~= own and info.short_src or nil} end
      end
    end
  end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  return found
end

--- Runs fn once. Returns the graph, the result's node and the globals that were read; raises an error that names the line.
---@param fn function
---@param kind "score"|"mask"
function trace.run(fn, kind)
  if recording then fail "a score or mask function was called inside another one's tracing; call it with (s, at) there" end
  local globals, restore = watch_globals(fn)
  recording = {values = {}, own = beginning(fn)}
  local file, line
  local function runner()
    local at = new_at()
    local out
    if kind == "mask" then
      out = core._call(fn, at)
    else
      local s = new "score"
      kinds[s] = "float"
      out = core._call(fn, s, at)
    end
    if recording.failure then error(recording.failure, 0) end
    check_result(kind, out)
    check_comparisons(kind, out)
    return out
  end
  recording.runner = runner
  local ok, result = xpcall(runner, function(e)
    file, line = place_now()
    return e
  end)
  restore()
  recording = nil
  if not ok then
    if type(result) == "table" and result.traced then file, line = result.file, result.line end
    if not file then file, line = asked_from() end
    local where = ("%s:%d"):format(file, line)
    if type(result) == "table" and result.traced then error(("%s: %s"):format(where, result.message), 0) end
    local message = tostring(result)
    local explained = explain(message)
    error(explained == message and message:find("^.-:%d+:") and message or ("%s: %s"):format(where, explained), 0)
  end
  local g = graph.new()
  local node = nodes_of(result, {}, g)
  if kind == "score" then node = g.float(node) end
  return g, node, globals
end

return trace
