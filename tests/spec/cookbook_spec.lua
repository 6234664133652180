--- Runs the recipes of docs/cookbook.md: in each section the Lua blocks, whose first line names
--- their file, are written into a folder, and then the sh blocks run. Where these use git, the
--- folder is a repository with two commits. Slurm is what tests/support/slurm has in its place.
local files = require "attune.util.files"
local run = require "tests.support.run"
local uv = require "luv"

local max_lines = 20
local build = os.getenv "ATTUNE_BUILD_DIR" or "build"
local page = files.read "docs/cookbook.md"

-- {title, scripts = {{name, text}}, commands = text} of each section.
local function sections()
  local list, current = {}, nil
  local block, kind
  for line in (page .. "\n"):gmatch "(.-)\n" do
    if block and line == "```" then
      if kind == "lua" then
        current.scripts[#current.scripts + 1] = {block[1]:match "^%-%- ([%w_]+%.lua)$", block}
      elseif kind == "sh" then
        current.commands[#current.commands + 1] = block
      end
      block = nil
    elseif block then
      block[#block + 1] = line
    elseif line:find "^```" then
      block, kind = {}, line:match "^```(%w*)"
    elseif line:find "^## " then
      current = {title = line:sub(4), scripts = {}, commands = {}}
      list[#list + 1] = current
    end
  end
  return list
end

-- The output and the exit status of shell commands in a folder.
local function shell(dir, commands)
  local path = ("'%s':'%s'"):format(uv.fs_realpath(build), uv.fs_realpath "tests/support/slurm")
  local words = "cd '%s' && FAKE_SLURM='%s' PATH=%s:$PATH sh -ec '%s' 2>&1 </dev/null; "
    .. 'echo "exit $?"'
  local pipe = io.popen(words:format(dir, dir, path, commands:gsub("'", "'\\''")))
  local text = pipe:read "a"
  pipe:close()
  return text, math.tointeger(tonumber(text:match "exit (%d+)%s*$"))
end

local commit = "git add . && git -c user.name=t -c user.email=t@t commit -q --allow-empty -m t"

describe("the recipe", function()
  for _, section in ipairs(sections()) do
    it(("'%s' runs"):format(section.title), function()
      local dir = run.folder()
      assert(files.make_folder(dir))
      for _, script in ipairs(section.scripts) do
        assert.is_string(script[1], "the first line of a script names its file: -- name.lua")
        assert.is_true(#script[2] <= max_lines)
        assert(files.write(dir .. "/" .. script[1], table.concat(script[2], "\n") .. "\n"))
      end
      local said, status
      for _, commands in ipairs(section.commands) do
        local text = table.concat(commands, "\n")
        if text:find "git " and not files.kind(dir .. "/.git") then
          said, status = shell(dir, ("git init -q . && %s && %s"):format(commit, commit))
          assert.same(0, status, said)
        end
        assert.is_true(#commands <= max_lines)
        said, status = shell(dir, text)
        assert.same(0, status, said)
      end
      run.remove(dir)
    end)
  end
end)
