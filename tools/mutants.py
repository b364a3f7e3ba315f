#!/usr/bin/env python3
"""mutants.py -- plants known mistakes one by one; a test must fail for each.

    mutants.py [--only TEXT] [--jobs N] [--places]

Reads tests/mutants/*.txt, a mutant a line, fields separated by " ||| ":
    id ||| old text ||| new text ||| test filter                (of diseasepred.h)
    id ||| file ||| old text ||| new text ||| test filter       (of another file)
The old text must stand in the file; where it stands more than once, "#N" behind the id (from 1)
says which is meant. A mutant is killed when the tests that the filter selects fail, crash, hang or
do not compile with warnings as in the ordinary build. One of the header that survives is judged
again by tests/test_simde.c, which runs the kernels that this CPU lacks. Ends with "N passed, N
failed".
--places only checks that the old texts stand in the files.
"""
import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
READERS = ("examples/",)  # mutants of these files are judged by tests/test_readers.c
SOFT_FLAGS = (["-mavx2", "-mfma"]
              if " avx2 " in pathlib.Path("/proc/cpuinfo").read_text() else [])


def read_mutants():
    for path in sorted((ROOT / "tests/mutants").glob("*.txt")):
        for line in path.read_text().splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.split(" ||| ")
            if len(fields) == 4:
                fields.insert(1, "diseasepred.h")
            yield fields


def apply(text, old, new, which):
    """The text with its which-th occurrence of old replaced; None: there is no such place."""
    at = -1
    for _ in range(which):
        at = text.find(old, at + 1)
        if at < 0:
            return None
    return text[:at] + new + text[at + len(old):]


def plant(fields):
    """(the file with the mistake in it, None), or (None, why there is no such place)."""
    name, file, old, new, _ = fields
    which = int(name.rsplit("#", 1)[1]) if "#" in name else 1
    source = (ROOT / file).read_text()
    if "#" not in name and source.count(old) != 1:
        return None, f"the old text stands {source.count(old)} times"
    mutated = apply(source, old, new, which)
    return mutated, None if mutated is not None else "the old text is not there"


def judge_place(fields):
    return plant(fields)[1] or "killed"


def run_tests(tree, main, flags, tests):
    """'killed', or why it was not, by one test program over the tree."""
    binary = tree / "mutant"
    built = subprocess.run(["cc", "-std=c99", "-O1", "-w", *flags, main, "-o", str(binary), "-lm",
                            "-lpthread"], cwd=tree, capture_output=True)
    if built.returncode:
        return f"{main} does not compile"
    try:
        ran = subprocess.run([str(binary), f"--filter={tests}"], cwd=tree, capture_output=True,
                             timeout=300)
    except subprocess.TimeoutExpired:
        return "killed"
    if ran.returncode == 0:
        return "survived" if b" 0 passed" not in b" " + ran.stdout else "no test has this name"
    return "killed"


def judge(fields):
    """'killed', or why it was not."""
    file, tests = fields[1], fields[4]
    mutated, fault = plant(fields)
    if fault:
        return fault
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as scratch:
        tree = pathlib.Path(scratch)
        os.symlink(ROOT / "data", tree / "data")
        for part in ("tests", "examples"):
            shutil.copytree(ROOT / part, tree / part)
        shutil.copy(ROOT / "diseasepred.h", tree)
        (tree / file).write_text(mutated)
        (tree / "build").mkdir()
        main = "tests/test_readers.c" if file.startswith(READERS) else "tests/test_main.c"
        verdict = run_tests(tree, main, [], tests)
        if verdict == "survived" and file == "diseasepred.h":
            verdict = run_tests(tree, "tests/test_simde.c", SOFT_FLAGS, tests)
        return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--places", action="store_true")
    args = parser.parse_args()
    (ROOT / "build").mkdir(exist_ok=True)
    mutants = [m for m in read_mutants() if args.only in m[0]]
    killed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for mutant, verdict in zip(mutants, pool.map(
                judge_place if args.places else judge, mutants)):
            killed += verdict == "killed"
            if verdict != "killed" or not args.places:
                print(f"{verdict if verdict == 'killed' else 'FAIL ' + verdict:24} {mutant[0]}",
                      flush=True)
    print(f"{killed} passed, {len(mutants) - killed} failed")
    return killed != len(mutants)


raise SystemExit(main())
