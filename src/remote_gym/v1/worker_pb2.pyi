from remote_gym.v1 import remote_gym_pb2 as _remote_gym_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Opening(_message.Message):
    __slots__ = ("protocol_version", "versions", "environment", "entrypoint_kwargs", "entrypoint", "repo", "reference", "render_mode", "frames", "first", "num_envs", "autoreset_mode", "frame_encoding", "observation_encoding")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_KWARGS_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    REPO_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    RENDER_MODE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    NUM_ENVS_FIELD_NUMBER: _ClassVar[int]
    AUTORESET_MODE_FIELD_NUMBER: _ClassVar[int]
    FRAME_ENCODING_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_ENCODING_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    versions: _containers.ScalarMap[str, str]
    environment: str
    entrypoint_kwargs: bytes
    entrypoint: str
    repo: str
    reference: str
    render_mode: str
    frames: _remote_gym_pb2.Frames
    first: bytes
    num_envs: int
    autoreset_mode: _remote_gym_pb2.AutoresetMode
    frame_encoding: _remote_gym_pb2.Encoding
    observation_encoding: _remote_gym_pb2.Encoding
    def __init__(self, protocol_version: _Optional[int] = ..., versions: _Optional[_Mapping[str, str]] = ..., environment: _Optional[str] = ..., entrypoint_kwargs: _Optional[bytes] = ..., entrypoint: _Optional[str] = ..., repo: _Optional[str] = ..., reference: _Optional[str] = ..., render_mode: _Optional[str] = ..., frames: _Optional[_Union[_remote_gym_pb2.Frames, str]] = ..., first: _Optional[bytes] = ..., num_envs: _Optional[int] = ..., autoreset_mode: _Optional[_Union[_remote_gym_pb2.AutoresetMode, str]] = ..., frame_encoding: _Optional[_Union[_remote_gym_pb2.Encoding, str]] = ..., observation_encoding: _Optional[_Union[_remote_gym_pb2.Encoding, str]] = ...) -> None: ...

class Launch(_message.Message):
    __slots__ = ("session", "env_id", "entrypoint", "repo", "reference", "root", "entrypoint_kwargs", "render_mode", "frames", "imports", "check_actions", "client_kwargs", "limits", "token", "identity", "tls", "num_envs", "autoreset_mode", "frame_encoding", "observation_encoding", "rlimits", "allowed_arguments", "arguments_schema", "ids", "anywhere", "guest", "variables", "cpus", "ahead", "keeps")
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class RlimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ENV_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    REPO_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_KWARGS_FIELD_NUMBER: _ClassVar[int]
    RENDER_MODE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    IMPORTS_FIELD_NUMBER: _ClassVar[int]
    CHECK_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_KWARGS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    NUM_ENVS_FIELD_NUMBER: _ClassVar[int]
    AUTORESET_MODE_FIELD_NUMBER: _ClassVar[int]
    FRAME_ENCODING_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_ENCODING_FIELD_NUMBER: _ClassVar[int]
    RLIMITS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    ANYWHERE_FIELD_NUMBER: _ClassVar[int]
    GUEST_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    KEEPS_FIELD_NUMBER: _ClassVar[int]
    session: str
    env_id: int
    entrypoint: str
    repo: str
    reference: str
    root: str
    entrypoint_kwargs: _remote_gym_pb2.Value
    render_mode: str
    frames: _remote_gym_pb2.Frames
    imports: _containers.RepeatedScalarFieldContainer[str]
    check_actions: bool
    client_kwargs: bytes
    limits: _containers.ScalarMap[str, int]
    token: str
    identity: str
    tls: Tls
    num_envs: int
    autoreset_mode: _remote_gym_pb2.AutoresetMode
    frame_encoding: _remote_gym_pb2.Encoding
    observation_encoding: _remote_gym_pb2.Encoding
    rlimits: _containers.ScalarMap[str, int]
    allowed_arguments: Names
    arguments_schema: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    anywhere: bool
    guest: Guest
    variables: _containers.ScalarMap[str, str]
    cpus: _containers.RepeatedScalarFieldContainer[int]
    ahead: bool
    keeps: bool
    def __init__(self, session: _Optional[str] = ..., env_id: _Optional[int] = ..., entrypoint: _Optional[str] = ..., repo: _Optional[str] = ..., reference: _Optional[str] = ..., root: _Optional[str] = ..., entrypoint_kwargs: _Optional[_Union[_remote_gym_pb2.Value, _Mapping]] = ..., render_mode: _Optional[str] = ..., frames: _Optional[_Union[_remote_gym_pb2.Frames, str]] = ..., imports: _Optional[_Iterable[str]] = ..., check_actions: bool = ..., client_kwargs: _Optional[bytes] = ..., limits: _Optional[_Mapping[str, int]] = ..., token: _Optional[str] = ..., identity: _Optional[str] = ..., tls: _Optional[_Union[Tls, _Mapping]] = ..., num_envs: _Optional[int] = ..., autoreset_mode: _Optional[_Union[_remote_gym_pb2.AutoresetMode, str]] = ..., frame_encoding: _Optional[_Union[_remote_gym_pb2.Encoding, str]] = ..., observation_encoding: _Optional[_Union[_remote_gym_pb2.Encoding, str]] = ..., rlimits: _Optional[_Mapping[str, int]] = ..., allowed_arguments: _Optional[_Union[Names, _Mapping]] = ..., arguments_schema: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., anywhere: bool = ..., guest: _Optional[_Union[Guest, _Mapping]] = ..., variables: _Optional[_Mapping[str, str]] = ..., cpus: _Optional[_Iterable[int]] = ..., ahead: bool = ..., keeps: bool = ...) -> None: ...

