-- Copies of golden models with another configuration and other tensors.
local attune = require "attune"
local files = require "attune.util.files"
local json = require "attune.util.json"
local model = require "attune.model"
local run = require "tests.support.run"

local source = "tests/golden/models/"

--- Calls body with a copy of a model's folder whose configuration and tensors `change` has changed.
local function with_folder(name, change, body)
  local folder = run.folder()
  assert(files.make_folder(folder))
  local config = json.decode(files.read(source .. name .. "/config.json"))
  local tensors = attune.load(source .. name .. "/model.safetensors")
  change(config, tensors)
  assert(files.write(folder .. "/config.json", json.encode(config)))
  assert(attune.save(folder .. "/model.safetensors", tensors))
  local ok, why = xpcall(body, debug.traceback, folder)
  run.remove(folder)
  if not ok then error(why, 0) end
end

--- The model of such a copy.
local function load(name, change)
  local m
  with_folder(name, change or function() end, function(folder) m = assert(model.load(folder)) end)
  return m
end

return {with_folder = with_folder, load = load, source = source}
