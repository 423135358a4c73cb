/* The forward and backward pass of a GRU forecaster on one batch; clients/engines/recurrent.py has the same in torch.

   Hidden units lie in the lanes of vectors and are padded with zeros to whole vectors, so neither the batch nor the
   number of time steps has to fit them. Padded units reach no result.

   `states` [time + 1][batch][padded]: states[t] is the state before time step t, and states[0] is 0.
   `gates`  [time][batch][4][padded]: r, z, c = W_hn h + b_hn, n. The backward pass replaces them by the derivatives by
            the arguments of r and z, by c, and by the argument of n. */
#ifndef FEDSCAPE_GRU_H
#define FEDSCAPE_GRU_H

#include <string.h>
#include <tgmath.h>

#include "team.h"
#include "vectors.h"

/* Sizes of the blocks that are summed in registers: 32 vector registers, or 16. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { ROWS = 8, COLUMNS = 2, CHANNELS = 4 };
#else
enum { ROWS = 4, COLUMNS = 2, CHANNELS = 2 };
#endif
#define BLOCK static inline __attribute__((always_inline)) void

/* Parameters and gradients, in the order and layouts of torch. */
enum { INTO, RECURRENT, INTO_BIAS, RECURRENT_BIAS, READOUT, READOUT_BIAS, TENSORS };

typedef enum { SQUARED_ERROR, CROSS_ENTROPY, GIVEN_DERIVATIVE, OUTPUTS_ALONE } loss_kind;

typedef struct {
    int64_t hidden, channels, time, outputs, batch;
} gru_shape;

typedef struct {
    long hidden, padded, channels, time, outputs;
    long batch;      /* examples in use */
    real *forward;   /* [padded / VL][hidden][3][VL]: W_h by unit of the state, then gate */
    real *channel;   /* [padded / VL][channels][3][VL]: W_i likewise */
    real *biases;    /* [padded / VL][4][VL]: of r, of z, b_hn, b_in */
    real *backward;  /* [3][hidden][padded]: W_h */
    real *readout;   /* [outputs][padded] */
    real *states, *gates;
    real *slope;     /* [batch][padded]: the derivative by the state */
    real *away;      /* [batch][outputs]: the derivative by the outputs */
} work;

/* Divides `memory` (or NULL) among the work arrays; returns their total size, in numbers. */
static size_t lay_out(work *w, real *memory, const gru_shape *s)
{
    *w = (work){.hidden = s->hidden, .padded = (s->hidden + VL - 1) / VL * VL, .channels = s->channels,
                .time = s->time, .outputs = s->outputs, .batch = s->batch};
    real **arrays[] = {&w->forward, &w->channel, &w->biases, &w->backward, &w->readout, &w->states, &w->gates,
                       &w->slope, &w->away};
    long rows[] = {3 * s->hidden, 3 * s->channels, 4, 3 * s->hidden, s->outputs, (s->time + 1) * s->batch,
                   4 * s->time * s->batch, s->batch};
    size_t used = 0;
    for (int i = 0; i < 9; i++) {
        *arrays[i] = memory ? memory + used : NULL;
        used += i < 8 ? rows[i] * w->padded : (s->batch * s->outputs + VL - 1) / VL * VL;
    }
    return used;
}

/* From [3 hidden][columns] to [padded / VL][columns][3][VL]. */
static void pack_columns(real *to, const real *from, const work *w, long columns)
{
    memset(to, 0, 3 * w->padded * columns * sizeof(real));
    for (long g = 0; g < 3; g++)
        for (long j = 0; j < w->hidden; j++) {
            real *out = to + (j / VL * columns * 3 + g) * VL + j % VL;
            for (long i = 0; i < columns; i++)
                out[i * 3 * VL] = *from++;
        }
}

static void pack_rows(real *to, const real *from, const work *w, long rows)
{
    for (long j = 0; j < rows; j++, to += w->padded, from += w->hidden) {
        memcpy(to, from, w->hidden * sizeof(real));
        memset(to + w->hidden, 0, (w->padded - w->hidden) * sizeof(real));
    }
}

