--- "did you mean": the nearest of known names.
local function distance(a, b)
  local previous, current = {}, {}
  for j = 0, #b do previous[j] = j end
  for i = 1, #a do
    current[0] = i
    for j = 1, #b do
      local change = a:byte(i) == b:byte(j) and 0 or 1
      current[j] = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + change)
    end
    previous, current = current, previous
  end
  return previous[#b]
end

--- A clause for a message about an unknown name.
---@param name string
---@param known string[]
---@return string
return function(name, known)
  local nearest, best = nil, math.huge
  for _, candidate in ipairs(known) do
    local d = distance(name, candidate)
    if d < best then nearest, best = candidate, d end
  end
  if nearest and best <= 1 + #name // 3 then return ("did you mean '%s'?"):format(nearest) end
  local list = table.move(known, 1, #known, 1, {})
  table.sort(list)
  return "expected one of " .. table.concat(list, ", ")
end
