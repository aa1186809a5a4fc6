/* Looking up rows and kinds, and the errors that binding and overriding have in common. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "config/internal.h"

/* More names than this are no help to who mistyped one. */
#define MAX_NAMES 128

const lks_option *lks_row_find(const lks_option *rows, const char *key) {
  for (; rows != NULL && rows->type != LKS_OPT_END; ++rows) {
    if (strcmp(rows->key, key) == 0) {
      return rows;
    }
  }
  return NULL;
}

const lks_kind *lks_kind_find(const lks_kind *const *kinds, const char *name) {
  for (; *kinds != NULL; ++kinds) {
    if (strcmp((*kinds)->name, name) == 0) {
      return *kinds;
    }
  }
  return NULL;
}

/* ---- short forms */

static lks_status no_memory(lks_error *err) {
  return lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory for the configuration");
}

/* Makes the node a mapping with one child. */
static void make_mapping(lks_node *node, lks_node *child) {
  node->kind = LKS_NODE_MAP;
  node->text = NULL;
  node->quoted = false;
  node->first = child;
}

lks_status lks_node_name_kind(lks_node *node, lks_arena *arena, lks_error *err) {
  lks_node *name = lks_node_new(arena, LKS_NODE_SCALAR, LKS_KIND_KEY, node->text, node);
  if (name == NULL) {
    return no_memory(err);
  }
  name->quoted = node->quoted;
  make_mapping(node, name);
  return LKS_OK;
}

lks_status lks_node_name_layer(lks_node *node, lks_arena *arena, lks_error *err) {
  lks_node *options = lks_node_new(arena, LKS_NODE_MAP, node->text, NULL, node);
  if (options == NULL) {
    return no_memory(err);
  }
  make_mapping(node, options);
  return LKS_OK;
}

/* ---- ranges */

bool lks_row_has_min(const lks_option *row) {
  const bool bounded = row->min != 0.0 || row->max != 0.0 || (row->flags & LKS_OPTION_ABOVE_MIN);
  return bounded && !isinf(row->min);
}

bool lks_row_has_max(const lks_option *row) {
  if (row->flags & LKS_OPTION_BELOW_MAX) {
    return true;
  }
  return (row->min != 0.0 || row->max != 0.0) && row->max >= row->min && !isinf(row->max);
}

bool lks_row_in_range(const lks_option *row, double value) {
  if (lks_row_has_min(row) &&
      (row->flags & LKS_OPTION_ABOVE_MIN ? value <= row->min : value < row->min)) {
    return false;
  }
  if (lks_row_has_max(row) &&
      (row->flags & LKS_OPTION_BELOW_MAX ? value >= row->max : value > row->max)) {
    return false;
  }
  return true;
}

/* A bound as people write it: 1000000, not 1e+06; but 1e-07. */
static const char *format_bound(char out[32], double bound) {
  if (bound == floor(bound) && fabs(bound) < 1e9) {
    (void)snprintf(out, 32, "%.0f", bound);
    return out;
  }
  return lks_format_real(out, bound);
}

char *lks_row_range(const lks_option *row, char out[LKS_RANGE_MAX]) {
  char low[32], high[32];
  const char *min = format_bound(low, row->min);
  const char *max = format_bound(high, row->max);
  const bool has_min = lks_row_has_min(row), has_max = lks_row_has_max(row);
  const char *above = row->flags & LKS_OPTION_ABOVE_MIN ? "above" : "at least";
  const char *below = row->flags & LKS_OPTION_BELOW_MAX ? "below" : "at most";
  out[0] = '\0';
  if (has_min && has_max && (row->flags & (LKS_OPTION_ABOVE_MIN | LKS_OPTION_BELOW_MAX)) == 0) {
    (void)snprintf(out, LKS_RANGE_MAX, "from %s to %s", min, max);
  } else if (has_min && has_max) {
    (void)snprintf(out, LKS_RANGE_MAX, "%s %s and %s %s", above, min, below, max);
  } else if (has_min) {
    (void)snprintf(out, LKS_RANGE_MAX, "%s %s", above, min);
  } else if (has_max) {
    (void)snprintf(out, LKS_RANGE_MAX, "%s %s", below, max);
  }
  return out;
}

lks_status lks_row_default(const lks_option *row, const char *dotted, const lks_node *like,
                           lks_arena *arena, lks_node **node, lks_error *err) {
  const bool is_text = row->type == LKS_OPT_TEXT || row->type == LKS_OPT_PATH;
  if (row->fallback != NULL && !is_text) {
    return lks_tree_value(row->fallback, dotted, like, arena, node, err);
  }
  lks_node_kind kind = LKS_NODE_MAP;
  if (row->type == LKS_OPT_TEXTS || row->type == LKS_OPT_CHOICES || row->type == LKS_OPT_LAYERS) {
    kind = LKS_NODE_LIST;
  } else if (is_text) {
    kind = LKS_NODE_SCALAR;
  }
  *node = lks_node_new(arena, kind, NULL, row->fallback, like);
  if (*node == NULL) {
    return no_memory(err);
  }
  (*node)->quoted = is_text;
  return LKS_OK;
}

/* ---- lists of names */

static void add_name(const char *name, lks_text *out) {
  lks_text_add(out, "%s%s", out->length > 0 ? ", " : "", name);
}

void lks_list_words(const char *const *words, lks_text *out) {
  for (; words != NULL && *words != NULL; ++words) {
    add_name(*words, out);
  }
}

void lks_list_kinds(const lks_kind *const *kinds, lks_text *out) {
  for (; *kinds != NULL; ++kinds) {
    add_name((*kinds)->name, out);
  }
}

