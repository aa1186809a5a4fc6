/* Stream capture: one at a time, over streams that join by waiting for events recorded in it. */
#include <algorithm>

#include "core.h"

namespace sim {

static std::unique_ptr<Capture> &active() {
  static auto *const one = new std::unique_ptr<Capture>;
  return *one;
}

Capture *capture_now() {
  return active().get();
}

void capture_breaks(Capture &capture) {
  capture.valid = false;
}

cudaError_t capture_forbids() {
  Capture *capture = capture_now();
  if (!capture || capture->mode == cudaStreamCaptureModeRelaxed)
    return cudaSuccess;
  capture_breaks(*capture);
  return cudaErrorStreamCaptureUnsupported;
}

cudaError_t capture_crosses(const Stream &stream) {
  Capture *capture = capture_now();
  if (!capture || stream.lane != legacy_lane)
    return cudaSuccess;
  for (const Stream *captured : capture->streams)
    if (captured->blocking) {
      capture_breaks(*capture);
      return cudaErrorStreamCaptureImplicit;
    }
  return cudaSuccess;
}

cudaError_t capture_begin(Stream &stream, cudaStreamCaptureMode mode) {
  static uint64_t captures;
  if (stream.lane == legacy_lane)
    return cudaErrorStreamCaptureUnsupported;
  if (stream.capture)
    return cudaErrorIllegalState;
  if (capture_now()) {
    finding(Kind::unmodelled, "two captures at a time");
    return cudaErrorNotSupported;
  }
  active().reset(new Capture);
  Capture &capture = *capture_now();
  capture.origin = &stream;
  capture.mode = mode;
  capture.graph.reset(new Graph);
  capture.id = ++captures;
  capture_join(stream, capture, {});
  return cudaSuccess;
}

void capture_join(Stream &stream, Capture &capture, const std::vector<size_t> &frontier) {
  if (!stream.capture) {
    stream.capture = &capture;
    capture.streams.push_back(&stream);
  }
  for (const size_t node : frontier)
    if (std::find(stream.frontier.begin(), stream.frontier.end(), node) == stream.frontier.end())
      stream.frontier.push_back(node);
}

cudaError_t capture_add(Stream &stream, Op op) {
  Capture &capture = *stream.capture;
  if (!capture.valid)
    return cudaErrorStreamCaptureInvalidated;
  std::vector<Node> &nodes = capture.graph->nodes;
  Node node;
  node.op = std::move(op);
  node.after = stream.frontier;
  nodes.push_back(std::move(node));
  stream.frontier = {nodes.size() - 1};
  return cudaSuccess;
}

/* Whether all that the other streams captured is before the origin's end. */
static bool joined(const Capture &capture) {
  const std::vector<Node> &nodes = capture.graph->nodes;
  std::vector<bool> before(nodes.size());
  for (const size_t node : capture.origin->frontier)
    before[node] = true;
  for (size_t i = nodes.size(); i-- > 0;)
    if (before[i])
      for (const size_t earlier : nodes[i].after)
        before[earlier] = true;
  for (const Stream *stream : capture.streams)
    for (const size_t node : stream->frontier)
      if (!before[node])
        return false;
  return true;
}

/* A node goes on with the branch of a predecessor that no other node goes on with. */
static void assign_branches(Graph &graph) {
  std::vector<bool> continued(graph.nodes.size());
  for (Node &node : graph.nodes) {
    const auto free = std::find_if(node.after.begin(), node.after.end(),
                                   [&](size_t earlier) { return !continued[earlier]; });
    if (free == node.after.end()) {
      node.branch = graph.branches++;
      continue;
    }
    node.branch = graph.nodes[*free].branch;
    continued[*free] = true;
  }
}

cudaError_t capture_end(Stream &stream, std::unique_ptr<Graph> &graph) {
  if (!stream.capture)
    return cudaErrorIllegalState;
  Capture &capture = *stream.capture;
  if (capture.origin != &stream) {
    capture_breaks(capture);
    return cudaErrorStreamCaptureUnmatched;
  }
  cudaError_t code = cudaSuccess;
  if (!capture.valid)
    code = cudaErrorStreamCaptureInvalidated;
  else if (!joined(capture))
    code = cudaErrorStreamCaptureUnjoined;
  if (code == cudaSuccess) {
    assign_branches(*capture.graph);
    graph = std::move(capture.graph);
  }
  capture_drop();
  return code;
}

void capture_drop() {
  if (!capture_now())
    return;
  for (Stream *stream : capture_now()->streams) {
    stream->capture = nullptr;
    stream->frontier.clear();
  }
  active().reset();
}

} // namespace sim
