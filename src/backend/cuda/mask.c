/* ReLU's slope where its input is exactly 0, as rows of zeros and layers that start at zero make
 * it.
 *
 * It is 0 in Keras, on the CPU and in own kernels. What cuBLASLt's masks say there nothing
 * documents, and algorithms may differ: so the very products that a step will run are tried once,
 * at the start, on inputs of 0. Where one lets the gradient pass, no step uses masks: the kernel
 * for ReLU's derivative does their work. */
#include "backend/cuda/cuda.h"

#define ONES 0x3f /* as each byte of a float: 0.747 */

static lks_status fill(lks_cuda *cuda, const float *at, int64_t count, int byte, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  if (at != NULL) {
    char *first = cuda->base + ((const char *)at - cuda->base);
    TRY_CUDA(cudaMemsetAsync(first, byte, (size_t)count * sizeof(float), cuda->main));
  }
cleanup:
  return st;
}

static const lks_product_key *key_of(const lks_cuda *cuda, const lks_launch *launch) {
  return &cuda->products.items[launch->as.product.index].key;
}

/* The product that leaves the mask which lies there. */
static const lks_launch *masked_by(const lks_cuda *cuda, const void *mask) {
  const lks_launch *launch = cuda->train.items;
  while (launch->kind != LKS_LAUNCH_PRODUCT || launch->as.product.operands.aux != mask) {
    ++launch; /* it comes before the product that reads the mask */
  }
  return launch;
}

/* A mask of inputs that are all 0, and a product of positive numbers under it: nothing may come out
 * but zeros. */
static lks_status try_mask(lks_cuda *cuda, const lks_launch *above, bool *passes, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_operands *in = &above->as.product.operands;
  const lks_launch *below = masked_by(cuda, in->aux);
  const lks_operands *out = &below->as.product.operands;
  const lks_product_key *in_key = key_of(cuda, above), *out_key = key_of(cuda, below);
  const int64_t count = in_key->rows * in_key->inputs;
  uint64_t zeros = 0, hash = 0;
  TRY(fill(cuda, out->a, out_key->inputs * out_key->outputs, 0, err));
  TRY(fill(cuda, out->b, out_key->rows * out_key->inputs, 0, err));
  TRY(fill(cuda, out->bias, out_key->outputs, 0, err));
  TRY(lks_product_run(cuda, below->as.product.index, out, err));
  TRY(fill(cuda, in->d, count, 0, err));
  TRY(lks_hash_floats(cuda, in->d, count, &zeros, err));
  TRY(fill(cuda, in->a, in_key->inputs * in_key->outputs, ONES, err));
  TRY(fill(cuda, in->b, in_key->rows * in_key->outputs, ONES, err));
  TRY(lks_product_run(cuda, above->as.product.index, in, err));
  TRY(lks_hash_floats(cuda, in->d, count, &hash, err));
  *passes = hash != zeros;
  TRY(fill(cuda, in->a, in_key->inputs * in_key->outputs, 0, err)); /* as the arena was given */
cleanup:
  return st;
}

lks_status lks_masks_try(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  bool passes = false;
  for (int i = 0; i < cuda->train.count && !passes; ++i) {
    const lks_launch *launch = &cuda->train.items[i];
    if (launch->kind == LKS_LAUNCH_PRODUCT &&
        key_of(cuda, launch)->epilogue == CUBLASLT_EPILOGUE_DRELU) {
      TRY(try_mask(cuda, launch, &passes, err));
    }
  }
  cuda->unmasked = passes;
cleanup:
  return st;
}
