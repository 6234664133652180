--- GPT-NeoX (Pythia), GPT-J and Phi: attention and MLP of the same x, partial rotation.
local common = require "attune.model.architectures.common"

local shared = {
  hidden_size = "count", num_attention_heads = "count", num_hidden_layers = "count",
  vocab_size = "count", max_position_embeddings = {"count", 2048},
  tie_word_embeddings = {"boolean", false}, eos_token_id = {"ids"},
}

local function gpt_neox(c)
  local n, heads, d = c.hidden_size, c.num_attention_heads, common.head_dim(c)
  local rope = common.rope_options(c, d, {partial = 0.25, rounds_up = true})
  local function norm(name) return common.layer_norm(name, n, c.layer_norm_eps) end
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "embed_in"},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("layers.%d."):format(i)
      return {
        parallel = c.use_parallel_residual,
        norm1 = norm(at .. "input_layernorm"), norm2 = norm(at .. "post_attention_layernorm"),
        attention = {
          form = "grouped", heads = heads, kv_heads = heads, head_dim = d, rope = rope,
          qkv = {
            name = at .. "attention.query_key_value", inputs = n, outputs = 3 * n,
            bias = c.attention_bias,
          },
          o = {name = at .. "attention.dense", inputs = n, outputs = n, bias = c.attention_bias},
        },
        mlp = common.plain_mlp(
          c, c.hidden_act, at .. "mlp.dense_h_to_4h", at .. "mlp.dense_4h_to_h", true
        ),
      }
    end),
    norm = norm "final_layer_norm",
    head = {names = {"=embed_out", "=lm_head"}, tied = c.tie_word_embeddings},
  }
end

-- One norm for both parts.
local function one_norm(c, v)
  local n, d = c.hidden_size, common.head_dim(c)
  local function norm(name) return common.layer_norm(name, n, v.eps) end
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = v.embedding},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = v.layer:format(i)
      local function head_norm(name)
        if not c.qk_layernorm then return nil end
        return common.layer_norm(at .. v.attention .. name, d, v.eps)
      end
      return {
        parallel = true, norm1 = norm(at .. v.norm),
        attention = common.separate(at .. v.attention, c, {
          kv_heads = c.num_key_value_heads, head_dim = d, bias = v.bias, o_bias = v.bias, o = v.o,
          with = {
            rope = v.rope(d), q_norm = head_norm "q_layernorm", k_norm = head_norm "k_layernorm",
          },
        }),
        mlp = common.plain_mlp(c, v.activation, at .. "mlp." .. v.up, at .. "mlp." .. v.down, true),
      }
    end),
    norm = norm(v.last_norm),
    head = {name = "=lm_head", tied = c.tie_word_embeddings, bias = true},
  }
end

return {
  gpt_neox = {
    fields = common.fields(shared, common.rope.fields, {
      intermediate_size = "count", hidden_act = {"text", "gelu"},
      layer_norm_eps = {"positive", 1e-5},
      use_parallel_residual = {"boolean", true}, attention_bias = {"boolean", true},
    }),
    aliases = {rotary_emb_base = "rope_theta", rotary_pct = "partial_rotary_factor"},
    prefixes = {"gpt_neox.", ""}, probe = "embed_in.weight", describe = gpt_neox,
    unused = {"%.attention%.bias$", "%.attention%.masked_bias$"},
  },
  gptj = {
    fields = common.fields(shared, {
      intermediate_size = {"count"}, activation_function = {"text", "gelu_new"},
      layer_norm_epsilon = {"positive", 1e-5}, rotary_dim = {"count", 64},
    }),
    aliases = common.gpt_aliases,
    ignored = {rotary = true, scale_attn_weights = true, n_ctx = true},
    prefixes = {"transformer.", ""}, probe = "wte.weight",
    unused = {"%.attn%.bias$", "%.attn%.masked_bias$"},
    describe = function(c)
      return one_norm(c, {
        embedding = "wte", layer = "h.%d.", norm = "ln_1", attention = "attn.", o = "out_proj",
        up = "fc_in", down = "fc_out", last_norm = "ln_f", eps = c.layer_norm_epsilon, bias = false,
        activation = c.activation_function,
        rope = function(d)
          return {head_dim = d, dims = c.rotary_dim, base = 10000, pairing = "interleaved"}
        end,
      })
    end,
  },
  phi = {
    fields = common.fields(shared, common.rope.fields, {
      intermediate_size = "count", hidden_act = {"text", "gelu_new"},
      layer_norm_eps = {"positive", 1e-5}, num_key_value_heads = {"count"},
      qk_layernorm = {"boolean", false}, head_dim = {"count"},
    }),
    prefixes = {"model.", ""}, probe = "embed_tokens.weight",
    describe = function(c)
      return one_norm(c, {
        embedding = "embed_tokens", layer = "layers.%d.", norm = "input_layernorm",
        attention = "self_attn.", o = "dense", up = "fc1", down = "fc2",
        last_norm = "final_layernorm", eps = c.layer_norm_eps, bias = true,
        activation = c.hidden_act,
        rope = function(d) return common.rope_options(c, d, {partial = 0.5}) end,
      })
    end,
  },
}
