/* The table of device errors: every class, every code that users meet, no text twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "device/errors.h"

static void no_code_and_no_text_twice(void **state) {
  (void)state;
  int count = 0;
  const lks_device_error *table = lks_device_errors(&count);
  for (int i = 0; i < count; ++i) {
    assert_true(table[i].advice[0] != '\0');
    assert_null(strchr(table[i].advice, '\n'));
    for (int j = 0; j < i; ++j) {
      assert_false(table[i].library == table[j].library && table[i].code == table[j].code);
      /* Advice is in arrays, which no linker merges: equal texts at two places were written twice.
       */
      if (strcmp(table[i].advice, table[j].advice) == 0) {
        assert_ptr_equal(table[i].advice, table[j].advice);
      }
    }
  }
}

static void every_class_is_there_and_has_its_exit_code(void **state) {
  (void)state;
  int count = 0, seen[LKS_CLASS_INTERNAL + 1] = {0};
  const lks_device_error *table = lks_device_errors(&count);
  for (int i = 0; i < count; ++i) {
    seen[table[i].class_] += 1;
    assert_int_equal(lks_exit_code(table[i].status),
                     table[i].class_ == LKS_CLASS_COMMUNICATION ? 5 : 4);
  }
  for (int class_ = 0; class_ <= LKS_CLASS_INTERNAL; ++class_) {
    assert_true(seen[class_] > 0);
    for (int other = 0; other < class_; ++other) {
      assert_string_not_equal(lks_device_class_name((lks_device_class)class_),
                              lks_device_class_name((lks_device_class)other));
    }
  }
}

