"""A prompt of 32,000 tokens beside short ones, over one KV pool."""

import tempfile
import threading
import unittest

import served
import stubs

CONTEXT = 32_768
PROMPT = 32_000


class LongContext(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="headcount_long_")
        cls.addClassCleanup(folder.cleanup)
        # Mailroom's heads and weights, told to go on: what it says of a text
        # beyond its training does not matter here.
        model = served.mailroom_as(folder.name,
                                   max_position_embeddings=CONTEXT)
        cls.server = served.Server(
            models=[{"name": "mailroom", **model}], kv_pool="112MiB")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def generate(self, tenant, **fields):
        return served.Answer(self.server.inference.Generate(
            stubs.inference.GenerateRequest(
                model="mailroom", ignore_eos=True, logprobs=True, **fields),
            timeout=10 * served.DEADLINE,
            metadata=[("x-headcount-tenant", tenant)]))

    def short(self):
        return self.generate("desk", text="Dear list,", max_tokens=8)

    def long(self):
        return self.generate("archive", max_tokens=5,
                             tokens=stubs.inference.TokenIds(
                                 ids=[5 + i * i % 2039 for i in range(PROMPT)]))

    def test_it_runs_beside_others_and_its_cache_answers_the_same(self):
        solo = self.short()
        done = threading.Event()
        meanwhile = []

        def short():
            while not done.is_set():
                meanwhile.append(self.short().bits)

        def long():
            try:
                answers.append(self.long())
            finally:
                done.set()

        answers = []
        served.Threads([long, short]).join()
        # The prompt comes in chunks, between which another tenant has its turn,
        # and is answered as if it were alone.
        self.assertGreater(len(meanwhile), 10)
        self.assertEqual(set(map(str, meanwhile)), {str(solo.bits)})
        self.assertEqual(answers[0].last.usage.prompt_tokens, PROMPT)
        self.assertEqual(len(answers[0].ids), 5)

        again = self.long()
        self.assertGreater(again.last.usage.cached_tokens,
                           PROMPT - 2 * served.BLOCK_TOKENS)
        self.assertEqual(again.bits, answers[0].bits)
        self.server.until_idle()


if __name__ == "__main__":
    unittest.main()
