std = "lua54"
max_line_length = 100
ignore = {"581"} -- not (x > y) differs from x <= y where x or y is NaN
files["tests/spec"] = {std = "lua54+busted"}
files["tests"] = {globals = {"test_seed"}}
files["lua/attune/types"] = {ignore = {"2..", "1..", "6.."}}
-- These files still have longer lines.
for _, name in ipairs {
  "attune/pack", "attune/program/block_map",
  "attune/program/graph", "attune/program/init", "attune/program/masks", "attune/program/scores",
  "attune/program/trace",
} do
  files["lua/" .. name .. ".lua"] = {max_line_length = 300}
end
