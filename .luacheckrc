std = "lua54"
max_line_length = 100
ignore = {"581"} -- not (x > y) differs from x <= y where x or y is NaN
files["tests/spec"] = {std = "lua54+busted"}
files["tests"] = {globals = {"test_seed"}}
files["lua/attune/types"] = {ignore = {"2..", "1..", "6.."}}
