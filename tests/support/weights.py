"""A hub, a bucket and a node of small weights, without sockets."""

import hashlib

from env_setup.pins import HubFile
from serve_app.errors import ModelLoadFailed
from serve_app.settings import NodeSettings
from serve_app.storage import MemoryStore
from serve_app.weights import NodeWeights
from serve_app.weights.sources import Pinned
from serve_app.weights.transfer import Described

COMMIT = "c" * 40
BODIES = {"config.yaml": b"config", "pytorch_model.bin": b"vocos" * 50, "m.safetensors": b"f5" * 500}
SMALLEST = b"\x02\0\0\0\0\0\0\0{}"  # a safetensors file without tensors


def pin(name):
    return HubFile("me/m", COMMIT, name, hashlib.sha256(BODIES[name]).hexdigest(), len(BODIES[name]))


PINNED = Pinned(pin("m.safetensors"), (pin("config.yaml"), pin("pytorch_model.bin")))


class FakeHub:
    """Has BODIES, or is down. `asked` lists what was described, `read` what was streamed."""

    def __init__(self, down=False, bodies=BODIES):
        self.down, self.bodies, self.asked, self.read = down, bodies, [], []

    def file(self, file):
        return FakeRemote(self, file)


class FakeRemote:
    def __init__(self, hub, file):
        self.hub, self.file, self.label = hub, file, f"hub/{file.path}"

    def describe(self):
        self.hub.asked.append(self.file.path)
        if self.hub.down:
            raise ModelLoadFailed("the hub does not answer")
        body = self.hub.bodies[self.file.path]
        return Described(len(body), hashlib.sha256(body).hexdigest())

    def read(self, start):
        self.hub.read.append(self.file.path)
        yield self.hub.bodies[self.file.path][start:]


class FakeBucket(MemoryStore):
    """A MemoryStore as the bucket "service"; `refusal` is raised from every read."""

    bucket = "service"

    def __init__(self, refusal=None):
        super().__init__()
        self.refusal, self.others = refusal, {}
        self.heads, self.reads, self.written = [], [], []

    def in_bucket(self, bucket):
        return self.others[bucket]

    def head(self, key):
        self.heads.append(key)
        if self.refusal:
            raise self.refusal
        return super().head(key)

    def put_file(self, key, path, *, content_type):
        self.written.append(key)
        return super().put_file(key, path, content_type=content_type)

    def read(self, key, *, start=0, etag=None):
        self.reads.append(key)
        return super().read(key, start=start, etag=etag)


def node_weights(tmp_path, hub, store=None, **more):
    node = NodeSettings(weights_dir=tmp_path / "node")
    return NodeWeights(node, store, pinned=PINNED, hub=hub, **{"free": lambda directory: 10**12} | more)


def names(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def vocoder_at(folder, name="model.safetensors", body=b"x"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_bytes(b"config")
    (folder / name).write_bytes(body)
    return folder
