--- Windows over a corpus, to evaluate a model with other lengths than it was trained with. Each
--- window counts its last `stride` targets only. So with a stride below the window's length every
--- target that counts has at least tokens - stride tokens before it ("sliding"), and with stride =
--- tokens the first targets of a window have hardly any ("separate"). Press et al. 2022 (arXiv
--- 2108.12409), section 5, on why the two differ. Windows of different lengths that agree in
--- `from` and in stride * count count the same targets.
local core = require "attune.core"
local corpus = require "attune.data.corpus"
local options = require "attune.util.options"
local rows_of = require "attune.data.rows"

---@class attune.Windows
---@field corpus attune.Corpus
---@field tokens integer of a window
---@field stride integer targets of a window that count
---@field from integer the first token whose target counts, from 0
---@field count integer windows
---@field batch integer
local Windows = {}
Windows.__index = Windows

local function integer(o, name, min, max)
  local x = o[name]
  if math.type(x) == "integer" and x >= min and (not max or x <= max) then return x end
  error(("%s: expected an integer %s, got %s"):format(
    name, max and ("from %d to %d"):format(min, max) or "of at least " .. min,
    options.describe(x)), 3)
end

--- Windows of `tokens` ids, one every `stride` tokens, for train.evaluate.
---@param given {corpus: attune.Corpus, tokens: integer, stride: integer, from: integer,
--- count: integer, batch: integer} stride: tokens by default; from: tokens - stride; count: as many
--- as the corpus has; batch: 8
---@return attune.Windows
local function windows(given)
  local o = options.read(given, {"corpus", "tokens", "stride", "from", "count", "batch"}, 2,
    "options", "{corpus = , tokens = 1024, stride = 64}")
  if not corpus.is(o.corpus) then
    error(("corpus: expected what data.bytes or data.bpe gives, got %s"):format(
      options.describe(o.corpus)), 2)
  end
  local self = setmetatable({corpus = o.corpus, batch = o.batch or 8}, Windows)
  integer(self, "batch", 1)
  self.tokens = integer(o, "tokens", 1, o.corpus.tokens - 1)
  self.stride = o.stride == nil and self.tokens or integer(o, "stride", 1, self.tokens)
  local least = self.tokens - self.stride
  self.from = o.from == nil and least
    or integer(o, "from", least, o.corpus.tokens - 1 - self.stride)
  -- The last token of the corpus has no target.
  local most = (o.corpus.tokens - 1 - self.from) // self.stride
  self.count = o.count == nil and most or integer(o, "count", 1, most)
  self.plan = rows_of.stream(self.corpus, self.tokens)
  return self
end

-- 1 for the last `stride` targets, but for those that the corpus leaves out.
local function weights_of(self, rows, of_borders)
  if self.stride == self.tokens then return of_borders end
  local row = {}
  for k = 1, self.tokens do row[k] = k > self.tokens - self.stride and 1 or 0 end
  local counted = core.tensor(row):view(1, self.tokens):expand(rows, self.tokens):contiguous()
  return of_borders and of_borders * counted or counted
end

--- Iterates over the windows in order: ids, targets, weights.
---@param max_batches? integer
function Windows:each(max_batches)
  local done, given = 0, 0
  return function()
    if done == self.count or given == max_batches then return nil end
    local offsets = {}
    for k = done, math.min(done + self.batch, self.count) - 1 do
      offsets[#offsets + 1] = self.from + (k + 1) * self.stride - self.tokens
    end
    done, given = done + #offsets, given + 1
    local ids, targets, of_borders = self.plan:at(offsets)
    return ids, targets, weights_of(self, #offsets, of_borders)
  end
end

return windows
