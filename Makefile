# attune. `make help` lists the targets. Everything made lands in build/ (BUILD=dir: elsewhere).

VERSION := 0.1.0
SOVERSION := 0
PREFIX ?= /usr/local
BUILD ?= build
CFLAGS ?= -O3 -g
ifeq ($(origin CC),default)
CC := gcc
endif

comma := ,
ifdef SAN
SAN_FLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined
CFLAGS := -O1 -g1
BUILD := build/san-$(subst $(comma),-,$(SAN))
endif

# Kept clean with gcc 12 and clang 14. Not kept: -Wsign-conversion, as every index that is an int64_t would need a cast at malloc and memcpy.
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wformat=2
# What the compiler is asked for when it is there; before `make deps` it may not be.
MULTIARCH = $(shell $(CC) -print-multiarch 2>/dev/null)
ARCH = $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null)))
BLIS_CFLAGS = -isystem /usr/include/$(MULTIARCH)/blis-openmp
CORE_LIBS := -lblis -ljansson -lm
LUA_CFLAGS := -I/usr/include/lua5.4

# The processor's family says which instruction sets are compiled; the machine that runs it says which one is used.
ISAS_x86_64 := c amx_emulated sse2 avx2 avx512 avx512_bf16 amx
ISAS_aarch64 := c amx_emulated neon
ISAS = $(or $(ISAS_$(ARCH)),c amx_emulated)
# Threads are the same over any instruction set, and instrumented kernels take minutes to compile and to run: AT_FEW_SETS says so to core/simd/dispatch.c.
ifeq ($(SAN),thread)
ISAS_x86_64 := c amx_emulated avx2
SAN_FLAGS += -DAT_FEW_SETS
ONE_SET = ATTUNE_ISA=$${ATTUNE_ISA:-$$($(BUILD)/tests/isas | cut -d ' ' -f 1)}
endif
ISA_FLAGS_f64 :=
ISA_FLAGS_c :=
ISA_FLAGS_amx_emulated :=
ISA_FLAGS_sse2 := -msse2
ISA_FLAGS_neon :=
ISA_FLAGS_avx2 := -mavx2 -mfma -mf16c
ISA_FLAGS_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
ISA_FLAGS_avx512_bf16 := $(ISA_FLAGS_avx512) -mavx512bf16 -mavx512vnni
ISA_FLAGS_amx := $(ISA_FLAGS_avx512_bf16) -mamx-tile -mamx-bf16 -mamx-int8

# ISO C without contraction of a * b + c: sums are what the source says. The core never sees Lua's headers.
PLAIN_CFLAGS = -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread -Icore -Icore/include $(WARNINGS) $(WERROR)
BASE_CFLAGS = $(PLAIN_CFLAGS) $(SAN_FLAGS)

