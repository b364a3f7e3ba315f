/* fuzz_jsonl.c -- the JSONL reader of the programs against the reference reader. */
#include "rows_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rows_fuzz(data, size, "a.jsonl", ref_jsonl);
    return 0;
}
