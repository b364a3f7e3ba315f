#!/usr/bin/env python3
"""test_lint.py [--quick] -- breaks a copy of the tree; each check of tools/lint.py must fire.

Every case is a check, a file, and what is put in the place of what. Ends with "N passed, N failed".
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
H = "diseasepred.h"
B2 = re.search(r"^ \* \[B2\] .*$", (ROOT / H).read_text(), re.M).group()
CASES = [
    ("contents", H, "[B2]   Checked sizes", "[B2]   Checked numbers"),
    ("contents", H, " * [C1] Byte order ", " * [C9] Byte order "),
    ("budgets", H, B2, re.sub(r"\d+ lines", "10 lines", B2)),
    ("documentation", H, " * Memory: none.", " * Storage: none."),
    ("documentation", H, "/* dp_version -- the version", "/* dp_version is the version"),
    ("functions", H, "DPDEF int32_t dp_version(void) {\n",
     "DPDEF int32_t dp_version(void) {\n" + "    (void)0;\n" * 61),
    ("text", H, "#define DP__ALIGN 64u", "#define DP__ALIGN 64u" + " " * 80 + "/* wide */"),
    ("text", H, "one row of a tile image */\n", "one row of a tile image */ \n"),
    ("text", H, "/* one cache line,", "/* one caf\u00e9,"),
    ("forward", H, "static void dp__text_add(",
     "static void dp__text_add(dp__text *t, const char *s);\n\nstatic void dp__text_add("),
    ("names", H, "#define DP__ALIGN 64u", "static int counter;\n#define DP__ALIGN 64u"),
    ("calls", H, "    memset(object, 0, bytes);\n    memcpy(object", "    printf(\"\");\n"
     "    memset(object, 0, bytes);\n    memcpy(object"),
    ("digest", "tools/selftest.c", '"3445', '"2445'),
    ("mutants", H, "return (__mmask16)(left < 16 ?", "return (__mmask16) (left < 16 ?"),
]


def findings(tree, check):
    """How many findings one check has on a tree."""
    out = subprocess.run([sys.executable, str(tree / "tools/lint.py"), "--root", str(tree),
                          "--only", check], capture_output=True, text=True)
    found = re.search(rf"^FAIL {check} \((\d+)\)", out.stdout, re.M)
    return int(found.group(1)) if found and out.returncode else 0


def fires(case):
    """1 when the check finds more on the broken copy than on the tree."""
    check, file, old, new = case
    with tempfile.TemporaryDirectory() as scratch:
        tree = pathlib.Path(scratch) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("build", ".git", "vectors"),
                        symlinks=True)
        text = (tree / file).read_text()
        if old not in text:
            print(f"     the text to break is not there: {old[:50]!r}")
            return 0
        (tree / file).write_text(text.replace(old, new, 1))
        return findings(tree, check) > findings(ROOT, check)


def main():
    cases = CASES[::3] if "--quick" in sys.argv else CASES
    passed = 0
    for case in cases:
        done = fires(case)
        passed += bool(done)
        print(f"{'ok  ' if done else 'FAIL'} lint_{case[0]}: {case[3].strip()[:60]!r}", flush=True)
    print(f"{passed} passed, {len(cases) - passed} failed")
    return passed != len(cases)


raise SystemExit(main())
