/* A growing region freed at once: owner of configuration trees, texts and tables.
 * Not thread-safe; never used between the first and last step of an epoch. */
#ifndef LKS_BASE_ARENA_H
#define LKS_BASE_ARENA_H

#include <stddef.h>

typedef struct lks_arena {
  struct lks_arena_block *blocks; /* newest first */
} lks_arena;

/* Zeroed memory aligned to 16 bytes, valid until lks_arena_free; NULL when memory is out. */
void *lks_arena_alloc(lks_arena *arena, size_t bytes);

/* Copies a string (or its first length bytes) into the arena; NULL when memory is out. */
char *lks_arena_copy(lks_arena *arena, const char *text);
char *lks_arena_copy_n(lks_arena *arena, const char *text, size_t length);

/* Formats into the arena; NULL when memory is out. */
char *lks_arena_print(lks_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Frees everything; the arena is empty and usable again. */
void lks_arena_free(lks_arena *arena);

#endif
