--- Presets and the cost model: parameters, bytes of the cache, FLOPs, the roofline, the pictures.
local attune = require "attune"
local expect = require "tests.support.expect"
local json = require "attune.util.json"
local model = require "attune.model"

-- Published configurations: parameters, and KiB of bf16 keys and values per token. The totals are
-- those of the published files.
local published = {
  {"falcon-7b", 6921720704, 8},
  {"falcon-40b", 41303293952, 120},
  {"falcon-180b", 178557088768, 160},
  {"falcon-rw-1b", 1311625216, 192},
  {"palm-8b", 8632012800, 32},
  {"palm-62b", 62495662080, 64},
  {"palm-540b", 540356474880, 118},
  {"starcoder", 15517456384, 20},
  {"starcoderbase-1b", 1137207296, 12},
  {"santacoder", 1124886528, 12},
  {"t5-base", 222903552, 36},
  {"gpt2", 124439808, 36},
  {"gpt3-175b", 174604259328, 4608},
  {"llama2-7b", 6738415616, 512},
  {"llama2-70b", 68976648192, 320},
  {"llama3-8b", 8030261248, 128},
  {"gpt-neox-20b", 20554567680, 1056},
  {"gpt-j-6b", 6050882784, 448},
  {"mpt-7b", 6649286656, 512},
  {"mistral-7b", 7241732096, 128},
  {"gemma-2b", 2506172416, 18},
  {"deepseek-v2", 235741434880, 67.5},
}

local function sum(list, field)
  local total = 0
  for _, part in ipairs(list) do total = total + part[field] end
  return total
end

-- fn raises an error that holds every text.
local function refused(fn, first, ...)
  local message = expect.fails_with(first, fn)
  for _, words in ipairs {...} do assert.truthy(message:find(words, 1, true), message) end
end

local function near(expected, got, bound)
  assert.is_true(math.abs(expected - got) <= bound, ("%.17g, %.17g"):format(expected, got))
end

describe("the presets", function()
  it("are the published models, in order", function()
    local names = {}
    for i, row in ipairs(published) do names[i] = row[1] end
    assert.same(names, model.presets())
  end)
  for _, row in ipairs(published) do
    it(row[1] .. " has the published number of parameters and bytes per token", function()
      local cfg = model.preset(row[1])
      assert.equal(row[2], cfg.parameters)
      assert.equal(row[2], sum(cfg:parts(), "parameters"))
      assert.equal(row[3] * 1024, cfg:kv_bytes {context = 1, source = 0, dtype = "bf16"})
    end)
  end
  it("count falcon-180b's head when it is not tied", function()
    assert.equal(179522565120, model.preset("falcon-180b", {tied = false}).parameters)
  end)
  it("give the bytes that full multi-head attention would take", function()
    for name, kib in pairs {
      ["falcon-7b"] = 568, ["falcon-40b"] = 1920, ["palm-8b"] = 512, ["palm-540b"] = 5664,
      starcoder = 960, ["gemma-2b"] = 144,
    } do
      local cfg = model.preset(name)
      cfg.kv_heads = cfg.heads
      assert.equal(kib * 1024, cfg:kv_bytes {context = 1}, name)
    end
  end)
  it("are copies: a change stays in one of them", function()
    local first = model.preset "falcon-7b"
    first.rope.base, first.kv_heads = 1, 71
    assert.equal(10000, model.preset "falcon-7b".rope.base)
    assert.equal(6921720704, model.preset "falcon-7b".parameters)
    assert.is_true(first.parameters > 6921720704)
  end)
  it("share one norm for attention and MLP in parallel blocks only", function()
    local falcon = model.preset "falcon-7b"
    local serial = falcon:with {block = "serial"}
    assert.equal(falcon.parameters + 32 * 2 * 4544, serial.parameters)
    local _, norms = serial:draw():gsub("LayerNorm", "")
    assert.equal(3, norms)
  end)
end)

