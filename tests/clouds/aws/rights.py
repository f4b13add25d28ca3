"""IAM: whose key it is, what its policies allow (by moto's policy engine), and SimulatePrincipalPolicy."""

import json
from xml.sax.saxutils import escape

from moto.iam.access_control import IAMPolicy, PermissionResult

from tests.clouds.gateway import Response

ROOT = "AKIAROOTOFTHEACCOUNT"
PASSED = {"iam:PassedToService": "sagemaker.amazonaws.com"}


class Rights:
    """Who may do what. `ROOT` may do all."""

    def __init__(self, iam) -> None:
        """``iam``: a client of the emulator, past every check."""
        self.iam = iam
        self._policies: dict[str, list[str]] = {ROOT: []}
        self.owners: dict[str, str] = {}
        """ARN by access key."""

    def add_user(self, name: str, policy: str) -> dict[str, str]:
        """Make a user with that policy; gives the environment that logs in as it."""
        arn = self.iam.create_user(UserName=name)["User"]["Arn"]
        self.iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=policy)
        key = self.iam.create_access_key(UserName=name)["AccessKey"]
        self._policies[key["AccessKeyId"]] = [policy]
        self.owners[key["AccessKeyId"]] = arn
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def add_key_of_role(self, key: str, arn: str) -> None:
        """Let an access key act as a role (what STS gives to a machine)."""
        self._policies[key] = self._of_role(arn)
        self.owners[key] = arn

    def known(self, key: str) -> bool:
        return key in self._policies

    def allowed(self, key: str, action: str, resource: str) -> bool:
        return key == ROOT or _allows(self._policies.get(key, []), action, resource)

    def role_trusts(self, arn: str, service: str) -> bool:
        try:
            role = self.iam.get_role(RoleName=arn.rpartition("/")[2])["Role"]
        except self.iam.exceptions.NoSuchEntityException:
            return False
        return role["Arn"] == arn and service in json.dumps(role["AssumeRolePolicyDocument"])

    def role_allows(self, arn: str, action: str, resource: str) -> bool:
        return _allows(self._of_role(arn), action, resource)

    def simulate(self, content: dict[str, str]) -> Response:
        """SimulatePrincipalPolicy: the emulator has none, its policy engine decides."""
        arn = content["PolicySourceArn"]
        if ":role/" not in arn or not self._exists(arn):
            return _error(404, "NoSuchEntity", f"{arn} cannot be found.")
        actions = _members(content, "ActionNames")
        resources = _members(content, "ResourceArns") or ["*"]
        results = "".join(
            f"<member><EvalActionName>{escape(action)}</EvalActionName>"
            f"<EvalResourceName>{escape(resource)}</EvalResourceName><EvalDecision>"
            f"{'allowed' if self.role_allows(arn, action, resource) else 'implicitDeny'}</EvalDecision></member>"
            for action in actions
            for resource in resources
        )
        body = (
            '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
            "<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>"
            f"<EvaluationResults>{results}</EvaluationResults></SimulatePrincipalPolicyResult>"
            "</SimulatePrincipalPolicyResponse>"
        )
        return Response(200, [("Content-Type", "text/xml")], body.encode())

    def _exists(self, arn: str) -> bool:
        try:
            return self.iam.get_role(RoleName=arn.rpartition("/")[2])["Role"]["Arn"] == arn
        except self.iam.exceptions.NoSuchEntityException:
            return False

    def _of_role(self, arn: str) -> list[str]:
        name = arn.rpartition("/")[2]
        names = self.iam.list_role_policies(RoleName=name)["PolicyNames"]
        documents = [self.iam.get_role_policy(RoleName=name, PolicyName=each)["PolicyDocument"] for each in names]
        return [json.dumps(document) for document in documents]


def _allows(policies: list[str], action: str, resource: str) -> bool:
    told = [IAMPolicy(policy).is_action_permitted(action, resource, None, PASSED) for policy in policies]
    return PermissionResult.DENIED not in told and PermissionResult.PERMITTED in told


def _members(content: dict[str, str], name: str) -> list[str]:
    return [value for key, value in sorted(content.items()) if key.startswith(f"{name}.member.")]


def _error(status: int, code: str, message: str) -> Response:
    inner = f"<Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
    body = f"<ErrorResponse><Error>{inner}</Error></ErrorResponse>"
    return Response(status, [("Content-Type", "text/xml")], body.encode())
