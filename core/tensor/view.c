/* view.c - tensors of other shapes over the same memory. */
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "tensor/tensor.h"

attune_status attune_tensor_view(const attune_tensor *t, int rank, const int64_t *shape,
                                 attune_tensor *out) {
    attune_tensor v = *t;
    const int64_t count = attune_tensor_count(t);
    int64_t known = 1;
    int open = -1;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &v));
    if (rank < 1 || rank > ATTUNE_MAX_RANK)
        return at_fail(ATTUNE_ESHAPE, "shape: expected from 1 to %d axes, got %d", ATTUNE_MAX_RANK,
                       rank);
    for (int i = 0; i < rank; i++) {
        v.shape[i] = shape[i];
        if (shape[i] == -1 && open < 0)
            open = i;
        else if (shape[i] < 1)
            return at_fail(ATTUNE_ESHAPE,
                           "shape: expected at least 1 in every axis, or one -1, got %s",
                           at_shape_text(rank, shape));
        else
            known = at_checked_mul(known, shape[i]);
    }
    if (open >= 0 && known > 0 && count % known == 0) {
        v.shape[open] = count / known;
        known = count;
    }
    if (known != count) {
        return at_fail(ATTUNE_ESHAPE, "shape: expected %lld elements as in %s, got %s",
                       (long long)count, at_shape_text(t->rank, t->shape),
                       at_shape_text(rank, shape));
    }
    if (!attune_tensor_is_contiguous(t)) {
        return at_fail(ATTUNE_ESHAPE,
                       "view: expected a contiguous tensor (contiguous() makes one), got a view %s "
                       "of other strides",
                       at_shape_text(t->rank, t->shape));
    }
    v.rank = rank;
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        v.stride[i] = stride;
        stride *= v.shape[i];
    }
    return attune_tensor_share(&v, out);
}

attune_status attune_tensor_transpose(const attune_tensor *t, int a, int b, attune_tensor *out) {
    attune_tensor v = *t;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &v));
    AT_TRY(at_check_axis(&v, a, &a));
    AT_TRY(at_check_axis(&v, b, &b));
    int64_t shape = v.shape[a], stride = v.stride[a];
    v.shape[a] = v.shape[b];
    v.stride[a] = v.stride[b];
    v.shape[b] = shape;
    v.stride[b] = stride;
    return attune_tensor_share(&v, out);
}

static void advance(attune_tensor *t, int64_t elements) {
    t->data = (char *)t->data + elements * attune_dtype_size(t->dtype);
}

attune_status attune_tensor_slice(const attune_tensor *t, int axis, int64_t first, int64_t last,
                                  attune_tensor *out) {
    attune_tensor v = *t;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &v));
    AT_TRY(at_check_axis(&v, axis, &axis));
    if (first < 0 || last > v.shape[axis] || first >= last) {
        return at_fail(ATTUNE_EVALUE,
                       "slice: expected 0 <= first < last <= %lld in axis %d of %s, got first %lld "
                       "and last %lld",
                       (long long)v.shape[axis], axis, at_shape_text(v.rank, v.shape),
                       (long long)first, (long long)last);
    }
    advance(&v, first * v.stride[axis]);
    v.shape[axis] = last - first;
    return attune_tensor_share(&v, out);
}

attune_status attune_tensor_select(const attune_tensor *t, int axis, int64_t index,
                                   attune_tensor *out) {
    attune_tensor v = *t;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &v));
    AT_TRY(at_check_axis(&v, axis, &axis));
    if (index < 0 || index >= v.shape[axis]) {
        return at_fail(ATTUNE_EVALUE,
                       "index: expected from " AT_INDEX " to " AT_INDEX " in axis " AT_INDEX
                       " of %s, got " AT_INDEX,
                       0LL, (long long)v.shape[axis] - 1, (long long)axis,
                       at_shape_text(v.rank, v.shape), (long long)index);
    }
    advance(&v, index * v.stride[axis]);
    v.rank--;
    for (int i = axis; i < v.rank; i++) {
        v.shape[i] = v.shape[i + 1];
        v.stride[i] = v.stride[i + 1];
    }
    return attune_tensor_share(&v, out);
}

/* An expanded view takes no memory, so no allocation limits it. An operation over more elements
 * than this would run for hours. */
static const int64_t MAX_EXPANDED = (int64_t)1 << 40;

attune_status attune_tensor_expand(const attune_tensor *t, int rank, const int64_t *shape,
                                   attune_tensor *out) {
    attune_tensor v = *t;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &v));
    if (rank > ATTUNE_MAX_RANK || rank < v.rank) {
        return at_fail(ATTUNE_ESHAPE, "shape: expected from %d to %d axes, got %d", v.rank,
                       ATTUNE_MAX_RANK, rank);
    }
    int64_t count = 1;
    for (int i = rank - 1, from = v.rank - 1; i >= 0; i--) {
        int64_t have = from >= 0 ? t->shape[from] : 1;
        if (shape[i] < 1 || (have != 1 && have != shape[i])) {
            return at_fail(ATTUNE_ESHAPE,
                           "shape: expected what %s expands to (axes of 1 repeat), got %s",
                           at_shape_text(t->rank, t->shape), at_shape_text(rank, shape));
        }
        v.shape[i] = shape[i];
        v.stride[i] = have == 1 && shape[i] != 1 ? 0 : from >= 0 ? t->stride[from] : 0;
        count = at_checked_mul(count, shape[i]);
        from--;
    }
    if (count < 0 || count > MAX_EXPANDED)
        return at_fail(ATTUNE_ESHAPE, "shape: expected at most 2^40 elements, got %s",
                       at_shape_text(rank, shape));
    v.rank = rank;
    return attune_tensor_share(&v, out);
}
