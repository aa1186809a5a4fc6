/* See display.h. */
#include "train/display.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BAR_WIDTH = 20 };

#define REDRAW_SECONDS 0.1

/* Open MPI gives every rank a terminal of its own, wherever its output really goes; then it is
 * mpirun's own output that counts, which the rank beside it can look up. */
static bool shown_on_terminal(void) {
  char path[64], target[256];
  if (isatty(STDOUT_FILENO) != 1 || getenv("OMPI_COMM_WORLD_SIZE") == NULL) {
    return isatty(STDOUT_FILENO) == 1;
  }
  (void)snprintf(path, sizeof path, "/proc/%ld/fd/1", (long)getppid());
  const ssize_t length = readlink(path, target, sizeof target - 1);
  if (length < 0) {
    return false;
  }
  target[length] = '\0';
  return strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0;
}

lks_display lks_display_make(int progress, bool root, int64_t epochs, int64_t steps) {
  const bool bar =
      progress == LKS_PROGRESS_BAR || (progress == LKS_PROGRESS_AUTO && shown_on_terminal());
  return (lks_display){
      .shows = root && progress != LKS_PROGRESS_NONE, .bar = bar, .epochs = epochs, .steps = steps};
}

bool lks_display_due(lks_display *display) {
  if (!display->shows || !display->bar) {
    return false;
  }
  const double now = lks_now();
  if (now - display->drawn < REDRAW_SECONDS) {
    return false;
  }
  display->drawn = now;
  return true;
}

/* "1s 2ms/step" */
static void print_pace(char out[64], double seconds, int64_t steps) {
  const double each = steps > 0 ? seconds / (double)steps : 0.0;
  char total[32];
  lks_format_duration(total, seconds);
  if (each >= 1.0) {
    (void)snprintf(out, 64, "%s %.1fs/step", total, each);
  } else if (each >= 1e-3) {
    (void)snprintf(out, 64, "%s %.0fms/step", total, each * 1e3);
  } else {
    (void)snprintf(out, 64, "%s %.0fus/step", total, each * 1e6);
  }
}

void lks_display_step(lks_display *display, int64_t epoch, int64_t step, double seconds,
                      const char *values) {
  char bar[BAR_WIDTH + 1], pace[64];
  const int64_t done = display->steps > 0 ? BAR_WIDTH * step / display->steps : BAR_WIDTH;
  for (int64_t i = 0; i < BAR_WIDTH; ++i) {
    bar[i] = i < done ? '=' : '.';
  }
  bar[BAR_WIDTH] = '\0';
  print_pace(pace, seconds, step);
  (void)printf("\rEpoch %lld/%lld %lld/%lld [%s] %s - %s\033[K", (long long)epoch,
               (long long)display->epochs, (long long)step, (long long)display->steps, bar, pace,
               values);
  (void)fflush(stdout);
}

void lks_display_epoch(lks_display *display, int64_t epoch, int64_t steps, double seconds,
                       const char *values) {
  if (!display->shows) {
    return;
  }
  char pace[64];
  print_pace(pace, seconds, steps);
  (void)printf("%sEpoch %lld/%lld - %lld/%lld - %s - %s%s\n", display->bar ? "\r" : "",
               (long long)epoch, (long long)display->epochs, (long long)steps,
               (long long)display->steps, pace, values, display->bar ? "\033[K" : "");
  (void)fflush(stdout);
}

void lks_display_number(char out[32], double value) {
  const double size = fabs(value);
  (void)snprintf(out, 32, (size > 1e-3 && size < 1e15) || value == 0.0 ? "%.4f" : "%.4e", value);
}

void lks_display_value(lks_text *text, const char *name, double value) {
  char number[32];
  lks_display_number(number, value);
  lks_text_add(text, "%s%s: %s", text->length > 0 ? " - " : "", name, number);
}
