# Sourced by the other scripts: find the tools, or install them, or say what to install.

# ensure COMMAND PACKAGE...: COMMAND exists afterwards, or the script ends with status 3.
ensure() {
  local command=$1
  shift
  command -v "$command" >/dev/null && return
  install_packages "$@" && command -v "$command" >/dev/null && return
  echo "$0: $command is missing; install it first (on Debian or Ubuntu: apt-get install $*)" >&2
  exit 3
}

# install_packages PACKAGE...: by apt-get, where that is ours to do.
install_packages() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  echo "installing $*" >&2
  apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -qqy "$@" >&2
}

# install_test_servers: the real servers that tests of the hub start. Where installing them is not
# ours to do those tests skip, each with its reason; in CI they fail.
install_test_servers() {
  local wanted=()
  compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || command -v initdb >/dev/null || wanted+=(postgresql)
  # Without what it recommends Chromium has no font.
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || wanted+=(chromium fonts-liberation)
  command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || wanted+=(nginx-light)
  [ ${#wanted[@]} = 0 ] || install_packages --no-install-recommends "${wanted[@]}" ||
    echo "$0: tests that need ${wanted[*]} will be skipped" >&2
}

# enter_environment: the active virtual environment, or .venv, made when it is not there.
enter_environment() {
  [ -n "${VIRTUAL_ENV:-}" ] && return
  ensure "${PYTHON:=python3}" python3
  if [ ! -x .venv/bin/python ]; then
    "$PYTHON" -m venv .venv || { rm -rf .venv; install_packages python3-venv; "$PYTHON" -m venv .venv; }
  fi
  # shellcheck disable=SC1091
  . .venv/bin/activate
}

# sources_digest: changes when the installed package would.
sources_digest() {
  find src core CMakeLists.txt pyproject.toml constraints.txt README.md -type f \
    -not -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

# is_editable: limosa is installed as CONTRIBUTING.md says.
is_editable() {
  python - 2>/dev/null <<'END'
import json
from importlib.metadata import distribution
found = json.loads(distribution("limosa").read_text("direct_url.json") or "{}")
raise SystemExit(not found.get("dir_info", {}).get("editable"))
END
}

# install_limosa EXTRA: the package with that extra, unless this very source is installed already.
# An editable one stays editable.
install_limosa() {
  local digest stamp
  digest=$(sources_digest)
  stamp="$VIRTUAL_ENV/limosa-$1.stamp"
  [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] && return
  command -v c++ >/dev/null || command -v g++ >/dev/null || ensure c++ g++
  rm -f "$VIRTUAL_ENV"/limosa-*.stamp
  local what=(".[$1]")
  is_editable && what=(--no-build-isolation -Cbuild-dir=build/python -e ".[$1]")
  python -m pip install --quiet --disable-pip-version-check -c constraints.txt "${what[@]}"
  echo "$digest" >"$stamp"
}
