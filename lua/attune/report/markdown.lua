--- report.md: the report for a repository, with links to the files of the figures.
local content = require "attune.report.content"
local repeats = require "attune.results.repeats"
local stats = require "attune.results.statistics"
local text = require "attune.util.text"

-- Every character that Markdown reads as more than itself.
local function escape(s) return (text.printable(s):gsub("[\\`*_{}%[%]<>#|&~$]", "\\%0")) end

-- A text that begins a line, where signs of lists, rules and titles count too.
local function escape_line(s)
  return (escape(s):gsub("^%s*([-+=])", "\\%1"):gsub("^%s*(%d+)([.)])", "%1\\%2"))
end

local function add(out, format, ...) out[#out + 1] = format:format(...) end

local function add_claims(results, out)
  for _, c in ipairs(results.claims) do
    local parts = {content.origin(c)}
    parts[#parts + 1] = c.detail and c.detail:match "^[^\n]*"
    local detail = #parts > 0 and (" (%s)"):format(escape(table.concat(parts, "; ours: "))) or ""
    add(out, "- **%s**: %s%s", escape(c.verdict), escape(c.text), detail)
  end
end

local function add_figures(results, dir, out)
  for _, f in ipairs(content.figures(results, dir)) do
    if f.svg then
      local caption = f.caption and f.caption .. " " or ""
      local conditions = f.conditions ~= "" and "Conditions: " .. f.conditions .. "." or ""
      add(out, "\n![%s](plots/%s.svg)\n\n%s%s", escape(f.figure.words or f.title), f.name,
        escape_line(caption), escape(conditions))
      add(out, "\n[Data](plots/%s.tsv), [script for gnuplot](plots/%s.gp).", f.name, f.name)
      for _, note in ipairs(f.notes) do add(out, "\n%s", escape_line(note)) end
    else
      add(out, "\nFigure “%s” is left out: %s.", escape(f.title), escape(f.why))
    end
  end
end

local function add_table(results, out)
  local sentence = stats.sentence(results.points, true, repeats.word(results))
  add(out, "\n## All points\n\n%s\n", escape(sentence))
  local columns, rows = content.table(results)
  local head, rule = {}, {}
  for i, c in ipairs(columns) do head[i], rule[i] = escape(c.name), c.numeric and "--:" or ":--" end
  add(out, "| %s |", table.concat(head, " | "))
  add(out, "| %s |", table.concat(rule, " | "))
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      local spread = cell.spread and (" (%s)"):format(escape(cell.spread)) or ""
      cells[i] = escape(cell.text) .. spread
    end
    add(out, "| %s |", table.concat(cells, " | "))
  end
end

local function add_missing(results, out)
  local groups = content.missing(results)
  if #groups > 0 then add(out, "\n## Points without a result\n") end
  for _, g in ipairs(groups) do
    add(out, "- **%s**: %s (%s)", escape(g.status), escape(g.reason),
      escape(content.points_text(g)))
  end
end

local function add_method(results, out)
  add(out, "\n## Method\n")
  for _, sentence in ipairs(content.method(results)) do add(out, "- %s", escape_line(sentence)) end
end

local function add_provenance(results, out)
  add(out, "\n## Machine and provenance\n")
  for _, p in ipairs(results.provenance) do
    for _, row in ipairs(content.provenance(p)) do
      add(out, "- %s: %s", escape(row[1]), escape(row[2]))
    end
    add(out, "")
  end
end

--- The report as one string.
---@param results attune.Results
---@param dir string
---@return string
return function(results, dir)
  local out = {}
  add(out, "# %s\n", escape(results.name))
  add(out, "%s\n", escape_line(results.about or ""))
  add(out, "%s\n", escape(content.summary(results)))
  add_claims(results, out)
  add_figures(results, dir, out)
  add_table(results, out)
  add_missing(results, out)
  if #results.warnings > 0 then add(out, "\n## Warnings\n") end
  for _, w in ipairs(results.warnings) do add(out, "- %s", escape_line(w)) end
  add_method(results, out)
  add_provenance(results, out)
  local script = content.script(dir)
  if script then
    -- Four blanks before a line make it code, whatever is in it.
    local lines = text.printable(script, "\n\t"):gsub("\n", "\n    ")
    add(out, "## Script\n\n    %s\n", lines)
  end
  local commands = table.concat(content.commands(results), "\n    ")
  add(out, "## How to run it again\n\n    %s\n", commands)
  return table.concat(out, "\n")
end
