/* Counters: by what the GPU path is tuned where no GPU is. */
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core.h"

namespace sim {

static const char *const names[] = {
    "kernels",        "products",         "collectives",     "graph_launches",   "graph_nodes",
    "nodes_run",      "operations_run",   "host_syncs",      "queries",          "copies_to_device",
    "copies_to_host", "copies_on_device", "bytes_to_device", "bytes_to_host",    "bytes_on_device",
    "fills",          "pageable_copies",  "allocations",     "host_allocations", "frees",
    "findings",
};
constexpr size_t counters = static_cast<size_t>(Counter::count_);
static_assert(sizeof names / sizeof *names == counters, "a name for each counter");

/* Atomic: a finding may come from a thread that touches pinned memory. */
static std::atomic<int64_t> values[counters];

static std::string line() {
  std::string text = "{\"rank\": " + std::to_string(rank());
  for (size_t i = 0; i < counters; ++i)
    text += std::string(", \"") + names[i] + "\": " + std::to_string(values[i].load());
  return text + "}\n";
}

static void write_file() {
  const char *setting = getenv("SIMGPU_COUNTERS");
  if (!setting || !*setting)
    return;
  std::string path = setting;
  const size_t mark = path.find("%r");
  if (mark != std::string::npos)
    path.replace(mark, 2, std::to_string(rank()));
  FILE *file = fopen(path.c_str(), "w");
  const std::string text = line();
  const bool written = file && fputs(text.c_str(), file) >= 0;
  if (!file || fclose(file) != 0 || !written)
    fprintf(stderr, "simgpu: cannot write SIMGPU_COUNTERS=%s\n", path.c_str());
}

[[maybe_unused]] static const int at_exit = atexit(write_file);

void count(Counter counter, int64_t by) {
  values[static_cast<size_t>(counter)] += by;
}

int64_t counted(Counter counter) {
  return values[static_cast<size_t>(counter)];
}

} // namespace sim

extern "C" const char *simgpu_counters() {
  static std::string text;
  text = sim::line();
  return text.c_str();
}

extern "C" long long simgpu_count(const char *name) {
  for (size_t i = 0; i < sim::counters; ++i)
    if (strcmp(sim::names[i], name) == 0)
      return sim::values[i];
  return -1;
}
