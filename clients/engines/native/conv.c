/* Local SGD of convolutional networks, one client after another: convolutions with ReLU and max-pooling, then linear
 * layers.
 *
 * Images are kept with channels last, filters padded to whole vectors and a border of zeros. Convolutions go through a
 * batch image by image, forwards and backwards, so what they write stays in a core's cache; see convolution.h. Linear
 * layers are kept as [outputs][inputs], with inputs in the order of the images. Their backward pass takes some outputs
 * at a time: the derivative by the inputs and the step read the weights together. What a client's numbers depend on are
 * its own examples, so neither threads nor other clients change a bit. Padding of linear layers' weights is always 0.
 */
#include "convolution.h"
#include "losses.h"
#include "products.h"
#include "team.h"
#include "winograd.h"

#include <sys/mman.h>

/* See `conv.py`: the same fields in the same order. K clients, S steps, batches of B, P parameters. */
typedef struct {
    int64_t convolutions;       /* C */
    const int64_t *shapes;      /* [C][FIELDS]: see `plan_convolutions` */
    int64_t channels, height, width, channels_last; /* of an example */
    int64_t mean;               /* whether linear layers see the mean over positions */
    int64_t layers;             /* L */
    const int64_t *widths;      /* [L + 1], inputs first */
    const int64_t *activations; /* [L] */
    const int64_t *has_bias;    /* [L] */
#include "job_fields.h"
} Job;

typedef struct {
    int64_t in, out, activation, has_bias, ld;
    int64_t weight, bias, flat_weight, flat_bias;
} Layer;

enum { MOST_CONVOLUTIONS = 16, MOST_LAYERS = 16, FIELDS = 10, OUTPUTS_AT_ONCE = 16, PAGE = 1 << 21 };

typedef struct {
    Convolution convolution[MOST_CONVOLUTIONS];
    Layer layer[MOST_LAYERS];
    int64_t convolutions, layers, mean, positions; /* positions: pixels of the last convolution's pooled output */
    int64_t size, convolved, widest, entries, z, tile_work; /* sizes of the parts below */
    real *model, *start, *sums;          /* the client's model, the broadcast one, gradients of linear layers */
    real *gradient;                      /* of convolutions, as in the model */
    real *filters[MOST_CONVOLUTIONS];    /* laid out for the forward pass */
    real *transformed[MOST_CONVOLUTIONS]; /* where the forward pass is by tiles */
    real *tiles;
    real *image[MOST_CONVOLUTIONS];      /* inputs, [CHUNK] images each */
    real *derivative[MOST_CONVOLUTIONS]; /* by the inputs of one example */
    int8_t *code[MOST_CONVOLUTIONS];     /* [CHUNK] */
    ivec *keep[MOST_CONVOLUTIONS];       /* [rank]: the lanes of a line of a filter that are weights */
    real *map;                           /* outputs of the last convolution for one example, where their mean counts */
    real *convolved_z;                   /* outputs of a convolution before the pool, for one example */
    Entry *lists;
    int64_t *counts;
    real *h[MOST_LAYERS + 1]; /* inputs of each linear layer and the outputs, [CHUNK][padded width] */
    real *d, *below;          /* derivatives by a layer's outputs and inputs, [CHUNK][widest] */
    int64_t chunk;
    int64_t labels[CHUNK];
} Bench;

/* ---- sizes ---- */

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Fill in the convolutions, and add to the sizes of a bench; return the numbers in a row of parameters. */
static int64_t plan_convolutions(const Job *job, Bench *b) {
    int64_t channels = job->channels, height = job->height, width = job->width, flat = 0;
    for (int64_t l = 0; l < job->convolutions; l++) {
        Convolution *c = &b->convolution[l];
        const int64_t *s = job->shapes + l * FIELDS;
        *c = (Convolution){
            .channels = channels, .height = height, .width = width,
            .filters = s[0], .kernel_h = s[1], .kernel_w = s[2], .stride = s[3], .pad_h = s[4], .pad_w = s[5],
            .pool_h = s[6], .pool_w = s[7], .relu = s[8], .has_bias = s[9],
        };
        c->out_h = ((height + 2 * c->pad_h - c->kernel_h) / c->stride + 1) / c->pool_h;
        c->out_w = ((width + 2 * c->pad_w - c->kernel_w) / c->stride + 1) / c->pool_w;
        c->pixel = l ? padded(channels) : channels;
        c->line = (width + 2 * c->pad_w) * c->pixel;
        c->image = (height + 2 * c->pad_h) * c->line;
        c->lanes = padded(c->filters);
        c->run = c->kernel_w * c->pixel, c->rank = padded(c->run);
        c->weight = b->size, b->size += c->kernel_h * c->filters * c->rank;
        c->bias = b->size, b->size += c->lanes;
        c->flat_weight = flat, flat += c->filters * channels * c->kernel_h * c->kernel_w;
        c->flat_bias = flat, flat += c->has_bias ? c->filters : 0;
        for (int64_t i = 0; i < c->pool_h * c->pool_w; i++)
            c->places[i] = c->stride * (i / c->pool_w * c->line + i % c->pool_w * c->pixel);
        b->z = most(b->z, c->out_h * c->pool_h * c->out_w * c->pool_w * c->lanes);
        b->entries = most(b->entries, (c->out_h * c->out_w * c->pool_h * c->pool_w + 1) * c->filters);
        if (is_by_tiles(c)) b->tile_work = most(b->tile_work, SQUARE * TILES * (c->pixel + 2 * VL));
        channels = c->filters, height = c->out_h, width = c->out_w;
    }
    b->convolved = b->size;
    b->positions = height * width;
    return flat;
}

