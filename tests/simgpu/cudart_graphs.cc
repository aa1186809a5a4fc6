/* Runtime calls on captures and graphs. A launch issues every node anew, each branch on a lane of
 * its own, and an end that the stream goes on from. */
#include <set>

#include "cudart.h"

namespace sim {

struct Executable {
  bool alive = true;
  Graph graph;
  std::vector<unsigned> lanes; /* of its branches */
  TaskPtr last;                /* the end of its last launch: it never overlaps itself */
};

/* Graphs and their executables stay, so that destroyed handles are known as such. */
struct Handles {
  std::set<Executable *> executables;
  std::set<Graph *> graphs;
};

static Handles &handles() {
  static auto *const all = new Handles;
  return *all;
}

static Graph *graph_of(cudaGraph_t handle) {
  auto *graph = reinterpret_cast<Graph *>(handle);
  if (handles().graphs.count(graph))
    return graph;
  finding(Kind::handle, "%p is no graph, or was destroyed", static_cast<void *>(handle));
  return nullptr;
}

static Executable *executable_of(cudaGraphExec_t handle) {
  auto *executable = reinterpret_cast<Executable *>(handle);
  if (handles().executables.count(executable) && executable->alive)
    return executable;
  finding(Kind::handle, "%p is no graph to launch, or was destroyed", static_cast<void *>(handle));
  return nullptr;
}

static cudaError_t end_capture(cudaStream_t handle, cudaGraph_t *out) {
  Stream *stream = stream_of(handle);
  if (!stream || !out)
    return !stream ? cudaErrorInvalidResourceHandle : cudaErrorInvalidValue;
  *out = nullptr;
  std::unique_ptr<Graph> graph;
  if (const cudaError_t code = capture_end(*stream, graph))
    return code;
  handles().graphs.insert(graph.get());
  *out = reinterpret_cast<cudaGraph_t>(graph.release());
  return cudaSuccess;
}

static cudaError_t is_capturing(cudaStream_t handle, cudaStreamCaptureStatus *status) {
  const Stream *stream = stream_of(handle);
  if (!stream || !status)
    return !stream ? cudaErrorInvalidResourceHandle : cudaErrorInvalidValue;
  if (const cudaError_t code = capture_crosses(*stream))
    return code;
  *status = !stream->capture         ? cudaStreamCaptureStatusNone
            : stream->capture->valid ? cudaStreamCaptureStatusActive
                                     : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

static cudaError_t instantiate(cudaGraphExec_t *out, cudaGraph_t handle, unsigned long long flags) {
  const Graph *graph = graph_of(handle);
  if (!graph || !out)
    return cudaErrorInvalidValue;
  if (flags & ~static_cast<unsigned long long>(cudaGraphInstantiateFlagUseNodePriority)) {
    finding(Kind::unmodelled, "cudaGraphInstantiate with flags %llu", flags);
    return cudaErrorInvalidValue;
  }
  auto *executable = new Executable;
  executable->graph = *graph;
  for (unsigned i = 0; i < graph->branches; ++i)
    executable->lanes.push_back(take_lane());
  handles().executables.insert(executable);
  const auto nodes = static_cast<int64_t>(graph->nodes.size());
  count(Counter::graph_nodes, nodes - counted(Counter::graph_nodes));
  *out = reinterpret_cast<cudaGraphExec_t>(executable);
  return cudaSuccess;
}

static void issue_graph(Executable &executable, Stream &stream) {
  std::vector<TaskPtr> before = before_in(stream);
  before.push_back(executable.last);
  std::vector<TaskPtr> tasks;
  for (const Node &node : executable.graph.nodes) {
    std::vector<TaskPtr> after;
    for (const size_t earlier : node.after)
      after.push_back(tasks[earlier]);
    tasks.push_back(issue(node.op, executable.lanes[node.branch], after.empty() ? before : after));
  }
  tasks.insert(tasks.end(), before.begin(), before.end());
  Op end;
  end.name = "end of a graph";
  stream.last = executable.last = issue(std::move(end), stream.lane, tasks);
}

static cudaError_t launch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  Executable *executable = executable_of(handle);
  Stream *stream = stream_of(stream_handle);
  if (!executable || !stream)
    return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    finding(Kind::unmodelled, "a graph inside a captured graph");
    return cudaErrorNotSupported;
  }
  if (const cudaError_t code = capture_crosses(*stream))
    return code;
  issue_graph(*executable, *stream);
  count(Counter::graph_launches);
  count(Counter::nodes_run, static_cast<int64_t>(executable->graph.nodes.size()));
  maybe_progress();
  return cudaSuccess;
}

static cudaError_t get_nodes(Graph *graph, cudaGraphNode_t *nodes, size_t *number) {
  if (!graph || !number)
    return cudaErrorInvalidValue;
  if (!nodes) {
    *number = graph->nodes.size();
    return cudaSuccess;
  }
  for (size_t i = 0; i < *number; ++i)
    nodes[i] =
        i < graph->nodes.size() ? reinterpret_cast<cudaGraphNode_t>(&graph->nodes[i]) : nullptr;
  *number = std::min(*number, graph->nodes.size());
  return cudaSuccess;
}

static cudaError_t destroy(cudaGraphExec_t handle) {
  Executable *executable = executable_of(handle);
  if (!executable)
    return cudaErrorInvalidResourceHandle;
  executable->alive = false;
  executable->graph = Graph();
  executable->last = nullptr;
  for (const unsigned lane : executable->lanes)
    release_lane(lane);
  return cudaSuccess;
}

} // namespace sim

using namespace sim;

extern "C" cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return call("cudaStreamBeginCapture", [&] {
    Stream *stream = stream_of(handle);
    return stream ? capture_begin(*stream, mode) : cudaErrorInvalidResourceHandle;
  });
}

extern "C" cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  return call("cudaStreamEndCapture", [&] { return end_capture(stream, graph); });
}

extern "C" cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
  return call("cudaStreamIsCapturing", [&] { return is_capturing(stream, status); });
}

extern "C" cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                            unsigned long long flags) {
  return call("cudaGraphInstantiate", [&] { return instantiate(executable, graph, flags); });
}

extern "C" cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes,
                                         size_t *number) {
  return call("cudaGraphGetNodes", [&] { return get_nodes(graph_of(graph), nodes, number); });
}

extern "C" cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return call_async("cudaGraphLaunch", stream, [&] { return launch(executable, stream); });
}

extern "C" cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return call("cudaGraphExecDestroy", [&] { return destroy(executable); });
}

extern "C" cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  return call("cudaGraphDestroy", [&] {
    Graph *graph = graph_of(handle);
    if (!graph)
      return cudaErrorInvalidValue;
    handles().graphs.erase(graph);
    delete graph;
    return cudaSuccess;
  });
}
