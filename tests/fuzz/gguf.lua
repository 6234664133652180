--- lua5.4 tests/fuzz/gguf.lua [--seed N] [--count N] [--seconds N] [--case N]
---
--- Loads mutated GGUF files (tests/fuzz/files.lua). Numbers of the header are replaced by absurd
--- ones before the file is written, and bytes after.
package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path
local mutate = require "mutate"

-- {number of the type, values and bytes of a block}; the last two are unknown.
local types = {
  {0, 1, 4}, {1, 1, 2}, {30, 1, 2}, {28, 1, 8}, {24, 1, 1}, {26, 1, 4}, {27, 1, 8}, {25, 1, 2},
  {8, 32, 34}, {2, 32, 18}, {3, 32, 20}, {6, 32, 22}, {7, 32, 24}, {12, 256, 144}, {13, 256, 176},
  {14, 256, 210}, {10, 256, 84}, {16, 256, 66}, {99, 1, 1},
}
local absurd = {
  0, 1, 2, -1, 7, 255, 1 << 16, 1 << 31, 1 << 32, 1 << 40, 1 << 56, 1 << 58, 1 << 62,
  math.maxinteger, math.mininteger, 0x8000000000000001,
}
local rate -- the probability that a number is replaced

local function number(format, x)
  if mutate.chance(rate) then x = mutate.pick(absurd) end
  if format == "<I4" then x = x & 0xffffffff end
  return format:pack(x)
end

local function text(s) return number("<I8", #s) .. s end

local value = {}
local scalars = {
  [0] = "<I1", "<i1", "<I2", "<i2", "<I4", "<i4", "<f", "<I1", nil, nil, "<I8", "<i8", "<d",
}
local function some_type() return mutate.chance(0.9) and math.random(0, 12) or 13 end

function value.of(type, depth)
  if type == 8 then return text(mutate.pick {"llama", "", "é", "\0x", "\255", ("x"):rep(300)}) end
  if type == 9 then
    local inner, n = some_type(), math.random(0, 6)
    if depth > 5 then inner = 0 end
    local parts = {number("<I4", inner), number("<I8", n)}
    for _ = 1, n do parts[#parts + 1] = value.of(inner, depth + 1) end
    return table.concat(parts)
  end
  local format = scalars[type] or "<I4"
  if format == "<f" or format == "<d" then return format:pack(math.random() * 100) end
  return format:pack(math.random(0, 100))
end

local keys = {
  "general.architecture", "general.alignment", "llama.block_count", "tokenizer.ggml.tokens", "k",
  "général", "", "a\0b", "\255", "\27[2J",
}
local function pairs_of(alignment)
  local out, n = {}, 0
  if alignment ~= 32 then
    out[1], n = text "general.alignment" .. number("<I4", 4) .. number("<I4", alignment), 1
  end
  for i = 1, math.random(0, 5) do
    local key = mutate.chance(0.1) and mutate.pick(keys) or "key" .. i
    local type = some_type()
    out[#out + 1] = text(key) .. number("<I4", type) .. value.of(type, 0)
    n = n + 1
  end
  return table.concat(out), n
end

local function file()
  rate = mutate.pick {0, 0, 0.01, 0.1}
  local alignment = mutate.pick {32, 32, 32, 1, 8, 64, 12, 0}
  local function padded(n) return alignment > 0 and (-n) % alignment or 0 end
  local metadata, n = pairs_of(alignment)
  local infos, data, offset, tensors = {}, {}, 0, math.random(0, 5)
  for i = 1, tensors do
    local type = types[math.random(mutate.chance(0.1) and #types or #types - 3)]
    local axes = math.random(0, 4)
    if type[2] > 1 and axes == 0 then axes = 1 end
    local parts, count = {text(mutate.chance(0.05) and "t1" or "t" .. i), number("<I4", axes)}, 1
    for axis = 1, axes do
      local extent = axis == 1 and type[2] * math.random(2) or math.random(3)
      count = count * extent
      parts[#parts + 1] = number("<I8", extent)
    end
    parts[#parts + 1] = number("<I4", type[1]) .. number("<I8", offset)
    infos[#infos + 1] = table.concat(parts)
    local bytes = count // type[2] * type[3]
    local content = {}
    for b = 1, bytes do content[b] = string.char(math.random(0, 255)) end
    data[#data + 1] = table.concat(content) .. ("\0"):rep(padded(bytes))
    offset = offset + bytes + padded(bytes)
  end
  local header = "GGUF" .. number("<I4", mutate.pick {3, 3, 2}) .. number("<I8", tensors)
    .. number("<I8", n) .. metadata .. table.concat(infos)
  return header .. ("\0"):rep(padded(#header)) .. table.concat(data)
end

-- Small files that claim or nest much.
local function spam()
  local deep = mutate.pick {10, 1000, 100000}
  return "GGUF" .. ("<I4I8I8"):pack(3, 0, 1) .. ("<s8"):pack "k" .. ("<I4"):pack(9) .. mutate.pick {
    ("<I4I8"):pack(9, 1):rep(deep), ("<I4I8"):pack(8, deep) .. ("<s8"):pack(""):rep(deep),
    ("<I4I8"):pack(0, 1 << 60), ("<I4I8"):pack(12, 1 << 61), ("<I4I8"):pack(8, math.maxinteger),
  }
end

local function content()
  if mutate.chance(0.03) then return spam() end
  local bytes = file()
  if mutate.chance(0.1) then bytes = bytes:sub(1, math.random(0, #bytes)) end
  if mutate.chance(0.05) then bytes = bytes .. ("\0"):rep(math.random(100)) end
  if mutate.chance(0.4) then bytes = mutate.bytes(bytes) end
  return bytes
end

require "files"("gguf", content)
