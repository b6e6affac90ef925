"""SIGTERM: not serving, no new work, running streams end, exit 0."""

import signal
import unittest

import grpc

import served
import stubs

SERVING = stubs.health.HealthCheckResponse.SERVING
NOT_SERVING = stubs.health.HealthCheckResponse.NOT_SERVING


class Drain(unittest.TestCase):
    def stream(self, server, max_tokens):
        stream = server.inference.Generate(stubs.inference.GenerateRequest(
            model="mailroom", text="Dear friend,", max_tokens=max_tokens,
            ignore_eos=True))
        next(stream)
        return stream

    def status(self, server, service):
        return server.health.Check(
            stubs.health.HealthCheckRequest(service=service)).status

    def test_a_running_stream_ends_well_and_new_calls_are_refused(self):
        with served.Server(models=[served.DENSE],
                           drain={"grace": "0s", "deadline": "60s"}) as server:
            watch = server.health.Watch(
                stubs.health.HealthCheckRequest(service="readiness"))
            self.assertEqual(next(watch).status, SERVING)
            stream = self.stream(server, max_tokens=2000)

            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(next(watch).status, NOT_SERVING)
            self.assertEqual(self.status(server, "liveness"), SERVING)
            error = served.until(lambda: self.refused(server), "a refusal")
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)

            answer = served.Answer(stream)
            self.assertEqual(answer.last.finish_reason,
                             stubs.inference.FINISH_REASON_LENGTH)
            self.assertEqual(len(answer.ids), 2000 - 1)  # one came before
            self.assertEqual(server.process.wait(served.DEADLINE), 0)

    def refused(self, server):
        try:
            server.generate(text="a", max_tokens=1)
        except grpc.RpcError as error:
            return error
        return None

    def test_what_is_not_done_at_the_deadline_ends_with_unavailable(self):
        with served.Server(models=[served.DENSE], drain={
                "grace": "0s", "deadline": "100ms"}) as server:
            stream = self.stream(server, max_tokens=8000)
            server.process.send_signal(signal.SIGTERM)
            with self.assertRaises(grpc.RpcError) as raised:
                for _ in stream:
                    pass
            self.assertEqual(raised.exception.code(),
                             grpc.StatusCode.UNAVAILABLE)
            self.assertEqual(server.process.wait(served.DEADLINE), 0)

    def test_requests_are_taken_through_the_grace(self):
        with served.Server(models=[served.DENSE], drain={
                "grace": "5s", "deadline": "10s"}) as server:
            watch = server.health.Watch(
                stubs.health.HealthCheckRequest(service="readiness"))
            self.assertEqual(next(watch).status, SERVING)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(next(watch).status, NOT_SERVING)
            self.assertEqual(
                len(server.generate(text="a", max_tokens=3,
                                    ignore_eos=True).ids), 3)
            watch.cancel()
            self.assertEqual(server.process.wait(served.DEADLINE), 0)

    def test_a_second_signal_ends_it_now(self):
        with served.Server(models=[served.DENSE], drain={
                "grace": "60s", "deadline": "60s"}) as server:
            watch = server.health.Watch(
                stubs.health.HealthCheckRequest(service="readiness"))
            self.assertEqual(next(watch).status, SERVING)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(next(watch).status, NOT_SERVING)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(served.DEADLINE),
                             128 + signal.SIGTERM)


if __name__ == "__main__":
    unittest.main()
