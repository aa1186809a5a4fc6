/* The CUDA backend: opening and closing, parameters in and out, blocks outside a step. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "base/text.h"

#define PAGE 4096

/* ---- opening and closing */

static lks_status open_device(lks_cuda *cuda, const lks_backend_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  struct cudaDeviceProp properties;
  size_t free_bytes = 0, total = 0;
  int lowest = 0, highest = 0;
  cuda->site.ordinal = request->ordinal >= 0 ? request->ordinal : 0;
  TRY_CUDA(cudaGetDeviceProperties(&properties, cuda->site.ordinal));
  lks_device_text(&properties, cuda->site.device, sizeof cuda->site.device);
  TRY_CUDA(cudaSetDevice(cuda->site.ordinal));
  TRY_CUDA(cudaMemGetInfo(&free_bytes, &total));
  cuda->memory.free_before = (int64_t)free_bytes;
  TRY_CUDA(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  TRY_CUDA(cudaStreamCreateWithPriority(&cuda->main, cudaStreamNonBlocking, lowest));
  TRY_CUDA(cudaStreamCreateWithPriority(&cuda->copy, cudaStreamNonBlocking, lowest));
  for (int i = 0; i < LKS_RING_SLOTS; ++i) {
    TRY_CUDA(cudaEventCreateWithFlags(&cuda->events[i], cudaEventDisableTiming));
  }
  TRY(lks_products_open(cuda, request, properties.major, err));
cleanup:
  return st;
}

/* Each part on pages of its own. */
static lks_status open_mailbox(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  lks_mailbox *mailbox = &cuda->mailbox;
  void *ring_here = NULL;
  _Static_assert(LKS_RING_SLOTS * sizeof(lks_published) <= PAGE &&
                     LKS_RING_SLOTS * sizeof(lks_step_order) <= PAGE,
                 "each part of the mailbox fits a page");
  TRY_CUDA(cudaHostAlloc(&mailbox->pinned, 5 * PAGE, cudaHostAllocMapped));
  memset(mailbox->pinned, 0, 5 * PAGE);
  char *next = mailbox->pinned;
  mailbox->ring = (lks_published *)(void *)next;
  mailbox->orders = (lks_step_order *)(void *)(next + PAGE);
  mailbox->block = (lks_step_order *)(void *)(next + 2 * PAGE);
  mailbox->sums = (double *)(void *)(next + 3 * PAGE);
  mailbox->hash = (uint64_t *)(void *)(next + 4 * PAGE);
  TRY_CUDA(cudaHostGetDevicePointer(&ring_here, mailbox->ring, 0));
  mailbox->ring_here = ring_here;
cleanup:
  return st;
}

/* Everything of a rank's own; nothing here waits for another rank. */
static lks_status open_own(lks_cuda *cuda, const lks_backend_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  TRY(lks_layout_make(cuda, err));
  TRY(open_mailbox(cuda, err));
  TRY(lks_staging_open(cuda, err));
  for (int turn = 0; turn < 2; ++turn) { /* which products there may be, and their workspace */
    cuda->unmasked = turn == 0;
    TRY(lks_programs_compile(cuda, err));
  }
  TRY(lks_memory_take(cuda, request, err));
  TRY(lks_programs_compile(cuda, err)); /* for good, unless masks are wrong */
  TRY(lks_programs_time(cuda, err));
  TRY(lks_masks_try(cuda, err));
  if (cuda->unmasked) {
    TRY(lks_programs_compile(cuda, err));
    TRY(lks_programs_time(cuda, err));
  }
  TRY_CUDA(cudaStreamSynchronize(cuda->main));
cleanup:
  return st;
}

/* Streams are drained first, unless something is stuck in them; captured steps hold references to
 * the communicator, so they go before it. */
static void close_cuda(void *state) {
  lks_cuda *cuda = state;
  if (cuda == NULL) {
    return;
  }
  const cudaStream_t streams[] = {cuda->copy, cuda->main};
  for (int i = 0; i < 2; ++i) {
    if (streams[i] != NULL && !cuda->broken) {
      (void)cudaStreamSynchronize(streams[i]);
    }
  }
  lks_graphs_free(&cuda->graphs);
  lks_nccl_close(cuda, cuda->broken);
  lks_products_close(&cuda->products);
  lks_launches_free(&cuda->train);
  lks_launches_free(&cuda->evaluate);
  lks_launches_free(&cuda->predict);
  lks_staging_close(&cuda->staging);
  if (cuda->mailbox.pinned != NULL) {
    (void)cudaFreeHost(cuda->mailbox.pinned);
  }
  if (cuda->arena != NULL) {
    (void)cudaFree(cuda->arena);
  }
  lks_layout_free(&cuda->layout);
  for (int i = 0; i < LKS_RING_SLOTS; ++i) {
    if (cuda->events[i] != NULL) {
      (void)cudaEventDestroy(cuda->events[i]);
    }
  }
  for (int i = 0; i < 2; ++i) {
    if (streams[i] != NULL) {
      (void)cudaStreamDestroy(streams[i]);
    }
  }
  free(cuda);
}

static bool drops(const lks_program *program) {
  for (int i = 0; i < program->count; ++i) {
    if (program->ops[i].kind == LKS_OP_DROPOUT_FORWARD) {
      return true;
    }
  }
  return false;
}

static lks_status open_cuda(const lks_backend_request *request, void **state, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_plan *plan = request->plan;
  lks_cuda *cuda = calloc(1, sizeof *cuda);
  if (cuda == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the CUDA backend");
  } else {
    cuda->plan = plan;
    cuda->world = request->world;
    cuda->rank = request->rank;
    cuda->size = request->size;
    cuda->seed = request->seed;
    cuda->precision = request->precision;
    cuda->needs_ids = drops(&plan->train);
    cuda->rows = plan->share_rows > LKS_EVALUATION_ROWS ? plan->share_rows : LKS_EVALUATION_ROWS;
    cuda->broken = true; /* until it is open: peers may have failed */
    st = open_device(cuda, request, err);
  }
  TRY(lks_cuda_services->agree(request->world, st, err));
  TRY(lks_nccl_open(cuda, err));
  TRY(lks_cuda_services->agree(request->world, open_own(cuda, request, err), err));
  cuda->broken = false;
  *state = cuda;
  cuda = NULL;
cleanup:
  close_cuda(cuda);
  return st;
}

/* ---- parameters and slots */

static lks_status copy_in(lks_cuda *cuda, size_t place, const void *from, size_t bytes,
                          lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  TRY_CUDA(cudaMemcpyAsync(lks_at(cuda, place), from, bytes, cudaMemcpyHostToDevice, cuda->main));
cleanup:
  return st;
}

static lks_status copy_out(lks_cuda *cuda, void *to, size_t place, size_t bytes, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  TRY_CUDA(cudaMemcpyAsync(to, lks_at(cuda, place), bytes, cudaMemcpyDeviceToHost, cuda->main));
cleanup:
  return st;
}

/* A fresh state of the device's too: counts from 0, not halted. */
static lks_status restore_cuda(void *state, const float *parameters, const float *const *slots,
                               lks_error *err) {
  lks_status st = LKS_OK;
  lks_cuda *cuda = state;
  const lks_site *site = &cuda->site;
  const size_t bytes = cuda->plan->parameter_floats * sizeof(float);
  TRY_CUDA(
      cudaMemsetAsync(lks_at(cuda, cuda->layout.state), 0, sizeof(lks_device_state), cuda->main));
  TRY(copy_in(cuda, cuda->layout.parameters, parameters, bytes, err));
  for (int s = 0; s < cuda->plan->slots; ++s) {
    if (slots != NULL && slots[s] != NULL) {
      TRY(copy_in(cuda, cuda->layout.slots[s], slots[s], bytes, err));
    } else {
      TRY_CUDA(cudaMemsetAsync(lks_at(cuda, cuda->layout.slots[s]), 0, bytes, cuda->main));
    }
  }
  TRY_CUDA(cudaStreamSynchronize(cuda->main));
  cuda->ordered = 0;
  cuda->launched = 0;
  cuda->read = 0;
cleanup:
  cuda->broken = cuda->broken || st != LKS_OK;
  return st;
}

static lks_status snapshot_cuda(void *state, float *parameters, float *const *slots,
                                lks_error *err) {
  lks_status st = LKS_OK;
  lks_cuda *cuda = state;
  const lks_site *site = &cuda->site;
  const size_t bytes = cuda->plan->parameter_floats * sizeof(float);
  if (parameters != NULL) {
    TRY(copy_out(cuda, parameters, cuda->layout.parameters, bytes, err));
  }
  for (int s = 0; slots != NULL && s < cuda->plan->slots; ++s) {
    TRY(copy_out(cuda, slots[s], cuda->layout.slots[s], bytes, err));
  }
  TRY_CUDA(cudaStreamSynchronize(cuda->main));
cleanup:
  cuda->broken = cuda->broken || st != LKS_OK;
  return st;
}

lks_status lks_hash_floats(lks_cuda *cuda, const float *values, int64_t count, uint64_t *hash,
                           lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const lks_fingerprint_args args = {
      .values = values, .hash = lks_at(cuda, cuda->layout.hash), .count = count};
  TRY_CUDA(cudaMemsetAsync(args.hash, 0, sizeof *args.hash, cuda->main));
  TRY_CUDA(lks_fingerprint_cuda(&args, cuda->main));
  TRY(copy_out(cuda, cuda->mailbox.hash, cuda->layout.hash, sizeof *hash, err));
  TRY_CUDA(cudaStreamSynchronize(cuda->main));
  *hash = *cuda->mailbox.hash;
cleanup:
  return st;
}

static lks_status fingerprint_cuda(void *state, uint64_t *hash, lks_error *err) {
  lks_cuda *cuda = state;
  const lks_status st = lks_hash_floats(cuda, lks_at(cuda, cuda->layout.parameters),
                                        (int64_t)cuda->plan->parameter_floats, hash, err);
  cuda->broken = cuda->broken || st != LKS_OK;
  return st;
}

/* ---- the training table */

static lks_status adopt_cuda(void *state, const lks_resident *table, bool *adopted,
                             lks_error *err) {
  lks_status st = LKS_OK;
  lks_cuda *cuda = state;
  const lks_site *site = &cuda->site;
  lks_layout *layout = &cuda->layout;
  const size_t align = 256;
  const size_t features = (size_t)(table->rows * table->inputs) * sizeof(float);
  const size_t padded = (features + align - 1) / align * align;
  const size_t targets =
      table->targets != NULL ? (size_t)(table->rows * table->outputs) * sizeof(float) : 0;
  *adopted = false;
  if (padded + targets > layout->table_bytes) {
    return LKS_OK;
  }
  layout->table_targets = layout->table + padded;
  TRY(copy_in(cuda, layout->table, table->features, features, err));
  if (targets > 0) {
    TRY(copy_in(cuda, layout->table_targets, table->targets, targets, err));
  }
  TRY_CUDA(cudaStreamSynchronize(cuda->main));
  cuda->adopted = true;
  *adopted = true;
cleanup:
  cuda->broken = cuda->broken || st != LKS_OK;
  return st;
}

/* ---- blocks outside a step */

/* Rows of a block to the device, and how many are live. */
static lks_status bring_block(lks_cuda *cuda, const lks_feed *feed, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t place = cuda->layout.evaluation + offsetof(lks_device_state, orders);
  if (feed->count > 0) {
    TRY(lks_staging_bring(cuda, 0, feed, NULL, err));
  }
  *cuda->mailbox.block = (lks_step_order){.rows = feed->count, .global_rows = feed->count};
  TRY(copy_in(cuda, place, cuda->mailbox.block, sizeof *cuda->mailbox.block, err));
cleanup:
  return st;
}

static lks_status evaluate_cuda(void *state, const lks_feed *feed, lks_block_sums *sums,
                                lks_error *err) {
  lks_status st = LKS_OK;
  lks_cuda *cuda = state;
  const lks_site *site = &cuda->site;
  const int metrics = cuda->plan->model->metric_count;
  TRY(bring_block(cuda, feed, err));
  TRY(lks_launches_run(cuda, &cuda->evaluate, cuda->evaluate.count, err));
  TRY(copy_out(cuda, cuda->mailbox.sums, cuda->layout.sums, (1 + (size_t)metrics) * sizeof(double),
               err));
  TRY_CUDA(cudaStreamSynchronize(cuda->main));
  *sums = (lks_block_sums){.loss = cuda->mailbox.sums[0]};
  for (int i = 0; i < metrics; ++i) {
    sums->metrics[i] = cuda->mailbox.sums[1 + i];
  }
cleanup:
  cuda->broken = cuda->broken || st != LKS_OK;
  return st;
}

static lks_status predict_cuda(void *state, const lks_feed *feed, int layer, float *out,
                               lks_error *err) {
  lks_status st = LKS_OK;
  lks_cuda *cuda = state;
  const lks_site *site = &cuda->site;
  const lks_plan *plan = cuda->plan;
  const lks_tap *tap = &plan->taps[layer >= 0 ? layer : plan->model->layer_count - 1];
  const lks_feed features = {
      .features = feed->features, .index = feed->index, .count = feed->count};
  const size_t place = (size_t)((char *)lks_tensor_at(cuda, tap->offset) - cuda->base);
  TRY(bring_block(cuda, &features, err));
  TRY(lks_launches_run(cuda, &cuda->predict, cuda->predict.ends[tap->ops], err));
  TRY(copy_out(cuda, out, place, (size_t)(feed->count * tap->width) * sizeof *out, err));
  TRY_CUDA(cudaStreamSynchronize(cuda->main));
cleanup:
  cuda->broken = cuda->broken || st != LKS_OK;
  return st;
}

/* ---- telling */

static void describe_cuda(void *state, char *out, size_t size) {
  static const char *const precisions[] = {
      [LKS_FP32] = "fp32", [LKS_TF32] = "tf32", [LKS_BF16] = "bf16"};
  const lks_cuda *cuda = state;
  lks_gpu_versions v = {0};
  lks_gpu_failure failure;
  (void)lks_gpu_cuda.versions(&v, &failure); /* what fails stays 0 */
  (void)snprintf(out, size, "%s, CUDA %d.%d, cuBLASLt %d, NCCL %d, %s", cuda->site.device,
                 v.runtime / 1000, v.runtime % 1000 / 10, v.cublas, v.nccl,
                 precisions[cuda->precision]);
}

static void memory_cuda(void *state, lks_memory_plan *memory) {
  const lks_cuda *cuda = state;
  size_t free_bytes = 0, total = 0;
  *memory = cuda->memory;
  if (cudaMemGetInfo(&free_bytes, &total) == cudaSuccess) {
    memory->free_after = (int64_t)free_bytes;
  }
}

static int choices_cuda(void *state, lks_choice_made *out, int capacity) {
  const lks_cuda *cuda = state;
  int count = 0;
  for (int i = 0; i < cuda->products.count; ++i) {
    if (cuda->products.items[i].used) {
      if (count < capacity) {
        lks_product_describe(&cuda->products.items[i], &out[count]);
      }
      count += 1;
    }
  }
  return count;
}

const lks_backend_ops lks_backend_cuda = {.name = "cuda",
                                          .abi = LKS_BACKEND_ABI,
                                          .lag = LKS_LAG,
                                          .open = open_cuda,
                                          .close = close_cuda,
                                          .restore = restore_cuda,
                                          .snapshot = snapshot_cuda,
                                          .step = lks_step_cuda,
                                          .drain = lks_drain_cuda,
                                          .evaluate = evaluate_cuda,
                                          .predict = predict_cuda,
                                          .adopt = adopt_cuda,
                                          .describe = describe_cuda,
                                          .memory = memory_cuda,
                                          .choices = choices_cuda,
                                          .fingerprint = fingerprint_cuda};
