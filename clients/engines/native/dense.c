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
#include "team.h"
#include "vectors.h"

enum { NONE = 0, RELU = 1, TANH = 2, SIGMOID = 3 };
enum { CHUNK = 64 }; /* examples whose activations are kept at once; larger batches are summed over chunks */
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define ROWS_IN_REGISTERS 10
#else
#define ROWS_IN_REGISTERS 5
#endif
enum { ROWS = ROWS_IN_REGISTERS }; /* rows of a block of sums: two vectors of each stay in registers */

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

/* ---- blocks of sums: `rows` x `cols` vectors in registers, rows and cols known to the compiler ---- */

/* sums[r][c] += a[r * across + k * along] * b[k * ldb + c * VL ...] over k < n */
INLINE void add_products(int rows, int cols, int64_t n, const real *a, int64_t across, int64_t along, const real *b,
                         int64_t ldb, vec sums[ROWS][2]) {
    for (int64_t k = 0; k < n; k++) {
        vec b0 = load(b + k * ldb), b1 = cols > 1 ? load(b + k * ldb + VL) : b0;
        UNROLL for (int r = 0; r < rows; r++) {
            real factor = a[r * across + k * along];
            sums[r][0] += factor * b0;
            if (cols > 1) sums[r][1] += factor * b1;
        }
    }
}

/* Call for the number of rows of a block, one of those that `block_of` returns. */
#define EACH_ROWS(rows, call)   \
    switch (rows) {             \
    case 1: call(1); break;     \
    case 2: call(2); break;     \
    case 4: call(4); break;     \
    CASE_OF_LARGE(call)         \
    default: call(ROWS);        \
    }
#if ROWS_IN_REGISTERS == 10
#define CASE_OF_LARGE(call) case 8: call(8); break;
#else
#define CASE_OF_LARGE(call)
#endif

/* The rows of the next block, where `left` are left: few lengths, since each is compiled apart. */
INLINE int block_of(int64_t left) {
    if (left >= ROWS && (ROWS < 8 || left % 8 || left % ROWS == 0)) return ROWS;
    return ROWS > 8 && left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

INLINE void product_block(int rows, int cols, int64_t n, const real *a, int64_t lda, const real *m, int64_t ldm,
                          const real *first, real *out, int64_t ldo) {
    vec sums[ROWS][2];
    UNROLL for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) sums[r][c] = first ? load(first + c * VL) : (vec){0};
    add_products(rows, cols, n, a, lda, 1, m, ldm, sums);
    UNROLL for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) store(out + r * ldo + c * VL, sums[r][c]);
}

/* out[r, :] = first[:] + sum over k < n of a[r, k] m[k, :] */
static void product(int64_t rows, int64_t n, int64_t width, const real *a, int64_t lda, const real *m, int64_t ldm,
                    const real *first, real *out, int64_t ldo) {
    for (int64_t r = 0, step; r < rows; r += step) {
        step = block_of(rows - r);
        int64_t c = 0;
#define TWO(R) product_block(R, 2, n, a + r * lda, lda, m + c, ldm, first ? first + c : 0, out + r * ldo + c, ldo)
#define ONE(R) product_block(R, 1, n, a + r * lda, lda, m + c, ldm, first ? first + c : 0, out + r * ldo + c, ldo)
        for (; c + VL < width; c += 2 * VL) EACH_ROWS(step, TWO)
        if (c < width) EACH_ROWS(step, ONE)
#undef TWO
#undef ONE
    }
}

INLINE void dots_block(int rows, int cols, int64_t width, const real *a, int64_t lda, const real *m, int64_t ldm,
                       const real *first, real *out, int64_t ldo) {
    vec sums[ROWS][2];
    UNROLL for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) sums[r][c] = (vec){0};
    for (int64_t k = 0; k < width; k += VL) {
        vec m0 = load(m + k), m1 = cols > 1 ? load(m + ldm + k) : m0;
        UNROLL for (int r = 0; r < rows; r++) {
            vec x = load(a + r * lda + k);
            sums[r][0] += x * m0;
            if (cols > 1) sums[r][1] += x * m1;
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) out[r * ldo + c] = sum_of(sums[r][c]) + first[c];
}

