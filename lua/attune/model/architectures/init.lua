--- The architectures by model_type. Each is a table:
---
---   fields, aliases, ignored   what config.json may say (attune.model.network.published_config)
---   prefixes, probe            what the names of tensors begin with, and a name that is there
---   unused                     patterns of tensors that may be in the file and are not read
---   describe(c)                the description that attune.model.network.decoder runs, which may
---                              have more such patterns, `unused`
local sorted_keys = require "attune.util.tables".sorted_keys
local architectures = {}

local modules = {
  falcon = "falcon", RefinedWeb = "falcon", RefinedWebModel = "falcon",
  cohere = "cohere", cohere2 = "cohere", palm = "cohere",
  gpt_bigcode = "gpt2", gpt2 = "gpt2", starcoder2 = "starcoder2",
  gpt_neox = "parallel", gptj = "parallel", phi = "parallel", stablelm = "stablelm",
  mpt = "alibi", bloom = "alibi",
  llama = "llama", mistral = "llama", ministral = "llama", qwen2 = "llama", qwen3 = "llama",
  smollm3 = "llama", olmo2 = "llama", olmo3 = "llama", mixtral = "llama", phi3 = "phi3",
  gemma = "gemma", gemma2 = "gemma", gemma3_text = "gemma", gemma4_text = "gemma4",
  gpt_oss = "gpt_oss", deepseek_v2 = "deepseek", deepseek_v3 = "deepseek", t5 = "t5",
}

--- The names that config.json may have as model_type.
function architectures.names()
  local names = sorted_keys(modules)
  return names
end

--- The architecture of a model_type; nil where it is unknown.
function architectures.get(model_type)
  local module = modules[model_type]
  return module and require("attune.model.architectures." .. module)[model_type]
end

return architectures
