/* Writing aside and renaming, folders, hashes of files.
 *
 * Invariant: a path that a reader may open is only ever the target of a rename. */
#include "store/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/text.h"

#define HASH_BLOCK ((size_t)1 << 20)

/* ---- errors */

int64_t lks_disk_free(const char *path) {
  struct statvfs disk;
  int64_t bytes = -1;
  lks_arena arena = {0};
  const char *at = path;
  /* What is not there yet will lie on the file system of the folder above. */
  while (at != NULL && statvfs(at, &disk) != 0) {
    at = strcmp(at, ".") == 0 || strcmp(at, "/") == 0 ? NULL : lks_path_folder(&arena, at);
  }
  if (at != NULL) {
    bytes = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize;
  }
  lks_arena_free(&arena);
  return bytes;
}

lks_status lks_fail_write(lks_error *err, const char *path, int code) {
  char room[32], bytes[32];
  const int64_t free_bytes = lks_disk_free(path);
  const bool full = code == ENOSPC || code == EDQUOT;
  const bool denied = code == EACCES || code == EPERM || code == EROFS;
  (void)snprintf(room, sizeof(room), " (%s free)", lks_format_bytes(bytes, (double)free_bytes));
  return lks_fail(err, LKS_STORAGE,
                  full     ? "free space on that file system, or use a folder on another"
                  : denied ? "give this user write permission, or use another folder"
                           : "check that folder and its file system, or use another folder",
                  "cannot write %s: %s%s", path, strerror(code),
                  full && free_bytes >= 0 ? room : "");
}

/* ---- publishing */

char *lks_aside_path(lks_arena *arena, const char *path) {
  const char *folder = lks_path_folder(arena, path);
  return folder == NULL ? NULL
                        : lks_arena_print(arena, "%s/.%s.tmp-%ld", folder, lks_path_base(path),
                                          (long)getpid());
}

/* Makes a rename in the folder of path last. */
static lks_status sync_folder(const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  int fd = -1;
  lks_arena arena = {0};
  const char *folder = lks_path_folder(&arena, path);
  TRY_ALLOC(folder);
  fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  /* Some file systems cannot sync folders and say EINVAL; they have nothing to be asked for. */
  if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP)) {
    TRY(lks_fail_write(err, folder, errno));
  }
cleanup:
  if (fd >= 0) {
    (void)close(fd);
  }
  lks_arena_free(&arena);
  return st;
}

lks_status lks_file_publish(const char *aside, const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  bool renamed = false;
  const int fd = open(aside, O_RDWR | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0) {
    TRY(lks_fail_write(err, path, errno));
  }
  if (rename(aside, path) != 0) {
    TRY(lks_fail_write(err, path, errno));
  }
  renamed = true;
  TRY(sync_folder(path, err));
cleanup:
  if (fd >= 0) {
    (void)close(fd);
  }
  if (!renamed) {
    (void)unlink(aside);
  }
  return st;
}

lks_status lks_file_write_text(const char *path, const char *text, size_t length, lks_error *err) {
  lks_status st = LKS_OK;
  int fd = -1;
  lks_arena arena = {0};
  const char *aside = lks_aside_path(&arena, path);
  TRY_ALLOC(aside);
  fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) {
    TRY(lks_fail_write(err, path, errno));
  }
  for (size_t done = 0; done < length;) {
    const ssize_t wrote = write(fd, text + done, length - done);
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote < 0) {
      TRY(lks_fail_write(err, path, errno));
    }
    done += (size_t)wrote;
  }
  const int closed = close(fd);
  fd = -1;
  if (closed != 0) {
    TRY(lks_fail_write(err, path, errno));
  }
  TRY(lks_file_publish(aside, path, err));
cleanup:
  if (fd >= 0) {
    (void)close(fd);
  }
  if (st != LKS_OK && aside != NULL) {
    (void)unlink(aside);
  }
  lks_arena_free(&arena);
  return st;
}

/* ---- folders */

/* Makes one folder, unless it is there. */
static lks_status make_one(const char *part, const char *whole, lks_error *err) {
  struct stat about;
  if (mkdir(part, 0777) == 0) {
    return LKS_OK;
  }
  const int code = errno;
  if (stat(part, &about) == 0) {
    if (S_ISDIR(about.st_mode)) {
      return LKS_OK;
    }
    return lks_fail(err, LKS_STORAGE, "remove that file, or use another folder",
                    "cannot make folder %s: %s is not a folder", whole, part);
  }
  const bool link = code == EEXIST;
  const bool denied = code == EACCES || code == EPERM || code == EROFS;
  return lks_fail(err, LKS_STORAGE,
                  link     ? "make what the link names, or use another folder"
                  : denied ? "give this user write permission there, or use another folder"
                           : "check that folder and its file system, or use another folder",
                  "cannot make folder %s: %s: %s", whole, part,
                  link ? "it is a link to nothing" : strerror(code));
}

lks_status lks_folder_make(const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  char *part = strdup(path);
  TRY_ALLOC(part);
  for (char *slash = strchr(part + 1, '/'); part[0] != '\0' && slash != NULL;
       slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    TRY(make_one(part, path, err));
    *slash = '/';
  }
  TRY(make_one(part, path, err));
cleanup:
  free(part);
  return st;
}

