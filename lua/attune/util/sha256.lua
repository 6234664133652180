--- SHA-256 of a text: FIPS 180-4, sections 4.1.2, 5 and 6.2.
local initial = {
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

-- The first 32 bits of the fractions of the cube roots of the first 64 primes (section 4.2.2).
local constants = {}
do
  local n = 2
  while #constants < 64 do
    local is_prime = true
    for d = 2, math.floor(math.sqrt(n)) do is_prime = is_prime and n % d ~= 0 end
    if is_prime then
      -- Doubles give 52 bits of the root; 32 after the point are exact for roots below 8.
      local root = n ^ (1 / 3)
      constants[#constants + 1] = math.floor((root - math.floor(root)) * 2 ^ 32)
    end
    n = n + 1
  end
end

local function rotated(x, n) return (x >> n | x << (32 - n)) & 0xffffffff end

-- The 64 words of a block of 64 bytes.
local function schedule(block)
  local w = {string.unpack((">I4"):rep(16), block)}
  for t = 17, 64 do
    local a, b = w[t - 15], w[t - 2]
    local s0 = rotated(a, 7) ~ rotated(a, 18) ~ a >> 3
    local s1 = rotated(b, 17) ~ rotated(b, 19) ~ b >> 10
    w[t] = (s1 + w[t - 7] + s0 + w[t - 16]) & 0xffffffff
  end
  return w
end

local function compress(hash, block)
  local w = schedule(block)
  local a, b, c, d, e, f, g, h = table.unpack(hash)
  for t = 1, 64 do
    local s1 = rotated(e, 6) ~ rotated(e, 11) ~ rotated(e, 25)
    local t1 = h + s1 + (e & f ~ ~e & 0xffffffff & g) + constants[t] + w[t]
    local s0 = rotated(a, 2) ~ rotated(a, 13) ~ rotated(a, 22)
    local t2 = s0 + (a & b ~ a & c ~ b & c)
    h, g, f, e = g, f, e, (d + t1) & 0xffffffff
    d, c, b, a = c, b, a, (t1 + t2) & 0xffffffff
  end
  local now = {a, b, c, d, e, f, g, h}
  for i = 1, 8 do hash[i] = (hash[i] + now[i]) & 0xffffffff end
end

--- The 32 bytes of the hash.
---@param s string
---@return string
return function(s)
  local hash = table.move(initial, 1, 8, 1, {})
  local padded = s .. "\x80" .. ("\0"):rep((55 - #s) % 64) .. (">I8"):pack(#s * 8)
  for at = 1, #padded, 64 do compress(hash, padded:sub(at, at + 63)) end
  return (">I4I4I4I4I4I4I4I4"):pack(table.unpack(hash))
end
