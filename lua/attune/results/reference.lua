--- Reference values of a script: what a metric is on a named machine, as in ReFrame.
--
--     reference = {["AMD EPYC"] = {decode_seconds = {1.2e-3, 0.1}}}
--
-- The name is part of the processor's name (attune info). 0.1 allows 10% on either side; more in
-- the better direction of the metric is no failure. `where` chooses points, and a metric may have a
-- list of such values:
--     decode_seconds = {{1.2e-3, 0.1, where = {kv_heads = 1}}, {9e-3, 0.1, where = {kv_heads = 8}}}
local suggest = require "attune.util.suggest"
local sorted_keys = require "attune.util.tables".sorted_keys
local text = require "attune.util.text"

local scalar = {number = true, string = true, boolean = true}

-- A value of a condition in words.
local shown
function shown(value)
  if scalar[type(value)] then return text.plain(value) end
  if type(value) ~= "table" then return "a " .. type(value) end
  local parts = {}
  for i, one in ipairs(value) do parts[i] = shown(one) end
  return table.concat(parts, " or ")
end

local reference = {}

-- The list of values of a metric: one is a list of one.
local function values_of(entry)
  return type(entry[1]) == "table" and entry or {entry}
end

local function check_value(where, value)
  if type(value) ~= "table" or type(value[1]) ~= "number" or type(value[2]) ~= "number" then
    local format = "%s: expected {value, tolerance}, such as {1.2e-3, 0.1}, got %s"
    return format:format(where, type(value) == "table" and "another table" or tostring(value))
  end
  if not (value[2] > 0 and value[2] < math.huge) then
    return ("%s: expected a tolerance above 0, such as 0.1, got %s"):format(where, value[2])
  end
  for key in pairs(value) do
    if key ~= 1 and key ~= 2 and key ~= "where" then
      return ("%s: unknown field '%s': %s"):format(where, tostring(key), suggest(tostring(key),
        {"where"}))
    end
  end
  if value.where ~= nil and type(value.where) ~= "table" then
    return ("%s.where: expected a table of parameters, got a %s"):format(where, type(value.where))
  end
end

--- Checks a script's declaration.
---@param declared any
---@return string? message nil when it is right
function reference.check(declared)
  for machine, metrics in pairs(declared) do
    if type(machine) ~= "string" or machine == "" or type(metrics) ~= "table" then
      return 'reference: expected a table such as {["AMD EPYC"] = {seconds = {1.2e-3, 0.1}}}, got '
        .. ("%s = a %s"):format(tostring(machine), type(metrics))
    end
    for metric, entry in pairs(metrics) do
      local where = ("reference['%s'].%s"):format(machine, tostring(metric))
      if type(entry) ~= "table" or entry[1] == nil then return check_value(where, entry) end
      for _, value in ipairs(values_of(entry)) do
        local why = check_value(where, value)
        if why then return why end
      end
    end
  end
end

-- Whether a value is the wanted one, or one of a list.
local function is_wanted(value, wanted)
  if type(wanted) ~= "table" then return value == wanted end
  for _, one in ipairs(wanted) do
    if value == one then return true end
  end
  return false
end

--- Whether a point has these parameters. A list is any of its values, as in the `where` of a plot.
---@param point attune.Point
---@param wanted? table<string, attune.Scalar|attune.Scalar[]>
---@return boolean
function reference.matches(point, wanted)
  for name, value in pairs(wanted or {}) do
    if not is_wanted(point.parameters[name], value) then return false end
  end
  return true
end

local matches = reference.matches

-- The values of a metric that were measured on this machine: those of all rounds, or none.
local function on_machine(value, machine)
  for _, cpu in ipairs(value.cpus or {}) do
    if not cpu:find(machine, 1, true) then return false end
  end
  return #(value.cpus or {}) > 0
end

-- "held", "failed", "undecided", and words for what is better than the reference.
local function verdict_of(value, low, high, better)
  if not value.lo then return "undecided", "one round has no interval" end
  if value.lo >= low and value.hi <= high then return "held" end
  if better == "lower" and value.hi < low or better == "higher" and value.lo > high then
    return "held", "better than the reference"
  end
  local above, below = value.lo > high, value.hi < low
  if above or below then return "failed" end
  if better == "lower" and value.hi <= high or better == "higher" and value.lo >= low then
    return "held"
  end
  return "undecided"
end

local function value_text(value, unit)
  if not value.lo then return text.quantity(value.centre, unit) end
  return ("%s (95%% interval %s to %s)"):format(text.quantity(value.centre, unit),
    text.quantity(value.lo, unit), text.quantity(value.hi, unit))
