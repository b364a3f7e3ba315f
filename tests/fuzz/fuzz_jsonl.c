/* fuzz_jsonl.c -- the JSONL reader of the programs: every line a row, a row lost
 * alone, or blank. */
#include "../readers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    outcome o = read_all((const char *)data, size, FORMAT_JSONL);
    size_t  lines = 1;
    for (size_t i = 0; i < size; i++) lines += data[i] == '\n';
    if (o.failed || (size_t)(o.rows + o.bad) > lines) abort();
    if (o.bad > 0 && o.rule[0] == 0) abort();
    return 0;
}
