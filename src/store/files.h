/* Files that are never seen half-written: aside, synced, compared, renamed. And the run folder:
 * its lock, its log. */
#ifndef LKS_STORE_FILES_H
#define LKS_STORE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "store/contents.h"

/* "FOLDER/.NAME.tmp-PID": where path is written before it is renamed. In the arena. */
char *lks_aside_path(lks_arena *arena, const char *path);

/* "cannot write PATH: REASON (1.5 GiB free)" of an errno, as LKS_STORAGE. */
lks_status lks_fail_write(lks_error *err, const char *path, int code) LKS_MUST_USE;

/* fsync of the file, rename to path, fsync of the folder. Removes `aside` on failure. */
lks_status lks_file_publish(const char *aside, const char *path, lks_error *err) LKS_MUST_USE;

/* Writes text to path by way of a file aside. */
lks_status lks_file_write_text(const char *path, const char *text, size_t length,
                               lks_error *err) LKS_MUST_USE;

/* Refuses (LKS_USAGE) to put an output where something else is: no regular file, one of the inputs
 * (by device and inode; NULL-terminated), or a file that is neither empty nor an earlier output of
 * this kind (predictions or a device report), with nothing else in it. */
lks_status lks_file_replaceable(const char *path, lks_contents kind, const char *const *inputs,
                                lks_error *err) LKS_MUST_USE;

/* Copies a file, by way of one aside, part by part. */
lks_status lks_file_copy(const char *from, const char *to, lks_error *err) LKS_MUST_USE;

/* mkdir -p. LKS_STORAGE naming the part that failed and why. */
lks_status lks_folder_make(const char *path, lks_error *err) LKS_MUST_USE;

/* Refuses a folder that cannot be written, by trying. */
lks_status lks_folder_writable(const char *path, lks_error *err) LKS_MUST_USE;

/* Takes run_folder/.lock for this process, and keeps it fresh by a thread. A run in use is refused
 * (LKS_STORAGE naming host and pid). The lock of a dead process of this machine is taken over; that
 * of another machine when it has not been kept fresh for a minute, or when this is the same Slurm
 * job, begun again. *lock is freed by release, which leaves an empty .lock. */
typedef struct lks_run_lock lks_run_lock;
lks_status lks_run_lock_take(const char *run_folder, lks_run_lock **lock,
                             lks_error *err) LKS_MUST_USE;
void lks_run_lock_release(lks_run_lock **lock);

/* From whom it was taken over and why: a line for people, "" where there is nothing to say. */
enum { LKS_LOCK_NOTE = 512 };
const char *lks_run_lock_note(const lks_run_lock *lock);

/* Refuses (LKS_STORAGE) once another run has taken the lock over, which it does when this one was
 * suspended for long. Any thread; touches no file. */
lks_status lks_run_lock_check(const lks_run_lock *lock, lks_error *err) LKS_MUST_USE;

/* Removes temporary files that a killed run left in the folder and its checkpoints/: those of the
 * files a run writes, so that whoever holds the run's lock, and has not begun to write, can remove
 * nobody else's. */
void lks_folder_sweep(const char *run_folder);

/* XXH64 of a file's bytes [0, length), length < 0: all. */
lks_status lks_file_hash(const char *path, int64_t length, uint64_t *hash,
                         lks_error *err) LKS_MUST_USE;

/* Bytes free on the file system of path (for messages); -1 when it does not say. */
int64_t lks_disk_free(const char *path);

#endif
