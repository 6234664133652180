--- Models: presets and what they cost, files, generation, text. Each subject is a file of this
--- folder that is loaded when it is first used.
local config = require "attune.model.config"
local options = require "attune.util.options"
local presets = require "attune.model.presets"
local suggest = require "attune.util.suggest"

local model = {}

local function copied(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, inner in pairs(value) do copy[key] = copied(inner) end
  return copy
end

--- The names of the presets.
---@return string[]
function model.presets()
  local names = {}
  for i, preset in ipairs(presets) do names[i] = preset.name end
  return names
end

--- The configuration of a published model, a copy that may be changed.
---@param name string
---@param changes? table fields in place of the preset's, such as {kv_heads = 1}
---@return attune.model.Config
function model.preset(name, changes)
  if type(name) ~= "string" then
    error(("name: expected the name of a preset, got %s"):format(options.describe(name)), 2)
  end
  for _, preset in ipairs(presets) do
    if preset.name == name then
      local cfg = config.new(copied(preset))
      if changes == nil then return cfg end
      cfg = config.with(cfg, changes, 2)
      return cfg
    end
  end
  error(("unknown preset '%s'; %s"):format(name, suggest(name, model.presets())), 2)
end

--- A configuration of your own, from the fields that presets have.
---@param fields table layers, d_model, heads, head_dim, kv_heads, d_ff, vocab, mlp, norm, position,
---  block = "serial"|"parallel", and what presets.lua lists
---@return attune.model.Config
function model.config(fields)
  local o = options.read(fields, config.fields, 2, "fields", "such as {layers = 2, ..}")
  local cfg = config.with({}, o, 2)
  return cfg
end

--- The names of the hardware table; the last one, "this", is the machine that runs.
---@return string[]
function model.hardware_names() return require "attune.model.hardware".names() end

--- Memory, bandwidth and peak of one chip. "this" is measured now.
---@param name string
---@return attune.model.Hardware
function model.hardware(name)
  if type(name) ~= "string" then
    error(("name: expected the name of hardware, got %s"):format(options.describe(name)), 2)
  end
  local chip = require "attune.model.hardware".get(name, 2)
  return chip
end

--- Loads a model to run it: a Hugging Face folder (config.json, *.safetensors) or a GGUF file.
---@param path string
---@param given? {unknown?: "warn", compute?: "f32"|"i8"} unknown fields of config.json become
---  m.warnings. compute: "f32", the default, multiplies the exact weights with activations of f32.
---  "i8" quantises activations to 8 bits, 32 at a time, and multiplies weights that are stored in
---  blocks (Q8_0 to Q6_K) in integers
---@return attune.model.Model? model nil, a message and a code where it cannot be read
---@return string? message
---@return any code
function model.load(path, given)
  if type(path) ~= "string" then
    error(("path: expected a folder or a file, got %s"):format(options.describe(path)), 2)
  end
  local o = options.read(given, {"unknown", "compute"}, 2)
  if o.unknown ~= nil and o.unknown ~= "warn" then
    error(("unknown: expected \"warn\", got %s"):format(options.describe(o.unknown)), 2)
  end
  if o.compute ~= nil and o.compute ~= "f32" and o.compute ~= "i8" then
    error(("compute: expected \"f32\" or \"i8\", got %s"):format(options.describe(o.compute)), 2)
  end
  local m, message, code = require "attune.model.model_loader".load(path, o)
  return m, message, code
end

--- A tokenizer from a tokenizer.json, a folder that holds one, or a GGUF file.
---@param path string
---@return attune.Tokenizer? tokenizer nil, a message and perhaps an errno where it cannot be read
---@return string? message
---@return integer? code
function model.tokenizer(path)
  local tokenizer, why, code = require "attune.text".load(path, 2)
  return tokenizer, why, code
end

return model
