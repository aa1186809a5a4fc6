/* Own kernels of the CUDA backend: everything in a step but the large products and the exchange.
 *
 * One struct of arguments a kernel, one launcher each. A launcher queues on the stream and waits
 * for nothing; it returns 0 or the cudaError_t of the launch, allocates nothing, and may be called
 * in a capture. All pointers are device memory unless said otherwise; tensors are row-major and
 * dense ([rows, width], no padding between rows), float32, and every size is at least 1 where
 * nothing else is said. Nothing here is collective.
 *
 * What changes from step to step is read on the device, from lks_device_state, so that a captured
 * step can be replayed: the host fills `orders` ahead, one a step, and the update kernel moves on
 * to the next. What is fixed at capture (shapes, places) are arguments.
 *
 * Results do not depend on timing: sums are made in an order that the shapes alone decide, and
 * atomics act on integers only. */
#ifndef LKS_BACKEND_CUDA_KERNELS_H
#define LKS_BACKEND_CUDA_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"
#include "data/feed.h"
#include "model/activation.h"
#include "model/loss.h"
#include "model/optimizer.h"
#include "plan/control.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* what a cudaStream_t points at: this header needs no CUDA */

/* ---- what the device knows of a step */

/* One step, as the host orders it. */
typedef struct lks_step_order {
  int64_t step;               /* from 1: the key of dropout masks, and what is published */
  int64_t rows;               /* live rows of this rank's share; 0 where its vote is `failed` */
  int64_t global_rows;        /* of the whole batch: gradients are divided by it */
  lks_places places;          /* where an adopted table's rows are; unused with staged rows */
  lks_update update;          /* lks_optimizer_update(optimizer, step) */
  int32_t stop, save, failed; /* this rank's votes: 0 or 1 */
} lks_step_order;

/* How many steps may be ordered ahead of the one that runs. */
#define LKS_ORDER_SLOTS 64

/* One a stream of steps: a training state, and another for evaluation (whose `done` stays 0, so
 * that each block takes orders[0]). All zero bytes is a fresh one. The host writes `orders` by
 * copies on the step's own stream (or ordered before it by an event); all else is the kernels'. */
typedef struct lks_device_state {
  int64_t done;   /* steps completed; the running one's order is orders[done % LKS_ORDER_SLOTS] */
  int32_t halted; /* a summed control block said failed or not finite: no update ever again */
  int32_t not_finite;      /* seen so far in this step, by this rank */
  int32_t not_finite_next; /* seen in this step's new parameters */
  uint32_t tickets[2]; /* blocks that are done: of seal, of update; back at 0 after each launch */
  lks_step_order orders[LKS_ORDER_SLOTS];
} lks_device_state;

/* The rows that a kernel works on. `rows` is the fixed height of the tensors, at least the order's
 * live rows; those beyond the live ones are dead: zeros, no gradient, no sums. */
typedef struct lks_row_block {
  const lks_device_state *state;
  int64_t rows;
} lks_row_block;

/* ---- rows in */

/* features[rows, inputs] and targets[rows, target_columns] of a block, dead rows zeroed, and
 * row_ids[rows] (positions in the training set, -1 for dead rows; NULL: not wanted).
 * With `adopted`, the tables are whole and row k of the share is found by the order's places.
 * Else they hold this rank's share in order (row k at k * width), staged_ids[share] its ids (NULL:
 * row_ids are k). table_targets NULL: there are none, targets is left alone. */
typedef struct lks_gather_args {
  lks_row_block block;
  const float *table_features, *table_targets;
  const int64_t *staged_ids;
  float *features, *targets;
  int64_t *row_ids;
  int64_t inputs, target_columns;
  bool adopted;
} lks_gather_args;
int lks_gather_cuda(const lks_gather_args *args, struct CUstream_st *stream);

/* ---- forward and backward, pointwise */

/* y = f(in + bias), all [rows, width]. bias [width] or NULL; y may be in. z: where in + bias is
 * kept for a derivative that needs it; NULL: not kept; may be in. Softmax acts on rows. */
