"""CalibrationService: gates compared with what Classify, Score and pruned models
say, which share none of its arithmetic."""

import json
import math
import os
import struct
import unittest

import grpc

import mails
import served
import stubs

C, I = stubs.calibration, stubs.inference
LAYERS, HEADS, VOCAB = 6, 12, 2048

# One KV group of four pruned in one layer.
PRUNED = {"name": "pruned", "source": {"path": served.MAILROOM},
          "heads": {"pruned": {2: ["3-5"]}}}
VARIANT = {"name": "variant", "source": {"variant_of": "exact"},
           "heads": {"pruned": {2: ["3-5"]}}}
EXACT = {"name": "exact", "source": {"path": served.MAILROOM},
         "precision": "exact", "kv_cache": {"dtype": "f32"}}
EXACT_PRUNED = {**EXACT, "name": "exact-pruned", "heads": PRUNED["heads"]}


def gates(off=(), value=0.0):
    """All 1 but those (layer, head) of `off`."""
    layers = [[1.0] * HEADS for _ in range(LAYERS)]
    for layer, head in off:
        layers[layer][head] = value
    return I.HeadGates(layers=[I.LayerGates(query_heads=heads)
                               for heads in layers])


ALL = gates()
GROUP = gates([(2, 3), (2, 4), (2, 5)])
HALF = gates([(0, 1), (3, 7), (5, 11)], 0.5)


def texts(count):
    return [mail["body"][:300] for mail in mails.mails()[:count]]


def ids(values):
    return I.TokenIds(ids=values)


class Weights:
    """Matrices of mailroom, read straight from its file (float16)."""

    def __init__(self):
        path = os.path.join(served.MAILROOM, "model.safetensors")
        with open(path, "rb") as file:
            size, = struct.unpack("<Q", file.read(8))
            self._header = json.loads(file.read(size))
            self._data = file.read()

    def rows(self, name):
        entry = self._header[name]
        if entry["dtype"] != "F16":
            raise AssertionError(entry)
        begin, end = entry["data_offsets"]
        rows, cols = entry["shape"]
        flat = struct.unpack(f"<{rows * cols}e", self._data[begin:end])
        return [flat[i * cols:(i + 1) * cols] for i in range(rows)]


def norm(vector):
    return math.sqrt(sum(x * x for x in vector))


def divergence(p, q):
    """KL of two lists of natural logarithms of probabilities."""
    return sum(math.exp(a) * (a - b) for a, b in zip(p, q))


def normalised(logprobs):
    total = math.log(sum(math.exp(logprob) for logprob in logprobs))
    return [logprob - total for logprob in logprobs]


