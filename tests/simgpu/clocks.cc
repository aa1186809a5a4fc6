/* Lanes, epochs and what the host knows. */
#include <algorithm>

#include "core.h"

namespace sim {

void Clock::add(Epoch epoch) {
  const size_t lane = epoch >> time_bits;
  if (lane >= times_.size())
    times_.resize(lane + 1);
  times_[lane] = std::max(times_[lane], epoch & time_mask);
}

void Clock::join(const Clock &other) {
  if (other.times_.size() > times_.size())
    times_.resize(other.times_.size());
  for (size_t i = 0; i < other.times_.size(); ++i)
    times_[i] = std::max(times_[i], other.times_[i]);
}

struct Lanes {
  std::vector<const char *> names[lane_count]; /* by time - 1 */
  unsigned used = legacy_lane + 1;
  std::vector<unsigned> released;
  Clock host;
};

static Lanes &lanes() {
  static Lanes *const all = [] {
    auto *made = new Lanes;
    made->names[host_lane].push_back("the host");
    made->host.add(host_lane << time_bits | 1);
    return made;
  }();
  return *all;
}

Epoch tick(unsigned lane, const char *name) {
  std::vector<const char *> &names = lanes().names[lane];
  if (names.size() == time_mask)
    finding(Kind::unmodelled, "more than %u operations on one stream", time_mask);
  names.push_back(name);
  return lane << time_bits | static_cast<uint32_t>(names.size());
}

Epoch latest(unsigned lane) {
  const size_t time = lanes().names[lane].size();
  return time == 0 ? 0 : lane << time_bits | static_cast<uint32_t>(time);
}

const char *name_of(Epoch epoch) {
  const std::vector<const char *> &names = lanes().names[epoch >> time_bits];
  const size_t time = epoch & time_mask;
  return time == 0 || time > names.size() ? "nothing" : names[time - 1];
}

unsigned take_lane() {
  Lanes &all = lanes();
  if (all.used < lane_count)
    return all.used++;
  for (size_t i = 0; i < all.released.size(); ++i) {
    const unsigned lane = all.released[i];
    if (!all.host.covers(latest(lane)))
      continue;
    all.released.erase(all.released.begin() + static_cast<ptrdiff_t>(i));
    return lane;
  }
  finding(Kind::unmodelled, "more than %u streams and branches of graphs at a time",
          lane_count - 3);
  return legacy_lane;
}

void release_lane(unsigned lane) {
  lanes().released.push_back(lane);
}

const Clock &host_clock() {
  return lanes().host;
}

void host_joins(const Clock &clock) {
  {
    GuardLock lock;
    lanes().host.join(clock);
  }
  guard_sweep();
}

void host_knows_all() {
  {
    GuardLock lock;
    for (unsigned lane = host_lane; lane < lanes().used; ++lane)
      lanes().host.add(latest(lane));
  }
  guard_sweep();
}

void host_ticks() {
  GuardLock lock;
  lanes().host.add(tick(host_lane, "the host"));
}

} // namespace sim
