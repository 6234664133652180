--- Synthetic tasks on which encodings and head sharing differ sharply. A task gives batches as a
--- loader does; sequence n of a seed is the same whatever the batches.
local core = require "attune.core"
local options = require "attune.util.options"
local random = require "attune.util.random"
local state = require "attune.data.state"
local suggest = require "attune.util.suggest"
local tasks = require "attune.data.tasks"
local sorted_keys = require "attune.util.tables".sorted_keys

---@class attune.Task
---@field name string
---@field vocab integer
---@field tokens integer of a row of ids
---@field seed integer
local Task = {}
Task.__index = Task

local names = sorted_keys(tasks)

local function check_integer(o, name, min, level, max)
  local value = o[name]
  if math.type(value) == "integer" and value >= min and value <= (max or value) then return end
  local range = max and ("from %d to %d"):format(min, max) or ("of at least %d"):format(min)
  error(("%s: expected an integer %s, got %s"):format(name, range, options.describe(value)),
    level + 1)
end

local max_vocab = 1 << 31 -- ids are drawn from 32 random bits

--- A task: "copy", "reverse", "sorting", "induction", "mqar" (options pairs, power), "addition"
--- (digits, reversed), "needle", "indirect" (max_shift). attune/data/tasks.lua says what each is.
---@param name string
---@param given {vocab: integer, tokens: integer, seed: integer}
---@return attune.Task
local function task(name, given)
  local kind = type(name) == "string" and tasks[name]
  if not kind then
    if type(name) ~= "string" then
      error(("name: expected the name of a task, got %s"):format(options.describe(name)), 2)
    end
    error(("unknown task '%s'; %s"):format(name, suggest(name, names)), 2)
  end
  local known = {"vocab", "tokens", "seed"}
  for option in pairs(kind.options or {}) do known[#known + 1] = option end
  local o = options.read(given, known, 2, "options", "{vocab = 64, tokens = 32, seed = 1}")
  check_integer(o, "vocab", kind.min_vocab, 2, max_vocab)
  check_integer(o, "tokens", kind.min_tokens, 2)
  if o.seed == nil then o.seed = 1 end
  check_integer(o, "seed", math.mininteger, 2)
  for option, type_name in pairs(kind.options or {}) do
    local value = o[option]
    local got = type_name == "integer" and math.type(value) or type(value)
    if value ~= nil and got ~= type_name then
      error(("%s: expected %s, got %s"):format(
        option, type_name == "boolean" and "true or false" or "a number of type " .. type_name,
        options.describe(value)), 2)
    end
  end
  local wrong = kind.check and kind.check(o)
  if wrong then error(wrong, 2) end
  o.name, o.kind, o.sequences = name, kind, 0
  return setmetatable(o, Task)
end

--- The next batch.
---@param batch integer rows
---@return attune.Tensor ids i64 [batch, tokens]
---@return attune.Tensor targets i64 [batch, tokens]: the id after each id
---@return attune.Tensor weights f32 [batch, tokens]: 1 where the target counts, else 0
function Task:next(batch)
  if math.type(batch) ~= "integer" or batch < 1 then
    error(("batch: expected an integer of at least 1, got %s"):format(options.describe(batch)), 2)
  end
  local ids, targets, weights = {}, {}, {}
  for row = 1, batch do
    local draw = random.stream(self.seed, self.sequences)
    local sequence, counts = self.kind.draw(self, draw)
    self.sequences = self.sequences + 1
    ids[row] = table.move(sequence, 1, self.tokens, 1, {})
    targets[row] = table.move(sequence, 2, self.tokens + 1, 1, {})
    weights[row] = table.move(counts, 2, self.tokens + 1, 1, {})
  end
  return core.tensor(ids, {dtype = "i64"}), core.tensor(targets, {dtype = "i64"}),
    core.tensor(weights)
end

-- What a state says of the task, since the sequences follow from it. A checkpoint of an earlier
-- version has sequences only.
local function identity(self)
  local own = {name = self.name, vocab = self.vocab, tokens = self.tokens, seed = self.seed}
  for option in pairs(self.kind.options or {}) do own[option] = self[option] end
  return own
end

--- What a checkpoint keeps: the number of sequences, and what they follow from.
---@return table
function Task:state()
  local own = identity(self)
  own.sequences = self.sequences
  return own
end

--- Raises an error where load_state would.
function Task:check_state(given) state.read(given, "sequences", identity(self), "task") end

--- Goes on where another task of the same options stopped.
---@param given table of state(); fields other than sequences may be absent
function Task:load_state(given)
  self.sequences = state.read(given, "sequences", identity(self), "task")
end

return task