void lks_list_keys(const lks_option *rows, lks_text *out) {
  for (; rows != NULL && rows->type != LKS_OPT_END; ++rows) {
    if (rows->type != LKS_OPT_LATER) {
      add_name(rows->key, out);
    }
  }
}

/* ---- errors */

/* Advises the nearest of the names, and what there is after `label`: always where `all`, else only
 * when no name is near. */
static void advise_names(const char *word, const char *const *names, const char *label, bool all,
                         lks_error *err) {
  const char *nearest = lks_nearest(word, names);
  if (nearest != NULL && !all) {
    lks_advise(err, "did you mean '%s'?", nearest);
    return;
  }
  lks_text list = {0};
  lks_list_words(names, &list);
  lks_advise(err, "%s%s%s%s%s", nearest != NULL ? "did you mean '" : "",
             nearest != NULL ? nearest : "", nearest != NULL ? "'? " : "", label,
             list.data != NULL ? list.data : "nothing");
  lks_text_free(&list);
}

lks_status lks_fail_unknown_key(const lks_node *node, const char *dotted, const char *key,
                                const lks_option *rows, const lks_kind *kind, lks_error *err) {
  const char *names[MAX_NAMES + 1] = {NULL};
  size_t count = 0;
  for (; rows != NULL && rows->type != LKS_OPT_END && count < MAX_NAMES; ++rows) {
    if (rows->type != LKS_OPT_LATER) {
      names[count++] = rows->key;
    }
  }
  if (kind == NULL) {
    const lks_status st = lks_node_fail(node, dotted, err, NULL, "unknown key");
    advise_names(key, names, "known here: ", false, err);
    return st;
  }
  char label[96];
  (void)snprintf(label, sizeof label, "'%s' has ", kind->name);
  const lks_status st = lks_node_fail(node, dotted, err, NULL, "unknown key for '%s'", kind->name);
  advise_names(key, names, label, true, err);
  return st;
}

lks_status lks_fail_unknown_kind(const lks_node *node, const char *dotted, const char *name,
                                 const lks_kind *const *kinds, lks_error *err) {
  const char *names[MAX_NAMES + 1] = {NULL};
  for (size_t i = 0; kinds[i] != NULL && i < MAX_NAMES; ++i) {
    names[i] = kinds[i]->name;
  }
  const lks_status st = lks_node_fail(node, dotted, err, NULL, "no such choice: '%.60s'", name);
  advise_names(name, names, "known: ", true, err);
  return st;
}

lks_status lks_fail_unnamed_kind(const lks_node *node, const char *dotted,
                                 const lks_kind *const *kinds, lks_error *err) {
  const lks_status st = lks_node_fail(node, dotted, err, NULL, "the mapping has no 'name'");
  lks_text list = {0};
  lks_list_kinds(kinds, &list);
  lks_advise(err, "add 'name', one of: %s", list.data != NULL ? list.data : "");
  lks_text_free(&list);
  return st;
}

lks_status lks_fail_form(const lks_node *node, const char *dotted, const char *what,
                         const char *remedy, lks_error *err) {
  if (node->kind != LKS_NODE_SCALAR) {
    return lks_node_fail(node, dotted, err, remedy, "expects %s, got a %s", what,
                         node->kind == LKS_NODE_LIST ? "list" : "mapping");
  }
  if (node->text[0] == '\0') { /* quotes or not: on a command line there may be none */
    return lks_node_fail(node, dotted, err, "give it a value", "expects %s, got none", what);
  }
  return lks_node_fail(node, dotted, err, remedy, "expects %s, got %s'%.60s'", what,
                       node->quoted ? "the quoted text " : "", node->text);
}

lks_status lks_fail_null(const lks_node *node, const char *dotted, lks_error *err) {
  return lks_node_fail(node, dotted, err, "give it a value or remove it", "has no value");
}

lks_status lks_fail_later(const lks_node *node, const char *dotted, lks_error *err) {
  return lks_node_fail(node, dotted, err, "remove the key", "not in this version");
}

lks_status lks_layer_entry(lks_node *node, const char *dotted, const lks_kind *const *kinds,
                           lks_arena *arena, const lks_kind **kind, lks_node **options,
                           lks_error *err) {
  lks_status st = LKS_OK;
  if (lks_node_is_null(node)) {
    TRY(lks_fail_null(node, dotted, err));
  }
  if (node->kind == LKS_NODE_LIST) {
    TRY(lks_fail_form(node, dotted, "a layer", "write '- KIND' or '- KIND: {OPTION: VALUE}'", err));
  }
  if (node->kind == LKS_NODE_MAP && lks_node_count(node) != 1) {
    TRY(lks_node_fail(node, dotted, err,
                      "write '- KIND: {OPTION: VALUE}', or indent the options below their kind",
                      "a layer has one key, its kind; this one has %d", lks_node_count(node)));
  }
  const char *name = node->kind == LKS_NODE_MAP ? node->first->key : node->text;
  *kind = lks_kind_find(kinds, name);
  if (*kind == NULL) {
    TRY(lks_fail_unknown_kind(node, dotted, name, kinds, err));
  }
  if (node->kind == LKS_NODE_SCALAR) {
    TRY(lks_node_name_layer(node, arena, err));
  }
  *options = node->first;
  if (lks_node_is_null(*options)) {
    st = lks_node_fail(*options, dotted, err, NULL, "'%s' has no value", name);
    lks_advise(err, "write '- %s', or indent its options below it", name);
  } else if ((*options)->kind != LKS_NODE_MAP) {
    TRY(lks_fail_form(*options, dotted, "a mapping of the layer's options",
                      "write '- KIND: {OPTION: VALUE}'", err));
  }
cleanup:
  return st;
}
