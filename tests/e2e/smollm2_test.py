"""A real model from its GGUF file: what its heads cost, and what pruning them
means. Skipped where scripts/fetch_model.sh has not been."""

import gzip
import json
import os
import unittest

import served
import stubs

FILE = os.path.join(stubs.SOURCE, "models/smollm2-135m",
                    "SmolLM2-135M-Instruct.Q4_1.gguf")
GOLDEN = os.path.join(stubs.SOURCE,
                      "tests/data/golden/smollm2_135m_logits.json.gz")
DENSE_BYTES = 23040  # 30 layers x 3 KV heads x 2 x 64 x 2 bytes
HEADS = (30, 9)
MASKS = ("dense", "groups", "empty_layers")


def read_golden():
    with gzip.open(GOLDEN, "rt", encoding="utf-8") as file:
        return json.load(file)


def gates_of(mask):
    """The mask as gates of the whole model's heads."""
    gates = stubs.inference.HeadGates()
    for layer in range(HEADS[0]):
        pruned = mask.get(str(layer), [])
        gates.layers.add(query_heads=[float(head not in pruned)
                                      for head in range(HEADS[1])])
    return gates


@unittest.skipUnless(os.path.exists(FILE), "no models/smollm2-135m")
class SmolLm2(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.golden = read_golden()
        cls.server = served.Server(models=[
            {"name": mask, "source": {"path": FILE},
             "heads": {"pruned": {int(layer): heads for layer, heads
                                  in cls.golden["masks"][mask].items()}}}
            for mask in MASKS])
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def test_a_group_less_in_ten_layers_is_a_ninth_less_cache(self):
        def announced(name):
            return self.server.model.GetModel(
                stubs.model.GetModelRequest(name=name)).model.kv_bytes_per_token

        self.assertEqual(announced("dense"), DENSE_BYTES)
        self.assertEqual(announced("groups"), DENSE_BYTES * 80 // 90)
        prompt = [100 + i for i in range(20 * served.BLOCK_TOKENS + 1)]
        dense = self.server.kv_bytes_of("dense", prompt)
        self.assertEqual(dense, 21 * served.BLOCK_TOKENS * DENSE_BYTES)
        self.assertEqual(self.server.kv_bytes_of("groups", prompt) * 90,
                         dense * 80)

    def score(self, model, ids, gates=None):
        response = self.server.inference.Score(stubs.inference.ScoreRequest(
            model=model, continuation_tokens=stubs.inference.TokenIds(ids=ids),
            head_gates=gates))
        return [token.logprob for token in response.tokens]

    def test_pruned_heads_are_closed_gates_and_what_transformers_computes(self):
        cases = 0
        for case in self.golden["cases"]:
            if case["mask"] not in MASKS or case["mean_nll"] is None:
                continue
            with self.subTest(case["name"]):
                found = self.score(case["mask"], case["ids"])
                mean_nll = -sum(found[-len(case["ids"]) + 1:]) / (
                    len(case["ids"]) - 1)
                self.assertAlmostEqual(mean_nll, case["mean_nll"], delta=0.06)
                gates = gates_of(self.golden["masks"][case["mask"]])
                self.assertEqual(self.score("dense", case["ids"], gates), found)
                cases += 1
        self.assertEqual(cases, 15)
        print(f"\ngolden: smollm2 over gRPC, {cases} texts")


if __name__ == "__main__":
    unittest.main()
