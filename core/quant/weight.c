/* weight.c - products with weights that stay in the format of their file.
 *
 * A task computes a block of outputs. For few rows of x it reads its weights once per row of x, as
 * they are stored; for more it converts them to f32. The shape alone decides which, and where
 * blocks begin, so that the bits do not depend on the number of threads.
 *
 * Packed weights (quant/packed.h) are multiplied in integers, whatever the number of rows.
 */
#include "quant/weight.h"

#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "quant/packed.h"
#include "simd/table.h"
#include "tensor/product.h"
#include "tensor/tensor.h"

/* FEW_ROWS: x rows up to which weights are read as stored. TASK_BYTES: stored bytes per task of
 * these. TILE: outputs per task of a matrix product. */
enum { FEW_ROWS = 4, TASK_BYTES = 1 << 15, TILE = 64 };

struct attune_weight {
    const at_format *format;
    int kind;   /* of at_weight_kind; -1: without a kernel */
    int packed; /* of at_packed_kind, data is panels; -1: data is rows of row_bytes */
    int64_t outputs, inputs, row_bytes, panel_bytes, bytes;
    uint8_t *data;
    at_slab *slab; /* holds data; NULL: data is a block of its own */
};

static int kind_of(const at_format *format) {
    static const char *const names[AT_WEIGHT_KINDS] = {
        "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"};
    int i = 0; /* the last one where no other is: every format of weights is there */
    while (i < AT_WEIGHT_KINDS - 1 && strcmp(format->name, names[i]) != 0) i++;
    return i;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* SLAB: bytes of a slab, where as many are still to come. A weight from OWN_BLOCK on has huge pages
 * in a block of its own. */
static const int64_t SLAB = (int64_t)32 << 20, OWN_BLOCK = (int64_t)4 << 20;

/* The memory of a weight. room: NULL: a block of its own. */
static bool take_memory(attune_weight *w, at_weight_room *room) {
    if (room && room->left > 0 && w->bytes > 0 && w->bytes < OWN_BLOCK) {
        w->data = room->slab ? at_slab_take(room->slab, w->bytes) : NULL;
        if (!w->data) {
            const int64_t most = room->left < SLAB ? room->left : SLAB;
            at_slab_release(room->slab);
            room->slab = at_slab_new(w->bytes < most ? most : w->bytes);
            if (!room->slab) return false;
            w->data = at_slab_take(room->slab, w->bytes);
        }
        w->slab = room->slab;
    } else {
        w->data = at_alloc(w->bytes);
    }
    if (room) room->left -= w->bytes;
    return w->data != NULL;
}

static attune_status new_weight(const at_format *format, int64_t outputs, int64_t inputs,
                                bool packs, at_weight_room *room, attune_weight **out) {
    *out = NULL;
    attune_weight *w = at_alloc_zeroed((int64_t)sizeof *w);
    if (!w) return ATTUNE_EMEMORY;
    w->format = format;
    w->kind = kind_of(format);
    w->packed = packs ? at_packed_kind_of(format) : -1;
    w->outputs = outputs;
    w->inputs = inputs;
    w->row_bytes = inputs / format->values * format->bytes;
    w->panel_bytes = packs ? at_packed_bytes(w->packed, inputs) : 0;
    w->bytes = packs ? at_checked_mul(at_ceil_div(outputs, AT_PANEL), w->panel_bytes)
                     : at_checked_mul(outputs, w->row_bytes);
    if (!take_memory(w, room)) {
        at_free(w);
        return ATTUNE_EMEMORY;
    }
    *out = w;
    return ATTUNE_OK;
}

attune_status at_weight_new(const at_format *format, int64_t outputs, int64_t inputs,
                            at_weight_room *room, attune_weight **out, void **bytes) {
    AT_TRY(new_weight(format, outputs, inputs, false, room, out));
    *bytes = (*out)->data;
    return ATTUNE_OK;
}

/* ---- packing --------------------------------------------------------------------------------- */

typedef struct pack_job {
    attune_weight *w;
    at_read_rows read;
    const void *context;
    int64_t panels; /* per task */
} pack_job;

/* PACK_BYTES: stored bytes that a task reads at a time. */
enum { PACK_BYTES = 1 << 18 };

static attune_status pack_panels(void *context, int64_t task, int thread) {
    const pack_job *j = context;
    attune_weight *w = j->w;
    const int64_t first = task * j->panels * AT_PANEL, left = w->outputs - first;
    const int64_t rows = left < j->panels * AT_PANEL ? left : j->panels * AT_PANEL;
    (void)thread;
    uint8_t *stored = at_alloc(rows * w->row_bytes);
    if (!stored) return ATTUNE_EMEMORY;
    const attune_status status = j->read(j->context, first, rows, stored);
    for (int64_t r = 0; r < rows && status == ATTUNE_OK; r += AT_PANEL) {
        at_pack_panel(w->packed, stored + r * w->row_bytes, w->row_bytes,
                      (int)(rows - r < AT_PANEL ? rows - r : AT_PANEL), w->inputs,
                      w->data + (first + r) / AT_PANEL * w->panel_bytes);
    }
    at_free(stored);
    return status;
}

attune_status at_weight_new_packed(const at_format *format, int64_t outputs, int64_t inputs,
                                   at_read_rows read, const void *context, at_weight_room *room,
                                   attune_weight **out) {
    AT_TRY(new_weight(format, outputs, inputs, true, room, out));
    pack_job j = {.w = *out, .read = read, .context = context};
    const int64_t panel = AT_PANEL * (*out)->row_bytes;
    j.panels = panel >= PACK_BYTES ? 1 : PACK_BYTES / panel;
    const attune_status status =
        at_parallel(at_ceil_div(outputs, j.panels * AT_PANEL), pack_panels, &j);
    if (status != ATTUNE_OK) {
        attune_weight_close(*out);
        *out = NULL;
    }
    return status;
}

void attune_weight_close(attune_weight *w) {
    if (!w) return;
    if (w->slab)
        at_slab_release(w->slab);
    else
        at_free(w->data);
    at_free(w);
}

attune_status attune_weight_of(const attune_tensor *matrix, attune_weight **out) {
    *out = NULL;
    AT_TRY(at_check_open("matrix", matrix));
    if (matrix->rank != 2)
        return at_fail(ATTUNE_ESHAPE, "matrix: expected [outputs, inputs], got %s",
                       at_shape_text(matrix->rank, matrix->shape));
    const at_format *format = at_formats;
    while (format->name && format->dtype != matrix->dtype) format++;
    if (!at_is_float(matrix->dtype) || matrix->dtype == ATTUNE_F64)
        return at_fail(ATTUNE_EDTYPE, "matrix: expected f32, f16 or bf16, got %s",
                       attune_dtype_name(matrix->dtype));
    void *data;
    AT_TRY(at_weight_new(format, matrix->shape[0], matrix->shape[1], NULL, out, &data));
    attune_tensor view = {0};
    attune_status status = attune_tensor_wrap(matrix->dtype, 2, matrix->shape, NULL, data, &view);
    if (status == ATTUNE_OK) status = attune_tensor_copy(matrix, &view);
    if (status != ATTUNE_OK) {
        attune_weight_close(*out);
        *out = NULL;
    }
    return status;
}

attune_stored attune_weight_describe(const attune_weight *w) {
    attune_stored s = {.name = "",
                       .format = w->format->name,
                       .dtype = w->format->dtype,
                       .rank = 2,
                       .bytes = w->bytes};
    s.shape[0] = w->outputs;
    s.shape[1] = w->inputs;
    return s;
}

/* Rows [first, first + rows) in f32 at `to`. */
static void to_f32(const attune_weight *w, int64_t first, int64_t rows, float *to) {
    const at_elementwise_kernels *k = &at_simd_now()->elementwise;
    for (int64_t r = first; r < first + rows && w->packed >= 0; r++, to += w->inputs) {
        at_unpack_row(w->packed, w->data + r / AT_PANEL * w->panel_bytes, (int)(r % AT_PANEL),
                      w->inputs, to);
    }
    if (w->packed >= 0) return;
    const uint8_t *from = w->data + first * w->row_bytes;
    const int64_t n = rows * w->inputs;
    if (w->format->to_f32)
        w->format->to_f32(from, n / w->format->values, to);
    else if (w->format->dtype == ATTUNE_BF16)
        k->bf16_to_f32((const uint16_t *)(const void *)from, to, n);
    else if (w->format->dtype == ATTUNE_F16)
        k->f16_to_f32((const uint16_t *)(const void *)from, to, n);
    else
        memcpy(to, from, (size_t)(n * (int64_t)sizeof *to));
}

/* ---- products -------------------------------------------------------------------------------- */

typedef struct product {
    const attune_weight *w;
    const float *x, *bias;
    float *y, *sums;     /* sums [rows, inputs / 32]: of the block formats */
    int64_t rows, block; /* block: outputs per task */
} product;

static void add_bias(const product *p, int64_t first, int64_t n) {
    if (!p->bias) return;
    for (int64_t r = 0; r < p->rows; r++) {
        float *y = p->y + r * p->w->outputs + first;
        for (int64_t i = 0; i < n; i++) y[i] += p->bias[first + i];
    }
}

static int64_t outputs_of(const product *p, int64_t first) {
    return p->w->outputs - first < p->block ? p->w->outputs - first : p->block;
}

static attune_status few_rows(void *context, int64_t task, int thread) {
    const product *p = context;
    const attune_weight *w = p->w;
    const int64_t first = task * p->block, n = outputs_of(p, first);
    (void)thread;
    for (int64_t r = 0; r < p->rows; r++) {
        at_simd_now()->weights.dot[w->kind](w->data + first * w->row_bytes, w->row_bytes, n,
                                            p->x + r * w->inputs,
                                            p->sums ? p->sums + r * (w->inputs / 32) : NULL,
                                            w->inputs, p->y + r * w->outputs + first);
    }
    add_bias(p, first, n);
    return ATTUNE_OK;
}

static attune_status many_rows(void *context, int64_t task, int thread) {
    const product *p = context;
    const attune_weight *w = p->w;
    const int64_t first = task * p->block, n = outputs_of(p, first);
    const bool plain = w->kind == AT_WEIGHT_F32;
    float *tile = plain ? NULL : at_alloc(n * w->inputs * (int64_t)sizeof *tile);
    (void)thread;
    if (!plain && !tile) return ATTUNE_EMEMORY;
    if (tile) to_f32(w, first, n, tile);
    const float *from = tile ? tile : (const float *)(const void *)(w->data + first * w->row_bytes);
    const at_f32_product f32 = {.m = p->rows,
                                .n = n,
                                .k = w->inputs,
                                .a = p->x,
                                .a_row = w->inputs,
                                .a_column = 1,
                                .b = from,
                                .b_row = 1,
                                .b_column = w->inputs,
                                .c = p->y + first,
                                .c_row = w->outputs};
    const attune_status status = at_multiply_f32(&f32);
    at_free(tile);
    if (status == ATTUNE_OK) add_bias(p, first, n);
    return status;
}

/* ---- products in integers -------------------------------------------------------------------- */

typedef struct integer_product {
    const attune_weight *w;
    const float *x, *bias;
    float *y;
    int8_t *q;               /* [rows, inputs] */
    at_activation_block *of; /* [rows, inputs / 32] */
    int64_t rows, panels;    /* panels: per task */
} integer_product;

/* ROWS_PER_TASK: rows of x that a task quantises. INTEGER_TASK: bytes of panels per task. */
enum { ROWS_PER_TASK = 16, INTEGER_TASK = 1 << 15 };

static attune_status quantise_rows(void *context, int64_t task, int thread) {
    const integer_product *p = context;
    const int64_t first = task * ROWS_PER_TASK, n = p->w->inputs;
    const int64_t rows = p->rows - first < ROWS_PER_TASK ? p->rows - first : ROWS_PER_TASK;
    (void)thread;
    at_simd_now()->quant.quantise(p->x + first * n, rows * (n / 32), p->q + first * n,
                                  p->of + first * (n / 32));
    return ATTUNE_OK;
}

static attune_status multiply_panels(void *context, int64_t task, int thread) {
    const integer_product *p = context;
    const attune_weight *w = p->w;
    const int64_t panels = at_ceil_div(w->outputs, AT_PANEL), first = task * p->panels;
    const int64_t end = panels - first < p->panels ? panels : first + p->panels;
    (void)thread;
    for (int64_t i = first; i < end; i++) {
        const int64_t output = i * AT_PANEL, left = w->outputs - output;
        const int outputs = (int)(left < AT_PANEL ? left : AT_PANEL);
        at_simd_now()->quant.product[w->packed](w->data + i * w->panel_bytes, w->inputs, p->q,
                                                p->of, p->rows, outputs, p->y + output, w->outputs);
        for (int64_t r = 0; r < p->rows && p->bias; r++) {
            float *y = p->y + r * w->outputs + output;
            for (int o = 0; o < outputs; o++) y[o] += p->bias[output + o];
        }
    }
    return ATTUNE_OK;
}

/* ---- several products ------------------------------------------------------------------------ */

/* A product as tasks of a loop. */
typedef struct work {
    at_task run;
    void *context; /* floats or integers */
    int64_t tasks;
    product floats;
    integer_product integers;
} work;

static attune_status prepare_integers(work *j) {
    const product *from = &j->floats;
    const attune_weight *w = from->w;
    const int64_t blocks = at_checked_mul(from->rows, w->inputs / 32);
    integer_product *p = &j->integers;
    *p = (integer_product){
        .w = w, .x = from->x, .bias = from->bias, .y = from->y, .rows = from->rows};
    p->panels = w->panel_bytes >= INTEGER_TASK ? 1 : INTEGER_TASK / w->panel_bytes;
    p->of = at_alloc(at_checked_mul(blocks, (int64_t)sizeof *p->of + 32));
    if (!p->of) return ATTUNE_EMEMORY;
    p->q = (int8_t *)(p->of + blocks);
    j->run = multiply_panels;
    j->context = p;
    j->tasks = at_ceil_div(at_ceil_div(w->outputs, AT_PANEL), p->panels);
    return at_parallel(at_ceil_div(p->rows, ROWS_PER_TASK), quantise_rows, p);
}

/* finish() is called after an error, too. */
static attune_status prepare(work *j) {
    product *p = &j->floats;
    const attune_weight *w = p->w;
    if (w->packed >= 0) return prepare_integers(j);
    const bool few = p->rows <= FEW_ROWS;
    p->block = !few ? TILE : w->row_bytes >= TASK_BYTES ? 1 : TASK_BYTES / w->row_bytes;
    j->run = few ? few_rows : many_rows;
    j->context = p;
    j->tasks = at_ceil_div(w->outputs, p->block);
    if (few && w->kind >= AT_WEIGHT_Q4_0) { /* of these a few do without */
        const int64_t blocks = w->inputs / 32;
        p->sums = at_alloc(p->rows * blocks * (int64_t)sizeof *p->sums);
        if (!p->sums) return ATTUNE_EMEMORY;
        at_simd_now()->weights.sum_32(p->x, p->rows * blocks, p->sums);
    }
    return ATTUNE_OK;
}

static void finish(work *j) {
    at_free(j->floats.sums);
    at_free(j->integers.of);
}

static attune_status run_one_of(void *context, int64_t task, int thread) {
    const work *j = context;
    for (; task >= j->tasks; j++) task -= j->tasks;
    return j->run(j->context, task, thread);
}

static attune_status multiply(work *works, int count) {
    int64_t tasks = 0;
    attune_status status = ATTUNE_OK;
    for (int i = 0; i < count && status == ATTUNE_OK; i++) {
        status = prepare(&works[i]);
        tasks += works[i].tasks;
    }
    if (status == ATTUNE_OK) status = at_parallel_ranges(tasks, run_one_of, works);
    for (int i = 0; i < count; i++) finish(&works[i]);
    return status;
}

static attune_status check_vector(const attune_tensor *t, const char *name, int rank, int64_t n) {
    AT_TRY(at_check_open(name, t));
    if (t->dtype != ATTUNE_F32 || !attune_tensor_is_contiguous(t))
        return at_fail(ATTUNE_EDTYPE, "%s: expected a contiguous f32 tensor, got %s", name,
                       attune_dtype_name(t->dtype));
    if (t->rank != rank || t->shape[rank - 1] != n) {
        return at_fail(ATTUNE_ESHAPE, "%s: expected %d axes, the last of %lld, got %s", name, rank,
                       (long long)n, at_shape_text(t->rank, t->shape));
    }
    return ATTUNE_OK;
}

attune_status attune_weights_apply(const attune_weight *const *w, const attune_tensor *const *bias,
                                   int count, const attune_tensor *x, attune_tensor *y) {
    const attune_tensor from = *x; /* a y may be x */
    work works[ATTUNE_MAX_WEIGHTS] = {{0}};
    if (count < 1 || count > ATTUNE_MAX_WEIGHTS)
        return at_fail(ATTUNE_EVALUE, "count: expected from 1 to %d weights, got %d",
                       ATTUNE_MAX_WEIGHTS, count);
    memset(y, 0, (size_t)count * sizeof *y);
    for (int i = 0; i < count; i++) {
        AT_TRY(check_vector(&from, "x", 2, w[i]->inputs));
        if (bias[i]) AT_TRY(check_vector(bias[i], "bias", 1, w[i]->outputs));
    }
    attune_status status = attune_init();
    for (int i = 0; i < count && status == ATTUNE_OK; i++) {
        const int64_t shape[2] = {from.shape[0], w[i]->outputs};
        status = at_tensor_new(ATTUNE_F32, 2, shape, &y[i]);
        works[i].floats = (product){.w = w[i],
                                    .x = from.data,
                                    .bias = bias[i] ? bias[i]->data : NULL,
                                    .y = y[i].data,
                                    .rows = from.shape[0]};
    }
    if (status == ATTUNE_OK) status = multiply(works, count);
    for (int i = 0; i < count && status != ATTUNE_OK; i++) attune_tensor_close(&y[i]);
    return status;
}

attune_status attune_weight_apply(const attune_weight *w, const attune_tensor *x,
                                  const attune_tensor *bias, attune_tensor *y) {
    return attune_weights_apply(&w, &bias, 1, x, y);
}

attune_status attune_weight_rows(const attune_weight *w, const attune_tensor *ids,
                                 attune_tensor *out) {
    const attune_tensor from = *ids;
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("ids", &from));
    if (from.dtype != ATTUNE_I64 || !attune_tensor_is_contiguous(&from) ||
        from.rank >= ATTUNE_MAX_RANK)
        return at_fail(ATTUNE_EDTYPE, "ids: expected a contiguous i64 tensor of at most 5 axes");
    const int64_t count = attune_tensor_count(&from), *id = from.data;
    for (int64_t i = 0; i < count; i++) {
        if (id[i] < 0 || id[i] >= w->outputs)
            return at_fail(ATTUNE_EVALUE, "ids: expected from 0 to %lld, got %lld",
                           (long long)w->outputs - 1, (long long)id[i]);
    }
    AT_TRY(attune_init());
    memcpy(shape, from.shape, (size_t)from.rank * sizeof *shape);
    shape[from.rank] = w->inputs;
    AT_TRY(at_tensor_new(ATTUNE_F32, from.rank + 1, shape, out));
    for (int64_t i = 0; i < count; i++) to_f32(w, id[i], 1, (float *)out->data + i * w->inputs);
    return ATTUNE_OK;
}
