/* Why there is no usable GPU: the chain from the PCI bus to a sum over ranks, link by link, up to
 * the first that is broken. */
#ifndef LKS_DEVICE_DIAGNOSE_H
#define LKS_DEVICE_DIAGNOSE_H

#include "device/place.h"

typedef enum lks_finding_state {
  LKS_FINDING_GOOD,
  LKS_FINDING_UNSEEN,  /* not to be seen here, yet what comes behind it works */
  LKS_FINDING_WARNING, /* works, but look at it */
  LKS_FINDING_BROKEN,  /* the chain ends here */
} lks_finding_state;

typedef struct lks_finding {
  lks_finding_state state;
  char name[16];           /* of the link: "pci", "driver", "nodes", ... */
  lks_device_class class_; /* of what is broken */
  char text[1024];
  char remedy[512]; /* what to do; "" where nothing is wrong */
} lks_finding;

enum { LKS_FINDINGS_MAX = 16 };

/* The chain of one rank. */
typedef struct lks_diagnosis {
  int rank;
  char host[64];
  bool usable; /* no link is broken */
  int count;
  lks_finding findings[LKS_FINDINGS_MAX];
} lks_diagnosis;

/* The links up to what CUDA answers, without touching a device: PCI, kernel driver, device nodes,
 * what hides devices, libcuda, the module's libraries, versions. try_nodes as in
 * lks_system_look. Local. */
void lks_diagnose_system(lks_diagnosis *diagnosis, bool try_nodes);

/* The whole chain of every rank; *all, malloc'ed, is [world->size] and alike on all ranks. Where a
 * rank's chain is broken before the devices, all stop there. Ranks take devices as `options` says,
 * with kind gpu. Collective. */
lks_status lks_diagnose(lks_world *world, const lks_device_options *options, lks_diagnosis **all,
                        lks_error *err) LKS_MUST_USE;

/* The first broken finding; NULL: usable. */
const lks_finding *lks_diagnosis_broken(const lks_diagnosis *diagnosis);

/* What a diagnosis adds to each link. Internal to diagnose*.c. */
void lks_finding_add(lks_diagnosis *diagnosis, lks_finding_state state, const char *name,
                     const char *remedy, const char *format, ...) LKS_PRINTF(5, 6);
void lks_finding_error(lks_diagnosis *diagnosis, const char *name, lks_device_class class_,
                       const lks_error *error);
/* The class of the finding that was added last. */
void lks_finding_class(lks_diagnosis *diagnosis, lks_device_class class_);

#endif
