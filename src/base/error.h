/* Recording errors, and the macros by which they travel.
 *
 * Convention in every fallible function: a local `lks_status st = LKS_OK`, a parameter
 * `lks_error *err`, and one label `cleanup:` that frees and returns st. */
#ifndef LKS_BASE_ERROR_H
#define LKS_BASE_ERROR_H

#include <stddef.h>

#include "lockstep/status.h"

#ifndef LKS_MUST_USE /* the public header has it too */
#define LKS_MUST_USE __attribute__((warn_unused_result))
#endif
#define LKS_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))

/* Fills *err (replacing what it held) and returns status. remedy may be NULL.
 * The message is forced onto one line, and loses its middle where it is too long. err must not be
 * NULL. */
lks_status lks_fail(lks_error *err, lks_status status, const char *remedy, const char *format,
                    ...) LKS_MUST_USE LKS_PRINTF(4, 5);

/* Replaces the remedy of an error already recorded; for remedies that need formatting. */
void lks_advise(lks_error *err, const char *format, ...) LKS_PRINTF(2, 3);

/* Appends one frame to the trace. Called by the TRY macros. */
void lks_error_frame(lks_error *err, lks_status status, const char *expression, const char *file,
                     int line);

/* Writes the one line a user sees, without the program's name:
 * "what [rank 0, host, phase]; remedy". size is the capacity of out in bytes. */
void lks_error_line(const lks_error *err, char *out, size_t size);

/* Makes *err empty: LKS_OK, rank -1, no text. */
void lks_error_clear(lks_error *err);

#define TRY(expression)                                                                            \
  do {                                                                                             \
    st = (expression);                                                                             \
    if (st != LKS_OK) {                                                                            \
      lks_error_frame(err, st, #expression, __FILE__, __LINE__);                                   \
      goto cleanup;                                                                                \
    }                                                                                              \
  } while (0)

/* Fails here: FAIL(LKS_DATA, "remedy or NULL", "format", ...). */
#define FAIL(status_, remedy_, ...)                                                                \
  do {                                                                                             \
    st = lks_fail(err, status_, remedy_, __VA_ARGS__);                                             \
    goto cleanup;                                                                                  \
  } while (0)

/* Fails with LKS_NO_MEMORY when a pointer that was just allocated is NULL. Names it, for *out as
 * `out`. */
#define TRY_ALLOC(pointer)                                                                         \
  do {                                                                                             \
    if ((pointer) == NULL) {                                                                       \
      FAIL(LKS_NO_MEMORY, "use fewer ranks a node, or a node with more memory",                    \
           "out of memory for %s", &#pointer[#pointer[0] == '*']);                                 \
    }                                                                                              \
  } while (0)

#endif
