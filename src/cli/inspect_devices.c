/* inspect: device reports. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "cli/devices.h"
#include "cli/inspect.h"
#include "store/device_report.h"

static void print_devices(const lks_device_report *devices, lks_report *report) {
  char total[32], left[32], label[48], place[32];
  for (int64_t i = 0; i < devices->device_count; ++i) {
    const lks_device_row *row = &devices->devices[i];
    (void)snprintf(label, sizeof label, "rank %d", row->rank);
    (void)snprintf(place, sizeof place, row->ordinal >= 0 ? "gpu:%d" : "cpu", row->ordinal);
    lks_report_line(report, label, "%s, %s %s%s%s, %s free of %s, cores %s, %d thread%s", row->host,
                    place, row->name, row->uuid[0] != '\0' ? ", " : "", row->uuid,
                    row->memory_free < 0 ? "unknown"
                                         : lks_format_bytes(left, (double)row->memory_free),
                    lks_format_bytes(total, (double)row->memory_total), row->cores, row->threads,
                    row->threads == 1 ? "" : "s");
  }
}

static void print_memory(const lks_device_report *devices, lks_report *report) {
  char before[32], after[32], total[32], limit[48], bytes[32];
  for (int64_t i = 0; i < devices->memory_count; ++i) {
    const lks_memory_row *row = &devices->memory[i];
    (void)snprintf(limit, sizeof limit, "%s",
                   row->limit > 0 ? lks_format_bytes(bytes, (double)row->limit) : "none");
    lks_report_line(report, "memory", "rank %d: %s free before, %s after; planned %s, limit %s",
                    row->rank, lks_format_bytes(before, (double)row->free_before),
                    lks_format_bytes(after, (double)row->free_after),
                    lks_format_bytes(total, (double)row->total), limit);
  }
}

static void print_links(const lks_device_report *devices, lks_report *report) {
  char rate[48], bytes[32];
  for (int64_t i = 0; i < devices->link_count; ++i) {
    const lks_link_row *row = &devices->links[i];
    (void)snprintf(rate, sizeof rate, isnan(row->bandwidth) ? "%snot measured" : "%s/s",
                   isnan(row->bandwidth) ? "" : lks_format_bytes(bytes, row->bandwidth));
    lks_report_line(report, "link", "rank %d and %d: %s, %s%s", row->from, row->to, row->way, rate,
                    row->peer_access == 1   ? ", peer access"
                    : row->peer_access == 0 ? ", no peer access"
                                            : "");
  }
}

static void print_rest(const lks_device_report *devices, lks_report *report) {
  for (int64_t i = 0; i < devices->algorithm_count; ++i) {
    const lks_algorithm_row *row = &devices->algorithms[i];
    lks_report_line(report, "algorithm", "rank %d: %s: %s", row->rank, row->what, row->chosen);
  }
  for (int64_t i = 0; i < devices->failure_count; ++i) {
    const lks_failure_row *row = &devices->failures[i];
    lks_report_line(report, "error", "rank %d on %s: %s (%s): %s", row->rank, row->host,
                    row->subject, row->class_, row->words);
  }
}

static void set_tables(const lks_device_report *devices, lks_report *report) {
  const struct {
    const char *key;
    const lks_field *fields;
    const void *rows;
    size_t stride;
    int64_t count;
  } tables[] = {
      {"devices", lks_device_fields, devices->devices, sizeof *devices->devices,
       devices->device_count},
      {"links", lks_link_fields, devices->links, sizeof *devices->links, devices->link_count},
      {"memory", lks_memory_fields, devices->memory, sizeof *devices->memory,
       devices->memory_count},
      {"algorithms", lks_algorithm_fields, devices->algorithms, sizeof *devices->algorithms,
       devices->algorithm_count},
      {"errors", lks_failure_fields, devices->failures, sizeof *devices->failures,
       devices->failure_count}};
  for (size_t i = 0; i < sizeof tables / sizeof *tables; ++i) {
    lks_report_set(
        report, report->json, tables[i].key,
        lks_fields_json_all(tables[i].fields, tables[i].rows, tables[i].stride, tables[i].count));
  }
}

lks_status lks_inspect_devices(lks_h5 *file, lks_arena *arena, lks_report *report, lks_error *err) {
  lks_status st = LKS_OK;
  lks_device_report devices;
  TRY(lks_device_report_load(file, arena, &devices, err));
  lks_report_count(report, report->json, "ranks", "ranks", devices.ranks);
  lks_report_text(report, report->json, "created", "created", devices.created);
  lks_report_text(report, report->json, "asked", "asked", devices.asked);
  lks_report_text(report, report->json, "got", "got", devices.got);
  print_devices(&devices, report);
  print_memory(&devices, report);
  print_links(&devices, report);
  print_rest(&devices, report);
  set_tables(&devices, report);
cleanup:
  return st;
}
