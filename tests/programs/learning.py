"""learning.py -- train: what every option does, what is printed, what is written."""
import hashlib
import json
import math
import re
import shutil

from .base import (CLASSES, GEOMETRY, SPECIAL, WORDS, check, load, predict, quick, read_tensors,
                   records, rows, run, weights, write, write_csv)


def learned(work, *more):
    """The weights after two epochs with some options."""
    code, _, err = quick(work, work / "option", "--epochs", "2", "--batch-size", "16", "--force",
                         *more)
    if code != 0:
        check(f"train {' '.join(map(str, more))}", False, err)
        return b""
    return weights(work / "option")


def test_options(work):
    base = learned(work)
    for words in (["--threads", "1"], ["--threads", "3"], ["--isa", "scalar"], ["--seed", "0"],
                  ["--optimizer", "adam"], ["--weight-decay", "0"], ["--warmup", "0"],
                  ["--schedule", "constant"], ["--grad-norm", "10"], ["--accumulate", "1"],
                  ["--dtype", "f32"], ["--checkpoint-every", "0"], ["--checkpoint-every", "2"],
                  ["--case", "lower"], ["--case", "model"], ["--quiet"], ["--log-json"]):
        check(f"train {' '.join(words)}: the same bytes of weights", learned(work, *words) == base)
    for words in (["--seed", "1"], ["--lr", "4e-3"], ["--optimizer", "adamw", "--weight-decay",
                  "0.1"], ["--weight-decay", "0.1"], ["--warmup", "3"], ["--warmup", "0.5"],
                  ["--schedule", "linear"], ["--grad-norm", "1e-6"], ["--dropout", "0"],
                  ["--dropout", "0.3"], ["--accumulate", "2"], ["--batch-size", "10"],
                  ["--epochs", "3"], ["--seq-length", "4"]):
        check(f"train {' '.join(words)}: other weights", learned(work, *words) not in (base, b""))
    same = [("--warmup 0.5 is half of the 14 steps", ["--warmup", "0.5"], ["--warmup", "7"]),
            ("--warmup 2 is two steps", ["--warmup", "2"], ["--warmup", "0.142"]),
            ("--accumulate 2 of 8 rows is a batch of 16", [],
             ["--batch-size", "8", "--accumulate", "2"]),
            ("--batch-size -1 is all rows", ["--batch-size", "-1"], ["--batch-size", "100"]),
            ("--grad-norm 0 clips nothing", ["--grad-norm", "0"], ["--grad-norm", "1e9"])]
    for name, a, b in same:
        check(f"train: {name}", learned(work, *a) == learned(work, *b))
    many = write_csv(work / "many.csv", [(WORDS[i % 3], CLASSES[i % 3]) for i in range(65539)])
    code, _, err = quick(work, work / "option", "--force", "--train", many, "--epochs", "1",
                         "--batch-size", "-1", "--seq-length", "3")
    check("train: --batch-size -1 is all rows in one step, also where they are many", code == 0 and
          load(work / "option/training_report.json")["epochs"][0]["step"] == 1, err)
    check("train: --warmup 1 is a step, not all steps",
          learned(work, "--warmup", "1") != learned(work, "--warmup", "14"))
    decay = [learned(work, "--optimizer", o, "--weight-decay", "0.1") for o in ("adam", "adamw")]
    check("train: adam and adamw decay differently", decay[0] != decay[1])
    learned(work, "--dropout", "0.25")
    config = load(work / "option/config.json")
    check("--dropout is saved with the model", config["hidden_dropout_prob"] == 0.25, config)


def test_dtype(work):
    """train --dtype bf16: other weights than f32's, the same from any threads and all rows but AMX,
    and what it does is said."""
    bf16 = learned(work, "--dtype", "bf16", "--isa", "scalar")
    check("train --dtype bf16: other weights", bf16 not in (learned(work), b""))
    for words in (["--bf16", "--isa", "scalar", "--threads", "3"], ["--bf16", "--isa", "avx2"]):
        check(f"train {' '.join(words)}: the same weights as --dtype bf16",
              learned(work, *words) == bf16)
    for words in (["--dtype", "f32"], ["--dtype", "bf16", "--isa", "scalar"]):
        _, _, err = quick(work, work / "option", "--epochs", "1", "--force", *words)
        check(f"train {' '.join(words)}: what it computes in is said",
              ("threads, bf16" in err) == ("computed in float32" in err) == ("bf16" in words), err)
    code, _, err = quick(work, work / "option", "--epochs", "1", "--force", "--dtype", "bf8")
    check("train --dtype bf8: refused", code == 2 and "f32|bf16" in err, err)


