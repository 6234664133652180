--- What other attention would change in a model: the same model with more or fewer kv heads, with
--- an i8 cache, or with a window. The weights change too, as k and v have projections.
local numbers = require "attune.model.numbers"
local options = require "attune.util.options"

---@class attune.model.Variant
---@field name string
---@field config attune.model.Config
---@field cache string dtype of the cache
---@field step attune.model.Step
---@field kv_bytes integer of batch sequences, over all chips
---@field note? string

-- The kind of attention that a number of kv heads gives.
local function kind_of(cfg)
  if cfg.mla then return "MLA" end
  if cfg.kv_heads == cfg.heads then return "MHA" end
  return cfg.kv_heads == 1 and "MQA" or ("GQA-%d"):format(cfg.kv_heads)
end

-- {name, changes, dtype of the cache, note}: the model as it is first.
local function list_of(cfg, o, window)
  local is = kind_of(cfg)
  local list = {{is .. ", as it is", {}, o.cache or "bf16"}}
  local function heads(name, kv_heads)
    if name == is or kv_heads > cfg.heads then return end
    local changes = {kv_heads = kv_heads}
    local note
    if cfg.mla then
      changes.mla, changes.head_dim = false, cfg.mla.v
      note = ("head_dim %d"):format(cfg.mla.v)
    elseif cfg.heads % kv_heads ~= 0 then
      note = ("%d heads cannot share %d kv heads evenly"):format(cfg.heads, kv_heads)
    end
    list[#list + 1] = {name, changes, o.cache or "bf16", note}
  end
  heads("MHA", cfg.heads)
  if cfg.heads > 8 then heads("GQA-8", 8) end
  heads("MQA", 1)
  if o.cache ~= "i8" then
    list[#list + 1] = {is .. ", i8 cache", {}, "i8", "one 4-byte scale per K row and per V row"}
  end
  local held = cfg.window or 0
  if not cfg.mla and (held == 0 or window < held) then
    list[#list + 1] = {
      ("%s, window %d"):format(is, window), {window = window}, o.cache or "bf16",
    }
  end
  return list
end

-- Raises where no variant would have the window that was asked for.
local function check_window(cfg, window, level)
  local held = cfg.window or 0
  local form
  if cfg.mla then
    form = "window: expected none for latent attention, got %s"
  elseif held > 0 and math.type(window) and window >= held then
    form = ("window: expected fewer tokens than the model's own window of %d, got %%s"):format(held)
  end
  if form then error(form:format(options.describe(window)), level + 1) end
end

---@param config table the module, which uses this file
---@param cfg attune.model.Config
---@param o table options of `decode`
---@param fields table the checked fields
---@param window integer? tokens of the window to try
---@param level integer as of `error`, from the caller
---@return attune.model.Variant[]
return function(config, cfg, o, fields, window, level)
  level = level + 1
  local context = numbers.integer(o, "context", fields.context or 1, 1, level)
  local default = context > 4096 and 4096 or math.max(1, context // 4)
  if window ~= nil then check_window(fields, window, level) end
  window = numbers.integer({window = window}, "window", default, 1, level)
  local result = {}
  for i, entry in ipairs(list_of(fields, o, window)) do
    local changed = config.with(cfg, entry[2], level)
    local given = {}
    for name, value in pairs(o) do given[name] = value end
    given.cache = entry[3]
    result[i] = {
      name = entry[1],
      config = changed,
      cache = entry[3],
      step = config.decode(changed, given, level),
      kv_bytes = changed:kv_bytes {
        context = context, batch = o.batch, dtype = entry[3], source = o.source,
      },
      note = entry[4],
    }
  end
  return result
end
