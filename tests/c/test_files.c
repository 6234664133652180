/* test_files.c - safetensors files: what comes back, what is refused, what a path may be, and what
 * reading may cost. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "problems.h"
#include "test.h"

static char folder[64];

/* folder/name, in one of 4 buffers. */
static const char *in_folder(const char *name) {
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/attune-files-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    static const char *const names[] = {"a", "b", "link", "dangling", "new", "fifo", "inner/a"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(in_folder(names[i]));
    rmdir(in_folder("inner"));
    return rmdir(folder); /* fails where a temporary file was left */
}

static void write_bytes(const char *path, const void *data, size_t bytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

/* A file with that header and `bytes` bytes of data, which count from 0. */
static const char *file_of(const char *header, size_t bytes) {
    const char *path = in_folder("a");
    const uint64_t length = strlen(header);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 8; i++) fputc((int)(length >> (8 * i) & 255), f);
    fputs(header, f);
    for (size_t i = 0; i < bytes; i++) fputc((int)(i & 255), f);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void saved(const char *path) {
    const int64_t n = 3;
    attune_named_tensor named = {.name = (char *)"x"};
    MUST(attune_tensor_new(ATTUNE_F32, 1, &n, &named.tensor));
    const attune_archive a = {.tensors = 1, .tensor = &named};
    MUST(attune_archive_save(path, &a));
    attune_tensor_close(&named.tensor);
}

static mode_t mode_of(const char *path) {
    struct stat info;
    assert_int_equal(lstat(path, &info), 0);
    return info.st_mode;
}

/* ---- paths ----------------------------------------------------------------------------------- */

static void a_file_keeps_its_mode(void **state) {
    (void)state;
    const char *path = in_folder("a");
    write_bytes(path, "old", 3);
    assert_int_equal(chmod(path, 0600), 0);
    saved(path);
    assert_int_equal(mode_of(path), S_IFREG | 0600);
    assert_int_equal(chmod(path, 0664), 0);
    saved(path);
    assert_int_equal(mode_of(path), S_IFREG | 0664);
    const mode_t mask = umask(027);
    saved(in_folder("new"));
    umask(mask);
    assert_int_equal(mode_of(in_folder("new")), S_IFREG | 0640);
}

static void the_target_of_a_link_is_written(void **state) {
    (void)state;
    assert_int_equal(mkdir(in_folder("inner"), 0755), 0);
    write_bytes(in_folder("inner/a"), "old", 3);
    assert_int_equal(symlink("inner/a", in_folder("link")), 0);
    assert_int_equal(symlink("link", in_folder("b")), 0); /* a link to a link */
    saved(in_folder("b"));
    assert_true(S_ISLNK(mode_of(in_folder("link"))));
    assert_true(S_ISLNK(mode_of(in_folder("b"))));
    attune_archive a;
    MUST(attune_archive_load(in_folder("inner/a"), &a));
    assert_int_equal(a.tensors, 1);
    attune_archive_close(&a);
    assert_int_equal(symlink("new", in_folder("dangling")), 0);
    saved(in_folder("dangling"));
    assert_true(S_ISLNK(mode_of(in_folder("dangling"))));
    assert_true(S_ISREG(mode_of(in_folder("new"))));
    unlink(in_folder("link"));
    assert_int_equal(symlink("link", in_folder("link")), 0); /* a link to itself */
    assert_int_equal(attune_archive_save(in_folder("link"), &(attune_archive){0}), ATTUNE_EIO);
    assert_int_equal(attune_system_error(), ELOOP);
}

static void only_files_are_read_and_written(void **state) {
    (void)state;
    attune_archive a;
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_int_equal(mkdir(in_folder("inner"), 0755), 0);
    assert_int_equal(symlink("fifo", in_folder("link")), 0);
    const char *const paths[] = {in_folder("fifo"), in_folder("inner"), in_folder("link"),
                                 "/dev/null"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(attune_archive_load(paths[i], &a), ATTUNE_EIO);
        assert_non_null(strstr(attune_message(), "expected a file, got"));
        assert_int_equal(attune_archive_save(paths[i], &(attune_archive){0}), ATTUNE_EIO);
        assert_non_null(strstr(attune_message(), "expected a file, got"));
    }
    assert_true(S_ISFIFO(mode_of(in_folder("fifo"))));
    assert_int_equal(attune_archive_save("", &(attune_archive){0}), ATTUNE_EIO);
    assert_int_equal(attune_archive_save(in_folder("inner/"), &(attune_archive){0}), ATTUNE_EIO);
}

/* ---- contents -------------------------------------------------------------------------------- */

static void small_integers_are_widened(void **state) {
    (void)state;
    attune_archive a;
    const char *path =
        file_of("{\"u\":{\"dtype\":\"U8\",\"shape\":[2,128],\"data_offsets\":[0,256]},"
                "\"b\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[256,259]}}",
                259);
    MUST(attune_archive_load(path, &a));
    assert_int_equal(a.tensor[0].tensor.dtype, ATTUNE_I32);
    for (int i = 0; i < 256; i++) assert_int_equal(((int32_t *)a.tensor[0].tensor.data)[i], i);
    assert_int_equal(a.tensor[1].tensor.dtype, ATTUNE_I8);
    for (int i = 0; i < 3; i++) assert_int_equal(((int8_t *)a.tensor[1].tensor.data)[i], i > 0);
    attune_archive_close(&a);
    attune_archive_close(&a);
}

static void unknown_dtypes_are_listed(void **state) {
    (void)state;
    attune_archive a;
    const char *path =
        file_of("{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,3],\"data_offsets\":[0,6]},"
                "\"x\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[6,8]},"
                "\"y\":{\"dtype\":\"F3_NEW\",\"shape\":[2],\"data_offsets\":[8,9]}}  \n",
                9);
    MUST(attune_archive_load(path, &a));
    assert_int_equal(a.tensors, 3);
    assert_string_equal(a.tensor[0].unread, "F8_E4M3");
    assert_null(a.tensor[0].tensor.data);
    assert_int_equal(a.tensor[0].tensor.rank, 2);
    assert_int_equal(a.tensor[0].tensor.shape[1], 3);
    assert_null(a.tensor[1].unread);
    assert_int_equal(((int8_t *)a.tensor[1].tensor.data)[1], 7);
    assert_string_equal(a.tensor[2].unread, "F3_NEW");
    attune_archive_close(&a);
    path = file_of("{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,3],\"data_offsets\":[0,5]}}", 5);
    assert_int_equal(attune_archive_load(path, &a), ATTUNE_EFORMAT);
    /* Elements of less than a byte are packed, and whole bytes are checked. */
    static const struct {
        const char *dtype, *shape;
        size_t bytes;
        bool good;
    } small[] = {
        {"F4", "[2,3]", 3, true},        {"F4", "[2,3]", 6, false},
        {"F4", "[3]", 1, false},         {"F4", "[3]", 2, false},
        {"F6_E2M3", "[4,3]", 9, true},   {"F6_E2M3", "[4,3]", 12, false},
        {"F6_E3M2", "[2,2]", 3, true},   {"F6_E3M2", "[2]", 2, false},
        {"F8_E4M3FNUZ", "[3]", 3, true}, {"F8_E5M2FNUZ", "[3]", 4, false},
    };
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        char header[200];
        snprintf(header, sizeof header,
                 "{\"w\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[0,%zu]}}", small[i].dtype,
                 small[i].shape, small[i].bytes);
        path = file_of(header, small[i].bytes);
        assert_int_equal(attune_archive_load(path, &a), small[i].good ? ATTUNE_OK : ATTUNE_EFORMAT);
        if (small[i].good) {
            assert_string_equal(a.tensor[0].unread, small[i].dtype);
            attune_archive_close(&a);
        }
    }
}

#define ENTRY "{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}"

static void malformed_headers_are_refused(void **state) {
    (void)state;
    static const char *const headers[] = {
        "{\"a\":" ENTRY ",}",
        "{\"a\":" ENTRY "} x",
        "{\"a\":" ENTRY ",\"a\":" ENTRY "}",
        "{\"a\\u0000b\":" ENTRY "}",
        "{\"a\\ud800\":" ENTRY "}",
        "{\"a\xc0\x80\":" ENTRY "}",
        "{\"a\n\":" ENTRY "}",
        "{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1],\"shape\":[1]}}",
        "{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0]}}",
        "{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}",
        "{\"a\":{\"dtype\":\"I8\",\"shape\":[01],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":\"I8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":\"I8\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":\"I8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":\"i8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}",
        "{\"a\":[]}",
        "{\"__metadata__\":{\"k\":1},\"a\":" ENTRY "}",
        "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"},\"a\":" ENTRY "}",
        "{\"__metadata__\":{},\"__metadata__\":{},\"a\":" ENTRY "}",
        "[" ENTRY "]",
        "{\"a\":",
        "{}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        attune_archive a;
        const attune_status status = attune_archive_load(file_of(headers[i], 1), &a);
        if (status != ATTUNE_EFORMAT) fail_msg("%s: %s", headers[i], attune_status_name(status));
        assert_int_equal(a.tensors, 0);
        assert_null(a.tensor);
    }
    attune_archive a;
    MUST(attune_archive_load(file_of("{\"a\\u00e4\\ud83d\\ude00\\\"\":" ENTRY "}", 1), &a));
    assert_string_equal(a.tensor[0].name, "a\xc3\xa4\xf0\x9f\x98\x80\"");
    attune_archive_close(&a);
}

