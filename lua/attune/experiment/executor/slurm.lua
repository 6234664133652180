--- Talks to Slurm through its programs: sbatch, squeue, sacct and scancel.
--
-- No shell reads the words of these programs. A job is found by its name, which no other job has:
-- a program that was killed between sbatch and the file that holds the job's number still finds it.
local process = require "attune.util.process"
local uv = require "luv"

local slurm = {}

local seconds = 60 -- for each program

--- The max number of tasks of an array job: MaxArraySize of Slurm is 1001 by default.
slurm.max_tasks = 1000

local function found(program)
  for folder in (os.getenv "PATH" or ""):gmatch "[^:]+" do
    if uv.fs_access(folder .. "/" .. program, "X") then return true end
  end
  return false
end

--- Whether jobs can be submitted here.
---@return true? ok
---@return string? message names the package to install
function slurm.check()
  for _, program in ipairs {"sbatch", "squeue", "scancel"} do
    if not found(program) then
      return nil, ("--executor slurm: expected the program %s on PATH, got none; install the "
        .. "Debian package slurm-client on a machine of the cluster"):format(program)
    end
  end
  return true
end

-- Splits a text as a shell does: blanks separate words; quotes and backslashes keep them together.
-- Nothing is expanded.
local function split(s)
  local words, word, at = {}, nil, 1
  while at <= #s do
    local c = s:sub(at, at)
    local step, part = 1, nil
    if c:find "%s" then
      words[#words + 1], word = word, nil
    elseif c == "'" then
      part = s:match("^'([^']*)'", at)
      step = part and #part + 2
    elseif c == '"' then
      local quoted = s:match('^"()', at)
      while s:find('^[^"\\]', quoted) or s:find("^\\.", quoted) do
        quoted = quoted + (s:byte(quoted) == 92 and 2 or 1)
      end
      if s:sub(quoted, quoted) == '"' then
        part = s:sub(at + 1, quoted - 1):gsub('\\([\\"$`])', "%1")
        step = quoted - at + 1
      else
        step = nil
      end
    elseif c == "\\" then
      part, step = s:sub(at + 1, at + 1), at < #s and 2 or nil
    else
      part = c
    end
    if not step then return nil end
    if part then word = (word or "") .. part end
    at = at + step
  end
  words[#words + 1] = word
  return words
end

-- attune gives these itself.
local own = {
  ["--array"] = true, ["-a"] = true, ["--job-name"] = true, ["-J"] = true, ["--output"] = true,
  ["-o"] = true, ["--parsable"] = true, ["--wrap"] = true, ["--clusters"] = true, ["-M"] = true,
}

--- The options of sbatch in a text such as `--partition=long --time 2:00:00`.
---@param s string quotes and backslashes work as in a shell
---@return string[]? options
---@return string? message
function slurm.options(s)
  local words = split(s)
  if not words then
    return nil, ("--slurm: expected options with closed quotes, got '%s'"):format(s)
  end
  local takes_value = false
  for _, word in ipairs(words) do
    local is_option = word:find "^%-." ~= nil
    if not is_option and not takes_value then
      return nil, ("--slurm: expected options of sbatch such as --partition=NAME, got '%s'")
        :format(word)
    end
    local name = word:match "^%-%-[^=]*" or word:match "^%-."
    if is_option and own[name] then
      return nil, ("--slurm: %s: expected another option, as attune gives this one"):format(name)
    end
    takes_value = is_option and not word:find("=", 1, true)
  end
  return words
end

-- What a program printed on standard output; nil and a message when it failed.
local function said(words, folder)
  local ended, why = process.run(words, "both", seconds, folder)
  if not ended then return nil, ("%s: %s"):format(words[1], why) end
  if ended.code == 0 and ended.signal == 0 then return ended.said end
  local complaint = ended.complained:match "%S.*" or ended.said:match "%S.*"
  local how = ended.late and ("no answer within %d s"):format(seconds)
    or ended.signal ~= 0 and ("ended by signal %d"):format(ended.signal)
    or ("ended with status %d"):format(ended.code)
  local last = complaint and complaint:gsub("%s+$", ""):gsub("\n", "; ")
  return nil, ("%s: %s"):format(words[1], last or how)
end

local function user() return "--user=" .. uv.getuid() end

---@class attune.SlurmJob
---@field folder string holds job.sh, which keeps its output itself: in names of files that sbatch
--- is given, % and \ have a meaning
---@field name string of the job, which no other job has
---@field tasks integer tasks 1, 2, .. of the array job
---@field options string[] of the user
---@field exclusive boolean whether a task needs its machine alone

--- Submits an array job.
---@param job attune.SlurmJob
---@return string? number of the job
---@return string? message
function slurm.submit(job)
  -- The last one of an option counts: the user's options come after what they may change.
  local words = {"sbatch", "--requeue"}
  if job.exclusive then words[#words + 1] = "--exclusive" end
  table.move(job.options, 1, #job.options, #words + 1, words)
  for _, word in ipairs {
    "--parsable", "--job-name=" .. job.name, ("--array=1-%d"):format(job.tasks),
    "--output=/dev/null", "job.sh",
  } do
    words[#words + 1] = word
  end
  local text, why = said(words, job.folder)
  if not text then return nil, why end
  local number = text:match "^%s*(%d+)"
  if number then return number end
  return nil, ("sbatch: expected the number of a job, got '%s'"):format(text:sub(1, 200))
end

-- States of tasks that run no more and will not run again.
local ended_states = {
  COMPLETED = true, CANCELLED = true, FAILED = true, TIMEOUT = true, NODE_FAIL = true,
  PREEMPTED = true, BOOT_FAIL = true, DEADLINE = true, OUT_OF_MEMORY = true, REVOKED = true,
}
local queued_states = {
  PENDING = true, CONFIGURING = true, REQUEUED = true, REQUEUE_FED = true, REQUEUE_HOLD = true,
  SPECIAL_EXIT = true, RESV_DEL_HOLD = true,
}

--- What a state of Slurm means.
---@param state string? such as "PENDING"; nil: Slurm does not know the task any more
---@return "queued"|"running"|"ended"
function slurm.kind(state)
  if not state or ended_states[state] then return "ended" end
  return queued_states[state] and "queued" or "running"
end

-- Reads lines such as 17_3|RUNNING and 17_3|CANCELLED by 0.
local function states_in(text)
  local states = {}
  for task, state in text:gmatch "%d+_(%d+)|([%u_]+)" do
    states[math.tointeger(tonumber(task))] = state
  end
  return states
end

--- The states of the tasks of a job. Slurm forgets tasks some minutes after their end.
---@param name string of the job
---@return table<integer, string>? states nil when Slurm does not answer
---@return string? message
function slurm.states(name)
  local text, why = said {
    "squeue", "--noheader", "--array", "--states=all", user(), "--name=" .. name,
    "--format=%i|%T",
  }
  if not text then return nil, why end
  return states_in(text)
end

--- The states of tasks that Slurm has forgotten, where it keeps accounts; else none.
---@param name string of the job
---@return table<integer, string> states
function slurm.accounted(name)
  local text = said {
    "sacct", "--noheader", "--parsable2", "--allocations", user(), "--name=" .. name,
    "--format=JobID,State",
  }
  return states_in(text or "")
end

--- Cancels all tasks of a job.
---@param name string of the job
---@return true? ok
---@return string? message
function slurm.cancel(name)
  local text, why = said {"scancel", user(), "--name=" .. name}
  if not text then return nil, why end
  return true
end

return slurm
