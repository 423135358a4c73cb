/* Sums of products in registers, and the step of SGD that is fused into the weight gradient. */
#ifndef FEDSCAPE_PRODUCTS_H
#define FEDSCAPE_PRODUCTS_H

#include "vectors.h"

#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define ROWS_IN_REGISTERS 10
#else
#define ROWS_IN_REGISTERS 5
#endif
enum { ROWS = ROWS_IN_REGISTERS }; /* rows of a block of sums: two vectors of each stay in registers */

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
                          const real *first, int64_t ldf, real *out, int64_t ldo) {
    vec sums[ROWS][2];
    UNROLL for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) sums[r][c] = first ? load(first + r * ldf + c * VL) : (vec){0};
    add_products(rows, cols, n, a, lda, 1, m, ldm, sums);
    UNROLL for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) store(out + r * ldo + c * VL, sums[r][c]);
}

/* out[r, :] = first[r, :] + sum over k < n of a[r, k] m[k, :]; the rows of `first` (or NULL) are `ldf` apart */
static void product(int64_t rows, int64_t n, int64_t width, const real *a, int64_t lda, const real *m, int64_t ldm,
                    const real *first, int64_t ldf, real *out, int64_t ldo) {
    for (int64_t r = 0, step; r < rows; r += step) {
        step = block_of(rows - r);
        int64_t c = 0;
#define TWO(R) \
    product_block(R, 2, n, a + r * lda, lda, m + c, ldm, first ? first + r * ldf + c : 0, ldf, out + r * ldo + c, ldo)
#define ONE(R) \
    product_block(R, 1, n, a + r * lda, lda, m + c, ldm, first ? first + r * ldf + c : 0, ldf, out + r * ldo + c, ldo)
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

/* Whether a step (from 1) is 1, 2, 4, 8, ... */
INLINE int is_power(int64_t step) { return (step & (step - 1)) == 0; }

#endif
