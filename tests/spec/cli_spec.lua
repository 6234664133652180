--- attune new, repl, completion, manual, and what list, show and info write for programs.
local files = require "attune.util.files"
local json = require "attune.util.json"
local run = require "tests.support.run"
local uv = require "luv"
local words = require "attune.cli.repl_words"

local build = uv.fs_realpath(os.getenv "ATTUNE_BUILD_DIR" or "build")

local in_folder = run.in_folder

local empty_folder = run.empty_folder

describe("attune new", function()
  it("writes a script that luacheck likes and that runs", function()
    local folder = empty_folder()
    local said, status = in_folder(folder, build .. "/attune new my-trial")
    assert.same(0, status, said)
    assert.same("my-trial.lua is written. Try: attune run my-trial.lua --quick\n", said)
    said, status = in_folder(folder, build .. "/attune run my-trial.lua --quick")
    assert.is_true(status == 0, said)
    assert.truthy(said:find "Twice the tokens take at least twice the time")
    assert.truthy(files.read(folder .. "/results/my-trial/report.html"):find "<svg")
    run.remove(folder)
  end)
  it("replaces no file, and wants a plain name", function()
    local folder = empty_folder()
    files.write(folder .. "/a.lua", "mine")
    for arguments, pattern in pairs {
      ["a"] = "a.lua: expected nothing there, as a file is never replaced",
      ["a.lua"] = "a.lua: expected nothing there",
      ["../x"] = "name: expected letters, digits, - and _, got '../x'",
    } do
      local said, status = in_folder(folder, ("%s/attune new %s"):format(build, arguments))
      assert.same(2, status)
      assert.truthy(said:find(pattern, 1, true), said)
    end
    assert.same("mine", files.read(folder .. "/a.lua"))
    assert.same({"a.lua"}, files.list(folder))
    run.remove(folder)
  end)
end)

describe("the prompt of attune repl", function()
  local globals = {attune = {attention = print, attend = 1, _private = 1}, answer = 42}

  it("completes names, fields and methods", function()
    assert.same({"attune.attend", "attune.attention"}, words.complete("x = attune.att", globals))
    assert.same({"and", "answer"}, words.complete("print(an", globals))
    assert.same({"attune._private"}, words.complete("attune._", globals))
    globals.t = require "attune".zeros {1}
    assert.same({"t:softmax"}, words.complete("t:softm", globals))
    assert.same({}, words.complete("nothing.at.all", globals))
    assert.same({}, words.complete("1 + ", globals))
  end)
  it("runs nothing of the user's to complete", function()
    local ran = false
    local trap = setmetatable({}, {__index = function() ran = true end, __pairs = function()
      ran = true
    end})
    assert.same({}, words.complete("trap.x", {trap = trap}))
    assert.same({}, words.complete("trap.x.y", {trap = trap}))
    assert.is_false(ran)
  end)
  it("shows plain tables with their entries, and few of them", function()
    assert.same('{1, 2, name = "x"}', words.show {1, 2, name = "x"})
    assert.same("{}", words.show {})
    assert.same('{a = {b = {c = {..}}}}', words.show {a = {b = {c = {d = 1}}}})
    assert.same('{["a b"] = "\\\\n"}', words.show {["a b"] = "\n"})
    local many = {}
    for i = 1, 100 do many[i] = i end
    assert.truthy(words.show(many):find ".. 80 more", 1, true)
    local cycle = {}
    cycle.me = cycle
    assert.same("{me = {me = {me = {..}}}}", words.show(cycle))
    assert.same("text", words.show "text")
  end)
  it("shows values of statements in turn, and gives up at a second empty line", function()
    local input = run.script "{1, {a = 2}}\nfor i = 1, 2 do\n\n\n'next'\n=\n"
    local said, status = run.attune("repl", input)
    assert.same(0, status)
    assert.truthy(said:find("{1, {a = 2}}\nnext\n", 1, true), said)
    run.remove(input)
  end)
end)

