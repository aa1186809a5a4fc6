/* What rank 0 shows while training: a bar as Keras draws it on a terminal, else a line an epoch. */
#ifndef LKS_TRAIN_DISPLAY_H
#define LKS_TRAIN_DISPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "train/settings.h"

/* What a rank is doing where it prints (lks_world_doing), should it be kept from it. */
#define LKS_PRINTING "printing (its output is not read)"

typedef struct lks_display {
  bool shows; /* false: this rank, or this run, shows nothing */
  bool bar;
  int64_t epochs; /* in all */
  int64_t steps;  /* of an epoch */
  double drawn;   /* when the bar was last drawn */
} lks_display;

/* progress: lks_progress_id; a bar only where stdout is a terminal or it is asked for. */
lks_display lks_display_make(int progress, bool root, int64_t epochs, int64_t steps);

/* Draws the bar, at most ten times a second. values: "accuracy: 0.8912 - loss: 0.3712". */
bool lks_display_due(lks_display *display);
void lks_display_step(lks_display *display, int64_t epoch, int64_t step, double seconds,
                      const char *values);
/* The line that stays, after validation. */
void lks_display_epoch(lks_display *display, int64_t epoch, int64_t steps, double seconds,
                       const char *values);

/* A value as Keras prints it: %.4f, or %.4e at or under 1e-3; and from 1e15 on, where digits after
 * the point mean nothing. */
void lks_display_number(char out[32], double value);
/* Appends "name: value", such a value. */
void lks_display_value(lks_text *text, const char *name, double value);

#endif
