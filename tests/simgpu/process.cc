/* The process: rank, seed, findings. */
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#include "core.h"

namespace sim {

static int launcher_number(const char *const *names, int otherwise) {
  for (; *names; ++names) {
    const char *text = getenv(*names);
    if (text && *text)
      return atoi(text);
  }
  return otherwise;
}

int rank() {
  static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK",
                                      "SLURM_PROCID", nullptr};
  static const int value = launcher_number(names, 0);
  return value;
}

int ranks() {
  static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS", nullptr};
  static const int value = launcher_number(names, 1);
  return value;
}

uint64_t setting(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  if (!text || !*text)
    return otherwise;
  char *end;
  errno = 0;
  const uint64_t value = strtoull(text, &end, 10);
  static const char units[] = "KMG";
  const char *unit = *end ? strchr(units, *end) : nullptr;
  if (errno || end == text || (*end && (!unit || end[1])))
    finding(Kind::internal, "%s=%s is no whole number", name, text);
  return unit ? value << (10 * (unit - units + 1)) : value;
}

uint64_t random() {
  static uint64_t state =
      setting("SIMGPU_SEED", 1) * 0x9e3779b97f4a7c15U + static_cast<uint64_t>(rank());
  uint64_t z = state += 0x9e3779b97f4a7c15U; /* splitmix64: Steele, Lea, Flood 2014 */
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

static const char *kind_name(Kind kind) {
  switch (kind) {
  case Kind::race:
    return "race";
  case Kind::bounds:
    return "bounds";
  case Kind::freed:
    return "freed";
  case Kind::uninitialised:
    return "uninitialised";
  case Kind::host_access:
    return "host_access";
  case Kind::capture:
    return "capture";
  case Kind::collective:
    return "collective";
  case Kind::barrier:
    return "barrier";
  case Kind::handle:
    return "handle";
  case Kind::deadlock:
    return "deadlock";
  case Kind::unmodelled:
    return "unmodelled";
  case Kind::internal:
    return "internal";
  }
  return "?";
}

/* May be called by a signal handler: no allocation, one write. */
void finding(Kind kind, const char *format, ...) {
  char line[1024];
  int length = snprintf(line, sizeof line, "simgpu: %s: rank %d: ", kind_name(kind), rank());
  va_list arguments;
  va_start(arguments, format);
  length += vsnprintf(line + length, sizeof line - static_cast<size_t>(length), format, arguments);
  va_end(arguments);
  const size_t end = length < 1023 ? static_cast<size_t>(length) : 1022;
  line[end] = '\n';
  if (write(STDERR_FILENO, line, end + 1) < 0)
    _exit(finding_exit);
  count(Counter::findings);
  const char *mode = getenv("SIMGPU_FINDINGS");
  if (!mode || strcmp(mode, "count") != 0)
    _exit(finding_exit);
}

} // namespace sim
