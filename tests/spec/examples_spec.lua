-- Compiles every C example against the static library and runs every example.
local build = os.getenv "ATTUNE_BUILD_DIR" or "build"
local LIBRARIES = "-lblis -ljansson -lm -pthread"
local WARNINGS = "-std=c11 -Wall -Wextra -Werror"
local MAX_LINES = 40

local function run(command)
  local pipe = assert(io.popen("{ " .. command .. "; } 2>&1"))
  local output = pipe:read "a"
  local ok = pipe:close()
  return ok, output
end

local function examples(extension)
  local _, output = run("ls examples/*." .. extension)
  local list = {}
  for path in output:gmatch "%S+" do list[#list + 1] = path end
  return list
end

describe("the examples", function()
  local sanitizer = build:match "san%-([%w-]+)$"
  local flags = sanitizer and " -fsanitize=" .. sanitizer:gsub("%-", ",")
    or build:find "coverage$" and " --coverage" or ""

  it("are at least three in C and five in Lua, each short", function()
    assert.is_true(#examples "c" >= 3)
    assert.is_true(#examples "lua" >= 5)
    for _, extension in ipairs {"c", "lua"} do
      for _, path in ipairs(examples(extension)) do
        local lines = 0
        for _ in io.lines(path) do lines = lines + 1 end
        assert.is_true(lines < MAX_LINES, path .. " has " .. lines .. " lines")
      end
    end
  end)
  for _, path in ipairs(examples "c") do
    it("run: " .. path, function()
      local program = os.tmpname()
      local compile = ("gcc %s%s -Icore/include %s %s/libattune.a %s -o %s")
        :format(WARNINGS, flags, path, build, LIBRARIES, program)
      local ok, output = run(compile .. " && " .. program)
      os.remove(program)
      assert.is_true(ok, output)
      assert.truthy(output:find "%S")
    end)
  end
  for _, path in ipairs(examples "lua") do
    it("run: " .. path, function()
      local experiment = assert(io.open(path)):read "a":find("attune.experiment", 1, true)
      local folder = os.tmpname()
      os.remove(folder)
      local command = "lua5.4 " .. path
      if experiment then
        command = ("%s/attune run %s --quick --out %s"):format(build, path, folder)
      end
      local ok, output = run(command)
      os.execute("rm -rf " .. folder)
      assert.is_true(ok, output)
      assert.truthy(output:find "%S")
    end)
  end
end)
