/* From YAML events to the tree.
 *
 * Only the part of YAML that a configuration needs: one document of mappings, lists and scalars.
 * Anchors, aliases and tags are refused, so the tree is never larger than its text; depth, nodes,
 * keys and bytes are capped, so that no input takes long. ${NAME} is expanded in what comes from
 * files, never in values of the command line, where the shell has had its turn. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

#include "config/internal.h"

typedef struct frame {
  lks_node *node;
  lks_node *last; /* its last child */
  int count;      /* of its children */
} frame;

typedef struct builder {
  lks_arena *arena;
  lks_error *err;
  const char *text; /* the whole input: for messages */
  size_t length;
  lks_node place;   /* origin and folder of the nodes; line and column where `fixed` */
  bool fixed;       /* a value of the command line or of a table: not a file */
  const char *base; /* dotted name of the root */
  lks_node *root;
  frame stack[LKS_TREE_MAX_DEPTH];
  int depth;
  const char *key; /* read, and waiting for its value */
  yaml_mark_t key_mark;
  int nodes;
  size_t bytes; /* of expanded texts */
  int documents;
  lks_dotted dotted; /* scratch of fail_at */
} builder;

static void set_place(const builder *b, yaml_mark_t mark, lks_node *node) {
  node->origin = b->place.origin;
  node->folder = b->place.folder;
  node->line = b->fixed ? b->place.line : (int)mark.line + 1;
  node->column = b->fixed ? b->place.column : (int)mark.column + 1;
}

/* The dotted name of what is being read. */
static const char *name_here(builder *b) {
  lks_dotted_pop(&b->dotted, 0);
  (void)lks_dotted_push(&b->dotted, b->base);
  for (int i = 0; i < b->depth; ++i) {
    const frame *f = &b->stack[i];
    const bool top = i + 1 == b->depth;
    if (f->node->kind == LKS_NODE_LIST) {
      (void)lks_dotted_push_index(&b->dotted, top ? f->count : f->count - 1);
    } else if (!top || b->key != NULL) {
      (void)lks_dotted_push(&b->dotted, top ? b->key : f->last->key);
    }
  }
  return b->dotted.text;
}

static lks_status fail_at(builder *b, yaml_mark_t mark, const char *remedy, const char *format,
                          ...) LKS_MUST_USE LKS_PRINTF(4, 5);
static lks_status fail_at(builder *b, yaml_mark_t mark, const char *remedy, const char *format,
                          ...) {
  char message[sizeof b->err->what];
  lks_node node = {.kind = LKS_NODE_SCALAR};
  va_list arguments;
  va_start(arguments, format);
  if (vsnprintf(message, sizeof message, format, arguments) < 0) {
    message[0] = '\0';
  }
  va_end(arguments);
  set_place(b, mark, &node);
  return lks_node_fail(&node, name_here(b), b->err, remedy, "%s", message);
}

/* The beginning of a line, from 0; the text's end where it has fewer. */
static const char *find_line(const builder *b, size_t line) {
  const char *c = b->text;
  const char *end = b->text + b->length;
  for (; line > 0 && c < end; ++c) {
    line -= *c == '\n';
  }
  return c;
}

/* Tells a user whose line begins with a tab so: the library only says "any token". */
static bool line_has_tab(const builder *b, size_t line) {
  const char *c = find_line(b, line);
  const char *end = b->text + b->length;
  while (c < end && *c == ' ') {
    ++c;
  }
  return c < end && *c == '\t';
}

/* Whether there is a variable in it, whose braces are YAML's within a mapping in braces. */
static bool line_has_variable(const builder *b, size_t line) {
  const char *end = b->text + b->length;
  bool found = false;
  for (const char *c = find_line(b, line); c + 1 < end && *c != '\n'; ++c) {
    found = found || (c[0] == '$' && c[1] == '{');
  }
  return found;
}

