--- attune: attention engines, caches and positional encodings, and experiments over them.
--
-- `require "attune"` gives the functions of the C core (lua/binding) as one table. The modules that
-- are written in Lua are loaded when they are first used: `attune.masks`, `attune.program` and so
-- on, or `require "attune.experiment"`. Types for a language server are in attune/types.
--
-- The core takes score and mask programs, not Lua functions. The functions below that take `score`
-- or `mask` replace functions by programs before they call the core.
local attune = require "attune.core"

local modules = {
  program = "attune.program",
  masks = "attune.program.masks",
  scores = "attune.program.scores",
  block_map = "attune.program.block_map",
  pack = "attune.data.pack",
  model = "attune.model",
}

-- Errors of the core name the line that called the library, not a line of the library.
attune._hook("library", debug.getinfo(1, "S").source:match "^(.*/)[^/]*$" or "@attune/")

attune._hook("score_of", function(tensor, max_distance, bidirectional)
  local scores = require "attune.program.scores"
  if max_distance == 0 then return scores.alibi(tensor) end
  return scores.t5(tensor, {max_distance = max_distance, bidirectional = bidirectional})
end)

local answers = require "attune.util.options".answers
local refuse_further = require "attune.util.options".refuse_further
local program

-- Program handles replace the functions; other values stay, for the core to refuse. Returns also
-- the tensors that the program reads.
local function handle_of(value, kind)
  if type(value) ~= "function" and type(value) ~= "table" then return value end
  program = program or require "attune.program"
  return program.handle(value, kind)
end

-- The options with programs in place of functions, in a new table, and the tensors that the score
-- and the mask read. A user's table is not modified, and what the functions do to it while they are
-- traced changes nothing. The core refuses a table whose metatable would answer for fields.
local function resolve(options)
  if answers(options) then return options end
  local resolved = {}
  for name, value in next, options do resolved[name] = value end
  local score, of_score = handle_of(resolved.score, "score")
  local mask, of_mask = handle_of(resolved.mask, "mask")
  resolved.score, resolved.mask = score, mask
  return resolved, of_score, of_mask
end

local function has_functions(options)
  return type(options) == "table" and (rawget(options, "score") or rawget(options, "mask"))
end

local autograd = require "attune.autograd"
attune.no_grad, attune.graph_bytes = autograd.no_grad, autograd.graph_bytes
attune.gradcheck = require "attune.autograd.gradcheck"
attune.profile = require "attune.autograd.profile"
local attention, backward = autograd.attention, attune.attention_backward
local weights, attend = attune.attention_weights, attune._cache_methods.attend

function attune.attention(q, k, v, options, ...)
  refuse_further("attention: expected q, k, v and options", ...)
  local of_score, of_mask
  if options ~= nil and has_functions(options) then
    options, of_score, of_mask = resolve(options)
  end
  return attention(q, k, v, options, of_score, of_mask)
end

function attune.attention_backward(d_o, q, k, v, o, lse, options, ...)
  refuse_further("attention_backward: expected d_o, q, k, v, o, lse and options", ...)
  if options ~= nil and has_functions(options) then options = resolve(options) end
  return backward(d_o, q, k, v, o, lse, options)
end

function attune.attention_weights(q, k, options, ...)
  refuse_further("attention_weights: expected q, k and options", ...)
  if options ~= nil and has_functions(options) then options = resolve(options) end
  return weights(q, k, options)
end

function attune._cache_methods:attend(q, options, ...)
  refuse_further("attend: expected q and options", ...)
  if options ~= nil and has_functions(options) then options = resolve(options) end
  return attend(self, q, options)
end

return setmetatable(attune, {
  __index = function(t, name)
    if not modules[name] then return nil end
    local module = require(modules[name])
    rawset(t, name, module)
    return module
  end,
})
