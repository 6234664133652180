--- Programs: score and mask functions, traced once. `attune.program(fn)` shows what became of one.
local core = require "attune.core"
local describe = require "attune.util.options".describe
local refuse_further = require "attune.util.options".refuse_further
local derivatives_of = require "attune.program.derivative"
local graph = require "attune.program.graph"
local recording = require "attune.program.recording"
local source_check = require "attune.program.source_check"
local trace = require "attune.program.trace"
local traced = require "attune.program.traced"
local upvalues = require "attune.program.upvalues"

local program = {}

-- What a program consists of: {kind, graph, result, tensors, handle}. A program is an empty table,
-- so that nothing can change what the core is given.
local content_of = setmetatable({}, {__mode = "k"})

---@class attune.Program
local Program = {__name = "attune.program"}
local methods = {}

-- The content of a program; raises an error for the caller of the method where p is none.
local function check_program(p)
  if content_of[p] then return content_of[p] end
  error(("program: expected a program, got %s"):format(describe(p)), 3)
end

function Program.__index(p, name)
  local content = check_program(p)
  if name == "kind" then return content.kind end
  if name == "tensors" then return {table.unpack(content.tensors)} end
  return methods[name]
end

function Program.__newindex() error("program: a program has no fields to set", 2) end

local number_of = {} -- of operations, as the core counts them, from 0
for n, op in ipairs(graph.operations) do number_of[op] = n - 1 end

-- ---- for the core ------------------------------------------------------------------------------

