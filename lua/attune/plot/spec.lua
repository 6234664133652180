--- What a plot's declaration may say.
local suggest = require "attune.suggest"

---@class attune.PlotSpec
---@field kind "line"|"bars"|"heat"|"pixels"
---@field x string a parameter
---@field y string a metric (heat: a parameter)
---@field value? string heat: the metric in the cells
---@field by? string a parameter: a line, or a bar of each group, for each of its values
---@field order? any[] the values of `by` (pixels: of x) in the order in which they are drawn
---@field facet? string a parameter: a panel for each of its values
---@field where? table<string, any> only points with these values
---@field log? "x"|"y"|"xy"
---@field also? string another metric, drawn dashed beside each line (pixels: written above each picture)
---@field against? table<string, any> y becomes a factor: the point with these values over (better = "lower") or under each point
---@field across? string pixels: what goes to the right, written below each picture
---@field down? string pixels: what goes down, beside it
---@field title? string
---@field name? string of the files
---@field caption? string a sentence below the figure in the report

local fields = {kind = "string", x = "string", y = "string", value = "string", by = "string", order = "table", facet = "string", where = "table", log = "string", also = "string",
  against = "table", across = "string", down = "string", title = "string", name = "string", caption = "string"}
local kinds = {line = true, bars = true, heat = true, pixels = true}

local function keys(t)
  local list = {}
  for k in pairs(t) do list[#list + 1] = k end
  return list
end

--- Raises about the first thing that is wrong with plot number i.
return function(plot, i)
  local function fail(format, ...) error(("plots[%d]: " .. format):format(i, ...), 0) end
  for k, v in pairs(plot) do
    if not fields[k] then fail("unknown field '%s': %s", tostring(k), suggest(tostring(k), keys(fields))) end
    if type(v) ~= fields[k] then fail("%s: expected a %s, got a %s", k, fields[k], type(v)) end
  end
  if not kinds[plot.kind] then fail("unknown kind '%s': %s", tostring(plot.kind), suggest(tostring(plot.kind), keys(kinds))) end
  if not plot.x or not plot.y then fail("%s: expected one, got none", plot.x and "y" or "x") end
  if plot.kind == "heat" and not plot.value then fail("value: expected the metric in the cells, got none") end
  if plot.log and plot.log ~= "x" and plot.log ~= "y" and plot.log ~= "xy" then fail("log: expected 'x', 'y' or 'xy', got '%s'", plot.log) end
  if plot.name and not plot.name:find "^[%w_-]+$" then fail("name: expected letters, digits, - and _, got '%s'", plot.name) end
end
