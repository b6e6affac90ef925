"""`headcount prune --model PATH --repair`: a mask and refit output projections
without a server of one's own, and what is then served."""

import hashlib
import json
import os
import struct
import subprocess
import tempfile
import unittest

import mails
import served
import stubs

SPLITS = ("rank", "select", "test")
EACH = 12  # mails of a split
CHARACTERS = 300  # of a mail
HIDDEN, HEAD_DIM, LAYERS, HEADS = 192, 32, 6, 12


def safetensors(path):
    """{name: (dtype, shape)} and all of the data as floats."""
    with open(path, "rb") as file:
        content = file.read()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    data = content[8 + length:]
    return ({name: (tensor["dtype"], tensor["shape"])
             for name, tensor in header.items() if name != "__metadata__"},
            struct.unpack(f"<{len(data) // 4}f", data))


class Repair(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="headcount_repair_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.data = cls.path("mails.jsonl")
        with open(cls.data, "w", encoding="utf-8") as file:
            for i, mail in enumerate(mails.mails()[:EACH * len(SPLITS)]):
                file.write(json.dumps({
                    "text": mail["body"][:CHARACTERS], "label": mail["label"],
                    "split": SPLITS[i % len(SPLITS)]}) + "\n")
        cls.result = json.loads(cls.prune("heads.json").stdout)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    @classmethod
    def command(cls, *args, code=0):
        done = subprocess.run(
            [served.BINARY, *args], capture_output=True, text=True,
            check=False, timeout=10 * served.DEADLINE,
            env={**served.environment(), "TMPDIR": cls.folder})
        if done.returncode != code:
            raise AssertionError(f"{done.returncode}: {done.stderr}")
        return done

    @classmethod
    def prune(cls, out, *args, code=0):
        return cls.command(
            "prune", "--data", cls.data, "--kv-bytes", "25%", "--repair",
            "--out", cls.path(out), "--output", "json",
            *(args or ("--model", served.MAILROOM)), code=code)

    def mask(self):
        with open(self.path("heads.json"), encoding="utf-8") as file:
            return json.load(file)

    def kept_heads(self):
        """[layer] query heads that stay."""
        kept = [HEADS] * LAYERS
        for layer in self.mask()["layers"]:
            kept[layer["i"]] -= len(layer["drop_q"])
        return kept

    def test_the_repair_fits_the_mask(self):
        repair = self.result["repair"]
        self.assertTrue(repair["written"])
        accepted = [step["layer"] for step in repair["layers"]
                    if step["accepted"]]
        self.assertTrue(accepted)
        self.assertEqual(len(set(accepted)), len(accepted))
        for step in repair["layers"]:
            # One that helped may have given way to a better one of its layer.
            self.assertEqual(step["layer"] in accepted, any(
                other["with"] < other["without"] for other in repair["layers"]
                if other["layer"] == step["layer"]))
        self.assertEqual(
            self.mask()["repair"],
            {"kind": "ridge_wo", "tensors": "heads.repair.safetensors"})
        tensors, _ = safetensors(self.path("heads.repair.safetensors"))
        kept = self.kept_heads()
        expected = {}
        for layer in accepted:
            name = f"layers.{layer}.o_proj."
            expected[name + "bias"] = ("F32", [HIDDEN])
            if kept[layer]:
                expected[name + "weight"] = (
                    "F32", [HIDDEN, HEAD_DIM * kept[layer]])
        self.assertEqual(tensors, expected)
        with open(os.path.join(served.MAILROOM, "model.safetensors"),
                  "rb") as file:
            self.assertEqual(self.mask()["base"]["sha256"],
                             hashlib.sha256(file.read()).hexdigest())

    def test_latency_is_measured_of_every_mask_of_the_path(self):
        self.assertTrue(self.result["path"])
        for row in self.result["path"]:
            latency = row["latency"]
            self.assertEqual(latency["texts"], EACH)
            low, high = latency["ratio_ci95"]
            self.assertLessEqual(low, latency["ratio"])
            self.assertLessEqual(latency["ratio"], high)
        with open(self.path("heads.html"), encoding="utf-8") as page:
            self.assertIn("Quality against latency", page.read())

    def test_what_was_measured_is_what_is_served(self):
        evidence = self.mask()["evidence"]
        alone = {**self.mask()}
        del alone["repair"]
        with open(self.path("alone.json"), "w", encoding="utf-8") as file:
            json.dump(alone, file)
        models = [served.DENSE]
        for name, mask in (("alone", "alone.json"), ("repaired", "heads.json")):
            models.append({"name": name, "source": {"path": served.MAILROOM},
                           "heads": {"mask_file": self.path(mask)}})
        with served.Server(models=models) as server:
            verified = json.loads(self.command(
                "verify", "repaired", "--against", "mailroom", "--data",
                self.data, "--split", "test", "--max-loss", "99pt",
                "--max-kv-bytes", "25%", "--output", "json", "--address",
                server.address).stdout)
            size = {name: server.model.GetModel(
                stubs.model.GetModelRequest(name=name)).model.weight_bytes
                for name in ("alone", "repaired")}
        quality = verified["quality"]
        self.assertEqual(quality["n"], EACH)
        self.assertAlmostEqual(quality["pruned"], evidence["pruned"], places=5)
        self.assertAlmostEqual(quality["kl_mean"], evidence["kl_mean"],
                               delta=1e-5)
        self.assertAlmostEqual(
            quality["kl_mean"],
            self.result["repair"]["test"]["repaired"]["kl_mean"], delta=1e-6)
        # float32 in the place of float16, and a bias that was not there.
        tensors, floats = safetensors(self.path("heads.repair.safetensors"))
        replaced = sum(shape[0] * shape[1] for _, shape in tensors.values()
                       if len(shape) == 2)
        self.assertGreaterEqual(size["repaired"] - size["alone"],
                                4 * len(floats) - 2 * replaced)

    def test_the_same_examples_give_the_same_repair(self):
        self.prune("again.json")
        contents = []
        for name in ("heads", "again"):
            with open(self.path(name + ".repair.safetensors"), "rb") as file:
                contents.append(file.read())
        self.assertEqual(*contents)

    def test_a_server_that_runs_is_asked_for_scores_only(self):
        with served.Server(models=[served.DENSE], calibration="on") as server:
            self.prune("asked.json", "--address", server.address, "--weights",
                       served.MAILROOM)
            names = [model.name for model in server.model.ListModels(
                stubs.model.ListModelsRequest()).models]
        self.assertEqual(names, ["mailroom"])
        with open(self.path("asked.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file), {
                **self.mask(), "repair": {
                    "kind": "ridge_wo",
                    "tensors": "asked.repair.safetensors"}})

    def test_nothing_is_left_behind(self):
        left = [name for name in os.listdir(self.folder)
                if name.startswith("headcount.") or name.endswith(".journal")]
        self.assertEqual(left, [])

    def test_a_model_that_does_not_load_is_named(self):
        done = self.prune("none.json", "--model", self.path("nowhere"), code=1)
        self.assertIn("nowhere", done.stderr)
        done = self.prune("none.json", "--model", "mailroom", code=2)
        self.assertIn("--repair: needs the weights", done.stderr)
        self.assertFalse(os.path.exists(self.path("none.json")))


if __name__ == "__main__":
    unittest.main()
