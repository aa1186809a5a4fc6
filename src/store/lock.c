/* The lock of a run folder: one file, held three times over.
 *
 * The kernel's lock on the file ends with its process, however that ends, but some file systems
 * have none, or none that reach across hosts. The text inside (who holds it, on which start of
 * which machine, for which batch job) serves there: on the same machine one looks whether the
 * process lives. For other machines a thread touches the file every other second: a file that
 * nobody touches is that of a dead run. Its age is told by the file system's clock, not by those
 * of two hosts. The file stays when the lock is released, emptied: were it removed, a process that
 * had just opened it could lock a file which nobody else sees. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "base/thread.h"
#include "store/files.h"

/* Lock of the open file where there is such, so that two runs of one process exclude each other
 * too, and closing another descriptor of the file does not release it. */
#ifdef F_OFD_SETLK
#define SET_LOCK F_OFD_SETLK
#else
#define SET_LOCK F_SETLK
#endif

/* Seconds: between two touches; an untouched lock is old after; what is then still watched, for a
 * clock may be wrong all the same; a rival on a file system without locks may need to write. */
#define TOUCH_PERIOD 2.0
#define OLD_AFTER 60.0
#define WATCHED 5.0
#define RIVAL_PATIENCE 1.0

typedef struct holder {
  char host[HOST_NAME_MAX + 1];
  long pid;
  unsigned long long started; /* clock ticks after the machine's start */
  char machine[96];           /* this start of the machine, and the process' name space */
  char job[64];               /* Slurm's number of the batch job; "-": none */
  long restarts;              /* how often Slurm has begun that job again */
} holder;

struct lks_run_lock {
  int fd;
  char *path;
  char note[LKS_LOCK_NOTE];
  holder me;
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  bool ending; /* under the mutex */
  holder thief;
  atomic_bool lost; /* then thief is filled, and stays */
};

/* ---- who holds it */

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

/* Where process numbers mean the same: "<id of the machine's start>/<pid name space>". */
static void this_machine(char *out, size_t size) {
  char boot[64] = "-", names[64] = "-";
  FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
  if (file != NULL) {
    if (fscanf(file, "%40s", boot) != 1) {
      (void)snprintf(boot, sizeof(boot), "-");
    }
    (void)fclose(file);
  }
  const ssize_t length = readlink("/proc/self/ns/pid", names, sizeof(names) - 1);
  names[length > 0 ? length : 1] = '\0';
  (void)snprintf(out, size, "%.40s/%.40s", boot, names);
}

static void this_process(holder *me) {
  memset(me, 0, sizeof(*me));
  if (gethostname(me->host, sizeof(me->host) - 1) != 0 || me->host[0] == '\0') {
    (void)snprintf(me->host, sizeof(me->host), "localhost");
  }
  me->pid = (long)getpid();
  bool ended = false;
  me->started = start_time(me->pid, &ended);
  this_machine(me->machine, sizeof(me->machine));
  const char *job = getenv("SLURM_JOB_ID"), *restarts = getenv("SLURM_RESTART_COUNT");
  const bool named = job != NULL && job[0] != '\0' && strpbrk(job, " \n") == NULL;
  (void)snprintf(me->job, sizeof(me->job), "%s", named ? job : "-");
  int64_t count = 0;
  me->restarts = restarts != NULL && lks_parse_int64(restarts, &count) ? (long)count : 0;
}

/* False when the file holds no whole line of a holder. */
static bool read_holder(int fd, holder *who) {
  char text[sizeof(holder) + 128] = {0};
  memset(who, 0, sizeof(*who));
  if (pread(fd, text, sizeof(text) - 1, 0) <= 0) {
    return false;
  }
  /* The first width is HOST_NAME_MAX of Linux. */
  return sscanf(text, "%64s %ld %llu %95s %63s %ld\n", who->host, &who->pid, &who->started,
                who->machine, who->job, &who->restarts) == 6;
}

static bool same_holder(const holder *a, const holder *b) {
  return a->pid == b->pid && a->started == b->started && strcmp(a->machine, b->machine) == 0 &&
         strcmp(a->host, b->host) == 0;
}

/* True when a process of this machine still lives. */
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

/* The text is never away meanwhile: written over, then cut. */
static lks_status write_holder(int fd, const holder *me, const char *path, lks_error *err) {
  char text[sizeof(holder) + 128];
  const int length = snprintf(text, sizeof(text), "%s %ld %llu %s %s %ld\n", me->host, me->pid,
                              me->started, me->machine, me->job, me->restarts);
  if (pwrite(fd, text, (size_t)length, 0) != length || ftruncate(fd, length) != 0 ||
      fsync(fd) != 0) {
    return lks_fail_write(err, path, errno);
  }
  return LKS_OK;
}

