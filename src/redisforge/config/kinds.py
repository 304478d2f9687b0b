"""The kinds of text that options hold, each with its check and its JSON Schema."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from redisforge.config import values

_TEXT_OR_NUMBER = ["string", "number"]
_OPTIONAL_USER_PATTERN = f"^(|{values.USER_NAME_PATTERN.strip('^$')})$"
_SERVICE_PATTERN = r"^(systemd|docker):[A-Za-z0-9][A-Za-z0-9@._:-]{0,200}$"
_SIMPLE = {"type": ["string", "number", "boolean"]}

Name = Annotated[
    str,
    AfterValidator(values.matching(values.NAME_PATTERN, "at most 31 lower-case letters, digits and hyphens")),
    WithJsonSchema({"type": "string", "pattern": values.NAME_PATTERN}),
]
HostName = Annotated[
    str,
    BeforeValidator(values.as_written),
    AfterValidator(values.matching(values.HOST_NAME_PATTERN, "at most 63 letters, digits, '.', '_' and '-'")),
    WithJsonSchema({"type": _TEXT_OR_NUMBER, "pattern": values.HOST_NAME_PATTERN}),
]
LabelText = Annotated[
    str,
    BeforeValidator(values.as_written),
    AfterValidator(values.matching(values.LABEL_PATTERN, "one line of at most 200 characters")),
    WithJsonSchema({"type": _TEXT_OR_NUMBER, "pattern": values.LABEL_PATTERN}),
]
UserName = Annotated[
    str,
    AfterValidator(values.matching(values.USER_NAME_PATTERN, "at most 63 letters, digits, '.', '_' and '-'")),
    WithJsonSchema({"type": "string", "pattern": values.USER_NAME_PATTERN}),
]
OptionalUserName = Annotated[
    str,
    AfterValidator(values.matching(_OPTIONAL_USER_PATTERN, "at most 63 letters, digits, '.', '_' and '-'")),
    WithJsonSchema({"type": "string", "pattern": _OPTIONAL_USER_PATTERN}),
]
ServiceName = Annotated[
    str,
    AfterValidator(values.matching(_SERVICE_PATTERN, "systemd:UNIT or docker:CONTAINER")),
    WithJsonSchema({"type": "string", "pattern": _SERVICE_PATTERN}),
]
Version = Annotated[
    str,
    BeforeValidator(values.as_written),
    AfterValidator(
        values.matching(values.VERSION_PATTERN, '"newest", a series such as "8.6", or a floor such as ">=8.2"')
    ),
    WithJsonSchema({"type": _TEXT_OR_NUMBER, "pattern": values.VERSION_PATTERN}),
]
MemorySize = Annotated[
    str,
    BeforeValidator(values.as_written),
    AfterValidator(values.check_memory),
    WithJsonSchema({"type": _TEXT_OR_NUMBER, "pattern": values.SIZE_PATTERN}),
]
LimitSize = Annotated[
    str,
    BeforeValidator(values.as_written),
    AfterValidator(values.check_size),
    WithJsonSchema({"type": _TEXT_OR_NUMBER, "pattern": values.SIZE_PATTERN}),
]
ImageName = Annotated[
    str,
    AfterValidator(values.matching(values.IMAGE_PATTERN, 'the name of an image, such as "redis:8.6"')),
    WithJsonSchema({"type": "string", "pattern": values.IMAGE_PATTERN}),
]
Address = Annotated[str, AfterValidator(values.host_address)]
HostFolder = Annotated[str, AfterValidator(values.check_host_folder)]
SshWord = Annotated[
    str,
    BeforeValidator(values.as_written),
    AfterValidator(values.matching(values.SSH_WORD_PATTERN, "letters, digits and any of . _ : @ % + [ ] -")),
    WithJsonSchema({"type": _TEXT_OR_NUMBER, "pattern": values.SSH_WORD_PATTERN}),
]
CertificateName = Annotated[str, AfterValidator(values.check_certificate_name)]
FilePath = Annotated[str, AfterValidator(values.check_path)]
DirectiveName = Annotated[
    str,
    AfterValidator(values.matching(values.DIRECTIVE_PATTERN, "the name of a redis.conf directive")),
    WithJsonSchema({"type": "string", "pattern": values.DIRECTIVE_PATTERN}),
]
DirectiveValues = Annotated[
    tuple[str, ...],
    BeforeValidator(values.directive_values),
    WithJsonSchema({"anyOf": [_SIMPLE, {"type": "array", "items": _SIMPLE, "minItems": 1}]}),
]
