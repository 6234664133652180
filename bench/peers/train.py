"""Training steps in f32: small decoders, GPT-2 small, and attention with T5's bias.

A step is forward, backward and AdamW on one batch that is there beforehand. FLOPs: 6 per parameter
and token; the embedding counts once, as the output head. products: the step's own matrix products
by BLIS sgemm, one after the other, with all threads.
Peers: attune, torch eager and compiled, BLIS.
"""

import common

# d_model, layers, heads, kv_heads, head_dim, context, batch, vocab
SMALL = [
    (256, 6, 8, 8, 32, 256, 16, 512),
    (256, 6, 8, 1, 32, 256, 16, 512),
    (96, 4, 8, 8, 16, 128, 32, 512),
    (96, 4, 8, 1, 16, 128, 32, 512),
]
GPT2 = [(768, 12, 12, 12, 64, 64, 4, 50257)]
QUICK = [(64, 2, 2, 1, 32, 64, 4, 512)]
NAMES = ("d_model", "layers", "heads", "kv_heads", "head_dim", "context", "batch", "vocab")
T5 = (8, 4096, 64)  # heads, tokens, head_dim


def build(torch, d, layers, heads, kv, dim, context, vocab):
    """Pre-norm blocks, RoPE of half-split pairs, GELU (tanh form) of 4 d, tied embedding."""
    nn, functional = torch.nn, torch.nn.functional
    angle = torch.outer(
        torch.arange(context).float(), 10000.0 ** (-torch.arange(0, dim, 2).float() / dim)
    )
    cos, sin = angle.cos(), angle.sin()

    def rotate(x):
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(2))
            self.qkv = nn.Linear(d, (heads + 2 * kv) * dim, bias=False)
            self.out = nn.Linear(heads * dim, d, bias=False)
            self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

        def forward(self, x):
            batch, tokens, _ = x.shape
            heads_of = self.qkv(self.norms[0](x)).view(batch, tokens, heads + 2 * kv, dim)
            q, k, v = heads_of.transpose(1, 2).split((heads, kv, kv), 1)
            o = functional.scaled_dot_product_attention(
                rotate(q), rotate(k), v, is_causal=True, enable_gqa=kv != heads
            )
            x = x + self.out(o.transpose(1, 2).reshape(batch, tokens, heads * dim))
            hidden = functional.gelu(self.up(self.norms[1](x)), approximate="tanh")
            return x + self.down(hidden)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(vocab, d)
            nn.init.normal_(self.embed.weight, std=0.02)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm = nn.LayerNorm(d)

        def forward(self, ids, targets):
            x = self.norm(self.blocks(self.embed(ids)))
            logits = functional.linear(x, self.embed.weight)
            return functional.cross_entropy(logits.view(-1, vocab), targets.reshape(-1))

    return Model()


