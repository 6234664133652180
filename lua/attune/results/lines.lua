--- The lines of a file of trials, with what each is.
local json = require "attune.util.json"
local limits = require "attune.results.schema".limits
local validate = require "attune.results.validate"

--- Visits each line of a file. Files are visited in the order of their names, as reader.records
--- reads them.
---@param content string of the file
---@param records attune.Record[] what reader.records returned for the folder
---@param state {at: integer} how many records were visited before: at = 0 for the first file
---@param visit fun(line: string, kind: "header"|"record"|"broken", record?: attune.Record)
return function(content, records, state, visit)
  for line in content:gmatch "[^\n]+" do
    local value = #line <= limits.record and json.decode(line) or nil
    if type(value) == "table" and value.header ~= nil and not validate.header(value.header) then
      visit(line, "header")
    elseif type(value) ~= "table" or validate.record(value) then
      visit(line, "broken")
    else
      state.at = state.at + 1
      visit(line, "record", records[state.at])
    end
  end
end
