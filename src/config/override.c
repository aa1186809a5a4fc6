/* KEY=VALUE of the command line, applied to the tree before it is bound.
 *
 * The walk follows rows and nodes side by side: what a dotted name passes on its way (absent
 * mappings, scalars that stand for mappings, short forms) is first written out in full. Values
 * are checked later, when the tree is bound; names are checked here. */
#include <stdio.h>
#include <string.h>

#include "config/internal.h"

typedef struct walk {
  lks_arena *arena;
  lks_error *err;
  lks_node place; /* of new nodes: the command line */
  lks_node *value;
  const char *rest; /* the dotted name still to go, "" at the end */
  lks_dotted at;    /* what was passed */
} walk;

static lks_status walk_row(walk *w, const lks_option *row, lks_node *node);

/* Takes the next component of the name. */
static lks_status next_name(walk *w, const char **name) {
  lks_status st = LKS_OK;
  lks_error *err = w->err;
  const size_t length = strcspn(w->rest, ".");
  *name = lks_arena_copy_n(w->arena, w->rest, length);
  TRY_ALLOC(*name);
  w->rest += length;
  w->rest += *w->rest == '.';
  (void)lks_dotted_push(&w->at, *name);
cleanup:
  return st;
}

static bool at_end(const walk *w) {
  return *w->rest == '\0';
}

/* The value takes the node's place under its key. */
static void put(walk *w, lks_node *node) {
  lks_node *next = node->next;
  const char *key = node->key;
  *node = *w->value;
  node->key = key;
  node->next = next;
}

static lks_status add_child(walk *w, lks_node *map, const char *key, lks_node *child) {
  lks_status st = LKS_OK;
  lks_error *err = w->err;
  child->key = lks_arena_copy(w->arena, key);
  TRY_ALLOC(child->key);
  lks_node_append(map, child);
cleanup:
  return st;
}

/* Steps into a mapping with these rows. */
static lks_status walk_rows(walk *w, const lks_option *rows, const lks_kind *kind, lks_node *map) {
  lks_status st = LKS_OK;
  lks_error *err = w->err;
  const char *key = NULL;
  TRY(next_name(w, &key));
  const lks_option *row = lks_row_find(rows, key);
  if (row == NULL) {
    TRY(lks_fail_unknown_key(&w->place, w->at.text, key, rows, kind, err));
  }
  if (row->type == LKS_OPT_LATER) {
    TRY(lks_fail_later(&w->place, w->at.text, err));
  }
  lks_node *child = lks_node_child(map, key);
  if (child == NULL && at_end(w)) {
    TRY(add_child(w, map, key, w->value));
  } else if (child == NULL) {
    TRY(lks_row_default(row, w->at.text, &w->place, w->arena, &child, err));
    TRY(add_child(w, map, key, child));
    TRY(walk_row(w, row, child));
  } else if (at_end(w)) {
    put(w, child);
  } else {
    TRY(walk_row(w, row, child));
  }
cleanup:
  return st;
}

/* NAME=VALUE of a choice: another kind takes no option of the old one along. */
static lks_status put_kind(walk *w, lks_node *map) {
  lks_node *name = lks_node_child(map, LKS_KIND_KEY);
  if (name == NULL) {
    return add_child(w, map, LKS_KIND_KEY, w->value);
  }
  const bool same = name->kind == LKS_NODE_SCALAR && w->value->kind == LKS_NODE_SCALAR &&
                    strcmp(name->text, w->value->text) == 0;
  put(w, name);
  if (!same) {
    map->first = name;
    name->next = NULL;
  }
  return LKS_OK;
}

/* Steps into a choice: its kind's name, or one of the kind's rows. */
static lks_status walk_choice(walk *w, const lks_option *row, lks_node *node) {
  lks_status st = LKS_OK;
  lks_error *err = w->err;
  if (lks_node_is_null(node)) {
    TRY(lks_fail_null(node, w->at.text, err));
  }
  if (node->kind == LKS_NODE_SCALAR) {
    TRY(lks_node_name_kind(node, w->arena, err));
  }
  if (node->kind == LKS_NODE_LIST) {
    TRY(lks_fail_form(node, w->at.text, "a name or a mapping with 'name'", "choose one", err));
  }
  if (strcmp(w->rest, LKS_KIND_KEY) == 0) {
    return put_kind(w, node);
  }
  const lks_node *name = lks_node_child(node, LKS_KIND_KEY);
  if (name == NULL || name->kind != LKS_NODE_SCALAR) {
    TRY(lks_fail_unnamed_kind(node, w->at.text, row->kinds, err));
  }
  const lks_kind *kind = lks_kind_find(row->kinds, name->text);
  if (kind == NULL) {
    TRY(lks_fail_unknown_kind(name, w->at.text, name->text, row->kinds, err));
  }
  TRY(walk_rows(w, kind->options, kind, node));
cleanup:
  return st;
}

static lks_status walk_layer(walk *w, const lks_option *row, lks_node *node) {
  lks_status st = LKS_OK;
  lks_error *err = w->err;
  const lks_kind *kind = NULL;
  lks_node *options = NULL;
  TRY(lks_layer_entry(node, w->at.text, row->kinds, w->arena, &kind, &options, err));
  TRY(walk_rows(w, kind->options, kind, options));
cleanup:
  return st;
}

