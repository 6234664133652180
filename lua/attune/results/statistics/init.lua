--- Statistics of one value per round. docs/statistics.md explains when each of them is used.
--
--   describe       quantiles, mean, spread, outliers, autocorrelation, drift
--   intervals      what is printed: a centre with its own interval
--   ranks          Mann-Whitney, signed ranks, Brunner-Munzel, Hodges-Lehmann
--   resampling     permutation and sign-flip tests, BCa
--   comparison     whether b is better or worse than a, or cannot be told
local statistics = {}

for _, name in ipairs {"describe", "intervals", "ranks", "resampling", "comparison"} do
  for key, value in pairs(require("attune.results.statistics." .. name)) do
    statistics[key] = value
  end
end
statistics.check = nil

local sentences = {
  mean = "the mean over the %ss with the 95%% interval (Student's t) of this mean",
  median = "the median over the %ss with the 95%% interval (order statistics) of this median",
  value = "the value of one %s, which has no interval",
}

--- What the printed centres of points are.
---@param points attune.Point[]
---@param with_interval? boolean false where intervals are not printed; true by default
---@param word? "seed"|"round" what gives a point several values; "round" by default
---@return string sentence "" when no point has a value
function statistics.sentence(points, with_interval, word)
  local kinds, parts = {}, {}
  for _, point in ipairs(points) do
    for _, value in pairs(point.metrics) do kinds[value.kind] = true end
  end
  for _, kind in ipairs {"mean", "median", "value"} do
    local words = sentences[kind]:format(word or "round")
    if with_interval == false then words = words:gsub(" with the .*", ""):gsub(", which.*", "") end
    if kinds[kind] then parts[#parts + 1] = words end
  end
  if #parts == 0 then return "" end
  return ("Each value is %s."):format(table.concat(parts, "; or "))
end

return statistics
