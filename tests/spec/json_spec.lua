local json = require "attune.util.json"
local fails = require "tests.support.expect".fails

local function nested_lists(depth) return ("["):rep(depth) .. ("]"):rep(depth) end

describe("JSON", function()
  it("writes keys in order, integers as integers, floats with the digits they need", function()
    assert.same(
      '{"a":1,"b":1.0,"c":0.1,"d":[true,false]}',
      json.encode {d = {true, false}, c = 0.1, b = 1.0, a = 1}
    )
  end)

  it("reads every finite float back with the same bits", function()
    local numbers = {0.1, -0.0, 1e22, 5e-324, 1.7976931348623157e308, 2.0 ^ 53, 1 / 3, 123456.0}
    local back = json.decode(json.encode(numbers))
    for i, x in ipairs(numbers) do
      assert.same("float", math.type(back[i]))
      assert.same(("%a"):format(x), ("%a"):format(back[i]))
    end
  end)

  it("reads every integer of 64 bits back, and refuses larger ones", function()
    local numbers = {math.maxinteger, math.mininteger, 0, -1, (1 << 53) + 1}
    local back = json.decode(json.encode(numbers))
    for i, x in ipairs(numbers) do
      assert.same("integer", math.type(back[i]))
      assert.same(x, back[i])
    end
    local value, message = json.decode "[9223372036854775808]"
    assert.is_nil(value)
    assert.matches("integer", message)
    value, message = json.decode "[1e999]"
    assert.is_nil(value)
    assert.matches("overflow", message)
  end)

  it("keeps zero bytes and control characters in strings", function()
    local text = "a\0b\1\31\n\t\"\\/é\127"
    assert.same(text, json.decode(json.encode {text})[1])
    assert.same('["\\u0000"]', json.encode {"\0"})
  end)

  it("refuses zero bytes in keys", function()
    fails("zero bytes", function() json.encode {["a\0b"] = 1} end)
    local value, message = json.decode '{"a\\u0000b": 1}'
    assert.is_nil(value)
    assert.is_string(message)
  end)

  it("writes bytes that are not UTF-8 as ?, and refuses to read them", function()
    assert.same('["a??b"]', json.encode {"a\xff\xfeb"})
    assert.same('{"?":1}', json.encode {["\xff"] = 1})
    local value, message = json.decode '["\xff"]'
    assert.is_nil(value)
    assert.matches("decode byte 0xff", message)
  end)

  it("tells an empty list from an empty object, when it writes and when it reads", function()
    assert.same("[]", json.encode(json.list()))
    assert.same("{}", json.encode {})
    assert.same('[[],{},{"a":[]}]', json.encode(json.decode '[[], {}, {"a": []}]'))
  end)

  it("writes a table of 1 .. n as a list and refuses other integer keys", function()
    assert.same("[1,2]", json.encode {1, 2})
    fails("strings as keys", function() json.encode {1, 2, [5] = 3} end)
    fails("strings as keys", function() json.encode {1, a = 2} end)
    fails("got a function", function() json.encode {print} end)
  end)

  it("takes the last of duplicate keys", function()
    assert.same(2, json.decode '{"a": 1, "a": 2}'.a)
  end)

  it("reads null as nil and writes json.null", function()
    assert.same('{"a":null}', json.encode {a = json.null})
    local back = json.decode '{"a": null, "b": 1}'
    assert.is_nil(back.a)
    assert.same(1, back.b)
  end)
  it("keeps null where that is asked", function()
    local value = json.decode('{"a":null,"b":[1,null]}', true)
    assert.same({json.null, json.null}, {value.a, value.b[2]})
    assert.is_nil(json.decode('{"a":null}').a)
  end)

  it("refuses more than 200 nested lists, when it reads and when it writes", function()
    assert.is_table(json.decode(nested_lists(200)))
    for _, depth in ipairs {202, 5000, 1000000} do
      local value, message = json.decode(nested_lists(depth))
      assert.is_nil(value)
      assert.is_string(message)
    end
    local deep = {}
    for _ = 1, 300 do deep = {deep} end
    fails("nested", function() json.encode(deep) end)
    local own = {}
    own.own = own
    fails("nested", function() json.encode(own) end)
  end)

  it("refuses what follows a value, and text that ends early", function()
    for _, text in ipairs {"", "{", '{"a": ', "[1,]", "1 2", "nul", "{} x", "NaN", "\0"} do
      local value, message = json.decode(text)
      assert.is_nil(value)
      assert.matches("line %d+, column %-?%d+", message)
    end
  end)

  it("writes NaN and infinities as strings that number() converts back", function()
    assert.same('["NaN","Infinity","-Infinity"]', json.encode {0 / 0, math.huge, -math.huge})
    assert.same(math.huge, json.number "Infinity")
    assert.same(-math.huge, json.number "-Infinity")
    assert.is_true(json.number "NaN" ~= json.number "NaN")
    assert.is_nil(json.number "12")
    assert.same(12, json.number(12))
  end)
end)
