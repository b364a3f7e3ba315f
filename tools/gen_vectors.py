#!/usr/bin/env python3
"""Writes tests/vectors/net_*: what Hugging Face's BERT computes, for tests/test_network.c.

Usage: gen_vectors.py [--out tests/vectors] [--only net,disk,base]

Needs exactly the versions below (`make vectors` builds a virtual environment with them).
Weights and inputs come from an integer hash that the test evaluates too, so the files hold
results only. Every tensor is computed twice, in float64 (stored) and in float32 (only its error
is stored: the test demands that ours is at most twice as large).

A .vec file is text up to the line "data", then float64 little-endian in the order listed:
    tensor NAME COUNT RMS SQUARED_ERROR_32 MAX_ERROR_32
RMS is the root mean square of the float64 tensor, the errors are PyTorch's in float32.
"""
import argparse
import hashlib
import os

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

VERSIONS = {"torch": "2.8.0", "transformers": "4.55.4"}
U32 = np.uint32


def mix(x):
    """The 32-bit finalizer of MurmurHash3 (public domain)."""
    x = x.astype(np.uint64)
    x ^= x >> 16
    x = (x * 0x85EBCA6B) & 0xFFFFFFFF
    x ^= x >> 13
    x = (x * 0xC2B2AE35) & 0xFFFFFFFF
    x ^= x >> 16
    return x.astype(U32)


def hashed(stream, count):
    """count 32-bit numbers of a stream; stream and index are spread by odd constants."""
    index = np.arange(count, dtype=np.uint64)
    return mix((index * 0x9E3779B1 + (stream & 0xFFFFFFFF) * 0x85EBCA77) & 0xFFFFFFFF)


def uniform(stream, count):
    """float32 in [-1, 1): 24 bits, exact."""
    return ((hashed(stream, count) >> U32(8)).astype(np.float32) - np.float32(8388608)) \
        / np.float32(8388608)


LAYER = ["attention.self.query.weight", "attention.self.key.weight",
         "attention.self.value.weight", "attention.self.query.bias", "attention.self.key.bias",
         "attention.self.value.bias", "attention.output.dense.weight",
         "attention.output.dense.bias", "attention.output.LayerNorm.weight",
         "attention.output.LayerNorm.bias", "intermediate.dense.weight",
         "intermediate.dense.bias", "output.dense.weight", "output.dense.bias",
         "output.LayerNorm.weight", "output.LayerNorm.bias"]


def tensor_names(layers):
    """The order of the parameter table in [F1]."""
    first = ["word_embeddings.weight", "position_embeddings.weight",
             "token_type_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"]
    names = ["bert.embeddings." + n for n in first]
    for i in range(layers):
        names += ["bert.encoder.layer.%d.%s" % (i, n) for n in LAYER]
    return names + ["bert.pooler.dense.weight", "bert.pooler.dense.bias",
                    "classifier.weight", "classifier.bias"]


def fill(model, layers, seed, scale):
    """LayerNorm gains are 1 + u/4, everything else u * scale (a power of two)."""
    state = model.state_dict()
    for number, name in enumerate(tensor_names(layers)):
        t = state[name]
        u = uniform(seed * 1000 + number, t.numel())
        gain = name.endswith("LayerNorm.weight")
        v = np.float32(1) + u * np.float32(0.25) if gain else u * np.float32(scale)
        t.copy_(torch.from_numpy(v.reshape(t.shape)))


def inputs(case):
    """Ids 1..V-1 (0 is padding), types, labels or targets, padded to the longest text."""
    lengths, seed = case["lengths"], case["seed"]
    total, longest = sum(lengths), max(lengths)
    flat_ids = 1 + hashed(seed * 1000 + 900, total) % U32(case["vocab"] - 1)
    flat_types = hashed(seed * 1000 + 901, total) % U32(case["types"])
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    types, mask = ids.clone(), ids.clone()
    at = 0
    for row, n in enumerate(lengths):
        ids[row, :n] = torch.from_numpy(flat_ids[at:at + n].astype(np.int64))
        types[row, :n] = torch.from_numpy(flat_types[at:at + n].astype(np.int64))
        mask[row, :n] = 1
        at += n
    rows, classes = len(lengths), case["classes"]
    raw = hashed(seed * 1000 + 902, rows * classes)
    if case["problem"] == 0:
        labels = torch.from_numpy((raw[:rows] % U32(classes)).astype(np.int64))
    elif case["problem"] == 1:
        labels = torch.from_numpy((raw % U32(2)).astype(np.float64)).reshape(rows, classes)
    else:
        labels = torch.from_numpy(uniform(seed * 1000 + 902, rows * classes).astype(np.float64))
        labels = labels.reshape(rows, classes)
    return ids, types, mask, labels


