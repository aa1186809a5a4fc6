/* Cores and NUMA nodes. */
#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/system.h"

enum { MOST_CORES = 4096, MOST_NODES = 64 };

typedef struct cores {
  bool in[MOST_CORES];
} cores;

static int own_cores(cores *out) {
  int count = 0;
  *out = (cores){0};
  cpu_set_t *set = CPU_ALLOC(MOST_CORES);
  const size_t bytes = CPU_ALLOC_SIZE(MOST_CORES);
  if (set != NULL && sched_getaffinity(0, bytes, set) == 0) {
    for (size_t core = 0; core < MOST_CORES; ++core) {
      out->in[core] = CPU_ISSET_S(core, bytes, set);
      count += out->in[core] ? 1 : 0;
    }
  }
  if (set != NULL) {
    CPU_FREE(set);
  }
  return count;
}

int lks_system_cores(char *out, size_t size) {
  cores mine;
  size_t used = 0;
  const int count = own_cores(&mine);
  out[0] = '\0';
  for (int core = 0; core < MOST_CORES && used + 24 < size; ++core) {
    int last = core;
    while (mine.in[core] && last + 1 < MOST_CORES && mine.in[last + 1]) {
      ++last;
    }
    if (mine.in[core]) {
      used += (size_t)snprintf(out + used, size - used, last > core ? "%s%d-%d" : "%s%d",
                               used > 0 ? "," : "", core, last);
    }
    core = last;
  }
  return count;
}

/* True where all of `mine` are in a list as sysfs writes it: "0-15,32-47". */
static bool within(const cores *mine, const char *list) {
  cores node = {0};
  for (const char *at = list; isdigit((unsigned char)*at);) {
    char *end = NULL;
    const long first = strtol(at, &end, 10);
    const long last = *end == '-' ? strtol(end + 1, &end, 10) : first;
    for (long core = first; core <= last && core < MOST_CORES; ++core) {
      node.in[core] = true;
    }
    at = *end == ',' ? end + 1 : end;
  }
  bool all = true;
  for (int core = 0; core < MOST_CORES; ++core) {
    all = all && (!mine->in[core] || node.in[core]);
  }
  return all;
}

int lks_system_numa_of_mask(void) {
  cores mine;
  char path[96], list[1024];
  int found = -1, nodes = 0;
  if (own_cores(&mine) == 0) {
    return -1;
  }
  for (int node = 0; node < MOST_NODES; ++node) {
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
    lks_system_line(path, list, sizeof list);
    nodes += list[0] != '\0' ? 1 : 0;
    if (found < 0 && list[0] != '\0' && within(&mine, list)) {
      found = node;
    }
  }
  return nodes > 1 ? found : -1;
}

int lks_system_numa_of(const char *pci_address) {
  char address[32], path[96], text[32];
  size_t length = 0;
  for (; pci_address[length] != '\0' && length + 1 < sizeof address; ++length) {
    address[length] = (char)tolower((unsigned char)pci_address[length]);
  }
  address[length] = '\0';
  (void)snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/numa_node", address);
  lks_system_line(path, text, sizeof text);
  char *end = NULL;
  const long node = strtol(text, &end, 10);
  return end != text && node >= 0 && node < MOST_NODES ? (int)node : -1;
}
