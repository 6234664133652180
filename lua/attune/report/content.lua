--- What a report says, independent of its format.
local plot = require "attune.plot"
local series = require "attune.plot.series"
local text = require "attune.util.text"

local content = {}

--- The commands that reproduce the results.
---@param results attune.Results
---@return string[]
function content.commands(results)
  return {
    results.command or ("attune run %s"):format(results.script or "SCRIPT"),
    "attune plot " .. results.dir,
    "attune report " .. results.dir,
    ("attune export %s --csv -"):format(results.dir),
  }
end

--- Name, title, conditions and caption of every figure.
---@param results attune.Results
---@return {name: string, title: string, conditions: string, caption: string?}[]
function content.figures(results)
  local list = {}
  for i, spec in ipairs(results.plots) do
    local points = series.select(results, spec)
    list[i] = {
      name = plot.name(spec, i),
      title = spec.title or spec.y,
      caption = spec.caption,
      conditions = table.concat(series.constants(points, results, spec), ", "),
    }
  end
  return list
end

-- "0.1.0, commit 0123456789ab with changes"
local function version_of(p)
  if not p.git or not p.git.commit then return p.attune end
  local changes = p.git.dirty and " with changes" or ""
  return ("%s, commit %s%s"):format(p.attune, p.git.commit:sub(1, 12), changes)
end

--- Facts about the machine and the code of one run.
---@param p attune.Provenance
---@return string[][] rows of name and value
function content.provenance(p)
  local rows = {}
  local function add(name, value)
    if value ~= nil and value ~= "" then rows[#rows + 1] = {name, tostring(value)} end
  end
  local function bytes(n) return n and text.quantity(n, "B") end
  local processor = "%s, %s cores, %s threads"
  add("time", p.time)
  add("processor", p.cpu and processor:format(p.cpu, tostring(p.cores), tostring(p.threads)))
  add("instruction set", p.isa and ("%s (available: %s)"):format(p.isa, p.features or "?"))
  add("last cache", bytes(p.l3))
  add("memory", bytes(p.memory))
  add("system", p.system)
  add("attune", p.attune and version_of(p))
  add("build", p.build)
  add("BLIS", p.blis)
  add("Lua", p.lua)
  add("frequency governor", p.governor)
  add("huge pages", p.huge_pages)
  add("load at the start", p.load)
  add("command", p.command)
  return rows
end

local function columns_of(results)
  local columns, first = {}, results.points[1]
  for _, name in ipairs(results.varied) do
    local numeric = first and type(first.parameters[name]) == "number"
    columns[#columns + 1] = {name = name, numeric = numeric}
  end
  for _, m in ipairs(results.metrics) do
    columns[#columns + 1] = {name = m.name, numeric = true, metric = m}
  end
  return columns
end

-- A cell for a metric's value: its median, and its interval where it has one.
local function value_cell(value, unit)
  local function quantity(x) return text.quantity(x, unit) end
  local cell = {text = quantity(value and value.median)}
  if value and value.lo and value.hi ~= value.lo then
    local format = "95%% interval %s; IQR %s over %d rounds"
    cell.spread = ("%s to %s"):format(quantity(value.lo), quantity(value.hi))
    cell.detail = format:format(cell.spread, quantity(value.iqr), value.n)
  end
  return cell
end

--- The table of all points. spread: the interval; detail: the interval and the interquartile range.
---@param results attune.Results
---@return {name: string, numeric: boolean?, metric: attune.Metric?}[] columns
---@return {text: string, spread: string?, detail: string?}[][] rows of cells
function content.table(results)
  local columns, rows = columns_of(results), {}
  for r, point in ipairs(results.points) do
    local row = {}
    for i, c in ipairs(columns) do
      if c.metric then
        row[i] = value_cell(point.metrics[c.name], c.metric.unit)
      else
        row[i] = {text = text.plain(point.parameters[c.name])}
      end
    end
    rows[r] = row
  end
  return columns, rows
end

--- The points without a result, grouped by status and reason.
---@param results attune.Results
---@return {status: attune.Status, reason: string, points: string[]}[]
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
      for _, name in ipairs(results.varied) do
        parts[#parts + 1] = ("%s %s"):format(name, text.plain(point.parameters[name]))
      end
      table.insert(groups[key].points, table.concat(parts, ", "))
    end
  end
  return order
end

local unsteady_sentence = " %d of %d values are unsteady: samples of one round differ by more than "
  .. "5%% (median deviation); another program may have used the machine. More rounds (--rounds) "
  .. "narrow the intervals."

--- How much was measured and how steady it is, in one or two sentences.
---@param results attune.Results
---@return string
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
  local each = rounds == 1 and "one round" or rounds .. " rounds"
  local s = ("%d of %d points measured, %s each."):format(ok, #results.points, each)
  if unsteady > 0 then s = s .. unsteady_sentence:format(unsteady, values) end
  return s
end

return content
