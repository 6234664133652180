--- What a report says, independent of its format.
local files = require "attune.util.files"
local plot = require "attune.plot"
local repeats = require "attune.results.repeats"
local scalars = require "attune.results.scalars"
local schema = require "attune.results.schema"
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
---@field figure attune.Figure?
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
      title = is_table and tostring(spec.title or spec.value or spec.y or name) or name,
      caption = is_table and spec.caption or nil,
      conditions = figure and table.concat(series.constants(points, results, spec), ", ") or "",
      notes = figure and figure.notes or {},
      figure = figure,
      svg = svg,
      why = why,
    }
  end
  return list
end

--- The script as the last run kept it in the folder; nil without one.
---@param dir string
---@return string?
function content.script(dir)
  local path = dir .. "/script.lua"
  if files.kind_inside(path) ~= "file" then return nil end
  return (files.read_inside(path, schema.limits.script))
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
  local any_without_result = false
  for _, point in ipairs(results.points) do
    any_without_result = any_without_result or point.status ~= "ok"
  end
  if any_without_result then columns[#columns + 1] = {name = "status", status = true} end
  for _, m in ipairs(scalars(results)) do
    columns[#columns + 1] = {name = m.name, numeric = true, metric = m}
  end
  return columns
end

-- A cell for a metric's value: its centre, and the interval of this centre where it has one.
local function value_cell(value, unit, word)
  local function quantity(x) return text.quantity(x, unit) end
  local centre = value and value.centre
  local cell = {text = quantity(centre), value = centre}
  if value and value.lo and value.hi ~= value.lo then
    local format = "%s of %d %ss, 95%% interval %s; IQR %s"
    cell.spread = ("%s to %s"):format(quantity(value.lo), quantity(value.hi))
    cell.detail = format:format(value.kind, value.n, word, cell.spread, quantity(value.iqr))
  end
  return cell
end

--- The table of all points. spread: the interval; detail: the interval and the interquartile range.
---@param results attune.Results
---@return {name: string, numeric: boolean?, metric: attune.Metric?}[] columns
---@return {text: string, value: number?, spread: string?, detail: string?}[][] rows of cells
function content.table(results)
  local columns, rows, word = columns_of(results), {}, repeats.word(results)
  for r, point in ipairs(results.points) do
    local row = {}
    for i, c in ipairs(columns) do
      if c.metric then
        row[i] = value_cell(point.metrics[c.name], c.metric.unit, word)
      elseif c.status then
        row[i] = {text = point.status}
      else
        local value = point.parameters[c.name]
        row[i] = {text = text.plain(value), value = c.numeric and value or nil}
      end
    end
    rows[r] = row
  end
  return columns, rows
end

local max_reason_bytes = 500

-- A skipped trial says in words why; of an error the lines after the first are a trace of Lua.
local function whole_reason(point)
  local reason = point.reason or "no reason"
  if point.status ~= "skipped" then return reason:match "^[^\n]*" end
  return text.cut(reason:gsub("%s*\n%s*", " "):match "^%s*(.-)%s*$", max_reason_bytes)
end

local max_listed_points = 3

--- "2 points: n 1; n 2": which points a group of content.missing has.
---@param group {points: string[]}
---@return string
function content.points_text(group)
  local count = #group.points
  local words, listed = text.count(count, "point"), {}
  for i = 1, math.min(max_listed_points, count) do
    if group.points[i] ~= "" then listed[#listed + 1] = group.points[i] end
  end
  if #listed == 0 then return words end
  if count > max_listed_points then listed[#listed + 1] = ".." end
  return ("%s: %s"):format(words, table.concat(listed, "; "))
end

--- The points without a result, grouped by status and reason.
---@param results attune.Results
---@return {status: attune.Status, reason: string, points: string[]}[]
function content.missing(results)
  local groups, order = {}, {}
  for _, point in ipairs(results.points) do
    if point.status ~= "ok" then
      local reason = whole_reason(point)
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
  local more = ("%ss (%s)"):format(repeats.word(results), repeats.option(results))
  if half == all then return ("%s To narrow them takes %s %s."):format(s, all, more) end
  local format = "%s To narrow half of them takes %s %s, all of them %s."
  return format:format(s, half, more, all)
end

-- How many rounds would do is said by rounds_sentence.
local said_elsewhere = {rounds = true}

--- How much was measured and how steady it is, in a few sentences.
---@param results attune.Results
---@return string
function content.summary(results)
  local ok = 0
  for _, point in ipairs(results.points) do
    if point.status == "ok" then ok = ok + 1 end
  end
  local counts, rounds = repeats.rounds(results)
  local word = results.seeds and "trial" or "round"
  local each = rounds == 1 and "one " .. word or ("%s %ss"):format(counts, word)
  local s = ("%d of %d points measured, %s each."):format(ok, #results.points, each)
  local unstable = steadiness.summary(results, "The method below has all.", said_elsewhere)
  for _, sentence in ipairs(unstable) do s = s .. " " .. sentence end
  return s .. (rounds_sentence(results) or "")
end

-- The smallest and the largest number of samples of one round over all values.
local function sample_counts(results)
  local low, high
  for _, point in ipairs(results.points) do
    for _, value in pairs(point.metrics) do
      for _, list in ipairs(value.samples) do
        low, high = math.min(low or #list, #list), math.max(high or #list, #list)
      end
    end
  end
  return low or 0, high or 0
end

-- "Each point was measured in 3 rounds .."
local function rounds_words(results)
  local low, high
  for _, point in ipairs(results.points) do
    if point.status == "ok" then
      low, high = math.min(low or point.rounds, point.rounds), math.max(high or 0, point.rounds)
    end
  end
  if not low then return "No point was measured." end
  local count = low == high and tostring(low) or ("%d to %d"):format(low, high)
  local word = results.seeds and "trial" or "round"
  local seeds = results.seeds and ", with " .. text.count(#results.seeds, "seed") or ""
  return ("Each point was measured in %s %s%s%s; a round visits all points before the next "
    .. "begins."):format(count, word, count == "1" and "" or "s", seeds)
end

local function distinct_facts(results, field)
  local list, seen = {}, {}
  for _, p in ipairs(results.provenance) do
    local value = p[field]
    if value ~= nil and not seen[value] then list[#list + 1] = tostring(value) end
    if value ~= nil then seen[value] = true end
  end
  return table.concat(list, "; ")
end

--- How the results were measured, in sentences made from the records.
---@param results attune.Results
---@return string[]
function content.method(results)
  local out, low, high = {rounds_words(results)}, sample_counts(results)
  if high > 1 then
    local count = low == high and tostring(low) or ("%d to %d"):format(low, high)
    out[#out + 1] = ("A round of a metric holds %s samples; their median is the round's value.")
      :format(count)
  end
  local sentence = stats.sentence(results.points, true, repeats.word(results))
  if sentence ~= "" then out[#out + 1] = sentence end
  local unstable = steadiness.sentences(results, said_elsewhere)
  table.move(unstable, 1, #unstable, #out + 1, out)
  local declared = results.method or {}
  if declared.timing ~= nil then
    out[#out + 1] = declared.timing and "No trial ran beside another one."
      or "Trials may have run beside each other."
  end
  if declared.timeout then
    out[#out + 1] = ("A trial was ended after %s."):format(text.duration(declared.timeout))
  end
  if declared.memory then
    out[#out + 1] = ("A trial may use %s of memory."):format(text.quantity(declared.memory, "B"))
  end
  local runs = #results.provenance
  local machines = distinct_facts(results, "cpu")
  if machines ~= "" then
    out[#out + 1] = ("%s on: %s."):format(text.count(runs, "run"), machines)
  end
  local versions = distinct_facts(results, "attune")
  if versions ~= "" then
    out[#out + 1] = ("attune %s, instruction set %s, threads %s."):format(versions,
      distinct_facts(results, "isa"), distinct_facts(results, "threads"))
  end
  for _, m in ipairs(results.metrics) do
    if m.about then
      local better = m.better and (" (%s is better)"):format(m.better) or ""
      out[#out + 1] = ("%s: %s%s."):format(m.name, m.about:gsub("%.$", ""), better)
    end
  end
  return out
end

-- "held", "2 failed" ..: how many claims have each verdict.
---@param results attune.Results
---@return string "" without claims
function content.verdicts(results)
  local counts, parts = {}, {}
  for _, c in ipairs(results.claims) do counts[c.verdict] = (counts[c.verdict] or 0) + 1 end
  for _, verdict in ipairs {"held", "failed", "undecided"} do
    if counts[verdict] then parts[#parts + 1] = ("%d %s"):format(counts[verdict], verdict) end
  end
  return table.concat(parts, ", ")
end

--- Where a claim comes from, and what was found there; nil for a claim of the script's own.
---@param claim attune.ClaimVerdict
---@return string?
function content.origin(claim)
  if not claim.source and not claim.paper then return nil end
  local paper = claim.paper and ("reports %s"):format(text.plain(claim.paper))
  if claim.source and paper then return ("%s %s"):format(claim.source, paper) end
  return claim.source or "the paper " .. paper
end

return content
