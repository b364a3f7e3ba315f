/* test_gemm.c -- tests of [E3], [E8], [E9], [E10] and of the matrix kernels.
 *
 * The oracle is a plain loop over dp__fmaf (itself tested against the processor's instruction).
 * Every operand lies in a guarded buffer of its exact size, so one element read or written
 * beyond it is a crash. */

/* Where the chain that begins at k0 ends, by the words of decisions: after 1,024 products, at the
 * next cut, at k. */
static size_t gemm_chain_end(const dp__mm *mm, size_t k0) {
    size_t end = k0 + 1024 < mm->k ? k0 + 1024 : mm->k;
    for (size_t c = mm->cut_count; c-- > 0;)
        if (mm->cuts[c] > k0 && mm->cuts[c] < end) end = mm->cuts[c];
    return end;
}

static float gemm_bf16(float x) {
    return dp__f32_from_bits((uint32_t)dp__bf16(x) << 16);
}

/* One chain of element (i, j). The same for BF16: operands rounded, of each pair the odd element
 * first, a missing one is 0. (No operand here comes near the denormals; gemm16_order has those
 * that do.) On tiles: of 32 products the even and the odd ones, then their sum. */
enum { CHAIN_F32, CHAIN_PAIRS, CHAIN_TILES };
static float gemm_chain(const dp__mm *mm, const float *b, size_t i, size_t j, size_t k0, size_t k1,
                        int kind) {
    float sum = 0, part[2] = {0, 0};
    for (size_t n = 0; n < k1 - k0; n++) {
        size_t p = k0 + n, odd = n % 2 ^ 1; /* of a pair the second first */
        if (kind == CHAIN_PAIRS && odd && p + 1 < k1) p++;
        else if (kind == CHAIN_PAIRS && !odd) p--;
        float x = mm->a[i * mm->a_row + p * mm->a_k], y = b[j * mm->k + p];
        if (kind == CHAIN_F32) sum = dp__fmaf(x, y, sum);
        if (kind == CHAIN_PAIRS) sum = dp__fmaf(gemm_bf16(x), gemm_bf16(y), sum);
        if (kind == CHAIN_TILES) part[n % 2] = dp__fmaf(gemm_bf16(x), gemm_bf16(y), part[n % 2]);
        if (kind != CHAIN_TILES || (n % 32 != 31 && p + 1 < k1)) continue;
        sum += part[0] + part[1];
        part[0] = part[1] = 0;
    }
    return sum;
}

/* The product by its definition: element (i, j) is a chain of fused steps in k order, begun
 * anew at each cut and after 1,024 products (not on tiles, where a was rounded before). */
static float gemm_by_chains(const dp__mm *mm, const float *b, size_t i, size_t j, int kind) {
    float  total = mm->accumulate ? mm->c[i * mm->ldc + j] : 0;
    int    first = !mm->accumulate;
    size_t k0 = 0;
    do {
        size_t end = kind == CHAIN_TILES && !mm->bf16 ? mm->k : gemm_chain_end(mm, k0);
        float  sum = gemm_chain(mm, b, i, j, k0, end, kind);
        total = first ? sum : total + sum;
        first = 0;
        k0 = end;
    } while (k0 < mm->k);
    if (mm->bias != NULL) total += mm->bias[j];
    if (mm->residual != NULL) total += mm->residual[i * mm->ldr + j];
    return total;
}

static float gemm_element(const dp__mm *mm, const float *b, size_t i, size_t j) {
    return gemm_by_chains(mm, b, i, j, CHAIN_F32);
}

static float gemm_element16(const dp__mm *mm, const float *b, size_t i, size_t j) {
    return gemm_by_chains(mm, b, i, j, CHAIN_PAIRS);
}

/* What row gives for an element of a BF16 product. */
static float gemm_wanted16(const dp__row *row, const dp__mm *mm, const float *b, size_t i,
                           size_t j) {
    return gemm_by_chains(mm, b, i, j, row->b16.tile_mode != NULL ? CHAIN_TILES : CHAIN_PAIRS);
}

/* Rows of a as the BF16 kernel takes them: bytes of one row, and the conversion. */
static size_t gemm_row16(const dp__row *row, size_t k) {
    return dp__ceil(k, 2) * 4 / row->b16.group;
}

static void gemm_rows16(const dp__row *row, unsigned char *to, const float *a, size_t a_row,
                        size_t m, size_t k) {
    dp__mat from = {(float *)(uintptr_t)a, a_row};
    for (size_t i = 0; i < m; i++) { /* one at a time: rows need not lie on whole numbers */
        dp__vec v = dp__rounding_rows(row, to + i * gemm_row16(row, k), 0, NULL,
                                      dp__from_row(from, i), 1, k);
        row->vec(&v, 0, 1);
    }
}

/* A row under test; those whose instructions this machine lacks are reported once. */
static int gemm_row_runs(size_t r) {
    const dp__row *row = &dp__rows[r];
    if (test_isa != NULL && strcmp(test_isa, row->name) != 0) return 0;
#ifdef TEST_TRAPPED /* tiles come from an emulator, the rest of the row from the processor */
    if (strcmp(row->name, "amx") == 0)
        return dp__row_missing(DP_ISA_AVX512_BF16, dp__cpu_bits(), dp__os_bits()) == NULL;
#endif
    return dp__row_missing(row->isa, dp__cpu_bits(), dp__os_bits()) == NULL;
}

static dp__exec gemm_exec(size_t r, int32_t threads) {
    dp_env   env;
    dp__exec x;
    DP_CLEAR(env);
    env.alloc.alloc = dp__default_alloc;
    env.alloc.free = dp__default_free;
    env.isa_cap = dp__rows[r].isa;
    env.threads = threads;
    if (dp__exec_open(&x, &env, NULL) != DP_OK) abort();
    return x;
}

/* ---- spies: what runs, and what happens if it is wrong -------------------------------------- */

enum { SPY_HONEST, SPY_FLIP, SPY_MASK };
static const dp__row *spy_row;
static int            spy_mode, spy_weights;
static size_t         spy_f32[33][4], spy_i8[33][4], spy_b16[33][4]; /* calls by rows (32: or
                                                                     * more) and tiles */

static void spy_flip(float *c) {
    uint32_t u;
    memcpy(&u, c, sizeof u);
    u ^= 1;
    memcpy(c, &u, sizeof u);
}

static void spy_call_f32(const dp__strip *s) {
    dp__strip broken = *s;
    spy_f32[s->rows][(s->cols + 15) / 16]++;
    if (spy_mode == SPY_MASK) broken.cols = dp__ceil(s->cols, 16);
    spy_row->f32.run(&broken);
    if (spy_mode == SPY_FLIP) spy_flip(s->c + (s->rows - 1) * s->ldc + s->cols - 1);
}

static void spy_call_i8(const dp__strip *s) {
    dp__strip broken = *s;
    spy_i8[s->rows < 32 ? s->rows : 32][(s->cols + 15) / 16]++;
    if (spy_mode == SPY_MASK) broken.cols = dp__ceil(s->cols, 16);
    spy_row->i8[spy_weights].run(&broken);
    if (spy_mode == SPY_FLIP) spy_flip(s->c + (s->rows - 1) * s->ldc + s->cols - 1);
}

static void spy_call_b16(const dp__strip *s) {
    dp__strip broken = *s;
    spy_b16[s->rows < 32 ? s->rows : 32][(s->cols + 15) / 16]++;
    if (spy_mode == SPY_MASK) broken.cols = dp__ceil(s->cols, 16);
    spy_row->b16.run(&broken);
    if (spy_mode == SPY_FLIP) spy_flip(s->c + (s->rows - 1) * s->ldc + s->cols - 1);
}

static dp__row spy_on(size_t r, int mode) {
    dp__row row = dp__rows[r];
    spy_row = &dp__rows[r];
    spy_mode = mode;
    row.f32.run = spy_call_f32;
    for (int i = 0; i < 3; i++) row.i8[i].run = spy_call_i8;
    row.b16.run = spy_call_b16;
    return row;
}

/* Every kernel of the row must have run; says how often. */
static void spy_report(size_t calls[33][4], size_t unit, size_t tiles, const char *what) {
    size_t total = 0, kernels = 0;
    for (size_t rows = 1; rows <= unit; rows++) {
        if (rows != unit && rows != 4 && rows != 2 && rows != 1) continue;
        for (size_t t = 1; t <= tiles; t++) {
            if (calls[rows][t] == 0) printf("    never ran: %s %ux%u\n", what, (unsigned)rows,
                                            (unsigned)t);
            CHECK(calls[rows][t] > 0);
            kernels++;
            total += calls[rows][t];
        }
    }
    printf("     %-11s %s: %u kernels, %llu calls\n", spy_row->name, what, (unsigned)kernels,
           (unsigned long long)total);
    memset(calls, 0, sizeof spy_f32);
}

/* ---- all shapes from 1 to 65 ---------------------------------------------------------------- */

enum { EDGE = 65, ROOM = 80 };

/* Operands of all gemm_cases up to EDGE, at either end of a region between closed pages. */
typedef struct gemm_cases {
    guarded a, b, c;
    size_t  a_bytes, b_bytes, c_bytes;
    float   a_all[EDGE * EDGE], b_all[EDGE * EDGE]; /* [EDGE, EDGE] */
    float   c_all[EDGE * EDGE];                     /* expected, for the present k */
    float  *scratch;
} gemm_cases;

static gemm_cases *shapes_new(void) {
    gemm_cases  *s = (gemm_cases *)calloc(1, sizeof *s);
    uint64_t state = test_seed;
    s->a_bytes = s->c_bytes = 5 * 4096;
    s->b_bytes = 7 * 4096;
    s->a = guarded_new(s->a_bytes);
    s->b = guarded_new(s->b_bytes);
    s->c = guarded_new(s->c_bytes);
    s->scratch = (float *)dp__default_alloc(NULL, DP__SCRATCH * sizeof(float), 64);
    for (size_t i = 0; i < EDGE * EDGE; i++) s->a_all[i] = test_rndf(&state);
    for (size_t i = 0; i < EDGE * EDGE; i++) s->b_all[i] = test_rndf(&state);
    return s;
}

