/* test_tokenize.c - byte-pair encoding over texts that strangers may have made, windows, SHA-256;
 * every allocation may fail. */
#include "test.h"

static const char *const texts[] = {
    "a",
    "abababab abab",
    "   \n\n\t  x  ",
    "\xff\xfe\x80 caf\xc3\xa9 12345 !!?? the the the then",
};

static attune_span span_of(const char *text) {
    return (attune_span){.data = text, .bytes = (int64_t)strlen(text)};
}

static void starts_at_zero(attune_tensor *starts) {
    const int64_t one = 1;
    MUST(attune_tensor_new(ATTUNE_I64, 1, &one, starts));
}

/* Appends the bytes of an id. */
static void spell(const attune_tensor *merges, int32_t id, char *to, int64_t *length) {
    if (id < 256) {
        to[(*length)++] = (char)id;
        return;
    }
    const int32_t *pair = (const int32_t *)merges->data + 2 * (id - 256);
    spell(merges, pair[0], to, length);
    spell(merges, pair[1], to, length);
}

static void ids_spell_the_text(void **state) {
    attune_tensor starts, merges, ids, first;
    char spelled[5000], word[4000];
    (void)state;
    memset(word, 'a', sizeof word); /* longer than a word may be */
    starts_at_zero(&starts);
    MUST(attune_bpe_train(span_of(texts[3]), &starts, 300, &merges));
    for (size_t k = 0; k <= sizeof texts / sizeof *texts; k++) {
        const bool last = k == sizeof texts / sizeof *texts;
        const attune_span text =
            last ? (attune_span){.data = word, .bytes = sizeof word} : span_of(texts[k]);
        int64_t length = 0;
        MUST(attune_bpe_encode(&merges, text, &starts, &ids, &first));
        for (int64_t i = 0; i < ids.shape[0]; i++)
            spell(&merges, ((const int32_t *)ids.data)[i], spelled, &length);
        assert_int_equal(length, text.bytes);
        assert_memory_equal(spelled, text.data, (size_t)length);
        attune_tensor_close(&ids);
        attune_tensor_close(&first);
    }
    attune_tensor_close(&merges);
    attune_tensor_close(&starts);
}

static void wrong_merges_and_borders_are_refused(void **state) {
    static const int32_t wrong[][4] = {{'a', 256, 0, 0},     /* an id that is made later */
                                       {-1, 'a', 0, 0},      /* no id */
                                       {'a', 'b', 'a', 'b'}, /* a pair twice */
                                       {'a', 'b', 257, 'c'}};
    const int64_t shape[2] = {2, 2}, two = 2;
    attune_tensor starts, merges, ids, first;
    (void)state;
    starts_at_zero(&starts);
    MUST(attune_tensor_new(ATTUNE_I32, 2, shape, &merges));
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        memcpy(merges.data, wrong[k], sizeof wrong[k]);
        assert_int_equal(attune_bpe_encode(&merges, span_of("ab"), &starts, &ids, &first),
                         ATTUNE_EVALUE);
        assert_non_null(strstr(attune_message(), "merges"));
    }
    attune_tensor_close(&starts);
    MUST(attune_tensor_new(ATTUNE_I64, 1, &two, &starts));
    static const int64_t borders[][2] = {{0, 3}, {1, 2}, {0, -1}};
    for (size_t k = 0; k < sizeof borders / sizeof *borders; k++) {
        memcpy(starts.data, borders[k], sizeof borders[k]);
        assert_int_equal(attune_bpe_train(span_of("ab"), &starts, 300, &ids), ATTUNE_EVALUE);
        assert_non_null(strstr(attune_message(), "starts"));
    }
    assert_int_equal(attune_bpe_train((attune_span){0}, &starts, 300, &ids), ATTUNE_EVALUE);
    attune_tensor_close(&starts);
    attune_tensor_close(&merges);
}

static void windows_stay_inside_the_text(void **state) {
    const int64_t one = 1;
    attune_tensor ids, starts, counts, out;
    (void)state;
    MUST(attune_byte_ids(span_of("abcdef"), &ids));
    starts_at_zero(&starts);
    MUST(attune_tensor_new(ATTUNE_I64, 1, &one, &counts));
    for (int64_t first = -1; first <= 4; first++) {
        ((int64_t *)starts.data)[0] = first;
        ((int64_t *)counts.data)[0] = 3;
        const attune_status wanted = first >= 0 && first <= 3 ? ATTUNE_OK : ATTUNE_EVALUE;
        assert_int_equal(attune_token_windows(&ids, &starts, 3, &out), wanted);
        if (wanted == ATTUNE_OK) assert_int_equal(((const int64_t *)out.data)[2], 'c' + first);
        attune_tensor_close(&out);
        assert_int_equal(attune_token_ranges(&ids, &starts, &counts, &out), wanted);
        attune_tensor_close(&out);
    }
    assert_int_equal(attune_token_windows(&ids, &starts, INT64_MAX, &out), ATTUNE_EVALUE);
    attune_tensor *all[] = {&ids, &starts, &counts};
    for (int i = 0; i < 3; i++) attune_tensor_close(all[i]);
}

static void failed_allocations_leave_nothing_behind(void **state) {
    attune_tensor starts;
    (void)state;
    starts_at_zero(&starts);
    for (int64_t n = 1;; n++) {
        attune_tensor merges = {0}, ids = {0}, first = {0};
        const int64_t before = attune_memory().bytes;
        attune_memory_fail_at(n);
        attune_status status = attune_bpe_train(span_of(texts[3]), &starts, 300, &merges);
        if (status == ATTUNE_OK)
            status = attune_bpe_encode(&merges, span_of(texts[3]), &starts, &ids, &first);
        attune_memory_fail_at(0);
        attune_tensor_close(&merges);
        attune_tensor_close(&ids);
        attune_tensor_close(&first);
        assert_int_equal(attune_memory().bytes, before);
        if (status == ATTUNE_OK) break;
        assert_int_equal(status, ATTUNE_EMEMORY);
    }
    attune_tensor_close(&starts);
}

/* hashlib of CPython 3.11 gives the same for lengths around the border of a block. */
static void digests_have_the_padding_of_fips_180_4(void **state) {
    static const struct {
        int64_t bytes;
        const char *hex;
    } cases[] = {
        {55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
        {56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
        {63, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"},
        {64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
    };
    char a[64], hex[65];
    (void)state;
    memset(a, 'a', sizeof a);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        attune_sha256((attune_span){.data = a, .bytes = cases[k].bytes}, hex);
        assert_string_equal(hex, cases[k].hex);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_spell_the_text),
        cmocka_unit_test(wrong_merges_and_borders_are_refused),
        cmocka_unit_test(windows_stay_inside_the_text),
        cmocka_unit_test(failed_allocations_leave_nothing_behind),
        cmocka_unit_test(digests_have_the_padding_of_fips_180_4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
