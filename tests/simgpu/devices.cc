/* The devices of this host, and which of them CUDA_VISIBLE_DEVICES leaves. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>

#include "core.h"

namespace sim {

static int device_now;

static const std::string &host_name() {
  static const std::string *const name = [] {
    const char *text = getenv("SIMGPU_HOST");
    char own[256] = "";
    if (!text)
      gethostname(own, sizeof own - 1);
    return new std::string(text ? text : own);
  }();
  return *name;
}

/* From host and physical ordinal alone: all processes of a host agree. */
static cudaUUID_t uuid_of(int physical) {
  cudaUUID_t uuid;
  uint64_t hash = 0xcbf29ce484222325U; /* FNV-1a */
  for (const char c : host_name() + "/" + std::to_string(physical))
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  for (size_t i = 0; i < sizeof uuid.bytes; ++i) {
    hash = (hash ^ i) * 0x100000001b3U;
    uuid.bytes[i] = static_cast<char>(hash >> 40);
  }
  return uuid;
}

std::string uuid_text(const cudaUUID_t &uuid) {
  std::string text = "GPU-";
  for (size_t i = 0; i < sizeof uuid.bytes; ++i) {
    char pair[4];
    snprintf(pair, sizeof pair, "%02x", static_cast<unsigned char>(uuid.bytes[i]));
    text += pair;
    if (i == 3 || i == 5 || i == 7 || i == 9)
      text += '-';
  }
  return text;
}

/* The physical ordinal that an entry of CUDA_VISIBLE_DEVICES names; -1: none. */
static int named(const std::string &entry, int present) {
  if (entry.rfind("GPU-", 0) == 0) {
    for (int i = 0; i < present; ++i)
      if (uuid_text(uuid_of(i)).rfind(entry, 0) == 0)
        return i;
    return -1;
  }
  char *end;
  const long ordinal = strtol(entry.c_str(), &end, 10);
  return !entry.empty() && *end == 0 && ordinal >= 0 && ordinal < present
             ? static_cast<int>(ordinal)
             : -1;
}

/* Entries up to the first that names no device; one named twice leaves none. */
static std::vector<int> choose(const char *text, int present) {
  std::vector<int> chosen;
  const std::string entries = text;
  for (size_t start = 0; start <= entries.size();) {
    const size_t comma = std::min(entries.find(',', start), entries.size());
    const int physical = named(entries.substr(start, comma - start), present);
    if (physical < 0)
      break;
    for (const int earlier : chosen)
      if (earlier == physical)
        return {};
    chosen.push_back(physical);
    start = comma + 1;
  }
  return chosen;
}

const std::vector<int> &visible_devices() {
  static const auto *const devices = [] {
    const auto present = static_cast<int>(setting("SIMGPU_DEVICES", 1));
    if (present > max_devices)
      finding(Kind::unmodelled, "more than %d devices", max_devices);
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    auto *list = new std::vector<int>;
    if (text)
      *list = choose(text, present);
    else
      for (int i = 0; i < present; ++i)
        list->push_back(i);
    return list;
  }();
  return *devices;
}

int driver_version() {
  static const auto version = static_cast<int>(setting("SIMGPU_DRIVER", 13000));
  return version;
}

int current_device() {
  return device_now;
}

void set_device(int ordinal) {
  device_now = ordinal;
}

cudaUUID_t device_uuid(int ordinal) {
  return uuid_of(visible_devices()[static_cast<size_t>(ordinal)]);
}

} // namespace sim