static void shapes_free(gemm_cases *s) {
    guarded_free(&s->a);
    guarded_free(&s->b);
    guarded_free(&s->c);
    dp__default_free(NULL, s->scratch, 0);
    free(s);
}

static float *shapes_place(guarded *g, size_t region, size_t count, int front) {
    return (float *)(void *)(front ? g->p : g->p + region - count * sizeof(float));
}

static void shapes_expect(gemm_cases *s, const dp__row *row, size_t k, int form) {
    dp__mm mm;
    memset(&mm, 0, sizeof mm);
    mm.a = s->a_all;
    mm.a_row = EDGE;
    mm.a_k = 1;
    mm.k = k;
    for (size_t j = 0; j < EDGE; j++) { /* gemm_element wants b with stride k */
        float b[EDGE];
        memcpy(b, s->b_all + j * EDGE, k * sizeof(float));
        for (size_t i = 0; i < EDGE; i++)
            s->c_all[i * EDGE + j] = form == DP__B_BF16 ? gemm_wanted16(row, &mm, b, i, 0)
                                                        : gemm_element(&mm, b, i, 0);
    }
}

/* Tile images as the row's kernels like them, for every third n as they do not. */
static size_t gemm_panel(const dp__row *row, size_t n) {
    return (n % 3 == 0) != (dp__row_panel(row) == DP__TILE) ? DP__TILE : DP__PANEL;
}

/* All m, n up to EDGE for one k; number of wrong elements. */
static size_t shapes_run(gemm_cases *s, const dp__row *row, size_t k, int form) {
    size_t wrong = 0, bf16 = form == DP__B_BF16, cells = bf16 ? gemm_row16(row, k) / 4 : k;
    for (size_t n = 1; n <= EDGE; n++) {
        int    front = (int)(n + k) & 1;
        size_t panel = gemm_panel(row, n);
        size_t room = bf16 ? dp__pack16_bytes(n, k) / 4 : dp__pack_size(n, k);
        float *b = shapes_place(&s->b, s->b_bytes, room, front);
        if (bf16) dp__pack16((uint32_t *)(void *)b, panel, s->b_all, EDGE, n, k);
        else dp__pack(b, panel, s->b_all, EDGE, 1, n, k);
        for (size_t m = 1; m <= EDGE; m++) {
            float *a = shapes_place(&s->a, s->a_bytes, m * cells, front);
            float *c = shapes_place(&s->c, s->c_bytes, m * n, front);
            dp__mm mm;
            memset(&mm, 0, sizeof mm);
            for (size_t i = 0; i < m && !bf16; i++) memcpy(a + i * k, s->a_all + i * EDGE, k * 4);
            if (bf16) gemm_rows16(row, (unsigned char *)a, s->a_all, EDGE, m, k);
            mm.c = c, mm.ldc = n;
            mm.a = a, mm.a_row = cells, mm.a_k = 1;
            mm.b = b, mm.b_form = form, mm.panel = panel;
            mm.m = m, mm.n = n, mm.k = k;
            dp__matmul_serial(row, &mm, s->scratch);
            for (size_t i = 0; i < m; i++)
                wrong += memcmp(c + i * n, s->c_all + i * EDGE, n * sizeof(float)) != 0;
        }
    }
    return wrong;
}

static void shapes_test(int form, int step_scalar) {
    gemm_cases *s = shapes_new();
    for (size_t r = 0; r < DP__ROWS; r++) {
        if (!gemm_row_runs(r)) continue;
        dp__row row = spy_on(r, SPY_HONEST);
        size_t  step = test_light() ? 16 : r == 0 ? (size_t)step_scalar : 1;
        if (r == 0 && test_long()) step = 1;
        for (size_t k = 1; k <= EDGE; k += step) {
            shapes_expect(s, &row, k, form);
            CHECK_INT(shapes_run(s, &row, k, form), 0);
        }
        if (form == DP__B_BF16) spy_report(spy_b16, row.b16.unit, row.b16.tiles, "bf16");
        else spy_report(spy_f32, row.f32.unit, row.f32.tiles, "f32");
    }
    shapes_free(s);
}

/* The vector rows on all gemm_cases m, n, k of 1 to 65; the scalar row on all m, n and some k. */
static void test_gemm_shapes(void) {
    shapes_test(DP__B_PACKED, 22);
}

static void test_gemm16_shapes(void) {
    shapes_test(DP__B_BF16, 31);
}

/* ---- every option, drawn at random ---------------------------------------------------------- */

typedef struct drawn {
    dp__mm   mm;
    size_t   room;  /* columns of c between rows that nobody may touch */
    size_t   slack; /* numbers behind c before the closed page */
    float   *b;    /* [n, k] as the oracle wants it */
    float   *expected;
    guarded  a_mem, b_mem, c_mem, bias_mem, residual_mem, pre_mem;
    size_t   cuts[4];
} drawn;

static size_t draw(uint64_t *state, size_t low, size_t high) {
    return low + (size_t)(test_rnd(state) % (high - low + 1));
}

static float *draw_floats(guarded *g, size_t n, uint64_t *state) {
    *g = guarded_new(n * sizeof(float));
    float *p = (float *)(void *)g->p;
    for (size_t i = 0; i < n; i++) p[i] = test_rndf(state);
    return p;
}

static size_t draw_size(uint64_t *state, size_t most) {
    static const size_t edges[] = {1, 5, 6, 7, 8, 9, 15, 16, 17, 47, 48, 49, 95, 97, 127, 128, 129,
                                   255, 257, 767, 768, 769, 1023, 1024, 1025, 2047, 2049};
    size_t v = draw(state, 0, 2) ? edges[draw(state, 0, sizeof edges / sizeof *edges - 1)]
                                 : draw(state, 1, 150);
    return v < most ? v : most;
}

static void draw_b(drawn *d, uint64_t *state) {
    dp__mm *mm = &d->mm;
    size_t  n = mm->n, k = mm->k;
    mm->b_form = (int)draw(state, 0, 3);
    if (mm->b_form == DP__B_INT8) mm->b_form = DP__B_BF16;
    mm->ldb = (mm->b_form == DP__B_NK ? k : n) + draw(state, 0, 3);
    size_t last = mm->b_form == DP__B_NK ? (n - 1) * mm->ldb + k : (k - 1) * mm->ldb + n;
    d->b = (float *)malloc(n * k * sizeof(float));
    for (size_t i = 0; i < n * k; i++) d->b[i] = test_rndf(state);
    int raw = mm->b_form == DP__B_NK || mm->b_form == DP__B_KN;
    mm->bf16 = raw && draw(state, 0, 2) == 0;
    mm->panel = draw(state, 0, 1) ? DP__TILE : DP__PANEL;
    if (mm->b_form == DP__B_PACKED) last = dp__pack_size(n, k);
    if (mm->b_form == DP__B_BF16) last = dp__pack16_bytes(n, k) / sizeof(float);
    float *b = draw_floats(&d->b_mem, last, state);
    if (mm->b_form == DP__B_PACKED) dp__pack(b, mm->panel, d->b, k, 1, n, k);
    if (mm->b_form == DP__B_BF16)
        dp__pack16((uint32_t *)(void *)b, mm->panel, d->b, k, n, k);
    for (size_t j = 0; j < n && raw; j++)
        for (size_t p = 0; p < k; p++)
            b[mm->b_form == DP__B_NK ? j * mm->ldb + p : p * mm->ldb + j] = d->b[j * k + p];
    mm->b = b;
}

static void draw_rest(drawn *d, uint64_t *state) {
    dp__mm *mm = &d->mm;
    size_t  m = mm->m, n = mm->n, k = mm->k, pad = draw(state, 0, 5);
    mm->a_row = k + pad;
    mm->a_k = 1;
    size_t last = (m - 1) * mm->a_row + k;
    if (draw(state, 0, 2) == 0 && mm->b_form != DP__B_BF16) { /* transposed */
        mm->a_row = 1;
        mm->a_k = m + pad;
        last = (m - 1) * mm->a_row + (k - 1) * mm->a_k + 1;
    }
    mm->a = draw_floats(&d->a_mem, last, state);
    mm->accumulate = (int)draw(state, 0, 1);
    mm->cuts = d->cuts;
    for (size_t at = draw(state, 1, 40);
         (mm->b_form == DP__B_NK || mm->b_form == DP__B_KN) && mm->cut_count < 4 && at < k &&
         draw(state, 0, 3);
         at += draw(state, 1, k))
        d->cuts[mm->cut_count++] = at;
    if (mm->cut_count == 0) mm->cuts = NULL;
    mm->ldc = n + d->room;
    mm->c = draw_floats(&d->c_mem, (m - 1) * mm->ldc + n, state);
    if (draw(state, 0, 1)) mm->bias = draw_floats(&d->bias_mem, n, state);
    mm->ldr = n + draw(state, 0, 2);
    if (draw(state, 0, 1))
        mm->residual = draw_floats(&d->residual_mem, (m - 1) * mm->ldr + n, state);
}

static drawn *drawn_new(uint64_t *state) {
    drawn *d = (drawn *)calloc(1, sizeof *d);
    do {
        d->mm.m = draw_size(state, 300);
        d->mm.n = draw_size(state, 900);
        d->mm.k = draw_size(state, 2100);
    } while ((double)d->mm.m * (double)d->mm.n * (double)d->mm.k > 400000);
    d->room = draw(state, 0, 2) * 3;
    draw_b(d, state);
    draw_rest(d, state);
    d->expected = (float *)malloc(d->mm.m * d->mm.n * sizeof(float));
    for (size_t i = 0; i < d->mm.m; i++)
        for (size_t j = 0; j < d->mm.n; j++)
            d->expected[i * d->mm.n + j] = d->mm.b_form == DP__B_BF16 || d->mm.bf16
                                               ? gemm_element16(&d->mm, d->b, i, j)
                                               : gemm_element(&d->mm, d->b, i, j);
    return d;
}

