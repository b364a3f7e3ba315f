"""building.py -- make as a packager meets it: compilers, flags, parts left out, install."""
import os
import shutil
import stat
import subprocess
import time

from .base import PROGRAMS, ROOT, check, run, skip, write

# Notes its arguments, one call a line, and writes a program that does nothing. As a preprocessor it
# finds a header only with -Iown.
COMPILER = """#!/bin/sh
case " $* " in *" -E "*)
    read -r line
    case "$line,$*" in ,* | *-Iown*) exit 0 ;; *) exit 1 ;; esac
esac
{ for word; do printf '<%s> ' "$word"; done; echo; } >"$CALLS.$$"
cat "$CALLS.$$" >>"$CALLS" && rm "$CALLS.$$"
while [ $# -gt 0 ]; do
    if [ "$1" = -o ]; then echo '#!/bin/sh' >"$2"; fi
    shift
done
"""
PROGRAM_NAMES = {f"<examples/{name}.c>" for name in PROGRAMS}
GIVEN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "CC", "CPPFLAGS", "CFLAGS", "LDFLAGS",
         "LDLIBS", "WARN", "WERROR", "FLAGS", "LIBS", "DESTDIR", "PREFIX")


class Copy:
    """A tree of links to this one, whose build/ is its own; make with a compiler that notes."""

    def __init__(self, place):
        self.place = place
        place.mkdir()
        for name in ("Makefile", "diseasepred.h", "examples", "tools", "tests", "data", "LICENSE"):
            (place / name).symlink_to(ROOT / name)
        for name in ("one", "two"):
            write(place / name, COMPILER).chmod(0o755)
        tools = place / "bin"
        tools.mkdir()
        write(tools / "apt-get", "#!/bin/sh\nexit 1\n").chmod(0o755)
        self.calls = place / "calls"
        self.env = {k: v for k, v in os.environ.items() if k not in GIVEN}
        self.env.update(PATH=f"{tools}:{os.environ['PATH']}", CALLS=str(self.calls))

    def make(self, *words, **env):
        """What was compiled: the arguments of each call, or None when make failed."""
        time.sleep(0.02)  # a file's time has steps
        self.calls.unlink(missing_ok=True)
        done = subprocess.run(["make", "-C", self.place, *words], env=dict(self.env, **env),
                              capture_output=True, text=True)
        self.said = done.stdout + done.stderr
        if done.returncode != 0:
            return None
        return self.calls.read_text().splitlines() if self.calls.exists() else []


def sources(calls):
    return {w for line in calls or () for w in line.split() if w.startswith("<examples/")}


def test_building_again(work):
    tree = Copy(work / "built")
    first = ["CC=./one", "CPPFLAGS=-Iown"]
    check("make compiles the programs", sources(tree.make(*first)) == PROGRAM_NAMES, tree.said)
    check("make again: nothing", tree.make(*first) == [], tree.said)
    last = first
    for name, given in (
            ("another CC", ["CC=./two", "CPPFLAGS=-Iown"]),
            ("other CFLAGS", [*first, "CFLAGS=-O1"]),
            ("other CPPFLAGS", ["CC=./one", "CPPFLAGS=-Iown -DX"]),
            ("other LDFLAGS", [*first, "LDFLAGS=-static"]),
            ("other LDLIBS", [*first, "LDLIBS=-lstd"]),
            ("a warning more", [*first, "WERROR=-Werror"]),
            ("quotes", [*first, "CFLAGS=-DX='\"a  b\"' -DY=\"it's\""]),
            ("# and $", [*first, "CFLAGS=-DX='a#b' -DY='$$z' -DZ=\\$$PATH"]),
            ("nothing given", first)):
        calls = tree.make("-j3", *given)
        check(f"make: {name}: all programs anew", calls is not None and len(calls) == 3 and
              sources(calls) == PROGRAM_NAMES, (calls, tree.said))
        check(f"make: {name}: then nothing", tree.make("-j3", *given) == [], tree.said)
        last = calls
    check("make: nothing is left beside build/flags",
          [p.name for p in (tree.place / "build").glob("flags*")] == ["flags"], last)
    tests = ["build/test", "build/test_double", "build/test_readers", "build/test_amx",
             "build/bench", "build/selftest", "build/make_data", "build/naive_bayes"]
    for name, given, number in (("at first", first, 8), ("again", first, 0),
                                ("other CFLAGS", [*first, "CFLAGS=-O1"], 8)):
        calls = tree.make("-j3", *given, *tests)
        check(f"make: tests and tools, {name}: {number} compiled", calls is not None and
              len(calls) == number, (calls, tree.said))
    calls = tree.make(CC="./two", CPPFLAGS="-Iown", CFLAGS="-DE")
    check("make: flags out of the environment: all programs anew", len(calls or ()) == 3, tree.said)
    calls = tree.make(CC="./two", CPPFLAGS="-Iown", CFLAGS="-DE")
    check("make: flags out of the environment: then nothing", calls == [], tree.said)