PROBLEMS = ["single_label_classification", "multi_label_classification", "regression"]


def build(case, dtype):
    config = BertConfig(
        vocab_size=case["vocab"], hidden_size=case["hidden"], num_hidden_layers=case["layers"],
        num_attention_heads=case["heads"], intermediate_size=case["inner"],
        hidden_act=case["act"], max_position_embeddings=case["positions"],
        type_vocab_size=case["types"], layer_norm_eps=case["eps"], num_labels=case["classes"],
        problem_type=PROBLEMS[case["problem"]], pad_token_id=0)
    config._attn_implementation = "eager"
    model = BertForSequenceClassification(config).eval()
    fill(model, case["layers"], case["seed"], case["scale"])
    return model.to(dtype)


def run(case, dtype, autocast=False):
    """All results by name, real tokens only, as float64 arrays."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        return run_as(case, dtype)


def run_as(case, dtype):
    model = build(case, dtype)
    ids, types, mask, labels = inputs(case)
    if case["problem"] != 0:
        labels = labels.to(dtype)
    base = model.bert(ids, attention_mask=mask, token_type_ids=types, output_hidden_states=True)
    logits = model.classifier(base.pooler_output)
    if case["problem"] == 0:
        loss = torch.nn.functional.cross_entropy(logits, labels)
    elif case["problem"] == 1:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    else:
        loss = torch.nn.functional.mse_loss(logits, labels)
    hf = model(ids, attention_mask=mask, token_type_ids=types, labels=labels)
    assert torch.allclose(hf.loss, loss) and torch.allclose(hf.logits, logits)
    with torch.autocast("cpu", enabled=False):  # as its documentation asks
        loss.backward()
    out, real = {}, mask.bool()
    for i, h in enumerate(base.hidden_states):
        out["hidden%d" % i] = h[real]
    out["pooled"], out["logits"], out["loss"] = base.pooler_output, logits, loss
    for name in tensor_names(case["layers"]):
        out["grad." + name] = dict(model.named_parameters())[name].grad
    return {k: v.detach().to(torch.float64).numpy().reshape(-1) for k, v in out.items()}


def header(kind, case):
    versions = "torch %s transformers %s numpy %s" % (torch.__version__.split("+")[0],
                                                     transformers.__version__, np.__version__)
    text = "diseasepred vectors 1 %s\ngenerator tools/gen_vectors.py %s\n" % (kind, versions)
    for key in ("layers", "hidden", "heads", "inner", "vocab", "positions", "types", "classes",
                "problem", "seed", "act", "eps", "scale"):
        text += "%s %s\n" % (key, case[key])
    return text + "lengths %s\n" % " ".join(str(n) for n in case["lengths"])


def errors(name, count, want, got):
    """RMS value, squared errors that count values have on average, largest error; all of the
    whole tensor."""
    error = got - want
    return "tensor %s %d %.9e %.9e %.9e\n" % (
        name, count, np.sqrt(np.mean(want ** 2)), count * np.mean(error ** 2),
        np.max(np.abs(error)))


def write(path, text, data):
    """data: list of (name, stored float64 values, whole float64 and float32 results)."""
    body = b"".join(np.ascontiguousarray(d, "<f8").tobytes() for _, d, _, _ in data)
    for name, stored, want, got in data:
        text += errors(name, stored.size, want, got)
    text += "sha256 %s\ndata\n" % hashlib.sha256(body).hexdigest()
    with open(path, "wb") as f:
        f.write(text.encode("ascii") + body)
    print("%s: %d bytes" % (path, len(text) + len(body)))


def tiny(layers, hidden, heads, inner, classes, types, act, problem, seed, lengths, **more):
    case = dict(layers=layers, hidden=hidden, heads=heads, inner=inner, vocab=50, positions=40,
                types=types, classes=classes, act=act, problem=problem, seed=seed, eps=1e-12,
                scale=0.25, lengths=lengths)
    case.update(more)
    return case


NET = {
    "a": tiny(2, 20, 4, 37, 5, 2, "gelu", 0, 1, [5, 1, 17, 40, 2]),
    "b": tiny(1, 12, 1, 17, 1, 1, "relu", 2, 2, [40, 3, 1, 9, 33, 32, 31, 8, 7, 20]),
    "c": tiny(3, 48, 3, 37, 41, 3, "gelu_new", 0, 3, [33, 40, 1, 12], eps=1e-5),
    "d": tiny(2, 12, 3, 17, 5, 2, "silu", 1, 4, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], eps=1e-6),
    "e": tiny(1, 48, 4, 64, 2, 2, "tanh", 0, 5, [40, 32, 16, 8, 4, 2, 1]),
    "f": tiny(2, 20, 1, 17, 5, 1, "gelu", 2, 6, [12, 24, 36], eps=1e-3),
    "g": tiny(1, 20, 2, 17, 3, 2, "quick_gelu", 0, 7, [9, 1, 20]),
    "h": tiny(1, 20, 2, 17, 3, 2, "mish", 1, 8, [9, 1, 20]),
}


def make_net(out):
    for name, case in NET.items():
        want, got = run(case, torch.float64), run(case, torch.float32)
        write(os.path.join(out, "net_%s.vec" % name), header("net", case),
              [(k, want[k], want[k], got[k]) for k in want])


def make_autocast(out):
    """The errors of autocast in bfloat16 against the values of make_net, net after net."""
    with open(os.path.join(out, "net_autocast.vec"), "w") as f:
        f.write("diseasepred vectors 1 autocast\ngenerator tools/gen_vectors.py torch %s "
                "transformers %s\n" % (VERSIONS["torch"], VERSIONS["transformers"]))
        for case in NET.values():
            want, got = run(case, torch.float64), run(case, torch.float32, autocast=True)
            f.write("".join(errors(k, want[k].size, want[k], got[k]) for k in want))


BASE = dict(layers=12, hidden=768, heads=12, inner=3072, vocab=28996, positions=512, types=2,
            classes=41, act="gelu", problem=0, seed=9, eps=1e-12, scale=0.0625,
            lengths=[1, 512, 2, 3, 17, 64, 128, 300])
SAMPLES_HIDDEN, SAMPLES_GRAD = 1024, 64


def sample(name, number, v, count):
    at = hashed(77000 + number, count).astype(np.uint64) % np.uint64(v.size)
    return v[at.astype(np.int64)]


def make_base(out):
    """Real size: sampled elements of every tensor, and the norm of the whole."""
    want, got = run(BASE, torch.float64), run(BASE, torch.float32)
    data = []
    for number, name in enumerate(want):
        w, g = want[name], got[name]
        count = SAMPLES_GRAD if name.startswith("grad") else SAMPLES_HIDDEN
        data.append((name, sample(name, number, w, count) if w.size > count else w, w, g))
        norms = [np.array([np.linalg.norm(v)]) for v in (w, g)]
        data.append(("norm." + name, norms[0], *norms))
    write(os.path.join(out, "net_base.vec"), header("base", BASE), data)


def make_disk(out):
    """Two small directories: float16 without prefix, bfloat16 with gamma and beta."""
    for name, dtype, prefix, gamma in (("f16", torch.float16, False, False),
                                       ("bf16", torch.bfloat16, True, True)):
        case = tiny(2, 20, 4, 37, 5, 2, "gelu", 0, 11, [7, 1, 30])
        model = build(case, dtype)
        directory = os.path.join(out, "net_" + name)
        os.makedirs(directory, exist_ok=True)
        state = {}
        for key, t in model.state_dict().items():
            if not prefix and key.startswith("bert."):
                key = key[5:]
            if gamma:
                for new, old in (("gamma", "weight"), ("beta", "bias")):
                    if key.endswith("LayerNorm." + old):
                        key = key[:-len(old)] + new
            state[key] = t.contiguous()
        state["cls.predictions.bias"] = torch.zeros(case["vocab"])
        state[("bert." if prefix else "") + "embeddings.position_ids"] = torch.arange(40)[None]
        save_file(state, os.path.join(directory, "model.safetensors"),
                  metadata={"generator": "tools/gen_vectors.py torch %s transformers %s"
                                         % (VERSIONS["torch"], VERSIONS["transformers"])})
        model.config.to_json_file(os.path.join(directory, "config.json"))
        wide = model.to(torch.float64)
        ids, types, mask, _ = inputs(case)
        with torch.no_grad():
            want = wide(ids, attention_mask=mask, token_type_ids=types).logits.numpy()
            narrow = wide.to(torch.float32)
            got = narrow(ids, attention_mask=mask, token_type_ids=types).logits.numpy()
        write(os.path.join(out, "net_%s.vec" % name), header("disk", case),
              [("logits", want.reshape(-1), want.reshape(-1),
                got.astype(np.float64).reshape(-1))])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="tests/vectors")
    parser.add_argument("--only", default="net,autocast,disk,base")
    args = parser.parse_args()
    for module in (torch, transformers):
        found, need = module.__version__.split("+")[0], VERSIONS[module.__name__]
        if found != need:
            raise SystemExit("%s %s found, %s needed" % (module.__name__, found, need))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    os.makedirs(args.out, exist_ok=True)
    for part in args.only.split(","):
        {"net": make_net, "autocast": make_autocast, "disk": make_disk,
         "base": make_base}[part](args.out)


if __name__ == "__main__":
    main()
