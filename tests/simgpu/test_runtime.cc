/* The simulated runtime itself: what it must let pass and what it must catch.
 *
 * Each case runs in a process of its own, under several seeds and in lazy mode: this program starts
 * itself with the case's name. A case that must be caught has to end in the finding named, under
 * every seed: a race is found by clocks, not by luck. */
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/wait.h>

#include "test_runtime.h"

static std::vector<Case> all_cases() {
  std::vector<Case> all = passing_cases;
  all.insert(all.end(), graph_cases.begin(), graph_cases.end());
  all.insert(all.end(), caught_cases.begin(), caught_cases.end());
  return all;
}

static void put_environment(const Case &one, int seed) {
  setenv("SIMGPU_SEED", std::to_string(seed).c_str(), 1);
  setenv("SIMGPU_LAZY", seed == 0 ? "1" : "0", 1);
  std::string text = one.environment;
  for (char *entry = strtok(text.data(), " "); entry; entry = strtok(nullptr, " ")) {
    char *value = strchr(entry, '=');
    *value = 0;
    setenv(entry, value + 1, 1);
  }
}

/* The case in a child that runs this program anew: exit code and stderr. */
static int run_child(const Case &one, size_t number, int seed, std::string *said) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    put_environment(one, seed);
    execl("/proc/self/exe", "test_runtime", "--case", std::to_string(number).c_str(), nullptr);
    _exit(127);
  }
  close(ends[1]);
  char buffer[512];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;)
    said->append(buffer, static_cast<size_t>(got));
  close(ends[0]);
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Seed 0 is the lazy mode. */
static bool passes(const Case &one, size_t number, int seed) {
  std::string said;
  const int code = run_child(one, number, seed, &said);
  const bool words =
      one.caught ? said.find(std::string("simgpu: ") + one.caught) == 0 : said.empty();
  if (code == one.code && words)
    return true;
  fprintf(stderr, "%s, seed %d: exit code %d, expected %d and '%s', said: %s\n", one.name, seed,
          code, one.code, one.caught ? one.caught : "", said.c_str());
  return false;
}

int main(int argc, char **argv) {
  const std::vector<Case> cases = all_cases();
  if (argc == 3 && strcmp(argv[1], "--case") == 0) {
    cases[static_cast<size_t>(atoi(argv[2]))].run();
    return 0;
  }
  const int seeds = argc == 3 && strcmp(argv[1], "--seeds") == 0 ? atoi(argv[2]) : 3;
  int failures = 0;
  for (size_t i = 0; i < cases.size(); ++i)
    for (int seed = 0; seed <= seeds; ++seed)
      failures += !passes(cases[i], i, seed);
  printf("%zu cases, %d seeds and lazy, %d failures\n", cases.size(), seeds, failures);
  return failures != 0;
}
