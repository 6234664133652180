--- One line of progress on a terminal: step, loss, rate of learning, tokens per second, time left.
local core = require "attune.core"

local progress = {}

local function duration(seconds)
  if seconds ~= seconds or seconds == math.huge then return "?" end
  local s = math.floor(seconds + 0.5)
  if s < 3600 then return ("%d:%02d"):format(s // 60, s % 60) end
  return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60)
end

local function rate(x)
  if x >= 1e6 then return ("%.2fM"):format(x / 1e6) end
  if x >= 1e3 then return ("%.1fk"):format(x / 1e3) end
  return ("%.0f"):format(x)
end

--- The text of an entry of the log.
---@param e {step: integer, steps: integer, loss: number, lr: number, tokens_per_s: number,
--- eta: number, validation: number?}
---@return string
function progress.line(e)
  local text = ("step %d/%d  loss %.4f  lr %.2e  %s tokens/s  %s left"):format(
    e.step, e.steps, e.loss, e.lr, rate(e.tokens_per_s), duration(e.eta))
  if e.validation then text = text .. ("  validation %.4f"):format(e.validation) end
  return text
end

local interval = 0.2 -- seconds between two lines

--- A log function that rewrites one line of standard error; lines with a validation loss stay.
---@param is_terminal boolean without a terminal only those lines, and the last one, are written
---@return fun(entry: table)
function progress.writer(is_terminal)
  local last, width = -math.huge, 0
  return function(e)
    local now = core.clock()
    local stays = e.validation ~= nil or e.step == e.steps
    if not stays and (not is_terminal or now - last < interval) then return end
    last = now
    local text = progress.line(e)
    if is_terminal then
      io.stderr:write("\r", text, (" "):rep(width - #text), stays and "\n" or "")
      width = stays and 0 or #text
    else
      io.stderr:write(text, "\n")
    end
    io.stderr:flush()
  end
end

return progress
