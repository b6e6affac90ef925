"""Writes copies of the scheduler's sources with every seeded bug in them, each
of which sim::mutant switches on.

Run: mutate.py MUTANTS_JSON SOURCE_DIR OUT_DIR FILE...

FILEs are relative to SOURCE_DIR/src. Each edit of a mutant names a file, text
that must stand there exactly once, and what takes its place: an expression, or
statements where the text ends with a semicolon. Mutants are numbered from 1.
"""

import collections
import json
import os
import sys


def choose(original, replacements):
    """C++ that is `original` unless the mutant of a replacement is on."""
    if original.rstrip().endswith(";"):
        parts = [f"if (::headcount::sim::mutant == {number}) {{ {text} }} else"
                 for number, text in replacements]
        return " ".join(parts) + " { " + original + " }"
    parts = [f"::headcount::sim::mutant == {number} ? ({text}) :"
             for number, text in replacements]
    return "(" + " ".join(parts) + " (" + original + "))"


def edits_by_file(mutants):
    """{file: {original: [(number, replacement)]}}"""
    edits = collections.defaultdict(lambda: collections.defaultdict(list))
    for number, mutant in enumerate(mutants, start=1):
        for edit in mutant["edits"]:
            edits[edit["file"]][edit["original"]].append(
                (number, edit["replacement"]))
    return edits


def mutated(name, text, edits):
    for original in edits:
        if text.count(original) != 1:
            sys.exit(f"mutants.json: {name} has {text.count(original)} times, "
                     f"not once: {original}")
    for original, replacements in edits.items():
        if text.count(original) != 1:
            sys.exit(f"mutants.json: {name}: overlaps another: {original}")
        text = text.replace(original, choose(original, replacements))
    return '#include "tests/sim/mutant.h"\n' + text


def main():
    table, source, out, *names = sys.argv[1:]
    with open(table, encoding="utf-8") as file:
        edits = edits_by_file(json.load(file))
    if unknown := set(edits) - set(names):
        sys.exit(f"mutants.json: not built: {unknown}")
    for name in names:
        with open(os.path.join(source, "src", name), encoding="utf-8") as file:
            text = mutated(name, file.read(), edits.get(name, {}))
        path = os.path.join(out, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
