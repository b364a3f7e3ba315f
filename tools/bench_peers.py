#!/usr/bin/env python3
"""Times diseasepred.h beside PyTorch, ONNX Runtime and OpenVINO on the same weights.

usage: bench_peers.py [--threads 2] [--rounds 15] [--tokens 64,128,512] [--batches 20x512]
                      [--isa auto,avx2] [--stacks WORD,...] [--geometry base|minilm|small]
                      [--texts [CSV]] [--train] [--tokenize] [--json FILE]
                      [--weights full,pairs,quads] [--avx2]

Needs torch, transformers, onnxruntime, onnx, openvino (`make vectors` makes the environment of the
first two). All stacks run in this process, one after the other within every round, so that a change
of the machine's speed meets all of them; medians of the rounds and ratios of medians are printed,
at the end as one table. The model has random weights, saved once and loaded by everyone. Ours runs
in FP32, BF16 and INT8 on each row of --isa; a peer is compared with ours of its own kind on the
first of them. --stacks leaves out the stacks whose names hold none of the words. --texts: 20 rows
of a CSV, or random ones as long as the kit's, padded to the longest and to 512 as the kit does;
ours computes the real tokens only. Absolute times of shared machines mean little: quote the ratios.

--weights: the weights of our INT8 models, a stack for each; the first is compared with the peers.
--avx2: all stacks see a CPU without AVX-512, AVX-VNNI and AMX (tools/hide_cpu.c).

INT8 of the peers: PyTorch and ONNX Runtime quantize activations while they run; OpenVINO takes a
model with fixed scales (QDQ, calibrated on random ids), the form that its CPU kernels support.
"""
import argparse
import csv
import ctypes
import json
import logging
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLASSES = 41
GEOMETRIES = {"base": (12, 768, 12), "minilm": (6, 384, 12), "small": (2, 128, 4)}
KINDS = ("FP32", "BF16", "INT8")
WEIGHTS = ("full", "pairs", "quads")
# Quantiles of the token counts of the kit's texts: 34 to 143, median 64, mean 71.
KIT_TOKENS = (36, 41, 45, 48, 51, 53, 55, 58, 60, 63, 66, 69, 72, 76, 80, 85, 92, 101, 113, 130)
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


class OpenOptions(ctypes.Structure):
    _fields_ = [("struct_size", SIZE), ("new_head", I32), ("letter_case", I32), ("seed", U64),
                ("labels", P), ("label_count", I32), ("dtype", I32)]


class QuantOptions(ctypes.Structure):
    _fields_ = [("struct_size", SIZE), ("approach", I32), ("weights", I32), ("embeddings", I32)]


class TrainOptions(ctypes.Structure):
    _fields_ = [("struct_size", SIZE), ("epochs", I32), ("batch_rows", I32), ("accumulate", I32),
                ("max_tokens", I32), ("lr", F64), ("optimizer", I32), ("schedule", I32),
                ("beta1", F64), ("beta2", F64), ("eps", F64), ("weight_decay", F64),
                ("warmup", F64), ("grad_norm", F64), ("dropout", F64), ("seed", U64),
                ("resume", I32), ("dtype", I32), ("progress", P), ("progress_ctx", P)]


def library(build):
    """diseasepred.h as a shared library in this process."""
    source = build / "shared.c"
    source.write_text("#define DISEASEPRED_IMPLEMENTATION\n#include \"diseasepred.h\"\n")
    shown = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # gcc handles faults itself
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", f"-I{ROOT}", str(source), "-o",
                    str(build / "libdiseasepred.so"), "-lm", "-lpthread"], check=True, env=shown)
    lib = ctypes.CDLL(str(build / "libdiseasepred.so"))
    for name in ("dp_isa_name", "dp_isa_missing"):
        getattr(lib, name).restype = ctypes.c_char_p
    return lib


def level(lib, name):
    """The number of a kernel row; "auto" is the best."""
    names = {lib.dp_isa_name(i).decode(): i for i in range(1, 16)}
    if name == "auto":
        return lib.dp_isa_best()
    if name not in names or lib.dp_isa_missing(names[name]):
        raise SystemExit(f"--isa: {name} does not run here")
    return names[name]


