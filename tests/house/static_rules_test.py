"""What no file of the project may contain.

Run: static_rules_test.py SOURCE_DIR

Each rule brings an example that it must find and one that it must not.
"""

import dataclasses
import os
import re
import sys
import unittest

import source_tree


@dataclasses.dataclass(frozen=True)
class Rule:
    why: str
    pattern: str
    bad: str
    good: str
    where: tuple = ("src/", "server/", "cli/", "tests/")
    kinds: tuple = source_tree.CPP
    in_comments: bool = False  # looks at comments and literals too
    but: tuple = ()  # files that may

    def hits(self, path, text):
        if not path.startswith(self.where) or not path.endswith(self.kinds):
            return []
        if path in self.but or path.startswith("tests/house/"):
            return []  # house: the examples below
        if not self.in_comments:
            text = source_tree.without_comments(text)
        return [source_tree.line_of(text, match.start())
                for match in re.finditer(self.pattern, text, re.M)]


RULES = (
    Rule("std::regex recurses for each character of its input",
         r"\bstd::regex|#\s*include\s*<regex>",
         "std::regex digits(pattern);", "// no std::regex here"),
    Rule("the stack is no place for a size from outside",
         r"\balloca\s*\(", "p = alloca(n);", "p = Allocate(n);"),
    Rule("names of std are written out",
         r"\busing\s+namespace\s+std\b", "using namespace std;",
         "namespace hn = hwy::HWY_NAMESPACE;"),
    Rule("a header is guarded by #pragma once",
         r"\A(?!(?s:.)*^#pragma once)(?s:.)", "int x;\n",
         "int x;\n#pragma once\n", kinds=(".h", ".cuh"),
         # Included once for each target, and guarded by that.
         but=("src/backend/cpu/attention_walk-inl.h",
              "src/backend/cpu/matmul-inl.h",
              "src/backend/cpu/rms_norm-inl.h",
              "src/backend/cpu/simd-inl.h")),
    Rule("left for later",
         r"\b(?:TODO|FIXME|XXX|HACK)\b", "x = 0;  // TODO: more",
         "x = 0;  // all", kinds=source_tree.CODE, in_comments=True,
         where=("src/", "server/", "cli/", "tests/", "proto/", "scripts/")),
    Rule("a name that says nothing",
         r"^\s*(?:class|struct)\s+\w*"
         r"(?:Manager|Handler|Helper|Util|Utils|Context|Processor)\b[^;]*$",
         "class PoolManager {", "grpc::CallbackServerContext* context;"),
    Rule("a lock is a base/mutex.h Mutex, which clang checks",
         r"\bstd::(?:mutex|lock_guard|scoped_lock|condition_variable)\b",
         "std::mutex mutex_;", "Mutex mutex_;",
         where=("src/", "server/", "cli/"), but=("src/base/mutex.h",)),
    Rule("a test waits for an event, not for time to pass",
         r"\b(?:sleep_for|SleepFor|usleep)\b|\btime\.sleep\b",
         "std::this_thread::sleep_for(1s);", "done.Wait();",
         # Which plays what arrives at certain times.
         where=("tests/",), but=("tests/bench/pool_scenario.cc",),
         kinds=source_tree.CODE),
    Rule("a thread that nobody joins",
         r"\.detach\(\)", "thread.detach();", "thread.join();",
         # It waits for the signal that ends the process.
         but=("server/signals.cc",)),
)

NAMES = re.compile(
    r"(?:^|_)(?:manager|handler|helper|helpers|util|utils|context|processor|"
    r"common|misc)\.", re.I)

