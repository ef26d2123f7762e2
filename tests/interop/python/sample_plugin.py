"""The sample plugin on grpcio, written from the manual alone: no SDK, no generated code.

It serves sample.v1.Sample of tests/sample/proto, versions 1 to 3, and shows what a plugin in another language does by
hand: read `main`, then `serve`, beside the checklist of the manual's page on other languages.
"""

import asyncio
import base64
import collections
import datetime
import functools
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import traceback

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue, StringValue, UInt32Value

COOKIE = ("SAMPLE_PLUGIN", "a-sample-plugin-for-tests")
VERSIONS = {1, 2, 3}
NOT_BY_HAND = "This program is a plugin: its host starts it. Give the host the path of this file.\n"

DRAIN_SECONDS = 1
BROKER_SECONDS = 5
CHUNK_BYTES = 1024
BUFFERED_CHUNKS = 1024
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103

# Long error texts travel in trailers, for which gRPC-core's own limit is 16 KiB.
OPTIONS = [("grpc.max_metadata_size", 16 << 20), ("grpc.absolute_max_metadata_size", 16 << 20)]

log = logging.getLogger("sample")


# Messages of go-plugin and of the health service, described here because nothing is generated.

FILES = """
file {
  name: "plugin.proto" package: "plugin" syntax: "proto3"
  message_type { name: "Empty" }
  message_type {
    name: "ConnInfo"
    field { name: "service_id" number: 1 type: TYPE_UINT32 }
    field { name: "network" number: 2 type: TYPE_STRING }
    field { name: "address" number: 3 type: TYPE_STRING }
    field { name: "knock" number: 4 type: TYPE_MESSAGE type_name: ".plugin.ConnInfo.Knock" }
    nested_type {
      name: "Knock"
      field { name: "knock" number: 1 type: TYPE_BOOL }
      field { name: "ack" number: 2 type: TYPE_BOOL }
      field { name: "error" number: 3 type: TYPE_STRING }
    }
  }
  message_type {
    name: "StdioData"
    field { name: "channel" number: 1 type: TYPE_ENUM type_name: ".plugin.StdioData.Channel" }
    field { name: "data" number: 2 type: TYPE_BYTES }
    enum_type {
      name: "Channel"
      value { name: "INVALID" number: 0 } value { name: "STDOUT" number: 1 } value { name: "STDERR" number: 2 }
    }
  }
}
file {
  name: "health.proto" package: "grpc.health.v1" syntax: "proto3"
  message_type { name: "HealthCheckRequest" field { name: "service" number: 1 type: TYPE_STRING } }
  message_type {
    name: "HealthCheckResponse"
    field { name: "status" number: 1 type: TYPE_ENUM type_name: ".grpc.health.v1.ServingStatus" }
  }
  enum_type {
    name: "ServingStatus"
    value { name: "UNKNOWN" number: 0 } value { name: "SERVING" number: 1 }
    value { name: "NOT_SERVING" number: 2 } value { name: "SERVICE_UNKNOWN" number: 3 }
  }
}
"""


def message_classes():
    pool = descriptor_pool.DescriptorPool()
    for file in text_format.Parse(FILES, descriptor_pb2.FileDescriptorSet()).file:
        pool.Add(file)
    names = ["plugin.Empty", "plugin.ConnInfo", "plugin.StdioData"]
    names += ["grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse"]
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names]


PluginEmpty, ConnInfo, StdioData, HealthCheckRequest, HealthCheckResponse = message_classes()
SERVING, SERVICE_UNKNOWN = 1, 3
STDOUT = 1


class Hclog(logging.Handler):
    """One hclog JSON object a line, in one write, and never an error: the host may have gone."""

    def emit(self, record):
        when = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        entry = {
            "@level": record.levelname.lower().replace("warning", "warn").replace("critical", "error"),
            # A character takes up to twelve bytes in JSON, and a line may have 65,536.
            "@message": record.getMessage()[:5000],
            "@module": record.name,
            "@timestamp": when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            **getattr(record, "pairs", {}),
        }
        try:
            os.write(2, (json.dumps(entry) + "\n").encode())
        except OSError:
            pass


def setting(name):
    """A variable of the offer; an empty one counts as unset."""
    return os.environ.get(name) or None


