--- report.html: one file with the figures inside. It fetches nothing and has no script.
local content = require "attune.report.content"
local stats = require "attune.results.statistics"
local text = require "attune.util.text"

local entities = {
  ["&"] = "&amp;",
  ["<"] = "&lt;",
  [">"] = "&gt;",
  ['"'] = "&quot;",
  ["'"] = "&#39;",
}

-- Control characters, and characters that reorder the text around them, become visible.
local function escape(s, keep) return (text.printable(s, keep):gsub("[&<>\"']", entities)) end

local style = [[
:root {
  --ink: #1d1d1f; --quiet: #5f6368; --line: #dcdfe3; --ground: #fff; --soft: #f6f7f9;
  --good: #00704f; --bad: #b3261e; --open: #8a5a00;
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1060px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; }
.about { font-size: 1.1rem; color: var(--quiet); margin: 0 0 1rem; }
.claims { list-style: none; padding: 0; margin: 1rem 0; }
.claims li {
  border-left: 4px solid var(--line); padding: .35rem .9rem; margin: .6rem 0;
  background: var(--soft);
}
.claims .held { border-color: var(--good); }
.claims .failed { border-color: var(--bad); }
.claims .undecided { border-color: var(--open); }
.verdict { font-weight: 650; margin-right: .5em; }
.held .verdict { color: var(--good); }
.failed .verdict { color: var(--bad); }
.undecided .verdict { color: var(--open); }
.detail { color: var(--quiet); font-size: .92rem; }
figure { margin: 1.6rem 0 2.2rem; }
figure img {
  display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 6px;
}
figcaption { color: var(--quiet); font-size: .92rem; margin-top: .5rem; }
.note { color: var(--open); font-size: .92rem; margin: .3rem 0 0; }
.scroll {
  overflow-x: auto; overflow-y: auto; max-height: 34rem; border: 1px solid var(--line);
  border-radius: 6px;
}
table {
  border-collapse: collapse; font-size: .88rem; width: 100%; font-variant-numeric: tabular-nums;
}
th, td {
  padding: .34rem .7rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
thead th { position: sticky; top: 0; background: var(--soft); font-weight: 600; }
td.n, th.n { text-align: right; }
small { display: block; color: var(--quiet); font-size: .78rem; }
.facts th { font-weight: 500; color: var(--quiet); width: 11rem; vertical-align: top; }
.facts td { white-space: normal; overflow-wrap: anywhere; }
pre {
  background: var(--soft); border: 1px solid var(--line); border-radius: 6px;
  padding: .8rem 1rem; overflow-x: auto; font-size: .86rem;
}
@media (max-width: 600px) {
  main { padding: 1.2rem .9rem 3rem; }
  h1 { font-size: 1.5rem; }
  .facts th { width: auto; }
  .facts td, .facts th { display: block; border: 0; padding: .1rem .7rem; }
  .facts tr { display: block; padding: .35rem 0; border-bottom: 1px solid var(--line); }
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e8e8ea; --quiet: #a6abb3; --line: #3a3d42; --ground: #17181a; --soft: #212327;
    --good: #4cc38a; --bad: #ff8a80; --open: #f0b95a;
  }
}
@media print {
  main { max-width: none; padding: 0; }
  .scroll { max-height: none; overflow: visible; }
  h2 { break-after: avoid; }
  figure { break-inside: avoid; }
}
]]

local base64_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

