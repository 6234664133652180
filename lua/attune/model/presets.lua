--- The configurations of published models, as data. `model.preset` gives one with its methods.
--
-- Each field has the name that nn.Decoder uses. Beyond those:
--   kind           "decoder" (the default) or "encoder-decoder"
--   norm_bias      a LayerNorm has a bias beside its weight
--   shared_norm    a parallel block has one norm for attention and MLP, not one for each
--   attention_bias, mlp_bias, head_bias   where they differ from bias
--   rope           {base, dims, pairing}: dims 0 means all of head_dim
--   window         visible keys of a query, its own token included; 0: all
--   max_positions  rows of a learned position table
--   mla            latent attention: ranks and dims; q_rank 0: q has one projection
--   experts        a mixture of experts in place of the MLP
-- `source` says where the configuration is published. `note` corrects what is often misread.

local llama_source = "meta-llama on Hugging Face, config.json"
local falcon_source = "Almazrouei et al. 2023 (arXiv 2311.16867); tiiuae on Hugging Face, "
  .. "config.json"
local palm_source = "Chowdhery et al. 2022 (arXiv 2204.02311), table 1"
local bigcode_source = "bigcode on Hugging Face, config.json"

local presets = {
  {
    name = "falcon-7b", family = "falcon", source = falcon_source,
    layers = 32, d_model = 4544, heads = 71, head_dim = 64, kv_heads = 1, d_ff = 18176,
    mlp = "gelu", norm = "layernorm", norm_bias = true, shared_norm = true, block = "parallel",
    position = "rope", rope = {base = 10000, pairing = "half"},
    vocab = 65024, context = 2048, tied = true, bias = false,
  },
  {
    name = "falcon-40b", family = "falcon", source = falcon_source,
    layers = 60, d_model = 8192, heads = 128, head_dim = 64, kv_heads = 8, d_ff = 32768,
    mlp = "gelu", norm = "layernorm", norm_bias = true, block = "parallel",
    position = "rope", rope = {base = 10000, pairing = "half"},
    vocab = 65024, context = 2048, tied = true, bias = false,
    note = "config.json says multi_query: true; the new decoder has 8 kv heads, which is grouped",
  },
  {
    name = "falcon-180b", family = "falcon", source = falcon_source,
    layers = 80, d_model = 14848, heads = 232, head_dim = 64, kv_heads = 8, d_ff = 59392,
    mlp = "gelu", norm = "layernorm", norm_bias = true, block = "parallel",
    position = "rope", rope = {base = 10000, pairing = "half"},
    vocab = 65024, context = 2048, tied = true, bias = false,
    note = "8 kv heads, as falcon-40b. Files that hold the head again have 179,522,565,120 "
      .. "parameters (tied = false)",
  },
  {
    name = "falcon-rw-1b", family = "falcon", source = falcon_source,
    layers = 24, d_model = 2048, heads = 32, head_dim = 64, kv_heads = 32, d_ff = 8192,
    mlp = "gelu", norm = "layernorm", norm_bias = true, block = "serial", position = "alibi",
    vocab = 50304, context = 2048, tied = true, bias = true,
  },
  {
    name = "palm-8b", family = "palm", source = palm_source,
    layers = 32, d_model = 4096, heads = 16, head_dim = 256, kv_heads = 1, d_ff = 16384,
    mlp = "swiglu", norm = "layernorm", norm_bias = false, shared_norm = true, block = "parallel",
    position = "rope", rope = {base = 10000, pairing = "interleaved"},
    vocab = 256000, context = 2048, tied = true, bias = false,
  },
  {
    name = "palm-62b", family = "palm", source = palm_source,
    layers = 64, d_model = 8192, heads = 32, head_dim = 256, kv_heads = 1, d_ff = 32768,
    mlp = "swiglu", norm = "layernorm", norm_bias = false, shared_norm = true, block = "parallel",
    position = "rope", rope = {base = 10000, pairing = "interleaved"},
    vocab = 256000, context = 2048, tied = true, bias = false,
  },
  {
    name = "palm-540b", family = "palm", source = palm_source,
    layers = 118, d_model = 18432, heads = 48, head_dim = 256, kv_heads = 1, d_ff = 73728,
    mlp = "swiglu", norm = "layernorm", norm_bias = false, shared_norm = true, block = "parallel",
    position = "rope", rope = {base = 10000, pairing = "interleaved"},
    vocab = 256000, context = 2048, tied = true, bias = false,
    note = "attention is 48 x 256 = 12288 wide, not d_model",
  },
  {
    name = "starcoder", family = "gpt_bigcode", source = bigcode_source,
    layers = 40, d_model = 6144, heads = 48, head_dim = 128, kv_heads = 1, d_ff = 24576,
    mlp = "gelu_tanh", norm = "layernorm", norm_bias = true, block = "serial",
    position = "learned", max_positions = 8192,
    vocab = 49152, context = 8192, tied = true, bias = true,
  },
  {
    name = "starcoderbase-1b", family = "gpt_bigcode", source = bigcode_source,
    layers = 24, d_model = 2048, heads = 16, head_dim = 128, kv_heads = 1, d_ff = 8192,
    mlp = "gelu_tanh", norm = "layernorm", norm_bias = true, block = "serial",
    position = "learned", max_positions = 8192,
    vocab = 49152, context = 8192, tied = true, bias = true,
  },
  {
    name = "santacoder", family = "gpt_bigcode", source = bigcode_source,
    layers = 24, d_model = 2048, heads = 16, head_dim = 128, kv_heads = 1, d_ff = 8192,
    mlp = "gelu_tanh", norm = "layernorm", norm_bias = true, block = "serial",
    position = "learned", max_positions = 2048,
    vocab = 49280, context = 2048, tied = true, bias = true,
  },
  {
    name = "t5-base", family = "t5", kind = "encoder-decoder",
    source = "Raffel et al. 2019 (arXiv 1910.10683); google-t5 on Hugging Face, config.json",
    layers = 12, encoder_layers = 12, d_model = 768, heads = 12, head_dim = 64, kv_heads = 12,
    d_ff = 3072, mlp = "relu", norm = "rmsnorm", block = "serial",
    position = "t5", t5 = {buckets = 32, max_distance = 128},
    vocab = 32128, context = 512, tied = true, bias = false,
    note = "scores are not divided by sqrt(head_dim); one table of 32 x 12 per side, not per layer",
  },
  {
    name = "gpt2", family = "gpt2", source = "openai-community on Hugging Face, config.json",
    layers = 12, d_model = 768, heads = 12, head_dim = 64, kv_heads = 12, d_ff = 3072,
    mlp = "gelu_tanh", norm = "layernorm", norm_bias = true, block = "serial",
    position = "learned", max_positions = 1024,
    vocab = 50257, context = 1024, tied = true, bias = true,
  },
  {
    name = "gpt3-175b", family = "gpt2", source = "Brown et al. 2020 (arXiv 2005.14165), table 2.1",
    layers = 96, d_model = 12288, heads = 96, head_dim = 128, kv_heads = 96, d_ff = 49152,
    mlp = "gelu_tanh", norm = "layernorm", norm_bias = true, block = "serial",
    position = "learned", max_positions = 2048,
    vocab = 50257, context = 2048, tied = true, bias = true,
  },
  {
    name = "llama2-7b", family = "llama", source = llama_source,
    layers = 32, d_model = 4096, heads = 32, head_dim = 128, kv_heads = 32, d_ff = 11008,
    mlp = "swiglu", norm = "rmsnorm", block = "serial",
    position = "rope", rope = {base = 10000, pairing = "half"},
    vocab = 32000, context = 4096, tied = false, bias = false,
  },
  {
    name = "llama2-70b", family = "llama", source = llama_source,
    layers = 80, d_model = 8192, heads = 64, head_dim = 128, kv_heads = 8, d_ff = 28672,
    mlp = "swiglu", norm = "rmsnorm", block = "serial",
    position = "rope", rope = {base = 10000, pairing = "half"},
    vocab = 32000, context = 4096, tied = false, bias = false,
  },
  {
    name = "llama3-8b", family = "llama", source = llama_source,
    layers = 32, d_model = 4096, heads = 32, head_dim = 128, kv_heads = 8, d_ff = 14336,
    mlp = "swiglu", norm = "rmsnorm", block = "serial",
    position = "rope", rope = {base = 500000, pairing = "half"},
    vocab = 128256, context = 8192, tied = false, bias = false,
  },
  {
    name = "gpt-neox-20b", family = "gpt_neox",
    source = "Black et al. 2022 (arXiv 2204.06745); EleutherAI on Hugging Face, config.json",
    layers = 44, d_model = 6144, heads = 64, head_dim = 96, kv_heads = 64, d_ff = 24576,
    mlp = "gelu", norm = "layernorm", norm_bias = true, block = "parallel",
    position = "rope", rope = {base = 10000, dims = 24, pairing = "half"},
    vocab = 50432, context = 2048, tied = false, bias = true,
  },
  {
    name = "gpt-j-6b", family = "gptj", source = "EleutherAI on Hugging Face, config.json",
    layers = 28, d_model = 4096, heads = 16, head_dim = 256, kv_heads = 16, d_ff = 16384,
    mlp = "gelu_tanh", norm = "layernorm", norm_bias = true, shared_norm = true,
    block = "parallel",
    position = "rope", rope = {base = 10000, dims = 64, pairing = "interleaved"},
    vocab = 50400, context = 2048, tied = false,
    bias = false, mlp_bias = true, head_bias = true,
  },
  {
    name = "mpt-7b", family = "mpt", source = "mosaicml on Hugging Face, config.json",
    layers = 32, d_model = 4096, heads = 32, head_dim = 128, kv_heads = 32, d_ff = 16384,
    mlp = "gelu", norm = "layernorm", norm_bias = false, block = "serial",
    position = "alibi", alibi = {max_bias = 8},
    vocab = 50432, context = 2048, tied = true, bias = false,
  },
  {
    name = "mistral-7b", family = "mistral",
    source = "Jiang et al. 2023 (arXiv 2310.06825); mistralai on Hugging Face, config.json",
    layers = 32, d_model = 4096, heads = 32, head_dim = 128, kv_heads = 8, d_ff = 14336,
    mlp = "swiglu", norm = "rmsnorm", block = "serial", window = 4096,
    position = "rope", rope = {base = 10000, pairing = "half"},
    vocab = 32000, context = 32768, tied = false, bias = false,
  },
  {
    name = "gemma-2b", family = "gemma",
    source = "Gemma Team 2024 (arXiv 2403.08295); google on Hugging Face, config.json",
    layers = 18, d_model = 2048, heads = 8, head_dim = 256, kv_heads = 1, d_ff = 16384,
    mlp = "geglu", norm = "rmsnorm", block = "serial",
    position = "rope", rope = {base = 10000, pairing = "half"},
    vocab = 256000, context = 8192, tied = true, bias = false,
    note = "norms multiply by weight + 1; embeddings are scaled by sqrt(d_model)",
  },
  {
    name = "deepseek-v2", family = "deepseek_v2",
    source = "DeepSeek-AI 2024 (arXiv 2405.04434); deepseek-ai on Hugging Face, config.json",
    layers = 60, d_model = 5120, heads = 128, head_dim = 192, kv_heads = 128, d_ff = 12288,
    mlp = "swiglu", norm = "rmsnorm", block = "serial",
    mla = {kv_rank = 512, q_rank = 1536, nope = 128, rope = 64, v = 128},
    experts = {routed = 160, shared = 2, chosen = 6, d_ff = 1536, dense_layers = 1},
    position = "rope", rope = {base = 10000, dims = 64, pairing = "interleaved"},
    vocab = 102400, context = 163840, tied = false, bias = false,
    note = "the cache holds one latent of 512 and one rotated key of 64 per token and layer",
  },
}

return presets
