/* The CPU backend's inside: its state, and the functions of its files.
 *
 *   backend.c    the ops struct; a step with gradients by rows
 *   owners.c     a step with gradients by owners
 *   slice.c      what an owner makes and updates
 *   leader.c     a step that one rank does for all
 *   program.c    runs operations on a block of rows
 *   dense.c      CBLAS products with bias and activation
 *   pointwise.c  activations, dropout, gather
 *   loss.c       losses with gradients, metrics
 *   update.c     the optimizers, over any slice of the flat arenas
 *   exchange.c   summing gradients, and who updates what
 *   shares.c     how much of divided work each rank takes */
#ifndef LKS_BACKEND_CPU_CPU_H
#define LKS_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/exchange.h"
#include "backend/cpu/shares.h"
#include "base/hot.h"
#include "world/world.h"

typedef void (*lks_set_threads)(int);

/* What masks are keyed by. row_ids [rows] are positions in the training set. */
typedef struct lks_mask_key {
  uint64_t seed;
  int layer;
  int64_t step;
  const int64_t *row_ids;
} lks_mask_key;

/* Rows that operations work on together, and what they leave beside tensors. */
typedef struct lks_cpu_block {
  float *work; /* the arena that the operations address */
  int64_t rows;
  const float *targets; /* of the loss */
  double divisor;       /* of the gradient */
  bool accumulate;      /* gradients are added to those of the blocks before */
  lks_mask_key mask;
  lks_block_sums sums;
} lks_cpu_block;

typedef struct lks_lead lks_lead;

typedef struct lks_cpu {
  const lks_plan *plan;
  lks_world *world;
  uint64_t seed;
  float *work;                      /* [plan->work_floats], this rank's */
  lks_shared common;                /* by owners: [plan->common.floats] */
  bool is_common;                   /* whether that is the node's; else each rank has its own */
  lks_shares shares;                /* by owners, in common: of columns and of parameters */
  double divided;                   /* s of this rank in such work, since ranks last met for it */
  lks_lead *lead;                   /* by the leader; else NULL */
  lks_exchange exchange;            /* owns parameters, gradients and slots */
  lks_set_threads set_blas_threads; /* NULL: the BLAS has no such call */
  int threads;
  bool ended;                /* a block forbade an update: there are no more until a restore. By the
                                leader, followers don't know */
  bool profile;              /* whether the next two are measured */
  double compute, exchanged; /* s, in all steps so far; exchanged includes the update */
} lks_cpu;

/* ---- backend.c */

/* The call of the loaded BLAS that sets how many threads it uses; NULL: it has none. */
lks_set_threads lks_find_set_threads(void);

/* Fills a rank's control block. rows: live ones of this rank. */
void lks_put_control_cpu(float *control, const lks_model *model, const lks_votes *votes,
                         const lks_cpu_block *b, int64_t rows, bool finite);

/* Forward and backward of this rank's rows of a step; its gradients and control block are then
 * complete, *b holds the sums. Returns whether both are finite. */
bool lks_make_gradients_cpu(lks_cpu *cpu, const lks_step *step, lks_cpu_block *b);

/* A step in which all ranks of the world work, by owners or by rows: as lks_backend_ops.step. Once
 * `ended`, it does nothing and says failed. */
lks_status lks_step_together(lks_cpu *cpu, const lks_step *step, lks_control *control,
                             lks_error *err) LKS_MUST_USE;

/* ---- leader.c: a plan by the leader; the ops struct is lks_backend_cpu_led */

lks_status lks_lead_open(lks_cpu *cpu, lks_error *err) LKS_MUST_USE; /* collective */
void lks_lead_close(lks_cpu *cpu);                                   /* collective */
void lks_lead_forget(lks_cpu *cpu); /* what was before a restore; local */
/* As lks_backend_ops.step and drain, with a lag of one step. */
lks_status lks_lead_step(void *state, const lks_step *step, lks_control *control,
                         lks_error *err) LKS_MUST_USE;
lks_status lks_lead_drain(void *state, lks_control *control, lks_error *err) LKS_MUST_USE;

/* ---- owners.c: a plan by owners */

lks_status lks_owners_open(lks_cpu *cpu, lks_error *err) LKS_MUST_USE; /* collective */
void lks_owners_close(lks_cpu *cpu);                                   /* collective */
/* As lks_backend_ops.step. */
lks_status lks_owners_step(lks_cpu *cpu, const lks_step *step, lks_control *control,
                           lks_error *err) LKS_MUST_USE;