static void drawn_free(drawn *d) {
    guarded_free(&d->a_mem);
    guarded_free(&d->b_mem);
    guarded_free(&d->c_mem);
    if (d->bias_mem.map) guarded_free(&d->bias_mem);
    if (d->residual_mem.map) guarded_free(&d->residual_mem);
    free(d->expected);
    free(d->b);
    free(d);
}

/* Runs the product on a copy of c; the number of wrong elements and of touched gaps. */
static size_t drawn_run(const drawn *d, const dp__row *row, const dp__exec *x, float *scratch) {
    dp__mm  mm = d->mm;
    size_t  count = (mm.m - 1) * mm.ldc + mm.n, wrong = 0;
    guarded mem = guarded_new((count + d->slack) * sizeof(float)), a16;
    int     bf16 = mm.b_form == DP__B_BF16;
    float  *expected = d->expected;
    const dp__row *form = x != NULL ? x->row : row;
    if ((bf16 || mm.bf16) && form->b16.tile_mode != NULL) { /* in an order of its own */
        expected = (float *)malloc(mm.m * mm.n * sizeof(float));
        for (size_t e = 0; e < mm.m * mm.n; e++)
            expected[e] = gemm_wanted16(form, &d->mm, d->b, e / mm.n, e % mm.n);
    }
    if (bf16) { /* rows in the form of the kernel */
        a16 = guarded_new(mm.m * gemm_row16(form, mm.k));
        gemm_rows16(form, (unsigned char *)a16.p, mm.a, mm.a_row, mm.m, mm.k);
        mm.a = (const float *)(void *)a16.p;
        mm.a_row = gemm_row16(form, mm.k) / 4;
    }
    mm.c = (float *)(void *)mem.p;
    memcpy(mm.c, d->mm.c, count * sizeof(float));
    if (x != NULL) dp__matmul(x, &mm);
    else dp__matmul_serial(row, &mm, scratch);
    for (size_t i = 0; i < mm.m; i++) {
        wrong += memcmp(mm.c + i * mm.ldc, expected + i * mm.n, mm.n * sizeof(float)) != 0;
        if (i + 1 < mm.m) /* the gap behind the row */
            wrong += memcmp(mm.c + i * mm.ldc + mm.n, d->mm.c + i * mm.ldc + mm.n,
                            d->room * sizeof(float)) != 0;
    }
    guarded_free(&mem);
    if (bf16) guarded_free(&a16);
    if (expected != d->expected) free(expected);
    return wrong;
}

/* Strides, both raw forms of b, both also rounded to BF16, transposed a, accumulation, cuts, bias,
 * residual: one product,
 * drawn at random, must come out equal on every row and on teams of 1, 2, 3, 5. */
static void test_gemm_drawn(void) {
    static const int32_t teams[] = {1, 2, 3, 5};
    size_t   cases = test_light() ? 40 : test_long() ? 4000 : 400;
    uint64_t state = test_seed + 7;
    dp__exec x[DP__ROWS][4];
    for (size_t r = 0; r < DP__ROWS; r++)
        for (size_t t = 0; t < 4 && gemm_row_runs(r); t++) x[r][t] = gemm_exec(r, teams[t]);
    for (size_t c = 0; c < cases; c++) {
        drawn *d = drawn_new(&state);
        for (size_t r = 0; r < DP__ROWS; r++) {
            if (!gemm_row_runs(r)) continue;
            CHECK_INT(drawn_run(d, &dp__rows[r], NULL, x[r][0].scratch), 0);
            CHECK_INT(drawn_run(d, NULL, &x[r][1 + c % 3], NULL), 0);
        }
        drawn_free(d);
    }
    for (size_t r = 0; r < DP__ROWS; r++)
        for (size_t t = 0; t < 4 && gemm_row_runs(r); t++) dp__exec_close(&x[r][t]);
}

/* The activation is that of the row's element-wise entry, the stored value before it is the
 * product, and both arrays are filled within their bounds. */
static void test_gemm_activation(void) {
    enum { M = 19, N = 70, K = 33 };
    uint64_t state = test_seed;
    guarded  am, bm, biasm, cm, prem;
    float   *a = draw_floats(&am, M * K, &state), *b = draw_floats(&bm, N * K, &state);
    float   *bias = draw_floats(&biasm, N, &state);
    float   *c = draw_floats(&cm, M * N, &state), *pre = draw_floats(&prem, M * N, &state);
    for (size_t r = 0; r < DP__ROWS; r++) {
        float plain[M * N], wanted[M * N];
        if (!gemm_row_runs(r)) continue;
        dp__exec x = gemm_exec(r, 1);
        for (int act = 0; act <= DP__GELU8; act++) {
            dp__mm mm;
            memset(&mm, 0, sizeof mm);
            mm.m = M, mm.n = N, mm.k = K;
            mm.a = a, mm.a_row = K, mm.a_k = 1;
            mm.b = b, mm.b_form = DP__B_NK, mm.ldb = K;
            mm.bias = bias;
            mm.c = plain, mm.ldc = N;
            dp__matmul(&x, &mm);
            dp__mat to = {wanted, N}, from = {plain, N};
            dp__vec_plain(&x, DP__VEC_ACT + act, to, from, dp__no_mat, M, N);
            mm.c = c;
            mm.act = 1 + act;
            dp__matmul(&x, &mm);
            CHECK(memcmp(c, wanted, sizeof wanted) == 0);
            mm.pre = pre, mm.ldpre = N;
            memset(c, 0, sizeof wanted);
            dp__matmul(&x, &mm);
            CHECK(memcmp(c, wanted, sizeof wanted) == 0);
            CHECK(memcmp(pre, plain, sizeof plain) == 0);
        }
        dp__exec_close(&x);
    }
    guarded_free(&am), guarded_free(&bm), guarded_free(&biasm), guarded_free(&cm);
    guarded_free(&prem);
}

/* Sizes of 0: nothing is written for m or n; k 0 leaves the bias, or what was there. */
static void test_gemm_empty(void) {
    float    c[4] = {1, 2, 3, 4}, bias[2] = {5, 6}, b[1] = {0};
    dp__exec x = gemm_exec(0, 1);
    dp__mm   mm;
    memset(&mm, 0, sizeof mm);
    mm.panel = DP__PANEL;
    mm.c = c, mm.ldc = 2, mm.a = b, mm.a_row = 1, mm.a_k = 1, mm.b = b, mm.bias = bias;
    mm.n = 2;
    dp__matmul(&x, &mm);
    CHECK(c[0] == 1 && c[3] == 4);
    mm.m = 2, mm.n = 0;
    dp__matmul(&x, &mm);
    CHECK(c[0] == 1 && c[3] == 4);
    mm.n = 2, mm.accumulate = 1;
    dp__matmul(&x, &mm);
    CHECK(c[0] == 6 && c[1] == 8 && c[2] == 8 && c[3] == 10);
    mm.accumulate = 0;
    dp__matmul(&x, &mm);
    CHECK(c[0] == 5 && c[1] == 6 && c[2] == 5 && c[3] == 6);
    dp__exec_close(&x);
}

static void test_gemm_pack(void) {
    for (size_t n = 1; n <= 130; n += n < 60 ? 1 : 13) {
        for (size_t k = 1; k <= 70; k += k < 20 ? 3 : 17) {
            guarded pm = guarded_new(dp__pack_size(n, k) * 4);
            float  *packed = (float *)(void *)pm.p, *w = (float *)malloc(n * k * 4);
            float  *kn = (float *)malloc(dp__pack_size(n, k) * 4);
            float  *t = (float *)malloc(n * k * 4), *back = (float *)malloc(n * k * 4);
            for (size_t i = 0; i < n * k; i++) w[i] = (float)(i + 1);
            for (size_t i = 0; i < n * k; i++) t[i % k * n + i / k] = w[i];
            for (size_t panel = DP__TILE; panel <= DP__PANEL; panel += DP__PANEL - DP__TILE) {
                dp__pack(packed, panel, w, k, 1, n, k);
                dp__pack(kn, panel, t, 1, n, n, k);
                CHECK(memcmp(packed, kn, dp__pack_size(n, k) * 4) == 0);
                for (size_t i = 0; i < n * k; i++)
                    back[i] = packed[dp__packed_at(panel, 1, n, k, i / k, i % k)];
                CHECK(memcmp(back, w, n * k * 4) == 0);
                double sum = 0; /* every number once, the rest 0 */
                for (size_t i = 0; i < dp__pack_size(n, k); i++) sum += (double)packed[i];
                CHECK(sum == (double)(n * k) * (double)(n * k + 1) / 2);
            }
            free(w), free(kn), free(t), free(back);
            guarded_free(&pm);
        }
    }
}

/* ---- BF16 ----------------------------------------------------------------------------------- */

/* One pair: ((0 or c) + odd) + even on every row must be what the table says, or, for drawn bits,
 * what the scalar row says. c is what stood there before (accumulate). */
static uint32_t pair_product(const dp__row *row, uint32_t a, uint32_t b, uint32_t c,
                             float *scratch) {
    float  x[2] = {dp__f32_from_bits(a << 16), dp__f32_from_bits(a & 0xFFFF0000u)}, cells[2];
    float  sum = dp__f32_from_bits(c);
    uint32_t image[DP__IMAGE];
    dp__mm mm;
    memset(&mm, 0, sizeof mm);
    memset(image, 0, sizeof image);
    image[0] = b; /* pairs as they are: dp__pack16 would flush denormals */
    if (row->b16.group == 2) memcpy(cells, &a, sizeof a);
    else cells[0] = x[1], cells[1] = x[0];
    mm.a = cells, mm.a_row = 2, mm.a_k = 1;
    mm.b = image, mm.b_form = DP__B_BF16, mm.panel = DP__PANEL;
    mm.c = &sum, mm.ldc = 1, mm.accumulate = c != 0;
    mm.m = mm.n = 1, mm.k = 2;
    dp__matmul_serial(row, &mm, scratch);
    return dp__f32_bits(sum);
}

static int pair_same(uint32_t x, uint32_t y) {
    int nan = (x & 0x7FFFFFFFu) > 0x7F800000u && (y & 0x7FFFFFFFu) > 0x7F800000u;
    return x == y || nan;
}

