--- What a plot's declaration may say. Every worker loads this file, so it needs no gnuplot code.
local suggest = require "attune.util.suggest"

local fields = {
  kind = "string",
  x = "string",
  y = "string",
  value = "string",
  by = "string",
  order = "table",
  facet = "string",
  where = "table",
  log = "string",
  also = "string",
  against = "table",
  across = "string",
  down = "string",
  title = "string",
  name = "string",
  caption = "string",
}
local kinds = {line = true, bars = true, heat = true, pixels = true}
local max_name_length = 100
local logs = {x = true, y = true, xy = true}

local function keys(t)
  local list = {}
  for k in pairs(t) do list[#list + 1] = k end
  return list
end

--- Raises an error for the first mistake in plot number i.
---@param plot attune.PlotSpec
---@param i integer
return function(plot, i)
  local function fail(format, ...) error(("plots[%d]: " .. format):format(i, ...), 0) end
  if type(plot) ~= "table" then fail("expected a table, got a %s", type(plot)) end
  for k, v in pairs(plot) do
    if not fields[k] then
      fail("unknown field '%s': %s", tostring(k), suggest(tostring(k), keys(fields)))
    end
    if type(v) ~= fields[k] then fail("%s: expected a %s, got a %s", k, fields[k], type(v)) end
  end
  local kind = tostring(plot.kind)
  if not kinds[kind] then fail("unknown kind '%s': %s", kind, suggest(kind, keys(kinds))) end
  if not plot.x or not plot.y then fail("%s: expected one, got none", plot.x and "y" or "x") end
  if plot.kind == "heat" and not plot.value then
    fail("value: expected the metric in the cells, got none")
  end
  if plot.log and not logs[plot.log] then
    fail("log: expected 'x', 'y' or 'xy', got '%s'", plot.log)
  end
  if plot.name and not plot.name:find "^[%w_-]+$" then
    fail("name: expected letters, digits, - and _, got '%s'", plot.name)
  end
  if plot.name and #plot.name > max_name_length then
    fail("name: expected at most %d letters, got %d", max_name_length, #plot.name)
  end
end
