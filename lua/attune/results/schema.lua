--- The table that store.read returns, as declared classes with a version.
--
-- Plots, reports, exports, claims and the command's tables read this table and nothing else: never
-- live objects, never the files behind it. To add a field, declare it here, fill it in
-- results/store.lua, and raise `version` when older readers would misread the new files.
local schema = {}

--- Version of the results table and of the files behind it. Each header and experiment.json carry
--- it as `schema`. Readers read every version up to this one.
---
--- 1: file names hold the time, the machine and the process; each record has `schema` and `source`.
--- 2: file names begin with a running number; `source` is in the header, and in a record only where
---    it differs; a record leaves out `attempt` where it is 1, `warnings` where there are none and
---    `core_peak` where it is 0; the fingerprint of the script is part of a point's hash.
schema.version = 2

--- What a folder of results may contain. Reading a folder, declaring an experiment and the answer
--- of a trial are checked against these limits: results/validate.lua.
schema.limits = {
  name = 128, -- bytes, of a parameter, a metric or an experiment
  unit = 32, -- bytes
  text = 1 << 13, -- bytes: about, caption, title, a claim, the value of a parameter
  message = 1 << 16, -- bytes: a reason, a warning, a detail, a command
  output = 1 << 14, -- bytes, the end of what a trial printed
  depth = 20, -- nested tables in a record
  parameters = 256,
  metrics = 1000, -- of one trial
  list = 1000, -- plots, claims, warnings of one trial
  samples = 1000000, -- of one metric and trial
  script = 1 << 20, -- bytes, script.lua
  record = 1 << 24, -- bytes, one line of trials/*.jsonl
  description = 1 << 23, -- bytes, experiment.json and claims.json
  file = 1 << 28, -- bytes, one file of trials
  files = 10000,
  warnings = 1000, -- shown of all trials together
}

schema.statuses = {ok = true, skipped = true, failed = true, oom = true, timeout = true}
schema.verdicts = {held = true, failed = true, undecided = true}
schema.plot_kinds = {
  line = true, scatter = true, bars = true, heat = true, roofline = true, pareto = true,
  ecdf = true, box = true, pixels = true,
}
-- Why the samples of a round are unsteady: experiment/conditions.lua.
schema.causes = {
  steal = true, load = true, faults = true, frequency = true, samples = true, unknown = true,
}

---@alias attune.Status
---| "ok"       every metric was measured
---| "skipped"  the trial said that the point does not apply
---| "failed"   an error, or a crash
---| "oom"      the memory limit, or the machine's memory, was exceeded
---| "timeout"  the trial took longer than its time limit

---@alias attune.Scalar number|string|boolean

--- How a metric is shown and compared.
---@class attune.Metric
---@field name string
---@field unit? string "s", "B", "%"; none or "1" for a plain number
---@field better? "lower"|"higher"
---@field about? string

--- A point's value of one metric. values, samples and rounds have one entry per measured round.
---@class attune.Value
---@field centre number what is printed: the mean or the median of values
---@field kind "value"|"mean"|"median" what the centre is; "value" for one round
---@field lo? number lower end of the 95% interval of the centre; nil for one round
---@field hi? number upper end
---@field median number over values
---@field iqr number interquartile range of values
---@field n integer number of values
---@field values number[] each round's value: its number, or the median of its samples
---@field samples number[][] each round's samples
---@field rounds integer[] the round of each value, from 1; with seeds, which seed
---@field cpus string[] the processor that measured each value; "unknown" where no header says
---@field unsteady? boolean the samples of some round differ by more than 5% (median deviation)
---@field causes? table<attune.Unsteadiness, integer> how many of these rounds name each cause

--- One combination of parameters.
---@class attune.Point
---@field hash string 16 hexadecimal digits, from the experiment's name, the version of attune, the
--- source of the trial and the parameters
---@field index integer position in the sweep, from 1
---@field parameters table<string, attune.Scalar>
---@field status attune.Status the worst of its rounds
---@field reason? string why it is not ok
---@field rounds integer number of rounds that ended ok
---@field metrics table<string, attune.Value>

--- A claim of the experiment with the verdict of the last run.
---@class attune.ClaimVerdict
---@field text string
---@field verdict "held"|"failed"|"undecided"
---@field detail? string
---@field source? string where the claim was made, such as "Shazeer 2019"
---@field paper? attune.Scalar the figure of that source
---@field ours? {centre: number?, lo: number?, hi: number?, kind: string, rounds: integer} what the
--- claim's quantity is here

--- The circumstances of one run: the header of a file of records.
---@class attune.Provenance
---@field file? string name of the file under trials/
---@field time? string UTC
---@field attune? string version
---@field build? string compiler and flags
---@field git? {commit: string, dirty: boolean} of the script's folder
---@field blis? string version of the package
---@field lua? string
---@field system? string
---@field host? string only where the run was asked for it
---@field source? string fingerprint of the script that measured
---@field cpu? string
---@field cores? integer
---@field threads? integer
---@field isa? string instruction set in use
---@field features? string of the processor
---@field l2? integer bytes
---@field l3? integer bytes
---@field memory? integer bytes
---@field governor? string
---@field huge_pages? string
---@field load? string load average at the start
---@field script? string
---@field command? string

--- Everything that a folder of results contains.
---@class attune.Results
---@field schema integer schema.version
---@field dir string
---@field name string of the experiment
---@field about? string
---@field quick? boolean whether the last run was a --quick run
---@field script? string
---@field command? string of the last run
---@field rounds? integer asked for by the last run
---@field seeds? integer[] where declared: each seed gives one value of a point
---@field method? {timing: boolean?, timeout: number?, memory: number?} limits of the last run
---@field parameters string[] all parameter names in table order
---@field varied string[] those that have more than one value
---@field metrics attune.Metric[] the declared ones, then the others by name
---@field plots attune.PlotSpec[]
---@field claims attune.ClaimVerdict[]
---@field provenance attune.Provenance[] one per run, oldest first
---@field warnings string[]
---@field points attune.Point[] in sweep order

local Results = {__name = "attune.Results"}
Results.__index = Results

local required = {
  dir = "string",
  name = "string",
  parameters = "table",
  varied = "table",
  metrics = "table",
  plots = "table",
  claims = "table",
  provenance = "table",
  warnings = "table",
  points = "table",
}

--- Marks a table as results. Raises an error when a field is missing.
---@param t table
---@return attune.Results
function schema.results(t)
  for name, kind in pairs(required) do
    if type(t[name]) ~= kind then
      error(("results.%s: expected a %s, got a %s"):format(name, kind, type(t[name])), 2)
    end
  end
  t.schema = schema.version
  return setmetatable(t, Results)
end

---@return boolean whether schema.results made this value
function schema.is(value) return getmetatable(value) == Results end

return schema
