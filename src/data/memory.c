/* The node's memory: what is free, what may be used, and blocks of it. */
#include "data/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

/* ---- what is free */

/* The number after `name` at the beginning of a line of a file ("": of its first line); -1 when
 * there is none ("max", or no such file). */
static int64_t read_number(const char *folder, const char *file, const char *name) {
  char path[1024];
  char line[256];
  int64_t number = -1;
  const int length = snprintf(path, sizeof path, "%s%s", folder, file);
  FILE *stream = length > 0 && (size_t)length < sizeof path ? fopen(path, "r") : NULL;
  if (stream == NULL) {
    return -1;
  }
  while (fgets(line, sizeof line, stream) != NULL) {
    if (strncmp(line, name, strlen(name)) == 0) {
      if (sscanf(line + strlen(name), "%" SCNd64, &number) != 1) {
        number = -1;
      }
      break;
    }
  }
  (void)fclose(stream);
  return number;
}

typedef struct group_files {
  const char *limit, *used, *active, *inactive; /* the last two: pages of files, given up at need */
} group_files;

/* What a control group may still take; -1 when it is not limited. */
static int64_t group_left(const char *folder, const group_files *files) {
  const int64_t limit = read_number(folder, files->limit, "");
  const int64_t used = read_number(folder, files->used, "");
  const int64_t active = read_number(folder, "/memory.stat", files->active);
  const int64_t inactive = read_number(folder, "/memory.stat", files->inactive);
  if (limit < 0 || used < 0) {
    return -1;
  }
  const int64_t held = used - (active > 0 ? active : 0) - (inactive > 0 ? inactive : 0);
  return limit > held ? limit - held : 0;
}

/* The tightest room of a control group and those above it, up to root. */
static int64_t group_room(const char *root, const char *group, const group_files *files,
                          int64_t room) {
  char folder[1024];
  const size_t root_length = strlen(root);
  const int length = snprintf(folder, sizeof folder, "%s%s", root, group);
  if (length < 0 || (size_t)length >= sizeof folder) {
    return room;
  }
  for (;;) {
    const int64_t left = group_left(folder, files);
    room = left >= 0 && left < room ? left : room;
    char *slash = strrchr(folder + root_length, '/');
    if (slash == NULL) {
      return room;
    }
    *slash = '\0';
  }
}

int64_t lks_memory_free(const char *meminfo, const char *cgroup, const char *root) {
  static const group_files second = {"/memory.max", "/memory.current", "active_file ",
                                     "inactive_file "};
  static const group_files first = {"/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                    "total_active_file ", "total_inactive_file "};
  char line[1024];
  char first_root[512];
  const int64_t kib = read_number(meminfo, "", "MemAvailable:");
  if (kib < 0) {
    return -1;
  }
  int64_t room = kib * 1024;
  FILE *stream = fopen(cgroup, "r");
  (void)snprintf(first_root, sizeof first_root, "%s/memory", root);
  /* "0::/path" is version 2; "N:memory:/path" version 1, mounted one folder deeper. */
  while (stream != NULL && fgets(line, sizeof line, stream) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    const char *path = strrchr(line, ':');
    if (path != NULL && strncmp(line, "0::", 3) == 0) {
      room = group_room(root, path + 1, &second, room);
    } else if (path != NULL && strstr(line, ":memory:") != NULL) {
      room = group_room(first_root, path + 1, &first, room);
    }
  }
  if (stream != NULL) {
    (void)fclose(stream);
  }
  return room;
}

static int64_t shared_free(void) {
  struct statvfs about;
  if (statvfs("/dev/shm", &about) != 0) {
    return INT64_MAX;
  }
  return (int64_t)about.f_bavail * (int64_t)about.f_frsize;
}

/* ---- the budget */

lks_status lks_budget_open(lks_world *world, int64_t asked, lks_budget *budget, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t available =
      asked > 0 ? -1 : lks_memory_free("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup");
  /* Where the system does not say how much is free, nothing is refused beforehand. */
  const int64_t limit = asked > 0 ? asked : available >= 0 ? available / 2 : INT64_MAX;
  const int64_t mine[3] = {limit, world->local_size > 1 ? shared_free() : INT64_MAX,
                           -world->local_size};
  int64_t least[3];
  TRY_MPI(MPI_Allreduce(mine, least, 3, MPI_INT64_T, MPI_MIN, world->comm));
  *budget = (lks_budget){.limit = least[0], .shared = least[1], .ranks = -least[2]};
cleanup:
  return st;
}

static bool copies_fit(const lks_budget *budget, int64_t bytes) {
  return bytes <= budget->limit / budget->ranks;
}

bool lks_budget_fits(const lks_budget *budget, int64_t bytes) {
  return bytes <= budget->shared ? bytes <= budget->limit : copies_fit(budget, bytes);
}

/* ---- blocks */

lks_status lks_memory_open(lks_world *world, const lks_budget *budget, size_t bytes,
                           lks_memory *memory, lks_error *err) {
  lks_status st = LKS_OK;
  *memory = (lks_memory){.bytes = bytes, .part = world->local_rank, .parts = world->local_size};
  const bool copies = world->local_size > 1 && copies_fit(budget, (int64_t)bytes);
  if (!copies || (int64_t)bytes <= budget->shared) {
    st = lks_shared_open(world, bytes, &memory->shared, err);
    if (st != LKS_NO_MEMORY || !copies) {
      memory->base = memory->shared.base;
      return st;
    }
  }
  st = LKS_OK;
  memory->base = calloc(1, bytes);
  TRY_ALLOC(memory->base);
  memory->copied = true;
  memory->part = 0;
  memory->parts = 1;
cleanup:
  return st;
}

void lks_memory_close(lks_memory *memory) {
  if (memory->copied) {
    free(memory->base);
  } else if (memory->base != NULL) {
    lks_shared_close(&memory->shared);
  }
  *memory = (lks_memory){0};
}

int64_t lks_memory_held(const lks_world *world, const lks_memory *memory) {
  return (int64_t)memory->bytes * (memory->copied ? world->local_size : 1);
}
