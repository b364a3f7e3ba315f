#!/bin/sh
# elsewhere.sh -- other processors (cross compilers and qemu: the scalar level), other compilers,
# another C library and Windows, as far as they are installed (make setup-elsewhere; of gcc and
# clang every version that has a number in its name). Each must give the digest of the README.
# Compilers run all tests, the first processor and the last two, whose bytes lie the other way
# round, those of files.
set -u
cd "$(dirname "$0")/.." || exit 1
mkdir -p build/elsewhere
digest=$(grep -E '^    [0-9a-f]{64}$' README.md | tr -d ' ')
passed=0 failed=0 skipped=0

judge() { # name, command
    name=$1
    shift
    if "$@"; then echo "ok   $name"; passed=$((passed + 1))
    else echo "FAIL $name"; failed=$((failed + 1)); fi
}

same_digest() { "$1" "$2" | grep -c "$digest" | grep -qx 3; }

# gcc keeps floats wider on s390x where -std=c99 asks for what that processor always did. Under qemu
# a program of 32 bits sees no directory whose offsets have 64.
for cpu in aarch64:c99 riscv64:c99 i686:c99 s390x:gnu99 powerpc:c99; do
    arch=${cpu%:*} qemu=qemu-${cpu%:*} flags="-std=${cpu#*:} -O2 -w -static"
    [ "$arch" = i686 ] && qemu=qemu-i386 flags="$flags -msse2 -mfpmath=sse"
    [ "$arch" = powerpc ] && qemu=qemu-ppc flags="$flags -D_FILE_OFFSET_BITS=64"
    if ! command -v "$arch-linux-gnu-gcc" >/dev/null || ! command -v "$qemu" >/dev/null; then
        echo "SKIP $arch: no $arch-linux-gnu-gcc or $qemu (make setup-elsewhere)"
        skipped=$((skipped + 1))
        continue
    fi
    out=build/elsewhere/$arch words="st_ json_ file_ config_ resume_"
    rm -f "$out"-*
    # shellcheck disable=SC2086
    "$arch-linux-gnu-gcc" $flags tools/selftest.c -o "$out-selftest" -lm -lpthread
    judge "$arch digest" same_digest "$qemu" "$out-selftest"
    case $arch in aarch64 | s390x | powerpc) ;; *) continue ;; esac
    # shellcheck disable=SC2086
    "$arch-linux-gnu-gcc" $flags tests/test_main.c -o "$out-test" -lm -lpthread
    [ "$arch" = aarch64 ] && words="$words api_fp_state" # s390x's state is not set
    for word in $words; do
        judge "$arch $word*" env DP_TEST_LIGHT=1 "$qemu" "$out-test" "--filter=$word"
    done
done

all_digests() { # LOG COMMAND...: whoever has vectors gives more than the scalar level's three
    log=$1 && shift
    "$@" >"$log" 2>/dev/null || return 1
    n=$(grep -c "$digest" "$log")
    [ "$n" -ge 3 ] && [ "$n" = "$(grep -cE '[0-9a-f]{64}' "$log")" ]
}

# tcc knows neither vectors nor gcc's atomics. The last is gcc as a compiler without vectors.
versions=$(ls /usr/bin | grep -E '^(gcc|clang)-[0-9]+$')
for cc in tcc musl-gcc $versions "gcc -DDP_NO_SIMD -DDP__SINGLE_LANES"; do
    name=$(echo "$cc" | tr -c 'a-zA-Z0-9\n' _) out=build/elsewhere/$name
    if ! command -v "${cc%% *}" >/dev/null; then
        echo "SKIP $cc: not installed (make setup-elsewhere)"
        skipped=$((skipped + 1))
        continue
    fi
    rm -f "$out"-*
    # shellcheck disable=SC2086
    $cc -std=c99 -O2 -w tools/selftest.c -o "$out-selftest" -lm -lpthread
    judge "$cc digest" all_digests "$out-log" "./$out-selftest"
    case $cc in # has no macro for these flags: the header takes them back
    clang*)
        for flags in -funsafe-math-optimizations -freciprocal-math \
            "-fassociative-math -fno-signed-zeros -fno-trapping-math"; do
            # shellcheck disable=SC2086
            $cc -std=c99 -O2 -w $flags -DDP_NO_AVX512 tools/selftest.c -o "$out-inexact" \
                -lm -lpthread
            judge "$cc $flags" all_digests "$out-log" "./$out-inexact"
        done
        ;;
    esac
    # shellcheck disable=SC2086
    $cc -std=c99 -O1 -w tests/test_main.c -o "$out-test" -lm -lpthread
    judge "$cc tests" env DP_TEST_LIGHT=1 "./$out-test"
done

# A microcontroller's tools: newlib, enumerations of one byte, no files below the C library.
if command -v arm-none-eabi-gcc >/dev/null && command -v qemu-arm >/dev/null; then
    out=build/elsewhere/bare
    rm -f $out-*
    arm-none-eabi-gcc -mcpu=cortex-a15 -mfpu=vfpv4 -mfloat-abi=hard --specs=rdimon.specs \
        -DDP_NO_POSIX -std=c99 -O2 -w tools/selftest.c -o $out-selftest -lm 2>/dev/null
    judge "bare ARM digest" all_digests $out-log qemu-arm -cpu cortex-a15 $out-selftest
else
    echo "SKIP bare ARM: no arm-none-eabi-gcc or qemu-arm (make setup-elsewhere)"
    skipped=$((skipped + 1))
fi

# The header on Windows: its digests, and files by C99 stdio. The programs need POSIX.
cc=x86_64-w64-mingw32-gcc out=build/elsewhere/mingw wine=/usr/lib/wine/wine64
if command -v $cc >/dev/null && [ -x $wine ]; then
    export WINEPREFIX="$PWD/build/elsewhere/wine" WINEDEBUG=-all
    rm -f $out-*
    $cc -std=c99 -O2 -w tools/selftest.c -o $out-selftest.exe
    judge "mingw digest" all_digests $out-log $wine $out-selftest.exe
    $cc -std=c99 -O2 -w tests/hygiene/stdio_files.c -o $out-files.exe
    judge "mingw files" $wine $out-files.exe
else
    echo "SKIP mingw: no $cc or $wine (make setup-elsewhere)"
    skipped=$((skipped + 1))
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
