local made_results = require "tests.support.made_results"
local run = require "tests.support.run"
local files = require "attune.util.files"
local report = require "attune.report"
local uv = require "luv"

local results, data = made_results.results, made_results.data
-- A report shows the SVG only.
local function drawn(r) return made_results.drawn(r, {formats = {"svg"}}) end

describe("reports", function()
  it("contain everything, escaped, in one file that loads nothing from elsewhere", function()
    local r = results(data, {{kind = "line", x = "a", y = "y", by = "m", caption = "A caption."}})
    r.points[#r.points + 1] = {
      hash = "9",
      index = 9,
      parameters = {a = 3, m = "x"},
      status = "timeout",
      reason = "no answer within 5 s",
      rounds = 0,
      metrics = {},
    }
    local dir = drawn(r)
    assert(report.write(r, dir))
    local html, md = files.read(dir .. "/report.html"), files.read(dir .. "/report.md")
    for _, part in ipairs {"about &lt;b&gt; &amp; &#39;it&#39;", "it &lt;/script&gt; holds",
      "x &lt; y", '<svg role="img"', "A caption.", "no answer within 5 s",
      "attune run s.lua", "95% interval",
      "&lt;i&gt;"} do
      assert.truthy(html:find(part, 1, true), "missing: " .. part)
    end
    assert.same(1, select(2, html:gsub("<script", "")))
    assert.is_nil(html:gsub('xmlns[:%w]*="[^"]*"', ""):find "https?://")
    assert.truthy(md:find "!%[Line chart of y against a[^%]]*%]%(plots/01%-y%.svg%)")
    assert.truthy(md:find("**held**: it \\</script\\> holds", 1, true))
    assert.truthy(md:find("timeout", 1, true))
    run.remove(dir)
  end)
  local function written(r)
    local dir = drawn(r)
    assert(report.write(r, dir))
    local html, md = files.read(dir .. "/report.html"), files.read(dir .. "/report.md")
    return dir, html, md
  end
  local function line_plot(fields)
    local spec = {kind = "line", x = "a", y = "y", by = "m"}
    for k, v in pairs(fields or {}) do spec[k] = v end
    return spec
  end
  it("say what each figure leaves out, and why a figure is left out", function()
    local points = {{{a = 0, m = "x"}, {y = 1}}, {{a = 1, m = "x"}, {y = 2}}}
    local dir, html, md = written(results(points, {line_plot {log = "x"}, line_plot {y = "nope"}}))
    for _, text in ipairs {html, md} do
      assert.truthy(text:find("1 point with an x of 0 or less is not shown on the log", 1, true))
      assert.truthy(text:find "Figure “nope” is left out: y: expected a metric")
    end
    run.remove(dir)
  end)
  it("say what the printed values are and how many rounds would narrow their intervals", function()
    local dir, html, md = written(results(data, {}))
    for _, text in ipairs {html, md} do
      assert.truthy(text:find "the mean over the rounds with the 95%% interval")
      assert.truthy(text:find "or the value of one round, which has no interval")
      -- The t interval of 1, 1.1, 1.2 is 1.1 +- 23%, that of 2, 2.1, 2.2 is +- 12%.
      assert.truthy(text:find "3 of 4 intervals reach more than 5%% from their value")
    end
    assert.truthy(html:find("mean of 3 rounds, 95% interval", 1, true))
    run.remove(dir)
  end)
  it("have no column for a metric that is a picture or a curve", function()
    local dir, html = written(results({
      {{a = 1, m = "x"}, {y = 1, z = {0, 1, 1, 0}, loss = {3, 2}, tokens = {1, 9}}},
    }, {
      {kind = "pixels", x = "a", y = "z"},
      {kind = "line", x = "tokens", y = "loss", along = "tokens"},
    }))
    local head = html:match "<thead>.-</thead>"
    assert.truthy(head:find(">y<", 1, true))
    for _, name in ipairs {"z", "loss", "tokens"} do
      assert.is_nil(head:find((">%s<"):format(name), 1, true), head)
    end
    run.remove(dir)
  end)
  it("embed no picture behind a link, cut short, or with more than shapes", function()
    local r = results(data, {line_plot()})
    local dir, html = written(r)
    local path, victim = dir .. "/plots/01-y.svg", run.folder()
    local svg = files.read(path)
    local function embeds()
      assert(report.write(r, dir))
      html = files.read(dir .. "/report.html")
      return html:find("<svg", 1, true) ~= nil
        and files.read(dir .. "/report.md"):find("![Line chart of y", 1, true) ~= nil
    end
    assert.is_true(embeds())
    for _, foreign in ipairs {
      svg:sub(1, -10), "", "<svg></svg>", (svg:gsub("</svg>", "<script>x</script></svg>")),
      (svg:gsub("</svg>", "<g onload='x'></g></svg>")),
      (svg:gsub("</svg>", "<image href='http://x/y.png'/></svg>")),
      (svg:gsub("</svg>", "<foreignObject></foreignObject></svg>")),
      (svg:gsub("<svg", "<!DOCTYPE svg [<!ENTITY a 'b'>]><svg", 1)),
    } do
      assert(files.write(path, foreign))
      assert.is_false(embeds(), foreign:sub(-80))
      assert.truthy(html:find "Figure “y” is left out")
    end
    files.write(victim, svg)
    os.remove(path)
    assert(uv.fs_symlink(victim, path))
    assert.is_false(embeds())
    os.remove(path)
    run.remove(dir .. "/plots")
    files.make_folder(victim .. ".d")
    files.write(victim .. ".d/01-y.svg", svg)
    assert(uv.fs_symlink(victim .. ".d", dir .. "/plots"))
    assert.is_false(embeds())
    run.remove(dir, victim, victim .. ".d")
  end)
  it("show control characters and markup of texts as text", function()
    local hostile = "\27[2J<b>\r\n# x\u{202e} `id` [a](b) | ~~s~~ &copy; $x$\0"
    local r = results(data, {line_plot {title = hostile, caption = hostile}})
    r.about, r.command, r.warnings, r.dir = hostile, "attune run\nrm -rf /\n", {hostile}, "-d e"
    r.claims[1].text, r.claims[1].detail = hostile, hostile
    r.provenance[1].cpu = hostile
    local dir, html, md = written(r)
    for _, text in ipairs {html, md} do
      assert.is_nil(text:find "[%z\1-\8\11-\31\127]")
      assert.is_nil(text:find "\u{202e}")
      assert.is_nil(text:find("\nrm -rf", 1, true))
      assert.truthy(text:find("attune run\\nrm -rf", 1, true))
      assert.truthy(text:find("attune plot './-d e'", 1, true)
        or text:find("attune plot &#39;./-d e&#39;", 1, true))
    end
    assert.is_nil(html:find("<b>", 1, true))
    -- Numbers in cells stay as they are.
    assert.truthy(md:find("| 1.10 s (", 1, true))
    for _, mark in ipairs {"`id`", "[a]", " | ~", "~~s", " &copy", "$x$", "<b>"} do
      local _, count = md:gsub(mark:gsub("%p", "%%%0"), "")
      -- "|" separates the columns of the table, which holds no such text.
      assert.same(0, count, mark)
    end
    assert.truthy(html:find("Content-Security-Policy\" content=\"default-src 'none'", 1, true))
    run.remove(dir)
  end)
  it("fit a figure to the width of a phone", function()
    local dir, html = written(results(data, {line_plot()}))
    assert.truthy(html:find("figure svg {\n  display: block; width: 100%; height: auto;", 1, true))
    assert.truthy(html:find 'name="viewport" content="width=device%-width')
    -- No rule makes a picture wider than its column.
    assert.is_nil(html:find "svg%s*{[^}]*width: %d+px")
    assert.is_nil(html:find "<svg[^>]*width=")
    run.remove(dir)
  end)
end)

