/* What the files of config/ share and nobody else includes: dotted names, looking rows and kinds
 * up, the words of common errors, and values written as one line of YAML. */
#ifndef LKS_CONFIG_INTERNAL_H
#define LKS_CONFIG_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/option.h"
#include "config/tree.h"

/* The key that selects the kind in a CHOICE's mapping. */
#define LKS_KIND_KEY "name"

/* ---- dotted names, built while walking (tree.c) */

/* Room for the deepest tree with the longest keys; longer names are cut. */
#define LKS_DOTTED_MAX (LKS_TREE_MAX_DEPTH * (LKS_TREE_MAX_KEY + 1) + 1)

typedef struct lks_dotted {
  char text[LKS_DOTTED_MAX]; /* always NUL-terminated */
  size_t length;
} lks_dotted;

/* Appends ".key" (or ".index"), and gives the length to which lks_dotted_pop goes back. */
size_t lks_dotted_push(lks_dotted *dotted, const char *key);
size_t lks_dotted_push_index(lks_dotted *dotted, int index);
void lks_dotted_pop(lks_dotted *dotted, size_t length);

/* ---- nodes */

/* An unquoted scalar that YAML reads as null: nothing, ~ or null. */
bool lks_node_is_null(const lks_node *node);

/* The child whose key is the first `length` bytes of key. */
lks_node *lks_node_child_n(const lks_node *parent, const char *key, size_t length);

/* Reads a value written on one line: YAML, without ${NAME} and of any kind; nothing at all is the
 * empty text. Nodes get the place of `like`; dotted names the key in messages. */
lks_status lks_tree_value(const char *text, const char *dotted, const lks_node *like,
                          lks_arena *arena, lks_node **value, lks_error *err) LKS_MUST_USE;

/* ---- rows and kinds (rows.c) */

const lks_option *lks_row_find(const lks_option *rows, const char *key);
const lks_kind *lks_kind_find(const lks_kind *const *kinds, const char *name);

/* The mapping {name: text} in place of a scalar. */
lks_status lks_node_name_kind(lks_node *node, lks_arena *arena, lks_error *err) LKS_MUST_USE;

/* The mapping {text: {}} in place of a scalar: a layer without options. */
lks_status lks_node_name_layer(lks_node *node, lks_arena *arena, lks_error *err) LKS_MUST_USE;

/* Bounds of a row's number or count. */
bool lks_row_has_min(const lks_option *row);
bool lks_row_has_max(const lks_option *row);
bool lks_row_in_range(const lks_option *row, double value);

/* "from 1 to 10", "above 0 and at most 1", "at least 1", ...; "" where anything goes. */
#define LKS_RANGE_MAX 96
char *lks_row_range(const lks_option *row, char out[LKS_RANGE_MAX]);

/* The fallback as a node with the place of `like`. The row has one, or is a group or list. */
lks_status lks_row_default(const lks_option *row, const char *dotted, const lks_node *like,
                           lks_arena *arena, lks_node **node, lks_error *err) LKS_MUST_USE;

/* Appends the row's words, the kinds' names, or the rows' keys, separated by ", ". */
void lks_list_words(const char *const *words, lks_text *out);
void lks_list_kinds(const lks_kind *const *kinds, lks_text *out);
void lks_list_keys(const lks_option *rows, lks_text *out);

/* ---- errors that several files give; all return LKS_CONFIG or LKS_NO_MEMORY */

/* A key that rows don't have. kind: whose rows they are, or NULL. */
lks_status lks_fail_unknown_key(const lks_node *node, const char *dotted, const char *key,
                                const lks_option *rows, const lks_kind *kind,
                                lks_error *err) LKS_MUST_USE;

/* A kind that is not in the list. */
lks_status lks_fail_unknown_kind(const lks_node *node, const char *dotted, const char *name,
                                 const lks_kind *const *kinds, lks_error *err) LKS_MUST_USE;

/* A choice's mapping that does not say its kind. */
lks_status lks_fail_unnamed_kind(const lks_node *node, const char *dotted,
                                 const lks_kind *const *kinds, lks_error *err) LKS_MUST_USE;

/* A node of the wrong form: "expects WHAT, got a list". */
lks_status lks_fail_form(const lks_node *node, const char *dotted, const char *what,
                         const char *remedy, lks_error *err) LKS_MUST_USE;

lks_status lks_fail_null(const lks_node *node, const char *dotted, lks_error *err) LKS_MUST_USE;
lks_status lks_fail_later(const lks_node *node, const char *dotted, lks_error *err) LKS_MUST_USE;

/* The kind of one entry of a LAYERS list, whose node becomes {kind: {...}}; *options is the
 * mapping of the kind's options. */
lks_status lks_layer_entry(lks_node *node, const char *dotted, const lks_kind *const *kinds,
                           lks_arena *arena, const lks_kind **kind, lks_node **options,
                           lks_error *err) LKS_MUST_USE;

#endif
