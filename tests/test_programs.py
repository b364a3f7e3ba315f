#!/usr/bin/env python3
"""test_programs.py -- train, predict, quantize and bench as a user meets them.

Runs the programs of build/ on a small model (one layer of width 32) and 200 made-up rows. Every
check prints "ok" or "FAIL"; ends with "N passed, N failed, N skipped". The parts, by subject, are
in programs/. DP_TEST_LONG=1 adds random kills; an argument is a word in the names of the tests to
run.
"""
import json
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from programs import (answering, building, habits, inputs, learning, measuring,  # noqa: E402
                      shrinking, stopping)
from programs.base import (BUILD, LONG, ROOT, check, counts, make_small, records,  # noqa: E402
                           run, write, write_csv)

MARKER = "zqxjkvbpygw7731canary"
CONFIG = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "intermediate_size": 64, "max_position_embeddings": 64, "vocab_size": 28996}
VOCAB = str(ROOT / "data/bert-base-cased-vocab.txt")


def rows(n, seed=1):
    """Texts that two words decide, three classes."""
    rng, out = random.Random(seed), []
    for _ in range(n):
        label = rng.randrange(3)
        words = rng.sample(["fever", "cough", "rash", "pain", "itching", "vomiting"], 2)
        out.append((" ".join(words + [["alpha", "beta", "gamma"][label]] * 2),
                    ["Flu", "Common Cold", "Hepatitis, \"B\""][label]))
    return out


def train(work, out, *more):
    return run("train", "--train", work / "train.csv", "--valid", work / "valid.csv", "--config",
               work / "config.json", "--vocab", VOCAB, "--case", "lower", "--seq-length", "32",
               "--output", out, "--lr", "5e-3", "--quiet", *more)


def test_train(work):
    code, out, err = train(work, work / "model", "--epochs", "4")
    check("train ends with 0, stdout empty", code == 0 and not out, err)
    names = {p.name for p in (work / "model").iterdir()}
    check("train writes a Hugging Face directory and nothing else",
          names == {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json",
                    "special_tokens_map.json", "training_report.json"}, names)
    config = json.loads((work / "model/config.json").read_text())
    check("labels are saved, in order of first appearance",
          config["id2label"][str(0)] == work_rows[0][1] and len(config["label2id"]) == 3, config)
    tokens = json.loads((work / "model/tokenizer_config.json").read_text())
    check("the case is saved", tokens["do_lower_case"] is True)
    report = json.loads((work / "model/training_report.json").read_text())
    check("the report holds every epoch", len(report["epochs"]) == 4, report)
    check("it learned", report["accuracy"] > 0.95, report["accuracy"])
    code, _, err = train(work, work / "model")
    check("an existing output is refused without --force", code == 2 and "force" in err, err)
    code, _, err = train(work, work / "nowhere/below")
    check("a missing parent ends with 1", code == 1, (code, err))
    write_csv(work / "single.csv", [("a", "x"), ("b", "x")])
    code, _, err = run("train", "--train", work / "single.csv", "--output", work / "m2", "--config",
                       work / "config.json", "--vocab", VOCAB)
    check("a single class ends with 4", code == 4 and not (work / "m2").exists(), err)
    write_csv(work / "other.csv", [("a", "unknown disease")])
    code, _, err = run("train", "--train", work / "train.csv", "--valid", work / "other.csv",
                       "--output", work / "m2", "--config", work / "config.json", "--vocab", VOCAB)
    check("a validation label that training lacks ends with 4", code == 4, (code, err))


def bytes_of(model):
    return (model / "model.safetensors").read_bytes()


