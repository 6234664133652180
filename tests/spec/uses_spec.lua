-- An experiment that uses another one's results and the files that its trials kept.
local files = require "attune.util.files"
local run = require "tests.support.run"
local store = require "attune.results.store"
local uv = require "luv"

local attune = os.getenv "ATTUNE_BUILD_DIR" or "build"
attune = (attune:sub(1, 1) == "/" and attune or uv.cwd() .. "/" .. attune) .. "/attune"

local train = [[return require "attune.experiment" {name = "train", timing = false, rounds = 1,
  grid = {width = {1, 2}}, trial = function(p, t)
    local file = assert(io.open(t:file "model.txt", "w"))
    file:write("model ", p.width)
    file:close()
    return {loss = p.width / 10}
  end}]]
local speed = [[return require "attune.experiment" {name = "speed", timing = false, rounds = 2,
  uses = {"train"}, grid = {width = {1, 2}}, trial = function(p, t)
    local trained = t:use("train", {width = p.width})
    local file = assert(io.open(trained:file "model.txt"))
    assert(file:read "a" == "model " .. p.width)
    file:close()
    return {loss = trained.metrics.loss, its_width = trained.parameters.width}
  end}]]

local function folder_with(scripts)
  local folder = run.folder()
  assert(files.make_folder(folder))
  for name, text in pairs(scripts) do assert(files.write(folder .. "/" .. name, text)) end
  return folder
end

local function attune_in(folder, words)
  local pipe = io.popen(("cd %s && %s %s 2>&1; echo \"exit $?\""):format(folder, attune, words))
  local said, status = pipe:read "a":match "^(.-)exit (%d+)%s*$"
  pipe:close()
  return said, math.tointeger(tonumber(status))
end

