local claims = require "attune.claims"
local files = require "attune.files"
local json = require "attune.json"
local runner = require "attune.runner"
local store = require "attune.store"
local text = require "attune.text"

local run = {summary = "run an experiment, or go on with it, and draw its plots and report"}

function run.options(parser)
  parser:argument("script", "the experiment's script")
  parser:option("--out", "folder of the results (results/NAME)"):argname "DIR"
  parser:option("--set", "other values: name=value,value,name=value .."):argname "K=V,..":count "*"
  parser:option("--only", "only points for which this Lua expression over the parameters is true"):argname "EXPR"
  parser:option("--rounds", "how often each point is measured"):argname "N":convert(function(s)
    local n = math.tointeger(tonumber(s))
    if n and n >= 1 then return n end
    return nil, ("--rounds: expected an integer of at least 1, got '%s'"):format(s)
  end)
  parser:option("--jobs", "trials side by side, for experiments without timings (this version: 1)"):argname "N":convert(function(s)
    if s == "1" then return 1 end
    return nil, ("--jobs: expected 1 in this version, got '%s'"):format(s)
  end)
  parser:flag("--quick", "the script's smaller version")
  parser:flag("--fresh", "measure everything again; earlier records go to trials/old")
  parser:flag("--dry", "list the points that a run would measure, and stop")
  parser:flag("--fail-fast", "stop at the first trial that fails")
  parser:flag("--strict", "a failed claim of a quick run fails the command too")
end

local function value(word)
  if word == "true" then return true elseif word == "false" then return false end
  return math.tointeger(tonumber(word)) or tonumber(word) or word
end

-- "a=1,2,b=x" as {a = {1, 2}, b = {"x"}}
local function assignments(list)
  local set, last = {}, nil
  for _, words in ipairs(list) do
    for word in words:gmatch "[^,]+" do
      local name, rest = word:match "^%s*([%a_][%w_]*)%s*=(.*)$"
      if name then
        last = {}
        set[name] = last
        word = rest
      elseif not last then return nil, ("--set: expected name=value, got '%s'"):format(word) end
      last[#last + 1] = value(word)
    end
  end
  return set
end

local function quoted(words)
  local parts = {}
  for i, w in ipairs(words) do parts[i] = w:find "^[%w_./=,-]+$" and w or "'" .. w:gsub("'", "'\\''") .. "'" end
  return table.concat(parts, " ")
end

local marks = {held = "held", failed = "FAILED", undecided = "undecided"}

local function print_claims(list)
  if #list == 0 then return end
  print "\nClaims"
  for _, c in ipairs(list) do print(("  %-9s  %s%s"):format(marks[c.verdict] or c.verdict, c.text, c.detail and "\n             " .. c.detail:gsub("\n.*", "") or "")) end
end

local function draw(results, dir)
  local status = 0
  for _, step in ipairs {{"plots", function() return require "attune.plot".draw(results, dir) end}, {"report", function() return require "attune.report".write(results, dir) end}} do
    local done, why = step[2]()
    if not done then
      io.stderr:write(("attune run: %s: %s\n"):format(step[1], why))
      status = 1
    end
  end
  return status
end

local function fail(message)
  io.stderr:write("attune run: ", message, "\n")
  return 2
end

function run.run(args)
  local set, why = assignments(args.set or {})
  if not set then return fail(why) end
  local experiment = require "attune.experiment"
  local e, load_why = experiment.load(args.script)
  if not e then return fail(load_why) end
  local dir = (args.out or "results/" .. e.name):gsub("(.)/+$", "%1")
  local command = {"attune", table.unpack(arg)}
  local outcome
  outcome, why = runner.run {script = args.script, dir = dir, quick = args.quick, rounds = args.rounds, set = set, only = args.only, fresh = args.fresh, dry = args.dry,
    fail_fast = args.fail_fast, command = quoted(command), worker = {"lua5.4", arg[0], "trial"}}
  if not outcome then return fail(why) end
  if outcome.dry then
    for _, point in ipairs(outcome.points) do print(runner.point_text(outcome.experiment, point)) end
    print(("%d points, %d rounds each"):format(#outcome.points, outcome.experiment.rounds))
    return 0
  end

  local of = {}
  for _, point in ipairs(outcome.points) do of[point.hash] = true end
  local results = assert(store.read(dir))
  local mine = assert(store.read(dir, of))
  local status = 0
  if outcome.measured > 0 or not files.kind(dir .. "/report.html") then
    results.claims = claims.judge(outcome.experiment, mine)
    local written, write_why = files.write(dir .. "/claims.json", json.encode(json.list(results.claims)) .. "\n")
    if not written then return fail(("%s/claims.json: %s"):format(dir, write_why)) end
    if not outcome.stopped then status = draw(results, dir) end
  end
  for _, line in ipairs(text.results(mine, 60)) do print(line) end
  print_claims(results.claims)
  for _, point in ipairs(mine.points) do
    if point.status ~= "ok" and point.status ~= "skipped" then status = math.max(status, 1) end
  end
  for _, c in ipairs(results.claims) do
    if c.verdict == "failed" and (args.strict or not args.quick) then status = math.max(status, 1) end
  end
  if outcome.measured == 0 then print(("\nNothing was left to measure; --fresh measures again.")) end
  if outcome.stopped then
    print(("\nStopped. %d trials of this run are kept in %s; the same command goes on from there."):format(outcome.measured, dir))
    return outcome.status or 130
  end
  print(("\nReport: %s/report.html   Plots: %s/plots"):format(dir, dir))
  return status
end

return run
