/* apply.c - each operation of a program in double precision, over values and over ranges of values.
 */
#include <math.h>

#include "program/program.h"

#define EACH(expression)                                       \
    for (int64_t i = 0; i < n; i++) {                          \
        const double x = a.p[i * a.step], y = b.p[i * b.step]; \
        (void)x, (void)y;                                      \
        to[i] = (expression);                                  \
    }                                                          \
    break

static double lua_mod(double x, double y) {
    const double m = fmod(x, y);
    return m != 0 && (m < 0) != (y < 0) ? m + y : m;
}

static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

void at_apply_f64(attune_op op, at_operand_f64 a, at_operand_f64 b, at_operand_f64 c, double *to,
                  int64_t n) {
    switch (op) {
    case ATTUNE_OP_ADD: EACH(x + y);
    case ATTUNE_OP_SUB: EACH(x - y);
    case ATTUNE_OP_MUL: EACH(x * y);
    case ATTUNE_OP_DIV: EACH(x / y);
    case ATTUNE_OP_IDIV: EACH(floor(x / y));
    case ATTUNE_OP_MOD: EACH(lua_mod(x, y));
    case ATTUNE_OP_POW: EACH(pow(x, y));
    case ATTUNE_OP_MIN: EACH(x < y || isnan(x) ? x : y);
    case ATTUNE_OP_MAX: EACH(x > y || isnan(x) ? x : y);
    case ATTUNE_OP_LT: EACH(x < y);
    case ATTUNE_OP_LE: EACH(x <= y);
    case ATTUNE_OP_EQ: EACH(x == y);
    case ATTUNE_OP_AND: EACH(x * y);
    case ATTUNE_OP_OR: EACH(x > y ? x : y);
    case ATTUNE_OP_NOT: EACH(1 - x);
    case ATTUNE_OP_NEG: EACH(-x);
    case ATTUNE_OP_ABS: EACH(fabs(x));
    case ATTUNE_OP_EXP: EACH(exp(x));
    case ATTUNE_OP_LOG: EACH(log(x));
    case ATTUNE_OP_SQRT: EACH(sqrt(x));
    case ATTUNE_OP_TANH: EACH(tanh(x));
    case ATTUNE_OP_SIGMOID: EACH(sigmoid(x));
    case ATTUNE_OP_FLOOR: EACH(floor(x));
    case ATTUNE_OP_WHERE: EACH(x != 0 ? y : c.p[i * c.step]);
    default: break;
    }
}

/* ---- ranges ---------------------------------------------------------------------------------- */

static const at_range ANYTHING = {-INFINITY, INFINITY};

static at_range hull(double w, double x, double y, double z) {
    if (isnan(w) || isnan(x) || isnan(y) || isnan(z)) return ANYTHING;
    return (at_range){fmin(fmin(w, x), fmin(y, z)), fmax(fmax(w, x), fmax(y, z))};
}

static at_range truth(bool always, bool never) { return (at_range){always, never ? 0 : 1}; }

static bool may_be_nan(at_range a) { return a.low == -INFINITY && a.high == INFINITY; }

static at_range quotient(at_range a, at_range b) {
    if (b.low <= 0 && b.high >= 0) return ANYTHING;
    return hull(a.low / b.low, a.low / b.high, a.high / b.low, a.high / b.high);
}

static at_range remainder_of(at_range a, at_range b) {
    if (b.low != b.high || !(b.low > 0) || isinf(a.low) || isinf(a.high)) return ANYTHING;
    if (floor(a.low / b.low) == floor(a.high / b.low))
        return (at_range){lua_mod(a.low, b.low), lua_mod(a.high, b.low)};
    return (at_range){0, b.low};
}

at_range at_apply_range(attune_op op, at_range a, at_range b, at_range c) {
    switch (op) {
    case ATTUNE_OP_ADD: return hull(a.low + b.low, a.low + b.low, a.high + b.high, a.high + b.high);
    case ATTUNE_OP_SUB: return hull(a.low - b.high, a.low - b.high, a.high - b.low, a.high - b.low);
    case ATTUNE_OP_MUL: return hull(a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high);
    case ATTUNE_OP_DIV: return quotient(a, b);
    case ATTUNE_OP_IDIV: {
        const at_range q = quotient(a, b);
        return (at_range){floor(q.low), floor(q.high)};
    }
    case ATTUNE_OP_MOD: return remainder_of(a, b);
    case ATTUNE_OP_MIN:
        return may_be_nan(a) || may_be_nan(b)
                   ? ANYTHING
                   : (at_range){fmin(a.low, b.low), fmin(a.high, b.high)};
    case ATTUNE_OP_MAX:
        return may_be_nan(a) || may_be_nan(b)
                   ? ANYTHING
                   : (at_range){fmax(a.low, b.low), fmax(a.high, b.high)};
    case ATTUNE_OP_LT: return truth(a.high < b.low, a.low >= b.high);
    case ATTUNE_OP_LE:
        return truth(a.high <= b.low && !may_be_nan(a) && !may_be_nan(b), a.low > b.high);
    case ATTUNE_OP_EQ:
        return truth(a.low == a.high && b.low == b.high && a.low == b.low,
                     a.low > b.high || a.high < b.low);
    case ATTUNE_OP_AND: return (at_range){a.low * b.low, a.high * b.high};
    case ATTUNE_OP_OR: return (at_range){fmax(a.low, b.low), fmax(a.high, b.high)};
    case ATTUNE_OP_NOT: return (at_range){1 - a.high, 1 - a.low};
    case ATTUNE_OP_NEG: return (at_range){-a.high, -a.low};
    case ATTUNE_OP_ABS:
        return a.low >= 0      ? a
               : a.high <= 0   ? (at_range){-a.high, -a.low}
               : may_be_nan(a) ? a
                               : (at_range){0, fmax(-a.low, a.high)};
    case ATTUNE_OP_EXP:
        return may_be_nan(a) ? a : (at_range){exp(a.low) * (1 - 1e-12), exp(a.high) * (1 + 1e-12)};
    case ATTUNE_OP_FLOOR: return (at_range){floor(a.low), floor(a.high)};
    case ATTUNE_OP_WHERE:
        if (a.low > 0) return b;
        if (a.high == 0) return c;
        return (at_range){fmin(b.low, c.low), fmax(b.high, c.high)};
    default: return ANYTHING;
    }
}
