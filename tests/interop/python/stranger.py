"""Connects to a plugin's socket over TLS without a certificate. Exits with code 0 if it is turned away."""

import socket
import ssl
import sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(10)
connection.connect(sys.argv[1])
try:
    # A client of TLS 1.3 learns with the first byte that it was refused.
    welcome = context.wrap_socket(connection).recv(1)
except (ssl.SSLError, ConnectionError):
    welcome = b""
# An HTTP/2 server that lets a client in speaks first.
if welcome:
    sys.exit(f"the plugin answered with {welcome}")
