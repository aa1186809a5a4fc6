/* See preflight.h. Looks are by each node's first rank: they form the communicator `slice` of local
 * rank 0, in node order. What they find is judged by all ranks alike. */
#include "world/preflight.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

/* Seconds that two clocks may differ; bytes of shared memory that any run needs; how many times
 * slower than its kin, or than the host's fastest interface, a link may be. */
#define CLOCK_LIMIT 2.0
#define SHARED_LEAST ((int64_t)512 << 20)
#define SLOWER_LIMIT 4.0

/* A link of a gigabit or less makes the exchange the whole of a step. Bytes a second. */
#define SLOW_LINK 130e6

static bool leads(const lks_world *world) {
  return world->local_rank == 0;
}

/* One item of each node, from its first rank to all ranks in node order: items[nodes] and
 * hosts[nodes] are the caller's. Collective. */
static lks_status gather_nodes(lks_world *world, const void *mine, size_t bytes, void *items,
                               char (*hosts)[64], lks_error *err) {
  lks_status st = LKS_OK;
  if (leads(world)) {
    TRY_MPI_WAIT(world, MPI_Allgather(mine, (int)bytes, MPI_BYTE, items, (int)bytes, MPI_BYTE,
                                      world->slice));
    TRY_MPI_WAIT(world,
                 MPI_Allgather(world->host, 64, MPI_BYTE, hosts, 64, MPI_BYTE, world->slice));
  }
  TRY_MPI_WAIT(world, MPI_Bcast(items, (int)bytes * world->nodes, MPI_BYTE, 0, world->node));
  TRY_MPI_WAIT(world, MPI_Bcast(hosts, 64 * world->nodes, MPI_BYTE, 0, world->node));
cleanup:
  return st;
}

/* Room for one item of `bytes` and one name a node; agreed on. */
static lks_status make_room(lks_world *world, size_t bytes, void **items, char (**hosts)[64],
                            lks_error *err) {
  lks_status st = LKS_OK;
  *items = calloc((size_t)world->nodes, bytes);
  *hosts = calloc((size_t)world->nodes, sizeof **hosts);
  if (*items == NULL || *hosts == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for %d nodes", world->nodes);
  }
  return lks_agree(world, st, err);
}

/* ---- clocks */

