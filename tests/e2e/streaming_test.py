"""Heads that keep the first and the last tokens only: what they hold."""

import json
import os
import subprocess
import tempfile
import unittest

import served
import stubs

SINK = 32
RECENT = 256
STEP = 256  # tokens of a prompt that one step computes
HEAD_BYTES = 2 * 32 * 2  # of a token in a KV head
PROMPT = [5 + i % 2000 for i in range(300 * served.BLOCK_TOKENS + 1)]
# Layer 0 keeps all of it, and so does KV head 0 of layers 1 to 5.
STREAMING = [{"layer": layer, "kv_heads": ["1-3"],
              "streaming": {"sink": SINK, "recent": RECENT}}
             for layer in range(1, 6)]
FULL_HEADS = 4 + 5
STREAMING_HEADS = 5 * 3


def mask_file(folder):
    """The same as STREAMING, as the file of a mask."""
    path = os.path.join(folder, "streaming.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({
            "format": "heads/1",
            "base": {"arch": "llama", "layers": 6, "q_heads": 12,
                     "kv_heads": 4, "head_dim": 32},
            "layers": [{"i": layer, "stream": [
                {"kv": head, "sink": SINK, "recent": RECENT}
                for head in range(1, 4)]} for layer in range(1, 6)]}, file)
    return path


class Streaming(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="headcount_e2e_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        wide = {"layer": 1, "kv_heads": ["0-3"],
                "streaming": {"sink": 16, "recent": 6000}}
        cls.server = served.Server(models=[
            served.DENSE,
            {**served.DENSE, "name": "streaming",
             "kv_cache": {"heads": STREAMING}},
            {**served.DENSE, "name": "by-file",
             "heads": {"mask_file": mask_file(folder.name)}},
            {"name": "variant", "source": {"variant_of": "mailroom"},
             "kv_cache": {"heads": STREAMING}},
            {**served.DENSE, "name": "wide", "kv_cache": {"heads": [wide]}}])
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def setUp(self):
        self.server.until_idle()

    def kept(self, name):
        """(window, sink) of each KV head, by layer."""
        answer = self.server.model.GetModel(
            stubs.model.GetModelRequest(name=name))
        return [[(head.window, head.sink) for head in layer.kv_heads]
                for layer in answer.model.layers]

    def test_heads_say_what_they_keep(self):
        own = [(0, 0)] + [(RECENT, SINK)] * 3
        expected = [[(0, 0)] * 4] + [own] * 5
        for name in ("streaming", "by-file", "variant"):
            with self.subTest(name):
                self.assertEqual(self.kept(name), expected)

    def generate(self, name, prompt):
        return self.server.inference.Generate(
            stubs.inference.GenerateRequest(
                model=name, max_tokens=8, ignore_eos=True,
                tokens=stubs.inference.TokenIds(ids=prompt)))

    def test_a_long_prompt_holds_less(self):
        block = served.BLOCK_TOKENS * HEAD_BYTES
        full = 301 * FULL_HEADS * block
        least = (SINK + RECENT) // served.BLOCK_TOKENS
        for name in ("streaming", "variant"):
            with self.subTest(name):
                most = self.server.most_kv_bytes_of(name, PROMPT)
                streaming = (most - full) / (STREAMING_HEADS * block)
                self.assertGreaterEqual(streaming, least)
                self.assertLessEqual(
                    streaming, least + STEP // served.BLOCK_TOKENS + 2)

    def test_all_three_ways_to_say_it_answer_alike(self):
        answers = [served.Answer(self.generate(name, PROMPT)).ids
                   for name in ("streaming", "by-file", "variant")]
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])

    def test_export_says_that_it_cannot_carry_it(self):
        out = os.path.join(self.folder, "exported")
        done = subprocess.run(
            [served.BINARY, "export", served.MAILROOM, "--mask",
             mask_file(self.folder), "--out", out],
            capture_output=True, text=True, check=False,
            env=served.environment())
        self.assertEqual(done.returncode, 1)
        self.assertIn("stream: which tokens a head keeps", done.stderr)
        self.assertFalse(os.path.exists(out))

    def test_a_window_over_all_tokens_changes_no_answer(self):
        prompt = PROMPT[:1000]
        self.assertEqual(served.Answer(self.generate("wide", prompt)).ids,
                         served.Answer(self.generate("mailroom", prompt)).ids)


if __name__ == "__main__":
    unittest.main()
