/* The large products, by cuBLASLt.
 *
 * Row-major [r, c] is column-major [c, r] with the same leading dimension, so that no operand is
 * ever transposed in memory. For w [I, O], x [n, I], y [n, O], in cuBLASLt's column-major words:
 *
 *   forward  D[O, n] = w[O, I]    x[I, n]      epilogues: bias, ReLU with its mask
 *   weights  D[O, I] = dz[O, n]   x[I, n]^T    epilogue: sums of dz over n, the bias gradient
 *   input    D[I, n] = w[O, I]^T  dz[O, n]     epilogue: the mask of the layer below
 *
 * A shape is looked up once, and the library's first choice taken: another algorithm sums in
 * another order, and a run that resumes must have the bits of one that never stopped. The first is
 * the same in every process on the same kind of device. With device.tune a step's candidates are
 * timed, and another wins where it is faster by more than noise; bits may then differ from start to
 * start. Evaluation takes the first even so: one checkpoint gives the same counts everywhere. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "base/text.h"

#define ALIGNMENT 256
/* How much of the first's time a candidate may take to be preferred. */
#define CLEARLY_FASTER 0.9
/* Rounds of as many runs; from a run of so many seconds on, one of one. No more candidates are
 * tried when a product has taken so many seconds: a start shall not wait for them. */
#define TIMED_ROUNDS 4
#define LONG_RUN 1e-3
#define TIMED_MOST 0.25

int64_t lks_relu_mask_bits(int64_t width) {
  return (width + 127) / 128 * 128;
}

size_t lks_relu_mask_bytes(int64_t rows, int64_t width) {
  return (size_t)(lks_relu_mask_bits(width) / 8 * rows);
}

lks_status lks_products_open(lks_cuda *cuda, const lks_backend_request *request, int major,
                             lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  lks_products *products = &cuda->products;
  products->compute = request->precision == LKS_TF32   ? CUBLAS_COMPUTE_32F_FAST_TF32
                      : request->precision == LKS_BF16 ? CUBLAS_COMPUTE_32F_FAST_16BF
                                                       : CUBLAS_COMPUTE_32F;
  products->tune = request->tune;
  products->most_workspace = (size_t)(major >= 9 ? 32 : 4) << 20; /* as cuBLAS advises */
  TRY_LT(cublasLtCreate(&products->handle));
cleanup:
  return st;
}

static void free_product(lks_product *product) {
  if (product->description != NULL) {
    (void)cublasLtMatmulDescDestroy(product->description);
  }
  const cublasLtMatrixLayout_t layouts[] = {product->a, product->b, product->d};
  for (size_t i = 0; i < sizeof layouts / sizeof *layouts; ++i) {
    if (layouts[i] != NULL) {
      (void)cublasLtMatrixLayoutDestroy(layouts[i]);
    }
  }
}

void lks_products_close(lks_products *products) {
  for (int i = 0; i < products->count; ++i) {
    free_product(&products->items[i]);
  }
  free(products->items);
  if (products->handle != NULL) {
    (void)cublasLtDestroy(products->handle);
  }
  *products = (lks_products){0};
}

/* ---- describing */

static bool has_bias(cublasLtEpilogue_t epilogue) {
  return epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_RELU_BIAS ||
         epilogue == CUBLASLT_EPILOGUE_RELU_AUX_BIAS || epilogue == CUBLASLT_EPILOGUE_BGRADA;
}

static bool has_mask(cublasLtEpilogue_t epilogue) {
  return epilogue == CUBLASLT_EPILOGUE_RELU_AUX || epilogue == CUBLASLT_EPILOGUE_RELU_AUX_BIAS ||
         epilogue == CUBLASLT_EPILOGUE_DRELU;
}

/* Rows and columns of D, column-major. */
static void output_shape(const lks_product_key *key, int64_t *rows, int64_t *columns) {
  *rows = key->kind == LKS_PRODUCT_INPUT ? key->inputs : key->outputs;
  *columns = key->kind == LKS_PRODUCT_WEIGHTS ? key->inputs : key->rows;
}

