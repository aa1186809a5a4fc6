/* Rows from the host: gathered into a pinned slot, copied to a device slot on a stream of their
 * own while the step before still computes. Two of each: the host fills one while the other is
 * under way. */
#include <string.h>

#include "backend/cuda/cuda.h"

#define PAGE 4096 /* slots share no page: a host access to one never touches another's */

static size_t pages(size_t bytes) {
  return (bytes + PAGE - 1) / PAGE * PAGE;
}

lks_status lks_staging_open(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const lks_plan *plan = cuda->plan;
  lks_staging *staging = &cuda->staging;
  const size_t rows = (size_t)cuda->rows;
  const size_t features = pages(rows * (size_t)plan->model->inputs * sizeof(float));
  const size_t targets = pages(rows * (size_t)plan->target_columns * sizeof(float));
  const size_t ids = pages(rows * sizeof(int64_t));
  TRY_CUDA(cudaHostAlloc(&staging->pinned, LKS_STAGES * (features + targets + ids),
                         cudaHostAllocDefault));
  char *next = staging->pinned;
  for (int s = 0; s < LKS_STAGES; ++s) {
    staging->features[s] = (float *)(void *)next;
    staging->targets[s] = (float *)(void *)(next + features);
    staging->ids[s] = (int64_t *)(void *)(next + features + targets);
    next += features + targets + ids;
    TRY_CUDA(cudaEventCreateWithFlags(&staging->copied[s], cudaEventDisableTiming));
  }
cleanup:
  return st;
}

void lks_staging_close(lks_staging *staging) {
  for (int s = 0; s < LKS_STAGES; ++s) {
    if (staging->copied[s] != NULL) {
      (void)cudaEventDestroy(staging->copied[s]);
    }
  }
  if (staging->pinned != NULL) {
    (void)cudaFreeHost(staging->pinned);
  }
  *staging = (lks_staging){0};
}

static void gather(const float *base, const int64_t *index, int64_t count, int64_t width,
                   float *out) {
  const size_t bytes = (size_t)width * sizeof *out;
  if (index == NULL) {
    memcpy(out, base, (size_t)count * bytes);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    memcpy(out + i * width, base + index[i] * width, bytes);
  }
}

static lks_status copy(lks_cuda *cuda, size_t place, const void *from, size_t bytes,
                       lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  TRY_CUDA(cudaMemcpyAsync(lks_at(cuda, place), from, bytes, cudaMemcpyHostToDevice, cuda->copy));
cleanup:
  return st;
}

lks_status lks_staging_bring(lks_cuda *cuda, int slot, const lks_feed *feed, cudaEvent_t free,
                             lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const lks_plan *plan = cuda->plan;
  lks_staging *staging = &cuda->staging;
  const int64_t inputs = plan->model->inputs, columns = plan->target_columns;
  const size_t count = (size_t)feed->count;
  if (staging->in_flight[slot]) {
    TRY(lks_wait_cuda(cuda, staging->copied[slot], err));
    staging->in_flight[slot] = false;
  }
  gather(feed->features, feed->index, feed->count, inputs, staging->features[slot]);
  if (feed->targets != NULL) {
    gather(feed->targets, feed->index, feed->count, columns, staging->targets[slot]);
  }
  if (free != NULL) {
    TRY_CUDA(cudaStreamWaitEvent(cuda->copy, free, 0));
  }
  TRY(copy(cuda, cuda->layout.staged_features[slot], staging->features[slot],
           count * (size_t)inputs * sizeof(float), err));
  if (feed->targets != NULL) {
    TRY(copy(cuda, cuda->layout.staged_targets[slot], staging->targets[slot],
             count * (size_t)columns * sizeof(float), err));
  }
  if (cuda->needs_ids && feed->row_ids != NULL) {
    memcpy(staging->ids[slot], feed->row_ids, count * sizeof(int64_t));
    TRY(copy(cuda, cuda->layout.staged_ids[slot], staging->ids[slot], count * sizeof(int64_t),
             err));
  }
  TRY_CUDA(cudaEventRecord(staging->copied[slot], cuda->copy));
  staging->in_flight[slot] = true;
  TRY_CUDA(cudaStreamWaitEvent(cuda->main, staging->copied[slot], 0));
cleanup:
  return st;
}
