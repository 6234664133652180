local experiment = require "attune.experiment"
local files = require "attune.util.files"
local place = require "attune.place"
local store = require "attune.results.store"

local list = {summary = "list experiments, and the results in the folder results"}

function list.options(parser)
  parser:argument("folder", "folder of scripts; by default experiments, here or attune's own")
    :args "?"
end

function list.run(args)
  local here = files.kind "experiments" == "directory" and "experiments"
  local folder = args.folder or here or place.folder "experiments"
  if not folder or files.kind(folder) ~= "directory" then
    local name = folder or "experiments"
    io.stderr:write(("attune list: %s: expected a folder of scripts\n"):format(name))
    return 2
  end
  for _, name in ipairs(files.list(folder)) do
    if name:find "%.lua$" then
      local e, why = experiment.load(folder .. "/" .. name)
      print(("%-32s %s"):format(folder .. "/" .. name, e and e.about or why))
    end
  end
  for _, name in ipairs(files.list "results") do
    local path = "results/" .. name
    local description = store.description(path)
    if description then print(("%-32s results of %s"):format(path, description.script or "?")) end
  end
  return 0
end

return list
