--- The files of an array job in a folder of results:
--
--     DIR/slurm/runNNNNN/submission.json  the job's name, its number and its tasks
--     DIR/slurm/runNNNNN/task-K.json      what task K has to do
--     DIR/slurm/runNNNNN/done-K.json      what has become of it, written at its end
--     DIR/slurm/runNNNNN/task-K.out       what it printed
--     DIR/slurm/runNNNNN/job.sh           what Slurm runs
--
-- Records go to DIR/trials/runNNNNN-TIME-taskK.jsonl: each task has a file of its own. The files
-- may come from a stranger: nothing that they name is run, and what is read from them is checked.
local files = require "attune.util.files"
local json = require "attune.util.json"
local schema = require "attune.results.schema"
local slurm = require "attune.experiment.executor.slurm"
local text = require "attune.util.text"
local uv = require "luv"

local max_bytes = schema.limits.description

local submission = {}

---@class attune.Submission
---@field folder string DIR/slurm/runNNNNN
---@field base string begin of the names of its files in DIR/trials
---@field name string of the job
---@field job string? its number, once sbatch has said it
---@field tasks integer
---@field losses integer how many times its trials were lost with their tasks, one after another

local function is_count(x, max) return math.type(x) == "integer" and x >= 0 and x <= max end

-- A submission of a folder; nil when there is none, or none that can be used.
local function read(folder)
  local content = files.read_inside(folder .. "/submission.json", max_bytes)
  local value = content and json.decode(content)
  local valid = type(value) == "table"
    and type(value.name) == "string" and value.name:find "^attune%-[%w_-]+%-%x+$"
    and type(value.base) == "string" and value.base:find "^run%d+%-[%dTZ]+$"
    and (value.job == nil or type(value.job) == "string" and value.job:find "^%d+$")
    and is_count(value.tasks, slurm.max_tasks) and is_count(value.losses, 1000)
  if not valid then return nil end
  return {
    folder = folder, base = value.base, name = value.name, job = value.job, tasks = value.tasks,
    losses = value.losses,
  }
end