static lks_status set(const lks_site *site, lks_product *product,
                      cublasLtMatmulDescAttributes_t attribute, const void *value, size_t size,
                      lks_error *err) {
  lks_status st = LKS_OK;
  TRY_LT(cublasLtMatmulDescSetAttribute(product->description, attribute, value, size));
cleanup:
  return st;
}

static lks_status set_pointers(const lks_site *site, lks_product *product,
                               const lks_operands *operands, lks_error *err) {
  lks_status st = LKS_OK;
  if (has_bias(product->key.epilogue)) {
    TRY(set(site, product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands->bias,
            sizeof operands->bias, err));
  }
  if (has_mask(product->key.epilogue)) {
    TRY(set(site, product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &operands->aux,
            sizeof operands->aux, err));
  }
cleanup:
  return st;
}

/* Layouts of a dense, column-major matrix. */
static lks_status make_layout(const lks_site *site, int64_t rows, int64_t columns,
                              cublasLtMatrixLayout_t *layout, lks_error *err) {
  lks_status st = LKS_OK;
  TRY_LT(cublasLtMatrixLayoutCreate(layout, CUDA_R_32F, (uint64_t)rows, (uint64_t)columns, rows));
cleanup:
  return st;
}

static lks_status describe_product(const lks_cuda *cuda, lks_product *product,
                                   const lks_operands *operands, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const lks_product_key *key = &product->key;
  const int32_t transposed = CUBLAS_OP_T;
  const uint32_t epilogue = (uint32_t)key->epilogue;
  int64_t rows = 0, columns = 0;
  output_shape(key, &rows, &columns);
  TRY_LT(cublasLtMatmulDescCreate(&product->description, cuda->products.compute, CUDA_R_32F));
  if (key->kind == LKS_PRODUCT_FORWARD) {
    TRY(make_layout(site, key->outputs, key->inputs, &product->a, err));
    TRY(make_layout(site, key->inputs, key->rows, &product->b, err));
  } else if (key->kind == LKS_PRODUCT_WEIGHTS) {
    TRY(make_layout(site, key->outputs, key->rows, &product->a, err));
    TRY(make_layout(site, key->inputs, key->rows, &product->b, err));
    TRY(set(site, product, CUBLASLT_MATMUL_DESC_TRANSB, &transposed, sizeof transposed, err));
  } else {
    TRY(make_layout(site, key->outputs, key->inputs, &product->a, err));
    TRY(make_layout(site, key->outputs, key->rows, &product->b, err));
    TRY(set(site, product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed, err));
  }
  TRY(make_layout(site, rows, columns, &product->d, err));
  TRY(set(site, product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, err));
  if (has_mask(key->epilogue)) {
    const int64_t bits = lks_relu_mask_bits(rows);
    TRY(set(site, product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &bits, sizeof bits, err));
  }
  TRY(set_pointers(site, product, operands, err));
cleanup:
  return st;
}

/* ---- finding */

/* Answers by which the library says that it has nothing for a shape. */
static bool refuses(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
}

static lks_status find_candidates(const lks_cuda *cuda, lks_product *product, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const lks_products *products = &cuda->products;
  cublasLtMatmulPreference_t preference = NULL;
  const int wanted = products->tune && product->key.training ? LKS_CANDIDATES : 1;
  int found = 0;
  TRY_LT(cublasLtMatmulPreferenceCreate(&preference));
  TRY_LT(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &products->most_workspace,
                                              sizeof products->most_workspace));
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      products->handle, product->description, product->a, product->b, product->d, product->d,
      preference, LKS_CANDIDATES, product->candidates, &found);
  if (refuses(status)) {
    found = 0;
  } else {
    TRY_CODE(LKS_LIB_CUBLAS, status, "cublasLtMatmulAlgoGetHeuristic(...)");
  }
  /* Those that the library doubts itself come with a status of their own. */
  for (int i = 0; i < found && product->count < wanted; ++i) {
    if (product->candidates[i].state == CUBLAS_STATUS_SUCCESS) {
      product->candidates[product->count++] = product->candidates[i];
    }
  }
