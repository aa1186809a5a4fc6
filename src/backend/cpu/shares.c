/* See shares.h. */
#include "backend/cpu/shares.h"

#include <stdlib.h>

/* How far one part of a step moves the shares: nearly all the way where it takes long, a tenth
 * where it takes a quarter of a millisecond, which an interruption of a core alone can double. On a
 * virtual machine with neighbours the ratio of two cores' speeds had a correlation of 0.84 from one
 * product of `wide` (20 ms) to the next, and of 0.5 to that five products later. */
#define MOST_GAIN 0.8
#define SETTLING 2e-3 /* s */

lks_status lks_shares_open(lks_shares *shares, int ranks, lks_error *err) {
  lks_status st = LKS_OK;
  const size_t n = (size_t)ranks;
  *shares = (lks_shares){.ranks = ranks,
                         .of = calloc(n, sizeof *shares->of),
                         .took = calloc(n, sizeof *shares->took),
                         .ideal = calloc(n, sizeof *shares->ideal)};
  TRY_ALLOC(shares->of);
  TRY_ALLOC(shares->took);
  TRY_ALLOC(shares->ideal);
  for (int rank = 0; rank < ranks; ++rank) {
    shares->of[rank] = 1.0 / ranks;
  }
cleanup:
  return st;
}

void lks_shares_close(lks_shares *shares) {
  free(shares->of);
  free(shares->took);
  free(shares->ideal);
  *shares = (lks_shares){.ranks = 0};
}

double lks_shares_begin(const lks_shares *shares, int rank) {
  double begin = 0.0;
  if (rank == shares->ranks) {
    return 1.0;
  }
  for (int r = 0; r < rank; ++r) {
    begin += shares->even ? 1.0 / shares->ranks : shares->of[r];
  }
  return begin;
}

/* The shares with which all would have taken as long, none beyond half or twice an even one: a time
 * so far off is an interruption. Scaled to a sum of 1, which is at most 3/2 before, none is below
 * a third of an even one then. Returns the longest time; 0: one is missing. */
static double find_ideal(lks_shares *shares) {
  const double even = 1.0 / shares->ranks;
  double speed = 0.0, sum = 0.0, longest = 0.0;
  for (int r = 0; r < shares->ranks; ++r) {
    const double took = (double)shares->took[r];
    if (!(took > 0.0)) {
      return 0.0;
    }
    longest = took > longest ? took : longest;
    shares->ideal[r] = shares->of[r] / took;
    speed += shares->ideal[r];
  }
  for (int r = 0; r < shares->ranks; ++r) {
    const double ideal = shares->ideal[r] / speed;
    shares->ideal[r] = ideal < even / 2 ? even / 2 : ideal > even * 2 ? even * 2 : ideal;
    sum += shares->ideal[r];
  }
  for (int r = 0; r < shares->ranks; ++r) {
    shares->ideal[r] /= sum;
  }
  return longest;
}

void lks_shares_follow(lks_shares *shares) {
  const double longest = shares->even ? 0.0 : find_ideal(shares);
  const double gain = MOST_GAIN * longest / (longest + SETTLING);
  for (int r = 0; longest > 0.0 && r < shares->ranks; ++r) {
    shares->of[r] += gain * (shares->ideal[r] - shares->of[r]);
  }
}