/* ---- slice.c: work is an arena of common rows, of which `rows` are live */

/* What a rank knows of its slice of the gradient once it is made, as far as that is before the
 * update. */
typedef struct lks_slice {
  bool whole;  /* nothing is left to make */
  bool finite; /* this rank's */
  int bad;     /* ranks of the node whose slice is not finite */
} lks_slice;

/* Collective over the node: between the barriers "activations complete" and "parameters complete".
 */
lks_status lks_slice_make(lks_cpu *cpu, float *work, int64_t rows, lks_slice *slice,
                          lks_error *err) LKS_MUST_USE;
/* Makes what is left, and updates; only where all that the node has made is finite. */
void lks_slice_update(lks_cpu *cpu, const float *work, int64_t rows, const lks_update *update,
                      bool whole);
/* All of the gradient, for a rank by itself; returns whether it is finite. */
bool lks_slice_make_all(lks_cpu *cpu, float *work, int64_t rows);

/* ---- program.c */

/* What the blocks of a step have in common: without rows and targets. */
lks_cpu_block lks_begin_step_cpu(const lks_cpu *cpu, const lks_step *step, float *work);
/* Whether few rows by large weights are ours: a BLAS with threads of its own makes them itself. */
bool lks_is_few_cpu(const lks_cpu *cpu, const lks_op *op);
void lks_run_ops_cpu(lks_cpu *cpu, const lks_op *ops, int count, lks_cpu_block *b);
/* Rows [first, first + count) of a feed. */
void lks_gather_feed_cpu(const lks_plan *plan, const lks_feed *feed, int64_t first, int64_t count,
                         float *features, float *targets);

/* ---- dense.c: row-major; x [rows, inputs], y and z [rows, outputs], w [inputs, outputs] */

/* Columns [first, end) of z and y; fewer than all only where weights are large (plan.h), and the
 * activation is not across rows. */
void lks_dense_forward_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters,
                           int64_t first, int64_t end);
/* Rows [first, end) of dW, of `inputs` that it has, to dw [end - first, outputs]; accumulate: added
 * to what is there. */
void lks_dense_weights_cpu(const lks_op *op, int64_t rows, const float *work, int64_t first,
                           int64_t end, bool accumulate, float *dw);
/* Whether parts of it (of at least `least` columns, or rows of dW) have the bits that they have in
 * the whole, however it is divided (product.h). Nothing of work and parameters is touched. */
bool lks_dense_divides_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters,
                           int64_t least);
/* db; nothing without a bias. */
void lks_dense_bias_cpu(const lks_op *op, int64_t rows, const float *work, float *gradients,
                        bool accumulate);
/* Columns [first, end) of dx, as in lks_dense_forward_cpu. */
void lks_dense_input_cpu(const lks_op *op, int64_t rows, float *work, const float *parameters,
                         int64_t first, int64_t end);

/* ---- pointwise.c */

/* y = f(z + bias); bias may be NULL, y may be z. All [rows, width]. z itself is left with the bias
 * added where the derivative needs it. */
void lks_activate_cpu(const lks_activation *activation, const float *bias, float *z, float *y,
                      int64_t rows, int64_t width);
/* gradient *= f'(y, z), in place. */
void lks_derive_cpu(const lks_activation *activation, const float *y, const float *z,
                    float *gradient, int64_t rows, int64_t width);

/* mask[rows, width] bytes 0 or 1, and out = in * mask / (1 - rate). */
void lks_dropout_cpu(const lks_mask_key *key, float rate, const float *in, float *out,
                     unsigned char *mask, int64_t rows, int64_t width);
void lks_dropout_backward_cpu(float rate, const unsigned char *mask, float *gradient, int64_t rows,
                              int64_t width);

/* out[count, width]: rows of base by index, or in order when index is NULL. */
void lks_gather_cpu(const float *base, const int64_t *index, int64_t count, int64_t width,
                    float *out);

/* ---- loss.c */

/* Adds a block's sums to *sums; with a gradient (else NULL), gradient = d loss / d z / divisor.
 * z is what the plan hands the loss (logits where there is a link); [rows, outputs]. */
void lks_loss_cpu(const lks_model *model, const float *z, const float *targets, int64_t rows,
                  double divisor, float *gradient, lks_block_sums *sums);

#endif
