--- The tensors of a checkpoint by their names, in f32. What was taken is remembered, so that a
--- tensor that an architecture does not know is an error and not a model that computes something
--- else.
local core = require "attune.core"

local weights = {}
weights.__index = weights

-- What a matrix may stay in; others become f32.
local formats = {}
for name in ("F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K"):gmatch "%S+" do
  formats[name] = true
end

--- The tensors of an open file under one of some prefixes. compute: how matrices in blocks are
--- multiplied, see model.load.
---@param file attune.File
---@param prefixes string[] of published names, tried in this order
---@param probe string a name that is there, without its prefix
---@param compute? "f32"|"i8"
function weights.new(file, prefixes, probe, compute)
  local self = setmetatable({file = file, prefix = "", taken = {}, compute = compute}, weights)
  for _, prefix in ipairs(prefixes) do
    if file:info(prefix .. probe) then
      self.prefix = prefix
      break
    end
  end
  return self
end

-- Names that begin with "=" have no prefix.
local function full(self, name)
  if name:sub(1, 1) == "=" then return name:sub(2) end
  return self.prefix .. name
end

--- Whether the file has a tensor of that name.
function weights:has(name) return self.file:info(full(self, name)) ~= nil end

--- The tensor of that name, f32. Raises, without a position, where it is missing or has another
--- shape.
---@param name string
---@param shape integer[]
---@return attune.Tensor
function weights:get(name, shape)
  name = full(self, name)
  self:check(name, shape)
  local t, message, code = self.file:read(name, "f32")
  if not t then error({message = message, code = code}, 0) end
  return t
end

--- Raises unless there is a tensor of that whole name and shape; remembers it.
function weights:check(name, shape)
  local info = self.file:info(name)
  if not info then error(("expected a tensor '%s', got none"):format(name), 0) end
  local got, expected = table.concat(info.shape, ", "), table.concat(shape, ", ")
  if got ~= expected then
    error(("tensor '%s': expected shape [%s], got [%s]"):format(name, expected, got), 0)
  end
  self.taken[name] = true
end

--- The matrix [outputs, inputs] of that name, which stays in the format of the file. Raises as get.
---@param name string
---@param outputs integer
---@param inputs integer
function weights:matrix(name, outputs, inputs)
  name = full(self, name)
  self:check(name, {outputs, inputs})
  if not formats[self.file:info(name).format] then
    return core._weight(self:get("=" .. name, {outputs, inputs}))
  end
  local weight, message, code = self.file:_weight(name, self.compute)
  if not weight then error({message = message, code = code}, 0) end
  return weight
end

--- Tensors that need not be used: they are derived from others, or belong to training.
---@param patterns string[] of whole names
function weights:ignore(patterns)
  for _, name in ipairs(self.file.names) do
    for _, pattern in ipairs(patterns) do
      if name:find(pattern) then self.taken[name] = true end
    end
  end
end

--- Raises where the file has a tensor that was not taken.
function weights:finish()
  local left = {}
  for _, name in ipairs(self.file.names) do
    if not self.taken[name] then left[#left + 1] = name end
  end
  if #left > 0 then
    error(("expected no other tensors, got %d: '%s'"):format(#left, left[1]), 0)
  end
end

return weights
