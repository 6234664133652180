--- One build's side of a comparison: a line with a case's name on standard input, its best seconds
--- of a slot on standard output.
package.path = "./?.lua;" .. package.path
local rounds = require "bench.rounds"

local made = {}
for _, case in ipairs(require "bench.cases".cases) do made[case.name] = case end

for name in io.lines() do
  local case = made[name]
  if not case then
    print "unknown"
  else
    print(("%.9g"):format(rounds.seconds_of(case)))
  end
  io.stdout:flush()
end
