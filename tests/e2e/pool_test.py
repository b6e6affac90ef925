"""One KV pool under pressure: what fits ends, what never can is refused, and
the pool's bytes add up whenever anybody looks."""

import os
import random
import threading
import unittest

import grpc

import served
import stubs

REQUESTS = int(os.environ.get("E2E_POOL_REQUESTS", "1500"))
SCRAPES = int(os.environ.get("E2E_POOL_SCRAPES", "1000"))
POOL = 64 << 20
TOKEN_BYTES = 3072  # 6 layers x 4 KV heads x 2 x 32 x 2 bytes
# What may come after half of the requests: 16 calls in flight, no more.
RESIDENT_SLACK = 8 << 20
STATES = ("used", "cached", "free", "reserved")


def ids(count, start=0):
    return stubs.inference.TokenIds(
        ids=[5 + (start + i * 7) % 2000 for i in range(count)])


class PoolTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = served.Server(
            models=[served.DENSE, served.HALF], kv_pool=f"{POOL}B")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def tearDown(self):
        self.server.until_idle()

    def resident_bytes(self):
        return self.server.scrape().sum("process_resident_memory_bytes")

    def assert_sums(self, scrape):
        total = sum(scrape.sum("headcount_kv_pool_bytes", state=state)
                    for state in STATES)
        self.assertEqual(total, scrape.sum("headcount_kv_pool_capacity_bytes"))
        self.assertEqual(total, POOL)
        self.assertEqual(
            scrape.sum("headcount_kv_bytes"),
            scrape.sum("headcount_kv_pool_bytes", state="used"))

    def test_used_cached_free_and_reserved_are_the_pool_on_every_scrape(self):
        done = threading.Event()

        def load(seed):
            draw = random.Random(seed)
            while not done.is_set():
                self.server.generate(
                    model=draw.choice(["mailroom", "mailroom-half"]),
                    tokens=ids(draw.randrange(1, 400), draw.randrange(50)),
                    max_tokens=draw.randrange(1, 40), ignore_eos=True)

        def scrape():
            try:
                for _ in range(SCRAPES):
                    self.assert_sums(self.server.scrape())
            finally:
                done.set()

        served.Threads([scrape] + [lambda seed=seed: load(seed)
                                   for seed in range(4)]).join()

    def test_ps_and_metrics_agree_at_rest(self):
        self.server.generate(tokens=ids(200), max_tokens=5)
        scrape = self.server.until_idle()
        pool = self.server.model.GetPool(stubs.model.GetPoolRequest()).pool
        for state in STATES:
            self.assertEqual(getattr(pool, state + "_bytes"), scrape.sum(
                "headcount_kv_pool_bytes", state=state))
        self.assertEqual(pool.fragmented_bytes, scrape.sum(
            "headcount_kv_pool_fragmented_bytes"))
        self.assertEqual(pool.used_bytes, 0)
        self.assertGreater(pool.cached_bytes, 0)
        self.assertEqual([model.name for model in pool.models],
                         ["mailroom", "mailroom-half"])
        for model in pool.models:
            self.assertEqual(model.used_bytes, 0)
            self.assertEqual(model.lent_bytes, scrape.sum(
                "headcount_kv_lent_bytes", model=model.name))
        self.assertEqual(pool.cached_bytes,
                         sum(model.cached_bytes for model in pool.models))

    def test_a_prefix_is_found_by_its_own_tenant_only(self):
        def cached(tenant, **fields):
            call = self.server.inference.Generate(
                stubs.inference.GenerateRequest(
                    model="mailroom", tokens=ids(321, 1234), max_tokens=1,
                    **fields),
                metadata=[("x-headcount-tenant", tenant)] if tenant else None)
            return served.Answer(call).last.usage.cached_tokens

        self.assertEqual(cached("a"), 0)
        self.assertEqual(cached("a"), 320)
        self.assertEqual(cached("b"), 0)
        self.assertEqual(cached(""), 0)
        self.assertEqual(cached("a", cache_salt="x"), 0)
        self.assertEqual(cached("a", cache_salt="x", priority=7), 320)
        gates = stubs.inference.HeadGates(
            layers=[stubs.inference.LayerGates()] * 6)
        self.assertEqual(cached("a", head_gates=gates), 0)
        for tenant, fields, name in (
                ("not a tenant", {}, "x-headcount-tenant"),
                ("a", {"priority": 101}, "priority"),
                ("a", {"cache_salt": "x" * 65}, "cache_salt")):
            with self.assertRaises(grpc.RpcError) as raised:
                cached(tenant, **fields)
            self.assertEqual(raised.exception.code(),
                             grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn(name, raised.exception.details())

    def test_whatever_ends_however_nothing_is_left(self):
        before = self.server.scrape()
        lock = threading.Lock()
        left = REQUESTS
        answered = []
        resident = []  # bytes, when half of them and when all have ended

        def one(draw, kind):
            stream = self.server.inference.Generate(
                stubs.inference.GenerateRequest(
                    model=draw.choice(["mailroom", "mailroom-half"]),
                    tokens=ids(draw.randrange(1, 300), draw.randrange(9)),
                    max_tokens=draw.randrange(1, 30), ignore_eos=True,
                    priority=draw.randrange(-2, 3)),
                timeout=0.001 * draw.randrange(1, 60) if kind < 0.1 else None,
                metadata=[("x-headcount-tenant", draw.choice("abc"))])
            if kind > 0.9:  # a slow reader: others come first
                one(draw, 0.5)
            read = 0
            try:
                for _ in stream:
                    read += 1
                    if 0.1 <= kind < 0.4 and read > draw.randrange(4):
                        stream.cancel()
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        def client(seed):
            nonlocal left
            draw = random.Random(seed)
            while True:
                with lock:
                    if left == 0:
                        return
                    left -= 1
                code = one(draw, draw.random())
                with lock:
                    answered.append(code)
                    if len(answered) == REQUESTS // 2:
                        resident.append(self.resident_bytes())

        served.Threads([lambda seed=seed: client(seed)
                        for seed in range(16)]).join()
        after = self.server.until_idle()
        resident.append(self.resident_bytes())
        self.assertLess(resident[1], resident[0] + RESIDENT_SLACK, resident)
        self.assert_sums(after)
        self.assertEqual(len(answered), REQUESTS)
        self.assertLessEqual(set(answered), {
            grpc.StatusCode.OK, grpc.StatusCode.CANCELLED,
            grpc.StatusCode.DEADLINE_EXCEEDED})
        self.assertGreater(answered.count(grpc.StatusCode.OK), REQUESTS / 3)
        ended = (after.sum("headcount_requests_total")
                 - before.sum("headcount_requests_total"))
        # A call may be over before it has become a request; a slow reader makes
        # two.
        self.assertLessEqual(ended, 1.2 * REQUESTS)
        self.assertGreater(ended, 0.8 * REQUESTS)


class Pressure(unittest.TestCase):
    """A pool of three and a half long prompts."""

    PROMPT = 1500

    def test_long_prompts_an_impossible_one_and_fifty_short_ones(self):
        pool = int(3.5 * self.PROMPT * TOKEN_BYTES)
        with served.Server(models=[served.DENSE],
                           kv_pool=f"{pool}B") as server:
            answers = [None] * 54

            def ask(index, prompt, new):
                answers[index] = server.generate(
                    tokens=ids(prompt, 31 * index), max_tokens=new,
                    ignore_eos=True)

            calls = [lambda index=index: ask(index, self.PROMPT, 200)
                     for index in range(4)]
            calls += [lambda index=index: ask(index, 50, 20)
                      for index in range(4, 54)]

            def impossible():
                with self.assertRaises(grpc.RpcError) as raised:
                    server.generate(tokens=ids(100), max_tokens=7000,
                                    timeout=10)
                self.assertEqual(raised.exception.code(),
                                 grpc.StatusCode.INVALID_ARGUMENT)
                self.assertRegex(raised.exception.details(),
                                 r"need 444 KV blocks, .* has \d+ available")

            calls.insert(4, impossible)
            served.Threads(calls).join()
            self.assertEqual([len(answer.ids) for answer in answers],
                             [200] * 4 + [20] * 50)
            scrape = server.until_idle()
            self.assertLessEqual(scrape.sum("headcount_preemptions_total"), 12)


if __name__ == "__main__":
    unittest.main()
