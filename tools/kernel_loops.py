#!/usr/bin/env python3
"""kernel_loops.py -- the inner loops of the matrix kernels, out of the disassembly of the header.

    kernel_loops.py check [COMPILER...]    no sum leaves its register (default: gcc clang)
    kernel_loops.py mca [COMPILER...]      llvm-mca's cycles a k-group beside the limit of the ports

The object is diseasepred.h at -O2, the kernels are those of its table of rows ([E8]). A loop
reaches from the target of a jump back to the last jump there; it is an inner one if it multiplies
and no loop in it does.

check: no instruction of a main loop has a vector register and an address on the stack. A kernel
without a loop that has the multiplications of its strip fails, too: it was not found. Only that is
asked of tiles, which no compiler moves. At last a kernel with a row of sums too many must
be found to spill. Ends with "N passed, N failed, N skipped".
"""
import concurrent.futures
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

HEADER = pathlib.Path(__file__).resolve().parent.parent / "diseasepred.h"
FLAGS = ["-std=c99", "-O2", "-w", "-xc", "-c", "-DDISEASEPRED_IMPLEMENTATION"]

# Of a kernel: the vector type, registers of sums that a row has in a tile of 16 columns, and what a
# k-group costs as designed ([E5] to [E7]): multiplying instructions and others for each register of
# sums, others for all of them, how often the loop runs over a strip, and k-groups of a turn.
WORK = {
    "f32_avx2": ("FP32", "ymm", 2, 1, 0, 0, 1, 4),
    "s16_avx2": ("INT8 as int16", "ymm", 2, 1, 1, 2, 2, 8),  # a register: the quads of 4 columns
    "pairs_avx2": ("INT8 pairs", "ymm", 2, 2, 1, 0, 1, 8),
    "quads_avx2": ("INT8 quads", "ymm", 2, 1.5, 1, 0, 1, 8),
    "u8s8_avxvnni": ("INT8 AVX-VNNI", "ymm", 2, 1, 0, 0, 1, 8),
    "f32_avx512": ("FP32", "zmm", 1, 1, 0, 0, 1, 4),
    "s16_avx512": ("INT8 as int16", "zmm", 2, 1, 1, 2, 1, 4),
    "pairs_avx512": ("INT8 pairs", "zmm", 1, 2, 1, 0, 1, 4),
    "quads_avx512": ("INT8 quads", "zmm", 1, 1.5, 1, 0, 1, 4),
    "u8s8_vnni": ("INT8 VNNI", "zmm", 1, 1, 0, 0, 1, 4),
    "bf16_dot": ("BF16 dot products", "zmm", 1, 1, 0, 0, 1, 4),
}
# Ports: FMA, integer multiplications, all vector work. Intel's optimization manual (Haswell, Ice
# Lake: 512 bits take p0 with p1, and p5); AMD's optimization guides of families 19h.
PORTS = {
    "haswell": {"ymm": (2, 1, 3)},
    "icelake-server": {"ymm": (2, 2, 3), "zmm": (2, 2, 2)},
    "sapphirerapids": {"ymm": (2, 2, 3), "zmm": (2, 2, 2)},
    "znver3": {"ymm": (2, 2, 4)},
    "znver4": {"ymm": (2, 2, 4), "zmm": (1, 1, 2)},
}


def disassemble(header, compiler, *flags):
    """{function: [(address, instruction)]} of the object that a compiler makes of a header."""
    with tempfile.TemporaryDirectory() as scratch:
        obj = pathlib.Path(scratch) / "kernels.o"
        subprocess.run([*compiler.split(), *FLAGS, *flags, str(header), "-o", str(obj)], check=True)
        text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", str(obj)], check=True,
                              capture_output=True, text=True).stdout
    code = {}
    for line in text.split("\n"):
        if m := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            body = code.setdefault(m[1], [])
        elif m := re.match(r" +([0-9a-f]+):\t([^#]*)", line):
            body.append((int(m[1], 16), m[2].strip()))
    return code