typedef struct lks_activate_args {
  const float *in, *bias;
  float *z, *y;
  int64_t rows, width;
  lks_activation_id id;
  float parameter; /* lks_activation's */
} lks_activate_args;
int lks_activate_cuda(const lks_activate_args *args, struct CUstream_st *stream);

/* gradient *= f'(y, z) in place, [rows, width] each. Only z is read where f' needs it
 * (lks_activation_row.needs_input), else only y; the other may be NULL. */
typedef struct lks_derive_args {
  const float *y, *z;
  float *gradient;
  int64_t rows, width;
  lks_activation_id id;
  float parameter;
} lks_derive_args;
int lks_derive_cuda(const lks_derive_args *args, struct CUstream_st *stream);

/* mask [rows, width] bytes 0 or 1, out = in * mask / (1 - rate); out may be in. Bit-equal to the
 * CPU's masks. key: lks_random_key(seed, LKS_PURPOSE_DROPOUT, layer). row_ids [rows]: what gather
 * left. Dead rows get mask 0. */
typedef struct lks_dropout_args {
  lks_row_block block;
  const int64_t *row_ids;
  const float *in;
  float *out;
  unsigned char *mask;
  int64_t width;
  uint64_t key;
  float rate;
} lks_dropout_args;
int lks_dropout_cuda(const lks_dropout_args *args, struct CUstream_st *stream);

/* gradient *= mask / (1 - rate), in place, [rows, width]. */
typedef struct lks_undrop_args {
  const unsigned char *mask;
  float *gradient;
  int64_t rows, width;
  float rate;
} lks_undrop_args;
int lks_undrop_cuda(const lks_undrop_args *args, struct CUstream_st *stream);

/* sums[width] = sum over rows of in[rows, width]: a bias gradient. */
typedef struct lks_column_sums_args {
  const float *in;
  float *sums;
  int64_t rows, width;
} lks_column_sums_args;
int lks_column_sums_cuda(const lks_column_sums_args *args, struct CUstream_st *stream);

/* ---- dense layers for which cuBLASLt has nothing: any shape, fp32, plain tiles
 *
 * x [rows, inputs], w [inputs, outputs], y, z and dz [rows, outputs]. The activation is fused, but
 * softmax: that is its own launch, with LKS_ACT_LINEAR here. */

/* y = f(x w + bias). bias [outputs] or NULL; z: where x w + bias is kept, or NULL. */
typedef struct lks_dense_forward_args {
  const float *x, *w, *bias;
  float *z, *y;
  int64_t rows, inputs, outputs;
  lks_activation_id id;
  float parameter;
} lks_dense_forward_args;
int lks_dense_forward_cuda(const lks_dense_forward_args *args, struct CUstream_st *stream);

/* dw[inputs, outputs] = x^T dz, and db[outputs] = sum over rows of dz (NULL: no bias). */
typedef struct lks_dense_weights_args {
  const float *x, *dz;
  float *dw, *db;
  int64_t rows, inputs, outputs;
} lks_dense_weights_args;
int lks_dense_weights_cuda(const lks_dense_weights_args *args, struct CUstream_st *stream);

/* dx[rows, inputs] = (dz w^T) * f'(y, z), y and z [rows, inputs] of the layer below (as in
 * lks_derive_args); id LKS_ACT_LINEAR: no f', y and z unused. */
typedef struct lks_dense_input_args {
  const float *dz, *w, *y, *z;
  float *dx;
  int64_t rows, inputs, outputs;
  lks_activation_id id;
  float parameter;
} lks_dense_input_args;
int lks_dense_input_cuda(const lks_dense_input_args *args, struct CUstream_st *stream);

/* ---- loss, metrics, control block, update */

/* Blocks that lks_loss_cuda takes for so many rows and outputs: how many partial sums it leaves. */
int64_t lks_loss_blocks_cuda(int64_t rows, int64_t outputs);

