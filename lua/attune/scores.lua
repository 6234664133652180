--- Score functions, function(s, at), for attention's `score`.
local scores = {}

--- ALiBi: s - slopes[h] (i - j). Press et al. 2022 (arXiv 2108.12409).
---@param slopes attune.Tensor [heads]
function scores.alibi(slopes)
  return function(s, at) return s - slopes[at.h] * (at.i - at.j) end
end

--- T5: s + table[bucket of j - i][h]. Raffel et al. 2020 (arXiv 1910.10683).
---@param weight attune.Tensor [buckets, heads]
---@param options? {bidirectional?: boolean, max_distance?: integer} true, 128
function scores.t5(weight, options)
  local bidirectional = not options or options.bidirectional ~= false
  local most = options and options.max_distance or 128
  local buckets = weight.shape[1] // (bidirectional and 2 or 1)
  local exact = buckets // 2
  local wide = (buckets - exact) / math.log(most / exact)
  return function(s, at)
    local relative = at.j - at.i
    local distance = bidirectional and relative:abs() or (-relative):max(0)
    local far = (((distance:max(exact) / exact):log() * wide + 1e-5):floor() + exact):min(buckets - 1)
    local bucket = distance:lt(exact):where(distance, far) + 1
    if bidirectional then bucket = relative:gt(0):where(bucket + buckets, bucket) end
    return s + weight[bucket][at.h]
  end
end

return scores
