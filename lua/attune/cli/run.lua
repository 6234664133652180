local assignments = require "attune.cli.assignments"
local axes = require "attune.experiment.axes"
local claims = require "attune.results.claims"
local files = require "attune.util.files"
local folder = require "attune.cli.folder"
local output = require "attune.cli.output"
local papers = require "attune.report.papers"
local plan = require "attune.experiment.plan"
local results_table = require "attune.cli.results_table"
local runner = require "attune.experiment.runner"
local schema = require "attune.results.schema"
local slurm = require "attune.experiment.executor.slurm"
local sorted_keys = require "attune.util.tables".sorted_keys
local store = require "attune.results.store"
local text = require "attune.util.text"

local run = {
  summary = "run an experiment, or continue it, then draw its plots and write its report",
  takes_options = {["--slurm"] = true},
}

-- A converter of an option's value.
local function integer_to(max, name)
  return function(s)
    local n = math.tointeger(tonumber(s))
    if n and n >= 1 and n <= max then return n end
    return nil, ("%s: expected an integer from 1 to %d, got '%s'"):format(name, max, s)
  end
end

local function parse_executor(s)
  if s == "local" or s == "slurm" then return s end
  return nil, ("--executor: expected local or slurm, got '%s'"):format(s)
end

function run.options(parser)
  parser:argument("script", "the script that declares the experiment"):convert(folder)
  parser:argument("argument", "a text for the script, such as the path of a model; the script "
      .. "finds it in the environment variable ATTUNE_ARGUMENT")
    :args "?"
  parser:option("--out", "folder for the results; results/NAME by default")
    :argname "DIR"
    :convert(function(path)
      local dir, why = folder(path)
      return dir, why and "--out: " .. why
    end)
  parser:option("--set", "values to use in place of the script's: name=value,value,name=value ..; "
      .. "a text with commas in quotes")
    :argname "K=V,.."
    :count "*"
  parser:option("--only", "run only the points for which this condition on the parameters holds")
    :argname "EXPR"
  parser:option("--rounds", "number of times that each point is measured; by default what the "
      .. "script says")
    :argname "N"
    :convert(integer_to(100000, "--rounds"))
  parser:option("--jobs", "number of trials at the same time, 1 by default; those that time run "
      .. "alone")
    :argname "N"
    :convert(integer_to(1024, "--jobs"))
  parser:option("--against", "run each trial with the attune of another build, too, alternately; "
      .. "results go to DIR/before (the other build) and DIR/now")
    :argname "ATTUNE"
  parser:flag("--quick", "run the smaller version of the script")
  parser:flag("--fresh", "measure the points of this run again; their earlier records move to "
    .. "trials/old")
  parser:flag("--keep", "accept records that were measured before the script was edited")
  parser:flag("--host", "record the name of this machine")
  parser:flag("--retry-failed", "run only what failed, took too long or ran out of memory")
  parser:flag("--dry", "list the points that a run would measure, estimate the time, and stop")
  parser:flag("--fail-fast", "stop at the first trial that fails")
  parser:option("--executor", "where trials run: local, or slurm: as array jobs of a cluster")
    :argname "NAME"
    :convert(parse_executor)
  parser:option("--points", "slurm: number of points that a task of a job measures; 10 by default")
    :argname "N"
    :convert(integer_to(1000000, "--points"))
  parser:option("--slurm", "slurm: options of sbatch, such as '--partition=long --time=2:00:00'")
    :argname "OPTIONS"
    :convert(slurm.options)
  parser:flag("--detach", "slurm: submit the jobs and end; attune status tells how far they are")
  parser:flag("--strict", "exit with 1 if a claim fails, in a run of fewer points too")
end

