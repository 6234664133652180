local files = require "attune.util.files"
local folder_of = require "attune.cli.folder"
local json = require "attune.util.json"
local output = require "attune.cli.output"
local place = require "attune.place"
local script_text = require "attune.experiment.script_text"
local store = require "attune.results.store"

local list = {summary = "list experiments, and the results in the folder results"}

function list.options(parser)
  parser:argument("folder", "folder of scripts; by default experiments, here or attune's own")
    :args "?"
    :convert(folder_of)
  parser:flag("--json", "write JSON: one object per script and per folder of results")
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

-- The scripts of a folder, and the folders of results in results.
local function entries_of(folder)
  local entries = json.list()
  for _, name in ipairs(files.list(folder)) do
    local path = folder .. "/" .. name
    if name:find "%.lua$" then
      entries[#entries + 1] = {kind = "script", path = path, about = about(path)}
    end
  end
  for _, name in ipairs(files.list "results") do
    local path = "results/" .. name
    local description = store.description(path)
    if description then
      entries[#entries + 1] = {
        kind = "results", path = path, name = description.name, about = description.about,
        script = description.script,
      }
    end
  end
  return entries
end

function list.run(args)
  local here = files.kind "experiments" == "directory" and "experiments"
  local folder = args.folder or here or place.folder "experiments"
  if not folder or files.kind(folder) ~= "directory" then
    local name = folder or "experiments"
    output.complain("attune list", name .. ": expected a folder of scripts")
    return 2
  end
  local entries = entries_of(folder)
  if args.json then
    output.write(json.encode(entries) .. "\n")
    return 0
  end
  local widest = 0
  for _, entry in ipairs(entries) do widest = math.max(widest, utf8.len(entry.path) or 0) end
  for _, entry in ipairs(entries) do
    local words = entry.kind == "script" and entry.about or "results of " .. (entry.script or "?")
    local blanks = (" "):rep(widest - (utf8.len(entry.path) or widest) + 1)
    output.line(entry.path .. blanks .. words)
  end
  return 0
end

return list
