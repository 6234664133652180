--- What does multi-query attention save in one attention layer of real models: time per decoded
--- token, time of a prompt, bytes of the cache?
--
-- Sweeps the number of key-value heads from all heads (multi-head attention) over 8 (grouped-query)
-- to 1 (multi-query: Shazeer 2019, arXiv 1911.02150). Each decoded token passes through one layer
-- as in a model: rotary embedding of the new q and k, append, attend. Queries, keys and prompts
-- have the dtype of the cache, as activations of a model have: f32 queries over a bf16 cache would
-- keep f32 arithmetic. In a deep model a layer's cache must be read from memory, as the processor's
-- caches do not hold it. Before each call the layer's cache is therefore removed from the caches of
-- the processor. What stays are the translations of its addresses: on one virtual machine, calls
-- with a cache of 8 MiB took 15% less than calls that used 60 such caches round-robin. Each time is
-- plotted with the roofline of this machine, measured in the same trial; for one query token, one
-- layer and one sequence:
--   seconds >= max(bytes / bandwidth, 4 heads context head_dim / peak)
-- For an experiment of your own change a shape in `models` or a value in `grid`.
local attune = require "attune"

local models = {
  {name = "falcon-7b", heads = 71, head_dim = 64},
  {name = "starcoder", heads = 48, head_dim = 128},
  {name = "palm-8b", heads = 16, head_dim = 256},
  {name = "llama2-7b", heads = 32, head_dim = 128},
}
local bytes_of = {f32 = 4, bf16 = 2, f16 = 2}
-- Prefill of longer contexts would repeat the ratios of 2048 at quadratic time.
local longest_prompt = 2048
-- Reading this many bytes takes milliseconds, so that starting the threads does not count.
local large_bytes = 64 << 20

local order = {"MHA", "GQA-8", "MQA"}

local function cache_formula(p)
  return 2 * p.batch * p.kv_heads * p.context * p.head_dim * bytes_of[p.dtype]
end

-- A cache with room for one more token.
local function make_cache(p)
  local chunk = math.min(p.context, 256)
  local k = attune.randn({p.batch, p.kv_heads, chunk, p.head_dim}, {seed = p.seed})
  local cache = attune.cache {
    batch = p.batch, kv_heads = p.kv_heads, head_dim = p.head_dim, capacity = p.context,
    dtype = p.dtype,
  }
  for _ = 1, p.context // chunk do cache:append(k, k) end
  return cache:truncate(p.context - 1)
end

-- Seconds of one token through the layer, and its cache.
local function decode(p, t)
  local cache = make_cache(p)
  local rope = attune.position("rope", {head_dim = p.head_dim})
  local q = attune.randn({p.batch, p.heads, 1, p.head_dim}, {seed = p.seed + 1}):to(p.dtype)
  local k = attune.randn({p.batch, p.kv_heads, 1, p.head_dim}, {seed = p.seed + 2}):to(p.dtype)
  local position = {p.context - 1}
  local timed = t:time(function()
    cache:append(rope:rotate(k, position), k)
    cache:attend(rope:rotate(q, position))
    cache:truncate(p.context - 1)
  end, {
    budget = 0.15, least = cache.nbytes < large_bytes and 10 or 5,
    before = function() attune.measure.evict(cache) end,
  })
  return timed, cache
end

