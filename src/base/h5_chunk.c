/* Chunks that hold rows just as they are used: read to their place, without HDF5's cache between.
 *
 * HDF5 reads such a chunk into its cache and copies it from there: a streamed table of chunks of 1
 * MiB takes two thirds of the time so, one of 4 KiB half of it (docs/performance.md). H5Dread reads
 * everything else, and is what this is tested against. */
#include "base/h5_internal.h"

/* Whether the chunks are of whole rows. *rows, *bytes: of one. */
static bool are_rows(hid_t made_by, const lks_h5_info *info, int64_t *rows, hsize_t *bytes) {
  hsize_t chunk[LKS_H5_MAX_RANK];
  bool whole = info->rank > 0 && H5Pget_layout(made_by) == H5D_CHUNKED &&
               H5Pget_nfilters(made_by) == 0 &&
               H5Pget_chunk(made_by, LKS_H5_MAX_RANK, chunk) == info->rank;
  if (whole) {
    *rows = (int64_t)chunk[0];
    *bytes = chunk[0] * sizeof(float);
  }
  for (int i = 1; whole && i < info->rank; ++i) {
    whole = chunk[i] == (hsize_t)info->shape[i];
    *bytes *= chunk[i];
  }
  return whole;
}

void lks_h5_find_plain(lks_h5_dataset *dataset) {
  int64_t rows = 0;
  hsize_t bytes = 0;
  const hid_t made_by = H5Dget_create_plist(dataset->id);
  const hid_t type = H5Dget_type(dataset->id);
  dataset->plain_rows = 0;
  if (made_by >= 0 && type >= 0 && H5Tequal(type, H5T_NATIVE_FLOAT) > 0 &&
      are_rows(made_by, &dataset->info, &rows, &bytes)) {
    dataset->plain_rows = rows;
    dataset->plain_bytes = bytes;
  }
  if (type >= 0) {
    (void)H5Tclose(type);
  }
  if (made_by >= 0) {
    (void)H5Pclose(made_by);
  }
}

/* Whether the chunk that begins at a row was written as a whole, and is read to `out` now. What was
 * never written is HDF5's to fill. */
static bool read_chunk(const lks_h5_dataset *dataset, int64_t row, float *out) {
#if H5_VERSION_GE(1, 10, 3) /* earlier ones have no H5Dread_chunk */
  const hsize_t at[LKS_H5_MAX_RANK] = {(hsize_t)row};
  hsize_t stored = 0;
  uint32_t skipped = 0;
  if (H5Dget_chunk_storage_size(dataset->id, at, &stored) < 0 || stored != dataset->plain_bytes) {
    return false;
  }
#if H5_VERSION_GE(2, 0, 0)
  size_t room = (size_t)stored;
  return H5Dread_chunk2(dataset->id, H5P_DEFAULT, at, &skipped, out, &room) >= 0;
#else
  return H5Dread_chunk(dataset->id, H5P_DEFAULT, at, &skipped, out) >= 0;
#endif
#else
  (void)dataset, (void)row, (void)out;
  return false;
#endif
}

int64_t lks_h5_read_plain(const lks_h5_dataset *dataset, int64_t first, int64_t count, float *out) {
  const int64_t rows = dataset->plain_rows;
  int64_t done = 0;
  if (rows > 0 && first % rows == 0) {
    const size_t floats = (size_t)dataset->plain_bytes / sizeof(float);
    while (done + rows <= count && read_chunk(dataset, first + done, out)) {
      done += rows;
      out += floats;
    }
  }
  return done;
}
