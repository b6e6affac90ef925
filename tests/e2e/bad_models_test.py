"""Bad model files beside good ones: the good models answer as if they were
alone, and each of the bad ones says what is wrong with it."""

import os
import subprocess
import tempfile
import unittest

import grpc

import malformed
import served
import stubs

FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
SERVING = stubs.health.HealthCheckResponse.SERVING
NOT_SERVING = stubs.health.HealthCheckResponse.NOT_SERVING
STATES = ("loading", "ready", "draining", "failed")


def run(*arguments):
    return subprocess.run(
        [served.BINARY, *arguments], capture_output=True, text=True,
        env=served.environment(), stdin=subprocess.DEVNULL,
        timeout=served.DEADLINE, check=False)


class BadModels(unittest.TestCase):
    """One server with every malformed file, two good models between them."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="headcount_e2e_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.bad = malformed.write_all(cls.folder)
        # Well-formed files of a model that cannot be served as asked.
        cls.bad += [("F15-mask-of-a-7th-layer", served.MAILROOM, "layer 6"),
                    ("nowhere", os.path.join(cls.folder, "nowhere"),
                     "nowhere")]
        tiny = os.path.join(cls.folder, "tiny.gguf")
        with open(tiny, "wb") as file:
            file.write(malformed.Tiny().file())
        models = [{"name": name, "source": {"path": path}}
                  for name, path, _ in cls.bad]
        models[-2]["heads"] = {"pruned": {6: ["0"]}}
        models.insert(len(models) // 3, served.DENSE)
        models.append({"name": "tiny", "source": {"path": tiny}})
        cls.server = served.Server(models=models)
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        # The table has been printed, so that no line is written inside it.
        served.until(lambda: "Try, in another terminal" in cls.server.log(),
                     "the server has said what it serves")
        cls.reasons = {line["model"]: line["reason"]
                       for line in cls.server.log_lines()
                       if line.get("msg") == "model not loaded"}

    def mail(self):
        """All that the good model says, to be compared bit by bit."""
        answer = self.server.generate(text="Dear friend,", max_tokens=8,
                                      ignore_eos=True, logprobs=True)
        label = self.server.inference.Classify(stubs.inference.ClassifyRequest(
            model="mailroom", inputs=["You have won $1,000,000"])).results[0]
        return answer.bits, label.label, label.labels[0].probability

    def get(self, name):
        return self.server.model.GetModel(
            stubs.model.GetModelRequest(name=name)).model

    def refuse(self, name, call):
        """The error of a call that would run a bad model."""
        with self.assertRaises(grpc.RpcError) as raised:
            call()
        error = raised.exception
        self.assertEqual(error.code(), FAILED_PRECONDITION, name)
        rich = stubs.status.Status()
        rich.ParseFromString(
            dict(error.trailing_metadata())["grpc-status-details-bin"])
        reason = stubs.error_details.ErrorInfo()
        model = stubs.error_details.ResourceInfo()
        self.assertTrue(any(detail.Unpack(reason) for detail in rich.details))
        self.assertTrue(any(detail.Unpack(model) for detail in rich.details))
        self.assertEqual(reason.reason, "MODEL_FAILED")
        self.assertEqual(model.resource_name, name)
        return error.details()

    def test_each_bad_model_says_what_is_wrong(self):
        listed = {model.name: model for model in self.server.model.ListModels(
            stubs.model.ListModelsRequest()).models}
        self.assertEqual(list(listed), sorted(listed))
        self.assertEqual(len(listed), len(self.bad) + 2)
        for name, path, words in self.bad:
            with self.subTest(name):
                model = self.get(name)
                self.assertEqual(model, listed[name])
                self.assertEqual(model.state, stubs.model.Model.STATE_FAILED)
                self.assertIn(words, self.reasons[name])
                self.assertIn(path, self.reasons[name])
                if name in malformed.NAME_OTHER_PLACES:
                    self.assertEqual(model.error, "see the server's log")
                    continue
                self.assertIn(words, model.error)
                # Nothing of this machine: the last part of the path at most.
                self.assertNotIn(os.path.dirname(path), model.error)
                self.assertEqual(
                    self.reasons[name].replace(path, os.path.basename(path)),
                    f"model '{name}': {model.error}")

    def test_a_call_to_a_bad_model_disturbs_no_good_one(self):
        before = self.mail()
        for name, _, _ in self.bad:
            with self.subTest(name):
                details = self.refuse(
                    name, lambda name=name: self.server.generate(
                        model=name, text="a", max_tokens=2))
                self.assertIn(f"model '{name}' did not load: ", details)
                self.assertTrue(details.endswith(self.get(name).error))
                self.assertEqual(self.mail(), before)
        self.server.until_idle()

    def test_every_call_that_runs_a_model_is_refused(self):
        name = self.bad[0][0]
        inference, ask = self.server.inference, stubs.inference
        for call, request in (
                (inference.Score, ask.ScoreRequest(
                    model=name, prompt_text="a", continuation_text="b")),
                (inference.Classify, ask.ClassifyRequest(
                    model=name, inputs=["a"])),
                (inference.Tokenize, ask.TokenizeRequest(
                    model=name, text="a")),
                (inference.Detokenize, ask.DetokenizeRequest(
                    model=name, ids=[1]))):
            self.refuse(name, lambda call=call, request=request: call(request))
        served.until(
            lambda: {"Score", "Classify", "Tokenize", "Detokenize"} <= {
                line["method"] for line in self.server.log_lines()
                if line.get("code") == "FailedPrecondition"
                and line["model"] == name}, "the log names call and model")

    def test_an_empty_name_is_no_choice_of_the_good_ones(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.server.generate(model="", text="a", max_tokens=2)
        self.assertEqual(raised.exception.code(),
                         grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn(f"{len(self.bad) + 2} models",
                      raised.exception.details())

    def test_the_file_that_the_bad_ones_are_made_of_is_good(self):
        self.assertEqual(self.get("tiny").state,
                         stubs.model.Model.STATE_READY)
        self.assertEqual(self.get("tiny").chat_template, "")
        answer = self.server.generate(model="tiny", text="abc", max_tokens=8,
                                      ignore_eos=True)
        self.assertEqual(len(answer.ids), 8)
        self.assertEqual(answer.last.usage.prompt_tokens, 3)

    def test_health_tells_them_apart(self):
        def health(service):
            return self.server.health.Check(
                stubs.health.HealthCheckRequest(service=service)).status
        for service in ("", "readiness", "liveness", "model/mailroom",
                        "model/tiny"):
            self.assertEqual(health(service), SERVING, service)
        for name, _, _ in self.bad:
            self.assertEqual(health("model/" + name), NOT_SERVING, name)

    def test_metrics_tell_them_apart(self):
        scrape = self.server.scrape()
        for state in STATES:
            self.assertEqual(
                scrape.by("headcount_model_state", "model", state=state),
                {**{name: state == "failed" for name, _, _ in self.bad},
                 "mailroom": state == "ready", "tiny": state == "ready"})
        self.assertEqual(
            {name for name, labels in scrape.samples
             if ("model", self.bad[0][0]) in labels},
            {"headcount_model_state"})

    def test_the_table_of_serve_says_it_too(self):
        log = self.server.log()
        table = log[log.index("\nnot loaded:\n"):]
        for name, _, _ in self.bad:
            self.assertIn(f"\n  {self.reasons[name]}\n", table)

    def test_the_commands_say_it_too(self):
        where = ("--address", self.server.address)
        listed = run("list", *where)
        self.assertEqual(listed.returncode, 0, listed.stderr)
        rows = {row.split()[0]: row.split()[1:]
                for row in listed.stdout.splitlines()}
        for name, _, words in self.bad[::20]:
            self.assertEqual(rows[name], ["failed"] + ["-"] * 8)
            shown = run("show", name, *where)
            self.assertEqual(shown.returncode, 0, shown.stderr)
            self.assertIn(words, shown.stdout)
            health = run("health", "--service", "model/" + name, *where)
            self.assertEqual(health.returncode, 3, health.stderr)
        self.assertEqual(rows["mailroom"][0], "ready")

    def test_the_same_file_alone_keeps_a_server_from_starting(self):
        for name, path, _ in self.bad:
            with self.subTest(name):
                model = {"name": name, "source": {"path": path}}
                if path == served.MAILROOM:
                    model["heads"] = {"pruned": {6: ["0"]}}
                done = self.start([model])
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertEqual(done.stdout, "")
                self.assertIn(self.reasons[name], done.stderr)
                self.assertLess(len(done.stderr), 1000)

    def start(self, models, command="serve"):
        with tempfile.TemporaryDirectory() as folder:
            return run(command, "--config", served.write_yaml(folder, {
                "listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0",
                "kv_pool": "64MiB", "models": models}))

    def test_of_several_bad_ones_alone_the_first_is_named(self):
        (first, path, _), (second, other, _) = self.bad[:2]
        done = self.start([{"name": first, "source": {"path": path}},
                           {"name": second, "source": {"path": other}}])
        self.assertEqual(done.returncode, 1)
        self.assertIn(self.reasons[first], done.stderr)
        self.assertNotIn(second, done.stderr)

    def test_check_accepts_no_bad_model_beside_a_good_one(self):
        for name, path, _ in self.bad[::20]:
            done = self.start([served.DENSE,
                               {"name": name, "source": {"path": path}}],
                              command="check")
            self.assertEqual(done.returncode, 1, name)
            self.assertIn(path, done.stderr)


if __name__ == "__main__":
    unittest.main()
