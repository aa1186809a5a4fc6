/* Kernels that are right, or wrong in one way, on purpose: the simulated GPU must tell which. */
#ifndef SIMGPU_BROKEN_KERNELS_H
#define SIMGPU_BROKEN_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fault {
  FAULT_NONE,
  /* reverse: a block turns its part of an array round, by way of shared memory */
  FAULT_NO_BARRIER,   /* reads what other threads write */
  FAULT_HALF_BARRIER, /* half of the threads have ended */
  FAULT_TWO_BARRIERS, /* threads wait at different ones */
  FAULT_UNWRITTEN,    /* reads shared memory that nobody wrote */
  FAULT_PAST_THE_END, /* reads one element behind the array */
  FAULT_WRITE_PAST,   /* writes one element behind the array */
  FAULT_SAME_ELEMENT, /* all threads write one element */
  FAULT_OTHER_BLOCK,  /* reads what another block writes */
  FAULT_HOST_POINTER, /* reads through a pointer to pageable host memory */
  FAULT_TOO_MANY,     /* threads: more than the launch bounds say */
  /* total: blocks leave partial sums, the last one adds them */
  FAULT_NO_RELEASE,    /* no fence before the ticket is drawn */
  FAULT_NO_ACQUIRE,    /* none after it */
  FAULT_NO_TICKET,     /* block 0 adds, whether or not the others are done */
  FAULT_PLAIN_TICKET,  /* the ticket is no atomic */
  FAULT_LANE_MISSING,  /* a lane does not come to the shuffle */
  FAULT_LANE_UNMASKED, /* a shuffle reads a lane that its mask lacks */
} fault;

typedef struct broken_args {
  const float *in;
  float *out;
  unsigned *ticket;
  int64_t count; /* total: a multiple of 64 */
  fault wrong;
} broken_args;

/* out[i] = in[mirror of i in its 64]. */
int broken_reverse(const broken_args *args, struct CUstream_st *stream);
/* out[0] = sum of in; out[1 ...] partial sums, one a block of 64. *ticket is 0 before and after. */
int broken_total(const broken_args *args, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
