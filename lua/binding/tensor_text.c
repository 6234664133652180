/* tensor_text.c - what print shows of a tensor: its dtype and shape, and its numbers in aligned
 * rows, all in one format. A large tensor is shortened to the first and last numbers of each axis.
 *
 *   f32 tensor [2, 3]
 *   [[1.0, 2.0, 3.0],
 *    [4.0, 5.5, 6.0]]
 */
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

enum {
    MAX_COMPLETE = 1000, /* elements of the largest tensor that is shown complete */
    MAX_EDGE = 3,        /* numbers at each end of a shortened axis */
    MAX_SHOWN = 2000,    /* numbers of a shortened tensor: with more, its edges are narrower */
    LINE = 80,           /* columns; rows are wrapped */
    MAX_TEXT = 64        /* bytes of the text of one number */
};

/* One number: x of a float tensor, n of an integer one. */
typedef struct number {
    double x;
    int64_t n;
} number;

/* Which part of a tensor is shown. Of an axis, edge indices at each end, or all of them where there
 * are not more. */
typedef struct excerpt {
    int rank;
    int64_t shape[ATTUNE_MAX_RANK];
    int64_t edge;
    int64_t count; /* the numbers shown */
} excerpt;

/* INTEGER: digits alone. FIXED: a number of decimals. EXPONENT: decimals and a power of ten. */
typedef struct number_format {
    enum { INTEGER, FIXED, EXPONENT } notation;
    int decimals, width;
} number_format;

/* ---- what is shown --------------------------------------------------------------------------- */

static int64_t shown_along(const excerpt *e, int axis) {
    return e->shape[axis] <= 2 * e->edge ? e->shape[axis] : 2 * e->edge;
}

static int64_t count_shown(const excerpt *e) {
    int64_t count = 1;
    for (int axis = 0; axis < e->rank; axis++) count *= shown_along(e, axis);
    return count;
}

static excerpt excerpt_of(const attune_tensor *t) {
    excerpt e = {.rank = t->rank, .edge = INT64_MAX / 2};
    for (int axis = 0; axis < t->rank; axis++) e.shape[axis] = t->shape[axis];
    if (attune_tensor_count(t) > MAX_COMPLETE) {
        e.edge = MAX_EDGE;
        while (e.edge > 1 && count_shown(&e) > MAX_SHOWN) e.edge--;
    }
    e.count = count_shown(&e);
    return e;
}

/* The index in the tensor of the k-th shown along an axis. */
static int64_t index_of(const excerpt *e, int axis, int64_t k) {
    const bool is_end = shown_along(e, axis) < e->shape[axis] && k >= e->edge;
    return is_end ? e->shape[axis] - 2 * e->edge + k : k;
}

static bool is_integer(attune_dtype dtype) {
    return dtype == ATTUNE_I8 || dtype == ATTUNE_I32 || dtype == ATTUNE_I64;
}

static number number_at(const attune_tensor *t, const int64_t *index) {
    number v = {0};
    int64_t offset = 0;
    for (int axis = 0; axis < t->rank; axis++) offset += index[axis] * t->stride[axis];
    switch (t->dtype) {
    case ATTUNE_I8: v.n = ((const int8_t *)t->data)[offset]; break;
    case ATTUNE_I32: v.n = ((const int32_t *)t->data)[offset]; break;
    case ATTUNE_I64: v.n = ((const int64_t *)t->data)[offset]; break;
    default: attune_tensor_get(t, index, &v.x);
    }
    return v;
}

static void read_numbers(const attune_tensor *t, const excerpt *e, number *to) {
    for (int64_t i = 0; i < e->count; i++) {
        int64_t rest = i, index[ATTUNE_MAX_RANK] = {0};
        for (int axis = e->rank - 1; axis >= 0; axis--) {
            index[axis] = index_of(e, axis, rest % shown_along(e, axis));
            rest /= shown_along(e, axis);
        }
        to[i] = number_at(t, index);
    }
}

/* ---- the format of the numbers --------------------------------------------------------------- */

/* Writes a number. Returns its length. The decimal point is "." in every locale. */
static int format_number(const number_format *f, number v, char text[MAX_TEXT]) {
    if (f->notation == INTEGER) return snprintf(text, MAX_TEXT, "%" PRId64, v.n);
    if (isnan(v.x)) return snprintf(text, MAX_TEXT, "nan");
    if (isinf(v.x)) return snprintf(text, MAX_TEXT, v.x > 0 ? "inf" : "-inf");
    const int length =
        snprintf(text, MAX_TEXT, f->notation == FIXED ? "%.*f" : "%.*e", f->decimals, v.x);
    char *point = strchr(text, localeconv()->decimal_point[0]);
    if (point) *point = '.';
    return length;
}

/* The number of zeros that end the decimals of a number. */
static int trailing_zeros(const number_format *f, number v) {
    char text[MAX_TEXT];
    format_number(f, v, text);
    const char *end = strchr(text, 'e');
    if (!end) end = text + strlen(text);
    int zeros = 0;
    while (zeros < f->decimals && end[-1 - zeros] == '0') zeros++;
    return zeros;
}

/* The exponent of ten of a positive number, after rounding to `digits` digits. */
static int exponent_of(double x, int digits) {
    char text[MAX_TEXT];
    snprintf(text, sizeof text, "%.*e", digits - 1, x);
    return atoi(strchr(text, 'e') + 1);
}

