/* The end of a step: finite check and control block, then, after the exchange, the update.
 *
 * Both read or write whole arenas, four floats a thread at a time, and both end in the last block
 * of the launch, which alone sees what all blocks did (lks_last_block). Also the fingerprint. */
#include "backend/cuda/kernels_device.h"

/* Four neighbouring floats, moved as one. */
struct alignas(16) lks_quad {
  float v[4];
};

static inline __device__ bool is_finite(float value) {
  return value - value == 0.0f;
}

#define FOR_QUADS(i, count)                                                                        \
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (count) / 4;                \
       i += (int64_t)gridDim.x * blockDim.x)

/* ---- seal */

/* As lks_control_put_real and lks_control_put_count. */
static inline __device__ void put_real(float *pair, double value) {
  pair[0] = (float)value;
  pair[1] = is_finite(pair[0]) ? (float)(value - (double)pair[0]) : 0.0f;
}

static inline __device__ void put_count(float *pair, int64_t count) {
  const int64_t low = count & 4095;
  pair[0] = (float)(count - low);
  pair[1] = (float)low;
}

/* Value v of all partials, added up by one warp in an order of its own: in all its lanes. */
static inline __device__ double add_partials(const lks_seal_args *a, int v) {
  double sum = 0.0;
  for (int64_t i = threadIdx.x % LKS_WARP_LANES; i < a->partial_count; i += LKS_WARP_LANES) {
    sum += a->partials[i * (1 + a->metric_count) + v];
  }
  for (int step = LKS_WARP_LANES / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(LKS_ALL_LANES, sum, step);
  }
  return sum;
}

/* What stands in the control block beside sums. The loss is checked too: where a row's loss is not
 * finite, or no float holds it, its gradient may be finite. */
static inline __device__ void put_votes(const lks_seal_args *a, double loss) {
  const lks_step_order *order = lks_order_of(a->state);
  const bool holds = is_finite((float)loss);
  const bool bad = atomicOr(&a->state->not_finite, holds ? 0 : 1) != 0;
  put_count(a->control + LKS_CONTROL_ROWS, order->rows);
  a->control[LKS_CONTROL_STOP] = (float)order->stop;
  a->control[LKS_CONTROL_SAVE] = (float)order->save;
  a->control[LKS_CONTROL_FAILED] = (float)order->failed;
  a->control[LKS_CONTROL_NOT_FINITE] = bad || !holds ? 1.0f : 0.0f;
}

/* One value of the control block and of the sums, by lane 0 of a warp. */
static inline __device__ void put_value(const lks_seal_args *a, int v, double sum) {
  if (a->sums != NULL) {
    a->sums[v] = sum;
  }
  if (a->control != NULL) {
    put_real(a->control + (v == 0 ? LKS_CONTROL_LOSS : LKS_CONTROL_METRICS + 2 * (v - 1)), sum);
    if (v == 0) {
      put_votes(a, sum);
    }
  }
}

LKS_KERNEL(lks_seal_kernel, lks_seal_args) {
  const lks_quad *gradients = (const lks_quad *)a.gradients;
  bool finite = true;
  FOR_QUADS(i, a.count) {
    const lks_quad g = gradients[i];
    finite =
        finite && is_finite(g.v[0]) && is_finite(g.v[1]) && is_finite(g.v[2]) && is_finite(g.v[3]);
  }
  if (!finite) {
    atomicOr(&a.state->not_finite, 1);
  }
  if ((a.control == NULL && a.sums == NULL) || !lks_last_block(&a.state->tickets[0])) {
    return;
  }
  for (int v = (int)threadIdx.x / LKS_WARP_LANES; v < 1 + LKS_MAX_METRICS;
       v += LKS_BLOCK_THREADS / LKS_WARP_LANES) {
    if (v <= a.metric_count) {
      const double sum = add_partials(&a, v);
      if (threadIdx.x % LKS_WARP_LANES == 0) {
        put_value(&a, v, sum);
      }
    } else if (a.control != NULL && threadIdx.x % LKS_WARP_LANES == 0) {
      put_real(a.control + LKS_CONTROL_METRICS + 2 * (v - 1), 0.0);
    }
  }
}

extern "C" int lks_seal_cuda(const lks_seal_args *args, struct CUstream_st *stream) {
  return LKS_LAUNCH(lks_seal_kernel, lks_flat_blocks(args->count / 4), LKS_BLOCK_THREADS, stream,
                    *args);
}

/* ---- update: formulas of src/backend/cpu/update.c, one quad at a time; each tells whether what it
 * leaves is finite */

static inline __device__ bool all_finite(const lks_quad *quad) {
  return is_finite(quad->v[0]) && is_finite(quad->v[1]) && is_finite(quad->v[2]) &&
         is_finite(quad->v[3]);
}

static inline __device__ bool sgd(const lks_update_args *a, const lks_update *u) {
  const lks_quad *gradients = (const lks_quad *)a->gradients;
  lks_quad *parameters = (lks_quad *)a->parameters;
  bool finite = true;
  FOR_QUADS(i, a->count) {
    const lks_quad g = gradients[i];
    lks_quad w = parameters[i];
    for (int k = 0; k < 4; ++k) {
      w.v[k] -= u->learning_rate * g.v[k];
    }
    parameters[i] = w;
    finite = finite && all_finite(&w);
  }
  return finite;
}

