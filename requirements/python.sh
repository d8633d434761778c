#!/bin/sh
# Print the path of a Python of version $1: 3.7, the newest that TensorFlow 1.15 has wheels for, or 3.11, the
# newest that 2.15 has. Looks at $PYTHON, the PATH, pyenv's versions, and last asks uv to install one.

wanted=$1
case $wanted in
3.7) tensorflow="TensorFlow 1.15" ;;
*) tensorflow="TensorFlow 2.15" ;;
esac

fits() {
    # A pyenv shim may be on the PATH and yet answer "command not found", so run it.
    [ -n "$1" ] &&
        "$1" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$wanted" 2>/dev/null
}

answer() {
    "$1" -c 'import sys; print(sys.executable)'
    exit 0
}

if [ -n "$PYTHON" ]; then
    fits "$PYTHON" && answer "$PYTHON"
    echo "PYTHON=$PYTHON is no Python $wanted, which $tensorflow needs" >&2
    exit 1
fi
fits "python$wanted" && answer "python$wanted"
for python in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$wanted".*/bin/python; do
    fits "$python" && answer "$python"
done

uv=$(command -v uv)
if [ -z "$uv" ]; then
    # pip can bring uv, into a folder of its own.
    here=${XDG_CACHE_HOME:-$HOME/.cache}/resnet-suite-uv
    python3 -m venv "$here" >&2 && "$here/bin/pip" install -q uv >&2 &&
        uv=$here/bin/uv
fi
if [ -n "$uv" ] && "$uv" python install "$wanted" >&2; then
    python=$("$uv" python find "$wanted")
    fits "$python" && answer "$python"
fi
echo "$tensorflow needs Python $wanted, and none was found. Install one, for example with" \
    "'pyenv install $wanted' or 'conda create -n py$wanted python=$wanted', then name it:" \
    "make PYTHON=/path/to/python$wanted" >&2
[ "$wanted" = 3.7 ] && echo "Or take TensorFlow 2.15, which runs on Python 3.11: make demo TF=2.15" >&2
exit 1
