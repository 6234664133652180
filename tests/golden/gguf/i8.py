"""Writes llama_q8_0.i8.golden.safetensors: logits of llama_q8_0.gguf, activations of 8 bits.

An emulation in double precision of compute = "i8", with numpy 2 and gguf 0.19: before every product
each 32 neighbouring activations x become s * round(x / s), s = max |x| / 127 rounded to f32. The
bound is four times the largest change of the logits when the activations of every product change by
random relative errors of up to 2^-22 (32 draws, by which some round to the other side), plus 1e-6.
"""
import json
import pathlib

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).parent
HEADS, KV_HEADS, DIM, BASE, EPS = 4, 1, 8, 10000.0, float(np.float32(1e-5))
W = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64)
     for t in gguf.GGUFReader(HERE / "llama_q8_0.gguf").tensors}
noise = None


def quantised(x):
    if noise is not None:
        x = x * (1 + noise.uniform(-1, 1, x.shape) * 2.0 ** -22)
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    scale = (np.abs(blocks).max(-1, keepdims=True) / 127).astype(np.float32).astype(np.float64)
    return (np.rint(blocks / scale) * scale).reshape(x.shape)


def linear(x, name):
    return quantised(x) @ W[name + ".weight"].T


def norm(x, name):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * W[name + ".weight"]


def rotate(x):  # [tokens, heads, DIM], pairs of neighbours
    at = np.arange(len(x))[:, None] * BASE ** (-np.arange(0, DIM, 2) / DIM)
    c, s = np.cos(at)[:, None], np.sin(at)[:, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * c - odd * s, even * s + odd * c], -1).reshape(x.shape)


def attention(x, block):
    q = rotate(linear(x, block + "attn_q").reshape(-1, HEADS, DIM))
    k = rotate(linear(x, block + "attn_k").reshape(-1, KV_HEADS, DIM))
    v = linear(x, block + "attn_v").reshape(-1, KV_HEADS, DIM)
    s = np.einsum("ihd,jhd->hij", q, np.repeat(k, HEADS // KV_HEADS, 1)) / np.sqrt(DIM)
    s = np.where(np.tril(np.ones(s.shape[1:], bool)), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    o = np.einsum("hij,jhd->ihd", p, np.repeat(v, HEADS // KV_HEADS, 1))
    return linear(o.reshape(len(x), -1), block + "attn_output")


def logits(ids):
    x = W["token_embd.weight"][ids]
    for i in range(2):
        block = f"blk.{i}."
        x = x + attention(norm(x, block + "attn_norm"), block)
        h = norm(x, block + "ffn_norm")
        gate = linear(h, block + "ffn_gate")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(h, block + "ffn_up"), block + "ffn_down")
    return linear(norm(x, "output_norm"), "token_embd")


ids = load_file(HERE / "llama_q8_0.golden.safetensors")["input_ids"]
exact = np.stack([logits(row) for row in ids])
worst = 0.0
for draw in range(32):
    noise = np.random.default_rng(draw)
    worst = max(worst, float(np.abs(np.stack([logits(row) for row in ids]) - exact).max()))
case = {"kind": "gguf", "params": {"file": "gguf/llama_q8_0.gguf", "compute": "i8"},
        "source": [{"function": "gguf/i8.py", "package": "numpy", "version": np.__version__}],
        "inputs": ["input_ids"], "outputs": ["logits"], "bounds": {"logits": 4 * worst + 1e-6}}
save_file({"input_ids": ids, "logits": exact.astype(np.float32)},
          HERE / "llama_q8_0.i8.golden.safetensors", {"case": json.dumps(case)})
print(case["bounds"], "against f32 compute:",
      np.abs(exact - load_file(HERE / "llama_q8_0.golden.safetensors")["logits"]).max())
