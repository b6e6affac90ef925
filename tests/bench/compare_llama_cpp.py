#!/usr/bin/env python3
"""Headcount and llama.cpp on one GGUF file, one after the other, in one run.

  pip install llama-cpp-python        # builds llama.cpp for this machine
  cmake --preset release && cmake --build --preset release
  tests/bench/compare_llama_cpp.py --model smollm2-135m.gguf

Each round measures one side, then the other, so that what else the machine does
falls on both; the report takes the best round of each. Not part of CI: it needs
a real model, and minutes.

llama.cpp is called through its C API and computes only, with flash attention on
and off, the better of both; Headcount's figures include its server and gRPC.

  prefill        a prompt of 512 tokens, until its first token
  decode         1 sequence behind 128 tokens: the median step
  batched decode 16 sequences behind 128 tokens each: the median step
"""

import argparse
import contextlib
import ctypes
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import time

CONTEXT = 128
STEPS = 48
STREAMS = 16
PROMPT = 512


class Llama:
    """llama.cpp through its C API: rates in tokens per second."""

    def __init__(self, path, threads, flash_attention):
        import llama_cpp

        self.api = llama_cpp
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = STREAMS * PROMPT
        params.n_batch = params.n_ubatch = PROMPT
        params.n_seq_max = STREAMS
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = 1 if flash_attention else 0
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit("llama.cpp refuses the context")
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab = llama_cpp.llama_vocab_n_tokens(vocab)
        self.batch = llama_cpp.llama_batch_init(PROMPT, 0, 1)

    def clear(self):
        memory = self.api.llama_get_memory(self.context)
        self.api.llama_memory_clear(memory, True)

    def step(self, rows):
        """Computes rows of (sequence, position, logits wanted): seconds."""
        self.batch.n_tokens = len(rows)
        for i, (sequence, position, logits) in enumerate(rows):
            self.batch.token[i] = random.randrange(self.vocab)
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = logits
        start = time.perf_counter()
        if self.api.llama_decode(self.context, self.batch) != 0:
            sys.exit("llama_decode failed")
        self.api.llama_synchronize(self.context)
        return time.perf_counter() - start

    def prefill(self):
        self.clear()
        rows = [(0, i, i == PROMPT - 1) for i in range(PROMPT)]
        return PROMPT / self.step(rows)

    def decode(self, streams):
        self.clear()
        for sequence in range(streams):
            self.step([(sequence, i, False) for i in range(CONTEXT)])
        steps = []
        for position in range(CONTEXT, CONTEXT + STEPS):
            rows = [(s, position, True) for s in range(streams)]
            steps.append(self.step(rows))
        return streams / statistics.median(steps)

    def measure(self):
        return [self.prefill(), self.decode(1), self.decode(STREAMS)]


class Headcount:
    """The real server, asked by the real client."""

    def __init__(self, binary, path, threads):
        self.binary = binary
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % free.getsockname()[1]
        self.server = subprocess.Popen(
            [binary, "serve", path, f"--threads={threads}",
             f"--listen={self.address}", "--metrics-listen=127.0.0.1:0"],
            stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while subprocess.run([binary, "health", f"--address={self.address}"],
                             capture_output=True).returncode != 0:
            if time.monotonic() > deadline or self.server.poll() is not None:
                sys.exit(self.server.stderr.read().decode())
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.wait(0.1)

    def bench(self, **flags):
        flags = [f"--{key.replace('_', '-')}={value}"
                 for key, value in flags.items()]
        return json.loads(subprocess.check_output(
            [self.binary, "bench", f"--address={self.address}",
             "--output=json", "--warmup=0", *flags],
            stderr=subprocess.DEVNULL))

    def decode(self, streams):
        report = self.bench(streams=streams, requests=streams,
                            prompt_tokens=CONTEXT, max_tokens=STEPS)
        return streams * 1000 / report["inter_token_ms"]["p50"]

    def measure(self):
        prefill = self.bench(prompt_tokens=PROMPT, max_tokens=1, requests=1)
        return [PROMPT * 1000 / prefill["time_to_first_token_ms"]["p50"],
                self.decode(1), self.decode(STREAMS)]

    def resident_mib(self):
        with open(f"/proc/{self.server.pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmRSS"].split()[0]) / 1024

    def stop(self):
        self.server.send_signal(signal.SIGTERM)
        self.server.send_signal(signal.SIGTERM)
        self.server.wait()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--headcount", default="build/release/cli/headcount")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    sides = {"headcount": Headcount(options.headcount, options.model,
                                    options.threads)}
    print(f"headcount: {sides['headcount'].resident_mib():.0f} MiB resident "
          "after loading", flush=True)
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p,
                             ctypes.c_void_p)(lambda *_: None)
    import llama_cpp

    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    for flash_attention in (False, True):
        name = "llama.cpp" + (" flash" if flash_attention else "")
        sides[name] = Llama(options.model, options.threads, flash_attention)
    rates = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            rates[name].append(side.measure())
    print(f"headcount: {sides['headcount'].resident_mib():.0f} MiB resident "
          "after the runs")
    sides["headcount"].stop()

    best = {name: [max(column) for column in zip(*rounds)]
            for name, rounds in rates.items()}
    print("tokens per second %27s" % "headcount   llama.cpp   ratio")
    titles = [f"prefill, {PROMPT} tokens", "decode, 1 stream",
              f"decode, {STREAMS} streams"]
    for i, title in enumerate(titles):
        ours = best["headcount"][i]
        theirs = max(best["llama.cpp"][i], best["llama.cpp flash"][i])
        print(f"{title:22s} {ours:9.0f} {theirs:11.0f} {ours / theirs:7.2f}")


if __name__ == "__main__":
    main()
