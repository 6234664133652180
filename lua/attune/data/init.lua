--- Data for training: texts as bytes or in byte-pair encoding, batches of them, synthetic tasks,
--- and packing of documents. See docs/training.md.
local core = require "attune.core"
local corpus = require "attune.data.corpus"
local files = require "attune.util.files"
local options = require "attune.util.options"

local data = {
  bytes = corpus.bytes,
  bpe = corpus.bpe,
  loader = require "attune.data.loader",
  windows = require "attune.data.windows",
  task = require "attune.data.task",
  pack = require "attune.data.pack",
}

--- Bits per byte of a loss in nats: nats / ln 2 / bytes.
---@param nats number the sum over all tokens
---@param bytes integer that the tokens decode to
---@return number
function data.bits_per_byte(nats, bytes) return nats / math.log(2) / bytes end

--- The SHA-256 of a text in hexadecimal digits.
---@param text string
---@return string
function data.sha256(text)
  if type(text) ~= "string" then
    error(("text: expected a string, got %s"):format(options.describe(text)), 2)
  end
  return core._sha256(text)
end

local installed = {bible = "bible.txt", perl = "perl"}

--- The path of a text that `make corpus` installed: "bible" (documents are separated by empty
--- lines: pass {separator = "\n\n"}) or "perl" (a folder, one document per file). The folder is
--- $ATTUNE_CORPUS, else build/corpus.
---@param name "bible"|"perl"
---@return string? path
---@return string? message
function data.corpus(name)
  if not installed[name] then
    error(('name: expected "bible" or "perl", got %s'):format(options.describe(name)), 2)
  end
  local path = (os.getenv "ATTUNE_CORPUS" or "build/corpus") .. "/" .. installed[name]
  if files.kind(path) then return path end
  return nil, path .. ": no such file; `make corpus` installs it, or set ATTUNE_CORPUS"
end

return data
