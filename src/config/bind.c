/* From the tree to the struct that option rows describe.
 *
 * Keys are checked before values, and rows are bound in the order of their table, so the same
 * file always gives the same first error. The target is zero before. */
#include <math.h>
#include <string.h>

#include "config/internal.h"

typedef struct binder {
  lks_arena *arena;
  lks_error *err;
  lks_dotted at; /* the row being bound: for messages */
  bool lenient;  /* inside an absent optional group: what has no default stays zero */
} binder;

static lks_status bind_value(binder *b, const lks_option *row, lks_node *node, char *member);

/* ---- numbers, words and texts */

/* Index of the scalar among the row's words, or -1. */
static int word_index(const lks_option *row, const lks_node *node) {
  for (int i = 0; row->words != NULL && row->words[i] != NULL; ++i) {
    if (strcmp(row->words[i], node->text) == 0) {
      return i;
    }
  }
  return -1;
}

/* Fails for a number that is none, or is quoted; says which words would do too. */
static lks_status fail_number(binder *b, const lks_option *row, const lks_node *node,
                              const char *what, const char *remedy) {
  lks_text wanted = {0};
  lks_text_add(&wanted, "%s", what);
  for (int i = 0; row->words != NULL && row->words[i] != NULL; ++i) {
    lks_text_add(&wanted, " or '%s'", row->words[i]);
  }
  const lks_status st = lks_fail_form(node, b->at.text, wanted.failed ? what : wanted.data,
                                      node->quoted ? "remove the quotes" : remedy, b->err);
  lks_text_free(&wanted);
  return st;
}

static lks_status fail_range(binder *b, const lks_option *row, const lks_node *node,
                             const char *remedy) {
  char range[LKS_RANGE_MAX];
  return lks_node_fail(node, b->at.text, b->err, remedy, "%s is out of range: allowed is %s%s%s",
                       node->text, lks_row_range(row, range), row->unit != NULL ? " " : "",
                       row->unit != NULL ? row->unit : "");
}

static lks_status bind_int(binder *b, const lks_option *row, const lks_node *node, int64_t *out) {
  const int word = word_index(row, node);
  if (word >= 0) {
    *out = -1 - word;
    return LKS_OK;
  }
  if (node->quoted || !lks_parse_int64(node->text, out)) {
    double real = 0.0;
    const bool whole = lks_parse_real(node->text, &real) && real == floor(real);
    const lks_status st = fail_number(b, row, node, "a whole number", "write digits alone");
    if (!node->quoted && whole && fabs(real) < 9e15) {
      lks_advise(b->err, "write %.0f", real);
    } else if (!node->quoted && whole) {
      lks_advise(b->err, "write a number that fits 64 bits");
    }
    return st;
  }
  return lks_row_in_range(row, (double)*out) ? LKS_OK : fail_range(b, row, node, NULL);
}

static lks_status bind_real(binder *b, const lks_option *row, const lks_node *node, double *out) {
  const int word = word_index(row, node);
  if (word >= 0) {
    *out = -1.0 - word;
    return LKS_OK;
  }
  if (node->quoted || !lks_parse_real(node->text, out)) {
    return fail_number(b, row, node, "a number", "write it like 0.001 or 1e-3");
  }
  return lks_row_in_range(row, *out) ? LKS_OK : fail_range(b, row, node, NULL);
}

static lks_status bind_bool(binder *b, const lks_option *row, const lks_node *node, bool *out) {
  if (node->quoted || !lks_parse_bool(node->text, out)) {
    return fail_number(b, row, node, "true or false", "write true or false");
  }
  return LKS_OK;
}

static lks_status bind_word(binder *b, const lks_option *row, const lks_node *node, int *out) {
  *out = word_index(row, node);
  if (*out >= 0) {
    return LKS_OK;
  }
  *out = 0;
  lks_text list = {0};
  lks_list_words(row->words, &list);
  const lks_status st =
      lks_node_fail(node, b->at.text, b->err, NULL, "expects one of %s, got '%.60s'",
                    list.data != NULL ? list.data : "its words", node->text);
  lks_text_free(&list);
  const char *nearest = lks_nearest(node->text, row->words);
  if (nearest != NULL) {
    lks_advise(b->err, "did you mean '%s'?", nearest);
  } else {
    lks_advise(b->err, "write one of them");
  }
  return st;
}

