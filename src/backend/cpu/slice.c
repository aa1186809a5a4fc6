/* By owners: the slice of the gradient that a rank makes, from the rows of all, and its update.
 *
 * Gradients of few rows by large weights would be written to memory and read again twice; they are
 * made within the update instead, strip by strip in the cache. What must be known before any update
 * is whether all of the gradient is finite. The sizes of its factors say so, as nearly always; else
 * all ranks make all of it first. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/product.h"
#include "base/finite.h"

/* What a rank owns of a layer's parameters. */
typedef struct own_part {
  int64_t begin, end;  /* rows of W */
  size_t first, count; /* these rows, in the parameters */
  bool bias;
} own_part;

static own_part part_of(const lks_op *op, size_t first, size_t count) {
  const size_t end = first + count, width = (size_t)op->outputs;
  const size_t after = op->weights + (size_t)op->inputs * width;
  const size_t from = first > op->weights ? first : op->weights, to = end < after ? end : after;
  own_part part = {.bias = op->has_bias && op->bias >= first && op->bias < end};
  if (from < to) {
    part.begin = (int64_t)((from - op->weights) / width);
    part.end = (int64_t)((to - op->weights) / width);
    part.first = from;
    part.count = to - from;
  }
  return part;
}

/* Elements [first, first + count) of the gradient, from `rows` rows; of weights only where the
 * operation is `few`, or is not. Returns whether all that it made is finite. */
static bool make_gradients(lks_cpu *cpu, float *work, int64_t rows, size_t first, size_t count,
                           bool few) {
  float *gradients = cpu->exchange.gradients;
  bool finite = true;
  for (int i = 0; i < cpu->plan->weights.count; ++i) {
    const lks_op *op = &cpu->plan->weights.ops[i];
    const own_part part = part_of(op, first, count);
    if (part.count > 0 && lks_is_few_cpu(cpu, op) == few) {
      const int64_t weights = op->inputs * op->outputs;
      float *dw = gradients + part.first;
      lks_product_fetch(work + op->in + part.begin, rows, part.end - part.begin, op->inputs,
                        weights);
      lks_product_fetch(work + op->out, rows, op->outputs, op->outputs, weights);
      lks_op here = *op;
      here.few = few;
      lks_dense_weights_cpu(&here, rows, work, part.begin, part.end, false, dw);
      finite = lks_all_finite(dw, part.count) && finite;
    }
    if (part.bias && !few) {
      lks_dense_bias_cpu(op, rows, work, gradients, false);
      finite = lks_all_finite(gradients + op->bias, (size_t)op->outputs) && finite;
    }
    lks_world_beat(cpu->world);
  }
  return finite;
}

/* Whether rows of dW must be finite, by the size of what they are sums of: `rows` products of a
 * number below 2^(ex - 126) and one below 2^(ez - 126). */
static bool is_surely_finite(const lks_op *op, const own_part *part, int64_t rows,
                             const float *work) {
  enum { ROWS_EXPONENT = 6, BIAS = 126, SAFE = 126, NOT_FINITE = 255 };
  _Static_assert(LKS_FEW_ROWS <= 1 << ROWS_EXPONENT, "so many rows at most");
  const float *x = work + op->in + part->begin;
  const int ez = lks_worst_exponent(work + op->out, (size_t)(rows * op->outputs));
  int ex = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int here = lks_worst_exponent(x + row * op->inputs, (size_t)(part->end - part->begin));
    ex = here > ex ? here : ex;
  }
  const bool finite = ex < NOT_FINITE && ez < NOT_FINITE;
  return finite && ex - BIAS + ez - BIAS + ROWS_EXPONENT <= SAFE;
}

/* The same of all that this rank makes while it updates. */
static bool are_surely_finite(const lks_cpu *cpu, const float *work, int64_t rows) {
  bool sure = true;
  for (int i = 0; i < cpu->plan->weights.count; ++i) {
    const lks_op *op = &cpu->plan->weights.ops[i];
    const own_part part = part_of(op, cpu->exchange.first, cpu->exchange.count);
    sure = sure &&
           (!lks_is_few_cpu(cpu, op) || part.count == 0 || is_surely_finite(op, &part, rows, work));
  }
  return sure;
}

