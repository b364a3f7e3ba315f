"""habits.py -- options, help, version, log and progress: what every program has in common."""
import ctypes
import json
import os
import pty
import re
import select
import shutil
import stat
import struct
import subprocess
import time

from .base import (BUILD, LEVELS, PROGRAMS, ROOT, check, load, predict, quick, records, rows,
                   run, skip, write, write_csv)

COMMON = {"input-format": "auto", "lines": "", "text-column": "symptoms", "pair-column": "none",
          "label-column": "prognosis", "threads": "0", "isa": "auto", "seed": "0", "force": "",
          "follow-links": "", "quiet": "", "logfile": "", "log-json": "", "intel": "", "help": "",
          "version": ""}
# Every option of the contract and the beginning of its default; "" where it has none.
OPTIONS = {
    "train": dict(COMMON, **{
        "data": "", "train": "", "valid": "", "model": "", "config": "mini", "vocab": "data/",
        "output": "", "epochs": "3", "batch-size": "30", "seq-length": "64",
        "lr": "1e-5 with --model, 5e-4 without", "optimizer": "adam", "weight-decay": "0",
        "warmup": "0", "schedule": "constant", "grad-norm": "10", "dropout": "the model's",
        "case": "model", "dtype": "f32", "bf16": "", "accumulate": "1", "checkpoint-every": "1000",
        "resume": ""}),
    "predict": dict(COMMON, **{
        "model": "", "input": "", "format": "jsonl", "output": "-", "top": "5",
        "batch-size": "auto", "seq-length": "512", "dtype": "f32", "bf16": "", "is-inc-int8": "",
        "case": "model", "logits": "", "tokens": "", "evaluate": "", "report": "", "benchmark": "",
        "runs": "100", "warmup": "20"}),
    "quantize": dict(COMMON, **{
        "model": "", "output": "", "data": "", "approach": "dynamic", "criterion": "relative:0.01",
        "strategy": "", "max-trials": "", "timeout": "", "allow": "", "deny": "", "weights": "",
        "bf16": "", "embeddings": "keep", "config": "", "export-config": "", "import-config": "",
        "diagnose": "", "batch-size": "10", "seq-length": "512"})}
KIT = {"train": {"data": "data_dir", "model": "bert_model", "output": "save_model_dir"},
       "predict": {"model": "saved_model_dir", "input": "input_file",
                   "benchmark": "benchmark_mode", "runs": "n_runs"},
       "quantize": {"model": "saved_model_dir", "output": "output_dir", "data": "input_file",
                    "config": "inc_config_file"}}


def help_entries(text):
    """Each option's text in --help, which may go over two lines."""
    found = re.findall(r"^  --([a-z0-9-]+)(.*(?:\n {10,}.*)*)", text, re.M)
    return {name: rest for name, rest in found}


def time_of(*words):
    start = time.perf_counter()
    run(*words)
    return time.perf_counter() - start


def test_help(work):
    for program in PROGRAMS:
        code, out, err = run(program, "--help")
        entries, table = help_entries(out.decode()), OPTIONS[program]
        check(f"{program}: --help: exit 0, stderr empty", code == 0 and not err, err)
        check(f"{program}: --help lists the options of the contract and no more, each once",
              set(table) | {"labels"} == set(entries) | {"labels"} and
              len(re.findall(r"^  --", out.decode(), re.M)) == len(entries),
              set(table) ^ set(entries))
        lost = [o for o, d in table.items() if d and not re.search(
            r"\[" + re.escape(d), entries.get(o, ""))]
        check(f"{program}: --help shows every default in brackets", not lost, lost)
        lost = [k for o, k in KIT[program].items() if f"--{k}" not in entries.get(o, "")]
        check(f"{program}: --help names the kit's spelling", not lost, lost)
        best = min(time_of(program, "--help") for _ in range(5))
        for _ in range(20):  # a machine with other work: only a slow program stays slow
            best = best if best < 0.020 else min(best, time_of(program, "--help"))
        check(f"{program}: --help within 20 ms ({best * 1e3:.1f})", best < 0.020)
        code, out, err = run(program)
        check(f"{program}: no arguments: a short usage with an example, 2, stdout empty",
              code == 2 and not out and "usage: " + program in err and "example: " in err and
              err.count("\n") <= 4, err)


