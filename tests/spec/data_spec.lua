local attune = require "attune"
local data = require "attune.data"
local expect = require "tests.support.expect"

local fails = expect.fails_with

-- A file of this content, removed at the end of the test.
local made = {}
local function file_of(content)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(content)
  file:close()
  made[#made + 1] = path
  return path
end

after_each(function()
  for _, path in ipairs(made) do os.remove(path) end
  made = {}
end)

local verses = {}
for k = 1, 400 do
  verses[k] = ("And the %d sons of %s went %s.%s"):format(
    k * k % 37, ({"Adam", "Noah", "Abram"})[k % 3 + 1], ({"out", "up", "forth"})[k % 7 % 3 + 1],
    k % 10 == 0 and "\n\n" or "\n"
  )
end
local book = table.concat(verses)

describe("sha256", function()
  it("gives the digests of FIPS 180-4's examples", function()
    assert.equal(
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", data.sha256 "")
    assert.equal(
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", data.sha256 "abc")
    assert.equal(
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      data.sha256 "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
    assert.equal(
      "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
      data.sha256(("a"):rep(1000000)))
  end)
end)

describe("data.bytes", function()
  it("gives one id per byte, the documents and the sha256 of the text", function()
    local corpus = assert(data.bytes(file_of(book), {separator = "\n\n"}))
    assert.equal(256, corpus.vocab)
    assert.equal(#book, corpus.tokens)
    assert.equal(#book, corpus.bytes)
    assert.equal(40, corpus.documents)
    assert.equal(data.sha256(book), corpus.sha256)
    assert.equal(book, corpus:decode(corpus.ids))
    assert.same({65, 66}, corpus:encode "AB")
    for _, start in ipairs(corpus.starts) do
      assert.equal("And the ", book:sub(start + 1, start + 8))
    end
  end)

  it("reads a folder in the order of names, one document per file", function()
    local folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir -p " .. folder .. "/b")
    for name, content in pairs {["z.txt"] = "last", ["a.txt"] = "first", ["b/c.txt"] = "middle"} do
      local file = assert(io.open(folder .. "/" .. name, "w"))
      file:write(content)
      file:close()
    end
    local corpus = assert(data.bytes(folder))
    os.execute("rm -r " .. folder)
    assert.equal("firstmiddlelast", corpus:decode(corpus.ids))
    assert.same({0, 5, 11}, corpus.starts)
  end)

  it("says what is wrong with a text", function()
    local function refused(path, given, word, code)
      local corpus, message, got = data.bytes(path, given)
      assert.is_nil(corpus)
      assert.truthy(message:find(word, 1, true), message)
      assert.equal(code, got)
    end
    refused("/nonexistent", nil, "no such file", "ENOENT")
    refused(file_of "", nil, "empty", "EFORMAT")
    refused(file_of "ok\xc0\xafno", nil, "expected UTF-8, got byte 0xc0 at offset 2", "EFORMAT")
    refused(file_of "\xed\xa0\x80", nil, "offset 0", "EFORMAT")
    refused(file_of "a\xe2\x82", nil, "offset 1", "EFORMAT")
    assert.equal(4, data.bytes(file_of "\xf0\x9f\x98\x80").tokens)
    assert.equal(2, data.bytes(file_of "\xff\xfe", {any_bytes = true}).tokens)
    fails("path", data.bytes)
    fails("separator", data.bytes, "x", {separator = ""})
    fails("seperator", data.bytes, "x", {seperator = "\n"})
  end)
end)

-- Sennrich et al. 2016, algorithm 1, on the words of a text, as plainly as it can be written.
local function words_of(text)
  local words, at = {}, 1
  while at <= #text do
    local space, rest = text:match("^( ?)([%a\128-\255]+)", at)
    if not rest then space, rest = text:match("^( ?)(%d+)", at) end
    if not rest then space, rest = text:match("^( ?)([^%s%w\128-\255]+)", at) end
    local word = rest and space .. rest
    if not word then
      word = text:match("^%s+", at)
      local longer = text:sub(at + #word, at + #word) ~= ""
      if #word > 1 and word:sub(-1) == " " and longer then word = word:sub(1, -2) end
    end
    words[#words + 1] = word
    at = at + #word
  end
  return words
end

local function naive_merges(text, count)
  local words = {}
  for _, word in ipairs(words_of(text)) do words[#words + 1] = {word:byte(1, -1)} end
  local merges = {}
  for m = 1, count do
    local times, best = {}, 1
    for _, word in ipairs(words) do
      for k = 1, #word - 1 do
        local key = word[k] << 20 | word[k + 1]
        times[key] = (times[key] or 0) + 1
      end
    end
    local chosen
    for key, n in pairs(times) do
      if n > best or n == best and chosen and key < chosen then best, chosen = n, key end
    end
    if not chosen then break end
    local left, right = chosen >> 20, chosen & (1 << 20) - 1
    merges[m] = {left, right}
    for w, word in ipairs(words) do
      local merged, k = {}, 1
      while k <= #word do
        local hit = word[k] == left and word[k + 1] == right
        merged[#merged + 1] = hit and 255 + m or word[k]
        k = k + (hit and 2 or 1)
      end
      words[w] = merged
    end
  end
  return merges
end

describe("data.bpe", function()
  it("learns the merges of the plain algorithm", function()
    local text = book:sub(1, 3000) .. "  two  spaces aaaa aaa, caf\u{e9} caf\u{e9}s 1234 123\t\tx"
    local corpus = assert(data.bpe(file_of(text), {vocab = 330}))
    assert.same(naive_merges(text, 74), corpus.merges:tolist())
  end)

  it("encodes what it decodes, and the corpus as its documents one by one", function()
    local corpus = assert(data.bpe(file_of(book), {vocab = 300, separator = "\n\n"}))
    assert.equal(book, corpus:decode(corpus.ids))
    assert.equal(40, corpus.documents)
    local ids = {}
    for d = 1, 40 do
      local first, last = corpus.starts[d] + 1, corpus.starts[d + 1] or corpus.tokens
      local document = corpus:decode(corpus.ids:slice(1, first, last))
      assert.equal("And the ", document:sub(1, 8))
      for _, id in ipairs(corpus:encode(document)) do ids[#ids + 1] = id end
    end
    assert.same(corpus.ids:tolist(), ids)
    local other = "Zebras \u{1f600}, not in the book;  nor 12345\n" .. ("x"):rep(1000)
    assert.equal(other, corpus:decode(corpus:encode(other)))
    assert.same({}, corpus:encode "")
  end)

  it("gives a second text the merges of a first one", function()
    local first = assert(data.bpe(file_of(book), {vocab = 300}))
    local second = assert(data.bpe(file_of "And the sons of Seth", {like = first}))
    assert.same(first:encode "And the sons of Seth", second.ids:tolist())
    assert.equal(first.vocab, second.vocab)
  end)

  it("stops where no pair occurs twice, and refuses a text without such a pair", function()
    local corpus = assert(data.bpe(file_of "abab", {vocab = 1000}))
    assert.equal(257, corpus.vocab)
    assert.same({256, 256}, corpus.ids:tolist())
    local none, message = data.bpe(file_of "abc", {vocab = 1000})
    assert.is_nil(none)
    assert.truthy(message:find("occurs twice", 1, true))
    fails("vocab", data.bpe, "x", {vocab = 256})
    fails("vocab", data.bpe, "x")
    fails("like", data.bpe, "x", {like = {}})
    fails("ids", corpus.decode, corpus, {257})
    fails("ids", corpus.decode, corpus, {-1})
    fails("text", corpus.encode, corpus, 3)
  end)
end)

describe("a corpus", function()
  it("is split by document, and both parts together are the whole", function()
    local corpus = assert(data.bpe(file_of(book), {vocab = 300, separator = "\n\n"}))
    local train, validation = corpus:split {validation = 0.2, seed = 3}
    assert.equal("train", train.part)
    assert.equal("validation", validation.part)
    assert.equal(40, train.documents + validation.documents)
    assert.equal(corpus.bytes, train.bytes + validation.bytes)
    assert.equal(corpus.tokens, train.tokens + validation.tokens)
    assert.equal(corpus.sha256, validation.sha256)
    assert.is_true(math.abs(validation.tokens / corpus.tokens - 0.2) < 0.05)
    assert.equal(validation.bytes, #validation:decode(validation.ids))
    assert.equal("And the ", validation:decode(validation.ids):sub(1, 8))
    local again = select(2, corpus:split {validation = 0.2, seed = 3})
    assert.same(validation.ids:tolist(), again.ids:tolist())
    local other = select(2, corpus:split {validation = 0.2, seed = 4})
    assert.not_same(validation.ids:tolist(), other.ids:tolist())
  end)

  it("of one document is cut, its end for validation", function()
    local train, validation = assert(data.bytes(file_of(book))):split()
    assert.equal(book, train:decode(train.ids) .. validation:decode(validation.ids))
    assert.equal(math.floor(#book * 0.1 + 0.5), validation.tokens)
    fails("validation", function() assert(data.bytes(file_of(book))):split {validation = 1} end)
    fails("at least 2 tokens", function() assert(data.bytes(file_of "a")):split() end)
  end)

  it("counts bits per byte", function()
    local corpus = assert(data.bytes(file_of(book)))
    assert.is_true(math.abs(corpus:bits_per_byte(#book * math.log(2)) - 1) < 1e-12)
    assert.is_true(math.abs(data.bits_per_byte(8 * math.log(2), 4) - 2) < 1e-12)
    local bpe = assert(data.bpe(file_of(book), {vocab = 300}))
    assert.equal(#book, bpe:count_bytes(bpe.ids))
    local w = attune.zeros {bpe.tokens}
    assert.equal(0, bpe:count_bytes(bpe.ids, w))
  end)
end)

describe("data.loader", function()
  local path, corpus
  before_each(function()
    path = file_of(book)
    corpus = assert(data.bytes(path, {separator = "\n\n"}))
  end)

  local function loader(given)
    local o = {corpus = corpus, tokens = 32, batch = 4, seed = 5}
    for name, value in pairs(given or {}) do o[name] = value end
    return data.loader(o)
  end

  it("draws each row of an epoch once, in an order that follows from the seed", function()
    local l, seen = loader(), {}
    for _ = 1, l.epoch_batches do
      for _, row in ipairs((l:next()):tolist()) do
        local text = corpus:decode(row)
        local at = book:find(text, 1, true)
        assert.truthy(at)
        seen[#seen + 1] = text
      end
    end
    local sequential, all = loader {order = "sequential"}, {}
    for _ = 1, l.epoch_batches do
      for _, row in ipairs((sequential:next()):tolist()) do all[#all + 1] = corpus:decode(row) end
    end
    assert.equal(book:sub(1, #all * 32), table.concat(all))
    assert.not_same(all, seen)
    assert.same((loader()):next():tolist(), (loader()):next():tolist())
    assert.not_same((loader()):next():tolist(), (loader {seed = 6}):next():tolist())
  end)

  it("never predicts across a border of documents", function()
    for _, packing in ipairs {"stream", "packed", "separate"} do
      local l = loader {packing = packing, mask = true, positions = "restart"}
      local firsts = {}
      for ids, targets, weights, info in l:each() do
        ids, targets, weights = ids:tolist(), targets:tolist(), weights:tolist()
        local positions = info.positions:tolist()
        for r = 1, #ids do
          local at = 0
          for _, length in ipairs(info.lengths[r]) do
            for p = 1, length do assert.equal(p - 1, positions[r][at + p]) end
            for p = 1, length - 1 do
              if weights[r][at + p] == 1 then
                assert.equal(ids[r][at + p + 1], targets[r][at + p])
              end
            end
            at = at + length
          end
          assert.equal(32, at)
          for p = 1, 32 do
            if weights[r][p] == 1 then
              local two = string.char(ids[r][p], targets[r][p])
              if two == "\nA" then firsts[#firsts + 1] = packing end
            end
          end
        end
      end
      -- Inside documents verses follow each other, so that "\nA" is a target there: 360 times.
      assert.equal(360, #firsts, packing)
    end
  end)

  it("keeps each byte once in every packing, and says what it wastes", function()
    for _, packing in ipairs {"packed", "separate"} do
      local l, bytes = loader {packing = packing, tokens = 1000}, 0
      for _, _, weights in l:each() do bytes = bytes + weights:sum():item() end
      assert.equal(#book - corpus.documents, bytes)
      local tokens = l.rows * 1000
      assert.is_true(math.abs(l.waste - (1 - #book / tokens)) < 1e-12)
    end
    assert.is_true(loader {packing = "packed", tokens = 1000}.rows
      < loader {packing = "separate", tokens = 1000}.rows)
  end)

  it("refuses an option that would have no effect", function()
    fails("unknown option 'name'", loader, {name = "text"})
  end)
  it("goes on where another loader stopped", function()
    for _, order in ipairs {"shuffled", "random", "sequential"} do
      local one, two = loader {order = order}, loader {order = order}
      for _ = 1, one.epoch_batches + 3 do one:next() end
      two:load_state(one:state())
      assert.same((one:next()):tolist(), (two:next()):tolist())
    end
    fails("sha256", loader().load_state, loader(), {batches = 1, sha256 = "of another text"})
    fails("batches", loader().load_state, loader(), {batches = -1})
  end)

  it("refuses the state of other batches, and takes one that says less", function()
    local l = loader()
    for _, changes in ipairs {
      {batch = l.batch + 1}, {tokens = l.tokens + 1}, {seed = l.seed + 1}, {order = "sequential"},
      {packing = "separate"},
    } do
      local name, value = next(changes)
      local state = loader(changes):state()
      local words = type(value) == "string" and "'%s'" or "%s"
      fails(name .. ": expected " .. words:format(l[name]) .. " of the loader, got "
        .. words:format(value) .. "; the checkpoint is of other batches", l.load_state, l, state)
    end
    assert.equal(0, l.batches)
    l:load_state {batches = 3, sha256 = l.corpus.sha256}
    assert.equal(3, l.batches)
    -- Parts of one text have its sha256.
    local one, two = l.corpus:split {validation = 0.3}
    one = data.loader {corpus = one, tokens = 8, batch = 2}
    two = data.loader {corpus = two, tokens = 8, batch = 2}
    fails("the checkpoint is of other batches", two.load_state, two, one:state())
  end)

  it("refuses what cannot be drawn", function()
    fails("batch: expected at most", loader, {batch = 100000})
    fails("tokens: expected less than", loader, {tokens = #book})
    fails("corpus", loader, {corpus = "bible"})
    fails("order", loader, {order = "shufled"})
    fails("packing", loader, {packing = "separate", order = "random"})
    fails("tokns", loader, {tokns = 3})
  end)
end)

describe("data.task", function()
  local names = {
    "copy", "reverse", "sorting", "induction", "mqar", "addition", "needle", "indirect",
  }
  -- Sequences of a task: ids with the last target appended, and the weight of each id as a target.
  local function draw(name, given, rows)
    local o = {vocab = 64, tokens = 24, seed = 7}
    for key, value in pairs(given or {}) do o[key] = value end
    local ids, targets, weights = data.task(name, o):next(rows or 50)
    ids, targets, weights = ids:tolist(), targets:tolist(), weights:tolist()
    for r = 1, #ids do
      for k = 2, #ids[r] do assert.equal(ids[r][k], targets[r][k - 1]) end
      table.insert(ids[r], targets[r][#targets[r]])
      table.insert(weights[r], 1, 0)
    end
    return ids, weights
  end

  local function counted(weights)
    local list = {}
    for k, w in ipairs(weights) do if w ~= 0 then list[#list + 1] = k end end
    return list
  end

  it("gives ids of the vocabulary, the same whatever the batches", function()
    for _, name in ipairs(names) do
      local o = {vocab = 64, tokens = 24, seed = 7}
      local one, two = data.task(name, o), data.task(name, o)
      local all = (one:next(6)):tolist()
      two:next(2)
      local rest = data.task(name, o)
      rest:load_state(two:state())
      local tail = (rest:next(4)):tolist()
      for r = 1, 4 do assert.same(all[r + 2], tail[r]) end
      for _, row in ipairs(all) do
        for _, id in ipairs(row) do assert.is_true(id >= 0 and id < 64) end
      end
      o.seed = 8
      assert.not_same(all, (data.task(name, o):next(6)):tolist())
    end
  end)

  it("copies, reverses and sorts", function()
    local answers = {
      copy = function(c) return c end,
      reverse = function(c)
        local r = {}
        for k = #c, 1, -1 do r[#r + 1] = c[k] end
        return r
      end,
      sorting = function(c) table.sort(c) return c end,
    }
    for name, answer in pairs(answers) do
      for _, tokens in ipairs {24, 25} do
        local ids, weights = draw(name, {tokens = tokens})
        for r, row in ipairs(ids) do
          local extra = tokens % 2
          local content = table.move(row, 1 + extra, 12 + extra, 1, {})
          assert.equal(0, row[13 + extra])
          assert.same(answer(content), table.move(row, 14 + extra, 25 + extra, 1, {}))
          assert.equal(12, #counted(weights[r]))
          assert.equal(14 + extra, counted(weights[r])[1])
        end
      end
    end
  end)

  it("repeats a run of different ids, of changing length", function()
    local ids, weights = draw("induction", {tokens = 40})
    local lengths = {}
    for r, row in ipairs(ids) do
      local count = counted(weights[r])
      local length = count[1] - 2
      lengths[length] = true
      local seen = {}
      for k = 1, length do
        assert.is_nil(seen[row[k]])
        seen[row[k]] = true
      end
      for _, k in ipairs(count) do assert.equal(row[k - length], row[k]) end
      assert.equal(length - 1, #count)
    end
    assert.is_true(#(function()
      local list = {}
      for n in pairs(lengths) do list[#list + 1] = n end
      return list
    end)() > 5)
  end)

  it("asks for each key of mqar once, also where hardly any slot is likely", function()
    local _, counts = draw("mqar", {vocab = 64, tokens = 64, pairs = 16, power = 60.0}, 1)
    local sum = 0
    for _, x in ipairs(counts[1]) do sum = sum + x end
    assert.equal(16, sum)
    local ids, weights = draw("mqar", {tokens = 64, pairs = 4})
    for r, row in ipairs(ids) do
      local value_of, asked = {}, {}
      for k = 1, 4 do value_of[row[2 * k - 1]] = row[2 * k] end
      for _, k in ipairs(counted(weights[r])) do
        assert.is_true(k > 8)
        assert.equal(value_of[row[k - 1]], row[k])
        asked[row[k - 1]] = true
      end
      for key in pairs(value_of) do assert.is_true(asked[key]) end
      assert.equal(4, #counted(weights[r]))
    end
    fails("pairs", draw, "mqar", {tokens = 8, pairs = 3})
    fails("pairs", draw, "mqar", {vocab = 6, pairs = 3})
    for _, count in ipairs {0, -1, math.mininteger} do
      fails("pairs: expected from 1 to tokens / 4, 16, got " .. count, draw, "mqar",
        {vocab = 64, tokens = 64, pairs = count})
    end
    for _, power in ipairs {0.0, 0 / 0, -1.0, -1, math.huge, 1e6} do
      fails("power: expected a number above 0", data.task, "mqar",
        {vocab = 64, tokens = 64, pairs = 2, power = power})
    end
    fails("vocab: expected an integer from 3 to", data.task, "copy", {vocab = 1 << 40, tokens = 8})
  end)

  it("adds", function()
    for _, reversed in ipairs {true, false} do
      local ids, weights = draw("addition", {reversed = reversed, digits = 5})
      for r, row in ipairs(ids) do
        local function number(first, last)
          local list = table.move(row, first, last, 1, {})
          local text = table.concat(list)
          return tonumber(reversed and text:reverse() or text)
        end
        assert.equal(10, row[6])
        assert.equal(11, row[12])
        assert.equal(number(1, 5) + number(7, 11), number(13, 18))
        assert.same({13, 14, 15, 16, 17, 18}, counted(weights[r]))
        assert.equal(12, row[19])
      end
    end
    fails("digits", draw, "addition", {digits = 8})
    fails("reversed", draw, "addition", {reversed = 1})
  end)

  it("hides a needle", function()
    local ids, weights = draw "needle"
    for r, row in ipairs(ids) do
      local at
      for k = 1, 22 do if row[k] == 0 then at = k end end
      assert.equal(row[at + 1], row[24])
      assert.equal(row[at + 2], row[25])
      assert.same({25}, counted(weights[r]))
    end
  end)

  it("indexes indirectly", function()
    local ids, weights = draw("indirect", {max_shift = 4})
    for r, row in ipairs(ids) do
      local from
      for k = 1, 21 do if row[k] == row[23] then from = k end end
      assert.equal(0, row[22])
      assert.equal(row[from + row[24] - 5], row[25])
      assert.same({25}, counted(weights[r]))
    end
    fails("max_shift", draw, "indirect", {max_shift = 21})
    fails("vocab", draw, "indirect", {vocab = 20})
  end)

  it("says what it expected", function()
    fails("induction", data.task, "inductoin", {vocab = 8, tokens = 8})
    fails("vocab", data.task, "copy", {vocab = 2, tokens = 8})
    fails("tokens", data.task, "copy", {vocab = 8})
    fails("batch", function() data.task("copy", {vocab = 8, tokens = 8}):next() end)
    local one = data.task("mqar", {vocab = 8, tokens = 8, seed = 1})
    for _, changes in ipairs {{vocab = 9}, {tokens = 9}, {seed = 2}, {pairs = 2}, {power = 0.5}} do
      local o = {vocab = 8, tokens = 8, seed = 1}
      local name, value = next(changes)
      o[name] = value
      fails(("%s: expected %s of the task, got %s; the checkpoint is of other sequences"):format(
        name, one[name], value), one.load_state, one, data.task("mqar", o):state())
    end
    one:load_state {sequences = 3}
    assert.equal(3, one:state().sequences)
    fails("name", data.task)
  end)
end)
