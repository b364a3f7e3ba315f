# diseasepred: see README.md. `make help` lists the targets.
CC ?= cc
WARN = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wdouble-promotion -Wstrict-prototypes \
       -Wundef -Wvla -Wcast-qual
FLAGS = -std=c99 -O2 $(WARN) $(CFLAGS)

build/test: diseasepred.h tests/*.c tests/*.h
	@mkdir -p build
	$(CC) $(FLAGS) -Wno-unused-function tests/test_main.c -o $@ -lm -lpthread

test: build/test ## run the everyday tests
	build/test
