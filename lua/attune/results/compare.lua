--- Two folders of results, point by point: what became better, what became worse, what cannot be
--- told.
--
-- Points are paired by the parameters that both folders have. With `by` all pairs that agree in
-- these parameters are one comparison: the value of a round is the geometric mean over the pairs.
-- Folders that declare the same seeds are compared seed by seed.
-- Values of different processors are never compared: each processor is a comparison of its own.
local stats = require "attune.results.statistics"
local suggest = require "attune.util.suggest"
local text = require "attune.util.text"
local sorted_keys = require "attune.util.tables".sorted_keys

local compare = {}

---@class attune.CompareRow
---@field parameters table<string, attune.Scalar> of the pair; with `by` only these
---@field cpu? string where the folders have several processors
---@field metric string
---@field unit? string
---@field better? "lower"|"higher" declared, or lower for seconds and bytes
---@field pairs integer number of pairs of points behind this row
---@field a attune.Centre of folder A
---@field b attune.Centre
---@field comparison attune.Comparison
---@field p? number adjusted for all rows (Holm)
---@field verdict attune.ComparisonVerdict

---@class attune.CompareReport
---@field a attune.Results
---@field b attune.Results
---@field alpha number
---@field paired boolean
---@field parameters string[] those that tell rows apart
---@field word "seed"|"round" what each value is of
---@field rows attune.CompareRow[] in the order of folder A
---@field lost {parameters: table, status: string, reason: string?}[] ok in A, not in B
---@field only_a integer points that B does not have
---@field only_b integer
---@field notes string[]

local function names_of(list)
  local names = {}
  for i, m in ipairs(list) do names[i] = m.name end
  return names
end

local function contains(list, value)
  for _, x in ipairs(list) do
    if x == value then return true end
  end
  return false
end

