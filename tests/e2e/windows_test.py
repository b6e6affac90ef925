"""A model with sliding windows gives memory back while it runs."""

import tempfile
import unittest

import served
import stubs

WINDOW = 256
STEP = 256  # tokens of a prompt that one step computes
TOKEN_BYTES = 3072  # 6 layers x 4 KV heads x 2 x 32 x 2 bytes
PROMPT = 300 * served.BLOCK_TOKENS + 1


class Windows(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="headcount_e2e_")
        cls.addClassCleanup(folder.cleanup)
        windowed = served.mailroom_as(
            folder.name, model_type="mistral", sliding_window=WINDOW,
            architectures=["MistralForCausalLM"])
        cls.server = served.Server(
            models=[served.DENSE, {"name": "windowed", **windowed}])
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def windows(self, name):
        answer = self.server.model.GetModel(
            stubs.model.GetModelRequest(name=name))
        return {head.window for layer in answer.model.layers
                for head in layer.kv_heads}

    def test_show_names_the_window(self):
        self.assertEqual(self.windows("windowed"), {WINDOW})
        self.assertEqual(self.windows("mailroom"), {0})

    def most_bytes(self, name):
        """The most KV bytes that one long request held."""
        stream = self.server.inference.Generate(
            stubs.inference.GenerateRequest(
                model=name, max_tokens=8, ignore_eos=True,
                tokens=stubs.inference.TokenIds(
                    ids=[5 + i % 2000 for i in range(PROMPT)])))
        most = 0

        def is_over():
            nonlocal most
            used = self.server.scrape().sum("headcount_kv_bytes", model=name)
            most = max(most, used)
            return most and not used

        served.until(is_over, "the request holds blocks, then none")
        self.assertEqual(len(served.Answer(stream).ids), 8)
        return most

    def test_a_long_prompt_holds_a_window_and_a_step_at_most(self):
        block = served.BLOCK_TOKENS * TOKEN_BYTES
        self.assertEqual(self.most_bytes("mailroom"), 301 * block)
        blocks = self.most_bytes("windowed") // block
        self.assertGreaterEqual(blocks, WINDOW // served.BLOCK_TOKENS)
        self.assertLessEqual(
            blocks, (WINDOW + STEP) // served.BLOCK_TOKENS + 2)


if __name__ == "__main__":
    unittest.main()