def torch_step(torch, shape, compiled):
    d, layers, heads, kv, dim, context, batch, vocab = shape
    torch.manual_seed(1)
    model = build(torch, d, layers, heads, kv, dim, context, vocab)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(vocab, (batch, context + 1))
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    run = torch.compile(model) if compiled else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = run(inputs, targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    step()
    return step, sum(p.numel() for p in model.parameters())


def product_shapes(d, layers, heads, kv, dim, context, batch, vocab):
    """The linear layers of a step as (outputs, inputs), in the order of the forward pass."""
    q, k = heads * dim, kv * dim
    block = [(q, d), (k, d), (k, d), (d, q), (4 * d, d), (d, 4 * d)]
    return block * layers + [(vocab, d)], batch * context


def blis_products(reference, shape):
    """A call of every product of a step: y = x W^T, dx = dy W, dW = dy^T x. Returns its FLOPs."""
    layers, tokens = product_shapes(*shape)
    buffers = {}

    def buffer(role, rows, columns):
        key = (role, rows, columns)
        if key not in buffers:
            buffers[key] = reference.machine.buffer_new(4 * rows * columns, 1)
        return buffers[key]

    def run():
        sgemm = reference.blis.sgemm
        for n, k in layers:
            x, w, y = buffer("x", tokens, k), buffer("w", n, k), buffer("y", tokens, n)
            sgemm(tokens, n, k, x, k, w, k, y, n, transpose_b=True)
        for n, k in reversed(layers):
            x, w, dy = buffer("x", tokens, k), buffer("w", n, k), buffer("y", tokens, n)
            sgemm(tokens, k, n, dy, n, w, k, buffer("dx", tokens, k), k)
            sgemm(n, k, tokens, dy, n, x, k, buffer("dw", n, k), k, transpose_a=True)

    return run, 6.0 * tokens * sum(n * k for n, k in layers)


def steps(torch, reference, ours, shape, args):
    params = dict(zip(NAMES, shape))
    d, _, _, _, _, context, batch, vocab = shape
    layers, tokens = product_shapes(*shape)
    flops = 6.0 * tokens * sum(n * k for n, k in layers)
    cases = [ours.case("training step", params, flops, None, "step", *shape)]
    run, of_products = blis_products(reference, shape)
    cases.append(common.Case("training step", "blis products", params, run, flops=of_products))
    for peer, compiled in (("torch eager", False), ("torch compiled", True)):
        if args.peer not in peer:
            continue
        try:
            step, _ = torch_step(torch, shape, compiled)
            cases.append(common.Case("training step", peer, params, step, flops=flops))
        except Exception as error:
            common.skipped("training step", peer, f"{type(error).__name__}: {error}", **params)
    common.interleave(cases, reference, args)
    mine = cases[0].samples
    for case in cases[1:]:
        if case.samples and mine:
            rounds = sorted(theirs / own for theirs, own in zip(case.samples, mine))
            common.emit(
                work="training step: seconds of a peer / seconds of attune",
                peer=case.peer,
                params=params,
                time_ratio=common.significant(common.statistics.median(rounds), 3),
                lowest=common.significant(rounds[0], 3),
                highest=common.significant(rounds[-1], 3),
                tokens_per_s=round(tokens / common.statistics.median(mine)),
            )


def t5(torch, reference, ours, args):
    """T5's bias, forward and backward, causal: attune computes it in its tiles, PyTorch reads and
    differentiates a mask [heads, tokens, tokens]."""
    heads, tokens, dim = (2, 256, 64) if args.quick else T5
    params = dict(heads=heads, tokens=tokens, head_dim=dim)
    flops = 7.0 * heads * tokens**2 * dim
    own = ours.case("T5 bias, forward and backward", params, flops, None, "t5", heads, tokens, dim)
    torch.manual_seed(2)
    q, k, v = (torch.randn(1, heads, tokens, dim, requires_grad=True) for _ in range(3))
    table = torch.randn(heads, 32, requires_grad=True)
    grad = torch.randn(1, heads, tokens, dim)
    distance = (torch.arange(tokens)[:, None] - torch.arange(tokens)[None]).clamp(min=0)
    far = 16 + (torch.log(distance.clamp(min=1) / 16) / torch.log(torch.tensor(128 / 16)) * 16)
    buckets = torch.where(distance < 16, distance, far.long().clamp(max=31))
    hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)

    def step():
        mask = table[:, buckets].masked_fill(hidden, -torch.inf)[None]
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return torch.autograd.grad(o, (q, k, v, table), grad)

    peer = common.Case("T5 bias, forward and backward", "torch mask", params, step, flops=flops)
    common.interleave([own, peer], reference, args)
    if own.samples and peer.samples:
        ratios = [b / a for a, b in zip(own.samples, peer.samples)]
        common.emit(
            work="T5 bias: a peer / attune",
            peer="torch mask",
            params=params,
            time_ratio=common.significant(common.statistics.median(ratios), 3),
            bytes_ratio=common.significant(
                common.peak_bytes(step) / float(ours.ask("peak", own.number)), 3
            ),
        )


def main():
    args = common.arguments(__doc__, part=("", "only small, gpt2 or t5"))
    common.quiet()
    torch = common.load("training step", "torch")
    if not torch:
        return
    torch.set_num_threads(args.threads)
    reference, ours = common.Reference(args), common.Attune(args.threads)
    shapes = QUICK if args.quick else (SMALL if args.part in "small" else []) + (
        GPT2 if args.part in "gpt2" else []
    )
    for shape in shapes:
        steps(torch, reference, ours, shape, args)
    if args.part in "t5":
        t5(torch, reference, ours, args)


if __name__ == "__main__":
    main()
