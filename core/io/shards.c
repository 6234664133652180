/* shards.c - see shards.h. */
#include "io/shards.h"

#include <stdlib.h>
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/json_scan.h"
#include "io/whole_file.h"

enum { MAX_PARTS = 1000 };

/* A member of weight_map. */
typedef struct place {
    const char *name, *file;
} place;

typedef struct index_reader {
    attune_file *f;
    at_json json;
    char *text; /* where the next text goes */
    place *place;
    int64_t places, room;
} index_reader;

static attune_status scanned(const index_reader *r) {
    if (!r->json.error) return ATTUNE_OK;
    return at_fail(ATTUNE_EFORMAT, "%s: the index is not valid JSON: %s (byte %lld)",
                   r->f->part[0].path, r->json.error, (long long)(r->json.at - r->json.begin));
}

static const char *keep_text(index_reader *r, bool key) {
    char *text = r->text;
    int64_t length;
    if (key)
        at_json_key(&r->json, text, &length);
    else
        at_json_text(&r->json, text, &length);
    r->text += length + 1;
    return text;
}

static attune_status read_map(index_reader *r) {
    bool first = true;
    if (!at_json_enter(&r->json, '{'))
        return at_fail(ATTUNE_EFORMAT, "%s: weight_map: %s (byte %lld)", r->f->part[0].path,
                       r->json.error, (long long)(r->json.at - r->json.begin));
    while (at_json_next(&r->json, '}', &first)) {
        if (r->places == AT_MAX_TENSORS)
            return at_malformed(&r->f->part[0], NULL, "expected at most 1000000 tensors");
        AT_TRY(at_grow((void **)&r->place, r->places, &r->room, (int64_t)sizeof *r->place));
        place *p = &r->place[r->places++];
        p->name = keep_text(r, true);
        AT_TRY(scanned(r));
        p->file = keep_text(r, false);
        if (r->json.error) {
            return at_fail(ATTUNE_EFORMAT,
                           "%s: tensor '%.100s': the name of its file: %s (byte %lld)",
                           r->f->part[0].path, p->name, r->json.error,
                           (long long)(r->json.at - r->json.begin));
        }
        if (!*p->file || strchr(p->file, '/') || p->file[0] == '.') {
            return at_fail(ATTUNE_EFORMAT,
                           "%s: tensor '%.100s': expected the name of a file beside the index, "
                           "got '%.100s'",
                           r->f->part[0].path, p->name, p->file);
        }
    }
    return scanned(r);
}

static attune_status read_index(index_reader *r) {
    bool first = true, found = false;
    if (!at_json_enter(&r->json, '{')) return scanned(r);
    while (at_json_next(&r->json, '}', &first)) {
        char *before = r->text;
        const bool is_map = strcmp(keep_text(r, true), "weight_map") == 0;
        r->text = before;
        AT_TRY(scanned(r));
        if (is_map && found)
            return at_malformed(&r->f->part[0], NULL, "expected one weight_map, got two");
        found = found || is_map;
        if (is_map)
            AT_TRY(read_map(r));
        else
            at_json_skip(&r->json);
    }
    at_json_end(&r->json);
    AT_TRY(scanned(r));
    return found && r->places
               ? ATTUNE_OK
               : at_malformed(&r->f->part[0], NULL, "expected a weight_map that names tensors");
}

static int by_file(const void *a, const void *b) {
    return strcmp(((const place *)a)->file, ((const place *)b)->file);
}

static int by_entry_name(const void *a, const void *b) {
    return strcmp((*(at_entry *const *)a)->name, (*(at_entry *const *)b)->name);
}

static int by_place_name(const void *a, const void *b) {
    return strcmp(((const place *)a)->name, ((const place *)b)->name);
}

/* Compares the names of the entries from `before` on, a file's, with those of the places [first,
 * last), which the index gives it. */
