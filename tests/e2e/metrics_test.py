"""What /metrics says, against the documents and against the truth."""

import contextlib
import os
import re
import shutil
import subprocess
import unittest

import grpc

import served
import stubs


def documented():
    """{name: (type, labels)} of docs/metrics.md."""
    path = os.path.join(stubs.SOURCE, "docs/metrics.md")
    with open(path, encoding="utf-8") as file:
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", file.read(),
                          re.M)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels)))
            for name, kind, labels in rows}


class MetricsPage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = served.Server()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.generate(text="Dear friend,", max_tokens=40, ignore_eos=True)
        with contextlib.suppress(grpc.RpcError):
            cls.server.generate(text="")  # series of refusals begin with one
        cls.server.until_idle()

    def test_promtool_finds_nothing_to_mend(self):
        promtool = shutil.which("promtool")
        if not promtool:
            self.skipTest("promtool is not installed")
        # What the metrics library says about itself is not ours to name.
        ours = "".join(line for line in
                       self.server.scrape_text().splitlines(keepends=True)
                       if "exposer_" not in line)
        done = subprocess.run([promtool, "check", "metrics"], input=ours,
                              capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (0, "", ""))

    def test_it_has_what_is_documented_and_nothing_else(self):
        scrape = self.server.scrape()
        ours = {name: kind for name, kind in scrape.types.items()
                if not name.startswith(("process_", "exposer_"))}
        self.assertEqual(ours, {name: kind for name, (kind, _) in
                                documented().items()})

    def test_labels_are_those_documented(self):
        found = {}
        for name, labels in self.server.scrape().samples:
            stem = re.sub(r"_(bucket|sum|count)$", "", name)
            name = stem if documented().get(stem, [""])[0] == "histogram" \
                else name
            if not name.startswith(("process_", "exposer_")):
                found.setdefault(name, set()).update(
                    label for label, _ in labels if label != "le")
        for name, labels in found.items():
            self.assertEqual(labels, documented()[name][1], name)

    def test_pool_states_sum_to_the_capacity_at_any_time(self):
        stream = self.server.inference.Generate(
            stubs.inference.GenerateRequest(
                model="mailroom", text="Dear friend,", max_tokens=500,
                ignore_eos=True))
        used = 0
        for index, _ in enumerate(stream):
            if index % 50:
                continue
            scrape = self.server.scrape()
            self.assertEqual(
                scrape.sum("headcount_kv_pool_bytes"),
                scrape.sum("headcount_kv_pool_capacity_bytes"))
            self.assertEqual(
                scrape.sum("headcount_kv_pool_bytes", state="used"),
                scrape.sum("headcount_kv_bytes"))
            used = max(used, scrape.sum("headcount_kv_bytes"))
        self.assertGreater(used, 0)
        self.assertEqual(
            self.server.scrape().sum("headcount_kv_pool_capacity_bytes"),
            256 << 20)

    def test_names_that_clients_make_up_leave_no_series(self):
        def ask(name):
            with self.assertRaises(grpc.RpcError) as raised:
                self.server.generate(model=name, text="a")
            self.assertEqual(raised.exception.code(),
                             grpc.StatusCode.NOT_FOUND)

        ask("junk")
        before = set(self.server.scrape().samples)
        for index in range(1000):
            ask(f"junk-{index}")
        # The exposer has a series of its own for each quantile, from the start.
        self.assertEqual(set(self.server.scrape().samples), before)

    def test_tokens_and_heads_are_counted_exactly(self):
        before = self.server.scrape()
        answer = self.server.generate(text="Dear friend,", max_tokens=25,
                                      ignore_eos=True)
        after = self.server.until_idle()

        def grown(metric, **labels):
            return after.sum(metric, **labels) - before.sum(metric, **labels)

        self.assertEqual(grown("headcount_generated_tokens_total",
                               model="mailroom"), 25)
        self.assertEqual(grown("headcount_prompt_tokens_total",
                               model="mailroom"),
                         answer.last.usage.prompt_tokens)
        self.assertEqual(grown("headcount_time_to_first_token_seconds_count",
                               model="mailroom"), 1)
        self.assertEqual(grown("headcount_inter_token_latency_seconds_count",
                               model="mailroom"), 24)
        self.assertEqual(
            after.by("headcount_model_heads", "state", model="mailroom-half"),
            {"active": 36, "pruned": 36})

    def test_one_series_says_that_it_serves(self):
        self.assertEqual(
            self.server.scrape().by("headcount_server_state", "state"),
            {"starting": 0, "serving": 1, "draining": 0})


if __name__ == "__main__":
    unittest.main()
