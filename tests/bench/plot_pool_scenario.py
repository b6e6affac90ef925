#!/usr/bin/env python3
"""Summary and picture of what pool_scenario printed.

  pool_scenario 60 > scenario.jsonl
  plot_pool_scenario.py scenario.jsonl pool_sharing.svg   # needs matplotlib
"""

import json
import sys

POOLS = {"shared": "shared", "floors": "shared, floors of a sixth",
         "split": "split in three"}
COLOURS = {"shared": "#1f6feb", "floors": "#3fa34d", "split": "#bf5b17"}


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]


def summary(requests):
    print(f"{'pool':<8}{'model':<16}{'requests':>9}{'refused':>9}"
          f"{'TTFT p50':>10}{'p99':>8}{'tokens/s':>10}")
    models = list(dict.fromkeys(r["model"] for r in requests))
    for pool in POOLS:
        for model in sorted(models) + [None]:
            mine = [r for r in requests if r["pool"] == pool and
                    model in (None, r["model"])]
            done = [r for r in mine if r["outcome"] != "refused"]
            ends = [r["submitted"] + r["seconds"] for r in done]
            tokens = sum(r["tokens"] for r in done)
            print(f"{pool:<8}{model or 'all':<16}{len(mine):>9}"
                  f"{len(mine) - len(done):>9}"
                  f"{percentile([r['ttft'] for r in done], .5):>9.2f}s"
                  f"{percentile([r['ttft'] for r in done], .99):>7.2f}s"
                  f"{tokens / max(ends):>10.1f}")


def picture(requests, samples, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "headcount"
    from matplotlib import pyplot
    figure, (left, middle, right) = pyplot.subplots(
        1, 3, figsize=(11, 3.2), layout="constrained",
        width_ratios=[2, 2, 1])
    for pool, name in POOLS.items():
        at = [s["at"] for s in samples if s["pool"] == pool]
        used = [sum(s["used"]) / 2**20 for s in samples if s["pool"] == pool]
        left.plot(at, used, color=COLOURS[pool])
        ttft = sorted(r["ttft"] for r in requests
                      if r["pool"] == pool and r["outcome"] != "refused")
        middle.step(ttft, [(i + 1) / len(ttft) for i in range(len(ttft))],
                    label=name, color=COLOURS[pool])
        refused = sum(r["pool"] == pool and r["outcome"] == "refused"
                      for r in requests)
        right.bar(pool, refused, color=COLOURS[pool])
        right.text(pool, refused, refused, ha="center", va="bottom")
    left.set(xlabel="seconds", ylabel="MiB of KV in use",
             title="Memory that works")
    middle.legend(frameon=False, loc="lower right", fontsize="small")
    middle.set(xlabel="seconds to the first token", xscale="log",
               ylabel="part of the requests", title="Time to first token")
    right.set(ylabel="requests refused", title="Refused")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    requests = [line for line in lines if "model" in line]
    summary(requests)
    if len(sys.argv) > 2:
        picture(requests, [line for line in lines if "at" in line],
                sys.argv[2])


if __name__ == "__main__":
    main()
