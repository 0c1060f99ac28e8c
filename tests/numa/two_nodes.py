#!/usr/bin/env python3
"""Runs bullpen on an emulated machine of two NUMA nodes and looks where it put things.

Boots Debian's kernel in QEMU (full emulation, no rights needed) with two CPUs and half
of the memory in each node, generates from the default model under each --numa policy,
and reads from /proc which pages lie on which node and which thread may run on which
CPU. Fails unless they lie as the policy says and the tokens are those of this machine.
It shows placement; emulated speed says nothing.

    apt-get install qemu-system-x86 busybox-static
    python3 tests/numa/two_nodes.py --bullpen build/release/bullpen
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
TOKENS = 48
PROMPT = "784,268,4264,1645"  # In the beginning God
BOOT_SECONDS = 900
CPUS_OF_NODE = [{0, 1}, {2, 3}]
POLICIES = ["distribute", "isolate", "off", "auto"]

# In the guest: each run is stopped when it has begun to compute, for a look at it.
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
cd /tmp
pinned() {
  /bin/busybox grep -hE 'Cpus_allowed_list:.[0-9]+$' /proc/$1/task/*/status | /bin/busybox wc -l
}
look() {
  /bullpen generate /packed --numa $1 --threads $2 --memory 256MiB --ids PROMPT \\
      --max-tokens TOKENS --ignore-eos --temperature 0 --print-ids > out 2> log &
  pid=$!
  # The first job pins the last thread; a run that fails is a zombie until it is waited for.
  until [ $(pinned $pid) -ge $2 ] || /bin/busybox grep -q zombie /proc/$pid/status; do
    /bin/busybox usleep 20000
  done
  /bin/busybox kill -STOP $pid
  echo
  echo "== $1"
  /bin/busybox grep NUMA log
  echo "== maps"
  /bin/busybox grep anon= /proc/$pid/numa_maps
  echo "== tasks"
  for task in /proc/$pid/task/*; do
    echo "$(/bin/busybox grep Cpus_allowed_list $task/status)"
  done
  /bin/busybox kill -CONT $pid
  wait $pid
  echo "== ids"
  /bin/busybox cat out
  echo "== end"
  /bin/busybox grep -v info log
}
LOOKS
echo "== too much"
/bullpen generate /packed --numa isolate --memory 2GiB --ids PROMPT 2>&1
echo "== end"
/bin/busybox poweroff -f
"""


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True,
                          stdout=subprocess.PIPE, **options).stdout


def debian_kernel(directory):
    """The kernel image out of Debian's package for clouds, which is small."""
    depends = run("apt-cache", "depends", "linux-image-cloud-amd64")
    package = re.search(r"linux-image-[0-9]\S*", depends).group()
    run("apt-get", "download", package, cwd=directory)
    (archive,) = directory.glob(f"{package}_*.deb")
    run("dpkg-deb", "-x", archive, directory / "kernel")
    (image,) = (directory / "kernel" / "boot").glob("vmlinuz-*")
    return image


def libraries(binary):
    """Where the loader finds what `binary` needs, itself among it."""
    return [pathlib.Path(path) for path in
            re.findall(r"(/\S+) \(0x", run("ldd", binary))]


