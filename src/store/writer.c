/* The background writer: one thread, one job at a time.
 *
 * Invariants: the job, and the arrays it borrows, belong to the thread while `busy` is set and to
 * the submitter else, both under the mutex when it changes; `failure` is set once and never
 * cleared. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "store/checkpoint.h"
#include "store/files.h"
#include "store/steps.h"

/* What is to be written: a deep copy, but for parameters and slots, which are the submitter's. */
typedef struct job {
  lks_checkpoint content;
  float *best; /* allocated once */
  lks_history history;
  lks_arena texts; /* strings and scalings of this job */
  bool is_best;
} job;

struct lks_writer {
  const lks_model *model;
  char *run_folder;
  int keep;
  const lks_run_lock *guard; /* NULL: none */
  pthread_t thread;
  bool started, synchronised;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool busy, quit; /* under the mutex, like took and failure */
  double took;
  lks_error failure;
  job job;
};

/* ---- what the thread does */

/* Points latest.weights.h5 at the new file, for people: nothing reads it. So where the file system
 * has no symbolic links, there is none. */
static lks_status point_latest(const char *run_folder, const char *target, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  const char *path = lks_arena_print(&arena, "%s/checkpoints/latest.weights.h5", run_folder);
  TRY_ALLOC(path);
  const char *aside = lks_aside_path(&arena, path);
  TRY_ALLOC(aside);
  (void)unlink(aside);
  if (symlink(target, aside) != 0) {
    if (errno == ENOSPC || errno == EDQUOT || errno == EIO) {
      TRY(lks_fail_write(err, path, errno));
    }
    goto cleanup;
  }
  if (rename(aside, path) != 0) {
    const int code = errno;
    (void)unlink(aside);
    TRY(lks_fail_write(err, path, code));
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}

/* Removes all but the newest `keep` files up to this step. Files of higher steps, left by a run
 * that was resumed from before them, are not counted: the one just written is always kept. */
static lks_status prune(const lks_writer *writer, int64_t step, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  lks_steps steps;
  int kept = 0;
  if (writer->keep <= 0) {
    return LKS_OK;
  }
  TRY(lks_steps_scan(writer->run_folder, &arena, &steps, err));
  for (int i = 0; i < steps.count; ++i) {
    if (steps.items[i].step > step || ++kept <= writer->keep) {
      continue;
    }
    const char *old =
        lks_arena_print(&arena, "%s/checkpoints/%s", writer->run_folder, steps.items[i].name);
    TRY_ALLOC(old);
    if (unlink(old) != 0 && errno != ENOENT) {
      TRY(lks_fail_write(err, old, errno));
    }
  }
cleanup:
  lks_arena_free(&arena);
  return st;
}

static lks_status run_job(const lks_writer *writer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  const lks_checkpoint *content = &writer->job.content;
  const int64_t step = content->progress.step;
  const char *path = lks_steps_path(&arena, writer->run_folder, step);
  const char *history = lks_arena_print(&arena, "%s/history.h5", writer->run_folder);
  TRY_ALLOC(path);
  TRY_ALLOC(history);
  if (writer->guard != NULL) {
    TRY(lks_run_lock_check(writer->guard, err));
  }
  TRY(lks_checkpoint_write(path, writer->model, content, err));
  TRY(point_latest(writer->run_folder, lks_path_base(path), err));
  if (content->history != NULL) {
    TRY(lks_history_write(content->history, history, err));
  }
  if (writer->job.is_best) {
    TRY(lks_best_point(writer->run_folder, path, err));
  }
  TRY(prune(writer, step, err));
cleanup:
  lks_arena_free(&arena);
  return st;
}

static void *work(void *user) {
  lks_writer *writer = user;
  lks_error mistake;
  (void)pthread_mutex_lock(&writer->mutex);
  for (;;) {
    while (!writer->busy && !writer->quit) {
      (void)pthread_cond_wait(&writer->changed, &writer->mutex);
    }
    if (!writer->busy) {
      break;
    }
    (void)pthread_mutex_unlock(&writer->mutex);
    lks_error_clear(&mistake);
    const double began = lks_now();
    const lks_status st = run_job(writer, &mistake);
    (void)pthread_mutex_lock(&writer->mutex);
    writer->took = lks_now() - began;
    if (st != LKS_OK && writer->failure.status == LKS_OK) {
      writer->failure = mistake;
    }
    writer->busy = false;
    (void)pthread_cond_broadcast(&writer->changed);
  }
  (void)pthread_mutex_unlock(&writer->mutex);
  return NULL;
}

/* ---- opening and closing */

static lks_status start(lks_writer *writer, lks_error *err) {
  lks_status st = LKS_OK;
  if (pthread_mutex_init(&writer->mutex, NULL) != 0) {
    FAIL(LKS_INTERNAL, NULL, "cannot make the checkpoint writer's mutex");
  }
  if (pthread_cond_init(&writer->changed, NULL) != 0) {
    (void)pthread_mutex_destroy(&writer->mutex);
    FAIL(LKS_INTERNAL, NULL, "cannot make the checkpoint writer's condition");
  }
  writer->synchronised = true;
  TRY(lks_thread_start(&writer->thread, work, writer, err));
  writer->started = true;
cleanup:
  return st;
}

lks_status lks_writer_open(const char *run_folder, const lks_model *model, int keep,
                           lks_writer **writer, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  *writer = NULL;
  lks_writer *made = calloc(1, sizeof(*made));
  TRY_ALLOC(made);
  lks_error_clear(&made->failure);
  made->model = model;
  made->keep = keep;
  made->run_folder = strdup(run_folder);
  TRY_ALLOC(made->run_folder);
  const char *folder = lks_arena_print(&arena, "%s/checkpoints", run_folder);
  TRY_ALLOC(folder);
  TRY(lks_folder_make(folder, err));
  TRY(start(made, err));
  *writer = made;
  made = NULL;
cleanup:
  lks_writer_close(&made);
  lks_arena_free(&arena);
  return st;
}

void lks_writer_guard(lks_writer *writer, const lks_run_lock *lock) {
  writer->guard = lock;
}

void lks_writer_close(lks_writer **writer) {
  lks_writer *closed = *writer;
  if (closed == NULL) {
    return;
  }
  *writer = NULL;
  if (closed->started) {
    (void)pthread_mutex_lock(&closed->mutex);
    closed->quit = true; /* what was submitted is written first */
    (void)pthread_cond_broadcast(&closed->changed);
    (void)pthread_mutex_unlock(&closed->mutex);
    (void)pthread_join(closed->thread, NULL);
  }
  if (closed->synchronised) {
    (void)pthread_cond_destroy(&closed->changed);
    (void)pthread_mutex_destroy(&closed->mutex);
  }
  free(closed->job.best);
  lks_history_free(&closed->job.history);
  lks_arena_free(&closed->job.texts);
  free(closed->run_folder);
  free(closed);
}

/* ---- submitting */

static lks_status copy_text(lks_arena *arena, const char **text, lks_error *err) {
  lks_status st = LKS_OK;
  if (*text != NULL) {
    *text = lks_arena_copy(arena, *text);
    TRY_ALLOC(*text);
  }
cleanup:
  return st;
}

static lks_status copy_texts(lks_arena *arena, lks_checkpoint *content, lks_error *err) {
  lks_status st = LKS_OK;
  lks_provenance *from = &content->provenance;
  const char **const texts[] = {&content->config, &content->model_config, &content->training_config,
                                &from->command,   &from->hosts,           &from->versions,
                                &from->started,   &from->build,           &from->backend,
                                &from->devices,   &from->data_file,       &from->data_modified};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); ++i) {
    TRY(copy_text(arena, texts[i], err));
  }
