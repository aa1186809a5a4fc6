/* Which part of a step's divided work each rank of a node takes: even at first, then as fast as its
 * core turns out to be. Neighbours on the machine, clocks and heat make cores differ by half for
 * seconds, and a step takes as long as its slowest rank. Every rank computes the same shares from
 * the same times, so nothing is exchanged but these. */
#ifndef LKS_BACKEND_CPU_SHARES_H
#define LKS_BACKEND_CPU_SHARES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* The least share, of an even one: see lks_shares_follow. */
#define LKS_LEAST_SHARE (1.0 / 3)

typedef struct lks_shares {
  int ranks;
  bool follow;   /* false: shares stay even */
  bool even;     /* for now, whatever they are: nothing follows meanwhile */
  double *of;    /* [ranks]: sums to 1 */
  float *took;   /* [ranks]: s that each took for its share, for who calls follow */
  double *ideal; /* [ranks], scratch */
} lks_shares;

lks_status lks_shares_open(lks_shares *shares, int ranks, lks_error *err) LKS_MUST_USE;
void lks_shares_close(lks_shares *shares);

/* Where rank's part of the whole, 1, begins; rank may be `ranks`, which is 1. */
double lks_shares_begin(const lks_shares *shares, int rank);

/* Moves the shares towards those with which all ranks would have taken as long, by what they took.
 * None falls below LKS_LEAST_SHARE of an even one; without times of all, nothing changes. */
void lks_shares_follow(lks_shares *shares);

#endif