def refuse_tiles():
    """For a child: arch_prctl(ARCH_REQ_XCOMP_PERM) gives EPERM, as a container's filter may."""
    steps = ((0x20, 0, 0, 0), (0x15, 0, 3, 158),     # the number of the call: arch_prctl?
             (0x20, 0, 0, 16), (0x15, 0, 1, 0x1023),  # its first argument
             (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000))
    rules = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *s) for s in steps))
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which a filter needs
    libc.prctl(22, 2, struct.pack("HP", len(steps), ctypes.addressof(rules)))  # PR_SET_SECCOMP


def test_tiles_refused(work):
    if not re.search(rb"^  amx +selected", run("predict", "--version")[1], re.M):
        skip("AMX that the system refuses", "no AMX here")
        return
    asked = ["--model", work / "small", "--input", work / "small.csv"]
    said = run("predict", "--version", preexec_fn=refuse_tiles)[1]
    check("--version: the system refuses AMX, another level is selected",
          re.search(rb"amx +the operating system refuses AMX", said) and b"selected" in said, said)
    check("a refused AMX changes no answer", run("predict", *asked) ==
          run("predict", *asked, preexec_fn=refuse_tiles))
    code, out, err = run("predict", *asked, "--isa", "amx", preexec_fn=refuse_tiles)
    check("--isa amx where the system refuses it: 2 and why", code == 2 and not out and
          "refuses AMX" in err, err)


def test_version(work):
    for program in PROGRAMS:
        code, out, err = run(program, "--version")
        lines = out.decode().splitlines()
        check(f"{program}: --version: name and version, compiler, exit 0", code == 0 and not err and
              re.match(program + r" \d+\.\d+\.\d+$", lines[0]) and
              re.match(r"compiler: (gcc|clang|tcc) \d", lines[1]), out)
        levels = dict(line.split(None, 1) for line in lines[3:])
        best = lines[2].removeprefix("instruction set: ")
        check(f"{program}: --version says of every level: selected, available or what is missing",
              set(levels) == set(LEVELS) and levels[best] == "selected" and
              list(levels.values()).count("selected") == 1, out)
    missing = [level for level, say in levels.items() if say not in ("selected", "available")]
    for level in missing:
        code, out, err = predict("x", "y", "--isa", level)
        check(f"--isa {level}, which this CPU lacks: 2 and why", code == 2 and not out and
              levels[level] in err, err)
    if shutil.which("valgrind") is None:
        skip("--isa of a level that the CPU lacks", "needs valgrind, whose CPU has no AVX-512")
        return
    tool = ["valgrind", "-q", BUILD / "predict"]
    done = subprocess.run([*tool, "--version"], capture_output=True)
    check("--version says why a better level was not selected",
          re.search(rb"avx512 +(?!selected|available)\S.*", done.stdout), done.stdout)
    done = subprocess.run([*tool, "--model", work / "small", "--input", work / "small.csv",
                           "--isa", "avx512"], capture_output=True)
    check("--isa of a level that the CPU lacks: 2, stdout empty",
          done.returncode == 2 and not done.stdout and b"avx512" in done.stderr, done.stderr)


TRAIN = {"epochs": 2, "batch-size": 8, "seq-length": 16, "lr": 0.001, "optimizer": "adamw",
         "weight-decay": 0.01, "warmup": 2, "schedule": "linear", "grad-norm": 1, "dropout": 0.2,
         "case": "keep", "dtype": "f32", "accumulate": 2, "checkpoint-every": 3, "seed": 5,
         "threads": 1, "isa": "scalar", "input-format": "csv", "text-column": "symptoms",
         "label-column": "prognosis"}
PREDICT = {"format": "jsonl", "top": 2, "batch-size": 3, "seq-length": 16, "dtype": "f32",
           "case": "keep", "input-format": "csv", "text-column": "symptoms",
           "label-column": "prognosis", "threads": 1, "isa": "scalar", "seed": 5}
QUANTIZE = {"approach": "dynamic", "criterion": "absolute:0.5", "embeddings": "int8",
            "batch-size": 7, "seq-length": 16, "threads": 1, "isa": "scalar", "seed": 5,
            "input-format": "csv", "text-column": "symptoms", "label-column": "prognosis"}


def spellings(values, flags):
    """The same options as words: --a-b v, --a_b v, --a-b=v, --a_b=v."""
    for name in (lambda o: o, lambda o: o.replace("-", "_")):
        mark = [f"--{name(f)}" for f in flags]
        yield [w for o, v in values.items() for w in (f"--{name(o)}", str(v))] + mark
        yield [f"--{name(o)}={v}" for o, v in values.items()] + mark


