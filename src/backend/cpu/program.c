/* Programs as calls: each operation on a block of rows. */
#include "backend/cpu/cpu.h"

lks_cpu_block lks_begin_step_cpu(const lks_cpu *cpu, const lks_step *step, float *work) {
  return (lks_cpu_block){.work = work,
                         .divisor = (double)step->global_rows,
                         .mask = {.seed = cpu->seed, .step = step->step}};
}

bool lks_is_few_cpu(const lks_cpu *cpu, const lks_op *op) {
  return op->few && cpu->threads == 1;
}

static void run_op(lks_cpu *cpu, const lks_op *op, lks_cpu_block *b) {
  float *work = b->work;
  const float *parameters = cpu->exchange.values.w;
  switch (op->kind) {
  case LKS_OP_DENSE_FORWARD:
    lks_dense_forward_cpu(op, b->rows, work, parameters, 0, op->outputs);
    break;
  case LKS_OP_ACTIVATION_FORWARD:
    lks_activate_cpu(op->activation, NULL, work + op->in, work + op->out, b->rows, op->outputs);
    break;
  case LKS_OP_DROPOUT_FORWARD:
    b->mask.layer = op->layer;
    lks_dropout_cpu(&b->mask, op->rate, work + op->in, work + op->out,
                    (unsigned char *)(work + op->aux), b->rows, op->outputs);
    break;
  case LKS_OP_LOSS:
    lks_loss_cpu(cpu->plan->model, work + op->in, b->targets, b->rows, 1.0, NULL, &b->sums);
    break;
  case LKS_OP_LOSS_GRADIENT:
    lks_loss_cpu(cpu->plan->model, work + op->in, b->targets, b->rows, b->divisor, work + op->out,
                 &b->sums);
    break;
  case LKS_OP_ACTIVATION_BACKWARD:
    lks_derive_cpu(op->activation, work + op->y, work + op->z, work + op->out, b->rows,
                   op->outputs);
    break;
  case LKS_OP_DROPOUT_BACKWARD:
    lks_dropout_backward_cpu(op->rate, (const unsigned char *)(work + op->aux), work + op->out,
                             b->rows, op->outputs);
    break;
  case LKS_OP_DENSE_BACKWARD_WEIGHTS:
    lks_dense_weights_cpu(op, b->rows, work, 0, op->inputs, b->accumulate,
                          cpu->exchange.gradients + op->weights);
    lks_dense_bias_cpu(op, b->rows, work, cpu->exchange.gradients, b->accumulate);
    break;
  case LKS_OP_DENSE_BACKWARD_INPUT:
    lks_dense_input_cpu(op, b->rows, work, parameters, 0, op->inputs);
    break;
  }
}

void lks_run_ops_cpu(lks_cpu *cpu, const lks_op *ops, int count, lks_cpu_block *b) {
  for (int i = 0; i < count; ++i) {
    if (ops[i].few && !lks_is_few_cpu(cpu, &ops[i])) {
      lks_op op = ops[i];
      op.few = false;
      run_op(cpu, &op, b);
    } else {
      run_op(cpu, &ops[i], b);
    }
  }
}

void lks_gather_feed_cpu(const lks_plan *plan, const lks_feed *feed, int64_t first, int64_t count,
                         float *features, float *targets) {
  const int64_t inputs = plan->model->inputs, columns = plan->target_columns;
  const int64_t *index = feed->index != NULL ? feed->index + first : NULL;
  const int64_t skip = feed->index != NULL ? 0 : first;
  lks_gather_cpu(feed->features + skip * inputs, index, count, inputs, features);
  if (feed->targets != NULL) {
    lks_gather_cpu(feed->targets + skip * columns, index, count, columns, targets);
  }
}
