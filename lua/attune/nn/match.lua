--- Making two models of equal counts.
local core = require "attune.core"
local count_of = require "attune.nn.count"
local options = require "attune.util.options"

local measures = {
  parameters = function(cfg) return (count_of(cfg)) end,
  flops = function(cfg) return (select(2, count_of(cfg))) end,
}

local function changed(reference, change, name, value)
  local cfg = {}
  for key, x in next, reference do cfg[key] = x end
  for key, x in next, change do cfg[key] = x end
  if value then cfg[name] = value end
  return cfg
end

local limit = 0.005 -- 0.5%

--- A configuration with a change and the count of the reference, made equal by another option: the
--- value of `adjust`, a multiple of `multiple`, whose count is nearest. Raises an error where no
--- value comes within 0.5%. Shazeer 2019 (arXiv 1911.02150), section 4, widens d_ff so.
---@param given {reference: table, change: table, by: "parameters"|"flops", adjust: string,
--- multiple: integer} parameters, d_ff and 1 by default
---@return table cfg a new configuration
return function(given)
  local o = options.read(given, {"reference", "change", "by", "adjust", "multiple"}, 2, "options",
    "{reference = cfg, change = {kv_heads = 1}}")
  for _, name in ipairs {"reference", "change"} do
    if type(o[name]) ~= "table" then
      core._raise(("%s: expected a table of options, got %s"):format(
        name, options.describe(o[name])))
    end
  end
  local by, adjust, multiple = o.by or "parameters", o.adjust or "d_ff", o.multiple or 1
  local measure = measures[by]
  if not measure then
    core._raise(("by: expected 'parameters' or 'flops', got %s"):format(options.describe(by)))
  end
  if math.type(multiple) ~= "integer" or multiple < 1 then
    core._raise(("multiple: expected an integer of at least 1, got %s"):format(
      options.describe(multiple)))
  end
  local reference = changed(o.reference, {})
  if reference.d_ff == nil then reference.d_ff = 4 * (reference.d_model or 0) end
  if math.type(reference[adjust]) ~= "integer" then
    core._raise(("adjust: expected the name of an integer option of the reference, got %s = %s")
      :format(options.describe(adjust), options.describe(reference[adjust])))
  end
  -- The reference's own head_dim stays where heads change.
  if not reference.head_dim and reference.heads and reference.d_model then
    reference.head_dim = reference.d_model // reference.heads
  end
  local wanted = measure(reference)
  local function count(k)
    return measure(changed(reference, o.change, adjust, k * multiple))
  end
  -- Counts grow with the option: the smallest multiple that reaches the wanted count.
  local low, high = 1, 1
  while count(high) < wanted do
    low, high = high, high * 2
    if high > 1 << 40 then
      core._raise(("adjust: expected an option that changes the count, got '%s'"):format(adjust))
    end
  end
  while low < high do
    local middle = (low + high) // 2
    if count(middle) < wanted then low = middle + 1 else high = middle end
  end
  local best = high
  if high > 1 and wanted - count(high - 1) < count(high) - wanted then best = high - 1 end
  local off = math.abs(count(best) / wanted - 1)
  if off >= limit then
    core._raise(("match: expected a value of %s within 0.5%% of %d %s, got %.2f%% with %d"):format(
      adjust, wanted, by, 100 * off, best * multiple))
  end
  return changed(reference, o.change, adjust, best * multiple)
end
