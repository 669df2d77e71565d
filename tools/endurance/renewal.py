"""The files of an operator: weights, certificate and tokens, and how each is renewed while the service runs."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from model.engines.openvino import int8
from model.weights import checkpoint
from pranet_client.credentials import Access
from tests.support.certificates import Authority
from tests.support.pictures import ROOT
from tests.support.processes import pranet

BUNDLED = ROOT / "weights" / "pranet.safetensors"
LAST_BIAS = "ra2_conv4.bn.bias"  # is added to every logit of S3, so that the second weights answer a little otherwise


@dataclass
class Site:
    """A folder with everything that the server reads, and where it may write."""

    folder: Path
    access: Access = field(init=False)  # the token in use
    numbers: int = 0  # tokens made so far

    def __post_init__(self) -> None:
        self.weights, self.tokens = self.folder / "weights.safetensors", self.folder / "tokens"
        self.certificate, self.key = self.folder / "cert.pem", self.folder / "key.pem"
        self.temporary, self.cache = self.folder / "tmp", self.folder / "cache"
        self.temporary.mkdir()
        self._authority = Authority(self.folder)
        self._variants = self._written()
        self.model_ids = [checkpoint.load(variant).model_id for variant in self._variants]
        self.swap_weights()
        self.renew_certificate()
        self.access = self.new_token()

    @property
    def model_id(self) -> str:
        """Of the weights that are in place."""
        return self.model_ids[0]

    def arguments(self) -> list[object]:
        return [
            "--weights", self.weights, "--tls-cert", self.certificate, "--tls-key", self.key,
            "--api-tokens-file", self.tokens, "--cache-dir", self.cache, "--maps", "false",
        ]  # fmt: skip

    def swap_weights(self) -> None:
        """Put the other weights in place, as docs/operations.md says."""
        self._variants.reverse()
        self.model_ids.reverse()
        new = self.weights.with_suffix(".new")
        for suffix in (int8.SUFFIX, BUNDLED.suffix):  # the weights last, as it is they that the service is told of
            shutil.copyfile(self._variants[0].with_suffix(suffix), new)
            os.replace(new, self.weights.with_suffix(suffix))

    def renew_certificate(self) -> None:
        for made, place in zip(self._authority.issue("127.0.0.1"), (self.certificate, self.key), strict=True):
            os.replace(made, place)

    def new_token(self) -> Access:
        """Add a token to the file, and return the access of its holder."""
        self.numbers += 1
        done = pranet("tokens", "add", self._holder(), "--api-tokens-file", self.tokens)
        return self._authority.client(token=_succeeded(done))

    def remove_token(self, number: int) -> None:
        _succeeded(pranet("tokens", "remove", self._holder(number), "--api-tokens-file", self.tokens))

    def temporary_files(self) -> int:
        return sum(len(files) for _, _, files in os.walk(self.temporary))

    def _holder(self, number: int = 0) -> str:
        return f"holder-{number or self.numbers}"

    def _written(self) -> list[Path]:
        bundled = checkpoint.load(BUNDLED)
        variants = [self.folder / "one.safetensors", self.folder / "two.safetensors"]
        for variant, bias in zip(variants, (0.0, 0.5), strict=True):
            state = {**bundled.state, LAST_BIAS: bundled.state[LAST_BIAS] + bias}
            checkpoint.save(variant, state, "int8", {**bundled.metadata, "name": variant.stem})
            int8.save(variant.with_suffix(int8.SUFFIX), int8.load(bundled), checkpoint.load(variant))
        return variants


def _succeeded(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        raise RuntimeError(f"{' '.join(done.args)} failed: {done.stderr}")
    return done.stdout.strip()
