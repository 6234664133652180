--- model.load: a Hugging Face folder or a GGUF file becomes a model that runs.
local attune = require "attune"
local architectures = require "attune.model.architectures"
local decoder = require "attune.model.network.decoder"
local files = require "attune.util.files"
local generation_config = require "attune.model.generation_config"
local gguf_loader = require "attune.model.gguf_loader"
local options = require "attune.util.options"
local published_config = require "attune.model.network.published_config"
local running = require "attune.model.running"
local suggest = require "attune.util.suggest"
local weights = require "attune.model.network.weights"

local loader = {}

-- A configuration is small; a tokenizer's file, which is not read here, may be large.
local max_config = 10 << 20

-- Codes of errors, as attune.open gives them.
local no_file, is_folder, other = 2, 21, 22

local function kind_of(path)
  local stat = require "luv".fs_stat(path)
  return stat and stat.type
end

local function is_file(path) return kind_of(path) == "file" end

local function open_tensors(folder)
  for _, name in ipairs {"model.safetensors", "model.safetensors.index.json"} do
    if is_file(folder .. "/" .. name) then return attune.open(folder .. "/" .. name) end
  end
  return nil, folder .. ": expected model.safetensors or model.safetensors.index.json", no_file
end

local function read_config(path)
  local text, message = files.read(path, max_config)
  if not text then
    local kind = kind_of(path)
    return nil, message, not kind and no_file or kind == "directory" and is_folder or other
  end
  local config, nulls = published_config.decode(text, path)
  if not config then return nil, nulls, "EFORMAT" end
  return config, nulls
end

local function architecture_of(config)
  if type(config.model_type) ~= "string" then
    error(("config.json: model_type: expected a text, got %s"):format(
      options.describe(config.model_type)), 0)
  end
  local found = architectures.get(config.model_type)
  if not found then
    error(("config.json: unknown model_type '%s'; %s"):format(
      config.model_type, suggest(config.model_type, architectures.names())), 0)
  end
  return found
end

-- A configuration may say what no check foresees, so that describing a model of it fails.
local function description_of(architecture, c)
  local ok, description = pcall(architecture.describe, c)
  if ok then return description end
  local message = tostring(description):gsub("^%S+%.lua:%d+: ", "")
  error(message == description and message
    or "config.json: no model can be made of it: " .. message, 0)
end

-- Builds the model. Errors are texts, or tables of a file's failure. given: the options of load;
-- nulls: the fields of config that the file says are null; change(c) changes the fields that were
-- read.
local function build(config, file, given, nulls, change)
  local architecture = architecture_of(config)
  local c, warnings = published_config.read(config, architecture, {
    unknown = given.unknown, nulls = nulls, tensors = #file.names,
  })
  if change then change(c) end
  local w = weights.new(file, architecture.prefixes, architecture.probe, given.compute)
  w:ignore {"rotary_emb%.inv_freq$"} -- in old files of any architecture
  w:ignore(architecture.unused or {})
  local description = description_of(architecture, c)
  w:ignore(description.unused or {})
  local network = (architecture.network or decoder).new(w, description)
  w:finish()
  return running.new {
    network = network, description = description, config = config, warnings = warnings,
    eos = c.eos_token_id,
  }
end

-- What build made, or nil, a message and a code.
local function result_of(path, ok, result)
  if ok then return result end
  if type(result) == "table" then return nil, result.message, result.code end
  -- An error of Lua itself is not one of the file.
  if type(result) ~= "string" or result:find "^%S+%.lua:%d+:" then error(result, 0) end
  return nil, ("%s: %s"):format(path, result), "EFORMAT"
end

-- A GGUF file has metadata in place of a config.json.
local function of_metadata(message)
  return (message:gsub("config%.json: ", "metadata: "))
end

-- A folder with config.json and *.safetensors, and perhaps generation_config.json, whose ids end a
-- text in place of those of config.json, as in transformers.
local function load_folder(path, given)
  local config, nulls, code = read_config(path .. "/config.json")
  if not config then return nil, nulls, code end
  local generation, bad, its_code =
    generation_config.read(path .. "/generation_config.json", read_config)
  if not generation then return nil, bad, its_code end
  local file, why, kind = open_tensors(path)
  if not file then return nil, why, kind end
  local m, message
  m, message, code = result_of(path, pcall(build, config, file, given, nulls))
  file:close()
  if m and generation.eos ~= nil then m.eos = generation.eos end
  if m and is_file(path .. "/tokenizer.json") then m.tokenizer_path = path .. "/tokenizer.json" end
  return m, message, code
end

-- LLaMA 3's scaling comes as a factor per pair of dims.
local function rope_factors(file)
  local factors = file:info "rope_freqs.weight" and file:read("rope_freqs.weight", "f32")
  return factors and factors:tolist()
end

local function load_gguf(path, given)
  local file, message, code = attune.open(path)
  if not file then return nil, message, code end
  local metadata = file:_short_metadata()
  local renamed = gguf_loader.renamed(file, metadata["general.architecture"])
  local function make()
    local config, pairing = gguf_loader.config(metadata, renamed, file)
    -- Without a number of kv heads there are as many as heads, whatever the architecture's default.
    local nulls = {num_key_value_heads = true}
    return build(config, renamed, {compute = given.compute}, nulls, function(c)
      c.pairing, c.rope_factors = pairing, rope_factors(file)
    end)
  end
  local m
  m, message, code = result_of(path, pcall(make))
  file:close()
  if m then m.tokenizer_path = path end
  return m, message and of_metadata(message), code
end

--- A Hugging Face folder (config.json, *.safetensors) or a GGUF file.
---@param path string
---@param given {unknown?: "warn", compute?: "f32"|"i8"} as model.load has checked it
---@return attune.model.Model?
---@return string? message
---@return any code
function loader.load(path, given)
  local kind = kind_of(path)
  if not kind then return nil, path .. ": expected a folder or a GGUF file, got none", no_file end
  if kind == "directory" then return load_folder(path, given) end
  return load_gguf(path, given)
end

return loader