/* Bits of a bfloat16 that hurt: any, near one another, or near where products leave the floats. */
static uint32_t pair_draw(uint64_t *state) {
    uint32_t u = (uint32_t)test_rnd(state);
    uint32_t exponents = u >> 8 & 1 ? 0x3F803F80u : u >> 9 & 1 ? 0x20002000u : 0x00800080u;
    if ((u & 7) == 0) return (uint32_t)test_rnd(state);
    return (uint32_t)(test_rnd(state) & 0x80FF80FFu) | exponents;
}

/* 0: FTZ and DAZ do nothing here (valgrind has neither). */
static int gemm_can_flush(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    uint32_t       flush = 0x9FC0, plain = 0x1F80;
    volatile float tiny = FLT_MIN;
    __asm__ __volatile__("ldmxcsr %0" : : "m"(flush) : "memory");
    tiny = tiny / 2;
    __asm__ __volatile__("ldmxcsr %0" : : "m"(plain) : "memory");
    return !(tiny > 0);
#else
    return 1;
#endif
}

static void test_gemm16_order(void) {
    static const uint32_t table[][4] = { /* a, b (odd half, even half), c, result */
        {0x3F800000, 0x3F800000, 0, 0x3F800000},
        {0x00003F80, 0x00003F80, 0, 0x3F800000},
        {0x1F802000, 0x1F802000, 0, 0x00800000}, /* 2^-128 is tiny, then comes 2^-126 */
        {0x20001F80, 0x20001F80, 0, 0x00A00000}, /* 2^-126 + 2^-128 in one step is not */
        {0x20001F80, 0x20009F80, 0, 0x00000000}, /* 2^-126 - 2^-128 */
        {0x20001A00, 0x200099C0, 0, 0x00000000}, /* 2^-126 - 1.5 2^-151: tiny when rounded .. */
        {0x20001A00, 0x20009980, 0, 0x00800000}, /* 2^-126 - 2^-151: a tie, which is not */
        {0x00009F80, 0x00001F80, 0, 0x80000000}, /* -2^-128, with its sign */
        {0x9F800000, 0x1F800000, 0, 0x00000000}, /* the even step makes -0 a 0 */
        {0x3F800001, 0x3F807F00, 0, 0x3F800000}, /* a denormal operand is 0 */
        {0x3F800000, 0x00800000, 0x00400000, 0x00800000}, /* and what stood in c */
        {0x3F803F80, 0x80800000, 0x00810000, 0x00000000}, /* and the sum with it */
    };
    uint64_t state = test_seed + 16, wrong = 0;
    size_t   cases = test_light() ? 2000 : test_long() ? 4000000 : 200000;
    float   *scratch = (float *)dp__default_alloc(NULL, DP__SCRATCH * sizeof(float), 64);
    int      runs[DP__ROWS];
    for (size_t r = 0; r < DP__ROWS; r++) {
        runs[r] = gemm_row_runs(r) && dp__rows[r].b16.tile_mode == NULL && /* another order */
                  (r == 0 || gemm_can_flush());
        if (!runs[r]) continue;
        for (size_t i = 0; i < sizeof table / sizeof *table; i++)
            CHECK_INT(pair_product(&dp__rows[r], table[i][0], table[i][1], table[i][2], scratch),
                      table[i][3]);
    }
    for (size_t i = 0; i < cases; i++) {
        uint32_t a = pair_draw(&state), b = pair_draw(&state);
        uint32_t c = (i & 3) ? 0 : (uint32_t)test_rnd(&state);
        uint32_t want = pair_product(&dp__rows[0], a, b, c, scratch);
        for (size_t r = 1; r < DP__ROWS; r++) {
            if (!runs[r]) continue;
            uint32_t got = pair_product(&dp__rows[r], a, b, c, scratch);
            if (!pair_same(got, want) && wrong++ < 5)
                printf("    %s: %08x * %08x + %08x = %08x, scalar %08x\n", dp__rows[r].name, a, b,
                       c, got, want);
        }
    }
    CHECK_INT(wrong, 0);
    dp__default_free(NULL, scratch, 0);
}

/* Chains end after 1,024 products, 512 pairs, on every row. */
static void test_gemm16_chain(void) {
    static const size_t some[] = {1022, 1023, 1024, 1025, 1026, 1091, 2047, 2048, 2049, 3072};
    enum { M = 5, N = 50 };
    uint64_t state = test_seed + 5;
    float   *scratch = (float *)dp__default_alloc(NULL, DP__SCRATCH * sizeof(float), 64);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        guarded am, bm, cm;
        drawn   d;
        memset(&d, 0, sizeof d);
        d.mm.m = M, d.mm.n = N, d.mm.k = some[i], d.mm.ldc = N;
        d.mm.a = draw_floats(&am, M * some[i], &state), d.mm.a_row = some[i], d.mm.a_k = 1;
        d.b = draw_floats(&bm, N * some[i], &state);
        d.mm.c = draw_floats(&cm, M * N, &state);
        uint32_t *packed = (uint32_t *)malloc(dp__pack16_bytes(N, some[i]));
        d.mm.panel = i & 1 ? DP__TILE : DP__PANEL;
        dp__pack16(packed, d.mm.panel, d.b, some[i], N, some[i]);
        d.mm.b = packed, d.mm.b_form = DP__B_BF16;
        d.expected = (float *)malloc(M * N * sizeof(float));
        for (size_t e = 0; e < M * N; e++)
            d.expected[e] = gemm_element16(&d.mm, d.b, e / N, e % N);
        for (size_t r = 0; r < DP__ROWS; r++)
            if (gemm_row_runs(r)) CHECK_INT(drawn_run(&d, &dp__rows[r], NULL, scratch), 0);
        free(d.expected), free(packed);
        guarded_free(&am), guarded_free(&bm), guarded_free(&cm);
    }
    dp__default_free(NULL, scratch, 0);
}

/* Rounded as it is packed, a product of several blocks of rows and of columns, two chains deep, has
 * the bits of its parts computed alone, in each form. */
static void test_gemm16_blocks(void) {
    enum { M = 300, N = 1700, K = 1063 };
    uint64_t state = test_seed + 9;
    guarded  am, bm, cm, pm;
    float   *a = draw_floats(&am, M * K, &state), *b = draw_floats(&bm, N * K, &state);
    float   *c = draw_floats(&cm, M * N, &state), *part = draw_floats(&pm, 33 * 50, &state);
    for (size_t r = 1; r < DP__ROWS; r++) {
        if (!gemm_row_runs(r)) continue;
        dp__exec x = gemm_exec(r, 1);
        for (int form = 0; form < 3; form++) {
            dp__mm mm;
            memset(&mm, 0, sizeof mm);
            mm.m = M, mm.n = N, mm.k = K, mm.bf16 = 1;
            mm.a = a, mm.a_row = form < 2 ? K : 1, mm.a_k = form < 2 ? 1 : M;
            mm.b = b, mm.b_form = form == 0 ? DP__B_NK : DP__B_KN, mm.ldb = form == 0 ? K : N;
            mm.c = c, mm.ldc = N;
            dp__matmul(&x, &mm);
            for (size_t i = 0; i < M; i += 89) {
                for (size_t j = 0; j < N; j += 523) {
                    dp__mm one = mm;
                    one.m = M - i < 33 ? M - i : 33, one.n = 50;
                    one.a = a + i * mm.a_row;
                    one.b = b + j * (form == 0 ? K : 1);
                    one.c = part, one.ldc = 50;
                    dp__matmul(&x, &one);
                    for (size_t e = 0; e < one.m; e++)
                        CHECK(memcmp(part + e * 50, c + (i + e) * N + j, 50 * sizeof *c) == 0);
                }
            }
        }
        dp__exec_close(&x);
    }
    guarded_free(&am), guarded_free(&bm), guarded_free(&cm), guarded_free(&pm);
}

/* ---- INT8 ----------------------------------------------------------------------------------- */

typedef struct int8_shapes {
    guarded  a, w_packed, c;
    uint8_t *a_all;  /* [EDGE, KMAX] */
    int8_t  *w_all;  /* [EDGE, KMAX] */
    float    a_scale[EDGE], scale[EDGE], bias[EDGE], residual[EDGE * EDGE];
    int32_t  comp[EDGE];
    float    c_all[EDGE * EDGE];
    const dp__row *row; /* what w_packed holds */
    int            plain; /* a is u8 as it stands: no compensation */
    int            weights; /* dp_weights that w_all keeps to */
    size_t         n, k;
} int8_shapes;

enum { BYTES_K = 400, BYTES_A = EDGE * (BYTES_K + 4), BYTES_W = 80 * 448 * 2 };

static void bytes_expect(int8_shapes *s, size_t k) {
    for (size_t i = 0; i < EDGE; i++) {
        for (size_t j = 0; j < EDGE; j++) {
            int64_t sum = 0;
            for (size_t p = 0; p < k; p++)
                sum += ((int64_t)s->a_all[i * BYTES_K + p] - (s->plain ? 0 : 128)) *
                       s->w_all[j * BYTES_K + p];
            float v = (float)sum * (s->a_scale[i] * s->scale[j]);
            s->c_all[i * EDGE + j] = (v + s->bias[j]) + s->residual[i * EDGE + j];
        }
    }
}

/* Splits 128 among the positive of so many weights, and -128 among the negative ones. */
static void bytes_split(int8_t *w, const size_t *at, size_t count, uint64_t *state) {
    int left[2] = {128, 128};
    for (size_t i = 0; i < count; i++) {
        uint64_t u = test_rnd(state);
        int      sign = (int)(u & 1), most = left[sign] < 127 + sign ? left[sign] : 127 + sign;
        int      size = u & 6 ? (int)(u >> 8) % (most + 1) : most;
        if (size < 0) size = -size;
        left[sign] -= size;
        w[at[i]] = (int8_t)(sign ? -size : size);
    }
}

