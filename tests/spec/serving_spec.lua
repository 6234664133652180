--- What serving a model takes: the bytes of every golden model's caches, counted from config.json
--- and by the cost model, and the experiment that draws the cost model.
local files = require "attune.util.files"
local json = require "attune.util.json"
local model = require "attune.model"
local run = require "tests.support.run"

local element = {f32 = 4, bf16 = 2, f16 = 2, i8 = 1}

local function config_of(folder)
  local c = assert(json.decode(assert(files.read(folder .. "/config.json"))))
  local function first(...)
    for _, name in ipairs {...} do
      if c[name] ~= nil then return c[name] end
    end
  end
  local d = first("hidden_size", "n_embed", "n_embd", "d_model")
  local heads = first("num_attention_heads", "n_head", "n_heads", "num_heads")
  local grouped = not c.multi_query or c.new_decoder_architecture
  local kv_heads = c.model_type == "falcon" and not grouped and 1
    or first("num_kv_heads", "num_key_value_heads") or not grouped and 1 or heads
  local head_dim = first("head_dim", "d_kv") or d // heads
  return c, {
    layers = first("num_hidden_layers", "n_layer", "n_layers", "num_decoder_layers", "num_layers"),
    d_model = d, heads = heads, kv_heads = kv_heads, head_dim = head_dim,
  }
end

-- Sliding layers by number: some files list the kinds of layers, others say every how many of them
-- one sees all, and others mean every layer.
local function is_sliding(c, layer)
  if not c.sliding_window or c.use_sliding_window == false then return false end
  if c.layer_types then return c.layer_types[layer] == "sliding_attention" end
  local every = c.sliding_window_pattern or c._sliding_window_pattern
    or c.model_type == "gemma2" and 2
  return not every or layer % every ~= 0
end

-- {kv_heads, dim of k, dim of v, window or nil} of the cache of a layer; nil: it has none.
local function cache_of(c, sizes, layer)
  if layer > sizes.layers - (c.num_kv_shared_layers or 0) then return nil end
  local dim = sizes.head_dim
  if c.kv_lora_rank then
    return {sizes.heads, c.qk_nope_head_dim + c.qk_rope_head_dim, c.v_head_dim}
  end
  if is_sliding(c, layer) then return {sizes.kv_heads, dim, dim, c.sliding_window} end
  dim = c.global_head_dim or dim
  local kv_heads = c.attention_k_eq_v and c.num_global_key_value_heads or sizes.kv_heads
  return {kv_heads, dim, dim}
end

local function up(n, step) return (n + step - 1) // step * step end

-- The bytes that API.md gives for a cache.
local function expected(c, sizes, o)
  local sum = 0
  for layer = 1, sizes.layers do
    local cache = cache_of(c, sizes, layer)
    if cache then
      local kv_heads, k_dim, v_dim, window = table.unpack(cache, 1, 4)
      local tokens = up(math.min(window and window + 63 or o.context, o.context), 64)
      local row = (up(k_dim, 16) + up(v_dim, 16)) * element[o.cache]
        + (o.cache == "i8" and 2 * 4 or 0)
      sum = sum + o.batch * kv_heads * tokens * row
    end
  end
  return sum
end

describe("the caches of a golden model", function()
  for _, name in ipairs(files.list "tests/golden/models") do
    it("take the bytes that its configuration says: " .. name, function()
      local folder = "tests/golden/models/" .. name
      local m = assert(model.load(folder))
      local c, sizes = config_of(folder)
      local sources = m.network.encoder and {{5, 6}, {7, 8}, {9, 3}} or nil
      for dtype in pairs(element) do
        for _, context in ipairs {1, 64, 65, 128, 200, 1000} do
          if not m.limit or context <= m.limit then
            local s <close> = m:session {
              batch = 3, context = context, cache = dtype, encoder_ids = sources,
            }
            assert.same(expected(c, sizes, {batch = 3, context = context, cache = dtype}),
              s.nbytes, ("%s of %d tokens"):format(dtype, context))
          end
        end
      end
    end)
  end
  -- The cost model has one kind of layers.
  for name, window in pairs {
    falcon_7b = false, falcon_40b = false, falcon_rw = false, palm = false, gpt_bigcode = false,
    mistral = true, deepseek_v2 = false, deepseek_v2_q_lora = false, gptj = false, t5 = false,
  } do
    it("take the bytes that the cost model says: " .. name, function()
      local folder = "tests/golden/models/" .. name
      local m = assert(model.load(folder))
      local c, fields = config_of(folder)
      for key, value in pairs {
        d_ff = 32, vocab = m.vocab, mlp = "gelu", norm = "layernorm", position = "none",
      } do fields[key] = value end
      if window then fields.window = c.sliding_window end
      if c.kv_lora_rank then
        fields.mla = {
          kv_rank = c.kv_lora_rank, q_rank = c.q_lora_rank or 0, nope = c.qk_nope_head_dim,
          rope = c.qk_rope_head_dim, v = c.v_head_dim,
        }
      end
      local cfg = model.config(fields)
      for dtype in pairs(element) do
        for _, context in ipairs {1, 64, 65, 200} do
          if not m.limit or context <= m.limit then
            local s <close> = m:session {
              context = context, cache = dtype, encoder_ids = m.network.encoder and {{5, 6}},
            }
            assert.equal(s.nbytes, cfg:cache_bytes {context = context, dtype = dtype})
          end
        end
      end
    end)
  end
end)

describe("experiments/serving_cost.lua", function()
  local function serving_cost(set)
    local folder = run.folder()
    local said, status = run.attune(
      ("run experiments/serving_cost.lua --out %s --set %s"):format(folder, set)
    )
    run.remove(folder)
    return said, status
  end
  it("takes any preset, on as many chips as hold it", function()
    local said, status = serving_cost "model=mistral-7b,attention=MQA,batch=4"
    assert.equal(0, status, said)
    assert.truthy(said:find "tokens/s")
    said, status = serving_cost "model=llama2-70b,attention=GQA-8,batch=1"
    assert.equal(0, status, said)
    assert.truthy(said:find "640 MiB", said)
  end)
  it("skips latent attention, which has no kv heads", function()
    local said, status = serving_cost "model=deepseek-v2,attention=MHA,batch=1"
    assert.equal(0, status, said)
    assert.truthy(said:find("latent attention has no kv heads to vary", 1, true), said)
  end)
end)
