"""`headcount prune` and `headcount verify` against the real server: what was
measured with gates is what the pruned model then does."""

import json
import os
import subprocess
import tempfile
import unittest

import mails
import served

SPLITS = ("rank", "select", "test")
EACH = 12  # mails of a split: far too few for a claim
CHARACTERS = 300  # of a mail


class Prune(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="headcount_prune_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.data = os.path.join(cls.folder, "mails.jsonl")
        with open(cls.data, "w", encoding="utf-8") as file:
            for i, mail in enumerate(mails.mails()[:EACH * len(SPLITS)]):
                file.write(json.dumps({
                    "text": mail["body"][:CHARACTERS], "label": mail["label"],
                    "split": SPLITS[i % len(SPLITS)]}) + "\n")
        cls.server = served.Server(models=[served.DENSE], calibration="on")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def command(self, server, *args):
        return [served.BINARY, *args, "--address", server.address]

    def prune(self, out):
        return self.command(
            self.server, "prune", "--data", self.data, "--kv-bytes", "70%",
            "--weights", served.MAILROOM, "--out", out, "--output", "json")

    def run_json(self, command, code=0):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False,
            timeout=10 * served.DEADLINE, env=served.environment())
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads(done.stdout)

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def kill_half_way(self, command, journal):
        """Ends the command without a word when it has kept some scores."""
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=served.environment())
        try:
            served.until(lambda: os.path.exists(journal)
                         and os.path.getsize(journal) > 4096,
                         "some scores are kept")
        finally:
            process.kill()
            process.wait()

    def test_what_gates_promise_is_what_pruning_does(self):
        result = self.run_json(self.prune(self.path("heads.json")))
        self.assertIn("not enough data to claim this", result["claim"])
        self.assertIn("not enough data to claim this", self.read("heads.html"))
        mask = json.loads(self.read("heads.json"))
        evidence = mask["evidence"]
        dense, pruned = evidence["kv_bytes_per_token"]
        self.assertEqual(dense, 3072)
        self.assertLessEqual(pruned, 0.7 * dense)

        half = {**served.HALF, "name": "pruned",
                "heads": {"mask_file": self.path("heads.json")}}
        with served.Server(models=[served.DENSE, half]) as server:
            verified = self.run_json(self.command(
                server, "verify", "pruned", "--against", "mailroom", "--data",
                self.data, "--split", "test", "--max-loss", "99pt",
                "--max-kv-bytes", "70%", "--output", "json"))
        self.assertEqual(verified["kv_bytes_per_token"], [dense, pruned])
        quality = verified["quality"]
        self.assertEqual(quality["n"], EACH)
        # The same mails, once with gates and once without the heads.
        self.assertAlmostEqual(quality["dense"], evidence["dense"], places=5)
        self.assertAlmostEqual(quality["pruned"], evidence["pruned"], places=5)
        self.assertAlmostEqual(quality["kl_mean"], evidence["kl_mean"],
                               delta=1e-3 + 0.01 * evidence["kl_mean"])

    def test_a_run_that_was_killed_goes_on(self):
        whole, killed = self.path("whole.json"), self.path("killed.json")
        self.run_json(self.prune(whole))
        journal = self.path("killed.journal")
        self.kill_half_way(self.prune(killed), journal)
        self.assertTrue(os.path.exists(journal))
        self.run_json(self.prune(killed))
        self.assertFalse(os.path.exists(journal))
        self.assertEqual(self.read("killed.json"), self.read("whole.json"))

    def test_a_server_without_calibration_is_named(self):
        with served.Server(models=[served.DENSE]) as server:
            done = subprocess.run(
                self.command(server, "prune", "--data", self.data, "--keep",
                             "50%", "--out", self.path("none.json")),
                capture_output=True, text=True, check=False,
                timeout=served.DEADLINE, env=served.environment())
        self.assertEqual(done.returncode, 1)
        self.assertIn("--calibration", done.stderr)
        self.assertFalse(os.path.exists(self.path("none.json")))


if __name__ == "__main__":
    unittest.main()