lks_status lks_folder_writable(const char *path, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  const char *probe = lks_arena_print(&arena, "%s/.probe.tmp-%ld", path, (long)getpid());
  TRY_ALLOC(probe);
  const int fd = open(probe, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) {
    TRY(lks_fail_write(err, path, errno));
  }
  const bool wrote = write(fd, "x", 1) == 1;
  const int code = errno;
  (void)close(fd);
  (void)unlink(probe);
  if (!wrote) {
    TRY(lks_fail_write(err, path, code));
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}

/* True for ".NAME.tmp-DIGITS" where a run writes NAME. */
static bool is_leftover(const char *name) {
  static const char *const exact[] = {"config.yaml", "log.jsonl", "history.h5", "devices.h5",
                                      "probe",       "lock",      NULL};
  const char *mark = strstr(name, ".tmp-");
  if (name[0] != '.' || mark == NULL || mark[5] == '\0' ||
      strspn(mark + 5, "0123456789") != strlen(mark + 5)) {
    return false;
  }
  const size_t length = (size_t)(mark - name) - 1;
  for (int i = 0; exact[i] != NULL; ++i) {
    if (strlen(exact[i]) == length && memcmp(exact[i], name + 1, length) == 0) {
      return true;
    }
  }
  static const char weights[] = ".weights.h5";
  const size_t tail = sizeof(weights) - 1;
  return length > tail && memcmp(mark - tail, weights, tail) == 0;
}

static void sweep_one(const char *folder) {
  DIR *listing = opendir(folder);
  const struct dirent *entry = NULL;
  if (listing == NULL) {
    return;
  }
  while ((entry = readdir(listing)) != NULL) {
    if (is_leftover(entry->d_name)) {
      (void)unlinkat(dirfd(listing), entry->d_name, 0);
    }
  }
  (void)closedir(listing);
}

void lks_folder_sweep(const char *run_folder) {
  lks_arena arena = {0};
  const char *checkpoints = lks_arena_print(&arena, "%s/checkpoints", run_folder);
  sweep_one(run_folder);
  if (checkpoints != NULL) {
    sweep_one(checkpoints);
  }
  lks_arena_free(&arena);
}

/* ---- hashes */

lks_status lks_file_hash(const char *path, int64_t length, uint64_t *hash, lks_error *err) {
  lks_status st = LKS_OK;
  XXH64_state_t *state = NULL;
  unsigned char *block = malloc(HASH_BLOCK);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    FAIL(LKS_STORAGE, "check the path and its permissions", "%s: cannot read: %s", path,
         strerror(errno));
  }
  TRY_ALLOC(block);
  state = XXH64_createState();
  TRY_ALLOC(state);
  (void)XXH64_reset(state, 0);
  for (int64_t left = length < 0 ? INT64_MAX : length; left > 0;) {
    const size_t wanted = left < (int64_t)HASH_BLOCK ? (size_t)left : HASH_BLOCK;
    const ssize_t got = read(fd, block, wanted);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      FAIL(LKS_STORAGE, "check its file system", "%s: cannot read: %s", path, strerror(errno));
    }
    if (got == 0 && length >= 0) {
      FAIL(LKS_STORAGE, "copy or write it again", "%s: truncated: %lld bytes are missing", path,
           (long long)left);
    }
    if (got == 0) {
      break;
    }
    (void)XXH64_update(state, block, (size_t)got);
    left -= got;
  }
  *hash = XXH64_digest(state);
cleanup:
  if (state != NULL) {
    (void)XXH64_freeState(state);
  }
  free(block);
  if (fd >= 0) {
    (void)close(fd);
  }
  return st;
}

lks_status lks_file_copy(const char *from, const char *to, lks_error *err) {
  enum { PART = 1 << 20 };
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  FILE *in = NULL, *out = NULL;
  char *part = malloc(PART);
  const char *aside = lks_aside_path(&arena, to);
  TRY_ALLOC(part);
  TRY_ALLOC(aside);
  in = fopen(from, "rb");
  if (in == NULL) {
    FAIL(LKS_STORAGE, "check the folder's permissions", "%s: cannot read: %s", from,
         strerror(errno));
  }
  out = fopen(aside, "wb");
  if (out == NULL) {
    TRY(lks_fail_write(err, to, errno));
  }
  size_t length = 0;
  while ((length = fread(part, 1, PART, in)) > 0) {
    if (fwrite(part, 1, length, out) != length) {
      TRY(lks_fail_write(err, to, errno));
    }
  }
  if (ferror(in)) {
    FAIL(LKS_STORAGE, "check the disk", "%s: cannot read: %s", from, strerror(errno));
  }
  const int closed = fclose(out);
  out = NULL;
  if (closed != 0) {
    TRY(lks_fail_write(err, to, errno));
  }
  TRY(lks_file_publish(aside, to, err));
cleanup:
  if (out != NULL) {
    (void)fclose(out);
  }
  if (in != NULL) {
    (void)fclose(in);
  }
  if (st != LKS_OK && aside != NULL) {
    (void)unlink(aside);
  }
  free(part);
  lks_arena_free(&arena);
  return st;
}