describe("counting", function()
  local function tensors_of(folder)
    local count = 0
    local file = assert(attune.open(folder .. "/model.safetensors"))
    for _, name in ipairs(file.names) do
      local n = 1
      for _, extent in ipairs(file:info(name).shape) do n = n * extent end
      count = count + n
    end
    file:close()
    return count
  end
  -- The sizes of a config.json under its family's names.
  local function sizes_of(c)
    local function first(...)
      for _, name in ipairs {...} do
        if c[name] ~= nil then return c[name] end
      end
    end
    local d, heads = first("hidden_size", "n_embd", "d_model"),
      first("num_attention_heads", "n_head", "n_heads", "num_heads")
    local kv_heads = first("num_kv_heads", "num_key_value_heads") or c.multi_query and 1 or heads
    local sizes = {
      d_model = d, heads = heads, kv_heads = kv_heads, vocab = c.vocab_size,
      layers = first("num_hidden_layers", "n_layer", "n_layers", "num_decoder_layers",
        "num_layers"),
      head_dim = first("head_dim", "d_kv") or d // heads,
      d_ff = first("ffn_hidden_size", "intermediate_size", "n_inner", "d_ff")
        or (c.expansion_ratio or 4) * d,
      max_positions = c.n_positions, tied = c.tie_word_embeddings,
    }
    if c.model_type == "t5" then
      sizes.encoder_layers, sizes.t5 = c.num_layers, {buckets = c.relative_attention_num_buckets}
    end
    if c.kv_lora_rank then
      sizes.mla = {
        kv_rank = c.kv_lora_rank, q_rank = c.q_lora_rank or 0, nope = c.qk_nope_head_dim,
        rope = c.qk_rope_head_dim, v = c.v_head_dim,
      }
      sizes.experts = {
        routed = c.n_routed_experts, shared = c.n_shared_experts, chosen = c.num_experts_per_tok,
        d_ff = c.moe_intermediate_size, dense_layers = c.first_k_dense_replace,
      }
    end
    return sizes
  end
  for folder, preset in pairs {
    falcon_7b = "falcon-7b", falcon_40b = "falcon-40b", falcon_rw = "falcon-rw-1b",
    palm = "palm-8b", gpt_bigcode = "starcoder", gptj = "gpt-j-6b", mpt = "mpt-7b",
    mistral = "mistral-7b", gemma = "gemma-2b", llama_llama3 = "llama3-8b",
    deepseek_v2_q_lora = "deepseek-v2", deepseek_v2 = "deepseek-v2", t5 = "t5-base",
  } do
    it(folder .. " gives the elements of a real checkpoint of that family", function()
      local path = "tests/golden/models/" .. folder
      local file = assert(io.open(path .. "/config.json"))
      local config = assert(json.decode(file:read "a"))
      file:close()
      assert.equal(tensors_of(path), model.preset(preset, sizes_of(config)).parameters)
    end)
  end
end)

