/* The checkpoint: one HDF5 file that is at once a Keras `load_weights` file, a Keras `load_model`
 * file and our own (group /lockstep). It depends on no world size.
 *
 * Written aside by a background thread, synced, read back, compared, renamed. The file ends in a
 * 32-byte seal after HDF5's own end: the magic "LKSSEAL1", the number of bytes before it
 * (little-endian 64 bit), their XXH64, 8 bytes of zeros: one flipped bit anywhere is found before
 * HDF5 sees the file. /lockstep has the attribute `sealed` = 1, so a cut-off seal is found too;
 * files that Keras wrote have neither and are accepted for init_from and evaluation. */
#ifndef LKS_STORE_CHECKPOINT_H
#define LKS_STORE_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "model/model.h"
#include "model/scaling.h"
#include "store/history.h"

#define LKS_CHECKPOINT_FORMAT 1

/* Sums of an epoch under way: what its reported loss and metrics will be made of. */
typedef struct lks_sums {
  double loss; /* sum over rows of the row's loss */
  int64_t rows;
  double metrics[LKS_MAX_METRICS]; /* sums over rows; counts are whole numbers */
} lks_sums;

/* Where training stands, beside parameters and slots. */
typedef struct lks_progress {
  int64_t step;         /* updates done */
  int64_t epoch;        /* epochs completed */
  int64_t epoch_row;    /* rows of the next epoch already used */
  lks_sums sums;        /* of those rows */
  double epoch_seconds; /* training time of those rows */
  int64_t epoch_steps;
  bool complete; /* training ended by itself: all epochs, or early stopping */
  bool stopped_early;
  double best; /* best monitored value so far (checkpoint.best); NaN: none yet */
  int64_t best_epoch;
  double stop_best;   /* early stopping's best value; NaN: none yet */
  int64_t stop_wait;  /* epochs without improvement */
  int64_t stop_epoch; /* epoch (from 1) of stop_best */
} lks_progress;

/* Who made it: strings of provenance, written as attributes of /lockstep/provenance. */
typedef struct lks_provenance {
  const char *command, *hosts, *versions, *started, *build;
  const char *backend; /* "cpu" */
  const char *devices; /* UUIDs of the GPUs in rank order, "GPU-..., GPU-..."; NULL on the CPU */
  int64_t ranks;
  const char *data_file;
  int64_t data_bytes;
  const char *data_modified; /* time stamp */
  uint64_t data_hash;        /* lks_source_fingerprint */
  uint64_t validation_hash;  /* of a validation with its own table; 0: none, or an older version */
} lks_provenance;

/* Everything a checkpoint holds. Pointers are borrowed by the writer for the call, and owned by
 * `arena` after a read. */
typedef struct lks_checkpoint {
  const float *parameters;           /* [arena_floats], the model's layout */
  const float *slots[LKS_MAX_SLOTS]; /* the same layout; NULL beyond lks_optimizer_slots, and
                                        NULL where a file holds none (Keras' weights only) */
  /* With early stopping: the best parameters so far, or NULL. */
  const float *best_parameters;
  lks_progress progress;
  uint64_t seed;
  int64_t order_chunk_rows; /* at which windows of rows were cut; 0: an older file does not say */
  const char *config;       /* effective configuration, YAML; NULL: a foreign file */
  const char *model_config; /* Keras' JSON */
  const char *training_config;
  lks_scaling features, targets;
  const lks_history *history; /* NULL: none */
  lks_provenance provenance;
  uint64_t weights_hash; /* ignored by writing, which computes it */
} lks_checkpoint;

/* ---- reading (not collective) */

/* The stored configuration and progress only, cheap: for resuming and inspect. Verifies the seal.
 * Errors: LKS_STORAGE by cause: missing, not HDF5, truncated, damaged (checksum), a format of a
 * newer version. */
lks_status lks_checkpoint_peek(const char *path, lks_arena *arena, lks_checkpoint *out,
                               lks_error *err) LKS_MUST_USE;

