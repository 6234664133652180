--- attune as one of the peers: reads one request per line and answers each with one line. Time is
--- measured here, so that communication between the processes does not count.
--
--     prefill HEADS KV_HEADS TOKENS HEAD_DIM DTYPE
--     decode HEADS KV_HEADS TOKENS HEAD_DIM DTYPE BYTES
--     forward HEADS KV_HEADS TOKENS HEAD_DIM BATCH, and both (with gradients) likewise
--         makes a problem and answers its number; decode uses caches of BYTES in all, round-robin
--     step D_MODEL LAYERS HEADS KV_HEADS HEAD_DIM CONTEXT BATCH VOCAB
--         a step of training a decoder; t5 HEADS TOKENS HEAD_DIM: attention with T5's bias
--     prompt FILE TOKENS COMPUTE, and token likewise
--         a model reads a prompt, or one token after it; keys and values are kept in f16
--     run NUMBER SECONDS      answers the seconds per call, over calls that fill SECONDS
--     peak NUMBER             answers the bytes that one call takes above what there was
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

function make.step(d, layers, heads, kv_heads, head_dim, context, batch, vocab)
  local nn, optim = require "attune.nn", require "attune.optim"
  local model = nn.Decoder {
    vocab = vocab, d_model = d, layers = layers, heads = heads, kv_heads = kv_heads,
    head_dim = head_dim, mlp = "gelu_tanh", norm = "layernorm", position = "rope",
  }
  local optimizer = optim.adamw(model:parameters(), {lr = 1e-3})
  local function ids(seed)
    return attune.uniform({batch, context}, {low = 0, high = vocab - 1, seed = seed}):to "i64"
  end
  local inputs, targets = ids(1), ids(2)
  return function()
    local loss = model:loss(inputs, targets)
    loss:backward()
    optimizer:step()
    optimizer:zero_grad()
    return loss:item()
  end
end

function make.t5(heads, tokens, dim)
  local function of(seed) return attune.randn({1, heads, tokens, dim}, {seed = seed}) end
  local q, k, v, d_o = of(1), of(2), of(3), of(4)
  local pe = attune.position("t5", {heads = heads, bidirectional = false, seed = 5})
  return function()
    local options = {causal = true, score = pe.score}
    local o, lse = attune.attention(q, k, v, options)
    local dq, dk, dv, tables = attune.attention_backward(d_o, q, k, v, o, lse, options)
    for _, t in ipairs {o, lse, dq, dk, dv} do t:close() end
    return tables
  end
end

local models = {}
local function session(path, tokens, compute)
  local key = path .. compute
  models[key] = models[key] or assert(require "attune.model".load(path, {compute = compute}))
  local ids = {}
  for i = 1, tokens do ids[i] = i * 7919 % (models[key].config.vocab_size - 1) end
  return models[key]:session {context = tokens + 1, cache = "f16"}, ids
end
function make.prompt(path, tokens, compute)
  return function()
    local s <close>, ids = session(path, tokens, compute)
    s:append(ids)
  end
end
function make.token(path, tokens, compute)
  local s, ids = session(path, tokens, compute)
  s:append(ids)
  return function()
    s:append {17}
    s:truncate(tokens)
  end
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
  elseif words[1] == "peak" then
    collectgarbage()
    collectgarbage()
    local before = attune.memory {reset_peak = true}.bytes
    problems[words[2]]()
    print(attune.memory().peak - before)
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
