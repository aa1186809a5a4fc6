/* Importing files: each is told apart by content and looked over before the output is begun; the
 * output is written aside and renamed when it is whole. */
#include "data/import.h"

#include <string.h>
#include <unistd.h>

#include "data/import_parts.h"
#include "store/files.h"

typedef enum lks_import_kind { LKS_IMPORT_CSV, LKS_IMPORT_NPY, LKS_IMPORT_IDX } lks_import_kind;

/* One input, surveyed. */
typedef struct lks_import_item {
  lks_import_input input;
  lks_import_kind kind;
  lks_import_table table; /* CSV */
  lks_import_array array; /* NPY, IDX */
  const char *dataset;    /* NPY, IDX */
} lks_import_item;

char *lks_import_stem(lks_arena *arena, const char *path) {
  const char *base = lks_path_base(path);
  size_t length = strlen(base);
  if (length > 3 && lks_ends_with(base, ".gz")) {
    length -= 3;
  }
  for (size_t i = length; i-- > 1;) {
    if (base[i] == '.') {
      length = i;
      break;
    }
  }
  return lks_arena_copy_n(arena, base, length);
}

lks_status lks_import_input_parse(const char *argument, lks_arena *arena, lks_import_input *input,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  const size_t before = strcspn(argument, "=/");
  *input = (lks_import_input){.path = argument};
  if (argument[before] == '=') {
    input->name = lks_arena_copy_n(arena, argument, before);
    TRY_ALLOC(input->name);
    input->path = argument + before + 1;
  }
  input->path = lks_arena_copy(arena, input->path);
  TRY_ALLOC(input->path);
  if (input->path[0] == '\0' || (input->name != NULL && input->name[0] == '\0')) {
    FAIL(LKS_USAGE, "write NAME=FILE, or FILE alone", "'%s': no %s", argument,
         input->path[0] == '\0' ? "file" : "name before '='");
  }

cleanup:
  return st;
}

static lks_status check_request(const lks_import_request *request, lks_error *err) {
  if (!lks_ends_with(request->output, ".h5") && !lks_ends_with(request->output, ".hdf5")) {
    return lks_fail(err, LKS_USAGE, "name the output last: IN ... OUT.h5",
                    "%s: the output's name must end in .h5", request->output);
  }
  if (request->input_count == 0) {
    return lks_fail(err, LKS_USAGE, "write convert [NAME=]IN ... OUT.h5", "nothing to convert");
  }
  if (request->delimiter != '\0' && strchr("\"\r\n+-.eE0123456789", request->delimiter) != NULL) {
    return lks_fail(err, LKS_USAGE, "use ',', ';', '|' or a tab",
                    "delimiter '%c' cannot separate numbers", request->delimiter);
  }
  if (request->deflate < 0 || request->deflate > 9) {
    return lks_fail(err, LKS_USAGE, "give a level from 0 to 9", "no compression level %d",
                    request->deflate);
  }
  if (!request->overwrite && access(request->output, F_OK) == 0) {
    return lks_fail(err, LKS_USAGE, "choose another name, or say --overwrite", "%s: exists already",
                    request->output);
  }
  return LKS_OK;
}

/* Tells what a file is by its first bytes; what is none of the three is named where possible. */
static lks_status detect(lks_import_reader *reader, lks_import_kind *kind, lks_error *err) {
  lks_status st = LKS_OK;
  unsigned char head[8];
  size_t got = 0;
  TRY(lks_import_reader_take(reader, head, sizeof head, &got, err));
  TRY(lks_import_reader_rewind(reader, err));
  if (got == 0) {
    FAIL(LKS_DATA, "check how it was made", "%s: the file is empty", reader->path);
  }
  if (lks_import_is_npy(head, got)) {
    *kind = LKS_IMPORT_NPY;
  } else if (lks_import_is_idx(head, got)) {
    *kind = LKS_IMPORT_IDX;
  } else if (got == 8 && memcmp(head, "\x89HDF\r\n\x1a\n", 8) == 0) {
    FAIL(LKS_DATA, "train reads it as it is", "%s: is HDF5 already", reader->path);
  } else if (got >= 4 && memcmp(head, "PK\3\4", 4) == 0) {
    FAIL(LKS_DATA, "unzip it and convert the .npy files in it",
         "%s: a zip archive, such as NPZ or a spreadsheet", reader->path);
  } else {
    for (size_t i = 0; i < got; ++i) {
      if (head[i] < ' ' && strchr("\t\r\n", head[i]) == NULL) {
        FAIL(LKS_DATA, "check the file",
             "%s: not CSV, NPY or IDX (begins with %02x %02x %02x %02x)", reader->path, head[0],
             got > 1 ? head[1] : 0, got > 2 ? head[2] : 0, got > 3 ? head[3] : 0);
      }
    }
    *kind = LKS_IMPORT_CSV;
  }

cleanup:
  return st;
}

