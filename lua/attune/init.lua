--- attune: attention engines, caches and positional encodings, and experiments over them.
--
-- `require "attune"` gives the C core's functions (lua/binding) as one table. What is written in Lua stands beside this file and is loaded
-- when it is first asked for: `require "attune.experiment"`, `attune.stats` and so on. Types for a language server are in attune/types.lua.
return require "attune.core"
