--- Random integers and shuffles that follow from a seed alone: words of Philox 4x32-10, counted.
--- The state of a stream is one number, so that a run can go on where it stopped.
local core = require "attune.core"

local Stream = {}
Stream.__index = Stream

local blocks = 4 -- words per call of Philox

--- A stream of random words. Streams of one seed and different names are independent.
---@param seed integer
---@param name? integer
---@param drawn? integer words that were drawn before
local function stream(seed, name, drawn)
  return setmetatable({seed = seed, name = name or 0, drawn = drawn or 0, block = nil}, Stream)
end

--- The next 32 random bits.
function Stream:word()
  local block, k = self.drawn // blocks, self.drawn % blocks
  if self.block ~= block then
    self.words = core.philox(
      {block & 0xffffffff, block >> 32, self.name & 0xffffffff, 0xda7a},
      {self.seed & 0xffffffff, self.seed >> 32 & 0xffffffff}
    )
    self.block = block
  end
  self.drawn = self.drawn + 1
  return self.words[k + 1]
end

--- An integer from 1 to n, each as likely as the others: n at most 2^32. (Lemire 2019, arXiv
--- 1805.10941: the upper half of a product, and words below the remainder are drawn again.)
function Stream:up_to(n)
  local rest = (1 << 32) % n
  while true do
    local product = self:word() * n
    if product & 0xffffffff >= rest then return (product >> 32) + 1 end
  end
end

--- A number from 0 to below 1.
function Stream:number() return self:word() / 4294967296 end

--- Shuffles a list in place: Fisher and Yates.
function Stream:shuffle(list)
  for k = #list, 2, -1 do
    local other = self:up_to(k)
    list[k], list[other] = list[other], list[k]
  end
  return list
end

--- The first `count` entries of a shuffle of 1 .. n, without a list of n.
function Stream:choose(count, n)
  local moved, chosen = {}, {}
  for k = 1, count do
    local other = k - 1 + self:up_to(n - k + 1)
    chosen[k] = moved[other] or other
    moved[other] = moved[k] or k
  end
  return chosen
end

return {stream = stream}
