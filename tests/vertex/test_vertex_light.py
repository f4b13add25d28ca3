"""Nothing of Google's libraries is imported before a verb of Vertex AI's runs."""

import subprocess
import sys

import pytest

VENDOR = ("google.auth", "google.api_core", "google.cloud.storage", "proto", "grpc", "requests", "docker", "nbformat")
"""Not ``google`` itself: a package of Google's makes that namespace at the start of every interpreter."""


@pytest.mark.parametrize(
    "code",
    [
        "import backends.vertex",
        "from backends.vertex import Vertex; list(Vertex.create().offers(None))",
        "from backends import registry; registry.every()",
        "from launcher.cli import call; call(['--help'])",
    ],
    ids=["import", "offers", "registry", "help"],
)
def test_vertex_imports_no_vendor(code):
    script = f"import sys\n{code}\nprint([name for name in {VENDOR!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
