--- Tracing: runs a score or a mask function once with traced values in place of numbers, checks
--- what it did with them, and makes a graph of it.
local core = require "attune.core"
local graph = require "attune.program.graph"
local recording = require "attune.program.recording"
local traced = require "attune.program.traced"
local upvalues = require "attune.program.upvalues"

local fail = recording.fail

local trace = {}

-- What an error of Lua means here.
local function explain(message)
  if message:find("'for'", 1, true) and message:find("got traced value", 1, true) then
    return "a loop cannot run to a traced value; loop over numbers"
  end
  if message:find("attempt to yield", 1, true) then
    return "a score or mask function cannot yield: it runs once, while it is traced"
  end
  if message:find("stack overflow", 1, true) then
    return "stack overflow: the function calls itself without an end that numbers decide"
  end
  if message:find("number expected, got traced value", 1, true)
    or message:find("number expected, got table", 1, true) then
    local name = message:match "to '([%w_%.]+)'" or "the function"
    if not traced.methods[name] or not math[name] then
      return name .. " takes numbers only; a traced value stands for the values of all pairs"
    end
    return ("math.%s takes numbers only; write the method, as x:%s(%s)"):format(name, name,
      (name == "max" or name == "min") and "y" or "")
  end
  return message
end

-- ---- checks of what the function returns -------------------------------------------------------

local forms = {
  mask = "a comparison, as at.i:ge(at.j)",
  score = "a number or a traced value, as s - slope[at.h] * (at.i - at.j)",
}

local function mask_result(result, form)
  local record = traced.record(result)
  if record and record.kind == "bool" then
    recording.check_owner(record)
    return record
  end
  local got = record and "a number" or traced.describe(result)
  fail("mask: expected the function to return %s, got %s; write x:ne(0)", form, got)
end

local function score_result(result, form)
  local record = traced.record(result)
  if record and record.kind == "bool" then
    fail("score: expected the function to return %s, got a comparison; write c:where(a, b)", form)
  end
  if type(result) == "string" then
    fail("score: expected the function to return %s, got %s", form, traced.describe(result))
  end
  return traced.number(result, "score")
end

-- The record, or the plain number, that the function returned.
local function result_of(kind, result)
  local form = forms[kind]
  if result == nil then
    fail("%s: expected the function to return %s, got nothing", kind, form)
  end
  if type(result) == "boolean" then
    fail("%s: expected the function to return %s, got %s: == and ~= with a number, and `not`, are "
      .. "answered by Lua itself; write x:eq(y)", kind, form, tostring(result))
  end
  local of = kind == "mask" and mask_result or score_result
  return of(result, form)
end

-- The records that a result needs, operands first. None where it is a plain number.
local function records_of(result)
  return graph.order {type(result) == "table" and result or nil}
end

-- Lua does not say that an `if` looked at a value. But then the result does not use the comparison.
local function check_comparisons(kind, result)
  local used = {}
  for _, record in ipairs(records_of(result)) do used[record] = true end
  for _, record in ipairs(recording.current().records) do
    if record.compares and not used[record] then
      recording.fail_at(record, "%s: a comparison is used nowhere in the result: `if`, `and`, `or` "
        .. "and `not` cannot see traced values; write c:where(a, b), and & | ~ between comparisons",
        kind)
    end
  end
end

local function checked_mask(result)
  result_of("mask", result)
  return result
end

--- Calls one of the masks that a mask of the library joins, and checks what it returns.
---@param mask function
trace.call_mask = upvalues.exclude(function(mask, at)
  if not recording.current() then return mask(at) end
  return recording.inside(mask, at, checked_mask)
end)

-- ---- running -----------------------------------------------------------------------------------

local function call(fn, kind)
  local at = traced.new_at()
  if kind == "mask" then return (fn(at)) end
  return (fn(traced.new_score(), at))
end

-- The node of each record. Operands come before what uses them.
local function node_of(record, nodes, g)
  local operands = {}
  for k, operand in ipairs(record) do
    operands[k] = nodes[operand] or g.number(operand)
  end
  g.line = record.line
  if record.op == "read" then return g.read(record.tensor, operands) end
  if #operands == 0 then return g.leaf(record.op) end
  if record.op == "where" then
    local condition, x, y = table.unpack(operands)
    if x.kind ~= y.kind and x.kind ~= "bool" then
      x, y = g.float(x), g.float(y)
    end
    return g.make("where", condition, x, y)
  end
  return g.make(record.op, table.unpack(operands))
end

-- The graph of a result, and its node.
local function graph_of(kind, result)
  local g, nodes = graph.new(), {}
  for _, record in ipairs(records_of(result)) do
    nodes[record] = node_of(record, nodes, g)
  end
  local node = nodes[result] or g.number(result)
  if kind == "score" then node = g.float(node) end
  return g, node
end

--- Runs fn once. Raises an error that names the line. Leaves nothing changed, whatever fn does.
---@param fn function
---@param kind "score"|"mask"
---@return table graph
---@return table node of the result
---@return table globals that fn read: upvalues.watch_globals
function trace.run(fn, kind)
  local this <close> = recording.begin(fn, kind)
  local g, node, globals
  function this.runner()
    globals = upvalues.watch_globals(fn, this.restores)
    local returned = call(fn, kind)
    recording.check()
    local result = result_of(kind, returned)
    check_comparisons(kind, result)
    g, node = graph_of(kind, result)
  end
  local ok, failure = xpcall(core._call, recording.located, this.runner)
  if not ok then
    if type(failure) == "table" then
      failure.message = explain(failure.message)
    else
      failure = explain(failure)
    end
    error(failure, 0)
  end
  return g, node, globals
end

return trace
