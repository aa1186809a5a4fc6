/* Windows of shared memory, checked before they are used. */
#include "world/shared.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>

#include "base/pages.h"

enum { PAGE = 4096 };

/* Pages to spare for what MPI itself keeps in shared memory. */
#define SPARE_BYTES ((size_t)1 << 20)

static size_t shm_free(void) {
  struct statvfs fs;
  if (statvfs("/dev/shm", &fs) != 0) {
    return SIZE_MAX; /* no such place: MPI keeps windows elsewhere */
  }
  return (size_t)fs.f_bavail * fs.f_frsize;
}

/* One answer for all of the node: an error of any of its ranks is everyone's. */
static lks_status agree_on_node(lks_world *world, lks_status mine, lks_error *err) {
  lks_status st = LKS_OK;
  struct {
    int status, rank;
  } told = {(int)mine, world->local_rank}, worst;
  TRY_MPI(MPI_Allreduce(&told, &worst, 1, MPI_2INT, MPI_MAXLOC, world->node));
  if (worst.status != (int)LKS_OK) {
    TRY_MPI(MPI_Bcast(err, (int)sizeof *err, MPI_BYTE, worst.rank, world->node));
  }
  st = (lks_status)worst.status;
cleanup:
  return st;
}

static lks_status check_space(size_t bytes, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t have = shm_free();
  if (have < bytes + SPARE_BYTES) {
    char wanted[32], there[32];
    FAIL(LKS_NO_MEMORY, "enlarge /dev/shm (containers: --shm-size), or use more nodes",
         "shared memory: %s wanted, %s free in /dev/shm", lks_format_bytes(wanted, (double)bytes),
         lks_format_bytes(there, (double)have));
  }
cleanup:
  return st;
}

/* Touches this rank's part of the pages now, where an error can still be returned. A page lies in
 * the memory of the socket that touched it first: so all sockets' memory serves, not one's. */
static lks_status populate(const lks_world *world, void *base, size_t bytes, lks_error *err) {
  lks_status st = LKS_OK;
  lks_pages_advise(base, bytes);
#ifdef MADV_POPULATE_WRITE
  const size_t ranks = (size_t)world->local_size;
  const size_t part = (bytes / PAGE + ranks - 1) / ranks * PAGE;
  const size_t first = (size_t)world->local_rank * part;
  const size_t rest = first < bytes ? bytes - first : 0;
  if (rest > 0 &&
      madvise((char *)base + first, rest < part ? rest : part, MADV_POPULATE_WRITE) != 0 &&
      errno != EINVAL) {
    FAIL(LKS_NO_MEMORY, "enlarge /dev/shm (containers: --shm-size), or use more nodes",
         "shared memory: cannot have %zu bytes: %s", bytes, strerror(errno));
  }
#else
  (void)world;
  (void)bytes;
  (void)err;
#endif
cleanup:
  return st;
}

static lks_status open_private(size_t bytes, lks_shared *shared, lks_error *err) {
  lks_status st = LKS_OK;
  shared->base = lks_pages_alloc(bytes);
  TRY_ALLOC(shared->base);
cleanup:
  return st;
}

lks_status lks_shared_open(lks_world *world, size_t bytes, lks_shared *shared, lks_error *err) {
  lks_status st = LKS_OK;
  MPI_Info info = MPI_INFO_NULL;
  const size_t rounded = (bytes + PAGE - 1) / PAGE * PAGE + PAGE;
  *shared = (lks_shared){.bytes = bytes, .window = MPI_WIN_NULL};
  if (world->local_size == 1) {
    TRY(open_private(rounded, shared, err));
    goto cleanup;
  }
  lks_status possible = world->local_rank == 0 ? check_space(rounded, err) : LKS_OK;
  TRY(agree_on_node(world, possible, err));
  TRY_MPI(MPI_Info_create(&info));
  TRY_MPI(MPI_Info_set(info, "alloc_shared_noncontig", "true"));
  void *base = NULL;
  const MPI_Aint mine = world->local_rank == 0 ? (MPI_Aint)rounded : 0;
  TRY_MPI(MPI_Win_allocate_shared(mine, 1, info, world->node, (void *)&base, &shared->window));
  MPI_Aint size = 0;
  int unit = 0;
  TRY_MPI(MPI_Win_shared_query(shared->window, 0, &size, &unit, (void *)&base));
  /* Mappings differ in address, but not within a page. */
  shared->base = (char *)base + (PAGE - (uintptr_t)base % PAGE) % PAGE;
  possible = populate(world, shared->base, rounded - PAGE, err);
  TRY(agree_on_node(world, possible, err));
cleanup:
  if (info != MPI_INFO_NULL) {
    (void)MPI_Info_free(&info);
  }
  if (st != LKS_OK) {
    lks_shared_close(shared);
  }
  return st;
}

void lks_shared_close(lks_shared *shared) {
  if (shared->window != MPI_WIN_NULL) {
    (void)MPI_Win_free(&shared->window);
  } else {
    free(shared->base);
  }
  *shared = (lks_shared){.window = MPI_WIN_NULL};
}
