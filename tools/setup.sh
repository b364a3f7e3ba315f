#!/bin/sh
# setup.sh -- what has to be installed, installed or named.
#
#     setup.sh stb CC...      libstb-dev (the programs' option and CSV code uses it), unless the
#                             compiler with these flags finds one
#     setup.sh dev            everything that test-all, fuzz and the portability runs use
#     setup.sh elsewhere      cross compilers, emulators of other machines, tcc, musl
#     setup.sh pip            Python's pip (the demo with MiniLM fetches the model with it)
#     setup.sh have PROGRAM   stop with a sentence when a program is missing
#     setup.sh finds FILE CC... does the compiler with these flags find a header?
#     setup.sh skip FILE WHY  write a test program that only says why it was skipped
set -eu

dev="clang libclang-rt-14-dev llvm valgrind libsimde-dev libstb-dev python3-venv g++ tcc"
elsewhere="tcc musl-tools gcc-mingw-w64-x86-64 wine64 qemu-user"
elsewhere="$elsewhere gcc-arm-none-eabi libnewlib-arm-none-eabi"
elsewhere="$elsewhere gcc-i686-linux-gnu libc6-dev-i386-cross"
for arch in aarch64:arm64 riscv64:riscv64 s390x:s390x powerpc:powerpc; do
    elsewhere="$elsewhere gcc-${arch%:*}-linux-gnu libc6-dev-${arch#*:}-cross"
done

install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing: $*" >&2
        DEBIAN_FRONTEND=noninteractive
        export DEBIAN_FRONTEND
        mkdir -p build
        exec 9>build/setup.lock
        flock 9 || true # under make -j the second waits; without flock nobody does
        { apt-get install -y --no-install-recommends "$@" ||
            { apt-get update && apt-get install -y --no-install-recommends "$@"; }; } >&2
    else
        echo "please install first: $*" >&2
        echo "  Debian, Ubuntu:  sudo apt-get install $*" >&2
        exit 1
    fi
}

preprocess() { # LINE CC...
    line=$1 && shift
    printf '%s\n' "$line" | "$@" -E -xc - >/dev/null 2>&1
}

case "${1-}" in
stb)
    shift
    preprocess "#include <stb/stb_ds.h>" "$@" && exit 0
    preprocess "" "$@" || exit 0 # not a matter of stb: the compiler will say what is wrong
    install libstb-dev
    ;;
finds)
    header=$2
    shift 2
    preprocess "#include <$header>" "$@"
    ;;
dev)
    # shellcheck disable=SC2086  # a list of words
    install $dev
    # what was skipped for want of a package is to be built
    if grep -qs '^echo "SKIP' build/test_simde; then rm build/test_simde; fi
    ;;
elsewhere)
    # shellcheck disable=SC2086
    install $elsewhere
    ;;
pip)
    python3 -m pip --version >/dev/null 2>&1 || install python3-pip
    ;;
have)
    command -v "$2" >/dev/null && exit 0
    echo "$2 is not installed: make setup-dev (as root), or see tools/setup.sh" >&2
    exit 1
    ;;
skip)
    printf '#!/bin/sh\necho "SKIP %s: %s"\necho "0 passed, 0 failed, 1 skipped"\n' \
        "$(basename "$2")" "$3" >"$2"
    chmod +x "$2"
    ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
