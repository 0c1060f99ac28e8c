"""Fixtures of the end-to-end tests: the binary, servers, golden results."""

import json
import os
import pathlib
import subprocess
import sys

import grpc
import pytest
from grpc_tools import protoc

from bullpen_server import Server

ROOT = pathlib.Path(__file__).parents[2]


def pytest_addoption(parser):
    parser.addoption("--bullpen", required=True, help="the built binary")
    parser.addoption("--cpp-client", help="the built example of clients/cpp")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        for server in item.session.stash.get(SERVERS, []):
            report.sections.append(("bullpen serve", server.log[-20000:]))
    return report


SERVERS = pytest.StashKey()


@pytest.fixture(scope="session")
def binary(pytestconfig):
    os.chdir(ROOT)  # Where models/default is.
    return str(pathlib.Path(pytestconfig.getoption("bullpen")).resolve())


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Holds the packed copy of the default model, made by the first server."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def launch(request, binary, cache_dir):
    """launch(*args, **options) starts a server; every one is ended in the end."""
    servers = request.session.stash.setdefault(SERVERS, [])

    def start(*args, ready=True, **options):
        server = Server(binary, *args, **{"cache_dir": cache_dir, **options})
        servers.append(server)
        return server.wait_ready() if ready else server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def start_server(request, launch):
    """As `launch`, for servers that end with their test."""
    servers = request.session.stash.setdefault(SERVERS, [])
    before = len(servers)
    yield launch
    for server in servers[before:]:
        server.close()
    del servers[before:]


@pytest.fixture(scope="module")
def server(launch):
    """A server with the default settings, shared by the tests of one file."""
    server = launch()
    yield server
    assert server.alive(), "the server died"
    server.close()


@pytest.fixture(scope="session")
def run_bullpen(binary):
    """run_bullpen(*args) runs a subcommand to its end."""
    def run(*args, timeout=60, **options):
        return subprocess.run([binary, *map(str, args)], capture_output=True,
                              text=True, timeout=timeout, **options)
    return run


@pytest.fixture(scope="session")
def golden():
    """transformers' results for the default model."""
    return json.loads((ROOT / "models/default/golden.json").read_text())


def greedy_until_doubt(golden, prompt):
    """The golden greedy ids of a prompt, up to the first close call."""
    margins = golden["margins"][prompt]
    sure = next((i for i, margin in enumerate(margins) if margin < 2e-3), len(margins))
    return golden["greedy"][prompt][:sure]


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """The Python modules of proto/bullpen/v1: (messages, services)."""
    out = tmp_path_factory.mktemp("stubs")
    status = protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}",
                          f"--grpc_python_out={out}",
                          str(ROOT / "proto/bullpen/v1/inference.proto")])
    assert status == 0

    sys.path.insert(0, str(out))
    from bullpen.v1 import inference_pb2, inference_pb2_grpc
    return inference_pb2, inference_pb2_grpc


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc_target) as channel:
        yield channel


@pytest.fixture(scope="module")
def inference(stubs, channel):
    return stubs[1].InferenceStub(channel)
