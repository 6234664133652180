std = "lua54"
max_line_length = 200
files["tests/spec"] = {std = "lua54+busted"}
files["tests"] = {globals = {"test_seed"}}
files["lua/attune/types.lua"] = {ignore = {"2..", "1..", "6.."}, max_line_length = false}
