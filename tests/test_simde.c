/* test_simde.c -- the kernels of every row on any x86 processor: the test binary with C in place of
 * the instructions, restricted to what reaches a kernel. It shows what the kernels compute, not
 * that a processor agrees, and nothing about speed. */
#define DP_SIMD_HEADER "tests/simd_shim.h"
#define TEST_EMULATED                                                                            \
    "gemm_shapes,gemm_drawn,gemm_activation,gemm_notices,gemm8_,gemm16_,vec_rows,vec_softmax,"   \
    "network_vectors,network_bf16,api_selftest,api_int8_least"
#include "test_main.c"
