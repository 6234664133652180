-- What config.json and the metadata of a GGUF file may say: both spellings of transformers, its
-- defaults, and values of which no model can be made. The defaults are those of the configuration
-- classes of transformers 5.24.
local attune = require "attune"
local json = require "attune.util.json"
local model = require "attune.model"
local model_copy = require "tests.support.model_copy"

local with_model = model_copy.with_folder

local function refused(name, change, expected)
  with_model(name, change, function(folder)
    local m, message, code = model.load(folder)
    assert.is_nil(m, expected)
    assert.same("EFORMAT", code)
    assert.truthy(message:find(expected, 1, true), message .. " / " .. expected)
  end)
end

local ids = {{5, 17, 3, 90, 41, 8, 23, 4, 9, 11, 30, 2}}

local function logits(name, change)
  return model_copy.load(name, change):forward(ids)
end

local function same_logits(name, one, other)
  local d = logits(name, one) - logits(name, other)
  assert.equal(0, d:abs():max():item(), name)
end

describe("two spellings that differ", function()
  local function rope(c, changes)
    c.rope_parameters = {rope_type = "default", rope_theta = c.rope_theta or 10000}
    for name, value in pairs(changes) do c.rope_parameters[name] = value end
  end
  it("are refused: the part that is rotated", function()
    refused("phi", function(c) rope(c, {partial_rotary_factor = 0.25}) end,
      "partial_rotary_factor and rope_parameters.partial_rotary_factor differ")
    refused("gpt_neox", function(c) rope(c, {partial_rotary_factor = 0.5}) end, "differ")
    refused("gpt_neox", function(c) c.partial_rotary_factor = 0.5 end, "expected one value")
  end)
  it("are refused: the base", function()
    refused("gpt_neox", function(c) c.rope_theta = 500 end, "expected one value")
    refused("gpt_neox", function(c) rope(c, {rope_theta = 500}) end,
      "rope_theta and rope_parameters.rope_theta differ")
  end)
  it("are refused: the trained length", function()
    refused("llama_yarn", function(c) c.original_max_position_embeddings = 64 end, "original_max_"
      .. "position_embeddings and rope_scaling.original_max_position_embeddings differ")
  end)
  it("are refused: sets per kind of layer", function()
    local function sets(c, full, sliding)
      c.rope_parameters = {
        full_attention = {rope_type = "linear", factor = 8, rope_theta = 1000000},
        sliding_attention = {rope_type = "default", rope_theta = 10000},
      }
      for name, value in pairs(full) do c.rope_parameters.full_attention[name] = value end
      for name, value in pairs(sliding) do c.rope_parameters.sliding_attention[name] = value end
    end
    same_logits("gemma3", function() end, function(c) sets(c, {}, {}) end)
    refused("gemma3", function(c) sets(c, {factor = 4}, {}) end,
      "rope_scaling.factor and rope_parameters.full_attention.factor differ")
    refused("gemma3", function(c) sets(c, {rope_theta = 500}, {}) end, "rope_theta and")
    refused("gemma3", function(c) sets(c, {}, {rope_theta = 500}) end, "rope_local_base_freq and")
    refused("gemma3", function(c)
      sets(c, {}, {})
      c.rope_parameters.other_attention = {rope_type = "default"}
    end, "unknown field 'other_attention' of rope_parameters")
  end)
end)

describe("a field that is absent", function()
  it("has the default of transformers", function()
    for name, change in pairs {
      palm = function(c) c.logit_scale = nil end,
      deepseek_v3 = function(c) c.norm_topk_prob, c.routed_scaling_factor = nil, nil end,
      mixtral = function(c) c.rope_theta = nil end,
    } do
      same_logits(name, change, function() end)
    end
    same_logits("olmo2", function(c) c.rms_norm_eps = nil end,
      function(c) c.rms_norm_eps = 1e-5 end)
    same_logits("mistral", function(c) c.sliding_window = nil end,
      function(c) c.sliding_window = 4096 end)
    same_logits("mistral", function(c) c.sliding_window = json.null end,
      function(c) c.sliding_window = 4096 end)
    same_logits("cohere", function(c) c.rope_theta, c.rope_parameters = nil, nil end,
      function(c) c.rope_theta, c.rope_parameters = 500000, nil end)
  end)
end)

