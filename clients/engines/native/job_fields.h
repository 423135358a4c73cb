/* The fields that the jobs of all kernels end with, included within their structs: `SHARED_FIELDS` of kernel.py, in the
 * same order. K clients, P parameters. */
int64_t regression;
const void *features;      /* [examples, inputs], rows `feature_stride` apart, of `feature_bytes` (4 or 8) each */
int64_t examples, feature_stride, feature_bytes;
const void *targets;       /* int64 [examples], or real [examples, outputs] */
int64_t clients, batch, num_params;
const int64_t *rows;       /* client k: [steps[k], batch] from rows_at[k] */
const int64_t *rows_at;    /* [K] */
const int64_t *counts;     /* client k: [steps[k]] from counts_at[k] */
const int64_t *counts_at;  /* [K] */
const int64_t *steps;      /* [K] */
const real *start;         /* [P] */
real *params;              /* [K, P]; written before they are read */
double lr, shrink;         /* w <- shrink w - lr gradient */
int64_t *done;             /* [K], steps taken; -1 before the first call */
double *losses;            /* [K], sums over examples */
int64_t *wrong;            /* [K], wrongly classified examples */
double *gradients;         /* [measured, K], squared norms at steps 1, 2, 4, 8, ... */
double *distances;         /* [placed, K], from the start after steps 1, 2, ..., 16, 32, 64, ... */
double *ends;              /* [K], the distance after the last step */
int64_t exact_steps;       /* 16 */
int64_t threads;
double seconds;            /* after which the call returns, with the work as far as it is */
