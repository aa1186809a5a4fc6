/* A fresh folder for one test program's files, and checks of error records. */
#ifndef LKS_TESTS_SCRATCH_H
#define LKS_TESTS_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first. */
#include <cmocka.h>
#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/error.h"

typedef struct scratch {
  char folder[256];
  lks_arena paths;
} scratch;

static int scratch_remove_one(const char *path, const struct stat *about, int kind,
                              struct FTW *where) {
  (void)about;
  (void)kind;
  (void)where;
  return remove(path);
}

static inline int scratch_make(void **state) {
  scratch *made = calloc(1, sizeof(*made));
  const char *parent = getenv("TMPDIR");
  if (made == NULL) {
    return -1;
  }
  (void)snprintf(made->folder, sizeof(made->folder), "%s/lks-unit-XXXXXX",
                 parent != NULL ? parent : "/tmp");
  *state = made;
  return mkdtemp(made->folder) != NULL ? 0 : -1;
}

static inline int scratch_remove(void **state) {
  scratch *made = *state;
  const int bad = nftw(made->folder, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
  lks_arena_free(&made->paths);
  free(made);
  return bad;
}

/* The path of a file in the folder, valid until the end. */
static inline const char *scratch_path(scratch *at, const char *name) {
  const char *path = lks_arena_print(&at->paths, "%s/%s", at->folder, name);
  assert_non_null(path);
  return path;
}

static inline void scratch_write(const char *path, const void *data, size_t bytes) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, bytes, file), bytes);
  assert_int_equal(fclose(file), 0);
}

/* The whole file, malloc'ed, with a NUL behind it. */
static inline char *scratch_read(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  assert_int_equal(fseek(file, 0, SEEK_END), 0);
  const long size = ftell(file);
  assert_true(size >= 0);
  rewind(file);
  char *data = calloc(1, (size_t)size + 1);
  assert_non_null(data);
  assert_int_equal(fread(data, 1, (size_t)size, file), (size_t)size);
  assert_int_equal(fclose(file), 0);
  *bytes = (size_t)size;
  return data;
}

/* Names in a folder that begin so ("" for all but "." and ".."). */
static inline int scratch_count(const char *folder, const char *prefix) {
  int count = 0;
  DIR *listing = opendir(folder);
  assert_non_null(listing);
  for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
    count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
             strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
  }
  assert_int_equal(closedir(listing), 0);
  return count;
}

/* The call succeeded; its message is shown where it did not. */
#define assert_ok(call)                                                                            \
  do {                                                                                             \
    if ((call) != LKS_OK) {                                                                        \
      fail_msg("%s: %s", #call, err.what);                                                         \
    }                                                                                              \
  } while (0)

/* The call failed with that status and all of those words (the last argument is NULL) in it. */
static inline void scratch_words(const lks_error *err, ...) {
  va_list words;
  va_start(words, err);
  for (const char *word = va_arg(words, const char *); word != NULL;
       word = va_arg(words, const char *)) {
    if (strstr(err->what, word) == NULL) {
      fail_msg("\"%s\" is not in \"%s\"", word, err->what);
    }
  }
  va_end(words);
  assert_null(strchr(err->what, '\n'));
}

#define assert_fails(call, expected, ...)                                                          \
  do {                                                                                             \
    lks_error_clear(&err);                                                                         \
    assert_int_equal((call), (expected));                                                          \
    assert_int_equal(err.status, (expected));                                                      \
    scratch_words(&err, __VA_ARGS__, (const char *)NULL);                                          \
  } while (0)

/* Runs work in a child process and gives its status and error record: for limits of the process,
 * and because HDF5 leaks memory of its own when a write fails. */
static inline lks_status scratch_in_child(lks_status (*work)(void *user, lks_error *err),
                                          void *user, lks_error *err) {
  lks_error *shared =
      mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int how = 0;
  assert_true(shared != MAP_FAILED);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    _exit((int)work(user, shared));
  }
  assert_int_equal(waitpid(child, &how, 0), child);
  assert_true(WIFEXITED(how)); /* not by a signal */
  *err = *shared;
  assert_int_equal(munmap(shared, sizeof(*shared)), 0);
  return (lks_status)WEXITSTATUS(how);
}

/* Limits the size of files, which stands for a full disk: a write beyond it fails with EFBIG. */
static inline void scratch_limit_files(rlim_t bytes) {
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  limit.rlim_cur = bytes;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  (void)signal(SIGXFSZ, SIG_IGN);
}

#endif
