/* From a struct back to the tree: the effective configuration, every key with its value.
 *
 * Binding what is emitted gives the same struct. Three kinds of row are left out, for absence is
 * what they would read back as: optional groups that are not present, optional rows without a
 * default that are zero, and hidden rows at their default. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "config/internal.h"

static bool emit_rows(const lks_option *rows, const char *source, lks_arena *arena, lks_node *map);

/* ---- scalars as text */

static const char *word_of(const lks_option *row, double value) {
  for (int i = 0; row->words != NULL && row->words[i] != NULL; ++i) {
    if (value == -1.0 - i) {
      return row->words[i];
    }
  }
  return NULL;
}

static char *format_seconds(char out[32], double seconds) {
  if (seconds == floor(seconds) && seconds < 1e15) {
    (void)snprintf(out, 32, "%.0f", seconds);
    return out;
  }
  return lks_format_real(out, seconds);
}

/* The text of a scalar member, in buffer or where it lies. *quoted: it is a text, so that YAML
 * must not take it for a number. NULL for rows that are no scalars. */
static const char *format_scalar(const lks_option *row, const void *member, char buffer[32],
                                 bool *quoted) {
  *quoted = false;
  const char *word = NULL;
  switch (row->type) {
  case LKS_OPT_BOOL:
    return *(const bool *)member ? "true" : "false";
  case LKS_OPT_INT:
  case LKS_OPT_BYTES:
    word = word_of(row, (double)*(const int64_t *)member);
    (void)snprintf(buffer, 32, "%lld", (long long)*(const int64_t *)member);
    break;
  case LKS_OPT_REAL:
    word = word_of(row, *(const double *)member);
    (void)lks_format_real(buffer, *(const double *)member);
    break;
  case LKS_OPT_DURATION:
    return format_seconds(buffer, *(const double *)member);
  case LKS_OPT_WORD:
    word = row->words[*(const int *)member];
    break;
  case LKS_OPT_TEXT:
  case LKS_OPT_PATH:
    word = *(const char *const *)member != NULL ? *(const char *const *)member : "";
    break;
  default:
    return NULL;
  }
  *quoted = word != NULL;
  return word != NULL ? word : buffer;
}

/* ---- what is left out */

static bool is_zero(const lks_option *row, const void *member) {
  switch (row->type) {
  case LKS_OPT_BOOL:
    return !*(const bool *)member;
  case LKS_OPT_INT:
  case LKS_OPT_BYTES:
    return *(const int64_t *)member == 0;
  case LKS_OPT_REAL:
  case LKS_OPT_DURATION:
    return *(const double *)member == 0.0;
  case LKS_OPT_WORD:
    return *(const int *)member == 0;
  case LKS_OPT_TEXT:
  case LKS_OPT_PATH:
    return *(const char *const *)member == NULL || **(const char *const *)member == '\0';
  case LKS_OPT_TEXTS:
    return ((const lks_texts *)member)->count == 0;
  case LKS_OPT_GROUP:
    return !*(const bool *)member; /* `present` */
  case LKS_OPT_CHOICE:
    return *(const lks_kind *const *)member == NULL;
  default:
    return ((const lks_choices *)member)->count == 0;
  }
}

static bool rows_at_default(const lks_option *rows, const char *source, lks_arena *arena);

/* A scalar reads the same as its fallback: both are compared as text of the bound value. */
static bool scalar_at_default(const lks_option *row, const void *member, lks_arena *arena) {
  union {
    bool truth;
    int64_t whole;
    double real;
    int word;
    const char *text;
  } value;
  memset(&value, 0, sizeof value);
  lks_option alone[2] = {*row};
  alone[0].offset = 0;
  lks_node empty = {.kind = LKS_NODE_MAP};
  lks_error ignored;
  if (lks_options_bind(alone, &empty, &value, arena, &ignored) != LKS_OK) {
    return false; /* printing it is always right */
  }
  char left[32], right[32];
  bool quoted = false;
  return strcmp(format_scalar(row, member, left, &quoted),
                format_scalar(row, &value, right, &quoted)) == 0;
}

static bool at_default(const lks_option *row, const char *member, lks_arena *arena) {
  const void *typed = member;
  if (row->fallback == NULL) {
    return (row->flags & LKS_OPTION_OPTIONAL) && is_zero(row, typed);
  }
  switch (row->type) {
  case LKS_OPT_GROUP:
    return row->flags & LKS_OPTION_OPTIONAL ? is_zero(row, typed)
                                            : rows_at_default(row->options, member, arena);
  case LKS_OPT_CHOICE: {
    const lks_kind *kind = *(const lks_kind *const *)typed;
    return strcmp(kind->name, row->fallback) == 0 && rows_at_default(kind->options, member, arena);
  }
  case LKS_OPT_TEXTS:
  case LKS_OPT_CHOICES:
  case LKS_OPT_LAYERS:
    return strcmp(row->fallback, "[]") == 0 && is_zero(row, typed);
  default:
    return scalar_at_default(row, typed, arena);
  }
}

