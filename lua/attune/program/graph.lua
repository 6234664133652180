--- Programs as graphs: nodes made once each, simplified as they are made, and differentiated.
--
-- A node is {op, operands .., kind = "int" | "float" | "bool", line}. Making the same node twice gives the same one; constants are folded; sums of query and key
-- places that only their difference enters become that difference, so that what depends on it alone is seen to.
local graph = {}

-- As the core numbers them, from 0.
graph.operations = {
  "number", "score", "batch", "head", "kv_head", "query", "key", "distance", "read", "add", "sub", "mul", "div", "idiv", "mod", "pow", "min", "max",
  "lt", "le", "eq", "and", "or", "not", "neg", "abs", "exp", "log", "sqrt", "tanh", "sigmoid", "floor", "where",
}

local function truth(x) return x and 1 or 0 end

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

local integral = {add = true, sub = true, mul = true, idiv = true, mod = true, min = true, max = true, neg = true, abs = true, where = true}

local function kind_of(op, x, y, z)
  if op == "lt" or op == "le" or op == "eq" or op == "and" or op == "or" or op == "not" then return "bool" end
  if op == "floor" then return "int" end
  if op == "where" then return y.kind == z.kind and y.kind or (y.kind == "bool" or z.kind == "bool") and "mixed" or "float" end
  if integral[op] and x.kind == "int" and (not y or y.kind == "int") then return "int" end
  return "float"
end

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
    if math.type(x) == "integer" then return intern("int " .. x, {op = "number", number = x, kind = "int", affine = {0, 0, x}}) end
    return intern(("number %q"):format(x), {op = "number", number = x, kind = "float"})
  end

  --- score, batch, head, kv_head, query, key or distance.
  function g.leaf(op)
    local affine = op == "query" and {1, 0, 0} or op == "key" and {0, 1, 0} or op == "distance" and {1, -1, 0} or nil
    return intern(op, {op = op, kind = op == "score" and "float" or "int", affine = affine})
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
    local node = {op = "read", tensor = tensor, kind = (dtype == "i8" or dtype == "i32" or dtype == "i64") and "int" or "float"}
    for k, index in ipairs(indices) do node[k] = index end
    return intern(table.concat(key, " "), node)
  end

  local function is(node, x) return node.op == "number" and node.number == x end

  -- The node for a query place, a key place and a constant, so many times each.
  local function from_affine(a)
    local query, key, constant = a[1], a[2], a[3]
    if query == 0 and key == 0 then return g.number(constant) end
    local node
    local function times(leaf, n)
      if n == 0 then return end
      local term = n == 1 and leaf or n == -1 and g.raw("neg", leaf) or g.raw("mul", leaf, g.number(n))
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

  local function affine_of(op, x, y)
    local a, b = x.affine, y and y.affine
    if not a then return end
    if op == "neg" then return {-a[1], -a[2], -a[3]} end
    if not b then return end
    if op == "add" then return {a[1] + b[1], a[2] + b[2], a[3] + b[3]} end
    if op == "sub" then return {a[1] - b[1], a[2] - b[2], a[3] - b[3]} end
    if op == "mul" and x.op == "number" then a, b = b, a end
    if op == "mul" and (y.op == "number" or x.op == "number") then return {a[1] * b[3], a[2] * b[3], a[3] * b[3]} end
  end

  --- The node as it is.
  function g.raw(op, x, y, z)
    local key = op .. " " .. x.id .. (y and " " .. y.id or "") .. (z and " " .. z.id or "")
    return intern(key, {op = op, x, y, z, kind = kind_of(op, x, y, z)})
  end

  local function simplified(op, x, y, z)
    if op == "add" and is(x, 0) and (y.kind == "float" or x.kind == "int") then return y end
    if (op == "add" or op == "sub") and is(y, 0) and (x.kind == "float" or y.kind == "int") then return x end
    if op == "mul" and is(x, 1) and (y.kind == "float" or x.kind == "int") then return y end
    if op == "mul" and is(y, 1) and (x.kind == "float" or y.kind == "int") then return x end
    if op == "mul" and x.kind == "int" and y.kind == "int" and (is(x, 0) or is(y, 0)) then return g.number(0) end
    if op == "mul" and x.op == "number" and y.op ~= "number" and y.kind == "float" then x, y = y, x end
    if op == "mul" and y.op == "number" and x.op == "mul" and x[2].op == "number" and x.kind == "float" then
      return g.make("mul", x[1], g.number(x[2].number * y.number + 0.0))
    end
    if op == "mul" and y.op == "number" and y.number == -1 and x.kind == "float" then return g.make("neg", x) end
    if op == "div" and is(y, 1) and x.kind == "float" then return x end
    if op == "div" and y.op == "number" and x.kind == "float" and y.number ~= 0 then return g.make("mul", x, g.number(1.0 / y.number)) end
    if op == "pow" and is(y, 1) and x.kind == "float" then return x end
    if op == "pow" and is(y, 2) then return g.make("mul", g.float(x), g.float(x)) end
    if op == "pow" and is(y, 0.5) then return g.make("sqrt", x) end
    if (op == "neg" or op == "not") and x.op == op then return x[1] end
    if (op == "min" or op == "max" or op == "and" or op == "or") and x == y then return x end
    if op == "and" and (is(x, 1) or is(y, 0)) then return y end
    if op == "and" and (is(y, 1) or is(x, 0)) then return x end
    if op == "or" and (is(x, 0) or is(y, 1)) then return y end
    if op == "or" and (is(y, 0) or is(x, 1)) then return x end
    if op == "where" and x.op == "number" and y.kind == z.kind then return x.number ~= 0 and y or z end
    if op == "where" and y == z then return y end
    if op == "floor" and x.kind == "int" then return x end
  end

  --- An operation over nodes, simplified.
  function g.make(op, x, y, z)
    if x.op == "number" and (not y or y.op == "number") and (not z or z.op == "number") then
      local value = fold[op](x.number, y and y.number, z and z.number)
      local kind = kind_of(op, x, y, z)
      if kind == "bool" then return intern("truth " .. value, {op = "number", number = value, kind = "bool"}) end
      if kind == "int" and math.type(value) ~= "integer" then value = math.tointeger(value) or value end
      return g.number(kind == "float" and value + 0.0 or value)
    end
    local simple = simplified(op, x, y, z)
    if simple then return simple end
    local affine = affine_of(op, x, y)
    if affine then return from_affine(affine) end
    -- Places are compared by their difference.
    if (op == "lt" or op == "le" or op == "eq") and x.affine and y.affine then
      local difference = from_affine(affine_of("sub", x, y))
      if difference.op == "number" then return g.make(op, difference, g.number(0)) end
      if difference.affine[1] == -difference.affine[2] then return g.raw(op, difference, g.number(0)) end
    end
    -- Constants stand second, so that they meet.
    if (op == "mul" or op == "add") and x.op == "number" then x, y = y, x end
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

