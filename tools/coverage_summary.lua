--- lua5.4 tools/coverage_summary.lua GCOV_JSON LINES_FOLDER - what tools/coverage prints.
--- GCOV_JSON: one JSON object of gcov per line. LINES_FOLDER: files with lines "path:line".
local json = require "attune.util.json"

local gcov, folder = arg[1], arg[2]

-- {[path] = {[line] = {count, branches = {counts}}}}, the sums over all objects.
local files = {}
for text in io.lines(gcov) do
  for _, file in ipairs((json.decode(text) or {}).files or {}) do
    local path = file.file:match "^core/.*" or file.file:match "^lua/binding/.*"
    local lines = path and (files[path] or {}) or {}
    if path then files[path] = lines end
    for _, l in ipairs(path and file.lines or {}) do
      local line = lines[l.line_number] or {count = 0, branches = {}}
      lines[l.line_number] = line
      line.count = line.count + l.count
      for n, branch in ipairs(l.branches) do
        line.branches[n] = (line.branches[n] or 0) + branch.count
      end
    end
  end
end

local totals, per_file = {}, {}
local function add_to(sums, name, lines, reached, branches, taken)
  local t = sums[name] or {lines = 0, reached = 0, branches = 0, taken = 0}
  sums[name] = t
  t.lines, t.reached = t.lines + lines, t.reached + reached
  t.branches, t.taken = t.branches + branches, t.taken + taken
end
local function add(path, part, ...)
  add_to(per_file, path, ...)
  add_to(totals, part, ...)
  add_to(totals, path:match "^core/" and "all of core" or "all of lua", ...)
end

for path, lines in pairs(files) do
  local part = path:match "^core/[^/]+" or "lua/binding"
  for _, line in pairs(lines) do
    local taken = 0
    for _, n in ipairs(line.branches) do taken = taken + (n > 0 and 1 or 0) end
    add(path, part, 1, line.count > 0 and 1 or 0, #line.branches, taken)
  end
end

-- Lua: luac lists every line that has an instruction.
local ran = {}
local found = io.popen(("cat '%s'/* 2>/dev/null"):format(folder))
for line in found:lines() do ran[line] = true end
found:close()
-- Nothing loads the annotations in types/.
local sources = io.popen "find lua/attune -name '*.lua' ! -path '*/types/*'"
for path in sources:lines() do
  local active = {}
  local listing = io.popen(("luac5.4 -l -p '%s'"):format(path))
  for text in listing:lines() do
    local line, instruction = text:match "^%s+%d+%s+%[(%d+)%]%s+(%S+)"
    if line and not instruction:find "^VARARGPREP" then active[line] = true end
  end
  listing:close()
  for line in pairs(active) do
    add(path, "lua/attune", 1, ran[path .. ":" .. line] and 1 or 0, 0, 0)
  end
end
sources:close()

local function percent(a, b) return b > 0 and ("%.1f%%"):format(100 * a / b) or "-" end
local parts = {}
for part in pairs(totals) do parts[#parts + 1] = part end
table.sort(parts)
print(("%-20s %8s %8s %8s"):format("part", "lines", "reached", "branches"))
for _, part in ipairs(parts) do
  local t = totals[part]
  print(("%-20s %8d %8s %8s"):format(
    part, t.lines, percent(t.reached, t.lines), percent(t.taken, t.branches)
  ))
end

-- Where tests are missing: the files of which less than 80% of the lines are reached.
local weak = {}
for path, t in pairs(per_file) do
  if t.reached < 0.8 * t.lines then weak[#weak + 1] = path end
end
table.sort(weak)
for _, path in ipairs(weak) do
  local t = per_file[path]
  print(("  %-40s %4d of %4d lines"):format(path, t.reached, t.lines))
end
