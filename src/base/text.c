/* Growing strings, formatting for people, paths, and the nearest name. */
#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool reserve(lks_text *text, size_t more) {
  if (text->failed) {
    return false;
  }
  if (text->length + more + 1 > text->capacity) {
    size_t capacity = text->capacity > 0 ? text->capacity : 128;
    while (capacity < text->length + more + 1) {
      capacity *= 2;
    }
    char *data = realloc(text->data, capacity);
    if (data == NULL) {
      text->failed = true;
      return false;
    }
    text->data = data;
    text->capacity = capacity;
  }
  return true;
}

void lks_text_add_n(lks_text *text, const char *data, size_t length) {
  if (reserve(text, length)) {
    memcpy(text->data + text->length, data, length);
    text->length += length;
    text->data[text->length] = '\0';
  }
}

void lks_text_add(lks_text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  va_list again;
  va_copy(again, arguments);
  const int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  if (length >= 0 && reserve(text, (size_t)length)) {
    (void)vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
    text->length += (size_t)length;
  }
  va_end(again);
}

void lks_text_free(lks_text *text) {
  free(text->data);
  *text = (lks_text){0};
}

char *lks_format_bytes(char out[32], double bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (fabs(bytes) >= 1024.0 && unit + 1 < sizeof units / sizeof units[0]) {
    bytes /= 1024.0;
    ++unit;
  }
  (void)snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
  return out;
}

char *lks_format_duration(char out[32], double seconds) {
  const long long whole = (long long)(seconds + 0.5);
  if (seconds < 10.0) {
    (void)snprintf(out, 32, "%.1fs", seconds);
  } else if (whole < 60) {
    (void)snprintf(out, 32, "%llds", whole);
  } else if (whole < 3600) {
    (void)snprintf(out, 32, "%lldm %02llds", whole / 60, whole % 60);
  } else {
    (void)snprintf(out, 32, "%lldh %02lldm", whole / 3600, whole % 3600 / 60);
  }
  return out;
}

char *lks_format_count(char out[32], int64_t count) {
  char digits[24];
  const int length = snprintf(digits, sizeof digits, "%lld", (long long)count);
  const int first = digits[0] == '-' ? 1 : 0;
  size_t used = 0;
  for (int i = 0; i < length; ++i) {
    if (i > first && (length - i) % 3 == 0) {
      out[used++] = ',';
    }
    out[used++] = digits[i];
  }
  out[used] = '\0';
  return out;
}

char *lks_format_real(char out[32], double value) {
  for (int precision = 1; precision <= 17; ++precision) {
    (void)snprintf(out, 32, "%.*g", precision, value);
    if (strtod(out, NULL) == value) {
      break;
    }
  }
  return out;
}

/* Optimal string alignment distance: edits and swaps of neighbours. Words over 63 characters are
 * nobody's typing error. */
static size_t edit_distance(const char *a, const char *b) {
  enum { MAX = 64 };
  const size_t n = strlen(a), m = strlen(b);
  if (n >= MAX || m >= MAX) {
    return MAX;
  }
  size_t rows[3][MAX];
  for (size_t j = 0; j <= m; ++j) {
    rows[0][j] = j;
  }
  for (size_t i = 1; i <= n; ++i) {
    size_t *now = rows[i % 3];
    const size_t *above = rows[(i - 1) % 3];
    const size_t *two_above = rows[(i + 1) % 3];
    now[0] = i;
    for (size_t j = 1; j <= m; ++j) {
      size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
      best = above[j] + 1 < best ? above[j] + 1 : best;
      best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
          two_above[j - 2] + 1 < best) {
        best = two_above[j - 2] + 1;
      }
      now[j] = best;
    }
  }
  return rows[n % 3][m];
}

const char *lks_nearest(const char *word, const char *const *candidates) {
  const char *nearest = NULL;
  size_t least = SIZE_MAX;
  for (; *candidates != NULL; ++candidates) {
    const size_t distance = edit_distance(word, *candidates);
    const size_t word_length = strlen(word), length = strlen(*candidates);
    const size_t longer = word_length > length ? word_length : length;
    if (distance * 3 <= longer && distance < least) {
      least = distance;
      nearest = *candidates;
    }
  }
  return nearest;
}

