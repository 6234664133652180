/* tensor_file.h - an open file of tensors, as its parsers (safetensors.c, gguf.c) fill it in. */
#ifndef AT_IO_TENSOR_FILE_H
#define AT_IO_TENSOR_FILE_H

#include "attune.h"
#include "quant/weight.h"

enum { AT_MAX_HEADER = 100000000, AT_MAX_TENSORS = 1000000, AT_MAX_TEXTS = 1000000 };

typedef struct at_entry {
    const char *name;
    const char *type; /* as the file names it; a format that is unknown has no other name */
    const at_format *format;
    int rank, part; /* part: the number of its file */
    int64_t shape[ATTUNE_MAX_RANK];
    int64_t begin, end; /* of its bytes in the part */
} at_entry;

/* A piece of metadata. value: a text with its NUL (safetensors), or the number of the type, u32,
 * and the value as GGUF stores it. */
typedef struct at_text {
    const char *key;
    const void *value;
} at_text;

/* One file: of a sharded model there are several. */
typedef struct at_part {
    char *path;
    int fd;
    int64_t bytes;
    void *memory; /* of the names and texts */
} at_part;

struct attune_file {
    int64_t parts, part_room;
    at_part *part;
    int64_t entries, entry_room;
    at_entry *entry;
    int64_t texts, text_room;
    at_text *text;
    const at_entry **by_name; /* [entries], sorted */
    bool is_gguf;
    at_weight_room weights; /* where attune_weight_read puts them */
};

/* Appends an entry, or a text, of zero bytes. EFORMAT: there are too many. */
attune_status at_add_entry(attune_file *f, const at_part *part, at_entry **out);
attune_status at_add_text(attune_file *f, const at_part *part, const char *key, const void *value);

/* EFORMAT "PATH: tensor 'NAME': WHAT"; name NULL: "PATH: WHAT". */
attune_status at_malformed(const at_part *part, const char *name, const char *what);

/* Multiplies the shape and checks it against the bytes of the entry; sets e->end where it is 0 and
 * `begin` is given by the file alone (GGUF). EFORMAT. */
attune_status at_check_size(const at_part *part, at_entry *e, bool end_given);

/* The entries of a part from `first` on cover [begin, end) of its file, each beginning where the
 * one before ends, rounded up to `alignment`. EFORMAT names the tensor. */
attune_status at_check_cover(const attune_file *f, int64_t first, int part, int64_t begin,
                             int64_t end, int64_t alignment);

/* The parsers: part is the number of an open part, whose entries and texts they append. */
attune_status at_parse_safetensors(attune_file *f, int part);
attune_status at_parse_gguf(attune_file *f, int part);

/* The value of a text of GGUF. */
void at_gguf_value(const void *stored, attune_value *out);

/* UTF-8 without NUL. */
bool at_is_name(const char *text, int64_t length);

#endif