def negotiated_version():
    offered = set()
    for entry in (setting("PLUGIN_PROTOCOL_VERSIONS") or "").split(","):
        if entry.strip().isdecimal():
            offered.add(int(entry))
        elif entry.strip():
            log.warning("the version list has an entry that is no number", extra={"pairs": {"entry": entry}})
    return max(VERSIONS & offered, default=min(VERSIONS))


class AutoMtls:
    """A key and a certificate for this start, and the one peer that is accepted."""

    def __init__(self, host_certificate):
        host = x509.load_pem_x509_certificate(host_certificate.encode())
        self.host = host.public_bytes(serialization.Encoding.PEM)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name.from_rfc4514_string("CN=localhost,O=sample")
        now = datetime.datetime.now(datetime.timezone.utc)
        usage = dict.fromkeys(
            ["content_commitment", "data_encipherment", "crl_sign", "encipher_only", "decipher_only"], False
        )
        roles = [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH, x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(seconds=30))
            .not_valid_after(now + datetime.timedelta(days=365 * 30))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_encipherment=True, key_agreement=True, key_cert_sign=True, **usage
                ),
                critical=True,
            )
            .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
        )
        self.certificate = builder.sign(key, hashes.SHA256())
        self.own = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # gRPC-core cannot check signatures by P-521 keys, which go-plugin's hosts have. It then has to do without
        # knowing its host, and rely on the socket being closed to other users.
        self.host_is_verifiable = host.public_key().curve.name != "secp521r1"
        if not self.host_is_verifiable:
            log.warning("the host's P-521 certificate cannot be verified with gRPC-core")

    def field(self):
        """Field 6 of the handshake line."""
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        return base64.b64encode(der).decode().rstrip("=")

    def server(self):
        verify = self.host_is_verifiable
        return grpc.ssl_server_credentials([(self.key, self.own)], self.host if verify else None, verify)

    def client(self):
        return grpc.ssl_channel_credentials(self.host, self.key, self.own)


