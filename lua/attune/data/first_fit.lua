--- First-fit decreasing: documents in rows of one length, longest documents first, each in the
--- first row that has room.
---@param sizes integer[] the tokens of each document, each at most capacity
---@param capacity integer
---@return integer[][] rows the numbers of the documents of each row
---@return integer[] left the tokens that are left in each row
return function(sizes, capacity)
  local order, rows, left = {}, {}, {}
  for n = 1, #sizes do order[n] = n end
  table.sort(order, function(a, b)
    if sizes[a] ~= sizes[b] then return sizes[a] > sizes[b] end
    return a < b
  end)
  local open = {} -- rows that are not full, in order
  for _, n in ipairs(order) do
    local size, row = sizes[n], nil
    for k = 1, #open do
      if left[open[k]] >= size then
        row = open[k]
        if left[row] == size then table.remove(open, k) end
        break
      end
    end
    if not row then
      row = #rows + 1
      rows[row], left[row] = {}, capacity
      if size < capacity then open[#open + 1] = row end
    end
    table.insert(rows[row], n)
    left[row] = left[row] - size
  end
  return rows, left
end
