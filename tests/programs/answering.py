"""answering.py -- predict: records, formats, options, figures; every kind of model."""
import csv
import io
import json
import math
import os
import shutil
import stat
import struct

from .base import (CLASSES, GEOMETRY, LEVELS, SPECIAL, WORDS, answers, check, edit_config, load,
                   predict, quick, read_tensors, records, rows, run, weights, write, write_csv,
                   write_jsonl, write_tensors)


def softmax(logits):
    top = max(logits)
    e = [math.exp(x - top) for x in logits]
    return [x / sum(e) for x in e]


def test_records(work):
    texts = [t for t, _ in rows(8, seed=6, classes=7)]
    names = load(work / "seven/config.json")["id2label"]
    data = "\n".join(texts).encode()
    code, out, err = predict(work / "seven", "-", "--lines", data=data)
    got = records(out)
    check("a record a row, in order; members id and prognosis; five classes by default",
          code == 0 and [list(r) for r in got] == [["id", "prognosis"]] * 8 and
          [r["id"] for r in got] == list(range(8)) and {len(r["prognosis"]) for r in got} == {5},
          out)
    check("descending by probability", all(list(r["prognosis"].values()) == sorted(
        r["prognosis"].values(), reverse=True) for r in got), got)
    code, out, _ = predict(work / "seven", "-", "--lines", "--logits", "--top", "7", data=data)
    full = records(out)
    close = [abs(r["prognosis"][names[str(k)]] - p) < 1e-5 * p for r in full
             for k, p in enumerate(softmax(r["logits"]))]
    check("--top 7: all classes; probabilities are the softmax of --logits, class by class",
          len(close) == 56 and all(close), full[0])
    check("--logits are float32 to the last digit", all(
        struct.unpack("f", struct.pack("f", x))[0] == float("%.9g" % x) or
        "%.9g" % struct.unpack("f", struct.pack("f", x))[0] == "%.9g" % x
        for r in full for x in r["logits"]))
    for k in (1, 3, 99):
        part = answers(predict(work / "seven", "-", "--lines", "--top", k, data=data)[1])
        check(f"--top {k}: the first of the list", [list(a.items()) for a in part] ==
              [list(r["prognosis"].items())[:k] for r in full], part)
    code, kit, _ = predict(work / "seven", "-", "--lines", "--format", "kit", data=data)
    check("--format kit: one object, records under predictions, no other member",
          json.loads(kit) == {"predictions": got}, kit)
    for form, separator in (("csv", ","), ("tsv", "\t")):
        code, out, _ = predict(work / "small", "-", "--lines", "--format", form, data=data)
        flat = list(csv.reader(io.StringIO(out.decode()), delimiter=separator,
                               quoting=csv.QUOTE_MINIMAL if form == "csv" else csv.QUOTE_NONE))
        want = [[str(r["id"])] + [s for c, p in r["prognosis"].items() for s in (c, "%.6g" % p)] +
                ["false"] for r in records(predict(work / "small", "-", "--lines", data=data)[1])]
        check(f"--format {form}: a header and the same answers", flat[1:] == want and
              flat[0][0] == "id" and len(flat[0]) == len(want[0]), flat[:2])
    write(work / "formula.csv", 'id,symptoms\n"=1+1",a\n')
    code, out, _ = predict(work / "small", work / "formula.csv", "--format", "csv")
    check("--format csv: an id that a spreadsheet would run is text", b"\n'=1+1," in out, out)
    code, out, _ = predict(work / "small", "-", "--lines", data=b"fever " * 70 + b"\nfever\n")
    check("truncated is there when tokens were cut off, else absent",
          [r.get("truncated") for r in records(out)] == [True, None], out)
    for length, tokens in ((64, 64), (16, 16), (3, 3)):
        code, out, err = predict(work / "small", "-", "--lines", "--seq-length", length, "--tokens",
                                 data=b"fever " * 70 + b"\n")
        check(f"--seq-length {length}", code == 0 and len(records(out)[0]["input_ids"]) == tokens
              and records(out)[0]["truncated"] is True, err)
    code, out, err = predict(work / "small", "-", "--lines", "--seq-length", "65", data=b"a\n")
    check("--seq-length beyond the model's positions: 2", code == 2 and not out, err)
    code, out, _ = predict(work / "small", "-", "--lines", "--tokens", data=b"fever cough zz\n")
    check("--tokens: the ids of the vocabulary", records(out)[0]["input_ids"] == [2, 5, 6, 1, 3],
          out)
    outs = [predict(work / "seven", "-", "--lines", "--logits", *more, data=data)[1] for more in (
        [], ["--batch-size", "1"], ["--batch-size", "3"], ["--batch-size", "-1"],
        ["--batch-size", "8"], ["--threads", "1"], ["--threads", "3"], ["--isa", "scalar"])]
    check("the same bytes for every batch size, number of threads and the scalar level",
          outs.count(outs[0]) == len(outs), outs)


