local text = require "attune.text"

local info = {summary = "what this machine is, and what it can do at best, measured now"}

function info.run()
  local core = require "attune.core"
  local m = core.machine()
  local rows = {{"attune", core.version}, {"build", core.build}, {"processor", m.cpu}, {"cores", tostring(m.cores)}, {"threads", tostring(core.threads())},
    {"caches", ("L1 %s, L2 %s, L3 %s"):format(text.quantity(m.l1, "B"), text.quantity(m.l2, "B"), text.quantity(m.l3, "B"))}, {"memory", text.quantity(m.memory, "B")},
    {"features", m.features}, {"sets here", table.concat(m.isas, " ")}, {"set in use", m.isa .. " (ATTUNE_ISA forces another)"},
    {"peak", text.quantity(core.measure.peak(0.3), "FLOP/s") .. "  f32 multiply-adds by all threads, the best of 0.3 s"},
    {"sgemm", text.quantity(core.measure.sgemm(0.3), "FLOP/s") .. "  BLIS, 2048 cubed"},
    {"bandwidth", text.quantity(core.measure.bandwidth(0.5), "B/s") .. "  reading past the last cache by all threads"}}
  for _, row in ipairs(rows) do print(("%-11s %s"):format(row[1], row[2])) end
  return 0
end

return info
