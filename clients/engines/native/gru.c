/* Gradients and local SGD of GRU forecasters, one client after another. A client's numbers depend on its own parameters
   and examples alone, so neither threads nor other clients change a bit. */

#include <stdlib.h>
#include <string.h>

#include "gru.h"

/* ---- gradients of one batch a client ---- */

typedef struct {
    const gru_shape *shape;
    loss_kind loss;
    const real *features;    /* [k][batch][time][channels] */
    const void *targets;     /* int64 [k][batch], or real [k][batch][outputs] */
    const real *weights;     /* [k][batch], 0 on padding, which ends a batch; or NULL: 1 / batch */
    const real *derivative;  /* [k][batch][outputs], of GIVEN_DERIVATIVE */
    real *const *params, *const *gradients;
    real *losses;            /* [k][batch] */
    real *outputs;           /* [k][batch][outputs] */
} gradient_job;

static int gradients_of(const void *argument, void *own, int64_t k, Team *team)
{
    (void)team;
    const gradient_job *job = argument;
    const gru_shape *s = job->shape;
    const int64_t from = k * s->batch, outs = s->outputs;
    const real *x = job->features + from * s->time * s->channels, *weights = job->weights ? job->weights + from : NULL;
    int64_t sizes[TENSORS];
    real *p[TENSORS], *g[TENSORS], *outputs = job->outputs + from * outs, *losses = job->losses + from;
    place_tensors(s, sizes);
    for (int i = 0; i < TENSORS; i++) {
        p[i] = job->params[i] + k * sizes[i];
        g[i] = job->gradients ? job->gradients[i] + k * sizes[i] : NULL;
    }
    work w;
    lay_out(&w, own, s);
    while (weights && w.batch && weights[w.batch - 1] == 0)
        w.batch--;
    pack(&w, p);
    forward(&w, x);
    read_out(&w, p[READOUT_BIAS], outputs);
    memset(outputs + w.batch * outs, 0, (s->batch - w.batch) * outs * sizeof(real));
    if (job->loss == OUTPUTS_ALONE)
        return 0;
    if (job->loss == GIVEN_DERIVATIVE) {
        memcpy(w.away, job->derivative + from * outs, w.batch * outs * sizeof(real));
    } else {
        const int64_t *classes = (const int64_t *)job->targets + from;
        const real *values = (const real *)job->targets + from * outs;
        int error = take_losses(&w, job->loss, outputs, classes, values, weights, (real)(1.0 / s->batch), losses);
        if (error)
            return error;
        memset(losses + w.batch, 0, (s->batch - w.batch) * sizeof(real));
    }
    backward(&w, x, g);
    return 0;
}

static void *memory_of(const gru_shape *s, size_t further)
{
    work w;
    void *memory = NULL;
    size_t bytes = (lay_out(&w, NULL, s) + further) * sizeof(real);
    return posix_memalign(&memory, 64, bytes) ? NULL : memory;
}

static void *prepare_gradients(const void *argument) { return memory_of(((const gradient_job *)argument)->shape, 0); }

/* Computes gradients, losses and outputs of `clients` models on a batch each. Returns an error of team.h, or 0. */
int gru_gradients(const gru_shape *shape, int loss, int64_t clients, int64_t threads, const real *features,
                  const void *targets, const real *weights, const real *derivative, real *const *params,
                  real *const *gradients, real *losses, real *outputs)
{
    gradient_job job = {shape, loss, features, targets, weights, derivative, params, gradients, losses, outputs};
    Team team = {.job = &job, .clients = clients, .deadline = INT64_MAX, .prepare = prepare_gradients,
                 .train = gradients_of};
    return work_together(&team, threads);
}

/* ---- all local steps of a client, w <- shrink w - lr gradient ---- */

/* `_Job` of gru.py: the same fields in the same order. K clients, P parameters. */
typedef struct {
    gru_shape shape;
#include "job_fields.h"
} Job;

/* A thread's arrays behind the work arrays. */
typedef struct {
    real *gradient;  /* [P] */
    real *features;  /* [batch][time][channels] */
    real *values;    /* [batch][outputs] */
    real *outputs;   /* [batch][outputs] */
    real *losses;    /* [batch] */
    int64_t *classes; /* [batch] */
} bench;

static size_t lay_out_bench(bench *b, real *memory, const Job *job)
{
    const gru_shape *s = &job->shape;
    size_t sizes[] = {job->num_params, s->batch * s->time * s->channels, s->batch * s->outputs, s->batch * s->outputs,
                      s->batch, s->batch * sizeof(int64_t) / sizeof(real)};
    real *at[6];
    size_t used = 0;
    for (int i = 0; i < 6; i++) {
        at[i] = memory ? memory + used : NULL;
        used += padded(sizes[i]);
    }
    *b = (bench){at[0], at[1], at[2], at[3], at[4], (int64_t *)at[5]};
    return used;
}

static void *prepare_steps(const void *argument)
{
    bench b;
    return memory_of(&((const Job *)argument)->shape, lay_out_bench(&b, NULL, argument));
}

