--- One build's side of bench/check.lua: prints the best seconds of a slot of the case that the
--- argument names.
package.path = "./?.lua;" .. package.path
local rounds = require "bench.rounds"

for _, case in ipairs(require "bench.cases".cases) do
  if case.name == arg[1] then
    print(("%.9g"):format(rounds.seconds_of(case)))
    return
  end
end
print "unknown case"
