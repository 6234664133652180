--- One page over several experiments: each claim with its source, the figure of that source, ours
--- with its interval, the verdict, and the conditions.
local repeats = require "attune.results.repeats"
local text = require "attune.util.text"

local papers = {}

--- Where a claim was made and what was found there, such as "Shazeer 2019: 12.1".
---@param claim attune.ClaimVerdict
---@return string? origin nil for a claim of the script's own
function papers.origin(claim)
  local figure = claim.paper ~= nil and text.plain(claim.paper) or nil
  if claim.source and figure then return ("%s: %s"):format(claim.source, figure) end
  return claim.source or figure and "paper: " .. figure
end

-- A cell of a table in Markdown: nothing in it is more than a text.
local function cell(s) return (text.printable(s):gsub("[\\`*_{}%[%]<>#|&~$]", "\\%0")) end

local function number(x) return x and ("%.3g"):format(x) or "?" end

local max_detail_bytes = 300

-- "9.82 (geometric mean of 5 rounds, 8.9 to 10.8)", or what the claim says in words.
local function ours(claim, word)
  local q = claim.ours
  if not q or not q.centre then
    return claim.detail and text.cut(claim.detail:match "^[^\n]*", max_detail_bytes) or ""
  end
  local count = text.count(q.rounds, word)
  if not q.lo then return ("%s (%s, %s)"):format(number(q.centre), q.kind, count) end
  return ("%s (%s of %s, %s to %s)"):format(number(q.centre), q.kind, count, number(q.lo),
    number(q.hi))
end

-- The machine, the version and the time of the last run.
local function conditions(results)
  local run, parts = results.provenance[#results.provenance] or {}, {}
  if run.cpu then
    parts[1] = ("%s, %s threads, %s"):format(run.cpu, text.plain(run.threads or "?"),
      run.isa or "?")
  end
  if run.attune then
    local commit = run.git and run.git.commit and ", commit " .. run.git.commit:sub(1, 12) or ""
    parts[#parts + 1] = ("attune %s%s"):format(run.attune, commit)
  end
  parts[#parts + 1] = run.time
  if results.rounds then
    parts[#parts + 1] = results.rounds == 1 and "one round" or ("%d rounds"):format(results.rounds)
  end
  if results.quick then parts[#parts + 1] = "a --quick run, over part of the points" end
  return table.concat(parts, "; ")
end

--- The claims that name a source or a paper's figure.
---@param list attune.ClaimVerdict[]
---@return attune.ClaimVerdict[]
function papers.with_origin(list)
  local found = {}
  for _, claim in ipairs(list) do
    if papers.origin(claim) then found[#found + 1] = claim end
  end
  return found
end

local head = [[
# Claims of papers

What experiments/ measures or computes of what papers claim. Intervals are 95%. Held: the whole
interval is where the claim says; failed: all of it is elsewhere; undecided: neither. A paper's
figure is of its own model and machine.
]]

--- The page, in Markdown.
---@param list attune.Results[]
---@return string
function papers.page(list)
  local out = {head}
  for _, results in ipairs(list) do
    local found = papers.with_origin(results.claims)
    local word = repeats.word(results)
    if #found > 0 then
      out[#out + 1] = ("\n## %s\n"):format(cell(results.name))
      if results.about then out[#out + 1] = cell(results.about) .. "\n" end
      out[#out + 1] = "| Claim | Source | Paper | Here | Verdict |\n|:--|:--|:--|:--|:--|"
      for _, claim in ipairs(found) do
        out[#out + 1] = ("| %s | %s | %s | %s | %s |"):format(cell(claim.text),
          cell(claim.source or ""), cell(claim.paper == nil and "" or text.plain(claim.paper)),
          cell(ours(claim, word)), cell(claim.verdict))
      end
      out[#out + 1] = ("\nConditions: %s."):format(cell(conditions(results)))
    end
  end
  return table.concat(out, "\n") .. "\n"
end

return papers
