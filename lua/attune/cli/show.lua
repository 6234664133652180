local axes = require "attune.experiment.axes"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local folder = require "attune.cli.folder"
local json = require "attune.util.json"
local output = require "attune.cli.output"
local papers = require "attune.report.papers"
local plan = require "attune.experiment.plan"
local results_table = require "attune.cli.results_table"
local rows = require "attune.results.rows"
local store = require "attune.results.store"
local text = require "attune.util.text"

local show = {summary = "show a folder of results as a table, or what a script declares"}

function show.options(parser)
  parser:argument("what", "a folder of results, or the script of an experiment"):convert(folder)
  parser:flag("--json", "write JSON: what was found, or what the script declares")
  parser:flag("--output", "show what each trial printed")
end

-- The first line of a message, and not more of it than a reader reads.
local max_shown_bytes = 1000
local function shown(message) return text.cut(message:match "^[^\n]*", max_shown_bytes) end

local function print_title(x) output.line(x.name .. (x.about and ": " .. x.about or "")) end

local function show_results(results)
  print_title(results)
  for _, line in ipairs(results_table(results)) do output.line(line) end
  for _, point in ipairs(results.points) do
    if point.reason then
      output.line(("%s: point %d: %s"):format(point.status, point.index, shown(point.reason)))
    end
  end
  for _, c in ipairs(results.claims) do
    local origin = papers.origin(c)
    output.line(("%-9s  %s  (%s)%s"):format(c.verdict, c.text, shown(c.detail or ""),
      origin and " " .. origin or ""))
  end
  for _, w in ipairs(results.warnings) do output.line("warning: " .. shown(w)) end
end

-- What each trial printed, with its parameters; lines stay lines.
local function show_output(dir)
  for _, record in ipairs((store.records(dir))) do
    if record.output then
      local parts = {}
      for name, value in pairs(record.parameters) do
        parts[#parts + 1] = name .. " " .. text.plain(value)
      end
      table.sort(parts)
      output.line(("%s, round %d: %s"):format(table.concat(parts, ", "), record.round,
        record.status))
      for line in record.output:gmatch "[^\n]+" do output.line("  " .. line) end
    end
  end
end

local function show_script(e)
  print_title(e)
  local n = experiment.narrowed(e, {})
  local q = experiment.narrowed(e, {quick = true})
  output.line(("%d points, %d rounds; --quick: %d points, %d rounds")
    :format(#plan.points(n), n.rounds, #plan.points(q), q.rounds))
  if n.seeds then output.line("  seeds        " .. table.concat(n.seeds, ", ")) end
  for _, name in ipairs(n.parameters) do
    local values = {}
    for i, v in ipairs(axes.values(n, name) or {}) do values[i] = text.plain(axes.shown(v)) end
    local sampled = n.sample and n.sample.ranges[name]
    local list = #values > 0 and table.concat(values, ", ")
      or sampled and ("sampled (%s)"):format(n.sample.method or "random") or "derived"
    output.line(("  %-12s %s"):format(name, list))
  end
  for _, claim in ipairs(n.claims or {}) do output.line("  claim: " .. claim[1]) end
end

-- What a folder of results holds, for programs.
local function results_json(results)
  local claims, warnings = json.list(), json.list()
  for i, c in ipairs(results.claims) do
    claims[i] = {
      text = c.text, verdict = c.verdict, detail = c.detail, source = c.source, paper = c.paper,
    }
  end
  for i, w in ipairs(results.warnings) do warnings[i] = w end
  return json.encode {
    name = results.name, about = results.about, script = results.script, command = results.command,
    quick = results.quick or false, parameters = json.list(results.parameters),
    points = rows.of_points(results), claims = claims, warnings = warnings,
  }
end

-- What a script declares, for programs.
local function script_json(e)
  local n = experiment.narrowed(e, {})
  local parameters, claims = {}, json.list()
  for _, name in ipairs(n.parameters) do
    local values = json.list()
    for i, v in ipairs(axes.values(n, name) or {}) do values[i] = axes.shown(v) end
    parameters[name] = values
  end
  for i, claim in ipairs(n.claims or {}) do claims[i] = claim[1] end
  return json.encode {
    name = n.name, about = n.about, points = #plan.points(n), rounds = n.rounds,
    parameters = parameters, claims = claims,
  }
end

local function print_json(make, value) output.write(make(value) .. "\n") end

function show.run(args)
  local is_results = files.kind(args.what) == "directory"
  local value, why = (is_results and store.read or experiment.load)(args.what)
  if not value then
    output.complain("attune show", why)
    return 2
  end
  if is_results then
    if args.output then show_output(args.what)
    elseif args.json then print_json(results_json, value)
    else show_results(value) end
    return 0
  end
  local ok, message
  if args.json then ok, message = pcall(print_json, script_json, value)
  else ok, message = pcall(show_script, value) end
  if ok then return 0 end
  output.complain("attune show", message)
  return 2
end

return show
