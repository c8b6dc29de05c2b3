"""docs/deploy/: the configuration in it is valid, and what it names exists. Nothing here runs Docker or Kubernetes."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.settings import BuildArgs
from tests.support.dockerfile import instructions, of_target

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
PAGES = sorted(DEPLOY.glob("*.md"))
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(
    r"(?:docs|tests|env_setup|serve_app|bench)/[\w./-]*\w|(?:deploy\.yaml|Dockerfile|Makefile|pyproject\.toml)"
)
RAYSERVICE = yaml.safe_load((DEPLOY / "rayservice.yaml").read_text())
SERVE_CONFIG = yaml.safe_load(RAYSERVICE["spec"]["serveConfigV2"])
CLUSTER = RAYSERVICE["spec"]["rayClusterConfig"]
ARGS = SERVE_CONFIG["applications"][0]["args"]
DEPLOY_YAML = yaml.safe_load((ROOT / "deploy.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PODS = {
    "head": CLUSTER["headGroupSpec"]["template"]["spec"],
    **{group["groupName"]: group["template"]["spec"] for group in CLUSTER["workerGroupSpecs"]},
}


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every line of the page's bash and dockerfile blocks, continued lines joined, quoted scripts too."""
    for _indent, language, body in FENCE.findall(page.read_text()):
        assert language in ("bash", "dockerfile", "yaml")
        for line in [] if language == "yaml" else body.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            yield words
            if words[:2] == ["bash", "-c"]:
                yield shlex.split(words[2])