static void pack(const work *w, real *const *p)
{
    pack_columns(w->forward, p[RECURRENT], w, w->hidden);
    pack_columns(w->channel, p[INTO], w, w->channels);
    pack_rows(w->backward, p[RECURRENT], w, 3 * w->hidden);
    pack_rows(w->readout, p[READOUT], w, w->outputs);
    for (long j = 0; j < w->padded; j++) {
        real *to = w->biases + j / VL * 4 * VL + j % VL;
        const real *a = p[INTO_BIAS] + j, *b = p[RECURRENT_BIAS] + j;
        int is_unit = j < w->hidden;
        to[0] = is_unit ? a[0] + b[0] : 0;
        to[VL] = is_unit ? a[w->hidden] + b[w->hidden] : 0;
        to[2 * VL] = is_unit ? b[2 * w->hidden] : 0;
        to[3 * VL] = is_unit ? a[2 * w->hidden] : 0;
    }
}

/* Stores the first `count` lanes, all of them if there are fewer. */
static inline void store_part(real *to, vec value, long count)
{
    if (count >= VL)
        *(loose_vec *)to = value;
    else
        for (long l = 0; l < count; l++)
            to[l] = value[l];
}

/* Arguments of the gates at time step t, without the channels' part, of `rows` examples from e and the units from j. */
BLOCK gate_block(const work *w, long t, long e, long j, const int rows)
{
    const long padded = w->padded;
    const real *state = w->states + (t * w->batch + e) * padded;
    const real *bias = w->biases + j * 4, *weight = w->forward + j * 3 * w->hidden;
    real *gate = w->gates + (t * w->batch + e) * 4 * padded + j;
    vec r[ROWS], z[ROWS], c[ROWS];
    UNROLL for (int m = 0; m < rows; m++) {
        r[m] = load(bias);
        z[m] = load(bias + VL);
        c[m] = load(bias + 2 * VL);
    }
    for (long i = 0; i < w->hidden; i++, weight += 3 * VL) {
        vec wr = load(weight), wz = load(weight + VL), wc = load(weight + 2 * VL);
        UNROLL for (int m = 0; m < rows; m++) {
            vec h = all(state[m * padded + i]);
            r[m] += wr * h;
            z[m] += wz * h;
            c[m] += wc * h;
        }
    }
    UNROLL for (int m = 0; m < rows; m++, gate += 4 * padded) {
        store(gate, r[m]);
        store(gate + padded, z[m]);
        store(gate + 2 * padded, c[m]);
    }
}

/* From the arguments of the gates at time step t to the next state. Sigmoids come first: a tanh waits for one, and
   what does not wait fills the processor's pipes. */
static void open_gates(const work *w, const real *x, long t)
{
    const long padded = w->padded;
    real *const gates = w->gates + t * w->batch * 4 * padded;
    for (long e = 0; e < w->batch; e++) {
        const real *now = x + (e * w->time + t) * w->channels, *in = w->channel;
        real *gate = gates + e * 4 * padded;
        for (long j = 0; j < padded; j += VL, gate += VL) {
            vec r = load(gate), z = load(gate + padded), n = load(w->biases + 4 * j + 3 * VL);
            for (long i = 0; i < w->channels; i++, in += 3 * VL) {
                r += load(in) * now[i];
                z += load(in + VL) * now[i];
                n += load(in + 2 * VL) * now[i];
            }
            store(gate, sigmoid_of(r));
            store(gate + padded, sigmoid_of(z));
            store(gate + 3 * padded, n);
        }
    }
    const real *before = w->states + t * w->batch * padded;
    real *after = w->states + (t + 1) * w->batch * padded;
    for (long e = 0; e < w->batch; e++, before += padded, after += padded) {
        real *gate = gates + e * 4 * padded;
        for (long j = 0; j < padded; j += VL, gate += VL) {
            vec n = tanh_of(load(gate + 3 * padded) + load(gate) * load(gate + 2 * padded));
            store(gate + 3 * padded, n);
            store(after + j, n + load(gate + padded) * (load(before + j) - n));
        }
    }
}

