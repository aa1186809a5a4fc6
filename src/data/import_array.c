/* Arrays of NPY and IDX into datasets: element types, byte order, order of dimensions, in blocks
 * of rows. Only Fortran order holds a whole array in memory. */
#include <stdlib.h>
#include <string.h>

#include "data/import_parts.h"

const char *lks_import_type_name(lks_h5_type type) {
  static const char *const names[] = {[LKS_H5_F32] = "float32",
                                      [LKS_H5_F64] = "float64",
                                      [LKS_H5_I32] = "int32",
                                      [LKS_H5_I64] = "int64",
                                      [LKS_H5_U8] = "uint8"};
  return names[type];
}

size_t lks_import_type_bytes(lks_h5_type type) {
  static const size_t bytes[] = {
      [LKS_H5_F32] = 4, [LKS_H5_F64] = 8, [LKS_H5_I32] = 4, [LKS_H5_I64] = 8, [LKS_H5_U8] = 1};
  return bytes[type];
}

int64_t lks_import_block_rows(int64_t rows, size_t row_bytes) {
  const int64_t fit = (int64_t)(LKS_IMPORT_CHUNK_BYTES / row_bytes);
  const int64_t block = fit < 1 ? 1 : fit;
  return block < rows ? block : rows;
}

lks_status lks_import_create(const lks_import_output *output, const char *name, lks_h5_type type,
                             int rank, const int64_t *shape, const char *from,
                             lks_h5_dataset **dataset, lks_error *err) {
  lks_status st = LKS_OK;
  size_t row_bytes = lks_import_type_bytes(type);
  lks_text line = {0};
  lks_text_add(&line, "%s: %s [%lld", name, lks_import_type_name(type), (long long)shape[0]);
  for (int i = 1; i < rank; ++i) {
    row_bytes *= (size_t)shape[i];
    lks_text_add(&line, ", %lld", (long long)shape[i]);
  }
  lks_text_add(&line, "] from %s\n", from);
  if (line.failed) {
    FAIL(LKS_NO_MEMORY, NULL, "out of memory for the summary");
  }
  TRY(lks_h5_create_rows(output->file, name, type, rank, shape,
                         lks_import_block_rows(shape[0], row_bytes), output->deflate, dataset,
                         err));
  if (output->summary != NULL) {
    lks_text_add_n(output->summary, line.data, line.length);
  }

cleanup:
  lks_text_free(&line);
  return st;
}

static lks_status truncated(const lks_import_array *array, lks_error *err) {
  return lks_fail(err, LKS_DATA, "copy or download it again",
                  "%s: truncated: it holds less than the %lld rows of its header", array->path,
                  (long long)array->shape[0]);
}

lks_status lks_import_array_check(lks_import_array *array, const lks_import_reader *reader,
                                  lks_error *err) {
  if (array->rank == 0) {
    return lks_fail(err, LKS_DATA, "save an array with rows", "%s: a single number, not an array",
                    array->path);
  }
  if (array->rank > LKS_H5_MAX_RANK - 1) { /* in chunks, HDF5 has a dimension less */
    return lks_fail(err, LKS_DATA, "reshape it", "%s: %d dimensions, at most %d are written",
                    array->path, array->rank, LKS_H5_MAX_RANK - 1);
  }
  int64_t bytes = array->bytes;
  array->row_elements = 1;
  for (int i = 0; i < array->rank; ++i) {
    if (array->shape[i] == 0) {
      return lks_fail(err, LKS_DATA, "check how it was made", "%s: no %s (dimension %d is 0)",
                      array->path, i == 0 ? "rows" : "columns", i);
    }
    /* Twice the room: no type grows more than fourfold, and sizes stay far below 2^63. */
    if (array->shape[i] < 0 || __builtin_mul_overflow(bytes, array->shape[i], &bytes) ||
        bytes > INT64_MAX / 8) {
      return lks_fail(err, LKS_DATA, "check the file", "%s: its shape is not possible",
                      array->path);
    }
    array->row_elements *= i == 0 ? 1 : array->shape[i];
  }
  if (array->columns_first && array->rank > 2) {
    return lks_fail(err, LKS_DATA, "save numpy.ascontiguousarray(a)",
                    "%s: Fortran order of %d dimensions, at most 2 are read", array->path,
                    array->rank);
  }
  if (bytes > reader->most - array->offset) {
    return truncated(array, err);
  }
  return LKS_OK;
}

static lks_h5_type type_of(const lks_import_array *array) {
  if (array->kind == 'f') {
    return array->bytes == 8 ? LKS_H5_F64 : LKS_H5_F32;
  }
  if (array->bytes == 1 && array->kind != 'i') {
    return LKS_H5_U8;
  }
  const bool wide = array->bytes == 8 || (array->bytes == 4 && array->kind == 'u');
  return wide ? LKS_H5_I64 : LKS_H5_I32;
}

static uint64_t load(const unsigned char *bytes, int count, bool big_endian) {
  uint64_t value = 0;
  for (int i = 0; i < count; ++i) {
    value = value << 8 | bytes[big_endian ? i : count - 1 - i];
  }
  return value;
}

/* The two's complement number in the low bits of value. */
static int64_t extend(uint64_t value, int bytes) {
  const uint64_t sign = (uint64_t)1 << (8 * bytes - 1);
  const uint64_t wide = (value ^ sign) - sign;
  int64_t out = 0;
  memcpy(&out, &wide, sizeof out);
  return out;
}