describe("the type of a model", function()
  it("must be a text", function()
    refused("gpt2", function(c) c.model_type = nil end, "model_type: expected a text, got nil")
    refused("gpt2", function(c) c.model_type = {"gpt2"} end, "expected a text, got a table")
    refused("gpt2", function(c) c.model_type = "gpt3" end, "unknown model_type 'gpt3'; did you")
  end)
end)

describe("the tokenizer of a model", function()
  it("that cannot be read is an error at the line that asks for it", function()
    with_model("gpt2", function() end, function(folder)
      assert(require "attune.util.files".write(folder .. "/tokenizer.json", "{"))
      local m = assert(model.load(folder))
      local ok, message = pcall(function() return m.tokenizer end)
      assert.is_false(ok)
      assert.truthy(message:find("^tests/spec/model_config_spec.lua:%d+: %S+: expected JSON"))
    end)
  end)
end)

describe("a configuration of one architecture", function()
  local function differ(name, a, b)
    return (logits(name, a) - logits(name, b)):abs():max():item() > 1e-5
  end
  local function same() end
  it("of SmolLM3 gives the window to the layers that do not rotate", function()
    local function window(c) c.use_sliding_window, c.sliding_window = true, 3 end
    local function derived(c)
      window(c)
      c.layer_types = nil
    end
    local function listed(c)
      window(c)
      c.layer_types[4] = "sliding_attention"
    end
    assert.is_true(differ("smollm3", same, derived))
    assert.is_false(differ("smollm3", listed, derived))
  end)
  it("of OLMo 3 may have a rotation of the layers with a window", function()
    local function nested(theta)
      return function(c)
        c.rope_parameters = {
          full_attention = c.rope_scaling,
          sliding_attention = {rope_type = "default", rope_theta = theta},
        }
        c.rope_scaling = nil
      end
    end
    assert.is_false(differ("olmo3", same, nested(500000)))
    assert.is_true(differ("olmo3", same, nested(100)))
  end)
  it("of Gemma 1 names its activation in one of two fields", function()
    local function act(hidden_act, activation)
      return function(c) c.hidden_act, c.hidden_activation = hidden_act, activation end
    end
    assert.is_false(differ("gemma", same, act "gelu"))
    assert.is_false(differ("gemma", same, act()))
    assert.is_true(differ("gemma", same, act "silu"))
    assert.is_false(differ("gemma", act "silu", act(nil, "silu")))
    refused("gemma", act("silu", "relu"), "hidden_act is 'silu' and hidden_activation is 'relu'")
  end)
  it("of Falcon may name its width n_embed", function()
    assert.is_false(differ("falcon_7b", same, function(c)
      c.n_embed, c.hidden_size = c.hidden_size, nil
    end))
  end)
  it("of the first Falcon files has another model_type and the names of that time", function()
    local function older(model_type)
      return function(c)
        c.model_type, c.new_decoder_architecture, c.num_ln_in_parallel_attn = model_type, nil, nil
        c.n_head, c.n_head_kv = c.num_attention_heads, c.num_kv_heads
        c.n_layer = c.num_hidden_layers
        c.num_attention_heads, c.num_hidden_layers, c.num_kv_heads = nil, nil, nil
      end
    end
    assert.is_false(differ("falcon_7b", same, older "RefinedWebModel"))
    assert.is_false(differ("falcon_rw", same, older "RefinedWebModel"))
    assert.is_false(differ("falcon_40b", same, older "RefinedWeb"))
  end)
  it("of GPT-2 may have a number of labels, as that of DistilGPT2 has", function()
    assert.is_false(differ("gpt2", same, function(c) c._num_labels, c.num_labels = 1, 2 end))
  end)
  it("of MPT has LayerNorm", function()
    assert.is_false(differ("mpt", same, function(c) c.norm_type = "layernorm" end))
    refused("mpt", function(c) c.norm_type = "rmsnorm" end, "norm_type: expected low_precision_lay")
  end)
  it("of Mistral and Mixtral has as many kv heads as heads where their number is null", function()
    for _, name in ipairs {"mistral", "mixtral"} do
      refused(name, function(c) c.num_key_value_heads = json.null end,
        "expected shape [32, 32], got [16, 32]")
    end
  end)
end)

