/* HDF5 files: the lock, errors, opening, looking around.
 *
 * HDF5's own printing is off: what went wrong is taken from its error stack. */
#include "base/h5_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* HDF5's serial build keeps its state in globals of its own, so its lock is one too. */
static pthread_mutex_t h5_mutex = PTHREAD_MUTEX_INITIALIZER;

void lks_h5_lock(void) {
  /* A default mutex that is never destroyed and never taken twice by one thread cannot fail. */
  (void)pthread_mutex_lock(&h5_mutex);
  /* A file whose close failed (a full disk) stays half-freed in HDF5's tables, and its exit handler
   * would crash on it. Files are always closed by name, so the handler has nothing to do. Takes
   * effect before HDF5's first use only; later it does nothing. */
  (void)H5dont_atexit();
  /* At every entry, for a thread-safe build keeps one error stack a thread. */
  (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void lks_h5_unlock(void) {
  /* What a thread leaves on a stack of its own is lost with it. */
  (void)H5Eclear2(H5E_DEFAULT);
  (void)pthread_mutex_unlock(&h5_mutex);
}

/* ---- errors */

typedef struct reason {
  char *out;
  size_t size;
} reason;

static herr_t take_description(unsigned depth, const H5E_error2_t *entry, void *user) {
  static const char system_words[] = "error message = '";
  reason *wanted = user;
  (void)depth;
  if (wanted->out[0] != '\0' || entry->desc == NULL || entry->desc[0] == '\0') {
    return 0;
  }
  const char *words = strstr(entry->desc, system_words);
  const char *end = NULL;
  if (words != NULL) {
    words += sizeof(system_words) - 1;
    end = strchr(words, '\'');
  }
  if (end != NULL) {
    (void)snprintf(wanted->out, wanted->size, "%.*s", (int)(end - words), words);
  } else {
    (void)snprintf(wanted->out, wanted->size, "%s", entry->desc);
  }
  return 0;
}

void lks_h5_reason(char *out, size_t size) {
  reason wanted = {out, size};
  out[0] = '\0';
  if (H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_description, &wanted) < 0 || out[0] == '\0') {
    (void)snprintf(out, size, "HDF5 gives no reason");
  }
}

/* " (1.5 GiB free)" when the reason is a full disk, else "". */
static void free_space(const char *path, const char *why, char out[48]) {
  struct statvfs disk;
  char bytes[32];
  lks_arena arena = {0};
  const char *folder = lks_path_folder(&arena, path);
  out[0] = '\0';
  if (folder != NULL && strcmp(why, strerror(ENOSPC)) == 0 && statvfs(folder, &disk) == 0) {
    (void)snprintf(out, 48, " (%s free)",
                   lks_format_bytes(bytes, (double)disk.f_bavail * (double)disk.f_frsize));
  }
  lks_arena_free(&arena);
}

lks_status lks_h5_fail(lks_error *err, const lks_h5_where *where) {
  char why[512];
  char room[48];
  lks_h5_reason(why, sizeof(why));
  if (strstr(why, "memory allocation failed") != NULL) {
    return lks_fail(err, LKS_NO_MEMORY, "give the process more memory", "%s: out of memory: %s",
                    where->file, why);
  }
  if (where->writing) {
    free_space(where->file, why, room);
    const char *remedy = "use a folder that can be written and has room";
    return where->object == NULL
               ? lks_fail(err, LKS_STORAGE, remedy, "cannot write %s: %s%s", where->file, why, room)
               : lks_fail(err, LKS_STORAGE, remedy, "cannot write %s: %s%s (at '%s')", where->file,
                          why, room, where->object);
  }
  const char *remedy = "copy or write the file again; h5dump shows what is left of it";
  return where->object == NULL
             ? lks_fail(err, LKS_DATA, remedy, "%s: damaged: %s", where->file, why)
             : lks_fail(err, LKS_DATA, remedy, "%s: cannot read '%s': %s", where->file,
                        where->object, why);
}

/* ---- opening */

/* HDF5's signature stands at byte 0, or after a user block of 512, 1024, 2048, ... bytes. */
static bool has_signature(int fd, int64_t size) {
  static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  unsigned char found[8];
  for (int64_t at = 0; at + 8 <= size; at = at == 0 ? 512 : at * 2) {
    if (pread(fd, found, 8, at) == 8 && memcmp(found, signature, 8) == 0) {
      return true;
    }
  }
  return false;
}

/* Everything that can be told without HDF5. size receives the file's length in bytes. */
static lks_status check_file(const char *path, int64_t *size, lks_error *err) {
  lks_status st = LKS_OK;
  struct stat about;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      FAIL(LKS_DATA, "check the path", "%s: no such file", path);
    }
    if (errno == EACCES || errno == EPERM) {
      FAIL(LKS_DATA, "give this user read permission", "%s: no permission to read it", path);
    }
    FAIL(LKS_DATA, "check the path and its file system", "%s: cannot open: %s", path,
         strerror(errno));
  }
  if (fstat(fd, &about) != 0) {
    FAIL(LKS_DATA, "check its file system", "%s: cannot open: %s", path, strerror(errno));
  }
  if (S_ISDIR(about.st_mode)) {
    FAIL(LKS_DATA, "name a file in it", "%s: is a folder, an HDF5 file is needed", path);
  }
  if (!S_ISREG(about.st_mode)) {
    FAIL(LKS_DATA, "name a regular file", "%s: is not a regular file", path);
  }
  *size = (int64_t)about.st_size;
  if (about.st_size == 0) {
    FAIL(LKS_DATA, "copy or write it again", "%s: the file is empty", path);
  }
  if (!has_signature(fd, *size)) {
    FAIL(LKS_DATA, "make one with: lockstep convert IN OUT.h5", "%s: not an HDF5 file", path);
  }