def missing(words: list[str]) -> list[str]:
    """What a command names that this repository does not have: modules, make targets, image targets and arguments."""
    stages = {i.value.split()[-1] for i in instructions(DOCKERFILE) if i.keyword == "FROM"}
    arguments = {i.value.partition("=")[0] for i in instructions(DOCKERFILE) if i.keyword == "ARG"}
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    wrong = [name for word in words for name in FILE.findall(word) if "tmp/" not in word and not (ROOT / name).exists()]
    for before, word in pairwise(words):
        module = ROOT / word.replace(".", "/")
        if before == "-m" and not (module.with_suffix(".py").exists() or (module / "__main__.py").exists()):
            wrong.append(f"-m {word}")
        if before == "make" and word not in targets:
            wrong.append(f"make {word}")
        if before == "--target" and word not in stages:
            wrong.append(f"--target {word}")
        if before == "--build-arg" and word.partition("=")[0] not in arguments:
            wrong.append(f"--build-arg {word}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_file_exists(page: Path):
    """A reader who follows a link, or looks for a file that a sentence names, finds it."""
    text = page.read_text()
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
    named = [name for quoted in re.findall(r"`([^`\n]+)`", text) for name in FILE.findall(quoted)]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_names_what_exists(page: Path):
    """Modules, make targets, files, image targets and build arguments of the commands are those of the repository."""
    assert {shlex.join(words): wrong for words in commands(page) if (wrong := missing(words))} == {}


def test_a_command_that_names_nothing_would_be_found():
    """The check above can fail, on each kind of name."""
    line = "python -m env_setup.nothing docs/nothing.yaml --target nothing --build-arg NOTHING=1 . && make nothing"
    assert len(missing(shlex.split(line))) == 5
    assert sum(1 for page in PAGES for _ in commands(page)) > 25


def test_ray_and_the_service_accept_the_rayservice():
    """serveConfigV2 is valid for Ray, with no key that Ray would ignore, and its args are valid for the builder."""
    schema = ServeDeploySchema.model_validate(SERVE_CONFIG)
    assert set(SERVE_CONFIG) <= set(type(schema).model_fields)
    assert set(SERVE_CONFIG["applications"][0]) <= set(type(schema.applications[0]).model_fields)
    args = BuildArgs.model_validate(ARGS)
    assert [(model.name, model.engine) for model in args.models] == [("preview", "preview"), ("f5", "f5")]
    assert args.models[1].environment == "installed"
    assert (SERVE_CONFIG["http_options"]["host"], args.default_model) == ("0.0.0.0", "f5")


def test_the_rayservice_follows_deploy_yaml():
    """What a cluster has no reason to change is as in deploy.yaml, aliases and limits included."""
    of_one_machine = DEPLOY_YAML["applications"][0]["args"]
    differ = {key for key in {*ARGS, *of_one_machine} if ARGS.get(key) != of_one_machine.get(key)}
    assert differ <= {"models", "default_model", "allowed_hosts"}
    served = {key: value for key, value in DEPLOY_YAML.items() if key != "applications"}
    served["http_options"] = served["http_options"] | {"host": "0.0.0.0"}
    assert {key: value for key, value in SERVE_CONFIG.items() if key != "applications"} == served


def test_the_service_answers_to_the_names_that_kuberay_gives_it():
    """KubeRay's Service is `<name>-serve-svc`; a port-forward arrives as 127.0.0.1."""
    name = f"{RAYSERVICE['metadata']['name']}-serve-svc"
    assert {name, f"{name}.default.svc.cluster.local", "127.0.0.1"} <= set(ARGS["allowed_hosts"])


def test_the_cluster_is_the_images():
    """Ray's version, the image's user, one image and store in every pod; the token on; no replica on the head."""
    (user,) = {i.value for target in ("cpu", "gpu") for i in of_target(DOCKERFILE, target) if i.keyword == "USER"}
    assert CLUSTER["rayVersion"] == ray.__version__
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    contexts = [pod["securityContext"] for pod in PODS.values()]
    assert {f"{context['runAsUser']}:{context['runAsGroup']}" for context in contexts} == {user}
    containers = [container for pod in PODS.values() for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    assert [container["envFrom"] for container in containers] == [[{"secretRef": {"name": "speech-store"}}]] * 3


def test_only_the_gpu_group_has_gpus_one_for_each_replica_of_f5():
    """It scales from none to what f5 may ask for; an f5 replica fits one pod, and nothing else does."""
    gpus = {name: pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for name, pod in PODS.items()}
    assert gpus == {"head": None, "cpu": None, "gpu": "1"}
    group = next(group for group in CLUSTER["workerGroupSpecs"] if group["groupName"] == "gpu")
    f5 = BuildArgs.model_validate(ARGS).models[1]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, f5.autoscaling.max_replicas)
    assert (float(group["rayStartParams"]["num-cpus"]), f5.num_gpus) == (f5.num_cpus, 1)
    mounts = {mount["mountPath"] for mount in PODS["gpu"]["containers"][0]["volumeMounts"]}
    assert "WEIGHTS_DIR=/weights" in DOCKERFILE
    assert mounts == {"/weights"}


def test_no_probe_needs_a_program_that_the_image_lacks():
    """KubeRay's own probes call wget; each of ours is Python that compiles."""
    for name, pod in PODS.items():
        for probe in ("livenessProbe", "readinessProbe"):
            python, flag, script = pod["containers"][0][probe]["exec"]["command"]
            assert (name, python, flag) == (name, "python", "-c")
            compile(script, f"{name}.{probe}", "exec")


def test_an_old_cluster_outlives_the_longest_call():
    """After an upgrade nothing is cut off."""
    assert RAYSERVICE["spec"]["rayClusterDeletionDelaySeconds"] > SERVE_CONFIG["http_options"]["request_timeout_s"]


def test_the_start_command_on_runpod_allows_the_pods_names(tmp_path: Path):
    """Its sed, run on deploy.yaml, adds the names of the pod and keeps the rest."""
    (start,) = [words for words in commands(DEPLOY / "runpod.md") if words[:2] == ["bash", "-c"]]
    edit = start[2].partition(" && ")[0].replace("/tmp/deploy.yaml", str(tmp_path / "deploy.yaml"))
    subprocess.run(["bash", "-c", edit], cwd=ROOT, env={"PATH": "/usr/bin:/bin", "RUNPOD_POD_ID": "abc1"}, check=True)
    made = yaml.safe_load((tmp_path / "deploy.yaml").read_text())["applications"][0]["args"]
    given = DEPLOY_YAML["applications"][0]["args"]
    pods = ["abc1-8000.proxy.runpod.net", "abc1.runpod.internal"]
    assert made == given | {"allowed_hosts": pods + given["allowed_hosts"]}


def test_what_starts_on_runpod_is_what_the_image_starts():
    """The start command there differs from the image's CMD in the configuration file alone."""
    (start,) = [words for words in commands(DEPLOY / "runpod.md") if words[:2] == ["bash", "-c"]]
    (cmd,) = [i.words for i in of_target(DOCKERFILE, "gpu") if i.keyword == "CMD"]
    started = shlex.split(start[2].partition("exec ")[2])
    assert [word.replace("/tmp/deploy.yaml", "deploy.yaml") for word in started] == cmd


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_licence_is_said_where_the_model_is_chosen(page: Path):
    """Whoever deploys f5 reads that its published weights are not for commercial use."""
    assert "CC-BY-NC 4.0: no commercial use" in page.read_text()


def test_docker_publishes_on_the_hosts_loopback():
    """No `docker run` of the documents opens the port to other machines."""
    runs = [words for page in PAGES for words in commands(page) if words[:2] == ["docker", "run"]]
    ports = [after for words in runs for word, after in pairwise(words) if word == "--publish"]
    assert ports == ["127.0.0.1:8000:8000"] * 2
    assert [words for words in runs if {"-p", "-P", "--publish-all"} & set(words) or "--network" in words] == []
