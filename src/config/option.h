/* Option rows: the one table from which parser, overrides, help, the reference page and the
 * stored configuration all come. Each module owns the rows of its own struct.
 *
 * A row binds one key to one member by offset. Rows nest: a group is a mapping with rows of its
 * own, a choice a mapping whose `name` selects a kind, and each kind carries its own rows. */
#ifndef LKS_CONFIG_OPTION_H
#define LKS_CONFIG_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/tree.h"

typedef struct lks_option lks_option;

/* One alternative of a choice. Tables embed it as first member of larger rows (a layer's row),
 * so a `const lks_kind *` can be cast back to its row. */
typedef struct lks_kind {
  const char *name;
  const char *help;          /* one line */
  const lks_option *options; /* rows with offsets into the struct that holds the choice, or NULL */
} lks_kind;

typedef enum lks_option_type {
  LKS_OPT_END = 0,  /* ends a table */
  LKS_OPT_BOOL,     /* bool */
  LKS_OPT_INT,      /* int64_t in [min, max] */
  LKS_OPT_REAL,     /* double in [min, max] */
  LKS_OPT_TEXT,     /* const char *; fallback "" means empty */
  LKS_OPT_PATH,     /* const char *: made absolute from the node's folder; "" stays "" */
  LKS_OPT_WORD,     /* int: index into words */
  LKS_OPT_DURATION, /* double, seconds, >= 0 */
  LKS_OPT_BYTES,    /* int64_t, >= 0 */
  LKS_OPT_TEXTS,    /* lks_texts: a name or a list of names */
  LKS_OPT_GROUP,    /* struct described by `options`; with OPTIONAL it starts with a bool
                       `present`, false (and every member at its default) when the key is absent */
  LKS_OPT_CHOICE,   /* struct whose first member is `const lks_kind *kind` */
  LKS_OPT_CHOICES,  /* lks_choices: a list of such structs (metrics: [accuracy]) */
  LKS_OPT_LAYERS,   /* lks_choices: a list written `- dense: {units: 8}` or `- dense` */
  LKS_OPT_LATER,    /* a key of a later version: refused as "not in this version" */
} lks_option_type;

#define LKS_OPTION_OPTIONAL 1u  /* may be absent although it has no fallback: zero, "" or empty */
#define LKS_OPTION_ABOVE_MIN 2u /* min itself is excluded */
#define LKS_OPTION_BELOW_MAX 4u /* max itself is excluded */
#define LKS_OPTION_RESUME 8u    /* may change when a run resumes; inherited by nested rows */
#define LKS_OPTION_HIDDEN 16u   /* effective configuration leaves it out at its default */

typedef struct lks_choices {
  void *items; /* count elements of element_bytes each, in the arena */
  int count;
  size_t element_bytes;
} lks_choices;

struct lks_option {
  const char *key;
  lks_option_type type;
  size_t offset;        /* of the member in the struct */
  const char *fallback; /* default, as text; NULL: required, unless OPTIONAL. "{}" for groups whose
                           members all have defaults. For numbers the fallback may be one of
                           `words`, see there. "[]" for an empty list. */
  double min, max;      /* numbers: allowed range; max 0 with min 0: unbounded (but ABOVE_MIN
                           keeps the lower bound, BELOW_MAX the upper); max below min: no upper
                           bound. TEXTS, CHOICES, LAYERS: allowed count */
  unsigned flags;
  const char *const *words;     /* WORD: NULL-terminated. INT and REAL: words[i] is stored as
                                   -1 - i (such as "auto"), outside the range */
  const lks_option *options;    /* GROUP: its rows */
  const lks_kind *const *kinds; /* CHOICE, CHOICES, LAYERS: NULL-terminated */
  size_t element_bytes;         /* CHOICES, LAYERS: size of an element */
  const char *unit;             /* "s", "rows", "bytes", ...; NULL: none */
  const char *help;             /* one line */
  /* Rewrites a short form in place into the full one before binding (0.1 -> {fraction: 0.1});
   * NULL: none. A scalar for a CHOICE is expanded to {name: scalar} without it. It sees any node
   * but null, may see the same one twice, and leaves what is no short form as it is. */
  lks_status (*expand)(lks_node *node, const char *dotted, lks_arena *arena, lks_error *err);
};

/* Binds a tree to a struct: every key checked and stored, defaults filled in. Unknown keys give
 * the nearest known one. target is the struct that the rows' offsets refer to; texts and lists
 * it points to live in arena. Errors: LKS_CONFIG with file, line, column, key and what is
 * allowed. */
lks_status lks_options_bind(const lks_option *options, lks_node *root, void *target,
                            lks_arena *arena, lks_error *err) LKS_MUST_USE;

/* Applies KEY=VALUE to the tree, before binding. VALUE is parsed as YAML flow, so
 * "metrics=[accuracy, mae]" works. Makes missing mappings, expands scalars and short forms on the
 * way, takes a short form's key (data.scaling.divide) for what it stands for, skips the layer's
 * kind (model.0.units). Relative paths in VALUE are relative to folder. An unknown key is an error
 * here already (LKS_CONFIG), naming the nearest. */
lks_status lks_options_override(const lks_option *options, lks_node *root, const char *assignment,
                                const char *folder, lks_arena *arena, lks_error *err) LKS_MUST_USE;

/* The struct as a tree: the effective configuration, every key with its value; absent optional
 * groups left out. Binding it again gives the same struct. NULL when memory is out. */
lks_node *lks_options_emit(const lks_option *options, const void *source, lks_arena *arena);

/* Appends the rows as a reference: Markdown (docs/options.md) or plain text for --help. */
void lks_options_reference(const lks_option *options, bool markdown, lks_text *out);

/* One difference between two effective configurations. Texts are in the arena. */
typedef struct lks_difference {
  const char *key;       /* dotted */
  const char *old_value; /* "(absent)" where it was not */
  const char *new_value;
  bool resumable; /* the row, or one above it, has LKS_OPTION_RESUME */
} lks_difference;

/* Compares two trees of effective configuration; *out has *count rows in the arena. */
lks_status lks_options_compare(const lks_option *options, const lks_node *old_root,
                               const lks_node *new_root, lks_arena *arena, lks_difference **out,
                               int *count, lks_error *err) LKS_MUST_USE;

#endif
