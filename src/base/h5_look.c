/* What is in an HDF5 file: names, types, shapes. */
#include "base/h5_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names */

/* H5Lexists wants every group on the way to exist, so the path is walked. */
bool lks_h5_has(hid_t file, const char *name) {
  char *part = strdup(name);
  bool there = part != NULL;
  if (strspn(name, "/") == strlen(name)) { /* the root */
    free(part);
    return there;
  }
  for (char *at = part; there && *at != '\0'; at += strspn(at, "/")) {
    char *end = at + strcspn(at, "/");
    const char ended = *end;
    *end = '\0';
    /* HDF5 passes over a dot on its way, but knows of no link called so. */
    there = at == end || strcmp(at, ".") == 0 || H5Lexists(file, part, H5P_DEFAULT) > 0;
    *end = ended;
    at = end;
  }
  /* A soft link to nothing exists as a link only. */
  there = there && H5Oexists_by_name(file, name, H5P_DEFAULT) > 0;
  free(part);
  return there;
}

bool lks_h5_exists(lks_h5 *file, const char *name) {
  lks_h5_lock();
  const bool there = lks_h5_has(file->id, name);
  lks_h5_unlock();
  return there;
}

typedef struct listing {
  lks_text text;
  const char *prefix; /* without slashes around it */
  int found, max;
} listing;

static void list_dataset(listing *list, const char *name) {
  if (list->found++ < list->max) {
    lks_text_add(&list->text, "%s%s%s%s", list->found > 1 ? ", " : "", list->prefix,
                 list->prefix[0] != '\0' ? "/" : "", name);
  }
}

/* The type of this structure changed its name with HDF5 1.12. */
#if H5_VERSION_GE(1, 12, 0)
typedef H5O_info2_t object_info;
#else
typedef H5O_info_t object_info;
#endif

static herr_t visit(hid_t object, const char *name, const object_info *info, void *user) {
  listing *list = user;
  (void)object;
  if (info->type == H5O_TYPE_DATASET) {
    list_dataset(list, name);
  }
  return list->found > list->max ? 1 : 0;
}

char *lks_h5_names(hid_t file, const char *group, int max_names, lks_arena *arena) {
  char *prefix = lks_arena_copy(arena, group + strspn(group, "/"));
  if (prefix == NULL) {
    return NULL;
  }
  for (size_t n = strlen(prefix); n > 0 && prefix[n - 1] == '/'; --n) {
    prefix[n - 1] = '\0';
  }
  listing list = {.prefix = prefix, .max = max_names};
  const hid_t at = lks_h5_has(file, group) ? H5Oopen(file, group, H5P_DEFAULT) : -1;
  if (at >= 0) {
    /* An object with several names is visited once, so cycles of links end. What a broken file
     * does not let visit is simply not listed: this serves messages. */
#if H5_VERSION_GE(1, 12, 0)
    (void)H5Ovisit3(at, H5_INDEX_NAME, H5_ITER_INC, visit, &list, H5O_INFO_BASIC);
#else
    (void)H5Ovisit(at, H5_INDEX_NAME, H5_ITER_INC, visit, &list);
#endif
    (void)H5Oclose(at);
  }
  if (list.found > list.max) {
    lks_text_add(&list.text, "%s...", list.max > 0 ? ", " : "");
  }
  char *out =
      list.text.failed ? NULL : lks_arena_copy(arena, list.text.data != NULL ? list.text.data : "");
  lks_text_free(&list.text);
  return out;
}

char *lks_h5_list(lks_h5 *file, const char *group, int max_names, lks_arena *arena) {
  lks_h5_lock();
  char *out = lks_h5_names(file->id, group, max_names, arena);
  lks_h5_unlock();
  return out;
}

lks_status lks_h5_members(lks_h5 *file, const char *group, lks_arena *arena, lks_texts *out,
                          lks_error *err) {
  lks_status st = LKS_OK;
  hid_t at = -1;
  H5G_info_t info;
  const lks_h5_where where = {false, file->shown, group};
  *out = (lks_texts){0};
  lks_h5_lock();
  if (!lks_h5_has(file->id, group)) {
    goto cleanup;
  }
  at = H5Gopen2(file->id, group, H5P_DEFAULT);
  TRY_H5(at, &where);
  const herr_t got = H5Gget_info(at, &info);
  TRY_H5(got, &where);
  out->items = lks_arena_alloc(arena, ((size_t)info.nlinks + 1) * sizeof(*out->items));
  TRY_ALLOC(out->items);
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const ssize_t length =
        H5Lget_name_by_idx(at, ".", H5_INDEX_NAME, H5_ITER_INC, i, NULL, 0, H5P_DEFAULT);
    TRY_H5(length, &where);
    char *name = lks_arena_alloc(arena, (size_t)length + 1);
    TRY_ALLOC(name);
    const ssize_t copied = H5Lget_name_by_idx(at, ".", H5_INDEX_NAME, H5_ITER_INC, i, name,
                                              (size_t)length + 1, H5P_DEFAULT);
    TRY_H5(copied, &where);
    out->items[out->count++] = name;
  }
cleanup:
  if (at >= 0) {
    (void)H5Gclose(at);
  }
  lks_h5_unlock();
  return st;
}

/* ---- one dataset under two names */