cleanup:
  if (fd >= 0) {
    (void)close(fd);
  }
  return st;
}

/* Why H5Fopen refused a file that has a signature. */
static lks_status fail_open(const char *path, int64_t size, lks_error *err) {
  static const char again[] = "copy or write it again";
  char why[512];
  unsigned long long wanted = 0;
  lks_h5_reason(why, sizeof(why));
  const char *stored = strstr(why, "stored_eof = ");
  if (strstr(why, "truncated file") != NULL && stored != NULL &&
      sscanf(stored, "stored_eof = %llu", &wanted) == 1) {
    return lks_fail(err, LKS_DATA, again, "%s: truncated: %lld of %llu bytes are there", path,
                    (long long)size, wanted);
  }
  if (strstr(why, "truncated file") != NULL || size < 48) { /* shorter than any superblock */
    return lks_fail(err, LKS_DATA, again, "%s: truncated after %lld bytes", path, (long long)size);
  }
  if (strcmp(why, strerror(EAGAIN)) == 0 || strstr(why, "unable to lock") != NULL) {
    return lks_fail(err, LKS_DATA, "wait until that program has closed it",
                    "%s: another program has it open for writing", path);
  }
  if (strstr(why, "already open for") != NULL) { /* a mark in the file, as of SWMR: no lock */
    return lks_fail(err, LKS_DATA,
                    "wait until that program has closed it; if it has ended without: h5clear -s "
                    "FILE",
                    "%s: another program has it open for writing", path);
  }
  const lks_h5_where at = {false, path, NULL};
  return lks_fail(err, LKS_DATA, again, "%s: damaged: %s", at.file, why);
}

/* Access properties: locks where the file system has them, and none where it does not. */
static hid_t access_list(bool writing) {
  const hid_t list = H5Pcreate(H5P_FILE_ACCESS);
  if (list < 0) {
    return list;
  }
  /* Strong: once closed, no forgotten handle keeps the file open. HDF5 itself opens weakly what
   * external links and virtual datasets lead to, and one file takes one degree: a source that is
   * also open as a file of its own would give zeros. */
  herr_t bad = H5Pset_fclose_degree(list, writing ? H5F_CLOSE_STRONG : H5F_CLOSE_WEAK);
  if (bad >= 0) {
    bad = H5Pset_libver_bounds(list, H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST);
  }
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
  if (bad >= 0) {
    bad = H5Pset_file_locking(list, true, true);
  }
#endif
  if (bad < 0) {
    (void)H5Pclose(list);
    return -1;
  }
  return list;
}

