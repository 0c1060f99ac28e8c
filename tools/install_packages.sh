#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing, as root or by sudo.
#
#   tools/install_packages.sh GROUP...      groups: build, test, fuzz
#
# When nothing is missing it only asks dpkg, and needs neither root nor a
# network. promtool is unpacked under build/, because Debian's package of it
# would also start a monitoring daemon on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

# One entry a line; a|b = the first of them that this release has.
build_packages="
  g++ make cmake ninja-build ccache pkg-config git
  protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libgrpc++-dev
  libabsl-dev prometheus-cpp-dev nlohmann-json3-dev libpcre2-dev
  libutf8proc-dev libspdlog-dev libcli11-dev libxxhash-dev
  libboost1.83-dev|libboost1.81-dev|libboost-dev
  libgtest-dev libgmock-dev libbenchmark-dev
  python3 python3-venv ca-certificates"
test_packages="clang-format-19|clang-format"
fuzz_packages="clang-19 libclang-rt-19-dev"


# Prints those of the groups that are not installed.
missing() {
  local have entry name found
  have=" $(dpkg-query -W -f '${binary:Package}/${db:Status-Status} ' |
    sed 's/:[a-z0-9]*\//\//g') "
  for entry in "$@"; do
    found=
    for name in ${entry//|/ }; do
      case "$have" in *" $name/installed "*) found=yes ;; esac
    done
    [ -n "$found" ] || echo "$entry"
  done
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo --preserve-env=DEBIAN_FRONTEND "$@"
  else
    echo "error: root or sudo is needed to run: $*" >&2
    return 1
  fi
}

# Of "a|b", the first that apt can install.
choose() {
  local name candidate
  for name in ${1//|/ }; do
    candidate=$(apt-cache policy "$name" | sed -n 's/^  Candidate: //p')
    if [ -n "$candidate" ] && [ "$candidate" != "(none)" ]; then
      echo "$name"
      return
    fi
  done
  echo "error: this release has none of: ${1//|/ }" >&2
  return 1
}

install_missing() {
  local entry name names=()
  command -v apt-get > /dev/null || {
    echo "error: apt-get not found; install by hand: $*" >&2
    return 1
  }
  as_root apt-get update -qq
  for entry in "$@"; do
    name=$(choose "$entry")
    names+=("$name")
  done
  echo "Installing ${names[*]}"
  as_root apt-get install -qq -y --no-install-recommends "${names[@]}"
}

unpack_promtool() {
  local dir=build/promtool
  if command -v promtool > /dev/null || [ -x $dir/usr/bin/promtool ]; then
    return
  fi
  mkdir -p $dir
  if ! (cd $dir && apt-get download -qq prometheus); then
    as_root apt-get update -qq
    (cd $dir && apt-get download -qq prometheus)
  fi
  dpkg-deb -x $dir/prometheus_*.deb $dir
  rm $dir/prometheus_*.deb
}

export DEBIAN_FRONTEND=${DEBIAN_FRONTEND:-noninteractive}
[ $# -gt 0 ] || set -- build
wanted=()
for group in "$@"; do
  case "$group" in
    build) wanted+=($build_packages) ;;
    test) wanted+=($test_packages) ;;
    fuzz) wanted+=($fuzz_packages) ;;
    *) echo "error: unknown group '$group'; known: build, test, fuzz" >&2; exit 2 ;;
  esac
done
mapfile -t lacking < <(missing "${wanted[@]}")
[ ${#lacking[@]} = 0 ] || install_missing "${lacking[@]}"
case " $* " in *" test "*) unpack_promtool ;; esac
