--- Figures from results. Each kind of chart is a file in this folder that returns a gnuplot script
--- and its data; plots/*.gp defines how it looks.
local files = require "attune.util.files"
local fonts = require "attune.plot.fonts"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"
local uv = require "luv"

local plot = {check = require "attune.plot.spec"}

local formats = {"svg", "png", "pdf"}

-- A fixed list: the kind in a folder of results never chooses what is loaded.
local kinds = {
  line = require "attune.plot.line",
  bars = require "attune.plot.bars",
  heat = require "attune.plot.heat",
  pixels = require "attune.plot.pixels",
}

local function all_names(results)
  local names = {}
  for _, name in ipairs(results.parameters) do names[name] = "parameter" end
  for _, m in ipairs(results.metrics) do names[m.name] = "metric" end
  return names
end

-- A message when the plot names a parameter or metric that the results do not have, else nil.
local function check_names(spec, results)
  local names = all_names(results)
  local expected = {
    {"x", "parameter"},
    {"y", spec.kind == "heat" and "parameter" or "metric"},
    {"value", "metric"},
    {"by", "parameter"},
    {"facet", "parameter"},
    {"also", "metric"},
  }
  for _, pair in ipairs(expected) do
    local field, kind = pair[1], pair[2]
    local name = spec[field]
    if name and names[name] ~= kind then
      return ("%s: expected a %s of the results, got '%s'"):format(field, kind, name)
    end
  end
end

--- The base name of the files of plot number i, such as "01-decode": letters, digits, - and _ only,
--- whatever the plot and its metric are called.
---@param spec attune.PlotSpec
---@param i integer
---@return string
function plot.name(spec, i)
  local name = type(spec) == "table" and (spec.name or spec.value or spec.y) or "plot"
  return ("%02d-%s"):format(i, tostring(name):sub(1, 100):gsub("[^%w_-]", "_"))
end

--- The figure of plot number i, without drawing it.
---@param results attune.Results
---@param i integer
---@return attune.Figure? figure
---@return string? message why it cannot be drawn
function plot.figure(results, i)
  local spec = results.plots[i]
  local ok, wrong = pcall(plot.check, spec, i)
  if not ok then return nil, wrong end
  wrong = check_names(spec, results)
  if wrong then return nil, wrong end
  local points, notes = series.select(results, spec), series.missing(results, spec)
  local done, figure, why = pcall(kinds[spec.kind], results, spec, points, notes)
  -- An error here is a mistake in this folder. It must not cost the other plots and the report.
  if not done then return nil, "cannot be drawn: " .. tostring(figure) end
  return figure, why
end

-- Draws a figure in every format and adds the paths to made. Returns a message on failure.
local function draw_one(figure, base, made)
  local lacking = fonts.lacking {figure}
  for _, format in ipairs(formats) do
    local letters = format == "svg" and {} or lacking
    local script = fonts.replaced(figure.script, letters)
    local data = fonts.replaced(figure.data, letters)
    local picture, why = gnuplot.draw(format, figure.size, script, data)
    local path, ok = base .. "." .. format, nil
    if picture then ok, why = files.write(path, picture) end
    if not ok then return why end
    made[#made + 1] = path
  end
end

--- Draws every declared plot as SVG, PNG and PDF into dir/plots.
---@param results attune.Results
---@param dir string
---@return string[]? paths nil when none can be drawn
---@return string[]|string warnings what is left out; a message when paths is nil
function plot.draw(results, dir)
  local made, warnings, figures = {}, {}, {}
  local ok, folder_why = files.make_folder_inside(dir .. "/plots")
  if not ok then return nil, folder_why end
  for i, spec in ipairs(results.plots) do
    local name = plot.name(spec, i)
    local figure, why = plot.figure(results, i)
    if figure then
      figures[#figures + 1] = figure
      why = draw_one(figure, ("%s/plots/%s"):format(dir, name), made)
      for _, note in ipairs(figure.notes or {}) do
        warnings[#warnings + 1] = ("plot %s: %s"):format(name, note)
      end
    end
    if why == gnuplot.missing then return nil, why end
    if why then
      warnings[#warnings + 1] = ("plot %s is left out: %s"):format(name, why)
      -- An older picture would show other results.
      for _, format in ipairs(formats) do
        uv.fs_unlink(("%s/plots/%s.%s"):format(dir, name, format))
      end
    end
  end
  warnings[#warnings + 1] = fonts.warning(fonts.lacking(figures))
  if #warnings > 0 and #made == 0 then return nil, table.concat(warnings, "; ") end
  return made, warnings
end

return plot
