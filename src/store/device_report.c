/* The tables of a device report. One row of `tables` a table: writing and reading are loops. */
#include "store/device_report.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/files.h"

#define DEVICE(member, type, unit)                                                                 \
  LKS_FIELD(lks_device_row, member, #member, LKS_FIELD_##type, unit)
#define LINK(member, type, unit) LKS_FIELD(lks_link_row, member, #member, LKS_FIELD_##type, unit)
#define MEMORY(member) LKS_FIELD(lks_memory_row, member, #member, LKS_FIELD_INT64, "bytes")

const lks_field lks_device_fields[] = {DEVICE(rank, INT, NULL),
                                       DEVICE(host, TEXT, NULL),
                                       DEVICE(local_rank, INT, NULL),
                                       DEVICE(backend, TEXT, NULL),
                                       DEVICE(ordinal, INT, NULL),
                                       DEVICE(name, TEXT, NULL),
                                       DEVICE(uuid, TEXT, NULL),
                                       DEVICE(pci_bus_id, TEXT, NULL),
                                       DEVICE(compute_capability, TEXT, NULL),
                                       DEVICE(memory_total, INT64, "bytes"),
                                       DEVICE(memory_free, INT64, "bytes"),
                                       DEVICE(sm_count, INT, NULL),
                                       DEVICE(clock, INT64, "Hz"),
                                       DEVICE(memory_clock, INT64, "Hz"),
                                       DEVICE(driver, TEXT, NULL),
                                       DEVICE(cuda_runtime, TEXT, NULL),
                                       DEVICE(cublas, TEXT, NULL),
                                       DEVICE(nccl, TEXT, NULL),
                                       DEVICE(numa_node, INT, NULL),
                                       DEVICE(cores, TEXT, NULL),
                                       DEVICE(core_count, INT, NULL),
                                       DEVICE(threads, INT, NULL),
                                       DEVICE(library, TEXT, NULL),
                                       {0}};

const lks_field lks_link_fields[] = {LINK(from, INT, NULL),
                                     LINK(to, INT, NULL),
                                     LINK(way, TEXT, NULL),
                                     LINK(peer_access, INT, NULL),
                                     LINK(message, INT64, "bytes"),
                                     LINK(bandwidth, REAL, "bytes/s"),
                                     {0}};

const lks_field lks_memory_fields[] = {LKS_FIELD(lks_memory_row, rank, "rank", LKS_FIELD_INT, NULL),
                                       MEMORY(parameters),
                                       MEMORY(gradients),
                                       MEMORY(slots),
                                       MEMORY(activations),
                                       MEMORY(data),
                                       MEMORY(workspace),
                                       MEMORY(total),
                                       MEMORY(limit),
                                       MEMORY(device_total),
                                       MEMORY(free_before),
                                       MEMORY(free_after),
                                       {0}};

const lks_field lks_algorithm_fields[] = {
    LKS_FIELD(lks_algorithm_row, rank, "rank", LKS_FIELD_INT, NULL),
    LKS_FIELD(lks_algorithm_row, what, "what", LKS_FIELD_TEXT, NULL),
    LKS_FIELD(lks_algorithm_row, chosen, "chosen", LKS_FIELD_TEXT, NULL),
    LKS_FIELD(lks_algorithm_row, seconds, "seconds", LKS_FIELD_REAL, "s"),
    {0}};

const lks_field lks_failure_fields[] = {
    LKS_FIELD(lks_failure_row, rank, "rank", LKS_FIELD_INT, NULL),
    LKS_FIELD(lks_failure_row, host, "host", LKS_FIELD_TEXT, NULL),
    LKS_FIELD(lks_failure_row, subject, "subject", LKS_FIELD_TEXT, NULL),
    LKS_FIELD(lks_failure_row, class_, "class", LKS_FIELD_TEXT, NULL),
    LKS_FIELD(lks_failure_row, words, "words", LKS_FIELD_TEXT, NULL),
    LKS_FIELD(lks_failure_row, advice, "advice", LKS_FIELD_TEXT, NULL),
    {0}};

/* rows and count: where the report has them. */
typedef struct table {
  const char *name;
  const lks_field *fields;
  size_t stride;
  size_t rows, count;
} table;

#define TABLE(name, fields, row, rows_, count_)                                                    \
  {                                                                                                \
    name, fields, sizeof(row), offsetof(lks_device_report, rows_),                                 \
        offsetof(lks_device_report, count_)                                                        \
  }

static const table tables[] = {
    TABLE("ranks", lks_device_fields, lks_device_row, devices, device_count),
    TABLE("links", lks_link_fields, lks_link_row, links, link_count),
    TABLE("memory", lks_memory_fields, lks_memory_row, memory, memory_count),
    TABLE("algorithms", lks_algorithm_fields, lks_algorithm_row, algorithms, algorithm_count),
    TABLE("errors", lks_failure_fields, lks_failure_row, failures, failure_count)};

enum { TABLES = sizeof tables / sizeof *tables };

bool lks_device_report_has(const char *name) {
  bool has = false;
  for (size_t i = 0; i < TABLES; ++i) {
    has = has || strcmp(tables[i].name, name) == 0;
  }
  return has;
}

static lks_status write_report(const lks_device_report *report, lks_h5 *file, lks_error *err) {
  lks_status st = LKS_OK;
  for (size_t i = 0; i < TABLES; ++i) {
    const char *base = (const char *)report;
    const void *rows = NULL;
    int64_t count = 0;
    memcpy(&rows, base + tables[i].rows, sizeof rows);
    memcpy(&count, base + tables[i].count, sizeof count);
    TRY(lks_h5_write_table(file, tables[i].name, tables[i].fields, rows, tables[i].stride, count,
                           err));
  }
  TRY(lks_h5_attr_text(file, "/", "report", "devices", err));
  TRY(lks_h5_attr_int64(file, "/", "format", LKS_DEVICE_REPORT_FORMAT, err));
  TRY(lks_h5_attr_int64(file, "/", "ranks", report->ranks, err));
  TRY(lks_h5_attr_text(file, "/", "created", report->created, err));
  TRY(lks_h5_attr_text(file, "/", "asked", report->asked, err));
  TRY(lks_h5_attr_text(file, "/", "got", report->got, err));
cleanup:
  return st;
}

lks_status lks_device_report_store(const lks_device_report *report, const char *path,
                                   lks_error *err) {
  lks_status st = LKS_OK;
  lks_error second;
  lks_h5 *file = NULL;
  lks_arena arena = {0};
  const char *aside = lks_aside_path(&arena, path);
  TRY_ALLOC(aside);
  TRY(lks_h5_create_aside(aside, path, &file, err));
  TRY(write_report(report, file, err));
  TRY(lks_h5_close(&file, err));
  /* Not synced, which may take long at every start: it can be made again at any time. */
  if (rename(aside, path) != 0) {
    TRY(lks_fail_write(err, path, errno));
  }
cleanup:
  if (st != LKS_OK && lks_h5_close(&file, &second) != LKS_OK) {
    file = NULL; /* the first failure is the one to tell */
  }
  if (st != LKS_OK && aside != NULL) {
    (void)unlink(aside);
  }
  lks_arena_free(&arena);
  return st;
}

static lks_status read_text(lks_h5 *file, const char *key, lks_arena *arena, char *out, size_t size,
                            lks_error *err) {
  lks_status st = LKS_OK;
  char *text = NULL;
  TRY(lks_h5_attr_read_text(file, "/", key, arena, &text, err));
  (void)snprintf(out, size, "%s", text != NULL ? text : "");
cleanup:
  return st;
}

lks_status lks_device_report_load(lks_h5 *file, lks_arena *arena, lks_device_report *report,
                                  lks_error *err) {
  lks_status st = LKS_OK;
  int64_t format = 0, ranks = 0;
  *report = (lks_device_report){0};
  TRY(lks_h5_attr_read_int64(file, "/", "format", &format, err));
  if (format > LKS_DEVICE_REPORT_FORMAT) {
    FAIL(LKS_DATA, "use a newer version of Lockstep",
         "%s: device report format %" PRId64 " is newer than this version, which reads up to %d",
         lks_h5_path(file), format, LKS_DEVICE_REPORT_FORMAT);
  }
  for (size_t i = 0; i < TABLES; ++i) {
    char *base = (char *)report;
    void *rows = NULL;
    int64_t count = 0;
    TRY(lks_h5_read_table(file, tables[i].name, tables[i].fields, tables[i].stride, arena, &rows,
                          &count, err));
    memcpy(base + tables[i].rows, &rows, sizeof rows);
    memcpy(base + tables[i].count, &count, sizeof count);
  }
  TRY(lks_h5_attr_read_int64(file, "/", "ranks", &ranks, err));
  report->ranks = (int)ranks;
  TRY(read_text(file, "created", arena, report->created, sizeof report->created, err));
  TRY(read_text(file, "asked", arena, report->asked, sizeof report->asked, err));
  TRY(read_text(file, "got", arena, report->got, sizeof report->got, err));
cleanup:
  return st;
}