static void forward(const work *w, const real *x)
{
    memset(w->states, 0, w->batch * w->padded * sizeof(real));
    for (long t = 0; t < w->time; t++) {
        for (long j = 0; j < w->padded; j += VL) {
            long e = 0;
            for (; e + ROWS <= w->batch; e += ROWS)
                gate_block(w, t, e, j, ROWS);
            for (; e + 2 <= w->batch; e += 2)
                gate_block(w, t, e, j, 2);
            if (e < w->batch)
                gate_block(w, t, e, j, 1);
        }
        open_gates(w, x, t);
    }
}

static void read_out(const work *w, const real *bias, real *outputs)
{
    const real *state = w->states + w->time * w->batch * w->padded;
    for (long e = 0; e < w->batch; e++, state += w->padded)
        for (long o = 0; o < w->outputs; o++) {
            vec sum = {0};
            for (long j = 0; j < w->padded; j += VL) { /* padded units are NaN where a feature is infinite */
                vec part = load(state + j) * load(w->readout + o * w->padded + j);
                sum += choose(first_lanes(w->hidden - j), part, (vec){0});
            }
            *outputs++ = bias[o] + sum_of(sum);
        }
}

/* Returns the cross-entropy of one example; `away` gets the derivative times `weight`. */
static real cross_entropy(const real *outputs, int64_t target, long n, real weight, real *away)
{
    real top = outputs[0], sum = 0;
    for (long o = 1; o < n; o++)
        top = outputs[o] > top ? outputs[o] : top;
    for (long o = 0; o < n; o++)
        sum += away[o] = exp(outputs[o] - top);
    for (long o = 0; o < n; o++)
        away[o] = (away[o] / sum - (o == target)) * weight;
    return log(sum) - (outputs[target] - top);
}

/* Returns the squared error of one example, averaged over outputs; `away` gets the derivative times `weight`. */
static real squared_error(const real *outputs, const real *targets, long n, real weight, real *away)
{
    real sum = 0;
    for (long o = 0; o < n; o++) {
        real d = outputs[o] - targets[o];
        sum += d * d;
        away[o] = d * ((real)2 / n) * weight;
    }
    return sum / n;
}

/* From the derivative by the outputs to that by the last state. */
static void into_last_state(const work *w)
{
    for (long e = 0; e < w->batch; e++)
        for (long j = 0; j < w->padded; j += VL) {
            vec sum = {0};
            for (long o = 0; o < w->outputs; o++)
                sum += load(w->readout + o * w->padded + j) * w->away[e * w->outputs + o];
            store(w->slope + e * w->padded + j, sum);
        }
}

/* Through the gates of time step t. `slope` keeps the part of the derivative that does not pass through W_h. */
static void through_gates(const work *w, long t)
{
    const long padded = w->padded;
    for (long e = 0; e < w->batch; e++)
        for (long j = 0; j < padded; j += VL) {
            real *gate = w->gates + (t * w->batch + e) * 4 * padded + j, *slope = w->slope + e * padded + j;
            vec before = load(w->states + (t * w->batch + e) * padded + j), d = load(slope);
            vec r = load(gate), z = load(gate + padded), c = load(gate + 2 * padded), n = load(gate + 3 * padded);
            vec by_n = d * ((real)1 - n * n) * ((real)1 - z);
            store(gate, by_n * c * (r - r * r));
            store(gate + padded, d * (before - n) * (z - z * z));
            store(gate + 2 * padded, by_n * r);
            store(gate + 3 * padded, by_n);
            store(slope, d * z);
        }
}

