--- report.html: one file with the figures inside. It fetches nothing; its only script sorts tables.
local content = require "attune.report.content"
local inline = require "attune.report.inline"
local repeats = require "attune.results.repeats"
local stats = require "attune.results.statistics"
local style = require "attune.report.style"

local escape = inline.escape
local html = {}

-- Appends a formatted line; the arguments are already escaped.
local function add(out, format, ...) out[#out + 1] = format:format(...) end

local function add_claims(results, out)
  if #results.claims == 0 then return end
  add(out, '<ul class="claims" aria-label="Claims">')
  for _, c in ipairs(results.claims) do
    local verdict, origin = escape(c.verdict), content.origin(c)
    local detail = c.detail and escape(c.detail:match "^[^\n]*") or ""
    if origin then detail = escape(origin) .. (detail ~= "" and "; ours: " .. detail or "") end
    add(out, '<li class="%s"><span class="verdict">%s</span>%s%s</li>', verdict, verdict,
      escape(c.text), detail ~= "" and ('<div class="detail">%s</div>'):format(detail) or "")
  end
  add(out, "</ul>")
end

local function add_figure(f, i, out)
  if not f.svg then
    add(out, '<p class="note">Figure “%s” is left out: %s.</p>', escape(f.title), escape(f.why))
    return
  end
  add(out, '<figure id="figure-%d">', i)
  out[#out + 1] = inline.svg(f.svg, ("f%d-"):format(i), f.title, f.figure)
  local caption = f.caption and f.caption .. " " or ""
  local conditions = f.conditions ~= "" and "Conditions: " .. f.conditions .. "." or ""
  -- A page that was sent alone has no files beside it, so that these are no links.
  add(out, "<figcaption>%s%s Data: plots/%s.tsv, script for gnuplot: plots/%s.gp.</figcaption>",
    escape(caption), escape(conditions), f.name, f.name)
  for _, note in ipairs(f.notes) do add(out, '<p class="note">%s</p>', escape(note)) end
  add(out, "</figure>")
end

local function add_figures(results, dir, out)
  local figures = content.figures(results, dir)
  if #figures > 0 then add(out, '<h2 id="figures">Figures</h2>') end
  for i, f in ipairs(figures) do add_figure(f, i, out) end
end

-- A number that the page's script sorts by.
local function sort_value(value)
  if math.type(value) == "integer" then return ("%d"):format(value) end
  if value == math.huge then return "Infinity" end
  if value == -math.huge then return "-Infinity" end
  return ("%.17g"):format(value)
end

local function cell_html(column, cell)
  local class = column.numeric and ' class="n"' or ""
  local has_value = type(cell.value) == "number" and cell.value == cell.value
  local value = has_value and (' data-v="%s"'):format(sort_value(cell.value)) or ""
  local title = cell.detail and (' title="%s"'):format(escape(cell.detail)) or ""
  local spread = cell.spread and ("<small>%s</small>"):format(escape(cell.spread)) or ""
  return ("<td%s%s%s>%s%s</td>"):format(class, value, title, escape(cell.text), spread)
end

--- A table whose columns can be sorted, in a region that scrolls.
---@param out string[]
---@param caption string escaped
---@param columns {name: string, numeric: boolean?}[]
---@param rows string[] escaped cells
function html.add_table(out, caption, columns, rows)
  local head = {}
  for i, c in ipairs(columns) do
    local class = c.numeric and ' class="n"' or ""
    head[i] = ('<th scope="col"%s>%s</th>'):format(class, escape(c.name))
  end
  add(out, '<div class="scroll" tabindex="0" role="region" aria-label="%s">', caption)
  add(out, '<table class="sortable"><caption>%s</caption>', caption)
  add(out, "<thead><tr>%s</tr></thead><tbody>", table.concat(head))
  for _, row in ipairs(rows) do add(out, "<tr>%s</tr>", row) end
  add(out, "</tbody></table></div>")
end

local function add_points(results, out)
  add(out, '<h2 id="points">All points</h2>')
  local columns, rows = content.table(results)
  local lines = {}
  for r, row in ipairs(rows) do
    local cells = {}
    for i, c in ipairs(columns) do cells[i] = cell_html(c, row[i]) end
    lines[r] = table.concat(cells)
  end
  local sentence = stats.sentence(results.points, true, repeats.word(results))
  local caption = ("%d points. %s"):format(#rows, sentence)
  html.add_table(out, escape(caption), columns, lines)
end

local function add_missing(results, out)
  local groups = content.missing(results)
  if #groups == 0 then return end
  add(out, '<h2 id="missing">Points without a result</h2><ul>')
  for _, g in ipairs(groups) do
    add(out, '<li><b>%s</b>: %s <span class="detail">(%s)</span></li>',
      escape(g.status), escape(g.reason), escape(content.points_text(g)))
  end
  add(out, "</ul>")
end

local function add_warnings(results, out)
  if #results.warnings == 0 then return end
  add(out, "<h2>Warnings</h2><ul>")
  for _, w in ipairs(results.warnings) do add(out, "<li>%s</li>", escape(w)) end
  add(out, "</ul>")
end

local function add_method(results, out)
  add(out, '<h2 id="method">Method</h2><ul>')
  for _, sentence in ipairs(content.method(results)) do
    add(out, "<li>%s</li>", escape(sentence))
  end
  add(out, "</ul><h2>Machine and provenance</h2>")
  for i, p in ipairs(results.provenance) do
    add(out, '<table class="facts"><caption>Run %d</caption>', i)
    for _, row in ipairs(content.provenance(p)) do
      add(out, '<tr><th scope="row">%s</th><td>%s</td></tr>', escape(row[1]), escape(row[2]))
    end
    add(out, "</table>")
  end
end

local function add_script(results, dir, out)
  local script = content.script(dir)
  if script then
    add(out, '<h2 id="script">Script</h2><pre tabindex="0" aria-label="The script">')
    out[#out] = out[#out] .. escape(script, "\n\t") .. "</pre>"
  end
  local commands = table.concat(content.commands(results), "\n")
  add(out, '<h2 id="again">How to run it again</h2><pre>%s</pre>', escape(commands, "\n"))
end

--- The begin of a page.
---@param out string[]
---@param title string
function html.begin(out, title)
  add(out, '<!doctype html><html lang="en"><head><meta charset="utf-8">')
  -- Whatever a text might smuggle in: nothing is fetched and nothing else runs.
  add(out, '<meta http-equiv="Content-Security-Policy" content="%s">', style.policy)
  add(out, '<meta name="viewport" content="width=device-width,initial-scale=1">')
  add(out, "<title>%s</title><style>%s</style></head>", escape(title), style.css)
  add(out, '<body><a class="skip" href="#main">To the content</a><main id="main">')
end

--- The end of a page.
---@param out string[]
function html.finish(out) add(out, "</main><script>%s</script></body></html>\n", style.js) end

local function add_contents(results, dir, out)
  local entries = {{"points", "All points"}, {"method", "Method"}, {"again", "How to run it again"}}
  if #results.plots > 0 then table.insert(entries, 1, {"figures", "Figures"}) end
  if content.script(dir) then table.insert(entries, #entries, {"script", "Script"}) end
  local links = {}
  for i, e in ipairs(entries) do links[i] = ('<li><a href="#%s">%s</a></li>'):format(e[1], e[2]) end
  add(out, '<nav aria-label="Contents"><ul>%s</ul></nav>', table.concat(links))
end

local quick_sentence = " This was a quick run: it has fewer points than the whole experiment."

--- The page as one string.
---@param results attune.Results
---@param dir string
---@return string
function html.page(results, dir)
  local out = {}
  html.begin(out, results.name)
  add(out, '<h1>%s</h1><p class="about">%s</p>', escape(results.name), escape(results.about or ""))
  local verdicts = content.verdicts(results)
  add(out, "<p>%s%s%s</p>", escape(content.summary(results)),
    results.quick and quick_sentence or "", verdicts ~= "" and " Claims: " .. verdicts .. "." or "")
  add_claims(results, out)
  add_contents(results, dir, out)
  add_figures(results, dir, out)
  add_points(results, out)
  add_missing(results, out)
  add_warnings(results, out)
  add_method(results, out)
  add_script(results, dir, out)
  html.finish(out)
  return table.concat(out, "\n")
end

return html
