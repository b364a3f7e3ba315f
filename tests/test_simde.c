/* test_simde.c -- the vector kernels on any processor: the tests of test_gemm.c with the
 * instructions replaced by C. It shows what the kernels compute, not that a processor agrees and
 * not their speed. */
#define DP_SIMD_HEADER "tests/simd_shim.h"
#define TEST_EMULATED 1
#include "test_main.c"
