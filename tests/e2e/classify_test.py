"""The mail model through Classify: as good as its card says, and the same in
any company."""

import unittest

import mails
import served
import stubs

CARD_ACCURACY = 97.43  # per cent, of models/mailroom/README.md
TOGETHER = 64


class Classify(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mails = mails.mails()
        cls.server = served.Server()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def classify(self, texts, model="mailroom"):
        answer = self.server.inference.Classify(
            stubs.inference.ClassifyRequest(model=model, inputs=texts),
            timeout=300)
        self.assertEqual(len(answer.results), len(texts))
        return answer.results

    def accuracy(self, model):
        right = 0
        for start in range(0, len(self.mails), TOGETHER):
            some = self.mails[start:start + TOGETHER]
            results = self.classify([mail["body"] for mail in some], model)
            right += sum(result.label == mail["label"]
                         for result, mail in zip(results, some))
        return 100.0 * right / len(self.mails)

    def test_accuracy_is_that_of_the_card(self):
        self.assertEqual(len(self.mails), 701)
        self.assertAlmostEqual(self.accuracy("mailroom"), CARD_ACCURACY,
                               delta=0.3)

    def test_half_of_the_kv_groups_are_enough(self):
        self.assertAlmostEqual(self.accuracy("mailroom-half"), CARD_ACCURACY,
                               delta=0.3)

    def test_scores_are_the_same_bits_alone_and_in_company(self):
        bodies = [mail["body"] for mail in self.mails[:TOGETHER]]
        for body, together in zip(bodies, self.classify(bodies)):
            (alone,) = self.classify([body])
            self.assertEqual(alone, together)

    def test_probabilities_sum_to_one_and_lead_with_the_label(self):
        for result in self.classify(["Buy now!", "Hi, see you at the meeting"]):
            self.assertEqual({label.label for label in result.labels},
                             {"spam", "ham"})
            self.assertEqual(result.label, result.labels[0].label)
            self.assertGreaterEqual(result.labels[0].probability, 0.5)
            self.assertAlmostEqual(
                sum(label.probability for label in result.labels), 1.0,
                places=6)


if __name__ == "__main__":
    unittest.main()