cleanup:
  return st;
}

static lks_status copy_scaling(lks_arena *arena, lks_scaling *scaling, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t bytes = (size_t)scaling->columns * sizeof(double);
  if (bytes > 0) {
    double *both = lks_arena_alloc(arena, 2 * bytes);
    TRY_ALLOC(both);
    memcpy(both, scaling->shift, bytes);
    memcpy(both + scaling->columns, scaling->factor, bytes);
    scaling->shift = both;
    scaling->factor = both + scaling->columns;
  }
cleanup:
  return st;
}

/* The best parameters may change while they are written, at the end of any epoch. */
static lks_status copy_best(const lks_model *model, job *into, const lks_checkpoint *from,
                            lks_error *err) {
  lks_status st = LKS_OK;
  const size_t bytes = (size_t)model->arena_floats * sizeof(float);
  if (from->best_parameters != NULL) {
    if (into->best == NULL) {
      into->best = malloc(bytes > 0 ? bytes : 1);
      TRY_ALLOC(into->best);
    }
    memcpy(into->best, from->best_parameters, bytes);
    into->content.best_parameters = into->best;
  }
cleanup:
  return st;
}

static lks_status copy_job(const lks_model *model, job *into, const lks_checkpoint *from,
                           lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena_free(&into->texts);
  lks_history_free(&into->history);
  into->content = *from;
  TRY(copy_best(model, into, from, err));
  TRY(copy_texts(&into->texts, &into->content, err));
  TRY(copy_scaling(&into->texts, &into->content.features, err));
  TRY(copy_scaling(&into->texts, &into->content.targets, err));
  if (from->history != NULL) {
    TRY(lks_history_copy(from->history, &into->history, err));
    into->content.history = &into->history;
  }
cleanup:
  return st;
}

/* The failure so far; wait: once nothing is being written. The mutex is held. */
static lks_status state(lks_writer *writer, bool wait, lks_error *err) {
  while (wait && writer->busy) {
    (void)pthread_cond_wait(&writer->changed, &writer->mutex);
  }
  if (writer->failure.status == LKS_OK && writer->guard != NULL) {
    writer->failure.status = lks_run_lock_check(writer->guard, &writer->failure);
  }
  if (writer->failure.status != LKS_OK) {
    *err = writer->failure;
  }
  return writer->failure.status;
}

lks_status lks_writer_submit(lks_writer *writer, const lks_checkpoint *checkpoint, bool is_best,
                             lks_error *err) {
  lks_status st = LKS_OK;
  (void)pthread_mutex_lock(&writer->mutex);
  TRY(state(writer, true, err));
  /* The thread waits on the mutex meanwhile, which is as good as waiting for a job. */
  TRY(copy_job(writer->model, &writer->job, checkpoint, err));
  writer->job.is_best = is_best;
  writer->busy = true;
  (void)pthread_cond_broadcast(&writer->changed);
cleanup:
  (void)pthread_mutex_unlock(&writer->mutex);
  return st;
}

bool lks_writer_is_idle(lks_writer *writer, double *took) {
  (void)pthread_mutex_lock(&writer->mutex);
  const bool idle = !writer->busy;
  *took = writer->took;
  (void)pthread_mutex_unlock(&writer->mutex);
  return idle;
}

lks_status lks_writer_poll(lks_writer *writer, lks_error *err) {
  (void)pthread_mutex_lock(&writer->mutex);
  const lks_status st = state(writer, false, err);
  (void)pthread_mutex_unlock(&writer->mutex);
  return st;
}

lks_status lks_writer_wait(lks_writer *writer, lks_error *err) {
  (void)pthread_mutex_lock(&writer->mutex);
  const lks_status st = state(writer, true, err);
  (void)pthread_mutex_unlock(&writer->mutex);
  return st;
}
