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