static lks_status survey(const lks_import_request *request, lks_import_item *item,
                         lks_import_classes *classes, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  lks_import_reader reader = {0};
  TRY(lks_import_reader_open(&reader, item->input.path, err));
  TRY(detect(&reader, &item->kind, err));
  if (item->kind == LKS_IMPORT_CSV) {
    TRY(lks_import_table_survey(&reader, request, &item->input, classes, &item->table, arena, err));
    goto cleanup;
  }
  item->dataset =
      item->input.name != NULL ? item->input.name : lks_import_stem(arena, item->input.path);
  TRY_ALLOC(item->dataset);
  if (item->kind == LKS_IMPORT_NPY) {
    TRY(lks_import_npy_header(&reader, &item->array, err));
  } else {
    TRY(lks_import_idx_header(&reader, &item->array, err));
  }

cleanup:
  lks_import_reader_close(&reader);
  return st;
}

static lks_status write_item(const lks_import_item *item, const lks_import_classes *classes,
                             const lks_import_output *output, lks_error *err) {
  lks_status st = LKS_OK;
  lks_import_reader reader = {0};
  TRY(lks_import_reader_open(&reader, item->input.path, err));
  if (item->kind == LKS_IMPORT_CSV) {
    TRY(lks_import_table_write(&reader, &item->table, classes, output, err));
  } else {
    TRY(lks_import_array_write(&item->array, &reader, output, item->dataset, err));
  }

cleanup:
  lks_import_reader_close(&reader);
  return st;
}

/* Datasets of an item: one, or two of a CSV file with targets. */
static int datasets_of(const lks_import_item *item, const char *names[2]) {
  names[0] = item->kind == LKS_IMPORT_CSV ? item->table.parts[0].dataset : item->dataset;
  names[1] = item->table.parts[1].dataset;
  return item->kind == LKS_IMPORT_CSV ? item->table.part_count : 1;
}

static lks_status check_name(const lks_import_item *items, int count, int which, const char *name,
                             lks_error *err) {
  if (name[0] == '\0' || strcmp(name, ".") == 0 || strchr(name, '/') != NULL ||
      !lks_is_utf8(name)) {
    return lks_fail(err, LKS_USAGE, "name it: NAME=FILE", "%s: '%s' cannot name a dataset",
                    items[which].input.path, name);
  }
  for (int i = 0; i < count; ++i) {
    const char *others[2];
    const int datasets = datasets_of(&items[i], others);
    for (int k = 0; i != which && k < datasets; ++k) {
      if (strcmp(others[k], name) == 0) {
        return lks_fail(err, LKS_USAGE, "name each input: NAME=FILE",
                        "%s and %s both give a dataset '%s'", items[i].input.path,
                        items[which].input.path, name);
      }
    }
  }
  return LKS_OK;
}

static bool has_name(const lks_import_table *table, const char *name) {
  for (int i = 0; i < table->columns; ++i) {
    if (strcmp(table->names[i], name) == 0) {
      return true;
    }
  }
  return false;
}

/* Whether b has every column of a, and no other. */
static bool same_names(const lks_import_table *a, const lks_import_table *b) {
  bool same = a->columns == b->columns;
  for (int i = 0; same && i < a->columns; ++i) {
    same = has_name(b, a->names[i]);
  }
  return same;
}

/* Column `at` of a's and b's dataset is not the same one. The remedy holds for features alone, and
 * where the names can be written in a list of reasonable length. */
static lks_status other_order(const lks_import_table *a, const lks_import_table *b, int part,
                              int at, lks_error *err) {
  const lks_import_part *first = &a->parts[0];
  const int mine = a->parts[part].columns[at], other = b->parts[part].columns[at];
  const lks_status st =
      lks_fail(err, LKS_DATA, "choose columns by name, with --features and --targets",
               "%s: column %d is '%.60s', where %s has '%.60s': the columns are in another order",
               b->path, other + 1, b->names[other], a->path, a->names[mine]);
  lks_text list = {0};
  bool plain = part == 0;
  for (int i = 0; i < first->count; ++i) {
    const char *name = a->names[first->columns[i]];
    plain = plain && name[strcspn(name, ", '\"\n")] == '\0' && has_name(b, name);
    lks_text_add(&list, "%s%s", i > 0 ? "," : "", name);
  }
  if (plain && !list.failed && list.length < 100) {
    lks_advise(err, "choose columns by name: --features %s", list.data);
  }
  lks_text_free(&list);
  return st;
}

/* Two CSV files whose datasets would hold a column of one name at two places. Columns that were not
 * chosen may be of two kinds, inputs and outputs say: only the same ones in another order are
 * refused. */
