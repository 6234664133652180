--- make install into a folder of its own.
local files = require "attune.util.files"
local run = require "tests.support.run"
local uv = require "luv"

local build = uv.fs_realpath(os.getenv "ATTUNE_BUILD_DIR" or "build")
local in_folder = run.in_folder

local empty_folder = run.empty_folder

describe("attune, installed,", function()
  it("runs from an empty folder, without the source tree", function()
    local prefix, folder = run.folder(), empty_folder()
    local install = ("make -o all install PREFIX='%s' BUILD='%s' >/dev/null"):format(prefix, build)
    local said, status = in_folder(".", install)
    assert.same(0, status, said)
    local clean = ("env -i PATH='%s/bin:/usr/bin:/bin' HOME='%s' "):format(prefix, folder)
    for _, name in ipairs {"LD_PRELOAD", "ASAN_OPTIONS"} do -- of a build with sanitizers
      local value = os.getenv(name)
      if value then clean = clean .. ("%s='%s' "):format(name, value) end
    end
    said, status = in_folder(folder, clean .. "attune list")
    assert.same(0, status, said)
    assert.truthy(said:find(prefix .. "/share/attune/experiments/", 1, true), said)
    local new_and_run = "attune new e && %sattune run e.lua --quick"
    said, status = in_folder(folder, clean .. new_and_run:format(clean))
    assert.same(0, status, said)
    assert.truthy(files.kind(folder .. "/results/e/plots/01-seconds.svg"))
    local plain = 'sh -c \'eval "$(attune env)" && lua5.4 -e "print(require [[attune]].version)"\''
    said, status = in_folder(folder, clean .. plain)
    assert.same(0, status, said)
    for _, path in ipairs {
      "share/man/man1/attune.1", "share/bash-completion/completions/attune",
      "share/zsh/site-functions/_attune", "share/fish/vendor_completions.d/attune.fish",
    } do
      assert.is_true(#files.read(prefix .. "/" .. path) > 1000, path)
    end
    said, status = in_folder(".", install:gsub("install", "uninstall", 1))
    assert.same(0, status, said)
    local left = io.popen(("find '%s' -type f"):format(prefix)):read "a"
    assert.same("", left)
    run.remove(prefix, folder)
  end)
end)
