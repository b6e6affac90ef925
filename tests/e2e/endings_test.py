"""Cancels and deadlines at random moments: everything comes back, and each
request is counted once."""

import collections
import random
import unittest

import grpc

import mails
import served
import stubs

CANCELS = 200
DEADLINES = 50
PLAIN = 30
AT_ONCE = 20  # streams at a time

MODELS = ("mailroom", "mailroom-half", "mailroom-three")
OUTCOMES = ("stop", "length", "cancelled", "deadline", "rejected", "error")


class Endings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = served.Server()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        cls.bodies = [mail["body"][:3000] for mail in mails.mails()[:50]]

    def setUp(self):
        self.random = random.Random(20021009)
        self.before = self.outcomes(self.server.until_idle())

    def outcomes(self, scrape):
        counts = scrape.by("headcount_requests_total", "outcome")
        return {outcome: counts.get(outcome, 0) for outcome in OUTCOMES}

    def new_outcomes(self):
        after = self.outcomes(self.server.until_counted())
        return {outcome: after[outcome] - self.before[outcome]
                for outcome in OUTCOMES}

    def start(self, index, timeout=None, max_tokens=4000, kind="one"):
        return self.server.inference.Generate(
            stubs.inference.GenerateRequest(
                model=MODELS[index % 3],
                text=self.bodies[index % len(self.bodies)],
                max_tokens=max_tokens, ignore_eos=True),
            timeout=timeout, metadata=(("x-request-id", f"{kind}-{index}"),))

    def run_in_waves(self, jobs):
        self.random.shuffle(jobs)
        for start in range(0, len(jobs), AT_ONCE):
            served.Threads(jobs[start:start + AT_ONCE]).join()

    def test_every_ending_is_counted_once_and_gives_everything_back(self):
        def cancel_after(index, messages):
            stream = self.start(index)
            for _ in range(messages):
                next(stream)
            stream.cancel()
            with self.assertRaises(grpc.RpcError) as raised:
                for _ in stream:
                    pass
            self.assertEqual(raised.exception.code(),
                             grpc.StatusCode.CANCELLED)

        def run_out_of_time(index, seconds):
            with self.assertRaises(grpc.RpcError) as raised:
                for _ in self.start(index, timeout=seconds):
                    pass
            self.assertEqual(raised.exception.code(),
                             grpc.StatusCode.DEADLINE_EXCEEDED)

        def finish(index):
            answer = served.Answer(self.start(index, max_tokens=20))
            self.assertEqual(len(answer.ids), 20)

        jobs = [lambda i=i, n=self.random.randint(1, 60): cancel_after(i, n)
                for i in range(CANCELS)]
        jobs += [lambda i=i, s=self.random.uniform(0.05, 0.5):
                 run_out_of_time(i, s)
                 for i in range(CANCELS, CANCELS + DEADLINES)]
        jobs += [lambda i=i: finish(i)
                 for i in range(CANCELS + DEADLINES,
                                CANCELS + DEADLINES + PLAIN)]
        self.run_in_waves(jobs)

        counted = self.new_outcomes()
        logged = collections.Counter(
            line["request_id"] for line in self.server.log_lines()
            if str(line.get("request_id", "")).startswith("one-"))
        # A call whose time is up before it has travelled never arrives.
        arrived = [f"one-{i}" in logged
                   for i in range(CANCELS + DEADLINES + PLAIN)]
        in_time = arrived[CANCELS:CANCELS + DEADLINES].count(True)
        self.assertGreater(in_time, DEADLINES // 2)
        self.assertEqual(arrived.count(True), CANCELS + in_time + PLAIN)
        self.assertEqual(set(logged.values()), {1})
        self.assertEqual(counted["length"], PLAIN)
        # A client whose time is up hangs up as well. Its call may have travelled
        # for so long that the server takes this for a cancel.
        self.assertGreaterEqual(counted["cancelled"], CANCELS)
        self.assertGreater(counted["deadline"], in_time * 3 // 4)
        self.assertEqual(sum(counted.values()), CANCELS + in_time + PLAIN)

    def test_cancels_before_anything_was_answered_leave_nothing(self):
        for index in range(CANCELS):
            stream = self.start(index, kind="early")
            if index % 2:
                self.server.inference.Tokenize(  # gives it time to arrive
                    stubs.inference.TokenizeRequest(model="mailroom", text="a"))
            stream.cancel()
        counted = self.new_outcomes()
        self.assertLessEqual(counted["cancelled"], CANCELS)
        self.assertEqual(sum(counted.values()), counted["cancelled"])

    def test_a_channel_that_goes_away_cancels_its_streams(self):
        channel = self.server.new_channel()
        stub = stubs.inference_grpc.InferenceServiceStub(channel)
        streams = [stub.Generate(stubs.inference.GenerateRequest(
            model="mailroom", text=body, max_tokens=4000, ignore_eos=True))
            for body in self.bodies[:10]]
        for stream in streams:
            next(stream)
        channel.close()
        self.assertEqual(self.new_outcomes()["cancelled"], len(streams))


if __name__ == "__main__":
    unittest.main()
