"""Variants of a model: masks over one set of weights."""

import os
import subprocess
import unittest

import grpc

import mails
import served
import stubs

STATE = stubs.model.Model
MASK = {"mask_file": os.path.join(served.MAILROOM, "heads_half.json")}
# Stands before its base, and has the mask of served.HALF.
SPAM = {"name": "spam", "source": {"variant_of": "mailroom"}, "heads": MASK}
PLAIN = {"name": "plain", "source": {"variant_of": "mailroom"}}
LATER = {"name": "later", "source": {"variant_of": "mailroom"},
         "preload": "off", "heads": {"pruned": {1: ["0-11"]}},
         "kv_cache": {"dtype": "f32", "quota": {"min": "4MiB"}},
         "limits": {"max_context": 512, "max_concurrent": 2},
         "classify": {"template": "{input}", "labels": ["a", "b", "c"]}}
LOST = {"name": "lost", "source": {"variant_of": "broken"}}


class Variants(unittest.TestCase):
    def setUp(self):
        self.server = served.Server(
            models=[SPAM, served.DENSE, PLAIN, LATER, served.HALF])
        self.server.__enter__()
        self.addCleanup(self.server.__exit__)

    def describe(self, name):
        return self.server.model.GetModel(
            stubs.model.GetModelRequest(name=name)).model

    def load(self, name):
        return list(self.server.model.LoadModel(
            stubs.model.LoadModelRequest(name=name), timeout=served.DEADLINE))

    def unload(self, name):
        return self.server.model.UnloadModel(
            stubs.model.UnloadModelRequest(name=name), timeout=served.DEADLINE)

    def refusal(self, call, *arguments):
        with self.assertRaises(grpc.RpcError) as raised:
            call(*arguments)
        error = raised.exception
        self.assertEqual(error.code(), grpc.StatusCode.FAILED_PRECONDITION)
        return served.reason(error), error.details()

    def classify(self, model, texts):
        return [(result.label, [(label.label, label.probability)
                                for label in result.labels])
                for result in self.server.inference.Classify(
                    stubs.inference.ClassifyRequest(model=model, inputs=texts),
                    timeout=served.DEADLINE).results]

    def cli(self, *arguments):
        return subprocess.run(
            [served.BINARY, *arguments, "--address", self.server.address],
            env=served.environment(), check=True, capture_output=True,
            text=True, timeout=served.DEADLINE).stdout

    def test_answers_are_those_of_a_compact_load_in_any_company(self):
        texts = [mail["body"][:400] for mail in mails.mails()[:24]]
        alone = {}
        for model in ("mailroom", "mailroom-half"):
            alone[model] = [self.server.generate(
                model=model, text=text, max_tokens=12, logprobs=True,
                ignore_eos=True).bits for text in texts]
        self.assertNotEqual(alone["mailroom"], alone["mailroom-half"])
        like = {"spam": "mailroom-half", "mailroom": "mailroom",
                "plain": "mailroom"}
        found = {name: [None] * len(texts) for name in like}

        def ask(name, i):
            found[name][i] = self.server.generate(
                model=name, text=texts[i], max_tokens=12, logprobs=True,
                ignore_eos=True).bits

        served.Threads([lambda name=name, i=i: ask(name, i)
                        for i in range(len(texts)) for name in like]).join()
        for name, compact in like.items():
            self.assertEqual(found[name], alone[compact], name)
        self.assertEqual(self.classify("spam", texts),
                         self.classify("mailroom-half", texts))
        self.assertNotEqual(self.classify("spam", texts),
                            self.classify("mailroom", texts))

    def test_a_variant_has_no_weights_and_says_whose_it_shares(self):
        spam, half, dense = (self.describe(name) for name in
                             ("spam", "mailroom-half", "mailroom"))
        self.assertEqual((spam.variant_of, spam.weight_bytes,
                          spam.weight_bytes_pruned), ("mailroom", 0, 0))
        self.assertEqual((half.variant_of, dense.variant_of), ("", ""))
        self.assertEqual(list(spam.layers), list(half.layers))
        self.assertEqual(spam.kv_bytes_per_token, half.kv_bytes_per_token)
        self.assertEqual(list(spam.labels), list(dense.labels))
        prompt = [5 + i % 2000 for i in range(300 * served.BLOCK_TOKENS + 1)]
        self.assertEqual(2 * self.server.kv_bytes_of("spam", prompt),
                         self.server.kv_bytes_of("mailroom", prompt))
        pool = {model.name: model.variant_of for model in
                self.server.model.GetPool(
                    stubs.model.GetPoolRequest()).pool.models}
        self.assertEqual(pool, {"spam": "mailroom", "plain": "mailroom",
                                "mailroom": "", "mailroom-half": ""})
        self.assertEqual(self.server.scrape().sum(
            "headcount_model_info", model="spam", variant_of="mailroom"), 1)

    def test_commands_say_so_too(self):
        self.assertRegex(self.cli("list"),
                         r"(?m)^later +unloaded .*variant of mailroom$")
        self.assertRegex(self.cli("list"),
                         r"(?m)^spam +ready .* 0 B .*variant of mailroom$")
        self.assertRegex(self.cli("ps"), r"(?m)^spam .*variant of mailroom$")
        shown = self.cli("show", "spam")
        self.assertRegex(shown, r"(?m)^name +spam, variant of mailroom$")
        self.assertRegex(
            shown, r"(?m)^weights +0 B, it shares those of mailroom$")

    def test_a_base_stays_while_it_has_variants(self):
        self.load("later")
        reason, text = self.refusal(self.unload, "mailroom")
        self.assertEqual(reason, "HAS_VARIANTS")
        for name in ("'spam'", "'plain'", "'later'"):
            self.assertIn(name, text)
        self.assertEqual(self.describe("mailroom").state, STATE.STATE_READY)
        for name in ("spam", "plain", "later"):
            self.assertEqual(self.unload(name).weight_bytes, 0)
        self.assertGreater(self.unload("mailroom").weight_bytes, 1 << 20)
        reason, text = self.refusal(self.load, "spam")
        self.assertEqual(reason, "MODEL_NOT_LOADED")
        self.assertIn("headcount load mailroom", text)
        self.assertEqual(self.describe("spam").state, STATE.STATE_UNLOADED)
        self.load("mailroom")
        self.load("spam")
        fields = dict(text="Dear list,", max_tokens=20, logprobs=True)
        self.assertEqual(
            self.server.generate(model="spam", **fields).bits,
            self.server.generate(model="mailroom-half", **fields).bits)

    def test_what_it_says_itself_is_its_own(self):
        self.load("later")
        later = self.describe("later")
        self.assertEqual(list(later.labels), ["a", "b", "c"])
        self.assertEqual((later.max_context, later.max_concurrent), (512, 2))
        # Five layers of four KV heads in float32.
        self.assertEqual(later.kv_bytes_per_token, 5 * 4 * 2 * 32 * 4)
        self.assertEqual(later.precision, self.describe("mailroom").precision)
        floors = {model.name: model.floor_bytes for model in
                  self.server.model.GetPool(
                      stubs.model.GetPoolRequest()).pool.models}
        self.assertEqual((floors["later"], floors["mailroom"]), (4 << 20, 0))


class BrokenBase(unittest.TestCase):
    def test_a_variant_of_a_model_that_does_not_load_says_so(self):
        broken = {"name": "broken", "source": {"path": "/nowhere"}}
        with served.Server(models=[LOST, broken, served.DENSE]) as server:
            lost = server.model.GetModel(
                stubs.model.GetModelRequest(name="lost")).model
            self.assertEqual(lost.state, STATE.STATE_FAILED)
            self.assertEqual(lost.variant_of, "broken")
            self.assertEqual(lost.error,
                             "source.variant_of: 'broken' did not load")


if __name__ == "__main__":
    unittest.main()