/* Every half-precision number is a single-precision one. */
static uint32_t half_to_single(uint32_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  uint32_t exponent = (half >> 10) & 0x1fu;
  uint32_t fraction = half & 0x3ffu;
  if (exponent == 31) {
    return sign | 0x7f800000u | fraction << 13;
  }
  if (exponent == 0) {
    if (fraction == 0) {
      return sign;
    }
    exponent = 1; /* subnormal: shifted until its leading one is implicit */
    while ((fraction & 0x400u) == 0) {
      fraction <<= 1;
      --exponent;
    }
    fraction &= 0x3ffu;
  }
  return sign | (exponent + 112u) << 23 | fraction << 13;
}

/* Elements [0, count) of a block that begins at element `first` of the array. */
static lks_status convert(const lks_import_array *array, int64_t first, int64_t count,
                          const unsigned char *in, void *out, lks_error *err) {
  const lks_h5_type type = type_of(array);
  if (array->kind == 'u' && array->bytes == 1) {
    memcpy(out, in, (size_t)count); /* images: not worth a loop */
    return LKS_OK;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bits = load(in + i * array->bytes, array->bytes, array->big_endian);
    switch (type) {
    case LKS_H5_U8:
      ((uint8_t *)out)[i] = bits != 0; /* a bool: uint8 was copied above */
      break;
    case LKS_H5_I32:
      ((int32_t *)out)[i] =
          array->kind == 'i' ? (int32_t)extend(bits, array->bytes) : (int32_t)bits;
      break;
    case LKS_H5_I64:
      if (array->kind == 'u' && bits > INT64_MAX) {
        return lks_fail(err, LKS_DATA, "use numbers below 2^63",
                        "%s: row %lld: %llu does not fit a signed 64-bit number", array->path,
                        (long long)((first + i) / array->row_elements), (unsigned long long)bits);
      }
      ((int64_t *)out)[i] = array->kind == 'i' ? extend(bits, array->bytes) : (int64_t)bits;
      break;
    case LKS_H5_F32: {
      const uint32_t single = array->bytes == 2 ? half_to_single((uint32_t)bits) : (uint32_t)bits;
      memcpy((float *)out + i, &single, sizeof single);
      break;
    }
    case LKS_H5_F64:
      memcpy((double *)out + i, &bits, sizeof bits);
      break;
    }
  }
  return LKS_OK;
}

static lks_status take_rows(const lks_import_array *array, lks_import_reader *reader, int64_t rows,
                            unsigned char *out, lks_error *err) {
  const size_t size = (size_t)(rows * array->row_elements) * (size_t)array->bytes;
  size_t got = 0;
  lks_status st = LKS_OK;
  TRY(lks_import_reader_take(reader, out, size, &got, err));
  if (got < size) {
    TRY(truncated(array, err));
  }

cleanup:
  return st;
}

/* A longer file is another one than its header says. Reading on to the end also makes zlib
 * compare its checksum. */
static lks_status check_end(const lks_import_array *array, lks_import_reader *reader,
                            lks_error *err) {
  unsigned char extra = 0;
  size_t got = 0;
  lks_status st = LKS_OK;
  TRY(lks_import_reader_take(reader, &extra, 1, &got, err));
  if (got > 0) {
    FAIL(LKS_DATA, "check how it was made", "%s: it holds more than the %lld rows of its header",
         array->path, (long long)array->shape[0]);
  }

cleanup:
  return st;
}

/* Rows [first, first + count) of [columns, rows] into [count, columns]. */
static void gather_rows(const lks_import_array *array, const unsigned char *all, int64_t first,
                        int64_t count, unsigned char *out) {
  const int64_t rows = array->shape[0], columns = array->row_elements;
  const size_t bytes = (size_t)array->bytes;
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      memcpy(out + (size_t)(r * columns + c) * bytes, all + (size_t)(c * rows + first + r) * bytes,
             bytes);
    }
  }
}

static lks_status skip_header(const lks_import_array *array, lks_import_reader *reader,
                              lks_error *err) {
  if (gzseek(reader->gz, (z_off_t)array->offset, SEEK_SET) != (z_off_t)array->offset) {
    return lks_fail(err, LKS_DATA, "check the disk", "%s: cannot be read again from its start",
                    array->path);
  }
  return LKS_OK;
}

lks_status lks_import_array_write(const lks_import_array *array, lks_import_reader *reader,
                                  const lks_import_output *output, const char *name,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  lks_h5_dataset *dataset = NULL;
  const lks_h5_type type = type_of(array);
  const size_t row_bytes = (size_t)array->row_elements * (size_t)array->bytes;
  const size_t type_bytes = lks_import_type_bytes(type);
  const int64_t rows = array->shape[0];
  const int64_t block = lks_import_block_rows(rows, (size_t)array->row_elements * type_bytes);
  const bool turned = array->columns_first && array->rank == 2;
  unsigned char *all = turned ? malloc((size_t)rows * row_bytes) : NULL;
  unsigned char *raw = malloc((size_t)block * row_bytes);
  void *values = malloc((size_t)(block * array->row_elements) * type_bytes);
  TRY_ALLOC(raw);
  TRY_ALLOC(values);
  TRY(skip_header(array, reader, err));
  if (turned) {
    TRY_ALLOC(all);
    TRY(take_rows(array, reader, rows, all, err));
  }
  TRY(lks_import_create(output, name, type, array->rank, array->shape, array->path, &dataset, err));
  for (int64_t first = 0; first < rows; first += block) {
    const int64_t count = rows - first < block ? rows - first : block;
    if (turned) {
      gather_rows(array, all, first, count, raw);
    } else {
      TRY(take_rows(array, reader, count, raw, err));
    }
    TRY(convert(array, first * array->row_elements, count * array->row_elements, raw, values, err));
    TRY(lks_h5_write_rows(dataset, first, count, values, err));
  }
  TRY(check_end(array, reader, err));

cleanup:
  lks_h5_dataset_close(&dataset);
  free(values);
  free(raw);
  free(all);
  return st;
}
