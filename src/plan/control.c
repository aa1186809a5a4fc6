/* Packing and unpacking the control block. */
#include "plan/control.h"

#include <string.h>

/* Sums of low parts stay exact below 4,096 ranks, sums of the rest below 2^36 rows. */
void lks_control_put_count(float *pair, int64_t count) {
  const int64_t low = count & 4095;
  pair[0] = (float)(count - low);
  pair[1] = (float)low;
}

void lks_control_put_real(float *pair, double value) {
  pair[0] = (float)value;
  pair[1] = lks_control_holds(value) ? (float)(value - (double)pair[0]) : 0.0f;
}

bool lks_control_holds(double value) {
  const float nearest = (float)value;
  return nearest - nearest == 0.0f;
}

static double pair_value(const float *pair) {
  return (double)pair[0] + (double)pair[1];
}

void lks_control_decode(const float *block, lks_control *control) {
  control->loss = pair_value(block + LKS_CONTROL_LOSS);
  control->rows = (int64_t)pair_value(block + LKS_CONTROL_ROWS);
  for (int i = 0; i < LKS_MAX_METRICS; ++i) {
    control->metrics[i] = pair_value(block + LKS_CONTROL_METRICS + 2 * i);
  }
  control->stop = (int)block[LKS_CONTROL_STOP];
  control->save = (int)block[LKS_CONTROL_SAVE];
  control->failed = (int)block[LKS_CONTROL_FAILED];
  /* Each rank's loss may be finite, and their sum not. */
  const float loss = block[LKS_CONTROL_LOSS];
  const int bad = (int)block[LKS_CONTROL_NOT_FINITE];
  control->not_finite = bad == 0 && loss - loss != 0.0f ? 1 : bad;
}
