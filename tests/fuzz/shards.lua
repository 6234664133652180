--- lua5.4 tests/fuzz/shards.lua [--seed N] [--count N] [--seconds N] [--case N]
---
--- Loads folders of mutated shards with their index (tests/fuzz/files.lua): the index as a tree and
--- as bytes, the bytes of a shard, and shards that are missing, or are something else.
local json = require "attune.util.json"
package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path
local luv = require "luv"
local mutate = require "mutate"

local index_name = "model.safetensors.index.json"
local function shard(n) return ("model-%05d.safetensors"):format(n) end

local sizes = {F32 = 4, BF16 = 2, I64 = 8, BOOL = 1}
local dtypes = {"F32", "BF16", "I64", "BOOL"}

-- The bytes of a shard that holds the tensors of these names.
local function shard_of(names)
  local header, data, at = {}, {}, 0
  for _, name in ipairs(names) do
    local dtype, rows, columns = mutate.pick(dtypes), math.random(3), math.random(4)
    local size = rows * columns * sizes[dtype]
    header[name] = {
      dtype = dtype, shape = json.list {rows, columns}, data_offsets = json.list {at, at + size},
    }
    for b = 1, size do data[#data + 1] = string.char((b * 7 + at) & 255) end
    at = at + size
  end
  if mutate.chance(0.3) then header.__metadata__ = {format = "pt"} end
  local text = json.encode(header)
  return ("<i8"):pack(#text) .. text .. table.concat(data)
end

-- {file = {names of its tensors}} and the index that says so.
local function valid()
  local parts, map = {}, {}
  for n = 1, math.random(4) do
    parts[shard(n)] = {}
    for t = 1, math.random(3) do
      local name = ("layers.%d.%d"):format(n, t)
      table.insert(parts[shard(n)], name)
      map[name] = shard(n)
    end
  end
  return parts, {metadata = {total_size = math.random(0, 1000)}, weight_map = map}
end

local absurd = mutate.absurd {
  function() return shard(math.random(5)) end,
  function() return mutate.pick {index_name, "missing.safetensors", "../" .. shard(1)} end,
  function() return mutate.pick {"./" .. shard(1), "folder", "loop", ".", "", "a\0b"} end,
  function() return {["layers.1.1"] = shard(1)} end,
}

local function write(path, bytes)
  local f = assert(io.open(path, "wb"))
  f:write(bytes)
  f:close()
end

-- A shard that is missing, empty, a folder, a link to itself, another shard, or changed.
local function spoil(folder, parts)
  local names = {}
  for name in pairs(parts) do names[#names + 1] = name end
  table.sort(names)
  local name = mutate.pick(names)
  local path, way = folder .. "/" .. name, math.random(6)
  local f = assert(io.open(path, "rb"))
  local bytes = f:read "a"
  f:close()
  if way <= 2 then
    write(path, mutate.bytes(bytes))
  elseif way == 3 then
    write(path, mutate.pick {"", bytes:sub(1, 7), bytes .. "x"})
  elseif way == 4 then
    write(folder .. "/" .. mutate.pick(names), bytes)
  else
    os.remove(path)
    if way == 5 then luv.fs_mkdir(path, 448) else luv.fs_symlink(path, path) end
  end
end

-- A small index of many files, or of many tensors.
local function spam()
  local entries = {}
  for n = 1, mutate.pick {1001, 20000} do
    local file = mutate.chance(0.5) and shard(n) or shard(1)
    entries[n] = ("\"t%d\":\"%s\""):format(n, file)
  end
  return "{\"weight_map\":{" .. table.concat(entries, ",") .. "}}"
end

-- Writes the files of a case and gives the bytes of its index.
local function content(folder)
  local parts, index = valid()
  for name, tensors in pairs(parts) do write(folder .. "/" .. name, shard_of(tensors)) end
  if mutate.chance(0.02) then return spam() end
  local way = math.random(10)
  if way <= 3 then spoil(folder, parts) end
  if way >= 3 and way <= 7 then
    for _ = 1, math.random(3) do mutate.tree(index, absurd) end
  end
  local ok, text = pcall(json.encode, index)
  if not ok then return "{}" end -- a mutation that JSON cannot write
  if way == 8 or way == 9 then text = mutate.bytes(text) end
  return text
end

require "files"(index_name, content, true)