def handlers(service, methods):
    """Generic handlers of one service: `methods` has, by name, the kind, the function and the two message classes."""
    kinds = {
        "unary": grpc.unary_unary_rpc_method_handler,
        "server stream": grpc.unary_stream_rpc_method_handler,
        "both stream": grpc.stream_stream_rpc_method_handler,
    }
    made = {
        name: kinds[kind](
            guarded(function) if kind == "unary" else function,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        for name, (kind, function, request, response) in methods.items()
    }
    return grpc.method_handlers_generic_handler(service, made)


def guarded(function):
    """An exception is an INTERNAL status with its text, and a line in the log."""

    async def call(request, context):
        try:
            return await function(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            log.error("a call failed: %s", traceback.format_exc())
            await context.abort(grpc.StatusCode.INTERNAL, str(error))

    return call


class Sockets:
    """Servers and connections, all secured alike; the main one and the broker's."""

    def __init__(self, tls):
        self.tls = tls
        self.directory = setting("PLUGIN_UNIX_SOCKET_DIR") or tempfile.gettempdir()
        self.group = setting("PLUGIN_UNIX_SOCKET_GROUP")
        self.paths = []

    async def serve(self, *services):
        path = os.path.join(self.directory, f"plugin{random.getrandbits(32)}")
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise OSError(f"the path {path} is too long for a socket: choose a shorter directory")
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers(services)
        # For this user alone, wherever the directory is.
        mask = os.umask(0o077)
        try:
            if self.tls:
                server.add_secure_port(f"unix:{path}", self.tls.server())
            else:
                server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(mask)
        await server.start()
        self.paths.append(path)
        if self.group:
            shutil.chown(path, group=int(self.group) if self.group.isdecimal() else self.group)
            os.chmod(path, 0o660)
        return server, path

    def connect(self, network, address):
        if network == "tcp":
            target = f"dns:{address}"
        elif network == "unix" and address.startswith("@"):
            target = f"unix-abstract:{address[1:]}"
        elif network == "unix":
            target = f"unix:{address}"
        else:
            raise ValueError(f"the network {network!r} is neither unix nor tcp")
        if self.tls:
            options = [*OPTIONS, ("grpc.ssl_target_name_override", "localhost")]
            return grpc.aio.secure_channel(target, self.tls.client(), options)
        return grpc.aio.insecure_channel(target, [*OPTIONS, ("grpc.default_authority", "localhost")])

    def remove(self):
        for path in self.paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


class Broker:
    """GRPCBroker without multiplexing. There is one host, so one StartStream at a time."""

    def __init__(self, sockets):
        self.sockets = sockets
        self.outgoing = asyncio.Queue()
        self.announced = {}
        self.last_id = 0
        self.servers = []

    def services(self):
        return handlers("plugin.GRPCBroker", {"StartStream": ("both stream", self.start_stream, ConnInfo, ConnInfo)})

    async def start_stream(self, incoming, context):
        reading = asyncio.create_task(self.read(incoming))
        try:
            while (info := await self.outgoing.get()) is not None:
                yield info
        finally:
            reading.cancel()

    async def read(self, incoming):
        async for info in incoming:
            slot = self.slot(info.service_id)
            if not slot.done():
                slot.set_result((info.network, info.address))
                asyncio.get_running_loop().call_later(BROKER_SECONDS, self.forget, info.service_id, slot)

    def slot(self, number):
        return self.announced.setdefault(number, asyncio.get_running_loop().create_future())

    def forget(self, number, slot):
        if self.announced.get(number) is slot:
            del self.announced[number]

    async def dial(self, number):
        slot = self.slot(number)
        try:
            network, address = await asyncio.wait_for(asyncio.shield(slot), BROKER_SECONDS)
        finally:
            # An announcement is good for one dial.
            self.forget(number, slot)
        return self.sockets.connect(network, address)

    async def lend(self, *services):
        self.last_id += 1
        number = self.last_id
        server, path = await self.sockets.serve(*services)
        self.servers.append(server)
        await self.outgoing.put(ConnInfo(service_id=number, network="unix", address=path))
        return number

    async def end(self):
        await self.outgoing.put(None)
        await asyncio.gather(*(server.stop(DRAIN_SECONDS) for server in self.servers))


class Stdio:
    """Descriptor 1 from now on, as a stream of chunks. The plugin never waits for a host that does not read."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.chunks = collections.deque(maxlen=BUFFERED_CHUNKS)
        self.changed = asyncio.Event()
        self.ended = False
        self.reader = None

    def services(self):
        return handlers("plugin.GRPCStdio", {"StreamStdio": ("server stream", self.stream, Empty, StdioData)})

    def capture(self):
        sys.stdout.flush()
        # The end of the pipe on which the line went out stays open: a host may take its end for ours.
        os.dup(1)
        read, write = os.pipe()
        os.dup2(write, 1)
        os.close(write)
        sys.stdout.reconfigure(line_buffering=True)
        self.reader = threading.Thread(target=self.copy, args=[read], daemon=True)
        self.reader.start()

    def copy(self, read):
        while data := os.read(read, CHUNK_BYTES):
            self.loop.call_soon_threadsafe(self.add, data)
        self.loop.call_soon_threadsafe(self.end)

    def add(self, data):
        self.chunks.append(data)
        self.changed.set()

    def end(self):
        self.ended = True
        self.changed.set()

    async def stream(self, request, context):
        while True:
            while self.chunks:
                yield StdioData(channel=STDOUT, data=self.chunks.popleft())
            if self.ended:
                return
            self.changed.clear()
            await self.changed.wait()

    async def finish(self):
        """Everything that was printed is on its way when this returns; what is printed later is thrown away."""
        sys.stdout.flush()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        # A child process may hold the pipe open.
        await self.loop.run_in_executor(None, self.reader.join, 0.2)
        self.end()


class Health:
    """`plugin` and the whole server are well until the end."""

    def __init__(self, stopping):
        self.stopping = stopping

    def services(self):
        check = ("unary", self.check, HealthCheckRequest, HealthCheckResponse)
        watch = ("server stream", self.watch, HealthCheckRequest, HealthCheckResponse)
        return handlers("grpc.health.v1.Health", {"Check": check, "Watch": watch})

    async def check(self, request, context):
        if request.service not in ("", "plugin"):
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=SERVING)

    async def watch(self, request, context):
        known = request.service in ("", "plugin")
        yield HealthCheckResponse(status=SERVING if known else SERVICE_UNKNOWN)
        await self.stopping.wait()


class Controller:
    def __init__(self, stopping):
        self.stopping = stopping

    def services(self):
        return handlers("plugin.GRPCController", {"Shutdown": ("unary", self.shutdown, PluginEmpty, PluginEmpty)})

    async def shutdown(self, request, context):
        self.stopping.set()
        return PluginEmpty()


class Sample:
    """The application's own service."""

    def __init__(self, version, broker):
        self.version = version
        self.broker = broker
        self.cancelled_calls = 0

    def services(self):
        methods = {
            "Echo": ("unary", self.echo, BytesValue, BytesValue),
            "Chat": ("both stream", self.chat, StringValue, StringValue),
            "Who": ("unary", self.who, Empty, StringValue),
            "Env": ("unary", self.env, StringValue, StringValue),
            "Print": ("unary", self.print, StringValue, Empty),
            "Log": ("unary", self.log, StringValue, Empty),
            "CallBack": ("unary", self.call_back, UInt32Value, BytesValue),
            "Lend": ("unary", self.lend, Empty, UInt32Value),
            "Hang": ("unary", self.hang, Empty, Empty),
            "Cancelled": ("unary", self.cancelled, Empty, UInt32Value),
            "Die": ("unary", self.die, StringValue, Empty),
        }
        return handlers("sample.v1.Sample", methods)

    async def echo(self, request, context):
        return request

    async def chat(self, incoming, context):
        async for text in incoming:
            yield text

    async def who(self, request, context):
        return StringValue(value=f"python {self.version}")

    async def env(self, request, context):
        value = os.environ.get(request.value)
        if value is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not set")
        return StringValue(value=value)

    async def print(self, request, context):
        print(request.value)
        return Empty()

    async def log(self, request, context):
        log.warning("%s", request.value, extra={"pairs": {"answer": 42}})
        return Empty()

    async def call_back(self, request, context):
        try:
            channel = await self.broker.dial(request.value)
        except asyncio.TimeoutError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"nothing was offered under id {request.value}")
        async with channel:
            echo = channel.unary_unary(
                "/sample.v1.Sample/Echo",
                request_serializer=BytesValue.SerializeToString,
                response_deserializer=BytesValue.FromString,
            )
            return await echo(BytesValue(value=b"from plugin"), timeout=BROKER_SECONDS)

    async def lend(self, request, context):
        return UInt32Value(value=await self.broker.lend(self.services()))

    async def hang(self, request, context):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled_calls += 1
            raise

    async def cancelled(self, request, context):
        return UInt32Value(value=self.cancelled_calls)

    async def die(self, request, context):
        how, _, detail = request.value.partition(" ")
        if how == "exit":
            os._exit(int(detail))
        elif how == "panic":
            raise RuntimeError(detail)
        elif how == "abort":
            os.abort()
        elif how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            return Empty()
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"cannot die by {how!r}")


