--- What each kind of chart draws, read from the data beside the figure, and attune plot.
local files = require "attune.util.files"
local gnuplot = require "attune.plot.gnuplot"
local made_results = require "tests.support.made_results"
local plot = require "attune.plot"
local run = require "tests.support.run"

local results = made_results.results

-- The blocks of a figure's data without comments: rows of fields.
local function blocks_of(figure)
  local blocks = {}
  for block in (figure.data .. "\n\n"):gmatch "(.-)\n\n\n?" do
    local rows = {}
    for line in block:gmatch "[^\n]+" do
      if not line:find "^#" then
        local row = {}
        for field in line:gmatch "[^\t]+" do row[#row + 1] = tonumber(field) or field end
        rows[#rows + 1] = row
      end
    end
    if #rows > 0 then blocks[#blocks + 1] = rows end
  end
  return blocks
end

local function figure_of(points, spec)
  local r = results(points, {spec})
  r.metrics = {{name = "y", unit = "s", better = "lower"}, {name = "z", better = "higher"}}
  local figure, why = plot.figure(r, 1)
  return figure and blocks_of(figure), why, figure
end

-- Points with y and z, one value each.
local function points_of(list)
  local points = {}
  for i, yz in ipairs(list) do points[i] = {{a = i, m = "x"}, {y = yz[1], z = yz[2]}} end
  return points
end

local function xy(rows)
  local list = {}
  for i, row in ipairs(rows) do list[i] = {row[1], row[2]} end
  return list
end

describe("a scatter chart", function()
  it("has room for the title of its panel, also of the only one", function()
    local points = points_of {{1, 5}, {3, 2}}
    local function figure(facet)
      return select(3, figure_of(points, {
        kind = "scatter", x = "y", y = "z", by = "a", facet = facet, title = "t",
      }))
    end
    local plain, titled = figure(nil), figure "m"
    -- The condition m = x moves from the head, a row of 0.2 inches, to the panel.
    assert.near(0.3 - 0.2, titled.size.height - plain.size.height, 1e-9)
  end)
  it("has a mark per point, of two metrics", function()
    local blocks = assert(figure_of(points_of {{1, 5}, {3, 2}, {2, 9}},
      {kind = "scatter", x = "y", y = "z"}))
    assert.same({{{1, 5}, {2, 9}, {3, 2}}}, {xy(blocks[1])})
  end)
  it("has a place for each text, and counts what a logarithmic axis cannot show", function()
    local points = {{{a = 1, m = "p"}, {y = 0}}, {{a = 1, m = "q"}, {y = 2}}}
    local blocks, _, figure = figure_of(points, {kind = "scatter", x = "m", y = "y", log = "y"})
    assert.same({{2, 2}}, xy(blocks[1]))
    local note = "1 point with a y of 0 or less is not shown on the logarithmic axis."
    assert.same({note}, figure.notes)
  end)
  it("names marks where there is room", function()
    local _, _, figure = figure_of(points_of {{1, 5}, {3, 2}, {1.0001, 5}},
      {kind = "scatter", x = "y", y = "z", label = "a"})
    assert.truthy(figure.script:find("\u{E000}2'", 1, true))
  end)
end)

describe("a Pareto front", function()
  it("has the marks that no other is better than, each direction as declared", function()
    -- y: lower is better, z: higher is better.
    local blocks = assert(figure_of(points_of {{1, 1}, {2, 3}, {3, 2}, {4, 4}, {2, 2}, {5, 4}},
      {kind = "pareto", x = "y", y = "z"}))
    assert.same({{1, 1}, {2, 3}, {4, 4}}, xy(blocks[1]))
    assert.same({{2, 2}, {3, 2}, {5, 4}}, xy(blocks[2]))
  end)
  it("keeps equal marks, and has one front per value of by", function()
    local points = {{{a = 1, m = "p"}, {y = 1, z = 1}}, {{a = 2, m = "p"}, {y = 1, z = 1}},
      {{a = 1, m = "q"}, {y = 9, z = 1}}}
    local blocks = assert(figure_of(points, {kind = "pareto", x = "y", y = "z", by = "m"}))
    assert.same({{{1, 1}, {1, 1}}, {{9, 1}}}, {xy(blocks[1]), xy(blocks[2])})
  end)
end)

describe("a roofline", function()
  it("has a roof that bends where bandwidth and peak meet", function()
    local blocks = assert(figure_of(points_of {{1, 10}, {100, 50}},
      {kind = "roofline", x = "y", y = "z", peak = 80, bandwidth = 8}))
    local roof = blocks[1]
    assert.same({{10, 80}}, {xy(roof)[2]})
    assert.near(8 * roof[1][1], roof[1][2], 1e-9)
    assert.same(80.0, roof[3][2])
    assert.same({{1, 10}, {100, 50}}, xy(blocks[2]))
  end)
  it("takes a limit from a metric, and says which one it lacks", function()
    local points = points_of {{1, 10}, {2, 20}}
    local spec = {kind = "roofline", x = "y", y = "z", peak = "z", bandwidth = 8}
    assert(figure_of(points, spec))
    spec.peak = "w"
    local _, why = figure_of(points, spec)
    assert.same("peak: expected a number or a metric of the results, got 'w'", why)
  end)
end)

describe("a distribution of samples", function()
  it("is a staircase of fractions, with one step for equal samples", function()
    local points = {{{a = 1, m = "x"}, {y = {1, 2, 2, 4}}}}
    local blocks = assert(figure_of(points, {kind = "ecdf", y = "y"}))
    assert.same({{1, 0}, {1, 0.25}, {2, 0.75}, {4, 1}}, xy(blocks[1]))
  end)
  it("is a box of quartiles with whiskers and the samples beyond", function()
    local points = {{{a = 1, m = "x"}, {y = {1, 2, 3, 4, 5, 6, 7, 8, 9, 30}}}}
    local blocks = assert(figure_of(points, {kind = "box", x = "a", y = "y"}))
    -- Quantiles of type 7: 3.25, 5.5, 7.75; the fence is at 14.5.
    assert.same({1, 3.25, 5.5, 7.75, 9}, {table.unpack(blocks[1][1], 5, 9)})
    assert.same({{1, 30}}, xy(blocks[2]))
  end)
  it("wants one point per curve and box", function()
    local points = {{{a = 1, m = "x"}, {y = 1}}, {{a = 1, m = "z"}, {y = 1}}}
    for _, spec in ipairs {{kind = "ecdf", y = "y"}, {kind = "box", x = "a", y = "y"}} do
      local _, why = figure_of(points, spec)
      assert.truthy(why:find "got 2 for .* which differ in m: narrow them with where, or set by")
    end
  end)
end)

describe("a curve of a list", function()
  local function with_lists(lists, xs)
    local r = results({{{a = 1, m = "x"}, {y = {1, 2}, z = 1}}}, {})
    r.points[1].metrics.y.samples = lists
    if xs then r.points[1].metrics.z.samples = {xs} end
    return r
  end
  it("has the mean of the rounds at each place, with an interval as a band", function()
    local r = with_lists {{3, 2, 1}, {5, 2, 1}}
    local figure = assert(plot.figure_of(r, {kind = "line", along = "step", y = "y"}, 1))
    local rows = blocks_of(figure)[1]
    assert.same({{1, 4}, {2, 2}, {3, 1}}, xy(rows))
    assert.is_true(rows[1][3] < 4 and rows[1][4] > 4)
    assert.truthy(figure.script:find "filledcurves")
  end)
  it("has its places from a metric with a list of the same length", function()
    local r = with_lists({{3, 2, 1}, {3, 2, 1}}, {10, 20, 30})
    local spec = {kind = "line", x = "z", y = "y"}
    assert.same({{10, 3}, {20, 2}, {30, 1}}, xy(blocks_of(assert(plot.figure_of(r, spec, 1)))[1]))
    r.points[1].metrics.z.samples = {{1, 2}}
    local _, why = plot.figure_of(r, spec, 1)
    assert.same("z: expected as many numbers as y has, 3, got 2", why)
  end)
  it("of many numbers is averaged, and the figure says so", function()
    local list = {}
    for i = 1, 1000 do list[i] = i end
    local spec = {kind = "line", along = "i", y = "y"}
    local figure = assert(plot.figure_of(with_lists {list}, spec, 1))
    local rows = blocks_of(figure)[1]
    assert.same(334, #rows)
    assert.same({2, 2}, {rows[1][1], rows[1][2]})
    assert.same({"Each place of a curve is the mean of 3 numbers."}, figure.notes)
  end)
end)

describe("small multiples", function()
  -- Two values of m; at m = w the values are ten times as large, and a = 2 is missing.
  local points = {
    {{a = 1, m = "v"}, {y = 1, z = 5}}, {{a = 2, m = "v"}, {y = 2, z = 6}},
    {{a = 1, m = "w"}, {y = 10, z = 7}},
  }

  it("of bars have the same axes, and a title each", function()
    local blocks, _, figure = figure_of(points, {kind = "bars", x = "a", y = "y", facet = "m"})
    assert.same(4, #blocks) -- bars and labels of two panels
    assert.same({1, 2}, {blocks[1][1][3], blocks[1][2][3]})
    assert.same({{1, 0, 10, "NaN", "NaN"}}, blocks[3])
    local _, ranges = figure.script:gsub("set yrange", "")
    assert.same(1, ranges)
    for n, title in ipairs {"v", "w"} do
      assert.truthy(figure.script:find("first = " .. 2 * (n - 1), 1, true))
      assert.truthy(figure.script:find("'\u{E000}" .. title .. "'", 1, true), title)
    end
    assert.truthy(figure.words:find("w, a 1: 10.0 s", 1, true), figure.words)
    assert.same("v", figure.term(60, false)[2])
  end)

  it("of heat maps have the same cells and colours", function()
    local maps = {kind = "heat", x = "a", y = "a", value = "y", facet = "m"}
    local blocks, _, figure = figure_of(points, maps)
    assert.same(8, #blocks)
    assert.same({1, 2, 10}, {blocks[1][1][7], blocks[1][2][7], blocks[5][1][7]})
    assert.truthy(figure.script:find("set cbrange [1:10]", 1, true))
    local _, bars = figure.script:gsub("bar = 1", "")
    assert.same(1, bars)
    assert.same(3, #figure.spots)
    assert.truthy(figure.words:find("2 heat maps, one per m of y", 1, true), figure.words)
    assert.truthy(figure.words:find("Largest: 10.0 s at w, a 1", 1, true), figure.words)
  end)

  it("of lists have a row of cells for each place", function()
    local lists = {
      {{a = 1, m = "v"}, {y = {1, 2, 3}}}, {{a = 2, m = "v"}, {y = {4, 5}}},
    }
    local function heat(spec)
      spec.kind, spec.x = "heat", "a"
      return plot.figure(results(lists, {spec}), 1)
    end
    local figure = assert(heat {along = "head", value = "y"})
    assert.same(5, #figure.spots)
    assert.same("a 2, head 2: 5.00 s", figure.spots[5].text)
    assert.truthy(figure.words:find("over a and head, 5 cells", 1, true), figure.words)
    local _, why = heat {along = "head", value = "y", y = "m"}
    assert.truthy(why:find("along: expected no y", 1, true), why)
  end)

  it("of pictures have a heading per value and one scale", function()
    local maps = {
      {{a = 1, m = "v"}, {y = {1, 2, 3, 4}}}, {{a = 2, m = "v"}, {y = {1, 0, 0, 0}}},
      {{a = 1, m = "w"}, {y = {8, 0, 0, 0}}},
    }
    local function pictures(spec)
      return plot.figure(results(maps, {spec}), 1)
    end
    local figure = assert(pictures {kind = "pixels", x = "a", y = "y", facet = "m"})
    for _, title in ipairs {"v", "w"} do
      assert.truthy(figure.script:find("'\u{E000}" .. title .. "'", 1, true), title)
    end
    assert.same("w, a 1", figure.spots[3].text)
    assert.is_true(figure.spots[3].y < figure.spots[1].y)
    assert.same(figure.spots[3].x, figure.spots[1].x)
    local _, why = pictures {kind = "pixels", x = "a", y = "y"}
    assert.truthy(why:find("expected one point per picture, got 2 for a 1, which differ in m", 1,
      true), why)
  end)

  it("have at most 24 panels", function()
    local many = {}
    for i = 1, 25 do many[i] = {{a = i, m = "v"}, {y = 1}} end
    for _, kind in ipairs {"bars", "heat"} do
      local _, why = figure_of(many, {kind = kind, x = "m", y = kind == "heat" and "m" or "y",
        value = kind == "heat" and "y" or nil, facet = "a"})
      assert.same("facet: expected at most 24 values of a, got 25", why)
    end
  end)
end)

describe("logarithmic colours", function()
  it("have a scale from the smallest to the largest positive value", function()
    local points = {}
    for i, y in ipairs {1, 10, 100, 0, -3} do points[i] = {{a = i, m = "x"}, {y = y}} end
    local blocks, _, figure = figure_of(points,
      {kind = "heat", x = "a", y = "m", value = "y", log = "value"})
    assert.same(3, #blocks[1])
    assert.same(2, #blocks[2]) -- without a colour
    for _, line in ipairs {"set logscale cb", "set cbrange [1:100]"} do
      assert.truthy(figure.script:find(line, 1, true), line)
    end
    local note = "2 values are not positive, as the logarithmic colours need, and have no colour."
    assert.same({note}, figure.notes)
    assert.truthy(table.concat(figure.term(80, false), "\n"):find("10.0 s ▒▒", 1, true))
  end)
end)

describe("bars", function()
  it("of more than five have colours, as there are four greys and the accent", function()
    local function fills(count)
      local points = {}
      for i = 1, count do points[i] = {{a = 1, m = "m" .. i}, {y = i}} end
      local _, _, figure = figure_of(points, {kind = "bars", x = "a", y = "y", by = "m"})
      return figure.script:match "array fill%[%d%] = %[(.-)%]\n"
    end
    assert.same("grey[1],grey[2],grey[3],grey[4],accent", fills(5))
    assert.same("part[1],part[2],part[3],part[4],part[5],part[6]", fills(6))
  end)
end)

describe("stacked bars", function()
  local points = {{{a = 1, m = "p"}, {y = 1, z = 10}}, {{a = 1, m = "q"}, {y = 2, z = 20}}}
  it("stand on each other, with their sum above", function()
    local blocks = assert(figure_of(points, {kind = "bars", x = "a", y = "y", by = "m",
      stacked = true}))
    assert.same({{1, 0, 1}, {1, 1, 3}}, {{table.unpack(blocks[1][1], 1, 3)},
      {table.unpack(blocks[2][1], 1, 3)}})
    assert.truthy(tostring(blocks[3][1][3]):find "3.00 s")
  end)
  it("may be parts, which are metrics", function()
    local blocks = assert(figure_of(points, {kind = "bars", x = "m", parts = {"y", "z"}}))
    assert.same({1, 0, 1}, {table.unpack(blocks[1][1], 1, 3)})
    assert.same({1, 1, 11}, {table.unpack(blocks[2][1], 1, 3)})
  end)
end)

describe("a reference line", function()
  it("is on its axis, or the figure says that it is not", function()
    local points = points_of {{1, 1}, {2, 2}}
    local _, _, figure = figure_of(points, {kind = "line", x = "a", y = "y", log = "y",
      lines = {{y = 10, text = "ten"}, {y = -1}, {x = 5, text = "five"}}})
    assert.truthy(figure.script:find("from graph 0,first 10 to graph 1,first 10", 1, true))
    assert.truthy(figure.script:find("from first 5,graph 0 to first 5,graph 1", 1, true))
    assert.truthy(figure.script:find("'\u{E000}ten'", 1, true))
    assert.same({"The line at y -1 is not on the axis."}, figure.notes)
  end)
end)

describe("texts for LaTeX", function()
  it("have no letter that is a command, in scripts, ticks and data", function()
    local script = "set label " .. gnuplot.quote "a_b \\input{x} 50%" .. " tc rgb '#123456'"
    assert.same("set label 'a\\_b \\textbackslash{}input\\{x\\} 50\\%' tc rgb '#123456'",
      gnuplot.texts_for(script, "tex"))
    -- gnuplot formats the labels of ticks, and reads \ in double quotes.
    assert.same("'50\\%%'", gnuplot.texts_for(gnuplot.tick_label "50%", "tex"))
    assert.same("a-{}-b -", require "attune.util.latex" "a--b -")
    assert.same('"a\\\\_b"', gnuplot.texts_for(gnuplot.field "a_b", "tex"))
    assert.same("'50%%'", gnuplot.texts_for(gnuplot.tick_label "50%", "svg"))
    -- gnuplot would cut a label with a % after 49 bytes, within a letter or a command.
    local long = "50% " .. ("µ_"):rep(20)
    assert.same("'50%% " .. ("µ_"):rep(14) .. "…'",
      gnuplot.texts_for(gnuplot.tick_label(long), "svg"))
    local tex = gnuplot.texts_for(gnuplot.tick_label(long), "tex")
    assert.truthy(tex:find("^'50\\%%%% [$\\\\mu_]+…'$") and #tex <= 52, tex)
  end)
end)

describe("a theme", function()
  it("changes colours and, for slides, the size of letters in the figure", function()
    local points = points_of {{1, 1}, {2, 2}}
    local dir = run.folder()
    files.make_folder(dir)
    local sizes = {}
    for _, theme in ipairs(plot.themes) do
      local r = results(points, {{kind = "line", x = "a", y = "y"}})
      assert(plot.draw(r, dir, {theme = theme, formats = {"svg"}}))
      local svg = files.read(dir .. "/plots/01-y.svg")
      sizes[theme] = tonumber(svg:match 'viewBox="0 0 (%d+)')
      assert.same(theme == "dark", svg:find("#17181a", 1, true) ~= nil)
    end
    assert.same(sizes.screen, sizes.print)
    assert.is_true(sizes.slides < 0.9 * sizes.screen)
    run.remove(dir)
  end)
end)

describe("attune plot", function()
  local dir
  setup(function()
    dir = run.folder()
    local path = run.script [[
      return require "attune.experiment" {
        name = "t", grid = {n = {1, 2, 4}, m = {"p", "q"}}, rounds = 2, timing = false,
        metrics = {seconds = {unit = "s"}},
        trial = function(p, t) return {seconds = p.n * (p.m == "p" and 1 or 3) + t.round / 9} end,
      }]]
    local said, status = run.attune(("run %s --out %s"):format(path, dir))
    assert(status == 0, said)
    run.remove(path)
  end)
  teardown(function() run.remove(dir) end)

  it("draws a plot from options, without a script", function()
    local said, status = run.attune(("plot %s --x n --y seconds --by m --log xy --format svg")
      :format(dir))
    assert.same(0, status, said)
    assert.truthy(said:find("plots/seconds-n-m.svg", 1, true), said)
    assert.truthy(files.read(dir .. "/plots/seconds-n-m.svg"):find ">p</text>")
    assert.truthy(files.read(dir .. "/plots/seconds-n-m.tsv"):find "\n4\t4%.1")
  end)
  it("takes kinds, values to keep and a name", function()
    local said, status = run.attune(
      ("plot %s --kind bars --x n --y seconds --where m=q --name b --format png"):format(dir))
    assert.same(0, status, said)
    assert.truthy(files.read(dir .. "/plots/b.png"))
    assert.is_nil(files.kind(dir .. "/plots/b.svg"))
  end)
  it("--only keeps the points for which a condition over parameters and metrics holds", function()
    local command = "plot %s --x n --y seconds --name o --format svg --only '%s'"
    local said, status = run.attune(command:format(dir, 'm == "p" and seconds < 3'))
    assert.same(0, status, said)
    local rows = blocks_of {data = files.read(dir .. "/plots/o.tsv")}
    assert.same({1, 2}, {rows[1][1][1], rows[1][2][1]})
    assert.same(2, #rows[1])
    said, status = run.attune(("plot %s --x n --y seconds --only 'm =='"):format(dir))
    assert.same(2, status, said)
  end)
  it("--term draws in the terminal, as wide as it is, and writes nothing", function()
    local command = ("plot %s --x n --y seconds --by m --term"):format(dir)
    local before = files.list(dir .. "/plots")
    local said, status = run.attune(command)
    assert.same(0, status, said)
    assert.truthy(said:find "o p   x q" and said:find "[\u{2801}-\u{28FF}]" and said:find "┤")
    assert.is_nil(said:find "\27")
    for line in said:gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 80, line) end
    assert.same(before, files.list(dir .. "/plots"))
    for _, kind in ipairs {"bars", "box", "ecdf", "scatter"} do
      said, status = run.attune(command .. " --kind " .. kind .. (kind == "ecdf" and " --where n=1"
        or ""))
      assert.same(0, status, said)
    end
  end)
  it("says what it expected of options", function()
    for arguments, pattern in pairs {
      ["--x n --y secnds"] = "y: expected a metric of the results, got 'secnds': did you mean 'sec",
      ["--x n --by m"] = "--y: expected one, got none",
      ["--kind pie --x n --y seconds"] = "unknown kind 'pie'",
      ["--x n --y seconds --theme pink"] = "--theme: expected screen, print, dark, slides, got",
      ["--x n --y seconds --format gif"] = "--format: expected svg, png, pdf, tex, got 'gif'",
      ["--x n --y seconds --where nn=1"] = "--where: expected a parameter of the results, got 'nn'",
      ["--x n --y seconds --against q=1"] = "--against: expected a parameter of the results, got",
      ["--x nn --y seconds"] = "--x: expected a parameter or metric of the results, got 'nn'",
      ["--x n --y seconds --where n=1,q=2"] = "--where: expected a parameter of the results",
      ["--kind foo --x n --y seconds"] = "--kind: unknown kind 'foo'",
      ["--x n --y seconds --where m"] = "--where: expected parameter=value, got 'm'",
      ["--kind roofline --x seconds --y seconds"] = "--peak: expected operations per second",
      ["--x n --y seconds --name ../x"] = "--name: expected letters, digits, - and _, got '../x'",
    } do
      local said, status = run.attune(("plot %s %s"):format(dir, arguments))
      assert.same(2, status, said)
      assert.truthy(said:find(pattern, 1, true), said)
    end
  end)
end)
