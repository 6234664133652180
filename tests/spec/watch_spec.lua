local curves = require "attune.report.curves"
local data = require "attune.data"
local nn = require "attune.nn"
local run = require "tests.support.run"
local train = require "attune.train"
local build = os.getenv "ATTUNE_BUILD_DIR" or "build"

local folder
before_each(function() folder = run.empty_folder() end)
after_each(function() run.remove(folder) end)

local function write(path, content)
  local file = assert(io.open(path, "w"))
  file:write(content)
  file:close()
end

local function read(path)
  local file = assert(io.open(path))
  local content = file:read "a"
  file:close()
  return content
end

local function watch(arguments)
  local pipe = io.popen(("%s/attune watch %s 2>&1; echo $?"):format(build, arguments))
  local said = pipe:read "a"
  pipe:close()
  return said:match "^(.-)%s*(%d+)%s*$"
end

local function train_one(dir, steps)
  local options = {
    model = nn.Decoder {vocab = 8, d_model = 8, layers = 1, heads = 1, seed = 1},
    data = data.task("copy", {vocab = 8, tokens = 6, seed = 1}), batch = 4, steps = steps,
    log = false, checkpoint = {dir = dir, every = 2},
    validate = {data = data.task("copy", {vocab = 8, tokens = 6, seed = 2}), every = 2, batch = 4,
      batches = 1},
  }
  return assert(train.run(options))
end

describe("attune watch", function()
  it("draws a curve per run, and dots where it was validated", function()
    local result = train_one(folder .. "/seed1", 4)
    train_one(folder .. "/deep/seed2", 4)
    local said, status = watch(folder .. " --once")
    assert.equal("0", status)
    assert.truthy(said:find("watch.html", 1, true))
    local page = read(folder .. "/watch.html")
    local _, lines = page:gsub("<polyline", "")
    local _, dots = page:gsub("<circle", "")
    assert.equal(2, lines)
    assert.equal(4, dots)
    assert.truthy(page:find("seed1", 1, true))
    assert.truthy(page:find("deep/seed2", 1, true))
    assert.truthy(page:find("4 / 4", 1, true))
    assert.truthy(page:find(("%.4f"):format(result.losses[4]), 1, true))
    assert.truthy(page:find('http-equiv="refresh"', 1, true))
    assert.is_nil(page:find("<script", 1, true))
  end)

  it("keeps one line per step when a run goes on", function()
    train_one(folder .. "/run", 4)
    train_one(folder .. "/run", 6)
    local runs = curves.read(folder)
    assert.equal(1, #runs)
    for k, point in ipairs(runs[1].losses) do assert.equal(k, point[1]) end
    assert.equal(6, #runs[1].losses)
    assert.equal(3, #runs[1].validation)
  end)

  it("takes torn and foreign lines, hostile names, and folders without runs", function()
    os.execute("mkdir -p '" .. folder .. "/<b>&'")
    write(folder .. "/<b>&/losses.jsonl", table.concat({
      '{"step":1,"loss":2}', "[]", "no json", '{"step":"x","loss":1}', '{"step":2,"loss":"NaN"}',
      '{"step":3,"loss":1.5,"validation":1.25}', '{"step":4,"lo',
    }, "\n"))
    local runs = curves.read(folder)
    assert.same({{1, 2}, {3, 1.5}}, runs[1].losses)
    assert.same({{3, 1.25}}, runs[1].validation)
    local page = curves.page(folder, runs, 5)
    assert.is_nil(page:find("<b>", 1, true))
    assert.truthy(page:find("&lt;b&gt;&amp;", 1, true))
    assert.truthy(curves.page("x", {}, 5):find("No run", 1, true))
  end)

  it("shows a long run with few points", function()
    local lines = {}
    for k = 1, 5000 do lines[k] = ('{"step":%d,"loss":%g}'):format(k, 5000 / k) end
    os.execute("mkdir " .. folder .. "/long")
    write(folder .. "/long/losses.jsonl", table.concat(lines, "\n"))
    assert.is_true(#curves.page(folder, curves.read(folder), 5) < 20000)
  end)

  it("ends with 2 for what is no folder, and for a wrong pause", function()
    assert.equal("2", select(2, watch(folder .. "/none --once")))
    assert.equal("2", select(2, watch(folder .. " --every 0")))
  end)
end)
