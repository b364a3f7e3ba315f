/* emulator.h -- the AMX instructions behind their encodings: a handler of SIGILL decodes the bytes
 * at the instruction pointer, lets tests/tiles.h do what they say, and steps over them. With ud2
 * before each instruction (DP__TILE_TRAP) it runs on processors that have AMX as well. Encodings:
 * Intel SDM volume 2, 2.3 and the pages of the instructions. */
#ifndef DP_TEST_EMULATOR_H
#define DP_TEST_EMULATOR_H
#include "tiles.h"
#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

static __thread sigjmp_buf  emulator_back;  /* where a broken rule leads, if expected */
static __thread int         emulator_expects;
static __thread const char *emulator_broken; /* the rule */
static long                 emulator_count;  /* instructions executed */

/* The fields of a VEX instruction with three bytes of prefix. */
typedef struct amx_code {
    int32_t       r, x, b, w, l, pp, vvvv, op, mod, reg, rm;
    const uint8_t *at; /* behind the byte modrm */
} amx_code;

static uint64_t emulator_register(const ucontext_t *u, int n) {
    static const int names[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15};
    return (uint64_t)u->uc_mcontext.gregs[names[n]];
}

/* The address of a memory operand; *stride: the index register, scaled. c->at moves behind it. */
static uint64_t emulator_address(const ucontext_t *u, amx_code *c, int64_t *stride) {
    uint64_t address = 0;
    int32_t  disp = 0, base = c->rm;
    *stride = 0;
    if (c->rm == 4) {
        int sib = *c->at++, index = (sib >> 3 & 7) | c->x << 3;
        base = sib & 7;
        if (index != 4) *stride = (int64_t)(emulator_register(u, index) << (sib >> 6));
    }
    int bare = c->mod == 0 && base == 5;
    if (!bare) address = emulator_register(u, base | c->b << 3);
    if (c->mod == 1) {
        disp = tile_byte(*c->at++, 1);
    } else if (c->mod == 2 || bare) {
        memcpy(&disp, c->at, 4);
        c->at += 4;
    }
    if (bare && c->rm == 5) address = (uint64_t)(uintptr_t)c->at; /* relative to the next one */
    return address + (uint64_t)(int64_t)disp;
}

static const char *emulator_config(const ucontext_t *u, amx_code *c) {
    int64_t index;
    if (c->mod == 3) {
        if (c->pp == 3 && c->rm == 0) return tile_zero(c->reg);
        if (c->pp == 0 && c->reg == 0 && c->rm == 0) return tile_release();
        return "#UD: no such instruction";
    }
    if (c->reg != 0 || c->pp > 1) return "#UD: no such instruction";
    uint64_t address = emulator_address(u, c, &index) + 0;
    void    *p = (void *)(uintptr_t)(address + (uint64_t)index);
    return c->pp == 0 ? tile_config(p) : tile_config_store(p);
}

static const char *emulator_move(const ucontext_t *u, amx_code *c) {
    int64_t stride;
    if (c->pp == 0) return "#UD: no such instruction";
    if (c->mod == 3 || c->rm != 4) return "#UD: an address without base and index";
    void *p = (void *)(uintptr_t)emulator_address(u, c, &stride);
    return c->pp == 2 ? tile_store(c->reg, p, stride) : tile_load(c->reg, p, stride);
}

static const char *emulator_product(const amx_code *c) {
    if (c->mod != 3) return "#UD: no such instruction";
    if (c->b || c->vvvv > 7) return "#UD: a tile above 7";
    if (c->op == 0x5C)
        return c->pp == 2 ? tile_dot_bf16(c->reg, c->rm, c->vvvv) : "#UD: no such instruction";
    return tile_dot8(c->reg, c->rm, c->vvvv, c->pp >= 2, c->pp % 2);
}

/* Executes the instruction at *pc and moves *pc behind it. 0: it is none of AMX. */
static int emulator_step(const ucontext_t *u, const uint8_t **pc, const char **wrong) {
    const uint8_t *p = *pc;
    amx_code       c;
    int prefix = *p == 0x66 || *p == 0xF2 || *p == 0xF3 || *p == 0xF0 || (*p & 0xF0) == 0x40;
    if (prefix) p++;
    if (p[0] != 0xC4 || (p[1] & 31) != 2) return 0;
    c.r = !(p[1] >> 7), c.x = !(p[1] >> 6 & 1), c.b = !(p[1] >> 5 & 1);
    c.w = p[2] >> 7, c.vvvv = ~p[2] >> 3 & 15, c.l = p[2] >> 2 & 1, c.pp = p[2] & 3;
    c.op = p[3], c.mod = p[4] >> 6, c.reg = p[4] >> 3 & 7, c.rm = p[4] & 7;
    c.at = p + 5;
    int product = c.op == 0x5E || c.op == 0x5C;
    if (c.op != 0x49 && c.op != 0x4B && !product) return 0;
    if (prefix) *wrong = "#UD: a prefix before VEX";
    else if (c.w) *wrong = "#UD: VEX.W is 1";
    else if (c.l) *wrong = "#UD: VEX.L is 1";
    else if (c.r) *wrong = "#UD: a tile above 7";
    else if (!product && c.vvvv != 0) *wrong = "#UD: VEX.vvvv names a register";
    else if (product) *wrong = emulator_product(&c);
    else *wrong = c.op == 0x49 ? emulator_config(u, &c) : emulator_move(u, &c);
    *pc = c.at;
    return 1;
}

static void emulator_say(const char *text) {
    size_t n = strlen(text);
    while (n > 0) {
        ssize_t written = write(2, text, n);
        if (written <= 0) return;
        text += written, n -= (size_t)written;
    }
}

/* SIGILL; also SIGSEGV, as which a processor's #GP comes. */
static void emulator_trap(int number, siginfo_t *info, void *context) {
    ucontext_t    *u = (ucontext_t *)context;
    const uint8_t *pc = (const uint8_t *)(uintptr_t)u->uc_mcontext.gregs[REG_RIP];
    const char    *wrong = NULL;
    (void)info;
    int trapped = number == SIGILL && pc[0] == 0x0F && pc[1] == 0x0B;
    if (trapped) pc += 2;
    if (!trapped && emulator_expects) { /* the processor's own verdict */
        emulator_broken = number == SIGILL ? "#UD" : "#GP";
        siglongjmp(emulator_back, 1);
    }
    if (number != SIGILL || !emulator_step(u, &pc, &wrong)) {
        signal(number, SIG_DFL); /* not ours: comes again, and ends the process */
        return;
    }
    __atomic_fetch_add(&emulator_count, 1, __ATOMIC_RELAXED);
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)pc;
    if (wrong == NULL) return;
    emulator_broken = wrong;
    if (emulator_expects) siglongjmp(emulator_back, 1);
    emulator_say("a kernel breaks a rule of AMX: ");
    emulator_say(wrong);
    emulator_say("\n");
    _exit(3);
}

__attribute__((constructor)) static void emulator_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = emulator_trap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
}
#endif
