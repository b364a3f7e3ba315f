#!/usr/bin/env python3
"""Derives data/symptom_sets.csv and data/labels.csv from the public symptom table.

usage: derive_symptoms.py Training.csv OUTPUT_DIR

Training.csv is the table of 132 indicator columns and a disease per row that circulates on
Kaggle ("Disease Prediction Using Machine Learning"). What this project keeps of it are facts
only: which sets of symptoms occur for which disease, and how often. The file read must be the
original one; edited copies are common.
"""
import csv
import hashlib
import re
import sys
from collections import Counter

SHA256 = "4ec0d80a"  # first digits, of the table with 4,920 rows


def words(column):
    """The column name as words: underscores become blanks, runs of blanks one."""
    return re.sub(r"[_ ]+", " ", column).strip()


def main():
    source, out = sys.argv[1], sys.argv[2]
    data = open(source, "rb").read()
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(SHA256):
        sys.exit(f"{source}: sha256 {digest[:8]}... is not the original table ({SHA256}...)")
    rows = list(csv.reader(data.decode("ascii").splitlines()))
    names, labels, sets = [words(c) for c in rows[0][:132]], [], Counter()
    for row in rows[1:]:
        if row[132] not in labels:
            labels.append(row[132])
        present = sorted({names[i] for i in range(132) if row[i] == "1"})
        sets[labels.index(row[132]), ";".join(present)] += 1
    with open(f"{out}/labels.csv", "w", newline="") as f:
        f.write("id,prognosis\n")
        f.writelines(f'{i},"{name}"\n' for i, name in enumerate(labels))
    with open(f"{out}/symptom_sets.csv", "w", newline="") as f:
        f.write("label,count,symptoms\n")
        f.writelines(f"{k},{n},{s}\n" for (k, s), n in sorted(sets.items()))


main()