/* ---- is it old? */

static double seconds_of(struct timespec time) {
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void nap(double seconds) {
  struct timespec rest = {.tv_sec = (time_t)seconds,
                          .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
  while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
  }
}

/* Opened anew each time: NFS asks the server then, and answers from memory else. */
static bool touched(const char *path, struct timespec *when) {
  struct stat about;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const bool there = fd >= 0 && fstat(fd, &about) == 0;
  if (fd >= 0) {
    (void)close(fd);
  }
  if (there) {
    *when = about.st_mtim;
  }
  return there;
}

/* Seconds since the lock was touched, by the clock of its file system: a file made now tells it. */
static lks_status measure_age(const char *run_folder, const char *path, double *age,
                              lks_error *err) {
  lks_status st = LKS_OK;
  struct timespec then = {0};
  struct stat now;
  lks_arena arena = {0};
  int fd = -1;
  const char *probe = lks_arena_print(&arena, "%s/.lock.tmp-%ld", run_folder, (long)getpid());
  TRY_ALLOC(probe);
  fd = open(probe, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0 || futimens(fd, NULL) != 0 || fstat(fd, &now) != 0 || !touched(path, &then)) {
    TRY(lks_fail_write(err, path, errno));
  }
  *age = seconds_of(now.st_mtim) - seconds_of(then);
cleanup:
  if (fd >= 0) {
    (void)close(fd);
    (void)unlink(probe);
  }
  lks_arena_free(&arena);
  return st;
}

/* True when nobody touches the lock for longer than a living run would leave it. */
static bool stays_untouched(const char *path) {
  struct timespec before = {0}, now = {0};
  (void)touched(path, &before);
  for (double waited = 0.0; waited < WATCHED; waited += 0.5) {
    nap(0.5);
    if (!touched(path, &now) || memcmp(&now, &before, sizeof(now)) != 0) {
      return false;
    }
  }
  return true;
}

/* ---- deciding */

static lks_status refuse(const holder *other, bool known, const char *run_folder, lks_error *err) {
  return lks_fail(err, LKS_STORAGE, "wait until that run ends, or set run.folder=NEW",
                  "run folder %s is in use by process %ld on %s", run_folder,
                  known ? other->pid : 0, known ? other->host : "an unknown host");
}

static bool is_restart_of(const holder *me, const holder *other) {
  return strcmp(me->job, "-") != 0 && strcmp(me->job, other->job) == 0 &&
         me->restarts > other->restarts;
}

static lks_status check_elsewhere(const holder *other, const char *run_folder, const char *path,
                                  char *note, lks_error *err) {
  lks_status st = LKS_OK;
  double age = 0.0;
  TRY(measure_age(run_folder, path, &age, err));
  /* A time to come is a clock gone wrong: then only watching tells. */
  if ((age > -TOUCH_PERIOD && age < OLD_AFTER) || !stays_untouched(path)) {
    st = refuse(other, true, run_folder, err);
    lks_advise(err,
               "wait until that run ends, or set run.folder=NEW; a run that is over without a "
               "trace is taken over %.0f s after its end",
               OLD_AFTER);
    goto cleanup;
  }
  (void)snprintf(note, LKS_LOCK_NOTE,
                 "run folder %.200s taken over from process %ld on %s, of which nothing was seen "
                 "for %.0f s",
                 run_folder, other->pid, other->host, age);
cleanup:
  return st;
}

/* Decides on what the file says, after the kernel's lock was got, or there is none, or another has
 * it. */
static lks_status check_holder(int fd, const holder *me, bool locked_elsewhere,
                               const char *run_folder, const char *path, char *note,
                               lks_error *err) {
  holder other;
  const bool known = read_holder(fd, &other);
  if (known && is_restart_of(me, &other)) {
    /* Slurm has ended what it begins again; a lock left behind by a lost host is only late. */
    if (strcmp(me->host, other.host) != 0) {
      (void)snprintf(note, LKS_LOCK_NOTE,
                     "run folder %.200s taken over from process %ld on %s: job %s was begun again",
                     run_folder, other.pid, other.host, me->job);
    }
    return LKS_OK;
  }
  if (locked_elsewhere) {
    return refuse(&other, known, run_folder, err);
  }
  if (!known) {
    return LKS_OK;
  }
  if (strcmp(other.machine, me->machine) != 0) {
    return check_elsewhere(&other, run_folder, path, note, err);
  }
  return lives(&other) ? refuse(&other, true, run_folder, err) : LKS_OK;
}

/* Two may take over at once where the kernel does not decide: the text is that of the last one. */
static lks_status confirm(const holder *me, const char *run_folder, const char *path,
                          lks_error *err) {
  holder now;
  nap(RIVAL_PATIENCE);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return lks_fail_write(err, path, errno);
  }
  const bool known = read_holder(fd, &now);
  (void)close(fd);
  return known && same_holder(&now, me) ? LKS_OK : refuse(&now, known, run_folder, err);
}

