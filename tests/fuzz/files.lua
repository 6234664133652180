--- What the fuzzers of tensor files share. require "files"(suffix, content): content() gives the
--- bytes of a file. With a third argument the suffix is a file's name in a folder that is empty
--- before each case, and content(folder) writes the files beside it. Each file loads, or gives nil
--- and one line that holds its path, or that of a file beside it. Memory stays below a limit, and
--- no file takes longer than two seconds. Run it with the address and undefined sanitizers (make
--- fuzz-files). --case repeats one case and keeps its files.
local attune = require "attune"
local files = require "attune.util.files"
local options = require "options"(arg, {seed = 1, count = 5000, seconds = 60})

local max_bytes = 64 << 20 -- of tensors and of what reading takes, beside twice a header
local max_seconds = 2
local name = os.tmpname()
local path, folder = name, nil

-- The folder's files are files, links and empty folders.
local function clear()
  for _, inner in ipairs(files.list(folder) or {}) do os.remove(folder .. "/" .. inner) end
end

local function check(content, case)
  math.randomseed(options.seed, case)
  if folder then clear() end
  local bytes = content(folder)
  local f = assert(io.open(path, "wb"))
  f:write(bytes)
  f:close()
  collectgarbage()
  local limit = max_bytes + 2 * #bytes -- mutations make headers of tens of megabytes
  local before = attune.memory {limit = attune.memory().bytes + limit, reset_peak = true}.bytes
  local start = os.clock()
  local ok, tensors, message, code = pcall(attune.load, path)
  local outcome
  if not ok then
    outcome = "raised an error: " .. tostring(tensors)
  elseif not tensors then
    local place = folder or path
    if type(message) ~= "string" or message:find "[%c]" or not message:find(place, 1, true) then
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
  if peak > limit then outcome = ("took %d bytes"):format(peak) end
  return outcome, tensors and ok
end

return function(suffix, content, in_folder)
  path = name .. "." .. suffix
  if in_folder then
    folder = name .. ".d"
    assert(files.make_folder(folder))
    path = folder .. "/" .. suffix
  end
  local began, done, loaded, findings = os.time(), 0, 0, 0
  local first = options.case or 1
  for case = first, options.case or options.count do
    if os.time() - began > options.seconds then break end
    local outcome, whole = check(content, case)
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
  if options.case then
    print("the file: " .. path)
  elseif folder then
    clear()
    os.remove(folder)
  else
    os.remove(path)
  end
  os.remove(name)
  print(("%d files, %d loaded, %d findings"):format(done, loaded, findings))
  -- A fuzzer whose files all load, or all fail, tests little.
  local useful = options.case ~= nil or (loaded > done // 50 and loaded < done)
  os.exit(findings == 0 and useful, true)
end