static lks_status bind_duration(binder *b, const lks_option *row, const lks_node *node,
                                double *out) {
  if (!lks_parse_duration(node->text, out)) {
    return lks_fail_form(node, b->at.text, "a duration",
                         "write seconds, or units as in 90s, 45m, 23h30m or 2d", b->err);
  }
  return lks_row_in_range(row, *out) ? LKS_OK : fail_range(b, row, node, NULL);
}

static lks_status bind_bytes(binder *b, const lks_option *row, const lks_node *node, int64_t *out) {
  if (!lks_parse_bytes(node->text, out)) {
    return lks_fail_form(node, b->at.text, "a size in bytes",
                         "write bytes, or units as in 64K, 512M, 4G or 1T", b->err);
  }
  return lks_row_in_range(row, (double)*out) ? LKS_OK : fail_range(b, row, node, NULL);
}

static lks_status bind_text(binder *b, const lks_option *row, const lks_node *node,
                            const char **out) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  if (row->type == LKS_OPT_PATH && node->text[0] != '\0') {
    TRY(lks_path_resolve(b->arena, node->folder, node->text, out, err));
    TRY(lks_path_check_utf8(*out, err));
  } else {
    *out = lks_arena_copy(b->arena, node->text);
    TRY_ALLOC(*out);
  }
cleanup:
  return st;
}

static lks_status bind_scalar(binder *b, const lks_option *row, const lks_node *node,
                              void *member) {
  static const char *const wanted[] = {
      [LKS_OPT_BOOL] = "true or false",  [LKS_OPT_INT] = "a whole number",
      [LKS_OPT_REAL] = "a number",       [LKS_OPT_TEXT] = "a text",
      [LKS_OPT_PATH] = "a path",         [LKS_OPT_WORD] = "a word",
      [LKS_OPT_DURATION] = "a duration", [LKS_OPT_BYTES] = "a size in bytes",
  };
  if (node->kind != LKS_NODE_SCALAR) {
    return lks_fail_form(node, b->at.text, wanted[row->type], "write one value", b->err);
  }
  switch (row->type) {
  case LKS_OPT_BOOL:
    return bind_bool(b, row, node, member);
  case LKS_OPT_INT:
    return bind_int(b, row, node, member);
  case LKS_OPT_REAL:
    return bind_real(b, row, node, member);
  case LKS_OPT_WORD:
    return bind_word(b, row, node, member);
  case LKS_OPT_DURATION:
    return bind_duration(b, row, node, member);
  case LKS_OPT_BYTES:
    return bind_bytes(b, row, node, member);
  default:
    return bind_text(b, row, node, member);
  }
}

/* ---- lists */

static lks_status check_count(binder *b, const lks_option *row, const lks_node *node, int count) {
  if (lks_row_in_range(row, count)) {
    return LKS_OK;
  }
  char range[LKS_RANGE_MAX];
  return lks_node_fail(node, b->at.text, b->err, count > 0 ? "remove some" : "add one",
                       "the list has %d elements: allowed is %s", count, lks_row_range(row, range));
}

/* A name, or a list of names; "" is no name at all. */
static lks_status bind_texts(binder *b, const lks_option *row, const lks_node *node,
                             lks_texts *out) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  if (node->kind == LKS_NODE_MAP) {
    TRY(lks_fail_form(node, b->at.text, "a name or a list of names", "write [A, B]", err));
  }
  const bool single = node->kind == LKS_NODE_SCALAR;
  const int count = single ? node->text[0] != '\0' : lks_node_count(node);
  TRY(check_count(b, row, node, count));
  if (count == 0) {
    return LKS_OK;
  }
  out->items = lks_arena_alloc(b->arena, (size_t)count * sizeof *out->items);
  TRY_ALLOC(out->items);
  const lks_node *item = single ? node : node->first;
  for (; out->count < count; item = item->next) {
    const size_t mark = b->at.length;
    if (!single) {
      (void)lks_dotted_push_index(&b->at, out->count);
    }
    if (item->kind != LKS_NODE_SCALAR) {
      TRY(lks_fail_form(item, b->at.text, "a name", "write [A, B]", err));
    }
    if (lks_node_is_null(item) || item->text[0] == '\0') {
      TRY(lks_fail_null(item, b->at.text, err));
    }
    out->items[out->count] = lks_arena_copy(b->arena, item->text);
    TRY_ALLOC(out->items[out->count]);
    ++out->count;
    lks_dotted_pop(&b->at, mark);
  }