describe("an experiment that uses another one", function()
  it("runs it once, and finds its points and files", function()
    local folder = folder_with {["train.lua"] = train, ["speed.lua"] = speed}
    local said, status = attune_in(folder, "run speed.lua")
    assert.same(0, status, said)
    assert.truthy(said:find "speed uses train, in results/train", said)
    local points = assert(store.read(folder .. "/results/speed")).points
    assert.same({0.1, 0.2}, {points[1].metrics.loss.centre, points[2].metrics.loss.centre})
    assert.same(2, #(store.records(folder .. "/results/train")))
    attune_in(folder, "run speed.lua --rounds 3")
    assert.same(2, #(store.records(folder .. "/results/train")))
    assert.same(6, #(store.records(folder .. "/results/speed")))
    run.remove(folder)
  end)
  it("names a parameter that the other one does not have", function()
    local wrong = speed:gsub("{width = p.width}", "{widht = p.width}")
    local folder = folder_with {["train.lua"] = train, ["speed.lua"] = wrong}
    local said, status = attune_in(folder, "run speed.lua")
    assert.same(1, status)
    assert.matches("speed.lua:3: use: 'train': unknown parameter 'widht': did you mean 'width'?",
      said, 1, true)
    run.remove(folder)
  end)
  it("keeps it in its own folder with --out, and measures again when it changes", function()
    local folder = folder_with {["train.lua"] = train, ["speed.lua"] = speed}
    assert.same(0, select(2, attune_in(folder, "run speed.lua --out here")))
    assert.is_nil(files.kind(folder .. "/results"))
    assert.same(2, #assert(store.read(folder .. "/here/uses/train")).points)
    assert(files.write(folder .. "/train.lua", (train:gsub("p.width / 10", "p.width / 5"))))
    local said, status = attune_in(folder, "run speed.lua --out here --keep --rounds 3")
    assert.same(0, status, said)
    assert.same(2, #(store.records(folder .. "/here/uses/train")))
    assert.same(0.1, assert(store.read(folder .. "/here")).points[1].metrics.loss.centre)
    said, status = attune_in(folder, "run speed.lua --out here")
    assert.same(0, status, said)
    assert.truthy(said:find "2 points to be measured again", said)
    local points = assert(store.read(folder .. "/here")).points
    assert.same(0.2, points[1].metrics.loss.centre)
    assert.truthy(attune_in(folder, "gc here/uses/train"):find "2 files that trials")
    assert.same(0, select(2, attune_in(folder, "run speed.lua --out here --rounds 3")))
    run.remove(folder)
  end)
  it("follows no link in a folder of results when it keeps a file", function()
    local folder = folder_with {["train.lua"] = train, ["mine.txt"] = "mine"}
    assert.same(0, select(2, attune_in(folder, "run train.lua --out here")))
    local name = files.list(folder .. "/here/files")[1]
    local kept = ("%s/here/files/%s/model.txt"):format(folder, name)
    os.remove(kept)
    assert(uv.fs_symlink(folder .. "/mine.txt", kept))
    assert.same(0, select(2, attune_in(folder, "run train.lua --out here --fresh")))
    assert.same("mine", files.read(folder .. "/mine.txt"))
    assert.same("file", files.kind_inside(kept))
    os.execute(("rm -r %s/here/files && ln -s %s %s/here/files"):format(folder, folder, folder))
    local said, status = attune_in(folder, "run train.lua --out here --fresh")
    assert.same(2, status, said)
    assert.truthy(said:find "here/files: expected a folder, got a link", said)
    run.remove(folder)
  end)
  it("finds the file of a seed, and --set reaches what is used", function()
    local folder = folder_with {
      ["train.lua"] = [[return require "attune.experiment" {name = "train", timing = false,
        grid = {width = {1, 2}}, fixed = {size = "large"}, seeds = {1, 2, 3},
        trial = function(p, t)
          local file = assert(io.open(t:file "model.txt", "w"))
          file:write(p.size, " ", p.width, " ", p.seed)
          file:close()
          return {loss = p.width}
        end}]],
      ["speed.lua"] = [[return require "attune.experiment" {name = "speed", timing = false,
        uses = {"train"}, fixed = {size = "large", other = 1}, seeds = {2, 3},
        trial = function(p, t)
          local trained = t:use("train", {width = 2, size = p.size})
          local file = assert(io.open(trained:file("model.txt", p.seed)))
          local text = file:read "a"
          file:close()
          assert(text == p.size .. " 2 " .. p.seed, text)
          local ok, why = pcall(trained.file, trained, "model.txt", 4)
          assert(not ok and why:find "expected a file 'model.txt'", why)
          return {loss = 1}
        end}]],
    }
    local said, status = attune_in(folder, "run speed.lua --set size=small,other=2,seed=3")
    assert.same(0, status, said)
    local points = assert(store.read(folder .. "/results/train")).points
    assert.same({"small", "small"}, {points[1].parameters.size, points[2].parameters.size})
    assert.same(3, points[1].rounds)
    run.remove(folder)
  end)
  it("says what is wrong", function()
    local folder = folder_with {
      ["a.lua"] = 'return require "attune.experiment" {name = "a", uses = {"b"}, fixed = {x = 1}, '
        .. "trial = print}",
      ["b.lua"] = 'return require "attune.experiment" {name = "b", uses = {"a"}, fixed = {x = 1}, '
        .. "trial = print}",
      ["c.lua"] = 'return require "attune.experiment" {name = "c", uses = {"none"}, '
        .. "fixed = {x = 1}, trial = print}",
      ["train.lua"] = train,
      ["d.lua"] = 'return require "attune.experiment" {name = "d", uses = {"train"}, rounds = 1, '
        .. [[grid = {x = {1, 2, 3, 4}}, timing = false, trial = function(p, t)
          if p.x == 1 then t:use "train" end
          if p.x == 2 then t:use "other" end
          if p.x == 3 then t:use("train", {width = 1}):file "none" end
          t:file "../x"
        end}]],
    }
    local said, status = attune_in(folder, "run a.lua")
    assert.same(2, status)
    assert.truthy(said:find "dependency cycle: a, b, a", said)
    said, status = attune_in(folder, "run c.lua")
    assert.same(2, status)
    assert.truthy(said:find "uses: none: .*none.lua", said)
    said, status = attune_in(folder, "run d.lua")
    assert.same(1, status)
    for _, pattern in ipairs {
      "expected one point of 'train' with these parameters that ended ok, got 2",
      "expected an experiment of the field `uses`, got 'other'", "expected a file 'none'",
      "file: expected a name of letters",
    } do
      assert.truthy(said:find(pattern, 1, true), pattern .. said)
    end
    run.remove(folder)
  end)
end)

describe("the script in a folder of results", function()
  it("names its original where modules or used experiments are not beside it", function()
    local folder = folder_with {
      ["train.lua"] = train, ["speed.lua"] = speed, ["half.lua"] = "return 2",
      ["m.lua"] = 'local half = require "half"\n'
        .. (train:gsub('"train"', '"m"'):gsub("p.width / 10", "p.width / half")),
    }
    os.execute(("cd '%s' && mkdir exp && mv *.lua exp"):format(folder))
    assert.same(0, select(2, attune_in(folder, "run exp/speed.lua")))
    assert.same(0, select(2, attune_in(folder, "run exp/m.lua")))
    local said, status = attune_in(folder, "run results/m/script.lua --out again")
    assert.same({"attune run: results/m/script.lua:1: module 'half' not found in its folder "
      .. "(results/m), nor where Lua looks; results/m/script.lua is a copy, whose modules and used "
      .. "experiments are beside the original, exp/m.lua: run that\n", 2}, {said, status})
    said, status = attune_in(folder, "run results/speed/script.lua --out other")
    assert.same(2, status)
    assert.matches("uses: train: expected its script, results/speed/train.lua, got nothing; "
      .. "results/speed/script.lua is a copy, whose", said, 1, true)
    os.remove(folder .. "/exp/half.lua")
    said, status = attune_in(folder, "run exp/m.lua")
    assert.same({"attune run: exp/m.lua:1: module 'half' not found in its folder (exp), nor where "
      .. "Lua looks\n", 2}, {said, status})
    run.remove(folder)
  end)
end)