cleanup:
  if (preference != NULL) {
    (void)cublasLtMatmulPreferenceDestroy(preference);
  }
  return st;
}

static bool same_key(const lks_product_key *a, const lks_product_key *b) {
  return a->kind == b->kind && a->rows == b->rows && a->inputs == b->inputs &&
         a->outputs == b->outputs && a->epilogue == b->epilogue && a->training == b->training;
}

/* A product with a dimension of one is a dot product or an outer product: bound by memory, refused
 * by the fused epilogues, and with K = 1 some of those read beyond their workspace. */
static bool too_thin(const lks_product_key *key) {
  return key->rows == 1 || key->inputs == 1 || key->outputs == 1;
}

lks_status lks_product_find(lks_cuda *cuda, const lks_product_key *key,
                            const lks_operands *operands, int *index, lks_error *err) {
  lks_status st = LKS_OK;
  lks_products *products = &cuda->products;
  for (int i = 0; i < products->count; ++i) {
    if (same_key(&products->items[i].key, key)) {
      *index = i;
      return LKS_OK;
    }
  }
  if (products->count == products->capacity) {
    const int capacity = products->capacity > 0 ? 2 * products->capacity : 16;
    lks_product *items = realloc(products->items, (size_t)capacity * sizeof *items);
    TRY_ALLOC(items);
    products->items = items;
    products->capacity = capacity;
  }
  lks_product *product = &products->items[products->count];
  *product = (lks_product){.key = *key};
  *index = products->count++;
  if (!too_thin(key)) {
    TRY(describe_product(cuda, product, operands, err));
    TRY(find_candidates(cuda, product, err));
  }
cleanup:
  return st;
}

size_t lks_products_workspace(const lks_products *products) {
  size_t most = 0;
  for (int i = 0; i < products->count; ++i) {
    const lks_product *product = &products->items[i];
    for (int k = 0; k < product->count; ++k) {
      const size_t bytes = product->candidates[k].workspaceSize;
      most = bytes > most ? bytes : most;
    }
  }
  return most;
}

/* ---- running */

static lks_status run_candidate(lks_cuda *cuda, const lks_product *product, int candidate,
                                const lks_operands *operands, lks_error *err) {
  static const float one = 1.0f, zero = 0.0f;
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  const cublasLtMatmulHeuristicResult_t *chosen = &product->candidates[candidate];
  TRY_LT(cublasLtMatmul(cuda->products.handle, product->description, &one, operands->a, product->a,
                        operands->b, product->b, &zero, operands->d, product->d, operands->d,
                        product->d, &chosen->algo, lks_at(cuda, cuda->layout.workspace),
                        chosen->workspaceSize, cuda->main));
cleanup:
  return st;
}

lks_status lks_product_run(lks_cuda *cuda, int index, const lks_operands *operands,
                           lks_error *err) {
  lks_status st = LKS_OK;
  lks_product *product = &cuda->products.items[index];
  TRY(set_pointers(&cuda->site, product, operands, err));
  TRY(run_candidate(cuda, product, product->chosen, operands, err));
cleanup:
  return st;
}

