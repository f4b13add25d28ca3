"""The Jupyter server of a machine as Colab's proxy shows it: rooted at /, behind the runtime's proxy token."""

import os

from jupyter_server.auth.identity import IdentityProvider


class Proxied(IdentityProvider):
    """Takes the token as Colab's clients send it."""

    def get_token(self, handler):
        header = handler.request.headers.get("X-Colab-Runtime-Proxy-Token")
        return handler.get_argument("colab-runtime-proxy-token", "") or header or super().get_token(handler)


c = get_config()  # noqa: F821
c.ServerApp.identity_provider_class = Proxied
c.IdentityProvider.token = os.environ["LOOPBACK_PROXY_TOKEN"]
c.ServerApp.ip = "0.0.0.0"
c.ServerApp.port = 8080
c.ServerApp.root_dir = "/"
c.ServerApp.allow_root = True
c.ServerApp.allow_remote_access = True
c.ServerApp.open_browser = False
c.ServerApp.log_level = "WARN"
