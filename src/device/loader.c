/* The dynamic loader asked, and the usual folders searched. */
#include "device/loader.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <glob.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device/system.h"

/* ---- loading */

static bool load(const char *name, bool kept, char *path, size_t path_size, char *words,
                 size_t words_size) {
  (void)dlerror();
  void *handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL | (kept ? RTLD_NOLOAD : 0));
  if (handle == NULL) {
    const char *why = dlerror();
    (void)snprintf(words, words_size, "%s", why != NULL ? why : "it is not loaded");
    return false;
  }
  struct link_map *map = NULL;
  const bool told = dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map->l_name[0] != '\0';
  (void)snprintf(path, path_size, "%s", told ? map->l_name : name);
  (void)dlclose(handle);
  return true;
}

/* Calls `look` with each folder of a colon-separated list until it is content. */
static bool each_folder(const char *list, bool (*look)(const char *folder, void *user),
                        void *user) {
  char copy[8192], *rest = copy, *folder = NULL;
  (void)snprintf(copy, sizeof copy, "%s", list != NULL ? list : "");
  while ((folder = strtok_r(rest, ":", &rest)) != NULL) {
    if (look(folder, user)) {
      return true;
    }
  }
  return false;
}

typedef struct wanted {
  const char *name;
  char *folder; /* where it was found */
  size_t size;
} wanted;

static bool holds(const char *folder, void *user) {
  const wanted *w = user;
  char path[4352];
  (void)snprintf(path, sizeof path, "%s/%s", folder, w->name);
  if (access(path, F_OK) != 0) {
    return false;
  }
  (void)snprintf(w->folder, w->size, "%s", folder);
  return true;
}

static bool holds_under_root(const char *folder, void *user) {
  char full[4096];
  return holds(lks_system_path(folder, full, sizeof full), user);
}

static const char system_folders[] =
    "/usr/lib/x86_64-linux-gnu:/usr/lib/aarch64-linux-gnu:/usr/lib64:/usr/lib:/lib64:/lib:"
    "/usr/lib/wsl/lib:/usr/local/nvidia/lib64";

bool lks_loader_find(const char *soname, bool kept, char *path, size_t path_size, char *words,
                     size_t words_size) {
  char folder[4096], full[4352];
  wanted w = {soname, folder, sizeof folder};
  if (getenv("LOCKSTEP_SYSTEM_ROOT") == NULL) {
    return load(soname, kept, path, path_size, words, words_size);
  }
  if (each_folder(getenv("LD_LIBRARY_PATH"), holds, &w) ||
      each_folder(system_folders, holds_under_root, &w)) {
    (void)snprintf(full, sizeof full, "%s/%s", folder, soname);
    return load(full, kept, path, path_size, words, words_size);
  }
  (void)snprintf(words, words_size, "%s: cannot open shared object file: No such file or directory",
                 soname);
  return false;
}

bool lks_loader_missing(const char *words, char name[LKS_LOADER_NAME]) {
  static const char mark[] = ": cannot open shared object file";
  const char *end = strstr(words, mark);
  if (end == NULL) {
    return false;
  }
  const char *begin = end;
  while (begin > words && begin[-1] != ' ' && begin[-1] != '/') {
    --begin;
  }
  (void)snprintf(name, LKS_LOADER_NAME, "%.*s", (int)(end - begin), begin);
  return true;
}

/* ---- searching */

static bool holds_by_pattern(const char *pattern, void *user) {
  glob_t found = {0};
  bool there = false;
  if (glob(pattern, 0, NULL, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc && !there; ++i) {
      there = holds(found.gl_pathv[i], user);
    }
  }
  globfree(&found);
  return there;
}

static bool holds_in_package(const char *folder, void *user) {
  char pattern[4352];
  (void)snprintf(pattern, sizeof pattern, "%s/lib/python3*/site-packages/nvidia/*/lib", folder);
  return holds_by_pattern(pattern, user);
}

bool lks_loader_search(const char *name, char *folder, size_t size) {
  static const char patterns[] =
      "/usr/local/cuda/lib64:/usr/local/cuda-*/lib64:/usr/local/cuda*/lib:"
      "/usr/local/cuda*/targets/*/lib:/usr/local/lib:/opt/cuda/lib64:"
      "/opt/nvidia/hpc_sdk/*/*/*/lib64:/opt/nvidia/hpc_sdk/*/*/comm_libs/nccl/lib:"
      "/usr/local/lib/python3*/dist-packages/nvidia/*/lib:"
      "/usr/lib/python3*/site-packages/nvidia/*/lib";
  wanted w = {name, folder, size};
  const char *home = getenv("CUDA_HOME");
  char own[4096];
  (void)snprintf(own, sizeof own, "%s/lib64", home != NULL ? home : "");
  return each_folder(getenv("LD_LIBRARY_PATH"), holds, &w) || (home != NULL && holds(own, &w)) ||
         each_folder(system_folders, holds, &w) || each_folder(patterns, holds_by_pattern, &w) ||
         each_folder(getenv("VIRTUAL_ENV"), holds_in_package, &w) ||
         each_folder(getenv("CONDA_PREFIX"), holds_in_package, &w);
}

