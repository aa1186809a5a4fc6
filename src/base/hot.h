/* Hot loops are compiled for several levels of x86-64 and chosen at load time: one binary serves
 * old and new nodes, and -ffp-contract=off keeps their bits the same. Sanitizers and other
 * compilers or processors take the plain loop. */
#ifndef LKS_BASE_HOT_H
#define LKS_BASE_HOT_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(LKS_NO_CLONES)
#define LKS_HOT __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LKS_HOT
#endif

#endif
