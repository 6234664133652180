--- The curve of a run on disk: JSON Lines, one line per step, which `attune watch` draws.
local files = require "attune.util.files"
local json = require "attune.util.json"

local Record = {}
Record.__index = Record

--- Begins a file with what an earlier run has left: the same name, written anew.
---@param path string
---@param result {losses: number[], validation: table[]}
---@param steps integer of the whole run
---@return table? record
---@return string? message
local function open(path, result, steps)
  local lines, validation = {}, {}
  for _, v in ipairs(result.validation) do validation[v.step] = v.loss end
  for step, loss in ipairs(result.losses) do
    lines[step] = json.encode {
      step = step, steps = steps, loss = loss, validation = validation[step],
    } .. "\n"
  end
  local ok, why = files.save(path, table.concat(lines))
  if not ok then return nil, why end
  local file
  file, why = io.open(path, "ab")
  if not file then return nil, why end
  return setmetatable({file = file}, Record)
end

--- Appends an entry of the log. A full disk does not stop the run, which does not need the curve.
function Record:add(entry)
  self.file:write(json.encode {
    step = entry.step, steps = entry.steps, loss = entry.loss, lr = entry.lr, norm = entry.norm,
    validation = entry.validation, tokens_per_s = entry.tokens_per_s,
  }, "\n")
  self.file:flush()
end

function Record:close() self.file:close() end

return {open = open, name = "losses.jsonl"}
