"""An account in which a user has the policies of docs/ and no more, and a process that is logged in as that user."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from tests.clouds.aws import Aws, loopback_aws
from tests.clouds.loopback import own_folder

DOCS = Path(__file__).parents[3] / "docs"
POLICY = DOCS / "sagemaker-policy.json"
ROLE_POLICY = DOCS / "sagemaker-role-policy.json"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def policy_in_vpc() -> dict:
    """The role's policy with the statements that docs/sagemaker.md adds for VPC and KMS."""
    policy = json.loads(ROLE_POLICY.read_text())
    page = (DOCS / "sagemaker.md").read_text()
    policy["Statement"] += json.loads(re.search(r"```json\n(\[.*?\])\n```", page, re.DOTALL)[1])
    return policy


@contextlib.contextmanager
def logged_in(home: Path) -> Iterator[Aws]:
    """While this lasts, this process and its children reach the account, and no host outside of it; fails if one was
    asked for. ``home``: the launcher's own folder. The cloud's `role` is the ARN that jobs run as, `user` the keys."""
    with own_folder("aws") as folder, loopback_aws(folder) as cloud:
        name = "ftlaunch-training"
        role = cloud.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
        cloud.iam.put_role_policy(RoleName=name, PolicyName="policy", PolicyDocument=ROLE_POLICY.read_text())
        cloud.role = role["Role"]["Arn"]
        cloud.user = cloud.rights.add_user("launcher", POLICY.read_text())
        cloud.images.front.forget("ftlaunch")
        with cloud.reached_from_here(home, cloud.user, ("AWS_",)):
            yield cloud
