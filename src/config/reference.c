/* The option rows as a reference: Markdown for the documents, aligned text for --help.
 *
 * One section a mapping: first the root's rows, then those of each group, choice and list of
 * layers, in the order of the table. Kinds that stand at several places (activations) are written
 * out at the first, and named with a pointer to it at the others. */
#include <stdio.h>
#include <string.h>

#include "config/internal.h"

#define TEXT_WIDTH 100
#define TEXT_MARGIN 34 /* column at which descriptions begin */
#define MAX_SHARED 64  /* lists of kinds that are remembered */

typedef struct writer {
  lks_text *out;
  bool markdown;
  lks_dotted at; /* of the section */
  const lks_kind *const *shared[MAX_SHARED];
  char *shared_at[MAX_SHARED]; /* in `names` */
  int shared_count;
  lks_arena names;
} writer;

static void write_section(writer *w, const char *title, const char *help, const lks_option *rows);

/* ---- what a row allows */

static void add_words(const char *const *words, const char *before, lks_text *out) {
  for (; words != NULL && *words != NULL; ++words) {
    lks_text_add(out, "%s%s", before, *words);
    before = " or ";
  }
}

static void add_range(const lks_option *row, const char *what, lks_text *out) {
  char range[LKS_RANGE_MAX];
  lks_row_range(row, range);
  lks_text_add(out, "%s%s%s", what, range[0] != '\0' ? " " : "", range);
  add_words(row->words, " or ", out);
}

static void describe_type(const lks_option *row, lks_text *out) {
  switch (row->type) {
  case LKS_OPT_BOOL:
    lks_text_add(out, "true or false");
    break;
  case LKS_OPT_INT:
    add_range(row, "whole number", out);
    break;
  case LKS_OPT_REAL:
    add_range(row, "number", out);
    break;
  case LKS_OPT_TEXT:
    lks_text_add(out, "text");
    break;
  case LKS_OPT_PATH:
    lks_text_add(out, "path");
    break;
  case LKS_OPT_WORD:
    add_words(row->words, "", out);
    break;
  case LKS_OPT_DURATION:
    add_range(row, "duration", out);
    break;
  case LKS_OPT_BYTES:
    add_range(row, "size", out);
    break;
  case LKS_OPT_TEXTS:
    lks_text_add(out, "name or list of names");
    break;
  case LKS_OPT_GROUP:
    lks_text_add(out, "mapping");
    break;
  case LKS_OPT_CHOICE:
    lks_text_add(out, "choice");
    break;
  case LKS_OPT_CHOICES:
    lks_text_add(out, "list of choices");
    break;
  default: /* LAYERS; LATER has no type to describe */
    lks_text_add(out, "list of layers");
  }
}

static const char *default_of(const lks_option *row) {
  const bool optional = (row->flags & LKS_OPTION_OPTIONAL) != 0;
  if (optional && (row->fallback == NULL || row->type == LKS_OPT_GROUP)) {
    return "absent";
  }
  if (row->fallback == NULL) {
    return "required";
  }
  return row->fallback[0] != '\0' ? row->fallback : "empty";
}

/* ---- Markdown */

/* A table's cell: '|' would end it. */
static void add_cell(const char *text, lks_text *out) {
  for (; *text != '\0'; ++text) {
    lks_text_add_n(out, *text == '|' ? "\\|" : text, *text == '|' ? 2 : 1);
  }
}

static void write_table_row(writer *w, const char *key, const lks_option *row) {
  lks_text type = {0};
  if (row->type == LKS_OPT_LATER) {
    lks_text_add(w->out, "| `%s` | (a later version) | | | ", key);
    add_cell(row->help, w->out);
    lks_text_add(w->out, " |\n");
    return;
  }
  describe_type(row, &type);
  lks_text_add(w->out, "| `%s` | ", key);
  add_cell(type.data != NULL ? type.data : "", w->out);
  lks_text_add(w->out, " | ");
  add_cell(default_of(row), w->out);
  lks_text_add(w->out, " | %s | ", row->unit != NULL ? row->unit : "");
  add_cell(row->help, w->out);
  lks_text_add(w->out, " |\n");
  lks_text_free(&type);
}

/* ---- plain text */

/* "  name", then the description from the margin on, broken at spaces before the last column. */
static void write_item(writer *w, const char *name, const char *text) {
  lks_text_add(w->out, "  %s", name);
  size_t column = strlen(name) + 2;
  if (column + 2 > TEXT_MARGIN) {
    lks_text_add(w->out, "\n");
    column = 0;
  }
  while (*text != '\0') {
    const size_t room = TEXT_WIDTH - TEXT_MARGIN;
    size_t length = strlen(text);
    if (length > room) {
      length = room;
      while (length > 0 && text[length] != ' ') {
        --length;
      }
      length = length > 0 ? length : strcspn(text, " "); /* one long word goes over the edge */
    }
    lks_text_add(w->out, "%*s", (int)(TEXT_MARGIN - column), "");
    lks_text_add_n(w->out, text, length);
    lks_text_add(w->out, "\n");
    text += length;
    text += strspn(text, " ");
    column = 0;
  }
}

