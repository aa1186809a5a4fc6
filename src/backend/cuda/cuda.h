/* The CUDA backend's inside: its state, and the functions of its files.
 *
 *   entry.c     the handshake
 *   gpu.c       what the program may ask about devices (lks_gpu_ops)
 *   backend.c   the ops struct: opening and closing, restore, snapshot, evaluate, predict
 *   step.c      one update: ordering it, queueing it, reading its control block D steps later
 *   memory.c    the byte plan and the one device arena
 *   feed.c      rows from the host: two pinned slots, two device slots, a copy stream
 *   dense.c     products by cuBLASLt: found once a shape; on request, the fastest of a few
 *   program.c   the plan's operations as launches
 *   launch.c    running them
 *   mask.c      whether ReLU's masks are right where its input is 0
 *   graph.c     launches as one graph: captured once, replayed
 *   exchange.c  NCCL
 *   kernels*    all else that runs on the device
 *
 * One process uses one device. Streams: `main` computes; `copy` brings rows in; `exchange.stream`
 * sums gradients, where there are several buckets. Nothing uses the legacy stream. Nothing is
 * allocated after the first step, and a step waits for nothing but the control block of the step
 * LKS_LAG before it.
 *
 * Device tensors have `rows` rows, as many as a share has at most: the plan's blocks are for a
 * CPU's cache. Fewer live rows are data (lks_step_order): the rest are zeros without gradient. */
#ifndef LKS_BACKEND_CUDA_CUDA_H
#define LKS_BACKEND_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include "backend/backend.h"
#include "backend/cuda/fail.h"
#include "backend/cuda/kernels.h"

#define LKS_TOGETHER 4    /* steps of one replay, where rows are resident */
#define LKS_LAG 8         /* D of the contract: one replay is under way while another is filled */
#define LKS_RING_SLOTS 16 /* steps on their way to the device or back; more than LKS_LAG */
#define LKS_STAGES 2      /* slots of rows that come from the host */
#define LKS_MAX_BUCKETS 4 /* of gradients */

/* ---- gpu.c */

extern const lks_gpu_ops lks_gpu_cuda;
/* "NVIDIA H100 80GB HBM3, GPU-1b6f..." */
void lks_device_text(const struct cudaDeviceProp *properties, char *out, size_t size);

/* ---- dense.c */

typedef enum lks_product_kind {
  LKS_PRODUCT_FORWARD, /* y [rows, outputs] = x w */
  LKS_PRODUCT_WEIGHTS, /* dw [inputs, outputs] = x^T dz */
  LKS_PRODUCT_INPUT    /* dx [rows, inputs] = dz w^T */
} lks_product_kind;

typedef struct lks_product_key {
  lks_product_kind kind;
  int64_t rows, inputs, outputs;
  cublasLtEpilogue_t epilogue;
  bool training; /* of a step: on request, candidates are timed */
} lks_product_key;

#define LKS_CANDIDATES 4

/* One product for one shape. count 0: cuBLASLt has none. */
typedef struct lks_product {
  lks_product_key key;
  cublasLtMatmulDesc_t description;
  cublasLtMatrixLayout_t a, b, d;
  cublasLtMatmulHeuristicResult_t candidates[LKS_CANDIDATES];
  int count, chosen;
  bool timed;
  bool used;      /* by some launch */
  double seconds; /* of the chosen one; 0: not measured */
} lks_product;

/* Device addresses of one product, as cuBLASLt calls them (column-major). bias: read by a forward
 * product, written by the weights'; aux: the ReLU mask. NULL where the epilogue has none. */
typedef struct lks_operands {
  const float *a, *b;
  float *d;
  float *bias;
  void *aux;
} lks_operands;

typedef struct lks_products {
  cublasLtHandle_t handle;
  cublasComputeType_t compute;
  size_t most_workspace; /* bytes that an algorithm may ask for */
  bool tune;             /* several candidates for each product of a step */
  lks_product *items;
  int count, capacity;
} lks_products;

typedef struct lks_cuda lks_cuda;

lks_status lks_products_open(lks_cuda *cuda, const lks_backend_request *request, int major,
                             lks_error *err) LKS_MUST_USE;
void lks_products_close(lks_products *products);
/* Index of the product with that key, made if need be; its count is 0 where cuBLASLt has none.
 * operands: only their alignment is read. */
lks_status lks_product_find(lks_cuda *cuda, const lks_product_key *key,
                            const lks_operands *operands, int *index, lks_error *err) LKS_MUST_USE;
lks_status lks_product_run(lks_cuda *cuda, int index, const lks_operands *operands,
                           lks_error *err) LKS_MUST_USE;
/* Times a product's candidates on its operands, whose values do not matter, and keeps one. */
lks_status lks_product_time(lks_cuda *cuda, int index, const lks_operands *operands,
                            lks_error *err) LKS_MUST_USE;
