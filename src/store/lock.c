/* The lock of a run folder: one file, held twice over.
 *
 * The kernel's lock on the file ends with its process, however that ends, but some file systems
 * have none, or none that reach across hosts. The text inside (host, process, start time of the
 * process) serves there. The file stays when the lock is released, emptied: were it removed, a
 * process that had just opened it could lock a file which nobody else sees. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "store/files.h"

/* Lock of the open file where there is such, so that two runs of one process exclude each other
 * too, and closing another descriptor of the file does not release it. */
#ifdef F_OFD_SETLK
#define SET_LOCK F_OFD_SETLK
#else
#define SET_LOCK F_SETLK
#endif

struct lks_run_lock {
  int fd;
};

typedef struct holder {
  char host[HOST_NAME_MAX + 1];
  long pid;
  unsigned long long started; /* clock ticks after the host's start */
} holder;

/* When a process began; 0 where that cannot be known (no /proc, no such process). *ended: it has
 * ended, though nobody has asked for its exit code yet. */
static unsigned long long start_time(long pid, bool *ended) {
  char path[64], text[1024];
  unsigned long long ticks = 0;
  *ended = false;
  (void)snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
  FILE *file = fopen(path, "re");
  if (file == NULL) {
    return 0;
  }
  const size_t bytes = fread(text, 1, sizeof(text) - 1, file);
  (void)fclose(file);
  text[bytes] = '\0';
  /* The second field is the program's name in parentheses, which may hold anything; the start
   * time is the 22nd, so the 20th behind it. */
  const char *at = strrchr(text, ')');
  *ended = at != NULL && (strncmp(at, ") Z", 3) == 0 || strncmp(at, ") X", 3) == 0);
  for (int field = 2; at != NULL && field < 22; ++field) {
    at = strchr(at + 1, ' ');
  }
  return at != NULL && sscanf(at, " %llu", &ticks) == 1 ? ticks : 0;
}

static void this_process(holder *me) {
  memset(me, 0, sizeof(*me));
  if (gethostname(me->host, sizeof(me->host) - 1) != 0 || me->host[0] == '\0') {
    (void)snprintf(me->host, sizeof(me->host), "localhost");
  }
  me->pid = (long)getpid();
  bool ended = false;
  me->started = start_time(me->pid, &ended);
}

/* False when the file holds no whole line of a holder. */
static bool read_holder(int fd, holder *who) {
  char text[HOST_NAME_MAX + 64] = {0};
  memset(who, 0, sizeof(*who));
  if (pread(fd, text, sizeof(text) - 1, 0) <= 0) {
    return false;
  }
  /* The width is HOST_NAME_MAX of Linux. */
  return sscanf(text, "%64s %ld %llu\n", who->host, &who->pid, &who->started) == 3;
}

/* True when a process of this host still lives. */
static bool lives(const holder *who) {
  if (kill((pid_t)who->pid, 0) != 0 && errno == ESRCH) {
    return false;
  }
  bool ended = false;
  const unsigned long long now = start_time(who->pid, &ended);
  if (ended) {
    return false;
  }
  return now == 0 || who->started == 0 || now == who->started; /* else the number was reused */
}

static lks_status write_holder(int fd, const holder *me, const char *path, lks_error *err) {
  char text[HOST_NAME_MAX + 64];
  const int length = snprintf(text, sizeof(text), "%s %ld %llu\n", me->host, me->pid, me->started);
  if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length || fsync(fd) != 0) {
    return lks_fail_write(err, path, errno);
  }
  return LKS_OK;
}

/* Decides on what the file says, after the kernel's lock was got (or there is none). */
static lks_status check_holder(int fd, bool locked_elsewhere, const char *run_folder,
                               const char *path, lks_error *err) {
  holder me, other;
  this_process(&me);
  const bool known = read_holder(fd, &other);
  if (locked_elsewhere) {
    return lks_fail(err, LKS_STORAGE, "wait until that run ends, or set run.folder=NEW",
                    "run folder %s is in use by process %ld on %s", run_folder,
                    known ? other.pid : 0, known ? other.host : "an unknown host");
  }
  if (!known) {
    return LKS_OK;
  }
  if (strcmp(other.host, me.host) != 0) {
    const lks_status st =
        lks_fail(err, LKS_STORAGE, NULL, "run folder %s is in use by process %ld on %s", run_folder,
                 other.pid, other.host);
    lks_advise(err, "if that run is surely over, delete %s", path);
    return st;
  }
  if (lives(&other)) {
    return lks_fail(err, LKS_STORAGE, "wait until that run ends, or set run.folder=NEW",
                    "run folder %s is in use by process %ld on %s", run_folder, other.pid,
                    other.host);
  }
  return LKS_OK;
}

lks_status lks_run_lock_take(const char *run_folder, lks_run_lock **lock, lks_error *err) {
  lks_status st = LKS_OK;
  int fd = -1;
  bool elsewhere = false;
  holder me;
  lks_run_lock *made = malloc(sizeof(*made));
  lks_arena arena = {0};
  const char *path = lks_arena_print(&arena, "%s/.lock", run_folder);
  *lock = NULL;
  TRY_ALLOC(path);
  TRY_ALLOC(made);
  fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) {
    TRY(lks_fail_write(err, path, errno));
  }
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (fcntl(fd, SET_LOCK, &whole) != 0) {
    /* Any other error: a file system without locks, where the text alone has to do. */
    elsewhere = errno == EAGAIN || errno == EACCES;
  }
  TRY(check_holder(fd, elsewhere, run_folder, path, err));
  this_process(&me);
  TRY(write_holder(fd, &me, path, err));
  made->fd = fd;
  fd = -1;
  *lock = made;
cleanup:
  if (fd >= 0) {
    (void)close(fd);
  }
  if (*lock == NULL) {
    free(made);
  }
  lks_arena_free(&arena);
  return st;
}

void lks_run_lock_release(lks_run_lock **lock) {
  if (*lock != NULL) {
    /* Should this fail, the text stays, but the process that it names will be gone. */
    const int emptied = ftruncate((*lock)->fd, 0);
    (void)emptied;
    (void)close((*lock)->fd);
    free(*lock);
    *lock = NULL;
  }
}
