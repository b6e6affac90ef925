#!/usr/bin/env python3
"""Writes a model of some shape with random bf16 weights: for speed, not sense.

usage: make_model.py FOLDER [--layers N] [--small]

The default is Llama-3.1-8B's shape; small: its layers and heads, and little else
(40 MB).
"""
import argparse
import json
import pathlib
import random
import struct

LLAMA_8B = dict(hidden_size=4096, intermediate_size=14336, head_dim=128,
                num_attention_heads=32, num_key_value_heads=8,
                vocab_size=128256)
SMALL = dict(LLAMA_8B, hidden_size=64, intermediate_size=64, vocab_size=256)
PATTERN = 1 << 25  # bytes that repeat


def tensors(shape, layers):
    hidden, ffn = shape["hidden_size"], shape["intermediate_size"]
    q = shape["num_attention_heads"] * shape["head_dim"]
    kv = shape["num_key_value_heads"] * shape["head_dim"]
    yield "model.embed_tokens.weight", [shape["vocab_size"], hidden]
    for i in range(layers):
        for name, size in (("input_layernorm", [hidden]),
                           ("self_attn.q_proj", [q, hidden]),
                           ("self_attn.k_proj", [kv, hidden]),
                           ("self_attn.v_proj", [kv, hidden]),
                           ("self_attn.o_proj", [hidden, q]),
                           ("post_attention_layernorm", [hidden]),
                           ("mlp.gate_proj", [ffn, hidden]),
                           ("mlp.up_proj", [ffn, hidden]),
                           ("mlp.down_proj", [hidden, ffn])):
            yield f"model.layers.{i}.{name}.weight", size
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [shape["vocab_size"], hidden]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    shape = SMALL if args.small else LLAMA_8B
    args.folder.mkdir(parents=True, exist_ok=True)
    config = dict(
        shape, architectures=["LlamaForCausalLM"], model_type="llama",
        num_hidden_layers=args.layers, max_position_embeddings=131072,
        rms_norm_eps=1e-5, rope_theta=500000.0, hidden_act="silu",
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=1)
    (args.folder / "config.json").write_text(json.dumps(config),
                                             encoding="utf-8")
    header, end = {}, 0
    for name, size in tensors(shape, args.layers):
        count = size[0] * (size[1] if len(size) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": size,
                        "data_offsets": [end, end + 2 * count]}
        end += 2 * count
    text = json.dumps(header).encode()
    # bf16 of magnitudes 2^-7 to 2^-5, of both signs.
    draw = random.Random(1)
    values = [draw.randrange(2) << 15 | draw.randrange(120, 122) << 7
              | draw.randrange(128) for _ in range(1 << 16)]
    pattern = (struct.pack(f"<{len(values)}H", *values)
               * (PATTERN // (2 * len(values))))
    with open(args.folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while end > 0:
            file.write(pattern[:end])
            end -= len(pattern)


if __name__ == "__main__":
    main()
