--- make bench: times the kernels and compares them with the ceilings of this machine.
--
-- Figures of an instruction set other than the one in use are measured by a second process, which
-- prints its rows of the table (--rows).
package.path = "./?.lua;" .. package.path
local attune = require "attune"
local arguments = require "bench.arguments"
local cases = require "bench.cases"
local ceilings = require "bench.ceilings"
local rounds = require "bench.rounds"
local stats = require "attune.results.statistics"
local text = require "attune.util.text"

local args = arguments.read("bench/run.lua", "times the kernels", function(parser)
  parser:option("--write", "a file for the page, beside which pictures are drawn"):argname "FILE"
  parser:flag("--rows", "print only the rows of the table of figures")
end)
local count, write, rows_alone, patterns = args.rounds, args.write, args.rows, args.patterns

local function wanted(f)
  if #patterns == 0 then return true end
  for _, pattern in ipairs(patterns) do
    if f.case:find(pattern, 1, true) or f[1]:find(pattern, 1, true) then return true end
  end
  return false
end

local machine = attune.machine()
local function has(set)
  for _, isa in ipairs(machine.isas) do
    if isa == set then return true end
  end
end

-- needed: names of cases; chosen: the cases to run here; shown: figures of this process; elsewhere:
-- figures that another process measures.
local needed, chosen, shown, elsewhere = {}, {}, {}, {}
for _, f in ipairs(cases.figures) do
  if f.isa and f.isa ~= machine.isa then
    if wanted(f) and has(f.isa) then elsewhere[#elsewhere + 1] = f end
  elseif wanted(f) then
    shown[#shown + 1] = f
    needed[f.case] = true
    if f.of then needed[f.of] = true end
    for _, name in ipairs(f.needs or {}) do needed[name] = true end
  end
end
for _, c in ipairs(cases.cases) do
  if needed[c.name] or c.curve and (write or patterns[1] and c.name:find(patterns[1], 1, true)) then
    chosen[#chosen + 1] = c
  end
end
if #chosen == 0
    and #elsewhere == 0 and #patterns > 0 and not ("overheads"):find(patterns[1], 1, true) then
  io.stderr:write("bench: no figure matches ", table.concat(patterns, " "), "\n")
  os.exit(2)
end

local on_terminal = os.getenv "TERM" and require "luv".guess_handle(2) == "tty"
local function progress(round, case)
  if on_terminal then
    io.stderr:write(("\r\27[Kround %d of %d: %s"):format(round, count, case.name))
  end
end

local samples = rounds.measure(chosen, count, progress)
if on_terminal then io.stderr:write "\r\27[K" end

local out = {}
local function line(...) out[#out + 1] = (...):format(select(2, ...)) end

line("# Measured")
line("")
-- The commit that bench/base builds for a comparison with this page.
local function commit()
  local pipe = io.popen "git rev-parse HEAD 2>/dev/null"
  local hash = pipe and pipe:read "l"
  if pipe then pipe:close() end
  return hash or "unknown"
end

line("Made by `make bench`: %d rounds, attune %s, %s, commit", count, attune.version,
  os.date "!%Y-%m-%d")
line("%s,", commit())
line("%s, %d cores, %d threads, instruction set %s, L2 %s, L3 %s.",
  machine.cpu, machine.cores, attune.threads(), machine.isa,
  text.quantity(machine.l2, "B"), text.quantity(machine.l3, "B"))
line("")
line [[
A figure is the median ratio over the rounds, with quartiles. In every round a case is compared with
readings of its ceiling before and after it. "roofline" is the time that max(bytes / read,
operations / fma) allows. A round in which a case exceeds a peak is void.
]]
local function rows_of(figures)
  for _, f in ipairs(figures) do
    local r = rounds.figure(f, samples)
    line("| %s | %s | %s | %s | %.2f%s | %d (%d) |", f[1],
      r.median and ("%.3f"):format(r.median) or "-", f.target or f.of,
      r.median and ("%.3f to %.3f"):format(r.low, r.high) or "-", f.at_least,
      r.median and r.median < f.at_least and " missed" or "", r.n, r.void)
  end
end

if rows_alone then
  out = {}
  rows_of(shown)
  io.write(table.concat(out, "\n"), "\n")
  os.exit(0)
end

local function rows_from_elsewhere(f)
  local child = assert(
    io.popen(
      ("ATTUNE_ISA=%s lua5.4 bench/run.lua --rows --rounds %d '%s'"):format(f.isa, count, f.case)
    )
  )
  for row in child:lines() do line("%s", row) end
  assert(child:close(), "bench: the process with ATTUNE_ISA=" .. f.isa .. " failed")
end

if #shown + #elsewhere > 0 then
  line("| work | ratio | to | quartiles | goal | rounds (void) |")
  line("|---|--:|---|---|--:|--:|")
  rows_of(shown)
  for _, f in ipairs(elsewhere) do rows_from_elsewhere(f) end
  line("")
  line("| ceiling | median reading | range |")
  line("|---|--:|---|")
  for _, name in ipairs(ceilings.names) do
    local values = {}
    for _, c in ipairs(chosen) do
      for _, s in ipairs(samples[c.name]) do values[#values + 1] = s.ceiling[name] end
    end
    if #values > 0 then
      local c = ceilings.list[name]
      line(
        "| %s: %s | %s | %s to %s |", name, c.about, text.quantity(stats.median(values), c.unit),
        text.quantity(math.min(table.unpack(values)), c.unit),
        text.quantity(math.max(table.unpack(values)), c.unit)
      )
    end
  end
end
if wanted {case = "overheads", "overheads"} then
  line("")
  line("| overhead | measured | at most |")
  line("|---|--:|--:|")
  for _, o in ipairs(require "bench.overheads".measure()) do
    line(
      "| %s | %s | %s%s |", o[1], text.quantity(o[2], o[4]), text.quantity(o[3], o[4]),
      o[2] > o[3] and " missed" or ""
    )
  end
end
local page = table.concat(out, "\n") .. "\n"
io.write(page)
if write then
  require "bench.pictures".draw(write:match "^(.*/)" or "./", chosen, samples)
  local ok, why = require "attune.util.files".write(write, page)
  if not ok then
    io.stderr:write("bench: ", write, ": ", why, "\n")
    os.exit(1)
  end
end
