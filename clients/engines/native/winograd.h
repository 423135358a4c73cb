/* Convolutions of 5 x 5 by tiles of 2 x 2 outputs: Winograd's F(2 x 2, 5 x 5).
 *
 * A tile of 6 x 6 inputs and a filter become 36 numbers each, whose products, summed over channels, become the tile's
 * four outputs: 36 multiplications a channel instead of 100. The points are 0, 1, -1, 2, -2 and infinity. A number that
 * is not finite makes its whole tile so. Source: Lavin and Gray 2016.
 */
#ifndef FEDSCAPE_WINOGRAD_H
#define FEDSCAPE_WINOGRAD_H

#include "convolution.h"

enum { POINTS = 6, SQUARE = POINTS * POINTS, TILES = PIXELS, ENOUGH_CHANNELS = 8 };

/* Whether a convolution is computed by tiles; images below have aligned pixels. */
INLINE int is_by_tiles(const Convolution *c) {
    return c->kernel_h == 5 && c->kernel_w == 5 && c->stride == 1 && c->pool_h == 2 && c->pool_w == 2 &&
           c->pixel % VL == 0 && c->channels >= ENOUGH_CHANNELS;
}

INLINE void transform_inputs(const vec x[POINTS], vec y[POINTS]) {
    const vec even = x[4] - (real)4 * x[2], odd = x[3] - (real)4 * x[1];
    const vec even_at_2 = x[4] - x[2], odd_at_2 = (real)2 * (x[3] - x[1]);
    y[0] = (real)4 * x[0] - (real)5 * x[2] + x[4];
    y[1] = even + odd, y[2] = even - odd;
    y[3] = even_at_2 + odd_at_2, y[4] = even_at_2 - odd_at_2;
    y[5] = (real)4 * x[1] - (real)5 * x[3] + x[5];
}

INLINE void transform_filter(const vec g[5], vec y[POINTS]) {
    const vec even = g[0] + g[2] + g[4], odd = g[1] + g[3];
    const vec even_at_2 = g[0] + (real)4 * g[2] + (real)16 * g[4], odd_at_2 = (real)2 * g[1] + (real)8 * g[3];
    y[0] = (real)0.25 * g[0];
    y[1] = ((real)-1 / 6) * (even + odd), y[2] = ((real)-1 / 6) * (even - odd);
    y[3] = ((real)1 / 24) * (even_at_2 + odd_at_2), y[4] = ((real)1 / 24) * (even_at_2 - odd_at_2);
    y[5] = g[4];
}

INLINE void transform_outputs(const vec m[POINTS], vec y[2]) {
    y[0] = m[0] + (m[1] + m[2]) + (m[3] + m[4]);
    y[1] = (m[1] - m[2]) + (real)2 * (m[3] - m[4]) + m[5];
}

/* Transform filters that `lay_filters_out` has laid out: panels [SQUARE][channels][2 VL]. */
static void transform_filters(const Convolution *c, const real *panels, real *to) {
    for (int64_t f = 0; f < c->lanes; f += 2 * VL) {
        const int64_t wide = least(2 * VL, c->lanes - f);
        const real *from = panels + f * 25 * c->channels;
        for (int64_t at = 0; at < c->channels * wide; at += VL) {
            vec half[5][POINTS];
            for (int x = 0; x < 5; x++) {
                vec g[5];
                UNROLL for (int y = 0; y < 5; y++) g[y] = load(from + (y * 5 + x) * c->channels * wide + at);
                transform_filter(g, half[x]);
            }
            for (int y = 0; y < POINTS; y++) {
                const vec g[5] = {half[0][y], half[1][y], half[2][y], half[3][y], half[4][y]};
                vec whole[POINTS];
                transform_filter(g, whole);
                UNROLL for (int x = 0; x < POINTS; x++)
                    store(to + f * SQUARE * c->channels + (y * POINTS + x) * c->channels * wide + at, whole[x]);
            }
        }
    }
}

