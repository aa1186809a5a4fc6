/* Which device each rank takes. Facts of every rank are gathered once; then each rank works out the
 * same places for all, so that nobody waits for a decision and every refusal names the same ranks.
 *
 * A device is told by its node and UUID; of a MIG slice CUDA may tell the whole device's UUID, so
 * the slice's name from CUDA_VISIBLE_DEVICES goes with it. */
#include "device/place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "device/errors.h"
#include "device/probe.h"
#include "device/system.h"

typedef struct facts {
  bool gpu; /* this rank wants a GPU */
  int node; /* number of its node */
  int numa; /* that its affinity mask lies within; -1 */
  int cuda_runtime, cublas, nccl;
  int count; /* devices that it sees */
  char host[64];
  struct {
    char id[128]; /* UUID, and the MIG slice */
    char bus[32]; /* PCI address: the same for all slices of a device */
    int numa;
  } devices[LKS_SYSTEM_MAX];
} facts;

/* ---- one rank's facts */

static bool hidden_on_purpose(void) {
  lks_system system = {0};
  lks_visible visible;
  lks_visible_look(&system, &visible);
  return visible.state == LKS_VISIBLE_NONE;
}

static lks_status check_slices(lks_device_class *class_, lks_error *err) {
  lks_status st = LKS_OK;
  lks_system system = {0};
  lks_visible visible;
  lks_visible_look(&system, &visible);
  if (visible.state == LKS_VISIBLE_SLICES) {
    *class_ = LKS_CLASS_NOT_FOUND;
    FAIL(LKS_DEVICE, "give each rank one slice, of a GPU that no other rank has",
         "several MIG slices for one rank: %s", visible.words);
  }
cleanup:
  return st;
}

/* What this rank sees. With `auto`, a device that is not there means the CPU, one that is there and
 * fails is an error: choice->note says why it is the CPU. */
static lks_status look(const lks_device_options *options, facts *mine, lks_device_choice *choice,
                       lks_error *err) {
  lks_status st = LKS_OK;
  lks_probe probe;
  lks_gpu gpu;
  lks_visible visible;
  const lks_system nothing = {0};
  const bool automatic = options->kind == LKS_DEVICE_AUTO;
  mine->gpu = false;
  if (options->kind == LKS_DEVICE_CPU) {
    goto cleanup;
  }
  if (automatic && !lks_system_has_node()) {
    (void)snprintf(choice->note, sizeof choice->note,
                   "no GPU on %s (no device node in /dev): the CPU is used", mine->host);
    goto cleanup;
  }
  if (automatic && hidden_on_purpose()) {
    (void)snprintf(choice->note, sizeof choice->note,
                   "CUDA_VISIBLE_DEVICES hides all GPUs of %s: the CPU is used", mine->host);
    goto cleanup;
  }
  st = lks_probe_gpus(&probe, err);
  choice->class_ = probe.class_;
  if (st != LKS_OK && automatic && probe.found->state == LKS_MODULE_ABSENT) {
    (void)snprintf(choice->note, sizeof choice->note,
                   "%s has a GPU, but this build of lockstep has no CUDA module: the CPU is used",
                   mine->host);
    st = LKS_OK;
    goto cleanup;
  }
  TRY(st);
  TRY(check_slices(&choice->class_, err));
  lks_visible_look(&nothing, &visible);
  mine->gpu = true;
  mine->count = probe.count < LKS_SYSTEM_MAX ? probe.count : LKS_SYSTEM_MAX;
  mine->cuda_runtime = probe.versions.runtime;
  mine->cublas = probe.versions.cublas;
  mine->nccl = probe.versions.nccl;
  for (int i = 0; i < mine->count; ++i) {
    st = lks_probe_device(&probe, i, &gpu, err);
    choice->class_ = probe.class_;
    TRY(st);
    (void)snprintf(mine->devices[i].id, sizeof mine->devices[i].id, "%s%s%s", gpu.uuid,
                   visible.slice[0] != '\0' ? " " : "", visible.slice);
    memcpy(mine->devices[i].bus, gpu.pci_bus_id, sizeof mine->devices[i].bus);
    mine->devices[i].numa = lks_system_numa_of(gpu.pci_bus_id);
  }
cleanup:
  return st;
}

/* ---- what ranks must have in common */