static void codes_mean_what_they_should(void **state) {
  (void)state;
  static const struct {
    lks_library library;
    int code;
    lks_device_class class_;
    const char *advice; /* a word of it */
  } rows[] = {
      {LKS_LIB_CUDA, 2, LKS_CLASS_MEMORY, "batch_size"},
      {LKS_LIB_CUDA, 3, LKS_CLASS_DRIVER, "dmesg"},
      {LKS_LIB_CUDA, 34, LKS_CLASS_DRIVER, "stubs"},
      {LKS_LIB_CUDA, 35, LKS_CLASS_DRIVER, "newer driver"},
      {LKS_LIB_CUDA, 46, LKS_CLASS_BUSY, "exclusive"},
      {LKS_LIB_CUDA, 100, LKS_CLASS_NOT_FOUND, "diagnose"},
      {LKS_LIB_CUDA, 101, LKS_CLASS_NOT_FOUND, "ordinals"},
      {LKS_LIB_CUDA, 200, LKS_CLASS_CODE, "compute capability"},
      {LKS_LIB_CUDA, 209, LKS_CLASS_CODE, "compute capability"},
      {LKS_LIB_CUDA, 214, LKS_CLASS_HARDWARE, "--exclude"},
      {LKS_LIB_CUDA, 217, LKS_CLASS_COMMUNICATION, "P2P"},
      {LKS_LIB_CUDA, 220, LKS_CLASS_HARDWARE, "nvlink"},
      {LKS_LIB_CUDA, 221, LKS_CLASS_CODE, "ptxjitcompiler"},
      {LKS_LIB_CUDA, 222, LKS_CLASS_CODE, "machine"},
      {LKS_LIB_CUDA, 226, LKS_CLASS_HARDWARE, "reset"},
      {LKS_LIB_CUDA, 700, LKS_CLASS_INTERNAL, "report"},
      {LKS_LIB_CUDA, 719, LKS_CLASS_INTERNAL, "report"},
      {LKS_LIB_CUDA, 802, LKS_CLASS_DRIVER, "fabricmanager"},
      {LKS_LIB_CUDA, 803, LKS_CLASS_DRIVER, "reboot"},
      {LKS_LIB_CUDA, 804, LKS_CLASS_DRIVER, "compat"},
      {LKS_LIB_CUDA, 805, LKS_CLASS_BUSY, "MPS"},
      {LKS_LIB_CUDA, 901, LKS_CLASS_INTERNAL, "report"},
      {LKS_LIB_CUBLAS, 1, LKS_CLASS_DRIVER, "diagnose"},
      {LKS_LIB_CUBLAS, 3, LKS_CLASS_MEMORY, "batch_size"},
      {LKS_LIB_CUBLAS, 8, LKS_CLASS_CODE, "build"},
      {LKS_LIB_NCCL, 1, LKS_CLASS_COMMUNICATION, "NCCL_DEBUG=WARN"},
      {LKS_LIB_NCCL, 2, LKS_CLASS_COMMUNICATION, "/dev/shm"},
      {LKS_LIB_NCCL, 5, LKS_CLASS_COMMUNICATION, "GPU of its own"},
      {LKS_LIB_NCCL, 6, LKS_CLASS_COMMUNICATION, "other ranks"},
      {LKS_LIB_NVML, 15, LKS_CLASS_HARDWARE, "administrator"},
      {LKS_LIB_NVML, 18, LKS_CLASS_DRIVER, "versions"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
    const lks_device_error *row = lks_device_error_of(rows[i].library, rows[i].code);
    assert_int_equal(row->library, rows[i].library);
    assert_int_equal(row->code, rows[i].code);
    assert_int_equal(row->class_, rows[i].class_);
    assert_non_null(strstr(row->advice, rows[i].advice));
  }
}

static void an_unknown_code_keeps_the_words_of_its_library(void **state) {
  (void)state;
  lks_error err;
  const lks_gpu_failure failure = {.library = LKS_LIB_NCCL,
                                   .code = 4711,
                                   .name = "ncclFutureError",
                                   .text = "something new went wrong",
                                   .more = "NET/IB : no route",
                                   .expression = "ncclAllReduce(a, b)",
                                   .file = "src/backend/cuda/exchange.c",
                                   .line = 12,
                                   .ordinal = 3,
                                   .device = "NVIDIA H100, GPU-1b6f"};
  assert_int_equal(lks_device_error_of(LKS_LIB_NCCL, 4711)->class_, LKS_CLASS_INTERNAL);
  assert_int_equal(lks_device_fail(&failure, &err), LKS_DEVICE);
  assert_string_equal(err.what,
                      "GPU 3 (NVIDIA H100, GPU-1b6f): internal: NCCL ncclFutureError (4711), "
                      "something new went wrong, in ncclAllReduce(a, b): NET/IB : no route");
  assert_string_equal(err.remedy, lks_device_error_of(LKS_LIB_NCCL, 4711)->advice);
  assert_non_null(strstr(err.trace, "exchange.c:12"));
}

static void a_silent_failure_is_more_than_a_number(void **state) {
  (void)state;
  lks_error err;
  const lks_gpu_failure failure = {.library = LKS_LIB_CUDA, .code = 2, .ordinal = -1};
  assert_int_equal(lks_device_fail(&failure, &err), LKS_DEVICE);
  assert_string_equal(err.what, "out of memory: CUDA code 2");
  assert_true(strlen(err.remedy) > 20);
}

static void longest_words_fit(void **state) {
  (void)state;
  lks_error err;
  lks_gpu_failure failure = {.library = LKS_LIB_CUBLAS, .code = 14, .ordinal = 1};
  memset(failure.name, 'n', sizeof failure.name - 1);
  memset(failure.text, 't', sizeof failure.text - 1);
  memset(failure.more, 'm', sizeof failure.more - 1);
  memset(failure.expression, 'e', sizeof failure.expression - 1);
  memset(failure.device, 'd', sizeof failure.device - 1);
  assert_int_equal(lks_device_fail(&failure, &err), LKS_DEVICE);
  assert_true(strlen(err.what) < sizeof err.what);
  assert_non_null(strstr(err.what, "internal: cuBLAS nnn"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(no_code_and_no_text_twice),
      cmocka_unit_test(every_class_is_there_and_has_its_exit_code),
      cmocka_unit_test(codes_mean_what_they_should),
      cmocka_unit_test(an_unknown_code_keeps_the_words_of_its_library),
      cmocka_unit_test(a_silent_failure_is_more_than_a_number),
      cmocka_unit_test(longest_words_fit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