-- The command line, quoted for a shell. The report shows it.
local function command_line()
  local parts = {"attune"}
  for _, word in ipairs(arg) do parts[#parts + 1] = text.shell_word(word) end
  return text.cut(table.concat(parts, " "), schema.limits.message)
end

local verdict_words = {held = "held", failed = "FAILED", undecided = "undecided"}

local function print_claims(list)
  if #list == 0 then return end
  output.line ""
  output.line "Claims"
  for _, c in ipairs(list) do
    output.line(("  %-9s  %s"):format(verdict_words[c.verdict] or c.verdict, c.text))
    if c.detail then output.line("             " .. c.detail:match "^[^\n]*") end
    local origin = papers.origin(c)
    if origin then output.line("             " .. origin) end
  end
end

local function say(message) output.complain("attune run", message) end

local function misuse(message)
  say(message)
  return 2
end

-- Draws the plots and writes the report. Returns an exit status. A run of a part of the points may
-- leave a figure without any.
local function draw(results, dir, is_part)
  local status = 0
  local drawn, warnings = require "attune.plot".draw(results, dir)
  if drawn then
    output.warn("attune run", warnings)
  else
    say("plots: " .. warnings)
    -- Without gnuplot the results are as good as with it.
    local has_gnuplot = not warnings:find("expected it to be installed", 1, true)
    if has_gnuplot and not is_part then status = 1 end
  end
  local written, why = require "attune.report".write(results, dir)
  if not written then
    say("report: " .. why)
    status = 1
  end
  return status
end

local function print_dry(outcome)
  local e, left = outcome.experiment, outcome.trials
  for _, point in ipairs(outcome.points) do output.line(plan.point_text(e, point)) end
  local seeds = e.seeds and text.count(#e.seeds, "seed") .. ", " or ""
  output.line(("%s, %s%s each"):format(text.count(#outcome.points, "point"), seeds,
    text.count(e.rounds, "round")))
  local all = #outcome.points * e.total
  local trials = #left == all and text.count(all, "trial")
    or ("%d of %s left"):format(#left, text.count(all, "trial"))
  if #left == 0 then
    output.line "Nothing is left to measure."
  elseif outcome.seconds then
    output.line(("%s: about %s, as %s took so far"):format(trials, text.duration(outcome.seconds),
      text.count(outcome.seen, "trial")))
  else
    output.line(("%s: no trial has been measured yet, so there is no estimate of the time; "
      .. "each may take at most %s"):format(trials, text.duration(e.timeout)))
  end
end

-- Whether a run measures fewer points than the script declares: a claim is made for all of them.
local function is_partial(e, args, set)
  if args.quick or args.only then return true end
  for name in pairs(set) do
    if axes.varies(e, name) or name ~= "seed" and #set[name] > 1 then return true end
  end
  return false
end

-- Short budgets keep their fractions.
local function budget_text(seconds)
  return seconds < 10 and ("%g s"):format(seconds) or text.duration(seconds)
end

-- The exit status: 1 when a point of this run has no result, or when a claim failed and failed
-- claims are to change the status; else 0.
local function status_of(points, verdicts, claims_count)
  for _, point in ipairs(points) do
    if point.status ~= "ok" and point.status ~= "skipped" then return 1 end
  end
  for _, c in ipairs(verdicts) do
    if c.verdict == "failed" and claims_count then return 1 end
  end
  return 0
end

-- What a run on a cluster says at its end, beside the table.
local function print_jobs(outcome, dir)
  if outcome.detached then
    output.line(("Submitted: Slurm job %s. attune status %s tells how far it is; the same command "
      .. "waits for it."):format(table.concat(outcome.detached, ", "), text.shell_word(dir)))
  end
  if (outcome.lost or 0) > 0 then
    output.line ""
    output.line(outcome.lost == 1
      and "1 trial was lost with its task; the same command submits it again."
      or ("%d trials were lost with their tasks; the same command submits them again.")
        :format(outcome.lost))
  end
end

local function print_stopped(measured, dir)
  output.line(("Stopped. %s of this run %s kept in %s; the same command continues there."):format(
    text.count(measured, "trial"), measured == 1 and "is" or "are", dir))
end

-- Sentences about declared metrics that no trial of a complete run returned, and about those of
-- stop_when.
local function unreturned_metrics(e, results, is_part)
  local returned, has_values, list = {}, false, {}
  for _, point in ipairs(results.points) do
    has_values = has_values or point.status == "ok"
    for name in pairs(point.metrics) do returned[name] = true end
  end
  if not has_values then return list end
  local function add(field, names)
    for _, name in ipairs(sorted_keys(names or {})) do
      if not returned[name] then
        list[#list + 1] = ("%s.%s: no trial returned this metric"):format(field, name)
      end
    end
  end
  if not is_part then add("metrics", e.metrics) end
  add("stop_when", e.stop_when)
  return list
end

-- Judges the claims, draws the plots, writes the report and prints the table and the verdicts.
-- Returns an exit status. Claims and the table use the points of this run only; plots and the
-- report use all points of the folder.
local function finish(outcome, dir, claims_count, is_part)
  local hashes = {}
  for _, point in ipairs(outcome.points) do hashes[point.hash] = true end
  local loaded, why = outcome.loaded, nil
  if not loaded then loaded, why = store.load(dir) end
  if not loaded then return misuse(why) end
  local results = store.results(loaded)
  local others = false
  for _, point in ipairs(results.points) do others = others or not hashes[point.hash] end
  local run_results = others and store.results(loaded, hashes) or results
  local status = 0
  local is_incomplete = is_part or outcome.stopped or (outcome.left or 0) > 0
    or (outcome.lost or 0) > 0
  local is_new = outcome.measured > 0 or outcome.taken_in or not files.kind(dir .. "/report.html")
  if is_new or not is_incomplete then
    -- Verdicts change without a trial when claims are edited, and when partial runs were before.
    results.claims = claims.judge(outcome.experiment, run_results, is_incomplete)
    is_new = is_new or outcome.redescribed or not store.has_claims(dir, results.claims)
  end
  if is_new then
    local written
    written, why = store.write_claims(dir, results.claims)
    if not written then return misuse(why) end
    if not outcome.stopped then status = draw(results, dir, is_part) end
  end
  for _, line in ipairs(results_table(run_results, 60)) do output.line(line) end
  output.warn("attune run", run_results.warnings)
  if not outcome.stopped then
    output.warn("attune run", unreturned_metrics(outcome.experiment, run_results, is_part))
  end
  print_claims(results.claims)
  print_jobs(outcome, dir)
  if (outcome.lost or 0) > 0 then status = 1 end
  status = math.max(status, status_of(run_results.points, results.claims, claims_count))
  if outcome.measured == 0 and (outcome.lost or 0) == 0 then
    output.line ""
    output.line "Nothing was left to measure; --fresh measures again."
  end
  if (outcome.left or 0) > 0 then
    output.line ""
    output.line(("The budget of %s is spent: %s not measured; the same command continues.")
      :format(budget_text(outcome.experiment.budget), text.count(outcome.left, "trial")))
  end
  if outcome.stopped then
    output.line ""
    print_stopped(outcome.measured, dir)
    return outcome.status or 130
  end
  output.line ""
  local has_plots = #files.list(dir .. "/plots") > 0
  output.line(("Report: %s/report.html%s"):format(dir, has_plots and
    ("   Plots: %s/plots"):format(dir) or ""))
  return status
end

-- After a run of two builds: how to compare them. Returns an exit status.
local function finish_two(outcome, dir)
  local names = {before = dir .. "/before", now = dir .. "/now"}
  local failed = false
  for _, side in ipairs(outcome.sides) do
    local results, why = store.read(side.dir)
    if not results then return misuse(why) end
    for _, point in ipairs(results.points) do
      failed = failed or (point.status ~= "ok" and point.status ~= "skipped")
    end
  end
  if outcome.stopped then
    print_stopped(outcome.measured, dir)
    return outcome.status or 130
  end
  output.line(("Compare: attune compare %s %s --paired"):format(text.shell_word(names.before),
    text.shell_word(names.now)))
  return failed and 1 or 0
end

-- How a worker is started. Where Lua runs the script itself there is no file of the command.
local function worker_words()
  if arg[0] then return {"lua5.4", arg[0], "trial"} end
  return {"lua5.4", "-e", 'os.exit(require "attune.cli" {"trial"}, true)'}
end

-- nil and a message when options do not go together, or when there is no Slurm.
local function check_executor(args)
  if args.executor == "slurm" and args.against then
    return nil, "--against: expected a run on this machine, got --executor slurm"
  end
  if args.executor == "slurm" then return slurm.check() end
  for _, name in ipairs {"points", "slurm", "detach"} do
    if args[name] then
      return nil, ("--%s: expected --executor slurm with it, got %s"):format(name,
        args.executor and "--executor " .. args.executor or "no --executor")
    end
  end
  return true
end

function run.run(args)
  local ok, why = check_executor(args)
  if not ok then return misuse(why) end
  if args.fresh and args.retry_failed then
    return misuse "--fresh: expected no --retry-failed beside it, which keeps what is measured"
  end
  local experiment = require "attune.experiment"
  -- Trials are processes of their own, which inherit it.
  if args.argument then require "luv".os_setenv("ATTUNE_ARGUMENT", args.argument) end
  local e
  e, why = experiment.load(args.script)
  if not e then return misuse(why) end
  if args.argument and not e.argument then
    return misuse(("%s takes no argument after its name, got '%s'"):format(
      args.script, args.argument))
  end
  local set
  set, why = assignments(args.set or {}, function(name) return axes.examples(e, name) end)
  if not set then return misuse(why) end
  local dir = args.out or "results/" .. e.name
  local outcome
  outcome, why = runner.run {
    script = args.script,
    dir = dir,
    own_folder = args.out ~= nil,
    quick = args.quick,
    rounds = args.rounds,
    set = set,
    only = args.only,
    fresh = args.fresh,
    retry_failed = args.retry_failed,
    keep = args.keep,
    jobs = args.jobs,
    host = args.host,
    against = args.against,
    dry = args.dry,
    fail_fast = args.fail_fast,
    command = command_line(),
    worker = worker_words(),
    executor = args.executor,
    points_per_task = args.points,
    slurm = args.slurm,
    detach = args.detach,
  }
  if not outcome then return misuse(why) end
  if outcome.dry then
    print_dry(outcome)
    if args.against then output.line "Each trial is run by two builds." end
    return 0
  end
  if outcome.detached then
    print_jobs(outcome, dir)
    return 0
  end
  if outcome.sides then return finish_two(outcome, dir) end
  local is_part = is_partial(e, args, set)
  return finish(outcome, dir, args.strict or not is_part, is_part)
end

return run
