--- Programs as graphs: equal nodes are made once, and simplified as they are made.
--
-- A node is {op, operands .., kind = "int" | "float" | "bool", line}. Making the same node twice
-- gives the same one. Constants are folded. Sums of query and key positions that depend only on
-- their difference become the node "distance", so that they can be computed per distance.
local graph = {}

-- In the order of attune_op in core/include/attune/program.h.
graph.operations = {
  "number", "score", "batch", "head", "kv_head", "query", "key", "distance", "read", "add", "sub",
  "mul", "div", "idiv", "mod", "pow", "min", "max", "lt", "le", "eq", "and", "or", "not", "neg",
  "abs", "exp", "log", "sqrt", "tanh", "sigmoid", "floor", "where",
}

local function truth(x) return x and 1 or 0 end

-- The values of operations over constants.
local fold = {
  add = function(x, y) return x + y end,
  sub = function(x, y) return x - y end,
  mul = function(x, y) return x * y end,
  div = function(x, y) return x / y end,
  idiv = function(x, y) return (y ~= 0 or math.type(y) == "float") and x // y or x / y end,
  mod = function(x, y) return (y ~= 0 or math.type(y) == "float") and x % y or 0 / 0 end,
  pow = function(x, y) return x ^ y end,
  min = function(x, y) return math.min(x, y) end,
  max = function(x, y) return math.max(x, y) end,
  lt = function(x, y) return truth(x < y) end,
  le = function(x, y) return truth(x <= y) end,
  eq = function(x, y) return truth(x == y) end,
  ["and"] = function(x, y) return x * y end,
  ["or"] = function(x, y) return math.max(x, y) end,
  ["not"] = function(x) return 1 - x end,
  neg = function(x) return -x end,
  abs = math.abs,
  exp = math.exp,
  log = math.log,
  sqrt = function(x) return x ^ 0.5 end,
  tanh = function(x)
    local e = math.exp(-2 * math.abs(x))
    local t = (1 - e) / (1 + e)
    return x < 0 and -t or t
  end,
  sigmoid = function(x) return 1 / (1 + math.exp(-x)) end,
  floor = function(x) return x // 1 end,
  where = function(c, x, y) return c ~= 0 and x or y end,
}

local function set_of(words)
  local set = {}
  for word in words:gmatch "%S+" do set[word] = true end
  return set
end

local gives_truth = set_of "lt le eq and or not"
local keeps_integers = set_of "add sub mul idiv mod min max neg abs where"
local commutes = set_of "mul add"
local compares = set_of "lt le eq"

local function kind_of(op, x, y, z)
  if gives_truth[op] then return "bool" end
  if op == "floor" then return "int" end
  if op == "where" then
    if y.kind == z.kind then return y.kind end
    return (y.kind == "bool" or z.kind == "bool") and "mixed" or "float"
  end
  if keeps_integers[op] and x.kind == "int" and (not y or y.kind == "int") then return "int" end
  return "float"
end

local function is(node, x) return node.op == "number" and node.number == x end

-- ---- simplification ----------------------------------------------------------------------------

-- The rules of each operation: (g, operands ..) -> the simpler node, or nil. A rule never changes
-- whether a value is an integer.
local simplify = {}

function simplify.add(_, x, y)
  if is(x, 0) and (y.kind == "float" or x.kind == "int") then return y end
  if is(y, 0) and (x.kind == "float" or y.kind == "int") then return x end
end

function simplify.sub(_, x, y)
  if is(y, 0) and (x.kind == "float" or y.kind == "int") then return x end
end

function simplify.mul(g, x, y)
  if is(x, 1) and (y.kind == "float" or x.kind == "int") then return y end
  if is(y, 1) and (x.kind == "float" or y.kind == "int") then return x end
  if x.kind == "int" and y.kind == "int" and (is(x, 0) or is(y, 0)) then return g.number(0) end
  if x.op == "number" and y.op ~= "number" and y.kind == "float" then
    x, y = y, x
  end
  if y.op ~= "number" or x.kind ~= "float" then return nil end
  if x.op == "mul" and x[2].op == "number" then
    return g.make("mul", x[1], g.number(x[2].number * y.number + 0.0))
  end
  if y.number == -1 then return g.make("neg", x) end
end

