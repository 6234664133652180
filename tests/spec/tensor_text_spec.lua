-- What print shows of a tensor.
local attune = require "attune"

local function shows(expected, tensor)
  assert.same(table.concat(expected, "\n"), tostring(tensor))
end

describe("the text of a tensor", function()
  it("has dtype and shape, and rows of numbers in one format", function()
    shows({
      "f32 tensor [2, 3]",
      "[[1.0, 2.0, 3.0],",
      " [4.0, 5.5, 6.0]]",
    }, attune.tensor {{1, 2, 3}, {4, 5.5, 6}})
    shows({
      "f64 tensor [2, 2]",
      "[[  0.125,  -2.000],",
      " [100.000,   3.500]]",
    }, attune.tensor({{0.125, -2}, {100, 3.5}}, {dtype = "f64"}))
    shows({"f32 tensor [2]", "[-7.0943, 40.4667]"}, attune.tensor {-7.09425, 40.46672})
  end)

  it("shows integers without a decimal point, exactly", function()
    shows({
      "i64 tensor [2, 2]",
      "[[ 9223372036854775807,                   -1],",
      " [                   0, -9223372036854775808]]",
    }, attune.tensor({{math.maxinteger, -1}, {0, math.mininteger}}, {dtype = "i64"}))
    shows({"i8 tensor [3]", "[-128,    0,  127]"}, attune.tensor({-128, 0, 127}, {dtype = "i8"}))
    shows({"i32 tensor [2]", "[ 7, 12]"}, attune.tensor({7, 12}, {dtype = "i32"}))
  end)

  it("shows all float dtypes, with the digits that they hold", function()
    shows({"f32 tensor [2]", "[0.100000, 0.333333]"}, attune.tensor {0.1, 1 / 3})
    shows({"bf16 tensor [2]", "[0.10010, 0.33398]"}, attune.tensor({0.1, 1 / 3}, {dtype = "bf16"}))
    shows({"f16 tensor [2]", "[0.09998, 0.33325]"}, attune.tensor({0.1, 1 / 3}, {dtype = "f16"}))
    shows({"f32 tensor [2]", "[16777216.0,       -1.0]"}, attune.tensor {16777216, -1})
  end)

  it("uses powers of ten where decimals would hide small numbers or be long", function()
    shows({"f32 tensor [2]", "[1.0e+00, 1.5e-07]"}, attune.tensor {1, 1.5e-7})
    local t = attune.tensor({2e300, -3e-300}, {dtype = "f64"})
    shows({"f64 tensor [2]", "[ 2e+300, -3e-300]"}, t)
    shows({"f32 tensor [1]", "[1.23457e+10]"}, attune.tensor {12345678901})
  end)

  it("shows NaN, infinities and zeros", function()
    shows({
      "f32 tensor [2, 2]",
      "[[ nan,  inf],",
      " [-inf, -0.0]]",
    }, attune.tensor {{0 / 0, math.huge}, {-math.huge, -0.0}})
    shows({"f32 tensor [3]", "[0.00,  inf, 0.25]"}, attune.tensor {0, math.huge, 0.25})
  end)

  it("shows a tensor without axes, and axes of one", function()
    shows({"f32 tensor []", "21.0"}, attune.arange(1, 6):sum())
    shows({"f32 tensor [1, 1, 1]", "[[[0.5]]]"}, attune.full({1, 1, 1}, 0.5))
  end)

  it("separates matrices by an empty line", function()
    shows({
      "i32 tensor [2, 2, 1]",
      "[[[0],",
      "  [1]],",
      "",
      " [[2],",
      "  [3]]]",
    }, attune.arange(0, 3, 1, {dtype = "i32"}):view(2, 2, 1))
  end)

  it("shows views as what they hold", function()
    local t = attune.arange(1, 6, 1, {dtype = "i32"}):view(2, 3)
    shows({"i32 tensor [3, 2]", "[[1, 4],", " [2, 5],", " [3, 6]]"}, t:transpose(1, 2))
    shows({"i32 tensor [2, 2]", "[[2, 3],", " [5, 6]]"}, t:slice(2, 2, 3))
    shows({"i32 tensor [2, 3]", "[[4, 5, 6],", " [4, 5, 6]]"}, t[2]:view(1, 3):expand(2, 3))
  end)

  it("shortens large tensors to the first and last three of each axis", function()
    shows({
      "i32 tensor [1001]",
      "[   0,    1,    2, ...,  998,  999, 1000]",
    }, attune.arange(0, 1000, 1, {dtype = "i32"}))
    shows({
      "f32 tensor [7, 1000]",
      "[[   0.0,    1.0,    2.0, ...,  997.0,  998.0,  999.0],",
      " [1000.0, 1001.0, 1002.0, ..., 1997.0, 1998.0, 1999.0],",
      " [2000.0, 2001.0, 2002.0, ..., 2997.0, 2998.0, 2999.0],",
      " ...,",
      " [4000.0, 4001.0, 4002.0, ..., 4997.0, 4998.0, 4999.0],",
      " [5000.0, 5001.0, 5002.0, ..., 5997.0, 5998.0, 5999.0],",
      " [6000.0, 6001.0, 6002.0, ..., 6997.0, 6998.0, 6999.0]]",
    }, attune.arange(7000):view(7, 1000))
    shows({
      "i32 tensor [2, 3, 400]",
      "[[[   0,    1,    2, ...,  397,  398,  399],",
      "  [ 400,  401,  402, ...,  797,  798,  799],",
      "  [ 800,  801,  802, ..., 1197, 1198, 1199]],",
      "",
      " [[1200, 1201, 1202, ..., 1597, 1598, 1599],",
      "  [1600, 1601, 1602, ..., 1997, 1998, 1999],",
      "  [2000, 2001, 2002, ..., 2397, 2398, 2399]]]",
    }, attune.arange(0, 2399, 1, {dtype = "i32"}):view(2, 3, 400))
  end)

  it("wraps long rows at 80 columns", function()
    shows({
      "i32 tensor [1, 30]",
      "[[ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16, 17, 18,",
      "  19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]]",
    }, attune.arange(0, 29, 1, {dtype = "i32"}):view(1, 30))
  end)

  it("stays short for six axes, and quick for a broadcast of 2^40 elements", function()
    assert.is_true(#tostring(attune.zeros {8, 8, 8, 8, 8, 8}) < 4000)
    local text = tostring(attune.ones({1, 1}):expand(1 << 20, 1 << 20))
    assert.truthy(text:find("f32 tensor [1048576, 1048576]\n[[1.0, 1.0, 1.0, ..., 1.0", 1, true))
  end)

  it("says of a closed tensor that it is closed", function()
    local t = attune.zeros {2}
    t:close()
    shows({"closed tensor"}, t)
  end)
end)
