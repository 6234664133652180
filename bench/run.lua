--- make bench: ours beside the machine's ceilings, interleaved. lua5.4 bench/run.lua [--rounds N]
--- [--write FILE] [--rows] [PATTERN ..]
-- --rows: the table's rows alone. Figures of an instruction set that is not the one in use come
-- from a process of its own, after the others.
package.path = "./?.lua;" .. package.path
local attune = require "attune"
local cases = require "bench.cases"
local ceilings = require "bench.ceilings"
local rounds = require "bench.rounds"
local stats = require "attune.results.statistics"
local text = require "attune.util.text"

local count, write, rows_alone, patterns = 9, nil, false, {}
do
  local i = 1
  while arg[i] do
    if arg[i] == "--rounds" then
      count, i = assert(math.tointeger(tonumber(arg[i + 1])), "--rounds: expected a number"), i + 1
    elseif arg[i] == "--write" then write, i = assert(arg[i + 1], "--write: expected a file"), i + 1
    elseif arg[i] == "--rows" then rows_alone = true
    else patterns[#patterns + 1] = arg[i] end
    i = i + 1
  end
end

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

local function progress(round, case)
  if os.getenv "TERM" and require "luv".guess_handle(2) == "tty" then
    io.stderr:write(("\r\27[Kround %d of %d: %s"):format(round, count, case.name))
  end
end

local samples = rounds.measure(chosen, count, progress)
io.stderr:write "\r\27[K"

local out = {}
local function line(...) out[#out + 1] = (...):format(select(2, ...)) end

line("# Measured")
line("")
line("%s, %d cores, %d threads, instruction set %s, L2 %s, L3 %s; attune %s, %s; %d rounds; made "
  .. "by `make bench`.",
  machine.cpu, machine.cores, attune.threads(), machine.isa,
  text.quantity(
    machine.l2, "B"
  ), text.quantity(machine.l3, "B"), attune.version, os.date "!%Y-%m-%d", count)
line("")
line(
  "Ratios, each to readings of the ceiling before and after it in the same round; the median of "
    .. "the rounds, with quartiles. roofline: what max(bytes / read, operations / fma) allows. A "
    .. "round in which something exceeds a peak is void."
)
line("")
local function rows_of(figures)
  for _, f in ipairs(figures) do
    local r = rounds.figure(f, samples)
    line("| %s | %s | %s | %s | %.2f%s | %d (%d) |", f[1],
      r.median and ("%.3f"):format(r.median) or "-", f.told or f.of,
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
  assert(child:close(), "bench: a process with another instruction set failed")
end

if #shown + #elsewhere > 0 then
  line("| work | share | of | quartiles | goal | rounds (void) |")
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