/* A header of `pieces` copies of a text: reading it takes at most a few times its size, and a limit
 * on memory holds. */
static void check_cost(const char *before, const char *piece, const char *after, size_t pieces) {
    const size_t size = strlen(piece), room = strlen(before) + pieces * size + strlen(after) + 1;
    char *header = malloc(room), *to = header;
    assert_non_null(header);
    to += sprintf(to, "%s", before);
    for (size_t i = 0; i < pieces; i++) {
        memcpy(to, piece, size);
        to += size;
    }
    strcpy(to, after);
    const char *path = file_of(header, 1);
    attune_archive a;
    attune_memory_scope scope;
    attune_memory_scope_begin(&scope);
    const attune_status status = attune_archive_load(path, &a);
    const int64_t bytes = attune_memory_scope_end(&scope);
    if (status == ATTUNE_OK) attune_archive_close(&a);
    if (bytes > 8 * (int64_t)room) fail_msg("%s..: %lld bytes", piece, (long long)bytes);
    MUST(attune_memory_limit(attune_memory().bytes + (int64_t)room / 2));
    assert_int_equal(attune_archive_load(path, &a), ATTUNE_EMEMORY);
    MUST(attune_memory_limit(0));
    free(header);
}

static void a_header_costs_what_it_is_long(void **state) {
    (void)state;
    enum { PIECES = 200000 };
    check_cost("{\"a\":{\"x\":[", "{},",
               "0],\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", PIECES);
    check_cost("{\"a\":{\"x\":[", "[],",
               "0],\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", PIECES);
    check_cost("{", "\"a\":{},", "\"b\":0}", PIECES);
    check_cost("{\"__metadata__\":{", "\"\":\"\",", "\"\":\"\"}}", PIECES);
    check_cost("{\"a\":", "[", "", PIECES);
    check_cost("{\"", "a", "\":" ENTRY "}", PIECES);
}

int main(void) {
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_file_keeps_its_mode),           IN_FOLDER(the_target_of_a_link_is_written),
        IN_FOLDER(only_files_are_read_and_written), IN_FOLDER(small_integers_are_widened),
        IN_FOLDER(unknown_dtypes_are_listed),       IN_FOLDER(malformed_headers_are_refused),
        IN_FOLDER(a_header_costs_what_it_is_long),
    };
    return cmocka_run_group_tests_name("files", tests, NULL, NULL);
}
