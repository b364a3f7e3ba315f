/* fuzz_csv.c -- the CSV reader of the programs against the reference reader. */
#include "../readers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4000) return 0;
    outcome o = read_all((const char *)data, size, FORMAT_CSV);
    if ((o.failed || o.bad > 0) && o.rule[0] == 0) abort();
    size_t commas = 0;
    for (size_t i = 0; i < size; i++) commas += data[i] == ',';
    if (commas > 60) return 0; /* the reference has room for 64 fields */
    outcome want = reference_csv((const char *)data, size);
    if (o.failed != want.failed) abort();
    if (!o.failed && (o.rows != want.rows || o.bad != want.bad || o.digest != want.digest)) abort();
    return 0;
}