class Ours:
    """A model of diseasepred.h in FP32, BF16 or INT8 (of some weights) on one kernel row."""

    def __init__(self, lib, model_dir, threads, isa, kind="FP32", weights="full"):
        self.lib, self.error = lib, Error()
        env = Env(struct_size=ctypes.sizeof(Env), threads=threads, isa_cap=isa)
        options = OpenOptions(struct_size=ctypes.sizeof(OpenOptions), dtype=int(kind == "BF16"))
        self.model = self.call("dp_model_open_with", ctypes.byref(env), str(model_dir).encode(),
                               ctypes.byref(options))
        if kind == "INT8":
            self.quantize(WEIGHTS.index(weights))
        self.session = self.call("dp_session_open", self.model, None)

    def call(self, name, *arguments):
        """A constructor: returns the object, or raises with the library's sentence."""
        out = P()
        if getattr(self.lib, name)(*arguments, ctypes.byref(out), ctypes.byref(self.error)):
            raise RuntimeError(self.error.text.decode())
        return out

    def quantize(self, weights):
        out, float_model = P(), self.model
        options = QuantOptions(ctypes.sizeof(QuantOptions), weights=weights)
        if self.lib.dp_quantize(float_model, None, ctypes.byref(options), ctypes.byref(out), None,
                                ctypes.byref(self.error)):
            raise RuntimeError(self.error.text.decode())
        self.model = out
        self.lib.dp_model_close(float_model)

    def forward(self, ids):
        logits = np.zeros(CLASSES, np.float32)
        for row in ids:
            row = np.ascontiguousarray(row, np.int32)
            if self.lib.dp_predict_ids(self.session, P(row.ctypes.data), None, SIZE(len(row)), None,
                                       P(logits.ctypes.data), None, ctypes.byref(self.error)):
                raise RuntimeError(self.error.text.decode())
        return logits

    def trainer(self, max_tokens, bf16=False):
        options = TrainOptions(struct_size=ctypes.sizeof(TrainOptions), max_tokens=max_tokens,
                               dtype=int(bf16))
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
    the threads of the others have stopped spinning (some do for 0.2 s), and runs once untimed.
    Everyone warms up twice, as in the kit: PyTorch compiles a traced model when it runs again."""
    seconds = {name: [] for name in cases}
    for run in list(cases.values()) * 2:
        run()
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


def openvino_model(path, threads, precision="f32"):
    import openvino
    core = openvino.Core()
    return core.compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": threads,
                                                  "INFERENCE_PRECISION_HINT": precision,
                                                  "PERFORMANCE_HINT": "LATENCY"})


def export(model, build):
    """ONNX files of the model: FP32, dynamic INT8, INT8 with fixed scales; inputs ids and mask."""
    from onnxruntime.quantization import (CalibrationDataReader, QuantFormat, QuantType,
                                          quantize_dynamic, quantize_static)
    fp32, int8, fixed = (build / f"model{x}.onnx" for x in ("", "_int8", "_qdq"))
    ids = torch.ones(1, 64, dtype=torch.long)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    class Reader(CalibrationDataReader):
        def __init__(self):
            rng = np.random.default_rng(3)
            self.rows = iter([rng.integers(1000, 28000, (1, 64), dtype=np.int64)
                              for _ in range(8)])

        def get_next(self):
            row = next(self.rows, None)
            return None if row is None else {"ids": row, "mask": np.ones_like(row)}

    axes = {0: "batch", 1: "tokens"}
    torch.onnx.export(Logits().eval(), (ids, ids), str(fp32), input_names=["ids", "mask"],
                      output_names=["logits"], dynamic_axes={"ids": axes, "mask": axes},
                      opset_version=17, dynamo=False)
    quantize_dynamic(str(fp32), str(int8), weight_type=QuantType.QInt8)
    quantize_static(str(fp32), str(fixed), Reader(), quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    extra_options={"MatMulConstBOnly": True})
    return fp32, int8, fixed


class Traced:
    """The kit's way: traced and frozen on the first batch; here once for each shape."""

    def __init__(self, model):
        self.model, self.known = model, {}

    def __call__(self, ids, mask):
        given = (torch.from_numpy(ids), torch.from_numpy(mask))
        if ids.shape not in self.known:
            self.model.config.return_dict = False
            traced = torch.jit.trace(self.model, given, strict=False)
            self.known[ids.shape] = torch.jit.freeze(traced)
            self.model.config.return_dict = True
        return self.known[ids.shape](*given)[0].numpy()[-1]


