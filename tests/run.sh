#!/bin/sh
# run.sh SUITE... -- runs test suites and adds up their counts.
#
# A suite is a program (build/test) or one of the names below. Each ends with a line
# "N passed, N failed" or "N passed, N failed, N skipped"; one that ends otherwise, or whose exit
# code disagrees, counts as a failure. Output is kept in build/log/. Exit 1 if anything failed.
cd "$(dirname "$0")/.." || exit 1
mkdir -p build/log
total_passed=0 total_failed=0 total_skipped=0

run() { # the suite's command
    case "$1" in
    build/*) "$1" ;;
    programs) python3 tests/test_programs.py ;;
    hygiene-quick) sh tests/hygiene/run.sh quick ;;
    hygiene-full) sh tests/hygiene/run.sh full ;;
    features-full) sh tests/hygiene/run.sh features ;;
    lint) python3 tools/lint.py ;;
    lint-quick) python3 tests/test_lint.py --quick ;;
    lint-full) python3 tests/test_lint.py ;;
    spills) python3 tools/kernel_loops.py check ;;
    fuzz-replay) sh tests/fuzz/run.sh replay ;;
    elsewhere) sh tests/elsewhere.sh ;;
    mutants) python3 tools/mutants.py ;;
    valgrind) valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=definite \
        build/test_valgrind ;;
    *) echo "run.sh: no suite '$1'" && return 2 ;;
    esac
}

# hygiene-quick only compiles, for minutes, on one processor: it runs beside the others.
rm -f build/log/*.beside
for suite; do
    [ "$suite" = hygiene-quick ] || continue
    { run "$suite" 2>&1; echo "exit $?"; } >"build/log/$suite.txt.beside" &
done

for suite; do
    log=build/log/$(basename "$suite").txt
    echo "==== $suite"
    if [ -f "$log.beside" ]; then
        wait
        sed '/^exit [0-9]*$/d' "$log.beside"
        mv "$log.beside" "$log"
    else
        { run "$suite" 2>&1; echo "exit $?"; } | tee "$log.part" | sed '/^exit [0-9]*$/d'
        mv "$log.part" "$log"
    fi
    code=$(sed -n '$s/^exit //p' "$log")
    counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" | tail -1)
    # shellcheck disable=SC2046  # the words of the line
    set -- $(echo "$counts" | tr -d ',')
    passed=${1:-0} failed=${3:-0} skipped=${5:-0}
    if [ -z "$counts" ] || { [ "$code" != 0 ] && [ "$failed" = 0 ]; }; then
        echo "FAIL $suite ended with exit code $code and no failure in its count"
        failed=$((failed + 1))
    fi
    total_passed=$((total_passed + passed))
    total_failed=$((total_failed + failed))
    total_skipped=$((total_skipped + skipped))
done

echo "==== all suites"
echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
[ "$total_failed" = 0 ]
