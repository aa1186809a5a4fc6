/* Starting and ending: MPI, the launcher's claims, nodes and slices. */
#include "world/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world/watchdog.h"

enum { PHASE_WORDS = 3 };
_Static_assert(PHASE_WORDS * sizeof(uint64_t) == sizeof((lks_world){0}.phase), "a whole copy");

/* A copy for readers in other threads, which look again when the version has changed. */
static void show_phase(lks_world *world) {
  lks_standing *standing = &world->standing;
  uint64_t words[PHASE_WORDS];
  memcpy(words, world->phase, sizeof words);
  const uint64_t version = atomic_load_explicit(&standing->phase_versions, memory_order_relaxed);
  atomic_store_explicit(&standing->phase_versions, version + 1, memory_order_relaxed);
  for (int i = 0; i < PHASE_WORDS; ++i) {
    atomic_store_explicit(&standing->phase[i], words[i], memory_order_release);
  }
  atomic_store_explicit(&standing->phase_versions, version + 2, memory_order_release);
}

void lks_world_phase(lks_world *world, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(world->phase, sizeof world->phase, format, arguments);
  va_end(arguments);
  show_phase(world);
  lks_world_doing(world, NULL);
  lks_world_beat(world);
}

void lks_world_shown_phase(const lks_world *world, char out[24]) {
  const lks_standing *standing = &world->standing;
  uint64_t words[PHASE_WORDS], before = 0, after = 0;
  do {
    before = atomic_load_explicit(&standing->phase_versions, memory_order_acquire);
    for (int i = 0; i < PHASE_WORDS; ++i) {
      words[i] = atomic_load_explicit(&standing->phase[i], memory_order_acquire);
    }
    after = atomic_load_explicit(&standing->phase_versions, memory_order_relaxed);
  } while (before != after || before % 2 != 0);
  memcpy(out, words, sizeof words);
  out[sizeof words - 1] = '\0';
}

/* Tasks a launcher says it started; 0: it says nothing. */
static int64_t launcher_tasks(const char **launcher) {
  static const struct {
    const char *variable, *launcher;
  } claims[] = {{"SLURM_STEP_NUM_TASKS", "srun"},
                {"OMPI_COMM_WORLD_SIZE", "mpirun"},
                {"PMI_SIZE", "the launcher"}};
  int64_t most = 0; /* mpirun inside a job script: a step of one task starts several */
  for (size_t i = 0; i < sizeof claims / sizeof *claims; ++i) {
    const char *text = getenv(claims[i].variable);
    int64_t tasks = 0;
    if (text != NULL && lks_parse_int64(text, &tasks) && tasks > most) {
      *launcher = claims[i].launcher;
      most = tasks;
    }
  }
  return most;
}

/* Each of several tasks believing to be alone would train the same model over one folder. A part
 * that was split off on purpose may well have one rank. */
static lks_status check_launcher(const lks_world *world, MPI_Comm parent, lks_error *err) {
  lks_status st = LKS_OK;
  int all = MPI_UNEQUAL, self = MPI_UNEQUAL;
  TRY_MPI(MPI_Comm_compare(parent, MPI_COMM_WORLD, &all));
  TRY_MPI(MPI_Comm_compare(parent, MPI_COMM_SELF, &self));
  const bool whole = all == MPI_IDENT || self == MPI_IDENT;
  const char *launcher = NULL;
  const int64_t tasks = launcher_tasks(&launcher);
  if (whole && world->size == 1 && tasks > 1) {
    FAIL(LKS_COMM,
         strcmp(launcher, "srun") == 0
             ? "use srun --mpi=pmix, or mpirun inside the job"
             : "start it with the mpirun of the MPI that it was built with",
         "%s started %lld tasks, but MPI says each is alone", launcher, (long long)tasks);
  }
cleanup:
  return st;
}

static lks_status duplicate(MPI_Comm from, MPI_Comm *to, lks_error *err) {
  lks_status st = LKS_OK;
  TRY_MPI(MPI_Comm_dup(from, to));
  TRY_MPI(MPI_Comm_set_errhandler(*to, MPI_ERRORS_RETURN));
cleanup:
  return st;
}

