--- Which encoding lets a model do longer tasks than it was trained on?
--
-- Kazemnejad et al. 2023 (arXiv 2305.19466) found that decoders without an encoding do at least as
-- well as T5's bias, and better than ALiBi, RoPE and learned positions. Here small decoders learn
-- to copy, reverse and sort lists of 1 to 16 ids, and to add numbers of 1 to 4 digits, lowest digit
-- first; they are tested with lists of up to 32 ids and numbers of up to 8 digits. Only ids of the
-- answer count, in the loss and in the test, and a sequence is right when its whole answer is. A
-- learned table has rows for the long lists, which the training never reached.
--
-- The models are a thousandth of the paper's in size, and are trained for 3,000 steps of 32
-- sequences, a length drawn for each step: enough for RoPE to copy and reverse lists of 16. Where
-- the paper's finding does not show, the report says so.
local data, nn, train = require "attune.data", require "attune.nn", require "attune.train"
local random = require "attune.util.random"
local study = train.study

local sizes = {
  tiny = {d_model = 16, batch = 4, steps = 4, tested = 1},
  quick = {d_model = 64, batch = 16, steps = 1200, tested = 1},
  study = {d_model = 64, batch = 32, steps = 3000, tested = 4},
}
local vocab, layers, heads = 16, 2, 4
local shortest = 1

-- The longest content of the training, and how many tokens a content of n has.
local kinds = {
  copy = {trained = 16, tokens = function(n) return 2 * n end},
  reverse = {trained = 16, tokens = function(n) return 2 * n end},
  sorting = {trained = 16, tokens = function(n) return 2 * n end},
  addition = {
    trained = 4, tokens = function(n) return 3 * n + 2 end,
    options = function(n) return {digits = n} end,
  },
}

local function task_of(name, n, seed)
  local kind = kinds[name]
  local options = kind.options and kind.options(n) or {}
  options.vocab, options.tokens, options.seed = vocab, kind.tokens(n), seed
  return data.task(name, options)
end

-- Batches of one length each, drawn evenly from all lengths of the training.
local Lengths = {}
Lengths.__index = Lengths

local function lengths(name, seed)
  local self = setmetatable({seed = seed, batches = 0, tasks = {}}, Lengths)
  for n = shortest, kinds[name].trained do
    self.tasks[n - shortest + 1] = task_of(name, n, seed * 1000 + n)
  end
  return self
end

