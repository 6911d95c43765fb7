# agent-memory: `make` builds build/agent-memory, `make help` lists the rest.
# A sanitiser or another compiler gets a folder of its own: make BUILD=build/clang CC=clang-14

BUILD   ?= build
SAN     ?=
ifeq ($(origin CC),default)
CC      := gcc
endif
PREFIX  ?= /usr/local
VERSION := 0.1.0
OPT     ?= -O2
Q       := $(if $(V),,@)

PKGS    := jansson libsodium libxxhash libpcre2-8 libutf8proc libevent_core libevent_extra libevent_pthreads yaml-0.1 libedit
# libcurl is loaded when a model is pulled (src/pull/curl_calls.h): its headers are wanted, it is not linked
HEADERS := libcurl
WARN    := -Wall -Wextra -Werror -Wstrict-prototypes -Wmissing-prototypes -Wshadow -Wpointer-arith -Wundef -Wvla
CFLAGS_ALL := -std=gnu11 $(OPT) -g -fPIC -ffp-contract=off -fno-strict-aliasing -pthread -fstack-protector-strong \
              -D_GNU_SOURCE -DAM_VERSION='"$(VERSION)"' -DPCRE2_CODE_UNIT_WIDTH=8 -Isrc -Iinclude $(WARN) $(SAN) \
              $(shell pkg-config --cflags $(PKGS) $(HEADERS)) $(CFLAGS)
LIBS    := $(shell pkg-config --libs $(PKGS)) -lm -pthread $(SAN) $(LDFLAGS)

