/* The default files under DP_NO_POSIX: C99 stdio alone. Run in a directory that may be written. */
#define DP_NO_POSIX
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

#include <stdio.h>

#define MUST(x) if (!(x)) return printf("error: line %d: %s\n", __LINE__, #x), 1

int main(void) {
    dp_env    env;
    dp_error  err;
    dp__arena arena;
    void     *dir = NULL, *file = NULL;
    char     *text = NULL;
    size_t    n = 0;
    uint64_t  bytes = 0;
    MUST(dp__env_init(NULL, &env, &err) == DP_OK);
    MUST(dp__dir_open(&env, ".", 0, &dir, &err) == DP_OK);
    dp__arena_init(&arena, &env.alloc);
    MUST(dp__file_write(&env, dir, "stdio_files.tmp", "old", 3, &err) == DP_OK);
    MUST(dp__file_write(&env, dir, "stdio_files.tmp", "newer", 5, &err) == DP_OK);
    MUST(dp__file_read(&env, dir, "stdio_files.tmp", 5, &arena, &text, &n, &err) == DP_OK);
    MUST(n == 5 && memcmp(text, "newer", 5) == 0);
    MUST(dp__file_read(&env, dir, "stdio_files.tmp", 4, &arena, &text, &n, &err) == DP_E_LIMIT);
    MUST(env.io.open(env.io.ctx, dir, "stdio_files.tmp", &file, &bytes) == DP_OK && bytes == 5);
    MUST(env.io.pread(env.io.ctx, file, 3, text, 3) == DP_E_ARG);
    env.io.close(env.io.ctx, file);
    MUST(env.io.create(env.io.ctx, dir, "stdio_never.tmp", &file) == DP_OK);
    env.io.abort(env.io.ctx, file);
    MUST(dp__file_read(&env, dir, "stdio_never.tmp", 9, &arena, &text, &n, &err) ==
         DP_E_NOT_FOUND);
    MUST(dp__file_read(&env, dir, "../x", 9, &arena, &text, &n, &err) == DP_E_FORMAT);
    MUST(strcmp(err.rule, "F1") == 0);
    MUST(env.io.remove(env.io.ctx, dir, "stdio_files.tmp") == DP_OK);
    MUST(env.io.remove(env.io.ctx, dir, "stdio_files.tmp") == DP_E_NOT_FOUND);
    MUST(env.io.free_space(env.io.ctx, dir, &bytes) == DP_E_UNSUPPORTED);
    env.io.close_dir(env.io.ctx, dir);
    dp__arena_free(&arena);
    return 0;
}