describe("a configuration of one's own", function()
  local small = {
    layers = 2, d_model = 8, heads = 2, kv_heads = 1, head_dim = 4, d_ff = 16, vocab = 10,
    mlp = "gelu", norm = "rmsnorm", position = "none", tied = true,
  }
  it("is counted from its fields", function()
    local attention, mlp = 8 * 8 + 2 * 8 * 4 + 8 * 8, 2 * 8 * 16
    assert.equal(10 * 8 + 2 * (attention + mlp + 2 * 8) + 8, model.config(small).parameters)
  end)
  it("refuses what is missing, unknown or too large", function()
    refused(function() model.config {layers = 2} end, "d_model", "expected an integer", "nil")
    refused(function() model.config {layer = 2} end, "layer", "layers")
    refused(function() model.preset("gpt2", {norm = "batchnorm"}) end, "norm", "rmsnorm")
    refused(function() model.preset("gpt2", {mlp = 3}) end, "mlp", "swiglu")
    refused(function() model.preset "gtp2" end, "gtp2", "gpt2")
    refused(function() model.preset(7) end, "name", "7")
    refused(function() model.preset("gpt2", {vocab = 1 << 31}) end, "vocab", "2^31")
    local cfg = model.preset "gpt2"
    cfg.layers = "12"
    refused(function() return cfg.parameters end, "layers", "'12'")
    cfg.layers, cfg.kv_head = 12, 1
    refused(function() return cfg:kv_bytes() end, "unknown field 'kv_head'", "kv_heads")
    refused(function() model.preset("gpt2", {name = 5}) end, "name: expected a text, got 5")
    refused(function() model.preset("gpt2"):kv_bytes {context = 1 << 60} end, "2^62")
    refused(function() model.preset("gpt2"):kv_bytes {context = 1.5} end, "context", "1.5")
    refused(function() model.preset("gpt2"):kv_bytes {dtype = "f64"} end, "dtype", "bf16")
    refused(function() model.preset("gpt2", {tied = "no"}) end, "tied", "true or false", "'no'")
    refused(function() model.preset("gpt2", {heads = 6}) end, "at most the 6 heads, got 12")
    refused(function() model.preset("falcon-7b", {rope = {dimz = 4}}) end, "'dimz' of rope", "dims")
    refused(function() model.preset("mpt-7b", {alibi = 8}) end, "alibi: expected a table")
    refused(function()
      local deepseek = model.preset "deepseek-v2"
      deepseek.experts.share = 1
      return deepseek.parameters
    end, "'share' of experts", "shared")
    refused(function() model.preset("gpt2"):kv_bytes {contxt = 1} end, "contxt", "context")
    refused(function() model.preset("t5-base", {block = "parallel"}) end, "block", "serial")
    refused(function()
      model.preset("t5-base", {experts = model.preset "deepseek-v2".experts})
    end, "experts", "expected none in an encoder-decoder")
    refused(function()
      model.preset("t5-base", {mla = model.preset "deepseek-v2".mla})
    end, "mla", "expected none in an encoder-decoder")
  end)
  it("refuses sizes whose counts would wrap around", function()
    local tiny = {layers = 1, d_model = 1, heads = 1, kv_heads = 1, head_dim = 1, d_ff = 1}
    local function with(sizes)
      for name, size in pairs(tiny) do sizes[name] = sizes[name] or size end
      sizes.vocab, sizes.max_positions = 2, 2
      return model.preset("gpt2", sizes)
    end
    local mlp = with {layers = 1 << 10, d_model = 1 << 30, d_ff = 1 << 30}
    local attention = with {d_model = 1 << 30, heads = 1 << 29, head_dim = 1 << 30}
    for _, cfg in ipairs {mlp, attention} do
      refused(function() return cfg.parameters end, "2^62")
      refused(function() return cfg:flops {context = 1} end, "2^62")
    end
    local wide = with {layers = 1 << 20, heads = 1 << 30, kv_heads = 1 << 30, head_dim = 1 << 30}
    refused(function() return wide:kv_bytes {context = 1} end, "2^62")
    refused(function() return wide:longest_context {memory = 1 << 40} end, "2^62")
  end)
end)

describe("an error", function()
  it("names the line of the caller", function()
    local cfg = model.preset "gpt2"
    local function at_caller(fn)
      local message = expect.fails("expected", fn)
      assert.truthy(message:find("model_cost_spec.lua:%d+: "), message)
      assert.falsy(message:find("attune/model", 1, true), message)
    end
    at_caller(function()
      local _ = cfg:parts {context = -1}
      return _
    end)
    at_caller(function()
      local _ = cfg:flops {context = "x"}
      return _
    end)
    at_caller(function()
      local _ = cfg:variants {hardware = "h100-sxm", batch = 0}
      return _
    end)
    at_caller(function()
      local _ = cfg:kv_bytes {context = 1 << 61}
      return _
    end)
    cfg.heads = 0
    at_caller(function()
      local _ = cfg.parameters
      return _
    end)
  end)
end)

