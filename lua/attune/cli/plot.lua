local store = require "attune.results.store"

local plot = {summary = "draw the plots of a folder of results again"}

function plot.options(parser)
  parser:argument("dir", "a folder of results")
end

function plot.run(args)
  local results, why = store.read(args.dir)
  if not results then
    io.stderr:write("attune plot: ", why, "\n")
    return 2
  end
  local made, failed = require "attune.plot".draw(results, args.dir)
  if not made then
    io.stderr:write("attune plot: ", failed, "\n")
    return 1
  end
  for _, path in ipairs(made) do print(path) end
  for _, warning in ipairs(failed) do io.stderr:write("attune plot: ", warning, "\n") end
  if #made == 0 then print "The experiment declares no plots." end
  return 0
end

return plot
