/* IDX, the format of MNIST: two zero bytes, a type, a number of dimensions, the dimensions as
 * 32-bit big-endian numbers, then the elements, big-endian. */
#include "data/import_parts.h"

typedef struct lks_idx_type {
  unsigned char code;
  char kind;
  int bytes;
} lks_idx_type;

static const lks_idx_type *type_of(unsigned char code) {
  static const lks_idx_type types[] = {
      {0x08, 'u', 1}, {0x09, 'i', 1}, {0x0B, 'i', 2},
      {0x0C, 'i', 4}, {0x0D, 'f', 4}, {0x0E, 'f', 8},
  };
  for (size_t i = 0; i < sizeof types / sizeof types[0]; ++i) {
    if (types[i].code == code) {
      return &types[i];
    }
  }
  return NULL;
}

bool lks_import_is_idx(const unsigned char *head, size_t length) {
  return length >= 4 && head[0] == 0 && head[1] == 0 && type_of(head[2]) != NULL && head[3] > 0;
}

lks_status lks_import_idx_header(lks_import_reader *reader, lks_import_array *array,
                                 lks_error *err) {
  lks_status st = LKS_OK;
  unsigned char head[4 + 4 * LKS_H5_MAX_RANK];
  size_t got = 0;
  TRY(lks_import_reader_take(reader, head, 4, &got, err));
  const lks_idx_type *type = got == 4 ? type_of(head[2]) : NULL;
  if (type == NULL) {
    FAIL(LKS_DATA, "check the file", "%s: not IDX", reader->path);
  }
  const int rank = head[3];
  if (rank > LKS_H5_MAX_RANK) {
    FAIL(LKS_DATA, "reshape it", "%s: IDX of %d dimensions, at most %d are read", reader->path,
         rank, LKS_H5_MAX_RANK);
  }
  TRY(lks_import_reader_take(reader, head + 4, 4 * (size_t)rank, &got, err));
  if (got < 4 * (size_t)rank) {
    FAIL(LKS_DATA, "copy or download it again", "%s: truncated within its IDX header",
         reader->path);
  }
  *array = (lks_import_array){.path = reader->path,
                              .kind = type->kind,
                              .bytes = type->bytes,
                              .big_endian = true,
                              .rank = rank,
                              .offset = 4 + 4 * rank};
  for (int i = 0; i < rank; ++i) {
    const unsigned char *p = head + 4 + 4 * i;
    array->shape[i] = (int64_t)p[0] << 24 | (int64_t)p[1] << 16 | (int64_t)p[2] << 8 | p[3];
  }
  TRY(lks_import_array_check(array, reader, err));

cleanup:
  return st;
}