static lks_status check_alike(const lks_world *world, const facts *all, lks_device_class *class_,
                              lks_error *err) {
  lks_status st = LKS_OK;
  for (int rank = 1; rank < world->size; ++rank) {
    const facts *one = &all[rank];
    const int with = all[0].gpu ? 0 : rank, without = all[0].gpu ? rank : 0;
    if (one->gpu != all[0].gpu) {
      *class_ = LKS_CLASS_NOT_FOUND;
      FAIL(LKS_DEVICE, "leave that host out (sbatch --exclude, mpirun --host), or use device: cpu",
           "rank %d on %s would use the CPU, but rank %d on %s a GPU", without, all[without].host,
           with, all[with].host);
    }
    if (one->nccl != all[0].nccl || one->cublas != all[0].cublas ||
        one->cuda_runtime != all[0].cuda_runtime) {
      char a[3][16], b[3][16];
      *class_ = LKS_CLASS_COMMUNICATION;
      FAIL(LKS_COMM, "give all nodes the same CUDA, cuBLAS and NCCL (LD_LIBRARY_PATH)",
           "rank %d on %s has CUDA %s, cuBLAS %s, NCCL %s; rank 0 on %s has %s, %s, %s", rank,
           one->host, lks_cuda_version(one->cuda_runtime, a[0]),
           lks_library_version(one->cublas, a[1]), lks_library_version(one->nccl, a[2]),
           all[0].host, lks_cuda_version(all[0].cuda_runtime, b[0]),
           lks_library_version(all[0].cublas, b[1]), lks_library_version(all[0].nccl, b[2]));
    }
  }
cleanup:
  return st;
}

/* ---- places */

/* Rank of the same node, below `before`, that has taken a device; -1: none has. */
static int taken_by(const facts *all, const int *places, int size, int node, const char *id) {
  for (int rank = 0; rank < size; ++rank) {
    if (places[rank] >= 0 && all[rank].node == node &&
        strcmp(all[rank].devices[places[rank]].id, id) == 0) {
      return rank;
    }
  }
  return -1;
}

/* Who takes a device in turn: ranks without a choice, then those near one, then the rest. */
enum { TURN_ONLY, TURN_NEAR, TURN_REST, TURNS };

/* Gives a rank the first device that it sees and nobody has, if it is its turn. */
static void take(const facts *all, int size, int rank, int turn, int *places) {
  const facts *one = &all[rank];
  for (int i = 0; i < one->count && places[rank] < 0; ++i) {
    const bool close = one->numa >= 0 && one->devices[i].numa == one->numa;
    const bool mine = turn == TURN_REST || (turn == TURN_ONLY ? one->count == 1 : close);
    if (mine && taken_by(all, places, size, one->node, one->devices[i].id) < 0) {
      places[rank] = i;
    }
  }
}

static int count_devices(const facts *all, int size, int node) {
  int count = 0;
  for (int rank = 0; rank < size; ++rank) {
    for (int i = 0; i < all[rank].count && all[rank].node == node; ++i) {
      bool again = false;
      for (int r = 0; r <= rank && !again; ++r) {
        for (int k = 0; k < (r < rank ? all[r].count : i) && all[r].node == node && !again; ++k) {
          again = strcmp(all[r].devices[k].id, all[rank].devices[i].id) == 0;
        }
      }
      count += again ? 0 : 1;
    }
  }
  return count;
}

/* A rank for which no device is left. The first that it sees is somebody's. */
static lks_status refuse_sharing(const lks_world *world, const facts *all, const int *places,
                                 int rank, lks_error *err) {
  const facts *one = &all[rank];
  const int node = one->node, gpus = count_devices(all, world->size, node);
  const int other = taken_by(all, places, world->size, node, one->devices[0].id);
  int ranks = 0;
  for (int r = 0; r < world->size; ++r) {
    ranks += all[r].node == node ? 1 : 0;
  }
  if (ranks > gpus) {
    const lks_status st = lks_fail(err, LKS_DEVICE, NULL,
                                   "%s has %d rank%s and %d GPU%s: ranks %d and %d would share %s",
                                   one->host, ranks, ranks == 1 ? "" : "s", gpus,
                                   gpus == 1 ? "" : "s", other, rank, one->devices[0].id);
    lks_advise(err,
               "start %d rank%s a node (mpirun --map-by ppr:%d:node, sbatch "
               "--ntasks-per-node=%d), or use device: cpu",
               gpus, gpus == 1 ? "" : "s", gpus, gpus);
    return st;
  }
  return lks_fail(err, LKS_DEVICE,
                  "let the launcher give each rank a GPU of its own, or show all of them to every "
                  "rank (unset CUDA_VISIBLE_DEVICES, srun --gpu-bind=none)",
                  "ranks %d and %d on %s are left with the same GPU, %s", other, rank, one->host,
                  one->devices[0].id);
}

