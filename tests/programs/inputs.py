"""inputs.py -- what the programs read: CSV, JSONL, lines, columns, ids, labels, bad rows."""
import csv
import io
import json
import os
import subprocess

from .base import (BUILD, CLASSES, answers, check, load, make_small, predict, quick, records, rows,
                   run, weights, write, write_csv, write_jsonl)

TEXTS = [text for text, _ in rows(9, seed=4)]
SECRET = "zqxjkvbpygw7731canary"


def expect(work):
    """The answers to TEXTS, one a line."""
    code, out, err = predict(work / "small", "-", "--lines",
                             data="\n".join(TEXTS).encode() + b"\n")
    check("plain lines from stdin", code == 0 and len(records(out)) == len(TEXTS), err)
    return answers(out)


def table(header, *columns):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *zip(*columns)])
    return out.getvalue().encode()


def jsonl(**columns):
    keys = [k.replace("_", " ") for k in columns]
    return "".join(json.dumps(dict(zip(keys, values))) + "\n"
                   for values in zip(*columns.values())).encode()


def test_formats(work):
    want = expect(work)
    other = ["nothing of this"] * len(TEXTS)
    lines = "\n".join(TEXTS).encode()
    quoted = b"symptoms\n" + b"".join(b'"' + t.encode() + b'"\n' for t in TEXTS)
    cases = [
        ("CSV, column symptoms", "a.csv", table(["symptoms"], TEXTS), []),
        ("CSV, column text", "a.csv", table(["text"], TEXTS), []),
        ("CSV, symptoms goes before text", "a.csv",
         table(["text", "symptoms"], other, TEXTS), []),
        ("CSV, --text-column", "a.csv",
         table(["symptoms", "note of today"], other, TEXTS), ["--text-column", "note of today"]),
        ("CSV with CRLF", "a.csv", table(["symptoms"], TEXTS).replace(b"\n", b"\r\n"), []),
        ("CSV with a BOM", "a.csv", b"\xef\xbb\xbf" + table(["symptoms"], TEXTS), []),
        ("CSV, every field in quotes", "a.csv", quoted, []),
        ("CSV without an end of the last line", "a.csv", table(["symptoms"], TEXTS)[:-1], []),
        ("CSV with blank lines", "a.csv",
         table(["symptoms"], TEXTS).replace(b"\n", b"\n\n\r\n"), []),
        ("CSV with columns that nobody wants", "a.csv",
         table(["x", "symptoms", "y"], ["1, 2"] * 9, TEXTS, ['"'] * 9), []),
        ("JSONL, key symptoms", "a.jsonl", jsonl(symptoms=TEXTS), []),
        ("JSONL, key text", "a.jsonl", jsonl(text=TEXTS), []),
        ("JSONL, symptoms goes before text", "a.jsonl", jsonl(text=other, symptoms=TEXTS), []),
        ("JSONL, --text-column", "a.jsonl", jsonl(symptoms=other, note=TEXTS),
         ["--text-column", "note"]),
        ("JSONL, --text-column of 300 bytes", "a.jsonl",
         jsonl(symptoms=other, **{"n" * 300: TEXTS, "n" * 301: other}),
         ["--text-column", "n" * 300]),
        ("JSONL with other keys, nested", "a.jsonl",
         jsonl(more=[{"symptoms": ["x", {}]}] * 9, symptoms=TEXTS), []),
        ("JSONL with a BOM, CRLF and blank lines", "a.jsonl", b"\xef\xbb\xbf" +
         jsonl(symptoms=TEXTS).replace(b"\n", b"\r\n  \r\n"), []),
        (".ndjson is JSONL", "a.ndjson", jsonl(symptoms=TEXTS), []),
        (".txt is lines", "a.txt", lines, []),
        ("lines with a BOM, CRLF and blank lines", "a.txt",
         b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n\r\n"), []),
        ("an unknown extension that begins with {", "a.data", jsonl(symptoms=TEXTS), []),
        ("an unknown extension that does not", "a.data", table(["symptoms"], TEXTS), []),
        ("--input-format lines", "a.csv", lines, ["--input-format", "lines"]),
        ("--input-format jsonl", "a.csv", jsonl(symptoms=TEXTS), ["--input-format", "jsonl"]),
        ("--input-format csv", "a.txt", table(["symptoms"], TEXTS), ["--input-format", "csv"])]
    for name, path, data, more in cases:
        code, out, err = predict(work / "small", write(work / path, data), *more)
        check(f"input: {name}", code == 0 and answers(out) == want, (code, err))
    for name, data in (("CSV", table(["symptoms"], TEXTS)), ("JSONL", jsonl(symptoms=TEXTS))):
        code, out, err = predict(work / "small", "-", data=data)
        check(f"input: {name} from stdin", code == 0 and answers(out) == want, (code, err))
    field = 'fever, "high"\nand cough'
    write_csv(work / "a.csv", [(field,), ("a",)], header=("symptoms",))
    write_jsonl(work / "a.jsonl", [{"symptoms": field}, {"symptoms": "a"}])
    outs = [predict(work / "small", work / f"a.{e}", "--tokens")[1] for e in ("csv", "jsonl")]
    check("comma, quotes and a line break inside a field: the text that JSONL says",
          outs[0] == outs[1] and len(records(outs[0])) == 2, outs)
    write(work / "a.csv", b'symptoms,x\nfever "high" cough,1\n')
    write_jsonl(work / "a.jsonl", [{"symptoms": 'fever "high" cough'}])
    outs = [predict(work / "small", work / f"a.{e}", "--tokens")[1] for e in ("csv", "jsonl")]
    check("a stray quote inside an unquoted field is text", outs[0] == outs[1], outs)


def ids(work, name, data):
    code, out, err = predict(work / "small", write(work / name, data))
    return [r["id"] for r in records(out)]


def test_ids(work):
    check("ids: the row number from 0", ids(work, "a.csv", b"symptoms\na\nb\n") == [0, 1])
    got = ids(work, "a.csv", b"id,symptoms\n7,a\nP-12,b\n007,c\n\"x,\"\"y\",d\n")
    check("ids of a CSV: numbers as numbers, the rest as text", got == [7, "P-12", "007", 'x,"y'],
          got)
    got = ids(work, "a.jsonl", b'{"id":7,"text":"a"}\n{"id":"7","text":"b"}\n{"text":"c"}\n'
              b'{"id":null,"text":"d"}\n{"id":"\\u00e4\\n","text":"e"}\n')
    check("ids of JSONL: as they are; absent or null: the row number",
          got == [7, "7", 2, 3, "\xe4\n"], got)
    code, out, _ = predict(work / "small", write(work / "a.csv", "symptoms\na\nb\0\nc\n"))
    check("a row that failed keeps its number", [r["id"] for r in records(out)] == [0, 2], out)


def accuracy(work, path, *more):
    code, _, err = predict(work / "small", path, "--evaluate", "--report", work / "labels.json",
                           "--force", *more)
    return code, load(work / "labels.json")["accuracy"] if code == 0 else err


def test_labels(work):
    config = load(work / "small/config.json")
    number = config["label2id"]
    data = rows(30, seed=5)
    texts, names = [t for t, _ in data], [n for _, n in data]
    numbers = [number[n] for n in names]
    shifted = [CLASSES[(CLASSES.index(n) + 1) % 3] for n in names]
    want = accuracy(work, write(work / "l.csv", table(["symptoms", "prognosis"], texts, names)))
    check("labels by name", want == (0, 1.0), want)
    cases = [("column label", "l.csv", table(["symptoms", "label"], texts, names), []),
             ("prognosis goes before label", "l.csv",
              table(["label", "symptoms", "prognosis"], shifted, texts, names), []),
             ("--label-column", "l.csv",
              table(["symptoms", "prognosis", "truth"], texts, shifted, names),
              ["--label-column", "truth"]),
             ("by number", "l.csv", table(["symptoms", "prognosis"], texts, numbers), []),
             ("JSONL by name", "l.jsonl", jsonl(symptoms=texts, prognosis=names), []),
             ("JSONL, key label", "l.jsonl", jsonl(symptoms=texts, label=names), []),
             ("JSONL by number", "l.jsonl", jsonl(symptoms=texts, prognosis=numbers), []),
             ("JSONL by a number in quotes", "l.jsonl",
              jsonl(symptoms=texts, prognosis=[str(n) for n in numbers]), [])]
    for name, path, text, more in cases:
        got = accuracy(work, write(work / path, text), *more)
        check(f"labels: {name}", got == want, got)
    got = accuracy(work, write(work / "l.csv", table(["symptoms", "prognosis"], texts, shifted)))
    check("labels that are all wrong: accuracy 0", got == (0, 0.0), got)
    for name, label in (("an unknown name", "Martian"), ("a number of no class", "3"),
                        ("a number with a zero before it", "01"), ("nothing", "")):
        write(work / "l.csv", table(["symptoms", "prognosis"], texts[:3],
                                    [names[0], label, names[2]]))
        code, out, err = predict(work / "small", work / "l.csv", "--evaluate")
        check(f"labels: {name}: the row fails alone, 6, line 3, not quoted", code == 6 and
              [r["id"] for r in records(out)] == [0, 2] and "line 3" in err and
              "Martian" not in err, (code, err))
    # Training with numbers keeps the head of the model: the same bytes as with names.
    ends = []
    for labels in (names, numbers):
        write(work / "l.csv", table(["symptoms", "prognosis"], texts, labels))
        code, _, err = quick(work, work / "by", "--model", work / "small", "--train",
                             work / "l.csv", "--epochs", "1", "--force")
        ends.append((code, weights(work / "by"), load(work / "by/config.json")["id2label"]))
    check("train --model: labels by number are the model's classes", ends[0][0] == 0 and
          ends[0] == ends[1], (ends[0][0], ends[1][0], ends[0][2], ends[1][2]))
    # Where labels are numbers themselves, a number is a name and never a place.
    for path, first in (("one.csv", 1), ("nought.csv", 0)):
        write(work / path, table(["symptoms", "prognosis"], texts, [n + first for n in numbers]))
    quick(work, work / "one", "--train", work / "one.csv", "--valid", work / "one.csv", "--epochs",
          "0")
    code, out, err = predict(work / "one", work / "nought.csv", "--evaluate")
    check("a model of the labels 1, 2, 3: 0 is unknown", code == 6 and
          len(records(out)) == sum(n > 0 for n in numbers), err)
    code, _, err = quick(work, work / "next", "--model", work / "one", "--train",
                         work / "nought.csv", "--valid", work / "nought.csv", "--epochs", "0")
    check("train --model: 0, 1, 2 are not its labels 1, 2, 3: a new head", code == 0 and
          "a new head" in err and sorted(load(work / "next/config.json")["label2id"]) ==
          ["0", "1", "2"], err)
    for name, label in (("bytes that are no UTF-8", b"Fl\xff"), ("a line feed", b'"a\nb"'),
                        ("1025 bytes", b"L" * 1025)):
        write(work / "l.csv", b"symptoms,prognosis\nfever,A\nrash,B\ncough," + label + b"\n")
        code, _, err = quick(work, work / "odd", "--train", work / "l.csv", "--valid",
                             work / "l.csv", "--epochs", "0", "--force")
        check(f"train: a label of {name}: the row fails alone, 6, line 4", code == 6 and
              "line 4" in err and len(load(work / "odd/config.json")["id2label"]) == 2, (code, err))
    write(work / "l.csv", b"symptoms,prognosis\nfever,A\nrash,\xef\xbf\xbd" + b"L" * 1021 + b"\n")
    check("train: a label of 1024 bytes, U+FFFD among them", quick(
        work, work / "odd", "--train", work / "l.csv", "--valid", work / "l.csv", "--epochs", "0",
        "--force")[0] == 0)
    write(work / "order.csv", "prognosis\n")
    code, _, err = quick(work, work / "never", "--labels", work / "order.csv", "--epochs", "0")
    check("--labels F without rows: 4", code == 4 and "order.csv: no rows" in err, err)
    write(work / "order.csv", "prognosis\n" + "Common Cold\nFlu\n\"Hepatitis, \"\"B\"\"\"\nAcne\n")
    code, _, err = quick(work, work / "ordered", "--labels", work / "order.csv", "--epochs", "0")
    check("--labels F fixes classes and their order", code == 0 and list(
        load(work / "ordered/config.json")["id2label"].values()) ==
        ["Common Cold", "Flu", 'Hepatitis, "B"', "Acne"], err)
    for ids, want in (("012", 0), ("120", 4), ("abc", 0)):
        write(work / "order.csv", table(["id", "prognosis"], ids, CLASSES[:3]))
        code, _, err = quick(work, work / "numbered", "--labels", work / "order.csv", "--epochs",
                             "0", "--force")
        check(f"--labels F with ids {ids}: {want}", code == want and
              (code == 0 or "line 2" in err), err)
    write_jsonl(work / "oids.jsonl", [{"symptoms": t, "prognosis": n, "id": {"$oid": i}}
                                   for i, (t, n) in enumerate(data)])
    code, _, err = quick(work, work / "unasked", "--train", work / "oids.jsonl", "--epochs", "0")
    check("train: an id, which nobody asks for, may be anything", code == 0, err)


def test_pairs(work):
    code, _, err = predict(work / "small", work / "small.csv", "--pair-column", "nowhere")
    check("a pair's column that the header lacks: 4, --pair-column is named", code == 4 and
          "--pair-column" in err, err)
    first, second = TEXTS[:3], TEXTS[3:6]
    for name, path, data in (("CSV", "p.csv", table(["symptoms", "exam"], first, second)),
                             ("JSONL", "p.jsonl", jsonl(symptoms=first, exam=second))):
        code, out, err = predict(work / "small", write(work / path, data), "--pair-column", "exam",
                                 "--tokens")
        got = [r["input_ids"] for r in records(out)]
        code1, alone, _ = predict(work / "small", work / path, "--tokens")
        parts = [r["input_ids"] for r in records(alone)]
        check(f"{name}, --pair-column: a second segment behind the first one's [SEP]", code == 0 and
              len(got) == 3 and all(i.count(3) == 2 and i[:len(p)] == p for i, p in
                                    zip(got, parts)), (code, err, got))
        for columns, option in ((["symptoms", "text"], "text"), (["text", "symptoms"], "symptoms")):
            data = (table(columns, first, second) if name == "CSV" else
                    jsonl(**dict(zip(columns, (first, second)))))
            code, out, err = predict(work / "small", write(work / f"usual-{path}", data),
                                     "--pair-column", option, "--tokens")
            check(f"{name}, --pair-column {option}: the text is in the other usual column",
                  code == 0 and [r["input_ids"] for r in records(out)] == got, err)
    code, _, err = predict(work / "nowhere", work / "p.csv", "--text-column", "a", "--pair-column",
                           "a")
    check("one column for two things: 2, before a model is looked for", code == 2 and
          "'a'" in err, (code, err))
    write(work / "p2.csv", table(["symptoms", "exam"], second, first))
    logits = [[r["logits"] for r in records(predict(
        work / "small", work / p, "--pair-column", "exam", "--logits")[1])]
        for p in ("p.csv", "p2.csv")]
    check("the order of the segments matters", logits[0] != logits[1])
    code, out, err = predict(work / "small", work / "a.csv", "--pair-column", "exam")
    check("no such pair column: 4, stdout empty", code == 4 and not out, (code, err))
    write_jsonl(work / "p.jsonl", [{"symptoms": "a", "exam": "b"}, {"symptoms": "a"}])
    code, out, err = predict(work / "small", work / "p.jsonl", "--pair-column", "exam")
    check("a JSONL row without the pair's key fails alone: 6", code == 6 and
          len(records(out)) == 1, (code, err))
    data = rows(40)
    write(work / "pt.csv", table(["symptoms", "exam", "prognosis"], [t for t, _ in data],
                                 [t for t, _ in data], [n for _, n in data]))
    code, _, err = quick(work, work / "paired", "--train", work / "pt.csv", "--valid",
                         work / "pt.csv", "--pair-column", "exam", "--epochs", "1")
    code2, _, err2 = quick(work, work / "unpaired", "--train", work / "pt.csv", "--valid",
                           work / "pt.csv", "--epochs", "1")
    check("train --pair-column", code == code2 == 0 and
          weights(work / "paired") != weights(work / "unpaired"), err + err2)


def test_bad_rows(work):
    head = b"symptoms,prognosis\n"
    secret = SECRET.encode()
    cases = [("too few fields", "b.csv", head + b"a,Flu\n" + secret + b"\nc,Flu\n", 3),
             ("too many fields", "b.csv", head + b"a,Flu\n" + secret + b",x,y\nc,Flu\n", 3),
             ("a NUL byte", "b.csv", head + b"a,Flu\n" + secret + b"\0,Flu\nc,Flu\n", 3),
             ("text behind a closing quote", "b.csv",
              head + b'a,Flu\n"' + secret + b'"x,Flu\nc,Flu\n', 3),
             ("a fault behind a field of two lines", "b.csv",
              head + b'"a\na",Flu\n' + secret + b"\nc,Flu\n", 4),
             ("JSON that is none", "b.jsonl",
              b'{"text":"a"}\n{"text":"' + secret + b'"\n{"text":"b"}\n', 2),
             ("JSON with invalid UTF-8", "b.jsonl",
              b'{"text":"a"}\n{"text":"' + secret + b'\xff"}\n{"text":"b"}\n', 2),
             ("JSON behind the object", "b.jsonl",
              b'{"text":"a"}\n{"text":"' + secret + b'"}{}\n{"text":"b"}\n', 2),
             ("no object", "b.jsonl", b'{"text":"a"}\n["' + secret + b'"]\n{"text":"b"}\n', 2),
             ("no text", "b.jsonl",
              b'{"text":"a"}\n{"note":"' + secret + b'"}\n{"text":"b"}\n', 2),
             ("a text that is a number", "b.jsonl",
              b'{"text":"a"}\n{"text":7731,"x":"' + secret + b'"}\n{"text":"b"}\n', 2),
             ("a key twice", "b.jsonl",
              b'{"text":"a"}\n{"text":"' + secret + b'","text":""}\n{"text":"b"}\n', 2),
             ("lines: a NUL byte", "b.txt", b"a\n" + secret + b"\0\nb\n", 2),
             ("over 64 MiB", "b.txt", b"a\n" + secret + b"x" * (64 << 20) + b"\nb\n", 2)]
    for name, path, data, line in cases:
        code, out, err = predict(work / "small", write(work / path, data))
        check(f"bad row: {name}: alone, 6, line {line}, not quoted", code == 6 and
              [r["id"] for r in records(out)] == [0, 2] and f"line {line}:" in err and
              "1 of 3 rows failed" in err and SECRET not in err, (code, err))
    write(work / "b.csv", head + b"fever alpha,Flu\n" + secret + b"\nrash beta,Common Cold\n")
    code, _, err = quick(work, work / "six", "--train", work / "b.csv", "--valid", work / "b.csv",
                         "--epochs", "1", "--batch-size", "1")
    check("train: a bad row fails alone: 6, and the model is there", code == 6 and
          (work / "six/config.json").exists() and SECRET not in err, (code, err))
    write(work / "b.csv", head + b"fever alpha,Flu\nx,Martian\nrash beta,Common Cold\n")
    code, _, err = run("quantize", "--model", work / "small", "--output", work / "six8", "--data",
                       work / "b.csv", "--criterion", "none")
    check("quantize: an unknown label fails alone: 6, and the model is there", code == 6 and
          (work / "six8/config.json").exists() and "line 3" in err and "Martian" not in err,
          (code, err))


def test_bad_files(work):
    cases = [("an open quote at the end", "f.csv", b'symptoms\na\n"' + SECRET.encode(), []),
             ("no text column", "f.csv", b"note\na\n", []),
             ("--text-column that is not there", "f.csv", b"symptoms\na\n", ["--text-column", "x"]),
             ("a column twice", "f.csv", b"symptoms,symptoms\na,b\n", []),
             ("no label column", "f.csv", b"symptoms\na\n", ["--evaluate"]),
             ("lines have no labels", "f.csv", b"symptoms\na\n", ["--evaluate", "--lines"]),
             ("lines are no pairs", "f.csv", b"a\n", ["--pair-column", "x", "--lines"]),
             ("--label-column that is not there", "f.csv", b"symptoms,prognosis\na,Flu\n",
              ["--evaluate", "--label-column", "x"])]
    for name, path, data, more in cases:
        code, out, err = predict(work / "small", write(work / path, data), *more,
                                 "--output", work / "f.out")
        check(f"file: {name}: 4, no output, not quoted", code == 4 and not out and
              not (work / "f.out").exists() and SECRET not in err and "f.csv" in err and
              ("text column" not in name or "--lines" in err), (code, err))
        if not more or more[0] == "--text-column":
            code, _, err = quick(work, work / "f_model", "--train", work / path, *more)
            check(f"file: {name}: train: 4, nothing written", code == 4 and
                  not (work / "f_model").exists(), (code, err))
    write(work / "f.csv", b'symptoms\na\nb\n"' + SECRET.encode())
    ends = [predict(work / "small", work / "f.csv", "--format", form, *more)[:2]
            for form in ("jsonl", "kit") for more in ([], ["--batch-size", "1"])]
    check("file: rows before an open quote come out, whatever the batch size", ends[0] == ends[1]
          and ends[2] == ends[3] and [code for code, _ in ends] == [4] * 4 and
          len(records(ends[0][1])) == len(json.loads(ends[2][1])["predictions"]) == 2, ends)
    for name, source in (("of NUL bytes", ["cat", "/dev/zero"]),
                         ("of letters", ["sh", "-c", "yes letters | tr -d '\\n'"])):
        endless = subprocess.Popen(source, stdout=subprocess.PIPE)
        try:
            done = subprocess.run([BUILD / "predict", "--model", work / "small", "--input", "-"],
                                  stdin=endless.stdout, capture_output=True, timeout=60)
            check(f"file: a header {name} without an end: 4", done.returncode == 4 and
                  not done.stdout, done)
        except subprocess.TimeoutExpired:
            check(f"file: a header {name} without an end: 4", False, "it reads and reads")
        endless.stdout.close()
        endless.kill()
        endless.wait()
    for name, path in (("missing", work / "nothing.csv"), ("a directory", work)):
        ends = [predict(work / "small", path)[::2],
                quick(work, work / "f_model", "--train", path)[::2],
                quick(work, work / "f_model", "--valid", path)[::2],
                run("quantize", "--model", work / "small", "--output", work / "f_model", "--data",
                    path)[::2]]
        check(f"file: {name}: 4 from every program, nothing written",
              [code for code, _ in ends] == [4] * 4 and not (work / "f_model").exists(), ends)
    for name, data in (("an empty file", b""), ("a header alone", b"symptoms,prognosis\n")):
        write(work / "z.csv", data)
        code, out, err = predict(work / "small", work / "z.csv")
        check(f"zero rows: {name}: predict 0, a warning, stdout empty", code == 0 and not out and
              "warning" in err and "no rows" in err, (code, err))
        for form in ("kit", "csv"):
            code, out, err = predict(work / "small", work / "z.csv", "--format", form)
            check(f"zero rows: {name}: stdout empty with --format {form}", code == 0 and not out)
        ends = [quick(work, work / "f_model", "--train", work / "z.csv")[::2],
                quick(work, work / "f_model", "--valid", work / "z.csv")[::2],
                run("quantize", "--model", work / "small", "--output", work / "f_model", "--data",
                    work / "z.csv")[::2]]
        check(f"zero rows: {name}: train and quantize 4, nothing written",
              [code for code, _ in ends] == [4] * 3 and not (work / "f_model").exists(), ends)
    write_csv(work / "one.csv", [("a", "x"), ("b", "x")])
    code, _, err = quick(work, work / "f_model", "--train", work / "one.csv", "--valid",
                         work / "one.csv")
    check("a single class: 4, nothing written", code == 4 and "single class" in err and
          not (work / "f_model").exists(), (code, err))
    write_csv(work / "one.csv", [("a", "Gout")])
    code, _, err = quick(work, work / "f_model", "--valid", work / "one.csv")
    check("a validation label that training lacks: 4, line 2, nothing written", code == 4 and
          "line 2" in err and "Gout" not in err and not (work / "f_model").exists(), (code, err))
    ends = [quick(work, work / "f_model", f"--{o}", work / "nothing")[0]
            for o in ("labels", "config", "vocab", "model")]
    check("a side file that is missing: labels 4, configuration, vocabulary and model 3",
          ends == [4, 3, 3, 3] and not (work / "f_model").exists(), ends)
    write(work / "twice.csv", "label\nFlu\nFlu\n")
    code, _, err = quick(work, work / "f_model", "--labels", work / "twice.csv")
    check("--labels with a label twice: 4", code == 4, (code, err))
