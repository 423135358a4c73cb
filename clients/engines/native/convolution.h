/* One convolution, ReLU and max-pooling of one example, forwards and backwards, with channels last.
 *
 * ReLU comes after the pool, which gives the same numbers. An output remembers the place of its window's maximum, or
 * that ReLU closed it. So the derivative by the convolution's own outputs, of which a pool of 2 x 2 and ReLU leave a
 * quarter or less, is a list: both backward passes multiply its members alone. In the weight gradient the numbers of a filter's
 * rows stay in registers and the list runs over positions; in the derivative by the inputs those of an input's line
 * stay in registers and the list runs over filters.
 */
#ifndef FEDSCAPE_CONVOLUTION_H
#define FEDSCAPE_CONVOLUTION_H

#include "products.h"

#if ROWS_IN_REGISTERS == 10
#define PIXELS_IN_REGISTERS 14
#else
#define PIXELS_IN_REGISTERS 6
#endif
enum { PIXELS = PIXELS_IN_REGISTERS }; /* outputs beside each other whose sums, two vectors each, stay in registers */
enum { SLICE_BYTES = 20480 };          /* of weights that stay in the nearest cache */

typedef struct {
    int64_t channels, height, width; /* of the input, without its border of zeros */
    int64_t filters, kernel_h, kernel_w, stride, pad_h, pad_w, pool_h, pool_w, relu, has_bias;
    int64_t out_h, out_w;            /* of the pooled output */
    int64_t pixel, line, image;      /* reals from a pixel of the kept input to the next, to the next line, in all */
    int64_t lanes;                   /* filters, padded */
    int64_t run, rank;               /* reals of a line of a filter, kernel_w x pixel; the same padded */
    int64_t weight, bias;            /* places in a kept model: [kernel_h][filters][rank] and [lanes] */
    int64_t flat_weight, flat_bias;  /* places in a row of parameters */
    int64_t places[4];               /* of the positions in a window, as distances in the kept input */
} Convolution;

/* A number of a sparse derivative: where it applies, as a distance in reals, and its value. */
typedef struct {
    word at;
    real value;
} Entry;

typedef int8_t codes __attribute__((vector_size(VL), aligned(1), may_alias)); /* places in windows; -1: closed by ReLU */

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- forwards ---- */

/* Lay filters out for `convolve`: panels of two vectors of filters, [kernel_h][kernel_w][channels][2 VL] each. */
static void lay_filters_out(const Convolution *c, const real *w, real *panels) {
    const int64_t n = c->kernel_h * c->kernel_w * c->channels;
    for (int64_t from = 0; from < c->filters; from += 2 * VL) {
        const int64_t wide = least(2 * VL, c->lanes - from), count = least(wide, c->filters - from);
        real *to = panels + from * n;
        for (int64_t ky = 0; ky < c->kernel_h; ky++)
            for (int64_t kx = 0; kx < c->kernel_w; kx++)
                for (int64_t i = 0; i < c->channels; i++, to += wide) {
                    const real *at = w + (ky * c->filters + from) * c->rank + kx * c->pixel + i;
                    for (int64_t f = 0; f < count; f++) to[f] = at[f * c->rank];
                }
    }
}

INLINE void convolve_block(int pixels, int cols, const Convolution *c, const real *x, const real *w, const real *bias,
                           real *z) {
    vec sums[PIXELS][2];
    UNROLL for (int p = 0; p < pixels; p++)
        for (int v = 0; v < cols; v++) sums[p][v] = load(bias + v * VL);
    const int whole = c->channels == c->pixel; /* pixels without padding: a line is one sum */
    const int64_t sums_in_line = whole ? 1 : c->kernel_w, n = whole ? c->run : c->channels;
    for (int64_t ky = 0; ky < c->kernel_h; ky++)
        for (int64_t kx = 0; kx < sums_in_line; kx++, w += n * cols * VL)
            add_products(pixels, cols, n, x + ky * c->line + kx * c->pixel, c->stride * c->pixel, 1, w, cols * VL, sums);
    UNROLL for (int p = 0; p < pixels; p++)
        for (int v = 0; v < cols; v++) store(z + p * c->lanes + v * VL, sums[p][v]);
}

