/* Chunks that are read without HDF5's cache: which these are, and that whatever way values are
 * taken, they are those that H5Dread gives. */
#include "scratch.h"

#include "base/h5_internal.h"

#define ROWS 18
#define MOST (ROWS * 6)
#define CHUNK_ROWS 4
#define CAN_READ_CHUNKS H5_VERSION_GE(1, 10, 3)

static lks_error err;

/* A dataset of ROWS rows, and what lks_h5_read_plain takes of all of them. */
typedef struct chunk_case {
  const char *name;
  int rank;
  hsize_t row[2], chunk[2]; /* dimensions after the first */
  bool packed, big_endian, whole_numbers, gaps;
  int64_t plain; /* rows */
} chunk_case;

static const chunk_case cases[] = {
    {.name = "vector", .rank = 1, .plain = 16},
    {.name = "matrix", .rank = 2, .row = {3}, .chunk = {3}, .plain = 16},
    {.name = "cube", .rank = 3, .row = {3, 2}, .chunk = {3, 2}, .plain = 16},
    {.name = "gaps", .rank = 2, .row = {3}, .chunk = {3}, .gaps = true, .plain = 4},
    {.name = "packed", .rank = 2, .row = {3}, .chunk = {3}, .packed = true},
    {.name = "narrow", .rank = 2, .row = {3}, .chunk = {2}},
    {.name = "broad", .rank = 2, .row = {3}, .chunk = {5}},
    {.name = "flat", .rank = 3, .row = {3, 2}, .chunk = {3, 1}},
    {.name = "foreign", .rank = 2, .row = {3}, .chunk = {3}, .big_endian = true},
    {.name = "whole", .rank = 2, .row = {3}, .chunk = {3}, .whole_numbers = true},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static void make(hid_t file, const chunk_case *c) {
  float values[MOST];
  const float fill = 7.5f;
  hsize_t shape[3] = {ROWS, c->row[0], c->row[1]};
  const hsize_t most[3] = {H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED};
  const hsize_t chunk[3] = {CHUNK_ROWS, c->chunk[0], c->chunk[1]};
  for (int i = 0; i < MOST; ++i) {
    values[i] = (float)(i + 1);
  }
  const hid_t made_by = H5Pcreate(H5P_DATASET_CREATE);
  const hid_t space = H5Screate_simple(c->rank, shape, most);
  assert_true(H5Pset_chunk(made_by, c->rank, chunk) >= 0);
  assert_true(H5Pset_fill_value(made_by, H5T_NATIVE_FLOAT, &fill) >= 0);
  assert_true(!c->packed || H5Pset_deflate(made_by, 1) >= 0);
  const hid_t type = c->big_endian      ? H5T_IEEE_F32BE
                     : c->whole_numbers ? H5T_STD_I32LE
                                        : H5T_IEEE_F32LE;
  const hid_t id = H5Dcreate2(file, c->name, type, space, H5P_DEFAULT, made_by, H5P_DEFAULT);
  assert_true(id >= 0);
  shape[0] = c->gaps ? CHUNK_ROWS : ROWS; /* the chunks after the first are never written */
  const hsize_t start[3] = {0};
  const hid_t memory = H5Screate_simple(c->rank, shape, NULL);
  assert_true(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, shape, NULL) >= 0);
  assert_true(H5Dwrite(id, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, values) >= 0);
  assert_true(H5Sclose(memory) >= 0);
  assert_true(H5Dclose(id) >= 0);
  assert_true(H5Sclose(space) >= 0);
  assert_true(H5Pclose(made_by) >= 0);
}

static void check(lks_h5 *file, const chunk_case *c) {
  float floats[MOST + 1];
  double doubles[MOST];
  lks_h5_dataset *dataset = NULL;
  const int64_t width = (int64_t)((c->rank > 1 ? c->row[0] : 1) * (c->rank > 2 ? c->row[1] : 1));
  assert_ok(lks_h5_dataset_open(file, c->name, &dataset, &err));
  lks_h5_lock();
  const int64_t plain = CAN_READ_CHUNKS ? c->plain : 0;
  assert_int_equal(lks_h5_read_plain(dataset, 0, ROWS, floats), plain);
  assert_int_equal(lks_h5_read_plain(dataset, 0, 7, floats), plain > 0 ? CHUNK_ROWS : 0);
  assert_int_equal(lks_h5_read_plain(dataset, 1, 9, floats), 0); /* begins within a chunk */
  lks_h5_unlock();
  for (int64_t first = 0; first <= ROWS; ++first) {
    for (int64_t count = 0; first + count <= ROWS; ++count) {
      floats[count * width] = -1;
      assert_ok(lks_h5_read_rows_float(dataset, first, count, floats, &err));
      assert_ok(lks_h5_read_rows(dataset, first, count, doubles, &err));
      for (int64_t i = 0; i < count * width; ++i) {
        const int64_t place = first * width + i;
        const bool written = !c->gaps || place < CHUNK_ROWS * width;
        assert_true(doubles[i] == (written ? (double)(place + 1) : 7.5));
        assert_true((double)floats[i] == doubles[i]);
      }
      assert_true(floats[count * width] == -1);
    }
  }
  lks_h5_dataset_close(&dataset);
}

static void test_chunks(void **state) {
  const char *path = scratch_path(*state, "chunks.h5");
  lks_h5 *file = NULL;
  const hid_t made = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(made >= 0);
  for (int i = 0; i < CASES; ++i) {
    make(made, &cases[i]);
  }
  assert_true(H5Fclose(made) >= 0);
  assert_ok(lks_h5_open(path, &file, &err));
  for (int i = 0; i < CASES; ++i) {
    check(file, &cases[i]);
  }
  assert_ok(lks_h5_close(&file, &err));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_chunks)};
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