def peer_stacks(args, model, build):
    """The peers' forward passes as functions of ids [B, T] and mask [B, T]."""
    fp32_path, int8_path, fixed_path = export(model, build)
    ort, ort8 = onnx_session(fp32_path, args.threads), onnx_session(int8_path, args.threads)
    vino, vino8 = (openvino_model(p, args.threads) for p in (fp32_path, fixed_path))
    vino16 = openvino_model(fp32_path, args.threads, "bf16")
    torch8 = torch.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

    def eager(module):
        return lambda ids, mask: module(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask)).logits.float().numpy()[-1]

    def autocast(ids, mask):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return eager(model)(ids, mask)

    return {
        "PyTorch FP32": eager(model),
        "PyTorch traced FP32": Traced(model),
        "ONNX Runtime FP32": lambda ids, mask: ort.run(None, {"ids": ids, "mask": mask})[0][-1],
        "OpenVINO FP32": lambda ids, mask: vino([ids, mask])[0][-1],
        "PyTorch autocast BF16": autocast,
        "OpenVINO BF16": lambda ids, mask: vino16([ids, mask])[0][-1],
        "PyTorch dynamic INT8": eager(torch8),
        "ONNX Runtime INT8": lambda ids, mask: ort8.run(None, {"ids": ids, "mask": mask})[0][-1],
        "OpenVINO INT8": lambda ids, mask: vino8([ids, mask])[0][-1],
    }


def stacks(args, build):
    """The model, ours in FP32 on the first row, and everyone's forward pass; args.first: the
    stack of ours that others are compared with, by kind."""
    torch.manual_seed(0)
    layers, width, heads = GEOMETRIES[args.geometry]
    config = transformers.BertConfig(
        vocab_size=28996, num_labels=CLASSES, num_hidden_layers=layers, hidden_size=width,
        num_attention_heads=heads, intermediate_size=4 * width)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(build / "model")
    vocab = (ROOT / "data/bert-base-cased-vocab.txt").read_bytes()
    (build / "model/vocab.txt").write_bytes(vocab)
    lib, table, args.first, first = library(build), {}, {}, None
    for isa in dict.fromkeys(level(lib, name) for name in args.isa.split(",")):
        row = lib.dp_isa_name(isa).decode()
        for kind, weights in [("FP32", ""), ("BF16", ""),
                              *(("INT8", w) for w in args.weights.split(","))]:
            ours = Ours(lib, build / "model", args.threads, isa, kind, weights)
            first = first or ours
            said = weights if "," in args.weights else ""
            name = " ".join(word for word in ("ours", row, said, kind) if word)
            args.first.setdefault(kind, name)
            table[name] = lambda ids, mask, ours=ours: ours.forward(
                [row[:int(m.sum())] for row, m in zip(ids, mask)])
    peers = peer_stacks(args, model, build)
    words = args.stacks.split(",")
    table.update({n: r for n, r in peers.items() if any(w in n for w in words)})
    return model, first, table


def kind_of(name):
    return name.rsplit(" ", 1)[1]


def show(args, title, seconds, results, against=None):
    """One block: times, and each stack against one of ours: of its kind on the first row."""
    print(f"\n{title}")
    for name, s in seconds.items():
        ours = against or args.first[kind_of(name)]
        ratio = s / seconds[ours]
        print(f"  {name:24}{1e3 * s:10.2f} ms   {ratio:6.2f}x {ours}")
        results.append({"case": title, "stack": name, "seconds": s, "ratio": ratio})


def show_ratios(args, results):
    """One table for everything: a line a stack, a column a case."""
    cases = list(dict.fromkeys(r["case"] for r in results))
    print("\nTime against ours of the same kind on " +
          args.first["FP32"].split(" ")[1] + " (above 1: ours is faster)\n")
    for i, case in enumerate(cases):
        print(f"  ({i + 1}) {case}")
    print("\n| stack | " + " | ".join(f"({i + 1})" for i in range(len(cases))) + " |")
    print("| --- |" + " ---: |" * len(cases))
    ratio = {(r["stack"], r["case"]): r["ratio"] for r in results}
    for stack in dict.fromkeys(r["stack"] for r in results):
        cells = [f"{ratio[stack, c]:.2f}" if (stack, c) in ratio else "" for c in cases]
        print(f"| {stack} | " + " | ".join(cells) + " |")


