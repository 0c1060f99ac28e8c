"""SIGTERM: no new work, running work ends properly, exit code 0."""

import signal
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bullpen_server import wait_until
from http_wire import Stream


def start_streams(server, count, max_tokens):
    """Streams that have all got their first event, and the pool that reads them."""
    streams = [Stream(server, max_tokens=max_tokens) for _ in range(count)]
    for stream in streams:
        assert stream.start() == 200
        next(stream.events())
    pool = ThreadPoolExecutor(count)
    return pool, [pool.submit(stream.outcome_of_rest) for stream in streams]


def test_running_work_finishes_within_the_drain_time(start_server):
    server = start_server("--drain-timeout", 60)
    pool, outcomes = start_streams(server, 4, max_tokens=1000)
    server.process.send_signal(signal.SIGTERM)
    assert [outcome.result() for outcome in outcomes] == ["length"] * 4
    assert server.wait(30) == 0
    pool.shutdown()


def test_what_outlasts_the_drain_time_ends_with_an_error_event(start_server):
    server = start_server("--drain-timeout", 1)
    pool, outcomes = start_streams(server, 8, max_tokens=4000)
    queued = [Stream(server, max_tokens=4000) for _ in range(16)]
    wait_until(lambda: server.metric("bullpen_requests_waiting") > 0, 10, "requests wait")
    server.process.send_signal(signal.SIGTERM)
    ended = [outcome.result() for outcome in outcomes]
    ended += list(pool.map(Stream.outcome, queued))
    assert set(ended) <= {"length", "error", 503}, ended
    assert "error" in ended
    assert server.wait(30) == 0
    pool.shutdown()


def test_a_step_that_waits_for_a_slow_disk_does_not_outlast_the_drain_time(server, start_server):
    size = server.expert_bytes()
    # Two seconds for each of the hundreds of experts that the prompt needs.
    slow = start_server("--drain-timeout", 1, "--expert-memory", 8 * 8 * size,
                        "--io-limit", size // 2)
    prompt = [(i * 37) % 8000 for i in range(200)]
    stream = Stream(slow, prompt=prompt, max_tokens=10)
    wait_until(lambda: slow.metric("bullpen_expert_slots_loading") > 0, 10, "experts load")
    slow.process.send_signal(signal.SIGTERM)
    assert stream.outcome() in ("error", 503)
    assert slow.wait(30) == 0


def test_new_work_is_refused_while_draining(start_server, stubs):
    server = start_server("--drain-timeout", 60)
    with grpc.insecure_channel(server.grpc_target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        pool, outcomes = start_streams(server, 2, max_tokens=3000)
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING

        def refused():
            try:
                return server.complete("The", max_tokens=1).status_code
            except (httpx.TransportError, KeyError):
                return 503  # Not accepted any more.
        wait_until(lambda: refused() == 503, 5, "completions are refused")
        assert server.get("/ready").status_code == 503
        assert server.get("/health").status_code == 200
        try:
            list(stubs[1].InferenceStub(channel).Generate(stubs[0].GenerateRequest(prompt="x")))
            raise AssertionError("gRPC took new work")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert [outcome.result() for outcome in outcomes] == ["length"] * 2
    assert server.wait(30) == 0
    pool.shutdown()


def test_an_idle_server_ends_at_once(start_server):
    for number in (signal.SIGTERM, signal.SIGINT):
        server = start_server()
        server.process.send_signal(number)
        assert server.wait(5) == 0


def test_a_second_signal_does_not_wait(start_server):
    server = start_server("--drain-timeout", 60)
    stream = Stream(server, max_tokens=4000)
    assert stream.start() == 200
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.get("/ready").status_code == 503, 5, "it drains")
    server.process.send_signal(signal.SIGTERM)
    server.wait(5)
    stream.hang_up()
