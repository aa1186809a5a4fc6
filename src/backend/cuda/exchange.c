/* Summing gradients over ranks: one NCCL communicator, made once.
 *
 * The gradient arena and the control block behind it are summed in place by ncclSum; gradients are
 * already divided by the rows of the whole batch. Up to a megabyte it is one sum on the main
 * stream. Above, the arena is cut into a few buckets of neighbouring layers, each summed on a
 * stream of its own as soon as backward has made it; the last one takes the control block along.
 *
 * The communicator is blocking: a wait for a dead peer ends by the watchdog of the program, the one
 * deadline of all waits. */
#include <stdio.h>
#include <string.h>

#include "backend/cuda/cuda.h"

#define BUCKET_LEAST ((size_t)1 << 20) /* bytes */

static void plan_buckets(lks_cuda *cuda) {
  const lks_program *program = &cuda->plan->train;
  const size_t floats = cuda->plan->parameter_floats;
  size_t least = floats / LKS_MAX_BUCKETS;
  least = least > BUCKET_LEAST / sizeof(float) ? least : BUCKET_LEAST / sizeof(float);
  lks_nccl *exchange = &cuda->exchange;
  size_t end = floats;
  for (int i = 0; cuda->size > 1 && i < program->count; ++i) {
    const lks_op *op = &program->ops[i]; /* a layer's weights lie before its bias */
    if (op->kind == LKS_OP_DENSE_BACKWARD_WEIGHTS && end - op->weights >= least &&
        op->weights > 0) {
      exchange->buckets[exchange->bucket_count++] =
          (lks_bucket){.first = op->weights, .count = end - op->weights};
      end = op->weights;
    }
  }
  exchange->buckets[exchange->bucket_count++] = (lks_bucket){.first = 0, .count = end};
}

