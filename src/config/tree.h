/* The configuration as a tree of nodes: read from YAML events, changed by overrides, printed.
 *
 * Every node remembers file, line and column, so that any later check can say where. The tree
 * and its strings live in one arena. Not collective. */
#ifndef LKS_CONFIG_TREE_H
#define LKS_CONFIG_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/text.h"

#define LKS_TREE_MAX_DEPTH 16
#define LKS_TREE_MAX_NODES 100000
#define LKS_TREE_MAX_BYTES (1 << 20) /* of the file, and of its texts once expanded */
#define LKS_TREE_MAX_KEYS 1000       /* of one mapping */
#define LKS_TREE_MAX_KEY 128         /* bytes of one key */

typedef enum lks_node_kind { LKS_NODE_SCALAR, LKS_NODE_LIST, LKS_NODE_MAP } lks_node_kind;

typedef struct lks_node {
  lks_node_kind kind;
  const char *key;        /* name within the parent mapping; NULL in a list and at the root */
  const char *text;       /* scalar: its text, after ${NAME} expansion */
  bool quoted;            /* scalar was quoted: never null, number or boolean */
  const char *origin;     /* file name as given, or "command line" */
  const char *folder;     /* what relative paths of this node are relative to */
  int line, column;       /* from 1, of the key where there is one; 0 on the command line */
  struct lks_node *first; /* children in order */
  struct lks_node *next;  /* next sibling */
} lks_node;

/* Reads a YAML file. The root must be a mapping. Refused, with file, line and column (LKS_CONFIG):
 * syntax errors, repeated keys, anchors, aliases, tags, several documents, too deep, too large,
 * a file that is missing, empty or a folder, ${NAME} of an unset variable. ${NAME} is expanded in
 * values, quoted ones too; $${ stands for ${ itself. */
lks_status lks_tree_read(const char *path, lks_arena *arena, lks_node **root,
                         lks_error *err) LKS_MUST_USE;

/* The same from memory; origin and folder as in lks_node. */
lks_status lks_tree_parse(const char *text, size_t length, const char *origin, const char *folder,
                          lks_arena *arena, lks_node **root, lks_error *err) LKS_MUST_USE;

/* Makes an unquoted node of the given kind (text for scalars) with the place of `like`: origin,
 * folder, line and column (like may be NULL: none). key and text are copied. NULL: out of
 * memory. lks_node_append walks the siblings: not for long lists. */
lks_node *lks_node_new(lks_arena *arena, lks_node_kind kind, const char *key, const char *text,
                       const lks_node *like);
void lks_node_append(lks_node *parent, lks_node *child);

/* Child of a mapping by key, or element of a list by index; NULL where there is none. */
lks_node *lks_node_child(const lks_node *parent, const char *key);
lks_node *lks_node_item(const lks_node *parent, int index);
int lks_node_count(const lks_node *parent);

/* The node at a dotted name ("data.train.targets", "model.0.units": the layer's kind is left
 * out), or the nearest ancestor that exists. */
const lks_node *lks_node_find(const lks_node *root, const char *dotted);

/* Prints a tree as block YAML that lks_tree_parse reads back equal (strings quoted where needed,
 * ${ written as $${). */
void lks_tree_print(const lks_node *root, lks_text *out);

/* Calls visit(dotted name, value text, user) for every scalar, in order. An empty list or mapping
 * is visited as "[]" or "{}". Names are as in the tree: here a layer's kind is in them
 * ("model.0.dense.units"). */
void lks_tree_visit(const lks_node *root, void (*visit)(const char *, const char *, void *),
                    void *user);

/* Fails with LKS_CONFIG at a node: "FILE:LINE:COLUMN: KEY: message". dotted names the key. */
lks_status lks_node_fail(const lks_node *node, const char *dotted, lks_error *err,
                         const char *remedy, const char *format, ...) LKS_MUST_USE LKS_PRINTF(5, 6);

#endif
