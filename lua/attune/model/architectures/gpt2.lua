--- GPT-2, and GPT-BigCode (SantaCoder, StarCoder), which has multi-query attention.
local common = require "attune.model.architectures.common"

local shared = {
  hidden_size = "count", num_attention_heads = "count", num_hidden_layers = "count",
  max_position_embeddings = {"count", 1024}, vocab_size = "count",
  intermediate_size = {"count"}, layer_norm_epsilon = {"positive", 1e-5},
  tie_word_embeddings = {"boolean", true}, scale_attn_weights = {"boolean", true},
  eos_token_id = {"ids"},
}

local function describe(c, form)
  local n, heads = c.hidden_size, c.num_attention_heads
  local d = common.head_dim(c)
  local kv = form.kv_heads
  local function norm(name) return common.layer_norm(name, n, c.layer_norm_epsilon) end
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    limit = c.max_position_embeddings,
    embedding = {name = "wte", positions = {name = "wpe", rows = c.max_position_embeddings}},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("h.%d."):format(i)
      local scale = c.scale_attn_weights and d ^ -0.5 or 1
      if c.scale_attn_by_inverse_layer_idx then scale = scale / (i + 1) end
      return {
        norm1 = norm(at .. "ln_1"), norm2 = norm(at .. "ln_2"),
        attention = {
          form = form.form, heads = heads, kv_heads = kv, head_dim = d, scale = scale,
          qkv = {
            name = at .. "attn.c_attn", inputs = n, outputs = (heads + 2 * kv) * d, bias = true,
            transposed = form.transposed,
          },
          o = {
            name = at .. "attn.c_proj", inputs = n, outputs = n, bias = true,
            transposed = form.transposed,
          },
        },
        mlp = common.plain_mlp(c, c.activation_function, at .. "mlp.c_fc", at .. "mlp.c_proj", true,
          form.transposed),
      }
    end),
    norm = norm "ln_f",
    head = {name = "=lm_head", tied = c.tie_word_embeddings},
  }
end

local unused = {"%.attn%.bias$", "%.attn%.masked_bias$"}

return {
  gpt2 = {
    fields = common.fields(shared, {
      activation_function = {"text", "gelu_new"},
      scale_attn_by_inverse_layer_idx = {"boolean", false},
    }),
    aliases = common.gpt_aliases,
    ignored = {n_ctx = true, reorder_and_upcast_attn = true},
    prefixes = {"transformer.", ""}, probe = "wte.weight", unused = unused,
    -- Matrices are stored as [inputs, outputs] (Conv1D).
    describe = function(c)
      return describe(c, {form = "joined", kv_heads = c.num_attention_heads, transposed = true})
    end,
  },
  gpt_bigcode = {
    fields = common.fields(shared, {
      activation_function = {"text", "gelu_pytorch_tanh"}, multi_query = {"boolean", true},
      num_key_value_heads = {"count"},
    }),
    aliases = common.gpt_aliases,
    ignored = {
      attention_softmax_in_fp32 = true, scale_attention_softmax_in_fp32 = true,
      inference_runner = true, max_batch_size = true, max_sequence_length = true, n_ctx = true,
      pad_key_length = true, pre_allocate_kv_cache = true, validate_runner_input = true,
      attention_type = true, use_flash_attention = true,
    },
    prefixes = {"transformer.", ""}, probe = "wte.weight", unused = unused,
    describe = function(c)
      local kv_heads = c.multi_query and 1 or c.num_attention_heads
      if c.num_key_value_heads and c.num_key_value_heads ~= kv_heads then
        local form = "config.json: num_key_value_heads: expected %d beside multi_query %s, got %d"
        error(form:format(kv_heads, c.multi_query, c.num_key_value_heads), 0)
      end
      return describe(c, {form = c.multi_query and "joined" or "grouped", kv_heads = kv_heads})
    end,
  },
}
