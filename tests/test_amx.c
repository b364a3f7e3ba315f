/* test_amx.c -- the AMX kernels instruction by instruction: the test binary with ud2 before each
 * tile instruction, so that tests/emulator.h executes the encodings which the compiler made. Runs
 * where AVX-512-BF16 is; shows what the kernels compute and that they break no rule, not speed. */
#define DP__TILE_TRAP "ud2\n\t"
#define TEST_EMULATED "amx_,gemm8_shapes"
#define TEST_TRAPPED 1
#define TEST_EXTRA "test_amx_rules.h"
#include "test_main.c"
