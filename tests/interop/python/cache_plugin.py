"""A cache plugin on grpcio with the two mandatory methods of proto/cache/v1/cache.proto: Get and Set, and no more.
With --many it has GetMany and SetMany as well.

What a plugin does beside its own service is in sample_plugin.py. Entries never expire, which a cache may not do.
"""

import sys

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

# Nothing is written beside the sources.
sys.dont_write_bytecode = True

import sample_plugin

# What of the contract's messages is needed; unknown fields are skipped.
FILE = """
name: "cache.proto" package: "cache.v1" syntax: "proto3"
message_type { name: "GetRequest" field { name: "key" number: 1 type: TYPE_STRING } }
message_type { name: "Hit" field { name: "value" number: 1 type: TYPE_BYTES } }
message_type { name: "Miss" field { name: "reason" number: 1 type: TYPE_INT32 } }
message_type {
  name: "GetResponse"
  field { name: "hit" number: 1 type: TYPE_MESSAGE type_name: ".cache.v1.Hit" oneof_index: 0 }
  field { name: "miss" number: 2 type: TYPE_MESSAGE type_name: ".cache.v1.Miss" oneof_index: 0 }
  oneof_decl { name: "outcome" }
}
message_type {
  name: "SetRequest"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type: TYPE_BYTES }
}
message_type { name: "SetResponse" }
message_type { name: "GetManyRequest" field { name: "keys" number: 1 type: TYPE_STRING label: LABEL_REPEATED } }
message_type {
  name: "GetManyResponse"
  field { name: "results" number: 1 type: TYPE_MESSAGE type_name: ".cache.v1.GetResponse" label: LABEL_REPEATED }
}
message_type {
  name: "SetManyRequest"
  field { name: "entries" number: 1 type: TYPE_MESSAGE type_name: ".cache.v1.SetRequest" label: LABEL_REPEATED }
}
message_type { name: "SetManyResponse" }
"""


def message(name):
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"cache.v1.{name}"))


POOL = descriptor_pool.DescriptorPool()
POOL.Add(text_format.Parse(FILE, descriptor_pb2.FileDescriptorProto()))
GetRequest, GetResponse, Hit, Miss = map(message, ["GetRequest", "GetResponse", "Hit", "Miss"])
SetRequest, SetResponse = map(message, ["SetRequest", "SetResponse"])
GetManyRequest, GetManyResponse = map(message, ["GetManyRequest", "GetManyResponse"])
SetManyRequest, SetManyResponse = map(message, ["SetManyRequest", "SetManyResponse"])
NOT_FOUND = 1


class Cache:
    def __init__(self, version, broker):
        self.entries = {}

    def services(self):
        methods = {
            "Get": ("unary", self.get, GetRequest, GetResponse),
            "Set": ("unary", self.set, SetRequest, SetResponse),
        }
        if "--many" in sys.argv:
            methods |= {
                "GetMany": ("unary", self.get_many, GetManyRequest, GetManyResponse),
                "SetMany": ("unary", self.set_many, SetManyRequest, SetManyResponse),
            }
        return sample_plugin.handlers("cache.v1.Cache", methods)

    def look_up(self, key):
        if key in self.entries:
            return GetResponse(hit=Hit(value=self.entries[key]))
        return GetResponse(miss=Miss(reason=NOT_FOUND))

    async def get(self, request, context):
        return self.look_up(request.key)

    async def set(self, request, context):
        self.entries[request.key] = request.value
        return SetResponse()

    async def get_many(self, request, context):
        return GetManyResponse(results=map(self.look_up, request.keys))

    async def set_many(self, request, context):
        self.entries.update((entry.key, entry.value) for entry in request.entries)
        return SetManyResponse()


if __name__ == "__main__":
    sample_plugin.COOKIE = ("FIB_CACHE_PLUGIN", "7d0d6f2c9b1e4a53a1f8c2e94b7630de")
    sample_plugin.VERSIONS = {1}
    sample_plugin.Sample = Cache
    sys.exit(sample_plugin.main())
