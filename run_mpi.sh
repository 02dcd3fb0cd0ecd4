#!/usr/bin/env bash
# run_mpi.sh [-n RANKS] COMMAND [ARGS...]
#
# Runs COMMAND, RANKS at a time, in an environment that has everything fem_apps needs:
#   * the caller's own Python, where that has DOLFINx 0.9 to 0.11 (conda, container, Debian 13, ...);
#   * else a private Debian userland, made once without touching the host, under
#     ${XDG_CACHE_HOME:-~/.cache}/fem-apps. Deleting that one folder removes all of it.
#
#   FEM_APPS_SUITE=trixie|sid   Debian 13 with DOLFINx 0.9 (default), or sid with DOLFINx 0.11; naming one
#                               asks for the private userland even where the caller has a DOLFINx
#   FEM_APPS_MIRROR=URL         Debian mirror for the userland (default: the host's own, else Debian's)
#   OMP_NUM_THREADS, OPENBLAS_NUM_THREADS   1 a rank unless set
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/fem-apps
suite=${FEM_APPS_SUITE:-}

debian_packages="python3-dolfinx-real python3-dolfinx-complex python3-dolfinx-mpc python3-adios4dolfinx
python3-gmsh python3-h5py python3-pip python3-venv python3-scipy g++ openmpi-bin ca-certificates libegl1
libopenblas0-pthread debian-archive-keyring"

say() { printf 'run_mpi.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 3; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

ranks=1
while [ $# -gt 0 ]; do
    case $1 in
        -n|-np) ranks=${2:-}; shift 2 || { usage >&2; exit 2; } ;;
        -h|--help) usage; exit 0 ;;
        --) shift; break ;;
        -*) say "unknown option $1"; usage >&2; exit 2 ;;
        *) break ;;
    esac