/* All of it into the model's layout (memory in arena, 64-byte aligned or better). A file of
 * another model is LKS_STORAGE naming the first layer and shapes that differ. Reads Keras' own
 * weight files (v3 `.weights.h5` and legacy `.h5`) too: no configuration, slots only if present. */
lks_status lks_checkpoint_read(const char *path, const lks_model *model, lks_arena *arena,
                               lks_checkpoint *out, lks_error *err) LKS_MUST_USE;

/* Newest sound checkpoint of a run folder's checkpoints/: scans step-*.weights.h5 from the highest
 * step down, verifying seals. *path NULL when there is none at all. Damaged ones that were passed
 * over are listed in *passed ("name: cause; ..."), NULL when none. Leftover temporary files are
 * ignored. */
lks_status lks_checkpoint_newest(const char *run_folder, lks_arena *arena, char **path,
                                 char **passed, lks_error *err) LKS_MUST_USE;

/* Removes all checkpoints of a run folder; a new run begins in it. */
lks_status lks_checkpoints_clear(const char *run_folder, lks_error *err) LKS_MUST_USE;

/* ---- writing */

/* Writes synchronously: aside, sync, read back and compare, rename, sync the folder. */
lks_status lks_checkpoint_write(const char *path, const lks_model *model,
                                const lks_checkpoint *checkpoint, lks_error *err) LKS_MUST_USE;

/* Makes best.weights.h5 another name of a checkpoint of the run, or a copy where the file system
 * has no links. */
lks_status lks_best_point(const char *run_folder, const char *target, lks_error *err) LKS_MUST_USE;

/* Makes best.weights.h5 the checkpoint of the end of the best epoch (from 1), from a numbered one
 * where it is another, which a run leaves that dies between the two. *there: whether it is now. */
lks_status lks_best_mend(const char *run_folder, int64_t epoch, bool *there,
                         lks_error *err) LKS_MUST_USE;

/* The background writer of one run folder (rank 0). */
typedef struct lks_writer lks_writer;

/* keep: newest step-*.weights.h5 to keep, 0 keeps all. Makes run_folder/checkpoints. The model is
 * borrowed until lks_writer_close. */
lks_status lks_writer_open(const char *run_folder, const lks_model *model, int keep,
                           lks_writer **writer, lks_error *err) LKS_MUST_USE;

/* From now on nothing is written, and every call fails, once the run has lost this lock (see
 * lks_run_lock_check). The lock is borrowed until lks_writer_close. Before the first submit. */
struct lks_run_lock;
void lks_writer_guard(lks_writer *writer, const struct lks_run_lock *lock);

/* Returns at once; the thread writes checkpoints/step-NNNNNNNN.weights.h5, points
 * latest.weights.h5 at it, writes history.h5 from its history, removes what `keep` gives up
 * (never the newest) and, with is_best, makes checkpoints/best.weights.h5 (a hard link or copy by
 * the same write-aside rule). Parameters and slots are borrowed until the next lks_writer_wait or
 * lks_writer_close returns; all else is copied. Waits first when the previous one is still being
 * written. Its earlier failure (a full disk) is returned here. */
lks_status lks_writer_submit(lks_writer *writer, const lks_checkpoint *checkpoint, bool is_best,
                             lks_error *err) LKS_MUST_USE;

/* Whether a submit would not wait. *took: s that the last checkpoint was in writing; 0 before the
 * first was written. */
bool lks_writer_is_idle(lks_writer *writer, double *took);

/* A failure of the thread so far, without waiting; LKS_OK while all is well. */
lks_status lks_writer_poll(lks_writer *writer, lks_error *err) LKS_MUST_USE;

/* Waits until all is on disk; returns the first failure. */
lks_status lks_writer_wait(lks_writer *writer, lks_error *err) LKS_MUST_USE;

/* Waits, ends the thread, frees. NULL is accepted. */
void lks_writer_close(lks_writer **writer);

#endif