-- Bytes per second of reading what no cache of the processor holds: the best of some readings.
local function bandwidth()
  local memory, best = attune.zeros {large_bytes // 4}, 0
  for _ = 1, 5 do
    attune.measure.evict(memory)
    best = math.max(best, attune.measure.read(1e-6, memory)) -- one reading
  end
  memory:close()
  return best
end

local function prefill(p, t)
  if p.context > (t.quick and 512 or longest_prompt) then return nil end
  local shape = {p.batch, p.heads, p.context, p.head_dim}
  local q = attune.randn(shape, {seed = p.seed, dtype = "f32"}):to(p.dtype)
  shape[2] = p.kv_heads
  local k = attune.randn(shape, {seed = p.seed + 1}):to(p.dtype)
  return t:time(function() attune.attention(q, k, k, {causal = true, engine = "tiled"}) end, {
    budget = 0.1, least = 2,
  })
end

-- The points with 32 heads, one sequence and 8192 tokens that a claim compares.
local function at(dtype, attention)
  return {model = "llama2-7b", batch = 1, context = 8192, dtype = dtype, attention = attention}
end

local function claim_of_speed(dtype)
  local mha, mqa = at(dtype, "MHA"), at(dtype, "MQA")
  return {
    ("With 32 heads, %s and 8192 tokens, MQA decodes at least 6 times as fast as MHA")
      :format(dtype),
    function(r) return r:ratio("decode_seconds", mha, mqa):above(6) end,
    needs = {mha, mqa},
  }
end

-- How much of the roofline's speed-up MQA reaches for a model; nil where it was not measured.
local function speed_up(r, model)
  local mha, mqa = {model = model, attention = "MHA"}, {model = model, attention = "MQA"}
  for _, wanted in ipairs {mha, mqa} do
    if #r:where(wanted):values "decode_seconds" == 0 then return nil end
  end
  return r:ratio("decode_seconds", mha, mqa).centre, r:ratio("decode_predicted", mha, mqa).centre
end

local of_shazeer = claim_of_speed "f32"
of_shazeer.source, of_shazeer.paper = "Shazeer 2019, decoder of 8 heads", 12.1

return require "attune.experiment" {
  name = "mqa_vs_mha",
  about = "How much faster and smaller is multi-query attention than multi-head attention, for "
    .. "one layer of real models on this machine?",
  grid = {
    model = models,
    kv_heads = {71, 48, 32, 16, 8, 1},
    batch = {1, 8},
    context = {512, 1024, 2048, 4096, 8192, 16384},
    dtype = {"f32", "bf16"},
  },
  derived = {
    heads = function(p) return p.model.heads end,
    head_dim = function(p) return p.model.head_dim end,
    attention = function(p)
      return p.kv_heads == p.heads and "MHA" or p.kv_heads == 1 and "MQA" or "GQA-" .. p.kv_heads
    end,
  },
  where = function(p)
    return p.kv_heads == p.heads or (p.kv_heads == 8 and p.heads % 8 == 0) or p.kv_heads == 1
  end,
  order = {"model", "heads", "head_dim", "kv_heads", "attention", "batch", "context", "dtype"},
  quick = {batch = {1}, context = {512, 2048, 8192}, rounds = 3},
  rounds = 5,
  timeout = 300,
  metrics = {
    decode_seconds = {unit = "s", better = "lower", about = "seconds per decoded token, one layer"},
    decode_predicted = {unit = "s", better = "lower", about = "roofline prediction"},
    prefill_seconds = {unit = "s", better = "lower", about = "seconds of a prompt, one layer"},
    cache_bytes = {unit = "B", better = "lower", about = "bytes of the cache, counted"},
    cache_formula = {
      unit = "B", better = "lower", about = "2 batch kv_heads context head_dim bytes",
    },
    peak_bytes = {unit = "B", better = "lower", about = "peak bytes allocated during decoding"},
  },
  trial = function(p, t)
    local needed = 1.3 * cache_formula(p) + (512 << 20)
    local available = attune.machine().memory
    if needed > 0.8 * available then
      return nil,
        (
          "needs about %.1f GiB, more than the 80%% of this machine's "
            .. "%.1f GiB that a trial may take"
        ):format(needed / 2 ^ 30, available / 2 ^ 30)
    end
    attune.memory {reset_peak = true}
    local before = attune.memory().bytes
    local seconds, cache = decode(p, t)
    local bytes, peak_bytes = cache.nbytes, attune.memory().peak - before
    cache:close()
    -- Few bf16 queries are multiplied in whichever arithmetic is faster.
    local peak = attune.measure.peak(0.02)
    if p.dtype == "bf16" then peak = math.max(peak, attune.measure.peak(0.02, "bf16")) end
    return {
      decode_seconds = seconds,
      decode_predicted = math.max(
        cache_formula(p) / bandwidth(), 4 * p.batch * p.heads * p.context * p.head_dim / peak
      ),
      prefill_seconds = prefill(p, t),
      cache_bytes = bytes,
      cache_formula = cache_formula(p),
      peak_bytes = peak_bytes,
    }
  end,
  plots = {
    {kind = "line", name = "decode", title = "Seconds per decoded token, one layer", x = "context",
      y = "decode_seconds", by = "attention", facet = "model",
      also = "decode_predicted", where = {batch = 1, dtype = "f32"}, log = "xy", order = order,
      caption = "Dashed: what the measured bandwidth and peak of this machine allow."},
    {kind = "line", name = "speedup",
      title = "Decoding: how many times as fast as multi-head attention", x = "context",
      y = "decode_seconds", by = "attention", facet = "model",
      against = {attention = "MHA"}, also = "decode_predicted", where = {
        batch = 1, dtype = "f32",
      }, log = "x", order = order,
      caption = "Multi-query attention stops gaining where arithmetic, not memory, sets the time: "
        .. "the dashed roofline bends there too."},
    {kind = "bars", name = "memory", title = "Cache of one layer at 8192 tokens", x = "model",
      y = "cache_bytes", by = "attention", order = order,
      where = {batch = 1, dtype = "bf16", context = 8192},
      caption = "The number of bytes that the engine counts."},
    {kind = "heat", name = "speedup-map",
      title = "How many times as fast as multi-head attention multi-query is, bf16 cache",
      x = "context",
      y = "model", value = "decode_seconds", against = {attention = "MHA"},
      where = {batch = 1, dtype = "bf16", attention = {"MHA", "MQA"}}},
  },
  claims = {
    {"The cache shrinks by exactly heads / kv_heads, as the formula says", function(r)
      for _, point in ipairs(r.points) do
        if point.status == "ok"
            and point.metrics.cache_bytes.median ~= point.metrics.cache_formula.median then
          return false, point.parameters.model
        end
      end
      return #r:values "cache_bytes" > 0
    end},
    of_shazeer,
    claim_of_speed "bf16",
    {"At the longest context MQA decodes faster than MHA for every model; the detail gives the "
      .. "fraction of the roofline's speed-up", function(r)
      local longest, parts, good = r:extreme("context", 1), {}, true
      local there = r:where {batch = 1, dtype = "f32", context = longest}
      for _, model in ipairs(models) do
        local measured, predicted = speed_up(there, model.name)
        if measured then
          parts[#parts + 1] = ("%s %.1fx, %.0f%% of the %.1fx predicted"):format(model.name,
            measured, 100 * measured / predicted, predicted)
          good = good and measured > 1
        end
      end
      return good and #parts > 0, ("%d tokens: "):format(longest) .. table.concat(parts, "; ")
    end},
  },
}
