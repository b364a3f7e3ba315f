#!/usr/bin/env python3
"""lint.py -- the rules of this repository that a machine can check.

    lint.py [--toc] [--root DIR] [--only CHECK,...]

Every check prints its finding as "file:line: what is wrong". Exit 1 if there is one. Each check is
proved by tests/test_lint.py, which breaks a copy of the tree and demands that the check fires.

The block above every public declaration in part A has seven fields, in this order:

    /* NAME -- PURPOSE.                              1 purpose: one sentence or more
     *
     *   PARAMETER  [shape] meaning, unit            2 each parameter but err, in order; "min, max"
     *              continued                          may share a line, continuations are deeper
     *
     * Formula: ...      or  Source: ...             3 "Formula: none." where there is none
     * Returns ...                                   4 result, errors, outputs on failure
     * Memory: ...                                   5
     * Threads: ...                                  6
     * Tests: FILE: NAME, NAME_*, FILE: NAME */      7 names registered in that test file

Short fields may share a line: "Memory: none. Threads: reentrant. Tests: FILE: NAME */".

A banner is "[TAG] NAME  budget N lines"; a section reaches to the next banner, a part (one letter)
holds its sections. Functions have at most 60 lines, kernels (DP__TARGET, or in [E4] to [E7]) 90.
"""
import argparse
import fnmatch
import os
import re
import statistics
import subprocess
import sys
import tempfile

HEADER = "diseasepred.h"
TOP_LEVEL = ["LICENSE", "Makefile", "README.md", "data", "diseasepred.h", "examples", "tests",
             "tools"]
LINE_LIMITS = {"examples/train.c": 250, "examples/predict.c": 250, "examples/quantize.c": 250,
               "examples/common.h": 900, "Makefile": 200}
AIM = 10000      # lines of the header that its design asks for
CEILING = 13521
FIELDS = ["Formula:|Source:", "Returns ", "Memory:", "Threads:", "Tests:"]
FORM = 'the form is at the top of tools/lint.py'

# Never called by the header: what ends or changes the process, prints, reads environment, locale
# or clock, writes without a bound, or differs between C libraries. qsort: the order of equal keys
# is the library's choice, and glibc's allocates behind the allocator's back.
FORBIDDEN = """exit _exit _Exit abort quick_exit atexit raise signal sigaction longjmp setjmp assert
    printf fprintf vprintf vfprintf sprintf vsprintf snprintf vsnprintf puts fputs putchar perror
    scanf sscanf fscanf getenv setenv putenv unsetenv setlocale localeconv strcpy strcat strncpy
    strncat strtok gets atoi atol atoll atof strtol strtoll strtoul strtoull strtod strtof strtold
    time clock clock_gettime gettimeofday rand srand random rand_r drand48 qsort alloca
    calloc realloc system popen fork vfork execve execvp chdir fchdir umask socket connect dlopen
    sleep usleep nanosleep mmap setrlimit""".split()
LIBM = """exp exp2 expm1 log log2 log10 log1p pow sin cos tan sinh cosh tanh asinh acosh atanh erf
    erfc tgamma lgamma cbrt hypot round rint nearbyint lrint lround remainder fmod ldexp frexp
    scalbn ceil trunc""".split()
LIBM_FORBIDDEN = {name + suffix for name in LIBM for suffix in ("", "f", "l")}
# What the object may ask of the C library.
ALLOWED = re.sub(r"\s", "", r"""memcpy|memset|memmove|memcmp|memchr|malloc|free
    |str(len|n?cmp|r?chr|cspn)|bsearch
    |sqrtf?|fabsf?|floorf?|fmaf?|__errno_location|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_
    |open|openat|getpid|read|pread|pread64|write|fsync|fdatasync|close
    |rename|renameat|unlink|unlinkat
    |fstatvfs|statvfs|fstatvfs64|fstat|fstat64|fstatat|fstatat64|mkdir|mkdirat|opendir|fdopendir
    |readdir|readdir64|closedir|sched_yield|sigfillset
    |pthread_(create|join|sigmask|mutex_\w+|cond_\w+|attr_\w+)|syscall|madvise""")


