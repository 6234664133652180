--- Reads the config.json of a published model by the table of its architecture.
---
--- The table names every field that has an effect at inference, with its kind and its default. A
--- field that it does not name is an error, unless it is on the list of fields without effect or
--- says nothing (null, false, 0, empty).
local json = require "attune.util.json"
local suggest = require "attune.util.suggest"
local sorted_keys = require "attune.util.tables".sorted_keys

local published = {}

-- Fields without effect on what a model computes at inference.
local ignored = {}
for name in ([[
  architectures auto_map torch_dtype dtype transformers_version use_cache _name_or_path model_type
  attention_dropout attn_pdrop embd_pdrop resid_pdrop emb_pdrop hidden_dropout embedding_dropout
  residual_dropout dropout dropout_rate classifier_dropout attention_probs_dropout_prob
  hidden_dropout_prob num_labels _num_labels summary_activation summary_first_dropout
  summary_proj_to_labels summary_type summary_use_proj initializer_range initializer_factor
  bos_token_id pad_token_id sep_token_id
  unk_token_id mask_token_id output_router_logits router_aux_loss_coef aux_loss_alpha seq_aux
  router_jitter_noise pretraining_tp ep_size cache_implementation task_specific_params id2label
  label2id problem_type gradient_checkpointing use_return_dict return_dict output_attentions
  output_hidden_states torchscript use_bfloat16 pruned_heads tokenizer_class prefix finetuning_task
  keys_to_ignore_at_inference chunk_size_feed_forward is_decoder add_cross_attention max_length
  min_length do_sample early_stopping num_beams num_return_sequences length_penalty temperature
  top_k top_p typical_p repetition_penalty no_repeat_ngram_size bad_words_ids forced_bos_token_id
  forced_eos_token_id suppress_tokens begin_suppress_tokens remove_invalid_values
  exponential_decay_length_penalty diversity_penalty encoder_no_repeat_ngram_size num_beam_groups
  output_scores return_dict_in_generate tf_legacy_loss tie_encoder_decoder
  is_llama_config rope_interleaved transformers.js_config tokenizer_name
  cross_attention_hidden_size _attn_implementation _attn_implementation_autoset _commit_hash
  attn_implementation max_sequence_length tokenizer_model_max_length unsloth_fixed unsloth_version
]]):gmatch "%S+" do
  ignored[name] = true
end

-- More than any model has.
local max_heads = 1 << 16

local function is_empty(value)
  if type(value) == "table" then return next(value) == nil end
  return value == false or value == 0 or value == ""
end

local function describe(value)
  if type(value) == "table" then return "a table" end
  return type(value) == "string" and ("'%s'"):format(value) or tostring(value)
end

published.is_empty = is_empty

local function is_integer(x) return type(x) == "number" and math.tointeger(x) and x >= 0 end

-- What a value of each kind is, and how a message names it.
local kinds = {
  integer = {is_integer, "an integer of at least 0"},
  count = {function(x) return is_integer(x) and x > 0 end, "an integer of at least 1"},
  number = {function(x) return type(x) == "number" end, "a number"},
  positive = {function(x) return type(x) == "number" and x > 0 end, "a number above 0"},
  boolean = {function(x) return type(x) == "boolean" end, "a boolean"},
  text = {function(x) return type(x) == "string" end, "a text"},
  table = {function(x) return type(x) == "table" end, "a table"},
  ids = {function(x)
    if type(x) ~= "table" then return is_integer(x) end
    for _, id in ipairs(x) do
      if not is_integer(id) then return false end
    end
    return next(x) == nil or #x > 0
  end, "an id or a list of ids"},
  any = {function() return true end},
}

