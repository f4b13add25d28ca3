"""Nothing of the vendor is imported before a verb of Azure ML's runs."""

import subprocess
import sys

import pytest

VENDOR = ("azure", "msal", "msrest", "docker", "requests")


@pytest.mark.parametrize(
    "code",
    [
        "import backends.azureml",
        "from backends.azureml import AzureML; list(AzureML.create().offers(None))",
        "from backends import registry; registry.load('azureml'); registry.every()",
        "from launcher.cli import call; call(['--help'])",
    ],
    ids=["import", "offers", "registry", "help"],
)
def test_azureml_imports_no_vendor(code):
    script = f"import sys\n{code}\nprint([name for name in {VENDOR!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