/* The notation of float numbers: fixed where the smallest still shows two digits. */
static number_format float_format(const number *v, int64_t count, int digits) {
    double min = INFINITY, max = 0;
    bool whole = true;
    for (int64_t i = 0; i < count; i++) {
        const double x = fabs(v[i].x);
        if (!isfinite(x) || x == 0) continue;
        if (x < min) min = x;
        if (x > max) max = x;
        if (x != floor(x)) whole = false;
    }
    number_format f = {.notation = FIXED, .decimals = 1};
    if (max == 0 || (whole && max < 1e9)) return f;
    const int decimals = digits - 1 - exponent_of(max, digits);
    f.decimals = decimals > 1 ? decimals : 1;
    if (max >= 1e6 || max < 1e-3 || min < pow(10, 1 - f.decimals)) {
        f.notation = EXPONENT;
        f.decimals = digits - 1;
    }
    int zeros = f.decimals;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(v[i].x)) continue;
        const int own = trailing_zeros(&f, v[i]);
        if (own < zeros) zeros = own;
    }
    f.decimals -= zeros;
    if (f.notation == FIXED && f.decimals == 0) f.decimals = 1;
    return f;
}

static number_format format_of(const number *v, int64_t count, attune_dtype dtype) {
    const bool is_half = dtype == ATTUNE_F16 || dtype == ATTUNE_BF16;
    number_format f = {.notation = INTEGER};
    if (!is_integer(dtype)) f = float_format(v, count, is_half ? 5 : 6);
    for (int64_t i = 0; i < count; i++) {
        char text[MAX_TEXT];
        const int width = format_number(&f, v[i], text);
        if (width > f.width) f.width = width;
    }
    return f;
}

/* ---- the text -------------------------------------------------------------------------------- */

typedef struct writer {
    luaL_Buffer b;
    const excerpt *e;
    const number *next;
    number_format format;
    int column; /* of the line that is being written */
} writer;

static void new_lines(writer *w, int lines, int indent) {
    for (int n = 0; n < lines; n++) luaL_addchar(&w->b, '\n');
    for (int n = 0; n < indent; n++) luaL_addchar(&w->b, ' ');
    w->column = indent;
}

/* One item of a row, after the separator. */
static void add_item(writer *w, bool is_first, const char *text, int width) {
    const int padding = width - (int)strlen(text);
    if (!is_first) {
        luaL_addchar(&w->b, ',');
        if (w->column + 3 + width > LINE)
            new_lines(w, 1, w->e->rank);
        else
            luaL_addchar(&w->b, ' ');
        w->column += 2;
    }
    for (int n = 0; n < padding; n++) luaL_addchar(&w->b, ' ');
    luaL_addstring(&w->b, text);
    w->column += width;
}

static void add_row(writer *w) {
    const excerpt *e = w->e;
    const int axis = e->rank - 1;
    const int64_t shown = shown_along(e, axis);
    for (int64_t k = 0; k < shown; k++) {
        char text[MAX_TEXT];
        if (k == e->edge && shown < e->shape[axis]) add_item(w, false, "...", 3);
        format_number(&w->format, *w->next++, text);
        add_item(w, k == 0, text, w->format.width);
    }
}

/* The numbers along an axis and those after it, in brackets. */
static void add_axis(writer *w, int axis) {
    const excerpt *e = w->e;
    luaL_addchar(&w->b, '[');
    w->column++;
    if (axis == e->rank - 1) {
        add_row(w);
    } else {
        const int lines = e->rank - 1 - axis; /* an empty line between matrices */
        const int64_t shown = shown_along(e, axis);
        for (int64_t k = 0; k < shown; k++) {
            if (k > 0) {
                luaL_addchar(&w->b, ',');
                new_lines(w, lines, axis + 1);
            }
            if (k == e->edge && shown < e->shape[axis]) {
                luaL_addstring(&w->b, "...,");
                new_lines(w, lines, axis + 1);
            }
            add_axis(w, axis + 1);
        }
    }
    luaL_addchar(&w->b, ']');
    w->column++;
}

static void add_heading(writer *w, attune_dtype dtype) {
    luaL_addstring(&w->b, attune_dtype_name(dtype));
    luaL_addstring(&w->b, " tensor [");
    for (int axis = 0; axis < w->e->rank; axis++) {
        char text[MAX_TEXT];
        snprintf(text, sizeof text, "%s%" PRId64, axis ? ", " : "", w->e->shape[axis]);
        luaL_addstring(&w->b, text);
    }
    luaL_addstring(&w->b, "]\n");
}

void push_tensor_text(lua_State *L, void *content) {
    const attune_tensor *t = content;
    const excerpt e = excerpt_of(t);
    const attune_dtype dtype = t->dtype;
    /* The allocation may run user code that closes the tensor. The numbers are copied before Lua
     * allocates again. */
    number *v = lua_newuserdatauv(L, (size_t)e.count * sizeof *v, 0);
    if (!t->data) {
        lua_pushliteral(L, "closed tensor");
        return;
    }
    read_numbers(t, &e, v);
    writer w = {.e = &e, .next = v, .format = format_of(v, e.count, dtype)};
    luaL_buffinit(L, &w.b);
    add_heading(&w, dtype);
    if (e.rank == 0) {
        char text[MAX_TEXT];
        format_number(&w.format, *v, text);
        luaL_addstring(&w.b, text);
    } else {
        add_axis(&w, 0);
    }
    luaL_pushresult(&w.b);
}
