--- Traced values: what a score or mask function gets in place of numbers. Each operation on them is
--- recorded, with the line that it is on.
--
-- Lua asks no metamethod at `if`, `and`, `or`, `not`, nor at `==` with a number: trace.lua finds
-- them by comparisons that the result does not use, source_check.lua by a look at the source.
local core = require "attune.core"
local recording = require "attune.program.recording"
local suggest = require "attune.util.suggest"

local fail = recording.fail

local traced = {}

-- A value is an empty table, so that a function cannot change what was recorded: its record is kept
-- here.
local record_of = setmetatable({}, {__mode = "k"})

local Value = {__name = "traced value", __metatable = "traced value"}

local tensor_type = getmetatable(core.zeros {1})

--- Whether a value stands for one of a traced function.
function traced.is_traced(x) return record_of[x] ~= nil end

--- The record of a traced value; nil for anything else.
function traced.record(x) return record_of[x] end

local function new(op, kind, ...)
  local record = recording.add {op = op, kind = kind, ...}
  local value = setmetatable({}, Value)
  record_of[value] = record
  return value
end

local function is_tensor(x) return type(x) == "userdata" and getmetatable(x) == tensor_type end

--- A value in words, for "expected .., got ..".
function traced.describe(x)
  local record = record_of[x]
  if record then
    if record.kind == "bool" then return "a comparison" end
    if record.kind == "part" then return "a tensor that has axes left to index" end
    return "a traced value"
  end
  if is_tensor(x) then
    return "a tensor; read an element, table[at.h], or take a number, table[1]:item()"
  end
  if x == nil then return "nil (what a Lua table gives for a traced value: make it a tensor)" end
  if type(x) == "string" then return ("a string, %q"):format(x:sub(1, 60)) end
  if type(x) == "number" or type(x) == "boolean" then return tostring(x) end
  return "a " .. type(x)
end

local function is_integer_dtype(dtype) return dtype == "i8" or dtype == "i32" or dtype == "i64" end

-- The record of a tensor of one element, read at its only index; nil for other tensors.
local function scalar(tensor)
  local record = {op = "read", tensor = tensor}
  for axis, extent in ipairs(tensor.shape) do
    if extent ~= 1 then return nil end
    record[axis] = 1
  end
  record.kind = is_integer_dtype(tensor.dtype) and "int" or "float"
  return recording.add(record)
end

