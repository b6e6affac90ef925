"""What pruned KV heads save, announced and measured."""

import unittest

import served
import stubs

DENSE_BYTES = 3072  # 6 layers x 4 KV heads x 2 x 32 x 2 bytes
BLOCK_TOKENS = served.BLOCK_TOKENS
PROMPT = 300 * BLOCK_TOKENS + 1


class Pruning(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = served.Server()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def setUp(self):
        self.server.until_idle()

    def describe(self, name):
        return self.server.model.GetModel(
            stubs.model.GetModelRequest(name=name)).model

    def measured_bytes(self, name):
        return self.server.kv_bytes_of(name, [5 + i % 2000
                                              for i in range(PROMPT)])

    def test_kv_bytes_of_a_token_fall_with_the_kv_heads(self):
        for model, kv_heads in ((served.DENSE, 24), (served.THREE, 21),
                                (served.HALF, 12)):
            description = self.describe(model["name"])
            self.assertEqual(description.kv_heads, kv_heads)
            self.assertEqual(description.kv_heads_unpruned, 24)
            self.assertEqual(description.kv_bytes_per_token,
                             DENSE_BYTES * kv_heads // 24)
            self.assertEqual(description.kv_bytes_per_token_unpruned,
                             DENSE_BYTES)
            self.assertEqual(description.kv_block_bytes,
                             DENSE_BYTES * kv_heads // 24 * BLOCK_TOKENS)

    def test_the_pool_use_of_the_same_requests_falls_as_announced(self):
        dense = self.measured_bytes("mailroom")
        self.assertEqual(dense, 301 * BLOCK_TOKENS * DENSE_BYTES)
        self.assertEqual(self.measured_bytes("mailroom-three") * 24, dense * 21)
        self.assertEqual(self.measured_bytes("mailroom-half") * 24, dense * 12)

    def test_saved_bytes_are_what_the_same_tokens_would_take_unpruned(self):
        stream = self.server.inference.Generate(
            stubs.inference.GenerateRequest(
                model="mailroom-half", text="a" * 2000, max_tokens=400,
                ignore_eos=True))
        next(stream)
        scrape = self.server.scrape()
        self.assertGreater(
            scrape.sum("headcount_kv_saved_bytes", model="mailroom-half"), 0)
        self.assertEqual(
            scrape.sum("headcount_kv_saved_bytes", model="mailroom"), 0)
        stream.cancel()

    def test_layers_tell_which_heads_are_left(self):
        layers = self.describe("mailroom-three").layers
        for layer, gone in ((0, {0, 1, 2}), (1, set()), (2, {3, 4, 5}),
                            (4, {9, 10, 11})):
            self.assertEqual(set(layers[layer].query_heads),
                             set(range(12)) - gone)
        self.assertEqual([head.index for head in layers[2].kv_heads], [0, 2, 3])
        half = self.describe("mailroom-half").layers
        self.assertEqual((list(half[2].query_heads), list(half[2].kv_heads)),
                         ([], []))

    def test_pruned_weights_are_not_loaded(self):
        dense, three = (self.describe(name)
                        for name in ("mailroom", "mailroom-three"))
        # Three groups: Wq and Wo of three heads each, Wk and Wv of one.
        gone = 3 * (2 * 3 * 32 * 192 + 2 * 32 * 192) * 2
        self.assertEqual(three.weight_bytes_pruned, gone)
        self.assertEqual(dense.weight_bytes_pruned, 0)
        self.assertLess(three.weight_bytes, dense.weight_bytes)


if __name__ == "__main__":
    unittest.main()
