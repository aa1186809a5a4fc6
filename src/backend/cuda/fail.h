/* Failures of CUDA, cuBLASLt and NCCL: recorded once, with everything that is known of them. What
 * a code means and what to do about it is the program's table, behind services->fail.
 *
 * Convention, beside that of base/error.h: a function that calls one of the libraries has a local
 * or parameter `const lks_site *site`, the device it works on. Functions of lks_gpu_ops have a
 * parameter `lks_gpu_failure *failure` instead of `err` and an `int failed`. */
#ifndef LKS_BACKEND_CUDA_FAIL_H
#define LKS_BACKEND_CUDA_FAIL_H

#include "base/error.h"
#include "device/gpu.h"
#include "device/module.h"

typedef struct lks_site {
  int ordinal;      /* -1: no device yet */
  char device[128]; /* "NVIDIA H100 80GB HBM3, GPU-1b6f..."; may be empty */
} lks_site;

/* The services of the program that loaded this module: set once, by the handshake. */
extern const lks_services *lks_cuda_services;

/* Fills *failure with the code, the library's own name and words for it, and the call. */
void lks_failure_fill(lks_gpu_failure *failure, const lks_site *site, lks_library library, int code,
                      const char *expression, const char *file, int line);

/* The same as an error, with its frame. more: what was asked for, or NULL. */
lks_status lks_failure_report(const lks_site *site, lks_library library, int code,
                              const char *expression, const char *file, int line, const char *more,
                              lks_error *err) LKS_MUST_USE;

/* Fails where a library's code is not 0, which is success in all three. call: what was called. */
#define TRY_CODE(library, code, call)                                                              \
  do {                                                                                             \
    const int code_ = (int)(code);                                                                 \
    if (code_ != 0) {                                                                              \
      st = lks_failure_report(site, library, code_, call, __FILE__, __LINE__, NULL, err);          \
      goto cleanup;                                                                                \
    }                                                                                              \
  } while (0)

#define TRY_CUDA(expression) TRY_CODE(LKS_LIB_CUDA, expression, #expression)
#define TRY_LT(expression) TRY_CODE(LKS_LIB_CUBLAS, expression, #expression)
#define TRY_NCCL(expression) TRY_CODE(LKS_LIB_NCCL, expression, #expression)

/* The same in functions of lks_gpu_ops. */
#define ASK_CODE(library, code, call)                                                              \
  do {                                                                                             \
    const int code_ = (int)(code);                                                                 \
    if (code_ != 0) {                                                                              \
      lks_failure_fill(failure, site, library, code_, call, __FILE__, __LINE__);                   \
      failed = 1;                                                                                  \
      goto cleanup;                                                                                \
    }                                                                                              \
  } while (0)

#define ASK_CUDA(expression) ASK_CODE(LKS_LIB_CUDA, expression, #expression)
#define ASK_LT(expression) ASK_CODE(LKS_LIB_CUBLAS, expression, #expression)
#define ASK_NCCL(expression) ASK_CODE(LKS_LIB_NCCL, expression, #expression)

#endif