async def host_gone(parent):
    """Ends when another process has taken the parent's place."""
    while os.getppid() == parent:
        await asyncio.sleep(1)


def stdin_ended(tell):
    """Reads to the end, which is the host's: no other bytes ever come."""
    try:
        while os.read(0, 1024):
            pass
    except OSError:
        return
    tell()


async def serve(parent):
    version = negotiated_version()
    certificate = setting("PLUGIN_CLIENT_CERT")
    tls = AutoMtls(certificate) if certificate else None
    stopping = asyncio.Event()
    sockets = Sockets(tls)
    broker = Broker(sockets)
    stdio = Stdio()
    services = [Sample(version, broker), Health(stopping), Controller(stopping), stdio, broker]
    try:
        server, path = await sockets.serve(*(service.services() for service in services))
        loop = asyncio.get_running_loop()
        # On Ctrl-C the host decides when its plugins end; SIGTERM means the same as Shutdown.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        line = f"1|{version}|unix|{path}|grpc|{tls.field() if tls else ''}"
        if setting("PLUGIN_MULTIPLEX_GRPC"):
            line += "|false"
        print(line, flush=True)
        stdio.capture()
        if setting("PLUGIN_HOST_LIFELINE") == "stdin":
            tell = functools.partial(loop.call_soon_threadsafe, stopping.set)
            threading.Thread(target=stdin_ended, args=(tell,), daemon=True).start()
        reasons = [asyncio.create_task(stopping.wait()), asyncio.create_task(host_gone(parent))]
        await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        # From here on the streams that the host keeps open end by themselves, so that the server can.
        stopping.set()
        await stdio.finish()
        await asyncio.gather(broker.end(), server.stop(DRAIN_SECONDS))
    finally:
        sockets.remove()


def main():
    # First of all: a host that dies before this is not noticed.
    parent = os.getppid()
    key, value = COOKIE
    if os.environ.get(key) != value:
        sys.stderr.write(NOT_BY_HAND)
        return 1
    logging.basicConfig(level=logging.INFO, handlers=[Hclog()])
    try:
        asyncio.run(serve(parent))
    except Exception as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