static double read_clock(clockid_t clock) {
  struct timespec now;
  (void)clock_gettime(clock, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double lks_now(void) {
  return read_clock(CLOCK_MONOTONIC);
}

double lks_now_coarse(void) {
  return read_clock(CLOCK_MONOTONIC_COARSE);
}

char *lks_timestamp(char out[32]) {
  const time_t now = time(NULL);
  struct tm parts;
  if (gmtime_r(&now, &parts) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) {
    out[0] = '\0';
  }
  return out;
}

/* Length of a well-formed sequence by its first byte, with the least code point of that length. */
static size_t sequence_length(unsigned char lead, uint32_t *least) {
  if (lead < 0x80) {
    *least = 0;
    return 1;
  }
  if ((lead & 0xe0) == 0xc0) {
    *least = 0x80;
    return 2;
  }
  if ((lead & 0xf0) == 0xe0) {
    *least = 0x800;
    return 3;
  }
  if ((lead & 0xf8) == 0xf0) {
    *least = 0x10000;
    return 4;
  }
  return 0;
}

size_t lks_utf8_decode(const char *s, uint32_t *point) {
  const unsigned char *bytes = (const unsigned char *)s;
  uint32_t least = 0;
  const size_t length = sequence_length(bytes[0], &least);
  if (length == 0) {
    return 0;
  }
  uint32_t value = length == 1 ? bytes[0] : bytes[0] & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((bytes[i] & 0xc0) != 0x80) {
      return 0;
    }
    value = value << 6 | (bytes[i] & 0x3fu);
  }
  if (value < least || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
    return 0;
  }
  *point = value;
  return length;
}

bool lks_is_utf8(const char *text) {
  uint32_t point = 0;
  size_t length = 1;
  while (*text != '\0' && length > 0) {
    length = lks_utf8_decode(text, &point);
    text += length;
  }
  return length > 0;
}

/* Whether ".." behind the path that ends before `end`, at a slash, takes its last part away. */
static bool can_go_up(char *path, const char *floor, char *end) {
  struct stat about;
  const bool up = end - floor >= 3 && memcmp(end - 3, "../", 3) == 0 &&
                  (end - 3 == floor || end[-4] == '/'); /* one that stayed */
  end[-1] = '\0';
  const bool link = lstat(path, &about) == 0 && S_ISLNK(about.st_mode);
  end[-1] = '/';
  return !up && !link;
}

/* Drops "." and empty parts, and ".." with the part before it, in place; path is absolute. */
static void normalise(char *path) {
  char *out = path + 1;
  const char *const floor = out;
  const char *in = out;
  while (*in != '\0') {
    const char *end = strchr(in, '/');
    const size_t length = end != NULL ? (size_t)(end - in) : strlen(in);
    const char *next = in + length + (end != NULL ? 1 : 0);
    const bool dot = length == 1 && in[0] == '.';
    const bool up = length == 2 && in[0] == '.' && in[1] == '.';
    if (up && out > floor && can_go_up(path, floor, out)) {
      --out; /* the slash after the part that goes */
      while (out > floor && out[-1] != '/') {
        --out;
      }
    } else if (length > 0 && !dot && !(up && out == floor)) {
      memmove(out, in, length);
      out += length;
      *out++ = '/';
    }
    in = next;
  }
  if (out > floor) {
    --out;
  }
  *out = '\0';
}

lks_status lks_path_resolve(lks_arena *arena, const char *folder, const char *path,
                            const char **out, lks_error *err) {
  lks_status st = LKS_OK;
  char current[4096] = "";
  if (path[0] == '~' && (path[1] == '/' || path[1] == '\0')) { /* no shell has replaced it */
    folder = getenv("HOME");
    if (folder == NULL || folder[0] != '/') {
      FAIL(LKS_CONFIG, "write the whole path", "%s: HOME, which ~ stands for, is not set", path);
    }
    path += path[1] == '/' ? 2 : 1;
  }
  if (path[0] != '/' && (folder == NULL || folder[0] != '/') &&
      getcwd(current, sizeof current) == NULL) {
    if (errno == ENOENT) {
      FAIL(LKS_CONFIG, "cd to a folder that is there, and run again",
           "the current folder, from which relative paths count, was removed");
    }
    FAIL(LKS_CONFIG, "cd to another folder, or give whole paths",
         "the current folder, from which relative paths count, cannot be told: %s",
         strerror(errno));
  }
  /* One more byte than the path: normalise writes a slash after the last part. */
  const bool absolute = path[0] == '/';
  char *joined =
      lks_arena_print(arena, "%s%s%s%s%s ", absolute ? "" : current, absolute ? "" : "/",
                      absolute || folder == NULL ? "" : folder, absolute ? "" : "/", path);
  TRY_ALLOC(joined);
  joined[strlen(joined) - 1] = '\0';
  normalise(joined);
  *out = joined;
cleanup:
  return st;
}

lks_status lks_path_check_utf8(const char *path, lks_error *err) {
  if (!lks_is_utf8(path)) {
    return lks_fail(err, LKS_CONFIG, "rename the folder or file, or work in another folder",
                    "%s: the path is not UTF-8, and a configuration holds nothing else", path);
  }
  return LKS_OK;
}

char *lks_path_folder(lks_arena *arena, const char *path) {
  const char *slash = strrchr(path, '/');
  if (slash == NULL) {
    return lks_arena_copy(arena, ".");
  }
  return lks_arena_copy_n(arena, path, slash == path ? 1 : (size_t)(slash - path));
}

const char *lks_path_base(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash != NULL ? slash + 1 : path;
}

bool lks_ends_with(const char *path, const char *suffix) {
  const size_t length = strlen(path), tail = strlen(suffix);
  return length >= tail && strcmp(path + length - tail, suffix) == 0;
}
