"""Messages as plain values: what `gale-ctl -o json` prints, with the names of proto/gale/v1/api.proto.

Every field is there: an optional one that is absent is None, a list or map may be empty; maps are sorted. Numbers stay
numbers, which protobuf's own JSON would write as text where they may be large.
"""

from typing import Any

from google.protobuf.message import Message


def plain(message: Message) -> dict[str, Any]:
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def parts_plain(answer: Any) -> list[dict[str, Any]]:
    """What each load balancer says, of an answer that has one part for each."""
    return [plain(part) for part in answer.load_balancers]


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    kind = field.message_type
    if kind and kind.GetOptions().map_entry:
        return {key: _value(value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_value(each) for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(value)


def _value(value: Any) -> Any:
    return plain(value) if isinstance(value, Message) else value
