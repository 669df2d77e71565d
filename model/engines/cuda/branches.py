"""Parallel branches of a CUDA graph: independent operations are recorded on streams of their own.

A small batch leaves most of a GPU idle, and half of PraNet's layers are independent of others: receptive-field blocks
run beside the backbone, and reductions beside the decoder.
"""

import operator
from typing import Any

import torch
from torch import fx

VIEWS = (torch.split, operator.getitem)  # launch no kernel


class Branches(fx.Interpreter):
    """Runs a traced network with a stream for each branch, starting and ending on the current stream.

    An operation continues the stream of one of its inputs, if no other operation has continued it yet. Otherwise it
    takes a new stream of default priority. No other work may use streams of that priority during a recording.
    """

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network on its inputs, and return its output."""
        self._main = torch.cuda.current_stream()
        self._streams: dict[fx.Node, torch.cuda.Stream] = {}
        self._ready: dict[fx.Node, torch.cuda.Event] = {}
        self._last: dict[torch.cuda.Stream, fx.Node] = {}
        return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """Launch one operation on its stream, behind its inputs."""
        if n.op == "get_attr" or n.target in VIEWS:
            return super().run_node(n)
        makers = {each: _maker(each) for each in n.all_input_nodes if each.op != "get_attr"}
        stream = self._main if n.op in ("placeholder", "output") else self._stream(list(makers.values()))
        for each, maker in makers.items():
            if self._streams[maker] != stream:
                stream.wait_event(self._ready[maker])
                self.env[each].record_stream(stream)  # so that its memory is not reused before
        with torch.cuda.stream(stream):
            result = super().run_node(n)
            self._ready[n] = stream.record_event()
        self._streams[n], self._last[stream] = stream, n
        return result

    def _stream(self, makers: list[fx.Node]) -> torch.cuda.Stream:
        for maker in makers:
            if self._last[self._streams[maker]] is maker:
                return self._streams[maker]
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _maker(node: fx.Node) -> fx.Node:
    while node.target in VIEWS:
        node = node.all_input_nodes[0]
    return node
