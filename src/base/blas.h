/* The BLAS that this process is linked with: what it says of itself. */
#ifndef LKS_BASE_BLAS_H
#define LKS_BASE_BLAS_H

/* Version and kernels, as "OpenBLAS 0.3.21 ... Haswell ..."; "CBLAS" where it does not tell. The
 * library's, never NULL. */
const char *lks_blas_words(void);

/* What $OPENBLAS_CORETYPE should be, where OpenBLAS took this processor for one without fused
 * multiply-adds, as it does with those that are newer than itself (0.3.21 with a Xeon of the fifth
 * generation: a fifth of the speed). NULL: it chose well, or the user did, or it is another BLAS.
 * It reads the variable as it is loaded, so it takes a new process to heed it. */
const char *lks_blas_better_kernels(void);

#endif