static void plan_layers(const Job *job, Bench *b, int64_t flat) {
    const Convolution *top = &b->convolution[b->convolutions - 1];
    for (int64_t l = 0; l < job->layers; l++) {
        Layer *y = &b->layer[l];
        y->in = l ? job->widths[l] : top->lanes * (b->mean ? 1 : b->positions);
        y->out = job->widths[l + 1];
        y->activation = job->activations[l], y->has_bias = job->has_bias[l];
        y->ld = padded(y->in);
        if (y->ld * sizeof(real) % 2048 == 0) y->ld += VL; /* rows at powers of two would share a few cache lines */
        y->weight = b->size, b->size += y->out * y->ld;
        y->bias = b->size, b->size += padded(y->out);
        y->flat_weight = flat, flat += job->widths[l] * y->out;
        y->flat_bias = flat, flat += y->has_bias ? y->out : 0;
        b->widest = most(b->widest, most(padded(y->in), padded(y->out)));
    }
}

/* ---- a model in a row of parameters, and as it is kept ---- */

/* Copy between a kept model and a row; padding is left as it is. */
INLINE void copy_model(const Bench *b, real *model, real *row, int into_model) {
#define COPY(kept, flat) do { if (into_model) (kept) = (flat); else (flat) = (kept); } while (0)
    for (int64_t l = 0; l < b->convolutions; l++) {
        const Convolution *c = &b->convolution[l];
        real *flat = row + c->flat_weight;
        for (int64_t f = 0; f < c->filters; f++)
            for (int64_t i = 0; i < c->channels; i++)
                for (int64_t ky = 0; ky < c->kernel_h; ky++)
                    for (int64_t kx = 0; kx < c->kernel_w; kx++, flat++)
                        COPY(model[c->weight + (ky * c->filters + f) * c->rank + kx * c->pixel + i], *flat);
        for (int64_t f = 0; c->has_bias && f < c->filters; f++) COPY(model[c->bias + f], row[c->flat_bias + f]);
    }
    const int64_t filters = b->convolution[b->convolutions - 1].filters, lanes = padded(filters);
    const int64_t positions = b->mean ? 1 : b->positions;
    for (int64_t l = 0; l < b->layers; l++) {
        const Layer *y = &b->layer[l];
        real *flat = row + y->flat_weight;
        for (int64_t o = 0; o < y->out; o++) {
            real *w = model + y->weight + o * y->ld;
            if (l) {
                for (int64_t i = 0; i < y->in; i++, flat++) COPY(w[i], *flat);
                continue;
            }
            for (int64_t f = 0; f < filters; f++)
                for (int64_t p = 0; p < positions; p++, flat++) COPY(w[p * lanes + f], *flat);
        }
        for (int64_t o = 0; y->has_bias && o < y->out; o++) COPY(model[y->bias + o], row[y->flat_bias + o]);
    }
#undef COPY
}

static void pack(const Bench *b, const real *row, real *model) { copy_model(b, model, (real *)row, 1); }

static void unpack(const Bench *b, const real *model, real *row) { copy_model(b, (real *)model, row, 0); }

static void lay_out(Bench *b) {
    for (int64_t l = 0; l < b->convolutions; l++) {
        const Convolution *c = &b->convolution[l];
        lay_filters_out(c, b->model + c->weight, b->filters[l]);
        if (is_by_tiles(c)) transform_filters(c, b->filters[l], b->transformed[l]);
    }
}

