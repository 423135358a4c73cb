/* Local SGD of perceptrons, one client after another: linear layers with ReLU, tanh or sigmoid between them.
 *
 * A client's parameters stay in the cache of one core for all its steps. The step is fused into the weight gradient.
 * What a client's numbers depend on are its own examples, so neither threads nor other clients change a bit.
 *
 * Layouts: the first layer is kept as [inputs][outputs], the others as [outputs][inputs], with rows padded to whole
 * vectors. So the forward pass of the first layer, all weight gradients and the derivatives below a layer are sums of
 * rows times numbers. Only the forward passes of further layers are scalar products. A first layer of few outputs is
 * kept as the others are. Padding of weights is always 0.
 */
#include "losses.h"
#include "products.h"
#include "team.h"

/* See `dense.py`: the same fields in the same order. K clients, S steps, batches of B, P parameters, L layers. */
typedef struct {
    int64_t layers;            /* L */
    const int64_t *widths;     /* [L + 1], inputs first */
    const int64_t *activations; /* [L] */
    const int64_t *has_bias;   /* [L] */
#include "job_fields.h"
} Job;

typedef struct {
    int64_t in, out, activation, has_bias, transposed;
    int64_t rows, width, ld;   /* of the kept matrix: rows, numbers in a row, distance of rows */
    int64_t weight, bias;      /* places in a kept model */
    int64_t flat_weight, flat_bias; /* places in a row of parameters */
} Layer;

enum { MOST_LAYERS = 64 };

typedef struct {
    Layer layer[MOST_LAYERS];
    int64_t count, size, widest; /* layers; reals of a kept model; the widest padded outputs */
    int64_t inputs[MOST_LAYERS + 1]; /* padded widths */
    real *model, *start, *sums;  /* the client's model, the broadcast one, gradients of a batch of several chunks */
    real *h[MOST_LAYERS + 1];    /* inputs of each layer and the outputs, [CHUNK][padded width] */
    real *d, *below;             /* derivatives by a layer's outputs and inputs, [CHUNK][widest] */
    int64_t labels[CHUNK];
} Bench;

/* ---- one step of one client ---- */

/* Copy examples into the first layer's inputs; return an error or 0. */
static int gather(const Job *job, Bench *b, const int64_t *at, int64_t n) {
    const int64_t in = job->widths[0], ld = b->inputs[0], outs = job->widths[job->layers];
    for (int64_t e = 0; e < n; e++) {
        const int64_t row = at[e];
        real *to = b->h[0] + e * ld;
        if (row < 0 || row >= job->examples) return ROW_OUT_OF_RANGE;
        if (job->feature_bytes == (int64_t)sizeof(real)) {
            memcpy(to, (const real *)job->features + row * job->feature_stride, in * sizeof(real));
        } else if (job->feature_bytes == 4) {
            const float *from = (const float *)job->features + row * job->feature_stride;
            for (int64_t i = 0; i < in; i++) to[i] = (real)from[i];
        } else {
            const double *from = (const double *)job->features + row * job->feature_stride;
            for (int64_t i = 0; i < in; i++) to[i] = (real)from[i];
        }
        if (job->regression) continue;
        b->labels[e] = ((const int64_t *)job->targets)[row];
        if (b->labels[e] < 0 || b->labels[e] >= outs) return LABEL_OUT_OF_RANGE;
    }
    return 0;
}

static void forward(Bench *b, int64_t n) {
    for (int64_t l = 0; l < b->count; l++) {
        const Layer *y = &b->layer[l];
        const real *w = b->model + y->weight, *bias = b->model + y->bias;
        const int64_t lda = b->inputs[l], ldo = b->inputs[l + 1];
        if (y->transposed)
            product(n, y->in, padded(y->out), b->h[l], lda, w, y->ld, bias, 0, b->h[l + 1], ldo);
        else
            dots(n, y->out, padded(y->in), b->h[l], lda, w, y->ld, bias, b->h[l + 1], ldo);
        activate(y->activation, n, y->out, b->h[l + 1], ldo);
    }
}

