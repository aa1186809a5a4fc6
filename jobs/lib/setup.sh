# shellcheck shell=bash
# Shared by jobs/quickstart and tests/run: what Lockstep needs, installing it, quiet steps and the
# environment for mpirun on one machine. Sourced; `root` is the repository's folder and `log` the
# file that the steps write to.
# shellcheck disable=SC2034 # lists are used by who sources this
: "${root:?}" "${log:?}"

say() { printf '== %s\n' "$*"; }

fail() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# quietly WHAT COMMAND...: says what it does; shows the output's end only when it fails.
quietly() {
  say "$1"
  shift
  printf '\n$ %s\n' "$*" >>"$log"
  local code=0
  "$@" >>"$log" 2>&1 </dev/null || code=$?
  if [ "$code" -ne 0 ]; then
    tail -n 25 "$log" >&2
    printf '%s: error: this failed: %s (all of its output: %s)\n' "${0##*/}" "$*" "$log" >&2
    exit "$code"
  fi
}

cores() { nproc 2>/dev/null || getconf _NPROCESSORS_ONLN; }

# ---- what is needed: a name for people, Debian's packages, and a command that succeeds when it
# is there. One list; a need that is met by other means (modules, Spack) is met.

compiles() {
  local out code=0
  out=$(mktemp)
  printf 'int main(void) { return 0; }\n' | "${CC:-cc}" -x c - -o "$out" || code=$?
  rm -f "$out"
  return "$code"
}
has() { command -v "$1"; }
has_library() { pkg-config --exists "$1" || pkg-config --exists "${2:-$1}"; }
has_mpi() { has mpicc && has mpirun; }
has_network_tools() { has ip && has tc; }
has_slurm() { has slurmctld && has slurmd && has munged && has srun; }
has_h5py() { /usr/bin/python3 -c 'import h5py' || python3 -c 'import h5py'; }

needs_build='
a C compiler|gcc libc6-dev|compiles
CMake 3.21 or newer|cmake|has cmake
make|make|has make
pkg-config|pkg-config|has pkg-config
MPI|libopenmpi-dev openmpi-bin|has_mpi
HDF5|libhdf5-dev|has_library hdf5 hdf5-serial
OpenBLAS|libopenblas-dev|has_library openblas
libyaml|libyaml-dev|has_library yaml-0.1
Jansson|libjansson-dev|has_library jansson
zlib|zlib1g-dev|has_library zlib
xxHash|libxxhash-dev|has_library libxxhash'

needs_tests='
cmocka|libcmocka-dev|has_library cmocka
h5py|python3-h5py|has_h5py
h5dump|hdf5-tools|has h5dump'

# For the tests that count instructions and system calls; they are skipped without.
needs_counts='
valgrind|valgrind|has valgrind
strace|strace|has strace'

# For the tests on a cluster made of this machine, which want root, and are skipped without.
needs_cluster='
ip and tc|iproute2|has_network_tools
Slurm|slurm-wlm munge|has_slurm'

# Fills missing_names and missing_packages from a list of needs.
find_missing() {
  missing_names=()
  missing_packages=()
  local name packages probe
  while IFS='|' read -r name packages probe; do
    if [ -n "$name" ] && ! $probe >/dev/null 2>&1; then
      missing_names+=("$name")
      # shellcheck disable=SC2206 # several packages stand in one field
      missing_packages+=($packages)
    fi
  done <<<"$1"
}

# Sets `as_root` to what runs a command as root; fails where there is no way.
find_root() {
  as_root=()
  if [ "$(id -u)" -eq 0 ]; then
    return 0
  fi
  has sudo >/dev/null || return 1
  as_root=(sudo -n)
  if sudo -n true 2>/dev/null; then
    return 0
  fi
  as_root=(sudo)
  [ -t 0 ] && sudo -v
}

apt_get() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"
}