def test_resume(work):
    for threads in ("1", "3"):
        code, _, err = train(work, work / f"t{threads}", "--epochs", "2", "--threads", threads)
        check(f"train --threads {threads}", code == 0, err)
    check("same bytes of weights for 1 and 3 threads",
          bytes_of(work / "t1") == bytes_of(work / "t3"))
    for attempt in range(8 if LONG else 2):
        out = work / f"killed{attempt}"
        command = [BUILD / "train", "--train", work / "train.csv", "--valid", work / "valid.csv",
                   "--config", work / "config.json", "--vocab", VOCAB, "--case", "lower",
                   "--seq-length", "32", "--output", out, "--lr", "5e-3", "--quiet", "--epochs",
                   "2", "--checkpoint-every", "2"]
        how = signal.SIGINT if attempt % 2 == 0 else signal.SIGKILL
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while not list(out.glob("*.dpck")) and process.poll() is None and time.time() < deadline:
            time.sleep(0.01)
        time.sleep(random.Random(attempt).random() * 0.2)
        process.send_signal(how)
        code = process.wait()
        if how == signal.SIGINT and code != 0:
            check("SIGINT ends with 130 and a checkpoint", code == 130 and
                  list(out.glob("*.dpck")), code)
        if code != 0:
            code, _, err = train(work, out, "--epochs", "2", "--checkpoint-every", "2", "--resume")
            check(f"--resume after signal {int(how)} ends with 0", code == 0, err)
        check("resumed weights are byte-equal", bytes_of(out) == bytes_of(work / "t1"))
        check("no checkpoint is left", not list(out.glob("*.dpck")))


def test_predict(work):
    model, texts = work / "model", [t for t, _ in work_rows[:7]]
    lines = "\n".join(texts).encode() + b"\n"
    code, out, err = run("predict", "--model", model, "--input", "-", "--lines", "--top", "2",
                         data=lines)
    got = records(out)
    check("predict reads lines from stdin", code == 0 and len(got) == 7, err)
    check("one record a row, in order, top 2 by probability",
          [r["id"] for r in got] == list(range(7)) and
          all(len(r["prognosis"]) == 2 for r in got) and
          all(list(r["prognosis"].values()) == sorted(r["prognosis"].values(), reverse=True)
              for r in got), got)
    for more in (["--batch-size", "1"], ["--batch-size", "3"], ["--batch-size", "-1"],
                 ["--threads", "3"], ["--isa", "scalar"], ["--isa", "avx2"]):
        code, again, err = run("predict", "--model", model, "--input", "-", "--lines", "--top",
                               "2", *more, data=lines)
        lacks = more[0] == "--isa" and code == 2
        check(f"predict {' '.join(more)}: the same bytes", lacks or again == out, err)
    code, again, _ = run("predict", "--saved_model_dir", model, "--input_file", "-", "--lines",
                         "--top=2", "--seq_length", "64", "--is_inc_int8", "--intel", data=lines)
    check("the kit's option names", code == 0 and again == out)
    code, kit, _ = run("predict", "--model", model, "--input", "-", "--lines", "--format", "kit",
                       data=lines)
    check("--format kit is one JSON object of the kit's shape",
          code == 0 and set(json.loads(kit)["predictions"][0]) == {"id", "prognosis"})
    for form in ("csv", "tsv"):
        code, table, err = run("predict", "--model", model, "--input", "-", "--lines", "--format",
                               form, data=lines)
        check(f"--format {form}", code == 0 and len(table.splitlines()) in (8, 36), table[:200])
    code, out, _ = run("predict", "--model", model, "--input", "-", "--lines", "--logits",
                       "--tokens", data=b"fever\n")
    record = records(out)[0]
    check("--logits and --tokens", len(record["logits"]) == 3 and record["input_ids"][0] == 101
          and record["input_ids"][-1] == 102, record)
    code, out, _ = run("predict", "--model", model, "--input", "-", "--lines",
                       data=b"word " * 2000000 + b"\n")
    check("a row of 10 MB is truncated and flagged", code == 0 and records(out)[0]["truncated"])
    write_csv(work / "empty.csv", [("", "Flu")])
    code, out, _ = run("predict", "--model", model, "--input", work / "empty.csv")
    check("an empty text is a document", code == 0 and len(records(out)) == 1)
    write_csv(work / "none.csv", [])
    code, out, err = run("predict", "--model", model, "--input", work / "none.csv")
    check("zero rows: 0 and a warning", code == 0 and not out and err, err)
    code, out, err = run("predict", "--model", model, "--input", work / "valid.csv", "--evaluate",
                         "--report", work / "report.json")
    report = json.loads((work / "report.json").read_text())
    check("--evaluate measures and reports", code == 0 and report["accuracy"] > 0.9 and
          "ccuracy" in err, err)
    code, out, err = run("predict", "--model", model, "--input", work / "valid.csv", "--benchmark",
                         "--runs", "3", "--warmup", "1", "--batch-size", "1")
    check("--benchmark", code == 0 and "ms" in err, err)
    code, out, err = run("predict", "--model", model, "--input", work / "valid.csv", "--isa",
                         "avx9000")
    check("an unknown level: 2", code == 2, err)


