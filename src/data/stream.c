/* The prefetch thread, and the board on which the ranks of a node see each other's progress.
 *
 * Windows are numbered from the epoch on at which the threads began to read: its k-th is number k,
 * the next epoch's base + k with base = order.windows, and so on. Invariants: loaded[r] windows
 * have been in the buffer as far as rank r's part goes; released[r] windows are used by rank r no
 * more. A thread writes window n only when every released[r] > n - slots (slot n % slots is free),
 * a rank reads window n only when every loaded[r] > n. The board's counters change by their own
 * rank alone, but where lks_stream_begin resets them, between barriers in which no thread is busy.
 * The first reader that fails leaves its words on the board, so that every rank of the node reports
 * the same. */
#include "data/stream.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/thread.h"
#include "data/table.h"

/* Looks at the board before a waiting rank yields, and then before it sleeps between looks. */
#define SPINS 1000
#define YIELDS 100

typedef struct stream_rank {
  _Alignas(64) atomic_int_fast64_t loaded;
  atomic_int_fast64_t pieces; /* read so far: shows that a slow reader is alive */
  _Alignas(64) atomic_int_fast64_t released;
} stream_rank;

typedef enum failure_state { NO_FAILURE, BEING_WRITTEN, WRITTEN } failure_state;

typedef struct stream_board {
  _Alignas(64) atomic_int failed; /* failure_state: once written, waiting is in vain */
  lks_error failure;              /* of the first reader that failed, for all ranks to report */
  stream_rank ranks[];
} stream_board;

struct lks_stream {
  lks_table *table;
  lks_memory memory;
  stream_board *board;
  int part, parts;  /* this rank's part of a window, of so many */
  int64_t slots;    /* windows that the buffer holds */
  int64_t capacity; /* rows a slot */
  float *features;  /* [slots * capacity, inputs] */
  float *targets;   /* [slots * capacity, outputs]; NULL: none */
  lks_scratch scratch;
  int64_t base;  /* number of the first window of the epoch that this rank is in */
  bool finished; /* this rank has come to the last window of it */

  lks_order order; /* the thread's own: it may be an epoch ahead of the table's */
  pthread_t thread;
  bool started;
  pthread_mutex_t lock; /* guards the four below it */
  pthread_cond_t changed;
  bool busy, quit;
  int64_t epoch, first; /* epoch whose window 0 is number 0; number that the thread begins at */
  atomic_bool cancel;   /* asks a busy thread to become idle */
};

/* ---- layout */

static int64_t slots_of(const lks_order *order) {
  return order->windows > 1 ? 2 : 1;
}

static int64_t buffer_rows(const lks_order *order) {
  return lks_order_widest(order) * slots_of(order);
}

static size_t board_bytes(int ranks) {
  return sizeof(stream_board) + (size_t)ranks * sizeof(stream_rank);
}

int64_t lks_stream_bytes(const lks_table *table) {
  return (int64_t)board_bytes(table->world->local_size) +
         lks_table_bytes(table, buffer_rows(&table->order));
}

const float *lks_stream_features(const lks_stream *stream) {
  return stream->features;
}

const float *lks_stream_targets(const lks_stream *stream) {
  return stream->targets;
}

const lks_memory *lks_stream_memory(const lks_stream *stream) {
  return &stream->memory;
}

/* Slot of position p of window `number` minus p, where that is the k-th of the order's epoch. */
static int64_t shift_of(const lks_stream *stream, const lks_order *order, int64_t number,
                        int64_t k) {
  return number % stream->slots * stream->capacity - order->starts[order->sequence[k]];
}

int64_t lks_stream_shift(const lks_stream *stream, int64_t k) {
  return shift_of(stream, &stream->table->order, stream->base + k, k);
}

/* ---- the board */

static int64_t least_loaded(const lks_stream *stream) {
  int64_t least = INT64_MAX;
  for (int r = 0; r < stream->parts; ++r) {
    const int64_t loaded =
        atomic_load_explicit(&stream->board->ranks[r].loaded, memory_order_acquire);
    least = loaded < least ? loaded : least;
  }
  return least;
}

