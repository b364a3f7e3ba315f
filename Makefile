# diseasepred: see README.md. POSIX make syntax; `make help` lists the targets.
# Your CC, CPPFLAGS, CFLAGS, LDFLAGS and LDLIBS are honoured: make CC=clang CFLAGS="-O3 -g"; other
# ones than before compile again (give install the same). Nothing depends on the machine that
# builds: the header chooses its kernels when it runs.

WARN = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wdouble-promotion -Wstrict-prototypes \
       -Wundef -Wvla -Wcast-qual
FLAGS = -std=c99 -O2 $(WARN) $(WERROR) $(CPPFLAGS) $(CFLAGS)
TEST_FLAGS = $(FLAGS) -Wno-unused-function
LIBS = $(LDFLAGS) -lm -lpthread $(LDLIBS)
PREFIX = /usr/local
CLANG = clang
CHECKED = -g -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all
TEST_SOURCES = diseasepred.h tests/*.h tests/*.c build/flags
SOFT_FLAGS = -O1 $$(grep -qsw avx2 /proc/cpuinfo && echo -mavx2 -mfma)
SIMDE_PROBE = sh tools/setup.sh finds simde/x86/avx512.h $(CC) $(CPPFLAGS) $(CFLAGS)
SETUP_STB = sh tools/setup.sh stb $(CC) $(CPPFLAGS) $(CFLAGS)
TORCH = torch==2.8.0 transformers==4.55.4 tokenizers==0.21.4 safetensors numpy

all: build/train build/predict build/quantize ## the three programs (default)

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | \
	    awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

# ---- programs and tools --------------------------------------------------------------------

# What make was given, by its command line or the environment: written when it changed.
build/flags: always
	@mkdir -p build
	@printf '%s\n' "$${CC-cc}" "$$CPPFLAGS" "$$CFLAGS" "$$LDFLAGS" "$$LDLIBS" "$$WARN" "$$WERROR" \
	    "$$FLAGS" "$$LIBS" >$@.$$$$; \
	if cmp -s $@.$$$$ $@; then rm $@.$$$$; else mv $@.$$$$ $@; fi

build/train: examples/train.c
build/predict: examples/predict.c
build/quantize: examples/quantize.c
build/train build/predict build/quantize: diseasepred.h examples/*.h build/flags
	@$(SETUP_STB)
	@mkdir -p build
	$(CC) $(FLAGS) examples/$$(basename $@).c -o $@ $(LIBS)

build/make_data: tools/make_data.c
build/naive_bayes: tools/naive_bayes.c
build/bench: tools/bench.c tools/bench_*.h diseasepred.h
build/selftest: tools/selftest.c diseasepred.h
build/make_data build/naive_bayes build/bench build/selftest: build/flags
	@mkdir -p build
	$(CC) $(FLAGS) tools/$$(basename $@).c -o $@ $(LIBS)

# ---- tests ---------------------------------------------------------------------------------

build/test: $(TEST_SOURCES)
	@mkdir -p build
	$(CC) $(TEST_FLAGS) tests/test_main.c -o $@ $(LIBS)

build/test_double: $(TEST_SOURCES)
	@mkdir -p build
	$(CC) $(TEST_FLAGS) -DDP_REAL_DOUBLE tests/test_double.c -o $@ $(LIBS)

build/test_readers: $(TEST_SOURCES) examples/*.h
	@$(SETUP_STB)
	@mkdir -p build
	$(CC) $(TEST_FLAGS) tests/test_readers.c -o $@ $(LIBS)

# The AVX-512 kernels in software vectors. Without libsimde-dev a script that says SKIP.
build/test_simde: $(TEST_SOURCES)
	@mkdir -p build
	@rm -f $@
	if $(SIMDE_PROBE); then $(CC) $(TEST_FLAGS) $(SOFT_FLAGS) tests/test_simde.c -o $@ $(LIBS); \
	else sh tools/setup.sh skip $@ "libsimde-dev is not installed (make setup-dev)"; fi

# The AMX kernels, one trapped instruction after the other.
build/test_amx: $(TEST_SOURCES)
	@mkdir -p build
	$(CC) $(TEST_FLAGS) tests/test_amx.c -o $@ $(LIBS)

SUITES = build/test build/test_double build/test_simde build/test_readers
BESIDE = build/make_data build/naive_bayes build/selftest build/bench

test: all $(SUITES) $(BESIDE) ## the everyday tests (under 10 minutes)
	CC="$(CC)" sh tests/run.sh $(SUITES) programs spills fuzz-replay lint lint-quick \
	    hygiene-quick

test-all: all $(SUITES) build/test_amx $(BESIDE) ## everything below down to mutants (-j2: 2 hours)
	$(MAKE) long hygiene no-features elsewhere asan ubsan msan tsan valgrind mutants demo-minilm

long: all $(SUITES) build/test_amx $(BESIDE) ## the everyday tests with every case and all of lint's
	DP_TEST_LONG=1 CC="$(CC)" sh tests/run.sh $(SUITES) build/test_amx programs \
	    spills fuzz-replay lint lint-full

hygiene: ## the header in every language version, two units, static, pragmas (gcc and clang)
	CC="$(CC)" sh tests/run.sh hygiene-full

no-features: ## each DP_NO_ macro, with nm as proof
	CC="$(CC)" sh tests/run.sh features-full

elsewhere: ## the same digest on other processors (by qemu) and compilers, if installed
	sh tests/run.sh elsewhere

asan: ## tests under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer
	@mkdir -p build
	$(CC) $(TEST_FLAGS) $(CHECKED) -fsanitize=address,undefined tests/test_main.c \
	    -o build/test_asan $(LIBS)
	$(CC) $(TEST_FLAGS) $(CHECKED) -fsanitize=address,undefined tests/test_readers.c \
	    -o build/readers_asan $(LIBS)
	DP_TEST_LIGHT=1 sh tests/run.sh build/test_asan build/readers_asan

ubsan: ## tests under clang's stricter undefined-behaviour checks
	@sh tools/setup.sh have $(CLANG)
	@mkdir -p build
	$(CLANG) $(TEST_FLAGS) $(CHECKED) tests/test_main.c -o build/test_ubsan $(LIBS) \
	    -fsanitize=undefined,implicit-conversion,nullability,local-bounds
	DP_TEST_LIGHT=1 sh tests/run.sh build/test_ubsan

msan: ## tests under MemorySanitizer (clang): no branch on a byte that nobody wrote
	@sh tools/setup.sh have $(CLANG)
	@mkdir -p build
	$(CLANG) $(TEST_FLAGS) $(CHECKED) -fsanitize=memory -mllvm -msan-eager-checks=1 \
	    tests/test_main.c -o build/test_msan $(LIBS)
	DP_TEST_LIGHT=1 sh tests/run.sh build/test_msan

tsan: ## tests under ThreadSanitizer
	@mkdir -p build
	$(CC) $(TEST_FLAGS) $(CHECKED) -fsanitize=thread tests/test_main.c -o build/test_tsan $(LIBS)
	DP_TEST_LIGHT=1 sh tests/run.sh build/test_tsan

valgrind: ## tests under valgrind's memcheck
	@sh tools/setup.sh have valgrind
	@mkdir -p build
	$(CC) $(TEST_FLAGS) -g -O1 tests/test_main.c -o build/test_valgrind $(LIBS)
	DP_TEST_LIGHT=1 sh tests/run.sh valgrind

mutants: ## plants known mistakes one by one; each must make a test fail
	CC="$(CC)" sh tests/run.sh mutants

fuzz: ## every tests/fuzz/fuzz_*.c for FUZZ_SECONDS (60) each, from its seeds
	@sh tools/setup.sh have $(CLANG)
	CLANG="$(CLANG)" sh tests/fuzz/run.sh live $${FUZZ_SECONDS:-60}

lint: ## contents, budgets, documentation, names, forbidden calls, places of mutants
	CC="$(CC)" python3 tools/lint.py

toc: ## the sections with lines used and budget
	@python3 tools/lint.py --toc

# ---- data, demonstration, measurement ------------------------------------------------------

demo: all build/make_data build/naive_bayes ## train, evaluate, quantize, ask (QUICK=1: one minute)
	@if [ -n "$(QUICK)" ]; then python3 tools/demo.py --quick; else python3 tools/demo.py; fi

demo-minilm: all build/make_data build/naive_bayes ## the same with a real pretrained BERT
	@sh tools/setup.sh pip
	python3 tools/demo.py --minilm

accuracy: all build/make_data build/naive_bayes ## the demo on five data seeds: mean and minimum
	python3 tools/demo.py --seeds 5

bench: build/bench ## speed against the machine's peak; all kernel rows (some 15 minutes)
	build/bench all
	build/bench isa --threads=$$(nproc) --csv=build/isa.csv --svg=build/isa.svg

mca: ## cycles of the matrix kernels on other CPUs, estimated by llvm-mca
	@sh tools/mca.sh

vectors: ## test vectors from PyTorch, in a virtual environment outside the tree (some GB)
	venv=$${VENV:-$$HOME/.cache/diseasepred-venv}; \
	test -x $$venv/bin/python || python3 -m venv $$venv; \
	$$venv/bin/python -m pip install --quiet $(TORCH) && \
	$$venv/bin/python tools/gen_vectors.py

reliability: ## tests/RELIABILITY.md from the logs of test-all
	python3 tools/reliability.py >build/reliability.md
	mv build/reliability.md tests/RELIABILITY.md

setup: ## what test and demo need (apt, as root)
	$(SETUP_STB)

setup-dev: ## what test-all and fuzz need (apt, as root)
	sh tools/setup.sh dev

setup-elsewhere: ## what elsewhere needs (apt, as root)
	sh tools/setup.sh elsewhere

install: all ## header, programs and vocabulary to $(DESTDIR)$(PREFIX)
	umask 022 && mkdir -p "$(DESTDIR)$(PREFIX)/include" "$(DESTDIR)$(PREFIX)/bin" \
	    "$(DESTDIR)$(PREFIX)/share/diseasepred"
	install -m 644 diseasepred.h "$(DESTDIR)$(PREFIX)/include/"
	install -m 644 data/bert-base-cased-vocab.txt data/NOTICE LICENSE \
	    "$(DESTDIR)$(PREFIX)/share/diseasepred/"
	for p in train predict quantize; do \
	    install -m 755 build/$$p "$(DESTDIR)$(PREFIX)/bin/diseasepred-$$p" || exit 1; done

clean: ## removes build/
	rm -rf build

.PHONY: all always help test test-all long hygiene no-features elsewhere asan ubsan msan tsan \
        valgrind mutants fuzz setup-elsewhere lint toc demo demo-minilm accuracy bench mca vectors \
        reliability setup setup-dev install clean
