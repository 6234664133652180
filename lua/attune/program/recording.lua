--- The trace in progress: what it has recorded, which line of the user's code runs, and errors that
--- name this line.
--
-- A score or mask function runs once with traced values in place of numbers. While it runs there is
-- a trace {fn, kind, records, runner, own, failure}; a finaliser that runs meanwhile may begin
-- another one inside it.
local recording = {}

-- More operations than this are taken for a mistake, such as a loop over all tokens. Each of them
-- would be computed for every pair of a query and a key.
recording.max_operations = 100000

local current -- the innermost trace; nil while no function is traced

--- An error with the place where it belongs: {message, file, line}. file is nil where no line is
--- known.
local Failure = {__name = "attune.trace_failure"}

function Failure:__tostring()
  if not self.file then return self.message end
  return ("%s:%d: %s"):format(self.file, self.line, self.message)
end

-- The folder of the library, lua/attune: this file is in a folder of it.
local library = debug.getinfo(1, "S").source:match "^(@.*/)[^/]*/[^/]*$" or "@attune/"

--- Whether a function belongs to the library. info: of debug.getinfo with "S".
function recording.is_library(info) return info.source:sub(1, #library) == library end
local is_library = recording.is_library

-- Whether functions have line numbers; stripped ones have no source either. info: with "S".
local function has_lines(info) return info.source ~= "=?" end

-- {file, line} where a function begins; nil for the library's own and for stripped functions.
local function beginning(fn)
  local info = debug.getinfo(fn, "S")
  if not is_library(info) and has_lines(info) then
    return {info.short_src, math.max(info.linedefined, 1)}
  end
end

-- The file and the line of the innermost running function that is not the library's. During a trace
-- this is a line of the traced function or of a function that it calls; where it has returned, or
-- has made a tail call, the line where it begins.
local function user_line()
  for level = 3, math.huge do
    local info = debug.getinfo(level, "Slf")
    if not info or current and info.func == current.runner then break end
    if info.currentline > 0 and not is_library(info) then
      return info.short_src, info.currentline
    end
  end
  if current and current.own then return current.own[1], current.own[2] end
end

-- Whether a position in a message, as "file:12", is the line of a running function of the library.
local function is_library_line(file, line)
  for level = 3, math.huge do
    local info = debug.getinfo(level, "Sl")
    if not info then return false end
    if info.currentline == line and info.short_src == file then return is_library(info) end
  end
end

local function text_of(e)
  if type(e) == "string" then return e end
  if type(e) == "table" and not getmetatable(e) then return "(error object is a table value)" end
  local ok, text = pcall(tostring, e)
  return ok and type(text) == "string" and text or "an error without a message"
end

--- A message handler for xpcall: makes any error a Failure. A line of the library's code in the
--- message is replaced by the line of the user's code that led there.
function recording.located(e)
  if getmetatable(e) == Failure then return e end
  local message = text_of(e)
  local file, line, rest = message:match "^([^\n]-):(%-?%d+): (.*)$"
  line = math.tointeger(tonumber(line))
  if line and file ~= "?" and not is_library_line(file, line) then
    return setmetatable({message = rest, file = file, line = line}, Failure)
  end
  if line then message = rest end
  file, line = user_line()
  return setmetatable({message = message, file = file, line = line}, Failure)
end

--- Raises what recording.located made, outside the trace. Where no line is known yet, the message
--- names the line that called the library.
function recording.raise(failure)
  if getmetatable(failure) ~= Failure then
    failure = setmetatable({message = text_of(failure)}, Failure)
  end
  if not failure.file then failure.file, failure.line = user_line() end
  error(tostring(failure), 0)
end

local function fail_kept()
  local message = "a traced value was kept and used after its function had returned"
  local file, line = user_line()
  error(tostring(setmetatable({message = message, file = file, line = line}, Failure)), 0)
end

--- Raises a failure of the traced function. It fails the trace even where the function catches it.
function recording.fail(message, ...)
  if not current then fail_kept() end
  local failure = setmetatable({message = message:format(...)}, Failure)
  failure.file, failure.line = user_line()
  current.failure = current.failure or failure
  error(failure, 0)
end

--- Raises a failure that belongs to the line of a record.
function recording.fail_at(record, message, ...)
  error(setmetatable({
    message = message:format(...), file = record.file, line = record.line,
  }, Failure), 0)
end

--- Raises the first failure of the trace, where there is one.
function recording.check()
  if current.failure then error(current.failure, 0) end
end

--- Records an operation: {op, kind, operands ..}. A record's operands are records and numbers. kind
--- is "int", "float", "bool", or "part": a tensor that has axes left to index.
function recording.add(record)
  if not current then fail_kept() end
  for _, operand in ipairs(record) do
    if type(operand) == "table" then recording.check_owner(operand) end
  end
  local records = current.records
  if #records >= recording.max_operations then
    recording.fail("%s: the function computes more than %d operations; use tensors, which a "
      .. "function reads at an index, in place of loops", current.kind, recording.max_operations)
  end
  local file, line = user_line()
  record.file = file
  record.line = line or 0
  record.trace = current
  records[#records + 1] = record
  return record
end

--- Raises an error unless a record belongs to the trace in progress.
function recording.check_owner(record)
  if record.trace ~= current then fail_kept() end
end

--- The trace in progress, or nil.
function recording.current() return current end

-- Whether a finaliser or a debug hook runs inside the trace in progress. It is not part of the
-- traced function and may trace functions of its own.
local function is_interrupted()
  for level = 3, math.huge do
    local info = debug.getinfo(level, "nf")
    if not info or info.func == current.runner then return false end
    if info.name == "__gc" or info.namewhat == "hook" then return true end
  end
end

--- Begins a trace of fn. The trace ends when the returned value, kept in a <close> variable, goes
--- out of scope, by an error too.
---@param fn function
---@param kind "score"|"mask"
function recording.begin(fn, kind)
  if current and not is_interrupted() then
    recording.fail("a score or mask function was called inside another one's tracing; call it with "
      .. "(s, at) there")
  end
  local outer = current
  local trace = {fn = fn, kind = kind, records = {}, own = beginning(fn), restores = {}}
  current = trace
  return setmetatable(trace, {
    __close = function()
      for n = #trace.restores, 1, -1 do trace.restores[n]() end
      current = outer
    end,
  })
end

--- Runs a function that belongs to a mask of the library. Errors that occur after it has returned
--- name the line where it begins.
---@return any # what the check returns for the function's first result
function recording.inside(fn, argument, check)
  local own = current.own
  current.own = beginning(fn)
  local result = check(fn(argument))
  current.own = own
  return result
end

return recording
