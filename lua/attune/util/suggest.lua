--- "did you mean": the nearest of known names, by the edit distance of the core.
local core = require "attune.core"

--- A clause for a message about an unknown name.
---@param name string
---@param known string[]
---@return string
return function(name, known)
  local nearest = core._nearest(name, known)
  if nearest then return ("did you mean '%s'?"):format(nearest) end
  local list = table.move(known, 1, #known, 1, {})
  table.sort(list)
  return "expected one of " .. table.concat(list, ", ")
end
