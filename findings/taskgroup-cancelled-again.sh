#!/usr/bin/env bash
# A task that was cancelled inside asyncio.TaskGroup, and goes on after the group's errors.
#
# Guess:   a task that handles what its TaskGroup raised is done with the cancellation; the next await passes.
# Truth:   up to Python 3.12 it does. From 3.13 on, a group that raises errors while its task is being cancelled cancels
#          that task once more: the group's ExceptionGroup comes first, and the next await ends with CancelledError.
# Versions: CPython 3.12.1 and 3.13.0, no others, without packages; found in PATH or among those of pyenv
# Matters: a wrapper that turns the group's errors into one left a cancellation behind, which ended gRPC's own task, with
#          two raw tracebacks in the log for every client that left a stream. The wrapper now takes the second one, too.
#
# Exit code 0: as described. 1: something changed. 2: one of the two Pythons is not installed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/group.py" <<'PYTHON'
import asyncio
import sys


async def child():
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        raise ValueError("found while cleaning up") from None


async def parent(seen):
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.sleep(10)
    except ExceptionGroup:
        seen.append("the group's errors")
    try:
        await asyncio.sleep(0)
        seen.append("nothing")
    except asyncio.CancelledError:
        seen.append("cancelled again")


async def main():
    seen = []
    task = asyncio.create_task(parent(seen))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    return seen


seen = asyncio.run(main())
print(f"CPython {sys.version.split()[0]}:", ", then ".join(seen))
sys.exit(seen != ["the group's errors", "cancelled again" if sys.version_info >= (3, 13) else "nothing"])
PYTHON
installed() {  # prints the path of exactly this version
  local python
  for python in "python${1%.*}" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1/bin/python"; do
    if [[ $("$python" -c 'import platform; print(platform.python_version())' 2> /dev/null) == "$1" ]]; then
      command -v "$python"
      return
    fi
  done
  echo "CPython $1 is not installed" >&2
  return 2
}
for version in 3.12.1 3.13.0; do
  python=$(installed "$version")
  "$python" "$folder/group.py"
done
