--- What gives a point several values: its seeds where the experiment declares seeds, as the rounds
--- of a seed are one value; else its rounds.
local repeats = {}

---@param results attune.Results
---@return "seed"|"round"
function repeats.word(results) return results.seeds and "seed" or "round" end

--- The option of attune run that measures more of them.
---@param results attune.Results
---@return string
function repeats.option(results) return results.seeds and "--set seed=1,2,.." or "--rounds" end

--- "3", or "3 to 9" where points with values have different numbers of rounds; and the largest one.
---@param results attune.Results
---@return string
---@return integer
function repeats.rounds(results)
  local low, high = math.huge, 0
  for _, point in ipairs(results.points) do
    high = math.max(high, point.rounds)
    if point.status == "ok" then low = math.min(low, point.rounds) end
  end
  return low < high and ("%d to %d"):format(low, high) or ("%d"):format(high), high
end

return repeats