/* Every rank asks for the same ordinal among those that it sees. */
static lks_status place_stated(const lks_world *world, const facts *all, int ordinal, int *places,
                               lks_device_class *class_, lks_error *err) {
  lks_status st = LKS_OK;
  for (int rank = 0; rank < world->size; ++rank) {
    const facts *one = &all[rank];
    if (ordinal >= one->count) {
      *class_ = LKS_CLASS_NOT_FOUND;
      st = lks_fail(err, LKS_DEVICE, NULL, "gpu:%d is asked for, but rank %d on %s sees %d GPU%s",
                    ordinal, rank, one->host, one->count, one->count == 1 ? "" : "s");
      lks_advise(err,
                 one->count > 1 ? "use device: gpu:0 to gpu:%d, or device: gpu to place ranks "
                                  "by themselves"
                                : "use device: gpu:%d",
                 one->count - 1);
      goto cleanup;
    }
    const int other = taken_by(all, places, world->size, one->node, one->devices[ordinal].id);
    if (other >= 0) {
      *class_ = LKS_CLASS_BUSY;
      FAIL(LKS_DEVICE, "use device: gpu, which gives each rank of a node its own",
           "ranks %d and %d on %s would share gpu:%d, %s", other, rank, one->host, ordinal,
           one->devices[ordinal].id);
    }
    places[rank] = ordinal;
  }
cleanup:
  return st;
}

/* By local rank within a turn. */
static lks_status place_all(const lks_world *world, const facts *all, int *places,
                            lks_device_class *class_, lks_error *err) {
  lks_status st = LKS_OK;
  *class_ = LKS_CLASS_BUSY;
  for (int turn = 0; turn < TURNS; ++turn) {
    for (int rank = 0; rank < world->size; ++rank) {
      take(all, world->size, rank, turn, places);
    }
  }
  for (int rank = 0; rank < world->size; ++rank) {
    if (places[rank] < 0) {
      TRY(refuse_sharing(world, all, places, rank, err));
    }
  }
cleanup:
  return st;
}

/* NCCL tells devices of a node by their PCI address alone, so it refuses two slices of one. */
static lks_status check_buses(const lks_world *world, const facts *all, const int *places,
                              lks_device_class *class_, lks_error *err) {
  lks_status st = LKS_OK;
  for (int rank = 1; rank < world->size; ++rank) {
    const char *bus = all[rank].devices[places[rank]].bus;
    for (int other = 0; other < rank; ++other) {
      if (bus[0] != '\0' && all[other].node == all[rank].node &&
          strcmp(all[other].devices[places[other]].bus, bus) == 0) {
        *class_ = LKS_CLASS_BUSY;
        FAIL(LKS_DEVICE,
             "start one rank a GPU, on one of its slices, or switch MIG off (nvidia-smi -mig 0)",
             "ranks %d and %d on %s have MIG slices of the same GPU, %s, which NCCL does not join",
             other, rank, all[rank].host, bus);
      }
    }
  }
cleanup:
  return st;
}

/* Ranks of a node that each see one GPU, of several: peers that a cgroup hides cost NVLink. */
static void warn_isolated(const lks_world *world, const facts *all, char *note, size_t size) {
  bool isolated = world->local_size > 1;
  for (int rank = 0; rank < world->size; ++rank) {
    isolated = isolated && all[rank].count == 1;
  }
  if (isolated) {
    (void)snprintf(note, size,
                   "each rank sees one GPU only: where sums over ranks are slow, show all of them "
                   "(srun --gpus-per-node instead of --gpus-per-task), for NVLink may be unused");
  }
}

/* ---- the device itself */

lks_status lks_device_try(lks_device_choice *choice, lks_error *err) {
  lks_gpu_failure failure = {.ordinal = choice->ordinal};
  (void)snprintf(failure.device, sizeof failure.device, "%.80s, %.45s", choice->gpu.name,
                 choice->gpu.uuid);
  if (lks_module_find("cuda")->module->gpu->launch(choice->ordinal, &failure) != 0) {
    choice->class_ = lks_device_error_of(failure.library, failure.code)->class_;
    return lks_device_fail(&failure, err);
  }
  return LKS_OK;
}

