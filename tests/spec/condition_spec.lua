local condition = require "attune.experiment.condition"

local parameters = {a = 3, b = 2.5, name = "x", on = false, off = true, zero = 0}
local names = {"a", "b", "name", "on", "off", "zero"}

local function value(source) return condition.compile(source, names)(parameters) end

describe("a condition of --only", function()
  it("has the value that the same expression has in Lua", function()
    for _, source in ipairs {
      "a == 3", "a ~= 3", "a < b", "a <= 3 and b >= 2.5", "on == false", "off == true", "on",
      "not on",
      "not on == true", "name == 'x'", "name == \"x\" or a > 99", "a % 2 == 1", "a // 2", "a / 2",
      "-a ^ 2", "2 ^ 3 ^ 2", "2 ^ -1", "-2 ^ 2", "a - 1 - 1", "(a + 1) * 2 == 8", "name < 'y'",
      "a == 3 and on or 'z'", "nil == on", "name == 3", "1e3 > a", ".5 < b", "0x10 == 16", "a > -1",
      "not (a > 1) or b < 3", "  a==3 and b==2.5", "- - a", "not not a", "1 < 2 == true",
    } do
      local expected = load("return " .. source, "=x", "t", parameters)()
      assert.same(expected, value(source), source)
    end
  end)
  it("that is none is refused with a reason", function()
    for source, pattern in pairs {
      [""] = "got the end",
      ["a ="] = "expected == to compare",
      ["a = 3"] = "expected == to compare",
      ["a !"] = "got '!'",
      ["c == 1"] = "unknown parameter 'c'",
      ["nane == 'x'"] = "did you mean 'name'",
      ["a == 3)"] = "got '%)'",
      ["(a == 3"] = "closing parenthesis",
      ["name == 'x"] = "end of a text",
      ["a b"] = "got 'b'",
      ["a < name"] = "two numbers or two texts around <",
      ["name + 1"] = "numbers around %+",
      ["on < off"] = "two numbers",
      ["a // 0"] = "other than zero",
      ["a % zero"] = "other than zero",
      ["1x"] = "expected a number, got '1x'",
      ["a \27[31m"] = "\\x1b",
      [("("):rep(5000)] = "at most 4096 bytes",
      [("("):rep(200) .. "a" .. (")"):rep(200)] = "at most 100 nested parts",
      [("-"):rep(200) .. "a"] = "at most 100 nested parts",
    } do
      local ok, why = pcall(value, source)
      assert.is_false(ok, source)
      assert.truthy(why:find "^%-%-only: " and why:find(pattern), why)
    end
  end)
  it("calls no function, indexes nothing and never loops", function()
    for _, source in ipairs {
      "(function() while true do end end)()", "name:rep(1e9)", "('x'):rep(1 << 40)", "math.huge",
      "string", "_G", "os.exit(3)", "name .. name", "#name", "a[1]", "{}", "[[x]]", "a; b",
      "name'x'",
    } do
      assert.is_false((pcall(value, source)), source)
    end
  end)
end)