/* ---- one step of one client ---- */

INLINE real number_at(const Job *job, int64_t row, int64_t i) {
    const int64_t at = row * job->feature_stride + i;
    return job->feature_bytes == 4 ? (real)((const float *)job->features)[at] : (real)((const double *)job->features)[at];
}

/* Copy examples into the first convolution's inputs; return an error or 0. */
static int gather(const Job *job, Bench *b, const int64_t *at, int64_t n) {
    const Convolution *c = &b->convolution[0];
    const int64_t outs = job->widths[job->layers], area = c->height * c->width;
    const int64_t by_channel = job->channels_last ? 1 : area, by_pixel = job->channels_last ? c->channels : 1;
    for (int64_t e = 0; e < n; e++) {
        const int64_t row = at[e];
        if (row < 0 || row >= job->examples) return ROW_OUT_OF_RANGE;
        real *to = b->image[0] + e * c->image + c->pad_h * c->line + c->pad_w * c->pixel;
        for (int64_t y = 0; y < c->height; y++)
            for (int64_t x = 0; x < c->width; x++)
                for (int64_t i = 0; i < c->channels; i++)
                    to[y * c->line + x * c->pixel + i] =
                        number_at(job, row, i * by_channel + (y * c->width + x) * by_pixel);
        if (job->regression) continue;
        b->labels[e] = ((const int64_t *)job->targets)[row];
        if (b->labels[e] < 0 || b->labels[e] >= outs) return LABEL_OUT_OF_RANGE;
    }
    return 0;
}

/* The mean over the positions of the last convolution's output, or a sum times `scale`. */
static void add_positions_up(const Bench *b, const real *map, real scale, real *out) {
    const int64_t lanes = b->convolution[b->convolutions - 1].lanes;
    for (int64_t f = 0; f < lanes; f += VL) {
        vec sum = {0};
        for (int64_t p = 0; p < b->positions; p++) sum += load(map + p * lanes + f);
        store(out + f, sum * scale);
    }
}

static void forward(Bench *b, int64_t n) {
    for (int64_t e = 0; e < n; e++)
        for (int64_t l = 0; l < b->convolutions; l++) {
            const Convolution *c = &b->convolution[l], *above = c + 1;
            int8_t *code = b->code[l] + e * c->out_h * c->out_w * c->lanes;
            const real *image = b->image[l] + e * c->image, *bias = b->model + c->bias;
            if (is_by_tiles(c))
                convolve_by_tiles(c, image, b->transformed[l], bias, b->convolved_z, b->tiles);
            else
                convolve(c, image, b->filters[l], bias, b->convolved_z);
            if (l + 1 < b->convolutions) {
                real *out = b->image[l + 1] + e * above->image + above->pad_h * above->line + above->pad_w * above->pixel;
                pool(c, b->convolved_z, out, above->pixel, above->line, code);
            } else {
                real *h = b->h[0] + e * padded(b->layer[0].in);
                pool(c, b->convolved_z, b->mean ? b->map : h, c->lanes, c->out_w * c->lanes, code);
                if (b->mean) add_positions_up(b, b->map, (real)1 / (real)b->positions, h);
            }
        }
    for (int64_t l = 0; l < b->layers; l++) {
        const Layer *y = &b->layer[l];
        const int64_t lda = padded(y->in), ldo = padded(y->out);
        for (int64_t o = 0; o < y->out; o += OUTPUTS_AT_ONCE)
            dots(n, least(OUTPUTS_AT_ONCE, y->out - o), lda, b->h[l], lda, b->model + y->weight + o * y->ld, y->ld,
                 b->model + y->bias + o, b->h[l + 1] + o, ldo);
        activate(y->activation, n, y->out, b->h[l + 1], ldo);
    }
}

/* Go back through the linear layers from the outputs' derivative, which is in the place of the outputs, and step.
 * Returns the derivative by the inputs of the first. */
