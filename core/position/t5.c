/* t5.c - relative buckets: Raffel et al. 2020 (arXiv 1910.10683), section 2.1. The score of a query
 * and a key gains table[bucket][head].
 *
 * The bucket depends on relative = key position - query position. If the encoding is bidirectional,
 * half of the buckets are for keys after the query; otherwise such keys have distance 0. Each
 * direction has n buckets. The first n / 2 hold one distance each. The others hold ranges of
 * distances that grow with the logarithm of the distance up to max_distance; larger distances are
 * in the last bucket.
 */
#include <math.h>

#include "base/status.h"
#include "position/position.h"
#include "tensor/tensor.h"

attune_status attune_position_bucket(const attune_position *pe, int64_t relative, int64_t *out) {
    if (!pe->max_distance) return at_fail(ATTUNE_EVALUE, "bucket: expected t5, got %s", pe->name);
    int64_t n = pe->table.shape[0], bucket = 0, distance;
    if (pe->bidirectional) {
        n /= 2;
        if (relative > 0) bucket = n;
        distance = relative < 0 ? (relative == INT64_MIN ? INT64_MAX : -relative) : relative;
    } else {
        distance = relative >= 0 ? 0 : relative == INT64_MIN ? INT64_MAX : -relative;
    }
    const int64_t exact = n / 2;
    if (distance >= exact) {
        const double fraction =
            log((double)distance / (double)exact) / log((double)pe->max_distance / (double)exact);
        /* A distance on an edge belongs to the bucket that begins there; 1e-9 makes that
         * independent of the rounding of the logarithms. */
        const double offset = floor(fraction * (double)(n - exact) + 1e-9);
        distance = exact + (offset < (double)(n - 1 - exact) ? (int64_t)offset : n - 1 - exact);
    }
    *out = bucket + distance;
    return ATTUNE_OK;
}

void attune_position_distances(const attune_position *pe, int64_t *max_distance,
                               bool *bidirectional) {
    *max_distance = pe->max_distance;
    *bidirectional = pe->bidirectional;
}

attune_status attune_position_t5(const attune_t5_options *options, attune_position **out) {
    attune_t5_options o = *options;
    *out = NULL;
    if (o.table) {
        AT_TRY(at_check_open("table", o.table));
        if (o.table->rank != 2)
            return at_fail(ATTUNE_ESHAPE, "table: expected [buckets, heads], got %s",
                           at_shape_text(o.table->rank, o.table->shape));
        const attune_dtype dtype = o.table->dtype;
        if (at_is_integer(dtype))
            return at_fail(ATTUNE_EDTYPE, "table: expected a tensor of floats, got %s",
                           attune_dtype_name(dtype));
        const int64_t *shape = o.table->shape;
        if ((o.buckets && o.buckets != shape[0]) || (o.heads && o.heads != shape[1])) {
            return at_fail(ATTUNE_ESHAPE, "table: expected %s, got %s",
                           at_expected_text("buckets", o.buckets, "heads", o.heads),
                           at_shape_text(2, shape));
        }
        o.buckets = shape[0];
        o.heads = shape[1];
    }
    if (o.buckets == 0) o.buckets = 32;
    if (o.max_distance == 0) o.max_distance = 128;
    const int64_t per_direction = o.causal ? o.buckets : o.buckets / 2;
    if (o.heads < 1)
        return at_fail(ATTUNE_EVALUE, "heads: expected at least 1, got %lld", (long long)o.heads);
    if (per_direction < 2 || (!o.causal && o.buckets % 2)) {
        return at_fail(ATTUNE_EVALUE, "buckets: expected %s, got %lld",
                       o.causal ? "at least 2" : "an even number of at least 4",
                       (long long)o.buckets);
    }
    if (o.max_distance <= per_direction / 2) {
        return at_fail(
            ATTUNE_EVALUE,
            "max_distance: expected more than the %lld buckets of one distance, got %lld",
            (long long)(per_direction / 2), (long long)o.max_distance);
    }
    attune_position *pe;
    AT_TRY(at_position_new("t5", ATTUNE_SCORES, &pe));
    const int64_t shape[2] = {o.buckets, o.heads};
    attune_status status = o.table ? attune_tensor_share(o.table, &pe->table)
                                   : at_tensor_new(ATTUNE_F32, 2, shape, &pe->table);
    if (status == ATTUNE_OK && !o.table) status = attune_tensor_normal(&pe->table, o.seed, 0, 0.02);
    pe->max_distance = o.max_distance;
    pe->bidirectional = !o.causal;
    if (status != ATTUNE_OK) {
        attune_position_close(pe);
        return status;
    }
    *out = pe;
    return ATTUNE_OK;
}
