"""Fails if a file includes a folder that its own folder may not see.

The arrows are those of docs/ARCHITECTURE.md: a folder includes only what
stands to the right of it, never sideways or upward.
"""

import pathlib
import re
import sys

ALLOWED = {  # folder -> what it may include, besides itself
    "base": [],
    "kernels": ["base"],
    "engine/experts": ["kernels", "base"],
    "engine/model": ["engine/experts", "kernels", "base"],
    "engine": ["engine/model", "engine/experts", "kernels", "base"],
    "tools": ["engine", "engine/model", "engine/experts", "base"],
    "tools/bench": ["tools", "engine", "engine/model", "engine/experts", "kernels", "base"],
    "server": ["tools", "tools/bench", "engine", "engine/model", "engine/experts", "proto", "base"],
    "clients": ["proto"],
    "bench": ["engine", "engine/model", "engine/experts", "kernels", "base"],
}


def folder(path):
    known = [*ALLOWED, "proto", "tests"]
    return max((d for d in known if path.startswith(d + "/")), key=len, default=None)


def violations(root):
    for top in sorted({name.split("/")[0] for name in ALLOWED}):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in (".h", ".cc", ".cu", ".cuh"):
                continue
            name = str(file.relative_to(root))
            mine = folder(name)
            for include in re.findall(r'#include "([^"]+)"', file.read_text()):
                theirs = folder(include)
                if theirs not in (None, mine, *ALLOWED[mine]):
                    yield f"{name}: {mine} may not include {include}"


if __name__ == "__main__":
    found = list(violations(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
    print("\n".join(found) or "include arrows hold")
    sys.exit(bool(found))