/* sum[m][n] += sum over k of a[m a_row + k a_term] b[k b_term + n VL], for vectors n of columns. */
BLOCK add_product(vec (*sum)[COLUMNS], const real *a, long a_row, long a_term, const real *b, long b_term,
                  long terms, const int rows, const int columns)
{
    for (long k = 0; k < terms; k++, a += a_term, b += b_term) {
        vec right[COLUMNS];
        UNROLL for (int n = 0; n < columns; n++)
            right[n] = load(b + n * VL);
        UNROLL for (int m = 0; m < rows; m++) {
            vec left = all(a[m * a_row]);
            UNROLL for (int n = 0; n < columns; n++)
                sum[m][n] += left * right[n];
        }
    }
}

BLOCK slope_block(const work *w, long t, long e, long j, const int rows, const int columns)
{
    const long padded = w->padded;
    const real *gate = w->gates + (t * w->batch + e) * 4 * padded;
    real *slope = w->slope + e * padded + j;
    vec sum[ROWS][COLUMNS];
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int n = 0; n < columns; n++)
            sum[m][n] = load(slope + m * padded + n * VL);
    for (long g = 0; g < 3; g++)
        add_product(sum, gate + g * padded, 4 * padded, 1, w->backward + g * w->hidden * padded + j, padded, w->hidden,
                    rows, columns);
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int n = 0; n < columns; n++)
            store(slope + m * padded + n * VL, sum[m][n]);
}

BLOCK slope_columns(const work *w, long t, long j, const int columns)
{
    long e = 0;
    for (; e + ROWS <= w->batch; e += ROWS)
        slope_block(w, t, e, j, ROWS, columns);
    for (; e + 2 <= w->batch; e += 2)
        slope_block(w, t, e, j, 2, columns);
    if (e < w->batch)
        slope_block(w, t, e, j, 1, columns);
}

static void back_through_time(const work *w)
{
    for (long t = w->time - 1; t >= 0; t--) {
        through_gates(w, t);
        long j = 0;
        for (; t && j + COLUMNS * VL <= w->padded; j += COLUMNS * VL)
            slope_columns(w, t, j, COLUMNS);
        for (; t && j < w->padded; j += VL)
            slope_columns(w, t, j, 1);
    }
}

/* Rows i of one gate and columns from j of the gradient of W_h. */
BLOCK recurrent_block(const work *w, real *out, long gate, long i, long j, const int rows, const int columns)
{
    vec sum[ROWS][COLUMNS] = {{{0}}};
    add_product(sum, w->gates + gate * w->padded + i, 1, 4 * w->padded, w->states + j, w->padded, w->time * w->batch,
                rows, columns);
    UNROLL for (int m = 0; m < rows; m++)
        UNROLL for (int n = 0; n < columns; n++)
            store_part(out + (gate * w->hidden + i + m) * w->hidden + j + n * VL, sum[m][n],
                       w->hidden - j - n * VL);
}

BLOCK recurrent_columns(const work *w, real *out, long j, const int columns)
{
    for (long gate = 0; gate < 3; gate++) {
        long i = 0;
        for (; i + ROWS <= w->hidden; i += ROWS)
            recurrent_block(w, out, gate, i, j, ROWS, columns);
        for (; i + 2 <= w->hidden; i += 2)
            recurrent_block(w, out, gate, i, j, 2, columns);
        if (i < w->hidden)
            recurrent_block(w, out, gate, i, j, 1, columns);
    }
}

static void recurrent_gradient(const work *w, real *out)
{
    long j = 0;
    for (; j + COLUMNS * VL <= w->padded; j += COLUMNS * VL)
        recurrent_columns(w, out, j, COLUMNS);
    for (; j < w->padded; j += VL)
        recurrent_columns(w, out, j, 1);
}

