/* Strict parsing: the whole string or nothing, no locale, no silent overflow. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

bool lks_parse_int64(const char *text, int64_t *out) {
  const char *digits = text + (text[0] == '-' || text[0] == '+' ? 1 : 0);
  if (!isdigit((unsigned char)digits[0])) {
    return false;
  }
  char *end = NULL;
  errno = 0;
  const long long value = strtoll(text, &end, 10);
  if (errno != 0 || *end != '\0') {
    return false;
  }
  *out = value;
  return true;
}

bool lks_parse_real(const char *text, double *out) {
  const size_t legal = strspn(text, "0123456789+-.eE");
  if (text[0] == '\0' || text[legal] != '\0' || strpbrk(text, "0123456789") == NULL) {
    return false; /* keeps hexadecimal, "nan" and "inf" out */
  }
  char *end = NULL;
  const double value = strtod(text, &end);
  if (*end != '\0' || !isfinite(value)) {
    return false;
  }
  *out = value;
  return true;
}

bool lks_parse_bool(const char *text, bool *out) {
  static const char *const truths[] = {"true", "yes", "on"};
  static const char *const falsehoods[] = {"false", "no", "off"};
  for (size_t i = 0; i < 3; ++i) {
    if (strcasecmp(text, truths[i]) == 0) {
      *out = true;
      return true;
    }
    if (strcasecmp(text, falsehoods[i]) == 0) {
      *out = false;
      return true;
    }
  }
  return false;
}

/* A number at *text, which moves past it. */
static bool take_number(const char **text, double *value) {
  const size_t length = strspn(*text, "0123456789.");
  char digits[64];
  if (length == 0 || length >= sizeof digits) {
    return false;
  }
  memcpy(digits, *text, length);
  digits[length] = '\0';
  *text += length;
  return lks_parse_real(digits, value);
}

bool lks_parse_duration(const char *text, double *seconds) {
  static const struct {
    char unit;
    double seconds;
  } units[] = {{'d', 86400.0}, {'h', 3600.0}, {'m', 60.0}, {'s', 1.0}};
  double total = 0.0, value = 0.0;
  if (lks_parse_real(text, &value)) {
    if (value < 0.0) {
      return false;
    }
    *seconds = value;
    return true;
  }
  size_t next = 0; /* units must come from large to small, each once */
  while (*text != '\0') {
    if (!take_number(&text, &value)) {
      return false;
    }
    while (next < 4 && units[next].unit != *text) {
      ++next;
    }
    if (next == 4) {
      return false;
    }
    total += value * units[next++].seconds;
    ++text;
  }
  if (next == 0) {
    return false;
  }
  *seconds = total;
  return true;
}

bool lks_parse_bytes(const char *text, int64_t *bytes) {
  static const char units[] = "KMGTP";
  double value = 0.0;
  if (!take_number(&text, &value)) {
    return false;
  }
  const char *unit = *text != '\0' ? strchr(units, toupper((unsigned char)*text)) : NULL;
  if (unit != NULL) {
    value = floor(ldexp(value, 10 * (int)(unit - units + 1))); /* 1.1G is no whole number */
    ++text;
  }
  if (strcmp(text, "iB") == 0 || strcmp(text, "B") == 0) {
    text += strlen(text);
  }
  if (*text != '\0' || value >= 9.2e18 || value != floor(value)) {
    return false;
  }
  *bytes = (int64_t)value;
  return true;
}