/* Go back from the outputs' derivative, which is in the place of the outputs, and take the step. */
static void backward(Bench *b, int64_t n, Step *step) {
    static const real one[1] = {1};
    real *d = b->h[b->count], *free_ = b->d, *next = b->below;
    int64_t ldd = b->inputs[b->count];
    for (int64_t l = b->count - 1; l >= 0; l--) {
        const Layer *y = &b->layer[l];
        real *w = b->model + y->weight, *sum = b->sums + y->weight;
        const real *start = b->start + y->weight, *h = b->h[l];
        const int64_t ldh = b->inputs[l];
        real *below = free_;
        if (l > 0) product(n, y->out, padded(y->in), d, ldd, w, y->ld, NULL, 0, below, b->widest);
        if (y->transposed)
            step_rows(y->in, n, y->out, h, ldh, d, ldd, w, sum, start, y->ld, step);
        else
            step_rows(y->out, n, y->in, d, ldd, h, ldh, w, sum, start, y->ld, step);
        if (y->has_bias)
            step_rows(1, n, y->out, one, 0, d, ldd, b->model + y->bias, b->sums + y->bias, b->start + y->bias, 0, step);
        if (l > 0) {
            through(b->layer[l - 1].activation, n, y->in, below, b->widest, h, ldh);
            free_ = next, next = below, d = below, ldd = b->widest;
        }
    }
}

static int take_step(const Job *job, Bench *b, int64_t k, int64_t s, Step *step) {
    const int64_t *at = job->rows + job->rows_at[k] + s * job->batch, *end = at + job->counts[job->counts_at[k] + s];
    const int64_t outs = job->widths[job->layers], ld = b->inputs[job->layers];
    const real weight = (real)1 / (real)(end - at);
    step->first = 1;
    step->gradient = step->distance = 0;
    for (; at < end; step->first = 0) {
        const int64_t n = end - at < CHUNK ? end - at : CHUNK;
        const int error = gather(job, b, at, n);
        if (error) return error;
        step->last = at + n == end;
        forward(b, n);
        real *z = b->h[b->count];
        job->losses[k] += job->regression ? squared_error(n, outs, weight, job->targets, at, z, ld)
                                          : softmax_error(n, outs, weight, b->labels, z, ld, &job->wrong[k]);
        backward(b, n, step);
        at += n;
    }
    return 0;
}

/* ---- a client ---- */

/* Copy a row of parameters into a kept model, whose padding is 0, or back. */
static void pack(const Bench *b, const real *row, real *model) {
    for (int64_t l = 0; l < b->count; l++) {
        const Layer *y = &b->layer[l];
        const real *from = row + y->flat_weight;
        real *w = model + y->weight;
        if (!y->transposed) {
            for (int64_t o = 0; o < y->out; o++) memcpy(w + o * y->ld, from + o * y->in, y->in * sizeof(real));
        } else {
            for (int64_t i = 0; i < y->in; i += VL)
                for (int64_t o = 0; o < y->out; o++)
                    for (int64_t j = i; j < i + VL && j < y->in; j++) w[j * y->ld + o] = from[o * y->in + j];
        }
        if (y->has_bias) memcpy(model + y->bias, row + y->flat_bias, y->out * sizeof(real));
    }
}

static void unpack(const Bench *b, const real *model, real *row) {
    for (int64_t l = 0; l < b->count; l++) {
        const Layer *y = &b->layer[l];
        const real *w = model + y->weight;
        real *to = row + y->flat_weight;
        if (!y->transposed) {
            for (int64_t o = 0; o < y->out; o++) memcpy(to + o * y->in, w + o * y->ld, y->in * sizeof(real));
        } else {
            for (int64_t i = 0; i < y->in; i += VL)
                for (int64_t o = 0; o < y->out; o++)
                    for (int64_t j = i; j < i + VL && j < y->in; j++) to[o * y->in + j] = w[j * y->ld + o];
        }
        if (y->has_bias) memcpy(row + y->flat_bias, model + y->bias, y->out * sizeof(real));
    }
}

