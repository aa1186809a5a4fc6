/* Setting up in phases, and moving state between files, ranks and the backend. */
#include "train/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"

static lks_status open_data(lks_run *run, const lks_run_needs *needs, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = run->settings;
  const lks_loss_row *loss = (const lks_loss_row *)(const void *)settings->model.loss.kind;
  const int64_t units = lks_model_last_units(&settings->model);
  const lks_data_request request = {.options = &settings->data,
                                    .need_train = needs->train,
                                    .need_validation = needs->validation,
                                    .need_test = needs->test,
                                    .features_only = needs->without_targets,
                                    .seed = (uint64_t)settings->train.seed,
                                    .shuffle = settings->train.shuffle,
                                    .batch_size = settings->train.batch_size,
                                    .loss = loss,
                                    .model_outputs = units,
                                    .label_classes = loss->labels && units > 0 ? units : 0,
                                    .labels = loss->labels || loss->zero_one,
                                    .feature_scaling = needs->features,
                                    .target_scaling = needs->targets,
                                    .kept_order = needs->kept_order};
  TRY(lks_data_open(run->world, &request, &run->data, err));
cleanup:
  return st;
}

/* The same on all ranks, for all opened the same data. */
static lks_status check_inputs(lks_run *run, const lks_run_needs *needs, lks_error *err) {
  lks_status st = LKS_OK;
  if (needs->inputs > 0 && needs->inputs != run->data->inputs) {
    FAIL(LKS_DATA, "name the datasets that it was trained on (features, --features)",
         "%s: the data has %lld feature columns, but the model was trained on %lld",
         lks_table_source(run->data->test != NULL         ? run->data->test
                          : run->data->validation != NULL ? run->data->validation
                                                          : run->data->train)
             ->name,
         (long long)run->data->inputs, (long long)needs->inputs);
  }
cleanup:
  return st;
}

/* Precisions below fp32 are the GPU's: the CPU would quietly train something else. */
static lks_status check_precision(const lks_run *run, lks_error *err) {
  lks_status st = LKS_OK;
  if (run->device.ordinal < 0 && run->settings->device.precision != LKS_FP32) {
    FAIL(LKS_CONFIG, "set device.precision=fp32, or run on a GPU (device.kind=gpu)",
         "device.precision: the CPU computes in fp32 alone, not in %s",
         run->settings->device.precision == LKS_TF32 ? "tf32" : "bf16");
  }
cleanup:
  return st;
}

/* Ranks without memory in common can only sum what each made of its rows. */
static bool shares(const lks_run *run) {
  return run->device.ordinal < 0 && lks_world_shares(run->world);
}

static lks_status check_gradients(const lks_run *run, lks_error *err) {
  lks_status st = LKS_OK;
  if (!shares(run) && run->world->size > 1 && run->settings->device.gradients > LKS_BY_ROWS) {
    FAIL(LKS_CONFIG, "set device.gradients=auto",
         "device.gradients: owners and leader are for the CPUs of one node%s",
         run->device.ordinal < 0 ? ", not of several" : "; this run is on GPUs");
  }
cleanup:
  return st;
}

static lks_status choose_device(lks_run *run, const lks_run_needs *needs, lks_error *err) {
  lks_status st = LKS_OK;
  lks_world_phase(run->world, "device");
  TRY(lks_device_choose(run->world, &run->settings->device, &run->device, err));
  if (run->world->rank == 0 && run->device.note[0] != '\0') {
    (void)fprintf(stderr, "lockstep: note: %s\n", run->device.note);
  }
  st = check_precision(run, err);
  const bool trains = needs->train && needs->inputs == 0; /* evaluating knows how many */
  st = st == LKS_OK && trains ? check_gradients(run, err) : st;
  TRY(lks_agree(run->world, st, err));
cleanup:
  return st;
}

/* Rows that steps take together: no more than there are. */
static int64_t batch_rows(const lks_run *run) {
  const int64_t batch = run->settings->train.batch_size;
  const int64_t rows =
      run->data->train != NULL ? lks_table_rows(run->data->train) : LKS_EVALUATION_ROWS;
  return batch < rows ? batch : rows;
}

lks_status lks_run_open(lks_run *run, lks_world *world, lks_settings *settings,
                        const lks_run_needs *needs, lks_error *err) {
  lks_status st = LKS_OK;
  *run = (lks_run){.world = world, .settings = settings};
  TRY(choose_device(run, needs, err));
  lks_world_phase(world, "data");
  TRY(open_data(run, needs, err));
  st = check_inputs(run, needs, err);
  TRY(lks_agree(world, st, err));
  lks_world_phase(world, "model");
  const int64_t targets = needs->without_targets ? 0 : run->data->outputs;
  st = lks_model_make(&settings->model, run->data->inputs, targets, &run->model, err);
  TRY(lks_agree(world, st, err));
  const lks_gradients asked = (lks_gradients)settings->device.gradients;
  st = lks_plan_make(run->model, batch_rows(run), world->size, shares(run) ? asked : LKS_BY_ROWS,
                     &run->plan, err);
  TRY(lks_agree(world, st, err));
cleanup:
  return st;
}

