--- Closes the tensors of a calculation when it ends. A prompt's activations are many times as large
--- as what Lua sees of them, so that its collector alone would let them outgrow the weights.
---
---   local s <close> = scope.new()
---   local y = s(x:tanh()) -- closed at the end of the block; views of y keep its memory
local scope = {}

local function hold(self, ...)
  for i = 1, select("#", ...) do
    local t = select(i, ...)
    if t then self[#self + 1] = t end
  end
  return ...
end

scope.__call = hold

function scope.__close(self)
  for i = #self, 1, -1 do self[i]:close() end
end

--- A function that gives back the tensors it takes, which are closed with `local s <close>`; false
--- and nil may be among them.
function scope.new() return setmetatable({}, scope) end

return scope
