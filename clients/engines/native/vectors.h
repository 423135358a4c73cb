/* Vectors of the processor's width, and elementary functions on them. NaN and infinities pass through.
 *
 * `real` is float, or double with -DREAL_IS_DOUBLE. VL is the number of reals in a vector.
 */
#ifndef FEDSCAPE_VECTORS_H
#define FEDSCAPE_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#ifdef REAL_IS_DOUBLE
typedef double real;
typedef int64_t word;
#define VL (VECTOR_BYTES / 8)
#define MANTISSA 52
#define BIAS 1023
#define EXP_TERMS 13
#define EXP_LOW -746.0
#define EXP_HIGH 710.0
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define ROUNDER 6755399441055744.0 /* 1.5 * 2^52: adding it rounds to a whole number in the low bits */
#define LOG_TERMS 11
#else
typedef float real;
typedef int32_t word;
#define VL (VECTOR_BYTES / 4)
#define MANTISSA 23
#define BIAS 127
#define EXP_TERMS 7
#define EXP_LOW -104.0f
#define EXP_HIGH 89.0f
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define ROUNDER 12582912.0f /* 1.5 * 2^23 */
#define LOG_TERMS 6
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef real loose_vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
typedef word ivec __attribute__((vector_size(VECTOR_BYTES), may_alias));

#define INLINE static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("GCC unroll 16")

INLINE vec load(const real *p) { return *(const vec *)p; }
INLINE void store(real *p, vec v) { *(vec *)p = v; }
INLINE vec all(real x) { return x - (vec){0}; }
INLINE vec choose(ivec where, vec yes, vec no) { return (vec)((where & (ivec)yes) | (~where & (ivec)no)); }

/* Return the least multiple of VL that is >= n. */
INLINE int64_t padded(int64_t n) { return (n + VL - 1) / VL * VL; }

/* Return a mask of the first `count` lanes, all of them for count >= VL. */
INLINE ivec first_lanes(int64_t count) {
    static const word lanes[] __attribute__((aligned(VECTOR_BYTES))) = {0, 1, 2,  3,  4,  5,  6,  7,
                                                                        8, 9, 10, 11, 12, 13, 14, 15};
    return *(const ivec *)lanes < (word)count;
}

#ifdef __clang__
#define PERMUTE(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
#define PERMUTE(v, ...) __builtin_shuffle(v, (ivec){__VA_ARGS__})
#endif
#if VL == 16
#define FOLD(v, op)                                                              \
    v = op(v, PERMUTE(v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)); \
    v = op(v, PERMUTE(v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)); \
    v = op(v, PERMUTE(v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)); \
    v = op(v, PERMUTE(v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14))
#elif VL == 8
#define FOLD(v, op)                                      \
    v = op(v, PERMUTE(v, 4, 5, 6, 7, 0, 1, 2, 3));       \
    v = op(v, PERMUTE(v, 2, 3, 0, 1, 6, 7, 4, 5));       \
    v = op(v, PERMUTE(v, 1, 0, 3, 2, 5, 4, 7, 6))
#elif VL == 4
#define FOLD(v, op)                    \
    v = op(v, PERMUTE(v, 2, 3, 0, 1)); \
    v = op(v, PERMUTE(v, 1, 0, 3, 2))
#else
#define FOLD(v, op) v = op(v, PERMUTE(v, 1, 0))
#endif

INLINE vec added(vec a, vec b) { return a + b; }
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }

INLINE real sum_of(vec v) {
    FOLD(v, added);
    return v[0];
}

INLINE real largest_of(vec v) { /* where no lane is NaN */
    FOLD(v, larger);
    return v[0];
}

INLINE vec power_of_two(ivec n) { return (vec)((n + BIAS) << MANTISSA); }

/* exp by its series at |r| <= ln(2) / 2, scaled by powers of two in two steps, so that subnormal results are right. */
INLINE vec exp_of(vec x) {
    static const real inverse_factorial[] = {
        1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
        1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800,
    };
    x = choose(x > all(EXP_HIGH), all(EXP_HIGH), x);
    x = choose(x < all(EXP_LOW), all(EXP_LOW), x);
    vec rounded = x * (real)1.4426950408889634 + ROUNDER;
    ivec n = (ivec)rounded - (ivec)all(ROUNDER);
    vec whole = rounded - ROUNDER;
    vec r = x - whole * (real)LN2_HIGH - whole * (real)LN2_LOW;
    vec y = all(inverse_factorial[EXP_TERMS]);
    UNROLL for (int i = EXP_TERMS - 1; i >= 0; i--) y = y * r + inverse_factorial[i];
    ivec half = n >> 1;
    return y * power_of_two(half) * power_of_two(n - half);
}

/* log of finite normal x > 0; NaN stays NaN. 2 artanh((m - 1) / (m + 1)) with m between sqrt(1/2) and sqrt(2). */
INLINE vec log_of(vec x) {
    ivec bits = (ivec)x;
    ivec exponent = (bits >> MANTISSA) - BIAS;
    vec m = (vec)((bits & (((word)1 << MANTISSA) - 1)) | ((word)BIAS << MANTISSA));
    ivec large = m > all((real)1.4142135623730951);
    m = choose(large, m * (real)0.5, m);
    exponent -= large; /* -1 where true */
    vec f = (m - (real)1) / (m + (real)1), ff = f * f, series = all((real)1 / (2 * LOG_TERMS + 1));
    UNROLL for (int i = LOG_TERMS - 1; i >= 0; i--) series = series * ff + (real)1 / (2 * i + 1);
    vec e = __builtin_convertvector(exponent, vec);
    return (e * (real)LN2_HIGH + (e * (real)LN2_LOW + (f + f) * series)) + (x - x);
}

INLINE vec sigmoid_of(vec x) { return (real)1 / ((real)1 + exp_of(-x)); }

/* tanh, by a rational function near 0 (Cephes) and by exp elsewhere. */
INLINE vec tanh_of(vec x) {
    const word sign_bit = (word)((uint64_t)1 << (8 * sizeof(real) - 1));
    vec size = (vec)((ivec)x & ~sign_bit), z = x * x;
    vec p = (z * (real)-9.64399179425052238628e-1 - (real)9.92877231001918586564e1) * z - (real)1.61468768441708447952e3;
    vec q = ((z + (real)1.12811678491632931402e2) * z + (real)2.23548839060100448583e3) * z +
            (real)4.84406305325125486048e3;
    vec far = (real)1 - (real)2 / (exp_of(size + size) + (real)1);
    far = (vec)((ivec)far | ((ivec)x & sign_bit));
    return choose(size < all((real)0.625), x + x * z * (p / q), far);
}

#endif
