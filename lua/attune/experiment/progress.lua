--- Shows how far a run is: one line that is rewritten on a terminal, plain lines elsewhere.
local uv = require "luv"
local text = require "attune.util.text"

local Progress = {}
Progress.__index = Progress

--- A progress line. It goes to standard error, so that a table on standard output can be piped.
---@param total integer trials to run
local function new(total)
  local terminal = uv.guess_handle(2) == "tty" and os.getenv "TERM" ~= "dumb"
  local tty = terminal and uv.new_tty(2, false)
  return setmetatable({
    total = total,
    done = 0,
    measured = 0, -- of those that are done: not the skipped ones
    start = uv.hrtime(),
    terminal = tty ~= nil and tty ~= false,
    tty = tty,
  }, Progress)
end

-- A closed terminal is no reason to stop measuring, so that errors of writing are ignored.
local function put(s)
  pcall(function()
    io.stderr:write(s)
    io.stderr:flush()
  end)
end

local function width(self)
  local columns = self.tty and self.tty:get_winsize()
  return columns and columns > 0 and columns or 80
end

local function cut(s, n)
  if n < 1 then return "" end
  if (utf8.len(s) or #s) <= n then return s end
  return s:sub(1, (utf8.offset(s, n) or n) - 1) .. "…"
end

-- The remaining time, from the mean time per measured trial so far.
local function eta(self)
  if self.measured == 0 then return "" end
  local took = (uv.hrtime() - self.start) * 1e-9
  return "about " .. text.duration(took / self.measured * (self.total - self.done)) .. " left"
end

function Progress:draw(what)
  if not self.terminal then return end
  local columns = width(self)
  -- A terminal that is too narrow for a bar shows the numbers only.
  local bar_width = columns >= 20 and math.max(8, math.min(30, columns // 4)) or 0
  local full = self.total > 0 and self.done * bar_width // self.total or bar_width
  local bar = ("█"):rep(full) .. ("░"):rep(bar_width - full)
  local shown = text.printable(what or "")
  local rest = (" %d/%d  %s  %s"):format(self.done, self.total, eta(self), shown)
  if bar_width == 0 then rest = rest:sub(2) end
  put("\r\27[K" .. bar .. cut(rest, columns - bar_width - 1))
end

--- Prints a line that stays, such as a failure or a warning.
function Progress:say(line)
  if self.terminal then put("\r\27[K") end
  put(text.printable(line) .. "\n")
end

--- Call before a trial starts.
---@param what string the trial in words
function Progress:begin(what) self:draw(what) end

--- Call when a trial has ended.
---@param what string the trial in words
---@param record attune.Record
function Progress:finish(what, record)
  self.done = self.done + 1
  if record.status ~= "skipped" then self.measured = self.measured + 1 end
  if record.status ~= "ok" and (record.status ~= "skipped" or record.round == 1) then
    local reason = (record.reason or ""):match "^[^\n]*"
    self:say(("%s: %s: %s"):format(record.status, what, reason))
  elseif not self.terminal then
    local took = text.duration(record.seconds or 0)
    self:say(("[%d/%d] %s  %s, %s"):format(self.done, self.total, what, took, eta(self)))
  end
  self:draw(what)
end

function Progress:close()
  if self.terminal then put("\r\27[K") end
  if self.tty then self.tty:close() end
  self.tty = nil
end

return new
