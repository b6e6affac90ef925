"""Bad requests: each gets its code and the name of the field, and a good
request right after has the same bits as before."""

import unittest

import grpc

import served
import stubs

CONTEXT = 8192
VOCAB = 2048
MANY = CONTEXT + 10

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND

NAN, INFINITY = float("nan"), float("inf")


def ids(*values):
    return stubs.inference.TokenIds(ids=values)


def sampling(**fields):
    return {"sampling": stubs.inference.SamplingParams(**fields)}


def gates(layers, first=()):
    """Head gates of so many layers; those of the first one."""
    every = [stubs.inference.LayerGates() for _ in range(layers)]
    every[0].query_heads.extend(first)
    return stubs.inference.HeadGates(layers=every)


# Each with what is wrong over a good request, and the field that must be named.
GENERATE = (
    (dict(text=""), "text"),
    (dict(text=None), "prompt"),
    (dict(text=None, tokens=ids()), "tokens.ids"),
    (dict(text="x" * (3 << 20)), "text"),
    (dict(text="7 " * 20000), "text"),
    (dict(text=None, tokens=ids(*[5] * MANY)), "tokens.ids"),
    (dict(text=None, tokens=ids(*[5] * CONTEXT)), "tokens.ids"),
    (dict(text=None, tokens=ids(5, -1)), "tokens.ids[1]"),
    (dict(text=None, tokens=ids(5, 6, VOCAB)), "tokens.ids[2]"),
    (dict(text=None, tokens=ids(2**31 - 1)), "tokens.ids[0]"),
    (sampling(temperature=NAN), "sampling.temperature"),
    (sampling(temperature=INFINITY), "sampling.temperature"),
    (sampling(temperature=-INFINITY), "sampling.temperature"),
    (sampling(temperature=-1), "sampling.temperature"),
    (sampling(temperature=-1e-30), "sampling.temperature"),
    (sampling(temperature=100.1), "sampling.temperature"),
    (sampling(temperature=1e38), "sampling.temperature"),
    (sampling(top_k=-1), "sampling.top_k"),
    (sampling(top_k=VOCAB + 1), "sampling.top_k"),
    (sampling(top_k=2**31 - 1), "sampling.top_k"),
    (sampling(top_p=0), "sampling.top_p"),
    (sampling(top_p=-0.5), "sampling.top_p"),
    (sampling(top_p=1.1), "sampling.top_p"),
    (sampling(top_p=NAN), "sampling.top_p"),
    (sampling(min_p=-0.1), "sampling.min_p"),
    (sampling(min_p=1.1), "sampling.min_p"),
    (sampling(min_p=NAN), "sampling.min_p"),
    (sampling(repetition_penalty=0), "sampling.repetition_penalty"),
    (sampling(repetition_penalty=NAN), "sampling.repetition_penalty"),
    (sampling(presence_penalty=2.1), "sampling.presence_penalty"),
    (sampling(frequency_penalty=-INFINITY), "sampling.frequency_penalty"),
    (sampling(logit_bias={5: 101}), "sampling.logit_bias[5]"),
    (sampling(logit_bias={VOCAB: 1}), f"sampling.logit_bias[{VOCAB}]"),
    (sampling(logit_bias={i: 1 for i in range(301)}), "sampling.logit_bias"),
    (dict(max_tokens=-1), "max_tokens"),
    (dict(max_tokens=0), "max_tokens"),
    (dict(max_tokens=CONTEXT), "max_tokens"),
    (dict(max_tokens=2**31 - 1), "max_tokens"),
    (dict(max_tokens=-2**31), "max_tokens"),
    (dict(min_tokens=-1), "min_tokens"),
    (dict(max_tokens=5, min_tokens=6), "min_tokens"),
    (dict(min_tokens=2**31 - 1), "min_tokens"),
    (dict(stop=["a"] * 9), "stop"),
    (dict(stop=["a", ""]), "stop[1]"),
    (dict(stop=["a" * 65]), "stop[0]"),
    (dict(stop_token_ids=[5] * 65), "stop_token_ids"),
    (dict(stop_token_ids=[-1]), "stop_token_ids[0]"),
    (dict(stop_token_ids=[5, VOCAB]), "stop_token_ids[1]"),
    (dict(stop_token_ids=[2**31 - 1], min_tokens=1), "stop_token_ids[0]"),
    (dict(top_logprobs=-1), "top_logprobs"),
    (dict(top_logprobs=21), "top_logprobs"),
    (dict(choices=["a"] * 257), "choices"),
    (dict(choices=["a", ""]), "choices[1]"),
    (dict(choices=["a", "b", "a"]), "choices[2]"),
    (dict(choices=["a"], stop=["b"]), "stop"),
    (dict(head_gates=gates(5)), "head_gates.layers"),
    (dict(head_gates=gates(6, [1.0])), "head_gates.layers[0].query_heads"),
    (dict(head_gates=gates(6, [1.5] * 12)),
     "head_gates.layers[0].query_heads[0]"),
    (dict(head_gates=gates(6, [NAN] * 12)),
     "head_gates.layers[0].query_heads[0]"),
)
SCORE = (
    (dict(continuation_text=""), "continuation_text"),
    (dict(continuation_text=None), "continuation"),
    (dict(continuation_text=None, continuation_tokens=ids()),
     "continuation_tokens.ids"),
    (dict(continuation_text=None, continuation_tokens=ids(VOCAB)),
     "continuation_tokens.ids[0]"),
    (dict(prompt_text=None, prompt_tokens=ids(-5)), "prompt_tokens.ids[0]"),
    (dict(prompt_text=None, prompt_tokens=ids(*[5] * CONTEXT)),
     "continuation"),
    (dict(prompt_text="x" * (3 << 20)), "prompt_text"),
    (dict(candidates=[dict(text="a")]), "candidates"),
    (dict(continuation_text=None, candidates=[dict(text="a")] * 257),
     "candidates"),
    (dict(continuation_text=None, candidates=[dict(text="a"), dict()]),
     "candidates[1]"),
    (dict(continuation_text=None, prompt_text=None,
          candidates=[dict(text="a")]), "prompt"),
    (dict(head_gates=gates(7)), "head_gates.layers"),
)
CLASSIFY = (
    (dict(inputs=[]), "inputs"),
    (dict(inputs=["a"] * 257), "inputs"),
    (dict(inputs=["a", "x" * (1 << 20)]), "inputs[1]"),
    (dict(inputs=["a", "b", "7 " * 20000]), "inputs[2]"),
)
TOKENIZE = ((dict(text="x" * ((1 << 20) + 1)), "text"),)
DETOKENIZE = (
    (dict(ids=[5, VOCAB]), "ids[1]"),
    (dict(ids=[-1]), "ids[0]"),
    (dict(ids=[5] * ((1 << 16) + 1)), "ids"),
)
HOSTILE_NAMES = ("nobody", "Mailroom", "mailroom ", "../mailroom", "mailroom/",
                 "mailroom\0", "\n", "x" * 100000, "%s%n", "models/mailroom")