static inline __device__ bool momentum(const lks_update_args *a, const lks_update *u) {
  const lks_quad *gradients = (const lks_quad *)a->gradients;
  lks_quad *parameters = (lks_quad *)a->parameters;
  lks_quad *velocities = (lks_quad *)a->slots[0];
  bool finite = true;
  FOR_QUADS(i, a->count) {
    const lks_quad g = gradients[i];
    lks_quad w = parameters[i], m = velocities[i];
    for (int k = 0; k < 4; ++k) {
      const float step = u->learning_rate * g.v[k];
      const float velocity = u->momentum * m.v[k] - step;
      m.v[k] = velocity;
      w.v[k] += u->nesterov ? u->momentum * velocity - step : velocity;
    }
    velocities[i] = m;
    parameters[i] = w;
    finite = finite && all_finite(&w);
  }
  return finite;
}

/* Plain Adam has decay 0. */
static inline __device__ bool adam(const lks_update_args *a, const lks_update *u) {
  const lks_quad *gradients = (const lks_quad *)a->gradients;
  lks_quad *parameters = (lks_quad *)a->parameters;
  lks_quad *means = (lks_quad *)a->slots[0], *squares = (lks_quad *)a->slots[1];
  bool finite = true;
  FOR_QUADS(i, a->count) {
    const lks_quad g = gradients[i];
    lks_quad w = parameters[i], m = means[i], s = squares[i];
    for (int k = 0; k < 4; ++k) {
      m.v[k] += (g.v[k] - m.v[k]) * u->one_minus_beta_1;
      s.v[k] += (g.v[k] * g.v[k] - s.v[k]) * u->one_minus_beta_2;
      w.v[k] = (w.v[k] - w.v[k] * u->decay) - u->alpha * m.v[k] / (sqrtf(s.v[k]) + u->epsilon);
    }
    means[i] = m;
    squares[i] = s;
    parameters[i] = w;
    finite = finite && all_finite(&w);
  }
  return finite;
}

static inline __device__ bool update_all(const lks_update_args *a, const lks_update *u) {
  switch (u->id) {
  case LKS_OPTIMIZER_SGD:
    return a->slots[0] == NULL ? sgd(a, u) : momentum(a, u);
  case LKS_OPTIMIZER_ADAM:
  case LKS_OPTIMIZER_ADAMW:
    return adam(a, u);
  case LKS_OPTIMIZER_COUNT:
    break;
  }
  return true;
}

/* Tells the host, and moves on to the next step. One thread, after all blocks have read the state
 * for the last time. */
static inline __device__ void end_step(const lks_update_args *a, bool halted) {
  lks_device_state *state = a->state;
  lks_published *slot = a->ring + (uint64_t)state->done % (uint64_t)a->ring_slots;
  for (int i = 0; i < LKS_CONTROL_FLOATS; ++i) {
    slot->control[i] = a->control[i];
  }
  slot->not_finite_here = state->not_finite;
  slot->halted = halted ? 1 : 0;
  __threadfence_system();
  slot->sequence = lks_order_of(state)->step;
  state->halted = halted ? 1 : 0;
  state->not_finite = atomicExch(&state->not_finite_next, 0);
  state->done += 1;
}

LKS_KERNEL(lks_update_kernel, lks_update_args) {
  const bool halted = a.state->halted != 0 || a.control[LKS_CONTROL_FAILED] != 0.0f ||
                      a.control[LKS_CONTROL_NOT_FINITE] != 0.0f ||
                      !is_finite(a.control[LKS_CONTROL_LOSS]);
  const lks_update update = lks_order_of(a.state)->update;
  if (!halted && !update_all(&a, &update)) {
    atomicOr(&a.state->not_finite_next, 1);
  }
  if (lks_last_block(&a.state->tickets[1]) && threadIdx.x == 0) {
    end_step(&a, halted);
  }
}

extern "C" int lks_update_cuda(const lks_update_args *args, struct CUstream_st *stream) {
  return LKS_LAUNCH(lks_update_kernel, lks_flat_blocks(args->count / 4), LKS_BLOCK_THREADS, stream,
                    *args);
}

/* ---- others */

LKS_KERNEL(lks_fingerprint_kernel, lks_fingerprint_args) {
  unsigned long long sum = 0;
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += stride) {
    sum += lks_fingerprint_term((uint64_t)i, __float_as_uint(a.values[i]));
  }
  for (int step = LKS_WARP_LANES / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(LKS_ALL_LANES, sum, step);
  }
  if (threadIdx.x % LKS_WARP_LANES == 0) {
    atomicAdd(a.hash, sum);
  }
}

extern "C" int lks_fingerprint_cuda(const lks_fingerprint_args *args, struct CUstream_st *stream) {
  return LKS_LAUNCH(lks_fingerprint_kernel, lks_flat_blocks(args->count), LKS_BLOCK_THREADS, stream,
                    *args);
}

/* A launch with no arguments needs some. */
typedef struct lks_nothing_args {
  int unused;
} lks_nothing_args;

LKS_KERNEL(lks_nothing_kernel, lks_nothing_args) {
  (void)a;
}

extern "C" int lks_nothing_cuda(struct CUstream_st *stream) {
  const lks_nothing_args args = {0};
  return LKS_LAUNCH(lks_nothing_kernel, 1, 1, stream, args);
}