/* Transform the inputs of tile t: numbers [SQUARE][TILES][pixel]. */
INLINE void transform_tile(const Convolution *c, const real *image, int64_t t, real *to) {
    const real *from = image + t / c->out_w * 2 * c->line + t % c->out_w * 2 * c->pixel;
    for (int64_t i = 0; i < c->pixel; i += VL) {
        vec half[POINTS][POINTS];
        for (int x = 0; x < POINTS; x++) {
            vec line[POINTS];
            UNROLL for (int y = 0; y < POINTS; y++) line[y] = load(from + y * c->line + x * c->pixel + i);
            transform_inputs(line, half[x]);
        }
        for (int y = 0; y < POINTS; y++) {
            const vec line[] = {half[0][y], half[1][y], half[2][y], half[3][y], half[4][y], half[5][y]};
            vec whole[POINTS];
            transform_inputs(line, whole);
            UNROLL for (int x = 0; x < POINTS; x++) store(to + (y * POINTS + x) * TILES * c->pixel + i, whole[x]);
        }
    }
}

/* products[point][tile][2 VL] = the sums over channels */
INLINE void multiply_tiles(int tiles, int cols, const Convolution *c, const real *inputs, const real *filters,
                           real *products) {
    for (int64_t point = 0; point < SQUARE; point++) {
        vec sums[PIXELS][2];
        UNROLL for (int t = 0; t < tiles; t++)
            for (int v = 0; v < cols; v++) sums[t][v] = (vec){0};
        add_products(tiles, cols, c->channels, inputs + point * TILES * c->pixel, c->pixel, 1,
                     filters + point * c->channels * cols * VL, cols * VL, sums);
        UNROLL for (int t = 0; t < tiles; t++)
            for (int v = 0; v < cols; v++) store(products + ((point * TILES + t) * 2 + v) * VL, sums[t][v]);
    }
}

INLINE void store_tile(const Convolution *c, const real *products, vec bias, int64_t t, real *z) {
    const int64_t line = 2 * c->out_w * c->lanes;
    vec half[2][POINTS];
    for (int y = 0; y < POINTS; y++) {
        vec m[POINTS], out[2];
        UNROLL for (int x = 0; x < POINTS; x++) m[x] = load(products + (y * POINTS + x) * TILES * 2 * VL);
        transform_outputs(m, out);
        half[0][y] = out[0], half[1][y] = out[1];
    }
    z += t / c->out_w * 2 * line + t % c->out_w * 2 * c->lanes;
    for (int x = 0; x < 2; x++) {
        vec out[2];
        transform_outputs(half[x], out);
        store(z + x * c->lanes, out[0] + bias);
        store(z + line + x * c->lanes, out[1] + bias);
    }
}

/* Compute what `convolve` does. `work` holds SQUARE x TILES x (pixel + 2 VL) numbers. */
static void convolve_by_tiles(const Convolution *c, const real *image, const real *filters, const real *bias, real *z,
                              real *work) {
    const int64_t tiles = c->out_h * c->out_w;
    real *products = work + SQUARE * TILES * c->pixel;
    for (int64_t from = 0, count; from < tiles; from += count) {
        count = pixels_of(tiles - from);
        for (int64_t t = 0; t < count; t++) transform_tile(c, image, from + t, work + t * c->pixel);
        for (int64_t f = 0; f < c->lanes; f += 2 * VL) {
            const int cols = f + VL < c->lanes ? 2 : 1;
            const real *panel = filters + f * SQUARE * c->channels;
#define TWO(T) multiply_tiles(T, 2, c, work, panel, products)
#define ONE(T) multiply_tiles(T, 1, c, work, panel, products)
            if (cols == 2) EACH_PIXELS(count, TWO) else EACH_PIXELS(count, ONE)
#undef TWO
#undef ONE
            for (int64_t t = 0; t < count; t++)
                for (int v = 0; v < cols; v++)
                    store_tile(c, products + (t * 2 + v) * VL, load(bias + f + v * VL), from + t, z + f + v * VL);
        }
    }
}

#endif
