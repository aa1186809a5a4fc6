/* Writing aside, folders, hashes. */
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/text.h"
#include "store/files.h"

static lks_error err;

static void test_write_text(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "log.jsonl");
  size_t bytes = 0;
  assert_ok(lks_file_write_text(path, "first", 5, &err));
  assert_ok(lks_file_write_text(path, "second\n", 7, &err));
  char *text = scratch_read(path, &bytes);
  assert_string_equal(text, "second\n");
  free(text);
  lks_arena arena = {0};
  const char *aside = lks_aside_path(&arena, path);
  assert_int_equal(access(aside, F_OK), -1);
  assert_non_null(strstr(aside, "/.log.jsonl.tmp-"));
  assert_int_equal(strncmp(lks_aside_path(&arena, "plain"), "./.plain.tmp-", 13), 0);
  lks_arena_free(&arena);
  assert_fails(lks_file_write_text(scratch_path(at, "none/x"), "x", 1, &err), LKS_STORAGE,
               "cannot write", "none/x", "No such file or directory");
  /* A folder in the way: the rename fails, and nothing is left aside. */
  assert_ok(lks_folder_make(scratch_path(at, "way/below"), &err));
  assert_fails(lks_file_write_text(scratch_path(at, "way"), "x", 1, &err), LKS_STORAGE,
               "cannot write", "way", "Is a directory");
  assert_int_equal(rmdir(scratch_path(at, "way/below")), 0);
  assert_int_equal(rmdir(scratch_path(at, "way")), 0);
}

static void test_publish_missing(void **state) {
  scratch *at = *state;
  assert_fails(lks_file_publish(scratch_path(at, ".x.tmp-1"), scratch_path(at, "x"), &err),
               LKS_STORAGE, "cannot write", "No such file");
}

static lks_status write_large(void *user, lks_error *mistake) {
  static char text[200000];
  scratch_limit_files(100000);
  return lks_file_write_text(user, text, sizeof(text), mistake);
}

static void test_write_full(void **state) {
  scratch *at = *state;
  char *path = lks_arena_copy(&at->paths, scratch_path(at, "large.txt"));
  size_t bytes = 0;
  assert_ok(lks_file_write_text(path, "old", 3, &err));
  assert_fails(scratch_in_child(write_large, path, &err), LKS_STORAGE, "cannot write", "large.txt",
               "File too large");
  char *text = scratch_read(path, &bytes);
  assert_string_equal(text, "old");
  free(text);
  assert_int_equal(scratch_count(at->folder, ".large"), 0);
}

static void test_fail_write(void **state) {
  scratch *at = *state;
  assert_int_equal(lks_fail_write(&err, scratch_path(at, "a/b/c"), ENOSPC), LKS_STORAGE);
  scratch_words(&err, "cannot write", "a/b/c: No space left on device (", " free)",
                (const char *)NULL);
  assert_non_null(strstr(err.remedy, "free space"));
  assert_int_equal(lks_fail_write(&err, "/x", EACCES), LKS_STORAGE);
  scratch_words(&err, "cannot write /x: Permission denied", (const char *)NULL);
  assert_non_null(strstr(err.remedy, "write permission"));
  assert_true(lks_disk_free(at->folder) > 0);
  assert_true(lks_disk_free(scratch_path(at, "not/yet/there")) > 0);
}

