"""Runs `bullpen serve` for a test, and looks into it."""

import contextlib
import functools
import re
import signal
import subprocess
import threading
import time

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

START_SECONDS = 60


def wait_until(condition, seconds, what):
    """Polls until condition() is true; fails with `what` when time is up."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Server:
    """One `bullpen serve` process on free ports of the loopback.

    Its output is kept, in `log`, from the first line on.
    """

    def __init__(self, binary, *args, cache_dir, model="models/default"):
        command = [binary, "serve", *([model] if model else []), "--host", "127.0.0.1",
                   "--port", "0", "--grpc-port", "0", "--cache-dir", str(cache_dir),
                   *map(str, args)]
        self.command = " ".join(map(str, command))
        self.lines = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        # A connection for each request, as separate clients would have. Asked of the server, not
        # of the pool: httpcore, told to keep none, may close one that a thread has just been given.
        self._http = httpx.Client(verify=False, timeout=60, headers={"connection": "close"},
                                  limits=httpx.Limits(max_connections=None))

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def log(self):
        with self._news:
            return "\n".join([f"$ {self.command}", *self.lines])

    def wait_for_line(self, pattern, seconds=START_SECONDS):
        """The match of the first line that has `pattern`."""
        def found():
            return next(filter(None, (re.search(pattern, line) for line in self.lines)), None)
        with self._news:
            self._news.wait_for(lambda: found() or self._ended, seconds)
            match = found()
        assert match, f"no line with {pattern!r} within {seconds} s:\n{self.log}"
        return match

    def wait_ready(self):
        ready = self.wait_for_line(READY_LINE)
        self.port = int(ready.group("http"))
        self.grpc_port = int(ready.group("grpc"))
        self.url = f"http://127.0.0.1:{self.port}"
        self.grpc_target = f"127.0.0.1:{self.grpc_port}"
        return self

    @functools.cached_property
    def model_id(self):
        return self.get("/v1/models").json()["data"][0]["id"]

    def get(self, path, **options):
        return self._http.get(self.url + path, **options)

    def post(self, path, body, **options):
        return self._http.post(self.url + path, json=body, **options)

    def post_bytes(self, path, content):
        """`content`: bytes, or an iterable of them for a chunked body."""
        return self._http.post(self.url + path, content=content,
                               headers={"content-type": "application/json"})

    def complete(self, prompt, max_tokens=16, **fields):
        """The answer of /v1/completions, whatever its status."""
        return self.post("/v1/completions", {"model": self.model_id, "prompt": prompt,
                                             "max_tokens": max_tokens, **fields})

    def openai(self, **options):
        return openai.OpenAI(base_url=self.url + "/v1",
                             **{"api_key": "none", "max_retries": 0, "timeout": 60, **options})

    def metrics(self):
        """{(sample name, ((label, value), ...)): value} of /metrics."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        return {(s.name, tuple(sorted(s.labels.items()))): s.value
                for family in families for s in family.samples}

    def metric(self, name, **labels):
        """The sum of all samples of that name that have these labels."""
        wanted = set(labels.items())
        found = [value for (sample, pairs), value in self.metrics().items()
                 if sample == name and wanted <= set(pairs)]
        assert found, f"/metrics has no {name} {labels or ''}"
        return sum(found)

    def expert_bytes(self):
        """The memory that one expert's slot takes."""
        return max(layer["slot_bytes"] for layer in self.get("/v1/experts").json()["layers"])

    def wait_idle(self, seconds=30):
        """Waits until every gauge of work is back at zero."""
        gauges = ("bullpen_requests_running", "bullpen_requests_waiting",
                  "bullpen_kv_blocks_used")
        wait_until(lambda: all(self.metric(gauge) == 0 for gauge in gauges), seconds,
                   f"{', '.join(gauges)} back at 0")

    def alive(self):
        return self.process.poll() is None

    def memory_bytes(self, field="VmRSS"):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(rf"{field}:\s+(\d+) kB", status.read()).group(1)) * 1024

    def terminate(self, seconds=30):
        """SIGTERM; returns the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds=30):
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code

    def close(self):
        if self.alive():
            try:
                self.terminate(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(10)
        self.process.stdout.close()
        self._http.close()


READY_LINE = r"ready: .* on http://\S+:(?P<http>\d+) and grpc://\S+:(?P<grpc>\d+)"
