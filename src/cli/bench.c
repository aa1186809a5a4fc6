/* lockstep bench */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/cli.h"
#include "train/bench.h"

enum { MOST_COUNTS = 32, MOST_ROWS = 4 * MOST_COUNTS }; /* ranks are ints, workloads four */

static const lks_flag flags[] = {
    {"--json", NULL, offsetof(lks_flags, json), "print JSON"},
    {"--seconds", "S", offsetof(lks_flags, seconds), "time to spend on each line (default: 1)"},
    {0}};

/* ---- words */

typedef struct words {
  char text[24];
} words;

/* Three digits, in a unit that suits: "5.8 us", "66 ms". */
static words say_seconds(double seconds) {
  words said;
  if (seconds <= 0.0) {
    (void)snprintf(said.text, sizeof said.text, "-");
  } else if (seconds < 0.9995e-3) {
    (void)snprintf(said.text, sizeof said.text, "%.3g us", seconds * 1e6);
  } else if (seconds < 0.9995) {
    (void)snprintf(said.text, sizeof said.text, "%.3g ms", seconds * 1e3);
  } else {
    (void)snprintf(said.text, sizeof said.text, "%.3g s", seconds);
  }
  return said;
}

static void print_limits_head(void) {
  (void)printf("A rank's limits with so many busy: a product of 1024x1024, memory, an exchange of "
               "1,000\nand of 10 million parameters among them\n"
               "%5s %12s %10s %10s %10s\n",
               "ranks", "product", "memory", "1,000", "10 million");
}

static void print_limits(const lks_bench_limits *limits) {
  (void)printf("%5d %5.0f Gflop/s %5.1f GB/s %10s %10s\n", limits->ranks,
               limits->product_flops * 1e-9, limits->memory_bytes * 1e-9,
               say_seconds(limits->exchange_small).text, say_seconds(limits->exchange_large).text);
  (void)fflush(stdout);
}

static void print_head(void) {
  (void)printf("\n%-10s %5s %7s %10s %10s %10s %10s %10s %12s %9s %9s %11s\n", "workload", "ranks",
               "batch", "step", "input", "compute", "exchange", "update", "samples/s", "of peak",
               "of memory", "of exchange");
}

static words say_ratio(double ratio) {
  words said = {"-"};
  if (ratio > 0.0) {
    (void)snprintf(said.text, sizeof said.text, "%.0f %%", 100.0 * ratio);
  }
  return said;
}

static void print_row(const lks_bench_row *row, const lks_bench_limits *limits) {
  (void)printf("%-10s %5d %7lld", row->name, row->ranks, (long long)row->batch);
  const double parts[] = {row->step, row->input, row->compute, row->exchange, row->update};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) {
    (void)printf(" %10s", say_seconds(parts[i]).text);
  }
  const lks_bench_ratios ratios = lks_bench_compare(row, limits);
  (void)printf(" %12.0f %9s %9s %11s\n", (double)row->batch / row->step,
               say_ratio(ratios.peak).text, say_ratio(ratios.memory).text,
               say_ratio(ratios.exchange).text);
  (void)fflush(stdout);
}

static void print_verdict(const lks_bench_row *rows, int count) {
  int faster = 0;
  int64_t batch = 0;
  const lks_bench_row *all = &rows[count - 1];
  if (!lks_bench_loses(rows, count, &faster, &batch)) {
    return;
  }
  (void)printf("  %s: %d ranks lose to %d (%s against %s a step): ", all->name, all->ranks,
               rows[faster].ranks, say_seconds(all->step).text,
               say_seconds(rows[faster].step).text);
  if (all->led) {
    (void)printf("use %d, or larger batches; so small a step one rank does for all\n",
                 rows[faster].ranks);
  } else if (batch > all->batch) {
    (void)printf("use %d, or batches of %lld rows and more\n", rows[faster].ranks,
                 (long long)batch);
  } else {
    (void)printf("use %d%s\n", rows[faster].ranks,
                 all->compute > 0.8 * rows[faster].compute
                     ? "; a rank computes hardly less: its rows are few, or it shares its "
                       "core (see lockstep devices)"
                     : "");
  }
}

/* What is measured, in the order of printing. */
typedef struct plan {
  lks_bench_limits limits[MOST_COUNTS]; /* of 1, 2, 4 ... and all ranks */
  int counts;                           /* of ranks */
  lks_bench_row rows[MOST_ROWS];
  int row_count;
  double seconds;
} plan;

static const lks_bench_limits *limits_of(const plan *p, const lks_bench_row *row) {
  const lks_bench_limits *found = &p->limits[0];
  while (found->ranks != row->ranks) {
    ++found;
  }
  return found;
}

/* ---- JSON */

static json_t *limits_json(const lks_bench_limits *limits) {
  return json_pack("{s:i, s:f, s:f, s:f, s:f}", "ranks", limits->ranks, "product_flops_per_s",
                   limits->product_flops, "memory_bytes_per_s", limits->memory_bytes,
                   "exchange_1000_s", limits->exchange_small, "exchange_10000000_s",
                   limits->exchange_large);
}

static json_t *row_json(const lks_bench_row *row, const lks_bench_limits *limits) {
  const lks_bench_ratios ratios = lks_bench_compare(row, limits);
  return json_pack("{s:s, s:i, s:I, s:I, s:b, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
                   "workload", row->name, "ranks", row->ranks, "batch", (json_int_t)row->batch,
                   "parameters", (json_int_t)row->parameters, "led", row->led, "steps",
                   (json_int_t)row->steps, "step_s", row->step, "best_step_s", row->best, "input_s",
                   row->input, "compute_s", row->compute, "exchange_s", row->exchange, "update_s",
                   row->update, "of_peak", ratios.peak, "of_memory", ratios.memory, "of_exchange",
                   ratios.exchange);
}

