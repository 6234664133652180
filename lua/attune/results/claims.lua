--- The handle over results that a claim's function gets, and the verdict on a claim.
local is_library = require "attune.program.recording".is_library
local quantity = require "attune.results.quantity"
local reference = require "attune.results.reference"
local repeats = require "attune.results.repeats"
local stats = require "attune.results.statistics"
local suggest = require "attune.util.suggest"

local Handle = {}
Handle.__index = Handle

local matches = reference.matches

local function check_parameters(self, wanted, level)
  if wanted ~= nil and type(wanted) ~= "table" then
    local format = "expected a table of parameters, such as {kv_heads = 1}, got a %s"
    error(format:format(type(wanted)), level + 1)
  end
  local known = self.results.parameters
  for name in pairs(wanted or {}) do
    local found
    for _, p in ipairs(known) do found = found or p == name end
    if not found then
      local hint = suggest(tostring(name), known)
      error(("unknown parameter '%s': %s"):format(tostring(name), hint), level + 1)
    end
  end
end

local function check_metric(self, metric, level)
  local names = {}
  for _, m in ipairs(self.results.metrics) do
    if m.name == metric then return end
    names[#names + 1] = m.name
  end
  local hint = suggest(tostring(metric), names)
  error(("unknown metric '%s': %s"):format(tostring(metric), hint), level + 1)
end

--- A handle over the points that have these parameters. A list is any of its values.
---@param wanted table<string, attune.Scalar|attune.Scalar[]>
function Handle:where(wanted)
  check_parameters(self, wanted, 2)
  local kept = {}
  for _, point in ipairs(self.points) do
    if matches(point, wanted) then kept[#kept + 1] = point end
  end
  return setmetatable({
    results = self.results, points = kept, is_complete = self.is_complete,
  }, Handle)
end

--- The median of a metric at each point, in sweep order; points without it are left out.
---@param metric string
---@return number[]
function Handle:values(metric)
  check_metric(self, metric, 2)
  local values = {}
  for _, point in ipairs(self.points) do
    local m = point.metrics[metric]
    if m then values[#values + 1] = m.median end
  end
  return values
end

--- The largest value of a parameter (sign 1) or the smallest (sign -1).
---@param parameter string
---@param sign 1|-1
---@return number?
function Handle:extreme(parameter, sign)
  local best
  for _, point in ipairs(self.points) do
    local v = point.parameters[parameter]
    if type(v) == "number" and (not best or v * sign > best * sign) then best = v end
  end
  return best
end

-- The metric's value at the only point that has it among those with the wanted parameters.
local function value_of_one(self, metric, wanted, name, level)
  local values, without = {}, nil
  for _, point in ipairs(self.points) do
    local value = matches(point, wanted) and point.metrics[metric]
    if value then values[#values + 1] = value end
    if matches(point, wanted) and not value then without = without or point.status end
  end
  if #values == 0 then
    local why = not without and "no point has these parameters"
      or without == "ok" and "the trial of the point with these parameters did not return it"
      or ("the point with these parameters has status '%s'"):format(without)
    error(("%s: expected one point with '%s', got none: %s"):format(name, metric, why), level + 1)
  end
  if #values > 1 then
    local format = "%s: expected one point with '%s', got %d; narrow it with r:where"
    error(format:format(name, metric, #values), level + 1)
  end
  return values[1]
end

-- What fn makes of the two values of each round that both points have.
local function of_pairs(self, metric, a, b, what, fn)
  check_metric(self, metric, 3)
  check_parameters(self, a, 3)
  check_parameters(self, b, 3)
  local x = value_of_one(self, metric, a, what .. ": a", 3)
  local y = value_of_one(self, metric, b, what .. ": b", 3)
  local by_round, list = {}, {}
  for i, round in ipairs(y.rounds) do by_round[round] = y.values[i] end
  for i, round in ipairs(x.rounds) do
    if by_round[round] then list[#list + 1] = fn(x.values[i], by_round[round]) end
  end
  local word = repeats.word(self.results)
  if #list == 0 then
    return quantity.missing(what, ("no %s has a value of '%s' at both points"):format(word, metric))
  end
  return quantity.of(list, what, word)
end

--- The metric at a divided by the metric at b. Each of a and b must match one point. Rounds are
--- paired, as they were measured one after the other.
---@param metric string
---@param a table<string, attune.Scalar>
---@param b table<string, attune.Scalar>
---@return attune.Quantity
function Handle:ratio(metric, a, b)
  return of_pairs(self, metric, a, b, "ratio", function(x, y) return x / y end)
end

--- The metric at a less the metric at b, for values that may be zero or negative.
---@param metric string
---@param a table<string, attune.Scalar>
---@param b table<string, attune.Scalar>
---@return attune.Quantity
function Handle:difference(metric, a, b)
  return of_pairs(self, metric, a, b, "difference", function(x, y) return x - y end)
end

--- The metric at one point.
---@param metric string
---@param wanted? table<string, attune.Scalar>
---@return attune.Quantity
function Handle:value(metric, wanted)
  check_metric(self, metric, 2)
  check_parameters(self, wanted, 2)
  local values = value_of_one(self, metric, wanted, "value", 2).values
  return quantity.of(values, "value", repeats.word(self.results))
end

local Family = {}
Family.__index = Family

--- The quantity of one member.
---@param name attune.Scalar a value of the parameter
---@return attune.Quantity
function Family:of(name)
  if name == self.base then
    error(("of: expected another %s than that of the comparison, got %s"):format(self.parameter,
      tostring(name)), 2)
  end
  if self.is_complete and not self.present[name] then
    local known = {}
    for value in pairs(self.present) do
      if value ~= self.base then known[#known + 1] = tostring(value) end
    end
    error(("of: unknown %s '%s': %s"):format(self.parameter, tostring(name),
      suggest(tostring(name), known)), 2)
  end
  return self.members[name] or quantity.missing(
    self.what, ("no %s with %s = %s in this run"):format(self.metric, self.parameter, name))
end

-- Holm 1979 over the members that have a probability.
local function adjust(members, names)
  local list, tested = {}, {}
  for _, name in ipairs(names) do
    local p = members[name]:probability()
    if p then list[#list + 1], tested[#tested + 1] = p, members[name] end
  end
  for i, p in ipairs(stats.holm(list)) do tested[i].p, tested[i].comparisons = p, #list end
end

--- The metric at every other value of a parameter against one value of it, round by round (seed by
--- seed), with probabilities that are adjusted for the number of comparisons (Holm 1979). Narrow
--- what else varies with r:where first. Values without a shared round are no members.
---@param metric string
---@param base table<string, attune.Scalar> one parameter, such as {variant = "MHA"}
---@param what "ratio"|"difference"
---@return {of: (fun(self, name: attune.Scalar): attune.Quantity), names: attune.Scalar[]} family
function Handle:family(metric, base, what)
  if what ~= "ratio" and what ~= "difference" then
    error(("family: expected 'ratio' or 'difference', got %s"):format(tostring(what)), 2)
  end
  local parameter, value
  if type(base) == "table" then parameter, value = next(base) end
  if parameter == nil or next(base, parameter) ~= nil then
    error("family: expected one parameter to compare with, such as {variant = 'MHA'}", 2)
  end
  check_metric(self, metric, 2)
  check_parameters(self, base, 2)
  local members, names, seen, present = {}, {}, {[value] = true}, {}
  for _, point in ipairs(self.points) do
    local name = point.parameters[parameter]
    if name ~= nil then present[name] = true end
  end
  if self.is_complete and not present[value] then
    error(("family: no point has %s %s"):format(parameter, tostring(value)), 2)
  end
  local function has(name)
    for _, point in ipairs(self.points) do
      if point.parameters[parameter] == name and point.metrics[metric] then return true end
    end
    return false
  end
  for _, point in ipairs(has(value) and self.points or {}) do
    local name = point.parameters[parameter]
    if name ~= nil and not seen[name] and has(name) then
      seen[name] = true
      local q = self[what](self, metric, {[parameter] = name}, base)
      if q.n > 0 then members[name], names[#names + 1] = q, name end
    end
  end
  adjust(members, names)
  return setmetatable({
    members = members, names = names, metric = metric, parameter = parameter, what = what,
    base = value, present = present, is_complete = self.is_complete,
  }, Family)
end

local claims = {}

--- The handle over results that claims and scripts use.
---@param results attune.Results
---@param is_complete? boolean whether these are all points of the script: then a value of a
--- parameter that no point has is a mistake
function claims.over(results, is_complete)
  return setmetatable({
    results = results, points = results.points, is_complete = is_complete,
  }, Handle)
end

-- Turns what a claim's function returned into verdict, detail and quantity.
local function judged(value, detail)
  if type(value) == "boolean" then return value and "held" or "failed", detail end
  local verdict, words, ours = quantity.judged(value)
  if verdict then return verdict, words .. (detail and "; " .. detail or ""), ours end
  if value == nil then return "undecided", detail or "the claim's function returned nothing" end
  local format = "the claim's function returned a %s; "
    .. "expected a boolean or the result of :above, :below or :within"
  return "failed", format:format(type(value))
end

-- The quantity as claims.json holds it.
local function stored(q)
  return q and {centre = q.centre, lo = q.lo, hi = q.hi, kind = q.kind, rounds = q.n} or nil
end

-- A handler for xpcall: the message with the script's file and line. Where attune found the error
-- that is the line of the innermost call from a script; after tail calls, which leave no line, it
-- is the line where the claim's function begins. runner: the function that calls the claim's.
local function at_script(fn, runner)
  local beginning = debug.getinfo(fn, "S")
  return function(message)
    message = type(message) == "string" and message or "a " .. type(message)
    local at = ("%s:%d: "):format(beginning.short_src, beginning.linedefined)
    local innermost, outside
    for level = 2, math.huge do
      local info = debug.getinfo(level, "Slf")
      if not info then break end
      local position = ("%s:%d: "):format(info.short_src, info.currentline)
      local says_it = message:sub(1, #position) == position
      if info.what ~= "C" and not is_library(info) and not outside then
        if says_it then return message end
        innermost = innermost or position
      elseif says_it then
        message = message:sub(#position + 1)
      end
      outside = outside or info.func == runner
    end
    return (innermost or at) .. message
  end
end

local function refuse_exit()
  error("os.exit: expected the claim's function to return, not to end the process", 2)
end

local function judge_one(claim, results, is_incomplete)
  local function runner()
    local value, more = claim[2](claims.over(results, not is_incomplete))
    return judged(value, more and tostring(more))
  end
  local exit = os.exit
  rawset(os, "exit", refuse_exit)
  local ok, verdict, detail, ours = xpcall(runner, at_script(claim[2], runner))
  rawset(os, "exit", exit)
  os.setlocale "C" -- numbers are written with a point, whatever the function has set
  if not ok and is_incomplete then
    detail, ours = "not all points are measured (error: " .. tostring(verdict) .. ")", nil
    verdict = "undecided"
  elseif not ok then
    verdict, detail, ours = "failed", "error: " .. tostring(verdict), nil
  end
  return {
    text = claim[1], verdict = verdict, detail = detail, source = claim.source,
    paper = claim.paper, ours = stored(ours),
  }
end

-- The first of these sets of parameters that no point of the run has; nil when all are there.
local function missing_point(needs, results)
  for _, wanted in ipairs(needs or {}) do
    local found = false
    for _, point in ipairs(results.points) do found = found or matches(point, wanted) end
    if not found then return wanted end
  end
end

-- The verdict on a claim that needs a point which a complete run does not have.
local function without_point(claim, wanted)
  return {
    text = claim[1], verdict = "failed", source = claim.source, paper = claim.paper,
    detail = ("needs: no point of the script has %s"):format(reference.conditions(wanted)),
  }
end

--- Judges every claim whose `needs` are among the points, then the reference values for this
--- machine. A claim whose function raises an error has failed, with the error as detail; where
--- points are missing it is undecided, as the error may come from that. A claim that needs a point
--- which is not there is left out where points are missing, else it has failed.
---@param experiment attune.Experiment
---@param results attune.Results
---@param is_incomplete? boolean whether these are not all points that the script declares
---@return attune.ClaimVerdict[]
function claims.judge(experiment, results, is_incomplete)
  local list = {}
  for _, claim in ipairs(experiment.claims or {}) do
    local missing = missing_point(claim.needs, results)
    if not missing then
      list[#list + 1] = judge_one(claim, results, is_incomplete)
    elseif not is_incomplete then
      list[#list + 1] = without_point(claim, missing)
    end
  end
  for _, verdict in ipairs(reference.judge(experiment.reference, results, is_incomplete)) do
    list[#list + 1] = verdict
  end
  return list
end

return claims
