/* See contract.h. */
#include "backend/contract.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LONG = 100000 }; /* steps in which every vote is heard */
enum { STEPS = 6 };     /* more than any lag that makes sense has behind a bad one */

static void broken(double *error, bool condition) {
  *error += condition ? 1.0 : 0.0;
}

static void plan_steps(const lks_testbench *b, lks_step *steps) {
  for (int i = 0; i < STEPS; ++i) {
    steps[i] = (lks_step){.feed = &b->feed, .global_rows = b->testcase->rows, .step = i + 1};
  }
}

/* ---- votes: each in the block of its own step, with the number of ranks that cast it; but a
 * leader hears others when it can */

static bool is_led(const lks_testbench *b) {
  return b->plan->gradients == LKS_BY_LEADER;
}

static lks_status check_votes(lks_testbench *b, double *error, lks_error *err) {
  lks_status st = LKS_OK;
  lks_step steps[STEPS];
  lks_control controls[STEPS];
  plan_steps(b, steps);
  const bool last = b->world->rank == b->world->size - 1; /* who leads, if anybody does */
  steps[1].votes.stop = last || !is_led(b);
  steps[2].votes.save = last;
  TRY(lks_testbench_steps(b, steps, STEPS, controls, err));
  for (int i = 0; i < STEPS; ++i) {
    broken(error, controls[i].step != i + 1 || controls[i].rows != b->testcase->rows);
    broken(error, controls[i].stop != (i != 1 ? 0 : is_led(b) ? 1 : b->world->size));
    broken(error, controls[i].save != (i == 2 ? 1 : 0));
    broken(error, controls[i].failed != 0 || controls[i].not_finite != 0);
  }
cleanup:
  return st;
}

/* ---- steps that must do nothing */

/* Parameters and all slots one behind the other, [1 + slots, arena_floats]; malloc'ed. */
static lks_status take_state(lks_testbench *b, float **state, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t floats = b->plan->parameter_floats;
  float *slots[LKS_MAX_SLOTS] = {0};
  *state = calloc(floats * (size_t)(1 + b->plan->slots), sizeof **state);
  if (*state == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the self-test");
  }
  TRY(lks_agree(b->world, st, err));
  for (int s = 0; s < b->plan->slots; ++s) {
    slots[s] = *state + floats * (size_t)(1 + s);
  }
  TRY(b->backend.ops->snapshot(b->backend.state, *state, slots, err));
cleanup:
  return st;
}

static double difference(const lks_testbench *b, const float *one, const float *two) {
  double sum = 0.0, size = 0.0;
  for (size_t i = 0; i < b->plan->parameter_floats * (size_t)(1 + b->plan->slots); ++i) {
    sum += ((double)one[i] - (double)two[i]) * ((double)one[i] - (double)two[i]);
    size += (double)two[i] * (double)two[i];
  }
  return sqrt(sum / size);
}

/* Step 1 alone, then steps 1 and `bad` with as many behind it as the lag lets be queued, and one
 * more: the state must be the same. Rates are high: an update that was made cannot be missed. */
static lks_status compare_states(lks_testbench *b, const lks_step *bad, lks_control *control,
                                 double *error, lks_error *err) {
  lks_status st = LKS_OK;
  lks_step steps[STEPS];
  lks_control controls[STEPS];
  float *once = NULL, *after = NULL;
  const int behind = b->backend.ops->lag < STEPS - 3 ? b->backend.ops->lag + 1 : STEPS - 2;
  plan_steps(b, steps);
  TRY(lks_testbench_steps(b, steps, 1, controls, err));
  TRY(take_state(b, &once, err));
  TRY(lks_testbench_reset(b, err));
  steps[1] = *bad;
  TRY(lks_testbench_steps(b, steps, 2 + behind, controls, err));
  TRY(take_state(b, &after, err));
  *error = lks_test_larger(difference(b, after, once), *error);
  *control = controls[1];
cleanup:
  free(once);
  free(after);
  return st;
}

static lks_status check_failed(lks_testbench *b, double *error, lks_error *err) {
  lks_status st = LKS_OK;
  const bool failing = b->world->rank == b->world->size - 1;
  int64_t first = 0, count = 0;
  lks_step bad = {.feed = &b->feed, .global_rows = b->testcase->rows, .step = 2};
  lks_control control = {0};
  bad.votes.failed = failing;
  TRY(compare_states(b, &bad, &control, error, err));
  lks_plan_share(b->plan, b->testcase->rows, b->world->size - 1, b->world->size, &first, &count);
  broken(error, control.failed != 1 || control.not_finite != 0);
  broken(error, control.rows != b->testcase->rows - count);
cleanup:
  return st;
}

/* A NaN among the features of the last row: whoever has it says so, and all hear. */
static lks_status check_not_finite(lks_testbench *b, double *error, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t row = b->testcase->rows - 1;
  const bool here = b->feed.count > 0 && b->feed.first + b->feed.count == b->testcase->rows;
  float *x = malloc((size_t)(b->testcase->rows * b->testcase->inputs) * sizeof *x);
  lks_feed feed = b->feed;
  lks_step bad = {.feed = &feed, .global_rows = b->testcase->rows, .step = 2};
  lks_control control = {0};
  if (x == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the self-test");
  }
  TRY(lks_agree(b->world, st, err));
  memcpy(x, b->x, (size_t)(b->testcase->rows * b->testcase->inputs) * sizeof *x);
  x[row * b->testcase->inputs] = NAN;
  feed.features = x + (b->feed.features - b->x);
  TRY(compare_states(b, &bad, &control, error, err));
  broken(error, control.not_finite != 1 || control.failed != 0);
  broken(error, control.not_finite_here != here);
cleanup:
  free(x);
  return st;
}

