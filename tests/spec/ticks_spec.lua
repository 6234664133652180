local fonts = require "attune.plot.fonts"
local letters = require "attune.plot.letters"
local ticks = require "attune.plot.ticks"
local uv = require "luv"

local function labels(list)
  local words = {}
  for _, tick in ipairs(list) do
    if tick.label ~= "" then words[#words + 1] = tick.label end
  end
  return words
end

describe("ticks", function()
  it("of linear axes have the digits of their step and one prefix", function()
    assert.same({"1 s", "1.5 s", "2 s"}, labels(ticks.linear(1, 2, "s", 3)))
    assert.same({"1.25 ms", "1.3 ms", "1.35 ms"}, labels(ticks.linear(1.25e-3, 1.35e-3, "s", 3)))
    assert.same({"0", "0.1 x", "0.2 x"}, labels(ticks.linear(0, 0.2, "x", 2)))
    assert.same({"1.1×", "1.2×"}, labels(ticks.linear(1.1, 1.2, "×", 1)))
    assert.same({"−1", "0", "1"}, labels(ticks.linear(-1, 1, nil, 2)))
    assert.same({"1 KiB", "1.5 KiB", "2 KiB"}, labels(ticks.linear(1024, 2048, "B", 2)))
    assert.same({"0", "50%", "100%"}, labels(ticks.linear(0, 100, "%", 2)))
    assert.same({"1.0000001e6 tick", "1.0000002e6 tick"},
      labels(ticks.linear(1000000.1, 1000000.2, "tick", 1)))
  end)
  it("have labels that differ and that say the value, on axes of any range", function()
    local state = test_seed
    local function uniform()
      state = state * 6364136223846793005 + 1442695040888963407
      return (state >> 11) / 2 ^ 53
    end
    local factors = {T = 1e12, G = 1e9, M = 1e6, k = 1e3, m = 1e-3, ["µ"] = 1e-6, n = 1e-9}
    for _ = 1, 300 do
      local low = 10 ^ (uniform() * 14 - 8)
      local high = low * (1 + 10 ^ (uniform() * 5 - 3))
      for _, kind in ipairs {"linear", "log"} do
        for _, unit in ipairs {"s", "x"} do
          local seen = {}
          for _, tick in ipairs(ticks[kind](low, high, unit, 6)) do
            local context = ("%s %g %g %s, seed %d"):format(kind, low, high, tick.label, test_seed)
            if tick.label ~= "" and tick.label ~= "0" then
              assert.is_nil(seen[tick.label], context)
              seen[tick.label] = true
              local number, prefix = tick.label:match("^(%S+) (.*)" .. unit .. "$")
              local value = tonumber(number) * (factors[prefix] or 1)
              assert.near(1, value / tick.at, 1e-9, context)
            end
          end
          assert.truthy(next(seen), ("%s %g %g, seed %d"):format(kind, low, high, test_seed))
        end
      end
    end
  end)
  it("of logarithmic axes are powers, or multiples where there are few powers", function()
    assert.same({"1 ms", "10 ms", "100 ms"}, labels(ticks.log(1e-3, 0.1, "s", 6)))
    assert.same({"2", "5", "10", "20"}, labels(ticks.log(1.5, 30, nil, 6)))
    assert.same({"1 KiB", "4 KiB", "16 KiB"}, labels(ticks.log(1024, 16384, "B", 3)))
  end)
  it("double percent signs, which gnuplot takes for a format", function()
    local function command(name)
      return require "attune.plot.gnuplot".texts_for(ticks.command(ticks.categories {name}), "svg")
    end
    assert.same("('10%%' 1 0)", command "10%")
    assert.same("('it’s `id`' 1 0)", command "it's `id`")
  end)
  it("lose the labels that would touch their neighbours, never the last", function()
    local list = ticks.at {1, 2, 3, 1000}
    local thin = ticks.thinned(list, 15, function(at) return at / 1000 * 5 end)
    assert.same({"1", "1000"}, labels(thin))
    assert.same(4, #thin)
  end)
  it("at given numbers show as many digits as tell them apart", function()
    assert.same({"1.0000001", "1.0000002"}, labels(ticks.at {1.0000001, 1.0000002}))
  end)
end)

describe("letters", function()
  it("are cleaned of control characters, broken bytes and endless length", function()
    assert.same("a\\nb", letters.clean "a\nb")
    assert.same("a\\xffb", letters.clean "a\xffb")
    assert.same("a?", letters.clean "a\u{FFFF}")
    assert.same("ab…", letters.clean("abcdef", 3))
    assert.truthy(#letters.clean(("x"):rep(1e6)) < 300)
  end)
  it("are broken into lines that fit, also within a word", function()
    for _, line in ipairs(letters.wrap(("word "):rep(20) .. ("x"):rep(100), 14, 2)) do
      assert.truthy(letters.width(line, 14) <= 2, line)
    end
    assert.same({"one", "two"}, letters.wrap("one two", 14, 0.5))
  end)
end)

describe("fonts", function()
  it("name the package for letters that no font has, and put ? in their place", function()
    assert.is_nil(fonts.warning {})
    local warning = fonts.warning {"中", "文"}
    assert.truthy(warning:find "no font of this machine has 中 文")
    assert.truthy(warning:find "fonts%-noto%-cjk")
    assert.same("a??b文", fonts.replaced("a中国b文", {"中", "国"}))
    -- U+10FFFD is of private use: no font has it.
    assert.same({"\u{10FFFD}"}, fonts.lacking {{script = "aé\u{10FFFD}", data = ""}})
  end)
  it("count as having a letter where fc-list is killed before it answers", function()
    local folder, path = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/attune-fonts-XXXXXX")),
      os.getenv "PATH"
    local program = folder .. "/fc-list"
    local file = assert(io.open(program, "w"))
    file:write('#!/bin/sh\ncase "$1" in :charset=41) echo Sans ;; *) kill -9 $$ ;; esac\n')
    file:close()
    assert(uv.fs_chmod(program, 448)) -- rwx------
    local loaded = package.loaded["attune.plot.fonts"]
    package.loaded["attune.plot.fonts"] = nil
    uv.os_setenv("PATH", folder .. ":" .. path)
    local lacking = require "attune.plot.fonts".lacking {{script = "é\u{10FFFD}", data = ""}}
    uv.os_setenv("PATH", path)
    package.loaded["attune.plot.fonts"] = loaded
    os.remove(program)
    uv.fs_rmdir(folder)
    assert.same({}, lacking)
  end)
end)
