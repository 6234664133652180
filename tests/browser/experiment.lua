--- Results for a look at their report: figures, a long name, a point that fails.
return require "attune.experiment" {
  name = "browser",
  about = "Does the report work in a browser?",
  grid = {n = {3, 1, 2, 4}, kind = {"short", ("long-"):rep(20)}},
  where = function(p) return p.kind == "short" or p.n < 3 end,
  rounds = 2,
  timing = false,
  metrics = {seconds = {unit = "s", better = "lower", about = "made up"}},
  trial = function(p, t)
    if p.n == 4 then return nil, "does not apply" end
    return {seconds = p.n * 1e-3 + t.round * 1e-5, other = p.n * 1e6}
  end,
  plots = {
    {kind = "line", x = "n", y = "seconds", by = "kind", log = "y"},
    {kind = "bars", x = "n", y = "seconds", where = {kind = "short"}},
    {kind = "heat", x = "n", y = "kind", value = "seconds"},
  },
  claims = {{"More takes longer", function(r) return r:values("seconds")[1] > 0 end}},
}
