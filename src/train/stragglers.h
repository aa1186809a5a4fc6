/* Slow ranks. In lockstep all wait for the slowest, so every rank's step takes equally long; what
 * differs is how long each waited for the others. */
#ifndef LKS_TRAIN_STRAGGLERS_H
#define LKS_TRAIN_STRAGGLERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How one rank spent an epoch's steps. Seconds. */
typedef struct lks_pace {
  double seconds; /* in all */
  double input;   /* taking rows */
  double wait;    /* for other ranks; the rest is computing */
  char host[64];
} lks_pace;

/* Who was slowest, and how many epochs in a row that was its host. Zero-initialise it. */
typedef struct lks_straggler {
  int rank; /* -1: nobody was slow enough to matter */
  char host[64];
  int64_t epochs;
} lks_straggler;

/* Judges an epoch, paces[size] in rank order: the slowest rank matters when it was busy for more
 * than 1.2 times as long as the median rank, that difference is more than 5 % of the epoch, and the
 * epoch took 2 s at least (paces are sampled: less is chance). Then true, *straggler is brought up
 * to date, and out holds one line that says who, how much and in what; in the third epoch in a row
 * also what to do. */
bool lks_straggler_judge(const lks_pace *paces, int size, int64_t epoch, lks_straggler *straggler,
                         char *out, size_t capacity);

#endif