static lks_status check_order(const lks_import_table *a, const lks_import_table *b, bool chosen,
                              lks_error *err) {
  lks_status st = LKS_OK;
  if (a->names == NULL || b->names == NULL) {
    return LKS_OK;
  }
  for (int k = a->part_count - 1; k >= 0; --k) { /* targets by number come first */
    const lks_import_part *mine = &a->parts[k], *other = &b->parts[k];
    for (int i = 0; i < mine->count && i < other->count; ++i) {
      const char *name = a->names[mine->columns[i]], *there = b->names[other->columns[i]];
      if (strcmp(name, there) == 0) {
        continue;
      }
      if (chosen ? has_name(a, there) || has_name(b, name) : same_names(a, b)) {
        TRY(other_order(a, b, k, i, err));
      }
      if (!chosen) {
        return LKS_OK; /* looked at as a whole already */
      }
    }
  }

cleanup:
  return st;
}

/* What can be judged only with all inputs surveyed. */
static lks_status check_items(const lks_import_request *request, const lks_import_item *items,
                              lks_error *err) {
  lks_status st = LKS_OK;
  const lks_import_item *csv = NULL;
  const bool chosen = request->features.count + request->targets.count > 0;
  for (int i = 0; i < request->input_count; ++i) {
    const char *names[2];
    const int datasets = datasets_of(&items[i], names);
    for (int k = 0; k < datasets; ++k) {
      TRY(check_name(items, request->input_count, i, names[k], err));
    }
    if (items[i].kind != LKS_IMPORT_CSV) {
      continue;
    }
    if (csv != NULL && csv->table.parts[1].text != items[i].table.parts[1].text) {
      FAIL(LKS_DATA, "write both alike",
           "%s and %s: class names in one target, numbers in the other", csv->input.path,
           items[i].input.path);
    }
    for (int k = 0; k < i; ++k) {
      if (items[k].kind == LKS_IMPORT_CSV) {
        TRY(check_order(&items[k].table, &items[i].table, chosen, err));
      }
    }
    csv = &items[i];
  }
  if (csv == NULL && chosen) {
    FAIL(LKS_USAGE, "leave --features and --targets out", "%s: no CSV: it has no columns to choose",
         items[0].input.path);
  }
  if (csv == NULL && (request->delimiter != '\0' || request->header != LKS_IMPORT_HEADER_AUTO)) {
    const char *flag = request->delimiter != '\0' ? "--delimiter" : "--header";
    st = lks_fail(err, LKS_USAGE, NULL, "%s: no CSV, which alone has a %s", items[0].input.path,
                  flag + 2);
    lks_advise(err, "leave %s out", flag);
  }

cleanup:
  return st;
}

static lks_status write_output(const lks_import_request *request, const lks_import_item *items,
                               const lks_import_classes *classes, lks_arena *arena,
                               lks_text *summary, lks_error *err) {
  lks_status st = LKS_OK;
  lks_import_output output = {
      .deflate = request->deflate, .summary = summary, .notes = request->notes};
  const char *aside = lks_aside_path(arena, request->output);
  const char *folder = lks_path_folder(arena, request->output);
  TRY_ALLOC(aside);
  TRY_ALLOC(folder);
  TRY(lks_folder_writable(folder, err));
  TRY(lks_h5_create_aside(aside, request->output, &output.file, err));
  for (int i = 0; i < request->input_count; ++i) {
    TRY(write_item(&items[i], classes, &output, err));
  }
  TRY(lks_h5_close(&output.file, err));
  TRY(lks_file_publish(aside, request->output, err));

cleanup:
  if (output.file != NULL) { /* after a failure, which is the one to tell */
    lks_error ignored;
    const lks_status closed = lks_h5_close(&output.file, &ignored);
    (void)closed;
  }
  if (st != LKS_OK && aside != NULL) {
    unlink(aside);
  }
  return st;
}

lks_status lks_import_files(const lks_import_request *request, lks_error *err) {
  lks_status st = LKS_OK;
  lks_arena arena = {0};
  lks_text summary = {0};
  TRY(check_request(request, err));
  const size_t count = (size_t)request->input_count;
  lks_import_item *items = lks_arena_alloc(&arena, count * sizeof *items);
  lks_import_classes *classes = lks_arena_alloc(&arena, sizeof *classes);
  TRY_ALLOC(items);
  TRY_ALLOC(classes);
  for (size_t i = 0; i < count; ++i) {
    items[i].input = request->inputs[i];
    TRY(survey(request, &items[i], classes, &arena, err));
  }
  TRY(check_items(request, items, err));
  TRY(write_output(request, items, classes, &arena, &summary, err));
  if (request->summary != NULL) {
    lks_text_add_n(request->summary, summary.data, summary.length);
  }

cleanup:
  lks_text_free(&summary);
  lks_arena_free(&arena);
  return st;
}
