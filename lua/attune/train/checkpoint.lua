--- Checkpoints: one safetensors file with everything that a run needs to go on. It is written
--- beside the old one, flushed and renamed, so that a run that is killed, or a full disk, leaves
--- one whole.
local core = require "attune.core"
local json = require "attune.util.json"
local options = require "attune.util.options"
local sorted_keys = require "attune.util.tables".sorted_keys

local checkpoint = {}

local format = "attune.train.1"

local names = {"model", "optimizer", "data", "validate"}

--- Whether a checkpoint can keep the state of a model, an optimiser or data.
function checkpoint.is_part(x)
  return type(x) == "table" and type(x.state) == "function" and type(x.load_state) == "function"
end

local function parts_of(o)
  local parts = {}
  for _, name in ipairs(names) do
    local part = o[name]
    if part ~= nil and not checkpoint.is_part(part) then
      core._raise(("%s: expected an object with state() and load_state(), got %s"):format(
        name, options.describe(part)))
    end
    parts[name] = part
  end
  return parts
end

--- The state of data or of validate, which is written as JSON. Raises where it cannot be.
---@param name "data"|"validate"
---@param part table
---@return any
function checkpoint.state_of(name, part)
  local state = part:state()
  local ok, why = pcall(json.encode, state)
  if state == nil or not ok then
    core._raise(("%s: expected state() to give what JSON can hold: %s"):format(name, state == nil
      and "expected numbers, strings, booleans and tables, got nil" or why:gsub("^.-json: ", "")))
  end
  return state
end

local function check_path(path)
  if type(path) ~= "string" or path == "" then
    core._raise(("path: expected the name of a file, got %s"):format(options.describe(path)))
  end
end

local function check_record(o)
  if o.step ~= nil and (math.type(o.step) ~= "integer" or o.step < 0) then
    core._raise(("step: expected an integer of at least 0, got %s"):format(
      options.describe(o.step)))
  end
  local ok = type(o.extra) == "table" and pcall(json.encode, o.extra)
  if o.extra ~= nil and not ok then
    core._raise(("extra: expected a table of numbers, strings and lists of them, got %s"):format(
      type(o.extra) == "table" and "one with other values" or options.describe(o.extra)))
  end
end

--- Writes a checkpoint. It also holds where draws of random numbers without a seed go on.
---@param path string
---@param given {model: table, optimizer: table, data: table, validate: table, step: integer,
--- extra: table} data and validate: a loader or a task; extra: numbers, strings and lists of them,
--- which load gives back
---@return true? ok
---@return string? message
---@return string|integer? code
function checkpoint.save(path, given)
  check_path(path)
  local o = options.read(given, {"step", "extra", table.unpack(names)}, 2, "state",
    "{model = , optimizer = , step = }")
  local parts = parts_of(o)
  check_record(o)
  local tensors = {}
  local record = {
    format = format, step = o.step or 0, extra = o.extra, isa = core.machine().isa,
    cpu = core.machine().cpu, random = {core._seeds()},
  }
  for name, tensor in next, parts.model and parts.model:state() or {} do
    tensors["model." .. name] = tensor
  end
  if parts.optimizer then
    local state = parts.optimizer:state()
    for name, tensor in next, state.moments do tensors["optimizer." .. name] = tensor end
    record.optimizer = {kind = state.kind, steps = state.steps, lr = state.lr}
  end
  record.data = parts.data and checkpoint.state_of("data", parts.data)
  record.validate = parts.validate and checkpoint.state_of("validate", parts.validate)
  return core.save(path, tensors, {checkpoint = json.encode(record)})
end

local function malformed(path, why)
  return nil, ("%s: expected a checkpoint of attune.train, got %s"):format(path, why), "EFORMAT"
end

