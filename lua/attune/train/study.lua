--- What experiments that compare trained models have in common: the text, one recipe of training
--- for all variants, and trials that go on where they were stopped.
local core = require "attune.core"
local data = require "attune.data"
local evaluate = require "attune.train.evaluate"
local files = require "attune.util.files"
local options = require "attune.util.options"
local run = require "attune.train.run"
local uv = require "luv"

local study = {}

--- Metrics that such experiments report, for their `metrics`.
study.metrics = {
  bits_per_byte = {
    unit = "bit/B", better = "lower", about = "of validation text, windows of the trained length",
  },
  loss = {unit = "nat", better = "lower", about = "the same per byte in nats"},
  curve = {unit = "nat", better = "lower", about = "training loss, means of 100 equal parts"},
}

local installed = {bible = {separator = "\n\n"}, perl = {}}

--- The path of a text: "bible" and "perl" are those of `make corpus`, anything else is a path.
---@param name string
---@return string? path
---@return string? message
function study.path(name)
  if installed[name] then return data.corpus(name) end
  if type(name) ~= "string" or name == "" then
    core._raise(("name: expected \"bible\", \"perl\" or a path, got %s"):format(
      options.describe(name)))
  end
  if files.kind(name) then return name end
  return nil, name .. ": no such file or folder"
end

--- A text as bytes, in two parts that are divided by document.
---@param name string as of path
---@param given? {separator: string, validation: number, seed: integer} separator: an empty line
--- for the Bible's chapters, none for others; validation: 0.1; seed of the division: 1
---@return attune.Corpus? training
---@return attune.Corpus|string validation, or a message
function study.text(name, given)
  local o = options.read(given, {"separator", "validation", "seed"}, 2)
  local path, why = study.path(name)
  if not path then return nil, why end
  local corpus
  corpus, why = data.bytes(path, {
    separator = o.separator or installed[name] and installed[name].separator,
  })
  if not corpus then return nil, why end
  return corpus:split {validation = o.validation or 0.1, seed = o.seed or 1}
end

local fingerprints = {}

--- The first 12 digits of a text's sha256, so that results of different texts never mix: a derived
--- parameter of an experiment. "missing" where there is no text.
---@param name string as of path
---@return string
function study.fingerprint(name)
  local path = study.path(name)
  local info = path and uv.fs_stat(path)
  local key = info and info.type == "file"
    and ("%s %d %d.%d"):format(path, info.size, info.mtime.sec, info.mtime.nsec)
  if key and fingerprints[key] then return fingerprints[key] end
  local corpus = path and data.bytes(path)
  local print = corpus and corpus.sha256:sub(1, 12) or "missing"
  if key then fingerprints[key] = print end
  return print
end

--- A curve of at most `count` numbers: means of equal parts of a list, such as the losses of a run.
---@param losses number[]
---@param count integer
---@return number[]
function study.curve(losses, count)
  local list, n = {}, #losses
  count = math.min(count, n)
  for part = 1, count do
    local first, last, sum = (part - 1) * n // count + 1, part * n // count, 0
    for k = first, last do sum = sum + losses[k] end
    list[part] = sum / (last - first + 1)
  end
  return list
end

local tokens_at_once = 4096 -- of a batch of windows

--- Bits per byte of `targets` targets of a corpus, in windows of any length: data.windows says
--- what a stride is. Windows of several lengths with the same `from` are tested on the same
--- targets.
---@param model table
---@param corpus attune.Corpus
---@param given {tokens: integer, stride: integer?, from: integer?, targets: integer?} stride:
--- tokens by default; targets: all by default
---@return number
function study.bits_per_byte(model, corpus, given)
  local o = options.read(given, {"tokens", "stride", "from", "targets"}, 2, "options",
    "{tokens = 1024, stride = 64, targets = 65536}")
  for _, name in ipairs {"tokens", "stride", "targets"} do
    local x = o[name]
    if (x ~= nil or name == "tokens") and (math.type(x) ~= "integer" or x < 1) then
      core._raise(("%s: expected an integer of at least 1, got %s"):format(
        name, options.describe(x)))
    end
  end
  local stride = o.stride or o.tokens
  if o.targets and o.targets < stride then
    core._raise(("targets: expected at least the %d of one window, got %d"):format(
      stride, o.targets))
  end
  local windows = data.windows {
    corpus = corpus, tokens = o.tokens, stride = stride, from = o.from,
    count = o.targets and o.targets // stride, batch = math.max(1, tokens_at_once // o.tokens),
  }
  return evaluate.loss(model, windows).bits_per_byte
end

local checkpoints = 20 -- of a trial
local least_steps = 200 -- of a trial that is worth one

-- Where a trial keeps its checkpoint and its losses, which `attune watch` draws.
local function section_of(t, name, steps)
  if not t or steps < least_steps then return nil end
  return {dir = t:file(name), every = math.max(1, steps // checkpoints)}
end

local known = {
  "model", "data", "steps", "lr", "seed", "batch", "name", "kind", "warmup", "min", "weight_decay",
  "optimizer", "validate", "log",
}

--- Trains a model by the recipe that is the same for all variants of a study: AdamW with betas 0.9
--- and 0.95 and a weight decay of 0.1, gradients clipped at norm 1, and a rate of learning that
--- rises over the first 5% of the steps and falls along a cosine to a tenth. A trial that is
--- stopped goes on at its last checkpoint, of 20, in the next run of the experiment.
---@param t? attune.Trial whose folder holds the checkpoint; none for short runs
---@param given {model: table, data: table, steps: integer, lr: number, seed: integer?,
--- batch: integer?, name: string?, kind: string?, warmup: number?, min: number?,
--- weight_decay: number?, optimizer: table?, validate: table?, log: function|false|nil}
--- kind of the schedule; warmup: the part of the steps, 0.05; min: the part of lr at the end, 0.1;
--- name of the checkpoint: "training"
---@return {losses: number[], validation: table[]} result
function study.train(t, given)
  local o = options.read(given, known, 2, "options", "{model = , data = , steps = , lr = 2e-3}")
  if type(o.lr) ~= "number" or not (o.lr > 0) then
    core._raise(("lr: expected a number above 0, got %s"):format(options.describe(o.lr)))
  end
  if math.type(o.steps) ~= "integer" or o.steps < 1 then
    core._raise(("steps: expected an integer of at least 1, got %s"):format(
      options.describe(o.steps)))
  end
  local section = section_of(t, o.name or "training", o.steps)
  local result, why = run {
    model = o.model, data = o.data, steps = o.steps, batch = o.batch, clip = 1, seed = o.seed,
    optimizer = o.optimizer
      or {lr = o.lr, betas = {0.9, 0.95}, weight_decay = o.weight_decay or 0.1},
    schedule = {
      kind = o.kind or "cosine", lr = o.lr, min = (o.min or 0.1) * o.lr,
      warmup = math.max(1, math.floor(o.steps * (o.warmup or 0.05))),
    },
    checkpoint = section, validate = o.validate, log = o.log or false,
  }
  if not result then error("study: " .. tostring(why), 2) end
  if section then os.remove(section.dir .. "/checkpoint.safetensors") end
  return result
end

return study
