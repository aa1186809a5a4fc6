/* What the files of the substitute runtime share: the way in and out of each call. */
#ifndef SIMGPU_CUDART_H
#define SIMGPU_CUDART_H

#include <cuda_runtime_api.h>

#include "core.h"

namespace sim {

/* What a call needs before it does anything. */
enum class Need {
  nothing,
  driver, /* else 35 */
  device, /* one at least (100), that did not fail (its sticky error) */
};

/* The code to answer at once; cudaSuccess: go on. Counts the call for injected faults. */
cudaError_t enter(const char *name, Need need);
/* The code, remembered for cudaGetLastError. */
cudaError_t leave(cudaError_t code);
/* Codes after which a device answers nothing else. */
bool sticky(cudaError_t code);

template <class Body> cudaError_t call(const char *name, Need need, Body body) {
  const cudaError_t code = enter(name, need);
  if (need == Need::device && sticky(code))
    device_fails(code);
  return leave(code != cudaSuccess ? code : body());
}

template <class Body> cudaError_t call(const char *name, Body body) {
  return call(name, Need::device, body);
}

/* For calls that enqueue: an injected code that is sticky comes when the operation runs, not now.
 */
template <class Body> cudaError_t call_async(const char *name, cudaStream_t stream, Body body) {
  const cudaError_t before = device_error();
  cudaError_t code = enter(name, Need::device);
  if (before == cudaSuccess && sticky(code) && !capturing(stream)) {
    Op op;
    op.name = "failing operation";
    op.run = [code] { device_fails(code); };
    code = enqueue(stream, std::move(op));
  } else if (code == cudaSuccess) {
    code = body();
  }
  return leave(code);
}

/* The answer of a call that waited. */
inline cudaError_t waited() {
  count(Counter::host_syncs);
  return device_error();
}

} // namespace sim

#endif