-- Each compared with the logits of transformers 5.24 in development.
describe("a configuration, as transformers reads it,", function()
  local function same() end
  local function equal(name, a, b, bound)
    local d = (logits(name, a) - logits(name, b)):abs():max():item()
    assert.truthy(d <= (bound or 0), ("%s: %g"):format(name, d))
  end
  local function differ(name, a, b)
    assert.is_true((logits(name, a) - logits(name, b)):abs():max():item() > 1e-4, name)
  end
  it("of Mistral may list the layers that have the window", function()
    local function layers(first, second)
      return function(c)
        c.sliding_window, c.layer_types = 3, {first .. "_attention", second .. "_attention"}
      end
    end
    local function window(tokens) return function(c) c.sliding_window = tokens end end
    equal("mistral", layers("sliding", "sliding"), window(3))
    equal("mistral", layers("full", "full"), window(json.null))
    differ("mistral", layers("full", "sliding"), window(3))
    differ("mistral", layers("full", "sliding"), window(json.null))
    equal("mistral", function(c) c.model_type = "ministral" end, same)
  end)
  it("of GPT-OSS without a scaling has YaRN by 32 from 4096 tokens", function()
    local function published(c)
      c.rope_scaling = {
        rope_type = "yarn", factor = 32.0, beta_fast = 32.0, beta_slow = 1.0, truncate = false,
        original_max_position_embeddings = 4096,
      }
    end
    local function default(c) c.rope_scaling = {rope_type = "default"} end
    equal("gpt_oss", function(c) c.rope_scaling = nil end, published)
    equal("gpt_oss", function(c) c.rope_scaling = json.null end, published)
    differ("gpt_oss", default, published)
  end)
  it("of Gemma 3 does not cap the scores", function()
    equal("gemma3", function(c) c.attn_logit_softcapping = 1.0 end, same)
  end)
  it("of Gemma 4 gives the last layer full attention", function()
    equal("gemma4_k_eq_v", function(c) c.layer_types[3] = "sliding_attention" end, same)
  end)
  it("of Gemma 4 may rotate less than a pair of dims, which is none", function()
    local function part(x)
      return function(c) c.rope_parameters.full_attention.partial_rotary_factor = x end
    end
    equal("gemma4_k_eq_v", part(0.1), part(0))
    equal("gemma4_k_eq_v", part(0.2), part(0.125)) -- 3 dims of 16, and 2
    differ("gemma4_k_eq_v", part(0), part(0.125))
  end)
  it("of Phi-3 may call its scaling su or yarn", function()
    for _, name in ipairs {"su", "yarn"} do
      equal("phi3_longrope", function(c) c.rope_scaling.type = name end, same)
    end
  end)
  it("of Phi may have heads of any size", function()
    local d = logits("phi", function(c, t)
      c.head_dim = 4
      for name, x in pairs(t) do
        if name:find "[qkv]_proj" then
          t[name] = x:slice(1, 1, 4 * c.num_attention_heads):contiguous()
        elseif name:find "self_attn.dense.weight" then
          t[name] = x:slice(2, 1, 4 * c.num_attention_heads):contiguous()
        end
      end
    end):abs():max():item()
    assert.is_true(d > 0 and d < math.huge)
  end)
  it("of T5 may name its activation and its gate", function()
    differ("t5", function(c) c.dense_act_fn = "gelu" end, same)
    equal("t5", function(c) c.dense_act_fn, c.is_gated_act = "relu", false end, same)
    refused("t5", function(c) c.is_gated_act = true end, "wi_1.weight', got none")
  end)
  it("may name the number of experts in two ways", function()
    equal("mixtral", function(c) c.num_experts, c.num_local_experts = c.num_local_experts, nil end,
      same)
    for _, name in ipairs {"deepseek_v2_q_lora", "deepseek_v3"} do
      equal(name, function(c) c.num_experts = c.n_routed_experts end, same)
      refused(name, function(c) c.num_local_experts = 3 end, "expected one value")
    end
  end)
  it("of DeepSeek-V2 may have biases in its MLPs, but not in the experts", function()
    local function biased(x)
      return function(c, t)
        c.mlp_bias = true
        for _, at in ipairs {"layers.0.mlp.", "layers.1.mlp.shared_experts."} do
          for _, part in ipairs {"gate_proj", "up_proj", "down_proj"} do
            local name = "model." .. at .. part
            t[name .. ".bias"] = attune.full({t[name .. ".weight"].shape[1]}, x)
          end
        end
      end
    end
    equal("deepseek_v2_q_lora", biased(0), same)
    differ("deepseek_v2_q_lora", biased(0.5), same)
  end)
  it("rotates one more of an odd number of dims", function()
    -- 3 of 16 dims: frequencies 1 and base^(-2/3), as of 4 dims with another base.
    local function rotated(part, base, scaling)
      return function(c) c.rotary_pct, c.rotary_emb_base, c.rope_scaling = part, base, scaling end
    end
    equal("gpt_neox", rotated(0.2, 500), rotated(0.25, 500 ^ (4 / 3)), 1e-5)
    local linear = {type = "linear", factor = 4}
    equal("gpt_neox", rotated(0.2, 500, linear), rotated(0.25, 500 ^ (4 / 3), linear), 1e-5)
    refused("phi", function(c) c.partial_rotary_factor = 0.4 end, "dims: expected an even number")
  end)
  it("may hold what transformers 4 writes and does not read", function()
    equal("cohere2", function(c)
      c.layer_types, c._sliding_window_pattern = {}, 4
      for i = 1, 4 do c.layer_types[i] = i < 4 and "sliding_attention" or "full_attention" end
    end, same)
    equal("mpt", function(c) c.attn_config.tie_word_embeddings = true end, same)
  end)
  it("may hold what published files hold and no code reads", function()
    equal("phi3", function(c) c.full_attn_mod, c.interpolate_factor = 1, 1 end, same)
    equal("stablelm", function(c) c.rotary_scaling_factor = 1.0 end, same)
    equal("llama_tied", function(c) c.max_sequence_length, c.unsloth_fixed = 2048, true end, same)
  end)
  it("ties the head, unless the file has one", function()
    local function head(c, t)
      c.tie_word_embeddings = true
      t["lm_head.weight"] = t["model.embed_tokens.weight"] * 2
    end
    equal("llama_tied", function(c, t)
      head(c, t)
      c.tie_word_embeddings = false
    end, head)
    differ("llama_tied", head, same)
    local function tied(c) c.tie_word_embeddings = true end
    equal("gpt_neox", tied, same)
  end)
end)

