# Sourced by the other scripts, never run. Makes sure that .venv in the project root holds exactly what
# the lock files say, and puts it first on PATH.
#
#   . "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/_setup.sh"
#   setup runtime      # what the programs need
#   setup dev          # and what the tests need
#
# Sets ROOT (the project's folder) and PYTHON (.venv's interpreter). Leaves with status 2 and a sentence
# when it cannot. LEDGERD_PYTHON names an interpreter to use instead of the newest one on PATH.
# shellcheck shell=bash

ROOT=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
PYTHON=$ROOT/.venv/bin/python
_MARK=$ROOT/.venv/.installed # line 1: what it was built from; line 2: pyproject; line 3: runtime or dev
_LONG_S=5                    # a step that takes longer says every so many seconds what it is at

# setup KIND: return at once when .venv is up to date, else build it.
setup() {
    local kind=$1
    if ! _up_to_date "$kind"; then
        # A subshell, so that its traps and its lock end with it.
        (_build "$kind") || exit $?
    fi
    export VIRTUAL_ENV=$ROOT/.venv PATH=$ROOT/.venv/bin:$PATH
    unset PYTHONHOME
}

_up_to_date() {
    local base project kind
    [ -x "$PYTHON" ] && [ -r "$_MARK" ] || return 1
    { read -r base && read -r project && read -r kind; } <"$_MARK" || return 1
    [ "$base" = "$(_base)" ] && [ "$project" = "$(_project)" ] || return 1
    [ "$kind" = "$1" ] || [ "$kind" = dev ]
}

# What .venv must be built anew for: other locks, another place, another interpreter.
_base() {
    {
        echo "$ROOT" "${LEDGERD_PYTHON:-}"
        "$PYTHON" -c 'import sys; print(sys.version, sys.base_prefix)' 2>&1
        cat "$ROOT/requirements.lock" "$ROOT/requirements-dev.lock"
    } | sha256sum
}

# What the project must be installed anew for: its entry points and packages.
_project() {
    sha256sum <"$ROOT/pyproject.toml"
}

_say() {
    printf '%s\n' "$*" >&2
}

_build() {
    local kind=$1 started=$SECONDS candidate base='' project='' old=''
    _LOG=$(mktemp) || exit 2
    _CHILD=
    trap 'rm -f "$_LOG"' EXIT
    trap '_stop_child; exit 130' INT
    trap '_stop_child; exit 143' TERM HUP
    # Two scripts started together: the second waits, and finds the work done. The lock is on the folder
    # itself, so nothing is left behind.
    if command -v flock >/dev/null; then
        exec 9<"$ROOT"
        flock -n 9 || { _say "Waiting for another script that sets up .venv ..." && flock 9; }
        _up_to_date "$kind" && return 0
    fi

    { read -r base && read -r project && read -r old; } 2>/dev/null <"$_MARK"
    # An interruption from here on leaves no mark: the next run then starts over.
    rm -f "$_MARK"
    if [ -x "$PYTHON" ] && [ "$base" = "$(_base)" ]; then
        [ "$old" = dev ] && kind=dev
        _install "$kind" || _failed
    else
        _find_interpreters
        for candidate in "${_FOUND[@]}"; do
            _say "Setting up .venv with $(_version "$candidate"); the first time takes about a minute ..."
            rm -rf "$ROOT/.venv"
            _step "making .venv" "$candidate" -m venv "$ROOT/.venv" || _failed
            _install "$kind" && break
            # No wheel for this interpreter on this machine: an older one may have them all.
            _lacks_wheel || _failed
            _say "$(_version "$candidate") cannot be used here: $(_lacks_wheel)"
            [ "$candidate" = "${_FOUND[-1]}" ] && _no_interpreter_left
        done
    fi
    # Written whole or not at all: a half-written mark would never match.
    printf '%s\n%s\n%s\n' "$(_base)" "$(_project)" "$kind" >"$_MARK.new" && mv "$_MARK.new" "$_MARK"
    _say ".venv is ready ($(_version "$PYTHON"), $((SECONDS - started)) s)."
}