# CHECKs in code that reads files: each is true whatever the file says, for
# the reason given. (path, condition) -> reason.
CHECKS_IN_PARSERS = {
    ("src/text/bpe.cc", "merge.rank < kNoMerge"):
        "readers rank at most kMaxMerges merges, or kMaxVocabulary scores",
    ("src/text/bpe.cc", "piece.size() < kNone"):
        "4 GiB are more than a message or a file may have bytes",
    ("src/text/chat_template.cc", "!Check(messages).has_value()"):
        "the server refuses a conversation for which Check finds a problem",
    ("src/text/unicode.cc", "step.kind == Utf8Step::Kind::kCharacter"):
        "callers pass valid UTF-8: Encode replaces what is not",
    ("src/text/unicode.cc",
     "count > 0 && static_cast<size_t>(count) <= parts.size()"):
        "no character decomposes into more than kMaxDecomposition",
    ("src/text/unicode.cc", "composed >= 0"):
        "utf8proc refuses options only, and these are constant",
}


def max_lines(path):
    return 700 if path.startswith("src/backend/c") else 400


def checks_in_parsers(files):
    """The CHECKs of src/format and src/text: {(path, condition): line}."""
    found = {}
    for path, text in files.items():
        if not path.startswith(("src/format/", "src/text/")):
            continue
        code = source_tree.without_comments(text)
        for match in re.finditer(r"\b(?:CHECK|assert|abort)\s*\(", code):
            start, depth = match.end(), 1
            end = start
            while depth and end < len(code):
                depth += {"(": 1, ")": -1}.get(code[end], 0)
                end += 1
            condition = " ".join(code[start:end - 1].split())
            found[path, condition] = source_tree.line_of(code, match.start())
    return found


def wrong_first_include(path, files):
    """The first include of a source whose header comes later, or None."""
    header = path[:-len(".cc")] + ".h"
    if not path.endswith(".cc") or header not in files:
        return None
    first = re.search(r'^#include ["<]([^">]+)', files[path], re.M).group(1)
    return first if first != header.removeprefix("src/") else None


class StaticRules(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.files = dict(source_tree.code_files(ROOT))

    def test_no_file_breaks_a_rule(self):
        broken = [f"{path}:{line}: {rule.why}" for rule in RULES
                  for path, text in self.files.items()
                  for line in rule.hits(path, text)]
        self.assertEqual(broken, [])

    def test_every_rule_finds_its_example(self):
        for rule in RULES:
            path = rule.where[0] + "a" + rule.kinds[0]
            self.assertTrue(rule.hits(path, rule.bad), rule.why)
            self.assertFalse(rule.hits(path, rule.good), rule.why)

    def test_files_are_short(self):
        lines = {path: text.count("\n") for path, text in self.files.items()}
        self.assertEqual([f"{path}: {count} lines, at most {max_lines(path)}"
                          for path, count in lines.items()
                          if count > max_lines(path)], [])

    def test_a_source_includes_its_header_first(self):
        """So that the header is known to compile alone."""
        self.assertEqual(
            {path: wrong_first_include(path, self.files)
             for path in self.files
             if path.startswith(("src/", "server/", "cli/"))
             and wrong_first_include(path, self.files)}, {})
        files = {"src/kv/a.h": "", "src/kv/a.cc": '#include "kv/b.h"\n'
                                                  '#include "kv/a.h"\n'}
        self.assertEqual(wrong_first_include("src/kv/a.cc", files), "kv/b.h")

    def test_file_names_say_something(self):
        vague = [path for path in self.files
                 if NAMES.search(os.path.basename(path))]
        self.assertEqual(vague, [])

    def test_no_check_can_be_reached_from_the_bytes_of_a_file(self):
        found = checks_in_parsers(self.files)
        unexplained = [f"{path}:{line}: CHECK({condition})"
                       for (path, condition), line in found.items()
                       if (path, condition) not in CHECKS_IN_PARSERS]
        self.assertEqual(unexplained, [])
        gone = [key for key in CHECKS_IN_PARSERS if key not in found]
        self.assertEqual(gone, [], "allowed, but no longer there")

    def test_a_check_in_a_parser_is_found(self):
        text = "// CHECK(x)\nCHECK(size(a) ==\n      b) << \"CHECK(c)\";\n"
        self.assertEqual(checks_in_parsers({"src/format/a.cc": text}),
                         {("src/format/a.cc", "size(a) == b"): 2})


if __name__ == "__main__":
    ROOT = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