--- The jobs of a folder of results that no run has taken in yet.
---@param dir string
---@return attune.Submission[]
function submission.list(dir)
  local list = {}
  if files.kind_inside(dir .. "/slurm") ~= "directory" then return list end
  for _, name in ipairs(files.list(dir .. "/slurm")) do
    local folder = ("%s/slurm/%s"):format(dir, name)
    if name:find "^run%d+$" and files.kind_inside(folder) == "directory" then
      list[#list + 1] = read(folder)
    end
  end
  return list
end

local function write(s)
  local value = {
    schema = schema.version, base = s.base, name = s.name, job = s.job, tasks = s.tasks,
    losses = s.losses,
  }
  return files.write(s.folder .. "/submission.json", json.encode(value) .. "\n")
end

--- The script that Slurm runs. Every word is in single quotes.
---@param s attune.Submission
---@param words string[] the program of a task; the task's number follows
---@return string
function submission.script(s, words)
  local q = text.shell_quote
  local lines = {"#!/bin/sh", "# Made by attune: one task of an array job."}
  for _, name in ipairs {"LUA_PATH", "LUA_CPATH", "ATTUNE_COMMAND"} do
    local value = os.getenv(name)
    if value then lines[#lines + 1] = ("%s=%s\nexport %s"):format(name, q(value), name) end
  end
  lines[#lines + 1] = ('exec >>%s"$SLURM_ARRAY_TASK_ID.out" 2>&1'):format(q(s.folder .. "/task-"))
  lines[#lines + 1] = ("cd %s || exit 1"):format(q(uv.cwd()))
  local quoted = {}
  for i, word in ipairs(words) do quoted[i] = q(word) end
  lines[#lines + 1] = ('exec %s %s "$SLURM_ARRAY_TASK_ID"'):format(table.concat(quoted, " "),
    q(s.folder))
  return table.concat(lines, "\n") .. "\n"
end

--- Writes the files of a job and submits it.
---@param s attune.Submission without folder, job and tasks
---@param dir string absolute, the folder of results
---@param tasks table[] what each task reads, see experiment/task.lua
---@param how {program: string[], options: string[], exclusive: boolean}
---@return attune.Submission? submission
---@return string? message
function submission.submit(s, dir, tasks, how)
  s.folder, s.tasks = ("%s/slurm/%s"):format(dir, s.base:match "^run%d+"), #tasks
  local ok, why = files.make_folder_inside(dir .. "/slurm")
  -- A folder of this name that exists may hold what a stranger wrote.
  if ok then ok, why = uv.fs_mkdir(s.folder, 493) end -- 0755
  local is_own = ok
  for i, task in ipairs(ok and tasks or {}) do
    if ok then ok, why = files.write(("%s/task-%d.json"):format(s.folder, i), json.encode(task)) end
  end
  if ok then ok, why = files.write(s.folder .. "/job.sh", submission.script(s, how.program)) end
  if ok then ok, why = write(s) end
  if not ok then
    if is_own then submission.close(s) end
    return nil, ("%s: the files of a job cannot be written: %s"):format(s.folder, why)
  end
  s.job, why = slurm.submit {
    folder = s.folder, name = s.name, tasks = s.tasks, options = how.options,
    exclusive = how.exclusive,
  }
  if s.job then ok, why = write(s) end
  if s.job and ok then return s end
  -- sbatch may have been interrupted after it had submitted the job.
  slurm.cancel(s.name)
  submission.close(s)
  return nil, why
end

--- What a task has to do, as its file says.
---@param folder string
---@param task integer
---@return table? value nil when it cannot be read
---@return string? message
function submission.task(folder, task)
  local content, why = files.read_inside(("%s/task-%d.json"):format(folder, task), max_bytes)
  if not content then return nil, why end
  local value
  value, why = json.decode(content)
  if type(value) == "table" and type(value.trials) == "table" then return value end
  return nil, ("%s/task-%d.json: %s"):format(folder, task, why or "expected a list of trials")
end

--- Writes what has become of a task.
---@param folder string
---@param task integer
---@param outcome {status: "done"|"failed", reason: string?, left: integer?}
function submission.finish(folder, task, outcome)
  return files.write(("%s/done-%d.json"):format(folder, task), json.encode(outcome) .. "\n")
end

--- What has become of a task; nil while it has not ended, or when it ended without a word.
---@param s attune.Submission
---@param task integer
---@return {status: "done"|"failed", reason: string?, left: integer}?
function submission.outcome(s, task)
  local path = ("%s/done-%d.json"):format(s.folder, task)
  local content = files.kind_inside(path) == "file" and files.read_inside(path, max_bytes)
  local value = content and json.decode(content)
  if type(value) ~= "table" then return nil end
  return {
    status = value.status == "done" and "done" or "failed",
    reason = text.plain(value.reason),
    left = math.type(value.left) == "integer" and value.left or 0,
  }
end

local max_words, max_word_bytes = 4096, 300

--- The last line that a task printed, such as what Slurm says when it ends a task; nil for none.
---@param s attune.Submission
---@param task integer
---@return string?
function submission.last_words(s, task)
  local path = ("%s/task-%d.out"):format(s.folder, task)
  local content = files.read_inside(path, max_bytes) or ""
  local line = content:sub(-max_words):match "([^\n]*%S[^\n]*)%s*$"
  return line and text.cut(text.printable(line), max_word_bytes)
end

--- Forgets a job. What a task printed stays where `keep` says so.
---@param s attune.Submission
---@param keep? boolean
function submission.close(s, keep)
  for _, name in ipairs(files.list(s.folder)) do
    local path = s.folder .. "/" .. name
    local is_output = name:find "^task%-%d+%.out$"
    local is_own = is_output or name:find "^task%-%d+%.json$" or name:find "^done%-%d+%.json$"
      or name == "job.sh" or name == "submission.json" or files.is_temporary(name)
    if is_own and not (keep and is_output) then uv.fs_unlink(path) end
  end
  uv.fs_rmdir(s.folder)
  uv.fs_rmdir(files.folder_of(s.folder))
end

return submission
