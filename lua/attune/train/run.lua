--- The training loop: batches, losses, gradients, steps, validation, checkpoints, and what to do
--- when a number is not finite.
local checkpoint = require "attune.train.checkpoint"
local core = require "attune.core"
local evaluate = require "attune.train.evaluate"
local files = require "attune.util.files"
local inspect = require "attune.train.inspect"
local optim = require "attune.optim"
local options = require "attune.util.options"
local progress = require "attune.train.progress"
local record_of = require "attune.train.record"
local uv = require "luv"

local known = {
  "model", "data", "steps", "optimizer", "schedule", "clip", "seed", "checkpoint", "validate",
  "log", "batch", "accumulate",
}

local function wrong(name, what, got)
  core._raise(("%s: expected %s, got %s"):format(name, what, options.describe(got)))
end

local function positive(o, name, default)
  local x = o[name]
  if x == nil then return default end
  if math.type(x) ~= "integer" or x < 1 then wrong(name, "an integer of at least 1", x) end
  return x
end

-- Calls a function of the library, whose errors are then about the caller of this one.
local function called(name, fn, ...)
  local results = table.pack(pcall(fn, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  local why = results[2]
  if type(why) ~= "string" or why == "interrupted!" then error(why, 0) end
  core._raise(name .. ": " .. why:gsub("^[^\n]-%.lua:%d+: ", ""))
end

-- ---- options ----------------------------------------------------------------------------------

local function read_data(o)
  local data = o.data
  if type(data) == "function" then return data end
  if type(data) ~= "table" or type(data.next) ~= "function" then
    wrong("data", "a loader, a task, or a function that returns ids, targets, weights", data)
  end
  local batch = positive(o, "batch")
  if data.batch then return function() return data:next() end, data end
  if not batch then wrong("batch", "a number of rows, which a task needs", batch) end
  return function() return data:next(batch) end, data
end

local function read_optimizer(o)
  local given = o.optimizer
  if type(given) == "table" and type(given.step) == "function" then
    if given._steps_one_of and not given:_steps_one_of(o.model:parameters()) then
      core._raise "optimizer: expected one over parameters of the model, got one over other tensors"
    end
    return given
  end
  if given ~= nil and type(given) ~= "table" then
    wrong("optimizer", "an optimiser, such as optim.adamw(model:parameters()), or options", given)
  end
  return called("optimizer", optim.adamw, o.model:parameters(), given)
end

local function read_schedule(o, steps, lr)
  local schedule = o.schedule
  if schedule == nil or type(schedule) == "function" then return schedule end
  if type(schedule) ~= "table" then
    wrong("schedule", "a function of the step, or {kind = 'cosine', warmup = 100}", schedule)
  end
  local copy = {lr = lr, steps = steps}
  for name, value in next, schedule do copy[name] = value end
  return called("schedule", optim.schedule, copy)
end

local function read_section(o, name, fields, example)
  if o[name] == nil then return nil end
  local section = options.read(o[name], fields, 4, name, example)
  section.every = positive(section, "every")
  if not section.every then wrong(name .. ".every", "a number of steps", nil) end
  return section
end

local function check_validation(data)
  if type(data) == "function" then return end
  if type(data) ~= "table" or type(data.each) ~= "function" and type(data.next) ~= "function" then
    wrong("validate.data", "a loader, a task, or a function that returns ids, targets, weights",
      data)
  end
end

-- What each validation reads on from, and a checkpoint keeps; none where it starts anew each time.
local function validation_part(run)
  local data = run.validate and run.validate.data
  local goes_on = type(data) == "table" and type(data.each) ~= "function"
  return goes_on and checkpoint.is_part(data) and data or nil
end

-- A checkpoint needs the state of everything, but for a function as data.
local function check_parts(run)
  for _, name in ipairs {"model", "optimizer", "data"} do
    local part = run[name]
    if part ~= nil and not checkpoint.is_part(part) then
      wrong(name, "state() and load_state(), which a checkpoint needs", part)
    end
  end
  if run.data then checkpoint.state_of("data", run.data) end
  local part = validation_part(run)
  if part then checkpoint.state_of("validate.data", part) end
end

local function read(given)
  local o = options.read(given, known, 3, "options", "{model = , data = , steps = 1000}")
  local model = o.model
  for _, method in ipairs {"loss", "parameters"} do
    if type(model) ~= "table" or type(model[method]) ~= "function" then
      core._raise("model: expected a model with loss and parameters, such as nn.Decoder, got "
        .. (type(model) ~= "table" and options.describe(model) or "one without " .. method))
    end
  end
  local run = {model = o.model, steps = positive(o, "steps"), seed = o.seed}
  if not run.steps then wrong("steps", "an integer of at least 1", nil) end
  if o.seed ~= nil and math.type(o.seed) ~= "integer" then wrong("seed", "an integer", o.seed) end
  if o.clip ~= nil and (type(o.clip) ~= "number" or not (o.clip > 0)) then
    wrong("clip", "a number above 0", o.clip)
  end
  run.draw, run.data = read_data(o)
  run.optimizer = read_optimizer(o)
  run.schedule = read_schedule(o, run.steps, run.optimizer.lr)
  run.clip, run.accumulate = o.clip, positive(o, "accumulate", 1)
  run.checkpoint = read_section(o, "checkpoint", {"dir", "every"}, "{dir = , every = 100}")
  if run.checkpoint and (type(run.checkpoint.dir) ~= "string" or run.checkpoint.dir == "") then
    wrong("checkpoint.dir", "the name of a folder", run.checkpoint.dir)
  end
  run.validate = read_section(o, "validate", {"data", "every", "batches", "batch"},
    "{data = , every = 100}")
  if run.validate then
    check_validation(run.validate.data)
    positive(run.validate, "batches")
    positive(run.validate, "batch")
  end
  if run.checkpoint then check_parts(run) end
  if o.log ~= nil and o.log ~= false and type(o.log) ~= "function" then
    wrong("log", "a function of an entry, or false", o.log)
  end
  run.log = o.log == nil and progress.writer(uv.guess_handle(2) == "tty") or o.log
  return run
end

-- ---- checkpoints ------------------------------------------------------------------------------

local file_name = "checkpoint.safetensors"

-- Adds a warning for data whose position a checkpoint cannot keep.
local function warn_of_positions(run, warnings)
  local form = "%s is %s, whose position a checkpoint does not keep: the run goes on with the "
    .. "batches that it gives next, and %s may differ from those of an uninterrupted run. Use a "
    .. "loader, a task, or a table with next(), state() and load_state()"
  if not run.data then
    warnings[#warnings + 1] = form:format("data", "a function", "the bits")
  end
  local data = run.validate and run.validate.data
  if type(data) == "function" then
    warnings[#warnings + 1] = form:format("validate.data", "a function", "validation losses")
  elseif data and type(data.each) ~= "function" and not checkpoint.is_part(data) then
    warnings[#warnings + 1] =
      form:format("validate.data", "a table without state()", "validation losses")
  end
end

-- Makes the folder, and goes on from what is there.
local function resume(run, result)
  local dir = run.checkpoint.dir
  local ok, why = files.make_folder(dir)
  if not ok then return nil, why, "EIO" end
  run.path = dir .. "/" .. file_name
  if not files.kind(run.path) then return true end
  local record, message, code = checkpoint.load(run.path, {
    model = run.model, optimizer = run.optimizer, data = run.data, validate = validation_part(run),
  })
  if not record then return nil, message, code end
  run.first = record.step + 1
  if run.first <= run.steps then
    warn_of_positions(run, record.warnings)
  elseif record.step > run.steps then
    local form = "%s is of step %d, after the %d steps of this run: nothing is trained, and the "
      .. "result is that of %d steps"
    record.warnings = {form:format(run.path, record.step, run.steps, record.step)}
  else
    record.warnings = {}
  end
  for _, warning in ipairs(record.warnings) do io.stderr:write("attune: ", warning, "\n") end
  result.losses, result.validation = record.extra.losses or {}, record.extra.validation or {}
  return true
end

local function save(run, result, step)
  return checkpoint.save(run.path, {
    model = run.model, optimizer = run.optimizer, data = run.data,
    validate = validation_part(run), step = step,
    extra = {losses = result.losses, validation = result.validation},
  })
end

-- ---- a step -----------------------------------------------------------------------------------

local function is_finite(x) return x == x and x < math.huge and x > -math.huge end

-- The number of tokens of ids [batch, tokens], a tensor or a list of ids or of rows; nil for
-- anything else.
local function tokens_of(ids)
  if core._kind(ids) == "tensor" then
    local shape = ids.shape
    return #shape == 0 and 1 or #shape == 1 and shape[1] or shape[1] * shape[#shape]
  end
  if type(ids) ~= "table" or rawlen(ids) == 0 then return nil end
  local count = 0
  for k = 1, rawlen(ids) do
    local row = rawget(ids, k)
    count = count + (type(row) == "table" and rawlen(row) or 1)
  end
  return count
end

-- The batches of a step, and their tokens.
local function draw_batches(run, step)
  local batches, tokens = {}, 0
  for k = 1, run.accumulate do
    local batch = table.pack(run.draw())
    local count = tokens_of(batch[1])
    if not count then
      core._raise(("data: expected ids, a tensor [batch, tokens] or a list of rows, got %s at step "
        .. "%d"):format(batch[1] == nil and "nothing" or options.describe(batch[1]), step))
    end
    batches[k], tokens = batch, tokens + count
  end
  return batches, tokens
end

local function is_scalar(loss)
  if core._kind(loss) ~= "tensor" then return false end
  for _, extent in ipairs(loss.shape) do
    if extent ~= 1 then return false end
  end
  return true
end

-- Computes the losses of the batches and adds up their gradients. Returns the mean loss. Dropout
-- follows from the number of the batch, so that the batches of a step drop different elements.
local function backward(run, step, batches)
  local sum = 0
  for k, batch in ipairs(batches) do
    if run.model.set_step then run.model:set_step((step - 1) * run.accumulate + k) end
    local loss = run.model:loss(table.unpack(batch, 1, batch.n))
    if not is_scalar(loss) then
      wrong("model", "loss to return a tensor of one element", loss)
    end
    if not core._node(loss) then
      core._raise("model: expected a loss that depends on parameters, got one without a graph")
    end
    sum = sum + loss:item()
    if run.accumulate > 1 then loss = loss * (1 / run.accumulate) end
    loss:backward()
  end
  return sum / #batches
end

-- Sets the rate of a step.
local function set_rate(run, step)
  if not run.schedule then return end
  local lr = run.schedule(step)
  if type(lr) ~= "number" or not (lr >= 0 and lr < math.huge) then
    wrong("schedule", ("a number of at least 0 for step %d"):format(step), lr)
  end
  run.optimizer.lr = lr
end

local function stop(run, step, batches, what, value)
  run.optimizer:zero_grad()
  core._seeds(run.base, run.draws)
  local where = inspect.replay(run.model, function() backward(run, step, batches) end)
  run.optimizer:zero_grad()
  core._raise(("train: expected a finite %s, got %s at step %d; %s. The parameters are those "
    .. "before the step"):format(what, value, step, where))
end

local function train_step(run, step)
  local optimizer = run.optimizer
  set_rate(run, step)
  optimizer:zero_grad()
  local batches, tokens = draw_batches(run, step)
  if run.seed then core.set_seed(run.seed * 1000003 + step) end
  run.base, run.draws = core._seeds() -- for a replay of the step
  local loss = backward(run, step, batches)
  if not is_finite(loss) then stop(run, step, batches, "loss", loss) end
  local norm = optim.clip(run.model:parameters(), run.clip)
  if not is_finite(norm) then stop(run, step, batches, "gradient norm", norm) end
  optimizer:step()
  return loss, norm, tokens
end

local function validate(run, result, step)
  local v = run.validate
  local found = evaluate.loss(run.model, v.data, {batches = v.batches, batch = v.batch})
  result.validation[#result.validation + 1] =
    {step = step, loss = found.loss, bits_per_byte = found.bits_per_byte}
  return found.loss
end

-- ---- the loop ---------------------------------------------------------------------------------

local function is_due(section, step, steps)
  return section and (step % section.every == 0 or step == steps)
end

--- Trains a model. Where the folder of `checkpoint` holds a checkpoint, the run goes on from it: it
--- ends with the bits of one that was never interrupted, on the same machine and ATTUNE_ISA.
---
--- One of more steps than `steps` is read, with a warning, and nothing is trained: the model and
--- the losses are those of all its steps.
---
--- A loss or a gradient norm that is not finite raises an error that names the first tensor that is
--- not; the parameters stay as they were before the step.
---@param given {model: table, data: table|function, steps: integer, optimizer: table?,
--- schedule: function|table|nil, clip: number?, seed: integer?,
--- checkpoint: {dir: string, every: integer}?,
--- validate: {data: table, every: integer, batches: integer?, batch: integer?}?,
--- log: function|false|nil, batch: integer?, accumulate: integer?}
--- optimizer: AdamW by default, or its options; batch: rows of a task; accumulate: batches per step
---@return {losses: number[], validation: table[]}? result validation: {step, loss, bits_per_byte}
---@return string? message a checkpoint could not be read or written
---@return string|integer? code
return function(given)
  local run = read(given)
  local result = {losses = {}, validation = {}}
  run.first = 1
  if run.checkpoint then
    local ok, why, code = resume(run, result)
    if not ok then return nil, why, code end
    run.record, why = record_of.open(run.checkpoint.dir .. "/" .. record_of.name, result, run.steps)
    if not run.record then return nil, why, "EIO" end
  end
  local _ <close> = setmetatable({}, {__close = function()
    if run.record then run.record:close() end
  end})
  local start, tokens_done = core.clock(), 0
  for step = run.first, run.steps do
    local loss, norm, tokens = train_step(run, step)
    result.losses[step] = loss
    tokens_done = tokens_done + tokens
    local validation = is_due(run.validate, step, run.steps) and validate(run, result, step) or nil
    local elapsed = core.clock() - start
    local entry = {
      step = step, steps = run.steps, loss = loss, norm = norm, lr = run.optimizer.lr,
      validation = validation, tokens_per_s = tokens_done / elapsed,
      eta = elapsed / (step - run.first + 1) * (run.steps - step),
    }
    if run.record then run.record:add(entry) end
    if run.log then run.log(entry) end
    if is_due(run.checkpoint, step, run.steps) then
      local ok, why, code = save(run, result, step)
      if not ok then return nil, why, code end
    end
  end
  run.optimizer:zero_grad()
  if run.model.set_step then run.model:set_step(nil) end
  return result
end
