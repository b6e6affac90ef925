#!/usr/bin/env python3
"""Makes gpu_check.json and gpu_check.md of what gpu_check.sh left in a folder.

usage: gpu_report.py FOLDER COMMIT
"""
import datetime
import json
import pathlib
import re
import sys

BACKENDS = {"FLASH_ATTENTION": "PyTorch, FlashAttention-2",
            "CUDNN_ATTENTION": "PyTorch, cuDNN"}


def read_lines(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in
            path.read_text(encoding="utf-8").splitlines() if line]


def summary_of_tests(log):
    passed = re.search(r"\[  PASSED  \] (\d+) tests", log)
    failed = re.search(r"\[  FAILED  \] (\d+) tests?, listed", log)
    return {"passed": int(passed.group(1)) if passed else 0,
            "failed": int(failed.group(1)) if failed else 0}


def sanitizer_of(log):
    summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", log)
    return summary.group(1) if summary else "no summary"


def collect(folder, commit):
    def log(name):
        path = folder / f"{name}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    gpu = [part.strip() for part in log("gpu").splitlines()[0].split(",")]
    lines = read_lines(folder / "benchmark.jsonl")
    return {
        "gpu": gpu[0], "driver": gpu[1], "commit": commit,
        "date": datetime.date.today().isoformat(),
        "tests": summary_of_tests(log("tests")),
        "sanitizers": {tool: sanitizer_of(log(tool))
                       for tool in ("memcheck", "racecheck", "synccheck")
                       if log(tool)},
        "read_gb_s": lines[0]["read_gb_s"] if lines else None,
        "cases": lines[1:],
        "pytorch": read_lines(folder / "pytorch.jsonl"),
        "steps": summary_of_tests(log("steps")),
        "model": read_lines(folder / "model.jsonl"),
        "pytorch_model": read_lines(folder / "pytorch_model.jsonl"),
    }


def of_case(report, case, backend):
    for row in report["pytorch"]:
        if row["case"] == case and row["backend"] == backend and "us" in row:
            return f"{row['us']:.1f}"
    return ""


def pytorch_step(report, row):
    """PyTorch's time for all heads in bf16, which is all that it runs."""
    shape = ("batch", "context", "new_tokens")
    for peer in report["pytorch_model"]:
        if all(peer.get(key) == row[key] for key in shape):
            return f"{peer['ms']:.2f}"
    return ""


def model_table(report):
    """Steps of a whole model; the floor is the reading of its weights."""
    out = ["", "Steps of a model of Llama-3.1-8B's shape, random weights in "
           "bf16; floor: reading the weights once. PyTorch: all heads, bf16, "
           "in one piece of fixed size, CUDA graphs.", "",
           "| heads and KV cache | sequences x context | new tokens | ms | "
           "floor, ms | PyTorch, ms | tokens/s | host, us | result hash |",
           "|---|---|---|---|---|---|---|---|---|"]
    weight_bytes = 0
    for row in report["model"]:
        weight_bytes = row.get("weight_bytes", weight_bytes)
        if "ms" not in row:
            continue
        floor = weight_bytes / report["read_gb_s"] / 1e6
        out.append(
            f"| {row['model']} | {row['batch']} x {row['context']} | "
            f"{row['new_tokens']} | {row['ms']:.2f} | {floor:.2f} | "
            f"{pytorch_step(report, row)} | {row['tokens_per_s']:.0f} | "
            f"{row['host_us']:.0f} | "
            f"`{row['hash']}` |")
    return out


def markdown(report):
    tests = report["tests"]
    steps = report["steps"]
    out = [
        f"{report['gpu']}, driver {report['driver']}, {report['date']}, "
        f"commit {report['commit']}.",
        "",
        f"Kernel tests: {tests['passed']} passed, {tests['failed']} failed. "
        f"Whole steps beside the CPU: {steps['passed']} passed, "
        f"{steps['failed']} failed. "
        + " ".join(f"{tool}: {summary}." for tool, summary
                   in report["sanitizers"].items()),
        "",
        f"A kernel that only reads: {report['read_gb_s']:.0f} GB/s. Times are "
        "microseconds of one layer; floor is the time of reading its pages at "
        "that rate.",
        "",
        "| case | us | floor | of it | rate | "
        + " | ".join(f"{name}, us" for name in BACKENDS.values())
        + " | result hash |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["cases"]:
        if "gb_s" in row:
            floor = row["us"] * row["gb_s"] / report["read_gb_s"]
            middle = (f"{floor:.1f} | {100 * floor / row['us']:.0f} % | "
                      f"{row['gb_s']:.0f} GB/s")
        else:
            middle = f" | | {row['tflop_s']:.0f} TFLOP/s"
        peers = " | ".join(of_case(report, row["case"], backend)
                           for backend in BACKENDS)
        out.append(f"| {row['case']} | {row['us']:.1f} | {middle} | {peers} | "
                   f"`{row['hash']}` |")
    if report["model"]:
        out += model_table(report)
    return "\n".join(out) + "\n"


def main():
    folder = pathlib.Path(sys.argv[1])
    report = collect(folder, sys.argv[2])
    (folder / "gpu_check.json").write_text(json.dumps(report, indent=1) + "\n",
                                           encoding="utf-8")
    text = markdown(report)
    (folder / "gpu_check.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
