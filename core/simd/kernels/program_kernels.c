/* program_kernels.c - the operations of score and mask programs over the pairs of a row. Truth
 * values are 1 and 0. */
#include "simd/program_kernels.h"

#include "simd/kernels/functions.h"

void AT_KERNEL(program)(at_program_kernels *table);

/* One loop per combination of steps, so that an operand with step 0 is loaded once. */
#define LOOP(x_of, y_of, expression)        \
    for (int i = 0; i < n; i += AT_LANES) { \
        const vf x = x_of, y = y_of;        \
        (void)x;                            \
        (void)y;                            \
        vf_store(to + i, (expression));     \
    }
#define EACH(expression)                                          \
    {                                                             \
        if (a.step && b.step) {                                   \
            LOOP(vf_load(a.p + i), vf_load(b.p + i), expression)  \
        } else if (a.step) {                                      \
            const vf one = vf_set1(*b.p);                         \
            LOOP(vf_load(a.p + i), one, expression)               \
        } else if (b.step) {                                      \
            const vf one = vf_set1(*a.p);                         \
            LOOP(one, vf_load(b.p + i), expression)               \
        } else {                                                  \
            const vf left = vf_set1(*a.p), right = vf_set1(*b.p); \
            LOOP(left, right, expression)                         \
        }                                                         \
        break;                                                    \
    }

/* From 2^22 on every f32 is returned as it is; vf_round is exact only below. */
AT_INLINE vf vf_floor(vf x) {
    const vf r = vf_round(x);
    return vf_select(vf_less(vf_abs(x), vf_set1(4194304.0f)),
                     vf_sub(r, vf_select(vf_less(x, r), vf_set1(1.0f), vf_zero())), x);
}

/* x - floor(x / y) y, corrected where the quotient was rounded to the next integer. */
AT_INLINE vf vf_modulo(vf x, vf y) {
    vf m = vf_sub(x, vf_mul(vf_floor(vf_div(x, y)), y));
    m = vf_select(vf_less(vf_mul(m, y), vf_zero()), vf_add(m, y), m);
    return vf_select(vf_less(vf_abs(m), vf_abs(y)), m, vf_sub(m, y));
}

AT_INLINE vf vf_truth(vm m) { return vf_select(m, vf_set1(1.0f), vf_zero()); }

static void where(at_values a, at_values b, at_values c, float *to, int n) {
    for (int i = 0; i < n; i += AT_LANES) {
        const vf x = a.step ? vf_load(a.p + i) : vf_set1(*a.p),
                 y = b.step ? vf_load(b.p + i) : vf_set1(*b.p);
        const vf z = c.step ? vf_load(c.p + i) : vf_set1(*c.p);
        vf_store(to + i, vf_select(vf_equal(x, vf_zero()), z, y));
    }
}

static void tanh_scaled(at_values x, float inner, float outer, float *to, int n) {
    const vf in = vf_set1(inner), out = vf_set1(outer);
    int i = 0;
    for (; i + 2 * AT_LANES <= n; i += 2 * AT_LANES) {
        const vf first = vf_tanh(vf_mul(vf_load(x.p + i), in)),
                 second = vf_tanh(vf_mul(vf_load(x.p + i + AT_LANES), in));
        vf_store(to + i, vf_mul(first, out));
        vf_store(to + i + AT_LANES, vf_mul(second, out));
    }
    for (; i < n; i += AT_LANES)
        vf_store(to + i, vf_mul(vf_tanh(vf_mul(vf_load(x.p + i), in)), out));
}

static void apply(attune_op op, at_values a, at_values b, at_values c, float *to, int n) {
    switch (op) {
    case ATTUNE_OP_ADD: EACH(vf_add(x, y))
    case ATTUNE_OP_SUB: EACH(vf_sub(x, y))
    case ATTUNE_OP_MUL: EACH(vf_mul(x, y))
    case ATTUNE_OP_DIV: EACH(vf_div(x, y))
    case ATTUNE_OP_IDIV: EACH(vf_floor(vf_div(x, y)))
    case ATTUNE_OP_MOD: EACH(vf_modulo(x, y))
    case ATTUNE_OP_MIN: EACH(vf_select(vf_less(x, y), x, vf_select(vf_equal(x, x), y, x)))
    case ATTUNE_OP_MAX: EACH(vf_select(vf_less(y, x), x, vf_select(vf_equal(x, x), y, x)))
    case ATTUNE_OP_LT: EACH(vf_truth(vf_less(x, y)))
    case ATTUNE_OP_LE: EACH(vf_select(vf_less(x, y), vf_set1(1.0f), vf_truth(vf_equal(x, y))))
    case ATTUNE_OP_EQ: EACH(vf_truth(vf_equal(x, y)))
    case ATTUNE_OP_AND: EACH(vf_mul(x, y))
    case ATTUNE_OP_OR: EACH(vf_max(x, y))
    case ATTUNE_OP_NOT: EACH(vf_sub(vf_set1(1.0f), x))
    case ATTUNE_OP_NEG: EACH(vf_sub(vf_zero(), x))
    case ATTUNE_OP_ABS: EACH(vf_abs(x))
    case ATTUNE_OP_EXP: EACH(vf_exp(x))
    case ATTUNE_OP_SQRT: EACH(vf_sqrt(x))
    case ATTUNE_OP_TANH: tanh_scaled(a, *b.p, *c.p, to, n); break;
    case ATTUNE_OP_SIGMOID: EACH(vf_sigmoid(x))
    case ATTUNE_OP_FLOOR: EACH(vf_floor(x))
    case ATTUNE_OP_WHERE: where(a, b, c, to, n); break;
    default: break;
    }
}

/* a b, and zero where a is zero: a zero gradient stays zero, whatever the slope of a pair that is
 * not visible. */
AT_INLINE vf product(vf a, vf b) {
    return vf_select(vf_equal(a, vf_zero()), vf_zero(), vf_mul(a, b));
}

static float sum_products(at_values a, at_values b, int n) {
    vf sum = vf_zero();
    const vf right = vf_set1(*b.p);
    for (int i = 0; i < n; i += AT_LANES) {
        const vf x = n - i < AT_LANES ? vf_load_part(a.p + i, n - i) : vf_load(a.p + i);
        sum = vf_add(sum, product(x, b.step ? vf_load(b.p + i) : right));
    }
    return vf_reduce_add(sum);
}

static void add_products(at_values a, at_values b, float *sums, int n) {
    const vf right = vf_set1(*b.p);
    int i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES)
        vf_store(sums + i, vf_add(product(vf_load(a.p + i), b.step ? vf_load(b.p + i) : right),
                                  vf_load(sums + i)));
    for (; i < n; i++) sums[i] += a.p[i] == 0 ? 0 : a.p[i] * b.p[i * b.step];
}

static void multiply(at_values slope, float factor, float *d, int n) {
    const vf f = vf_set1(factor), one = vf_set1(*slope.p);
    int i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES)
        vf_store(d + i,
                 vf_mul(product(vf_load(d + i), slope.step ? vf_load(slope.p + i) : one), f));
    for (; i < n; i++) d[i] = d[i] == 0 ? 0 : d[i] * slope.p[i * slope.step] * factor;
}

void AT_KERNEL(program)(at_program_kernels *table) {
    table->apply = apply;
    table->sum_products = sum_products;
    table->add_products = add_products;
    table->multiply = multiply;
}