function Lengths:next(batch)
  local draw = random.stream(self.seed, self.batches)
  self.batches = self.batches + 1
  return self.tasks[draw:up_to(#self.tasks)]:next(batch)
end

function Lengths:state()
  local states = {}
  for k, task in ipairs(self.tasks) do states[k] = task:state() end
  return {batches = self.batches, tasks = states}
end

function Lengths:load_state(state)
  self.batches = state.batches
  for k, task in ipairs(self.tasks) do task:load_state(state.tasks[k]) end
end

-- The encoding's sequences that are right beyond the trained length, against another's.
local function beyond(task, position, other)
  return function(r)
    return r:where {task = task}:family("beyond", {position = other}, "difference")
      :of(position)
  end
end

local claims = {}
for _, task in ipairs {"copy", "reverse", "sorting"} do
  claims[#claims + 1] = {
    ("%s: with RoPE at least 90%% of the ids are right at the longest length of the training")
      :format(task),
    function(r)
      local learned = r:where {task = task, position = "rope"}
      if #learned:values "trained_ids" == 0 then return nil, "no RoPE in this run" end
      return learned:value("trained_ids", {position = "rope"}):above(90)
    end,
  }
end
for _, task in ipairs {"copy", "reverse", "sorting", "addition"} do
  for _, other in ipairs {"rope", "learned", "alibi"} do
    claims[#claims + 1] = {
      ("%s: without an encoding more answers are right than with %s beyond the trained length")
        :format(task, other),
      function(r) return beyond(task, "none", other)(r):above(0) end,
      source = "Kazemnejad et al. 2023, figure 2",
    }
  end
  claims[#claims + 1] = {
    ("%s: without an encoding at most 5 points fewer answers are right than with T5's bias "
      .. "beyond the trained length"):format(task),
    function(r) return beyond(task, "none", "t5")(r):above(-5) end,
    source = "Kazemnejad et al. 2023, figure 2",
  }
end

return require "attune.experiment" {
  name = "length_generalisation",
  about = "Which encoding lets a model do longer tasks than it was trained on?",
  fixed = {size = "study", lr = 3e-3},
  grid = {
    task = {"copy", "reverse", "sorting", "addition"},
    position = {"none", "learned", "sinusoidal", "rope", "xpos", "alibi", "t5"},
  },
  seeds = {1, 2, 3},
  order = {"task", "position", "lr", "size"},
  quick = {size = {"quick"}, seeds = {1}, task = {"copy", "sorting"}},
  timeout = 24 * 3600,
  timing = false,
  metrics = {
    trained = {unit = "%", better = "higher", about = "whole answers right at the longest length "
      .. "of the training"},
    trained_ids = {unit = "%", better = "higher", about = "ids of the answers right at the longest "
      .. "length of the training"},
    beyond = {unit = "%", better = "higher", about = "whole answers right, mean of the lengths "
      .. "beyond it, up to twice as long"},
    length = {unit = "1", about = "of the list, or digits"},
    exact = {unit = "%", better = "higher", about = "whole answers right, by length"},
    ids = {unit = "%", better = "higher", about = "ids of the answers right, by length"},
    curve = study.metrics.curve,
  },
  trial = function(p, t)
    local size, kind = sizes[p.size], kinds[p.task]
    local model = nn.Decoder {
      vocab = vocab, d_model = size.d_model, layers = layers, heads = heads, std = 0.08,
      mlp = "relu", d_ff = 2 * size.d_model,
      position = p.position, context = kind.tokens(2 * kind.trained), seed = p.seed,
      -- Sines are of size 1: embeddings are made larger, as in Vaswani et al. 2017, section 3.4.
      embed_scale = p.position == "sinusoidal" and math.sqrt(size.d_model) or nil,
    }
    local result = study.train(t, {
      model = model, data = lengths(p.task, p.seed), batch = size.batch, steps = size.steps,
      lr = p.lr, seed = p.seed, weight_decay = 0.01,
    })
    local found = {length = {}, exact = {}, ids = {}, beyond = 0}
    local step = kind.trained // 4
    for k = 1, 8 do
      local n = k * step
      -- No seed of a training is as large.
      local ids, rows = train.accuracy(model, task_of(p.task, n, (1 << 53) + n), {
        batches = size.tested, batch = 64,
      })
      found.length[k], found.exact[k], found.ids[k] = n, 100 * rows, 100 * ids
      if n == kind.trained then found.trained, found.trained_ids = 100 * rows, 100 * ids end
      if n > kind.trained then found.beyond = found.beyond + 100 * rows / 4 end
    end
    found.curve = study.curve(result.losses, 100)
    return found
  end,
  plots = {
    {kind = "line", name = "copy", x = "length", y = "exact", by = "position",
      where = {task = "copy"}, lines = {{x = 16, text = "trained"}},
      title = "Copies that are right, by length"},
    {kind = "line", name = "addition", x = "length", y = "exact", by = "position",
      where = {task = "addition"}, lines = {{x = 4, text = "trained"}},
      title = "Sums that are right, by digits"},
    {kind = "line", name = "sorting", x = "length", y = "exact", by = "position",
      where = {task = "sorting"}, lines = {{x = 16, text = "trained"}},
      title = "Sorted lists that are right, by length"},
    {kind = "line", name = "ids", x = "length", y = "ids", by = "position", facet = "task",
      title = "Ids of the answers that are right, by length"},
    {kind = "heat", name = "trained", x = "task", y = "position", value = "trained_ids",
      title = "Ids of the answers right at the longest length of the training, percent"},
    {kind = "heat", name = "beyond", x = "task", y = "position", value = "beyond",
      title = "Whole answers right beyond the trained length, percent"},
  },
  claims = claims,
}
