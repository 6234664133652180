--- lua5.4 tests/fuzz/results.lua [--seed N] [--count N] [--seconds N] [--case N]
---
--- Attacks show, plot, report, export and list with mutated folders of results: bytes, structure,
--- types, depth and lengths, links, FIFOs, folders in the place of files. For each case
---   - the exit status is 0, or 1 or 2 with one line that starts with "attune COMMAND: ",
---   - there is no traceback, and no control character reaches the terminal,
---   - nothing outside the folder is written, read into the report, or executed,
---   - no temporary file stays, and no command takes more than ten seconds or 2 GiB.
---
--- The commands run in this process: its output goes to files. A process that hangs or needs too
--- much memory is ended by its limits, and its parent (this file without --worker) names the case.
local here = arg[0]:gsub("[^/]*$", "")
package.path = here .. "?.lua;" .. package.path
local uv = require "luv"
local files = require "attune.util.files"
local json = require "attune.util.json"
local mutate = require "mutate"
local options = require "options"(
  arg, {seed = 1, count = 3000, seconds = 60, worker = 0, first = 1, last = 0}
)

local root = os.getenv "ATTUNE_FUZZ_ROOT"
local max_seconds = 10

local function put(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end

local function get(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text = f:read "a"
  f:close()
  return text
end

local function remove(path)
  local info = uv.fs_lstat(path)
  if info and info.type == "directory" then
    for _, name in ipairs(files.list(path)) do remove(path .. "/" .. name) end
    uv.fs_rmdir(path)
  elseif info then
    uv.fs_unlink(path)
  end
end

-- ---- the parent: workers for 50 cases each, under limits ----------------------------------------

if options.worker == 0 then
  root = files.kind "/dev/shm" == "directory" and os.tmpname():gsub("^.*/", "/dev/shm/")
    or os.tmpname()
  os.remove(root)
  assert(uv.fs_mkdir(root, 448))
  uv.os_setenv("ATTUNE_FUZZ_ROOT", root)
  local began, case, findings = os.time(), options.case or 1, 0
  local last = options.case or options.count
  local interpreter = arg[-1] or "lua5.4"
  while case <= last and os.time() - began < options.seconds do
    local upto = math.min(case + 49, last)
    local format = "%sulimit -t 120; exec timeout -k 5 180 %s %s --worker 1 "
      .. "--seed %d --first %d --last %d"
    -- 2 GiB of address space; the address sanitizer reserves terabytes.
    local memory = os.getenv "LD_PRELOAD" and "" or ("ulimit -v %d; "):format(2 << 20)
    local command = format:format(memory, interpreter, arg[0], options.seed, case, upto)
    local _, kind, status = os.execute(command)
    for line in (get(root .. "/findings") or ""):gmatch "[^\n]+" do
      findings = findings + 1
      print(line)
    end
    local reached = tonumber(get(root .. "/reached") or "") or case
    if kind ~= "exit" or status ~= 0 then
      findings = findings + 1
      print(("case %d (seed %d): ended its process: %s %d"):format(
        reached, options.seed, kind, status
      ))
      print((get(root .. "/err") or ""):sub(-2000))
      upto = reached
    end
    case = upto + 1
  end
  print(("%d folders, %d findings"):format(case - (options.case or 1), findings))
  if options.case then print("the folder: " .. root .. "/case") else remove(root) end
  os.exit(findings == 0 and case > 1)
end

-- ---- the worker ---------------------------------------------------------------------------------

local outside, case_dir = root .. "/outside", root .. "/case"
local marker = root .. "/executed"

remove(outside)
assert(files.make_folder(outside))
assert(files.make_folder(root .. "/cwd/attune/plot"))
local secret = "SECRET-a31f"
put(outside .. "/victim", secret)
put(outside .. "/victim.svg", "<svg>" .. secret .. "</svg>")
-- With ./?.lua on the path, a kind that is required as a module would run this file.
local evil = ("io.open(%q, 'w'):close()"):format(marker)
put(root .. "/cwd/evil.lua", evil)
put(root .. "/cwd/attune/plot/evil.lua", evil)
put(root .. "/findings", "")
assert(uv.chdir(root .. "/cwd"))

-- The commands' output goes to files that hold what a terminal would get.
local captured = {out = assert(io.open(root .. "/out", "a+b")),
  err = assert(io.open(root .. "/err", "a+b"))}
local real = {print = print, stdout = io.stdout, stderr = io.stderr}

local function capture()
  put(root .. "/out", "")
  put(root .. "/err", "")
  io.output(captured.out)
  io.stdout, io.stderr = captured.out, captured.err -- luacheck: ignore 122
  function _G.print(...)
    local words = table.pack(...)
    for i = 1, words.n do words[i] = tostring(words[i]) end
    captured.out:write(table.concat(words, "\t"), "\n")
  end
end

local function release()
  captured.out:flush()
  captured.err:flush()
  io.output(real.stdout)
  io.stdout, io.stderr, _G.print = real.stdout, real.stderr, real.print -- luacheck: ignore 122
  return get(root .. "/out") or "", get(root .. "/err") or ""
end

local real_exit = os.exit
local cli = require "attune.cli"

-- Runs one command in this process.
local function attune(words)
  capture()
  local start = os.clock()
  os.exit = function(status) error({exit = status}, 0) end -- luacheck: ignore 122
  local ok, status = xpcall(cli, function(m)
    return type(m) == "table" and m or debug.traceback(tostring(m))
  end, words)
  os.exit = real_exit -- luacheck: ignore 122
  local seconds = os.clock() - start
  local out, err = release()
  if not ok and type(status) == "table" then
    status = status.exit == true and 0 or status.exit == false and 1 or status.exit
  elseif not ok then
    err, status = err .. status, 70
  end
  return status, out, err, seconds
end

-- ---- valid folders ------------------------------------------------------------------------------

local function record(index, n, kind, round, status)
  local r = {
    hash = ("%016x"):format(index), index = index, round = round, status = status,
    parameters = {n = n, kind = kind, size = 64 * index}, warnings = json.list {"slow clock"},
    schema = 1, seconds = 0.25, time = "2026-01-02T03:04:05Z",
  }
  if status == "ok" then
    r.metrics = {
      time = {samples = json.list {0.001 * n + 0.0001 * round, 0.0011 * n}, unsteady = n == 2},
      bytes = 1024 * n,
      error = n == 4 and "nan" or 1e-7 * n,
    }
  else
    r.reason = "deliberate: " .. status
  end
  return r
end

local function valid()
  local description = {
    schema = 1, name = "sample", about = "What does the sample cost?", rounds = 2, quick = false,
    script = "sample.lua", command = "attune run sample.lua", version = 1,
    parameters = json.list {"n", "kind", "size"},
    metrics = json.list {
      {name = "time", unit = "s", better = "lower", about = "per call"},
      {name = "bytes", unit = "B"}, {name = "error"},
    },
    plots = json.list {
      {kind = "line", x = "n", y = "time", by = "kind", log = "xy", name = "cost", title = "Cost"},
      {kind = "bars", x = "kind", y = "bytes", where = {n = 1}, caption = "Bytes"},
      {kind = "heat", x = "n", y = "kind", value = "time"},
      {kind = "scatter", x = "bytes", y = "time", by = "kind", label = "n", base = 2, log = "x"},
      {kind = "pareto", x = "bytes", y = "time", by = "kind", facet = "n"},
      {kind = "roofline", x = "error", y = "bytes", peak = 1e9, bandwidth = "bytes"},
      {kind = "ecdf", y = "time", where = {n = 1, kind = "a"}}, {kind = "box", y = "time", by = "n",
        x = "kind", log = "y", lines = json.list {{y = 1, text = "one"}, {x = "a"}}},
      {kind = "bars", x = "n", parts = json.list {"time", "error"}, where = {kind = "a"}},
      {kind = "line", along = "step", y = "time", where = {n = 1}, by = "kind", band = true},
    },
    claims = json.list {"smaller is faster"},
  }
  local lines = {{
    schema = 1,
    header = {
      time = "2026-01-02T03:04:05Z", attune = "0.1.0", cpu = "A CPU", cores = 2, threads = 2,
      isa = "avx2", git = {commit = ("0"):rep(40), dirty = false}, load = "0.1", system = "Linux",
    },
  }}
  for round = 1, 2 do
    local index = 0
    for _, n in ipairs {1, 2, 4} do
      for _, kind in ipairs {"a", "b"} do
        index = index + 1
        local status = index == 5 and "skipped" or index == 6 and round == 1 and "failed" or "ok"
        lines[#lines + 1] = record(index, n, kind, round, status)
      end
    end
  end
  local claims = json.list {
    {text = "smaller is faster", verdict = "held", detail = "1.9 times"},
    {text = "never", verdict = "failed"},
  }
  return {description = description, lines = lines, claims = claims}
end

local absurd = mutate.absurd {
  function() return mutate.pick {"|touch " .. marker, "$(touch " .. marker .. ")"} end,
  function() return "`touch " .. marker .. "`" end,
  function() return "'; touch " .. marker .. "; '" end,
  function() return "\"; system(\"touch " .. marker .. "\"); \"" end,
  function() return "\n!touch " .. marker .. "\n" end,
  function() return mutate.pick {"evil", "../outside/victim", outside .. "/victim", "../evil"} end,
  function() return mutate.pick {"line", "bars", "heat", "pixels", "n", "kind", "time"} end,
  function() return mutate.pick {"scatter", "pareto", "roofline", "ecdf", "box", "bytes"} end,
  function() return mutate.pick {"ok", "skipped", "failed", "oom", "timeout", "held"} end,
  function() return mutate.pick {"s", "B", "%", "1", "B/s", "flop/s"} end,
  function() return {samples = json.list {1, "inf", "nan", -1}} end,
}

local function encode(value)
  local ok, text = pcall(json.encode, value)
  return ok and text or "{}"
end

local function write_folder(content)
  remove(case_dir)
  files.make_folder(case_dir .. "/trials")
  local lines = {}
  for i, line in ipairs(content.lines) do lines[i] = encode(line) end
  local texts = {
    ["experiment.json"] = encode(content.description),
    ["trials/20260102T030405Z-host-1.jsonl"] = table.concat(lines, "\n") .. "\n",
    ["claims.json"] = encode(content.claims),
  }
  local names = {"claims.json", "experiment.json", "trials/20260102T030405Z-host-1.jsonl"}
  if mutate.chance(0.3) then
    local name = mutate.pick(names)
    texts[name] = mutate.bytes(texts[name])
  end
  for _, name in ipairs(names) do put(case_dir .. "/" .. name, texts[name]) end
end

-- Puts something else where attune reads or writes.
local function change_files()
  local name = mutate.pick {
    "experiment.json", "trials", "trials/20260102T030405Z-host-1.jsonl", "claims.json", "plots",
    "report.html", "report.md", "plots/01-cost.svg", "plots/02-bytes.png", "trials/x.jsonl",
    "log", ".lock", "plots/01-cost.pdf", "plots/03-time.svg", "trials/\27[31m\n.jsonl",
  }
  local path = case_dir .. "/" .. name
  if name:find "^plots/" then files.make_folder(case_dir .. "/plots") end
  -- An earlier change may have put a file or a link there; through the link this program itself
  -- would change what lies outside.
  local parent = uv.fs_lstat(path:match "^(.*)/")
  if not parent or parent.type ~= "directory" then return end
  remove(path)
  local way = math.random(8)
  if way == 1 then
    uv.fs_symlink(mutate.pick {outside .. "/victim", outside .. "/victim.svg"}, path)
  elseif way == 2 then
    uv.fs_symlink(outside, path)
  elseif way == 3 then
    local targets = {"/dev/zero", "/dev/stdin", "/nonexistent/x", path, "/dev/full"}
    uv.fs_symlink(mutate.pick(targets), path)
  elseif way == 4 then
    os.execute(("mkfifo '%s'"):format(path))
  elseif way == 5 then
    uv.fs_mkdir(path, 493)
    put(path .. "/inner", "x")
  elseif way == 6 then
    put(path, ("x"):rep(100000))
  elseif way == 7 then -- a sparse file of 8 GiB
    local fd = uv.fs_open(path, "w", 420)
    uv.fs_ftruncate(fd, 8 << 30)
    uv.fs_close(fd)
  end
end

-- ---- one case -----------------------------------------------------------------------------------

local function picture(path)
  local found = {}
  for _, name in ipairs(files.list(path)) do
    local info = uv.fs_lstat(path .. "/" .. name)
    found[#found + 1] = ("%s %s %s"):format(name, info.type, get(path .. "/" .. name) or "")
  end
  return table.concat(found, "\n")
end
local outside_before = picture(outside)
local allowed = {
  case = true, cwd = true, outside = true, out = true, err = true, findings = true, reached = true,
}

local function temporaries(path)
  for _, name in ipairs(files.list(path)) do
    if files.is_temporary(name) then return name end
  end
end

local commands = {
  {"show", {"show", case_dir}},
  {"export", {"export", case_dir, "--csv"}},
  {"export", {"export", case_dir, "--json", "-"}},
  {"compare", {"compare", case_dir, case_dir, "--json", "-"}},
  {"compare", {"compare", case_dir, case_dir, "--paired"}},
  {"history", {"history", case_dir}},
  {"list", {"list", root}},
  {"report", {"report", case_dir, "--to", "html,md,tex"}},
  {"plot", {"plot", case_dir, "--term"}},
  {"plot", {"plot", case_dir}, 0.1}, -- gnuplot takes long
  {"report", {"report", case_dir}},
}

local function judge(name, status, out, err, seconds)
  if (out .. err):find "stack traceback" then return "traceback: " .. err end
  if status ~= 0 and status ~= 1 and status ~= 2 then
    return "exit status " .. tostring(status) .. ": " .. err
  end
  if status ~= 0 then
    local first, rest = err:match "^([^\n]*)\n(.*)$"
    if not first or not first:find("^attune " .. name .. ": .") or rest ~= "" then
      return ("expected one line, got %d bytes: %s"):format(#err, err:sub(1, 300))
    end
  end
  if #err > 5000 then return ("%d bytes of messages"):format(#err) end
  local terminal = name == "export" and err or out .. err
  local control = terminal:gsub("\n", ""):find "[%c]" or terminal:find "\u{9b}"
    or terminal:find "\u{202e}"
  if control then return "a control character reaches the terminal" end
  if seconds > max_seconds then return ("took %.1f seconds"):format(seconds) end
end

local function check_case(case)
  math.randomseed(options.seed, case)
  local content = valid()
  local way = math.random(10)
  if way <= 7 then
    for _ = 1, math.random(4) do
      mutate.tree(content[mutate.pick {"description", "description", "lines", "claims"}], absurd)
    end
  end
  write_folder(content)
  if way >= 7 then
    for _ = 1, math.random(2) do change_files() end
  end
  for _, command in ipairs(commands) do
    local name, words, probability = command[1], command[2], command[3]
    if mutate.chance(probability or 1) then
      local wrong = judge(name, attune(words))
      if not wrong and files.kind(marker) then
        wrong = "executed something"
        os.remove(marker)
      end
      if not wrong and picture(outside) ~= outside_before then
        wrong = "wrote outside the folder"
      end
      for _, found in ipairs(files.list(root)) do
        if not allowed[found] then wrong = wrong or "made " .. found end
      end
      for _, page in ipairs {"report.html", "report.md"} do
        local info = uv.fs_lstat(case_dir .. "/" .. page)
        local text = info and info.type == "file" and info.size < 1e8
          and get(case_dir .. "/" .. page) or ""
        if text:find(secret, 1, true) then wrong = wrong or page .. " holds a file from outside" end
        if text:find("<script>alert", 1, true) or text:find("<img src=x>", 1, true) then
          wrong = wrong or page .. " holds unescaped text"
        end
        if text:gsub("[\n\t]", ""):find "[%c]" and name == "report" and #text ~= 100000 then
          wrong = wrong or page .. " holds a control character"
        end
      end
      local left = temporaries(case_dir) or temporaries(case_dir .. "/plots")
      if left then wrong = wrong or "left " .. left end
      if wrong then return name .. ": " .. wrong end
    end
  end
end

local list = assert(io.open(root .. "/findings", "w"))
for case = options.first, options.last do
  put(root .. "/reached", tostring(case))
  local wrong = check_case(case)
  if wrong then
    list:write(("case %d (seed %d): %s"):format(case, options.seed, wrong:gsub("[%c]", " ")), "\n")
    list:flush()
  end
end
list:close()
