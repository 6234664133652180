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

return repeats
