/* Preflight under mpirun: what it judges of given numbers, and that it finds all well between ranks
 * of one machine that stand for several nodes. */
#include "ranks_fixture.h"

#include "world/preflight.h"

static const char hosts[4][64] = {"n1", "n2", "n3", "n4"};

static bool says(const lks_preflight *finding, const char *text, const char *fix) {
  const bool right = strstr(finding->text, text) != NULL &&
                     (fix != NULL ? strstr(finding->fix, fix) != NULL : finding->fix[0] == '\0');
  if (!right) {
    (void)fprintf(stderr, "not \"%s\", \"%s\": \"%s\", \"%s\"\n", text, fix != NULL ? fix : "",
                  finding->text, finding->fix);
  }
  return right;
}

/* ---- judging */

static void clocks(ranks *at) {
  lks_preflight found;
  const double well[3] = {0.0, 1.1, -0.5}, badly[3] = {0.0, 2.5, -0.5}, alone[1] = {0.0};
  lks_preflight_judge_clocks(alone, hosts, 1, 0.0, &found);
  CHECK(at, says(&found, "one node", NULL));
  lks_preflight_judge_clocks(well, hosts, 3, 1e-4, &found);
  CHECK(at, says(&found, "within 1.6 s of each other", NULL));
  lks_preflight_judge_clocks(badly, hosts, 3, 1e-4, &found);
  CHECK(at, says(&found, "that of n2 is 3 s ahead of n3's", "chronyd"));
  lks_preflight_judge_clocks(badly, hosts, 3, 1.5, &found); /* no more than the error */
  CHECK(at, says(&found, "within 3 s", NULL));
}

static void shared(ranks *at) {
  lks_preflight found;
  const int64_t well[2] = {(int64_t)8 << 30, (int64_t)1 << 30};
  const int64_t small[2] = {(int64_t)64 << 20, (int64_t)8 << 30}, none[2] = {(int64_t)8 << 30, -1};
  lks_preflight_judge_shared(well, hosts, 2, &found);
  CHECK(at, says(&found, "1.0 GiB free in /dev/shm, the least on n2", NULL));
  lks_preflight_judge_shared(small, hosts, 2, &found);
  CHECK(at, says(&found, "on n1", "--shm-size"));
  lks_preflight_judge_shared(none, hosts, 2, &found);
  CHECK(at, says(&found, "no /dev/shm on n2", "--shm-size"));
}

static void links(ranks *at) {
  lks_preflight found;
  lks_link_rate all[4] = {{.rate = 1e9}, {.rate = 1.2e9}, {.rate = 0.9e9}, {.rate = 1e9}};
  lks_preflight_judge_links(all, hosts, 4, &found);
  CHECK(at, says(&found, "1 GB/s a link, the slowest from n3 to n4: 0.9 GB/s", NULL));
  all[3].rate = 0.2e9;
  lks_preflight_judge_links(all, hosts, 4, &found);
  CHECK(at, says(&found, "from n4 to n1: 0.2 GB/s", "cable"));
  CHECK(at, strstr(found.fix, "n4 and n1") != NULL);
  for (int node = 0; node < 4; ++node) {
    all[node] = (lks_link_rate){.rate = 118e6, .fastest = 125e6, .interface = "eth0"};
  }
  lks_preflight_judge_links(all, hosts, 4, &found);
  CHECK(at, says(&found, "0.118 GB/s", "a gigabit or less"));
  all[0] = (lks_link_rate){.rate = 117e6, .fastest = 12.5e9, .interface = "mlx5_0"};
  lks_preflight_judge_links(all, hosts, 4, &found);
  CHECK(at, says(&found, "from n1 to n2", "n1 has mlx5_0 with 100 Gbit/s"));
}

/* ---- looking */

static void look(ranks *at) {
  lks_error err;
  lks_preflight found;
  lks_world *world = at->world;
  CHECK_STATUS(at, lks_preflight_clocks(world, &found, &err), LKS_OK);
  CHECK(at, found.fix[0] == '\0'); /* one machine has one clock */
  CHECK(at, strstr(found.text, world->nodes == 1 ? "one node" : "within ") != NULL);
  CHECK_STATUS(at, lks_preflight_shared(world, &found, &err), LKS_OK);
  CHECK(at, strstr(found.text, "/dev/shm") != NULL);
  CHECK_STATUS(at, lks_preflight_links(world, &found, &err), LKS_OK);
  CHECK(at, strstr(found.text, world->nodes == 1 ? "one node" : "values right; ") != NULL);
  /* Alike on all ranks. */
  CHECK_STATUS(at, lks_world_same(world, "finding", found.text, &err), LKS_OK);
}

/* Splits the world as lks_world_open would on hosts of so many ranks. */
static void pretend_nodes(lks_world *world, int per_node) {
  const int color = world->rank / per_node;
  (void)MPI_Comm_free(&world->node);
  if (world->slice != MPI_COMM_NULL) {
    (void)MPI_Comm_free(&world->slice);
  }
  (void)MPI_Comm_split(world->comm, color, world->rank, &world->node);
  (void)MPI_Comm_rank(world->node, &world->local_rank);
  (void)MPI_Comm_size(world->node, &world->local_size);
  world->node_index = color;
  world->nodes = (world->size + per_node - 1) / per_node;
  world->slices = 1;
  (void)MPI_Comm_split(world->comm, world->local_rank == 0 ? 0 : MPI_UNDEFINED, world->node_index,
                       &world->slice);
}

int main(void) {
  ranks at;
  if (ranks_open(&at) != 0) {
    return 1;
  }
  clocks(&at);
  shared(&at);
  links(&at);
  look(&at);
  for (int per_node = 2; per_node >= 1; --per_node) {
    if (per_node < at.world->size) {
      pretend_nodes(at.world, per_node);
      look(&at);
    }
  }
  return ranks_close(&at);
}
