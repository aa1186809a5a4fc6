/* HDF5 files of any type and layout for the tests of data/, written without the code under test. */
#ifndef LKS_TESTS_DATA_FIXTURE_H
#define LKS_TESTS_DATA_FIXTURE_H

#include <hdf5.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/text.h"
#include "data/data.h"

typedef struct fixture_layout {
  hid_t type;
  int rank;
  hsize_t shape[4];
  hsize_t chunk_rows; /* 0: contiguous */
  unsigned deflate;   /* 0: not compressed */
} fixture_layout;

/* Negative when HDF5 refused. values are doubles, converted to the type. */
static inline int fixture_dataset(hid_t file, const char *name, const fixture_layout *layout,
                                  const double *values) {
  hsize_t chunk[4];
  const hid_t space = layout->rank == 0 ? H5Screate(H5S_SCALAR)
                                        : H5Screate_simple(layout->rank, layout->shape, NULL);
  const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
  herr_t bad = 0;
  if (layout->chunk_rows > 0) {
    for (int d = 0; d < layout->rank; ++d) {
      chunk[d] = d == 0 ? layout->chunk_rows : layout->shape[d];
    }
    bad |= H5Pset_chunk(plist, layout->rank, chunk);
  }
  if (layout->deflate > 0) {
    bad |= H5Pset_deflate(plist, layout->deflate);
  }
  const hid_t set = H5Dcreate2(file, name, layout->type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
  if (values != NULL) {
    bad |= H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
  }
  bad |= H5Dclose(set);
  bad |= H5Pclose(plist);
  bad |= H5Sclose(space);
  return bad < 0 ? -1 : 0;
}

/* value(row, column) of the tables made here: small whole numbers, all different within a row. */
static inline double fixture_value(int64_t row, int64_t column) {
  return (double)((row * 7 + column * 3) % 101);
}

/* A dataset of fixture values, the first of whose columns is `column`. */
static inline int fixture_table(hid_t file, const char *name, const fixture_layout *layout,
                                int64_t column) {
  hsize_t columns = 1;
  for (int d = 1; d < layout->rank; ++d) {
    columns *= layout->shape[d];
  }
  const hsize_t count = layout->shape[0] * columns;
  double *values = malloc((count > 0 ? count : 1) * sizeof *values);
  if (values == NULL) {
    return -1;
  }
  for (hsize_t i = 0; i < count; ++i) {
    values[i] = fixture_value((int64_t)(i / columns), column + (int64_t)(i % columns));
  }
  const int bad = fixture_dataset(file, name, layout, values);
  free(values);
  return bad;
}

#define FIXTURE_NAMES(...)                                                                         \
  {                                                                                                \
    .items = (const char *[]){__VA_ARGS__},                                                        \
    .count = (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *))                   \
  }

#endif