/* Seconds a run: the least of a few rounds, after one run that is not counted. */
static lks_status time_candidate(lks_cuda *cuda, const lks_product *product, int candidate,
                                 const lks_operands *operands, cudaEvent_t events[2], int rounds,
                                 double *seconds, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  TRY(run_candidate(cuda, product, candidate, operands, err));
  for (int round = 0; round < rounds; ++round) {
    float milliseconds = 0.0f;
    TRY_CUDA(cudaEventRecord(events[0], cuda->main));
    for (int run = 0; run < rounds; ++run) {
      TRY(run_candidate(cuda, product, candidate, operands, err));
    }
    TRY_CUDA(cudaEventRecord(events[1], cuda->main));
    TRY_CUDA(cudaEventSynchronize(events[1]));
    TRY_CUDA(cudaEventElapsedTime(&milliseconds, events[0], events[1]));
    const double each = (double)milliseconds / 1e3 / rounds;
    *seconds = round == 0 || each < *seconds ? each : *seconds;
  }
cleanup:
  return st;
}

lks_status lks_product_time(lks_cuda *cuda, int index, const lks_operands *operands,
                            lks_error *err) {
  lks_status st = LKS_OK;
  const lks_site *site = &cuda->site;
  lks_product *product = &cuda->products.items[index];
  cudaEvent_t events[2] = {NULL, NULL};
  double seconds[LKS_CANDIDATES] = {0};
  if (product->timed || product->count < 2) {
    return LKS_OK;
  }
  product->timed = true;
  TRY_CUDA(cudaEventCreateWithFlags(&events[0], cudaEventDefault));
  TRY_CUDA(cudaEventCreateWithFlags(&events[1], cudaEventDefault));
  TRY(set_pointers(site, product, operands, err));
  TRY(time_candidate(cuda, product, 0, operands, events, 1, &seconds[0], err));
  const int rounds = seconds[0] < LONG_RUN ? TIMED_ROUNDS : 1;
  const double deadline = lks_now() + TIMED_MOST;
  for (int i = 0; i < product->count && lks_now() < deadline; ++i) {
    TRY(time_candidate(cuda, product, i, operands, events, rounds, &seconds[i], err));
    if (seconds[i] < CLEARLY_FASTER * seconds[0] && seconds[i] < seconds[product->chosen]) {
      product->chosen = i;
    }
  }
  product->seconds = seconds[product->chosen];
cleanup:
  for (int i = 0; i < 2; ++i) {
    if (events[i] != NULL) {
      (void)cudaEventDestroy(events[i]);
    }
  }
  return st;
}

/* ---- telling */

/* An attribute of an algorithm; 0 where it has none. */
static int attribute_of(const cublasLtMatmulAlgo_t *algorithm,
                        cublasLtMatmulAlgoConfigAttributes_t attribute) {
  uint32_t value = 0;
  size_t written = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoConfigGetAttribute(algorithm, attribute, &value, sizeof value, &written);
  return status == CUBLAS_STATUS_SUCCESS ? (int)value : 0;
}

void lks_product_describe(const lks_product *product, lks_choice_made *out) {
  static const char *const kinds[] = {[LKS_PRODUCT_FORWARD] = "forward",
                                      [LKS_PRODUCT_WEIGHTS] = "weights",
                                      [LKS_PRODUCT_INPUT] = "input"};
  const lks_product_key *key = &product->key;
  *out = (lks_choice_made){.seconds = product->seconds};
  (void)snprintf(out->what, sizeof out->what, "%s %lldx%lld rows %lld%s", kinds[key->kind],
                 (long long)key->inputs, (long long)key->outputs, (long long)key->rows,
                 key->training ? "" : " (evaluation)");
  if (product->count == 0) {
    (void)snprintf(out->chosen, sizeof out->chosen, "own kernel: %s",
                   too_thin(key) ? "a dimension of 1" : "cuBLASLt has none for this shape");
    return;
  }
  const cublasLtMatmulAlgo_t *algorithm = &product->candidates[product->chosen].algo;
  (void)snprintf(out->chosen, sizeof out->chosen,
                 "cublasLt algo %d, tile %d, stages %d, split-K %d, epilogue %d",
                 attribute_of(algorithm, CUBLASLT_ALGO_CONFIG_ID),
                 attribute_of(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID),
                 attribute_of(algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID),
                 attribute_of(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), (int)key->epilogue);
}
