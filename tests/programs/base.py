"""base.py -- what every part of test_programs.py uses: checks, runs, files and small models."""
import csv
import json
import os
import pathlib
import random
import struct
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build"
LONG = os.environ.get("DP_TEST_LONG") == "1"
PROGRAMS = ("train", "predict", "quantize")
LEVELS = ("scalar", "avx2", "avx-vnni", "avx512", "avx512-vnni", "avx512-bf16", "amx")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["fever", "cough", "rash", "pain", "itching", "vomiting", "alpha", "beta", "gamma",
         "delta", "epsilon", "zeta", "eta"]
CLASSES = ["Flu", "Common Cold", 'Hepatitis, "B"', "Acne", "Gout", "Measles", "Mumps"]
GEOMETRY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 64, "max_position_embeddings": 64}
counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(name, truth, detail=""):
    counts["passed" if truth else "failed"] += 1
    print(f"{'ok  ' if truth else 'FAIL'} {name}{'' if truth else '  ' + str(detail)[:400]}",
          flush=True)


def skip(name, reason):
    counts["skipped"] += 1
    print(f"SKIP {name}: {reason}", flush=True)


def run(program, *args, data=b"", **more):
    """A program's end: exit code, stdout, stderr."""
    done = subprocess.run([str(BUILD / program), *map(str, args)], input=data, capture_output=True,
                          timeout=300, **more)
    return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")


def write(path, text):
    pathlib.Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_csv(path, data, header=("symptoms", "prognosis")):
    with open(path, "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(header)
        w.writerows(data)
    return path


def write_jsonl(path, objects):
    return write(path, "".join(json.dumps(o) + "\n" for o in objects))


def load(path):
    return json.loads(pathlib.Path(path).read_text())


def records(out):
    return [json.loads(line) for line in out.decode().splitlines()]


def answers(out):
    """Classes and probabilities only, without ids."""
    return [r["prognosis"] for r in records(out)]


def rows(n, seed=1, classes=3):
    """Texts of small words whose last word decides the class."""
    rng, out = random.Random(seed), []
    for _ in range(n):
        label = rng.randrange(classes)
        out.append((" ".join(rng.sample(WORDS[:6], 2) + [WORDS[6 + label]] * 2), CLASSES[label]))
    return out


def weights(model):
    return (model / "model.safetensors").read_bytes()


def read_tensors(model):
    """The weights by name: [dtype, shape, bytes]."""
    data = weights(model)
    size = struct.unpack("<Q", data[:8])[0]
    head, body = json.loads(data[8:8 + size]), data[8 + size:]
    head.pop("__metadata__", None)
    return {n: [t["dtype"], t["shape"], body[slice(*t["data_offsets"])]] for n, t in head.items()}


def write_tensors(model, tensors):
    head, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape,
                      "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    write(model / "model.safetensors", struct.pack("<Q", len(text)) + text + body)


def edit_config(model, **changes):
    config = load(model / "config.json")
    config.update(changes)
    write(model / "config.json", json.dumps(config))


def quick(work, out, *more, **how):
    """Trains the small model, a new one unless --model names it; later options win over these."""
    new = ["--config", work / "small.json", "--vocab", work / "small_vocab.txt"]
    return run("train", "--train", work / "small.csv", "--valid", work / "small_valid.csv",
               *([] if "--model" in more else new), "--output", out, "--lr", "5e-3", *more, **how)


def predict(model, path="-", *more, data=b"", **how):
    return run("predict", "--model", model, "--input", path, *more, data=data, **how)


def make_small(work):
    """A small vocabulary, data of three classes, a trained model, and a new one of seven."""
    write(work / "small_vocab.txt", "\n".join(SPECIAL + WORDS) + "\n")
    write(work / "small.json", json.dumps(dict(GEOMETRY, vocab_size=len(SPECIAL + WORDS))))
    write_csv(work / "small.csv", rows(100))
    write_csv(work / "small_valid.csv", rows(40, seed=2))
    write_csv(work / "seven.csv", rows(60, seed=3, classes=7))
    code, _, err = quick(work, work / "small", "--epochs", "30")
    check("the small model is trained", code == 0, err)
    code, _, err = quick(work, work / "seven", "--epochs", "0", "--train", work / "seven.csv",
                         "--valid", work / "seven.csv")
    check("--epochs 0 saves the starting model", code == 0 and (work / "seven/config.json")
          .exists(), err)
