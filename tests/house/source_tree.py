"""The files of the project, as the house tests see them."""

import os
import re

CODE = (".cc", ".h", ".cu", ".cuh", ".py", ".sh", ".proto")
CPP = (".cc", ".h", ".cu", ".cuh")
ROOMS = ("src", "server", "cli", "proto", "tests", "scripts")


def code_files(root):
    """Yields (path from `root`, text) of every source file."""
    for room in ROOMS:
        for folder, folders, names in os.walk(os.path.join(root, room)):
            folders[:] = sorted(f for f in folders if f != "data")
            for name in sorted(names):
                if name.endswith(CODE):
                    path = os.path.join(folder, name)
                    with open(path, encoding="utf-8") as file:
                        yield os.path.relpath(path, root), file.read()


_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])'""", re.S)


def without_comments(text):
    """C++ `text` with comments and the contents of literals blanked out, so
    that line numbers stay."""

    def blank(match):
        token = match.group()
        if token[0] in "\"'":
            return token[0] * 2
        return "\n" * token.count("\n")

    return _TOKEN.sub(blank, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1