describe("the cache", function()
  local dtypes = {"f32", "bf16", "f16", "i8"}
  -- What attune's caches take for a model: one per layer.
  local function measured(cfg, batch, context, dtype)
    local cache = attune.cache {
      batch = batch, kv_heads = cfg.kv_heads, head_dim = cfg.head_dim, dtype = dtype,
      capacity = context, window = cfg.window and cfg.window + 63 < context and cfg.window or nil,
    }
    return cfg.layers * cache.nbytes
  end
  it("of attune takes to the byte what the model says, for every dtype", function()
    for _, name in ipairs {"falcon-7b", "palm-8b", "gpt-neox-20b", "gemma-2b"} do
      local cfg = model.preset(name)
      for _, dtype in ipairs(dtypes) do
        for _, context in ipairs {1, 64, 100, 1024} do
          local o = {context = context, batch = 2, dtype = dtype}
          local bytes = measured(cfg, 2, context, dtype)
          assert.equal(bytes, cfg:cache_bytes(o))
          if context % 64 == 0 then assert.equal(bytes, cfg:kv_bytes(o)) end
        end
      end
    end
  end)
  it("of attune is rounded up in tokens, in head_dim and to a ring", function()
    local cfg = model.preset("falcon-7b", {head_dim = 40, window = 100})
    for _, dtype in ipairs(dtypes) do
      for _, context in ipairs {1, 64, 100, 101, 1024} do
        local o = {context = context, dtype = dtype}
        assert.equal(measured(cfg, 1, context, dtype), cfg:cache_bytes(o))
        assert.is_true(cfg:cache_bytes(o) > cfg:kv_bytes(o))
      end
    end
  end)
  it("of a session takes to the byte what the model says, with any window", function()
    local mistral = assert(model.load "tests/golden/models/mistral")
    for _, window in ipairs {6, 33, 64, 100} do
      local cfg = model.config {
        layers = 2, d_model = 32, heads = 4, head_dim = 8, kv_heads = 2, d_ff = 48, vocab = 96,
        mlp = "swiglu", norm = "rmsnorm", position = "rope", window = window,
      }
      local changed = mistral:with {window = window}
      for _, context in ipairs {1, 6, 7, 60, 64, 65, 100, 128, 163, 164, 200} do
        local s <close> = changed:session {context = context, batch = 3, cache = "i8"}
        assert.equal(s.nbytes, cfg:cache_bytes {context = context, batch = 3, dtype = "i8"})
      end
    end
  end)
  it("of an encoder-decoder holds the source too", function()
    local cfg = model.preset "t5-base"
    assert.equal(cfg:kv_bytes {context = 100, source = 0} * 3,
      cfg:kv_bytes {context = 100, source = 200})
  end)
  it("of a window stops growing", function()
    local cfg = model.preset "mistral-7b"
    assert.equal(131072 * 4096, cfg:kv_bytes {context = 32768})
    assert.equal(131072 * 4095, cfg:kv_bytes {context = 4095})
  end)
end)

describe("the longest context", function()
  -- Pope et al. 2022 (arXiv 2211.05102), table 1: PaLM-540B, 64 TPU v4, 30% of memory.
  local function longest(cfg, batch, sharding)
    return cfg:longest_context {
      batch = batch, memory = 32 << 30, fraction = 0.3, chips = 64, sharding = sharding,
      dtype = "bf16",
    }
  end
  local palm = model.preset "palm-540b"
  local padded = palm:with {heads = 64, kv_heads = 64, head_dim = 128}
  for _, row in ipairs {
    {"multi-head", padded, "heads", {[128] = 1320, [512] = 330}},
    {"multi-query, sharded by heads", palm, "heads", {[128] = 660, [512] = 165}},
    {"multi-query, sharded by batch", palm, "batch", {[128] = 43000, [512] = 10700}},
  } do
    it("is that of Pope's table 1 within 1.5%: " .. row[1], function()
      for batch, tokens in pairs(row[4]) do
        local ratio = longest(row[2], batch, row[3]) / tokens
        assert.is_true(ratio > 1 / 1.015 and ratio < 1.015, ("%d: %.4f"):format(batch, ratio))
      end
    end)
  end
  it("fits, and one token more does not", function()
    local cfg, memory = model.preset "llama3-8b", 10 ^ 9 // 1
    local tokens = cfg:longest_context {batch = 3, memory = memory, dtype = "i8"}
    assert.is_true(cfg:kv_bytes {context = tokens, batch = 3, dtype = "i8"} <= memory)
    assert.is_true(cfg:kv_bytes {context = tokens + 1, batch = 3, dtype = "i8"} > memory)
  end)
  it("has no end where a window fits", function()
    assert.equal(math.huge, model.preset "mistral-7b":longest_context {memory = 1 << 40})
    assert.equal(8191, model.preset "mistral-7b":with {window = 8192}:longest_context {
      memory = 131072 * 8192 - 1,
    })
  end)
  it("needs the memory of a chip", function()
    local cfg = model.preset "gpt2"
    refused(function() cfg:longest_context {batch = 1} end, "memory", "nil")
    refused(function() cfg:longest_context {memory = 1, fraction = 2} end, "fraction", "2")
    refused(function() cfg:longest_context {memory = 1, sharding = "rows"} end, "sharding",
      "batch, heads")
  end)
end)

