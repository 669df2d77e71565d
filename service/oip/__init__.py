"""The Open Inference Protocol, version 2 (KServe, Triton), over the same data path as the plain interface.

    wire          rest (JSON, binary extension)  |  rpc (unary, ModelStreamInfer)
    → tensors     what the request's tensors hold: pictures
    → parameters  what its parameters ask for: options, time; or why they are refused
    → inference   every picture through ``Segmenter.segment``; the outputs, stacked

``model`` describes the one model that is served. ``rest`` and ``rpc`` never import each other.
"""
