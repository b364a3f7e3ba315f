#!/usr/bin/env python3
"""Times diseasepred.h beside PyTorch, ONNX Runtime and OpenVINO on the same weights.

usage: bench_peers.py [--threads 2] [--rounds 15] [--tokens 64,128,512] [--train] [--texts CSV]
                      [--tokenize] [--json FILE]

Needs torch, transformers, onnxruntime, onnx, openvino (`make vectors` makes the environment of the
first two). All stacks run in this process, one after the other within every round, so that a change
of the machine's speed meets all of them; medians of the rounds and ratios of medians are printed.
The model is BERT-base with random weights, saved once and loaded by everyone. Absolute times of
shared machines mean little: quote the ratios.
"""
import argparse
import csv
import ctypes
import json
import pathlib
import statistics
import subprocess
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLASSES = 41
P, I32, U32, U64, F64, SIZE = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint64,
                               ctypes.c_double, ctypes.c_size_t)


class Env(ctypes.Structure):
    _fields_ = [("struct_size", SIZE), ("alloc", P * 3), ("io", P * 12), ("log", P),
                ("log_ctx", P), ("isa_cap", I32), ("isa_deny", U32), ("threads", I32),
                ("follow_links", I32)]


class Error(ctypes.Structure):
    _fields_ = [("code", I32), ("rule", ctypes.c_char * 12), ("place", U64),
                ("file", ctypes.c_char * 64), ("text", ctypes.c_char * 248)]


class Text(ctypes.Structure):
    _fields_ = [("a", ctypes.c_char_p), ("a_bytes", SIZE), ("b", ctypes.c_char_p),
                ("b_bytes", SIZE)]


class Dataset(ctypes.Structure):
    _fields_ = [("struct_size", SIZE), ("rows", SIZE), ("texts", P), ("labels", P),
                ("targets", P)]


class TrainOptions(ctypes.Structure):
    _fields_ = [("struct_size", SIZE), ("epochs", I32), ("batch_rows", I32), ("accumulate", I32),
                ("max_tokens", I32), ("lr", F64), ("optimizer", I32), ("schedule", I32),
                ("beta1", F64), ("beta2", F64), ("eps", F64), ("weight_decay", F64),
                ("warmup", F64), ("grad_norm", F64), ("dropout", F64), ("seed", U64),
                ("resume", I32), ("progress", P), ("progress_ctx", P)]


class Ours:
    """diseasepred.h as a shared library in this process."""

    def __init__(self, model_dir, threads, build):
        library = build / "libdiseasepred.so"
        source = build / "shared.c"
        source.write_text("#define DISEASEPRED_IMPLEMENTATION\n#include \"diseasepred.h\"\n")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", f"-I{ROOT}", str(source), "-o",
                        str(library), "-lm", "-lpthread"], check=True)
        self.lib = ctypes.CDLL(str(library))
        self.lib.dp_isa_name.restype = ctypes.c_char_p
        self.error = Error()
        env = Env(struct_size=ctypes.sizeof(Env), threads=threads)
        self.model = self.call("dp_model_open", ctypes.byref(env), str(model_dir).encode())
        self.session = self.call("dp_session_open", self.model, None)

    def call(self, name, *arguments):
        """A constructor: returns the object, or raises with the library's sentence."""
        out = P()
        if getattr(self.lib, name)(*arguments, ctypes.byref(out), ctypes.byref(self.error)):
            raise RuntimeError(self.error.text.decode())
        return out

    def isa(self):
        return self.lib.dp_isa_name(self.lib.dp_isa_best()).decode()

    def quantize(self):
        ours = object.__new__(Ours)
        ours.lib, ours.error = self.lib, Error()
        out = P()
        if self.lib.dp_quantize(self.model, None, None, ctypes.byref(out), None,
                                ctypes.byref(self.error)):
            raise RuntimeError(self.error.text.decode())
        ours.model = out
        ours.session = ours.call("dp_session_open", ours.model, None)
        return ours

    def forward(self, ids):
        logits = np.zeros(CLASSES, np.float32)
        for row in ids:
            row = np.ascontiguousarray(row, np.int32)
            if self.lib.dp_predict_ids(self.session, P(row.ctypes.data), None, SIZE(len(row)), None,
                                       P(logits.ctypes.data), None, ctypes.byref(self.error)):
                raise RuntimeError(self.error.text.decode())
        return logits

    def trainer(self, max_tokens):
        options = TrainOptions(struct_size=ctypes.sizeof(TrainOptions), max_tokens=max_tokens)
        return self.call("dp_trainer_open", self.model, ctypes.byref(options))

    def step(self, trainer, texts, labels):
        raw = [t.encode() for t in texts]
        array = (Text * len(raw))(*[Text(t, len(t), None, 0) for t in raw])
        label = np.asarray(labels, np.int32)
        data = Dataset(ctypes.sizeof(Dataset), len(raw), ctypes.cast(array, P),
                       P(label.ctypes.data), None)
        if self.lib.dp_train_step(trainer, ctypes.byref(data), None, ctypes.byref(self.error)):
            raise RuntimeError(self.error.text.decode())