/* Nodes by shared memory; numbered by their lowest rank, so that order is that of the ranks. */
static lks_status find_nodes(lks_world *world, lks_error *err) {
  lks_status st = LKS_OK;
  MPI_Comm leaders = MPI_COMM_NULL;
  TRY_MPI(MPI_Comm_split_type(world->comm, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL,
                              &world->node));
  TRY_MPI(MPI_Comm_set_errhandler(world->node, MPI_ERRORS_RETURN));
  TRY_MPI(MPI_Comm_rank(world->node, &world->local_rank));
  TRY_MPI(MPI_Comm_size(world->node, &world->local_size));
  TRY_MPI(MPI_Comm_split(world->comm, world->local_rank == 0 ? 0 : MPI_UNDEFINED, world->rank,
                         &leaders));
  int place[2] = {0, 0}; /* this node's number, how many there are */
  if (leaders != MPI_COMM_NULL) {
    TRY_MPI(MPI_Comm_rank(leaders, &place[0]));
    TRY_MPI(MPI_Comm_size(leaders, &place[1]));
  }
  TRY_MPI(MPI_Bcast(place, 2, MPI_INT, 0, world->node));
  world->node_index = place[0];
  world->nodes = place[1];
  TRY_MPI(MPI_Allreduce(&world->local_size, &world->slices, 1, MPI_INT, MPI_MIN, world->comm));
  TRY_MPI(MPI_Comm_split(world->comm,
                         world->local_rank < world->slices ? world->local_rank : MPI_UNDEFINED,
                         world->node_index, &world->slice));
  if (world->slice != MPI_COMM_NULL) {
    TRY_MPI(MPI_Comm_set_errhandler(world->slice, MPI_ERRORS_RETURN));
  }
cleanup:
  if (leaders != MPI_COMM_NULL) {
    (void)MPI_Comm_free(&leaders);
  }
  return st;
}

/* A process that no launcher started needs neither Open MPI's daemon, which is there for processes
 * that it might start, nor a network: without them MPI starts in 0.04 s, not in 0.35. Without the
 * daemon all such processes have one name, and with it one session folder, which they would remove
 * under each other: so none, and no shared memory between processes, which is named alike. What
 * the environment says goes first, and other MPIs do not know these names. */
static void start_alone(void) {
  static const char *const settings[][2] = {{"OMPI_MCA_ess_singleton_isolated", "1"},
                                            {"OMPI_MCA_orte_create_session_dirs", "0"},
                                            {"OMPI_MCA_pml", "ob1"},
                                            {"OMPI_MCA_btl", "self"}};
  static const char *const launched[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                         "PMI_SIZE", "SLURM_PROCID"};
  for (size_t i = 0; i < sizeof launched / sizeof *launched; ++i) {
    if (getenv(launched[i]) != NULL) {
      return;
    }
  }
  /* Where there is no memory for it, MPI starts as it always does. */
  for (size_t i = 0; i < sizeof settings / sizeof *settings; ++i) {
    (void)setenv(settings[i][0], settings[i][1], 0);
  }
}

lks_status lks_world_open(MPI_Comm parent, lks_world **out, lks_error *err) {
  lks_status st = LKS_OK;
  *out = NULL;
  lks_world *world = calloc(1, sizeof *world);
  TRY_ALLOC(world);
  world->comm = world->node = world->slice = MPI_COMM_NULL;
  world->threads = 1;
  if (gethostname(world->host, sizeof world->host - 1) != 0) {
    (void)snprintf(world->host, sizeof world->host, "unknown");
  }
  int running = 0;
  TRY_MPI(MPI_Initialized(&running));
  if (!running) {
    int provided = 0;
    start_alone();
    TRY_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided));
    world->initialised_mpi = true;
    if (provided < MPI_THREAD_FUNNELED) {
      FAIL(LKS_COMM, "use an MPI built with thread support",
           "MPI allows no threads beside the one that calls it");
    }
  }
  TRY(duplicate(parent, &world->comm, err));
  TRY_MPI(MPI_Comm_rank(world->comm, &world->rank));
  TRY_MPI(MPI_Comm_size(world->comm, &world->size));
  lks_world_phase(world, "launcher");
  TRY(find_nodes(world, err));
  TRY(lks_agree(world, check_launcher(world, parent, err), err));
  *out = world;
  world = NULL;
cleanup:
  if (world != NULL) {
    lks_world_close(&world);
  }
  return st;
}

static void free_comm(MPI_Comm *comm) {
  if (*comm != MPI_COMM_NULL) {
    (void)MPI_Comm_free(comm);
  }
}

void lks_world_close(lks_world **world) {
  lks_world *w = *world;
  if (w == NULL) {
    return;
  }
  lks_world_phase(w, "end");
  lks_watchdog_leave_mpi(w);
  lks_world_wait_begin(w); /* the watchdog guards the last wait too */
  free_comm(&w->slice);
  free_comm(&w->node);
  free_comm(&w->comm);
  int finalised = 0;
  if (w->initialised_mpi && MPI_Finalized(&finalised) == MPI_SUCCESS && !finalised) {
    (void)MPI_Finalize();
  }
  lks_world_wait_end(w);
  lks_watchdog_stop(w);
  free(w);
  *world = NULL;
}

void lks_world_versions(char *out, size_t size) {
  char library[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0, version = 0, subversion = 0;
  (void)MPI_Get_library_version(library, &length);
  (void)MPI_Get_version(&version, &subversion);
  library[strcspn(library, ",\n")] = '\0';
  (void)snprintf(out, size, "%.100s (MPI %d.%d)", library, version, subversion);
}
