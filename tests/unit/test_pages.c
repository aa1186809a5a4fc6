/* lks_pages_alloc: where it begins, that it is zeroed, and what does not fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/pages.h"

static void test_zeroed(void **state) {
  (void)state;
  static const size_t sizes[] = {0, 1, 4096, 4097, (2 << 20) - 1, 2 << 20, (5 << 20) + 3};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    unsigned char *memory = lks_pages_alloc(sizes[i]);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 4096, 0);
    for (size_t k = 0; k < sizes[i]; ++k) {
      assert_int_equal(memory[k], 0);
      memory[k] = 0xff; /* so that the next one is not zero by chance */
    }
    free(memory);
  }
}

static void test_too_much(void **state) {
  (void)state;
  assert_null(lks_pages_alloc(SIZE_MAX));
}

/* A wish for less than a page, or none, is no error. */
static void test_advise(void **state) {
  (void)state;
  char few[100] = {0};
  lks_pages_advise(few, sizeof few);
  lks_pages_advise(few, 0);
  assert_int_equal(few[0], 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_zeroed), cmocka_unit_test(test_too_much),
                                     cmocka_unit_test(test_advise)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
