"""measuring.py -- bench isa: its form on a small model, every kernel row and number format."""
import csv
import xml.etree.ElementTree

from .base import LEVELS, check, records, run

CASES = ["short", "kit1", "kit20", "kit30", "padded", "stream", "train", "train-minilm"]


def levels_here():
    """The levels that predict --version calls available or selected."""
    words = [line.split() for line in run("predict", "--version")[1].decode().splitlines()]
    return [w[0] for w in words if w[0] in LEVELS and w[1] in ("available", "selected")]


def test_bench_isa(work):
    code, out, err = run("bench", "isa", "--quick", "--json", "--csv", work / "isa.csv",
                         f"--svg={work / 'isa.svg'}")
    got = records(out)
    check("bench isa --quick --json ends with 0, an object a line", code == 0 and got, err)
    here, first = levels_here(), got[0]
    check("every kernel row of this CPU is named", {r["row"] for r in got} == set(here),
          (here, sorted({r["row"] for r in got})))
    check("every case in turn", list(dict.fromkeys(r["case"] for r in got)) == CASES)
    for case in CASES:
        kinds = {r["dtype"] for r in got if r["case"] == case}
        base = [r for r in got if r["case"] == case and r["dtype"] == "FP32"][-1]
        check(f"{case}: its number formats; FP32 of the best row is 1",
              kinds == ({"FP32", "BF16"} if "train" in case else {"FP32", "BF16", "INT8"}) and
              base["speed"] == 1, (kinds, base))
    check("times, shares and clocks are numbers above 0", all(
        0 < r["min_s"] <= r["median_s"] and r["mean_s"] >= r["min_s"] and r["runs"] >= 1 and
        r["share"] > 0 and r["share_at_clock"] > 0 and r["weight_bytes"] > 0 and
        (r["clock_hz"] or 1) > 0 and r["peak_of"] and r["cpu"] for r in got), first)
    check("speed is the ratio of medians", all(
        abs(r["speed"] * r["median_s"] / [b["median_s"] for b in got if b["case"] == r["case"] and
                                          b["dtype"] == "FP32"][-1] - 1) < 1e-3 for r in got))
    check("bytes a second only where memory is the limit",
          {r["case"] for r in got if r["weight_bytes_per_s"] is not None} == {"short"})
    with open(work / "isa.csv", newline="") as f:
        table = csv.DictReader(f)
        lines = list(table)
    check("--csv: a header and the same records", table.fieldnames == list(first) and
          [(r["case"], r["dtype"], r["row"]) for r in lines] ==
          [(r["case"], r["dtype"], r["row"]) for r in got], table.fieldnames)
    root = xml.etree.ElementTree.parse(work / "isa.svg").getroot()
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    bars = list(root.iter("{http://www.w3.org/2000/svg}rect"))
    check("--svg: well-formed, a bar a record, every variant, CPU and axis named",
          len(bars) == len(got) + 1 and {f"{r['dtype']} {r['row']}" for r in got} <= set(texts) and
          any(first["cpu"] in t for t in texts) and any("FP32" in t and "times" in t
                                                        for t in texts), texts)


def test_bench_table(work):
    code, out, err = run("bench", "isa", "--quick", "--case=short", "--threads=2")
    text = out.decode()
    check("bench isa as a table: every row, the CPU, bars, bandwidth", code == 0 and
          all(f" {level} " in text for level in levels_here()) and "threads 2" in text and
          "|##" in text and "GB/s" in text and "kit" not in text, text + err)
    code, out, _ = run("bench", "isa", "--quick", "--case=padded", "--isa=scalar", "--json")
    check("--isa is a cap", code == 0 and {r["row"] for r in records(out)} == {"scalar"}, out)
    for bad in (["nonsense"], ["isa", "--nonsense"], ["isa", "--quick", "--case=nonsense"],
                ["isa", "--isa=nonsense"], ["isa", "--rounds=0"], ["isa", "--rounds=1001"],
                ["isa", "--csv"], ["isa", "--seconds=0"], ["gemm", "--rounds=16"],
                ["gemm", "--threads=x"], ["gemm", "--threads=1025"], ["gemm", "--rows=-5"],
                ["isa", "--quick", "--csv=/nowhere/isa.csv"],
                ["isa", "--quick", "--svg=/nowhere/isa.svg"]):
        code, out, err = run("bench", *bad)
        check(f"bench {' '.join(bad)}: 2, stdout empty", code == 2 and not out and
              err.startswith("bench: "), (code, out, err))
    code, out, _ = run("bench", "--help")
    check("bench --help: usage, 0", code == 0 and b"--rows" in out, (code, out))
