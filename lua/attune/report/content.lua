--- What a report says, independent of its format.
local files = require "attune.util.files"
local plot = require "attune.plot"
local series = require "attune.plot.series"
local stats = require "attune.results.statistics"
local steadiness = require "attune.results.steadiness"
local text = require "attune.util.text"
local uv = require "luv"

local content = {}

-- A path as an argument: one that begins with - would be read as an option. The home folder is
-- written ~, which a shell reads outside quotes only.
local function path_word(path)
  local in_home = text.without_home(path, uv.os_homedir()):match "^~/(.+)$"
  if in_home then return "~/" .. text.shell_word(in_home) end
  return text.shell_word(path:find "^%-" and "./" .. path or path)
end

--- The commands that reproduce the results, one line each.
---@param results attune.Results
---@return string[]
function content.commands(results)
  local dir = path_word(results.dir)
  return {
    text.printable(results.command or "attune run " .. path_word(results.script or "SCRIPT")),
    "attune plot " .. dir,
    "attune report " .. dir,
    ("attune export %s --csv -"):format(dir),
  }
end

local max_picture_bytes = 16 << 20

-- The elements that gnuplot's SVG files consist of.
local elements = {}
for name in ([[svg title desc g rect defs circle path use filter feFlood feComposite polygon
  polyline line text tspan image clipPath]]):gmatch "%S+" do
  elements[name] = true
end

-- Whether a picture is whole and holds nothing that runs or loads: only gnuplot's elements, no
-- handlers, and references to its own parts or to data.
local function is_safe(svg)
  if not svg:find "^<%?xml" or not svg:find "</svg>%s*$" then return false end
  for tag in svg:sub(6):gmatch "<([^>]*)" do
    local name = tag:match "^/?(%a+)"
    if not elements[name] or tag:lower():find "%son%a+%s*=" then return false end
    for target in tag:gmatch "href%s*=%s*['\"]([^'\"]*)" do
      if not (target:find "^#" or target:find "^data:image/png;base64,") then return false end
    end
    if tag:find "url%(%s*[^#%s]" then return false end
  end
  return true
end

--- The picture of a plot, if attune drew one: a whole SVG file in the folder, behind no link.
---@param dir string
---@param name string from plot.name
---@return string? svg
---@return string? message
function content.picture(dir, name)
  if files.kind_inside(dir .. "/plots") ~= "directory" then return nil, "it was not drawn" end
  local path = ("%s/plots/%s.svg"):format(dir, name)
  if not files.kind_inside(path) then return nil, "it was not drawn" end
  local svg, why = files.read_inside(path, max_picture_bytes)
  if not svg then return nil, why end
  if not is_safe(svg) then return nil, "its file is not a picture that attune drew" end
  return svg
end

---@class attune.ReportFigure
---@field name string
---@field title string
---@field conditions string
---@field caption string?
---@field notes string[] what the figure leaves out
---@field svg string? the picture
---@field why string? why there is no picture

--- Every figure, with its picture or the reason why there is none.
---@param results attune.Results
---@param dir string where the plots are
---@return attune.ReportFigure[]
function content.figures(results, dir)
  local list = {}
  for i, spec in ipairs(results.plots) do
    local name = plot.name(spec, i)
    local figure, why = plot.figure(results, i)
    local svg
    if figure then svg, why = content.picture(dir, name) end
    local is_table = type(spec) == "table"
    local points = figure and series.select(results, spec) or {}
    list[i] = {
      name = name,
      title = is_table and tostring(spec.title or spec.value or spec.y) or name,
      caption = is_table and spec.caption or nil,
      conditions = figure and table.concat(series.constants(points, results, spec), ", ") or "",
      notes = figure and figure.notes or {},
      svg = svg,
      why = why,
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

-- A cell for a metric's value: its centre, and the interval of this centre where it has one.
local function value_cell(value, unit)
  local function quantity(x) return text.quantity(x, unit) end
  local cell = {text = quantity(value and value.centre)}
  if value and value.lo and value.hi ~= value.lo then
    local format = "%s of %d rounds, 95%% interval %s; IQR %s"
    cell.spread = ("%s to %s"):format(quantity(value.lo), quantity(value.hi))
    cell.detail = format:format(value.kind, value.n, cell.spread, quantity(value.iqr))
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

local target_width = 0.05 -- of the value, on either side of it
local max_rounds_named = 1000

-- "12 of 96 intervals are wider ..", or nil when none is.
local function rounds_sentence(results)
  local intervals, needed = 0, {}
  for _, point in ipairs(results.points) do
    for _, value in pairs(point.metrics) do
      local rounds = value.lo and stats.rounds_for(value.values, target_width)
      if rounds then
        intervals = intervals + 1
        if rounds > value.n then needed[#needed + 1] = rounds end
      end
    end
  end
  if #needed == 0 then return nil end
  table.sort(needed)
  local function rounds_text(n)
    return n > max_rounds_named and "more than 1000" or ("about %d"):format(n)
  end
  local half, all = rounds_text(needed[(#needed + 1) // 2]), rounds_text(needed[#needed])
  local first = " %d of %d intervals reach more than %g%% from their value."
  local s = first:format(#needed, intervals, 100 * target_width)
  if half == all then return s .. (" To narrow them takes %s rounds (--rounds)."):format(all) end
  local format = " To narrow half of them takes %s rounds (--rounds), all of them %s."
  return s .. format:format(half, all)
end

-- How many rounds would do is said by rounds_sentence.
local said_elsewhere = {rounds = true}

--- How much was measured and how steady it is, in a few sentences.
---@param results attune.Results
---@return string
function content.summary(results)
  local ok, rounds = 0, 0
  for _, point in ipairs(results.points) do
    if point.status == "ok" then ok = ok + 1 end
    rounds = math.max(rounds, point.rounds)
  end
  local each = rounds == 1 and "one round" or rounds .. " rounds"
  local s = ("%d of %d points measured, %s each."):format(ok, #results.points, each)
  for _, sentence in ipairs(steadiness.sentences(results, said_elsewhere)) do
    s = s .. " " .. sentence
  end
  return s .. (rounds_sentence(results) or "")
end

return content
