"""Compiles the wire contract into the package while it is built."""

import pathlib

from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


class BuildWithContract(build_py):
    def run(self):
        from grpc_tools import protoc
        super().run()
        status = protoc.main([
            "protoc", f"-I{PROTO}", f"--python_out={self.build_lib}",
            f"--pyi_out={self.build_lib}", f"--grpc_python_out={self.build_lib}",
            str(PROTO / "bullpen/v1/inference.proto")])
        if status != 0:
            raise RuntimeError(f"protoc failed on {PROTO}")


setup(cmdclass={"build_py": BuildWithContract})
