/* What a backend promises beyond right numbers: votes and their steps, steps that must do nothing,
 * state that comes back as it was put in. Inside of the self-test. */
#ifndef LKS_BACKEND_CONTRACT_H
#define LKS_BACKEND_CONTRACT_H

#include "backend/testbench.h"

/* Runs on a bench that was just opened; *error grows by 1 and more where a promise is broken.
 * Collective. */
typedef struct lks_contract_check {
  const char *name;
  lks_status (*run)(lks_testbench *bench, double *error, lks_error *err);
} lks_contract_check;

extern const lks_contract_check lks_contract_checks[]; /* ends with name NULL */

#endif