def test_defaults(work):
    for more, lr in (([], 5e-4), (["--model", work / "small"], 1e-5)):
        new = ["--config", work / "small.json", "--vocab", work / "small_vocab.txt"]
        code, _, err = run("train", "--train", work / "small.csv", "--output", work / "option",
                           "--force", *(more or new))
        used = load(work / "option/training_report.json")["options"]
        want = {"epochs": 3, "batch-size": 30, "seq-length": 64, "lr": lr, "optimizer": "adam",
                "weight-decay": 0, "warmup": 0, "schedule": "constant", "grad-norm": 10,
                "dtype": "f32", "accumulate": 1, "seed": 0}
        check(f"defaults {'with' if more else 'without'} --model, as the report says them",
              code == 0 and {k: used[k] for k in want} == want, used)
        check("--dropout not given: null in the report", used["dropout"] is None, used)
        check("without validation rows the last line gives the training accuracy",
              re.search(r"training accuracy \d\.\d+, training time [\d.]+ s, peak memory \d+ MB",
                        err.splitlines()[-1]), err)
    write_csv(work / "tiny.csv", rows(4))
    for name, layers, hidden in (("tiny", 2, 128), ("mini", 4, 256), ("small", 4, 512),
                                 ("medium", 8, 512), ("base", 12, 768)):
        code, _, err = run("train", "--train", work / "small.csv", "--config", name, "--vocab",
                           work / "small_vocab.txt", "--output", work / "size", "--epochs", "0",
                           "--force")
        config = load(work / "size/config.json")
        check(f"--config {name}: the geometry of Google's miniature", code == 0 and
              (config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"],
               config["intermediate_size"], config["max_position_embeddings"]) ==
              (layers, hidden, hidden // 64, 4 * hidden, 512), err)
    shutil.rmtree(work / "size")
    code, _, err = run("train", "--train", work / "small.csv", "--output", work / "size",
                       "--epochs", "0", "--vocab", work / "small_vocab.txt")
    check("no --config: mini", code == 0 and load(work / "size/config.json")["hidden_size"] == 256)
    check("--epochs 0 without validation rows: no accuracy is claimed",
          "accuracy not measured" in err and "nan" not in err, err)
    shutil.rmtree(work / "size")


def test_figures(work):
    """What an epoch prints, against predict on the saved model."""
    ballast = b"1" * (512 << 20)  # of the parent, and none of train's memory
    code, out, err = quick(work, work / "figures", "--epochs", "3")
    megabytes = int(re.search(r"peak memory (\d+) MB$", err)[1])
    check("peak memory is that of train alone", 4 < megabytes < len(ballast) >> 20, megabytes)
    number = r"\d+\.\d{4}"
    lines = re.findall(rf"epoch (\d)/3: loss ({number}), training accuracy ({number}), validation "
                       rf"accuracy ({number}), macro-F1 ({number}), loss ({number}), [\d.]+ rows/s,"
                       r" \d+ tokens/s", err)
    check("every epoch prints loss, training accuracy, validation accuracy, macro-F1, rows/s, "
          "tokens/s", code == 0 and not out and [x[0] for x in lines] == ["1", "2", "3"], err)
    check("the end prints accuracy, training time and peak memory", re.search(
        rf"accuracy {lines[-1][3]}, training time \d+\.\d s, peak memory \d+ MB$", err), err)
    report = load(work / "figures/training_report.json")
    check("the report has the same figures", [
        [f"{e[k]:.4f}" for k in ("loss", "accuracy", "valid_accuracy", "valid_macro_f1",
                                 "valid_loss")] for e in report["epochs"]] ==
        [list(x[1:]) for x in lines], report["epochs"])
    check("the report has all options, SHA-256 of the data, accuracy, time and memory",
          len(report["options"]) > 30 and all(
              report[k]["sha256"] == hashlib.sha256((work / f).read_bytes()).hexdigest()
              for k, f in (("train", "small.csv"), ("valid", "small_valid.csv"))) and
          report["accuracy"] == report["epochs"][-1]["valid_accuracy"] and
          report["training_seconds"] >= 0 and report["peak_memory_mb"] > 0, report)
    predict(work / "figures", work / "small_valid.csv", "--evaluate", "--report",
            work / "figures.json")
    said, last = load(work / "figures.json"), report["epochs"][-1]
    check("validation figures are predict's of the saved model (dropout off)", all(
        abs(said[a] - last[b]) < 1e-6 for a, b in (("accuracy", "valid_accuracy"), (
            "macro_f1", "valid_macro_f1"), ("nll", "valid_loss"))), (said, last))
    quick(work, work / "start", "--epochs", "0")
    predict(work / "start", work / "small.csv", "--evaluate", "--report", work / "start.json")
    code, _, err = quick(work, work / "still", "--epochs", "1", "--lr", "1e-30", "--dropout", "0",
                         "--batch-size", "7")
    first = load(work / "still/training_report.json")["epochs"][0]
    said = load(work / "start.json")
    check("the loss of an epoch is the mean over rows (a last batch of 2 rows counts as 2)",
          abs(first["loss"] - said["nll"]) < 1e-5 and
          abs(first["accuracy"] - said["accuracy"]) < 1e-9, (first, said))
    write(work / "v.csv", (work / "small_valid.csv").read_bytes())
    code, _, err = run("train", "--train", work / "small.csv", "--config", work / "small.json",
                       "--vocab", work / "small_vocab.txt", "--output", work / "blind",
                       "--epochs", "1")
    check("--train alone: no validation figures", code == 0 and "validation accuracy" not in err,
          err)


def test_directory(work):
    config = load(work / "small/config.json")
    names = list(dict.fromkeys(n for _, n in rows(100)))
    check("config.json: id2label and label2id, labels in order of first appearance",
          config["id2label"] == {str(i): n for i, n in enumerate(names)} and
          config["label2id"] == {n: i for i, n in enumerate(names)}, config)
    check("vocab.txt is the one given, byte for byte", (work / "small/vocab.txt").read_bytes() ==
          (work / "small_vocab.txt").read_bytes())
    special = {f"{k}_token": f"[{k.upper()}]" for k in ("unk", "sep", "pad", "cls", "mask")}
    check("special_tokens_map.json", load(work / "small/special_tokens_map.json") == special)
    tensors = read_tensors(work / "small")
    check("model.safetensors: Hugging Face's names", {
        "bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight", "classifier.weight",
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.encoder.layer.0.output.LayerNorm.bias"} <= set(tensors) and
        tensors["classifier.weight"][:2] == ["F32", [3, 32]], list(tensors))
    predict(work / "small", work / "small.csv", "--evaluate", "--report", work / "d.json")
    code, _, err = quick(work, work / "same", "--model", work / "small", "--epochs", "0")
    check("--epochs 0: the starting model, byte for byte, and its accuracy", code == 0 and
          weights(work / "same") == weights(work / "small") and
          load(work / "same/training_report.json")["accuracy"] > 0.9, err)
    check("--epochs 0: the report has no epoch",
          load(work / "same/training_report.json")["epochs"] == [])


def test_heads(work):
    """train --model: the head stays when it knows every label, else there is a new one."""
    known = write_csv(work / "known.csv", [r for r in rows(60) if r[1] != CLASSES[2]])
    code, _, err = quick(work, work / "kept", "--model", work / "small", "--train", known,
                         "--valid", known, "--epochs", "0")
    check("labels that the model knows, though not all: its head stays", code == 0 and
          weights(work / "kept") == weights(work / "small") and "new head" not in err and
          "1 of the model's 3 classes have no training row" in err, err)
    code, _, err = quick(work, work / "lacks", "--model", work / "small", "--train", known,
                         "--valid", work / "small_valid.csv", "--epochs", "0")
    check("a validation label that the model knows and training lacks: 4", code == 4 and
          "small_valid.csv: line " in err and not (work / "lacks").exists(), err)
    floats = write_csv(work / "floats.csv", [(t, f"{CLASSES.index(c)}.0") for t, c in rows(60)])
    quick(work, work / "floats", "--train", floats, "--valid", floats, "--epochs", "0")
    config = load(work / "floats/config.json")
    spelled = write(work / "floats.jsonl", "".join(
        json.dumps({"symptoms": t, "prognosis": float(CLASSES.index(c))}) + "\n"
        for t, c in rows(60)))
    scores = [predict(work / "floats", p, "--evaluate", "--report", "-", "--output", "/dev/null")[1]
              for p in (floats, spelled)]
    code, _, err = predict(work / "floats", write_csv(work / "whole.csv", [("fever", "0")]),
                           "--evaluate")
    check("classes called 0.0, 1.0: found in CSV and JSON alike; 0 is none of them",
          sorted(config["label2id"]) == ["0.0", "1.0", "2.0"] and
          json.loads(scores[0])["accuracy"] == json.loads(scores[1])["accuracy"] and
          code in (4, 6) and "a label that the model lacks" in err, (scores, code, err))
    many = write_csv(work / "many_names.csv", [(c,) for c in CLASSES], ["prognosis"])
    one = write_csv(work / "one_class.csv", [r for r in rows(60) if r[1] == CLASSES[0]])
    two = write_csv(work / "two_classes.csv", [r for r in rows(60) if r[1] != CLASSES[2]])
    for name, train, valid in (
            ("a single class", one, one),
            ("a validation label that training lacks", two, work / "small_valid.csv")):
        code, _, err = quick(work, work / "lacks", "--labels", many, "--train", train, "--valid",
                             valid, "--epochs", "0")
        check(f"--labels, {name}: 4", code == 4 and not (work / "lacks").exists(), err)
    code, _, err = quick(work, work / "anew", "--model", work / "small", "--train",
                         work / "seven.csv", "--valid", work / "seven.csv", "--epochs", "0")
    config, old, new = load(work / "anew/config.json"), *map(read_tensors, (
        work / "small", work / "anew"))
    check("other labels: a new head, said, the rest of the weights as they were", code == 0 and
          "new head for 7 classes" in err and len(config["id2label"]) == 7 and
          new["classifier.weight"][1] == [7, 32] and
          all(new[n] == old[n] for n in old if not n.startswith("classifier")), err)
    headless = work / "headless"
    shutil.copytree(work / "small", headless)
    from .base import write_tensors
    write_tensors(headless, {n: t for n, t in old.items()
                             if not n.startswith(("classifier", "bert.pooler"))})
    code, _, err = quick(work, work / "whole", "--model", headless, "--epochs", "1")
    check("a model without pooler and classifier: made new and reported", code == 0 and
          set(read_tensors(work / "whole")) == set(old) and
          "4 tensors of pooler or classifier are missing: new ones" in err, err)
