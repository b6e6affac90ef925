"""`headcount export`: what it writes is served, and answers as the mask does."""

import json
import os
import subprocess
import tempfile
import unittest

import mails
import served
import stubs

MASK = served.HALF["heads"]["mask_file"]
PROMPTS = ("Dear list, the meeting is moved to", "You have won", "Re: patch")
# Of what a prompt goes on with; enough that a wrong row would show.
TOKENS = 24


def run(*words, **options):
    return subprocess.run(
        [served.BINARY, "export", *words], env=served.environment(),
        capture_output=True, text=True, timeout=served.DEADLINE, check=False,
        **options)


class Export(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="headcount_export_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = os.path.join(folder.name, "half")
        cls.gguf = os.path.join(folder.name, "half.gguf")
        cls.results = [run(served.MAILROOM, "--mask", MASK, "--out", out,
                           "--output", "json")
                       for out in (cls.folder, cls.gguf)]

    def served(self):
        """The mask, and both files that were made of it."""
        classify = {"template": "<|bos|>{input}<|label|>",
                    "labels": ["spam", "ham"]}
        return served.Server(models=(
            served.HALF,
            # With the labels of its headcount.yaml.
            {"name": "folder", "source": {"path": self.folder}},
            {"name": "gguf", "source": {"path": self.gguf},
             "classify": classify}))

    def test_says_what_it_saved(self):
        for result, architecture in zip(self.results, ("llama", "deci")):
            self.assertEqual(result.returncode, 0, result.stderr)
            report = json.loads(result.stdout)
            self.assertEqual(report["architecture"], architecture)
            self.assertEqual(report["kv_heads"], {"before": 24, "after": 12})
            self.assertEqual(report["kv_bytes_per_token"],
                             {"before": 3072, "after": 1536})
            # Of each group: three heads of Wq and Wo, Wk and Wv.
            gone = 12 * 8 * 32 * 192 * 2
            weights = report["weight_bytes"]
            # Vectors are f32 in GGUF.
            self.assertAlmostEqual(weights["before"] - weights["after"], gone,
                                   delta=13 * 192 * 2)

    def test_what_is_exported_answers_to_the_bit_as_the_mask_does(self):
        with self.served() as server:
            for prompt in PROMPTS:
                bits = {name: server.generate(
                    model=name, text=prompt, max_tokens=TOKENS,
                    ignore_eos=True).bits
                        for name in ("mailroom-half", "folder", "gguf")}
                self.assertEqual(bits["folder"], bits["mailroom-half"])
                self.assertEqual(bits["gguf"], bits["mailroom-half"])

    def test_what_is_exported_classifies_mail_as_the_mask_does(self):
        texts = [mail["body"] for mail in mails.mails()[:8]]
        with self.served() as server:
            answers = [
                server.inference.Classify(stubs.inference.ClassifyRequest(
                    model=name, inputs=texts))
                for name in ("mailroom-half", "folder", "gguf")]
            self.assertEqual(answers[1].results, answers[0].results)
            self.assertEqual(answers[2].results, answers[0].results)

    def test_what_is_exported_costs_what_the_mask_does(self):
        with self.served() as server:
            costs = {(model.kv_bytes_per_token, model.kv_heads)
                     for model in server.model.ListModels(
                         stubs.model.ListModelsRequest()).models}
        self.assertEqual(costs, {(1536, 12)})

    def test_kv_dtypes_go_with_their_heads(self):
        """They are named by head, and heads get other numbers."""
        with tempfile.TemporaryDirectory() as folder:
            model = served.mailroom_as(folder)["source"]["path"]
            with open(os.path.join(model, "headcount.yaml"), "w",
                      encoding="utf-8") as file:
                # Layer 3 keeps heads 0 and 1, layer 4 1 and 2, layer 5 1 to 3.
                file.write("kv_cache:\n"
                           "  dtype: int8  # of most\n"
                           "  heads:\n"
                           "    - {layer: 3, kv_heads: [2-3], dtype: f32}\n"
                           "    - {layer: 4, kv_heads: [0-1], dtype: f16}\n"
                           "    - {layer: 5, kv_heads: [1, 3], dtype: int4}\n"
                           "heads: {mask_file: heads_half.json}\n")
            out = os.path.join(folder, "out")
            result = run(model, "--out", out)
            self.assertEqual(result.returncode, 0, result.stderr)
            with served.Server(models=(
                    {"name": "mask", "source": {"path": model}},
                    {"name": "out", "source": {"path": out}})) as server:
                dtypes = [
                    [[head.dtype for head in layer.kv_heads] for layer in
                     server.model.GetModel(stubs.model.GetModelRequest(
                         name=name)).model.layers]
                    for name in ("mask", "out")]
                bits = [server.generate(
                    model=name, text=PROMPTS[0], max_tokens=TOKENS,
                    ignore_eos=True).bits for name in ("mask", "out")]
        self.assertEqual(dtypes[1], dtypes[0])
        self.assertEqual(dtypes[0][3:], [["int8"] * 2, ["f16", "int8"],
                                         ["int4", "int8", "int4"]])
        self.assertEqual(bits[1], bits[0])

    def test_what_is_there_is_left_alone(self):
        before = os.stat(self.gguf).st_mtime_ns
        for out in (self.folder, self.gguf):
            result = run(served.MAILROOM, "--mask", MASK, "--out", out)
            self.assertEqual(result.returncode, 1)
            self.assertIn("is there already; --force", result.stderr)
        self.assertEqual(os.stat(self.gguf).st_mtime_ns, before)
        result = run(served.MAILROOM, "--mask", MASK, "--out", self.gguf,
                     "--force")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertGreater(os.stat(self.gguf).st_mtime_ns, before)

    def refusal(self, layers, out):
        with open(MASK, encoding="utf-8") as file:
            mask = json.load(file)
        mask["layers"] = layers
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "heads.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(mask, file)
            target = os.path.join(folder, out)
            result = run(served.MAILROOM, "--mask", path, "--out", target)
            self.assertEqual(result.returncode, 1)
            self.assertEqual(result.stdout, "")
            self.assertEqual(os.listdir(folder), ["heads.json"])
        return result.stderr

    def test_a_mask_that_the_model_cannot_have_is_refused(self):
        self.assertIn("layers[0].drop_q",
                      self.refusal([{"i": 0, "drop_q": [12]}], "out"))
        self.assertIn("layers[0].i",
                      self.refusal([{"i": 6, "drop_q": [0]}], "out.gguf"))

    def test_a_mask_that_gguf_cannot_say_is_refused_with_its_layer(self):
        said = self.refusal([{"i": 4, "drop_q": [1]}], "out.gguf")
        self.assertIn("layer 4:", said)
        self.assertIn("--format safetensors can", said)


if __name__ == "__main__":
    unittest.main()
