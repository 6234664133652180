--- What a plot's declaration may say. Every worker loads this file, so it needs no gnuplot code.
local suggest = require "attune.util.suggest"
local sorted_keys = require "attune.util.tables".sorted_keys

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
  base = "number",
  also = "string",
  against = "table",
  along = "string",
  band = "boolean",
  label = "string",
  lines = "table",
  stacked = "boolean",
  parts = "table",
  peak = {"number", "string", "table"},
  bandwidth = {"number", "string"},
  across = "string",
  down = "string",
  title = "string",
  name = "string",
  caption = "string",
}

-- What each kind needs: every list is a choice.
local kinds = {
  line = {{"x", "along"}, {"y"}},
  scatter = {{"x"}, {"y"}},
  bars = {{"x"}, {"y", "parts"}},
  heat = {{"x"}, {"y", "along"}, {"value"}},
  roofline = {{"x"}, {"y"}, {"peak"}, {"bandwidth"}},
  pareto = {{"x"}, {"y"}},
  ecdf = {{"y"}},
  box = {{"y"}},
  pixels = {{"x"}, {"y"}},
}
local needed = {
  value = "the metric in the cells",
  peak = "operations per second, or a metric that holds them",
  bandwidth = "bytes per second, or a metric that holds them",
}

-- Fields that only some kinds have. A field that would be ignored is a mistake.
local of_kinds = {
  value = {"heat"},
  by = {"line", "scatter", "bars", "roofline", "pareto", "ecdf", "box"},
  log = {"line", "scatter", "heat", "roofline", "pareto", "ecdf", "box"},
  base = {"line", "scatter", "heat", "roofline", "pareto", "ecdf", "box"},
  also = {"line", "pixels"},
  against = {"line", "scatter", "bars", "heat", "roofline", "pareto"},
  label = {"line", "scatter", "roofline", "pareto"},
  lines = {"line", "scatter", "roofline", "pareto", "ecdf", "box"},
  along = {"line", "heat"},
  band = {"line"},
  stacked = {"bars"},
  parts = {"bars"},
  peak = {"roofline"},
  bandwidth = {"roofline"},
  across = {"pixels"},
  down = {"pixels"},
}
local max_name_length = 100
local logs = {x = true, y = true, xy = true}
local only_log = {ecdf = "x", box = "y"} -- the axis of the samples

local function has_type(value, wanted)
  if type(wanted) == "string" then return type(value) == wanted end
  for _, one in ipairs(wanted) do
    if type(value) == one then return true end
  end
  return false
end

local function check_lines(list, fail)
  for i, line in ipairs(list) do
    local at = type(line) == "table" and (line.x or line.y)
    local text = type(line) == "table" and line.text
    if at == nil or at == false or type(at) == "table" or (line.x and line.y) then
      fail("lines[%d]: expected {x = value, text = ..} or {y = value, text = ..}", i)
    end
    if text and type(text) ~= "string" then
      fail("lines[%d].text: expected a string, got a %s", i, type(text))
    end
  end
end

local function check_kinds(plot, kind, fail)
  for _, field in ipairs(sorted_keys(of_kinds)) do
    local list, fits = of_kinds[field], plot[field] == nil
    for _, name in ipairs(list) do fits = fits or name == kind end
    local kinds_text = table.concat(list, ", ")
    if not fits then fail("%s: expected kind %s, got '%s'", field, kinds_text, kind) end
  end
end

local function check_values(plot, fail)
  if plot.kind == "heat" and plot.log and plot.log ~= "value" then
    fail("log: expected 'value' (logarithmic colours) for kind heat, got '%s'", plot.log)
  end
  if plot.kind == "heat" and plot.along and (plot.y or plot.against) then
    fail("along: expected no %s beside it", plot.y and "y" or "against")
  end
  if plot.kind ~= "heat" and plot.log and not logs[plot.log] then
    fail("log: expected 'x', 'y' or 'xy', got '%s'", plot.log)
  end
  local only = only_log[plot.kind]
  if only and plot.log and plot.log ~= only then
    fail("log: expected '%s' for kind %s, got '%s'", only, plot.kind, plot.log)
  end
  if plot.base and plot.base ~= 2 and plot.base ~= 10 then
    fail("base: expected 2 or 10, got %s", tostring(plot.base))
  end
  for _, name in ipairs {"peak", "bandwidth"} do
    local given = plot[name]
    for _, x in ipairs(type(given) == "table" and given or {given}) do
      if type(x) == "number" and not (x > 0 and x < math.huge) then
        fail("%s: expected a positive number, got %s", name, tostring(x))
      elseif type(x) ~= "number" and type(x) ~= "string" then
        fail("%s: expected numbers or metrics, got a %s", name, type(x))
      end
    end
  end
  if type(plot.peak) == "table" and #plot.peak == 0 then
    fail("peak: expected numbers or metrics, got an empty list")
  end
  if plot.name and not plot.name:find "^[%w_-]+$" then
    fail("name: expected letters, digits, - and _, got '%s'", plot.name)
  end
  if plot.name and #plot.name > max_name_length then
    fail("name: expected at most %d letters, got %d", max_name_length, #plot.name)
  end
  for i, metric in ipairs(plot.parts or {}) do
    if type(metric) ~= "string" then
      fail("parts[%d]: expected the name of a metric, got a %s", i, type(metric))
    end
  end
  if plot.parts and #plot.parts == 0 then fail("parts: expected metrics, got an empty list") end
  check_lines(plot.lines or {}, fail)
end

--- Raises an error for the first mistake in plot number i.
---@param plot attune.PlotSpec
---@param i integer
return function(plot, i)
  local function fail(format, ...) error(("plots[%d]: " .. format):format(i, ...), 0) end
  if type(plot) ~= "table" then fail("expected a table, got a %s", type(plot)) end
  for k, v in pairs(plot) do
    local wanted = fields[k]
    if not wanted then
      fail("unknown field '%s': %s", tostring(k), suggest(tostring(k), sorted_keys(fields)))
    end
    if not has_type(v, wanted) then
      local words = type(wanted) == "table" and table.concat(wanted, " or a ") or wanted
      fail("%s: expected a %s, got a %s", k, words, type(v))
    end
  end
  local kind = tostring(plot.kind)
  local needs = kinds[kind]
  if not needs then fail("unknown kind '%s': %s", kind, suggest(kind, sorted_keys(kinds))) end
  check_kinds(plot, kind, fail)
  for _, choice in ipairs(needs) do
    local found
    for _, name in ipairs(choice) do found = found or plot[name] ~= nil end
    if not found then
      fail("%s: expected %s, got none", table.concat(choice, " or "), needed[choice[1]] or "one")
    end
  end
  check_values(plot, fail)
end
