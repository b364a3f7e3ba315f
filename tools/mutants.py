#!/usr/bin/env python3
"""mutants.py -- plants known mistakes one by one; a test must fail for each.

    mutants.py [--only TEXT] [--jobs N] [--places]

Reads tests/mutants/*.txt, a mutant a line, fields separated by " ||| ":
    id ||| old text ||| new text ||| test filter                (of diseasepred.h)
    id ||| file ||| old text ||| new text ||| test filter       (of another file)
The old text must stand in the file; where it stands more than once, "#N" behind the id (from 1)
says which is meant. A mutant is killed when the tests that the filter selects fail, crash or hang.
One that survives a build is judged by the next: tcc, which compiles in no time, without vector
instructions and for tests that take no longer than QUICK; without tcc, gcc in the same way for
parse.txt, readers.txt and text.txt; the ordinary build; and for mistakes of the header
tests/test_simde.c, which runs the kernels that this CPU lacks: mistakes in those of AVX-512 come to
it at once where the CPU has none. Each build must pass its tests without a mistake first, or
killing would mean nothing. Ends with "N passed, N failed". --places only checks that the old texts
stand in the files.
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
TCC = shutil.which("tcc")
QUICK, PATIENT = 5, 300  # seconds for the tests of a mutant
CPU = pathlib.Path("/proc/cpuinfo").read_text().split()
SOFT_FLAGS = ("-mavx2", "-mfma") if "avx2" in CPU else ()


class Build(typing.NamedTuple):
    cc: str
    main: str
    flags: tuple
    seconds: int


class Mutant(typing.NamedTuple):
    name: str
    file: str
    old: str
    new: str
    tests: str
    builds: tuple  # of Build


def stands_in(header, old, first, behind):
    """Does the text stand in the sections from first to the one before behind?"""
    return header.index(f" * [{first}]") < header.find(old) < header.index(f" * [{behind}]")


def builds_of(list_name, file, header, old):
    """The builds that judge a mistake, the cheapest first."""
    main = "tests/test_readers.c" if file.startswith("examples/") else "tests/test_main.c"
    builds = [Build("cc", main, (), PATIENT)]
    if file == HEADER:
        builds += [Build("cc", "tests/test_simde.c", SOFT_FLAGS, PATIENT)]
        if "avx512bw" not in CPU and stands_in(header, old, "E6", "E8"):
            return builds[1:]
    if TCC and not (file == HEADER and stands_in(header, old, "E5", "E8")):
        builds.insert(0, Build("tcc", main, ("-DDP_NO_SIMD",), QUICK))
    elif list_name in PLAIN:
        builds.insert(0, Build("cc", main, ("-DDP_NO_SIMD",), PATIENT))
    return builds


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


def compiled(tree, build):
    """None, or what is wrong."""
    made = subprocess.run([build.cc, "-std=c99", "-Og", "-w", *build.flags, build.main, "-o",
                           str(tree / "mutant"), "-lm", "-lpthread"], cwd=tree,
                          capture_output=True)
    return f"{build.main} does not compile with {build.cc}" if made.returncode else None


def run_tests(tree, tests, seconds):
    """'killed', 'survived', 'slow', or what else happened, by the test program in the tree."""
    try:
        ran = subprocess.run([str(tree / "mutant"), f"--filter={tests}"], cwd=tree,
                             capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "slow" if seconds == QUICK else "killed"
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
            verdict = compiled(tree, build) or run_tests(tree, mutant.tests, build.seconds)
            if verdict not in ("survived", "slow"):
                break
        return verdict


def sound(build, mutants):
    """'passed' if the build passes all its tests without a mistake, which then does the killing."""
    tests = sorted({m.tests for m in mutants if build in m.builds})
    runs = [(t, QUICK) for t in tests] if build.seconds == QUICK else [(",".join(tests), 1800)]
    with copied_tree() as tree:
        fault = compiled(tree, build)
        verdicts = {fault} if fault else {run_tests(tree, *run) for run in runs}
    verdict = ", ".join(sorted(verdicts - {"survived", "slow"}))
    return "its tests fail as it is" if verdict == "killed" else verdict or "passed"


def jobs(mutants, places):
    """What is to be judged: (name, judge, arguments)."""
    if places:
        return [(m.name, judge_place, (m,)) for m in mutants]
    builds = sorted({build for m in mutants for build in m.builds})
    return ([(" ".join(("no mistake in", build.cc, build.main, *build.flags)), sound,
              (build, mutants)) for build in builds] + [(m.name, judge, (m,)) for m in mutants])


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