static attune_status compare_names(index_reader *r, int64_t first, int64_t last, int64_t before) {
    const attune_file *f = r->f;
    const char *path = f->part[f->parts - 1].path;
    const int64_t n = f->entries - before, expected = last - first;
    const at_entry **sorted = at_alloc((n + 1) * (int64_t)sizeof *sorted);
    if (!sorted) return ATTUNE_EMEMORY;
    for (int64_t i = 0; i < n; i++) sorted[i] = &f->entry[before + i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_entry_name);
    qsort(r->place + first, (size_t)expected, sizeof *r->place, by_place_name);
    attune_status status = ATTUNE_OK;
    for (int64_t i = 0; (i < n || i < expected) && status == ATTUNE_OK; i++) {
        const char *there = i < n ? sorted[i]->name : NULL;
        const char *named = i < expected ? r->place[first + i].name : NULL;
        const int order = !there ? 1 : !named ? -1 : strcmp(there, named);
        if (order > 0)
            status = at_fail(ATTUNE_EFORMAT,
                             "%s: expected the tensor '%.100s', which the index gives this file, "
                             "got none",
                             path, named);
        else if (order < 0)
            status = at_fail(ATTUNE_EFORMAT,
                             "%s: expected no tensor '%.100s', which the index does not give this "
                             "file, got one",
                             path, there);
    }
    at_free(sorted);
    return status;
}

/* Opens and parses the file of the places [first, last), and compares their names with its. */
static attune_status read_part(index_reader *r, int64_t first, int64_t last, const char *folder) {
    attune_file *f = r->f;
    const int64_t length = (int64_t)strlen(folder),
                  room = length + (int64_t)1 + (int64_t)strlen(r->place[first].file);
    char *path = at_alloc(room);
    if (!path) return ATTUNE_EMEMORY;
    memcpy(path, folder, (size_t)length);
    strcpy(path + length, r->place[first].file);
    attune_status status = at_add_part(f, path);
    at_free(path);
    const int64_t before = f->entries, texts = f->texts;
    const int part = (int)f->parts - 1;
    if (status == ATTUNE_OK) status = at_parse_safetensors(f, part);
    AT_TRY(status);
    if (part > 1) f->texts = texts; /* every shard repeats them */
    return compare_names(r, first, last, before);
}

/* The folder of a path, with its slash; "" where the path has none. */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    const int64_t n = slash ? slash - path + 1 : 0;
    char *folder = at_alloc(n + 1);
    if (folder) {
        memcpy(folder, path, (size_t)n);
        folder[n] = 0;
    }
    return folder;
}

static attune_status read_parts(index_reader *r) {
    qsort(r->place, (size_t)r->places, sizeof *r->place, by_file);
    char *folder = folder_of(r->f->part[0].path);
    if (!folder) return ATTUNE_EMEMORY;
    attune_status status = ATTUNE_OK;
    for (int64_t first = 0, last; first < r->places && status == ATTUNE_OK; first = last) {
        last = first + 1;
        while (last < r->places && strcmp(r->place[first].file, r->place[last].file) == 0) last++;
        status = r->f->parts > MAX_PARTS
                     ? at_malformed(&r->f->part[0], NULL, "expected at most 1000 files")
                     : read_part(r, first, last, folder);
    }
    at_free(folder);
    return status;
}

attune_status at_parse_shards(attune_file *f) {
    const at_part index = f->part[0];
    if (index.bytes > AT_MAX_HEADER) {
        return at_fail(ATTUNE_EFORMAT, "%s: expected an index of at most %d bytes, got %lld",
                       index.path, AT_MAX_HEADER, (long long)index.bytes);
    }
    if (index.bytes < 2) return at_malformed(&index, NULL, "expected a JSON index, got nothing");
    index_reader r = {.f = f};
    char *json = at_alloc(index.bytes);
    char *texts = json ? at_alloc(index.bytes) : NULL;
    attune_status status = ATTUNE_EMEMORY;
    if (texts) {
        f->part[0].memory = texts;
        r.text = texts;
        status = at_read_file(index.fd, index.path, 0, json, index.bytes);
    }
    if (status == ATTUNE_OK) {
        at_json_start(&r.json, json, index.bytes);
        status = read_index(&r);
    }
    at_free(json);
    if (status == ATTUNE_OK) status = read_parts(&r);
    at_free(r.place);
    return status;
}