def test_building_flags(work):
    tree = Copy(work / "built_flags")
    calls = tree.make("CC=./one", "CPPFLAGS=-Iown -DP", "CFLAGS=-DC='\"a  b\"#$$y'",
                      "LDFLAGS=-DL", "LDLIBS=-lD")
    order = [w for line in (calls or [""])[:1] for w in line.split("> <")]
    wanted = ["-O2", "-Iown", "-DP", '-DC="a  b"#$y', "-o", "-DL", "-lm", "-lD> "]
    check("make: CPPFLAGS stand before CFLAGS, LDLIBS behind LDFLAGS, all as they were given",
          [w for w in order if w in wanted] == wanted, (calls, tree.said))
    tree.make("clean", "CC=./one")
    check("make: without stb for this compiler: it is asked for, or installed",
          tree.make("CC=./one") is None and "libstb-dev" in tree.said, tree.said)
    write(tree.place / "broken", "#!/bin/sh\necho broken: no such flag >&2\nexit 1\n").chmod(0o755)
    check("make: a compiler that fails says why itself", tree.make("CC=./broken") is None and
          "no such flag" in tree.said and "libstb" not in tree.said, tree.said)


def test_building_install(work):
    tree = Copy(work / "built_installed")
    given = ["CC=./one", "CPPFLAGS=-Iown", f"DESTDIR={tree.place}/a b", "PREFIX=/usr"]
    old = os.umask(0o077)
    try:
        done = tree.make("install", *given)
    finally:
        os.umask(old)
    check("make install", done is not None, tree.said)
    root = tree.place / "a b/usr"
    modes = {str(p.relative_to(root)): stat.S_IMODE(p.stat().st_mode)
             for p in root.rglob("*")} if root.exists() else {}
    wanted = {"bin": 0o755, "include": 0o755, "share": 0o755, "share/diseasepred": 0o755,
              "include/diseasepred.h": 0o644, "share/diseasepred/LICENSE": 0o644,
              "share/diseasepred/NOTICE": 0o644,
              "share/diseasepred/bert-base-cased-vocab.txt": 0o644}
    wanted.update({f"bin/diseasepred-{name}": 0o755 for name in PROGRAMS})
    check("make install under umask 077: everybody may read and run", modes == wanted, modes)
    code, _, err = run("train", "--train", work / "small.csv", "--output", work / "no_data",
                       cwd=work)
    check("train where there is no data/: 3, names --vocab", code == 3 and "--vocab" in err and
          "bert-base-cased-vocab.txt" in err and not (work / "no_data").exists(), (code, err))


def test_building_parts(work):
    cc = os.environ.get("CC", "cc").split()
    for program, flags in (("predict", ["-DDP_NO_TRAIN"]), ("quantize", ["-DDP_NO_TRAIN"]),
                           ("predict", ["-DDP_NO_TRAIN", "-DDP_NO_QUANTIZE"]),
                           ("train", ["-DDP_NO_QUANTIZE"])):
        done = subprocess.run([*cc, "-std=c99", "-O0", "-Wall", "-Wextra", "-Werror", *flags,
                               "-DDP_NO_SIMD", ROOT / f"examples/{program}.c", "-o",
                               work / "part", "-lm", "-lpthread"], capture_output=True, text=True)
        check(f"{program} builds with {' '.join(flags)}", done.returncode == 0, done.stderr)
    if shutil.which("tcc") is None:
        skip("--version of a program that tcc compiled", "tcc is not installed")
        return
    subprocess.run(["tcc", "-w", ROOT / "examples/predict.c", "-o", work / "part", "-lm",
                    "-lpthread"], check=True)
    done = subprocess.run([work / "part", "--version"], capture_output=True, text=True)
    check("--version names tcc", "\ncompiler: tcc 0." in done.stdout, done)