static void write_text_row(writer *w, const char *key, const lks_option *row) {
  lks_text line = {0};
  if (row->type == LKS_OPT_LATER) {
    lks_text_add(&line, "%s (a later version)", row->help);
  } else {
    lks_text_add(&line, "%s (", row->help);
    describe_type(row, &line);
    const char *word = default_of(row);
    const bool state = strcmp(word, "required") == 0 || strcmp(word, "absent") == 0;
    lks_text_add(&line, "; %s%s%s%s)", state ? "" : "default ", word, row->unit != NULL ? "; " : "",
                 row->unit != NULL ? row->unit : "");
  }
  write_item(w, key, line.data != NULL ? line.data : "");
  lks_text_free(&line);
}

/* ---- sections */

static void write_title(writer *w, const char *title, const char *help) {
  const char *gap = w->out->length > 0 ? "\n" : "";
  if (w->markdown) {
    lks_text_add(w->out, "%s%s `%s`\n\n%s\n", gap, strpbrk(title, ".:") != NULL ? "###" : "##",
                 title, help);
  } else {
    lks_text_add(w->out, "%s%s: %s\n", gap, title, help);
  }
}

/* The rows of one table, those of later versions at its end. */
static void write_rows(writer *w, const lks_option *rows) {
  if (w->markdown) {
    lks_text_add(w->out, "%s| key | value | default | unit | meaning |\n|---|---|---|---|---|\n",
                 w->out->length > 0 ? "\n" : "");
  }
  for (int later = 0; later < 2; ++later) {
    for (const lks_option *row = rows; row->type != LKS_OPT_END; ++row) {
      if ((row->type == LKS_OPT_LATER) != (later == 1)) {
        continue;
      }
      const size_t mark = lks_dotted_push(&w->at, row->key);
      if (w->markdown) {
        write_table_row(w, w->at.text, row);
      } else {
        write_text_row(w, w->at.text, row);
      }
      lks_dotted_pop(&w->at, mark);
    }
  }
}

/* Where these kinds were written out already, or NULL, and then they are remembered. */
static const char *shared_kinds(writer *w, const lks_kind *const *kinds) {
  for (int i = 0; i < w->shared_count; ++i) {
    if (w->shared[i] == kinds) {
      return w->shared_at[i];
    }
  }
  char *at = w->shared_count < MAX_SHARED ? lks_arena_copy(&w->names, w->at.text) : NULL;
  if (at != NULL) {
    w->shared[w->shared_count] = kinds;
    w->shared_at[w->shared_count++] = at;
  }
  return NULL;
}

static void write_kind_list(writer *w, const lks_kind *const *kinds) {
  if (w->markdown) {
    lks_text_add(w->out, "\n| kind | meaning |\n|---|---|\n");
  }
  for (; *kinds != NULL; ++kinds) {
    if (w->markdown) {
      lks_text_add(w->out, "| `%s` | ", (*kinds)->name);
      add_cell((*kinds)->help, w->out);
      lks_text_add(w->out, " |\n");
    } else {
      write_item(w, (*kinds)->name, (*kinds)->help);
    }
  }
}

/* A choice, a list of choices or a list of layers: its kinds, then the rows of each. */
static void write_kinds(writer *w, const lks_option *row) {
  const char *before = shared_kinds(w, row->kinds);
  if (before != NULL) {
    lks_text_add(w->out,
                 w->markdown ? "\nKinds and their options as for `%s`.\n"
                             : "  kinds and their options as for %s\n",
                 before);
    return;
  }
  write_kind_list(w, row->kinds);
  const size_t mark = w->at.length;
  if (row->type != LKS_OPT_CHOICE) {
    (void)lks_dotted_push(&w->at, "N"); /* an element's index */
  }
  for (const lks_kind *const *kind = row->kinds; *kind != NULL; ++kind) {
    if ((*kind)->options != NULL) {
      lks_text title = {0};
      lks_text_add(&title, "%s: %s", w->at.text, (*kind)->name);
      write_section(w, title.data != NULL ? title.data : (*kind)->name, (*kind)->help,
                    (*kind)->options);
      lks_text_free(&title);
    }
  }
  lks_dotted_pop(&w->at, mark);
}

/* The sections of the rows that are more than one value. */
static void write_nested(writer *w, const lks_option *rows) {
  for (; rows->type != LKS_OPT_END; ++rows) {
    const size_t mark = lks_dotted_push(&w->at, rows->key);
    if (rows->type == LKS_OPT_GROUP) {
      write_section(w, w->at.text, rows->help, rows->options);
    } else if (rows->kinds != NULL) {
      write_title(w, w->at.text, rows->help);
      write_kinds(w, rows);
    }
    lks_dotted_pop(&w->at, mark);
  }
}

static void write_section(writer *w, const char *title, const char *help, const lks_option *rows) {
  write_title(w, title, help);
  write_rows(w, rows);
  write_nested(w, rows);
}

void lks_options_reference(const lks_option *options, bool markdown, lks_text *out) {
  writer w = {.out = out, .markdown = markdown};
  write_rows(&w, options);
  write_nested(&w, options);
  lks_arena_free(&w.names);
}