done
case $ranks in ''|*[!0-9]*|0) say "-n takes a number of ranks of at least 1, not '$ranks'"; exit 2 ;; esac
[ $# -gt 0 ] || { usage >&2; exit 2; }

# What the project asks of PyPI: the dependency tables of pyproject.toml, at the versions in constraints.txt.
python_requirements() {
    sed -n '/^dependencies = \[/,/^\]/p; /^\[project.optional-dependencies\]/,/^\[tool/p' "$project/pyproject.toml" |
        grep -oE '^ *"[^"]+"' | tr -d ' "'
}
digest() { sha256sum | cut -c1-12; }

# ---------------------------------------------------------------- the caller's own environment
own_python() {
    command -v python3 >/dev/null || return 1
    python3 - 2>/dev/null <<'PY'
import importlib.util, sys
if not importlib.util.find_spec("dolfinx"):
    sys.exit(1)
import dolfinx
sys.exit(not (0, 9) <= tuple(int(p) for p in dolfinx.__version__.split(".")[:2]) <= (0, 11))
PY
}

make_venv() {  # make_venv FOLDER: a venv over the system's packages; FOLDER/complete is written last
    local venv=$1
    rm -rf "$venv"
    python3 -m venv --system-site-packages --without-pip "$venv"
    python_requirements > "$venv/requirements.txt"
    PIP_USER=0 PYTHONNOUSERSITE=1 python3 -m pip --python "$venv/bin/python3" install -qq --progress-bar off \
        --no-warn-script-location -c "$project/constraints.txt" -r "$venv/requirements.txt" >&2
    # fem-apps is the checkout that called, not an installed copy
    printf '#!/bin/sh\nexec "$(dirname "$0")/python3" -m fem_apps "$@"\n' > "$venv/bin/fem-apps"
    chmod +x "$venv/bin/fem-apps"
    touch "$venv/complete"
}

# ---------------------------------------------------------------- the private userland
mirror() {
    if [ -n "${FEM_APPS_MIRROR:-}" ]; then printf '%s' "$FEM_APPS_MIRROR"; return; fi
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed -n 's/^Debian \(.*debian\)\/*$/\1/p' | head -n 1
}

fetch_mmdebstrap() {  # mmdebstrap as a file in the cache: nothing is installed on the host
    local tools=$cache/tools
    if command -v mmdebstrap >/dev/null; then command -v mmdebstrap; return; fi
    if [ ! -x "$tools/usr/bin/mmdebstrap" ]; then
        command -v apt-get >/dev/null && command -v perl >/dev/null ||
            die "no DOLFINx 0.9 to 0.11 in this Python, and no mmdebstrap to make a Debian userland with. Remedy:" \
                "install the package mmdebstrap, or use environment.yml (conda-forge) or the Dockerfile."
        rm -rf "$tools" && mkdir -p "$tools/apt/lists/partial" "$tools/apt/cache/archives/partial"
        local private=(-o "Dir::State::lists=$tools/apt/lists" -o "Dir::Cache=$tools/apt/cache" -o APT::Sandbox::User=root)
        (cd "$tools" && apt-get "${private[@]}" -qq update && apt-get "${private[@]}" -qq download mmdebstrap &&
            dpkg-deb -x mmdebstrap_*.deb .) >&2 || die "could not fetch mmdebstrap: is the network there? Try again."
        rm -rf "$tools/apt"
    fi
    printf '%s' "$tools/usr/bin/mmdebstrap"
}

may_unshare() { unshare "${unshare_flags[@]}" true 2>/dev/null; }

make_userland() {
    local root=$1 partial=$1.partial mode=root tool log=$cache/$suite.log where
    local own_mounts=(unshare --mount --propagation private)   # a killed attempt leaves no mounts on the host
    if [ "$(id -u)" != 0 ]; then
        mode=unshare own_mounts=()
        command -v newuidmap >/dev/null && grep -q "^$(id -un):" /etc/subuid 2>/dev/null ||
            die "making the userland as an ordinary user needs the package uidmap and a line for $(id -un) in" \
                "/etc/subuid and /etc/subgid (usermod --add-subuids). Remedy: ask for them, or run this once as root," \
                "or use environment.yml (conda-forge)."
    fi
    tool=$(fetch_mmdebstrap)
    where=$(mirror)
    # what an interrupted attempt left; never what it may have mounted in it
    [ ! -e "$partial" ] || rm -rf --one-file-system "$partial" 2>/dev/null ||
        unshare --map-auto --map-root-user rm -rf --one-file-system "$partial"
    say "making the Debian $suite userland in $root (once; about 3 minutes and 3 GB; log: $log)"
    # sid outlives its signatures on slow mirrors; recommended packages are not wanted
    # shellcheck disable=SC2086
    ${own_mounts[@]+"${own_mounts[@]}"} "$tool" --mode=$mode --variant=apt --components=main \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "5"' \
        --customize-hook='touch "$1/etc/pip.conf"' --include="$(echo $debian_packages | tr ' ' ,)" "$suite" "$partial" $where 2>&1 </dev/null |
        tee "$log" | { grep --line-buffered -E '^[IE]:|rror' || true; } >&2 ||
        die "the userland is incomplete; see $log, then run this again."
    mkdir -p "$root.mnt"
    mv -T "$partial" "$root"
}

# Inside a mount namespace of our own: the userland as /, the host's data folders at their own paths.
# Signals reach COMMAND itself, since every step is an exec.
# shellcheck disable=SC2016
enter='
    set -e
    userland=$1 root=$1.mnt; shift
    mount -t tmpfs -o mode=755 fem-apps "$root"
    own() { mkdir -p "$root$1"; mount --rbind "$userland$1" "$root$1"; }
    host() { mkdir -p "$root$1" 2>/dev/null && mount --rbind "$1" "$root$1"; }
    for d in "$userland"/*; do
        case ${d##*/} in
            etc|opt|usr|var) own "/${d##*/}" ;;
            *) if [ -L "$d" ]; then ln -s "$(readlink "$d")" "$root/${d##*/}"; fi ;;
        esac
    done
    for d in /*; do
        case $d in /bin|/boot|/etc|/lib*|/opt|/sbin|/usr|/var|/lost+found) ;;
            *) if [ -d "$d" ] && [ ! -L "$d" ]; then host "$d"; fi ;;
        esac
    done
    for d in /opt/*; do if [ -d "$d" ] && [ ! -e "$root$d" ]; then host "$d" || :; fi; done
    host /var/tmp
    for f in resolv.conf hosts hostname passwd group pip.conf ssl/certs/ca-certificates.crt; do
        if [ -f "/etc/$f" ] && [ -e "$root/etc/$f" ]; then mount --bind "$(readlink -f "/etc/$f")" "$root/etc/$f"; fi
    done
    exec chroot "$root" /usr/bin/env "PATH=$FEM_APPS_PATH" /bin/sh -c "cd \"\$0\" && exec \"\$@\"" "$PWD" "$@"
'
inside() { unshare "${unshare_flags[@]}" /bin/sh -c "$enter" enter "$root" "$@"; }

# ---------------------------------------------------------------- choose, make what is missing
unshare_flags=(--mount --propagation private)
[ "$(id -u)" = 0 ] || unshare_flags=(--user --map-root-user "${unshare_flags[@]}")

root=
if [ -z "$suite" ] && own_python; then
    venv=
    if ! python3 -c 'import sys
from importlib.util import find_spec as f
sys.exit(not all(map(f, ("typer", "rich", "pydantic", "jax", "equinox", "diffrax", "finufft", "pyvista", "meshio", "gmsh", "cvxpy", "sklearn", "pyarrow", "trame_vtk"))))'; then
        venv=$cache/venv-own-$( { python3 -c 'import sys; print(sys.prefix, sys.version)'; python_requirements; cat "$project/constraints.txt"; } | digest)
    fi
    path=$PATH
    build() { [ -z "$venv" ] || [ -e "$venv/complete" ] || { say "adding Python packages in $venv (once)"; make_venv "$venv"; }; }
else
    suite=${suite:-trixie}
    case $suite in trixie|sid) ;; *) say "FEM_APPS_SUITE is trixie or sid, not '$suite'"; exit 2 ;; esac
    command -v unshare >/dev/null && may_unshare ||
        die "no DOLFINx 0.9 to 0.11 in this Python, and this account may not make mount namespaces ($(id -un)," \
            "unshare ${unshare_flags[*]}), which the private userland needs. Remedy: allow user namespaces" \
            "(sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0), run as" \
            "root, or use environment.yml (conda-forge) or the Dockerfile."
    root=$cache/$suite-$(printf '%s %s' "$(uname -m)" "$debian_packages" | digest)
    venv=$root-venv-$( { python_requirements; cat "$project/constraints.txt"; } | digest)
    path=/usr/bin:/bin:/usr/sbin:/sbin
    export FEM_APPS_PATH=$path
    build() {
        [ -e "$root" ] || make_userland "$root"
        [ -e "$venv/complete" ] || {
            say "adding Python packages in $venv (once; about a minute)"
            inside bash -c "$(declare -f make_venv python_requirements); set -euo pipefail; project=\$1; make_venv \"\$2\"" \
                make_venv "$project" "$venv"
        }
    }
fi
if { [ -n "$root" ] && ! [ -e "$root" ]; } || { [ -n "$venv" ] && ! [ -e "$venv/complete" ]; }; then
    mkdir -p "$cache"
    (
        flock -n 9 || { say "another run_mpi.sh is making the environment; waiting for it"; flock 9; }
        build
    ) 9>"$cache/lock" || exit $?
fi
[ -z "$venv" ] || path=$venv/bin:$path
export FEM_APPS_PATH=$path PATH=$path FEM_APPS_ROOT=$root

# ---------------------------------------------------------------- settings every rank sees
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}
export PYTHONPATH=$project${PYTHONPATH:+:$PYTHONPATH} PYTHONNOUSERSITE=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
# three ranks on two cores are welcome; Open MPI's launcher has renamed the variable that says so
if [ "$suite" = sid ]; then
    export PRTE_MCA_mapby=${PRTE_MCA_mapby:-:oversubscribe}
else
    export OMPI_MCA_rmaps_base_oversubscribe=1
    export PRTE_MCA_rmaps_default_mapping_policy=${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}
fi
export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
export OMPI_MCA_mpi_yield_when_idle=${OMPI_MCA_mpi_yield_when_idle:-1}
# one node: no network interface is worth asking
[ "${SLURM_JOB_NUM_NODES:-1}" != 1 ] || export OMPI_MCA_btl=${OMPI_MCA_btl:-self,sm}

command=("$@")
case ${1##*/} in   # an exception on one rank must end all of them, not leave them waiting
    python|python3) if [ "$ranks" -gt 1 ] && [ "${2:-}" != -m ]; then command=("$1" -m mpi4py "${@:2}"); fi ;;
esac
if [ "$ranks" -gt 1 ]; then   # Open MPI adds a page to every error unless told not to; others know no -q
    quiet=$(mpirun --version 2>/dev/null | grep -q 'Open MPI' && echo -q || true)
    command=(mpirun $quiet -n "$ranks" "${command[@]}")
fi
if [ -n "$root" ]; then
    exec unshare "${unshare_flags[@]}" /bin/sh -c "$enter" enter "$root" "${command[@]}"
fi
exec "${command[@]}"