/* out[r, o] = first[o] + sum over k of a[r, k] m[o, k] */
static void dots(int64_t rows, int64_t outs, int64_t width, const real *a, int64_t lda, const real *m, int64_t ldm,
                 const real *first, real *out, int64_t ldo) {
    for (int64_t r = 0, step; r < rows; r += step) {
        step = block_of(rows - r);
        int64_t o = 0;
#define TWO(R) dots_block(R, 2, width, a + r * lda, lda, m + o * ldm, ldm, first + o, out + r * ldo + o, ldo)
#define ONE(R) dots_block(R, 1, width, a + r * lda, lda, m + o * ldm, ldm, first + o, out + r * ldo + o, ldo)
        for (; o + 1 < outs; o += 2) EACH_ROWS(step, TWO)
        if (o < outs) EACH_ROWS(step, ONE)
#undef TWO
#undef ONE
    }
}

/* ---- the step ---- */

typedef struct {
    real lr, shrink;
    int first, last;      /* of the batch's chunks */
    int measured, placed; /* whether to add up squared gradients, and squared distances after the step */
    double gradient, distance;
} Step;

INLINE void step_block(int rows, int cols, int64_t n, const real *a, int64_t lda, const real *b, int64_t ldb,
                       real *m, real *sum, const real *start, int64_t ld, ivec lanes, Step *step) {
    vec g[ROWS][2];
    UNROLL for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) g[r][c] = step->first ? (vec){0} : load(sum + r * ld + c * VL);
    add_products(rows, cols, n, a, 1, lda, b, ldb, g);
    UNROLL for (int r = 0; r < rows; r++) g[r][cols - 1] = (vec)((ivec)g[r][cols - 1] & lanes);
    if (!step->last) {
        UNROLL for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++) store(sum + r * ld + c * VL, g[r][c]);
        return;
    }
    if (!step->placed) { /* and so not measured */
        UNROLL for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++) {
                real *w = m + r * ld + c * VL;
                store(w, load(w) * step->shrink - step->lr * g[r][c]);
            }
        return;
    }
    vec gradient = {0}, distance = {0};
    UNROLL for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            real *w = m + r * ld + c * VL;
            vec moved = load(w) * step->shrink - step->lr * g[r][c];
            vec away = moved - load(start + r * ld + c * VL);
            store(w, moved);
            gradient += g[r][c] * g[r][c];
            distance += away * away;
        }
    if (step->measured) step->gradient += sum_of(gradient);
    step->distance += sum_of(distance);
}

/* Step the rows of m along the sum over k < n of a[k, r] b[k, :]. */
static void step_rows(int64_t rows, int64_t n, int64_t width, const real *a, int64_t lda, const real *b, int64_t ldb,
                      real *m, real *sum, const real *start, int64_t ld, Step *step) {
    const int64_t whole = padded(width);
    const ivec last = first_lanes(width - (whole - VL)), every = first_lanes(VL);
    for (int64_t r = 0, count; r < rows; r += count) {
        count = block_of(rows - r);
        int64_t c = 0, at = r * ld;
#define TWO(R) step_block(R, 2, n, a + r, lda, b + c, ldb, m + at + c, sum + at + c, start + at + c, ld, \
                          c + 2 * VL < whole ? every : last, step)
#define ONE(R) step_block(R, 1, n, a + r, lda, b + c, ldb, m + at + c, sum + at + c, start + at + c, ld, last, step)
        for (; c + VL < whole; c += 2 * VL) EACH_ROWS(count, TWO)
        if (c < whole) EACH_ROWS(count, ONE)
#undef TWO
#undef ONE
    }
}

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

/* ---- one step of one client ---- */

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
            product(n, y->in, padded(y->out), b->h[l], lda, w, y->ld, bias, b->h[l + 1], ldo);
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
        if (l > 0) product(n, y->out, padded(y->in), d, ldd, w, y->ld, NULL, below, b->widest);
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

/* Whether a step (from 1) is 1, 2, 4, 8, ... */
INLINE int is_power(int64_t step) { return (step & (step - 1)) == 0; }

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
