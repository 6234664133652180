local output = require "attune.cli.output"
local json = require "attune.util.json"
local text = require "attune.util.text"

local info = {summary = "describe this machine and measure its limits now"}

function info.options(parser)
  parser:flag("--json", "write JSON, in bytes, FLOP/s and bytes per second")
end

function info.run(args)
  local core = require "attune.core"
  local m = core.machine()
  local function bytes(n) return text.quantity(n, "B") end
  local measured = {
    peak = core.measure.peak(0.3), sgemm = core.measure.sgemm(0.3),
    bandwidth = core.measure.bandwidth(0.5),
  }
  if args.json then
    local all = {attune = core.version, build = core.build, threads = core.threads()}
    for name, value in pairs(m) do all[name] = value end
    for name, value in pairs(measured) do all[name] = value end
    all.isas = json.list(all.isas)
    output.write(json.encode(all) .. "\n")
    return 0
  end
  local peak = text.quantity(measured.peak, "FLOP/s")
  local sgemm = text.quantity(measured.sgemm, "FLOP/s")
  local bandwidth = text.quantity(measured.bandwidth, "B/s")
  local rows = {
    {"attune", core.version},
    {"build", core.build},
    {"processor", m.cpu},
    {"cores", tostring(m.cores)},
    {"threads", tostring(core.threads())},
    {"caches", ("L1 %s, L2 %s, L3 %s"):format(bytes(m.l1), bytes(m.l2), bytes(m.l3))},
    {"memory", bytes(m.memory)},
    {"features", m.features},
    {"sets here", table.concat(m.isas, " ")},
    {"set in use", m.isa .. " (ATTUNE_ISA chooses another instruction set)"},
    {"peak", peak .. "  f32 multiply-adds on all threads, the best of 0.3 s"},
    {"sgemm", sgemm .. "  BLIS, matrices of 2048 x 2048"},
    {"bandwidth", bandwidth .. "  all threads read memory that no cache holds"},
  }
  for _, row in ipairs(rows) do output.line(("%-11s %s"):format(row[1], row[2])) end
  return 0
end

return info
