#!/bin/sh
# Run the tests, or those named by the arguments, with coverage of Python and Cython, started programs
# included. Print the figure, in total and for each package, and write the lines that no test runs to
# build/coverage/html.
set -eu
. "$(dirname "$0")/compiled_copy.sh"
echo "compiling with line tracing"
export PIXELFAST_TRACE=1
compiled_copy coverage

export HYPOTHESIS_PROFILE=short
rm -f .coverage .coverage.*
status=0
"$python" -m coverage run -m pytest -q -p no:cacheprovider --numprocesses=4 --dist=loadfile \
    --no-loadscope-reorder "$@" || status=$?
"$python" -m coverage combine --quiet
"$python" -m coverage html --quiet --directory=html
"$python" -m coverage report --sort=miss --skip-covered
for folder in pixelfast/*/; do
    figure=$("$python" -m coverage report --include="$folder*" --format=total 2>/dev/null) &&
        printf '%-20s %s %%\n' "${folder%/}" "$figure"
done
exit "$status"
