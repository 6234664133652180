local made_results = require "tests.support.made_results"
local run = require "tests.support.run"
local files = require "attune.util.files"
local plot = require "attune.plot"
local uv = require "luv"

local results, drawn, data = made_results.results, made_results.drawn, made_results.data

describe("plots", function()
  it("that a script declares no more are removed, and nothing else", function()
    local line = {kind = "line", x = "a", y = "z", where = {m = "x"}, name = "first"}
    local box = {kind = "box", x = "a", y = "y", where = {m = "x"}, name = "second"}
    local r = results(data, {line, box})
    local dir = drawn(r, {formats = {"svg"}})
    assert(files.write(dir .. "/plots/07-mine.svg", "mine"))
    assert(files.write(dir .. "/plots/08-mine.gp", "mine"))
    assert(plot.draw(r, dir, {formats = {"svg"}, plots = {line}, names = {"own"}}))
    r.plots = {box}
    assert(plot.draw(r, dir, {formats = {"svg"}}))
    assert.same({
      "01-second.gp", "01-second.svg", "01-second.tsv", "07-mine.svg", "08-mine.gp", "own.gp",
      "own.svg", "own.tsv",
    }, files.list(dir .. "/plots"))
    run.remove(dir)
  end)
  it("of every kind have three formats, and never execute what texts contain", function()
    local r = results(data, {{
      kind = "line",
      x = "a",
      y = "y",
      by = "m",
      log = "xy",
      title = "it's `id` \"$(id)\"",
      also = "z",
    }, {kind = "line", x = "a", y = "y", facet = "m"},
      {kind = "bars", x = "a", y = "y", by = "m"}, {kind = "heat", x = "a", y = "m", value = "y"}, {
        kind = "line",
        x = "a",
        y = "y",
        by = "m",
        against = {m = "x"},
      }})
    local dir, made, warnings = drawn(r)
    assert.same(25, #made, table.concat(warnings, "; "))
    assert.same({}, warnings)
    local svg = files.read(dir .. "/plots/01-y.svg")
    -- A quote becomes a typographic one: gnuplot ends a string at a doubled quote at its start.
    assert.truthy(svg:find("it’s `id` &quot;$(id)&quot;", 1, true)
      or svg:find("it’s `id` \"$(id)\"", 1, true))
    assert.is_nil(files.kind "/tmp/attune-hostile")
    assert.truthy(svg:find "viewBox")
    -- the heat map writes the value in each cell
    assert.truthy(files.read(dir .. "/plots/04-y.svg"):find "1.10 s")
    assert.truthy(files.read(dir .. "/plots/03-y.svg"):find "4.10 s")
    run.remove(dir)
  end)
  it("of pixels show a list of numbers as a square that is light where a number is 0", function()
    local r = results(
      {{{a = 1, m = "one"}, {y = 0.5, z = 7}}, {{a = 1, m = "two"}, {y = 1, z = 8}}},
      {{kind = "pixels", x = "m", y = "y", also = "z"}}
    )
    r.points[1].metrics.y.samples, r.points[2].metrics.y.samples = {
      {9, 9, 9, 9}, {0, 1, 2, 2},
    }, {{0, 0, 0, 0}}
    local dir, made, warnings = drawn(r)
    assert.same(5, #made, table.concat(warnings, "; "))
    local svg = files.read(dir .. "/plots/01-y.svg"):lower()
    local function count(colour)
      return select(
        2,
        svg:gsub(("polygon fill = .rgb%%(%%s*%d,%%s*%d,%%s*%d%%)"):format(table.unpack(colour)), "")
      )
    end
    assert.same({2, 1, 2}, {count {233, 238, 243}, count {117, 176, 211}, count {0, 114, 178}})
    assert.truthy(svg:find("two", 1, true) and svg:find("8 z", 1, true))
    r.points[2].metrics.y.samples = {{0, 0, 0}}
    local _, none, why = drawn(r)
    assert.is_nil(none)
    assert.truthy(why:find "expected as many numbers as a square has, got 3")
    run.remove(dir)
  end)
  it("of pixels are orange below 0, label their axes, and use an image for many cells", function()
    local r = results({{{a = 1, m = "one"}, {y = 0}}}, {
      {kind = "pixels", x = "m", y = "y", across = "the <position>", down = "the dim"},
    })
    local function svg_of(cells)
      r.points[1].metrics.y.samples = {cells}
      local dir, made, warnings = drawn(r)
      assert.same(5, #made, table.concat(warnings, "; "))
      local svg = files.read(dir .. "/plots/01-y.svg")
      run.remove(dir)
      return svg
    end
    local svg = svg_of {-4, 0, 0, 2}
    -- the ground, half of the blue and all of the orange: shares of the number that is farthest
    -- from 0
    for _, colour in ipairs {"233, 238, 243", "117, 176, 211", "213,  94,   0"} do
      assert.same(1, select(2, svg:gsub("polygon fill = .rgb%(" .. colour .. "%)", "")), colour)
    end
    for _, text in ipairs {"the &lt;position", "the dim", ">−4<", ">0<", ">4<"} do
      assert.truthy(svg:find(text, 1, true), text)
    end
    assert.is_nil(svg:find "<image")
    local many = {}
    for n = 1, 50 * 50 do many[n] = n % 7 end
    svg = svg_of(many)
    assert.truthy(svg:find "<image")
    assert.is_nil(svg:find(">−6<", 1, true))
    assert.truthy(#svg < 40000, #svg)
  end)
  it("of lines draw an interval only where the samples give one", function()
    local function strokes(values)
      local dir = drawn(
        results({{{a = 1, m = "x"}, {y = values}}, {{a = 2, m = "x"}, {y = values}}}, {
          {kind = "line", x = "a", y = "y"},
        })
      )
      local svg = files.read(dir .. "/plots/01-y.svg")
      run.remove(dir)
      return select(2, svg:gsub("path stroke='rgb%(  0, 114, 178%)'", ""))
    end
    assert.same({1, 2}, {strokes {2, 2, 2}, strokes {1, 2, 3}})
  end)
  it("that cannot be drawn are omitted, and the reason is reported", function()
    local zero = {{{a = 1, m = "x"}, {y = 0, z = 0}}, {{a = 2, m = "x"}, {y = 1, z = 0}}}
    local dir, made, warnings = drawn(
      results(zero, {
        {kind = "line", x = "a", y = "z", log = "y"}, {kind = "line", x = "a", y = "y"},
        {kind = "line", x = "a", y = "nope"}, {kind = "bars", x = "a", y = "y", where = {a = 9}},
      })
    )
    assert.same(5, #made)
    assert.same(3, #warnings)
    assert.truthy(warnings[1]:find "no point with a value: 2 points with a y of 0 or less are not")
    assert.truthy(warnings[2]:find "y: expected a metric of the results, got 'nope'")
    assert.truthy(warnings[3]:find "no point with a value up to 1e100")
    run.remove(dir)
  end)
  it("on a logarithmic axis leave out only what is not positive, and say how much", function()
    local points = {{{a = 0, m = "x"}, {y = 1}}, {{a = 1, m = "x"}, {y = 0}},
      {{a = 2, m = "x"}, {y = {1, 2, 3}}}, {{a = 4, m = "x"}, {y = {1, 2, 5}}},
      {{a = 8, m = "x"}, {y = 1 / 0}}}
    local r = results(points, {{kind = "line", x = "a", y = "y", log = "xy"}})
    local dir, made, warnings = drawn(r)
    assert.same(5, #made)
    assert.same({
      "plot 01-y: 1 point with a y of 0 or less is not shown on the logarithmic axis.",
      "plot 01-y: 1 point with an x of 0 or less is not shown on the logarithmic axis.",
      "plot 01-y: 1 point whose y is not finite or beyond 1e100 is not shown.",
      "plot 01-y: 2 intervals leave the logarithmic axis (arrows).",
    }, warnings)
    local svg = files.read(dir .. "/plots/01-y.svg")
    assert.truthy(svg:find("1 point with a y of 0 or less is not shown", 1, true))
    -- The lower end of each interval is below 0: a filled arrow head.
    assert.same(2, select(2, svg:gsub("polygon fill = 'rgb%(  0, 114, 178%)'", "")))
    run.remove(dir)
  end)
  it("draw values of any size, and say which are beyond what can be drawn", function()
    for _, y in ipairs {0, 1e-300, -1e-320, 1e99, -1e99, 2 ^ 53, 1e300} do
      for _, kind in ipairs {"line", "bars"} do
        local points = {{{a = y, m = "x"}, {y = y}}, {{a = y / 2, m = "v"}, {y = y / 2}},
          {{a = 1, m = "v"}, {y = 1}}}
        local dir, made, why = drawn(results(points, {{kind = kind, x = "a", y = "y", by = "m"}}),
          {formats = {"svg"}})
        assert.same(3, made and #made, tostring(why))
        assert.same(y == 1e300, why[1] ~= nil)
        run.remove(dir)
      end
    end
  end)
  it("draw a bar whose interval is endless", function()
    local points = {{{a = 1, m = "x"}, {y = {-1e300, 1e300}}}, {{a = 2, m = "x"}, {y = {1, 2}}}}
    local dir, made, why = drawn(results(points, {
      {kind = "bars", x = "a", y = "y"}, {kind = "line", x = "a", y = "y"},
    }))
    assert.same(10, made and #made, tostring(why))
    run.remove(dir)
  end)
  it("count the points without a value by their status", function()
    local points = {{{a = 1, m = "x"}, {y = 1}}, {{a = 2, m = "x"}, {}, "failed", "why"},
      {{a = 3, m = "x"}, {}, "skipped", "why"}, {{a = 4, m = "x"}, {}, "failed", "why"}}
    local plots = {
      {kind = "line", x = "a", y = "y"}, {kind = "bars", x = "a", y = "y"},
      {kind = "heat", x = "a", y = "m", value = "y"},
      {kind = "line", x = "a", y = "y", where = {a = 1}},
    }
    local dir, made, warnings = drawn(results(points, plots))
    assert.same(20, #made)
    assert.same({
      "plot 01-y: Points without a value: 2 failed, 1 skipped.",
      "plot 02-y: Points without a value: 2 failed, 1 skipped.",
      "plot 03-y: Points without a value: 2 failed, 1 skipped.",
    }, warnings)
    run.remove(dir)
  end)
  it("of lines end an interval in an arrow that would flatten all lines", function()
    local points = {{{a = 1, m = "x"}, {y = {1, 1.1, 1.2}}}, {{a = 2, m = "x"}, {y = {0, 3}}}}
    -- 1.5 +- 19 at a centre of at most 1.5.
    local dir, _, warnings = drawn(results(points, {{kind = "line", x = "a", y = "y"}}))
    assert.same({"plot 01-y: 1 interval leaves the axis (arrows)."}, warnings)
    local svg = files.read(dir .. "/plots/01-y.svg")
    assert.same(2, select(2, svg:gsub("polygon fill = 'rgb%(  0, 114, 178%)'", "")))
    run.remove(dir)
  end)
  it("of bars have room below intervals that reach below 0", function()
    local dir = drawn(results({{{a = 1, m = "x"}, {y = {-1, 3}}}},
      {{kind = "bars", x = "a", y = "y"}}), {formats = {"svg"}})
    local low = files.read(dir .. "/plots/01-y.gp"):match "set yrange %[(%S-):"
    assert.is_true(tonumber(low) < 1 - 12.706 * 2 - 0.5, low) -- t of one degree of freedom
    run.remove(dir)
  end)
  it("name intervals only where they draw them", function()
    local points = {{{a = 1, m = "x"}, {y = {1, 2, 3}}}, {{a = 2, m = "x"}, {y = {2, 3, 4}}}}
    local dir = drawn(results(points, {
      {kind = "bars", x = "a", y = "y"}, {kind = "bars", x = "a", parts = {"y"}},
      {kind = "heat", x = "a", y = "m", value = "y"},
    }), {formats = {"svg"}})
    for i, words in ipairs {"s, 95%% intervals'", "s'", "s'"} do
      local script = files.read(("%s/plots/%02d-y.gp"):format(dir, i))
      assert.truthy(script:find("mean of 3 round" .. words), i)
    end
    run.remove(dir)
  end)
  it("over texts place each text beside the one before", function()
    local points = {{{a = "10%", m = "x"}, {y = 1}}, {{a = "50%d", m = "x"}, {y = 2}}}
    local dir, made, warnings = drawn(results(points, {
      {kind = "line", x = "a", y = "y", log = "x"}, {kind = "bars", x = "a", y = "y"},
      {kind = "heat", x = "a", y = "m", value = "y"},
    }))
    assert.same(15, #made)
    assert.same({"plot 01-y: The x axis is not logarithmic, as a is not a number everywhere."},
      warnings)
    for _, name in ipairs {"01-y", "02-y", "03-y"} do
      local svg = files.read(("%s/plots/%s.svg"):format(dir, name))
      assert.truthy(svg:find(">10%%<"), name)
      assert.truthy(svg:find(">50%%d<"), name)
    end
    run.remove(dir)
  end)
  it("with several points in one place name the parameters that differ", function()
    local points = {{{a = 1, m = "x"}, {y = 1}}, {{a = 1, m = "z"}, {y = 2}}}
    for _, spec in ipairs {{kind = "line", x = "a", y = "y"}, {kind = "bars", x = "a", y = "y"}} do
      local dir, made, why = drawn(results(points, {spec}))
      assert.is_nil(made)
      assert.truthy(why:find "got 2 for a 1, which differ in m: narrow them with where, or set by")
      run.remove(dir)
    end
  end)
  it("of heat draw equal values, one row, one column and one cell", function()
    local points = {{{a = 1, m = "x"}, {y = 5, z = 1}}, {{a = 1, m = "v"}, {y = 5, z = 2}},
      {{a = 2, m = "x"}, {y = 5, z = 3}}, {{a = 2, m = "v"}, {y = 5, z = 1 / 0}}}
    local function heat(value, where)
      return {kind = "heat", x = "a", y = "m", value = value, where = where}
    end
    local dir, made, warnings = drawn(results(points, {heat "y", heat("z", {a = 1}),
      heat("z", {m = "x"}), heat("z", {a = 1, m = "x"}), heat "z", heat("z", {a = 2, m = "v"})}))
    assert.same(30, #made, table.concat(type(warnings) == "table" and warnings or {warnings}, "; "))
    local svg = files.read(dir .. "/plots/01-y.svg")
    assert.same(4, select(2, svg:gsub(">5.00 s<", "")))
    assert.same({
      "plot 05-z: 1 value is not finite or beyond 1e100 and has no colour.",
      "plot 06-z: 1 value is not finite or beyond 1e100 and has no colour.",
    }, warnings)
    run.remove(dir)
  end)
  it("keep long texts inside the picture and apart from each other", function()
    local long = ("attention "):rep(12)
    local points = {}
    for i = 1, 6 do
      points[i] = {{a = 1, m = long .. i}, {y = i}}
      points[6 + i] = {{a = 1000, m = long .. i}, {y = i}}
    end
    local dir, made = drawn(results(points, {
      {kind = "line", x = "a", y = "y", by = "m", title = long:rep(3)},
      {kind = "bars", x = "m", y = "y", by = "a"}, {kind = "heat", x = "m", y = "a", value = "y"},
    }))
    assert.same(15, #made)
    local svg = files.read(dir .. "/plots/01-y.svg")
    local width, height = svg:match 'viewBox="0 0 (%d+) (%d+)"'
    local places, found = {}, 0
    for part in svg:gmatch "<g transform=(.-</text>)" do
      local x, y = part:match "translate%(([%d.]+),([%d.]+)%)"
      local size = part:match 'font%-size="([%d.]+)"'
      local words = part:match "<text>.-(attention.*)</text>"
      if words then
        -- 0.55 em: less than the mean width of these letters.
        local right = x + 0.55 * size * #words
        assert.truthy(right < width + 0 and y + 0 < height + 0, words)
        local rivals = places[y] or {}
        places[y] = rivals
        for _, rival in ipairs(rivals) do assert.truthy(x + 0 >= rival, words) end
        rivals[#rivals + 1] = right
        found = found + 1
      end
    end
    assert.truthy(found > 6, found)
    run.remove(dir)
  end)
  it("never read more than a name from the kind and the name in a folder of results", function()
    local dir = run.folder()
    files.make_folder(dir)
    local outside = dir .. "/outside"
    local plots = {
      {kind = "../../tmp/x", x = "a", y = "y"}, {kind = "spec", x = "a", y = "y"}, "line",
      {kind = "line", x = "a", y = "y", by = "m", name = "../../outside"},
      {kind = {}, x = "a", y = "y"}, {kind = "line", x = {}, y = "y"}, {kind = "line"},
    }
    local made, why = plot.draw(results(data, plots), dir)
    assert.is_nil(made)
    assert.truthy(why:find "unknown kind '../../tmp/x'")
    assert.truthy(why:find "unknown kind 'spec'")
    assert.truthy(why:find "plots%[3%]: expected a table, got a string")
    assert.truthy(why:find "name: expected letters, digits, %- and _, got '../../outside'")
    for _, format in ipairs {"svg", "png", "pdf"} do
      assert.is_nil(files.kind(outside .. "." .. format))
    end
    assert.same({}, files.list(dir .. "/plots"))
    run.remove(dir)
  end)
  it("take no part of a path and no metric's name for a command", function()
    local r = results(data, {{kind = "line", x = "a", y = "y|touch z\n`id`", by = "m"}})
    r.metrics[3] = {name = "y|touch z\n`id`", unit = "%1000000000f\n'`id`"}
    for _, point in ipairs(r.points) do point.metrics["y|touch z\n`id`"] = point.metrics.y end
    local dir = run.folder() .. "|touch y '`id`\n"
    files.make_folder(dir)
    local made, warnings = plot.draw(r, dir)
    assert.same(5, made and #made, tostring(warnings))
    local base = "01-y_touch_z__id_."
    assert.same({base .. "gp", base .. "pdf", base .. "png", base .. "svg", base .. "tsv"},
      files.list(dir .. "/plots"))
    assert.is_nil(files.kind "y")
    assert.is_nil(files.kind "z")
    for _, name in ipairs(files.list(dir .. "/plots")) do os.remove(dir .. "/plots/" .. name) end
    os.remove(dir .. "/plots")
    os.remove(dir)
  end)
  it("take a quote at the start of a text for no end of a string", function()
    local title = "'; set print 'printed'; print 1; set title '"
    local dir, made, warnings = drawn(results(data, {
      {kind = "line", x = "a", y = "y", by = "m", title = title},
    }))
    assert.same(5, made and #made, tostring(warnings))
    local svg = files.read(dir .. "/plots/01-y.svg")
    assert.truthy(svg:find("’; set print ’printed’; print 1; set title ’", 1, true))
    run.remove(dir)
  end)
  it("never write through a link", function()
    local r = results(data, {{kind = "line", x = "a", y = "y", by = "m"}})
    local dir, victim = run.folder(), run.folder()
    files.make_folder(dir .. "/plots")
    files.write(victim, "kept")
    assert(uv.fs_symlink(victim, dir .. "/plots/01-y.svg"))
    assert.same(5, #assert(plot.draw(r, dir)))
    assert.same("kept", files.read(victim))
    assert.same("file", uv.fs_lstat(dir .. "/plots/01-y.svg").type)
    run.remove(dir)
    files.make_folder(dir)
    files.make_folder(victim .. ".d")
    assert(uv.fs_symlink(victim .. ".d", dir .. "/plots"))
    local made, why = plot.draw(r, dir)
    assert.is_nil(made)
    assert.truthy(why:find "expected a folder, got a symbolic link" or why:find "got a link", why)
    assert.same({}, files.list(victim .. ".d"))
    run.remove(dir, victim, victim .. ".d")
  end)
  it("are left out when gnuplot is ended by a signal or cuts its picture short", function()
    local path, dir = os.getenv "PATH", run.folder()
    files.make_folder(dir)
    local function with_gnuplot(script, pattern)
      local folder = run.folder()
      files.make_folder(folder)
      local f = assert(io.open(folder .. "/gnuplot", "w"))
      f:write("#!/bin/sh\n" .. script .. "\n")
      f:close()
      assert(uv.fs_chmod(folder .. "/gnuplot", 493))
      uv.os_setenv("PATH", folder .. ":" .. path)
      local made, why = plot.draw(results(data, {{kind = "line", x = "a", y = "y", by = "m"}}), dir)
      uv.os_setenv("PATH", path)
      run.remove(folder)
      assert.is_nil(made)
      assert.truthy(why:find(pattern), why)
      assert.same({}, files.list(dir .. "/plots"))
    end
    with_gnuplot("echo '<svg>' >01-y.svg; kill -SEGV $$", "was ended by signal 11")
    with_gnuplot("echo '<svg><text' >01-y.svg", "cut short")
    with_gnuplot("echo 'line 3: no such thing' >&2; exit 1", "no such thing")
    with_gnuplot("exit 0", "01%-y%.svg")
    uv.os_setenv("PATH", "/nowhere")
    local made, why = plot.draw(results(data, {{kind = "line", x = "a", y = "y", by = "m"}}), dir)
    uv.os_setenv("PATH", path)
    assert.is_nil(made)
    assert.truthy(why:find "gnuplot: expected it to be installed, found none")
    run.remove(dir)
  end)
  it("are drawn again by gnuplot alone from the files beside them", function()
    local dir = drawn(results(data, {
      {kind = "line", x = "a", y = "y", by = "m", title = "it's 50%", log = "xy"},
      {kind = "bars", x = "a", y = "y", by = "m"}, {kind = "heat", x = "a", y = "m", value = "y"},
    }))
    local alone = run.folder()
    files.make_folder(alone)
    for _, name in ipairs {"01-y", "02-y", "03-y"} do
      for _, ending in ipairs {".gp", ".tsv"} do
        files.write(alone .. "/" .. name .. ending, files.read(dir .. "/plots/" .. name .. ending))
      end
      local command = "cd '%s' && gnuplot %s.gp 2>&1 && "
        .. "gnuplot -e \"format='png'; theme='dark'\" %s.gp"
      local pipe = io.popen(command:format(alone, name, name))
      local said = pipe:read "a"
      assert.is_true(pipe:close(), said)
      local svg = files.read(alone .. "/" .. name .. ".svg")
      assert.same(files.read(dir .. "/plots/" .. name .. ".svg"), svg)
      assert.truthy(files.read(alone .. "/" .. name .. ".png"))
    end
    run.remove(dir, alone)
  end)
  it("of equal results are equal files", function()
    local r = results(data, {{kind = "line", x = "a", y = "y", by = "m"}})
    local one, two = drawn(r), drawn(r)
    for _, name in ipairs(files.list(one .. "/plots")) do
      assert.same(files.read(one .. "/plots/" .. name), files.read(two .. "/plots/" .. name), name)
    end
    assert.is_nil(files.read(one .. "/plots/01-y.pdf"):find("CreationDate (D:2", 1, true))
    run.remove(one, two)
  end)
  it("accept a single point, missing metrics and failed points", function()
    local dir, made = drawn(
      results(
        {
          {{a = 1, m = "x"}, {y = 2}}, {{a = 2, m = "x"}, {}},
          {{a = 3, m = "x"}, {}, "failed", "why"},
        },
        {{kind = "line", x = "a", y = "y", by = "m", also = "z"}}
      )
    )
    assert.same(5, #made)
    run.remove(dir)
  end)
  it("are checked when they are declared", function()
    local function refused(spec, pattern)
      local ok, message = pcall(plot.check, spec, 2)
      assert.is_false(ok)
      assert.truthy(message:find(pattern, 1, true), message)
    end
    refused({kind = "line", x = "a", y = "b", colour = "red"}, "plots[2]: unknown field 'colour'")
    refused({kind = "bar", x = "a", y = "b"}, "unknown kind 'bar': did you mean 'bars'?")
    refused({kind = "line", x = "a"}, "y: expected one, got none")
    refused({kind = "line", x = "a", y = "b", log = "z"}, "log: expected 'x', 'y' or 'xy', got 'z'")
    refused({kind = "heat", x = "a", y = "b"}, "value: expected")
    refused({kind = "line", x = "a", y = "b", name = "../x"}, "name: expected letters")
    refused({kind = "line", x = "a", y = "b", log = "value"}, "log: expected 'x', 'y' or 'xy'")
    refused({kind = "heat", x = "a", y = "b", value = "c", log = "x"}, "log: expected 'value'")
    refused({kind = "line", x = "a", y = "b", base = 3}, "base: expected 2 or 10, got 3")
    refused({kind = "line", x = "a", y = "b", lines = {{z = 1}}}, "lines[1]: expected {x = value")
    refused({kind = "roofline", x = "a", y = "b", peak = -1, bandwidth = 1}, "peak: expected a pos")
    refused({kind = "bars", x = "a", parts = {}}, "parts: expected metrics, got an empty list")
    refused({kind = "box", x = "a"}, "y: expected one, got none")
  end)
  it("have no field that their kind does not use", function()
    local function refused(kind, field, value, wanted)
      local spec = {kind = kind, x = "a", y = "b", [field] = value}
      if kind == "heat" then spec.value = "c" end
      local ok, message = pcall(plot.check, spec, 1)
      assert.is_false(ok, kind .. " " .. field)
      local start = ("plots[1]: %s: expected %s"):format(field, wanted or "kind ")
      assert.matches(start, message, 1, true)
    end
    for _, kind in ipairs {"bars", "pixels"} do
      refused(kind, "log", "y")
      refused(kind, "base", 2)
    end
    refused("ecdf", "log", "y", "'x' for kind ecdf, got 'y'")
    refused("box", "log", "xy", "'y' for kind box, got 'xy'")
    for _, kind in ipairs {"scatter", "bars", "heat", "ecdf", "box"} do
      refused(kind, "also", "c")
    end
    for _, kind in ipairs {"ecdf", "box", "pixels"} do refused(kind, "against", {c = 1}) end
    for _, kind in ipairs {"heat", "pixels"} do refused(kind, "by", "c") end
    refused("line", "value", "c")
  end)
end)
