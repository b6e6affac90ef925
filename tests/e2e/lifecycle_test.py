"""Models are loaded and unloaded while others are served."""

import os
import signal
import tempfile
import unittest

import grpc

import served
import stubs

STATE = stubs.model.Model
STAGE = stubs.model.LoadModelResponse
LATER = {**served.DENSE, "name": "later", "preload": "off"}
TENSOR_BYTES = 6_689_664  # of mailroom, in its file
LONG = dict(text="Dear list,", max_tokens=1500, ignore_eos=True)


class Lifecycle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="headcount_e2e_")
        cls.addClassCleanup(cls.folder.cleanup)
        broken = served.mailroom_as(cls.folder.name, num_hidden_layers=7)
        cls.server = served.Server(models=[
            served.DENSE, LATER,
            {**LATER, "name": "greedy",
             "kv_cache": {"quota": {"min": "255MiB"}}},
            {"name": "broken", "preload": "off", **broken}])
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def tearDown(self):
        if self.state("later") == STATE.STATE_READY:
            self.unload("later")
        self.server.until_idle()

    def state(self, name):
        return self.server.model.GetModel(
            stubs.model.GetModelRequest(name=name)).model.state

    def health(self, name):
        return self.server.health.Check(stubs.health.HealthCheckRequest(
            service="model/" + name)).status

    def load(self, name="later"):
        return list(self.server.model.LoadModel(
            stubs.model.LoadModelRequest(name=name), timeout=served.DEADLINE))

    def unload(self, name="later", **fields):
        return self.server.model.UnloadModel(
            stubs.model.UnloadModelRequest(name=name, **fields),
            timeout=served.DEADLINE)

    def error(self, call):
        with self.assertRaises(grpc.RpcError) as raised:
            call()
        return raised.exception

    def test_a_model_is_loaded_when_it_is_asked_for(self):
        self.assertEqual(self.state("later"), STATE.STATE_UNLOADED)
        self.assertEqual(self.health("later"),
                         stubs.health.HealthCheckResponse.NOT_SERVING)
        error = self.error(lambda: self.server.generate(
            model="later", text="a", max_tokens=1))
        self.assertEqual(error.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertIn("headcount load later", error.details())
        self.assertEqual(served.reason(error), "MODEL_NOT_LOADED")

        told = self.load()
        reading = [stage for stage in told if stage.total_bytes]
        self.assertGreater(len(reading), 0)
        self.assertTrue(all(stage.stage == STAGE.STAGE_READING
                            for stage in reading))
        read = [stage.read_bytes for stage in reading]
        self.assertEqual(read, sorted(read))
        self.assertEqual(read[-1], TENSOR_BYTES)
        self.assertEqual({stage.total_bytes for stage in reading},
                         {TENSOR_BYTES})
        stages = [stage for stage in told if not stage.total_bytes]
        self.assertEqual([stage.stage for stage in stages],
                         [STAGE.STAGE_WAITING, STAGE.STAGE_READING,
                          STAGE.STAGE_JOINING, STAGE.STAGE_READY])
        self.assertEqual(stages[-1].model.query_heads, 72)
        self.assertEqual(self.state("later"), STATE.STATE_READY)
        self.assertEqual(self.health("later"),
                         stubs.health.HealthCheckResponse.SERVING)
        fields = dict(text="Dear list,", max_tokens=20, logprobs=True)
        self.assertEqual(self.server.generate(model="later", **fields).bits,
                         self.server.generate(model="mailroom", **fields).bits)
        self.assertEqual(len(self.load()), 2, "it is loaded already")
        served.until(
            lambda: ("LoadModel", "later") in {
                (line.get("method"), line.get("model"))
                for line in self.server.log_lines()},
            "a line of the log that names the model")
        metrics = self.server.scrape()
        self.assertEqual(metrics.sum("headcount_model_state", model="later",
                                     state="ready"), 1)
        self.assertEqual(
            metrics.sum("headcount_generated_tokens_total", model="later"), 20)

    def test_others_are_served_meanwhile(self):
        solo = self.server.generate(**LONG)
        stream = self.server.inference.Generate(
            stubs.inference.GenerateRequest(model="mailroom", **LONG))
        next(stream)
        for _ in range(5):
            self.load()
            self.server.generate(model="later", text="Hello", max_tokens=3)
            self.unload()
        ids = [token.token_id for message in stream
               for token in message.tokens]
        self.assertEqual(ids, solo.ids[1:])

    def test_unloading_lets_requests_end_or_ends_them(self):
        self.load()
        stream = self.server.inference.Generate(
            stubs.inference.GenerateRequest(
                model="later", **{**LONG, "max_tokens": 200}))
        next(stream)
        self.assertEqual(self.unload().requests_ended, 0)
        self.assertEqual(sum(len(message.tokens) for message in stream), 199)

        self.load()
        stream = self.server.inference.Generate(
            stubs.inference.GenerateRequest(model="later", **LONG))
        next(stream)
        answer = self.unload(deadline_seconds=0)
        self.assertEqual(answer.requests_ended, 1)
        self.assertGreater(answer.weight_bytes, 1 << 20)
        error = self.error(lambda: list(stream))
        self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertIn("unloaded", error.details())
        self.assertEqual(self.state("later"), STATE.STATE_UNLOADED)
        error = self.error(self.unload)
        self.assertEqual(error.code(), grpc.StatusCode.FAILED_PRECONDITION)

    def test_a_load_that_cannot_be_changes_nothing(self):
        stream = self.server.inference.Generate(
            stubs.inference.GenerateRequest(model="mailroom", **LONG))
        next(stream)
        for name, text in (("greedy", "kv_cache.quota.min"),
                           ("broken", "model.layers.6.")):
            error = self.error(lambda name=name: self.load(name))
            self.assertEqual(error.code(), grpc.StatusCode.FAILED_PRECONDITION)
            self.assertIn(text, error.details())
            self.assertEqual(self.state(name), STATE.STATE_FAILED)
        error = self.error(lambda: self.load("nobody"))
        self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
        error = self.error(lambda: self.load("../mailroom"))
        self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
        self.assertEqual(len(served.Answer(stream).ids), 1499)

    def test_memory_is_flat_over_100_cycles(self):
        resident = []
        for _ in range(100):
            self.load()
            self.server.generate(model="later", text="Hello", max_tokens=2)
            self.unload()
            resident.append(self.server.scrape().sum(
                "process_resident_memory_bytes"))
        # A model has 6.4 MiB of weights, its tokenizer and workspace more.
        early = max(resident[10:30])
        late = max(resident[80:])
        self.assertLess(late - early, 3 << 20,
                        f"from {early / 2**20} MiB to {late / 2**20} MiB")


class Drain(unittest.TestCase):
    def test_drain_ends_the_server_as_sigterm_does(self):
        with served.Server(models=[served.DENSE]) as server:
            stream = server.inference.Generate(
                stubs.inference.GenerateRequest(model="mailroom", **LONG))
            next(stream)
            server.model.Drain(stubs.model.DrainRequest())
            self.assertEqual(len(served.Answer(stream).ids), 1499)
            self.assertEqual(server.process.wait(served.DEADLINE), 0)

    def test_nobody_may_where_the_configuration_says_so(self):
        with served.Server(models=[served.DENSE], admin="off") as server:
            for call, request in (
                    (lambda request: list(server.model.LoadModel(request)),
                     stubs.model.LoadModelRequest(name="mailroom")),
                    (server.model.UnloadModel,
                     stubs.model.UnloadModelRequest(name="mailroom")),
                    (server.model.Drain, stubs.model.DrainRequest())):
                with self.assertRaises(grpc.RpcError) as raised:
                    call(request)
                error = raised.exception
                self.assertEqual(error.code(),
                                 grpc.StatusCode.PERMISSION_DENIED)
                self.assertEqual(served.reason(error), "NOT_ALLOWED")
                self.assertIn("`admin: off`", error.details())
            self.assertEqual(
                len(server.generate(text="a", max_tokens=3,
                                    ignore_eos=True).ids), 3)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(served.DEADLINE), 0)


class ModelsFolder(unittest.TestCase):
    def test_every_model_of_a_folder_is_served(self):
        with tempfile.TemporaryDirectory(prefix="headcount_e2e_") as folder:
            os.symlink(served.MAILROOM, os.path.join(folder, "one"))
            os.mkdir(os.path.join(folder, "empty"))
            os.mkdir(os.path.join(folder, "bad"))
            with open(os.path.join(folder, "bad", "config.json"), "w",
                      encoding="utf-8") as file:
                file.write("{")
            with served.Server(models=[served.THREE],
                               models_dir=folder) as server:
                states = {model.name: model.state for model in
                          server.model.ListModels(
                              stubs.model.ListModelsRequest()).models}
                # A headcount.yaml beside the weights names its model.
                self.assertEqual(states, {
                    "mailroom-three": STATE.STATE_READY,
                    "mailroom": STATE.STATE_READY,
                    "bad": STATE.STATE_FAILED})


if __name__ == "__main__":
    unittest.main()