class Tree:
    """The files under a root, read once."""

    def __init__(self, root):
        self.root = root
        self.cache = {}

    def text(self, path):
        if path not in self.cache:
            with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as file:
                self.cache[path] = file.read()
        return self.cache[path]

    def lines(self, path):
        return self.text(path).split("\n")[:-1]

    def exists(self, path):
        return os.path.exists(os.path.join(self.root, path))

    def files(self):
        """Tracked files, and those that git does not know yet but does not ignore."""
        out = subprocess.run(["git", "-C", self.root, "ls-files", "-co", "--exclude-standard"],
                             capture_output=True, text=True, check=False)
        if out.returncode == 0:
            return sorted({f for f in out.stdout.split("\n") if f and self.exists(f)})
        found = []
        for base, dirs, files in os.walk(self.root):
            dirs[:] = [d for d in dirs if d not in (".git", "build", "__pycache__")]
            found += [os.path.relpath(os.path.join(base, f), self.root) for f in files]
        return sorted(found)


# ---- reading the header ----------------------------------------------------------------------

BANNER = re.compile(r"^ \* \[([0A-Z][0-9.]*)\] (.*?) {2,}budget (\d+) lines$")
TAG = re.compile(r"\[([0A-Z][0-9.]*)\] +(\S.*?)(?= {2,}\[|$)")


def banners(tree):
    """[(tag, name, budget, first line)], line numbers from 0, at the banner's line of '='."""
    lines = tree.lines(HEADER)
    return [(m[1], m[2], int(m[3]), i - 1) for i, line in enumerate(lines)
            if (m := BANNER.match(line)) and "=====" in lines[i - 1]]


def sections(tree):
    """[(tag, name, budget, lines used)]; a part's use includes its sections."""
    found = banners(tree)
    ends = [b[3] for b in found[1:]] + [len(tree.lines(HEADER))]
    used = {b[0]: end - b[3] for b, end in zip(found, ends)}
    if found:
        used[found[0][0]] += found[0][3]  # what stands above the first banner
    for tag in [b[0] for b in found if len(b[0]) == 1]:
        used[tag] = sum(n for t, n in used.items() if t[0] == tag)
    return [(tag, name, budget, used[tag]) for tag, name, budget, _ in found]


def blank_comments(text):
    """The text with comments and the insides of literals blanked, line structure kept."""
    def blank(m):
        s = m[0]
        if s[0] in "\"'":
            return s[0] + " " * (len(s) - 2) + s[0]
        return re.sub(r"[^\n]", " ", s)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def section_at(tree, line):
    """The tag of the section that holds a line (from 0)."""
    tag = ""
    for t, _, _, first in banners(tree):
        if first > line:
            break
        tag = t
    return tag


def functions(tree):
    """[(name, first line, lines, is a kernel)] of the header's function bodies."""
    lines = blank_comments(tree.text(HEADER)).split("\n")
    found, start = [], None
    spans = [(b[3], b[0]) for b in banners(tree)]
    for i, line in enumerate(lines):
        if start is None:
            if re.match(r"(?!(typedef|struct|enum|union|extern)\b)[A-Za-z_]", line):
                first = i
                head = line
                while not re.search(r"[;{}]", head) and i + 1 < len(lines):
                    i += 1
                    head += " " + lines[i]
                if re.search(r"\)\s*\{\s*$", head) and "=" not in head.split("(")[0]:
                    bare = re.sub(r"(__attribute__|DP__TARGET)\s*\(+[^)]*\)+", "", head)
                    name = re.findall(r"(\w+)\s*\(", bare)
                    start = (first, name[0] if name else "?", head)
                elif re.search(r"\)\s*\{.*\}\s*$", head):
                    found.append((re.search(r"(\w+)\s*\(", head)[1], first, i - first + 1, False))
        elif line.startswith("}"):
            first, name, head = start
            tag = [t for at, t in spans if at <= first][-1]
            kernel = "DP__TARGET" in head or "DP__TARGET" in lines[first - 1] or tag in (
                "E4", "E5", "E6", "E7")
            found.append((name, first, i - first + 1, kernel))
            start = None
    return found


