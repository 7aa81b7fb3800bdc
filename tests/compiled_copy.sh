# Sourced by the scripts that test another build of the compiled modules. `copy_checkout NAME` brings
# the copy of the checkout in build/NAME up to date and makes it the current folder. `compiled_copy
# NAME` also compiles it with the switches of the environment. Such a build never replaces the one in
# the checkout, because every later benchmark would measure it.

root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
tests_of_compiled_modules="tests/event tests/collect tests/spool
    tests/deliver/products/test_documents.py tests/deliver/products/test_bulk_items.py
    tests/deliver/test_lines.py tests/deliver/test_excerpts.py"

copy_checkout() {
    work=$root/build/$1
    rm -rf "$work/tests" # so that deleted tests do not run
    mkdir -p "$work"
    (cd "$root" && cp -ru tests docs deploy benchmarks setup.py pyproject.toml MANIFEST.in Makefile \
        ./*.md LICENSE .dockerignore "$work")
    (cd "$root" && find pixelfast -type f ! -name '*.so' ! -name '*.c' ! -path '*__pycache__*' -print0) |
        (cd "$root" && xargs -0 cp -u --parents -t "$work")
    cd "$work"
    # Deleted modules would still be compiled and imported.
    find pixelfast -type f ! -name '*.so' | while read -r file; do
        [ -e "$root/$file" ] || rm "$file"
    done
    find pixelfast -name '*.so' | while read -r file; do
        [ -e "${file%%.*}.pyx" ] || rm "$file"
    done
    export PYTHONPATH="$work"
}

compiled_copy() {
    copy_checkout "$1"
    "$python" setup.py --quiet build_ext --inplace
}
