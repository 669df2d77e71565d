"""A limited number of numbered places, which several processes may share."""

from service.processes.memory import Memory


class Places:
    """One byte for each place: 0 if it is free, else 1 + the index of the process that holds it."""

    def __init__(self, count: int, memory: Memory | None = None, start: int = 0) -> None:
        self.count = count
        self.taken = 0  # by this process
        self._memory = memory or Memory(count)
        self._start = start

    def take(self) -> int | None:
        """Take the free place with the lowest number; return the number, or None if no place is free."""
        with self._memory.locked():
            place = self._memory.bytes.find(b"\0", self._start, self._start + self.count)
            if place < 0:
                return None
            self._memory.bytes[place] = 1 + self._memory.owner
        self.taken += 1
        return place - self._start

    def give_back(self, number: int) -> None:
        """Free a place that this process has taken."""
        self._memory.bytes[self._start + number] = 0
        self.taken -= 1

    def clear(self, index: int) -> None:
        """Free the places of a process that has ended."""
        with self._memory.locked():
            held = self._memory.bytes[self._start : self._start + self.count]
            self._memory.bytes[self._start : self._start + self.count] = held.replace(bytes([1 + index]), b"\0")
