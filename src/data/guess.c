/* Usual names of datasets, as Keras' users and `convert` give them. */
#include "data/guess.h"

#include <stdbool.h>
#include <string.h>

static void add(lks_guesses *guesses, const char *const *names) {
  int count = 0;
  while (guesses->names[count] != NULL) {
    ++count;
  }
  for (int i = 0; names[i] != NULL && count < LKS_MOST_GUESSES; ++i) {
    bool known = false;
    for (int k = 0; k < count; ++k) {
      known = known || strcmp(guesses->names[k], names[i]) == 0;
    }
    if (!known) {
      guesses->names[count++] = names[i];
    }
  }
}

lks_guesses lks_guess_features(const char *key) {
  static const char *const usual[] = {"x", "X", "data", "features", "x_train", NULL};
  static const char *const validation[] = {"x_val", "x_validation", "x_valid", NULL};
  static const char *const test[] = {"x_test", NULL};
  lks_guesses guesses = {{NULL}};
  if (strcmp(key, "data.validation") == 0) {
    add(&guesses, validation);
  } else if (strcmp(key, "data.test") == 0) {
    add(&guesses, test);
  }
  add(&guesses, usual);
  return guesses;
}

lks_guesses lks_guess_targets(const char *features, lks_arena *arena) {
  static const char *const usual[] = {"y", "label", "labels", "target", "targets", "y_train", NULL};
  static const char *const others[] = {"_test", "_val", "_validation", "_valid", NULL};
  lks_guesses guesses = {{NULL}};
  const char *slash = strrchr(features, '/');
  const char *name = slash != NULL ? slash + 1 : features;
  if ((name[0] == 'x' || name[0] == 'X') && name[1] == '_') {
    const char *pair[] = {
        lks_arena_print(arena, "%.*sy%s", (int)(name - features), features, name + 1), NULL};
    add(&guesses, pair);
    for (int i = 0; others[i] != NULL; ++i) {
      if (pair[0] == NULL || strcmp(name + 1, others[i]) == 0) {
        return guesses; /* y may be the training's */
      }
    }
  }
  add(&guesses, usual);
  return guesses;
}