static int64_t resident_bytes(const lks_run *run) {
  lks_resident table;
  return run->data->train != NULL && lks_table_resident(run->data->train, &table)
             ? table.rows * (table.inputs + table.outputs) * (int64_t)sizeof(float)
             : 0;
}

lks_status lks_run_open_backend(lks_run *run, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_settings *settings = run->settings;
  lks_world_phase(run->world, "device");
  TRY(lks_world_place_threads(run->world, (int)settings->device.threads, err));
  if (settings->device.threads <= 0 && run->device.ordinal < 0 && lks_find_set_threads() != NULL) {
    run->world->threads = lks_plan_threads(run->plan, run->world->threads);
  }
  const lks_backend_request request = {.world = run->world,
                                       .rank = run->world->rank,
                                       .size = run->world->size,
                                       .local_rank = run->world->local_rank,
                                       .local_size = run->world->local_size,
                                       .host = run->world->host,
                                       .plan = run->plan,
                                       .seed = (uint64_t)settings->train.seed,
                                       .timeout = settings->run.timeout,
                                       .ordinal = run->device.ordinal,
                                       .precision = settings->device.precision,
                                       .tune = settings->device.tune,
                                       .memory_growth = settings->device.memory_growth,
                                       .memory_limit = settings->device.memory_limit,
                                       .resident_bytes = resident_bytes(run),
                                       .profile = run->profile};
  TRY(lks_backend_open(run->device.backend, &request, &run->backend, err));
cleanup:
  return st;
}

lks_status lks_run_adopt(lks_run *run, lks_error *err) {
  lks_status st = LKS_OK;
  lks_resident table;
  bool adopted = false;
  if (run->backend.ops->adopt == NULL || !lks_table_resident(run->data->train, &table)) {
    goto cleanup; /* alike on all ranks */
  }
  st = run->backend.ops->adopt(run->backend.state, &table, &adopted, err);
  TRY(lks_agree(run->world, st, err));
  if (adopted) {
    lks_table_set_adopted(run->data->train);
  }
cleanup:
  return st;
}

void lks_run_close(lks_run *run) {
  lks_backend_close(&run->backend);
  lks_plan_free(&run->plan);
  lks_model_free(&run->model);
  lks_data_close(&run->data);
}

lks_status lks_state_make(lks_state *state, const lks_plan *plan, lks_error *err) {
  lks_status st = LKS_OK;
  state->parameters = calloc(plan->parameter_floats, sizeof(float));
  TRY_ALLOC(state->parameters);
  for (int s = 0; s < plan->slots; ++s) {
    state->slots[s] = calloc(plan->parameter_floats, sizeof(float));
    TRY_ALLOC(state->slots[s]);
  }
cleanup:
  return st;
}

void lks_state_free(lks_state *state) {
  free(state->parameters);
  for (int s = 0; s < LKS_MAX_SLOTS; ++s) {
    free(state->slots[s]);
  }
  *state = (lks_state){0};
}

lks_status lks_run_restore(lks_run *run, lks_state *state, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t bytes = run->plan->parameter_floats * sizeof(float);
  TRY(lks_world_broadcast(run->world, state->parameters, bytes, 0, err));
  for (int s = 0; s < run->plan->slots; ++s) {
    TRY(lks_world_broadcast(run->world, state->slots[s], bytes, 0, err));
  }
  st = run->backend.ops->restore(run->backend.state, state->parameters,
                                 (const float *const *)state->slots, err);
  TRY(lks_agree(run->world, st, err));
cleanup:
  return st;
}

lks_status lks_run_load(lks_run *run, const char *path, lks_arena *arena, lks_checkpoint *read,
                        lks_error *err) {
  lks_status st = LKS_OK;
  lks_checkpoint checkpoint = {0};
  lks_state state = {0};
  lks_world_phase(run->world, "checkpoint");
  st = lks_state_make(&state, run->plan, err);
  if (st == LKS_OK && run->world->rank == 0) {
    st = lks_checkpoint_read(path, run->model, arena, &checkpoint, err);
  }
  TRY(lks_agree(run->world, st, err));
  const size_t bytes = run->plan->parameter_floats * sizeof(float);
  if (run->world->rank == 0) {
    memcpy(state.parameters, checkpoint.parameters, bytes);
    for (int s = 0; s < run->plan->slots; ++s) {
      if (checkpoint.slots[s] != NULL) {
        memcpy(state.slots[s], checkpoint.slots[s], bytes);
      }
    }
  }
  TRY(lks_run_restore(run, &state, err));
  if (read != NULL) {
    *read = checkpoint;
  }
cleanup:
  lks_state_free(&state);
  return st;
}
