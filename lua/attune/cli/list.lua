local files = require "attune.util.files"
local folder_of = require "attune.cli.folder"
local output = require "attune.cli.output"
local place = require "attune.place"
local script_text = require "attune.experiment.script_text"
local store = require "attune.results.store"

local list = {summary = "list experiments, and the results in the folder results"}

function list.options(parser)
  parser:argument("folder", "folder of scripts; by default experiments, here or attune's own")
    :args "?"
    :convert(folder_of)
end

local max_script_bytes = 1 << 20

-- What a script asks, read from its text: listing a folder runs nothing in it.
local function about(path)
  local source, why = files.read(path, max_script_bytes)
  local outline
  if source then outline, why = script_text.outline(source) end
  if not outline then return "not an experiment: " .. why end
  if outline.about then return outline.about end
  return "its text does not say what it is about as a plain string; attune show runs it"
end

function list.run(args)
  local here = files.kind "experiments" == "directory" and "experiments"
  local folder = args.folder or here or place.folder "experiments"
  if not folder or files.kind(folder) ~= "directory" then
    local name = folder or "experiments"
    output.complain("attune list", name .. ": expected a folder of scripts")
    return 2
  end
  for _, name in ipairs(files.list(folder)) do
    if name:find "%.lua$" then
      output.line(("%-32s %s"):format(folder .. "/" .. name, about(folder .. "/" .. name)))
    end
  end
  for _, name in ipairs(files.list "results") do
    local path = "results/" .. name
    local description = store.description(path)
    if description then
      output.line(("%-32s results of %s"):format(path, description.script or "?"))
    end
  end
  return 0
end

return list