ARCH    := $(shell $(CC) -dumpmachine | cut -d- -f1)
SRC     := $(sort $(wildcard src/*/*.c))
# one instruction set, one file, one set of flags; the rest is built for the portable baseline
ISA_x86_64  := avx2 avx512 avx512vnni avx512bf16 amx
ISA_aarch64 := neon neondot neoni8mm
ISA_ALL     := $(ISA_x86_64) neon neondot neoni8mm
SRC     := $(filter-out $(foreach i,$(filter-out $(ISA_$(ARCH)),$(ISA_ALL)),src/kernels/$(i).c),$(SRC))
FLAGS_scalar := -O3
FLAGS_avx2   := -O3 -mavx2 -mfma -mf16c
FLAGS_avx512 := -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
FLAGS_avx512vnni := $(FLAGS_avx512) -mavx512vnni
FLAGS_avx512bf16 := $(FLAGS_avx512) -mavx512bf16
FLAGS_amx    := $(FLAGS_avx512)
FLAGS_neon   := -O3
FLAGS_neondot := -O3 -march=armv8.2-a+dotprod
FLAGS_neoni8mm := -O3 -march=armv8.2-a+dotprod+i8mm

OBJ     := $(SRC:%.c=$(BUILD)/%.o) $(patsubst %.S,$(BUILD)/%.o,$(wildcard src/*/*.S))
MAIN_OBJ := $(filter $(BUILD)/src/main/%,$(OBJ))
LIB_OBJ := $(filter-out $(MAIN_OBJ),$(OBJ))
LIB     := $(BUILD)/libagent-memory.a
BIN     := $(BUILD)/agent-memory
TESTS   := $(patsubst tests/test_%.c,$(BUILD)/tests/test_%,$(sort $(wildcard tests/test_*.c)))
TEST_LIB := $(patsubst tests/%.c,$(BUILD)/tests/%.o,$(filter-out $(wildcard tests/test_*.c),$(wildcard tests/*.c)))
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
BENCHES := $(patsubst bench/bench_%.c,$(BUILD)/bench/bench_%,$(sort $(wildcard bench/bench_*.c)))

# compile_commands.json is for editors: what makes it is no tool that a build needs
all: $(BIN) $(if $(shell command -v python3),compile_commands.json)

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "CC $<"
	$(Q)$(CC) $(CFLAGS_ALL) $(if $(filter src/kernels/%,$<),$(FLAGS_$(*F)) $(SAN_KERNELS)) -MMD -MP -c $< -o $@

$(BUILD)/%.o: %.S Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) -Isrc -MMD -MP -c $< -o $@

$(BUILD)/src/model/embedded.o: $(wildcard models/*/*)
$(BUILD)/src/server/page_bytes.o: web/index.html

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BIN): $(MAIN_OBJ) $(LIB)
	$(Q)$(CC) -o $@ $^ $(LIBS)

# these put an engine of their own behind the server: what a test defines wins over the library's
FAKES_server := -Wl,--allow-multiple-definition
FAKES_anthropic := $(FAKES_server)
$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o $(TEST_LIB) $(LIB)
	$(Q)$(CC) -o $@ $(filter-out $(LIB),$^) $(LIB) $(FAKES_$*) -lcmocka $(LIBS)

# every fuzz target over the inputs of tests/data/fuzz
$(BUILD)/tests/test_fuzz: $(FUZZERS:%=$(BUILD)/tests/fuzz/fuzz_%.o)

$(BUILD)/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/*.h $(LIB)
	$(Q)$(CC) $(CFLAGS_ALL) -DFUZZ_ALONE -fsanitize=fuzzer -o $@ $(filter-out %.h,$^) $(LIBS)

$(BUILD)/bench/bench_%: $(BUILD)/bench/bench_%.o $(LIB)
	$(Q)$(CC) -o $@ $^ $(LIBS)

tests: $(TESTS)
benches: $(BENCHES)

# one line a test, then the totals; ONLY=name builds and runs one binary
WANTED := $(if $(ONLY),$(BUILD)/tests/test_$(ONLY),$(TESTS))
test: $(WANTED) $(BIN)
	@tools/run-tests $(WANTED)

$(TESTS:=.o) $(TEST_LIB): | cmocka
cmocka:
	@pkg-config --exists cmocka || { echo "tests want libcmocka-dev; tools/setup --test installs all that they need" >&2; exit 1; }

check:
	@$(MAKE) --no-print-directory test BUILD=build/asan OPT=-O1 SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"

tsan:
	@$(MAKE) --no-print-directory test BUILD=build/tsan OPT=-O1 SAN="-fsanitize=thread -fno-omit-frame-pointer"

# one target of tests/fuzz for SECONDS under libFuzzer, ASan and UBSan; what it finds goes to build/fuzz/found, and from there to tests/data/fuzz/FUZZ
# (clang 14 takes half an hour for kernels with coverage, and no target calls them)
FUZZ_SAN := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
fuzz:
	@test -f "tests/fuzz/fuzz_$(FUZZ).c" || { echo "make fuzz FUZZ=name SECONDS=60; names: $(FUZZERS)"; exit 1; }
	@$(MAKE) --no-print-directory build/fuzz/fuzz_$(FUZZ) BUILD=build/fuzz CC=clang-14 OPT=-O1 \
	    SAN="$(FUZZ_SAN)" SAN_KERNELS="-fno-sanitize=all"
	@mkdir -p build/fuzz/corpus/$(FUZZ) build/fuzz/found
	@build/fuzz/fuzz_$(FUZZ) -max_total_time=$(or $(SECONDS),60) -timeout=20 -rss_limit_mb=3072 -max_len=16384 -print_final_stats=1 -verbosity=1 \
	    -artifact_prefix=build/fuzz/found/$(FUZZ)- $(patsubst %,-dict=%,$(wildcard tests/fuzz/$(FUZZ).dict)) build/fuzz/corpus/$(FUZZ) tests/data/fuzz/$(FUZZ)

# prints the objects of the kernels' room, built for ARM by a cross compiler without libraries (tools/test-arm)
ARM_OBJ := $(patsubst src/%.c,$(BUILD)/%.o,$(filter-out $(patsubst %,src/kernels/%.c,$(ISA_x86_64)),$(wildcard src/kernels/*.c))              src/base/buf.c src/base/fault.c src/base/status.c)
arm-objects: $(ARM_OBJ)
	@echo $^
$(ARM_OBJ): $(BUILD)/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	$(Q)$(ARM_CC) -std=gnu11 -O2 -D_GNU_SOURCE -Isrc -pthread -ffp-contract=off -fno-strict-aliasing $(WARN) $(FLAGS_$(*F)) -MMD -MP -c $< -o $@

lint:
	@tools/lint

install: $(BIN)
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/agent-memory
	install -D -m 644 $(LIB) $(DESTDIR)$(PREFIX)/lib/libagent-memory.a
	install -D -m 644 include/agent_memory.h $(DESTDIR)$(PREFIX)/include/agent_memory.h
	@mkdir -p $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(BIN) help --man > $(DESTDIR)$(PREFIX)/share/man/man1/agent-memory.1
	$(BIN) help --completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/agent-memory

# build/agent-memory_VERSION_ARCH.deb: program, systemd unit, manual, completion, documents
deb: $(BIN)
	@tools/deb $(BUILD) $(VERSION)

compile_commands.json: Makefile $(SRC)
	@tools/compile-commands "$(CC)" "$(CFLAGS_ALL)" $(SRC) > $@

# the figures of docs/BENCHMARKS.md; RUNS=n for more repetitions. bench_kv_forms needs a model and a text: see docs/CACHE_QUALITY.md
bench: $(BIN) $(BENCHES)
	@for b in $(filter-out %/bench_tokenizer %/bench_kv_forms,$(BENCHES)); do echo "$$b"; $$b || exit 1; done
	@bench/bench_tokenizer.py --repeat $(or $(RUNS),5)
	@bench/bench_ttft.py --runs $(or $(RUNS),5)

# the long forms of the tests of the running server: 1,000 kills, 2,000 turns
torture: $(BIN)
	@AM_TORTURE=1 tests/e2e/run.py crash damage memory_does_not_grow kill_loop

# mixed load with everything that can go wrong, then every stored byte against the model; SECONDS=n (1800)
soak: $(BIN)
	@AM_SOAK_SECONDS=$(or $(SECONDS),1800) tests/e2e/run.py soak

# what a program that links libagent-memory.a has to link besides
libs:
	@echo $(LIBS)

clean:
	rm -rf $(BUILD) compile_commands.json

help:
	@echo "make            build/agent-memory and build/libagent-memory.a (release)"
	@echo "make test       every C test, one line each (ONLY=name for one file); tools/setup --test installs what tests need"
	@echo "make check      the same under AddressSanitizer and UBSan;  make tsan  under ThreadSanitizer"
	@echo "make fuzz FUZZ=name SECONDS=60   one target of tests/fuzz under libFuzzer (clang-14)"
	@echo "make lint       rooms, sizes, formatting"
	@echo "make bench      the benchmarks of docs/BENCHMARKS.md (RUNS=5)"
	@echo "make torture    1,000 kills, 2,000 turns, 100 bit flips of each kind of file"
	@echo "make soak       half an hour of mixed load with evictions, hang-ups, drains and kill -9 (SECONDS=1800)"
	@echo "make install PREFIX=/usr/local;  make deb  a Debian package (wants dpkg-dev)"

.PHONY: all tests benches test cmocka check tsan fuzz lint bench torture soak arm-objects install deb libs clean help
.SECONDARY:
-include $(OBJ:.o=.d) $(ARM_OBJ:.o=.d) $(TESTS:=.d) $(TEST_LIB:.o=.d) $(BENCHES:=.d) $(FUZZERS:%=$(BUILD)/tests/fuzz/fuzz_%.d)
