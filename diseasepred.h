/* diseasepred.h -- a BERT text classifier in one C header: read, train, quantize, predict.
 *
 * ============================================================================================
 * [0] Front matter                                                            budget 200 lines
 * ============================================================================================
 * ============================================================================================
 * [0.1] Purpose                                                                budget 20 lines
 * ============================================================================================
 *
 * This file holds a whole BERT classifier: the tokenizer, the network, its gradients, the
 * optimizer, an INT8 quantizer, a reader for Hugging Face model directories, and the matrix
 * kernels that make it fast. It needs a C99 or C++11 compiler, the C library and, if wanted,
 * POSIX threads. It opens no connection, keeps no global state, and gives the same answer on
 * every processor.
 *
 * It is research and teaching software. It is not a medical device: what it prints is the
 * output of a statistical model, not a diagnosis. Licence: MIT, full text in [Z4].
 *
 * ============================================================================================
 * [0.2] Use it in 20 lines                                                     budget 30 lines
 * ============================================================================================
 *
 *     #define DISEASEPRED_IMPLEMENTATION          // in exactly one C or C++ file
 *     #include "diseasepred.h"
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         const char *text = "Itching for a week, a rash on both arms, no fever.";
 *         dp_model *model = NULL;
 *         dp_session *session = NULL;
 *         dp_error err;
 *         float prob[64];
 *         dp_prediction info;
 *         if (dp_model_open(NULL, "model", &model, &err) != DP_OK ||
 *             dp_session_open(model, NULL, &session, &err) != DP_OK ||
 *             dp_predict(session, text, 50, prob, 64, &info, &err) != DP_OK) {
 *             fprintf(stderr, "%s\n", err.text);
 *             return 1;
 *         }
 *         printf("%s %.3f\n", dp_model_label(model, info.best), prob[info.best]);
 *         dp_session_close(session);
 *         dp_model_close(model);
 *         return 0;
 *     }
 *
 * Build: cc -O2 prog.c -lm -lpthread
 *
 * ============================================================================================
 * [0.3] Contents and reading paths                                             budget 50 lines
 * ============================================================================================
 *
 * Search for a tag, for example "[C3]", to jump to its section. A section uses only what
 * stands above it; the compiler proves that, because no internal function is declared ahead.
 *
 *   tag    section                          tag    section
 *   ----   ------------------------------   ----   ------------------------------
 *   [0]    Front matter                     [D]    Text
 *   [0.1]  Purpose                          [D1]   Unicode tables
 *   [0.2]  Use it in 20 lines               [D2]   Normalization
 *   [0.3]  Contents and reading paths       [D3]   WordPiece
 *   [0.4]  Contract                         [D4]   Sequences
 *   [0.5]  Options                          [E]    Kernels
 *   [A]    Interface                        [E1]   Number formats
 *   [A1]   Version and linkage              [E2]   Elementary functions
 *   [A2]   Status and errors                [E3]   CPU detection
 *   [A3]   Environment                      [E4]   Scalar kernels
 *   [A4]   Machine                          [E5]   AVX2
 *   [A5]   Text                             [E6]   AVX-512
 *   [A6]   Model                            [E7]   AMX
 *   [A7]   Prediction                       [E8]   Kernel rows
 *   [A8]   Training                         [E9]   Threads
 *   [A9]   Quantization                     [E10]  Matrix products
 *   [A10]  Evaluation and explanation       [F]    Network
 *   [B]    Foundations                      [F1]   Tensors
 *   [B1]   Compiler and platform            [F2]   Layers
 *   [B2]   Checked sizes                    [F3]   BERT forward
 *   [B3]   Memory                           [F4]   BERT backward
 *   [B4]   Text output and numbers          [G]    Learning and measuring
 *   [B5]   Files                            [G1]   Adam
 *   [B6]   Random and hash                  [G2]   Metrics
 *   [C]    Bytes from outside               [G3]   Training loop
 *   [C1]   Byte order and UTF-8             [G4]   Quantizer
 *   [C2]   JSON                             [G5]   Accuracy-aware search
 *   [C3]   safetensors                      [G6]   Explanations
 *   [C4]   PyTorch checkpoint               [H]    Public functions
 *   [C5]   Model configuration              [Z]    Appendix
 *                                           [Z1]   Derivations
 *                                           [Z2]   References
 *                                           [Z3]   Changes
 *                                           [Z4]   Licence
 *
 * Four ways to read it:
 *   you use it               [0] and [A]; stop at the line of equals signs that says so
 *   you review its safety    [B], [C], [D]: every byte from outside, no floating point
 *   you make it faster       [E]
 *   you learn how BERT works [F], [G] and [Z1]
 *
 * ============================================================================================
 * [0.4] Contract                                                               budget 40 lines
 * ============================================================================================
 *
 * Words. A document is one text or a pair of texts. A token is one entry of the vocabulary. A
 * sequence is what the network sees: [CLS] text [SEP], or [CLS] text [SEP] text [SEP]. A row
 * is one document of a batch or file. A kernel row is one column of machine code for one
 * instruction set; all kernel rows give the same bits.
 *
 * Letters. B sequences, T tokens of one sequence, N tokens of a batch (the sum of all T),
 * C width of the model, H heads, D = C / H width of a head, F inner width, V vocabulary,
 * K classes, L layers. Shapes are written [N, C]; the last index runs fastest. Matrix products
 * use small letters: c[m, n] = sum over k of a[m, k] * w[n, k].
 *
 * Ownership. *out* parameters are objects which you must close. const pointers that come back
 * are borrowed until their object is closed. Arrays are always yours, with a capacity; where
 * one is too small the call returns DP_E_SPACE and the needed count. The library keeps no
 * pointer to any argument after it returns, except the allocator, the file hooks and the log
 * of dp_env, and a trainer's progress callback. An argument may be NULL only where its block says
 * so.
 *
 * Errors. Every function that can fail returns dp_status, writes *err (its last parameter, which
 * may be NULL), and leaves its outputs as its block says. The text names file, place and rule;
 * names out of a file are cut at 64 bytes, control bytes escaped. A document never appears in it.
 *
 * Threads. A dp_model is immutable: any number of threads may use it at once. A session or
 * trainer belongs to one thread at a time and owns its worker threads; Linux is asked to keep
 * these off the caller's processor, where there is one for each. There is no global mutable
 * state; the library reads no environment variable and no clock. After fork() only the parent
 * may use objects made before it.
 *
 * Determinism. The same model and text give the same bits for any number of threads, any
 * batch, any kernel row; so does training give its weights. Only BF16 on AMX has other bits.
 *
 * Limits. Every limit is a macro of [0.5], tested one below, at, and one above.
 *
 * Versions. DP_VERSION is major * 10000 + minor * 100 + patch. Structures that you fill begin
 * with struct_size: prepare them with DP_CLEAR(x), set what you want, leave the rest 0, which
 * always means "the default".
 *
 * ============================================================================================
 * [0.5] Options                                                                budget 50 lines
 * ============================================================================================
 *
 *   macro, default                     effect
 *   ---------------------------------  ----------------------------------------------------
 *   DISEASEPRED_IMPLEMENTATION, -      define in exactly one C or C++ file
 *   DISEASEPRED_STATIC, off            everything static: a private copy
 *   DPDEF, extern                      linkage of the public functions
 *   DP_MALLOC(n) DP_FREE(p), malloc    default allocator; both or neither
 *   DP_ASSERT(x), nothing              internal invariants, never input
 *   DP_NO_STDIO, off                   no default files: models come through dp_io
 *   DP_NO_POSIX, on for Windows        default files by C99 stdio; no durability promised;
 *                                      also no threads
 *   DP_NO_THREADS, off                 no thread library; set where gcc's atomics are missing
 *   DP_NO_SIMD, off                    scalar kernels only
 *   DP_NO_AVX2, DP_NO_AVX512, off      leave these kernel rows out
 *   DP_NO_AMX, off                     the same; DP_NO_POSIX also leaves AMX out
 *   DP_SIMD_HEADER, off                intrinsics as C from this header (tests): every row runs
 *   DP_NO_TRAIN, DP_NO_QUANTIZE, off   inference only
 *   DP_ALLOW_FAST_MATH, off            permit -ffast-math; results are then not reproducible
 *   DP_MAX_HEADER_BYTES, 100000000     safetensors header
 *   DP_MAX_TENSORS, 65536              tensors of a file
 *   DP_MAX_JSON_DEPTH, 64              nesting
 *   DP_MAX_JSON_NUMBER, 64             characters of a JSON number
 *   DP_MAX_TEXT_BYTES, 67108864        one document
 *   DP_MAX_THREADS, 1024               worker threads of one session or trainer
 *
 *   fixed limits
 *   ---------------------------------
 *   DP_MAX_NAME_BYTES, 1024            name of a tensor
 *   DP_MAX_DIMS, 8                     dimensions of a tensor
 *   DP_MAX_SHARDS, 1024                files of a sharded checkpoint
 *   DP_MAX_JSON_MEMBERS, 4194304       members of a JSON document
 *   DP_MAX_JSON_STRING, 16777216       bytes of a JSON string
 *   DP_MAX_CONFIG_BYTES, 16777216      config.json, tokenizer_config.json, special_tokens_map.json
 *   DP_MAX_VOCAB, 4194304              vocabulary entries
 *   DP_MAX_VOCAB_ENTRY, 1024           bytes of an entry
 *   DP_MAX_VOCAB_BYTES, 33554432       vocab.txt
 *   DP_MAX_LAYERS, 512                 also DP_MAX_HIDDEN 16384, DP_MAX_HEADS 512,
 *                                      DP_MAX_INNER 65536, DP_MAX_POSITIONS 1048576,
 *                                      DP_MAX_CLASSES 65536, DP_MAX_TYPES 16
 */

#ifndef DISEASEPRED_H
#define DISEASEPRED_H

/* ============================================================================================
 * [A] Interface                                                               budget 910 lines
 * ============================================================================================ */

/* ============================================================================================
 * [A1] Version and linkage                                                     budget 50 lines
 * ============================================================================================ */

/* POSIX, which Windows lacks: under -std=c99 its names are asked for before the first libc header,
 * which [B1] checks. */
#if defined(_WIN32) && !defined(DP_NO_POSIX)
#define DP_NO_POSIX 1
#endif
#if defined(DISEASEPRED_IMPLEMENTATION) && !defined(DP_NO_POSIX) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

#include <stddef.h>
#include <stdint.h>

#define DP_VERSION_MAJOR 0
#define DP_VERSION_MINOR 1
#define DP_VERSION_PATCH 0
#define DP_VERSION (DP_VERSION_MAJOR * 10000 + DP_VERSION_MINOR * 100 + DP_VERSION_PATCH)

#ifdef DISEASEPRED_STATIC
#define DPDEF static
#elif !defined(DPDEF)
#define DPDEF extern
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Prepare a structure that begins with struct_size: all fields 0, the size set. */
#define DP_CLEAR(x) dp_clear(&(x), sizeof(x))

/* dp_clear -- fill an options structure with zeros and set its struct_size.
 *
 *   object  out, any structure of this header whose first field is size_t struct_size
 *   bytes   its size
 *
 * Formula: none. Returns nothing; cannot fail.
 * Memory: none. Threads: reentrant. Tests: tests/test_api.c: api_builds */
DPDEF void dp_clear(void *object, size_t bytes);

/* dp_version -- the version of the compiled implementation.
 *
 * Formula: major * 10000 + minor * 100 + patch; compare with DP_VERSION.
 * Returns the number; cannot fail.
 * Memory: none. Threads: reentrant. Tests: tests/test_api.c: api_builds */
DPDEF int32_t dp_version(void);

/* ============================================================================================
 * [A2] Status and errors                                                       budget 50 lines
 * ============================================================================================ */

/* X(name, text): the only list of codes. */
#define DP_STATUS_LIST(X)                                                                        \
    X(DP_OK, "no error")                                                                         \
    X(DP_E_ARG, "an argument is not allowed")                                                    \
    X(DP_E_MEMORY, "out of memory")                                                              \
    X(DP_E_IO, "a file cannot be read or written")                                               \
    X(DP_E_NOT_FOUND, "a file does not exist")                                                   \
    X(DP_E_FORMAT, "bytes break a rule of their format")                                         \
    X(DP_E_LIMIT, "a limit is exceeded")                                                         \
    X(DP_E_UNSUPPORTED, "the feature is known but not supported")                                \
    X(DP_E_SPACE, "the array given is too small")                                                \
    X(DP_E_ISA, "the instruction set asked for is not available")                                \
    X(DP_E_DIVERGED, "a number is not finite or a search did not converge")                      \
    X(DP_E_STOPPED, "stopped on request of the callback")

#define DP__STATUS_ENUM(name, text) name,
typedef enum dp_status { DP_STATUS_LIST(DP__STATUS_ENUM) DP_STATUS_COUNT } dp_status;
#undef DP__STATUS_ENUM

#define DP_NO_PLACE UINT64_MAX /* dp_error.place when no byte of a file is meant */

/* Filled on failure. code says what to do, rule and place say what was broken where (rule ids
 * are those of the parser's banner), text is the whole sentence for a person. */
typedef struct dp_error {
    dp_status code;
    char      rule[12]; /* "S9"; empty when no rule of a format is meant */
    uint64_t  place;    /* byte offset in the file, or DP_NO_PLACE */
    char      file[64]; /* name of the file, empty when none is meant */
    char      text[248];
} dp_error;

/* dp_status_text -- a status as words, for programs that have no dp_error at hand.
 *
 *   status  any value
 *
 * Formula: none. Returns a constant string, "unknown status" for values outside the list.
 * Memory: none. Threads: reentrant. Tests: tests/test_api.c: api_status */
DPDEF const char *dp_status_text(dp_status status);

/* ============================================================================================
 * [A3] Environment                                                             budget 60 lines
 * ============================================================================================ */

/* Instruction sets in order of preference. A cap allows everything up to it. */
typedef enum dp_isa {
    DP_ISA_AUTO = 0,
    DP_ISA_SCALAR,
    DP_ISA_AVX2,
    DP_ISA_AVX_VNNI,
    DP_ISA_AVX512,
    DP_ISA_AVX512_VNNI,
    DP_ISA_AVX512_BF16,
    DP_ISA_AMX,
    DP_ISA_COUNT
} dp_isa;

/* All set, or all NULL: then DP_MALLOC and DP_FREE, as the system's file hooks use in any case.
 * free gets the size back. */
typedef struct dp_alloc {
    void *(*alloc)(void *ctx, size_t bytes, size_t align); /* NULL when there is none */
    void (*free)(void *ctx, void *p, size_t bytes);
    void *ctx;
} dp_alloc;

/* Files, as streams over a directory handle; all set, or all NULL: the system's. A name is one path
 * component; what is missing is DP_E_NOT_FOUND; pread gives all bytes or fails. A file under
 * create() is temporary until commit() makes it durable under its name; abort() removes it. */
typedef struct dp_io {
    dp_status (*open_dir)(void *ctx, const char *path, int32_t make, void **dir);
    void (*close_dir)(void *ctx, void *dir);
    dp_status (*open)(void *ctx, void *dir, const char *name, void **file, uint64_t *bytes);
    dp_status (*pread)(void *ctx, void *file, uint64_t offset, void *to, size_t bytes);
    void (*close)(void *ctx, void *file);
    dp_status (*create)(void *ctx, void *dir, const char *name, void **file);
    dp_status (*append)(void *ctx, void *file, const void *data, size_t bytes);
    dp_status (*commit)(void *ctx, void *file); /* the handle is gone, whatever it returns */
    void (*abort)(void *ctx, void *file);
    dp_status (*remove)(void *ctx, void *dir, const char *name);
    dp_status (*free_space)(void *ctx, void *dir, uint64_t *bytes);
    void *ctx;
} dp_io;

#define DP_LOG_INFO 1
#define DP_LOG_WARNING 2

typedef struct dp_env {
    size_t   struct_size;
    dp_alloc alloc;
    dp_io    io;
    void (*log)(void *ctx, int32_t level, const char *line); /* NULL: silent */
    void    *log_ctx;
    dp_isa   isa_cap;      /* DP_ISA_AUTO: the best of this CPU; a level it lacks: DP_E_ISA */
    uint32_t isa_deny;     /* bit 1 << level leaves that level out */
    int32_t  threads;      /* 0 = 1; same bits for every value */
    int32_t  follow_links; /* 1: links inside a model directory are followed */
} dp_env;

/* ============================================================================================
 * [A4] Machine                                                                 budget 50 lines
 * ============================================================================================ */

/* dp_isa_best -- the highest level that this CPU, system and build can run.
 *
 * Formula: CPUID and XCR0 ([E3]); Intel SDM volume 1, 13.3 and 14.3.
 * Returns a level, at least DP_ISA_SCALAR; cannot fail.
 * Memory: none. Threads: reentrant. Tests: tests/test_gemm.c: gemm_select */
DPDEF dp_isa dp_isa_best(void);

/* dp_isa_name -- the name of a level: "scalar", "avx2", "avx-vnni", "avx512",
 * "avx512-vnni", "avx512-bf16", "amx".
 *
 *   isa  any value
 *
 * Formula: none. Returns a constant string; "auto" for DP_ISA_AUTO, else "unknown".
 * Memory: none. Threads: reentrant. Tests: tests/test_api.c: api_machine */
DPDEF const char *dp_isa_name(dp_isa isa);

/* dp_isa_missing -- why a level cannot run here.
 *
 *   isa  a level
 *
 * Formula: none. Returns NULL when it runs; else a constant sentence ("the CPU has no AVX-512F").
 * Memory: none. Threads: reentrant. Tests: tests/test_api.c: api_machine */
DPDEF const char *dp_isa_missing(dp_isa isa);

/* dp_selftest -- run a small built-in model and give the digest of everything it computed.
 *
 *   env     hooks, level and threads to test; NULL: defaults
 *   digest  out, [65] hexadecimal SHA-256 with its terminator
 *
 * Formula: SHA-256 over the bits of the logits of an FP32 model, of the same in INT8, and of the
 * same after two training steps (parts that the build leaves out are left out). The digest of a
 * full build is the same on every machine, level and number of threads; the README states it.
 * Returns DP_OK, or what opening, training or predicting returned (digest is then empty).
 * Memory: below 4 MB and 4 MB a thread through env, all freed.
 * Threads: reentrant; starts env->threads workers for its duration.
 * Tests: tests/test_api.c: api_selftest */
DPDEF dp_status dp_selftest(const dp_env *env, char digest[65], dp_error *err);

/* ============================================================================================
 * [A5] Text                                                                   budget 160 lines
 * ============================================================================================ */

typedef struct dp_text { /* one document; b NULL: no second part */
    const char *a;
    size_t      a_bytes;
    const char *b;
    size_t      b_bytes;
} dp_text;

typedef enum dp_case { DP_CASE_MODEL = 0, DP_CASE_LOWER, DP_CASE_KEEP } dp_case;

typedef enum dp_truncation {
    DP_TRUNCATE_LONGEST_FIRST = 0,
    DP_TRUNCATE_FIRST,
    DP_TRUNCATE_SECOND,
    DP_TRUNCATE_NEVER /* a sequence that is too long is DP_E_LIMIT */
} dp_truncation;

typedef struct dp_encode_options {
    size_t        struct_size;
    int32_t       max_tokens; /* 0: min(512, positions of the model) */
    dp_truncation truncation;
    int32_t       truncate_left; /* 1: tokens are cut off at the beginning */
    int32_t       parse_special; /* 1: "[SEP]" in a document is the special token */
    dp_case       letter_case;
} dp_encode_options;

typedef struct dp_encoding {
    int32_t  *ids;   /* [cap] caller's arrays; types, begin, end may be NULL */
    int32_t  *types; /* [cap] 0 or 1 */
    uint64_t *begin; /* [cap] first byte in its document part; specials: 0, 0 */
    uint64_t *end;   /* [cap] byte behind the last */
    size_t    cap;
    size_t    n;       /* out: tokens written, or needed when DP_E_SPACE */
    size_t    total;   /* out: tokens before truncation, specials included */
    size_t    unknown; /* out: [UNK] among the n */
    size_t    invalid; /* out: bad UTF-8 sequences replaced by U+FFFD */
} dp_encoding;

typedef struct dp_model   dp_model;   /* weights, tokenizer, labels; immutable, share it */
typedef struct dp_session dp_session; /* working memory of one thread at a time */
typedef struct dp_trainer dp_trainer; /* its own weights and Adam state */

/* dp_encode -- turn a document into token ids.
 *
 *   model    its vocabulary and case rule are used
 *   text     UTF-8, one or two parts; bad sequences count as U+FFFD; may be empty
 *   options  NULL: defaults
 *   out      in: arrays and cap; out: the counts, and the arrays filled up to n
 *
 * Formula: BERT normalization and WordPiece as Hugging Face tokenizers 0.21.4 does them: clean,
 * space out CJK, NFD without Mn, lower-case, split, longest match first ([D]). Offsets are theirs
 * as well, but where canonical order moves a combining character that stays across one that is
 * dropped: theirs may then be the dropped one's bytes, ours are those of what stays.
 * Returns DP_OK; DP_E_SPACE when cap is too small (out->n is then what is needed, the arrays are
 * untouched); DP_E_LIMIT when the document exceeds DP_MAX_TEXT_BYTES, or max_tokens and may not be
 * cut, or not there, so far; DP_E_ARG for max_tokens above the model's positions; DP_E_MEMORY.
 * Memory: a scratch buffer bounded by max_tokens, freed on return and wiped first.
 * Threads: any number at once. Tests: tests/test_text.c: text_*, tests/test_api.c: api_encode */
DPDEF dp_status dp_encode(const dp_model *model, const dp_text *text,
                          const dp_encode_options *options, dp_encoding *out, dp_error *err);

/* Pull parser for JSON (RFC 8259, strict, no recursion); memory is the caller's text. */
typedef enum dp_json_kind {
    DP_JSON_END = 0, /* the document is complete */
    DP_JSON_OBJECT,
    DP_JSON_OBJECT_END,
    DP_JSON_ARRAY,
    DP_JSON_ARRAY_END,
    DP_JSON_KEY,
    DP_JSON_STRING,
    DP_JSON_NUMBER,
    DP_JSON_TRUE,
    DP_JSON_FALSE,
    DP_JSON_NULL
} dp_json_kind;

typedef struct dp_json {
    const char  *text;
    size_t       bytes;
    size_t       at;     /* next byte */
    size_t       token;  /* first byte of the present token */
    size_t       length; /* its bytes; strings and keys without the quotes, escapes as written */
    dp_json_kind kind;
    size_t       members;
    int32_t      depth;
    int32_t      state;
    uint64_t     in_object; /* bit d: level d is an object */
} dp_json;

/* dp_json_begin -- start reading a JSON document.
 *
 *   json         out, the reader
 *   text, bytes  UTF-8; must stay as it is while the reader is in use
 *
 * Formula: RFC 8259, strict: valid UTF-8, no byte order mark, nothing behind the value.
 * Returns nothing; the first dp_json_next reports what is wrong.
 * Memory: none. Threads: one at a time for each reader. Tests: tests/test_parse.c: json_* */
DPDEF void dp_json_begin(dp_json *json, const char *text, size_t bytes);

/* dp_json_next -- advance to the next token; json->kind says what it is.
 *
 *   json  the reader
 *   err   out, may be NULL; place is the byte offset, rule one of J1 to J6
 *
 * Formula: the grammar of RFC 8259 as a state machine with a stack of DP_MAX_JSON_DEPTH bits.
 * Returns DP_OK (kind is DP_JSON_END behind the last token, also when called again); DP_E_FORMAT,
 * DP_E_LIMIT; DP_E_FORMAT after any error. Duplicate keys are for whoever keeps the keys.
 * Memory: none. Threads: as dp_json_begin. Tests: tests/test_parse.c: json_* */
DPDEF dp_status dp_json_next(dp_json *json, dp_error *err);

/* dp_json_skip -- pass over the value that begins at the present token.
 *
 *   json  the reader, on a value or on a key (then the key's value is passed over)
 *
 * Formula: none. Returns DP_OK with the reader on the value's last token; else as dp_json_next.
 * Memory: none. Threads: as dp_json_begin. Tests: tests/test_parse.c: json_* */
DPDEF dp_status dp_json_skip(dp_json *json, dp_error *err);

/* dp_json_string -- the present key or string with its escapes resolved.
 *
 *   json   the reader, on a DP_JSON_KEY or DP_JSON_STRING
 *   to     out, [cap] UTF-8 with a terminating zero; may be NULL when cap is 0
 *   cap    room, terminator included
 *   bytes  out, length without the terminator (also when DP_E_SPACE); may be NULL
 *
 * Formula: RFC 8259, section 7; a lone surrogate escape in a value becomes U+FFFD.
 * Returns DP_OK; DP_E_SPACE; DP_E_FORMAT when the token is not a string.
 * Memory: none. Threads: as dp_json_begin. Tests: tests/test_parse.c: json_* */
DPDEF dp_status dp_json_string(const dp_json *json, char *to, size_t cap, size_t *bytes,
                               dp_error *err);

/* dp_json_integer -- the present number as an integer within bounds.
 *
 *   json      the reader, on a DP_JSON_NUMBER
 *   min, max  the range allowed, both ends included
 *   to        out
 *
 * Formula: decimal digits; "2.0", "2e0" and "-0" are refused.
 * Returns DP_OK; DP_E_FORMAT (no integer, or out of range): *to is then untouched.
 * Memory: none. Threads: as dp_json_begin. Tests: tests/test_parse.c: json_* */
DPDEF dp_status dp_json_integer(const dp_json *json, int64_t min, int64_t max, int64_t *to,
                                dp_error *err);

/* dp_json_real -- the present number as the nearest double.
 *
 *   json  the reader, on a DP_JSON_NUMBER
 *   to    out
 *
 * Formula: correctly rounded (ties to even), without a locale.
 * Returns DP_OK; DP_E_FORMAT (no number, or it overflows): *to is then untouched.
 * Memory: none. Threads: as dp_json_begin.
 * Tests: tests/test_parse.c: json_*, tests/test_base.c: number_* */
DPDEF dp_status dp_json_real(const dp_json *json, double *to, dp_error *err);

/* ============================================================================================
 * [A6] Model                                                                  budget 150 lines
 * ============================================================================================ */

typedef enum dp_problem { DP_SINGLE_LABEL = 0, DP_MULTI_LABEL, DP_REGRESSION } dp_problem;

typedef struct dp_model_info {
    size_t     struct_size;
    int32_t    layers, hidden, heads, inner, vocab, positions, types, classes;
    dp_problem problem;
    int32_t    lower_case;    /* 1: texts are lower-cased and accents stripped */
    int32_t    cased_vocab;   /* 1: the vocabulary has capital letters (warn if lower_case) */
    int32_t    int8_linears;  /* Linears stored as INT8 */
    int32_t    int8_tables;   /* embedding tables stored as INT8 */
    int32_t    bf16_linears;  /* Linears rounded to bfloat16 */
    int32_t    bf16_native;   /* 1: by bf16 instructions of this CPU; 0: widened, or in C */
    int32_t    new_tensors;   /* tensors that the files lacked and that were initialised */
    int32_t    ignored_tensors;
    uint64_t   parameters;
    uint64_t   weight_bytes;  /* in memory */
    float      dropout;
} dp_model_info;

/* What the Linears of the layers compute in: bf16 rounds their weights and inputs to bfloat16 and
 * adds up in FP32. So does attention, if all of them are bf16 and a head's width is even, with
 * queries, keys, values and probabilities. Everything else stays FP32. */
typedef enum dp_dtype { DP_F32 = 0, DP_BF16 } dp_dtype;

typedef struct dp_open_options {
    size_t   struct_size;
    int32_t  new_head;       /* 1: a missing pooler or classifier is initialised (train) */
    dp_case  letter_case;
    uint64_t seed;           /* of new tensors */
    const char *const *labels; /* [label_count] replaces labels and classifier; NULL: keep */
    int32_t  label_count;
    dp_dtype dtype;          /* of Linears that are not INT8 */
} dp_open_options;

/* A new model: config.json text, vocabulary text, labels. Weights are N(0, initializer_range). */
typedef struct dp_model_spec {
    size_t      struct_size;
    const char *config;
    size_t      config_bytes;
    const char *vocab;
    size_t      vocab_bytes;
    const char *const *labels; /* [label_count] */
    int32_t     label_count;
    dp_case     letter_case;
    uint64_t    seed;
} dp_model_spec;

/* dp_model_open -- load a model directory in Hugging Face layout, FP32 or INT8.
 *
 *   env  hooks and machine choices, stored in the model; NULL: defaults
 *   dir  path: config.json, model.safetensors (or shards with an index), vocab.txt, and, if
 *        present, tokenizer_config.json and special_tokens_map.json
 *   out  out, the model; NULL on failure
 *
 * Formula: none; rules S, F, J, V of the banners [C2], [C3], [C5], [D3]. Weights are packed for
 * the kernel row of this CPU as they are read.
 * Returns DP_OK; DP_E_NOT_FOUND, DP_E_IO, DP_E_FORMAT, DP_E_LIMIT, DP_E_UNSUPPORTED with file,
 * place and rule; DP_E_ISA when env asks for a level that is not there; DP_E_ARG; DP_E_MEMORY.
 * Memory: about 4 bytes a parameter (1 when INT8), held until dp_model_close. Threads: reentrant.
 * Tests: tests/test_api.c: api_open */
DPDEF dp_status dp_model_open(const dp_env *env, const char *dir, dp_model **out, dp_error *err);

/* dp_model_open_with -- dp_model_open with options, as a trainer needs them.
 *
 *   env, dir  as in dp_model_open
 *   options   new_head: a missing pooler or classifier is initialised N(0, initializer_range);
 *             letter_case: overrides the model's rule; labels [label_count]: replace the model's,
 *             and a classifier of another size or order of labels is initialised anew;
 *             dtype: DP_BF16 halves the memory of the layers (saved, the model is FP32 again)
 *   out       out, the model; NULL on failure
 *
 * Formula: none. Returns as dp_model_open; DP_E_ARG for a dtype that is none, for labels without
 * label_count or the reverse, or that a config.json could not hold (not UTF-8, a control character,
 * twice the same); DP_E_LIMIT for one over 1,024 bytes, or all over DP_MAX_CONFIG_BYTES.
 * Memory: as dp_model_open. Threads: reentrant.
 * Tests: tests/test_api.c: api_open, api_new_head */
DPDEF dp_status dp_model_open_with(const dp_env *env, const char *dir,
                                   const dp_open_options *options, dp_model **out, dp_error *err);

/* dp_model_new -- a model with new weights from a configuration and a vocabulary.
 *
 *   env   as in dp_model_open
 *   spec  config.json and vocab.txt as bytes, labels, case, seed; labels win over the config's
 *   out   out, the model; NULL on failure
 *
 * Formula: weights N(0, initializer_range), LayerNorm 1 and 0, biases 0; a pure function of spec,
 * equal on every machine.
 * Returns DP_OK; DP_E_FORMAT, DP_E_LIMIT, DP_E_UNSUPPORTED with place and rule; DP_E_ARG;
 * DP_E_ISA; DP_E_MEMORY.
 * Memory: about 4 bytes a parameter. Threads: reentrant. Tests: tests/test_api.c: api_new* */
DPDEF dp_status dp_model_new(const dp_env *env, const dp_model_spec *spec, dp_model **out,
                             dp_error *err);

/* dp_model_save -- write a model directory that Hugging Face transformers opens.
 *
 *   model  any model
 *   dir    path; made if missing; files of the same names are replaced
 *
 * Formula: none. model.safetensors, vocab.txt, tokenizer_config.json, special_tokens_map.json and,
 * last, config.json, each under a temporary name, then fsync and rename. An old config.json goes
 * when the weights are written and not yet renamed: a directory with a config.json is complete.
 * With it go an old added_tokens.json, tokenizer.json and model.safetensors.index.json. The same
 * model gives the same bytes. INT8 models: compressed-tensors, int-quantized.
 * Returns DP_OK; DP_E_NOT_FOUND (no parent); DP_E_FORMAT (dir is a file); DP_E_ARG (NULL); DP_E_IO;
 * DP_E_MEMORY. Files not renamed are the old.
 * Memory: 48 rows of the widest tensor, and the table of tensors.
 * Threads: any number at once on one model, into different directories.
 * Tests: tests/test_api.c: api_save */
DPDEF dp_status dp_model_save(const dp_model *model, const char *dir, dp_error *err);

/* dp_model_close -- free a model.
 *
 *   model  may be NULL; no session or trainer made from it may be in use any more
 *
 * Formula: none. Returns nothing; cannot fail.
 * Memory: all of the model's is freed. Threads: the last user calls it once.
 * Tests: tests/test_api.c: api_open */
DPDEF void dp_model_close(dp_model *model);

/* dp_model_get_info -- geometry and state of a model.
 *
 *   model  any model
 *   info   out, every field
 *
 * Formula: none. Returns nothing; cannot fail.
 * Memory: none. Threads: any number at once. Tests: tests/test_api.c: api_open */
DPDEF void dp_model_get_info(const dp_model *model, dp_model_info *info);

/* dp_model_label -- the name of a class.
 *
 *   model  any model
 *   cls    0 <= cls < classes
 *
 * Formula: none. Returns a UTF-8 string, borrowed until the model is closed; NULL: no such class.
 * Memory: none. Threads: any number at once. Tests: tests/test_api.c: api_labels */
DPDEF const char *dp_model_label(const dp_model *model, int32_t cls);

/* dp_model_find_label -- the class of a name.
 *
 *   model             any model
 *   name, name_bytes  compared byte for byte
 *
 * Formula: none. Returns the class, or -1 when no label has that name.
 * Memory: none. Threads: any number at once. Tests: tests/test_api.c: api_labels */
DPDEF int32_t dp_model_find_label(const dp_model *model, const char *name, size_t name_bytes);

/* ============================================================================================
 * [A7] Prediction                                                             budget 110 lines
 * ============================================================================================ */

typedef struct dp_session_options {
    size_t  struct_size;
    int32_t max_tokens;   /* 0: min(512, positions) */
    int32_t batch_tokens; /* tokens computed together; 0: chosen */
    uint64_t memory_limit; /* bytes that dp_session_memory may ever give; 0: none */
    int32_t attention32;   /* 1: attention in float32, where the model is INT8 or bf16, too */
    dp_case letter_case;
} dp_session_options;

typedef struct dp_prediction {
    int32_t best;      /* most probable class; regression: 0 */
    int32_t truncated; /* 1: tokens were cut off */
    size_t  tokens;    /* computed */
    size_t  total;     /* before truncation */
    size_t  unknown;   /* [UNK] */
    size_t  invalid;   /* bad UTF-8 sequences */
} dp_prediction;

/* dp_session_open -- working memory and worker threads for predictions.
 *
 *   model    must outlive the session
 *   options  NULL: defaults
 *   out      out, the session; NULL on failure
 *
 * Formula: none. Returns DP_OK; DP_E_ARG (max_tokens not from 3 to the model's positions, another
 * option out of range), DP_E_LIMIT (memory_limit is too little to begin with), DP_E_MEMORY. Threads
 * that cannot be started are done without.
 * Memory: grows with the batches seen, at most to options->memory_limit; a call allocates only when
 * it has more bytes, tokens or texts, or a longer text, than any before.
 * Threads: a session belongs to one thread at a time; it owns env.threads - 1 workers.
 * Tests: tests/test_api.c: api_session, api_no_allocation, api_memory_limit */
DPDEF dp_status dp_session_open(const dp_model *model, const dp_session_options *options,
                                dp_session **out, dp_error *err);

/* dp_predict -- the probabilities of one text.
 *
 *   session           from dp_session_open
 *   text, text_bytes  UTF-8, may be empty
 *   prob              out, [K]: softmax (single label), sigmoid (multi-label) or the value itself
 *   prob_cap          room in prob, at least K
 *   info              out, may be NULL
 *
 * Formula: softmax(classifier(tanh(pooler(BERT(text)[CLS])))) with exact erf-GELU where the model
 * says gelu (before INT8 codes within 1.14e-5); "BERT" (Devlin and others, 2018) and [F].
 * Returns DP_OK; DP_E_SPACE (prob_cap below K: prob is untouched); DP_E_LIMIT (over
 * DP_MAX_TEXT_BYTES, or this text alone takes more than memory_limit), DP_E_ARG (bytes at NULL),
 * DP_E_MEMORY: prob is then all zeros.
 * Memory: the session's. Threads: as the session. Tests: tests/test_api.c: api_predict */
DPDEF dp_status dp_predict(dp_session *session, const char *text, size_t text_bytes, float *prob,
                           size_t prob_cap, dp_prediction *info, dp_error *err);

/* dp_predict_batch -- the probabilities of several documents.
 *
 *   session  from dp_session_open
 *   texts    [n] documents, one or two parts each
 *   n        rows; 0 is allowed
 *   prob     out, [n, K], may be NULL
 *   logits   out, [n, K] raw outputs of the classifier, may be NULL
 *   infos    out, [n], may be NULL
 *
 * Formula: as dp_predict. Only real tokens are computed: a row's bits do not depend on n, on its
 * neighbours or on any padding.
 * Returns DP_OK; DP_E_ARG (as dp_predict; pairs need a model of two token types), DP_E_LIMIT,
 * DP_E_MEMORY: prob and logits are then all zeros.
 * Memory: the session's. Threads: as the session. Tests: tests/test_api.c: api_batch */
DPDEF dp_status dp_predict_batch(dp_session *session, const dp_text *texts, size_t n,
                                 float *prob, float *logits, dp_prediction *infos,
                                 dp_error *err);

/* dp_predict_ids -- one sequence of token ids instead of a text.
 *
 *   session       from dp_session_open
 *   ids           [n] 0 <= id < vocabulary; specials included
 *   types         [n] segment of each token; NULL: all 0
 *   n             1 <= n <= positions
 *   prob, logits  out, [K], may be NULL
 *   pooled        out, [C] output of the pooler, may be NULL
 *
 * Formula: as dp_predict.
 * Returns DP_OK; DP_E_ARG for an id, type or length out of range; DP_E_LIMIT; DP_E_MEMORY.
 * Memory: the session's. Threads: as the session. Tests: tests/test_api.c: api_ids */
DPDEF dp_status dp_predict_ids(dp_session *session, const int32_t *ids, const int32_t *types,
                               size_t n, float *prob, float *logits, float *pooled,
                               dp_error *err);

/* dp_session_memory -- bytes of working memory that a session holds now.
 *
 *   session  from dp_session_open
 *
 * Formula: none. Returns the number; cannot fail.
 * Memory: none. Threads: as the session. Tests: tests/test_api.c: api_memory_limit */
DPDEF uint64_t dp_session_memory(const dp_session *session);

/* dp_session_close -- wipe and free a session, end its workers.
 *
 *   session  may be NULL
 *
 * Formula: none. Returns nothing; cannot fail.
 * Memory: all of the session's; what held text, tokens or activations is overwritten first.
 * Threads: as the session. Tests: tests/test_api.c: api_session */
DPDEF void dp_session_close(dp_session *session);

/* ============================================================================================
 * [A8] Training                                                               budget 170 lines
 * ============================================================================================ */

typedef struct dp_dataset { /* rows of documents with labels; everything is the caller's */
    size_t         struct_size;
    size_t         rows;
    const dp_text *texts;   /* [rows] */
    const int32_t *labels;  /* [rows] single label; else NULL */
    const float   *targets; /* [rows, K] multi-label and regression; else NULL */
} dp_dataset;

typedef enum dp_optimizer { DP_ADAM = 0, DP_ADAMW } dp_optimizer;
typedef enum dp_schedule { DP_CONSTANT = 0, DP_LINEAR } dp_schedule;

typedef struct dp_train_progress {
    size_t struct_size;
    int32_t epoch;           /* from 1 */
    int32_t epoch_done;      /* 1: the figures below stand for the whole epoch */
    uint64_t step, steps;    /* optimizer steps done and to do, over all epochs */
    uint64_t rows, tokens;   /* since the start of this call */
    double loss;             /* mean over rows: of the step, or of the epoch, without rows of steps
                              * that were not applied */
    double accuracy;         /* of the training rows as they were computed; the same */
    double valid_loss, valid_accuracy, valid_f1; /* NaN when there is no validation set */
    double grad_norm;        /* before clipping */
    double lr;
    uint64_t valid_rows;     /* not 0: so many are measured, validation goes on; the figures above
                              * are then of before */
} dp_train_progress;

typedef struct dp_train_options {
    size_t       struct_size;
    int32_t      epochs;       /* 0: 3; use dp_trainer_model for the start */
    int32_t      batch_rows;   /* 0: 30 */
    int32_t      accumulate;   /* 0: 1; micro-batches of a step */
    int32_t      max_tokens;   /* 0: 64 */
    double       lr;           /* 0: 1e-5 */
    dp_optimizer optimizer;
    dp_schedule  schedule;
    double       beta1, beta2, eps; /* 0: 0.9, 0.999, 1e-8 */
    double       weight_decay;
    double       warmup;       /* steps from 1 up, fraction of all steps below 1 */
    double       grad_norm;    /* 0: 10; below 0: no clipping */
    double       dropout;      /* 0: the model's; below 0: none */
    uint64_t     seed;
    int32_t      resume;       /* 1: dp_train goes on where the trainer stands */
    dp_dtype     dtype;        /* DP_BF16: the products of the layers, forward and backward */
    int32_t (*progress)(void *ctx, const dp_train_progress *now); /* not 0: stop */
    void        *progress_ctx;
} dp_train_options;

typedef struct dp_train_report {
    size_t   struct_size;
    int32_t  epochs;
    uint64_t steps, rows, tokens, skipped_steps;
    double   loss, accuracy, valid_loss, valid_accuracy, valid_f1;
} dp_train_report;

#ifndef DP_NO_TRAIN
/* dp_trainer_open -- a trainer with its own copy of a model's weights.
 *
 *   start    FP32 model; may be closed afterwards
 *   options  NULL: defaults (3 epochs, batches of 30, 64 tokens, Adam, lr 1e-5, norm 10)
 *   out      out, the trainer; NULL on failure
 *
 * Formula: none. With dtype DP_BF16 the matrix products of the layers' Linears round their operands
 * to bfloat16 (y = x W^T, dx = dy W, dW = dy^T x; validation, too) and add up in FP32; the weights
 * and all else stay FP32, so no loss is scaled. The same bits on every row but AMX.
 * Returns DP_OK; DP_E_ARG (an option), DP_E_UNSUPPORTED (INT8 model), DP_E_MEMORY.
 * Memory: 16 bytes a parameter (weight, gradient, two moments), and activations of a batch.
 * Threads: a trainer belongs to one thread at a time; it owns env.threads - 1 workers.
 * Tests: tests/test_learn.c: trainer_* */
DPDEF dp_status dp_trainer_open(const dp_model *start, const dp_train_options *options,
                                dp_trainer **out, dp_error *err);

/* dp_train_step -- one optimizer step over a batch.
 *
 *   trainer  from dp_trainer_open
 *   batch    rows of one step
 *   loss     out, mean over the rows, before the step; may be NULL
 *
 * Formula: backward pass [F4], clipping to grad_norm, Adam or AdamW [G1].
 * Returns DP_OK; DP_E_ARG for no rows or a label out of range; DP_E_DIVERGED when the loss, the
 * gradient or an updated weight is not finite (the step is then not applied); DP_E_MEMORY.
 * Memory: the trainer's.
 * Threads: as the trainer; same bytes of weights for any number of workers.
 * Tests: tests/test_learn.c: adam_*, trainer_* */
DPDEF dp_status dp_train_step(dp_trainer *trainer, const dp_dataset *batch, double *loss,
                              dp_error *err);

/* dp_train -- the training loop: epochs, shuffling, batches, validation, progress.
 *
 *   trainer  from dp_trainer_open, or from dp_trainer_load with options.resume
 *   train    rows to learn from
 *   valid    rows to measure after each epoch, dropout off; NULL: none
 *   report   out, may be NULL
 *
 * Formula: the order of rows is a function of seed and epoch alone; the last batch of an epoch
 * may be smaller; a resumed run gives byte-equal weights (with DP_BF16 on the same kernel row).
 * Returns DP_OK; DP_E_STOPPED when the callback asked for it (the trainer can be saved and goes
 * on from there); DP_E_ARG (no rows, a label out of range, K13: other rows than before, K14: the
 * trainer is in a later epoch than options.epochs);
 * DP_E_LIMIT; DP_E_DIVERGED after three steps in a row that were not finite, or three and more
 * than one in a hundred; DP_E_MEMORY.
 * Memory: the trainer's; for each row of both 12 bytes, and 8 for each of its bytes or for
 * max_tokens, whichever is less. Tokens are wiped at the end.
 * Threads: as the trainer. Tests: tests/test_learn.c: train_*, resume_* */
DPDEF dp_status dp_train(dp_trainer *trainer, const dp_dataset *train, const dp_dataset *valid,
                         dp_train_report *report, dp_error *err);

/* dp_trainer_save -- write a checkpoint durably.
 *
 *   trainer    any
 *   dir, name  path of an existing directory; one path component
 *
 * Formula: none; format [G3], rules K. Temporary name, fsync, rename, fsync of the directory:
 * whatever happens, the file is the old one or the new one.
 * Returns DP_OK only when the file is durable; DP_E_DIVERGED when a weight is not finite (nothing
 * is written); DP_E_NOT_FOUND (no such directory); DP_E_FORMAT (a bad name); DP_E_IO; DP_E_MEMORY.
 * Memory: a small buffer. Threads: as the trainer. Tests: tests/test_learn.c: checkpoint_* */
DPDEF dp_status dp_trainer_save(dp_trainer *trainer, const char *dir, const char *name,
                                dp_error *err);

/* dp_trainer_load -- go on from a checkpoint.
 *
 *   trainer    opened from a model of the same geometry, labels and vocabulary
 *   dir, name  path; one path component
 *
 * Formula: none; format [G3], rules K.
 * Returns DP_OK; DP_E_FORMAT with rule and byte for a torn or foreign file, or one of another
 * model or other options (the trainer is then as before); DP_E_NOT_FOUND; DP_E_IO; DP_E_MEMORY.
 * Memory: as the trainer once more while it reads. Threads: as the trainer.
 * Tests: tests/test_learn.c: checkpoint_*, resume_* */
DPDEF dp_status dp_trainer_load(dp_trainer *trainer, const char *dir, const char *name,
                                dp_error *err);

/* dp_trainer_step -- optimizer steps so far, those not applied included.
 *
 *   trainer  any
 *
 * Formula: none. Returns the number; cannot fail.
 * Memory: none. Threads: as the trainer. Tests: tests/test_learn.c: resume_* */
DPDEF uint64_t dp_trainer_step(const dp_trainer *trainer);

/* dp_trainer_model -- the present weights as a new model.
 *
 *   trainer  any
 *   out      out, an independent model; NULL on failure
 *
 * Formula: none; its dropouts are the trainer's. Returns DP_OK; DP_E_MEMORY.
 * Memory: as dp_model_open. Threads: as the trainer. Tests: tests/test_learn.c: trainer_* */
DPDEF dp_status dp_trainer_model(const dp_trainer *trainer, dp_model **out, dp_error *err);

/* dp_trainer_close -- wipe and free a trainer, end its workers.
 *
 *   trainer  may be NULL
 *
 * Formula: none. Returns nothing; cannot fail.
 * Memory: all of the trainer's. Threads: as the trainer. Tests: tests/test_learn.c: trainer_* */
DPDEF void dp_trainer_close(dp_trainer *trainer);
#endif

/* ============================================================================================
 * [A9] Quantization                                                            budget 50 lines
 * ============================================================================================ */

typedef enum dp_approach { DP_DYNAMIC = 0, DP_STATIC, DP_AUTO, DP_QAT } dp_approach;
/* FULL: all codes in [-127, 127]. PAIRS, QUADS: such that no sum of two, or four, products leaves
 * 16 bits ([E10], dp__weights_hold): less exact, faster on CPUs without VNNI, the same elsewhere.
 * A model of any of them gives the same answer on every CPU. */
typedef enum dp_weights { DP_WEIGHTS_FULL = 0, DP_WEIGHTS_PAIRS, DP_WEIGHTS_QUADS } dp_weights;

typedef struct dp_quant_options {
    size_t      struct_size;
    dp_approach approach;   /* only DP_DYNAMIC so far; others: DP_E_UNSUPPORTED */
    dp_weights  weights;
    int32_t     embeddings; /* 1: the three embedding tables become INT8 as well */
} dp_quant_options;

typedef struct dp_quant_report {
    size_t   struct_size;
    int32_t  linears, tables;          /* made INT8 */
    uint64_t bytes_before, bytes_after; /* of the weights: all as FP32; as dp_model_save stores */
    double   sqnr_db;                  /* signal to quantization noise of all INT8 weights */
    double   worst_db;                 /* of the worst tensor */
    double   full_db;                  /* sqnr_db that DP_WEIGHTS_FULL would have */
} dp_quant_report;

#ifndef DP_NO_QUANTIZE
/* dp_quantize -- an INT8 copy of a model.
 *
 *   model        FP32 model; may be closed afterwards
 *   calibration  rows for static ranges and for the accuracy criterion; not used by DP_DYNAMIC
 *   options      NULL: dynamic, full-range weights, embeddings kept
 *   out          out, the INT8 model; NULL on failure
 *   report       out, may be NULL
 *
 * Formula: weights symmetric per output channel, q = round(w / s), s = absmax / 127; PAIRS and
 * QUADS: 1 to 3.2 times that, the best of a coarse search over the codes of [G4]; activations
 * symmetric per token at run time; sums exact in int32 ([G4]). The classifier stays FP32.
 * Returns DP_OK; DP_E_UNSUPPORTED for an approach of a later version, or a model that is INT8
 * already; DP_E_ARG; DP_E_MEMORY.
 * Memory: as dp_model_open of an INT8 model. Threads: reentrant.
 * Tests: tests/test_api.c: api_quantize */
DPDEF dp_status dp_quantize(const dp_model *model, const dp_dataset *calibration,
                            const dp_quant_options *options, dp_model **out,
                            dp_quant_report *report, dp_error *err);
#endif

/* ============================================================================================
 * [A10] Evaluation and explanation                                             budget 60 lines
 * ============================================================================================ */

typedef struct dp_metrics {
    size_t struct_size;
    size_t rows, truncated;
    double accuracy; /* single label: best class right; multi-label: all right; regression: R2 */
    double macro_f1; /* mean over the classes that occur in labels or predictions */
    double nll;      /* mean negative log-likelihood; regression: mean squared error */
    double ece;      /* expected calibration error, 15 equal bins of confidence */
} dp_metrics;

/* dp_evaluate -- predict labelled rows and measure.
 *
 *   session    from dp_session_open
 *   data       rows with labels or targets
 *   out        out, every field
 *   confusion  out, [K, K] counts, row = label, column = prediction; may be NULL
 *
 * Formula: ECE = sum over 15 equal bins of |mean confidence - share right| * rows in the bin /
 * rows; "Obtaining Well Calibrated Probabilities" (Naeini and others, 2015). Others: [G2].
 * Returns DP_OK; DP_E_ARG for no rows or a label out of range; DP_E_DIVERGED for an output that is
 * not finite; else as dp_predict_batch. On failure out is 0.
 * Memory: the session's, and 48 bytes a class. Threads: as the session.
 * Tests: tests/test_learn.c: metrics_* */
DPDEF dp_status dp_evaluate(dp_session *session, const dp_dataset *data, dp_metrics *out,
                            uint64_t *confusion, dp_error *err);

/* dp_sha256 -- SHA-256 of bytes, as text; for manifests and model identity.
 *
 *   data, bytes  of any kind
 *   hex          out, [65] lower-case hexadecimal with its terminator
 *
 * Formula: FIPS 180-4. Returns nothing; cannot fail.
 * Memory: none. Threads: reentrant. Tests: tests/test_base.c: sha256_* */
DPDEF void dp_sha256(const void *data, size_t bytes, char hex[65]);

#ifdef __cplusplus
}
#endif

/* ============================================================================================
 * ============================================================================================
 *
 *   If you use this library, stop reading here. Below is how it works.
 *
 * ============================================================================================
 * ============================================================================================ */

#endif /* DISEASEPRED_H */

#if defined(DISEASEPRED_IMPLEMENTATION) && !defined(DP__IMPLEMENTED)
#define DP__IMPLEMENTED 1

/* ============================================================================================
 * [B] Foundations                                                            budget 1190 lines
 * ============================================================================================ */

/* ============================================================================================
 * [B1] Compiler and platform                                                  budget 110 lines
 * Owns:   includes, target attributes, floating-point pins.          Needs: nothing.
 * Never:  lets a flag of the host program change a result.
 * Tests:  tests/hygiene/, tests/test_base.c: platform_*
 * ============================================================================================ */

#if !defined(DP_ALLOW_FAST_MATH) &&                                                              \
    (defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) ||   \
     (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0))
#error "diseasepred.h: -ffast-math changes results; define DP_ALLOW_FAST_MATH to accept that"
#endif
/* Trap: a libc header that came before without _GNU_SOURCE has already hidden the POSIX names;
 * the symptom would be "openat undeclared" far below. */
#if defined(__GLIBC__) && !defined(DP_NO_POSIX) && !defined(__USE_XOPEN2K8)
#error "diseasepred.h: include it before other headers, or define _GNU_SOURCE, or DP_NO_POSIX"
#endif
#if defined(DP_MALLOC) != defined(DP_FREE)
#error "diseasepred.h: define both DP_MALLOC and DP_FREE, or neither"
#endif
#if (defined(DP_NO_POSIX) || !defined(__GNUC__)) && !defined(DP_NO_THREADS)
#define DP_NO_THREADS 1
#endif

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if (FLT_EVAL_METHOD == 1 || FLT_EVAL_METHOD == 2) && !defined(DP_ALLOW_FAST_MATH)
#error "diseasepred.h: floats are kept wider than float (x87: use -msse2 -mfpmath=sse)"
#endif

/* Contraction of a*b+c would change bits: off down to the end of [H], where the host program's
 * setting returns. So would what clang has no macro for (-funsafe-math-optimizations): precise.
 * Trap: clang obeys -ffp-contract=fast in spite of the pragmas; dp_selftest shows it as another
 * digest. */
#if defined(__clang__)
#pragma float_control(push)
#pragma float_control(precise, on)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif
#if defined(__GNUC__)
#pragma GCC diagnostic push
#define DP__INLINE static inline __attribute__((always_inline))
#define DP__APART static __attribute__((noinline)) /* one copy, where speed does not ask for more */
#define DP__FETCH(p) __builtin_prefetch(p) /* into the L1 cache */
#else
#define DP__INLINE static inline
#define DP__APART static
#define DP__FETCH(p) ((void)(p))
#endif

/* A build that leaves parts out leaves some helpers without a caller. The full build has none,
 * and the warning stays on to prove it. */
#if defined(__GNUC__) &&                                                                         \
    (defined(DISEASEPRED_STATIC) || defined(DP_NO_STDIO) || defined(DP_NO_POSIX) ||              \
     defined(DP_NO_THREADS) || defined(DP_NO_SIMD) || defined(DP_NO_AVX2) ||                     \
     defined(DP_NO_AVX512) || defined(DP_NO_TRAIN) || defined(DP_NO_QUANTIZE) ||                 \
     defined(DP_REAL_DOUBLE))
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

#if defined(__x86_64__) && defined(__GNUC__) && !defined(DP_NO_SIMD) && !defined(DP_REAL_DOUBLE)
#define DP__X86 1
#ifndef DP_SIMD_HEADER
#define DP_SIMD_HEADER <immintrin.h>
#define DP__TARGET(isa) __attribute__((target(isa)))
#else
#define DP__TARGET(isa) /* software vectors need no target, and run on every machine */
#define DP__SOFTWARE 1
#endif
#include DP_SIMD_HEADER
#ifndef DP_NO_AVX2
#define DP__AVX2 1
#endif
#if !defined(DP_NO_AVX512) && !defined(DP_NO_AVX2)
#define DP__AVX512 1
#endif
#if defined(DP__AVX512) && !defined(DP_NO_AMX) && !defined(DP_NO_POSIX) && defined(__linux__)
#define DP__AMX 1
#endif
#endif

#ifndef DP_ASSERT
#define DP_ASSERT(x) ((void)0)
#endif

/* The network computes in dp_real: float, or double in the build that checks gradients. */
#ifdef DP_REAL_DOUBLE
typedef double dp_real;
#else
typedef float dp_real;
#endif

typedef char dp__assert_sizes[sizeof(float) == 4 && sizeof(double) == 8 && CHAR_BIT == 8 ? 1 : -1];
typedef char dp__refuse_single_precision_constant[sizeof 0.1 == sizeof(double) ? 1 : -1];
typedef char dp__assert_size_t[sizeof(size_t) >= 4 ? 1 : -1];

#ifdef __cplusplus
extern "C" {
#endif

/* ============================================================================================
 * [B2] Checked sizes                                                           budget 40 lines
 * Owns:   every sum and product of numbers that came from outside.   Needs: nothing.
 * Never:  wraps around. Each function returns 1 and the result, or 0 and leaves it alone.
 * Tests:  tests/test_base.c: size_*
 * ============================================================================================ */

DP__INLINE int dp__add_u64(uint64_t a, uint64_t b, uint64_t *sum) {
    if (a > UINT64_MAX - b) return 0;
    *sum = a + b;
    return 1;
}

DP__INLINE int dp__mul_u64(uint64_t a, uint64_t b, uint64_t *product) {
    if (b != 0 && a > UINT64_MAX / b) return 0;
    *product = a * b;
    return 1;
}

DP__INLINE int dp__add_size(size_t a, size_t b, size_t *sum) {
    if (a > SIZE_MAX - b) return 0;
    *sum = a + b;
    return 1;
}

DP__INLINE int dp__mul_size(size_t a, size_t b, size_t *product) {
    if (b != 0 && a > SIZE_MAX / b) return 0;
    *product = a * b;
    return 1;
}

/* Next multiple of step, which is a power of two. Rounding up is arithmetic too. */
DP__INLINE int dp__round_up(size_t a, size_t step, size_t *rounded) {
    if (a > SIZE_MAX - (step - 1)) return 0;
    *rounded = (a + (step - 1)) & ~(step - 1);
    return 1;
}

/* ============================================================================================
 * [B3] Memory                                                                 budget 170 lines
 * Owns:   the allocator hooks, arenas, growable buffers, wiping.     Needs: B2 sizes.
 * Never:  hands out memory that is not aligned to 64 bytes; loses a size.
 * Tests:  tests/test_base.c: mem_*
 * ============================================================================================ */

#define DP__ALIGN 64u /* one cache line, one zmm register, one row of a tile image */

#ifndef DP_MALLOC
#define DP_MALLOC(bytes) malloc(bytes)
#define DP_FREE(p) free(p)
#endif

#if defined(__linux__) && !defined(DP_NO_POSIX)
#include <sys/mman.h>
#endif
#define DP__HUGE ((size_t)2 << 20) /* a huge page of x86-64 and AArch64 */

/* Default allocator: the address before the aligned block holds what DP_MALLOC gave. Huge pages,
 * where the system knows them, save weights TLB misses (a fifth of a short text's time, measured);
 * nothing depends on the answer. */
static void *dp__default_alloc(void *ctx, size_t bytes, size_t align) {
    size_t room;
    (void)ctx;
    if (bytes >= 2 * DP__HUGE) align = DP__HUGE;
    if (!dp__add_size(bytes, align + sizeof(void *), &room)) return NULL;
    char *raw = (char *)DP_MALLOC(room);
    if (raw == NULL) return NULL;
    uintptr_t at = ((uintptr_t)raw + sizeof(void *) + align - 1) & ~(uintptr_t)(align - 1);
    memcpy((char *)at - sizeof(void *), &raw, sizeof(void *));
#if defined(__linux__) && !defined(DP_NO_POSIX) && defined(MADV_HUGEPAGE)
    if (align == DP__HUGE) (void)madvise((void *)at, bytes / DP__HUGE * DP__HUGE, MADV_HUGEPAGE);
#endif
    return (void *)at;
}

static void dp__default_free(void *ctx, void *p, size_t bytes) {
    void *raw;
    (void)ctx;
    (void)bytes;
    memcpy(&raw, (char *)p - sizeof(void *), sizeof(void *));
    DP_FREE(raw);
}

/* Memory for count items of size bytes, or NULL (also when the product overflows). */
static void *dp__alloc(const dp_alloc *alloc, size_t count, size_t size) {
    size_t bytes;
    if (!dp__mul_size(count, size, &bytes)) return NULL;
    return alloc->alloc(alloc->ctx, bytes ? bytes : 1, DP__ALIGN);
}

static void dp__free(const dp_alloc *alloc, void *p, size_t count, size_t size) {
    size_t bytes = count * size;
    if (p != NULL) alloc->free(alloc->ctx, p, bytes ? bytes : 1);
}

/* Overwrites memory. The call cannot be left out, as nobody knows what the pointer holds (gcc and
 * clang delete a plain memset before a free). */
static void dp__wipe(void *p, size_t bytes) {
    void *(*volatile set)(void *, int, size_t) = memset;
    set(p, 0, bytes);
}

/* An arena gives out memory that is freed all at once. Small requests share a block. */
typedef struct dp__block {
    struct dp__block *next;
    size_t            bytes; /* of the block, header included */
    size_t            used;
} dp__block;

typedef struct dp__arena {
    dp_alloc   alloc;
    dp__block *head;
    size_t     total;  /* bytes of all blocks */
    int        failed; /* 1: a request was not met; a caller of many looks once */
} dp__arena;

#define DP__BLOCK_BYTES 65536u /* small requests share blocks of this size */

static void dp__arena_init(dp__arena *arena, const dp_alloc *alloc) {
    memset(arena, 0, sizeof *arena);
    arena->alloc = *alloc;
}

/* A new block with room for at least bytes behind its header; NULL when there is no memory. */
static dp__block *dp__arena_block(dp__arena *arena, size_t bytes) {
    size_t room;
    if (!dp__add_size(bytes, DP__ALIGN, &room)) return NULL;
    if (room < DP__BLOCK_BYTES) room = DP__BLOCK_BYTES;
    dp__block *block = (dp__block *)dp__alloc(&arena->alloc, room, 1);
    if (block == NULL) return NULL;
    block->bytes = room;
    block->used = DP__ALIGN;
    block->next = arena->head;
    arena->head = block;
    arena->total += room;
    return block;
}

/* count items of size bytes, zeroed, aligned to 64; NULL when there is no memory. */
static void *dp__arena_get(dp__arena *arena, size_t count, size_t size) {
    dp__block *block = arena->head;
    size_t     bytes;
    if (!dp__mul_size(count, size, &bytes) || !dp__round_up(bytes, DP__ALIGN, &bytes))
        bytes = SIZE_MAX; /* which no block has */
    if (block == NULL || bytes > block->bytes - block->used) block = dp__arena_block(arena, bytes);
    if (block == NULL) arena->failed = 1;
    if (block == NULL) return NULL;
    void *p = (char *)block + block->used;
    block->used += bytes;
    memset(p, 0, bytes);
    return p;
}

static void dp__arena_free(dp__arena *arena) {
    while (arena->head != NULL) {
        dp__block *block = arena->head;
        arena->head = block->next;
        dp__free(&arena->alloc, block, block->bytes, 1);
    }
    arena->total = 0;
}

/* A growable array of bytes. The first failure sticks: nothing is added after it. */
typedef struct dp__buffer {
    dp_alloc alloc;
    char    *p;
    size_t   n, cap;
    int      failed; /* no memory */
} dp__buffer;

static void dp__buffer_init(dp__buffer *b, const dp_alloc *alloc) {
    memset(b, 0, sizeof *b);
    b->alloc = *alloc;
}

static void dp__buffer_grow(dp__buffer *b, size_t need) {
    size_t cap = need < 128 ? 256 : need < SIZE_MAX / 2 ? 2 * need : need;
    char  *p = (char *)dp__alloc(&b->alloc, cap, 1);
    b->failed = p == NULL;
    if (b->failed) return;
    if (b->n > 0) memcpy(p, b->p, b->n);
    dp__free(&b->alloc, b->p, b->cap, 1);
    b->p = p;
    b->cap = cap;
}

static void dp__buffer_add(dp__buffer *b, const void *data, size_t bytes) {
    size_t need = 0;
    if (!dp__add_size(b->n, bytes, &need)) b->failed = 1;
    if (!b->failed && need > b->cap) dp__buffer_grow(b, need);
    if (b->failed || bytes == 0) return;
    memcpy(b->p + b->n, data, bytes);
    b->n = need;
}

static void dp__buffer_free(dp__buffer *b) {
    dp__free(&b->alloc, b->p, b->cap, 1);
    b->p = NULL;
    b->n = b->cap = 0;
}

/* ============================================================================================
 * [B4] Text output and numbers                                                budget 280 lines
 * Owns:   sentences of errors; numbers as text, without a locale.    Needs: B2 sizes.
 * Never:  writes past a buffer; lets a control byte of a file reach a message.
 * Tests:  tests/test_base.c: text_*, number_*
 * ============================================================================================ */

/* A string under construction in a fixed buffer; what does not fit is cut off. */
typedef struct dp__text {
    char  *p;
    size_t cap, n; /* n < cap: there is always room for the terminator */
} dp__text;

static void dp__text_char(dp__text *t, char c) {
    if (t->n + 1 >= t->cap) return;
    t->p[t->n++] = c;
    t->p[t->n] = 0;
}

static void dp__text_add(dp__text *t, const char *s) {
    while (*s != 0) dp__text_char(t, *s++);
}

static void dp__text_u64(dp__text *t, uint64_t v) {
    char digits[20];
    int  n = 0;
    do digits[n++] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    while (n > 0) dp__text_char(t, digits[--n]);
}

static const char dp__hex_digits[] = "0123456789abcdef";

#define DP__NAME_SHOWN 64 /* bytes of a foreign name that a message shows (trust rule G9) */

/* A name out of a file: at most 64 bytes, everything but printable ASCII as \xNN. */
static void dp__text_name(dp__text *t, const char *name) {
    size_t bytes = strlen(name), shown = bytes < DP__NAME_SHOWN ? bytes : DP__NAME_SHOWN;
    for (size_t i = 0; i < shown; i++) {
        unsigned char c = (unsigned char)name[i];
        char escape[] = {'\\', 'x', dp__hex_digits[c >> 4], dp__hex_digits[c & 15], 0};
        if (c >= 32 && c < 127 && c != '\\') dp__text_char(t, name[i]);
        else dp__text_add(t, escape);
    }
    if (shown < bytes) dp__text_add(t, "...");
}

/* "model.safetensors: byte 96: rule S9: tensors leave a hole: 'classifier.bias'". Beside the fixed
 * sentence all may be missing: rule "", file NULL, place DP_NO_PLACE, name (out of a file) NULL. */
static dp_status dp__fail_at(dp_error *err, dp_status code, const char *rule, const char *file,
                             uint64_t place, const char *sentence, const char *name) {
    if (err == NULL) return code;
    memset(err, 0, sizeof *err);
    err->code = code;
    err->place = place;
    dp__text r = {err->rule, sizeof err->rule, 0}, f = {err->file, sizeof err->file, 0};
    dp__text t = {err->text, sizeof err->text, 0};
    dp__text_add(&r, rule);
    if (file != NULL) {
        dp__text_name(&f, file);
        dp__text_add(&t, err->file);
        dp__text_add(&t, ": ");
    }
    if (place != DP_NO_PLACE) {
        dp__text_add(&t, "byte ");
        dp__text_u64(&t, place);
        dp__text_add(&t, ": ");
    }
    dp__text_add(&t, rule[0] != 0 ? "rule " : "");
    dp__text_add(&t, rule);
    dp__text_add(&t, rule[0] != 0 ? ": " : "");
    dp__text_add(&t, sentence);
    if (name != NULL) {
        dp__text_add(&t, ": '");
        dp__text_name(&t, name);
        dp__text_add(&t, "'");
    }
    return code;
}

static dp_status dp__fail(dp_error *err, dp_status code, const char *sentence) {
    return dp__fail_at(err, code, "", NULL, DP_NO_PLACE, sentence, NULL);
}

static dp_status dp__no_memory(dp_error *err) {
    return dp__fail(err, DP_E_MEMORY, "out of memory");
}

/* ---- integers and real numbers as text ---------------------------------------------------- */

/* An unsigned decimal: digits only, no leading zero, no overflow. 1, or 0 and *to untouched. */
static int dp__read_u64(const char *p, size_t n, uint64_t *to) {
    uint64_t v = 0;
    if (n == 0 || (p[0] == '0' && n > 1)) return 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return 0;
        if (!dp__mul_u64(v, 10, &v) || !dp__add_u64(v, (uint64_t)(p[i] - '0'), &v)) return 0;
    }
    *to = v;
    return 1;
}

#ifndef DP_MAX_JSON_NUMBER
#define DP_MAX_JSON_NUMBER 64 /* characters */
#endif

/* A number in the grammar of JSON, taken apart. */
typedef struct dp__decimal {
    int     negative;
    char    digits[DP_MAX_JSON_NUMBER];
    int32_t n;     /* digits; leading zeros are left out, so 0 has none */
    int32_t power; /* value = digits * 10^power */
    size_t  bytes; /* characters read */
} dp__decimal;

DP__INLINE char dp__char_at(const char *p, size_t n, size_t at) {
    return at < n ? p[at] : (char)0;
}

/* Digits from d->bytes on; those in front of the first other than 0 are not kept. */
static int32_t dp__decimal_digits(dp__decimal *d, const char *p, size_t n) {
    int32_t count = 0;
    for (char c; (c = dp__char_at(p, n, d->bytes)) >= '0' && c <= '9'; d->bytes++, count++) {
        if (d->n > 0 || c != '0') d->digits[d->n++] = c;
    }
    return count;
}

/* Reads as much of p[0..n) as is a number. 1; or 0 when the grammar breaks (d->bytes tells
 * where). n <= DP_MAX_JSON_NUMBER. Trap: the exponent itself overflows in "0.1e-999999999". */
static int dp__decimal_read(dp__decimal *d, const char *p, size_t n) {
    memset(d, 0, sizeof *d);
    d->negative = dp__char_at(p, n, 0) == '-';
    d->bytes = (size_t)d->negative;
    if (dp__char_at(p, n, d->bytes) == '0') d->bytes++;
    else if (dp__decimal_digits(d, p, n) == 0) return 0;
    if (dp__char_at(p, n, d->bytes) == '.') {
        d->bytes++;
        d->power = -dp__decimal_digits(d, p, n);
        if (d->power == 0) return 0;
    }
    char c = dp__char_at(p, n, d->bytes);
    if (c != 'e' && c != 'E') return 1;
    char    sign = dp__char_at(p, n, ++d->bytes);
    int32_t e = 0;
    d->bytes += sign == '-' || sign == '+';
    size_t first = d->bytes;
    for (; (c = dp__char_at(p, n, d->bytes)) >= '0' && c <= '9'; d->bytes++) {
        if (e < 100000) e = e * 10 + (c - '0');
    }
    d->power += sign == '-' ? -e : e;
    return d->bytes > first;
}

/* A binary number of fixed point, lowest word first: 1088 bits behind the point, and before it
 * as many as 10^310 or all digits of a number need (a decimal digit has less than 10/3 bits). */
#define DP__FRACTION 34
#define DP__FIXED (DP__FRACTION + (DP_MAX_JSON_NUMBER + 310) * 10 / 3 / 32 + 1)

/* w = w * factor + more, for a w without a fraction. */
static void dp__fixed_mul(uint32_t *w, uint32_t factor, uint32_t more) {
    uint64_t carry = more;
    for (int32_t i = DP__FRACTION; i < DP__FIXED; i++, carry >>= 32) {
        carry += (uint64_t)w[i] * factor;
        w[i] = (uint32_t)carry;
    }
    DP_ASSERT(carry == 0);
}

/* w = w / divisor, cut off behind the last bit; returns what was lost there. */
static uint32_t dp__fixed_div(uint32_t *w, uint32_t divisor) {
    uint64_t rest = 0;
    for (int32_t i = DP__FIXED; i-- > 0; rest %= divisor) {
        rest = rest << 32 | w[i];
        w[i] = (uint32_t)(rest / divisor);
    }
    return (uint32_t)rest;
}

DP__INLINE uint32_t dp__fixed_bit(const uint32_t *w, int32_t i) {
    return w[i / 32] >> i % 32 & 1;
}

/* The double nearest to a number of fixed point, ties to even; lost: not 0 when it had more
 * bits. Bit 14 is 2^-1074, the last of a double. */
static double dp__fixed_double(const uint32_t *w, uint32_t lost) {
    const uint64_t infinity = (uint64_t)0x7FF << 52;
    int32_t  top = DP__FIXED * 32 - 1;
    uint64_t bits = 0;
    double   v;
    while (top > 14 && dp__fixed_bit(w, top) == 0) top--;
    int32_t low = top > 52 + 14 ? top - 52 : 14; /* the last bit of the result */
    for (int32_t i = top; i >= low; i--) bits = bits << 1 | dp__fixed_bit(w, i);
    for (int32_t i = 0; i < low - 1; i++) lost |= dp__fixed_bit(w, i);
    bits += dp__fixed_bit(w, low - 1) && (lost || (bits & 1));
    bits += (uint64_t)(low - 14) << 52; /* the leading bit adds the last 1 */
    if (bits > infinity) bits = infinity;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* The double nearest to the decimal; infinity when it is too large. */
static double dp__decimal_double(const dp__decimal *d) {
    uint32_t w[DP__FIXED] = {0}, lost = 0;
    double   v = 0;
    if (d->n > 0 && d->n + d->power > 310) {
        v = HUGE_VAL;
    } else if (d->n > 0 && d->n + d->power > -330) {
        for (int32_t i = 0; i < d->n; i++) dp__fixed_mul(w, 10, (uint32_t)(d->digits[i] - '0'));
        for (int32_t left = abs(d->power); left > 0;) {
            uint32_t ten = 1;
            for (; left > 0 && ten < 1000000000; left--) ten *= 10;
            if (d->power > 0) dp__fixed_mul(w, ten, 0);
            else lost |= dp__fixed_div(w, ten);
        }
        v = dp__fixed_double(w, lost);
    }
    return d->negative ? -v : v;
}

/* The whole of p[0..n) as a correctly rounded finite double. 1, or 0 and *to untouched. */
static int dp__read_double(const char *p, size_t n, double *to) {
    dp__decimal d;
    if (n > DP_MAX_JSON_NUMBER || !dp__decimal_read(&d, p, n) || d.bytes != n) return 0;
    double v = dp__decimal_double(&d);
    if (v > DBL_MAX || v < -DBL_MAX) return 0;
    *to = v;
    return 1;
}

/* d.ddd * 10^e as text that JSON reads as a real number: 0.02, 30522.0, 1e-12. */
static void dp__text_decimal(dp__text *t, const char *digits, int32_t n, int32_t e) {
    int plain = e >= -5 && e < 16;
    int32_t point = plain ? e + 1 : 1; /* digits in front of the point */
    while (n > 1 && digits[n - 1] == '0') n--;
    if (point <= 0) dp__text_add(t, "0.");
    for (int32_t i = point; i < 0; i++) dp__text_char(t, '0');
    for (int32_t i = 0; i < n || i < point; i++) {
        if (i == point && i > 0) dp__text_char(t, '.');
        dp__text_char(t, i < n ? digits[i] : '0');
    }
    if (plain && n <= point) dp__text_add(t, ".0");
    if (plain) return;
    dp__text_add(t, e < 0 ? "e-" : "e+");
    if (e > -10 && e < 10) dp__text_char(t, '0');
    dp__text_u64(t, (uint64_t)(e < 0 ? -e : e));
}

/* The finite v as the shortest text that reads back as v. Floats have 6 to 9 digits. Double
 * arithmetic will do: the reader above is the judge of all lengths but the last. */
static void dp__text_f32(dp__text *t, float v) {
    dp__decimal d;
    double   a = fabs((double)v);
    int32_t  e = 0;
    uint32_t full = 1000000; /* 10^d.n */
    memset(&d, 0, sizeof d);
    if (signbit(v)) dp__text_char(t, '-');
    for (double x = a; x >= 10; e++) x /= 10;
    for (double x = a; x > 0 && x < 1; e--) x *= 10;
    for (d.n = 6;; d.n++, full *= 10) {
        double ten = 1; /* exact up to 10^22, so that ties of short numbers are seen */
        for (int32_t k = abs(d.n - 1 - e); k > 0; k--) ten *= 10;
        double   scaled = d.n - 1 < e ? a / ten : a * ten;
        uint32_t q = (uint32_t)scaled;
        double   rest = scaled - q;
        q += rest > 0.5 || (rest == 0.5 && (q & 1));
        int32_t  up = q >= full; /* 9.999999 has become 10.00000 */
        if (up) q /= 10;
        for (int32_t i = d.n; i-- > 0; q /= 10) d.digits[i] = (char)('0' + q % 10);
        d.power = e + up - d.n + 1;
        if (d.n < 9 && (float)dp__decimal_double(&d) != fabsf(v)) continue;
        dp__text_decimal(t, d.digits, d.n, e + up);
        return;
    }
}

/* ============================================================================================
 * [B5] Files                                                                  budget 420 lines
 * Owns:   default file hooks (POSIX, or C99 stdio), dp_env with its defaults, whole files.
 * Needs:  B2 sizes, B3 memory, B4 errors.
 * Never:  opens a name with a separator, a link that was not asked for, or anything that is
 *         not a regular file; leaves a half-written file under its final name.
 * Rules:  F1 names, F2 no links, F3 regular files, F5 exact sizes, F7 creation.
 * Tests:  tests/test_base.c: file_*, env_*; tests/hygiene/stdio_files.c
 *
 * A file under creation is called NAME.tmp-NUMBER. A killed program may leave one behind.
 * What the hooks return: DP_E_NOT_FOUND, DP_E_IO, DP_E_MEMORY, DP_E_LIMIT (size of this
 * build's offsets), DP_E_ARG (name), DP_E_UNSUPPORTED (a link), DP_E_FORMAT (not regular).
 * ============================================================================================ */

#ifndef DP_MAX_THREADS
#define DP_MAX_THREADS 1024
#endif

#define DP__NAME_BYTES 200 /* of a file: room for the suffix below NAME_MAX = 255 */

/* F1: one plain component of a path, also for Windows. */
static int dp__file_name_ok(const char *name) {
    static const char *const devices[] = {"con", "prn", "aux", "nul", "com", "lpt"};
    size_t n = strlen(name), stem = strcspn(name, ".");
    if (n == 0 || n > DP__NAME_BYTES) return 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < 32 || c == 127 || c == '/' || c == '\\' || c == ':') return 0;
    }
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return 0;
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++) {
        size_t same = 0, digit = d < 4 ? 0 : 1; /* com and lpt carry a digit */
        while (same < 3 && ((unsigned char)name[same] | 32) == devices[d][same]) same++;
        if (same == 3 && stem == 3 + digit && (!digit || (name[3] >= '0' && name[3] <= '9')))
            return 0;
    }
    return 1;
}

/* The hooks of dp_io share parameters that not every one needs. */
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif

#if !defined(DP_NO_STDIO) && !defined(DP_NO_POSIX)

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>

/* Every call to the system that can fail; the tests put their faults here. */
#ifndef DP__SYS
#define DP__SYS(call) call
#endif

/* A handle: a directory, a file that is read, or (temp is not "") a file under creation. */
typedef struct dp__file {
    int      fd, dir;
    uint64_t bytes;
    char     name[DP__NAME_BYTES + 1], temp[DP__NAME_BYTES + 40];
} dp__file;

static dp_status dp__sys_status(int code) { /* ELOOP here: links in a ring */
    if (code == ENOTDIR) return DP_E_FORMAT; /* of open_dir: names have no directories in them */
    return code == ENOENT ? DP_E_NOT_FOUND : code == ENOMEM ? DP_E_MEMORY : DP_E_IO;
}

/* A handle like f; takes f->fd over, also when there is no memory. */
static dp_status dp__posix_handle(const dp__file *f, void **out) {
    if (f->fd < 0) return dp__sys_status(errno);
    *out = DP_MALLOC(sizeof *f);
    if (*out != NULL) memcpy(*out, f, sizeof *f);
    else DP__SYS(close)(f->fd);
    return *out != NULL ? DP_OK : DP_E_MEMORY;
}

static void dp__io_close(void *ctx, void *handle) {
    dp__file *f = (dp__file *)handle;
    if (f->temp[0] != 0) DP__SYS(unlinkat)(f->dir, f->temp, 0);
    DP__SYS(close)(f->fd);
    DP_FREE(f);
}

static dp_status dp__io_open_dir(void *ctx, const char *path, int32_t make, void **dir) {
    dp__file f = {-1, -1, 0, "", ""};
    if (make && DP__SYS(mkdir)(path, 0700) != 0 && errno != EEXIST) return dp__sys_status(errno);
    f.fd = DP__SYS(openat)(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    return dp__posix_handle(&f, dir);
}

/* F2, F3. Trap: without O_NONBLOCK opening a FIFO waits for a writer for ever. */
static dp_status dp__io_open(void *ctx, void *dir, const char *name, void **file, uint64_t *bytes) {
    struct stat st;
    dp__file    f = {-1, -1, 0, "", ""};
    int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (ctx == NULL ? O_NOFOLLOW : 0);
    if (!dp__file_name_ok(name)) return DP_E_ARG;
    f.fd = DP__SYS(openat)(((dp__file *)dir)->fd, name, flags, 0);
    if (f.fd < 0 && errno == ELOOP && ctx == NULL) return DP_E_UNSUPPORTED; /* F2 */
    dp_status status = dp__posix_handle(&f, file);
    if (status != DP_OK) return status;
    if (DP__SYS(fstat)(f.fd, &st) != 0) status = dp__sys_status(errno);
    else if (!S_ISREG(st.st_mode) || st.st_size < 0) status = DP_E_FORMAT;
    if (status != DP_OK) dp__io_close(ctx, *file);
    else ((dp__file *)*file)->bytes = *bytes = (uint64_t)st.st_size;
    return status;
}

/* F5: exactly these bytes of a file that has kept its size. */
static dp_status dp__io_pread(void *ctx, void *file, uint64_t offset, void *to, size_t bytes) {
    const dp__file *f = (const dp__file *)file;
    struct stat st;
    char *p = (char *)to;
    if (offset > f->bytes || bytes > f->bytes - offset) return DP_E_ARG;
    uint64_t end = offset + bytes; /* at most f->bytes */
    off_t    last = (off_t)end;
    if (last < 0 || (uint64_t)last != end) return DP_E_LIMIT;
    if (DP__SYS(fstat)(f->fd, &st) != 0 || (uint64_t)st.st_size != f->bytes) return DP_E_IO;
    while (bytes > 0) {
        size_t  part = bytes < 0x40000000 ? bytes : 0x40000000;
        ssize_t got = DP__SYS(pread)(f->fd, p, part, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return DP_E_IO;
        p += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return DP_OK;
}

/* F7: a new file of our own, mode 0600. O_EXCL decides whose a name is, not the number in it. */
static dp_status dp__io_create(void *ctx, void *dir, const char *name, void **file) {
    dp__file f = {-1, ((dp__file *)dir)->fd, 0, "", ""};
    if (!dp__file_name_ok(name)) return DP_E_ARG;
    memcpy(f.name, name, strlen(name) + 1);
    for (uint64_t tries = 0; tries < 100 && f.fd < 0; tries++) {
        dp__text t = {f.temp, sizeof f.temp, 0};
        dp__text_add(&t, name);
        dp__text_add(&t, ".tmp-");
        dp__text_u64(&t, (uint64_t)getpid() * 100 + tries);
        f.fd = DP__SYS(openat)(f.dir, f.temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                               0600);
        if (f.fd < 0 && errno != EEXIST && errno != EINTR) break;
    }
    dp_status status = dp__posix_handle(&f, file);
    if (status != DP_OK && f.fd >= 0) DP__SYS(unlinkat)(f.dir, f.temp, 0);
    return status;
}

static dp_status dp__io_append(void *ctx, void *file, const void *data, size_t bytes) {
    const char *p = (const char *)data;
    while (bytes > 0) {
        size_t  part = bytes < 0x40000000 ? bytes : 0x40000000;
        ssize_t put = DP__SYS(write)(((dp__file *)file)->fd, p, part);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return DP_E_IO;
        p += put;
        bytes -= (size_t)put;
    }
    return DP_OK;
}

/* Trap: fsync that failed is never repeated: the kernel may have dropped the pages, and a second
 * call would report success. A new file is the only way on. */
static dp_status dp__io_commit(void *ctx, void *file) {
    dp__file *f = (dp__file *)file;
    int ok = DP__SYS(fsync)(f->fd) == 0;
    ok = DP__SYS(close)(f->fd) == 0 && ok;
    ok = ok && DP__SYS(renameat)(f->dir, f->temp, f->dir, f->name) == 0;
    if (!ok) DP__SYS(unlinkat)(f->dir, f->temp, 0);
    else ok = DP__SYS(fsync)(f->dir) == 0; /* else the new name is there, but may not survive */
    DP_FREE(f);
    return ok ? DP_OK : DP_E_IO;
}

static dp_status dp__io_remove(void *ctx, void *dir, const char *name) {
    int fd = ((dp__file *)dir)->fd;
    if (!dp__file_name_ok(name)) return DP_E_ARG;
    if (DP__SYS(unlinkat)(fd, name, 0) != 0) return dp__sys_status(errno);
    return DP__SYS(fsync)(fd) == 0 ? DP_OK : DP_E_IO;
}

static dp_status dp__io_free_space(void *ctx, void *dir, uint64_t *bytes) {
    struct statvfs vfs;
    if (DP__SYS(fstatvfs)(((dp__file *)dir)->fd, &vfs) != 0) return dp__sys_status(errno);
    return dp__mul_u64(vfs.f_bavail, vfs.f_frsize, bytes) ? DP_OK : DP_E_LIMIT;
}

#elif !defined(DP_NO_STDIO)

#include <stdio.h>

/* C99 files: links and special files cannot be told apart, nothing is promised about a power
 * cut, and a directory must exist. */
typedef struct dp__file {
    FILE    *stream; /* NULL: a directory */
    uint64_t bytes;
    char     path[FILENAME_MAX], temp[FILENAME_MAX]; /* temp is not "": under creation */
} dp__file;

/* A handle for a directory (no name), or for the file of that name in it, which is opened if
 * there is a mode. */
static dp_status dp__stdio_handle(const char *dir, const char *name, const char *mode, void **out) {
    if (name != NULL && !dp__file_name_ok(name)) return DP_E_ARG;
    if (strlen(dir) + DP__NAME_BYTES + sizeof ".tmp-0" > FILENAME_MAX) return DP_E_ARG;
    dp__file *f = (dp__file *)DP_MALLOC(sizeof *f);
    if (f == NULL) return DP_E_MEMORY;
    memset(f, 0, sizeof *f);
    int      creates = mode != NULL && mode[0] == 'w';
    dp__text path = {f->path, sizeof f->path, 0}, temp = {f->temp, sizeof f->temp, 0};
    dp__text_add(&path, dir);
    dp__text_add(&path, name != NULL ? name : "/");
    if (creates) dp__text_add(&temp, f->path);
    if (creates) dp__text_add(&temp, ".tmp-0");
    if (mode != NULL) f->stream = fopen(creates ? f->temp : f->path, mode);
    *out = f;
    if (mode == NULL || f->stream != NULL) return DP_OK;
    DP_FREE(f);
    return creates ? DP_E_IO : DP_E_NOT_FOUND;
}

static void dp__io_close(void *ctx, void *handle) {
    dp__file *f = (dp__file *)handle;
    if (f->stream != NULL) fclose(f->stream);
    if (f->temp[0] != 0) remove(f->temp);
    DP_FREE(f);
}

static dp_status dp__io_open_dir(void *ctx, const char *path, int32_t make, void **dir) {
    return dp__stdio_handle(path, NULL, NULL, dir);
}

static dp_status dp__io_open(void *ctx, void *dir, const char *name, void **file, uint64_t *bytes) {
    long end = -1;
    dp_status status = dp__stdio_handle(((dp__file *)dir)->path, name, "rb", file);
    if (status != DP_OK) return status;
    dp__file *f = (dp__file *)*file;
    if (fseek(f->stream, 0, SEEK_END) == 0) end = ftell(f->stream);
    f->bytes = *bytes = (uint64_t)end;
    if (end >= 0 && end < LONG_MAX) return DP_OK;
    dp__io_close(ctx, f); /* a directory, a pipe, or too large for long */
    return DP_E_FORMAT;
}

static dp_status dp__io_pread(void *ctx, void *file, uint64_t offset, void *to, size_t bytes) {
    dp__file *f = (dp__file *)file;
    if (bytes > f->bytes || offset > f->bytes - bytes) return DP_E_ARG;
    if (fseek(f->stream, (long)offset, SEEK_SET) != 0) return DP_E_IO;
    return fread(to, 1, bytes, f->stream) == bytes ? DP_OK : DP_E_IO;
}

static dp_status dp__io_create(void *ctx, void *dir, const char *name, void **file) {
    return dp__stdio_handle(((dp__file *)dir)->path, name, "wb", file);
}

static dp_status dp__io_append(void *ctx, void *file, const void *data, size_t bytes) {
    return fwrite(data, 1, bytes, ((dp__file *)file)->stream) == bytes ? DP_OK : DP_E_IO;
}

/* Where rename does not replace a file (Windows), the old one is removed first. */
static dp_status dp__io_commit(void *ctx, void *file) {
    dp__file *f = (dp__file *)file;
    int ok = fclose(f->stream) == 0;
    f->stream = NULL;
    ok = ok && (rename(f->temp, f->path) == 0 ||
                (remove(f->path) == 0 && rename(f->temp, f->path) == 0));
    dp__io_close(ctx, f); /* the temporary file is gone already, if all went well */
    return ok ? DP_OK : DP_E_IO;
}

static dp_status dp__io_remove(void *ctx, void *dir, const char *name) {
    void *f;
    dp_status status = dp__stdio_handle(((dp__file *)dir)->path, name, NULL, &f);
    if (status != DP_OK) return status;
    if (remove(((dp__file *)f)->path) != 0) status = DP_E_NOT_FOUND;
    dp__io_close(ctx, f);
    return status;
}

static dp_status dp__io_free_space(void *ctx, void *dir, uint64_t *bytes) {
    *bytes = 0;
    return DP_E_UNSUPPORTED;
}

#endif
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

/* ctx is a flag: not NULL if links are followed. */
static void dp__default_io(dp_io *io, int32_t follow_links) {
#ifdef DP_NO_STDIO
    (void)follow_links;
    memset(io, 0, sizeof *io);
#else
    static const dp_io hooks = {
        dp__io_open_dir, dp__io_close, dp__io_open, dp__io_pread, dp__io_close, dp__io_create,
        dp__io_append, dp__io_commit, dp__io_close, dp__io_remove, dp__io_free_space, NULL};
    *io = hooks;
    io->ctx = follow_links ? (void *)(uintptr_t)1 : NULL;
#endif
}

/* A caller's structure that begins with struct_size, widened to this version's: what an older
 * caller does not know is 0. from NULL: all defaults. */
static dp_status dp__options_copy(void *to, size_t to_bytes, const void *from, dp_error *err) {
    size_t bytes = sizeof(size_t);
    memset(to, 0, to_bytes);
    if (from != NULL) memcpy(&bytes, from, sizeof bytes);
    if (bytes < sizeof(size_t) || bytes > to_bytes)
        return dp__fail(err, DP_E_ARG, "struct_size is wrong (prepare the structure by DP_CLEAR)");
    if (from != NULL) memcpy(to, from, bytes);
    memcpy(to, &to_bytes, sizeof to_bytes);
    return DP_OK;
}

/* The number of hooks that are set; ctx is the only member that is none. */
static size_t dp__io_hooks(const dp_io *io) {
    void (*hook)(void);
    size_t set = 0;
    for (size_t at = 0; at < offsetof(dp_io, ctx); at += sizeof hook) {
        memcpy(&hook, (const char *)io + at, sizeof hook);
        set += hook != NULL;
    }
    return set;
}

/* The environment of an object: the caller's, checked, with the defaults filled in. */
static dp_status dp__env_init(const dp_env *in, dp_env *out, dp_error *err) {
    static const dp_alloc usual = {dp__default_alloc, dp__default_free, NULL};
    dp_status status = dp__options_copy(out, sizeof *out, in, err);
    if (status != DP_OK) return status;
    if ((out->alloc.alloc == NULL) != (out->alloc.free == NULL))
        return dp__fail(err, DP_E_ARG, "dp_env.alloc: both functions or none");
    if (dp__io_hooks(&out->io) != 0 && dp__io_hooks(&out->io) != 11)
        return dp__fail(err, DP_E_ARG, "dp_env.io: all functions or none");
    if (out->threads < 0 || out->threads > DP_MAX_THREADS)
        return dp__fail(err, DP_E_LIMIT, "dp_env.threads is out of range");
    if ((unsigned)out->isa_cap >= (unsigned)DP_ISA_COUNT)
        return dp__fail(err, DP_E_ARG, "dp_env.isa_cap is no instruction set");
    if (out->threads == 0) out->threads = 1;
    if (out->alloc.alloc == NULL) out->alloc = usual;
    if (dp__io_hooks(&out->io) == 0) dp__default_io(&out->io, out->follow_links);
    return DP_OK;
}

/* The sentence for a status that a file hook returned; name: file or directory. */
static dp_status dp__io_fail(dp_error *err, dp_status status, const char *name) {
    static const struct { dp_status status; const char *rule, *text; } rows[] = {
        {DP_E_ARG, "F1", "is not a plain file name"},
        {DP_E_UNSUPPORTED, "F2", "is a link; --follow-links (dp_env.follow_links) permits it"},
        {DP_E_FORMAT, "F3", "is not a regular file"},
        {DP_E_NOT_FOUND, "", "does not exist"},
        {DP_E_MEMORY, "", "out of memory"},
        {DP_E_LIMIT, "", "is too large for the offsets of this build"},
        {DP_E_IO, "", "cannot be read or written"}};
    size_t row = 0;
    while (row + 1 < sizeof rows / sizeof *rows && rows[row].status != status) row++;
    if (status == DP_E_ARG) status = DP_E_FORMAT; /* the name came from outside */
    return dp__fail_at(err, status, rows[row].rule, name, DP_NO_PLACE, rows[row].text, NULL);
}

static dp_status dp__dir_open(const dp_env *env, const char *path, int32_t make, void **dir,
                              dp_error *err) {
    if (path == NULL) return dp__fail(err, DP_E_ARG, "no directory is named");
    if (env->io.open_dir == NULL)
        return dp__fail(err, DP_E_UNSUPPORTED, "this build has no files; set dp_env.io");
    dp_status status = env->io.open_dir(env->io.ctx, path, make, dir);
    if (status == DP_E_FORMAT)
        return dp__fail_at(err, status, "F3", path, DP_NO_PLACE, "is not a directory", NULL);
    return status == DP_OK ? DP_OK : dp__io_fail(err, status, path);
}

/* The whole of a file of at most max bytes, with a 0 behind it, in memory of the arena. */
static dp_status dp__file_read(const dp_env *env, void *dir, const char *name, uint64_t max,
                               dp__arena *arena, char **text, size_t *bytes, dp_error *err) {
    void    *file;
    uint64_t size;
    dp_status status = env->io.open(env->io.ctx, dir, name, &file, &size);
    if (status != DP_OK) return dp__io_fail(err, status, name);
    if (size > max || size > SIZE_MAX - 1) {
        status = dp__fail_at(err, DP_E_LIMIT, "", name, max, "the file is too large", NULL);
    } else {
        *bytes = (size_t)size;
        *text = (char *)dp__arena_get(arena, *bytes + 1, 1);
        status = *text == NULL ? DP_E_MEMORY : env->io.pread(env->io.ctx, file, 0, *text, *bytes);
        if (status != DP_OK) dp__io_fail(err, status, name);
    }
    env->io.close(env->io.ctx, file);
    return status;
}

/* A whole small file, written so that name holds either all of the new bytes or the old ones. */
static dp_status dp__file_write(const dp_env *env, void *dir, const char *name, const void *data,
                                size_t bytes, dp_error *err) {
    void *file;
    dp_status status = env->io.create(env->io.ctx, dir, name, &file);
    if (status != DP_OK) return dp__io_fail(err, status, name);
    status = env->io.append(env->io.ctx, file, data, bytes);
    if (status != DP_OK) env->io.abort(env->io.ctx, file);
    else status = env->io.commit(env->io.ctx, file);
    return status == DP_OK ? DP_OK : dp__io_fail(err, status, name);
}

/* ============================================================================================
 * [B6] Random and hash                                                        budget 160 lines
 * Owns:   SplitMix64, the shuffle, sorting, SHA-256.                 Needs: nothing.
 * Never:  uses a clock, an address or another source that differs between two runs.
 * Tests:  tests/test_base.c: rng_*, sort_*, sha256_*
 * ============================================================================================ */

/* Sums that wrap on purpose; nothing else in this file may. */
#if defined(__clang__)
#define DP__WRAPS __attribute__((no_sanitize("unsigned-integer-overflow", "unsigned-shift-base")))
#else
#define DP__WRAPS
#endif

/* The finalizer of SplitMix64 ("Fast Splittable Pseudorandom Number Generators", 2014). */
DP__WRAPS static uint64_t dp__mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

typedef struct dp__rng {
    uint64_t s;
} dp__rng;

DP__WRAPS static uint64_t dp__rng_next(dp__rng *rng) {
    rng->s += 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio, odd */
    return dp__mix64(rng->s);
}

/* Uniform in [0, n), n > 0: draws from the incomplete last range are thrown away. */
DP__WRAPS static uint64_t dp__rng_below(dp__rng *rng, uint64_t n) {
    uint64_t least = (0 - n) % n, x; /* 2^64 mod n */
    do x = dp__rng_next(rng);
    while (x < least);
    return x % n;
}

static void dp__swap(char *a, char *b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        char swap = a[i];
        a[i] = b[i];
        b[i] = swap;
    }
}

/* Fisher-Yates: every order is equally likely. */
static void dp__shuffle(uint32_t *order, size_t n, dp__rng *rng) {
    for (size_t i = n; i > 1; i--)
        dp__swap((char *)&order[i - 1], (char *)&order[dp__rng_below(rng, i)], sizeof *order);
}

/* Heap sort: in place, no recursion, n log n for every input. Equal items may change places. */
typedef int dp__compare(const void *a, const void *b);

static void dp__sort(void *items, size_t n, size_t size, dp__compare *compare) {
    char *p = (char *)items;
    for (size_t start = n / 2, end = n; end > 1;) {
        if (start > 0) start--;                                  /* build the heap, then */
        else dp__swap(p, p + --end * size, size);                /* move its top to the end */
        for (size_t root = start, child; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && compare(p + child * size, p + (child + 1) * size) < 0) child++;
            if (compare(p + root * size, p + child * size) >= 0) break;
            dp__swap(p + root * size, p + child * size, size);
        }
    }
}

/* SHA-256 (FIPS 180-4). */
typedef struct dp__sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t  block[64];
} dp__sha256;

static void dp__sha256_init(dp__sha256 *s) {
    static const uint32_t h[8] = {/* square roots of the first 8 primes, FIPS 180-4, 5.3.3 */
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->h, h, sizeof h);
    s->bytes = 0;
}

DP__WRAPS DP__INLINE uint32_t dp__rotr(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

/* The effect of a full block. */
DP__WRAPS static void dp__sha256_block(dp__sha256 *s) {
    static const uint32_t k[64] = {/* cube roots of the first 64 primes, FIPS 180-4, 4.2.2 */
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++) {
        const uint8_t *q = s->block + 4 * i;
        w[i] = (uint32_t)q[0] << 24 | (uint32_t)q[1] << 16 | (uint32_t)q[2] << 8 | q[3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (dp__rotr(a, 7) ^ dp__rotr(a, 18) ^ a >> 3) +
               (dp__rotr(b, 17) ^ dp__rotr(b, 19) ^ b >> 10);
    }
    memcpy(v, s->h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t a = v[0], e = v[4];
        uint32_t t1 = v[7] + (dp__rotr(e, 6) ^ dp__rotr(e, 11) ^ dp__rotr(e, 25)) +
                      ((e & v[5]) ^ (~e & v[6])) + k[i] + w[i];
        uint32_t t2 = (dp__rotr(a, 2) ^ dp__rotr(a, 13) ^ dp__rotr(a, 22)) +
                      ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[0] = t1 + t2;
        v[4] += t1;
    }
    for (int i = 0; i < 8; i++) s->h[i] += v[i];
}

static void dp__sha256_add(dp__sha256 *s, const void *data, size_t bytes) {
    const uint8_t *p = (const uint8_t *)data;
    while (bytes > 0) {
        size_t used = (size_t)(s->bytes % 64), take = 64 - used < bytes ? 64 - used : bytes;
        memcpy(s->block + used, p, take);
        if (used + take == 64) dp__sha256_block(s);
        s->bytes += take;
        p += take;
        bytes -= take;
    }
}

static void dp__sha256_end(dp__sha256 *s, uint8_t out[32]) {
    static const uint8_t padding[64] = {0x80}; /* one bit, then zeros up to 56 bytes of a block */
    uint64_t bits = s->bytes * 8;
    uint8_t  length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    dp__sha256_add(s, padding, 64 - (size_t)(s->bytes + 8) % 64);
    dp__sha256_add(s, length, 8);
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

static void dp__hex(const uint8_t *bytes, size_t n, char *to) {
    for (size_t i = 0; i < n; i++) {
        to[2 * i] = dp__hex_digits[bytes[i] >> 4];
        to[2 * i + 1] = dp__hex_digits[bytes[i] & 15];
    }
    to[2 * n] = 0;
}

/* ============================================================================================
 * [C] Bytes from outside                                                     budget 1680 lines
 * ============================================================================================ */

/* ============================================================================================
 * [C1] Byte order and UTF-8                                                    budget 70 lines
 * Owns:   little-endian numbers; the grammar of UTF-8.   Needs: B6 swap.
 * Never:  looks at p[n] or behind it.
 * Tests:  tests/test_parse.c: byte_order, utf8_*
 * ============================================================================================ */

static uint64_t dp__load_le(const uint8_t *p, size_t bytes) {
    uint64_t v = 0;
    for (size_t i = bytes; i > 0; i--) v = v << 8 | p[i - 1];
    return v;
}

static void dp__store_le(uint8_t *p, size_t bytes, uint64_t v) {
    for (size_t i = 0; i < bytes; i++, v >>= 8) p[i] = (uint8_t)v;
}

/* Little-endian items of a file into this machine's order, or back; nothing on most machines. */
static void dp__swap_le(void *items, size_t count, size_t size) {
    const uint16_t one = 1;
    char *p = (char *)items;
    if (*(const char *)&one == 1) return;
    for (size_t i = 0; i < count; i++, p += size) {
        for (size_t a = 0, b = size - 1; a < b; a++, b--) dp__swap(p + a, p + b, 1);
    }
}

#define DP__BAD 0xFFFDu /* stands for a maximal bad sequence */

/* Decodes UTF-8 at p[0..n), n > 0: bytes consumed; *c is a scalar value, or DP__BAD with *bad
 * raised. "Maximal" as in the Unicode standard, section 3.9: the bytes that could have begun a
 * character count as one bad sequence. */
static size_t dp__utf8_get(const uint8_t *p, size_t n, uint32_t *c, size_t *bad) {
    uint32_t lead = p[0];
    *c = lead;
    if (lead < 0x80) return 1;
    size_t   more = lead < 0xC2 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : 0;
    uint32_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80; /* no overlong form */
    uint32_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF; /* no surrogate, <= 10FFFF */
    uint32_t value = lead & (0x3Fu >> more);
    size_t   i = 1;
    for (; i <= more && i < n && p[i] >= low && p[i] <= high; i++) {
        value = value << 6 | (p[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    if (more > 0 && i > more) {
        *c = value;
        return i;
    }
    *c = DP__BAD;
    (*bad)++;
    return i;
}

/* Writes a scalar value as UTF-8; returns the bytes, at most 4. */
static size_t dp__utf8_put(char *to, uint32_t c) {
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n; i-- > 1; c >>= 6) to[i] = (char)(0x80 | (c & 0x3F));
    to[0] = (char)(lead[n] | c);
    return n;
}

/* ============================================================================================
 * [C2] JSON                                                                   budget 450 lines
 * Owns:   the pull parser, duplicate keys, text of strings, the writer.
 * Needs:  B2 sizes, B3 memory, B4 numbers, B6 sort, C1 UTF-8.
 * Never:  recurses; allocates while parsing; accepts what RFC 8259 does not.
 * Rules:  J1 grammar and UTF-8, J2 duplicate keys, J3 lone surrogate or NUL in a name, J4 depth,
 *         members and length of strings, J5 something behind the value, J6 numbers.
 * Memory: dp__doc_check takes 6 bytes for each of the document while it runs.
 * Tests:  tests/test_parse.c: json_*     Fuzz: tests/fuzz/fuzz_json.c
 * ============================================================================================ */

#ifndef DP_MAX_JSON_DEPTH
#define DP_MAX_JSON_DEPTH 64
#endif
#define DP_MAX_JSON_MEMBERS 4194304
#define DP_MAX_JSON_STRING 16777216
#if DP_MAX_JSON_DEPTH > 64
#error "diseasepred.h: DP_MAX_JSON_DEPTH is at most 64 (dp_json.in_object has a bit a level)"
#endif

/* What may stand at the next byte; from DP__J_FIRST_VALUE on also the end of what is open. */
enum { DP__J_VALUE, DP__J_KEY, DP__J_FIRST_VALUE, DP__J_FIRST_KEY, DP__J_AFTER, DP__J_DONE };

static void dp__json_begin(dp_json *json, const char *text, size_t bytes) {
    memset(json, 0, sizeof *json);
    json->text = text;
    json->bytes = bytes;
}

/* A document under way: the parser, and what its errors name. The first error stays in status
 * and stops the parser, so that a walk over members needs to look at it only in the end. */
typedef struct dp__doc {
    dp_json     json;
    dp_status   status;
    dp__arena  *arena; /* names are copied there */
    const char *file;
    dp_error   *err;
} dp__doc;

/* Breaks off at a byte; token: a text to show there, or NULL. */
static dp_status dp__doc_fail(dp__doc *d, dp_status code, const char *rule, uint64_t place,
                              const dp_json *token, const char *sentence) {
    char shown[DP__NAME_SHOWN + 2] = ""; /* one byte more, which makes "..." */
    int  text = token != NULL && token->kind >= DP_JSON_KEY;
    if (d->status != DP_OK) return d->status;
    if (text) memcpy(shown, token->text + token->token,
                     token->length <= DP__NAME_SHOWN ? token->length : DP__NAME_SHOWN + 1);
    d->status = dp__fail_at(d->err, code, rule, d->file, place, sentence, text ? shown : NULL);
    return d->status;
}

/* Breaks off at a token. */
static void dp__doc_refuse(dp__doc *d, dp_status code, const char *rule, const dp_json *token,
                           const char *sentence) {
    dp__doc_fail(d, code, rule, token->token, token, sentence);
}

/* Breaks off at the present token. */
static void dp__doc_bad(dp__doc *d, const char *rule, const char *sentence) {
    dp__doc_refuse(d, DP_E_FORMAT, rule, &d->json, sentence);
}

/* Breaks off at the next byte. */
static dp_status dp__json_stop(dp__doc *d, dp_status code, const char *rule, const char *sentence) {
    return dp__doc_fail(d, code, rule, d->json.at, NULL, sentence);
}

/* Memory of the document's arena, or NULL; there is also none after an error. */
static void *dp__doc_get(dp__doc *d, size_t count, size_t size) {
    void *p = d->status == DP_OK ? dp__arena_get(d->arena, count, size) : NULL;
    if (p == NULL && d->status == DP_OK) d->status = dp__no_memory(d->err);
    return p;
}

/* The character at p[*at] of a string, escapes undone; *at moves behind it. Lone surrogates come
 * back as such. -1: not a character of a string. n bytes are readable; the quote is none. */
static int32_t dp__json_char(const char *p, size_t n, size_t *at) {
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    static const char hex[] = "0123456789abcdefABCDEF";
    size_t i = *at;
    if (i >= n || (unsigned char)p[i] < 32) return -1;
    if (p[i] != '\\') {
        uint32_t c;
        size_t   bad = 0;
        *at += dp__utf8_get((const uint8_t *)p + i, n - i, &c, &bad);
        return bad ? -1 : (int32_t)c;
    }
    if (++i >= n) return -1;
    const char *found = p[i] != 0 ? strchr(plain, p[i]) : NULL;
    if (p[i] != 'u') {
        *at = i + 1;
        return found != NULL ? meant[found - plain] : -1;
    }
    int32_t c = 0;
    for (size_t k = i + 1; k <= i + 4; k++) {
        found = k < n && p[k] != 0 ? strchr(hex, p[k]) : NULL;
        if (found == NULL) return -1;
        c = c << 4 | (int32_t)(found - hex - (found - hex < 16 ? 0 : 6));
    }
    *at = i + 5;
    return c;
}

/* The same, with pairs of surrogates put together; 0xD800..0xDFFF: a lone one. */
static int32_t dp__json_rune(const char *p, size_t n, size_t *at) {
    int32_t c = dp__json_char(p, n, at);
    size_t  next = *at;
    if (c < 0xD800 || c > 0xDBFF || next >= n || p[next] != '\\') return c;
    int32_t low = dp__json_char(p, n, &next);
    if (low < 0xDC00 || low > 0xDFFF) return c;
    *at = next;
    return 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
}

static int dp__json_lone(int32_t c) {
    return c >= 0xD800 && c <= 0xDFFF;
}

/* ---- the pull parser ---------------------------------------------------------------------- */

/* The next bytes are the present token. */
static dp_status dp__json_take(dp_json *json, dp_json_kind kind, size_t bytes) {
    json->kind = kind;
    json->token = json->at;
    json->length = bytes;
    json->at += bytes;
    json->state = json->depth > 0 ? DP__J_AFTER : DP__J_DONE;
    return DP_OK;
}

/* The string whose opening quote stands at the next byte; a key is a name (J3). */
static dp_status dp__json_string(dp__doc *d, dp_json_kind kind) {
    dp_json *json = &d->json;
    size_t start = json->at + 1, at = start;
    while (at >= json->bytes || json->text[at] != '"') {
        json->at = at; /* where an error would stand */
        int32_t c = dp__json_rune(json->text, json->bytes, &at);
        if (c < 0) return dp__json_stop(d, DP_E_FORMAT, "J1", "a string breaks off or is bad here");
        if (kind == DP_JSON_KEY && (c == 0 || dp__json_lone(c)))
            return dp__json_stop(d, DP_E_FORMAT, "J3", "a name holds NUL or a lone surrogate");
        if (at - start > DP_MAX_JSON_STRING)
            return dp__doc_fail(d, DP_E_LIMIT, "J4", start, NULL, "a string is too long");
    }
    json->at = start;
    dp__json_take(json, kind, at - start);
    json->at++;
    return DP_OK;
}

static dp_status dp__json_number(dp__doc *d) {
    dp_json    *json = &d->json;
    dp__decimal number;
    const char *p = json->text + json->at;
    size_t left = json->bytes - json->at, n = 0;
    while (n < left && n <= DP_MAX_JSON_NUMBER && p[n] != 0 && strchr("+-.0123456789eE", p[n])) n++;
    if (n > DP_MAX_JSON_NUMBER) return dp__json_stop(d, DP_E_LIMIT, "J6", "a number is too long");
    if (dp__decimal_read(&number, p, n)) return dp__json_take(json, DP_JSON_NUMBER, number.bytes);
    json->at += number.bytes;
    return dp__json_stop(d, DP_E_FORMAT, "J6", "a number breaks off or lacks digits");
}

static dp_status dp__json_word(dp__doc *d, const char *word, dp_json_kind kind) {
    dp_json *json = &d->json;
    size_t   n = 0;
    while (word[n] != 0 && json->at + n < json->bytes && json->text[json->at + n] == word[n]) n++;
    if (word[n] == 0) return dp__json_take(json, kind, n);
    json->at += n;
    return dp__json_stop(d, DP_E_FORMAT, "J1", "no JSON value");
}

static dp_status dp__json_open(dp__doc *d, int object) {
    dp_json *json = &d->json;
    if (json->depth >= DP_MAX_JSON_DEPTH)
        return dp__json_stop(d, DP_E_LIMIT, "J4", "values are nested too deep");
    uint64_t bit = (uint64_t)1 << json->depth++;
    json->in_object = object ? json->in_object | bit : json->in_object & ~bit;
    dp__json_take(json, object ? DP_JSON_OBJECT : DP_JSON_ARRAY, 1);
    json->state = object ? DP__J_FIRST_KEY : DP__J_FIRST_VALUE;
    return DP_OK;
}

static dp_status dp__json_value(dp__doc *d) {
    dp_json *json = &d->json;
    char     c = json->text[json->at];
    if (json->depth > 0 && json->members >= DP_MAX_JSON_MEMBERS)
        return dp__json_stop(d, DP_E_LIMIT, "J4", "too many members");
    if (json->depth > 0) json->members++;
    if (c == '{' || c == '[') return dp__json_open(d, c == '{');
    if (c == '"') return dp__json_string(d, DP_JSON_STRING);
    if (c == '-' || (c >= '0' && c <= '9')) return dp__json_number(d);
    if (c == 't') return dp__json_word(d, "true", DP_JSON_TRUE);
    if (c == 'f') return dp__json_word(d, "false", DP_JSON_FALSE);
    return dp__json_word(d, "null", DP_JSON_NULL);
}

static void dp__json_blank(dp_json *json) {
    for (; json->at < json->bytes; json->at++) {
        char c = json->text[json->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
    }
}

/* A key and its colon. */
static dp_status dp__json_key(dp__doc *d) {
    dp_json *json = &d->json;
    if (json->text[json->at] != '"')
        return dp__json_stop(d, DP_E_FORMAT, "J1", "a name in quotes is missing");
    if (dp__json_string(d, DP_JSON_KEY) != DP_OK) return d->status;
    dp__json_blank(json);
    if (json->at >= json->bytes || json->text[json->at] != ':')
        return dp__json_stop(d, DP_E_FORMAT, "J1", "a colon is missing");
    json->at++;
    json->state = DP__J_VALUE;
    return DP_OK;
}

/* The next token. */
static dp_status dp__json_next(dp__doc *d) {
    dp_json *json = &d->json;
    int      object = json->depth > 0 && (json->in_object >> (json->depth - 1) & 1);
    if (d->status != DP_OK) return d->status;
    dp__json_blank(json);
    if (json->state == DP__J_DONE) {
        if (json->at < json->bytes) return dp__json_stop(d, DP_E_FORMAT, "J5", "something follows");
        json->kind = DP_JSON_END;
        return DP_OK;
    }
    if (json->state == DP__J_AFTER && json->at < json->bytes && json->text[json->at] == ',') {
        json->at++;
        json->state = object ? DP__J_KEY : DP__J_VALUE;
        dp__json_blank(json);
    }
    if (json->at >= json->bytes)
        return dp__json_stop(d, DP_E_FORMAT, "J1", "the text ends too early");
    if (json->state >= DP__J_FIRST_VALUE && json->text[json->at] == (object ? '}' : ']')) {
        json->depth--;
        return dp__json_take(json, object ? DP_JSON_OBJECT_END : DP_JSON_ARRAY_END, 1);
    }
    if (json->state == DP__J_AFTER)
        return dp__json_stop(d, DP_E_FORMAT, "J1", "a comma is missing");
    if (json->state == DP__J_KEY || json->state == DP__J_FIRST_KEY) return dp__json_key(d);
    return dp__json_value(d);
}

/* Over the value that begins with, or belongs to, the present token. */
static dp_status dp__json_skip(dp__doc *d) {
    const dp_json *json = &d->json;
    if (json->kind == DP_JSON_KEY) dp__json_next(d);
    int opens = json->kind == DP_JSON_OBJECT || json->kind == DP_JSON_ARRAY;
    for (int32_t outside = json->depth - opens; d->status == DP_OK && json->depth > outside;)
        dp__json_next(d);
    return d->status;
}

/* ---- text and numbers of a token ---------------------------------------------------------- */

/* Text of the present string or key as UTF-8: returns the bytes, and writes them when they and a
 * 0 behind them fit. Never more than json->length. Lone surrogates become U+FFFD. */
static size_t dp__json_text(const dp_json *json, char *to, size_t cap) {
    const char *p = json->text + json->token;
    size_t      n = 0;
    char        utf8[4];
    for (size_t at = 0; at < json->length;) {
        int32_t c = dp__json_rune(p, json->length, &at);
        if (c < 0) break; /* cannot happen: the scan has seen it */
        size_t bytes = dp__utf8_put(utf8, dp__json_lone(c) ? 0xFFFDu : (uint32_t)c);
        if (n < cap && bytes <= cap - n) memcpy(to + n, utf8, bytes);
        n += bytes;
    }
    if (n < cap) to[n] = 0;
    return n;
}

/* Order of two strings of checked documents, escapes undone. */
static int dp__json_order(const char *p, size_t n, const char *q, size_t m) {
    size_t i = 0, j;
    while (i < n && i < m && p[i] == q[i] && p[i] != '\\' && !(p[i] & 0x80)) i++; /* cheap */
    for (j = i; i < n && j < m;) {
        int32_t x = dp__json_rune(p, n, &i), y = dp__json_rune(q, m, &j);
        if (x != y) return x < y ? -1 : 1;
    }
    return (i < n) - (j < m);
}

/* Is the text of the present token this one? */
static int dp__json_is(const dp_json *json, const char *text) {
    return dp__json_order(json->text + json->token, json->length, text, strlen(text)) == 0;
}

/* 1, or 0: not an integer in [min, max], or written with a fraction or an exponent, or -0. */
static int dp__json_int(const dp_json *json, int64_t min, int64_t max, int64_t *to) {
    const char *p = json->text + json->token;
    size_t   minus = json->length > 0 && p[0] == '-';
    uint64_t v;
    if (json->kind != DP_JSON_NUMBER) return 0;
    if (!dp__read_u64(p + minus, json->length - minus, &v)) return 0;
    if (v > (uint64_t)INT64_MAX + minus || (minus && v == 0)) return 0;
    int64_t value = minus ? -1 - (int64_t)(v - 1) : (int64_t)v;
    if (value < min || value > max) return 0;
    *to = value;
    return 1;
}

static int dp__json_double(const dp_json *json, double *to) {
    return json->kind == DP_JSON_NUMBER &&
           dp__read_double(json->text + json->token, json->length, to);
}

/* ---- whole documents ---------------------------------------------------------------------- */

/* A name in the document, for the search for duplicates. */
typedef struct dp__json_name {
    const char *p; /* escapes as written */
    size_t      length, object; /* number of its object */
} dp__json_name;

static int dp__json_name_compare(const void *pa, const void *pb) {
    const dp__json_name *a = (const dp__json_name *)pa, *b = (const dp__json_name *)pb;
    if (a->object != b->object) return a->object < b->object ? -1 : 1;
    return dp__json_order(a->p, a->length, b->p, b->length);
}

/* J1 to J6 for all that follows the parser's place, which stays. What is read from it later has
 * no errors of grammar. */
static dp_status dp__doc_check(dp__doc *d) {
    size_t   object[DP_MAX_JSON_DEPTH + 1], objects = 0, count = 0;
    dp_json  start = d->json, *json = &d->json;
    size_t   cap = (json->bytes - json->at) / 4; /* a name takes at least {"": or ,"": */
    dp__json_name *names = (dp__json_name *)dp__alloc(&d->arena->alloc, cap, sizeof *names);
    if (names == NULL && d->status == DP_OK) d->status = dp__no_memory(d->err);
    while (dp__json_next(d) == DP_OK && json->kind != DP_JSON_END) {
        if (json->kind == DP_JSON_OBJECT) object[json->depth] = objects++;
        if (json->kind != DP_JSON_KEY) continue;
        dp__json_name name = {json->text + json->token, json->length, object[json->depth]};
        names[count++] = name;
    }
    if (count > 1 && d->status == DP_OK)
        dp__sort(names, count, sizeof *names, dp__json_name_compare);
    for (size_t i = 1; i < count && d->status == DP_OK; i++) {
        const dp__json_name *a = names + i - 1, *b = names + i, *later = a->p > b->p ? a : b;
        if (dp__json_name_compare(a, b) != 0) continue;
        json->kind = DP_JSON_KEY;
        json->token = (size_t)(later->p - json->text);
        json->length = later->length;
        dp__doc_bad(d, "J2", "a name stands twice in one object");
    }
    dp__free(&d->arena->alloc, names, cap, sizeof *names);
    *json = start;
    return d->status;
}

static dp__doc dp__doc_new(dp__arena *arena, const char *file, dp_error *err) {
    dp__doc d = {{NULL, 0, 0, 0, 0, DP_JSON_END, 0, 0, 0, 0}, DP_OK, arena, file, err};
    return d;
}

/* Checks the document that is the rest of text from at on and enters its object, whose inside
 * has depth 1; rule speaks when it is none. */
static dp_status dp__doc_begin(dp__doc *d, const char *text, size_t at, size_t bytes,
                               const char *rule) {
    dp__json_begin(&d->json, text, bytes);
    d->json.at = at;
    dp__doc_check(d);
    dp__json_next(d);
    if (d->json.kind != DP_JSON_OBJECT) dp__doc_bad(d, rule, "the document is not an object");
    return d->status;
}

/* To the next member of the object, or element of the array, whose inside has this depth, over
 * what is left of the one before: json stands at its value, *name is its name (of an element: its
 * first token). 0 at the end and after an error. */
static int dp__doc_next(dp__doc *d, int32_t depth, dp_json *name) {
    const dp_json *json = &d->json;
    while (dp__json_next(d) == DP_OK && json->depth >= depth) {
        int opens = json->kind == DP_JSON_OBJECT || json->kind == DP_JSON_ARRAY;
        int closes = json->kind == DP_JSON_OBJECT_END || json->kind == DP_JSON_ARRAY_END;
        if (closes || json->depth - opens != depth) continue;
        *name = *json;
        return json->kind != DP_JSON_KEY || dp__json_next(d) == DP_OK;
    }
    return 0;
}

/* Members or elements of the object or array that the present token begins. */
static size_t dp__doc_count(const dp__doc *d) {
    dp__doc copy = *d;
    dp_json name;
    size_t  n = 0;
    while (dp__doc_next(&copy, d->json.depth, &name)) n++;
    return n;
}

/* A string token as a name: in the arena, a 0 behind it; no NUL or lone surrogate (J3). NULL
 * after an error. */
static const char *dp__doc_name(dp__doc *d, const dp_json *token, size_t max) {
    const char *p = token->text + token->token;
    if (token->kind != DP_JSON_STRING && token->kind != DP_JSON_KEY)
        dp__doc_refuse(d, DP_E_FORMAT, "J1", token, "a string is expected");
    for (size_t at = 0; d->status == DP_OK && at < token->length;) {
        size_t  here = token->token + at;
        int32_t c = dp__json_rune(p, token->length, &at);
        if (c == 0 || dp__json_lone(c))
            dp__doc_fail(d, DP_E_FORMAT, "J3", here, NULL, "a name holds NUL or a lone surrogate");
    }
    size_t bytes = dp__json_text(token, NULL, 0);
    if (bytes > max) dp__doc_refuse(d, DP_E_LIMIT, "J4", token, "a name is too long");
    char *copy = (char *)dp__doc_get(d, bytes + 1, 1);
    if (copy != NULL) dp__json_text(token, copy, bytes + 1);
    return copy;
}

/* ---- writer ------------------------------------------------------------------------------- */

static void dp__put_text(dp__buffer *put, const char *text) {
    dp__buffer_add(put, text, strlen(text));
}

static void dp__put_u64(dp__buffer *put, uint64_t v) {
    char     digits[24];
    dp__text t = {digits, sizeof digits, 0};
    dp__text_u64(&t, v);
    dp__buffer_add(put, digits, t.n);
}

/* A finite number; JSON has no others: null. */
static void dp__put_real(dp__buffer *put, float v) {
    char     digits[40];
    dp__text t = {digits, sizeof digits, 0};
    if (v <= FLT_MAX && v >= -FLT_MAX) dp__text_f32(&t, v);
    else dp__text_add(&t, "null");
    dp__buffer_add(put, digits, t.n);
}

/* A string in quotes: controls, DEL, U+2028 and U+2029 escaped, bad UTF-8 as U+FFFD. */
static void dp__put_string(dp__buffer *put, const char *p, size_t n) {
    dp__put_text(put, "\"");
    for (size_t i = 0, bytes, bad = 0; i < n; i += bytes) {
        char     utf8[4], escape[] = "\\u00xx";
        uint32_t c;
        bytes = dp__utf8_get((const uint8_t *)p + i, n - i, &c, &bad);
        escape[4] = dp__hex_digits[c >> 4 & 15];
        escape[5] = dp__hex_digits[c & 15];
        if (c == '"' || c == '\\') dp__put_text(put, c == '"' ? "\\\"" : "\\\\");
        else if (c < 32 || c == 127) dp__put_text(put, escape);
        else if (c == 0x2028 || c == 0x2029) dp__put_text(put, c == 0x2028 ? "\\u2028" : "\\u2029");
        else dp__buffer_add(put, utf8, dp__utf8_put(utf8, c));
    }
    dp__put_text(put, "\"");
}

/* ============================================================================================
 * [C3] safetensors                                                            budget 570 lines
 * Owns:   the header grammar and every offset check; one file or shards; the writer.
 * Needs:  B2 sizes, B3 memory, B5 files, B6 sort, C1 bytes, C2 JSON.
 * Never:  trusts a shape, an offset or a name; keeps data of tensors in memory.
 * Rules:  S1 at least 8 bytes, S2 header length, S3 begins with a brace, S4 only spaces behind,
 *         S5 metadata are strings, S6 members of an entry, S7 shape, S8 size of the data,
 *         S9 no hole, overlap or rest, S10 type, S11 no alignment assumed, S12 only finite
 *         numbers; F1 shard names, F11 the index and its shards name the same tensors.
 * Memory: at most 8 times the headers + 64 KiB.
 * Tests:  tests/test_parse.c: st_*, index_*
 * Fuzz:   tests/fuzz/fuzz_safetensors.c, tests/fuzz/fuzz_index.c
 * ============================================================================================ */

#ifndef DP_MAX_HEADER_BYTES
#define DP_MAX_HEADER_BYTES 100000000
#endif
#ifndef DP_MAX_TENSORS
#define DP_MAX_TENSORS 65536
#endif
#define DP_MAX_NAME_BYTES 1024
#define DP_MAX_DIMS 8
#define DP_MAX_SHARDS 1024
#define DP__MAX_DIM 2147483647         /* of one dimension */
#define DP__MAX_METADATA_BYTES 1048576 /* of "__metadata__" as written */

/* Name, bits, and what this program computes with it: 0 nothing (S10), 1 integers, 2 reals. In
 * the order in which the reference writer puts tensors, last first. */
#define DP__DTYPES(X)                                                                            \
    X(BOOL, 8, 0) X(F4, 4, 0) X(F6_E2M3, 6, 0) X(F6_E3M2, 6, 0) X(U8, 8, 1) X(I8, 8, 1)          \
    X(F8_E5M2, 8, 0) X(F8_E4M3, 8, 0) X(F8_E8M0, 8, 0) X(F8_E4M3FNUZ, 8, 0)                      \
    X(F8_E5M2FNUZ, 8, 0) X(I16, 16, 0) X(U16, 16, 0) X(F16, 16, 2) X(BF16, 16, 2) X(I32, 32, 1)  \
    X(U32, 32, 0) X(F32, 32, 2) X(C64, 64, 0) X(F64, 64, 2) X(I64, 64, 1) X(U64, 64, 0)
#define DP__DTYPE_NAME(name, bits, use) DP__##name,
#define DP__DTYPE_ROW(name, bits, use) {#name, bits, use},
typedef enum dp__dtype { DP__DTYPES(DP__DTYPE_NAME) DP__DTYPE_COUNT } dp__dtype;
typedef struct dp__dtype_row {
    const char *name;
    uint32_t    bits;
    int         use;
} dp__dtype_row;
static const dp__dtype_row dp__dtypes[] = {DP__DTYPES(DP__DTYPE_ROW)};

typedef struct dp__entry {
    const char *name; /* 0 behind it */
    dp__dtype   dtype;
    int32_t     dims;
    uint64_t    shape[DP_MAX_DIMS];
    uint64_t    begin, bytes; /* place in its file */
    uint32_t    file;
} dp__entry;

typedef struct dp__store {
    dp_io        io;
    dp__entry   *entries; /* [count] sorted by name */
    size_t       count;
    void       **files;   /* [file_count] open; there is room for DP_MAX_SHARDS */
    const char **names;   /* [file_count] */
    uint32_t     file_count;
} dp__store;

/* Bytes of an element; 0: not one that this program computes with. */
static size_t dp__dtype_bytes(dp__dtype dtype) {
    return dp__dtypes[dtype].use ? dp__dtypes[dtype].bits / 8 : 0;
}

/* Product of a shape; 0 when it is above 2^64. Trap: a product that wraps to 0 looks like an empty
 * tensor; a tensor is empty because a dimension is 0. */
static int dp__shape_count(const uint64_t *shape, int32_t dims, uint64_t *count) {
    int fits = 1, empty = 0;
    *count = 1;
    for (int32_t i = 0; i < dims; i++) {
        if (shape[i] == 0) empty = 1;
        else if (!dp__mul_u64(*count, shape[i], count)) fits = 0;
    }
    if (empty) *count = 0;
    return fits || empty;
}

/* ---- the header --------------------------------------------------------------------------- */

/* An array of up to cap integers from 0 to max; returns their number. code and rule speak when
 * there are more, or a larger one. */
static int32_t dp__st_numbers(dp__doc *d, uint64_t *to, int32_t cap, int64_t max, dp_status code,
                              const char *rule) {
    int32_t n = 0, depth = d->json.depth;
    int64_t v;
    dp_json first;
    if (d->json.kind != DP_JSON_ARRAY) dp__doc_bad(d, "S6", "an array is expected");
    while (dp__doc_next(d, depth, &first)) {
        if (!dp__json_int(&d->json, 0, INT64_MAX, &v))
            dp__doc_bad(d, "S6", "an integer from 0 up is expected");
        else if (n == cap || v > max)
            dp__doc_refuse(d, code, rule, &first, "too many numbers, or one too large");
        else to[n++] = (uint64_t)v;
    }
    return n;
}

static void dp__st_dtype(dp__doc *d, dp__entry *e) {
    int i = 0;
    if (d->json.kind != DP_JSON_STRING) dp__doc_bad(d, "S6", "dtype is not a string");
    while (i < DP__DTYPE_COUNT && !dp__json_is(&d->json, dp__dtypes[i].name)) i++;
    if (i < DP__DTYPE_COUNT) e->dtype = (dp__dtype)i;
    else dp__doc_refuse(d, DP_E_UNSUPPORTED, "S10", &d->json, "unknown dtype");
}

/* The object behind the name of a tensor (S6, S7, S8). */
static void dp__st_entry(dp__doc *d, const dp_json *name, dp__entry *e) {
    uint64_t at[2] = {0, 0}, count, bits, place = d->json.token;
    int32_t  depth = d->json.depth, seen = 0;
    dp_json  key;
    if (d->json.kind != DP_JSON_OBJECT) dp__doc_bad(d, "S6", "a tensor is not an object");
    while (dp__doc_next(d, depth, &key)) {
        int which = dp__json_is(&key, "dtype") ? 1 : dp__json_is(&key, "shape") ? 2
                  : dp__json_is(&key, "data_offsets") ? 4 : 0;
        seen |= which;
        if (which == 0) dp__doc_refuse(d, DP_E_FORMAT, "S6", &key, "an unknown member");
        else if (which == 1) dp__st_dtype(d, e);
        else if (which == 2)
            e->dims = dp__st_numbers(d, e->shape, DP_MAX_DIMS, DP__MAX_DIM, DP_E_LIMIT, "S7");
        else if (dp__st_numbers(d, at, 2, INT64_MAX, DP_E_FORMAT, "S6") != 2)
            dp__doc_bad(d, "S6", "data_offsets has less than two numbers");
    }
    if (seen != 7)
        dp__doc_fail(d, DP_E_FORMAT, "S6", place, name, "dtype, shape or data_offsets is missing");
    else if (!dp__shape_count(e->shape, e->dims, &count) ||
             !dp__mul_u64(count, dp__dtypes[e->dtype].bits, &bits))
        dp__doc_fail(d, DP_E_FORMAT, "S7", place, name, "the product of a shape overflows");
    else if (bits % 8 != 0 || at[1] < at[0] || at[1] - at[0] != bits / 8)
        dp__doc_fail(d, DP_E_FORMAT, "S8", place, name, "data_offsets do not fit dtype and shape");
    e->begin = at[0];
    e->bytes = at[1] - at[0];
}

/* "__metadata__": strings only (S5). */
static void dp__st_metadata(dp__doc *d) {
    size_t  first = d->json.token;
    int32_t depth = d->json.depth;
    dp_json key;
    if (d->json.kind != DP_JSON_OBJECT) dp__doc_bad(d, "S5", "__metadata__ is not an object");
    while (dp__doc_next(d, depth, &key)) {
        if (d->json.kind != DP_JSON_STRING) dp__doc_bad(d, "S5", "not a string in __metadata__");
    }
    if (d->json.at - first > DP__MAX_METADATA_BYTES)
        dp__doc_refuse(d, DP_E_LIMIT, "S5", &d->json, "__metadata__ is too large");
}

/* The tensors of the header text[8..end), behind those that the store has. want: how many the
 * index promises (F11); 0: there is no index, the store gets its memory here. */
static dp_status dp__st_entries(dp__store *store, dp__doc *d, const char *text, size_t end,
                                size_t want) {
    size_t  count = 0;
    dp_json name, root;
    dp__doc_begin(d, text, 8, end, "S3");
    root = d->json;
    while (dp__doc_next(d, 1, &name)) count += !dp__json_is(&name, "__metadata__");
    if (count > DP_MAX_TENSORS) dp__doc_refuse(d, DP_E_LIMIT, "S6", &d->json, "too many tensors");
    if (want != 0 && count != want)
        dp__doc_fail(d, DP_E_FORMAT, "F11", DP_NO_PLACE, NULL, "the index has other tensors here");
    if (want == 0) store->entries = (dp__entry *)dp__doc_get(d, count, sizeof *store->entries);
    d->json = root;
    while (dp__doc_next(d, 1, &name)) {
        if (dp__json_is(&name, "__metadata__")) {
            dp__st_metadata(d);
            continue;
        }
        dp__entry *e = store->entries + store->count++;
        e->file = store->file_count - 1;
        if (dp__json_text(&name, NULL, 0) > DP_MAX_NAME_BYTES)
            dp__doc_refuse(d, DP_E_LIMIT, "S6", &name, "the name is too long");
        e->name = dp__doc_name(d, &name, DP_MAX_NAME_BYTES);
        dp__st_entry(d, &name, e);
    }
    return d->status;
}

static int dp__entry_by_place(const void *pa, const void *pb) {
    const dp__entry *a = (const dp__entry *)pa, *b = (const dp__entry *)pb;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static int dp__entry_by_name(const void *pa, const void *pb) {
    return strcmp(((const dp__entry *)pa)->name, ((const dp__entry *)pb)->name);
}

static dp_status dp__entry_fail(const dp__store *store, const dp__entry *e, dp_status code,
                                const char *rule, uint64_t place, const char *sentence,
                                dp_error *err) {
    return dp__fail_at(err, code, rule, store->names[e->file], place, sentence, e->name);
}

/* S9: the data of the tensors fill the file from start to size without a hole, an overlap or a
 * rest. On success places are counted from the beginning of the file. */
static dp_status dp__st_places(const dp__store *store, dp__doc *d, dp__entry *entries,
                               size_t count, uint64_t start, uint64_t size) {
    uint64_t end = start;
    dp__sort(entries, count, sizeof *entries, dp__entry_by_place);
    for (size_t i = 0; i < count && d->status == DP_OK; i++) {
        dp__entry  *e = entries + i;
        const char *wrong = e->begin > end - start ? "a hole in front of a tensor"
                          : e->begin < end - start ? "a tensor overlaps another"
                          : e->bytes > size - end ? "the file ends in a tensor" : NULL;
        if (wrong != NULL)
            d->status = dp__entry_fail(store, e, DP_E_FORMAT, "S9", end, wrong, d->err);
        e->begin = end;
        end += e->bytes;
    }
    if (end != size) dp__doc_fail(d, DP_E_FORMAT, "S9", end, NULL, "bytes follow the last tensor");
    dp__sort(entries, count, sizeof *entries, dp__entry_by_name);
    return d->status;
}

/* What a call to the files has returned becomes the status of the document. */
static dp_status dp__doc_io(dp__doc *d, dp_status status) {
    if (status != DP_OK) d->status = dp__io_fail(d->err, status, d->file);
    return d->status;
}

/* Reads and checks the header of a file of size bytes: S1 to S9. */
static dp_status dp__st_header(dp__store *store, dp__doc *d, uint64_t size, size_t want) {
    uint8_t raw[8];
    void   *file = store->files[store->file_count - 1];
    if (size < 8)
        return dp__doc_fail(d, DP_E_FORMAT, "S1", size, NULL, "the file is shorter than 8 bytes");
    if (dp__doc_io(d, store->io.pread(store->io.ctx, file, 0, raw, 8)) != DP_OK) return d->status;
    uint64_t n = dp__load_le(raw, 8);
    if (n > DP_MAX_HEADER_BYTES)
        return dp__doc_fail(d, DP_E_LIMIT, "S2", 0, NULL, "the header is too long");
    if (n > size - 8)
        return dp__doc_fail(d, DP_E_FORMAT, "S2", 0, NULL, "the header is longer than the file");
    size_t bytes = (size_t)n + 8, end = bytes, first = store->count; /* n is below its limit */
    char  *text = (char *)dp__doc_get(d, bytes, 1);
    if (text != NULL) dp__doc_io(d, store->io.pread(store->io.ctx, file, 0, text, bytes));
    if (d->status != DP_OK) return d->status;
    while (end > 8 && text[end - 1] == ' ') end--;
    if (n == 0 || text[8] != '{')
        return dp__doc_fail(d, DP_E_FORMAT, "S3", 8, NULL, "the header lacks its opening brace");
    if (text[end - 1] != '}')
        return dp__doc_fail(d, DP_E_FORMAT, "S4", end - 1, NULL, "the header lacks its last brace");
    if (dp__st_entries(store, d, text, end, want) != DP_OK) return d->status;
    return dp__st_places(store, d, store->entries + first, store->count - first, bytes, size);
}

/* ---- one file or shards ------------------------------------------------------------------- */

/* Opens one more file of the store and reads its header; want as in dp__st_entries. */
static dp_status dp__store_add(dp__store *store, dp__doc *d, void *dir, const char *name,
                               size_t want) {
    uint64_t size = 0;
    if (d->status != DP_OK) return d->status;
    d->file = name;
    void **file = &store->files[store->file_count];
    dp__doc_io(d, store->io.open(store->io.ctx, dir, name, file, &size));
    if (d->status != DP_OK) return d->status;
    store->names[store->file_count++] = name;
    return dp__st_header(store, d, size, want);
}

static void dp__store_close(dp__store *store) {
    for (uint32_t i = 0; i < store->file_count; i++)
        store->io.close(store->io.ctx, store->files[i]);
    memset(store, 0, sizeof *store);
}

/* One line of "weight_map". */
typedef struct dp__mapped {
    const char *file, *name;
} dp__mapped;

static int dp__mapped_compare(const void *pa, const void *pb) {
    const dp__mapped *a = (const dp__mapped *)pa, *b = (const dp__mapped *)pb;
    int files = strcmp(a->file, b->file);
    return files != 0 ? files : strcmp(a->name, b->name);
}

/* "weight_map": names of tensors to names of files (F1, F11), sorted by file, then by tensor. */
static dp__mapped *dp__index_map(dp__doc *d, size_t *count) {
    int32_t depth = d->json.depth;
    dp_json key;
    if (d->json.kind != DP_JSON_OBJECT) dp__doc_bad(d, "F11", "weight_map is not an object");
    *count = dp__doc_count(d);
    if (*count > DP_MAX_TENSORS) dp__doc_refuse(d, DP_E_LIMIT, "S6", &d->json, "too many tensors");
    dp__mapped *map = (dp__mapped *)dp__doc_get(d, *count, sizeof *map), *m = map;
    for (; dp__doc_next(d, depth, &key); m++) {
        if (d->json.kind != DP_JSON_STRING) dp__doc_bad(d, "F11", "a file's name is not a string");
        m->name = dp__doc_name(d, &key, DP_MAX_NAME_BYTES);
        m->file = dp__doc_name(d, &d->json, DP__NAME_BYTES);
        if (m->file != NULL && !dp__file_name_ok(m->file))
            dp__doc_bad(d, "F1", "a file's name is not a plain one");
    }
    if (d->status == DP_OK) dp__sort(map, *count, sizeof *map, dp__mapped_compare);
    return map;
}

/* The shards of an index: each has exactly the tensors that the map gives it (F11). "metadata"
 * is not used. */
static dp_status dp__store_shards(dp__store *store, dp__doc *d, void *dir, const char *text,
                                  size_t bytes) {
    size_t      count = 0, files = 1;
    dp__mapped *map = NULL;
    dp_json     key;
    dp__doc_begin(d, text, 0, bytes, "F11");
    while (dp__doc_next(d, 1, &key)) {
        if (dp__json_is(&key, "weight_map")) map = dp__index_map(d, &count);
        else if (!dp__json_is(&key, "metadata"))
            dp__doc_refuse(d, DP_E_FORMAT, "F11", &key, "the index has an unknown member");
    }
    if (map == NULL) dp__doc_bad(d, "F11", "the index has no weight_map");
    store->entries = (dp__entry *)dp__doc_get(d, count, sizeof *store->entries);
    for (size_t i = 1; d->status == DP_OK && i < count; i++)
        files += strcmp(map[i].file, map[i - 1].file) != 0;
    if (files > DP_MAX_SHARDS) dp__doc_refuse(d, DP_E_LIMIT, "F11", &d->json, "too many shards");
    for (size_t i = 0, end; d->status == DP_OK && i < count; i = end) {
        for (end = i + 1; end < count && strcmp(map[end].file, map[i].file) == 0;) end++;
        dp__store_add(store, d, dir, map[i].file, end - i);
        for (size_t k = i; d->status == DP_OK && k < end; k++) {
            const dp__entry *e = store->entries + k;
            if (strcmp(e->name, map[k].name) != 0)
                d->status = dp__entry_fail(store, e, DP_E_FORMAT, "F11", DP_NO_PLACE,
                                           "the index names another tensor here", d->err);
        }
    }
    if (d->status == DP_OK)
        dp__sort(store->entries, count, sizeof *store->entries, dp__entry_by_name);
    return d->status;
}

/* The weights of a model directory: model.safetensors, else model.safetensors.index.json and its
 * shards. Entries and names live in the arena. On failure the store is zeroed, nothing is open. */
static dp_status dp__store_open(dp__store *store, const dp_env *env, void *dir, dp__arena *arena,
                                dp_error *err) {
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "pytorch_model.bin", "pytorch_model.bin.index.json"};
    dp__doc   d = dp__doc_new(arena, names[0], err);
    char     *text = NULL;
    void     *file;
    uint64_t  size;
    size_t    bytes = 0;
    int       i = 0;
    dp_status status = DP_E_NOT_FOUND;
    memset(store, 0, sizeof *store);
    while (status == DP_E_NOT_FOUND && i < 4)
        status = env->io.open(env->io.ctx, dir, names[i++], &file, &size);
    if (status != DP_OK)
        return dp__io_fail(err, status, names[status == DP_E_NOT_FOUND ? 0 : i - 1]);
    env->io.close(env->io.ctx, file);
    store->io = env->io;
    d.file = names[i - 1];
    if (i == 2)
        d.status = dp__file_read(env, dir, d.file, DP_MAX_HEADER_BYTES, arena, &text, &bytes, err);
    if (i > 2)
        dp__doc_fail(&d, DP_E_UNSUPPORTED, "", DP_NO_PLACE, NULL,
                     "PyTorch checkpoints are not read; convert it to safetensors");
    store->files = (void **)dp__doc_get(&d, DP_MAX_SHARDS, sizeof *store->files);
    store->names = (const char **)dp__doc_get(&d, DP_MAX_SHARDS, sizeof *store->names);
    if (i == 1) dp__store_add(store, &d, dir, d.file, 0);
    else dp__store_shards(store, &d, dir, text, bytes);
    if (d.status != DP_OK) dp__store_close(store);
    return d.status;
}

/* ---- reading elements --------------------------------------------------------------------- */

/* Elements [first, first + count) as they are stored, in this machine's byte order. */
static dp_status dp__store_read(const dp__store *store, const dp__entry *e, uint64_t first,
                                size_t count, void *to, dp_error *err) {
    size_t size = dp__dtype_bytes(e->dtype);
    if (size == 0)
        return dp__entry_fail(store, e, DP_E_UNSUPPORTED, "S10", e->begin, "unused dtype", err);
    if (first > e->bytes / size || count > e->bytes / size - first)
        return dp__entry_fail(store, e, DP_E_ARG, "", e->begin, "outside of the tensor", err);
    dp_status status = store->io.pread(store->io.ctx, store->files[e->file],
                                       e->begin + first * size, to, count * size);
    if (status != DP_OK)
        return dp__entry_fail(store, e, status, "F5", e->begin, "cannot be read", err);
    dp__swap_le(to, count, size);
    return DP_OK;
}

/* IEEE 754 binary16 as a float; every half is one. */
static float dp__widen_f16(uint32_t half) {
    uint32_t sign = (half & 0x8000u) << 16, e = half >> 10 & 31, m = half & 0x3FF;
    float    v = (float)m * 5.9604644775390625e-8f; /* zero or subnormal: m * 2^-24 */
    uint32_t bits = sign | (e == 31 ? 0x7F800000u : (e + 112) << 23) | m << 13;
    if (e == 0) return sign ? -v : v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* One element in memory of a floating dtype as a dp_real. */
DP__INLINE dp_real dp__widen(dp__dtype dtype, const char *p) {
    uint16_t half;
    uint32_t bits;
    float    f;
    double   d;
    if (dtype == DP__F64) {
        memcpy(&d, p, 8);
        return (dp_real)d;
    }
    memcpy(&half, p, 2);
    if (dtype == DP__F16) return (dp_real)dp__widen_f16(half);
    bits = (uint32_t)half << 16;
    memcpy(&f, dtype == DP__F32 ? p : (const char *)&bits, 4);
    return (dp_real)f;
}

#define DP__READ_ELEMENTS 65536 /* at a time: 256 KiB stay in the cache for the checks */

/* Elements [first, first + count) as dp_real; NaN and infinity are refused (S12). Narrow elements
 * are read into the end of their own place and widened from the front, without a second buffer. */
static dp_status dp__store_read_real(const dp__store *store, const dp__entry *e, uint64_t first,
                                     size_t count, dp_real *to, dp_error *err) {
    size_t  size = dp__dtype_bytes(e->dtype), most = DP__READ_ELEMENTS;
    int     wide = size > sizeof(dp_real);
    dp_real wide_part[128];
    if (dp__dtypes[e->dtype].use != 2)
        return dp__entry_fail(store, e, DP_E_UNSUPPORTED, "S10", e->begin, "no real numbers", err);
    if (wide) most = sizeof wide_part / size;
    for (size_t at = 0, part; at < count; at += part) {
        part = count - at < most ? count - at : most;
        char *raw = wide ? (char *)wide_part : (char *)(to + at + part) - part * size;
        dp_status status = dp__store_read(store, e, first + at, part, raw, err);
        if (status != DP_OK) return status;
        for (size_t i = 0; size != sizeof(dp_real) && i < part; i++)
            to[at + i] = dp__widen(e->dtype, raw + i * size);
        for (size_t i = at; i < at + part; i++) {
            if (to[i] - to[i] == 0) continue; /* true for finite numbers only */
            return dp__entry_fail(store, e, DP_E_FORMAT, "S12", e->begin + (first + i) * size,
                                  "a weight is not finite", err);
        }
    }
    return DP_OK;
}

/* ---- writer ------------------------------------------------------------------------------- */

/* Writes one file: begin, the data of all tensors in the order begin has given to entries, end.
 * The same input gives the same bytes. After a failure the temporary file is gone. */
typedef struct dp__st_writer {
    dp_io       io;
    void       *file; /* NULL: nothing to write to any more */
    const char *name;
    uint64_t    at, end; /* bytes of data written, and of all tensors */
} dp__st_writer;

/* Order of the reference writer: dtype, widest first, then name. */
static int dp__entry_by_dtype(const void *pa, const void *pb) {
    const dp__entry *a = (const dp__entry *)pa, *b = (const dp__entry *)pb;
    if (a->dtype != b->dtype) return a->dtype > b->dtype ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Sorts the tensors and gives them their places, counted from the end of the header; *end is the
 * last. */
static dp_status dp__st_layout(dp__entry *entries, size_t count, uint64_t *end, dp_error *err) {
    uint64_t elements;
    *end = 0;
    if (count > DP_MAX_TENSORS) return dp__fail(err, DP_E_LIMIT, "too many tensors");
    dp__sort(entries, count, sizeof *entries, dp__entry_by_dtype);
    for (size_t i = 0; i < count; i++) {
        dp__entry *e = entries + i;
        uint64_t   size = dp__dtype_bytes(e->dtype);
        int        same = i > 0 && strcmp(e->name, entries[i - 1].name) == 0;
        if (size == 0 || same || e->dims > DP_MAX_DIMS || strlen(e->name) > DP_MAX_NAME_BYTES)
            return dp__fail(err, DP_E_ARG, "a tensor cannot be written: name, dtype or shape");
        e->begin = *end;
        if (!dp__shape_count(e->shape, e->dims, &elements) ||
            !dp__mul_u64(elements, size, &e->bytes) || !dp__add_u64(*end, e->bytes, end))
            return dp__fail(err, DP_E_LIMIT, "the tensors are too large");
    }
    return DP_OK;
}

/* The length and the header, padded with spaces to a multiple of 8 bytes. metadata: names and
 * values in turn, NULL behind the last; may be NULL. */
static dp_status dp__st_text(const dp__entry *entries, size_t count, const char *const *metadata,
                             dp__buffer *put, dp_error *err) {
    dp__buffer_add(put, "\0\0\0\0\0\0\0\0", 8);
    dp__put_text(put, "{\"__metadata__\":{\"format\":\"pt\"");
    for (int i = 0; metadata != NULL && metadata[i] != NULL; i++) {
        dp__put_text(put, i % 2 == 0 ? "," : ":");
        dp__put_string(put, metadata[i], strlen(metadata[i]));
    }
    dp__put_text(put, "}");
    for (const dp__entry *e = entries; e < entries + count; e++) {
        dp__put_text(put, ",");
        dp__put_string(put, e->name, strlen(e->name));
        dp__put_text(put, ":{\"dtype\":\"");
        dp__put_text(put, dp__dtypes[e->dtype].name);
        dp__put_text(put, "\",\"shape\":[");
        for (int32_t i = 0; i < e->dims; i++) {
            if (i > 0) dp__put_text(put, ",");
            dp__put_u64(put, e->shape[i]);
        }
        dp__put_text(put, "],\"data_offsets\":[");
        dp__put_u64(put, e->begin);
        dp__put_text(put, ",");
        dp__put_u64(put, e->begin + e->bytes);
        dp__put_text(put, "]}");
    }
    dp__put_text(put, "}");
    while (!put->failed && put->n % 8 != 0) dp__put_text(put, " ");
    if (put->failed) return dp__no_memory(err);
    if (put->n - 8 > DP_MAX_HEADER_BYTES)
        return dp__fail(err, DP_E_LIMIT, "the header is too long");
    dp__store_le((uint8_t *)put->p, 8, put->n - 8);
    return DP_OK;
}

static void dp__st_abort(dp__st_writer *w) {
    if (w->file != NULL) w->io.abort(w->io.ctx, w->file);
    w->file = NULL;
}

/* Sorts entries (name, dtype, dims and shape are the caller's) and fills in begin and bytes; the
 * caller then appends their data in this order. */
static dp_status dp__st_begin(dp__st_writer *w, const dp_env *env, void *dir, const char *name,
                              dp__entry *entries, size_t count, const char *const *metadata,
                              dp_error *err) {
    dp__buffer header;
    memset(w, 0, sizeof *w);
    w->io = env->io;
    w->name = name;
    dp__buffer_init(&header, &env->alloc);
    dp_status status = dp__st_layout(entries, count, &w->end, err);
    if (status == DP_OK) status = dp__st_text(entries, count, metadata, &header, err);
    if (status == DP_OK) {
        status = w->io.create(w->io.ctx, dir, name, &w->file);
        if (status != DP_OK) w->file = NULL;
        else status = w->io.append(w->io.ctx, w->file, header.p, header.n);
        if (status != DP_OK) dp__io_fail(err, status, name);
    }
    dp__buffer_free(&header);
    if (status != DP_OK) dp__st_abort(w);
    return status;
}

/* The next elements of tensor e; data are swapped for the time of writing where bytes have the
 * other order. */
static dp_status dp__st_append(dp__st_writer *w, const dp__entry *e, void *data, size_t elements,
                               dp_error *err) {
    size_t size = dp__dtype_bytes(e->dtype);
    if (w->file == NULL || size == 0 || w->at < e->begin || w->at - e->begin > e->bytes ||
        elements > (e->bytes - (w->at - e->begin)) / size) {
        dp__st_abort(w);
        return dp__fail(err, DP_E_ARG, "more data than the tensor has, or not its turn");
    }
    dp__swap_le(data, elements, size);
    dp_status status = w->io.append(w->io.ctx, w->file, data, elements * size);
    dp__swap_le(data, elements, size);
    w->at += elements * size;
    if (status == DP_OK) return DP_OK;
    dp__st_abort(w);
    return dp__io_fail(err, status, w->name);
}

static dp_status dp__st_end(dp__st_writer *w, dp_error *err) {
    if (w->file == NULL || w->at != w->end) {
        dp__st_abort(w);
        return dp__fail(err, DP_E_ARG, "fewer data than the tensors have");
    }
    dp_status status = w->io.commit(w->io.ctx, w->file);
    w->file = NULL;
    return status == DP_OK ? DP_OK : dp__io_fail(err, status, w->name);
}

/* ============================================================================================
 * [C4] PyTorch checkpoint                                                      budget 10 lines
 * Owns:   nothing yet. A directory that has only .bin files is refused by name in [C3].
 * ============================================================================================ */

/* ============================================================================================
 * [C5] Model configuration                                                    budget 580 lines
 * Owns:   config.json and tokenizer_config.json, both ways; defaults; the label map.
 * Needs:  B3 memory, B4 errors, C2 JSON.
 * Never:  guesses. null means "not given"; other members that do not change the network or the
 *         tokenizer are ignored, as the format says.
 * Rules:  M1 a JSON object of at most DP_MAX_CONFIG_BYTES, M2 model_type bert, M3 integers in
 *         their limits, M4 heads divide the width, M5 activation, M6 absolute positions, M7 reals
 *         in their ranges, M8 problem_type, M9 quantization_config is exactly our subset, M10 no
 *         decoder, no pruned heads; V4 label map complete and unique; T1 switches, T2 special
 *         tokens, T3 class and kind of tokenizer, T4 no added words.
 * Memory: at most 32 times the file + 2 MiB (names of 65,536 labels).
 * Tests:  tests/test_parse.c: config_*, tokenizer_config_*
 * Fuzz:   tests/fuzz/fuzz_config.c, tests/fuzz/fuzz_tokenizer_config.c
 * ============================================================================================ */

#define DP_MAX_CONFIG_BYTES 16777216 /* 65,536 labels of 100 bytes, twice: both maps */
#define DP_MAX_LAYERS 512
#define DP_MAX_HIDDEN 16384
#define DP_MAX_HEADS 512
#define DP_MAX_INNER 65536
#define DP_MAX_POSITIONS 1048576
#define DP_MAX_CLASSES 65536
#define DP_MAX_TYPES 16
#define DP_MAX_VOCAB 4194304
#define DP_MAX_VOCAB_ENTRY 1024
#define DP_MAX_VOCAB_BYTES 33554432 /* 8 an entry; bert-base-cased has 7.4 */
#define DP__MAX_LABEL 1024 /* bytes of the name of a label */
#define DP__MAX_IGNORED (8 * DP_MAX_LAYERS) /* names of modules: six Linears a layer, few beside */

typedef enum dp__act {
    DP__GELU, DP__GELU_TANH, DP__RELU, DP__SILU, DP__TANH, DP__QUICK_GELU, DP__MISH, DP__ACT_COUNT
} dp__act;

typedef struct dp__config {
    int32_t      layers, hidden, heads, inner, vocab, positions, types, classes;
    int32_t      act, problem; /* dp__act, dp_problem: fields of 32 bits for one table of members */
    float        eps, init_range, hidden_dropout, attention_dropout, classifier_dropout;
    int32_t      pad_id;
    int32_t      tokenizer;     /* 0: no class is named; else 2 + its number as dp__tokenizer_config
                                 * has it; 1: none of ours */
    int32_t      problem_given; /* 0: the number of labels decided */
    int32_t      quantized;    /* 1: int-quantized; Linears are INT8 but those in ignore */
    int32_t      int8_tables;  /* 1: so are the embedding tables */
    int32_t      ignore_count;
    const char **ignore;       /* [ignore_count] module names */
    const char **labels;       /* [classes] */
    const char ***by_name;     /* [classes] places in labels, in the order of the names */
} dp__config;

typedef struct dp__tokenizer_config {
    int32_t lower_case, strip_accents /* -1: follows lower_case */, chinese_chars;
    int32_t explicit_case; /* 1: the file says do_lower_case */
    int32_t kind;          /* of DP__TOKENIZERS: its number; -1: not named */
    int32_t types;         /* model_input_names: 1 without, 2 with token_type_ids; 0: by kind */
    int32_t lists_added;   /* 1: it has its own list of added words */
    int32_t max_length;    /* tokens of a sequence for other programs; 0: not given */
    const char *unk, *cls, *sep, *pad, *mask;
} dp__tokenizer_config;

/* ---- tables of members -------------------------------------------------------------------- */

typedef enum dp__kind {
    DP__INT,    /* int32_t from low to high; above: over the limit */
    DP__WORD,   /* int32_t or enumeration: the number of one of words */
    DP__SWITCH, /* int32_t: false or true */
    DP__REAL,   /* float from low to high */
    DP__TOKEN,  /* const char *: the text of a special token; usual is words */
    DP__MUST    /* not kept: of the JSON kind usual; a string is one of words, a container empty */
} dp__kind;

/* A member of a file. */
typedef struct dp__member {
    const char *name, *rule;
    dp__kind    kind;
    size_t      offset; /* in the structure */
    double      usual, low, high;
    const char *words;  /* "a,b;c": a, b have number 0, c 1; the first of a number is written */
} dp__member;

#define DP__NO_PROBLEM 3 /* not given: the number of labels decides */
#define DP__ACTS                                                                                 \
    "gelu,gelu_python;gelu_new,gelu_pytorch_tanh,gelu_fast;relu;silu,swish;tanh;quick_gelu;mish"
#define DP__PROBLEMS "single_label_classification;multi_label_classification;regression"
#define DP__TOKENIZERS                                                                           \
    "BertTokenizer,BertTokenizerFast;DistilBertTokenizer,DistilBertTokenizerFast"
/* Above 0 and below 1 as floats: the ends lie between two of them. */
#define DP__ABOVE_0 1e-46
#define DP__BELOW_1 0.99999997
#define DP__AT(field) offsetof(dp__config, field)
#define DP__CONFIG_WRITTEN 17 /* of these; id2label tells num_labels */
static const dp__member dp__config_members[] = {
    {"model_type", "M2", DP__MUST, 0, DP_JSON_STRING, 0, 0, "bert"},
    {"num_hidden_layers", "M3", DP__INT, DP__AT(layers), 12, 1, DP_MAX_LAYERS, NULL},
    {"hidden_size", "M3", DP__INT, DP__AT(hidden), 768, 1, DP_MAX_HIDDEN, NULL},
    {"num_attention_heads", "M3", DP__INT, DP__AT(heads), 12, 1, DP_MAX_HEADS, NULL},
    {"intermediate_size", "M3", DP__INT, DP__AT(inner), 3072, 1, DP_MAX_INNER, NULL},
    {"vocab_size", "M3", DP__INT, DP__AT(vocab), 30522, 1, DP_MAX_VOCAB, NULL},
    {"max_position_embeddings", "M3", DP__INT, DP__AT(positions), 512, 1, DP_MAX_POSITIONS, NULL},
    {"type_vocab_size", "M3", DP__INT, DP__AT(types), 2, 1, DP_MAX_TYPES, NULL},
    {"pad_token_id", "M3", DP__INT, DP__AT(pad_id), 0, 0, DP_MAX_VOCAB - 1, NULL},
    {"layer_norm_eps", "M7", DP__REAL, DP__AT(eps), 1e-12, DP__ABOVE_0, (double)0.1f, NULL},
    {"initializer_range", "M7", DP__REAL, DP__AT(init_range), 0.02, 0, 1, NULL},
    {"hidden_dropout_prob", "M7", DP__REAL, DP__AT(hidden_dropout), 0.1, 0, DP__BELOW_1, NULL},
    {"attention_probs_dropout_prob", "M7", DP__REAL, DP__AT(attention_dropout), 0.1, 0,
     DP__BELOW_1, NULL},
    {"classifier_dropout", "M7", DP__REAL, DP__AT(classifier_dropout), -1, 0, DP__BELOW_1, NULL},
    {"hidden_act", "M5", DP__WORD, DP__AT(act), DP__GELU, 0, 0, DP__ACTS},
    {"position_embedding_type", "M6", DP__MUST, 0, DP_JSON_STRING, 0, 0, "absolute"},
    {"problem_type", "M8", DP__WORD, DP__AT(problem), DP__NO_PROBLEM, 0, 0, DP__PROBLEMS},
    {"num_labels", "M3", DP__INT, DP__AT(classes), 0, 1, DP_MAX_CLASSES, NULL},
    {"is_decoder", "M10", DP__MUST, 0, DP_JSON_FALSE, 0, 0, NULL},
    {"add_cross_attention", "M10", DP__MUST, 0, DP_JSON_FALSE, 0, 0, NULL},
    {"pruned_heads", "M10", DP__MUST, 0, DP_JSON_OBJECT, 0, 0, NULL},
    {NULL, NULL, DP__MUST, 0, 0, 0, 0, NULL},
};
#undef DP__AT
#define DP__AT(field) offsetof(dp__tokenizer_config, field)
#define DP__TOKENIZER_WRITTEN 9 /* of these; the last five are also special_tokens_map.json */
static const dp__member dp__tokenizer_members[] = {
    {"tokenizer_class", "T3", DP__WORD, DP__AT(kind), -1, 0, 0, DP__TOKENIZERS},
    {"do_lower_case", "T1", DP__SWITCH, DP__AT(lower_case), 1, 0, 0, NULL},
    {"strip_accents", "T1", DP__SWITCH, DP__AT(strip_accents), -1, 0, 0, NULL},
    {"tokenize_chinese_chars", "T1", DP__SWITCH, DP__AT(chinese_chars), 1, 0, 0, NULL},
    {"unk_token", "T2", DP__TOKEN, DP__AT(unk), 0, 0, 0, "[UNK]"},
    {"sep_token", "T2", DP__TOKEN, DP__AT(sep), 0, 0, 0, "[SEP]"},
    {"pad_token", "T2", DP__TOKEN, DP__AT(pad), 0, 0, 0, "[PAD]"},
    {"cls_token", "T2", DP__TOKEN, DP__AT(cls), 0, 0, 0, "[CLS]"},
    {"mask_token", "T2", DP__TOKEN, DP__AT(mask), 0, 0, 0, "[MASK]"},
    {"do_basic_tokenize", "T3", DP__MUST, 0, DP_JSON_TRUE, 0, 0, NULL},
    {"truncation_side", "T3", DP__MUST, 0, DP_JSON_STRING, 0, 0, "right"},
    {"never_split", "T4", DP__MUST, 0, DP_JSON_ARRAY, 0, 0, NULL},
    {NULL, NULL, DP__MUST, 0, 0, 0, 0, NULL},
};
#undef DP__AT

/* Puts a number, or a default, into its place. */
static void dp__member_set(const dp__member *row, void *to, double v) {
    char   *at = (char *)to + row->offset;
    int32_t i = (int32_t)v;
    float   f = (float)v;
    if (row->kind <= DP__SWITCH) memcpy(at, &i, sizeof i);
    if (row->kind == DP__REAL) memcpy(at, &f, sizeof f);
    if (row->kind == DP__TOKEN) memcpy(at, &row->words, sizeof row->words);
}

static void dp__members_usual(const dp__member *row, void *to, size_t bytes) {
    memset(to, 0, bytes);
    for (; row->name != NULL; row++) dp__member_set(row, to, row->usual);
}

/* The number of the present string among words; -1: it is none of them. */
static int32_t dp__word_number(const dp_json *json, const char *words) {
    for (int32_t number = 0;; number += *words++ == ';') {
        size_t n = strcspn(words, ",;");
        if (dp__json_order(json->text + json->token, json->length, words, n) == 0) return number;
        words += n;
        if (*words == 0) return -1;
    }
}

/* T2: "[UNK]", or an object with "content": "[UNK]". */
static void dp__member_token(dp__doc *d, const dp__member *row, void *to) {
    dp_json content = d->json, key;
    int32_t depth = d->json.depth;
    int     object = content.kind == DP_JSON_OBJECT;
    while (object && dp__doc_next(d, depth, &key)) {
        if (dp__json_is(&key, "content")) content = d->json;
    }
    if (content.kind != DP_JSON_STRING || content.length == 0)
        dp__doc_bad(d, row->rule, "no text of a special token");
    const char *text = dp__doc_name(d, &content, DP_MAX_VOCAB_ENTRY);
    memcpy((char *)to + row->offset, &text, sizeof text);
}

/* The present value goes to its place. */
static void dp__member_read(dp__doc *d, const dp__member *row, void *to) {
    const dp_json *json = &d->json;
    int     text = json->kind == DP_JSON_STRING;
    int     opens = json->kind == DP_JSON_OBJECT || json->kind == DP_JSON_ARRAY;
    int64_t i = 0;
    double  v = 0;
    if (row->kind == DP__TOKEN) {
        dp__member_token(d, row, to);
        return;
    }
    if (row->kind == DP__INT) {
        if (!dp__json_int(json, (int64_t)row->low, INT64_MAX, &i))
            dp__doc_bad(d, row->rule, "no integer, or one too small");
        if (i > (int64_t)row->high) dp__doc_refuse(d, DP_E_LIMIT, row->rule, json, "too large");
        v = (double)i;
    } else if (row->kind == DP__REAL) {
        int ok = dp__json_double(json, &v) && v >= -1 && v <= 2; /* a float holds it */
        if (!ok || (double)(float)v < row->low || (double)(float)v > row->high)
            dp__doc_bad(d, row->rule, "no number, or out of its range");
    } else if (row->kind == DP__SWITCH) {
        v = json->kind == DP_JSON_TRUE;
        if (v == 0 && json->kind != DP_JSON_FALSE) dp__doc_bad(d, row->rule, "not true or false");
    } else {
        if (text && row->words != NULL) v = dp__word_number(json, row->words);
        int ok = row->kind == DP__WORD ? text : (int)json->kind == (int)row->usual;
        if (!ok || v < 0 || (opens && dp__doc_count(d) > 0))
            dp__doc_refuse(d, DP_E_UNSUPPORTED, row->rule, json, "this value is not supported");
    }
    if (d->status == DP_OK) dp__member_set(row, to, v);
}

/* Reads the present member if it stands in the table, or is null, which means "not given". */
static int dp__members_read(dp__doc *d, const dp_json *key, const dp__member *row, void *to) {
    if (d->json.kind == DP_JSON_NULL) return 1;
    while (row->name != NULL && !dp__json_is(key, row->name)) row++;
    if (row->name != NULL) dp__member_read(d, row, to);
    return row->name != NULL;
}

static void dp__put_name(dp__buffer *put, const char *name) {
    dp__put_text(put, "  \"");
    dp__put_text(put, name);
    dp__put_text(put, "\": ");
}

/* Writes n members of a table, with end behind the last. */
static void dp__members_write(dp__buffer *put, const dp__member *row, size_t n, const void *from,
                              const char *end) {
    for (; n > 0; n--, row++) {
        const char *at = (const char *)from + row->offset, *text = row->words;
        int32_t i = 0;
        float   f;
        dp__put_name(put, row->name);
        if (row->kind <= DP__SWITCH) memcpy(&i, at, sizeof i);
        if (row->kind == DP__INT) {
            dp__put_u64(put, (uint64_t)i);
        } else if (row->kind == DP__SWITCH) {
            dp__put_text(put, i < 0 ? "null" : i > 0 ? "true" : "false");
        } else if (row->kind == DP__REAL) {
            memcpy(&f, at, sizeof f);
            dp__put_real(put, f);
        } else if (row->kind == DP__TOKEN) {
            memcpy(&text, at, sizeof text);
            dp__put_string(put, text, strlen(text));
        } else {
            for (; i > 0; i--) text = strchr(text, ';') + 1;
            dp__put_string(put, text, strcspn(text, ",;"));
        }
        dp__put_text(put, n > 1 ? ",\n" : end);
    }
}

/* ---- label map (V4) ----------------------------------------------------------------------- */

static int dp__label_compare(const void *a, const void *b) {
    return strcmp(**(const char *const *const *)a, **(const char *const *const *)b);
}

/* The names of "id2label" ({"0": "name"}) or "label2id" ({"name": 0}), the present value, by id.
 * Each id below the number of classes comes once, so that many members make it complete. Python
 * programs also leave names that are integers ({"0": 0}) and ids that are texts ({"name": "0"}). */
static const char **dp__conf_labels(dp__doc *d, int by_id, dp__config *to) {
    dp_json  key;
    size_t   n = dp__doc_count(d);
    uint64_t id = 0;
    int64_t  number = 0;
    int32_t  depth = d->json.depth;
    if (d->json.kind != DP_JSON_OBJECT || n == 0)
        dp__doc_bad(d, "V4", "the label map is not an object, or empty");
    if (n > DP_MAX_CLASSES) dp__doc_refuse(d, DP_E_LIMIT, "V4", &d->json, "too many labels");
    if (to->classes == 0) to->classes = (int32_t)n;
    const char **labels = (const char **)dp__doc_get(d, (size_t)to->classes, sizeof *labels);
    while (dp__doc_next(d, depth, &key)) {
        dp_json place = by_id ? key : d->json, called = by_id ? d->json : key;
        int     ok = dp__json_int(&place, 0, INT32_MAX, &number);
        id = (uint64_t)number;
        if (place.kind == DP_JSON_STRING || place.kind == DP_JSON_KEY)
            ok = dp__read_u64(place.text + place.token, place.length, &id);
        if (!ok || id >= (uint64_t)to->classes || labels[id] != NULL) {
            dp__doc_bad(d, "V4", "ids of labels are not 0 .. n-1, each once");
            break;
        }
        if (dp__json_int(&called, INT64_MIN, INT64_MAX, &number)) called.kind = DP_JSON_STRING;
        const char *name = dp__doc_name(d, &called, DP__MAX_LABEL);
        for (labels[id] = name; name != NULL && *name != 0; name++) {
            if ((unsigned char)*name < 32 || *name == 127)
                dp__doc_bad(d, "V4", "a label holds a control character");
        }
    }
    if (n != (size_t)to->classes) dp__doc_bad(d, "V4", "the label map does not fit num_labels");
    return labels;
}

/* LABEL_0, LABEL_1 ... */
static const char **dp__conf_labels_usual(dp__doc *d, dp__config *to) {
    const size_t room = 20; /* "LABEL_", ten digits, 0 */
    if (to->classes == 0) to->classes = 2;
    const char **labels = (const char **)dp__doc_get(d, (size_t)to->classes, sizeof *labels);
    char        *names = (char *)dp__doc_get(d, (size_t)to->classes, room);
    for (int32_t i = 0; names != NULL && i < to->classes; i++, names += room) {
        dp__text t = {names, room, 0};
        dp__text_add(&t, "LABEL_");
        dp__text_u64(&t, (uint64_t)i);
        labels[i] = names;
    }
    return labels;
}

/* Is the present value label2id as transformers leaves it where a program has set id2label alone,
 * LABEL_0, LABEL_1 ..., perhaps of another number of classes? */
static int dp__conf_untouched(dp__doc *d) {
    dp_json key;
    int32_t depth = d->json.depth;
    int     all = d->json.kind == DP_JSON_OBJECT;
    while (dp__doc_next(d, depth, &key))
        all &= key.length > 6 && memcmp(key.text + key.token, "LABEL_", 6) == 0;
    return all;
}

/* V4: both maps, as far as they are given, name the same labels, each once. An untouched label2id
 * counts as not given beside id2label. */
static void dp__conf_label_maps(dp__doc *d, const dp_json maps[2], dp__config *to) {
    const char **labels = NULL;
    for (int i = 0; i < 2; i++) {
        const char **other = labels;
        if (maps[i].text == NULL) continue;
        d->json = maps[i];
        if (other != NULL && dp__conf_untouched(d)) continue;
        d->json = maps[i];
        labels = dp__conf_labels(d, i == 0, to);
        for (int32_t k = 0; other != NULL && d->status == DP_OK && k < to->classes; k++) {
            if (strcmp(labels[k], other[k]) != 0)
                dp__doc_bad(d, "V4", "id2label and label2id differ");
        }
    }
    if (labels == NULL) labels = dp__conf_labels_usual(d, to);
    to->labels = labels;
    to->by_name = (const char ***)dp__doc_get(d, (size_t)to->classes, sizeof *to->by_name);
    if (to->by_name == NULL) return;
    for (int32_t i = 0; i < to->classes; i++) to->by_name[i] = &labels[i];
    dp__sort(to->by_name, (size_t)to->classes, sizeof *to->by_name, dp__label_compare);
    for (int32_t i = 1; d->status == DP_OK && i < to->classes; i++) {
        if (strcmp(*to->by_name[i - 1], *to->by_name[i]) == 0)
            d->status = dp__fail_at(d->err, DP_E_FORMAT, "V4", d->file, DP_NO_PLACE,
                                    "a label stands twice", *to->by_name[i]);
    }
}

/* ---- quantization_config (M9) ------------------------------------------------------------- */

/* Our INT8 scheme, as it is written; more is what else a reader finds in files of others, where
 * null stands for any value. */
#define DP__Q_INT8(strategy, dynamic, more)                                                      \
    "{\"num_bits\": 8, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"" strategy "\", "  \
    "\"dynamic\": " dynamic more "}"
#define DP__Q_METHOD                                                                             \
    "{\n    \"quant_method\": \"compressed-tensors\",\n    \"format\": \"int-quantized\",\n"      \
    "    \"quantization_status\": \"compressed\",\n"
#define DP__Q_LINEAR(more)                                                                       \
    "    \"config_groups\": {\n      \"group_0\": {\n        \"targets\": [\"Linear\"],\n"        \
    "        \"weights\": " DP__Q_INT8("channel", "false", more) ",\n"                           \
    "        \"input_activations\": " DP__Q_INT8("token", "true", more) "\n      }"
#define DP__Q_TABLES(more)                                                                       \
    ",\n      \"group_1\": {\n        \"targets\": [\"Embedding\"],\n"                           \
    "        \"weights\": " DP__Q_INT8("channel", "false", more) "\n      }"
#define DP__Q_END "\n    }\n  }"
#define DP__Q_MORE ", \"observer\": null"
static const char dp__scheme[] = DP__Q_METHOD "\"version\": null, \"global_compression_ratio\": "
    "null, " DP__Q_LINEAR(DP__Q_MORE) DP__Q_TABLES(DP__Q_MORE) DP__Q_END;
#define DP__Q_LEVELS 4 /* config_groups, group_0, weights, num_bits */
#define DP__Q_LINEAR_BITS 0x3FFFu  /* the values above, any value left out, in their order */
#define DP__Q_TABLE_BITS 0xFC000u

/* To the next plain value in the object whose inside has this depth. path: the names and arrays
 * that lead to it; returns how many, at most DP__Q_LEVELS of which are kept; 0 at the end. */
static int32_t dp__quant_next(dp__doc *d, int32_t depth, dp_json path[DP__Q_LEVELS]) {
    const dp_json *json = &d->json;
    while (dp__json_next(d) == DP_OK && json->depth >= depth) {
        int32_t level = json->depth - depth;
        int     leads = json->kind == DP_JSON_KEY || json->kind == DP_JSON_ARRAY;
        if (leads && level < DP__Q_LEVELS) path[level] = *json;
        if (json->kind >= DP_JSON_STRING) return level + 1;
    }
    return 0;
}

static int dp__token_same(const dp_json *a, const dp_json *b) {
    return a->kind == b->kind && dp__json_order(a->text + a->token, a->length,
                                                b->text + b->token, b->length) == 0;
}

/* What our scheme has at a path, and its bit; the kind DP_JSON_OBJECT_END: nothing. */
static dp_json dp__quant_ours(const dp_json *path, int32_t levels, uint32_t *bit) {
    dp__doc ours = dp__doc_new(NULL, NULL, NULL);
    dp_json at[DP__Q_LEVELS];
    dp__json_begin(&ours.json, dp__scheme, sizeof dp__scheme - 1);
    dp__json_next(&ours);
    *bit = 1;
    for (int32_t n; (n = dp__quant_next(&ours, 1, at)) > 0;) {
        int same = n == levels;
        for (int32_t k = 0; same && k < n; k++) same = dp__token_same(&at[k], &path[k]);
        if (same) return ours.json;
        if (ours.json.kind != DP_JSON_NULL) *bit <<= 1;
    }
    return ours.json;
}

/* The object at json must be our scheme, value for value. */
static void dp__conf_quant(dp__doc *d, dp__config *to) {
    dp_json  path[DP__Q_LEVELS], name, begin = d->json;
    uint32_t seen = 0, bit;
    if (begin.kind != DP_JSON_OBJECT) dp__doc_bad(d, "M9", "quantization_config is not an object");
    while (dp__doc_next(d, begin.depth, &name)) {
        if (!dp__json_is(&name, "ignore") || d->json.kind != DP_JSON_ARRAY) continue;
        size_t count = dp__doc_count(d);
        if (count > DP__MAX_IGNORED)
            dp__doc_refuse(d, DP_E_LIMIT, "M9", &d->json, "more modules than a model has");
        to->ignore = (const char **)dp__doc_get(d, count, sizeof *to->ignore);
        while (dp__doc_next(d, begin.depth + 1, &name))
            to->ignore[to->ignore_count++] = dp__doc_name(d, &name, DP_MAX_NAME_BYTES);
        break;
    }
    d->json = begin;
    for (int32_t n; (n = dp__quant_next(d, begin.depth, path)) > 0;) {
        if (n == 2 && path[1].kind == DP_JSON_ARRAY && dp__json_is(path, "ignore")) continue;
        if (d->json.kind == DP_JSON_NULL) continue; /* not given */
        dp_json ours = dp__quant_ours(path, n, &bit);
        if (ours.kind == DP_JSON_NULL) continue;
        if (!dp__token_same(&ours, &d->json) || (seen & bit) != 0)
            dp__doc_refuse(d, DP_E_UNSUPPORTED, "M9", &d->json, "not our INT8 scheme");
        seen |= bit;
    }
    to->quantized = 1;
    to->int8_tables = (seen & DP__Q_TABLE_BITS) != 0;
    if (seen != (DP__Q_LINEAR_BITS | (to->int8_tables ? DP__Q_TABLE_BITS : 0)))
        dp__doc_refuse(d, DP_E_UNSUPPORTED, "M9", &begin, "a member of our INT8 scheme is missing");
}

/* ---- the files ---------------------------------------------------------------------------- */

/* A document with the object of text: M1, and J1 to J6. */
static dp__doc dp__conf_begin(const char *text, size_t bytes, dp__arena *arena, const char *file,
                              dp_error *err) {
    dp__doc d = dp__doc_new(arena, file, err);
    if (bytes > DP_MAX_CONFIG_BYTES)
        dp__doc_fail(&d, DP_E_LIMIT, "M1", DP_MAX_CONFIG_BYTES, NULL, "the file is too large");
    dp__doc_begin(&d, text, 0, bytes, "M1");
    return d;
}

/* Reads config.json; strings go to the arena. On failure *to is zeroed. */
static dp_status dp__config_parse(const char *text, size_t bytes, dp__arena *arena,
                                  const char *file, dp__config *to, dp_error *err) {
    dp_json key, maps[2];
    dp__doc d = dp__conf_begin(text, bytes, arena, file, err);
    memset(maps, 0, sizeof maps);
    dp__members_usual(dp__config_members, to, sizeof *to);
    while (dp__doc_next(&d, 1, &key)) {
        if (dp__members_read(&d, &key, dp__config_members, to)) continue;
        if (dp__json_is(&key, "tokenizer_class"))
            to->tokenizer = 2 + dp__word_number(&d.json, DP__TOKENIZERS);
        if (dp__json_is(&key, "id2label")) maps[0] = d.json;
        if (dp__json_is(&key, "label2id")) maps[1] = d.json;
        if (dp__json_is(&key, "quantization_config")) dp__conf_quant(&d, to);
    }
    if (to->hidden % to->heads != 0)
        dp__doc_fail(&d, DP_E_FORMAT, "M4", DP_NO_PLACE, NULL, "heads do not divide hidden_size");
    if (to->pad_id >= to->vocab)
        dp__doc_fail(&d, DP_E_FORMAT, "M3", DP_NO_PLACE, NULL, "pad_token_id is above vocab_size");
    dp__conf_label_maps(&d, maps, to);
    if (to->classifier_dropout < 0) to->classifier_dropout = to->hidden_dropout;
    to->problem_given = to->problem != DP__NO_PROBLEM;
    if (!to->problem_given) to->problem = to->classes == 1 ? DP_REGRESSION : DP_SINGLE_LABEL;
    if (d.status != DP_OK) memset(to, 0, sizeof *to);
    return d.status;
}

static void dp__put_labels(dp__buffer *put, const dp__config *from, int by_id) {
    dp__put_name(put, by_id ? "id2label" : "label2id");
    for (int32_t i = 0; i < from->classes; i++) {
        const char *label = from->labels[i];
        dp__put_text(put, i > 0 ? ",\n    " : "{\n    ");
        if (!by_id) dp__put_string(put, label, strlen(label));
        dp__put_text(put, by_id ? "\"" : ": ");
        dp__put_u64(put, (uint64_t)i);
        if (by_id) dp__put_text(put, "\": ");
        if (by_id) dp__put_string(put, label, strlen(label));
    }
    dp__put_text(put, "\n  },\n");
}

static void dp__put_quant(dp__buffer *put, const dp__config *from) {
    dp__put_name(put, "quantization_config");
    dp__put_text(put, DP__Q_METHOD "    \"ignore\": [");
    for (int32_t i = 0; i < from->ignore_count; i++) {
        if (i > 0) dp__put_text(put, ", ");
        dp__put_string(put, from->ignore[i], strlen(from->ignore[i]));
    }
    dp__put_text(put, "],\n" DP__Q_LINEAR(""));
    if (from->int8_tables) dp__put_text(put, DP__Q_TABLES(""));
    dp__put_text(put, DP__Q_END ",\n");
}

/* Writes config.json as transformers does. 1, or 0 when there is no memory. */
static int dp__config_write(const dp__config *from, dp__buffer *put) {
    dp__put_text(put, "{\n  \"architectures\": [\"BertForSequenceClassification\"],\n");
    dp__members_write(put, dp__config_members, DP__CONFIG_WRITTEN, from, ",\n");
    dp__put_labels(put, from, 1);
    dp__put_labels(put, from, 0);
    if (from->quantized) dp__put_quant(put, from);
    dp__put_text(put, "  \"torch_dtype\": \"float32\"\n}\n");
    return !put->failed;
}

/* T4: every one of the "added_tokens_decoder" is special, so that it never splits a document.
 * added_tokens.json does not say so of any: there the first word is refused. */
static void dp__conf_added(dp__doc *d) {
    dp_json word, key;
    int32_t depth = d->json.depth;
    if (d->json.kind != DP_JSON_OBJECT) dp__doc_bad(d, "T4", "an object is expected");
    while (dp__doc_next(d, depth, &word)) {
        int special = 0;
        while (dp__doc_next(d, depth + 1, &key))
            special |= dp__json_is(&key, "special") && d->json.kind == DP_JSON_TRUE;
        if (!special)
            dp__doc_refuse(d, DP_E_UNSUPPORTED, "T4", &word, "an added word is not special");
    }
}

/* Reads tokenizer_config.json or special_tokens_map.json over what *to holds. On failure *to is
 * zeroed. */
static dp_status dp__tokenizer_config_parse(const char *text, size_t bytes, dp__arena *arena,
                                            const char *file, dp__tokenizer_config *to,
                                            dp_error *err) {
    dp_json key;
    int64_t tokens;
    dp__doc d = dp__conf_begin(text, bytes, arena, file, err);
    while (dp__doc_next(&d, 1, &key)) {
        if (dp__members_read(&d, &key, dp__tokenizer_members, to)) {
            to->explicit_case |= dp__json_is(&key, "do_lower_case") && d.json.kind != DP_JSON_NULL;
        } else if (dp__json_is(&key, "added_tokens_decoder")) {
            to->lists_added = 1;
            dp__conf_added(&d);
        } else if (dp__json_is(&key, "model_input_names") && d.json.kind == DP_JSON_ARRAY) {
            to->types = 1;
            while (dp__doc_next(&d, 2, &key))
                if (dp__json_is(&d.json, "token_type_ids")) to->types = 2;
        } else if (dp__json_is(&key, "model_max_length")) { /* about 1e30: no bound */
            if (!dp__json_int(&d.json, 1, DP_MAX_POSITIONS, &tokens)) tokens = 0;
            to->max_length = (int32_t)tokens;
        }
    }
    if (d.status != DP_OK) memset(to, 0, sizeof *to);
    return d.status;
}

static dp_status dp__added_tokens_parse(const char *text, size_t bytes, dp__arena *arena,
                                        const char *file, dp_error *err) {
    dp__doc d = dp__conf_begin(text, bytes, arena, file, err);
    dp__conf_added(&d);
    return d.status;
}

/* Writes tokenizer_config.json of a model with so many positions, always with the case and a bound
 * for sequences; positions 0: special_tokens_map.json. 1, or 0 when there is no memory. */
static int dp__tokenizer_config_write(const dp__tokenizer_config *from, int32_t positions,
                                      dp__buffer *put) {
    size_t  skip = positions == 0 ? DP__TOKENIZER_WRITTEN - 5 : 0;
    int32_t given = from->max_length, most = given > 0 && given < positions ? given : positions;
    dp__put_text(put, "{\n");
    if (positions > 0) {
        dp__put_name(put, "model_max_length");
        dp__put_u64(put, (uint64_t)most);
        dp__put_text(put, ",\n");
    }
    if (positions > 0 && from->types == 1)
        dp__put_text(put, "  \"model_input_names\": [\"input_ids\", \"attention_mask\"],\n");
    dp__members_write(put, dp__tokenizer_members + skip, DP__TOKENIZER_WRITTEN - skip, from,
                      "\n}\n");
    return !put->failed;
}

/* ============================================================================================
 * [D] Text                                                                    budget 910 lines
 * ============================================================================================ */

/* ============================================================================================
 * [D1] Unicode tables                                                         budget 160 lines
 * Owns:   what the characters of Unicode are and become.       Needs: nothing.
 * Never:  is edited by hand: tools/gen_unicode.py asks the Hugging Face tokenizers about every
 *         scalar value and writes what follows. Notice for Unicode data: [Z4].
 * Tests:  tests/test_text.c: text_every_code_point; tools/gen_unicode.py --check diseasepred.h
 * ============================================================================================ */

/* Kinds of characters. Marks and combining classes count only where accents are stripped. */
enum {
    DP__PLAIN,  /* part of a word */
    DP__REMOVE, /* control, format, private use, U+0000, U+FFFD: vanishes first of all */
    DP__BLANK,
    DP__CJK,    /* a word of its own */
    DP__PUNCT,  /* a word of its own */
    DP__MARK,   /* dropped; its combining class is not 0: neighbours may change places across it */
    DP__MARK0,  /* dropped; nothing moves across it */
    DP__COMB,   /* 7 to 12: part of a word, with a combining class that grows with the kind */
    DP__HANGUL = 13, /* a syllable: two or three Jamo */
    DP__MULTI,  /* becomes the characters of dp__uc_multi */
    DP__KINDS
};

/* The next number of a table. Tables are text, as numbers fill three times the room: digits of base
 * 32, the highest first, with 32 added to all but the last; then twice the number, or, where that
 * is odd, a negative one. */
static int32_t dp__uc_number(const char **p) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int32_t v = 0, d;
    do {
        d = (int32_t)(strchr(digits, *(*p)++) - digits);
        v = v << 5 | (d & 31);
    } while (d > 31);
    return v & 1 ? -(v / 2) - 1 : v / 2;
}

/* Generated by tools/gen_unicode.py from tokenizers 0.21.4; sha256 af708587c0c5718e. */
/* Runs of characters of one kind, from U+0000 on: length * 16 + kind. */
static const char dp__uc_runs[] =
    "pCiEiChEyChEvIqAnI6AmI6AkIhhChEhIlAhIjAhIhAhCoAiIjAhIjAhIygAivKhMhgKuAhIoAhIn7AlKmyAmIhpAiImA"
    "htKhIhKhIiKhIiKhIhKhrAiIrAmCjAiIhAiIiArKhIhChAiIhrA1KqAkIiAhKjjAhIhAnKhChAmKiAiKhAkKyAuIhAhCh"
    "AhK+A7Ki7ArMh6ApKjAjI8AkKhApKhAjKhAlKiAvI6AjKiAhIj1AuYhA9KjMh3AhMhAhKkAoMkAhKjAkKjMqAiMiIqAhI"
    "wAhMh6AhKkAkMoAhK0AiM9AiMh5AhKkAiMkAiMiAiMhKjAhM+AiMjAhMrAiMh5AhKkAlMhAiMkAhK0AiMsAhIwAhMh6Ah"
    "KiAhMhAkMoAhKoAhMrAiM+AhMh9AhMsAhKhyAhMh9AjMlAjMhAjMhKnAiKrAiM9AhMh6AhKiAhMmAhMlAhMhK0AiM9AhM"
    "h/AkMoAhK0AiMjmAhKnAjMhAhM9AhIh8AhMiAkMjKsAhMkKjMhIqAiIi1AhMiAkMiKhAiMrAkKiMh2AvIhAhIjAiK7AhK"
    "hAhKhAhKkIhzAlKkMkKhMhAlKhIiKlArMhAhkMpAhKpAlIkAiIiyAkMhAlMhKhAiKiAiMrAmIoAiMkAjMwAkMtAhMiAiM"
    "mAhKvAhMi9AhIzhAjKpIk3AhIzsAiIxAhE6AiIiuAjIhkAiMhK9AiMhKiI7AiM+AiMigAiMhAnMoAhMiApMhKhMjIhAjI"
    "iAhKhiArIjMhCk6AhKj2AjMkAiMpAhMmAjKoAiImxAiKiAhMiAiIh2AhMhAnMhAhKhAhMiAoMmAiMoKiAhKhgAnIhAmIi"
    "AuKiiAkMhwAhKhAlMhAhMlAhMhAhQ1AnIqApKsAiMhgAkMiAiMhQhKiMh4AhKhAiMjAhMhAjMiQoAkIhsAoMiAhMhKjAl"
    "Ih+AiIigAoIoAjKhItKhAnKkAhKmAhKjAiKmmAh2KlAhYkKwgArElC4IiElChE0IhAtIhAsIhElChAqCtAiIuAiIihAtK"
    "kAhKjAsKw3AkI9AiIhh9AuIivAiI/AqIszA2Ih/AkIhgAiI3xAjKnAkIhAiIjwAhIuAhKjgAhgKhvIhAzIt9AhEjIkAqI"
    "iAsIqAkKiUhIsAhIi7AiKlAhIi6AhI4kAmugGigA0wgGhn+AiIotAjIi/AhKjAhIqKhI/AiKiwAiKmIoqAhMjAhKkAhM5"
    "AiMitAkIisAhKpAiIwAyKmAjIhAhIhpAlMjKiI3ArMhAhQrAhIhgAjMhwAhKiAkMiAhMjAhQtIwAiIlAhMijAmMiAiMiA"
    "iMsAhMoAhMvAkI8AhMhzAhKhAjKiAiKlAiKhAhK8AiIsAiMiAiIkAhKnuAhMiAhMiAhIhAhKtgyAmogCwgG+AhKw/AiIm"
    "gAwMqImAwKhjIhAuIhAhIkAhIhAiIkzAhChAjIhAmIhAkIqAiIjAiI6AjIhAhI7AhIhAhIhAnIkzAjChAhCoiAjIn6AhK"
    "niAhKk1AlKhkAhIhwAhIs+AhI3nAhImnAhI/AhImhAjMhAiMlAhMhKhMhKhoAjKkAhKwApIhmAhIjlAiKpAnIiiAnIi5A"
    "kIhjkAhMh2AuMhKnIhxAhKiMhxAkMiAiKiIhCkIh+AjKhkAlMhAmMiKrAkIhvAhKiIqAiMh0ApMhAhQkAlIhKiMhItAhI"
    "hAjIivAjMiAhMhQhKhMmIjrAhIh1AhMjAmMiK1AiMh6AhKjAhMsAhQ4AnKjAlKmtAhQjAhOjsAmMhAhMkAiMhAiKiAhIn"
    "rAkMmAiMhAiK3IkAiMi1AoMiAhMhAhKhMjIjnAhMhAhMiAmMhQhKjlAjMiAkMhAkMhKwAjIhogAhQihwAlIxv5AiIkgAl"
    "KhIh6AnKlIoAhIhiqAkMzoqAhMhKhIkClmhAiSjKjAhWlSoCoKiAnK+AkKk0AjKh97Ah3MkAhyMoAhMuAhMiAlIvAlMhA"
    "vMhqwAnYhAxYiAnYhAiYhAlYillAnKjtAmYhOl11Ahp3gGhgAkpgGogAlswGqqwAxgG2hvhAhC+AjgCkgAnwMh/wwAh//"
    "+CiAh//+CiA";

/* Rules of four numbers: first, count, stride * 8 + step, to; first and to as distances from those
 * of the rule before. They say: first + i * stride becomes to + i * step, i < count. */

/* Lower case, one character to one (U+0130 alone has two: see dp__fold_build). */
static const char dp__uc_lower[] =
    "kChUSmCnehOSnehQOShQiQhQhESjEGhEjEOQhEOhChOhEhCicCQkXCGhEnWQCQtSCEhEsfIEhUtCCEiIsXGCQseICQnTC"
    "EUnYECQsNEEWscGCQSCCQBCCQsdIEWtMGCQMCGhEtHMEhWteCCQtPKEhWKEEhUtWICQGCEhEtNICQtcCEiItRYGhWaCGh"
    "WAQQhEQhCShEhChGEQhIGWiIEECQlfCCQiUGeiIjYiMCQlZIIiIoOhMEiC1kACCQ1iRECQqDICQqQECQsDCEWwSEKhEkD"
    "yUEhEyUMCQMSCQnYOEhCkNGESEGEhChcGCQEEhCShZhESShEiYCQhISYhEEhYCQiBGEhWkAECQLIGSnNGhAStKhAiAShf"
    "lAhChEjCiUhWhEiUjMCQkICOhEZejAhEemCiMSpAl2eiMSz5eiOCQiOMCQMhtGlASh/kGlAMSir3PkpSCQkpEOiWSl7Ti"
    "aGSia0GkWhEmwIpcCQuyDEjAhEu8EmQQSlehAMShAhAQShAhAQShAhAMShAhCIhEhCeQSeiAQSiAhAQShAhAQShAhAESh"
    "AEESjfECQkGYISkBICQlCYESaEESlTcESmUEESmLECQmWYESmZEESIECQnOyUCQuiTICQh1bCCQnUOCQwmSichASiEiGC"
    "QhIhzGhUSh0Yj0UjASj2AmACQjCECQ0/LCCQtxECCQtvfGGhE0+WMEhS1hNCCQiACCQiBGEhW1iGYES1jHEjEhE1kEmWE"
    "hEmWOCQOh80chOhEh80ckAchEkAqEhIiIqEEGiIEhAeiIhAkKEhEkKICQilgBCKhEilgMaCQaECQiyyNGEhEiyyYMUhEM"
    "hIEiIiyzBCCQTCCQKCCQWGCQjECCQhNCCQhMCCQi0rMCQhEh5bhACQiBCCQiyxDCCQtwYCEhEiljUICQiy2HCEiIiy2SU"
    "GhEUMCQizjXhSCQizlWhryYhUShr0WiteiQSiuOrAiISrAsAhGhEreCUiICEEiIEYGiIYhACQhAjvCjGSjwUtAhMSrAl1"
    "AiASl1Ahq6AiAShq6Ah9sAiESh9sE";

/* What is left of a canonical decomposition without its marks, where it is one character. */
static const char dp__uc_base[] =
    "sAMQkCOEUEEGQEGIQIKESKEIQCMIQMICQIGMQQOEUEEGQEGIQIKESKEIQCMIQMIEhAIGGhAjPCGhAiAKIhAhbCIhAiAOE"
    "iChdCEiCiAKIhAhdCIhAiAOIhAhbCIhAiAOEiChdCEiCiAKIhAhdCGhAiASEhChdCEhCiAIGhAhbCGhAiASGhAhbCGhAi"
    "AQGhAhdCGhAiAOGhAhZCGhAiAKIhAhdCIhAiAOEhAhdCEhAiAKMhAhdCMhAiAWEhEhbCEhEiAGEShbEGhAiCCEhAhfiKC"
    "QVCCQiAcCQhTCCQiAhaCQjHCCQiACCQhPCCQiACCQhTCCQiACKhAhTCKhAiAUEhAjHCEhAiAGCQmKCCQiAGGhIpdCGhIi"
    "AKCQhPCCQiACCQ0QCCQtWCCQhiPICQiFCCQiAGCQhRCCQiACCQiZCCQiACCQmKCCQiACCQbCCQiACGiIrNCGiIiACGiIh"
    "fCGiIiASGiGhDCGiGiACGiGhfCGiGiASEhChXCEhCiAKCQiVCCQiAOEhIiNCEhIiAGIhAhDCIhAiAOCQhLCCQiA0CCQhk"
    "AUCQhnbOCQmaCGhIhuSCCQhtTECQhuAGCQQEEYMECQhIhUCQhfCCQYCEYYEEUMECQchUCQXCEhAYCCQLECQUKEQSiaEQk"
    "GGCQDICQZKCQhICCQDCCQWWCQViACQiAhOEQFGCQDICQiGKCQhXCCQDCCQWhQESjCkWCQlbCCQiAcEhAiLCEhAiAKCQhV"
    "CCQiAGESqGEEhCsDCEhCiAKEhAhbCEhAiAGCQhTCCQiAGESqUECQrVCCQiACGhAiTCGhAiAKEiIhXCEiIiAyaEQ+AEEhE"
    "iCCCQiBpWCQqcECQhHhCCQhChlMCQhlMQEhWQiOGShVGCQOCESKEEYUncESnMGCQclICQoGGCQMiGESiDECQMGCQeuUCQ"
    "xYhIESiL2ICQ7IOESAGCQhFxACQxO2SCQ2SUCQUKCQKKCQKKCQKaCQhVraCQuKlxKEhAlxAQCQAhraIiCtvHCIiCiACEi"
    "AhdCEiAiAOGiAhbCGiAiAKEiChfCEiCiAKIhAhdCIhAiAOGhChdCGhCiAKIhAhbCIhAiAOEhAhdCEhAiAGGhAhbCGhAiA"
    "KIhAhdCIhAiAOGhAhdCGhAiAKIhAhdCIhAiAOIhAhdCIhAiAOEhAhdCEhAiAGIhAhbCIhAiAOKhAhdCKhAiASIhAhdCIh"
    "AiAOKhAhdCKhAiASEhAhdCEhAiAGKhAhdCKhAiASGiChdCGiCiACEiEhfCEiEiAOCQhbCCQiACCQhDCEWYECQKECQwMKY"
    "hAzbCYhAiAhOQhAhXCQhAiAeEhAhXCEhAiAGYhAhTCYhAiAhOOhAhTCOhAiAaIhAhXCIhAiAaQQhzQQQQhfQMQiIQMQhf"
    "QQQiEQQQhfQQQiEQQQhfQMQiMQMQhfQQQiMSIhAhfOQQiIQQQhfQGhYQCEYAGEQMGCQECEQMEEQMEEQIIQQhPQQQhfQQQ"
    "iMQQQhfQQQjEQQQhfQKQQMEQAEKQhfMCQiQGCQhxBCGQhweIEQAEEQiDEGQEGGQuiQGIQugLMEQAEIQhfKGQumKGIQujR"
    "IEQHEEQIEIQhfICQHCEQhvRECQkPGGQh2SIEQAEEQiTEGQUGCQhvJySCQhvKICQh1bCCQTmeEUw0ehICQIheEYjYECQEj"
    "KCQjCKEhWKhWEhEhWhaCQhSGEhUOKCQKhOCQxgVECQxiIWCQhHCEUxhBEESxiQIEScIESIQESIIESQIESIiICQhYCESME"
    "CQGjCESidEEShKQISiCjeESm1Mj7GCQiyVi3AYhEi2chSGhEhSWKhWWCKhWAiGCQiRUCQlOcYhEchSGhEhSWKhWWCKhWA"
    "iGCQiRGISkSOCQcjlheCQ1yHECQhSWIQRIGQhRGMSCOOhWOCESCGEiIGOGhWOKCQKGCQhFCCQHCCQUCCQSq0YEhEklrKh"
    "CCQYihACQihI";

/* The same for CJK compatibility ideographs: first, count, their characters as distances from
 * the one before. */
static const char dp__uc_compat[] =
    "j8wAwcimkQy1Hz9MhgDu/Nwpdi7Ghl7OAhjkV8oA+kTh8CkqcqnGkxYjrU3Wzcj5OzoZhxSh7chwKolemyakoOhl2divG"
    "r4ejxOqhEr/ChgsbppWq+Eh5OzpVvwejkO01JkkajlGi5Eu9Ehg0PhjCyOo+MjgejzaitOkxUjgKlMj5Gk0GijahoWy2b"
    "vGiiCjiSnzWl3Wp6R4/NjiKu1YihcnhXjmQp/QljK/hdh4Um7Ch8OzKniAwQshIhh3R27S3qdf0lAh6EjjGpoIlvJ0rBj"
    "zGwvY+sJm6ciiWp3K+SxlRy+I0zXn+Uo5Xvrej1Hr6U01dipWvqGm0QjmCvufx/MxyPk4Tv+Ov0Jo8KzrNhrWmArrQqmM"
    "i4QkmGjva/tT0aizCi3SjtSljSkyYuoGiraiiajOhmjFqiWirCx+W4ubhxYnAhpUloShiMh0Ai0CiiUhnWnrOljPlzKhy"
    "OhgzFoYhhUugWr/U+Q1+ByYh4MkjGopAksRypBkhKiuc9GhmEp5MrOlzCqYo+cisElEtAhkoZ1iGsgMiwI69NplVhlIlx"
    "IlCk1UimSj8YinInrUl4AnxC8wJ36Mhh6JqvEnQi0c1Wi2a1AhxEiqKt0chjvBosC6kUhjkZmucotCw0A35d7SjtGl3Ax"
    "vehilZ+MklMk6czW1UijajyC9Yk5Ok1MhEkuWixMhh6Ft3WtpZu7GhsQo2EoqSi7IhkQ7wPjjIqhajxZlK3Ek9DhiNtre"
    "+pP6nM4vXjFmpeiiatgGw1Bo5SjmT0oOjudngCmsD1rPm5FioAj9hAChpUj9hECnhUj9hKUqpLw0Yh6AhnEiEOiUu8Otp"
    "Phvej9iACjlKj9iECiuMj9iKEi0AsKj9iUkIj/EaiYioYmtLi9ShjwRzSmM3YhWmahkYmSmE9QmQh7YUiiMtIiMmIh1ap"
    "Gqe/IivEqGwQhkYra/OimeqaWBQMOjACrEkCzehjIhKjQzCpG+QoYA9cirSoM2WjQ5UjKhqcoEjqWxYjY78LnxnSngtLj"
    "9nAmU5/Dh4ekZ+P8KjW0OjGhqGkPkIkShnQlSpChAwcsMh6UOpAkIyWnMkLoMibpEkE5AlQjMwIxcqGIjWiiGkC4O5Ufl"
    "OvY1AjjSi3DnUnW0OpKjKuEEqWhChSlMT4Y+KwerWuApS0UsOh0apah4U8QkKhAySjSiZjMFhBkYlC3chjAzUyOtaigMm"
    "OnGoKiIYjAhtOioUmkqcLl5Cn8jPinWiCophAloOxgGnv4fkWr8gAhhcho1BJSm5uCm48DkcakOnQhekchPujBno5Ym6u"
    "ZOhAhGm56KnomFuqciMm57cm57HahtPhuASpgiUo/+TcuyHu1YWiYKu2Du7EEhWhMWChCjEQShSUEAAm7qams7XuqLhKm"
    "74Im73PMhKpQmLhAiAjUlIhUkGhAiCAhKhEQe1IwfxCsLiGimZjuOxfiMhSoDqOBnWm+jQm9/DKehIQkAm+0MkEm+vbie"
    "Ykdocx3PcygYjMAm/oUm/gJhKeYm/yKm/xROh0ahzByqByteclEjFng1OngqBngqGngnPFhCmKCy7Fy8ciWhKiYzgNn0y"
    "Cn0wNzjIGGhIpisQpipHnijGAmwyfxtdAzlVn8/C3yEohnPSzoPzrOjGUiEoQz0Nhbz3QnjkAnjgZoCIEDichIiIbWieh"
    "IIhUWkElIiGnYnj7Ynj8dkBmYhWmCnkganj8dlZhX03V1jWhKheiL1gV1uGhanlpcnliNxKqd1yf13Q14RiHrqcGq2WmH"
    "thC+tHxzcIMjaVnmnAn8nT2rCnJsajGnl+Qnl9dmdvK23N26KmCkOrcnl/Wnl8P3sF3wSnm4Mnm1F3wL3yIiahWCnntEu"
    "4Du+ennqXnomcnn/ZcmLqeiQjSjLiQeann5Snn+TvWje4zV45QHnogUnotP3Knn/AjAnn8PnGhVF5oJ5rIjGLjMmqnQmp"
    "9fnoxcnosNnpgeno4FahWnp7Qnp4PhKnqqAtenqpThC6td6vS6uZA64ehKhKhIkK66d7gSnrxEnrvPnr1InryDm2iem14"
    "dns5ChOoYookPY7uYns/eBiOhUnthJCAiW7xB71E70JlAop4Ont8djckA7+Roq0Gnusfnu0IiWnuzLlY8rX8xCUKnvyay"
    "WAnv7R8uXos6Snv+JG86DotlSnv6b9jD9kQJhanxoMnxiF9mD9sMjWkG9xBovvIheovubov4Anx1dnx8Inx6RmKWnytKk"
    "SnysFny0QnyzPm5uen34T+talC+vP+zGzoRomvEc6iDSm45VGm5UhlzF/iMLhE3+T3/cEUiSn0lMn0lNjQkMkUoTpUiUn"
    "AwHnOEhAn0lUzKpLoz6T/8MEiGn3rIn3mLn08Qo08dIo1lAyCo12NhguKYWEkAiBoMiXpOlBkGhWhg6dhhgUiAhhgPhhm"
    "OGn3gIn24fOhhqRhhsKhqjdph/GrQo5qPShh9SkapasWn4lGn3/ZhMlUlYn47Qh7yVl9jRdjIl9ucl9gTmIn7pUhWn61R"
    "laiAn7han7hFxapeClX3ahYn7+Kn7mdhl/LhmiEn78Aph5Bhmta8xB83Cn9iEtKpj6XQhm2Un+iUpk1Ppk+In+oVAhcn+"
    "4an+tHhm6dhm/MnchWjYhnifpn2EoghbycrahoidhehonUoh2Opp9LpqgawSoGoh9Lho2Jho6GKOUOiKojsK";

/* Where two or three characters are left; 0 fills up. The last is U+0130 in lower case. */
static const uint32_t dp__uc_multi[][4] = {
    {2507,2503,2494,0},{2508,2503,2519,0},{2891,2887,2878,0},{2892,2887,2903,0},{2964,2962,3031,0},
    {3018,3014,3006,0},{3019,3015,3006,0},{3020,3014,3031,0},{3275,3266,3285,0},{3402,3398,3390,0},
    {3403,3399,3390,0},{3404,3398,3415,0},{3548,3545,3535,0},{3549,3545,3535,0},{3550,3545,3551,0},
    {6918,6917,6965,0},{6920,6919,6965,0},{6922,6921,6965,0},{6924,6923,6965,0},{6926,6925,6965,0},
    {6930,6929,6965,0},{6976,6974,6965,0},{6977,6975,6965,0},{70475,70471,70462,0},
    {70476,70471,70487,0},{70844,70841,70832,0},{70846,70841,70845,0},{71098,71096,71087,0},
    {71099,71097,71087,0},{119134,119127,119141,0},{119135,119128,119141,0},
    {119136,119128,119141,119150},{119137,119128,119141,119151},{119138,119128,119141,119152},
    {119139,119128,119141,119153},{119140,119128,119141,119154},{119227,119225,119141,0},
    {119228,119226,119141,0},{119229,119225,119141,119150},{119230,119226,119141,119150},
    {119231,119225,119141,119151},{119232,119226,119141,119151},{304,105,775,0},
};
/* End of generated tables. */

/* ============================================================================================
 * [D2] Normalization                                                          budget 170 lines
 * Owns:   UTF-8 decoding; what one character becomes; the word under construction.
 *         Needs: B3 arena, C1 UTF-8, D1.
 * Never:  holds more of a document than one word of DP__WORD_CHARS characters.
 * Tests:  tests/test_text.c: text_*      Fuzz: tests/fuzz/fuzz_encode.c
 * ============================================================================================
 *
 * The steps are those of BertNormalizer and BertPreTokenizer in Hugging Face tokenizers 0.21.4:
 * remove control characters and U+FFFD; white space to blanks; CJK characters become words; then,
 * where accents are stripped, canonical decomposition without nonspacing marks; then lower case,
 * character by character; then punctuation splits. All of this is a function of one character,
 * but for the canonical order of the few combining characters that are not dropped. So the
 * tables of [D1] are composed, for one setting of the options, into one: dp__fold. */

/* Entry of a character: (what it becomes) * 16 + kind; 0 in the upper part: itself. */
typedef struct dp__fold {
    uint16_t  page[0x110000 / 128]; /* below DP__KINDS: all 128 characters are of that kind */
    uint32_t *entry;                /* [pages, 128] */
    uint32_t  pages;
    uint8_t   ascii[256];           /* what a plain ASCII character becomes, or: */
} dp__fold;

enum { DP__ASCII_OTHER, DP__ASCII_BLANK, DP__ASCII_PUNCT, DP__ASCII_PLAIN };

#define DP__FOLD_PAGES 192u /* lower-cased and stripped needs 172 */

DP__INLINE uint32_t dp__fold_get(const dp__fold *f, uint32_t c) {
    return f->entry[(uint32_t)f->page[c >> 7] * 128 + (c & 127)];
}

/* The entry of c for writing: a page of one kind is copied first. */
static uint32_t *dp__fold_at(dp__fold *f, uint32_t c) {
    uint32_t page = f->page[c >> 7];
    if (page < DP__KINDS) {
        DP_ASSERT(f->pages < DP__FOLD_PAGES);
        memcpy(f->entry + f->pages * 128, f->entry + page * 128, 128 * sizeof(uint32_t));
        page = f->pages++;
        f->page[c >> 7] = (uint16_t)page;
    }
    return f->entry + page * 128 + (c & 127);
}

static void dp__fold_run(dp__fold *f, uint32_t first, uint32_t count, uint32_t kind) {
    while (count > 0) {
        uint32_t step = (first & 127) == 0 && count >= 128 ? 128 : 1;
        if (step == 128) f->page[first >> 7] = (uint16_t)kind;
        else *dp__fold_at(f, first) = kind;
        first += step;
        count -= step;
    }
}

/* c becomes what `to` becomes, and is of its kind. */
static void dp__fold_map(dp__fold *f, int32_t c, int32_t to) {
    uint32_t target = dp__fold_get(f, (uint32_t)to);
    *dp__fold_at(f, (uint32_t)c) = target >> 4 ? target : (uint32_t)to << 4 | target;
}

/* Rules as [D1] describes them. */
static void dp__fold_rules(dp__fold *f, const char *p) {
    for (int32_t first = 0, to = 0; *p != 0;) {
        first += dp__uc_number(&p);
        int32_t count = dp__uc_number(&p), step = dp__uc_number(&p);
        to += dp__uc_number(&p);
        for (int32_t i = 0; i < count; i++)
            dp__fold_map(f, first + i * (step >> 3), to + i * (step & 7));
    }
}

/* Decompositions; they come behind lower case, so that their targets are lower-cased already. */
static void dp__fold_strip(dp__fold *f) {
    int32_t to = 0;
    dp__fold_rules(f, dp__uc_base);
    for (const char *p = dp__uc_compat; *p != 0;) {
        int32_t first = dp__uc_number(&p), count = dp__uc_number(&p);
        for (int32_t i = 0; i < count; i++) dp__fold_map(f, first + i, to += dp__uc_number(&p));
    }
    for (uint32_t i = 0; i + 1 < sizeof dp__uc_multi / sizeof *dp__uc_multi; i++)
        *dp__fold_at(f, dp__uc_multi[i][0]) = i << 4 | DP__MULTI;
    dp__fold_run(f, 0xAC00, 11172, DP__HANGUL);
}

/* 1, or 0 when there is no memory. */
static int dp__fold_build(dp__fold *f, dp__arena *arena, int lower, int strip, int cjk) {
    uint32_t first = 0, last = sizeof dp__uc_multi / sizeof *dp__uc_multi - 1;
    f->entry = (uint32_t *)dp__arena_get(arena, DP__FOLD_PAGES * 128, sizeof(uint32_t));
    if (f->entry == NULL) return 0;
    for (uint32_t i = 0; i < DP__KINDS * 128; i++) f->entry[i] = i / 128;
    f->pages = DP__KINDS;
    for (const char *p = dp__uc_runs; *p != 0;) {
        uint32_t run = (uint32_t)dp__uc_number(&p), kind = run & 15;
        if ((!strip && kind >= DP__MARK) || (!cjk && kind == DP__CJK)) kind = DP__PLAIN;
        dp__fold_run(f, first, run >> 4, kind);
        first += run >> 4;
    }
    if (lower) {
        dp__fold_rules(f, dp__uc_lower);
        if (!strip) *dp__fold_at(f, dp__uc_multi[last][0]) = last << 4 | DP__MULTI;
    }
    if (strip) dp__fold_strip(f);
    for (uint32_t c = 0; c < 128; c++) {
        uint32_t e = dp__fold_get(f, c), kind = e & 15;
        f->ascii[c] = kind == DP__PLAIN ? (uint8_t)(e >> 4 ? e >> 4 : c)
                      : kind == DP__BLANK ? (uint8_t)DP__ASCII_BLANK
                      : kind == DP__PUNCT ? (uint8_t)DP__ASCII_PUNCT : (uint8_t)DP__ASCII_OTHER;
    }
    return 1;
}

#define DP__WORD_CHARS 100 /* a longer word is one [UNK], whatever it holds */

/* A word under construction: characters after normalization and the bytes they came from. The
 * count goes on beyond the limit, the contents do not: so no run of combining characters can
 * make the sort below long, and no document can make a word big. */
typedef struct dp__word {
    size_t   chars;
    size_t   run;                   /* first character that the next may pass */
    size_t   first, last;           /* source bytes of the whole word */
    uint32_t c[DP__WORD_CHARS];
    uint32_t kind[DP__WORD_CHARS];
    size_t   from[DP__WORD_CHARS], to[DP__WORD_CHARS]; /* source of a character */
    uint8_t  text[DP__WORD_CHARS * 4]; /* UTF-8 */
    uint8_t  at[DP__WORD_CHARS * 4];   /* character of a byte */
} dp__word;

/* Appends what a character becomes, if that is one; combining ones move in front of those of a
 * higher class (canonical order, stable). The sources stay where they are: a token's bytes then
 * are one stretch. */
static void dp__word_push(const dp__fold *f, dp__word *w, uint32_t c, size_t from, size_t to) {
    uint32_t e = dp__fold_get(f, c), kind = e & 15;
    if (w->chars == 0) w->first = from;
    w->last = to;
    size_t i = w->chars++;
    if (i >= DP__WORD_CHARS) return;
    w->from[i] = from;
    w->to[i] = to;
    if (kind < DP__COMB) w->run = i + 1;
    for (; i > w->run && kind < w->kind[i - 1]; i--) {
        w->c[i] = w->c[i - 1];
        w->kind[i] = w->kind[i - 1];
    }
    w->c[i] = e >> 4 ? e >> 4 : c;
    w->kind[i] = kind;
}

/* Appends what source character c, with fold entry e, becomes; 0 if it ends the word. */
static int dp__word_add(const dp__fold *f, dp__word *w, uint32_t c, uint32_t e, size_t from,
                        size_t to) {
    switch (e & 15) {
    case DP__BLANK: case DP__CJK: case DP__PUNCT: return 0;
    case DP__REMOVE: case DP__MARK: break;
    case DP__MARK0:
        w->run = w->chars;
        break;
    case DP__HANGUL: /* Unicode standard, section 3.12 */
        c -= 0xAC00;
        dp__word_push(f, w, 0x1100 + c / 588, from, to);
        dp__word_push(f, w, 0x1161 + c % 588 / 28, from, to);
        if (c % 28 != 0) dp__word_push(f, w, 0x11A7 + c % 28, from, to);
        break;
    case DP__MULTI:
        for (int i = 1; i < 4 && dp__uc_multi[e >> 4][i] != 0; i++)
            dp__word_push(f, w, dp__uc_multi[e >> 4][i], from, to);
        break;
    default: dp__word_push(f, w, c, from, to);
    }
    return 1;
}

/* ============================================================================================
 * [D3] WordPiece                                                              budget 280 lines
 * Owns:   vocab.txt (rules V1 below) and the longest-match search in it.
 *         Needs: B2 sizes, B3 memory, B4 errors, C5 tokenizer config, D2 UTF-8.
 * Never:  hashes: a trie has no bad case that the author of a vocabulary could aim at.
 * Memory: at most 64 times the file + 128 KiB while it is read; 32 times for bert-base-cased.
 * Tests:  tests/test_text.c: text_vocab_*      Fuzz: tests/fuzz/fuzz_vocab.c
 * ============================================================================================
 *
 * V1: line i is the entry with id i. A CR before the end of a line is not part of it; a CR
 * elsewhere, U+0000, a byte order mark and bad UTF-8 are refused. Empty lines keep their id and
 * match nothing. Of equal entries the last wins; they are counted. [UNK], [CLS], [SEP], [PAD] (or
 * the names of tokenizer_config.json) must be there and be four different entries.
 *
 * The trie is a double array: node u goes on byte c to t = base[u] ^ c if check[t] says that t
 * belongs to u. One load a byte. Continuations ("##ing") hang below the node of "##". */

#define DP__UNIT_FREE UINT32_MAX /* not the number of a unit, so nobody's child */

typedef struct dp__unit {
    uint32_t base;
    uint32_t check; /* unit of the parent, or DP__UNIT_FREE */
    int32_t  id;    /* of the entry that ends here, or -1 */
} dp__unit;

enum { DP__UNK, DP__CLS, DP__SEP, DP__PAD, DP__MASK, DP__SPECIALS };

typedef struct dp__vocab {
    int32_t   count;      /* lines */
    int32_t   duplicates; /* lines whose entry comes again later */
    int32_t   cased;      /* entries with a capital ASCII letter, [NAMES] left out */
    int32_t   special[DP__SPECIALS]; /* ids; -1 if there is no mask */
    char     *text;       /* the entries, each with LF behind: what a saved vocab.txt holds */
    size_t    text_bytes;
    uint32_t *start;      /* [count + 1] of an entry in text */
    dp__unit *unit;
    uint32_t  more;       /* unit of "##" */
} dp__vocab;

static const char *dp__vocab_entry(const dp__vocab *v, int32_t id, size_t *bytes) {
    *bytes = v->start[id + 1] - v->start[id] - 1;
    return v->text + v->start[id];
}

static dp_status dp__vocab_fail(dp_error *err, dp_status code, const char *file, size_t place,
                                const char *sentence) {
    return dp__fail_at(err, code, "V1", file, place, sentence, NULL);
}

/* Copies the entries into v->text, which has room for them, and notes where each begins. */
static dp_status dp__vocab_lines(dp__vocab *v, const char *p, size_t bytes, const char *file,
                                 dp_error *err) {
    for (size_t at = 0; at < bytes; v->count++) {
        const char *line = p + at, *lf = (const char *)memchr(line, '\n', bytes - at);
        size_t      n = lf != NULL ? (size_t)(lf - line) : bytes - at, bad = 0;
        size_t      next = at + n + (lf != NULL);
        int         capital = 0;
        if (n > 0 && line[n - 1] == '\r') n--;
        if (n > DP_MAX_VOCAB_ENTRY)
            return dp__vocab_fail(err, DP_E_LIMIT, file, at, "an entry is too long");
        v->start[v->count] = (uint32_t)v->text_bytes;
        for (size_t i = 0, step; i < n; i += step) {
            uint32_t x;
            step = dp__utf8_get((const uint8_t *)line + i, n - i, &x, &bad);
            const char *wrong = bad > 0 ? "is not UTF-8" : x == 0 ? "holds U+0000"
                                        : x == '\r' ? "CR inside a line" : NULL;
            if (wrong != NULL) return dp__vocab_fail(err, DP_E_FORMAT, file, at + i, wrong);
            capital |= x >= 'A' && x <= 'Z';
        }
        v->cased += capital && line[0] != '[';
        memcpy(v->text + v->text_bytes, line, n);
        v->text_bytes += n;
        v->text[v->text_bytes++] = '\n';
        at = next;
    }
    v->start[v->count] = (uint32_t)v->text_bytes;
    return DP_OK;
}

/* The trie while it grows: the children of a node are a list. Node 0 is the root. */
typedef struct dp__node {
    uint32_t child, next; /* first child; next child of the same parent; 0: none */
    uint32_t unit;
    int32_t  id;
    uint8_t  byte;
} dp__node;

typedef struct dp__trie {
    dp__node  *node; /* [nodes], parents before their children */
    uint32_t   nodes;
    dp__buffer buffer;
    dp__unit  *unit; /* [units], in the buffer */
    uint32_t   units;
    uint32_t   low;  /* units below are taken, or given up */
} dp__trie;

#define DP__UNITS_OPEN 2048u /* so many of the last units are tried: a bound for every vocabulary */

/* The node of an entry, made if need be. At most 256 steps a byte. */
static uint32_t dp__trie_add(dp__trie *r, const char *entry, size_t bytes) {
    uint32_t u = 0;
    for (size_t i = 0; i < bytes; i++) {
        uint8_t  c = (uint8_t)entry[i];
        uint32_t t = r->node[u].child;
        while (t != 0 && r->node[t].byte != c) t = r->node[t].next;
        if (t == 0) {
            dp__node node = {0, r->node[u].child, 0, -1, c};
            t = r->nodes++;
            r->node[t] = node;
            r->node[u].child = t;
        }
        u = t;
    }
    return u;
}

/* 256 units more; 0 when there is no memory. */
static int dp__trie_grow(dp__trie *r) {
    dp__unit unit = {0, DP__UNIT_FREE, -1};
    for (int i = 0; i < 256; i++) dp__buffer_add(&r->buffer, &unit, sizeof unit);
    if (r->buffer.failed) return 0;
    r->unit = (dp__unit *)(void *)r->buffer.p;
    r->units += 256;
    if (r->units > r->low + DP__UNITS_OPEN) r->low = r->units - DP__UNITS_OPEN;
    return 1;
}

/* A base b such that all units b ^ c[i] are free; DP__UNIT_FREE: no memory. As units come 256 at
 * a time, b ^ c[i] are all of one block. */
static uint32_t dp__trie_fit(dp__trie *r, const uint8_t *c, size_t n) {
    while (r->low < r->units && r->unit[r->low].check != DP__UNIT_FREE) r->low++;
    for (uint32_t t = r->low;; t++) {
        size_t i = 0;
        if (t == r->units && !dp__trie_grow(r)) return DP__UNIT_FREE;
        while (i < n && r->unit[t ^ c[0] ^ c[i]].check == DP__UNIT_FREE) i++;
        if (i == n) return t ^ c[0];
    }
}

/* Gives the children of a node their units; 0: no memory. */
static int dp__trie_place(dp__trie *r, const dp__node *parent) {
    uint8_t c[256];
    size_t  n = 0;
    for (uint32_t t = parent->child; t != 0; t = r->node[t].next) c[n++] = r->node[t].byte;
    if (n == 0) return 1;
    uint32_t base = dp__trie_fit(r, c, n);
    if (base == DP__UNIT_FREE) return 0;
    r->unit[parent->unit].base = base;
    for (uint32_t t = parent->child; t != 0; t = r->node[t].next) {
        dp__unit unit = {0, parent->unit, r->node[t].id};
        r->node[t].unit = base ^ r->node[t].byte;
        r->unit[r->node[t].unit] = unit;
    }
    return 1;
}

/* The trie of the entries, in r. */
static int dp__trie_build(dp__trie *r, dp__vocab *v) {
    r->nodes = 1;
    for (int32_t i = 0; i < v->count; i++) {
        size_t      bytes;
        const char *entry = dp__vocab_entry(v, i, &bytes);
        dp__node   *node = &r->node[dp__trie_add(r, entry, bytes)];
        if (bytes == 0) continue;
        v->duplicates += node->id >= 0;
        node->id = i;
    }
    uint32_t more = dp__trie_add(r, "##", 2);
    if (!dp__trie_grow(r)) return 0;
    r->unit[0].check = DP__UNIT_FREE - 1; /* the root's: not free, and nobody's child */
    for (uint32_t u = 0; u < r->nodes; u++)
        if (!dp__trie_place(r, &r->node[u])) return 0;
    v->more = r->node[more].unit;
    return 1;
}

/* Makes v->unit; 0 when there is no memory. */
static int dp__vocab_index(dp__vocab *v, dp__arena *arena) {
    size_t   nodes = v->text_bytes + 3; /* root, "##", and at most one a byte */
    dp__trie r;
    memset(&r, 0, sizeof r);
    dp__buffer_init(&r.buffer, &arena->alloc);
    r.node = (dp__node *)dp__alloc(&arena->alloc, nodes, sizeof *r.node);
    if (r.node != NULL) memset(r.node, 0, sizeof *r.node);
    if (r.node != NULL && dp__trie_build(&r, v)) {
        v->unit = (dp__unit *)dp__arena_get(arena, r.units, sizeof(dp__unit));
        if (v->unit != NULL) memcpy(v->unit, r.unit, r.buffer.n);
    }
    dp__buffer_free(&r.buffer);
    dp__free(&arena->alloc, r.node, nodes, sizeof *r.node);
    return v->unit != NULL;
}

/* Walks from unit u over w[at..n): the end of the longest entry, its id in *id; or at. */
DP__INLINE size_t dp__vocab_match(const dp__vocab *v, uint32_t u, const uint8_t *w, size_t at,
                                  size_t n, int32_t *id) {
    size_t end = at;
    *id = -1;
    while (at < n) {
        uint32_t        t = v->unit[u].base ^ w[at++];
        const dp__unit *unit = &v->unit[t];
        if (unit->check != u) break;
        u = t;
        if (unit->id >= 0) {
            end = at;
            *id = unit->id;
        }
    }
    return end;
}

/* Id of an entry, or -1. */
static int32_t dp__vocab_find(const dp__vocab *v, const char *entry, size_t bytes) {
    int32_t id;
    size_t  end = dp__vocab_match(v, 0, (const uint8_t *)entry, 0, bytes, &id);
    return bytes > 0 && end == bytes ? id : -1;
}

static dp_status dp__vocab_specials(dp__vocab *v, const dp__tokenizer_config *config,
                                    const char *file, dp_error *err) {
    const char *names[DP__SPECIALS] = {config->unk, config->cls, config->sep, config->pad,
                                       config->mask};
    for (int i = 0; i < DP__SPECIALS; i++) {
        size_t      bytes = names[i] != NULL ? strlen(names[i]) : 0;
        int32_t     id = v->special[i] = dp__vocab_find(v, names[i], bytes);
        const char *wrong = id < 0 ? "a special token is missing" : NULL;
        for (int k = 0; k < i; k++)
            if (v->special[k] == id) wrong = "two special tokens are one entry";
        if (wrong != NULL && i != DP__MASK)
            return dp__fail_at(err, DP_E_FORMAT, "V1", file, DP_NO_PLACE, wrong, names[i]);
    }
    return DP_OK;
}

/* Reads vocab.txt. All memory is the arena's; on failure *v is of no use. */
static dp_status dp__vocab_parse(dp__vocab *v, const char *text, size_t bytes, dp__arena *arena,
                                 const char *file, const dp__tokenizer_config *config,
                                 dp_error *err) {
    size_t lines = 1;
    memset(v, 0, sizeof *v);
    if (bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        return dp__vocab_fail(err, DP_E_FORMAT, file, 0, "begins with a byte order mark");
    for (size_t i = 0; i + 1 < bytes; i++) lines += text[i] == '\n';
    if (lines > DP_MAX_VOCAB || bytes > DP_MAX_VOCAB_BYTES)
        return dp__vocab_fail(err, DP_E_LIMIT, file, 0, "too many entries, or too many bytes");
    v->start = (uint32_t *)dp__arena_get(arena, lines + 1, sizeof(uint32_t));
    v->text = (char *)dp__arena_get(arena, bytes + 1, 1);
    if (v->start == NULL || v->text == NULL) return dp__no_memory(err);
    dp_status status = dp__vocab_lines(v, text, bytes, file, err);
    if (status != DP_OK) return status;
    if (!dp__vocab_index(v, arena)) return dp__no_memory(err);
    return dp__vocab_specials(v, config, file, err);
}

typedef struct dp__piece {
    int32_t id;
    size_t  begin, end; /* bytes of the normalized word */
} dp__piece;

/* Longest match first; the number of pieces, or 0: the word is unknown. */
static size_t dp__pieces(const dp__vocab *v, const uint8_t *w, size_t n, dp__piece *piece) {
    size_t at = 0, count = 0;
    while (at < n) {
        dp__piece *p = &piece[count++];
        p->begin = at;
        p->end = at = dp__vocab_match(v, at > 0 ? v->more : 0, w, at, n, &p->id);
        if (p->end == p->begin) return 0;
    }
    return count;
}

/* ============================================================================================
 * [D4] Sequences                                                              budget 300 lines
 * Owns:   words to tokens, truncation, special tokens, the encoding.
 *         Needs: B, D1 to D3.
 * Never:  needs memory that grows with the document; writes beyond the caller's arrays.
 * Tests:  tests/test_text.c: text_*      Fuzz: tests/fuzz/fuzz_encode.c
 * ============================================================================================
 *
 * A document is read once, from front to back. Of each part at most as many tokens are kept as
 * the sequence has room for: the first, or (truncate_left) the last, in a ring. The rest are
 * counted. */

#ifndef DP_MAX_TEXT_BYTES
#define DP_MAX_TEXT_BYTES 67108864
#endif

typedef struct dp__tokenizer {
    dp__vocab vocab;
    dp__fold  fold[2];    /* [letters lower-cased] */
    int32_t   lower_case; /* what the model asks for */
    int32_t   types;      /* 1: the second of a pair has tokens of type 1 */
    int32_t   positions;  /* of the model: no sequence is longer */
} dp__tokenizer;

typedef struct dp__token {
    int32_t  id;
    uint64_t begin, end;
} dp__token;

/* The tokens of one part. */
typedef struct dp__side {
    dp__token *kept;        /* [cap], room of them in use */
    size_t     room, cap;
    size_t     total, next; /* tokens seen; where the next is kept */
    int32_t    left;        /* 1: the last tokens are wanted, kept is a ring */
} dp__side;

/* Working memory of one caller, kept from call to call; it holds text: wiped when freed. */
typedef struct dp__scratch {
    dp_alloc  alloc;
    dp__side  part[2];
    dp__word  word;
    dp__piece piece[DP__WORD_CHARS];
    size_t    bad; /* invalid sequences */
    const dp__vocab *vocab; /* these are set for each part that is read */
    const dp__fold  *fold;
    dp__side        *to;
    const uint8_t   *p;
} dp__scratch;

static void dp__scratch_init(dp__scratch *s, const dp_alloc *alloc) {
    memset(s, 0, sizeof *s);
    s->alloc = *alloc;
}

static void dp__side_free(dp__side *k, const dp_alloc *alloc) {
    if (k->kept != NULL) dp__wipe(k->kept, k->cap * sizeof *k->kept);
    dp__free(alloc, k->kept, k->cap, sizeof *k->kept);
}

static void dp__scratch_free(dp__scratch *s) {
    for (int i = 0; i < 2; i++) dp__side_free(&s->part[i], &s->alloc);
    dp__wipe(s, sizeof *s);
}

/* An empty part with room for the tokens that count; 0 when there is no memory. */
static int dp__side_begin(dp__side *k, const dp_alloc *alloc, size_t room, int32_t left) {
    k->total = k->next = 0;
    k->left = left;
    k->room = room;
    if (room <= k->cap) return 1;
    dp__side_free(k, alloc);
    k->kept = (dp__token *)dp__alloc(alloc, room, sizeof *k->kept);
    k->cap = k->kept != NULL ? room : 0;
    return k->kept != NULL;
}

DP__INLINE void dp__side_keep(dp__side *k, int32_t id, uint64_t begin, uint64_t end) {
    k->total++;
    if (k->next == k->room) {
        if (!k->left || k->room == 0) return;
        k->next = 0;
    }
    dp__token *token = &k->kept[k->next++];
    token->id = id;
    token->begin = begin;
    token->end = end;
}

/* The tokens of a word of n bytes: plain ASCII characters that begin at source byte first, or,
 * where w is not NULL, the word in w. A word that has too many characters has no bytes. */
DP__INLINE void dp__emit(dp__scratch *s, const uint8_t *text, size_t n, size_t first,
                         const dp__word *w) {
    dp__piece *piece = s->piece;
    int32_t    id;
    if (w == NULL && dp__vocab_match(s->vocab, 0, text, 0, n, &id) == n) { /* most words */
        dp__side_keep(s->to, id, first, first + n);
        return;
    }
    size_t count = dp__pieces(s->vocab, text, n, piece);
    for (size_t i = 0; i < count; i++) {
        size_t a = piece[i].begin, b = piece[i].end;
        if (w == NULL) dp__side_keep(s->to, piece[i].id, first + a, first + b);
        else dp__side_keep(s->to, piece[i].id, w->from[w->at[a]], w->to[w->at[b - 1]]);
    }
    if (count == 0)
        dp__side_keep(s->to, s->vocab->special[DP__UNK], w != NULL ? w->first : first,
                      w != NULL ? w->last : first + n);
}

/* The tokens of the word under construction, if there is one. */
static void dp__emit_word(dp__scratch *s) {
    dp__word *w = &s->word;
    size_t    bytes = 0;
    for (size_t i = 0; i < w->chars && w->chars <= DP__WORD_CHARS; i++) {
        size_t n = dp__utf8_put((char *)w->text + bytes, w->c[i]);
        memset(w->at + bytes, (int)i, n);
        bytes += n;
    }
    if (w->chars > 0) dp__emit(s, w->text, bytes, 0, w);
    w->chars = w->run = 0;
}

/* One word from byte at on and the character that ends it; returns the byte behind. */
static size_t dp__read_word(dp__scratch *s, size_t at, size_t n) {
    dp__word *w = &s->word;
    for (int ends = 0; at < n && !ends;) {
        uint32_t c;
        size_t   from = at;
        at += dp__utf8_get(s->p + at, n - at, &c, &s->bad);
        uint32_t e = dp__fold_get(s->fold, c);
        ends = !dp__word_add(s->fold, w, c, e, from, at);
        if (!ends || (e & 15) == DP__BLANK) continue;
        dp__emit_word(s);
        dp__word_push(s->fold, w, c, from, at);
    }
    dp__emit_word(s);
    return at;
}

/* Bytes [at, n): plain ASCII words in the loop, whatever else through dp__read_word. */
static void dp__read_text(dp__scratch *s, size_t at, size_t n) {
    const uint8_t *p = s->p, *ascii = s->fold->ascii;
    uint8_t       *text = s->word.text;
    while (at < n) {
        size_t  first = at, chars = 0, most = n - at < DP__WORD_CHARS ? n - at : DP__WORD_CHARS;
        uint8_t c = 0;
        while (chars < most && (c = ascii[p[first + chars]]) >= DP__ASCII_PLAIN) text[chars++] = c;
        at = first + chars;
        if (at < n && c != DP__ASCII_BLANK && c != DP__ASCII_PUNCT) {
            at = dp__read_word(s, first, n);
            continue;
        }
        if (chars > 0) dp__emit(s, text, chars, first, NULL);
        if (at < n && c == DP__ASCII_PUNCT) dp__emit(s, p + at, 1, at, NULL);
        at++;
    }
}

/* The special token that stands at bytes [at, n), the longest of several: its id, or -1. */
static int32_t dp__special_at(const dp__vocab *v, const uint8_t *p, size_t at, size_t n,
                              size_t *bytes) {
    int32_t found = -1;
    *bytes = 0;
    for (int i = 0; i < DP__SPECIALS; i++) {
        size_t more;
        if (v->special[i] < 0) continue;
        const char *name = dp__vocab_entry(v, v->special[i], &more);
        if (more <= *bytes || more > n - at || memcmp(p + at, name, more) != 0) continue;
        *bytes = more;
        found = v->special[i];
    }
    return found;
}

static void dp__read_part(dp__scratch *s, size_t n, int parse_special) {
    size_t begin = 0, bytes; /* of ordinary text */
    for (size_t at = 0; parse_special && at < n;) {
        int32_t id = dp__special_at(s->vocab, s->p, at, n, &bytes);
        if (id < 0) {
            at++;
            continue;
        }
        dp__read_text(s, begin, at);
        dp__side_keep(s->to, id, at, at + bytes);
        begin = at += bytes;
    }
    dp__read_text(s, begin, n);
}

/* Lengths n[0], n[1] of the parts within room, as Hugging Face's truncate_encodings chooses them;
 * 0 if the option does not allow a cut that is long enough. */
static int dp__truncate(dp_truncation how, size_t room, int pair, size_t n[2]) {
    size_t cut = n[0] + n[1] > room ? n[0] + n[1] - room : 0;
    if (cut == 0) return 1;
    if (how == DP_TRUNCATE_NEVER) return 0;
    if (how == DP_TRUNCATE_LONGEST_FIRST || room == 0) {
        int    big = n[0] <= n[1]; /* the longer part; on a tie the second */
        size_t half = pair ? room / 2 : 0;
        if (n[!big] > half) n[!big] = half;
        n[big] = room - n[!big];
        return 1;
    }
    int i = how == DP_TRUNCATE_SECOND;
    if (n[i] <= cut) return 0;
    n[i] -= cut;
    return 1;
}

static void dp__write_token(dp_encoding *out, size_t at, int32_t type, const dp__token *token) {
    out->ids[at] = token->id;
    if (out->types != NULL) out->types[at] = type;
    if (out->begin != NULL) out->begin[at] = token->begin;
    if (out->end != NULL) out->end[at] = token->end;
}

/* Writes n tokens of a part from out position at on; returns the position behind. */
static size_t dp__write_part(const dp__side *k, size_t n, int32_t type, int32_t unk,
                             dp_encoding *out, size_t at) {
    size_t from = k->left ? k->total - n : 0;
    for (size_t i = 0; i < n; i++, at++) {
        const dp__token *token = &k->kept[(from + i) % k->room];
        dp__write_token(out, at, type, token);
        out->unknown += token->id == unk;
    }
    return at;
}

/* max_tokens as it counts, checked with the other options; 0: an argument is wrong. */
static size_t dp__encode_limit(const dp__tokenizer *t, const dp_encode_options *o, int pair) {
    int32_t most = o->max_tokens;
    if (most == 0) most = t->positions < 512 ? t->positions : 512;
    if (most > t->positions || most < (pair ? 3 : 2)) return 0;
    if ((unsigned)o->truncation > (unsigned)DP_TRUNCATE_NEVER) return 0;
    if ((unsigned)o->letter_case > (unsigned)DP_CASE_KEEP) return 0;
    return (size_t)most;
}

/* dp_encode without the model: see there. */
static dp_status dp__encode(const dp__tokenizer *t, dp__scratch *s, const dp_text *text,
                            const dp_encode_options *o, dp_encoding *out, dp_error *err) {
    const int32_t *special = t->vocab.special;
    const dp__token cls = {special[DP__CLS], 0, 0}, sep = {special[DP__SEP], 0, 0};
    int         pair = text->b != NULL;
    size_t      specials = pair ? 3 : 2, bytes = 0, kept[2], at = 0;
    size_t      most = dp__encode_limit(t, o, pair);
    const char *from[2] = {text->a, text->b};
    size_t      size[2] = {text->a_bytes, pair ? text->b_bytes : 0};
    int         lower = o->letter_case == DP_CASE_MODEL ? t->lower_case
                                                        : o->letter_case == DP_CASE_LOWER;
    out->n = out->total = out->unknown = out->invalid = s->bad = 0;
    if (most == 0 || (from[0] == NULL && size[0] > 0))
        return dp__fail(err, DP_E_ARG, "max_tokens, another option or the text is not allowed");
    if (!dp__add_size(size[0], size[1], &bytes) || bytes > DP_MAX_TEXT_BYTES)
        return dp__fail(err, DP_E_LIMIT, "the document is longer than DP_MAX_TEXT_BYTES");
    for (int i = 0; i < 2; i++) {
        size_t     room = most - specials < size[i] ? most - specials : size[i];
        s->vocab = &t->vocab;
        s->fold = &t->fold[lower != 0];
        s->to = &s->part[i];
        s->p = (const uint8_t *)from[i];
        if (!dp__side_begin(s->to, &s->alloc, room, o->truncate_left)) return dp__no_memory(err);
        dp__read_part(s, size[i], o->parse_special);
        kept[i] = s->to->total;
        out->total += kept[i];
    }
    out->total += specials;
    out->invalid = s->bad;
    if (!dp__truncate(o->truncation, most - specials, pair, kept))
        return dp__fail(err, DP_E_LIMIT, "the sequence is longer than max_tokens");
    out->n = kept[0] + kept[1] + specials;
    if (out->n > out->cap) return dp__fail(err, DP_E_SPACE, "the arrays are too small");
    dp__write_token(out, at++, 0, &cls);
    for (int i = 0; i <= pair; i++) {
        int32_t type = i * t->types;
        at = dp__write_part(&s->part[i], kept[i], type, special[DP__UNK], out, at);
        dp__write_token(out, at++, type, &sep);
    }
    return DP_OK;
}

/* Vocabulary, tables and names from the bytes of vocab.txt; all memory is the arena's. */
static dp_status dp__tokenizer_init(dp__tokenizer *t, const char *text, size_t bytes,
                                    dp__arena *arena, const char *file,
                                    const dp__tokenizer_config *config, int32_t positions,
                                    dp_error *err) {
    memset(t, 0, sizeof *t);
    dp_status status = dp__vocab_parse(&t->vocab, text, bytes, arena, file, config, err);
    if (status != DP_OK) return status;
    t->lower_case = config->lower_case != 0;
    t->types = config->types != 1;
    t->positions = positions;
    for (int lower = 0; lower < 2; lower++) {
        int strip = config->strip_accents < 0 ? lower : config->strip_accents != 0;
        if (!dp__fold_build(&t->fold[lower], arena, lower, strip, config->chinese_chars != 0))
            return dp__no_memory(err);
    }
    return DP_OK;
}

/* ============================================================================================
 * [E] Kernels                                                                budget 4385 lines
 * ============================================================================================ */

/* ============================================================================================
 * [E1] Number formats                                                          budget 40 lines
 * Owns:   the bits of a float; bfloat16, its upper half.                    Needs: nothing.
 * float16 and float64 occur in files only ([C3]); int8 is made by dp__vec_quantize in [E4], which
 * rounds to nearest, ties to even, by an addition.
 * Tests:  tests/test_kernels.c: format_*
 * ============================================================================================ */

DP__INLINE uint32_t dp__f32_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

DP__INLINE float dp__f32_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* x with a denormal as 0 of the same sign: what FTZ and DAZ of MXCSR make of it. */
DP__INLINE float dp__flush(float x) {
    uint32_t u = dp__f32_bits(x);
    return u & 0x7F800000u ? x : dp__f32_from_bits(u & 0x80000000u);
}

/* A float as bfloat16: nearest, ties to even; denormals become 0, a NaN a quiet one. This is
 * VCVTNEPS2BF16 (Intel SDM volume 2C), which does not heed MXCSR either. */
DP__INLINE uint16_t dp__bf16(float x) {
    uint32_t u = dp__f32_bits(dp__flush(x));
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}

/* ============================================================================================
 * [E2] Elementary functions                                                   budget 570 lines
 * Owns:   the fused multiply-add, lanes (dp__v8), exp, log, tanh, the normal distribution (erf),
 *         the activations.
 * Needs:  nothing. One polynomial and one order of operations for every row: + - * / fma and
 *         bits, so a lane's result does not depend on the row, the width or the neighbours.
 * Never:  calls libm, except in the double build, whose exp, log, erfc, tanh are libm's.
 * Tests:  tests/test_kernels.c: exp_*, log_*, phi_*, tanh_*, act_*; tests/test_gemm.c: gemm_fmaf
 *
 * Coefficients: minimax in the stated relative error by the Remez exchange (50 digits), each
 * rounded to float in turn, lowest power first, with the others fitted again.
 * ============================================================================================ */

/* a * b + c, to be rounded to float: the product of two floats is exact in double, the sum is
 * rounded to odd (the error of the addition, by Knuth's TwoSum, says on which side the exact
 * value lies), and rounding that to float is exact because double has more than two bits over
 * twice float's (Boldo and Melquiond 2008). NaN and infinity have no error term that compares,
 * so they pass through. */
DP__INLINE double dp__fma_odd(float a, float b, float c) {
    double  p = (double)a * (double)b, d = (double)c, s = p + d, t = s - p;
    double  e = (p - (s - t)) + (d - t);
    int64_t u, away = (e > 0) - (e < 0);
    memcpy(&u, &s, sizeof u);
    u += (u < 0 ? -away : away) & -(~u & 1);
    memcpy(&s, &u, sizeof s);
    return s;
}

/* a * b + c rounded once. */
DP__INLINE float dp__fmaf(float a, float b, float c) {
#ifdef __FP_FAST_FMAF
    return __builtin_fmaf(a, b, c);
#else
    return (float)dp__fma_odd(a, b, c);
#endif
}

/* The double build checks gradients only: there the step need not be fused. */
DP__INLINE dp_real dp__fma(dp_real a, dp_real b, dp_real c) {
#ifdef DP_REAL_DOUBLE
    return a * b + c;
#else
    return dp__fmaf(a, b, c);
#endif
}

/* A vector of DP__W lanes. The compiler lowers 8 lanes to what its target has; without vector
 * types a "vector" is one number, and the same bodies run. Masks are all ones or 0 in a lane. */
#if defined(__GNUC__) && !defined(DP__SINGLE_LANES)
#define DP__VECTORS 1
#define DP__W 8u
#define DP__LANES(type) type __attribute__((vector_size(8 * sizeof(type))))
#define DP__EACH_LANE {0, 1, 2, 3, 4, 5, 6, 7}
#else
#define DP__W 1u
#define DP__LANES(type) type
#define DP__EACH_LANE 0
#endif
#ifdef DP_REAL_DOUBLE
typedef uint64_t dp__lane;
typedef int64_t  dp__ilane;
#define DP__WHOLE 6755399441055744.0 /* 1.5 * 2^52 */
#define DP__MANTISSA 52 /* bits */
#else
typedef uint32_t dp__lane;
typedef int32_t  dp__ilane;
/* 1.5 * 2^23: in x + DP__WHOLE the last bit has the weight 1, so the sum holds x rounded to the
 * nearest integer, ties to even, in its low bits. */
#define DP__WHOLE 12582912.0f
#define DP__MANTISSA 23
#endif
typedef DP__LANES(dp_real) dp__v8;
typedef DP__LANES(dp__lane) dp__m8;
typedef DP__LANES(dp__ilane) dp__n8;

static const dp__v8 dp__none = {0};
static const dp__n8 dp__lane_index = DP__EACH_LANE;

/* Trap: a function that takes or returns a vector by value has another calling convention in an
 * AVX target than outside; gcc warns and clang refuses the call even if it is inlined. So lanes
 * pass through pointers, and these macros give them back the look of values. */
#ifdef DP__VECTORS
#define dp__bits(x) ((dp__m8)(x))
#define dp__real(m) ((dp__v8)(m))
#define dp__less(a, b) ((dp__m8)((a) < (b)))
#define dp__equal(a, b) ((dp__m8)((a) == (b)))
#define dp__int_less(a, b) ((dp__m8)((a) < (b))) /* dp__n8 */
#define dp__get(p, k, fill)                                                                      \
    __extension__({ dp__v8 got_; dp__get_lanes(&got_, (p), (k), (fill)); got_; })
#define dp__fmadd(x, y, z, fused)                                                                \
    __extension__({ dp__v8 x_ = (x), y_ = (y), z_ = (z); dp__fma_lanes(&z_, &x_, &y_, fused); z_; })
#define dp__exp_low(x, fused)                                                                    \
    __extension__({ dp__v8 e_ = (x); dp__exp_lanes(&e_, 1, fused); e_; })
#else
DP__INLINE dp__m8 dp__bits(dp__v8 x) {
    dp__m8 m;
    memcpy(&m, &x, sizeof m);
    return m;
}
DP__INLINE dp__v8 dp__real(dp__m8 m) {
    dp__v8 x;
    memcpy(&x, &m, sizeof x);
    return x;
}
#define dp__less(a, b) ((a) < (b) ? ~(dp__m8)0 : (dp__m8)0)
#define dp__equal(a, b) ((a) == (b) ? ~(dp__m8)0 : (dp__m8)0)
#define dp__int_less(a, b) ((a) < (b) ? ~(dp__m8)0 : (dp__m8)0)
#define dp__get(p, k, fill) ((k) > 0 ? *(p) : (fill))
#define dp__fmadd(x, y, z, fused) ((void)(fused), dp__fma((x), (y), (z)))
#define dp__exp_low(x, fused) dp__exp_value((x), (fused))
#endif
#define dp__set(x) ((dp_real)(x) - dp__none) /* exact, also for -0 and NaN */
#define dp__pick(mask, yes, no)                                                                  \
    dp__real((dp__bits(yes) & (mask)) | (dp__bits(no) & ~(mask)))
#define DP__SIGN ((dp__lane)1 << (sizeof(dp__lane) * 8 - 1))
#define dp__abs(x) dp__real(dp__bits(x) & ~DP__SIGN)
#define dp__with_sign(magnitude, sign)                                                           \
    dp__real((dp__bits(magnitude) & ~DP__SIGN) | (dp__bits(sign) & DP__SIGN))

/* The first k lanes from p, the others fill. Nothing behind p[k - 1] is read. */
DP__APART void dp__tail_get(dp_real *lane, const dp_real *p, size_t k, dp_real fill) {
    for (size_t j = 0; j < DP__W; j++) lane[j] = j < k ? p[j] : fill;
}

DP__APART void dp__tail_put(dp_real *p, const dp_real *lane, size_t k) {
    for (size_t j = 0; j < k; j++) p[j] = lane[j];
}

DP__INLINE void dp__get_lanes(dp__v8 *v, const dp_real *p, size_t k, dp_real fill) {
    dp_real lane[DP__W];
    if (k >= DP__W) {
        memcpy(v, p, sizeof *v);
        return;
    }
    dp__tail_get(lane, p, k, fill);
    memcpy(v, lane, sizeof *v);
}

DP__INLINE void dp__put_lanes(dp_real *p, const dp__v8 *v, size_t k) {
    dp_real lane[DP__W];
    if (k >= DP__W) {
        memcpy(p, v, sizeof *v);
        return;
    }
    memcpy(lane, v, sizeof lane);
    dp__tail_put(p, lane, k);
}

#define dp__put(p, v, k)                                                                         \
    do {                                                                                         \
        const dp__v8 put_ = (v);                                                                 \
        dp__put_lanes((p), &put_, (k));                                                          \
    } while (0)

/* Two vectors from p, each as dp__get: of the k numbers there, then fill. */
DP__INLINE void dp__get_two(dp__v8 *a, dp__v8 *b, const dp_real *p, size_t k, dp_real fill) {
    *a = dp__get(p, k, fill);
    *b = dp__set(fill);
    if (k > DP__W) *b = dp__get(p + DP__W, k - DP__W, fill);
}

/* Work on a row of n elements: whole vectors of step, where k is a constant, then the rest. */
#define DP__STEPS(step, n, i, k, ...)                                                            \
    do {                                                                                         \
        size_t i = 0;                                                                            \
        for (; i + (step) <= (n); i += (step)) {                                                 \
            const size_t k = (step);                                                             \
            __VA_ARGS__                                                                          \
        }                                                                                        \
        if (i < (n)) {                                                                           \
            const size_t k = (n) - i;                                                            \
            __VA_ARGS__                                                                          \
        }                                                                                        \
    } while (0)
#define DP__EACH(n, i, k, ...) DP__STEPS(DP__W, n, i, k, __VA_ARGS__)

/* Loops that the compiler must unroll. */
#if defined(__clang__)
#define DP__UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define DP__UNROLL _Pragma("GCC unroll 8")
#else
#define DP__UNROLL
#endif

/* z = x * y + z in all lanes, each rounded once. fused, a constant: the caller is part of AVX2
 * code. Trap: what must be inlined may not need more instruction sets than where it stands; what
 * is under AVX2 here may be inlined, and is once that place has become part of AVX2 code. */
#ifdef DP__AVX2
DP__TARGET("avx2,fma")
static inline void dp__fma_avx2(dp__v8 *z, const dp__v8 *x, const dp__v8 *y) {
    *z = (dp__v8)_mm256_fmadd_ps((__m256)*x, (__m256)*y, (__m256)*z);
}

DP__TARGET("avx2,fma")
static inline void dp__horner_avx2(dp__v8 *p, const dp__v8 *x, const float *c, const int n) {
    __m256 v = _mm256_set1_ps(c[n]);
    DP__UNROLL for (int i = n - 1; i >= 0; i--)
        v = _mm256_fmadd_ps(v, (__m256)*x, _mm256_set1_ps(c[i]));
    *p = (dp__v8)v;
}
#endif

DP__INLINE void dp__fma_lanes(dp__v8 *z, const dp__v8 *x, const dp__v8 *y, const int fused) {
    dp_real a[DP__W], b[DP__W], c[DP__W];
#ifdef DP__AVX2
    if (fused) {
        dp__fma_avx2(z, x, y);
        return;
    }
#endif
    (void)fused;
    memcpy(a, x, sizeof a);
    memcpy(b, y, sizeof b);
    memcpy(c, z, sizeof c);
    for (size_t j = 0; j < DP__W; j++) c[j] = dp__fma(a[j], b[j], c[j]);
    memcpy(z, c, sizeof c);
}

/* p = c[0] + c[1] x + ... + c[n] x^n in all lanes, by Horner's rule; c [n + 1]. */
DP__INLINE void dp__horner(dp__v8 *p, const dp__v8 *x, const dp_real *c, const int n,
                           const int fused) {
    dp_real a[DP__W], v[DP__W];
#ifdef DP__AVX2
    if (fused) {
        dp__horner_avx2(p, x, c, n);
        return;
    }
#endif
    (void)fused;
    memcpy(a, x, sizeof a);
    for (size_t j = 0; j < DP__W; j++) v[j] = c[n];
    for (int i = n - 1; i >= 0; i--)
        for (size_t j = 0; j < DP__W; j++) v[j] = dp__fma(v[j], a[j], c[i]);
    memcpy(p, v, sizeof v);
}

/* Rounding a double root to float is exact: double has more than twice its bits plus two. */
DP__INLINE dp_real dp__root1(dp_real x) {
    return (dp_real)sqrt((double)x);
}

/* Halves of a vector. Trap: gcc copies halves through memory, and a load of what two stores
 * wrote waits for both; the builtin (gcc 12, clang) stays in registers. */
#ifdef DP__X86
typedef dp_real dp__v4 __attribute__((vector_size(4 * sizeof(dp_real))));
#if defined(__clang__) || __GNUC__ >= 12
#define dp__halves(v, a, b)                                                                      \
    ((a) = __builtin_shufflevector((v), (v), 0, 1, 2, 3),                                        \
     (b) = __builtin_shufflevector((v), (v), 4, 5, 6, 7))
#define dp__join(v, a, b) ((v) = __builtin_shufflevector((a), (b), 0, 1, 2, 3, 4, 5, 6, 7))
#else
#define dp__halves(v, a, b)                                                                      \
    (memcpy(&(a), &(v), sizeof(a)), memcpy(&(b), (const char *)&(v) + sizeof(a), sizeof(b)))
#define dp__join(v, a, b)                                                                        \
    (memcpy(&(v), &(a), sizeof(a)), memcpy((char *)&(v) + sizeof(a), &(b), sizeof(b)))
#endif
#endif

/* Roots are exact in IEEE 754, so any instruction gives the same bits. */
DP__INLINE void dp__root_lanes(dp__v8 *v) {
#ifdef DP__X86
    dp__v4 a, b;
    dp__halves(*v, a, b);
    a = (dp__v4)_mm_sqrt_ps((__m128)a);
    b = (dp__v4)_mm_sqrt_ps((__m128)b);
    dp__join(*v, a, b);
#else
    dp_real lane[DP__W];
    memcpy(lane, v, sizeof lane);
    for (size_t j = 0; j < DP__W; j++) lane[j] = dp__root1(lane[j]);
    memcpy(v, lane, sizeof lane);
#endif
}

#define DP__LOG2_E ((dp_real)1.44269504088896341)

#ifdef DP_REAL_DOUBLE

DP__INLINE void dp__libm(double f(double), dp__v8 *v) {
    dp_real lane[DP__W];
    memcpy(lane, v, sizeof lane);
    for (size_t j = 0; j < DP__W; j++) lane[j] = f(lane[j]);
    memcpy(v, lane, sizeof lane);
}

DP__INLINE void dp__exp_lanes(dp__v8 *v, int low, const int fused) {
    (void)low;
    (void)fused;
    dp__libm(exp, v);
}

DP__INLINE void dp__log_lanes(dp__v8 *v) { dp__libm(log, v); }

DP__INLINE void dp__tanh_lanes(dp__v8 *v, const int fused) {
    (void)fused;
    dp__libm(tanh, v);
}

DP__INLINE void dp__phi_parts(const dp__v8 *v, dp__v8 *phi, dp__v8 *bell, const int fused) {
    (void)fused;
    *phi = *v * -0.70710678118654752;
    dp__libm(erfc, phi);
    *phi = 0.5 * *phi;
    *bell = -0.5 * (*v * *v);
    dp__libm(exp, bell);
}

#else

/* 2^f for |f| <= 1/2 on its way to 2^y, y = n + f: the polynomial has a relative error of 3.0e-9
 * (fitted by Lawson's iteration, 30 digits). moved = n + DP__WHOLE has n in its low bits. 2^n comes
 * as 2^(n-1) and a doubling, because 2^128 is no float; low: n < 128 is known, which saves that. */
static const float dp__exp_p[7] = {1.0f,             6.931471825e-01f, 2.402264774e-01f,
                                   5.550359562e-02f, 9.618499316e-03f, 1.339096925e-03f,
                                   1.532926399e-04f};
DP__INLINE void dp__power_lanes(dp__v8 *f, const dp__v8 *moved, int low, const int fused) {
    dp__v8 p, scale = dp__real((dp__bits(*moved) + (low ? 127u : 126u)) << 23);
    dp__horner(&p, f, dp__exp_p, 6, fused);
    if (!low) p = p + p;
    *f = p * scale;
}

/* exp(x) = 2^y, y = x log2 e = n + f, n = round(y); log2 e is the sum of two floats. Below -86.9
 * (1.8e-38) the result is +0: no denormals arise. All floats: at most 1.014 ulp. exp(0) = 1. */
#define DP__LOG2_LOW 1.92596303e-08f /* log2 e - DP__LOG2_E */
DP__INLINE void dp__exp_body(dp__v8 *v, int low, const int fused) {
    dp__v8 x = *v, c = x, log2 = dp__set(DP__LOG2_E);
    if (!low) c = dp__pick(dp__less(dp__set(89.0f), x), dp__set(89.0f), x);
    dp__v8 moved = dp__fmadd(c, log2, dp__set(DP__WHOLE), fused);
    dp__v8 f = dp__fmadd(c, log2, DP__WHOLE - moved, fused);
    f = dp__fmadd(c, dp__set(DP__LOG2_LOW), f, fused);
    dp__power_lanes(&f, &moved, low, fused);
    *v = dp__real(dp__bits(f) & ~dp__less(x, dp__set(-86.9f)));
}

/* One copy for the rows without fused operations, where the call is little beside the body. */
DP__APART void dp__exp_apart(dp__v8 *v, int low) {
    dp__exp_body(v, low, 0);
}

DP__INLINE void dp__exp_lanes(dp__v8 *v, int low, const int fused) {
    if (fused) dp__exp_body(v, low, 1);
    else dp__exp_apart(v, low);
}

/* log(x) = e ln 2 + log(1 + f), 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = f - f^2/2 + f^3 P(f).
 * The bits of x less those of sqrt(1/2), shifted, are the exponent e + 127. Denormals are
 * scaled by 2^23 first. P: relative error 7.2e-9. All floats > 0: at most 0.905 ulp;
 * log(0) = -inf, log(negative) = NaN, log(inf) = inf. */
DP__INLINE void dp__log_lanes(dp__v8 *v) {
    dp__v8 x = *v;
    dp__m8 tiny = dp__less(x, dp__set(FLT_MIN));
    dp__m8 u = dp__bits(dp__pick(tiny, x * 8388608.0f, x));
    dp__m8 biased = (u + 0x004AFB0Du) >> 23;
    dp__v8 f = dp__real(u - (biased << 23) + 0x3F800000u) - 1.0f;
    dp__v8 e = dp__real(biased | 0x4B000000u) - dp__pick(tiny, dp__set(8388758.0f),
                                                         dp__set(8388735.0f));
    dp__v8 p = f * -7.634944469e-02f + 1.276772320e-01f;
    p = p * f - 1.316232830e-01f;
    p = p * f + 1.420119107e-01f;
    p = p * f - 1.662321836e-01f;
    p = p * f + 2.000125498e-01f;
    p = p * f - 2.500082254e-01f;
    p = p * f + 3.333333135e-01f;
    dp__v8 y = (p * f - 0.5f) * (f * f) - e * 2.12194440e-4f;
    y = (y + f) + e * 0.693359375f;
    y = dp__pick(dp__less(x, dp__set(INFINITY)), y, x); /* inf and NaN */
    y = dp__pick(dp__less(x, dp__set(0.0f)), dp__set(NAN), y);
    *v = dp__pick(dp__equal(x, dp__set(0.0f)), dp__set(-INFINITY), y);
}

/* tanh(x): |x| < 0.625: x + x^3 P(x^2), relative error 4.5e-9; else (1 - e) / (1 + e) with
 * e = exp(-2|x|). All floats: at most 1.513 ulp; odd, tanh(-0) = -0. */
DP__INLINE void dp__tanh_lanes(dp__v8 *v, const int fused) {
    dp__v8 x = *v, a = dp__abs(x), s = a * a, e = a * -2.0f;
    dp__exp_lanes(&e, 1, fused);
    dp__v8 p = s * -5.692296196e-03f + 2.062816732e-02f;
    p = p * s - 5.373651534e-02f;
    p = p * s + 1.333140582e-01f;
    p = p * s - 3.333328068e-01f;
    dp__v8 series = a + a * (s * p), closed = (1.0f - e) / (1.0f + e);
    *v = dp__with_sign(dp__pick(dp__less(a, dp__set(0.625f)), series, closed), x);
}

/* bell = exp(-x^2 / 2), phi = Phi(x) = (1 + erf(x / sqrt 2)) / 2, the normal distribution.
 * Phi(-a) = exp(-a^2 / 2) P(a) / Q(a) for a >= 0, fitted on [0, 13.2] to errors of 1.5e-8 in
 * x Phi(x), 2.2e-8 in Phi, 1.6e-6 relative; all coefficients are positive: nothing cancels.
 * exp(-a^2 / 2) = 2^y, y = -a^2 log2(e) / 2; from a^2 = 173.8 = 2 * 86.9 on it is 0, as exp is. All
 * floats: x < 0 within 5 + min(4 x^2, 26) + x^2 / 2 ulp (the rounding of the square and of log2 e
 * is what grows), else 3 ulp. */
static const float dp__phi_p[4] = {0.5f, 3.429760337e-01f, 1.085699648e-01f, 1.444635820e-02f};
static const float dp__phi_q[5] = {1.0f, 1.483834624e+00f, 9.010957479e-01f, 2.717856467e-01f,
                                   3.622187302e-02f};
DP__INLINE void dp__phi_body(const dp__v8 *v, dp__v8 *phi, dp__v8 *bell, const int fused) {
    dp__v8 x = *v, a = dp__abs(x), square = x * x, rate = dp__set(-0.5f * DP__LOG2_E);
    dp__m8 gone = dp__less(dp__set(173.8f), square);
    dp__v8 p, q;
    dp__horner(&p, &a, dp__phi_p, 3, fused);
    dp__horner(&q, &a, dp__phi_q, 4, fused);
    dp__v8 moved = dp__fmadd(square, rate, dp__set(DP__WHOLE), fused);
    dp__v8 e = dp__fmadd(square, rate, DP__WHOLE - moved, fused);
    dp__power_lanes(&e, &moved, 1, fused);
    *bell = dp__real(dp__bits(e) & ~gone);
    dp__v8 low = dp__real(dp__bits((e * p) / q) & ~gone); /* infinity / infinity is NaN */
    *phi = dp__pick(dp__less(x, dp__none), low, 1.0f - low);
}

DP__APART void dp__phi_apart(const dp__v8 *v, dp__v8 *phi, dp__v8 *bell) {
    dp__phi_body(v, phi, bell, 0);
}

DP__INLINE void dp__phi_parts(const dp__v8 *v, dp__v8 *phi, dp__v8 *bell, const int fused) {
    if (fused) dp__phi_body(v, phi, bell, 1);
    else dp__phi_apart(v, phi, bell);
}

#endif

#ifndef DP__VECTORS
DP__INLINE dp__v8 dp__exp_value(dp__v8 x, const int fused) {
    dp__exp_lanes(&x, 1, fused);
    return x;
}
#endif

/* One number at a time: lane 0 of the same body, so the same bits. */
static dp_real dp__exp(dp_real x) {
    dp__v8 v = dp__set(x);
    dp__exp_lanes(&v, 0, 0);
    memcpy(&x, &v, sizeof x);
    return x;
}

static dp_real dp__log(dp_real x) {
    dp__v8 v = dp__set(x);
    dp__log_lanes(&v);
    memcpy(&x, &v, sizeof x);
    return x;
}

/* 1 / (1 + exp(-x)), through exp(-|x|), which cannot overflow. */
DP__INLINE void dp__sigmoid_lanes(dp__v8 *v, const int fused) {
    dp__v8 x = *v, e = -dp__abs(x);
    dp__exp_lanes(&e, 1, fused);
    *v = dp__pick(dp__less(x, dp__none), e, dp__set(1)) / ((dp_real)1 + e);
}

/* tanh(u), u = sqrt(2 / pi) (x + 0.044715 x^3). */
#define DP__SQRT_2_PI ((dp_real)0.79788456080286536) /* sqrt(2 / pi) */
DP__INLINE void dp__gelu_tanh_lanes(dp__v8 *v, const int fused) {
    dp__v8 x = *v;
    *v = DP__SQRT_2_PI * (x + (dp_real)0.044715 * (x * x * x));
    dp__tanh_lanes(v, fused);
}

/* GELU of what becomes INT8 codes: max(x, 0) - a P(a - end / 2), a = min(|x|, end); P is Phi(-a),
 * fitted by Lawson's iteration. All floats: within 1.14e-5 of x Phi(x), which is 0.0015 of a code
 * in a row whose largest number is 1, and takes half the time. */
#define DP__GELU8 ((int)DP__ACT_COUNT) /* beside dp__act: the models do not name it */
#define DP__GELU8_END ((dp_real)4.42)
static const dp_real dp__gelu8_p[10] = {
    (dp_real)1.354933903e-02,  (dp_real)-3.467922285e-02, (dp_real)3.838115931e-02,
    (dp_real)-2.257699706e-02, (dp_real)5.964313168e-03,  (dp_real)8.669898962e-04,
    (dp_real)-1.044671983e-03, (dp_real)1.633040520e-04,  (dp_real)4.984314364e-05,
    (dp_real)-1.379647074e-05};
DP__INLINE void dp__gelu8_lanes(dp__v8 *v, const int fused) {
    dp__v8 x = *v, a = dp__abs(x), end = dp__set(DP__GELU8_END), p;
    a = dp__pick(dp__less(a, end), a, end);
    dp__v8 t = a - DP__GELU8_END / 2;
    dp__horner(&p, &t, dp__gelu8_p, 9, fused);
    *v = dp__fmadd(-a, p, dp__real(dp__bits(x) & ~dp__less(x, dp__none)), fused);
}

/* For t = tanh(log(1 + exp x)): e = exp(x), w = e (e + 2), t = w / (w + 2), and nothing cancels.
 * From 18.8 on t rounds to 1 in double as well, so x stops at 20: e^2 cannot overflow. */
DP__INLINE void dp__mish_parts(dp__v8 *x, dp__v8 *e, dp__v8 *w, const int fused) {
    *e = *x = dp__pick(dp__less(dp__set(20), *x), dp__set(20), *x);
    dp__exp_lanes(e, 0, fused);
    *w = *e * (*e + (dp_real)2);
}

#define DP__QUICK ((dp_real)1.702) /* quick_gelu of transformers: x sigmoid(1.702 x) */

/* *v = act(*v). The formulas are those of PyTorch 2.8 (torch.nn.functional) and, quick_gelu, of
 * transformers 4.55. */
DP__INLINE void dp__act_lanes(int act, dp__v8 *v, const int fused) {
    dp__v8 x = *v, t = x, u;
    switch (act) {
    case DP__GELU: dp__phi_parts(&x, v, &t, fused); *v = x * *v; return;
    case DP__GELU8: dp__gelu8_lanes(v, fused); return;
    case DP__GELU_TANH:
        dp__gelu_tanh_lanes(v, fused);
        *v = (dp_real)0.5 * x * ((dp_real)1 + *v);
        return;
    case DP__RELU: *v = dp__real(dp__bits(x) & ~dp__less(x, dp__none)); return;
    case DP__SILU: dp__sigmoid_lanes(v, fused); *v = x * *v; return;
    case DP__QUICK_GELU: *v = DP__QUICK * x; dp__sigmoid_lanes(v, fused); *v = x * *v; return;
    case DP__MISH: dp__mish_parts(&t, &u, v, fused); *v = x * (*v / (*v + (dp_real)2)); return;
    default: dp__tanh_lanes(v, fused); return;
    }
}

/* dy/dx at x, for
 *   y = x Phi(x):       Phi(x) + x exp(-x^2/2) / sqrt(2 pi)
 *   y = x (1 + t) / 2:  (1 + t)/2 + x/2 (1 - t^2) u', t = tanh u,
 *                       u' = sqrt(2/pi) (1 + 0.134145 x^2)
 *   y = max(x, 0):      1 for x > 0, else 0
 *   y = x s:            s (1 + c x (1 - s)), s = 1 / (1 + exp(-c x)), c = 1 or 1.702
 *   y = x w / (w + 2):  (w + 4 x e (1 + e) / (w + 2)) / (w + 2), e and w of dp__mish_parts
 *   y = tanh x:         1 - y^2 */
DP__INLINE void dp__act_slope_lanes(int act, dp__v8 *v, const int fused) {
    dp__v8 x = *v, one = dp__set(1), t, u;
    switch (act) {
    case DP__GELU:
        dp__phi_parts(&x, &u, &t, fused);
        *v = u + x * (t * (dp_real)0.39894228040143268); /* 1 / sqrt(2 pi) */
        return;
    case DP__GELU_TANH:
        t = x;
        dp__gelu_tanh_lanes(&t, fused);
        u = DP__SQRT_2_PI * (one + (dp_real)0.134145 * (x * x));
        *v = (dp_real)0.5 * (one + t) + (dp_real)0.5 * x * ((one - t * t) * u);
        return;
    case DP__RELU: *v = dp__real(dp__bits(one) & dp__less(dp__none, x)); return;
    case DP__SILU:
    case DP__QUICK_GELU:
        t = u = act == DP__SILU ? x : DP__QUICK * x;
        dp__sigmoid_lanes(&t, fused);
        *v = t * (one + u * (one - t));
        return;
    case DP__MISH:
        dp__mish_parts(&x, &t, &u, fused);
        *v = (u + x * ((dp_real)4 * t * (one + t) / (u + (dp_real)2))) / (u + (dp_real)2);
        return;
    default:
        dp__tanh_lanes(v, fused);
        *v = one - *v * *v;
        return;
    }
}

/* 2 * width numbers folded in halves. */
DP__INLINE dp_real dp__fold_sum(dp_real *lane, size_t width) {
    for (; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++) lane[j] += lane[j + width];
    return lane[0];
}

/* The 16 sums of a row, element i in sum i mod 16, folded 8-4-2-1. */
DP__INLINE dp_real dp__fold16(const dp__v8 *sum /* [16 / DP__W] */) {
    dp_real lane[16];
    if (DP__W != 8) {
        memcpy(lane, sum, sizeof lane);
        return dp__fold_sum(lane, 8);
    }
    dp__v8 first = sum[0] + sum[16 / DP__W - 1];
    memcpy(lane, &first, sizeof first);
    return dp__fold_sum(lane, 4);
}

/* ============================================================================================
 * [E3] CPU detection                                                          budget 160 lines
 * Owns:   what the processor has and what the system saves; the floating-point state.
 * Needs:  nothing.        Never: decides what is used; that is the row table of [E8].
 * Tests:  tests/test_gemm.c: gemm_select, gemm_fp_state
 * ============================================================================================ */

/* Capability bits of the processor. */
#define DP__CPU_AVX2 1u
#define DP__CPU_FMA 2u
#define DP__CPU_AVX512F 4u
#define DP__CPU_AVX512BW 8u
#define DP__CPU_AVX512DQ 16u
#define DP__CPU_AVX512VL 32u
#define DP__CPU_AVX512VNNI 64u
#define DP__CPU_AMX_TILE 128u
#define DP__CPU_AMX_INT8 256u
#define DP__CPU_AVX512BF16 512u
#define DP__CPU_AVX_VNNI 1024u
#define DP__CPU_AMX_BF16 2048u
#define DP__CPU_SLOW_BF16 65536u /* dp__cpu_slow_bf16 */
/* Register files that the operating system saves; tiles only when it was asked to. */
#define DP__OS_YMM 1u
#define DP__OS_ZMM 2u
#define DP__OS_AMX 4u

#if defined(DP__X86) && !defined(DP__SOFTWARE)
static void dp__cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4]) {
    __asm__ __volatile__("cpuid"
                         : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                         : "a"(leaf), "c"(sub));
}

/* 1: vdpbf16ps takes twice the time of the two fused steps that it stands for. Intel family 6:
 * 8Fh Sapphire Rapids, CFh Emerald Rapids (tpp-mlir #1025), ADh and AEh Granite Rapids (measured:
 * 0.52 of the products of vfmadd a second), A7h what a hypervisor shows of one (Rocket Lake, whose
 * number it is, has no bf16). The signature is that of leaf 1.
 * CPUs with one 512-bit FMA unit stand in no table: family and model do not tell them from those
 * with two (Skylake server has both), and a cycle does there what two of 256 bits do. */
static int dp__cpu_slow_bf16(uint32_t signature) {
    static const uint32_t models[] = {0x8F, 0xCF, 0xAD, 0xAE, 0xA7};
    uint32_t model = (signature >> 12 & 0xF0u) | (signature >> 4 & 15u);
    int      slow = 0;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) slow |= model == models[i];
    return (signature >> 8 & 15u) == 6 && slow;
}

/* Intel SDM volume 2, CPUID: leaf 1 ECX; leaf 7 EBX, ECX, EDX and, subleaf 1, EAX; leaf 1D, where
 * EAX is the largest palette. Trap: virtual machines that hide leaf 1D show the bits of AMX. */
static uint32_t dp__cpu_bits(void) {
    uint32_t r[4], bits = 0;
    dp__cpuid(0, 0, r);
    uint32_t last = r[0];
    dp__cpuid(1, 0, r);
    if (r[2] >> 12 & 1) bits |= DP__CPU_FMA;
    if (dp__cpu_slow_bf16(r[0])) bits |= DP__CPU_SLOW_BF16;
    if (last < 7) return bits;
    dp__cpuid(7, 0, r);
    uint32_t subleaves = r[0];
    if (r[1] >> 5 & 1) bits |= DP__CPU_AVX2;
    if (r[1] >> 16 & 1) bits |= DP__CPU_AVX512F;
    if (r[1] >> 17 & 1) bits |= DP__CPU_AVX512DQ;
    if (r[1] >> 30 & 1) bits |= DP__CPU_AVX512BW;
    if (r[1] >> 31 & 1) bits |= DP__CPU_AVX512VL;
    if (r[2] >> 11 & 1) bits |= DP__CPU_AVX512VNNI;
    uint32_t tile = r[3] >> 24 & 1, on_tiles = r[3] >> 25 & 1 ? DP__CPU_AMX_INT8 : 0;
    if (r[3] >> 22 & 1) on_tiles |= DP__CPU_AMX_BF16;
    dp__cpuid(7, 1, r);
    if (subleaves >= 1 && r[0] >> 4 & 1) bits |= DP__CPU_AVX_VNNI;
    if (subleaves >= 1 && r[0] >> 5 & 1) bits |= DP__CPU_AVX512BF16;
    if (!tile || last < 0x1D) return bits;
    dp__cpuid(0x1D, 0, r);
    if (r[0] >= 1) bits |= DP__CPU_AMX_TILE | on_tiles;
    return bits;
}

#ifdef DP__AMX
#include <sys/syscall.h>
#include <unistd.h>

/* Linux gives a process tiles only when it asks (ARCH_REQ_XCOMP_PERM 0x1023, component 18), and
 * refuses if an alternate signal stack would be too small, or by a filter of system calls. */
static int dp__os_tiles(void) {
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}
#else
static int dp__os_tiles(void) {
    return 0;
}
#endif

/* XCR0 says which registers survive a context switch (SDM volume 1, 13.3). It may be read only
 * if OSXSAVE is set. Trap: a CPU can have AVX-512 while the system does not save zmm. */
static uint32_t dp__os_bits(void) {
    uint32_t r[4], low, high, bits = 0;
    dp__cpuid(1, 0, r);
    if (!(r[2] >> 27 & 1)) return 0;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0x06) == 0x06) bits |= DP__OS_YMM; /* SSE, AVX */
    if ((low & 0xE6) == 0xE6) bits |= DP__OS_ZMM; /* also opmask, both halves of zmm */
    if ((low & 0x600E6) == 0x600E6 && dp__os_tiles()) bits |= DP__OS_AMX; /* also tiles */
    return bits;
}
#else
#ifdef DP__SOFTWARE
enum { DP__MACHINE_BITS = 0xFFFF };
#else
enum { DP__MACHINE_BITS = 0 };
#endif

static uint32_t dp__cpu_bits(void) {
    return DP__MACHINE_BITS;
}

static uint32_t dp__os_bits(void) {
    return DP__MACHINE_BITS;
}
#endif

/* Every public entry and every worker computes with round-to-nearest, denormals kept and
 * exceptions masked, whatever the host program has set; dp__fp_leave puts its state back. */
#if defined(__x86_64__) && defined(__GNUC__)
#define DP__FP_OURS 0x1F80u /* MXCSR after reset, SDM volume 1, 10.2.3 */
static uint32_t dp__fp_set(uint32_t ours) {
    uint32_t old = 0; /* checkers of memory do not see what an instruction writes */
    __asm__ __volatile__("stmxcsr %0" : "=m"(old) : : "memory");
    __asm__ __volatile__("ldmxcsr %0" : : "m"(ours) : "memory");
    return old;
}
#elif defined(__aarch64__) && defined(__GNUC__)
#define DP__FP_OURS 0u /* FPCR, Arm Architecture Reference Manual for A-profile */
static uint32_t dp__fp_set(uint32_t ours) {
    uint64_t old, now = ours;
    __asm__ __volatile__("mrs %0, fpcr\n\tmsr fpcr, %1" : "=&r"(old) : "r"(now) : "memory");
    return (uint32_t)old;
}
#else /* not known: as the host has it */
#define DP__FP_OURS 0u
static uint32_t dp__fp_set(uint32_t ours) {
    return ours;
}
#endif

static void dp__fp_leave(uint32_t old) {
    dp__fp_set(old);
}

static uint32_t dp__fp_enter(void) {
    return dp__fp_set(DP__FP_OURS);
}

#ifdef DP__AVX2
/* The same with denormals as 0, in operands and results: bits 6 (DAZ) and 15 (FTZ). Between this
 * and dp__fp_leave numbers must come from memory and go there: the compiler moves arithmetic on
 * registers, but no memory access, across the two. */
static uint32_t dp__fp_flush(void) {
    return dp__fp_set(0x9FC0);
}
#endif

/* ============================================================================================
 * [E4] Scalar kernels                                                         budget 1030 lines
 * ============================================================================================ */

/* ---- Matrix kernels ---------------------------------------------------------------------
 * Weights lie in tile images of 1 KB: 16 k-groups x 16 columns x g values (g = 1 for FP32,
 * 2 for BF16, 4 for INT8), three neighbouring column tiles of a k-block together, or each alone:
 *     [n / 48][k / (16 g)][up to 3 tiles][16][16][g]    or    [n / 16][k / (16 g)][16][16][g]
 * One such group of columns is a panel. A kernel computes a strip, a few rows of c over one panel
 * or one tile; it takes either kind, and is fastest where a strip reads what lies together (AVX2
 * on Zen 3: 8 to 12 % of a product of BERT). */

#define DP__TILE 16u     /* columns of a tile, and k-groups of a tile */
#define DP__PANEL 48u    /* columns of a panel, at most */
#define DP__IMAGE 256u   /* FP32 numbers of a tile image */
#define DP__IMAGE_BYTES 1024u /* of an image of INT8, whatever dp_real is */
#define DP__CHAIN 1024u  /* products, or additions, of one chain */

/* Which tile image of a matrix, n columns by so many k-blocks, holds k-block block of column j. */
static size_t dp__image_at(size_t panel, size_t n, size_t blocks, size_t j, size_t block) {
    size_t group = j / panel * panel, left = (n - group + DP__TILE - 1) / DP__TILE;
    size_t tiles = left < panel / DP__TILE ? left : panel / DP__TILE;
    return group / DP__TILE * blocks + block * tiles + (j - group) / DP__TILE;
}

/* The rows of a strip, written out. Trap: clang unrolls a loop over an array of sums too late to
 * keep the sums in registers, and the kernel takes three times as long. */
#define DP__8_ROWS(row) row(0) row(1) row(2) row(3) row(4) row(5) row(6) row(7)

/* Where the chain that begins at k0 ends: after 1,024 products, at the next cut, at k. */
static size_t dp__chain_end(size_t k0, size_t k, const size_t *cuts, size_t cut_count) {
    size_t end = k - k0 > DP__CHAIN ? k0 + DP__CHAIN : k;
    for (size_t i = 0; i < cut_count; i++)
        if (cuts[i] > k0) return cuts[i] < end ? cuts[i] : end;
    return end;
}

/* FP32: c[i, j] = chain over k0 <= p < k1 of a(i, p) * b(p, j), for i < rows, j < cols. With
 * first 0 the chain's sum is added to what c holds.
 * INT8: c[i, j] = float(sum) * (a_scale[i] * scale[j]), sum = comp[j] + sum_p a[i, p] * b[p, j]
 * over u8 a = s8 + 128 with comp = -128 * sum_p b, which is exactly the sum over the s8 values;
 * without comp over the u8 values as they stand; or over s16 a. |sum| <= 255 * 128 * 65536 < 2^31;
 * with comp partial sums may wrap, the last one is exact modulo 2^32.
 * BF16: as FP32, over pairs: the product of the upper, odd elements is fused first, then that of
 * the even ones, and denormals are 0 in every operand and result, those of the additions behind
 * the chain included (VDPBF16PS; "tiny" is judged behind the rounding). Rows of numbers that are
 * widened pairs, odd element first, give the same bits to the kernels of FP32.
 * bias and residual, if any, are added last. */
typedef struct dp__strip {
    const void    *a;         /* [rows, a_row], from k0: dp_real, u8, s16, or pairs of bf16 */
    size_t         a_row;
    const char    *b;         /* the first tile at k = 0 */
    size_t         b_step;    /* bytes from one k-block to the next */
    size_t         k0, k1;    /* k-groups; k0 is a multiple of 16 */
    const dp_real *a_scale;   /* [rows] */
    const dp_real *scale;     /* [cols] */
    const int32_t *comp;      /* [cols] or NULL */
    dp_real       *c;
    size_t         ldc, rows, cols;
    int            first;
    const dp_real *bias;      /* [cols] */
    const dp_real *residual;  /* [rows, cols], stride ldr */
    size_t         ldr;
    const char    *next;      /* bytes of the next panel that this strip fetches into L2 */
    size_t         fetch;     /* bytes fetched for every 4 k-groups */
    int            act;       /* in the end: 0, 1 + DP__GELU or 1 + DP__GELU8; asked of kernels
                               * with a tile_mode only, as is more: */
    int            more;      /* another call follows at once, and may finish what this began */
    void          *work;      /* memory of such a kernel, from its tile_mode on */
} dp__strip;

/* The k-block of b that begins at k-group k. */
DP__INLINE const char *dp__strip_b(const dp__strip *s, size_t k) {
    return s->b + k / DP__TILE * s->b_step;
}

/* dp__fmaf with denormals as 0. What 24 bits would round up to 2^-126 is not tiny: from
 * 2^-126 - 2^-151 on. */
DP__INLINE float dp__fmaf_flush(float a, float b, float c) {
    double s = dp__fma_odd(dp__flush(a), dp__flush(b), dp__flush(c));
    double tiny = 1.1754943508222875e-38 - 3.5032461608120427e-46; /* exact */
    uint32_t u = dp__f32_bits((float)s);
    return dp__f32_from_bits(s > -tiny && s < tiny ? u & 0x80000000u : u);
}

/* a + b; flush: with denormals as 0, in operands and result. */
DP__INLINE dp_real dp__add(dp_real a, dp_real b, const int flush) {
    return flush ? (dp_real)dp__flush(dp__flush((float)a) + dp__flush((float)b)) : a + b;
}

/* Row i of a strip: sums become numbers of c. */
static void dp__strip_finish(const dp__strip *s, size_t i, const dp_real *sum, int flush) {
    dp_real *c = s->c + i * s->ldc;
    for (size_t j = 0; j < s->cols; j++) {
        dp_real v = s->first ? sum[j] : dp__add(c[j], sum[j], flush);
        if (s->bias != NULL) v = dp__add(v, s->bias[j], flush);
        if (s->residual != NULL) v = dp__add(v, s->residual[i * s->ldr + j], flush);
        c[j] = v;
    }
}

/* The specification of the FP32 kernel: up to 4 rows x one tile. */
static void dp__gemm_f32_scalar(const dp__strip *s) {
    for (size_t i = 0; i < s->rows; i++) {
        dp_real        sum[DP__TILE] = {0};
        const dp_real *a = (const dp_real *)s->a + i * s->a_row;
        for (size_t p = s->k0; p < s->k1; p++) {
            const dp_real *b = (const dp_real *)(const void *)dp__strip_b(s, p);
            b += p % DP__TILE * DP__TILE;
            for (size_t j = 0; j < DP__TILE; j++)
                sum[j] = dp__fma(a[p - s->k0], b[j], sum[j]);
        }
        dp__strip_finish(s, i, sum, 0);
    }
}

/* The specification of the BF16 kernel: up to 4 rows x one tile of pairs. */
static void dp__gemm_bf16_scalar(const dp__strip *s) {
    for (size_t i = 0; i < s->rows; i++) {
        const char *a = (const char *)s->a + i * s->a_row * 4;
        dp_real     sum[DP__TILE] = {0};
        for (size_t q = s->k0; q < s->k1; q++, a += 4) {
            uint32_t x, y[DP__TILE];
            memcpy(&x, a, sizeof x);
            memcpy(y, dp__strip_b(s, q) + q % DP__TILE * sizeof y, sizeof y);
            float odd = dp__f32_from_bits(x & 0xFFFF0000u), even = dp__f32_from_bits(x << 16);
            for (size_t j = 0; j < DP__TILE; j++) {
                float v = (float)sum[j];
                v = dp__fmaf_flush(odd, dp__f32_from_bits(y[j] & 0xFFFF0000u), v);
                sum[j] = (dp_real)dp__fmaf_flush(even, dp__f32_from_bits(y[j] << 16), v);
            }
        }
        dp__strip_finish(s, i, sum, 1);
    }
}

/* The specification of the INT8 kernel: up to 4 rows x one tile of quads. */
static void dp__gemm_u8s8_scalar(const dp__strip *s) {
    for (size_t i = 0; i < s->rows; i++) {
        const uint8_t *a = (const uint8_t *)s->a + i * s->a_row;
        int32_t        sum[DP__TILE] = {0}, zero = s->comp != NULL ? 128 : 0;
        dp_real        v[DP__TILE];
        for (size_t q = 0; q < s->k1; q++) {
            const int8_t *b = (const int8_t *)dp__strip_b(s, q) + q % DP__TILE * 64;
            for (size_t j = 0; j < DP__TILE; j++)
                for (size_t e = 0; e < 4; e++)
                    sum[j] += ((int32_t)a[4 * q + e] - zero) * (int32_t)b[4 * j + e];
        }
        for (size_t j = 0; j < s->cols; j++)
            v[j] = (dp_real)sum[j] * (s->a_scale[i] * s->scale[j]);
        dp__strip_finish(s, i, v, 0);
    }
}

/* ---- element-wise work: one description, one body, one instance per kernel row ------------- */

/* What dp__vec.op may be. Shapes: a row has n elements; r counts rows (tokens, or blocks of a
 * flat array); j counts columns. Each formula stands at its body below. */
typedef enum dp__vec_op {
    DP__VEC_ACT,        /* + dp__act: y = act(x) */
    DP__VEC_GELU8 = DP__VEC_ACT + DP__GELU8, /* y = gelu(x), for INT8 codes */
    DP__VEC_ACT_GRAD,   /* + dp__act: y = x * act'(z) */
    DP__VEC_DROPOUT = DP__VEC_ACT_GRAD + (int)DP__ACT_COUNT, /* y = (kept ? p0 x : 0) (+ z) */
    DP__VEC_ADAM,       /* y, s, t = one optimizer step with the gradient x */
    DP__VEC_NORM,       /* sums[r] = sum x^2 of the block */
    DP__VEC_FINITE,     /* *flag = 1 if an element is not finite */
    DP__VEC_LAYERNORM, DP__VEC_LAYERNORM_GRAD,
    DP__VEC_SOFTMAX, DP__VEC_SOFTMAX_GRAD,
    DP__VEC_CROSS_ENTROPY, DP__VEC_BCE, DP__VEC_SQUARES,
    DP__VEC_GATHER,
    DP__VEC_QUANTIZE,
    DP__VEC_SOFTMAX8, DP__VEC_SOFTMAX16,
    DP__VEC_BF16, DP__VEC_BF16_DOWN, DP__VEC_WIDEN,
    DP__VEC_COLUMN_SUMS, /* these count groups of DP__COLUMNS columns, not rows */
    DP__VEC_LAYERNORM_PARAMS,
    DP__VEC_QUANTIZE_COLUMNS,
    DP__VEC_SCATTER
} dp__vec_op;

#define DP__VEC_GELU ((int)DP__VEC_ACT + (int)DP__GELU)
#define DP__VEC_GELU_GRAD ((int)DP__VEC_ACT_GRAD + (int)DP__GELU)
#define DP__COLUMNS 32u   /* columns of one group: two cache lines, so threads share none */
#define DP__FLAT 4096u    /* elements of one block of a flat array */
#define DP__ROWS_ABREAST 4u /* rows at once: in one, additions wait for each other */

typedef struct dp__vec {
    int             op;
    size_t          n;             /* elements of a row */
    size_t          total;         /* flat arrays: all elements, rows of n = DP__FLAT; else 0 */
    dp_real        *y;             /* result: element j of row r is y[r * ldy + j] */
    const dp_real  *x, *z;         /* inputs */
    size_t          ldy, ldx, ldz;
    const dp_real  *w, *b;         /* [n] */
    const dp_real  *scale[3];      /* of INT8 tables: one number a row */
    dp_real        *s, *t;         /* [rows], or moments */
    double         *sums;          /* [rows] */
    int32_t        *flag;
    uint8_t        *q;             /* [rows, ldq] */
    size_t          ldq;
    const int32_t  *ids, *at, *types; /* [rows] */
    const uint32_t *doc;           /* [rows] */
    size_t          rows;          /* of column operations */
    const size_t   *cuts;          /* [cut_count] rows before which a chain starts anew */
    size_t          cut_count;
    size_t          panel;         /* columns of a panel of tile images */
    dp_real         p[8];
    uint32_t        key[2], step, site, threshold;
    const struct dp__vec *then;    /* done with each row behind this, or NULL: dp__vec_task */
} dp__vec;

/* Philox4x32-10: ten rounds of two 32 x 32 -> 64 bit products (Salmon, Moraes, Dror, Shaw,
 * "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3 and table 2).
 * Four blocks at once, in lanes of 64 bits whose upper halves do not count: c[i] holds word i of
 * blocks 0 to 3. Trap: x86 has no product of 64 bits; gcc makes one of shifts and additions. */
#ifdef DP__VECTORS
typedef uint64_t dp__quad __attribute__((vector_size(16)));
#else
typedef uint64_t dp__quad;
#endif
#ifdef DP__X86
#define dp__times32(x, m) ((dp__quad)_mm_mul_epu32((__m128i)(x), _mm_set1_epi64x((int64_t)(m))))
#else
#define dp__times32(x, m) (((x) & 0xFFFFFFFFu) * (m))
#endif
#define DP__QUADS (4 * sizeof(uint64_t) / sizeof(dp__quad))
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define DP__BIG_ENDIAN 1
#else
#define DP__BIG_ENDIAN 0
#endif

DP__INLINE void dp__philox_lanes(const uint32_t key[2], dp__quad c[4][DP__QUADS]) {
    const dp__quad none = {0};
    dp__quad       k0 = none + key[0], k1 = none + key[1];
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        DP__UNROLL for (size_t j = 0; j < DP__QUADS; j++) {
            dp__quad a = dp__times32(c[0][j], 0xD2511F53u), b = dp__times32(c[2][j], 0xCD9E8D57u);
            c[0][j] = (b >> 32) ^ c[1][j] ^ k0;
            c[1][j] = b;
            c[2][j] = (a >> 32) ^ c[3][j] ^ k1;
            c[3][j] = a;
        }
    }
}

/* The 32 decisions of blocks first to first + 3: word w of block b decides elements
 * 16 (w / 2) + 2 b + w % 2 by its lower half and the same + 8 by its upper half. */
DP__INLINE void dp__dropout_draw(const dp__vec *v, uint64_t first, uint32_t doc,
                                 uint32_t decision[32]) {
    uint64_t half = 0x0000FFFF0000FFFFu, word[4][4];
    dp__quad c[4][DP__QUADS];
    for (uint64_t b = 0; b < 4; b++) {
        word[0][b] = first + b;
        word[1][b] = doc;
        word[2][b] = v->step;
        word[3][b] = v->site | (first >> 32 << 12);
    }
    memcpy(c, word, sizeof c);
    dp__philox_lanes(v->key, c);
    for (size_t w = 0; w < 4; w += 2) {
        DP__UNROLL for (size_t j = 0; j < DP__QUADS; j++) {
            dp__quad x = c[w][j] & 0xFFFFFFFFu, y = c[w + 1][j] & 0xFFFFFFFFu;
            dp__quad pair = DP__BIG_ENDIAN ? y | x << 32 : x | y << 32;
            dp__quad low = pair & half, high = (pair >> 16) & half;
            memcpy(decision + 8 * w + 8 / DP__QUADS * j, &low, sizeof low);
            memcpy(decision + 8 * w + 8 / DP__QUADS * j + 8, &high, sizeof high);
        }
    }
}

/* y = x / (1 - p) where the decision of the element is at least p, else 0 (inverted dropout).
 * A decision is a function of seed, step, site, document and the element's place in it: row
 * "at" of the document, column j. A group of 32 columns takes four Philox blocks of eight
 * 16-bit decisions; the counter is (block, document, step, site | high bits of block << 12). */
DP__INLINE void dp__vec_dropout(const dp__vec *v, size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) {
        uint64_t block = (uint64_t)v->at[r] * ((v->n + 31) / 32 * 4);
        const dp_real *x = v->x + r * v->ldx, *z = v->z ? v->z + r * v->ldz : NULL;
        dp_real *y = v->y + r * v->ldy;
        for (size_t g = 0; g < v->n; g += 32, block += 4) {
            uint32_t decision[32];
            dp__dropout_draw(v, block, v->doc[r], decision);
            for (size_t i = g, d = 0; i < v->n && d < 32; i += DP__W, d += DP__W) {
                size_t k = v->n - i;
                dp__ilane drawn[DP__W];
                for (size_t j = 0; j < DP__W; j++) drawn[j] = (dp__ilane)decision[d + j];
                dp__n8 lanes;
                memcpy(&lanes, drawn, sizeof lanes);
                dp__m8 drop = dp__int_less(lanes, (dp__ilane)v->threshold);
                dp__v8 kept = dp__real(dp__bits(dp__get(x + i, k, 0) * v->p[0]) & ~drop);
                if (z != NULL) kept = dp__get(z + i, k, 0) + kept;
                dp__put(y + i, kept, k);
            }
        }
    }
}

/* Adam and AdamW in the order of torch.optim 2.8 (_single_tensor_adam), with
 *   g = p0 * gradient; Adam: g += p1 * w (L2); AdamW: w = w * p2, p2 = 1 - lr * decay
 *   m = m + (g - m) * p3,               p3 = 1 - beta1
 *   v = v * p4 + (p5 * g) * g,          p4 = beta2, p5 = 1 - beta2
 *   w = w + (-p6 * m) / (sqrt(v) / p7 + eps),  p6 = lr / (1 - beta1^t), p7 = sqrt(1 - beta2^t)
 * eps is b[0]. Moments below 2^-100 become 0: denormals would be slow and mean nothing. */
DP__INLINE void dp__vec_adam(const dp__vec *v, dp_real *w, const dp_real *grad, dp_real *mean,
                             dp_real *square, size_t k) {
    dp__v8 g = dp__get(grad, k, 0) * v->p[0], m = dp__get(mean, k, 0), s = dp__get(square, k, 0);
    dp__v8 x = dp__get(w, k, 0), least = dp__set(7.8886090522101181e-31);
    g = g + v->p[1] * x;
    x = x * v->p[2];
    m = m + (g - m) * v->p[3];
    s = s * v->p[4] + (v->p[5] * g) * g;
    m = dp__real(dp__bits(m) & ~dp__less(dp__abs(m), least));
    s = dp__real(dp__bits(s) & ~dp__less(s, least));
    dp__v8 root = s;
    dp__root_lanes(&root);
    x = x - (v->p[6] * m) / (root / v->p[7] + v->b[0]);
    dp__put(w, x, k);
    dp__put(mean, m, k);
    dp__put(square, s, k);
}

/* One vector of an operation without neighbours, i elements into row r, k lanes of it. */
DP__INLINE void dp__map_step(int op, const dp__vec *v, size_t r, size_t i, size_t k,
                             const int fused) {
    dp_real *y = v->y + r * v->ldy + i;
    if (op == DP__VEC_ADAM) {
        size_t at = r * DP__FLAT + i;
        dp__vec_adam(v, y, v->x + at, v->s + at, v->t + at, k);
        return;
    }
    dp__v8 x = dp__get(v->x + r * v->ldx + i, k, 0);
    if (op < DP__VEC_ACT_GRAD) {
        dp__act_lanes(op - DP__VEC_ACT, &x, fused);
    } else {
        dp__v8 slope = dp__get(v->z + r * v->ldz + i, k, 0);
        dp__act_slope_lanes(op - DP__VEC_ACT_GRAD, &slope, fused);
        x = x * slope;
    }
    dp__put(y, x, k);
}

DP__INLINE size_t dp__vec_length(const dp__vec *v, size_t r) {
    return v->total && v->total - r * v->n < v->n ? v->total - r * v->n : v->n;
}

DP__INLINE void dp__vec_map(int op, const dp__vec *v, size_t begin, size_t end,
                            const int fused) {
    for (size_t r = begin; r < end; r++) {
        size_t n = dp__vec_length(v, r);
        for (size_t i = 0; i < n; i += DP__W) dp__map_step(op, v, r, i, n - i, fused);
    }
}

/* Row sums: the vector at element i goes to sum i / DP__W mod 16 / DP__W. The statements set
 * term; its lanes from k on must be +0 (neutral: no sum is ever -0). Sums have constant indices
 * so that they stay in registers; the loops in the middle run only where DP__W is 1. */
#define DP__SUM_STEP(at, lanes, i, k, term, ...)                                                 \
    {                                                                                            \
        const size_t k = (lanes);                                                                \
        (void)k;                                                                                 \
        __VA_ARGS__                                                                              \
        sum_[at] += term;                                                                        \
        i += DP__W;                                                                              \
    }
#define DP__SUM_LAST (16 / DP__W - 1)
#define DP__ROW_SUM(result, n, i, k, term, ...)                                                  \
    do {                                                                                         \
        dp__v8 sum_[16 / DP__W], term;                                                           \
        size_t i = 0, a_, whole_ = (n) - (n) % 16;                                               \
        for (a_ = 0; a_ <= DP__SUM_LAST; a_++) sum_[a_] = dp__none;                              \
        while (i < whole_) {                                                                     \
            DP__SUM_STEP(0, DP__W, i, k, term, __VA_ARGS__)                                      \
            for (a_ = 1; a_ < DP__SUM_LAST; a_++)                                                \
                DP__SUM_STEP(a_, DP__W, i, k, term, __VA_ARGS__)                                 \
            DP__SUM_STEP(DP__SUM_LAST, DP__W, i, k, term, __VA_ARGS__)                           \
        }                                                                                        \
        if (i < (n)) DP__SUM_STEP(0, (n) - i < DP__W ? (n) - i : DP__W, i, k, term, __VA_ARGS__) \
        for (a_ = 1; i < (n) && a_ < DP__SUM_LAST; a_++)                                         \
            DP__SUM_STEP(a_, DP__W, i, k, term, __VA_ARGS__)                                     \
        if (i < (n)) DP__SUM_STEP(DP__SUM_LAST, (n) - i, i, k, term, __VA_ARGS__)                \
        (result) = dp__fold16(sum_);                                                             \
    } while (0)

/* LayerNorm of rows x [rows, n]: mean = sum x / n, var = sum (x - mean)^2 / n,
 * rstd = 1 / sqrt(var + eps), y = ((x - mean) * rstd) * gamma + beta.
 * w gamma, b beta, p0 eps; mean and rstd go to s and t [rows] if given. */
DP__INLINE void dp__vec_layernorm(const dp__vec *v, size_t begin, size_t end, const int fused) {
    dp_real n = (dp_real)v->n, sum;
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->ldx;
        dp_real *y = v->y + r * v->ldy;
        DP__ROW_SUM(sum, v->n, i, k, t, t = dp__get(x + i, k, 0););
        dp_real mean = sum / n;
        DP__ROW_SUM(sum, v->n, i, k, t, t = dp__get(x + i, k, mean) - mean; t *= t;);
        dp_real rstd = (dp_real)1 / dp__root1(sum / n + v->p[0]);
        if (rstd == 0) rstd = (dp_real)NAN; /* an overflow is no row of zeros */
        DP__EACH(v->n, i, k,
            dp__v8 h = (dp__get(x + i, k, 0) - mean) * rstd;
            h = dp__fmadd(h, dp__get(v->w + i, k, 0), dp__get(v->b + i, k, 0), fused);
            dp__put(y + i, h, k););
        if (v->s) v->s[r] = mean;
        if (v->t) v->t[r] = rstd;
    }
}

/* Differentiates y = h * gamma + beta, h = (x - mean) * rstd. With g = dy * gamma:
 *   dx = rstd * (g - sum(g) / n - h * sum(g * h) / n)
 * x dy, z the forward x, w gamma, s mean, t rstd; y dx (may be dy). */
DP__INLINE void dp__vec_layernorm_grad(const dp__vec *v, size_t begin, size_t end) {
    dp_real n = (dp_real)v->n, sum_g, sum_gh;
    for (size_t r = begin; r < end; r++) {
        const dp_real *dy = v->x + r * v->ldx, *x = v->z + r * v->ldz, *w = v->w;
        dp_real *dx = v->y + r * v->ldy, mean = v->s[r], rstd = v->t[r];
        DP__ROW_SUM(sum_g, v->n, i, k, t, t = dp__get(dy + i, k, 0) * dp__get(w + i, k, 0););
        DP__ROW_SUM(sum_gh, v->n, i, k, t,
            t = dp__get(dy + i, k, 0) * dp__get(w + i, k, 0);
            t *= (dp__get(x + i, k, 0) - mean) * rstd;);
        sum_g /= n;
        sum_gh /= n;
        DP__EACH(v->n, i, k,
            dp__v8 h = (dp__get(x + i, k, 0) - mean) * rstd;
            dp__v8 g = dp__get(dy + i, k, 0) * dp__get(w + i, k, 0);
            dp__put(dx + i, ((g - sum_g) - h * sum_gh) * rstd, k););
    }
}

/* Lanes from k on become fill. */
DP__INLINE void dp__fill_lanes(dp__v8 *v, size_t k, dp_real fill) {
    if (k < DP__W) *v = dp__pick(dp__int_less(dp__lane_index, (dp__ilane)k), *v, dp__set(fill));
}

/* The largest element of a row (NaN is passed over). padded: see dp__vec_softmax. */
DP__INLINE dp_real dp__row_max(const dp_real *x, size_t n, int padded) {
    dp_real none = -(dp_real)INFINITY, lane[DP__W];
    dp__v8 top = dp__set(none);
    for (size_t i = 0; i < n; i += 2 * DP__W) {
        size_t k = n - i;
        dp__v8 a, b;
        dp__get_two(&a, &b, x + i, padded ? 2 * DP__W : k, none);
        dp__fill_lanes(&a, k, none);
        dp__fill_lanes(&b, k > DP__W ? k - DP__W : 0, none);
        a = dp__pick(dp__less(a, b), b, a);
        top = dp__pick(dp__less(top, a), a, top);
    }
    memcpy(lane, &top, sizeof lane);
    for (size_t j = 1; j < DP__W; j++)
        if (lane[0] < lane[j]) lane[0] = lane[j];
    return lane[0];
}

/* softmax: y = e * (1 / sum e), e = exp(p0 * (x - max x)), p0 > 0. y may be x. Rows are padded:
 * they may be read and written up to the next multiple of 16, whatever stands there. */
DP__INLINE void dp__vec_softmax(const dp__vec *v, size_t begin, size_t end, const int fused) {
    size_t all = (v->n + 15) & ~(size_t)15;
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->ldx;
        dp_real *y = v->y + r * v->ldy, sum, max = dp__row_max(x, v->n, 1);
        DP__ROW_SUM(sum, all, i, k, t,
            t = dp__exp_low((dp__get(x + i, k, 0) - max) * v->p[0], fused);
            dp__fill_lanes(&t, v->n > i ? v->n - i : 0, 0);
            dp__put(y + i, t, k););
        dp_real share = (dp_real)1 / sum;
        for (size_t i = 0; i < all; i += DP__W)
            dp__put(y + i, dp__get(y + i, DP__W, 0) * share, DP__W);
    }
}

/* Differentiates y = softmax(p0 * x): dx = p0 * (y * (dy - sum(dy * y))). Rows are padded.
 * x dy, z the forward y; y dx (may be dy). */
DP__INLINE void dp__vec_softmax_grad(const dp__vec *v, size_t begin, size_t end) {
    size_t all = (v->n + 15) & ~(size_t)15;
    for (size_t r = begin; r < end; r++) {
        const dp_real *dy = v->x + r * v->ldx, *y = v->z + r * v->ldz;
        dp_real *dx = v->y + r * v->ldy, dot;
        DP__ROW_SUM(dot, all, i, k, t,
            t = dp__get(dy + i, k, 0) * dp__get(y + i, k, 0);
            dp__fill_lanes(&t, v->n > i ? v->n - i : 0, 0););
        for (size_t i = 0; i < all; i += DP__W) {
            dp__v8 d = dp__get(y + i, DP__W, 0) * (dp__get(dy + i, DP__W, 0) - dot);
            dp__put(dx + i, d * v->p[0], DP__W);
        }
    }
}

/* Cross-entropy of logits x [rows, n] with labels ids [rows]:
 *   loss s[r] = log(sum exp(x)) - x[label], dlogits y = p0 * (softmax(x) - onehot(label)). */
DP__INLINE void dp__vec_cross_entropy(const dp__vec *v, size_t begin, size_t end, const int fused) {
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->ldx;
        size_t label = (size_t)v->ids[r];
        dp_real *y = v->y + r * v->ldy, max = dp__row_max(x, v->n, 0), chosen = x[label], sum;
        for (size_t i = 0; i < v->n; i += DP__W)
            dp__put(y + i, dp__exp_low(dp__get(x + i, v->n - i, 0) - max, fused), v->n - i);
        DP__ROW_SUM(sum, v->n, i, k, t, t = dp__get(y + i, k, 0););
        v->s[r] = dp__log(sum) + (max - chosen);
        for (size_t i = 0; i < v->n; i++) {
            dp_real p = y[i] * ((dp_real)1 / sum);
            y[i] = v->p[0] * (i == label ? p - (dp_real)1 : p);
        }
    }
}

/* Binary cross-entropy with logits x and targets z, both [rows, n] (torch:
 * binary_cross_entropy_with_logits): s[r] = sum over n of max(x, 0) - x z + log(1 + exp(-|x|)),
 * y = p0 * (sigmoid(x) - z). */
DP__INLINE void dp__vec_bce(const dp__vec *v, size_t begin, size_t end, const int fused) {
    dp__v8 one = dp__set(1);
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->ldx, *z = v->z + r * v->ldz;
        dp_real *y = v->y + r * v->ldy, sum;
        for (size_t i = 0; i < v->n; i += DP__W) {
            dp__v8 a = dp__get(x + i, v->n - i, 0), t = one + dp__exp_low(-dp__abs(a), fused);
            dp__log_lanes(&t);
            a = dp__real(dp__bits(a) & ~dp__less(a, dp__none)) - a * dp__get(z + i, v->n - i, 0);
            dp__put(y + i, a + t, v->n - i);
        }
        DP__ROW_SUM(sum, v->n, i, k, t, t = dp__get(y + i, k, 0););
        v->s[r] = sum;
        for (size_t i = 0; i < v->n; i += DP__W) {
            dp__v8 p = dp__get(x + i, v->n - i, 0);
            dp__sigmoid_lanes(&p, fused);
            dp__put(y + i, (p - dp__get(z + i, v->n - i, 0)) * v->p[0], v->n - i);
        }
    }
}

/* Squared error of x against targets z: s[r] = sum (x - z)^2, y = p0 * 2 (x - z). */
DP__INLINE void dp__vec_squares(const dp__vec *v, size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->ldx, *z = v->z + r * v->ldz;
        dp_real *y = v->y + r * v->ldy, sum;
        DP__ROW_SUM(sum, v->n, i, k, t,
            t = dp__get(x + i, k, 0) - dp__get(z + i, k, 0);
            dp__put(y + i, t * ((dp_real)2 * v->p[0]), k);
            t *= t;);
        v->s[r] = sum;
    }
}

/* Blocks of a flat array x: sums[r] = sum x^2; or *flag = 1 if an x - x is not 0. */
DP__INLINE void dp__vec_norm(const dp__vec *v, size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->n;
        dp_real sum;
        DP__ROW_SUM(sum, dp__vec_length(v, r), i, k, t, t = dp__get(x + i, k, 0); t *= t;);
        v->sums[r] = (double)sum;
    }
}

DP__INLINE void dp__vec_finite(const dp__vec *v, size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->n;
        dp_real sum; /* of (x - x): 0, or NaN if one is not finite */
        DP__ROW_SUM(sum, dp__vec_length(v, r), i, k, t, t = dp__get(x + i, k, 0); t -= t;);
        if (sum == 0) continue;
#if defined(__GNUC__)
        __atomic_store_n(v->flag, 1, __ATOMIC_RELAXED); /* threads may meet here */
#else
        *v->flag = 1;
#endif
    }
}

/* INT8 codes as numbers. Trap: gcc 12 converts vectors of unlike width lane by lane. */
DP__INLINE void dp__code_lanes(dp__v8 *to, const int8_t *from, size_t k) {
    int8_t code[8] = {0};
    if (k >= 8) memcpy(code, from, 8);
    else for (size_t j = 0; j < k; j++) code[j] = from[j];
#ifdef DP__X86
    dp__v4  a, b;
    __m128i words = _mm_loadl_epi64((const __m128i *)(const void *)code);
    words = _mm_srai_epi16(_mm_unpacklo_epi8(words, words), 8);
    a = (dp__v4)_mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(words, words), 16));
    b = (dp__v4)_mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpackhi_epi16(words, words), 16));
    dp__join(*to, a, b);
#else
    dp_real lane[DP__W];
    for (size_t j = 0; j < DP__W; j++) lane[j] = (dp_real)code[j];
    memcpy(to, lane, sizeof lane);
#endif
}

/* Columns i to i + 7 of a row of a table [rows, n]: numbers, or codes times the row's scale. */
DP__INLINE void dp__table_lanes(dp__v8 *to, const dp_real *table, const dp_real *scale,
                                int32_t row, size_t n, size_t i) {
    size_t at = (size_t)row * n + i;
    if (scale == NULL) {
        *to = dp__get(table + at, n - i, 0);
        return;
    }
    dp__code_lanes(to, (const int8_t *)(const void *)table + at, n - i);
    *to = *to * scale[row];
}

/* Embeddings: y = (word[ids] + type[types]) + position[at], the order of transformers'
 * BertEmbeddings; x word [V, n], w type [types, n], z position [positions, n]. Rows of words lie
 * anywhere in memory, so each is fetched while the one before is added up. */
DP__INLINE void dp__vec_gather(const dp__vec *v, size_t begin, size_t end) {
    size_t size = v->n * (v->scale[0] != NULL ? 1 : sizeof *v->x);
    for (size_t r = begin; r < end; r++) {
        dp_real *y = v->y + r * v->ldy;
        for (size_t i = 0; r + 1 < end && i < size; i += DP__ALIGN)
            DP__FETCH((const char *)v->x + (size_t)v->ids[r + 1] * size + i);
        DP__EACH(v->n, i, k,
            dp__v8 word, type, place;
            dp__table_lanes(&word, v->x, v->scale[0], v->ids[r], v->n, i);
            dp__table_lanes(&type, v->w, v->scale[1], v->types[r], v->n, i);
            dp__table_lanes(&place, v->z, v->scale[2], v->at[r], v->n, i);
            dp__put(y + i, (word + type) + place, k););
    }
}

/* The lowest byte of every lane. Trap: gcc 12 converts vectors of unlike width lane by lane. */
DP__INLINE void dp__lane_bytes(uint8_t *to, const dp__m8 *lanes) {
#ifdef DP__X86
    dp__v8 v = dp__real(*lanes & 255u);
    dp__v4 a, b;
    dp__halves(v, a, b);
    __m128i words = _mm_packs_epi32((__m128i)a, (__m128i)b);
    _mm_storel_epi64((__m128i *)(void *)to, _mm_packus_epi16(words, words));
#else
    dp__lane lane[DP__W];
    memcpy(lane, lanes, sizeof lane);
    for (size_t j = 0; j < DP__W; j++) to[j] = (uint8_t)lane[j];
#endif
}

/* top = max(top, |x|) in each lane: bits of |x| grow as |x| does, NaN last. */
DP__INLINE void dp__top_lanes(dp__v8 *top, const dp__v8 *x) {
    dp__v8 a = dp__abs(*x);
    *top = dp__pick(dp__int_less((dp__n8)dp__bits(*top), (dp__n8)dp__bits(a)), a, *top);
}

/* The scale of numbers of which these, magnitudes, are the largest: it becomes 127. */
DP__INLINE dp_real dp__code_scale(const dp_real *lane, size_t lanes) {
    dp_real  max;
    dp__lane top = 0, u;
    for (size_t j = 0; j < lanes; j++) {
        memcpy(&u, lane + j, sizeof u);
        top = top < u ? u : top;
    }
    memcpy(&max, &top, sizeof max);
    dp_real scale = max == 0 ? (dp_real)1 : max / (dp_real)127;
    return scale < (dp_real)FLT_MIN ? (dp_real)FLT_MIN : scale;
}

/* Rows of x to integers: scale s[r] = max |x| / 127 (a zero row: 1; at least FLT_MIN, so that
 * 1 / scale is finite), q = round(x * (1 / scale)), ties to even, |q| <= 127; stored as q + p0
 * (128: u8 for VPDPBUSD, 0: s8 for weights). Columns n to ldz get the code of 0. A NaN makes the
 * scale NaN, and with it all that is computed from the row. t[r], if given, is the sum of the q.
 * |x - s q| <= (1/2 + 128 u) s: 1 / s has the relative error u, and |x| <= 127 s (1 + u). */
DP__INLINE void dp__vec_quantize(const dp__vec *v, size_t begin, size_t end, const int fused) {
    const size_t  n = v->n;
    const dp__v8  whole = dp__set(DP__WHOLE + v->p[0]); /* sums with it end in a code's byte */
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->ldx;
        uint8_t *q = v->q + r * v->ldq, byte[DP__W];
        dp__v8 top = dp__none, more = dp__none, total = dp__none;
        dp_real lane[DP__W];
        DP__STEPS(2 * DP__W, n, i, k,
            dp__v8 a, b;
            dp__get_two(&a, &b, x + i, k, 0);
            dp__top_lanes(&top, &a);
            dp__top_lanes(&more, &b););
        dp__top_lanes(&top, &more);
        memcpy(lane, &top, sizeof lane);
        dp_real scale = dp__code_scale(lane, DP__W);
        const dp__v8 inverse = dp__set((dp_real)1 / scale);
        v->s[r] = scale;
        DP__EACH(n, i, k,
            dp__v8 moved = dp__fmadd(dp__get(x + i, k, 0), inverse, whole, fused);
            dp__m8 lanes = dp__bits(moved);
            total += moved - whole;
            dp__lane_bytes(k < DP__W ? byte : q + i, &lanes);
            if (k < DP__W) memcpy(q + i, byte, k););
        memcpy(lane, &total, sizeof lane);
        if (v->t) v->t[r] = dp__fold_sum(lane, DP__W / 2); /* integers: exact in any order */
        if (v->ldz > n) memset(q + n, (int)v->p[0], v->ldz - n);
    }
}

/* 16 quads from g on: columns [i, i + k) of x * inverse, rounded, in the order of a tile image. A
 * lane of a float is as wide as a quad. */
DP__INLINE void dp__code_image(uint8_t *to, const dp__vec *v, size_t i, size_t k, size_t g,
                               const dp__v8 *inverse, const int fused) {
    for (size_t p = g; p < g + DP__TILE; p++, to += 4 * DP__TILE) {
        dp__m8 word = dp__bits(dp__none);
        for (size_t b = 0; b < 4 && p * 4 + b < v->rows; b++) {
            size_t at = DP__BIG_ENDIAN ? 3 - b : b;
            dp__v8 x = dp__get(v->x + (p * 4 + b) * v->ldx + i, k, 0);
            x = dp__fmadd(x, *inverse, dp__set(DP__WHOLE), fused);
            word |= (dp__bits(x) & (dp__lane)255) << (dp__lane)(8 * at);
        }
        memcpy(to, &word, DP__W * 4);
    }
}

/* Columns of x [rows, n] to integers as dp__vec_quantize does with rows: scales s[j], and codes in
 * tile images q of n columns for k = rows. */
DP__INLINE void dp__vec_quantize_columns(const dp__vec *v, size_t begin, size_t end,
                                         const int fused) {
    size_t blocks = (v->rows + 4 * DP__TILE - 1) / (4 * DP__TILE);
    size_t last = end * DP__COLUMNS < v->n ? end * DP__COLUMNS : (v->n + 15) / 16 * 16;
    for (size_t i = begin * DP__COLUMNS; i < last; i += DP__W) {
        size_t  k = i < v->n ? v->n - i : 0;
        dp_real lane[DP__W];
        dp__v8  top = dp__none, scale;
        for (size_t r = 0; r < v->rows; r++) {
            dp__v8 x = dp__get(v->x + r * v->ldx + i, k, 0);
            dp__top_lanes(&top, &x);
        }
        memcpy(lane, &top, sizeof lane);
        for (size_t j = 0; j < DP__W; j++) lane[j] = dp__code_scale(lane + j, 1);
        memcpy(&scale, lane, sizeof scale);
        dp__put(v->s + i, scale, k);
        scale = (dp_real)1 / scale;
        for (size_t g = 0; g < blocks * DP__TILE; g += DP__TILE) {
            size_t at = dp__image_at(v->panel, v->n, blocks, i, g / DP__TILE);
            dp__code_image(v->q + at * DP__IMAGE_BYTES + i % DP__TILE * 4, v, i, k, g, &scale,
                           fused);
        }
    }
}

/* 255 * 2^t, t <= 0: with n = round(t) and f = t - n a polynomial of f, then n added to the
 * exponent. Relative error 7.5e-5 (Remez exchange, 3rd degree): 0.02 of a code. From 2^-30 on
 * the code is 0 whatever the value, so t ends there. */
static const dp_real dp__code_p[4] = {(dp_real)254.981659, (dp_real)176.781551,
                                      (dp_real)61.8658382, (dp_real)14.0687755};
DP__INLINE void dp__code_power(dp__v8 *v, const int fused) {
    dp__v8 t = dp__pick(dp__less(*v, dp__set(-30)), dp__set(-30), *v), moved = t + DP__WHOLE;
    dp__v8 p, f = t - (moved - DP__WHOLE);
    dp__horner(&p, &f, dp__code_p, 3, fused);
    *v = dp__real(dp__bits(p) + (dp__bits(moved) << DP__MANTISSA));
}

/* Two numbers as a pair of bfloat16, the second in the upper half; of one, the second is +0. */
DP__INLINE uint32_t dp__bf16_pair(dp_real first, dp_real second) {
    return (uint32_t)dp__bf16((float)second) << 16 | dp__bf16((float)first);
}

#ifdef DP__X86
/* dp__bf16 in every lane; the results are the upper halves, the lower ones 0. */
DP__INLINE void dp__bf16_lanes(dp__m8 *lanes) {
    dp__m8 u = *lanes, size = u & 0x7FFFFFFFu;
    dp__m8 tiny = dp__int_less((dp__n8)size, 0x00800000);
    dp__m8 number = dp__int_less((dp__n8)size, 0x7F800001);
    dp__m8 up = ((u + 0x7FFFu + ((u >> 16) & 1u)) & number) | ((u | 0x00400000u) & ~number);
    *lanes = ((up & ~tiny) | (u & 0x80000000u & tiny)) & 0xFFFF0000u;
}

/* Eight numbers to pairs at q; without q, widened, to y: of each pair the second number first. */
DP__INLINE void dp__bf16_store(void *q, float *y, const dp__m8 *lanes) {
    dp__v8 v = dp__real(*lanes);
    dp__v4 a, b;
    dp__halves(v, a, b);
    if (q == NULL) {
        _mm_storeu_ps(y, _mm_shuffle_ps((__m128)a, (__m128)a, 0xB1));
        _mm_storeu_ps(y + 4, _mm_shuffle_ps((__m128)b, (__m128)b, 0xB1));
        return;
    }
    __m128i low = _mm_srai_epi32((__m128i)a, 16), high = _mm_srai_epi32((__m128i)b, 16);
    _mm_storeu_si128((__m128i *)q, _mm_packs_epi32(low, high));
}
#endif

/* The vector *t of row r at element i, rounded: to v->q as pairs, else to v->y as floats. */
DP__INLINE void dp__bf16_put(const dp__vec *v, size_t r, size_t i, const dp__v8 *t) {
    uint8_t *q = v->q != NULL ? v->q + r * v->ldq : NULL;
    dp_real *y = q == NULL ? v->y + r * v->ldy : NULL;
#ifdef DP__X86
    dp__m8 lanes = dp__bits(*t);
    dp__bf16_lanes(&lanes);
    dp__bf16_store(q != NULL ? q + 2 * i : NULL, q == NULL ? y + i : NULL, &lanes);
#else
    dp_real lane[DP__W];
    memcpy(lane, t, sizeof lane);
    for (size_t j = 0; j < DP__W; j++) {
        uint16_t half = dp__bf16((float)lane[j]);
        if (q != NULL) memcpy(q + 2 * ((i + j) ^ (size_t)DP__BIG_ENDIAN), &half, sizeof half);
        else y[(i + j) ^ 1] = (dp_real)dp__f32_from_bits((uint32_t)half << 16);
    }
#endif
}

/* softmax in codes, for a product whose rows are then multiplied by s[r]; with
 * e = exp(p0 * (x - max x)).
 * INT8: q = round(255 e), s[r] = 1 / sum of the q, so that q * s adds up to 1; the sum of up to
 * 65,536 codes is below 2^24: exact in any order. BF16: 255 e, rounded as dp__vec_bf16 does, and
 * 1 / sum of the 255 e before that. (Logits of two trained models are as near to FP32's or nearer
 * than with the sum of what was rounded: 0.144 % against 0.158 at best.) Rows are padded as in
 * dp__vec_softmax; columns from n on get 0. A NaN makes s NaN. */
DP__INLINE void dp__vec_softmax_codes(const dp__vec *v, size_t begin, size_t end, const int fused) {
    const int bf16 = v->op == DP__VEC_SOFTMAX16;
    size_t  all = (v->n + 15) & ~(size_t)15;
    dp_real whole = bf16 ? 0 : DP__WHOLE;
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->ldx;
        uint8_t *q = bf16 ? NULL : v->q + r * v->ldq;
        dp_real sum, max = dp__row_max(x, v->n, 1), rate = v->p[0] * DP__LOG2_E;
        DP__ROW_SUM(sum, all, i, k, t,
            t = (dp__get(x + i, k, 0) - max) * rate;
            dp__code_power(&t, fused);
            t = t + whole;
            dp__fill_lanes(&t, v->n > i ? v->n - i : 0, whole);
            if (bf16) {
                dp__bf16_put(v, r, i, &t);
            } else {
                dp__m8 lanes = dp__bits(t);
                dp__lane_bytes(q + i, &lanes);
                t -= DP__WHOLE;
            });
        v->s[r] = (dp_real)1 / sum;
    }
}

/* A pair of bfloat16 to v->q at a byte, or, without q, its elements widened to v->y. */
DP__INLINE void dp__pair_put(const dp__vec *v, size_t byte, size_t second, size_t first,
                             uint32_t pair) {
    if (v->q != NULL) {
        memcpy(v->q + byte, &pair, sizeof pair);
        return;
    }
    v->y[second] = (dp_real)dp__f32_from_bits(pair & 0xFFFF0000u);
    v->y[first] = (dp_real)dp__f32_from_bits(pair << 16);
}

/* Rows of x, times s[r] if given, as the left side of a BF16 product: pairs in q, rows ldq bytes
 * apart; without q the same numbers as floats in y, of each pair the second first. An odd n is
 * filled up with +0. */
DP__INLINE void dp__vec_bf16(const dp__vec *v, size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + r * v->ldx;
        dp_real        scale = v->s != NULL ? v->s[r] : 1;
        size_t         i = 0;
        for (; i + DP__W <= v->n - v->n % 2; i += DP__W) {
            dp__v8 t = dp__get(x + i, DP__W, 0) * scale;
            dp__bf16_put(v, r, i, &t);
        }
        for (; i < v->n; i += 2) {
            uint32_t pair = dp__bf16_pair(x[i] * scale, i + 1 < v->n ? x[i + 1] * scale : 0);
            size_t   y = r * v->ldy + i;
            dp__pair_put(v, r * v->ldq + 2 * i, y, y + 1, pair);
        }
    }
}

/* The same where k runs down the rows of x [v->rows, n]: rows 2 r and 2 r + 1 are the pairs of row
 * r of q, or, without q, widened, rows 2 r + 1 and 2 r of y. An odd last row is paired with +0. */
DP__INLINE void dp__vec_bf16_down(const dp__vec *v, size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) {
        const dp_real *x = v->x + 2 * r * v->ldx, *z = 2 * r + 1 < v->rows ? x + v->ldx : NULL;
        size_t         i = 0;
#ifdef DP__X86
        uint8_t *q = v->q != NULL ? v->q + r * v->ldq : NULL;
        dp_real *y = q == NULL ? v->y + 2 * r * v->ldy : NULL;
        for (; i + 8 <= v->n; i += 8) {
            dp__m8 first = dp__bits(dp__get(x + i, 8, 0)), second = first ^ first;
            if (z != NULL) second = dp__bits(dp__get(z + i, 8, 0));
            dp__bf16_lanes(&first);
            dp__bf16_lanes(&second);
            if (q != NULL) {
                second |= first >> 16;
                memcpy(q + 4 * i, &second, sizeof second);
                continue;
            }
            dp__put(y + i, dp__real(second), 8);
            dp__put(y + v->ldy + i, dp__real(first), 8);
        }
#endif
        for (; i < v->n; i++) {
            uint32_t pair = dp__bf16_pair(x[i], z != NULL ? z[i] : 0);
            size_t   at = 2 * r * v->ldy + i;
            dp__pair_put(v, r * v->ldq + 4 * i, at, at + v->ldy, pair);
        }
    }
}

/* The k-blocks [begin, end) of n tiles of pairs, at x, as images of floats, at y: twice as many
 * k-blocks, the odd elements of a pair before the even ones. What kernels of FP32 take. */
DP__INLINE void dp__vec_widen(const dp__vec *v, size_t begin, size_t end) {
    for (size_t i = begin * v->n; i < end * v->n; i++) {
        const char *from = (const char *)v->x + i * DP__TILE * DP__TILE * 4;
        dp_real    *to = v->y + (i / v->n * v->n + i) * DP__IMAGE;
        for (size_t g = 0; g < DP__TILE; g++, from += DP__TILE * 4, to += 2 * DP__TILE) {
            if (g == DP__TILE / 2) to += (v->n - 1) * DP__IMAGE;
            for (size_t j = 0; j < DP__TILE; j += DP__W) {
#if defined(DP__VECTORS) && !defined(DP_REAL_DOUBLE)
                dp__m8 u;
                memcpy(&u, from + j * 4, sizeof u);
                dp__put(to + j, dp__real(u & 0xFFFF0000u), DP__W);
                dp__put(to + DP__TILE + j, dp__real(u << 16), DP__W);
#else
                for (size_t e = j; e < j + DP__W; e++) {
                    uint32_t u;
                    memcpy(&u, from + e * 4, sizeof u);
                    to[e] = (dp_real)dp__f32_from_bits(u & 0xFFFF0000u);
                    to[DP__TILE + e] = (dp_real)dp__f32_from_bits(u << 16);
                }
#endif
            }
        }
    }
}

/* Vectors of columns that walk down the rows together: one cache line after the other is read. */
#define DP__ABREAST (DP__COLUMNS / DP__W)

/* y[j] = y[j] + sum over rows r of x[r, j], one chain of additions per piece (dp__chain_end), for
 * count vectors of columns from i on, of which k exist. */
DP__INLINE void dp__column_chains(const dp__vec *v, size_t i, size_t k, const size_t count) {
    for (size_t at = 0, stop; at < v->rows; at = stop) {
        dp__v8 sum[DP__ABREAST];
        for (size_t c = 0; c < count; c++) sum[c] = dp__none;
        stop = dp__chain_end(at, v->rows, v->cuts, v->cut_count);
        for (size_t r = at; r < stop; r++) {
            const dp_real *x = v->x + r * v->ldx + i;
            DP__UNROLL for (size_t c = 0; c < count; c++) sum[c] += dp__get(x + c * DP__W, k, 0);
        }
        for (size_t c = 0; c < count; c++) {
            dp_real *y = v->y + i + c * DP__W;
            dp__put(y, dp__get(y, k, 0) + sum[c], k);
        }
    }
}

/* Differentiates y = h * gamma + beta by gamma and beta, h = (x - mean) * rstd:
 *   s[j] = s[j] + sum over rows of dy * h, t[j] = t[j] + sum over rows of dy
 * x dy, z the forward x, w mean [rows], b rstd [rows]; chains as in dp__column_chains. */
DP__INLINE void dp__layernorm_chains(const dp__vec *v, size_t i, size_t k, const size_t count) {
    for (size_t at = 0, stop; at < v->rows; at = stop) {
        dp__v8 dgamma[DP__ABREAST], dbeta[DP__ABREAST];
        for (size_t c = 0; c < count; c++) dgamma[c] = dbeta[c] = dp__none;
        stop = dp__chain_end(at, v->rows, v->cuts, v->cut_count);
        for (size_t r = at; r < stop; r++) {
            const dp_real *x = v->x + r * v->ldx + i, *z = v->z + r * v->ldz + i;
            DP__UNROLL for (size_t c = 0; c < count; c++) {
                dp__v8 dy = dp__get(x + c * DP__W, k, 0);
                dgamma[c] += dy * ((dp__get(z + c * DP__W, k, 0) - v->w[r]) * v->b[r]);
                dbeta[c] += dy;
            }
        }
        for (size_t c = 0; c < count; c++) {
            dp_real *s = v->s + i + c * DP__W, *t = v->t + i + c * DP__W;
            dp__put(s, dp__get(s, k, 0) + dgamma[c], k);
            dp__put(t, dp__get(t, k, 0) + dbeta[c], k);
        }
    }
}

/* A group of columns at a time: all its vectors abreast, or one by one if it is cut off. */
#define DP__COLUMN_GROUPS(chains, v, begin, end)                                                 \
    for (size_t i = begin * DP__COLUMNS; i < end * DP__COLUMNS && i < v->n; i += DP__COLUMNS) {  \
        size_t left = v->n - i;                                                                  \
        if (left >= DP__COLUMNS) chains(v, i, DP__W, DP__ABREAST);                               \
        else for (size_t j = 0; j < left; j += DP__W) chains(v, i + j, left - j, 1);             \
    }

DP__INLINE void dp__vec_column_sums(const dp__vec *v, size_t begin, size_t end) {
    DP__COLUMN_GROUPS(dp__column_chains, v, begin, end)
}

DP__INLINE void dp__vec_layernorm_params(const dp__vec *v, size_t begin, size_t end) {
    DP__COLUMN_GROUPS(dp__layernorm_chains, v, begin, end)
}

/* Gradient of a gather from one table: y[ids[r], j] += x[r, j], tokens in order. Threads split
 * columns, so no two write the same number and no order depends on their count. */
DP__INLINE void dp__vec_scatter(const dp__vec *v, size_t begin, size_t end) {
    size_t last = end * DP__COLUMNS < v->n ? end * DP__COLUMNS : v->n;
    for (size_t r = 0; r < v->rows; r++) {
        dp_real *y = v->y + (size_t)v->ids[r] * v->ldy;
        const dp_real *x = v->x + r * v->ldx;
        for (size_t i = begin * DP__COLUMNS; i < last; i += DP__W)
            dp__put(y + i, dp__get(y + i, last - i, 0) + dp__get(x + i, last - i, 0), last - i);
    }
}

/* Rows (or blocks, or column groups) [begin, end) of an operation. With op a constant in each
 * case the compiler keeps one loop per operation. */
DP__INLINE void dp__vec_body(const dp__vec *v, size_t begin, size_t end, const int fused) {
#define DP__MAP(op) case op: dp__vec_map(op, v, begin, end, fused); return
#define DP__MAP_ACT(a) DP__MAP(DP__VEC_ACT + (int)a); DP__MAP(DP__VEC_ACT_GRAD + (int)a)
    switch (v->op) {
    DP__MAP_ACT(DP__GELU); DP__MAP_ACT(DP__GELU_TANH); DP__MAP_ACT(DP__RELU);
    DP__MAP_ACT(DP__SILU); DP__MAP_ACT(DP__TANH); DP__MAP_ACT(DP__QUICK_GELU);
    DP__MAP_ACT(DP__MISH);
    DP__MAP(DP__VEC_GELU8);
    DP__MAP(DP__VEC_ADAM);
    case DP__VEC_DROPOUT: dp__vec_dropout(v, begin, end); return;
    case DP__VEC_NORM: dp__vec_norm(v, begin, end); return;
    case DP__VEC_FINITE: dp__vec_finite(v, begin, end); return;
    case DP__VEC_LAYERNORM: dp__vec_layernorm(v, begin, end, fused); return;
    case DP__VEC_LAYERNORM_GRAD: dp__vec_layernorm_grad(v, begin, end); return;
    case DP__VEC_SOFTMAX: dp__vec_softmax(v, begin, end, fused); return;
    case DP__VEC_SOFTMAX_GRAD: dp__vec_softmax_grad(v, begin, end); return;
    case DP__VEC_CROSS_ENTROPY: dp__vec_cross_entropy(v, begin, end, fused); return;
    case DP__VEC_BCE: dp__vec_bce(v, begin, end, fused); return;
    case DP__VEC_SQUARES: dp__vec_squares(v, begin, end); return;
    case DP__VEC_GATHER: dp__vec_gather(v, begin, end); return;
    case DP__VEC_QUANTIZE: dp__vec_quantize(v, begin, end, fused); return;
    case DP__VEC_QUANTIZE_COLUMNS: dp__vec_quantize_columns(v, begin, end, fused); return;
    case DP__VEC_SOFTMAX8:
    case DP__VEC_SOFTMAX16: dp__vec_softmax_codes(v, begin, end, fused); return;
    case DP__VEC_BF16: dp__vec_bf16(v, begin, end); return;
    case DP__VEC_BF16_DOWN: dp__vec_bf16_down(v, begin, end); return;
    case DP__VEC_WIDEN: dp__vec_widen(v, begin, end); return;
    case DP__VEC_COLUMN_SUMS: dp__vec_column_sums(v, begin, end); return;
    case DP__VEC_LAYERNORM_PARAMS: dp__vec_layernorm_params(v, begin, end); return;
    case DP__VEC_SCATTER: dp__vec_scatter(v, begin, end); return;
    default: DP_ASSERT(0);
    }
#undef DP__MAP
#undef DP__MAP_ACT
}

static void dp__vec_scalar(const dp__vec *v, size_t begin, size_t end) {
    dp__vec_body(v, begin, end, 0);
}

/* ============================================================================================
 * [E5] AVX2                                                                   budget 340 lines
 * ============================================================================================ */

/* ---- Matrix kernels. Against scalar: 6 rows and 8 columns a register; the order of every sum
 * is the scalar one. 12 sums, 2 columns of b, 1 number of a fill 15 of 16 registers. */

#ifdef DP__AVX2
/* Row i of a strip: its sums become numbers of c. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__finish_avx2(const dp__strip *s, size_t i, __m256 v0, __m256 v1) {
    float *c = s->c + i * s->ldc, part[DP__TILE];
    const float *residual = s->residual != NULL ? s->residual + i * s->ldr : NULL;
    if (s->cols < DP__TILE) {
        _mm256_storeu_ps(part, v0);
        _mm256_storeu_ps(part + 8, v1);
        dp__strip_finish(s, i, part, 0);
        return;
    }
    if (!s->first) {
        v0 = _mm256_add_ps(_mm256_loadu_ps(c), v0);
        v1 = _mm256_add_ps(_mm256_loadu_ps(c + 8), v1);
    }
    if (s->bias != NULL) {
        v0 = _mm256_add_ps(v0, _mm256_loadu_ps(s->bias));
        v1 = _mm256_add_ps(v1, _mm256_loadu_ps(s->bias + 8));
    }
    if (residual != NULL) {
        v0 = _mm256_add_ps(v0, _mm256_loadu_ps(residual));
        v1 = _mm256_add_ps(v1, _mm256_loadu_ps(residual + 8));
    }
    _mm256_storeu_ps(c, v0);
    _mm256_storeu_ps(c + 8, v1);
}

/* Hides from the compiler where p points. Trap: knowing it, gcc 12 computes an address for every
 * row and step ahead and keeps them on the stack; clang 14 keeps what p points to in registers
 * that sums need. */
#define DP__HIDE(p) __asm__("" : "+r"(p))

/* Fetches bytes at next into the L2 cache. */
DP__INLINE void dp__fetch_next(const char *next, size_t bytes) {
    for (size_t i = 0; i < bytes; i += DP__ALIGN) _mm_prefetch(next + i, _MM_HINT_T1);
}

/* One k: every row of a times 16 columns of b. a3: row 3. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__step_f32_avx2(__m256 sum[8][2], const float *a, const float *a3, size_t a_row,
                                  const float *b, const size_t rows) {
    const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#define DP__ROW(i)                                                                               \
    if (i < rows) {                                                                              \
        const __m256 x = _mm256_broadcast_ss((i < 3 ? a : a3) + i % 3 * a_row);                  \
        sum[i][0] = _mm256_fmadd_ps(x, b0, sum[i][0]);                                           \
        sum[i][1] = _mm256_fmadd_ps(x, b1, sum[i][1]);                                           \
    }
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

/* Needs: AVX2, FMA. rows <= 6 is a constant where this is used. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__gemm_f32_rows_avx2(const dp__strip *s, const size_t rows) {
    const float *a = (const float *)s->a, *b = (const float *)(const void *)dp__strip_b(s, s->k0);
    const char  *next = s->next;
    const size_t row = s->a_row, step = s->b_step / sizeof(float);
    __m256       sum[8][2];
#define DP__ROW(i) sum[i][0] = sum[i][1] = _mm256_setzero_ps();
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
    for (size_t k = s->k0 + 4; k <= s->k1; k += 4, a += 4, next += s->fetch) {
        const float *a3 = a + 3 * row;
        DP__HIDE(a);
        DP__HIDE(a3);
        dp__fetch_next(next, s->fetch);
        DP__UNROLL for (size_t u = 0; u < 4; u++)
            dp__step_f32_avx2(sum, a + u, a3 + u, row, b + u * DP__TILE, rows);
        b += k % DP__TILE != 0 ? 4 * DP__TILE : step - 12 * DP__TILE;
    }
    for (size_t k = s->k1 % 4; k > 0; k--, a++, b += DP__TILE)
        dp__step_f32_avx2(sum, a, a + 3 * row, row, b, rows);
#define DP__ROW(i) if (i < rows) dp__finish_avx2(s, i, sum[i][0], sum[i][1]);
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

DP__TARGET("avx2,fma")
static void dp__gemm_f32_avx2(const dp__strip *s) {
    switch (s->rows) {
    case 1: dp__gemm_f32_rows_avx2(s, 1); break;
    case 2: dp__gemm_f32_rows_avx2(s, 2); break;
    case 4: dp__gemm_f32_rows_avx2(s, 4); break;
    default: dp__gemm_f32_rows_avx2(s, 6);
    }
}

/* BF16 on widened numbers: the same chain, denormals as 0. */
DP__TARGET("avx2,fma")
static void dp__gemm_bf16_avx2(const dp__strip *s) {
    uint32_t fp = dp__fp_flush();
    dp__gemm_f32_avx2(s);
    dp__fp_leave(fp);
}

/* Row i: exact sums times both scales. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__finish_int_avx2(const dp__strip *s, size_t i, __m256i v0, __m256i v1) {
    float scale[DP__TILE];
    const float *p = s->scale;
    if (s->cols < DP__TILE) {
        memcpy(scale, p, s->cols * sizeof *p);
        memset(scale + s->cols, 0, (DP__TILE - s->cols) * sizeof *p);
        p = scale;
    }
    __m256 x = _mm256_set1_ps(s->a_scale[i]);
    __m256 x0 = _mm256_mul_ps(x, _mm256_loadu_ps(p)), x1 = _mm256_mul_ps(x, _mm256_loadu_ps(p + 8));
    dp__finish_avx2(s, i, _mm256_mul_ps(_mm256_cvtepi32_ps(v0), x0),
                    _mm256_mul_ps(_mm256_cvtepi32_ps(v1), x1));
}

/* sum += v in each 32-bit lane, of 256 or 512 bits. Trap: gcc 12 adds the products of several steps
 * before it adds them to a sum, and spills half of them; with an instruction it does not. */
#ifdef DP__SOFTWARE
#define DP__ADD32(bits, sum, v) (sum) = _mm##bits##_add_epi32((sum), (v))
#else
#define DP__ADD32(bits, sum, v) __asm__("vpaddd %1, %0, %0" : "+v"(sum) : "v"(v))
#endif

/* One k-group: four numbers of 16 bits of every row of a times the quads of 8 columns. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__step_s16_avx2(__m256i sum[8][2], const uint8_t *a, size_t a_row,
                                  const char *b, const size_t rows) {
    const uint8_t *a3 = a + 3 * a_row;
    const __m256i  b0 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)b));
    const __m256i  b1 =
        _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(b + 16)));
    int64_t        quad;
#define DP__ROW(i)                                                                               \
    if (i < rows) {                                                                              \
        memcpy(&quad, (i < 3 ? a : a3) + i % 3 * a_row, sizeof quad);                            \
        const __m256i x = _mm256_set1_epi64x(quad);                                              \
        DP__ADD32(256, sum[i][0], _mm256_madd_epi16(x, b0));                                     \
        DP__ADD32(256, sum[i][1], _mm256_madd_epi16(x, b1));                                     \
    }
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

/* sum += the four products of u8 a and s8 b in each lane, exactly (only vpdpbusds saturates).
 * Needs: AVX-VNNI; the prefix is its encoding, without it that of AVX512-VNNI is meant. */
#ifdef DP__SOFTWARE
#define DP__DPBUSD_YMM(sum, a, b) (sum) = _mm256_dpbusd_epi32((sum), (a), (b))
#else
#define DP__DPBUSD_YMM(sum, a, b)                                                                \
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b))
#endif

/* One k-group: four bytes of every row of a times the quads of 16 columns. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__step_u8s8_avx2(__m256i sum[8][2], const uint8_t *a, size_t a_row,
                                   const char *b, const size_t rows, const int weights) {
    const uint8_t *a3 = a + 3 * a_row;
    const __m256i  b0 = _mm256_loadu_si256((const __m256i *)(const void *)b);
    const __m256i  b1 = _mm256_loadu_si256((const __m256i *)(const void *)(b + 32));
    const __m256i  one = _mm256_set1_epi16(1);
    int32_t        quad;
#define DP__ROW(i)                                                                               \
    if (i < rows) {                                                                              \
        memcpy(&quad, (i < 3 ? a : a3) + i % 3 * a_row, sizeof quad);                            \
        const __m256i x = _mm256_set1_epi32(quad);                                               \
        if (weights == DP_WEIGHTS_FULL) {                                                        \
            DP__DPBUSD_YMM(sum[i][0], x, b0);                                                    \
            DP__DPBUSD_YMM(sum[i][1], x, b1);                                                    \
        } else {                                                                                 \
            DP__ADD32(256, sum[i][0], _mm256_madd_epi16(_mm256_maddubs_epi16(x, b0), one));      \
            DP__ADD32(256, sum[i][1], _mm256_madd_epi16(_mm256_maddubs_epi16(x, b1), one));      \
        }                                                                                        \
    }
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

/* Two k-groups of quad-safe weights. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__step_quads_avx2(__m256i sum[8][2], const uint8_t *a, size_t a_row,
                                    const char *b, const size_t rows) {
    const uint8_t *a3 = a + 3 * a_row;
    const __m256i  one = _mm256_set1_epi16(1);
    const __m256i *p = (const __m256i *)(const void *)b, *q = p + 2;
    int32_t        quad;
#define DP__ROW(i)                                                                               \
    if (i < rows) {                                                                              \
        memcpy(&quad, (i < 3 ? a : a3) + i % 3 * a_row, sizeof quad);                            \
        const __m256i x = _mm256_set1_epi32(quad);                                               \
        memcpy(&quad, (i < 3 ? a : a3) + i % 3 * a_row + 4, sizeof quad);                        \
        const __m256i y = _mm256_set1_epi32(quad);                                               \
        DP__HIDE(q);                                                                             \
        __m256i v0 = _mm256_add_epi16(_mm256_maddubs_epi16(x, _mm256_loadu_si256(p)),            \
                                      _mm256_maddubs_epi16(y, _mm256_loadu_si256(q)));           \
        __m256i v1 = _mm256_add_epi16(_mm256_maddubs_epi16(x, _mm256_loadu_si256(p + 1)),        \
                                      _mm256_maddubs_epi16(y, _mm256_loadu_si256(q + 1)));       \
        DP__ADD32(256, sum[i][0], _mm256_madd_epi16(v0, one));                                   \
        DP__ADD32(256, sum[i][1], _mm256_madd_epi16(v1, one));                                   \
    }
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

#define DP__WEIGHTS_S16 (DP_WEIGHTS_QUADS + 1) /* any weights: both sides as 16 bits */

/* One k-group, by what may be taken of the weights. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__step_int_avx2(__m256i sum[8][2], const uint8_t *a, size_t a_row,
                                  const char *b, const size_t rows, const int weights) {
    if (weights == DP__WEIGHTS_S16) dp__step_s16_avx2(sum, a, a_row, b, rows);
    else dp__step_u8s8_avx2(sum, a, a_row, b, rows, weights);
}

/* All k-groups of the columns at b. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__walk_int_avx2(const dp__strip *s, __m256i sum[8][2], const char *b,
                                  const size_t rows, const int weights) {
    const char    *next = s->next;
    const size_t   bytes = weights == DP__WEIGHTS_S16 ? 8 : 4; /* of a k-group of a row of a */
    const size_t   row = s->a_row * (bytes / 4);
    const uint8_t *a = (const uint8_t *)s->a;
    for (size_t q = 8; q <= s->k1; q += 8, a += 8 * bytes, next += 2 * s->fetch) {
        DP__HIDE(a);
        dp__fetch_next(next, 2 * s->fetch);
        DP__UNROLL for (size_t u = 0; u < 8; u++) {
            if (weights != DP_WEIGHTS_QUADS)
                dp__step_int_avx2(sum, a + bytes * u, row, b + u * 64, rows, weights);
            else if (u % 2 == 0)
                dp__step_quads_avx2(sum, a + bytes * u, row, b + u * 64, rows);
        }
        b += q % DP__TILE != 0 ? 8 * 64 : s->b_step - 8 * 64;
    }
    for (size_t q = s->k1 % 8; q > 0; q--, a += bytes, b += 64)
        dp__step_int_avx2(sum, a, row, b, rows, weights);
}

/* The sums of 8 columns from byte half of each k-group on, to part [rows][16]. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__half_s16_avx2(const dp__strip *s, const size_t rows, size_t half,
                                  int32_t (*part)[DP__TILE]) {
    __m256i sum[8][2];
#define DP__ROW(i) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
    dp__walk_int_avx2(s, sum, s->b + 4 * half, rows, DP__WEIGHTS_S16);
#define DP__ROW(i)                                                                               \
    if (i < rows) {                                                                              \
        sum[i][0] = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[i][0], sum[i][1]), 0xD8);     \
        _mm256_storeu_si256((__m256i *)(void *)&part[i][half], sum[i][0]);                       \
    }
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

/* INT8 without VNNI, any weights: both sides as 16 bits, vpmaddwd: two products of at most
 * 255 * 128 in an s32, nothing can saturate (Trap: vpmaddubsw would, 255 * 127 * 2 > 32767). A
 * register holds the quads of 4 columns, so that the sum of a column lies in two lanes until the
 * end. Needs: AVX2. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__gemm_s16_rows_avx2(const dp__strip *s, const size_t rows) {
    int32_t part[8][DP__TILE];
    dp__half_s16_avx2(s, rows, 0, part);
    dp__half_s16_avx2(s, rows, 8, part);
    for (size_t i = 0; i < rows; i++)
        dp__finish_int_avx2(s, i, _mm256_loadu_si256((const __m256i *)(const void *)part[i]),
                            _mm256_loadu_si256((const __m256i *)(const void *)(part[i] + 8)));
}

/* INT8. weights says which instructions may be taken on u8 activations and quads:
 *   FULL   any weights, vpdpbusd                                      (AVX-VNNI)
 *   PAIRS  pair-safe ones, vpmaddubsw and vpmaddwd                    (AVX2)
 *   QUADS  quad-safe ones, the sums of two vpmaddubsw in one vpmaddwd (AVX2)
 * Nothing saturates: |16-bit sum| <= 255 * 128 = 32640 by dp__weights_hold. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__gemm_int_rows_avx2(const dp__strip *s, const size_t rows, const int weights) {
    int32_t comp[DP__TILE] = {0};
    __m256i sum[8][2];
    if (weights == DP__WEIGHTS_S16) {
        dp__gemm_s16_rows_avx2(s, rows);
        return;
    }
    if (s->comp != NULL) memcpy(comp, s->comp, s->cols * sizeof *comp);
#define DP__ROW(i)                                                                               \
    sum[i][0] = _mm256_loadu_si256((const __m256i *)(const void *)comp);                         \
    sum[i][1] = _mm256_loadu_si256((const __m256i *)(const void *)(comp + 8));
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
    dp__walk_int_avx2(s, sum, s->b, rows, weights);
#define DP__ROW(i) if (i < rows) dp__finish_int_avx2(s, i, sum[i][0], sum[i][1]);
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

/* A strip has unit (a constant), 4, 2 or 1 rows. */
DP__TARGET("avx2,fma")
DP__INLINE void dp__gemm_int_any_avx2(const dp__strip *s, const size_t unit, const int weights) {
    switch (s->rows) {
    case 1: dp__gemm_int_rows_avx2(s, 1, weights); break;
    case 2: dp__gemm_int_rows_avx2(s, 2, weights); break;
    case 4: dp__gemm_int_rows_avx2(s, 4, weights); break;
    default: dp__gemm_int_rows_avx2(s, unit, weights);
    }
}

DP__TARGET("avx2,fma")
static void dp__gemm_s16_avx2(const dp__strip *s) {
    dp__gemm_int_any_avx2(s, 6, DP__WEIGHTS_S16);
}

DP__TARGET("avx2,fma")
static void dp__gemm_pairs_avx2(const dp__strip *s) {
    dp__gemm_int_any_avx2(s, 4, DP_WEIGHTS_PAIRS);
}

DP__TARGET("avx2,fma")
static void dp__gemm_quads_avx2(const dp__strip *s) {
    dp__gemm_int_any_avx2(s, 4, DP_WEIGHTS_QUADS);
}

DP__TARGET("avx2,fma")
static void dp__gemm_u8s8_avxvnni(const dp__strip *s) {
    dp__gemm_int_any_avx2(s, 6, DP_WEIGHTS_FULL);
}

DP__TARGET("avx2,fma")
static void dp__vec_avx2(const dp__vec *v, size_t begin, size_t end) {
    dp__vec_body(v, begin, end, 1);
}
#endif

/* ============================================================================================
 * [E6] AVX-512                                                                budget 835 lines
 * ============================================================================================ */

/* ---- Matrix kernels. Against scalar: 8 rows x 3 tiles (24 sums, 3 registers of b, a broadcast
 * operand), masks for the columns of the last tile. No read or write goes beyond cols. */

#ifdef DP__AVX512
#define DP__AVX512_NEEDS "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"

/* Tile t of a strip: its sums, one vector a row, become numbers of c. Tile by tile one load of the
 * bias, and of INT8 scales, serves all rows (products of K 768 on Zen 5: INT8 2 %, BF16 1 %).
 * Needs: AVX-512F. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__finish_rows_avx512(const dp__strip *s, size_t t, __mmask16 m,
                                       const size_t rows, __m512 sum[8]) {
    float       *c = s->c + t * DP__TILE;
    const float *r = s->residual != NULL ? s->residual + t * DP__TILE : NULL;
    const __m512 bias = s->bias != NULL ? _mm512_maskz_loadu_ps(m, s->bias + t * DP__TILE)
                                        : _mm512_setzero_ps();
#define DP__C(i)                                                                                 \
    if (i < rows) sum[i] = _mm512_add_ps(_mm512_maskz_loadu_ps(m, c + i * s->ldc), sum[i]);
#define DP__BIAS(i) if (i < rows) sum[i] = _mm512_add_ps(sum[i], bias);
#define DP__RESIDUAL(i)                                                                          \
    if (i < rows) sum[i] = _mm512_add_ps(sum[i], _mm512_maskz_loadu_ps(m, r + i * s->ldr));
#define DP__STORE(i) if (i < rows) _mm512_mask_storeu_ps(c + i * s->ldc, m, sum[i]);
    if (!s->first) { DP__8_ROWS(DP__C) }
    if (s->bias != NULL) { DP__8_ROWS(DP__BIAS) }
    if (s->residual != NULL) { DP__8_ROWS(DP__RESIDUAL) }
    DP__8_ROWS(DP__STORE)
#undef DP__C
#undef DP__BIAS
#undef DP__RESIDUAL
#undef DP__STORE
}

#define DP__FEW_ROWS 6u /* strips of fewer rows wait for memory: their code is kept small */
DP__TARGET(DP__AVX512_NEEDS)
DP__APART void dp__finish_few_avx512(const dp__strip *s, size_t t, __mmask16 m, __m512 sum[8]) {
    dp__finish_rows_avx512(s, t, m, s->rows, sum);
}

DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__finish_avx512(const dp__strip *s, size_t t, __mmask16 m, const size_t rows,
                                  __m512 sum[8]) {
    if (rows < DP__FEW_ROWS) dp__finish_few_avx512(s, t, m, sum);
    else dp__finish_rows_avx512(s, t, m, rows, sum);
}

/* The first lanes of 16, as many as are left. */
DP__INLINE __mmask16 dp__left_avx512(size_t left) {
    return (__mmask16)(left < 16 ? 0xFFFFu >> (16 - left) : 0xFFFFu);
}

/* The columns of tile t that exist. */
DP__INLINE __mmask16 dp__mask_avx512(const dp__strip *s, size_t t) {
    return dp__left_avx512(s->cols - t * DP__TILE);
}

/* sum += the product of the odd elements of a and b, then += that of the even ones, in each lane;
 * denormals are 0, whatever MXCSR says. As an instruction it needs no target: the kernels of
 * FP32 and BF16 are one body. Needs: AVX512-BF16. */
#ifdef DP__SOFTWARE
#define DP__DPBF16(sum, a, b) (sum) = _mm512_dpbf16_ps((sum), (a), (b))
#define DP__FMA(sum, a, b) (sum) = _mm512_fmadd_ps((a), (b), (sum))
#else
/* Trap: of the intrinsic, gcc 12 lets a sum change its register, and two go to the stack. */
#define DP__FMA(sum, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#define DP__DPBF16(sum, a, b) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#endif
#define DP__FUSED(sum, a, b)                                                                     \
    if (pairs) DP__DPBF16(sum, a, b);                                                            \
    else DP__FMA(sum, a, b)

/* Finishes the tiles of a strip. Trap: with a loop over them clang 14 keeps all sums in memory from
 * the first k on: a third of the speed. */
#define DP__WITH_TILE(number, tile, sum, finish)                                                 \
    do {                                                                                         \
        const size_t t = number;                                                                 \
        tile[0] = sum[0][t], tile[1] = sum[1][t], tile[2] = sum[2][t], tile[3] = sum[3][t];      \
        tile[4] = sum[4][t], tile[5] = sum[5][t], tile[6] = sum[6][t], tile[7] = sum[7][t];      \
        finish;                                                                                  \
    } while (0)
#define DP__EACH_TILE(tile, sum, finish)                                                         \
    do {                                                                                         \
        DP__WITH_TILE(0, tile, sum, finish);                                                     \
        if (tiles > 1) DP__WITH_TILE(1, tile, sum, finish);                                      \
        if (tiles > 2) DP__WITH_TILE(2, tile, sum, finish);                                      \
    } while (0)

/* Four steps u, written out where a strip has all its rows (INT8 2 %). */
#define DP__FOUR_STEPS(rows, u, step)                                                            \
    do {                                                                                         \
        if ((rows) < DP__FEW_ROWS) {                                                             \
            for (size_t u = 0; u < 4; u++) { step; }                                             \
        } else {                                                                                 \
            DP__UNROLL for (size_t u = 0; u < 4; u++) { step; }                                  \
        }                                                                                        \
    } while (0)

/* One k (a number, or a pair of bf16): every row of a times the columns of b. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__step_f32_avx512(__m512 sum[8][3], const float *a, size_t a_row,
                                    const float *b, const size_t rows, const size_t tiles,
                                    const int pairs) {
    const float *a3 = a + 3 * a_row, *a6 = a3 + 3 * a_row;
    const __m512 b0 = _mm512_loadu_ps(b);
    const __m512 b1 = tiles > 1 ? _mm512_loadu_ps(b + DP__IMAGE) : b0;
    const __m512 b2 = tiles > 2 ? _mm512_loadu_ps(b + 2 * DP__IMAGE) : b0;
#define DP__ROW(i)                                                                               \
    if (i < rows) {                                                                              \
        const __m512 x = _mm512_set1_ps((i < 3 ? a : i < 6 ? a3 : a6)[i % 3 * a_row]);           \
        DP__FUSED(sum[i][0], x, b0);                                                             \
        if (tiles > 1) { DP__FUSED(sum[i][1], x, b1); }                                          \
        if (tiles > 2) { DP__FUSED(sum[i][2], x, b2); }                                          \
    }
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

/* Needs: AVX-512F. rows <= 8, tiles <= 3 and pairs are constants where this is used. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__gemm_f32_tile_avx512(const dp__strip *s, const size_t rows,
                                         const size_t tiles, const int pairs) {
    const float *a = (const float *)s->a, *b = (const float *)(const void *)dp__strip_b(s, s->k0);
    const char  *next = s->next;
    const size_t row = s->a_row, step = s->b_step / sizeof(float);
    __m512       sum[8][3];
#define DP__ROW(i) sum[i][0] = sum[i][1] = sum[i][2] = _mm512_setzero_ps();
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
    for (size_t k = s->k0 + 4; k <= s->k1; k += 4, a += 4, next += s->fetch) {
        dp__fetch_next(next, s->fetch);
        DP__FOUR_STEPS(rows, u,
            dp__step_f32_avx512(sum, a + u, row, b + u * DP__TILE, rows, tiles, pairs));
        b += k % DP__TILE != 0 ? 4 * DP__TILE : step - 12 * DP__TILE;
    }
    for (size_t k = s->k1 % 4; k > 0; k--, a++, b += DP__TILE)
        dp__step_f32_avx512(sum, a, row, b, rows, tiles, pairs);
    __m512 tile[8];
    DP__EACH_TILE(tile, sum, dp__finish_avx512(s, t, dp__mask_avx512(s, t), rows, tile));
}

/* One row waits for memory alone: image after image as they lie there, nothing fetched ahead, takes
 * 5/6 of the time that three streams take (Zen 5). tiles and pairs as above. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__gemm_f32_row_avx512(const dp__strip *s, const size_t tiles, const int pairs) {
    const float *a = (const float *)s->a, *b = (const float *)(const void *)dp__strip_b(s, s->k0);
    const size_t step = s->b_step / sizeof(float);
    __m512       sum[8][3], tile[8];
    sum[0][0] = sum[0][1] = sum[0][2] = _mm512_setzero_ps();
    for (size_t k = s->k0 + DP__TILE; k <= s->k1; k += DP__TILE, a += DP__TILE, b += step) {
        DP__UNROLL for (size_t t = 0; t < tiles; t++) {
            DP__UNROLL for (size_t u = 0; u < DP__TILE; u++) {
                const __m512 x = _mm512_set1_ps(a[u]);
                const __m512 y = _mm512_loadu_ps(b + t * DP__IMAGE + u * DP__TILE);
                DP__FUSED(sum[0][t], x, y);
            }
        }
    }
    for (size_t k = s->k1 % DP__TILE; k > 0; k--, a++, b += DP__TILE)
        dp__step_f32_avx512(sum, a, 0, b, 1, tiles, pairs);
    DP__UNROLL for (size_t t = 0; t < tiles; t++) {
        tile[0] = sum[0][t];
        dp__finish_avx512(s, t, dp__mask_avx512(s, t), 1, tile);
    }
}

DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__gemm_f32_rows_avx512(const dp__strip *s, const size_t tiles, const int pairs) {
    switch (s->rows) {
    case 1: dp__gemm_f32_row_avx512(s, tiles, pairs); break;
    case 2: dp__gemm_f32_tile_avx512(s, 2, tiles, pairs); break;
    case 4: dp__gemm_f32_tile_avx512(s, 4, tiles, pairs); break;
    default: dp__gemm_f32_tile_avx512(s, 8, tiles, pairs);
    }
}

DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__gemm_f32_any_avx512(const dp__strip *s, const int pairs) {
    if (s->cols > 2 * DP__TILE) dp__gemm_f32_rows_avx512(s, 3, pairs);
    else if (s->cols > DP__TILE) dp__gemm_f32_rows_avx512(s, 2, pairs);
    else dp__gemm_f32_rows_avx512(s, 1, pairs);
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__gemm_f32_avx512(const dp__strip *s) {
    dp__gemm_f32_any_avx512(s, 0);
}

/* BF16 on widened numbers: the same chain, denormals as 0. */
DP__TARGET(DP__AVX512_NEEDS)
static void dp__gemm_bf16_avx512(const dp__strip *s) {
    uint32_t fp = dp__fp_flush();
    dp__gemm_f32_avx512(s);
    dp__fp_leave(fp);
}

/* BF16 on pairs. What is added behind the chain needs the flushing. Needs: AVX512-BF16. */
DP__TARGET(DP__AVX512_NEEDS)
static void dp__gemm_bf16_dot(const dp__strip *s) {
    uint32_t fp = dp__fp_flush();
    dp__gemm_f32_any_avx512(s, 1);
    dp__fp_leave(fp);
}

#define DP__VNNI_NEEDS DP__AVX512_NEEDS ",avx512vnni"

/* sum += the four products of u8 a and s8 b in each lane. Trap: gcc 12 copies and spills sums
 * around the intrinsic (a fifth of the speed); as an instruction that updates sum it does not, and
 * needs no target. */
#ifdef DP__SOFTWARE
#define DP__DPBUSD(sum, a, b) (sum) = _mm512_dpbusd_epi32((sum), (a), (b))
#else
#define DP__DPBUSD(sum, a, b) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#endif
#define DP__DOT8(sum, a, b)                                                                      \
    if (weights == DP_WEIGHTS_FULL) DP__DPBUSD(sum, a, b);                                       \
    else DP__ADD32(512, sum, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), one))

/* One k-group: four bytes of every row of a times the quads of the columns. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__step_u8s8_avx512(__m512i sum[8][3], const uint8_t *a, size_t a_row,
                                     const char *b, const size_t rows, const size_t tiles,
                                     const int weights) {
    const __m512i b0 = _mm512_loadu_si512(b), one = _mm512_set1_epi16(1);
    const __m512i b1 = tiles > 1 ? _mm512_loadu_si512(b + 4 * DP__IMAGE) : b0;
    const __m512i b2 = tiles > 2 ? _mm512_loadu_si512(b + 8 * DP__IMAGE) : b0;
    int32_t       quad;
#define DP__ROW(i)                                                                               \
    if (i < rows) {                                                                              \
        memcpy(&quad, a + i * a_row, sizeof quad);                                               \
        const __m512i x = _mm512_set1_epi32(quad);                                               \
        DP__DOT8(sum[i][0], x, b0);                                                              \
        if (tiles > 1) { DP__DOT8(sum[i][1], x, b1); }                                           \
        if (tiles > 2) { DP__DOT8(sum[i][2], x, b2); }                                           \
    }
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

/* Two k-groups of quad-safe weights: their 16-bit sums are added before they are widened. */
#define DP__DOT8_TWICE(sum, t)                                                                   \
    DP__ADD32(512, sum, _mm512_madd_epi16(_mm512_add_epi16(                                      \
        _mm512_maddubs_epi16(x, _mm512_loadu_si512(b + 4 * t * DP__IMAGE)),                      \
        _mm512_maddubs_epi16(y, _mm512_loadu_si512(b + 4 * t * DP__IMAGE + 64))), one))
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__step_quads_avx512(__m512i sum[8][3], const uint8_t *a, size_t a_row,
                                      const char *b, const size_t rows, const size_t tiles) {
    const __m512i one = _mm512_set1_epi16(1);
    int32_t       quad;
#define DP__ROW(i)                                                                               \
    if (i < rows) {                                                                              \
        memcpy(&quad, a + i * a_row, sizeof quad);                                               \
        const __m512i x = _mm512_set1_epi32(quad);                                               \
        memcpy(&quad, a + i * a_row + 4, sizeof quad);                                           \
        const __m512i y = _mm512_set1_epi32(quad);                                               \
        DP__DOT8_TWICE(sum[i][0], 0);                                                            \
        if (tiles > 1) DP__DOT8_TWICE(sum[i][1], 1);                                             \
        if (tiles > 2) DP__DOT8_TWICE(sum[i][2], 2);                                             \
    }
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

/* Tile t: exact sums, one vector a row, times both scales. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__finish_int_avx512(const dp__strip *s, size_t t, const size_t rows,
                                      const __m512i sum[8]) {
    const __mmask16 m = dp__mask_avx512(s, t);
    const __m512    scale = _mm512_maskz_loadu_ps(m, s->scale + t * DP__TILE);
    __m512          v[8];
#define DP__ROW(i)                                                                               \
    if (i < rows)                                                                                \
        v[i] = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[i]),                                         \
                             _mm512_mul_ps(_mm512_set1_ps(s->a_scale[i]), scale));
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
    dp__finish_avx512(s, t, m, rows, v);
}

/* What the sums of tile t begin with. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE __m512i dp__comp_avx512(const dp__strip *s, size_t t, __mmask16 m) {
    if (s->comp == NULL) return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi32(m, s->comp + t * DP__TILE);
}

/* INT8 on u8 activations and quads; weights as in dp__gemm_int_rows_avx2, nothing saturates.
 * Needs: AVX-512BW; FULL: AVX512-VNNI. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__gemm_u8s8_tile_avx512(const dp__strip *s, const size_t rows,
                                          const size_t tiles, const int weights) {
    const size_t    row = s->a_row;
    const uint8_t  *a = (const uint8_t *)s->a;
    const char     *b = s->b, *next = s->next;
    const __mmask16 m0 = dp__mask_avx512(s, 0), m1 = tiles > 1 ? dp__mask_avx512(s, 1) : m0;
    const __mmask16 m2 = tiles > 2 ? dp__mask_avx512(s, 2) : m0;
    const __m512i   z0 = dp__comp_avx512(s, 0, m0);
    const __m512i   z1 = tiles > 1 ? dp__comp_avx512(s, 1, m1) : z0;
    const __m512i   z2 = tiles > 2 ? dp__comp_avx512(s, 2, m2) : z0;
    __m512i         sum[8][3];
#define DP__ROW(i) sum[i][0] = z0, sum[i][1] = z1, sum[i][2] = z2;
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
    for (size_t q = 4; q <= s->k1; q += 4, a += 16, next += s->fetch) {
        dp__fetch_next(next, s->fetch);
        DP__FOUR_STEPS(rows, u,
            if (weights != DP_WEIGHTS_QUADS)
                dp__step_u8s8_avx512(sum, a + 4 * u, row, b + u * 64, rows, tiles, weights);
            else if (u % 2 == 0)
                dp__step_quads_avx512(sum, a + 4 * u, row, b + u * 64, rows, tiles));
        b += q % DP__TILE != 0 ? 4 * 64 : s->b_step - 12 * 64;
    }
    for (size_t q = s->k1 % 4; q > 0; q--, a += 4, b += 64)
        dp__step_u8s8_avx512(sum, a, row, b, rows, tiles, weights);
    __m512i tile[8];
    DP__EACH_TILE(tile, sum, dp__finish_int_avx512(s, t, rows, tile));
}

/* A strip has unit (a constant), 4, 2 or 1 rows. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__gemm_u8s8_rows_avx512(const dp__strip *s, const size_t unit,
                                          const size_t tiles, const int weights) {
    switch (s->rows) {
    case 1: dp__gemm_u8s8_tile_avx512(s, 1, tiles, weights); break;
    case 2: dp__gemm_u8s8_tile_avx512(s, 2, tiles, weights); break;
    case 4: dp__gemm_u8s8_tile_avx512(s, 4, tiles, weights); break;
    default: dp__gemm_u8s8_tile_avx512(s, unit, tiles, weights);
    }
}

DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__gemm_u8s8_any_avx512(const dp__strip *s, const size_t unit, const int weights) {
    if (s->cols > 2 * DP__TILE) dp__gemm_u8s8_rows_avx512(s, unit, 3, weights);
    else if (s->cols > DP__TILE) dp__gemm_u8s8_rows_avx512(s, unit, 2, weights);
    else dp__gemm_u8s8_rows_avx512(s, unit, 1, weights);
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__gemm_u8s8_vnni(const dp__strip *s) {
    dp__gemm_u8s8_any_avx512(s, 8, DP_WEIGHTS_FULL);
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__gemm_pairs_avx512(const dp__strip *s) {
    dp__gemm_u8s8_any_avx512(s, 8, DP_WEIGHTS_PAIRS);
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__gemm_quads_avx512(const dp__strip *s) {
    dp__gemm_u8s8_any_avx512(s, 6, DP_WEIGHTS_QUADS);
}

/* One k-group: four numbers of 16 bits of every row of a times the quads of 16 columns. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__step_s16_avx512(__m512i sum[8][2], const int16_t *a, size_t a_row,
                                    const char *b, const size_t rows) {
    const __m256i *p = (const __m256i *)(const void *)b;
    const __m512i  b0 = _mm512_cvtepi8_epi16(_mm256_loadu_si256(p));
    const __m512i  b1 = _mm512_cvtepi8_epi16(_mm256_loadu_si256(p + 1));
    int64_t        quad;
#define DP__ROW(i)                                                                               \
    if (i < rows) {                                                                              \
        memcpy(&quad, a + i * a_row, sizeof quad);                                               \
        const __m512i x = _mm512_set1_epi64(quad);                                               \
        DP__ADD32(512, sum[i][0], _mm512_madd_epi16(x, b0));                                     \
        DP__ADD32(512, sum[i][1], _mm512_madd_epi16(x, b1));                                     \
    }
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
}

/* The sum of each column out of its two lanes; v0 has the columns 0 to 7. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE __m512i dp__fold_s16_avx512(__m512i v0, __m512i v1) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16,
                                          14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_permutex2var_epi32(v0, even, v1),
                            _mm512_permutex2var_epi32(v0, odd, v1));
}

/* Any weights without VNNI: as dp__gemm_s16_rows_avx2, 16 columns at once. Needs: AVX-512BW. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__gemm_s16_rows_avx512(const dp__strip *s, const size_t rows) {
    const size_t    row = s->a_row;
    const int16_t  *a = (const int16_t *)s->a;
    const char     *b = s->b, *next = s->next;
    __m512i         sum[8][2], tile[8];
#define DP__ROW(i) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
    for (size_t q = 4; q <= s->k1; q += 4, a += 16, next += s->fetch) {
        dp__fetch_next(next, s->fetch);
        DP__FOUR_STEPS(rows, u, dp__step_s16_avx512(sum, a + 4 * u, row, b + u * 64, rows));
        b += q % DP__TILE != 0 ? 4 * 64 : s->b_step - 12 * 64;
    }
    for (size_t q = s->k1 % 4; q > 0; q--, a += 4, b += 64)
        dp__step_s16_avx512(sum, a, row, b, rows);
#define DP__ROW(i) if (i < rows) tile[i] = dp__fold_s16_avx512(sum[i][0], sum[i][1]);
    DP__8_ROWS(DP__ROW)
#undef DP__ROW
    dp__finish_int_avx512(s, 0, rows, tile);
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__gemm_s16_avx512(const dp__strip *s) {
    switch (s->rows) {
    case 1: dp__gemm_s16_rows_avx512(s, 1); break;
    case 2: dp__gemm_s16_rows_avx512(s, 2); break;
    case 4: dp__gemm_s16_rows_avx512(s, 4); break;
    default: dp__gemm_s16_rows_avx512(s, 8);
    }
}

/* Some operations take 16 lanes here, in the order of [E2] and [E4]: GELU, its gradient, softmax,
 * dropout, LayerNorm, and what makes INT8 codes and BF16. Together a tenth of a forward pass, on 8
 * lanes twice as much. */

/* min(k, 16) numbers, and zeros behind them. */
DP__TARGET(DP__AVX512_NEEDS)
static inline __m512 dp__load_avx512(const float *x, size_t k) {
    return _mm512_maskz_loadu_ps(dp__left_avx512(k), x);
}

DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE __m512 dp__horner_avx512(__m512 x, const float *c, const int n) {
    __m512 p = _mm512_set1_ps(c[n]);
    DP__UNROLL for (int i = n - 1; i >= 0; i--) p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(c[i]));
    return p;
}

DP__TARGET(DP__AVX512_NEEDS)
static inline __m512 dp__exp_low_avx512(__m512 x) {
    const __m512 whole = _mm512_set1_ps(DP__WHOLE), log2 = _mm512_set1_ps(DP__LOG2_E);
    __m512       n = _mm512_sub_ps(_mm512_fmadd_ps(x, log2, whole), whole);
    __m512       f = _mm512_fmsub_ps(x, log2, n);
    f = _mm512_fmadd_ps(x, _mm512_set1_ps(DP__LOG2_LOW), f);
    __mmask16 keep = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-86.9f), _CMP_NLT_UQ);
    return _mm512_maskz_scalef_ps(keep, dp__horner_avx512(f, dp__exp_p, 6), n);
}

DP__TARGET(DP__AVX512_NEEDS)
static inline __m512 dp__phi_avx512(__m512 x, __m512 *bell) {
    const __m512 whole = _mm512_set1_ps(DP__WHOLE), rate = _mm512_set1_ps(-0.5f * DP__LOG2_E);
    __m512       a = _mm512_abs_ps(x), square = _mm512_mul_ps(x, x), one = _mm512_set1_ps(1.0f);
    __m512       p = dp__horner_avx512(a, dp__phi_p, 3), q = dp__horner_avx512(a, dp__phi_q, 4);
    __m512    n = _mm512_sub_ps(_mm512_fmadd_ps(square, rate, whole), whole);
    __mmask16 keep = _mm512_cmp_ps_mask(_mm512_set1_ps(173.8f), square, _CMP_NLT_UQ);
    *bell = dp__horner_avx512(_mm512_fmsub_ps(square, rate, n), dp__exp_p, 6);
    *bell = _mm512_maskz_scalef_ps(keep, *bell, n);
    __m512    low = _mm512_maskz_div_ps(keep, _mm512_mul_ps(*bell, p), q);
    __mmask16 upper = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NLT_UQ);
    return _mm512_mask_sub_ps(low, upper, one, low);
}

DP__TARGET(DP__AVX512_NEEDS)
static inline __m512 dp__gelu_lanes_avx512(__m512 x) {
    __m512 bell;
    return _mm512_mul_ps(x, dp__phi_avx512(x, &bell));
}

DP__TARGET(DP__AVX512_NEEDS)
static inline __m512 dp__gelu8_lanes_avx512(__m512 x) {
    __m512 a = _mm512_min_ps(_mm512_abs_ps(x), _mm512_set1_ps(DP__GELU8_END));
    __m512 t = _mm512_sub_ps(a, _mm512_set1_ps(DP__GELU8_END / 2)), zero = _mm512_setzero_ps();
    return _mm512_fnmadd_ps(a, dp__horner_avx512(t, dp__gelu8_p, 9), _mm512_max_ps(zero, x));
}

DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__gelu_avx512(const dp__vec *v, size_t begin, size_t end, const int coded) {
    for (size_t r = begin; r < end; r++) {
        const float *x = v->x + r * v->ldx;
        float       *y = v->y + r * v->ldy;
        DP__STEPS(16, v->n, i, k,
            __m512 t = dp__load_avx512(x + i, k);
            t = coded ? dp__gelu8_lanes_avx512(t) : dp__gelu_lanes_avx512(t);
            _mm512_mask_storeu_ps(y + i, dp__left_avx512(k), t););
    }
}

/* y = x * (Phi(z) + z exp(-z^2 / 2) / sqrt(2 pi)), as dp__act_slope_lanes has it. */
DP__TARGET(DP__AVX512_NEEDS)
static void dp__gelu_grad_avx512(const dp__vec *v, size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) {
        const float *x = v->x + r * v->ldx, *z = v->z + r * v->ldz;
        float       *y = v->y + r * v->ldy;
        DP__STEPS(16, v->n, i, k,
            __m512 at = dp__load_avx512(z + i, k);
            __m512 bell;
            __m512 slope = dp__phi_avx512(at, &bell);
            bell = _mm512_mul_ps(at, _mm512_mul_ps(bell, _mm512_set1_ps(0.39894228040143268f)));
            slope = _mm512_mul_ps(dp__load_avx512(x + i, k), _mm512_add_ps(slope, bell));
            _mm512_mask_storeu_ps(y + i, dp__left_avx512(k), slope););
    }
}

/* x ^ y ^ z */
#define DP__XOR3(x, y, z) _mm512_ternarylogic_epi64((x), (y), (z), 0x96)

/* The 64 decisions of the blocks first to first + 7 (dp__dropout_draw has those of four); first is
 * a multiple of 4. */
DP__TARGET(DP__AVX512_NEEDS)
static inline void dp__draw_avx512(const dp__vec *v, uint64_t first, uint32_t doc,
                                   __m512i decision[4]) {
    const __m512i half = _mm512_set1_epi64(0x0000FFFF0000FFFF);
    __m512i c0 = _mm512_add_epi64(_mm512_set1_epi64((int64_t)first),
                                  _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
    __m512i c1 = _mm512_set1_epi64(doc), c2 = _mm512_set1_epi64(v->step);
    __m512i c3 = _mm512_slli_epi64(_mm512_srli_epi64(c0, 32), 12);
    __m512i k0 = _mm512_set1_epi64(v->key[0]), k1 = _mm512_set1_epi64(v->key[1]), a, b;
    c3 = _mm512_or_si512(c3, _mm512_set1_epi64(v->site));
    for (int round = 0; round < 10; round++) {
        a = _mm512_mul_epu32(c0, _mm512_set1_epi64(0xD2511F53));
        b = _mm512_mul_epu32(c2, _mm512_set1_epi64(0xCD9E8D57));
        c0 = DP__XOR3(_mm512_srli_epi64(b, 32), c1, k0);
        c2 = DP__XOR3(_mm512_srli_epi64(a, 32), c3, k1);
        c1 = b;
        c3 = a;
        k0 = _mm512_add_epi64(k0, _mm512_set1_epi64(0x9E3779B9));
        k1 = _mm512_add_epi64(k1, _mm512_set1_epi64(0xBB67AE85));
    }
    a = _mm512_or_si512(_mm512_maskz_mov_epi32(0x5555, c0), _mm512_slli_epi64(c1, 32));
    b = _mm512_or_si512(_mm512_maskz_mov_epi32(0x5555, c2), _mm512_slli_epi64(c3, 32));
    c0 = _mm512_and_si512(a, half);
    c1 = _mm512_and_si512(_mm512_srli_epi64(a, 16), half);
    c2 = _mm512_and_si512(b, half);
    c3 = _mm512_and_si512(_mm512_srli_epi64(b, 16), half);
    decision[0] = _mm512_shuffle_i64x2(c0, c1, 0x44);
    decision[1] = _mm512_shuffle_i64x2(c2, c3, 0x44);
    decision[2] = _mm512_shuffle_i64x2(c0, c1, 0xEE);
    decision[3] = _mm512_shuffle_i64x2(c2, c3, 0xEE);
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__dropout_avx512(const dp__vec *v, size_t begin, size_t end) {
    const __m512i below = _mm512_set1_epi32((int32_t)v->threshold - 1);
    const __m512  rate = _mm512_set1_ps(v->p[0]);
    for (size_t r = begin; r < end; r++) {
        uint64_t     block = (uint64_t)v->at[r] * ((v->n + 31) / 32 * 4);
        const float *x = v->x + r * v->ldx, *z = v->z != NULL ? v->z + r * v->ldz : NULL;
        float       *y = v->y + r * v->ldy;
        for (size_t g = 0; g < v->n; g += 64, block += 8) {
            __m512i decision[4];
            dp__draw_avx512(v, block, v->doc[r], decision);
            DP__UNROLL for (size_t d = 0; d < 4; d++) {
                const size_t i = g + 16 * d;
                if (i >= v->n) break;
                __mmask16 m = dp__left_avx512(v->n - i);
                __mmask16 keep = _mm512_cmpgt_epi32_mask(decision[d], below);
                __m512    t = _mm512_maskz_mul_ps(keep, _mm512_maskz_loadu_ps(m, x + i), rate);
                if (z != NULL) t = _mm512_add_ps(_mm512_maskz_loadu_ps(m, z + i), t);
                _mm512_mask_storeu_ps(y + i, m, t);
            }
        }
    }
}

/* 16 numbers folded 8-4-2-1, as dp__fold_sum does. */
DP__TARGET(DP__AVX512_NEEDS)
static inline float dp__sum_avx512(__m512 v) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

/* The largest of n elements (NaN is passed over) in every lane. */
DP__TARGET(DP__AVX512_NEEDS)
static inline __m512 dp__max_avx512(const float *x, size_t n) {
    __m512 top = _mm512_set1_ps(-INFINITY);
    DP__STEPS(16, n, i, k,
        top = _mm512_mask_max_ps(top, dp__left_avx512(k), dp__load_avx512(x + i, k), top););
    return _mm512_set1_ps(_mm512_reduce_max_ps(top));
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__softmax_avx512(const dp__vec *v, size_t begin, size_t end) {
    const __m512 rate = _mm512_set1_ps(v->p[0]);
    for (size_t r = begin; r < end; r++) {
        const float *x = v->x + r * v->ldx;
        float       *y = v->y + r * v->ldy;
        __m512       top = dp__max_avx512(x, v->n), sum = _mm512_setzero_ps(), t;
        DP__STEPS(16, v->n, i, k,
            t = _mm512_mul_ps(_mm512_sub_ps(dp__load_avx512(x + i, k), top), rate);
            t = _mm512_maskz_mov_ps(dp__left_avx512(k), dp__exp_low_avx512(t));
            _mm512_storeu_ps(y + i, t);
            sum = _mm512_add_ps(sum, t););
        __m512 share = _mm512_set1_ps(1.0f / dp__sum_avx512(sum));
        for (size_t i = 0; i < v->n; i += 16)
            _mm512_storeu_ps(y + i, _mm512_mul_ps(_mm512_loadu_ps(y + i), share));
    }
}

/* Stores round(x * by) of the lanes as bytes, ties to even, plus offset; returns round(x * by). */
DP__TARGET(DP__AVX512_NEEDS)
static inline __m512 dp__codes_avx512(uint8_t *q, __mmask16 m, __m512 x, __m512 by, float offset) {
    __m512  whole = _mm512_set1_ps(DP__WHOLE + offset), moved = _mm512_fmadd_ps(x, by, whole);
    __m128i code = _mm512_cvtepi32_epi8(_mm512_castps_si512(moved));
    _mm_mask_storeu_epi8(q, m, code);
    return _mm512_sub_ps(moved, whole);
}

/* dp__code_power on 16 lanes. */
DP__TARGET(DP__AVX512_NEEDS)
static inline __m512 dp__code_power_avx512(__m512 x) {
    __m512 t = _mm512_max_ps(_mm512_set1_ps(-30), x), whole = _mm512_set1_ps(DP__WHOLE);
    __m512 moved = _mm512_add_ps(t, whole);
    __m512 p = dp__horner_avx512(_mm512_sub_ps(t, _mm512_sub_ps(moved, whole)), dp__code_p, 3);
    __m512i power = _mm512_slli_epi32(_mm512_castps_si512(moved), DP__MANTISSA);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), power));
}

/* dp__bf16_lanes on 16 lanes. */
DP__TARGET(DP__AVX512_NEEDS)
static inline __m512i dp__bf16_avx512(__m512 x) {
    __m512i   u = _mm512_castps_si512(x), size = _mm512_and_si512(u, _mm512_set1_epi32(INT32_MAX));
    __mmask16 tiny = _mm512_cmpgt_epi32_mask(_mm512_set1_epi32(0x00800000), size);
    __mmask16 nan = _mm512_cmpgt_epi32_mask(size, _mm512_set1_epi32(0x7F800000));
    __m512i   up = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    up = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7FFF)), up);
    up = _mm512_mask_or_epi32(up, nan, u, _mm512_set1_epi32(0x00400000));
    up = _mm512_mask_and_epi32(up, tiny, u, _mm512_set1_epi32(INT32_MIN));
    return _mm512_and_si512(up, _mm512_set1_epi32(-65536)); /* the upper halves */
}

/* half = x rounded as dp__bf16 does. Needs: AVX512-BF16. */
#ifdef DP__SOFTWARE
#define DP__HALVES(half, x) (half) = _mm512_cvtneps_pbh(x)
#else
#define DP__HALVES(half, x) __asm__("vcvtneps2bf16 %1, %0" : "=v"(half) : "v"(x))
#endif

/* The 16 numbers of row r at element i, as dp__bf16_put has them: group 2 to v->q, 1 to v->y. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__bf16_put_avx512(const dp__vec *v, size_t r, size_t i, __m512 x,
                                    const size_t group) {
    if (group == 2) {
        __m256i half;
        DP__HALVES(half, x);
        _mm256_storeu_si256((__m256i *)(void *)(v->q + r * v->ldq + 2 * i), half);
    } else {
        __m512 rounded = _mm512_castsi512_ps(dp__bf16_avx512(x));
        _mm512_storeu_ps(v->y + r * v->ldy + i, _mm512_shuffle_ps(rounded, rounded, 0xB1));
    }
}

/* group: 4 for INT8 codes, else of bfloat16. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__softmax_codes_avx512(const dp__vec *v, size_t begin, size_t end,
                                         const size_t group) {
    const size_t n = v->n;
    const __m512 rate = _mm512_set1_ps(v->p[0] * DP__LOG2_E), one = _mm512_set1_ps(1.0f);
    for (size_t r = begin; r < end; r++) {
        const float *x = v->x + r * v->ldx;
        uint8_t     *q = group == 4 ? v->q + r * v->ldq : NULL;
        __m512       top = dp__max_avx512(x, n), sum = _mm512_setzero_ps(), p;
        DP__STEPS(16, n, i, k,
            p = _mm512_mul_ps(_mm512_sub_ps(dp__load_avx512(x + i, k), top), rate);
            p = _mm512_maskz_mov_ps(dp__left_avx512(k), dp__code_power_avx512(p));
            if (group == 4) p = dp__codes_avx512(q + i, 0xFFFF, p, one, 0);
            else dp__bf16_put_avx512(v, r, i, p, group);
            sum = _mm512_add_ps(sum, p););
        v->s[r] = 1.0f / dp__sum_avx512(sum);
    }
}

DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__round_avx512(const dp__vec *v, size_t begin, size_t end, const size_t group) {
    for (size_t r = begin; r < end; r++) {
        const __m512 scale = _mm512_set1_ps(v->s != NULL ? v->s[r] : 1.0f);
        const float *x = v->x + r * v->ldx;
        for (size_t i = 0; i < v->n; i += 16)
            dp__bf16_put_avx512(v, r, i, _mm512_mul_ps(_mm512_loadu_ps(x + i), scale), group);
    }
}

DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__code_rows_avx512(const dp__vec *v, size_t begin, size_t end, const int sums) {
    const size_t n = v->n;
    const float  zero = v->p[0];
    for (size_t r = begin; r < end; r++) {
        const float *x = v->x + r * v->ldx;
        uint8_t     *q = v->q + r * v->ldq;
        __m512i      top = _mm512_setzero_si512();
        __m512       sum = _mm512_setzero_ps(), t;
        DP__STEPS(16, n, i, k, /* bits of |x| grow as |x| does, NaN last */
            t = _mm512_abs_ps(dp__load_avx512(x + i, k));
            top = _mm512_max_epi32(top, _mm512_castps_si512(t)););
        float  max = dp__f32_from_bits((uint32_t)_mm512_reduce_max_epi32(top));
        float  scale = dp__code_scale(&max, 1);
        __m512 inverse = _mm512_set1_ps(1.0f / scale);
        DP__STEPS(16, n, i, k,
            t = dp__load_avx512(x + i, k);
            t = dp__codes_avx512(q + i, dp__left_avx512(k), t, inverse, zero);
            if (sums) sum = _mm512_add_ps(sum, t););
        v->s[r] = scale;
        if (sums) v->t[r] = dp__sum_avx512(sum);
        if (v->ldz > n) memset(q + n, (int)zero, v->ldz - n);
    }
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__quantize_avx512(const dp__vec *v, size_t begin, size_t end) {
    if (v->t != NULL) dp__code_rows_avx512(v, begin, end, 1);
    else dp__code_rows_avx512(v, begin, end, 0);
}

/* Rows r to r + count - 1 as dp__vec_layernorm has them. */
DP__TARGET(DP__AVX512_NEEDS)
DP__INLINE void dp__layernorm_rows_avx512(const dp__vec *v, size_t r, const size_t count) {
    const float *x = v->x + r * v->ldx;
    float       *y = v->y + r * v->ldy;
    const float  n = (float)v->n;
    __m512       sum[DP__ROWS_ABREAST], mean[DP__ROWS_ABREAST], rstd[DP__ROWS_ABREAST], t;
    for (size_t c = 0; c < count; c++) sum[c] = _mm512_setzero_ps();
    DP__STEPS(16, v->n, i, k,
        DP__UNROLL for (size_t c = 0; c < count; c++)
            sum[c] = _mm512_add_ps(sum[c], dp__load_avx512(x + c * v->ldx + i, k)););
    for (size_t c = 0; c < count; c++) {
        float middle = dp__sum_avx512(sum[c]) / n;
        mean[c] = _mm512_set1_ps(middle);
        sum[c] = _mm512_setzero_ps();
        if (v->s) v->s[r + c] = middle;
    }
    DP__STEPS(16, v->n, i, k,
        DP__UNROLL for (size_t c = 0; c < count; c++) {
            t = dp__load_avx512(x + c * v->ldx + i, k);
            t = _mm512_maskz_sub_ps(dp__left_avx512(k), t, mean[c]);
            sum[c] = _mm512_add_ps(sum[c], _mm512_mul_ps(t, t));
        });
    for (size_t c = 0; c < count; c++) {
        float rate = 1.0f / dp__root1(dp__sum_avx512(sum[c]) / n + v->p[0]);
        if (rate == 0) rate = NAN;
        rstd[c] = _mm512_set1_ps(rate);
        if (v->t) v->t[r + c] = rate;
    }
    DP__STEPS(16, v->n, i, k,
        const __m512 gain = dp__load_avx512(v->w + i, k);
        const __m512 bias = dp__load_avx512(v->b + i, k);
        DP__UNROLL for (size_t c = 0; c < count; c++) {
            t = _mm512_sub_ps(dp__load_avx512(x + c * v->ldx + i, k), mean[c]);
            t = _mm512_fmadd_ps(_mm512_mul_ps(t, rstd[c]), gain, bias);
            _mm512_mask_storeu_ps(y + c * v->ldy + i, dp__left_avx512(k), t);
        });
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__layernorm_avx512(const dp__vec *v, size_t begin, size_t end) {
    size_t r = begin;
    for (; r + DP__ROWS_ABREAST <= end; r += DP__ROWS_ABREAST)
        dp__layernorm_rows_avx512(v, r, DP__ROWS_ABREAST);
    for (; r < end; r++) dp__layernorm_rows_avx512(v, r, 1);
}

/* dp__code_scale of the largest magnitudes of 16 columns, their bits. */
DP__TARGET(DP__AVX512_NEEDS)
static inline __m512 dp__code_scales_avx512(__m512i top) {
    const __m512 least = _mm512_set1_ps(FLT_MIN), one = _mm512_set1_ps(1.0f);
    __m512 scale = _mm512_div_ps(_mm512_castsi512_ps(top), _mm512_set1_ps(127.0f));
    scale = _mm512_mask_mov_ps(scale, _mm512_cmp_ps_mask(scale, least, _CMP_LT_OQ), least);
    return _mm512_mask_mov_ps(scale, _mm512_cmpeq_epi32_mask(top, _mm512_setzero_si512()), one);
}

/* dp__code_image on 16 columns, m of which exist. */
DP__TARGET(DP__AVX512_NEEDS)
static inline void dp__code_image_avx512(uint8_t *to, const dp__vec *v, size_t i, __mmask16 m,
                                         size_t g, __m512 inverse) {
    const __m512  whole = _mm512_set1_ps(DP__WHOLE);
    const __m512i byte = _mm512_set1_epi32(255);
    for (size_t p = g; p < g + DP__TILE; p++, to += 4 * DP__TILE) {
        __m512i word = _mm512_setzero_si512();
        for (size_t b = 0; b < 4 && p * 4 + b < v->rows; b++) {
            __m512  x = _mm512_maskz_loadu_ps(m, v->x + (p * 4 + b) * v->ldx + i);
            __m512i code = _mm512_castps_si512(_mm512_fmadd_ps(x, inverse, whole));
            code = _mm512_slli_epi32(_mm512_and_si512(code, byte), (unsigned)(8 * b));
            word = _mm512_or_si512(word, code);
        }
        _mm512_storeu_si512(to, word);
    }
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__quantize_columns_avx512(const dp__vec *v, size_t begin, size_t end) {
    size_t blocks = (v->rows + 4 * DP__TILE - 1) / (4 * DP__TILE);
    for (size_t i = begin * DP__COLUMNS; i < end * DP__COLUMNS && i < v->n; i += DP__TILE) {
        const __mmask16 m = dp__left_avx512(v->n - i);
        __m512i         top = _mm512_setzero_si512();
        for (size_t r = 0; r < v->rows; r++) {
            __m512 x = _mm512_abs_ps(_mm512_maskz_loadu_ps(m, v->x + r * v->ldx + i));
            top = _mm512_max_epi32(top, _mm512_castps_si512(x));
        }
        __m512 scale = dp__code_scales_avx512(top);
        _mm512_mask_storeu_ps(v->s + i, m, scale);
        scale = _mm512_div_ps(_mm512_set1_ps(1.0f), scale);
        for (size_t g = 0; g < blocks; g++) {
            size_t at = dp__image_at(v->panel, v->n, blocks, i, g);
            dp__code_image_avx512(v->q + at * DP__IMAGE_BYTES, v, i, m, g * DP__TILE, scale);
        }
    }
}

DP__TARGET(DP__AVX512_NEEDS)
static void dp__vec_avx512(const dp__vec *v, size_t begin, size_t end) {
    if (v->op == DP__VEC_GELU) dp__gelu_avx512(v, begin, end, 0);
    else if (v->op == DP__VEC_GELU8) dp__gelu_avx512(v, begin, end, 1);
    else if (v->op == DP__VEC_GELU_GRAD) dp__gelu_grad_avx512(v, begin, end);
    else if (v->op == DP__VEC_DROPOUT) dp__dropout_avx512(v, begin, end);
    else if (v->op == DP__VEC_SOFTMAX) dp__softmax_avx512(v, begin, end);
    else if (v->op == DP__VEC_SOFTMAX8) dp__softmax_codes_avx512(v, begin, end, 4);
    else if (v->op == DP__VEC_SOFTMAX16 && v->q == NULL)
        dp__softmax_codes_avx512(v, begin, end, 1);
    else if (v->op == DP__VEC_BF16 && v->q == NULL && v->n % 16 == 0)
        dp__round_avx512(v, begin, end, 1);
    else if (v->op == DP__VEC_QUANTIZE) dp__quantize_avx512(v, begin, end);
    else if (v->op == DP__VEC_QUANTIZE_COLUMNS) dp__quantize_columns_avx512(v, begin, end);
    else if (v->op == DP__VEC_LAYERNORM) dp__layernorm_avx512(v, begin, end);
    else dp__vec_avx2(v, begin, end);
}

/* The same; numbers become pairs by an instruction (softmax 4.2 -> 2.6 ns for 16, Zen 5). */
DP__TARGET(DP__AVX512_NEEDS)
static void dp__vec_avx512_bf16(const dp__vec *v, size_t begin, size_t end) {
    if (v->op == DP__VEC_SOFTMAX16 && v->q != NULL) dp__softmax_codes_avx512(v, begin, end, 2);
    else if (v->op == DP__VEC_BF16 && v->q != NULL && v->n % 16 == 0)
        dp__round_avx512(v, begin, end, 2);
    else dp__vec_avx512(v, begin, end);
}
#endif

/* ============================================================================================
 * [E7] AMX                                                                    budget 240 lines
 * Owns:   the tile instructions; INT8 and BF16 products.    Needs: E6, whose epilogue it shares.
 * Never:  runs without the permission of the operating system ([E3]).
 * Tests:  tests/test_gemm.c: gemm8_*, gemm16_*
 * ============================================================================================ */

/* ---- Tiles: 8 registers of 16 rows x 64 bytes. A tile of a holds 16 rows x 16 k-groups, one of b
 * is a tile image, one of c holds 16 x 16 sums. Encodings and rules: Intel SDM volume 2. */

#ifdef DP__AMX
/* Trap: gcc 12's intrinsics do not tell the compiler that a tile load reads memory. Registers are
 * numbers written out. The tests' software vectors bring C functions for these. */
#ifndef DP__SOFTWARE
#ifndef DP__TILE_TRAP
#define DP__TILE_TRAP /* tests: an instruction before each that traps, for their emulator */
#endif
#define DP__TILE_ASM(...) __asm__ __volatile__(DP__TILE_TRAP __VA_ARGS__ : "memory")
#define DP__TILE_CONFIG(from) DP__TILE_ASM("ldtilecfg (%0)" : : "r"(from))
#define DP__TILE_RELEASE() DP__TILE_ASM("tilerelease" : :)
#define DP__TILE_LOAD(t, from, stride)                                                           \
    DP__TILE_ASM("tileloadd (%0,%1,1), %%tmm" #t : : "r"(from), "r"(stride))
/* For what would only push the panel out of the L1 cache. */
#define DP__TILE_STREAM(t, from, stride)                                                         \
    DP__TILE_ASM("tileloaddt1 (%0,%1,1), %%tmm" #t : : "r"(from), "r"(stride))
#define DP__TILE_STORE(t, to)                                                                    \
    DP__TILE_ASM("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(to), "r"(DP__TILE_BYTES))
/* c[m, n] += the four products of u8 a[m, 4 k + i] and s8 b[k, 4 n + i], modulo 2^32. */
#define DP__TILE_U8S8(c, a, b)                                                                   \
    DP__TILE_ASM("tdpbusd %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)
/* c[m, n] += sum over k of a[m, 2 k] b[k, 2 n] + sum over k of the odd ones: two chains from 0,
 * added up, then added to c; denormals are 0. */
#define DP__TILE_BF16(c, a, b)                                                                   \
    DP__TILE_ASM("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)
#endif
#define DP__TILE_DOT(c, a, b)                                                                    \
    do {                                                                                         \
        if (bf16) DP__TILE_BF16(c, a, b);                                                        \
        else DP__TILE_U8S8(c, a, b);                                                             \
    } while (0)

#define DP__TILE_BYTES ((size_t)64) /* of a row of a tile */

/* Palette 1; 64 bytes a row from byte 16, 16 rows from byte 48, for all eight tiles. */
static void dp__tile_config_amx(int on) {
    static const uint8_t config[64] = {
        1,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
        64, 0,  64, 0,  64, 0,  64, 0,  64, 0,  64, 0,  64, 0,  64, 0,
        0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
        16, 16, 16, 16, 16, 16, 16, 16, 0,  0,  0,  0,  0,  0,  0,  0};
    if (on) DP__TILE_CONFIG(config);
    else DP__TILE_RELEASE();
}

/* Rows [i, i + 16) of a in the k-block at group k: where they lie, or, if some are beyond the last
 * row or the end of k, a copy in spare with zeros there. Needs: AVX-512F. */
DP__TARGET(DP__VNNI_NEEDS)
DP__INLINE const uint8_t *dp__rows_amx(const dp__strip *s, size_t i, size_t k, uint8_t *spare,
                                       size_t *stride, const int bf16) {
    size_t         row = bf16 ? 4 * s->a_row : s->a_row, rows = s->rows - i, groups = s->k1 - k;
    const uint8_t *a = (const uint8_t *)s->a + i * row + 4 * k;
    *stride = row;
    if (rows >= DP__TILE && groups >= DP__TILE) return a;
    __mmask16 m = (__mmask16)(groups < DP__TILE ? 0xFFFFu >> (DP__TILE - groups) : 0xFFFFu);
    for (size_t r = 0; r < DP__TILE; r++)
        _mm512_storeu_si512(spare + r * DP__TILE_BYTES,
                            r < rows ? _mm512_maskz_loadu_epi32(m, a + r * row)
                                     : _mm512_setzero_si512());
    *stride = DP__TILE_BYTES;
    return spare;
}

/* 32 rows of strip s from i, or what is left of them, and their sums [2][3][16][16]. */
typedef struct dp__block_amx {
    dp__strip s;
    size_t    i, rows, done; /* done: rows whose sums have become numbers of c */
    int32_t   sum[6 * DP__IMAGE];
} dp__block_amx;

/* Tiles of a strip's columns. */
DP__INLINE size_t dp__tiles_amx(const dp__strip *s) {
    return (s->cols + DP__TILE - 1) / DP__TILE;
}

/* Row r of a block: INT8 sums as in dp__finish_int_avx512, BF16 sums as they are; then GELU. */
DP__TARGET(DP__VNNI_NEEDS)
DP__INLINE void dp__finish_row_amx(const dp__block_amx *x, size_t r, const size_t tiles) {
    const dp__strip *s = &x->s;
    const int32_t   *sum = x->sum + r / DP__TILE * 3 * DP__IMAGE + r % DP__TILE * DP__TILE;
    const __m512     a_scale = _mm512_set1_ps(s->scale != NULL ? s->a_scale[x->i + r] : 1);
    float           *c = s->c + (x->i + r) * s->ldc;
    __m512           v[3];
    __mmask16        m[3] = {0xFFFF, 0xFFFF, 0xFFFF};
    m[tiles - 1] = dp__mask_avx512(s, tiles - 1);
#define DP__TILES(value)                                                                         \
    DP__UNROLL for (size_t t = 0, j = 0; t < tiles; t++, j += DP__TILE) v[t] = (value)
    if (s->scale != NULL) {
        DP__TILES(_mm512_mul_ps(a_scale, _mm512_maskz_loadu_ps(m[t], s->scale + j)));
        DP__TILES(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sum + t * DP__IMAGE)), v[t]));
    } else {
        DP__TILES(_mm512_castsi512_ps(_mm512_loadu_si512(sum + t * DP__IMAGE)));
    }
    if (!s->first) DP__TILES(_mm512_add_ps(_mm512_maskz_loadu_ps(m[t], c + j), v[t]));
    if (s->bias != NULL) DP__TILES(_mm512_add_ps(v[t], _mm512_maskz_loadu_ps(m[t], s->bias + j)));
    if (s->residual != NULL) {
        const float *add = s->residual + (x->i + r) * s->ldr;
        DP__TILES(_mm512_add_ps(v[t], _mm512_maskz_loadu_ps(m[t], add + j)));
    }
    if (s->act == 1 + DP__GELU) DP__TILES(dp__gelu_lanes_avx512(v[t]));
    if (s->act == 1 + DP__GELU8) DP__TILES(dp__gelu8_lanes_avx512(v[t]));
    DP__UNROLL for (size_t t = 0; t < tiles; t++)
        _mm512_mask_storeu_ps(c + t * DP__TILE, m[t], v[t]);
#undef DP__TILES
}

/* The next rows of a block. */
DP__TARGET(DP__VNNI_NEEDS)
DP__APART void dp__finish_amx(dp__block_amx *x, size_t rows) {
    size_t r = x->done, end = x->rows - r < rows ? x->rows : r + rows, tiles = dp__tiles_amx(&x->s);
    x->done = end;
    for (; r < end; r++) {
        if (tiles == 3) dp__finish_row_amx(x, r, 3);
        else if (tiles == 2) dp__finish_row_amx(x, r, 2);
        else dp__finish_row_amx(x, r, 1);
    }
}

/* The sums of rows [i, i + 16) or, if tall, [i, i + 32), in tiles 0 to 5; 6 is a, 7 is b. The
 * block before is finished meanwhile: tiles and vectors have units of their own. */
DP__TARGET(DP__VNNI_NEEDS)
DP__INLINE void dp__sums_amx(const dp__strip *s, size_t i, const int32_t *comp,
                             dp__block_amx *before, const int tall, const size_t tiles,
                             const int bf16) {
    uint8_t     spare[2 * DP__IMAGE_BYTES];
    const char *b = s->b;
    size_t      stride, steps = (s->k1 + DP__TILE - 1) / DP__TILE;
    size_t      each = steps > 1 ? (2 * DP__TILE + steps - 2) / (steps - 1) : 2 * DP__TILE;
    const char *next = s->next + i / (2 * DP__TILE) * steps * 4 * s->fetch;
    DP__TILE_LOAD(0, comp, (size_t)0);
    if (tiles > 1) DP__TILE_LOAD(1, comp + DP__TILE, (size_t)0);
    if (tiles > 2) DP__TILE_LOAD(2, comp + 2 * DP__TILE, (size_t)0);
    if (tall) {
        DP__TILE_LOAD(3, comp, (size_t)0);
        if (tiles > 1) DP__TILE_LOAD(4, comp + DP__TILE, (size_t)0);
        if (tiles > 2) DP__TILE_LOAD(5, comp + 2 * DP__TILE, (size_t)0);
    }
    for (size_t k = 0; k < s->k1; k += DP__TILE, b += s->b_step, next += 4 * s->fetch) {
        dp__fetch_next(next, 4 * s->fetch);
        const uint8_t *a = dp__rows_amx(s, i, k, spare, &stride, bf16);
        DP__TILE_STREAM(6, a, stride);
        DP__TILE_LOAD(7, b, DP__TILE_BYTES);
        DP__TILE_DOT(0, 6, 7);
        if (tiles > 1) {
            DP__TILE_LOAD(7, b + DP__IMAGE_BYTES, DP__TILE_BYTES);
            DP__TILE_DOT(1, 6, 7);
        }
        if (tiles > 2) {
            DP__TILE_LOAD(7, b + 2 * DP__IMAGE_BYTES, DP__TILE_BYTES);
            DP__TILE_DOT(2, 6, 7);
        }
        if (tall) {
            a = dp__rows_amx(s, i + DP__TILE, k, spare + DP__IMAGE_BYTES, &stride, bf16);
            DP__TILE_STREAM(6, a, stride);
            if (tiles > 2) {
                DP__TILE_DOT(5, 6, 7);
                DP__TILE_LOAD(7, b + DP__IMAGE_BYTES, DP__TILE_BYTES);
            }
            if (tiles > 1) {
                DP__TILE_DOT(4, 6, 7);
                DP__TILE_LOAD(7, b, DP__TILE_BYTES);
            }
            DP__TILE_DOT(3, 6, 7);
        }
        if (k > 0 || steps == 1) dp__finish_amx(before, each); /* by then its sums are stored */
    }
}

/* The sums from the tiles. */
DP__INLINE void dp__store_amx(int32_t *sum, const int tall, const size_t tiles) {
    DP__TILE_STORE(0, sum);
    if (tiles > 1) DP__TILE_STORE(1, sum + DP__IMAGE);
    if (tiles > 2) DP__TILE_STORE(2, sum + 2 * DP__IMAGE);
    if (!tall) return;
    DP__TILE_STORE(3, sum + 3 * DP__IMAGE);
    if (tiles > 1) DP__TILE_STORE(4, sum + 4 * DP__IMAGE);
    if (tiles > 2) DP__TILE_STORE(5, sum + 5 * DP__IMAGE);
}

/* Any number of rows over one panel, in blocks of 32. */
DP__TARGET(DP__VNNI_NEEDS)
DP__INLINE void dp__gemm_panel_amx(const dp__strip *s, const size_t tiles, const int bf16) {
    dp__block_amx *x = (dp__block_amx *)s->work;
    int32_t        comp[DP__PANEL] = {0};
    if (s->comp != NULL) memcpy(comp, s->comp, s->cols * sizeof *comp);
    for (size_t i = 0; i < s->rows; i += 2 * DP__TILE) {
        int tall = s->rows - i > DP__TILE;
        if (tall) dp__sums_amx(s, i, comp, x, 1, tiles, bf16);
        else dp__sums_amx(s, i, comp, x, 0, tiles, bf16);
        if (i == 0) x->s = *s;
        x->i = i;
        x->rows = s->rows - i < 2 * DP__TILE ? s->rows - i : 2 * DP__TILE;
        x->done = 0;
        if (tall) dp__store_amx(x->sum, 1, tiles);
        else dp__store_amx(x->sum, 0, tiles);
    }
    if (!s->more) dp__finish_amx(x, x->rows);
}

DP__TARGET(DP__VNNI_NEEDS)
static void dp__gemm_u8s8_amx(const dp__strip *s) {
    size_t tiles = dp__tiles_amx(s);
    if (tiles == 3) dp__gemm_panel_amx(s, 3, 0);
    else if (tiles == 2) dp__gemm_panel_amx(s, 2, 0);
    else dp__gemm_panel_amx(s, 1, 0);
}

/* Against the other BF16 kernels: all of k in one sum, in the order of the instruction, so that
 * bits differ from theirs (but not with rows, threads or batches). */
DP__TARGET(DP__VNNI_NEEDS)
static void dp__gemm_bf16_amx(const dp__strip *s) {
    size_t tiles = dp__tiles_amx(s);
    if (tiles == 3) dp__gemm_panel_amx(s, 3, 1);
    else if (tiles == 2) dp__gemm_panel_amx(s, 2, 1);
    else dp__gemm_panel_amx(s, 1, 1);
}

static void dp__tile_mode_amx(void *work) {
    dp__block_amx *x = (dp__block_amx *)work;
    dp__tile_config_amx(x != NULL);
    if (x != NULL) memset(x, 0, sizeof *x); /* sums, too: checkers do not see tiles write */
}
#endif

/* ============================================================================================
 * [E8] Kernel rows                                                            budget 130 lines
 * Owns:   the only list of kernels and what each row needs.    Needs: E3 to E7.
 * Never:  asks the machine; select() is a pure function that tests feed with invented ones.
 * Tests:  tests/test_gemm.c: gemm_select
 * ============================================================================================ */

typedef struct dp__kernel {
    void (*run)(const dp__strip *s);
    size_t unit, tiles; /* a strip: unit, 4, 2 or 1 rows; tiles of 16 columns */
    size_t group;       /* k of one k-group */
    int    wide;        /* 1: takes INT8 activations as 16 bits */
    void (*tile_mode)(void *work); /* or NULL. Such a kernel runs between tile_mode(work) and
                                      tile_mode(NULL) and takes any number of rows */
} dp__kernel;

typedef struct dp__row {
    dp_isa      isa;
    const char *name;
    uint32_t    cpu, os; /* bits needed */
    uint32_t    slow;    /* CPU bits with which the row is taken only when its level is named */
    dp__kernel  f32;
    dp__kernel  i8[3];   /* by dp_weights, what is known of the weights: dp__weights_hold */
    dp__kernel  b16;     /* groups of 2; of 1: pairs widened to floats, the odd element first */
    void (*vec)(const dp__vec *op, size_t begin, size_t end);
} dp__row;

#define DP__NEEDS_AVX2 (DP__CPU_AVX2 | DP__CPU_FMA)
#define DP__NEEDS_AVX512                                                                         \
    (DP__NEEDS_AVX2 | DP__CPU_AVX512F | DP__CPU_AVX512BW | DP__CPU_AVX512DQ | DP__CPU_AVX512VL)
#define DP__NEEDS_VNNI (DP__NEEDS_AVX512 | DP__CPU_AVX512VNNI)
#define DP__NEEDS_AMX (DP__CPU_AMX_TILE | DP__CPU_AMX_INT8 | DP__CPU_AMX_BF16)
#define DP__ALL_WEIGHTS(run, unit, tiles, mode)                                                  \
    {{run, unit, tiles, 4, 0, mode}, {run, unit, tiles, 4, 0, mode}, {run, unit, tiles, 4, 0, mode}}

static const dp__row dp__rows[] = {
    {DP_ISA_SCALAR, "scalar", 0, 0, 0, {dp__gemm_f32_scalar, 4, 1, 1, 0, NULL},
     DP__ALL_WEIGHTS(dp__gemm_u8s8_scalar, 4, 1, NULL),
     {dp__gemm_bf16_scalar, 4, 1, 2, 0, NULL}, dp__vec_scalar},
#ifdef DP__AVX2
    {DP_ISA_AVX2, "avx2", DP__NEEDS_AVX2, DP__OS_YMM, 0, {dp__gemm_f32_avx2, 6, 1, 1, 0, NULL},
     {{dp__gemm_s16_avx2, 6, 1, 4, 1, NULL}, {dp__gemm_pairs_avx2, 4, 1, 4, 0, NULL},
      {dp__gemm_quads_avx2, 4, 1, 4, 0, NULL}},
     {dp__gemm_bf16_avx2, 6, 1, 1, 0, NULL}, dp__vec_avx2},
    {DP_ISA_AVX_VNNI, "avx-vnni", DP__NEEDS_AVX2 | DP__CPU_AVX_VNNI, DP__OS_YMM, 0,
     {dp__gemm_f32_avx2, 6, 1, 1, 0, NULL}, DP__ALL_WEIGHTS(dp__gemm_u8s8_avxvnni, 6, 1, NULL),
     {dp__gemm_bf16_avx2, 6, 1, 1, 0, NULL}, dp__vec_avx2},
#endif
#ifdef DP__AVX512
    {DP_ISA_AVX512, "avx512", DP__NEEDS_AVX512, DP__OS_YMM | DP__OS_ZMM, 0,
     {dp__gemm_f32_avx512, 8, 3, 1, 0, NULL},
     {{dp__gemm_s16_avx512, 8, 1, 4, 1, NULL}, {dp__gemm_pairs_avx512, 8, 3, 4, 0, NULL},
      {dp__gemm_quads_avx512, 6, 3, 4, 0, NULL}},
     {dp__gemm_bf16_avx512, 8, 3, 1, 0, NULL}, dp__vec_avx512},
    {DP_ISA_AVX512_VNNI, "avx512-vnni", DP__NEEDS_VNNI, DP__OS_YMM | DP__OS_ZMM, 0,
     {dp__gemm_f32_avx512, 8, 3, 1, 0, NULL}, DP__ALL_WEIGHTS(dp__gemm_u8s8_vnni, 8, 3, NULL),
     {dp__gemm_bf16_avx512, 8, 3, 1, 0, NULL}, dp__vec_avx512},
    {DP_ISA_AVX512_BF16, "avx512-bf16", DP__NEEDS_VNNI | DP__CPU_AVX512BF16,
     DP__OS_YMM | DP__OS_ZMM, DP__CPU_SLOW_BF16, {dp__gemm_f32_avx512, 8, 3, 1, 0, NULL},
     DP__ALL_WEIGHTS(dp__gemm_u8s8_vnni, 8, 3, NULL), {dp__gemm_bf16_dot, 8, 3, 2, 0, NULL},
     dp__vec_avx512_bf16},
#endif
#ifdef DP__AMX
    {DP_ISA_AMX, "amx", DP__NEEDS_VNNI | DP__CPU_AVX512BF16 | DP__NEEDS_AMX,
     DP__OS_YMM | DP__OS_ZMM | DP__OS_AMX, 0, {dp__gemm_f32_avx512, 8, 3, 1, 0, NULL},
     DP__ALL_WEIGHTS(dp__gemm_u8s8_amx, 32, 3, dp__tile_mode_amx),
     {dp__gemm_bf16_amx, 32, 3, 2, 0, dp__tile_mode_amx}, dp__vec_avx512_bf16},
#endif
};
#define DP__ROWS (sizeof dp__rows / sizeof *dp__rows)

/* Columns of a panel from which the row's kernels read fastest: what a strip of FP32 covers. */
static size_t dp__row_panel(const dp__row *row) {
    return row->f32.tiles * DP__TILE;
}

/* Columns of a panel of n columns in all: the panels alike, since a narrow last one computes slowly
 * (a head's INT8 values in 48 + 16 columns instead of 32 + 32: products 9 % slower, 512 keys). */
static size_t dp__even_panel(const dp__row *row, size_t n) {
    size_t most = dp__row_panel(row), panels = (n + most - 1) / most;
    return ((n + DP__TILE - 1) / DP__TILE + panels - 1) / panels * DP__TILE;
}

/* The best row: needs met, level at most cap (AUTO: any), not slow, not denied; NULL if none is
 * left. */
static const dp__row *dp__row_select(uint32_t cpu, uint32_t os, dp_isa cap, uint32_t deny) {
    const dp__row *best = NULL;
    for (size_t i = 0; i < DP__ROWS; i++) {
        const dp__row *row = &dp__rows[i];
        if ((row->cpu & ~cpu) || (row->os & ~os)) continue;
        if (cap != DP_ISA_AUTO && row->isa > cap) continue;
        if ((row->slow & cpu) && row->isa != cap) continue;
        if (deny >> row->isa & 1) continue;
        best = row; /* rows stand in order of preference */
    }
    return best;
}

/* Why a level does not run on this machine: the first of its needs that is not met. */
static const char *dp__row_missing(dp_isa isa, uint32_t cpu, uint32_t os) {
    static const struct {
        uint32_t    bit;
        const char *text;
    } needs[] = {
        {DP__CPU_AVX2, "the CPU has no AVX2"},
        {DP__CPU_FMA, "the CPU has no FMA"},
        {DP__CPU_AVX_VNNI, "the CPU has no AVX-VNNI"},
        {DP__CPU_AVX512F, "the CPU has no AVX-512F"},
        {DP__CPU_AVX512BW, "the CPU has no AVX-512BW"},
        {DP__CPU_AVX512DQ, "the CPU has no AVX-512DQ"},
        {DP__CPU_AVX512VL, "the CPU has no AVX-512VL"},
        {DP__CPU_AVX512VNNI, "the CPU has no AVX512-VNNI"},
        {DP__CPU_AVX512BF16, "the CPU has no AVX512-BF16"},
        {DP__CPU_AMX_TILE, "the CPU has no AMX-TILE, or shows no palette of tiles"},
        {DP__CPU_AMX_INT8, "the CPU has no AMX-INT8"},
        {DP__CPU_AMX_BF16, "the CPU has no AMX-BF16"},
    };
    const dp__row *row = NULL;
    if (isa == DP_ISA_AUTO) return NULL;
    for (size_t i = 0; i < DP__ROWS; i++)
        if (dp__rows[i].isa == isa) row = &dp__rows[i];
    if (row == NULL) return "this build does not contain the level";
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if (row->cpu & ~cpu & needs[i].bit) return needs[i].text;
    if (row->os & ~os & DP__OS_YMM) return "the operating system does not save AVX registers";
    if (row->os & ~os & DP__OS_ZMM) return "the operating system does not save AVX-512 registers";
    if (row->os & ~os) return "the operating system refuses AMX (arch_prctl)";
    return NULL;
}

/* ============================================================================================
 * [E9] Threads                                                                budget 330 lines
 * Owns:   the team of workers, and dp__exec: how a session computes.    Needs: B3, E3, E8.
 * Never:  divides a sum; a task gets (tid, threads) and writes outputs of its own.
 * Tests:  tests/test_gemm.c: gemm_team_*, gemm_patience, gemm_apart
 * ============================================================================================ */

typedef void dp__task(void *arg, int32_t tid, int32_t threads);

#ifndef DP_NO_THREADS
#include <pthread.h>
#include <signal.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#define DP__LINUX(call, a, b, c) syscall(SYS_##call, a, b, c) /* -1: refused, or not Linux */
#else
#define DP__LINUX(call, a, b, c) (-1L)
#endif

#define DP__SPIN 20000             /* pauses before a waiting thread sleeps: 0.4 to 0.9 ms, longer
                                    * than a wake-up takes, or one sleeper makes all sleep */
#define DP__SPIN_LEAST 50          /* where threads outnumber processors */
#define DP__UNLUCKY 4              /* full waits in a row that spinning did not end */
#define DP__PROBE 256              /* then one wait in so many is a full one */
#define DP__STACK_BYTES (1u << 20) /* of a worker. Trap: glibc takes TLS from it */
#define DP__CPU_WORDS (1024u / 8 / sizeof(long)) /* processors a set can name; with more of them
                                                  * the system decides where workers run */

/* How long a thread spins, by its luck. */
typedef struct dp__patience {
    int32_t failures; /* full waits in a row, up to DP__UNLUCKY */
    int32_t waits;    /* since the last probe */
} dp__patience;

/* Where threads may run, as Linux counts: processor p is bit p % word of word p / word. */
typedef struct dp__places {
    unsigned long cpus[DP__CPU_WORDS]; /* all that were allowed when the team was made */
    long          bytes;               /* of them; 0: unknown, or fewer than threads */
    unsigned      taken;               /* the caller's: no worker runs there; UINT_MAX: none yet */
} dp__places;

typedef struct dp__worker {
    struct dp__team *team;
    pthread_t        handle;
    int32_t          tid;
    int32_t          id; /* Linux's; 0 before the worker runs */
} dp__worker;

/* turn changes with every task given out; pending counts the workers that have not finished. */
typedef struct dp__team {
    dp__task       *task;
    void           *arg;
    int32_t         threads; /* workers and the caller */
    int             stop;
    char            gap1[DP__ALIGN];
    int32_t         turn;
    char            gap2[DP__ALIGN];
    int32_t         pending;
    char            gap3[DP__ALIGN];
    int32_t         workers_asleep, caller_asleep;
    dp__patience    caller;
    dp__places      places;
    pthread_mutex_t lock;
    pthread_cond_t  start, done;
    dp__worker      workers[1]; /* [threads - 1] */
} dp__team;

static void dp__pause(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    __asm__ __volatile__("pause");
#endif
}

/* Waits until *word is (until) or is no longer (not until) value; 1 if spinning was enough. A
 * thread whose partners never come in time, because threads outnumber processors, spins less until
 * a probe shows that times have changed. */
static int dp__team_spin(const int32_t *word, int32_t value, int until, dp__patience *patience) {
    int full = patience->failures < DP__UNLUCKY || patience->waits == DP__PROBE;
    patience->waits = patience->waits < DP__PROBE ? patience->waits + 1 : 1;
    for (int32_t i = 0; i < (full ? DP__SPIN : DP__SPIN_LEAST); i++) {
        if ((__atomic_load_n(word, __ATOMIC_ACQUIRE) == value) == until) {
            if (full && i > 0) patience->failures = 0; /* no wait, no luck */
            return 1;
        }
        dp__pause();
    }
    if (patience->failures < DP__UNLUCKY) patience->failures++;
    return 0;
}

/* The same by sleeping. Who sleeps says so before it looks again, and who writes the word looks
 * for sleepers after it: in the one order of both, one of them sees the other. Locking without
 * need would cost 20 us each time, because both sides meet at the lock. */
static void dp__team_sleep(dp__team *team, const int32_t *word, int32_t value, int until,
                           int32_t *asleep, pthread_cond_t *wake) {
    pthread_mutex_lock(&team->lock);
    __atomic_add_fetch(asleep, 1, __ATOMIC_SEQ_CST);
    while ((__atomic_load_n(word, __ATOMIC_SEQ_CST) == value) != until)
        pthread_cond_wait(wake, &team->lock);
    __atomic_sub_fetch(asleep, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&team->lock);
}

/* Wakes who sleeps, after the word was written. */
static void dp__team_wake(dp__team *team, const int32_t *asleep, pthread_cond_t *wake) {
    if (__atomic_load_n(asleep, __ATOMIC_SEQ_CST) == 0) return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(wake);
    pthread_mutex_unlock(&team->lock);
}

static void dp__places_init(dp__places *places, int32_t threads) {
    long bytes = DP__LINUX(sched_getaffinity, 0, sizeof places->cpus, places->cpus);
    for (size_t i = 0; i < DP__CPU_WORDS; i++)
        for (unsigned long left = places->cpus[i]; left != 0; left &= left - 1) threads--;
    places->bytes = bytes > 0 && threads <= 0 ? bytes : 0;
    places->taken = UINT_MAX;
}

/* Keeps the workers away from the caller's processor, where there is one for every thread. Trap: in
 * a virtual machine the kernel woke workers on their waker's processor while another was idle, and
 * left them there: two threads took as long as one (measured). Where a place is refused, all go
 * on as they are. */
static void dp__team_apart(dp__team *team) {
    dp__places   *places = &team->places;
    unsigned long others[DP__CPU_WORDS], word = 8 * sizeof(long);
    unsigned      cpu = 0;
    if (places->bytes == 0 || DP__LINUX(getcpu, &cpu, NULL, NULL) != 0) return;
    if (cpu == places->taken || cpu / word >= DP__CPU_WORDS) return;
    places->taken = cpu;
    memcpy(others, places->cpus, sizeof others);
    others[cpu / word] &= ~(1ul << cpu % word);
    for (int32_t i = 0; i + 1 < team->threads; i++) {
        int32_t id = __atomic_load_n(&team->workers[i].id, __ATOMIC_ACQUIRE);
        if (id == 0) places->taken = UINT_MAX; /* not started: next time */
        else (void)DP__LINUX(sched_setaffinity, id, (size_t)places->bytes, others);
    }
}

static void *dp__worker_main(void *arg) {
    dp__worker *worker = (dp__worker *)arg;
    dp__team   *team = worker->team;
    int32_t     seen = 0;
    dp__patience patience = {0, 0};
    dp__fp_enter();
    __atomic_store_n(&worker->id, (int32_t)DP__LINUX(gettid, 0, 0, 0), __ATOMIC_RELEASE);
    for (;; seen ^= 1) {
        if (!dp__team_spin(&team->turn, seen, 0, &patience))
            dp__team_sleep(team, &team->turn, seen, 0, &team->workers_asleep, &team->start);
        if (team->stop) return NULL;
        team->task(team->arg, worker->tid, team->threads);
        if (__atomic_sub_fetch(&team->pending, 1, __ATOMIC_SEQ_CST) == 0)
            dp__team_wake(team, &team->caller_asleep, &team->done);
    }
}

/* Lets the workers see that it is their turn. */
static void dp__team_go(dp__team *team) {
    if (__atomic_load_n(&team->workers_asleep, __ATOMIC_RELAXED) > 0) dp__team_apart(team);
    __atomic_xor_fetch(&team->turn, 1, __ATOMIC_SEQ_CST);
    dp__team_wake(team, &team->workers_asleep, &team->start);
}

/* Runs task(arg, tid, threads) once for every tid; returns when all are done. */
static void dp__team_run(dp__team *team, dp__task *task, void *arg) {
    if (team == NULL) {
        task(arg, 0, 1);
        return;
    }
    team->task = task;
    team->arg = arg;
    __atomic_store_n(&team->pending, team->threads - 1, __ATOMIC_RELAXED);
    dp__team_go(team);
    task(arg, 0, team->threads);
    if (!dp__team_spin(&team->pending, 0, 1, &team->caller))
        dp__team_sleep(team, &team->pending, 0, 1, &team->caller_asleep, &team->done);
}

static size_t dp__team_bytes(int32_t threads) {
    return sizeof(dp__team) + (size_t)threads * sizeof(dp__worker);
}

/* created: the number of threads asked for when the team was made, which sized its memory. */
static void dp__team_close(dp__team *team, const dp_alloc *alloc, int32_t created) {
    if (team == NULL) return;
    team->stop = 1;
    dp__team_go(team);
    for (int32_t i = 0; i + 1 < team->threads; i++) pthread_join(team->workers[i].handle, NULL);
    pthread_cond_destroy(&team->start);
    pthread_cond_destroy(&team->done);
    pthread_mutex_destroy(&team->lock);
    dp__free(alloc, team, dp__team_bytes(created), 1);
}

/* Starts the workers with all signals blocked: handlers run in the host's own threads. Where
 * the system refuses a thread, the team has those it gave. */
static void dp__team_start(dp__team *team, int32_t threads) {
    pthread_attr_t attr;
    sigset_t       all, old;
    team->threads = 1;
    if (pthread_attr_init(&attr) != 0) return;
    pthread_attr_setstacksize(&attr, DP__STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int32_t i = 0; i + 1 < threads; i++) {
        dp__worker *worker = &team->workers[i];
        worker->team = team;
        worker->tid = i + 1;
        if (pthread_create(&worker->handle, &attr, dp__worker_main, worker) != 0) break;
        team->threads = i + 2; /* not read by workers before the first task */
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
}

/* A team of threads (2 or more), fewer where the system refuses; NULL without memory. */
static dp__team *dp__team_open(const dp_alloc *alloc, int32_t threads) {
    dp__team *team = (dp__team *)dp__alloc(alloc, dp__team_bytes(threads), 1);
    if (team == NULL) return NULL;
    memset(team, 0, dp__team_bytes(threads));
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->start, NULL);
    pthread_cond_init(&team->done, NULL);
    dp__places_init(&team->places, threads);
    dp__team_start(team, threads);
    return team;
}
#else
typedef struct dp__team {
    int32_t threads;
} dp__team;

static void dp__team_run(dp__team *team, dp__task *task, void *arg) {
    (void)team;
    task(arg, 0, 1);
}

static void dp__team_close(dp__team *team, const dp_alloc *alloc, int32_t created) {
    (void)team, (void)alloc, (void)created;
}

static size_t dp__team_bytes(int32_t threads) {
    (void)threads;
    return 0;
}

static dp__team *dp__team_open(const dp_alloc *alloc, int32_t threads) {
    (void)alloc, (void)threads;
    return NULL;
}
#endif

/* Per-thread working memory of a matrix product: packed rows of a and packed panels of b. */
#define DP__A_ROWS 128u /* rows of a in one block */
#define DP__A_TILES (1u << 20) /* bytes of a in one block for tiles: half an L2 cache with AMX */
#define DP__B_COLS 768u /* columns of b packed at once; a multiple of DP__PANEL */
#define DP__WIDE_COLS 192u /* of b in pairs widened at once: they and a stay in L2 */
#define DP__A_SCRATCH (DP__A_ROWS * (DP__CHAIN + 16u))        /* numbers */
#define DP__STAGE (DP__A_SCRATCH + DP__B_COLS * DP__CHAIN) /* here numbers are rounded, then .. */
#define DP__TILE_WORK (DP__STAGE + DP__A_ROWS * DP__TILE)  /* .. comes dp__strip.work */
#define DP__SCRATCH (DP__TILE_WORK + 2048u)                /* numbers; that work takes 1,600 */

/* How one session or trainer computes: its kernel row, its team, working memory per thread. */
typedef struct dp__exec {
    const dp__row *row;
    dp__team      *team;    /* NULL: the caller's thread only */
    int32_t        threads; /* that compute */
    int32_t        asked;
    dp_real       *scratch; /* [threads, DP__SCRATCH] */
    dp_alloc       alloc;
} dp__exec;

static void dp__exec_close(dp__exec *x) {
    size_t numbers = (size_t)x->threads * DP__SCRATCH;
    dp__team_close(x->team, &x->alloc, x->asked);
    if (x->scratch != NULL) dp__wipe(x->scratch, numbers * sizeof(dp_real)); /* keys and values */
    dp__free(&x->alloc, x->scratch, numbers, sizeof(dp_real));
    memset(x, 0, sizeof *x);
}

/* The kernel row of an environment. */
static dp_status dp__env_row(const dp_env *env, const dp__row **row, dp_error *err) {
    uint32_t    cpu = dp__cpu_bits(), os = dp__os_bits();
    const char *missing = dp__row_missing(env->isa_cap, cpu, os);
    *row = dp__row_select(cpu, os, env->isa_cap, env->isa_deny);
    if (missing == NULL && *row == NULL) missing = "every instruction set is denied";
    return missing == NULL ? DP_OK : dp__fail(err, DP_E_ISA, missing);
}

/* env is complete (defaults filled in). On failure x is closed. */
static dp_status dp__exec_open(dp__exec *x, const dp_env *env, dp_error *err) {
    memset(x, 0, sizeof *x);
    dp_status status = dp__env_row(env, &x->row, err);
    if (status != DP_OK) return status;
    x->alloc = env->alloc;
    x->asked = x->threads = env->threads > 0 ? env->threads : 1;
    if (x->asked > 1) {
        x->team = dp__team_open(&x->alloc, x->asked);
        x->threads = x->team != NULL ? x->team->threads : 1;
    }
    x->scratch = (dp_real *)dp__alloc(&x->alloc, (size_t)x->threads * DP__SCRATCH, sizeof(dp_real));
    if (x->scratch != NULL) return DP_OK;
    dp__exec_close(x);
    return dp__no_memory(err);
}

static void dp__exec_run(const dp__exec *x, dp__task *task, void *arg) {
    dp__team_run(x->team, task, arg);
}

/* The part [*begin, *end) of count items, in units of step, that thread tid has. */
static void dp__share(size_t count, size_t step, int32_t tid, int32_t threads, size_t *begin,
                      size_t *end) {
    size_t units = (count + step - 1) / step, t = (size_t)tid, all = (size_t)threads;
    size_t first = units / all * t + (t < units % all ? t : units % all);
    size_t last = first + units / all + (t < units % all ? 1 : 0);
    *begin = first * step < count ? first * step : count;
    *end = last * step < count ? last * step : count;
}

/* ============================================================================================
 * [E10] Matrix products                                                       budget 710 lines
 * Owns:   packing, blocking, partition, epilogues.             Needs: E4, E8, E9.
 * Never:  lets blocks, rows or threads change a sum: every output is one chain of fused
 *         multiply-adds in k order, begun anew after 1,024 products and at each cut.
 * Tests:  tests/test_gemm.c: gemm_*
 * ============================================================================================ */

#define DP__B_PACKED 0 /* tile images of dp__pack */
#define DP__B_NK 1     /* rows [n, k], a weight as stored */
#define DP__B_KN 2     /* rows [k, n] */
#define DP__B_INT8 3   /* tile images of dp__pack8; a is INT8 too */
#define DP__B_BF16 4   /* tile images of dp__pack16; a is of DP__VEC_BF16 for the same row */

#define DP__ACT_NONE 0 /* dp__mm.act; else 1 + dp__act or 1 + DP__GELU8 */

/* c[m, n] = a[m, k] * b[k, n], or += with accumulate; then bias, activation or residual. INT8:
 * c = float(sum) * (a_scale[i] * scale[j]), exact sums, so equal on every kernel row. */
typedef struct dp__mm {
    dp_real       *c;
    size_t         ldc;
    const dp_real *a; /* a(i, p) = a[i * a_row + p * a_k]; a_row or a_k is 1. BF16: rows, a_k is
                       * 1; where the kernel takes pairs, two of k in the place of one number */
    const uint8_t *a8; /* INT8: [m, a_row] s8 + 128, or u8; readable to a multiple of 4 behind k */
    size_t         a_row, a_k;
    const void    *b;
    int            b_form;
    size_t         panel; /* columns of a panel of tile images */
    size_t         ldb;   /* of raw forms */
    int            bf16; /* 1: b is raw; it and a, which is of numbers, are rounded here. A chain
                          * that begins anew begins a pair anew, too */
    size_t         m, n, k;
    int            accumulate;
    const size_t  *cuts; /* [cut_count] ascending k where chains begin anew, or NULL; b is raw */
    size_t         cut_count;
    const dp_real *a_scale, *scale; /* INT8: [m], [n] */
    const int32_t *comp;            /* INT8: [n] of dp__compensate; NULL: a is u8 as it stands */
    int            weights;         /* INT8: dp_weights of dp__weights_hold, or FULL */
    const dp_real *bias; /* [n] or NULL */
    int            act;
    dp_real       *pre; /* [m, n] stride ldpre: the value before the activation, or NULL */
    size_t         ldpre;
    const dp_real *residual; /* [m, n] stride ldr, or NULL; not together with act */
    size_t         ldr;
    const struct dp__mm *ahead; /* NULL, or a product with packed weights that may follow: each
                                 * thread fetches the first of them in the end; m, n, k, b, b_form,
                                 * panel, bias, scale and comp are read */
} dp__mm;

static size_t dp__ceil(size_t a, size_t step) {
    return (a + step - 1) / step * step;
}

/* Numbers of n columns x k in tile images. Only for sizes that already exist in memory. */
static size_t dp__pack_size(size_t n, size_t k) {
    return dp__ceil(n, DP__TILE) * dp__ceil(k, DP__TILE);
}

/* to[j * ldto + i] = from[i * ld + j], i < rows, j < cols. Short pieces of far rows: no processor
 * guesses them, so each is fetched 8 rows ahead (Zen 5: 0.76 -> 0.2 ns a number). */
static void dp__turn(dp_real *to, size_t ldto, const dp_real *from, size_t ld, size_t rows,
                     size_t cols) {
    size_t i = 0;
#ifdef DP__X86 /* blocks of 4 x 4 */
    for (; i + 4 <= rows; i += 4) {
        size_t j = 0;
        for (; j + 4 <= cols; j += 4) {
            const float *p = from + i * ld + j;
            float       *q = to + j * ldto + i;
            for (size_t r = 8; r < 12 && j % DP__TILE == 0 && i + r < rows; r++)
                DP__FETCH(p + r * ld);
            __m128 a = _mm_loadu_ps(p), b = _mm_loadu_ps(p + ld);
            __m128 c = _mm_loadu_ps(p + 2 * ld), d = _mm_loadu_ps(p + 3 * ld);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            _mm_storeu_ps(q, a);
            _mm_storeu_ps(q + ldto, b);
            _mm_storeu_ps(q + 2 * ldto, c);
            _mm_storeu_ps(q + 3 * ldto, d);
        }
        for (; j < cols; j++)
            for (size_t r = i; r < i + 4; r++) to[j * ldto + r] = from[r * ld + j];
    }
#endif
    for (; i < rows; i++)
        for (size_t j = 0; j < cols; j++) to[j * ldto + i] = from[i * ld + j];
}

/* One tile image of the numbers b[j * b_col + p * b_k], j < n, p < k; b_col or b_k is 1; the
 * rest is 0. */
static void dp__pack_image(dp_real *to, const dp_real *b, size_t b_col, size_t b_k, size_t n,
                           size_t k) {
    if (n < DP__TILE || k < DP__TILE) memset(to, 0, DP__IMAGE * sizeof *to);
    if (k > DP__TILE) k = DP__TILE;
    if (n > DP__TILE) n = DP__TILE;
    if (b_col != 1) {
        dp__turn(to, DP__TILE, b, b_col, n, k);
    } else if (n < DP__TILE) {
        for (size_t p = 0; p < k; p++) memcpy(to + p * DP__TILE, b + p * b_k, n * sizeof *to);
    } else { /* 0.5 -> 0.35 ns a number: a copy of constant size calls nothing */
        for (size_t p = 0; p < k; p++)
            memcpy(to + p * DP__TILE, b + p * b_k, DP__TILE * sizeof *to);
    }
}

/* Fetches the numbers of a tile image that comes soon. */
static void dp__pack_fetch(const dp_real *b, size_t b_col, size_t b_k) {
    size_t step = b_col == 1 ? b_k : b_col; /* from one line to the next */
    for (size_t r = 0; r < DP__TILE; r++) DP__FETCH(b + r * step);
}

/* The same for any n and k: all tile images of a matrix, the numbers of the next k-block fetched
 * ahead (Zen 5: 0.33 -> 0.22 ns a number of [n, k], 0.41 -> 0.19 of [k, n]). */
static void dp__pack(dp_real *to, size_t panel, const dp_real *b, size_t b_col, size_t b_k,
                     size_t n, size_t k) {
    for (size_t g = 0; g < n; g += panel) {
        size_t end = n - g < panel ? n : g + panel;
        for (size_t p = 0; p < k; p += DP__TILE)
            for (size_t j = g; j < end; j += DP__TILE, to += DP__IMAGE) {
                const dp_real *at = b + j * b_col + p * b_k;
                if (p + 2 * DP__TILE <= k && j + DP__TILE <= n)
                    dp__pack_fetch(at + DP__TILE * b_k, b_col, b_k);
                dp__pack_image(to, at, b_col, b_k, n - j, k - p);
            }
    }
}

/* Where weight (j, p) of [n, k] stands in tile images with so many of k in a k-group. */
DP__INLINE size_t dp__packed_at(size_t panel, size_t group, size_t n, size_t k, size_t j,
                                size_t p) {
    size_t image_k = group * DP__TILE, blocks = (k + image_k - 1) / image_k;
    size_t image = dp__image_at(panel, n, blocks, j, p / image_k);
    return (image * DP__TILE + p % image_k / group) * DP__TILE * group + j % DP__TILE * group +
           p % group;
}

#define DP__QUAD_K (4 * DP__TILE) /* k of a tile image of INT8 */
#define DP__INT8_MAX_K 65536u /* 255 * 128 * k stays below 2^31 */

/* Bytes of k-block by k-block tile images of n columns for k. */
static size_t dp__pack8_bytes(size_t n, size_t k) {
    return dp__ceil(n, DP__TILE) * dp__ceil(k, DP__QUAD_K);
}

/* One tile image of the codes w[j * ldw + p], j < n, p < k, in quads; the rest is 0. */
static void dp__pack8_image(char *to, const int8_t *w, size_t ldw, size_t n, size_t k) {
    if (n < DP__TILE || k < DP__QUAD_K) memset(to, 0, DP__IMAGE_BYTES);
    if (k > DP__QUAD_K) k = DP__QUAD_K;
    if (n > DP__TILE) n = DP__TILE;
#ifdef DP__X86 /* quads are moved as numbers, which no instruction there changes */
    if (ldw % 4 == 0 && k % 4 == 0) {
        dp__turn((float *)(void *)to, DP__TILE, (const float *)(const void *)w, ldw / 4, n, k / 4);
        return;
    }
#endif
    for (size_t j = 0; j < n; j++, w += ldw) {
        size_t p = 0;
        for (; p + 4 <= k; p += 4) memcpy(to + p * DP__TILE + 4 * j, w + p, 4);
        memcpy(to + p * DP__TILE + 4 * j, w + p, k - p);
    }
}

/* Packs w [n, k] (rows of stride ldw). */
static void dp__pack8(void *to, size_t panel, const int8_t *w, size_t ldw, size_t n, size_t k) {
    char *image = (char *)to;
    for (size_t g = 0; g < n; g += panel) {
        size_t end = n - g < panel ? n : g + panel;
        for (size_t p = 0; p < k; p += DP__QUAD_K)
            for (size_t j = g; j < end; j += DP__TILE, image += DP__IMAGE_BYTES)
                dp__pack8_image(image, w + j * ldw + p, ldw, n - j, k - p);
    }
}

/* What holds of the codes w[j * ldw + p], j < n, p < k. The kernels of AVX2 add products with u8
 * two or four at a time in 16 bits; with a <= 255 that fits if the positive codes of each group,
 * and the negative ones, add up to no more than 128: 255 * 128 = 32640 < 2^15.
 *   PAIRS  groups {2i, 2i + 1}
 *   QUADS  groups {8i, 8i + 1, 8i + 4, 8i + 5} and {8i + 2, 8i + 3, 8i + 6, 8i + 7} */
static int dp__weights_hold(const int8_t *w, size_t ldw, size_t n, size_t k) {
    int hold = DP_WEIGHTS_QUADS;
    for (size_t j = 0; j < n; j++, w += ldw) {
        for (size_t p = 0; p < k; p += 8) {
            int up[4] = {0, 0, 0, 0}, down[4] = {0, 0, 0, 0};
            for (size_t e = 0; e < 8 && p + e < k; e++)
                *(w[p + e] > 0 ? &up[e / 2] : &down[e / 2]) += w[p + e];
            for (size_t e = 0; e < 4; e++)
                if (up[e] > 128 || down[e] < -128) return DP_WEIGHTS_FULL;
            for (size_t e = 0; e < 2; e++)
                if (up[e] + up[e + 2] > 128 || down[e] + down[e + 2] < -128)
                    hold = DP_WEIGHTS_PAIRS;
        }
    }
    return hold;
}

/* comp[j] = -128 * sum_p w[j, p]: what u8 activations add too much. */
static void dp__compensate(int32_t *comp, const int8_t *w, size_t ldw, size_t n, size_t k) {
    for (size_t j = 0; j < n; j++, w += ldw) {
        int32_t sum = 0;
        for (size_t p = 0; p < k; p++) sum += w[p];
        comp[j] = -128 * sum;
    }
}

#define DP__PAIR_K (2 * DP__TILE) /* k of a tile image of pairs */

#define DP__BF16_END 3.3961775292304601e38 /* 2^128 (1 - 2^-9): from here on it is an infinity */

static size_t dp__pack16_bytes(size_t n, size_t k) {
    return dp__ceil(n, DP__TILE) * dp__ceil(k, DP__PAIR_K) * sizeof(uint16_t);
}

/* Packs w [n, k] (rows of stride ldw) as pairs of bfloat16, rounded; the rest is +0. */
static void dp__pack16(uint32_t *to, size_t panel, const dp_real *w, size_t ldw, size_t n,
                       size_t k) {
    memset(to, 0, dp__pack16_bytes(n, k));
    for (size_t j = 0; j < n; j++, w += ldw)
        for (size_t p = 0; p < k; p += 2)
            to[dp__packed_at(panel, 2, n, k, j, p) / 2] =
                dp__bf16_pair(w[p], p + 1 < k ? w[p + 1] : 0);
}

/* v puts bfloat16 into rows of ldq bytes at q, as a kernel with such a k-group takes it, in cells:
 * pairs, or numbers widened again. */
static void dp__bf16_to(dp__vec *v, size_t group, void *q, size_t ldq) {
    if (group == 1) {
        v->y = (dp_real *)q;
        v->ldy = ldq / sizeof *v->y;
    } else {
        v->q = (uint8_t *)q;
        v->ldq = ldq;
    }
}

/* Numbers x(r, p) = x[r * x_row + p * x_k], r < rows, p < k, in cells to[r * ld + cell]; where x_k
 * is not 1 (then x_row is), in to[cell * ld + r]. An odd k is filled up with +0. */
static dp__vec dp__rounding(size_t group, void *to, size_t ld, const dp_real *x, size_t x_row,
                            size_t x_k, size_t rows, size_t k) {
    dp__vec v;
    memset(&v, 0, sizeof v);
    v.op = x_k == 1 ? DP__VEC_BF16 : DP__VEC_BF16_DOWN;
    v.n = x_k == 1 ? k : rows;
    v.rows = x_k == 1 ? rows : k;
    v.x = x;
    v.ldx = x_k == 1 ? x_row : x_k;
    dp__bf16_to(&v, group, to, ld * 4);
    return v;
}

static void dp__round_cells(const dp__row *row, size_t group, dp_real *to, size_t ld,
                            const dp_real *x, size_t x_row, size_t x_k, size_t rows, size_t k) {
    dp__vec v = dp__rounding(group, to, ld, x, x_row, x_k, rows, k);
    row->vec(&v, 0, x_k == 1 ? rows : dp__ceil(k, 2) / 2);
}

/* As dp__pack, rounded, for a BF16 kernel with such a k-group. stage [DP__PANEL, DP__TILE]. */
static void dp__pack_rounded(const dp__row *row, size_t group, dp_real *to, size_t panel,
                             dp_real *stage, const dp_real *b, size_t b_col, size_t b_k, size_t n,
                             size_t k) {
    size_t step = DP__TILE * group;
    size_t col = b_k == 1 ? DP__TILE : 1, cell = b_k == 1 ? 1 : DP__PANEL; /* of the stage */
    for (size_t g = 0; g < n; g += panel) {
        size_t cols = n - g < panel ? n - g : panel;
        for (size_t p = 0; p < k; p += step) {
            size_t some = k - p < step ? k - p : step;
            dp__round_cells(row, group, stage, b_k == 1 ? col : cell, b + g * b_col + p * b_k,
                            b_col, b_k, cols, some);
            for (size_t j = 0; j < cols; j += DP__TILE, to += DP__IMAGE)
                dp__pack_image(to, stage + j * col, col, cell, cols - j, dp__ceil(some, 2) / group);
        }
    }
}

/* The part of a product that is computed at once, within one chain: k-groups [k0, k1) of
 * columns [j0, j1) and rows [i0, i1). */
typedef struct dp__part {
    const dp__kernel *kernel;
    size_t      i0, i1, j0, j1, k0, k1; /* with dp__mm.bf16 k0 and k1 count numbers */
    size_t      groups;       /* k-groups from k0 to k1 */
    int         last;         /* 1: behind k1 nothing is added */
    const char *a;            /* row i0 at k0 */
    size_t      a_step;       /* bytes from one row to the next, for whole strips */
    size_t      a_row;        /* of dp__strip */
    const char *b;            /* the first panel of the columns */
    size_t      b_k0, blocks; /* k-group of its first image, k-blocks of a panel */
    size_t      panel;        /* columns of a panel */
    size_t      image;        /* bytes of a tile image */
    void       *work;         /* of dp__strip */
} dp__part;

static const dp__kernel *dp__mm_kernel(const dp__row *row, const dp__mm *mm) {
    if (mm->b_form == DP__B_INT8) return &row->i8[mm->weights];
    return mm->b_form == DP__B_BF16 || mm->bf16 ? &row->b16 : &row->f32;
}

/* 1: the tile images are those of the kernel; 0: rows, or pairs to be widened, packed here. */
static int dp__mm_packed(const dp__row *row, const dp__mm *mm) {
    return mm->b_form == DP__B_PACKED || mm->b_form == DP__B_INT8 ||
           (mm->b_form == DP__B_BF16 && row->b16.group == 2);
}

static size_t dp__mm_groups(const dp__mm *mm, const dp__kernel *kernel, size_t k) {
    if (mm->b_form == DP__B_BF16 || mm->bf16) k = dp__ceil(k, 2);
    return (k + kernel->group - 1) / kernel->group;
}

/* Fetches what a strip will write to and add while its sums run: a store to a line that is not in
 * the cache waits (3 % of FP32 products on AVX2, up to 40 % of INT8 ones on AVX-512). */
#define DP__FETCH_GROUPS 64u /* no more: c of attention is in L1, and 6 % slower with it (AVX2) */
static void dp__mm_fetch(const dp__strip *s) {
    for (size_t i = 0; i < s->rows; i++) {
        for (size_t j = 0; j < s->cols; j += DP__TILE) {
            DP__FETCH(s->c + i * s->ldc + j);
            if (s->residual != NULL) DP__FETCH(s->residual + i * s->ldr + j);
        }
    }
}

/* All rows over the columns [j, j + cols) of one panel; s holds what does not depend on them. The
 * activation of a strip follows at once, while it is in the L1 cache. */
static void dp__mm_panel(const dp__row *row, const dp__mm *mm, const dp__part *part,
                         dp__strip *s, size_t j) {
    dp_real *c = mm->pre != NULL ? mm->pre : mm->c;
    int      last = part->last, gelu = mm->act == 1 + DP__GELU || mm->act == 1 + DP__GELU8;
    size_t   unit = part->kernel->unit;
    s->act = last && gelu && part->kernel->tile_mode != NULL && mm->pre == NULL ? mm->act : 0;
    s->more &= mm->act == s->act;
    s->ldc = mm->pre != NULL ? mm->ldpre : mm->ldc;
    s->bias = last && mm->bias != NULL ? mm->bias + j : NULL;
    if (mm->b_form == DP__B_INT8) s->scale = mm->scale + j;
    s->comp = mm->comp != NULL ? mm->comp + j : NULL;
    dp__vec act;
    memset(&act, 0, sizeof act);
    act.op = DP__VEC_ACT + mm->act - 1;
    act.n = s->cols;
    act.ldx = s->ldc;
    act.ldy = mm->ldc;
    for (size_t i = part->i0; i < part->i1; i += s->rows) {
        size_t left = part->i1 - i;
        s->rows = left >= unit ? unit : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (part->kernel->tile_mode != NULL) s->rows = left;
        s->a = part->a + (i - part->i0) * part->a_step;
        s->c = c + i * s->ldc + j;
        s->a_scale = mm->a_scale != NULL ? mm->a_scale + i : NULL;
        s->residual = last && mm->residual != NULL ? mm->residual + i * mm->ldr + j : NULL;
        if (part->kernel->tile_mode == NULL && s->k1 - s->k0 > DP__FETCH_GROUPS) dp__mm_fetch(s);
        part->kernel->run(s);
        act.x = s->c;
        act.y = mm->c + i * mm->ldc + j;
        if (last && mm->act != s->act) row->vec(&act, 0, s->rows);
        s->next += s->fetch * ((s->k1 - s->k0) / 4);
    }
}

/* Bytes of the first panel of a product with packed weights. */
static size_t dp__mm_panel_bytes(const dp__mm *mm) {
    size_t cols = mm->n < mm->panel ? mm->n : mm->panel;
    if (mm->b_form == DP__B_INT8) return dp__pack8_bytes(cols, mm->k);
    if (mm->b_form == DP__B_BF16) return dp__pack16_bytes(cols, mm->k);
    return dp__pack_size(cols, mm->k) * sizeof(dp_real);
}

/* Fetches what else belongs to the columns [j, end): the first strip of a panel would wait for it
 * before its first and after its last product (Zen 5: 4 % of INT8 products of 64 rows). */
static void dp__mm_fetch_columns(const dp__mm *mm, size_t j, size_t end) {
    for (; j < end && j < mm->n; j += DP__TILE) {
        if (mm->bias != NULL) DP__FETCH(mm->bias + j);
        if (mm->scale != NULL) DP__FETCH(mm->scale + j);
        if (mm->comp != NULL) DP__FETCH(mm->comp + j);
    }
}

/* A chain's last strips fetch the first panel of the next chain, a product's that of the one that
 * follows (at most twice as many lines as else); its first strip need not wait for memory then.
 * 64 tokens of BERT-base: 0.5 and 2 %. */
static void dp__mm_ahead(const dp__row *row, const dp__mm *mm, const dp__part *part, dp__strip *s,
                         size_t strips, size_t lines) {
    size_t turns = strips * (part->groups / 4);
    if (part->i1 != mm->m || turns == 0) return;
    if (!part->last && dp__mm_packed(row, mm)) {
        size_t cols = part->j1 - part->j0 < part->panel ? part->j1 - part->j0 : part->panel;
        s->fetch = lines * DP__ALIGN;
        s->next = part->b + s->k1 / DP__TILE * (dp__ceil(cols, DP__TILE) / DP__TILE * part->image);
    } else if (part->last && mm->ahead != NULL) {
        size_t want = dp__mm_panel_bytes(mm->ahead) / DP__ALIGN / turns + 1;
        s->fetch = (want < 2 * lines ? want : 2 * lines) * DP__ALIGN;
        s->next = (const char *)mm->ahead->b;
        dp__mm_fetch_columns(mm->ahead, 0, mm->ahead->panel);
    }
}

/* Panel by panel. The strips of one share the fetching of the next, 12 lines for 4 k-groups: when
 * few strips left most of it to be waited for, products of 16 rows took 40 % longer. */
static void dp__mm_part(const dp__row *row, const dp__mm *mm, const dp__part *part) {
    const dp__kernel *kernel = part->kernel;
    dp__strip s;
    size_t    panel = part->panel, most = kernel->tiles * DP__TILE;
    size_t    wide = most < panel ? most : panel;
    size_t    strips = (part->i1 - part->i0 + kernel->unit - 1) / kernel->unit * panel / wide;
    size_t    lines = (panel / 4 + strips - 1) / strips;
    memset(&s, 0, sizeof s);
    s.a_row = part->a_row;
    s.work = part->work;
    s.k0 = part->k0 - part->b_k0;
    s.k1 = s.k0 + part->groups;
    s.first = part->k0 == 0 && !mm->accumulate;
    s.ldr = mm->ldr;
    for (size_t g = part->j0; g < part->j1; g += panel) {
        size_t      end = part->j1 - g < panel ? part->j1 : g + panel;
        const char *first = part->b + (g - part->j0) / DP__TILE * part->blocks * part->image;
        s.b_step = dp__ceil(end - g, DP__TILE) / DP__TILE * part->image;
        s.more = end < part->j1;
        s.fetch = s.more ? lines * DP__ALIGN : 0;
        s.next = first;
        if (s.more) s.next += (part->blocks + s.k0 / DP__TILE) * s.b_step;
        else dp__mm_ahead(row, mm, part, &s, strips, lines);
        dp__mm_fetch_columns(mm, end, end + panel);
        for (size_t j = g; j < end; j += wide) {
            s.b = first + (j - g) / DP__TILE * part->image;
            s.cols = end - j < wide ? end - j : wide;
            dp__mm_panel(row, mm, part, &s, j);
        }
    }
}

/* Numbers from one row of widened activations to the next: rows 4 KB apart would meet in the L1
 * cache. */
static size_t dp__wide_row(size_t groups) {
    return dp__ceil(4 * groups, 32) + 32;
}

/* INT8 activations as numbers of 16 bits, less what is compensated. */
static void dp__mm_wide(const dp__mm *mm, dp__part *part, int16_t *to) {
    size_t  n = 4 * (part->k1 - part->k0);
    int16_t zero = mm->comp != NULL ? 128 : 0;
    part->a = (const char *)to;
    part->a_row = dp__wide_row(part->k1 - part->k0);
    part->a_step = part->a_row * sizeof *to;
    for (size_t i = part->i0; i < part->i1; i++, to += part->a_row) {
        const uint8_t *a = mm->a8 + i * mm->a_row;
        size_t         p = 0;
        for (; p + DP__TILE <= n; p += DP__TILE) { /* of copies a compiler makes vectors */
            uint8_t code[DP__TILE];
            int16_t x[DP__TILE];
            memcpy(code, a + p, sizeof code);
            for (size_t e = 0; e < DP__TILE; e++) x[e] = (int16_t)(code[e] - zero);
            memcpy(to + p, x, sizeof x);
        }
        for (; p < n; p++) to[p] = (int16_t)(a[p] - zero);
    }
}

/* Numbers from one row that was turned or rounded to the next: as above. */
static size_t dp__turned_row(size_t groups) {
    return dp__ceil(groups, 16) + 16;
}

/* Rows [i0, i1) of a rounded into to: as they lie, or turned in pieces. */
static void dp__mm_round(const dp__row *row, const dp__mm *mm, dp__part *part, dp_real *to) {
    size_t   k = part->k1 - part->k0, rows = part->i1 - part->i0, group = part->kernel->group;
    size_t   step = DP__TILE * group;
    dp_real *stage = to + DP__STAGE;
    part->a = (const char *)to;
    part->a_row = dp__turned_row(part->groups);
    part->a_step = part->a_row * sizeof(dp_real);
    if (mm->a_k == 1) {
        dp__round_cells(row, group, to, part->a_row, mm->a + part->i0 * mm->a_row + part->k0,
                        mm->a_row, 1, rows, k);
        return;
    }
    for (size_t i = 0; i < rows; i += DP__A_ROWS) {
        size_t m = rows - i < DP__A_ROWS ? rows - i : DP__A_ROWS;
        for (size_t p = 0; p < k; p += step) {
            size_t n = k - p < step ? k - p : step;
            dp__round_cells(row, group, stage, DP__A_ROWS,
                            mm->a + part->i0 + i + (part->k0 + p) * mm->a_k, 1, mm->a_k, m, n);
            dp__turn(to + i * part->a_row + p / group, part->a_row, stage, DP__A_ROWS,
                     dp__ceil(n, 2) / group, m);
        }
    }
}

/* Rows [i0, i1) of a as the kernel takes them: where they lie if k is contiguous; else turned
 * into to, or rounded, or widened. */
static void dp__mm_rows(const dp__row *row, const dp__mm *mm, dp__part *part, void *to) {
    size_t k = part->k1 - part->k0;
    part->a_row = mm->a_row;
    if (mm->bf16) {
        dp__mm_round(row, mm, part, (dp_real *)to);
    } else if (part->kernel->wide) {
        dp__mm_wide(mm, part, (int16_t *)to);
    } else if (mm->b_form == DP__B_INT8) {
        part->a = (const char *)(mm->a8 + part->i0 * mm->a_row);
        part->a_step = mm->a_row;
    } else if (mm->a_k == 1) {
        part->a = (const char *)(mm->a + part->i0 * mm->a_row + part->k0);
        part->a_step = mm->a_row * sizeof(dp_real);
    } else {
        part->a = (const char *)to;
        part->a_row = dp__turned_row(k);
        part->a_step = part->a_row * sizeof(dp_real);
        dp__turn((dp_real *)to, part->a_row, mm->a + part->i0 + part->k0 * mm->a_k, mm->a_k, k,
                 part->i1 - part->i0);
    }
}

/* Columns [j0, j1) for all rows, in blocks of equal height that stay in the L2 cache. */
static void dp__mm_columns(const dp__row *row, const dp__mm *mm, dp__part *part, dp_real *scratch) {
    size_t unit = part->kernel->unit, most = DP__A_ROWS - unit + 1;
    size_t room = DP__A_SCRATCH * sizeof(dp_real) / 2 / dp__wide_row(part->k1 - part->k0);
    if (part->kernel->wide && room < most) most = room; /* rounded up it is below DP__SCRATCH */
    if (mm->bf16) most = DP__A_SCRATCH / dp__turned_row(part->groups) - unit + 1;
    else if (part->kernel->tile_mode != NULL) most = dp__ceil(DP__A_TILES / (4 * part->k1), unit);
    size_t blocks = (mm->m + most - 1) / most;
    size_t height = dp__ceil((mm->m + blocks - 1) / blocks, unit);
    for (size_t i = 0; i < mm->m; i += height) {
        part->i0 = i;
        part->i1 = mm->m - i < height ? mm->m : i + height;
        dp__mm_rows(row, mm, part, scratch);
        dp__mm_part(row, mm, part);
    }
}

/* Pairs of columns [j0, j1) for k in [k0, k1), widened into to. */
static void dp__mm_widen(const dp__row *row, const dp__mm *mm, const dp__part *part, dp_real *to) {
    size_t      all = dp__ceil(mm->k, DP__PAIR_K) / DP__PAIR_K, step = part->panel;
    const char *from = (const char *)mm->b;
    for (size_t g = part->j0; g < part->j1; g += step) {
        size_t tiles = dp__ceil(part->j1 - g < step ? part->j1 - g : step, DP__TILE) / DP__TILE;
        size_t image = g / DP__TILE * all + part->k0 / DP__PAIR_K * tiles;
        dp__vec v;
        memset(&v, 0, sizeof v);
        v.op = DP__VEC_WIDEN;
        v.n = tiles;
        v.x = (const dp_real *)(const void *)(from + image * part->image);
        v.y = to;
        row->vec(&v, 0, part->blocks / 2);
        to += tiles * part->blocks * DP__IMAGE;
    }
}

/* The panels of columns [j0, j1): a weight's own, or packed here from rows or pairs. */
static void dp__mm_panels(const dp__row *row, const dp__mm *mm, dp__part *part, dp_real *scratch) {
    size_t  col = mm->b_form == DP__B_NK ? mm->ldb : 1, each = mm->b_form == DP__B_NK ? 1 : mm->ldb;
    size_t  groups = dp__mm_groups(mm, part->kernel, mm->k);
    part->b = (const char *)mm->b;
    if (mm->b_form == DP__B_BF16 && part->kernel->group == 1) {
        part->blocks = dp__ceil(part->k1 - part->k0, DP__PAIR_K) / DP__TILE;
        dp__mm_widen(row, mm, part, scratch + DP__A_SCRATCH);
        part->b = (const char *)(scratch + DP__A_SCRATCH);
        part->b_k0 = part->k0;
        return;
    }
    if (mm->b_form == DP__B_NK || mm->b_form == DP__B_KN) {
        dp_real       *panels = scratch + DP__A_SCRATCH;
        const dp_real *b = (const dp_real *)mm->b + part->j0 * col + part->k0 * each;
        size_t         n = part->j1 - part->j0, k = part->k1 - part->k0;
        if (mm->bf16)
            dp__pack_rounded(row, row->b16.group, panels, part->panel, scratch + DP__STAGE, b, col,
                             each, n, k);
        else dp__pack(panels, part->panel, b, col, each, n, k);
        part->b = (const char *)panels;
        part->b_k0 = part->k0;
        groups = part->groups;
    }
    part->blocks = (groups + DP__TILE - 1) / DP__TILE;
}

/* Columns that are computed at once: all, or as many as are packed at once. */
static size_t dp__mm_step(const dp__row *row, const dp__mm *mm) {
    if (dp__mm_packed(row, mm)) return mm->n;
    if (mm->b_form == DP__B_BF16) return DP__WIDE_COLS;
    return mm->bf16 ? DP__B_COLS * row->b16.group : DP__B_COLS;
}

/* The whole product on the caller's thread. scratch [DP__SCRATCH]. */
static void dp__matmul_serial(const dp__row *row, const dp__mm *mm, dp_real *scratch) {
    dp__part part;
    size_t   step = dp__mm_step(row, mm), each, end;
    if (mm->m == 0 || mm->n == 0) return;
    memset(&part, 0, sizeof part);
    int raw = mm->b_form == DP__B_NK || mm->b_form == DP__B_KN;
    part.panel = raw ? dp__row_panel(row) : mm->panel;
    part.work = scratch + DP__TILE_WORK;
    part.kernel = dp__mm_kernel(row, mm);
    part.image = mm->b_form == DP__B_INT8 ? DP__IMAGE_BYTES : DP__IMAGE * sizeof(dp_real);
    each = mm->bf16 ? 1 : part.kernel->group;
    end = mm->bf16 ? mm->k : dp__mm_groups(mm, part.kernel, mm->k);
    if (part.kernel->tile_mode != NULL) part.kernel->tile_mode(part.work);
    do {
        part.k1 = end;
        if (mm->b_form != DP__B_INT8 && (part.kernel->tile_mode == NULL || mm->bf16))
            part.k1 = dp__chain_end(part.k0 * each, end * each, mm->cuts, mm->cut_count) / each;
        part.last = part.k1 == end;
        part.groups = part.k1 - part.k0;
        if (mm->bf16) part.groups = dp__mm_groups(mm, part.kernel, part.groups);
        for (size_t j = 0; j < mm->n; j += step) {
            part.j0 = j;
            part.j1 = mm->n - j < step ? mm->n : j + step;
            dp__mm_panels(row, mm, &part, scratch);
            dp__mm_columns(row, mm, &part, scratch);
        }
        part.k0 = part.k1;
    } while (part.k0 < end);
    if (part.kernel->tile_mode != NULL) part.kernel->tile_mode(NULL);
}

/* Where the columns of b from j0 on begin; j0 is a multiple of DP__PANEL. */
static const void *dp__mm_columns_at(const dp__mm *mm, size_t j0) {
    const char *b = (const char *)mm->b;
    switch (mm->b_form) {
    case DP__B_PACKED: return b + dp__pack_size(j0, mm->k) * sizeof(dp_real);
    case DP__B_NK: return b + j0 * mm->ldb * sizeof(dp_real);
    case DP__B_KN: return b + j0 * sizeof(dp_real);
    case DP__B_INT8: return b + dp__pack8_bytes(j0, mm->k);
    default: return b + dp__pack16_bytes(j0, mm->k);
    }
}

/* Leaves of a product the columns [j0, j1); j0 is a multiple of DP__PANEL. */
static void dp__mm_cut_columns(dp__mm *mm, size_t j0, size_t j1) {
    mm->b = dp__mm_columns_at(mm, j0);
    if (mm->bias != NULL) mm->bias += j0;
    if (mm->scale != NULL) mm->scale += j0;
    if (mm->comp != NULL) mm->comp += j0;
    mm->n = j1 - j0;
}

/* Rows [i0, i1) and columns [j0, j1) of a product as a product of its own. */
static dp__mm dp__mm_cut(const dp__mm *mm, size_t i0, size_t i1, size_t j0, size_t j1) {
    dp__mm part = *mm;
    dp__mm_cut_columns(&part, j0, j1);
    part.c += i0 * mm->ldc + j0;
    if (mm->b_form == DP__B_INT8) {
        part.a8 += i0 * mm->a_row;
        part.a_scale += i0;
    } else {
        part.a += i0 * mm->a_row;
    }
    if (mm->pre != NULL) part.pre += i0 * mm->ldpre + j0;
    if (mm->residual != NULL) part.residual += i0 * mm->ldr + j0;
    part.m = i1 - i0;
    return part;
}

/* How many parts along n the threads make; the others lie along m. What counts is the longest
 * part, then what each part packs or reads: 12 of the unit below for a row, per_column for a
 * column, where one multiply-add on a vector of 32 costs 1 (measured, AVX-512). */
static int32_t dp__mm_split(size_t m, size_t n, size_t unit, double per_column, int32_t threads) {
    int32_t best = threads;
    double  least = 0;
    for (int32_t across = threads; across >= 1; across--) {
        if (threads % across != 0) continue;
        size_t tn = (size_t)across, tm = (size_t)threads / tn;
        size_t rows = ((m + unit - 1) / unit + tm - 1) / tm * unit;
        size_t cols = ((n + DP__PANEL - 1) / DP__PANEL + tn - 1) / tn * DP__PANEL;
        double cost = (double)rows * (double)cols + 12 * (double)rows + per_column * (double)cols;
        if (across != threads && cost >= least) continue;
        least = cost;
        best = across;
    }
    return best;
}

typedef struct dp__mm_job {
    const dp__exec *x;
    const dp__mm   *mm;
} dp__mm_job;

/* Rows [i0, i1) and columns [j0, j1) of a product are those of thread tid. */
static void dp__mm_share(const dp__row *row, const dp__mm *mm, int32_t tid, int32_t threads,
                         size_t *i0, size_t *i1, size_t *j0, size_t *j1) {
    size_t  unit = dp__mm_kernel(row, mm)->unit;
    double  per_column = dp__mm_packed(row, mm) ? 4 : 20;
    int32_t across = dp__mm_split(mm->m, mm->n, unit, per_column, threads);
    dp__share(mm->m, unit, tid / across, threads / across, i0, i1);
    dp__share(mm->n, DP__PANEL, tid % across, across, j0, j1);
}

static void dp__mm_task(void *arg, int32_t tid, int32_t threads) {
    const dp__mm_job *job = (const dp__mm_job *)arg;
    const dp__row    *row = job->x->row;
    const dp__mm     *mm = job->mm;
    dp__mm            ahead;
    size_t            i0, i1, j0, j1;
    dp__mm_share(row, mm, tid, threads, &i0, &i1, &j0, &j1);
    if (i0 == i1 || j0 == j1) return;
    dp__mm part = dp__mm_cut(mm, i0, i1, j0, j1);
    if (mm->ahead != NULL) {
        part.ahead = NULL;
        ahead = *mm->ahead;
        dp__mm_share(row, &ahead, tid, threads, &i0, &i1, &j0, &j1);
        if (i0 < i1 && j0 < j1) part.ahead = &ahead;
        dp__mm_cut_columns(&ahead, j0, j1);
    }
    dp__matmul_serial(row, &part, job->x->scratch + (size_t)tid * DP__SCRATCH);
}

#define DP__MM_ALONE 100000.0 /* products below which waking the team costs more than it saves */

/* The product over the team. */
static void dp__matmul(const dp__exec *x, const dp__mm *mm) {
    dp__mm_job job = {x, mm};
    DP_ASSERT(mm->b_form != DP__B_INT8 || mm->k <= DP__INT8_MAX_K);
    if ((double)mm->m * (double)mm->n * (double)mm->k < DP__MM_ALONE) dp__mm_task(&job, 0, 1);
    else dp__exec_run(x, dp__mm_task, &job);
}

/* ============================================================================================
 * [F] Network                                                                budget 1930 lines
 * ============================================================================================ */

/* ============================================================================================
 * [F1] Tensors                                                                budget 650 lines
 * Owns:   the one table of parameters; weights bound for computing; loading and reading back.
 * Needs:  B memory, C3 files, C5 config, E10 packed forms.
 * Never:  trusts a name or a shape of a file; holds a second copy of a model.
 * Tests:  tests/test_network.c: network_*
 * ============================================================================================ */

/* The parts of BERT: name as Hugging Face spells it, and shape in the letters of [0.4] (P
 * positions, Y types); cols of a vector is the number that a new one is filled with. Those from
 * DP__Q_W on are repeated for each layer, behind "bert.encoder.layer.N.". The order is that of
 * the flat buffer; query, key and value stand together so that they are one [3C, C] weight and
 * one [3C] bias. */
enum {
    DP__WORDS, DP__PLACES, DP__TYPES, DP__EMBED_GAIN, DP__EMBED_BIAS,
    DP__Q_W, DP__K_W, DP__V_W, DP__Q_B, DP__K_B, DP__V_B, DP__MIX_W, DP__MIX_B, DP__NORM1_GAIN,
    DP__NORM1_BIAS, DP__UP_W, DP__UP_B, DP__DOWN_W, DP__DOWN_B, DP__NORM2_GAIN, DP__NORM2_BIAS,
    DP__POOL_W, DP__POOL_B, DP__CLASS_W, DP__CLASS_B, DP__PARTS,
    DP__LAYER_PARTS = DP__POOL_W - DP__Q_W
};

typedef struct dp__part_rule {
    const char *name;
    char        rows, cols;
} dp__part_rule;

static const dp__part_rule dp__part_rules[DP__PARTS] = {
    {"bert.embeddings.word_embeddings.weight", 'V', 'C'},
    {"bert.embeddings.position_embeddings.weight", 'P', 'C'},
    {"bert.embeddings.token_type_embeddings.weight", 'Y', 'C'},
    {"bert.embeddings.LayerNorm.weight", 'C', '1'},
    {"bert.embeddings.LayerNorm.bias", 'C', '0'},
    {"attention.self.query.weight", 'C', 'C'},
    {"attention.self.key.weight", 'C', 'C'},
    {"attention.self.value.weight", 'C', 'C'},
    {"attention.self.query.bias", 'C', '0'},
    {"attention.self.key.bias", 'C', '0'},
    {"attention.self.value.bias", 'C', '0'},
    {"attention.output.dense.weight", 'C', 'C'},
    {"attention.output.dense.bias", 'C', '0'},
    {"attention.output.LayerNorm.weight", 'C', '1'},
    {"attention.output.LayerNorm.bias", 'C', '0'},
    {"intermediate.dense.weight", 'F', 'C'},
    {"intermediate.dense.bias", 'F', '0'},
    {"output.dense.weight", 'C', 'F'},
    {"output.dense.bias", 'C', '0'},
    {"output.LayerNorm.weight", 'C', '1'},
    {"output.LayerNorm.bias", 'C', '0'},
    {"bert.pooler.dense.weight", 'C', 'C'},
    {"bert.pooler.dense.bias", 'C', '0'},
    {"classifier.weight", 'K', 'C'},
    {"classifier.bias", 'K', '0'},
};

typedef struct dp__tensor {
    char    name[72];   /* the longest, with layer 511, has 59 characters */
    int     part;
    int32_t dims;       /* 2: [rows, cols]; 1: [rows], cols is 1 */
    size_t  rows, cols;
    size_t  offset;     /* of its first value in the flat buffer */
} dp__tensor;

typedef struct dp__params {
    dp__tensor *list;   /* [count] */
    size_t      count;
    size_t      total;  /* values of the flat buffer; gaps (to multiples of 16) stay 0 */
    uint64_t    values; /* parameters without the gaps */
    int32_t     layers;
} dp__params;

/* Number in the table of a part of a layer; layer 0 for those before the layers. */
static size_t dp__layer_tensor(int32_t layer, int part) {
    return (size_t)part + (size_t)layer * DP__LAYER_PARTS;
}

/* The same of a part behind the layers. */
static size_t dp__tail_tensor(const dp__params *p, int part) {
    return dp__layer_tensor(p->layers - 1, part);
}

static size_t dp__letter_size(const dp__config *c, char letter) {
    static const char letters[] = "VPYCFK";
    const int32_t sizes[] = {c->vocab, c->positions, c->types, c->hidden, c->inner, c->classes, 1};
    return (size_t)sizes[letter < 'A' ? 6 : strchr(letters, letter) - letters];
}

/* A part (of layer, if it belongs to one), placed at *end: 0 when the size overflows. */
static int dp__params_add(dp__params *p, const dp__config *c, dp__tensor *x, int part,
                          uint64_t layer, size_t *end) {
    const dp__part_rule *rule = &dp__part_rules[part];
    dp__text             name = {x->name, sizeof x->name, 0};
    size_t               size;
    int joins = (part > DP__Q_W && part <= DP__V_W) || (part > DP__Q_B && part <= DP__V_B);
    if (part >= DP__Q_W && part < DP__POOL_W) {
        dp__text_add(&name, "bert.encoder.layer.");
        dp__text_u64(&name, layer);
        dp__text_add(&name, ".");
    }
    dp__text_add(&name, rule->name);
    x->part = part;
    x->dims = rule->cols < 'A' ? 1 : 2;
    x->rows = dp__letter_size(c, rule->rows);
    x->cols = dp__letter_size(c, rule->cols);
    if (!joins && !dp__round_up(*end, 16, end)) return 0;
    x->offset = *end;
    if (!dp__mul_size(x->rows, x->cols, &size) || !dp__add_size(*end, size, end)) return 0;
    p->values += size;
    return 1;
}

/* The table of a geometry that [C5] has checked against the limits. */
static dp_status dp__params_init(dp__params *p, const dp__config *c, dp__arena *arena,
                                 dp_error *err) {
    size_t  end = 0;
    int32_t layer = 0;
    int     part = 0;
    memset(p, 0, sizeof *p);
    p->layers = c->layers;
    p->count = dp__tail_tensor(p, DP__PARTS);
    p->list = (dp__tensor *)dp__arena_get(arena, p->count, sizeof *p->list);
    if (p->list == NULL) return dp__no_memory(err);
    for (size_t t = 0; t < p->count; t++, part++) {
        if (part == DP__POOL_W && ++layer < p->layers) part = DP__Q_W;
        if (!dp__params_add(p, c, &p->list[t], part, (uint64_t)layer, &end))
            return dp__no_memory(err);
    }
    if (!dp__round_up(end, 16, &p->total) || p->total > SIZE_MAX / sizeof(dp_real))
        return dp__no_memory(err);
    return DP_OK;
}

/* Value i of a new tensor: 0 for biases, 1 for LayerNorm gains, else N(0, range). The sum of
 * twelve 16-bit uniform numbers has mean 6 and variance 1 - 2^-32 and is exact in integers, so
 * every CPU draws the same weights; no value is beyond 6 standard deviations. */
static void dp__params_draw(const dp__tensor *x, size_t number, uint64_t seed, float range,
                            size_t first, size_t count, dp_real *to) {
    uint64_t key = dp__mix64(seed + 0x9E3779B97F4A7C15u * (number + 1));
    dp_real  fill = (dp_real)(dp__part_rules[x->part].cols - '0');
    for (size_t i = 0; i < count; i++) {
        uint64_t sum = 0;
        for (uint64_t j = 0; j < 3 && x->dims == 2; j++) {
            uint64_t r = dp__mix64(key + 3 * (uint64_t)(first + i) + j);
            sum += (r & 0xFFFF) + (r >> 16 & 0xFFFF) + (r >> 32 & 0xFFFF) + (r >> 48);
        }
        /* sum + 6 (half a step for each of the twelve) over 65,536, minus the mean */
        double normal = ((double)sum + 6.0) / 65536.0 - 6.0;
        to[i] = x->dims == 1 ? fill : (dp_real)(float)(normal * (double)range);
    }
}

/* ---- tensors in files ----------------------------------------------------------------------- */

/* Files as a source of weights: what they have, and drawn numbers for what they lack. The caller
 * sets the first five, dp__bind the others; a new model has at NULL: everything is drawn. */
typedef struct dp__files {
    const dp__params *params;
    const dp__store  *store;
    uint64_t          seed;
    float             range; /* initializer_range */
    const dp__entry **at;    /* [count] where each tensor of the table lies; NULL: missing */
    const dp__entry **scale; /* [count] scales of an INT8 tensor, else NULL */
    size_t            missing, ignored, unknown;
} dp__files;

static dp_status dp__bind_refuse(const dp__store *store, const dp__entry *e, dp_status code,
                                 const char *sentence, dp_error *err) {
    return dp__entry_fail(store, e, code, "", DP_NO_PLACE, sentence, err);
}

/* A name without "bert.". */
static const char *dp__bare_name(const char *name) {
    return strncmp(name, "bert.", 5) == 0 ? name + 5 : name;
}

static const dp__entry *dp__store_find(const dp__store *store, const char *name) {
    dp__entry key;
    key.name = name;
    return (const dp__entry *)bsearch(&key, store->entries, store->count, sizeof key,
                                      dp__entry_by_name);
}

/* *at becomes the entry of tensor x (or of what its name with an ending means) in whatever
 * spelling: with or without "bert.", with LayerNorm.gamma and beta for weight and bias. used
 * [entries] marks it.
 * Trap: gamma and beta are meant only at the very end of a name; replacing them anywhere broke
 * other models for five years (transformers #29554). */
static dp_status dp__bind_find(const dp__store *store, const dp__tensor *x, const char *ending,
                               const dp__entry **at, char *used, dp_error *err) {
    const char *last = strrchr(x->name, '.') + 1;
    int         spellings = memcmp(last - 10, "LayerNorm.", 10) == 0 ? 4 : 2;
    for (int i = 0; i < spellings; i++) {
        char     text[sizeof x->name + 24];
        dp__text name = {text, sizeof text, 0};
        dp__text_add(&name, i & 1 ? dp__bare_name(x->name) : x->name);
        if (i & 2) {
            name.n -= strlen(last);
            dp__text_add(&name, *last == 'w' ? "gamma" : "beta");
        }
        dp__text_add(&name, ending);
        const dp__entry *e = dp__store_find(store, text);
        if (e == NULL || e == *at) continue;
        if (*at != NULL)
            return dp__bind_refuse(store, e, DP_E_FORMAT, "two tensors for the same parameter",
                                   err);
        *at = e;
        used[e - store->entries] = 1;
    }
    return DP_OK;
}

/* What lies beside an INT8 weight x and would change what it computes: zero points may be 0. */
static dp_status dp__bind_beside(const dp__store *store, const dp__tensor *x, char *used,
                                 dp_error *err) {
    static const char *const names[] = {"weight_zero_point", "weight_g_idx", "input_scale",
                                        "input_zero_point"};
    dp__tensor module = *x;
    dp_status  status = DP_OK;
    *(strrchr(module.name, '.') + 1) = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && status == DP_OK; i++) {
        const dp__entry *at = NULL;
        status = dp__bind_find(store, &module, names[i], &at, used, err);
        if (status != DP_OK || at == NULL) continue;
        dp__entry e = *at;
        char      bad = i > 0 || e.bytes > sizeof(int64_t) * x->rows;
        e.dtype = DP__U8; /* to be read byte by byte */
        for (uint64_t byte = 0; byte < e.bytes && status == DP_OK && !bad; byte++)
            status = dp__store_read(store, &e, byte, 1, &bad, err);
        if (bad) status = dp__bind_refuse(store, at, DP_E_UNSUPPORTED, "not our INT8 scheme", err);
    }
    return status;
}

/* 1: a (bare) name within a layer, whose number is not below layers. */
static int dp__other_layer(const char *name, int32_t layers) {
    uint64_t layer;
    if (strncmp(name, "encoder.layer.", 14) != 0) return 0;
    size_t digits = strcspn(name + 14, ".");
    return name[14 + digits] == 0 || !dp__read_u64(name + 14, digits, &layer) ||
           layer >= (uint64_t)layers;
}

/* What no tensor of the table has taken. Pre-training heads and the position_ids buffer are
 * ignored by rule; layers are as many as config.json says. */
static dp_status dp__bind_rest(dp__files *f, const char *used, dp_error *err) {
    for (size_t i = 0; i < f->store->count; i++) {
        const dp__entry *e = &f->store->entries[i];
        const char      *name = dp__bare_name(e->name);
        if (used[i]) continue;
        if (dp__other_layer(name, f->params->layers))
            return dp__bind_refuse(f->store, e, DP_E_FORMAT, "config.json has no such layer", err);
        if (strncmp(e->name, "cls.", 4) == 0 || strcmp(name, "embeddings.position_ids") == 0)
            f->ignored++;
        else f->unknown++;
    }
    return DP_OK;
}

/* Shape and type of what was found for tensor x: e, with the scales s. Whether real numbers are
 * of a known type is seen when they are read. */
static dp_status dp__bind_check(const dp__store *store, const dp__tensor *x, const dp__entry *e,
                                const dp__entry *s, dp_error *err) {
    int int8 = e != NULL && e->dtype == DP__I8;
    if (s != NULL && !int8)
        return dp__bind_refuse(store, e != NULL ? e : s, DP_E_FORMAT,
                               "only tensors of type I8 have a scale", err);
    if (e == NULL) return DP_OK;
    if (e->dims != x->dims || e->shape[0] != x->rows || (x->dims == 2 && e->shape[1] != x->cols))
        return dp__bind_refuse(store, e, DP_E_FORMAT, "the shape is not the config's", err);
    if (!int8) return DP_OK;
    if (x->dims != 2)
        return dp__bind_refuse(store, e, DP_E_UNSUPPORTED, "a vector cannot be INT8", err);
    if (s == NULL)
        return dp__bind_refuse(store, e, DP_E_FORMAT, "an INT8 tensor without scales", err);
    int column = s->dims == 1 || (s->dims == 2 && s->shape[1] == 1);
    if (!column || s->shape[0] != x->rows)
        return dp__bind_refuse(store, s, DP_E_UNSUPPORTED, "not one scale for each row", err);
    return DP_OK;
}

/* Compares the files with the table before any memory for weights is allocated. new_from: the
 * tensors from this one on may be missing (a new pooler or classifier); others may not. With
 * replace the classifier of the files is left aside. */
static dp_status dp__bind(dp__files *f, size_t new_from, int replace, dp__arena *arena,
                          dp_error *err) {
    const dp__params *p = f->params;
    dp_status         status = DP_OK;
    char             *used = (char *)dp__arena_get(arena, f->store->count, 1);
    f->at = (const dp__entry **)dp__arena_get(arena, p->count, sizeof *f->at);
    f->scale = (const dp__entry **)dp__arena_get(arena, p->count, sizeof *f->scale);
    f->missing = f->ignored = f->unknown = 0;
    if (used == NULL || f->at == NULL || f->scale == NULL) return dp__no_memory(err);
    for (size_t t = 0; t < p->count && status == DP_OK; t++) {
        status = dp__bind_find(f->store, &p->list[t], "", &f->at[t], used, err);
        if (status == DP_OK)
            status = dp__bind_find(f->store, &p->list[t], "_scale", &f->scale[t], used, err);
        if (replace && p->list[t].part >= DP__CLASS_W) f->at[t] = f->scale[t] = NULL;
        if (status == DP_OK && f->at[t] != NULL && f->at[t]->dtype == DP__I8)
            status = dp__bind_beside(f->store, &p->list[t], used, err);
    }
    if (status == DP_OK) status = dp__bind_rest(f, used, err);
    for (size_t t = 0; t < p->count && status == DP_OK; t++) {
        status = dp__bind_check(f->store, &p->list[t], f->at[t], f->scale[t], err);
        f->missing += f->at[t] == NULL;
        if (status == DP_OK && f->at[t] == NULL && t < new_from)
            status = dp__fail_at(err, DP_E_FORMAT, "", f->store->file_count == 1 ?
                                 f->store->names[0] : "model.safetensors.index.json",
                                 DP_NO_PLACE, "a tensor is missing", p->list[t].name);
    }
    return status;
}

/* 1: quantization_config leaves the module of this weight as it is. */
static int dp__config_ignores(const dp__config *c, const char *weight) {
    const char *module = dp__bare_name(weight);
    size_t      n = strlen(module) - strlen(".weight");
    for (int32_t i = 0; i < c->ignore_count; i++) {
        const char *name = dp__bare_name(c->ignore[i]);
        if (strlen(name) == n && memcmp(name, module, n) == 0) return 1;
    }
    return 0;
}

/* What quantization_config says must be what the tensors are: a weight taken for INT8 that is
 * not, or the reverse, would give numbers without meaning. */
static dp_status dp__bind_int8(const dp__config *c, const dp__files *f, dp_error *err) {
    for (size_t t = 0; t < f->params->count; t++) {
        const dp__tensor *x = &f->params->list[t];
        int               said = c->int8_tables != 0;
        if (x->dims != 2 || f->at[t] == NULL) continue;
        if (x->part > DP__TYPES) said = c->quantized && !dp__config_ignores(c, x->name);
        if ((f->at[t]->dtype == DP__I8) != said)
            return dp__bind_refuse(f->store, f->at[t], DP_E_FORMAT,
                                   "the type is not what quantization_config says", err);
    }
    return DP_OK;
}

/* ---- weights for computing ------------------------------------------------------------------ */

/* One or more tensors of the table, laid end to end, as layers take them: [rows, cols]. Vectors,
 * tables and everything in training are rows as they are (DP__B_NK); Linears of inference are
 * tile images (DP__B_PACKED, DP__B_INT8, DP__B_BF16). */
typedef struct dp__weight {
    size_t         rows, cols;
    size_t         row;    /* of the tensor in whose place of the table this stands */
    int            form;
    const void    *values; /* dp_real; with scale INT8 codes */
    const dp_real *scale;  /* [rows] or NULL */
    const int32_t *comp;   /* [rows] of dp__compensate */
    int            weights; /* INT8: dp_weights of dp__weights_hold */
} dp__weight;

typedef struct dp__net {
    const dp__config *config;
    const dp__params *params;
    dp__weight       *at;  /* [count] as the table */
    int32_t           int8_linears, int8_tables; /* tensors stored as INT8 */
    int32_t           bf16_linears;              /* stored as bfloat16 */
    int               bf16; /* 1: stored as they are, the layers' products round to bfloat16 */
    size_t            panel;  /* columns of a panel of the packed */
    dp_alloc          alloc;
    void             *memory; /* one piece: at, packed weights */
    size_t            bytes;
} dp__net;

/* Where weights come from: files, another net, a quantizer. Values of tensor t are asked for in
 * whole rows and in order. read gives real numbers, or with scale not NULL codes (int8_t) and
 * the scales of their rows. */
typedef struct dp__source {
    void          *ctx;
    int (*is_int8)(void *ctx, size_t t);
    dp_status (*read)(void *ctx, size_t t, size_t row, size_t rows, void *to, dp_real *scale,
                      dp_error *err);
    int bf16; /* 1: the Linears of the layers are rounded to bfloat16 */
} dp__source;

/* Pieces of one allocation. The first walk (p NULL) measures, the second hands out. */
typedef struct dp__carving {
    char  *p;
    size_t at;
    int    too_big;
} dp__carving;

static void *dp__carve(dp__carving *c, size_t count, size_t size) {
    size_t bytes, end;
    if (!dp__mul_size(count, size, &bytes) || !dp__round_up(bytes, DP__ALIGN, &bytes) ||
        !dp__add_size(c->at, bytes, &end)) {
        c->too_big = 1;
        return NULL;
    }
    void *piece = c->p == NULL ? NULL : c->p + c->at;
    c->at = end;
    return piece;
}

static dp_real *dp__carve_reals(dp__carving *c, size_t n) {
    return (dp_real *)dp__carve(c, n, sizeof(dp_real));
}

typedef struct dp__builder {
    dp__net          *net;
    const dp_real    *flat;   /* that the net is bound to, or NULL: a copy from source */
    const dp__source *source;
    dp__carving       carve;
    void             *stage;  /* [48, widest input] rows on their way */
    dp_error         *err;
} dp__builder;

/* How many tensors from t on are one weight: query, key and value of a layer; in the last layer
 * query alone (only [CLS] asks there), then key and value. */
static size_t dp__fused(const dp__params *p, size_t t) {
    int part = p->list[t].part, last = t >= dp__tail_tensor(p, DP__Q_W);
    if (part == DP__Q_W || part == DP__Q_B) return last ? 1 : 3;
    return part == DP__K_W || part == DP__K_B ? 2 : 1;
}

/* Rows [row, row + rows) of the tensors t, t + 1, ... of equal shape, laid end to end. */
static dp_status dp__build_rows(dp__builder *b, size_t t, size_t row, size_t rows, void *to,
                                dp_real *scale) {
    const dp__tensor *x = &b->net->params->list[t];
    size_t            bytes = x->cols * (scale != NULL ? sizeof(int8_t) : sizeof(dp_real));
    dp_status         status = DP_OK;
    for (size_t i = 0, n; i < rows && status == DP_OK; i += n) {
        size_t at = (row + i) % x->rows;
        n = x->rows - at < rows - i ? x->rows - at : rows - i;
        status = b->source->read(b->source->ctx, t + (row + i) / x->rows, at, n,
                                 (char *)to + i * bytes, scale != NULL ? scale + i : NULL, b->err);
    }
    return status;
}

static int dp__is_linear(const dp__tensor *x) {
    return x->dims == 2 && x->part > DP__TYPES;
}

/* The form in which a weight is kept. Pooler and classifier, rows of [CLS] only, stay FP32. The
 * double build has no BF16. */
static int dp__build_form(const dp__source *from, const dp__tensor *x, int int8) {
    int bf16 = from->bf16 && x->part < DP__POOL_W && sizeof(dp_real) == sizeof(float);
    if (!dp__is_linear(x)) return DP__B_NK;
    return int8 ? DP__B_INT8 : bf16 ? DP__B_BF16 : DP__B_PACKED;
}

/* Bytes of n rows of a tensor in that form. */
static size_t dp__build_bytes(const dp__tensor *x, int form, int int8, size_t n) {
    size_t item = int8 ? sizeof(int8_t) : sizeof(dp_real);
    switch (form) {
    case DP__B_INT8: return dp__pack8_bytes(n, x->cols);
    case DP__B_BF16: return dp__pack16_bytes(n, x->cols);
    case DP__B_PACKED: return dp__pack_size(n, x->cols) * item;
    default: return n * x->cols * item;
    }
}

/* The tensors from t on, copied from the source as the weight w. Linears go through the stage,
 * where a panel of 48 rows is checked and packed: the only extra memory. */
static dp_status dp__build_copy(dp__builder *b, size_t t, dp__weight *w) {
    const dp__source *from = b->source;
    const dp__tensor *x = &b->net->params->list[t];
    int      linear = dp__is_linear(x), int8 = from->is_int8(from->ctx, t);
    size_t   panel = b->net->panel;
    int      form = w->form = dp__build_form(from, x, int8);
    size_t   step = linear ? DP__PANEL : w->rows;
    size_t   bytes = dp__build_bytes(x, form, int8, w->rows);
    char    *to = (char *)dp__carve(&b->carve, bytes, 1);
    int32_t *comp = NULL;
    dp_real *scale = NULL;
    w->weights = DP_WEIGHTS_QUADS;
    if (int8) scale = dp__carve_reals(&b->carve, w->rows);
    if (int8 && linear) comp = (int32_t *)dp__carve(&b->carve, w->rows, sizeof *comp);
    for (size_t i = 1; i * x->rows < w->rows; i++)
        if (from->is_int8(from->ctx, t + i) != int8)
            return dp__fail_at(b->err, DP_E_UNSUPPORTED, "", NULL, DP_NO_PLACE,
                               "query, key and value of a layer must all be INT8, or none",
                               x[i].name);
    for (size_t j = 0; b->carve.p != NULL && j < w->rows; j += step) {
        size_t n = w->rows - j < step ? w->rows - j : step;
        void  *here = to + dp__build_bytes(x, form, int8, j);
        void  *rows = linear ? b->stage : here;
        dp_status status = dp__build_rows(b, t, j, n, rows, int8 ? scale + j : NULL);
        if (status != DP_OK) return status;
        if (form == DP__B_BF16) {
            for (size_t i = 0; i < n * x->cols; i++)
                if (fabs((double)((dp_real *)rows)[i]) >= DP__BF16_END)
                    return dp__fail_at(b->err, DP_E_FORMAT, "S12", NULL, DP_NO_PLACE,
                                       "a weight is too large for bfloat16", x->name);
            dp__pack16((uint32_t *)here, panel, (dp_real *)rows, x->cols, n, x->cols);
        } else if (comp != NULL) {
            int hold = dp__weights_hold((int8_t *)rows, x->cols, n, x->cols);
            if (hold < w->weights) w->weights = hold;
            dp__pack8(here, panel, (int8_t *)rows, x->cols, n, x->cols);
            dp__compensate(comp + j, (int8_t *)rows, x->cols, n, x->cols);
        } else if (linear) {
            dp__pack((dp_real *)here, panel, (dp_real *)rows, x->cols, 1, n, x->cols);
        }
    }
    w->values = to;
    w->scale = scale;
    w->comp = comp;
    return DP_OK;
}

/* One walk over the table: measuring, or (carve.p set) building. */
static dp_status dp__build_walk(dp__builder *b) {
    dp__net          *net = b->net;
    const dp__params *p = net->params;
    dp_status         status = DP_OK;
    /* Whole pages: weights that begin 3,648 bytes into a page cost 4 % of a pass of 64 tokens. */
    net->at = (dp__weight *)dp__carve(&b->carve, dp__ceil(p->count * sizeof *net->at, 4096), 1);
    for (size_t t = 0, fused; t < p->count && status == DP_OK; t += fused) {
        dp__weight w;
        memset(&w, 0, sizeof w);
        fused = dp__fused(p, t);
        w.rows = fused * p->list[t].rows;
        w.cols = p->list[t].cols;
        w.form = DP__B_NK;
        if (b->flat != NULL) w.values = b->flat + p->list[t].offset;
        else status = dp__build_copy(b, t, &w);
        for (size_t i = 0; i < fused && net->at != NULL; i++, w.row += p->list[t].rows) {
            net->at[t + i] = w;
            net->int8_linears += w.form == DP__B_INT8;
            net->bf16_linears += w.form == DP__B_BF16;
            net->int8_tables += w.form == DP__B_NK && w.scale != NULL;
        }
    }
    return status == DP_OK && b->carve.too_big ? dp__no_memory(b->err) : status;
}

static void dp__net_close(dp__net *net) {
    dp__free(&net->alloc, net->memory, net->bytes, 1);
    memset(net, 0, sizeof *net);
}

/* A net over config and params, which must outlive it. With flat: bound to that buffer, source
 * NULL. Else packed from the source into memory of its own, for kernels of row (or NULL: any). On
 * failure net is empty. */
static dp_status dp__net_open(dp__net *net, const dp_alloc *alloc, const dp__row *row,
                              const dp__config *config, const dp__params *params,
                              const dp_real *flat, const dp__source *source, dp_error *err) {
    size_t      widest = (size_t)(config->inner > config->hidden ? config->inner : config->hidden);
    dp__builder b = {net, flat, source, {NULL, 0, 0}, NULL, err};
    memset(net, 0, sizeof *net);
    net->alloc = *alloc;
    net->panel = row != NULL ? dp__row_panel(row) : DP__PANEL;
    net->config = config;
    net->params = params;
    dp_status status = dp__build_walk(&b);
    net->bytes = b.carve.at;
    if (status == DP_OK) {
        net->memory = dp__alloc(alloc, net->bytes, 1);
        b.stage = dp__alloc(alloc, DP__PANEL * widest, sizeof(dp_real));
        b.carve.p = (char *)net->memory;
        b.carve.at = 0;
        status = net->memory == NULL || b.stage == NULL ? dp__no_memory(err) : dp__build_walk(&b);
        dp__free(alloc, b.stage, DP__PANEL * widest, sizeof(dp_real));
    }
    if (status != DP_OK) dp__net_close(net);
    return status;
}

/* ---- sources -------------------------------------------------------------------------------- */

static int dp__files_is_int8(void *ctx, size_t t) {
    const dp__files *f = (const dp__files *)ctx;
    return f->at != NULL && f->at[t] != NULL && f->at[t]->dtype == DP__I8;
}

static dp_status dp__files_values(void *ctx, size_t t, size_t row, size_t rows, void *to,
                                  dp_real *scale, dp_error *err) {
    const dp__files  *f = (const dp__files *)ctx;
    const dp__tensor *x = &f->params->list[t];
    const dp__entry  *e = f->at != NULL ? f->at[t] : NULL;
    size_t            first = row * x->cols, count = rows * x->cols;
    if (e == NULL) {
        dp__params_draw(x, t, f->seed, f->range, first, count, (dp_real *)to);
        return DP_OK;
    }
    if (scale == NULL) return dp__store_read_real(f->store, e, first, count, (dp_real *)to, err);
    dp_status status = dp__store_read(f->store, e, first, count, to, err);
    if (status == DP_OK) status = dp__store_read_real(f->store, f->scale[t], row, rows, scale, err);
    return status;
}

static dp__source dp__source_files(dp__files *files) {
    dp__source s = {files, dp__files_is_int8, dp__files_values, 0};
    return s;
}

/* Row j of a weight out of its tile images. */
static void dp__packed_row(const dp__weight *w, size_t panel, size_t j, void *to) {
    size_t n = w->rows, k = w->cols;
    for (size_t p = 0; p < k; p++) {
        if (w->form == DP__B_INT8) {
            ((int8_t *)to)[p] = ((const int8_t *)w->values)[dp__packed_at(panel, 4, n, k, j, p)];
        } else if (w->form == DP__B_BF16) {
            uint32_t pair = ((const uint32_t *)w->values)[dp__packed_at(panel, 2, n, k, j, p) / 2];
            float    x = dp__f32_from_bits(p % 2 != 0 ? pair & 0xFFFF0000u : pair << 16);
            ((dp_real *)to)[p] = (dp_real)x;
        } else {
            ((dp_real *)to)[p] = ((const dp_real *)w->values)[dp__packed_at(panel, 1, n, k, j, p)];
        }
    }
}

/* A net as a source, for saving, training and quantizing. */
static int dp__net_is_int8(void *ctx, size_t t) {
    return ((const dp__net *)ctx)->at[t].scale != NULL;
}

static dp_status dp__net_values(void *ctx, size_t t, size_t row, size_t rows, void *to,
                                dp_real *scale, dp_error *err) {
    const dp__net    *net = (const dp__net *)ctx;
    const dp__weight *w = &net->at[t];
    size_t            first = w->row + row, cols = w->cols;
    size_t            item = w->scale != NULL ? sizeof(int8_t) : sizeof(dp_real);
    if (scale == NULL && w->scale != NULL)
        return dp__fail(err, DP_E_UNSUPPORTED, "an INT8 tensor has no real numbers to read");
    if (w->form == DP__B_NK)
        memcpy(to, (const char *)w->values + first * cols * item, rows * cols * item);
    for (size_t i = 0; w->form != DP__B_NK && i < rows; i++)
        dp__packed_row(w, net->panel, first + i, (char *)to + i * cols * item);
    if (w->scale != NULL) memcpy(scale, w->scale + first, rows * sizeof *scale);
    return DP_OK;
}

static dp__source dp__source_net(const dp__net *net) {
    dp__source s = {NULL, dp__net_is_int8, dp__net_values, 0};
    memcpy(&s.ctx, &net, sizeof net); /* the functions above only read it */
    return s;
}

/* All tensors of a source into a flat buffer, for training. */
static dp_status dp__flat_fill(const dp__params *p, const dp__source *source, dp_real *flat,
                               dp_error *err) {
    dp_status status = DP_OK;
    memset(flat, 0, p->total * sizeof *flat);
    for (size_t t = 0; t < p->count && status == DP_OK; t++)
        status = source->read(source->ctx, t, 0, p->list[t].rows, flat + p->list[t].offset, NULL,
                              err);
    return status;
}

/* ============================================================================================
 * [F2] Layers                                                                 budget 850 lines
 * Owns:   each layer forward, and backward next to it; attention over texts without padding.
 * Needs:  E4 element-wise work, E9 threads, E10 products, F1 weights.
 * Never:  keeps probabilities; lets a batch, its order or the threads change a text's numbers.
 * Tests:  tests/test_network.c: network_*; tests/test_double.c; tests/test_kernels.c: vec_*
 * ============================================================================================ */

/* ---- element-wise work over the team --------------------------------------------------------
 * Layers fill a dp__vec (formulas: [E4]) and split its rows, or columns, over the threads;
 * results do not depend on the split. Outputs may be their input of the same shape and stride. */

#define DP__VEC_ALONE 8192u /* elements below which waking the team costs more than it saves */

typedef struct dp__mat { /* a matrix whose rows stand ld numbers apart */
    dp_real *p;
    size_t   ld;
} dp__mat;

static const dp__mat dp__no_mat = {NULL, 0};

/* An operation on rows [rows, n]: y from x and z. */
static dp__vec dp__vec_of(int op, dp__mat y, dp__mat x, dp__mat z, size_t rows, size_t n) {
    dp__vec v;
    memset(&v, 0, sizeof v);
    v.op = op;
    v.y = y.p;
    v.ldy = y.ld;
    v.x = x.p;
    v.ldx = x.ld;
    v.z = z.p;
    v.ldz = z.ld;
    v.rows = rows;
    v.n = n;
    return v;
}

/* An operation on flat arrays of n numbers, in blocks. */
static dp__vec dp__vec_flat(int op, dp_real *y, const dp_real *x, size_t n) {
    dp__mat to = {y, DP__FLAT};
    dp__vec v = dp__vec_of(op, to, dp__no_mat, dp__no_mat, 0, DP__FLAT);
    v.x = x;
    v.ldx = DP__FLAT;
    v.total = n;
    return v;
}

typedef struct dp__vec_job {
    const dp__exec *x;
    const dp__vec  *op;
    size_t          count; /* rows, blocks or groups of columns */
} dp__vec_job;

static void dp__vec_task(void *arg, int32_t tid, int32_t threads) {
    const dp__vec_job *job = (const dp__vec_job *)arg;
    size_t begin, end;
    dp__share(job->count, 1, tid, threads, &begin, &end);
    if (job->op->then == NULL) {
        if (begin < end) job->x->row->vec(job->op, begin, end);
        return;
    }
    for (size_t r = begin, stop; r < end; r = stop) { /* while they are in the L1 cache */
        stop = end - r < DP__ROWS_ABREAST ? end : r + DP__ROWS_ABREAST;
        job->x->row->vec(job->op, r, stop);
        job->x->row->vec(job->op->then, r, stop);
    }
}

static void dp__vec_run(const dp__exec *x, const dp__vec *v) {
    dp__vec_job job = {x, v, v->rows};
    size_t      cost = v->rows * v->n;
    if (v->op >= DP__VEC_COLUMN_SUMS) job.count = (v->n + DP__COLUMNS - 1) / DP__COLUMNS;
    if (v->op == DP__VEC_DROPOUT) cost *= 16;
    if (v->total > 0) {
        job.count = (v->total + DP__FLAT - 1) / DP__FLAT;
        cost = v->total;
    }
    if (cost < DP__VEC_ALONE) dp__vec_task(&job, 0, 1);
    else dp__exec_run(x, dp__vec_task, &job);
}

/* An operation that takes nothing else: an activation y = act(x), or its gradient y = x act'(z). */
static void dp__vec_plain(const dp__exec *x, int op, dp__mat y, dp__mat in, dp__mat z, size_t rows,
                          size_t n) {
    dp__vec v = dp__vec_of(op, y, in, z, rows, n);
    dp__vec_run(x, &v);
}

/* Sum of squares of in [n]: blocks of 4,096, their sums added in double, in order.
 * blocks [(n + 4095) / 4096] is working memory. Infinite or NaN if an element is. */
static double dp__squared_norm(const dp__exec *x, const dp_real *in, size_t n, double *blocks) {
    double  sum = 0;
    dp__vec v = dp__vec_flat(DP__VEC_NORM, NULL, in, n);
    v.sums = blocks;
    dp__vec_run(x, &v);
    for (size_t i = 0; i < (n + DP__FLAT - 1) / DP__FLAT; i++) sum += blocks[i];
    return sum;
}

static int dp__all_finite(const dp__exec *x, const dp_real *in, size_t n) {
    int32_t flag = 0;
    dp__vec v = dp__vec_flat(DP__VEC_FINITE, NULL, in, n);
    v.flag = &flag;
    dp__vec_run(x, &v);
    return !flag;
}

/* INT8 codes q [rows, ldq] of x [rows, n] with one scale per row, each plus shift: 128 for the u8
 * of activations, 0 for the s8 of weights. Columns n to padded get the code of 0. */
static dp__vec dp__quantizing(uint8_t *q, size_t ldq, size_t padded, int shift, dp_real *scale,
                              dp__mat in, size_t rows, size_t n) {
    dp__vec v = dp__vec_of(DP__VEC_QUANTIZE, dp__no_mat, in, dp__no_mat, rows, n);
    v.q = q;
    v.ldq = ldq;
    v.ldz = padded;
    v.s = scale;
    v.p[0] = (dp_real)shift;
    return v;
}

/* Rows x [rows, n] times scale [rows] (NULL: 1), rounded to bfloat16 as the kernel takes them, in
 * rows of ldq bytes at q. */
static dp__vec dp__rounding_rows(const dp__row *row, uint8_t *q, size_t ldq, dp_real *scale,
                                 dp__mat x, size_t rows, size_t n) {
    dp__vec v = dp__rounding(row->b16.group, q, ldq / 4, x.p, x.ld, 1, rows, n);
    v.s = scale;
    return v;
}

/* ---- what the layers work on --------------------------------------------------------------- */

/* Sequences laid end to end: no padding exists anywhere. */
typedef struct dp__batch {
    const int32_t  *ids;        /* [N] */
    const int32_t  *types;      /* [N] */
    const size_t   *begin;      /* [B + 1] first token of each text; begin[0] 0, begin[B] = N */
    const uint32_t *docs;       /* [B] dataset rows, which key dropout; NULL: 0, 1, 2, ... */
    size_t          texts;      /* B >= 1; every text has at least one token */
    size_t          first;      /* place of the first text within the optimizer step */
    size_t          step_texts; /* texts of the whole optimizer step: the loss is their mean */
} dp__batch;

/* A set of rows of the batch: all N tokens, or the B tokens [CLS]. */
typedef struct dp__tokens {
    size_t    m;
    size_t   *begin; /* [B + 1] first row of each text */
    int32_t  *at;    /* [m] place of the row's token in its text */
    uint32_t *doc;   /* [m] dataset row of its text */
    size_t   *cuts;  /* [cut_count] rows where sums over rows begin anew */
    size_t    cut_count;
} dp__tokens;

/* Dropout of one optimizer step: the same numbers give the same masks, in any batch, and in the
 * backward pass. The last three are probabilities of 0, in [0, 1). */
typedef struct dp__dropping {
    uint64_t seed;
    uint32_t step;
    float    hidden, attention, classifier;
} dp__dropping;

typedef struct dp__stats { /* of the rows of a LayerNorm, for its backward pass; else NULL */
    dp_real *mean, *rstd;  /* [M] */
} dp__stats;

/* What a layer leaves for its backward pass. M is N, in the last layer B: there only the rows
 * of [CLS] ask, and everything behind its keys and values is computed for them alone. In
 * evaluation all layers share one set of buffers. */
typedef struct dp__kept {
    dp__mat   x;             /* [N, C] input */
    dp__mat   asking;        /* [M, C] the rows of x that ask */
    dp__mat   qkv;           /* [N, 3C]; of the queries only M rows */
    dp__mat   mixed;         /* [M, C] output of attention */
    dp__mat   sum1, middle;  /* [M, C] input and output of LayerNorm 1 */
    dp__mat   pre;           /* [M, F] before the activation; p NULL in evaluation */
    dp__mat   sum2;          /* [M, C] input of LayerNorm 2 */
    dp__mat   y;             /* [M, C] output */
    dp__stats stats1, stats2;
} dp__kept;

/* Working memory of passes over batches of at most tokens, texts and longest. One piece. */
typedef struct dp__work {
    dp_alloc  alloc;
    uint64_t  limit;      /* bytes that it may take; 0: no limit */
    int32_t   all_tokens; /* 1: the last layer computes every token too (a test's switch) */
    int32_t   attention32; /* 1: attention in float32, whatever the Linears are */
    int32_t   train;
    int32_t   form;       /* of the products of attention: DP__B_PACKED, _INT8 or _BF16 */
    int32_t   coded;      /* 1: q8 holds the input of the next Linear already */
    size_t    tokens, texts, longest; /* capacity: N, B, the largest T */
    void     *memory;
    size_t    bytes;
    dp__tokens  all, first; /* the rows of all tokens, and of [CLS] */
    dp__mat   asking;     /* [B, C] input rows of [CLS] in the last layer */
    dp__kept *kept;       /* [L] */
    dp__mat   embed;      /* [N, C] sum of the three embeddings */
    dp__stats embed_stats;
    dp__mat   act;        /* [N, F] behind the activation, and other short-lived things */
    dp__mat   cls;        /* [B, C] output of [CLS] */
    dp__mat   pool_pre, pooled, head; /* [B, C] pooler before and after tanh, after dropout */
    dp_real  *logits, *dlogits;       /* [B, K] */
    dp_real  *loss;       /* [B] */
    uint8_t  *q8;         /* [N, ldq8] input of an INT8 or BF16 Linear, bytes */
    size_t    ldq8;
    dp_real  *q8_scale;   /* [N] */
    char     *scratch;    /* [threads, scratch_each] bytes of attention */
    size_t    scratch_each;
    dp__mat   d0, d1, d2; /* [N, C] gradients on their way back */
    dp__mat   dqkv;       /* [N, 3C] */
    dp__mat   dpre;       /* [N, F] */
} dp__work;

/* One pass over one batch. */
typedef struct dp__pass {
    const dp__exec  *exec;
    const dp__net   *net;
    const dp__batch *batch;
    dp__work        *work;
    dp__dropping     drop; /* all 0: no dropout */
    dp_real         *grad; /* flat buffer of gradients, added to; NULL: no backward pass */
} dp__pass;

/* Row stride of a matrix with n columns: an odd number of groups of 16 numbers (a cache line of
 * floats; softmax pads its rows to that). Trap: rows 4,096 bytes apart share one set of the L1
 * cache (66 % of peak instead of 96 %). */
static size_t dp__stride(size_t n) {
    return ((n + 15) / 16 | 1) * 16;
}

static dp__mat dp__from_column(dp__mat x, size_t column) {
    x.p += column;
    return x;
}

static dp__mat dp__from_row(dp__mat x, size_t row) {
    x.p += row * x.ld;
    return x;
}

static size_t dp__width(const dp__pass *s) {
    return (size_t)s->net->config->hidden;
}

/* A vector, a float table, anything in training. */
static const dp_real *dp__real_of(const dp__pass *s, size_t t) {
    return (const dp_real *)s->net->at[t].values;
}

/* The gradient of tensor t stands where the tensor stands in the flat buffer. */
static dp_real *dp__grad_of(const dp__pass *s, size_t t) {
    return s->grad + s->net->params->list[t].offset;
}

/* ---- dropout --------------------------------------------------------------------------------
 * A place that drops is told apart by its site, below 4,096. */

enum { DP__SITE_EMBED, DP__SITE_POOLED, DP__SITE_LAYERS }; /* then three for each layer: */
enum { DP__SITE_ATTENTION, DP__SITE_MIX, DP__SITE_DOWN };

static uint32_t dp__layer_site(int32_t layer, int place) {
    return (uint32_t)DP__SITE_LAYERS + 3 * (uint32_t)layer + (uint32_t)place;
}

/* y [rows, n] = residual + dropout(in) with probability p; residual.p may be NULL (and is, in the
 * backward pass, where in is dy). doc [rows] dataset row, at [rows] row within the document:
 * token, or head * tokens + token for attention. */
static dp__vec dp__dropout(const dp__dropping *drop, float p, uint32_t site, const uint32_t *doc,
                           const int32_t *at, dp__mat y, dp__mat in, dp__mat residual,
                           size_t rows, size_t n) {
    dp__vec v = dp__vec_of(DP__VEC_DROPOUT, y, in, residual, rows, n);
    v.doc = doc;
    v.at = at;
    v.key[0] = (uint32_t)drop->seed;
    v.key[1] = (uint32_t)(drop->seed >> 32);
    v.step = drop->step;
    v.site = site;
    v.threshold = (uint32_t)(p * 65536.0f + 0.5f);
    if (v.threshold > 65535) v.threshold = 65535;
    v.p[0] = (dp_real)65536 / (dp_real)(65536 - v.threshold);
    return v;
}

/* y = residual + dropout(x) on rows [m, C]; where nothing drops, nothing is done. Returns where
 * the result stands: y, or x. */
static dp__mat dp__drop_rows(const dp__pass *s, const dp__tokens *rows, float p, uint32_t site,
                             dp__mat y, dp__mat x, dp__mat residual) {
    if (!(p > 0)) return x;
    dp__vec v = dp__dropout(&s->drop, p, site, rows->doc, rows->at, y, x, residual, rows->m,
                            dp__width(s));
    dp__vec_run(s->exec, &v);
    return y;
}

/* ---- LayerNorm ------------------------------------------------------------------------------ */

/* NULL: there is no such layer. */
static const dp__weight *dp__layer_weight(const dp__pass *s, int32_t layer, int part) {
    if (layer == s->net->config->layers) return NULL;
    return &s->net->at[dp__layer_tensor(layer, part)];
}

/* x [m, in] as Linear l takes it, to work->q8: INT8 codes with a scale per row, or bfloat16. 0: l
 * is FP32 and takes x itself. */
static int dp__coding(const dp__pass *s, const dp__weight *l, dp__mat x, size_t m, dp__vec *v) {
    dp__work *w = s->work;
    if (l->form == DP__B_INT8)
        *v = dp__quantizing(w->q8, w->ldq8, dp__ceil(l->cols, 4), 128, w->q8_scale, x, m, l->cols);
    else if (l->form == DP__B_BF16)
        *v = dp__rounding_rows(s->exec->row, w->q8, w->ldq8, NULL, x, m, l->cols);
    return l->form == DP__B_INT8 || l->form == DP__B_BF16;
}

/* y = LayerNorm(x) on rows [m, C]. gain: the tensor; its bias is the next one. next: the Linear
 * that reads y, or NULL; what it takes is made of each row at once. */
static void dp__norm_forward(const dp__pass *s, size_t gain, size_t m, dp__mat y, dp__stats stats,
                             dp__mat x, const dp__weight *next) {
    dp__vec code;
    dp__vec v = dp__vec_of(DP__VEC_LAYERNORM, y, x, dp__no_mat, m, dp__width(s));
    v.w = dp__real_of(s, gain);
    v.b = dp__real_of(s, gain + 1);
    v.s = stats.mean;
    v.t = stats.rstd;
    v.p[0] = (dp_real)s->net->config->eps;
    s->work->coded = next != NULL && dp__coding(s, next, y, m, &code);
    if (s->work->coded) v.then = &code;
    dp__vec_run(s->exec, &v);
}

#ifndef DP_NO_TRAIN
/* Differentiates y = LayerNorm(x): dx from dy, gain and bias gradients added. dx may be dy. */
static void dp__norm_backward(const dp__pass *s, size_t gain, const dp__tokens *rows, dp__mat dx,
                              dp__mat dy, dp__mat x, dp__stats stats) {
    size_t  n = dp__width(s);
    dp__vec v = dp__vec_of(DP__VEC_LAYERNORM_PARAMS, dp__no_mat, dy, x, rows->m, n);
    v.w = stats.mean;
    v.b = stats.rstd;
    v.s = dp__grad_of(s, gain);
    v.t = dp__grad_of(s, gain + 1);
    v.cuts = rows->cuts;
    v.cut_count = rows->cut_count;
    dp__vec_run(s->exec, &v);
    v = dp__vec_of(DP__VEC_LAYERNORM_GRAD, dx, dy, x, rows->m, n);
    v.w = dp__real_of(s, gain);
    v.s = stats.mean;
    v.t = stats.rstd;
    dp__vec_run(s->exec, &v);
}
#endif

/* ---- embedding ------------------------------------------------------------------------------
 * y = LayerNorm(word[id] + type[t] + place[at]), then dropout. */

static void dp__embed_forward(const dp__pass *s, dp__mat y) {
    const dp__tokens *rows = &s->work->all;
    dp__mat           sum = s->work->embed;
    dp__vec v = dp__vec_of(DP__VEC_GATHER, sum, dp__no_mat, dp__no_mat, rows->m, dp__width(s));
    v.x = dp__real_of(s, DP__WORDS);
    v.w = dp__real_of(s, DP__TYPES);
    v.z = dp__real_of(s, DP__PLACES);
    v.scale[0] = s->net->at[DP__WORDS].scale;
    v.scale[1] = s->net->at[DP__TYPES].scale;
    v.scale[2] = s->net->at[DP__PLACES].scale;
    v.ids = s->batch->ids;
    v.types = s->batch->types;
    v.at = rows->at;
    dp__vec_run(s->exec, &v);
    dp__norm_forward(s, DP__EMBED_GAIN, rows->m, y, s->work->embed_stats, sum,
                     dp__layer_weight(s, 0, DP__Q_W));
    dp__drop_rows(s, rows, s->drop.hidden, DP__SITE_EMBED, y, y, dp__no_mat);
}

#ifndef DP_NO_TRAIN
/* Differentiates y = dropout(LayerNorm(word[id] + type[t] + place[at])). dy is used up. */
static void dp__embed_backward(const dp__pass *s, dp__mat dy) {
    const dp__tokens *rows = &s->work->all;
    const int32_t    *ids[3] = {s->batch->ids, rows->at, s->batch->types}; /* of tables 0, 1, 2 */
    dp__drop_rows(s, rows, s->drop.hidden, DP__SITE_EMBED, dy, dy, dp__no_mat);
    dp__norm_backward(s, DP__EMBED_GAIN, rows, dy, dy, s->work->embed, s->work->embed_stats);
    for (size_t t = 0; t < 3; t++) {
        dp__mat dtable = {dp__grad_of(s, t), dp__width(s)};
        dp__vec v = dp__vec_of(DP__VEC_SCATTER, dtable, dy, dp__no_mat, rows->m, dp__width(s));
        v.ids = ids[t];
        dp__vec_run(s->exec, &v);
    }
    dp_real *pad = dp__grad_of(s, 0) + (size_t)s->net->config->pad_id * dp__width(s);
    memset(pad, 0, dp__width(s) * sizeof *pad); /* not learned, as in PyTorch */
}
#endif

/* ---- linear ---------------------------------------------------------------------------------
 * y[m, out] = act(x[m, in] * W[out, in]^T + bias) or ... + residual. t is the tensor W. */

/* c [m, n] = a [m, k] * b. */
static dp__mm dp__mm_of(dp__mat c, dp__mat a, const void *b, int b_form, size_t ldb, size_t m,
                        size_t n, size_t k) {
    dp__mm op;
    memset(&op, 0, sizeof op);
    op.c = c.p;
    op.ldc = c.ld;
    op.a = a.p;
    op.a_row = a.ld;
    op.a_k = 1;
    op.b = b;
    op.b_form = b_form;
    op.ldb = ldb;
    op.m = m;
    op.n = n;
    op.k = k;
    return op;
}

/* c [m, n] = a^T * b, a [k, m], b [k, n]; with accumulate, += . */
static dp__mm dp__mm_outer(dp__mat c, dp__mat a, dp__mat b, size_t m, size_t n, size_t k,
                           int accumulate) {
    dp__mm op = dp__mm_of(c, a, b.p, DP__B_KN, b.ld, m, n, k);
    op.a_row = 1;
    op.a_k = a.ld;
    op.accumulate = accumulate;
    return op;
}

/* The bias of a Linear follows its weight; those of query, key and value follow all three. */
static size_t dp__bias_of(const dp__pass *s, size_t t) {
    return t + (s->net->params->list[t].part <= DP__V_W ? 3 : 1);
}

/* 1: the products of Linear t, forward and backward, are rounded to bfloat16 as they are packed. */
static int dp__products16(const dp__pass *s, size_t t) {
    return s->net->bf16 && s->net->params->list[t].part < DP__POOL_W;
}

/* What Linear t is followed by, as far as dp__mm.ahead needs it; 0: its weights are not packed. (In
 * the last layer key and value come before query, not behind it.) */
static int dp__linear_after(const dp__pass *s, size_t t, size_t m, dp__mm *next) {
    const dp__params *p = s->net->params;
    const dp__weight *l = s->net->at;
    do t++; while (t < p->count && (!dp__is_linear(&p->list[t]) || l[t].row > 0));
    if (t == p->count || l[t].form == DP__B_NK) return 0;
    *next = dp__mm_of(dp__no_mat, dp__no_mat, l[t].values, l[t].form, 0, m, l[t].rows, l[t].cols);
    next->panel = s->net->panel;
    next->weights = l[t].weights;
    next->bias = dp__real_of(s, dp__bias_of(s, t));
    next->scale = l[t].scale;
    next->comp = l[t].comp;
    return 1;
}

/* act: as of dp__mm. pre [m, out] gets the value before the activation, residual
 * [m, out] is added; either may be dp__no_mat. */
static void dp__linear_run(const dp__pass *s, size_t t, size_t m, dp__mat y, dp__mat x, int act,
                           dp__mat pre, dp__mat residual) {
    const dp__weight *l = &s->net->at[t];
    dp__work         *w = s->work;
    dp__mm            op = dp__mm_of(y, x, l->values, l->form, l->cols, m, l->rows, l->cols);
    dp__mm            next;
    dp__vec           code;
    op.panel = s->net->panel;
    if (dp__linear_after(s, t, m, &next)) op.ahead = &next;
    if (!w->coded && dp__coding(s, l, x, m, &code)) dp__vec_run(s->exec, &code);
    w->coded = 0;
    if (l->form == DP__B_INT8) {
        op.a8 = w->q8;
        op.a_row = w->ldq8;
        op.a_scale = w->q8_scale;
        op.comp = l->comp;
        op.weights = l->weights;
        op.scale = l->scale;
    }
    if (l->form == DP__B_BF16) {
        op.a = (const dp_real *)(const void *)w->q8;
        op.a_row = w->ldq8 / sizeof *op.a;
    }
    op.bf16 = dp__products16(s, t);
    op.bias = dp__real_of(s, dp__bias_of(s, t));
    op.act = act;
    op.pre = pre.p;
    op.ldpre = pre.ld;
    op.residual = residual.p;
    op.ldr = residual.ld;
    dp__matmul(s->exec, &op);
}

static void dp__linear_forward(const dp__pass *s, size_t t, size_t m, dp__mat y, dp__mat x) {
    dp__linear_run(s, t, m, y, x, DP__ACT_NONE, dp__no_mat, dp__no_mat);
}

/* sum [rows, C] = residual + dropout(x * W^T + bias): the end of both halves of a layer. */
static void dp__linear_residual(const dp__pass *s, size_t t, const dp__tokens *rows, dp__mat sum,
                                dp__mat x, dp__mat residual, uint32_t site) {
    dp__mat at_once = s->drop.hidden > 0 ? dp__no_mat : residual;
    dp__linear_run(s, t, rows->m, sum, x, DP__ACT_NONE, dp__no_mat, at_once);
    dp__drop_rows(s, rows, s->drop.hidden, site, sum, sum, residual);
}

#ifndef DP_NO_TRAIN
/* Differentiates y = x * W^T + bias by W and bias, for rows of m tokens:
 *   dW[out, in] += sum over tokens of dy[., out] x[., in],   dbias[out] += sum of dy[., out]. */
static void dp__linear_weight_grad(const dp__pass *s, size_t t, const dp__tokens *rows,
                                   dp__mat dy, dp__mat x) {
    const dp__weight *l = &s->net->at[t];
    dp__mat dw = {dp__grad_of(s, t), l->cols}, dbias = {dp__grad_of(s, dp__bias_of(s, t)), 0};
    dp__mm  op = dp__mm_outer(dw, dy, x, l->rows, l->cols, rows->m, 1);
    op.bf16 = dp__products16(s, t);
    op.cuts = rows->cuts;
    op.cut_count = rows->cut_count;
    dp__matmul(s->exec, &op);
    dp__vec v = dp__vec_of(DP__VEC_COLUMN_SUMS, dbias, dy, dp__no_mat, rows->m, l->rows);
    v.cuts = rows->cuts;
    v.cut_count = rows->cut_count;
    dp__vec_run(s->exec, &v);
}

/* Differentiates y = x * W^T + bias by x: dx[m, in] = dy[m, out] * W[out, in] (+ residual). */
static void dp__linear_input_grad(const dp__pass *s, size_t t, size_t m, dp__mat dx, dp__mat dy,
                                  dp__mat residual) {
    const dp__weight *l = &s->net->at[t];
    dp__mm op = dp__mm_of(dx, dy, l->values, DP__B_KN, l->cols, m, l->cols, l->rows);
    op.bf16 = dp__products16(s, t);
    op.residual = residual.p;
    op.ldr = residual.ld;
    dp__matmul(s->exec, &op);
}

/* Differentiates sum = residual + dropout(x * W^T + bias): dx from dsum; the residual gets dsum
 * itself. masked [m, C] is working memory. */
static void dp__linear_residual_backward(const dp__pass *s, size_t t, const dp__tokens *rows,
                                         dp__mat dx, dp__mat dsum, dp__mat masked, dp__mat x,
                                         uint32_t site) {
    dp__mat dy = dp__drop_rows(s, rows, s->drop.hidden, site, masked, dsum, dp__no_mat);
    dp__linear_weight_grad(s, t, rows, dy, x);
    dp__linear_input_grad(s, t, rows->m, dx, dy, dp__no_mat);
}
#endif

/* ---- attention ------------------------------------------------------------------------------
 * For each text and head, with q, k, v the head's D columns:
 *   score[i, j] = q[i] . k[j],  p[i, .] = softmax(score[i, .] / sqrt(D)),  mixed = dropout(p) v
 * INT8 and BF16 round q, k, v and exp(score - max), which is p but for its sum: mixed is divided
 * by that. softmax is FP32.
 * Work is one block of 32 query rows of one text and head; blocks are dealt to threads in one
 * run each, by cost. A block's numbers do not depend on who computes it. */

#define DP__QUERIES 32u

typedef struct dp__attention {
    const dp__pass   *s;
    const dp__kept   *k;
    const dp__tokens *rows; /* that ask */
    uint32_t          site;
    dp__mat           dmixed; /* backward; else p is NULL */
} dp__attention;

/* Keys or values, packed; INT8: scale and, for keys, what u8 queries add too much, per column. */
typedef struct dp__packs {
    void    *packed; /* keys: T columns x D; values: D columns x T */
    size_t   panel;  /* columns of a panel */
    dp_real *scale;
    int32_t *comp;
} dp__packs;

/* Working memory of one thread, for the T keys of one text and head. */
typedef struct dp__head {
    const dp__row *row;
    dp_real  *scratch;     /* of dp__matmul_serial */
    int       form;        /* of the products: DP__B_PACKED, DP__B_INT8 or DP__B_BF16 */
    dp__packs  k, v;
    dp_real  *k_kn, *v_nk; /* backward: D columns x T, T columns x D */
    dp__mat   p, pd, dp;   /* [32, T] scores and probabilities, the same after dropout, gradient */
    uint8_t  *codes;       /* INT8, BF16: [32, ld8] of queries or probabilities */
    uint8_t  *key_codes;   /* [T, dp__stride8] of keys */
    size_t    ld8;
    dp_real  *q_scale;     /* [32] of the rows of codes */
    dp_real  *k_sum;       /* [T] INT8: sums of the codes of keys */
    size_t    t, d;
    dp_real   scale;       /* 1 / sqrt(D) */
    size_t    text, head;  /* whose keys and values these are */
} dp__head;

/* Bytes of a row of INT8 codes or of bfloat16: an odd number of cache lines, see dp__stride. */
static size_t dp__stride8(size_t n) {
    return (dp__ceil(n, DP__ALIGN) / DP__ALIGN | 1) * DP__ALIGN;
}

static size_t dp__head_bytes(int form, size_t n, size_t k) {
    if (form == DP__B_INT8) return dp__pack8_bytes(n, k);
    return form == DP__B_BF16 ? dp__pack16_bytes(n, k) : dp__pack_size(n, k) * sizeof(dp_real);
}

/* Everything of h for at most longest keys. D, row and form are set. */
static void dp__head_carve(dp__head *h, dp__carving *c, size_t longest, int train) {
    size_t d = h->d, most = d > longest ? d : longest, block = DP__QUERIES * dp__stride(most);
    if (h->form != DP__B_PACKED) {
        size_t item = h->form == DP__B_INT8 ? 1 : 4 / h->row->b16.group;
        h->ld8 = dp__stride8(most * item);
        h->codes = (uint8_t *)dp__carve(c, DP__QUERIES, h->ld8);
        h->key_codes = (uint8_t *)dp__carve(c, longest, dp__stride8(h->d * item));
        h->q_scale = dp__carve_reals(c, DP__QUERIES);
    }
    if (h->form == DP__B_INT8) {
        h->k.scale = dp__carve_reals(c, longest);
        h->k_sum = dp__carve_reals(c, longest);
        h->k.comp = (int32_t *)dp__carve(c, longest, sizeof *h->k.comp);
        h->v.scale = dp__carve_reals(c, d);
    }
    h->k.packed = dp__carve(c, dp__head_bytes(h->form, longest, d), 1);
    h->v.packed = dp__carve(c, dp__head_bytes(h->form, d, longest), 1);
    h->p.p = dp__carve_reals(c, block);
    if (!train) return;
    h->pd.p = dp__carve_reals(c, block);
    h->dp.p = dp__carve_reals(c, block);
    h->k_kn = dp__carve_reals(c, dp__pack_size(d, longest));
    h->v_nk = dp__carve_reals(c, dp__pack_size(longest, d));
}

static dp__head dp__head_of(const dp__work *w, const dp__exec *x, const dp__net *net) {
    dp__head h;
    memset(&h, 0, sizeof h);
    h.row = x->row;
    h.form = w->form;
    h.d = (size_t)(net->config->hidden / net->config->heads);
    h.scale = (dp_real)1 / (dp_real)sqrt((double)h.d);
    return h;
}

static void dp__head_open(dp__head *h, const dp__attention *a, int32_t tid) {
    const dp__work *w = a->s->work;
    dp__carving     c = {w->scratch + (size_t)tid * w->scratch_each, 0, 0};
    *h = dp__head_of(w, a->s->exec, a->s->net);
    h->scratch = a->s->exec->scratch + (size_t)tid * DP__SCRATCH;
    dp__head_carve(h, &c, w->longest, w->train);
}

/* Keys with a scale per row, values with a scale per column, as INT8. */
static void dp__head_load8(dp__head *h, dp__mat k, dp__mat v) {
    size_t  ld = dp__stride8(h->d);
    dp__vec op = dp__quantizing(h->key_codes, ld, h->d, 0, h->k.scale, k, h->t, h->d);
    op.t = h->k_sum;
    h->row->vec(&op, 0, h->t);
    dp__pack8(h->k.packed, h->k.panel, (const int8_t *)h->key_codes, ld, h->t, h->d);
    for (size_t j = 0; j < h->t; j++) { /* of a key that is not finite the sum is a NaN */
        dp_real sum = h->k_sum[j];
        h->k.comp[j] = sum - sum == 0 ? -128 * (int32_t)sum : 0;
    }
    op = dp__vec_of(DP__VEC_QUANTIZE_COLUMNS, dp__no_mat, v, dp__no_mat, h->t, h->d);
    op.q = (uint8_t *)h->v.packed;
    op.panel = h->v.panel;
    op.s = h->v.scale;
    h->row->vec(&op, 0, (h->d + DP__COLUMNS - 1) / DP__COLUMNS);
}

/* Keys and values as pairs of bfloat16. Pairs of a key are packed as FP32 numbers are. */
static void dp__head_load16(dp__head *h, dp__mat k, dp__mat v) {
    dp__vec op = dp__vec_of(DP__VEC_BF16, dp__no_mat, k, dp__no_mat, h->t, h->d);
    op.q = h->key_codes;
    op.ldq = dp__stride8(2 * h->d);
    h->row->vec(&op, 0, h->t);
    dp__pack((dp_real *)h->k.packed, h->k.panel, (const dp_real *)(const void *)h->key_codes,
             op.ldq / sizeof(dp_real), 1, h->t, dp__ceil(h->d, 2) / 2);
    dp__pack_rounded(h->row, 2, (dp_real *)h->v.packed, h->v.panel, h->scratch, v.p, 1, v.ld, h->d,
                     h->t);
}

/* Keys and values of one text and head, packed once for all its blocks. */
static void dp__head_load(dp__head *h, const dp__attention *a, size_t text, size_t head) {
    const size_t *begin = a->s->batch->begin;
    size_t        width = dp__width(a->s);
    dp__mat       rows = dp__from_row(a->k->qkv, begin[text]);
    dp__mat       k = dp__from_column(rows, width + head * h->d);
    dp__mat       v = dp__from_column(rows, 2 * width + head * h->d);
    h->text = text;
    h->head = head;
    h->t = begin[text + 1] - begin[text];
    h->p.ld = h->pd.ld = h->dp.ld = dp__stride(h->t > h->d ? h->t : h->d);
    h->k.panel = dp__even_panel(h->row, h->t);
    h->v.panel = dp__even_panel(h->row, h->d);
    if (h->form == DP__B_INT8) dp__head_load8(h, k, v);
    if (h->form == DP__B_BF16) dp__head_load16(h, k, v);
    if (h->form != DP__B_PACKED) return;
    dp__pack((dp_real *)h->k.packed, h->k.panel, k.p, k.ld, 1, h->t, h->d);
    if (a->dmixed.p == NULL) {
        dp__pack((dp_real *)h->v.packed, h->v.panel, v.p, 1, v.ld, h->d, h->t);
    } else {
        dp__pack(h->k_kn, h->v.panel, k.p, 1, k.ld, h->d, h->t);
        dp__pack(h->v_nk, h->k.panel, v.p, v.ld, 1, h->t, h->d);
    }
}

/* The head's columns in the rows of x that belong to its queries from i0 on. */
static dp__mat dp__head_queries(const dp__head *h, const dp__attention *a, dp__mat x, size_t i0) {
    return dp__from_column(dp__from_row(x, a->rows->begin[h->text] + i0), h->head * h->d);
}

/* c [m, n] = a [m, k] * b. INT8 and BF16: a stands in h->codes. */
static void dp__head_product(const dp__head *h, dp__mat c, dp__mat a, const dp__packs *b, size_t m,
                             size_t n, size_t k) {
    dp__mm op = dp__mm_of(c, a, b->packed, h->form, 0, m, n, k);
    op.panel = b->panel;
    if (h->form == DP__B_INT8) {
        op.a8 = h->codes;
        op.a_row = h->ld8;
        op.a_scale = h->q_scale;
        op.comp = b->comp;
        op.scale = b->scale;
    } else if (h->form == DP__B_BF16) {
        op.a = (const dp_real *)(const void *)h->codes;
        op.a_row = h->ld8 / sizeof *op.a;
    }
    dp__matmul_serial(h->row, &op, h->scratch);
}

/* y [m, T] = dropout(x) for the queries from i0 on; returns y, or x where nothing drops. */
static dp__mat dp__head_drop(const dp__head *h, const dp__attention *a, dp__mat y, dp__mat x,
                             size_t i0, size_t m) {
    int32_t  at[DP__QUERIES];
    uint32_t doc[DP__QUERIES];
    if (!(a->s->drop.attention > 0)) return x;
    for (size_t i = 0; i < m; i++) {
        at[i] = (int32_t)(h->head * h->t + i0 + i);
        doc[i] = a->rows->doc[a->rows->begin[h->text]];
    }
    dp__vec v = dp__dropout(&a->s->drop, a->s->drop.attention, a->site, doc, at, y, x, dp__no_mat,
                            m, h->t);
    h->row->vec(&v, 0, m);
    return y;
}

/* h->p [m, T] = probabilities of the queries q. INT8 and BF16: h->codes, not yet divided by their
 * sums, and h->q_scale, 1 / sum. */
static void dp__head_probabilities(const dp__head *h, dp__mat q, size_t m) {
    dp__vec v;
    if (h->form == DP__B_INT8)
        v = dp__quantizing(h->codes, h->ld8, dp__ceil(h->d, 4), 128, h->q_scale, q, m, h->d);
    else if (h->form == DP__B_BF16)
        v = dp__rounding_rows(h->row, h->codes, h->ld8, NULL, q, m, h->d);
    if (h->form != DP__B_PACKED) h->row->vec(&v, 0, m);
    dp__head_product(h, h->p, q, &h->k, m, h->t, h->d);
    v = dp__vec_of(DP__VEC_SOFTMAX, h->p, h->p, dp__no_mat, m, h->t);
    v.p[0] = h->scale;
    v.s = h->q_scale;
    if (h->form == DP__B_INT8) {
        v.op = DP__VEC_SOFTMAX8;
        v.q = h->codes;
        v.ldq = h->ld8;
    } else if (h->form == DP__B_BF16) {
        v.op = DP__VEC_SOFTMAX16;
        dp__bf16_to(&v, h->row->b16.group, h->codes, h->ld8);
    }
    h->row->vec(&v, 0, m);
}

/* The queries [i0, i0 + m) of a text and head. BF16: mixed goes to the input of the next Linear. */
static void dp__head_forward_block(const dp__head *h, const dp__attention *a, size_t i0, size_t m) {
    dp__mat mixed = dp__head_queries(h, a, a->k->mixed, i0);
    dp__head_probabilities(h, dp__head_queries(h, a, a->k->qkv, i0), m);
    dp__mat p = dp__head_drop(h, a, h->pd, h->p, i0, m);
    if (h->form != DP__B_BF16) {
        dp__head_product(h, mixed, p, &h->v, m, h->d, h->t);
        return;
    }
    const dp__work *w = a->s->work;
    uint8_t        *to = w->q8 + (a->rows->begin[h->text] + i0) * w->ldq8;
    to += h->head * h->d * (4 / h->row->b16.group);
    dp__head_product(h, h->p, p, &h->v, m, h->d, h->t);
    dp__vec v = dp__rounding_rows(h->row, to, w->ldq8, h->q_scale, h->p, m, h->d);
    h->row->vec(&v, 0, m);
}

#ifndef DP_NO_TRAIN
/* Differentiates the same. Probabilities are computed again: keeping them would take H T^2
 * numbers a text and layer, computing them is 0.3 % of a step at T = 64.
 *   dpd = dmixed v^T, dp = mask(dpd), dscore = softmax backward (p, dp) / sqrt(D),
 *   dq = dscore k,    dk += dscore^T q,  dv += pd^T dmixed; the first block begins the sums. */
static void dp__head_block_backward(const dp__head *h, const dp__attention *a, size_t i0,
                                    size_t m) {
    dp__mat dqkv = a->s->work->dqkv, q = dp__head_queries(h, a, a->k->qkv, i0);
    dp__mat dmixed = dp__head_queries(h, a, a->dmixed, i0);
    dp__mat grads = dp__from_row(dqkv, a->s->batch->begin[h->text]);
    dp__mat dk = dp__from_column(grads, dp__width(a->s) + h->head * h->d);
    dp__mat dv = dp__from_column(dk, dp__width(a->s));
    dp__head_probabilities(h, q, m);
    dp__mat pd = dp__head_drop(h, a, h->pd, h->p, i0, m);
    dp__packs k_kn = {h->k_kn, h->v.panel, NULL, NULL};
    dp__packs v_nk = {h->v_nk, h->k.panel, NULL, NULL};
    dp__head_product(h, h->dp, dmixed, &v_nk, m, h->t, h->d);
    dp__head_drop(h, a, h->dp, h->dp, i0, m);
    dp__vec v = dp__vec_of(DP__VEC_SOFTMAX_GRAD, h->dp, h->dp, h->p, m, h->t);
    v.p[0] = h->scale;
    h->row->vec(&v, 0, m);
    dp__head_product(h, dp__head_queries(h, a, dqkv, i0), h->dp, &k_kn, m, h->d, h->t);
    dp__mm key = dp__mm_outer(dk, h->dp, q, h->t, h->d, m, i0 > 0);
    dp__matmul_serial(h->row, &key, h->scratch);
    dp__mm value = dp__mm_outer(dv, pd, dmixed, h->t, h->d, m, i0 > 0);
    dp__matmul_serial(h->row, &value, h->scratch);
}
#endif

/* Blocks in order text, head, rows; the cost of one is its rows times the keys. A thread computes
 * the blocks that begin within its share of the total cost (exact in double below 2^53); backward
 * the blocks of one head stay together, where the first begins. */
static void dp__attention_task(void *arg, int32_t tid, int32_t threads) {
    const dp__attention *a = (const dp__attention *)arg;
    const size_t        *begin = a->s->batch->begin, *asks = a->rows->begin;
    size_t               heads = (size_t)a->s->net->config->heads, texts = a->s->batch->texts;
    double               total = 0, at = 0, here = 0;
    dp__head             h;
    dp__head_open(&h, a, tid);
    for (size_t b = 0; b < texts; b++)
        total += (double)(heads * (asks[b + 1] - asks[b])) * (double)(begin[b + 1] - begin[b]);
    double first = total / (double)threads * (double)tid;
    double last = tid + 1 == threads ? 2 * total : total / (double)threads * (double)(tid + 1);
    for (size_t u = 0; u < texts * heads; u++) {
        size_t text = u / heads, m = asks[text + 1] - asks[text];
        int    loaded = 0;
        for (size_t i = 0; i < m; i += DP__QUERIES) {
            size_t rows = m - i < DP__QUERIES ? m - i : DP__QUERIES;
            if (i == 0 || a->dmixed.p == NULL) here = at;
            at += (double)rows * (double)(begin[text + 1] - begin[text]);
            if (here < first || here >= last) continue;
            if (!loaded) dp__head_load(&h, a, text, u % heads);
            loaded = 1;
            if (a->dmixed.p == NULL) dp__head_forward_block(&h, a, i, rows);
#ifndef DP_NO_TRAIN
            else dp__head_block_backward(&h, a, i, rows);
#endif
        }
    }
}

/* The rows behind the keys and values of a layer: all, in the last layer those of [CLS]. */
static const dp__tokens *dp__layer_rows(const dp__pass *s, int32_t layer) {
    int last = layer + 1 == s->net->config->layers;
    return last && !s->work->all_tokens ? &s->work->first : &s->work->all;
}

#define DP__LOAD_QUERIES 16 /* packing the keys and values of a text costs as many (measured) */

/* Forward: mixed from qkv of the layer. With dmixed.p backward: work->dqkv from dmixed. */
static void dp__attention_run(const dp__pass *s, int32_t layer, dp__mat dmixed) {
    dp__attention a = {s, &s->work->kept[layer], dp__layer_rows(s, layer),
                       dp__layer_site(layer, DP__SITE_ATTENTION), dmixed};
    double queries = (double)(a.rows->m + DP__LOAD_QUERIES * s->batch->texts);
    if (queries * (double)s->work->longest * (double)dp__width(s) < DP__MM_ALONE)
        dp__attention_task(&a, 0, 1);
    else dp__exec_run(s->exec, dp__attention_task, &a);
    s->work->coded = s->work->form == DP__B_BF16;
}

/* ============================================================================================
 * [F3] BERT forward                                                           budget 340 lines
 * Owns:   working memory of passes; the network as a list of calls.   Needs: F1, F2.
 * Never:  allocates while it computes; computes a padding token.
 * Tests:  tests/test_network.c: network_*
 * ============================================================================================ */

static dp__mat dp__carve_mat(dp__carving *c, size_t rows, size_t columns) {
    dp__mat x = {NULL, dp__stride(columns)};
    size_t  size;
    if (!dp__mul_size(rows, x.ld, &size)) c->too_big = 1;
    else x.p = dp__carve_reals(c, size);
    return x;
}

static dp__stats dp__carve_stats(dp__carving *c, size_t m) {
    dp__stats x;
    x.mean = dp__carve_reals(c, m);
    x.rstd = dp__carve_reals(c, m);
    return x;
}

static void dp__carve_rows(dp__carving *c, dp__tokens *r, size_t m, size_t texts) {
    r->begin = (size_t *)dp__carve(c, texts + 1, sizeof *r->begin);
    r->at = (int32_t *)dp__carve(c, m, sizeof *r->at);
    r->doc = (uint32_t *)dp__carve(c, m, sizeof *r->doc);
    r->cuts = (size_t *)dp__carve(c, texts / 8 + m / DP__CHAIN + 2, sizeof *r->cuts);
}

/* Evaluation: four matrices for all layers. Each name is dead before its memory is written under
 * another: x (and asking) until sum1, qkv until mixed, mixed until sum1, middle until sum2. */
static void dp__carve_shared(dp__work *w, dp__carving *c, const dp__config *config) {
    size_t   n = w->tokens, width = (size_t)config->hidden, inner = (size_t)config->inner;
    dp__kept k;
    memset(&k, 0, sizeof k);
    k.x = dp__carve_mat(c, n, width);
    k.middle = dp__carve_mat(c, n, width);
    k.mixed = dp__carve_mat(c, n, width);
    k.qkv = dp__carve_mat(c, n, inner > 3 * width ? inner : 3 * width);
    w->embed = k.x;
    memset(&w->embed_stats, 0, sizeof w->embed_stats); /* none are kept */
    w->act = k.qkv;
    w->act.ld = dp__stride(inner);
    k.qkv.ld = dp__stride(3 * width);
    k.sum1 = k.middle;
    k.sum2 = k.y = k.x;
    for (int32_t l = 0; l < config->layers && w->kept != NULL; l++) w->kept[l] = k;
}

/* Training: what each layer must keep, 8 C + F numbers a token. The output of the activation is
 * not kept: computing it again costs less than writing and reading it. */
static dp__kept dp__carve_layer(const dp__work *w, dp__carving *c, const dp__config *config,
                                dp__mat x, size_t m) {
    size_t   width = (size_t)config->hidden;
    dp__kept k;
    k.x = k.asking = x;
    k.qkv = dp__carve_mat(c, w->tokens, 3 * width);
    k.mixed = dp__carve_mat(c, m, width);
    k.sum1 = dp__carve_mat(c, m, width);
    k.middle = dp__carve_mat(c, m, width);
    k.pre = dp__carve_mat(c, m, (size_t)config->inner);
    k.sum2 = dp__carve_mat(c, m, width);
    k.y = dp__carve_mat(c, m, width);
    k.stats1 = dp__carve_stats(c, m);
    k.stats2 = dp__carve_stats(c, m);
    return k;
}

static void dp__carve_training(dp__work *w, dp__carving *c, const dp__config *config) {
    size_t  n = w->tokens, width = (size_t)config->hidden;
    dp__mat x = dp__carve_mat(c, n, width);
    w->embed = dp__carve_mat(c, n, width);
    w->embed_stats = dp__carve_stats(c, n);
    w->act = dp__carve_mat(c, n, (size_t)config->inner);
    w->d0 = dp__carve_mat(c, n, width);
    w->d1 = dp__carve_mat(c, n, width);
    w->d2 = dp__carve_mat(c, n, width);
    w->dqkv = dp__carve_mat(c, n, 3 * width);
    w->dpre = dp__carve_mat(c, n, (size_t)config->inner);
    for (int32_t l = 0; l < config->layers; l++) {
        int      all = l + 1 < config->layers || w->all_tokens;
        dp__kept k = dp__carve_layer(w, c, config, x, all ? n : w->texts);
        if (w->kept != NULL) w->kept[l] = k;
        x = k.y;
    }
}

/* INT8 or BF16 where the Linears around it are. Odd heads would share pairs of bfloat16; the sum
 * over more keys than DP__INT8_MAX_K could leave 32 bits. */
static int32_t dp__attention_form(const dp__work *w, const dp__net *net) {
    const dp__config *config = net->config;
    int               form = net->at[dp__layer_tensor(0, DP__Q_W)].form;
    int               even = config->hidden / config->heads % 2 == 0;
    if (w->train || w->attention32) return DP__B_PACKED;
    if (form == DP__B_INT8 && config->positions > (int32_t)DP__INT8_MAX_K) return DP__B_PACKED;
    if (form == DP__B_BF16 && (net->int8_linears > 0 || !even)) return DP__B_PACKED;
    return form == DP__B_INT8 || form == DP__B_BF16 ? form : DP__B_PACKED;
}

/* One walk over everything that w holds, for its capacity. */
static void dp__carve_work(dp__work *w, dp__carving *c, const dp__exec *exec, const dp__net *net) {
    const dp__config *config = net->config;
    size_t      width = (size_t)config->hidden, inner = (size_t)config->inner, logits = 0;
    dp__carving each = {NULL, 0, 0};
    w->kept = (dp__kept *)dp__carve(c, (size_t)config->layers, sizeof *w->kept);
    dp__carve_rows(c, &w->all, w->tokens, w->texts);
    dp__carve_rows(c, &w->first, w->texts, w->texts);
    w->asking = dp__carve_mat(c, w->texts, width);
    w->cls = dp__carve_mat(c, w->texts, width);
    w->pool_pre = dp__carve_mat(c, w->texts, width);
    w->pooled = dp__carve_mat(c, w->texts, width);
    w->head = dp__carve_mat(c, w->texts, width);
    if (!dp__mul_size(w->texts, (size_t)config->classes, &logits)) c->too_big = 1;
    w->logits = dp__carve_reals(c, logits);
    w->dlogits = dp__carve_reals(c, logits);
    w->loss = dp__carve_reals(c, w->texts);
    if (net->int8_linears + net->bf16_linears > 0) {
        size_t item = net->bf16_linears == 0 ? 1 : 4 / exec->row->b16.group;
        w->ldq8 = dp__stride8((width > inner ? width : inner) * item);
        w->q8 = (uint8_t *)dp__carve(c, w->tokens, w->ldq8);
        w->q8_scale = dp__carve_reals(c, w->tokens);
    }
    w->form = dp__attention_form(w, net);
    dp__head head = dp__head_of(w, exec, net);
    dp__head_carve(&head, &each, w->longest, w->train);
    w->scratch_each = each.at;
    w->scratch = (char *)dp__carve(c, (size_t)exec->threads, each.at);
    if (w->train) dp__carve_training(w, c, config);
    else dp__carve_shared(w, c, config);
}

static void dp__work_init(dp__work *w, const dp_alloc *alloc, uint64_t limit) {
    memset(w, 0, sizeof *w);
    w->alloc = *alloc;
    w->limit = limit;
}

/* What went through a pass came from a document: it is wiped. */
static void dp__work_close(dp__work *w) {
    if (w->memory != NULL) dp__wipe(w->memory, w->bytes);
    dp__free(&w->alloc, w->memory, w->bytes, 1);
    w->memory = NULL;
    w->bytes = w->tokens = w->texts = w->longest = 0;
}

/* Bytes of a w with its room; SIZE_MAX: more than there can be. */
static void dp__work_measure(dp__work *w, const dp__exec *exec, const dp__net *net) {
    dp__carving c = {NULL, 0, 0};
    w->bytes = SIZE_MAX;
    if (w->tokens > SIZE_MAX / 256) return; /* room for the rounding in strides */
    dp__carve_work(w, &c, exec, net);
    if (!c.too_big) w->bytes = c.at;
}

/* Room for batches of so many tokens, texts and tokens of one text; train: also for backward
 * passes. Nothing is allocated if there is room already; what fitted before still does, unless
 * both together are over the limit. On failure w stays as it was or, without memory, is empty. */
static dp_status dp__work_reserve(dp__work *w, const dp__exec *exec, const dp__net *net,
                                  size_t tokens, size_t texts, size_t longest, int train,
                                  dp_error *err) {
    dp__work next = *w;
    size_t   limit = w->limit > 0 && w->limit < SIZE_MAX ? (size_t)w->limit : SIZE_MAX - 1;
    int      again = w->memory != NULL && train == w->train;
    if (again && tokens <= w->tokens && texts <= w->texts && longest <= w->longest) return DP_OK;
    next.train = train;
    next.tokens = again && tokens < w->tokens ? w->tokens : tokens;
    next.texts = again && texts < w->texts ? w->texts : texts;
    next.longest = again && longest < w->longest ? w->longest : longest;
    dp__work_measure(&next, exec, net);
    if (next.bytes > limit) {
        next.tokens = tokens;
        next.texts = texts;
        next.longest = longest;
        dp__work_measure(&next, exec, net);
    }
    if (next.bytes == SIZE_MAX) return dp__no_memory(err);
    if (next.bytes > limit)
        return dp__fail(err, DP_E_LIMIT, "the batch needs more working memory than allowed");
    dp__work_close(w);
    *w = next;
    w->memory = dp__alloc(&w->alloc, w->bytes, 1);
    if (w->memory == NULL) {
        dp__work_close(w);
        return dp__no_memory(err);
    }
    dp__carving c = {(char *)w->memory, 0, 0};
    dp__carve_work(w, &c, exec, net);
    return DP_OK;
}

/* Sums over rows begin anew after every 8 texts of the optimizer step, so that micro-batches of
 * 8 n texts add up to the bits of one large batch, and after 1,024 rows within them. */
static void dp__rows_cut(dp__tokens *r, const dp__batch *batch) {
    size_t last = 0;
    r->cut_count = 0;
    for (size_t b = 0; b <= batch->texts; b++) {
        if (b < batch->texts && (batch->first + b) % 8 != 0) continue;
        while (r->begin[b] - last > DP__CHAIN) r->cuts[r->cut_count++] = last += DP__CHAIN;
        last = r->begin[b];
        if (last > 0 && last < r->m) r->cuts[r->cut_count++] = last;
    }
}

static void dp__rows_set(dp__tokens *r, const dp__batch *batch, int every_token) {
    for (size_t b = 0; b < batch->texts; b++) {
        size_t n = every_token ? batch->begin[b + 1] - batch->begin[b] : 1;
        r->begin[b] = every_token ? batch->begin[b] : b;
        for (size_t i = 0; i < n; i++) {
            r->at[r->begin[b] + i] = (int32_t)i;
            r->doc[r->begin[b] + i] = batch->docs != NULL ? batch->docs[b] : (uint32_t)b;
        }
    }
    r->m = r->begin[batch->texts] = every_token ? batch->begin[batch->texts] : batch->texts;
    dp__rows_cut(r, batch);
}

/* Makes room for a pass and sets it up. drop NULL: no dropout; grad as in dp__pass. */
static dp_status dp__pass_begin(dp__pass *s, const dp__exec *exec, const dp__net *net,
                                const dp__batch *batch, dp__work *work, const dp__dropping *drop,
                                dp_real *grad, dp_error *err) {
    size_t longest = 0;
    for (size_t b = 0; b < batch->texts; b++) {
        size_t t = batch->begin[b + 1] - batch->begin[b];
        if (t > longest) longest = t;
    }
    memset(s, 0, sizeof *s);
    s->exec = exec;
    s->net = net;
    s->batch = batch;
    s->work = work;
    if (drop != NULL) s->drop = *drop;
    s->grad = grad;
    dp_status status = dp__work_reserve(work, exec, net, batch->begin[batch->texts],
                                        batch->texts, longest, grad != NULL, err);
    if (status != DP_OK) return status;
    dp__rows_set(&work->all, batch, 1);
    dp__rows_set(&work->first, batch, 0);
    return DP_OK;
}

/* The rows [B, C] of x [N, C] that hold [CLS], copied to spare. */
static dp__mat dp__take_first(const dp__pass *s, dp__mat spare, dp__mat x) {
    for (size_t b = 0; b < s->batch->texts; b++)
        memcpy(spare.p + b * spare.ld, x.p + s->batch->begin[b] * x.ld, dp__width(s) * sizeof *x.p);
    return spare;
}

/* q, k, v = x W^T + b. In the last layer only the rows of [CLS] have a query. */
static void dp__queries_forward(const dp__pass *s, int32_t layer, const dp__tokens *rows) {
    size_t    q = dp__layer_tensor(layer, DP__Q_W);
    dp__work *w = s->work;
    dp__kept *k = &w->kept[layer];
    k->asking = rows == &w->first ? dp__take_first(s, w->asking, k->x) : k->x;
    if (layer + 1 < s->net->config->layers) {
        dp__linear_forward(s, q, w->all.m, k->qkv, k->x);
        return;
    }
    dp__linear_forward(s, q + 1, w->all.m, dp__from_column(k->qkv, dp__width(s)), k->x);
    dp__linear_forward(s, q, rows->m, k->qkv, k->asking);
}

/* The activation of a layer, which may be less exact where INT8 codes are made of its result. */
static int dp__layer_act(const dp__pass *s, int32_t layer) {
    int act = s->net->config->act;
    int coded = dp__layer_weight(s, layer, DP__DOWN_W)->form == DP__B_INT8;
    return act == DP__GELU && coded ? DP__GELU8 : act;
}

/* One encoder layer:
 *   middle = LayerNorm(x + dropout(mix(attention(x)))),
 *   y = LayerNorm(middle + dropout(down(act(up(middle))))). */
static void dp__layer_forward(const dp__pass *s, int32_t layer) {
    const dp__tokens *rows = dp__layer_rows(s, layer);
    const dp__kept   *k = &s->work->kept[layer];
    size_t            t = dp__layer_tensor(layer, 0);
    dp__mat           act = s->work->act;
    dp__queries_forward(s, layer, rows);
    dp__attention_run(s, layer, dp__no_mat);
    dp__linear_residual(s, t + DP__MIX_W, rows, k->sum1, k->mixed, k->asking,
                        dp__layer_site(layer, DP__SITE_MIX));
    dp__norm_forward(s, t + DP__NORM1_GAIN, rows->m, k->middle, k->stats1, k->sum1,
                     dp__layer_weight(s, layer, DP__UP_W));
    dp__linear_run(s, t + DP__UP_W, rows->m, act, k->middle, 1 + dp__layer_act(s, layer), k->pre,
                   dp__no_mat);
    dp__linear_residual(s, t + DP__DOWN_W, rows, k->sum2, act, k->middle,
                        dp__layer_site(layer, DP__SITE_DOWN));
    dp__norm_forward(s, t + DP__NORM2_GAIN, rows->m, k->y, k->stats2, k->sum2,
                     dp__layer_weight(s, layer + 1, DP__Q_W));
}

/* [B, C] what the last layer gives for [CLS]. */
static dp__mat dp__last_cls(const dp__pass *s) {
    dp__mat y = s->work->kept[s->net->config->layers - 1].y;
    return s->work->all_tokens ? dp__take_first(s, s->work->cls, y) : y;
}

/* pooled = tanh(pooler([CLS])), logits = classifier(dropout(pooled)). */
static void dp__head_forward(const dp__pass *s) {
    const dp__params *p = s->net->params;
    dp__work         *w = s->work;
    size_t            m = s->batch->texts;
    dp__mat           logits = {w->logits, (size_t)s->net->config->classes};
    dp__linear_run(s, dp__tail_tensor(p, DP__POOL_W), m, w->pooled, dp__last_cls(s), 1 + DP__TANH,
                   w->pool_pre, dp__no_mat);
    dp__mat head = dp__drop_rows(s, &w->first, s->drop.classifier, DP__SITE_POOLED, w->head,
                                 w->pooled, dp__no_mat);
    dp__linear_forward(s, dp__tail_tensor(p, DP__CLASS_W), m, logits, head);
}

/* The network: work->logits [B, K] and work->pooled [B, C] from the batch. */
static void dp__forward(const dp__pass *s) {
    dp__embed_forward(s, s->work->kept[0].x);
    for (int32_t layer = 0; layer < s->net->config->layers; layer++) dp__layer_forward(s, layer);
    dp__head_forward(s);
}

/* This batch's part of the step's mean loss, in text order; dlogits is its gradient. labels [B]
 * for a single label, else targets [B, K]. Means: cross-entropy over texts; binary
 * cross-entropy and squared error over texts and classes (BertForSequenceClassification). */
static double dp__pass_loss(const dp__pass *s, const int32_t *labels, const dp_real *targets) {
    const dp__config *c = s->net->config;
    dp__work         *w = s->work;
    size_t            k = (size_t)c->classes, m = s->batch->texts;
    double            sum = 0, parts = (double)s->batch->step_texts;
    dp__mat           logits = {w->logits, k}, dlogits = {w->dlogits, k};
    int op = c->problem == DP_SINGLE_LABEL ? DP__VEC_CROSS_ENTROPY
             : c->problem == DP_MULTI_LABEL ? DP__VEC_BCE : DP__VEC_SQUARES;
    if (c->problem != DP_SINGLE_LABEL) parts *= (double)k;
    dp__vec v = dp__vec_of(op, dlogits, logits, dp__no_mat, m, k);
    v.s = w->loss;
    v.ids = labels;
    v.z = targets;
    v.ldz = k;
    v.p[0] = (dp_real)(1 / parts);
    dp__vec_run(s->exec, &v);
    for (size_t b = 0; b < m; b++) sum += (double)w->loss[b];
    return sum / parts;
}

/* ============================================================================================
 * [F4] BERT backward                                                           budget 90 lines
 * Owns:   the mirror of [F3], call for call from the last to the first.   Needs: F1, F2, F3.
 * Never:  adds up over threads; writes outside the gradient buffer and the working memory.
 * Tests:  tests/test_network.c: network_*; tests/test_double.c
 * ============================================================================================ */

#ifndef DP_NO_TRAIN
/* Differentiates logits = classifier(dropout(tanh(pooler([CLS])))): dcls [B, C]. */
static void dp__head_backward(const dp__pass *s, dp__mat dcls) {
    dp__work         *w = s->work;
    size_t            m = s->batch->texts, pool = dp__tail_tensor(s->net->params, DP__POOL_W);
    size_t            classifier = dp__tail_tensor(s->net->params, DP__CLASS_W);
    dp__mat           dlogits = {w->dlogits, (size_t)s->net->config->classes}, d = w->d1;
    dp__linear_weight_grad(s, classifier, &w->first, dlogits,
                           s->drop.classifier > 0 ? w->head : w->pooled);
    dp__linear_input_grad(s, classifier, m, d, dlogits, dp__no_mat);
    dp__drop_rows(s, &w->first, s->drop.classifier, DP__SITE_POOLED, d, d, dp__no_mat);
    dp__vec_plain(s->exec, DP__VEC_ACT_GRAD + (int)DP__TANH, d, d, w->pool_pre, m, dp__width(s));
    dp__linear_weight_grad(s, pool, &w->first, d, dp__last_cls(s));
    dp__linear_input_grad(s, pool, m, dcls, d, dp__no_mat);
}

/* Adds from [B, C] to the rows of [CLS] of to [N, C]. */
static void dp__give_first(const dp__pass *s, dp__mat to, dp__mat from) {
    for (size_t b = 0; b < s->batch->texts; b++) {
        dp_real *row = to.p + s->batch->begin[b] * to.ld;
        for (size_t j = 0; j < dp__width(s); j++) row[j] += from.p[b * from.ld + j];
    }
}

/* Differentiates q, k, v = x W^T + b: dx [N, C] from dqkv, and dsum1 [M, C] of the residual. */
static void dp__queries_backward(const dp__pass *s, int32_t layer, const dp__tokens *rows,
                                 dp__mat dx, dp__mat dsum1, dp__mat spare) {
    size_t          q = dp__layer_tensor(layer, DP__Q_W), kv = q + 1;
    dp__work       *w = s->work;
    const dp__kept *k = &w->kept[layer];
    dp__mat         dkv = dp__from_column(w->dqkv, dp__width(s));
    if (layer + 1 < s->net->config->layers) {
        dp__linear_weight_grad(s, q, rows, w->dqkv, k->x);
        dp__linear_input_grad(s, q, rows->m, dx, w->dqkv, dsum1);
        return;
    }
    dp__linear_weight_grad(s, q, rows, w->dqkv, k->asking);
    dp__linear_weight_grad(s, kv, &w->all, dkv, k->x);
    dp__linear_input_grad(s, q, rows->m, spare, w->dqkv, dsum1);
    dp__linear_input_grad(s, kv, w->all.m, dx, dkv, rows == &w->all ? spare : dp__no_mat);
    if (rows == &w->first) dp__give_first(s, dx, spare);
}

/* The mirror of dp__layer_forward; d0 holds dy [M, C] and gets dx [N, C]. */
static void dp__layer_backward(const dp__pass *s, int32_t layer) {
    const dp__tokens *rows = dp__layer_rows(s, layer);
    const dp__work   *w = s->work;
    const dp__kept   *k = &w->kept[layer];
    size_t            t = dp__layer_tensor(layer, 0), inner = (size_t)s->net->config->inner;
    int               act = (int)s->net->config->act;
    /* y = LayerNorm(sum2), sum2 = middle + dropout(down(act)) */
    dp__norm_backward(s, t + DP__NORM2_GAIN, rows, w->d1, w->d0, k->sum2, k->stats2);
    dp__vec_plain(s->exec, DP__VEC_ACT + act, w->act, k->pre, dp__no_mat, rows->m, inner);
    dp__linear_residual_backward(s, t + DP__DOWN_W, rows, w->dpre, w->d1, w->d2, w->act,
                                 dp__layer_site(layer, DP__SITE_DOWN));
    /* act = act(pre), pre = up(middle) */
    dp__vec_plain(s->exec, DP__VEC_ACT_GRAD + act, w->dpre, w->dpre, k->pre, rows->m, inner);
    dp__linear_weight_grad(s, t + DP__UP_W, rows, w->dpre, k->middle);
    dp__linear_input_grad(s, t + DP__UP_W, rows->m, w->d0, w->dpre, w->d1);
    /* middle = LayerNorm(sum1), sum1 = asking + dropout(mix(mixed)) */
    dp__norm_backward(s, t + DP__NORM1_GAIN, rows, w->d1, w->d0, k->sum1, k->stats1);
    dp__linear_residual_backward(s, t + DP__MIX_W, rows, w->d0, w->d1, w->d2, k->mixed,
                                 dp__layer_site(layer, DP__SITE_MIX));
    /* mixed = attention(qkv), qkv = x W^T + b */
    dp__attention_run(s, layer, w->d0);
    dp__queries_backward(s, layer, rows, w->d0, w->d1, w->d2);
}

/* Adds the gradient of the loss by every parameter to s->grad, after dp__forward and
 * dp__pass_loss of the same pass. */
static void dp__backward(const dp__pass *s) {
    dp__work *w = s->work;
    dp__head_backward(s, w->all_tokens ? w->d2 : w->d0);
    if (w->all_tokens) {
        memset(w->d0.p, 0, w->all.m * w->d0.ld * sizeof *w->d0.p);
        dp__give_first(s, w->d0, w->d2);
    }
    for (int32_t layer = s->net->config->layers - 1; layer >= 0; layer--)
        dp__layer_backward(s, layer);
    dp__embed_backward(s, w->d0);
}
#endif

/* ============================================================================================
 * [G] Learning and measuring                                                 budget 1380 lines
 * ============================================================================================ */

/* ============================================================================================
 * [G1] Adam                                                                   budget 120 lines
 * Owns:   one optimizer step over flat arrays, clipping, learning rates.   Needs: F2.
 * Never:  writes a weight before the gradient and both moments are known to be finite.
 * Tests:  tests/test_learn.c: adam_*, clip_*, rate_*
 * ============================================================================================ */

#ifndef DP_NO_TRAIN

/* Learning rate of step (from 0) of all steps, as in transformers'
 * get_constant_schedule_with_warmup and get_linear_schedule_with_warmup: warm-up climbs
 * linearly from 0, linear decay ends at 0. steps 0: unknown, so no decay. */
static double dp__rate(const dp_train_options *o, uint64_t step, uint64_t steps) {
    double at = (double)step, all = (double)steps;
    double warm = o->warmup < 1 ? -floor(-o->warmup * all) : floor(o->warmup);
    if (at < warm) return o->lr * (at / warm);
    if (o->schedule == DP_CONSTANT || steps == 0) return o->lr;
    double left = at < all ? all - at : 0, span = all - warm > 1 ? all - warm : 1;
    return o->lr * (left / span);
}

/* What a gradient of this norm is multiplied by (torch.nn.utils.clip_grad_norm_): its norm is
 * then below limit, its direction the same. limit < 0: it stays. */
static double dp__clip(double norm, double limit) {
    double share = limit / (norm + 1e-6);
    return limit < 0 || share > 1 ? 1 : share;
}

/* The arrays of an optimizer over n parameters: weights, gradient, first and second moment. */
typedef struct dp__optim {
    size_t   n;
    dp_real *w, *g, *m, *v; /* [n] each */
    double  *sums;          /* [(n + 4095) / 4096] */
} dp__optim;

/* base^n by squaring: a function of n alone, so no running product has to be saved. */
static double dp__power(double base, uint64_t n) {
    double result = 1;
    for (; n > 0; n /= 2, base *= base)
        if (n & 1) result *= base;
    return result;
}

/* Step number t (from 1) with the learning rate rate and share of the gradient, for DP__VEC_ADAM
 * of [E4]; corrections in double, as PyTorch computes them. eps is borrowed. */
static dp__vec dp__optim_vec(const dp__optim *a, const dp_train_options *o, double rate,
                             uint64_t t, double share, const dp_real *eps) {
    int     decoupled = o->optimizer == DP_ADAMW;
    dp__vec v = dp__vec_flat(DP__VEC_ADAM, a->w, a->g, a->n);
    v.s = a->m;
    v.t = a->v;
    v.b = eps;
    v.p[0] = (dp_real)share;
    v.p[1] = decoupled ? 0 : (dp_real)o->weight_decay;
    v.p[2] = decoupled ? (dp_real)(1 - rate * o->weight_decay) : 1;
    v.p[3] = (dp_real)(1 - o->beta1);
    v.p[4] = (dp_real)o->beta2;
    v.p[5] = (dp_real)(1 - o->beta2);
    v.p[6] = (dp_real)(rate / (1 - dp__power(o->beta1, t)));
    v.p[7] = (dp_real)sqrt(1 - dp__power(o->beta2, t));
    return v;
}

typedef struct dp__optim_job {
    const dp__exec  *x;
    const dp__optim *a;
    dp__vec          adam, check;
} dp__optim_job;

/* Block by block: the new weights are checked and the gradient becomes 0 while both are in the
 * first cache. */
static void dp__optim_task(void *arg, int32_t tid, int32_t threads) {
    dp__optim_job *job = (dp__optim_job *)arg;
    size_t         n = job->a->n, begin, end;
    dp__share((n + DP__FLAT - 1) / DP__FLAT, 1, tid, threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        size_t at = i * DP__FLAT, count = n - at < DP__FLAT ? n - at : DP__FLAT;
        job->x->row->vec(&job->adam, i, i + 1);
        job->x->row->vec(&job->check, i, i + 1);
        memset(job->a->g + at, 0, count * sizeof(dp_real));
    }
}

typedef enum dp__step_result { DP__STEP_DONE, DP__STEP_SKIPPED, DP__STEP_LOST } dp__step_result;

/* Step number t (from 1) with the learning rate rate; the gradient is 0 afterwards. norm: of the
 * gradient before clipping. Skipped: gradient or moments are not finite, nothing was written.
 * Lost: a new weight is not finite. With rate and rate * decay <= 1, eps >= 1e-12, beta1 <= 0.9999
 * (checked by the trainer) that needs a weight that was not finite before: squares of the
 * gradient being finite, |m| < 2e19, so a step is below 2e19 / 1e-12 / 1e-4 < FLT_MAX / 1000. */
static dp__step_result dp__optim_step(const dp__exec *x, const dp__optim *a,
                                      const dp_train_options *o, double rate, uint64_t t,
                                      double *norm) {
    dp_real       eps = (dp_real)o->eps;
    int32_t       flag = 0;
    dp__optim_job job;
    *norm = sqrt(dp__squared_norm(x, a->g, a->n, a->sums));
    if (!(*norm - *norm == 0) || !dp__all_finite(x, a->m, a->n) || !dp__all_finite(x, a->v, a->n))
        return DP__STEP_SKIPPED;
    job.x = x;
    job.a = a;
    job.adam = dp__optim_vec(a, o, rate, t, dp__clip(*norm, o->grad_norm), &eps);
    job.check = dp__vec_flat(DP__VEC_FINITE, NULL, a->w, a->n);
    job.check.flag = &flag;
    dp__exec_run(x, dp__optim_task, &job);
    return flag == 0 ? DP__STEP_DONE : DP__STEP_LOST;
}

#endif

/* ============================================================================================
 * [G2] Metrics                                                                budget 230 lines
 * Owns:   what a row of logits is worth: right or wrong, loss, calibration.     Needs: C5, E2.
 * Never:  counts a number that is not finite: such a row is refused, not averaged in.
 * Tests:  tests/test_learn.c: metrics_*
 * ============================================================================================ */

/* "before 12 after why", cut off at line [160]. */
static const char *dp__numbered(char *line, const char *before, uint64_t number,
                                const char *after, const char *why) {
    dp__text t = {line, 160, 0};
    dp__text_add(&t, before);
    dp__text_u64(&t, number);
    dp__text_add(&t, after);
    dp__text_add(&t, why);
    return line;
}

#define DP__BINS 15 /* of confidence, for the expected calibration error */

/* What is counted of one class; the last three for regression, where y are its targets. */
typedef struct dp__tally {
    uint64_t label, guess, both; /* rows that have it, that were given it, both */
    double   mean, spread;       /* of y; spread = sum (y - mean)^2, Welford's way */
    double   error;              /* sum (prediction - y)^2 */
} dp__tally;

typedef struct dp__meter {
    dp_problem problem;
    size_t     classes;
    uint64_t   rows, right;
    double     loss;      /* sum over rows of their mean over outputs */
    dp__tally *tally;     /* [K] */
    uint64_t  *confusion; /* [K, K] row = label, column = prediction; or NULL */
    uint64_t   bin_rows[DP__BINS], bin_right[DP__BINS];
    double     bin_sum[DP__BINS]; /* of confidences */
} dp__meter;

static void dp__meter_init(dp__meter *m, dp_problem problem, size_t classes, dp__tally *tally,
                           uint64_t *confusion) {
    memset(m, 0, sizeof *m);
    memset(tally, 0, classes * sizeof *tally);
    if (confusion != NULL) memset(confusion, 0, classes * classes * sizeof *confusion);
    m->problem = problem;
    m->classes = classes;
    m->tally = tally;
    m->confusion = confusion;
}

/* One decision with its confidence; bin b holds confidences in (b / 15, (b + 1) / 15]. */
static void dp__meter_bin(dp__meter *m, double confidence, int right) {
    double  place = -floor(-confidence * DP__BINS) - 1;
    int32_t b = place < 0 ? 0 : place > DP__BINS - 1 ? DP__BINS - 1 : (int32_t)place;
    m->bin_rows[b]++;
    m->bin_right[b] += right ? 1 : 0;
    m->bin_sum[b] += confidence;
}

/* Class with the largest logit; the first of equals. */
static size_t dp__best(const dp_real *logits, size_t classes) {
    size_t best = 0;
    for (size_t i = 1; i < classes; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Softmax of z: -log p[label] = log(sum exp(z - z[best])) + z[best] - z[label], and
 * p[best] = 1 / sum exp(z - z[best]). */
static int dp__meter_single(dp__meter *m, const dp_real *z, int32_t label) {
    size_t best = dp__best(z, m->classes), want = (size_t)label;
    double sum = 0;
    for (size_t i = 0; i < m->classes; i++) sum += (double)dp__exp(z[i] - z[best]);
    m->loss += (double)dp__log((dp_real)sum) + ((double)z[best] - (double)z[want]);
    m->tally[want].label++;
    m->tally[best].guess++;
    m->tally[best].both += best == want;
    if (m->confusion != NULL) m->confusion[want * m->classes + best]++;
    dp__meter_bin(m, 1 / sum, best == want);
    return best == want;
}

/* Sigmoid of each z, target y in [0, 1]: -y log p - (1 - y) log(1 - p)
 * = max(z, 0) - z y + log(1 + exp(-|z|)). A class is given at p > 1/2. */
static int dp__meter_multi(dp__meter *m, const dp_real *z, const float *target) {
    double loss = 0;
    int    right = 1;
    for (size_t i = 0; i < m->classes; i++) {
        double x = (double)z[i], y = (double)target[i];
        double e = (double)dp__exp((dp_real)-fabs(x));
        int    guess = x > 0, label = y > 0.5;
        loss += (x > 0 ? x : 0) - x * y + (double)dp__log((dp_real)(1 + e));
        m->tally[i].label += (uint64_t)label;
        m->tally[i].guess += (uint64_t)guess;
        m->tally[i].both += (uint64_t)(label && guess);
        dp__meter_bin(m, 1 / (1 + e), guess == label);
        right = right && guess == label;
    }
    m->loss += loss / (double)m->classes;
    return right;
}

static int dp__meter_regression(dp__meter *m, const dp_real *z, const float *target) {
    double loss = 0;
    for (size_t i = 0; i < m->classes; i++) {
        dp__tally *t = &m->tally[i];
        double y = (double)target[i], miss = (double)z[i] - y, step = y - t->mean;
        t->mean += step / (double)(m->rows + 1);
        t->spread += step * (y - t->mean);
        t->error += miss * miss;
        loss += miss * miss;
    }
    m->loss += loss / (double)m->classes;
    return 0;
}

/* Adds the logits [K] of a row of a dataset. 0 when a logit is not finite: the row is then not
 * counted (comparisons with NaN would pass it off as class 0). */
static int dp__meter_add(dp__meter *m, const dp_real *logits, const dp_dataset *data, size_t row) {
    const float *target = data->targets != NULL ? data->targets + row * m->classes : NULL;
    int          right;
    for (size_t i = 0; i < m->classes; i++)
        if (!((double)(logits[i] - logits[i]) == 0)) return 0;
    if (m->problem == DP_SINGLE_LABEL) right = dp__meter_single(m, logits, data->labels[row]);
    else if (m->problem == DP_MULTI_LABEL) right = dp__meter_multi(m, logits, target);
    else right = dp__meter_regression(m, logits, target);
    m->right += right ? 1 : 0;
    m->rows++;
    return 1;
}

/* Mean over the outputs of 1 - error / spread; a constant target counts 1 if met, else 0. */
static double dp__meter_r2(const dp__meter *m) {
    double sum = 0;
    for (size_t i = 0; i < m->classes; i++) {
        const dp__tally *t = &m->tally[i];
        sum += t->spread > 0 ? 1 - t->error / t->spread : t->error > 0 ? 0 : 1;
    }
    return sum / (double)m->classes;
}

/* F1 of a class = 2 both / (label + guess); mean over the classes that occur in either. */
static double dp__meter_f1(const dp__meter *m) {
    double   sum = 0;
    uint64_t seen = 0;
    for (size_t i = 0; i < m->classes; i++) {
        const dp__tally *t = &m->tally[i];
        if (t->label + t->guess == 0) continue;
        sum += 2 * (double)t->both / (double)(t->label + t->guess);
        seen++;
    }
    return seen > 0 ? sum / (double)seen : 0;
}

/* Sum over bins of |right - confidence| / decisions ("On Calibration of Modern Neural
 * Networks", 2017, equation 3). */
static double dp__meter_ece(const dp__meter *m) {
    double   sum = 0;
    uint64_t all = 0;
    for (int i = 0; i < DP__BINS; i++) {
        sum += fabs((double)m->bin_right[i] - m->bin_sum[i]);
        all += m->bin_rows[i];
    }
    return all > 0 ? sum / (double)all : 0;
}

/* Fields that a problem does not have, and all of them without rows, are 0. */
static void dp__meter_result(const dp__meter *m, dp_metrics *out) {
    memset(out, 0, sizeof *out);
    out->struct_size = sizeof *out;
    if (m->rows == 0) return;
    out->rows = (size_t)m->rows;
    out->nll = m->loss / (double)m->rows;
    out->macro_f1 = dp__meter_f1(m);
    out->ece = dp__meter_ece(m);
    out->accuracy = m->problem == DP_REGRESSION ? dp__meter_r2(m)
                                                : (double)m->right / (double)m->rows;
}

/* "row 12: why": rows count from 0, and nothing of their text is said. */
static dp_status dp__row_fail(dp_error *err, dp_status code, size_t row, const char *why) {
    char line[160];
    return dp__fail(err, code, dp__numbered(line, "row ", row, ": ", why));
}

/* Why a row cannot be learned from or measured; NULL: it can. */
static const char *dp__row_wrong(const dp_dataset *data, size_t row, const dp__config *c) {
    const dp_text *text = &data->texts[row];
    size_t         classes = (size_t)c->classes;
    if (text->a == NULL && text->a_bytes > 0) return "no text";
    if (text->b != NULL && c->types < 2)
        return "a pair, but the model has one token type";
    if (c->problem == DP_SINGLE_LABEL)
        return data->labels[row] < 0 || (size_t)data->labels[row] >= classes
                   ? "the label is out of range" : NULL;
    for (size_t i = 0; i < classes; i++) {
        float y = data->targets[row * classes + i];
        if (!(y - y == 0)) return "a target is not finite";
        if (c->problem == DP_MULTI_LABEL && (y < 0 || y > 1))
            return "a target is not within 0 and 1";
    }
    return NULL;
}

/* Texts, labels and targets that the loss and the metrics may index and divide by. */
static dp_status dp__dataset_check(const dp_dataset *data, const dp__config *c, dp_error *err) {
    int single = c->problem == DP_SINGLE_LABEL;
    if (data == NULL || data->struct_size != sizeof *data)
        return dp__fail(err, DP_E_ARG, "no dataset, or struct_size is wrong (use DP_CLEAR)");
    if (data->rows == 0) return dp__fail(err, DP_E_ARG, "the dataset has no rows");
    if (data->rows > UINT32_MAX) return dp__fail(err, DP_E_LIMIT, "more than 2^32 - 1 rows");
    if (data->texts == NULL || (single ? data->labels == NULL : data->targets == NULL))
        return dp__fail(err, DP_E_ARG, "the dataset lacks texts, labels or targets");
    for (size_t r = 0; r < data->rows; r++) {
        const dp_text *text = &data->texts[r];
        const char    *why = dp__row_wrong(data, r, c);
        size_t         bytes = text->b != NULL ? text->b_bytes : 0;
        if (why != NULL) return dp__row_fail(err, DP_E_ARG, r, why);
        if (!dp__add_size(bytes, text->a_bytes, &bytes) || bytes > DP_MAX_TEXT_BYTES)
            return dp__row_fail(err, DP_E_LIMIT, r, "longer than DP_MAX_TEXT_BYTES");
    }
    return DP_OK;
}

/* ============================================================================================
 * [G3] Training loop                                                          budget 820 lines
 * Owns:   dp_trainer: weights, gradient, moments, counters; steps, epochs, checkpoints.
 * Needs:  B5, B6, C5, D4, F3, F4, G1, G2.
 * Never:  writes a text or a token to a file; applies a step that is not finite; lets the
 *         number of threads, of micro-batches or of interruptions change a weight.
 * Tests:  tests/test_learn.c: step_*, train_*, resume_*, checkpoint_*
 *
 * A checkpoint (.dpck), all numbers little-endian:
 *   head     64 bytes: magic, version u32, mark u32, sections u32, bytes per number u32,
 *            file bytes u64, parameters u64, numerics tag [24]
 *   table    64 bytes a section: kind u32, index u32, offset u64, bytes u64, 0 u64, SHA-256
 *   sections one behind the other: config.json with labels, vocabulary, options, counters,
 *            then weights, first moments, second moments in pieces of DP__PIECE numbers
 *   tail     48 bytes: file bytes u64, SHA-256 of head and table, end mark [8]
 * A trainer knows the exact head and table that its own file would have but for the digests of
 * counters and numbers, so a file is compared, not parsed, and no size in it is believed.
 * K1 size of the file; K2 magic; K3 version; K4 mark, width and numerics of another build; K5
 * tail; K6 table; K7 another config or labels; K8 another vocabulary; K9 other options; K10
 * digest of a section; K11 counters; K12 a number not finite; K13 other data; K14 fewer epochs.
 * ============================================================================================ */

/* Adds the low bytes of value, lowest first. */
static void dp__sha256_le(dp__sha256 *sha, size_t bytes, uint64_t value) {
    uint8_t word[8];
    dp__store_le(word, bytes, value);
    dp__sha256_add(sha, word, bytes);
}

struct dp_model {
    dp_env               env;
    const dp__row       *row;   /* that sessions compute with */
    dp__arena            arena; /* this structure, configuration, labels, vocabulary, parameters */
    dp__config           config;
    dp__tokenizer_config words;
    dp__tokenizer        tokenizer;
    dp__params           params;
    dp__net              net;   /* without weights: empty */
    size_t               new_tensors, ignored;
};

static void dp__note(const dp_model *model, int32_t level, const char *line) {
    if (model->env.log != NULL) model->env.log(model->env.log_ctx, level, line);
}

#ifndef DP_NO_TRAIN

/* Where a run stands. Words of 8 bytes only: saved as they are. */
typedef struct dp__counters {
    uint64_t epoch;    /* complete ones */
    uint64_t position; /* rows of the present one that were used */
    uint64_t step;     /* steps of the optimizer, skipped ones included */
    uint64_t skipped, in_a_row;
    uint64_t right;    /* rows of the present epoch, and the sum of their losses */
    double   loss;
    uint64_t missed;   /* rows of the present epoch in steps that were not applied */
    uint64_t rows;     /* of the data, 0 when there was none yet */
    uint64_t data[4];  /* their SHA-256 */
} dp__counters;

/* The rows that are computed together, one behind the other. */
typedef struct dp__micro {
    size_t    rows, tokens;  /* there is memory for */
    int32_t  *ids, *types;   /* [tokens] */
    size_t   *begin;         /* [rows + 1] */
    uint32_t *docs;          /* [rows] */
    int32_t  *labels;        /* [rows] */
    dp_real  *targets;       /* [rows, K] */
} dp__micro;

struct dp_trainer {
    dp_model        *model; /* over optim.w; its arena holds this structure and all arrays here */
    dp_train_options opt;   /* complete */
    dp__exec         exec;
    dp__work         work;
    dp__optim        optim; /* w, m, v, g in this order, end to end, as in a checkpoint */
    dp__micro        piece;
    dp__tally       *tally; /* [K] */
    dp__counters     now;
    uint64_t         steps; /* of the whole run; 0: not known */
    int              lost;  /* 1: a weight is not finite; only a checkpoint helps */
};

/* ---- options and memory ------------------------------------------------------------------- */

/* X(field, default, range): in these ranges steps from finite numbers are finite. */
#define DP__TRAIN_LIST(X)                                                                        \
    X(epochs, 3, o->epochs > 0)                                                                  \
    X(batch_rows, 30, o->batch_rows > 0 && o->batch_rows <= 65536)                               \
    X(accumulate, 1, o->accumulate > 0 && o->accumulate <= 65536)                                \
    X(max_tokens, positions < 64 ? positions : 64,                                               \
      o->max_tokens >= 3 && o->max_tokens <= positions)                                          \
    X(lr, 1e-5, o->lr > 0 && o->lr <= 1)                                                         \
    X(weight_decay, 0, o->weight_decay >= 0 && o->weight_decay * o->lr <= 1)                     \
    X(beta1, 0.9, o->beta1 > 0 && o->beta1 <= 0.9999)                                            \
    X(beta2, 0.999, o->beta2 > 0 && o->beta2 < 1)                                                \
    X(eps, 1e-8, o->eps >= 1e-12 && o->eps <= 1)                                                 \
    X(warmup, 0, o->warmup >= 0 && o->warmup <= 1e15)                                            \
    X(grad_norm, 10, o->grad_norm - o->grad_norm == 0)                                           \
    X(dropout, 0, (float)o->dropout < 1)                                                         \
    X(optimizer, DP_ADAM, (unsigned)o->optimizer <= DP_ADAMW)                                    \
    X(schedule, DP_CONSTANT, (unsigned)o->schedule <= DP_LINEAR)                                 \
    X(dtype, DP_F32, (unsigned)o->dtype <= DP_BF16)

/* Options with their defaults, checked. */
static dp_status dp__train_options(dp_train_options *o, const dp_train_options *from,
                                   int32_t positions, dp_error *err) {
    const char *wrong = NULL;
    dp_status   status = dp__options_copy(o, sizeof *o, from, err);
    if (status != DP_OK) return status;
#define DP__TRAIN_CHECK(field, usual, range)                                                     \
    if (o->field == 0) o->field = usual;                                                         \
    if (wrong == NULL && !(range)) wrong = #field;
    DP__TRAIN_LIST(DP__TRAIN_CHECK)
#undef DP__TRAIN_CHECK
    if (wrong == NULL) return DP_OK;
    return dp__fail_at(err, DP_E_ARG, "", NULL, DP_NO_PLACE, "a training option is out of range",
                       wrong);
}

#define DP__STEP_TOKENS 2048u /* computed together, if 8 rows are not more */

/* A trainer of a model and options, the rest 0, with weights from a source. On failure the caller
 * closes it. */
static dp_status dp__trainer_init(dp_trainer *t, const dp__source *weights, dp_error *err) {
    dp_model  *model = t->model;
    dp__optim *a = &t->optim;
    dp__micro *p = &t->piece;
    dp__arena *arena = &model->arena;
    size_t     classes = (size_t)model->config.classes, group = 8 * (size_t)t->opt.max_tokens;
    a->n = model->params.total; /* a multiple of 16: all four arrays are aligned */
    a->w = (dp_real *)dp__arena_get(arena, a->n, 4 * sizeof(dp_real));
    a->sums = (double *)dp__arena_get(arena, a->n / DP__FLAT + 1, sizeof(double));
    p->rows = dp__ceil((size_t)t->opt.batch_rows, 8);
    p->tokens = group > DP__STEP_TOKENS ? group : DP__STEP_TOKENS;
    p->ids = (int32_t *)dp__arena_get(arena, p->tokens, sizeof *p->ids);
    p->types = (int32_t *)dp__arena_get(arena, p->tokens, sizeof *p->types);
    p->begin = (size_t *)dp__arena_get(arena, p->rows + 1, sizeof *p->begin);
    p->docs = (uint32_t *)dp__arena_get(arena, p->rows, sizeof *p->docs);
    p->labels = (int32_t *)dp__arena_get(arena, p->rows, sizeof *p->labels);
    p->targets = (dp_real *)dp__arena_get(arena, p->rows, classes * sizeof *p->targets);
    t->tally = (dp__tally *)dp__arena_get(arena, classes, sizeof *t->tally);
    dp__work_init(&t->work, &model->env.alloc, 0);
    if (arena->failed) return dp__no_memory(err);
    a->m = a->w + a->n;
    a->v = a->m + a->n;
    a->g = a->v + a->n;
    dp_status status = dp__exec_open(&t->exec, &model->env, err);
    if (status == DP_OK)
        status = dp__net_open(&model->net, &model->env.alloc, NULL, &model->config,
                              &model->params, a->w, NULL, err);
    model->net.bf16 = t->opt.dtype == DP_BF16 && sizeof(dp_real) == sizeof(float);
    return status == DP_OK ? dp__flat_fill(&model->params, weights, a->w, err) : status;
}

/* ---- checkpoints --------------------------------------------------------------------------- */

#define DP__CK_HEAD 64u
#define DP__CK_ENTRY 64u
#define DP__CK_TAIL 48u
#define DP__CK_VERSION 2u
#define DP__CK_MARK 0x01020304u
#define DP__PIECE ((size_t)1 << 22) /* numbers of one section: the team hashes sections */

enum { DP__CK_CONFIG = 1, DP__CK_VOCAB, DP__CK_OPTIONS, DP__CK_COUNTERS, DP__CK_NUMBERS };

/* What two runs must agree on to give equal bits, beside machine-independent arithmetic. */
static const char dp__ck_numerics[24] = "chain1024 rows8 v1";

typedef struct dp__section {
    const void *data;  /* in this machine's byte order; borrowed */
    size_t      width; /* of an item of data */
    size_t      offset, bytes;
} dp__section;

/* The checkpoint of a trainer as it stands, saved to a file or compared with one. */
typedef struct dp__ckpt {
    dp_trainer  *t;
    const char  *name;     /* of the file */
    dp_error    *err;
    dp__arena    arena;    /* front, sections */
    dp__buffer   config;
    uint64_t     options[16];
    uint8_t     *front;    /* head and table as in the file */
    size_t       front_bytes, bytes; /* bytes: of the whole file */
    dp__section *sections; /* [count] */
    size_t       count;
    uint8_t     *image;    /* [bytes] a file that is read; NULL while saving */
} dp__ckpt;

static uint8_t *dp__ckpt_entry(uint8_t *front, size_t section) {
    return front + DP__CK_HEAD + section * DP__CK_ENTRY;
}

/* The options that decide weights, dtype apart: a run may go on in another. More epochs at a
 * constant rate are the same run continued. */
static void dp__ckpt_options(const dp_train_options *o, uint64_t word[16]) {
    int endless = o->schedule == DP_CONSTANT && (o->warmup == 0 || o->warmup >= 1);
    double   real[8] = {o->lr, o->beta1, o->beta2, o->eps, o->weight_decay, o->warmup,
                        o->grad_norm, o->dropout};
    uint64_t whole[7] = {o->seed, endless ? 0 : (uint64_t)o->epochs, (uint64_t)o->batch_rows,
                         (uint64_t)o->accumulate, (uint64_t)o->max_tokens,
                         (uint64_t)o->optimizer, (uint64_t)o->schedule};
    memcpy(word, real, sizeof real);
    memcpy(word + 8, whole, sizeof whole);
}

/* One more section, with its line of the table but for the digest. */
static void dp__ckpt_section(dp__ckpt *c, uint32_t kind, size_t index, const void *data,
                             size_t items, size_t width) {
    uint8_t    *entry = dp__ckpt_entry(c->front, c->count);
    dp__section s = {data, width, c->bytes, items * width};
    c->sections[c->count++] = s;
    c->bytes += s.bytes;
    dp__store_le(entry, 4, kind);
    dp__store_le(entry + 4, 4, index);
    dp__store_le(entry + 8, 8, s.offset);
    dp__store_le(entry + 16, 8, s.bytes);
}

/* Head, table and sections of the trainer, without digests. */
static dp_status dp__ckpt_plan(dp__ckpt *c) {
    const dp_trainer *t = c->t;
    const dp__optim  *a = &t->optim;
    const dp__vocab  *vocab = &t->model->tokenizer.vocab;
    size_t            count = 4 + 3 * ((a->n + DP__PIECE - 1) / DP__PIECE);
    c->bytes = c->front_bytes = DP__CK_HEAD + count * DP__CK_ENTRY;
    c->sections = (dp__section *)dp__arena_get(&c->arena, count, sizeof *c->sections);
    c->front = (uint8_t *)dp__arena_get(&c->arena, c->front_bytes, 1);
    if (c->arena.failed || !dp__config_write(&t->model->config, &c->config))
        return dp__no_memory(c->err);
    dp__ckpt_options(&t->opt, c->options);
    dp__ckpt_section(c, DP__CK_CONFIG, 0, c->config.p, c->config.n, 1);
    dp__ckpt_section(c, DP__CK_VOCAB, 0, vocab->text, vocab->text_bytes, 1);
    dp__ckpt_section(c, DP__CK_OPTIONS, 0, c->options, 16, 8);
    dp__ckpt_section(c, DP__CK_COUNTERS, 0, &t->now, sizeof t->now / 8, 8);
    for (uint32_t k = 0; k < 3; k++)
        for (size_t i = 0; i < a->n; i += DP__PIECE)
            dp__ckpt_section(c, DP__CK_NUMBERS + k, i / DP__PIECE, a->w + k * a->n + i,
                             a->n - i < DP__PIECE ? a->n - i : DP__PIECE, sizeof(dp_real));
    c->bytes += DP__CK_TAIL;
    memcpy(c->front, "DPCKPT\r\n", 8); /* line ends are what a text transfer breaks first */
    dp__store_le(c->front + 8, 4, DP__CK_VERSION);
    dp__store_le(c->front + 12, 4, DP__CK_MARK);
    dp__store_le(c->front + 16, 4, c->count);
    dp__store_le(c->front + 20, 4, sizeof(dp_real));
    dp__store_le(c->front + 24, 8, c->bytes);
    dp__store_le(c->front + 32, 8, a->n);
    memcpy(c->front + 40, dp__ck_numerics, sizeof dp__ck_numerics);
    return DP_OK;
}

/* The bytes of a section's file from at on, as many as room [DP__SCRATCH] has place for. */
static size_t dp__ckpt_part(const dp__section *s, size_t at, void *room) {
    size_t most = DP__SCRATCH * sizeof(dp_real) / 8 * 8;
    size_t n = s->bytes - at < most ? s->bytes - at : most;
    memcpy(room, (const char *)s->data + at, n);
    dp__swap_le(room, n / s->width, s->width);
    return n;
}

/* SHA-256 of a section into the table: of the image, or else of the trainer's data. */
static void dp__ckpt_hash(dp__ckpt *c, size_t section, void *room) {
    const dp__section *s = &c->sections[section];
    dp__sha256         sha;
    dp__sha256_init(&sha);
    if (c->image != NULL) dp__sha256_add(&sha, c->image + s->offset, s->bytes);
    for (size_t at = 0, n; at < s->bytes && c->image == NULL; at += n) {
        n = dp__ckpt_part(s, at, room);
        dp__sha256_add(&sha, room, n);
    }
    dp__sha256_end(&sha, dp__ckpt_entry(c->front, section) + 32);
}

static void dp__ckpt_hash_task(void *arg, int32_t tid, int32_t threads) {
    dp__ckpt *c = (dp__ckpt *)arg;
    for (size_t i = (size_t)tid; i < c->count; i += (size_t)threads)
        dp__ckpt_hash(c, i, c->t->exec.scratch + (size_t)tid * DP__SCRATCH);
}

/* The tail of a file that begins with front. */
static void dp__ckpt_tail(const dp__ckpt *c, const uint8_t *front, uint8_t tail[DP__CK_TAIL]) {
    dp__sha256 sha;
    dp__store_le(tail, 8, c->bytes);
    dp__sha256_init(&sha);
    dp__sha256_add(&sha, front, c->front_bytes);
    dp__sha256_end(&sha, tail + 8);
    memcpy(tail + 40, "DPCKEND\n", 8);
}

static dp_status dp__ckpt_append(const dp__ckpt *c, const dp_io *io, void *file) {
    void     *room = c->t->exec.scratch;
    uint8_t   tail[DP__CK_TAIL];
    dp_status status = io->append(io->ctx, file, c->front, c->front_bytes);
    for (size_t i = 0; i < c->count; i++) {
        for (size_t at = 0, n; at < c->sections[i].bytes && status == DP_OK; at += n) {
            n = dp__ckpt_part(&c->sections[i], at, room);
            status = io->append(io->ctx, file, room, n);
        }
    }
    dp__ckpt_tail(c, c->front, tail);
    return status == DP_OK ? io->append(io->ctx, file, tail, sizeof tail) : status;
}

/* The file under its final name, or no file: space is checked first, a torn one is removed. */
static dp_status dp__ckpt_save(dp__ckpt *c, const dp_io *io, void *dir) {
    const dp__exec *x = &c->t->exec;
    uint64_t        space = 0;
    void           *file;
    if (!dp__all_finite(x, c->t->optim.w, 3 * c->t->optim.n))
        return dp__fail(c->err, DP_E_DIVERGED, "a weight or moment is not finite: not saved");
    dp__exec_run(x, dp__ckpt_hash_task, c);
    if (io->free_space(io->ctx, dir, &space) == DP_OK && space < c->bytes)
        return dp__fail(c->err, DP_E_IO, "not enough space for the checkpoint");
    dp_status status = io->create(io->ctx, dir, c->name, &file);
    if (status != DP_OK) return dp__io_fail(c->err, status, c->name);
    status = dp__ckpt_append(c, io, file);
    if (status == DP_OK) status = io->commit(io->ctx, file);
    else io->abort(io->ctx, file);
    return status == DP_OK ? DP_OK : dp__io_fail(c->err, status, c->name);
}

static dp_status dp__ckpt_refuse(const dp__ckpt *c, const char *rule, uint64_t place,
                                 const char *why) {
    return dp__fail_at(c->err, DP_E_FORMAT, rule, c->name, place, why, NULL);
}

/* K1 to K4: the head of a file of so many bytes; K7 for the sizes in it. */
static dp_status dp__ckpt_head_check(const dp__ckpt *c, const uint8_t *head, uint64_t bytes) {
    static const struct {
        uint8_t     at, bytes;
        const char *rule, *why;
    } fields[] = {{0, 8, "K2", "not a checkpoint"},
                  {8, 4, "K3", "a checkpoint of another version"},
                  {12, 4, "K4", "its numbers are computed in another way"},
                  {20, 4, "K4", "its numbers are computed in another way"},
                  {40, 24, "K4", "its numbers are computed in another way"},
                  {24, 0, "K1", "the file is cut off or too long"},
                  {16, 4, "K7", "the checkpoint of a model of another shape"},
                  {24, 16, "K7", "the checkpoint of a model of another shape"}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        size_t at = fields[i].at;
        int    same = fields[i].bytes > 0 ? memcmp(head + at, c->front + at, fields[i].bytes) == 0
                                          : dp__load_le(head + at, 8) == bytes;
        if (!same) return dp__ckpt_refuse(c, fields[i].rule, at, fields[i].why);
    }
    return DP_OK;
}

/* K5 to K10: tail, table and digests of the image are those that this trainer would write, and
 * those of its bytes. */
static dp_status dp__ckpt_image_check(dp__ckpt *c) {
    static const char *const rules[3] = {"K7", "K8", "K9"};
    static const char *const why[3] = {
        "the checkpoint of another model or of other labels",
        "the checkpoint of another vocabulary",
        "the run had other options (more epochs need a constant learning rate)"};
    uint8_t tail[DP__CK_TAIL];
    size_t  end = c->bytes - DP__CK_TAIL;
    dp__ckpt_tail(c, c->image, tail);
    if (memcmp(c->image + end, tail, sizeof tail) != 0)
        return dp__ckpt_refuse(c, "K5", end, "the tail does not agree");
    for (size_t i = 0; i < c->count; i++) {
        const uint8_t *found = dp__ckpt_entry(c->image, i), *own = dp__ckpt_entry(c->front, i);
        uint64_t       place = (uint64_t)(found - c->image);
        if (memcmp(found, own, 32) != 0)
            return dp__ckpt_refuse(c, "K6", place, "a section is not where it must be");
        if (i < 3 && memcmp(found + 32, own + 32, 32) != 0)
            return dp__ckpt_refuse(c, rules[i], place + 32, why[i]);
    }
    dp__exec_run(&c->t->exec, dp__ckpt_hash_task, c);
    for (size_t i = 0; i < c->count; i++)
        if (memcmp(dp__ckpt_entry(c->image, i), dp__ckpt_entry(c->front, i), 64) != 0)
            return dp__ckpt_refuse(c, "K10", c->sections[i].offset, "a digest does not agree");
    return DP_OK;
}

/* K11: counters that a run can have. */
static int dp__counters_ok(const dp__counters *n) {
    double loss = n->loss;
    return n->position <= n->rows && n->rows <= UINT32_MAX && n->right <= n->position &&
           n->epoch <= INT32_MAX && n->skipped <= n->step && n->in_a_row <= n->skipped &&
           n->missed <= n->position - n->right && loss - loss == 0;
}

/* Takes over an image. Everything is checked before the trainer changes. */
static dp_status dp__ckpt_take(dp__ckpt *c) {
    dp_trainer  *t = c->t;
    dp__optim   *a = &t->optim;
    size_t       at = c->sections[4].offset;
    dp_real     *numbers = (dp_real *)(void *)(c->image + at); /* aligned by dp__ckpt_load */
    dp__counters now;
    dp_status    status = dp__ckpt_image_check(c);
    if (status != DP_OK) return status;
    memcpy(&now, c->image + c->sections[3].offset, sizeof now);
    dp__swap_le(&now, sizeof now / 8, 8);
    dp__swap_le(numbers, 3 * a->n, sizeof *numbers);
    if (!dp__counters_ok(&now))
        return dp__ckpt_refuse(c, "K11", c->sections[3].offset, "a counter is out of range");
    if (!dp__all_finite(&t->exec, numbers, 3 * a->n))
        return dp__ckpt_refuse(c, "K12", at, "a number is not finite");
    memcpy(a->w, numbers, 3 * a->n * sizeof *numbers);
    t->now = now;
    t->lost = 0;
    return DP_OK;
}

/* Reads the whole of an open file whose head is right, and takes it over. */
static dp_status dp__ckpt_read(dp__ckpt *c, const dp_io *io, void *file, uint64_t bytes) {
    uint8_t head[DP__CK_HEAD];
    size_t  shift = DP__ALIGN - c->sections[4].offset % DP__ALIGN; /* aligns the numbers */
    if (bytes < sizeof head) return dp__ckpt_refuse(c, "K1", bytes, "the file is cut off");
    dp_status status = io->pread(io->ctx, file, 0, head, sizeof head);
    if (status != DP_OK) return dp__io_fail(c->err, status, c->name);
    status = dp__ckpt_head_check(c, head, bytes);
    if (status != DP_OK) return status;
    uint8_t *room = (uint8_t *)dp__alloc(&c->arena.alloc, c->bytes + shift, 1);
    if (room == NULL) return dp__no_memory(c->err);
    for (size_t i = 0; i < 3; i++) dp__ckpt_hash(c, i, c->t->exec.scratch);
    c->image = room + shift;
    status = io->pread(io->ctx, file, 0, c->image, c->bytes);
    status = status == DP_OK ? dp__ckpt_take(c) : dp__io_fail(c->err, status, c->name);
    dp__free(&c->arena.alloc, room, c->bytes + shift, 1);
    return status;
}

static dp_status dp__ckpt_load(dp__ckpt *c, const dp_io *io, void *dir) {
    void     *file;
    uint64_t  bytes;
    dp_status status = io->open(io->ctx, dir, c->name, &file, &bytes);
    if (status != DP_OK) return dp__io_fail(c->err, status, c->name);
    status = dp__ckpt_read(c, io, file, bytes);
    io->close(io->ctx, file);
    return status;
}

/* Saves or loads the checkpoint name in the directory path. */
typedef dp_status dp__ckpt_way(dp__ckpt *c, const dp_io *io, void *dir);

static dp_status dp__ckpt_run(dp_trainer *t, const char *path, const char *name,
                              dp__ckpt_way *way, dp_error *err) {
    const dp_env *env = &t->model->env;
    dp__ckpt      c;
    void         *dir;
    dp_status     status = dp__dir_open(env, path, 0, &dir, err);
    if (status != DP_OK) return status;
    memset(&c, 0, sizeof c);
    c.t = t;
    c.name = name;
    c.err = err;
    dp__arena_init(&c.arena, &env->alloc);
    dp__buffer_init(&c.config, &env->alloc);
    status = dp__ckpt_plan(&c);
    if (status == DP_OK) status = way(&c, &env->io, dir);
    dp__buffer_free(&c.config);
    dp__arena_free(&c.arena);
    env->io.close_dir(env->io.ctx, dir);
    return status;
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* Rows as the network sees them; ids say what a text says, so they are wiped like one. */
typedef struct dp__corpus {
    dp__arena  arena;        /* the arrays below */
    dp_dataset data;         /* its arrays are borrowed */
    size_t     rows, cap;    /* cap: tokens that there is memory for */
    size_t     longest;      /* tokens of a row */
    int32_t   *ids, *types;  /* [cap] */
    size_t    *start;        /* [rows + 1] of a row in ids */
    uint32_t  *order;        /* [rows] in which they are used; at first 0, 1, 2, ... */
} dp__corpus;

static void dp__corpus_close(dp__corpus *c) {
    if (c->ids != NULL) dp__wipe(c->ids, c->cap * sizeof *c->ids);
    if (c->types != NULL) dp__wipe(c->types, c->cap * sizeof *c->types); /* tell parts of pairs */
    dp__arena_free(&c->arena);
    memset(c, 0, sizeof *c);
}

static size_t dp__corpus_tokens(const dp__corpus *c, size_t row) {
    return c->start[row + 1] - c->start[row];
}

/* Memory for the tokens of all rows: no text has more tokens than bytes, and their sum is bounded
 * by dp__dataset_check. */
static int dp__corpus_alloc(dp__corpus *c, size_t most) {
    for (size_t r = 0; r < c->rows; r++) {
        const dp_text *text = &c->data.texts[r];
        size_t         tokens = text->a_bytes + (text->b != NULL ? text->b_bytes : 0) + 3;
        if (!dp__add_size(c->cap, tokens < most ? tokens : most, &c->cap)) return 0;
    }
    c->types = (int32_t *)dp__arena_get(&c->arena, c->cap, sizeof *c->types);
    c->start = (size_t *)dp__arena_get(&c->arena, c->rows + 1, sizeof *c->start);
    c->order = (uint32_t *)dp__arena_get(&c->arena, c->rows, sizeof *c->order);
    c->ids = (int32_t *)dp__arena_get(&c->arena, c->cap, sizeof *c->ids);
    return !c->arena.failed;
}

/* The rows of a dataset, checked and tokenized. On failure the caller closes c. */
static dp_status dp__corpus_open(dp__corpus *c, const dp_model *model, const dp_dataset *data,
                                 int32_t max_tokens, dp_error *err) {
    const dp_alloc   *alloc = &model->env.alloc;
    dp_encode_options options;
    dp__scratch       scratch;
    dp_status         status = dp__dataset_check(data, &model->config, err);
    memset(c, 0, sizeof *c);
    dp__arena_init(&c->arena, alloc);
    if (status != DP_OK) return status;
    c->data = *data;
    c->rows = data->rows;
    DP_CLEAR(options);
    options.max_tokens = max_tokens;
    if (!dp__corpus_alloc(c, (size_t)max_tokens)) return dp__no_memory(err);
    dp__scratch_init(&scratch, alloc);
    for (size_t r = 0; r < c->rows && status == DP_OK; r++) {
        size_t      at = c->start[r];
        dp_encoding e = {c->ids + at, c->types + at, NULL, NULL, c->cap - at, 0, 0, 0, 0};
        status = dp__encode(&model->tokenizer, &scratch, &data->texts[r], &options, &e, err);
        c->order[r] = (uint32_t)r;
        c->start[r + 1] = at + e.n;
        if (e.n > c->longest) c->longest = e.n;
    }
    dp__scratch_free(&scratch);
    return status;
}

/* The order of an epoch: a function of seed and epoch, not of what went before. */
static void dp__corpus_shuffle(dp__corpus *c, uint64_t seed, uint64_t epoch) {
    dp__rng rng = {dp__mix64(seed ^ dp__mix64(epoch + 1))};
    for (size_t i = 0; i < c->rows; i++) c->order[i] = (uint32_t)i;
    dp__shuffle(c->order, c->rows, &rng);
}

/* What a resumed run must find again: tokens and labels of every row. */
static void dp__corpus_digest(const dp__corpus *c, size_t classes, uint64_t digest[4]) {
    const dp_dataset *data = &c->data;
    dp__sha256        sha;
    uint8_t           sum[32];
    dp__sha256_init(&sha);
    for (size_t r = 0; r < c->rows; r++) {
        dp__sha256_le(&sha, 8, dp__corpus_tokens(c, r));
        for (size_t i = c->start[r]; i < c->start[r + 1]; i++) {
            dp__sha256_le(&sha, 4, (uint32_t)c->ids[i]);
            dp__sha256_le(&sha, 4, (uint32_t)c->types[i]);
        }
        for (size_t k = 0; k < classes && data->targets != NULL; k++)
            dp__sha256_le(&sha, 4, dp__f32_bits(data->targets[r * classes + k]));
        dp__sha256_le(&sha, 4, data->labels != NULL ? (uint32_t)data->labels[r] : 0);
    }
    dp__sha256_end(&sha, sum);
    for (int i = 0; i < 4; i++) digest[i] = dp__load_le(sum + 8 * i, 8);
}

/* ---- steps --------------------------------------------------------------------------------- */

typedef struct dp__step_info {
    double   loss; /* sum over rows, before the step */
    uint64_t right;
    double   norm, rate;
} dp__step_info;

/* Where the rows [at, end) that are computed together end. All pieces but the last have a
 * multiple of 8 rows, where the sums of a weight's gradient begin anew in any case: so neither
 * batch_rows nor accumulate nor the budget of tokens changes a bit of the step. */
static size_t dp__micro_end(const dp_trainer *t, const dp__corpus *c, const uint32_t *which,
                            size_t n, size_t at) {
    size_t tokens = 0, end = at;
    while (end < n && end - at < t->piece.rows) {
        size_t group = n - end < 8 ? n - end : 8, more = 0;
        for (size_t i = end; i < end + group; i++) more += dp__corpus_tokens(c, which[i]);
        if (end > at && tokens + more > DP__STEP_TOKENS) break;
        tokens += more;
        end += group;
    }
    return end;
}

/* The batch that begins with row which[at] of a step of n rows. */
static dp__batch dp__micro_fill(dp_trainer *t, const dp__corpus *c, const uint32_t *which,
                                size_t n, size_t at) {
    const dp_dataset *data = &c->data;
    dp__micro        *p = &t->piece;
    size_t            classes = (size_t)t->model->config.classes;
    size_t            rows = dp__micro_end(t, c, which, n, at) - at;
    dp__batch         batch = {p->ids, p->types, p->begin, p->docs, rows, at, n};
    p->begin[0] = 0;
    for (size_t i = 0; i < rows; i++) {
        size_t row = which[at + i], from = c->start[row], count = dp__corpus_tokens(c, row);
        memcpy(p->ids + p->begin[i], c->ids + from, count * sizeof *p->ids);
        memcpy(p->types + p->begin[i], c->types + from, count * sizeof *p->types);
        p->begin[i + 1] = p->begin[i] + count;
        p->docs[i] = (uint32_t)row;
        p->labels[i] = data->labels != NULL ? data->labels[row] : 0;
        for (size_t k = 0; k < classes && data->targets != NULL; k++)
            p->targets[i * classes + k] = (dp_real)data->targets[row * classes + k];
    }
    return batch;
}

/* Computes the rows which[0..n) in working memory of the caller and counts what they are worth.
 * With drop they are learned from: the gradient of their mean loss is added to optim.g.
 * DP_E_DIVERGED: a number is not finite. */
static dp_status dp__rows_pass(dp_trainer *t, const dp__corpus *c, const uint32_t *which, size_t n,
                               dp__work *work, const dp__dropping *drop, dp__meter *meter,
                               dp_error *err) {
    double loss = 0;
    for (size_t at = 0; at < n;) {
        dp__batch batch = dp__micro_fill(t, c, which, n, at);
        dp__pass  s;
        dp_status status = dp__pass_begin(&s, &t->exec, &t->model->net, &batch, work, drop,
                                          drop != NULL ? t->optim.g : NULL, err);
        if (status != DP_OK) return status;
        dp__forward(&s);
        if (drop != NULL) loss += dp__pass_loss(&s, t->piece.labels, t->piece.targets);
        for (size_t i = 0; i < batch.texts; i++, at++)
            if (!dp__meter_add(meter, work->logits + i * meter->classes, &c->data, which[at]))
                return dp__row_fail(err, DP_E_DIVERGED, which[at], "the output is not finite");
        if (drop != NULL) dp__backward(&s);
    }
    return loss - loss == 0 ? DP_OK : dp__fail(err, DP_E_DIVERGED, "the loss is not finite");
}

static dp_status dp__step_try(dp_trainer *t, const dp__corpus *c, const uint32_t *which, size_t n,
                              dp__step_info *info, dp_error *err) {
    const dp__config *config = &t->model->config;
    dp__dropping drop = {t->opt.seed, (uint32_t)t->now.step, config->hidden_dropout,
                         config->attention_dropout, config->classifier_dropout};
    dp__meter    meter;
    dp__meter_init(&meter, (dp_problem)config->problem, (size_t)config->classes, t->tally, NULL);
    dp_status status = dp__rows_pass(t, c, which, n, &t->work, &drop, &meter, err);
    if (status != DP_OK) return status;
    info->loss = meter.loss;
    info->right = meter.right;
    info->rate = dp__rate(&t->opt, t->now.step, t->steps);
    dp__step_result result = dp__optim_step(&t->exec, &t->optim, &t->opt, info->rate,
                                            t->now.step - t->now.skipped + 1, &info->norm);
    t->lost = result == DP__STEP_LOST;
    if (result == DP__STEP_DONE) return DP_OK;
    return dp__fail(err, DP_E_DIVERGED, t->lost ? "a weight is not finite"
                                                : "the gradient or a moment is not finite");
}

/* Says in the log why a step is not applied; rows are named by number. */
static dp_status dp__step_skip(dp_trainer *t, const char *why, dp_error *err) {
    char line[160];
    dp__numbered(line, "step ", t->now.step, " is not applied: ", why);
    dp__note(t->model, DP_LOG_WARNING, line);
    t->now.skipped++;
    t->now.in_a_row++;
    return dp__fail(err, DP_E_DIVERGED, line);
}

static dp_status dp__trainer_ready(const dp_trainer *t, dp_error *err) {
    if (!t->lost) return DP_OK;
    return dp__fail(err, DP_E_DIVERGED, "a weight is not finite: load a checkpoint");
}

/* One step of the optimizer. DP_E_DIVERGED: it was not applied, the counters say so. Between
 * steps the gradient is 0. */
static dp_status dp__trainer_step(dp_trainer *t, const dp__corpus *c, const uint32_t *which,
                                  size_t n, dp__step_info *info, dp_error *err) {
    dp_error  why;
    dp_status status = dp__trainer_ready(t, err);
    memset(info, 0, sizeof *info);
    if (status != DP_OK) return status;
    status = dp__step_try(t, c, which, n, info, &why);
    if (status == DP_OK) t->now.in_a_row = 0;
    else memset(t->optim.g, 0, t->optim.n * sizeof *t->optim.g);
    if (status == DP_E_DIVERGED) status = dp__step_skip(t, why.text, err);
    else if (status != DP_OK) return dp__fail(err, status, why.text);
    t->now.step++;
    return status;
}

/* ---- epochs -------------------------------------------------------------------------------- */

/* One call of dp_train. */
typedef struct dp__run {
    dp_trainer      *t;
    dp__corpus       train, valid; /* valid without rows: none */
    dp__work         work;         /* of validation */
    size_t           step_rows;    /* batch_rows * accumulate */
    dp_train_report *report;
} dp__run;

/* Tells the caller about a step of some rows; info NULL: of a whole epoch, whose figures are in the
 * report, or of rows that validation has measured. DP_E_STOPPED if the caller says so. */
static dp_status dp__run_tell(const dp__run *run, const dp__step_info *info, size_t rows,
                              dp_error *err) {
    const dp_trainer      *t = run->t;
    const dp_train_report *r = run->report;
    dp_train_progress      now;
    if (t->opt.progress == NULL) return DP_OK;
    DP_CLEAR(now);
    now.epoch_done = info == NULL && rows == 0;
    now.epoch = (int32_t)t->now.epoch + !now.epoch_done;
    now.valid_rows = info == NULL ? rows : 0;
    now.step = t->now.step;
    now.steps = t->steps;
    now.rows = r->rows;
    now.tokens = r->tokens;
    now.loss = info != NULL ? info->loss / (double)rows : r->loss;
    now.accuracy = info != NULL ? (double)info->right / (double)rows : r->accuracy;
    now.valid_loss = info != NULL ? (double)NAN : r->valid_loss;
    now.valid_accuracy = info != NULL ? (double)NAN : r->valid_accuracy;
    now.valid_f1 = info != NULL ? (double)NAN : r->valid_f1;
    now.grad_norm = info != NULL ? info->norm : 0;
    now.lr = info != NULL ? info->rate : 0;
    if (t->opt.progress(t->opt.progress_ctx, &now) == 0) return DP_OK;
    return dp__fail(err, DP_E_STOPPED, "stopped on request of the progress callback");
}

/* The next step of the present epoch. Skipped steps are an error once they are three in a row,
 * or three and more than one in a hundred. */
static dp_status dp__run_step(dp__run *run, dp_error *err) {
    dp_trainer   *t = run->t;
    dp__counters *now = &t->now;
    size_t        left = run->train.rows - (size_t)now->position;
    size_t        n = left < run->step_rows ? left : run->step_rows;
    uint32_t     *which = run->train.order + now->position;
    dp__step_info info;
    dp_status     status = dp__trainer_step(t, &run->train, which, n, &info, err);
    if (status != DP_OK && status != DP_E_DIVERGED) return status;
    now->position += n;
    if (status == DP_E_DIVERGED) {
        int many = now->skipped >= 3 && now->skipped > t->steps / 100;
        now->missed += n;
        return t->lost || now->in_a_row >= 3 || many ? status : DP_OK;
    }
    now->loss += info.loss;
    now->right += info.right;
    run->report->rows += n;
    for (size_t i = 0; i < n; i++)
        run->report->tokens += dp__corpus_tokens(&run->train, which[i]);
    return dp__run_tell(run, &info, n, err);
}

/* Measures the rows of validation, without dropout. */
static dp_status dp__run_measure(dp__run *run, dp_error *err) {
    const dp__corpus *c = &run->valid;
    dp_trainer       *t = run->t;
    const dp__config *config = &t->model->config;
    dp__meter         meter;
    dp_metrics        out;
    dp_status         status = DP_OK;
    dp__meter_init(&meter, (dp_problem)config->problem, (size_t)config->classes, t->tally, NULL);
    for (size_t at = 0, n; at < c->rows && status == DP_OK; at += n) {
        n = c->rows - at < t->piece.rows ? c->rows - at : t->piece.rows;
        status = dp__rows_pass(t, c, c->order + at, n, &run->work, NULL, &meter, err);
        if (status == DP_OK && at + n < c->rows) status = dp__run_tell(run, NULL, at + n, err);
    }
    if (status != DP_OK) return status;
    dp__meter_result(&meter, &out);
    run->report->valid_loss = out.nll;
    run->report->valid_accuracy = out.accuracy;
    run->report->valid_f1 = out.macro_f1;
    return DP_OK;
}

/* The rest of the present epoch, validation, and the counters of the next. */
static dp_status dp__run_epoch(dp__run *run, dp_error *err) {
    dp__counters *now = &run->t->now;
    dp_status     status = DP_OK;
    dp__corpus_shuffle(&run->train, run->t->opt.seed, now->epoch);
    while (now->position < run->train.rows && status == DP_OK) status = dp__run_step(run, err);
    if (status == DP_OK && run->valid.rows > 0) status = dp__run_measure(run, err);
    if (status != DP_OK) return status;
    double rows = (double)(run->train.rows - now->missed); /* 0: no figures, so NaN */
    run->report->loss = now->loss / rows;
    run->report->accuracy = (double)now->right / rows;
    now->epoch++;
    now->position = now->right = now->missed = 0;
    now->loss = 0;
    return dp__run_tell(run, NULL, 0, err);
}

/* Where the run begins: at the start, or where the counters stand, on the same rows (K13) and not
 * behind the last epoch (K14). The number of rows is compared too: a file may claim any, and the
 * position was checked against it alone. */
static dp_status dp__run_begin(dp__run *run, dp_error *err) {
    dp_trainer *t = run->t;
    size_t      rows = run->train.rows, longest = run->train.longest;
    uint64_t    data[4];
    dp_status   status = dp__trainer_ready(t, err);
    if (status != DP_OK) return status;
    dp__corpus_digest(&run->train, (size_t)t->model->config.classes, data);
    if (!t->opt.resume) {
        memset(&t->now, 0, sizeof t->now);
        memset(t->optim.m, 0, 2 * t->optim.n * sizeof *t->optim.m); /* and v */
    } else if (t->now.rows != 0 &&
               (t->now.rows != rows || memcmp(t->now.data, data, sizeof data) != 0)) {
        return dp__fail_at(err, DP_E_ARG, "K13", NULL, DP_NO_PLACE,
                           "the training rows are not those of the run that goes on", NULL);
    } else if (t->now.epoch + (t->now.position > 0) > (uint64_t)t->opt.epochs) {
        return dp__fail_at(err, DP_E_ARG, "K14", NULL, DP_NO_PLACE,
                           "the run that goes on is past the last of so many epochs", NULL);
    }
    t->now.rows = rows;
    memcpy(t->now.data, data, sizeof data);
    run->step_rows = (size_t)t->opt.batch_rows * (size_t)t->opt.accumulate;
    t->steps = (uint64_t)t->opt.epochs * ((rows + run->step_rows - 1) / run->step_rows);
    /* one reservation for the whole run, no larger than a piece */
    size_t tokens = (t->piece.rows < rows ? t->piece.rows : rows) * longest;
    return dp__work_reserve(&t->work, &t->exec, &t->model->net,
                            tokens < t->piece.tokens ? tokens : t->piece.tokens, t->piece.rows,
                            longest, 1, err);
}

#endif /* DP_NO_TRAIN */

/* ============================================================================================
 * [G4] Quantizer                                                              budget 190 lines
 * Owns:   which tensors become INT8, their codes, and what that costs.    Needs: E, F1.
 * Never:  changes an activation: those are quantized per token at run time ([F2]).
 * Tests:  tests/test_api.c: api_quantize*
 * ============================================================================================ */

#ifndef DP_NO_QUANTIZE
/* A net read through a quantizer: a source whose Linears (but the classifier) and, if asked for,
 * embedding tables are INT8. For each row of a weight
 *     s = max |w| / 127,  q = round(w / s) in [-127, 127],
 * so |w - s q| <= s / 2 (not in pair- or quad-safe rows, see dp__safe_search), and the sum of k
 * products with u8 activations stays below 255 * 127 * k < 2^31 for k <= 65,536 = DP_MAX_INNER. */
typedef struct dp__quantizer {
    const dp__net *net;
    dp__source     values;         /* the weights of net */
    int            tables;         /* 1: embedding tables as well */
    int            weights;        /* dp_weights of the Linears */
    dp__exec       exec;           /* a kernel row, no team */
    dp_real       *stage;          /* [DP__PANEL, widest] */
    double        *signal, *noise; /* [tensors] sum w^2 and sum (w - s q)^2 */
    double        *full;           /* [tensors] the noise that full-range weights have */
} dp__quantizer;

static int dp__quantizer_is_int8(void *ctx, size_t t) {
    const dp__quantizer *z = (const dp__quantizer *)ctx;
    const dp__tensor    *x = &z->net->params->list[t];
    return dp__is_linear(x) ? x->part != DP__CLASS_W : x->dims == 2 && z->tables;
}

/* Squared error of the codes q [k] of w with scale s. */
static double dp__code_noise(const dp_real *w, size_t k, double s, const int8_t *q) {
    double sum = 0;
    for (size_t i = 0; i < k; i++) {
        double miss = (double)w[i] - s * (double)q[i];
        sum += miss * miss;
    }
    return sum;
}

/* Lowers the positive of the codes q[at[i]], at[i] < k (with sign -1: raises the negative ones),
 * until they add up to no more than 128. Each step takes the code where it costs least: from q to
 * q - 1 the squared error, in units of s^2, grows by 2 (w / s - q) + 1. */
static void dp__safe_lower(const dp_real *w, size_t k, double s, int8_t *q, const size_t *at,
                           size_t count, int sign) {
    for (;;) {
        size_t best = 0;
        int    sum = 0;
        double least = 0;
        for (size_t i = 0; i < count && at[i] < k; i++) {
            int    code = sign * q[at[i]];
            double left = sign * (double)w[at[i]] - s * code;
            if (code <= 0) continue;
            if (sum == 0 || left < least) best = at[i], least = left;
            sum += code;
        }
        if (sum <= 128) return;
        q[best] = (int8_t)(q[best] - sign);
    }
}

/* Codes of the row w [k] with scale s that keep to the class (PAIRS or QUADS) of
 * dp__weights_hold; returns their squared error. */
static double dp__safe_codes(const dp_real *w, size_t k, int weights, double s, int8_t *q) {
    size_t step = weights == DP_WEIGHTS_PAIRS ? 2 : 8, half = step / 4;
    for (size_t i = 0; i < k; i++) {
        double x = (double)w[i] / s + 128.5; /* from 1.5 to 255.5, unless it is a NaN */
        q[i] = (int8_t)(x > 1 && x < 256 ? (int)x - 128 : 0);
    }
    for (size_t p = 0; p < k; p += step) {
        for (size_t g = p; g <= p + half; g += 2) {
            const size_t at[4] = {g, g + 1, g + 4, g + 5}, count = step == 2 ? 2 : 4;
            int          all = 0;
            for (size_t i = 0; i < count && at[i] < k; i++) all += abs(q[at[i]]);
            if (all <= 128) continue; /* as most groups, whatever their signs */
            dp__safe_lower(w, k, s, q, at, count, 1);
            dp__safe_lower(w, k, s, q, at, count, -1);
        }
    }
    return dp__code_noise(w, k, s, q);
}

/* Safe codes of the row w [k]; returns their scale. A wider one makes every code smaller, so that
 * fewer groups are lowered. Of full * (1 + i / 16), full = max |w| / 127, every fourth to i = 32 is
 * tried, then those near the best: the error has several minima, the least may stay unseen. */
static dp_real dp__safe_search(const dp_real *w, size_t k, int weights, dp_real full, int8_t *q) {
    double best = -1;
    int    at = 0;
    for (int step = 4; step > 0; step /= 2) {
        int from = step == 4 ? 0 : at - step, end = step == 4 ? 32 : at + step;
        for (int i = from < 0 ? 0 : from; i <= end; i += step) {
            dp_real s = full + full * (dp_real)i / 16;
            double  noise = dp__safe_codes(w, k, weights, (double)s, q);
            if (best >= 0 && !(noise < best)) continue;
            best = noise;
            at = i;
        }
    }
    dp_real scale = full + full * (dp_real)at / 16;
    dp__safe_codes(w, k, weights, (double)scale, q);
    return scale;
}

/* Real numbers, or codes and scales of some rows and their part of signal and noise. */
static dp_status dp__quantizer_values(void *ctx, size_t t, size_t row, size_t rows, void *to,
                                      dp_real *scale, dp_error *err) {
    dp__quantizer    *z = (dp__quantizer *)ctx;
    const dp__source *values = &z->values;
    size_t            cols = z->net->params->list[t].cols;
    dp__mat           stage = {z->stage, cols};
    int8_t           *code = (int8_t *)to;
    int safe = z->weights != DP_WEIGHTS_FULL && dp__is_linear(&z->net->params->list[t]);
    if (scale == NULL) return values->read(values->ctx, t, row, rows, to, NULL, err);
    for (size_t at = 0; at < rows; at += DP__PANEL) {
        size_t    n = rows - at < DP__PANEL ? rows - at : DP__PANEL;
        dp_status status = values->read(values->ctx, t, row + at, n, z->stage, NULL, err);
        if (status != DP_OK) return status;
        dp__vec v = dp__quantizing((uint8_t *)to + at * cols, cols, cols, 0, scale + at, stage, n,
                                   cols);
        dp__vec_run(&z->exec, &v);
        for (size_t i = at; i < at + n; i++) {
            const dp_real *w = z->stage + (i - at) * cols;
            int8_t        *q = code + i * cols;
            z->full[t] += dp__code_noise(w, cols, (double)scale[i], q);
            if (safe) scale[i] = dp__safe_search(w, cols, z->weights, scale[i], q);
            z->noise[t] += dp__code_noise(w, cols, (double)scale[i], q);
            for (size_t j = 0; j < cols; j++) z->signal[t] += (double)w[j] * (double)w[j];
        }
    }
    return DP_OK;
}

/* Ten times the decimal logarithm of signal : noise; 200 where there is no noise. */
static double dp__decibel(double signal, double noise) {
    if (!(noise > signal * 1e-20)) return 200;
    return 10 * 0.43429448190325182765 * (double)dp__log((dp_real)(signal / noise)); /* log10 e */
}

static void dp__quantizer_report(dp__quantizer *z, dp_quant_report *report) {
    const dp__params *p = z->net->params;
    double            signal = 0, noise = 0, full = 0, worst = 200;
    dp_clear(report, sizeof *report);
    for (size_t t = 0; t < p->count; t++) {
        uint64_t values = (uint64_t)p->list[t].rows * p->list[t].cols;
        int      int8 = dp__quantizer_is_int8(z, t);
        report->bytes_before += 4 * values;
        report->bytes_after += int8 ? values + 4 * p->list[t].rows : 4 * values;
        if (!int8) continue;
        if (dp__is_linear(&p->list[t])) report->linears++;
        else report->tables++;
        signal += z->signal[t];
        noise += z->noise[t];
        full += z->full[t];
        double own = dp__decibel(z->signal[t], z->noise[t]);
        if (own < worst) worst = own;
    }
    report->sqnr_db = dp__decibel(signal, noise);
    report->full_db = dp__decibel(signal, full);
    report->worst_db = worst;
}

/* A quantizer over a float net; its memory comes from the arena. */
static dp_status dp__quantizer_init(dp__quantizer *z, const dp__net *net, const dp__row *row,
                                    const dp_quant_options *o, dp__arena *arena, dp_error *err) {
    const dp__config *c = net->config;
    size_t            widest = (size_t)(c->inner > c->hidden ? c->inner : c->hidden);
    memset(z, 0, sizeof *z);
    z->net = net;
    z->values = dp__source_net(net);
    z->tables = o->embeddings != 0;
    z->weights = (int)o->weights;
    z->exec.row = row;
    z->exec.threads = 1;
    z->stage = (dp_real *)dp__arena_get(arena, DP__PANEL * widest, sizeof *z->stage);
    z->signal = (double *)dp__arena_get(arena, net->params->count, sizeof *z->signal);
    z->noise = (double *)dp__arena_get(arena, net->params->count, sizeof *z->noise);
    z->full = (double *)dp__arena_get(arena, net->params->count, sizeof *z->full);
    return arena->failed ? dp__no_memory(err) : DP_OK;
}
#endif

/* ============================================================================================
 * [G5] Accuracy-aware search                                                   budget 10 lines
 * Owns:   nothing yet.
 * ============================================================================================ */

/* ============================================================================================
 * [G6] Explanations                                                            budget 10 lines
 * Owns:   nothing yet.
 * ============================================================================================ */

/* ============================================================================================
 * [H] Public functions                                                       budget 1050 lines
 * Owns:   argument checks, lifetimes, glue.                    Needs: everything above.
 * Tests:  tests/test_api.c
 * ============================================================================================ */

/* status, after the caller has its floating-point state back. */
static dp_status dp__fp_return(uint32_t fp, dp_status status) {
    dp__fp_leave(fp);
    return status;
}

DPDEF void dp_clear(void *object, size_t bytes) {
    memset(object, 0, bytes);
    memcpy(object, &bytes, sizeof bytes);
}

DPDEF int32_t dp_version(void) {
    return DP_VERSION;
}

DPDEF const char *dp_status_text(dp_status status) {
#define DP__STATUS_TEXT(name, text) text,
    static const char *const texts[] = {DP_STATUS_LIST(DP__STATUS_TEXT)};
#undef DP__STATUS_TEXT
    return (unsigned)status < (unsigned)DP_STATUS_COUNT ? texts[status] : "unknown status";
}

/* ---- JSON --------------------------------------------------------------------------------- */

DPDEF void dp_json_begin(dp_json *json, const char *text, size_t bytes) {
    dp__json_begin(json, text, bytes);
}

/* Gives the reader back; after an error it stands at the end of a text that breaks off. */
static dp_status dp__json_leave(dp_json *json, const dp__doc *d) {
    *json = d->json;
    if (d->status == DP_OK) return DP_OK;
    json->at = json->bytes;
    json->state = DP__J_VALUE;
    return d->status;
}

DPDEF dp_status dp_json_next(dp_json *json, dp_error *err) {
    dp__doc d = {*json, DP_OK, NULL, NULL, err};
    dp__json_next(&d);
    return dp__json_leave(json, &d);
}

DPDEF dp_status dp_json_skip(dp_json *json, dp_error *err) {
    dp__doc d = {*json, DP_OK, NULL, NULL, err};
    dp__json_skip(&d);
    return dp__json_leave(json, &d);
}

/* A value that is not what the caller has asked for. */
static dp_status dp__json_unexpected(const dp_json *json, const char *rule, const char *sentence,
                                     dp_error *err) {
    return dp__fail_at(err, DP_E_FORMAT, rule, NULL, json->token, sentence, NULL);
}

DPDEF dp_status dp_json_string(const dp_json *json, char *to, size_t cap, size_t *bytes,
                               dp_error *err) {
    int    string = json->kind == DP_JSON_STRING || json->kind == DP_JSON_KEY;
    size_t n = string ? dp__json_text(json, to, cap) : 0;
    if (bytes != NULL) *bytes = n;
    if (!string) return dp__json_unexpected(json, "", "a string is expected", err);
    return n < cap ? DP_OK : dp__fail(err, DP_E_SPACE, "the array is too small");
}

DPDEF dp_status dp_json_integer(const dp_json *json, int64_t min, int64_t max, int64_t *to,
                                dp_error *err) {
    if (dp__json_int(json, min, max, to)) return DP_OK;
    return dp__json_unexpected(json, "J6", "an integer in its range is expected", err);
}

DPDEF dp_status dp_json_real(const dp_json *json, double *to, dp_error *err) {
    if (dp__json_double(json, to)) return DP_OK;
    return dp__json_unexpected(json, "J6", "a number in its range is expected", err);
}

/* ---- SHA-256 ------------------------------------------------------------------------------ */

DPDEF void dp_sha256(const void *data, size_t bytes, char hex[65]) {
    dp__sha256 s;
    uint8_t    digest[32];
    dp__sha256_init(&s);
    dp__sha256_add(&s, data, bytes);
    dp__sha256_end(&s, digest);
    dp__hex(digest, sizeof digest, hex);
}

/* ---- Machine ------------------------------------------------------------------------------- */

DPDEF dp_isa dp_isa_best(void) {
    return dp__row_select(dp__cpu_bits(), dp__os_bits(), DP_ISA_AUTO, 0)->isa;
}

DPDEF const char *dp_isa_name(dp_isa isa) {
    static const char *const names[DP_ISA_COUNT] = {"auto", "scalar", "avx2", "avx-vnni",
                                                    "avx512", "avx512-vnni", "avx512-bf16", "amx"};
    return (unsigned)isa < (unsigned)DP_ISA_COUNT ? names[isa] : "unknown";
}

DPDEF const char *dp_isa_missing(dp_isa isa) {
    return dp__row_missing(isa, dp__cpu_bits(), dp__os_bits());
}

/* ---- Model --------------------------------------------------------------------------------- */

/* The texts of a model directory that are read, in this order. */
enum { DP__CONFIG_TEXT, DP__WORDS_TEXT, DP__MAP_TEXT, DP__ADDED_TEXT, DP__VOCAB_TEXT, DP__TEXTS };
static const char *const dp__text_names[] = {"config.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt"};

/* What a model is made of: texts, from a directory or from memory, and weights: from a
 * source, from the directory, or drawn. */
typedef struct dp__recipe {
    dp_open_options   o;
    const char       *path;             /* of the directory; NULL: there is none */
    void             *dir;
    const char       *text[DP__TEXTS];  /* without a directory; NULL: missing */
    size_t            bytes[DP__TEXTS];
    const dp__source *weights;          /* NULL: the directory's or drawn */
    int               derived; /* 1: from another model; without weights it will have none */
} dp__recipe;

DPDEF void dp_model_close(dp_model *model) {
    if (model == NULL) return;
    dp__arena arena = model->arena; /* which holds the model itself */
    dp__net_close(&model->net);
    dp__arena_free(&arena);
}

static dp_status dp__model_alloc(const dp_env *env, dp_model **out, dp_error *err) {
    dp_env         full;
    dp__arena      arena;
    const dp__row *row;
    dp_status      status = dp__env_init(env, &full, err);
    if (status == DP_OK) status = dp__env_row(&full, &row, err);
    if (status != DP_OK) return status;
    dp__arena_init(&arena, &full.alloc);
    dp_model *model = (dp_model *)dp__arena_get(&arena, 1, sizeof *model);
    if (model == NULL) return dp__no_memory(err);
    model->env = full;
    model->row = row;
    model->arena = arena;
    *out = model;
    return DP_OK;
}

/* Text number which of a recipe, in memory of the model. */
static dp_status dp__recipe_text(dp_model *model, const dp__recipe *r, int which, char **text,
                                 size_t *bytes, dp_error *err) {
    uint64_t most = which == DP__VOCAB_TEXT ? DP_MAX_VOCAB_BYTES : DP_MAX_CONFIG_BYTES;
    *text = NULL;
    *bytes = r->bytes[which];
    if (r->dir != NULL)
        return dp__file_read(&model->env, r->dir, dp__text_names[which], most, &model->arena,
                             text, bytes, err);
    if (r->text[which] == NULL) return DP_E_NOT_FOUND;
    *text = (char *)dp__arena_get(&model->arena, *bytes, 1);
    if (*text == NULL) return dp__no_memory(err);
    memcpy(*text, r->text[which], *bytes);
    return DP_OK;
}

/* The labels given, if any, replace those of the configuration, which is then written and read
 * again: so labels of a caller pass the same checks as those of a file. */
static dp_status dp__model_labels(dp_model *model, const dp_open_options *o, int *changed,
                                  dp_error *err) {
    dp__config config = model->config;
    dp__buffer text;
    if ((o->labels == NULL) != (o->label_count == 0) || (uint32_t)o->label_count > DP_MAX_CLASSES)
        return dp__fail(err, DP_E_ARG, "labels and label_count do not agree, or are too many");
    *changed = o->label_count > 0 && o->label_count != config.classes;
    for (int32_t i = 0; i < o->label_count && !*changed; i++)
        *changed = strcmp(o->labels[i], config.labels[i]) != 0;
    if (!*changed) return DP_OK;
    config.labels = (const char **)(uintptr_t)o->labels;
    config.classes = o->label_count;
    if (!config.problem_given) config.problem = DP_SINGLE_LABEL; /* one unnamed label was a value */
    dp__buffer_init(&text, &model->env.alloc);
    dp_status status = dp__config_write(&config, &text) ? DP_OK : dp__no_memory(err);
    if (status == DP_OK)
        status = dp__config_parse(text.p, text.n, &model->arena, "config.json with the labels",
                                  &model->config, err);
    dp__buffer_free(&text);
    for (int32_t i = 0; i < o->label_count && status == DP_OK; i++) /* bad UTF-8 was replaced */
        if (strcmp(o->labels[i], model->config.labels[i]) != 0) status = DP_E_FORMAT;
    if (status != DP_E_FORMAT) return status;
    return dp__fail(err, DP_E_ARG, "a label stands twice, is too long or not plain UTF-8");
}

/* Vocabulary and case, with notes about what is unusual. */
static dp_status dp__model_vocab(dp_model *model, const dp__recipe *r, const char *text,
                                 size_t bytes, dp_error *err) {
    const char      *file = dp__text_names[DP__VOCAB_TEXT];
    const dp__vocab *vocab = &model->tokenizer.vocab;
    if (r->o.letter_case != DP_CASE_MODEL) {
        model->words.lower_case = r->o.letter_case == DP_CASE_LOWER;
        model->words.explicit_case = 1;
    }
    dp_status status = dp__tokenizer_init(&model->tokenizer, text, bytes, &model->arena, file,
                                          &model->words, model->config.positions, err);
    if (status != DP_OK) return status;
    if (vocab->count > model->config.vocab)
        return dp__fail_at(err, DP_E_FORMAT, "V1", file, DP_NO_PLACE,
                           "more entries than the embedding table has rows", NULL);
    if (r->derived) return DP_OK;
    if (vocab->count < model->config.vocab)
        dp__note(model, DP_LOG_INFO, "the vocabulary is smaller than the embedding table");
    if (vocab->duplicates > 0)
        dp__note(model, DP_LOG_WARNING, "the vocabulary has duplicate entries");
    if (vocab->cased > 0 && model->words.lower_case && !model->words.explicit_case)
        dp__note(model, DP_LOG_WARNING, "texts are lower-cased by default although the "
                "vocabulary has capital letters (as transformers does)");
    return DP_OK;
}

/* The class of the tokenizer, as transformers finds it: config.json names it where the file of the
 * tokenizer does not (T3). DistilBERT's gives no token types unless model_input_names has them. */
static dp_status dp__model_tokenizer(dp_model *model, dp_error *err) {
    dp__tokenizer_config *to = &model->words;
    if (to->kind < 0 && model->config.tokenizer == 1)
        return dp__fail_at(err, DP_E_UNSUPPORTED, "T3", "config.json", DP_NO_PLACE,
                           "this tokenizer_class is not supported", NULL);
    if (to->kind < 0) to->kind = model->config.tokenizer > 0 ? model->config.tokenizer - 2 : 0;
    if (to->types == 0) to->types = to->kind == 0 ? 2 : 1;
    to->kind = 0; /* as it is written: with the types said, a class of its own adds nothing */
    return DP_OK;
}

/* Rules and special words of the tokenizer. As in transformers, the names of the older files hold,
 * but not where the configuration lists the added words. */
static dp_status dp__model_words(dp_model *model, const dp__recipe *r, dp_error *err) {
    dp__tokenizer_config *to = &model->words;
    dp__arena            *arena = &model->arena;
    char                 *text;
    size_t                bytes;
    dp_status             status = DP_OK;
    dp__members_usual(dp__tokenizer_members, to, sizeof *to);
    for (int i = DP__WORDS_TEXT; i <= DP__ADDED_TEXT && status == DP_OK && !to->lists_added; i++) {
        const char *file = dp__text_names[i];
        status = dp__recipe_text(model, r, i, &text, &bytes, err);
        if (status == DP_E_NOT_FOUND) status = DP_OK;
        else if (status == DP_OK && i == DP__ADDED_TEXT)
            status = dp__added_tokens_parse(text, bytes, arena, file, err);
        else if (status == DP_OK)
            status = dp__tokenizer_config_parse(text, bytes, arena, file, to, err);
    }
    return status == DP_OK ? dp__model_tokenizer(model, err) : status;
}

/* Configuration, labels, vocabulary and the table of parameters. */
static dp_status dp__model_texts(dp_model *model, const dp__recipe *r, int *new_labels,
                                 dp_error *err) {
    dp__arena *arena = &model->arena;
    char      *text;
    size_t     bytes;
    dp_status  status = dp__recipe_text(model, r, DP__CONFIG_TEXT, &text, &bytes, err);
    if (status == DP_OK)
        status = dp__config_parse(text, bytes, arena, "config.json", &model->config, err);
    if (status == DP_OK) status = dp__model_labels(model, &r->o, new_labels, err);
    if (status != DP_OK) return status;
    status = dp__model_words(model, r, err);
    if (status == DP_OK) status = dp__recipe_text(model, r, DP__VOCAB_TEXT, &text, &bytes, err);
    if (status == DP_E_NOT_FOUND)
        return dp__fail_at(err, status, "", dp__text_names[DP__VOCAB_TEXT], DP_NO_PLACE,
                           "does not exist (tokenizer.json is not read)", NULL);
    if (status == DP_OK) status = dp__model_vocab(model, r, text, bytes, err);
    return status == DP_OK ? dp__params_init(&model->params, &model->config, arena, err) : status;
}

/* Which tensor of the files goes where, and which are new: new labels need a new classifier. */
static dp_status dp__model_bind(dp_model *model, const dp_open_options *o, int new_labels,
                                dp__files *files, dp_error *err) {
    dp__params *params = &model->params;
    size_t      first_new = o->new_head ? dp__tail_tensor(params, DP__POOL_W)
                          : new_labels  ? dp__tail_tensor(params, DP__CLASS_W) : params->count;
    dp_status   status = dp__bind(files, first_new, new_labels, &model->arena, err);
    if (status == DP_OK) status = dp__bind_int8(&model->config, files, err);
    if (status != DP_OK) return status;
    model->ignored = files->ignored + files->unknown;
    if (files->unknown > 0) {
        char line[160];
        dp__note(model, DP_LOG_WARNING, dp__numbered(line, "", files->unknown, " tensors of ",
                                                     "unknown names were left aside"));
    }
    return DP_OK;
}

/* The weights of a recipe; what files may lack is drawn. */
static dp_status dp__model_weights(dp_model *model, const dp__recipe *r, int new_labels,
                                   dp_error *err) {
    dp__store  store;
    dp__files  files = {&model->params, NULL, r->o.seed, model->config.init_range,
                        NULL, NULL, model->params.count, 0, 0};
    dp__source drawn = dp__source_files(&files);
    dp_status  status = DP_OK;
    if (r->derived && r->weights == NULL) return DP_OK;
    if (!r->derived && r->dir == NULL && model->config.quantized)
        return dp__fail(err, DP_E_ARG, "a new model cannot be quantized");
    if (r->dir != NULL) {
        status = dp__store_open(&store, &model->env, r->dir, &model->arena, err);
        if (status != DP_OK) return status;
        files.store = &store;
        status = dp__model_bind(model, &r->o, new_labels, &files, err);
    }
    model->new_tensors = r->derived ? 0 : files.missing;
    drawn.bf16 = r->o.dtype == DP_BF16;
    if (status == DP_OK)
        status = dp__net_open(&model->net, &model->env.alloc, model->row, &model->config,
                              &model->params, NULL, r->derived ? r->weights : &drawn, err);
    if (r->dir != NULL) dp__store_close(&store);
    return status;
}

static dp_status dp__check_case(dp_case letter_case, dp_error *err) {
    if ((unsigned)letter_case <= (unsigned)DP_CASE_KEEP) return DP_OK;
    return dp__fail(err, DP_E_ARG, "letter_case is none of dp_case");
}

/* A model from a recipe: the only way to make one. */
static dp_status dp__model_make(const dp_env *env, dp__recipe *r, dp_model **out, dp_error *err) {
    int       new_labels = 0;
    uint32_t  fp = dp__fp_enter();
    dp_status status = dp__check_case(r->o.letter_case, err);
    if (status == DP_OK) status = dp__model_alloc(env, out, err);
    if (status == DP_OK && r->path != NULL)
        status = dp__dir_open(&(*out)->env, r->path, 0, &r->dir, err);
    if (status == DP_OK) status = dp__model_texts(*out, r, &new_labels, err);
    if (status == DP_OK) status = dp__model_weights(*out, r, new_labels, err);
    if (r->dir != NULL) (*out)->env.io.close_dir((*out)->env.io.ctx, r->dir);
    if (status != DP_OK) {
        dp_model_close(*out);
        *out = NULL;
    }
    return dp__fp_return(fp, status);
}

DPDEF dp_status dp_model_open_with(const dp_env *env, const char *dir,
                                   const dp_open_options *options, dp_model **out, dp_error *err) {
    dp__recipe r;
    memset(&r, 0, sizeof r);
    r.path = dir;
    *out = NULL;
    dp_status status = dp__options_copy(&r.o, sizeof r.o, options, err);
    if (status == DP_OK && dir == NULL) status = dp__fail(err, DP_E_ARG, "dir is NULL");
    if (status == DP_OK && (unsigned)r.o.dtype > (unsigned)DP_BF16)
        status = dp__fail(err, DP_E_ARG, "dp_open_options.dtype is no type");
    return status == DP_OK ? dp__model_make(env, &r, out, err) : status;
}

DPDEF dp_status dp_model_open(const dp_env *env, const char *dir, dp_model **out, dp_error *err) {
    return dp_model_open_with(env, dir, NULL, out, err);
}

DPDEF dp_status dp_model_new(const dp_env *env, const dp_model_spec *spec, dp_model **out,
                             dp_error *err) {
    dp_model_spec s;
    dp__recipe    r;
    memset(&r, 0, sizeof r);
    *out = NULL;
    dp_status status = dp__options_copy(&s, sizeof s, spec, err);
    if (status == DP_OK && (s.config == NULL || s.vocab == NULL))
        status = dp__fail(err, DP_E_ARG, "a new model needs a configuration and a vocabulary");
    if (status != DP_OK) return status;
    r.text[DP__CONFIG_TEXT] = s.config;
    r.bytes[DP__CONFIG_TEXT] = s.config_bytes;
    r.text[DP__VOCAB_TEXT] = s.vocab;
    r.bytes[DP__VOCAB_TEXT] = s.vocab_bytes;
    r.o.labels = s.labels;
    r.o.label_count = s.label_count;
    r.o.letter_case = s.letter_case;
    r.o.seed = s.seed;
    return dp__model_make(env, &r, out, err);
}

/* A model like another, with weights from a source (NULL: none): what training and quantization
 * give. config replaces the configuration; it is copied by writing and reading it. */
static dp_status dp__model_derive(const dp_model *from, const dp__config *config,
                                  const dp__source *weights, dp_model **out, dp_error *err) {
    const dp__vocab *vocab = &from->tokenizer.vocab;
    dp__buffer       text[2];
    dp__recipe       r;
    memset(&r, 0, sizeof r);
    *out = NULL;
    for (int i = 0; i < 2; i++) dp__buffer_init(&text[i], &from->env.alloc);
    int       written = dp__config_write(config, &text[DP__CONFIG_TEXT]) &&
                        dp__tokenizer_config_write(&from->words, config->positions,
                                                   &text[DP__WORDS_TEXT]);
    dp_status status = written ? DP_OK : dp__no_memory(err);
    for (int i = 0; i < 2; i++) {
        r.text[i] = text[i].p;
        r.bytes[i] = text[i].n;
    }
    r.text[DP__VOCAB_TEXT] = vocab->text;
    r.bytes[DP__VOCAB_TEXT] = vocab->text_bytes;
    r.weights = weights;
    r.derived = 1;
    if (status == DP_OK) status = dp__model_make(&from->env, &r, out, err);
    for (int i = 0; i < 2; i++) dp__buffer_free(&text[i]);
    return status;
}

DPDEF void dp_model_get_info(const dp_model *model, dp_model_info *info) {
    const dp__config *c = &model->config;
    dp_clear(info, sizeof *info);
    info->layers = c->layers;
    info->hidden = c->hidden;
    info->heads = c->heads;
    info->inner = c->inner;
    info->vocab = c->vocab;
    info->positions = c->positions;
    info->types = c->types;
    info->classes = c->classes;
    info->problem = (dp_problem)c->problem;
    info->lower_case = model->words.lower_case;
    info->cased_vocab = model->tokenizer.vocab.cased > 0;
    info->int8_linears = model->net.int8_linears;
    info->bf16_linears = model->net.bf16_linears;
    info->bf16_native = model->row->b16.group == 2 && model->row->isa > DP_ISA_SCALAR;
    info->int8_tables = model->net.int8_tables;
    info->new_tensors = (int32_t)model->new_tensors;
    info->ignored_tensors = (int32_t)model->ignored;
    info->parameters = model->params.values;
    info->weight_bytes = model->net.bytes;
    info->dropout = c->hidden_dropout;
}

DPDEF const char *dp_model_label(const dp_model *model, int32_t cls) {
    return cls < 0 || cls >= model->config.classes ? NULL : model->config.labels[cls];
}

/* Order of a text, which has no 0 behind it, and a place of a label. */
static int dp__label_search(const void *text, const void *place) {
    const dp_text *key = (const dp_text *)text;
    const char    *label = **(const char *const *const *)place;
    size_t         n = strlen(label);
    int            order = memcmp(key->a, label, n < key->a_bytes ? n : key->a_bytes);
    return order != 0 ? order : (key->a_bytes > n) - (key->a_bytes < n);
}

DPDEF int32_t dp_model_find_label(const dp_model *model, const char *name, size_t name_bytes) {
    const dp__config *c = &model->config;
    dp_text           key = {name != NULL ? name : "", name_bytes, NULL, 0};
    const char ***at = (const char ***)bsearch(&key, c->by_name, (size_t)c->classes,
                                               sizeof *c->by_name, dp__label_search);
    return at != NULL ? (int32_t)(*at - c->labels) : -1;
}

DPDEF dp_status dp_encode(const dp_model *model, const dp_text *text,
                          const dp_encode_options *options, dp_encoding *out, dp_error *err) {
    dp_encode_options o;
    dp__scratch       scratch;
    dp_status         status = dp__options_copy(&o, sizeof o, options, err);
    if (status != DP_OK) return status;
    dp__scratch_init(&scratch, &model->env.alloc);
    status = dp__encode(&model->tokenizer, &scratch, text, &o, out, err);
    dp__scratch_free(&scratch);
    return status;
}

/* ---- Saving -------------------------------------------------------------------------------- */

/* The tensors of a model as entries of a file: each parameter, and the scales of INT8 ones. An
 * entry's field file holds 2 t for tensor t, 2 t + 1 for its scales. 0: no memory. */
static size_t dp__save_entries(const dp__params *params, const dp__source *source,
                               dp__arena *arena, dp__entry *entries) {
    size_t count = 0;
    for (uint32_t i = 0; i < 2 * params->count; i++) {
        const dp__tensor *x = &params->list[i / 2];
        int               int8 = source->is_int8(source->ctx, i / 2), scale = (int)(i % 2);
        if (scale && !int8) continue;
        char    *to = (char *)dp__arena_get(arena, sizeof x->name + 6, 1);
        dp__text name = {to, sizeof x->name + 6, 0};
        if (to == NULL) return 0;
        dp__text_add(&name, x->name);
        if (scale) dp__text_add(&name, "_scale");
        dp__entry *e = &entries[count++];
        e->name = to;
        e->dtype = int8 && !scale ? DP__I8 : DP__F32;
        e->dims = x->dims;
        e->shape[0] = x->rows;
        e->shape[1] = scale ? 1 : x->cols;
        e->file = i;
    }
    return count;
}

/* Appends one entry, a panel of rows at a time: stage [DP__PANEL, widest]. */
static dp_status dp__save_tensor(const dp__params *params, const dp__source *source,
                                 const dp__entry *e, dp__st_writer *w, dp_real *stage,
                                 dp_error *err) {
    size_t            t = e->file / 2;
    const dp__tensor *x = &params->list[t];
    dp_real           scales[DP__PANEL];
    dp_status         status = DP_OK;
    int               int8 = source->is_int8(source->ctx, t), scale = (int)(e->file % 2);
    for (size_t row = 0; row < x->rows && status == DP_OK; row += DP__PANEL) {
        size_t rows = x->rows - row < DP__PANEL ? x->rows - row : DP__PANEL;
        status = source->read(source->ctx, t, row, rows, stage, int8 ? scales : NULL, err);
        if (status != DP_OK) return status;
        status = dp__st_append(w, e, scale ? scales : stage, scale ? rows : rows * x->cols, err);
    }
    return status;
}

/* Without its config.json a directory cannot be opened until it is complete again. That goes when
 * the weights, all but the name of their file, are written: on a full disk the old model stays.
 * The others are not written again and would be read as parts of the new model. */
static dp_status dp__save_unseal(const dp_model *model, void *dir, dp_error *err) {
    static const char *const names[] = {"config.json", "added_tokens.json", "tokenizer.json",
                                        "model.safetensors.index.json"};
    const dp_io *io = &model->env.io;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        dp_status status = io->remove(io->ctx, dir, names[i]);
        if (status != DP_OK && status != DP_E_NOT_FOUND) return dp__io_fail(err, status, names[i]);
    }
    return DP_OK;
}

static dp_status dp__save_weights(const dp_model *model, void *dir, dp__arena *arena,
                                  dp_error *err) {
    const dp__params *params = &model->params;
    const dp__config *c = &model->config;
    dp__source        source = dp__source_net(&model->net);
    dp__st_writer     w;
    size_t     widest = (size_t)(c->inner > c->hidden ? c->inner : c->hidden), count = 0;
    dp__entry *entries = (dp__entry *)dp__arena_get(arena, 2 * params->count, sizeof *entries);
    dp_real   *stage = (dp_real *)dp__arena_get(arena, DP__PANEL * widest, sizeof *stage);
    if (entries != NULL) count = dp__save_entries(params, &source, arena, entries);
    if (arena->failed) return dp__no_memory(err);
    dp_status status = dp__st_begin(&w, &model->env, dir, "model.safetensors", entries, count,
                                    NULL, err);
    for (size_t i = 0; i < count && status == DP_OK; i++)
        status = dp__save_tensor(params, &source, &entries[i], &w, stage, err);
    if (status == DP_OK) status = dp__save_unseal(model, dir, err);
    if (status == DP_OK) return dp__st_end(&w, err);
    dp__st_abort(&w);
    return status;
}

/* The texts of the directory, config.json last. */
static dp_status dp__save_texts(const dp_model *model, void *dir, dp_error *err) {
    static const char *const names[3] = {"tokenizer_config.json", "special_tokens_map.json",
                                         "config.json"};
    const dp__vocab *vocab = &model->tokenizer.vocab;
    dp__buffer       b;
    dp_status status = dp__file_write(&model->env, dir, "vocab.txt", vocab->text,
                                      vocab->text_bytes, err);
    dp__buffer_init(&b, &model->env.alloc);
    for (int i = 0; i < 3 && status == DP_OK; i++) {
        b.n = 0;
        int32_t positions = i == 0 ? model->config.positions : 0;
        int     done = i < 2 ? dp__tokenizer_config_write(&model->words, positions, &b)
                             : dp__config_write(&model->config, &b);
        status = done ? dp__file_write(&model->env, dir, names[i], b.p, b.n, err)
                      : dp__no_memory(err);
    }
    dp__buffer_free(&b);
    return status;
}

DPDEF dp_status dp_model_save(const dp_model *model, const char *dir, dp_error *err) {
    const dp_io *io = &model->env.io;
    void        *handle = NULL;
    dp__arena    arena;
    dp_status    status = dp__dir_open(&model->env, dir, 1, &handle, err);
    if (status != DP_OK) return status;
    uint32_t fp = dp__fp_enter();
    dp__arena_init(&arena, &model->env.alloc);
    status = dp__save_weights(model, handle, &arena, err);
    if (status == DP_OK) status = dp__save_texts(model, handle, err);
    dp__arena_free(&arena);
    io->close_dir(io->ctx, handle);
    return dp__fp_return(fp, status);
}

/* ---- Prediction ---------------------------------------------------------------------------- */

#define DP__BATCH_TOKENS 1024u /* enough rows for the matrix kernels; activations stay in L2 */

/* Documents in, logits out, a batch at a time. A batch has room for token_cap tokens, and for half
 * as many texts: each has [CLS] and [SEP] at least. */
struct dp_session {
    const dp_model   *model;
    dp__arena         arena;   /* this structure and the arrays below */
    dp__exec          exec;
    dp__work          work;
    dp__scratch       scratch; /* of the tokenizer */
    dp_encode_options encode;
    size_t            batch_tokens, token_cap; /* computed when it holds so many; room */
    int32_t          *ids, *types;             /* [token_cap] */
    size_t           *begin;                   /* [token_cap / 2 + 1] */
    dp_prediction    *infos;                   /* [token_cap / 2] */
};

DPDEF void dp_session_close(dp_session *session) {
    if (session == NULL) return;
    dp__arena arena = session->arena;
    size_t    bytes = session->token_cap * sizeof *session->ids;
    if (session->ids != NULL) dp__wipe(session->ids, bytes);
    if (session->types != NULL) dp__wipe(session->types, bytes);
    dp__scratch_free(&session->scratch);
    dp__work_close(&session->work);
    dp__exec_close(&session->exec);
    dp__arena_free(&arena);
}

DPDEF uint64_t dp_session_memory(const dp_session *session) {
    const dp__side *part = session->scratch.part;
    const dp__exec *x = &session->exec;
    uint64_t        packing = (uint64_t)x->threads * DP__SCRATCH * sizeof(dp_real);
    if (x->team != NULL) packing += dp__team_bytes(x->asked);
    return session->work.bytes + packing + session->arena.total +
           (part[0].cap + part[1].cap) * sizeof *part->kept;
}

/* What the limit leaves for batches, with tokens of both parts of a document at hand. */
static dp_status dp__session_limit(dp_session *s, uint64_t limit, dp_error *err) {
    uint64_t fixed = dp_session_memory(s) +
                     2 * (uint64_t)s->encode.max_tokens * sizeof *s->scratch.part->kept;
    if (limit > 0 && limit <= fixed)
        return dp__fail(err, DP_E_LIMIT, "memory_limit is too little for any text");
    s->work.limit = limit > 0 ? limit - fixed : 0;
    return DP_OK;
}

DPDEF dp_status dp_session_open(const dp_model *model, const dp_session_options *options,
                                dp_session **out, dp_error *err) {
    size_t             positions = (size_t)model->config.positions;
    dp_session_options o;
    dp__arena          arena;
    dp_status          status = dp__options_copy(&o, sizeof o, options, err);
    *out = NULL;
    if (status == DP_OK) status = dp__check_case(o.letter_case, err);
    if (status != DP_OK) return status;
    if (o.max_tokens == 0) o.max_tokens = positions < 512 ? (int32_t)positions : 512;
    if (o.max_tokens < 3 || (size_t)o.max_tokens > positions ||
        (unsigned)o.batch_tokens > DP_MAX_POSITIONS)
        return dp__fail(err, DP_E_ARG, "max_tokens (3 to the positions) or batch_tokens is wrong");
    dp__arena_init(&arena, &model->env.alloc);
    dp_session *s = (dp_session *)dp__arena_get(&arena, 1, sizeof *s);
    if (s == NULL) return dp__no_memory(err);
    s->model = model;
    s->encode.max_tokens = o.max_tokens;
    s->encode.letter_case = o.letter_case;
    s->batch_tokens = o.batch_tokens > 0 ? (size_t)o.batch_tokens : DP__BATCH_TOKENS;
    s->token_cap = s->batch_tokens + positions;
    s->types = (int32_t *)dp__arena_get(&arena, s->token_cap, sizeof *s->types);
    s->begin = (size_t *)dp__arena_get(&arena, s->token_cap / 2 + 1, sizeof *s->begin);
    s->infos = (dp_prediction *)dp__arena_get(&arena, s->token_cap / 2, sizeof *s->infos);
    s->ids = (int32_t *)dp__arena_get(&arena, s->token_cap, sizeof *s->ids);
    s->arena = arena;
    dp__work_init(&s->work, &arena.alloc, 0);
    s->work.attention32 = o.attention32 != 0;
    dp__scratch_init(&s->scratch, &arena.alloc);
    status = arena.failed ? dp__no_memory(err) : dp__exec_open(&s->exec, &model->env, err);
    if (status == DP_OK) status = dp__session_limit(s, o.memory_limit, err);
    if (status == DP_OK) *out = s;
    else dp_session_close(s);
    return status;
}

/* Encodes one document as text n of the batch. */
static dp_status dp__session_encode(dp_session *s, const dp_text *text, size_t n, dp_error *err) {
    size_t         at = s->begin[n];
    dp_prediction *info = &s->infos[n];
    dp_encoding    e = {s->ids + at, s->types + at, NULL, NULL, s->token_cap - at, 0, 0, 0, 0};
    if (text->b != NULL && s->model->config.types < 2)
        return dp__fail(err, DP_E_ARG, "a pair of texts, but the model has one token type");
    dp_status status = dp__encode(&s->model->tokenizer, &s->scratch, text, &s->encode, &e, err);
    s->begin[n + 1] = at + e.n;
    info->tokens = e.n;
    info->total = e.total;
    info->truncated = e.total > e.n;
    info->unknown = e.unknown;
    info->invalid = e.invalid;
    return status;
}

/* Computes the n texts that stand in ids, types and begin: work.logits [n, K], work.pooled. */
static dp_status dp__session_run(dp_session *s, size_t n, dp_error *err) {
    dp__batch batch = {s->ids, s->types, s->begin, NULL, n, 0, n};
    dp__pass  pass;
    dp_status status = dp__pass_begin(&pass, &s->exec, &s->model->net, &batch, &s->work, NULL,
                                      NULL, err);
    if (status == DP_OK) dp__forward(&pass);
    return status;
}

/* The first *count of n > 0 documents, as many as make a batch: infos and work.logits. */
static dp_status dp__session_next(dp_session *s, const dp_text *texts, size_t n, size_t *count,
                                  dp_error *err) {
    size_t    classes = (size_t)s->model->config.classes, rows = 0;
    dp_status status = DP_OK;
    s->begin[0] = 0;
    for (; rows < n && s->begin[rows] < s->batch_tokens && status == DP_OK; rows++)
        status = dp__session_encode(s, &texts[rows], rows, err);
    if (status == DP_OK) status = dp__session_run(s, rows, err);
    int ranked = s->model->config.problem != DP_REGRESSION;
    for (size_t i = 0; i < rows && status == DP_OK; i++)
        s->infos[i].best = ranked ? (int32_t)dp__best(s->work.logits + i * classes, classes) : 0;
    *count = rows;
    return status;
}

/* p [K] of logits z [K]: softmax, sigmoid, or the values themselves. */
static void dp__probabilities(float *p, const dp_real *z, size_t classes, dp_problem problem) {
    dp_real most = z[dp__best(z, classes)], sum = 0;
    for (size_t k = 0; k < classes; k++) {
        dp_real v = z[k];
        if (problem == DP_SINGLE_LABEL) v = dp__exp(z[k] - most);
        else if (problem == DP_MULTI_LABEL) v = 1 / (1 + dp__exp(-z[k]));
        sum += v;
        p[k] = (float)v;
    }
    for (size_t k = 0; k < classes && problem == DP_SINGLE_LABEL; k++) p[k] /= (float)sum;
}

/* The results of n texts behind a batch: prob and logits [n, K] or NULL. */
static void dp__session_results(const dp_session *s, size_t n, float *prob, float *logits) {
    size_t         classes = (size_t)s->model->config.classes;
    dp_problem     problem = (dp_problem)s->model->config.problem;
    const dp_real *z = s->work.logits;
    for (size_t i = 0; i < n * classes && logits != NULL; i++) logits[i] = (float)z[i];
    for (size_t i = 0; i < n && prob != NULL; i++)
        dp__probabilities(prob + i * classes, z + i * classes, classes, problem);
}

DPDEF dp_status dp_predict_batch(dp_session *session, const dp_text *texts, size_t n,
                                 float *prob, float *logits, dp_prediction *infos, dp_error *err) {
    size_t    classes = (size_t)session->model->config.classes;
    uint32_t  fp = dp__fp_enter();
    dp_status status = DP_OK;
    for (size_t at = 0, count; at < n && status == DP_OK; at += count) {
        status = dp__session_next(session, texts + at, n - at, &count, err);
        if (status != DP_OK) break;
        dp__session_results(session, count, prob != NULL ? prob + at * classes : NULL,
                            logits != NULL ? logits + at * classes : NULL);
        if (infos != NULL) memcpy(infos + at, session->infos, count * sizeof *infos);
    }
    if (status != DP_OK && prob != NULL) memset(prob, 0, n * classes * sizeof *prob);
    if (status != DP_OK && logits != NULL) memset(logits, 0, n * classes * sizeof *logits);
    return dp__fp_return(fp, status);
}

DPDEF dp_status dp_predict(dp_session *session, const char *text, size_t text_bytes, float *prob,
                           size_t prob_cap, dp_prediction *info, dp_error *err) {
    dp_text one = {text, text_bytes, NULL, 0};
    if (prob == NULL || prob_cap < (size_t)session->model->config.classes)
        return dp__fail(err, DP_E_SPACE, "prob has less room than the model has classes");
    return dp_predict_batch(session, &one, 1, prob, NULL, info, err);
}

DPDEF dp_status dp_predict_ids(dp_session *session, const int32_t *ids, const int32_t *types,
                               size_t n, float *prob, float *logits, float *pooled, dp_error *err) {
    const dp__config *c = &session->model->config;
    if (n < 1 || n > (size_t)c->positions)
        return dp__fail(err, DP_E_ARG, "the sequence is empty or longer than the positions");
    for (size_t i = 0; i < n; i++) {
        int32_t type = types != NULL ? types[i] : 0;
        if (ids[i] < 0 || ids[i] >= c->vocab || type < 0 || type >= c->types)
            return dp__fail(err, DP_E_ARG, "a token id or type is out of range");
        session->ids[i] = ids[i];
        session->types[i] = type;
    }
    session->begin[0] = 0;
    session->begin[1] = n;
    uint32_t  fp = dp__fp_enter();
    dp_status status = dp__session_run(session, 1, err);
    if (status == DP_OK) dp__session_results(session, 1, prob, logits);
    for (size_t k = 0; k < (size_t)c->hidden && status == DP_OK && pooled != NULL; k++)
        pooled[k] = (float)session->work.pooled.p[k];
    return dp__fp_return(fp, status);
}

/* ---- Quantization -------------------------------------------------------------------------- */

#ifndef DP_NO_QUANTIZE
DPDEF dp_status dp_quantize(const dp_model *model, const dp_dataset *calibration,
                            const dp_quant_options *options, dp_model **out,
                            dp_quant_report *report, dp_error *err) {
    static const char *const ignore[1] = {"classifier"};
    dp_quant_options o;
    dp__config       config = model->config;
    dp__quantizer    z;
    dp__arena        arena;
    dp_status        status = dp__options_copy(&o, sizeof o, options, err);
    (void)calibration; /* dynamic quantization needs none */
    *out = NULL;
    if (status == DP_OK && o.approach != DP_DYNAMIC)
        status = dp__fail(err, DP_E_UNSUPPORTED, "only dynamic quantization is supported yet");
    if (status == DP_OK && (unsigned)o.weights > DP_WEIGHTS_QUADS)
        status = dp__fail(err, DP_E_ARG, "dp_quant_options.weights is no form of weights");
    if (status == DP_OK && model->config.quantized)
        status = dp__fail(err, DP_E_UNSUPPORTED, "the model is INT8 already");
    if (status != DP_OK) return status;
    uint32_t fp = dp__fp_enter();
    dp__arena_init(&arena, &model->env.alloc);
    status = dp__quantizer_init(&z, &model->net, model->row, &o, &arena, err);
    dp__source source = {&z, dp__quantizer_is_int8, dp__quantizer_values, 0};
    config.quantized = 1;
    config.int8_tables = o.embeddings != 0;
    config.ignore_count = 1;
    config.ignore = (const char **)(uintptr_t)ignore;
    if (status == DP_OK) status = dp__model_derive(model, &config, &source, out, err);
    if (status == DP_OK && report != NULL) dp__quantizer_report(&z, report);
    dp__arena_free(&arena);
    return dp__fp_return(fp, status);
}
#endif

/* ---- Training ------------------------------------------------------------------------------ */

#ifndef DP_NO_TRAIN
DPDEF void dp_trainer_close(dp_trainer *trainer) {
    if (trainer == NULL) return;
    dp__micro *p = &trainer->piece;
    if (p->ids != NULL) dp__wipe(p->ids, p->tokens * sizeof *p->ids);
    if (p->types != NULL) dp__wipe(p->types, p->tokens * sizeof *p->types);
    dp__work_close(&trainer->work);
    dp__exec_close(&trainer->exec);
    dp_model_close(trainer->model);
}

DPDEF dp_status dp_trainer_open(const dp_model *start, const dp_train_options *options,
                                dp_trainer **out, dp_error *err) {
    dp__source       weights = dp__source_net(&start->net);
    dp__config       config = start->config;
    dp_model        *model = NULL;
    dp_trainer      *t = NULL;
    dp_train_options o;
    uint32_t         fp = dp__fp_enter();
    dp_status        status = dp__train_options(&o, options, config.positions, err);
    *out = NULL;
    if (status == DP_OK && config.quantized)
        status = dp__fail(err, DP_E_UNSUPPORTED, "an INT8 model cannot be trained");
    if (o.dropout != 0)
        config.hidden_dropout = config.attention_dropout = config.classifier_dropout =
            o.dropout > 0 ? (float)o.dropout : 0;
    if (status == DP_OK) status = dp__model_derive(start, &config, NULL, &model, err);
    if (status == DP_OK) t = (dp_trainer *)dp__arena_get(&model->arena, 1, sizeof *t);
    if (t == NULL) {
        dp_model_close(model);
        return dp__fp_return(fp, status == DP_OK ? dp__no_memory(err) : status);
    }
    t->model = model;
    t->opt = o;
    status = dp__trainer_init(t, &weights, err);
    if (status == DP_OK) *out = t;
    else dp_trainer_close(t);
    return dp__fp_return(fp, status);
}

DPDEF dp_status dp_train_step(dp_trainer *trainer, const dp_dataset *batch, double *loss,
                              dp_error *err) {
    dp__corpus    corpus;
    dp__step_info info;
    uint32_t      fp = dp__fp_enter();
    dp_status     status = dp__corpus_open(&corpus, trainer->model, batch,
                                           trainer->opt.max_tokens, err);
    if (status == DP_OK)
        status = dp__trainer_step(trainer, &corpus, corpus.order, corpus.rows, &info, err);
    if (status == DP_OK && loss != NULL) *loss = info.loss / (double)corpus.rows;
    dp__corpus_close(&corpus);
    return dp__fp_return(fp, status);
}

DPDEF dp_status dp_train(dp_trainer *trainer, const dp_dataset *train, const dp_dataset *valid,
                         dp_train_report *report, dp_error *err) {
    int32_t         most = trainer->opt.max_tokens;
    dp_train_report unused, *r = report != NULL ? report : &unused;
    dp__run         run;
    uint32_t        fp = dp__fp_enter();
    DP_CLEAR(*r);
    r->loss = r->accuracy = r->valid_loss = r->valid_accuracy = r->valid_f1 = (double)NAN;
    memset(&run, 0, sizeof run);
    run.t = trainer;
    run.report = r;
    dp__work_init(&run.work, &trainer->model->env.alloc, 0);
    dp_status status = dp__corpus_open(&run.train, trainer->model, train, most, err);
    if (status == DP_OK && valid != NULL)
        status = dp__corpus_open(&run.valid, trainer->model, valid, most, err);
    if (status == DP_OK) status = dp__run_begin(&run, err);
    while (status == DP_OK && trainer->now.epoch < (uint64_t)trainer->opt.epochs)
        status = dp__run_epoch(&run, err);
    r->epochs = (int32_t)trainer->now.epoch;
    r->steps = trainer->now.step;
    r->skipped_steps = trainer->now.skipped;
    dp__work_close(&run.work);
    dp__corpus_close(&run.valid);
    dp__corpus_close(&run.train);
    return dp__fp_return(fp, status);
}

DPDEF dp_status dp_trainer_save(dp_trainer *trainer, const char *dir, const char *name,
                                dp_error *err) {
    uint32_t fp = dp__fp_enter();
    return dp__fp_return(fp, dp__ckpt_run(trainer, dir, name, dp__ckpt_save, err));
}

DPDEF dp_status dp_trainer_load(dp_trainer *trainer, const char *dir, const char *name,
                                dp_error *err) {
    uint32_t fp = dp__fp_enter();
    return dp__fp_return(fp, dp__ckpt_run(trainer, dir, name, dp__ckpt_load, err));
}

DPDEF uint64_t dp_trainer_step(const dp_trainer *trainer) {
    return trainer->now.step;
}

DPDEF dp_status dp_trainer_model(const dp_trainer *trainer, dp_model **out, dp_error *err) {
    const dp_model *model = trainer->model;
    dp__source      weights = dp__source_net(&model->net);
    uint32_t        fp = dp__fp_enter();
    return dp__fp_return(fp, dp__model_derive(model, &model->config, &weights, out, err));
}
#endif

/* ---- Evaluation ---------------------------------------------------------------------------- */

DPDEF dp_status dp_evaluate(dp_session *session, const dp_dataset *data, dp_metrics *out,
                            uint64_t *confusion, dp_error *err) {
    const dp__config *c = &session->model->config;
    const dp_alloc   *alloc = &session->arena.alloc;
    size_t            classes = (size_t)c->classes, truncated = 0;
    dp__meter         meter;
    uint32_t          fp = dp__fp_enter();
    dp_clear(out, sizeof *out);
    dp__tally *tally = (dp__tally *)dp__alloc(alloc, classes, sizeof *tally);
    dp_status  status = dp__dataset_check(data, c, err);
    if (status == DP_OK && tally == NULL) status = dp__no_memory(err);
    if (status == DP_OK) dp__meter_init(&meter, (dp_problem)c->problem, classes, tally, confusion);
    for (size_t at = 0, n; status == DP_OK && at < data->rows; at += n) {
        status = dp__session_next(session, data->texts + at, data->rows - at, &n, err);
        for (size_t i = 0; i < n && status == DP_OK; i++) {
            truncated += session->infos[i].truncated != 0;
            if (!dp__meter_add(&meter, session->work.logits + i * classes, data, at + i))
                status = dp__row_fail(err, DP_E_DIVERGED, at + i, "the output is not finite");
        }
    }
    if (status == DP_OK) {
        dp__meter_result(&meter, out);
        out->truncated = truncated;
    }
    dp__free(alloc, tally, classes, sizeof *tally);
    return dp__fp_return(fp, status);
}

/* ---- Self-test ----------------------------------------------------------------------------- */

/* A model small enough for the scalar row: odd widths, so that every tail is met. */
static const char dp__self_config[] =
    "{\"hidden_size\":60,\"num_hidden_layers\":2,\"num_attention_heads\":3,"
    "\"intermediate_size\":101,\"vocab_size\":35,\"max_position_embeddings\":64,"
    "\"initializer_range\":0.2,\"num_labels\":5}";
static const char dp__self_vocab[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nn\no\np\nq\nr\ns\nt\nu\n"
    "v\nw\nx\ny\nz\n##a\n##e\n##i\n##o\n.\n";

#define DP__SELF_ROWS 3
static const dp_text dp__self_texts[DP__SELF_ROWS] = {
    {"a be ca do. f i", 15, NULL, 0}, {"", 0, NULL, 0},
    {"h. i. we no so ha je . k l", 26, NULL, 0}};

/* Adds the bits of the logits of the texts. */
static dp_status dp__self_predict(const dp_model *model, dp__sha256 *hash, dp_error *err) {
    float       logits[DP__SELF_ROWS * 5];
    dp_session *session;
    dp_status   status = dp_session_open(model, NULL, &session, err);
    if (status == DP_OK)
        status = dp_predict_batch(session, dp__self_texts, DP__SELF_ROWS, NULL, logits, NULL, err);
    for (int i = 0; i < DP__SELF_ROWS * 5 && status == DP_OK; i++)
        dp__sha256_le(hash, 4, dp__f32_bits(logits[i]));
    dp_session_close(session);
    return status;
}

#ifndef DP_NO_TRAIN
/* The model after two steps with dropout. */
static dp_status dp__self_train(const dp_model *model, dp_model **out, dp_error *err) {
    static const int32_t    labels[DP__SELF_ROWS] = {1, 4, 2};
    static const dp_dataset data = {sizeof data, DP__SELF_ROWS, dp__self_texts, labels, NULL};
    dp_train_options        options;
    dp_trainer             *trainer;
    DP_CLEAR(options);
    options.lr = 1e-2;
    dp_status status = dp_trainer_open(model, &options, &trainer, err);
    for (int i = 0; i < 2 && status == DP_OK; i++)
        status = dp_train_step(trainer, &data, NULL, err);
    if (status == DP_OK) status = dp_trainer_model(trainer, out, err);
    dp_trainer_close(trainer);
    return status;
}
#endif

DPDEF dp_status dp_selftest(const dp_env *env, char digest[65], dp_error *err) {
    static const dp_model_spec spec = {sizeof spec, dp__self_config, sizeof dp__self_config - 1,
                                       dp__self_vocab, sizeof dp__self_vocab - 1, NULL, 0,
                                       DP_CASE_MODEL, 0};
    dp_model  *model, *int8 = NULL, *trained = NULL;
    dp__sha256 hash;
    uint8_t    bytes[32];
    digest[0] = 0;
    dp__sha256_init(&hash);
    dp_status status = dp_model_new(env, &spec, &model, err);
    if (status == DP_OK) status = dp__self_predict(model, &hash, err);
#ifndef DP_NO_QUANTIZE
    static const dp_quant_options all = {sizeof all, DP_DYNAMIC, DP_WEIGHTS_FULL, 1};
    if (status == DP_OK) status = dp_quantize(model, NULL, &all, &int8, NULL, err);
    if (status == DP_OK) status = dp__self_predict(int8, &hash, err);
#endif
#ifndef DP_NO_TRAIN
    if (status == DP_OK) status = dp__self_train(model, &trained, err);
    if (status == DP_OK) status = dp__self_predict(trained, &hash, err);
#endif
    dp_model_close(trained);
    dp_model_close(int8);
    dp_model_close(model);
    dp__sha256_end(&hash, bytes);
    if (status == DP_OK) dp__hex(bytes, sizeof bytes, digest);
    return status;
}

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#if defined(__clang__)
#pragma float_control(pop)
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif /* DISEASEPRED_IMPLEMENTATION */

/* ============================================================================================
 * [Z] Appendix                                                                budget 130 lines
 * ============================================================================================
 * ============================================================================================
 * [Z1] Derivations                                                             budget 60 lines
 * ============================================================================================
 *
 * L is the loss, dx stands for dL/dx. Every rule below is one line of a layer in [F2]; all are
 * checked against PyTorch and by central differences in the double build.
 *
 * Linear. y[i, n] = sum_k x[i, k] W[n, k] + b[n]. Each y[i, n] contains W[n, k] once, with the
 * factor x[i, k], and x[i, k] once for every n, with the factor W[n, k]:
 *     dW[n, k] = sum_i dy[i, n] x[i, k],  db[n] = sum_i dy[i, n],
 *     dx[i, k] = sum_n dy[i, n] W[n, k].
 *
 * Activation. y = f(x), so dx = dy f'(x). GELU: f(x) = x P(x) with P the normal distribution
 * function and p its density: f' = P + x p. Its tanh form: f = x (1 + t) / 2 with t = tanh u(x),
 * f' = (1 + t) / 2 + x (1 - t^2) u' / 2. SiLU: f = x s, s = 1 / (1 + e^-x), s' = s (1 - s):
 * f' = s (1 + x (1 - s)).
 *
 * LayerNorm. m = mean(x), v = mean((x - m)^2), r = 1 / sqrt(v + eps), h = (x - m) r, y = g h + b
 * over C entries. Let a = g dy, which is dh. From dm/dx_j = 1/C and dr/dx_j = -r^2 h_j / C:
 *     dh_i/dx_j = r (delta_ij - 1/C - h_i h_j / C),
 *     dx_j = r (a_j - mean(a) - h_j mean(a h)),  dg = sum over rows of dy h,  db = sum of dy.
 *
 * Softmax. p_i = e^(z_i) / sum e^(z_j), dp_i/dz_j = p_i (delta_ij - p_j):
 *     dz_j = p_j (dp_j - sum_i p_i dp_i).
 *
 * Attention of one head. S = Q K^T / sqrt(D), P = softmax(S) by rows, A = dropout(P), O = A V:
 *     dA = dO V^T, dV = A^T dO, dP = dropout(dA), dS by softmax, dQ = dS K / sqrt(D),
 *     dK = dS^T Q / sqrt(D).
 *
 * Dropout. y = x m / (1 - p) with a mask m of 0 and 1 that does not depend on x:
 * dx = dy m / (1 - p). The mask is drawn again from its counter in the backward pass.
 *
 * Residual. y = x + f(x): dx = dy + (the gradient through f).
 *
 * Cross-entropy. L = log sum e^(z_j) - z_k for the label k: dz_j = p_j - (j is k), over the rows of
 * the step. Binary cross-entropy with target t: L = max(z, 0) - z t + log(1 + e^-|z|),
 * dz = s(z) - t. Squared error: L = (z - t)^2, dz = 2 (z - t).
 *
 * Embedding. y[i] = W[id_i]: dW[v] = sum of dy[i] over the i with id_i = v, in order of i; the row
 * of the padding token is not learned (dW = 0), as in torch.nn.Embedding.
 *
 * [CLS] in the last layer. The head reads row 0 of each text only. Its output depends on all rows
 * of x through keys and values, but on the query, mixing, LayerNorm and inner layers of row 0
 * alone: leaving the other rows out changes no bit of it, forward or backward.
 *
 * INT8. With x = sx qx + ex and w = sw qw + ew, |ex| <= sx / 2 and |ew| <= sw / 2:
 *     |sum x w - sx sw sum qx qw| <= sw/2 sum |x| + sx/2 sum |w| + K sx sw / 4.
 * With |qx| <= 127 and |qw| <= 128 (others' files; ours 127) K <= 132,104 products fit in 32 bits.
 * The kernels keep qx + 128 in a byte; since sum (qx + 128) qw = sum qx qw + 128 sum qw, starting
 * at -128 sum qw is exact.
 *
 * One chain. Every element of a product is fma(a_k, b_k, ...) in order of k, begun anew after 1,024
 * products; lanes of a vector are different elements, never parts of one. So tails, blocks, threads
 * and instruction sets cannot change a rounding, which is why all rows give the same bits.
 *
 * ============================================================================================
 * [Z2] References                                                              budget 20 lines
 * ============================================================================================
 *
 * Vaswani and others, Attention Is All You Need, 2017: the encoder layer, section 3.
 * Devlin and others, BERT: Pre-training of Deep Bidirectional Transformers, 2018.
 * Ba, Kiros, Hinton, Layer Normalization, 2016.  Hendrycks, Gimpel, GELUs, 2016.
 * Kingma, Ba, Adam, 2014.  Loshchilov, Hutter, Decoupled Weight Decay Regularization, 2017.
 * Srivastava and others, Dropout, 2014.
 * Salmon and others, Parallel Random Numbers: As Easy as 1, 2, 3, 2011: Philox4x32-10.
 * Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014: SplitMix64.
 * Boldo, Melquiond, Emulation of a FMA and Correctly Rounded Sums, 2008: rounding to odd.
 * Naeini and others, Obtaining Well Calibrated Probabilities, 2015; Guo and others, On Calibration
 * of Modern Neural Networks, 2017: expected calibration error.
 * Dettmers and others, LLM.int8(), 2022; Yao and others, ZeroQuant, 2022: scales by row.
 * RFC 8259 (JSON), RFC 4180 (CSV), FIPS 180-4 (SHA-256), Unicode Standard Annex 15 (NFD), the
 * safetensors format, the compressed-tensors layout, Intel SDM volumes 1 and 2.
 *
 * ============================================================================================
 * [Z3] Changes                                                                 budget 10 lines
 * ============================================================================================
 *
 * 0.1.0  First version.
 *
 * ============================================================================================
 * [Z4] Licence                                                                 budget 30 lines
 * ============================================================================================
 *
 * MIT License
 *
 * Copyright (c) 2026 The diseasepred authors
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy of this software
 * and associated documentation files (the "Software"), to deal in the Software without
 * restriction, including without limitation the rights to use, copy, modify, merge, publish,
 * distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
 * Software is furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in all copies or
 * substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
 * BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
 * NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
 * DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 * OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
 * ============================================================================================ */