static bool append(json_t *array, json_t *item) {
  return json_array_append_new(array, item) == 0;
}

static lks_status print_json(const lks_world *world, const plan *p, lks_error *err) {
  lks_status st = LKS_OK;
  char *text = NULL;
  json_t *root = NULL, *limits = json_array(), *rows = json_array();
  bool made = true;
  for (int i = 0; i < p->counts; ++i) {
    made = made && append(limits, limits_json(&p->limits[i]));
  }
  for (int i = 0; i < p->row_count; ++i) {
    made = made && append(rows, row_json(&p->rows[i], limits_of(p, &p->rows[i])));
  }
  root = json_pack("{s:s, s:i, s:O, s:O}", "version", lks_version(), "ranks", world->size, "limits",
                   limits, "steps", rows);
  text = made && root != NULL ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
  TRY_ALLOC(text);
  (void)printf("%s\n", text);
cleanup:
  free(text);
  json_decref(root);
  json_decref(limits);
  json_decref(rows);
  return st;
}

/* ---- measuring */

static lks_status read_seconds(const lks_cli *cli, double *seconds, lks_error *err) {
  lks_status st = LKS_OK;
  *seconds = 1.0;
  if (cli->flags.seconds != NULL &&
      (!lks_parse_real(cli->flags.seconds, seconds) || !(*seconds > 0.0 && *seconds <= 3600.0))) {
    FAIL(LKS_USAGE, "write a number of seconds, as in --seconds 0.5",
         "--seconds: '%s' is not between 0 and 3600", cli->flags.seconds);
  }
cleanup:
  return st;
}

static bool prints(const lks_cli *cli) {
  return cli->world->rank == 0 && !cli->flags.json;
}

static lks_status measure_limits(lks_cli *cli, plan *p, lks_error *err) {
  lks_status st = LKS_OK;
  const int size = cli->world->size;
  const int threads = cli->settings != NULL ? (int)cli->settings->device.threads : 0;
  if (prints(cli)) {
    print_limits_head();
  }
  for (int ranks = 1; p->counts == 0 || p->limits[p->counts - 1].ranks < size;
       ranks = 2 * ranks < size ? 2 * ranks : size) {
    lks_bench_limits *limits = &p->limits[p->counts];
    TRY(lks_bench_measure_limits(cli->world, ranks, threads, limits, err));
    limits->ranks = ranks; /* on all ranks */
    p->counts += 1;
    if (prints(cli)) {
      print_limits(limits);
    }
  }
  if (prints(cli)) {
    print_head();
  }
cleanup:
  return st;
}

/* One workload on 1, 2, 4 ... and all ranks. */
static lks_status measure(lks_cli *cli, plan *p, const char *name, lks_settings *settings,
                          lks_error *err) {
  lks_status st = LKS_OK;
  const int first = p->row_count;
  for (int i = 0; i < p->counts; ++i) {
    lks_bench_row *row = &p->rows[p->row_count];
    TRY(lks_bench_measure(cli->world, p->limits[i].ranks, settings, p->seconds, row, err));
    row->name = name;
    p->row_count += 1;
    if (prints(cli)) {
      print_row(row, &p->limits[i]);
    }
  }
  if (prints(cli)) {
    print_verdict(p->rows + first, p->row_count - first);
  }
cleanup:
  return st;
}

static lks_status measure_cases(lks_cli *cli, plan *p, lks_error *err) {
  lks_status st = LKS_OK;
  lks_settings *settings = NULL;
  for (const lks_bench_case *c = lks_bench_cases; c->name != NULL; ++c) {
    TRY(lks_settings_parse(c->config, c->name, cli->overrides, cli->override_count, &settings,
                           err));
    TRY(measure(cli, p, c->name, settings, err));
    lks_settings_free(&settings);
  }
cleanup:
  lks_settings_free(&settings);
  return st;
}

static lks_status run(lks_cli *cli, lks_error *err) {
  lks_status st = LKS_OK;
  plan *p = calloc(1, sizeof *p);
  if (p == NULL) {
    st = lks_fail(err, LKS_NO_MEMORY, "free some memory", "out of memory for measuring");
  } else {
    st = read_seconds(cli, &p->seconds, err);
  }
  TRY(lks_agree(cli->world, st, err));
  lks_world_phase(cli->world, "measuring");
  TRY(measure_limits(cli, p, err));
  if (cli->settings != NULL) {
    TRY(measure(cli, p, "yours", cli->settings, err));
  } else {
    TRY(measure_cases(cli, p, err));
  }
  if (cli->world->rank == 0 && cli->flags.json) {
    TRY(print_json(cli->world, p, err));
  }
cleanup:
  free(p);
  return st;
}

const lks_command lks_command_bench = {
    .name = "bench",
    .operands = "[CONFIG] [KEY=VALUE ...]",
    .help = "a step's time, its parts, and the machine's limits, on 1, 2, 4 ... and all ranks",
    .more = "Without CONFIG: four workloads of different sizes, on synthetic rows. With it: its "
            "model on\nits data. Says when more ranks lose to fewer, and what would win. Files "
            "are not touched.",
    .flags = flags,
    .least = 0,
    .most = 1,
    .configured = true,
    .keeps_nothing = true,
    .run = run};