-- Each figure becomes an image with encoded data: several SVGs inside one page would share ids.
local function base64(s)
  local out = {}
  for i = 1, #s, 3 do
    local a, b, c = s:byte(i, i + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    local function digit(shift)
      local d = (n >> shift & 63) + 1
      return base64_digits:sub(d, d)
    end
    out[#out + 1] = digit(18) .. digit(12) .. (b and digit(6) or "=") .. (c and digit(0) or "=")
  end
  return table.concat(out)
end

-- Appends a formatted line; the arguments are already escaped.
local function add(out, format, ...) out[#out + 1] = format:format(...) end

local function add_claims(results, out)
  if #results.claims == 0 then return end
  add(out, '<ul class="claims">')
  for _, c in ipairs(results.claims) do
    local verdict, detail = escape(c.verdict), ""
    if c.detail then
      detail = ('<div class="detail">%s</div>'):format(escape(c.detail:match "^[^\n]*"))
    end
    add(out, '<li class="%s"><span class="verdict">%s</span>%s%s</li>', verdict, verdict,
      escape(c.text), detail)
  end
  add(out, "</ul>")
end

local function add_figures(results, dir, out)
  for _, f in ipairs(content.figures(results, dir)) do
    if f.svg then
      local caption = f.caption and f.caption .. " " or ""
      local conditions = f.conditions ~= "" and "Conditions: " .. f.conditions .. "." or ""
      add(out, '<figure><img alt="%s" src="data:image/svg+xml;base64,%s">', escape(f.title),
        base64(f.svg))
      add(out, "<figcaption>%s%s</figcaption>", escape(caption), escape(conditions))
      for _, note in ipairs(f.notes) do add(out, '<p class="note">%s</p>', escape(note)) end
      add(out, "</figure>")
    else
      add(out, '<p class="note">Figure “%s” is left out: %s.</p>', escape(f.title), escape(f.why))
    end
  end
end

local function cell_html(column, cell)
  local class = column.numeric and ' class="n"' or ""
  local title = cell.detail and (' title="%s"'):format(escape(cell.detail)) or ""
  local spread = cell.spread and ("<small>%s</small>"):format(escape(cell.spread)) or ""
  return ("<td%s%s>%s%s</td>"):format(class, title, escape(cell.text), spread)
end

local function add_table(results, out)
  local columns, rows = content.table(results)
  local head = {}
  for i, c in ipairs(columns) do
    head[i] = ("<th%s>%s</th>"):format(c.numeric and ' class="n"' or "", escape(c.name))
  end
  add(out, '<div class="scroll"><table><thead><tr>%s</tr></thead><tbody>', table.concat(head))
  for _, row in ipairs(rows) do
    local cells = {}
    for i, c in ipairs(columns) do cells[i] = cell_html(c, row[i]) end
    add(out, "<tr>%s</tr>", table.concat(cells))
  end
  add(out, "</tbody></table></div>")
end

local max_listed_points = 3

local function add_missing(results, out)
  local groups = content.missing(results)
  if #groups == 0 then return end
  add(out, "<h2>Points without a result</h2><ul>")
  for _, g in ipairs(groups) do
    local count = #g.points
    local listed = table.concat(g.points, "; ", 1, math.min(max_listed_points, count))
    add(out, '<li><b>%s</b>: %s <span class="detail">(%d point%s: %s%s)</span></li>',
      escape(g.status), escape(g.reason), count, count == 1 and "" or "s", escape(listed),
      count > max_listed_points and "; .." or "")
  end
  add(out, "</ul>")
end

local function add_warnings(results, out)
  if #results.warnings == 0 then return end
  add(out, "<h2>Warnings</h2><ul>")
  for _, w in ipairs(results.warnings) do add(out, "<li>%s</li>", escape(w)) end
  add(out, "</ul>")
end

local function add_provenance(results, out)
  add(out, "<h2>Machine and provenance</h2>")
  for _, p in ipairs(results.provenance) do
    add(out, '<table class="facts">')
    for _, row in ipairs(content.provenance(p)) do
      add(out, "<tr><th>%s</th><td>%s</td></tr>", escape(row[1]), escape(row[2]))
    end
    add(out, "</table>")
  end
end

local policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
  .. "form-action 'none'"
local quick_sentence = " This was a quick run: it has fewer points than the whole experiment."

--- The page as one string.
---@param results attune.Results
---@param dir string
---@return string
return function(results, dir)
  local out = {}
  add(out, '<!doctype html><html lang="en"><head><meta charset="utf-8">')
  -- Whatever a text might smuggle in: nothing is fetched and nothing runs.
  add(out, '<meta http-equiv="Content-Security-Policy" content="%s">', policy)
  add(out, '<meta name="viewport" content="width=device-width,initial-scale=1">')
  add(out, "<title>%s</title><style>\n%s</style></head>", escape(results.name), style)
  add(out, '<body><main><h1>%s</h1><p class="about">%s</p>', escape(results.name),
    escape(results.about or ""))
  add(out, "<p>%s%s</p>", escape(content.summary(results)),
    results.quick and quick_sentence or "")
  add_claims(results, out)
  add_figures(results, dir, out)
  add(out, '<h2>All points</h2><p class="detail">%s</p>', escape(stats.sentence(results.points)))
  add_table(results, out)
  add_missing(results, out)
  add_warnings(results, out)
  add_provenance(results, out)
  local commands = table.concat(content.commands(results), "\n")
  add(out, "<h2>How to reproduce</h2><pre>%s</pre></main></body></html>\n", escape(commands, "\n"))
  return table.concat(out, "\n")
end
