"""A model with sliding windows gives memory back while it runs."""

import tempfile
import unittest

import served
import stubs

WINDOW = 256
STEP = 256  # tokens of a prompt that one step computes
TOKEN_BYTES = 3072  # 6 layers x 4 KV heads x 2 x 32 x 2 bytes
PROMPT = [5 + i % 2000 for i in range(300 * served.BLOCK_TOKENS + 1)]


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

    def test_a_long_prompt_holds_a_window_and_a_step_at_most(self):
        block = served.BLOCK_TOKENS * TOKEN_BYTES
        self.assertEqual(self.server.most_kv_bytes_of("mailroom", PROMPT),
                         301 * block)
        blocks = self.server.most_kv_bytes_of("windowed", PROMPT) // block
        self.assertGreaterEqual(blocks, WINDOW // served.BLOCK_TOKENS)
        self.assertLessEqual(
            blocks, (WINDOW + STEP) // served.BLOCK_TOKENS + 2)


if __name__ == "__main__":
    unittest.main()
