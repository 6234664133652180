local files = require "attune.util.files"
local run = require "tests.support.run"
local text = require "attune.util.text"
local uv = require "luv"

local with_folder = run.with_folder

local function mode(path) return uv.fs_stat(path).mode & 511 end

describe("files", function()
  it("are replaced whole, keep their mode, and leave no temporary file", function()
    with_folder(function(folder)
      local path = folder .. "/a"
      assert(files.write(path, "one"))
      assert.same(420, mode(path))
      assert(uv.fs_chmod(path, 384))
      for _, write in ipairs {files.write, files.save} do
        assert(write(path, "two"))
        assert.same("two", files.read(path))
        assert.same(384, mode(path))
      end
      assert.same({"a"}, files.list(folder))
    end)
  end)
  it("that attune names replace a link; those that the user names write its target", function()
    with_folder(function(folder)
      local path, victim = folder .. "/link", folder .. "/victim"
      assert(files.write(victim, "old"))
      assert(uv.fs_symlink("victim", path))
      assert(files.save(path, "by save"))
      assert.same("link", files.kind_inside(path))
      assert.same("by save", files.read(victim))
      assert(files.write(path, "by write"))
      assert.same("file", files.kind_inside(path))
      assert.same("by save", files.read(victim))
      assert.is_nil((files.save("", "x")))
      -- A link whose target does not exist yet, and a link that leads to itself.
      assert(uv.fs_symlink("new", folder .. "/dangling"))
      assert(files.save(folder .. "/dangling", "x"))
      assert.same("x", files.read(folder .. "/new"))
      assert(uv.fs_symlink("loop", folder .. "/loop"))
      local ok, why = files.save(folder .. "/loop", "x")
      assert.is_nil(ok)
      assert.truthy(why:find "links" or why:find "ELOOP", why)
    end)
  end)
  it("are never written over a device, a FIFO or a folder", function()
    with_folder(function(folder)
      assert(os.execute("mkfifo " .. folder .. "/fifo"))
      for path, got in pairs {
        ["/dev/null"] = "a device", [folder .. "/fifo"] = "a FIFO", [folder] = "a folder",
      } do
        for _, write in ipairs {files.write, files.save} do
          local ok, why = write(path, "x")
          assert.is_nil(ok)
          assert.truthy(why:find("expected a file, got " .. got, 1, true), why)
        end
        local content, why = files.read(path)
        assert.is_nil(content)
        assert.truthy(why:find("got " .. got, 1, true), why)
      end
    end)
  end)
  it("inside a folder of results are never read or made through a link", function()
    with_folder(function(folder)
      assert(files.write(folder .. "/a", "a"))
      assert(uv.fs_symlink("a", folder .. "/b"))
      assert(uv.fs_symlink("/tmp", folder .. "/c"))
      assert.same("a", files.read_inside(folder .. "/a"))
      assert.is_nil((files.read_inside(folder .. "/b")))
      local ok, why = files.make_folder_inside(folder .. "/c")
      assert.is_nil(ok)
      assert.truthy(why:find "symbolic link")
    end)
  end)
  it("and folders are made by two processes at once", function()
    with_folder(function(folder)
      local mkdir = uv.fs_mkdir
      uv.fs_mkdir = function(path, bits)
        assert(mkdir(path, bits)) -- the other process
        return mkdir(path, bits)
      end
      local inside = table.pack(pcall(files.make_folder_inside, folder .. "/a"))
      local outside = table.pack(pcall(files.make_folder, folder .. "/b"))
      uv.fs_mkdir = mkdir
      assert.same({true, true}, {inside[1], inside[2]})
      assert.same({true, true}, {outside[1], outside[2]})
    end)
  end)
  it("are read up to a limit", function()
    with_folder(function(folder)
      assert(files.write(folder .. "/a", ("x"):rep(100)))
      assert.same(100, #files.read(folder .. "/a", 100))
      local content, why = files.read(folder .. "/a", 99)
      assert.is_nil(content)
      assert.truthy(why:find "at most 99 bytes")
    end)
  end)
  it("that are temporary have different names and are cleared once their process ended", function()
    with_folder(function(folder)
      local fd, a = files.temporary(folder, ".svg")
      uv.fs_close(fd)
      local _, b = files.temporary(folder, ".svg")
      assert.not_same(a, b)
      assert.truthy(a:find "%.svg$" and files.is_temporary(a:match "[^/]+$"))
      assert(files.write(folder .. "/.attune-999999999-0123456789abcdef.svg", "left"))
      assert(files.write(folder .. "/kept", "kept"))
      files.clear_temporaries(folder)
      assert.same(3, #files.list(folder))
    end)
  end)
end)

describe("files.capture", function()
  it("gives the first line of a program that no shell starts", function()
    assert.same("a;touch $(b) 'c'", files.capture {"printf", "%s\nmore", "a;touch $(b) 'c'"})
    assert.is_nil(files.capture {"true"})
    assert.is_nil(files.capture {"attune-no-such-program"})
  end)
end)

describe("printable text", function()
  it("escapes control characters, reordering and bytes that are not UTF-8", function()
    for given, expected in pairs {
      ["plain µ 漢"] = "plain µ 漢",
      ["\27[31mred\7"] = "\\x1b[31mred\\x07",
      ["a\nb\tc\r"] = "a\\nb\\tc\\r",
      ["\u{9b}31m"] = "\\u{9b}31m",
      ["\u{202e}txt"] = "\\u{202e}txt",
      ["\xff\x80\xc3"] = "\\xff\\x80\\xc3",
      ["\127\0"] = "\\x7f\\x00",
    } do
      assert.same(expected, text.printable(given))
      assert.same(expected, text.printable(text.printable(given)))
    end
    assert.same("a\nb\\x1b", text.printable("a\nb\27", "\n"))
    assert.same("nil", text.printable(nil))
  end)
  it("is what the cells of a table show", function()
    local lines = text.columns({{"a\27"}}, {{"b\nc"}})
    for _, line in ipairs(lines) do assert.is_nil(line:find "%c") end
  end)
end)

describe("a shell", function()
  it("reads quoted words back unchanged", function()
    for _, word in ipairs {"a", "a b", "it's", "$(x)`y`;|&", "-n", "", "a\nb\27'\\", "é"} do
      local quoted = text.shell_word(word)
      assert.is_nil(quoted:find "%c")
      local pipe = io.popen("bash -c " .. text.shell_quote("printf %s " .. quoted))
      assert.same(word, pipe:read "a")
      pipe:close()
    end
  end)
end)

describe("the core's descriptors", function()
  local core = require "attune.core"
  it("lock a folder for one holder until it is closed", function()
    with_folder(function(folder)
      local fd = assert(core._lock_folder(folder))
      local second, _, code = core._lock_folder(folder)
      assert.is_nil(second)
      assert.same("busy", code)
      uv.fs_close(fd)
      uv.fs_close(assert(core._lock_folder(folder)))
      assert.is_nil((core._lock_folder(folder .. "/none")))
    end)
  end)
  it("are not inherited after _close_on_exec", function()
    local file = assert(io.open("/dev/null"))
    local function inherited()
      local pipe = io.popen "ls -l /proc/self/fd"
      local list = pipe:read "a"
      pipe:close()
      return select(2, list:gsub("/dev/null", ""))
    end
    local before = inherited()
    core._close_on_exec()
    assert.is_true(inherited() < before)
    file:close()
  end)
end)