describe("sets of a rotation", function()
  it("in both spellings must say the same, defaults included", function()
    local function both(changes)
      return function(c)
        c.rope_parameters = {rope_type = "yarn"}
        for name, value in pairs(c.rope_scaling) do
          if name ~= "type" then c.rope_parameters[name] = value end
        end
        c.rope_scaling.beta_fast = changes.old
        c.rope_parameters.beta_fast = changes.new
        if changes.only then c.rope_parameters.original_max_position_embeddings = nil end
      end
    end
    same_logits("llama_yarn", function() end, both {})
    same_logits("llama_yarn", function() end, both {new = 32})
    same_logits("llama_yarn", function() end, both {only = true})
    local message = "rope_scaling.beta_fast and rope_parameters.beta_fast differ"
    refused("llama_yarn", both {new = 8}, message)
    refused("llama_yarn", both {old = 8}, message)
    refused("llama_yarn", both {old = 8, new = 9}, message)
    refused("llama_yarn", function(c) c.rope_parameters = {rope_type = "default"} end,
      "rope_scaling.rope_type and rope_parameters.rope_type differ")
    refused("llama_yarn", function(c)
      both {} (c)
      c.rope_theta, c.rope_scaling.rope_theta, c.rope_parameters.rope_theta = nil, 100, 200
    end, "rope_scaling.rope_theta and rope_parameters.rope_theta differ")
  end)
  it("per kind of layer take their bases from the fields outside", function()
    local function mixed(c)
      c.rope_theta, c.rope_local_base_freq = 300, 50
      c.rope_parameters = {full_attention = c.rope_scaling, sliding_attention = {}}
      c.rope_scaling = nil
    end
    same_logits("gemma3", mixed, function(c) c.rope_theta, c.rope_local_base_freq = 300, 50 end)
    same_logits("gemma3", function(c)
      mixed(c)
      c.rope_parameters.sliding_attention = nil
    end, mixed)
  end)
  it("per kind of layer are refused where all layers rotate alike", function()
    refused("llama_tied", function(c)
      c.rope_parameters = {
        full_attention = {rope_theta = 500}, sliding_attention = {rope_theta = 50},
      }
    end, "rope_parameters: expected one set for all layers")
  end)
end)

