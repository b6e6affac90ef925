"""Sixteen streams at once: each is the answer that it is alone."""

import unittest

import mails
import served
import stubs

STREAMS = 16


def requests(**sampling):
    """One for each stream: prompts of all lengths, three models."""
    bodies = [mail["body"] for mail in mails.mails()[:STREAMS]]
    models = (served.DENSE, served.HALF, served.THREE)
    return [dict(model=models[index % 3]["name"], text=body[:4000],
                 max_tokens=40 + 5 * index, ignore_eos=True, logprobs=True,
                 sampling=stubs.inference.SamplingParams(
                     **{name: value + index if name == "seed" else value
                        for name, value in sampling.items()}))
            for index, body in enumerate(bodies)]


class Concurrency(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = served.Server()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def together(self, wanted):
        answers = [None] * len(wanted)

        def ask(index):
            answers[index] = self.server.generate(**wanted[index])

        served.Threads([lambda index=index: ask(index)
                        for index in range(len(wanted))]).join()
        return answers

    def expect_company_changes_nothing(self, wanted):
        alone = [self.server.generate(**request) for request in wanted]
        for request, answer in zip(wanted, alone):
            self.assertEqual(len(answer.ids), request["max_tokens"])
        for answer, lonely in zip(self.together(wanted), alone):
            self.assertEqual(answer.bits, lonely.bits)

    def test_greedy_streams_equal_their_solo_runs(self):
        self.expect_company_changes_nothing(requests())

    def test_seeded_streams_equal_their_solo_runs(self):
        self.expect_company_changes_nothing(
            requests(temperature=0.9, top_p=0.95, top_k=200, seed=7))

    def test_seeds_make_a_difference(self):
        one, other = (self.server.generate(
            text="Dear ", max_tokens=30, ignore_eos=True,
            sampling=stubs.inference.SamplingParams(temperature=1.5, seed=seed))
            for seed in (1, 2))
        self.assertNotEqual(one.ids, other.ids)

    def test_streams_really_ran_together(self):
        before = self.server.scrape()
        self.together(requests())
        after = self.server.scrape()

        steps, sequences = (after.sum(name) - before.sum(name) for name in (
            "headcount_step_sequences_count", "headcount_step_sequences_sum"))
        self.assertGreater(sequences, 1.5 * steps)


if __name__ == "__main__":
    unittest.main()
