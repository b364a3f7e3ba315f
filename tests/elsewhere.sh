#!/bin/sh
# elsewhere.sh -- the scalar level on other processors: cross compilers and qemu, as far as they
# are installed (make setup-elsewhere). Each must give the digest of the README; the first and the
# last, whose bytes lie the other way round, run tests of files, too.
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

# gcc keeps floats wider on s390x where -std=c99 asks for what that processor always did.
for cpu in aarch64:c99 riscv64:c99 i686:c99 s390x:gnu99; do
    arch=${cpu%:*} qemu=qemu-${cpu%:*} flags="-std=${cpu#*:} -O2 -w -static"
    [ "$arch" = i686 ] && qemu=qemu-i386 flags="$flags -msse2 -mfpmath=sse"
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
    case $arch in aarch64 | s390x) ;; *) continue ;; esac
    # shellcheck disable=SC2086
    "$arch-linux-gnu-gcc" $flags tests/test_main.c -o "$out-test" -lm -lpthread
    [ "$arch" = aarch64 ] && words="$words api_fp_state" # s390x's state is not set
    for word in $words; do
        judge "$arch $word*" env DP_TEST_LIGHT=1 "$qemu" "$out-test" "--filter=$word"
    done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