/* Weights that are just pair-safe, or quad-safe, or any. */
static void bytes_weights(int8_shapes *s, int weights, uint64_t *state) {
    static const size_t group[2][4] = {{0, 1, 4, 5}, {2, 3, 6, 7}};
    s->weights = weights;
    s->row = NULL;
    for (size_t i = 0; i < EDGE * BYTES_K; i++) {
        uint64_t u = test_rnd(state);
        s->w_all[i] = u % 5 == 0 ? 127 : u % 5 == 1 ? -128 : (int8_t)((int)(u >> 16 & 255) - 128);
    }
    for (size_t i = 0; i < EDGE * BYTES_K && weights == DP_WEIGHTS_PAIRS; i += 2)
        bytes_split(s->w_all + i, group[0], 2, state);
    for (size_t i = 0; i < EDGE * BYTES_K && weights == DP_WEIGHTS_QUADS; i += 8)
        for (size_t g = 0; g < 2; g++) bytes_split(s->w_all + i, group[g], 4, state);
    CHECK_INT(dp__weights_hold(s->w_all, BYTES_K, EDGE, BYTES_K), weights);
}

static void bytes_fill(int8_shapes *s, uint64_t *state) {
    memset(s, 0, sizeof *s);
    s->a_all = (uint8_t *)malloc(EDGE * BYTES_K);
    s->w_all = (int8_t *)malloc(EDGE * BYTES_K);
    for (size_t i = 0; i < EDGE * BYTES_K; i++) {
        uint64_t u = test_rnd(state);
        s->a_all[i] = u % 7 == 0 ? 255 : u % 7 == 1 ? 0 : (uint8_t)(u >> 8);
        if (i / BYTES_K % 3 == 1) s->a_all[i] = 255; /* 16-bit sums at their bound */
    }
    bytes_weights(s, DP_WEIGHTS_FULL, state);
    for (size_t i = 0; i < EDGE; i++) {
        s->a_scale[i] = test_rndf(state);
        s->scale[i] = test_rndf(state);
        s->bias[i] = test_rndf(state);
    }
    for (size_t i = 0; i < EDGE * EDGE; i++) s->residual[i] = test_rndf(state);
    s->a = guarded_new(BYTES_A);
    s->w_packed = guarded_new(BYTES_W);
    s->c = guarded_new(EDGE * (EDGE + 3) * 4);
}

static void bytes_free(int8_shapes *s) {
    guarded_free(&s->a), guarded_free(&s->w_packed), guarded_free(&s->c);
    free(s->a_all), free(s->w_all);
}

static size_t bytes_run(int8_shapes *s, const dp__row *row, size_t m, size_t n, size_t k,
                        float *scratch) {
    size_t   ld = dp__ceil(k, 4), wrong = 0, used = dp__pack8_bytes(n, k);
    uint8_t *a = s->a.p + BYTES_A - m * ld, *w = s->w_packed.p + BYTES_W - used;
    float   *c = (float *)(void *)s->c.p + (EDGE * (EDGE + 3) - m * n);
    dp__mm   mm;
    memset(&mm, 0, sizeof mm);
    if (s->row != spy_row || s->n != n || s->k != k) { /* not packed by the call before */
        dp__pack8(w, gemm_panel(row, n), s->w_all, BYTES_K, n, k);
        dp__compensate(s->comp, s->w_all, BYTES_K, n, k);
        s->row = spy_row, s->n = n, s->k = k;
    }
    memset(a, 77, m * ld); /* what lies between k and ld must not count */
    for (size_t i = 0; i < m; i++) memcpy(a + i * ld, s->a_all + i * BYTES_K, k);
    mm.c = c, mm.ldc = n, mm.b_form = DP__B_INT8, mm.a8 = a, mm.a_row = ld, mm.a_scale = s->a_scale;
    mm.panel = gemm_panel(row, n);
    mm.b = w, mm.comp = s->plain ? NULL : s->comp, mm.scale = s->scale;
    mm.weights = spy_weights = s->weights;
    mm.m = m, mm.n = n, mm.k = k;
    mm.bias = s->bias, mm.residual = s->residual, mm.ldr = EDGE;
    dp__matmul_serial(row, &mm, scratch);
    for (size_t i = 0; i < m; i++)
        wrong += memcmp(c + i * n, s->c_all + i * EDGE, n * sizeof(float)) != 0;
    return wrong;
}

/* All m, n with a few k, all k with a few m, n: the sums are integers, so all rows agree. */
static void test_gemm8_shapes(void) {
    static const size_t few[][2] = {{1, 1}, {8, 48}, {7, 49}, {65, 65}, {4, 16}, {11, 33}};
    static const size_t some[] = {1, 4, 31, 65};
    static const char *const names[] = {"int8", "int8 pairs", "int8 quads"};
    int8_shapes    s;
    uint64_t state = test_seed;
    float   *scratch = (float *)dp__default_alloc(NULL, DP__SCRATCH * 4, 64);
    bytes_fill(&s, &state);
    for (size_t each = 0; each < 3 * DP__ROWS; each++) {
        size_t         r = each / 3, w = each % 3;
        const dp__row *real = &dp__rows[r];
        if (!gemm_row_runs(r) || (w > 0 && real->i8[w].run == real->i8[0].run)) continue;
        dp__row row = spy_on(r, SPY_HONEST);
        bytes_weights(&s, (int)w, &state);
        for (size_t i = 0; i < 4; i++) {
            bytes_expect(&s, some[i]);
            for (size_t n = 1; n <= EDGE; n += test_light() ? 8 : 1)
                for (size_t m = 1; m <= EDGE; m++)
                    CHECK_INT(bytes_run(&s, &row, m, n, some[i], scratch), 0);
        }
        for (size_t k = 1; k <= BYTES_K; k += k < 140 ? 1 : 37) {
            s.plain = k % 3 == 0;
            bytes_expect(&s, k);
            for (size_t i = 0; i < 6; i++)
                CHECK_INT(bytes_run(&s, &row, few[i][0], few[i][1], k, scratch), 0);
        }
        s.plain = 0;
        spy_report(spy_i8, row.i8[w].unit, row.i8[w].tiles, names[w]);
    }
    dp__default_free(NULL, scratch, 0);
    bytes_free(&s);
}

/* The largest sums that the limit on k allows, both signs, and products over the team: of weights
 * 127, -127 and -128, all or (pair-, quad-safe) one of each group that adds up in 16 bits. */
static void test_gemm8_extremes(void) {
    enum { K = 65536, N = 3 };
    uint8_t *a = (uint8_t *)malloc(2 * K);
    int8_t  *w = (int8_t *)malloc(N * K);
    memset(a, 0, K), memset(a + K, 255, K);
    for (size_t each = 0; each < 3 * DP__ROWS; each++) {
        size_t  r = each / 3, form = each % 3;
        int64_t count = K >> form;
        memset(w, 127, K), memset(w + K, -127, K), memset(w + 2 * K, -128, K);
        for (size_t i = 0; i < N * K; i++)
            if (form == 1 ? i % 2 != 0 : form == 2 && i % 8 != 0 && i % 8 != 2) w[i] = 0;
        CHECK_INT(dp__weights_hold(w, K, N, K), form);
        if (!gemm_row_runs(r)) continue;
        dp__exec x = gemm_exec(r, 2);
        int32_t  comp[N];
        float    c[2 * N], ones[N] = {1, 1, 1};
        void    *packed = malloc(dp__pack8_bytes(N, K));
        dp__mm   mm;
        memset(&mm, 0, sizeof mm);
        mm.panel = dp__row_panel(&dp__rows[r]);
        dp__pack8(packed, mm.panel, w, K, N, K), dp__compensate(comp, w, K, N, K);
        mm.c = c, mm.ldc = N, mm.b_form = DP__B_INT8, mm.a8 = a, mm.a_row = K, mm.a_scale = ones;
        mm.b = packed, mm.comp = comp, mm.scale = ones, mm.weights = (int)form;
        mm.m = 2, mm.n = N, mm.k = K;
        dp__matmul(&x, &mm);
        CHECK(c[0] == (float)(-128 * 127 * count) && c[1] == (float)(128 * 127 * count));
        CHECK(c[2] == (float)(128 * 128 * count) && c[3] == (float)(127 * 127 * count));
        CHECK(c[4] == (float)(-127 * 127 * count) && c[5] == (float)(-127 * 128 * count));
        mm.comp = NULL; /* u8 as they stand */
        dp__matmul(&x, &mm);
        CHECK(c[0] == 0 && c[1] == 0 && c[2] == 0 && c[3] == (float)(255 * 127 * count));
        CHECK(c[4] == (float)(-255 * 127 * count) && c[5] == (float)(-255 * 128 * count));
        free(packed);
        dp__exec_close(&x);
    }
    free(a), free(w);
}

/* One step beyond what a class of weights allows, wherever it stands, takes the class away. */
static void test_gemm8_hold(void) {
    static const size_t group[2][4] = {{0, 1, 4, 5}, {2, 3, 6, 7}};
    int8_t w[3 * 48];
    for (int sign = -1; sign <= 1; sign += 2) {
        for (size_t at = 0; at < 3 * 48; at += 2) { /* columns of 44, stride 48 */
            memset(w, 0, sizeof w);
            w[at] = (int8_t)(64 * sign), w[at + 1] = (int8_t)(64 * sign);
            CHECK_INT(dp__weights_hold(w, 48, 3, 44), DP_WEIGHTS_QUADS);
            w[at + at / 2 % 2] = (int8_t)(65 * sign);
            CHECK_INT(dp__weights_hold(w, 48, 3, 44),
                      at % 48 < 44 ? DP_WEIGHTS_FULL : DP_WEIGHTS_QUADS);
        }
        for (size_t i = 0; i < 3 * 2 * 6 * 4; i++) { /* column, group, block of 8, member */
            int8_t *column = w + i / 48 * 48, *block = column + i / 8 % 6 * 8;
            memset(w, 0, sizeof w);
            for (size_t e = 0; e < 4; e++) block[group[i / 4 % 2][e]] = (int8_t)(32 * sign);
            CHECK_INT(dp__weights_hold(w, 48, 3, 48), DP_WEIGHTS_QUADS);
            block[group[i / 4 % 2][i % 4]] = (int8_t)(33 * sign);
            CHECK_INT(dp__weights_hold(w, 48, 3, 48), DP_WEIGHTS_PAIRS);
            block[group[i / 4 % 2][(i % 4) ^ 1]] = (int8_t)(-96 * sign);
            CHECK_INT(dp__weights_hold(w, 48, 3, 48), DP_WEIGHTS_QUADS);
        }
    }
    memset(w, 0, sizeof w);
    w[0] = -128;
    CHECK_INT(dp__weights_hold(w, 48, 3, 44), DP_WEIGHTS_QUADS);
    w[1] = -1;
    CHECK_INT(dp__weights_hold(w, 48, 3, 1), DP_WEIGHTS_QUADS); /* what is not there */
    CHECK_INT(dp__weights_hold(w, 48, 3, 2), DP_WEIGHTS_FULL);
}

