/* The arena is a list of blocks, each holding one or more allocations; only the newest is filled
 * further. Blocks double in size so that a large tree costs few mallocs. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lks_arena_block {
  struct lks_arena_block *next;
  size_t used, size;
};

enum { ALIGNMENT = 16, FIRST_BLOCK = 4096 };

static size_t round_up(size_t bytes) {
  return (bytes + (ALIGNMENT - 1)) & ~(size_t)(ALIGNMENT - 1);
}

void *lks_arena_alloc(lks_arena *arena, size_t bytes) {
  const size_t head = round_up(sizeof(struct lks_arena_block));
  if (bytes > SIZE_MAX / 4) {
    return NULL;
  }
  const size_t need = round_up(bytes > 0 ? bytes : 1);
  struct lks_arena_block *block = arena->blocks;
  if (block == NULL || block->size - block->used < need) {
    size_t size = block == NULL ? FIRST_BLOCK : block->size * 2;
    if (size > (1u << 20)) {
      size = 1u << 20;
    }
    if (size < need) {
      size = need;
    }
    struct lks_arena_block *fresh = calloc(1, head + size);
    if (fresh == NULL) {
      return NULL;
    }
    fresh->next = block;
    fresh->size = size;
    arena->blocks = fresh;
    block = fresh;
  }
  void *memory = (char *)block + head + block->used;
  block->used += need;
  return memory;
}

char *lks_arena_copy_n(lks_arena *arena, const char *text, size_t length) {
  char *copy = lks_arena_alloc(arena, length + 1);
  if (copy != NULL) {
    memcpy(copy, text, length);
    copy[length] = '\0';
  }
  return copy;
}

char *lks_arena_copy(lks_arena *arena, const char *text) {
  return lks_arena_copy_n(arena, text, strlen(text));
}

char *lks_arena_print(lks_arena *arena, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  va_list again;
  va_copy(again, arguments);
  const int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *text = length < 0 ? NULL : lks_arena_alloc(arena, (size_t)length + 1);
  if (text != NULL) {
    (void)vsnprintf(text, (size_t)length + 1, format, again);
  }
  va_end(again);
  return text;
}

void lks_arena_free(lks_arena *arena) {
  struct lks_arena_block *block = arena->blocks;
  while (block != NULL) {
    struct lks_arena_block *next = block->next;
    free(block);
    block = next;
  }
  arena->blocks = NULL;
}