class BadRequests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = served.Server(models=[served.DENSE, served.HALF])
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        cls.good = cls.canary()

    @classmethod
    def canary(cls):
        return cls.server.generate(text="Dear friend,", max_tokens=8,
                                   ignore_eos=True, logprobs=True).bits

    def tearDown(self):
        scrape = self.server.until_idle()
        self.assertEqual(
            scrape.sum("headcount_requests_total", outcome="error"), 0)

    def call(self, method, timeout=served.DEADLINE, **fields):
        request = getattr(stubs.inference, f"{method}Request")(
            model=fields.pop("model", "mailroom"), **fields)
        answer = getattr(self.server.inference, method)(
            request, timeout=timeout)
        return list(answer) if method == "Generate" else answer

    def refuse(self, method, code, **fields):
        """The error of a call that must fail; then the canary."""
        with self.assertRaises(grpc.RpcError) as raised:
            self.call(method, **fields)
        self.assertEqual(raised.exception.code(), code,
                         raised.exception.details())
        self.assertEqual(self.canary(), self.good)
        return raised.exception

    def details(self, error):
        """{message name: message} of google.rpc details."""
        rich = stubs.status.Status()
        rich.ParseFromString(dict(error.trailing_metadata())[
            "grpc-status-details-bin"])
        self.assertEqual(rich.code, error.code().value[0])
        found = {}
        for packed in rich.details:
            name = packed.type_url.rpartition(".")[2]
            found[name] = getattr(stubs.error_details, name)()
            self.assertTrue(packed.Unpack(found[name]))
        return found

    def refuse_rows(self, method, good, rows):
        for change, field in rows:
            fields = {name: value for name, value in {**good, **change}.items()
                      if value is not None}
            shown = {name: str(value)[:60] for name, value in change.items()}
            with self.subTest(method=method, **shown):
                error = self.refuse(method, INVALID, **fields)
                details = self.details(error)
                self.assertEqual(
                    [violation.field for violation in
                     details["BadRequest"].field_violations], [field])
                self.assertIn(field, error.details())
                self.assertEqual(details["ErrorInfo"].domain, "headcount.dev")

    def test_generate(self):
        self.refuse_rows("Generate", dict(text="Dear friend,"), GENERATE)

    def test_score(self):
        self.refuse_rows("Score", dict(prompt_text="Dear",
                                       continuation_text=" friend"), SCORE)

    def test_classify(self):
        self.refuse_rows("Classify", dict(inputs=["Dear friend,"]), CLASSIFY)

    def test_tokenize_and_detokenize(self):
        self.refuse_rows("Tokenize", {}, TOKENIZE)
        self.refuse_rows("Detokenize", {}, DETOKENIZE)

    def test_names_of_models_that_are_not_there(self):
        for name in HOSTILE_NAMES:
            with self.subTest(name=name[:30]):
                error = self.refuse("Generate", NOT_FOUND, model=name,
                                    text="a")
                self.assertEqual(
                    self.details(error)["ResourceInfo"].resource_type,
                    "headcount.dev/Model")
                self.assertLess(len(error.details()), 300)
        with self.assertRaises(grpc.RpcError) as raised:
            self.server.model.GetModel(
                stubs.model.GetModelRequest(name="nobody"))
        self.assertEqual(raised.exception.code(), NOT_FOUND)

    def test_a_model_has_to_be_named_where_there_is_a_choice(self):
        error = self.refuse("Generate", INVALID, model="", text="a")
        self.assertIn("model", error.details())

    def test_a_message_over_four_mebibytes_is_refused_by_the_transport(self):
        error = self.refuse("Generate", EXHAUSTED, text="x" * (10 << 20))
        self.assertIn("4194304", error.details())

    def resident_bytes(self):
        return self.server.scrape().sum("process_resident_memory_bytes")

    @unittest.skipIf(served.PATIENCE > 1, "sanitizers hold memory themselves")
    def test_a_compressed_message_is_refused_before_it_grows(self):
        before = self.resident_bytes()
        with self.assertRaises(grpc.RpcError) as raised:
            list(self.server.inference.Generate(
                stubs.inference.GenerateRequest(model="mailroom",
                                                text="x" * (256 << 20)),
                compression=grpc.Compression.Gzip, timeout=served.DEADLINE))
        self.assertEqual(raised.exception.code(),
                         grpc.StatusCode.UNIMPLEMENTED)
        self.assertLess(self.resident_bytes() - before, 32 << 20)
        self.assertEqual(self.canary(), self.good)

    @unittest.skipIf(served.PATIENCE > 1, "sanitizers hold memory themselves")
    def test_a_large_message_costs_no_more_than_the_quota(self):
        before = self.resident_bytes()
        with self.assertRaises(grpc.RpcError):
            self.call("Generate", text="x" * (256 << 20))
        self.assertLess(self.resident_bytes() - before, 96 << 20)
        self.assertEqual(self.canary(), self.good)

    def test_bytes_that_are_no_message_are_refused(self):
        call = self.server.channel.unary_stream(
            "/headcount.v1.InferenceService/Generate",
            request_serializer=lambda data: data,
            response_deserializer=lambda data: data)
        for data in (b"\xff" * 100, b"\x12\xff\xff\xff\xff\x0f",
                     b"\x12\x02\xff\xfe"):
            with self.assertRaises(grpc.RpcError):
                list(call(data, timeout=served.DEADLINE))
            self.assertEqual(self.canary(), self.good)

    def test_methods_that_do_not_exist_are_not_implemented(self):
        call = self.server.channel.unary_unary(
            "/headcount.v1.ModelService/LoadAnything")
        with self.assertRaises(grpc.RpcError) as raised:
            call(b"", timeout=served.DEADLINE)
        self.assertEqual(raised.exception.code(),
                         grpc.StatusCode.UNIMPLEMENTED)

    def test_a_deadline_that_has_all_but_passed(self):
        self.refuse("Generate", grpc.StatusCode.DEADLINE_EXCEEDED,
                    text="Dear friend,", timeout=1e-6)

    def test_the_limits_themselves_are_allowed(self):
        for fields in (
                dict(stop=["~" * 64] * 8, stop_token_ids=[VOCAB - 1] * 64),
                sampling(temperature=100, top_k=VOCAB, top_p=1, min_p=1),
                sampling(temperature=1e-30, top_p=1e-30),
                dict(top_logprobs=20),
                dict(min_tokens=3)):
            self.call("Generate", **{"text": "Dear", "max_tokens": 3, **fields})
        answer = self.call("Generate", text=None, max_tokens=1,
                           tokens=ids(*[5] * (CONTEXT - 1)))
        self.assertEqual(answer[-1].usage.prompt_tokens, CONTEXT - 1)
        self.assertEqual(
            len(self.call("Classify", inputs=["a"] * 256).results), 256)


