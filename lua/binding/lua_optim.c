/* lua_optim.c - the loss with its output projection, dropout, and steps of optimisers; for
 * attune/nn and attune/optim, which check options. Arguments have a fixed order. */
#include "binding.h"

static attune_tensor *optional(lua_State *L, int index, const char *name) {
    return lua_isnoneornil(L, index) ? NULL : check_tensor(L, index, name);
}

/* core._projected_loss(x, weight, bias, targets, weights, want gradients, logit_scale, softcap,
 * label_smoothing, z_loss) -> loss of shape {}, nll, dx, dweight, dbias */
static int projected_loss(lua_State *L) {
    double loss = 0, nll = 0;
    lua_settop(L, 10);
    const attune_loss_options o = {.logit_scale = check_number(L, 7, "logit_scale"),
                                   .softcap = check_number(L, 8, "softcap"),
                                   .label_smoothing = check_number(L, 9, "label_smoothing"),
                                   .z_loss = check_number(L, 10, "z_loss"),
                                   .gradients = lua_toboolean(L, 6)};
    attune_tensor *targets = push_integers(L, 4, "targets"), *out = push_tensor(L),
                  *d[3] = {NULL, NULL, NULL};
    for (int i = 0; i < 3 && o.gradients; i++) d[i] = push_tensor(L);
    attune_tensor *x = check_tensor(L, 1, "x"), *weight = check_tensor(L, 2, "weight"),
                  *bias = optional(L, 3, "bias"), *weights = optional(L, 5, "weights");
    const attune_dtype dtype = x->dtype == ATTUNE_F64 ? ATTUNE_F64 : ATTUNE_F32;
    RUN(L, attune_projected_loss(x, weight, bias, targets, weights, &o, &loss, &nll, d[0], d[1],
                                 d[2]));
    RUN(L, attune_tensor_new(dtype, 0, NULL, out));
    RUN(L, attune_tensor_fill(out, loss));
    lua_pushvalue(L, 12);
    lua_pushnumber(L, nll);
    if (!o.gradients) return 2;
    for (int i = 0; i < 3; i++) {
        if (i == 2 && !bias)
            lua_pushnil(L);
        else
            lua_pushvalue(L, 13 + i);
    }
    return 5;
}

/* core._dropout(x, p, seed, step, layer) -> y */
static int dropout(lua_State *L) {
    lua_settop(L, 5);
    const double p = check_number(L, 2, "dropout");
    const int64_t seed = check_integer(L, 3, "seed", INT64_MIN),
                  step = check_integer(L, 4, "step", 0), layer = check_integer(L, 5, "layer", 0);
    attune_tensor *y = push_tensor(L);
    attune_tensor *x = check_tensor(L, 1, "x");
    RUN(L, attune_dropout(x, p, (uint64_t)seed, (uint32_t)step, (uint32_t)layer, y));
    return 1;
}

/* core._sum_of_squares(t) -> number */
static int sum_of_squares(lua_State *L) {
    double sum = 0;
    lua_settop(L, 1);
    attune_tensor *t = check_tensor(L, 1, "t");
    RUN(L, attune_sum_of_squares(t, &sum));
    lua_pushnumber(L, sum);
    return 1;
}

/* core._scale(t, factor): in place */
static int scale(lua_State *L) {
    lua_settop(L, 2);
    const double factor = check_number(L, 2, "factor");
    attune_tensor *t = check_tensor(L, 1, "t");
    RUN(L, attune_scale(t, factor));
    return 0;
}

/* core._copy(from, into): the values, in place, of any dtype and strides */
static int copy(lua_State *L) {
    lua_settop(L, 2);
    attune_tensor *from = check_tensor(L, 1, "from"), *into = check_tensor(L, 2, "into");
    RUN(L, attune_tensor_copy(from, into));
    return 0;
}

/* core._adamw(p, g, m, v, lr, beta1, beta2, eps, weight_decay, step): in place */
static int adamw(lua_State *L) {
    lua_settop(L, 10);
    const attune_adamw_options o = {.lr = check_number(L, 5, "lr"),
                                    .beta1 = check_number(L, 6, "betas"),
                                    .beta2 = check_number(L, 7, "betas"),
                                    .eps = check_number(L, 8, "eps"),
                                    .weight_decay = check_number(L, 9, "weight_decay"),
                                    .step = check_integer(L, 10, "step", 1)};
    attune_tensor *p = check_tensor(L, 1, "p"), *g = check_tensor(L, 2, "g"),
                  *m = check_tensor(L, 3, "m"), *v = check_tensor(L, 4, "v");
    RUN(L, attune_adamw(&o, p, g, m, v));
    return 0;
}

/* core._sgd(p, g, m or nil, lr, momentum, weight_decay, nesterov): in place */
static int sgd(lua_State *L) {
    lua_settop(L, 7);
    const attune_sgd_options o = {.lr = check_number(L, 4, "lr"),
                                  .momentum = check_number(L, 5, "momentum"),
                                  .weight_decay = check_number(L, 6, "weight_decay"),
                                  .nesterov = lua_toboolean(L, 7)};
    attune_tensor *p = check_tensor(L, 1, "p"), *g = check_tensor(L, 2, "g"),
                  *m = optional(L, 3, "m");
    RUN(L, attune_sgd(&o, p, g, m));
    return 0;
}

/* core._muon(p, g, m, lr, momentum, weight_decay, nesterov, iterations): in place */
static int muon(lua_State *L) {
    lua_settop(L, 8);
    const attune_muon_options o = {.lr = check_number(L, 4, "lr"),
                                   .momentum = check_number(L, 5, "momentum"),
                                   .weight_decay = check_number(L, 6, "weight_decay"),
                                   .nesterov = lua_toboolean(L, 7),
                                   .iterations = check_integer(L, 8, "iterations", 1)};
    attune_tensor *p = check_tensor(L, 1, "p"), *g = check_tensor(L, 2, "g"),
                  *m = check_tensor(L, 3, "m");
    RUN(L, attune_muon(&o, p, g, m));
    return 0;
}

void open_optim(lua_State *L) {
    static const luaL_Reg functions[] = {{"_projected_loss", projected_loss},
                                         {"_dropout", dropout},
                                         {"_sum_of_squares", sum_of_squares},
                                         {"_scale", scale},
                                         {"_copy", copy},
                                         {"_adamw", adamw},
                                         {"_sgd", sgd},
                                         {"_muon", muon},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
