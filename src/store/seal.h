/* The 32 bytes behind HDF5's own end of a checkpoint, and what else the files of store/ share:
 *
 *   0  "LKSSEAL1"
 *   8  number of bytes before the seal, 64-bit little-endian
 *  16  their XXH64 (seed 0), 64-bit little-endian
 *  24  zeros
 */
#ifndef LKS_STORE_SEAL_H
#define LKS_STORE_SEAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define LKS_SEAL_BYTES 32

void lks_seal_make(int64_t bytes, uint64_t hash, unsigned char out[LKS_SEAL_BYTES]);

/* Reads the whole file. *sealed is false for a file without a seal (Keras' own). Errors:
 * LKS_STORAGE by cause: missing, a folder, empty, truncated, damaged. */
lks_status lks_seal_check(const char *path, bool *sealed, lks_error *err) LKS_MUST_USE;

#endif