static lks_status open_streams(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  lks_nccl *exchange = &cuda->exchange;
  int lowest = 0, highest = 0;
  exchange->stream = cuda->main;
  if (exchange->bucket_count > 1) {
    TRY_CUDA(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    TRY_CUDA(cudaStreamCreateWithPriority(&exchange->stream, cudaStreamNonBlocking, highest));
    exchange->own_stream = true;
    TRY_CUDA(cudaEventCreateWithFlags(&exchange->done, cudaEventDisableTiming));
    for (int b = 0; b < exchange->bucket_count; ++b) {
      TRY_CUDA(cudaEventCreateWithFlags(&exchange->buckets[b].ready, cudaEventDisableTiming));
    }
  }
cleanup:
  return st;
}

static lks_status make_id(const lks_cuda *cuda, ncclUniqueId *id, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  if (cuda->rank == 0 && cuda->size > 1) {
    TRY_NCCL(ncclGetUniqueId(id));
  }
cleanup:
  return st;
}

static lks_status join(lks_cuda *cuda, const ncclUniqueId *id, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;
  TRY_NCCL(ncclCommInitRankConfig(&cuda->exchange.comm, cuda->size, *id, cuda->rank, &config));
cleanup:
  return st;
}

/* Queues the sum of a bucket of `gradients`, an arena of plan->gradient_floats. */
static lks_status sum_bucket(lks_cuda *cuda, int bucket, float *gradients, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  lks_nccl *exchange = &cuda->exchange;
  const lks_bucket *b = &exchange->buckets[bucket];
  const bool last = bucket == exchange->bucket_count - 1;
  float *first = gradients + b->first, *control = gradients + cuda->plan->parameter_floats;
  const size_t tail = cuda->plan->gradient_floats - cuda->plan->parameter_floats;
  if (exchange->own_stream) {
    TRY_CUDA(cudaEventRecord(b->ready, cuda->main));
    TRY_CUDA(cudaStreamWaitEvent(exchange->stream, b->ready, 0));
  }
  if (exchange->bucket_count == 1) { /* the control block lies right behind */
    TRY_NCCL(ncclAllReduce(first, first, b->count + tail, ncclFloat32, ncclSum, exchange->comm,
                           exchange->stream));
  } else if (last) {
    TRY_NCCL(ncclGroupStart());
    TRY_NCCL(ncclAllReduce(first, first, b->count, ncclFloat32, ncclSum, exchange->comm,
                           exchange->stream));
    TRY_NCCL(ncclAllReduce(control, control, tail, ncclFloat32, ncclSum, exchange->comm,
                           exchange->stream));
    TRY_NCCL(ncclGroupEnd());
  } else {
    TRY_NCCL(ncclAllReduce(first, first, b->count, ncclFloat32, ncclSum, exchange->comm,
                           exchange->stream));
  }
  if (exchange->own_stream && last) {
    TRY_CUDA(cudaEventRecord(exchange->done, exchange->stream));
    TRY_CUDA(cudaStreamWaitEvent(cuda->main, exchange->done, 0));
  }
cleanup:
  return st;
}

static lks_status take_trial(lks_cuda *cuda, void **floats, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const size_t bytes = cuda->plan->gradient_floats * sizeof(float);
  TRY_CUDA(cudaMalloc(floats, bytes));
  TRY_CUDA(cudaMemsetAsync(*floats, 0, bytes, cuda->main));
cleanup:
  return st;
}

/* NCCL connects ranks, and takes device memory for it, at the first sum that needs it: so each
 * bucket is summed once before the arena takes what is free. */
static lks_status try_sums(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  void *floats = NULL;
  TRY(lks_cuda_services->agree(cuda->world, take_trial(cuda, &floats, err), err));
  for (int b = 0; b < cuda->exchange.bucket_count; ++b) {
    TRY(sum_bucket(cuda, b, floats, err));
  }
  TRY_CUDA(cudaEventRecord(cuda->events[0], cuda->main));
  TRY(lks_wait_cuda(cuda, cuda->events[0], err));
cleanup:
  if (floats != NULL && st == LKS_OK) { /* else a sum may never end, and freeing waits for it */
    (void)cudaFree(floats);
  }
  return st;
}

lks_status lks_nccl_open(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  ncclUniqueId id;
  memset(&id, 0, sizeof id);
  plan_buckets(cuda);
  st = open_streams(cuda, err);
  st = st == LKS_OK ? make_id(cuda, &id, err) : st;
  TRY(lks_cuda_services->agree(cuda->world, st, err)); /* none may wait in NCCL for another */
  if (cuda->size == 1) {
    return LKS_OK;
  }
  TRY(lks_cuda_services->broadcast(cuda->world, &id, sizeof id, 0, err));
  TRY(lks_cuda_services->agree(cuda->world, join(cuda, &id, err), err));
  TRY(lks_cuda_services->agree(cuda->world, try_sums(cuda, err), err));
cleanup:
  return st;
}

lks_status lks_nccl_sum(lks_cuda *cuda, int bucket, lks_error *err) {
  return sum_bucket(cuda, bucket, lks_at(cuda, cuda->layout.gradients), err);
}

lks_status lks_nccl_look(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  ncclResult_t met = ncclSuccess;
  if (cuda->exchange.comm != NULL) {
    TRY_NCCL(ncclCommGetAsyncError(cuda->exchange.comm, &met));
    if (met != ncclInProgress) {
      TRY_CODE(LKS_LIB_NCCL, met, "the sum of gradients over ranks");
    }
  }
cleanup:
  return st;
}

/* The documented order: captured steps are gone by now; finalize, wait for it, destroy. */
static void leave(ncclComm_t comm) {
  ncclResult_t state = ncclCommFinalize(comm);
  while (state == ncclSuccess || state == ncclInProgress) {
    if (ncclCommGetAsyncError(comm, &state) != ncclSuccess || state != ncclInProgress) {
      break;
    }
  }
  (void)ncclCommDestroy(comm);
}

void lks_nccl_close(lks_cuda *cuda, bool abandon) {
  lks_nccl *exchange = &cuda->exchange;
  if (exchange->comm != NULL && abandon) {
    (void)ncclCommAbort(exchange->comm);
  } else if (exchange->comm != NULL) {
    leave(exchange->comm);
  }
  for (int b = 0; b < exchange->bucket_count; ++b) {
    if (exchange->buckets[b].ready != NULL) {
      (void)cudaEventDestroy(exchange->buckets[b].ready);
    }
  }
  if (exchange->done != NULL) {
    (void)cudaEventDestroy(exchange->done);
  }
  if (exchange->own_stream) {
    (void)cudaStreamDestroy(exchange->stream);
  }
  *exchange = (lks_nccl){0};
}
