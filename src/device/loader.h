/* What the dynamic loader finds, and where a library lies that it does not find. Local; nothing
 * stays loaded that was not. */
#ifndef LKS_DEVICE_LOADER_H
#define LKS_DEVICE_LOADER_H

#include <stdbool.h>
#include <stddef.h>

enum { LKS_LOADER_NAME = 64, LKS_LOADER_MAX = 32 };

/* Tries to load a library by its soname. True: *path is the file; false: `words` are the loader's
 * own. kept: look only at what is loaded already. Under LOCKSTEP_SYSTEM_ROOT the folders that a
 * loader looks into are those of that root, after LD_LIBRARY_PATH. */
bool lks_loader_find(const char *soname, bool kept, char *path, size_t path_size, char *words,
                     size_t words_size);

/* Sonames that a shared object needs (DT_NEEDED), at most LKS_LOADER_MAX; 0 where the file is no
 * 64-bit ELF. *own_path: it brings folders of its own (DT_RUNPATH). */
int lks_loader_needed(const char *path, char names[LKS_LOADER_MAX][LKS_LOADER_NAME],
                      bool *own_path);

/* True where the file holds all that its own ELF header says is to be mapped; the loader would die
 * of a file that was cut off. A file that is no ELF is whole: the loader says what it is. */
bool lks_loader_whole(const char *path);

/* True for a library of CUDA or NCCL, by its name. */
bool lks_loader_vendor(const char *soname);

/* Name of the library that the loader's words say is missing; false where they say else. */
bool lks_loader_missing(const char *words, char name[LKS_LOADER_NAME]);

/* Folder in which a file of that name lies: LD_LIBRARY_PATH, CUDA_HOME, the places where CUDA,
 * distributions, HPC stacks and Python packages put it. False: in none. */
bool lks_loader_search(const char *name, char *folder, size_t size);

#endif
