/* The plan: every operation of a step in order, and every buffer's place.
 *
 * A model is compiled once. Backends run the plan or capture it; they decide nothing about order
 * or place. Two arenas are addressed by it, both in floats:
 *
 *   work        per rank: the rows of one block and what is made of them. Tensors are
 *               [buffer_rows, width], row-major; only the live rows are computed.
 *   parameters  the model's flat arena; gradients and each optimizer slot have its layout. The
 *               gradient buffer goes on after it: LKS_CONTROL_FLOATS of control block.
 *
 * Shares larger than block_rows are walked block by block, gradients added up, so that a block's
 * activations stay in the cache.
 *
 * Gradients of weights are made in one of three ways (lks_gradients). By rows: each rank makes the
 * gradient of its rows, and all are summed. By owners, where ranks share memory and a batch's
 * activations are fewer than the parameters: the tensors of `train` hold the rows of all ranks, and
 * each rank makes its slice of the gradient from all of them, so that no gradient is ever read by
 * another rank. By the leader, where a step is less work than to share it: one rank takes all rows
 * of a batch, makes the whole gradient and updates all parameters. */
#ifndef LKS_PLAN_PLAN_H
#define LKS_PLAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/model.h"
#include "plan/control.h"

typedef enum lks_op_kind {
  LKS_OP_DENSE_FORWARD,          /* out = f(in W + b); aux = z where f needs it */
  LKS_OP_ACTIVATION_FORWARD,     /* out = f(in) */
  LKS_OP_DROPOUT_FORWARD,        /* out = in * mask / (1 - rate); aux: the mask, a byte a unit */
  LKS_OP_LOSS,                   /* sums of loss and metrics of in against the targets */
  LKS_OP_LOSS_GRADIENT,          /* the same, and out = d loss / d in, over the global rows */
  LKS_OP_ACTIVATION_BACKWARD,    /* out (in place) *= f'(y, z) */
  LKS_OP_DROPOUT_BACKWARD,       /* out (in place) *= mask / (1 - rate) */
  LKS_OP_DENSE_BACKWARD_WEIGHTS, /* dW (+)= in^T dz, db (+)= sum of dz over rows; in: x, out: dz */
  LKS_OP_DENSE_BACKWARD_INPUT,   /* out = (in W^T) * f'(y, z) of the layer below; in: dz */
} lks_op_kind;

/* Large weights are more than a second cache holds beside a block's activations. Few are rows whose
 * products with them take less time than to read them twice. Columns so many floats apart, or a
 * multiple of it, fall on few sets of the first cache. product.c has what was measured. */
#define LKS_LARGE_WEIGHTS 131072
#define LKS_ALIASED_FLOATS 64
#define LKS_FEW_ROWS 48

/* One operation. Offsets are floats into the work arena unless said otherwise. */
typedef struct lks_op {
  lks_op_kind kind;
  int layer;               /* whose it is, an index into model->layers; -1: the loss */
  int64_t inputs, outputs; /* I and O of the layer it belongs to */
  bool few;                /* few rows by large weights: reading weights is most of the work */
  size_t in, out, aux;
  size_t weights, bias; /* floats into the parameter (and gradient) arena */
  bool has_bias;
  const lks_activation *activation; /* NULL: linear */
  size_t y, z; /* of the layer whose derivative is applied; z only where needed */
  float rate;  /* dropout */
} lks_op;

typedef struct lks_program {
  lks_op *ops;
  int count;
} lks_program;

/* Where an inner layer's output lies after the first `ops` operations of `predict`. */
typedef struct lks_tap {
  int ops;
  size_t offset;
  int64_t width;
} lks_tap;

/* The tensors of `train` in a plan by owners: an arena that ranks share. Each rank writes its own
 * rows of every tensor. */
typedef struct lks_common_rows {
  int64_t rows;          /* of every tensor: the batch */
  size_t input, targets; /* as in the plan */
  size_t floats;
} lks_common_rows;

/* Who makes gradients of weights. By owners and by the leader are for backends and worlds in which
 * all ranks share memory, and so is to choose between the three: LKS_BY_BEST. */
typedef enum lks_gradients {
  LKS_BY_BEST, /* asked for, never chosen */
  LKS_BY_ROWS,
  LKS_BY_OWNERS,
  LKS_BY_LEADER
} lks_gradients;

typedef struct lks_plan {
  const lks_model *model;  /* borrowed; outlives the plan */
  int64_t batch_size;      /* B, the global batch */
  int64_t share_rows;      /* most rows of a batch that one rank takes: ceil(B / ranks), or B */
  int64_t block_rows;      /* rows that are walked together */
  int64_t buffer_rows;     /* rows that every work tensor has: a block's, or evaluation's */
  lks_program train;       /* forward, loss with gradient, backward */
  lks_program evaluate;    /* forward without dropout, loss */
  lks_program predict;     /* forward without dropout, output activation */
  lks_gradients gradients; /* as chosen: never LKS_BY_BEST */
  lks_program weights;     /* by owners: what makes them, left out of train; else empty */
  lks_common_rows common;  /* by owners: train and weights address this, the others work */
  size_t input;            /* work offset of the gathered features [buffer_rows, inputs] */
  size_t targets;          /* [buffer_rows, target_columns] */
  int64_t target_columns;
  size_t prediction;  /* what predict leaves: [buffer_rows, outputs] */
  lks_tap *taps;      /* [layer_count] */
  int64_t row_floats; /* floats a row takes in all work tensors together */
  size_t work_floats;
  size_t parameter_floats; /* = model->arena_floats */
  size_t gradient_floats;  /* parameter_floats + LKS_CONTROL_FLOATS, padded */
  int slots;
  double flops_per_row; /* of a training step: multiply and add count as two */
  lks_arena arena;      /* owns ops and taps */
} lks_plan;

/* Rows of an evaluation or prediction block: fixed, so that which rank computes a block changes
 * no bit of it. */
#define LKS_EVALUATION_ROWS 256

/* Compiles a model; by the leader is by rows on one rank. Not collective. */
lks_status lks_plan_make(const lks_model *model, int64_t batch_size, int ranks,
                         lks_gradients gradients, lks_plan **plan, lks_error *err) LKS_MUST_USE;
void lks_plan_free(lks_plan **plan);

/* BLAS threads that a rank which has cores for `most` should use: as many as its largest product
 * keeps busy. */
int lks_plan_threads(const lks_plan *plan, int most);

/* Where the parameters may be cut nearest to a part of them, 0 to 1, in a plan by owners: between
 * steps of rows of weights, a bias whole. The work is divided as they are: it is two operations a
 * parameter and row. */
size_t lks_plan_cut(const lks_plan *plan, double part);
/* Rows of dW of which a part has at least so many: more than 1 where BLAS may make them, which
 * takes other ways for very small products. */
int64_t lks_plan_cut_step(const lks_op *op);

/* Rows [*first, *first + *count) of a batch of `rows` live rows that `rank` of `ranks` takes: in
 * a plan by the leader, the leader all of them; else even shares, in rank order, at most
 * ceil(rows / ranks). */
void lks_plan_share(const lks_plan *plan, int64_t rows, int rank, int ranks, int64_t *first,
                    int64_t *count);

/* The rank that does what only one does in a step: by the leader the last, for the first one writes
 * files meanwhile; else the first. */
int lks_plan_leader(const lks_plan *plan, int ranks);

#endif
