#!/bin/sh
# Run the tests of the decoder, the protocol, the spool and the scans of delivery with modules that
# are compiled with AddressSanitizer and UndefinedBehaviorSanitizer.
set -eu
. "$(dirname "$0")/compiled_copy.sh"
asan=$(${CC:-gcc} -print-file-name=libasan.so)
if [ ! -e "$asan" ]; then
    echo "sanitize.sh requires gcc with libasan: $asan does not exist" >&2
    exit 1
fi

echo "compiling with -fsanitize=address,undefined"
export PIXELFAST_SANITIZE=1
compiled_copy sanitize

# pymalloc would hide reads past the end of small objects. Leaks of the interpreter are not reported.
export PYTHONMALLOC=malloc HYPOTHESIS_PROFILE=short
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
export LD_PRELOAD="$asan"
"$python" -c "import pixelfast.event.decoder as m; assert m.__file__.startswith('$work'), m.__file__"
# shellcheck disable=SC2086 # a list
exec "$python" -m pytest -q -p no:cacheprovider $tests_of_compiled_modules "$@"
