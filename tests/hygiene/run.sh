#!/bin/sh
# run.sh quick|features|full -- how the header behaves as a header.
#
#   quick     C99, C11, C++11, two units, static copies, inclusion order, pragmas, every DP_NO_
#             macro: with $CC (cc)                            (part of make test)
#   features  every DP_NO_ macro, with gcc and clang
#   full      the rest, in every language version, with gcc and clang
# Objects are built at -O0 with all warnings as errors. A compiler that is not there is a SKIP.
# The AVX-512 kernels take most of a build: they are left out where they are not the point, and
# code is not made at all where a compiler is only asked what it accepts; "everything in" and the
# first C++ standard build all of it, "full" leaves no kernel out.
cd "$(dirname "$0")" || exit 1
out=../../build/hygiene/$1 # several may run at once
mkdir -p $out
passed=0 failed=0 skipped=0
warn="-Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wdouble-promotion -Wundef -Wvla
      -Wcast-qual"
cwarn="$warn -Wstrict-prototypes"
light=-DDP_NO_AVX512

ok() { # NAME STATUS: counts one check; a failure shows the log
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        echo "ok   $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1"
        grep -E 'error|undefined|warning' $out/log | head -5 | sed 's/^/     /'
    fi
}

skip() {
    skipped=$((skipped + 1))
    echo "SKIP $1: $2"
}

try() { # NAME COMMAND...: the command must succeed
    name=$1 && shift
    "$@" >$out/log 2>&1
    ok "$name" $?
}

refuse() { # NAME SENTENCE COMMAND...: the compiler must stop with that sentence
    name=$1 sentence=$2 && shift 2
    if "$@" >$out/log 2>&1; then
        echo "error: accepted" >$out/log
        ok "$name" 1
    else
        grep -q -- "$sentence" $out/log
        ok "$name" $?
    fi
}

has() { command -v "${1%% *}" >/dev/null; }

c() { # STD ARGUMENTS...: compile quickly with every warning
    std=$1 && shift
    # shellcheck disable=SC2086
    $cc -std=$std -O0 $cwarn "$@"
}

cxx() {
    std=$1 && shift
    # shellcheck disable=SC2086
    $cpp -std=$std -O0 $warn "$@"
}

# ---- languages, units, inclusion -------------------------------------------------------------

languages() { # C-STANDARDS C++-STANDARDS
    for std in $1; do
        file=c99.c
        [ "$std" = c11 ] && file=c11.c
        try "$cc $std" c "$std" -fsyntax-only $file
    done
    if has $cpp; then
        for std in $2; do
            try "$cpp $std" cxx "$std" -fsyntax-only cpp11.cpp
        done
        try "$cpp builds and links" cxx "${2%% *}" cpp11.cpp -o $out/a -lm -lpthread
    else
        skip "$cpp" "not installed"
    fi
}

public_functions() { # the X-list of the functions that part A declares
    names=$(sed '/^#endif .* DISEASEPRED_H/q' ../../diseasepred.h |
        sed -n 's/^DPDEF.*[ *]\(dp_[a-z0-9_]*\)(.*/\1/p')
    echo "#define PUBLIC_FUNCTIONS(X) \\"
    for name in $names; do echo "    X($name) \\"; done
    echo
}

units() {
    public_functions >$out/public_functions.h
    c c99 $light -c two_tus_a.c -o $out/two_a.o >$out/log 2>&1
    try "$cc two units, every public function links" \
        c c99 -I$out two_tus_b.c $out/two_a.o -o $out/two -lm -lpthread
    try "$cc two units run" $out/two
    if has $cpp; then
        try "$cpp links the C object" cxx c++11 cpp_user.cpp $out/two_a.o -o $out/user -lm -lpthread
    fi
    try "$cc included again and again" c gnu99 $light twice.c -o $out/twice -lm -lpthread
    refuse "$cc declarations first hide POSIX under c99" "include it before other headers" \
        c c99 -c twice.c -o $out/a.o
    c c99 $light -c static_a.c -o $out/static_a.o >$out/log 2>&1 &&
        c c99 $light -c static_b.c -o $out/static_b.o >>$out/log 2>&1 &&
        $cc $out/static_a.o $out/static_b.o -o $out/static -lm -lpthread >>$out/log 2>&1 &&
        $out/static
    ok "$cc two static copies" $?
    absent "$cc static copies show no symbol" $out/static_b.o '[TDBRCVW] dp_'
}

