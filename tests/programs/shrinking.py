"""shrinking.py -- quantize: the dynamic approach, its criterion, its report."""
import hashlib
import re
import shutil
import struct

from .base import (LEVELS, WORDS, check, load, predict, quick, read_tensors, records, rows, run,
                   weights, write_csv, write_tensors)


def test_dynamic(work):
    code, out, err = run("quantize", "--model", work / "small", "--output", work / "s8", "--data",
                         work / "small_valid.csv")
    check("quantize: 0, stdout empty", code == 0 and not out, err)
    names = {p.name for p in (work / "s8").iterdir()}
    check("quantize writes a model directory and its report, nothing else", names == {
        "config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json",
        "special_tokens_map.json", "diseasepred.json"}, names)
    tensors = read_tensors(work / "s8")
    kinds = {n: t[0] for n, t in tensors.items()}
    check("Linears are I8 with a scale, classifier and embeddings stay F32",
          kinds["bert.encoder.layer.0.output.dense.weight"] == "I8" and
          "bert.encoder.layer.0.output.dense.weight_scale" in kinds and
          kinds["classifier.weight"] == kinds["bert.embeddings.word_embeddings.weight"] == "F32",
          kinds)
    report = load(work / "s8/diseasepred.json")
    figures = {}
    for model in ("small", "s8"):
        predict(work / model, work / "small_valid.csv", "--evaluate", "--report",
                work / "q.json", "--force")
        figures[model] = load(work / "q.json")["accuracy"]
    check("the report's accuracies are predict's of both models", [
        report[k] for k in ("accuracy_before", "accuracy_after")] == list(figures.values()),
        (report, figures))
    check("the report: data, options, sizes, criterion", report["criterion"] == "relative:0.01" and
          report["criterion_met"] is True and report["options"]["approach"] == "dynamic" and
          report["bytes_after"] < report["bytes_before"] and report["data_sha256"] ==
          hashlib.sha256((work / "small_valid.csv").read_bytes()).hexdigest(), report)
    check("the size before is that of FP32", re.search(r"were [\d.]+ MB as FP32 \(-", err), err)
    check("the table is printed", re.search(r"FP32 +INT8", err) and re.search(
        r"Accuracy +\d\.\d{4} +\d\.\d{4}", err) and "criterion relative:0.01: met" in err, err)
    code, _, err = run("quantize", "--model", work / "small", "--output", work / "s8n")
    check("quantize without --data: no criterion, the same weights", code == 0 and
          weights(work / "s8n") == weights(work / "s8") and
          load(work / "s8n/diseasepred.json")["criterion_met"] is None, err)
    code, _, err = run("quantize", "--model", work / "small", "--output", work / "s8c",
                       "--criterion", "relative:0.01")
    check("--criterion without --data: 2", code == 2 and "--data" in err, err)
    for more in (["--batch-size", "1"], ["--batch-size", "-1"], ["--threads", "1"],
                 ["--isa", "scalar"], ["--approach", "dynamic"], ["--embeddings", "keep"]):
        code, _, err = run("quantize", "--model", work / "small", "--output", work / "s8n",
                           "--data", work / "small_valid.csv", "--force", *more)
        check(f"quantize {' '.join(more)}: the same weights", code == 0 and
              weights(work / "s8n") == weights(work / "s8"), err)
    code, _, err = run("quantize", "--model", work / "small", "--output", work / "s8e",
                       "--embeddings", "int8")
    check("--embeddings int8: the table is I8, and predict opens it", code == 0 and read_tensors(
        work / "s8e")["bert.embeddings.word_embeddings.weight"][0] == "I8" and
        predict(work / "s8e", work / "small.csv")[0] == 0, err)
    forms, answers = {}, {}
    for form in ("full", "pairs", "quads"):
        code, _, err = run("quantize", "--model", work / "small", "--output", work / f"s8{form}",
                           "--weights", form)
        report = load(work / f"s8{form}/diseasepred.json")
        forms[form] = report["sqnr_db"]
        tried = [predict(work / f"s8{form}", work / "small_valid.csv", "--logits", "--isa", level)
                 for level in LEVELS]
        answers[form] = [out for code, out, _ in tried if code == 0]
        check(f"--weights {form}: 0; the report says what it cost", code == 0 and
              report["options"]["weights"] == form and report["sqnr_db"] <= report["full_db"] and
              re.search(r"noise [\d.]+ dB \([\d.]+ dB below full-range weights\)", err), err)
    check("--weights: full is better than pairs, pairs better than quads",
          forms["full"] > forms["pairs"] > forms["quads"], forms)
    check("--weights: each form answers alike on every level", all(
        len(set(a)) == 1 and len(a) > 1 for a in answers.values()), answers)
    check("--weights is pairs unless said", weights(work / "s8") == weights(work / "s8pairs") !=
          weights(work / "s8full"))
    code, _, err = run("quantize", "--model", work / "s8", "--output", work / "s88")
    check("an INT8 model is not quantized again: 2", code == 2 and "INT8" in err and
          not (work / "s88").exists(), err)
    code, _, err = quick(work, work / "s88", "--model", work / "s8")
    check("an INT8 model is not trained: 3", code == 3 and not (work / "s88").exists(),
          (code, err))
    code, _, err = run("quantize", "--model", work / "small", "--output", work / "s88",
                       "--seq-length", "65")
    check("--seq-length beyond the positions: 2, nothing written", code == 2 and
          not (work / "s88").exists(), err)


