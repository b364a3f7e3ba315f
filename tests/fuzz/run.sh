#!/bin/sh
# run.sh replay | live SECONDS -- the fuzz targets on their seeds, or under libFuzzer.
#
# replay compiles each target with a small driver that gives it every seed once (any compiler, with
# AddressSanitizer where there is one). live needs clang with libFuzzer. No target reaches a kernel,
# and the vector kernels under sanitizers take a minute to compile: they stay out.
cd "$(dirname "$0")/../.." || exit 1
mkdir -p build/fuzz
passed=0 failed=0

cat >build/fuzz/driver.c <<'C'
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (f == NULL) return 1;
        fseek(f, 0, SEEK_END);
        size_t   n = (size_t)ftell(f);
        uint8_t *data = (uint8_t *)malloc(n ? n : 1);
        rewind(f);
        if (fread(data, 1, n, f) != n) return 1;
        fclose(f);
        LLVMFuzzerTestOneInput(data, n);
        free(data);
    }
    printf("%d inputs\n", argc - 1);
    return 0;
}
C

replay() { # target
    ${CC:-cc} -std=gnu99 -g -O1 -w -DDP_NO_SIMD -fsanitize=address,undefined \
        -fno-sanitize-recover=all -Itests/fuzz "tests/fuzz/$1.c" build/fuzz/driver.c \
        -o "build/fuzz/$1" -lm -lpthread &&
        find "tests/fuzz/seeds/$1" -type f | xargs "build/fuzz/$1"
}

live() { # target seconds
    corpus=build/fuzz/corpus_$1
    mkdir -p "$corpus"
    "${CLANG:-clang}" -std=gnu99 -g -O1 -w -DDP_NO_SIMD -fno-sanitize-recover=all -Itests/fuzz \
        -fsanitize=fuzzer,address,undefined "tests/fuzz/$1.c" -o "build/fuzz/$1_live" -lm &&
        "build/fuzz/$1_live" -max_total_time="$2" -timeout=10 -rss_limit_mb=4096 \
            -print_final_stats=1 "$corpus" "tests/fuzz/seeds/$1" 2>&1 |
        tee "build/fuzz/$1.log" | grep -E 'number_of_executed_units|ERROR|SUMMARY|new_units'
    ! grep -qE 'ERROR|SUMMARY' "build/fuzz/$1.log"
}

for file in tests/fuzz/fuzz_*.c; do
    target=$(basename "$file" .c)
    if [ "$1" = live ]; then live "$target" "${2:-60}"; else replay "$target"; fi
    # shellcheck disable=SC2181  # one status for both branches
    if [ $? -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok   $target"
    else
        failed=$((failed + 1))
        echo "FAIL $target"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
