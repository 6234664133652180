/* test_base.c - statuses, memory, random numbers, parallel loops. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/chunk.h"
#include "base/int_math.h"
#include "base/memory.h"
#include "base/numbers.h"
#include "base/parallel.h"
#include "base/slab.h"
#include "base/status.h"
#include "test.h"

static void statuses_have_names(void **state) {
    (void)state;
    assert_string_equal(attune_status_name(ATTUNE_ECAPACITY), "ECAPACITY");
    assert_string_equal(attune_status_name((attune_status)999), "unknown");
    const int64_t shape[2] = {3, -4};
    assert_int_equal(at_fail(ATTUNE_ESHAPE, "k: got %s", at_shape_text(2, shape)), ATTUNE_ESHAPE);
    assert_string_equal(attune_message(), "k: got [3, -4]");
}

static void messages_hold_no_control_characters(void **state) {
    (void)state;
    at_fail(ATTUNE_EFORMAT, "tensor '%s'", "\x1b[2Ja\nb\x7f\t\x01 \xc3\xa9");
    assert_string_equal(attune_message(), "tensor '?[2Ja?b??? \xc3\xa9'");
}

/* A C caller reads indices that count from 0; a binding may ask for those that count from 1. */
static void indices_in_messages_count_from_0_or_as_asked(void **state) {
    (void)state;
    at_fail(ATTUNE_EVALUE, "row " AT_INDEX ", token " AT_INDEX " of 7", 0LL, -3LL);
    assert_string_equal(attune_message(), "row 0, token -3 of 7");
    assert_string_equal(attune_message_from(1), "row 1, token -2 of 7");
    at_fail(ATTUNE_EVALUE, "%s", at_marked_message());
    assert_string_equal(attune_message_from(1), "row 1, token -2 of 7");
    char text[1200];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    at_fail(ATTUNE_EVALUE, AT_INDEX "%s" AT_INDEX, 9LL, text, 9LL);
    assert_true(strlen(attune_message_from(1)) < 1200);
    assert_int_equal(0, strncmp(attune_message_from(1), "10xxx", 5));
}

/* Known answers of the authors' Random123 distribution (kat_vectors, philox4x32 10). */
static void philox_gives_the_published_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        attune_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].answer, sizeof out);
    }
}

static void memory_is_counted(void **state) {
    (void)state;
    const int64_t before = attune_memory().bytes;
    attune_memory_scope outer, inner;
    attune_memory_scope_begin(&outer);
    void *a = at_alloc(1000);
    assert_non_null(a);
    assert_int_equal((uintptr_t)a % AT_ALIGNMENT, 0);
    assert_int_equal(attune_memory().bytes, before + 1000);
    attune_memory_scope_begin(&inner);
    void *b = at_alloc(5 << 20);
    assert_int_equal((uintptr_t)b % (2 << 20), 0);
    at_free(b);
    assert_int_equal(attune_memory_scope_end(&inner), 5 << 20);
    at_free(a);
    assert_int_equal(attune_memory_scope_end(&outer), 1000 + (5 << 20));
    assert_int_equal(attune_memory().bytes, before);
    at_free(NULL);
    assert_null(at_alloc(-1));
}

static void limits_hold(void **state) {
    (void)state;
    assert_int_equal(attune_memory_limit(attune_memory().bytes + 4096), ATTUNE_OK);
    assert_null(at_alloc(5000));
    assert_non_null(strstr(attune_message(), "5000 bytes"));
    assert_non_null(strstr(attune_message(), "limit"));
    void *p = at_alloc(4000);
    assert_non_null(p);
    at_free(p);
    assert_int_equal(attune_memory_limit(-1), ATTUNE_EVALUE);
    assert_int_equal(attune_memory_limit(0), ATTUNE_OK);
    assert_null(at_alloc(
        (int64_t)1 << 50)); /* more than any machine has: refused before the system overcommits */
    attune_memory_fail_at(2);
    p = at_alloc(10);
    assert_non_null(p);
    assert_null(at_alloc(10));
    at_free(p);
    p = at_alloc(10);
    assert_non_null(p);
    at_free(p);
}