/* Gathers a batch. Returns an error of team.h, or 0. */
static int gather(const Job *job, const bench *b, const int64_t *rows, long count)
{
    const long width = job->shape.time * job->shape.channels, outs = job->shape.outputs;
    for (long e = 0; e < count; e++) {
        if (rows[e] < 0 || rows[e] >= job->examples)
            return ROW_OUT_OF_RANGE;
        const size_t from = rows[e] * job->feature_stride;
        real *to = b->features + e * width;
        if (job->feature_bytes == sizeof(double))
            for (long i = 0; i < width; i++)
                to[i] = (real)((const double *)job->features)[from + i];
        else
            for (long i = 0; i < width; i++)
                to[i] = (real)((const float *)job->features)[from + i];
        if (job->regression)
            memcpy(b->values + e * outs, (const real *)job->targets + rows[e] * outs, outs * sizeof(real));
        else
            b->classes[e] = ((const int64_t *)job->targets)[rows[e]];
    }
    return 0;
}

/* The position of the largest output as in torch: the first one, and NaN is the largest. */
static long largest(const real *outputs, long n)
{
    long best = 0;
    for (long o = 1; o < n; o++)
        if (outputs[o] > outputs[best] || (outputs[o] != outputs[o] && outputs[best] == outputs[best]))
            best = o;
    return best;
}

/* The squared distance of two vectors (of one from 0 if `b` is NULL), its blocks added up in float64. */
static double squared_distance(const real *a, const real *b, long n)
{
    enum { PART = 64 };
    double total = 0;
    for (long i = 0; i < n;) {
        vec sum = {0};
        for (long end = i + PART * VL; i + VL <= n && i < end; i += VL) {
            vec d = *(const loose_vec *)(a + i);
            if (b)
                d -= *(const loose_vec *)(b + i);
            sum += d * d;
        }
        total += sum_of(sum);
        for (; i + VL > n && i < n; i++) {
            real d = a[i] - (b ? b[i] : 0);
            total += d * d;
        }
    }
    return total;
}

static void descend(real *restrict params, const real *restrict gradient, long n, real lr, real shrink)
{
    for (long i = 0; i < n; i++)
        params[i] = shrink * params[i] - lr * gradient[i];
}

static int take_step(const Job *job, work *w, const bench *b, int64_t k, int64_t s, real *const *params)
{
    real *g[TENSORS] = {b->gradient};
    int64_t sizes[TENSORS];
    place_tensors(&job->shape, sizes);
    for (int i = 1; i < TENSORS; i++)
        g[i] = g[i - 1] + sizes[i - 1];
    w->batch = job->counts[job->counts_at[k] + s];
    const loss_kind loss = job->regression ? SQUARED_ERROR : CROSS_ENTROPY;
    int error = gather(job, b, job->rows + job->rows_at[k] + s * job->batch, w->batch);
    if (error)
        return error;
    pack(w, params);
    forward(w, b->features);
    read_out(w, params[READOUT_BIAS], b->outputs);
    error = take_losses(w, loss, b->outputs, b->classes, b->values, NULL, (real)(1.0 / w->batch), b->losses);
    if (error)
        return error;
    for (long e = 0; e < w->batch; e++) {
        job->losses[k] += b->losses[e];
        if (loss == CROSS_ENTROPY)
            job->wrong[k] += largest(b->outputs + e * w->outputs, w->outputs) != b->classes[e];
    }
    backward(w, b->features, g);
    descend(params[0], b->gradient, job->num_params, (real)job->lr, (real)job->shrink);
    return 0;
}

static int is_power(int64_t step) { return (step & (step - 1)) == 0; }

static int train(const void *argument, void *own, int64_t k, Team *team)
{
    const Job *job = argument;
    int64_t s = job->done[k], sizes[TENSORS], measure = 0, place = 0;
    real *row = job->params + k * job->num_params, *params[TENSORS] = {row};
    if (s >= job->steps[k])
        return FINISHED;
    if (s < 0) {
        memcpy(row, job->start, job->num_params * sizeof(real));
        s = 0;
    }
    place_tensors(&job->shape, sizes);
    for (int i = 1; i < TENSORS; i++)
        params[i] = params[i - 1] + sizes[i - 1];
    work w;
    bench b;
    lay_out_bench(&b, (real *)own + lay_out(&w, own, &job->shape), job);
    for (int64_t past = 1; past <= s; past++) {
        measure += is_power(past);
        place += past <= job->exact_steps || is_power(past);
    }
    const int64_t first = s, cost = job->num_params * job->batch * job->shape.time;
    const int64_t patience = cost < 65536 ? 8 : 1; /* steps between looks at the clock */
    while (s < job->steps[k] && (s == first || (s - first) % patience || !is_over(team))) {
        const int error = take_step(job, &w, &b, k, s, params);
        if (error)
            return error;
        s++;
        if (is_power(s))
            job->gradients[measure++ * job->clients + k] = squared_distance(b.gradient, NULL, job->num_params);
        if (s <= job->exact_steps || is_power(s))
            job->distances[place++ * job->clients + k] = sqrt(squared_distance(row, job->start, job->num_params));
    }
    job->done[k] = s;
    if (s == job->steps[k])
        job->ends[k] = sqrt(squared_distance(row, job->start, job->num_params));
    return 0;
}

/* Trains the clients, in their order: the longest first. Returns an error of team.h, or 0. After the job's `seconds` a
   client pauses between two steps, and another call goes on. */
int gru_train(const Job *job)
{
    Team team = {.job = job, .clients = job->clients, .prepare = prepare_steps, .train = train};
    team.deadline = now() + (int64_t)(job->seconds * 1e9);
    return work_together(&team, job->threads);
}

int64_t gru_job_bytes(void) { return sizeof(Job); }