/* Steps into a list by index. */
static lks_status walk_list(walk *w, const lks_option *row, lks_node *list) {
  lks_status st = LKS_OK;
  lks_error *err = w->err;
  const char *digits = NULL;
  int64_t index = 0;
  if (list->kind == LKS_NODE_SCALAR && row->type == LKS_OPT_TEXTS) { /* a name: a list of one */
    lks_node *item = lks_node_new(w->arena, LKS_NODE_SCALAR, NULL, list->text, list);
    TRY_ALLOC(item);
    item->quoted = list->quoted;
    list->kind = LKS_NODE_LIST;
    list->first = list->text[0] != '\0' ? item : NULL;
  }
  if (list->kind != LKS_NODE_LIST) {
    TRY(lks_fail_form(list, w->at.text, "a list", "correct it there first", err));
  }
  const int count = lks_node_count(list);
  TRY(next_name(w, &digits));
  if (!lks_parse_int64(digits, &index) || index < 0) {
    TRY(lks_node_fail(&w->place, w->at.text, err, "number the elements from 0",
                      "expects the index of an element, got '%.60s'", digits));
  }
  if (index >= count) {
    TRY(lks_node_fail(&w->place, w->at.text, err, "elements are numbered from 0",
                      "no such element: the list has %d", count));
  }
  lks_node *item = lks_node_item(list, (int)index);
  if (at_end(w)) {
    put(w, item);
  } else if (row->type == LKS_OPT_LAYERS) {
    TRY(walk_layer(w, row, item));
  } else if (row->type == LKS_OPT_CHOICES) {
    TRY(walk_choice(w, row, item));
  } else {
    TRY(lks_node_fail(&w->place, w->at.text, err, "leave out what follows it",
                      "a name has no keys below it"));
  }
cleanup:
  return st;
}

/* A key of a row's short form (divide: 255) is none of its rows. The row writes it out, and what
 * comes of it replaces what was there: of a group the keys it names, of a choice all. */
static lks_status walk_short_form(walk *w, const lks_option *row, lks_node *node, bool *done) {
  lks_status st = LKS_OK;
  lks_error *err = w->err;
  *done = false;
  if (row->expand == NULL || node->kind == LKS_NODE_LIST || strchr(w->rest, '.') != NULL) {
    goto cleanup;
  }
  lks_node *form = lks_node_new(w->arena, LKS_NODE_MAP, NULL, NULL, &w->place);
  TRY_ALLOC(form);
  TRY(add_child(w, form, w->rest, w->value));
  TRY(row->expand(form, w->at.text, w->arena, err));
  if (lks_node_child(form, w->rest) != NULL) { /* not a short form */
    goto cleanup;
  }
  *done = true;
  if (row->type != LKS_OPT_GROUP || node->kind != LKS_NODE_MAP) {
    w->value = form;
    put(w, node);
    goto cleanup;
  }
  for (lks_node *child = form->first, *next = NULL; child != NULL; child = next) {
    lks_node *old = lks_node_child(node, child->key);
    next = child->next;
    w->value = child;
    if (old != NULL) {
      put(w, old);
    } else {
      child->next = NULL;
      lks_node_append(node, child);
    }
  }
cleanup:
  return st;
}

/* Goes on below the node of a row; the name has not ended. */
static lks_status walk_row(walk *w, const lks_option *row, lks_node *node) {
  lks_status st = LKS_OK;
  lks_error *err = w->err;
  bool done = false;
  if (lks_node_is_null(node)) {
    TRY(lks_fail_null(node, w->at.text, err));
  }
  if (row->expand != NULL) {
    TRY(row->expand(node, w->at.text, w->arena, err));
  }
  TRY(walk_short_form(w, row, node, &done));
  if (done) {
    goto cleanup;
  }
  switch (row->type) {
  case LKS_OPT_GROUP:
    if (node->kind != LKS_NODE_MAP) {
      TRY(lks_fail_form(node, w->at.text, "a mapping", "correct it there first", err));
    }
    TRY(walk_rows(w, row->options, NULL, node));
    break;
  case LKS_OPT_CHOICE:
    TRY(walk_choice(w, row, node));
    break;
  case LKS_OPT_TEXTS:
  case LKS_OPT_CHOICES:
  case LKS_OPT_LAYERS:
    TRY(walk_list(w, row, node));
    break;
  default:
    TRY(lks_node_fail(&w->place, w->at.text, err, "leave out what follows it",
                      "has no keys below it"));
  }
cleanup:
  return st;
}

lks_status lks_options_override(const lks_option *options, lks_node *root, const char *assignment,
                                const char *folder, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  walk w = {.arena = arena, .err = err, .place = {.origin = "command line"}};
  const char *equals = strchr(assignment, '=');
  if (equals == NULL || equals == assignment || equals[-1] == '.') {
    FAIL(LKS_CONFIG, "write KEY=VALUE, as in train.epochs=3",
         "command line: '%.200s' is no assignment", assignment);
  }
  if (strstr(equals, " #") != NULL && strchr("[{\"'", equals[1]) == NULL) {
    FAIL(LKS_CONFIG, "quote the value once more: KEY='\"a #b\"'",
         "command line: '%.200s': what follows ' #' would be left out, as a comment of YAML",
         assignment);
  }
  TRY(lks_path_resolve(arena, NULL, folder != NULL ? folder : ".", &w.place.folder, err));
  w.rest = lks_arena_copy_n(arena, assignment, (size_t)(equals - assignment));
  TRY_ALLOC(w.rest);
  TRY(lks_tree_value(equals + 1, w.rest, &w.place, arena, &w.value, err));
  TRY(walk_rows(&w, options, NULL, root));
cleanup:
  return st;
}