def declarations(tree):
    """[(name, line, parameters, block)] of part A's DPDEF declarations."""
    lines = tree.lines(HEADER)
    found = []
    for i, line in enumerate(lines):
        if "#endif /* DISEASEPRED_H */" in line:
            break
        if not line.startswith("DPDEF "):
            continue
        text, j = line, i
        while ";" not in text:
            j += 1
            text += " " + lines[j].strip()
        text = re.sub(r"/\*.*?\*/", "", text)
        name = re.search(r"(\w+)\s*\(", text)[1]
        inside = text[text.index("(") + 1:text.rindex(")")]
        names = [re.search(r"(\w+)\s*(\[\w*\]\s*)*$", p.strip())[1] for p in inside.split(",")]
        first = i
        while first > 0 and not lines[first].startswith("/*"):
            first -= 1
        above = lines[first:i] if lines[i - 1].rstrip().endswith("*/") else []
        found.append((name, i, [] if inside.strip() == "void" else names, above))
    return found


# ---- the checks: each yields (file, line from 1, text) ----------------------------------------

def check_contents(tree):
    lines = tree.lines(HEADER)
    start = next((i for i, s in enumerate(lines) if s.startswith(" * [0.3]")), None)
    if start is None:
        yield HEADER, 1, "no contents [0.3]"
        return
    columns = ([], [])
    for i in range(start + 2, len(lines)):
        if "=====" in lines[i]:
            break
        for m in TAG.finditer(lines[i][2:].rstrip()):
            if re.match(r"^ {2,}\[| {6,}\[", lines[i][2:]) and m.start() in (2, 3):
                columns[0].append((m[1], m[2]))
            elif m.start() > 30 and lines[i][2:m.start() + 2].endswith("  "):
                columns[1].append((m[1], m[2]))
    listed = columns[0] + columns[1]
    real = [(tag, name) for tag, name, _, _ in banners(tree)]
    for entry in real:
        if entry not in listed:
            yield HEADER, start + 1, f"contents lack [{entry[0]}] {entry[1]}"
    for entry in listed:
        if entry not in real:
            yield HEADER, start + 1, f"contents name [{entry[0]}] {entry[1]}, no banner does"
    if sorted(listed) == sorted(real) and listed != real:
        yield HEADER, start + 1, "contents are not in the order of the banners"
    known = {tag for tag, _ in real}
    for i, line in enumerate(lines):
        for m in re.finditer(r"\[([A-HZ]\d{1,2})(?:\.\d+)?\]", line):
            if m[1] not in known and re.match(r"\s*(\*|//|/\*)", line):
                yield HEADER, i + 1, f"reference to [{m[1]}], which has no banner"


def check_budgets(tree):
    where = {b[0]: b[3] + 2 for b in banners(tree)}
    parts = {}
    for tag, name, budget, used in sections(tree):
        if used > budget:
            yield HEADER, where[tag], f"[{tag}] {name} has {used} lines, its budget is {budget}"
        parts.setdefault(tag[0], []).append(budget)
    for tag, budgets in parts.items():
        if sum(budgets[1:]) > budgets[0]:
            yield HEADER, where[tag], f"budgets of [{tag}]'s sections exceed {budgets[0]}"
    if len(tree.lines(HEADER)) > CEILING:
        yield HEADER, 1, f"{len(tree.lines(HEADER))} lines, the ceiling is {CEILING}"


def check_limits(tree):
    for path, limit in LINE_LIMITS.items():
        if not tree.exists(path):
            yield path, 1, "does not exist"
        elif len(tree.lines(path)) > limit:
            yield path, limit, f"{len(tree.lines(path))} lines, the limit is {limit}"


def check_top_level(tree):
    top = {path.split("/")[0] for path in tree.files()}
    for name in sorted(n for n in top if not n.startswith(".")):
        if name not in TOP_LEVEL:
            yield name, 1, "is not one of the top-level entries: " + ", ".join(TOP_LEVEL)
    for name in TOP_LEVEL:
        if name not in top:
            yield name, 1, "is missing at the top level"


