"""A control group that limits the memory of the commands run in it."""

import os
import pathlib
import subprocess

V2 = pathlib.Path("/sys/fs/cgroup/cgroup.controllers")
ROOT = pathlib.Path("/sys/fs/cgroup" if V2.exists() else "/sys/fs/cgroup/memory")


class MemoryLimit:
    """Needs the right to make control groups. Use in a `with` statement."""

    def __init__(self, limit_bytes):
        self.path = ROOT / f"bullpen-compare-{os.getpid()}"
        self.limit_bytes = limit_bytes

    def __enter__(self):
        self.path.mkdir()
        name = "memory.max" if V2.exists() else "memory.limit_in_bytes"
        (self.path / name).write_text(str(self.limit_bytes))
        return self

    def __exit__(self, *_):
        self.path.rmdir()

    def run(self, command, **options):
        def join():
            (self.path / "cgroup.procs").write_text(str(os.getpid()))

        return subprocess.run(command, preexec_fn=join, **options)