lks_status lks_device_place(lks_world *world, const lks_device_options *options,
                            lks_device_choice *choice, lks_error *err) {
  lks_status st = LKS_OK;
  lks_gpu_failure failure = {.ordinal = -1};
  facts *mine = calloc((size_t)world->size + 1, sizeof *mine), *all = mine + 1;
  int *places = malloc((size_t)world->size * sizeof *places);
  *choice = (lks_device_choice){.backend = "cpu", .ordinal = -1};
  if (mine == NULL || places == NULL) {
    st =
        lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the places of %d ranks", world->size);
  }
  TRY(lks_agree(world, st, err));
  mine->node = world->node_index;
  mine->numa = lks_system_numa_of_mask();
  memcpy(mine->host, world->host, sizeof mine->host);
  st = look(options, mine, choice, err);
  TRY(lks_agree(world, st, err));
  TRY(lks_world_gather(world, mine, sizeof *mine, all, err));
  st = check_alike(world, all, &choice->class_, err);
  TRY(lks_agree(world, st, err));
  if (!mine->gpu) {
    goto cleanup;
  }
  memset(places, 0xff, (size_t)world->size * sizeof *places);
  st = options->ordinal >= 0
           ? place_stated(world, all, (int)options->ordinal, places, &choice->class_, err)
           : place_all(world, all, places, &choice->class_, err);
  st = st == LKS_OK ? check_buses(world, all, places, &choice->class_, err) : st;
  TRY(lks_agree(world, st, err));
  choice->backend = "cuda";
  choice->ordinal = places[world->rank];
  warn_isolated(world, all, choice->note, sizeof choice->note);
  if (lks_module_find("cuda")->module->gpu->describe(choice->ordinal, &choice->gpu, &failure) !=
      0) {
    choice->class_ = lks_device_error_of(failure.library, failure.code)->class_;
    st = lks_device_fail(&failure, err);
  }
  TRY(lks_agree(world, st, err));
cleanup:
  free(mine);
  free(places);
  return st;
}

lks_status lks_device_choose(lks_world *world, const lks_device_options *options,
                             lks_device_choice *choice, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(lks_device_place(world, options, choice, err));
  st = choice->ordinal >= 0 ? lks_device_try(choice, err) : LKS_OK;
  TRY(lks_agree(world, st, err));
cleanup:
  return st;
}

/* ---- before MPI */

/* Open MPI's variable first: under mpirun in a Slurm job SLURM_LOCALID is 0 for all. */
static bool local_rank(int64_t *rank) {
  static const char *const names[] = {
      "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK",
      "PALS_LOCAL_RANKID",          "PMI_LOCAL_RANK",  "SLURM_LOCALID"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    const char *text = getenv(names[i]);
    if (text != NULL && lks_parse_int64(text, rank) && *rank >= 0) {
      return true;
    }
  }
  return false;
}

/* Where nearness to a NUMA node decides, the other ranks must be known: then nothing is touched. */
static bool near_matters(lks_probe *probe) {
  lks_error error;
  lks_gpu gpu;
  const int own = lks_system_numa_of_mask();
  bool some = false, all = true;
  for (int i = 0; i < probe->count && own >= 0; ++i) {
    const bool near = lks_probe_device(probe, i, &gpu, &error) == LKS_OK &&
                      lks_system_numa_of(gpu.pci_bus_id) == own;
    some = some || near;
    all = all && near;
  }
  return some && !all;
}

void lks_device_choose_early(const lks_device_options *options) {
  lks_probe probe;
  lks_error error;
  lks_gpu_failure failure = {.ordinal = -1};
  int64_t rank = 0;
  if (options->kind == LKS_DEVICE_CPU ||
      (options->kind == LKS_DEVICE_AUTO && !lks_system_has_node()) || !local_rank(&rank) ||
      lks_probe_gpus(&probe, &error) != LKS_OK) {
    return;
  }
  const int64_t ordinal = probe.count == 1 ? 0 : options->ordinal >= 0 ? options->ordinal : rank;
  if (ordinal < probe.count && (options->ordinal >= 0 || !near_matters(&probe))) {
    (void)probe.ops->launch((int)ordinal, &failure); /* leaves the device current */
  }
}
