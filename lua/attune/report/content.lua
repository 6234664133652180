--- What a report says, in whatever form it is written.
local plot = require "attune.plot"
local series = require "attune.plot.series"
local text = require "attune.util.text"

local content = {}

--- The commands that make the results again.
function content.commands(results)
  local run = results.command or ("attune run %s"):format(results.script or "SCRIPT")
  return {run, "attune plot " .. results.dir, "attune report " .. results.dir, ("attune export %s --csv -"):format(results.dir)}
end

--- {name, title, conditions, caption} of every figure.
function content.figures(results)
  local list = {}
  for i, spec in ipairs(results.plots) do
    local points = series.select(results, spec)
    list[i] = {name = plot.name(spec, i), title = spec.title or spec.y, caption = spec.caption,
      conditions = table.concat(series.constants(points, results, spec), ", ")}
  end
  return list
end

--- Rows of {name, value} about the machine and the code of each run.
function content.provenance(p)
  local function join(...)
    local parts = {}
    for _, v in ipairs {...} do parts[#parts + 1] = tostring(v) end
    return table.concat(parts, ", ")
  end
  local rows = {}
  local function add(name, value) if value ~= nil and value ~= "" then rows[#rows + 1] = {name, tostring(value)} end end
  add("time", p.time)
  add("processor", p.cpu and join(p.cpu, tostring(p.cores) .. " cores", tostring(p.threads) .. " threads"))
  add("instruction set", p.isa and ("%s (here: %s)"):format(p.isa, p.features or "?"))
  add("last cache", p.l3 and text.quantity(p.l3, "B"))
  add("memory", p.memory and text.quantity(p.memory, "B"))
  add("system", p.system)
  add("attune", p.attune and join(p.attune, p.git and p.git.commit and ("commit %s%s"):format(p.git.commit:sub(1, 12), p.git.dirty and " with changes" or "") or nil))
  add("build", p.build)
  add("BLIS", p.blis)
  add("Lua", p.lua)
  add("frequency governor", p.governor)
  add("huge pages", p.huge_pages)
  add("load at the start", p.load)
  add("command", p.command)
  return rows
end

--- The table: columns {name, unit, numeric}, rows of {text, title} cells with their point.
function content.table(results)
  local columns, rows = {}, {}
  for _, name in ipairs(results.varied) do columns[#columns + 1] = {name = name, numeric = results.points[1] and type(results.points[1].parameters[name]) == "number"} end
  for _, m in ipairs(results.metrics) do columns[#columns + 1] = {name = m.name, numeric = true, metric = m} end
  for _, point in ipairs(results.points) do
    local row = {point = point}
    for i, c in ipairs(columns) do
      if c.metric then
        local v = point.metrics[c.name]
        row[i] = {text = text.quantity(v and v.median, c.metric.unit)}
        if v and v.lo and v.hi ~= v.lo then
          row[i].spread = ("%s to %s"):format(text.quantity(v.lo, c.metric.unit), text.quantity(v.hi, c.metric.unit))
          row[i].detail = ("95%% interval %s; IQR %s over %d rounds"):format(row[i].spread, text.quantity(v.iqr, c.metric.unit), v.n)
        end
        if v and v.unsteady then row[i].unsteady = true end
      else
        row[i] = {text = text.plain(point.parameters[c.name])}
      end
    end
    rows[#rows + 1] = row
  end
  return columns, rows
end

--- Points that have no result, as lines; equal reasons together.
function content.missing(results)
  local groups, order = {}, {}
  for _, point in ipairs(results.points) do
    if point.status ~= "ok" then
      local reason = (point.reason or "no reason"):match "^[^\n]*"
      local key = point.status .. ": " .. reason
      if not groups[key] then
        groups[key] = {status = point.status, reason = reason, points = {}}
        order[#order + 1] = groups[key]
      end
      local parts = {}
      for _, name in ipairs(results.varied) do parts[#parts + 1] = ("%s %s"):format(name, text.plain(point.parameters[name])) end
      table.insert(groups[key].points, table.concat(parts, ", "))
    end
  end
  return order
end

--- Counts and spread, in a sentence.
function content.summary(results)
  local ok, rounds, unsteady, values = 0, 0, 0, 0
  for _, point in ipairs(results.points) do
    if point.status == "ok" then ok = ok + 1 end
    rounds = math.max(rounds, point.rounds)
    for _, m in pairs(point.metrics) do
      values = values + 1
      if m.unsteady then unsteady = unsteady + 1 end
    end
  end
  local s = ("%d of %d points measured, %s each."):format(ok, #results.points, rounds == 1 and "one round" or rounds .. " rounds")
  if unsteady > 0 then
    s = s .. (" %d of %d values are unsteady: samples of one round differ by more than 5%% (median deviation); another program may have been at work. More rounds (--rounds) narrow the intervals."):format(unsteady, values)
  end
  return s
end

return content