/* The partition of an INT8 product changes nothing; nor does it where GELU is computed. */
static void test_gemm8_team(void) {
    enum { M = 61, N = 200, K = 70 };
    static const int32_t teams[] = {1, 2, 3, 5};
    uint64_t state = test_seed;
    static uint8_t a[M * 72];
    static int8_t  w[N * K];
    static float   a_scale[M], scale[N], bias[N], c[8][M * N], first[2][M * N];
    for (size_t i = 0; i < sizeof a; i++) a[i] = (uint8_t)test_rnd(&state);
    for (size_t i = 0; i < sizeof w; i++) w[i] = (int8_t)test_rnd(&state);
    for (size_t i = 0; i < M; i++) a_scale[i] = test_rndf(&state);
    for (size_t i = 0; i < N; i++) scale[i] = bias[i] = test_rndf(&state);
    for (size_t r = 0; r < DP__ROWS; r++) {
        if (!gemm_row_runs(r)) continue;
        for (size_t t = 0; t < 8; t++) {
            int      act = 1 + (t < 4 ? DP__GELU : DP__GELU8);
            dp__exec x = gemm_exec(r, teams[t % 4]);
            int32_t  comp[N];
            void    *packed = malloc(dp__pack8_bytes(N, K));
            dp__mm   mm;
            memset(&mm, 0, sizeof mm);
            mm.panel = dp__row_panel(&dp__rows[r]);
            dp__pack8(packed, mm.panel, w, K, N, K), dp__compensate(comp, w, K, N, K);
            mm.b_form = DP__B_INT8, mm.a8 = a, mm.a_row = 72, mm.a_scale = a_scale;
            mm.c = c[t], mm.ldc = N;
            mm.b = packed, mm.comp = comp, mm.scale = scale, mm.bias = bias, mm.act = act;
            mm.m = M, mm.n = N, mm.k = K;
            dp__matmul(&x, &mm);
            if (r == 0 && t % 4 == 0) memcpy(first[t / 4], c[t], sizeof *first);
            CHECK(memcmp(c[t], first[t / 4], sizeof *first) == 0);
            free(packed);
            dp__exec_close(&x);
        }
    }
}

/* ---- the checks themselves must be able to fail --------------------------------------------- */

/* One flipped result bit, and a tail mask left out, on every row: both must be noticed. The
 * gap between rows of c takes what a missing mask writes. */
static void test_gemm_notices(void) {
    static uint32_t pairs[48 * 32 / 2];
    static float packed[48 * 32], a[9 * 20], b[37 * 20], c[9 * 64 + 64], scratch[DP__SCRATCH];
    uint64_t state = test_seed;
    int8_shapes    s;
    gemm_cases *all = shapes_new();
    drawn    d, d16;
    memset(&d, 0, sizeof d);
    for (size_t i = 0; i < sizeof a / 4; i++) a[i] = test_rndf(&state);
    for (size_t i = 0; i < sizeof b / 4; i++) b[i] = test_rndf(&state);
    for (size_t i = 0; i < sizeof c / 4; i++) c[i] = 7; /* a lost mask writes zeros over it */
    dp__pack(packed, DP__PANEL, b, 20, 1, 37, 20);
    dp__pack16(pairs, DP__PANEL, b, 20, 37, 20);
    d.mm.m = 9, d.mm.n = 37, d.mm.k = 20, d.mm.a = a, d.mm.a_row = 20, d.mm.a_k = 1;
    d.mm.b = packed, d.mm.panel = DP__PANEL, d.mm.c = c, d.mm.ldc = 64, d.room = 27, d.slack = 27;
    d.expected = (float *)malloc(9 * 37 * 4);
    for (size_t i = 0; i < 9 * 37; i++) d.expected[i] = gemm_element(&d.mm, b, i / 37, i % 37);
    d16 = d;
    d16.mm.b = pairs, d16.mm.b_form = DP__B_BF16, d16.b = b;
    d16.expected = (float *)malloc(9 * 37 * 4);
    for (size_t i = 0; i < 9 * 37; i++)
        d16.expected[i] = gemm_element16(&d.mm, b, i / 37, i % 37);
    bytes_fill(&s, &state);
    shapes_expect(all, &dp__rows[0], 3, DP__B_PACKED);
    bytes_expect(&s, 40);
    for (size_t r = 0; r < DP__ROWS; r++) {
        if (!gemm_row_runs(r)) continue;
        dp__row row = spy_on(r, SPY_FLIP);
        size_t  flips = drawn_run(&d, &row, NULL, scratch), all_flips = shapes_run(all, &row, 3, 0);
        size_t  pair_flips = drawn_run(&d16, &row, NULL, scratch);
        size_t  byte_flips = bytes_run(&s, &row, 9, 37, 40, scratch);
        row = spy_on(r, SPY_MASK);
        size_t masks = drawn_run(&d, &row, NULL, scratch);
        size_t pair_masks = drawn_run(&d16, &row, NULL, scratch);
        row = spy_on(r, SPY_HONEST);
        CHECK_INT(drawn_run(&d, &row, NULL, scratch), 0);
        CHECK_INT(drawn_run(&d16, &row, NULL, scratch), 0);
        CHECK(flips > 0 && all_flips > 0 && masks > 0 && byte_flips > 0 && pair_flips > 0 &&
              pair_masks > 0);
        printf("     %-11s flipped bit seen in %u, %u, %u, %u rows of results; lost mask in %u, "
               "%u\n", row.name, (unsigned)flips, (unsigned)all_flips, (unsigned)byte_flips,
               (unsigned)pair_flips, (unsigned)masks, (unsigned)pair_masks);
    }
    memset(spy_f32, 0, sizeof spy_f32);
    memset(spy_i8, 0, sizeof spy_i8);
    memset(spy_b16, 0, sizeof spy_b16);
    free(d.expected);
    free(d16.expected);
    shapes_free(all);
    bytes_free(&s);
}

/* ---- dp__fmaf ------------------------------------------------------------------------------- */

#if defined(DP__AVX2) && !defined(DP__SOFTWARE)
DP__TARGET("avx2,fma") static float fma_hardware(float a, float b, float c) {
    return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}
#else
static float fma_hardware(float a, float b, float c) {
    return fmaf(a, b, c);
}
#endif

static float fma_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Operands that hurt: any bits; cancellation to the last bits; a sum exactly between two
 * floats, plus or minus a hair; results and operands among the denormals; overflow. */
static void fma_draw(uint64_t *state, float *a, float *b, float *c) {
    uint64_t u = test_rnd(state), v = test_rnd(state);
    *a = fma_bits((uint32_t)u);
    *b = fma_bits((uint32_t)(u >> 32));
    *c = fma_bits((uint32_t)v);
    switch (v >> 60) {
    case 0: case 1: case 2: *c = -(*a * *b); break;
    case 3: case 4: *c = -(*a * *b) * (1 + (float)(v >> 32 & 3) * FLT_EPSILON); break;
    case 5: case 6: case 7: /* a * b is a tie of c's last place, nearly */
        *c = fma_bits(0x3F800000u | (uint32_t)(v & 0x007FFFFFu));
        *a = fma_bits(0x33800000u + (uint32_t)(u & 3)); /* 2^-24 */
        *b = fma_bits(0x3F800000u + (uint32_t)(u >> 32 & 3));
        if (v >> 41 & 1) /* 1 / a nearly: what is missing to the tie is lost in a double */
            *b = fma_bits(0x3F800000u - 2 * (uint32_t)(u & 3));
        if (v >> 40 & 1) *b = -*b;
        break;
    case 8: case 9: /* into the denormals */
        *a = fma_bits(0x1F800000u + (uint32_t)(u & 0x03FFFFFFu));
        *b = fma_bits(0x1F800000u + (uint32_t)(u >> 32 & 0x03FFFFFFu));
        *c = fma_bits((uint32_t)v & 0x80FFFFFFu);
        break;
    case 10: /* out at the top */
        *a = fma_bits(0x7E000000u + (uint32_t)(u & 0x00FFFFFFu));
        *b = fma_bits(0x3F000000u + (uint32_t)(u >> 32 & 0x01FFFFFFu));
        *c = fma_bits(0x7F000000u + (uint32_t)(v & 0x807FFFFFu));
        break;
    default: break;
    }
}

static void test_gemm_fmaf(void) {
    uint64_t state = test_seed, wrong = 0;
    uint64_t cases = test_light() ? 100000 : test_long() ? 50000000 : 3000000;
    if (!(dp__cpu_bits() & DP__CPU_FMA)) {
        test_skip("gemm_fmaf", "the CPU has no FMA");
        return;
    }
    for (uint64_t i = 0; i < cases; i++) {
        float    a, b, c;
        uint32_t x, y;
        fma_draw(&state, &a, &b, &c);
        float ours = dp__fmaf(a, b, c), theirs = fma_hardware(a, b, c);
        memcpy(&x, &ours, 4);
        memcpy(&y, &theirs, 4);
        if (x != y && !(ours != ours && theirs != theirs) && wrong++ < 5)
            printf("    fma(%a, %a, %a): %a, hardware %a\n", (double)a, (double)b, (double)c,
                   (double)ours, (double)theirs);
    }
    CHECK_INT(wrong, 0);
}

/* ---- machines, threads, floating-point state ------------------------------------------------ */