def check_documentation(tree):
    for name, at, params, block in declarations(tree):
        for text in block_faults(name, params, block):
            yield HEADER, at + 1, f"{name}: {text} ({FORM})"


def block_faults(name, params, block):
    if not block:
        yield "no block above it"
        return
    text = "\n".join(block)
    if not re.match(rf"/\* {name} -- \S", block[0]):
        yield f'the block begins "/* {name} -- PURPOSE."'
    head = re.split(r"\n \*\n", text)[0]
    if not head.rstrip(" */").endswith("."):
        yield "the purpose ends with a period and a blank line"
    named = [n for line in block if (m := re.match(r"^ \*   (\w+(?:, \w+)*)(?:  | *$)", line))
             for n in m[1].split(", ")]
    for p in params:
        if p not in named and p != "err":  # [0.4] says what err is
            yield f"parameter {p} has no line"
    if [n for n in named if n in params] != [p for p in params if p in named]:
        yield "parameters are not in the order of the declaration"
    for n in named:
        if n not in params:
            yield f"a line explains {n}, which is no parameter"
    last = 0
    for field in FIELDS:  # at the beginning of a line, or of a sentence
        m = re.search(rf"(?:\n \* |\. )({field})(\s*\w)?", text)
        label = field.strip().split("|")[0]
        if m is None:
            yield f'there is no "{field.strip().replace("|", " or ")}"'
        elif m.start() < last:
            yield f'"{label}" is out of order'
        elif not m[2]:
            yield f'"{label}" is empty'
        last = m.start() if m else last


def check_tests(tree):
    """Tests: and Fuzz: fields name files that exist and tests that are registered there."""
    lines = tree.lines(HEADER)
    for i, line in enumerate(lines):
        m = re.match(r" \*.*?\b(Tests|Fuzz):\s*(.*)", line)
        if not m:
            continue
        value, j = m[2], i
        while "*/" not in lines[j] and j + 1 < len(lines) and re.match(r" \* {6,}\S|^ \*   \S",
                                                                       lines[j + 1]):
            j += 1
            value += " " + lines[j][2:].strip()
        file = None
        value = re.sub(r"\s*\*/\s*$", "", value)
        for word in re.split(r"[,\s]+", re.sub(r"Fuzz:", " ", value)):
            word = word.strip(".;")
            if not word:
                continue
            if "/" in word:
                file = word.rstrip(":")
                if not tree.exists(file):
                    yield HEADER, i + 1, f"{file} does not exist"
                    file = None
            elif file and file.endswith(".c") and "/fuzz/" not in file:
                registered = re.findall(r'\{\s*"(\w+)"', tree.text(file))
                if not fnmatch.filter(registered, word):
                    yield HEADER, i + 1, f"{file} has no test {word}"


def check_functions(tree):
    for name, at, length, kernel in functions(tree):
        limit = 90 if kernel else 60
        if length > limit:
            yield HEADER, at + 1, f"{name} has {length} lines, the limit is {limit}"


def check_text(tree):
    for path in tree.files():
        if path.startswith(("data/", "tests/vectors/")) or re.search(
                r"\.(safetensors|bin|npz|png)$", path) or "/seed" in path or "/corpus" in path:
            continue
        raw = open(os.path.join(tree.root, path), "rb").read()
        if b"\0" in raw:
            continue
        if raw and not raw.endswith(b"\n"):
            yield path, raw.count(b"\n") + 1, "no newline at the end"
        for i, line in enumerate(raw.split(b"\n")):
            if any(c > 126 or (c < 32 and c != 9) for c in line):
                yield path, i + 1, "a byte that is not ASCII"
            if line.endswith((b" ", b"\t")):
                yield path, i + 1, "trailing blanks"
            if b"\t" in line and path != "Makefile":
                yield path, i + 1, "a tab"
            if len(line) > 100 and not path.endswith(".md") and "/mutants/" not in path:
                yield path, i + 1, f"{len(line)} columns, the limit is 100"
            if re.search(rb"\b(TO" rb"DO|FIX" rb"ME|X" rb"XX)\b", line):
                yield path, i + 1, "an open end (C3)"
            if re.search(rb"(?<![\w.])/(home|ro" rb"ot|wo" rb"rk)/", line):
                yield path, i + 1, "a path of somebody's machine"