cleanup:
  return st;
}

/* ---- mappings */

/* kind: whose rows they are in a choice or layer; named: the mapping holds the kind's name too. */
static lks_status bind_rows(binder *b, const lks_option *rows, const lks_node *map,
                            const lks_kind *kind, bool named, char *target);

static lks_status bind_choice(binder *b, const lks_option *row, lks_node *node, char *element) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  if (node->kind == LKS_NODE_LIST) {
    TRY(lks_fail_form(node, b->at.text, "a name or a mapping with 'name'", "choose one", err));
  }
  if (node->kind == LKS_NODE_SCALAR) {
    TRY(lks_node_name_kind(node, b->arena, err));
  }
  const lks_node *name = lks_node_child(node, LKS_KIND_KEY);
  if (name == NULL) {
    TRY(lks_fail_unnamed_kind(node, b->at.text, row->kinds, err));
  }
  if (name->kind != LKS_NODE_SCALAR) {
    TRY(lks_fail_form(name, b->at.text, "a name", "write one name", err));
  }
  if (lks_node_is_null(name)) {
    TRY(lks_fail_null(name, b->at.text, err));
  }
  const lks_kind *kind = lks_kind_find(row->kinds, name->text);
  if (kind == NULL) {
    TRY(lks_fail_unknown_kind(name, b->at.text, name->text, row->kinds, err));
  }
  memcpy(element, &kind, sizeof kind);
  TRY(bind_rows(b, kind->options, node, kind, true, element));
cleanup:
  return st;
}

static lks_status bind_layer(binder *b, const lks_option *row, lks_node *node, char *element) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  const lks_kind *kind = NULL;
  lks_node *options = NULL;
  TRY(lks_layer_entry(node, b->at.text, row->kinds, b->arena, &kind, &options, err));
  memcpy(element, &kind, sizeof kind);
  TRY(bind_rows(b, kind->options, options, kind, false, element));
cleanup:
  return st;
}

static lks_status bind_elements(binder *b, const lks_option *row, lks_node *node,
                                lks_choices *out) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  if (node->kind != LKS_NODE_LIST) {
    TRY(lks_fail_form(node, b->at.text, "a list",
                      row->type == LKS_OPT_LAYERS ? "begin each layer's line with '- '"
                                                  : "put it in brackets: [NAME]",
                      err));
  }
  const int count = lks_node_count(node);
  TRY(check_count(b, row, node, count));
  out->element_bytes = row->element_bytes;
  if (count == 0) {
    return LKS_OK;
  }
  out->items = lks_arena_alloc(b->arena, (size_t)count * row->element_bytes);
  TRY_ALLOC(out->items);
  for (lks_node *item = node->first; item != NULL; item = item->next) {
    const size_t mark = lks_dotted_push_index(&b->at, out->count);
    char *element = (char *)out->items + (size_t)out->count * row->element_bytes;
    if (lks_node_is_null(item)) {
      TRY(lks_fail_null(item, b->at.text, err));
    }
    TRY(row->type == LKS_OPT_LAYERS ? bind_layer(b, row, item, element)
                                    : bind_choice(b, row, item, element));
    ++out->count;
    lks_dotted_pop(&b->at, mark);
  }
cleanup:
  return st;
}

static lks_status bind_group(binder *b, const lks_option *row, const lks_node *node, char *member) {
  if (node->kind != LKS_NODE_MAP) {
    const lks_status st = lks_fail_form(node, b->at.text, "a mapping", NULL, b->err);
    lks_text keys = {0};
    lks_list_keys(row->options, &keys);
    lks_advise(b->err, "write {KEY: VALUE} with keys of: %s", keys.data != NULL ? keys.data : "");
    lks_text_free(&keys);
    return st;
  }
  if (row->flags & LKS_OPTION_OPTIONAL) {
    const bool present = !b->lenient;
    memcpy(member, &present, sizeof present);
  }
  return bind_rows(b, row->options, node, NULL, false, member);
}