static lks_status fail_syntax(builder *b, const yaml_parser_t *parser) {
  yaml_mark_t mark = parser->problem_mark;
  const char *problem = parser->problem != NULL ? parser->problem : "not YAML";
  if (parser->error == YAML_MEMORY_ERROR) {
    return lks_fail(b->err, LKS_NO_MEMORY, NULL, "out of memory reading %s", b->place.origin);
  }
  b->key = NULL; /* the place is exact, and the name may be of something before it */
  b->depth = 0;
  if (parser->error == YAML_READER_ERROR) {
    memset(&mark, 0, sizeof mark);
    for (size_t i = 0; i < parser->problem_offset && i < b->length; ++i) {
      mark.line += b->text[i] == '\n';
      mark.column = b->text[i] == '\n' ? 0 : mark.column + 1;
    }
    return fail_at(b, mark, "save the file as UTF-8 text", "not text: %s", problem);
  }
  const char *remedy = b->fixed ? "put quotes around the value" : "correct the YAML there";
  if (!b->fixed && line_has_tab(b, mark.line)) {
    remedy = "indent with spaces, not with tabs";
  } else if (!b->fixed && line_has_variable(b, mark.line)) {
    remedy = "put quotes around a value with a variable in it, as in \"${NAME}/x.h5\"";
  }
  return fail_at(b, mark, remedy, "%s%s%s", parser->context != NULL ? parser->context : "",
                 parser->context != NULL ? ": " : "", problem);
}

/* ---- ${NAME} */

static size_t name_length(const char *name) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
  static const char more[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
  return *name != '\0' && strchr(letters, *name) != NULL ? strspn(name, more) : 0;
}

/* Appends the value of the variable whose name begins at `name`, and moves *name past the '}'. */
static lks_status expand_name(builder *b, yaml_mark_t mark, const char **name, lks_text *out) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  const size_t length = name_length(*name);
  if (length == 0 || (*name)[length] != '}') {
    TRY(fail_at(b, mark, "write ${NAME}, or $${ for the characters ${ themselves",
                "'${' is not followed by a variable's name and '}'"));
  }
  const char *copy = lks_arena_copy_n(b->arena, *name, length);
  TRY_ALLOC(copy);
  const char *value = getenv(copy);
  if (value == NULL) {
    TRY(fail_at(b, mark, "set it, or write $${ for the characters ${ themselves",
                "the environment variable %s is not set", copy));
  }
  uint32_t point = 0;
  for (const char *c = value; *c != '\0';) {
    const size_t bytes = lks_utf8_decode(c, &point);
    if (bytes == 0) {
      TRY(fail_at(b, mark, "set it to UTF-8 text", "the environment variable %s is not UTF-8",
                  copy));
    }
    c += bytes;
  }
  lks_text_add(out, "%s", value);
  *name += length + 1;
cleanup:
  return st;
}

static lks_status expand(builder *b, yaml_mark_t mark, const char *text, const char **expanded) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  lks_text out = {0};
  while (*text != '\0') {
    if (strncmp(text, "$${", 3) == 0) {
      lks_text_add(&out, "${");
      text += 3;
    } else if (strncmp(text, "${", 2) == 0) {
      text += 2;
      TRY(expand_name(b, mark, &text, &out));
    } else {
      lks_text_add_n(&out, text, 1);
      ++text;
    }
    if (b->bytes + out.length > LKS_TREE_MAX_BYTES) {
      TRY(fail_at(b, mark, "use shorter variables", "the texts are larger than %d bytes",
                  LKS_TREE_MAX_BYTES));
    }
  }
  b->bytes += out.length;
  *expanded =
      out.failed ? NULL : lks_arena_copy_n(b->arena, out.data != NULL ? out.data : "", out.length);
  TRY_ALLOC(*expanded);
cleanup:
  lks_text_free(&out);
  return st;
}

/* ---- events */

static lks_status refuse_anchor_and_tag(builder *b, const yaml_event_t *event,
                                        const yaml_char_t *anchor, const yaml_char_t *tag) {
  if (anchor != NULL) {
    return fail_at(b, event->start_mark, "write the values out", "anchors (&%.40s) are not allowed",
                   (const char *)anchor);
  }
  if (tag != NULL) {
    return fail_at(b, event->start_mark, "remove it, or put quotes around a text",
                   "tags (%.40s) are not allowed", (const char *)tag);
  }
  return LKS_OK;
}

/* Puts a node below the innermost open one, or makes it the root. */
static lks_status attach(builder *b, lks_node *node, yaml_mark_t mark) {
  if (++b->nodes > LKS_TREE_MAX_NODES) {
    return fail_at(b, mark, "write fewer", "more than %d values", LKS_TREE_MAX_NODES);
  }
  set_place(b, b->key != NULL ? b->key_mark : mark, node);
  if (b->depth == 0) {
    b->root = node;
    return LKS_OK;
  }
  frame *top = &b->stack[b->depth - 1];
  node->key = b->key;
  b->key = NULL;
  *(top->last != NULL ? &top->last->next : &top->node->first) = node;
  top->last = node;
  ++top->count;
  return LKS_OK;
}

