"""Fails if an instruction set's object file shares code with other files.

An inline function that is emitted in ops_avx512.cc may be the copy that the
linker keeps for everyone, and a CPU without AVX-512 would die in it.
"""

import subprocess
import sys

ALLOWED = ("kAvx2Ops", "kAvx512Ops")


def shared_symbols(archive):
    listing = subprocess.run(["nm", "-C", archive], check=True, text=True,
                             capture_output=True).stdout
    member = ""
    for line in listing.splitlines():
        if line.endswith(":"):
            member = line
        parts = line.split(maxsplit=2)
        # T, W: code that other files see. Weak data is harmless.
        if member.startswith("ops_avx") and len(parts) == 3 and parts[1] in "TW":
            if not parts[2].endswith(ALLOWED):
                yield f"{member} {parts[2]}"


if __name__ == "__main__":
    found = list(shared_symbols(sys.argv[1]))
    print("\n".join(found) or "no shared code")
    sys.exit(bool(found))
