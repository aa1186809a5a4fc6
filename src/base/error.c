/* Error records: filling, tracing and printing them. The record belongs to the caller; nothing
 * here is global, so several worlds or threads can fail side by side. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

int lks_exit_code(lks_status status) {
  static const int codes[] = {
#define LKS_STATUS_EXIT(code, exit_code, meaning) exit_code,
      LKS_STATUS_LIST(LKS_STATUS_EXIT)
#undef LKS_STATUS_EXIT
  };
  const size_t index = (size_t)status;
  return index < sizeof codes / sizeof codes[0] ? codes[index] : 1;
}

const char *lks_status_meaning(lks_status status) {
  static const char *const meanings[] = {
#define LKS_STATUS_MEANING(code, exit_code, meaning) meaning,
      LKS_STATUS_LIST(LKS_STATUS_MEANING)
#undef LKS_STATUS_MEANING
  };
  const size_t index = (size_t)status;
  return index < sizeof meanings / sizeof meanings[0] ? meanings[index] : "unknown status";
}

void lks_error_clear(lks_error *err) {
  memset(err, 0, sizeof *err);
  err->status = LKS_OK;
  err->rank = -1;
}

/* Control characters would break the promise of one line, and could steer a terminal. */
static void force_one_line(char *text) {
  for (char *c = text; *c != '\0'; ++c) {
    if ((unsigned char)*c < 0x20 || *c == 0x7f) {
      *c = ' ';
    }
  }
  size_t length = strlen(text);
  while (length > 0 && text[length - 1] == ' ') {
    text[--length] = '\0';
  }
}

/* Text into out, without its middle where it is too long: the beginning says where, the end why. */
static void fit(const char *text, char *out, size_t size) {
  static const char gap[] = " ... ";
  const size_t length = strlen(text);
  if (length < size) {
    memcpy(out, text, length + 1);
    return;
  }
  size_t head = size / 2, tail = length - (size - head - sizeof gap);
  while (head > 0 && ((unsigned char)text[head] & 0xc0) == 0x80) { /* within a letter of UTF-8 */
    --head;
  }
  while (((unsigned char)text[tail] & 0xc0) == 0x80) {
    ++tail;
  }
  (void)snprintf(out, size, "%.*s%s%s", (int)head, text, gap, text + tail);
}

lks_status lks_fail(lks_error *err, lks_status status, const char *remedy, const char *format,
                    ...) {
  lks_error_clear(err);
  err->status = status;
  char whole[16384]; /* two of the longest paths, and words */
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(whole, sizeof whole, format, arguments);
  va_end(arguments);
  fit(whole, err->what, sizeof err->what);
  (void)snprintf(err->remedy, sizeof err->remedy, "%s", remedy != NULL ? remedy : "");
  force_one_line(err->what);
  force_one_line(err->remedy);
  return status;
}

void lks_advise(lks_error *err, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(err->remedy, sizeof err->remedy, format, arguments);
  va_end(arguments);
  force_one_line(err->remedy);
}

void lks_error_frame(lks_error *err, lks_status status, const char *expression, const char *file,
                     int line) {
  if (err->status == LKS_OK) { /* a callee that failed without words: its frame must do */
    err->status = status;
    (void)snprintf(err->what, sizeof err->what, "%s at %s", lks_status_meaning(status), expression);
  }
  const size_t used = strlen(err->trace);
  (void)snprintf(err->trace + used, sizeof err->trace - used, "%s%.60s (%s:%d)",
                 used > 0 ? " < " : "", expression, lks_path_base(file), line);
  err->frame_count += 1;
}

void lks_error_line(const lks_error *err, char *out, size_t size) {
  char where[128] = "";
  if (err->rank >= 0) {
    (void)snprintf(where, sizeof where, " [rank %d, %s%s%s]", err->rank, err->host,
                   err->phase[0] != '\0' ? ", " : "", err->phase);
  }
  (void)snprintf(out, size, "%s%s%s%s", err->what, where, err->remedy[0] != '\0' ? "; " : "",
                 err->remedy);
}
