"""Nothing of the vendor is imported before a verb of SageMaker's runs."""

import subprocess
import sys

import pytest

from tests.sagemaker.test_sagemaker_request import submission

VENDOR = ("boto3", "botocore", "sagemaker", "s3transfer", "docker", "moto")
PLAN = """
from backends.interface import Submission
from backends.sagemaker import SageMaker
assert SageMaker.create().plan(Submission.model_validate_json(sys.argv[1])).request
"""


@pytest.mark.parametrize(
    "code",
    [
        "import backends.sagemaker",
        "from backends.sagemaker import SageMaker; list(SageMaker.create().offers(None))",
        "from backends import registry; registry.load('sagemaker'); registry.every()",
        "from launcher.cli import call; call(['--help'])",
        PLAN,
    ],
    ids=["import", "offers", "registry", "help", "plan"],
)
def test_sagemaker_imports_no_vendor(code):
    script = f"import sys\n{code}\nprint([name for name in {VENDOR!r} if name in sys.modules])"
    asked = [sys.executable, "-c", script, submission().model_dump_json(by_alias=True)]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
