std = "lua54"
max_line_length = 300
ignore = {"581"} -- not (x > y) is no x <= y: NaN
files["tests/spec"] = {std = "lua54+busted"}
files["tests"] = {globals = {"test_seed"}}
files["lua/attune/types"] = {ignore = {"2..", "1..", "6.."}}
