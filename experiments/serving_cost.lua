--- How long a context fits beside a model's weights, and how many tokens per second come out, by
--- batch, for the attention that a model has and for what it could have?
--
-- The cost model computes everything: bytes of weights and cache against the memory of the chips,
-- and time by the roofline, max(bytes / bandwidth, FLOPs / peak) for each part of a step. Nothing
-- is measured, so that the results are the same everywhere; `--set hardware=this` takes the limits
-- of the machine that runs. Communication between chips is left out.
-- Pope et al. 2022 (arXiv 2211.05102) give the longest context of PaLM-540B on 64 TPU v4, with 30%
-- of memory for the cache; the claims compare.
-- For an experiment of your own change a model of `models`, or a value in `grid`; `--set
-- model=mistral-7b` takes any preset.
local model = require "attune.model"

-- The chips that a model is served from; of other models 1, 2, 4 .. that hold one and a half times
-- the weights.
local chips_of = {["falcon-7b"] = 1, ["llama2-7b"] = 1, starcoder = 2, ["falcon-40b"] = 4}
local function chips(p)
  if chips_of[p.model] or p.hardware == "this" then return chips_of[p.model] or 1 end
  local memory, count = model.hardware(p.hardware).memory, 1
  while count * memory < 1.5 * 2 * model.preset(p.model).parameters do count = 2 * count end
  return count
end
local models = {"falcon-7b", "llama2-7b", "starcoder", "falcon-40b"}
local kinds = {"MHA", "GQA-8", "MQA", "MQA, i8"}

-- The model with that kind of attention, and the dtype of its cache.
local function variant(p)
  local cfg = model.preset(p.model)
  local kv_heads = p.attention == "MHA" and cfg.heads or p.attention == "GQA-8" and 8 or 1
  return cfg:with {kv_heads = kv_heads}, p.attention == "MQA, i8" and "i8" or "bf16"
end

-- Pope's table 1. What the paper calls multi-head is 64 heads (48, padded) of 128.
local pope = {
  {"multi-head", {heads = 64, kv_heads = 64, head_dim = 128}, "heads", {[128] = 1320, [512] = 330}},
  {"multi-query with a copy on every chip", {}, "heads", {[128] = 660, [512] = 165}},
  {"multi-query, sharded by batch", {}, "batch", {[128] = 43000, [512] = 10700}},
}

local function longest_of_pope(changes, batch, sharding)
  return model.preset("palm-540b", changes):longest_context {
    batch = batch, memory = 32 << 30, fraction = 0.3, chips = 64, sharding = sharding,
  }
end

local function pope_claim(row)
  local name, changes, sharding, paper = table.unpack(row)
  return {("PaLM-540B, %s: the longest context is Pope's within 1.5%%"):format(name), function()
    local good, said = true, {}
    for _, batch in ipairs {128, 512} do
      local tokens = longest_of_pope(changes, batch, sharding)
      good = good and math.abs(tokens / paper[batch] - 1) < 0.015
      said[#said + 1] = ("batch %d: %d tokens, paper %d"):format(batch, tokens, paper[batch])
    end
    return good, table.concat(said, "; ")
  end, source = "Pope 2022, table 1", paper = ("%d and %d tokens"):format(paper[128], paper[512])}
end

return require "attune.experiment" {
  name = "serving_cost",
  about = "What context fits and how fast is decoding, by batch and attention, at the roofline?",
  fixed = {hardware = "tpu-v4", context = 2048, sharding = "batch"},
  grid = {
    model = models,
    attention = kinds,
    batch = {1, 4, 16, 64, 256, 1024},
  },
  order = {"model", "attention", "batch", "context", "hardware", "sharding"},
  timing = false,
  rounds = 1,
  derived = {chips = chips},
  metrics = {
    longest_context = {
      unit = "tokens", better = "higher", about = "longest context that fits beside the weights",
    },
    tokens_per_second = {
      unit = "tokens/s", better = "higher",
      about = "of all sequences together, at `context` tokens",
    },
    step_seconds = {
      unit = "s", better = "lower", about = "time between two tokens of a sequence",
    },
    cache_bytes = {unit = "B", better = "lower", about = "keys and values of all sequences"},
    cache_share = {unit = "%", about = "percentage of a step's time over keys and values"},
    fits = {about = "1 where weights and cache fit"},
  },
  trial = function(p)
    if model.preset(p.model).mla then return nil, "latent attention has no kv heads to vary" end
    local cfg, cache = variant(p)
    local step = cfg:decode {
      hardware = p.hardware, batch = p.batch, context = p.context, chips = p.chips,
      sharding = p.sharding, cache = cache,
    }
    local over_keys
    for _, part in ipairs(step.parts) do
      if part.name == "keys and values" then over_keys = part.seconds end
    end
    return {
      longest_context = step.longest_context,
      tokens_per_second = step.fits and step.tokens_per_second or nil,
      step_seconds = step.seconds,
      cache_bytes = cfg:kv_bytes {context = p.context, batch = p.batch, dtype = cache},
      cache_share = 100 * over_keys / step.seconds,
      fits = step.fits and 1 or 0,
    }
  end,
  plots = {
    {kind = "line", name = "longest-context", x = "batch", y = "longest_context", by = "attention",
      order = kinds, facet = "model", log = "xy",
      title = "Longest context that fits beside the weights"},
    {kind = "line", name = "tokens", x = "batch", y = "tokens_per_second", by = "attention",
      order = kinds, facet = "model", log = "xy",
      title = "Tokens per second at the roofline, where the cache fits"},
  },
  claims = {
    pope_claim(pope[1]),
    pope_claim(pope[2]),
    pope_claim(pope[3]),
    {"MQA's cache is heads times smaller than MHA's", function(r)
      for _, name in ipairs(models) do
        local ratio = r:ratio("cache_bytes", {model = name, attention = "MHA", batch = 64},
          {model = name, attention = "MQA", batch = 64}).centre
        if math.abs(ratio / model.preset(name).heads - 1) > 1e-9 then return false end
      end
      return true
    end},
    {"With one sequence, MHA makes no step half as long again as MQA", function(r)
      local worst = 1
      for _, name in ipairs(models) do
        local ratio = r:ratio("step_seconds", {model = name, attention = "MHA", batch = 1},
          {model = name, attention = "MQA", batch = 1}).centre
        worst = math.max(worst, ratio)
      end
      return worst < 1.5, ("at most %.2f times longer with MHA"):format(worst)
    end},
    {"With 64 sequences, MQA makes every model's step more than twice as fast as MHA", function(r)
      local least = math.huge
      for _, name in ipairs(models) do
        local ratio = r:ratio("step_seconds", {model = name, attention = "MHA", batch = 64},
          {model = name, attention = "MQA", batch = 64}).centre
        least = math.min(least, ratio)
      end
      return least > 2, ("at least %.2f times"):format(least)
    end},
  },
}
