/* Running launches, one after the other, on the main stream: eagerly or into a capture. */
#include "backend/cuda/cuda.h"

static lks_status run_launch(lks_cuda *cuda, const lks_launch *launch, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const cudaStream_t stream = cuda->main;
  switch (launch->kind) {
  case LKS_LAUNCH_PRODUCT:
    TRY(lks_product_run(cuda, launch->as.product.index, &launch->as.product.operands, err));
    break;
  case LKS_LAUNCH_EXCHANGE:
    TRY(lks_nccl_sum(cuda, launch->as.bucket, err));
    break;
  case LKS_LAUNCH_GATHER:
    TRY_CUDA(lks_gather_cuda(&launch->as.gather, stream));
    break;
  case LKS_LAUNCH_FORWARD:
    TRY_CUDA(lks_dense_forward_cuda(&launch->as.forward, stream));
    break;
  case LKS_LAUNCH_WEIGHTS:
    TRY_CUDA(lks_dense_weights_cuda(&launch->as.weights, stream));
    break;
  case LKS_LAUNCH_INPUT:
    TRY_CUDA(lks_dense_input_cuda(&launch->as.input, stream));
    break;
  case LKS_LAUNCH_ACTIVATE:
    TRY_CUDA(lks_activate_cuda(&launch->as.activate, stream));
    break;
  case LKS_LAUNCH_DERIVE:
    TRY_CUDA(lks_derive_cuda(&launch->as.derive, stream));
    break;
  case LKS_LAUNCH_DROPOUT:
    TRY_CUDA(lks_dropout_cuda(&launch->as.dropout, stream));
    break;
  case LKS_LAUNCH_UNDROP:
    TRY_CUDA(lks_undrop_cuda(&launch->as.undrop, stream));
    break;
  case LKS_LAUNCH_COLUMN_SUMS:
    TRY_CUDA(lks_column_sums_cuda(&launch->as.column_sums, stream));
    break;
  case LKS_LAUNCH_LOSS:
    TRY_CUDA(lks_loss_cuda(&launch->as.loss, stream));
    break;
  case LKS_LAUNCH_SEAL:
    TRY_CUDA(lks_seal_cuda(&launch->as.seal, stream));
    break;
  case LKS_LAUNCH_UPDATE:
    TRY_CUDA(lks_update_cuda(&launch->as.update, stream));
    break;
  }
cleanup:
  return st;
}

lks_status lks_launches_run(lks_cuda *cuda, const lks_launches *launches, int count,
                            lks_error *err) {
  lks_status st = LKS_OK;
  for (int i = 0; i < count; ++i) {
    TRY(run_launch(cuda, &launches->items[i], err));
  }
cleanup:
  return st;
}

lks_status lks_programs_time(lks_cuda *cuda, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  bool cleared = false;
  for (int i = 0; i < cuda->train.count; ++i) {
    const lks_launch *launch = &cuda->train.items[i];
    if (launch->kind != LKS_LAUNCH_PRODUCT ||
        cuda->products.items[launch->as.product.index].count < 2) {
      continue;
    }
    if (!cleared) { /* so that no NaN in what lay there slows or speeds a product */
      const size_t first = cuda->layout.cleared, end = cuda->layout.workspace;
      TRY_CUDA(cudaMemsetAsync(lks_at(cuda, first), 0, end - first, cuda->main));
      cleared = true;
    }
    TRY(lks_product_time(cuda, launch->as.product.index, &launch->as.product.operands, err));
    lks_cuda_services->beat(cuda->world);
  }
cleanup:
  return st;
}
