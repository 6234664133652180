local folder = require "attune.cli.folder"
local output = require "attune.cli.output"
local store = require "attune.results.store"

local plot = {summary = "draw the plots of a folder of results again"}

function plot.options(parser)
  parser:argument("dir", "a folder of results"):convert(folder)
end

function plot.run(args)
  local results, why = store.read(args.dir)
  if not results then
    output.complain("attune plot", why)
    return 2
  end
  local made, failed = require "attune.plot".draw(results, args.dir)
  if not made then
    output.complain("attune plot", failed)
    return 1
  end
  for _, path in ipairs(made) do output.line(path) end
  output.warn("attune plot", failed)
  if #made == 0 then output.line "The experiment declares no plots." end
  return 0
end

return plot