def test_spellings(work):
    """Reports hold the options that a run used: each must be the one that was given."""
    flags = {"train": ["quiet", "force", "follow-links", "log-json", "intel"],
             "predict": ["quiet", "force", "follow-links", "log-json", "logits", "tokens",
                         "evaluate", "intel", "is-inc-int8"],
             "quantize": ["quiet", "force", "follow-links", "log-json", "intel"]}
    for program, values in (("train", TRAIN), ("predict", PREDICT), ("quantize", QUANTIZE)):
        seen, wrong = [], []
        for i, words in enumerate(spellings(values, flags[program])):
            out = work / f"spelling_{program}"
            fixed = {"train": ["--train", work / "small.csv", "--config", work / "small.json",
                               "--vocab", work / "small_vocab.txt", "--output", out],
                     "predict": ["--model", work / "small", "--input", work / "small.csv",
                                 "--report", out],
                     "quantize": ["--model", work / "small", "--output", out, "--data",
                                  work / "small.csv"]}[program]
            code, stdout, err = run(program, *fixed, *words)
            report = load({"train": out / "training_report.json", "predict": out,
                           "quantize": out / "diseasepred.json"}[program])["options"]
            wrong += [(i, o, v, report.get(o)) for o, v in values.items() if report.get(o) != v]
            wrong += [(i, f) for f in flags[program] if "int" not in f and not report.get(f)]
            seen.append((code, stdout))
        check(f"{program}: --a-b v, --a_b v, --a-b=v and --a_b=v are the same", not wrong and
              seen[0][0] == 0 and seen.count(seen[0]) == 4, (wrong, seen[0][0], err))


def test_kit_names(work):
    write(work / "kit/x", "") if (work / "kit").exists() else (work / "kit").mkdir()
    shutil.copy(work / "small.csv", work / "kit/Training.csv")
    shutil.copy(work / "small_valid.csv", work / "kit/Testing.csv")
    code, _, err = run("train", "--data_dir", work / "kit", "--bert_model", work / "small",
                       "--save_model_dir", work / "kit_model", "--logfile", work / "kit.log",
                       "--intel", "--seq_length", "32", "--batch_size", "30", "--epochs", "1",
                       "--grad_norm", "10.0")
    check("train: the command of the kit, word for word", code == 0 and
          (work / "kit_model/config.json").exists() and (work / "kit.log").exists(), err)
    check("--data DIR reads Training.csv and Testing.csv", code == 0 and
          [load(work / "kit_model/training_report.json")[k]["rows"] for k in ("train", "valid")]
          == [100, 40])
    code, out, err = run("predict", "--saved_model_dir", work / "small", "--input_file",
                         work / "small.csv", "--batch_size", "-1", "--benchmark_mode", "--intel",
                         "--is_inc_int8", "--seq_length", "64", "--n_runs", "3", "--warmup=1")
    check("predict: the command of the kit, word for word", code == 0 and not out and
          "batch of 100 rows" in err, err)
    code, out, err = run("quantize", "--input_file", work / "small.csv", "--batch_size", "10",
                         "--saved_model_dir", work / "small", "--output_dir", work / "kit_int8",
                         "--seq_length", "64")
    check("quantize: the command of the kit", code == 0 and
          (work / "kit_int8/config.json").exists(), err)


def refused(program, *words):
    """'' when the words are refused with 2, a sentence and nothing on stdout."""
    code, out, err = run(program, *words)
    return "" if code == 2 and not out and len(err) > 20 else f"{words[-2:]}: {code} {err}"


