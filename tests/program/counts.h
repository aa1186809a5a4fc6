/* For what is preloaded into a program under test to count something: where the numbers go.
 *
 * They go to the file $COUNTS, with the rank's number behind it, when the program $COUNTS_OF ends:
 * mpirun and the shell that starts a rank have the library loaded too. */
#ifndef COUNTS_H
#define COUNTS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline int is_main_thread(void) {
  return gettid() == getpid();
}

static inline void tell_counts(const long long *numbers, int count) {
  const char *file = getenv("COUNTS"), *program = getenv("COUNTS_OF");
  const char *rank = getenv("OMPI_COMM_WORLD_RANK");
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (file == NULL || program == NULL || length <= 0) {
    return;
  }
  path[length] = '\0';
  if (strcmp(path, program) != 0) {
    return;
  }
  (void)snprintf(path, sizeof path, "%s.%s", file, rank != NULL ? rank : "0");
  FILE *out = fopen(path, "w");
  if (out != NULL) {
    for (int i = 0; i < count; ++i) {
      (void)fprintf(out, "%lld\n", numbers[i]);
    }
    (void)fclose(out);
  }
}

#endif
