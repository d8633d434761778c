#!/bin/sh
# Print the path of a Python 3.7, the newest that TensorFlow 1.15 has wheels for.
# Looks at $PYTHON, the PATH, pyenv's versions, and last asks uv to install one.

is_37() {
    # A pyenv shim may be on the PATH and yet answer "command not found", so run it.
    [ -n "$1" ] && "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 7))' 2>/dev/null
}

answer() {
    "$1" -c 'import sys; print(sys.executable)'
    exit 0
}

if [ -n "$PYTHON" ]; then
    is_37 "$PYTHON" && answer "$PYTHON"
    echo "PYTHON=$PYTHON is no Python 3.7, which TensorFlow 1.15 needs" >&2
    exit 1
fi
is_37 python3.7 && answer python3.7
for python in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.7.*/bin/python; do
    is_37 "$python" && answer "$python"
done

uv=$(command -v uv)
if [ -z "$uv" ]; then
    # pip can bring uv, into a folder of its own.
    here=${XDG_CACHE_HOME:-$HOME/.cache}/resnet-suite-uv
    python3 -m venv "$here" >&2 2>/dev/null && "$here/bin/pip" install -q uv >/dev/null 2>&1 &&
        uv=$here/bin/uv
fi
if [ -n "$uv" ] && "$uv" python install 3.7 >/dev/null 2>&1; then
    python=$("$uv" python find 3.7)
    is_37 "$python" && answer "$python"
fi
echo "TensorFlow 1.15 needs Python 3.7, and none was found. Install one, for example with" \
    "'pyenv install 3.7.16' or 'conda create -n py37 python=3.7', then run: make PYTHON=/path/to/python3.7" >&2
exit 1