def check_forward(tree):
    lines = blank_comments(tree.text(HEADER)).split("\n")
    start = next(i for i, s in enumerate(lines) if re.match(r"#if.*DISEASEPRED_IMPLEMENTATION", s)
                 and i > 300)
    i = start
    while i < len(lines):
        if re.match(r"(static|DP__INLINE|extern(?! \")|inline|(?!typedef)[a-z_]\w* \**\w+\()",
                    lines[i]):
            first, head = i, lines[i]
            while not re.search(r"[;{]", head) and i + 1 < len(lines):
                i += 1
                head += " " + lines[i].strip()
            if re.match(r"[^={]*\([^={]*\)[^={(]*;", head):
                yield HEADER, first + 1, "declared ahead of its definition: move the definition up"
        i += 1


def check_names(tree):
    """Macros, tags and globals by their text (so that inactive branches count too)."""
    code = blank_comments(tree.text(HEADER))
    for i, line in enumerate(code.split("\n")):
        m = re.match(r"\s*#\s*define\s+(\w+)", line)
        if m and not re.match(r"(DP_|dp__|DPDEF$|DISEASEPRED_|_GNU_SOURCE$)", m[1]):
            yield HEADER, i + 1, f"macro {m[1]} does not begin with DP_ or dp__"
        m = re.match(r"(?:typedef )?(?:struct|union|enum) (\w+)", line)
        if m and not m[1].startswith("dp_"):
            yield HEADER, i + 1, f"tag {m[1]} does not begin with dp_"
        m = re.match(r"static (?!const\b|inline\b)([\w ]*[\w*] \**)(\w+)(\[.*\])?( = .*|;)",
                     line)
        if m and "(" not in m[0].split("=")[0] and not re.search(r"\bconst\b", m[1]):
            yield HEADER, i + 1, f"global variable {m[2]}"
        m = re.match(r"static [\w *]*?\b(\w+)\s*[(\[]", line)
        if m and not m[1].startswith(("dp_", "__attribute__")):
            yield HEADER, i + 1, f"{m[1]} does not begin with dp__"


def check_calls(tree):
    code = blank_comments(tree.text(HEADER)).split("\n")
    double = []  # for each open #if: are we in a branch of the double build?
    for i, line in enumerate(code):
        m = re.match(r"\s*#\s*(ifdef|ifndef|if|elif|else|endif)\b(.*)", line)
        if m:
            if m[1] in ("ifdef", "if", "ifndef"):
                double.append(m[1] != "ifndef" and "DP_REAL_DOUBLE" in m[2] and "!" not in m[2])
            elif m[1] in ("else", "elif") and double:
                double[-1] = False
            elif m[1] == "endif" and double:
                double.pop()
            continue
        for m in re.finditer(r"(?<![\w.>])(\w+)\s*\(", line):
            if m[1] in FORBIDDEN:
                yield HEADER, i + 1, f"calls {m[1]}"
            elif m[1] in LIBM_FORBIDDEN and not any(double):
                yield HEADER, i + 1, f"calls {m[1]} of the C library (N4: use [E2])"


