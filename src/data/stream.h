/* Streaming the training table: two windows in the node's memory, filled by one prefetch thread a
 * rank.
 *
 * Windows lie in the two slots by turns, in the order in which they are visited. Each rank's thread
 * reads its own part of one, in whole chunks, as soon as all ranks of the node have released the
 * last but one before it; so each chunk is read once an epoch a node. The threads go on from one
 * epoch to the next, so that its first window is there when it begins. Ranks see each other
 * through counters in the shared memory alone: nothing here is MPI but what begins an epoch. */
#ifndef LKS_DATA_STREAM_H
#define LKS_DATA_STREAM_H

#include "data/data.h"
#include "data/memory.h"

typedef struct lks_stream lks_stream;

/* Bytes that streaming the table in its windows takes on a node. */
int64_t lks_stream_bytes(const lks_table *table);

/* Makes a stream of a table that has its order: all that needs no other rank. Local. */
lks_status lks_stream_make(lks_table *table, lks_stream **stream, lks_error *err) LKS_MUST_USE;
/* Reserves the buffer. Collective over the node. */
lks_status lks_stream_reserve(lks_stream *stream, const lks_budget *budget,
                              lks_error *err) LKS_MUST_USE;
/* Starts the prefetch thread, idle. Local. */
lks_status lks_stream_start(lks_stream *stream, lks_error *err) LKS_MUST_USE;
/* Ends the thread and frees all. NULL is accepted. Collective over the node. */
void lks_stream_close(lks_stream **stream);

/* Begins an epoch of the table's order, at the window that holds `position`. Where it is the start
 * of the epoch after one that all ranks of the node finished, reading goes on; else what was being
 * read is dropped, and an earlier error forgotten. Collective over the node. */
lks_status lks_stream_begin(lks_stream *stream, int64_t epoch, int64_t position,
                            lks_error *err) LKS_MUST_USE;

/* Says that this rank is done with the windows before the k-th. Local. */
void lks_stream_release(lks_stream *stream, int64_t k);

/* Says that this rank has come to the last window of the epoch. Local. */
void lks_stream_finish(lks_stream *stream);

/* Waits until the k-th window is there. When a reader of the node has failed: its error, with its
 * rank and host, on whichever rank waits. LKS_INTERNAL when a rank of the node left the epoch
 * before its part was read. Local. */
lks_status lks_stream_wait(lks_stream *stream, int64_t k, lks_error *err) LKS_MUST_USE;

/* The buffer: row `slot` of features and of targets, where position p of the k-th window has slot
 * p + lks_stream_shift(stream, k). */
const float *lks_stream_features(const lks_stream *stream);
const float *lks_stream_targets(const lks_stream *stream); /* NULL without targets */
int64_t lks_stream_shift(const lks_stream *stream, int64_t k);

const lks_memory *lks_stream_memory(const lks_stream *stream);

#endif