def interleaved(cases, rounds):
    """Median seconds of each case; every round runs all cases. Before its turn a case waits until
    the threads of the others have stopped spinning (some do for 0.2 s), and runs once untimed."""
    seconds = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            time.sleep(0.25)
            run()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def onnx_session(path, threads):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def openvino_model(path, threads):
    import openvino
    core = openvino.Core()
    return core.compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": threads,
                                                  "INFERENCE_PRECISION_HINT": "f32",
                                                  "PERFORMANCE_HINT": "LATENCY"})


def export(model, build):
    """ONNX files of the model, FP32 and dynamic INT8; int32 inputs ids and mask."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    fp32, int8 = build / "model.onnx", build / "model_int8.onnx"
    ids = torch.ones(1, 64, dtype=torch.long)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    axes = {0: "batch", 1: "tokens"}
    torch.onnx.export(Logits().eval(), (ids, ids), str(fp32), input_names=["ids", "mask"],
                      output_names=["logits"], dynamic_axes={"ids": axes, "mask": axes},
                      opset_version=17, dynamo=False)
    quantize_dynamic(str(fp32), str(int8), weight_type=QuantType.QInt8)
    return fp32, int8


def stacks(args, build):
    """Everyone's forward pass as a function of ids [B, T] and mask [B, T]."""
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=28996, num_labels=CLASSES)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(build / "model")
    vocab = (ROOT / "data/bert-base-cased-vocab.txt").read_bytes()
    (build / "model/vocab.txt").write_bytes(vocab)
    ours = Ours(build / "model", args.threads, build)
    int8 = ours.quantize()
    fp32_path, int8_path = export(model, build)
    ort, ort8 = onnx_session(fp32_path, args.threads), onnx_session(int8_path, args.threads)
    vino = openvino_model(fp32_path, args.threads)
    torch8 = torch.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

    def tensors(ids, mask):
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def real(ids, mask):
        return [row[:int(m.sum())] for row, m in zip(ids, mask)]

    model.eval()
    return model, ours, {
        "ours FP32": lambda ids, mask: ours.forward(real(ids, mask)),
        "PyTorch FP32": lambda ids, mask: model(**tensors(ids, mask)).logits.numpy()[-1],
        "ONNX Runtime FP32": lambda ids, mask: ort.run(None, {"ids": ids, "mask": mask})[0][-1],
        "OpenVINO FP32": lambda ids, mask: vino([ids, mask])[0][-1],
        "ours INT8": lambda ids, mask: int8.forward(real(ids, mask)),
        "PyTorch INT8": lambda ids, mask: torch8(**tensors(ids, mask)).logits.numpy()[-1],
        "ONNX Runtime INT8": lambda ids, mask: ort8.run(None, {"ids": ids, "mask": mask})[0][-1],
    }


def show(title, seconds, results):
    """One block of the table: times, and each peer against ours of its kind."""
    print(f"\n{title}")
    for name, s in seconds.items():
        kind = name.rsplit(" ", 1)[1]
        ratio = s / seconds[f"ours {kind}"]
        print(f"  {name:20}{1e3 * s:10.2f} ms   {ratio:6.2f}x ours {kind}")
        results.append({"case": title, "stack": name, "seconds": s, "ratio": ratio})


def bench_forward(args, table, results):
    rng = np.random.default_rng(0)
    for tokens in [int(t) for t in args.tokens.split(",")]:
        ids = rng.integers(1000, 28000, (1, tokens), dtype=np.int64)
        mask = np.ones_like(ids)
        logits = {name: run(ids, mask) for name, run in table.items()}
        worst = max(np.abs(logits["ours FP32"] - x).max() for n, x in logits.items()
                    if n.endswith("FP32"))
        if worst > 1e-4:
            raise SystemExit(f"the stacks do not compute the same: {worst:.1e}")
        seconds = interleaved({n: (lambda r=r: r(ids, mask)) for n, r in table.items()},
                              args.rounds)
        show(f"batch 1, {tokens} tokens (largest FP32 difference to a peer {worst:.1e})", seconds,
             results)


