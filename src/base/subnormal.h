/* Floats below 1.2e-38 (subnormal) as zeros, in the calling thread, while the network computes.
 *
 * x86 processors take a hundred cycles and more for each, and training makes them by itself: where
 * a ReLU never fires again, its gradients are 0, and Adam's first moment, 0.9 times what it was
 * with every step, is subnormal after some 800 steps, and then never 0, for what would be taken
 * from the last of it rounds to nothing. A step of 4 million parameters took 2.7 times as long
 * after 700 steps. Other processors compute with them at full speed, so there they stay. */
#ifndef LKS_BASE_SUBNORMAL_H
#define LKS_BASE_SUBNORMAL_H

#ifdef __SSE2__
#include <xmmintrin.h>

#define LKS_RESULTS_TO_ZERO 0x8000u
#define LKS_OPERANDS_TO_ZERO 0x0040u
#endif

/* Begins it. Returns what lks_subnormals_restore takes. */
static inline unsigned lks_subnormals_to_zero(void) {
#ifdef __SSE2__
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | LKS_RESULTS_TO_ZERO | LKS_OPERANDS_TO_ZERO);
  return before;
#else
  return 0;
#endif
}

/* Ends it: the thread computes as it did before. */
static inline void lks_subnormals_restore(unsigned before) {
#ifdef __SSE2__
  _mm_setcsr(before);
#else
  (void)before;
#endif
}

#endif
