local files = require "attune.util.files"
local script_text = require "attune.experiment.script_text"

local function outline(text) return script_text.outline(text) end

describe("the outline of a script", function()
  it("is name and about, as strings in any form of Lua", function()
    for _, text in ipairs {
      'return require "attune.experiment" {name = "n", about = "one two"}',
      "return require('attune.experiment')({about = 'one ' .. \"two\"; name = [[n]]})",
      [[
        #!/usr/bin/env attune
        -- name = "wrong"
        local experiment = require "attune.experiment" --[==[ about = "wrong" ]==]
        local t = {name = "wrong"}
        return experiment {
          trial = function(p)
            local name = "wrong"
            if p.a then name = "wrong" end
            for i = 1, 2 do about = "wrong" end
            repeat name = "wrong" until true
            return {x = {name = "wrong"}}
          end, -- }
          fixed = {name = "wrong"}, about = 'one\x20\z
            two', name = "\110",
        }]],
    } do
      assert.same({name = "n", about = "one two"}, outline(text:gsub("^%s+#", "#")))
    end
  end)
  it("leaves out what is not written as a string", function()
    assert.same({name = "n"}, outline [[
      return require "attune.experiment" {name = "n", about = "a" .. os.getenv "HOME"}]])
    assert.same({about = "a"}, outline [[
      return require "attune.experiment" {name = ("n"):rep(3), about = "a"}]])
  end)
  it("is an error where no experiment is declared in the text", function()
    for _, text in ipairs {
      "return {name = 'n'}", "", "x = 'unfinished", "--[[ unfinished", "x = [==[ unfinished ]]",
      'local e = require "attune.experiment"', "return {{{{", "\\", "\0\255",
    } do
      local value, why = outline(text)
      assert.is_nil(value, text)
      assert.is_string(why)
    end
  end)
  it("is an error, or empty, where a script begins or ends in the middle of something", function()
    assert.same({}, outline '= require "attune.experiment" {}')
    assert.is_nil(outline 'return require "attune.experiment" {name = "n')
  end)

  it("agrees with what every included script declares", function()
    local experiment = require "attune.experiment"
    for _, name in ipairs(files.list "experiments") do
      if name:find "%.lua$" then
        local path = "experiments/" .. name
        local e = assert(experiment.load(path))
        assert.same({name = e.name, about = e.about}, outline(assert(files.read(path))))
      end
    end
  end)
end)

describe("the essence of a script", function()
  local function script(trial, plots, before)
    return ([[%s
      return require "attune.experiment" {name = "n", trial = function(p) return {x = %s} end,
        plots = {%s}, memory = 1e9}]]):format(before or "", trial, plots or "")
  end
  it("changes with the trial and with what stands before it", function()
    local one = script_text.essence(script "1")
    assert.not_same(one, script_text.essence(script "2"))
    assert.not_same(one, script_text.essence(script("1", "", "local c = 3")))
  end)
  it("does not change with comments, plots, claims and the choice of points", function()
    local one = script_text.essence(script "1")
    assert.same(one, script_text.essence(script("1", "{kind = 'line', x = 'a', y = 'x'}")))
    assert.same(one, script_text.essence(script("1", "", "-- a comment")))
    local with_more = script "1":gsub("memory", "rounds = 7, fixed = {a = 1}, memory")
    assert.same(one, script_text.essence(with_more))
  end)
  it("changes with a function in a parameter's value", function()
    local function grid(body)
      local field = ("grid = {m = {{name = 'n', f = function(x) return %s end}}}, memory")
      return script_text.essence((script "1":gsub("memory", (field:format(body)))))
    end
    assert.same(grid "x", grid "x --[[ a comment ]]")
    assert.not_same(grid "x", grid "2")
  end)
end)
