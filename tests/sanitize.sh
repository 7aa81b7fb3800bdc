#!/bin/sh
# The compiled modules under AddressSanitizer and UndefinedBehaviorSanitizer, over the tests of the
# decoder, the protocol, the spool and the scan of documents. Built in a folder of its own: a sanitized
# build that stayed in place would make every later measurement worthless.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$root/build/sanitize
python=$root/.venv/bin/python
asan=$(${CC:-gcc} -print-file-name=libasan.so)
if [ ! -e "$asan" ]; then
    echo "needs gcc with libasan; $asan is no file" >&2
    exit 1
fi

rm -rf "$work/tests"  # none that is gone by now
mkdir -p "$work"
cp -ru "$root/tests" "$root/docs" "$root/setup.py" "$root/pyproject.toml" "$root/README.md" "$root/LICENSE" "$work"
(cd "$root" && find pixelfast -type f ! -name '*.so' ! -name '*.c' ! -path '*__pycache__*' -print0) |
    (cd "$root" && xargs -0 cp -u --parents -t "$work")
cd "$work"
# Modules that are gone by now would be compiled, and loaded, all the same.
find pixelfast -type f ! -name '*.so' | while read -r file; do
    [ -e "$root/$file" ] || rm "$file"
done
find pixelfast -name '*.so' | while read -r file; do
    [ -e "${file%%.*}.pyx" ] || rm "$file"
done
echo "compiling with -fsanitize=address,undefined"
PIXELFAST_SANITIZE=1 "$python" setup.py --quiet build_ext --inplace

# pymalloc would hide reads past the end of small objects. Leaks of the interpreter are not ours.
export PYTHONPATH="$work" PYTHONMALLOC=malloc HYPOTHESIS_PROFILE=short
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
export LD_PRELOAD="$asan"
"$python" -c "import pixelfast.event.decoder as m; assert m.__file__.startswith('$work'), m.__file__"
exec "$python" -m pytest -q -p no:cacheprovider tests/event tests/collect tests/spool \
    tests/deliver/products/test_documents.py "$@"
