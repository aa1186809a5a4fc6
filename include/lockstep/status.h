/* Status codes, exit codes and error records.
 *
 * Every fallible function of Lockstep returns an lks_status and fills the caller's lks_error.
 * One X-macro is the only list of codes: the enum, the names and the exit codes come from it. */
#ifndef LOCKSTEP_STATUS_H
#define LOCKSTEP_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(code, exit code of the program, what it means) */
#define LKS_STATUS_LIST(X)                                                                         \
  X(OK, 0, "done")                                                                                 \
  X(INTERNAL, 1, "internal error")                                                                 \
  X(NO_MEMORY, 1, "out of host memory")                                                            \
  X(USAGE, 2, "usage")                                                                             \
  X(CONFIG, 2, "configuration")                                                                    \
  X(DATA, 3, "data")                                                                               \
  X(DEVICE, 4, "device")                                                                           \
  X(COMM, 5, "communication")                                                                      \
  X(NOT_FINITE, 6, "not finite")                                                                   \
  X(STORAGE, 7, "storage")                                                                         \
  X(STOPPED, 75, "stopped on request")

typedef enum lks_status {
#define LKS_STATUS_ENUM(code, exit_code, meaning) LKS_##code,
  LKS_STATUS_LIST(LKS_STATUS_ENUM)
#undef LKS_STATUS_ENUM
} lks_status;

/* One error: what happened and where, what to do, and the frames it passed through.
 * Plain data, so that ranks can send it to each other. `what` and `remedy` are single lines. */
typedef struct lks_error {
  lks_status status;
  int rank;         /* MPI rank it happened on; -1 before MPI is up */
  int frame_count;  /* frames recorded in trace */
  char host[64];    /* host of that rank */
  char phase[24];   /* what the rank was doing: "configuration", "data", "step 12", ... */
  char what[1024];  /* e.g. "cfd.h5: no dataset 'label' (has x, y)" */
  char remedy[512]; /* e.g. "set data.train.targets"; may be empty */
  char trace[1024]; /* "expression (file:line)" innermost first, separated by " < " */
} lks_error;

/* Exit code documented for a status; 1 for values out of range. Not collective. */
int lks_exit_code(lks_status status);

/* Short meaning of a status, static storage. Not collective. */
const char *lks_status_meaning(lks_status status);

#ifdef __cplusplus
}
#endif
#endif
