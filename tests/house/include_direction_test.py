"""Includes go one way only: see docs/architecture.md.

Run: include_direction_test.py SOURCE_DIR
"""

import os
import re
import sys
import unittest

import source_tree

# Folder -> folders of ours that it may include.
ALLOWED = {
    "base": set(),
    "heads": {"base"},
    "prune": {"base"},
    "format": {"base"},
    "text": {"format", "base"},
    "kv": {"heads", "base"},
    "backend": {"heads", "base"},
    "model": {"backend", "heads", "format", "base"},
    "export": {"model", "backend", "heads", "text", "format", "base"},
    "engine": {"model", "backend", "kv", "heads", "text", "base"},
}
ALLOWED["server"] = set(ALLOWED)
ALLOWED["cli"] = set(ALLOWED)

# Start of an outside include -> where it may stand.
OUTSIDE = {
    "grpc": ("server/", "cli/"),
    "google/": ("server/", "cli/"),
    "headcount/v1/": ("server/", "cli/"),
    "headcount/config/": ("server/", "cli/"),
    "prometheus/": ("server/", "cli/"),
    "yaml-cpp/": ("server/", "cli/"),
    "CLI/": ("cli/",),
    "Eigen/": ("src/prune/",),
    "hwy/": ("src/backend/cpu/",),
    "utf8proc": ("src/text/",),
    "cuda": ("src/backend/cuda/",),
    "cublas": ("src/backend/cuda/",),
}

# The scheduler links without a model, so nothing that these reach may be one.
SCHEDULER = ("src/engine/scheduler.h", "src/engine/scheduler.cc",
             "src/engine/sequence.h", "src/engine/sequence.cc")
SCHEDULER_ALLOWED = {"engine", "kv", "heads", "base"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.M)


def folder_of(path):
    """"src/kv/block_pool.h" and "kv/block_pool.h" -> "kv"."""
    parts = path.split("/")
    name = parts[1] if parts[0] == "src" else parts[0]
    return name if name in ALLOWED else None


def wrong_includes(files):
    """`files`: {path: text}. Returns one line for each wrong include."""
    wrong = []
    for path, text in files.items():
        folder = folder_of(path)
        if folder is None or path.split("/")[0] not in ("src", "server", "cli"):
            continue
        for include in INCLUDE.findall(text):
            ours = folder_of(include)
            if ours and ours not in ALLOWED[folder] | {folder}:
                wrong.append(f"{path} includes {include}")
            for start, places in OUTSIDE.items():
                if include.startswith(start) and not path.startswith(places):
                    wrong.append(f"{path} includes {include}, which belongs in "
                                 + " and ".join(places))
    return wrong + wrong_scheduler_includes(files)


def wrong_scheduler_includes(files):
    wrong = []
    reached = [path for path in SCHEDULER if path in files]
    for path in reached:
        for include in INCLUDE.findall(files[path]):
            folder = folder_of(include)
            if folder and folder not in SCHEDULER_ALLOWED:
                wrong.append(f"the scheduler reaches {include} through {path}")
            target = "src/" + include
            if target in files and target not in reached:
                reached.append(target)
    return wrong


class IncludeDirection(unittest.TestCase):
    def test_includes_go_one_way(self):
        files = dict(source_tree.code_files(ROOT))
        self.assertGreater(len(files), 50)
        self.assertEqual(wrong_includes(files), [])

    def test_an_include_against_the_direction_is_found(self):
        for path, include in (
                ("src/base/a.h", '"heads/head_layout.h"'),
                ("src/kv/a.cc", '"backend/backend.h"'),
                ("src/backend/a.cc", '"model/model.h"'),
                ("src/engine/a.cc", '"server/server.h"'),
                ("server/a.cc", '"cli/flags.h"'),
                ("src/engine/a.cc", "<grpcpp/grpcpp.h>"),
                ("src/model/a.cc", '"headcount/v1/model.pb.h"'),
                ("src/backend/cpu/a.cc", "<cuda_runtime.h>"),
                ("src/prune/a.cc", '"headcount/v1/model.pb.h"'),
                ("src/heads/a.h", "<prometheus/registry.h>")):
            found = wrong_includes({path: f"#include {include}\n"})
            self.assertEqual(len(found), 1, f"{path}: {include}: {found}")

    def test_an_include_along_the_direction_is_not_found(self):
        for path, include in (
                ("src/heads/a.h", '"base/checked.h"'),
                ("src/engine/a.cc", '"text/stop_matcher.h"'),
                ("server/a.cc", '"headcount/v1/model.pb.h"'),
                ("server/a.cc", '"server/limits.h"'),
                ("cli/a.cc", '"src/base/human.h"'),
                ("src/backend/cpu/a.cc", '"hwy/highway.h"')):
            found = wrong_includes({path: f"#include {include}\n"})
            self.assertEqual(found, [], path)

    def test_a_model_that_the_scheduler_reaches_by_a_detour_is_found(self):
        found = wrong_includes({
            "src/engine/scheduler.h": '#include "engine/request.h"\n',
            "src/engine/request.h": '#include "model/model.h"\n',
        })
        self.assertEqual(found, ["the scheduler reaches model/model.h through "
                                 "src/engine/request.h"])


if __name__ == "__main__":
    ROOT = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