describe("for programs", function()
  it("list, show and info write JSON", function()
    local folder = empty_folder()
    files.write(folder .. "/e.lua", [[
      return require "attune.experiment" {
        name = "tiny", about = "Is it?", grid = {n = {1, 2}}, rounds = 1, timing = false,
        trial = function(p) if p.n == 2 then return nil, "no" end return {y = p.n / 0} end,
        claims = {{"a claim", function() return true, "a detail" end}},
      }]])
    local attune = build .. "/attune "
    local function value(command)
      local said, status = in_folder(folder, attune .. command)
      assert.same(0, status, said)
      return assert(json.decode(said))
    end
    local declared = value "show e.lua --json"
    assert.same({"tiny", 2, {1, 2}}, {declared.name, declared.points, declared.parameters.n})
    in_folder(folder, attune .. "run e.lua")
    local found = value "show results/tiny --json"
    assert.same({"ok", "Infinity", "skipped"},
      {found.points[1].status, found.points[1].y, found.points[2].status})
    assert.same({text = "a claim", verdict = "held", detail = "a detail"}, found.claims[1])
    local listed = value "list . --json"
    assert.same({{"script", "./e.lua", "Is it?"}, {"results", "results/tiny", "Is it?"}},
      {{listed[1].kind, listed[1].path, listed[1].about},
        {listed[2].kind, listed[2].path, listed[2].about}})
    local machine = value "info --json"
    assert.is_true(machine.peak > 0 and machine.cores > 0 and #machine.isas > 0)
    run.remove(folder)
  end)
end)

describe("attune run", function()
  it("writes a warning of many trials once, and no folder of plots where none is drawn", function()
    local folder = empty_folder()
    files.write(folder .. "/e.lua", [[
      return require "attune.experiment" {
        name = "warns", grid = {n = {1, 2, 3}}, rounds = 1, timing = false,
        trial = function(p, t)
          t:warn "the same"
          if p.n == 2 then t:warn "another" end
          return {y = p.n}
        end,
      }]])
    local said, status = in_folder(folder, build .. "/attune run e.lua")
    assert.same(0, status, said)
    assert.truthy(said:find("attune run: the same (3 times)\n", 1, true), said)
    assert.truthy(said:find("attune run: another\n", 1, true), said)
    assert.same(1, select(2, said:gsub("the same", "")))
    assert.truthy(said:find("Report: results/warns/report.html\n", 1, true), said)
    run.remove(folder)
  end)
end)

describe("completion and the manual", function()
  it("of each shell name every command and its options", function()
    local commands = require "attune.cli.commands"
    for _, shell in ipairs {"bash", "zsh", "fish"} do
      local said, status = run.attune("completion " .. shell)
      assert.same(0, status)
      for _, name in ipairs(commands.order) do
        assert.truthy(said:find("%f[%w]" .. name .. "%f[%W]"), name)
      end
      assert.truthy(said:find "theme")
    end
    local said, status = run.attune "completion tcsh"
    assert.same(2, status)
    assert.truthy(said:find "shell: expected bash, zsh or fish, got 'tcsh'")
  end)
  it("work in bash", function()
    local script = run.script(([[
      source <(%s/attune completion bash)
      try() { COMP_WORDS=(attune "$@"); COMP_CWORD=$#; _attune; echo "${COMPREPLY[*]}"; }
      try rep
      try plot --th
    ]]):format(build))
    local pipe = io.popen("bash " .. script .. " 2>/dev/null")
    assert.same("report repl\n--theme\n", (pipe:read "a":gsub("repl report", "report repl")))
    pipe:close()
    run.remove(script)
  end)
  it("describe every option of every command", function()
    local commands = require "attune.cli.commands"
    local said, status = run.attune "manual"
    assert.same(0, status)
    assert.truthy(said:find "^%.TH ATTUNE 1")
    for _, name in ipairs(commands.order) do
      local of = commands.words(name)
      assert.truthy(said:find(".SS attune " .. name, 1, true), name)
      for _, option in ipairs(of.options) do
        assert.truthy(option.about ~= "", name .. " " .. option.names[1])
        assert.truthy(said:find((option.names[1]:gsub("%-", "\\-")), 1, true), option.names[1])
      end
    end
  end)
end)

describe("every public function", function()
  it("has a description, or the lint fails", function()
    local source = "local m = {}\nfunction m.f() end\n--- Good.\nfunction m.g() end\nreturn m\n"
    local path = run.script(source)
    local said, status = in_folder(".", "tools/documented " .. path)
    assert.same(1, status)
    assert.truthy(said:find(path .. ":2: m.f has no comment", 1, true), said)
    assert.is_nil(said:find("m.g", 1, true))
    said, status = in_folder(".", "tools/documented")
    assert.same(0, status, said)
    run.remove(path)
  end)
end)

describe("a message about an unknown name", function()
  local suggest = require "attune.util.suggest"
  it("suggests a known name that begins or ends like it, else lists all", function()
    assert.equal("did you mean 'rope'?", suggest("Rope", {"none", "rope"}))
    assert.equal("did you mean 'dtype'?", suggest("odtype", {"dtype", "shape"}))
    assert.equal("expected one of html, md, tex", suggest("pdf", {"html", "md", "tex"}))
    assert.equal("expected one of bars, box", suggest("foo", {"bars", "box"}))
  end)
end)
