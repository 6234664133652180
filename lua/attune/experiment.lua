--- Declaring an experiment: what to vary, what to measure, what it claims.
--
--     return require "attune.experiment" {
--       name = "mqa_vs_mha", about = "what it asks",
--       fixed = {heads = 32}, grid = {kv_heads = {32, 8, 1}},
--       trial = function(p, t) return {seconds = t:time(function() .. end)} end,
--     }
local sweep = require "attune.sweep"
local suggest = require "attune.suggest"

---@class attune.Experiment
---@field name string letters, digits, - and _
---@field about? string what it asks, in a sentence
---@field fixed? table<string, any> parameters with one value
---@field grid? table<string, any[]> parameters with several; every combination is a point
---@field where? fun(p: table): boolean keeps the points for which it is true
---@field derived? table<string, fun(p: table): any> parameters that follow from others
---@field order? string[] the parameters' order in tables
---@field quick? table<string, any> what --quick puts in the place of grid's, fixed's, rounds or timeout
---@field metrics? table<string, {unit?: string, better?: "lower"|"higher", about?: string}>
---@field timing? boolean true (the default): never beside another trial
---@field rounds? integer each measures every point once; 3
---@field timeout? number seconds of one trial; 600
---@field memory? number bytes of one trial; no limit
---@field trial fun(p: table, t: attune.Trial): table<string, any>?, string?
---@field plots? table[] docs/plots.md
---@field claims? table[] {text, function(r) return .. end}

local fields = {name = "string", about = "string", fixed = "table", grid = "table", where = "function", derived = "table", order = "table", quick = "table",
  metrics = "table", timing = "boolean", rounds = "number", timeout = "number", memory = "number", trial = "function", plots = "table", claims = "table"}
local metric_fields = {unit = "string", better = "string", about = "string"}

