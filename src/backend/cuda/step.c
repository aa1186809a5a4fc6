/* One update: its order to the device, its rows, its launches, and the control block of the step
 * LKS_LAG before it.
 *
 * Step n since the last restore uses slot n % LKS_RING_SLOTS of the mailbox. A slot is used again
 * only after its control block was read, which more slots than lag see to. Where the device finds
 * the rows itself, orders are held back until LKS_TOGETHER of them go out as one copy and one
 * replay; the lag is two of these, so that one is always queued behind the one that runs. All ranks
 * are given the same steps, so they hold back and launch alike. */
#include <sched.h>
#include <stddef.h>

#include "backend/cuda/cuda.h"

_Static_assert(LKS_RING_SLOTS > LKS_LAG && LKS_LAG >= 2 * LKS_TOGETHER &&
                   LKS_ORDER_SLOTS % LKS_RING_SLOTS == 0,
               "no slot is used twice, and a copy that fits one ring fits the other");

/* Queries before the host gives its core away between two of them, and between two looks at what
 * the exchange has met. */
#define EAGER_QUERIES 100
#define LOOK_EVERY 64

lks_status lks_wait_cuda(lks_cuda *cuda, cudaEvent_t event, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  for (int64_t queries = 1;; ++queries) {
    const cudaError_t code = cudaEventQuery(event);
    if (code == cudaSuccess) {
      break;
    }
    if (code != cudaErrorNotReady) {
      TRY_CODE(LKS_LIB_CUDA, code, "cudaEventQuery(event)");
    }
    (void)cudaGetLastError(); /* no error, but it would be found after the next launch */
    if (queries % LOOK_EVERY == 0) {
      TRY(lks_nccl_look(cuda, err));
    }
    if (queries > EAGER_QUERIES) {
      (void)sched_yield();
    }
  }
cleanup:
  return st;
}

/* ---- ordering and launching */

static void write_order(lks_cuda *cuda, const lks_step *step, int64_t rows) {
  const int64_t n = cuda->ordered;
  lks_step_order *order = &cuda->mailbox.orders[n % LKS_RING_SLOTS];
  *order =
      (lks_step_order){.step = step->step,
                       .rows = rows,
                       .global_rows = step->global_rows,
                       .update = lks_optimizer_update(&cuda->plan->model->optimizer, step->step),
                       .stop = step->votes.stop,
                       .save = step->votes.save,
                       .failed = step->votes.failed};
  if (rows > 0 && step->feed->places != NULL) {
    order->places = *step->feed->places;
  }
  cuda->ordered = n + 1;
}

/* Orders [first, first + count): in one copy, but where they run over the end of the ring. */
static lks_status send_orders(lks_cuda *cuda, int64_t first, int64_t count, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const size_t orders = cuda->layout.state + offsetof(lks_device_state, orders);
  while (count > 0) {
    const int64_t from = first % LKS_RING_SLOTS;
    const int64_t n = count < LKS_RING_SLOTS - from ? count : LKS_RING_SLOTS - from;
    const size_t place = orders + (size_t)(first % LKS_ORDER_SLOTS) * sizeof(lks_step_order);
    TRY_CUDA(cudaMemcpyAsync(lks_at(cuda, place), &cuda->mailbox.orders[from],
                             (size_t)n * sizeof(lks_step_order), cudaMemcpyHostToDevice,
                             cuda->main));
    first += n;
    count -= n;
  }
cleanup:
  return st;
}

/* The next steps that are ordered, by one replay. */
static lks_status launch(lks_cuda *cuda, int slot, int steps, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const cudaEvent_t event = cuda->events[(cuda->launched + steps - 1) % LKS_RING_SLOTS];
  TRY(send_orders(cuda, cuda->launched, steps, err));
  TRY(lks_graph_run(cuda, slot, steps, err));
  TRY_CUDA(cudaEventRecord(event, cuda->main));
  for (int i = 0; i < steps; ++i) {
    cuda->done[(cuda->launched + i) % LKS_RING_SLOTS] = event;
  }
  cuda->launched += steps;
cleanup:
  return st;
}

/* All steps that are held back; they take their rows from the adopted table. */
static lks_status launch_held(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  while (cuda->launched < cuda->ordered) {
    const bool together = cuda->ordered - cuda->launched == LKS_TOGETHER && cuda->graphs.warm;
    TRY(launch(cuda, -1, together ? LKS_TOGETHER : 1, err));
  }
cleanup:
  return st;
}

/* Orders and launches a step whose rows come from the host. Its device slot is free when the step
 * before the last is done. */
static lks_status launch_staged(lks_cuda *cuda, const lks_step *step, int64_t rows,
                                lks_error *err) {
  lks_status st = LKS_OK;
  TRY(launch_held(cuda, err));
  const int64_t n = cuda->ordered;
  const int slot = (int)(n % LKS_STAGES);
  if (rows > 0) {
    const int64_t before = (n + LKS_RING_SLOTS - LKS_STAGES) % LKS_RING_SLOTS;
    const cudaEvent_t free = n < LKS_STAGES ? NULL : cuda->done[before];
    TRY(lks_staging_bring(cuda, slot, step->feed, free, err));
  }
  write_order(cuda, step, rows);
  TRY(launch(cuda, slot, 1, err));
cleanup:
  return st;
}

/* ---- the contract */

/* The control block of the oldest step that is launched and not read. */
static lks_status read_oldest(lks_cuda *cuda, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t slot = cuda->read % LKS_RING_SLOTS;
  const lks_published *published = &cuda->mailbox.ring[slot];
  const int64_t step = cuda->mailbox.orders[slot].step;
  TRY(lks_wait_cuda(cuda, cuda->done[slot], err));
  TRY(lks_nccl_look(cuda, err));
  if (published->sequence != step) {
    FAIL(LKS_INTERNAL, "report it, with the log", "the device reports step %lld as step %lld",
         (long long)step, (long long)published->sequence);
  }
  lks_control_decode(published->control, control);
  control->step = step;
  control->not_finite_here = published->not_finite_here != 0;
  cuda->read += 1;
cleanup:
  return st;
}

lks_status lks_step_cuda(void *state, const lks_step *step, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_cuda *cuda = state;
  const int64_t rows = step->votes.failed ? 0 : step->feed->count;
  *control = (lks_control){0};
  if (cuda->adopted && (rows == 0 || step->feed->places != NULL)) {
    write_order(cuda, step, rows);
    if (cuda->ordered - cuda->launched == LKS_TOGETHER || !cuda->graphs.warm) {
      TRY(launch_held(cuda, err));
    }
  } else {
    TRY(launch_staged(cuda, step, rows, err));
  }
  if (cuda->ordered - cuda->read > LKS_LAG) {
    TRY(read_oldest(cuda, control, err));
  }
cleanup:
  cuda->broken = cuda->broken || st != LKS_OK;
  return st;
}

lks_status lks_drain_cuda(void *state, lks_control *control, lks_error *err) {
  lks_status st = LKS_OK;
  lks_cuda *cuda = state;
  *control = (lks_control){0};
  TRY(launch_held(cuda, err));
  if (cuda->read < cuda->launched) {
    TRY(read_oldest(cuda, control, err));
  }
cleanup:
  cuda->broken = cuda->broken || st != LKS_OK;
  return st;
}