_install() {
    local lock=$ROOT/requirements.lock
    [ "$1" = dev ] && lock=$ROOT/requirements-dev.lock
    _pip "installing what ${lock##*/} names" --require-hashes --only-binary :all: -r "$lock" &&
        _pip "installing the project" --no-deps --no-build-isolation --editable "$ROOT"
}

_pip() {
    local what=$1
    shift
    # A user's own settings for where packages go would defeat the virtual environment.
    _step "$what" env -u PYTHONPATH -u PYTHONHOME -u PIP_TARGET -u PIP_PREFIX PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 \
        "$PYTHON" -m pip install --disable-pip-version-check --no-input --progress-bar off "$@"
}

# _step WHAT COMMAND...: run quietly; when it takes long, say what it is at.
_step() {
    local what=$1 next=$((SECONDS + _LONG_S)) status=0
    shift
    "$@" >"$_LOG" 2>&1 </dev/null 9<&- &
    _CHILD=$!
    while kill -0 "$_CHILD" 2>/dev/null; do
        sleep 0.1
        if ((SECONDS >= next)); then
            next=$((SECONDS + _LONG_S))
            _say "  $what ... $(tail -n 1 "$_LOG" | sed 's/^ *//' | cut -c 1-80)"
        fi
    done
    wait "$_CHILD" || status=$?
    _CHILD=
    return "$status"
}

_stop_child() {
    [ -z "$_CHILD" ] || { kill "$_CHILD" && wait "$_CHILD"; } 2>/dev/null
}

_failed() {
    tail -n 20 "$_LOG" >&2
    if grep -qE "$_NETWORK_TROUBLE" "$_LOG"; then
        _say "Setting up .venv failed: the package index could not be reached. Check the network and run this again."
    else
        _say "Setting up .venv failed: the reason is above. Running this again starts over."
    fi
    exit 2
}
_NETWORK_TROUBLE='NewConnectionError|ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|name resolution'

# Print which package has no wheel, fail if that was not the trouble.
_lacks_wheel() {
    ! grep -qE "$_NETWORK_TROUBLE" "$_LOG" &&
        grep -m 1 -oE 'No matching distribution found for [^ ]+|[^ ]+ is not a supported wheel on this platform' "$_LOG"
}

_version() {
    "$1" -c 'import platform, sys; print("Python", platform.python_version(), "for", platform.machine())'
}

# Fill _FOUND with the interpreters that can be used, newest first; explain and leave when there is none.
_find_interpreters() {
    local names=(python3.14 python3.13 python3.12 python3.11 python3 python) name path verdict seen=' ' notes=''
    [ -z "${LEDGERD_PYTHON:-}" ] || names=("$LEDGERD_PYTHON")
    _FOUND=()
    for name in "${names[@]}"; do
        path=$(command -v "$name") || continue
        verdict=$("$path" -I -c "$_PROBE" 2>/dev/null) || continue
        case $verdict in
            'ok '*)
                [[ $seen = *" $verdict "* ]] || _FOUND+=("$path")
                seen+="$verdict "
                ;;
            *) notes+="  $path: $verdict"$'\n' ;;
        esac
    done
    if ((${#_FOUND[@]} == 0)); then
        _say "No usable Python 3.11 to 3.14 found${LEDGERD_PYTHON:+ at LEDGERD_PYTHON=$LEDGERD_PYTHON}. $(_how_to_install)"
        [ -z "$notes" ] || printf '%s' "$notes" >&2
        exit 2
    fi
}
# Prints "ok" and the real interpreter (so that two names for one are tried once), or what is wrong.
_PROBE='
import os, sys
version = "%d.%d" % sys.version_info[:2]
if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 14):
    print("is", sys.implementation.name, version)
else:
    try:
        import ensurepip, venv
        print("ok", os.path.realpath(sys.executable).replace(" ", "_"))
    except ImportError as error:
        print(f"Python {version} lacks {error.name}: apt install python{version}-venv")
'

_how_to_install() {
    if command -v apt-get >/dev/null; then
        echo "Install one: apt install python3 python3-venv"
    else
        echo "Install one with its venv and pip modules."
    fi
}

_no_interpreter_left() {
    _say "None of the Pythons found has wheels for all packages; Python 3.12 or newer has them on every platform."
    rm -rf "$ROOT/.venv"
    exit 2
}