static double wall_clock(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* What this node's clock is ahead of the first node's, by the quickest of a few messages. */
static lks_status compare_clock(lks_world *world, double *offset, double *way, lks_error *err) {
  enum { TIMES = 10 };
  lks_status st = LKS_OK;
  for (int node = 1; node < world->nodes; ++node) {
    for (int i = 0; i < TIMES; ++i) {
      double theirs = 0.0;
      if (world->node_index == 0) {
        TRY_MPI(MPI_Recv(&theirs, 1, MPI_DOUBLE, node, 0, world->slice, MPI_STATUS_IGNORE));
        theirs = wall_clock();
        TRY_MPI(MPI_Send(&theirs, 1, MPI_DOUBLE, node, 0, world->slice));
      } else if (world->node_index == node) {
        const double sent = wall_clock(), began = lks_now();
        TRY_MPI(MPI_Send(&sent, 1, MPI_DOUBLE, 0, 0, world->slice));
        TRY_MPI(MPI_Recv(&theirs, 1, MPI_DOUBLE, 0, 0, world->slice, MPI_STATUS_IGNORE));
        const double there_and_back = lks_now() - began;
        if (i == 0 || there_and_back < *way) {
          *way = there_and_back;
          *offset = sent + 0.5 * there_and_back - theirs;
        }
      }
    }
    lks_world_beat(world);
  }
cleanup:
  return st;
}

void lks_preflight_judge_clocks(const double *offsets, const char (*hosts)[64], int nodes,
                                double error, lks_preflight *finding) {
  int least = 0, most = 0;
  *finding = (lks_preflight){.text = ""};
  for (int node = 1; node < nodes; ++node) {
    least = offsets[node] < offsets[least] ? node : least;
    most = offsets[node] > offsets[most] ? node : most;
  }
  const double apart = offsets[most] - offsets[least];
  if (nodes == 1) {
    (void)snprintf(finding->text, sizeof finding->text, "one node");
  } else if (apart - error <= CLOCK_LIMIT) {
    (void)snprintf(finding->text, sizeof finding->text, "within %.2g s of each other",
                   apart > error ? apart : error);
  } else {
    (void)snprintf(finding->text, sizeof finding->text, "that of %s is %.3g s ahead of %s's",
                   hosts[most], apart, hosts[least]);
    (void)snprintf(
        finding->fix, sizeof finding->fix,
        "set the nodes' clocks (chronyd, ntpd): logs and file times do not fit together");
  }
}

lks_status lks_preflight_clocks(lks_world *world, lks_preflight *finding, lks_error *err) {
  lks_status st = LKS_OK;
  double mine = 0.0, way = 0.0, longest = 0.0, *offsets = NULL;
  char(*hosts)[64] = NULL;
  TRY(make_room(world, sizeof *offsets, (void **)&offsets, &hosts, err));
  if (leads(world)) {
    st = compare_clock(world, &mine, &way, err);
  }
  TRY(lks_agree(world, st, err));
  TRY_MPI_WAIT(world, MPI_Allreduce(&way, &longest, 1, MPI_DOUBLE, MPI_MAX, world->comm));
  TRY(gather_nodes(world, &mine, sizeof mine, offsets, hosts, err));
  lks_preflight_judge_clocks(offsets, (const char(*)[64])hosts, world->nodes, longest, finding);
cleanup:
  free(offsets);
  free(hosts);
  return st;
}

/* ---- shared memory */

void lks_preflight_judge_shared(const int64_t *free_bytes, const char (*hosts)[64], int nodes,
                                lks_preflight *finding) {
  int least = 0;
  char bytes[32];
  *finding = (lks_preflight){.text = ""};
  for (int node = 1; node < nodes; ++node) {
    least = free_bytes[node] < free_bytes[least] ? node : least;
  }
  if (free_bytes[least] < 0) {
    (void)snprintf(finding->text, sizeof finding->text, "no /dev/shm on %s", hosts[least]);
  } else {
    (void)snprintf(finding->text, sizeof finding->text, "%s free in /dev/shm%s%s",
                   lks_format_bytes(bytes, (double)free_bytes[least]),
                   nodes > 1 ? ", the least on " : "", nodes > 1 ? hosts[least] : "");
  }
  if (free_bytes[least] < SHARED_LEAST) {
    (void)snprintf(
        finding->fix, sizeof finding->fix,
        "enlarge it (containers: --shm-size=8g; else mount -o remount,size=8g /dev/shm), "
        "or ranks keep their own parameters, which is slower");
  }
}

lks_status lks_preflight_shared(lks_world *world, lks_preflight *finding, lks_error *err) {
  lks_status st = LKS_OK;
  struct statvfs fs;
  int64_t mine = -1, *all = NULL;
  char(*hosts)[64] = NULL;
  if (statvfs("/dev/shm", &fs) == 0) {
    mine = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
  }
  TRY(make_room(world, sizeof *all, (void **)&all, &hosts, err));
  TRY(gather_nodes(world, &mine, sizeof mine, all, hosts, err));
  lks_preflight_judge_shared(all, (const char(*)[64])hosts, world->nodes, finding);
cleanup:
  free(all);
  free(hosts);
  return st;
}

/* ---- links */

/* The first number of a file; 0 where there is none. */
static double number_in(const char *path) {
  double number = 0.0;
  FILE *file = fopen(path, "re");
  if (file != NULL) {
    if (fscanf(file, "%lf", &number) != 1 || number < 0.0) {
      number = 0.0;
    }
    (void)fclose(file);
  }
  return number;
}

static void note_interface(const char *name, double rate, lks_link_rate *link) {
  if (rate > link->fastest) {
    link->fastest = rate;
    (void)snprintf(link->interface, sizeof link->interface, "%.31s", name);
  }
}

/* Fastest of the host's interfaces: Ethernet tells megabits a second, InfiniBand gigabits. Bridges
 * and tunnels of containers have numbers without meaning, and no device behind them. */
static void find_interfaces(lks_link_rate *link) {
  static const struct {
    const char *folder, *proof, *file;
    double unit;
  } kinds[] = {{"/sys/class/net", "device", "speed", 1e6 / 8.0},
               {"/sys/class/infiniband", "ports/1", "ports/1/rate", 1e9 / 8.0}};
  char path[512];
  for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; ++kind) {
    DIR *folder = opendir(kinds[kind].folder);
    const struct dirent *entry = NULL;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
      struct statvfs there;
      (void)snprintf(path, sizeof path, "%s/%.200s/%s", kinds[kind].folder, entry->d_name,
                     kinds[kind].proof);
      if (entry->d_name[0] != '.' && statvfs(path, &there) == 0) {
        (void)snprintf(path, sizeof path, "%s/%.200s/%s", kinds[kind].folder, entry->d_name,
                       kinds[kind].file);
        note_interface(entry->d_name, number_in(path) * kinds[kind].unit, link);
      }
    }
    if (folder != NULL) {
      (void)closedir(folder);
    }
  }
}

enum { COUNT = 1 << 20, REPEATS = 4 };

static float sent_value(int node, int repeat, int i) {
  return (float)(node * 31 + repeat * 7 + i % 1021);
}