static int64_t least_released(const lks_stream *stream) {
  int64_t least = INT64_MAX;
  for (int r = 0; r < stream->parts; ++r) {
    const int64_t released =
        atomic_load_explicit(&stream->board->ranks[r].released, memory_order_acquire);
    least = released < least ? released : least;
  }
  return least;
}

static int64_t all_pieces(const lks_stream *stream) {
  int64_t sum = 0;
  for (int r = 0; r < stream->parts; ++r) {
    sum += atomic_load_explicit(&stream->board->ranks[r].pieces, memory_order_relaxed);
  }
  return sum;
}

static bool any_failed(const lks_stream *stream) {
  return atomic_load_explicit(&stream->board->failed, memory_order_acquire) == WRITTEN;
}

/* Puts a reader's error on the board, unless another was first. */
static void post_failure(lks_stream *stream, const lks_error *error) {
  stream_board *board = stream->board;
  const lks_world *world = stream->table->world;
  int expected = NO_FAILURE;
  if (atomic_compare_exchange_strong(&board->failed, &expected, BEING_WRITTEN)) {
    board->failure = *error;
    board->failure.rank = world->rank;
    memcpy(board->failure.host, world->host, sizeof board->failure.host);
    atomic_store_explicit(&board->failed, WRITTEN, memory_order_release);
  }
}

static void nap(long nanoseconds) {
  const struct timespec time = {0, nanoseconds};
  (void)nanosleep(&time, NULL);
}

/* ---- the thread */

static bool cancelled(lks_stream *stream) {
  return atomic_load_explicit(&stream->cancel, memory_order_acquire);
}

/* Waits until every rank has released the windows before the number-th. False when there is nothing
 * to wait for any more. They are released once a window, so looking a few thousand times a second
 * costs nothing and is soon enough. */
static bool wait_until_released(lks_stream *stream, int64_t number) {
  while (least_released(stream) < number) {
    if (cancelled(stream) || any_failed(stream)) {
      return false;
    }
    nap(200000);
  }
  return !cancelled(stream) && !any_failed(stream);
}

/* This rank's part of window `number`, of the epoch that the thread's order is in, into its slot.
 */
static lks_status load_part(lks_stream *stream, int64_t number, lks_error *err) {
  lks_status st = LKS_OK;
  lks_table *table = stream->table;
  const lks_order *order = &stream->order;
  const int64_t k = number % order->windows;
  const int64_t w = order->sequence[k];
  const int64_t chunk_rows = lks_source_describe(table->source)->chunk_rows;
  const int64_t window_first = order->starts[w];
  const int64_t window_end = order->starts[w + 1];
  int64_t first =
      lks_rows_cut(&table->rows, chunk_rows, window_first, window_end, stream->part, stream->parts);
  const int64_t end = lks_rows_cut(&table->rows, chunk_rows, window_first, window_end,
                                   stream->part + 1, stream->parts);
  const int64_t shift = shift_of(stream, order, number, k);
  int64_t got = 0;
  for (; first < end && !cancelled(stream); first += got) {
    float *targets =
        stream->targets != NULL ? stream->targets + (first + shift) * table->outputs : NULL;
    TRY(lks_table_load(table, first, end, &stream->scratch,
                       stream->features + (first + shift) * table->inputs, targets, &got, err));
    atomic_fetch_add_explicit(&stream->board->ranks[stream->part].pieces, 1, memory_order_relaxed);
  }
cleanup:
  return st;
}

/* Reads window after window, epoch after epoch, until a failure or a cancellation: which epoch is
 * the last is not known here, so slots that are free at its end are filled in vain. A failure is
 * told once all ranks are in its epoch: that of one that never comes fails nobody. */