static bool expects_key(const builder *b) {
  return b->depth > 0 && b->stack[b->depth - 1].node->kind == LKS_NODE_MAP && b->key == NULL;
}

static lks_status on_key(builder *b, const yaml_event_t *event, const char *text, size_t length) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  frame *top = &b->stack[b->depth - 1];
  if (length == 0 || length > LKS_TREE_MAX_KEY) {
    TRY(fail_at(b, event->start_mark, "name the key", "a key has 1 to %d characters, this one %zu",
                LKS_TREE_MAX_KEY, length));
  }
  b->key = lks_arena_copy_n(b->arena, text, length);
  TRY_ALLOC(b->key);
  b->key_mark = event->start_mark;
  if (top->count == LKS_TREE_MAX_KEYS) {
    TRY(fail_at(b, event->start_mark, "write fewer", "more than %d keys in one mapping",
                LKS_TREE_MAX_KEYS));
  }
  const lks_node *first = lks_node_child(top->node, b->key);
  if (first != NULL) {
    st = fail_at(b, event->start_mark, NULL, "repeated key");
    if (first->line > 0) {
      lks_advise(err, "it stands in line %d already: remove one", first->line);
    } else {
      lks_advise(err, "remove one");
    }
  }
cleanup:
  return st;
}

static lks_status on_scalar(builder *b, const yaml_event_t *event) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  const char *text = (const char *)event->data.scalar.value;
  const size_t length = event->data.scalar.length;
  TRY(refuse_anchor_and_tag(b, event, event->data.scalar.anchor, event->data.scalar.tag));
  if (memchr(text, '\0', length) != NULL) {
    TRY(fail_at(b, event->start_mark, "remove it", "a text with a NUL character"));
  }
  if (expects_key(b)) {
    return on_key(b, event, text, length);
  }
  lks_node *node = lks_arena_alloc(b->arena, sizeof *node);
  TRY_ALLOC(node);
  node->kind = LKS_NODE_SCALAR;
  node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
  if (b->fixed) {
    node->text = lks_arena_copy_n(b->arena, text, length);
    TRY_ALLOC(node->text);
  } else {
    TRY(expand(b, event->start_mark, text, &node->text));
  }
  TRY(attach(b, node, event->start_mark));
cleanup:
  return st;
}

static lks_status on_open(builder *b, const yaml_event_t *event, lks_node_kind kind,
                          const yaml_char_t *anchor, const yaml_char_t *tag) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  TRY(refuse_anchor_and_tag(b, event, anchor, tag));
  if (expects_key(b)) {
    TRY(fail_at(b, event->start_mark, "write 'key: value'", "a key is a text, not a %s",
                kind == LKS_NODE_LIST ? "list" : "mapping"));
  }
  if (b->depth == LKS_TREE_MAX_DEPTH) {
    TRY(fail_at(b, event->start_mark, "nest less", "nested deeper than %d levels",
                LKS_TREE_MAX_DEPTH));
  }
  lks_node *node = lks_arena_alloc(b->arena, sizeof *node);
  TRY_ALLOC(node);
  node->kind = kind;
  TRY(attach(b, node, event->start_mark));
  b->stack[b->depth++] = (frame){.node = node};
cleanup:
  return st;
}

static lks_status on_event(builder *b, const yaml_event_t *event) {
  switch (event->type) {
  case YAML_DOCUMENT_START_EVENT:
    if (b->documents++ > 0) {
      return fail_at(b, event->start_mark, "keep one document a file", "a second document");
    }
    return LKS_OK;
  case YAML_ALIAS_EVENT:
    return fail_at(b, event->start_mark, "write the value out, or put quotes around a text",
                   "aliases (*%.40s) are not allowed", (const char *)event->data.alias.anchor);
  case YAML_SCALAR_EVENT:
    return on_scalar(b, event);
  case YAML_SEQUENCE_START_EVENT:
    return on_open(b, event, LKS_NODE_LIST, event->data.sequence_start.anchor,
                   event->data.sequence_start.tag);
  case YAML_MAPPING_START_EVENT:
    return on_open(b, event, LKS_NODE_MAP, event->data.mapping_start.anchor,
                   event->data.mapping_start.tag);
  case YAML_SEQUENCE_END_EVENT:
  case YAML_MAPPING_END_EVENT:
    --b->depth;
    return LKS_OK;
  default: /* starts and ends of the stream and of the document */
    return LKS_OK;
  }
}

