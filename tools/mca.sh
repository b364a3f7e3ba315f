#!/bin/sh
# mca.sh [COMPILER...] -- llvm-mca's cycles a k-group of every matrix kernel, beside the limit of
# the ports, for the CPUs that the installed LLVM knows. See tools/kernel_loops.py.
cd "$(dirname "$0")/.." || exit 1
sh tools/setup.sh have llvm-mca && python3 -B tools/kernel_loops.py mca "$@"