static lks_status run(lks_stream *stream, int64_t epoch, int64_t first, lks_error *err) {
  lks_status st = LKS_OK;
  const int64_t windows = stream->order.windows;
  for (int64_t n = first; wait_until_released(stream, n - stream->slots + 1); ++n) {
    if (n == first || n % windows == 0) {
      lks_order_begin(&stream->order, epoch + n / windows);
    }
    st = load_part(stream, n, err);
    if (cancelled(stream) || (st != LKS_OK && !wait_until_released(stream, n - n % windows))) {
      return LKS_OK;
    }
    TRY(st);
    atomic_store_explicit(&stream->board->ranks[stream->part].loaded, n + 1, memory_order_release);
  }
cleanup:
  return st;
}

static void *prefetch(void *argument) {
  lks_stream *stream = argument;
  lks_error error;
  (void)pthread_mutex_lock(&stream->lock);
  while (!stream->quit) {
    if (!stream->busy) {
      (void)pthread_cond_wait(&stream->changed, &stream->lock);
      continue;
    }
    const int64_t epoch = stream->epoch;
    const int64_t first = stream->first;
    (void)pthread_mutex_unlock(&stream->lock);
    if (run(stream, epoch, first, &error) != LKS_OK) {
      post_failure(stream, &error);
    }
    (void)pthread_mutex_lock(&stream->lock);
    stream->busy = false;
    (void)pthread_cond_broadcast(&stream->changed);
  }
  (void)pthread_mutex_unlock(&stream->lock);
  return NULL;
}

/* ---- opening and closing */

lks_status lks_stream_make(lks_table *table, lks_stream **stream, lks_error *err) {
  lks_status st = LKS_OK;
  lks_stream *made = calloc(1, sizeof *made);
  TRY_ALLOC(made);
  const lks_order *order = &table->order;
  made->table = table;
  made->slots = slots_of(order);
  made->capacity = lks_order_widest(&table->order);
  /* Default attributes: neither can fail. */
  (void)pthread_mutex_init(&made->lock, NULL);
  (void)pthread_cond_init(&made->changed, NULL);
  *stream = made;
  TRY(lks_order_open(order->rows, order->shuffle, order->seed, order->windows, order->starts,
                     &made->order, err));
  TRY(lks_table_scratch(table, &made->scratch, err));
cleanup:
  return st;
}

lks_status lks_stream_reserve(lks_stream *stream, const lks_budget *budget, lks_error *err) {
  lks_status st = LKS_OK;
  const lks_table *table = stream->table;
  TRY(lks_memory_open(table->world, budget, (size_t)lks_stream_bytes(table), &stream->memory, err));
  stream->part = stream->memory.part;
  stream->parts = stream->memory.parts;
  stream->board = stream->memory.base;
  lks_table_lay_out(table, buffer_rows(&table->order),
                    (char *)stream->memory.base + board_bytes(table->world->local_size),
                    &stream->features, &stream->targets);
cleanup:
  return st;
}

lks_status lks_stream_start(lks_stream *stream, lks_error *err) {
  lks_status st = LKS_OK;
  TRY(lks_thread_start(&stream->thread, prefetch, stream, err));
  stream->started = true;
cleanup:
  return st;
}

/* Makes the thread idle, and keeps it so. A rank that leaves an epoch before all of its part is
 * read says so on the board: a peer that still waits for it would wait for ever. */
static void stop(lks_stream *stream) {
  atomic_store_explicit(&stream->cancel, true, memory_order_release);
  (void)pthread_mutex_lock(&stream->lock);
  while (stream->busy) {
    (void)pthread_cond_wait(&stream->changed, &stream->lock);
  }
  (void)pthread_mutex_unlock(&stream->lock);
  const int64_t end = stream->base + stream->table->order.windows;
  if (atomic_load(&stream->board->ranks[stream->part].loaded) < end) {
    lks_error left;
    if (lks_fail(&left, LKS_INTERNAL, NULL, "a rank left the epoch while another was in it") !=
        LKS_OK) {
      post_failure(stream, &left);
    }
  }
}

