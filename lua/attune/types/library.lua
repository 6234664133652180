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

---@alias attune.Metadata string|number|boolean|(string|number|boolean)[]

--- An open file of tensors, read one tensor at a time.
---@class attune.File
---@field names string[] in the order of the file
---@field metadata table<string, attune.Metadata>
---@field info fun(self, name: string): attune.StoredTensor?
---@field read fun(self, name: string, dtype?: string): attune.Tensor?, string?, any
---@field close fun(self)

---@class attune.StoredTensor
---@field format string in the file: F32, BF16, Q4_K ..
---@field dtype? string as what it is read; nil: it cannot be read
---@field shape integer[]
---@field bytes integer in the file

--- Opens a safetensors file, the index of shards (.index.json), or a GGUF file, and reads its
--- header.
--- nil, message, code when the file cannot be read or is malformed.
---@param path string
---@return attune.File?
---@return string? message
---@return any code
function attune.open(path) end
--- Reads a file whole: as open, then every tensor.
---@param path string
---@return table<string, attune.Tensor>? tensors
---@return table<string, attune.Metadata>|string metadata
function attune.load(path) end
--- Writes safetensors, or GGUF where the path ends with .gguf.
---@param path string
---@param tensors table<string, attune.Tensor>
---@param metadata? table<string, attune.Metadata> safetensors: texts only
---@param options? {q8_0?: boolean} GGUF: matrices in blocks of Q8_0
---@return true?
---@return string? message
function attune.save(path, tensors, metadata, options) end
--- Time from an arbitrary start, which never goes backwards.
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
--- Bytes of tensors and scratch: now, their max since the peak was reset, and the limit.
---@param options? {limit?: integer, reset_peak?: boolean} limit 0: none
---@return {bytes: integer, peak: integer, limit: integer}
function attune.memory(options) end
--- What the processor of this machine is and can do.
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
  --- The same over existing tensors and caches, for a measurement close to what it is compared
  --- with.
  ---@param seconds number
  ---@param ... attune.Tensor|attune.Cache contiguous
  ---@return number
  read = function(seconds, ...) end,
  --- Removes tensors and caches from the caches of the processor, without changing them, so that
  --- what is timed next reads them from memory. Raises an error on processors that are neither
  --- x86-64 nor AArch64.
  ---@param ... attune.Tensor|attune.Cache contiguous
  evict = function(...) end,
  ---@param seconds? number
  ---@param n? integer
  ---@return number
  sgemm = function(seconds, n) end,
}

return attune