static void test_folders(void **state) {
  scratch *at = *state;
  struct stat about;
  const char *deep = scratch_path(at, "a/b//c/");
  assert_ok(lks_folder_make(deep, &err));
  assert_ok(lks_folder_make(deep, &err));
  assert_int_equal(stat(scratch_path(at, "a/b/c"), &about), 0);
  assert_true(S_ISDIR(about.st_mode));
  assert_ok(lks_folder_writable(deep, &err));
  scratch_write(scratch_path(at, "a/file"), "x", 1);
  assert_fails(lks_folder_make(scratch_path(at, "a/file/d"), &err), LKS_STORAGE,
               "cannot make folder", "a/file is not a folder");
  const char *link = scratch_path(at, "a/link");
  assert_int_equal(symlink("nowhere", link), 0);
  assert_fails(lks_folder_make(link, &err), LKS_STORAGE, "cannot make folder", "a link to nothing");
  assert_non_null(strstr(err.remedy, "make what the link names"));
  assert_fails(lks_folder_make(scratch_path(at, "a/file"), &err), LKS_STORAGE,
               "a/file is not a folder");
  assert_fails(lks_folder_make("/proc/none/x", &err), LKS_STORAGE, "/proc/none");
  assert_fails(lks_folder_writable(scratch_path(at, "none"), &err), LKS_STORAGE, "cannot write",
               "none");
  if (geteuid() != 0) {
    assert_int_equal(chmod(scratch_path(at, "a/b/c"), 0555), 0);
    assert_fails(lks_folder_writable(deep, &err), LKS_STORAGE, "Permission denied");
    assert_int_equal(chmod(scratch_path(at, "a/b/c"), 0755), 0);
  }
}

static void test_sweep(void **state) {
  scratch *at = *state;
  static const char *const gone[] = {
      "run/.config.yaml.tmp-1", "run/.history.h5.tmp-123456789", "run/.model.weights.h5.tmp-77",
      "run/checkpoints/.step-00000001.weights.h5.tmp-3", "run/checkpoints/.best.weights.h5.tmp-3"};
  static const char *const kept[] = {"run/config.yaml",
                                     "run/.lock",
                                     "run/.other.h5.tmp-1",
                                     "run/.config.yaml.tmp-",
                                     "run/.config.yaml.tmp-x1",
                                     "run/config.yaml.tmp-1",
                                     "run/checkpoints/step-00000001.weights.h5"};
  assert_ok(lks_folder_make(scratch_path(at, "run/checkpoints"), &err));
  for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); ++i) {
    scratch_write(scratch_path(at, gone[i]), "x", 1);
  }
  for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); ++i) {
    scratch_write(scratch_path(at, kept[i]), "x", 1);
  }
  lks_folder_sweep(scratch_path(at, "run"));
  lks_folder_sweep(scratch_path(at, "none"));
  for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); ++i) {
    assert_int_equal(access(scratch_path(at, gone[i]), F_OK), -1);
  }
  for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); ++i) {
    assert_int_equal(access(scratch_path(at, kept[i]), F_OK), 0);
  }
}

static void test_hash(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "hashed");
  const size_t bytes = 3000001; /* over two blocks */
  unsigned char *data = malloc(bytes);
  assert_non_null(data);
  for (size_t i = 0; i < bytes; ++i) {
    data[i] = (unsigned char)(i * 7);
  }
  scratch_write(path, data, bytes);
  uint64_t hash = 0;
  assert_ok(lks_file_hash(path, -1, &hash, &err));
  assert_true(hash == XXH64(data, bytes, 0));
  assert_ok(lks_file_hash(path, 1048577, &hash, &err));
  assert_true(hash == XXH64(data, 1048577, 0));
  assert_ok(lks_file_hash(path, 0, &hash, &err));
  assert_true(hash == XXH64(data, 0, 0));
  assert_fails(lks_file_hash(path, (int64_t)bytes + 5, &hash, &err), LKS_STORAGE, "hashed",
               "truncated: 5 bytes");
  assert_fails(lks_file_hash(scratch_path(at, "none"), -1, &hash, &err), LKS_STORAGE, "none",
               "No such file");
  assert_fails(lks_file_hash(at->folder, -1, &hash, &err), LKS_STORAGE, "cannot read");
  free(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_write_text), cmocka_unit_test(test_publish_missing),
      cmocka_unit_test(test_write_full), cmocka_unit_test(test_fail_write),
      cmocka_unit_test(test_folders),    cmocka_unit_test(test_sweep),
      cmocka_unit_test(test_hash),
  };
  return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
