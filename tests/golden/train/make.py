"""Training steps of small decoders in PyTorch: the files beside this script.

    python3 -m venv venv; venv/bin/pip install torch numpy; venv/bin/python make.py FOLDER

Each file is a safetensors file with the initial parameters ("before.NAME"), the parameters after
three steps ("after.NAME"), ids, targets, weights, and the losses and gradient norms of the steps.
The models are written here from the papers, without attune. Float64 throughout, so that attune's
f64 steps must agree to rounding. AdamW and clip_grad_norm_ are PyTorch's own. The metadata has the
options of the model and of the optimiser as JSON.
"""

import json
import math
import struct
import sys

import numpy
import torch
from torch.nn import functional

torch.set_default_dtype(torch.float64)
OPTIMISER = dict(lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
CLIP, STEPS = 0.5, 3

MODELS = {
    "llama": dict(vocab=23, d_model=16, layers=2, heads=4, kv_heads=2, head_dim=4, d_ff=20,
                  mlp="swiglu", norm="rmsnorm", position="rope", tied=False, bias=False,
                  block="serial"),
    "gpt2": dict(vocab=23, d_model=16, layers=2, heads=4, kv_heads=4, head_dim=4, d_ff=32,
                 mlp="gelu_tanh", norm="layernorm", position="learned", context=9, tied=True,
                 bias=True, block="serial"),
    "palm": dict(vocab=23, d_model=16, layers=2, heads=4, kv_heads=1, head_dim=6, d_ff=20,
                 mlp="swiglu", norm="layernorm", norm_bias=False, position="rope",
                 rope=dict(pairing="interleaved"), tied=True, bias=False, block="parallel",
                 shared_norm=True),
}


def shapes(c):
    d, heads, kv, size = c["d_model"], c["heads"], c["kv_heads"], c["head_dim"]
    s = {"embed.weight": (c["vocab"], d)}
    if c["position"] == "learned":
        s["position.weight"] = (c["context"], d)

    def linear(name, out, into):
        s[name + ".weight"] = (out, into)
        if c["bias"]:
            s[name + ".bias"] = (out,)

    def norm(name):
        s[name + ".weight"] = (d,)
        if c["norm"] == "layernorm" and c.get("norm_bias", True):
            s[name + ".bias"] = (d,)

    for n in range(1, c["layers"] + 1):
        b = f"blocks.{n}."
        norm(b + "norm1")
        if not c.get("shared_norm"):
            norm(b + "norm2")
        linear(b + "attention.q", heads * size, d)
        linear(b + "attention.k", kv * size, d)
        linear(b + "attention.v", kv * size, d)
        linear(b + "attention.o", d, heads * size)
        linear(b + "mlp.up", c["d_ff"], d)
        if c["mlp"] == "swiglu":
            linear(b + "mlp.gate", c["d_ff"], d)
        linear(b + "mlp.down", d, c["d_ff"])
    norm("norm")
    if not c["tied"]:
        s["head.weight"] = (c["vocab"], d)
    return s


def rotate(x, pairing):
    """x [batch, heads, tokens, size]: Su et al. 2021, pairs (2i, 2i + 1) or (i, i + size / 2)."""
    size = x.shape[-1]
    theta = 10000.0 ** (-torch.arange(0, size, 2) / size)
    angle = torch.outer(torch.arange(x.shape[-2], dtype=torch.float64), theta)
    cos, sin = angle.cos(), angle.sin()
    if pairing == "interleaved":
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
    a, b = x[..., : size // 2], x[..., size // 2:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def loss_of(c, p, ids, targets, weights):
    def linear(x, name):
        return functional.linear(x, p[name + ".weight"], p.get(name + ".bias"))

    def norm(x, name):
        if c["norm"] == "layernorm":
            return functional.layer_norm(x, (c["d_model"],), p[name + ".weight"],
                                         p.get(name + ".bias"), 1e-5)
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * p[name + ".weight"]

    def heads_of(x, count):
        return x.view(*x.shape[:2], count, c["head_dim"]).transpose(1, 2)

    def attention(x, b):
        q, k, v = (heads_of(linear(x, b + "attention." + name), count) for name, count in
                   (("q", c["heads"]), ("k", c["kv_heads"]), ("v", c["kv_heads"])))
        if c["position"] == "rope":
            pairing = c.get("rope", {}).get("pairing", "half")
            q, k = rotate(q, pairing), rotate(k, pairing)
        group = c["heads"] // c["kv_heads"]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(c["head_dim"])
        tokens = scores.shape[-1]
        scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -math.inf)
        o = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return linear(o, b + "attention.o")

    def mlp(x, b):
        up = linear(x, b + "mlp.up")
        if c["mlp"] == "swiglu":
            return linear(functional.silu(linear(x, b + "mlp.gate")) * up, b + "mlp.down")
        return linear(functional.gelu(up, approximate="tanh"), b + "mlp.down")

    x = p["embed.weight"][ids]
    if c["position"] == "learned":
        x = x + p["position.weight"][: ids.shape[1]]
    for n in range(1, c["layers"] + 1):
        b = f"blocks.{n}."
        if c["block"] == "parallel":
            h = norm(x, b + "norm1")
            x = x + attention(h, b) + mlp(h, b)
        else:
            x = x + attention(norm(x, b + "norm1"), b)
            x = x + mlp(norm(x, b + "norm2"), b)
    head = p["embed.weight"] if c["tied"] else p["head.weight"]
    logits = functional.linear(norm(x, "norm"), head)
    each = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (each * weights.flatten()).sum() / weights.sum()


def write(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, t in tensors.items():
        a = t.detach().numpy()
        kind = {"float64": "F64", "int64": "I64"}[str(a.dtype)]
        raw = numpy.ascontiguousarray(a).tobytes()
        header[name] = dict(
            dtype=kind, shape=list(a.shape), data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main(folder):
    for number, (name, c) in enumerate(MODELS.items()):
        torch.manual_seed(number)
        p = {}
        for key, shape in shapes(c).items():
            t = torch.randn(shape) * 0.2
            p[key] = (t + 1 if "norm" in key and key.endswith("weight") else t).requires_grad_()
        ids = torch.randint(c["vocab"], (2, 9))
        targets = torch.randint(c["vocab"], (2, 9))
        weights = (torch.rand(2, 9) > 0.2).double()
        out = {"before." + key: t.clone() for key, t in p.items()}
        decay = [t for t in p.values() if t.ndim >= 2]
        others = [t for t in p.values() if t.ndim < 2]
        optimiser = torch.optim.AdamW([dict(params=decay), dict(params=others, weight_decay=0.0)],
                                      **OPTIMISER)
        losses, norms = [], []
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss = loss_of(c, p, ids, targets, weights)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(list(p.values()), CLIP).item())
            optimiser.step()
            losses.append(loss.item())
        out.update({"after." + key: t for key, t in p.items()})
        out.update(ids=ids, targets=targets, weights=weights, losses=torch.tensor(losses),
                   norms=torch.tensor(norms))
        write(f"{folder}/{name}.safetensors", out,
              dict(model=json.dumps(c), clip=str(CLIP),
                   optimiser=json.dumps(OPTIMISER), torch=torch.__version__))


main(sys.argv[1] if len(sys.argv) > 1 else ".")