static void free_file(lks_h5 *file) {
  if (file != NULL) {
    free(file->path);
    free(file->shown);
    free(file);
  }
}

static lks_status make_file(const char *path, const char *shown, bool writing, lks_h5 **out,
                            lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5 *file = calloc(1, sizeof(*file));
  TRY_ALLOC(file);
  file->id = -1;
  lks_error_clear(&file->failure);
  file->writing = writing;
  file->path = strdup(path);
  TRY_ALLOC(file->path);
  file->shown = strdup(shown);
  TRY_ALLOC(file->shown);
  *out = file;
  file = NULL;
cleanup:
  free_file(file);
  return st;
}

lks_status lks_h5_open_id(const char *path, hid_t *id, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t access = -1;
  int64_t size = 0;
  const lks_h5_where at = {false, path, NULL};
  *id = -1;
  TRY(check_file(path, &size, err));
  access = access_list(false);
  TRY_H5(access, &at);
  *id = H5Fopen(path, H5F_ACC_RDONLY, access);
  if (*id < 0) {
    TRY(fail_open(path, size, err));
  }
cleanup:
  if (access >= 0) {
    (void)H5Pclose(access);
  }
  return st;
}

lks_status lks_h5_open(const char *path, lks_h5 **file, lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5 *opened = NULL;
  *file = NULL;
  lks_h5_lock();
  TRY(make_file(path, path, false, &opened, err));
  TRY(lks_h5_open_id(path, &opened->id, err));
  *file = opened;
  opened = NULL;
cleanup:
  free_file(opened);
  lks_h5_unlock();
  return st;
}

lks_status lks_h5_create_aside(const char *path, const char *shown, lks_h5 **file, lks_error *err) {
  lks_status st = LKS_OK;
  hid_t access = -1;
  lks_h5 *made = NULL;
  const lks_h5_where at = {true, shown, NULL};
  *file = NULL;
  lks_h5_lock();
  TRY(make_file(path, shown, true, &made, err));
  access = access_list(true);
  TRY_H5(access, &at);
  made->id = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
  TRY_H5(made->id, &at);
  *file = made;
  made = NULL;
cleanup:
  if (access >= 0) {
    (void)H5Pclose(access);
  }
  free_file(made);
  lks_h5_unlock();
  return st;
}

lks_status lks_h5_create(const char *path, lks_h5 **file, lks_error *err) {
  return lks_h5_create_aside(path, path, file, err);
}

lks_status lks_h5_close(lks_h5 **file, lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5 *closed = *file;
  if (closed == NULL) {
    return LKS_OK;
  }
  *file = NULL;
  const lks_h5_where at = {closed->writing, closed->shown, NULL};
  lks_h5_lock();
  if (closed->failure.status != LKS_OK) {
    *err = closed->failure;
    st = err->status;
  } else if (closed->writing) {
    /* A close that fails leaves nothing to retry: what can fail is done by this flush. */
    const herr_t flushed = H5Fflush(closed->id, H5F_SCOPE_GLOBAL);
    TRY_H5(flushed, &at);
  }
cleanup:;
  const herr_t done = H5Fclose(closed->id);
  if (done < 0 && st == LKS_OK && closed->writing) {
    st = lks_h5_fail(err, &at);
  }
  lks_h5_unlock();
  free_file(closed);
  return st;
}

const char *lks_h5_path(const lks_h5 *file) {
  return file->path;
}

const char *lks_h5_version_built(void) {
  static const char text[] = H5_VERS_INFO;
  return strrchr(text, ' ') + 1;
}

const char *lks_h5_version_running(void) {
  static char text[32]; /* written once, under the lock */
  unsigned major = 0, minor = 0, release = 0;
  lks_h5_lock();
  if (text[0] == '\0' && H5get_libversion(&major, &minor, &release) >= 0) {
    (void)snprintf(text, sizeof(text), "%u.%u.%u", major, minor, release);
  }
  lks_h5_unlock();
  return text;
}