/* ---- rows */

static lks_status bind_value(binder *b, const lks_option *row, lks_node *node, char *member) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  if (row->type == LKS_OPT_LATER) {
    TRY(lks_fail_later(node, b->at.text, err));
  }
  if (lks_node_is_null(node)) {
    TRY(lks_fail_null(node, b->at.text, err));
  }
  if (row->expand != NULL) {
    TRY(row->expand(node, b->at.text, b->arena, err));
  }
  void *typed = member;
  switch (row->type) {
  case LKS_OPT_TEXTS:
    TRY(bind_texts(b, row, node, typed));
    break;
  case LKS_OPT_GROUP:
    TRY(bind_group(b, row, node, member));
    break;
  case LKS_OPT_CHOICE:
    TRY(bind_choice(b, row, node, member));
    break;
  case LKS_OPT_CHOICES:
  case LKS_OPT_LAYERS:
    TRY(bind_elements(b, row, node, typed));
    break;
  default:
    TRY(bind_scalar(b, row, node, member));
  }
cleanup:
  return st;
}

/* An absent key: its default, or nothing where it may be absent. map: where it would stand. */
static lks_status bind_absent(binder *b, const lks_option *row, const lks_node *map, char *member) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  const bool group = row->type == LKS_OPT_GROUP;
  const bool optional = (row->flags & LKS_OPTION_OPTIONAL) != 0;
  const bool was_lenient = b->lenient;
  if (row->type == LKS_OPT_LATER) {
    return LKS_OK;
  }
  if (row->fallback == NULL && !optional && !b->lenient) {
    st = lks_node_fail(map, b->at.text, err, NULL, "required, but missing");
    lks_advise(err, "add '%s' (%s)", row->key, row->help);
    goto cleanup;
  }
  lks_node *node = NULL;
  if (group && optional) {
    b->lenient = true;
    node = lks_node_new(b->arena, LKS_NODE_MAP, NULL, NULL, map);
    TRY_ALLOC(node);
  } else if (group || row->fallback != NULL) {
    TRY(lks_row_default(row, b->at.text, map, b->arena, &node, err));
  }
  if (node != NULL) {
    TRY(bind_value(b, row, node, member));
  } else if (row->type == LKS_OPT_TEXT || row->type == LKS_OPT_PATH) {
    const char *empty = "";
    memcpy(member, &empty, sizeof empty);
  }
cleanup:
  b->lenient = was_lenient;
  return st;
}

static lks_status check_keys(binder *b, const lks_option *rows, const lks_node *map,
                             const lks_kind *kind, bool named) {
  for (const lks_node *child = map->first; child != NULL; child = child->next) {
    if (lks_row_find(rows, child->key) == NULL &&
        !(named && strcmp(child->key, LKS_KIND_KEY) == 0)) {
      (void)lks_dotted_push(&b->at, child->key);
      return lks_fail_unknown_key(child, b->at.text, child->key, rows, kind, b->err);
    }
  }
  return LKS_OK;
}

static lks_status bind_rows(binder *b, const lks_option *rows, const lks_node *map,
                            const lks_kind *kind, bool named, char *target) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  TRY(check_keys(b, rows, map, kind, named));
  for (; rows != NULL && rows->type != LKS_OPT_END; ++rows) {
    lks_node *node = lks_node_child(map, rows->key);
    const size_t mark = lks_dotted_push(&b->at, rows->key);
    TRY(node != NULL ? bind_value(b, rows, node, target + rows->offset)
                     : bind_absent(b, rows, map, target + rows->offset));
    lks_dotted_pop(&b->at, mark);
  }
cleanup:
  return st;
}

lks_status lks_options_bind(const lks_option *options, lks_node *root, void *target,
                            lks_arena *arena, lks_error *err) {
  binder b = {.arena = arena, .err = err};
  return bind_rows(&b, options, root, NULL, false, target);
}