static const real *back_through_layers(Bench *b, int64_t n, Step *step) {
    static const real one[1] = {1};
    real *d = b->h[b->layers], *below = b->d, *next = b->below;
    int64_t ldd = padded(b->layer[b->layers - 1].out);
    for (int64_t l = b->layers - 1; l >= 0; l--) {
        const Layer *y = &b->layer[l];
        const int64_t ldh = padded(y->in);
        for (int64_t o = 0; o < y->out; o += OUTPUTS_AT_ONCE) {
            const int64_t count = least(OUTPUTS_AT_ONCE, y->out - o), at = y->weight + o * y->ld;
            product(n, count, ldh, d + o, ldd, b->model + at, y->ld, o ? below : NULL, ldh, below, ldh);
            step_rows(count, n, y->in, d + o, ldd, b->h[l], ldh, b->model + at, b->sums + at - b->convolved,
                      b->start + at, y->ld, step);
        }
        if (y->has_bias)
            step_rows(1, n, y->out, one, 0, d, ldd, b->model + y->bias, b->sums + y->bias - b->convolved,
                      b->start + y->bias, 0, step);
        if (l > 0) through(b->layer[l - 1].activation, n, y->in, below, ldh, b->h[l], ldh);
        d = below, ldd = ldh, below = next, next = d;
    }
    return d;
}

/* Add the weight gradients of one example, from the derivative d by the last convolution's pooled outputs. */
static void back_through_convolutions(Bench *b, int64_t e, const real *d) {
    const Convolution *c = &b->convolution[b->convolutions - 1];
    int64_t pixel = b->mean ? 0 : c->lanes, line = b->mean ? 0 : c->out_w * c->lanes;
    for (int64_t l = b->convolutions - 1; l >= 0; l--) {
        c = &b->convolution[l];
        const int8_t *code = b->code[l] + e * c->out_h * c->out_w * c->lanes;
        list_by_filter(c, d, pixel, line, code, b->lists, b->counts, b->gradient + c->bias);
        weigh(c, b->image[l] + e * c->image, b->lists, b->counts, b->gradient + c->weight);
        if (l == 0) return;
        const int64_t at_once = most(1, SLICE_BYTES / (c->rank * (int64_t)sizeof(real)));
        memset(b->derivative[l], 0, c->image * sizeof(real));
        for (int64_t f = 0; f < c->filters; f += at_once) {
            const int64_t count = least(at_once, c->filters - f);
            list_by_position(c, d, pixel, line, code, f, count, b->lists, b->counts);
            spread(c, b->model + c->weight + f * c->rank, b->lists, b->counts, count, b->derivative[l]);
        }
        d = b->derivative[l] + c->pad_h * c->line + c->pad_w * c->pixel, pixel = c->pixel, line = c->line;
    }
}

static void step_convolutions(Bench *b, Step *step) {
    static const ivec none = {0};
    for (int64_t l = 0; l < b->convolutions; l++) {
        const Convolution *c = &b->convolution[l];
        for (int64_t i = 0; i < c->kernel_h * c->filters; i++) {
            const int64_t at = c->weight + i * c->rank;
            step_along(c->rank / VL, b->model + at, b->gradient + at, b->start + at, b->keep[l], step);
        }
        for (int64_t f = 0; c->has_bias && f < c->lanes; f += VL) {
            const ivec keep = ~none & first_lanes(c->filters - f);
            step_along(1, b->model + c->bias + f, b->gradient + c->bias + f, b->start + c->bias + f, &keep, step);
        }
    }
    lay_out(b);
}

static int take_step(const Job *job, Bench *b, int64_t k, int64_t s, Step *step) {
    const int64_t *at = job->rows + job->rows_at[k] + s * job->batch, *end = at + job->counts[job->counts_at[k] + s];
    const int64_t outs = job->widths[job->layers], ld = padded(outs);
    const real weight = (real)1 / (real)(end - at);
    step->first = 1;
    step->gradient = step->distance = 0;
    memset(b->gradient, 0, b->convolved * sizeof(real));
    for (; at < end; step->first = 0) {
        const int64_t n = least(end - at, b->chunk);
        const int error = gather(job, b, at, n);
        if (error) return error;
        step->last = at + n == end;
        forward(b, n);
        real *z = b->h[b->layers];
        job->losses[k] += job->regression ? squared_error(n, outs, weight, job->targets, at, z, ld)
                                          : softmax_error(n, outs, weight, b->labels, z, ld, &job->wrong[k]);
        real *d = (real *)back_through_layers(b, n, step);
        const int64_t ldd = padded(b->layer[0].in);
        for (int64_t e = 0; e < n; e++, d += ldd) {
            for (int64_t i = 0; b->mean && i < ldd; i += VL) store(d + i, load(d + i) * ((real)1 / (real)b->positions));
            back_through_convolutions(b, e, d);
        }
        at += n;
    }
    step_convolutions(b, step);
    return 0;
}

/* ---- a client ---- */

