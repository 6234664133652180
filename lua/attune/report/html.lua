--- report.html: one file, figures inline, nothing fetched, no script.
local content = require "attune.report.content"
local files = require "attune.util.files"

local function escape(s)
  return (tostring(s):gsub("[%z\1-\8\11\12\14-\31]", " "):gsub("[&<>\"']", {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;"}))
end

local style = [[
:root{--ink:#1d1d1f;--quiet:#5f6368;--line:#dcdfe3;--ground:#fff;--soft:#f6f7f9;--good:#00704f;--bad:#b3261e;--open:#8a5a00}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1060px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:.2rem 0 .4rem}h2{font-size:1.25rem;margin:2.6rem 0 .8rem}
.about{font-size:1.1rem;color:var(--quiet);margin:0 0 1rem}
.claims{list-style:none;padding:0;margin:1rem 0}.claims li{border-left:4px solid var(--line);padding:.35rem .9rem;margin:.6rem 0;background:var(--soft)}
.claims .held{border-color:var(--good)}.claims .failed{border-color:var(--bad)}.claims .undecided{border-color:var(--open)}
.verdict{font-weight:650;margin-right:.5em}.held .verdict{color:var(--good)}.failed .verdict{color:var(--bad)}.undecided .verdict{color:var(--open)}
.detail{color:var(--quiet);font-size:.92rem}
figure{margin:1.6rem 0 2.2rem}figure img{display:block;width:100%;height:auto;background:#fff;border:1px solid var(--line);border-radius:6px}
figcaption{color:var(--quiet);font-size:.92rem;margin-top:.5rem}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:6px;max-height:34rem;overflow-y:auto}
table{border-collapse:collapse;font-size:.88rem;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.34rem .7rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}
thead th{position:sticky;top:0;background:var(--soft);font-weight:600}td.n,th.n{text-align:right}
small{display:block;color:var(--quiet);font-size:.78rem}
.facts th{font-weight:500;color:var(--quiet);width:11rem;vertical-align:top}.facts td{white-space:normal;overflow-wrap:anywhere}
pre{background:var(--soft);border:1px solid var(--line);border-radius:6px;padding:.8rem 1rem;overflow-x:auto;font-size:.86rem}
@media (max-width:600px){main{padding:1.2rem .9rem 3rem}h1{font-size:1.5rem}.facts th{width:auto}.facts td,.facts th{display:block;border:0;padding:.1rem .7rem}.facts tr{display:block;padding:.35rem 0;border-bottom:1px solid var(--line)}.wide img{width:860px;max-width:none}.wide{overflow-x:auto}}
@media (prefers-color-scheme:dark){:root{--ink:#e8e8ea;--quiet:#a6abb3;--line:#3a3d42;--ground:#17181a;--soft:#212327;--good:#4cc38a;--bad:#ff8a80;--open:#f0b95a}}
@media print{main{max-width:none;padding:0}.scroll{max-height:none;overflow:visible}h2{break-after:avoid}figure{break-inside:avoid}}
]]

local base64_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

-- A picture of its own as an image: several SVGs in one page would share their ids.
local function base64(s)
  local out = {}
  for i = 1, #s, 3 do
    local a, b, c = s:byte(i, i + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    local function digit(shift) local d = (n >> shift & 63) + 1 return base64_digits:sub(d, d) end
    out[#out + 1] = digit(18) .. digit(12) .. (b and digit(6) or "=") .. (c and digit(0) or "=")
  end
  return table.concat(out)
end

local function claims_part(results, out)
  if #results.claims == 0 then return end
  out[#out + 1] = '<ul class="claims">'
  for _, c in ipairs(results.claims) do
    out[#out + 1] = ('<li class="%s"><span class="verdict">%s</span>%s%s</li>'):format(escape(c.verdict), escape(c.verdict), escape(c.text),
      c.detail and ('<div class="detail">%s</div>'):format(escape(c.detail:match "^[^\n]*")) or "")
  end
  out[#out + 1] = "</ul>"
end

local function figures_part(results, dir, out)
  for _, f in ipairs(content.figures(results)) do
    local svg = files.read(("%s/plots/%s.svg"):format(dir, f.name))
    if svg then
      out[#out + 1] = ('<figure><div class="wide"><img alt="%s" src="data:image/svg+xml;base64,%s"></div><figcaption>%s%s</figcaption></figure>'):format(escape(f.title), base64(svg),
        escape(f.caption and f.caption .. " " or ""), f.conditions ~= "" and escape("Conditions: " .. f.conditions .. ".") or "")
    end
  end
end

local function table_part(results, out)
  local columns, rows = content.table(results)
  local head = {}
  for i, c in ipairs(columns) do head[i] = ('<th%s>%s</th>'):format(c.numeric and ' class="n"' or "", escape(c.name)) end
  out[#out + 1] = '<div class="scroll"><table><thead><tr>' .. table.concat(head) .. "</tr></thead><tbody>"
  for _, row in ipairs(rows) do
    local cells = {}
    for i, c in ipairs(columns) do
      local cell = row[i]
      cells[i] = ('<td%s%s>%s%s</td>'):format(c.numeric and ' class="n"' or "", cell.detail and (' title="%s"'):format(escape(cell.detail)) or "", escape(cell.text),
        cell.spread and ("<small>%s</small>"):format(escape(cell.spread)) or "")
    end
    out[#out + 1] = "<tr>" .. table.concat(cells) .. "</tr>"
  end
  out[#out + 1] = "</tbody></table></div>"
end

local function missing_part(results, out)
  local groups = content.missing(results)
  if #groups == 0 then return end
  out[#out + 1] = "<h2>Points without a result</h2><ul>"
  for _, g in ipairs(groups) do
    out[#out + 1] = ("<li><b>%s</b>: %s <span class=\"detail\">(%d point%s: %s%s)</span></li>"):format(escape(g.status), escape(g.reason), #g.points, #g.points == 1 and "" or "s",
      escape(table.concat(g.points, "; ", 1, math.min(3, #g.points))), #g.points > 3 and "; .." or "")
  end
  out[#out + 1] = "</ul>"
end

--- The page as one text.
return function(results, dir)
  local out = {('<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>%s</title><style>%s</style></head><body><main>'):format(
    escape(results.name), style)}
  out[#out + 1] = ('<h1>%s</h1><p class="about">%s</p><p>%s%s</p>'):format(escape(results.name), escape(results.about or ""), escape(content.summary(results)),
    results.quick and " This was a quick run: fewer points than the experiment has." or "")
  claims_part(results, out)
  figures_part(results, dir, out)
  out[#out + 1] = "<h2>All points</h2><p class=\"detail\">Medians over the rounds; below them the 95% interval.</p>"
  table_part(results, out)
  missing_part(results, out)
  if #results.warnings > 0 then
    out[#out + 1] = "<h2>Warnings</h2><ul>"
    for _, w in ipairs(results.warnings) do out[#out + 1] = "<li>" .. escape(w) .. "</li>" end
    out[#out + 1] = "</ul>"
  end
  out[#out + 1] = "<h2>Machine and provenance</h2>"
  for _, p in ipairs(results.provenance) do
    out[#out + 1] = '<table class="facts">'
    for _, row in ipairs(content.provenance(p)) do out[#out + 1] = ("<tr><th>%s</th><td>%s</td></tr>"):format(escape(row[1]), escape(row[2])) end
    out[#out + 1] = "</table>"
  end
  out[#out + 1] = "<h2>To make it again</h2><pre>" .. escape(table.concat(content.commands(results), "\n")) .. "</pre></main></body></html>\n"
  return table.concat(out, "\n")
end
