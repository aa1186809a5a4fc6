/* Steps as graphs.
 *
 * The first step runs eagerly, so that libraries load and allocate what they do on first use; the
 * second is captured, exchange included, and replayed from then on. What changes from step to step
 * is device data, but for the slot of rows that come from the host: each slot has a graph. Where
 * the device finds the rows itself, a second graph holds several steps. */
#include "backend/cuda/cuda.h"

static lks_status capture(lks_cuda *cuda, int steps, cudaGraphExec_t *exec, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  cudaGraph_t graph = NULL;
  bool capturing = false;
  /* Without it the exchange's stream would lose its priority in the graph. */
  const unsigned long long flags =
      cuda->exchange.own_stream ? cudaGraphInstantiateFlagUseNodePriority : 0;
  TRY_CUDA(cudaStreamBeginCapture(cuda->main, cudaStreamCaptureModeThreadLocal));
  capturing = true;
  for (int i = 0; i < steps; ++i) {
    TRY(lks_launches_run(cuda, &cuda->train, cuda->train.count, err));
  }
  capturing = false;
  TRY_CUDA(cudaStreamEndCapture(cuda->main, &graph));
  TRY_CUDA(cudaGraphInstantiate(exec, graph, flags));
cleanup:
  if (capturing) {
    (void)cudaStreamEndCapture(cuda->main, &graph);
  }
  if (graph != NULL) {
    (void)cudaGraphDestroy(graph);
  }
  return st;
}

lks_status lks_graph_run(lks_cuda *cuda, int slot, int steps, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  lks_graphs *graphs = &cuda->graphs;
  cudaGraphExec_t *exec = steps > 1  ? &graphs->together
                          : slot < 0 ? &graphs->adopted
                                     : &graphs->staged[slot];
  if (*exec == NULL) {
    cuda->train.items[0].as.gather = lks_step_gather(cuda, slot);
  }
  if (!graphs->warm) {
    TRY(lks_launches_run(cuda, &cuda->train, cuda->train.count, err));
    graphs->warm = true;
    return LKS_OK;
  }
  if (*exec == NULL) {
    TRY(capture(cuda, steps, exec, err));
  }
  TRY_CUDA(cudaGraphLaunch(*exec, cuda->main));
cleanup:
  return st;
}

void lks_graphs_free(lks_graphs *graphs) {
  cudaGraphExec_t *const execs[] = {&graphs->staged[0], &graphs->staged[1], &graphs->adopted,
                                    &graphs->together};
  _Static_assert(LKS_STAGES == 2, "every slot's graph is freed");
  for (size_t i = 0; i < sizeof execs / sizeof *execs; ++i) {
    if (*execs[i] != NULL) {
      (void)cudaGraphExecDestroy(*execs[i]);
    }
  }
  *graphs = (lks_graphs){0};
}