function simplify.div(g, x, y)
  if y.op ~= "number" or x.kind ~= "float" then return nil end
  if y.number == 1 then return x end
  if y.number ~= 0 then return g.make("mul", x, g.number(1.0 / y.number)) end
end

function simplify.pow(g, x, y)
  if is(y, 1) and x.kind == "float" then return x end
  if is(y, 2) then return g.make("mul", g.float(x), g.float(x)) end
  if is(y, 0.5) then return g.make("sqrt", x) end
end

simplify["and"] = function(_, x, y)
  if x == y or is(y, 1) or is(x, 0) then return x end
  if is(x, 1) or is(y, 0) then return y end
end

simplify["or"] = function(_, x, y)
  if x == y or is(y, 0) or is(x, 1) then return x end
  if is(x, 0) or is(y, 1) then return y end
end

simplify["not"] = function(_, x)
  if x.op == "not" then return x[1] end
end

function simplify.neg(_, x)
  if x.op == "neg" then return x[1] end
end

function simplify.min(_, x, y)
  if x == y then return x end
end

simplify.max = simplify.min

function simplify.floor(_, x)
  if x.kind == "int" then return x end
end

function simplify.where(_, c, x, y)
  if c.op == "number" and x.kind == y.kind then return c.number ~= 0 and x or y end
  if x == y then return x end
end

-- Of a node with affine form {a, b, c}, the value is a query + b key + c. The form of an operation
-- over such nodes; nil where it has none.
local function affine_of(op, x, y)
  local a, b = x.affine, y and y.affine
  if not a then return nil end
  if op == "neg" then return {-a[1], -a[2], -a[3]} end
  if not b then return nil end
  if op == "add" then return {a[1] + b[1], a[2] + b[2], a[3] + b[3]} end
  if op == "sub" then return {a[1] - b[1], a[2] - b[2], a[3] - b[3]} end
  if op ~= "mul" or x.op ~= "number" and y.op ~= "number" then return nil end
  if x.op == "number" then
    a, b = b, a
  end
  return {a[1] * b[3], a[2] * b[3], a[3] * b[3]}
end

-- ---- making nodes ------------------------------------------------------------------------------

