--- Results for specs of plots and reports, without a run.
local files = require "attune.util.files"
local plot = require "attune.plot"
local run = require "tests.support.run"

local made = {}

-- Results as store.read gives them.
function made.results(points, plots)
  local list = {}
  for i, p in ipairs(points) do
    local metrics = {}
    for name, values in pairs(p[2]) do
      values = type(values) == "table" and values or {values}
      local m = require "attune.results.statistics".summary(values)
      m.values, m.samples, m.rounds = values, {values}, {}
      for r = 1, #values do m.rounds[r] = r end
      metrics[name] = m
    end
    list[i] = {
      hash = tostring(i),
      index = i,
      parameters = p[1],
      status = p[3] or "ok",
      reason = p[4],
      rounds = 3,
      metrics = metrics,
    }
  end
  return {dir = "d", name = "t", about = "about <b> & 'it'", parameters = {"a", "m"},
    varied = {"a", "m"}, metrics = {{name = "y", unit = "s", better = "lower"}, {name = "z"}},
    points = list, plots = plots
      or {}, claims = {{text = "it </script> holds", verdict = "held", detail = "x < y"}},
      provenance = {{cpu = "a `cpu` $(x)'s \"\" <i>", threads = 2, isa = "c", cores = 2}},
    warnings = {}, script = "s.lua", command = "attune run s.lua"}
end

--- Draws the plots of results into a new folder.
function made.drawn(r, options)
  local dir = run.folder()
  files.make_folder(dir)
  local paths, warnings = plot.draw(r, dir, options)
  return dir, paths, warnings
end

made.data = {{{a = 1, m = "x"}, {y = {1, 1.1, 1.2}, z = 3}},
  {{a = 2, m = "x"}, {y = {2, 2.1, 2.2}, z = 4}},
  {{a = 1, m = "w'`\"$(touch /tmp/attune-hostile)"}, {y = {4, 4.1, 4.2}, z = 5}},
  {{a = 2, m = "w'`\"$(touch /tmp/attune-hostile)"}, {y = {8, 8, 8}, z = 6}}}

return made
