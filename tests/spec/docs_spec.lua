--- The code in README.md and in the pages of docs runs, and prints what the pages say.
local uv = require "luv"

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "a"
  file:close()
  return text
end

-- Runs code as the file score.lua, in a folder of its own, after the prelude. Returns its output on
-- both streams, and whether it ended without an error.
local function run(code, prelude)
  local folder = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/attune-docs-XXXXXX"))
  local files = {["score.lua"] = code, ["main.lua"] = (prelude or "") .. [[
    local ok, why = pcall(dofile, "score.lua")
    if not ok then print(why) end
    os.exit(ok)]]}
  for name, text in pairs(files) do
    local file = assert(io.open(folder .. "/" .. name, "w"))
    file:write(text)
    file:close()
  end
  local pipe = assert(io.popen(("cd '%s' && lua5.4 main.lua 2>&1"):format(folder)))
  local output = pipe:read "a"
  local ok = pipe:close()
  local left = assert(uv.fs_scandir(folder))
  for name in uv.fs_scandir_next, left do os.remove(folder .. "/" .. name) end
  uv.fs_rmdir(folder)
  return output, ok or false
end

local function pages()
  local list, request = {"README.md", "CONTRIBUTING.md"}, assert(uv.fs_scandir "docs")
  for name in uv.fs_scandir_next, request do
    if name:find "%.md$" then list[#list + 1] = "docs/" .. name end
  end
  table.sort(list)
  return list
end

describe("the code of a page runs:", function()
  for _, page in ipairs(pages()) do
    local code = {}
    -- The blocks of programs.md run below, one by one.
    for block in (page == "docs/programs.md" and "" or read(page)):gmatch "```lua\n(.-)```" do
      if not block:find('require "attune.experiment"', 1, true) then code[#code + 1] = block end
    end
    if #code > 0 then
      it(page, function()
        local output, ok = run(table.concat(code))
        assert.is_true(ok, output)
      end)
    end
  end
end)

-- What the blocks of docs/programs.md use without saying so.
local prelude = [[
attune = require "attune"
q = attune.randn({1, 2, 128, 16}, {seed = 1})
k = attune.randn({1, 2, 128, 16}, {seed = 2})
v = attune.randn({1, 2, 128, 16}, {seed = 3})
d_o = attune.ones {1, 2, 128, 16}
]]

-- Lines may be wrapped, and a gradient's last digits differ between instruction sets.
local function comparable(text)
  local words = {}
  for word in text:gsub("%-?%d+%.%d%d%d+", "NUMBER"):gmatch "%S+" do words[#words + 1] = word end
  return table.concat(words, " ")
end

describe("docs/programs.md shows what its code prints:", function()
  local count = 0
  local pattern = "```lua\n(.-)```\n\ngives\n\n```text\n(.-)```"
  for code, expected in read "docs/programs.md":gmatch(pattern) do
    count = count + 1
    it(("block %d, %s"):format(count, code:match "[^\n]+"), function()
      local output = run(code, prelude)
      assert.same(comparable(expected), comparable(output))
    end)
  end
  it("in eight blocks", function() assert.same(8, count) end)
end)

-- The text of a page without its fenced blocks of code.
local function prose(page) return (read(page):gsub("```.-```", "")) end

-- What a heading is called in a link, as GitHub does it.
local function anchor(heading)
  return (heading:lower():gsub("[^%w%-_ \x80-\xff]", ""):gsub(" ", "-"))
end

local function folder_of(path) return path:match "^(.*/)[^/]*$" or "" end

-- A path without "name/..".
local function resolved(path)
  local before
  repeat
    before, path = path, path:gsub("[^/]+/%.%./", "", 1)
  until before == path
  return path
end

describe("the links of the pages", function()
  -- Calls visit(page, path, anchor) for each link of a page to a file of the project.
  local function each_link(page, visit)
    for target in prose(page):gmatch "%]%(([^)%s]+)%)" do
      if not target:find "^%a+:" then
        local path, name = target:match "^([^#]*)#?(.*)$"
        visit(page, path == "" and page or resolved(folder_of(page) .. path), name)
      end
    end
  end

  it("lead to files and headings that exist", function()
    local missing = {}
    for _, page in ipairs(pages()) do
      each_link(page, function(_, path, name)
        local known = uv.fs_stat(path) ~= nil
        if known and name ~= "" then
          known = false
          for heading in ("\n" .. prose(path)):gmatch "\n#+ ([^\n]*)" do
            known = known or anchor(heading) == name
          end
        end
        if not known then missing[#missing + 1] = ("%s: %s#%s"):format(page, path, name) end
      end)
    end
    assert.same({}, missing)
  end)

  it("lead from the README to every page and to every picture of docs", function()
    local reached, left = {["README.md"] = true}, {"README.md"}
    while #left > 0 do
      each_link(table.remove(left), function(_, path)
        if not reached[path] and path:find "%.md$" then left[#left + 1] = path end
        reached[path] = true
      end)
    end
    local missing, request = {}, assert(uv.fs_scandir "docs")
    for name in uv.fs_scandir_next, request do
      if not reached["docs/" .. name] then missing[#missing + 1] = "docs/" .. name end
    end
    assert.same({}, missing)
  end)
end)

describe("the pages name", function()
  local function missing_of(names, text)
    local missing = {}
    for _, name in ipairs(names) do
      if not text:find(name, 1, true) then missing[#missing + 1] = name end
    end
    table.sort(missing)
    return missing
  end
  local all = {}
  for _, page in ipairs(pages()) do all[#all + 1] = read(page) end
  all = table.concat(all, "\n")

  it("every header of the C library", function()
    local names, request = {}, assert(uv.fs_scandir "core/include/attune")
    for name in uv.fs_scandir_next, request do names[#names + 1] = "`attune/" .. name .. "`" end
    assert.is_true(#names > 10)
    assert.same({}, missing_of(names, read "docs/c-library.md"))
  end)
  it("every command, and every variable of the environment that the manual names", function()
    local names = {}
    for _, name in ipairs(require "attune.cli.commands".order) do
      names[#names + 1] = "attune " .. name
    end
    for name in read "lua/attune/cli/manual.lua":gmatch "%.TP\n(%u+_%u+)\n" do
      names[#names + 1] = "`" .. name
    end
    assert.same({}, missing_of(names, all))
  end)
  it("every function of the library", function()
    local missing, count = {}, 0
    for name, value in pairs(require "attune") do
      if type(name) == "string" and type(value) == "function" and not name:find "^_" then
        count = count + 1
        local known = all:find("attune%." .. name .. "%f[^%w_]")
          or all:find("`" .. name .. "%f[^%w_]")
        if not known then missing[#missing + 1] = name end
      end
    end
    table.sort(missing)
    assert.is_true(count > 30)
    assert.same({}, missing)
  end)
end)

describe("an experiment on a page is accepted:", function()
  local build = os.getenv "ATTUNE_BUILD_DIR" or "build"
  for _, page in ipairs(pages()) do
    -- tests/spec/cookbook_spec.lua runs those of the cookbook.
    for block in (page == "docs/cookbook.md" and "" or read(page)):gmatch "```lua\n(.-)```" do
      if block:find('require "attune.experiment"', 1, true) then
        it(page, function()
          local path = os.tmpname() .. ".lua"
          local file = assert(io.open(path, "w"))
          file:write(block)
          file:close()
          local pipe = assert(io.popen(("%s/attune run %s --dry 2>&1"):format(build, path)))
          local output = pipe:read "a"
          local ok = pipe:close()
          os.remove(path)
          assert.is_true(ok, output)
        end)
      end
    end
  end
end)

describe("the files that the pages name", function()
  local folders = {
    core = true, lua = true, tests = true, tools = true, bench = true, experiments = true,
  }
  it("exist", function()
    local missing = {}
    for _, page in ipairs(pages()) do
      for path in read(page):gmatch "`([%w_]+/[%w_/.*]+)`" do
        local known = folders[path:match "^%w+"]
        local is_pattern = path:find "[*]" or path:find "NAME" or path:find "KIND"
        if known and not is_pattern and not uv.fs_stat(path) then
          missing[#missing + 1] = page .. ": " .. path
        end
      end
    end
    assert.same({}, missing)
  end)
end)

describe("make help", function()
  it("prints all its lines", function()
    local pipe = assert(io.popen "MAKEFLAGS= make -s help 2>&1")
    local said = pipe:read "a"
    assert.is_true(pipe:close(), said)
    assert.truthy(said:find("\nmake clean", 1, true))
  end)
end)
