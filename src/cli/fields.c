/* Rows of tables as JSON. */
#include <stdlib.h>
#include <string.h>

#include "cli/devices.h"
#include "train/journal.h"

/* JSON holds UTF-8 alone; a driver may write anything. */
static json_t *text_json(const char *text) {
  json_t *value = json_string(text);
  if (value == NULL) {
    char *plain = strdup(text);
    for (char *c = plain; c != NULL && *c != '\0'; ++c) {
      *c = (unsigned char)*c < 0x80 ? *c : '?';
    }
    value = plain != NULL ? json_string(plain) : NULL;
    free(plain);
  }
  return value;
}

static json_t *value_json(const lks_field *field, const char *at) {
  int number = 0;
  int64_t large = 0;
  double real = 0.0;
  switch (field->type) {
  case LKS_FIELD_INT:
    memcpy(&number, at, sizeof number);
    return json_integer(number);
  case LKS_FIELD_INT64:
    memcpy(&large, at, sizeof large);
    return json_integer((json_int_t)large);
  case LKS_FIELD_REAL:
    memcpy(&real, at, sizeof real);
    return lks_json_real(real);
  case LKS_FIELD_TEXT:
    return text_json(at);
  }
  return NULL;
}

json_t *lks_fields_json(const lks_field *fields, const void *row) {
  json_t *object = json_object();
  for (; object != NULL && fields->name != NULL; ++fields) {
    json_t *value = value_json(fields, (const char *)row + fields->offset);
    if (json_object_set_new(object, fields->name, value) != 0) {
      json_decref(object);
      return NULL;
    }
  }
  return object;
}

json_t *lks_fields_json_all(const lks_field *fields, const void *rows, size_t stride,
                            int64_t count) {
  json_t *array = json_array();
  for (int64_t i = 0; array != NULL && i < count; ++i) {
    json_t *row = lks_fields_json(fields, (const char *)rows + (size_t)i * stride);
    if (json_array_append_new(array, row) != 0) {
      json_decref(array);
      return NULL;
    }
  }
  return array;
}
