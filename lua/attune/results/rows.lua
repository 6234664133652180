--- Results as rows of named values: one per point, or one per sample. What export writes and query
--- compares.
local json = require "attune.util.json"

local rows = {}

--- The names of a point's row: every parameter, status, then every metric with .lo and .hi.
---@param results attune.Results
---@return string[]
function rows.columns(results)
  local names = table.move(results.parameters, 1, #results.parameters, 1, {})
  names[#names + 1] = "status"
  for _, m in ipairs(results.metrics) do
    for _, suffix in ipairs {"", ".lo", ".hi"} do names[#names + 1] = m.name .. suffix end
  end
  return names
end

--- Why a metric cannot have this name: a column of the row has it already.
---@param name string
---@param parameters table<string, any> by name
---@param metrics table<string, any> by name
---@return string? message
function rows.taken(name, parameters, metrics)
  if name == "status" then return "expected another name, as the results have a column 'status'" end
  if parameters[name] ~= nil then return "expected another name, as a parameter has this one" end
  local whole = type(name) == "string" and (name:match "^(.+)%.lo$" or name:match "^(.+)%.hi$")
  if whole and metrics[whole] ~= nil then
    return ("expected another name, as this is an end of the interval of metric '%s'"):format(whole)
  end
end

--- The row of a point. What a point does not have is nil.
---@param results attune.Results
---@param point attune.Point
---@return table<string, attune.Scalar>
function rows.of_point(results, point)
  local row = {}
  for _, name in ipairs(results.parameters) do row[name] = point.parameters[name] end
  row.status = point.status
  for _, m in ipairs(results.metrics) do
    local value = point.metrics[m.name]
    if value then
      row[m.name] = value.centre
      row[m.name .. ".lo"], row[m.name .. ".hi"] = value.lo, value.hi
    end
  end
  return row
end

---@param results attune.Results
---@return table[] list of rows, marked as a list for JSON
function rows.of_points(results)
  local list = json.list()
  for i, point in ipairs(results.points) do list[i] = rows.of_point(results, point) end
  return list
end

local sample_columns = {"metric", "round", "sample", "value"}

-- The name of a column beside the parameters; one that is taken gets a line below.
local function free_name(name, taken)
  while taken[name] do name = name .. "_" end
  return name
end

--- One row per sample: every parameter, the seed where seeds are declared, then metric, round
--- (where seeds are declared: which of them, from 1), sample and value.
---@param results attune.Results
---@return string[] columns
---@return table[] list of rows, marked as a list for JSON
function rows.of_samples(results)
  local columns, taken, names = {}, {}, {}
  for i, name in ipairs(results.parameters) do columns[i], taken[name] = name, true end
  -- A script that declares seeds has no parameter of this name.
  if results.seeds then columns[#columns + 1] = "seed" end
  for _, name in ipairs(sample_columns) do
    names[name] = free_name(name, taken)
    columns[#columns + 1] = names[name]
  end
  local list = json.list()
  for _, point in ipairs(results.points) do
    for _, m in ipairs(results.metrics) do
      local value = point.metrics[m.name]
      for i, samples in ipairs(value and value.samples or {}) do
        for j, x in ipairs(samples) do
          local row = {}
          for _, name in ipairs(results.parameters) do row[name] = point.parameters[name] end
          if results.seeds then row.seed = results.seeds[value.rounds[i]] end
          row[names.metric], row[names.round] = m.name, value.rounds[i]
          row[names.sample], row[names.value] = j, x
          list[#list + 1] = row
        end
      end
    end
  end
  return columns, list
end

return rows