--- Whether two values that came from JSON are equal.
local function equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not equal(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end
published.equal = equal

-- A value under its field's name, which may have come under another.
local function given(config, field, aliases)
  local value, from = config[field], field
  for alias, target in pairs(aliases) do
    if target == field and config[alias] ~= nil then
      if value ~= nil and not equal(value, config[alias]) then
        error(("config.json: '%s' is %s and '%s' is %s; expected one value"):format(
          from, describe(value), alias, describe(config[alias])), 0)
      end
      value, from = config[alias], alias
    end
  end
  return value, from
end

-- Whether a field, under one of its names, is null in the file.
local function is_null(nulls, field, aliases)
  for alias, target in pairs(aliases) do
    if target == field and nulls[alias] then return true end
  end
  return nulls[field] or false
end

local with_integers = {integer = true, count = true, ids = true}

-- JSON may write an integer as 2.0.
local function to_integers(value)
  if type(value) ~= "table" then return math.tointeger(value) end
  local list = {}
  for i, inner in ipairs(value) do list[i] = math.tointeger(inner) end
  return list
end

local function read_field(config, field, form, aliases, nulls)
  local kind, default = form, nil
  if type(form) == "table" then kind, default = form[1], form[2] end
  local value, from = given(config, field, aliases)
  if value == nil then
    if type(form) ~= "table" then
      error(("config.json: expected the field '%s', got nil"):format(field), 0)
    end
    if form.null and is_null(nulls, field, aliases) then return nil end
    return default
  end
  if not kinds[kind][1](value) then
    error(("config.json: %s: expected %s, got %s"):format(from, kinds[kind][2], describe(value)), 0)
  end
  return with_integers[kind] and to_integers(value) or value
end

-- Fields that the table does not know.
local function check_unknown(config, architecture, report)
  local names = sorted_keys(architecture.fields)
  for name, value in pairs(config) do
    local known = architecture.fields[name] or (architecture.aliases or {})[name]
      or ignored[name] or (architecture.ignored or {})[name]
    if not known and not is_empty(value) then
      report(("config.json: unknown field '%s' = %s of model_type '%s'; %s"):format(
        name, describe(value), tostring(config.model_type), suggest(name, names)))
    end
  end
end

-- Refuses more layers or experts than the file has tensors, before anything is made of them.
local function check_counts(c, architecture, tensors)
  for _, field in ipairs {
    "num_hidden_layers", "num_decoder_layers", "n_routed_experts", "num_local_experts",
  } do
    local joined = field == "num_local_experts" and architecture.joins_experts
    if c[field] and c[field] > tensors and not joined then
      error(("config.json: %s: expected at most %d, the number of tensors, got %d"):format(
        field, tensors, c[field]), 0)
    end
  end
  for _, field in ipairs {"num_attention_heads", "num_key_value_heads", "num_kv_heads"} do
    if c[field] and c[field] > max_heads then
      error(("config.json: %s: expected at most %d, got %d"):format(field, max_heads, c[field]), 0)
    end
  end
  local heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
  if heads and kv_heads and heads % kv_heads ~= 0 then
    error(("config.json: num_key_value_heads: expected a divisor of the %d heads, got %d"):format(
      heads, kv_heads), 0)
  end
end

--- The fields of a configuration with their defaults. Raises, without a position, where a field is
--- missing, unknown, of another kind, or given twice with different values.
---@param config table from JSON
---@param architecture table {fields = {name = kind | {kind, default, null = true}}, aliases =
---  {name = field}, ignored = {name = true}}; null: a field that is null has no value, where one
---  that is absent has the default; joins_experts: one tensor holds all experts
---@param o {unknown?: "warn", nulls?: table<string, boolean>, tensors?: integer} unknown:
---  unknown fields become warnings; nulls: the fields that are null; tensors: in the file
---@return table fields and `report(message)`, for unknown fields inside of fields
---@return string[] warnings
function published.read(config, architecture, o)
  local c, warnings = {}, {}
  function c.report(message)
    if o.unknown ~= "warn" then
      error(message .. "; {unknown = \"warn\"} ignores such fields", 0)
    end
    warnings[#warnings + 1] = message
    table.sort(warnings)
  end
  check_unknown(config, architecture, c.report)
  for field, form in pairs(architecture.fields) do
    c[field] = read_field(config, field, form, architecture.aliases or {}, o.nulls or {})
  end
  check_counts(c, architecture, o.tensors or math.huge)
  return c, warnings
end

--- Whether a field of that name has no effect on what a model computes.
function published.is_ignored(name) return ignored[name] or false end

local function without_nulls(t)
  for key, value in pairs(t) do
    if value == json.null then t[key] = nil end
    if type(value) == "table" then without_nulls(value) end
  end
end

--- A JSON text that is an object, without what is null, and the names of its fields that are null;
--- nil and a message otherwise.
---@param text string
---@param path string for the message
---@return table?
---@return table<string, boolean>|string nulls or message
function published.decode(text, path)
  local value, message = json.decode(text, true)
  if type(value) ~= "table" then
    return nil, ("%s: expected a JSON object, got %s"):format(path, message or describe(value))
  end
  local nulls = {}
  for name, inner in pairs(value) do nulls[name] = inner == json.null or nil end
  without_nulls(value)
  return value, nulls
end

return published
