--- lua5.4 tests/fuzz/safetensors.lua [--seed N] [--count N] [--seconds N] [--case N]
---
--- Loads mutated safetensors files. Each one loads, or gives nil and one line that starts with the
--- path. Memory stays below a limit, and no file takes longer than two seconds. Run it with the
--- address and undefined sanitizers (make fuzz-files). --case repeats one case and keeps its file.
local attune = require "attune"
local json = require "attune.util.json"
package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path
local mutate = require "mutate"
local options = require "options"(arg, {seed = 1, count = 5000, seconds = 60})

local max_bytes = 64 << 20 -- of tensors and of what reading takes
local max_seconds = 2
local path = os.tmpname()

local dtypes = {"F32", "F16", "BF16", "F64", "I8", "I32", "I64", "U8", "BOOL", "F8_E4M3", "I16"}
local sizes = {
  F32 = 4, F16 = 2, BF16 = 2, F64 = 8, I8 = 1, I32 = 4, I64 = 8, U8 = 1, BOOL = 1, F8_E4M3 = 1,
  I16 = 2,
}

-- A valid file: its header as a tree, and the bytes of its tensors.
local function valid()
  local header, at = {}, 0
  for n = 1, math.random(0, 5) do
    local shape, count, dtype = json.list(), 1, mutate.pick(dtypes)
    for axis = 1, math.random(0, 4) do
      shape[axis] = math.random(0, 5)
      count = count * shape[axis]
    end
    local size = count * sizes[dtype]
    header["t" .. n] = {dtype = dtype, shape = shape, data_offsets = json.list {at, at + size}}
    at = at + size
  end
  if mutate.chance(0.5) then header.__metadata__ = {format = "pt", note = "é"} end
  local data = {}
  for i = 1, at do data[i] = string.char(math.random(0, 255)) end
  return header, table.concat(data)
end

local absurd = mutate.absurd {
  function() return mutate.pick(dtypes) end,
  function() return json.list {1 << 31, 1 << 31, 4} end,
  function() return json.list {1 << 62, 2} end,
  function() return json.list {0, 1 << 62} end,
  function() return json.list {-1, 4} end,
  function() return json.list {0, 1 << 40} end,
  function() return json.list {8, 0} end,
}

local function file_of(header, data)
  local text = json.encode(header)
  local length = #text
  if mutate.chance(0.15) then
    length = mutate.pick {0, 1, length - 1, length + 1, 8, 1 << 27, 1 << 40, -1, math.mininteger}
  end
  if mutate.chance(0.1) then data = data:sub(1, math.random(0, #data)) end
  if mutate.chance(0.1) then data = data .. ("\0"):rep(math.random(100)) end
  return ("<i8"):pack(length) .. text .. data
end

-- Headers that are small and would take much memory as trees.
local function spam()
  local piece = mutate.pick {
    "{},", "[],", "0,", "\"\",", "{\"a\":{}},", "[[]],", "null,", "[[[[", "{\"a\":",
  }
  local inner = piece:rep(mutate.pick {1000, 30000, 3000000} // #piece):gsub(",$", "")
  local text = mutate.pick {
    "[" .. inner .. "]", "{\"x\":[" .. inner .. "]}", inner,
    "{\"t\":{\"dtype\":\"F32\",\"shape\":[" .. inner .. "],\"data_offsets\":[0,4]}}",
  }
  return ("<i8"):pack(#text) .. text .. "1234"
end

local function content()
  if mutate.chance(0.02) then return spam() end
  local header, data = valid()
  local way = math.random(10)
  if way <= 6 then
    for _ = 1, math.random(3) do mutate.tree(header, absurd) end
  end
  local ok, text = pcall(file_of, header, data)
  if not ok then return content() end -- a mutation that JSON cannot write
  if way >= 6 and way < 10 then text = mutate.bytes(text) end
  return text
end

local function check(case)
  math.randomseed(options.seed, case)
  local f = assert(io.open(path, "wb"))
  f:write(content())
  f:close()
  collectgarbage()
  local before = attune.memory {limit = attune.memory().bytes + max_bytes, reset_peak = true}.bytes
  local start = os.clock()
  local ok, tensors, message, code = pcall(attune.load, path)
  local outcome
  if not ok then
    outcome = "raised an error: " .. tostring(tensors)
  elseif not tensors then
    if type(message) ~= "string" or message:find "[%c]" or not message:find(path, 1, true) then
      outcome = ("expected one line with the path, got %q"):format(tostring(message))
    elseif type(code) ~= "string" and type(code) ~= "number" then
      outcome = "expected a code after the message, got " .. tostring(code)
    end
  else
    for _, t in pairs(tensors) do
      -- Every value is read; reading a tensor of a dtype that attune lacks is an error.
      local read, why = pcall(function() return t:to("f64"):sum():item() end)
      if not read and type(why) ~= "string" then outcome = "reading: " .. tostring(why) end
    end
  end
  local seconds = os.clock() - start
  if seconds > max_seconds then outcome = ("took %.1f seconds"):format(seconds) end
  local peak = attune.memory().peak - before
  if peak > max_bytes then outcome = ("took %d bytes"):format(peak) end
  return outcome, tensors and ok
end

local began, done, loaded, findings = os.time(), 0, 0, 0
local first = options.case or 1
for case = first, options.case or options.count do
  if os.time() - began > options.seconds then break end
  local outcome, whole = check(case)
  done = done + 1
  if whole then loaded = loaded + 1 end
  if outcome then
    findings = findings + 1
    print(("case %d (seed %d): %s"):format(case, options.seed, outcome))
  end
end
-- What is not counted by attune.memory shows in the process. A sanitizer keeps what was freed.
local resident = require "luv".getrusage().maxrss >> 10
if resident > 512 and not os.getenv "LD_PRELOAD" then
  findings = findings + 1
  print(("the process took %d MiB"):format(resident))
end
if options.case then print("the file: " .. path) else os.remove(path) end
print(("%d files, %d loaded, %d findings"):format(done, loaded, findings))
-- A fuzzer whose files all load, or all fail, tests little.
local useful = options.case ~= nil or (loaded > done // 50 and loaded < done)
os.exit(findings == 0 and useful, true)
