-- m:with: the same model with other attention, compared with a checkpoint that was published so.
local attune = require "attune"
local golden = require "tests.support.golden"
local model = require "attune.model"
local model_copy = require "tests.support.model_copy"

local ids = {5, 17, 3, 90, 41, 8, 23, 77, 2, 31, 64, 9}
local source = model_copy.source

local function load(name) return assert(model.load(source .. name)) end

local function difference(a, b) return golden.difference(a:forward {ids}, b:forward {ids}) end

-- The mean of groups of heads, in plain Lua: t [heads * rows, inner] or [heads * rows].
local function mean_of_heads(t, heads, kv_heads)
  local list = t:to("f64"):view(-1):tolist()
  local size, group = #list // heads, heads // kv_heads
  local out = {}
  for h = 0, kv_heads - 1 do
    for n = 1, size do
      local sum = 0
      for g = 0, group - 1 do sum = sum + list[(h * group + g) * size + n] end
      out[#out + 1] = sum / group
    end
  end
  local shape = {t.shape[1] // group, t.shape[2]}
  return attune.tensor(out, {shape = shape})
end

local function fails(expected, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(expected, 1, true), message)
end

describe("a model with fewer kv heads", function()
  it("has the means of neighbouring heads", function()
    local changed = load "qwen2":with {kv_heads = 1}
    local saved = model_copy.load("qwen2", function(c, t)
      for name, x in pairs(t) do
        if name:find "[kv]_proj" then
          t[name] = mean_of_heads(x, c.num_key_value_heads, 1)
        end
      end
      c.num_key_value_heads = 1
    end)
    assert.truthy(difference(changed, saved) < 1e-5)
    assert.truthy(difference(changed, load "qwen2") > 1e-3)
  end)
  it("has one head per layer, in every form of the matrices", function()
    for _, name in ipairs {
      "falcon_40b", "falcon_rw", "gpt2", "bloom", "mpt", "olmo2", "cohere", "qwen2", "stablelm",
      "gpt_neox", "phi3",
    } do
      local m = load(name)
      local once = m:with {kv_heads = 1}
      for _, block in ipairs(once.network.blocks) do
        assert.same(1, block.attention.kv_heads, name)
      end
      assert.truthy(difference(once, once:with {kv_heads = 1}) < 1e-5, name)
      assert.truthy(difference(once, m) > 1e-5, name)
      local s = once:session {context = 32}
      assert.truthy(golden.difference(s:append(ids), once:forward {ids}) < 1e-3, name)
      assert.truthy(s.nbytes < m:session {context = 32}.nbytes, name)
    end
  end)
  it("is the same model where heads are equal", function()
    -- All heads of k, and all of v, are made equal in the file; then their mean is each of them.
    local function equal_heads(at, rows, first, heads, d)
      local list = at[rows]:to("f64"):tolist()
      for h = 1, heads - 1 do
        for n = 1, d do list[first + h * d + n] = list[first + n] end
      end
      at[rows] = attune.tensor(list)
    end
    local m = model_copy.load("gpt2", function(c, t)
      local n, d = c.n_embd, c.n_embd // c.n_head
      for name, x in pairs(t) do
        if name:find "c_attn" then
          local transposed = #x.shape == 2
          t[name] = transposed and x:transpose(1, 2):contiguous() or x
          equal_heads(t, name, n, c.n_head, d)
          equal_heads(t, name, 2 * n, c.n_head, d)
          if transposed then t[name] = t[name]:transpose(1, 2):contiguous() end
        end
      end
    end)
    assert.truthy(difference(m, m:with {kv_heads = 1}) < 1e-5)
    local grouped = model_copy.load("falcon_40b", function(c, t)
      local kv, group = c.num_kv_heads, c.num_attention_heads // c.num_kv_heads
      local d = c.hidden_size // c.num_attention_heads
      for name, x in pairs(t) do
        if name:find "query_key_value" then
          local list = x:to("f64"):tolist()
          for h = 1, kv - 1 do
            for n = group * d + 1, (group + 2) * d do
              list[h * (group + 2) * d + n] = list[n]
            end
          end
          t[name] = attune.tensor(list)
        end
      end
    end)
    assert.truthy(difference(grouped, grouped:with {kv_heads = 1}) < 1e-5)
  end)
  it("changes the layers that are named, and its source not", function()
    local m = load "qwen3"
    local before = m:forward {ids}
    local first, both = m:with {kv_heads = 1, layers = {1}}, m:with {kv_heads = 1}
    assert.truthy(difference(first, both) > 1e-4)
    assert.same(0, difference(first:with {kv_heads = 1, layers = {2}}, both))
    assert.same(0, golden.difference(before, m:forward {ids}))
  end)
  it("pools self-attention and cross-attention of T5's decoder", function()
    local m = load "t5"
    local changed = m:with {kv_heads = 1}
    local function logits(x) return x:forward({ids}, {decoder_ids = {{0, 4, 9}}}) end
    assert.truthy(golden.difference(logits(m), logits(changed)) > 1e-4)
    local out = changed:generate({ids}, {tokens = 4, stop = {}})[1]
    assert.same(5, #out)
  end)
end)

describe("a model with another window", function()
  it("is the one whose configuration says so", function()
    local window = model_copy.load("llama_tied", function(c)
      c.model_type, c.sliding_window = "mistral", 5
      c.attention_bias, c.mlp_bias = nil, nil
    end)
    assert.same(0, difference(window, load "llama_tied":with {window = 5}))
    assert.same(0, difference(load "llama_tied", window:with {window = false}))
    local s = load "llama_tied":with {window = 5}:session {context = 400}
    assert.truthy(s.nbytes < load "llama_tied":session {context = 400}.nbytes)
    assert.truthy(golden.difference(s:append(ids), window:forward {ids}) < 1e-5)
  end)
end)

describe("a model with another rotation", function()
  it("is the one whose configuration says so", function()
    local plain = model_copy.load("llama_yarn", function(c) c.rope_scaling = nil end)
    local yarn = load "llama_yarn"
    assert.same(0, difference(plain, yarn:with {rope_scaling = false}))
    local linear = model_copy.load("llama_yarn", function(c)
      c.rope_scaling = {type = "linear", factor = 4}
    end)
    assert.same(0, difference(linear, plain:with {rope_scaling = {type = "linear", factor = 4}}))
    local base = model_copy.load("llama_yarn", function(c) c.rope_theta = 500 end)
    assert.same(0, difference(base, yarn:with {rope_base = 500}))
  end)
  it("rotates long texts in LongRoPE's other way", function()
    local longrope = {
      type = "longrope", factor = 4, original = 8, short = {1, 1, 1, 1}, long = {2, 3, 4, 5},
    }
    local m = load "llama_tied":with {rope_scaling = longrope}
    local file = model_copy.load("llama_tied", function(c)
      c.rope_parameters = {
        rope_type = "longrope", factor = 4, original_max_position_embeddings = 8,
        short_factor = {1, 1, 1, 1}, long_factor = {2, 3, 4, 5},
        rope_theta = c.rope_parameters.rope_theta,
      }
    end)
    assert.same(0, difference(m, file))
    local o = {tokens = 8, stop = {}}
    assert.same(file:generate({{5, 17, 3}}, o), m:generate({{5, 17, 3}}, o))
    assert.same(0, difference(load "llama_tied", m:with {rope_scaling = false}))
  end)
end)

describe("a model with another cache", function()
  it("has sessions of that dtype, unless they name one", function()
    local m = load "llama_tied"
    local i8 = m:with {cache = "i8"}
    local function logits(x, cache) return x:session {context = 64, cache = cache}:append(ids) end
    assert.same(0, golden.difference(logits(i8), logits(m, "i8")))
    assert.same(0, golden.difference(logits(i8, "f32"), logits(m)))
    assert.truthy(golden.difference(logits(i8), logits(m)) > 1e-5)
    assert.same(m:loss(ids, {cache = "i8"}), i8:loss(ids))
  end)
end)

describe("m:with", function()
  it("refuses what does not fit", function()
    local m = load "qwen3"
    local with = m.with
    fails("divisor of the 2 kv heads of layer 1, got 3", with, m, {kv_heads = 3})
    fails("kv_heads: expected an integer of at least 1, got 0.5", with, m, {kv_heads = 0.5})
    fails("did you mean 'kv_heads'", with, m, {kv_head = 1})
    fails("window: expected an integer of at least 1, or false, got 0", with, m, {window = 0})
    fails("cache: expected f32, bf16, f16 or i8, got 'f8'", with, m, {cache = "f8"})
    fails("layers: expected numbers from 1 to 2, got 3", with, m, {window = 4, layers = {3}})
    fails("rope_scaling: ", with, m, {rope_scaling = {type = "liner", factor = 2}})
    fails("rope_scaling: expected a plain table", with, m, {rope_scaling = 4})
    fails("rope_base: expected a positive number", with, m, {rope_base = -1})
    fails("expected a table such as {kv_heads = 1}", with, m)
    local alibi = load "mpt"
    fails("rope_scaling: expected layers with RoPE, got none", alibi.with, alibi,
      {rope_scaling = {type = "linear", factor = 2}})
    local latent = load "deepseek_v2"
    fails("got multi-head latent attention", latent.with, latent, {kv_heads = 1})
  end)
end)
