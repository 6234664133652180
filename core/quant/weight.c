/* weight.c - products with weights that stay in the format of their file.
 *
 * Plain numbers are rows, as in a file. Blocks are packed (quant/packed.h). A task computes a part
 * of the outputs. In f32, for few rows of x it reads its weights as they are; for more it converts
 * them to f32. The shape alone decides which, and where parts begin, so that the bits do not depend
 * on the number of threads. In integers all is done on packed weights.
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

/* FEW_ROWS: x rows up to which plain weights are read as stored. TASK_BYTES: stored bytes per task
 * of these, and of products with packed weights. TILE: outputs per task of a matrix product. */
enum { FEW_ROWS = 4, TASK_BYTES = 1 << 15, TILE = 64 };

struct attune_weight {
    const at_format *format;
    attune_compute compute;
    int kind;   /* of at_weight_kind, data is rows of row_bytes; -1: packed */
    int packed; /* of at_packed_kind, data is panels; -1: plain */
    int64_t outputs, inputs, row_bytes, panel_bytes, bytes;
    uint8_t *data;
    at_slab *slab; /* holds data; NULL: data is a block of its own */
};

static int kind_of(const at_format *format) {
    switch (format->dtype) {
    case ATTUNE_F16: return AT_WEIGHT_F16;
    case ATTUNE_BF16: return AT_WEIGHT_BF16;
    default: return AT_WEIGHT_F32;
    }
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
                                attune_compute compute, at_weight_room *room, attune_weight **out) {
    const bool packs = format->to_f32;
    *out = NULL;
    attune_weight *w = at_alloc_zeroed((int64_t)sizeof *w);
    if (!w) return ATTUNE_EMEMORY;
    w->format = format;
    w->compute = compute;
    w->kind = packs ? -1 : kind_of(format);
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
    AT_TRY(new_weight(format, outputs, inputs, ATTUNE_COMPUTE_F32, room, out));
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
                                   attune_compute compute, at_read_rows read, const void *context,
                                   at_weight_room *room, attune_weight **out) {
    AT_TRY(new_weight(format, outputs, inputs, compute, room, out));
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

/* Row `row` in f32 at `to`. */
static void to_f32(const attune_weight *w, int64_t row, float *to) {
    const at_elementwise_kernels *k = &at_simd_now()->elementwise;
    const uint8_t *from = w->data + row * w->row_bytes;
    if (w->packed >= 0)
        at_unpack_row(w->packed, w->data + row / AT_PANEL * w->panel_bytes, (int)(row % AT_PANEL),
                      w->inputs, to);
    else if (w->kind == AT_WEIGHT_BF16)
        k->bf16_to_f32((const uint16_t *)(const void *)from, to, w->inputs);
    else if (w->kind == AT_WEIGHT_F16)
        k->f16_to_f32((const uint16_t *)(const void *)from, to, w->inputs);
    else
        memcpy(to, from, (size_t)(w->inputs * (int64_t)sizeof *to));
}

/* ---- products -------------------------------------------------------------------------------- */

/* What packed weights are multiplied with: x with its sums, integers, or x in planes. */
typedef enum form { PLAIN, FLOATS, INTEGERS, SPLIT } form;

/* A product, as tasks of `step` outputs each. */
typedef struct product {
    const attune_weight *w;
    const float *x, *bias;
    float *y;
    int64_t rows, step;
    at_task run;
    form form;                   /* FLOATS or SPLIT: few rows */
    void *memory;                /* of what follows; each as simd/quant_kernels.h has it */
    float *sums;                 /* FLOATS */
    int8_t *q;                   /* INTEGERS, SPLIT */
    at_activation_block *blocks; /* INTEGERS */
    at_split_block *parts;       /* SPLIT */
} product;

static int64_t outputs_of(const product *p, int64_t first) {
    return p->w->outputs - first < p->step ? p->w->outputs - first : p->step;
}

static void add_bias(const product *p, int64_t first, int64_t n) {
    if (!p->bias) return;
    for (int64_t r = 0; r < p->rows; r++) {
        float *y = p->y + r * p->w->outputs + first;
        for (int64_t i = 0; i < n; i++) y[i] += p->bias[first + i];
    }
}

static attune_status few_rows(void *context, int64_t task, int thread) {
    const product *p = context;
    const attune_weight *w = p->w;
    const int64_t first = task * p->step, n = outputs_of(p, first);
    (void)thread;
    for (int64_t r = 0; r < p->rows; r++) {
        at_simd_now()->weights.dot[w->kind](w->data + first * w->row_bytes, w->row_bytes, n,
                                            p->x + r * w->inputs, w->inputs,
                                            p->y + r * w->outputs + first);
    }
    add_bias(p, first, n);
    return ATTUNE_OK;
}

/* Any number of rows in integers, few in f32. */
static attune_status multiply_panels(void *context, int64_t task, int thread) {
    const product *p = context;
    const attune_weight *w = p->w;
    const at_quant_kernels *k = &at_simd_now()->quant;
    const int64_t first = task * p->step, n = outputs_of(p, first);
    (void)thread;
    for (int64_t at = first; at < first + n; at += AT_PANEL) {
        const uint8_t *panel = w->data + at / AT_PANEL * w->panel_bytes;
        const int outputs = (int)(first + n - at < AT_PANEL ? first + n - at : AT_PANEL);
        float *y = p->y + at;
        if (p->form == SPLIT)
            k->split_product[w->packed](panel, w->inputs, p->q, p->parts, p->rows, outputs, y,
                                        w->outputs);
        else if (p->form == INTEGERS)
            k->product[w->packed](panel, w->inputs, p->q, p->blocks, p->rows, outputs, y,
                                  w->outputs);
        else
            k->float_product[w->packed](panel, w->inputs, p->x, p->sums, p->rows, outputs, y,
                                        w->outputs);
    }
    add_bias(p, first, n);
    return ATTUNE_OK;
}

/* The weights of a tile of n outputs as B [inputs, n]. *memory: to free. */
static attune_status unpack_tile(const attune_weight *w, int64_t first, int64_t n,
                                 at_f32_product *f32, float **memory) {
    const bool packed = w->packed >= 0;
    f32->b_row = packed ? TILE : 1;
    f32->b_column = packed ? 1 : w->inputs;
    f32->b = (const float *)(const void *)(w->data + first * w->row_bytes);
    *memory = NULL;
    if (w->kind == AT_WEIGHT_F32) return ATTUNE_OK;
    float *tile = at_alloc(TILE * w->inputs * (int64_t)sizeof *tile);
    if (!tile) return ATTUNE_EMEMORY;
    for (int64_t i = 0; i < n; i += packed ? AT_PANEL : 1) {
        if (packed)
            at_simd_now()->quant.unpack[w->packed](
                w->data + (first + i) / AT_PANEL * w->panel_bytes, w->inputs, tile + i, TILE);
        else
            to_f32(w, first + i, tile + i * w->inputs);
    }
    f32->b = *memory = tile;
    return ATTUNE_OK;
}

static attune_status many_rows(void *context, int64_t task, int thread) {
    const product *p = context;
    const attune_weight *w = p->w;
    const int64_t first = task * p->step, n = outputs_of(p, first);
    float *tile;
    (void)thread;
    at_f32_product f32 = {.m = p->rows,
                          .n = n,
                          .k = w->inputs,
                          .a = p->x,
                          .a_row = w->inputs,
                          .a_column = 1,
                          .c = p->y + first,
                          .c_row = w->outputs};
    AT_TRY(unpack_tile(w, first, n, &f32, &tile));
    const attune_status status = at_multiply_f32(&f32);
    at_free(tile);
    if (status == ATTUNE_OK) add_bias(p, first, n);
    return status;
}

/* ---- activations ----------------------------------------------------------------------------- */

enum { ROWS_PER_TASK = 16 }; /* rows of x that a task quantises */

static attune_status quantise_rows(void *context, int64_t task, int thread) {
    const product *p = context;
    const int64_t first = task * ROWS_PER_TASK, n = p->w->inputs;
    const int64_t rows = p->rows - first < ROWS_PER_TASK ? p->rows - first : ROWS_PER_TASK;
    (void)thread;
    at_simd_now()->quant.quantise(p->x + first * n, rows * (n / 32), p->q + first * n,
                                  p->blocks + first * (n / 32));
    return ATTUNE_OK;
}

/* Memory for a number of bytes for each 32 inputs of each row; NULL: none is left. */
static void *take(product *p, int64_t bytes) {
    return p->memory = at_alloc(at_checked_mul(p->rows, p->w->inputs / 32 * bytes));
}

static attune_status quantise(product *p) {
    p->blocks = take(p, (int64_t)sizeof *p->blocks + 32);
    if (!p->blocks) return ATTUNE_EMEMORY;
    p->q = (int8_t *)(p->blocks + p->rows * (p->w->inputs / 32));
    return at_parallel(at_ceil_div(p->rows, ROWS_PER_TASK), quantise_rows, p);
}

static attune_status sum_blocks(product *p) {
    p->form = FLOATS;
    p->sums = take(p, (int64_t)sizeof *p->sums);
    if (!p->sums) return ATTUNE_EMEMORY;
    at_simd_now()->quant.sum_32(p->x, p->rows * (p->w->inputs / 32), p->sums);
    return ATTUNE_OK;
}

/* Splits x into planes, unless these do not hold it. */
static attune_status split(product *p) {
    const int64_t n = p->w->inputs;
    bool good = true;
    p->parts = take(p, (int64_t)sizeof *p->parts + 32 * AT_PLANES);
    if (!p->parts) return ATTUNE_EMEMORY;
    p->q = (int8_t *)(p->parts + p->rows * (n / 32));
    for (int64_t r = 0; r < p->rows && good; r++)
        good = at_simd_now()->quant.split(p->x + r * n, n / 32, p->q + AT_PLANES * r * n,
                                          p->parts + r * (n / 32));
    if (good) return ATTUNE_OK;
    at_free(p->memory);
    return sum_blocks(p);
}

/* ---- several products ------------------------------------------------------------------------ */

/* `earlier`: the product before this one; where both want x in the same form, it is shared.
 * finish() is called after an error, too. */
static attune_status prepare(product *p, const product *earlier) {
    const at_quant_kernels *k = &at_simd_now()->quant;
    const attune_weight *w = p->w;
    const bool few = p->rows <= (w->packed < 0 ? FEW_ROWS : k->few_rows);
    p->form = w->packed < 0                     ? PLAIN
              : w->compute == ATTUNE_COMPUTE_I8 ? INTEGERS
              : !few                            ? PLAIN
              : k->split_product[w->packed]     ? SPLIT
                                                : FLOATS;
    if (p->form == PLAIN) {
        p->run = few ? few_rows : many_rows;
        p->step = !few ? TILE : w->row_bytes >= TASK_BYTES ? 1 : TASK_BYTES / w->row_bytes;
        return ATTUNE_OK;
    }
    p->run = multiply_panels;
    p->step = AT_PANEL * (w->panel_bytes >= TASK_BYTES ? 1 : TASK_BYTES / w->panel_bytes);
    if (earlier && earlier->form == p->form) {
        p->memory = earlier->memory;
        p->sums = earlier->sums;
        p->q = earlier->q;
        p->blocks = earlier->blocks;
        p->parts = earlier->parts;
        return ATTUNE_OK;
    }
    return p->form == INTEGERS ? quantise(p) : p->form == SPLIT ? split(p) : sum_blocks(p);
}

static int64_t tasks_of(const product *p) { return at_ceil_div(p->w->outputs, p->step); }

static attune_status run_one_of(void *context, int64_t task, int thread) {
    product *p = context;
    for (; task >= tasks_of(p); p++) task -= tasks_of(p);
    return p->run(p, task, thread);
}

static void finish(product *p, const product *earlier) {
    if (!earlier || p->memory != earlier->memory) at_free(p->memory);
}

static attune_status multiply(product *products, int count) {
    int64_t tasks = 0;
    attune_status status = ATTUNE_OK;
    for (int i = 0; i < count && status == ATTUNE_OK; i++) {
        status = prepare(&products[i], i > 0 ? &products[i - 1] : NULL);
        if (status == ATTUNE_OK) tasks += tasks_of(&products[i]);
    }
    if (status == ATTUNE_OK) status = at_parallel_ranges(tasks, run_one_of, products);
    for (int i = count - 1; i >= 0; i--) finish(&products[i], i > 0 ? &products[i - 1] : NULL);
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
    product products[ATTUNE_MAX_WEIGHTS] = {{0}};
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
        products[i] = (product){.w = w[i],
                                .x = from.data,
                                .bias = bias[i] ? bias[i]->data : NULL,
                                .y = y[i].data,
                                .rows = from.shape[0]};
    }
    if (status == ATTUNE_OK) status = multiply(products, count);
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
    for (int64_t i = 0; i < count; i++) to_f32(w, id[i], (float *)out->data + i * w->inputs);
    return ATTUNE_OK;
}
