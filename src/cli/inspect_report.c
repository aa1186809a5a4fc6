/* Facts of a report, as JSON and as text. See inspect.h. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/inspect.h"

void lks_report_set(lks_report *report, json_t *into, const char *key, json_t *value) {
  if (json_object_set_new(into, key, value) != 0) {
    report->failed = true;
  }
}

void lks_report_string(lks_report *report, json_t *into, const char *key, const char *value) {
  json_t *text = value != NULL ? json_string(value) : json_null();
  if (text == NULL) {
    char *plain = strdup(value);
    for (char *c = plain; c != NULL && *c != '\0'; ++c) {
      *c = (unsigned char)*c < 0x80 ? *c : '?';
    }
    text = plain != NULL ? json_string(plain) : NULL;
    free(plain);
  }
  lks_report_set(report, into, key, text);
}

json_t *lks_report_object(lks_report *report, json_t *into, const char *key) {
  lks_report_set(report, into, key, json_object());
  return json_object_get(into, key);
}

json_t *lks_report_array(lks_report *report, json_t *into, const char *key) {
  lks_report_set(report, into, key, json_array());
  return json_object_get(into, key);
}

json_t *lks_report_append(lks_report *report, json_t *array) {
  if (json_array_append_new(array, json_object()) != 0) {
    report->failed = true;
    return NULL;
  }
  return json_array_get(array, json_array_size(array) - 1);
}

void lks_report_line(lks_report *report, const char *label, const char *format, ...) {
  char value[2048];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(value, sizeof value, format, arguments);
  va_end(arguments);
  lks_text_add(&report->text, "  %-13s %s\n", label, value);
}

void lks_report_text(lks_report *report, json_t *into, const char *key, const char *label,
                     const char *value) {
  if (value != NULL) {
    lks_report_string(report, into, key, value);
    lks_text_add(&report->text, "  %-13s %s\n", label, value);
  }
}

void lks_report_count(lks_report *report, json_t *into, const char *key, const char *label,
                      int64_t value) {
  char text[32];
  lks_report_set(report, into, key, json_integer((json_int_t)value));
  lks_report_line(report, label, "%s", lks_format_count(text, value));
}

/* ---- datasets */

void lks_report_shape(const lks_h5_info *info, char out[256]) {
  size_t used = 0;
  out[0] = '\0';
  for (int d = 0; d < info->rank && used < 224; ++d) {
    used +=
        (size_t)snprintf(out + used, 256 - used, "%s%" PRId64, d > 0 ? ", " : "[", info->shape[d]);
  }
  (void)snprintf(out + used, 256 - used, "%s", info->rank > 0 ? "]" : "scalar");
}

json_t *lks_report_shape_json(const lks_h5_info *info) {
  json_t *shape = json_array();
  for (int d = 0; d < info->rank; ++d) {
    if (json_array_append_new(shape, json_integer((json_int_t)info->shape[d])) != 0) {
      json_decref(shape);
      return NULL;
    }
  }
  return shape;
}

void lks_report_dataset(lks_report *report, json_t *into, const lks_contents_item *item,
                        int width) {
  char shape[256], storage[64];
  lks_report_string(report, into, "name", item->name);
  if (!item->readable) {
    lks_report_set(report, into, "type", json_null());
    lks_text_add(&report->text, "  %-*s (no dataset with a shape)\n", width, item->name);
    return;
  }
  const lks_h5_info *info = &item->info;
  lks_report_shape(info, shape);
  lks_report_string(report, into, "type", info->type_name);
  lks_report_set(report, into, "shape", lks_report_shape_json(info));
  lks_report_set(report, into, "chunk_rows",
                 info->chunk_rows > 0 ? json_integer((json_int_t)info->chunk_rows) : json_null());
  lks_report_set(report, into, "compressed", json_boolean(info->compressed));
  (void)snprintf(storage, sizeof storage, "chunks of %" PRId64 " row%s", info->chunk_rows,
                 info->chunk_rows == 1 ? "" : "s");
  lks_text_add(&report->text, "  %-*s %s %s, %s%s\n", width, item->name, info->type_name, shape,
               info->chunk_rows > 0 ? storage : "contiguous",
               info->compressed ? ", compressed" : "");
}
