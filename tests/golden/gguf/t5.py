"""Writes t5_relu.gguf and t5_gated.gguf with their golden logits: tiny random models of T5 and T5
1.1 (transformers 5.24.0), with a vocabulary that sentencepiece 0.2.3 trains on three verses, each
converted to GGUF by llama.cpp: t5.py CONVERTER, its convert_hf_to_gguf.py.

Logits are computed in f64 of the f32 weights. The bound is four times what the same model loses in
f32, plus 1e-6.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

HERE = pathlib.Path(__file__).parent
VERSES = ["In the beginning God created the heaven and the earth.",
          "And the earth was without form, and void; and darkness was upon the face of the deep.",
          "And God said, Let there be light: and there was light."]
TEXT = "And there was light upon the deep."


def make(kind, converter, folder):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(VERSES), model_prefix=f"{folder}/spiece", vocab_size=60, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, model_type="unigram", hard_vocab_limit=False,
        normalization_rule_name="identity")
    pieces = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/spiece.model")
    vocabulary = (pieces.vocab_size() + 100 + 7) // 8 * 8  # with the 100 sentinels of T5
    config = T5Config(
        vocab_size=vocabulary, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_decoder_layers=2,
        num_heads=3, relative_attention_num_buckets=32, relative_attention_max_distance=128,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        feed_forward_proj="gated-gelu" if kind == "gated" else "relu",
        tie_word_embeddings=kind != "gated")
    torch.manual_seed(3)
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0 if p.dim() > 1 else 1, 0.3)
    model.save_pretrained(folder)
    path = HERE / f"t5_{kind}.gguf"
    subprocess.run([sys.executable, converter, folder, "--outtype", "f32", "--outfile", path],
                   check=True)
    ids = torch.tensor([pieces.encode(TEXT) + [1]])
    start = torch.cat([torch.zeros(1, 1, dtype=torch.long), ids[:, :7]], 1)
    with torch.no_grad():
        f32 = model(input_ids=ids, decoder_input_ids=start).logits
        f64 = model.double()(input_ids=ids, decoder_input_ids=start).logits
    case = {"kind": "model", "params": {"text": TEXT}, "source": "transformers 5.24.0",
            "inputs": ["input_ids", "decoder_ids"], "outputs": ["logits"],
            "bounds": {"logits": 4 * float((f32.double() - f64).abs().max()) + 1e-6}}
    save_file({"input_ids": ids, "decoder_ids": start, "logits": f64.float().contiguous()},
              HERE / f"t5_{kind}.golden.safetensors", metadata={"case": json.dumps(case)})


for one in ("relu", "gated"):
    with tempfile.TemporaryDirectory() as temporary:
        make(one, sys.argv[1], temporary)
