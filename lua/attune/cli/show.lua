local experiment = require "attune.experiment"
local files = require "attune.files"
local runner = require "attune.runner"
local store = require "attune.store"
local text = require "attune.text"

local show = {summary = "show a folder of results as a table, or what a script declares"}

function show.options(parser)
  parser:argument("what", "a folder of results, or an experiment's script")
end

local function show_results(results)
  print(results.name .. (results.about and ": " .. results.about or ""))
  for _, line in ipairs(text.results(results)) do print(line) end
  for _, point in ipairs(results.points) do
    if point.reason then print(("%s: point %d: %s"):format(point.status, point.index, point.reason:match "^[^\n]*")) end
  end
  for _, c in ipairs(results.claims) do print(("%-9s  %s  (%s)"):format(c.verdict, c.text, c.detail or "")) end
  for _, w in ipairs(results.warnings) do print("warning: " .. w) end
end

local function show_script(e)
  print(e.name .. (e.about and ": " .. e.about or ""))
  local n = experiment.narrowed(e, {})
  local q = experiment.narrowed(e, {quick = true})
  print(("%d points, %d rounds; --quick: %d points, %d rounds"):format(#runner.points(n), n.rounds, #runner.points(q), q.rounds))
  for _, name in ipairs(n.parameters) do
    local values = {}
    for i, v in ipairs(n.grid[name] or {n.fixed[name]}) do values[i] = text.plain(v) end
    print(("  %-12s %s"):format(name, #values > 0 and table.concat(values, ", ") or "derived"))
  end
  for _, claim in ipairs(n.claims or {}) do print("  claim: " .. claim[1]) end
end

function show.run(args)
  if files.kind(args.what) == "directory" then
    local results, why = store.read(args.what)
    if not results then
      io.stderr:write("attune show: ", why, "\n")
      return 2
    end
    show_results(results)
    return 0
  end
  local e, why = experiment.load(args.what)
  if not e then
    io.stderr:write("attune show: ", why, "\n")
    return 2
  end
  show_script(e)
  return 0
end

return show