static lks_status build(builder *b) {
  lks_status st = LKS_OK;
  lks_error *err = b->err;
  yaml_parser_t parser;
  if (!yaml_parser_initialize(&parser)) {
    return lks_fail(err, LKS_NO_MEMORY, NULL, "out of memory reading %s", b->place.origin);
  }
  yaml_parser_set_input_string(&parser, (const unsigned char *)b->text, b->length);
  bool done = false;
  while (!done) {
    yaml_event_t event;
    if (!yaml_parser_parse(&parser, &event)) {
      TRY(fail_syntax(b, &parser));
    }
    done = event.type == YAML_STREAM_END_EVENT;
    st = on_event(b, &event);
    yaml_event_delete(&event);
    TRY(st);
  }
cleanup:
  yaml_parser_delete(&parser);
  return st;
}

/* ---- what is read */

lks_status lks_tree_parse(const char *text, size_t length, const char *origin, const char *folder,
                          lks_arena *arena, lks_node **root, lks_error *err) {
  lks_status st = LKS_OK;
  builder b = {.arena = arena, .err = err, .text = text, .length = length, .base = ""};
  b.place.origin = lks_arena_copy(arena, origin);
  TRY_ALLOC(b.place.origin);
  TRY(lks_path_resolve(arena, NULL, folder != NULL ? folder : ".", &b.place.folder, err));
  if (length > LKS_TREE_MAX_BYTES) {
    FAIL(LKS_CONFIG, "keep data out of the configuration", "%s: larger than %d bytes", origin,
         LKS_TREE_MAX_BYTES);
  }
  TRY(build(&b));
  if (b.root == NULL || lks_node_is_null(b.root)) {
    FAIL(LKS_CONFIG, "write the configuration into it, or give another file", "%s: empty", origin);
  }
  if (b.root->kind != LKS_NODE_MAP) {
    TRY(lks_node_fail(b.root, "", err, "begin with a line such as 'data:'",
                      "expects a mapping of keys, got a %s",
                      b.root->kind == LKS_NODE_LIST ? "list" : "text"));
  }
  *root = b.root;
cleanup:
  return st;
}

lks_status lks_tree_value(const char *text, const char *dotted, const lks_node *like,
                          lks_arena *arena, lks_node **value, lks_error *err) {
  lks_status st = LKS_OK;
  builder b = {.arena = arena, .err = err, .text = text, .length = strlen(text), .fixed = true};
  b.place = *like;
  b.base = dotted;
  TRY(build(&b));
  if (b.root == NULL) {
    b.root = lks_node_new(arena, LKS_NODE_SCALAR, NULL, "", like);
    TRY_ALLOC(b.root);
    b.root->quoted = true;
  }
  *value = b.root;
cleanup:
  return st;
}

static lks_status read_whole(FILE *file, const char *path, char *buffer, size_t *length,
                             lks_error *err) {
  struct stat info;
  if (fstat(fileno(file), &info) == 0 && S_ISDIR(info.st_mode)) {
    return lks_fail(err, LKS_CONFIG, "give a YAML file", "%s: is a folder", path);
  }
  errno = 0;
  *length = fread(buffer, 1, LKS_TREE_MAX_BYTES + 1, file);
  if (ferror(file)) {
    return lks_fail(err, LKS_CONFIG, "check the file", "%s: cannot be read (%s)", path,
                    strerror(errno));
  }
  return LKS_OK;
}

lks_status lks_tree_read(const char *path, lks_arena *arena, lks_node **root, lks_error *err) {
  lks_status st = LKS_OK;
  char *buffer = NULL;
  size_t length = 0;
  FILE *file = fopen(path, "rb");
  if (file == NULL && errno == ENOENT) {
    const char *whole = NULL; /* no name is right in a folder that is gone */
    TRY(lks_path_resolve(arena, NULL, path, &whole, err));
    FAIL(LKS_CONFIG, "check the name", "%s: no such file", path);
  }
  if (file == NULL) {
    FAIL(LKS_CONFIG, "check its name and permissions", "%s: cannot be opened (%s)", path,
         strerror(errno));
  }
  buffer = malloc(LKS_TREE_MAX_BYTES + 1);
  TRY_ALLOC(buffer);
  TRY(read_whole(file, path, buffer, &length, err));
  const char *folder = lks_path_folder(arena, path);
  TRY_ALLOC(folder);
  TRY(lks_tree_parse(buffer, length, path, folder, arena, root, err));
cleanup:
  free(buffer);
  if (file != NULL) {
    (void)fclose(file); /* only read from: nothing to lose */
  }
  return st;
}
