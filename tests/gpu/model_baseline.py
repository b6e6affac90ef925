#!/usr/bin/env python3
"""Times PyTorch on the steps of step_benchmark.cc: the same shape of model.

usage: model_baseline.py RESULTS.jsonl [--device cpu --layers N --cases N]

A Llama of Llama-3.1-8B's shape with random bf16 weights, as a user of PyTorch
would write it for speed: fused projections, keys and values in one piece of
fixed size, scaled_dot_product_attention (the fastest backend that takes the
shape), greedy tokens, and for decoding a CUDA graph of the whole step.
"""
import argparse
import json
import time

import torch
from torch.nn import functional as F

from sdpa_baseline import graph_of

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 4096, 14336, 32, 8, 128, 128256
# batch, context, new tokens of each sequence
CASES = [(1, 1024, 1), (8, 1024, 1), (32, 1024, 1), (32, 4096, 1),
         (1, 0, 2048)]


class Llama:
    def __init__(self, layers, device):
        def weight(*shape):
            return torch.randn(shape, device=device,
                               dtype=torch.bfloat16) * 0.02

        self.device = device
        self.embedding, self.output = weight(VOCAB, HIDDEN), weight(VOCAB,
                                                                    HIDDEN)
        self.layers = [{
            "qkv": weight((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN),
            "o": weight(HIDDEN, HEADS * HEAD_DIM),
            "up": weight(2 * FFN, HIDDEN),
            "down": weight(HIDDEN, FFN),
        } for _ in range(layers)]
        self.norm = torch.ones(HIDDEN, device=device, dtype=torch.bfloat16)
        self.frequency = 500000.0 ** (
            -torch.arange(0, HEAD_DIM, 2, device=device) / HEAD_DIM)

    def make_cache(self, batch, tokens):
        return [torch.zeros(2, batch, KV_HEADS, tokens, HEAD_DIM,
                            device=self.device, dtype=torch.bfloat16)
                for _ in self.layers]

    def rotate(self, x, positions):
        angle = positions[:, None] * self.frequency
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        low, high = x.chunk(2, -1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)

    def step(self, tokens, context, cache):
        """tokens: [batch, new], behind `context`. The next one: [batch]."""
        batch, new = tokens.shape
        positions = torch.arange(context, context + new, device=self.device)
        x = self.embedding[tokens]
        for layer, kv in zip(self.layers, cache):
            h = F.rms_norm(x, (HIDDEN,), self.norm, 1e-5)
            heads = F.linear(h, layer["qkv"]).view(
                batch, new, -1, HEAD_DIM).transpose(1, 2)
            q, k, v = heads.split((HEADS, KV_HEADS, KV_HEADS), 1)
            kv[0, :, :, context:context + new] = self.rotate(k, positions)
            kv[1, :, :, context:context + new] = v
            out = F.scaled_dot_product_attention(
                self.rotate(q, positions), kv[0, :, :, :context + new],
                kv[1, :, :, :context + new], is_causal=context == 0,
                enable_gqa=True)
            x = x + F.linear(out.transpose(1, 2).flatten(2), layer["o"])
            h = F.rms_norm(x, (HIDDEN,), self.norm, 1e-5)
            gate, up = F.linear(h, layer["up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer["down"])
        x = F.rms_norm(x[:, -1], (HIDDEN,), self.norm, 1e-5)
        return F.linear(x, self.output).argmax(-1)


def time_case(model, case, times):
    batch, context, new = case
    cache = model.make_cache(batch, context + new)
    tokens = torch.full((batch, new), 17, device=model.device)

    def run():
        return model.step(tokens, context, cache)

    on_gpu = model.device != "cpu"
    step = graph_of(run) if on_gpu and new == 1 else run
    elapsed = []
    for _ in range(times + 2):
        begin = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        elapsed.append((time.perf_counter() - begin) * 1e3)
    ms = sorted(elapsed[2:])[times // 2]
    return {"batch": batch, "context": context, "new_tokens": new,
            "ms": round(ms, 3), "tokens_per_s": round(batch * new / ms * 1e3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--cases", type=int, default=len(CASES))
    args = parser.parse_args()
    with torch.inference_mode(), open(args.results, "w",
                                      encoding="utf-8") as out:
        model = Llama(args.layers, args.device)
        for case in CASES[:args.cases]:
            try:
                row = time_case(model, case, 9)
            except (RuntimeError, TypeError) as error:  # memory, versions
                row = {"case": case, "error": str(error).splitlines()[0]}
            print(json.dumps(row), flush=True)
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
