"""Keys and values in fewer bits: what they take, and that they still answer."""

import unittest

import served
import stubs

# 6 layers x 4 KV heads x K and V of 32 elements; a scale of 2 bytes where there
# are codes.
BYTES = {"f16": 24 * 2 * 64, "bf16": 24 * 2 * 64, "fp8_e4m3": 24 * 2 * 34,
         "int8": 24 * 2 * 34, "int4": 24 * 2 * 18}
MIXED = "mixed"
MIXED_BYTES = 19 * 2 * 34 + 2 * 64 + 4 * 2 * 18

SPAM = ("CONGRATULATIONS! You have been selected to receive a FREE vacation. "
        "Click here now to claim your prize. 100% free, no obligation!!!")
HAM = ("On Tue, Aug 20, Tom wrote:\n> the patch breaks the build on my machine\n"
       "I get the same error with gcc 3.2, will look at it tonight.")


def model(name, **kv_cache):
    return {**served.DENSE, "name": name, "kv_cache": kv_cache}


class KvDtypes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = served.Server(models=[
            *(model(dtype, dtype=dtype) for dtype in BYTES),
            model(MIXED, dtype="int8", heads=[
                {"layer": 0, "kv_heads": [1], "dtype": "f16"},
                {"layer": 3, "kv_heads": ["0-3"], "dtype": "int4"}])])
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def setUp(self):
        self.server.until_idle()

    def test_the_pool_use_of_the_same_request_is_as_announced(self):
        prompt = [5 + i % 2000 for i in range(100 * served.BLOCK_TOKENS + 1)]
        for name, size in {**BYTES, MIXED: MIXED_BYTES}.items():
            with self.subTest(name):
                description = self.server.model.GetModel(
                    stubs.model.GetModelRequest(name=name)).model
                self.assertEqual(description.kv_bytes_per_token, size)
                self.assertEqual(
                    sum(head.bytes_per_token for layer in description.layers
                        for head in layer.kv_heads), size)
                self.assertEqual(self.server.kv_bytes_of(name, prompt),
                                 101 * served.BLOCK_TOKENS * size)

    def test_heads_tell_their_dtype(self):
        layers = self.server.model.GetModel(
            stubs.model.GetModelRequest(name=MIXED)).model.layers
        self.assertEqual([head.dtype for head in layers[0].kv_heads],
                         ["int8", "f16", "int8", "int8"])
        self.assertEqual({head.dtype for head in layers[3].kv_heads}, {"int4"})
        self.assertEqual({head.dtype for head in layers[5].kv_heads}, {"int8"})

    def test_all_of_them_tell_spam_from_ham(self):
        for name in (*BYTES, MIXED):
            with self.subTest(name):
                answer = self.server.inference.Classify(
                    stubs.inference.ClassifyRequest(model=name,
                                                    inputs=[SPAM, HAM]))
                self.assertEqual([result.label for result in answer.results],
                                 ["spam", "ham"])

    def test_prefixes_are_not_shared_with_pages_of_another_dtype(self):
        for name in ("f16", "int8"):
            request = stubs.inference.GenerateRequest(
                model=name, text="Dear list,\n" * 40, max_tokens=8,
                ignore_eos=True)
            first, again = (list(self.server.inference.Generate(request))
                            for _ in range(2))
            self.assertEqual(first[-1].usage.cached_tokens, 0)
            self.assertGreater(again[-1].usage.cached_tokens, 0)
            self.assertEqual(
                [token.token_id for part in first for token in part.tokens],
                [token.token_id for part in again for token in part.tokens])


if __name__ == "__main__":
    unittest.main()
