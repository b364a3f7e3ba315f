/* fuzz_csv.c -- the CSV reader of the programs against the reference reader. */
#include "rows_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rows_fuzz(data, size, "a.csv", ref_csv);
    return 0;
}