def bench_forward(args, table, results):
    rng = np.random.default_rng(0)
    singles = [(1, int(t)) for t in args.tokens.split(",") if t]
    batches = [tuple(map(int, b.split("x"))) for b in args.batches.split(",") if b]
    for texts, tokens in singles + batches:
        ids = rng.integers(1000, 28000, (texts, tokens), dtype=np.int64)
        mask = np.ones_like(ids)
        logits = {name: run(ids, mask) for name, run in table.items()}
        right = logits[args.first["FP32"]]
        far = {k: max(float(np.abs(right - x).max()) for n, x in logits.items() if kind_of(n) == k)
               for k in KINDS}
        if far["FP32"] > 1e-4:
            raise SystemExit(f"the stacks do not compute the same: {far['FP32']:.1e}")
        seconds = interleaved({n: (lambda r=r: r(ids, mask)) for n, r in table.items()},
                              args.rounds if texts == 1 else max(3, args.rounds // 5))
        show(args, f"batch {texts}, {tokens} tokens", seconds, results)
        print("  largest difference to our FP32 logits: " +
              ", ".join(f"{k} {v:.1e}" for k, v in far.items()))


def kit_texts(args):
    """ids and mask of twenty texts, padded to the longest."""
    if args.texts != "kit":
        tokenizer = transformers.BertTokenizerFast(str(ROOT / "data/bert-base-cased-vocab.txt"),
                                                   do_lower_case=True)
        with open(args.texts, newline="") as f:
            rows = [r["symptoms"] for r in csv.DictReader(f)][:20]
        batch = tokenizer(rows, padding="longest", truncation=True, max_length=512,
                          return_tensors="np")
        return batch["input_ids"].astype(np.int64), batch["attention_mask"].astype(np.int64)
    rng = np.random.default_rng(4)
    mask = np.array([[int(j < n) for j in range(max(KIT_TOKENS))] for n in KIT_TOKENS], np.int64)
    return rng.integers(1000, 28000, mask.shape, dtype=np.int64) * mask, mask


def bench_texts(args, table, results):
    """Twenty texts, padded to the longest and to 512 for the peers; ours computes real tokens."""
    ids, mask = kit_texts(args)
    for length in (ids.shape[1], 512):
        pad = ((0, 0), (0, length - ids.shape[1]))
        long_ids, long_mask = np.pad(ids, pad), np.pad(mask, pad)
        seconds = interleaved({n: (lambda r=r: r(long_ids, long_mask)) for n, r in table.items()},
                              max(3, args.rounds // 5))
        show(args, f"{len(ids)} texts of {int(mask.sum())} tokens in all, peers padded to {length}"
             f" ({100 * mask.sum() / mask.shape[0] / length:.0f} % of it text)", seconds, results)


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

    def peer(bf16=False):
        model.train()
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids, labels=target).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        model.eval()

    peers = {"PyTorch FP32": peer, "PyTorch autocast BF16": lambda: peer(True)}
    peers = {n: step for n, step in peers.items() if any(w in n for w in args.stacks.split(","))}
    trainers = {kind: ours.trainer(64, kind == "BF16") for kind in map(kind_of, peers)}
    mine = {args.first[kind]: (lambda t=t: ours.step(t, texts, labels))
            for kind, t in trainers.items()}
    with torch.enable_grad():
        seconds = interleaved({**mine, **peers}, max(3, args.rounds // 5))
    title = f"training step, batch 30, 64 tokens, Adam, {args.geometry}"
    show(args, title, seconds, results)


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
    seconds = interleaved({"ours": lambda: [encode(p) for p in parts],
                           "tokenizers": lambda: [backend.encode(t) for t in texts]},
                          args.rounds)
    show(args, f"tokenize 1000 notes, {size} bytes: " + ", ".join(
        f"{n} {size / s / 1e6:.1f} MB/s" for n, s in seconds.items()), seconds, results, "ours")


def cpu_name():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((x.split(": ", 1)[1] for x in lines if x.startswith("model name")), "unknown CPU")


def versions():
    import onnxruntime
    import openvino
    return (f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, "
            f"openvino {openvino.__version__.split('-')[0]}")


def hide_cpu():
    """Starts this program anew on a CPU that shows AVX2 and nothing after it."""
    if "hide_cpu" in os.environ.get("LD_PRELOAD", ""):
        return
    with tempfile.TemporaryDirectory() as scratch:
        shim = os.path.join(scratch, "hide_cpu.so")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(ROOT / "tools/hide_cpu.c"), "-o",
                        shim], check=True)
        raise SystemExit(subprocess.run([sys.executable, *sys.argv],
                                        env={**os.environ, "LD_PRELOAD": shim}).returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", default="64,128,512")
    parser.add_argument("--batches", default="20x512")
    parser.add_argument("--isa", default="auto")
    parser.add_argument("--stacks", default="", help="words of the names of peers")
    parser.add_argument("--weights", default="full")
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--geometry", default="base", choices=GEOMETRIES)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--texts", nargs="?", const="kit")
    parser.add_argument("--tokenize", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.avx2:
        hide_cpu()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        model, ours, table = stacks(args, pathlib.Path(scratch))
        print(f"{cpu_name()}, {args.threads} threads, {args.geometry}, {versions()}, medians of "
              f"{args.rounds} interleaved rounds (batches: {max(3, args.rounds // 5)})")
        bench_forward(args, table, results)
        if args.texts:
            bench_texts(args, table, results)
        if args.tokenize:
            bench_tokenize(args, ours, results)
        if args.train:
            bench_train(args, model, ours, results)
    show_ratios(args, results)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1))


main()
