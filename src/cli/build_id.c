/* The build ids that the linker wrote into the program and its library: two processes of one run
 * must have the same ones. */
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

typedef struct search {
  lks_text *out;
  int object;
} search;

/* Appends the build id among the notes of one segment, if it is there. */
static void read_notes(const char *notes, size_t bytes, lks_text *out) {
  while (bytes >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) head;
    memcpy(&head, notes, sizeof head);
    const size_t name_bytes = (head.n_namesz + 3u) & ~(size_t)3;
    const size_t value_bytes = (head.n_descsz + 3u) & ~(size_t)3;
    const char *name = notes + sizeof head, *value = name + name_bytes;
    if (sizeof head + name_bytes + value_bytes > bytes) {
      return;
    }
    if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 && memcmp(name, "GNU", 4) == 0) {
      for (size_t i = 0; i < head.n_descsz; ++i) {
        lks_text_add(out, "%02x", (unsigned)(unsigned char)value[i]);
      }
      lks_text_add(out, " ");
    }
    notes += sizeof head + name_bytes + value_bytes;
    bytes -= sizeof head + name_bytes + value_bytes;
  }
}

static int visit(struct dl_phdr_info *info, size_t size, void *user) {
  (void)size;
  search *s = user;
  const bool ours = s->object++ == 0 || strstr(info->dlpi_name, "liblockstep") != NULL;
  for (int i = 0; ours && i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    if (segment->p_type == PT_NOTE) {
      read_notes((const char *)(info->dlpi_addr + segment->p_vaddr), segment->p_memsz, s->out);
    }
  }
  return 0;
}

void lks_build_id(char *out, size_t size) {
  lks_text text = {0};
  search s = {.out = &text};
  (void)dl_iterate_phdr(visit, &s);
  (void)snprintf(out, size, "%s", text.data != NULL ? text.data : "unknown");
  lks_text_free(&text);
}