/* The outputs of the next block, where `left` are left: few lengths, since each is compiled apart. */
INLINE int pixels_of(int64_t left) {
    if (left >= PIXELS) return PIXELS;
    if (PIXELS > 10 && left >= 10) return 10;
    if (PIXELS > 7 && left >= 7 && left != 8) return 7;
    return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* Call for the number of outputs of a block, one of those that `pixels_of` returns. */
#if PIXELS_IN_REGISTERS == 14
#define CASES_OF_MANY(call) case 7: call(7); break; case 10: call(10); break;
#else
#define CASES_OF_MANY(call)
#endif
#define EACH_PIXELS(pixels, call) \
    switch (pixels) {             \
    case 1: call(1); break;       \
    case 2: call(2); break;       \
    case 4: call(4); break;       \
    CASES_OF_MANY(call)           \
    default: call(PIXELS);        \
    }

/* z[y][x][lanes] = the convolution of an image at the positions that the pool reads. */
static void convolve(const Convolution *c, const real *image, const real *panels, const real *bias, real *z) {
    const int64_t n = c->kernel_h * c->kernel_w * c->channels;
    const int64_t high = c->out_h * c->pool_h, wide = c->out_w * c->pool_w;
    for (int64_t f = 0; f < c->lanes; f += 2 * VL)
        for (int64_t y = 0; y < high; y++)
            for (int64_t from = 0, pixels; from < wide; from += pixels) {
                pixels = pixels_of(wide - from);
                const real *x = image + y * c->stride * c->line + from * c->stride * c->pixel;
                real *to = z + (y * wide + from) * c->lanes + f;
#define TWO(P) convolve_block(P, 2, c, x, panels + f * n, bias + f, to)
#define ONE(P) convolve_block(P, 1, c, x, panels + f * n, bias + f, to)
                if (f + VL < c->lanes) EACH_PIXELS(pixels, TWO) else EACH_PIXELS(pixels, ONE)
#undef TWO
#undef ONE
            }
}

/* Pool z, apply ReLU, and keep the place of each maximum: the first, as in torch, where NaN is the largest. */
static void pool(const Convolution *c, const real *z, real *out, int64_t pixel, int64_t line, int8_t *code) {
    const int64_t wide = c->out_w * c->pool_w;
    const ivec last = first_lanes(c->filters - (c->lanes - VL)), every = first_lanes(VL);
    for (int64_t y = 0; y < c->out_h; y++)
        for (int64_t x = 0; x < c->out_w; x++, code += c->lanes) {
            const real *window = z + (y * c->pool_h * wide + x * c->pool_w) * c->lanes;
            for (int64_t f = 0; f < c->lanes; f += VL) {
                vec best = load(window + f);
                ivec place = {0};
                for (int64_t i = 1; i < c->pool_h * c->pool_w; i++) {
                    const vec other = load(window + (i / c->pool_w * wide + i % c->pool_w) * c->lanes + f);
                    const ivec more = (other > best) | (other != other);
                    best = choose(more, other, best);
                    place = (more & (word)i) | (~more & place);
                }
                if (c->relu) {
                    place |= best <= (vec){0};
                    best = choose(best < (vec){0}, (vec){0}, best);
                }
                best = (vec)((ivec)best & (f == c->lanes - VL ? last : every));
                store(out + y * line + x * pixel + f, best);
                *(codes *)(code + f) = __builtin_convertvector(place, codes);
            }
        }
}

/* ---- backwards ---- */

/* List the derivative d of the pooled output by filters: lists [filters][positions], their lengths, and its sums. */
static void list_by_filter(const Convolution *c, const real *d, int64_t pixel, int64_t line, const int8_t *code,
                           Entry *lists, int64_t *counts, real *sums) {
    const int64_t positions = c->out_h * c->out_w;
    memset(counts, 0, c->filters * sizeof(int64_t));
    for (int64_t y = 0; y < c->out_h; y++)
        for (int64_t x = 0; x < c->out_w; x++, code += c->lanes) {
            const real *by = d + y * line + x * pixel;
            const int64_t base = c->stride * (y * c->pool_h * c->line + x * c->pool_w * c->pixel);
            word places[4]; /* a closed output is not kept: the next one writes over it */
            for (int i = 0; i < 4; i++) places[i] = (word)(base + c->places[i]);
            for (int64_t f = 0; f < c->lanes; f += VL) {
                const ivec open = __builtin_convertvector(*(const codes *)(code + f), ivec) >= 0;
                store(sums + f, load(sums + f) + (vec)(open & (ivec)load(by + f)));
            }
            for (int64_t f = 0; f < c->filters; f++) {
                lists[f * positions + counts[f]] = (Entry){places[code[f] & 3], by[f]};
                counts[f] += code[f] >= 0;
            }
        }
}

/* Lines of a filter whose sums, `wide` vectors each, stay in registers. */
INLINE int lines_at_once(int64_t wide) { return wide > 4 ? 2 : ROWS < 10 ? (wide > 2 ? 2 : 3) : 5; }

/* g[line][vector] += the list's values times the image's lines below their places */
INLINE void weigh_block(int lines, int cols, int64_t n, const Entry *list, const real *x, int64_t line, real *g,
                        int64_t ldg) {
    vec sums[5][10];
    UNROLL for (int r = 0; r < lines; r++)
        UNROLL for (int v = 0; v < cols; v++) sums[r][v] = load(g + r * ldg + v * VL);
    for (int64_t i = 0; i < n; i++) {
        const real *from = x + list[i].at, value = list[i].value;
        UNROLL for (int r = 0; r < lines; r++)
            UNROLL for (int v = 0; v < cols; v++)
                sums[r][v] += value * *(const loose_vec *)(from + r * line + v * VL);
    }
    UNROLL for (int r = 0; r < lines; r++)
        UNROLL for (int v = 0; v < cols; v++) store(g + r * ldg + v * VL, sums[r][v]);
}

/* Add an example's weight gradient to g [kernel_h][filters][rank]. */
static void weigh(const Convolution *c, const real *image, const Entry *lists, const int64_t *counts, real *g) {
    const int64_t positions = c->out_h * c->out_w, ldg = c->filters * c->rank;
    for (int64_t f = 0; f < c->filters; f++) {
        const Entry *list = lists + f * positions;
        for (int64_t at = 0, wide; at < c->rank; at += wide * VL) {
            const int64_t left = (c->rank - at) / VL;
            wide = ROWS == 10 && left >= 10 ? 10 : left >= 5 && left % 5 == 0 ? 5 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            for (int64_t ky = 0, lines; ky < c->kernel_h; ky += lines) {
                const real *x = image + ky * c->line + at;
                real *to = g + (ky * c->filters + f) * c->rank + at;
                lines = c->kernel_h - ky >= lines_at_once(wide) ? lines_at_once(wide) : c->kernel_h - ky > 1 ? 2 : 1;
#define BLOCK(L, W) weigh_block(L, W, counts[f], list, x, c->line, to, ldg)
#define LINES(W)                                        \
    switch (lines) {                                    \
    case 1: BLOCK(1, W); break;                         \
    case 2: BLOCK(2, W); break;                         \
    default: if (W < 5) BLOCK(lines_at_once(W), W);     \
    }
                if (wide == 10) LINES(10)
                else if (wide == 5) LINES(5)
                else if (wide == 4) LINES(4)
                else if (wide == 2) LINES(2)
                else LINES(1)
#undef LINES
#undef BLOCK
            }
        }
    }
}

/* List the derivative d by positions and by places in their windows, for some filters: lists [positions][pool][count]. */
static void list_by_position(const Convolution *c, const real *d, int64_t pixel, int64_t line, const int8_t *code,
                             int64_t from, int64_t count, Entry *lists, int64_t *counts) {
    const int64_t windows = c->pool_h * c->pool_w;
    for (int64_t y = 0; y < c->out_h; y++)
        for (int64_t x = 0; x < c->out_w; x++, code += c->lanes, lists += windows * count, counts += windows) {
            const real *by = d + y * line + x * pixel;
            int64_t lengths[5] = {0}; /* those of closed outputs are not kept: the next position writes over them */
            for (int64_t f = from; f < from + count; f++) {
                const int64_t place = code[f] < 0 ? windows : code[f];
                lists[place * count + lengths[place]++] = (Entry){(word)((f - from) * c->rank), by[f]};
            }
            for (int64_t i = 0; i < windows; i++) counts[i] = lengths[i];
        }
}

INLINE void spread_block(int cols, int64_t n, const Entry *list, const real *w, real *to) {
    vec sums[12];
    UNROLL for (int v = 0; v < cols; v++) sums[v] = load(to + v * VL);
    for (int64_t i = 0; i < n; i++) {
        const real *from = w + list[i].at, value = list[i].value;
        UNROLL for (int v = 0; v < cols; v++) sums[v] += value * load(from + v * VL);
    }
    UNROLL for (int v = 0; v < cols; v++) store(to + v * VL, sums[v]);
}

/* Add the derivative by the image, some filters' share; w is the first line of the first of them. */
static void spread(const Convolution *c, const real *w, const Entry *lists, const int64_t *counts, int64_t count,
                   real *image) {
    const int64_t windows = c->pool_h * c->pool_w;
    for (int64_t ky = 0; ky < c->kernel_h; ky++, w += c->filters * c->rank) {
        const Entry *list = lists;
        const int64_t *n = counts;
        for (int64_t y = 0; y < c->out_h; y++)
            for (int64_t x = 0; x < c->out_w; x++)
                for (int64_t i = 0; i < windows; i++, n++, list += count) {
                    if (!*n) continue;
                    real *to = image + c->stride * (y * c->pool_h * c->line + x * c->pool_w * c->pixel) + c->places[i] + ky * c->line;
                    for (int64_t at = 0, wide; at < c->rank; at += wide * VL) {
                        const int64_t left = (c->rank - at) / VL;
#define BLOCK(W) spread_block(W, *n, list, w + at, to + at)
                        if (left >= 10) wide = 10, BLOCK(10);
                        else if (left >= 6) wide = 6, BLOCK(6);
                        else if (left >= 4) wide = 4, BLOCK(4);
                        else if (left >= 2) wide = 2, BLOCK(2);
                        else wide = 1, BLOCK(1);
#undef BLOCK
                    }
                }
    }
}

/* Step n vectors of weights along their gradient g, whose lanes outside `keep` (of n reals) do not count. */
static void step_along(int64_t n, real *w, const real *g, const real *start, const ivec *keep, Step *step) {
    vec gradient = {0}, distance = {0};
    for (int64_t i = 0; i < n; i++) {
        const vec along = (vec)((ivec)load(g + i * VL) & keep[i]);
        const vec moved = load(w + i * VL) * step->shrink - step->lr * along;
        store(w + i * VL, moved);
        if (!step->placed) continue;
        const vec away = moved - load(start + i * VL);
        gradient += along * along;
        distance += away * away;
    }
    if (step->measured) step->gradient += sum_of(gradient);
    if (step->placed) step->distance += sum_of(distance);
}

#endif
