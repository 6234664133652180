"""Logits of two models that no folder of models/ holds, from the weights of one that is there:

    python tests/golden/odd_models.py

gemma3_bidirectional: models/gemma3 with use_bidirectional_attention = true, by transformers.
mpt_learned: models/mpt with attn_config.alibi = false as MosaicML's own code has it (mpt/models/
modeling_mpt.py): no bias, and rows of wpe added to the embeddings; by transformers' blocks, whose
ALiBi is set to zero. wpe is random and part of the file.
"""
import json
import os
import warnings

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, logging

logging.set_verbosity_error()
warnings.simplefilter("ignore")
here = os.path.dirname(os.path.abspath(__file__))


def load(name, dtype, **changes):
    folder = os.path.join(here, "models", name)
    with open(os.path.join(folder, "config.json")) as f:
        fields = {**json.load(f), **changes}
    config = AutoConfig.for_model(**fields)  # which reads some fields by what others are
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, attn_implementation="eager")
    return model.to(dtype).eval()


def learned(model, wpe, ids):
    heads, length = model.config.n_heads, model.config.max_seq_len
    zeros = torch.zeros(heads, 1, length, dtype=wpe.dtype)
    model.transformer.build_mpt_alibi_tensor = lambda *a, **k: zeros
    x = model.transformer.wte(ids) + wpe[: ids.shape[1]]
    return model(inputs_embeds=x, use_cache=False).logits


def save(name, run, ids, source, **more):
    with torch.no_grad():
        double, single = run(torch.float64, ids), run(torch.float32, ids)
    bound = 4 * (double - single.double()).abs().max().item() + 1e-6
    case = {"kind": "model", "params": {}, "source": source, "inputs": ["input_ids"],
            "outputs": ["logits"], "bounds": {"logits": bound}}
    tensors = {"input_ids": ids.to(torch.int32), "logits": double.float().contiguous(), **more}
    save_file(tensors, os.path.join(here, name), {"case": json.dumps(case)})
    print(name, bound)


torch.manual_seed(5)
ids = torch.randint(3, 96, (2, 17))
save("gemma3_bidirectional.safetensors",
     lambda dtype, ids: load("gemma3", dtype, use_bidirectional_attention=True)(
         input_ids=ids, use_cache=False).logits, ids, "transformers gemma3_text")
model = load("mpt", torch.float32)
wpe = torch.randn(model.config.max_seq_len, model.config.d_model)
save("mpt_learned.safetensors",
     lambda dtype, ids: learned(load("mpt", dtype), wpe.to(dtype), ids), ids,
     "transformers mpt, blocks", **{"transformer.wpe.weight": wpe})
