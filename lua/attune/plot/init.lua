--- Figures from results. Each kind of chart is a file in this folder that returns a gnuplot script
--- and its data; plots/*.gp defines how it looks.
local files = require "attune.util.files"
local fonts = require "attune.plot.fonts"
local gnuplot = require "attune.plot.gnuplot"
local look = require "attune.plot.look"
local series = require "attune.plot.series"
local suggest = require "attune.util.suggest"
local sorted_keys = require "attune.util.tables".sorted_keys
local uv = require "luv"

local plot = {check = require "attune.plot.spec", themes = look.names}

--- The formats that can be drawn, and those that a run draws.
plot.formats = {"svg", "png", "pdf", "tex"}
plot.usual_formats = {"svg", "png", "pdf"}

-- A fixed list: the kind in a folder of results never chooses what is loaded.
local kinds = {
  line = require "attune.plot.line",
  scatter = require "attune.plot.scatter",
  bars = require "attune.plot.bars",
  heat = require "attune.plot.heat",
  roofline = require "attune.plot.roofline",
  pareto = require "attune.plot.pareto",
  ecdf = require "attune.plot.ecdf",
  box = require "attune.plot.box",
  pixels = require "attune.plot.pixels",
}

local function all_names(results)
  local names = {}
  for _, name in ipairs(results.parameters) do names[name] = "parameter" end
  for _, m in ipairs(results.metrics) do names[m.name] = "metric" end
  return names
end

-- What the fields of a kind name: "parameter", "metric" or "either".
local function expected_names(spec)
  local kind = spec.kind
  local is_curve = kind == "line" or kind == "scatter" or kind == "pareto" or kind == "roofline"
  return {
    {"x", is_curve and "either" or "parameter"},
    {"y", kind == "heat" and "parameter" or "metric"},
    {"value", "metric"},
    {"by", "parameter"},
    {"facet", "parameter"},
    {"also", "metric"},
    {"label", "parameter"},
  }
end

-- A message when the plot names a parameter or metric that the results do not have, else nil.
local function check_names(spec, results)
  local names = all_names(results)
  local function wrong(field, kind, name)
    local have = {}
    for known, what in pairs(names) do
      if kind == "either" or what == kind then have[#have + 1] = known end
    end
    table.sort(have)
    local wanted = kind == "either" and "parameter or metric" or kind
    local hint = #have > 0 and ": " .. suggest(name, have) or ""
    return ("%s: expected a %s of the results, got '%s'%s"):format(field, wanted, name, hint)
  end
  for _, pair in ipairs(expected_names(spec)) do
    local field, kind = pair[1], pair[2]
    local name = spec[field]
    local fits = names[name] == kind or (kind == "either" and names[name] ~= nil)
    if name and not fits then return wrong(field, kind, name) end
  end
  for i, name in ipairs(spec.parts or {}) do
    if names[name] ~= "metric" then return wrong(("parts[%d]"):format(i), "metric", name) end
  end
  for _, field in ipairs {"where", "against"} do
    for _, name in ipairs(sorted_keys(spec[field] or {})) do
      if names[name] ~= "parameter" then return wrong(field, "parameter", tostring(name)) end
    end
  end
end

plot.check_names = check_names

--- The base name of the files of plot number i, such as "01-decode": letters, digits, - and _ only,
--- whatever the plot and its metric are called.
---@param spec attune.PlotSpec
---@param i integer
---@return string
function plot.name(spec, i)
  local name = "plot"
  if type(spec) == "table" then
    local part = type(spec.parts) == "table" and spec.parts[1] or nil
    name = spec.name or spec.value or spec.y or part or name
  end
  return ("%02d-%s"):format(i, tostring(name):sub(1, 100):gsub("[^%w_-]", "_"))
end

--- The figure of a declaration, without drawing it.
---@param results attune.Results
---@param spec attune.PlotSpec
---@param i integer number of the plot, for messages
---@param theme? string
---@return attune.Figure? figure
---@return string? message why it cannot be drawn
function plot.figure_of(results, spec, i, theme)
  local ok, wrong = pcall(plot.check, spec, i)
  if not ok then return nil, wrong end
  wrong = check_names(spec, results)
  if wrong then return nil, wrong end
  local points, notes = series.select(results, spec), series.missing(results, spec)
  local kind = kinds[spec.kind]
  local done, figure, why = pcall(kind, results, spec, points, notes, look.of(theme))
  -- An error here is a mistake in this folder. It must not cost the other plots and the report.
  if not done then return nil, "cannot be drawn: " .. tostring(figure) end
  return figure, why
end

--- The figure of plot number i, without drawing it.
---@param results attune.Results
---@param i integer
---@return attune.Figure? figure
---@return string? message why it cannot be drawn
function plot.figure(results, i) return plot.figure_of(results, results.plots[i], i) end

-- The endings of all files that a figure may have.
local function all_endings()
  local list = {".gp", ".tsv"}
  for _, format in ipairs(plot.formats) do
    for _, ending in ipairs(gnuplot.endings(format)) do list[#list + 1] = ending end
  end
  return list
end

local function remove_figure(folder, name)
  for _, ending in ipairs(all_endings()) do
    uv.fs_unlink(("%s/%s%s"):format(folder, name, ending))
  end
end

-- Removes figures of an earlier script, whose plots had other names or numbers. A figure has its
-- script and its data beside it; other files stay.
local function remove_undeclared(results, folder)
  local declared = {}
  for i, spec in ipairs(results.plots) do declared[plot.name(spec, i)] = true end
  for _, file in ipairs(files.list(folder)) do
    local name = file:match "^(%d%d%-[%w_-]+)%.gp$"
    if name and not declared[name] and files.kind_inside(("%s/%s.tsv"):format(folder, name)) then
      remove_figure(folder, name)
    end
  end
end

-- Writes a file of a figure and adds its path to made. Returns a message on failure.
local function write(path, content, made)
  local ok, why = files.write(path, content)
  if not ok then return why end
  made[#made + 1] = path
end

-- Draws a figure in each format, with its script and its data, and adds the paths to made. Returns
-- a message on failure.
local function draw_one(figure, folder, name, options, made)
  local script, why = gnuplot.script(name, figure, options.theme or "screen")
  if not script then return why end
  local lacking = fonts.lacking {figure}
  local base = ("%s/%s"):format(folder, name)
  for _, format in ipairs(options.formats or plot.usual_formats) do
    local letters = (format == "svg" or format == "tex") and {} or lacking
    local pictures
    pictures, why = gnuplot.draw(format, name,
      fonts.replaced(gnuplot.texts_for(script, format), letters),
      fonts.replaced(gnuplot.texts_for(figure.data, format), letters))
    if not pictures then return why end
    for _, ending in ipairs(gnuplot.endings(format)) do
      why = write(base .. ending, pictures[ending], made)
      if why then return why end
    end
  end
  return write(base .. ".gp", gnuplot.texts_for(script, "svg"), made)
    or write(base .. ".tsv", gnuplot.texts_for(figure.data, "svg"), made)
end

---@class attune.DrawOptions
---@field theme? "screen"|"print"|"dark"|"slides"
---@field formats? string[] of svg, png, pdf, tex; the first three by default
---@field plots? attune.PlotSpec[] in place of those that the experiment declares
---@field names? string[] of the files of these plots

--- Draws plots into dir/plots: the pictures in each format, and beside them the data (.tsv) and the
--- script (.gp) with which gnuplot alone draws them again. When these are all plots that the
--- experiment declares, figures of an earlier script are removed.
---@param results attune.Results
---@param dir string
---@param options? attune.DrawOptions
---@return string[]? paths nil when none can be drawn
---@return string[]|string warnings what is left out; a message when paths is nil
function plot.draw(results, dir, options)
  options = options or {}
  local made, warnings, figures = {}, {}, {}
  local folder = dir .. "/plots"
  local ok, folder_why = files.make_folder_inside(folder)
  if not ok then return nil, folder_why end
  for i, spec in ipairs(options.plots or results.plots) do
    local name = options.names and options.names[i] or plot.name(spec, i)
    local figure, why = plot.figure_of(results, spec, i, options.theme)
    if figure then
      figures[#figures + 1] = figure
      why = draw_one(figure, folder, name, options, made)
      for _, note in ipairs(figure.notes or {}) do
        warnings[#warnings + 1] = ("plot %s: %s"):format(name, note)
      end
    end
    if why == gnuplot.missing then return nil, why end
    if why then
      warnings[#warnings + 1] = ("plot %s is left out: %s"):format(name, why)
      remove_figure(folder, name) -- older files would show other results
    end
  end
  if not options.plots then remove_undeclared(results, folder) end
  warnings[#warnings + 1] = fonts.warning(fonts.lacking(figures))
  if #warnings > 0 and #made == 0 then return nil, table.concat(warnings, "; ") end
  return made, warnings
end

return plot
