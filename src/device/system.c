/* PCI, driver and device nodes as sysfs, procfs and /dev show them. */
#include "device/system.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *lks_system_path(const char *path, char *out, size_t size) {
  const char *root = getenv("LOCKSTEP_SYSTEM_ROOT");
  (void)snprintf(out, size, "%s%s", root != NULL ? root : "", path);
  return out;
}

void lks_system_line(const char *path, char *out, size_t size) {
  char full[4096];
  out[0] = '\0';
  FILE *file = fopen(lks_system_path(path, full, sizeof full), "re");
  if (file != NULL) {
    if (fgets(out, (int)size, file) == NULL) {
      out[0] = '\0';
    }
    out[strcspn(out, "\n")] = '\0';
    (void)fclose(file);
  }
}

/* The value behind "NAME:" in a file of such lines. */
static void line_named(const char *path, const char *name, char *out, size_t size) {
  char full[4096], line[512];
  out[0] = '\0';
  FILE *file = fopen(lks_system_path(path, full, sizeof full), "re");
  while (file != NULL && out[0] == '\0' && fgets(line, sizeof line, file) != NULL) {
    const size_t length = strlen(name);
    const char *colon = strchr(line, ':');
    if (strncmp(line, name, length) == 0 && colon != NULL) {
      const char *value = colon + 1 + strspn(colon + 1, " \t");
      (void)snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
    }
  }
  if (file != NULL) {
    (void)fclose(file);
  }
}

void lks_system_processor(char *out, size_t size) {
  line_named("/proc/cpuinfo", "model name", out, size);
  if (out[0] == '\0') {
    (void)snprintf(out, size, "CPU");
  }
}

/* ---- PCI */

/* Display controllers of NVIDIA: VGA (0x0300) and 3D (0x0302). */
static bool is_gpu(const char *folder) {
  char path[4096], vendor[32], class_[32];
  (void)snprintf(path, sizeof path, "%s/vendor", folder);
  lks_system_line(path, vendor, sizeof vendor);
  (void)snprintf(path, sizeof path, "%s/class", folder);
  lks_system_line(path, class_, sizeof class_);
  return strcmp(vendor, "0x10de") == 0 &&
         (strncmp(class_, "0x0300", 6) == 0 || strncmp(class_, "0x0302", 6) == 0);
}

static void describe(const char *folder, const char *address, lks_pci_device *device) {
  char path[4096], full[4096], target[4096], about[512];
  *device = (lks_pci_device){.numa_node = lks_system_numa_of(address)};
  (void)snprintf(device->address, sizeof device->address, "%.15s", address);
  (void)snprintf(path, sizeof path, "%s/driver", folder);
  const ssize_t length =
      readlink(lks_system_path(path, full, sizeof full), target, sizeof target - 1);
  if (length > 0) {
    target[length] = '\0';
    const char *slash = strrchr(target, '/');
    (void)snprintf(device->driver, sizeof device->driver, "%.31s",
                   slash != NULL ? slash + 1 : target);
  }
  (void)snprintf(about, sizeof about, "/proc/driver/nvidia/gpus/%.15s/information", address);
  line_named(about, "Model", device->model, sizeof device->model);
  line_named(about, "GPU UUID", device->uuid, sizeof device->uuid);
}

static int by_address(const void *a, const void *b) {
  return strcmp(((const lks_pci_device *)a)->address, ((const lks_pci_device *)b)->address);
}

static void look_at_pci(lks_system *system) {
  static const char base[] = "/sys/bus/pci/devices";
  char full[4096], folder[512];
  DIR *entries = opendir(lks_system_path(base, full, sizeof full));
  for (const struct dirent *entry = NULL; entries != NULL &&
                                          system->device_count < LKS_SYSTEM_MAX &&
                                          (entry = readdir(entries)) != NULL;) {
    (void)snprintf(folder, sizeof folder, "%s/%s", base, entry->d_name);
    if (entry->d_name[0] != '.' && is_gpu(folder)) {
      describe(folder, entry->d_name, &system->devices[system->device_count]);
      system->device_count += 1;
    }
  }
  if (entries != NULL) {
    (void)closedir(entries);
  }
  qsort(system->devices, (size_t)system->device_count, sizeof *system->devices, by_address);
}

/* ---- driver and nodes */

/* "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun ...": the first word that is a
 * version, for the words around it differ between the closed and the open driver. */
void lks_system_driver(char *out, size_t size) {
  char line[512];
  out[0] = '\0';
  lks_system_line("/proc/driver/nvidia/version", line, sizeof line);
  for (char *rest = line, *word = NULL; (word = strtok_r(rest, " \t", &rest)) != NULL;) {
    if (isdigit((unsigned char)word[0]) && strchr(word, '.') != NULL) {
      (void)snprintf(out, size, "%s", word);
      return;
    }
  }
}

static void add_node(lks_system *system, const char *path, bool try_it) {
  char full[4096];
  struct stat about;
  lks_device_node *node = &system->nodes[system->node_count];
  if (stat(lks_system_path(path, full, sizeof full), &about) != 0) {
    return;
  }
  *node = (lks_device_node){.mode = about.st_mode & 07777};
  (void)snprintf(node->path, sizeof node->path, "%s", path);
  /* access() would miss a cgroup that forbids the device. */
  const int fd = try_it ? open(full, O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;
  if (try_it && fd < 0) {
    node->code = errno;
  }
  if (fd >= 0) {
    (void)close(fd);
  }
  system->node_count += 1;
}

static void look_at_nodes(lks_system *system, bool try_nodes) {
  char path[32];
  add_node(system, "/dev/dxg", try_nodes); /* WSL */
  add_node(system, "/dev/nvidiactl", try_nodes);
  add_node(system, "/dev/nvidia-uvm", try_nodes);
  for (int i = 0; i < LKS_SYSTEM_MAX; ++i) {
    const int before = system->node_count;
    (void)snprintf(path, sizeof path, "/dev/nvidia%d", i);
    add_node(system, path, try_nodes);
    system->gpu_nodes += system->node_count - before;
  }
}

bool lks_system_has_node(void) {
  lks_system system = {0};
  look_at_nodes(&system, false);
  return system.gpu_nodes > 0 ||
         (system.node_count > 0 && strcmp(system.nodes[0].path, "/dev/dxg") == 0);
}

void lks_system_look(lks_system *system, bool try_nodes) {
  *system = (lks_system){0};
  look_at_pci(system);
  lks_system_driver(system->driver, sizeof system->driver);
  look_at_nodes(system, try_nodes);
}
