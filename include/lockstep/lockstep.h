/* Lockstep's public interface: train, evaluate and predict from another MPI program.
 *
 * Handles are opaque. Every fallible function returns an lks_status and fills *err, which must not
 * be NULL. Collective functions must be called by all ranks of the world; an error of one rank is
 * then returned by all of them. Paths are UTF-8; relative ones are relative to the current
 * folder. Memory is the host's. */
#ifndef LOCKSTEP_LOCKSTEP_H
#define LOCKSTEP_LOCKSTEP_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

#include "lockstep/handles.h"
#include "lockstep/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef LKS_MUST_USE
#if defined(__GNUC__)
#define LKS_MUST_USE __attribute__((warn_unused_result))
#else
#define LKS_MUST_USE
#endif
#endif

/* "0.1.0". Static storage. Not collective. */
const char *lks_version(void);

/* Starts MPI unless it runs already, duplicates parent, finds which ranks share a node, and checks
 * the launcher: a job step of several tasks in which MPI says size 1 is refused (LKS_COMM).
 * *world is owned by the caller, who closes it. Collective over parent. */
lks_status lks_world_open(MPI_Comm parent, lks_world **world, lks_error *err) LKS_MUST_USE;

/* Frees the world; ends MPI if lks_world_open started it. *world becomes NULL. Collective. */
void lks_world_close(lks_world **world);

/* Reads a configuration file and applies count overrides "key=value" in order. *settings is owned
 * by the caller. Errors: LKS_CONFIG with file, line, column and key. Not collective. */
lks_status lks_settings_read(const char *path, const char *const *overrides, int count,
                             lks_settings **settings, lks_error *err) LKS_MUST_USE;
void lks_settings_free(lks_settings **settings);

/* How to train, beyond the configuration. Zero-initialise it. */
typedef struct lks_train_request {
  bool dry_run;        /* print the plan and touch nothing */
  bool overwrite;      /* begin anew in a folder that holds a run */
  const char *command; /* for the checkpoint's provenance; NULL: none */
} lks_train_request;

/* Trains by settings, resuming as checkpoint.resume says. Rank 0 prints to stdout and writes the
 * run folder. LKS_STOPPED when it was asked to stop and wrote a checkpoint. Collective. */
lks_status lks_train(lks_world *world, lks_settings *settings, const lks_train_request *request,
                     lks_error *err) LKS_MUST_USE;

/* What to evaluate. */
typedef struct lks_evaluate_request {
  const char *checkpoint; /* NULL: model.weights.h5 of the run folder */
  const char *data;       /* "train", "validation", "test"; NULL: test, else validation */
} lks_evaluate_request;

/* Prints loss and metrics of a set, the same on any number of ranks. Collective. */
lks_status lks_evaluate(lks_world *world, lks_settings *settings,
                        const lks_evaluate_request *request, lks_error *err) LKS_MUST_USE;

/* What to predict. */
typedef struct lks_predict_request {
  const char *checkpoint; /* NULL: model.weights.h5 of the run folder */
  const char *in;         /* HDF5 file of features */
  const char *features;   /* dataset names joined by commas; NULL: as trained, else guessed */
  const char *out;        /* HDF5 file to write: /predictions [rows, outputs], float32 */
  const char *layer;      /* name of an inner layer whose output is wanted; NULL: the model's */
  bool probabilities;     /* apply the loss's link to logits */
} lks_predict_request;

/* Writes predictions in raw units, row i for input row i. Collective. */
lks_status lks_predict(lks_world *world, lks_settings *settings, const lks_predict_request *request,
                       lks_error *err) LKS_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
