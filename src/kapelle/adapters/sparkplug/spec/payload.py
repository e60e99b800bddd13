"""The payload message, as far as a host reads and writes it.

Numbers, names and types of the fields are those of the Sparkplug specification 3.0.0, 6.4.1. They
are entered here by hand: the published `.proto` file is under EPL-2.0, this project is not. What is
left out (metadata, properties, what is inside data sets and templates) is passed over when it is
read.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PAYLOAD = (
    ("timestamp", 1, _Field.TYPE_UINT64),
    ("seq", 3, _Field.TYPE_UINT64),
    ("uuid", 4, _Field.TYPE_BYTES),
)
_METRIC = (
    # Bytes on the wire are the same as text, and bytes need not be UTF-8.
    ("name", 1, _Field.TYPE_BYTES),
    ("alias", 2, _Field.TYPE_UINT64),
    ("timestamp", 3, _Field.TYPE_UINT64),
    ("datatype", 4, _Field.TYPE_UINT32),
    ("is_historical", 5, _Field.TYPE_BOOL),
    ("is_null", 7, _Field.TYPE_BOOL),
)
VALUES = (
    ("int_value", 10, _Field.TYPE_UINT32),
    ("long_value", 11, _Field.TYPE_UINT64),
    ("float_value", 12, _Field.TYPE_FLOAT),
    ("double_value", 13, _Field.TYPE_DOUBLE),
    ("boolean_value", 14, _Field.TYPE_BOOL),
)
"""Of `oneof value`, those that are numbers."""
OTHERS = {
    "string_value": (15, "a text"),
    "bytes_value": (16, "bytes"),
    "dataset_value": (17, "a data set"),
    "template_value": (18, "a template"),
    "extension_value": (19, "an extension"),
}
"""And those that are not: only that there is one is read."""


def _message_class() -> type:
    file = descriptor_pb2.FileDescriptorProto(
        name="kapelle/sparkplug.proto", package="kapelle.sparkplug", syntax="proto2"
    )
    payload = file.message_type.add(name="Payload")
    metric = file.message_type.add(name="Metric")
    optional = _Field.LABEL_OPTIONAL
    for name, number, kind in _PAYLOAD:
        payload.field.add(name=name, number=number, type=kind, label=optional)
    payload.field.add(
        name="metrics",
        number=2,
        type=_Field.TYPE_MESSAGE,
        type_name=".kapelle.sparkplug.Metric",
        label=_Field.LABEL_REPEATED,
    )
    for name, number, kind in _METRIC:
        metric.field.add(name=name, number=number, type=kind, label=optional)
    metric.oneof_decl.add(name="value")
    for name, number, kind in VALUES:
        metric.field.add(name=name, number=number, type=kind, label=optional, oneof_index=0)
    for name, (number, _) in OTHERS.items():
        metric.field.add(
            name=name, number=number, type=_Field.TYPE_BYTES, label=optional, oneof_index=0
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("kapelle.sparkplug.Payload")
    )
    return found


PayloadMessage = _message_class()
"""Parses with `FromString`, writes with `SerializeToString`."""
