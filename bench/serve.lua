--- One build's side of bench/check.lua: reads case names, one per line, and prints the best seconds
--- of a slot for each.
package.path = "./?.lua;" .. package.path
local rounds = require "bench.rounds"

local made = {}
for _, case in ipairs(require "bench.cases".cases) do made[case.name] = case end

for name in io.lines() do
  local case = made[name]
  if not case then
    print "unknown case"
  else
    print(("%.9g"):format(rounds.seconds_of(case)))
  end
  io.stdout:flush()
end