/* Step k, in which rank 0 fails or not; then the block that came back. */
static lks_status step_alone(lks_testbench *b, int64_t k, bool fails, lks_control *control,
                             lks_error *err) {
  lks_step step = {.feed = &b->feed, .global_rows = b->testcase->rows, .step = k};
  step.votes.failed = fails && b->world->rank == 0;
  return b->backend.ops->step(b->backend.state, &step, control, err);
}

static lks_status drain_all(lks_testbench *b, lks_error *err) {
  lks_status st = LKS_OK;
  lks_control control = {.step = b->backend.ops->lag};
  while (control.step > 0) {
    TRY(b->backend.ops->drain(b->backend.state, &control, err));
  }
cleanup:
  return st;
}

/* The first rank fails, from step 2 on: that is heard of before long, once, and nothing is updated
 * any more. */
static lks_status check_heard(lks_testbench *b, double *error, lks_error *err) {
  lks_status st = LKS_OK;
  lks_control control = {0}, ignored;
  float *after = NULL, *before = NULL;
  for (int64_t k = 1; control.failed == 0 && k < LONG; ++k) {
    TRY(step_alone(b, k, k >= 2, &control, err));
  }
  TRY(drain_all(b, err));
  broken(error, control.failed != 1 || control.step < 2 || (control.step > 2 && !is_led(b)));
  TRY(take_state(b, &after, err));
  TRY(lks_testbench_reset(b, err));
  for (int64_t k = 1; k < control.step; ++k) {
    TRY(step_alone(b, k, false, &ignored, err));
  }
  TRY(drain_all(b, err));
  TRY(take_state(b, &before, err));
  *error = lks_test_larger(difference(b, after, before), *error);
cleanup:
  free(after);
  free(before);
  return st;
}

/* ---- state */

/* Parameters and slots come back to the bit; without slots they become zero. */
static lks_status check_state(lks_testbench *b, double *error, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t floats = b->plan->parameter_floats, all = floats * (size_t)(1 + b->plan->slots);
  const float *slots[LKS_MAX_SLOTS] = {0};
  lks_step steps[STEPS];
  lks_control controls[STEPS];
  float *before = NULL, *after = NULL, *cleared = NULL;
  plan_steps(b, steps);
  TRY(lks_testbench_steps(b, steps, 2, controls, err));
  TRY(take_state(b, &before, err));
  TRY(lks_testbench_steps(b, steps + 2, 2, controls, err));
  for (int s = 0; s < b->plan->slots; ++s) {
    slots[s] = before + floats * (size_t)(1 + s);
  }
  st = b->backend.ops->restore(b->backend.state, before, slots, err);
  TRY(lks_agree(b->world, st, err));
  TRY(take_state(b, &after, err));
  broken(error, memcmp(before, after, all * sizeof *before) != 0);
  TRY(lks_testbench_reset(b, err));
  TRY(take_state(b, &cleared, err));
  broken(error, memcmp(cleared, b->parameters, floats * sizeof *cleared) != 0);
  for (size_t i = floats; i < all; ++i) {
    broken(error, cleared[i] != 0.0f);
  }
cleanup:
  free(before);
  free(after);
  free(cleared);
  return st;
}

/* Ranks hash alike what is alike, and another state otherwise. */
static lks_status check_fingerprint(lks_testbench *b, double *error, lks_error *err) {
  lks_status st = LKS_OK;
  lks_step steps[STEPS];
  lks_control controls[STEPS];
  uint64_t hashes[3] = {0}, *all = NULL;
  if (b->backend.ops->fingerprint == NULL) {
    goto cleanup;
  }
  all = malloc((size_t)b->world->size * sizeof hashes);
  if (all == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the self-test");
  }
  TRY(lks_agree(b->world, st, err));
  plan_steps(b, steps);
  for (int i = 0; i < 3; ++i) { /* initial, after a step, initial again */
    TRY(lks_testbench_reset(b, err));
    if (i == 1) {
      TRY(lks_testbench_steps(b, steps, 1, controls, err));
    }
    st = b->backend.ops->fingerprint(b->backend.state, &hashes[i], err);
    TRY(lks_agree(b->world, st, err));
  }
  TRY(lks_world_gather(b->world, hashes, sizeof hashes, all, err));
  for (int i = 0; i < 3 * b->world->size; ++i) {
    broken(error, all[i] != hashes[i % 3]);
  }
  broken(error, hashes[0] != hashes[2] || hashes[0] == hashes[1]);
cleanup:
  free(all);
  return st;
}

const lks_contract_check lks_contract_checks[] = {
    {"votes reach their own step", check_votes},
    {"nothing is updated once a rank failed", check_failed},
    {"nothing is updated once a value is not finite", check_not_finite},
    {"another rank's vote is heard", check_heard},
    {"state comes back as it was", check_state},
    {"hashes of parameters", check_fingerprint},
    {NULL, NULL}};
