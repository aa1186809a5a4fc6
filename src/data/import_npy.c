/* NPY, NumPy's format of one array, versions 1 to 3: a magic, a version, the header's length, a
 * header that is a Python dictionary of three keys, then the elements. */
#include <stdlib.h>
#include <string.h>

#include "data/import_parts.h"

static const unsigned char npy_magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* NumPy itself refuses headers above 10,000 bytes. */
#define LKS_NPY_MAX_HEADER (1u << 20)

bool lks_import_is_npy(const unsigned char *head, size_t length) {
  return length >= sizeof npy_magic && memcmp(head, npy_magic, sizeof npy_magic) == 0;
}

static lks_status malformed(const lks_import_array *array, lks_error *err) {
  return lks_fail(err, LKS_DATA, "save the array again with numpy.save",
                  "%s: its NPY header is not valid", array->path);
}

static const char *skip_space(const char *at) {
  return at + strspn(at, " \t\n");
}

/* A quoted string at *at into out[size]; false when there is none or it is too long. */
static bool take_string(const char **at, char *out, size_t size) {
  const char quote = **at;
  const char *end = quote == '\'' || quote == '"' ? strchr(*at + 1, quote) : NULL;
  if (end == NULL || (size_t)(end - *at) > size) {
    return false;
  }
  const size_t length = (size_t)(end - *at - 1);
  memcpy(out, *at + 1, length);
  out[length] = '\0';
  *at = end + 1;
  return true;
}

/* "<f4" and its like. Anything else is refused with its name. */
static lks_status take_type(const char **at, lks_import_array *array, lks_error *err) {
  char type[32];
  if (**at == '[') {
    return lks_fail(err, LKS_DATA, "save each field as an array of its own",
                    "%s: a structured array", array->path);
  }
  if (!take_string(at, type, sizeof type)) {
    return malformed(array, err);
  }
  static const char *const known[] = {"b1", "u1", "u2", "u4", "u8", "i1",
                                      "i2", "i4", "i8", "f2", "f4", "f8"};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
    if (type[0] != '\0' && strchr("<>|=", type[0]) != NULL && strcmp(type + 1, known[i]) == 0) {
      array->kind = known[i][0];
      array->bytes = known[i][1] - '0';
      array->big_endian = type[0] == '>';
      return LKS_OK;
    }
  }
  return lks_fail(err, LKS_DATA, "save it as numbers: a.astype('float32')",
                  "%s: elements of type '%s', not plain numbers", array->path, type);
}

static lks_status take_order(const char **at, lks_import_array *array, lks_error *err) {
  if (strncmp(*at, "True", 4) == 0) {
    array->columns_first = true;
    *at += 4;
    return LKS_OK;
  }
  if (strncmp(*at, "False", 5) == 0) {
    *at += 5;
    return LKS_OK;
  }
  return malformed(array, err);
}

/* "(3, 4)", "(3,)" or "()". Python 2 wrote "3L". */
static lks_status take_shape(const char **at, lks_import_array *array, lks_error *err) {
  const char *p = *at;
  if (*p++ != '(') {
    return malformed(array, err);
  }
  for (p = skip_space(p); *p != ')'; p = skip_space(p)) {
    const size_t digits = strspn(p, "0123456789");
    char *end = NULL;
    if (digits == 0 || digits > 18) {
      return malformed(array, err);
    }
    if (array->rank == LKS_H5_MAX_RANK) {
      return lks_fail(err, LKS_DATA, "reshape it", "%s: over %d dimensions", array->path,
                      LKS_H5_MAX_RANK);
    }
    array->shape[array->rank++] = strtoll(p, &end, 10);
    p = end + (*end == 'L' ? 1 : 0);
    p = skip_space(p);
    if (*p == ',') {
      ++p;
    } else if (*p != ')') {
      return malformed(array, err);
    }
  }
  *at = p + 1;
  return LKS_OK;
}

static lks_status take_dictionary(const char *at, lks_import_array *array, lks_error *err) {
  lks_status st = LKS_OK;
  int seen = 0;
  at = skip_space(at);
  if (*at != '{') {
    return malformed(array, err);
  }
  for (at = skip_space(at + 1); *at != '}'; at = skip_space(at)) {
    char key[32];
    if (!take_string(&at, key, sizeof key)) {
      return malformed(array, err);
    }
    at = skip_space(at);
    if (*at != ':') {
      return malformed(array, err);
    }
    at = skip_space(at + 1);
    if (strcmp(key, "descr") == 0) {
      TRY(take_type(&at, array, err));
      seen |= 1;
    } else if (strcmp(key, "fortran_order") == 0) {
      TRY(take_order(&at, array, err));
      seen |= 2;
    } else if (strcmp(key, "shape") == 0 && (seen & 4) == 0) {
      TRY(take_shape(&at, array, err));
      seen |= 4;
    } else {
      return malformed(array, err);
    }
    at = skip_space(at);
    at += *at == ',' ? 1 : 0;
  }
  if (seen != 7) {
    return malformed(array, err);
  }

cleanup:
  return st;
}

lks_status lks_import_npy_header(lks_import_reader *reader, lks_import_array *array,
                                 lks_error *err) {
  lks_status st = LKS_OK;
  char *header = NULL;
  unsigned char head[12];
  size_t got = 0;
  *array = (lks_import_array){.path = reader->path};
  TRY(lks_import_reader_take(reader, head, 8, &got, err));
  const int major = got == 8 ? head[6] : 1;
  if (major < 1 || major > 3) {
    FAIL(LKS_DATA, "save it with numpy.save", "%s: NPY version %d, versions 1 to 3 are read",
         reader->path, major);
  }
  const size_t width = major == 1 ? 2 : 4;
  TRY(lks_import_reader_take(reader, head + 8, width, &got, err));
  size_t length = 0;
  for (size_t i = 0; i < got; ++i) {
    length |= (size_t)head[8 + i] << (8 * i);
  }
  if (length > LKS_NPY_MAX_HEADER) {
    FAIL(LKS_DATA, "check the file", "%s: an NPY header of %zu bytes", reader->path, length);
  }
  const size_t expected = length;
  header = malloc(expected + 1);
  TRY_ALLOC(header);
  const bool short_length = got < width;
  TRY(lks_import_reader_take(reader, header, expected, &got, err));
  if (short_length || got < expected) {
    FAIL(LKS_DATA, "copy or download it again", "%s: truncated within its NPY header",
         reader->path);
  }
  header[expected] = '\0';
  array->offset = (int64_t)(8 + width + expected);
  TRY(take_dictionary(header, array, err));
  TRY(lks_import_array_check(array, reader, err));

cleanup:
  free(header);
  return st;
}
