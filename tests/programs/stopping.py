"""stopping.py -- signals, kills, checkpoints, full disks, closed pipes, outputs that exist."""
import ctypes
import os
import random
import re
import resource
import select
import shutil
import signal
import stat
import subprocess
import tempfile
import time

from .base import (BUILD, LONG, PROGRAMS, check, load, predict, quick, records, rows, run, weights,
                   write, write_csv)


def command(work, out, *more):
    return [str(w) for w in (
        BUILD / "train", "--train", work / "small.csv", "--valid", work / "small_valid.csv",
        "--config", work / "small.json", "--vocab", work / "small_vocab.txt", "--output", out,
        "--lr", "5e-3", *more)]


def start(words):
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def weights_there(model):
    return (model / "model.safetensors").exists()


def wait_for(truth, process, seconds=60):
    end = time.monotonic() + seconds
    while not truth() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def checkpoints(out):
    return sorted(p.name for p in out.glob("*.dpck"))


def test_signals(work):
    for how, want in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = work / f"signal{int(how)}"
        options = ["--epochs", "100000", "--checkpoint-every", "0"]
        process = start(command(work, out, *options))
        wait_for(lambda: out.exists() and not list(out.glob("*.tmp-*")), process)
        time.sleep(0.3)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        names = checkpoints(out)
        check(f"train, {how.name}: {want}, one checkpoint and nothing else, said", want ==
              process.returncode and len(names) == 1 and len(list(out.iterdir())) == 1 and
              b"--resume" in err, (process.returncode, list(out.iterdir()), err[-300:]))
        code, _, err = predict(out, work / "small.csv")
        check("predict does not open a directory of checkpoints: 3", code == 3, err)
        process = start(command(work, out, *options, "--resume"))
        time.sleep(0.5)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        check("the checkpoint is resumed, without --force", process.returncode == want and
              names and b"resumed from " + names[0].encode() in err, err)
    process = subprocess.Popen([BUILD / "predict", "--model", work / "small", "--input", "-",
                                "--lines", "--output", work / "cut.jsonl"], stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdin.write(b"fever\n")
    process.stdin.flush()
    wait_for(lambda: list(work.glob(".cut.jsonl.tmp-*")), process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.communicate(timeout=60)
    check("predict --output, SIGINT: 130, neither output nor temporary file",
          process.returncode == 130 and not list(work.glob("*cut.jsonl*")),
          (process.returncode, list(work.glob("*cut*"))))


def silent(words, how, ready=None, **more):
    """The end of a process that gets a signal once READY (0.5 s: always) and has 20 s to go."""
    process = subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, **more)
    wait_for(ready or (lambda: False), process, 20 if ready else 0.5)
    process.send_signal(how)
    try:
        err = process.communicate(timeout=20)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        err = process.communicate()[1]
    return process.returncode, err


def test_waiting(work):
    """Signals while a program waits for others, and signals that it is to ignore."""
    os.mkfifo(work / "empty")
    ask = [BUILD / "predict", "--model", work / "small", "--input"]
    for name, words in (
            ("predict --input", [*ask, work / "empty"]),
            ("predict --output", [*ask, work / "small.csv", "--output", work / "empty"]),
            ("predict --logfile", [*ask, work / "small.csv", "--logfile", work / "empty"]),
            ("train --train", command(work, work / "never", "--train", work / "empty")),
            ("quantize --data", [BUILD / "quantize", "--model", work / "small", "--output",
                                 work / "never", "--data", work / "empty"])):
        end = silent(words, signal.SIGTERM)
        check(f"{name}, a pipe that nobody opens, SIGTERM: 143", end[0] == 143, end)
    write_csv(work / "much.csv", rows(3000))
    write_csv(work / "more.csv", rows(20000))
    out = work / "started"
    end = silent(command(work, out, "--epochs", "0", "--valid", work / "more.csv", "--isa",
                         "scalar", "--threads", "1"), signal.SIGTERM, ready=out.exists)
    check("train --epochs 0, measuring, SIGTERM: 143, no model", end[0] == 143 and
          not (out / "config.json").exists(), end)
    end = silent([*ask, "/dev/zero", "--lines"], signal.SIGTERM)
    check("predict, a row without an end, SIGTERM: 143", end[0] == 143, end)
    read, wrote = os.pipe()
    end = silent([*ask, work / "much.csv", "--tokens", "--logits"], signal.SIGTERM, stdout=wrote)
    os.close(read)
    os.close(wrote)
    check("predict, a pipe that nobody reads on, SIGTERM: 143", end[0] == 143, end)
    out = work / "hung"
    process = subprocess.Popen(["nohup", *command(work, out, "--epochs", "100000",
                                                  "--checkpoint-every", "0")],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL)
    wait_for(lambda: out.exists() and not list(out.glob("*.tmp-*")), process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    alive = process.poll() is None
    process.send_signal(signal.SIGTERM)
    check("train under nohup: SIGHUP is ignored, SIGTERM is not", alive and
          process.wait(60) == 143 and checkpoints(out), (alive, process.returncode))


def test_replacing(work):
    """Runs with --force into a directory where others have been."""
    out, plain = work / "again", ["--epochs", "1"]
    quick(work, out, *plain)
    old = weights(out)
    for name in ("added_tokens.json", "tokenizer.json", "model.safetensors.index.json",
                 "diseasepred.json"):
        write(out / name, '{"[X]": 18}')
    code, _, err = quick(work, out, *plain, "--force")
    check("train --force: what belongs to the old model goes, the new one opens", code == 0 and
          len(list(out.iterdir())) == 6 and predict(out, work / "small.csv")[0] == 0 and
          weights(out) == old, (err, list(out.iterdir())))
    long = ["--epochs", "100000", "--checkpoint-every", "0"]

    def stopped(*more):
        before = checkpoints(out)
        process = start(command(work, out, *long, *more))
        wait_for(lambda: not list(out.glob("*.tmp-*")) and checkpoints(out) != before, process, 1)
        process.send_signal(signal.SIGTERM)
        return process.communicate()[1].decode()
    stopped("--force")
    first = checkpoints(out)
    code, _, err = quick(work, out, "--epochs", "2", "--lr", "1e-3", "--resume")
    check("a --force run that was killed: --resume finds its checkpoint, not a complete run",
          first and code == 3 and "--force" in err and "complete" not in err, (first, err))
    write(out / "ckpt-999999999999.dpck", (out / first[0]).read_bytes())
    err = stopped("--resume", "--force", "--lr", "1e-3")
    left = checkpoints(out)
    check("--resume --force with other options: the old checkpoints go, its own stays",
          len(left) == 1 and left[0] not in (*first, "ckpt-999999999999.dpck") and
          f"step {int(left[0][5:17])};" in err, (left, err))
    code, _, err = quick(work, out, "--epochs", "0", "--resume")
    check("--resume --epochs 0: 2, the checkpoint stays", code == 2 and checkpoints(out) == left,
          err)
    shutil.rmtree(out)
    log = ["--logfile", out / "log"]
    code, _, err = quick(work, out, *plain, *log, "--train", work / "missing.csv")
    again, _, said = quick(work, out, *plain, *log)
    check("a start that failed has left its log: the next needs no --force", code == 4 and
          again == 0 and "missing.csv" in (out / "log").read_text(), (err, said))
    write(out / f".answers.jsonl.tmp-{os.getpid()}", "of a living process")
    code, _, err = run("quantize", "--model", work / "small", "--output", out, "--force")
    check("quantize --force: the temporary file of another program at work stays; the report of "
          "train goes", code == 0 and len(list(out.glob(".answers.jsonl.tmp-*"))) == 1 and
          not (out / "training_report.json").exists(), (err, list(out.iterdir())))
    shutil.rmtree(out)


def test_resume(work):
    plain = ["--epochs", "2", "--batch-size", "8"]
    quick(work, work / "straight", *plain)
    want = weights(work / "straight")
    code, _, err = quick(work, work / "fresh", *plain, "--resume")
    check("--resume without a checkpoint: from the beginning, said, the same bytes", code == 0 and
          "no checkpoint to resume from" in err and weights(work / "fresh") == want, err)
    code, _, err = quick(work, work / "fresh", *plain, "--resume")
    check("--resume of a run that is complete: 2", code == 2 and "complete" in err, err)
    last = ["--epochs", "1", "--batch-size", "50", "--checkpoint-every", "1", "--valid",
            write_csv(work / "long.csv", rows(20000)), "--isa", "scalar", "--threads", "1"]
    process = start(command(work, work / "last", *last))
    wait_for(lambda: checkpoints(work / "last"), process)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    code, _, said = quick(work, work / "last", *last, "--resume")
    accuracy = load(work / "last/training_report.json")["accuracy"]
    check("stopped in the last validation and resumed: the accuracy is measured", code == 0 and
          process.returncode == 130 and b"step 2;" in err and accuracy is not None and
          f"accuracy {accuracy:.4f}" in said, (process.returncode, err, said))
    out = work / "half"
    process = start(command(work, out, "--epochs", "100000", "--checkpoint-every", "1"))
    wait_for(lambda: len(checkpoints(out)) >= 2, process)
    process.kill()
    process.communicate()
    kept = checkpoints(out)
    check("--checkpoint-every: no more than two stay (a third while one is written)",
          1 <= len(kept) <= 3, kept)
    code, _, err = quick(work, out, *plain)
    check("a directory of a killed run, neither --resume nor --force: 2", code == 2 and
          checkpoints(out) == kept, err)
    for name, more in (("another learning rate", ["--lr", "1e-3"]),
                       ("another seed", ["--seed", "9"]),
                       ("another batch size", ["--batch-size", "5"])):
        code, _, err = quick(work, out, "--epochs", "100000", *more, "--resume")
        check(f"--resume with {name}: 3, the checkpoints stay", code == 3 and "--force" in err and
              checkpoints(out) == kept, err)
    bigger = write(work / "bigger.json", (work / "small.json").read_text().replace(
        '"intermediate_size": 64', '"intermediate_size": 80'))
    code, _, err = quick(work, out, "--epochs", "100000", "--config", bigger, "--resume")
    check("--resume with another configuration: 3, the checkpoints stay", code == 3 and
          checkpoints(out) == kept, err)
    long = work / "longer"
    process = start(command(work, long, "--epochs", "100000", "--checkpoint-every", "1"))
    wait_for(lambda: any(int(n[5:17]) > 2 * 7 for n in checkpoints(long)), process)
    process.kill()
    process.communicate()
    left = checkpoints(long)
    code, _, err = quick(work, long, "--epochs", "1", "--resume")
    check("--resume with fewer epochs than were begun: 3, the checkpoints stay", code == 3 and
          "K14" in err and left == checkpoints(long) and not weights_there(long), (code, err))
    shutil.rmtree(long)
    code, _, err = quick(work, out, *plain, "--resume", "--force")
    check("--resume --force with another configuration: from the beginning, the same bytes",
          code == 0 and weights(out) == want and not checkpoints(out), err)
    out = work / "dead"
    out.mkdir()
    left = ["model.safetensors.tmp-0123abcd", "ckpt-000000000002.dpck.tmp-99999999",
            "ckpt-000000000002.dpck.tmp-1126500", "config.json.tmp-70"]
    for name in left:
        write(out / name, "half")
    write(out / "notes.tmp-of-mine.txt", "mine")
    code, _, err = quick(work, out, *plain, "--resume")
    check("dead temporary files are removed by the next run, others stay", code == 0 and
          not any((out / n).exists() for n in left) and (out / "notes.tmp-of-mine.txt").exists()
          and weights(out) == want, list(out.iterdir()))
    dead = subprocess.Popen(["true"])
    dead.wait()
    write(work / f".late.jsonl.tmp-{dead.pid}", "half")
    write(work / f".late.jsonl.tmp-{os.getpid()}", "of a living process")
    code, _, err = predict(work / "small", work / "small.csv", "--output", work / "late.jsonl")
    check("predict --output removes the temporary of a dead process, not of a living one",
          code == 0 and [p.name for p in work.glob(".late*")] == [f".late.jsonl.tmp-{os.getpid()}"],
          (err, list(work.glob(".late*"))))
    os.unlink(work / f".late.jsonl.tmp-{os.getpid()}")
    script = ('echo half > "$5/.late.jsonl.tmp-$$"; '
              'exec "$0" --model "$1" --input "$2" --output "$3" "$4"')
    again = subprocess.run(["sh", "-c", script, BUILD / "predict", work / "small",
                            work / "small.csv", work / "late.jsonl", "--force", work],
                           capture_output=True)
    check("a temporary with the number of this very process is of a dead one, as in containers",
          again.returncode == 0 and not list(work.glob(".late*")), again.stderr)
    out = work / "torn"
    process = start(command(work, out, "--config", "mini", "--epochs", "100000",
                            "--checkpoint-every", "1"))
    wait_for(lambda: list(out.glob("*.dpck.tmp-*")), process)
    process.kill()
    process.communicate()
    before = [p.name for p in out.glob("*.tmp-*")]
    process = start(command(work, out, "--config", "mini", "--epochs", "100000", "--resume",
                            "--checkpoint-every", "0"))
    wait_for(lambda: not list(out.glob("*.tmp-*")), process, 10)
    time.sleep(0.5)
    process.kill()
    process.communicate()
    check("a temporary file of the library itself, killed inside its write, is removed as well",
          before and not list(out.glob("*.tmp-*")), (before, list(out.iterdir())))
    shutil.rmtree(out)
    out = work / "locked"
    process = start(command(work, out, "--epochs", "100000"))
    wait_for(out.exists, process)
    time.sleep(0.1)
    code, _, err = quick(work, out, *plain, "--force")
    check("a second run into the same directory: 1", code == 1 and "another run" in err, err)
    process.kill()
    process.communicate()


def test_random_kills(work):
    """kill -9 at random points of a run that always writes a checkpoint of over 100 MB."""
    write_csv(work / "k.csv", rows(40))
    options = ["--config", "medium", "--train", work / "k.csv", "--valid", work / "k.csv",
               "--epochs", "2", "--batch-size", "8", "--seq-length", "8", "--lr", "1e-4",
               "--checkpoint-every", "1"]
    began = time.monotonic()
    code, _, err = quick(work, work / "k0", *options)
    took = time.monotonic() - began
    check("medium is trained, uninterrupted", code == 0, err)
    rng, inside, tries, sizes = random.Random(7), 0, 0, [0]
    while tries < 40 and (tries < 8 or inside < 3):
        tries += 1
        out = work / "k1"
        process = start(command(work, out, *options))
        time.sleep(0.2 + rng.random() * took * 0.9)
        process.kill()
        process.communicate()
        temporary = [p for p in out.glob("*.dpck.tmp-*")] if out.exists() else []
        inside += any(p.stat().st_size > 0 for p in temporary)
        names = checkpoints(out)
        sizes += [(out / n).stat().st_size for n in names]
        complete = (out / "config.json").exists()
        where = f"newest checkpoint {names[-1] if names else 'none'}" + (
            ", inside a write" if temporary else ", complete" if complete else "")
        code, _, err = quick(work, out, *options, "--resume")
        check(f"kill {tries} ({where}): resumed from it", (code == 2 and complete) or code == 0 and
              (not names or f"resumed from {names[-1]}" in err), (code, err))
        check("to the same bytes", weights(out) == weights(work / "k0"))
        check("and nothing is left", complete or not (
            checkpoints(out) + list(out.glob("*.tmp-*"))), list(out.iterdir()))
        shutil.rmtree(out)
    check(f"{inside} kills fell into the write of a file over 100 MB", inside >= 3 and
          max(sizes) > 100e6, max(sizes))
    shutil.rmtree(work / "k0")


def limited(size):
    """Files of this process end at SIZE bytes: a write beyond fails, as on a full disk."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return limit


def powerless():
    """Even root obeys the permissions of files from here on (CAP_DAC_OVERRIDE is dropped)."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)


def keeps_reports(work):
    """A model that could not be replaced keeps its report; what is new leaves none alone."""
    model, int8, new = work / "keeps", work / "keeps8", work / "keeps_new"
    quick(work, model, "--epochs", "1")
    run("quantize", "--model", model, "--output", int8, "--weights", "quads")
    to_int8 = [BUILD / "quantize", "--model", work / "small", "--weights", "full", "--output"]
    for name, words, out in (
            ("quantize over an INT8 model", to_int8 + [int8, "--force"], int8),
            ("quantize over a trained model", to_int8 + [model, "--force"], model),
            ("train over an INT8 model", command(work, int8, "--epochs", "1", "--force"), int8),
            ("train over a trained model", command(work, model, "--epochs", "2", "--force"), model),
            ("quantize", to_int8 + [new], new),
            ("train", command(work, new, "--epochs", "1"), new)):
        before = {p.name: p.read_bytes() for p in out.iterdir()} if out.exists() else {}
        done = subprocess.run(list(map(str, words)), capture_output=True, preexec_fn=limited(20000))
        after = {p.name: p.read_bytes() for p in out.iterdir()}
        check(f"{name}, no room: 1, model and report of before, no other", done.returncode == 1 and
              after == before and b"File too large" in done.stderr,
              (done.stderr, before.keys() ^ after.keys()))
    for name in ("training_report.json", "model.safetensors", "config.json"):
        out = work / "blocked"
        (out / name).mkdir(parents=True)
        for words in (command(work, out, "--epochs", "100000", "--force"),
                      to_int8 + [out, "--force"]):
            done = subprocess.run(list(map(str, words)), capture_output=True)
            check(f"{words[0].rsplit('/')[-1] if isinstance(words[0], str) else 'quantize'}: a "
                  f"directory called {name} in the way: 1 before any work", done.returncode == 1 and
                  f"{name}: is a directory" in done.stderr.decode() and
                  [p.name for p in out.iterdir()] == [name], done.stderr)
        shutil.rmtree(out)
    (model / "vocab.txt").chmod(0)
    done = subprocess.run([BUILD / "predict", "--model", model, "--input", work / "small.csv"],
                          capture_output=True, preexec_fn=powerless)
    check("a file of the model that may not be read: 3, and why", done.returncode == 3 and
          b"vocab.txt: cannot be read or written: Permission denied" in done.stderr, done.stderr)
    for out in (model, int8, new):
        shutil.rmtree(out)


def outputs(work, where):
    """The three programs, writing into a place where they cannot."""
    yield "train", command(work, where / "m", "--epochs", "1")
    yield "predict", [BUILD / "predict", "--model", work / "small", "--input", work / "small.csv",
                      "--output", where / "o.jsonl"]
    yield "quantize", [BUILD / "quantize", "--model", work / "small", "--output", where / "q"]


def test_places(work):
    closed = work / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    for place, where in (("a missing parent", work / "nowhere"), ("a read-only parent", closed),
                         ("a parent that is a file", work / "small.csv")):
        for program, words in outputs(work, where):
            done = subprocess.run(list(map(str, words)), capture_output=True, preexec_fn=powerless)
            check(f"{program}: {place}: 1, a sentence, nothing there", done.returncode == 1 and
                  len(done.stderr) > 20 and not list(closed.iterdir()), done)
    closed.chmod(0o755)
    full = work / "full"
    full.mkdir()
    none = work / "none"
    none.mkdir()
    for program, words in outputs(work, none):
        done = subprocess.run(list(map(str, words)), capture_output=True, preexec_fn=limited(0))
        check(f"{program}: no room for a byte: 1, no file of any kind", done.returncode == 1 and
              not [p for p in none.rglob("*") if p.is_file()], done.stderr)
    for program, words in outputs(work, full):
        done = subprocess.run(list(map(str, words)), capture_output=True,
                              preexec_fn=limited(4096 if program == "predict" else 20000))
        found = [p for p in full.rglob("*") if p.is_file() and p.name in (
            "o.jsonl", "config.json", "model.safetensors") or ".tmp-" in p.name]
        check(f"{program}: no room for the whole file: 1, nothing half there",
              done.returncode == 1 and not found and b"warning" not in done.stderr[-40:],
              (done.returncode, done.stderr, found))
    old = work / "old"
    shutil.copytree(work / "small", old)
    _, want, _ = predict(old, work / "small.csv")
    words = [BUILD / "quantize", "--model", work / "small", "--output", old, "--force"]
    done = subprocess.run(list(map(str, words)), capture_output=True, preexec_fn=limited(20000))
    check("quantize --force: no room for the new model: 1, the old one is whole",
          done.returncode == 1 and predict(old, work / "small.csv")[1] == want, done.stderr)
    keeps_reports(work)
    code, _, err = quick(work, work / "full3", "--epochs", "2", "--checkpoint-every", "1",
                         preexec_fn=limited(20000))
    check("three checkpoints in a row that cannot be written: 1", code == 1 and
          "three checkpoints" in err, err)
    script = (f'mount -t tmpfs -o size=16k none {full} && exec "$0" "$@"')
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", script, "true"], capture_output=True)
    if probe.returncode == 0:
        for program, words in outputs(work, full):
            if program == "predict":
                words += ["--logits", "--format", "jsonl"]
            words = [w if w != work / "small.csv" else work / "big.csv" for w in words]
            write_csv(work / "big.csv", rows(2000))
            done = subprocess.run(["unshare", "-rm", "sh", "-c", script, *map(str, words)],
                                  capture_output=True)
            check(f"{program}: a full file system of its own: 1", done.returncode == 1 and
                  len(done.stderr) > 20, (done.returncode, done.stderr))
    name = "n" * 250
    write(work / f".{name[:200]}.tmp-{dead()}", "half")
    code, _, err = predict(work / "small", work / "small.csv", "--output", work / name)
    check("an output whose name has 250 characters: 0, what a dead process left is gone", code == 0
          and (work / name).stat().st_size > 0 and not list(work.glob(".nn*")), err)
    with open("/dev/full", "wb") as device:
        done = subprocess.run([BUILD / "predict", "--model", work / "small", "--input",
                               work / "small.csv"], stdout=device, stderr=subprocess.PIPE)
    check("a full stdout: 1", done.returncode == 1 and b"cannot be written" in done.stderr, done)
    for option in ("--output", "--report"):
        code, _, err = predict(work / "small", work / "small.csv", option, "/dev/full")
        check(f"{option} /dev/full is written through: 1", code == 1 and "/dev/full" in err, err)
    code, _, err = quick(work, work / "logfull", "--epochs", "1", "--logfile", "/dev/full")
    check("a log that cannot be written: 1 at the end, the model is there", code == 1 and
          (work / "logfull/config.json").exists() and "log is incomplete" in err, err)


def test_pipes(work):
    process = subprocess.Popen([BUILD / "predict", "--model", work / "small", "--input", "-",
                                "--lines"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()
    process.stdin.write(b"fever\n" * 100)
    process.stdin.close()
    err = process.stderr.read()
    process.wait()
    check("a pipe that its reader closed: 1, no death by signal", process.returncode == 1 and err,
          (process.returncode, err))
    done = subprocess.run(["sh", "-c", '"$0" --model "$1" --input "$2" >&-', BUILD / "predict",
                           work / "small", work / "small.csv"], stderr=subprocess.PIPE)
    check("a closed stdout: 1", done.returncode == 1, done.stderr)
    done = subprocess.run(["sh", "-c", '"$0" --model "$1" --input "$2" --output /dev/null >&-',
                           BUILD / "predict", work / "small", work / "small.csv"],
                          stderr=subprocess.PIPE)
    check("a closed stdout, --output /dev/null: 0", done.returncode == 0, done.stderr)
    want = predict(work / "small", work / "small.csv", "--logits", "--tokens")[1]
    ends = [os.pipe(), os.pipe()]
    for fd in (ends[0][0], ends[1][1]):
        os.set_blocking(fd, False)
    process = subprocess.Popen([BUILD / "predict", "--model", work / "small", "--input", "-",
                                "--input-format", "csv", "--logits", "--tokens"],
                               stdin=ends[0][0], stdout=ends[1][1], stderr=subprocess.PIPE)
    os.close(ends[0][0])
    os.close(ends[1][1])
    time.sleep(0.2)
    text = (work / "small.csv").read_bytes()
    os.write(ends[0][1], text + text.split(b"\n", 1)[1] * 20)
    os.close(ends[0][1])
    time.sleep(0.5)
    with os.fdopen(ends[1][0], "rb") as pipe:
        got = pipe.read()
    process.wait()
    check("stdin and stdout that do not block: waited for", process.returncode == 0 and
          got.startswith(want) and len(got) > 20 * len(want) > 80000,
          (process.returncode, process.stderr.read(), len(got), len(want)))
    os.mkfifo(work / "fifo")
    reader = subprocess.Popen(["timeout", "30", "cat", work / "fifo"], stdout=subprocess.PIPE)
    code, out, err = predict(work / "small", work / "small.csv", "--output", work / "fifo")
    through = reader.communicate()[0]
    want = predict(work / "small", work / "small.csv")[1]
    check("--output to a named pipe is written through, without --force", code == 0 and not out and
          through == want and stat.S_ISFIFO((work / "fifo").stat().st_mode), err)
    for name in ("-", "/dev/stdout"):
        code, out, err = predict(work / "small", work / "small.csv", "--output", name)
        check(f"--output {name} is stdout", code == 0 and out == want, err)
    writer = subprocess.Popen(["timeout", "30", "cp", work / "small.csv", work / "fifo"])
    code, out, err = predict(work / "small", work / "fifo")
    writer.wait()
    check("--input from a named pipe", code == 0 and out == want, err)


def check_inputs_stay(work):
    """Every output option against every file that is read, by its name and through links."""
    place = work / "stay"
    shutil.copytree(work / "small", place / "model")
    (place / "data").mkdir()
    (place / "out").mkdir()
    for name, source in (("data/Training.csv", "small.csv"), ("data/Testing.csv", "small.csv"),
                         ("out/vocab.txt", "small_vocab.txt"), ("out/config.json", "small.json")):
        shutil.copy(work / source, place / name)
    for name, to in (("soft", "model/config.json"), ("rows", "data/Testing.csv")):
        (place / name).symlink_to(place / to)
    os.link(place / "model/model.safetensors", place / "hard")
    (place / "linked").mkdir()
    for path in (place / "model").iterdir():
        (place / "linked" / path.name).symlink_to(path)
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    model, data, out = place / "model", place / "data", place / "out"
    asks = ["predict", "--model", model, "--input", work / "small.csv"]
    learns = ["train", "--data", data, "--output", work / "never"]
    shrinks = ["quantize", "--output", work / "never", "--model"]
    news = ["train", "--train", work / "small.csv", "--output"]
    tries = [asks + [o, n] for o in ("--output", "--report", "--logfile") for n in (
        model / "config.json", f"{model}/./vocab.txt", place / "soft", place / "hard",
        model / "model.safetensors.index.json")]
    tries += [learns + ["--logfile", n] for n in (data / "Training.csv", place / "rows")]
    tries += [shrinks + [model, "--logfile", model / "vocab.txt"],
              shrinks + [place / "linked", "--output", model, "--follow-links"],
              news + [model, "--model", place / "linked", "--follow-links"],
              news + [out, "--vocab", out / "vocab.txt"],
              news + [out, "--config", out / "config.json"],
              news + [out, "--logfile", out / "model.safetensors"]]
    for words in tries:
        code, _, err = run(*words, "--force")
        check(f"an output over an input is refused with 2: {words[0]} {words[-2]}",
              code == 2 and not (work / "never").exists() and
              {p: p.read_bytes() for p in place.rglob("*") if p.is_file()} == before, (words, err))
    code, _, err = run(*asks, "--output", model / "answers.jsonl", "--logfile", model / "log")
    check("other files may be written beside a model", code == 0, err)
    shutil.rmtree(place)


def test_existing(work):
    for program, words in outputs(work, work):
        out = words[words.index("--output") + 1]
        shutil.rmtree(out, ignore_errors=True)
        first = subprocess.run(list(map(str, words)), capture_output=True)
        before = sorted((str(p), p.read_bytes()) for p in work.rglob("*")
                        if p.is_file() and str(p).startswith(str(out)))
        again = subprocess.run(list(map(str, words)), capture_output=True)
        after = sorted((str(p), p.read_bytes()) for p in work.rglob("*")
                       if p.is_file() and str(p).startswith(str(out)))
        forced = subprocess.run(list(map(str, [*words, "--force"])), capture_output=True)
        check(f"{program}: an output that exists: 2, untouched, --force is named and replaces it",
              (first.returncode, again.returncode, forced.returncode) == (0, 2, 0) and
              before == after and b"--force" in again.stderr, (first, again, forced))
    words = ["--model", work / "small", "--output", work / "small", "--force"]
    ends = [run("quantize", *words)[0],
            run("train", "--train", work / "small.csv", *words)[0]]
    check("the directory of the model that is read is never the output: 2, with --force as well",
          ends == [2, 2] and (work / "small/config.json").exists(), ends)
    rows_before = (work / "small.csv").read_bytes()
    (work / "alias.csv").symlink_to(work / "small.csv")
    name = work / "small.csv"
    ends = [predict(work / "small", name, *more, "--force")[0] for more in (
        ["--output", name], ["--output", work / "alias.csv"], ["--report", name],
        ["--logfile", name], ["--report", work / "x", "--output", work / "x"])]
    check("two options that name one file, however spelled: 2, with --force as well; not touched",
          ends == [2] * 5 and name.read_bytes() == rows_before and not (work / "x").exists(), ends)
    (work / "alias.csv").unlink()
    check_inputs_stay(work)
    check("pipes and devices may be named twice", predict(
        work / "small", name, "--output", "/dev/null", "--report", "/dev/null")[0] == 0)
    write(work / "old.json", "old")
    code, _, err = predict(work / "small", name, "--report", work / "old.json")
    check("a report that exists: 2 without --force", code == 2 and "--force" in err and
          (work / "old.json").read_text() == "old", err)
    code, _, err = quick(work, work / "small.csv", "--force")
    check("an output that is a file: 2", code == 2 and (work / "small.csv").is_file(), err)
    private = [p for d in ("m", "q") for p in (work / d).iterdir()] + [work / "o.jsonl"]
    check("everything written is private (0600)",
          all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in private), private)
    left = [p for p in work.rglob("*") if ".tmp-" in p.name and "of-mine" not in p.name]
    check("no temporary file is left anywhere", not left, left)
    process = subprocess.Popen([BUILD / "predict", "--model", work / "small", "--input", "-",
                                "--lines", "--output", work / "o.jsonl", "--force"],
                               stdin=subprocess.PIPE)
    old = (work / "o.jsonl").read_bytes()
    process.stdin.write(b"fever\n")
    process.stdin.flush()
    wait_for(lambda: list(work.glob(".o.jsonl.tmp-*")), process)
    unchanged = (work / "o.jsonl").read_bytes() == old
    process.stdin.close()
    process.wait()
    check("--output F --force: the old file stays until the new one is complete", unchanged and
          len(records((work / "o.jsonl").read_bytes())) == 1)
