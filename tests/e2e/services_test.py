"""What a client that knows nothing finds: services, health, models."""

import unittest

import grpc

import served
import stubs

OURS = {"headcount.v1.InferenceService", "headcount.v1.ModelService",
        "headcount.v1.CalibrationService", "grpc.health.v1.Health"}
SERVING = stubs.health.HealthCheckResponse.SERVING


class Services(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = served.Server()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def reflect(self, **request):
        stub = stubs.reflection_grpc.ServerReflectionStub(self.server.channel)
        (answer,) = stub.ServerReflectionInfo(
            iter([stubs.reflection.ServerReflectionRequest(**request)]),
            timeout=10)
        return answer

    def test_the_server_says_where_it_computes(self):
        served.until(lambda: "Try, in another terminal" in self.server.log(),
                     "the server has said what it serves")
        (line,) = [line for line in self.server.log_lines()
                   if line.get("msg") == "serving"]
        self.assertRegex(line["device"], r"^(cpu|cuda) \(.+\)$")
        self.assertIn(f"\ndevice   {line['device']}\n", self.server.log())

    def test_reflection_lists_our_services(self):
        listed = self.reflect(list_services="").list_services_response.service
        self.assertLessEqual(OURS, {service.name for service in listed})

    def test_reflection_describes_each_of_them(self):
        for name in OURS:
            answer = self.reflect(file_containing_symbol=name)
            self.assertTrue(
                answer.file_descriptor_response.file_descriptor_proto, name)

    def test_health_knows_the_server_and_its_services(self):
        for service in ("", "liveness", "readiness",
                        "headcount.v1.InferenceService",
                        "headcount.v1.ModelService"):
            answer = self.server.health.Check(
                stubs.health.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, SERVING, service)

    def test_health_of_an_unknown_service_is_not_found(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.server.health.Check(
                stubs.health.HealthCheckRequest(service="nobody"))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_watch_of_an_unknown_service_says_so_and_stays_open(self):
        watch = self.server.health.Watch(
            stubs.health.HealthCheckRequest(service="nobody"))
        self.assertEqual(next(watch).status,
                         stubs.health.HealthCheckResponse.SERVICE_UNKNOWN)
        self.assertTrue(watch.is_active())
        watch.cancel()

    def test_models_are_listed_by_name(self):
        listed = self.server.model.ListModels(
            stubs.model.ListModelsRequest()).models
        self.assertEqual([model.name for model in listed],
                         ["mailroom", "mailroom-half", "mailroom-three"])
        for model in listed:
            self.assertEqual(model.state, stubs.model.Model.STATE_READY)
            self.assertEqual(list(model.labels), ["spam", "ham"])
            self.assertEqual(len(model.layers), 0)

    def test_the_request_id_comes_back(self):
        stream = self.server.inference.Generate(
            stubs.inference.GenerateRequest(model="mailroom", text="a",
                                            max_tokens=2),
            metadata=(("x-request-id", "abc-123"),))
        self.assertEqual(dict(stream.initial_metadata())["x-request-id"],
                         "abc-123")
        served.Answer(stream)

    def test_text_goes_to_ids_and_back(self):
        text = "Grüße, 你好 🙂 <|eos|> \u0000 end"
        ids = self.server.inference.Tokenize(stubs.inference.TokenizeRequest(
            model="mailroom", text=text)).ids
        self.assertNotIn(1, ids, "a special token in a text is text")
        back = self.server.inference.Detokenize(
            stubs.inference.DetokenizeRequest(model="mailroom", ids=ids)).text
        self.assertEqual(back, text)

    def test_generate_and_score_agree(self):
        answer = self.server.generate(text="Dear friend,", max_tokens=12,
                                      ignore_eos=True, logprobs=True)
        scores = self.server.inference.Score(stubs.inference.ScoreRequest(
            model="mailroom", prompt_text="Dear friend,",
            continuation_tokens=stubs.inference.TokenIds(ids=answer.ids)))
        self.assertEqual([token.token_id for token in scores.tokens],
                         answer.ids)
        for scored, generated in zip(scores.tokens, answer.tokens):
            self.assertEqual(scored.logprob, generated.logprob)
        self.assertAlmostEqual(scores.total_logprob, sum(
            token.logprob for token in answer.tokens), places=4)


if __name__ == "__main__":
    unittest.main()