/* Bytes of workspace that all candidates of all products that were found can do with. */
size_t lks_products_workspace(const lks_products *products);
void lks_product_describe(const lks_product *product, lks_choice_made *out);
/* The ReLU mask of [rows, width]: bits a row, and bytes. */
int64_t lks_relu_mask_bits(int64_t width);
size_t lks_relu_mask_bytes(int64_t rows, int64_t width);

/* ---- memory.c */

/* A tensor of the plan's work arena: its offset there (floats), and where it lies here (bytes). */
typedef struct lks_tensor {
  size_t plan, place;
} lks_tensor;

/* Where everything lies in the arena: bytes from its base, multiples of 256. */
typedef struct lks_layout {
  lks_tensor *tensors;
  size_t *masks;            /* of plan->train.ops: where the ReLU mask of a dense forward lies */
  size_t state, evaluation; /* lks_device_state */
  size_t parameters, gradients, slots[LKS_MAX_SLOTS];
  size_t cleared; /* all before this is set to zero at first */
  size_t row_ids, partials, sums, hash;
  size_t staged_features[LKS_STAGES], staged_targets[LKS_STAGES], staged_ids[LKS_STAGES];
  size_t workspace;
  size_t table, table_bytes; /* room for the training table; 0 bytes: none */
  size_t table_targets;      /* once adopted */
  size_t end;
} lks_layout;

/* Lays everything out but workspace and table, on a base that is only a placeholder. */
lks_status lks_layout_make(lks_cuda *cuda, lks_error *err) LKS_MUST_USE;
void lks_layout_free(lks_layout *layout);
/* Adds workspace and, if it fits, room for the training table; compares with what is free, and
 * allocates. Too little: the byte plan, as an error. */
lks_status lks_memory_take(lks_cuda *cuda, const lks_backend_request *request,
                           lks_error *err) LKS_MUST_USE;
/* Device address of a place, and of a tensor by its offset in the plan's work arena. */
void *lks_at(const lks_cuda *cuda, size_t place);
float *lks_tensor_at(const lks_cuda *cuda, size_t plan_offset);

/* ---- program.c */

typedef enum lks_launch_kind {
  LKS_LAUNCH_GATHER,
  LKS_LAUNCH_PRODUCT,
  LKS_LAUNCH_FORWARD, /* these three: dense layers that cuBLASLt refuses */
  LKS_LAUNCH_WEIGHTS,
  LKS_LAUNCH_INPUT,
  LKS_LAUNCH_ACTIVATE,
  LKS_LAUNCH_DERIVE,
  LKS_LAUNCH_DROPOUT,
  LKS_LAUNCH_UNDROP,
  LKS_LAUNCH_COLUMN_SUMS,
  LKS_LAUNCH_LOSS,
  LKS_LAUNCH_SEAL,
  LKS_LAUNCH_EXCHANGE,
  LKS_LAUNCH_UPDATE
} lks_launch_kind;

typedef struct lks_launch {
  lks_launch_kind kind;
  union {
    lks_gather_args gather;
    struct {
      int index;
      lks_operands operands;
    } product;
    lks_dense_forward_args forward;
    lks_dense_weights_args weights;
    lks_dense_input_args input;
    lks_activate_args activate;
    lks_derive_args derive;
    lks_dropout_args dropout;
    lks_undrop_args undrop;
    lks_column_sums_args column_sums;
    lks_loss_args loss;
    lks_seal_args seal;
    int bucket;
    lks_update_args update;
  } as;
} lks_launch;

typedef struct lks_launches {
  lks_launch *items;
  int count, capacity;
  int *ends; /* launches after each operation of the plan's program */
} lks_launches;

/* True where the product of the layer above can undo the ReLU of this operation by a mask. */
bool lks_mask_wanted(const lks_program *program, int forward);
/* A step's gather: from that slot; -1: from the adopted table. */
lks_gather_args lks_step_gather(const lks_cuda *cuda, int slot);
/* Compiles the three programs for the arena's present base; again, when that or `unmasked` has
 * changed. */
lks_status lks_programs_compile(lks_cuda *cuda, lks_error *err) LKS_MUST_USE;
void lks_launches_free(lks_launches *launches);

/* ---- launch.c */

/* Queues the first `count` launches. */
lks_status lks_launches_run(lks_cuda *cuda, const lks_launches *launches, int count,
                            lks_error *err) LKS_MUST_USE;
/* Times the products of a step that have a choice. */
lks_status lks_programs_time(lks_cuda *cuda, lks_error *err) LKS_MUST_USE;

/* ---- mask.c */

/* Runs the products of a compiled step that leave and read masks: `unmasked` where those are wrong.
 * Parameters are zeros, before and after. */
lks_status lks_masks_try(lks_cuda *cuda, lks_error *err) LKS_MUST_USE;

/* ---- feed.c */

/* Host and device slots of rows on their way in. */
typedef struct lks_staging {
  float *features[LKS_STAGES], *targets[LKS_STAGES]; /* pinned */
  int64_t *ids[LKS_STAGES];
  void *pinned;
  cudaEvent_t copied[LKS_STAGES]; /* the slot's last copy to the device */
  bool in_flight[LKS_STAGES];
} lks_staging;