static void *prepare(const void *argument) {
    const Job *job = argument;
    Bench plan = {.count = job->layers};
    int64_t flat = 0;
    for (int64_t l = 0; l <= job->layers; l++) {
        plan.inputs[l] = padded(job->widths[l]);
        if (l > 0 && plan.inputs[l] > plan.widest) plan.widest = plan.inputs[l];
    }
    for (int64_t l = 0; l < job->layers; l++) {
        Layer *y = &plan.layer[l];
        y->in = job->widths[l], y->out = job->widths[l + 1];
        y->activation = job->activations[l], y->has_bias = job->has_bias[l];
        y->transposed = l == 0 && 2 * y->out >= VL;
        y->rows = y->transposed ? y->in : y->out;
        y->width = y->transposed ? y->out : y->in;
        y->ld = padded(y->width);
        if (y->ld * sizeof(real) % 2048 == 0) y->ld += VL; /* rows at powers of two would share a few cache lines */
        y->weight = plan.size, plan.size += y->rows * y->ld;
        y->bias = plan.size, plan.size += padded(y->out);
        y->flat_weight = flat, flat += y->in * y->out;
        y->flat_bias = flat, flat += y->has_bias ? y->out : 0;
    }
    const int64_t sums = job->batch > CHUNK ? plan.size : 0;
    int64_t reals = 2 * plan.size + sums + 2 * CHUNK * plan.widest;
    for (int64_t l = 0; l <= job->layers; l++) reals += CHUNK * plan.inputs[l];
    const size_t head = (sizeof(Bench) + VECTOR_BYTES - 1) / VECTOR_BYTES * VECTOR_BYTES;
    Bench *b = NULL;
    if (posix_memalign((void **)&b, 64, head + reals * sizeof(real))) return NULL;
    *b = plan;
    real *place = (real *)((char *)b + head);
    memset(place, 0, reals * sizeof(real));
    b->model = place, place += plan.size;
    b->start = place, place += plan.size;
    b->sums = place, place += sums;
    b->d = place, place += CHUNK * plan.widest;
    b->below = place, place += CHUNK * plan.widest;
    for (int64_t l = 0; l <= job->layers; l++) b->h[l] = place, place += CHUNK * plan.inputs[l];
    pack(b, job->start, b->start);
    return b;
}

/* The distance of the model from the start, as the steps add it up, block by block. */
static double distance_of(const Bench *b) {
    double total = 0;
    for (int64_t i = 0; i < b->size; i += VL) {
        vec away = load(b->model + i) - load(b->start + i);
        total += sum_of(away * away);
    }
    return sqrt(total);
}

static int train(const void *argument, void *own, int64_t k, Team *team) {
    const Job *job = argument;
    Bench *b = own;
    int64_t s = job->done[k];
    real *row = job->params + k * job->num_params;
    if (s >= job->steps[k]) return FINISHED;
    if (s < 0) {
        memcpy(row, job->start, job->num_params * sizeof(real));
        memcpy(b->model, b->start, b->size * sizeof(real));
        s = 0;
    } else {
        pack(b, row, b->model);
    }
    Step step = {.lr = (real)job->lr, .shrink = (real)job->shrink};
    int64_t measure = 0, place = 0; /* which measures come next */
    for (int64_t past = 1; past <= s; past++) measure += is_power(past), place += past <= job->exact_steps || is_power(past);
    const int64_t first = s, patience = job->num_params * job->batch < 65536 ? 8 : 1; /* steps between looks at the clock */
    while (s < job->steps[k] && (s == first || (s - first) % patience || !is_over(team))) {
        step.measured = is_power(s + 1);
        step.placed = step.measured || s < job->exact_steps;
        const int error = take_step(job, b, k, s, &step);
        if (error) return error;
        s++;
        if (step.measured) job->gradients[measure++ * job->clients + k] = step.gradient;
        if (step.placed) job->distances[place++ * job->clients + k] = sqrt(step.distance);
    }
    job->done[k] = s;
    unpack(b, b->model, row);
    if (s == job->steps[k]) job->ends[k] = distance_of(b);
    return 0;
}

/* Train the clients, in their order: the longest first. Returns an error or 0; after the job's `seconds` a client
 * pauses between two steps, and another call goes on. */
int fedscape_dense(const Job *job) {
    if (job->layers < 1 || job->layers > MOST_LAYERS) return NO_MEMORY;
    Team team = {.job = job, .clients = job->clients, .prepare = prepare, .train = train};
    team.deadline = now() + (int64_t)(job->seconds * 1e9);
    return work_together(&team, job->threads);
}

int64_t fedscape_dense_job_bytes(void) { return sizeof(Job); }

/* For tests: exp, log, tanh and the sigmoid of n numbers, n a multiple of the vector's length. */
void fedscape_functions(const real *x, real *exps, real *logs, real *tanhs, real *sigmoids, int64_t n) {
    for (int64_t i = 0; i + VL <= n; i += VL) {
        vec v = *(const loose_vec *)(x + i);
        *(loose_vec *)(exps + i) = exp_of(v);
        *(loose_vec *)(logs + i) = log_of(v);
        *(loose_vec *)(tanhs + i) = tanh_of(v);
        *(loose_vec *)(sigmoids + i) = sigmoid_of(v);
    }
}
