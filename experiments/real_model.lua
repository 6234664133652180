--- What do changes of a real model's attention cost and save: time, memory, quality?
--
-- The model is a Hugging Face folder or a GGUF file, named after the script or by the environment
-- variable ATTUNE_MODEL; it has no encoder. ATTUNE_TEXT names a text (default:
-- build/corpus/bible.txt, which `make corpus` writes):
--
--     attune run experiments/real_model.lua smollm2.gguf --out results/smollm2
--
-- Each change is one of m:with, without training. Perplexity is that of the text's first tokens;
-- time is that of one more token after them. The layers are pooled one by one: which of them need
-- kv heads of their own? Speculative decoding by lookup continues the text and counts what a pass
-- gives. For a change of your own add a row to `changes`.
local attune = require "attune"

local path = os.getenv "ATTUNE_ARGUMENT" or os.getenv "ATTUNE_MODEL"
local text = os.getenv "ATTUNE_TEXT" or "build/corpus/bible.txt"

local function load()
  local m, why = require "attune.model".load(path)
  if not m then error(why, 0) end
  return m
end

-- The first ids of the text, and the one after them.
local function ids_of(m, tokens)
  if not m.tokenizer then error(path .. ": expected a tokenizer beside the model, got none", 0) end
  local file, why = io.open(text)
  if not file then error(why .. "; ATTUNE_TEXT names a text, `make corpus` writes one", 0) end
  local content = file:read(20 * tokens)
  file:close()
  -- A character may have been cut.
  local ids = m.tokenizer:encode(content:sub(1, (utf8.offset(content, -1) or 1) - 1))
  if #ids < tokens + 1 then
    error(("%s: expected more than %d tokens, got %d"):format(text, tokens, #ids), 0)
  end
  return table.move(ids, 1, tokens, 1, {}), ids[tokens + 1]
end

-- Latent attention has no kv heads that could be pooled.
local function is_latent(m)
  for _, block in ipairs(m.network.blocks) do
    if block.attention.form_name == "latent" then return true end
  end
  return false
end

-- Heads are pooled to each divisor of the smallest number of kv heads.
local function kv_heads_of(m)
  local most, list = math.huge, {}
  if is_latent(m) then return list end
  for _, block in ipairs(m.network.blocks) do most = math.min(most, block.attention.kv_heads) end
  for n = most - 1, 1, -1 do
    if most % n == 0 then list[#list + 1] = n end
  end
  return list
end

local function has_rope(m)
  for _, block in ipairs(m.network.blocks) do
    if block.attention.rope then return true end
  end
  return false
end

-- {name, changes of m:with} in the order of the figures, and the number of layers.
local function changes_of(m)
  local list = {{"as it is", {}}, {"i8 cache", {cache = "i8"}}, {"bf16 cache", {cache = "bf16"}}}
  for _, n in ipairs {512, 128} do list[#list + 1] = {"window " .. n, {window = n}} end
  if has_rope(m) then
    local function rope(kind)
      local scaling = {type = kind, factor = 4, original = m.context}
      if kind == "linear" then scaling.original = nil end
      list[#list + 1] = {"RoPE " .. kind .. " x4", {rope_scaling = scaling}}
    end
    for _, kind in ipairs {"linear", "ntk", "yarn"} do rope(kind) end
  end
  for _, n in ipairs(kv_heads_of(m)) do
    list[#list + 1] = {"kv heads " .. n, {kv_heads = n}}
  end
  return list
end

local generated = 96
local changes, layers, most_tokens = {{"as it is", {}}}, 1, math.huge
if path then
  local m = load()
  if m.network.encoder then
    error(path .. ": expected a model without encoder, got one with an encoder", 0)
  end
  changes, layers = changes_of(m), #m.network.blocks
  -- Learned positions end, and ids are generated after the text.
  if m.limit then most_tokens = m.limit - generated end
end

local function of_change(p, t)
  local m
  for _, row in ipairs(changes) do
    if row[1] == p.change then m = row[1] == "as it is" and load() or load():with(row[2]) end
  end
  local ids, next_id = ids_of(m, p.tokens)
  local nats = m:loss(ids)
  local s = m:session {context = p.tokens + 64}
  attune.no_grad(function() s:last {ids} end)
  local seconds = t:time(function()
    attune.no_grad(function() s:append {next_id} end)
    s:truncate(p.tokens)
  end)
  return {nats = nats, perplexity = math.exp(nats), seconds = seconds, cache_bytes = s.nbytes}
end

local function of_layer(p)
  local m = load()
  local ids = ids_of(m, p.tokens)
  if p.layer > 0 then
    if is_latent(m) then return nil, "latent attention has no kv heads that could be pooled" end
    m = m:with {kv_heads = 1, layers = {p.layer}}
  end
  local nats = m:loss(ids)
  return {nats = nats, perplexity = math.exp(nats)}
end

local function of_lookup(p)
  local m = load()
  local ids = ids_of(m, p.tokens)
  local o = {tokens = generated, stop = {}}
  if p.lookup > 0 then o.lookup = {ngram = 3, tokens = p.lookup} end
  -- The first id comes from the prompt's own pass, which is not counted.
  local from, to
  o.each = function()
    to = attune.clock()
    from = from or to
  end
  local _, counts = m:generate({ids}, o)
  return {
    seconds = (to - from) / (generated - 1),
    ids_per_pass = counts and (generated - 1) / counts.passes or 1,
  }
end

local parts = {change = of_change, layer = of_layer, lookup = of_lookup}

local points = {}
for _, row in ipairs(changes) do
  points[#points + 1] = {part = "change", change = row[1], layer = -1, lookup = -1}
end
for layer = 0, layers do
  points[#points + 1] = {part = "layer", change = "kv heads 1", layer = layer, lookup = -1}
end
for _, n in ipairs {0, 3, 8} do
  points[#points + 1] = {part = "lookup", change = "as it is", layer = -1, lookup = n}
end

local function bars(name, y, title, caption)
  return {kind = "bars", name = name, title = title, x = "change", y = y,
    where = {part = "change"}, caption = caption}
end

return require "attune.experiment" {
  name = "real_model",
  argument = "a model: a Hugging Face folder or a GGUF file",
  about = "What do changes of a real model's attention cost and save: time, memory, quality?",
  fixed = {tokens = math.min(1024, most_tokens)},
  list = points,
  quick = {tokens = {math.min(256, most_tokens)}, layer = {-1, 0, 1, layers // 2, layers}},
  rounds = 1,
  timeout = 1800,
  metrics = {
    seconds = {unit = "s", better = "lower", about = "one more token after the text"},
    perplexity = {better = "lower", about = "of the text, after its first token"},
    nats = {unit = "nats", better = "lower", about = "the logarithm of the perplexity"},
    cache_bytes = {unit = "B", better = "lower", about = "that attune's caches take"},
    ids_per_pass = {better = "higher", about = "ids that one pass of the model gives"},
  },
  trial = function(p, t)
    if not path then
      return nil, "expected a model: attune run real_model.lua MODEL, or ATTUNE_MODEL"
    end
    return parts[p.part](p, t)
  end,
  plots = {
    bars("quality", "nats", "Loss on the text, without training",
      "The logarithm of the perplexity. Scalings of RoPE serve longer texts than the model was "
        .. "trained on. This text is not longer, so that the figure shows what they cost."),
    bars("memory", "cache_bytes", "Cache of one sequence",
      "Room for the text and 64 tokens. A window keeps a ring of window + 63 tokens."),
    bars("time", "seconds", "Time per token at the end of the text"),
    {kind = "line", name = "layers", title = "One layer with one kv head, the mean of its heads",
      x = "layer", y = "perplexity", where = {part = "layer"},
      caption = "Layer 0: no layer is changed. Ainslie et al. 2023 train after pooling; this model "
        .. "was not trained again."},
    {kind = "bars", name = "lookup", title = "Time per token, with that many ids proposed per pass",
      x = "lookup", y = "seconds", where = {part = "lookup"},
      caption = "0: each pass gives one id. All three give the greedy ids."},
  },
}
