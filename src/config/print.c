/* Printing a tree as block YAML.
 *
 * Invariant: what is printed reads back as the same tree. A text is written plain only where no
 * YAML reader could take it for anything else; every other text is double-quoted, and characters
 * that YAML refuses or folds are escaped. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "config/internal.h"

/* Code points that stand for themselves between double quotes. */
static bool is_printable(uint32_t c) {
  if (c == '"' || c == '\\' || c < 0x20 || (c >= 0x7f && c <= 0x9f)) {
    return false;
  }
  return c != 0x2028 && c != 0x2029 && c != 0xfeff && c != 0xfffe && c != 0xffff;
}

static void print_escape(uint32_t c, lks_text *out) {
  if (c == '"' || c == '\\') {
    lks_text_add(out, "\\%c", (int)c);
  } else if (c == '\n') {
    lks_text_add(out, "\\n");
  } else if (c == '\t') {
    lks_text_add(out, "\\t");
  } else if (c <= 0xff) {
    lks_text_add(out, "\\x%02x", (unsigned)c);
  } else {
    lks_text_add(out, "\\u%04x", (unsigned)c);
  }
}

static void print_quoted(const char *text, bool value, lks_text *out) {
  lks_text_add(out, "\"");
  while (*text != '\0') {
    uint32_t c = 0;
    const size_t length = lks_utf8_decode(text, &c);
    if (value && text[0] == '$' && text[1] == '{') {
      lks_text_add(out, "$"); /* the reader takes $${ for ${ */
    }
    if (length > 0 && !is_printable(c)) {
      print_escape(c, out);
    } else {
      lks_text_add_n(out, text, length > 0 ? length : 1);
    }
    text += length > 0 ? length : 1;
  }
  lks_text_add(out, "\"");
}

/* Words that YAML 1.1 or 1.2 reads as null or boolean. */
static bool is_reserved(const char *text) {
  static const char *const reserved[] = {"null", "true", "false", "yes", "no",
                                         "on",   "off",  "y",     "n"};
  for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; ++i) {
    if (strcasecmp(text, reserved[i]) == 0) {
      return true;
    }
  }
  return false;
}

/* True when the text may stand without quotes. is_text: it must not read as a number, boolean or
 * null; otherwise it is one of these and must stay it. */
static bool is_plain(const char *text, bool is_text) {
  const unsigned char first = (unsigned char)text[0];
  for (const char *c = text; *c != '\0'; ++c) {
    if (!isalnum((unsigned char)*c) && strchr("_./+-", *c) == NULL) {
      return false;
    }
  }
  if (is_text) {
    return (isalpha(first) || first == '_' || first == '/') && !is_reserved(text);
  }
  return isalnum(first) || first == '_' || first == '/' ||
         (first != '\0' && (isdigit((unsigned char)text[1]) || text[1] == '.'));
}

static void print_scalar(const lks_node *node, lks_text *out) {
  if (lks_node_is_null(node) || is_plain(node->text, node->quoted)) {
    lks_text_add(out, "%s", node->text);
  } else {
    print_quoted(node->text, true, out);
  }
}

static void print_children(const lks_node *node, int indent, bool begun, lks_text *out);

/* The rest of a line after "key:" or "-", and what stands below it. */
static void print_value(const lks_node *node, int indent, bool in_list, lks_text *out) {
  if (node->kind == LKS_NODE_SCALAR) {
    lks_text_add(out, " ");
    print_scalar(node, out);
    lks_text_add(out, "\n");
  } else if (node->first == NULL) {
    lks_text_add(out, node->kind == LKS_NODE_LIST ? " []\n" : " {}\n");
  } else if (in_list) {
    lks_text_add(out, " ");
    print_children(node, indent + 2, true, out);
  } else {
    lks_text_add(out, "\n");
    print_children(node, indent + 2, false, out);
  }
}

/* begun: the first child continues the line of the "- " that it is in. */
static void print_children(const lks_node *node, int indent, bool begun, lks_text *out) {
  for (const lks_node *child = node->first; child != NULL; child = child->next) {
    lks_text_add(out, "%*s", begun ? 0 : indent, "");
    begun = false;
    if (node->kind == LKS_NODE_LIST) {
      lks_text_add(out, "-");
    } else if (is_plain(child->key, true)) {
      lks_text_add(out, "%s:", child->key);
    } else {
      print_quoted(child->key, false, out);
      lks_text_add(out, ":");
    }
    print_value(child, indent, node->kind == LKS_NODE_LIST, out);
  }
}

void lks_tree_print(const lks_node *root, lks_text *out) {
  if (root->kind == LKS_NODE_SCALAR) {
    print_scalar(root, out);
    lks_text_add(out, "\n");
  } else if (root->first == NULL) {
    lks_text_add(out, root->kind == LKS_NODE_LIST ? "[]\n" : "{}\n");
  } else {
    print_children(root, 0, false, out);
  }
}