static void test_gemm_select(void) {
    const uint32_t avx2 = DP__CPU_AVX2 | DP__CPU_FMA;
    const uint32_t x512 = avx2 | DP__CPU_AVX512F | DP__CPU_AVX512BW | DP__CPU_AVX512DQ |
                          DP__CPU_AVX512VL;
    const uint32_t vnni = x512 | DP__CPU_AVX512VNNI, ymm = DP__OS_YMM, zmm = ymm | DP__OS_ZMM;
    const uint32_t ymm_vnni = avx2 | DP__CPU_AVX_VNNI;
    const uint32_t bf16 = vnni | DP__CPU_AVX512BF16, slow = bf16 | DP__CPU_SLOW_BF16;
    const uint32_t amx = slow | DP__NEEDS_AMX, tmm = zmm | DP__OS_AMX;
    const struct {
        uint32_t cpu, os;
        dp_isa   cap;
        uint32_t deny;
        dp_isa   want; /* AUTO: none is left */
    } machines[] = {
        {0, 0, DP_ISA_AUTO, 0, DP_ISA_SCALAR},
        {vnni, 0, DP_ISA_AUTO, 0, DP_ISA_SCALAR},               /* old system */
        {vnni, ymm, DP_ISA_AUTO, 0, DP_ISA_AVX2},               /* zmm not saved */
        {vnni, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_VNNI},
        {x512, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX512},             /* Skylake-SP */
        {bf16, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_BF16},        /* Zen 4, Cooper Lake */
        {slow, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_VNNI},        /* Sapphire Rapids */
        {slow, zmm, DP_ISA_AVX512_BF16, 0, DP_ISA_AVX512_BF16}, /* .. where it is named */
        {bf16, ymm, DP_ISA_AUTO, 0, DP_ISA_AVX2},
        {x512 | DP__CPU_AVX512BF16, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX512},
        {avx2 | DP__CPU_AVX512F, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX2}, /* Knights Landing */
        {avx2, ymm, DP_ISA_AUTO, 0, DP_ISA_AVX2},
        {ymm_vnni, ymm, DP_ISA_AUTO, 0, DP_ISA_AVX_VNNI},       /* Alder Lake */
        {ymm_vnni, ymm, DP_ISA_AVX2, 0, DP_ISA_AVX2},
        {DP__CPU_AVX_VNNI, ymm, DP_ISA_AUTO, 0, DP_ISA_SCALAR},
        {vnni | DP__CPU_AVX_VNNI, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_VNNI},
        {vnni | DP__CPU_AVX_VNNI, ymm, DP_ISA_AUTO, 0, DP_ISA_AVX_VNNI}, /* zmm not saved */
        {DP__CPU_AVX2, ymm, DP_ISA_AUTO, 0, DP_ISA_SCALAR},     /* FMA masked out */
        {DP__CPU_FMA, ymm, DP_ISA_AUTO, 0, DP_ISA_SCALAR},
        {DP__CPU_AVX512VNNI | avx2, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX2},
        {vnni, zmm, DP_ISA_SCALAR, 0, DP_ISA_SCALAR},
        {vnni, zmm, DP_ISA_AVX2, 0, DP_ISA_AVX2},
        {vnni, zmm, DP_ISA_AVX512, 0, DP_ISA_AVX512},
        {vnni, zmm, DP_ISA_AUTO, 1u << DP_ISA_AVX512_VNNI, DP_ISA_AVX512},
        {vnni, zmm, DP_ISA_AVX512, 1u << DP_ISA_AVX512, DP_ISA_AVX2},
        {vnni, zmm, DP_ISA_AVX2, 1u << DP_ISA_AVX2, DP_ISA_SCALAR},
        {avx2, ymm, DP_ISA_AVX512, 0, DP_ISA_AVX2},
        {vnni, zmm, DP_ISA_SCALAR, 1u << DP_ISA_SCALAR, DP_ISA_AUTO},
        {amx, tmm, DP_ISA_AUTO, 0, DP_ISA_AMX},
        {amx, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_VNNI},         /* permission refused */
        {amx, DP__OS_AMX, DP_ISA_AUTO, 0, DP_ISA_SCALAR},
        {amx & ~DP__CPU_AMX_TILE, tmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_VNNI}, /* no palette */
        {amx & ~DP__CPU_AMX_INT8, tmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_VNNI},
        {amx & ~DP__CPU_AMX_BF16, tmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_VNNI},
        {amx & ~DP__CPU_AVX512VNNI, tmm, DP_ISA_AUTO, 0, DP_ISA_AVX512},
        {amx & ~DP__CPU_AVX512BF16, tmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_VNNI},
        {bf16 | DP__NEEDS_AMX, tmm, DP_ISA_AUTO, 0, DP_ISA_AMX}, /* Granite Rapids */
        {bf16 | DP__NEEDS_AMX, zmm, DP_ISA_AUTO, 0, DP_ISA_AVX512_BF16},
        {amx, tmm, DP_ISA_AVX512_VNNI, 0, DP_ISA_AVX512_VNNI},
        {amx, tmm, DP_ISA_AUTO, 1u << DP_ISA_AMX, DP_ISA_AVX512_VNNI},
    };
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        const dp__row *row = dp__row_select(machines[i].cpu, machines[i].os, machines[i].cap,
                                            machines[i].deny);
        dp_isa want = machines[i].want, got = row != NULL ? row->isa : DP_ISA_AUTO;
        if (dp__row_missing(want, ~0u, ~0u) != NULL) /* a build without that row takes the next */
            do want = (dp_isa)(want - 1);
            while (dp__row_missing(want, machines[i].cpu, machines[i].os) != NULL);
        CHECK_INT(got, want);
    }
#if defined(DP__X86) && !defined(DP__SOFTWARE)
    CHECK(dp__cpu_slow_bf16(0x000806F8) && dp__cpu_slow_bf16(0x000C06F2)); /* SPR, EMR */
    CHECK(dp__cpu_slow_bf16(0x000A06D1) && !dp__cpu_slow_bf16(0x000606A6)); /* GNR, ICX */
    CHECK(!dp__cpu_slow_bf16(0x00A10F11) && !dp__cpu_slow_bf16(0x0005065B)); /* Zen 4, CPX */
#endif
    CHECK(dp__row_missing(DP_ISA_SCALAR, 0, 0) == NULL);
    CHECK(dp__row_missing(DP_ISA_AUTO, 0, 0) == NULL);
    CHECK(dp__row_missing(DP_ISA_COUNT, ~0u, ~0u) != NULL);
#ifdef DP__AVX512
    CHECK_TEXT(dp__row_missing(DP_ISA_AVX2, DP__CPU_AVX2, zmm), "the CPU has no FMA");
    CHECK_TEXT(dp__row_missing(DP_ISA_AVX512, avx2, zmm), "the CPU has no AVX-512F");
    CHECK_TEXT(dp__row_missing(DP_ISA_AVX_VNNI, avx2, zmm), "the CPU has no AVX-VNNI");
    CHECK_TEXT(dp__row_missing(DP_ISA_AVX512_VNNI, x512, zmm), "the CPU has no AVX512-VNNI");
    CHECK_TEXT(dp__row_missing(DP_ISA_AVX512_BF16, vnni, zmm), "the CPU has no AVX512-BF16");
    CHECK_TEXT(dp__row_missing(DP_ISA_AVX2, avx2, 0),
               "the operating system does not save AVX registers");
    CHECK_TEXT(dp__row_missing(DP_ISA_AVX512, x512, ymm),
               "the operating system does not save AVX-512 registers");
#ifdef DP__AMX
    CHECK_TEXT(dp__row_missing(DP_ISA_AMX, amx, zmm),
               "the operating system refuses AMX (arch_prctl)");
    CHECK_TEXT(dp__row_missing(DP_ISA_AMX, amx & ~DP__CPU_AMX_TILE, tmm),
               "the CPU has no AMX-TILE, or shows no palette of tiles");
    CHECK_TEXT(dp__row_missing(DP_ISA_AMX, amx & ~DP__CPU_AMX_INT8, tmm),
               "the CPU has no AMX-INT8");
#endif
#endif
}

static void test_gemm_open(void) {
    dp_env    env;
    dp_error  err;
    dp__exec  x;
    test_heap heap;
    DP_CLEAR(env);
    memset(&heap, 0, sizeof heap);
    env.alloc.alloc = test_heap_alloc;
    env.alloc.free = test_heap_free;
    env.alloc.ctx = &heap;
    env.isa_deny = ~0u;
    CHECK_INT(dp__exec_open(&x, &env, &err), DP_E_ISA);
    env.isa_deny = 0;
    env.threads = 4;
    CHECK_INT(dp__exec_open(&x, &env, &err), DP_OK);
#ifndef DP_NO_THREADS
    CHECK_INT(x.threads, 4);
#endif
    dp__exec_close(&x);
    CHECK_INT(heap.live_bytes, 0);
    size_t calls = heap.calls;
    for (size_t n = 1; n <= calls; n++) { /* without a team it still computes, alone */
        memset(&heap, 0, sizeof heap);
        heap.fail_at = n;
        dp_status status = dp__exec_open(&x, &env, &err);
        CHECK(status == DP_E_MEMORY || (status == DP_OK && x.threads == 1));
        if (status == DP_OK) dp__exec_close(&x);
        CHECK_INT(heap.live_bytes, 0);
    }
    for (size_t r = 0; r < DP__ROWS; r++)
        if (!gemm_row_runs(r) && test_isa == NULL)
            test_skip(dp__rows[r].name,
                      dp__row_missing(dp__rows[r].isa, dp__cpu_bits(), dp__os_bits()));
}

typedef struct gemm_counts {
    int32_t seen[16], threads;
    int32_t bad_state, nap; /* nap: workers take their time, so that the caller sleeps */
} gemm_counts;

static void gemm_nap(void) {
    struct timespec pause = {0, 2000000};
    nanosleep(&pause, NULL);
}

#if defined(__x86_64__) && defined(__GNUC__)
static uint32_t mxcsr(void) {
    uint32_t state = 0; /* MemorySanitizer does not see what an instruction writes */
    __asm__ __volatile__("stmxcsr %0" : "=m"(state));
    return state;
}
#endif

