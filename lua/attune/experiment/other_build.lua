--- What another build of attune says of itself, for the header of the records that it measures.
local files = require "attune.util.files"
local json = require "attune.util.json"
local process = require "attune.util.process"
local text = require "attune.util.text"

local seconds = 60

-- What `attune info --json` says that belongs into a header, with the types expected.
local fields = {build = "string", isa = "string", features = "string", threads = "number"}

local function run(command, ...) return process.run({command, ...}, 1, seconds) end

---@param command string the attune command of the build
---@return table<string, any>? about fields of attune.Provenance, false where the build does not
--- say, and the `folder` of the command
---@return string? message
return function(command)
  if files.kind(command) ~= "file" then
    return nil, ("expected the attune command of another build, got no file %s"):format(command)
  end
  local ended, why = run(command, "--version")
  if not ended then return nil, ("%s: %s"):format(command, why) end
  local version = ended.code == 0 and ended.said:match "^attune ([^\n]*)"
  if not version then
    return nil, ("%s: expected the attune command of another build; --version gave status %s and "
      .. "'%s'"):format(command, ended.late and "timeout" or ended.code,
      text.cut(text.printable(ended.said), 60))
  end
  ended = run(command, "info", "--json")
  local info = ended and ended.code == 0 and json.decode(ended.said) or nil
  local about = {attune = version, folder = files.folder_of(command)}
  for name, kind in pairs(fields) do
    local value = type(info) == "table" and rawget(info, name)
    about[name] = type(value) == kind and value or false
  end
  return about
end