static void checked_arithmetic_reports_overflow(void **state) {
    (void)state;
    assert_int_equal(at_checked_mul(3, 4), 12);
    assert_int_equal(at_checked_mul(INT64_MAX, 2), -1);
    assert_int_equal(at_checked_mul(-1, 2), -1);
    assert_int_equal(at_checked_add(3, 4), 7);
    assert_int_equal(at_checked_add(INT64_MAX, 1), -1);
    assert_int_equal(at_checked_add(-1, 2), -1);
    assert_int_equal(at_checked_round_up(65, 64), 128);
    assert_int_equal(at_checked_round_up(INT64_MAX, 64), -1);
    assert_int_equal(at_round_up(0, 64), 0);
    assert_int_equal(at_ceil_div(129, 64), 3);
}

static void chunks_reuse_what_was_given_back(void **state) {
    (void)state;
    enum { BYTES = 1500000 };
    at_chunk *chunks[3], *chunk = NULL;
    uint8_t *blocks[3];
    for (int i = 0; i < 3; i++) {
        blocks[i] = at_chunk_take(BYTES, &chunks[i]);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % 4096, 0);
        memset(blocks[i], i + 1, BYTES);
    }
    at_chunk_give(chunks[1], blocks[1], BYTES, 0);
    assert_ptr_equal(at_chunk_take(BYTES - 1000, &chunk), blocks[1]);
    assert_ptr_equal(chunk, chunks[1]);
    memset(blocks[1], 9, BYTES - 1000);
    for (int i = 0; i < 3; i += 2)
        for (int j = 0; j < BYTES; j++) assert_int_equal(blocks[i][j], i + 1);
    for (int i = 0; i < 3; i++) at_chunk_give(chunks[i], blocks[i], BYTES - 1000 * (i == 1), 0);
    assert_null(at_chunk_take(1000, &chunk));
    assert_null(at_chunk_take(4 << 20, &chunk));
}

/* Takes and gives blocks of many sizes, each with its own numbers at both ends. Returns how many
 * had others when they were given back, or lacked memory. */
static void *take_and_give(void *first) {
    enum { BLOCKS = 24, ROUNDS = 30000 };
    const int64_t number = *(const int64_t *)first;
    at_chunk *chunks[BLOCKS];
    int64_t *blocks[BLOCKS] = {0}, bytes[BLOCKS] = {0};
    intptr_t wrong = 0;
    for (int64_t i = 0; i < ROUNDS + BLOCKS; i++) {
        const int64_t j = i * 7 % BLOCKS, last = bytes[j] / 8 - 1;
        if (blocks[j]) {
            wrong += blocks[j][0] != number + j || blocks[j][last] != number + j;
            at_chunk_give(chunks[j], blocks[j], bytes[j], 64 << 20);
            blocks[j] = NULL;
        }
        if (i >= ROUNDS) continue;
        bytes[j] = (32 << 10) + (number + i) * 99989 % (4000 << 10) / 8 * 8;
        blocks[j] = at_chunk_take(bytes[j], &chunks[j]);
        if (blocks[j])
            blocks[j][0] = blocks[j][bytes[j] / 8 - 1] = number + j;
        else
            wrong++;
    }
    return (void *)wrong;
}