static void count_task(void *arg, int32_t tid, int32_t threads) {
    gemm_counts *c = (gemm_counts *)arg;
    if (tid > 0 && c->nap) gemm_nap();
    c->seen[tid]++;
    if (tid == 0) c->threads = threads;
#if defined(__x86_64__) && defined(__GNUC__)
    if (tid > 0 && (mxcsr() & ~0x3Fu) != 0x1F80) c->bad_state = 1;
#endif
}

/* Every task runs once on every thread, also when workers have gone to sleep between two, or the
 * caller within one. */
static void test_gemm_team(void) {
    for (int32_t threads = 1; threads <= 5; threads++) {
        dp__exec x = gemm_exec(0, threads);
        gemm_counts   c;
        memset(&c, 0, sizeof c);
        int32_t runs = test_light() ? 200 : 5000;
        for (int32_t i = 0; i < runs; i++) {
            c.nap = i % 500 == 9;
            dp__exec_run(&x, count_task, &c);
            if (i % 500 == 7) gemm_nap();
        }
        for (int32_t t = 0; t < x.threads; t++) CHECK_INT(c.seen[t], runs);
        CHECK_INT(c.threads, x.threads);
        dp__exec_close(&x);
    }
}

#ifndef DP_NO_THREADS
/* Waits that spinning did not end are counted up to a limit; one that was over before it began
 * tells nothing; from time to time a full wait is tried again. */
static void test_gemm_patience(void) {
    dp__patience patience = {0, 0};
    int32_t      word = 0, waits = 1;
    CHECK_INT(dp__team_spin(&word, 1, 1, &patience), 0);
    CHECK_INT(dp__team_spin(&word, 0, 1, &patience), 1);
    CHECK_INT(dp__team_spin(&word, 1, 0, &patience), 1);
    CHECK_INT(patience.failures, 1);
    for (waits = 3; waits < 2 * DP__PROBE + 5; waits++) {
        CHECK_INT(patience.waits, (waits - 1) % DP__PROBE + 1);
        CHECK_INT(dp__team_spin(&word, 0, 0, &patience), 0);
    }
    CHECK_INT(patience.failures, DP__UNLUCKY);
}
#else
static void test_gemm_patience(void) {
    test_skip("gemm_patience", "no threads in this build");
}
#endif

#if !defined(DP_NO_THREADS) && defined(__linux__)
/* Where the caller is and where each thread may run. */
typedef struct gemm_places {
    unsigned      caller;
    unsigned long may[4][DP__CPU_WORDS];
} gemm_places;

static void gemm_place_task(void *arg, int32_t tid, int32_t threads) {
    gemm_places *p = (gemm_places *)arg;
    (void)threads;
    if (tid == 0) syscall(SYS_getcpu, &p->caller, NULL, NULL);
    syscall(SYS_sched_getaffinity, 0, sizeof p->may[tid], p->may[tid]);
}

static int gemm_place(const unsigned long *set, unsigned cpu) {
    return (int)(set[cpu / (8 * sizeof(long))] >> cpu % (8 * sizeof(long)) & 1);
}

/* The caller is held on processor cpu and its workers have slept: they may run where wanted says.
 * The caller's places are its own affair. */
static void gemm_apart_from(const dp__exec *x, unsigned cpu, const unsigned long *wanted) {
    unsigned long mine[DP__CPU_WORDS] = {0};
    gemm_places   p;
    memset(&p, 0, sizeof p);
    mine[cpu / (8 * sizeof(long))] = 1ul << cpu % (8 * sizeof(long));
    CHECK_INT(syscall(SYS_sched_setaffinity, 0, sizeof mine, mine), 0);
    int most = x->team->places.bytes != 0 ? 500 : 2; /* a busy machine: workers fall asleep late */
    for (int i = 0; i < most && x->team->places.taken != cpu; i++) {
        for (int naps = 0; naps < 4; naps++) gemm_nap();
        dp__exec_run(x, gemm_place_task, &p);
    }
    dp__exec_run(x, gemm_place_task, &p); /* the first after a move may have begun before it */
    CHECK_INT(p.caller, cpu);
    CHECK(memcmp(p.may[0], mine, sizeof mine) == 0);
    for (int32_t t = 1; t < x->threads; t++)
        CHECK(memcmp(p.may[t], wanted, sizeof mine) == 0);
}

/* With a processor for every thread workers run on all but the caller's, and follow it; with
 * fewer they stay wherever they may. */
static void test_gemm_apart(void) {
    unsigned long all[DP__CPU_WORDS] = {0}, others[DP__CPU_WORDS];
    int32_t       cpus = 0;
    CHECK(syscall(SYS_sched_getaffinity, 0, sizeof all, all) > 0);
    for (unsigned cpu = 0; cpu < 8 * sizeof(all); cpu++) cpus += gemm_place(all, cpu);
    dp__exec few = gemm_exec(0, 2), many = gemm_exec(0, cpus + 1);
    for (unsigned cpu = 0; cpu < 8 * sizeof(all); cpu++) {
        if (!gemm_place(all, cpu)) continue;
        memcpy(others, all, sizeof others);
        if (cpus > 1) others[cpu / (8 * sizeof(long))] &= ~(1ul << cpu % (8 * sizeof(long)));
        gemm_apart_from(&few, cpu, others);
        gemm_apart_from(&many, cpu, all);
    }
    CHECK_INT(syscall(SYS_sched_setaffinity, 0, sizeof all, all), 0);
    dp__exec_close(&few);
    dp__exec_close(&many);
}
#else
static void test_gemm_apart(void) {
    test_skip("gemm_apart", "no threads in this build, or not Linux");
}
#endif

static void test_gemm_share(void) {
    for (size_t count = 0; count < 40; count++) {
        for (int32_t threads = 1; threads < 9; threads++) {
            size_t at = 0, begin, end;
            for (int32_t t = 0; t < threads; t++) {
                dp__share(count, 6, t, threads, &begin, &end);
                CHECK(begin == at && end >= begin && (begin % 6 == 0 || begin == count));
                at = end;
            }
            CHECK_INT(at, count);
        }
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
/* A host that flushes denormals and rounds up gets its state back; what we compute, also on
 * workers that were started under it, is not touched by it. */
static void test_gemm_fp_state(void) {
    if (!gemm_can_flush()) {
        test_skip("gemm_fp_state", "FTZ and DAZ do nothing here");
        return;
    }
    uint32_t host = 0x1F80 | 0x8040 | 0x4000, old = mxcsr(); /* FTZ, DAZ, round up */
    gemm_counts   c;
    memset(&c, 0, sizeof c);
    __asm__ __volatile__("ldmxcsr %0" : : "m"(host));
    dp__exec x = gemm_exec(0, 3);
    uint32_t saved = dp__fp_enter();
    volatile float tiny = FLT_MIN;
    float          half = tiny / 2;
    uint32_t now = mxcsr();
    dp__exec_run(&x, count_task, &c);
    dp__fp_leave(saved);
    uint32_t after = mxcsr();
    __asm__ __volatile__("ldmxcsr %0" : : "m"(old));
    CHECK(half > 0);
    CHECK_INT(now & ~0x3Fu, 0x1F80);
    CHECK_INT(saved & ~0x3Fu, host & ~0x3Fu);
    CHECK_INT(after & ~0x3Fu, host & ~0x3Fu);
    CHECK_INT(c.bad_state, 0);
    dp__exec_close(&x);
}
#else
static void test_gemm_fp_state(void) {
    test_skip("gemm_fp_state", "no MXCSR here");
}
#endif

#if !defined(DP_NO_THREADS) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* In a child with room for a few stacks only: the team is smaller and still does its work. */
static int team_refused_child(void) {
    struct rlimit limit;
    long          pages = 0;
    FILE         *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%ld", &pages) != 1) return 77;
    fclose(f);
    limit.rlim_cur = limit.rlim_max = (rlim_t)pages * 4096 + 40u * 1048576u;
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 77;
    dp_alloc  alloc = {dp__default_alloc, dp__default_free, NULL};
    dp__team *team = dp__team_open(&alloc, 200);
    if (team == NULL) return 1;
    if (team->threads >= 200 || team->threads < 2) return 2;
    int32_t *seen = (int32_t *)calloc(200, sizeof *seen);
    int32_t  threads = team->threads;
    (void)seen;
    dp__team_close(team, &alloc, 200);
    return threads < 200 ? 0 : 3;
}

static void test_gemm_team_refused(void) {
    int   status = 0;
    pid_t child = fork();
    if (child == 0) _exit(team_refused_child());
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        test_skip("gemm_team_refused", "no memory limit here");
        return;
    }
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 0);
}
#else
static void test_gemm_team_refused(void) {
    test_skip("gemm_team_refused", "this build cannot limit its memory");
}
#endif

static const test tests_gemm[] = {
    {"gemm_select", test_gemm_select},
    {"gemm_open", test_gemm_open},
    {"gemm_fp_state", test_gemm_fp_state},
    {"gemm_share", test_gemm_share},
    {"gemm_team", test_gemm_team},
    {"gemm_patience", test_gemm_patience},
    {"gemm_apart", test_gemm_apart},
    {"gemm_team_refused", test_gemm_team_refused},
    {"gemm_fmaf", test_gemm_fmaf},
    {"gemm_pack", test_gemm_pack},
    {"gemm_empty", test_gemm_empty},
    {"gemm_notices", test_gemm_notices},
    {"gemm_shapes", test_gemm_shapes},
    {"gemm_drawn", test_gemm_drawn},
    {"gemm_activation", test_gemm_activation},
    {"gemm16_shapes", test_gemm16_shapes},
    {"gemm16_order", test_gemm16_order},
    {"gemm16_chain", test_gemm16_chain},
    {"gemm16_blocks", test_gemm16_blocks},
    {"gemm8_shapes", test_gemm8_shapes},
    {"gemm8_extremes", test_gemm8_extremes},
    {"gemm8_hold", test_gemm8_hold},
    {"gemm8_team", test_gemm8_team},
};