-- The tensors whose names begin with the prefix, without it.
local function below(tensors, prefix)
  local found = {}
  for name, tensor in next, tensors do
    if name:sub(1, #prefix) == prefix then found[name:sub(#prefix + 1)] = tensor end
  end
  return found
end

-- The states of the parts, read from the file: {name = state}.
local function states_of(parts, tensors, record)
  local states = {model = below(tensors, "model.")}
  if parts.optimizer then
    local state = record.optimizer
    if type(state) ~= "table" then core._raise "optimizer: expected its state, got none" end
    states.optimizer = {
      kind = state.kind, steps = state.steps, lr = state.lr,
      moments = below(tensors, "optimizer."),
    }
  end
  if parts.data then
    if record.data == nil then core._raise "data: expected its state, got none" end
    states.data = record.data
  end
  states.validate = record.validate
  return states
end

-- JSON has no NaN and no infinities; see json.number.
local function numbers_of(x)
  if type(x) ~= "table" then return json.number(x) or x end
  local copy = {}
  for key, value in next, x do copy[key] = numbers_of(value) end
  return copy
end

-- A state that later changes of the part do not reach.
local function copy_of(state)
  if core._kind(state) == "tensor" then return state:clone() end
  if type(state) ~= "table" then return state end
  local copy = {}
  for key, value in next, state do copy[key] = copy_of(value) end
  return copy
end

-- A model's load_state converts values, but a run in another dtype would not go on with the same
-- bits.
local function check_dtypes(model, state)
  local own = model and model:state() or {}
  for _, name in ipairs(sorted_keys(own)) do
    local tensor, other = own[name], state[name]
    if other and other.dtype ~= tensor.dtype then
      core._raise(("%s: expected dtype %s, got %s; load the weights with attune.load and "
        .. "model:load_state to convert them"):format(name, tensor.dtype, other.dtype))
    end
  end
end

-- Loads all parts, or none. A part with check_state says beforehand whether its state fits, and is
-- loaded last. Other parts get back what they had where one does not fit.
local function restore(parts, states)
  check_dtypes(parts.model, states.model)
  local others = {}
  for name, part in next, parts do
    if part.check_state then part:check_state(states[name]) else others[#others + 1] = name end
  end
  local before = {}
  local ok, why = pcall(function()
    for _, name in ipairs(others) do
      before[name] = copy_of(parts[name]:state())
      parts[name]:load_state(states[name])
    end
  end)
  if not ok then
    for name, state in next, before do pcall(parts[name].load_state, parts[name], state) end
    error(why, 0)
  end
  for name, part in next, parts do
    if part.check_state then part:load_state(states[name]) end
  end
end

--- Reads a checkpoint into a model, an optimiser and a loader of the same options. One that does
--- not fit changes none of them. Draws of random numbers without a seed go on as after save.
---@param path string
---@param given {model: table, optimizer: table, data: table, validate: table}
---@return {step: integer, extra: table, warnings: string[]}? record warnings: the processor or its
--- instruction set is another one, or the checkpoint has no state of validate, so that the bits may
--- differ
---@return string? message the file cannot be read, or does not fit
---@return string|integer? code
function checkpoint.load(path, given)
  check_path(path)
  local parts = parts_of(
    options.read(given, names, 2, "state", "{model = , optimizer = }"))
  local tensors, texts, code = core.load(path)
  if not tensors then return nil, texts, code end
  local record = texts.checkpoint and json.decode(texts.checkpoint)
  if type(record) ~= "table" or record.format ~= format then
    return malformed(path, "another file")
  end
  if math.type(record.step) ~= "integer" or record.step < 0 then
    return malformed(path, ("one of step %s"):format(options.describe(record.step)))
  end
  local random = record.random
  if random ~= nil and not (type(random) == "table" and math.type(random[1]) == "integer"
    and math.type(random[2]) == "integer")
  then
    return malformed(path, "one whose field random is not two integers")
  end
  local warnings = {}
  if parts.validate and record.validate == nil then
    parts.validate = nil
    warnings[1] = "the checkpoint has no position of the data of validation, which goes on where "
      .. "it is: validation losses may differ from those of an uninterrupted run"
  end
  local ok, why = pcall(function() restore(parts, states_of(parts, tensors, record)) end)
  if not ok then
    if why == "interrupted!" then error(why, 0) end
    why = tostring(why):gsub("^[^\n]-%.lua:%d+: ", "")
    return nil, ("%s: the checkpoint does not fit: %s"):format(path, why), "EFORMAT"
  end
  -- Checkpoints of earlier versions have none.
  if record.random then core._seeds(record.random[1], record.random[2]) end
  if record.isa ~= core.machine().isa then
    warnings[#warnings + 1] = ("the checkpoint was written with ATTUNE_ISA=%s, this is %s: the "
      .. "bits of what follows may differ"):format(record.isa, core.machine().isa)
  elseif record.cpu ~= core.machine().cpu then
    warnings[#warnings + 1] = ("the checkpoint was written on another processor, %s: the bits of "
      .. "what follows may differ"):format(record.cpu)
  end
  return {step = record.step, extra = numbers_of(record.extra or {}), warnings = warnings}
end

return checkpoint
