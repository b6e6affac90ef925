#!/usr/bin/env python3
"""Checks what ptxas says of every kernel against a table that is checked in.

usage: budget_test.py [--write] OBJECT_FOLDER

OBJECT_FOLDER holds the logs that cmake/keep_log.sh leaves beside the objects.
The table, budget.json, has a line for each kernel and architecture: registers
and bytes spilled. Fewer is fine; more fails, until --write makes a new table of
what was found. Spills of decode kernels of bf16 and int8 pages, and of products,
fail in any case.
"""
import json
import pathlib
import re
import sys

TABLE = pathlib.Path(__file__).with_name("budget.json")
DTYPES = ["f32", "f16", "bf16", "fp8_e4m3", "int8", "int4"]
ELEMENT_TYPES = {"1": "f16", "2": "bf16", "3": "q8_0", "5": "q4_1"}
# Kernels that have one instance, and their names.
KERNELS = {
    "RotateAndWriteKv": "kv_write", "Embed": "embed", "RmsNorm": "rms_norm",
    "SwiGlu": "swiglu", "GatherRows": "gather_rows", "GateHeads": "gate_heads",
    "RopeTable": "rope_table", "MatMulFloats": "matmul f32",
    "SplitRows": "split_rows", "SampleRows": "sample"}

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'")
SPILL = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
MATMUL = re.compile(
    r"(MatMul|Tile)ShapeILNS_11ElementTypeE(\d+)ELi(\d+)ELi(\d+)E")
# Those that must not spill, whatever the table says.
NO_SPILLS = re.compile(r"decode (bf16|int8) head_dim (64|128) |matmul ")
PAGE = re.compile(r"PageShapeILi(\d+)ELNS_7KvDtypeE(\d)E(?:EELi(\d+))?")


def kernel_name(mangled):
    page = PAGE.search(mangled)
    if page is None:
        if match := MATMUL.search(mangled):
            shape, dtype, panels, groups = match.groups()
            kernel = "matmul tiles" if shape == "Tile" else "matmul"
            return (f"{kernel} {ELEMENT_TYPES[dtype]} "
                    f"outputs {16 * int(panels)} rows {8 * int(groups)}")
        return next((name for kernel, name in KERNELS.items()
                     if f"{len(kernel)}{kernel}E" in mangled), mangled)
    head_dim, dtype, queries = page.groups()
    name = f"{DTYPES[int(dtype)]} head_dim {head_dim}"
    if "DecodeAttention" in mangled:
        return f"decode {name} queries {queries}"
    return f"prefill {name}"


def read_log(text):
    found = {}
    current = spilled = None
    for line in text.splitlines():
        if match := ENTRY.search(line):
            current = (kernel_name(match.group(1)), match.group(2))
        elif match := SPILL.search(line):
            spilled = int(match.group(1)) + int(match.group(2))
        elif (match := REGISTERS.search(line)) and current:
            name, architecture = current
            found.setdefault(name, {})[architecture] = {
                "registers": int(match.group(1)), "spilled": spilled}
            current = None
    return found


def compare(found, table):
    problems = []
    for name, architectures in sorted(found.items()):
        for architecture, used in architectures.items():
            budget = table.get(name, {}).get(architecture)
            what = f"{name}, {architecture}"
            if budget is None:
                problems.append(f"{what}: not in the table")
                continue
            for resource, amount in used.items():
                if amount > budget[resource]:
                    problems.append(f"{what}: {resource} {amount}, budget "
                                    f"{budget[resource]}")
            if NO_SPILLS.match(name) and used["spilled"]:
                problems.append(f"{what}: spills {used['spilled']} bytes")
    return problems


def main():
    write = "--write" in sys.argv
    folder = pathlib.Path(sys.argv[-1])
    found = {}
    for log in sorted(folder.rglob("*.cu.o.log")):
        for name, architectures in read_log(
                log.read_text(encoding="utf-8")).items():
            found.setdefault(name, {}).update(architectures)
    if not found:
        sys.exit(f"no logs of kernels in {folder}")
    if write:
        lines = [f" {json.dumps(name)}: {json.dumps(found[name])}"
                 for name in sorted(found)]
        TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n",
                         encoding="utf-8")
    problems = compare(found, json.loads(TABLE.read_text(encoding="utf-8")))
    print("\n".join(problems) or f"{len(found)} kernels within their budget")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
