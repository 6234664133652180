--- "did you mean": the nearest of known names, by the edit distance of the core.
local core = require "attune.core"

-- Whether two names begin or end alike. Of short names others are near by chance: pdf and md.
local function are_alike(a, b)
  a, b = a:lower(), b:lower()
  return #a < 2 or a:sub(1, 1) == b:sub(1, 1) or a:sub(-1) == b:sub(-1)
end

--- A clause for a message about an unknown name.
---@param name string
---@param known string[]
---@return string
return function(name, known)
  local nearest = core._nearest(name, known)
  if nearest and are_alike(name, nearest) then return ("did you mean '%s'?"):format(nearest) end
  local list = table.move(known, 1, #known, 1, {})
  table.sort(list)
  return "expected one of " .. table.concat(list, ", ")
end