void lks_stream_close(lks_stream **stream) {
  lks_stream *s = *stream;
  if (s == NULL) {
    return;
  }
  if (s->started) {
    stop(s);
    (void)pthread_mutex_lock(&s->lock);
    s->quit = true;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->thread, NULL);
  }
  lks_memory_close(&s->memory);
  lks_scratch_close(&s->scratch);
  lks_order_close(&s->order);
  (void)pthread_cond_destroy(&s->changed);
  (void)pthread_mutex_destroy(&s->lock);
  free(s);
  *stream = NULL;
}

/* ---- an epoch */

/* Makes all threads of the node read from the window that holds `position` of the epoch on. */
static lks_status begin_anew(lks_stream *stream, int64_t epoch, int64_t position, lks_error *err) {
  lks_status st = LKS_OK;
  lks_order *order = &stream->table->order;
  stop(stream);
  /* No thread of the node touches the board or the buffer between the two barriers. */
  TRY_MPI(MPI_Barrier(stream->table->world->node));
  lks_order_begin(order, epoch);
  const int64_t first = position < order->rows ? lks_order_window(order, position) : order->windows;
  stream_rank *mine = &stream->board->ranks[stream->part];
  atomic_store_explicit(&mine->loaded, first, memory_order_relaxed);
  atomic_store_explicit(&mine->released, first, memory_order_relaxed);
  atomic_store_explicit(&stream->board->failed, NO_FAILURE, memory_order_relaxed);
  stream->base = 0;
  TRY_MPI(MPI_Barrier(stream->table->world->node));
  (void)pthread_mutex_lock(&stream->lock);
  stream->epoch = epoch;
  stream->first = first;
  stream->busy = true;
  atomic_store_explicit(&stream->cancel, false, memory_order_release);
  (void)pthread_cond_broadcast(&stream->changed);
  (void)pthread_mutex_unlock(&stream->lock);
cleanup:
  return st;
}

lks_status lks_stream_begin(lks_stream *stream, int64_t epoch, int64_t position, lks_error *err) {
  lks_status st = LKS_OK;
  lks_order *order = &stream->table->order;
  int follows = stream->finished && epoch == order->epoch + 1 && position == 0;
  if (!follows) { /* first: a peer may still wait for this rank's part of what it leaves */
    stop(stream);
  }
  TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, &follows, 1, MPI_INT, MPI_MIN, stream->table->world->node));
  if (follows) { /* the threads are there already */
    stream->base += order->windows;
    lks_order_begin(order, epoch);
  } else {
    TRY(begin_anew(stream, epoch, position, err));
  }
  stream->finished = position == order->rows;
cleanup:
  return st;
}

void lks_stream_finish(lks_stream *stream) {
  stream->finished = true;
}

void lks_stream_release(lks_stream *stream, int64_t k) {
  atomic_store_explicit(&stream->board->ranks[stream->part].released, stream->base + k,
                        memory_order_release);
}

lks_status lks_stream_wait(lks_stream *stream, int64_t k, lks_error *err) {
  const int64_t number = stream->base + k;
  int64_t seen = all_pieces(stream);
  for (int64_t looks = 0; least_loaded(stream) <= number; ++looks) {
    if (any_failed(stream)) {
      /* Between the look at the counters and this one, the window may have come, a peer have used
       * it and left the epoch. Whoever fails has seen to its counter first. */
      if (least_loaded(stream) > number) {
        break;
      }
      *err = stream->board->failure;
      (void)snprintf(err->phase, sizeof err->phase, "%s", stream->table->world->phase);
      return err->status;
    }
    if (looks < SPINS) {
      continue;
    }
    /* Progress of the readers is progress of this rank; a reader that hangs is not. */
    const int64_t pieces = all_pieces(stream);
    if (pieces != seen) {
      seen = pieces;
      lks_world_beat(stream->table->world);
    }
    if (looks < SPINS + YIELDS) {
      (void)sched_yield();
    } else {
      nap(50000);
    }
  }
  return LKS_OK;
}
