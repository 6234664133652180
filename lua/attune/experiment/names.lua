--- Checks of the parameters that the claims, plots and reference values of a declaration name.
local axes = require "attune.experiment.axes"
local suggest = require "attune.util.suggest"
local sorted_keys = require "attune.util.tables".sorted_keys

local names = {}

local function fail(format, ...) error(("experiment: " .. format):format(...), 0) end

-- Raises an error for a name that is no parameter. group_of: what axes.check returns.
local function check_parameter(where, name, group_of)
  if not group_of[name] then
    fail("%s: unknown parameter '%s': %s", where, tostring(name),
      suggest(tostring(name), sorted_keys(group_of)))
  end
end

local function check_point(where, point, group_of)
  for _, name in ipairs(sorted_keys(point)) do check_parameter(where, name, group_of) end
end

--- Checks the field `needs` of claim number i: a list of sets of parameters.
---@param needs any
---@param i integer
---@param group_of table<string, string> the group that declares each parameter
function names.needs(needs, i, group_of)
  if needs == nil then return end
  local where = ("claims[%d].needs"):format(i)
  local expected = "expected a list of parameters such as {{heads = 8}}, got "
  if type(needs) ~= "table" then fail("%s: %sa %s", where, expected, type(needs)) end
  for key, wanted in pairs(needs) do
    if math.type(key) ~= "integer" or key < 1 or key > #needs then
      fail("%s: %sa table with a field '%s'", where, expected, tostring(key))
    end
    if type(wanted) ~= "table" then
      fail("%s[%d]: expected parameters such as {heads = 8}, got a %s", where, key, type(wanted))
    end
    check_point(("%s[%d]"):format(where, key), wanted, group_of)
  end
end

-- What results show for all values that a script gives a parameter; nil for a derived or a sampled
-- parameter.
local function shown_values(e, name)
  local values = axes.values(e, name)
  if not values then return nil end
  local quick, list = e.quick and e.quick[name], {}
  for i, value in ipairs(values) do list[i] = axes.shown(value) end
  if axes.shown(quick) ~= nil then quick = {quick} end
  for _, value in ipairs(quick or {}) do list[#list + 1] = axes.shown(value) end
  return list
end

-- The fields of a plot that name a parameter, and those that name a metric. x of other kinds than
-- these may be either.
local function fields_of(plot)
  local parameters, metrics = {"by", "facet", "label"}, {"value", "also"}
  if ({bars = true, heat = true, box = true, ecdf = true, pixels = true})[plot.kind] then
    parameters[#parameters + 1] = "x"
  end
  local list = plot.kind == "heat" and parameters or metrics
  list[#list + 1] = "y"
  return parameters, metrics
end

--- Checks the parameters of plot number i, whose form is right. The metrics of a plot may be known
--- only after a trial; but no metric has the name of a parameter.
---@param plot attune.PlotSpec
---@param i integer
---@param e attune.Experiment
---@param group_of table<string, string>
function names.plot(plot, i, e, group_of)
  local function where(field) return ("plots[%d].%s"):format(i, field) end
  local parameters, metrics = fields_of(plot)
  for _, field in ipairs(parameters) do
    if plot[field] then check_parameter(where(field), plot[field], group_of) end
  end
  for _, field in ipairs(metrics) do
    if group_of[plot[field]] then
      fail("%s: expected a metric, got the parameter '%s'", where(field), plot[field])
    end
  end
  for _, field in ipairs {"where", "against"} do
    check_point(where(field), plot[field] or {}, group_of)
  end
  local values = plot.by and shown_values(e, plot.by)
  for _, value in ipairs(values and plot.order or {}) do
    local found, texts = false, {}
    for k, one in ipairs(values) do
      found, texts[k] = found or one == value, tostring(one)
    end
    if not found then
      fail("%s: unknown value '%s' of %s: expected one of %s", where "order", tostring(value),
        plot.by, table.concat(texts, ", "))
    end
  end
end

--- Checks the conditions `where` of the field `reference`, which has the right form.
---@param declared table
---@param group_of table<string, string>
function names.reference(declared, group_of)
  for machine, metrics in pairs(declared) do
    for metric, entry in pairs(metrics) do
      for _, value in ipairs(type(entry[1]) == "table" and entry or {entry}) do
        check_point(("reference['%s'].%s.where"):format(machine, metric), value.where or {},
          group_of)
      end
    end
  end
end

return names
