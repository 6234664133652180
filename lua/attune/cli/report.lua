local folder = require "attune.cli.folder"
local output = require "attune.cli.output"
local store = require "attune.results.store"

local report = {summary = "write the report of a folder of results again"}

function report.options(parser)
  parser:argument("dir", "a folder of results"):convert(folder)
end

function report.run(args)
  local results, why = store.read(args.dir)
  if not results then
    output.complain("attune report", why)
    return 2
  end
  local made, failed = require "attune.report".write(results, args.dir)
  if not made then
    output.complain("attune report", failed)
    return 1
  end
  for _, path in ipairs(made) do output.line(path) end
  return 0
end

return report