/* Give each part of a bench its place from `at` on, or only count: return the bytes. */
static size_t place_parts(Bench *b, int64_t sums, char *at) {
    size_t bytes = 0;
#define PLACE(part, count)                                                              \
    do {                                                                                \
        if (at) (part) = (void *)(at + bytes);                                          \
        bytes += ((count) * sizeof(*(part)) + VECTOR_BYTES - 1) / 64 * 64 + 64;         \
    } while (0)
    PLACE(b->model, b->size);
    PLACE(b->start, b->size);
    PLACE(b->sums, sums);
    PLACE(b->gradient, b->convolved);
    for (int64_t l = 0; l < b->convolutions; l++) {
        const Convolution *c = &b->convolution[l];
        PLACE(b->filters[l], c->kernel_h * c->kernel_w * c->channels * c->lanes);
        PLACE(b->transformed[l], is_by_tiles(c) ? SQUARE * c->channels * c->lanes : 0);
        PLACE(b->image[l], b->chunk * c->image + VL); /* a line of a filter is read in whole vectors */
        PLACE(b->derivative[l], l ? c->image : 0);
        PLACE(b->code[l], b->chunk * c->out_h * c->out_w * c->lanes);
        PLACE(b->keep[l], c->rank / VL);
    }
    const Convolution *top = &b->convolution[b->convolutions - 1];
    PLACE(b->map, b->mean ? b->positions * top->lanes : 0);
    PLACE(b->convolved_z, b->z);
    PLACE(b->tiles, b->tile_work);
    PLACE(b->lists, b->entries);
    PLACE(b->counts, b->entries);
    PLACE(b->h[0], b->chunk * padded(b->layer[0].in));
    for (int64_t l = 0; l < b->layers; l++) PLACE(b->h[l + 1], b->chunk * padded(b->layer[l].out));
    PLACE(b->d, b->chunk * b->widest);
    PLACE(b->below, b->chunk * b->widest);
#undef PLACE
    return bytes;
}

static void *prepare(const void *argument) {
    const Job *job = argument;
    Bench plan = {
        .convolutions = job->convolutions, .layers = job->layers, .mean = job->mean, .chunk = least(job->batch, CHUNK)
    };
    plan_layers(job, &plan, plan_convolutions(job, &plan));
    const int64_t sums = job->batch > CHUNK ? plan.size - plan.convolved : 0;
    const size_t head = (sizeof(Bench) + 63) / 64 * 64, bytes = place_parts(&plan, sums, NULL);
    Bench *b = NULL;
    const int is_large = head + bytes >= PAGE;
    if (posix_memalign((void **)&b, is_large ? PAGE : 64, head + bytes)) return NULL;
#ifdef MADV_HUGEPAGE
    if (is_large) madvise(b, head + bytes, MADV_HUGEPAGE); /* a step goes through more small pages than a processor knows */
#endif
    memset(b, 0, head + bytes);
    *b = plan;
    place_parts(b, sums, (char *)b + head);
    for (int64_t l = 0; l < b->convolutions; l++) {
        const Convolution *c = &b->convolution[l];
        for (int64_t i = 0; i < c->run; i++)
            if (i % c->pixel < c->channels) b->keep[l][i / VL][i % VL] = -1;
    }
    pack(b, job->start, b->start);
    return b;
}

/* The distance of the model from the start. */
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
    memcpy(b->model, b->start, b->size * sizeof(real)); /* also the padding: another client's NaN may be in it */
    if (s < 0)
        s = 0;
    else
        pack(b, row, b->model);
    lay_out(b);
    Step step = {.placed = 0, .lr = (real)job->lr, .shrink = (real)job->shrink};
    int64_t measure = 0, place = 0; /* which measures come next */
    for (int64_t past = 1; past <= s; past++) measure += is_power(past), place += past <= job->exact_steps || is_power(past);
    for (const int64_t first = s; s < job->steps[k] && (s == first || !is_over(team));) {
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
    if (s == job->steps[k]) job->ends[k] = step.placed ? sqrt(step.distance) : distance_of(b);
    return 0;
}

/* Train the clients, in their order: the longest first. Returns an error or 0; after the job's `seconds` a client
 * pauses between two steps, and another call goes on. */
int fedscape_conv(const Job *job) {
    if (job->convolutions < 1 || job->convolutions > MOST_CONVOLUTIONS) return NO_MEMORY;
    if (job->layers < 1 || job->layers > MOST_LAYERS) return NO_MEMORY;
    Team team = {.job = job, .clients = job->clients, .prepare = prepare, .train = train};
    team.deadline = now() + (int64_t)(job->seconds * 1e9);
    return work_together(&team, job->threads);
}

int64_t fedscape_conv_job_bytes(void) { return sizeof(Job); }