class Calibration(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = served.Server(
            models=[served.DENSE, PRUNED, EXACT, EXACT_PRUNED, VARIANT],
            calibration="on")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def score_gates(self, examples, settings, model="mailroom"):
        answers = list(self.server.calibration.ScoreGates(
            C.ScoreGatesRequest(model=model, examples=examples,
                                gates=settings), timeout=served.DEADLINE))
        self.assertEqual([answer.example for answer in answers],
                         list(range(len(examples))))
        for answer in answers:
            self.assertEqual(len(answer.scores), len(settings))
            self.assertEqual(answer.dense.kl, 0)
        return answers

    def labels(self, text, setting=None, model="mailroom"):
        """Log-probabilities of the labels, by name."""
        result, = self.server.inference.Classify(
            I.ClassifyRequest(model=model, inputs=[text], head_gates=setting),
            timeout=served.DEADLINE).results
        names = sorted(label.label for label in result.labels)
        logprobs = {label.label: label.logprob for label in result.labels}
        return dict(zip(names, normalised([logprobs[n] for n in names])))

    def prompt(self, text, count=24):
        tokens = self.server.inference.Tokenize(I.TokenizeRequest(
            model="mailroom", text=text)).ids
        return list(tokens[:count]), list(tokens[count:count + 5])

    def distribution(self, prompt, setting, model="mailroom"):
        """Of the token after the prompt, over the whole vocabulary."""
        logprobs = []
        for first in range(0, VOCAB, 256):
            answer = self.server.inference.Score(I.ScoreRequest(
                model=model, prompt_tokens=ids(prompt), head_gates=setting,
                candidates=[I.ScoreCandidate(tokens=ids([token]))
                            for token in range(first, first + 256)]),
                timeout=served.DEADLINE)
            logprobs += [c.total_logprob for c in answer.candidates]
        return logprobs

    def test_gates_of_one_change_no_bit(self):
        prompt, target = self.prompt(texts(1)[0])
        examples = [C.CalibrationExample(classify_text=text, label="spam")
                    for text in texts(6)]
        examples.append(C.CalibrationExample(prompt_tokens=ids(prompt),
                                             target_tokens=ids(target)))
        no_layer_named = I.HeadGates(layers=[I.LayerGates()] * LAYERS)
        for answer in self.score_gates(examples, [ALL, no_layer_named]):
            for score in answer.scores:
                self.assertEqual(score, answer.dense)

    def test_labels_are_those_of_classify(self):
        settings = [GROUP, HALF, ALL]
        examples = [C.CalibrationExample(classify_text=text, label="ham")
                    for text in texts(8)]
        answers = self.score_gates(examples, settings)
        for text, answer in zip(texts(8), answers):
            self.assertEqual(answer.places, 1)
            dense = self.labels(text)
            self.assertAlmostEqual(answer.dense.expected_logprob,
                                   dense["ham"], delta=1e-6)
            self.assertEqual(answer.dense.label, max(dense, key=dense.get))
            for setting, score in zip(settings, answer.scores):
                gated = self.labels(text, setting)
                expected = divergence(dense.values(), gated.values())
                self.assertAlmostEqual(score.kl, expected, delta=1e-6)
                self.assertAlmostEqual(score.expected_logprob, gated["ham"],
                                       delta=1e-6)
                self.assertEqual(score.label, max(gated, key=gated.get))
        self.assertGreater(max(a.scores[0].kl for a in answers), 1e-5)

    def test_targets_are_compared_over_the_whole_vocabulary(self):
        prompt, target = self.prompt(texts(3)[2])
        answer, = self.score_gates(
            [C.CalibrationExample(prompt_tokens=ids(prompt),
                                  target_tokens=ids(target))], [HALF, GROUP])
        self.assertEqual(answer.places, len(target))
        for setting, score in zip([HALF, GROUP], answer.scores):
            kl = [divergence(self.distribution(prompt + target[:i], None),
                             self.distribution(prompt + target[:i], setting))
                  for i in range(len(target))]
            self.assertGreater(score.kl, 1e-5)
            self.assertAlmostEqual(score.kl, sum(kl) / len(kl),
                                   delta=1e-5 + 1e-3 * score.kl)

    def test_a_gate_of_nought_is_a_head_that_is_not_there(self):
        prompt, target = self.prompt(texts(2)[1])
        example = C.CalibrationExample(prompt_tokens=ids(prompt),
                                       target_tokens=ids(target))
        for dense, pruned, delta in (("exact", "exact-pruned", 1e-4),
                                     ("mailroom", "pruned", 2e-2)):
            answer, = self.score_gates([example], [GROUP], dense)
            told = self.server.inference.Score(I.ScoreRequest(
                model=pruned, prompt_tokens=ids(prompt),
                continuation_tokens=ids(target)), timeout=served.DEADLINE)
            self.assertAlmostEqual(answer.scores[0].expected_logprob,
                                   told.total_logprob, delta=delta)
            undisturbed = self.server.inference.Score(I.ScoreRequest(
                model=dense, prompt_tokens=ids(prompt),
                continuation_tokens=ids(target)), timeout=served.DEADLINE)
            self.assertAlmostEqual(answer.dense.expected_logprob,
                                   undisturbed.total_logprob, delta=1e-6)

    def test_a_variant_is_scored_with_its_own_heads(self):
        examples = [C.CalibrationExample(classify_text=text, label="spam")
                    for text in texts(2)]
        settings = [gates([(2, 3), (2, 4), (2, 5), (4, 0)])]
        whole = self.score_gates(examples, settings, "exact-pruned")
        shared = self.score_gates(examples, settings, "variant")
        for a, b in zip(whole, shared):
            self.assertAlmostEqual(a.scores[0].kl, b.scores[0].kl, delta=1e-5)

    def test_many_settings_on_many_examples(self):
        settings = [gates([(layer, head)]) for layer in range(LAYERS)
                    for head in range(HEADS)]
        examples = [C.CalibrationExample(classify_text=text[:80])
                    for text in texts(12)]
        answers = self.score_gates(examples, settings)
        alone = self.score_gates(examples[5:6], settings[40:41])
        self.assertEqual(answers[5].scores[40], alone[0].scores[0])
        for answer in answers:
            for score in answer.scores:
                self.assertGreaterEqual(score.kl, 0)
                self.assertEqual(score.expected_logprob, 0)
        self.server.until_idle()

    def statistics(self, examples, model="mailroom", **fields):
        return list(self.server.calibration.CollectHeadStatistics(
            C.CollectHeadStatisticsRequest(model=model, examples=examples,
                                           **fields),
            timeout=served.DEADLINE))

    def test_statistics_of_one_token_follow_from_the_weights(self):
        token, dim = 345, 32
        layers = self.statistics(
            [C.CalibrationExample(prompt_tokens=ids([token]))], "exact",
            gram=True)
        self.assertEqual([layer.layer for layer in layers],
                         list(range(LAYERS)))
        first = layers[0]
        self.assertEqual(first.tokens, 1)
        self.assertEqual(list(first.query_heads), list(range(HEADS)))
        weights = Weights()
        x = weights.rows("model.embed_tokens.weight")[token]
        out = weights.rows("model.layers.0.self_attn.o_proj.weight")
        for head in range(HEADS):
            begin = head * dim
            o = first.mean[begin:begin + dim]
            self.assertGreater(norm(o), 0)
            added = [sum(w * value for w, value
                         in zip(row[begin:begin + dim], o)) for row in out]
            self.assertAlmostEqual(first.output_norm[head],
                                   norm(added) / norm(x), delta=1e-5)
        for layer in layers:
            width = len(layer.mean)
            self.assertEqual(width, HEADS * dim)
            self.assertEqual(len(layer.gram), width * width)
            for i in range(0, width, 37):
                for j in range(0, width, 41):
                    self.assertAlmostEqual(
                        layer.gram[i * width + j],
                        layer.mean[i] * layer.mean[j], delta=1e-5)

    def test_statistics_of_texts_add_up(self):
        prompt, target = self.prompt(texts(1)[0])
        examples = [
            C.CalibrationExample(prompt_tokens=ids(prompt),
                                 target_tokens=ids(target)),
            C.CalibrationExample(classify_text=texts(2)[1], label="spam")]
        both = self.statistics(examples, "pruned", gram=True, skip_tokens=2)
        alone = [self.statistics([example], "pruned", gram=True, skip_tokens=2)
                 for example in examples]
        self.assertEqual(alone[0][0].tokens, len(prompt) + len(target) - 2)
        self.assertEqual(list(both[2].query_heads),
                         [0, 1, 2, 6, 7, 8, 9, 10, 11])
        for layer, one, two in zip(both, *alone):
            self.assertEqual(layer.tokens, one.tokens + two.tokens)
            scale = max(layer.gram)
            for i in range(0, len(layer.gram), 97):
                self.assertAlmostEqual(layer.gram[i], one.gram[i] + two.gram[i],
                                       delta=1e-5 * scale)
            for i, mean in enumerate(layer.mean):
                self.assertAlmostEqual(
                    mean * layer.tokens,
                    one.mean[i] * one.tokens + two.mean[i] * two.tokens,
                    delta=1e-3)
        plain = self.statistics(examples, "pruned")
        self.assertEqual(len(plain[0].gram), 0)
        self.assertEqual(plain[0].tokens, both[0].tokens + 4)

    def test_statistics_of_answers_are_those_of_their_tokens(self):
        prompt, target = self.prompt(texts(1)[0])
        example = C.CalibrationExample(prompt_tokens=ids(prompt),
                                       target_tokens=ids(target))
        answers = self.statistics([example], answers_only=True)
        # What is put out at the last token of the target answers nothing.
        same = self.statistics([C.CalibrationExample(
            prompt_tokens=ids(prompt + target[:-1]))],
            skip_tokens=len(prompt) - 1)
        self.assertEqual(answers, same)
        self.assertEqual(answers[0].tokens, len(target))
        text, label = (self.statistics(
            [C.CalibrationExample(classify_text=texts(1)[0], label=label)],
            answers_only=True) for label in (None, "ham"))
        self.assertEqual(text, label)
        self.assertEqual(text[0].tokens, 1)

    def test_statistics_of_the_same_texts_have_the_same_bits(self):
        """Texts shared steps as they happened to come, and sums had an order
        of their own each time."""
        examples = [C.CalibrationExample(classify_text=t) for t in texts(3)]
        first, *others = (self.statistics(examples, gram=True)
                          for _ in range(16))
        self.assertTrue(all(other == first for other in others))

    def test_a_loud_head_is_one_whose_gate_matters(self):
        """Heads that add little change little, on the whole."""
        examples = [C.CalibrationExample(classify_text=text)
                    for text in texts(16)]
        norms = [score for layer in self.statistics(examples)
                 for score in layer.output_norm]
        settings = [gates([(layer, head)]) for layer in range(LAYERS)
                    for head in range(HEADS)]
        answers = self.score_gates(examples, settings)
        kl = [sum(answer.scores[i].kl for answer in answers)
              for i in range(len(settings))]
        order = sorted(range(len(norms)), key=norms.__getitem__)
        third = len(order) // 3
        self.assertLess(sum(kl[i] for i in order[:third]),
                        sum(kl[i] for i in order[-third:]))

    def refusal(self, code=grpc.StatusCode.INVALID_ARGUMENT, method=None,
                **fields):
        request = {"model": "mailroom",
                   "examples": [C.CalibrationExample(classify_text="a")],
                   "gates": [ALL], **fields}
        with self.assertRaises(grpc.RpcError) as raised:
            list(self.server.calibration.ScoreGates(
                C.ScoreGatesRequest(**request), timeout=served.DEADLINE))
        self.assertEqual(raised.exception.code(), code)
        return raised.exception.details()

    def test_errors_name_the_field(self):
        example = C.CalibrationExample
        good = example(classify_text="a")
        few = I.HeadGates(layers=[I.LayerGates()] * 5)
        short = I.HeadGates(layers=[I.LayerGates()] * 5
                            + [I.LayerGates(query_heads=[1] * 11)])
        for fields, named in (
                (dict(examples=[]), "examples: "),
                (dict(examples=[good, example()]), "examples[1].input: "),
                (dict(examples=[good] * 4097), "examples: "),
                (dict(examples=[example(classify_text="a", label="eggs")]),
                 "examples[0].label: "),
                (dict(examples=[example(classify_text="a", target_text="b")]),
                 "examples[0].expected: "),
                (dict(examples=[example(prompt_text="a")]),
                 "examples[0].expected: "),
                (dict(examples=[example(prompt_text="a", label="spam")]),
                 "examples[0].label: "),
                (dict(examples=[example(prompt_text="a", target_text="")]),
                 "examples[0].target_text: "),
                (dict(examples=[example(prompt_tokens=ids([VOCAB]),
                                        target_text="b")]),
                 "examples[0].prompt_tokens.ids[0]: "),
                (dict(examples=[example(prompt_text="a",
                                        target_tokens=ids([5] * 8192))]),
                 "examples[0]: "),
                (dict(gates=[ALL, few]), "gates[1].layers: "),
                (dict(gates=[short]), "gates[0].layers[5].query_heads: "),
                (dict(gates=[ALL, ALL, gates([(1, 4)], 1.5)]),
                 "gates[2].layers[1].query_heads[4]: "),
                (dict(gates=[ALL], model="pruned"),
                 "gates[0].layers[2].query_heads[3]: "),
                (dict(gates=[few] * 1025), "gates: ")):
            with self.subTest(named):
                details = self.refusal(**fields)
                self.assertTrue(details.startswith(named), details)

    def test_a_deadline_and_a_cancel_leave_nothing_behind(self):
        settings = [gates([(layer, head)]) for layer in range(LAYERS)
                    for head in range(HEADS)] * 10
        request = C.ScoreGatesRequest(
            model="mailroom", gates=settings,
            examples=[C.CalibrationExample(classify_text=text)
                      for text in texts(20)] * 20)
        with self.assertRaises(grpc.RpcError) as raised:
            list(self.server.calibration.ScoreGates(request, timeout=1))
        self.assertEqual(raised.exception.code(),
                         grpc.StatusCode.DEADLINE_EXCEEDED)
        self.server.until_idle()
        call = self.server.calibration.ScoreGates(request)
        next(iter(call))
        call.cancel()
        self.server.until_idle()
        self.score_gates([C.CalibrationExample(classify_text="a")], [ALL])


class Off(unittest.TestCase):
    def test_without_the_flag_it_says_so(self):
        with served.Server(models=[served.DENSE]) as server:
            with self.assertRaises(grpc.RpcError) as raised:
                list(server.calibration.ScoreGates(C.ScoreGatesRequest()))
            self.assertEqual(raised.exception.code(),
                             grpc.StatusCode.UNIMPLEMENTED)
            self.assertIn("--calibration", raised.exception.details())


if __name__ == "__main__":
    unittest.main()
