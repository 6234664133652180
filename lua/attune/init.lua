--- attune: attention engines, caches and positional encodings, and experiments over them.
--
-- `require "attune"` gives the C core's functions (lua/binding) as one table. What is written in Lua stands beside this file and is loaded
-- when it is first asked for: `require "attune.experiment"`, `attune.stats` and so on. Types for a language server are in attune/types.lua.
local attune = require "attune.core"

local later = {program = "attune.program", masks = "attune.masks", scores = "attune.scores", block_map = "attune.block_map", pack = "attune.pack"}

return setmetatable(attune, {
  __index = function(t, name)
    if not later[name] then return nil end
    local module = require(later[name])
    rawset(t, name, module)
    return module
  end,
})