/* Makes a gradient and updates by it, strip by strip, each in the place of the first. */
static void update_in_strips(lks_cpu *cpu, const lks_op *op, const own_part *part, int64_t rows,
                             const float *work, const lks_update *update) {
  enum { STRIP_FLOATS = 65536, LEAST_ROWS = 12 }; /* what a second cache holds; a tile's rows */
  const int64_t fit = STRIP_FLOATS / op->outputs / LEAST_ROWS * LEAST_ROWS;
  const int64_t most = fit > LEAST_ROWS ? fit : LEAST_ROWS;
  float *strip = cpu->exchange.gradients + part->first;
  for (int64_t begin = part->begin; begin < part->end; begin += most) {
    const int64_t end = part->end - begin < most ? part->end : begin + most;
    const double began = cpu->profile ? lks_now() : 0.0;
    lks_dense_weights_cpu(op, rows, work, begin, end, false, strip);
    const double made = cpu->profile ? lks_now() - began : 0.0;
    cpu->compute += made;
    cpu->exchanged -= made;
    lks_exchange_update(&cpu->exchange, update, op->weights + (size_t)(begin * op->outputs),
                        (size_t)((end - begin) * op->outputs), strip);
    lks_world_beat(cpu->world);
  }
}

void lks_slice_update(lks_cpu *cpu, const float *work, int64_t rows, const lks_update *update,
                      bool whole) {
  lks_exchange *exchange = &cpu->exchange;
  if (whole) {
    lks_exchange_update_own(exchange, update);
    return;
  }
  for (int i = 0; i < cpu->plan->weights.count; ++i) {
    const lks_op *op = &cpu->plan->weights.ops[i];
    const own_part part = part_of(op, exchange->first, exchange->count);
    if (part.count > 0 && lks_is_few_cpu(cpu, op)) {
      update_in_strips(cpu, op, &part, rows, work, update);
    } else if (part.count > 0) {
      lks_exchange_update(exchange, update, part.first, part.count,
                          exchange->gradients + part.first);
    }
    if (part.bias) {
      lks_exchange_update(exchange, update, op->bias, (size_t)op->outputs,
                          exchange->gradients + op->bias);
    }
  }
}

/* Whether there are gradients that are made in strips. */
static bool has_strips(const lks_cpu *cpu) {
  bool any = false;
  for (int i = 0; i < cpu->plan->weights.count; ++i) {
    any = any || lks_is_few_cpu(cpu, &cpu->plan->weights.ops[i]);
  }
  return any;
}

bool lks_slice_make_all(lks_cpu *cpu, float *work, int64_t rows) {
  const size_t p = cpu->plan->parameter_floats;
  const bool finite = make_gradients(cpu, work, rows, 0, p, false);
  return make_gradients(cpu, work, rows, 0, p, true) && finite;
}

lks_status lks_slice_make(lks_cpu *cpu, float *work, int64_t rows, lks_slice *slice,
                          lks_error *err) {
  lks_status st = LKS_OK;
  lks_exchange *exchange = &cpu->exchange;
  const size_t first = exchange->first, count = exchange->count;
  const double began = lks_now();
  const bool strips = has_strips(cpu);
  *slice = (lks_slice){.whole = !strips};
  slice->finite = make_gradients(cpu, work, rows, first, count, false);
  lks_exchange_set_verdict(exchange, LKS_VERDICT_BAD, !slice->finite);
  lks_exchange_set_verdict(exchange, LKS_VERDICT_UNSURE,
                           strips && !are_surely_finite(cpu, work, rows));
  const double took = lks_now() - began;
  cpu->divided += took;
  if (cpu->profile) {
    cpu->compute += took;
    cpu->exchanged -= took;
  }
  TRY(lks_exchange_meet(exchange, err)); /* verdicts complete */
  slice->bad = lks_exchange_count_verdicts(exchange, LKS_VERDICT_BAD);
  if (slice->bad > 0 || lks_exchange_count_verdicts(exchange, LKS_VERDICT_UNSURE) == 0) {
    goto cleanup; /* all ranks */
  }
  slice->whole = true;
  slice->finite = make_gradients(cpu, work, rows, first, count, true);
  lks_exchange_set_verdict(exchange, LKS_VERDICT_BAD_THEN, !slice->finite);
  TRY(lks_exchange_meet(exchange, err)); /* verdicts complete */
  slice->bad = lks_exchange_count_verdicts(exchange, LKS_VERDICT_BAD_THEN);
cleanup:
  return st;
}
