/* Activations and losses of linear layers, for kernels that train one client after another. */
#ifndef FEDSCAPE_LOSSES_H
#define FEDSCAPE_LOSSES_H

#include "vectors.h"

enum { NONE = 0, RELU = 1, TANH = 2, SIGMOID = 3 };
enum { CHUNK = 64 }; /* examples whose activations are kept at once; larger batches are summed over chunks */

/* ---- the loss ---- */

/* Replace cross-entropy's outputs z [n][ld] by weight x the derivative; return the sum of losses. */
static double softmax_error(int64_t n, int64_t outs, real weight, const int64_t *labels, real *z, int64_t ld,
                            int64_t *wrong) {
    const int64_t whole = padded(outs);
    const ivec last = first_lanes(outs - (whole - VL));
    const vec lowest = all(-INFINITY);
    real total[CHUNK + VL] __attribute__((aligned(VECTOR_BYTES)));
    real own[CHUNK];
    for (int64_t e = 0; e < n; e++) {
        real *row = z + e * ld;
        vec top = lowest, sum = {0};
        store(row + whole - VL, choose(last, load(row + whole - VL), lowest));
        for (int64_t c = 0; c < whole; c += VL) top = larger(load(row + c), top);
        const real most = largest_of(top);
        const int64_t label = labels[e];
        own[e] = row[label] - most;
        int is_wrong = row[label] != most;
        for (int64_t c = 0; !is_wrong && c < label; c++) is_wrong = row[c] == most;
        for (int64_t c = 0; c < whole; c += VL) {
            vec away = load(row + c) - most;
            if (c == whole - VL) away = choose(last, away, (vec){0}); /* exp of -inf would be slow */
            vec p = exp_of(away);
            if (c == whole - VL) p = choose(last, p, (vec){0});
            sum += p;
            store(row + c, p);
        }
        total[e] = sum_of(sum);
        if (total[e] != total[e]) { /* as in torch, the first NaN is the largest; -inf or +inf alone are below it */
            int64_t found = 0;
            while (found < outs && row[found] == row[found]) found++;
            is_wrong = found != label;
        }
        *wrong += is_wrong;
        const vec scale = all(weight / total[e]);
        for (int64_t c = 0; c < whole; c += VL) store(row + c, load(row + c) * scale);
        row[label] -= weight;
    }
    double losses = 0;
    UNROLL for (int i = 0; i < VL; i++) total[n + i] = 1;
    for (int64_t e = 0; e < n; e += VL) store(total + e, log_of(load(total + e)));
    for (int64_t e = 0; e < n; e++) losses += total[e] - own[e];
    return losses;
}

/* Replace outputs [n][ld] by weight x the derivative of the squared error, a mean over outputs; return the sum. */
static double squared_error(int64_t n, int64_t outs, real weight, const real *targets, const int64_t *at, real *z,
                            int64_t ld) {
    double losses = 0;
    const real slope = (real)2 / outs;
    for (int64_t e = 0; e < n; e++) {
        double squares = 0;
        for (int64_t o = 0; o < outs; o++) {
            real away = z[e * ld + o] - targets[at[e] * outs + o];
            squares += (double)(away * away);
            z[e * ld + o] = away * slope * weight;
        }
        losses += squares / outs;
    }
    return losses;
}

/* ---- activations ---- */

/* Apply an activation to [n][ld]; numbers from `width` on become 0. */
static void activate(int64_t activation, int64_t n, int64_t width, real *h, int64_t ld) {
    const int64_t whole = padded(width);
    const ivec last = first_lanes(width - (whole - VL));
    for (int64_t e = 0; e < n; e++, h += ld) {
#define EACH(value)                            \
    for (int64_t c = 0; c < whole; c += VL) {  \
        vec x = load(h + c);                   \
        store(h + c, value);                   \
    }
        if (activation == RELU) EACH(choose(x < (vec){0}, (vec){0}, x))
        else if (activation == TANH) EACH(tanh_of(x))
        else if (activation == SIGMOID) EACH(sigmoid_of(x))
        store(h + whole - VL, (vec)((ivec)load(h + whole - VL) & last));
    }
}

/* Multiply d [n][ldd] by the activation's derivative, where its outputs are h [n][ld]; padding becomes 0. */
static void through(int64_t activation, int64_t n, int64_t width, real *d, int64_t ldd, const real *h, int64_t ld) {
    const int64_t whole = padded(width);
    const ivec last = first_lanes(width - (whole - VL));
    for (int64_t e = 0; e < n; e++, d += ldd, h += ld) {
#undef EACH
#define EACH(value)                                   \
    for (int64_t c = 0; c < whole; c += VL) {         \
        vec a = load(h + c), x = load(d + c);         \
        store(d + c, value);                          \
    }
        if (activation == RELU) EACH(choose(a <= (vec){0}, (vec){0}, x))
        else if (activation == TANH) EACH(x * ((real)1 - a * a))
        else if (activation == SIGMOID) EACH(x * (a * ((real)1 - a)))
        store(d + whole - VL, (vec)((ivec)load(d + whole - VL) & last));
    }
}

#endif