-- An instruction as the core takes it: {op, line, integer, number, tensor, operands ..}. index_of:
-- the numbers of instructions, from 0.
local function instruction(g, node, index_of)
  local row = {
    number_of[node.op],
    node.line,
    node.kind == "int" and 1 or 0,
    node.number or 0,
    node.tensor and g.tensor_number[node.tensor] - 1 or 0,
  }
  for _, operand in ipairs(node) do row[#row + 1] = index_of[operand] end
  return row
end

-- The instructions of a result and, of a score, of its derivatives; and the numbers of the outputs
-- among them.
local function lower(g, kind, result)
  local slope, reads, derivatives = nil, {}, {}
  local roots = {}
  if kind == "score" then
    slope, reads, derivatives = derivatives_of(g, result)
    roots[1] = slope
    for k, read in ipairs(reads) do
      roots[#roots + 1] = read
      roots[#roots + 1] = derivatives[k]
    end
  end
  roots[#roots + 1] = result -- last, so that its value goes directly where the core wants it
  local order, index_of, code = graph.order(roots), {}, {}
  for n, node in ipairs(order) do
    index_of[node] = n - 1
    code[n] = instruction(g, node, index_of)
  end
  local outputs = {
    result = index_of[result], slope = slope and index_of[slope] or -1, read = {}, adjoint = {},
  }
  for k, read in ipairs(reads) do
    outputs.read[k] = index_of[read]
    outputs.adjoint[k] = index_of[derivatives[k]]
  end
  return code, outputs
end

-- ---- noticing changes --------------------------------------------------------------------------

local function is_not_searched(x)
  return rawequal(x, core) or rawequal(x, _G) or traced.is_traced(x) or content_of[x] ~= nil
end

-- Everything that fn computes with, as a list; `program` stands for nil.
local function fingerprint(fn, globals)
  local list, n = {}, 0
  upvalues.each_dependency(fn, globals, is_not_searched, function(x)
    n = n + 1
    list[n] = x == nil and program or x
  end)
  list.n = n
  return list
end

local function is_nan(x) return type(x) == "number" and x ~= x end

local function is_same(x, y) return rawequal(x, y) or is_nan(x) and is_nan(y) end

local function is_open(handle)
  local _, open = core._kind(handle)
  return open
end

-- Whether nothing that fn computes with has changed since it was traced.
local function is_unchanged(fn, entry)
  local content = content_of[entry.program]
  if not is_open(content.handle) then return false end
  for _, tensor in ipairs(content.tensors) do
    if not is_open(tensor) then return false end
  end
  local n, same, list = 0, true, entry.fingerprint
  upvalues.each_dependency(fn, entry.globals, is_not_searched, function(x)
    n = n + 1
    if x == nil then x = program end
    same = same and is_same(x, list[n])
  end)
  return same and n == list.n
end

-- ---- programs of functions ---------------------------------------------------------------------

-- {program, fingerprint, globals} of functions that were traced.
local known = {score = setmetatable({}, {__mode = "k"}), mask = setmetatable({}, {__mode = "k"})}

local warned = setmetatable({}, {__mode = "k"})

local function warn_of(fn)
  for _, line in ipairs(source_check.suspicious(fn, warned)) do
    local where = line[4] and ("%s:%d"):format(line[4], line[1]) or ("line %d"):format(line[1])
    io.stderr:write(("attune: warning: %s, %s: %s\n"):format(where, line[2], line[3]))
  end
end

local function check_function(fn, kind)
  if type(fn) ~= "function" then
    local arguments = kind == "mask" and "(at)" or "(s, at)"
    error(("%s: expected a function %s, got %s"):format(kind, arguments, describe(fn)), 0)
  end
  if debug.getinfo(fn, "S").what == "C" then
    local message = "%s: expected a Lua function, got one in C, which cannot be traced"
    error(message:format(kind), 0)
  end
end

local function compile(fn, kind)
  local g, result, globals = trace.run(fn, kind)
  local code, outputs = lower(g, kind, result)
  local compiled = setmetatable({}, Program)
  content_of[compiled] = {
    kind = kind,
    graph = g,
    result = result,
    tensors = g.tensors,
    handle = core._program_new(kind, code, g.tensors, outputs),
  }
  known[kind][fn] = {
    program = compiled, fingerprint = fingerprint(fn, globals), globals = globals,
  }
  warn_of(fn)
  return compiled
end

-- The compiled program of a function. The function is traced unless it has been traced and nothing
-- that it uses has changed.
local function program_of(fn, kind)
  local content = content_of[fn]
  if content then
    if content.kind == kind then return fn end
    local message = "%s: expected a %s function, got a program of a %s"
    error(message:format(kind, kind, content.kind), 0)
  end
  check_function(fn, kind)
  local entry = known[kind][fn]
  if entry and is_unchanged(fn, entry) then return entry.program end
  return compile(fn, kind)
end

--- The core's handle of a function's program, and the tensors that it reads, which the caller does
--- not change. Errors name the line of the user's code.
---@param fn function|attune.Program
---@param kind "score"|"mask"
function program.handle(fn, kind)
  local ok, result = xpcall(program_of, recording.located, fn, kind)
  if not ok then recording.raise(result) end
  return content_of[result].handle, content_of[result].tensors
end

-- A function of one argument is a mask, unless the argument is called s. Stripped functions have no
-- names: then what the function does decides.
local function kinds_of(fn)
  local info = debug.getinfo(fn, "u")
  if info.nparams ~= 1 then return {"score"} end
  local name = debug.getlocal(fn, 1)
  if not name then return {"mask", "score"} end
  return {name == "s" and "score" or "mask"}
end

--- Traces fn: of one argument (at) as a mask, of two (s, at), or of one that is called s, as a
--- score.
---@param fn function
---@return attune.Program
function program.new(fn, ...)
  refuse_further("program: expected one function", ...)
  if type(fn) ~= "function" then
    error(("program: expected a function, got %s"):format(describe(fn)), 2)
  end
  local failure
  for _, kind in ipairs(kinds_of(fn)) do
    local ok, result = xpcall(program_of, recording.located, fn, kind)
    if ok then return result end
    failure = failure or result
  end
  recording.raise(failure)
end

-- ---- programs as text --------------------------------------------------------------------------

local signs = {
  add = "+", sub = "-", mul = "*", div = "/", idiv = "//", mod = "%", pow = "^", lt = "<",
  le = "<=", eq = "==", ["and"] = "&", ["or"] = "|",
}

local function number_text(x) return ("%.9g"):format(x) end

-- The right-hand side of an instruction. names: of the nodes before it.
local function instruction_text(g, node, names)
  if node.op == "number" then return number_text(node.number) end
  local operands = {}
  for k, operand in ipairs(node) do
    operands[k] = operand.op == "number" and number_text(operand.number) or names[operand]
  end
  local list = table.concat(operands, ", ")
  if node.op == "read" then
    return ("%s tensor %d [%s]"):format(node.tensor.dtype, g.tensor_number[node.tensor], list)
  end
  if signs[node.op] then return ("%s %s %s"):format(operands[1], signs[node.op], operands[2]) end
  if #operands == 0 then return node.op end
  return ("%s(%s)"):format(node.op, list)
end

--- The program as text: one instruction per line, with the axes along which its value varies:
--- constant, row, column, distance or pair, per head and per batch row.
---@return string
function methods:disassemble()
  local content = check_program(self)
  local order = graph.order {content.result}
  local levels, lines, names = graph.levels(order), {}, {}
  for n, node in ipairs(order) do
    names[node] = "%" .. n
    local text = instruction_text(content.graph, node, names)
    if node.op ~= "number" or node == content.result then
      lines[#lines + 1] = ("%-5s = %-36s -- %s"):format(names[node], text, levels[node])
    end
  end
  lines[#lines + 1] = ("return %s"):format(names[content.result])
  return table.concat(lines, "\n") .. "\n"
end

function Program:__tostring()
  local content = check_program(self)
  return ("%s program of %d instructions"):format(content.kind, #graph.order {content.result})
end

return setmetatable(program, {__call = function(_, ...) return program.new(...) end})