describe("a field inside of a field", function()
  it("that is unknown is an error or a warning, and may be empty", function()
    refused("llama_yarn", function(c) c.rope_scaling.foo = 3 end, "unknown field 'foo'")
    refused("mpt", function(c) c.attn_config.foo = 3 end, "unknown field 'foo' of attn_config")
    for name, field in pairs {llama_yarn = "rope_scaling", mpt = "attn_config"} do
      with_model(name, function(c) c[field].foo = 3 end, function(folder)
        local m = assert(model.load(folder, {unknown = "warn"}))
        assert.same(1, #m.warnings)
        assert.truthy(m.warnings[1]:find("'foo'", 1, true))
      end)
      for _, empty in ipairs {"", false, 0, json.list()} do
        assert(model_copy.load(name, function(c) c[field].foo = empty end))
      end
    end
  end)
end)

describe("a value of which no model can be made", function()
  it("is refused when the model is loaded", function()
    for _, case in ipairs {
      {"llama_tied", "num_attention_heads", 0}, {"llama_tied", "num_key_value_heads", 0},
      {"llama_tied", "num_key_value_heads", 3}, {"llama_tied", "rms_norm_eps", -1},
      {"llama_tied", "eos_token_id", "x"}, {"llama_tied", "num_attention_heads", 1 << 40},
      {"mistral", "sliding_window", 0}, {"mistral", "sliding_window", false},
      {"gemma2", "attn_logit_softcapping", 0}, {"gemma2", "query_pre_attn_scalar", 0},
      {"gemma3", "sliding_window_pattern", 0}, {"cohere2", "sliding_window_pattern", 0},
      {"deepseek_v3", "moe_layer_freq", 0}, {"deepseek_v3", "n_group", 0},
      {"deepseek_v3", "n_group", 3}, {"mixtral", "num_experts_per_tok", 9},
      {"smollm3", "no_rope_layer_interval", 0}, {"t5", "decoder_start_token_id", 5000},
    } do
      refused(case[1], function(c) c[case[2]] = case[3] end, case[2])
    end
    refused("mpt", function(c) c.attn_config.softmax_scale = "x" end, "softmax_scale")
    for _, name in ipairs {"mixtral", "phi3", "deepseek_v3", "llama_tied", "gpt_neox"} do
      refused(name, function(c) c.hidden_act = "mish" end, "expected an activation such as gelu")
    end
    refused("deepseek_v3", function(c) c.rope_scaling.mscale_all_dim = "x" end, "mscale_all_dim: e")
    refused("gemma4_k_eq_v", function(c) c.rope_parameters.full_attention = nil end,
      "rope_parameters: expected a set of full_attention, got none")
    refused("smollm3", function(c) c.no_rope_layers = {1} end, "no_rope_layers")
    refused("mpt", function(c) c.attn_config.alibi_bias_max = "x" end, "max_bias")
  end)
  it("may have a fraction of 0", function()
    local m = model_copy.load("llama_tied", function(c) c.eos_token_id = {2.0, 95.0} end)
    assert.same({"integer", "integer"}, {math.type(m.eos[1]), math.type(m.eos[2])})
    assert.equal(4, #m:generate({{5}}, {tokens = 3})[1])
  end)
  it("is refused before it takes memory", function()
    refused("llama_tied", function(c) c.num_hidden_layers = 1000000000 end,
      "num_hidden_layers: expected at most")
    refused("mixtral", function(c) c.num_local_experts = 3000000 end,
      "num_local_experts: expected at most")
  end)
end)

describe("a folder", function()
  it("without config.json, or with a folder of that name, gives a code", function()
    with_model("llama_tied", function() end, function(folder)
      os.remove(folder .. "/config.json")
      local m, message, code = model.load(folder)
      assert.is_nil(m)
      assert.truthy(message:find("config.json", 1, true), message)
      assert.equal(2, code)
      assert(require "attune.util.files".make_folder(folder .. "/config.json"))
      m, message, code = model.load(folder)
      assert.is_nil(m)
      assert.truthy(message:find("config.json", 1, true), message)
      assert.equal(21, code)
      os.remove(folder .. "/config.json")
    end)
    assert.equal(2, select(3, model.load "/nonexistent"))
    local m, message = model.load(model_copy.source .. "llama_tied/model.safetensors")
    assert.is_nil(m)
    assert.truthy(message:find("or the folder of a model", 1, true), message)
  end)
end)

describe("metadata of a GGUF file", function()
  local function load(change)
    local result
    with_model("llama_tied", function() end, function(folder)
      local path = folder .. "/model.gguf"
      local tensors = {["token_embd.weight"] = attune.randn({8, 8}, {seed = 1})}
      local metadata = {
        ["general.architecture"] = "llama", ["llama.embedding_length"] = 8,
        ["llama.feed_forward_length"] = 8, ["llama.block_count"] = 1,
        ["llama.attention.head_count"] = 2, ["llama.attention.layer_norm_rms_epsilon"] = 1e-5,
        ["llama.context_length"] = 32,
      }
      for _, name in ipairs {"attn_norm", "ffn_norm"} do
        tensors[("blk.0.%s.weight"):format(name)] = attune.ones {8}
      end
      for _, name in ipairs {
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
      } do
        tensors[("blk.0.%s.weight"):format(name)] = attune.ones {8, 8}
      end
      tensors["output_norm.weight"] = attune.ones {8}
      change(metadata, tensors)
      assert(attune.save(path, tensors, metadata))
      result = {model.load(path)}
    end)
    return table.unpack(result, 1, 3)
  end
  it("that change what a model computes are followed or refused", function()
    assert(load(function() end))
    assert(load(function(m) m["llama.rope.dimension_count"] = 4 end))
    assert(load(function(m) m["llama.logit_scale"] = 1.0 end))
    for name, value in pairs {
      ["rope.dimension_count"] = 2, ["attention.value_length"] = 2, ["attention.scale"] = 0.5,
      ["rope.scaling.attn_factor"] = 2.0, ["logit_scale"] = 2.0, ["expert_count"] = 8,
      ["rope.scaling.yarn_attn_factor"] = 0.5, ["rope.scaling.yarn_ext_factor"] = 0.5,
      ["rope.scaling.yarn_log_multiplier"] = 0.1, ["attention.causal"] = false,
      ["attention.sliding_window"] = 31, ["rope.scaling.type"] = "longrope",
    } do
      local m, message, code = load(function(metadata) metadata["llama." .. name] = value end)
      assert.is_nil(m)
      assert.same("EFORMAT", code)
      assert.truthy(message:find("llama." .. name .. ": expected", 1, true), message)
    end
  end)
  it("may have a window and other values that change nothing", function()
    assert(load(function(m)
      m["llama.attention.sliding_window"], m["llama.attention.causal"] = 32, true
      m["llama.rope.scaling.factor"] = 0.0
    end))
  end)
  it("name what ends a text, a turn and a message", function()
    local function eos(changes)
      return assert(load(function(m)
        for name, id in pairs(changes) do m[("tokenizer.ggml.%s_token_id"):format(name)] = id end
      end)).eos
    end
    assert.is_nil(eos {})
    assert.same(7, eos {eos = 7})
    assert.same(7, eos {eos = 7, eot = 7})
    assert.same({5, 7, 2}, eos {eos = 5, eot = 7, eom = 2})
    local m, message = load(function(metadata) metadata["tokenizer.ggml.eot_token_id"] = "a" end)
    assert.is_nil(m)
    assert.truthy(message:find("eos_token_id: expected an id or a list of ids", 1, true), message)
  end)
  it("of a rotation are read as by llama.cpp", function()
    local function logits_with(changes)
      local m = assert(load(function(metadata, tensors)
        for name, value in pairs(changes) do metadata["llama." .. name] = value end
        for i, name in ipairs {"attn_q", "attn_k", "attn_v", "ffn_gate"} do
          tensors[("blk.0.%s.weight"):format(name)] = attune.randn({8, 8}, {seed = i})
        end
      end))
      return m:forward {{1, 7, 3, 0, 5, 2, 6, 4, 4, 1}}
    end
    local function differ(a, b)
      return (logits_with(a) - logits_with(b)):abs():max():item() > 1e-3
    end
    local linear = {["rope.scaling.type"] = "linear", ["rope.scaling.factor"] = 4.0}
    assert.is_true(differ(linear, {}))
    assert.is_false(differ(linear, {["rope.scaling.factor"] = 4.0}))
    assert.is_false(differ(linear, {["rope.scale_linear"] = 4.0}))
    assert.is_false(differ({}, {["rope.scaling.type"] = "none", ["rope.scaling.factor"] = 4.0}))
    assert.is_false(differ({}, {["rope.scaling.type"] = "linear"}))
    local function yarn(name, value)
      return {
        ["rope.scaling.type"] = "yarn", ["rope.scaling.factor"] = 4.0,
        ["rope.scaling.original_context_length"] = 4096, [name or "x"] = value,
      }
    end
    assert.is_true(differ(yarn(), yarn("rope.scaling.yarn_beta_slow", 30.0)))
  end)
  it("of which no rotation can be made are refused", function()
    local m, message, code = load(function(metadata)
      metadata["llama.rope.scaling.factor"] = -2.0
    end)
    assert.is_nil(m)
    assert.same("EFORMAT", code)
    local expected = "metadata: rotation: factor: expected a number of at least 1, got -2"
    assert.truthy(message:find(expected, 1, true), message)
    refused("llama_yarn", function(c) c.rope_scaling.beta_slow = 100 end,
      "config.json: rotation: beta_fast: expected at least beta_slow, 100, got 32")
  end)
  it("must have the epsilon of the norms", function()
    local name = "llama.attention.layer_norm_rms_epsilon"
    local m, message = load(function(metadata) metadata[name] = nil end)
    assert.is_nil(m)
    assert.truthy(message:find(name .. ": expected a number, got nil", 1, true), message)
    m, message = load(function(metadata, tensors)
      metadata["llama.rope.scaling.factor"] = 8.0
      tensors["rope_freqs.weight"] = attune.ones {2}
    end)
    assert.is_nil(m)
    assert.truthy(message:find("expected 1 beside rope_freqs.weight, got 8.0", 1, true), message)
  end)
  it("with an id that is NaN are refused", function()
    local m, message, code = load(function(metadata)
      metadata["tokenizer.ggml.eot_token_id"] = 0 / 0
    end)
    assert.same({nil, "EFORMAT"}, {m, code})
    assert.truthy(message:find("expected an id or a list of ids", 1, true), message)
  end)
  it("need not say that matrices have biases", function()
    local function biased(_, tensors)
      for _, name in ipairs {"attn_q", "attn_k", "attn_v", "attn_output"} do
        tensors[("blk.0.%s.bias"):format(name)] = attune.full({8}, 0.5)
      end
    end
    local plain, with_biases = assert(load(function() end)), assert(load(biased))
    local d = plain:forward {{1, 2, 3}} - with_biases:forward {{1, 2, 3}}
    assert.is_true(d:abs():max():item() > 0)
  end)
  it("are named in messages", function()
    local m, message = load(function(metadata) metadata["llama.attention.head_count"] = 0 end)
    assert.is_nil(m)
    assert.truthy(message:find("metadata: num_attention_heads", 1, true), message)
    m, message = load(function(metadata) metadata["llama.block_count"] = 0xffffffff end)
    assert.is_nil(m)
    assert.truthy(message:find("num_hidden_layers: expected at most", 1, true), message)
    m, message = load(function(_, tensors) tensors["rope_freqs.weight"] = attune.ones {3} end)
    assert.is_nil(m)
    assert.truthy(message:find("rope_freqs.weight: expected 2 numbers, got 3", 1, true), message)
  end)
end)