# A list of packages that cannot be refreshed may still do.
apt_install() {
  apt_get update || true
  apt_get install -y --no-install-recommends "$@"
}

# Installs what a list of needs lacks, or says what that is and ends with code 2.
install_needs() {
  find_missing "$1"
  if [ ${#missing_names[@]} -eq 0 ]; then
    return 0
  fi
  if ! has apt-get >/dev/null || ! find_root; then
    {
      printf '%s: error: missing:' "${0##*/}"
      printf ' %s;' "${missing_names[@]}"
      printf '\n  on Debian or Ubuntu, as root:  apt-get install %s\n' "${missing_packages[*]}"
      printf '  on a cluster: load modules (gcc, cmake, openmpi, hdf5, openblas), take libyaml,\n'
      printf '  jansson and xxhash by Spack or conda-forge, let pkg-config find them, and run again\n'
    } >&2
    exit 2
  fi
  quietly "Installing ${missing_packages[*]}" apt_install "${missing_packages[@]}"
  find_missing "$1"
  if [ ${#missing_names[@]} -ne 0 ]; then
    fail "installed, but still not found: ${missing_names[*]}"
  fi
}

# Installs what would be good to have; goes on without, and says so. Services of these packages are
# not started: the tests start their own.
install_wanted() { # what it is for, needs
  local policy=/usr/sbin/policy-rc.d installed=0
  find_missing "$2"
  if [ ${#missing_names[@]} -eq 0 ]; then
    return 0
  fi
  if [ "$(id -u)" -eq 0 ] && has apt-get >/dev/null && [ ! -e $policy ]; then
    find_root
    say "Installing ${missing_packages[*]}"
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    apt_install "${missing_packages[@]}" >>"$log" 2>&1 || installed=$?
    rm -f $policy
    if [ $installed -ne 0 ]; then # packages that are half there would fail every later installation
      apt_get remove -y "${missing_packages[@]}" >>"$log" 2>&1 || true
    fi
    find_missing "$2"
  fi
  if [ ${#missing_names[@]} -ne 0 ]; then
    say "Not here: ${missing_names[*]}. $1 will be skipped"
  fi
}

# ---- the loopback interface: Open MPI's parts talk over it and do not start without one, its
# compiler wrapper included. A machine or namespace without any network may have it down.

loopback_is_up() {
  local words
  words=$( (: 3<>/dev/tcp/127.0.0.1/9) 2>&1) || true # refused: it is up, and nobody listens
  case $words in *unreachable*) return 1 ;; esac
}

# SIOCSIFFLAGS with IFF_UP | IFF_LOOPBACK | IFF_RUNNING, where there is no `ip`.
raise_loopback() {
  if has ip >/dev/null; then
    "${as_root[@]}" ip link set lo up
  else
    "${as_root[@]}" perl -e 'socket(S, 2, 2, 0) or die $!;
      my $request = pack("a16 s x22", "lo", 0x49); ioctl(S, 0x8914, $request) or die $!;'
  fi
}

need_loopback() {
  if loopback_is_up; then
    return 0
  fi
  if find_root; then
    quietly "Bringing the loopback interface up: Open MPI does not start without one" raise_loopback
  fi
  loopback_is_up || fail "no network at all, and Open MPI needs a loopback: ip link set lo up"
}

# ---- mpirun on one machine, a container or a virtual one as well. By environment, which versions
# of Open MPI (4: OMPI, 5: PRTE) and other MPIs ignore where they do not know it.
mpi_environment() {
  export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
  export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none
  # Shared memory only: no search for networks, and no warnings about those that are not there.
  export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader
  # Containers forbid one process to read another's memory.
  export OMPI_MCA_btl_vader_single_copy_mechanism=none
  export HWLOC_HIDE_ERRORS=2
  if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  if [ "$(cores)" -lt 2 ]; then
    export OMPI_MCA_mpi_yield_when_idle=1
  fi
}
