---@meta
-- Types of files, machine, memory and threads, for a Lua language server. Nothing loads this file.

---@class attune.Machine
---@field cpu string
---@field cores integer
---@field isa string instruction set in use
---@field isas string[] instruction sets of this machine
---@field features string
---@field l1 integer bytes
---@field l2 integer bytes
---@field l3 integer bytes
---@field memory integer bytes

---@class attune
---@field version string
---@field build string compiler and flags
local attune = {}

--- safetensors. nil, message, code when the file cannot be read or is malformed.
---@param path string
---@return table<string, attune.Tensor>? tensors
---@return table<string, string>|string metadata
function attune.load(path) end
---@param path string
---@param tensors table<string, attune.Tensor>
---@param metadata? table<string, string>
---@return true?
---@return string? message
function attune.save(path, tensors, metadata) end
---@return number seconds, monotonic
function attune.clock() end
--- Sets where random numbers without a seed start.
---@param n integer
function attune.set_seed(n) end
--- Philox 4x32-10 (Salmon et al. 2011).
---@param counter integer[] four words
---@param key integer[] two words
---@return integer[] four words
function attune.philox(counter, key) end
--- Sets or returns the number of threads. Results have the same bits for any number.
---@param n? integer
---@return integer
function attune.threads(n) end
---@param options? {limit?: integer, reset_peak?: boolean} limit 0: none
---@return {bytes: integer, peak: integer, limit: integer}
function attune.memory(options) end
---@return attune.Machine
function attune.machine() end
--- Limits of the machine, measured now on all threads: FLOP/s of f32 multiply-adds, B/s of reading,
--- FLOP/s of BLIS's sgemm.
attune.measure = {
  ---@param seconds? number
  ---@return number
  peak = function(seconds) end,
  ---@param seconds? number
  ---@param bytes? integer
  ---@return number
  bandwidth = function(seconds, bytes) end,
  --- The same over an existing tensor, for a measurement close to what it is compared with.
  ---@param seconds number
  ---@param t attune.Tensor contiguous
  ---@return number
  read = function(seconds, t) end,
  ---@param seconds? number
  ---@param n? integer
  ---@return number
  sgemm = function(seconds, n) end,
}

return attune
