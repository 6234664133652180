--- Merging the symbols of a word pair by pair, the lowest rank first, of equal ranks the leftmost
--- (Sennrich et al. 2016, arXiv 1508.07909). A binary heap of rank and position: n log n steps.
local position_bits = 31
local position_mask = (1 << position_bits) - 1

local function push(heap, key)
  local at = #heap + 1
  while at > 1 do
    local parent = at // 2
    if heap[parent] <= key then break end
    heap[at] = heap[parent]
    at = parent
  end
  heap[at] = key
end

local function pop(heap)
  local size = #heap
  local top, key = heap[1], heap[size]
  heap[size] = nil
  size = size - 1
  if size == 0 then return top end
  local at = 1
  while true do
    local child = 2 * at
    if child > size then break end
    if child < size and heap[child + 1] < heap[child] then child = child + 1 end
    if heap[child] >= key then break end
    heap[at] = heap[child]
    at = child
  end
  heap[at] = key
  return top
end

--- Merges in place.
---@param symbols any[] of the word, left to right
---@param lookup fun(left: any, right: any): integer?, any rank (below 2^31) and the merged symbol;
---  nil where the pair does not merge
---@return any[] symbols what is left
return function(symbols, lookup)
  local n = #symbols
  if n < 2 then return symbols end
  local after, before, heap = {}, {}, {}
  for i = 1, n do
    after[i], before[i] = i + 1, i - 1
    local rank = i < n and lookup(symbols[i], symbols[i + 1])
    if rank then push(heap, rank << position_bits | i) end
  end
  while #heap > 0 do
    local key = pop(heap)
    local left = key & position_mask
    local right = after[left]
    -- An entry is outdated when its pair has merged with something else since.
    if symbols[left] ~= nil and right <= n then
      local rank, merged = lookup(symbols[left], symbols[right])
      if rank == key >> position_bits then
        symbols[left], symbols[right] = merged, nil
        local following = after[right]
        after[left] = following
        if following <= n then
          before[following] = left
          rank = lookup(merged, symbols[following])
          if rank then push(heap, rank << position_bits | left) end
        end
        local previous = before[left]
        if previous > 0 then
          rank = lookup(symbols[previous], merged)
          if rank then push(heap, rank << position_bits | previous) end
        end
      end
    end
  end
  local list, i = {}, 1
  while i <= n do
    list[#list + 1] = symbols[i]
    i = after[i]
  end
  return list
end
