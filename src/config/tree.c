/* Nodes of the configuration tree: making, finding and visiting them, and failing at one. */
#include "config/tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/internal.h"

lks_node *lks_node_new(lks_arena *arena, lks_node_kind kind, const char *key, const char *text,
                       const lks_node *like) {
  lks_node *node = lks_arena_alloc(arena, sizeof *node);
  if (node == NULL) {
    return NULL;
  }
  node->kind = kind;
  if (key != NULL && (node->key = lks_arena_copy(arena, key)) == NULL) {
    return NULL;
  }
  if (kind == LKS_NODE_SCALAR &&
      (node->text = lks_arena_copy(arena, text != NULL ? text : "")) == NULL) {
    return NULL;
  }
  if (like != NULL) {
    node->origin = like->origin;
    node->folder = like->folder;
    node->line = like->line;
    node->column = like->column;
  }
  return node;
}

void lks_node_append(lks_node *parent, lks_node *child) {
  lks_node **end = &parent->first;
  while (*end != NULL) {
    end = &(*end)->next;
  }
  *end = child;
}

lks_node *lks_node_child_n(const lks_node *parent, const char *key, size_t length) {
  if (parent == NULL || parent->kind != LKS_NODE_MAP) {
    return NULL;
  }
  for (lks_node *child = parent->first; child != NULL; child = child->next) {
    if (strncmp(child->key, key, length) == 0 && child->key[length] == '\0') {
      return child;
    }
  }
  return NULL;
}

lks_node *lks_node_child(const lks_node *parent, const char *key) {
  return lks_node_child_n(parent, key, strlen(key));
}

lks_node *lks_node_item(const lks_node *parent, int index) {
  if (parent == NULL || parent->kind != LKS_NODE_LIST || index < 0) {
    return NULL;
  }
  lks_node *item = parent->first;
  while (item != NULL && index > 0) {
    item = item->next;
    --index;
  }
  return item;
}

int lks_node_count(const lks_node *parent) {
  int count = 0;
  for (const lks_node *child = parent != NULL ? parent->first : NULL; child != NULL;
       child = child->next) {
    ++count;
  }
  return count;
}

bool lks_node_is_null(const lks_node *node) {
  if (node->kind != LKS_NODE_SCALAR || node->quoted) {
    return false;
  }
  static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
  for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; ++i) {
    if (strcmp(node->text, nulls[i]) == 0) {
      return true;
    }
  }
  return false;
}

/* The element whose index is written in the first `length` bytes of digits. */
static const lks_node *item_n(const lks_node *list, const char *digits, size_t length) {
  char text[16];
  int64_t index = 0;
  if (length >= sizeof text) {
    return NULL;
  }
  memcpy(text, digits, length);
  text[length] = '\0';
  if (!lks_parse_int64(text, &index) || index < 0 || index > LKS_TREE_MAX_NODES) {
    return NULL;
  }
  return lks_node_item(list, (int)index);
}

/* One step of a dotted name. An element {kind: {...}} of a list is a layer: its options come
 * first, for a kind may have an option of its own name (activation). */
static const lks_node *step(const lks_node *node, bool element, const char *name, size_t length) {
  if (node->kind == LKS_NODE_LIST) {
    return item_n(node, name, length);
  }
  const lks_node *next = NULL;
  if (element && node->kind == LKS_NODE_MAP && lks_node_count(node) == 1) {
    next = lks_node_child_n(node->first, name, length);
  }
  return next != NULL ? next : lks_node_child_n(node, name, length);
}

const lks_node *lks_node_find(const lks_node *root, const char *dotted) {
  const lks_node *node = root;
  bool element = false;
  while (node != NULL && *dotted != '\0') {
    const size_t length = strcspn(dotted, ".");
    const lks_node *next = step(node, element, dotted, length);
    if (next == NULL) {
      break;
    }
    element = node->kind == LKS_NODE_LIST;
    node = next;
    dotted += length;
    dotted += *dotted == '.';
  }
  return node;
}

static void visit_node(const lks_node *node, lks_dotted *name,
                       void (*visit)(const char *, const char *, void *), void *user) {
  if (node->kind == LKS_NODE_SCALAR) {
    visit(name->text, node->text, user);
    return;
  }
  if (node->first == NULL) {
    visit(name->text, node->kind == LKS_NODE_LIST ? "[]" : "{}", user);
    return;
  }
  int index = 0;
  for (const lks_node *child = node->first; child != NULL; child = child->next) {
    const size_t mark = node->kind == LKS_NODE_LIST ? lks_dotted_push_index(name, index++)
                                                    : lks_dotted_push(name, child->key);
    visit_node(child, name, visit, user);
    lks_dotted_pop(name, mark);
  }
}

void lks_tree_visit(const lks_node *root, void (*visit)(const char *, const char *, void *),
                    void *user) {
  lks_dotted name = {.length = 0};
  visit_node(root, &name, visit, user);
}

lks_status lks_node_fail(const lks_node *node, const char *dotted, lks_error *err,
                         const char *remedy, const char *format, ...) {
  char message[sizeof err->what];
  va_list arguments;
  va_start(arguments, format);
  if (vsnprintf(message, sizeof message, format, arguments) < 0) {
    message[0] = '\0';
  }
  va_end(arguments);

  const bool named = dotted != NULL && *dotted != '\0';
  const char *name = named ? dotted : "";
  const char *colon = named ? ": " : "";
  if (node == NULL || node->origin == NULL) {
    return lks_fail(err, LKS_CONFIG, remedy, "%s%s%s", name, colon, message);
  }
  if (node->line == 0) {
    return lks_fail(err, LKS_CONFIG, remedy, "%s: %s%s%s", node->origin, name, colon, message);
  }
  return lks_fail(err, LKS_CONFIG, remedy, "%s:%d:%d: %s%s%s", node->origin, node->line,
                  node->column, name, colon, message);
}

size_t lks_dotted_push(lks_dotted *dotted, const char *key) {
  const size_t mark = dotted->length;
  const size_t room = sizeof dotted->text - mark;
  const int added =
      snprintf(dotted->text + mark, room, "%s%s", mark > 0 && *key != '\0' ? "." : "", key);
  if (added > 0) {
    dotted->length += (size_t)added < room ? (size_t)added : room - 1;
  }
  return mark;
}

size_t lks_dotted_push_index(lks_dotted *dotted, int index) {
  char digits[16];
  if (snprintf(digits, sizeof digits, "%d", index) < 0) {
    digits[0] = '\0';
  }
  return lks_dotted_push(dotted, digits);
}

void lks_dotted_pop(lks_dotted *dotted, size_t length) {
  dotted->length = length;
  dotted->text[length] = '\0';
}
