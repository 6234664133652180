local experiment = require "attune.experiment"
local files = require "attune.util.files"
local plan = require "attune.experiment.plan"
local results_table = require "attune.cli.results_table"
local store = require "attune.results.store"
local text = require "attune.util.text"

local show = {summary = "show a folder of results as a table, or what a script declares"}

function show.options(parser)
  parser:argument("what", "a folder of results, or the script of an experiment")
end

local function print_title(x) print(x.name .. (x.about and ": " .. x.about or "")) end

local function show_results(results)
  print_title(results)
  for _, line in ipairs(results_table(results)) do print(line) end
  for _, point in ipairs(results.points) do
    if point.reason then
      local reason = point.reason:match "^[^\n]*"
      print(("%s: point %d: %s"):format(point.status, point.index, reason))
    end
  end
  for _, c in ipairs(results.claims) do
    print(("%-9s  %s  (%s)"):format(c.verdict, c.text, c.detail or ""))
  end
  for _, w in ipairs(results.warnings) do print("warning: " .. w) end
end

local function show_script(e)
  print_title(e)
  local n = experiment.narrowed(e, {})
  local q = experiment.narrowed(e, {quick = true})
  print(("%d points, %d rounds; --quick: %d points, %d rounds"):format(#plan.points(n), n.rounds,
    #plan.points(q), q.rounds))
  for _, name in ipairs(n.parameters) do
    local values = {}
    for i, v in ipairs(n.grid[name] or {n.fixed[name]}) do values[i] = text.plain(v) end
    print(("  %-12s %s"):format(name, #values > 0 and table.concat(values, ", ") or "derived"))
  end
  for _, claim in ipairs(n.claims or {}) do print("  claim: " .. claim[1]) end
end

function show.run(args)
  local is_results = files.kind(args.what) == "directory"
  local value, why = (is_results and store.read or experiment.load)(args.what)
  if not value then
    io.stderr:write("attune show: ", why, "\n")
    return 2
  end
  if is_results then show_results(value) else show_script(value) end
  return 0
end

return show
