/* What the summary and provenance make of the ranks' seats. */
#include "scratch.h"

#include "train/seats.h"

static void seat(lks_seat *out, const char *host, int ordinal, int visible) {
  *out = (lks_seat){.ordinal = ordinal, .visible = visible};
  (void)snprintf(out->host, sizeof out->host, "%s", host);
  (void)snprintf(out->uuid, sizeof out->uuid, "GPU-%s-%d", host, ordinal);
}

static void check(void (*write)(const lks_seat *, int, lks_text *), const lks_seat *seats,
                  int count, const char *expected) {
  lks_text text = {0};
  write(seats, count, &text);
  assert_string_equal(text.data != NULL ? text.data : "", expected);
  lks_text_free(&text);
}

/* n1 shows both of its ranks all four GPUs, n2 has two for two, n3 three for one. */
static void test_gpus(void **state) {
  (void)state;
  lks_seat seats[5];
  seat(&seats[0], "n1", 0, 4);
  seat(&seats[1], "n1", 1, 4);
  seat(&seats[2], "n2", 0, 2);
  seat(&seats[3], "n2", 1, 2);
  seat(&seats[4], "n3", 2, 3);
  check(lks_seats_hosts, seats, 5, "n1 x 2, n2 x 2, n3 x 1");
  check(lks_seats_uuids, seats, 5, "GPU-n1-0, GPU-n1-1, GPU-n2-0, GPU-n2-1, GPU-n3-2");
  check(lks_seats_idle, seats, 5, "2 on n1, 2 on n3");
  check(lks_seats_idle, seats + 2, 2, "");
}

/* Where each rank is shown one GPU alone, nothing is said of others. */
static void test_one_shown_to_each(void **state) {
  (void)state;
  lks_seat seats[2];
  seat(&seats[0], "n1", 0, 1);
  seat(&seats[1], "n1", 0, 1);
  check(lks_seats_idle, seats, 2, "");
}

static void test_cpu(void **state) {
  (void)state;
  lks_seat seats[2];
  seat(&seats[0], "n1", -1, 0);
  seat(&seats[1], "n1", -1, 0);
  check(lks_seats_uuids, seats, 2, "");
  check(lks_seats_idle, seats, 2, "");
  check(lks_seats_hosts, seats, 2, "n1 x 2");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gpus),
      cmocka_unit_test(test_one_shown_to_each),
      cmocka_unit_test(test_cpu),
  };
  return cmocka_run_group_tests_name("seats", tests, NULL, NULL);
}
