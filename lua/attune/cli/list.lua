local experiment = require "attune.experiment"
local files = require "attune.files"
local place = require "attune.place"
local store = require "attune.store"

local list = {summary = "list experiments, and results in the folder results"}

function list.options(parser)
  parser:argument("folder", "where the scripts are (attune's own experiments)"):args "?"
end

function list.run(args)
  local folder = args.folder or (files.kind "experiments" == "directory" and "experiments") or place.folder "experiments"
  if not folder or files.kind(folder) ~= "directory" then
    io.stderr:write(("attune list: %s: expected a folder of scripts\n"):format(folder or "experiments"))
    return 2
  end
  for _, name in ipairs(files.list(folder)) do
    if name:find "%.lua$" then
      local e, why = experiment.load(folder .. "/" .. name)
      print(("%-32s %s"):format(folder .. "/" .. name, e and e.about or why))
    end
  end
  for _, name in ipairs(files.list "results") do
    local description = store.description("results/" .. name)
    if description then print(("%-32s results of %s"):format("results/" .. name, description.script or "?")) end
  end
  return 0
end

return list