static bool same_object(hid_t a, hid_t b) {
  object_info first, second;
#if H5_VERSION_GE(1, 12, 0)
  int order = 1;
  return H5Oget_info3(a, &first, H5O_INFO_BASIC) >= 0 &&
         H5Oget_info3(b, &second, H5O_INFO_BASIC) >= 0 && first.fileno == second.fileno &&
         H5Otoken_cmp(a, &first.token, &second.token, &order) >= 0 && order == 0;
#else
  return H5Oget_info(a, &first) >= 0 && H5Oget_info(b, &second) >= 0 &&
         first.fileno == second.fileno && first.addr == second.addr;
#endif
}

bool lks_h5_same_dataset(const lks_h5_dataset *a, const lks_h5_dataset *b) {
  lks_h5_lock();
  const bool same = same_object(a->id, b->id);
  lks_h5_unlock();
  return same;
}

/* ---- types and shapes */

/* h5py writes booleans as an enumeration of one byte. */
static void describe_enum(hid_t type, lks_h5_info *info) {
  const hid_t base = H5Tget_super(type);
  info->kind = base >= 0 && H5Tget_class(base) == H5T_INTEGER ? LKS_H5_INTEGER : LKS_H5_OTHER;
  (void)snprintf(info->type_name, sizeof(info->type_name), "%s",
                 info->element_bytes == 1 && H5Tget_nmembers(type) == 2 ? "bool" : "enum");
  if (base >= 0) {
    (void)H5Tclose(base);
  }
}

/* Integers of up to 24 bits, and floats with no more of exponent and fraction than a binary32. */
static bool fits_float(hid_t type) {
  size_t sign = 0, exponent = 0, exponent_bits = 0, fraction = 0, fraction_bits = 0;
  if (H5Tget_class(type) == H5T_INTEGER) {
    return H5Tget_precision(type) <= 24;
  }
  return H5Tget_class(type) == H5T_FLOAT &&
         H5Tget_fields(type, &sign, &exponent, &exponent_bits, &fraction, &fraction_bits) >= 0 &&
         exponent_bits <= 8 && fraction_bits <= 23 &&
         H5Tget_ebias(type) == ((size_t)1 << exponent_bits >> 1) - 1;
}

static void describe_type(hid_t type, lks_h5_info *info) {
  const size_t bits = 8 * info->element_bytes;
  const char *name = NULL;
  info->kind = LKS_H5_OTHER;
  switch (H5Tget_class(type)) {
  case H5T_INTEGER:
    info->kind = LKS_H5_INTEGER;
    (void)snprintf(info->type_name, sizeof(info->type_name), "%sint%zu",
                   H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits);
    return;
  case H5T_FLOAT:
    info->kind = LKS_H5_FLOAT;
    (void)snprintf(info->type_name, sizeof(info->type_name), "float%zu", bits);
    return;
  case H5T_ENUM:
    describe_enum(type, info);
    return;
  case H5T_STRING:
    info->kind = LKS_H5_STRING;
    name = "string";
    break;
  case H5T_COMPOUND:
    info->kind = LKS_H5_COMPOUND;
    name = "compound";
    break;
  case H5T_ARRAY:
    name = "array";
    break;
  case H5T_VLEN:
    name = "variable-length";
    break;
  case H5T_REFERENCE:
    name = "reference";
    break;
  case H5T_BITFIELD:
    name = "bitfield";
    break;
  case H5T_OPAQUE:
    name = "opaque";
    break;
  default:
    name = "unknown";
    break;
  }
  (void)snprintf(info->type_name, sizeof(info->type_name), "%s", name);
}

static lks_status describe_shape(hid_t dataset, const lks_h5_where *where, lks_h5_info *info,
                                 lks_error *err) {
  lks_status st = LKS_OK;
  hsize_t dims[LKS_H5_MAX_RANK];
  const hid_t space = H5Dget_space(dataset);
  TRY_H5(space, where);
  if (H5Sget_simple_extent_type(space) == H5S_NULL) {
    FAIL(LKS_DATA, "write the dataset again with a shape",
         "%s: dataset '%s' has no shape and no values (a null dataspace)", where->file,
         where->object);
  }
  info->rank = H5Sget_simple_extent_dims(space, dims, NULL);
  TRY_H5(info->rank, where);
  for (int i = 0; i < info->rank; ++i) {
    info->shape[i] = (int64_t)dims[i];
  }
cleanup:
  if (space >= 0) {
    (void)H5Sclose(space);
  }
  return st;
}

lks_status lks_h5_describe(hid_t dataset, const lks_h5_where *where, lks_h5_info *info,
                           lks_error *err) {
  lks_status st = LKS_OK;
  hsize_t chunk[LKS_H5_MAX_RANK];
  hid_t made_by = -1;
  const hid_t type = H5Dget_type(dataset);
  TRY_H5(type, where);
  *info = (lks_h5_info){0};
  info->element_bytes = H5Tget_size(type);
  info->fits_float = fits_float(type);
  describe_type(type, info);
  TRY(describe_shape(dataset, where, info, err));
  made_by = H5Dget_create_plist(dataset);
  TRY_H5(made_by, where);
  info->compressed = H5Pget_nfilters(made_by) > 0;
  if (H5Pget_layout(made_by) == H5D_CHUNKED && H5Pget_chunk(made_by, LKS_H5_MAX_RANK, chunk) > 0) {
    info->chunk_rows = (int64_t)chunk[0];
  }
cleanup:
  if (made_by >= 0) {
    (void)H5Pclose(made_by);
  }
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  return st;
}
