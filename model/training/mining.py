"""Hard examples: of many frames without a polyp, train on those where the network sees one.

Most polyp-free crops teach nothing any more, as nothing is marked on them. To find those that do takes a look at each,
far smaller than a step of training (online hard example mining: Shrivastava et al., CVPR 2016).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.normalisation import normalise
from model.network.pranet import PraNet

SIDE = 224  # pixels, at most, on which the network looks at candidates: enough to tell which are hard


@torch.no_grad()
def hardest(network: PraNet, candidates: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of the candidates, RGB uint8 (N, 3, S, S), on which ``network`` marks most."""
    side = min(SIDE, candidates.shape[-1])
    small = F.interpolate(candidates.float(), (side, side), mode="bilinear", antialias=True)
    probability = torch.sigmoid(network.maps(normalise(small)).s3.float())
    return probability.mean(dim=(1, 2, 3)).topk(count).indices
