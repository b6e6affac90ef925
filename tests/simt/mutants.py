#!/usr/bin/env python3
"""Plants bugs in kernels and says which of them the emulator finds.

usage: mutants.py BUILD_FOLDER [TEXT]

BUILD_FOLDER is a build of this tree, with kernel_simt_test in it. Each bug of
mutants.json (those whose name has TEXT in it) is planted in a copy of the
kernels of bf16 pages, or those of products, compiled, and run through their
tests in every thread order. Prints a Markdown table.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS = pathlib.Path("src/backend/cuda")
ORDERS = ["forward", "reverse", "shuffled", "warp_by_warp"]
TIMEOUT_S = 120
# What is compiled with a bug, and the tests that are run: enough to walk every
# path; all would take ten times as long.
ATTENTION = ("attention_bf16.cu", ":".join([
    "DecodeAttentionTest.EveryDtypeAndHeadDim", "DecodeAttentionTest.Windows",
    "PrefillAttentionTest.EveryGroup", "*.SplitBehindALongPast",
    "*.WithoutBulkCopies"]))
PRODUCTS = ":".join([
    "*.ARowHasTheSameBitsInAnyCompany", "*.TilesCoverRowsAndOutputs"])
CASES = {"matmul_tiles.cuh": ("matmul_tiles.cu", PRODUCTS),
         "split_rows.cuh": ("matmul_kernels.cu", PRODUCTS)}


def plant(mutant, folder):
    """A copy of the kernels with the bug, in front of the real ones."""
    copy = folder / KERNELS.relative_to("src")
    copy.mkdir(parents=True, exist_ok=True)
    for source in (ROOT / KERNELS).iterdir():
        if source.suffix in (".cuh", ".cu", ".h"):
            (copy / source.name).write_text(source.read_text(encoding="utf-8"),
                                            encoding="utf-8")
    file = copy / mutant["file"]
    text = file.read_text(encoding="utf-8")
    if text.count(mutant["from"]) != 1:
        sys.exit(f"mutants.json: \"{mutant['name']}\" fits "
                 f"{text.count(mutant['from'])} places of {mutant['file']}")
    file.write_text(text.replace(mutant["from"], mutant["to"]),
                    encoding="utf-8")
    return copy / CASES.get(mutant["file"], ATTENTION)[0]


def build(mutant, build_folder, folder):
    source = plant(mutant, folder)
    kernels = folder / "kernels.o"
    subprocess.run(
        ["g++", "-std=c++20", "-O1", "-DHEADCOUNT_SIMT", "-w",
         "-fsanitize=thread", f"-I{folder}",
         f"-I{ROOT}/src", f"-I{ROOT}", "-x", "c++", "-c", source,
         "-o", kernels], check=True)
    program = folder / "kernel_test"
    # As the build links it. The object comes first: the library's own of the
    # same kernels is not looked at.
    commands = subprocess.run(
        ["ninja", "-C", build_folder, "-t", "commands", "kernel_simt_test"],
        check=True, capture_output=True, text=True).stdout.splitlines()
    first = " tests/gpu/CMakeFiles/kernel_simt_test.dir/"
    link = commands[-1].replace(first, f" {kernels}{first}", 1).replace(
        " -o tests/gpu/kernel_simt_test ", f" -o {program} ")
    subprocess.run(link, shell=True, check=True, cwd=build_folder)
    return program


def verdict(program, cases, order):
    """How the tests end: "passes", or what tells that something is wrong."""
    try:
        result = subprocess.run(
            [program, f"--gtest_filter={cases}", "--gtest_brief=1"],
            env={**os.environ, "HEADCOUNT_SIMT_ORDER": order},
            capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "does not end"
    if result.returncode == 0:
        return "passes"
    for line in result.stderr.splitlines():
        if line.startswith("simt: "):
            return re.split(" at offset| of threads|[,;]",
                            line.removeprefix("simt: "))[0]
    return "wrong result"


def main():
    build_folder = pathlib.Path(sys.argv[1]).resolve()
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    mutants = json.loads(pathlib.Path(__file__).with_name("mutants.json")
                         .read_text(encoding="utf-8"))
    found = 0
    print("| planted bug | " + " | ".join(ORDERS) + " |")
    print("|---|" + "---|" * len(ORDERS))
    mutants = [m for m in mutants if wanted in m["name"]]
    for mutant in mutants:
        with tempfile.TemporaryDirectory() as folder:
            program = build(mutant, build_folder, pathlib.Path(folder))
            cases = CASES.get(mutant["file"], ATTENTION)[1]
            verdicts = [verdict(program, cases, order) for order in ORDERS]
        found += any(v != "passes" for v in verdicts)
        print(f"| {mutant['name']} | " + " | ".join(verdicts) + " |",
              flush=True)
    print(f"\n{found} of {len(mutants)} found")


if __name__ == "__main__":
    main()