static bool rows_at_default(const lks_option *rows, const char *source, lks_arena *arena) {
  for (; rows != NULL && rows->type != LKS_OPT_END; ++rows) {
    if (rows->type != LKS_OPT_LATER && !at_default(rows, source + rows->offset, arena)) {
      return false;
    }
  }
  return true;
}

static bool is_left_out(const lks_option *row, const char *member, lks_arena *arena) {
  const void *typed = member;
  const bool optional = (row->flags & LKS_OPTION_OPTIONAL) != 0;
  if (row->type == LKS_OPT_LATER) {
    return true;
  }
  if (optional && (row->fallback == NULL || row->type == LKS_OPT_GROUP) && is_zero(row, typed)) {
    return true;
  }
  return (row->flags & LKS_OPTION_HIDDEN) && at_default(row, member, arena);
}

/* ---- nodes; each returns NULL when memory is out */

static lks_node *emit_text(const char *key, const char *text, bool quoted, lks_arena *arena) {
  lks_node *node = lks_node_new(arena, LKS_NODE_SCALAR, key, text, NULL);
  if (node != NULL) {
    node->quoted = quoted;
  }
  return node;
}

static lks_node *emit_texts(const char *key, const lks_texts *texts, lks_arena *arena) {
  if (texts->count == 1) {
    return emit_text(key, texts->items[0], true, arena);
  }
  lks_node *list = lks_node_new(arena, LKS_NODE_LIST, key, NULL, NULL);
  for (int i = 0; list != NULL && i < texts->count; ++i) {
    lks_node *item = emit_text(NULL, texts->items[i], true, arena);
    if (item == NULL) {
      return NULL;
    }
    lks_node_append(list, item);
  }
  return list;
}

static lks_node *emit_choice(const char *key, const char *element, lks_arena *arena) {
  const void *typed = element;
  const lks_kind *kind = *(const lks_kind *const *)typed;
  lks_node *map = lks_node_new(arena, LKS_NODE_MAP, key, NULL, NULL);
  lks_node *name = emit_text(LKS_KIND_KEY, kind->name, true, arena);
  if (map == NULL || name == NULL) {
    return NULL;
  }
  lks_node_append(map, name);
  return emit_rows(kind->options, element, arena, map) ? map : NULL;
}

static lks_node *emit_layer(const char *element, lks_arena *arena) {
  const void *typed = element;
  const lks_kind *kind = *(const lks_kind *const *)typed;
  lks_node *layer = lks_node_new(arena, LKS_NODE_MAP, NULL, NULL, NULL);
  lks_node *map = lks_node_new(arena, LKS_NODE_MAP, kind->name, NULL, NULL);
  if (layer == NULL || map == NULL) {
    return NULL;
  }
  lks_node_append(layer, map);
  return emit_rows(kind->options, element, arena, map) ? layer : NULL;
}

static lks_node *emit_elements(const lks_option *row, const lks_choices *choices,
                               lks_arena *arena) {
  lks_node *list = lks_node_new(arena, LKS_NODE_LIST, row->key, NULL, NULL);
  for (int i = 0; list != NULL && i < choices->count; ++i) {
    const char *element = (const char *)choices->items + (size_t)i * row->element_bytes;
    lks_node *item = row->type == LKS_OPT_LAYERS ? emit_layer(element, arena)
                                                 : emit_choice(NULL, element, arena);
    if (item == NULL) {
      return NULL;
    }
    lks_node_append(list, item);
  }
  return list;
}

static lks_node *emit_row(const lks_option *row, const char *member, lks_arena *arena) {
  const void *typed = member;
  char buffer[32];
  bool quoted = false;
  lks_node *map = NULL;
  switch (row->type) {
  case LKS_OPT_TEXTS:
    return emit_texts(row->key, typed, arena);
  case LKS_OPT_GROUP:
    map = lks_node_new(arena, LKS_NODE_MAP, row->key, NULL, NULL);
    return map != NULL && emit_rows(row->options, member, arena, map) ? map : NULL;
  case LKS_OPT_CHOICE:
    return emit_choice(row->key, member, arena);
  case LKS_OPT_CHOICES:
  case LKS_OPT_LAYERS:
    return emit_elements(row, typed, arena);
  default: {
    const char *text = format_scalar(row, typed, buffer, &quoted);
    return emit_text(row->key, text, quoted, arena);
  }
  }
}

static bool emit_rows(const lks_option *rows, const char *source, lks_arena *arena, lks_node *map) {
  for (; rows != NULL && rows->type != LKS_OPT_END; ++rows) {
    if (is_left_out(rows, source + rows->offset, arena)) {
      continue;
    }
    lks_node *node = emit_row(rows, source + rows->offset, arena);
    if (node == NULL) {
      return false;
    }
    lks_node_append(map, node);
  }
  return true;
}

lks_node *lks_options_emit(const lks_option *options, const void *source, lks_arena *arena) {
  lks_node *map = lks_node_new(arena, LKS_NODE_MAP, NULL, NULL, NULL);
  return map != NULL && emit_rows(options, source, arena, map) ? map : NULL;
}
