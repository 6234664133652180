--- report.tex: the report for a paper, with tables of booktabs. It compiles in the folder of
--- results with pdflatex (letters beyond Latin want lualatex), and its tables can be copied.
local content = require "attune.report.content"
local latex = require "attune.util.latex"
local repeats = require "attune.results.repeats"
local stats = require "attune.results.statistics"
local text = require "attune.util.text"

local function escape(s) return latex(text.printable(s)) end

local function add(out, format, ...) out[#out + 1] = format:format(...) end

local preamble = [[
\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=25mm]{geometry}
\usepackage{textcomp,amssymb,booktabs,longtable,graphicx}
\begin{document}]]

local function add_claims(results, out)
  if #results.claims == 0 then return end
  add(out, "\\section*{Claims}\n\\begin{itemize}")
  for _, c in ipairs(results.claims) do
    local parts = {content.origin(c)}
    parts[#parts + 1] = c.detail and c.detail:match "^[^\n]*"
    local detail = #parts > 0 and (" (%s)"):format(table.concat(parts, "; ours: ")) or ""
    add(out, "\\item \\textbf{%s}: %s", escape(c.verdict), escape(c.text .. detail))
  end
  add(out, "\\end{itemize}")
end

local function add_figures(results, dir, out)
  for _, f in ipairs(content.figures(results, dir)) do
    if f.svg then
      add(out, "\\begin{figure}[htbp]\n\\centering")
      add(out, "\\includegraphics[width=\\linewidth]{plots/%s.pdf}", f.name)
      local words = {escape(f.title) .. "."}
      words[#words + 1] = f.caption and escape(f.caption)
      if f.conditions ~= "" then
        words[#words + 1] = ("Conditions: %s."):format(escape(f.conditions))
      end
      for _, note in ipairs(f.notes) do words[#words + 1] = escape(note) end
      add(out, "\\caption{%s}\n\\end{figure}", table.concat(words, " "))
    else
      add(out, "Figure ``%s'' is left out: %s.\n", escape(f.title), escape(f.why))
    end
  end
end

local function add_table(results, out)
  local columns, rows = content.table(results)
  if #columns == 0 then return end
  local head, align = {}, {}
  for i, c in ipairs(columns) do
    head[i], align[i] = escape(c.name), c.numeric and "r" or "l"
  end
  local sentence = escape(stats.sentence(results.points, true, repeats.word(results)))
  add(out, "\\clearpage\n\\section*{All points}\n%s\n\n{\\small", sentence)
  add(out, "\\begin{longtable}{%s}\n\\toprule", table.concat(align))
  add(out, "%s \\\\\n\\midrule\n\\endhead\n\\bottomrule\n\\endfoot", table.concat(head, " & "))
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = escape(cell.text) end
    add(out, "%s \\\\", table.concat(cells, " & "))
  end
  add(out, "\\end{longtable}}")
end

local function add_list(title, list, out)
  if #list == 0 then return end
  add(out, "\\section*{%s}\n\\begin{itemize}", title)
  for _, sentence in ipairs(list) do add(out, "\\item %s", escape(sentence)) end
  add(out, "\\end{itemize}")
end

--- The report as one string.
---@param results attune.Results
---@param dir string
---@return string
return function(results, dir)
  local out = {preamble}
  add(out, "\\section*{%s}\n%s\n\n%s\n", escape(results.name), escape(results.about or ""),
    escape(content.summary(results)))
  add_claims(results, out)
  add_figures(results, dir, out)
  add_table(results, out)
  local missing = {}
  for i, g in ipairs(content.missing(results)) do
    missing[i] = ("%s: %s (%s)"):format(g.status, g.reason, content.points_text(g))
  end
  add_list("Points without a result", missing, out)
  add_list("Warnings", results.warnings, out)
  add_list("Method", content.method(results), out)
  add_list("How to run it again", content.commands(results), out)
  add(out, "\\end{document}\n")
  return table.concat(out, "\n")
end
