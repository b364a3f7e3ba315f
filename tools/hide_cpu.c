/* hide_cpu.c -- lets a program see a CPU without AVX-512, AVX-VNNI and AMX.
 *
 *   cc -O2 -shared -fPIC tools/hide_cpu.c -o hide_cpu.so
 *   LD_PRELOAD=./hide_cpu.so program ...
 *
 * Linux on an Intel CPU can make the CPUID instruction fault (arch_prctl ARCH_SET_CPUID, flag
 * "cpuid_fault" of /proc/cpuinfo); the handler answers it with the bits taken out, so that every
 * library of the process chooses its AVX2 code, as on a CPU that has no more. What is measured is
 * this CPU running that code. The C library itself chose its copying functions before.
 */
#define _GNU_SOURCE 1
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012 };

/* Leaf 7: every bit of AVX-512 and AMX, and in subleaf 1 AVX-VNNI and its successors. */
static const unsigned AVX512_B = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 |
                                 1u << 30 | 1u << 31;
static const unsigned AVX512_C = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const unsigned AVX512_D = 1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 |
                                 1u << 25;
static const unsigned LEAF7_1_A = 1u << 4 | 1u << 5 | 1u << 21 | 1u << 23;
static const unsigned LEAF7_1_D = 1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19;

static void set_faulting(int on) {
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on) == 0) return;
    perror("hide_cpu: CPUID cannot be made to fault here");
    _exit(2);
}

/* Two bytes 0F A2 faulted: answer, and go on behind them. */
static void on_fault(int signal_number, siginfo_t *info, void *context) {
    greg_t              *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)r[REG_RIP];
    unsigned             leaf = (unsigned)r[REG_RAX], sub = (unsigned)r[REG_RCX], a, b, c, d;
    (void)info;
    if (at[0] != 0x0F || at[1] != 0xA2) { /* a fault of the program's own */
        signal(signal_number, SIG_DFL);
        return;
    }
    set_faulting(0);
    __cpuid_count(leaf, sub, a, b, c, d);
    set_faulting(1);
    if (leaf == 7 && sub == 0) b &= ~AVX512_B, c &= ~AVX512_C, d &= ~AVX512_D;
    if (leaf == 7 && sub == 1) a &= ~LEAF7_1_A, d &= ~LEAF7_1_D;
    if (leaf == 0x1D || leaf == 0x1E || leaf == 0x24) a = b = c = d = 0;
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

__attribute__((constructor)) static void hide(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    set_faulting(1);
}
