/* Issued operations and the order they run in: any whose predecessors are done may be next. */
#include <algorithm>
#include <sched.h>
#include <unistd.h>

#include "core.h"

namespace sim {

struct Engine {
  std::vector<TaskPtr> ready; /* predecessors done */
  size_t unfinished = 0;      /* issued, not done */
  TaskPtr running;
  cudaError_t error = cudaSuccess;
};

static Engine &engine() {
  static Engine *const one = new Engine;
  return *one;
}

static bool lazy() {
  static const bool value = setting("SIMGPU_LAZY", 0) != 0;
  return value;
}

Task *running() {
  return engine().running.get();
}

uint32_t current_epoch() {
  return engine().running ? engine().running->epoch : 0;
}

void device_fails(cudaError_t error) {
  if (engine().error == cudaSuccess)
    engine().error = error;
}

cudaError_t device_error() {
  return engine().error;
}

void drop_tasks() {
  Engine &e = engine();
  e.ready.clear();
  e.unfinished = 0;
  e.error = cudaSuccess;
}

TaskPtr issue(Op op, unsigned lane, const std::vector<TaskPtr> &after) {
  Engine &e = engine();
  const TaskPtr task = std::make_shared<Task>();
  task->clock = host_clock();
  for (const TaskPtr &other : after) {
    if (!other)
      continue;
    task->clock.join(other->clock);
    if (!other->done) {
      ++task->unfinished;
      other->followers.push_back(task);
    }
  }
  if (op.issue)
    op.issue(op);
  task->epoch = tick(lane, op.name);
  task->clock.add(task->epoch);
  host_ticks();
  guard_add(op, task->epoch);
  task->op = std::move(op);
  ++e.unfinished;
  if (task->unfinished == 0)
    e.ready.push_back(task);
  return task;
}

static void run(const TaskPtr &task) {
  Engine &e = engine();
  e.running = task;
  {
    Open open;
    for (const bool write : {false, true})
      for (const Span &span : task->op.spans)
        if (span.write == write)
          access(span.pointer, span.bytes, write, task->op.name);
    if (task->op.run)
      task->op.run();
  }
  e.running = nullptr;
  count(Counter::operations_run);
  if (e.error != cudaSuccess)
    return;
  task->done = true;
  --e.unfinished;
  for (const TaskPtr &next : task->followers)
    if (--next->unfinished == 0)
      e.ready.push_back(next);
  task->followers.clear();
  task->op = Op();
}

bool step() {
  Engine &e = engine();
  if (e.error != cudaSuccess || e.ready.empty() || e.running)
    return false;
  const size_t start = random() % e.ready.size();
  for (size_t i = 0; i < e.ready.size(); ++i) {
    const size_t place = (start + i) % e.ready.size();
    const TaskPtr task = e.ready[place];
    if (task->op.ready && !task->op.ready())
      continue;
    e.ready[place] = e.ready.back();
    e.ready.pop_back();
    run(task);
    return true;
  }
  return false;
}

/* Nothing ran: peers must act first. Gives them the processor, for longer the longer it lasts. */
static void wait_for_peers(unsigned turns) {
  if (turns < 100)
    sched_yield();
  else
    usleep(turns < 1000 ? 20 : 500);
}

void drive_until(const std::function<bool()> &done) {
  Engine &e = engine();
  for (unsigned idle = 0; e.error == cudaSuccess && !done();) {
    {
      Open open;
      for (; !done() && step(); idle = 0) {
      }
    }
    if (e.error != cudaSuccess || done())
      return;
    if (e.ready.empty()) {
      finding(Kind::deadlock, "the host waits for what nothing in the queues will do");
      return;
    }
    wait_for_peers(idle++);
  }
}

void drive_all() {
  drive_until([] { return engine().unfinished == 0; });
}

void maybe_progress() {
  if (lazy())
    return;
  const uint64_t choice = random() % 8;
  if (choice < 4)
    return;
  /* 4 to 6: a few; 7: all. */
  const size_t limit = choice == 7 ? SIZE_MAX : 1 + random() % 4;
  Open open;
  for (size_t i = 0; i < limit && step(); ++i) {
  }
}

void query_progress() {
  static unsigned queries;
  const int64_t before = counted(Counter::operations_run);
  if (lazy() && ++queries % 3 == 0)
    step();
  maybe_progress();
  if (counted(Counter::operations_run) == before)
    sched_yield(); /* peers may be what it waits for */
}

} // namespace sim
