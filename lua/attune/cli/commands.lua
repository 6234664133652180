--- The commands in the order of the help, and their parsers.
local argparse = require "argparse"

local commands = {
  order = {
    "new", "run", "list", "show", "status", "query", "plot", "report", "export", "compare",
    "history", "merge", "gc", "watch", "model", "info", "env", "repl", "completion", "manual",
  },
}

--- The command of a name: {summary = string, options = function(parser)?, run = function(args)}.
---@param name string of `order`
---@return table
function commands.get(name) return require("attune.cli." .. name) end

--- A parser without help and without a way to end the process.
---@param name string of `order`
---@return table parser of argparse
function commands.parser(name)
  local command = commands.get(name)
  local parser = argparse("attune " .. name, command.summary):add_help(false)
  if command.options then command.options(parser) end
  return parser
end

---@class attune.CommandOption
---@field names string[] such as "--out"
---@field value string? the name of its value; nil for a flag
---@field about string

---@class attune.CommandWords
---@field name string
---@field summary string
---@field options attune.CommandOption[]
---@field arguments {name: string, about: string, optional: boolean}[]

--- What a command takes, for completion and the manual.
---@param name string
---@return attune.CommandWords
function commands.words(name)
  local parser = commands.parser(name)
  local words = {name = name, summary = commands.get(name).summary, options = {}, arguments = {}}
  for i, option in ipairs(parser._options) do
    local takes_value = option._maxargs > 0
    words.options[i] = {
      names = option._aliases, about = option._description or "",
      value = takes_value and (option._argname or "VALUE") or nil,
    }
  end
  for i, argument in ipairs(parser._arguments) do
    words.arguments[i] = {
      name = argument._name, about = argument._description or "",
      optional = argument._minargs == 0,
    }
  end
  return words
end

return commands
