/* Deciding the order of the training rows and where all rows lie, and putting them there. */
#ifndef LKS_DATA_PLACE_H
#define LKS_DATA_PLACE_H

#include "data/data.h"
#include "data/memory.h"

/* Windows of a set: the fewest whole chunks that hold at least `least` rows each; a last one of
 * fewer than `batch_size` rows joins the one before, so that no batch spans three. *starts is in
 * the arena, [*windows + 1]. Depends on these numbers alone. Not collective. */
lks_status lks_windows_make(const lks_rows *rows, int64_t chunk_rows, int64_t least,
                            int64_t batch_size, lks_arena *arena, int64_t *windows,
                            const int64_t **starts, lks_error *err) LKS_MUST_USE;

/* Sets data->order, gives the training table its order, loads the tables that fit the budget and
 * starts streaming the training table where it does not. LKS_CONFIG, naming the keys, when that
 * cannot be. An error of one rank is returned by all. Collective. */
lks_status lks_data_place(lks_world *world, const lks_data_request *request, lks_data *data,
                          lks_error *err) LKS_MUST_USE;

#endif
