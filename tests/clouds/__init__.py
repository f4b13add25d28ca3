"""Loopback clouds: the vendors' own SDKs, unmodified and over real HTTPS, against servers on this machine that really
run the container.

`authority` a throw-away certificate authority, `gateway` the CONNECT proxy that maps real host names to local servers
and refuses all else, `front` a cloud's registry host before a real registry, `containers` the machines, `aws` the first
cloud. Nothing here imports the launcher or its backends, and no file here holds a result.
"""
