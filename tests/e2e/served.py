"""The real server as a child process, and the client's end of it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

import grpc
import yaml

import stubs

BINARY = os.environ.get(
    "E2E_BINARY", os.path.join(stubs.SOURCE, "build/dev/cli/headcount"))
MAILROOM = os.path.join(stubs.SOURCE, "models/mailroom")

DENSE = {"name": "mailroom", "source": {"path": MAILROOM}}
# Half of the KV groups pruned: 12 of 24.
HALF = {"name": "mailroom-half", "source": {"path": MAILROOM},
        "heads": {"mask_file": os.path.join(MAILROOM, "heads_half.json")}}
# One KV group of four pruned in three of six layers: 3 of 24.
THREE = {"name": "mailroom-three", "source": {"path": MAILROOM},
         "heads": {"pruned": {0: ["0-2"], 2: ["3-5"], 4: ["9-11"]}}}

BLOCK_TOKENS = 16

# Over 1 where the server is built with a sanitizer.
PATIENCE = int(os.environ.get("E2E_PATIENCE", "1"))
DEADLINE = 60 * PATIENCE  # seconds, for what takes one


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment():
    """Ours, without flags in disguise."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith("HEADCOUNT_")}


def mailroom_as(folder, **changes):
    """A copy of models/mailroom with another config.json: a model entry."""
    copy = os.path.join(folder, "model")
    os.mkdir(copy)
    for name in os.listdir(MAILROOM):
        if name not in ("config.json", "headcount.yaml"):
            os.symlink(os.path.join(MAILROOM, name), os.path.join(copy, name))
    with open(os.path.join(MAILROOM, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    with open(os.path.join(copy, "config.json"), "w", encoding="utf-8") as file:
        json.dump({**config, **changes}, file)
    return {"source": {"path": copy}}


class _PlainDumper(yaml.SafeDumper):
    """Writes the same value twice rather than an anchor, which the server's
    files may not have."""

    def ignore_aliases(self, data):
        return True


def write_yaml(folder, config):
    path = os.path.join(folder, "server.yaml")
    with open(path, "w", encoding="utf-8") as file:
        yaml.dump(config, file, Dumper=_PlainDumper)
    return path


def reason(error):
    """ErrorInfo.reason of an RpcError."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            status = stubs.status.Status.FromString(value)
            for detail in status.details:
                info = stubs.error_details.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return None


def until(condition, what):
    """The first true value of `condition()`."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
    raise AssertionError(f"not within {DEADLINE} s: {what}")


class Server:
    """`headcount serve` on free ports; a context manager.

    with Server(models=[DENSE]) as server:
        server.inference.Tokenize(...)
    """

    def __init__(self, models=(DENSE, HALF, THREE), **config):
        self._folder = tempfile.TemporaryDirectory(prefix="headcount_e2e_")
        self.address = f"127.0.0.1:{free_port()}"
        self._metrics = f"http://127.0.0.1:{free_port()}/metrics"
        self.config = {
            "listen": self.address,
            "metrics_listen": self._metrics[len("http://"):-len("/metrics")],
            "kv_pool": "256MiB",
            "log_format": "json",
            "drain": {"grace": "0s", "deadline": "10s"},
            "models": list(models),
            **config}
        self._log_path = os.path.join(self._folder.name, "log")

    def __enter__(self):
        path = write_yaml(self._folder.name, self.config)
        with open(self._log_path, "wb") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--config", path], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, env=environment())
        self.channel = self.new_channel()
        self.inference = stubs.inference_grpc.InferenceServiceStub(self.channel)
        self.model = stubs.model_grpc.ModelServiceStub(self.channel)
        self.calibration = stubs.calibration_grpc.CalibrationServiceStub(
            self.channel)
        self.health = stubs.health_grpc.HealthStub(self.channel)
        try:
            until(self._is_up, "the server is up")
        except Exception:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._folder.cleanup()

    def new_channel(self):
        return grpc.insecure_channel(self.address, options=[
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1)])

    def _is_up(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server has ended: {self.log()}")
        try:
            answer = self.health.Check(stubs.health.HealthCheckRequest(),
                                       timeout=1, wait_for_ready=True)
        except grpc.RpcError:
            return False
        return answer.status == stubs.health.HealthCheckResponse.SERVING

    def log(self):
        with open(self._log_path, encoding="utf-8") as file:
            return file.read()

    def log_lines(self):
        """The lines of the log that are JSON, one for each ended request."""
        lines = []
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        return [line for line in lines if isinstance(line, dict)]

    def scrape_text(self):
        # Without the proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._metrics, timeout=DEADLINE) as answer:
            return answer.read().decode()

    def scrape(self):
        return Metrics(self.scrape_text())

    def kv_bytes_of(self, model, prompt):
        """KV bytes in use, as measured, while one request runs; the prompt is
        one token over whole blocks, so that 15 more need no new one."""
        stream = self.inference.Generate(stubs.inference.GenerateRequest(
            model=model, tokens=stubs.inference.TokenIds(ids=prompt),
            max_tokens=BLOCK_TOKENS - 1, ignore_eos=True))
        seen = set()

        def has_come_and_gone():
            scrape = self.scrape()
            used = scrape.sum("headcount_kv_bytes", model=model)
            if used != scrape.sum("headcount_kv_pool_bytes", state="used"):
                raise AssertionError("the pool holds what no model does")
            seen.update({used} - {0})
            return seen and not used

        until(has_come_and_gone, "the request holds blocks, then none")
        if len(Answer(stream).ids) != BLOCK_TOKENS - 1 or len(seen) != 1:
            raise AssertionError(f"a prompt has all its blocks at once: {seen}")
        return seen.pop()

    def most_kv_bytes_of(self, model, prompt):
        """The most KV bytes that one request held, as measured, of a model
        that gives blocks back while it runs."""
        stream = self.inference.Generate(stubs.inference.GenerateRequest(
            model=model, tokens=stubs.inference.TokenIds(ids=prompt),
            max_tokens=8, ignore_eos=True))
        most = 0

        def is_over():
            nonlocal most
            used = self.scrape().sum("headcount_kv_bytes", model=model)
            most = max(most, used)
            return most and not used

        until(is_over, "the request holds blocks, then none")
        if len(Answer(stream).ids) != 8:
            raise AssertionError("the answer has 8 tokens")
        return most

    def until_idle(self):
        """Nothing runs or waits, and no block is held."""
        def idle():
            now = self.scrape()
            return (now.sum("headcount_scheduler_requests_running") == 0
                    and now.sum("headcount_scheduler_requests_waiting") == 0
                    and now.sum("headcount_kv_pool_bytes", state="used") == 0
                    and now)
        return until(idle, "the server is idle and its pool empty")

    def until_counted(self):
        """The same, and every call of Generate that arrived has been answered.

        The engine tells that nothing runs a little before the last requests
        hear that they have ended, and are counted.
        """
        def counted():
            now = self.until_idle()
            started, handled = (
                now.sum(f"grpc_server_{what}_total", grpc_method="Generate")
                for what in ("started", "handled"))
            return started == handled
        until(counted, "every call has been answered")
        return self.scrape()

    def generate(self, model="mailroom", timeout=DEADLINE, **fields):
        """All of an answer."""
        return Answer(self.inference.Generate(
            stubs.inference.GenerateRequest(model=model, **fields),
            timeout=timeout))


class Answer:
    """The messages of a Generate stream, put together."""

    def __init__(self, stream):
        self.text = ""
        self.tokens = []
        self.last = None
        for message in stream:
            self.text += message.text
            self.tokens += message.tokens
            self.last = message

    @property
    def ids(self):
        return [token.token_id for token in self.tokens]

    @property
    def bits(self):
        """All that must not depend on company. Floats compare exactly."""
        return (self.text, self.ids, [token.logprob for token in self.tokens],
                self.last.finish_reason, self.last.usage.prompt_tokens)


class Metrics:
    """One scrape: {(name, labels): value}."""

    _SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.M)
    _LABEL = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')

    def __init__(self, text):
        self.samples = {
            (name, tuple(sorted(self._LABEL.findall(labels)))): float(value)
            for name, labels, value in self._SAMPLE.findall(text)}
        self.types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))

    def select(self, metric, **labels):
        wanted = set(labels.items())
        return {key: value for key, value in self.samples.items()
                if key[0] == metric and wanted <= set(key[1])}

    def sum(self, metric, **labels):
        return sum(self.select(metric, **labels).values())

    def by(self, metric, label, **labels):
        """{value of `label`: sum}."""
        sums = {}
        for (_, pairs), value in self.select(metric, **labels).items():
            name = dict(pairs)[label]
            sums[name] = sums.get(name, 0) + value
        return sums


class Threads:
    """Runs functions at the same time; raises what they raise."""

    def __init__(self, functions):
        self._errors = []
        self._threads = [threading.Thread(target=self._run, args=(function,))
                         for function in functions]

    def _run(self, function):
        try:
            function()
        except Exception as error:  # pylint: disable=broad-except
            self._errors.append(error)

    def join(self):
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
