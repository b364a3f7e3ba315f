/* memory_io.h -- a directory of files in memory behind dp_io, for tests and fuzz targets. Reading
 * outside of a file aborts: the reader must have checked. */
#ifndef DP_MEMORY_IO_H
#define DP_MEMORY_IO_H

#include <stdlib.h>
#include <string.h>

#ifndef MEMORY_FILES
#define MEMORY_FILES 1100
#endif

typedef struct memory_file {
    char   name[208];
    char  *data;
    size_t bytes;
    int    owned; /* data is ours to free */
    int    link;  /* opening it says so (F2) */
} memory_file;

typedef struct memory_dir {
    memory_file file[MEMORY_FILES];
    size_t      count, opened, closed, dirs_opened, dirs_closed;
    size_t      calls, fail_at; /* the fail_at-th call of a hook fails; 0: none */
    int         for_ever;
    memory_file temp; /* under creation */
} memory_dir;

static int memory_fails(memory_dir *m) {
    m->calls++;
    return m->fail_at && (m->calls == m->fail_at || (m->for_ever && m->calls > m->fail_at));
}

static memory_file *memory_find(memory_dir *m, const char *name) {
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->file[i].name, name) == 0) return m->file + i;
    }
    return NULL;
}

static dp_status memory_open_dir(void *ctx, const char *path, int32_t make, void **dir) {
    memory_dir *m = (memory_dir *)ctx;
    (void)path;
    (void)make;
    if (memory_fails(m)) return DP_E_IO;
    m->dirs_opened++;
    *dir = m;
    return DP_OK;
}

static void memory_close_dir(void *ctx, void *dir) {
    (void)dir;
    ((memory_dir *)ctx)->dirs_closed++;
}

static dp_status memory_open(void *ctx, void *dir, const char *name, void **file,
                             uint64_t *bytes) {
    memory_dir  *m = (memory_dir *)ctx;
    memory_file *f = memory_find(m, name);
    (void)dir;
    if (memory_fails(m)) return DP_E_IO;
    if (f == NULL) return DP_E_NOT_FOUND;
    if (f->link) return DP_E_UNSUPPORTED;
    m->opened++;
    *file = f;
    *bytes = f->bytes;
    return DP_OK;
}

static dp_status memory_pread(void *ctx, void *file, uint64_t offset, void *to, size_t bytes) {
    memory_dir  *m = (memory_dir *)ctx;
    memory_file *f = (memory_file *)file;
    if (offset > f->bytes || bytes > f->bytes - offset) abort();
    if (memory_fails(m)) return DP_E_IO;
    if (bytes > 0) memcpy(to, f->data + offset, bytes);
    return DP_OK;
}

static void memory_close(void *ctx, void *file) {
    (void)file;
    ((memory_dir *)ctx)->closed++;
}

static dp_status memory_create(void *ctx, void *dir, const char *name, void **file) {
    memory_dir *m = (memory_dir *)ctx;
    (void)dir;
    if (memory_fails(m)) return DP_E_IO;
    memset(&m->temp, 0, sizeof m->temp);
    memcpy(m->temp.name, name, strlen(name) + 1);
    m->opened++;
    *file = &m->temp;
    return DP_OK;
}

static dp_status memory_append(void *ctx, void *file, const void *data, size_t bytes) {
    memory_file *f = (memory_file *)file;
    if (memory_fails((memory_dir *)ctx)) return DP_E_IO;
    f->data = (char *)realloc(f->data, f->bytes + bytes + 1);
    if (bytes > 0) memcpy(f->data + f->bytes, data, bytes);
    f->bytes += bytes;
    f->owned = 1;
    return DP_OK;
}

static void memory_abort(void *ctx, void *file) {
    ((memory_dir *)ctx)->closed++;
    free(((memory_file *)file)->data);
    memset(file, 0, sizeof(memory_file));
}

static dp_status memory_commit(void *ctx, void *file) {
    memory_dir  *m = (memory_dir *)ctx;
    memory_file *f = (memory_file *)file, *old = memory_find(m, f->name);
    if (memory_fails(m)) {
        memory_abort(ctx, file);
        return DP_E_IO;
    }
    m->closed++;
    if (old == NULL) old = m->file + m->count++;
    if (old->owned) free(old->data);
    *old = *f;
    memset(f, 0, sizeof *f);
    return DP_OK;
}

static dp_status memory_remove(void *ctx, void *dir, const char *name) {
    memory_dir  *m = (memory_dir *)ctx;
    memory_file *f = memory_find(m, name);
    (void)dir;
    if (memory_fails(m)) return DP_E_IO;
    if (f == NULL) return DP_E_NOT_FOUND;
    if (f->owned) free(f->data);
    *f = m->file[--m->count];
    memset(m->file + m->count, 0, sizeof *f); /* the next file comes here */
    return DP_OK;
}

static dp_status memory_free_space(void *ctx, void *dir, uint64_t *bytes) {
    (void)dir;
    *bytes = 1u << 30;
    return memory_fails((memory_dir *)ctx) ? DP_E_IO : DP_OK;
}

static memory_dir *memory_new(void) {
    return (memory_dir *)calloc(1, sizeof(memory_dir));
}

static void memory_io(memory_dir *m, dp_io *io) {
    io->open_dir = memory_open_dir;
    io->close_dir = memory_close_dir;
    io->open = memory_open;
    io->pread = memory_pread;
    io->close = memory_close;
    io->create = memory_create;
    io->append = memory_append;
    io->commit = memory_commit;
    io->abort = memory_abort;
    io->remove = memory_remove;
    io->free_space = memory_free_space;
    io->ctx = m;
}

/* A file whose bytes stay the caller's. */
static memory_file *memory_add(memory_dir *m, const char *name, const void *data, size_t bytes) {
    memory_file *f = memory_find(m, name);
    if (f == NULL) f = m->file + m->count++;
    memcpy(f->name, name, strlen(name) + 1);
    f->data = (char *)(uintptr_t)data;
    f->bytes = bytes;
    return f;
}

static void memory_clear(memory_dir *m) {
    for (size_t i = 0; i < m->count; i++) {
        if (m->file[i].owned) free(m->file[i].data);
    }
    memset(m, 0, sizeof *m);
}

static void memory_free(memory_dir *m) {
    memory_clear(m);
    free(m);
}

#endif
