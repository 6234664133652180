--- Programs: score and mask functions, traced once. `attune.program(fn)` shows what became of one.
local core = require "attune.core"
local graph = require "attune.program.graph"
local trace = require "attune.program.trace"

local program = {}

---@class attune.Program
local Program = {}
Program.__index = Program
Program.__name = "attune.program"

local number_of = {}
for n, op in ipairs(graph.operations) do number_of[op] = n - 1 end

-- Instructions as the core takes them: {op, line, integer, number, tensor, operands ..}.
local function lower(g, kind, result)
  local slope, reads, derivatives = nil, {}, {}
  local roots = {} -- the result last: it is then written where it is wanted
  if kind == "score" then
    slope, reads, derivatives = graph.derive(g, result)
    roots[#roots + 1] = slope
    for k, read in ipairs(reads) do
      roots[#roots + 1] = read
      roots[#roots + 1] = derivatives[k]
    end
  end
  roots[#roots + 1] = result
  local order, place, code = graph.order(roots), {}, {}
  for n, node in ipairs(order) do
    place[node] = n - 1
    local row = {number_of[node.op], node.line, node.kind == "int" and 1 or 0, node.number or 0, node.tensor and g.tensor_number[node.tensor] - 1 or 0}
    for _, operand in ipairs(node) do row[#row + 1] = place[operand] end
    code[n] = row
  end
  local outputs = {result = place[result], slope = slope and place[slope] or -1, read = {}, adjoint = {}}
  for k, read in ipairs(reads) do outputs.read[k], outputs.adjoint[k] = place[read], place[derivatives[k]] end
  return code, outputs
end

-- ---- noticing changes ----------------------------------------------------------------------------------------------

-- What a function computes with beside its arguments: its upvalues, those of functions among them, what tables among them hold.
local function prints(fn, globals, visit)
  local seen = {}
  local function value(x, depth)
    visit(x)
    if type(x) == "function" and not seen[x] and x ~= trace.part then
      seen[x] = true
      for n = 1, 255 do
        local name, y = debug.getupvalue(x, n)
        if not name then break end
        if name ~= "_ENV" then value(y, depth + 1) end
      end
    elseif type(x) == "table" and not seen[x] and depth < 4 and not rawequal(x, core) and not rawequal(x, _G) and not trace.is_traced(x) then
      seen[x] = true
      if getmetatable(x) ~= Program then
        for key, y in next, x do
          visit(key)
          value(y, depth + 1)
        end
      end
    end
  end
  value(fn, 0)
  local env = (getmetatable(globals) or {}).env
  for key in pairs(globals) do
    visit(key)
    value(env[key], 1)
  end
end

local function fingerprint(fn, globals)
  local list, n = {}, 0
  prints(fn, globals, function(x)
    n = n + 1
    list[n] = x == nil and program or x
  end)
  list.n = n
  return list
end

local function is_open(tensor) return tensor.dtype ~= nil end

local function unchanged(fn, entry)
  for _, tensor in ipairs(entry.program.tensors) do
    if not pcall(is_open, tensor) then return false end
  end
  local n, same, list = 0, true, entry.fingerprint
  prints(fn, entry.globals, function(x)
    n = n + 1
    local y = list[n]
    if same and not rawequal(y, x == nil and program or x) and (x == x or y == y or type(x) ~= "number" or type(y) ~= "number") then same = false end -- NaN is as NaN was
  end)
  return same and n == list.n
end

local known = {score = setmetatable({}, {__mode = "k"}), mask = setmetatable({}, {__mode = "k"})}

local warned = setmetatable({}, {__mode = "k"})

local function warn_of(fn)
  for _, line in ipairs(trace.suspicious(fn, warned)) do
    local where = line[4] and ("%s:%d"):format(line[4], line[1]) or ("line %d"):format(line[1])
    io.stderr:write(("attune: warning: %s, %s: %s\n"):format(where, line[2], line[3]))
  end
end

--- The compiled program of a function, traced unless it has been and nothing that it uses has changed.
---@param fn function|attune.Program
---@param kind "score"|"mask"
---@return attune.Program
function program.of(fn, kind)
  if getmetatable(fn) == Program then
    if fn.kind ~= kind then error(("%s: expected a %s function, got a program of a %s"):format(kind, kind, fn.kind), 0) end
    return fn
  end
  if type(fn) ~= "function" then error(("%s: expected a function%s, got a %s"):format(kind, kind == "mask" and " (at)" or " (s, at)", type(fn)), 0) end
  if debug.getinfo(fn, "S").what == "C" then error(("%s: expected a Lua function, got one in C, which cannot be traced"):format(kind), 0) end
  local entry = known[kind][fn]
  if entry and unchanged(fn, entry) then return entry.program end
  local g, result, globals = trace.run(fn, kind)
  local code, outputs = lower(g, kind, result)
  local p = setmetatable({kind = kind, graph = g, result = result, tensors = g.tensors, handle = core._program_new(kind, code, g.tensors, outputs)}, Program)
  known[kind][fn] = {program = p, fingerprint = fingerprint(fn, globals), globals = globals}
  warn_of(fn)
  return p
end

local signs = {add = "+", sub = "-", mul = "*", div = "/", idiv = "//", mod = "%", pow = "^", lt = "<", le = "<=", eq = "==", ["and"] = "&", ["or"] = "|"}

--- The program as text: an instruction a line, with what it is computed for: once, a row, a column, a distance, or every pair.
---@return string
function Program:disassemble()
  local order = graph.order {self.result}
  local levels, lines, place = graph.levels(order), {}, {}
  for n, node in ipairs(order) do
    place[node] = "%" .. n
    local operands = {}
    for k, operand in ipairs(node) do operands[k] = operand.op == "number" and ("%.9g"):format(operand.number) or place[operand] end
    local text
    if node.op == "number" then
      text = ("%.9g"):format(node.number)
    elseif node.op == "read" then
      text = ("%s tensor %d [%s]"):format(node.tensor.dtype, self.graph.tensor_number[node.tensor], table.concat(operands, ", "))
    elseif signs[node.op] then
      text = ("%s %s %s"):format(operands[1], signs[node.op], operands[2])
    else
      text = #operands == 0 and node.op or ("%s(%s)"):format(node.op, table.concat(operands, ", "))
    end
    if node.op ~= "number" or node == self.result then lines[#lines + 1] = ("%-5s = %-36s -- %s"):format(place[node], text, levels[node]) end
  end
  lines[#lines + 1] = ("return %s"):format(place[self.result])
  return table.concat(lines, "\n") .. "\n"
end

function Program:__tostring() return ("%s program of %d instructions"):format(self.kind, #graph.order {self.result}) end

-- Raises a message that names no line yet at the given level.
local function raise(message, level)
  local has_line = type(message) ~= "string" or message:find "^[^:]+:%d+: "
  error(message, has_line and 0 or level + 1)
end

--- The core's handle of a function's program. Errors name the line of the caller at the level.
---@param fn function|attune.Program
---@param kind "score"|"mask"
---@param level integer as of `error`
function program.handle_at(fn, kind, level)
  local ok, result = pcall(program.of, fn, kind)
  if not ok then raise(result, level) end
  return result.handle
end

--- Traces fn: of one argument (at) as a mask, of two (s, at), or of one that is called s, as a score.
---@param fn function
---@return attune.Program
function program.new(fn)
  if type(fn) ~= "function" then error(("program: expected a function, got a %s"):format(type(fn)), 2) end
  local info = debug.getinfo(fn, "u")
  local ok, result = pcall(program.of, fn, info.nparams == 1 and debug.getlocal(fn, 1) ~= "s" and "mask" or "score")
  if not ok then raise(result, 2) end
  return result
end

return setmetatable(program, {__call = function(_, fn) return program.new(fn) end})