def damaged(work, name, change):
    """A copy of the model with one file changed; what predict says of it."""
    copy = work / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(work / "model", copy)
    change(copy)
    code, out, err = run("predict", "--model", copy, "--input", "-", "--lines", data=b"fever\n")
    check(f"model: {name}: 3, nothing on stdout", code == 3 and not out, (code, err))
    return err


def edit_config(key, value):
    def change(copy):
        config = json.loads((copy / "config.json").read_text())
        config[key] = value
        (copy / "config.json").write_text(json.dumps(config))
    return change


def spoil(copy, at, value):
    data = bytearray((copy / "model.safetensors").read_bytes())
    at = at if at >= 0 else len(data) + at
    data[at:at + len(value)] = value
    (copy / "model.safetensors").write_bytes(data)


def test_bad_models(work):
    err = damaged(work, "no config.json", lambda c: (c / "config.json").unlink())
    check("the message names the file", "config.json" in err, err)
    damaged(work, "config.json is no JSON", lambda c: write(c / "config.json", b"{"))
    damaged(work, "unknown model_type", edit_config("model_type", "gpt2"))
    damaged(work, "more layers than tensors", edit_config("num_hidden_layers", 2))
    damaged(work, "heads do not divide the width", edit_config("num_attention_heads", 3))
    damaged(work, "another width", edit_config("hidden_size", 64))
    damaged(work, "vocabulary larger than the table",
            lambda c: write(c / "vocab.txt", (c / "vocab.txt").read_bytes() + b"one\ntwo\n"))
    damaged(work, "vocabulary with a NUL", lambda c: write(c / "vocab.txt", b"[PAD]\n\0\n"))
    damaged(work, "truncated weights", lambda c: write(
        c / "model.safetensors", (c / "model.safetensors").read_bytes()[:-1]))
    err = damaged(work, "weights with a NaN", lambda c: spoil(c, -4, b"\0\0\xc0\x7f"))
    check("the message names the tensor", "'" in err, err)
    err = damaged(work, "only a tokenizer.json", lambda c: (c / "vocab.txt").rename(
        c / "tokenizer.json"))
    check("the message says that it is not read", "tokenizer.json is not read" in err, err)
    damaged(work, "no weights", lambda c: (c / "model.safetensors").unlink())
    damaged(work, "only a .bin", lambda c: (c / "model.safetensors").rename(
        c / "pytorch_model.bin"))

    def link(copy):
        (copy / "vocab.txt").rename(work / "vocab_elsewhere.txt")
        (copy / "vocab.txt").symlink_to(work / "vocab_elsewhere.txt")
    err = damaged(work, "a link inside the directory", link)
    check("the message names --follow-links", "follow-links" in err, err)
    code, out, err = run("predict", "--model", work / "damaged", "--follow-links", "--input", "-",
                         "--lines", data=b"fever\n")
    check("--follow-links opens it", code == 0 and len(records(out)) == 1, err)


