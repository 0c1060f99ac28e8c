"""The operators' pages name every flag of the server and every metric, and no other."""

import pathlib
import re

PAGES = "".join((pathlib.Path("docs") / page).read_text()
                for page in ("serving.md", "offloading.md"))


def names_in(text, pattern):
    return set(re.findall(pattern, text))


def test_every_flag_of_the_server_is_described(run_bullpen):
    shown = run_bullpen("serve", "--help").stdout + run_bullpen("--help").stdout
    flags = names_in(shown, r"--[a-z][a-z-]+") - {"--help", "--version"}
    assert len(flags) > 30
    assert flags - names_in(PAGES, r"--[a-z][a-z-]+") == set()


def test_every_flag_that_is_described_exists(run_bullpen):
    shown = "".join(run_bullpen(*command, "--help").stdout
                    for command in ((), ("serve",), ("plan",), ("replay",), ("analyze",),
                                    ("generate",), ("trace",), ("bench", "offload")))
    others = {"--cpunodebind", "--membind", "--cap-add"}  # of numactl and Docker
    described = names_in(PAGES, r"(?<!-)--[a-z][a-z-]+")
    assert described - names_in(shown, r"--[a-z][a-z-]+") == others


def test_every_metric_is_described_and_exists():
    """`…_recall` in a table stands for the name that ends so."""
    known = names_in(pathlib.Path("base/metrics.cc").read_text(), r'"(bullpen_\w+)"')
    described = names_in(PAGES, r"bullpen_\w+")
    assert described - known == set()
    short = tuple(names_in(PAGES, r"`…(_\w+)"))
    assert {name for name in known - described if not name.endswith(short)} == set()
