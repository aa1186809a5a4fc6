/* What rank 0 prints before the first step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/seats.h"
#include "train/trainer.h"

static void print_start(const lks_trainer *trainer) {
  const lks_progress *progress = &trainer->progress;
  const char *folder = trainer->settings->run.folder;
  if (trainer->request->dry_run) {
    (void)printf("Plan of      %s (dry run: nothing is written)\n", folder);
  } else if (trainer->start == LKS_START_NEW) {
    (void)printf("New run      %s\n", folder);
  } else if (trainer->start == LKS_START_RESUMED) {
    (void)printf("Resumed      %s at step %lld, epoch %lld\n", folder, (long long)progress->step,
                 (long long)progress->epoch + 1);
  }
}

static void print_data(const lks_trainer *trainer) {
  const lks_data *data = trainer->run.data;
  const lks_source_info *source = lks_table_source(data->train);
  char rows[32], more[32], bytes[32];
  (void)printf("Data         %s: %s rows of %lld features, %lld target%s", source->name,
               lks_format_count(rows, lks_table_rows(data->train)), (long long)data->inputs,
               (long long)data->outputs, data->outputs == 1 ? "" : "s");
  if (data->validation != NULL) {
    (void)printf("; validation %s rows", lks_format_count(more, lks_table_rows(data->validation)));
  }
  (void)printf("; %s, %s a node\n", lks_table_streamed(data->train) ? "streamed" : "in memory",
               lks_format_bytes(bytes, (double)data->memory_bytes));
  if (data->note[0] != '\0') {
    (void)fprintf(stderr, "lockstep: warning: %s\n", data->note);
  }
}

static void print_layers(const lks_model *model) {
  char total[32];
  (void)printf("Model        %s parameters\n", lks_format_count(total, model->value_count));
  for (int i = 0; i < model->layer_count; ++i) {
    const lks_layer *layer = &model->layers[i];
    const lks_activation *activation =
        layer->row->activation != NULL ? layer->row->activation(layer->options) : NULL;
    int64_t count = 0;
    for (int k = 0; k < layer->parameter_count; ++k) {
      count += model->parameters[layer->first_parameter + k].count;
    }
    (void)printf("  %-20s %6lld -> %-6lld %-12s %12s\n", layer->name, (long long)layer->inputs,
                 (long long)layer->outputs, activation != NULL ? activation->kind->name : "",
                 lks_format_count(total, count));
  }
}

static void print_loss(const lks_model *model) {
  const char *how = "on the outputs";
  if (model->logits) {
    how = model->link == LKS_LINK_SOFTMAX ? "of logits (the last layer is linear; softmax is in "
                                            "the loss)"
                                          : "of logits (the last layer is linear; sigmoid is in "
                                            "the loss)";
  } else if (model->link != LKS_LINK_NONE) {
    how = model->link == LKS_LINK_SOFTMAX ? "fused with softmax" : "fused with sigmoid";
  }
  (void)printf("Loss         %s, %s\n", model->loss->kind.name, how);
}

static void print_plan(const lks_trainer *trainer) {
  const lks_plan *plan = trainer->run.plan;
  const lks_settings *settings = trainer->settings;
  const int64_t rows = lks_table_rows(trainer->run.data->train);
  const int64_t batch = plan->batch_size;
  char a[32], b[32], c[32];
  const double p = (double)plan->parameter_floats * sizeof(float);
  const int ranks = trainer->world->size;
  char share[48];
  if (plan->gradients == LKS_BY_LEADER) {
    (void)snprintf(share, sizeof share, "all on rank %d", lks_plan_leader(plan, ranks));
  } else {
    (void)snprintf(share, sizeof share, "%lld a rank", (long long)plan->share_rows);
  }
  (void)printf("Batch        %s%lld rows: %s, in blocks of %lld; %lld steps an epoch, %lld "
               "epochs\n",
               batch < settings->train.batch_size ? "all " : "", (long long)batch, share,
               (long long)plan->block_rows, (long long)((rows + batch - 1) / batch),
               (long long)settings->train.epochs);
  (void)printf("Optimizer    %s, learning rate %s\n", trainer->run.model->optimizer.kind->name,
               lks_format_real(a, trainer->run.model->optimizer.learning_rate));
  if (trainer->request->dry_run && trainer->run.backend.ops->memory == NULL) {
    (void)printf("Memory       a node: parameters %s, optimizer %s; a rank: gradients %s, ",
                 lks_format_bytes(a, p), lks_format_bytes(b, p * plan->slots),
                 lks_format_bytes(c, (double)plan->gradient_floats * sizeof(float)));
    (void)printf("activations %s\n",
                 lks_format_bytes(a, (double)plan->work_floats * sizeof(float)));
    if (plan->gradients == LKS_BY_OWNERS) {
      (void)printf("             a node: activations of a batch %s: gradients by owners\n",
                   lks_format_bytes(a, (double)plan->common.floats * sizeof(float)));
    }
  }
  if (trainer->request->dry_run) {
    (void)printf("Work         %.3g FLOP a step, %d operations\n",
                 plan->flops_per_row * (double)batch, plan->train.count);
  }
}

static void print_ranks(const lks_trainer *trainer, const lks_seat *seats, const char *hosts) {
  const lks_world *world = trainer->world;
  char about[256] = "";
  if (trainer->run.backend.ops->describe != NULL) {
    trainer->run.backend.ops->describe(trainer->run.backend.state, about, sizeof about);
  }
  (void)printf("Ranks        %d on %d node%s (%s), device %s: %s\n", world->size, world->nodes,
               world->nodes == 1 ? "" : "s", hosts, trainer->run.backend.ops->name, about);
  for (int i = 0; trainer->request->dry_run && i < world->size; ++i) {
    (void)printf("  rank %-4d %-24s %s, %d thread%s, %d cores in its mask\n", i, seats[i].host,
                 trainer->run.backend.ops->name, seats[i].threads, seats[i].threads == 1 ? "" : "s",
                 seats[i].cores);
  }
  for (int i = 0; i < world->size; ++i) {
    if (seats[i].threads > seats[i].cores && seats[i].cores > 0) {
      (void)fprintf(stderr,
                    "lockstep: warning: rank %d uses %d threads on %d core%s; bind ranks to more "
                    "cores (mpirun --bind-to none, srun --cpus-per-task)\n",
                    i, seats[i].threads, seats[i].cores, seats[i].cores == 1 ? "" : "s");
      break;
    }
  }
}

/* Hosts and devices as checkpoints name them. */
static lks_status note_provenance(lks_trainer *trainer, const char *hosts, const char *uuids,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  trainer->provenance.hosts = lks_arena_copy(&trainer->arena, hosts);
  TRY_ALLOC(trainer->provenance.hosts);
  if (uuids[0] != '\0') {
    trainer->provenance.devices = lks_arena_copy(&trainer->arena, uuids);
    TRY_ALLOC(trainer->provenance.devices);
  }
cleanup:
  return st;
}

lks_status lks_trainer_summary(lks_trainer *trainer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world *world = trainer->world;
  lks_text hosts = {0}, uuids = {0};
  lks_seat *seats = NULL;
  TRY(lks_seats_gather(&trainer->run, &seats, err));
  if (world->rank != 0) {
    goto cleanup;
  }
  lks_seats_hosts(seats, world->size, &hosts);
  lks_seats_uuids(seats, world->size, &uuids);
  TRY(note_provenance(trainer, hosts.data != NULL ? hosts.data : "",
                      uuids.data != NULL ? uuids.data : "", err));
  print_start(trainer);
  print_ranks(trainer, seats, hosts.data);
  lks_seats_print(seats, world->size);
  print_data(trainer);
  print_layers(trainer->run.model);
  print_loss(trainer->run.model);
  print_plan(trainer);
  (void)fflush(stdout);
cleanup:
  free(seats);
  lks_text_free(&hosts);
  lks_text_free(&uuids);
  return st;
}