lks_status lks_staging_open(lks_cuda *cuda, lks_error *err) LKS_MUST_USE;
void lks_staging_close(lks_staging *staging);
/* Brings rows into a slot: `main` waits for them, the host only for the slot. free: what `main`
 * must have done before the slot may be written; NULL: nothing. */
lks_status lks_staging_bring(lks_cuda *cuda, int slot, const lks_feed *feed, cudaEvent_t free,
                             lks_error *err) LKS_MUST_USE;

/* ---- exchange.c */

/* A run of the gradient arena, summed as soon as backward has made it. */
typedef struct lks_bucket {
  size_t first, count; /* floats */
  cudaEvent_t ready;
} lks_bucket;

typedef struct lks_nccl {
  ncclComm_t comm;     /* NULL: one rank */
  cudaStream_t stream; /* `main` where there is one bucket */
  bool own_stream;
  cudaEvent_t done;
  lks_bucket buckets[LKS_MAX_BUCKETS]; /* as backward makes them: the end of the arena first */
  int bucket_count;
} lks_nccl;

/* Collective. */
lks_status lks_nccl_open(lks_cuda *cuda, lks_error *err) LKS_MUST_USE;
/* Queues the sum of a bucket, after what `main` has been given so far; the last one takes the
 * control block with it, and `main` waits for all. Collective. */
lks_status lks_nccl_sum(lks_cuda *cuda, int bucket, lks_error *err) LKS_MUST_USE;
/* An error that NCCL has met since. */
lks_status lks_nccl_look(lks_cuda *cuda, lks_error *err) LKS_MUST_USE;
/* abandon: peers may be gone; nobody is waited for. */
void lks_nccl_close(lks_cuda *cuda, bool abandon);

/* ---- graph.c */

/* Captured steps: one graph for each place that rows may come from, and one of several steps. */
typedef struct lks_graphs {
  cudaGraphExec_t staged[LKS_STAGES], adopted, together;
  bool warm; /* a step has run eagerly: libraries have loaded what they load on first use */
} lks_graphs;

/* Queues a step with rows of that slot; -1: of the adopted table. steps: 1, or LKS_TOGETHER of the
 * adopted table once a step has run. */
lks_status lks_graph_run(lks_cuda *cuda, int slot, int steps, lks_error *err) LKS_MUST_USE;
void lks_graphs_free(lks_graphs *graphs);

/* ---- all of it */

/* What host and device tell each other; pinned and mapped. */
typedef struct lks_mailbox {
  void *pinned;
  lks_published *ring;      /* [LKS_RING_SLOTS] */
  lks_published *ring_here; /* the same, as the device sees it */
  lks_step_order *orders;   /* [LKS_RING_SLOTS]: on their way to the device */
  lks_step_order *block;    /* of an evaluation or prediction block */
  double *sums;             /* [1 + LKS_MAX_METRICS], of an evaluation block */
  uint64_t *hash;
} lks_mailbox;

struct lks_cuda {
  const lks_plan *plan;
  lks_world *world;
  int rank, size;
  uint64_t seed;
  int precision;
  lks_site site;
  int64_t rows;   /* that every device tensor has */
  bool needs_ids; /* the model has dropout: masks are keyed by row ids */
  cudaStream_t main, copy;
  char *base;  /* of the arena */
  void *arena; /* what to free; NULL: `base` is only a placeholder, for alignment */
  lks_layout layout;
  lks_memory_plan memory;
  lks_mailbox mailbox;
  lks_staging staging;
  lks_products products;
  lks_launches train, evaluate, predict;
  lks_nccl exchange;
  lks_graphs graphs;
  cudaEvent_t events[LKS_RING_SLOTS]; /* one a replay: that of its last step's slot */
  cudaEvent_t done[LKS_RING_SLOTS];   /* of each slot's step: one of `events` */
  int64_t ordered, launched, read; /* steps since the last restore; read <= launched <= ordered */
  bool adopted;
  bool unmasked; /* ReLU's gradient by its kernel, not by the masks of products */
  bool broken;   /* a call failed: what is queued may never end */
};

/* Fingerprint of floats that lie in the arena; see fingerprint of the contract. */
lks_status lks_hash_floats(lks_cuda *cuda, const float *values, int64_t count, uint64_t *hash,
                           lks_error *err) LKS_MUST_USE;
lks_status lks_step_cuda(void *state, const lks_step *step, lks_control *control,
                         lks_error *err) LKS_MUST_USE;
lks_status lks_drain_cuda(void *state, lks_control *control, lks_error *err) LKS_MUST_USE;
/* Waits on the host for an event, looking at the exchange meanwhile. */
lks_status lks_wait_cuda(lks_cuda *cuda, cudaEvent_t event, lks_error *err) LKS_MUST_USE;

#endif
