/* Parting one table into training and validation rows. */
#ifndef LKS_DATA_SPLIT_H
#define LKS_DATA_SPLIT_H

#include "data/data.h"

/* Which rows of the training source train and which validate, by request->options->validation's
 * fraction and rows. Lists are in arena. The same on every rank: reads labels where it must, and
 * nothing else. LKS_CONFIG when a part would be empty or the rows cannot be stratified; LKS_DATA
 * for labels out of range. Not collective. */
lks_status lks_split(lks_source *source, const lks_data_request *request, lks_arena *arena,
                     lks_rows *train, lks_rows *validation, lks_error *err) LKS_MUST_USE;

#endif
