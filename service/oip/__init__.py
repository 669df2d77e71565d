"""The Open Inference Protocol, version 2 (KServe, Triton), on the same data path as REST and gRPC.

    wire          rest (JSON, binary extension)  |  rpc (unary, ModelStreamInfer)
    → tensors     the input tensors become pictures
    → parameters  the request's parameters become options and a timeout, or an error
    → inference   ``Segmenter.segment`` segments every picture; the outputs are stacked

``model`` describes the only model, ``pranet``. ``rest`` and ``rpc`` never import each other.
"""
