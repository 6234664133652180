local folder = require "attune.cli.folder"
local json = require "attune.util.json"
local matching = require "attune.cli.matching"
local output = require "attune.cli.output"
local results_table = require "attune.cli.results_table"
local rows = require "attune.results.rows"
local store = require "attune.results.store"

local query = {summary = "show the points of a folder of results for which a condition holds"}

function query.options(parser)
  parser:argument("dir", "a folder of results"):convert(folder)
  parser:argument("expr", "a condition over parameters, metrics, METRIC.lo, METRIC.hi and status, "
    .. "such as 'heads == 8 and seconds < 1e-3'")
  parser:flag("--json", "write JSON, one object per point, as export does")
end

local function misuse(message)
  output.complain("attune query", message)
  return 2
end

function query.run(args)
  local results, why = store.read(args.dir)
  if not results then return misuse(why) end
  local ok, kept = pcall(matching, results, args.expr)
  if not ok then return misuse(kept) end
  local all = #results.points
  results.points = kept
  if args.json then
    output.write(json.encode(rows.of_points(results)) .. "\n")
    return 0
  end
  if #kept > 0 then
    for _, line in ipairs(results_table(results)) do output.line(line) end
  end
  output.line(("%d of %d points"):format(#kept, all))
  return 0
end

return query