end

local function point_text(point, results)
  local parts = {}
  for _, name in ipairs(results.varied) do
    parts[#parts + 1] = ("%s %s"):format(name, text.plain(point.parameters[name]))
  end
  return table.concat(parts, ", ")
end

--- A set of parameters in words: "heads 8, kv_heads 1".
---@param wanted table<string, attune.Scalar>
---@return string
function reference.conditions(wanted)
  local parts = {}
  for name, value in pairs(wanted) do parts[#parts + 1] = ("%s %s"):format(name, shown(value)) end
  table.sort(parts)
  return table.concat(parts, ", ")
end

local severity = {held = 1, undecided = 2, failed = 3}

-- The verdict on a reference value that a complete run has nothing for: a condition that no point
-- has, or a metric that no trial returned; nil for any other, such as one whose points are skipped.
local function judge_missing(value, name, metric, results)
  local found, detail = false, nil
  for _, point in ipairs(results.points) do found = found or matches(point, value.where) end
  if not found then
    detail = "where: no point of the script has " .. reference.conditions(value.where or {})
  elseif not metric then
    detail = ("no trial returned the metric '%s'"):format(name)
  end
  return detail and {
    text = "Reference value of " .. text.plain(name), verdict = "failed", detail = detail,
  }
end

-- Whether any value was measured on this machine.
local function is_machine_of(results, machine)
  for _, point in ipairs(results.points) do
    for _, value in pairs(point.metrics) do
      if on_machine(value, machine) then return true end
    end
  end
  return false
end

-- The verdict on one reference value: the worst over its points.
local function judge_value(value, machine, metric, results)
  local tolerance = value[2] * math.abs(value[1])
  local low, high = value[1] - tolerance, value[1] + tolerance
  local worst, count, point_of, words, found = "held", 0, nil, nil, nil
  for _, point in ipairs(results.points) do
    local measured = point.metrics[metric.name]
    if measured and matches(point, value.where) and on_machine(measured, machine) then
      count = count + 1
      local verdict, why = verdict_of(measured, low, high, metric.better)
      if not found or severity[verdict] > severity[worst] then
        worst, point_of, words, found = verdict, point, why, measured
      end
    end
  end
  if count == 0 then return nil end
  local at = count > 1 and (" at %s (%d points)"):format(point_text(point_of, results), count) or ""
  local conditions = reference.conditions(value.where or {})
  return {
    text = ("Reference for %s: %s is %s within %g%%%s"):format(machine, metric.name,
      text.quantity(value[1], metric.unit), 100 * value[2],
      conditions ~= "" and " at " .. conditions or ""),
    verdict = worst,
    detail = value_text(found, metric.unit) .. at .. (words and "; " .. words or ""),
  }
end

-- The metrics that a trial returned, by name.
local function returned_metrics(results)
  local by_name = {}
  for _, metric in ipairs(results.metrics) do
    for _, point in ipairs(results.points) do
      if point.metrics[metric.name] then by_name[metric.name] = metric end
    end
  end
  return by_name
end

-- The metrics with reference values: those of the results in their order, then the others.
local function names_in_order(metrics, declared)
  local list, known = {}, {}
  for _, metric in ipairs(metrics) do
    known[metric.name] = true
    if declared[metric.name] ~= nil then list[#list + 1] = metric.name end
  end
  for _, name in ipairs(sorted_keys(declared)) do
    if not known[name] then list[#list + 1] = name end
  end
  return list
end

--- Judges the reference values that name the processor of these results; others say nothing.
---@param declared table<string, table<string, table>>?
--- In a run of all points, a value that no point can have has failed.
---@param results attune.Results
---@param is_incomplete? boolean whether these are not all points that the script declares
---@return attune.ClaimVerdict[]
function reference.judge(declared, results, is_incomplete)
  local list, machines = {}, {}
  for machine in pairs(declared or {}) do machines[#machines + 1] = machine end
  table.sort(machines)
  for _, machine in ipairs(machines) do
    local complete = not is_incomplete and is_machine_of(results, machine)
    local returned = returned_metrics(results)
    for _, name in ipairs(names_in_order(results.metrics, declared[machine])) do
      for _, value in ipairs(values_of(declared[machine][name])) do
        local metric = returned[name]
        list[#list + 1] = metric and judge_value(value, machine, metric, results)
          or complete and judge_missing(value, name, metric, results) or nil
      end
    end
  end
  return list
end

return reference