/* Loss and metrics of out [rows, outputs] (logits where there is a link), and gradient =
 * d loss / d out / global_rows, [rows, outputs], zero in dead rows; NULL: only sums. targets
 * [rows, outputs], or [rows, 1] class numbers. Formulas: src/backend/cpu/loss.c.
 * partials [blocks, 1 + metric_count] doubles: sums over the live rows of each block of the launch,
 * loss first. */
typedef struct lks_loss_args {
  lks_row_block block;
  const float *out, *targets;
  float *gradient;
  double *partials;
  int64_t outputs;
  lks_loss_id id;
  lks_link link; /* model->link */
  bool logits;   /* model->logits: error metrics compare outputs as they are */
  int metric_count;
  lks_metric_id metrics[LKS_MAX_METRICS];
} lks_loss_args;
int lks_loss_cuda(const lks_loss_args *args, struct CUstream_st *stream);

/* The finite check and the control block, in one launch after the last weight gradient: looks for
 * a value that is not finite in gradients[count], adds up the partials and fills
 * control[LKS_CONTROL_FLOATS] from them and the order. Where gradients become ready piece by piece
 * (buckets), earlier pieces are looked at by launches with control NULL. count is a multiple of 4
 * and gradients 16-byte aligned.
 * Evaluation: count 0, control NULL, sums [1 + metric_count] doubles: the partials added up. */
typedef struct lks_seal_args {
  lks_device_state *state;
  const float *gradients;
  int64_t count;
  const double *partials; /* [partial_count, 1 + metric_count] */
  int64_t partial_count;
  int metric_count;
  float *control; /* NULL: only looks */
  double *sums;   /* NULL: not wanted */
} lks_seal_args;
int lks_seal_cuda(const lks_seal_args *args, struct CUstream_st *stream);

/* What a step tells the host. `sequence` is written last: it equals the order's step once all else
 * is there. */
typedef struct lks_published {
  float control[LKS_CONTROL_FLOATS]; /* summed over ranks: see lks_control_decode */
  int32_t not_finite_here;
  int32_t halted; /* from this step on nothing is updated */
  int64_t sequence;
} lks_published;

/* The optimizer over gradients[count] (summed over ranks) and parameters and slots [count], in one
 * launch, which also ends the step. Reads the summed control block first: where it, or an earlier
 * one, says failed or not finite, nothing is updated. Then writes ring[done % ring_slots] (mapped
 * pinned host memory, by its device address), clears `not_finite`, counts `done` up.
 * A parameter that it leaves not finite counts as seen in the next step: fused ReLU would hide it.
 * count is a multiple of 4 and everything 16-byte aligned: arenas are. */
typedef struct lks_update_args {
  lks_device_state *state;
  const float *control, *gradients;
  float *parameters;
  float *slots[LKS_MAX_SLOTS]; /* unused ones NULL */
  int64_t count;
  lks_published *ring;
  int64_t ring_slots;
} lks_update_args;
int lks_update_cuda(const lks_update_args *args, struct CUstream_st *stream);

/* ---- others */

/* Adds lks_fingerprint_term of each of values[count] to *hash, which the caller has set to zero.
 * The sum is of integers modulo 2^64: no launch shape changes it. */
typedef struct lks_fingerprint_args {
  const float *values;
  unsigned long long *hash;
  int64_t count;
} lks_fingerprint_args;
int lks_fingerprint_cuda(const lks_fingerprint_args *args, struct CUstream_st *stream);

/* Does nothing: shows that the device runs this module's code. */
int lks_nothing_cuda(struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

/* What element `index` with these bits adds to a fingerprint: the finaliser of SplitMix64 (Steele,
 * Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014) over both. */
static inline LKS_HOST_DEVICE uint64_t lks_fingerprint_term(uint64_t index, uint32_t bits) {
  uint64_t h = (index + 1u) * 0x9E3779B97F4A7C15u ^ (uint64_t)bits << 32 ^ bits;
  h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9u;
  h = (h ^ h >> 27) * 0x94D049BB133111EBu;
  return h ^ h >> 31;
}

#endif