def test_bad_values(work):
    paths = {"train": ["--train", work / "small.csv", "--output", work / "never"],
             "predict": ["--model", work / "small", "--input", work / "small.csv"],
             "quantize": ["--model", work / "small", "--output", work / "never"]}
    whole = {"train": ["epochs", "batch-size", "seq-length", "accumulate", "checkpoint-every",
                       "seed", "threads"],
             "predict": ["top", "batch-size", "seq-length", "runs", "warmup", "threads", "seed"],
             "quantize": ["batch-size", "seq-length", "threads", "seed"]}
    real = {"train": ["lr", "weight-decay", "warmup", "grad-norm", "dropout"], "predict": [],
            "quantize": []}
    for program, fixed in paths.items():
        tries = [(o, v) for o in whole[program]
                 for v in ("x", "", "1.5", "nan", "inf", "-2", "0x10", "99999999999999999999")]
        tries += [("seed", v) for v in ("9007199254740992", "9007199254740993")]
        tries += [(o, v) for o in real[program]
                  for v in ("nan", "NAN", "inf", "-inf", "1e999", "x", "", "1,5", "-1")]
        tries += [(o, "sideways") for o in ("dtype", "case", "format", "optimizer", "schedule",
                                            "isa", "input-format", "approach", "embeddings",
                                            "criterion") if o in OPTIONS[program]]
        bad = [b for o, v in tries if (b := refused(program, *fixed, f"--{o}={v}"))]
        check(f"{program}: values that are none, nan and inf among them: 2 ({len(tries)} tried)",
              not bad, bad)
        bad = [b for f in ("quiet", "force", "log-json") if (
            b := refused(program, *fixed, f"--{f}=1"))]
        check(f"{program}: a flag takes no value: 2", not bad, bad)
        bad = [b for o in OPTIONS[program] if o in whole[program] + real[program] + ["isa", "model"]
               if (b := refused(program, *fixed, f"--{o}"))]
        check(f"{program}: a value that is missing: 2", not bad, bad)
        code, _, err = run(program, *fixed, "stray")
        check(f"{program}: a word that is no option: 2, not quoted", code == 2 and
              "stray" not in err, err)
        for wrong, near in (("--modle", "--model"), ("--batchsize", "--batch-size"),
                            ("--thread=2", "--threads"), ("--foce", "--force"),
                            ("--hepl", "--help")):
            code, _, err = run(program, wrong, "x")
            check(f"{program} {wrong}: 2, the nearest one is suggested",
                  code == 2 and f"did you mean {near}?" in err, err)
        code, _, err = run(program, "--xyzzyqwertz")
        check(f"{program}: an option like no other: 2, no suggestion",
              code == 2 and "mean" not in err, err)
    bad = [b for words in ([], ["--train", work / "small.csv"], ["--output", work / "never"],
                           ["--data", work, "--train", "x", "--output", work / "never"])
           if (b := refused("train", *words, "--quiet"))]
    bad += [b for words in (["--model", "x"], ["--input", "x"])
            if (b := refused("predict", *words))]
    bad += [b for words in (["--model", "x"], ["--output", work / "never"])
            if (b := refused("quantize", *words))]
    bad += [refused("quantize", *paths["quantize"], "--criterion", c) for c in (
        "relative:", "absolute:x", "relative:nan", "absolute:inf", "relative:-1", "0.01")
        if refused("quantize", *paths["quantize"], "--data", work / "small.csv", "--criterion", c)]
    bad += [b for o in (["--lr", "1e30"], ["--batch-size", "100000"], ["--accumulate", "65537"],
                        ["--lr", "1", "--weight-decay", "2"])
            if (b := refused("train", *paths["train"], "--config", "tiny", "--vocab",
                             ROOT / "data/bert-base-cased-vocab.txt", *o))]
    bad += [b for o in (["--config", "tiny"], ["--vocab", work / "small_vocab.txt"])
            if (b := refused("train", *paths["train"], "--model", work / "small", *o))]
    check("options that are needed, or exclude each other, or a criterion that is none: 2",
          not bad, bad)
    bad = [refused("predict", "--model", work / "small", "--input", work / "small.csv", "--format",
                   f, o) for f in ("kit", "csv", "tsv") for o in ("--logits", "--tokens")]
    check("--logits and --tokens with another format than jsonl: 2", not any(bad), bad)
    check("nothing was written", not (work / "never").exists())


def test_later(work):
    """Capabilities that come later are refused, never ignored."""
    tries = [("quantize", words) for words in (
        ["--approach", "static"], ["--approach", "auto"], ["--approach", "qat"], ["--bf16"],
        ["--strategy", "basic"], ["--strategy", "mse_v2"], ["--max-trials", "5"],
        ["--timeout", "0"], ["--allow", "x"], ["--deny", "x"], ["--config", "x"],
        ["--inc_config_file", "x"], ["--export-config", "x"], ["--import_config=x"],
        ["--diagnose"])]
    for program, words in tries:
        code, out, err = run(program, *words, "--model", "x", "--output", "y", "--input", "z")
        check(f"{program} {' '.join(words)}: 2, a sentence says that this version lacks it",
              code == 2 and not out and "not available in this version" in err and
              words[0].split("=")[0].lstrip("-") in err, err)