def count(loop, pattern):
    return sum(re.match(pattern, text) is not None for text in loop)


def inner_loops(body, multiply):
    """[[instruction]] of the inner loops of a function, the one that multiplies most first."""
    ends = {}
    for address, text in body:
        m = re.match(r"j\w+ +([0-9a-f]+)", text)
        if m and int(m[1], 16) <= address:
            ends[int(m[1], 16)] = address
    loops = {head: [text for address, text in body if head <= address <= end]
             for head, end in ends.items()}
    loops = {head: loop for head, loop in loops.items() if count(loop, multiply)}
    inner = [loop for head, loop in loops.items()
             if not any(head < other and ends[other] <= ends[head] for other in loops)]
    return sorted(inner, key=lambda loop: -count(loop, multiply))


def kernels(header):
    """{name: (rows, tiles)} of the table of rows, without the scalar ones."""
    found = re.findall(r"[{(]dp__gemm_(\w+), (\d+), (\d+), ", header.read_text())
    return {name: (int(rows), int(tiles)) for name, rows, tiles in found if "scalar" not in name}


def multiplications(name, rows, tiles):
    """(the pattern of a kernel's multiplying instructions, how many its widest loop has)"""
    if name.endswith("_amx"):
        return "tdp", rows // 16 * tiles
    return (r"(\{vex\} )?v(fmadd|pmadd|pdpbusd|dpbf16)",
            WORK[name][7] * rows * tiles * WORK[name][2] * WORK[name][3])


def main_loops(body, name, rows, tiles):
    """The inner loops of a kernel's whole strips. Others are those of lower strips and of the last
    k-groups, or none: a jump back to an end that strips share."""
    pattern, want = multiplications(name, rows, tiles)
    return [loop for loop in inner_loops(body, pattern) if count(loop, pattern) == want]


def fault(name, rows, tiles, code):
    """What is wrong with the code of a kernel, or None."""
    body = code.get("dp__gemm_" + name, [])
    if name not in WORK and not name.endswith("_amx"):  # another one in another rounding state
        return None if any("<dp__gemm_" in text for _, text in body) else "it calls no kernel"
    pattern, want = multiplications(name, rows, tiles)
    loops = main_loops(body, name, rows, tiles)
    frame = "[sb]p" if any(re.match(r"mov +%rsp,%rbp", text) for _, text in body) else "sp"
    stack = rf".*(%[xyz]mm.*\(%r{frame}\b|\(%r{frame}\b.*%[xyz]mm)"
    if not loops:
        have = [count(loop, pattern) for loop in inner_loops(body, pattern)]
        return f"no loop has {want:g} multiplications, but {have}"
    worst = max(loops, key=lambda loop: count(loop, stack))
    if name.endswith("_amx") or not count(worst, stack):
        return None
    first = next(text for text in worst if re.match(stack, text))
    return (f"sums on the stack: {count(worst, stack)} of {len(worst)} instructions of a loop "
            f"with {count(worst, pattern)} multiplications, first {first}")


def too_many_rows(scratch):
    """A header whose FP32 kernel for AVX2 wants 7 x 2 sums and 3 more of 16 registers."""
    text = HEADER.read_text()
    text = text.replace("dp__gemm_f32_avx2, 6,", "dp__gemm_f32_avx2, 7,")
    text = text.replace("dp__gemm_f32_rows_avx2(s, 6)", "dp__gemm_f32_rows_avx2(s, 7)")
    path = pathlib.Path(scratch) / "diseasepred.h"
    path.write_text(text)
    return path


