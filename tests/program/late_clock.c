/* Preloaded into a program under test: its clock of the day is an hour ahead of the system's, as it
 * is for a wait until a time of that clock when the clock has been set back by an hour. */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
  const long code = syscall(SYS_clock_gettime, clock, now);
  if (code == 0 && clock == CLOCK_REALTIME) {
    now->tv_sec += 3600;
  }
  return (int)code;
}
