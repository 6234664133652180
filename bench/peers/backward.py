"""Attention with its gradients, f32, causal.

FLOPs: forward 2 B H S^2 D, backward 2.5 times that; both together 7 B H S^2 D. Ratios are against
BLIS sgemm of the same round.
Peers: attune, torch SDPA flash and its math form, forward alone and forward + backward.
"""

import common

SHAPES = [
    (1, 8, 8, 2048, 64),
    (1, 8, 1, 2048, 64),
    (1, 8, 8, 2048, 128),
    (1, 8, 1, 2048, 128),
    (4, 4, 4, 512, 64),
]  # batch, heads, kv_heads, tokens, head_dim
QUICK = [(1, 8, 8, 256, 64)]


def reference_gradient(torch, q, k, v, grad):
    """dq of plain double precision attention, batch 0 head 0."""
    q, k, v, grad = (x[0, 0].detach().double() for x in (q, k, v, grad))
    q.requires_grad_()
    scores = q @ k.T / q.shape[-1] ** 0.5
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
    (torch.softmax(scores.masked_fill(hidden, -torch.inf), -1) @ v).backward(grad)
    return q.grad


def main():
    args = common.arguments(__doc__)
    common.quiet()
    torch = common.load("backward", "torch")
    if not torch:
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.set_num_threads(args.threads)
    reference = common.Reference(args)
    ours = common.Attune(args.threads)
    for batch, heads, kv, tokens, dim in QUICK if args.quick else SHAPES:
        torch.manual_seed(3)
        q = torch.randn(batch, heads, tokens, dim, requires_grad=True)
        k, v = (torch.randn(batch, kv, tokens, dim, requires_grad=True) for _ in range(2))
        grad = torch.randn(batch, heads, tokens, dim)
        forward = 2.0 * batch * heads * tokens**2 * dim
        params = dict(
            batch=batch, heads=heads, kv_heads=kv, tokens=tokens, head_dim=dim, dtype="float32"
        )
        cases = []
        if args.peer in "attune":
            for work, what, flops in (
                ("forward", "forward", forward),
                ("forward+backward", "both", 3.5 * forward),
            ):
                cases.append(
                    ours.case(work, params, flops, None, what, heads, kv, tokens, dim, batch)
                )
        for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("math", SDPBackend.MATH)):
            if args.peer not in "torch-sdpa-" + name:
                continue

            def attend(backend=backend):
                with sdpa_kernel(backend):
                    return torch.nn.functional.scaled_dot_product_attention(
                        q, k, v, is_causal=True, enable_gqa=kv != heads
                    )

            def alone(attend=attend):
                with torch.no_grad():
                    attend()

            def both(attend=attend):
                return torch.autograd.grad(attend(), (q, k, v), grad)

            peer = "torch-sdpa-" + name
            try:
                error = (
                    (both()[0][0, 0].double() - reference_gradient(torch, q, k, v, grad))
                    .abs()
                    .max()
                    .item()
                )
                cases.append(common.Case("forward", peer, params, alone, flops=forward))
                cases.append(
                    common.Case(
                        "forward+backward", peer, params, both, flops=3.5 * forward, error=error
                    )
                )
            except Exception as error:
                common.skipped("backward", peer, f"{type(error).__name__}: {error}", **params)
        common.interleave(cases, reference, args)
        for alone, both in zip(cases[::2], cases[1::2]):  # the difference is the backward pass
            seconds = [b - a for a, b in zip(alone.samples, both.samples)]
            if seconds and min(seconds) > 0:
                derived = common.Case(
                    "backward (difference)", both.peer, both.params, None, flops=2.5 * forward
                )
                derived.samples, derived.reference = seconds, both.reference
                common.report(derived)


if __name__ == "__main__":
    main()
