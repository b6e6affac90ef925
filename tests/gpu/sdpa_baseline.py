#!/usr/bin/env python3
"""Times PyTorch's attention on shapes of the kernel benchmark.

usage: sdpa_baseline.py RESULTS.jsonl

Keys and values are contiguous, which is easier than pages. As in the benchmark,
a CUDA graph runs enough layers to have 256 MiB of keys and values or more, and
what is told is the time of one.
"""
import json
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
MIN_BYTES = 256 << 20
DECODE = [(32, 4096), (8, 32768), (1, 32768), (1, 8192), (1, 1024), (256, 1024)]
PREFILL = [(1, 512), (1, 2048), (1, 8192), (1, 32768), (8, 2048)]
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def graph_of(run):
    """Replays what `run` launches."""
    torch.cuda.synchronize()  # another stream does not wait for this one
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def median_us(run, times=15):
    replay = graph_of(run)
    elapsed = []
    for _ in range(times + 3):
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        replay()
        end.record()
        torch.cuda.synchronize()
        elapsed.append(begin.elapsed_time(end) * 1e3)
    return sorted(elapsed[3:])[times // 2]


def time_case(batch, length, rows, backend):
    bytes_per_layer = 2 * batch * KV_HEADS * length * HEAD_DIM * 2
    layers = 2 if rows > 1 else max(8, -(-MIN_BYTES // bytes_per_layer))
    q = torch.randn(batch, HEADS, rows, HEAD_DIM, device="cuda",
                    dtype=torch.bfloat16)
    kv = [torch.randn(2, batch, KV_HEADS, length, HEAD_DIM, device="cuda",
                      dtype=torch.bfloat16) for _ in range(layers)]

    def run():
        with sdpa_kernel(backend):
            for k, v in kv:
                torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=rows > 1, enable_gqa=True)

    return median_us(run) / layers


def main():
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        cases = [(batch, length, 1) for batch, length in DECODE]
        cases += [(batch, length, length) for batch, length in PREFILL]
        for batch, length, rows in cases:
            size = f"{length // 1024}k" if length >= 1024 else str(length)
            name = ("prefill " if rows > 1 else "") + f"{batch} x {size}"
            for backend in BACKENDS:
                row = {"case": f"{name}, 32/8 heads, bf16",
                       "backend": backend.name}
                try:
                    row["us"] = round(time_case(batch, length, rows, backend),
                                      2)
                except (RuntimeError, torch.cuda.OutOfMemoryError) as error:
                    row["error"] = str(error).splitlines()[0]
                print(json.dumps(row), flush=True)
                out.write(json.dumps(row) + "\n")
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