def undecided(work, texts):
    """The untrained model with a bias that makes its first two classes equal on the middle text,
    and the hundred texts on which it is most undecided, with its own answers as labels."""
    model, data = work / "undecided", "\n".join(texts).encode()
    shutil.copytree(work / "seven", model)
    tensors, margin = read_tensors(model), []
    for step in range(2):
        _, out, _ = predict(model, "-", "--lines", "--logits", data=data)
        margin = [r["logits"][0] - r["logits"][1] for r in records(out)]
        if step == 0:
            middle = sorted(margin)[len(margin) // 2]
            tensors["classifier.bias"][2] = struct.pack("<7f", 1, 1 + middle, *[0] * 5)
            write_tensors(model, tensors)
    names = load(model / "config.json")["id2label"]
    close = sorted(zip(map(abs, margin), texts, margin))[:100]
    write_csv(work / "close.csv", [(t, names["0" if m >= 0 else "1"]) for _, t, m in close])
    return model


def test_criterion(work):
    model = undecided(work, sorted({f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS}))
    ends = {}
    for criterion in ("absolute:0", "relative:0", "absolute:1", "relative:1", "none", None):
        words = [] if criterion is None else ["--criterion", criterion]
        code, out, err = run("quantize", "--model", model, "--output", work / "c8",
                             "--data", work / "close.csv", "--force", *words)
        ends[criterion] = code, load(work / "c8/diseasepred.json")["criterion_met"], err
        check(f"--criterion {criterion}: the model is saved", predict(
            work / "c8", work / "small.csv")[0] == 0 and not out, err)
    long = "relative:0." + "1" * 600
    code, _, err = run("quantize", "--model", model, "--output", work / "c8", "--data",
                       work / "close.csv", "--force", "--criterion", long)
    check("a criterion of 600 digits stands in the report as it is", code in (0, 5) and
          load(work / "c8/diseasepred.json")["criterion"] == long, err)
    after = round(100 * load(work / "c8/diseasepred.json")["accuracy_after"])
    edge = (100 - after) / 100
    for kind in ("relative", "absolute"):
        code, _, err = run("quantize", "--model", model, "--output", work / "c8", "--data",
                           work / "close.csv", "--force", "--criterion", f"{kind}:{edge}")
        check(f"{kind}:{edge}, exactly what is lost: met", code == 0, err)
    lost = 1 - load(work / "c8/diseasepred.json")["accuracy_after"]
    check(f"INT8 loses {lost:.3f} here", 0.01 < lost < 1)
    check("a criterion that is not met: 5, said; one that is met, or none: 0",
          {c: e[:2] for c, e in ends.items()} == {
              "absolute:0": (5, False), "relative:0": (5, False), "absolute:1": (0, True),
              "relative:1": (0, True), "none": (0, None), None: (5, False)} and
          "not met" in ends["absolute:0"][2], ends)