-- The metrics to compare: those of both folders, or the one that was asked for.
local function shared_metrics(a, b, wanted)
  local of_a, of_b, list = names_of(a.metrics), names_of(b.metrics), {}
  for _, m in ipairs(b.metrics) do
    if contains(of_a, m.name) and (not wanted or m.name == wanted) then list[#list + 1] = m end
  end
  if #list > 0 then return list end
  if not wanted then return nil, "metrics: expected one that both folders have, got none" end
  local side, names = a, of_a
  if contains(of_a, wanted) then side, names = b, of_b end
  return nil, ("unknown metric '%s' of %s: %s"):format(wanted, side.dir, suggest(wanted, names))
end

--- Why values of a metric in two folders cannot be compared or joined: their units differ, or what
--- counts as better.
---@param metrics_a attune.Metric[] of folder A
---@param dir_a string
---@param metrics_b attune.Metric[]
---@param dir_b string
---@param wanted? string this metric only
---@return string? message
function compare.unlike(metrics_a, dir_a, metrics_b, dir_b, wanted)
  local of_a = {}
  for _, m in ipairs(metrics_a) do of_a[m.name] = m end
  local format = "metric '%s': expected one %s in all folders, got %s in %s and %s in %s"
  for _, y in ipairs(metrics_b) do
    local x = (not wanted or wanted == y.name) and of_a[y.name]
    -- A script may declare later what it did not: one without a unit fits any.
    if x and x.unit and y.unit and x.unit ~= y.unit then
      return format:format(y.name, "unit", text.plain(x.unit), dir_a, text.plain(y.unit), dir_b)
    end
    if x and x.better and y.better and x.better ~= y.better then
      return format:format(y.name, "'better'", text.plain(x.better), dir_a, text.plain(y.better),
        dir_b)
    end
  end
end

-- The parameters that both folders have.
local function shared_parameters(a, b)
  local list = {}
  for _, name in ipairs(a.parameters) do
    if contains(b.parameters, name) then list[#list + 1] = name end
  end
  return list
end

local function key_of(point, names)
  local parts = {}
  for i, name in ipairs(names) do
    local value = point.parameters[name]
    -- 1 and 1.0 are the same point; "1" is not.
    if type(value) == "number" then value = ("n%.17g"):format(value) end
    parts[i] = ("%s=%s"):format(name, tostring(value))
  end
  return table.concat(parts, "\0")
end

-- Points by their key; the keys in order, and those that several points have.
local function by_key(points, names)
  local found, order, several = {}, {}, {}
  for _, point in ipairs(points) do
    local key = key_of(point, names)
    if found[key] then
      several[key] = true
    else
      found[key] = point
      order[#order + 1] = key
    end
  end
  return found, order, several
end

-- The parameters in which points with one key differ, as words.
local function differing(points, names, key)
  local list = {}
  for name in pairs(points[1].parameters) do
    local values = {}
    for _, point in ipairs(points) do
      if key_of(point, names) == key then values[tostring(point.parameters[name])] = true end
    end
    if next(values, (next(values))) ~= nil then list[#list + 1] = name end
  end
  table.sort(list)
  return table.concat(list, ", ")
end

-- Pairs of points {a, b} in the order of A, the numbers of points without a partner.
local function pair_up(a, b, names)
  local of_a, order, several_a = by_key(a.points, names)
  local of_b, order_b, several_b = by_key(b.points, names)
  local list, only_a, only_b = {}, 0, 0
  for _, side in ipairs {{a, several_a}, {b, several_b}} do
    local dir, key = side[1], (next(side[2]))
    if key then
      local format = "%s: expected one point per set of the parameters that both folders have, got "
        .. "several, which differ in %s"
      return nil, format:format(dir.dir, differing(dir.points, names, key))
    end
  end
  for _, key in ipairs(order) do
    if of_b[key] then list[#list + 1] = {of_a[key], of_b[key]} else only_a = only_a + 1 end
  end
  for _, key in ipairs(order_b) do
    if not of_a[key] then only_b = only_b + 1 end
  end
  return list, only_a, only_b
end

-- Groups of pairs that agree in the parameters `by`; without it each pair is a group.
local function grouped(list, by)
  local groups, at = {}, {}
  for i, pair in ipairs(list) do
    local key = by and key_of(pair[1], by) or i
    if not at[key] then
      at[key] = {}
      groups[#groups + 1] = at[key]
    end
    table.insert(at[key], pair)
  end
  return groups
end

-- Where no points agree in everything: in each group of `by` the only points of A and B.
local function pair_in_groups(a, b, by)
  local list = {}
  local of_a, order, several_a = by_key(a.points, by)
  local of_b, _, several_b = by_key(b.points, by)
  for _, key in ipairs(order) do
    if of_b[key] and not several_a[key] and not several_b[key] then
      list[#list + 1] = {of_a[key], of_b[key]}
    end
  end
  return list
end

-- ---- processors ---------------------------------------------------------------------------------

local function processors(results)
  local list = {}
  for _, point in ipairs(results.points) do
    for _, value in pairs(point.metrics) do
      for _, cpu in ipairs(value.cpus or {}) do
        if not contains(list, cpu) then list[#list + 1] = cpu end
      end
    end
  end
  table.sort(list)
  return list
end

-- The processors that both folders have; nil and a message when they have none in common.
local function shared_processors(a, b)
  local of_a, of_b, list = processors(a), processors(b), {}
  for _, cpu in ipairs(of_a) do
    if contains(of_b, cpu) then list[#list + 1] = cpu end
  end
  if #list == 0 and #of_a > 0 and #of_b > 0 then
    local format = "processor: expected results of one processor, got '%s' in %s and '%s' in %s: "
      .. "their ratio would compare the machines; measure both on one"
    return nil, format:format(table.concat(of_a, "', '"), a.dir, table.concat(of_b, "', '"), b.dir)
  end
  return list, #of_a > 1 or #of_b > 1
end

-- ---- values -------------------------------------------------------------------------------------

-- The values of a metric on one processor, by round: {[round] = value}.
local function values_of(point, metric, cpu)
  local value, by_round = point.metrics[metric], {}
  for i, round in ipairs(value and value.rounds or {}) do
    if not cpu or not value.cpus or value.cpus[i] == cpu then by_round[round] = value.values[i] end
  end
  return by_round
end

-- One value per round over several points: the geometric mean, or the mean where one is not
-- positive. Rounds that some point lacks are left out.
local function pooled(points, metric, cpu)
  local lists, rounds, values = {}, {}, {}
  if #points == 0 then return values, rounds end
  for i, point in ipairs(points) do lists[i] = values_of(point, metric, cpu) end
  for round in pairs(lists[1]) do
    local complete = true
    for _, list in ipairs(lists) do complete = complete and list[round] ~= nil end
    if complete then rounds[#rounds + 1] = round end
  end
  table.sort(rounds)
  for i, round in ipairs(rounds) do
    local own, logs = {}, {}
    for k, list in ipairs(lists) do
      own[k] = list[round]
      logs[k] = list[round] > 0 and math.log(list[round]) or nil
    end
    local positive = #logs == #own and #own > 1
    values[i] = positive and math.exp(stats.mean(logs)) or stats.mean(own)
  end
  return values, rounds
end

-- Which way is better where the script does not say.
local function direction(metric)
  return metric.better or ((metric.unit == "s" or metric.unit == "B") and "lower" or nil)
end

-- The points of A and of B in those pairs of a group that have the metric on both sides.
local function measured(group, metric, cpu)
  local of_a, of_b = {}, {}
  for _, pair in ipairs(group) do
    if next(values_of(pair[1], metric, cpu)) and next(values_of(pair[2], metric, cpu)) then
      of_a[#of_a + 1], of_b[#of_b + 1] = pair[1], pair[2]
    end
  end
  return of_a, of_b
end

-- Adds a row for each metric of a group that both sides have.
local function add_rows(rows, group, metrics, cpu, names)
  local parameters = {}
  for _, name in ipairs(names) do parameters[name] = group[1][1].parameters[name] end
  for _, metric in ipairs(metrics) do
    local of_a, of_b = measured(group, metric.name, cpu)
    local a, rounds_a = pooled(of_a, metric.name, cpu)
    local b, rounds_b = pooled(of_b, metric.name, cpu)
    if #a > 0 and #b > 0 then
      rows[#rows + 1] = {
        parameters = parameters,
        cpu = cpu,
        metric = metric.name,
        unit = metric.unit,
        better = direction(metric),
        pairs = #of_a,
        a = stats.centre(a),
        b = stats.centre(b),
        values = {a = a, b = b, rounds_a = rounds_a, rounds_b = rounds_b},
      }
    end
  end
end

--- Fills in comparison, p and verdict of rows, adjusted for their number.
---@param rows table[] with better and values = {a, b, rounds_a, rounds_b}, which are taken away
---@param options {paired: boolean?, threshold: number?} threshold: a change below it is none
function compare.judge(rows, options)
  local list = {}
  for i, row in ipairs(rows) do
    local v = row.values
    row.comparison = stats.compare(v.a, v.b, {
      paired = options.paired,
      rounds_a = v.rounds_a,
      rounds_b = v.rounds_b,
      comparisons = #rows,
    })
    row.values = nil
    list[i] = row.comparison.p or false
  end
  for i, p in ipairs(stats.holm(list)) do
    rows[i].p = p or nil
    rows[i].verdict = stats.verdict(rows[i].comparison, rows[i].better, p, options)
  end
end

-- The first metric whose values are finite in A and not all in B.
local function no_longer_finite(a, b, metrics)
  for _, m in ipairs(metrics) do
    local of_a, of_b = a.metrics[m.name], b.metrics[m.name]
    if of_a and of_b and stats.all_finite(of_a.values) and not stats.all_finite(of_b.values) then
      return m.name
    end
  end
end

-- Points that were ok in A and are not in B, or have a value that is not finite there only.
local function lost_points(list, metrics)
  local lost = {}
  for _, pair in ipairs(list) do
    local a, b = pair[1], pair[2]
    local metric = b.status == "ok" and no_longer_finite(a, b, metrics)
    if a.status == "ok" and a.rounds > 0 and b.status ~= "ok" then
      lost[#lost + 1] = {parameters = b.parameters, status = b.status, reason = b.reason}
    elseif a.status == "ok" and metric then
      lost[#lost + 1] = {
        parameters = b.parameters, status = "not finite",
        reason = ("%s: expected finite values, as in A, got NaN or an infinity"):format(metric),
      }
    end
  end
  return lost
end

-- ---- conditions ---------------------------------------------------------------------------------

local conditions = {
  {"isa", "instruction set"}, {"threads", "threads"}, {"build", "build"}, {"blis", "BLIS"},
  {"governor", "frequency governor"}, {"system", "system"}, {"huge_pages", "huge pages"},
}

-- What else differs between the last runs of two folders.
local function condition_notes(a, b)
  local notes = {}
  local of_a, of_b = a.provenance[#a.provenance] or {}, b.provenance[#b.provenance] or {}
  for _, condition in ipairs(conditions) do
    local x, y = of_a[condition[1]], of_b[condition[1]]
    if x ~= nil and y ~= nil and x ~= y then
      notes[#notes + 1] = ("%s: A %s, B %s"):format(condition[2], text.plain(x), text.plain(y))
    end
  end
  if a.name ~= b.name then
    notes[#notes + 1] = ("experiment: A %s, B %s"):format(a.name, b.name)
  end
  return notes
end

local function check_by(by, a, b)
  for _, name in ipairs(by or {}) do
    for _, results in ipairs {a, b} do
      if not contains(results.parameters, name) then
        local hint = suggest(name, results.parameters)
        return ("unknown parameter '%s' of %s: %s"):format(name, results.dir, hint)
      end
    end
  end
end

-- Whether both folders declare the same seeds: then values of one seed belong together.
local function same_seeds(a, b)
  if not a.seeds or not b.seeds or #a.seeds ~= #b.seeds then return false end
  for _, seed in ipairs(a.seeds) do
    if not contains(b.seeds, seed) then return false end
  end
  return true
end

-- With declared seeds the "rounds" of a value are indices into them: those of two folders are the
-- same only by the seeds themselves.
local function seeds_of(rounds, seeds)
  for i, round in ipairs(seeds and rounds or {}) do rounds[i] = seeds[round] end
end

local nothing = "expected points with the same parameters in %s and %s, got none; "
  .. "--by NAME pairs those that agree in a parameter"

-- The pairs of points, numbers of others, and the parameters that tell rows apart.
local function find_pairs(a, b, by)
  local names = shared_parameters(a, b)
  local list, only_a, only_b = pair_up(a, b, names)
  if not list and not by then return nil, only_a end
  if by and (not list or #list == 0) then
    list, only_a, only_b = pair_in_groups(a, b, by), 0, 0
  end
  if #list == 0 then return nil, nothing:format(a.dir, b.dir) end
  return list, only_a, only_b
end

---@class attune.CompareFoldersOptions
---@field by? string[] parameters: one comparison per set of their values
---@field metric? string all metrics that both have by default
---@field paired? boolean rounds of A and B were measured alternately
---@field threshold? number a change below this fraction is none; 0.01 by default

--- Compares the points of two folders.
---@param a attune.Results
---@param b attune.Results
---@param options? attune.CompareFoldersOptions
---@return attune.CompareReport? report nil where nothing can be compared
---@return string? message
function compare.folders(a, b, options)
  options = options or {}
  local why = check_by(options.by, a, b)
  if why then return nil, why end
  local metrics, cpus, several
  metrics, why = shared_metrics(a, b, options.metric)
  if not metrics then return nil, why end
  why = compare.unlike(a.metrics, a.dir, b.metrics, b.dir, options.metric)
  if why then return nil, why end
  cpus, several = shared_processors(a, b)
  if not cpus then return nil, several end
  local list, only_a, only_b = find_pairs(a, b, options.by)
  if not list then return nil, only_a end
  local names = options.by or {}
  if not options.by then
    for _, name in ipairs(shared_parameters(a, b)) do
      if contains(a.varied, name) or contains(b.varied, name) then names[#names + 1] = name end
    end
  end
  local rows = {}
  for _, group in ipairs(grouped(list, options.by)) do
    if several then
      for _, cpu in ipairs(cpus) do add_rows(rows, group, metrics, cpu, names) end
    else
      add_rows(rows, group, metrics, nil, names)
    end
  end
  local lost = lost_points(list, metrics)
  if #rows == 0 and #lost == 0 then
    return nil, ("expected a metric at points of %s and %s, got none"):format(a.dir, b.dir)
  end
  if options.paired and not a.seeds ~= not b.seeds then
    return nil, ("--paired: expected folders that both declare seeds, or neither, got seeds in %s "
      .. "only"):format(a.seeds and a.dir or b.dir)
  end
  for _, row in ipairs(rows) do
    seeds_of(row.values.rounds_a, a.seeds)
    seeds_of(row.values.rounds_b, b.seeds)
  end
  local paired = options.paired or same_seeds(a, b)
  compare.judge(rows, {paired = paired, threshold = options.threshold})
  return {
    a = a, b = b, alpha = stats.alpha, paired = paired, parameters = names,
    word = a.seeds and b.seeds and "seed" or "round",
    rows = rows, lost = lost, only_a = only_a, only_b = only_b, notes = condition_notes(a, b),
  }
end

compare.direction = direction

--- A text that is the same for points with equal parameters.
---@param point attune.Point
---@return string
function compare.key(point)
  local names = sorted_keys(point.parameters)
  return key_of(point, names)
end

return compare
