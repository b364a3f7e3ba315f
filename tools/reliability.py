#!/usr/bin/env python3
"""reliability.py -- prints tests/RELIABILITY.md from what `make test-all` has left in build/log/.

Every figure is one that a test printed; none is typed in here. A test's figures are the indented
lines above its "ok". A suite whose log is missing is named as not run.
"""
import datetime
import pathlib
import platform
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "build/log"
SUITES = {
    "test": "unit tests and vectors, all of them: every float, every line, every fault",
    "test_readers": "readers of CSV, JSONL and lines",
    "test_double": "gradients against central differences, in double",
    "test_simde": "every kernel row, AVX-512 in software",
    "test_amx": "tile instructions, trapped and executed in software",
    "programs": "train, predict and quantize as a user meets them",
    "lint-full": "the checks of the source, and that each of them can fail",
    "spills": "kernels without sums on the stack, by disassembly",
    "fuzz-replay": "fuzz targets on their seeds",
    "hygiene-full": "compilers, standards, levels of optimization, macros, sizes",
    "features-full": "builds that leave parts out",
    "elsewhere": "other processors by qemu, other compilers, another C library, Windows by wine",
    "test_asan": "AddressSanitizer",
    "test_ubsan": "UndefinedBehaviorSanitizer",
    "test_msan": "MemorySanitizer",
    "test_tsan": "ThreadSanitizer",
    "valgrind": "memcheck",
    "mutants": "mistakes planted in the source, each of which a test must catch",
}
FIGURES = ["test", "test_readers", "test_double", "test_simde", "test_amx"]
NOT_COVERED = """\
- Compilers other than gcc, clang and tcc; macOS; Windows, and CPUs other than x86-64, but
  for what `make elsewhere` runs under wine and qemu.
- Instructions that the CPU above lacks ran in software only: results are proved, times are not.
- Machines that lose power: faults are simulated call by call, kills are real, no disk was cut off.
- A model whose weights are valid numbers chosen to mislead; faults of the hardware; root.
- No audit by others, no formal proof."""


def command(*words):
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def processor():
    found = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def log(suite):
    path = LOGS / f"{suite}.txt"
    return path.read_text() if path.exists() else None


def counts(text):
    """Passed, failed, skipped of a suite, or None if its log does not end as it must."""
    found = re.findall(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", text, re.M)
    code = re.findall(r"^exit (\d+)$", text, re.M)
    sound = found and code and (code[-1] == "0") == (found[-1][1] == "0")
    return [n or "0" for n in found[-1]] if sound else None


def suites():
    print("| suite | passed | failed | skipped | what |\n|---|---:|---:|---:|---|")
    for suite, what in SUITES.items():
        text = log(suite)
        shown = text and counts(text) or ["**not run to its end**", "", ""]
        print(f"| {suite} | {' | '.join(shown)} | {what} |")


def figures(text):
    """(test, the lines that it printed) for each test that printed any."""
    lines = []
    for line in text.splitlines():
        if re.match(r" {4,}\S", line):
            lines.append(" ".join(line.split()))
        else:
            if lines and line.startswith("ok"):
                yield line.split()[1], lines
            lines = lines if line.startswith("SKIP") else []


def told(suite):
    text = log(suite)
    if text is None or not list(figures(text)):
        return
    print(f"\n{suite}: {SUITES[suite]}\n\n```")
    for test, lines in figures(text):
        for line in lines:
            print(f"{test:24} {line}")
            test = ""
    print("```")


def extremes():
    """What only the names of checks tell."""
    kills = len(re.findall(r"^ok   kill \d+", log("programs") or "", re.M))
    killed = re.findall(r"^killed +(\S+)", log("mutants") or "", re.M)
    missed = re.findall(r"^FAIL (?:survived|slow) +(\S+)", log("mutants") or "", re.M)
    print(f"\nTraining killed at random (SIGKILL), resumed and compared byte for byte: {kills} "
          f"times.\nMistakes planted: {len(killed)} caught, {len(missed)} not"
          f"{': ' + ', '.join(missed) if missed else ''}.")


def skipped():
    lines = {line[5:] for s in SUITES for line in (log(s) or "").splitlines()
             if line.startswith("SKIP ")}
    print("\n## What was skipped on this machine\n")
    for line in sorted(lines):
        print(f"- {line}")


def main():
    newest = max((p.stat().st_mtime for p in LOGS.glob("*.txt")), default=0)
    day = datetime.datetime.fromtimestamp(newest, datetime.timezone.utc).date()
    print("# Reliability\n\nMade by `make reliability` from the logs of `make test-all`; every "
          f"figure was printed by a test.\nCommit "
          f"{command('git', 'rev-parse', '--short', 'HEAD')}, {day}, {processor()},\n"
          f"{command('cc', '--version').splitlines()[0]}.\n\n## Suites\n")
    suites()
    extremes()
    print("\n## What the tests counted")
    for suite in FIGURES:
        told(suite)
    skipped()
    print("\n## What is not covered\n\n" + NOT_COVERED)


main()