--- The nodes that these need, operands first.
function graph.order(roots)
  local order, seen = {}, {}
  local function visit(node)
    if seen[node] then return end
    seen[node] = true
    for _, operand in ipairs(node) do visit(operand) end
    order[#order + 1] = node
  end
  for _, root in ipairs(roots) do visit(root) end
  return order
end

-- What d of a node's value hands to each operand.
local pull = {
  add = function(_, d) return d, d end,
  sub = function(g, d) return d, g.make("neg", d) end,
  mul = function(g, d, _, x, y) return g.make("mul", d, y), g.make("mul", d, x) end,
  div = function(g, d, n, _, y) return g.make("div", d, y), g.make("neg", g.make("div", g.make("mul", d, n), y)) end,
  mod = function(g, d, _, x, y) return d, g.make("neg", g.make("mul", d, g.make("idiv", x, y))) end,
  pow = function(g, d, n, x, y)
    return g.make("mul", d, g.make("mul", y, g.make("pow", x, g.make("sub", y, g.number(1.0))))), g.make("mul", d, g.make("mul", n, g.make("log", x)))
  end,
  min = function(g, d, _, x, y)
    local zero, c = g.number(0.0), g.make("le", x, y)
    return g.make("where", c, d, zero), g.make("where", c, zero, d)
  end,
  max = function(g, d, _, x, y)
    local zero, c = g.number(0.0), g.make("le", y, x)
    return g.make("where", c, d, zero), g.make("where", c, zero, d)
  end,
  neg = function(g, d) return g.make("neg", d) end,
  abs = function(g, d, _, x)
    local zero = g.number(0.0)
    return g.make("where", g.make("lt", zero, x), d, g.make("where", g.make("lt", x, zero), g.make("neg", d), zero))
  end,
  exp = function(g, d, n) return g.make("mul", d, n) end,
  log = function(g, d, _, x) return g.make("div", d, x) end,
  sqrt = function(g, d, n) return g.make("div", g.make("mul", d, g.number(0.5)), n) end,
  tanh = function(g, d, n) return g.make("mul", d, g.make("sub", g.number(1.0), g.make("mul", n, n))) end,
  sigmoid = function(g, d, n) return g.make("mul", d, g.make("mul", n, g.make("sub", g.number(1.0), n))) end,
  where = function(g, d, _, c)
    local zero = g.number(0.0)
    return nil, g.make("where", c, d, zero), g.make("where", c, zero, d)
  end,
}

--- Derivatives of a node by the score and by each value read from a float tensor: slope, {read nodes}, {their derivatives}. What the result does not depend on is zero, and
-- reads with a derivative of zero are left out.
function graph.derive(g, result)
  local order, adjoint = graph.order {result}, {[result] = g.number(1.0)}
  local slope, reads, derivatives = g.number(0.0), {}, {}
  for k = #order, 1, -1 do
    local node = order[k]
    local d = adjoint[node]
    if d and node.kind == "float" then
      if node.op == "score" then
        slope = d
      elseif node.op == "read" then
        table.insert(reads, 1, node)
        table.insert(derivatives, 1, d)
      elseif pull[node.op] then
        local given = {pull[node.op](g, d, node, node[1], node[2])}
        for n, operand in ipairs(node) do
          local part = given[n]
          if part and operand.kind == "float" and not (part.op == "number" and part.number == 0) then
            adjoint[operand] = adjoint[operand] and g.make("add", adjoint[operand], part) or part
          end
        end
      end
    end
  end
  return slope, reads, derivatives
end

local depends = {score = 32, batch = 1, head = 2, kv_head = 2, query = 4, key = 8, distance = 16}

--- "constant", "row", "column", "distance" or "pair", and whether head and batch row matter: where an ordered list's values are computed.
function graph.levels(order)
  local bits, names = {}, {}
  for _, node in ipairs(order) do
    local own = depends[node.op] or 0
    for _, operand in ipairs(node) do own = own | bits[operand] end
    bits[node] = own
    local along = own & 60
    local name = along == 4 and "row" or along == 8 and "column" or along == 16 and "distance" or along ~= 0 and "pair" or own == 0 and "constant" or nil
    local parts = {name}
    if name ~= "pair" and own & 2 ~= 0 then parts[#parts + 1] = "head" end
    if name ~= "pair" and own & 1 ~= 0 then parts[#parts + 1] = "batch" end
    names[node] = table.concat(parts, ", ")
  end
  return names
end

return graph