def test_log(work):
    log = work / "run.log"
    code, out, err = quick(work, work / "logged", "--epochs", "2", "--logfile", log)
    check("--logfile: the same messages as on stderr, with the time", code == 0 and
          [line.split(": ", 1)[1] for line in log.read_text().splitlines()] ==
          [re.sub("^warning: ", "", line.split(": ", 1)[1]) for line in err.splitlines()] and
          all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ train (info|warning)", line)
              for line in log.read_text().splitlines()), log.read_text() + err)
    check("the log is private", stat.S_IMODE(log.stat().st_mode) == 0o600)
    size = log.stat().st_size
    code, _, _ = quick(work, work / "logged", "--epochs", "1", "--force", "--logfile", log)
    check("a log is appended to", code == 0 and log.stat().st_size > size)
    code, _, err = quick(work, work / "logged", "--epochs", "2", "--force", "--log-json",
                         "--logfile", work / "json.log")
    lines = [json.loads(line) for line in err.splitlines()]
    check("--log-json: one object a line, on stderr and in the file", code == 0 and lines and
          all(set(o) == {"time", "program", "level", "message"} for o in lines) and
          (work / "json.log").read_text() == err, err)
    code, out, err = predict(work / "small", work / "nothing.csv", "--log-json")
    check("--log-json: an error is an object as well", code == 4 and not out and
          json.loads(err.splitlines()[0])["level"] == "error", err)
    code, _, err = quick(work, work / "logged2", "--logfile", work / "nowhere/x.log")
    check("a log that cannot be opened: 1, nothing written", code == 1 and
          not (work / "logged2").exists(), err)
    log = work / "logged3/run.log"
    code, _, err = quick(work, work / "logged3", "--logfile", log)
    check("a log in the new output directory", code == 0 and log.stat().st_size > 0 and
          (work / "logged3/model.safetensors").exists(), err)
    ends = [quick(work, work / "logged2", "--logfile", "-"),
            predict(work / "small", work / "small.csv", "--logfile", "-")]
    check("--logfile -: 2, stdout carries data only", all(
        code == 2 and not out and "data only" in err for code, out, err in ends) and
          not (work / "logged2").exists(), ends)
    code, _, err = quick(work, work / "seeded", "--epochs", "0", "--seed", "77")
    check("--seed is printed", "seed 77" in err, err)