local function keys(t)
  local list = {}
  for k in pairs(t) do list[#list + 1] = k end
  return list
end

local function fail(format, ...) error(("experiment: " .. format):format(...), 0) end

local function check_fields(where, t, known)
  for k, v in pairs(t) do
    if not known[k] then fail("unknown field '%s%s': %s", where, tostring(k), suggest(tostring(k), keys(known))) end
    if type(v) ~= known[k] then fail("%s%s: expected a %s, got a %s", where, k, known[k], type(v)) end
  end
end

local scalar = {number = true, string = true, boolean = true}

local function check_parameters(e)
  local seen = {}
  for _, group in ipairs {"fixed", "grid", "derived"} do
    for name, value in pairs(e[group] or {}) do
      if type(name) ~= "string" or not name:find "^[%a_][%w_]*$" then fail("%s: expected names as keys, got %s", group, tostring(name)) end
      if seen[name] then fail("%s.%s: expected a parameter once, got it in %s too", group, name, seen[name]) end
      if name == "status" then fail("%s.status: expected another name, as the results have a column of that one", group) end
      seen[name] = group
      if group == "fixed" and not scalar[type(value)] then fail("fixed.%s: expected a number, a text or a boolean, got a %s", name, type(value)) end
      if group == "derived" and type(value) ~= "function" then fail("derived.%s: expected a function, got a %s", name, type(value)) end
      if group == "grid" then
        if type(value) ~= "table" or #value == 0 then fail("grid.%s: expected a list of values, got %s", name, type(value) == "table" and "an empty one" or "a " .. type(value)) end
        for _, one in ipairs(value) do
          if not scalar[type(one)] then fail("grid.%s: expected numbers, texts or booleans, got a %s", name, type(one)) end
        end
      end
    end
  end
  for name in pairs(e.quick or {}) do
    if not seen[name] and name ~= "rounds" and name ~= "timeout" then fail("unknown field 'quick.%s': %s", name, suggest(name, keys(seen))) end
    if seen[name] == "derived" then fail("quick.%s: expected a parameter of fixed or grid, got a derived one", name) end
  end
  for _, name in ipairs(e.order or {}) do
    if not seen[name] then fail("unknown parameter '%s' in order: %s", tostring(name), suggest(tostring(name), keys(seen))) end
  end
end

local function check_lists(e)
  for name, metric in pairs(e.metrics or {}) do
    if type(metric) ~= "table" then fail("metrics.%s: expected a table such as {unit = \"s\", better = \"lower\"}, got a %s", tostring(name), type(metric)) end
    check_fields("metrics." .. name .. ".", metric, metric_fields)
    if metric.better and metric.better ~= "lower" and metric.better ~= "higher" then fail("metrics.%s.better: expected 'lower' or 'higher', got '%s'", name, metric.better) end
  end
  for i, plot in ipairs(e.plots or {}) do
    if type(plot) ~= "table" or type(plot.kind) ~= "string" then fail("plots[%d]: expected a table with a kind, got %s", i, type(plot)) end
    require "attune.plot".check(plot, i)
  end
  for i, claim in ipairs(e.claims or {}) do
    if type(claim) ~= "table" or type(claim[1]) ~= "string" or type(claim[2]) ~= "function" then fail("claims[%d]: expected {text, function}", i) end
  end
end

local function check_numbers(e)
  if e.rounds and (math.type(e.rounds) ~= "integer" or e.rounds < 1) then fail("rounds: expected an integer of at least 1, got %s", e.rounds) end
  if e.timeout and not (e.timeout > 0) then fail("timeout: expected seconds above 0, got %s", e.timeout) end
  if e.memory and not (e.memory > 0) then fail("memory: expected bytes above 0, got %s", e.memory) end
end

local experiment = {}

--- Checks a declaration and returns it, marked. Raises about the first thing that is wrong.
---@param e attune.Experiment
---@return attune.Experiment
function experiment.declare(e)
  if type(e) ~= "table" then fail("expected a table of fields, got a %s", type(e)) end
  check_fields("", e, fields)
  if not e.name then fail("name: expected one, got none") end
  if not e.name:find "^[%w_-]+$" then fail("name: expected letters, digits, - and _, got '%s'", e.name) end
  if not e.trial then fail("trial: expected a function, got none") end
  if not e.grid and not e.fixed then fail("grid: expected it or fixed, got neither") end
  check_numbers(e)
  check_parameters(e)
  check_lists(e)
  return setmetatable(e, experiment.type)
end

experiment.type = {__name = "attune.experiment"}

function experiment.is(value) return getmetatable(value) == experiment.type end

--- Loads a script. nil and a message: it cannot be read, has a syntax error, fails, or returns no experiment.
function experiment.load(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read "a"
  file:close()
  if not text then return nil, path .. ": expected a script, got a folder" end
  local chunk, syntax = load(text, "@" .. path, "t")
  if not chunk then return nil, syntax end
  local ok, result = xpcall(chunk, function(m) return type(m) == "string" and m or tostring(m) end)
  if not ok then return nil, (result:find("^" .. path:gsub("%p", "%%%0")) and "" or path .. ": ") .. result end
  if not experiment.is(result) then
    return nil, ("%s: expected a script that returns an experiment (return require \"attune.experiment\" {..}), got %s"):format(path, type(result))
  end
  return result
end

--- The declaration as a run takes it: quick's values in place, and `set`'s on top.
---@param e attune.Experiment
---@param options {quick?: boolean, set?: table<string, any[]>, rounds?: integer}
function experiment.narrowed(e, options)
  local copy = setmetatable({}, experiment.type)
  for k, v in pairs(e) do copy[k] = v end
  copy.fixed, copy.grid = {}, {}
  for k, v in pairs(e.fixed or {}) do copy.fixed[k] = v end
  for k, v in pairs(e.grid or {}) do copy.grid[k] = v end
  local function put(name, values)
    if copy.grid[name] then copy.grid[name] = values
    elseif copy.fixed[name] ~= nil then
      if #values == 1 then copy.fixed[name] = values[1] else copy.fixed[name], copy.grid[name] = nil, values end
    else
      local known = keys(copy.fixed)
      for k in pairs(copy.grid) do known[#known + 1] = k end
      fail("unknown parameter '%s': %s", name, suggest(name, known))
    end
  end
  for name, value in pairs(options.quick and e.quick or {}) do
    if name == "rounds" or name == "timeout" then copy[name] = value
    else put(name, type(value) == "table" and value or {value}) end
  end
  for name, values in pairs(options.set or {}) do put(name, values) end
  copy.rounds = options.rounds or copy.rounds or 3
  copy.timeout = copy.timeout or 600
  copy.timing = copy.timing ~= false
  copy.parameters = sweep.names(copy)
  return copy
end

return setmetatable(experiment, {__call = function(_, e) return experiment.declare(e) end})