class Guest(_message.Message):
    __slots__ = ("command", "there", "python", "variables", "first_line", "ends_in_shell", "include")
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    THERE_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    FIRST_LINE_FIELD_NUMBER: _ClassVar[int]
    ENDS_IN_SHELL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    command: _containers.RepeatedScalarFieldContainer[str]
    there: bool
    python: str
    variables: _containers.ScalarMap[str, str]
    first_line: str
    ends_in_shell: bool
    include: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, command: _Optional[_Iterable[str]] = ..., there: bool = ..., python: _Optional[str] = ..., variables: _Optional[_Mapping[str, str]] = ..., first_line: _Optional[str] = ..., ends_in_shell: bool = ..., include: _Optional[_Iterable[str]] = ...) -> None: ...

class Names(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Tls(_message.Message):
    __slots__ = ("certificate", "private_key", "ca", "common_names", "token_file", "certificate_lifetime", "token_digests")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_KEY_FIELD_NUMBER: _ClassVar[int]
    CA_FIELD_NUMBER: _ClassVar[int]
    COMMON_NAMES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FILE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_LIFETIME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    certificate: str
    private_key: str
    ca: str
    common_names: bool
    token_file: str
    certificate_lifetime: float
    token_digests: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, certificate: _Optional[str] = ..., private_key: _Optional[str] = ..., ca: _Optional[str] = ..., common_names: bool = ..., token_file: _Optional[str] = ..., certificate_lifetime: _Optional[float] = ..., token_digests: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Launched(_message.Message):
    __slots__ = ("description", "error", "choice")
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    description: _remote_gym_pb2.Description
    error: _remote_gym_pb2.ErrorDetail
    choice: IdChoice
    def __init__(self, description: _Optional[_Union[_remote_gym_pb2.Description, _Mapping]] = ..., error: _Optional[_Union[_remote_gym_pb2.ErrorDetail, _Mapping]] = ..., choice: _Optional[_Union[IdChoice, _Mapping]] = ...) -> None: ...

class IdChoice(_message.Message):
    __slots__ = ("examples", "fault")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    examples: _containers.RepeatedScalarFieldContainer[str]
    fault: str
    def __init__(self, examples: _Optional[_Iterable[str]] = ..., fault: _Optional[str] = ...) -> None: ...
