/* The rows of `device`, and its short form. */
#include "device/options.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const char *const kinds[] = {"auto", "cpu", "gpu", NULL};
static const char *const automatic[] = {"auto", NULL};
static const char *const precisions[] = {"fp32", "tf32", "bf16", NULL}; /* as lks_precision */
/* As lks_gradients. */
static const char *const gradients[] = {"auto", "rows", "owners", "leader", NULL};

const lks_option lks_device_option_rows[] = {
    {.key = "kind",
     .type = LKS_OPT_WORD,
     .offset = offsetof(lks_device_options, kind),
     .fallback = "auto",
     .words = kinds,
     .help = "what to run on; auto: a GPU where the node has one, else the CPU"},
    {.key = "ordinal",
     .type = LKS_OPT_INT,
     .offset = offsetof(lks_device_options, ordinal),
     .fallback = "auto",
     .min = 0,
     .max = 1023,
     .words = automatic,
     .help = "which GPU; auto: by local rank"},
    {.key = "memory_growth",
     .type = LKS_OPT_BOOL,
     .offset = offsetof(lks_device_options, memory_growth),
     .fallback = "true",
     .help = "takes the GPU memory that the plan needs; false: all that memory_limit allows, at "
             "once"},
    {.key = "memory_limit",
     .type = LKS_OPT_BYTES,
     .offset = offsetof(lks_device_options, memory_limit),
     .fallback = "0",
     .unit = "bytes",
     .help = "most GPU memory that a rank takes; 0: no limit but the device's"},
    {.key = "precision",
     .type = LKS_OPT_WORD,
     .offset = offsetof(lks_device_options, precision),
     .fallback = "fp32",
     .words = precisions,
     .help = "arithmetic of products on GPUs; parameters stay fp32"},
    {.key = "tune",
     .type = LKS_OPT_BOOL,
     .offset = offsetof(lks_device_options, tune),
     .fallback = "false",
     .help = "on GPUs, measures a few algorithms for each product of a step and takes the fastest; "
             "another may win at another start: what is resumed or repeated may then differ in "
             "rounding"},
    {.key = "threads",
     .type = LKS_OPT_INT,
     .offset = offsetof(lks_device_options, threads),
     .fallback = "auto",
     .min = 1,
     .max = 4096,
     .words = automatic,
     .unit = "threads",
     .help = "BLAS threads a rank on the CPU; auto: as many as the model keeps busy, of "
             "OMP_NUM_THREADS, else of the node's cores divided"},
    {.key = "gradients",
     .type = LKS_OPT_WORD,
     .offset = offsetof(lks_device_options, gradients),
     .fallback = "auto",
     .words = gradients,
     .help =
         "how several ranks of one node make gradients on the CPU: each of its rows, and all are "
         "summed; each its slice, from all rows; or one does all; auto: by the model and the "
         "batch"},
    {0}};

lks_status lks_device_expand(lks_node *node, const char *dotted, lks_arena *arena, lks_error *err) {
  lks_status st = LKS_OK;
  if (node->kind != LKS_NODE_SCALAR) {
    goto cleanup;
  }
  const char *colon = strchr(node->text, ':');
  const size_t length = colon != NULL ? (size_t)(colon - node->text) : strlen(node->text);
  const char *kind = lks_arena_copy_n(arena, node->text, length);
  TRY_ALLOC(kind);
  if (colon != NULL && strcmp(kind, "gpu") != 0) {
    st = lks_node_fail(node, dotted, err, "write cpu, gpu, gpu:0 or auto", "no device '%s'",
                       node->text);
    goto cleanup;
  }
  lks_node *kind_node = lks_node_new(arena, LKS_NODE_SCALAR, "kind", kind, node);
  TRY_ALLOC(kind_node);
  lks_node *ordinal = NULL;
  if (colon != NULL) {
    ordinal = lks_node_new(arena, LKS_NODE_SCALAR, "ordinal", colon + 1, node);
    TRY_ALLOC(ordinal);
  }
  node->kind = LKS_NODE_MAP;
  node->text = NULL;
  node->first = NULL;
  lks_node_append(node, kind_node);
  if (ordinal != NULL) {
    lks_node_append(node, ordinal);
  }
cleanup:
  return st;
}
