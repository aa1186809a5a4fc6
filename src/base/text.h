/* Text: growing strings, strict number parsing, formatting for people, paths, time. */
#ifndef LKS_BASE_TEXT_H
#define LKS_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

/* A growing string, always NUL-terminated once something was added. Zero-initialise it.
 * `failed` is set when memory ran out; later additions then do nothing. */
typedef struct lks_text {
  char *data;
  size_t length;
  size_t capacity;
  bool failed;
} lks_text;

void lks_text_add(lks_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void lks_text_add_n(lks_text *text, const char *data, size_t length);
void lks_text_free(lks_text *text);

/* A read-only list of names: count strings, owned by an arena. */
typedef struct lks_texts {
  const char **items;
  int count;
} lks_texts;

/* Strict parsing of the whole string; false (and *out untouched) on anything else.
 * Duration: "90", "90s", "45m", "23h30m", "2d" -> seconds.
 * Bytes: "4096", "64K", "512M", "4G", "1T" (powers of 1024, optional "iB" or "B"). */
bool lks_parse_int64(const char *text, int64_t *out);
bool lks_parse_real(const char *text, double *out);
bool lks_parse_bool(const char *text, bool *out); /* true, false, yes, no, on, off; any case */
bool lks_parse_duration(const char *text, double *seconds);
bool lks_parse_bytes(const char *text, int64_t *bytes);

/* Formatting into the caller's buffer, which is returned. */
char *lks_format_bytes(char out[32], double bytes);      /* "1.5 GiB" */
char *lks_format_duration(char out[32], double seconds); /* "1m 05s", "12s", "3h 20m" */
char *lks_format_count(char out[32], int64_t count);     /* "1,234,567" */
char *lks_format_real(char out[32], double value);       /* shortest text that reads back equal */

/* The candidate nearest to word by edit distance (with transpositions), or NULL where none is
 * near (distance over a third of the longer word). candidates ends in NULL. */
const char *lks_nearest(const char *word, const char *const *candidates);

/* Seconds of the monotonic clock. */
double lks_now(void);

/* The same by a clock that ticks every few milliseconds and is cheaper to read: sums of many short
 * spans are right, single ones are not. */
double lks_now_coarse(void);

/* "2026-11-24T13:09:38Z" of the wall clock. */
char *lks_timestamp(char out[32]);

/* Code point at s (NUL-terminated) and its bytes; 0 where s is no valid UTF-8. */
size_t lks_utf8_decode(const char *s, uint32_t *point);
bool lks_is_utf8(const char *text);

/* path relative to folder (absolute paths are kept), normalised ("a/./b/../c" -> "a/c"; behind a
 * symbolic link ".." stays, for it leads elsewhere), in the arena. "~/a" is a in $HOME. folder
 * NULL: the current folder, made absolute; LKS_CONFIG where that, or HOME, is needed and not there.
 */
lks_status lks_path_resolve(lks_arena *arena, const char *folder, const char *path,
                            const char **out, lks_error *err) LKS_MUST_USE;

/* LKS_CONFIG for a path that no configuration could hold. */
lks_status lks_path_check_utf8(const char *path, lks_error *err) LKS_MUST_USE;

/* The folder part of path ("." when there is none), and the part after the last '/'. */
char *lks_path_folder(lks_arena *arena, const char *path);
const char *lks_path_base(const char *path);

/* True when path ends with suffix. */
bool lks_ends_with(const char *path, const char *suffix);

#endif
