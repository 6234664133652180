--- What specs assert about errors and tensors.
local assert = require "luassert"
local golden = require "tests.support.golden"

local expect = {}

local function fails(pattern, fn, plain)
  local ok, message = pcall(fn)
  assert.is_false(ok, ("expected an error with '%s', got none"):format(pattern))
  assert.truthy(
    tostring(message):find(pattern, 1, plain),
    ("expected a message with '%s', got: %s"):format(pattern, tostring(message))
  )
  return message
end

--- fn raises an error whose message matches the Lua pattern. Returns the message.
function expect.fails(pattern, fn) return fails(pattern, fn, false) end

--- fn, called with the further arguments, raises an error whose message contains the text. Returns
--- the message.
function expect.fails_with(text, fn, ...)
  local arguments = table.pack(...)
  return fails(text, function() return fn(table.unpack(arguments, 1, arguments.n)) end, true)
end

--- Two tensors of one shape differ by at most bound in every element.
---@param name? string what is compared, for the message
function expect.close(got, expected, bound, name)
  local difference = golden.difference(got, expected)
  if not (difference <= bound) then
    local what = name and name .. ": " or ""
    error(("%sexpected a difference of at most %g, got %g"):format(what, bound, difference), 2)
  end
end

--- Two tensors of one shape differ by more than bound in some element.
function expect.differ(got, expected, bound)
  local difference = golden.difference(got, expected)
  assert.is_true(
    difference > bound,
    ("expected a difference over %g, got %g"):format(bound, difference)
  )
end

--- The maximum absolute difference of two tensors, divided by the maximum absolute value of the
--- second where that is over 1.
function expect.relative_difference(got, expected)
  local scale = 1
  local function visit(list)
    for _, x in ipairs(list) do
      if type(x) == "table" then visit(x) else scale = math.max(scale, math.abs(x)) end
    end
  end
  visit(expected:tolist())
  return golden.difference(got:to "f64", expected:to "f64") / scale
end

--- The start of a message about the line of the caller, or about a line below it.
---@param below? integer lines below
function expect.here(below)
  local info = debug.getinfo(2, "lS")
  return ("%s:%d: "):format(info.short_src:match "[^/]+$", info.currentline + (below or 0))
end

return expect
