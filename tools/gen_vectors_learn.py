#!/usr/bin/env python3
"""Writes tests/vectors/learn_*: what PyTorch's optimizers do, for tests/test_learn.c.

Usage: gen_vectors_learn.py [--out tests/vectors]

File format, number streams and pinned versions are those of tools/gen_vectors.py. Three files:
    learn_rule.vec   Adam and AdamW on 64 numbers whose gradients come from the hash, 50 steps
    learn_lr.vec     learning rates of transformers' four schedules
    learn_bert.vec   a small BERT trained for 50 steps: micro-batches of 4 rows, 3 to a step,
                     every fifth step a partial one of 7 rows, state saved and read back at 17
float64 is stored. The float32 error beside it is the largest of four runs whose rows stand in
different orders within a micro-batch: four samples of what rounding alone does to a run.
"""
import argparse
import io
import os

import numpy as np
import torch
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

import gen_vectors as gv

STEPS, RESUME = 50, 17
RUNS = {  # name: class, lr, weight decay, warm-up steps, gradient norm
    "adam": (torch.optim.Adam, 1e-3, 0.0, 5, 0.5),
    "adam_l2": (torch.optim.Adam, 1e-3, 0.02, 0, 0.0),
    "adamw": (torch.optim.AdamW, 2e-3, 0.05, 0, 0.5),
}


def rule_gradient(step, count):
    """Spread over six decades, so that eps matters for some elements and not for others."""
    g = gv.uniform(40000 + step, count).astype(np.float64)
    return (g * 10.0 ** -(np.arange(count) % 7)).astype(np.float32)


def run_rule(name, dtype, count=64):
    make, lr, decay, _, _ = RUNS[name]
    start = torch.from_numpy(gv.uniform(39999, count)).to(dtype)
    p = torch.nn.Parameter(start)
    optimizer = make([p], lr=lr, weight_decay=decay)
    for step in range(STEPS):
        p.grad = torch.from_numpy(rule_gradient(step, count)).to(dtype)
        optimizer.step()
    state = optimizer.state[p]
    out = {"weight": p.detach(), "m": state["exp_avg"], "v": state["exp_avg_sq"]}
    return {k: t.to(torch.float64).numpy() for k, t in out.items()}


def make_rule(out):
    data = []
    for name in RUNS:
        want, got = run_rule(name, torch.float64), run_rule(name, torch.float32)
        data += [("%s.%s" % (name, k), want[k], got[k]) for k in want]
    gv.write(os.path.join(out, "learn_rule.vec"), head("rule"), data)


def make_lr(out):
    data = []
    for name, warm in (("constant", 0), ("constant", 6), ("linear", 0), ("linear", 6)):
        p = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.Adam([p], lr=2e-3)
        schedule = get_linear_schedule_with_warmup(optimizer, warm, 40) if name == "linear" \
            else get_constant_schedule_with_warmup(optimizer, warm)
        rates = []
        for _ in range(40):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        rates = np.array(rates)
        data.append(("%s%d" % (name, warm), rates, rates))
    gv.write(os.path.join(out, "learn_lr.vec"), head("lr"), data)


ROWS = 29
CASE = gv.tiny(2, 12, 3, 17, 5, 2, "gelu", 0, 21, [3 + (7 * r) % 13 for r in range(ROWS)])


def rows():
    """[CLS] words [SEP]; ids 5..49 are words. Labels follow from the hash."""
    words = gv.hashed(CASE["seed"] * 1000 + 900, 32 * ROWS) % gv.U32(CASE["vocab"] - 5)
    ids = [[2] + [5 + int(w) for w in words[32 * r:32 * r + n - 2]] + [3]
           for r, n in enumerate(CASE["lengths"])]
    labels = gv.hashed(CASE["seed"] * 1000 + 902, ROWS) % gv.U32(CASE["classes"])
    return ids, labels.astype(np.int64)


def step_rows(step):
    """Rows go round and round; steps 4, 9, 14, ... have 7 of them, the others 12."""
    first = sum(7 if s % 5 == 4 else 12 for s in range(step))
    return [(first + i) % ROWS for i in range(7 if step % 5 == 4 else 12)]


def loss_sum(model, ids, labels, which):
    longest = max(len(ids[r]) for r in which)
    table = torch.zeros(len(which), longest, dtype=torch.long)
    mask = table.clone()
    for i, r in enumerate(which):
        table[i, :len(ids[r])] = torch.tensor(ids[r])
        mask[i, :len(ids[r])] = 1
    logits = model(table, attention_mask=mask).logits
    want = torch.tensor([labels[r] for r in which])
    return torch.nn.functional.cross_entropy(logits, want, reduction="sum")


def reload(make, settings, model, optimizer):
    """State through bytes, into a new optimizer: PyTorch's own resume."""
    box = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], box)
    box.seek(0)
    weights, state = torch.load(box)
    model.load_state_dict(weights)
    fresh = make(model.parameters(), **settings)
    fresh.load_state_dict(state)
    return fresh


def run_bert(name, dtype, order):
    make, lr, decay, warm, norm = RUNS[name]
    settings = dict(lr=lr, weight_decay=decay)
    ids, labels = rows()
    model = gv.build(CASE, dtype)
    optimizer = make(model.parameters(), **settings)
    losses, norms = [], []
    for step in range(STEPS):
        if step == RESUME:
            optimizer = reload(make, settings, model, optimizer)
        for group in optimizer.param_groups:
            group["lr"] = lr * (step / warm if step < warm else 1.0)
        which, total = step_rows(step), 0.0
        for at in range(0, len(which), 4):
            micro = which[at:at + 4]
            micro = micro[order % len(micro):] + micro[:order % len(micro)]
            loss = loss_sum(model, ids, labels, micro) / len(which)
            loss.backward()
            total += loss.item()
        limit = norm if norm > 0 else float("inf")
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    out = {"loss": np.array(losses), "norm": np.array(norms)}
    named = dict(model.named_parameters())
    for key in gv.tensor_names(CASE["layers"]):
        out[key] = named[key].detach().to(torch.float64).numpy().reshape(-1)
    return out


def make_bert(out):
    data = []
    for name in RUNS:
        want = run_bert(name, torch.float64, 0)
        runs = [run_bert(name, torch.float32, order) for order in range(4)]
        for key in want:
            worst = max(runs, key=lambda r: np.max(np.abs(r[key] - want[key])))
            data.append(("%s.%s" % (name, key), want[key], worst[key]))
    gv.write(os.path.join(out, "learn_bert.vec"), gv.header("learn", CASE).replace(
        "gen_vectors.py", "gen_vectors_learn.py"), data)


def head(kind):
    return "diseasepred vectors 1 %s\ngenerator tools/gen_vectors_learn.py torch %s numpy %s\n" % (
        kind, torch.__version__.split("+")[0], np.__version__)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="tests/vectors")
    args = parser.parse_args()
    if torch.__version__.split("+")[0] != gv.VERSIONS["torch"]:
        raise SystemExit("torch %s needed" % gv.VERSIONS["torch"])
    torch.set_num_threads(1)
    os.makedirs(args.out, exist_ok=True)
    make_rule(args.out)
    make_lr(args.out)
    make_bert(args.out)


if __name__ == "__main__":
    main()