/* ---- holding it */

/* Touches the file, and looks whose it is: a run that was suspended for long may have lost it. A
 * file that is gone, or can't be read now, says nothing. */
static void keep(lks_run_lock *lock) {
  holder now;
  (void)futimens(lock->fd, NULL);
  const int fd = open(lock->path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return;
  }
  if (read_holder(fd, &now) && !same_holder(&now, &lock->me)) {
    lock->thief = now;
    atomic_store(&lock->lost, true);
  }
  (void)close(fd);
}

static void *hold(void *user) {
  lks_run_lock *lock = user;
  (void)pthread_mutex_lock(&lock->mutex);
  while (!lock->ending && !atomic_load(&lock->lost)) {
    (void)pthread_mutex_unlock(&lock->mutex);
    keep(lock); /* outside the mutex: a file system may hang */
    (void)pthread_mutex_lock(&lock->mutex);
    const struct timespec until = lks_thread_moment(TOUCH_PERIOD);
    if (!lock->ending) {
      (void)pthread_cond_timedwait(&lock->wake, &lock->mutex, &until);
    }
  }
  (void)pthread_mutex_unlock(&lock->mutex);
  return NULL;
}

static lks_status start(lks_run_lock *lock, lks_error *err) {
  lks_status st = LKS_OK;
  (void)pthread_mutex_init(&lock->mutex, NULL);
  lks_thread_condition(&lock->wake);
  st = lks_thread_start(&lock->thread, hold, lock, err);
  if (st != LKS_OK) {
    (void)pthread_cond_destroy(&lock->wake);
    (void)pthread_mutex_destroy(&lock->mutex);
  }
  return st;
}

static void free_lock(lks_run_lock *lock) {
  if (lock != NULL) {
    if (lock->fd >= 0) {
      (void)close(lock->fd);
    }
    free(lock->path);
    free(lock);
  }
}

lks_status lks_run_lock_take(const char *run_folder, lks_run_lock **lock, lks_error *err) {
  lks_status st = LKS_OK;
  bool elsewhere = false, locked = false;
  lks_arena arena = {0};
  lks_run_lock *made = calloc(1, sizeof(*made));
  *lock = NULL;
  TRY_ALLOC(made);
  made->fd = -1;
  const char *path = lks_arena_print(&arena, "%s/.lock", run_folder);
  TRY_ALLOC(path);
  made->path = strdup(path);
  TRY_ALLOC(made->path);
  this_process(&made->me);
  made->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (made->fd < 0) {
    TRY(lks_fail_write(err, path, errno));
  }
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  locked = fcntl(made->fd, SET_LOCK, &whole) == 0;
  /* Any other error: a file system without locks, where the text alone has to do. */
  elsewhere = !locked && (errno == EAGAIN || errno == EACCES);
  TRY(check_holder(made->fd, &made->me, elsewhere, run_folder, path, made->note, err));
  TRY(write_holder(made->fd, &made->me, path, err));
  if (!locked) {
    TRY(confirm(&made->me, run_folder, path, err));
  }
  TRY(start(made, err));
  *lock = made;
  made = NULL;
cleanup:
  free_lock(made);
  lks_arena_free(&arena);
  return st;
}

const char *lks_run_lock_note(const lks_run_lock *lock) {
  return lock->note;
}

lks_status lks_run_lock_check(const lks_run_lock *lock, lks_error *err) {
  if (!atomic_load(&lock->lost)) {
    return LKS_OK;
  }
  return lks_fail(err, LKS_STORAGE,
                  "that run goes on from the last checkpoint; nothing more is written by this one",
                  "%s was taken over by process %ld on %s, while nothing was seen of this one",
                  lock->path, lock->thief.pid, lock->thief.host);
}

void lks_run_lock_release(lks_run_lock **out) {
  lks_run_lock *lock = *out;
  if (lock == NULL) {
    return;
  }
  *out = NULL;
  (void)pthread_mutex_lock(&lock->mutex);
  lock->ending = true;
  (void)pthread_cond_signal(&lock->wake);
  (void)pthread_mutex_unlock(&lock->mutex);
  (void)pthread_join(lock->thread, NULL);
  (void)pthread_cond_destroy(&lock->wake);
  (void)pthread_mutex_destroy(&lock->mutex);
  if (!atomic_load(&lock->lost)) {
    /* Should this fail, the text stays, but the process that it names will be gone. */
    const int emptied = ftruncate(lock->fd, 0);
    (void)emptied;
  }
  free_lock(lock);
}
