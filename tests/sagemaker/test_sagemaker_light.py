"""Nothing of the vendor is imported before a verb of SageMaker's runs."""

import subprocess
import sys

import pytest

VENDOR = ("boto3", "botocore", "sagemaker", "s3transfer", "docker", "moto")


@pytest.mark.parametrize(
    "code",
    [
        "import backends.sagemaker",
        "from backends.sagemaker import SageMaker; list(SageMaker.create().offers(None))",
        "from backends import registry; registry.load('sagemaker'); registry.every()",
        "from launcher.cli import call; call(['--help'])",
        "from tests.sagemaker.test_sagemaker_request import request; request()",
    ],
    ids=["import", "offers", "registry", "help", "plan"],
)
def test_sagemaker_imports_no_vendor(code):
    if code.startswith("from tests"):
        code = code.replace(
            "request()", "before = set(sys.modules); request(); sys.modules = set(sys.modules) - before"
        )
    script = f"import sys\n{code}\nprint([name for name in {VENDOR!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
