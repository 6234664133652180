--- attune as one of the peers: reads one request per line and answers each with one line. Time is
--- measured here, so that communication between the processes does not count.
--
--     prefill HEADS KV_HEADS TOKENS HEAD_DIM DTYPE
--     decode HEADS KV_HEADS TOKENS HEAD_DIM DTYPE BYTES
--     forward HEADS KV_HEADS TOKENS HEAD_DIM BATCH, and both (with gradients) likewise
--         makes a problem and answers its number; decode uses caches of BYTES in all, round-robin
--     run NUMBER SECONDS      answers the seconds per call, over calls that fill SECONDS
--     drop NUMBER             frees a problem
local attune = require "attune"

local problems = {}
local make = {}

function make.prefill(heads, kv_heads, tokens, dim, dtype)
  local function of(n, seed) return attune.randn({1, n, tokens, dim}, {seed = seed}):to(dtype) end
  local q, k, v = of(heads, 1), of(kv_heads, 2), of(kv_heads, 3)
  return function()
    local o, lse = attune.attention(q, k, v, {causal = true})
    o:close()
    lse:close()
  end
end

function make.decode(heads, kv_heads, tokens, dim, dtype, bytes)
  local caches, index = {}, 0
  local k = attune.randn({1, kv_heads, 512, dim}, {seed = 1})
  repeat
    local cache = attune.cache {
      kv_heads = kv_heads, head_dim = dim, capacity = tokens, dtype = dtype,
    }
    for _ = 1, tokens // 512 do cache:append(k, k) end
    caches[#caches + 1] = cache
  until #caches * cache.nbytes >= bytes
  local q = attune.randn({1, heads, 1, dim}, {seed = 2}):to(dtype)
  return function()
    index = index % #caches + 1
    caches[index]:attend(q)
  end
end

local function gradients(heads, kv_heads, tokens, dim, batch, backward)
  local function of(n, seed) return attune.randn({batch, n, tokens, dim}, {seed = seed}) end
  local q, k, v, d_o = of(heads, 1), of(kv_heads, 2), of(kv_heads, 3), of(heads, 4)
  return function()
    local o, lse = attune.attention(q, k, v, {causal = true})
    if backward then
      local dq, dk, dv = attune.attention_backward(d_o, q, k, v, o, lse, {causal = true})
      dq:close()
      dk:close()
      dv:close()
    end
    o:close()
    lse:close()
  end
end
function make.forward(heads, kv_heads, tokens, dim, batch)
  return gradients(heads, kv_heads, tokens, dim, batch, false)
end
function make.both(heads, kv_heads, tokens, dim, batch)
  return gradients(heads, kv_heads, tokens, dim, batch, true)
end

for line in io.lines() do
  local words = {}
  for word in line:gmatch "%S+" do
    words[#words + 1] = math.tointeger(tonumber(word)) or tonumber(word) or word
  end
  if words[1] == "run" then
    local run, calls = problems[words[2]], 0
    run()
    local start = attune.clock()
    repeat
      run()
      calls = calls + 1
    until attune.clock() - start >= words[3]
    print(("%.9g"):format((attune.clock() - start) / calls))
  elseif words[1] == "drop" then
    problems[words[2]] = nil
    collectgarbage()
    collectgarbage()
    print "dropped"
  else
    problems[#problems + 1] = make[words[1]](table.unpack(words, 2))
    print(#problems)
  end
  io.stdout:flush()
end