static void chunks_serve_many_threads(void **state) {
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    int64_t first[THREADS];
    for (int i = 0; i < THREADS; i++) {
        first[i] = 1000 * i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &first[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
}

typedef struct pieces {
    double *a;
    char *b;
    int32_t *c;
} pieces;

static void carve(at_arena *arena, int64_t n, pieces *p) {
    p->a = at_arena_take(arena, n, sizeof *p->a);
    p->b = at_arena_take(arena, 3, sizeof *p->b);
    p->c = at_arena_take(arena, 16, sizeof *p->c);
}

static void arenas_give_aligned_pieces(void **state) {
    (void)state;
    pieces p;
    at_arena arena = {0};
    const int64_t before = attune_memory().bytes;
    carve(&arena, 9, &p);
    assert_null(p.a);
    assert_int_equal(at_arena_alloc_zeroed(&arena), ATTUNE_OK);
    carve(&arena, 9, &p);
    assert_int_equal((uintptr_t)p.a % AT_ALIGNMENT, 0);
    assert_int_equal(p.b - (char *)p.a, 128);
    assert_int_equal((char *)p.c - p.b, 64);
    assert_int_equal(p.c[15], 0);
    assert_null(at_arena_take(&arena, 1, 1)); /* more than was measured */
    at_arena_free(&arena);
    at_arena_free(&arena);
    assert_int_equal(attune_memory().bytes, before);
}

static void arenas_refuse_what_overflows(void **state) {
    (void)state;
    pieces p;
    at_arena arena = {0};
    carve(&arena, INT64_MAX / 4, &p);
    assert_int_equal(at_arena_alloc(&arena), ATTUNE_EMEMORY);
    assert_null(arena.memory);
}

static void slabs_hold_blocks_until_all_are_released(void **state) {
    (void)state;
    const int64_t before = attune_memory().bytes;
    at_slab *slab = at_slab_new(1000);
    assert_non_null(slab);
    char *a = at_slab_take(slab, 100), *b = at_slab_take(slab, 800);
    assert_non_null(a);
    assert_ptr_equal(b, a + 128);
    assert_int_equal((uintptr_t)a % AT_ALIGNMENT, 0);
    assert_null(at_slab_take(slab, 41));
    assert_null(at_slab_take(slab, 0));
    assert_non_null(at_slab_take(slab, 40));
    assert_null(at_slab_take(slab, 1));
    for (int i = 0; i < 3; i++) at_slab_release(slab);
    assert_true(attune_memory().bytes >= before + 1000);
    at_slab_release(slab);
    assert_int_equal(attune_memory().bytes, before);
    attune_memory_fail_at(2);
    assert_null(at_slab_new(1000));
    attune_memory_fail_at(0);
    assert_int_equal(attune_memory().bytes, before);
}

static void halves_round_to_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float b = at_bf16_to_f32((uint16_t)h), f = at_f16_to_f32((uint16_t)h);
        if (b == b)
            assert_int_equal(at_f32_to_bf16(b), h);
        else
            assert_true(at_bf16_to_f32(at_f32_to_bf16(b)) != at_bf16_to_f32(at_f32_to_bf16(b)));
        if (f == f)
            assert_int_equal(at_f32_to_f16(f), h);
        else
            assert_true((at_f32_to_f16(f) & 0x7fff) > 0x7c00);
    }
    assert_int_equal(at_f32_to_bf16(at_f32_of_bits(0x3f808000)), 0x3f80); /* a tie goes to even */
    assert_int_equal(at_f32_to_bf16(at_f32_of_bits(0x3f818000)), 0x3f82);
    assert_int_equal(at_f32_to_bf16(at_f32_of_bits(0x7f800001)),
                     0x7fc0); /* a NaN whose payload would be cut to infinity */
    assert_int_equal(at_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(at_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(at_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(at_f32_to_f16(0x1.8p-25f), 1);
}

typedef struct count_job {
    _Atomic int64_t done[1000];
    int64_t fail_at, fail_too;
    atomic_int most_thread;
} count_job;

static attune_status count_task(void *context, int64_t i, int thread) {
    count_job *j = context;
    atomic_fetch_add(&j->done[i], 1);
    if (thread > atomic_load(&j->most_thread)) atomic_store(&j->most_thread, thread);
    if (i == j->fail_at || i == j->fail_too) return at_fail(ATTUNE_EVALUE, "task %d", (int)i);
    return ATTUNE_OK;
}

static void every_task_runs_once(void **state) {
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        assert_int_equal(attune_threads(threads, NULL), ATTUNE_OK);
        for (int n = 0; n < 200; n++) {
            count_job j = {.fail_at = -1, .fail_too = -1};
            assert_int_equal(at_parallel(n * 5, count_task, &j), ATTUNE_OK);
            for (int i = 0; i < n * 5; i++) assert_int_equal(j.done[i], 1);
            assert_true(j.most_thread < threads);
        }
    }
    assert_int_equal(attune_threads(-1, NULL), ATTUNE_EVALUE);
    assert_int_equal(attune_threads(2, NULL), ATTUNE_OK);
}

static void failures_stop_the_loop(void **state) {
    (void)state;
    count_job j = {.fail_at = 3, .fail_too = 4};
    assert_int_equal(at_parallel(1000, count_task, &j), ATTUNE_EVALUE);
    assert_true(strcmp(attune_message(), "task 3") == 0 || strcmp(attune_message(), "task 4") == 0);
    assert_int_equal(j.done[999], 0);
}

static attune_status nested_task(void *context, int64_t i, int thread) {
    (void)i;
    (void)thread;
    return at_parallel(2, count_task, context);
}

static void nested_use_is_refused(void **state) {
    (void)state;
    count_job j = {.fail_at = -1, .fail_too = -1};
    assert_int_equal(at_parallel(4, nested_task, &j), ATTUNE_ENESTED);
    assert_int_equal(at_parallel(4, count_task, &j), ATTUNE_OK);
}

/* Task 5 interrupts. Later ones wait for it: else another thread could do them all before. */
static attune_status interrupting_task(void *context, int64_t i, int thread) {
    count_job *j = context;
    (void)thread;
    if (i == 5) attune_interrupt();
    atomic_fetch_add(&j->done[i], 1);
    while (i > 5 && atomic_load(&j->done[5]) == 0) sched_yield();
    return ATTUNE_OK;
}

static void interrupts_end_loops(void **state) {
    (void)state;
    count_job j = {.fail_at = -1, .fail_too = -1};
    assert_int_equal(at_parallel(1000, interrupting_task, &j), ATTUNE_EINTERRUPT);
    assert_int_equal(j.done[999], 0);
    attune_interrupt_clear();
    assert_int_equal(at_parallel(10, count_task, &j), ATTUNE_OK);
}

static void *loop_in_another_thread(void *context) {
    for (int n = 0; n < 50; n++) {
        count_job j = {.fail_at = -1, .fail_too = -1};
        if (at_parallel(100, count_task, &j) != ATTUNE_OK) *(int *)context = 1;
    }
    return NULL;
}

static void a_second_caller_waits_for_the_first(void **state) {
    (void)state;
    pthread_t id;
    int failed = 0;
    assert_int_equal(pthread_create(&id, NULL, loop_in_another_thread, &failed), 0);
    int mine = 0;
    loop_in_another_thread(&mine);
    pthread_join(id, NULL);
    assert_int_equal(failed + mine, 0);
}

/* Blocks of this size go through the pool of kept blocks, whose lock fork() must not copy locked.
 */
static void *allocate_until_told(void *stop) {
    while (!atomic_load((atomic_bool *)stop)) at_free(at_alloc((int64_t)1 << 17));
    return NULL;
}

static void a_child_allocates_while_another_thread_does(void **state) {
    (void)state;
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    skip(); /* no block is kept then, and fork() copies the sanitizer's own locks as they are */
#endif
    pthread_t id;
    atomic_bool stop;
    int failed = 0;
    atomic_init(&stop, false);
    assert_int_equal(pthread_create(&id, NULL, allocate_until_told, &stop), 0);
    for (int n = 0; n < 300; n++) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(20); /* a child that waits for the lock ends by a signal */
            at_free(at_alloc((int64_t)1 << 17));
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        failed += status != 0;
        if (failed) break;
    }
    atomic_store(&stop, true);
    pthread_join(id, NULL);
    assert_int_equal(failed, 0);
}

/* As much as the process once had in use is kept, whatever the order of sizes; not more. */
static void what_was_in_use_is_kept_for_reuse(void **state) {
    (void)state;
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    skip(); /* no block is kept then */
#endif
    enum { BLOCKS = 40 };
    const int64_t size = (int64_t)5 << 20;
    void *before[BLOCKS], *after[BLOCKS];
    int same = 0;
    for (int i = 0; i < BLOCKS; i++) assert_non_null(before[i] = at_alloc(size));
    for (int i = 0; i < BLOCKS; i++) at_free(before[i]);
    for (int i = 0; i < BLOCKS; i++) assert_non_null(after[i] = at_alloc(size));
    for (int i = 0; i < BLOCKS; i++)
        for (int k = 0; k < BLOCKS; k++) same += before[i] == after[k];
    assert_int_equal(same, BLOCKS);
    for (int i = 0; i < BLOCKS; i++) at_free(after[i]);
}

/* Resident memory of the process in pages. */
static long resident(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d %ld", &pages), 1);
    fclose(f);
    return pages;
}

static void kept_blocks_are_given_back_when_asked(void **state) {
    (void)state;
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    skip(); /* no block is kept then */
#endif
    enum { BLOCKS = 48, SIZE = 1 << 20 };
    void *block[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        assert_non_null(block[i] = at_alloc(SIZE));
        memset(block[i], 1, SIZE);
    }
    const long used = resident(), most = BLOCKS * (SIZE / sysconf(_SC_PAGESIZE));
    for (int i = 0; i < BLOCKS; i++) at_free(block[i]);
    assert_true(resident() > used - most / 4);
    attune_memory_trim();
    assert_true(resident() < used - most * 3 / 4);
}

static void what_the_machine_lacks_is_refused(void **state) {
    (void)state;
    const int64_t before = attune_memory().bytes;
    for (int shift = 44; shift < 63; shift++) {
        assert_null(at_alloc((int64_t)1 << shift));
        assert_non_null(strstr(attune_message(), "out of memory"));
        assert_null(at_alloc(((int64_t)1 << shift) - 1));
    }
    assert_null(at_alloc(INT64_MAX));
    assert_int_equal(attune_memory().bytes, before);
}

/* The variable is read once per process. */
static attune_status status_with_threads(const char *text) {
    const pid_t child = fork();
    if (child == 0) {
        setenv("ATTUNE_THREADS", text, 1);
        _exit((int)at_check_threads());
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? (attune_status)WEXITSTATUS(status) : ATTUNE_EIO;
}

static void only_a_number_of_threads_is_accepted(void **state) {
    (void)state;
    static const char *const wrong[] = {"-1", "0",  "257", "abc", "2x",
                                        " 2", "+2", "1e2", "0x2", "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (status_with_threads(wrong[i]) != ATTUNE_EVALUE) fail_msg("'%s' is accepted", wrong[i]);
    assert_int_equal(status_with_threads("1"), ATTUNE_OK);
    assert_int_equal(status_with_threads("256"), ATTUNE_OK);
    assert_int_equal(status_with_threads(""), ATTUNE_OK);
}

static void a_child_has_threads_of_its_own(void **state) {
    (void)state;
    count_job j = {.fail_at = -1, .fail_too = -1};
    assert_int_equal(at_parallel(10, count_task, &j), ATTUNE_OK);
    pid_t child = fork();
    if (child == 0) {
        count_job mine = {.fail_at = -1, .fail_too = -1};
        alarm(20);
        _exit(at_parallel(100, count_task, &mine) == ATTUNE_OK && mine.done[99] == 1 ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

static void evicted_memory_keeps_its_values(void **state) {
    (void)state;
    enum { BYTES = 9 << 20 }; /* several tasks, and a part of one */
    unsigned char *bytes = test_malloc(BYTES);
    for (int i = 0; i < BYTES; i++) bytes[i] = (unsigned char)(i * 31 >> 3);
    /* Spans that begin and end inside a line, an empty one, and one byte. */
    const attune_span spans[] = {{bytes + 3, BYTES - 10}, {NULL, 0}, {bytes + 77, 1}};
    MUST(attune_evict(spans, 3));
    MUST(attune_evict(NULL, 0));
    for (int i = 0; i < BYTES; i++) assert_true(bytes[i] == (unsigned char)(i * 31 >> 3));
    const attune_span wrong[] = {{bytes, 64}, {NULL, 64}, {bytes, -1}};
    assert_int_equal(attune_evict(wrong, 2), ATTUNE_EVALUE);
    assert_non_null(strstr(attune_message(), "spans[1]"));
    assert_int_equal(attune_evict(wrong + 2, 1), ATTUNE_EVALUE);
    test_free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses_have_names),
        cmocka_unit_test(messages_hold_no_control_characters),
        cmocka_unit_test(indices_in_messages_count_from_0_or_as_asked),
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(memory_is_counted),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(checked_arithmetic_reports_overflow),
        cmocka_unit_test(arenas_give_aligned_pieces),
        cmocka_unit_test(arenas_refuse_what_overflows),
        cmocka_unit_test(slabs_hold_blocks_until_all_are_released),
        cmocka_unit_test(halves_round_to_even),
        cmocka_unit_test(every_task_runs_once),
        cmocka_unit_test(failures_stop_the_loop),
        cmocka_unit_test(nested_use_is_refused),
        cmocka_unit_test(interrupts_end_loops),
        cmocka_unit_test(a_second_caller_waits_for_the_first),
        cmocka_unit_test(a_child_has_threads_of_its_own),
        cmocka_unit_test(a_child_allocates_while_another_thread_does),
        cmocka_unit_test(what_was_in_use_is_kept_for_reuse),
        cmocka_unit_test(chunks_reuse_what_was_given_back),
        cmocka_unit_test(chunks_serve_many_threads),
        cmocka_unit_test(kept_blocks_are_given_back_when_asked),
        cmocka_unit_test(what_the_machine_lacks_is_refused),
        cmocka_unit_test(only_a_number_of_threads_is_accepted),
        cmocka_unit_test(evicted_memory_keeps_its_values),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