describe("a page of a report", function()
  local function page_of(r)
    local dir = drawn(r)
    assert(report.write(r, dir))
    return files.read(dir .. "/report.html"), dir
  end
  local plots = {
    {kind = "line", x = "a", y = "y", by = "m", title = "<b> & 'it'"},
    {kind = "bars", x = "a", y = "y", by = "m"}, {kind = "heat", x = "a", y = "m", value = "y"},
  }

  it("says each mark's value in the figure, and the figure in sentences", function()
    local html, dir = page_of(results(data, plots))
    -- A line's mark, a bar and a cell.
    for _, text in ipairs {"<title>x, a 1: y 1.10 s (", "<title>a 2, m x: 2.10 s (",
      "<title>a 1, m x: 1.10 s</title>", "x: from 1.10 s at a 1 to 2.10 s at 2.",
      "Smallest: 1.10 s at a 1, m x. Largest: 8.00 s at a 2"} do
      assert.truthy(html:find(text, 1, true), text)
    end
    run.remove(dir)
  end)
  it("has no name twice, so that figures do not share shapes", function()
    local html, dir = page_of(results(data, plots))
    local seen = {}
    for id in html:gmatch "%sid=['\"]([^'\"]+)" do
      assert.is_nil(seen[id], id)
      seen[id] = true
    end
    for target in html:gmatch "href=['\"]#([^'\"]+)" do assert.is_true(seen[target], target) end
    run.remove(dir)
  end)
  it("gives the colours of figures to the page, so that they follow dark and light", function()
    local html, dir = page_of(results(data, plots))
    assert.truthy(html:find("var(--c1)", 1, true) and html:find("var(--ground)", 1, true))
    assert.is_nil(html:find "rgb%( *34, *34, *34%)")
    for name in html:gmatch "var%((%-%-%w+)%)" do
      assert.truthy(html:find(name .. ": #", 1, true), name)
    end
    run.remove(dir)
  end)
  it("lets only its own style and script be used", function()
    local html, dir = page_of(results(data, plots))
    local policy = html:match 'Content%-Security%-Policy" content="([^"]*)"'
    for _, tag in ipairs {"style", "script"} do
      local source = html:match(("<%s>(.-)</%s>"):format(tag, tag))
      local path = run.script(source)
      local digest = io.popen(("sha256sum '%s'"):format(path)):read "a":match "%x+"
      local bytes = run.script((digest:gsub("..", function(hex)
        return string.char(tonumber(hex, 16))
      end)))
      digest = io.popen(("base64 '%s'"):format(bytes)):read "l"
      run.remove(bytes)
      run.remove(path)
      assert.truthy(policy:find(("%s-src 'sha256-%s'"):format(tag, digest), 1, true), tag)
    end
    assert.is_nil(html:find "style=" or html:find "%son%a+=")
    run.remove(dir)
  end)
  it("shows the script that the folder keeps, and no file behind a link", function()
    local r = results(data, {})
    local dir = drawn(r)
    files.write(dir .. "/script.lua", "-- <script>alert(1)</script>\n\tx = 1\27[2J\n")
    assert(report.write(r, dir))
    local html = files.read(dir .. "/report.html")
    local shown = "-- &lt;script&gt;alert(1)&lt;/script&gt;\n\tx = 1\\x1b[2J"
    assert.truthy(html:find(shown, 1, true))
    os.remove(dir .. "/script.lua")
    assert(uv.fs_symlink("/etc/passwd", dir .. "/script.lua"))
    assert(report.write(r, dir))
    assert.is_nil(files.read(dir .. "/report.html"):find("root:", 1, true))
    run.remove(dir)
  end)
  it("keeps a cell's number for sorting, also where it is endless or missing", function()
    local points = {{{a = 1, m = "x"}, {y = 1 / 0}}, {{a = 2, m = "x"}, {}, "failed", "why"},
      {{a = 3, m = "x"}, {y = 0 / 0}}, {{a = 4, m = "x"}, {y = 0.25}}}
    local html, dir = page_of(results(points, {}))
    for _, cell in ipairs {'data-v="Infinity">inf<', '<td class="n">NaN<', '<td class="n">-<',
      'data-v="0.25">250 ms<'} do
      assert.truthy(html:find(cell, 1, true), cell)
    end
    run.remove(dir)
  end)
  it("says how the results were measured", function()
    local html, dir = page_of(results(data, {}))
    assert.truthy(html:find("Each point was measured in 3 rounds; a round visits", 1, true))
    assert.truthy(html:find("1 run on: a `cpu`", 1, true))
    run.remove(dir)
  end)
  it("of 1000 points and ten figures is below 3 MB", function()
    local points, ten = {}, {}
    for i = 1, 1000 do
      points[i] = {{a = i % 100, m = "m" .. i // 100}, {y = {i, i + 1, i + 2}, z = i}}
    end
    for i = 1, 10 do ten[i] = {kind = "line", x = "a", y = "y", by = "m", name = "f" .. i} end
    local html, dir = page_of(results(points, ten))
    assert.same(10, select(2, html:gsub("<figure", "")))
    assert.is_true(#html < 3 * 2 ^ 20, #html)
    run.remove(dir)
  end)
end)

describe("a report for LaTeX", function()
  it("has tables of booktabs, and no letter of a text is a command", function()
    local title = "50% \\input{x} $"
    local r = results(data, {{kind = "line", x = "a", y = "y", by = "m", title = title}})
    r.about = "#1 & {x}_y^2 ~ \\write18{id}"
    local dir = drawn(r)
    assert(report.write(r, dir, {"tex"}))
    local tex = files.read(dir .. "/report.tex")
    for _, part in ipairs {"\\toprule", "\\bottomrule", "{plots/01-y.pdf}",
      "\\#1 \\& \\{x\\}\\_y\\textasciicircum{}2 \\textasciitilde{} ",
      "\\textbackslash{}write18\\{id\\}",
      "50\\% \\textbackslash{}input\\{x\\} \\$"} do
      assert.truthy(tex:find(part, 1, true), part)
    end
    assert.is_nil(files.kind(dir .. "/report.html"))
    run.remove(dir)
  end)
end)

describe("attune report", function()
  local script = [[
    return require "attune.experiment" {
      name = "tiny", about = "Is <it> & small?", grid = {n = {1, 2}}, rounds = 1, timing = false,
      trial = function(p) return {y = p.n} end,
      claims = {{"y is n", function(r) return r:values("y")[2] == 2 end}},
    }]]

  it("holds the script as it was run, and its limits", function()
    local dir, path = run.folder(), run.script(script)
    assert.same(0, select(2, run.attune(("run %s --out '%s'"):format(path, dir))))
    assert.same(script, files.read(dir .. "/script.lua"))
    local html = files.read(dir .. "/report.html")
    for _, part in ipairs {
      "Is &lt;it&gt; &amp; small?&quot;, grid = {n", "A trial was ended after 10 min",
      "Trials may have run beside each other.",
    } do
      assert.truthy(html:find(part, 1, true), part)
    end
    run.remove(dir, path)
  end)
  it("--index lists the folders of results, with links to their reports", function()
    local dir, path = run.folder(), run.script(script)
    files.make_folder(dir)
    local name = "a b#<%"
    local _, status = run.attune(("run %s --out '%s/%s'"):format(path, dir, name))
    assert.same(0, status)
    files.make_folder(dir .. "/other")
    files.make_folder(dir .. "/broken")
    files.write(dir .. "/broken/experiment.json", "{}")
    local said
    said, status = run.attune(("report '%s' --index"):format(dir))
    assert.same(0, status, said)
    local html = files.read(dir .. "/index.html")
    for _, part in ipairs {'href="./a%20b%23%3C%25/report.html">tiny in a b#&lt;%</a>',
      "Is &lt;it&gt; &amp; small?", "1 held", "<li>broken: "} do
      assert.truthy(html:find(part, 1, true), part)
    end
    assert.is_nil(html:find(">other<", 1, true))
    run.remove(dir, path)
  end)
  it("says what it expected of a folder and of options", function()
    local dir = run.folder()
    files.make_folder(dir)
    for arguments, pattern in pairs {
      [("report '%s' --index"):format(dir)] = "expected folders of results, got none",
      [("report '%s' --to pdf"):format(dir)] = "expected html, md or tex, got 'pdf'\n",
      [("plot '%s' --theme foo"):format(dir)] =
        "--theme: expected screen, print, dark, slides, got 'foo'\n",
      ["report /nowhere --index"] = "expected a folder that holds folders of results, got nothing",
    } do
      local said, status = run.attune(arguments)
      assert.same(2, status)
      assert.truthy(said:find(pattern, 1, true), said)
    end
    run.remove(dir)
  end)
end)

describe("points without a result", function()
  it("are named in every format, with their status in the table", function()
    run.with_folder(function(folder)
      local script, dir = run.script [[return require "attune.experiment" {name = "t",
        timing = false, rounds = 1, grid = {n = {1, 2, 3}}, trial = function(p)
          if p.n == 2 then return nil, "too long\nfor this model" end
          if p.n == 3 then error "broken" end
          return {m = p.n}
        end}]], folder .. "/r"
      run.attune(("run %s --out %s"):format(script, dir))
      run.attune(("report %s --to html,md,tex"):format(dir))
      for _, name in ipairs {"report.md", "report.html", "report.tex"} do
        local content = files.read(dir .. "/" .. name)
        assert.matches("too long for this model", content, 1, true)
        assert.matches("1 point: n 2)", content, 1, true)
        assert.matches("1 point: n 3)", content, 1, true)
      end
      assert.matches("| n | status | m |", files.read(dir .. "/report.md"), 1, true)
      assert.matches("| 2 | skipped |", files.read(dir .. "/report.md"), 1, true)
      run.remove(script)
    end)
  end)
end)
