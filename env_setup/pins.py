"""Everything that is fetched from outside the package registry, pinned once: the flash_attn wheels and the weights.

The hashes are those that several public projects record for the same files; none of the files could be fetched where
this was written. A wrong one is refused on arrival, with a message that names it. Standard library only.
"""

from dataclasses import dataclass

__all__ = [
    "F5_CHECKPOINT",
    "FLASH_ATTN_WHEELS",
    "PINNED_WEIGHTS",
    "TORCH_VERSION",
    "VOCOS_CONFIG",
    "VOCOS_WEIGHTS",
    "HubFile",
    "Wheel",
]

TORCH_VERSION = "2.6.0"
"""What the f5 lock holds, and what the default wheel was built for."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A build of flash_attn: `url` ends in its file name, `cxx11_abi` is torch's C++ ABI.

    `download_bytes` and `installed_bytes` are estimates for the disk preflight.
    """

    python: str  # "3.11"
    torch: str  # "2.6"
    cuda: str  # "12"
    cxx11_abi: bool
    url: str
    sha256: str | None
    download_bytes: int = 260_000_000
    installed_bytes: int = 1_000_000_000


_RELEASE = "https://github.com/Dao-AILab/flash-attention/releases/download/v2.8.2/"

FLASH_ATTN_WHEELS = (
    # The first row is the wheel of the worker that this service replaces, and the default.
    Wheel(
        python="3.11",
        torch="2.6",
        cuda="12",
        cxx11_abi=False,
        url=_RELEASE + "flash_attn-2.8.2+cu12torch2.6cxx11abiFALSE-cp311-cp311-linux_x86_64.whl",
        sha256="422174d5ff72e44c0c300a1d1f99e65feeb02cd4f9fbc5320755a87c99e2233d",
    ),
    Wheel(
        python="3.11",
        torch="2.6",
        cuda="12",
        cxx11_abi=True,
        url=_RELEASE + "flash_attn-2.8.2+cu12torch2.6cxx11abiTRUE-cp311-cp311-linux_x86_64.whl",
        sha256="7e6bfe311a364d9d1e6fb1a15b1df12b6f7945bc7e08206cb098c70f1d722796",
    ),
)


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a model repository at a fixed commit."""

    repository: str  # "owner/name"
    revision: str  # 40 hex digits
    path: str
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def key(self) -> str:
        """Where it lies under a node's weights directory, and under `models/` in the bucket."""
        return f"{self.repository}/{self.revision}/{self.path}"


F5_CHECKPOINT = HubFile(
    "SWivid/F5-TTS",
    "84e5a410d9cead4de2f847e7c9369a6440bdfaca",
    "F5TTS_v1_Base/model_1250000.safetensors",
    sha256="670900fd14e6c458b95da6e9ed317cdb20dbaf7a1c02ac06a05475a9d32b6a38",
    size_bytes=1_348_435_761,
)
"""CC-BY-NC 4.0: no commercial use. (F5-TTS's code is MIT.)"""

_VOCOS = ("charactr/vocos-mel-24khz", "0feb3fdd929bcd6649e0e7c5a688cf7dd012ef21")
VOCOS_CONFIG = HubFile(
    *_VOCOS, "config.yaml", sha256="da9033922f969a47f0c160010226919e59f27761fd5066f3828d46de6650b0fc", size_bytes=461
)
VOCOS_WEIGHTS = HubFile(
    *_VOCOS,
    "pytorch_model.bin",
    sha256="97ec976ad1fd67a33ab2682d29c0ac7df85234fae875aefcc5fb215681a91b2a",
    size_bytes=54_365_991,
)
"""MIT. The one file that is not safetensors: its hash is checked before it is opened."""

PINNED_WEIGHTS = (F5_CHECKPOINT, VOCOS_CONFIG, VOCOS_WEIGHTS)
