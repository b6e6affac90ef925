"""`headcount plan` and PlanCapacity: what is planned is what is there."""

import json
import os
import subprocess
import tempfile
import unittest

import served
import stubs

CONFIGS = os.path.join(stubs.SOURCE, "tests/data/configs")
POOL = 16 << 20


def plan(*arguments):
    return json.loads(subprocess.run(
        [served.BINARY, "plan", "--output", "json", *arguments], check=True,
        capture_output=True, text=True, timeout=served.DEADLINE,
        env=served.environment()).stdout)


class Plan(unittest.TestCase):
    def test_the_command_and_the_server_agree(self):
        with served.Server(models=[served.DENSE, served.HALF],
                           kv_pool=f"{POOL}B") as server:
            flags = ["--running", "--address", server.address,
                     "--context", "1024"]
            half = plan("mailroom-half", *flags)["plan"]
            masked = plan("mailroom", *flags, "--mask-file",
                          served.HALF["heads"]["mask_file"])["plan"]
            alone = plan(served.MAILROOM, "--kv-pool", f"{POOL}B",
                         "--context", "1024", "--mask-file",
                         served.HALF["heads"]["mask_file"])["plan"]
            model = server.model.GetModel(
                stubs.model.GetModelRequest(name="mailroom-half")).model
        for entry in half, masked, alone:
            self.assertEqual(entry["kv_bytes_per_token"],
                             model.kv_bytes_per_token)
            self.assertEqual(entry["parameters"], half["parameters"])
            self.assertEqual(entry["groups"], half["groups"])
            self.assertEqual(entry["sequences_admitted"],
                             half["sequences_admitted"])
        self.assertEqual(half["weight_bytes"], model.weight_bytes)

    def test_the_plot_is_one_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "plan.html")
            plan(os.path.join(CONFIGS, "llama-3.1-8b.json"), "--gpu", "h100",
                 "--context", "32k", "--html", path)
            with open(path, encoding="utf-8") as file:
                page = file.read()
        self.assertEqual(page.count("<svg"), 2)
        self.assertNotIn("<script", page)


if __name__ == "__main__":
    unittest.main()
