/* Faults by call count: SIMGPU_FAIL="name[@rank]:N[+]=code, ...". */
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>

#include "core.h"

namespace sim {

enum { code_kill = -1, code_hang = -2 };

struct Fault {
  std::string call;
  long from = 0;
  bool onwards = false;
  int code = 0;
  long seen = 0;
};

static void refuse(const std::string &entry) {
  finding(Kind::internal, "SIMGPU_FAIL: '%s' is not name[@rank]:N[+]=code", entry.c_str());
}

static int code_of(const std::string &text) {
  if (text == "kill")
    return code_kill;
  return text == "hang" ? code_hang : atoi(text.c_str());
}

/* One entry; skipped when it is for another rank. */
static void parse(const std::string &entry, std::vector<Fault> &faults) {
  const size_t equals = entry.find('='), colon = entry.find(':');
  if (colon == std::string::npos || equals == std::string::npos || equals < colon) {
    refuse(entry);
    return;
  }
  std::string call = entry.substr(0, colon);
  const size_t at = call.find('@');
  if (at != std::string::npos && atoi(call.c_str() + at + 1) != rank())
    return;
  Fault fault;
  fault.call = call.substr(0, at);
  fault.from = atol(entry.c_str() + colon + 1);
  fault.onwards = entry[equals - 1] == '+';
  fault.code = code_of(entry.substr(equals + 1));
  if (fault.from < 1 || fault.code == 0)
    refuse(entry);
  faults.push_back(fault);
}

static std::vector<Fault> &faults() {
  static std::vector<Fault> *const list = [] {
    auto *all = new std::vector<Fault>;
    const char *text = getenv("SIMGPU_FAIL");
    const std::string entries = text ? text : "";
    for (size_t start = 0; start < entries.size();) {
      const size_t comma = entries.find(',', start);
      parse(entries.substr(start, comma - start), *all);
      start = comma == std::string::npos ? entries.size() : comma + 1;
    }
    return all;
  }();
  return *list;
}

int injected(const char *call) {
  int code = 0;
  for (Fault &fault : faults()) {
    if (fault.call != call)
      continue;
    ++fault.seen;
    if (fault.seen == fault.from || (fault.onwards && fault.seen > fault.from))
      code = fault.code;
  }
  if (code == code_kill)
    raise(SIGKILL);
  while (code == code_hang)
    pause();
  return code;
}

} // namespace sim
