"""What may be written as a source of weights, and what is said of everything else."""

from dataclasses import replace
from pathlib import Path

import pytest

from env_setup.pins import F5_CHECKPOINT, VOCOS_CONFIG, VOCOS_WEIGHTS, HubFile
from serve_app.errors import ModelLoadFailed
from serve_app.weights.sources import BucketFile, LocalFile, parse_file, parse_vocoder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "ab" * 32


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (f"hf://me/my.model@{COMMIT}/a/b.safetensors", HubFile("me/my.model", COMMIT, "a/b.safetensors")),
        (f"hf://me/m@{COMMIT}/b.safetensors#sha256={SHA256}", HubFile("me/m", COMMIT, "b.safetensors", SHA256)),
        ("s3://bucket/a/b.safetensors", BucketFile("bucket", "a/b.safetensors")),
        (f"s3://bucket/b.safetensors#sha256={SHA256}", BucketFile("bucket", "b.safetensors", SHA256)),
        ("/models/m.safetensors", LocalFile(Path("/models/m.safetensors"))),
        (f"/m.safetensors#sha256={SHA256}", LocalFile(Path("/m.safetensors"), SHA256)),
        ("~/m.safetensors", LocalFile(Path.home() / "m.safetensors")),
    ],
)
def test_a_file_is_named_in_three_ways(text, meant):
    """On the hub by commit, in a bucket by key, on the node by path; each with a sha256 or without."""
    assert parse_file("source", text) == meant


def test_the_pinned_file_is_known_by_its_name():
    """Named as any other, it has the pin's size and sha256; a sha256 that is given is kept, right or wrong."""
    text = f"hf://{F5_CHECKPOINT.repository}@{F5_CHECKPOINT.revision}/{F5_CHECKPOINT.path}"
    assert parse_file("source", text) == F5_CHECKPOINT
    assert parse_file("source", f"{text}#sha256={SHA256}") == replace(F5_CHECKPOINT, sha256=SHA256)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (
            f"hf://me/voc@{COMMIT}",
            (HubFile("me/voc", COMMIT, "config.yaml"), HubFile("me/voc", COMMIT, "model.safetensors")),
        ),
        (
            f"hf://me/voc@{COMMIT}/sub#sha256={SHA256}",
            (HubFile("me/voc", COMMIT, "sub/config.yaml"), HubFile("me/voc", COMMIT, "sub/model.safetensors", SHA256)),
        ),
        ("s3://bucket/voc/", (BucketFile("bucket", "voc/config.yaml"), BucketFile("bucket", "voc/model.safetensors"))),
        ("/voc", LocalFile(Path("/voc"))),
        (f"hf://{VOCOS_CONFIG.repository}@{VOCOS_CONFIG.revision}", (VOCOS_CONFIG, VOCOS_WEIGHTS)),
    ],
)
def test_a_vocoder_is_a_folder_of_two_files(text, meant):
    """config.yaml and model.safetensors, whose sha256 it is; the pinned repository has its pytorch_model.bin."""
    assert parse_vocoder(text) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf://me/m/b.safetensors", "names no revision.*pin a commit"),
        ("hf://me/m@main/b.safetensors", "revision 'main', which is no commit"),
        (f"hf://me/m@{COMMIT[:8]}/b.safetensors", "which is no commit.*40 hex"),
        (f"hf://m@{COMMIT}/b.safetensors", "repository 'm': write owner/name"),
        (f"hf://../m@{COMMIT}/b.safetensors", "repository '../m'"),
        (f"hf://me/m@{COMMIT}", "names a repository, not a file of it"),
        (f"hf://me/m@{COMMIT}/../b.safetensors", "path '../b.safetensors': no part"),
        (f"hf://me/m@{COMMIT}//b.safetensors", "no part of it may be empty"),
        (f"hf://me/m@{COMMIT}/model.pt", r"does not end in \.safetensors.*EMA.*safetensors\.torch\.save_file"),
        ("/models/model.pt", r"does not end in \.safetensors"),
        ("s3://bucket/model.ckpt", r"does not end in \.safetensors"),
        ("s3://bucket", "names a bucket, not what is in it"),
        ("s3://-/b.safetensors", "bucket '-', which cannot be"),
        ("s3://bucket/a//b.safetensors", "key 'a//b.safetensors': no part"),
        ("models/b.safetensors", "is a relative path.*absolute"),
        ("https://huggingface.co/me/m/b.safetensors", "scheme that is not known: write hf://"),
        ("/b.safetensors#sha256=abc", "64 digits of 0-9a-f after #sha256="),
        ("/b.safetensors#md5=abc", "ends in '#md5=abc', where only #sha256="),
    ],
)
def test_what_cannot_be_meant_is_named_with_its_remedy(text, message):
    """The message begins with the key of deploy.yaml and the value, and says what to write."""
    with pytest.raises(ModelLoadFailed, match=message) as caught:
        parse_file("source", text)
    assert caught.value.message.startswith(f"models[].source is {text!r}, which ")


def test_a_vocoder_that_is_a_file_is_refused():
    """It is a folder, since config.yaml and weights belong together."""
    with pytest.raises(ModelLoadFailed, match="names a file: name the folder"):
        parse_vocoder(f"hf://me/voc@{COMMIT}/model.safetensors")


def test_a_vocabulary_may_have_any_ending():
    """Only weights must be safetensors."""
    assert parse_file("vocab", "/vocab.txt") == LocalFile(Path("/vocab.txt"))
