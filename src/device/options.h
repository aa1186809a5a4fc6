/* What the configuration says about devices. */
#ifndef LKS_DEVICE_OPTIONS_H
#define LKS_DEVICE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "config/option.h"

typedef enum lks_device_kind { LKS_DEVICE_AUTO, LKS_DEVICE_CPU, LKS_DEVICE_GPU } lks_device_kind;

/* device: cpu | gpu:1 | {kind: ..., ordinal: ...} */
typedef struct lks_device_options {
  int kind;        /* lks_device_kind */
  int64_t ordinal; /* -1: auto, by local rank */
  bool memory_growth;
  int64_t memory_limit; /* bytes; 0: none */
  int precision;        /* lks_precision of backend/backend.h: fp32, tf32, bf16 */
  bool tune;            /* products on GPUs by the fastest algorithm, as measured at the start */
  int64_t threads;      /* BLAS threads a rank; -1: auto */
  int gradients;        /* lks_gradients of plan/plan.h */
} lks_device_options;

extern const lks_option lks_device_option_rows[];

/* `expand` of the device group: "gpu:1" -> {kind: gpu, ordinal: 1}. */
lks_status lks_device_expand(lks_node *node, const char *dotted, lks_arena *arena, lks_error *err);

#endif
