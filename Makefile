# attune. `make help` lists the targets. Everything made lands in build/ (BUILD=dir for another place).

VERSION := 0.1.0
BUILD ?= build
CC ?= gcc
CFLAGS ?= -O3 -g
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wformat=2
BLIS_CFLAGS := -isystem /usr/include/$(shell $(CC) -print-multiarch)/blis-openmp
BLIS_LIBS := -lblis -ljansson -lm
LUA_CFLAGS := -I/usr/include/lua5.4

# The architecture says which instruction sets are compiled; the machine that runs it says which one is used.
ARCH := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
ISAS_x86_64 := c avx2 avx512
ISAS_aarch64 := c
ISAS := $(or $(ISAS_$(ARCH)),c)
ISA_FLAGS_c :=
ISA_FLAGS_avx2 := -mavx2 -mfma -mf16c
ISA_FLAGS_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c

ifdef SAN
SAN_FLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer
BUILD := build/san-$(subst $(empty) $(empty),-,$(subst $(comma),-,$(SAN)))
endif
comma := ,

BASE_CFLAGS := -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread -Icore $(WARNINGS) $(SAN_FLAGS)

CORE_SOURCES := $(filter-out core/simd/kernels/%,$(wildcard core/*/*.c))
KERNEL_SOURCES := $(wildcard core/simd/kernels/*.c)
BINDING_SOURCES := $(wildcard lua/binding/*.c)
CORE_OBJECTS := $(CORE_SOURCES:%.c=$(BUILD)/obj/%.o)
KERNEL_OBJECTS := $(foreach isa,$(ISAS),$(KERNEL_SOURCES:core/simd/kernels/%.c=$(BUILD)/obj/core/simd/$(isa)/%.o))
BINDING_OBJECTS := $(BINDING_SOURCES:%.c=$(BUILD)/obj/%.o)
C_TESTS := $(patsubst tests/c/%.c,$(BUILD)/tests/%,$(wildcard tests/c/test_*.c))

.PHONY: all clean
all: $(BUILD)/libattune.a $(BUILD)/libattune.so $(BUILD)/lua/attune/core.so $(BUILD)/attune

$(CORE_OBJECTS): $(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) $(BLIS_CFLAGS) -DAT_ISAS="$(ISAS)" -MMD -MP -c $< -o $@

define kernel_rule
$$(BUILD)/obj/core/simd/$(1)/%.o: core/simd/kernels/%.c
	@mkdir -p $$(@D)
	$$(CC) $$(BASE_CFLAGS) $$(CFLAGS) $$(ISA_FLAGS_$(1)) -DAT_ISA=$(1) -DAT_ISA_$(1)=1 -MMD -MP -c $$< -o $$@
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_rule,$(isa))))

$(BINDING_OBJECTS): $(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) $(LUA_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/libattune.a: $(CORE_OBJECTS) $(KERNEL_OBJECTS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/libattune.so: $(CORE_OBJECTS) $(KERNEL_OBJECTS)
	$(CC) -shared -pthread $(SAN_FLAGS) -Wl,-soname,libattune.so.0 $^ $(BLIS_LIBS) -o $@

$(BUILD)/lua/attune/core.so: $(BINDING_OBJECTS) $(BUILD)/libattune.a
	@mkdir -p $(@D)
	$(CC) -shared -pthread $(SAN_FLAGS) $^ $(BLIS_LIBS) -o $@

$(BUILD)/attune: lua/bin/attune.in
	@mkdir -p $(@D)
	sed -e 's|@LUA@|$(CURDIR)/lua|g' -e 's|@CORE@|$(abspath $(BUILD))/lua|g' -e 's|@COMMAND_LUA@|$(CURDIR)/lua/bin/attune|g' -e 's|@COMMAND@|$(abspath $@)|g' $< >$@
	chmod +x $@

$(BUILD)/tests/%: tests/c/%.c tests/c/problems.c tests/c/problems.h $(BUILD)/libattune.a
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) -Itests/c -MMD -MP -MF $@.d $< tests/c/problems.c $(BUILD)/libattune.a $(BLIS_LIBS) -lcmocka -o $@

.PHONY: test-c
test-c: $(C_TESTS)
	@for t in $^; do echo $$t; $$t || exit 1; done

clean:
	rm -rf build

-include $(CORE_OBJECTS:.o=.d) $(KERNEL_OBJECTS:.o=.d) $(BINDING_OBJECTS:.o=.d) $(C_TESTS:=.d)
