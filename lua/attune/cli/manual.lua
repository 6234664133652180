local commands = require "attune.cli.commands"
local output = require "attune.cli.output"

local manual = {summary = "print the manual page: attune manual | man -l -"}

-- A text that roff reads as nothing else: no escapes, no request at the begin of a line.
local function roff(s)
  s = s:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("\n", " ")
  return (s:gsub("^[.']", "\\&%0"))
end

local function argument_words(words)
  local parts = {}
  for _, argument in ipairs(words.arguments) do
    local name = roff(argument.name:upper())
    parts[#parts + 1] = argument.optional and ("[%s]"):format(name) or name
  end
  return table.concat(parts, " ")
end

local head = [[
.TH ATTUNE 1 "" "attune @VERSION@" "User Commands"
.SH NAME
attune \- an attention laboratory
.SH SYNOPSIS
.B attune
.I COMMAND
.RI [ ARGUMENTS ]
.SH DESCRIPTION
attune runs experiments over attention engines, caches and positional encodings. It continues where
an earlier run stopped, tests claims with their uncertainty, draws plots and writes reports.
An experiment is a Lua script; see the page experiments of the documentation.
.SH COMMANDS
]]

local tail = [[
.SH EXIT STATUS
.TP
0
done; undecided claims and skipped points included
.TP
1
a trial or a claim failed
.TP
2
misuse
.TP
130, 143, 129
ended by Ctrl\-C, SIGTERM or SIGHUP; results so far are kept
.SH ENVIRONMENT
.TP
ATTUNE_ISA
the instruction set to use; the best one of the machine by default
.TP
ATTUNE_THREADS
the number of threads
.TP
COLUMNS
the width of figures in the terminal, where it cannot be asked
.TP
PATH
where gnuplot, git and the programs of Slurm are looked for
.TP
NO_COLOR
no colours in the terminal
.TP
XDG_STATE_HOME
holds the history of attune repl; ~/.local/state by default
.SH FILES
.TP
results/NAME
results of the experiment NAME: experiment.json, trials, plots, report.html
.TP
results/NAME/slurm
jobs of a cluster that measure for these results; see the option \-\-executor
.SH SEE ALSO
.BR lua5.4 (1),
.BR gnuplot (1)
]]

function manual.run()
  local version = require "attune.version"
  local out = {(head:gsub("@VERSION@", version))}
  for _, name in ipairs(commands.order) do
    local words = commands.words(name)
    out[#out + 1] = (".SS attune %s %s\n%s.\n"):format(name, argument_words(words),
      roff(words.summary:gsub("^%l", string.upper)))
    for _, argument in ipairs(words.arguments) do
      out[#out + 1] = (".TP\n.I %s\n%s\n"):format(roff(argument.name:upper()), roff(argument.about))
    end
    for _, option in ipairs(words.options) do
      local value = option.value and " " .. roff(option.value) or ""
      out[#out + 1] = (".TP\n.B %s%s\n%s\n"):format(roff(table.concat(option.names, ", ")), value,
        roff(option.about))
    end
  end
  out[#out + 1] = tail
  output.write(table.concat(out))
  return 0
end

return manual
