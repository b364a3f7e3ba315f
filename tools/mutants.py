#!/usr/bin/env python3
"""mutants.py -- plants known mistakes one by one; a test must fail for each.

    mutants.py [--only TEXT] [--jobs N] [--places]

Reads tests/mutants/*.txt, a mutant a line, fields separated by " ||| ":
    id ||| old text ||| new text ||| test filter                (of diseasepred.h)
    id ||| file ||| old text ||| new text ||| test filter       (of another file)
The old text must stand in the file; where it stands more than once, "#N" behind the id (from 1)
says which is meant. A mutant is killed when the tests that the filter selects fail, crash or hang.
One that survives a build is judged by the next: without vector instructions (mistakes of parse.txt,
readers.txt and text.txt only: gcc compiles that in half the time, tcc in none), the ordinary build,
and for mistakes of the header tests/test_simde.c, which runs the kernels that this CPU lacks:
mistakes in those of AVX-512 come to it at once where the CPU has none. Each build must pass its
tests without a mistake first, or killing would mean nothing. Ends with "N passed, N failed".
--places only checks that the old texts stand in the files.
"""
import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADER = "diseasepred.h"
PLAIN = ("parse.txt", "readers.txt", "text.txt")  # their tests need no vector instructions
PLAIN_CC = "tcc" if shutil.which("tcc") else "cc"
CPU = pathlib.Path("/proc/cpuinfo").read_text().split()
SOFT_FLAGS = ("-mavx2", "-mfma") if "avx2" in CPU else ()


class Mutant(typing.NamedTuple):
    name: str
    file: str
    old: str
    new: str
    tests: str
    builds: tuple  # of (compiler, test program, flags)


def in_avx512(header, old):
    """Does the text stand in the sections of AVX-512 and AMX?"""
    return header.index(" * [E6]") < header.find(old) < header.index(" * [E8]")


def builds_of(list_name, file, header, old):
    """The builds that judge a mistake, the cheapest first."""
    main = "tests/test_readers.c" if file.startswith("examples/") else "tests/test_main.c"
    soft = (("cc", "tests/test_simde.c", SOFT_FLAGS),) if file == HEADER else ()
    if soft and "avx512bw" not in CPU and in_avx512(header, old):
        return soft
    plain = ((PLAIN_CC, main, ("-DDP_NO_SIMD",)),) if list_name in PLAIN else ()
    return plain + (("cc", main, ()),) + soft


def read_mutants():
    header = (ROOT / HEADER).read_text()
    for path in sorted((ROOT / "tests/mutants").glob("*.txt")):
        for line in path.read_text().splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.split(" ||| ")
            if len(fields) == 4:
                fields.insert(1, HEADER)
            yield Mutant(*fields, builds_of(path.name, fields[1], header, fields[2]))


def apply(text, old, new, which):
    """The text with its which-th occurrence of old replaced; None: there is no such place."""
    at = -1
    for _ in range(which):
        at = text.find(old, at + 1)
        if at < 0:
            return None
    return text[:at] + new + text[at + len(old):]


def plant(mutant):
    """(the file with the mistake in it, None), or (None, why there is no such place)."""
    which = int(mutant.name.rsplit("#", 1)[1]) if "#" in mutant.name else 1
    source = (ROOT / mutant.file).read_text()
    if "#" not in mutant.name and source.count(mutant.old) != 1:
        return None, f"the old text stands {source.count(mutant.old)} times"
    mutated = apply(source, mutant.old, mutant.new, which)
    return mutated, None if mutated is not None else "the old text is not there"


def judge_place(mutant):
    return plant(mutant)[1] or "killed"


def run_tests(tree, build, tests, seconds):
    """'killed', 'survived', or what else happened, by one test program over the tree."""
    cc, main, flags = build
    binary = tree / "mutant"
    built = subprocess.run([cc, "-std=c99", "-Og", "-w", *flags, main, "-o", str(binary), "-lm",
                            "-lpthread"], cwd=tree, capture_output=True)
    if built.returncode:
        return f"{main} does not compile with {cc}"
    try:
        ran = subprocess.run([str(binary), f"--filter={tests}"], cwd=tree, capture_output=True,
                             timeout=seconds)
    except subprocess.TimeoutExpired:
        return "killed"
    if ran.returncode == 0:
        return "survived" if b" 0 passed" not in b" " + ran.stdout else "no test has this name"
    return "killed"


@contextlib.contextmanager
def copied_tree():
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as scratch:
        tree = pathlib.Path(scratch)
        os.symlink(ROOT / "data", tree / "data")
        for part in ("tests", "examples"):
            shutil.copytree(ROOT / part, tree / part)
        shutil.copy(ROOT / HEADER, tree)
        (tree / "build").mkdir()
        yield tree


def judge(mutant):
    """'killed', or why it was not."""
    mutated, fault = plant(mutant)
    if fault:
        return fault
    with copied_tree() as tree:
        (tree / mutant.file).write_text(mutated)
        for build in mutant.builds:
            verdict = run_tests(tree, build, mutant.tests, 300)
            if verdict != "survived":
                break
        return verdict


def sound(build, mutants):
    """'passed' if the build passes all its tests without a mistake, which then does the killing."""
    tests = ",".join(sorted({m.tests for m in mutants if build in m.builds}))
    with copied_tree() as tree:
        verdict = run_tests(tree, build, tests, 1800)
    return {"survived": "passed", "killed": "its tests fail as it is"}.get(verdict, verdict)


def jobs(mutants, places):
    """What is to be judged: (name, judge, arguments)."""
    if places:
        return [(m.name, judge_place, (m,)) for m in mutants]
    builds = sorted({build for m in mutants for build in m.builds})
    return ([(" ".join(("no mistake in", *build[:2], *build[2])), sound, (build, mutants))
             for build in builds] + [(m.name, judge, (m,)) for m in mutants])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--places", action="store_true")
    args = parser.parse_args()
    (ROOT / "build").mkdir(exist_ok=True)
    todo = jobs([m for m in read_mutants() if args.only in m.name], args.places)
    good = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for job, verdict in zip(todo, pool.map(lambda j: j[1](*j[2]), todo)):
            held = verdict in ("killed", "passed")
            good += held
            if not held or not args.places:
                print(f"{verdict if held else 'FAIL ' + verdict:24} {job[0]}", flush=True)
    print(f"{good} passed, {len(todo) - good} failed")
    return good != len(todo)


raise SystemExit(main())