inclusion() {
    refuse "$cc headers came first" "include it before other headers" \
        c c99 -c after_others.c -o $out/a.o
    try "$cc headers came first, _GNU_SOURCE" c c99 -D_GNU_SOURCE -fsyntax-only \
        after_others.c
    try "$cc headers came first, DP_NO_POSIX" c c99 -DDP_NO_POSIX -fsyntax-only \
        after_others.c
    try "$cc files by C99 stdio, built" c c99 $light -Wno-unused-function stdio_files.c \
        -o $out/stdio -lm -lpthread
    try "$cc files by C99 stdio, run" $out/stdio
    try "$cc headers came first, gnu99" c gnu99 -fsyntax-only after_others.c
    try "$cc names that <windows.h> takes" c gnu99 -Dnear= -Dfar= -Dsmall=char -Dhyper=long \
        -Dinterface=struct -DIN= -DOUT= -DOPTIONAL= -DERROR=0 -DTRUE=1 -DFALSE=0 \
        '-Dmin(a,b)=((a)<(b)?(a):(b))' '-Dmax(a,b)=((a)>(b)?(a):(b))' -fsyntax-only after_others.c
    refuse "$cc DP_MALLOC without DP_FREE" "both DP_MALLOC and DP_FREE" \
        c c99 "-DDP_MALLOC(n)=0" -c feature.c -o $out/a.o
    refuse "$cc -ffast-math" "fast-math changes results" c c99 -ffast-math -c feature.c -o $out/a.o
    refuse "$cc -ffinite-math-only" "fast-math changes results" \
        c c99 -ffinite-math-only -c feature.c -o $out/a.o
    if ! $cc --version | grep -q clang; then # which has neither the macro nor the other option
        refuse "$cc -funsafe-math-optimizations" "fast-math changes results" \
            c c99 -funsafe-math-optimizations -c feature.c -o $out/a.o
        refuse "$cc -fsingle-precision-constant" "refuse_single_precision_constant" \
            c c99 -fsingle-precision-constant -fsyntax-only feature.c
    fi
    try "$cc -ffast-math, DP_ALLOW_FAST_MATH" \
        c c99 -ffast-math -DDP_ALLOW_FAST_MATH -fsyntax-only feature.c
}

# ---- nothing is left behind ------------------------------------------------------------------

code_of() { # FUNCTION
    sed -n "/^$1:/,/^[[:space:]]*\.size/p" $out/pragmas.s
}

fused() { # FUNCTION: 0 if its code has a fused multiply-add
    code_of "$1" | grep -q 'v\{0,1\}fn\{0,1\}madd'
}

inexact() { # clang has no macro for it that the header could refuse, gcc has
    rm -f $out/pragmas.s
    c c99 -O2 -funsafe-math-optimizations -DDP_NO_AVX2 -DDP_NO_TRAIN -DDP_NO_QUANTIZE \
        '-DDP_SIMD_HEADER="pragma_probe.h"' -I. -S pragmas.c -o $out/pragmas.s >$out/log 2>&1
    code_of host_sum | grep -q ret && ! code_of host_sum | grep -q subss
    ok "$cc -funsafe-math-optimizations of the host's code is as before" $?
    code_of pinned_sum | grep -q subss
    ok "$cc -funsafe-math-optimizations is off inside the header" $?
}

pragmas() {
    case $(uname -m) in x86_64) ;; *) skip "$cc pragmas" "written for x86-64" && return ;; esac
    contract=fast
    $cc --version | grep -q clang && contract=on
    c c99 -O2 -mfma -ffp-contract=$contract -DDP_NO_AVX2 '-DDP_SIMD_HEADER="pragma_probe.h"' -I. \
        -S pragmas.c -o $out/pragmas.s >$out/log 2>&1
    fused host_after
    ok "$cc contraction of the host's code is as before" $?
    fused pinned_inside
    ok "$cc contraction is off inside the header" $((1 - $?))
    if [ $contract = on ]; then inexact; fi
    for feature in DP_NO_TRAIN DP_NO_AVX512; do
        refuse "$cc warnings of the host's code are as before, $feature" "host_unused" \
            c c99 -DWITH_UNUSED -D$feature -c pragmas.c -o $out/a.o
    done
}

# ---- each DP_NO_ macro, and what must be gone ------------------------------------------------

absent() { # NAME OBJECT PATTERN: no line of nm matches
    if [ ! -f "$2" ]; then echo "error: $2 was not built" >$out/log && ok "$1" 1 && return; fi
    nm "$2" | grep -E -- "$3" | sed 's/^/error: /' >$out/log
    [ ! -s $out/log ]
    ok "$1" $?
}

feature() { # LABEL PATTERN FLAGS...: builds, and no symbol matches; the full build has some
    label=$1 pattern=$2 && shift 2
    rm -f $out/feature.o
    try "$cc $label" c c99 "$@" -c feature.c -o $out/feature.o
    absent "$cc $label: symbols are gone" $out/feature.o "$pattern"
    echo "error: the full build has no symbol like $pattern: the check above says nothing" >$out/log
    nm $out/full.o | grep -Eq -- "$pattern"
    ok "$cc $label: the full build has them" $?
}

