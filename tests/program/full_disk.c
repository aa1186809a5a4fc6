/* Preloaded into a program under test: a disk that is full.
 *
 * Writes to files under the folder $FULL_DISK fail with ENOSPC once this process has written
 * $FULL_DISK_AFTER bytes there. Everything else passes through. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_llong written;

/* True when these bytes still fit, or go elsewhere. */
static int fits(int fd, size_t count) {
  const char *folder = getenv("FULL_DISK"), *after = getenv("FULL_DISK_AFTER");
  char link[64], path[PATH_MAX];
  (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path);
  if (folder == NULL || after == NULL || length < (ssize_t)strlen(folder) ||
      strncmp(path, folder, strlen(folder)) != 0) {
    return 1;
  }
  const long long total = atomic_fetch_add(&written, (long long)count) + (long long)count;
  return total <= atoll(after);
}

/* The C library's own function of that name. */
static void *next(const char *name) {
  return dlsym(RTLD_NEXT, name);
}

ssize_t write(int fd, const void *data, size_t count) {
  ssize_t (*call)(int, const void *, size_t);
  *(void **)&call = next("write");
  if (!fits(fd, count)) {
    errno = ENOSPC;
    return -1;
  }
  return call(fd, data, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  ssize_t (*call)(int, const struct iovec *, int);
  *(void **)&call = next("writev");
  size_t bytes = 0;
  for (int i = 0; i < count; ++i) {
    bytes += parts[i].iov_len;
  }
  if (!fits(fd, bytes)) {
    errno = ENOSPC;
    return -1;
  }
  return call(fd, parts, count);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
  ssize_t (*call)(int, const void *, size_t, off_t);
  *(void **)&call = next("pwrite");
  if (!fits(fd, count)) {
    errno = ENOSPC;
    return -1;
  }
  return call(fd, data, count, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off_t offset) {
  return pwrite(fd, data, count, offset);
}
