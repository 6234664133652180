--- Matrices of weights in the formats of files, for bench/cases.lua.
local attune = require "attune"

local weights = {}

-- GGUF's number of the type; the values and the bytes of a block.
local formats = {
  F16 = {code = 1, values = 1, block = string.pack("<I2", 0x2e66)}, -- 0.1
  BF16 = {code = 30, values = 1, block = string.pack("<I2", 0x3dcc)},
  Q8_0 = {code = 8, values = 32, block = string.pack("<I2", 0x211e) .. ("\x05\xfa"):rep(16)},
  Q4_0 = {code = 2, values = 32, block = string.pack("<I2", 0x211e) .. ("\x5a"):rep(16)},
  Q4_1 = {code = 3, values = 32, block = string.pack("<I2I2", 0x211e, 0xa51e) .. ("\x5a"):rep(16)},
  Q5_0 = {code = 6, values = 32, block = string.pack("<I2", 0x211e) .. ("\x5a"):rep(20)},
  Q5_1 = {code = 7, values = 32, block = string.pack("<I2I2", 0x211e, 0xa51e) .. ("\x5a"):rep(20)},
  Q4_K = {code = 12, values = 256,
    block = string.pack("<I2I2", 0x211e, 0x211e) .. ("\x5a"):rep(12 + 128)},
  Q5_K = {code = 13, values = 256,
    block = string.pack("<I2I2", 0x211e, 0x211e) .. ("\x5a"):rep(12 + 32 + 128)},
  Q6_K = {code = 14, values = 256,
    block = ("\x5a"):rep(128 + 64 + 16) .. string.pack("<I2", 0x211e)},
}

-- A GGUF file of version 3 with one tensor, `w`, and no metadata.
local function write(path, format, outputs, inputs)
  local header = "GGUF" .. string.pack("<I4I8I8 s8I4I8I8I4I8", 3, 1, 0, "w", 2, inputs, outputs,
    format.code, 0)
  local row = format.block:rep(inputs // format.values)
  local file = assert(io.open(path, "wb"))
  assert(file:write(header, ("\0"):rep(-#header % 32)))
  for _ = 1, outputs do assert(file:write(row)) end
  assert(file:close())
end

--- Copies of a matrix that have at least `least` bytes together, and one in any case.
---@param name string of a format
---@param compute string "f32" or "i8"
function weights.copies(name, outputs, inputs, compute, least)
  local path, list, bytes = os.tmpname(), {}, 0
  write(path, formats[name], outputs, inputs)
  local file = assert(attune.open(path))
  repeat
    list[#list + 1] = assert(file:_weight("w", compute))
    bytes = bytes + list[#list].nbytes
  until bytes >= least
  file:close()
  os.remove(path)
  return list
end

return weights
