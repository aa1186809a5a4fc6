/* Seals: made and checked. */
#include "store/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/files.h"

static const char magic[8] = {'L', 'K', 'S', 'S', 'E', 'A', 'L', '1'};

static void put64(unsigned char *out, uint64_t value) {
  for (int i = 0; i < 8; ++i) {
    out[i] = (unsigned char)(value >> (8 * i));
  }
}

static uint64_t get64(const unsigned char *in) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) {
    value |= (uint64_t)in[i] << (8 * i);
  }
  return value;
}

void lks_seal_make(int64_t bytes, uint64_t hash, unsigned char out[LKS_SEAL_BYTES]) {
  memset(out, 0, LKS_SEAL_BYTES);
  memcpy(out, magic, sizeof(magic));
  put64(out + 8, (uint64_t)bytes);
  put64(out + 16, hash);
}

/* Length and last bytes of a file. */
static lks_status read_tail(const char *path, int64_t *size, unsigned char tail[LKS_SEAL_BYTES],
                            lks_error *err) {
  lks_status st = LKS_OK;
  struct stat about;
  memset(tail, 0, LKS_SEAL_BYTES);
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
    FAIL(LKS_STORAGE, "check the path", "%s: no such file", path);
  }
  if (fd < 0 || fstat(fd, &about) != 0) {
    FAIL(LKS_STORAGE, "check its permissions and file system", "%s: cannot open: %s", path,
         strerror(errno));
  }
  if (!S_ISREG(about.st_mode)) {
    FAIL(LKS_STORAGE, "name a checkpoint", "%s: is %s, a checkpoint is needed", path,
         S_ISDIR(about.st_mode) ? "a folder" : "not a regular file");
  }
  if (about.st_size == 0) {
    FAIL(LKS_STORAGE, "use another checkpoint", "%s: the file is empty", path);
  }
  *size = (int64_t)about.st_size;
  if (*size >= LKS_SEAL_BYTES &&
      pread(fd, tail, LKS_SEAL_BYTES, *size - LKS_SEAL_BYTES) != LKS_SEAL_BYTES) {
    FAIL(LKS_STORAGE, "check its file system", "%s: cannot read its end", path);
  }
cleanup:
  if (fd >= 0) {
    (void)close(fd);
  }
  return st;
}

lks_status lks_seal_check(const char *path, bool *sealed, lks_error *err) {
  static const char another[] = "use another checkpoint, or copy the file again";
  lks_status st = LKS_OK;
  int64_t size = 0;
  uint64_t hash = 0;
  unsigned char tail[LKS_SEAL_BYTES];
  *sealed = false;
  TRY(read_tail(path, &size, tail, err));
  const int64_t before = size - LKS_SEAL_BYTES;
  const uint64_t stated = get64(tail + 8);
  const bool marked = memcmp(tail, magic, sizeof(magic)) == 0;
  if (!marked && (before <= 0 || stated != (uint64_t)before)) {
    goto cleanup; /* no seal; one whose mark alone is damaged still states the right length */
  }
  if (marked && stated > (uint64_t)before) {
    FAIL(LKS_STORAGE, another, "%s: truncated: %lld of %llu bytes are there", path,
         (long long)before, (unsigned long long)stated);
  }
  if (!marked || stated != (uint64_t)before || get64(tail + 24) != 0) {
    FAIL(LKS_STORAGE, another, "%s: damaged: its seal is broken", path);
  }
  TRY(lks_file_hash(path, before, &hash, err));
  if (hash != get64(tail + 16)) {
    FAIL(LKS_STORAGE, another, "%s: damaged: its checksum is wrong", path);
  }
  *sealed = true;
cleanup:
  return st;
}
