--- Seeded random numbers for resampling: SplitMix64 (Steele, Lea and Flood 2014). A generator of
--- its own, so that math.random of a script is left as it is.

--- A function that returns the next number from 0 to below 1.
---@param seed integer
---@return fun(): number
return function(seed)
  local state = seed
  return function()
    state = state + 0x9E3779B97F4A7C15
    local z = state
    z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ~ (z >> 27)) * 0x94D049BB133111EB
    return ((z ~ (z >> 31)) >> 11) * 2.0 ^ -53
  end
end
