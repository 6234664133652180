--- A loaded model with other attention: fewer kv heads, another window, another rotation, another
--- dtype of its caches. All other weights are shared with the model that it comes from.
local attend = require "attune.model.network.attend"
local attune = require "attune"
local core = require "attune.core"
local layers = require "attune.model.network.layers"
local options = require "attune.util.options"

local changes = {}

local names = {"kv_heads", "window", "rope_scaling", "rope_base", "cache", "layers"}
local dtypes = {f32 = true, bf16 = true, f16 = true, i8 = true}

local function copied(t)
  local copy = {}
  for key, value in next, t do copy[key] = value end
  return setmetatable(copy, getmetatable(t))
end

-- ---- fewer kv heads -----------------------------------------------------------------------------

-- Mean-pooling (Ainslie et al. 2023, arXiv 2305.13245, section 2.1): each new head is the mean of
-- the old heads of its group. t [heads * n, ..] -> [kv_heads * n, ..].
local function pooled(t, heads, kv_heads)
  local inner = t.shape[2]
  local rows = t.shape[1] // heads
  local mean = t:view(kv_heads, heads // kv_heads, rows * (inner or 1)):mean(2)
  if inner then return mean:view(kv_heads * rows, inner) end
  return mean:view(kv_heads * rows)
end

-- The whole matrix in f32.
local function unpacked(matrix)
  local ids = {}
  for i = 1, matrix.shape[1] do ids[i] = i - 1 end
  return matrix:rows(ids)
end

local function pooled_linear(linear, heads, kv_heads)
  local bias = linear.bias and pooled(linear.bias, heads, kv_heads)
  local matrix = pooled(unpacked(linear.matrix), heads, kv_heads)
  return layers.linear_of(core._weight(matrix), bias)
end

-- q, k and v of one matrix or bias [(heads + 2 kv_heads) * head_dim, ..], each with its heads in
-- their order.
local function parts_of(a, t)
  local inner = t.shape[2] or 1
  local d, heads, kv = a.head_dim, a.heads, a.kv_heads
  local function rows(x, n) return x:contiguous():view(n * d, inner) end
  if a.form_name == "joined" then
    local x = t:view(heads + 2 * kv, d * inner)
    return rows(x:slice(1, 1, heads), heads), rows(x:slice(1, heads + 1, heads + kv), kv),
      rows(x:slice(1, heads + kv + 1, heads + 2 * kv), kv)
  end
  local group = heads // kv
  local x = t:view(kv, group + 2, d * inner)
  return rows(x:slice(2, 1, group), heads), rows(x:slice(2, group + 1, group + 1), kv),
    rows(x:slice(2, group + 2, group + 2), kv)
end

local function pooled_together(a, kv_heads)
  local function pool(t)
    local q, k, v = parts_of(a, t)
    return attune.cat({q, pooled(k, a.kv_heads, kv_heads), pooled(v, a.kv_heads, kv_heads)}, 1)
  end
  local bias = a.qkv.bias and pool(a.qkv.bias):view(-1)
  return layers.linear_of(core._weight(pool(unpacked(a.qkv.matrix))), bias)
end

-- The norm of keys, where it has weights per head.
local function pooled_norm(a, kv_heads)
  local norm = a.k_norm and copied(a.k_norm)
  if norm and norm.factor then norm.factor = pooled(norm.factor, a.kv_heads, kv_heads) end
  if norm and a.flat_norm then
    norm.weight = norm.weight and pooled(norm.weight, a.kv_heads, kv_heads)
    norm.bias = norm.bias and pooled(norm.bias, a.kv_heads, kv_heads)
  end
  return norm
end

-- a is a copy that may change.
local function pool(a, kv_heads)
  if a.form_name == "separate" then
    a.k = pooled_linear(a.k, a.kv_heads, kv_heads)
    a.v = a.v and pooled_linear(a.v, a.kv_heads, kv_heads)
  else
    -- From here on the heads of q come first, then those of k, then those of v.
    a.qkv = pooled_together(a, kv_heads)
    a.form_name, a.form = "joined", attend.form "joined"
  end
  a.k_norm = pooled_norm(a, kv_heads)
  a.kv_heads = kv_heads
end

local function check_kv_heads(a, i, kv_heads, level)
  if a.form_name == "latent" then
    error("kv_heads: expected keys with heads of their own, got multi-head latent attention",
      level + 1)
  end
  if a.kv_heads % kv_heads ~= 0 then
    error(("kv_heads: expected a divisor of the %d kv heads of layer %d, got %d"):format(
      a.kv_heads, i, kv_heads), level + 1)
  end
end

-- ---- rotation -----------------------------------------------------------------------------------

local function rotate(a, o, memo, level)
  local position = copied(a.position)
  -- Frequencies that a file lists hold its own scaling.
  position.inv_freq = nil
  if o.rope_base ~= nil then position.base = o.rope_base end
  if o.rope_scaling ~= nil then position.scaling = o.rope_scaling or nil end
  local ok, message = pcall(attend.rotate, a, memo, position)
  if not ok then
    message = tostring(message):gsub("^%S+:%d+: ", "")
    error((o.rope_scaling and "rope_scaling: " or "rope_base: ") .. message, level + 1)
  end
end

-- Texts of more tokens than this use other rotations (LongRoPE); nil: there are none.
local function switches_at(network, memo)
  for _, block in ipairs(network.blocks) do
    if block.attention.rope_long then return memo.switches_at or network.switches_at end
  end
end

-- ---- checks -------------------------------------------------------------------------------------

local function positive_integer(x) return math.type(x) == "integer" and x >= 1 end

local function expect(ok, name, expected, got, level)
  if ok then return end
  error(("%s: expected %s, got %s"):format(name, expected, options.describe(got)), level + 1)
end

-- A plain copy of the scaling, read once.
local function read_scaling(given, level)
  if not given then return given end
  expect(type(given) == "table" and not options.answers(given), "rope_scaling",
    "a plain table such as {type = \"linear\", factor = 4}, or false", given, level + 1)
  local copy = {}
  for key, value in next, given do copy[key] = value end
  return copy
end

-- The set of layers that change, by number; a layer that uses the keys of another changes with it.
local function changed_layers(network, list, level)
  local wanted, count = {}, #network.blocks
  if list == nil then
    for i = 1, count do wanted[i] = true end
    return wanted
  end
  expect(type(list) == "table" and rawlen(list) > 0, "layers", "a list of layers", list, level + 1)
  for n = 1, rawlen(list) do
    local i = rawget(list, n)
    expect(positive_integer(i) and i <= count, "layers", ("numbers from 1 to %d"):format(count), i,
      level + 1)
    wanted[i] = true
  end
  local all = {}
  for i, block in ipairs(network.blocks) do all[i] = wanted[block.attention.shares or i] end
  return all
end

local function read(given, level)
  local o = options.read(given, names, level + 1, "options", "such as {kv_heads = 1}")
  level = level + 1
  expect(o.kv_heads == nil or positive_integer(o.kv_heads), "kv_heads",
    "an integer of at least 1", o.kv_heads, level)
  expect(not o.window or positive_integer(o.window), "window",
    "an integer of at least 1, or false", o.window, level)
  expect(o.rope_base == nil or type(o.rope_base) == "number" and o.rope_base > 0
    and o.rope_base < math.huge, "rope_base", "a positive number", o.rope_base, level)
  expect(o.cache == nil or dtypes[o.cache], "cache", "f32, bf16, f16 or i8", o.cache, level)
  o.rope_scaling = read_scaling(o.rope_scaling, level)
  if o.layers ~= nil and o.cache ~= nil then
    error("cache: expected no layers beside it: all layers have caches of one dtype", level + 1)
  end
  return o
end

-- ---- the changed model --------------------------------------------------------------------------

local function change_attention(a, i, o, memo, level)
  a = copied(a)
  if o.kv_heads and not a.shares then
    check_kv_heads(a, i, o.kv_heads, level + 1)
    pool(a, o.kv_heads)
  end
  if o.window ~= nil then a.window = o.window or nil end
  if a.rope and (o.rope_scaling ~= nil or o.rope_base ~= nil) then
    rotate(a, o, memo, level + 1)
    memo.rotated = true
  end
  return a
end

local function change_block(block, i, o, memo, level)
  block = copied(block)
  block.attention = change_attention(block.attention, i, o, memo, level + 1)
  if block.cross and o.kv_heads then
    block.cross = change_attention(block.cross, i, {kv_heads = o.kv_heads}, memo, level + 1)
  end
  return block
end

--- The model with the changes of m:with.
---@param model attune.model.Model
---@param given table
---@param level integer as of `error`, from the caller
---@return attune.model.Model
function changes.new(model, given, level)
  level = level + 1
  local o = read(given, level)
  local network = copied(model.network)
  local changed = changed_layers(network, o.layers, level)
  local memo, blocks = {}, {}
  for i, block in ipairs(network.blocks) do
    blocks[i] = changed[i] and change_block(block, i, o, memo, level) or block
  end
  for i, block in ipairs(blocks) do
    local a = block.attention
    if a.shares and changed[i] then a.kv_heads = blocks[a.shares].attention.kv_heads end
  end
  if (o.rope_scaling ~= nil or o.rope_base ~= nil) and not memo.rotated then
    error(("%s: expected layers with RoPE, got none"):format(
      o.rope_scaling ~= nil and "rope_scaling" or "rope_base"), level)
  end
  network.blocks = blocks
  network.switches_at = switches_at(network, memo)
  local result = copied(model)
  result.network, result.cache = network, o.cache or model.cache
  return result
end

return changes
