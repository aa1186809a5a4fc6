/* The byte plan, and the one arena that holds all of it.
 *
 * Everything is laid out before anything is allocated, on a placeholder base: so that cuBLASLt,
 * which reads no more of an address than its alignment, can be asked first how much workspace it
 * wants. Contexts and libraries take device memory of their own: what is free is read after they
 * have, and some is left to them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "base/text.h"

#define PLACE_ALIGNMENT 256
#define PLACEHOLDER ((uintptr_t)1 << 20)
/* Left free for what libraries load or grow later: this share of the device, but at most so many
 * bytes. */
#define HEADROOM_SHARE 32
#define HEADROOM_MOST ((int64_t)256 << 20)

void *lks_at(const lks_cuda *cuda, size_t place) {
  return cuda->base + place;
}

float *lks_tensor_at(const lks_cuda *cuda, size_t plan_offset) {
  const lks_tensor *tensor = cuda->layout.tensors;
  while (tensor->plan != plan_offset) { /* collect_tensors has met every offset there is */
    ++tensor;
  }
  return lks_at(cuda, tensor->place);
}

static size_t take(lks_layout *layout, size_t bytes, int64_t *account) {
  const size_t place = layout->end;
  const size_t padded = (bytes + PLACE_ALIGNMENT - 1) / PLACE_ALIGNMENT * PLACE_ALIGNMENT;
  layout->end += padded;
  *account += (int64_t)padded;
  return place;
}

/* ---- tensors: where the plan has them, they have buffer_rows rows; here, cuda->rows */

static int add_offset(size_t *offsets, int count, size_t offset) {
  for (int i = 0; i < count; ++i) {
    if (offsets[i] == offset) {
      return count;
    }
  }
  offsets[count] = offset;
  return count + 1;
}

static int compare_offsets(const void *a, const void *b) {
  const size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return (x > y) - (x < y);
}

/* All offsets that operations name, in order. Members that an operation leaves alone are 0, which
 * is the input's offset. Returns NULL when memory is out. */
static size_t *collect_offsets(const lks_plan *plan, int *count) {
  const lks_program *programs[] = {&plan->train, &plan->evaluate, &plan->predict};
  const int most = 5 * (plan->train.count + plan->evaluate.count + plan->predict.count) + 4 +
                   plan->model->layer_count;
  size_t *offsets = calloc((size_t)most, sizeof *offsets);
  int n = 0;
  if (offsets == NULL) {
    return NULL;
  }
  n = add_offset(offsets, n, plan->input);
  n = add_offset(offsets, n, plan->targets);
  n = add_offset(offsets, n, plan->prediction);
  for (int i = 0; i < plan->model->layer_count; ++i) {
    n = add_offset(offsets, n, plan->taps[i].offset);
  }
  for (int p = 0; p < 3; ++p) {
    for (int i = 0; i < programs[p]->count; ++i) {
      const lks_op *op = &programs[p]->ops[i];
      const size_t named[] = {op->in, op->out, op->aux, op->y, op->z};
      for (int k = 0; k < 5; ++k) {
        n = add_offset(offsets, n, named[k]);
      }
    }
  }
  qsort(offsets, (size_t)n, sizeof *offsets, compare_offsets);
  *count = n;
  return offsets;
}

static lks_status place_tensors(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_plan *plan = cuda->plan;
  lks_layout *layout = &cuda->layout;
  int count = 0;
  size_t *offsets = collect_offsets(plan, &count);
  TRY_ALLOC(offsets);
  layout->tensors = calloc((size_t)count, sizeof *layout->tensors);
  TRY_ALLOC(layout->tensors);
  for (int i = 0; i < count; ++i) {
    const size_t next = i + 1 < count ? offsets[i + 1] : plan->work_floats;
    /* The padding behind a tensor is under 64 floats, and buffer_rows at least 256. */
    const int64_t width = (int64_t)(next - offsets[i]) / plan->buffer_rows;
    const size_t bytes = (size_t)(width * cuda->rows) * sizeof(float);
    layout->tensors[i].plan = offsets[i];
    layout->tensors[i].place = take(layout, bytes, &cuda->memory.activations);
  }
cleanup:
  free(offsets);
  return st;
}

static lks_status place_masks(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_program *program = &cuda->plan->train;
  lks_layout *layout = &cuda->layout;
  layout->masks = calloc((size_t)program->count, sizeof *layout->masks);
  TRY_ALLOC(layout->masks);
  for (int i = 0; i < program->count; ++i) {
    if (lks_mask_wanted(program, i)) {
      layout->masks[i] = take(layout, lks_relu_mask_bytes(cuda->rows, program->ops[i].outputs),
                              &cuda->memory.activations);
    }
  }
cleanup:
  return st;
}

