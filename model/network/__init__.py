"""The network of the paper: Res2Net backbone, partial decoder, reverse attention."""
