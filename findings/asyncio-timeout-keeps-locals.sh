#!/usr/bin/env bash
# A coroutine that names its asyncio.timeout, in a task that is cancelled inside of it.
#
# Guess:   once the task is done and nobody refers to it, what its coroutine had in local variables is freed at once.
# Truth:   only without a name for the timeout. `async with asyncio.timeout(1) as limit:` makes a reference cycle: the
#          timeout keeps its task after its end, the task keeps the CancelledError, its traceback keeps the stack frame,
#          and the frame keeps `limit`. All other variables of the frames in the traceback wait for the garbage collector.
# Versions: CPython 3.12.1 and 3.13.0, no others, without packages; found in PATH or among those of pyenv
# Matters: the collector starts by the number of objects, whatever their size. Each stream that its client left kept the
#          network's inputs and outputs, 0.8 MB. The service deletes the name in a `finally` now.
#
# Exit code 0: as described. 1: something changed. 2: one of the two Pythons is not installed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/timeout.py" <<'PYTHON'
import asyncio
import gc
import sys
import weakref


class Picture:
    pass


async def unnamed(seen):
    picture = Picture()
    seen.append(weakref.ref(picture))
    async with asyncio.timeout(10):
        await asyncio.sleep(10)


async def named(seen):
    picture = Picture()
    seen.append(weakref.ref(picture))
    async with asyncio.timeout(10) as limit:
        await asyncio.sleep(10)
    print(limit.expired())


async def deleted(seen):
    picture = Picture()
    seen.append(weakref.ref(picture))
    try:
        async with asyncio.timeout(10) as limit:
            await asyncio.sleep(10)
        print(limit.expired())
    finally:
        del limit


async def kept(coroutine):
    seen = []
    task = asyncio.create_task(coroutine(seen))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    del task
    await asyncio.sleep(0.01)
    return seen[0]() is not None


gc.disable()
found = {each.__name__: asyncio.run(kept(each)) for each in (unnamed, named, deleted)}
print(f"CPython {sys.version.split()[0]}: is the picture kept?", found)
sys.exit(found != {"unnamed": False, "named": True, "deleted": False})
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
  "$python" "$folder/timeout.py"
done