--- A graph to make nodes in.
function graph.new()
  local g = {nodes = {}, known = {}, tensors = {}, tensor_number = {}, line = 0}

  local function intern(key, node)
    local known = g.known[key]
    if known then return known end
    node.id = #g.nodes + 1
    node.line = g.line
    g.nodes[node.id] = node
    g.known[key] = node
    return node
  end

  --- A constant. Integers keep their kind.
  function g.number(x)
    if math.type(x) == "integer" then
      return intern("int " .. x, {op = "number", number = x, kind = "int", affine = {0, 0, x}})
    end
    return intern(("number %q"):format(x), {op = "number", number = x, kind = "float"})
  end

  --- score, batch, head, kv_head, query, key or distance.
  function g.leaf(op)
    local forms = {query = {1, 0, 0}, key = {0, 1, 0}, distance = {1, -1, 0}}
    return intern(op, {op = op, kind = op == "score" and "float" or "int", affine = forms[op]})
  end

  --- tensor[indices ..]
  function g.read(tensor, indices)
    if not g.tensor_number[tensor] then
      g.tensors[#g.tensors + 1] = tensor
      g.tensor_number[tensor] = #g.tensors
    end
    local key = {"read", g.tensor_number[tensor]}
    for _, index in ipairs(indices) do key[#key + 1] = index.id end
    local dtype = tensor.dtype
    local is_int = dtype == "i8" or dtype == "i32" or dtype == "i64"
    local node = {op = "read", tensor = tensor, kind = is_int and "int" or "float"}
    table.move(indices, 1, #indices, 1, node)
    return intern(table.concat(key, " "), node)
  end

  --- The node as it is, not simplified.
  function g.raw(op, x, y, z)
    local key = op .. " " .. x.id .. (y and " " .. y.id or "") .. (z and " " .. z.id or "")
    return intern(key, {op = op, x, y, z, kind = kind_of(op, x, y, z)})
  end

  -- The node with an affine form.
  local function from_affine(a)
    local query, key, constant = a[1], a[2], a[3]
    if query == 0 and key == 0 then return g.number(constant) end
    local node
    local function times(leaf, n)
      if n == 0 then return end
      local term = n == 1 and leaf or n == -1 and g.raw("neg", leaf)
        or g.raw("mul", leaf, g.number(n))
      node = node and g.raw("add", node, term) or term
    end
    if query == -key then
      times(g.leaf "distance", query)
    else
      times(g.leaf "query", query)
      times(g.leaf "key", key)
    end
    if constant ~= 0 then node = g.raw("add", node, g.number(constant)) end
    node.affine = a
    return node
  end

  -- The node of an operation over constants.
  local function folded(op, x, y, z)
    local value = fold[op](x.number, y and y.number, z and z.number)
    local kind = kind_of(op, x, y, z)
    if kind == "bool" then
      return intern("truth " .. value, {op = "number", number = value, kind = "bool"})
    end
    if kind == "int" and math.type(value) ~= "integer" then
      value = math.tointeger(value) or value
    end
    return g.number(kind == "float" and value + 0.0 or value)
  end

  -- A comparison of two positions, by their difference; nil where it depends on more.
  local function compared(op, x, y)
    local difference = from_affine(affine_of("sub", x, y))
    if difference.op == "number" then return g.make(op, difference, g.number(0)) end
    if difference.affine[1] == -difference.affine[2] then
      return g.raw(op, difference, g.number(0))
    end
  end

  --- An operation over nodes, simplified.
  function g.make(op, x, y, z)
    if x.op == "number" and (not y or y.op == "number") and (not z or z.op == "number") then
      return folded(op, x, y, z)
    end
    local simple = simplify[op] and simplify[op](g, x, y, z)
    if simple then return simple end
    local affine = affine_of(op, x, y)
    if affine then return from_affine(affine) end
    local comparison = compares[op] and x.affine and y.affine and compared(op, x, y)
    if comparison then return comparison end
    -- Constants stand second, so that equal nodes are found.
    if commutes[op] and x.op == "number" then
      x, y = y, x
    end
    return g.raw(op, x, y, z)
  end

  --- x as a float.
  function g.float(x)
    if x.kind ~= "int" then return x end
    if x.op == "number" then return g.number(x.number + 0.0) end
    return g.raw("mul", x, g.number(1.0))
  end

  return g
end

--- The nodes that the roots need, operands first, each once.
function graph.order(roots)
  local order, visited = {}, {} -- visited: number of operands that were looked at
  for _, root in ipairs(roots) do
    local stack = {}
    if not visited[root] then
      visited[root] = 0
      stack[1] = root
    end
    while #stack > 0 do
      local node = stack[#stack]
      visited[node] = visited[node] + 1
      local operand = node[visited[node]]
      if operand == nil then
        order[#order + 1] = node
        stack[#stack] = nil
      elseif type(operand) == "table" and not visited[operand] then
        visited[operand] = 0
        stack[#stack + 1] = operand
      end
    end
  end
  return order
end

-- Flags: what a value depends on.
local on_batch, on_head, on_query, on_key, on_distance, on_score = 1, 2, 4, 8, 16, 32

local depends = {
  score = on_score, batch = on_batch, head = on_head, kv_head = on_head, query = on_query,
  key = on_key, distance = on_distance,
}

local axes = on_query | on_key | on_distance | on_score
local axis_names = {[0] = "constant", [on_query] = "row", [on_key] = "column"}
axis_names[on_distance] = "distance"

local function level_name(bits)
  local along = bits & axes
  if along ~= 0 and not axis_names[along] then return "pair" end
  local parts = {}
  if bits == 0 or along ~= 0 then parts[1] = axis_names[along] end
  if bits & on_head ~= 0 then parts[#parts + 1] = "head" end
  if bits & on_batch ~= 0 then parts[#parts + 1] = "batch" end
  return table.concat(parts, ", ")
end

--- Along what each node of an ordered list varies: "constant", "row", "column", "distance" or
--- "pair", and "head" and "batch" where its values differ between heads or batch rows.
function graph.levels(order)
  local bits, names = {}, {}
  for _, node in ipairs(order) do
    local own = depends[node.op] or 0
    for _, operand in ipairs(node) do own = own | bits[operand] end
    bits[node] = own
    names[node] = level_name(own)
  end
  return names
end

return graph
