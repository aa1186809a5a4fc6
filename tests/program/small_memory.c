/* Preloaded into a program under test: a /dev/shm that is full from the process' look number
 * $SMALL_MEMORY_AFTER on, from 1. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

int statvfs(const char *restrict path, struct statvfs *restrict about) {
  static int looks;
  int (*call)(const char *restrict, struct statvfs *restrict);
  *(void **)&call = dlsym(RTLD_NEXT, "statvfs");
  const int code = call(path, about);
  const char *after = getenv("SMALL_MEMORY_AFTER");
  if (code == 0 && after != NULL && strcmp(path, "/dev/shm") == 0 && ++looks >= atoi(after)) {
    about->f_bavail = 0;
  }
  return code;
}
