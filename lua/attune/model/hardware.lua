--- Hardware of the cost model: memory, bandwidth and peak of one chip, with their sources.
--
-- memory: bytes; bandwidth: bytes per second of reading; flops: dense FLOP/s in bf16 with sums in
-- f32 (f32: of f32, where attune has measured it).
local core = require "attune.core"
local suggest = require "attune.util.suggest"

local hardware = {}

local chips = {
  {
    name = "h100-sxm", title = "NVIDIA H100 SXM", memory = 80000000000, bandwidth = 3.35e12,
    flops = 989e12,
    source = "NVIDIA H100 Tensor Core GPU data sheet, 2023; dense, without sparsity",
  },
  {
    name = "a100-80g", title = "NVIDIA A100 SXM 80 GB", memory = 80000000000, bandwidth = 2.04e12,
    flops = 312e12, source = "NVIDIA A100 Tensor Core GPU data sheet, 2021",
  },
  {
    name = "tpu-v4", title = "Google TPU v4", memory = 32 << 30, bandwidth = 1.2e12,
    flops = 275e12, source = "Jouppi et al. 2023 (arXiv 2304.01433)",
  },
}
local aliases = {["h100-80g"] = "h100-sxm", h100 = "h100-sxm", a100 = "a100-80g", tpuv4 = "tpu-v4"}

---@class attune.model.Hardware
---@field name string
---@field title string
---@field memory integer bytes of one chip
---@field bandwidth number bytes per second
---@field flops number FLOP/s in bf16
---@field f32? number FLOP/s in f32
---@field source string

--- The names of the table, and "this": the machine that runs, measured.
---@return string[]
function hardware.names()
  local names = {}
  for i, chip in ipairs(chips) do names[i] = chip.name end
  names[#names + 1] = "this"
  return names
end

-- The machine that runs. It is measured once per process, in about half a second.
local measured
local function this()
  if measured then return measured end
  local machine = core.machine()
  local f32 = core.measure.peak(0.15, "f32")
  local bf16 = core.measure.peak(0.15, "bf16")
  measured = {
    name = "this",
    title = machine.cpu,
    memory = machine.memory,
    bandwidth = core.measure.bandwidth(0.25),
    flops = math.max(f32, bf16),
    f32 = f32,
    source = ("measured now: %d threads, %s"):format(core.threads(), machine.isa),
  }
  return measured
end

--- A copy of an entry. Raises where the name is unknown.
---@param name string
---@param level integer as of `error`, from the caller
---@return attune.model.Hardware
function hardware.get(name, level)
  local key = aliases[name] or name
  local found = key == "this" and this() or nil
  for _, chip in ipairs(chips) do found = found or chip.name == key and chip end
  if not found then
    error(("hardware: unknown name '%s'; %s"):format(name, suggest(name, hardware.names())),
      level + 1)
  end
  local copy = {}
  for field, value in pairs(found) do copy[field] = value end
  return copy
end

return hardware