class Overload(unittest.TestCase):
    def long_stream(self, server):
        return server.inference.Generate(stubs.inference.GenerateRequest(
            text="Dear friend,", max_tokens=8000, ignore_eos=True))

    def test_a_full_queue_says_when_to_come_back(self):
        one_at_a_time = {**served.DENSE, "limits": {"max_concurrent": 1}}
        with served.Server(models=[one_at_a_time],
                           queue={"requests": 4}) as server:
            streams = [self.long_stream(server)]
            next(streams[0])  # it runs, so that no other can
            streams += [self.long_stream(server) for _ in range(29)]
            served.until(lambda: sum(stream.done() for stream in streams) == 25,
                         "all but the one that runs and four that wait")
            refused = [stream for stream in streams if stream.done()]
            for stream in refused:
                self.assertEqual(stream.code(), EXHAUSTED)
                rich = stubs.status.Status()
                rich.ParseFromString(dict(stream.trailing_metadata())[
                    "grpc-status-details-bin"])
                retry = stubs.error_details.RetryInfo()
                self.assertTrue(any(detail.Unpack(retry)
                                    for detail in rich.details))
                self.assertGreater(retry.retry_delay.ToMilliseconds(), 0)
            for stream in streams:
                stream.cancel()
            server.until_idle()

    def test_what_fits_the_context_but_not_the_pool_is_refused_at_once(self):
        with served.Server(models=[served.DENSE], kv_pool="8MiB") as server:
            with self.assertRaises(grpc.RpcError) as raised:
                server.generate(tokens=ids(*[5] * 8000), max_tokens=1)
            self.assertEqual(raised.exception.code(), INVALID)
            self.assertEqual(len(server.generate(
                text="Dear", max_tokens=4, ignore_eos=True).ids), 4)


if __name__ == "__main__":
    unittest.main()