class Archive:
    """An initial file system in cpio's format "newc", as the kernel unpacks it."""

    def __init__(self):
        self.data = bytearray()
        self.names = set()

    def add(self, name, mode, content=b""):
        parent = str(pathlib.PurePosixPath(name).parent)
        if parent != "." and parent not in self.names:
            self.add(parent, 0o040755)
        self.names.add(name)
        fields = [len(self.names), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        self.data += b"070701" + b"".join(b"%08X" % field for field in fields)
        self.data += name.encode() + b"\0"
        self.pad()
        self.data += content
        self.pad()

    def pad(self):
        self.data += bytes(-len(self.data) % 4)

    def add_file(self, name, path):
        self.add(name.lstrip("/"), 0o100755, pathlib.Path(path).read_bytes())

    def finish(self):
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def initial_files(binary, busybox, packed):
    archive = Archive()
    looks = "\n".join(f"look {policy} {2 if policy == 'isolate' else 4}" for policy in POLICIES)
    init = INIT.replace("PROMPT", PROMPT).replace("TOKENS", str(TOKENS)).replace("LOOKS", looks)
    archive.add("init", 0o100755, init.encode())
    archive.add_file("bin/busybox", busybox)
    archive.add_file("bullpen", binary)
    for library in libraries(binary):
        archive.add_file(str(library), library)
    for file in packed.iterdir():
        archive.add_file(f"packed/{file.name}", file)
    return archive.finish()


def boot(kernel, initrd):
    """What the guest writes to its serial port until it turns itself off."""
    return run(
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "4",
        "-m", "3G", "-nographic", "-no-reboot", "-net", "none",
        "-object", "memory-backend-ram,id=m0,size=1536M",
        "-object", "memory-backend-ram,id=m1,size=1536M",
        "-numa", "node,nodeid=0,cpus=0-1,memdev=m0", "-numa", "node,nodeid=1,cpus=2-3,memdev=m1",
        "-numa", "dist,src=0,dst=1,val=21", "-kernel", kernel, "-initrd", initrd,
        "-append", "console=ttyS0 quiet panic=-1",
        stdin=subprocess.DEVNULL, timeout=BOOT_SECONDS)


def id_set(text):
    """"0-2,5" -> {0, 1, 2, 5}."""
    ids = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        ids |= set(range(int(first), int(last or first) + 1))
    return ids


class Look:
    """What the guest saw of one run."""

    def __init__(self, text):
        head, maps, tasks, ids, _ = re.split(r"^== (?:maps|tasks|ids|end)\n", text, flags=re.M)
        self.policy, _, self.log = head.partition("\n")
        self.pages = {}  # by the kernel's policy: of each node
        for line in maps.splitlines():
            words = line.split()
            counts = self.pages.setdefault(words[1], [0, 0])
            for node in range(2):
                counts[node] += sum(int(word[3:]) for word in words
                                    if word.startswith(f"N{node}="))
        self.tasks = [id_set(line.split()[1]) for line in tasks.splitlines() if line.strip()]
        self.ids = ids.strip()

    def pinned(self):
        """CPUs that are some thread's only one."""
        return sorted(min(cpus) for cpus in self.tasks if len(cpus) == 1)

    def report(self):
        print(f"--numa {self.policy}: {self.log.strip()}")
        for policy, (first, second) in sorted(self.pages.items()):
            print(f"    pages under {policy}: node 0 {first}, node 1 {second}")
        print(f"    threads with one CPU: {self.pinned()}")

    def faults(self, expected_ids):
        """Sentences on what is not as the policy says."""
        if self.ids != expected_ids:
            yield f"ids {self.ids}, on this machine {expected_ids}"
        if self.policy in ("distribute", "auto"):
            nodes = self.pages.get("interleave:0-1", [0, 0])
            if min(nodes) < 5000 or abs(nodes[0] - nodes[1]) > 0.01 * sum(nodes):
                yield f"pages in turn lie unevenly: {nodes}"
            if self.pinned() != [0, 1, 2, 3]:
                yield f"threads are pinned to {self.pinned()}, not 0 to 3"
        elif self.policy == "isolate":
            bound = {policy: nodes for policy, nodes in self.pages.items()
                     if policy.startswith("bind:")}
            if len(bound) != 1:
                yield f"bound to {sorted(bound)}, not to one node"
                return
            ((policy, nodes),) = bound.items()
            home = int(policy[-1])
            if nodes[home] < 10000 or nodes[1 - home] != 0:
                yield f"pages of {policy} lie on {nodes}"
            if set(self.pinned()) != CPUS_OF_NODE[home]:
                yield f"threads of {policy} are pinned to {self.pinned()}"
        elif set(self.pages) != {"default"}:
            yield f"memory is placed: {self.pages}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bullpen", type=pathlib.Path, required=True, help="the built binary")
    parser.add_argument("--kernel", type=pathlib.Path,
                        help="a bzImage with NUMA; unset: Debian's, through apt-get download")
    parser.add_argument("--busybox", type=pathlib.Path, default="/bin/busybox",
                        help="one that needs no libraries")
    parser.add_argument("--log", type=pathlib.Path, help="write what the guest printed here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        packed = directory / "packed"
        quiet = ["--log-level", "warn"]
        run(options.bullpen, "pack", ROOT / "models" / "default", "-o", packed, *quiet)
        expected = run(options.bullpen, "generate", packed, "--ids", PROMPT, "--max-tokens",
                       TOKENS, "--ignore-eos", "--temperature", 0, "--print-ids", *quiet).strip()
        initrd = directory / "initrd"
        initrd.write_bytes(initial_files(options.bullpen, options.busybox, packed))
        text = boot(options.kernel or debian_kernel(directory), initrd).replace("\r", "")
    if options.log:
        options.log.write_text(text)
    starts = re.compile(rf"^== (?=(?:{'|'.join(POLICIES)})\n)", re.M)
    text, _, refused = text.partition("== too much\n")
    looks = [Look(part) for part in starts.split(text)[1:]]
    faults = []
    if [look.policy for look in looks] != POLICIES:
        faults.append(f"the guest showed {[look.policy for look in looks]}, not {POLICIES}")
    if "is above the" not in refused:
        faults.append(f"a budget above one node's memory was not refused: {refused}")
    for look in looks:
        look.report()
        faults += [f"--numa {look.policy}: {fault}" for fault in look.faults(expected)]
    print("\n".join(faults) or "placed as each policy says; the ids are those of this machine")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
