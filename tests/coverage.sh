#!/bin/sh
# Measure the coverage of Python and Cython, started programs included. Print the figure, in total and
# for each package, and write the lines that no test runs to build/coverage/html. Arguments name the
# tests to run; without any, all run.
#
# Servers whose compiled modules trace lines are so slow that tests with many of them fail. Therefore,
# all tests run without tracing, and those of the compiled modules a second time with it.
set -eu
. "$(dirname "$0")/compiled_copy.sh"

measure() {
    "$python" -m coverage run -m pytest -q --numprocesses=4 --dist=loadfile \
        --no-loadscope-reorder "$@" || status=$?
}

status=0
export HYPOTHESIS_PROFILE=short
copy_checkout coverage
(cd "$root" && find pixelfast -name '*.so' -exec cp --parents -t "$work" {} +)
rm -f .coverage .coverage.*
chmod a+rwx . # some tests start programs as other users
measure "$@"
echo "compiling with line tracing"
PIXELFAST_TRACE=1 "$python" setup.py --quiet build_ext --inplace --force
# shellcheck disable=SC2086 # a list
[ $# -gt 0 ] || set -- $tests_of_compiled_modules
measure "$@"
"$python" -m coverage combine --quiet
"$python" -m coverage html --quiet --directory=html
"$python" -m coverage report --sort=miss --skip-covered
for folder in pixelfast/*/; do
    figure=$("$python" -m coverage report --include="$folder*" --format=total 2>/dev/null) &&
        printf '%-20s %s %%\n' "${folder%/}" "$figure"
done
exit "$status"