def check_object(tree):
    """What the linker sees, of the scalar kernels for speed; tests/hygiene looks at all."""
    cc = os.environ.get("CC") or "cc"
    with tempfile.TemporaryDirectory() as scratch:
        obj = os.path.join(scratch, "a.o")
        run = subprocess.run(
            [*cc.split(), "-std=c99", "-O0", "-fno-pic", "-w", "-xc", "-c", "-DDP_NO_SIMD",
             "-DDISEASEPRED_IMPLEMENTATION", HEADER, "-o", obj],
            cwd=tree.root, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            error = next((s for s in run.stderr.split("\n") if "error" in s), run.stderr[:200])
            yield HEADER, 1, "does not compile: " + error
            return
        symbols = subprocess.run(["nm", obj], capture_output=True, text=True, check=True).stdout
    for line in symbols.split("\n"):
        m = re.match(r"\S* +(\w) (\S+)", line)
        if not m:
            continue
        kind, name = m[1], m[2]
        if kind == "U":
            if not re.fullmatch(ALLOWED, name):
                yield HEADER, 1, f"the object calls {name}, which is not in lint.py's list"
        elif kind in "DBCGSdbgs":
            yield HEADER, 1, f"{name} is data that can change (only const tables are allowed)"
        elif kind.isupper() and not re.match(r"dp_[a-z]", name):
            yield HEADER, 1, f"exported symbol {name} does not begin with dp_"
        elif kind.islower() and "." not in name and not name.startswith("dp_"):
            yield HEADER, 1, f"symbol {name} does not begin with dp__"


def check_makefile(tree):
    for i, line in enumerate(tree.lines("Makefile")):
        if re.search(r"\$\((wildcard|shell|patsubst|foreach|call|if|addprefix) |^ifn?(eq|def)|^%|"
                     r"^\S*%\S*:|^include |:=|\?=", line):
            yield "Makefile", i + 1, "not POSIX make"
        if "march=native" in line:
            yield "Makefile", i + 1, "-march=native"


def check_digest(tree):
    """The digest that tools/selftest.c demands is the README's, which states one."""
    said = re.findall(r"^    ([0-9a-f]{64})$", tree.text("README.md"), re.M)
    demanded = re.findall(r'"([0-9a-f]{64})"', tree.text("tools/selftest.c"))
    if len(said) != 1 or said != demanded:
        yield "tools/selftest.c", 1, "its digest is not the one of README.md"


def check_mutants(tree):
    """Every planted mistake still has its place in the source."""
    run = subprocess.run([sys.executable, os.path.join(tree.root, "tools/mutants.py"), "--places"],
                         capture_output=True, text=True, check=False)
    found = re.findall(r"^FAIL (.*) (\S+)$", run.stdout, re.M)
    yield from (("tests/mutants", 1, f"{name}: {why}") for why, name in found)
    if run.returncode and not found:
        yield "tests/mutants", 1, "tools/mutants.py fails: " + run.stderr.strip()[-200:]


CHECKS = [check_contents, check_budgets, check_limits, check_top_level, check_documentation,
          check_tests, check_functions, check_text, check_forward, check_names, check_calls,
          check_object, check_makefile, check_digest, check_mutants]


def toc(tree):
    total = len(tree.lines(HEADER))
    for tag, name, budget, used in sections(tree):
        indent = "" if len(tag) == 1 else "  "
        print(f"{indent + '[' + tag + ']':<8} {name:<28} {used:>6} / {budget:>5}"
              f"{'  OVER' if used > budget else ''}")
    print(f"{'':<8} {'total':<28} {total:>6} / {AIM}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--toc", action="store_true", help="print lines used and budgets")
    parser.add_argument("--root", default=os.path.join(os.path.dirname(__file__), ".."))
    parser.add_argument("--only", default="", help="names of checks, separated by commas")
    args = parser.parse_args()
    tree = Tree(os.path.abspath(args.root))
    if args.toc:
        return toc(tree)
    only = [n for n in args.only.split(",") if n]
    passed = failed = 0
    for check in CHECKS:
        name = check.__name__[len("check_"):]
        if only and name not in only:
            continue
        findings = list(check(tree))
        for path, line, text in findings:
            print(f"{path}:{line}: {text}")
        print(f"FAIL {name} ({len(findings)})" if findings else f"ok   {name}")
        passed, failed = passed + (not findings), failed + bool(findings)
    lengths = [f[2] for f in functions(tree)]
    if lengths:
        over = len(tree.lines(HEADER)) - AIM
        print(f"{len(tree.lines(HEADER))} lines, {over:+} against the aim of {AIM}, "
              f"{len(lengths)} functions, "
              f"median {statistics.median(lengths):g} lines, longest {max(lengths)}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
