--- Derivatives of a program's result by the score and by the values that it reads from tensors, in
--- reverse mode: nodes of the same graph.
local graph = require "attune.program.graph"

-- The derivatives that a node hands to its operands. d: the derivative of the result by the node's
-- value n; x, y: the operands' nodes. The comment is the forward line.
local pull = {}

-- n = x + y
function pull.add(_, d) return d, d end

-- n = x - y
function pull.sub(g, d) return d, g.make("neg", d) end

-- n = x y
function pull.mul(g, d, _, x, y) return g.make("mul", d, y), g.make("mul", d, x) end

-- n = x / y
function pull.div(g, d, n, _, y)
  return g.make("div", d, y), g.make("neg", g.make("div", g.make("mul", d, n), y))
end

-- n = x - floor(x / y) y
function pull.mod(g, d, _, x, y)
  return d, g.make("neg", g.make("mul", d, g.make("idiv", x, y)))
end

-- n = x ^ y
function pull.pow(g, d, n, x, y)
  local power = g.make("pow", x, g.make("sub", y, g.number(1.0)))
  return g.make("mul", d, g.make("mul", y, power)),
    g.make("mul", d, g.make("mul", n, g.make("log", x)))
end

-- n = min(x, y); of equal values the first gets the gradient
function pull.min(g, d, _, x, y)
  local zero, c = g.number(0.0), g.make("le", x, y)
  return g.make("where", c, d, zero), g.make("where", c, zero, d)
end

-- n = max(x, y); of equal values the first gets the gradient
function pull.max(g, d, _, x, y)
  local zero, c = g.number(0.0), g.make("le", y, x)
  return g.make("where", c, d, zero), g.make("where", c, zero, d)
end

-- n = -x
function pull.neg(g, d) return g.make("neg", d) end

-- n = |x|; 0 at 0
function pull.abs(g, d, _, x)
  local zero = g.number(0.0)
  local negative = g.make("where", g.make("lt", x, zero), g.make("neg", d), zero)
  return g.make("where", g.make("lt", zero, x), d, negative)
end

-- n = e^x
function pull.exp(g, d, n) return g.make("mul", d, n) end

-- n = log x
function pull.log(g, d, _, x) return g.make("div", d, x) end

-- n = sqrt x
function pull.sqrt(g, d, n) return g.make("div", g.make("mul", d, g.number(0.5)), n) end

-- n = tanh x
function pull.tanh(g, d, n)
  return g.make("mul", d, g.make("sub", g.number(1.0), g.make("mul", n, n)))
end

-- n = 1 / (1 + e^-x)
function pull.sigmoid(g, d, n)
  return g.make("mul", d, g.make("mul", n, g.make("sub", g.number(1.0), n)))
end

-- n = c where x, else y
function pull.where(g, d, _, c)
  local zero = g.number(0.0)
  return nil, g.make("where", c, d, zero), g.make("where", c, zero, d)
end

local function is_zero(node) return node.op == "number" and node.number == 0 end

-- Adds what a node hands on to the derivatives of its operands.
local function hand_on(g, node, d, derivative_of)
  local given = {pull[node.op](g, d, node, node[1], node[2])}
  for n, operand in ipairs(node) do
    local part, sum = given[n], derivative_of[operand]
    if part and operand.kind == "float" and not is_zero(part) then
      derivative_of[operand] = sum and g.make("add", sum, part) or part
    end
  end
end

--- Differentiates the node `result` by the score and by each value read from a float tensor. Reads
--- that the result does not depend on are left out.
---@return table slope node: the derivative by the score
---@return table[] reads nodes
---@return table[] derivatives one per read
return function(g, result)
  local order, derivative_of = graph.order {result}, {[result] = g.number(1.0)}
  local slope, reads, derivatives = g.number(0.0), {}, {}
  for k = #order, 1, -1 do
    local node = order[k]
    local d = derivative_of[node]
    if d and node.kind == "float" then
      if node.op == "score" then
        slope = d
      elseif node.op == "read" then
        table.insert(reads, 1, node)
        table.insert(derivatives, 1, d)
      elseif pull[node.op] then
        hand_on(g, node, d, derivative_of)
      end
    end
  end
  return slope, reads, derivatives
end