CORE_SOURCES := $(wildcard core/*/*.c)
KERNEL_SOURCES := $(wildcard core/simd/kernels/*.c)
BINDING_SOURCES := $(wildcard lua/binding/*.c)
TEST_SUPPORT := tests/c/problems.c tests/c/linear_cases.c
CORE_OBJECTS := $(CORE_SOURCES:%.c=$(BUILD)/obj/%.o)
# Of the f64 instance only what core/nn needs.
KERNEL_OBJECTS = $(foreach isa,$(ISAS),$(KERNEL_SOURCES:core/simd/kernels/%.c=$(BUILD)/obj/core/simd/$(isa)/%.o)) $(BUILD)/obj/core/simd/f64/nn_kernels.o
BINDING_OBJECTS := $(BINDING_SOURCES:%.c=$(BUILD)/obj/%.o)
SUPPORT_OBJECTS := $(TEST_SUPPORT:%.c=$(BUILD)/obj/%.o)
C_TESTS := $(patsubst tests/c/%.c,$(BUILD)/tests/%,$(wildcard tests/c/test_*.c))

.PHONY: help all library deps deps-test deps-lint demo test test-c test-lua test-isa bench bench-peers bench-check lint format docs install uninstall clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo       what multi-query attention saves, measured here: table, plots, report (3 minutes)'
	@echo 'make test       all tests; make test-isa: on every instruction set of this machine; make test-neon: kernels on an emulated AArch64'
	@echo 'make all        build/attune, libattune.a, libattune.so, attune.pc'
	@echo 'make bench      the kernels beside what the machine allows, as ratios; make bench-check: against an earlier build, in turns'
	@echo 'make bench-peers  beside PyTorch, ONNX Runtime, OpenVINO and vLLM (from PyPI, 25 minutes)'
	@echo 'make lint       compilers with -Werror, formats, luacheck, shellcheck, house rules'
	@echo 'make format     clang-format on the C sources'
	@echo 'make docs       the manual as pages in build/docs'
	@echo 'make install    to PREFIX ($(PREFIX)), under DESTDIR; make uninstall'
	@echo 'make deps       install what is missing through apt; the other targets call it'
	@echo 'make clean'
	@echo 'SAN=address,undefined or SAN=thread: a build of its own with sanitizers, for test-c and test-lua'

# ---- what must be installed ------------------------------------------------------------------------------------------

PACKAGES := gcc libc6-dev libblis-openmp-dev libjansson-dev lua5.4 liblua5.4-dev lua-luv lua-filesystem lua-argparse lua-dkjson lua-readline gnuplot-nox fonts-dejavu-core
TEST_PACKAGES := $(PACKAGES) lua-busted libcmocka-dev
LINT_PACKAGES := $(TEST_PACKAGES) clang clang-format lua-check shellcheck

deps:
	@tools/deps $(PACKAGES)
deps-test:
	@tools/deps $(TEST_PACKAGES)
deps-lint:
	@tools/deps $(LINT_PACKAGES)

# ---- building --------------------------------------------------------------------------------------------------------

# A second make: by then the compiler is there to be asked.
all: deps
	@$(MAKE) --no-print-directory library

library: $(BUILD)/libattune.a $(BUILD)/libattune.so $(BUILD)/attune.pc $(BUILD)/lua/attune/core.so $(BUILD)/attune

# Other flags, other objects.
FLAGS_NOW = $(CC) $(BASE_CFLAGS) $(CFLAGS) $(ISAS) $(LDFLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(FLAGS_NOW)' | cmp -s - $@ || echo '$(FLAGS_NOW)' >$@
FORCE:

$(CORE_OBJECTS): $(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) $(BLIS_CFLAGS) -MMD -MP -c $< -o $@

define kernel_rule
$$(BUILD)/obj/core/simd/$(1)/%.o: core/simd/kernels/%.c $$(BUILD)/flags
	@mkdir -p $$(@D)
	$$(CC) $$(BASE_CFLAGS) $$(CFLAGS) $$(ISA_FLAGS_$(1)) -DAT_ISA=$(1) -DAT_ISA_$(1)=1 -MMD -MP -c $$< -o $$@
endef
$(foreach isa,f64 c amx_emulated sse2 avx2 avx512 avx512_bf16 amx neon,$(eval $(call kernel_rule,$(isa))))

$(BINDING_OBJECTS): $(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) $(LUA_CFLAGS) -DATTUNE_BUILD='"$(shell $(CC) --version 2>/dev/null | head -n 1 | tr -d '"') $(CFLAGS)"' -MMD -MP -c $< -o $@

# The formulas that the tests compare with are most of their time: never instrumented.
$(SUPPORT_OBJECTS): $(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(PLAIN_CFLAGS) $(CFLAGS) -O2 -MMD -MP -c $< -o $@

$(BUILD)/libattune.a: $(CORE_OBJECTS) $(KERNEL_OBJECTS)
	@rm -f $@
	$(AR) rcs $@ $^

# nodelete: the pool's threads live on when a host, such as a Lua state that closes, unloads its libraries.
$(BUILD)/libattune.so: $(CORE_OBJECTS) $(KERNEL_OBJECTS)
	$(CC) -shared -pthread -Wl,-z,nodelete $(SAN_FLAGS) $(LDFLAGS) -Wl,-soname,libattune.so.$(SOVERSION) $^ $(CORE_LIBS) -o $@
	ln -sf libattune.so $(BUILD)/libattune.so.$(SOVERSION)

$(BUILD)/lua/attune/core.so: $(BINDING_OBJECTS) $(BUILD)/libattune.a
	@mkdir -p $(@D)
	$(CC) -shared -pthread -Wl,-z,nodelete $(SAN_FLAGS) $(LDFLAGS) $^ $(CORE_LIBS) -o $@

$(BUILD)/attune.pc: attune.pc.in Makefile
	@mkdir -p $(@D)
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' $< >$@

# The command from the source tree: $(1) folder of Lua files, $(2) of the C module, $(3) the script, $(4) itself
wrapper = sed -e 's|@LUA@|$(1)|g' -e 's|@CORE@|$(2)|g' -e 's|@COMMAND_LUA@|$(3)|g' -e 's|@COMMAND@|$(4)|g' lua/bin/attune.in
$(BUILD)/attune: lua/bin/attune.in Makefile
	@mkdir -p $(@D)
	$(call wrapper,$(CURDIR)/lua,$(abspath $(BUILD))/lua,$(CURDIR)/lua/bin/attune,$(abspath $@)) >$@
	chmod +x $@

-include $(CORE_OBJECTS:.o=.d) $(KERNEL_OBJECTS:.o=.d) $(BINDING_OBJECTS:.o=.d) $(SUPPORT_OBJECTS:.o=.d) $(C_TESTS:=.d)

# ---- using -----------------------------------------------------------------------------------------------------------

demo: all
	@status=0; $(BUILD)/attune run experiments/mqa_vs_mha.lua --quick || status=$$?; exit $$status

# BENCH='prefill --rounds 5' measures a part and leaves bench/RESULTS.md as it is.
bench: all
	@eval "$$($(BUILD)/attune env)"; lua5.4 bench/run.lua $(if $(BENCH),$(BENCH),--write bench/RESULTS.md)

# Beside PyTorch, ONNX Runtime, OpenVINO and vLLM, which come from PyPI into build/peers.
bench-peers: all
	@bench/peers/run $(BUILD)/peers bench/PEERS.md

# Against the build of an earlier commit, in turns: the one that bench/RESULTS.md was made at, unless REF says which.
bench-check: all
	@bench/base $(BUILD)/before $(REF)
	@eval "$$($(BUILD)/attune env)"; lua5.4 bench/check.lua $(abspath $(BUILD)/before/build/attune) $(abspath $(BUILD)/attune) $(BENCH)

# ---- testing ---------------------------------------------------------------------------------------------------------

test: deps-test
	@$(MAKE) --no-print-directory library c-tests
	@tests/run $(BUILD) c lua

test-c: deps-test
	@$(MAKE) --no-print-directory c-tests
	@$(ONE_SET) tests/run $(BUILD) c

test-lua: deps-test
	@$(MAKE) --no-print-directory library
	@tests/run $(BUILD) lua

# Tests of what depends on the set, once for each that runs here; the others know nothing of it.
test-isa: deps-test
	@$(MAKE) --no-print-directory library c-tests
	@for isa in $$($(BUILD)/tests/isas); do echo "== $$isa"; ATTUNE_ISA=$$isa tests/run $(BUILD) c lua || exit 1; done

# The vector layer on another processor: kernels alone, cross-compiled and run by an emulator.
NEON := $(BUILD)/neon
NEON_SOURCES := $(wildcard core/simd/*.c core/base/*.c) core/tensor/tensor.c
test-neon:
	@tools/deps gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
	@$(MAKE) --no-print-directory BUILD=$(NEON) CC=aarch64-linux-gnu-gcc CFLAGS=-O2 neon-kernels
	@qemu-aarch64 $(NEON)/test_kernels

neon-kernels: $(NEON_SOURCES:%.c=$(BUILD)/obj/%.o) $(KERNEL_OBJECTS)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) -static -Itests/c/cross tests/c/test_kernels.c $^ -lm -o $(BUILD)/test_kernels

.PHONY: c-tests test-neon neon-kernels
c-tests: $(C_TESTS) $(BUILD)/tests/isas

# Built without Lua's headers on the include path: the core needs none.
$(BUILD)/tests/%: tests/c/%.c $(SUPPORT_OBJECTS) $(BUILD)/libattune.a
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) -Itests/c -MMD -MP -MF $@.d $< $(SUPPORT_OBJECTS) $(BUILD)/libattune.a $(CORE_LIBS) -lcmocka -o $@

# ---- looking after ---------------------------------------------------------------------------------------------------

C_FILES := $(wildcard core/*/*.[ch] core/*/*/*.[ch] lua/binding/*.[ch] tests/c/*.[ch])

lint: deps-lint
	@tools/lint
	@$(MAKE) --no-print-directory BUILD=build/lint-gcc CC=gcc WERROR=-Werror library c-tests >build/lint-gcc.log 2>&1 || { grep -A4 -E 'error|warning' build/lint-gcc.log | head -n 40; exit 1; }
	@$(MAKE) --no-print-directory BUILD=build/lint-clang CC=clang WERROR=-Werror library c-tests >build/lint-clang.log 2>&1 || { grep -A4 -E 'error|warning' build/lint-clang.log | head -n 40; exit 1; }
	@echo 'lint: gcc and clang with -Werror: clean'

format: deps-lint
	clang-format -i $(C_FILES)

docs: deps
	@tools/docs $(BUILD)/docs

# ---- installing ------------------------------------------------------------------------------------------------------

LIBDIR := $(DESTDIR)$(PREFIX)/lib
SHARE := $(DESTDIR)$(PREFIX)/share
LUA_SHARE := $(SHARE)/lua/5.4
LUA_LIB := $(LIBDIR)/lua/5.4

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(LIBDIR)/pkgconfig $(LUA_LIB)/attune $(SHARE)/attune/bin $(SHARE)/doc/attune
	install -d $(DESTDIR)$(PREFIX)/include/attune
	install -m 644 core/include/attune.h $(DESTDIR)$(PREFIX)/include/attune.h
	install -m 644 core/include/attune/*.h $(DESTDIR)$(PREFIX)/include/attune/
	install -m 644 $(BUILD)/libattune.a $(LIBDIR)/libattune.a
	install -m 755 $(BUILD)/libattune.so $(LIBDIR)/libattune.so.$(VERSION)
	ln -sf libattune.so.$(VERSION) $(LIBDIR)/libattune.so.$(SOVERSION)
	ln -sf libattune.so.$(SOVERSION) $(LIBDIR)/libattune.so
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' attune.pc.in >$(LIBDIR)/pkgconfig/attune.pc
	install -m 755 $(BUILD)/lua/attune/core.so $(LUA_LIB)/attune/core.so
	cd lua && find attune -name '*.lua' -exec install -D -m 644 {} $(abspath $(LUA_SHARE))/{} \;
	install -m 644 lua/bin/attune $(SHARE)/attune/bin/attune
	for folder in plots experiments; do install -d $(SHARE)/attune/$$folder && install -m 644 $$folder/* $(SHARE)/attune/$$folder/ || exit 1; done
	install -m 644 README.md CHANGELOG.md LICENSE docs/*.md docs/*.svg $(SHARE)/doc/attune/
	$(call wrapper,$(PREFIX)/share/lua/5.4,$(PREFIX)/lib/lua/5.4,$(PREFIX)/share/attune/bin/attune,$(PREFIX)/bin/attune) >$(DESTDIR)$(PREFIX)/bin/attune
	chmod 755 $(DESTDIR)$(PREFIX)/bin/attune

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/attune $(DESTDIR)$(PREFIX)/include/attune.h $(LIBDIR)/libattune.* $(LIBDIR)/pkgconfig/attune.pc
	rm -rf $(DESTDIR)$(PREFIX)/include/attune $(LUA_SHARE)/attune $(LUA_LIB)/attune $(SHARE)/attune $(SHARE)/doc/attune

clean:
	rm -rf build