-- The record of an operand (or itself, where it is a number), and its kind: "int" or "float".
local function number(x, what)
  local record = record_of[x]
  if record then
    recording.check_owner(record)
    if record.kind == "bool" then
      fail("%s: a comparison is no number; write c:where(1, 0)", what)
    end
    if record.kind == "part" then
      fail("%s: the tensor has %d axes and was read with %d; write table[x][y], an index for each "
        .. "axis", what, #record.tensor.shape, #record)
    end
    return record, record.kind
  end
  if math.type(x) == "integer" then return x, "int" end
  if math.type(x) == "float" then return x, "float" end
  if is_tensor(x) then
    local read = scalar(x)
    if read then return read, read.kind end
    if what:find "^%p" then
      fail("%s: arithmetic of a whole tensor and a traced value cannot be traced, got %s", what,
        traced.describe(x))
    end
  end
  fail("%s: expected a number or a traced value, got %s", what, traced.describe(x))
end

--- The record of a number: of a traced one, or of a tensor of one element; a plain number is its
--- own. Raises an error for anything else; what begins the message.
function traced.number(x, what) return (number(x, what)) end

-- The record of a comparison.
local function truth(x, what)
  local record = record_of[x]
  if not record or record.kind ~= "bool" then
    fail("%s joins comparisons, got %s; write x:ne(0) for a number", what, traced.describe(x))
  end
  return record
end

local always_float = {div = true, pow = true}

local function arithmetic(op, symbol)
  return function(x, y)
    local a, kind_a = number(x, symbol)
    local b, kind_b = number(y, symbol)
    local is_int = kind_a == "int" and kind_b == "int" and not always_float[op]
    return new(op, is_int and "int" or "float", a, b)
  end
end

Value.__add = arithmetic("add", "+")
Value.__sub = arithmetic("sub", "-")
Value.__mul = arithmetic("mul", "*")
Value.__div = arithmetic("div", "/")
Value.__idiv = arithmetic("idiv", "//")
Value.__mod = arithmetic("mod", "%")
Value.__pow = arithmetic("pow", "^")

function Value.__unm(x)
  local a, kind = number(x, "-")
  return new("neg", kind, a)
end

local function joining(op, symbol)
  return function(x, y) return new(op, "bool", truth(x, symbol), truth(y, symbol)) end
end

Value.__band = joining("and", "&")
Value.__bor = joining("or", "|")

function Value.__bnot(x) return new("not", "bool", truth(x, "~")) end

-- Operators that Lua would answer with true or false, or that have no meaning here.
local function refused(what, instead)
  return function() fail("%s cannot be traced; write %s", what, instead) end
end

Value.__eq = refused("== between traced values", "x:eq(y), or x:ne(y) for ~=")
Value.__lt = refused("< between values (and math.max or math.min, which need it)",
  "x:lt(y) or x:gt(y), x:max(y) or x:min(y)")
Value.__le = refused("<= between values", "x:le(y), or x:ge(y) for >=")
Value.__concat = refused("..", "numbers only")
Value.__len = refused("#", "#tensor outside")
Value.__call = refused("a call of a traced value", "x:method()")
Value.__bxor = refused("~ between values", "x:ne(y), or (a & ~b) | (~a & b) between comparisons")
Value.__shl = refused("<<", "* 2 ^ n")
Value.__shr = refused(">>", "// 2 ^ n")

function Value.__tostring(x) return ("traced value (%s)"):format(record_of[x].op) end

function Value.__newindex()
  fail "a traced value has no fields to set; a score or mask only computes"
end

-- ---- methods -----------------------------------------------------------------------------------

local methods = {}

local function comparison(op, swap, negate)
  return function(x, y)
    local a, b = number(x, op), number(y, op)
    if swap then
      a, b = b, a
    end
    local value = new(op, "bool", a, b)
    record_of[value].compares = true
    if not negate then return value end
    return new("not", "bool", record_of[value])
  end
end

methods.lt = comparison "lt"
methods.gt = comparison("lt", true)
methods.le = comparison "le"
methods.ge = comparison("le", true)
methods.eq = comparison "eq"
methods.ne = comparison("eq", false, true)

local function of_two(op)
  return function(x, y)
    local a, kind_a = number(x, op)
    local b, kind_b = number(y, op)
    return new(op, kind_a == "int" and kind_b == "int" and "int" or "float", a, b)
  end
end

methods.min = of_two "min"
methods.max = of_two "max"

function methods.clamp(x, low, high) return methods.min(methods.max(x, low), high) end

local function of_one(op, kind)
  return function(x)
    local a, own = number(x, op)
    return new(op, kind or own, a)
  end
end

methods.abs = of_one "abs"
methods.floor = of_one("floor", "int")
for _, op in ipairs {"exp", "log", "sqrt", "tanh", "sigmoid"} do
  methods[op] = of_one(op, "float")
end

local function is_truth(x) return record_of[x] ~= nil and record_of[x].kind == "bool" end

function methods.where(c, x, y)
  local condition = truth(c, "where")
  if is_truth(x) and is_truth(y) then
    return new("where", "bool", condition, record_of[x], record_of[y])
  end
  local a, kind_a = number(x, "where")
  local b, kind_b = number(y, "where")
  return new("where", kind_a == kind_b and kind_a or "float", condition, a, b)
end

traced.methods = methods

local method_names = {}
for name in pairs(methods) do method_names[#method_names + 1] = name end
table.sort(method_names)

-- ---- reads of tensors --------------------------------------------------------------------------

-- tensor[key], where the key is traced or `tensor` is a tensor with axes left to index.
local function read(tensor, key)
  local part = record_of[tensor]
  local indices = {}
  if part then
    tensor = part.tensor
    table.move(part, 1, #part, 1, indices)
  end
  local index, kind = number(key, "index")
  if kind ~= "int" and not (math.type(key) == "float" and math.tointeger(key)) then
    fail("index: expected an integer, got a fraction; write x:floor() or a // b")
  end
  indices[#indices + 1] = index
  local axis, extent = #indices, tensor.shape[#indices]
  if type(index) == "number" and (index < 1 or index > extent) then
    fail("index: expected from 1 to %d on axis %d of the tensor, got %s", extent, axis, index)
  end
  local complete = is_integer_dtype(tensor.dtype) and "int" or "float"
  local value = new("read", axis < #tensor.shape and "part" or complete, table.unpack(indices))
  record_of[value].tensor = tensor
  return value
end

core._hook("read", read)

core._hook("write", function()
  fail("a write to a tensor, as in out[at.i] = s, cannot be traced: a score or mask function "
    .. "computes the value of one pair; write return s")
end)

function Value.__index(x, key)
  if record_of[x].kind == "part" and type(key) ~= "string" then return read(x, key) end
  if methods[key] then return methods[key] end
  if type(key) ~= "string" then
    fail("a traced number cannot be indexed; an index for each axis of the tensor has been given "
      .. "already")
  end
  fail("unknown method '%s' of a traced value; %s", key, suggest(key, method_names))
end

-- ---- arguments of the function -----------------------------------------------------------------

traced.at_fields = {b = "batch", h = "head", kv = "kv_head", i = "query", j = "key"}

--- The argument `at` of a score or mask function.
function traced.new_at()
  local fields = {}
  return setmetatable({}, {
    __index = function(_, key)
      local op = traced.at_fields[key]
      if not op then
        local name = type(key) == "string" and ("'%s'"):format(key) or "of type " .. type(key)
        local near = suggest(type(key) == "string" and key or "none", {"b", "h", "i", "j", "kv"})
        fail("unknown field %s of at; %s", name, near)
      end
      fields[key] = fields[key] or new(op, "int")
      return fields[key]
    end,
    __newindex = function() fail "at has no fields to set" end,
  })
end

--- The argument `s` of a score function.
function traced.new_score() return new("score", "float") end

return traced
