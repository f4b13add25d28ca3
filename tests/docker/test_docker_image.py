"""The training image: named by its content, built once, pushed once, the same from an installed wheel."""

import contextlib
import hashlib
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from importlib.metadata import version
from pathlib import Path

import docker
import pytest

import training_image
from backends import bundle, transfer
from launcher.image import Image, build, push
from tests.docker.conftest import REGISTRY, ROOT

UNREACHABLE = "127.0.0.1:9/ftlaunch"
IMPORTS = "import mlflow, azureml.mlflow, wandb, trackio, boto3, google.cloud.secretmanager, azure.keyvault.secrets"


def told_by(root: Path, code: str) -> str:
    """What a program prints that imports the sources below a folder, run outside of any clone."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def reference_of(root: Path) -> str:
    """The CPU image's name as told by the sources below a folder."""
    return told_by(root, "from launcher.image import Image; print(Image('cpu').reference())")


@pytest.fixture
def clone(tmp_path):
    for name in ("launcher", "backends", "training_image"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(
    ("file", "same"),
    [
        ("launcher/lifecycle.py", True),
        ("launcher/image.py", True),
        ("training_image/requirements.in", True),
        ("training_image/requirements.lock", False),
        ("training_image/run.py", False),
        ("launcher/Dockerfile", False),
    ],
)
def test_docker_tag_follows_what_goes_into_the_image(clone, file, same):
    before = reference_of(clone)
    assert before == Image("cpu").reference()
    with (clone / file).open("a") as content:
        content.write("# a comment\n")
    assert (reference_of(clone) == before) is same


def test_docker_tag_knows_builds_apart():
    assert len({Image("cpu").reference(), Image("cuda").reference(), Image("cpu", base="other").reference()}) == 3


def test_docker_building_twice_does_nothing(docker_client, image, ftlaunch):
    made = docker_client.images.get(image).attrs
    assert build(Image("cpu")) == (image, False)
    assert ftlaunch.json("image", "build") == {"image": image, "built": False, "torch": "cpu"}
    assert docker_client.images.get(image).attrs["Created"] == made["Created"]


def test_docker_image_is_as_promised(docker_client, image, ftlaunch):
    told = ftlaunch.json("image", "show")
    assert told["labels"]["ftlaunch.lock.sha256"] == Image("cpu").lock_sha256()
    assert told["labels"]["ftlaunch.content.sha256"] == Image("cpu").digest()
    assert told["labels"]["org.opencontainers.image.version"] == version("ftlaunch")
    assert told["bytes"] == sum(layer["bytes"] for layer in told["layers"]) < 2e9
    config = docker_client.images.get(image).attrs["Config"]
    assert config["Entrypoint"] == ["/opt/venv/bin/python", "-m", "training_image"]
    assert config["Cmd"] == ["train"]
    assert config["User"] in ("", "root")
    check = f"{IMPORTS}; import importlib.util as u; assert not u.find_spec('launcher') and not u.find_spec('pip')"
    docker_client.containers.run(
        image, ["-c", check], entrypoint="/opt/venv/bin/python", remove=True, user="4321", network_mode="none"
    )


@pytest.fixture
def built(docker_client):
    """A small image under the name that one on another base would have (the real one is 2 GB), and a new repository."""
    name, repository = Image("cpu", base="a-small-one").reference(), f"{REGISTRY}/ftlaunch-test-{secrets.token_hex(4)}"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(repository.rpartition("-")[2]))
    docker_client.api.import_image_from_data(content.getvalue(), *name.split(":"))
    yield name, repository
    for tag in (name, f"{repository}:{name.partition(':')[2]}", f"{UNREACHABLE}:{name.partition(':')[2]}"):
        with contextlib.suppress(docker.errors.ImageNotFound):  # what failed before it was tagged
            docker_client.images.remove(tag, noprune=True)


def test_docker_pushing_twice_sends_nothing(docker_client, ftlaunch, built):
    name, repository = built
    target = f"{repository}:{name.partition(':')[2]}"
    push = ("image", "push", repository, "--base", "a-small-one")
    assert ftlaunch.json(*push) == {"image": target, "pushed": True, "torch": "cpu"}
    docker_client.images.remove(target, noprune=True)  # as on another machine, where only the registry has it
    assert ftlaunch.json(*push) == {"image": target, "pushed": False, "torch": "cpu"}
    path, _, tag = target.removeprefix(f"{REGISTRY}/").partition(":")
    with urllib.request.urlopen(f"http://{REGISTRY}/v2/{path}/manifests/{tag}") as answer:
        assert json.load(answer)
    docker_client.images.remove(name, noprune=True)
    assert "ftlaunch image build" in ftlaunch(*push, code=3).stderr


