--- lua5.4 tests/fuzz/safetensors.lua [--seed N] [--count N] [--seconds N] [--case N]
---
--- Loads mutated safetensors files. Each one loads, or gives nil and one line that starts with the
--- path. Memory stays below a limit, and no file takes longer than two seconds. Run it with the
--- address and undefined sanitizers (make fuzz-files). --case repeats one case and keeps its file.
local json = require "attune.util.json"
package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path
local mutate = require "mutate"

local dtypes = {"F32", "F16", "BF16", "F64", "I8", "I32", "I64", "U8", "BOOL", "F8_E4M3", "I16"}
local sizes = {
  F32 = 4, F16 = 2, BF16 = 2, F64 = 8, I8 = 1, I32 = 4, I64 = 8, U8 = 1, BOOL = 1, F8_E4M3 = 1,
  I16 = 2,
}

-- A valid file: its header as a tree, and the bytes of its tensors.
local function valid()
  local header, at = {}, 0
  for n = 1, math.random(0, 5) do
    local shape, count, dtype = json.list(), 1, mutate.pick(dtypes)
    for axis = 1, math.random(0, 4) do
      shape[axis] = math.random(0, 5)
      count = count * shape[axis]
    end
    local size = count * sizes[dtype]
    header["t" .. n] = {dtype = dtype, shape = shape, data_offsets = json.list {at, at + size}}
    at = at + size
  end
  if mutate.chance(0.5) then header.__metadata__ = {format = "pt", note = "é"} end
  local data = {}
  for i = 1, at do data[i] = string.char(math.random(0, 255)) end
  return header, table.concat(data)
end

local absurd = mutate.absurd {
  function() return mutate.pick(dtypes) end,
  function() return json.list {1 << 31, 1 << 31, 4} end,
  function() return json.list {1 << 62, 2} end,
  function() return json.list {0, 1 << 62} end,
  function() return json.list {-1, 4} end,
  function() return json.list {0, 1 << 40} end,
  function() return json.list {8, 0} end,
}

local function file_of(header, data)
  local text = json.encode(header)
  local length = #text
  if mutate.chance(0.15) then
    length = mutate.pick {0, 1, length - 1, length + 1, 8, 1 << 27, 1 << 40, -1, math.mininteger}
  end
  if mutate.chance(0.1) then data = data:sub(1, math.random(0, #data)) end
  if mutate.chance(0.1) then data = data .. ("\0"):rep(math.random(100)) end
  return ("<i8"):pack(length) .. text .. data
end

-- Headers that are small and would take much memory as trees.
local function spam()
  local piece = mutate.pick {
    "{},", "[],", "0,", "\"\",", "{\"a\":{}},", "[[]],", "null,", "[[[[", "{\"a\":",
  }
  local inner = piece:rep(mutate.pick {1000, 30000, 3000000} // #piece):gsub(",$", "")
  local text = mutate.pick {
    "[" .. inner .. "]", "{\"x\":[" .. inner .. "]}", inner,
    "{\"t\":{\"dtype\":\"F32\",\"shape\":[" .. inner .. "],\"data_offsets\":[0,4]}}",
  }
  return ("<i8"):pack(#text) .. text .. "1234"
end

local function content()
  if mutate.chance(0.02) then return spam() end
  local header, data = valid()
  local way = math.random(10)
  if way <= 6 then
    for _ = 1, math.random(3) do mutate.tree(header, absurd) end
  end
  local ok, text = pcall(file_of, header, data)
  if not ok then return content() end -- a mutation that JSON cannot write
  if way >= 6 and way < 10 then text = mutate.bytes(text) end
  return text
end

require "files"("safetensors", content)