lks_status lks_layout_make(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_plan *plan = cuda->plan;
  lks_layout *layout = &cuda->layout;
  lks_memory_plan *memory = &cuda->memory;
  const size_t rows = (size_t)cuda->rows;
  const int64_t outputs = plan->model->outputs;
  const int64_t step_blocks = lks_loss_blocks_cuda(plan->share_rows, outputs);
  const int64_t evaluation_blocks = lks_loss_blocks_cuda(LKS_EVALUATION_ROWS, outputs);
  const size_t blocks = (size_t)(step_blocks > evaluation_blocks ? step_blocks : evaluation_blocks);
  const size_t sums = 1 + (size_t)plan->model->metric_count;
  *layout = (lks_layout){0};
  cuda->base = (char *)PLACEHOLDER;
  layout->state = take(layout, sizeof(lks_device_state), &memory->activations);
  layout->evaluation = take(layout, sizeof(lks_device_state), &memory->activations);
  layout->parameters = take(layout, plan->parameter_floats * sizeof(float), &memory->parameters);
  layout->gradients = take(layout, plan->gradient_floats * sizeof(float), &memory->gradients);
  for (int s = 0; s < plan->slots; ++s) {
    layout->slots[s] = take(layout, plan->parameter_floats * sizeof(float), &memory->slots);
  }
  layout->cleared = layout->end;
  TRY(place_tensors(cuda, err));
  TRY(place_masks(cuda, err));
  layout->row_ids = take(layout, rows * sizeof(int64_t), &memory->activations);
  layout->partials = take(layout, blocks * sums * sizeof(double), &memory->activations);
  layout->sums = take(layout, sums * sizeof(double), &memory->activations);
  layout->hash = take(layout, sizeof(uint64_t), &memory->activations);
  for (int s = 0; s < LKS_STAGES; ++s) {
    layout->staged_features[s] =
        take(layout, rows * (size_t)plan->model->inputs * sizeof(float), &memory->data);
    layout->staged_targets[s] =
        take(layout, rows * (size_t)plan->target_columns * sizeof(float), &memory->data);
    layout->staged_ids[s] = take(layout, rows * sizeof(int64_t), &memory->data);
  }
cleanup:
  return st;
}

void lks_layout_free(lks_layout *layout) {
  free(layout->tensors);
  free(layout->masks);
  layout->tensors = NULL;
  layout->masks = NULL;
}

/* ---- taking it */

/* What is short, for the error of an allocation. */
static void describe_shortage(const lks_memory_plan *memory, int64_t headroom, char *out,
                              size_t size) {
  const int64_t parts[] = {memory->parameters,  memory->gradients,  memory->slots,
                           memory->activations, memory->data,       memory->workspace,
                           memory->total,       memory->free_after, headroom};
  char texts[9][32], limit[32];
  for (int i = 0; i < 9; ++i) {
    (void)lks_format_bytes(texts[i], (double)parts[i]);
  }
  const bool limited = memory->limit > 0;
  (void)snprintf(out, size,
                 "needed: %s (parameters %s, gradients %s, optimizer %s, activations %s, data %s, "
                 "workspace %s); free: %s, of which %s stays with libraries%s%s",
                 texts[6], texts[0], texts[1], texts[2], texts[3], texts[4], texts[5], texts[7],
                 texts[8], limited ? "; device.memory_limit: " : "",
                 limited ? lks_format_bytes(limit, (double)memory->limit) : "");
}

/* Room for the training table behind all else. */
static void reserve_table(lks_cuda *cuda, const lks_backend_request *request, int64_t most) {
  lks_layout *layout = &cuda->layout;
  const int64_t wanted = request->resident_bytes + 2 * PLACE_ALIGNMENT;
  const int64_t spare = most - (int64_t)layout->end;
  int64_t bytes = request->resident_bytes > 0 && wanted <= spare ? wanted : 0;
  if (!request->memory_growth && spare > 0) {
    bytes = spare / PLACE_ALIGNMENT * PLACE_ALIGNMENT;
  }
  layout->table_bytes = (size_t)bytes;
  layout->table = take(layout, (size_t)bytes, &cuda->memory.data);
  cuda->memory.total = (int64_t)layout->end;
}

lks_status lks_memory_take(lks_cuda *cuda, const lks_backend_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  lks_layout *layout = &cuda->layout;
  lks_memory_plan *memory = &cuda->memory;
  size_t free_bytes = 0, device_bytes = 0;
  char more[512];
  TRY_CUDA(cudaMemGetInfo(&free_bytes, &device_bytes));
  memory->limit = request->memory_limit;
  memory->device_total = (int64_t)device_bytes;
  memory->free_after = (int64_t)free_bytes;
  layout->workspace = take(layout, lks_products_workspace(&cuda->products), &memory->workspace);
  memory->total = (int64_t)layout->end;
  int64_t headroom = memory->device_total / HEADROOM_SHARE;
  headroom = headroom < HEADROOM_MOST ? headroom : HEADROOM_MOST;
  const int64_t available = memory->free_after - headroom;
  const int64_t most = memory->limit > 0 && memory->limit < available ? memory->limit : available;
  describe_shortage(memory, headroom, more, sizeof more);
  if (memory->total > most) {
    st = lks_failure_report(site, LKS_LIB_CUDA, cudaErrorMemoryAllocation, "the byte plan",
                            __FILE__, __LINE__, more, err);
    if (memory->total <= available) {
      lks_advise(err, "raise device.memory_limit, or use a smaller train.batch_size or more ranks");
    }
    goto cleanup;
  }
  reserve_table(cuda, request, most);
  const cudaError_t code = cudaMalloc(&cuda->arena, layout->end);
  if (code != cudaSuccess) {
    (void)cudaGetLastError(); /* it is told now; the next launch shall not find it */
    cuda->arena = NULL;
    st = lks_failure_report(site, LKS_LIB_CUDA, (int)code, "cudaMalloc(&cuda->arena, layout->end)",
                            __FILE__, __LINE__, code == cudaErrorMemoryAllocation ? more : NULL,
                            err);
    goto cleanup;
  }
  cuda->base = cuda->arena;
  TRY_CUDA(cudaMemsetAsync(cuda->base, 0, layout->cleared, cuda->main));
cleanup:
  return st;
}
