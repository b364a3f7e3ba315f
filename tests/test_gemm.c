/* test_gemm.c -- tests of [E3], [E8], [E9], [E10] and of the matrix kernels. */

/* The specification once more, as slow and plain as possible. */
static void gemm_naive(const dp__mm *mm) {
    for (size_t i = 0; i < mm->m; i++) {
        for (size_t j = 0; j < mm->n; j++) {
            float total = mm->accumulate ? mm->c[i * mm->ldc + j] : 0;
            size_t k0 = 0, cut = 0;
            int    first = !mm->accumulate;
            do {
                float  sum = 0;
                size_t p = k0;
                while (cut < mm->cut_count && mm->cuts[cut] <= k0) cut++;
                for (; p < mm->k && p < k0 + 1024; p++) {
                    if (p > k0 && cut < mm->cut_count && p == mm->cuts[cut]) break;
                    float b = mm->b_form == DP__B_PACKED
                                  ? *dp__packed_at(mm->b, mm->n, mm->k, j, p)
                                  : mm->b_form == DP__B_NK ? mm->b[j * mm->ldb + p]
                                                           : mm->b[p * mm->ldb + j];
                    sum = dp__fmaf(mm->a[i * mm->a_row + p * mm->a_k], b, sum);
                }
                total = first ? sum : total + sum;
                first = 0;
                k0 = p;
            } while (k0 < mm->k);
            if (mm->bias != NULL) total += mm->bias[j];
            if (mm->residual != NULL) total += mm->residual[i * mm->ldr + j];
            mm->c[i * mm->ldc + j] = total;
        }
    }
}

static void test_gemm_first(void) {
    static float a[70 * 2100], b[2100 * 100], c[2][70 * 100], packed[112 * 2112];
    uint64_t s = test_seed;
    for (size_t i = 0; i < sizeof a / 4; i++) a[i] = test_rndf(&s);
    for (size_t i = 0; i < sizeof b / 4; i++) b[i] = test_rndf(&s);
    dp_env env;
    DP_CLEAR(env);
    env.alloc.alloc = dp__default_alloc;
    env.alloc.free = dp__default_free;
    env.threads = 3;
    dp__exec x;
    CHECK(dp__exec_open(&x, &env, NULL) == DP_OK);
    static const size_t shapes[][3] = {{1, 1, 1}, {5, 17, 3}, {9, 49, 33}, {70, 100, 2100}};
    static const size_t cuts[] = {5, 40, 1500};
    for (size_t t = 0; t < 4; t++)
        for (int form = 0; form < 3; form++)
            for (int trans = 0; trans < 2; trans++) {
                dp__mm mm;
                size_t m = shapes[t][0], n = shapes[t][1], k = shapes[t][2];
                memset(&mm, 0, sizeof mm);
                mm.m = m, mm.n = n, mm.k = k, mm.ldc = n;
                mm.a = a, mm.a_row = trans ? 1 : k, mm.a_k = trans ? m : 1;
                mm.b = b, mm.b_form = form, mm.ldb = form == DP__B_NK ? k : n;
                if (form == 0) dp__pack_nk(packed, b, k, n, k), mm.b = packed;
                if (trans) mm.cuts = cuts, mm.cut_count = 3, mm.accumulate = 1;
                mm.bias = b, mm.residual = a, mm.ldr = n;
                memset(c, 0, sizeof c);
                mm.c = c[0];
                gemm_naive(&mm);
                mm.c = c[1];
                dp__matmul(&x, &mm);
                CHECK(memcmp(c[0], c[1], sizeof c[0]) == 0);
            }
    dp__exec_close(&x);
}

static const test tests_gemm[] = {
    {"gemm_first", test_gemm_first},
};