def bench_texts(args, table, results):
    """Twenty texts, padded to the longest and to 512 for the peers; ours computes real tokens."""
    tokenizer = transformers.BertTokenizerFast(str(ROOT / "data/bert-base-cased-vocab.txt"),
                                               do_lower_case=True)
    rows = list(csv.DictReader(open(args.texts)))[:20]
    for length in ("longest", "max_length"):
        batch = tokenizer([r["symptoms"] for r in rows], padding=length, truncation=True,
                          max_length=512, return_tensors="np")
        ids, mask = batch["input_ids"].astype(np.int64), batch["attention_mask"].astype(np.int64)
        seconds = interleaved({n: (lambda r=r: r(ids, mask)) for n, r in table.items()},
                              max(3, args.rounds // 5))
        show(f"20 texts, peers padded to {ids.shape[1]}", seconds, results)


def bench_train(args, model, ours, results):
    """A training step: 30 texts of 64 tokens, dropout 0.1, Adam."""
    words = [w for w in (ROOT / "data/bert-base-cased-vocab.txt").read_text().splitlines()
             if w.isascii() and w.isalpha() and w.islower() and len(w) > 2]
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(words, 62)) for _ in range(30)]
    labels = rng.integers(0, CLASSES, 30)
    ids = torch.from_numpy(rng.integers(1000, 28000, (30, 64), dtype=np.int64))
    target = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    trainer = ours.trainer(64)

    def peer():
        model.train()
        optimizer.zero_grad()
        model(input_ids=ids, labels=target).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        model.eval()

    with torch.enable_grad():
        seconds = interleaved({"ours FP32": lambda: ours.step(trainer, texts, labels),
                               "PyTorch FP32": peer}, max(3, args.rounds // 5))
    show("training step, batch 30, 64 tokens, Adam", seconds, results)


class EncodeOptions(ctypes.Structure):
    _fields_ = [("struct_size", SIZE), ("max_tokens", I32), ("truncation", I32),
                ("truncate_left", I32), ("parse_special", I32), ("letter_case", I32)]


class Encoding(ctypes.Structure):
    _fields_ = [("ids", P), ("types", P), ("begin", P), ("end", P), ("cap", SIZE), ("n", SIZE),
                ("total", SIZE), ("unknown", SIZE), ("invalid", SIZE)]


def bench_tokenize(args, ours, results):
    """Notes of about 1 kB, one by one, on one core: megabytes a second."""
    import gen_vectors_text
    tokenizer = transformers.BertTokenizerFast(str(ROOT / "data/bert-base-cased-vocab.txt"),
                                               do_lower_case=True)
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(gen_vectors_text.PHRASES, 28)) for _ in range(1000)]
    raw = [t.encode() for t in texts]
    size = sum(map(len, raw))
    ids = np.zeros(512, np.int32)
    options = EncodeOptions(struct_size=ctypes.sizeof(EncodeOptions), letter_case=1)
    parts = [Text(text, len(text), None, 0) for text in raw]
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(512)
    out = Encoding(ids=ids.ctypes.data, cap=512)

    def encode(part):
        if ours.lib.dp_encode(ours.model, ctypes.byref(part), ctypes.byref(options),
                              ctypes.byref(out), ctypes.byref(ours.error)):
            raise RuntimeError(ours.error.text.decode())
        return ids[:out.n]

    assert all(encode(p).tolist() == backend.encode(t).ids for p, t in zip(parts, texts))
    seconds = interleaved({"ours FP32": lambda: [encode(p) for p in parts],
                           "tokenizers FP32": lambda: [backend.encode(t) for t in texts]},
                          args.rounds)
    show(f"tokenize 1000 notes, {size} bytes: " + ", ".join(
        f"{n.split()[0]} {size / s / 1e6:.1f} MB/s" for n, s in seconds.items()), seconds, results)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", default="64,128,512")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--texts")
    parser.add_argument("--tokenize", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        model, ours, table = stacks(args, pathlib.Path(scratch))
        print(f"diseasepred.h row {ours.isa()}, {args.threads} threads, torch {torch.__version__}, "
              f"medians of {args.rounds} interleaved rounds")
        bench_forward(args, table, results)
        if args.texts:
            bench_texts(args, table, results)
        if args.tokenize:
            bench_tokenize(args, ours, results)
        if args.train:
            bench_train(args, model, ours, results)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1))


main()