def test_quantize(work):
    code, out, err = run("quantize", "--model", work / "model", "--output", work / "int8", "--data",
                         work / "valid.csv")
    check("quantize", code == 0 and not out, err)
    sizes = [(work / d / "model.safetensors").stat().st_size for d in ("model", "int8")]
    code, out, err = run("predict", "--model", work / "int8", "--input", work / "valid.csv",
                         "--evaluate", "--report", work / "r8.json")
    accuracy = json.loads((work / "r8.json").read_text())["accuracy"]
    check("predict opens INT8 with no flag, as accurate", code == 0 and accuracy > 0.9, accuracy)
    config = json.loads((work / "int8/config.json").read_text())["quantization_config"]
    check("the layout is compressed-tensors int-quantized", config["format"] == "int-quantized" and
          config["ignore"] == ["classifier"], config)
    code, _, err = run("quantize", "--model", work / "model", "--output", work / "int8e",
                       "--embeddings", "int8", "--criterion", "none", "--data", work / "valid.csv")
    small = (work / "int8e/model.safetensors").stat().st_size
    check("--embeddings int8 is a quarter", code == 0 and small < 0.3 * sizes[0], (small, sizes))
    code, _, err = run("quantize", "--model", work / "int8", "--output", work / "again", "--data",
                       work / "valid.csv")
    check("an INT8 model is not quantized again: 3", code in (2, 3) and
          not (work / "again").exists(), (code, err))
    outs = {run("predict", "--model", work / "int8", "--input", work / "valid.csv", "--logits",
                "--isa", isa)[1] for isa in ("scalar", "auto")}
    check("INT8 logits are the same bytes on the scalar row", len(outs) == 1)


def test_canary(work):
    """A marker in every text: never in a message, a log, a model or a checkpoint."""
    data = [(f"{MARKER} {text}", label) for text, label in work_rows]
    write_csv(work / "secret.csv", data)
    out = work / "secret_model"
    code, stdout, err = run("train", "--train", work / "secret.csv", "--config",
                            work / "config.json", "--vocab", VOCAB, "--output", out, "--epochs",
                            "1", "--logfile", work / "secret.log", "--checkpoint-every", "1")
    said = stdout.decode() + err + (work / "secret.log").read_text()
    code, stdout, err = run("predict", "--model", out, "--input", work / "secret.csv",
                            "--evaluate")
    said += stdout.decode() + err
    write(work / "secret_bad.csv", f"symptoms,prognosis\n{MARKER}\n{MARKER},Flu\n")
    for program in (["predict", "--model", out, "--input", work / "secret_bad.csv"],
                    ["quantize", "--model", out, "--output", work / "q", "--data",
                     work / "secret.csv"]):
        _, stdout, err = run(*program)
        said += stdout.decode() + err
    check("no text in what the programs say", MARKER not in said)
    files = [p for d in (out, work / "q") if d.exists() for p in d.iterdir()]
    found = [p for p in files if MARKER.encode() in p.read_bytes()]
    check("no text in what they write", files and not found, found)


work_rows = rows(200)


def run_all(work):
    write_csv(work / "train.csv", work_rows)
    write_csv(work / "valid.csv", rows(40, seed=2))
    write(work / "config.json", json.dumps(CONFIG))
    make_small(work)
    slow = habits.Slow.both(work) if WANTED in "test_slow" else ()
    tests = [t for part in (habits, inputs, answering, learning, stopping, shrinking, measuring,
                                 building)
             for name, t in vars(part).items() if name.startswith("test_")]
    tests = [t for t in tests if t is not habits.test_slow]
    tests += [test_train, test_predict, test_bad_models, test_quantize, test_resume, test_canary]
    if not LONG:
        tests.remove(stopping.test_random_kills)
    tests = [t for t in tests if WANTED in t.__name__]
    for test in tests:
        try:
            test(work)
        except Exception as error:  # a crash of a test is a failure, not the end
            check(f"{test.__name__} runs through", False, repr(error))
    if slow:
        habits.test_slow(work, *slow)


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    with tempfile.TemporaryDirectory() as scratch:
        run_all(pathlib.Path(scratch))
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] != 0


WANTED = sys.argv[1] if len(sys.argv) > 1 else ""
sys.exit(main())