/* The gradient of W_i for units from j and `count` channels from `first`; with channel 0, those of the biases too. */
BLOCK channel_block(const work *w, const real *x, real *const *out, long j, long first, const int count)
{
    vec sum[3][CHANNELS] = {{{0}}}, bias[4] = {{0}};
    for (long t = 0; t < w->time; t++)
        for (long e = 0; e < w->batch; e++) {
            const real *gate = w->gates + (t * w->batch + e) * 4 * w->padded + j;
            const real *now = x + (e * w->time + t) * w->channels + first;
            vec r = load(gate), z = load(gate + w->padded), n = load(gate + 3 * w->padded);
            UNROLL for (int i = 0; i < count; i++) {
                sum[0][i] += r * now[i];
                sum[1][i] += z * now[i];
                sum[2][i] += n * now[i];
            }
            if (!first) {
                bias[0] += r;
                bias[1] += z;
                bias[2] += load(gate + 2 * w->padded);
                bias[3] += n;
            }
        }
    for (long g = 0; g < 3; g++)
        for (long l = 0; l < VL && j + l < w->hidden; l++)
            for (int i = 0; i < count; i++)
                out[INTO][(g * w->hidden + j + l) * w->channels + first + i] = sum[g][i][l];
    for (long g = 0; !first && g < 3; g++) {
        store_part(out[RECURRENT_BIAS] + g * w->hidden + j, bias[g], w->hidden - j);
        store_part(out[INTO_BIAS] + g * w->hidden + j, bias[g == 2 ? 3 : g], w->hidden - j);
    }
}

static void channel_gradient(const work *w, const real *x, real *const *out)
{
    for (long j = 0; j < w->padded; j += VL) {
        long i = 0;
        for (; i + CHANNELS <= w->channels; i += CHANNELS)
            channel_block(w, x, out, j, i, CHANNELS);
        for (; i < w->channels; i++)
            channel_block(w, x, out, j, i, 1);
    }
}

static void readout_gradient(const work *w, real *const *out)
{
    const real *last = w->states + w->time * w->batch * w->padded;
    for (long o = 0; o < w->outputs; o++) {
        real total = 0;
        for (long e = 0; e < w->batch; e++)
            total += w->away[e * w->outputs + o];
        out[READOUT_BIAS][o] = total;
        for (long j = 0; j < w->padded; j += VL) {
            vec sum = {0};
            for (long e = 0; e < w->batch; e++)
                sum += load(last + e * w->padded + j) * w->away[e * w->outputs + o];
            store_part(out[READOUT] + o * w->hidden + j, sum, w->hidden - j);
        }
    }
}

/* From losses to the gradient of every parameter, with `away` filled. */
static void backward(const work *w, const real *x, real *const *gradient)
{
    into_last_state(w);
    back_through_time(w);
    recurrent_gradient(w, gradient[RECURRENT]);
    channel_gradient(w, x, gradient);
    readout_gradient(w, gradient);
}

/* Fills `losses`, and `away` with their derivative times the weights (one weight for all if `weights` is NULL).
   Targets are `classes` for the cross-entropy and `values` for the squared error. Returns an error of team.h, or 0. */
static int take_losses(const work *w, loss_kind loss, const real *outputs, const int64_t *classes, const real *values,
                       const real *weights, real weight, real *losses)
{
    const long n = w->outputs;
    for (long e = 0; e < w->batch; e++, outputs += n) {
        const real own = weights ? weights[e] : weight;
        if (loss == CROSS_ENTROPY && (classes[e] < 0 || classes[e] >= n))
            return LABEL_OUT_OF_RANGE;
        losses[e] = loss == CROSS_ENTROPY ? cross_entropy(outputs, classes[e], n, own, w->away + e * n)
                                          : squared_error(outputs, values + e * n, n, own, w->away + e * n);
    }
    return 0;
}

/* The places of the parameters in a vector of all of them. */
static void place_tensors(const gru_shape *s, int64_t sizes[TENSORS])
{
    const int64_t all[TENSORS] = {3 * s->hidden * s->channels, 3 * s->hidden * s->hidden, 3 * s->hidden, 3 * s->hidden,
                                  s->outputs * s->hidden, s->outputs};
    memcpy(sizes, all, sizeof(all));
}

#endif
