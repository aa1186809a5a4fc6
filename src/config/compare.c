/* Comparing two effective configurations, key by key.
 *
 * Both are flattened to (dotted name, value) in the order of their trees. Both come from the same
 * tables, so a search begins where the last one ended and is short. */
#include <string.h>

#include "config/internal.h"

#define ABSENT "(absent)"

typedef struct entry {
  const char *key, *value;
} entry;

typedef struct flat {
  lks_arena *arena;
  entry *entries; /* NULL while counting */
  int count;
  bool failed;
} flat;

static void count_entry(const char *key, const char *value, void *user) {
  (void)key;
  (void)value;
  ++((flat *)user)->count;
}

static void add_entry(const char *key, const char *value, void *user) {
  flat *f = user;
  entry *e = &f->entries[f->count++];
  e->key = lks_arena_copy(f->arena, key);
  e->value = lks_arena_copy(f->arena, value);
  f->failed = f->failed || e->key == NULL || e->value == NULL;
}

static lks_status flatten(const lks_node *root, lks_arena *arena, flat *f, lks_error *err) {
  lks_status st = LKS_OK;
  *f = (flat){.arena = arena};
  lks_tree_visit(root, count_entry, f);
  f->entries = lks_arena_alloc(arena, (size_t)(f->count + 1) * sizeof *f->entries);
  TRY_ALLOC(f->entries);
  f->count = 0;
  lks_tree_visit(root, add_entry, f);
  if (f->failed) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for the configuration");
  }
cleanup:
  return st;
}

/* The value of key, looked for from *hint on; NULL where there is none. */
static const char *value_of(const flat *f, const char *key, int *hint) {
  for (int i = 0; i < f->count; ++i) {
    const int at = (*hint + i) % f->count;
    if (strcmp(f->entries[at].key, key) == 0) {
      *hint = at + 1;
      return f->entries[at].value;
    }
  }
  return NULL;
}

/* ---- rows along a dotted name */

/* Of whichever kind has such a row: kinds that share a key share its meaning. */
static const lks_option *row_of_any_kind(const lks_kind *const *kinds, const char *key) {
  const lks_option *row = NULL;
  for (; row == NULL && *kinds != NULL; ++kinds) {
    row = lks_row_find((*kinds)->options, key);
  }
  return row;
}

/* The next component of a name, cut off in place; NULL at its end. */
static const char *take(char **rest) {
  char *name = *rest;
  if (*name == '\0') {
    return NULL;
  }
  *rest += strcspn(name, ".");
  if (**rest == '.') {
    *(*rest)++ = '\0';
  }
  return name;
}

/* What the next component of a name is, by the row before it. */
typedef enum place { AT_KEY, AT_CHOICE_KEY, AT_INDEX, AT_LAYER_KIND, AT_NOTHING } place;

static place place_below(const lks_option *row) {
  switch (row != NULL ? row->type : LKS_OPT_END) {
  case LKS_OPT_GROUP:
    return AT_KEY;
  case LKS_OPT_CHOICE:
    return AT_CHOICE_KEY;
  case LKS_OPT_TEXTS:
  case LKS_OPT_CHOICES:
  case LKS_OPT_LAYERS:
    return AT_INDEX;
  default:
    return AT_NOTHING;
  }
}

/* Follows the name of a flattened entry through the rows (names is a copy, taken apart). Gives the
 * name that overrides and messages use, without a layer's kind, and whether it may change. */
static bool follow(const lks_option *rows, char *names, lks_dotted *key) {
  bool resumable = false;
  const lks_option *row = NULL;
  place at = AT_KEY;
  for (const char *name = take(&names); name != NULL; name = take(&names)) {
    if (at == AT_LAYER_KIND) {
      const lks_kind *kind = lks_kind_find(row->kinds, name);
      rows = kind != NULL ? kind->options : NULL;
      at = AT_KEY;
      continue;
    }
    (void)lks_dotted_push(key, name);
    if (at == AT_INDEX) {
      at = row->type == LKS_OPT_LAYERS    ? AT_LAYER_KIND
           : row->type == LKS_OPT_CHOICES ? AT_CHOICE_KEY
                                          : AT_NOTHING;
      continue;
    }
    if (at == AT_NOTHING) {
      continue;
    }
    row = at == AT_KEY ? lks_row_find(rows, name) : row_of_any_kind(row->kinds, name);
    rows = row != NULL ? row->options : NULL;
    at = place_below(row);
    resumable = resumable || (row != NULL && (row->flags & LKS_OPTION_RESUME));
  }
  return resumable;
}

static lks_status add_difference(const lks_option *options, const char *key, const char *old_value,
                                 const char *new_value, lks_arena *arena, lks_difference *out,
                                 lks_error *err) {
  lks_status st = LKS_OK;
  lks_dotted shown = {.length = 0};
  char *names = lks_arena_copy(arena, key);
  TRY_ALLOC(names);
  out->resumable = follow(options, names, &shown);
  out->key = lks_arena_copy(arena, shown.text);
  TRY_ALLOC(out->key);
  out->old_value = old_value;
  out->new_value = new_value;
cleanup:
  return st;
}

lks_status lks_options_compare(const lks_option *options, const lks_node *old_root,
                               const lks_node *new_root, lks_arena *arena, lks_difference **out,
                               int *count, lks_error *err) {
  lks_status st = LKS_OK;
  flat was = {0}, is = {0};
  TRY(flatten(old_root, arena, &was, err));
  TRY(flatten(new_root, arena, &is, err));
  *count = 0;
  *out = lks_arena_alloc(arena, (size_t)(was.count + is.count + 1) * sizeof **out);
  TRY_ALLOC(*out);
  int hint = 0;
  for (int i = 0; i < was.count; ++i) {
    const entry *e = &was.entries[i];
    const char *value = value_of(&is, e->key, &hint);
    if (value == NULL || strcmp(value, e->value) != 0) {
      TRY(add_difference(options, e->key, e->value, value != NULL ? value : ABSENT, arena,
                         &(*out)[*count], err));
      ++*count;
    }
  }
  hint = 0;
  for (int i = 0; i < is.count; ++i) {
    const entry *e = &is.entries[i];
    if (value_of(&was, e->key, &hint) == NULL) {
      TRY(add_difference(options, e->key, ABSENT, e->value, arena, &(*out)[*count], err));
      ++*count;
    }
  }
cleanup:
  return st;
}
