"""image.extra: the image gets a plug-in's package, and a job whose image lacks its plug-in is refused beforehand."""

import json

import pytest
from docker.errors import ContainerError

from launcher.image import Image, build, layers
from tests.docker.conftest import write_job

PLUGIN = """
from training_image.evaluate.metrics import PerExample

class FirstLetter(PerExample):
    name = "first_letter"
    needs = "label"
    greater_is_better = True

    def score(self, outcome):
        return float(outcome.prediction[:1] == outcome.references[0][:1])
"""
EXTRA = "iniconfig==2.1.0 --hash=sha256:9deba5723312380e77435581c6bf4935c94cbfab9b1ed33ef8d238ea168eb760\n"


@pytest.fixture
def plugin(tmp_path):
    """A folder with an installed package that brings a metric."""
    folder = tmp_path / "site"
    info = folder / "ftlaunch_first_letter-0.1.dist-info"
    info.mkdir(parents=True)
    (folder / "first_letter.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ftlaunch-first-letter\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[ftlaunch.metrics]\nfirst = first_letter:FirstLetter\n")
    return folder


@pytest.mark.parametrize(
    ("backend", "extra"), [("local", None), ("docker", "iniconfig"), ("docker", "ftlaunch.first_letter")]
)
def test_docker_check_finds_a_plugin_that_the_image_lacks(ftlaunch, plugin, backend, extra):
    job = write_job(ftlaunch.folder / "birds")
    sets = ["--set", "task.metric=first_letter"]
    if extra:
        (ftlaunch.folder / "birds" / "extra.txt").write_text(f"{extra}==0.1 --hash=sha256:{'0' * 64}\n")
        sets += ["--set", "image.extra=extra.txt"]
    lacking = backend == "docker" and extra != "ftlaunch.first_letter"
    code = 2 if lacking else 0
    done = ftlaunch("check", job, "--backend", backend, *sets, "--json", code=code, PYTHONPATH=str(plugin))
    found = [finding["code"] for finding in json.loads(done.stdout)["findings"] if finding["level"] == "error"]
    assert found == (["plugin"] if lacking else [])


def test_docker_a_job_without_its_plugin_is_not_started(ftlaunch, plugin):
    job = write_job(ftlaunch.folder / "birds")
    sets = ["--set", "task.metric=first_letter"]
    done = ftlaunch(
        "run", job, "--backend", "docker", *sets, code=2, PYTHONPATH=str(plugin), DOCKER_HOST="tcp://nowhere"
    )
    assert "ftlaunch-first-letter" in done.stderr
    assert "image.extra" in done.stderr


def test_docker_extra_is_a_layer_of_its_own(tmp_path, docker_client, image):
    extra = tmp_path / "extra.txt"
    extra.write_text(EXTRA)
    name, _ = build(Image("cpu", extra), quiet=True)
    assert name != image
    done = docker_client.containers.run(
        name,
        ["-c", "import iniconfig, torch; print(iniconfig.__name__)"],
        entrypoint="/opt/venv/bin/python",
        remove=True,
    )
    assert done == b"iniconfig\n"
    assert len(layers(name)) == len(layers(image)) + 1
    with pytest.raises(ContainerError, match="iniconfig"):
        docker_client.containers.run(image, ["-c", "import iniconfig"], entrypoint="/opt/venv/bin/python", remove=True)


@pytest.mark.parametrize("text", ["iniconfig==2.1.0\n", None])
def test_docker_extra_without_hashes_or_file_is_wrong_input(ftlaunch, text):
    job = write_job(ftlaunch.folder / "birds")
    if text:
        (ftlaunch.folder / "birds" / "extra.txt").write_text(text)
    done = ftlaunch(
        "run",
        job,
        "--backend",
        "docker",
        "--dry-run",
        "--set",
        "image.extra=extra.txt",
        code=2,
        DOCKER_HOST="tcp://nowhere",
    )
    assert "image.extra" in done.stderr
