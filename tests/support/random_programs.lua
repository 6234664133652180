--- Random score and mask functions as source text, over the operators and methods of programs.
local random_programs = {}

-- A small generator of its own, so that a seed gives the same programs everywhere.
local function generator(seed)
  local state = seed
  return function(n)
    state = (state * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
    return (state >> 33) % n + 1
  end
end

--- Source of one function's body. smooth: s goes through nothing that jumps. names: vector [9]
--- floats, grid [3][7] floats, ids [9] integers.
---@return string
function random_programs.score(seed, smooth)
  local pick = generator(seed)
  local int, float, truth
  function int(depth)
    local leaves = {
      "at.i", "at.j", "at.h", "at.b", "at.kv", "(at.i - at.j)", ("(%d + at.i * 0)"):format(pick(5)),
      "(2 - at.j * 0)",
    }
    if depth == 0 then return leaves[pick(#leaves)] end
    local x = function() return int(depth - 1) end
    local forms = {
      function() return ("(%s + %s)"):format(x(), x()) end,
      function() return ("(%s - %s)"):format(x(), x()) end,
      function() return ("(%s * %s)"):format(x(), x()) end,
      function() return ("(%s // %d)"):format(x(), pick(4)) end,
      function() return ("(%s %% %d)"):format(x(), pick(5)) end,
      function() return ("(%s):min(%s)"):format(x(), x()) end,
      function() return ("(%s):max(%s)"):format(x(), x()) end,
      function() return ("(%s):abs()"):format(x()) end,
      function() return ("(-%s)"):format(x()) end,
      function() return ("ids[(%s) %% 9 + 1]"):format(x()) end,
      function() return ("(%s):where(%s, %s)"):format(truth(depth - 1), x(), x()) end,
      function() return ("(%s / 3):floor()"):format(x()) end,
    }
    return forms[pick(#forms)]()
  end
  function truth(depth)
    local name = ({"lt", "le", "gt", "ge", "eq", "ne"})[pick(6)]
    if depth <= 0 or pick(3) > 1 then
      if not smooth and pick(4) == 1 then return ("(%s):lt(%s)"):format(float(0), float(0)) end
      return ("(%s):%s(%s)"):format(int(math.max(depth - 1, 0)), name, int(0))
    end
    local x = function() return truth(depth - 1) end
    local forms = {
      function() return ("(%s & %s)"):format(x(), x()) end,
      function() return ("(%s | %s)"):format(x(), x()) end,
      function() return ("(~%s)"):format(x()) end,
    }
    return forms[pick(#forms)]()
  end
  function float(depth)
    local leaves = {
      "s", "s", "s", "(at.i * 0.25)", "(at.h * 0 + 1.5)", "(at.h * 0 - 0.75)", "vector[at.h]",
      "grid[at.b][at.h]", "(at.i - at.j) * 0.125",
    }
    if depth == 0 then return leaves[pick(#leaves)] end
    local x = function() return float(depth - 1) end
    local forms = {
      function() return ("(%s + %s)"):format(x(), x()) end,
      function() return ("(%s - %s)"):format(x(), x()) end,
      function() return ("(%s * %s)"):format(x(), x()) end,
      function() return ("(%s + %s)"):format(x(), int(depth - 1)) end,
      function() return ("(%s / (1 + (%s):abs()))"):format(x(), x()) end,
      function() return ("(%s / 4)"):format(x()) end,
      function() return ("(%s):tanh()"):format(x()) end,
      function() return ("(%s):sigmoid()"):format(x()) end,
      function() return ("((%s):tanh() * 2):exp()"):format(x()) end,
      function() return ("((%s):abs() + 0.5):log()"):format(x()) end,
      function() return ("((%s):abs() + 0.25):sqrt()"):format(x()) end,
      function() return ("((%s):abs() + 0.5) ^ 1.5"):format(x()) end,
      function() return ("(%s) ^ 2"):format(x()) end,
      function() return ("(-%s)"):format(x()) end,
      function() return ("(%s):where(%s, %s)"):format(truth(depth - 1), x(), x()) end,
      function() return ("vector[(%s) %% 9 + 1]"):format(int(depth - 1)) end,
      function() return ("grid[at.h][(%s) %% 7 + 1]"):format(int(depth - 1)) end,
      function() return ("(%s):clamp(-2, 3)"):format(x()) end,
      function() return ("(%s):max(%s)"):format(x(), x()) end,
      function() return smooth and x() or ("(%s):floor()"):format(x()) end,
      function() return smooth and x() or ("(%s) %% 1.5"):format(x()) end,
      function() return smooth and x() or ("((%s) // 0.5)"):format(x()) end,
    }
    return forms[pick(#forms)]()
  end
  return ("return ((%s) / 8):tanh() * 8"):format(float(1 + pick(3)))
end

--- Source of a mask's body, and of the expression alone.
function random_programs.mask(seed)
  local pick = generator(seed)
  local function int(depth)
    local leaves = {
      "at.i", "at.j", "(at.i - at.j)", "ids[at.i % 9 + 1]", "ids[at.j % 9 + 1]", "at.h",
      ("(%d + at.i * 0)"):format(pick(6)),
    }
    if depth == 0 then return leaves[pick(#leaves)] end
    local forms = {"(%s + %s)", "(%s - %s)", "(%s * %s)", "(%s):max(%s)", "(%s):min(%s)"}
    local fifth = pick(3) == 1 and ("(%s %% %d)"):format(int(depth - 1), 1 + pick(5))
    return fifth or forms[pick(#forms)]:format(int(depth - 1), int(depth - 1))
  end
  local function truth(depth)
    if depth == 0 then
      return ("(%s):%s(%s)"):format(
        int(pick(3) - 1), ({"lt", "le", "gt", "ge", "eq", "ne"})[pick(6)], int(pick(2) - 1)
      )
    end
    local forms = {"(%s & %s)", "(%s | %s)"}
    if pick(4) == 1 then return ("(~%s)"):format(truth(depth - 1)) end
    return forms[pick(#forms)]:format(truth(depth - 1), truth(depth - 1))
  end
  return "return " .. truth(pick(3) - 1)
end

--- The function of a body: over tensors where the environment holds tensors, over lists where it
--- holds lists.
function random_programs.compile(body, arguments, environment)
  local names = {}
  for name in pairs(environment) do names[#names + 1] = name end
  table.sort(names)
  local values = {}
  for n, name in ipairs(names) do values[n] = environment[name] end
  local source = (
    "local %s = ...\nreturn function(%s) %s end"
  ):format(table.concat(names, ", "), arguments, body)
  return assert(load(source, "=" .. body))(table.unpack(values))
end

return random_programs