describe("FLOPs per token", function()
  it("are two per weight, and those over the keys", function()
    local cfg = model.preset "falcon-7b"
    local flops = {}
    for _, part in ipairs(cfg:parts {context = 1000}) do flops[part.name] = part.flops end
    assert.equal(0, flops.embedding)
    assert.equal(2 * 5285871616, flops.mlp)
    assert.equal(2 * 1340080128 + 32 * 4 * 71 * 64 * 1000, flops.attention)
    assert.equal(2 * 65024 * 4544, flops.head)
    assert.equal(cfg:flops {context = 1000}, sum(cfg:parts {context = 1000}, "flops"))
  end)
  it("of a window do not grow beyond it", function()
    local cfg = model.preset "mistral-7b"
    assert.equal(cfg:flops {context = 4096}, cfg:flops {context = 30000})
    assert.is_true(cfg:flops {context = 4095} < cfg:flops {context = 4096})
  end)
  it("of experts are those of the chosen ones", function()
    local cfg = model.preset "deepseek-v2"
    assert.is_true(cfg.active_parameters < cfg.parameters / 10)
    -- The paper: 21 billion parameters per token.
    assert.is_true(math.abs(cfg.active_parameters / 21e9 - 1) < 0.03)
  end)
end)

describe("a decoding step", function()
  local chip = {memory = 80000000000, bandwidth = 2e12, flops = 300e12}
  it("reads weights once and every sequence's cache, at the roofline", function()
    local cfg = model.preset "llama2-7b"
    local step = cfg:decode {hardware = chip, batch = 4, context = 1024}
    local head, embedding = 32000 * 4096, 32000 * 4096
    local matrices = cfg.parameters - embedding - 65 * 4096
    local bytes = matrices * 2 + cfg:kv_bytes {context = 1024, batch = 4}
    assert.equal(bytes, sum(step.parts, "bytes"))
    near(bytes / 2e12, step.seconds, 1e-12)
    near(4 / step.seconds, step.tokens_per_second, 1e-9 * step.tokens_per_second)
    assert.equal(head * 2, step.parts[#step.parts].bytes)
    assert.equal(cfg.parameters * 2, step.memory.weights)
    assert.is_true(step.fits)
  end)
  it("is limited by arithmetic with a large batch", function()
    local step = model.preset "llama2-7b":decode {hardware = chip, batch = 1000, context = 1}
    assert.equal("arithmetic", step.parts[1].bound)
    near(2 * 32 * 4 * 4096 ^ 2 * 1000 / 300e12, step.parts[1].seconds, 1e-12)
  end)
  it("is compute-bound over keys from bytes * peak / (2 * bandwidth) heads per kv head", function()
    local limit = 2 * chip.flops / (2 * chip.bandwidth)
    for heads, bound in pairs {[limit - 1] = "memory", [limit + 1] = "arithmetic"} do
      local cfg = model.preset("falcon-7b", {heads = heads // 1 | 0})
      assert.equal(bound, cfg:decode {hardware = chip, context = 4096}.parts[2].bound)
    end
  end)
  it("names the batch and the context that fit beside the weights", function()
    local cfg = model.preset "falcon-7b"
    local step = cfg:decode {hardware = "a100-80g", batch = 64, context = 8192}
    local function fits(batch, context)
      return cfg:decode {hardware = "a100-80g", batch = batch, context = context}.fits
    end
    assert.is_true(fits(step.max_batch, 8192))
    assert.is_false(fits(step.max_batch + 1, 8192))
    assert.is_true(fits(64, step.longest_context))
    assert.is_false(fits(64, step.longest_context + 1))
    assert.equal(0, cfg:decode {hardware = {memory = 1, bandwidth = 1, flops = 1}}.max_batch)
  end)
  it("is shared by chips; one kv head has a copy on each unless the batch is divided", function()
    local cfg = model.preset "palm-540b"
    local function step(sharding)
      return cfg:decode {
        hardware = "tpu-v4", chips = 64, batch = 128, context = 2048, sharding = sharding,
      }
    end
    local all = cfg:kv_bytes {context = 2048, batch = 128}
    assert.equal(all, step "heads".memory.cache)
    assert.equal(all // 64, step "batch".memory.cache)
    assert.equal(cfg.parameters * 2 / 64, step "batch".memory.weights)
  end)
  it("of a divided batch takes as long as the chip with the most sequences", function()
    local cfg = model.preset "llama2-7b"
    local function keys_part(batch, chips, sharding)
      return cfg:decode {
        hardware = chip, batch = batch, context = 1024, chips = chips, sharding = sharding,
      }.parts[2]
    end
    local one = keys_part(1, 1, "heads")
    for batch, most in pairs {1, 1, 1, 1, 2, [9] = 3} do
      local part = keys_part(batch, 4, "batch")
      assert.equal(most * one.flops, part.flops)
      assert.equal(most * one.bytes, part.bytes)
    end
    assert.equal(one.flops / 4, keys_part(1, 4, "heads").flops)
  end)
  it("tells the least time of a prompt: each token's own keys, and the head once", function()
    for _, window in ipairs {false, 1, 7, 100} do
      local cfg = model.preset("llama2-7b", {window = window})
      for _, context in ipairs {1, 2, 7, 8, 30} do
        local flops = 2 * 32000 * 4096
        for i = 1, context do
          for _, part in ipairs(cfg:parts {context = i}) do
            flops = flops + (part.name == "head" and 0 or part.flops)
          end
        end
        local step = cfg:decode {hardware = chip, batch = 3, context = context, chips = 2}
        near(3 * flops / 300e12 / 2, step.prompt_seconds, 1e-12 * step.prompt_seconds)
      end
    end
  end)
  it("expands latents in a prompt: 192 + 128 dims per head and key, not 2 · 512 + 64", function()
    local cfg = model.preset "deepseek-v2"
    local function prompt(context)
      return cfg:decode {hardware = chip, context = context}.prompt_seconds * 300e12
    end
    local head = 2 * 102400 * 5120
    local rest = cfg:flops {context = 1} - head - 60 * 128 * 2 * (2 * 512 + 64)
    local keys = 1000 * 1001 / 2 * 60 * 128 * 2 * (192 + 128)
    near(1000 * rest + keys + head, prompt(1000), 1e-12 * prompt(1000))
  end)
  it("compares other attention", function()
    local variants = model.preset "llama2-7b":variants {
      hardware = "a100-80g", batch = 8, context = 8192, window = 1024,
    }
    local bytes = {}
    for i, v in ipairs(variants) do bytes[i] = {v.name, v.kv_bytes} end
    local full = 524288 * 8192 * 8
    assert.same({
      {"MHA, as it is", full}, {"GQA-8", full // 4}, {"MQA", full // 32},
      {"MHA, i8 cache", full // 256 * 132}, {"MHA, window 1024", full // 8},
    }, bytes)
    assert.equal(6738415616 - 32 * 2 * 4096 * 31 * 128, variants[3].config.parameters)
  end)
  it("refuses unknown hardware and dtypes", function()
    local cfg = model.preset "gpt2"
    refused(function() cfg:decode {hardware = "a10"} end, "hardware", "a10")
    refused(function() cfg:decode {} end, "hardware", "nil")
    refused(function() cfg:decode {hardware = {memory = 1, flops = 1}} end, "bandwidth")
    refused(function() cfg:decode {hardware = "tpu-v4", weights = "i4"} end, "weights", "q4_0")
    refused(function() cfg:decode {hardware = "tpu-v4", cache = "f64"} end, "cache:", "i8")
    for name, value in pairs {f32 = "fast", title = 7, source = false} do
      local own = {memory = 1, bandwidth = 1, flops = 1, [name] = value}
      refused(function() cfg:decode {hardware = own, weights = "f32"} end, name .. ": expected a")
    end
  end)
  it("refuses a window that no variant would have", function()
    local function variants(name, window)
      return function() model.preset(name):variants {hardware = "tpu-v4", window = window} end
    end
    refused(variants("deepseek-v2", 100), "window: expected none for latent attention, got 100")
    refused(variants("mistral-7b", 4096), "window: expected fewer tokens than the model's own")
    variants("mistral-7b", 4095)()
  end)
  it("runs on the hardware of the table, and on this machine, measured", function()
    for _, name in ipairs(model.hardware_names()) do
      local chip_of_table = model.hardware(name)
      for _, field in ipairs {"memory", "bandwidth", "flops"} do
        assert.is_true(chip_of_table[field] > 0, name)
      end
      assert.truthy(chip_of_table.source:find "%S")
    end
  end)
end)

describe("Shazeer's translation model", function()
  -- Shazeer 2019 (arXiv 1911.02150), tables 1 and 3: 6 + 6 layers, batch 1024, 128 tokens each.
  local function translation(kv_heads, d_ff)
    return model.config {
      kind = "encoder-decoder", layers = 6, encoder_layers = 6, d_model = 1024, heads = 8,
      head_dim = 128, kv_heads = kv_heads, d_ff = d_ff, vocab = 32768, mlp = "relu",
      norm = "layernorm", position = "none", tied = true,
    }
  end
  it("has as many parameters with one kv head and an MLP of 5440", function()
    assert.equal(translation(8, 4096).parameters, translation(1, 5440).parameters)
  end)
  it("reads 8 times fewer bytes of keys and values, and no other part gains more", function()
    local board = {memory = 64000000000, bandwidth = 2.4e12, flops = 180e12}
    local function step(cfg)
      return cfg:decode {hardware = board, batch = 1024, context = 128, source = 128}
    end
    local mha, mqa = step(translation(8, 4096)), step(translation(1, 5440))
    for i, part in ipairs(mha.parts) do
      local ratio = part.bytes / mqa.parts[i].bytes
      if part.name == "keys and values" then
        assert.equal(8, ratio)
      else
        assert.is_true(ratio < 2)
      end
    end
    assert.is_true(mha.seconds / mqa.seconds > 2)
  end)
end)

describe("the picture of a block", function()
  for _, name in ipairs(model.presets()) do
    it("closes every box and names every size: " .. name, function()
      local cfg = model.preset(name)
      local drawn = cfg:draw()
      local function count(c) return select(2, drawn:gsub(c, c)) end
      assert.equal(count "⊕", cfg.block == "parallel" and 1 or name == "t5-base" and 3 or 2)
      for _, size in ipairs {cfg.vocab, cfg.d_model, cfg.layers} do
        assert.truthy(drawn:find(("%d"):format(size), 1, true), size)
      end
      for line in drawn:gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 100) end
      local svg = cfg:svg()
      assert.equal(select(2, svg:gsub("<text", "")), select(2, svg:gsub("</text>", "")))
      assert.truthy(svg:find("</svg>", 1, true))
    end)
  end
  local function drawn(name, changes) return model.preset(name, changes):draw() end
  it("names every kind of position", function()
    for position, words in pairs {
      rope = "RoPE on q and k", rope2d = "2D RoPE on q and k", xpos = "xPos on q and k",
      sinusoidal = "+ sinusoidal positions", alibi = "ALiBi", t5 = "T5's table",
    } do
      local picture = drawn("llama2-7b", {position = position})
      assert.truthy(picture:find(words, 1, true), picture)
    end
  end)
  it("says which layers have no experts, and how many experts are always there", function()
    local picture = drawn "deepseek-v2"
    for _, words in ipairs {"2 more always", "the first 1 without", "5120 → 12288 → 5120"} do
      assert.truthy(picture:find(words, 1, true), words)
    end
    picture = drawn("deepseek-v2", {
      layers = 1, experts = {routed = 8, shared = 0, chosen = 2, d_ff = 64, dense_layers = 0},
    })
    assert.falsy(picture:find "always" or picture:find "without experts")
    assert.truthy(picture:find "1 layer%f[^%a]")
  end)
end)

describe("attune model", function()
  local build = os.getenv "ATTUNE_BUILD_DIR" or "build"
  local function attune_model(arguments)
    local pipe = assert(io.popen(("%s/attune model %s 2>&1"):format(build, arguments)))
    local output = pipe:read "a"
    local _, _, status = pipe:close()
    return output, status
  end
  it("lists the presets", function()
    local output, status = attune_model ""
    assert.equal(0, status)
    for _, name in ipairs(model.presets()) do assert.truthy(output:find(name, 1, true), name) end
    assert.truthy(output:find "t5%-base +222,903,552 +12 %+ 12 ")
  end)
  it("prints parameters, the block, the cache and a step", function()
    local output, status = attune_model "falcon-7b --on a100-80g --batch 64 --context 8192"
    assert.equal(0, status)
    for _, words in ipairs {
      "6,921,720,704", "LayerNorm", "8,192 bytes per token", "4.00 GiB", "fits", "MHA", "GQA-8",
      "i8 cache", "window 4096", "NVIDIA A100",
    } do
      assert.truthy(output:find(words, 1, true), words)
    end
  end)
  it("prints the same numbers as JSON", function()
    local output, status = attune_model "falcon-7b --json --on tpu-v4 --batch 2 --context 128"
    assert.equal(0, status)
    local record = assert(json.decode(output))
    assert.equal(6921720704, record.parameters)
    assert.equal(2 * 128 * 8192, record.cache.bytes)
    assert.equal(5, #record.parts)
    local step = model.preset "falcon-7b":decode {hardware = "tpu-v4", batch = 2, context = 128}
    assert.equal(step.seconds, record.step.seconds)
    assert.equal("MHA", record.variants[2].name)
    assert.same({}, record.warnings)
    assert.equal(71 * 8192, record.cache.bytes_per_token_of_mha)
    assert.same({"bf16", 1, nil}, {record.weights, record.chips, record.sharding})
    record = json.decode((attune_model "gpt2 --json --on tpu-v4 --chips 2 --weights q8_0"))
    assert.same({"q8_0", 2, "heads"}, {record.weights, record.chips, record.sharding})
  end)
  it("lists presets and hardware as JSON with their numbers", function()
    local record = assert(json.decode((attune_model "--json")))
    assert.same(model.presets(), record.presets)
    assert.equal(#record.presets, #record.models)
    for i, row in ipairs(published) do
      local m = record.models[i]
      assert.same({row[1], row[2], row[3] * 1024}, {m.name, m.parameters, m.bytes_per_token})
    end
    assert.same(model.hardware "h100-sxm", record.chips[1])
    assert.equal("integer", math.type(record.chips[1].memory))
    assert.equal(3, #record.chips)
  end)
  it("prints null as the longest context where any fits", function()
    local record = assert(json.decode((attune_model "mistral-7b --json --on a100-80g"), true))
    assert.equal(json.null, record.step.longest_context)
    record = assert(json.decode((attune_model "falcon-7b --json --on a100-80g"), true))
    assert.equal("integer", math.type(record.step.longest_context))
    local windowed = record.variants[#record.variants]
    assert.equal(json.null, windowed.window and windowed.step.longest_context)
  end)
  it("warns of contexts beyond learned positions", function()
    for arguments, expected in pairs {
      ["gpt2 --context 1025"] = "1,024 tokens, and cannot run with a context of 1,025",
      ["starcoder --context 8193"] = "8,192 tokens", ["gpt3-175b --context 9999"] = "2,048 tokens",
    } do
      expected = "the model has learned positions for " .. expected
      local output = attune_model(arguments)
      assert.truthy(output:find("\nWarning: " .. expected, 1, true), output)
      local record = assert(json.decode((attune_model(arguments .. " --json"))))
      assert.equal(1, #record.warnings)
      assert.equal(1, record.warnings[1]:find(expected, 1, true))
    end
    for _, arguments in ipairs {"gpt2 --context 1024", "falcon-7b --context 8192"} do
      assert.falsy(attune_model(arguments):find("Warning", 1, true))
    end
  end)
  it("writes the picture as SVG", function()
    local path = os.tmpname()
    assert.equal(0, select(2, attune_model("gpt2 --svg " .. path)))
    local file = assert(io.open(path))
    assert.equal(model.preset "gpt2":svg(), file:read "a")
    file:close()
    os.remove(path)
  end)
  it("ends with 2 on misuse, and says what it expected", function()
    for arguments, words in pairs {
      ["falcn-7b"] = "falcon-7b", ["gpt2 --on a10"] = "model: --on: unknown name 'a10'; expected",
      ["gpt2 --chips 2"] = "model: --chips: expected --on HARDWARE beside it",
      ["gpt2 --context 0"] = "--context: expected an integer of at least 1, got '0'",
      ["gpt2 --cache f64"] = "model: --cache: expected one of bf16, f16, f32, i8, got 'f64'",
      ["gpt2 --cache f64 --on tpu-v4"] = "model: --cache: expected one of",
      ["gpt2 --on tpu-v4 --weights i4"] = "model: --weights: expected one of bf16",
      ["--on tpu-v4"] = "model: --on: expected the NAME of a preset beside it",
      ["--batch 3"] = "model: --batch: expected the NAME of a preset beside it",
      ["--svg /tmp/never.svg"] = "model: --svg: expected the NAME",
      ["gpt2 --on tpu-v4 --sharding batch"] = "--sharding: expected --chips of at least 2",
      ["gpt2 --on tpu-v4 --chips 1 --sharding heads"] = "--sharding: expected --chips",
      ["deepseek-v2 --on tpu-v4 --window 9"] = "--window: expected none for latent attention",
      ["mistral-7b --on tpu-v4 --window 9999"] = "--window: expected fewer tokens than",
    } do
      local output, status = attune_model(arguments)
      assert.equal(2, status, arguments)
      assert.truthy(output:find(words, 1, true), output)
    end
  end)
end)