/* Sends to the next node while it receives from the one before. */
static lks_status measure_link(lks_world *world, float *out, float *in, double *rate,
                               lks_error *err) {
  lks_status st = LKS_OK;
  const int here = world->node_index, nodes = world->nodes;
  const int next = (here + 1) % nodes, before = (here + nodes - 1) % nodes;
  double best = INFINITY;
  for (int repeat = 0; repeat < REPEATS; ++repeat) {
    for (int i = 0; i < COUNT; ++i) {
      out[i] = sent_value(here, repeat, i);
    }
    TRY_MPI_WAIT(world, MPI_Barrier(world->slice));
    const double began = lks_now();
    TRY_MPI_WAIT(world, MPI_Sendrecv(out, COUNT, MPI_FLOAT, next, 1, in, COUNT, MPI_FLOAT, before,
                                     1, world->slice, MPI_STATUS_IGNORE));
    const double seconds = lks_now() - began;
    best = seconds < best ? seconds : best;
    for (int i = 0; i < COUNT && st == LKS_OK; ++i) {
      const float expected = sent_value(before, repeat, i);
      if (in[i] != expected) {
        st = lks_fail(err, LKS_COMM,
                      "look at the network and at MPI's transport (OMPI_MCA_btl, OMPI_MCA_pml)",
                      "what came from node %d to node %d (%s) is wrong: element %d of %d is %g, "
                      "not %g",
                      before, here, world->host, i, COUNT, (double)in[i], (double)expected);
      }
    }
  }
  *rate = (double)COUNT * sizeof(float) / best;
cleanup:
  return st;
}

static int by_rate(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

static double median_rate(const lks_link_rate *links, int nodes) {
  double *rates = malloc((size_t)nodes * sizeof *rates);
  if (rates == NULL) {
    return 0.0;
  }
  for (int node = 0; node < nodes; ++node) {
    rates[node] = links[node].rate;
  }
  qsort(rates, (size_t)nodes, sizeof *rates, by_rate);
  const double median = rates[nodes / 2];
  free(rates);
  return median;
}

void lks_preflight_judge_links(const lks_link_rate *links, const char (*hosts)[64], int nodes,
                               lks_preflight *finding) {
  int slowest = 0;
  *finding = (lks_preflight){.text = ""};
  for (int node = 1; node < nodes; ++node) {
    slowest = links[node].rate < links[slowest].rate ? node : slowest;
  }
  const lks_link_rate *slow = &links[slowest];
  const double median = median_rate(links, nodes);
  const char *from = hosts[slowest], *to = hosts[(slowest + 1) % nodes];
  (void)snprintf(finding->text, sizeof finding->text,
                 "values right; %.3g GB/s a link, the slowest from %s to %s: %.3g GB/s",
                 median * 1e-9, from, to, slow->rate * 1e-9);
  if (slow->fastest > SLOWER_LIMIT * slow->rate) {
    (void)snprintf(
        finding->fix, sizeof finding->fix,
        "%s has %s with %.0f Gbit/s: let MPI use that network (OMPI_MCA_btl_tcp_if_include="
        "NAME, or an MPI with UCX)",
        from, slow->interface, slow->fastest * 8e-9);
  } else if (median > SLOWER_LIMIT * slow->rate) {
    (void)snprintf(finding->fix, sizeof finding->fix,
                   "look at cable, port and switch of %s and %s, or leave them out (--exclude)",
                   from, to);
  } else if (slow->rate < SLOW_LINK) {
    (void)snprintf(finding->fix, sizeof finding->fix,
                   "a gigabit or less: exchanges will take most of a step; use a faster network, "
                   "larger batches or fewer nodes");
  }
}

lks_status lks_preflight_links(lks_world *world, lks_preflight *finding, lks_error *err) {
  lks_status st = LKS_OK;
  lks_link_rate mine = {.rate = 0.0}, *all = NULL;
  char(*hosts)[64] = NULL;
  float *out = NULL, *in = NULL;
  *finding = (lks_preflight){.text = "one node"};
  if (world->nodes == 1) {
    goto cleanup;
  }
  TRY(make_room(world, sizeof *all, (void **)&all, &hosts, err));
  if (leads(world)) {
    out = malloc(COUNT * sizeof *out);
    in = malloc(COUNT * sizeof *in);
    if (out == NULL || in == NULL) {
      st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the check of links");
    }
  }
  TRY(lks_agree(world, st, err));
  if (leads(world)) {
    find_interfaces(&mine);
    st = measure_link(world, out, in, &mine.rate, err);
  }
  TRY(lks_agree(world, st, err));
  TRY(gather_nodes(world, &mine, sizeof mine, all, hosts, err));
  lks_preflight_judge_links(all, (const char(*)[64])hosts, world->nodes, finding);
cleanup:
  free(out);
  free(in);
  free(all);
  free(hosts);
  return st;
}
