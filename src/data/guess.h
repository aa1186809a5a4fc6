/* Names under which datasets are looked for where none is named. */
#ifndef LKS_DATA_GUESS_H
#define LKS_DATA_GUESS_H

#include "base/arena.h"

#define LKS_MOST_GUESSES 9

/* In order, ended by NULL. */
typedef struct lks_guesses {
  const char *names[LKS_MOST_GUESSES + 1];
} lks_guesses;

/* Of features. key: "data.train", "data.validation", "data.test", or else: x_test is tried first
 * for a test, and never for training. */
lks_guesses lks_guess_features(const char *key);

/* Of targets beside those features, named or found: y_test belongs to x_test, and nothing else
 * does. Names in the arena; none at all where that fails. */
lks_guesses lks_guess_targets(const char *features, lks_arena *arena);

#endif