def test_threads(work):
    _, _, err = quick(work, work / "pinned", "--epochs", "0",
                      preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
    check("threads: 1 when one core may be used", "1 threads" in err, err)
    _, _, a = quick(work, work / "pinned", "--epochs", "0", "--force")
    _, _, b = quick(work, work / "pinned", "--epochs", "0", "--force", "--threads", "0")
    found = [re.search(r"(\d+) threads", err).group(1) for err in (a, b)]
    cores = len(os.sched_getaffinity(0))
    check("--threads 0 is the default: at most the cores of the affinity mask",
          found[0] == found[1] and 1 <= int(found[0]) <= cores, (found, cores))
    _, _, err = quick(work, work / "pinned", "--epochs", "0", "--force", "--threads", "3")
    check("--threads 3 is taken at its word", "3 threads" in err, err)


def on_terminal(command, **environment):
    """What a command says when stderr is a terminal."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    env.update({"TERM": "xterm"}, **environment)
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=theirs, env=env)
    os.close(theirs)
    said = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    process.wait()
    return said.decode("utf-8", "replace")


def test_terminal(work):
    command = [BUILD / "train", "--train", work / "small.csv", "--config", work / "small.json",
               "--vocab", work / "small_vocab.txt", "--output", work / "bars", "--force",
               "--epochs", "60", "--dropout", "0", "--seq-length", "64", "--batch-size", "1",
               "--isa", "scalar", "--threads", "1"]
    write(work / "many.txt", "\n".join(text for text, _ in rows(9000)) + "\n")
    bar = r"\[[#.]{20}\] \d+/6000 steps, [\d.]+/s, \d+:\d\d left, loss \d\.\d"
    said = on_terminal(command)
    check("on a terminal: a bar with rate, remaining time and loss", re.search(bar, said), said)
    check("no colour, no escape sequence", "\x1b" not in said)
    check("the bar is wiped before a message", re.search(r"\r +\rtrain: epoch", said), said)
    said = on_terminal(command, NO_COLOR="1")
    check("NO_COLOR: no escape sequence", "\x1b" not in said and "epoch" in said, said)
    said = on_terminal(command, TERM="dumb")
    check("TERM=dumb: no bar", "#" not in said and "left" not in said and "epoch" in said, said)
    said = on_terminal(command + ["--quiet"])
    check("--quiet: no bar", "left" not in said, said)
    said = on_terminal([BUILD / "predict", "--model", work / "small", "--input", work / "many.txt",
                        "--isa", "scalar", "--threads", "1", "--batch-size", "1"])
    check("predict on a terminal: rows and rate", re.search(r"\d+ rows, [\d.]+/s", said), said)
    write_csv(work / "many.csv", rows(9000))
    said = on_terminal([BUILD / "quantize", "--model", work / "small", "--output", work / "bars8",
                        "--data", work / "many.csv", "--isa", "scalar", "--threads", "1"])
    check("quantize on a terminal: a bar while it measures", re.search(
        r"\[[#.]{20}\] \d+/9000 rows, [\d.]+/s, \d+:\d\d left", said), said)


class Slow:
    """predict fed one row now and one after ten seconds; it runs beside the other tests."""

    def __init__(self, work, *more):
        self.process = subprocess.Popen(
            [str(BUILD / "predict"), "--model", str(work / "small"), "--input", "-", "--lines",
             *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.started = time.monotonic()
        self.process.stdin.write(b"fever alpha\n")
        self.process.stdin.flush()
        self.first = select.select([self.process.stdout], [], [], 5)[0] != []

    @classmethod
    def both(cls, work):
        return cls(work), cls(work, "--quiet")

    def end(self):
        for late in (10.5, 10.8):
            time.sleep(max(0, self.started + late - time.monotonic()))
            self.process.stdin.write(b"cough beta\n")
            self.process.stdin.flush()
            time.sleep(0.2)
        out, err = self.process.communicate(timeout=60)
        return len(records(out)), err.decode()


def test_digest(work):
    code, out, err = run("selftest")
    digests = re.findall(r"^\S+ +\d+ threads +([0-9a-f]{64})$", out.decode(), re.M)
    readme = re.findall(r"^    ([0-9a-f]{64})$", (ROOT / "README.md").read_text(), re.M)
    check("selftest: one digest for every kernel row and 1, 2, 3 threads", code == 0 and
          len(digests) >= 3 and len(digests) % 3 == 0 and len(set(digests)) == 1,
          out + err.encode())
    check("the README has it", readme == digests[:1], readme)
    source = (ROOT / "tools/selftest.c").read_text()
    write(work / "other.c", source.replace('"' + digests[0][:4], '"0000')
          .replace("../diseasepred.h", str(ROOT / "diseasepred.h")))
    for name, flags, code in (("a wrong one: 1", [], 1), ("parts left out: 0",
                                                          ["-DDP_NO_QUANTIZE"], 0)):
        subprocess.run([*os.environ.get("CC", "cc").split(), "-std=c99", "-O1", "-w", *flags,
                        "-DDP_NO_SIMD", "-D_GNU_SOURCE", work / "other.c", "-o", work / "other",
                        "-lm", "-lpthread"], check=True)
        done = subprocess.run([work / "other"], capture_output=True, text=True)
        check(f"selftest: {name}", done.returncode == code and
              ("but README.md has 0000" in done.stdout) == (code == 1), done)


def test_bench(work):
    """Every case has a time; what it is asserts nothing."""
    for group, least in (("tokenize", 3), ("gemm", 10)):
        code, out, err = run("bench", group, "--rounds=1", "--rows=64", "--json", cwd=ROOT)
        times = [json.loads(line)["median"] for line in out.splitlines()]
        check(f"bench {group}: every case has a time", code == 0 and len(times) >= least and
              all(t > 0 for t in times), err)


def test_slow(work, loud, quiet):
    check("records are flushed with their batch: the first comes before the second is sent",
          loud.first)
    n, err = loud.end()
    check("without a terminal: one line after ten seconds, not one a batch",
          n == 3 and err.count("\n") == 1 and re.search(r"2 rows, [\d.]+/s", err), err)
    n, err = quiet.end()
    check("--quiet: no such line", n == 3 and not err, err)
