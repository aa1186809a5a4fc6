/* Preloaded into a program under test: a disk that is slow.
 *
 * Each fsync, fdatasync, and 64 KiB of a pwrite to a file under the folder $SLOW_DISK take
 * $SLOW_DISK_MS more. Everything else passes through. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void dawdle(int fd, size_t times) {
  const char *folder = getenv("SLOW_DISK"), *ms = getenv("SLOW_DISK_MS");
  char link[64], path[PATH_MAX];
  (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path);
  if (folder != NULL && ms != NULL && length >= (ssize_t)strlen(folder) &&
      strncmp(path, folder, strlen(folder)) == 0) {
    const long whole = atol(ms) * (long)times;
    struct timespec left = {whole / 1000, whole % 1000 * 1000000L};
    while (nanosleep(&left, &left) != 0) {
    }
  }
}

int fsync(int fd) {
  int (*call)(int);
  *(void **)&call = dlsym(RTLD_NEXT, "fsync");
  dawdle(fd, 1);
  return call(fd);
}

int fdatasync(int fd) {
  int (*call)(int);
  *(void **)&call = dlsym(RTLD_NEXT, "fdatasync");
  dawdle(fd, 1);
  return call(fd);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
  ssize_t (*call)(int, const void *, size_t, off_t);
  *(void **)&call = dlsym(RTLD_NEXT, "pwrite");
  dawdle(fd, count >> 16);
  return call(fd, data, count, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off_t offset) {
  return pwrite(fd, data, count, offset);
}