def check(compilers):
    passed = failed = 0
    with tempfile.TemporaryDirectory() as scratch, \
            concurrent.futures.ThreadPoolExecutor(2) as pool:
        broken = pool.submit(disassemble, too_many_rows(scratch), compilers[0], "-DDP_NO_AVX512")
        for compiler, code in zip(compilers, pool.map(lambda c: disassemble(HEADER, c), compilers)):
            for name, (rows, tiles) in kernels(HEADER).items():
                why = fault(name, rows, tiles, code)
                passed, failed = passed + (why is None), failed + (why is not None)
                print(f"{'FAIL' if why else 'ok  '} {compiler} {name}{': ' + why if why else ''}")
        why = fault("f32_avx2", 7, 1, broken.result()) or "nothing"
    seen = "on the stack" in why
    print(f"{'ok  ' if seen else 'FAIL'} {compilers[0]} f32_avx2 with a seventh row: {why}")
    print(f"{passed + seen} passed, {failed + 1 - seen} failed, 0 skipped")
    return failed + 1 - seen


def cycles(loop, cpu):
    """llvm-mca's cycles of a turn, or None where it does not know an instruction."""
    lines = [re.sub(r"^(j\w+) .*", r"\1 turn", text) for text in loop if "nop" not in text]
    run = subprocess.run(["llvm-mca", f"-mcpu={cpu}", "-mattr=+avxvnni,+avx512bf16",
                          "-iterations=1000"], input="turn:\n" + "\n".join(lines) + "\n",
                         capture_output=True, text=True, check=False)
    m = re.search(r"^Total Cycles: +(\d+)", run.stdout, re.M)
    return int(m[1]) / 1000 if m and run.returncode == 0 else None


def limit(name, rows, tiles, ports):
    """Cycles of a k-group if the ports that compute did nothing else, or None."""
    label, vector, registers, multiply, other, more, passes, _ = WORK[name]
    if vector not in ports:
        return None
    fma, integer, every = ports[vector]
    sums = rows * tiles * registers
    return passes * max(sums * multiply / (integer if "INT8" in label else fma),
                        (sums * (multiply + other) + more) / every)


def mca(compilers):
    help_text = subprocess.run(["llvm-mca", "-mcpu=help"], input="", capture_output=True, text=True,
                               check=False)
    cpus = [cpu for cpu in PORTS if re.search(rf"^ +{cpu} ", help_text.stdout + help_text.stderr,
                                              re.M)]
    codes = [disassemble(HEADER, compiler) for compiler in compilers]
    heads = [f"{cpu}: limit, {', '.join(compilers)}" for cpu in cpus]
    print("| kernel | " + " | ".join(heads) + " |")
    print("| --- |" + " --- |" * len(cpus))
    for name, (rows, tiles) in kernels(HEADER).items():
        if name not in WORK:
            continue
        label, vector, *_, passes, steps = WORK[name]
        cells = []
        for cpu in cpus:
            least = limit(name, rows, tiles, PORTS[cpu])
            if least is None:
                cells.append("-")
                continue
            loops = [main_loops(code["dp__gemm_" + name], name, rows, tiles)[0] for code in codes]
            found = [cycles(loop, cpu) for loop in loops]
            cells.append(f"{least:.1f}: " + ", ".join(
                "unknown" if c is None else f"{c * passes / steps:.1f}" for c in found))
        print(f"| {label} {rows} x {16 * tiles} {vector} | " + " | ".join(cells) + " |")
    print("Tiles 32 x 48: 6 products of 16 cycles for 16 k-groups, limit 6.0. Not modelled:\n"
          "LLVM 14 gives each tile instruction 100 cycles.")


def main():
    mode, compilers = "".join(sys.argv[1:2]), sys.argv[2:]
    if mode not in ("check", "mca"):
        print(__doc__, file=sys.stderr)
        return 2
    missing = [c for c in compilers or ["gcc", "clang"] if not shutil.which(c.split()[0])]
    compilers = [c for c in compilers or ["gcc", "clang"] if c not in missing]
    if platform.machine() != "x86_64" or not shutil.which("objdump") or not compilers:
        print("SKIP kernel_loops: wants an x86-64 machine, a compiler and objdump")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    return 1 if (check if mode == "check" else mca)(compilers) else 0


if __name__ == "__main__":
    sys.exit(main())