registers() { # LABEL PATTERN: the code of feature.o uses no such register
    objdump -d $out/feature.o | grep -E -- "$2" | head -3 | sed 's/^/error: /' >$out/log
    [ ! -s $out/log ]
    ok "$cc $1" $?
}

code_size() { # of the whole library, -O2; clang unrolls more: 438 kB
    if $cc --version | grep -q clang; then return; fi
    rm -f $out/size.o
    c c99 -O2 -c feature.c -o $out/size.o >$out/log 2>&1
    bytes=$(size -A $out/size.o 2>>$out/log | awk '/^\.text/ { sum += $2 } END { print sum + 0 }')
    echo "error: $bytes bytes of code, the limit is 400000" >>$out/log
    [ "$bytes" -gt 0 ] && [ "$bytes" -lt 400000 ]
    ok "$cc -O2: less than 400 kB of code ($bytes bytes)" $?
}

features() {
    rm -f $out/full.o
    try "$cc everything in" c c99 -c feature.c -o $out/full.o
    feature DP_NO_STDIO ' U (open|openat|fopen|fread|fwrite|fsync|pread|rename|stderr|stdout)' \
        -DDP_NO_STDIO
    c c99 -E -DDP_NO_STDIO -DDP_NO_SIMD feature.c 2>&1 | grep -E '^# .*/stdio.h' >$out/log
    [ ! -s $out/log ]
    ok "$cc DP_NO_STDIO: <stdio.h> is not included" $?
    feature DP_NO_POSIX ' U (open|openat|fsync|pread|fstat|renameat|unlinkat|pthread_.*)(64)?$' \
        -DDP_NO_POSIX
    feature DP_NO_THREADS ' U pthread_' -DDP_NO_THREADS
    feature DP_NO_TRAIN ' [Tt] (dp_train|dp__adam|dp__[a-z0-9_]*_backward)' -DDP_NO_TRAIN
    feature DP_NO_QUANTIZE ' [Tt] dp_quantize' -DDP_NO_QUANTIZE
    feature "own malloc" ' U (malloc|free|calloc|realloc)$' "-DDP_MALLOC(n)=own_malloc(n)" \
        "-DDP_FREE(p)=own_free(p)" -include own_malloc.h
    case $(uname -m) in x86_64) ;; *) skip "$cc DP_NO_SIMD" "written for x86-64" && return ;; esac
    code_size
    feature DP_NO_SIMD ' [Tt] dp__.*_avx' -DDP_NO_SIMD
    registers "DP_NO_SIMD: no vector registers beyond xmm" '%[yz]mm'
    feature DP_NO_AVX2 ' [Tt] dp__.*_avx' -DDP_NO_AVX2
    registers "DP_NO_AVX2: no vector registers beyond xmm" '%[yz]mm'
    feature DP_NO_AVX512 ' [Tt] dp__.*_avx512' -DDP_NO_AVX512
    registers "DP_NO_AVX512: no zmm and no mask registers" '%zmm|%k[0-7]'
    try "$cc everything out" c c99 -DDP_NO_STDIO -DDP_NO_POSIX -DDP_NO_THREADS -DDP_NO_SIMD \
        -DDP_NO_TRAIN -DDP_NO_QUANTIZE -c feature.c -o $out/feature.o
    echo "error: see nm of $out/full.o" >$out/log
    ! nm $out/full.o | grep -E ' [A-TV-Z] ' | grep -vq ' T dp_[a-z]'
    ok "$cc exports functions named dp_ only, and no data" $?
}

compilers() { # runs "$@" with gcc and clang
    for pair in gcc:g++ clang:clang++; do
        cc=${pair%:*} cpp=${pair#*:}
        if has $cc; then "$@"; else skip $cc "not installed"; fi
    done
}

levels() { # what a compiler notices depends on what it optimizes
    for level in g 1 2 3 s; do
        try "$cc -O$level, no warning" c c99 -O$level $light -c feature.c -o $out/a.o
    done
}

header() {
    languages "c99 c11 c17 c2x" "c++11 c++14 c++17 c++20"
    units
    inclusion
    pragmas
    levels
}

cc=${CC:-cc} cpp=c++
case "$cc" in *clang*) cpp=clang++ ;; *gcc*) cpp=g++ ;; esac
case "$1" in
quick) languages "c99 c11" "c++11" && units && inclusion && pragmas && features ;;
features) compilers features ;;
full) light= && compilers header ;;
*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