/* ---- what a module needs */

typedef struct elf {
  const unsigned char *bytes;
  size_t size;
} elf;

/* `count` objects of `each` bytes at an offset, or NULL where the file is shorter. */
static const void *at(const elf *file, uint64_t offset, uint64_t count, uint64_t each) {
  const bool fits = offset <= file->size && count <= (file->size - offset) / each;
  return fits ? file->bytes + offset : NULL;
}

/* NULL where the file is no 64-bit ELF. */
static const Elf64_Ehdr *header_of(const elf *file) {
  const Elf64_Ehdr *head = file->bytes != NULL ? at(file, 0, 1, sizeof *head) : NULL;
  const bool fits = head != NULL && memcmp(head->e_ident, ELFMAG, SELFMAG) == 0 &&
                    head->e_ident[EI_CLASS] == ELFCLASS64 && head->e_phoff % 8 == 0;
  return fits ? head : NULL;
}

/* Offset in the file of an address, by the segments that are loaded; past its end: none. */
static uint64_t offset_of(const elf *file, const Elf64_Phdr *segments, int count,
                          uint64_t address) {
  for (int i = 0; i < count; ++i) {
    if (segments[i].p_type == PT_LOAD && address >= segments[i].p_vaddr &&
        address - segments[i].p_vaddr < segments[i].p_filesz) {
      return address - segments[i].p_vaddr + segments[i].p_offset;
    }
  }
  return file->size;
}

static int read_needed(const elf *file, char names[LKS_LOADER_MAX][LKS_LOADER_NAME],
                       bool *own_path) {
  const Elf64_Ehdr *head = header_of(file);
  if (head == NULL) {
    return 0;
  }
  const Elf64_Phdr *segments = at(file, head->e_phoff, head->e_phnum, sizeof *segments);
  const Elf64_Dyn *entries = NULL;
  uint64_t entry_count = 0, texts = file->size;
  int count = 0;
  for (int i = 0; segments != NULL && i < head->e_phnum; ++i) {
    if (segments[i].p_type == PT_DYNAMIC && segments[i].p_offset % 8 == 0) {
      entry_count = segments[i].p_filesz / sizeof *entries;
      entries = at(file, segments[i].p_offset, entry_count, sizeof *entries);
    }
  }
  for (uint64_t i = 0; entries != NULL && i < entry_count; ++i) {
    if (entries[i].d_tag == DT_STRTAB) {
      texts = offset_of(file, segments, head->e_phnum, entries[i].d_un.d_ptr);
    }
    *own_path = *own_path || entries[i].d_tag == DT_RUNPATH || entries[i].d_tag == DT_RPATH;
  }
  for (uint64_t i = 0; entries != NULL && i < entry_count && count < LKS_LOADER_MAX; ++i) {
    const uint64_t name = texts + entries[i].d_un.d_val;
    if (entries[i].d_tag == DT_NEEDED && name < file->size) {
      const size_t room = file->size - name;
      const char *text = (const char *)file->bytes + name;
      (void)snprintf(names[count++], LKS_LOADER_NAME, "%.*s",
                     (int)(room < LKS_LOADER_NAME ? room : LKS_LOADER_NAME), text);
    }
  }
  return count;
}

/* Maps a file, whole and to read; bytes NULL: it cannot be. */
static elf map(const char *path) {
  struct stat about;
  elf file = {0};
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0 && fstat(fd, &about) == 0 && about.st_size > 0) {
    void *bytes = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes != MAP_FAILED) {
      file = (elf){bytes, (size_t)about.st_size};
    }
  }
  if (fd >= 0) {
    (void)close(fd);
  }
  return file;
}

static void unmap(const elf *file) {
  if (file->bytes != NULL) {
    (void)munmap((void *)(uintptr_t)file->bytes, file->size);
  }
}

static bool holds_segments(const elf *file) {
  const Elf64_Ehdr *head = header_of(file);
  const Elf64_Phdr *segments =
      head != NULL ? at(file, head->e_phoff, head->e_phnum, sizeof *segments) : NULL;
  bool whole = head == NULL || segments != NULL;
  for (int i = 0; whole && head != NULL && i < head->e_phnum; ++i) {
    whole = segments[i].p_type != PT_LOAD ||
            at(file, segments[i].p_offset, segments[i].p_filesz, 1) != NULL;
  }
  return whole;
}

bool lks_loader_whole(const char *path) {
  const elf file = map(path);
  const bool whole = holds_segments(&file);
  unmap(&file);
  return whole;
}

bool lks_loader_vendor(const char *soname) {
  return strncmp(soname, "libcu", 5) == 0 || strncmp(soname, "libnccl", 7) == 0;
}

int lks_loader_needed(const char *path, char names[LKS_LOADER_MAX][LKS_LOADER_NAME],
                      bool *own_path) {
  *own_path = false;
  const elf file = map(path);
  const int count = read_needed(&file, names, own_path);
  unmap(&file);
  return count;
}
