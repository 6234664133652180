--- Golden files: tensors of independent implementations, with the arguments and the allowed
--- differences.
local attune = require "attune"
local files = require "attune.util.files"
local json = require "attune.util.json"
local golden = {}

--- {case, tensors} of a file under tests/golden.
function golden.load(path)
  local tensors, metadata = assert(attune.load("tests/golden/" .. path))
  return json.decode(metadata.case), tensors
end

--- The max |a - b| over two tensors of one shape; infinite where only one is NaN.
function golden.difference(a, b)
  assert(
    table.concat(a.shape, "x") == table.concat(b.shape, "x"),
    ("shapes %s and %s"):format(table.concat(a.shape, "x"), table.concat(b.shape, "x"))
  )
  local count = 1
  for _, n in ipairs(a.shape) do count = count * n end
  local x, y = a:contiguous():view(count):tolist(), b:contiguous():view(count):tolist()
  local worst = 0
  for i = 1, count do
    local d = (x[i] == y[i] or (x[i] ~= x[i] and y[i] ~= y[i])) and 0 or math.abs(x[i] - y[i])
    if not (d <= worst) then worst = d ~= d and math.huge or d end
  end
  return worst
end

function golden.files(folder)
  local names = {}
  for _, name in ipairs(files.list("tests/golden/" .. folder)) do
    if name:find "%.safetensors$" then names[#names + 1] = name end
  end
  return names
end

return golden
