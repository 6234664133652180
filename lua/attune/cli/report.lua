local store = require "attune.results.store"

local report = {summary = "write the report of a folder of results again"}

function report.options(parser)
  parser:argument("dir", "a folder of results")
end

function report.run(args)
  local results, why = store.read(args.dir)
  if not results then
    io.stderr:write("attune report: ", why, "\n")
    return 2
  end
  local made, failed = require "attune.report".write(results, args.dir)
  if not made then
    io.stderr:write("attune report: ", failed, "\n")
    return 1
  end
  for _, path in ipairs(made) do print(path) end
  return 0
end

return report
