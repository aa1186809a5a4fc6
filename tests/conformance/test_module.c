/* Modules: where they are looked for, what each part of the handshake refuses, and that the answer
 * is kept. What was found stays to the end of a process, so each case has a process of its own. */
#include "../unit/scratch.h"

#include <sys/stat.h>

#include "backend/backend.h"
#include "device/module.h"
#include "world/world.h"

typedef struct wanted {
  const char *folder, *breaks; /* of the environment; NULL: unset */
  lks_module_state state;
  const char *words;
} wanted;

/* In a child: 0 when the module is found as wanted. */
static int look(const wanted *want) {
  (void)unsetenv("LOCKSTEP_BACKEND_DIR");
  if (want->folder != NULL) {
    (void)setenv("LOCKSTEP_BACKEND_DIR", want->folder, 1);
  }
  if (want->breaks != NULL) {
    (void)setenv("LATE_BREAK", want->breaks, 1);
  }
  const lks_module_found *found = lks_module_find("cuda");
  const bool loaded = found->state == LKS_MODULE_LOADED;
  if (found->state != want->state || loaded != (found->module != NULL) ||
      strstr(found->words, want->words) == NULL) {
    (void)fprintf(stderr, "state %d, %s: %s\n", (int)found->state, found->path, found->words);
    return 1;
  }
  return lks_module_find("cuda") == found ? 0 : 2;
}

static void check(const wanted *want) {
  int how = 0;
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    _exit(look(want));
  }
  assert_int_equal(waitpid(child, &how, 0), child);
  assert_true(WIFEXITED(how));
  assert_int_equal(WEXITSTATUS(how), 0);
}

static void test_handshake(void **state) {
  (void)state;
  static const wanted all[] = {
      {LATE_FOLDER, NULL, LKS_MODULE_LOADED, ""},
      {LATE_FOLDER, "magic", LKS_MODULE_FOREIGN, "no module of lockstep"},
      {LATE_FOLDER, "abi", LKS_MODULE_FOREIGN, "its module ABI is 2, this program's 1"},
      {LATE_FOLDER, "size", LKS_MODULE_FOREIGN, "its table has"},
      {LATE_FOLDER, "version", LKS_MODULE_FOREIGN, "its version is 0.0.0, this program's"},
      {LATE_FOLDER, "plan", LKS_MODULE_FOREIGN, "plan and model have"},
      {LATE_FOLDER, "gpu", LKS_MODULE_FOREIGN, "its device functions have"},
      {LATE_FOLDER, "empty", LKS_MODULE_FOREIGN, "no backend or no device functions"},
      {LATE_FOLDER, "refuse", LKS_MODULE_FOREIGN, "refuses this program"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    check(&all[i]);
  }
}

/* In a child, whose current folder has a file of that name: it is not the one looked at. */
static lks_status look_beside(void *user, lks_error *err) {
  const scratch *at = user;
  (void)err;
  (void)unsetenv("LOCKSTEP_BACKEND_DIR");
  if (chdir(at->folder) != 0 || access("cuda.so", F_OK) != 0) {
    return LKS_INTERNAL;
  }
  const char *path = lks_module_find("cuda")->path;
  return path[0] == '/' && strncmp(path, at->folder, strlen(at->folder)) != 0 &&
                 strstr(path, "/lockstep/cuda.so") != NULL
             ? LKS_OK
             : LKS_INTERNAL;
}

/* LOCKSTEP_BACKEND_DIR is looked in alone; an empty one counts as none. */
static void test_places(void **state) {
  scratch *at = *state;
  check(&(wanted){at->folder, NULL, LKS_MODULE_ABSENT, ""});
  check(&(wanted){"/no/such/folder", NULL, LKS_MODULE_ABSENT, ""});
  scratch_write(scratch_path(at, "cuda.so"), "not a shared object", 19);
  check(&(wanted){at->folder, NULL, LKS_MODULE_BROKEN, "cuda.so"}); /* in the loader's own words */
  lks_error err;
  assert_int_equal(scratch_in_child(look_beside, at, &err), LKS_OK);
}

static void test_unknown_name(void **state) {
  (void)state;
  const lks_module_found *found = lks_module_find("abacus");
  assert_int_equal(found->state, LKS_MODULE_ABSENT);
  assert_null(found->module);
}

/* A library of another kind has no entry. */
static void test_no_entry(void **state) {
  scratch *at = *state;
  const char *path = scratch_path(at, "cuda.so");
  assert_int_equal(symlink(OTHER_LIBRARY, path), 0);
  check(&(wanted){at->folder, NULL, LKS_MODULE_FOREIGN, "no function lks_module_entry"});
}

/* In a child, which starts MPI: a backend whose module is not there, and one that nobody knows. */
static lks_status open_backends(void *user, lks_error *err) {
  (void)user;
  lks_world *world = NULL;
  lks_backend backend;
  (void)setenv("LOCKSTEP_BACKEND_DIR", "/no/such/folder", 1);
  if (lks_world_open(MPI_COMM_SELF, &world, err) != LKS_OK) {
    return LKS_INTERNAL;
  }
  const lks_plan plan = {.gradients = LKS_BY_ROWS};
  const lks_backend_request request = {.world = world, .plan = &plan, .size = 1};
  const lks_status unknown = lks_backend_open("abacus", &request, &backend, err);
  const bool told = strstr(err->what, "there is no backend 'abacus'") != NULL;
  const lks_status absent = lks_backend_open("cuda", &request, &backend, err);
  lks_world_close(&world);
  return told && unknown == absent ? absent : LKS_INTERNAL;
}

static void test_opening(void **state) {
  (void)state;
  lks_error err;
  assert_int_equal(scratch_in_child(open_backends, NULL, &err), LKS_DEVICE);
  scratch_words(&err, "backend 'cuda' needs the module /no/such/folder/cuda.so", "no such file",
                (const char *)NULL);
  assert_non_null(strstr(err.remedy, "lockstep devices diagnose"));
}

static void test_services(void **state) {
  (void)state;
  const lks_services *services = lks_module_services();
  assert_int_equal(services->magic, LKS_MODULE_MAGIC);
  assert_int_equal(services->abi, LKS_MODULE_ABI);
  assert_int_equal(services->size, sizeof *services);
  assert_non_null(services->version);
  assert_true(services->agree != NULL && services->broadcast != NULL && services->gather != NULL &&
              services->beat != NULL && services->phase != NULL && services->fail != NULL &&
              services->warn != NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_make, scratch_remove)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_handshake), TEST(test_no_entry),
                                     TEST(test_places),    TEST(test_unknown_name),
                                     TEST(test_opening),   TEST(test_services)};
  return cmocka_run_group_tests_name("module", tests, NULL, NULL);
}