def test_docker_a_push_tells_how_far_it_is(docker_client):
    tag, told = f"{secrets.token_hex(8)}:of-a-test", []
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("noise")
        member.size = 3_000_000  # no registry has it yet, nor can it be packed
        tar.addfile(member, io.BytesIO(os.urandom(member.size)))
    docker_client.api.import_image_from_data(archive.getvalue(), repository=tag.partition(":")[0], tag="of-a-test")
    target = f"{REGISTRY}/{tag}"
    try:
        with transfer.shown_by(lambda *each: told.append(each)):
            assert push(tag, target)
    finally:
        for name in (tag, target):
            docker_client.images.remove(name)
    assert {name for name, _, _ in told} == {target}
    assert [sent for _, sent, _ in told] == sorted(sent for _, sent, _ in told)
    assert told[-1][1:] == (told[-1][2], told[-1][2])
    assert told[-1][2] >= 3_000_000


def test_docker_pushing_where_no_registry_answers_says_so(ftlaunch, built):
    done = ftlaunch("image", "push", UNREACHABLE, "--base", "a-small-one", code=3)
    assert "was not pushed" in done.stderr
    assert "docker login 127.0.0.1:9" in done.stderr


def test_docker_image_commands_without_an_engine_or_the_image_say_what_to_do(ftlaunch):
    for host in ("unix:///nowhere/docker.sock", "nonsense://host"):
        assert "--backend local" in ftlaunch("image", "build", code=3, DOCKER_HOST=host).stderr
        shown = ftlaunch("image", "show", DOCKER_HOST=host)
        assert shown.stdout.split() == [Image("cpu").reference()]  # which needs no engine; nothing is said of it there
        assert "no Docker engine answers" in shown.stderr
    assert "image build --torch cuda" in ftlaunch("image", "push", "host/name", "--torch", "cuda", code=3).stderr


def test_docker_push_refuses_what_is_no_repository(ftlaunch):
    for name in ("no-host", "host/UPPER", "host/name:tag", ""):
        assert "names no repository" in ftlaunch("image", "push", name, code=2).stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the project's own wheel was installed into, outside of the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    wheels, site, source = folder / "wheels", folder / "site", folder / "source"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source.mkdir()
    for name in ("launcher", "backends", "training_image", "pyproject.toml", "README.md", "LICENSE", "Dockerfile"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    return site


def test_docker_the_wheel_gives_the_same_image(installed):
    """The same files, so the same name, and nothing to build where the clone has built."""
    assert reference_of(installed) == Image("cpu").reference()
    ours, theirs = Path(training_image.__file__).parent, installed / "training_image"
    assert (theirs / "requirements.cuda.lock").read_bytes() == (ours / "requirements.cuda.lock").read_bytes()
    assert (installed / "launcher" / "Dockerfile").read_bytes() == (ROOT / "Dockerfile").read_bytes()


def test_docker_the_wheel_builds_the_same_image(installed, image):
    """With no clone in sight: what the clone has built is known by its name, and not built again."""
    code = "from launcher.image import Image, build, own_wheels; print(own_wheels(), *build(Image('cpu')))"
    assert told_by(installed, code) == f"None {image} False"


BUNDLE = """
import hashlib
from backends import bundle

name, content = bundle.wheel()
print(bundle.__file__, name)
for each in (content, bundle.lock().read_bytes()):
    print(hashlib.sha256(each).hexdigest())
"""


def test_docker_the_wheel_gives_the_same_bundle(installed):
    """What Colab installs: the training code as a wheel of its own and the lock, byte for byte."""
    where, *told = told_by(installed, BUNDLE).split()
    assert Path(where).is_relative_to(installed)
    name, content = bundle.wheel()
    assert told == [name, hashlib.sha256(content).hexdigest(), hashlib.sha256(bundle.lock().read_bytes()).hexdigest()]