def test_case(work):
    """A cased vocabulary: Fever and fever are two entries."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fever", "Fever", "alpha", "beta",
             "gamma"]
    write(work / "cased.txt", "\n".join(words) + "\n")
    config = dict(load(work / "small.json"), vocab_size=len(words))
    write(work / "cased.json", json.dumps(config))
    made = {}
    for case in ("lower", "keep"):
        out = work / f"case_{case}"
        code, _, made[case] = quick(work, out, "--vocab", work / "cased.txt", "--config",
                                    work / "cased.json", "--case", case, "--epochs", "0")
        saved = load(out / "tokenizer_config.json")["do_lower_case"]
        check(f"train --case {case} is saved with the model", code == 0 and
              saved is (case == "lower"), (code, saved))
    _, _, err = quick(work, work / "case_default", "--vocab", work / "cased.txt", "--config",
                      work / "cased.json", "--epochs", "0")
    check("lower-casing under a cased vocabulary by default: a warning", "lower-cased" in err and
          "warning" in err and "lower-cased" not in made["keep"], err)
    for case, more, want in (("lower", [], 5), ("keep", [], 6), ("lower", ["--case", "keep"], 6),
                             ("keep", ["--case", "lower"], 5), ("lower", ["--case", "model"], 5)):
        code, out, err = predict(work / f"case_{case}", "-", "--lines", "--tokens", *more,
                                 data=b"Fever\n")
        check(f"predict {' '.join(more)}: a model saved with {case}", code == 0 and
              records(out)[0]["input_ids"] == [2, want, 3], (err, out))
    code, _, err = quick(work, work / "case_again", "--model", work / "case_lower", "--case",
                         "keep", "--epochs", "0")
    check("train --model --case: the override is saved", code == 0 and
          load(work / "case_again/tokenizer_config.json")["do_lower_case"] is False, err)


def figures(logits, labels, classes):
    """Accuracy, macro-F1, NLL and ECE (15 bins), from the definitions."""
    probs = [softmax(row) for row in logits]
    best = [max(range(classes), key=lambda k, p=p: p[k]) for p in probs]
    n = len(labels)
    f1 = []
    for k in range(classes):
        right = sum(b == y == k for b, y in zip(best, labels))
        both = best.count(k) + labels.count(k)
        if both:
            f1.append(2 * right / both)
    bins = [[] for _ in range(15)]
    for p, b, y in zip(probs, best, labels):
        bins[min(14, int(p[b] * 15))].append((p[b], b == y))
    ece = sum(abs(sum(r for _, r in x) - sum(c for c, _ in x)) for x in bins) / n
    pairs = {}
    for b, y in zip(best, labels):
        if b != y:
            pairs[y, b] = pairs.get((y, b), 0) + 1
    return {"accuracy": sum(b == y for b, y in zip(best, labels)) / n,
            "macro_f1": sum(f1) / len(f1),
            "nll": sum(-math.log(p[y]) for p, y in zip(probs, labels)) / n, "ece": ece}, pairs


def test_evaluate(work):
    for model, classes in (("small", 3), ("seven", 7)):
        data = rows(60, seed=7, classes=classes)
        data[::4] = [(t, CLASSES[(i + 1) % classes]) for i, (t, _) in enumerate(data[::4])]
        write_csv(work / "ev.csv", data)
        number = load(work / model / "config.json")["label2id"]
        code, out, err = predict(work / model, work / "ev.csv", "--evaluate", "--report",
                                 work / "ev.json", "--logits", "--force", "--batch-size", "7")
        report = load(work / "ev.json")
        want, pairs = figures([r["logits"] for r in records(out)], [number[n] for _, n in data],
                              classes)
        check(f"--evaluate, {classes} classes: accuracy, macro-F1, NLL and ECE as computed here",
              code == 0 and all(abs(report[k] - v) < 1e-6 for k, v in want.items()),
              (want, report))
        check("the same figures on stderr", all(f"{name} {want[k]:.4f}" in err for name, k in (
            ("accuracy", "accuracy"), ("macro-F1", "macro_f1"), ("NLL", "nll"), ("ECE", "ece"))),
            err)
        got = [((number[c["label"]], number[c["predicted"]]), c["rows"])
               for c in report["confusions"]]
        worst = sorted(pairs.items(), key=lambda x: (-x[1], x[0]))[:5]
        check("the worst pairs, in the report and on stderr", got == worst and
              err.count("taken for") == len(worst), (got, worst))
        check("records come out all the same", len(records(out)) == 60)
    write(work / "none.csv", "symptoms,prognosis\n")
    for name, more in (("none.csv", []), ("ev.csv", ["--benchmark", "--runs", "1"])):
        predict(work / "small", work / name, "--evaluate", "--report", work / "ev.json", "--force",
                *more)
        check(f"figures of no rows are null, not 0 ({name})", {load(work / "ev.json")[k] for k in (
            "accuracy", "macro_f1", "nll", "ece")} == {None}, load(work / "ev.json"))
    code, out, err = predict(work / "small", work / "ev.csv", "--report", work / "ev.json",
                             "--force")
    check("--report without --evaluate: rows, no figures", code == 0 and
          load(work / "ev.json")["rows"] == 60 and "accuracy" not in load(work / "ev.json"), err)


def test_benchmark(work):
    for rows_of, more in ((5, ["--batch-size", "5"]), (100, ["--batch-size", "-1"]), (32, [])):
        code, out, err = predict(work / "small", work / "small.csv", "--benchmark", "--runs", "9",
                                 "--warmup", "2", "--report", work / "bench.json", "--force", *more)
        t = load(work / "bench.json")["benchmark"]
        check(f"--benchmark {' '.join(more)}: the first batch, nothing on stdout", code == 0 and
              not out and t["batch_rows"] == rows_of and t["runs"] == 9 and
              f"batch of {rows_of} rows" in err, (t, err))
        check("p99 of nine runs is the longest: above their mean", t["p99_ms"] >= t["mean_ms"], t)
        check("mean, p50, p99 and rows/s fit each other", 0 < t["p50_ms"] <= t["p99_ms"] and
              0 < t["mean_ms"] and abs(t["rows_per_second"] * t["mean_ms"] / 1e3 / rows_of - 1)
              < 1e-3 and all(w in err for w in ("mean", "p50", "p99", "rows/s")), t)


def opens(work, name, change, want=None, more=(), data=b"fever alpha\nrash beta\n"):
    """A copy of the small model, changed: exit code 0 and, if wanted, the same answers."""
    copy = work / "changed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(work / "small", copy)
    change(copy)
    code, out, err = predict(copy, "-", "--lines", *more, data=data)
    check(f"model: {name}", code == 0 and (want is None or out == want), (code, err, out[:200]))
    return out, err


def with_dtype(name, cut):
    def change(copy):
        tensors = read_tensors(copy)
        for t in tensors.values():
            values = struct.unpack(f"<{len(t[2]) // 4}f", t[2])
            t[0], t[2] = name, cut(values)
        write_tensors(copy, tensors)
    return change


def add_tensors(*names):
    def change(copy):
        tensors = read_tensors(copy)
        for name in names:
            tensors[name] = ["F32", [2], b"\0" * 8]
        write_tensors(copy, tensors)
    return change


def test_bf16(work):
    """predict --dtype bf16: near float32, the same bytes everywhere that promises it."""
    data = "\n".join(t for t, _ in rows(12, seed=9)).encode()
    _, plain, _ = predict(work / "small", "-", "--lines", "--logits", data=data)
    _, want, _ = predict(work / "small", "-", "--lines", "--logits", "--dtype", "bf16", "--isa",
                         "scalar", data=data)
    near = [abs(x - y) < 0.05 for a, b in zip(records(want), records(plain))
            for x, y in zip(a["logits"], b["logits"])]
    check("--dtype bf16: near the answers of f32 and not them", len(near) == 36 and all(near) and
          want != plain, want)
    said = dict(line.split(None, 1) for line in run("predict", "--version")[1].decode()
                .splitlines()[3:])
    runs = [["--bf16"], ["--bf16", "--batch-size", "1"], ["--bf16", "--threads", "3"]]
    runs = [r + ["--isa", "scalar"] for r in runs]
    runs += [["--dtype", "bf16", "--isa", level] for level in LEVELS  # AMX adds in another order
             if level != "amx" and said[level] in ("selected", "available")]
    for words in runs:
        code, out, err = predict(work / "small", "-", "--lines", "--logits", *words, data=data)
        native = "avx512-bf16" in words
        check(f"{' '.join(words)}: the same bytes; whether in float32 is said", code == 0 and
              out == want and ("computed in float32" in err) is not native, err)
    run("quantize", "--model", work / "small", "--output", work / "s8bf16")
    outs = [predict(work / "s8bf16", "-", "--lines", *words, data=data)
            for words in ([], ["--dtype", "bf16"])]
    check("--dtype bf16 on an INT8 model: a warning, the same answers", outs[0][1] == outs[1][1]
          and "warning" in outs[1][2] and "INT8" in outs[1][2], outs)


def test_kinds(work):
    data = b"fever alpha\nrash beta\n"
    code, want, err = predict(work / "small", "-", "--lines", data=data)
    bf16 = with_dtype("BF16", lambda v: b"".join(
        struct.pack("<H", min(0xFFFF, struct.unpack("<I", struct.pack("<f", x))[0] + 0x8000 >> 16))
        for x in v))
    out, _ = opens(work, "BF16 weights", bf16)
    near = [abs(a[k] - b[k]) < 0.05 for a, b in zip(answers(out), answers(want)) for k in a]
    check("BF16 weights: nearly the same answers", near and all(near) and out != want, out)
    out, _ = opens(work, "F16 weights", with_dtype("F16", lambda v: struct.pack(f"<{len(v)}e", *v)))
    near = [abs(a[k] - b[k]) < 0.01 for a, b in zip(answers(out), answers(want)) for k in a]
    check("F16 weights: nearly the same answers", near and all(near), out)
    out, err = opens(work, "cls.* and position_ids are ignored without a word", add_tensors(
        "cls.predictions.bias", "bert.embeddings.position_ids"), want)
    check("no warning for them", not err, err)
    out, err = opens(work, "other unknown names are accepted", add_tensors("x.y", "extra"), want)
    check("a warning counts them", "warning" in err and "2" in err, err)
    opens(work, "null in config.json means not given",
          lambda c: edit_config(c, hidden_act=None, max_trials=None), want)
    opens(work, "no tokenizer_config.json: the default, lower-case",
          lambda c: (c / "tokenizer_config.json").unlink(), want, data=data.upper())
    code, out, err = predict(work, "-", "--lines", data=data)
    check("a directory that holds no model: 3", code == 3 and not out, (code, err))
    code, _, err = quick(work, work / "one_type", "--config", write(work / "one_type.json",
                         json.dumps(dict(load(work / "small.json"), type_vocab_size=1))),
                         "--epochs", "1")
    check("a model with one token type is trained", code == 0, err)
    write(work / "pair.csv", "symptoms,exam,prognosis\na,b,Flu\nb,c,Common Cold\n")
    code, out, err = predict(work / "one_type", work / "pair.csv")
    check("a model with one token type answers texts", code == 0 and len(records(out)) == 2, err)
    tries = [predict(work / "one_type", work / "pair.csv", "--pair-column", "exam"),
             quick(work, work / "never", "--model", work / "one_type", "--train", work / "pair.csv",
                   "--valid", work / "pair.csv", "--pair-column", "exam"),
             run("quantize", "--model", work / "one_type", "--output", work / "never", "--data",
                 work / "pair.csv", "--pair-column", "exam")]
    check("a model with one token type given pairs: 2 and a sentence, nothing written",
          [t[0] for t in tries] == [2] * 3 and not any(t[1] for t in tries) and
          all("--pair-column" in t[2] for t in tries) and not (work / "never").exists(), tries)


def refuses(work, name, change, code=3, programs=("predict", "quantize")):
    copy = work / "changed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(work / "small", copy)
    change(copy)
    ends = []
    if "predict" in programs:
        ends.append(predict(copy, "-", "--lines", data=b"fever\n"))
    if "quantize" in programs:
        ends.append(run("quantize", "--model", copy, "--output", work / "never"))
    if "train" in programs:
        ends.append(quick(work, work / "never", "--model", copy))
    check(f"model: {name}: {code}, stdout empty, nothing written",
          all(e[0] == code and not e[1] and len(e[2]) > 20 for e in ends) and
          not (work / "never").exists(), ends)
    shutil.rmtree(work / "never", ignore_errors=True)


def drop(prefix):
    def change(copy):
        tensors = {n: t for n, t in read_tensors(copy).items() if not n.startswith(prefix)}
        write_tensors(copy, tensors)
    return change


def integers(copy):
    tensors = read_tensors(copy)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    tensors[name] = ["I8", tensors[name][1], b"\1" * (len(tensors[name][2]) // 4)]
    write_tensors(copy, tensors)


def twice(copy):
    data = weights(copy)
    size = struct.unpack("<Q", data[:8])[0]
    head = data[8:8 + size].rstrip()
    head = head[:-1] + b',"extra":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' * 2 + b"}"
    head += b" " * (-len(head) % 8)
    write(copy / "model.safetensors", struct.pack("<Q", len(head)) + head + data[8 + size:])


def test_refused(work):
    everyone = ("predict", "quantize", "train")
    refuses(work, "no classifier", drop("classifier."))
    code, _, err = quick(work, work / "headed", "--model", work / "changed", "--epochs", "1")
    check("train makes the head that is missing, and says so", code == 0 and
          "2 tensors of pooler or classifier are missing: new ones" in err, (code, err))
    refuses(work, "a layer beyond the config", add_tensors(
        "bert.encoder.layer.1.attention.self.query.bias"), programs=everyone)
    refuses(work, "a weight of integers without its scale", integers, programs=everyone)
    refuses(work, "quantization_config over float weights", lambda c: edit_config(
        c, quantization_config={"quant_method": "compressed-tensors", "format": "int-quantized",
                                "config_groups": {}}), programs=everyone)
    refuses(work, "an integer with a fraction", lambda c: write(
        c / "config.json", (c / "config.json").read_text().replace(
            '"hidden_size": 32', '"hidden_size": 32.0')), programs=everyone)
    refuses(work, "an integer with an exponent", lambda c: write(
        c / "config.json", (c / "config.json").read_text().replace(
            '"hidden_size": 32', '"hidden_size": 32e0')), programs=everyone)
    refuses(work, "config.json over 16 MiB", lambda c: write(
        c / "config.json", (c / "config.json").read_text() + " " * (1 << 24)), programs=everyone)
    for name, change in (("a BOM", lambda t: b"\xef\xbb\xbf" + t),
                         ("a NUL", lambda t: t.replace(b"fever", b"fe\0er")),
                         ("invalid UTF-8", lambda t: t.replace(b"fever", b"fe\xffer"))):
        refuses(work, f"vocab.txt with {name}", lambda c, f=change: write(
            c / "vocab.txt", f((c / "vocab.txt").read_bytes())), programs=everyone)
        code, _, err = quick(work, work / "never", "--vocab", write(
            work / "bad_vocab.txt", change((work / "small_vocab.txt").read_bytes())))
        check(f"--vocab with {name}: 3, nothing written", code == 3 and
              not (work / "never").exists(), (code, err))
    code, _, err = quick(work, work / "never", "--vocab", "/dev/zero")
    check("--vocab that has no end: 3, at 32 MiB", code == 3 and "33554432" in err, err)
    refuses(work, "two tensors of one name", twice, programs=everyone)
    refuses(work, "no vocab.txt", lambda c: (c / "vocab.txt").unlink(), programs=everyone)
    refuses(work, "only checkpoints", lambda c: (c / "config.json").rename(
        c / "ckpt-000000000001.dpck"), programs=everyone)
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        def link(copy, name=name):
            shutil.move(copy / name, work / "elsewhere")
            (copy / name).symlink_to(work / "elsewhere")
        refuses(work, f"{name} is a link", link, programs=everyone)
        code, out, err = predict(work / "changed", "-", "--lines", "--follow-links",
                                 data=b"fever\n")
        _, _, said = predict(work / "changed", "-", "--lines", data=b"fever\n")
        check(f"--follow-links opens it, the refusal names it ({name})", code == 0 and
              len(records(out)) == 1 and "--follow-links" in said, (code, err, said))
    ends = [quick(work, work / f"followed{i}", "--model", work / "changed", "--epochs", "1", *m)[0]
            for i, m in enumerate((["--follow-links"], []))]
    ends.append(run("quantize", "--model", work / "changed", "--output", work / "followed8",
                    "--follow-links")[0])
    check("train and quantize have --follow-links", ends == [0, 3, 0], ends)


def test_not_finite(work):
    """Weights that overflow: the answer is null, the row is named, the run ends with 6."""
    copy = work / "overflows"
    shutil.copytree(work / "small", copy)
    tensors = read_tensors(copy)
    shape = tensors["classifier.weight"][1]
    tensors["classifier.weight"][2] = struct.pack("<f", 3e38) * (shape[0] * shape[1])
    write_tensors(copy, tensors)
    code, out, err = predict(copy, "-", "--lines", data=b"fever alpha\n\nrash\n")
    check("answers that are not finite: null, each line named, 6",
          code == 6 and [set(r["prognosis"].values()) for r in records(out)] == [{None}] * 2 and
          "stdin: line 1: the model" in err and "stdin: line 3: the model" in err and
          "2 of 2 rows" in err,
          (code, out, err))
    code, out, err = predict(copy, work / "small.csv", "--evaluate", "--format", "csv", "--report",
                             work / "overflows.json")
    report = load(work / "overflows.json")
    check("rows without a finite answer count as failed, not as right; CSV says null", code == 6
          and report["failed_rows"] == 100 and report["accuracy"] is None and
          report["confusions"] == [] and b"nan" not in out and out.count(b",null,") == 300,
          (code, report, err))
    code, _, err = run("quantize", "--model", copy, "--output", work / "overflows8", "--data",
                       work / "small.csv", "--criterion", "relative:1")
    report = load(work / "overflows8/diseasepred.json")
    check("quantize --data, no answer at all: each row named twice, the criterion is not met",
          code == 5 and err.count("is not finite") == 200 and "nan" not in err and
          report["failed_before"] == report["failed_after"] == 100 and
          report["criterion_met"] is False, (code, err[-300:], report))
    shutil.copy(work / "small/model.safetensors", copy)
    tensors = read_tensors(copy)
    width = GEOMETRY["hidden_size"] * 4
    at = width * (len(SPECIAL) + WORDS.index("rash"))
    table = tensors["bert.embeddings.word_embeddings.weight"]
    table[2] = table[2][:at] + struct.pack("<f", 3e38) * (width // 4) + table[2][at + width:]
    write_tensors(copy, tensors)
    bad = sum("rash" in text for text, _ in rows(100))
    scores = []
    for program in ("predict", "quantize", "train"):
        more = {"predict": ["--input", work / "small.csv", "--evaluate", "--report",
                            work / "overflowing.json"],
                "quantize": ["--data", work / "small.csv", "--output", work / "overflows8",
                             "--force", "--criterion", "none"],
                "train": ["--train", work / "small.csv", "--valid", work / "small.csv",
                          "--output", work / "overflows0", "--epochs", "0"]}[program]
        code, _, err = run(program, "--model", copy, *more)
        total = 200 if program == "train" else 100
        scores.append((code, f" {bad} of {total} rows failed" in err))
    report = load(work / "overflows8/diseasepred.json")
    right = load(work / "overflowing.json")["accuracy"] * (100 - bad)
    check("some rows without an answer: 6 in all programs, and wrong ones to quantize",
          0 < bad < 100 and scores == [(6, True)] * 3 and report["failed_before"] == bad and
          abs(report["accuracy_before"] - right / 100) < 1e-9, (scores, report, right))
    one = write_csv(work / "one_bad.csv", [r for r in rows(100) if "rash" not in r[0]][:40] +
                    [next(r for r in rows(100) if "rash" in r[0])])
    figures = []
    for name, path in (("bad", one), ("good", write_csv(
            work / "no_bad.csv", [r for r in rows(100) if "rash" not in r[0]][:40]))):
        code, _, err = run("train", "--model", copy, "--train", path, "--output",
                           work / "skips", "--epochs", "1", "--batch-size", "1", "--lr", "1e-30",
                           "--dropout", "0", "--force")
        said = f"{code // 6} steps of the training" in err and "rows failed" not in err
        report = load(work / "skips/training_report.json")
        figures.append((code, report["skipped_steps"] if said or not code else err,
                        report["epochs"][0]["loss"], report["epochs"][0]["accuracy"]))
    check("train: a row that gives no finite number: 6, its step is counted, the epoch's figures "
          "are those of the others", figures[0][:2] == (6, 1) and figures[1][:2] == (0, 0) and
          all(abs(a - b) < 1e-6 for a, b in zip(figures[0][2:], figures[1][2:])), figures)


def test_other_heads(work):
    """Multi-label and regression models: predict answers, what needs one label a row refuses."""
    copy = work / "multi"
    shutil.copytree(work / "small", copy)
    edit_config(copy, problem_type="multi_label_classification")
    code, out, err = predict(copy, "-", "--lines", "--logits", data=b"fever alpha\nrash beta\n")
    names = load(copy / "config.json")["id2label"]
    check("multi-label: probabilities are sigmoids of the logits, class by class", code == 0 and
          all(abs(r["prognosis"][names[str(k)]] - 1 / (1 + math.exp(-x))) < 1e-5
              for r in records(out) for k, x in enumerate(r["logits"])), (err, out))
    single = work / "regression"
    shutil.copytree(work / "small", single)
    tensors = read_tensors(single)
    for name in ("classifier.weight", "classifier.bias"):
        shape, data = tensors[name][1], tensors[name][2]
        tensors[name][1:] = [1] + shape[1:], data[:len(data) // 3]
    write_tensors(single, tensors)
    edit_config(single, problem_type="regression", id2label={"0": "score"}, label2id={"score": 0},
                num_labels=1)
    code, out, err = predict(single, "-", "--lines", "--logits", data=b"fever alpha\n")
    record = records(out)[0] if code == 0 else {}
    check("regression: the value itself", code == 0 and list(record["prognosis"]) == ["score"] and
          abs(record["prognosis"]["score"] - record["logits"][0]) <
          1e-5 * abs(record["logits"][0]), (err, out))
    for model in (copy, single):
        ends = [predict(model, work / "small.csv", "--evaluate"),
                run("quantize", "--model", model, "--output", work / "never", "--data",
                    work / "small.csv")]
        check(f"{model.name}: --evaluate and the criterion need one label a row: 3",
              [e[0] for e in ends] == [3, 3] and not (work / "never").exists(), ends)
        code, _, err = run("quantize", "--model", model, "--output", work / f"{model.name}8")
        code2, out, err2 = predict(work / f"{model.name}8", "-", "--lines", data=b"fever\n")
        check(f"{model.name}: quantized without data, and asked", code == code2 == 0 and
              len(records(out)) == 1, err + err2)
