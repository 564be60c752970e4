from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AutoresetMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUTORESET_UNSPECIFIED: _ClassVar[AutoresetMode]
    NEXT_STEP: _ClassVar[AutoresetMode]
    SAME_STEP: _ClassVar[AutoresetMode]
    DISABLED: _ClassVar[AutoresetMode]

class Frames(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAMES_NEVER: _ClassVar[Frames]
    FRAMES_STEP: _ClassVar[Frames]

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_RAW: _ClassVar[Encoding]
    ENCODING_AUTO: _ClassVar[Encoding]
    ENCODING_ZSTD: _ClassVar[Encoding]
    ENCODING_JPEG: _ClassVar[Encoding]

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    BOOL: _ClassVar[DType]
    INT8: _ClassVar[DType]
    INT16: _ClassVar[DType]
    INT32: _ClassVar[DType]
    INT64: _ClassVar[DType]
    UINT8: _ClassVar[DType]
    UINT16: _ClassVar[DType]
    UINT32: _ClassVar[DType]
    UINT64: _ClassVar[DType]
    FLOAT16: _ClassVar[DType]
    FLOAT32: _ClassVar[DType]
    FLOAT64: _ClassVar[DType]
    COMPLEX64: _ClassVar[DType]
    COMPLEX128: _ClassVar[DType]
    TEXT: _ClassVar[DType]
    BYTES: _ClassVar[DType]
    VOID: _ClassVar[DType]
    DATETIME64: _ClassVar[DType]
    TIMEDELTA64: _ClassVar[DType]
    LONG_FLOAT: _ClassVar[DType]
    LONG_COMPLEX: _ClassVar[DType]
AUTORESET_UNSPECIFIED: AutoresetMode
NEXT_STEP: AutoresetMode
SAME_STEP: AutoresetMode
DISABLED: AutoresetMode
FRAMES_NEVER: Frames
FRAMES_STEP: Frames
ENCODING_RAW: Encoding
ENCODING_AUTO: Encoding
ENCODING_ZSTD: Encoding
ENCODING_JPEG: Encoding
DTYPE_UNSPECIFIED: DType
BOOL: DType
INT8: DType
INT16: DType
INT32: DType
INT64: DType
UINT8: DType
UINT16: DType
UINT32: DType
UINT64: DType
FLOAT16: DType
FLOAT32: DType
FLOAT64: DType
COMPLEX64: DType
COMPLEX128: DType
TEXT: DType
BYTES: DType
VOID: DType
DATETIME64: DType
TIMEDELTA64: DType
LONG_FLOAT: DType
LONG_COMPLEX: DType

class OpenRequest(_message.Message):
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
    entrypoint_kwargs: Value
    entrypoint: str
    repo: str
    reference: str
    render_mode: str
    frames: Frames
    first: Request
    num_envs: int
    autoreset_mode: AutoresetMode
    frame_encoding: Encoding
    observation_encoding: Encoding
    def __init__(self, protocol_version: _Optional[int] = ..., versions: _Optional[_Mapping[str, str]] = ..., environment: _Optional[str] = ..., entrypoint_kwargs: _Optional[_Union[Value, _Mapping]] = ..., entrypoint: _Optional[str] = ..., repo: _Optional[str] = ..., reference: _Optional[str] = ..., render_mode: _Optional[str] = ..., frames: _Optional[_Union[Frames, str]] = ..., first: _Optional[_Union[Request, _Mapping]] = ..., num_envs: _Optional[int] = ..., autoreset_mode: _Optional[_Union[AutoresetMode, str]] = ..., frame_encoding: _Optional[_Union[Encoding, str]] = ..., observation_encoding: _Optional[_Union[Encoding, str]] = ...) -> None: ...

class OpenResponse(_message.Message):
    __slots__ = ("session", "error")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    session: Session
    error: ErrorDetail
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("id", "token", "lease", "description", "direct", "first", "identity", "environments", "message_bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    token: str
    lease: float
    description: Description
    direct: DirectAddress
    first: bytes
    identity: str
    environments: _containers.RepeatedScalarFieldContainer[str]
    message_bytes: int
    def __init__(self, id: _Optional[str] = ..., token: _Optional[str] = ..., lease: _Optional[float] = ..., description: _Optional[_Union[Description, _Mapping]] = ..., direct: _Optional[_Union[DirectAddress, _Mapping]] = ..., first: _Optional[bytes] = ..., identity: _Optional[str] = ..., environments: _Optional[_Iterable[str]] = ..., message_bytes: _Optional[int] = ...) -> None: ...

class DirectAddress(_message.Message):
    __slots__ = ("port", "path", "routing_id", "tls", "same_place")
    PORT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    ROUTING_ID_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    SAME_PLACE_FIELD_NUMBER: _ClassVar[int]
    port: int
    path: str
    routing_id: bytes
    tls: bool
    same_place: bool
    def __init__(self, port: _Optional[int] = ..., path: _Optional[str] = ..., routing_id: _Optional[bytes] = ..., tls: bool = ..., same_place: bool = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("token", "client_token")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CLIENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    client_token: str
    def __init__(self, token: _Optional[str] = ..., client_token: _Optional[str] = ...) -> None: ...

class Attached(_message.Message):
    __slots__ = ("error", "poll_us")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    POLL_US_FIELD_NUMBER: _ClassVar[int]
    error: ErrorDetail
    poll_us: int
    def __init__(self, error: _Optional[_Union[ErrorDetail, _Mapping]] = ..., poll_us: _Optional[int] = ...) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LoadResponse(_message.Message):
    __slots__ = ("open", "capacity", "waiting", "draining", "error")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    open: int
    capacity: int
    waiting: int
    draining: bool
    error: ErrorDetail
    def __init__(self, open: _Optional[int] = ..., capacity: _Optional[int] = ..., waiting: _Optional[int] = ..., draining: bool = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...

class SpacesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SpacesResponse(_message.Message):
    __slots__ = ("description", "error", "direct", "message_bytes", "lease")
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    description: Description
    error: ErrorDetail
    direct: DirectAddress
    message_bytes: int
    lease: float
    def __init__(self, description: _Optional[_Union[Description, _Mapping]] = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ..., direct: _Optional[_Union[DirectAddress, _Mapping]] = ..., message_bytes: _Optional[int] = ..., lease: _Optional[float] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("observation_space", "action_space", "metadata", "render_mode", "spec", "exposed", "versions", "num_envs", "single_observation_space", "single_action_space", "autoreset_mode", "numbers_environments", "lacking", "made_by_id")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    OBSERVATION_SPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_SPACE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RENDER_MODE_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    EXPOSED_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NUM_ENVS_FIELD_NUMBER: _ClassVar[int]
    SINGLE_OBSERVATION_SPACE_FIELD_NUMBER: _ClassVar[int]
    SINGLE_ACTION_SPACE_FIELD_NUMBER: _ClassVar[int]
    AUTORESET_MODE_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    MADE_BY_ID_FIELD_NUMBER: _ClassVar[int]
    observation_space: Space
    action_space: Space
    metadata: Value
    render_mode: str
    spec: EnvironmentSpec
    exposed: _containers.RepeatedCompositeFieldContainer[ExposedName]
    versions: _containers.ScalarMap[str, str]
    num_envs: int
    single_observation_space: Space
    single_action_space: Space
    autoreset_mode: AutoresetMode
    numbers_environments: bool
    lacking: _containers.RepeatedScalarFieldContainer[str]
    made_by_id: bool
    def __init__(self, observation_space: _Optional[_Union[Space, _Mapping]] = ..., action_space: _Optional[_Union[Space, _Mapping]] = ..., metadata: _Optional[_Union[Value, _Mapping]] = ..., render_mode: _Optional[str] = ..., spec: _Optional[_Union[EnvironmentSpec, _Mapping]] = ..., exposed: _Optional[_Iterable[_Union[ExposedName, _Mapping]]] = ..., versions: _Optional[_Mapping[str, str]] = ..., num_envs: _Optional[int] = ..., single_observation_space: _Optional[_Union[Space, _Mapping]] = ..., single_action_space: _Optional[_Union[Space, _Mapping]] = ..., autoreset_mode: _Optional[_Union[AutoresetMode, str]] = ..., numbers_environments: bool = ..., lacking: _Optional[_Iterable[str]] = ..., made_by_id: bool = ...) -> None: ...

class EnvironmentSpec(_message.Message):
    __slots__ = ("id", "reward_threshold", "nondeterministic", "max_episode_steps")
    ID_FIELD_NUMBER: _ClassVar[int]
    REWARD_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NONDETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    MAX_EPISODE_STEPS_FIELD_NUMBER: _ClassVar[int]
    id: str
    reward_threshold: float
    nondeterministic: bool
    max_episode_steps: int
    def __init__(self, id: _Optional[str] = ..., reward_threshold: _Optional[float] = ..., nondeterministic: bool = ..., max_episode_steps: _Optional[int] = ...) -> None: ...

class ExposedName(_message.Message):
    __slots__ = ("name", "callable", "description", "parameters")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CALLABLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    callable: bool
    description: str
    parameters: str
    def __init__(self, name: _Optional[str] = ..., callable: bool = ..., description: _Optional[str] = ..., parameters: _Optional[str] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("sequence", "reset", "step", "render", "call", "close", "step_many", "frame", "part")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    RENDER_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    STEP_MANY_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reset: ResetRequest
    step: StepRequest
    render: RenderRequest
    call: CallRequest
    close: CloseRequest
    step_many: StepManyRequest
    frame: bool
    part: Part
    def __init__(self, sequence: _Optional[int] = ..., reset: _Optional[_Union[ResetRequest, _Mapping]] = ..., step: _Optional[_Union[StepRequest, _Mapping]] = ..., render: _Optional[_Union[RenderRequest, _Mapping]] = ..., call: _Optional[_Union[CallRequest, _Mapping]] = ..., close: _Optional[_Union[CloseRequest, _Mapping]] = ..., step_many: _Optional[_Union[StepManyRequest, _Mapping]] = ..., frame: bool = ..., part: _Optional[_Union[Part, _Mapping]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("size", "data")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    size: int
    data: bytes
    def __init__(self, size: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("sequence", "reset", "step", "render", "call", "close", "error", "step_many")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    RENDER_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    STEP_MANY_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reset: Transition
    step: Transition
    render: RenderResponse
    call: CallResponse
    close: CloseResponse
    error: ErrorDetail
    step_many: StepManyResponse
    def __init__(self, sequence: _Optional[int] = ..., reset: _Optional[_Union[Transition, _Mapping]] = ..., step: _Optional[_Union[Transition, _Mapping]] = ..., render: _Optional[_Union[RenderResponse, _Mapping]] = ..., call: _Optional[_Union[CallResponse, _Mapping]] = ..., close: _Optional[_Union[CloseResponse, _Mapping]] = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ..., step_many: _Optional[_Union[StepManyResponse, _Mapping]] = ...) -> None: ...

class ResetRequest(_message.Message):
    __slots__ = ("seed", "options")
    SEED_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    seed: Value
    options: Value
    def __init__(self, seed: _Optional[_Union[Value, _Mapping]] = ..., options: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("packed", "value")
    PACKED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    packed: bytes
    value: Value
    def __init__(self, packed: _Optional[bytes] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Transition(_message.Message):
    __slots__ = ("packed", "value", "zstd", "reward_float", "reward_value", "terminated_bool", "terminated_value", "truncated_bool", "truncated_value", "info", "frame")
    PACKED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ZSTD_FIELD_NUMBER: _ClassVar[int]
    REWARD_FLOAT_FIELD_NUMBER: _ClassVar[int]
    REWARD_VALUE_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_BOOL_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_VALUE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_BOOL_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_VALUE_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    packed: bytes
    value: Value
    zstd: bytes
    reward_float: float
    reward_value: Value
    terminated_bool: bool
    terminated_value: Value
    truncated_bool: bool
    truncated_value: Value
    info: Value
    frame: Frame
    def __init__(self, packed: _Optional[bytes] = ..., value: _Optional[_Union[Value, _Mapping]] = ..., zstd: _Optional[bytes] = ..., reward_float: _Optional[float] = ..., reward_value: _Optional[_Union[Value, _Mapping]] = ..., terminated_bool: bool = ..., terminated_value: _Optional[_Union[Value, _Mapping]] = ..., truncated_bool: bool = ..., truncated_value: _Optional[_Union[Value, _Mapping]] = ..., info: _Optional[_Union[Value, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class StepManyRequest(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[StepRequest]
    def __init__(self, steps: _Optional[_Iterable[_Union[StepRequest, _Mapping]]] = ...) -> None: ...

class StepManyResponse(_message.Message):
    __slots__ = ("transitions", "error")
    TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    transitions: _containers.RepeatedCompositeFieldContainer[Transition]
    error: ErrorDetail
    def __init__(self, transitions: _Optional[_Iterable[_Union[Transition, _Mapping]]] = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...

class RenderRequest(_message.Message):
    __slots__ = ("part_bytes", "part")
    PART_BYTES_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    part_bytes: int
    part: int
    def __init__(self, part_bytes: _Optional[int] = ..., part: _Optional[int] = ...) -> None: ...

class RenderResponse(_message.Message):
    __slots__ = ("frame", "rest")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    rest: int
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ..., rest: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("array", "value", "zstd", "jpeg", "tuple")
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ZSTD_FIELD_NUMBER: _ClassVar[int]
    JPEG_FIELD_NUMBER: _ClassVar[int]
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    array: Array
    value: Value
    zstd: Array
    jpeg: Array
    tuple: FrameTuple
    def __init__(self, array: _Optional[_Union[Array, _Mapping]] = ..., value: _Optional[_Union[Value, _Mapping]] = ..., zstd: _Optional[_Union[Array, _Mapping]] = ..., jpeg: _Optional[_Union[Array, _Mapping]] = ..., tuple: _Optional[_Union[FrameTuple, _Mapping]] = ...) -> None: ...

class FrameTuple(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    def __init__(self, frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ...) -> None: ...

class CallRequest(_message.Message):
    __slots__ = ("name", "args", "kwargs", "assign")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    KWARGS_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_FIELD_NUMBER: _ClassVar[int]
    name: str
    args: Value
    kwargs: Value
    assign: Value
    def __init__(self, name: _Optional[str] = ..., args: _Optional[_Union[Value, _Mapping]] = ..., kwargs: _Optional[_Union[Value, _Mapping]] = ..., assign: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class CallResponse(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: Value
    def __init__(self, value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class CloseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CloseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ErrorDetail(_message.Message):
    __slots__ = ("kind", "message", "remote_type", "remote_message", "remote_traceback", "answered", "loss_reason", "output", "full_reason", "denial_reason")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[ErrorDetail.Kind]
        CONFIG: _ClassVar[ErrorDetail.Kind]
        ENCODING: _ClassVar[ErrorDetail.Kind]
        SESSION_LOST: _ClassVar[ErrorDetail.Kind]
        SERVER_FULL: _ClassVar[ErrorDetail.Kind]
        NOT_PERMITTED: _ClassVar[ErrorDetail.Kind]
        OUT_OF_SEQUENCE: _ClassVar[ErrorDetail.Kind]
        INVALID_ACTION: _ClassVar[ErrorDetail.Kind]
        ENVIRONMENT: _ClassVar[ErrorDetail.Kind]
        PROTOCOL_MISMATCH: _ClassVar[ErrorDetail.Kind]
        RESET_NEEDED: _ClassVar[ErrorDetail.Kind]
        INVALID_OBSERVATION: _ClassVar[ErrorDetail.Kind]
    KIND_UNSPECIFIED: ErrorDetail.Kind
    CONFIG: ErrorDetail.Kind
    ENCODING: ErrorDetail.Kind
    SESSION_LOST: ErrorDetail.Kind
    SERVER_FULL: ErrorDetail.Kind
    NOT_PERMITTED: ErrorDetail.Kind
    OUT_OF_SEQUENCE: ErrorDetail.Kind
    INVALID_ACTION: ErrorDetail.Kind
    ENVIRONMENT: ErrorDetail.Kind
    PROTOCOL_MISMATCH: ErrorDetail.Kind
    RESET_NEEDED: ErrorDetail.Kind
    INVALID_OBSERVATION: ErrorDetail.Kind
    class LossReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[ErrorDetail.LossReason]
        CRASHED: _ClassVar[ErrorDetail.LossReason]
        KILLED: _ClassVar[ErrorDetail.LossReason]
        HUNG: _ClassVar[ErrorDetail.LossReason]
        OUT_OF_MEMORY: _ClassVar[ErrorDetail.LossReason]
        EXPIRED: _ClassVar[ErrorDetail.LossReason]
        IDLE: _ClassVar[ErrorDetail.LossReason]
        CLOSED: _ClassVar[ErrorDetail.LossReason]
        DRAINED: _ClassVar[ErrorDetail.LossReason]
        SERVER_STOPPED: _ClassVar[ErrorDetail.LossReason]
        FORBIDDEN: _ClassVar[ErrorDetail.LossReason]
        OPERATOR: _ClassVar[ErrorDetail.LossReason]
    UNKNOWN: ErrorDetail.LossReason
    CRASHED: ErrorDetail.LossReason
    KILLED: ErrorDetail.LossReason
    HUNG: ErrorDetail.LossReason
    OUT_OF_MEMORY: ErrorDetail.LossReason
    EXPIRED: ErrorDetail.LossReason
    IDLE: ErrorDetail.LossReason
    CLOSED: ErrorDetail.LossReason
    DRAINED: ErrorDetail.LossReason
    SERVER_STOPPED: ErrorDetail.LossReason
    FORBIDDEN: ErrorDetail.LossReason
    OPERATOR: ErrorDetail.LossReason
    class FullReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN_LIMIT: _ClassVar[ErrorDetail.FullReason]
        SESSIONS: _ClassVar[ErrorDetail.FullReason]
        IDENTITY: _ClassVar[ErrorDetail.FullReason]
        RATE: _ClassVar[ErrorDetail.FullReason]
        UNREAD: _ClassVar[ErrorDetail.FullReason]
        STOPPING: _ClassVar[ErrorDetail.FullReason]
        MACHINE: _ClassVar[ErrorDetail.FullReason]
        SAME_ENVIRONMENT: _ClassVar[ErrorDetail.FullReason]
    UNKNOWN_LIMIT: ErrorDetail.FullReason
    SESSIONS: ErrorDetail.FullReason
    IDENTITY: ErrorDetail.FullReason
    RATE: ErrorDetail.FullReason
    UNREAD: ErrorDetail.FullReason
    STOPPING: ErrorDetail.FullReason
    MACHINE: ErrorDetail.FullReason
    SAME_ENVIRONMENT: ErrorDetail.FullReason
    class DenialReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DENIED_UNKNOWN: _ClassVar[ErrorDetail.DenialReason]
        DENIED_IDENTITY: _ClassVar[ErrorDetail.DenialReason]
        DENIED_SESSION: _ClassVar[ErrorDetail.DenialReason]
        DENIED_ENVIRONMENT: _ClassVar[ErrorDetail.DenialReason]
        DENIED_ARGUMENTS: _ClassVar[ErrorDetail.DenialReason]
        DENIED_CODE: _ClassVar[ErrorDetail.DenialReason]
    DENIED_UNKNOWN: ErrorDetail.DenialReason
    DENIED_IDENTITY: ErrorDetail.DenialReason
    DENIED_SESSION: ErrorDetail.DenialReason
    DENIED_ENVIRONMENT: ErrorDetail.DenialReason
    DENIED_ARGUMENTS: ErrorDetail.DenialReason
    DENIED_CODE: ErrorDetail.DenialReason
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REMOTE_TYPE_FIELD_NUMBER: _ClassVar[int]
    REMOTE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REMOTE_TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    LOSS_REASON_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FULL_REASON_FIELD_NUMBER: _ClassVar[int]
    DENIAL_REASON_FIELD_NUMBER: _ClassVar[int]
    kind: ErrorDetail.Kind
    message: str
    remote_type: str
    remote_message: str
    remote_traceback: str
    answered: int
    loss_reason: ErrorDetail.LossReason
    output: str
    full_reason: ErrorDetail.FullReason
    denial_reason: ErrorDetail.DenialReason
    def __init__(self, kind: _Optional[_Union[ErrorDetail.Kind, str]] = ..., message: _Optional[str] = ..., remote_type: _Optional[str] = ..., remote_message: _Optional[str] = ..., remote_traceback: _Optional[str] = ..., answered: _Optional[int] = ..., loss_reason: _Optional[_Union[ErrorDetail.LossReason, str]] = ..., output: _Optional[str] = ..., full_reason: _Optional[_Union[ErrorDetail.FullReason, str]] = ..., denial_reason: _Optional[_Union[ErrorDetail.DenialReason, str]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("none", "boolean", "integer", "big_integer", "number", "text", "surrogate_text", "binary", "list", "tuple", "dict", "array", "scalar", "object_array", "graph", "unencodable", "complex", "byte_array", "set", "frozen_set", "deque", "decimal", "fraction", "path", "date", "time", "datetime", "timedelta", "range", "masked_array", "structured_array", "named")
    NONE_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    BIG_INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SURROGATE_TEXT_FIELD_NUMBER: _ClassVar[int]
    BINARY_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    DICT_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    SCALAR_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ARRAY_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    UNENCODABLE_FIELD_NUMBER: _ClassVar[int]
    COMPLEX_FIELD_NUMBER: _ClassVar[int]
    BYTE_ARRAY_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    FROZEN_SET_FIELD_NUMBER: _ClassVar[int]
    DEQUE_FIELD_NUMBER: _ClassVar[int]
    DECIMAL_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DATETIME_FIELD_NUMBER: _ClassVar[int]
    TIMEDELTA_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    MASKED_ARRAY_FIELD_NUMBER: _ClassVar[int]
    STRUCTURED_ARRAY_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    none: Nothing
    boolean: bool
    integer: int
    big_integer: bytes
    number: float
    text: str
    surrogate_text: bytes
    binary: bytes
    list: List
    tuple: List
    dict: Dict
    array: Array
    scalar: Array
    object_array: ObjectArray
    graph: Graph
    unencodable: Unencodable
    complex: Complex
    byte_array: bytes
    set: List
    frozen_set: List
    deque: Deque
    decimal: str
    fraction: Fraction
    path: Path
    date: Date
    time: Time
    datetime: DateTime
    timedelta: TimeDelta
    range: Range
    masked_array: MaskedArray
    structured_array: StructuredArray
    named: Named
    def __init__(self, none: _Optional[_Union[Nothing, _Mapping]] = ..., boolean: bool = ..., integer: _Optional[int] = ..., big_integer: _Optional[bytes] = ..., number: _Optional[float] = ..., text: _Optional[str] = ..., surrogate_text: _Optional[bytes] = ..., binary: _Optional[bytes] = ..., list: _Optional[_Union[List, _Mapping]] = ..., tuple: _Optional[_Union[List, _Mapping]] = ..., dict: _Optional[_Union[Dict, _Mapping]] = ..., array: _Optional[_Union[Array, _Mapping]] = ..., scalar: _Optional[_Union[Array, _Mapping]] = ..., object_array: _Optional[_Union[ObjectArray, _Mapping]] = ..., graph: _Optional[_Union[Graph, _Mapping]] = ..., unencodable: _Optional[_Union[Unencodable, _Mapping]] = ..., complex: _Optional[_Union[Complex, _Mapping]] = ..., byte_array: _Optional[bytes] = ..., set: _Optional[_Union[List, _Mapping]] = ..., frozen_set: _Optional[_Union[List, _Mapping]] = ..., deque: _Optional[_Union[Deque, _Mapping]] = ..., decimal: _Optional[str] = ..., fraction: _Optional[_Union[Fraction, _Mapping]] = ..., path: _Optional[_Union[Path, _Mapping]] = ..., date: _Optional[_Union[Date, _Mapping]] = ..., time: _Optional[_Union[Time, _Mapping]] = ..., datetime: _Optional[_Union[DateTime, _Mapping]] = ..., timedelta: _Optional[_Union[TimeDelta, _Mapping]] = ..., range: _Optional[_Union[Range, _Mapping]] = ..., masked_array: _Optional[_Union[MaskedArray, _Mapping]] = ..., structured_array: _Optional[_Union[StructuredArray, _Mapping]] = ..., named: _Optional[_Union[Named, _Mapping]] = ...) -> None: ...

class Nothing(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class List(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Dict(_message.Message):
    __slots__ = ("names", "keys", "values")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    keys: _containers.RepeatedCompositeFieldContainer[Value]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., keys: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("dtype", "shape", "data", "item_length", "big_endian", "unit", "unit_count")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ITEM_LENGTH_FIELD_NUMBER: _ClassVar[int]
    BIG_ENDIAN_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    UNIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    item_length: int
    big_endian: bool
    unit: str
    unit_count: int
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., item_length: _Optional[int] = ..., big_endian: bool = ..., unit: _Optional[str] = ..., unit_count: _Optional[int] = ...) -> None: ...

class ObjectArray(_message.Message):
    __slots__ = ("shape", "items")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("nodes", "edges", "edge_links")
    NODES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    EDGE_LINKS_FIELD_NUMBER: _ClassVar[int]
    nodes: Value
    edges: Value
    edge_links: Value
    def __init__(self, nodes: _Optional[_Union[Value, _Mapping]] = ..., edges: _Optional[_Union[Value, _Mapping]] = ..., edge_links: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Complex(_message.Message):
    __slots__ = ("real", "imaginary")
    REAL_FIELD_NUMBER: _ClassVar[int]
    IMAGINARY_FIELD_NUMBER: _ClassVar[int]
    real: float
    imaginary: float
    def __init__(self, real: _Optional[float] = ..., imaginary: _Optional[float] = ...) -> None: ...

class Deque(_message.Message):
    __slots__ = ("items", "max_length")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    max_length: int
    def __init__(self, items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., max_length: _Optional[int] = ...) -> None: ...

class Fraction(_message.Message):
    __slots__ = ("numerator", "denominator")
    NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    numerator: bytes
    denominator: bytes
    def __init__(self, numerator: _Optional[bytes] = ..., denominator: _Optional[bytes] = ...) -> None: ...

class Path(_message.Message):
    __slots__ = ("text", "windows", "pure")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    PURE_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    windows: bool
    pure: bool
    def __init__(self, text: _Optional[bytes] = ..., windows: bool = ..., pure: bool = ...) -> None: ...

class Date(_message.Message):
    __slots__ = ("year", "month", "day")
    YEAR_FIELD_NUMBER: _ClassVar[int]
    MONTH_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    year: int
    month: int
    day: int
    def __init__(self, year: _Optional[int] = ..., month: _Optional[int] = ..., day: _Optional[int] = ...) -> None: ...

class Time(_message.Message):
    __slots__ = ("hour", "minute", "second", "microsecond", "fold", "zone")
    HOUR_FIELD_NUMBER: _ClassVar[int]
    MINUTE_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    MICROSECOND_FIELD_NUMBER: _ClassVar[int]
    FOLD_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    hour: int
    minute: int
    second: int
    microsecond: int
    fold: bool
    zone: Zone
    def __init__(self, hour: _Optional[int] = ..., minute: _Optional[int] = ..., second: _Optional[int] = ..., microsecond: _Optional[int] = ..., fold: bool = ..., zone: _Optional[_Union[Zone, _Mapping]] = ...) -> None: ...

class DateTime(_message.Message):
    __slots__ = ("date", "time")
    DATE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    date: Date
    time: Time
    def __init__(self, date: _Optional[_Union[Date, _Mapping]] = ..., time: _Optional[_Union[Time, _Mapping]] = ...) -> None: ...

class Zone(_message.Message):
    __slots__ = ("offset", "name", "key")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    offset: int
    name: str
    key: str
    def __init__(self, offset: _Optional[int] = ..., name: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class TimeDelta(_message.Message):
    __slots__ = ("days", "seconds", "microseconds")
    DAYS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    days: int
    seconds: int
    microseconds: int
    def __init__(self, days: _Optional[int] = ..., seconds: _Optional[int] = ..., microseconds: _Optional[int] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("start", "stop", "step")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    start: int
    stop: int
    step: int
    def __init__(self, start: _Optional[int] = ..., stop: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class MaskedArray(_message.Message):
    __slots__ = ("data", "mask", "fill_value", "hard_mask")
    DATA_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    FILL_VALUE_FIELD_NUMBER: _ClassVar[int]
    HARD_MASK_FIELD_NUMBER: _ClassVar[int]
    data: Value
    mask: Value
    fill_value: Value
    hard_mask: bool
    def __init__(self, data: _Optional[_Union[Value, _Mapping]] = ..., mask: _Optional[_Union[Value, _Mapping]] = ..., fill_value: _Optional[_Union[Value, _Mapping]] = ..., hard_mask: bool = ...) -> None: ...

class StructuredArray(_message.Message):
    __slots__ = ("shape", "names", "offsets", "columns", "item_size", "scalar")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ITEM_SIZE_FIELD_NUMBER: _ClassVar[int]
    SCALAR_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    offsets: _containers.RepeatedScalarFieldContainer[int]
    columns: _containers.RepeatedCompositeFieldContainer[Value]
    item_size: int
    scalar: bool
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., names: _Optional[_Iterable[str]] = ..., offsets: _Optional[_Iterable[int]] = ..., columns: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., item_size: _Optional[int] = ..., scalar: bool = ...) -> None: ...

class Named(_message.Message):
    __slots__ = ("type", "form", "value", "fields", "member")
    class Form(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SUBCLASS: _ClassVar[Named.Form]
        NAMED_TUPLE: _ClassVar[Named.Form]
        RECORD: _ClassVar[Named.Form]
        MEMBER: _ClassVar[Named.Form]
    SUBCLASS: Named.Form
    NAMED_TUPLE: Named.Form
    RECORD: Named.Form
    MEMBER: Named.Form
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    type: str
    form: Named.Form
    value: Value
    fields: _containers.RepeatedScalarFieldContainer[str]
    member: str
    def __init__(self, type: _Optional[str] = ..., form: _Optional[_Union[Named.Form, str]] = ..., value: _Optional[_Union[Value, _Mapping]] = ..., fields: _Optional[_Iterable[str]] = ..., member: _Optional[str] = ...) -> None: ...

class Unencodable(_message.Message):
    __slots__ = ("type", "repr")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REPR_FIELD_NUMBER: _ClassVar[int]
    type: str
    repr: str
    def __init__(self, type: _Optional[str] = ..., repr: _Optional[str] = ...) -> None: ...

class Space(_message.Message):
    __slots__ = ("box", "discrete", "multi_discrete", "multi_binary", "text", "dict", "tuple", "sequence", "graph", "one_of", "image")
    BOX_FIELD_NUMBER: _ClassVar[int]
    DISCRETE_FIELD_NUMBER: _ClassVar[int]
    MULTI_DISCRETE_FIELD_NUMBER: _ClassVar[int]
    MULTI_BINARY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DICT_FIELD_NUMBER: _ClassVar[int]
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    ONE_OF_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    box: BoxSpace
    discrete: DiscreteSpace
    multi_discrete: MultiDiscreteSpace
    multi_binary: MultiBinarySpace
    text: TextSpace
    dict: DictSpace
    tuple: TupleSpace
    sequence: SequenceSpace
    graph: GraphSpace
    one_of: OneOfSpace
    image: ImageSpace
    def __init__(self, box: _Optional[_Union[BoxSpace, _Mapping]] = ..., discrete: _Optional[_Union[DiscreteSpace, _Mapping]] = ..., multi_discrete: _Optional[_Union[MultiDiscreteSpace, _Mapping]] = ..., multi_binary: _Optional[_Union[MultiBinarySpace, _Mapping]] = ..., text: _Optional[_Union[TextSpace, _Mapping]] = ..., dict: _Optional[_Union[DictSpace, _Mapping]] = ..., tuple: _Optional[_Union[TupleSpace, _Mapping]] = ..., sequence: _Optional[_Union[SequenceSpace, _Mapping]] = ..., graph: _Optional[_Union[GraphSpace, _Mapping]] = ..., one_of: _Optional[_Union[OneOfSpace, _Mapping]] = ..., image: _Optional[_Union[ImageSpace, _Mapping]] = ...) -> None: ...

class BoxSpace(_message.Message):
    __slots__ = ("dtype", "shape", "low", "high", "bounded_below", "bounded_above")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    BOUNDED_BELOW_FIELD_NUMBER: _ClassVar[int]
    BOUNDED_ABOVE_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    low: bytes
    high: bytes
    bounded_below: bytes
    bounded_above: bytes
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., low: _Optional[bytes] = ..., high: _Optional[bytes] = ..., bounded_below: _Optional[bytes] = ..., bounded_above: _Optional[bytes] = ...) -> None: ...

class DiscreteSpace(_message.Message):
    __slots__ = ("n", "start", "dtype")
    N_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    n: int
    start: int
    dtype: DType
    def __init__(self, n: _Optional[int] = ..., start: _Optional[int] = ..., dtype: _Optional[_Union[DType, str]] = ...) -> None: ...

class MultiDiscreteSpace(_message.Message):
    __slots__ = ("dtype", "shape", "nvec", "start")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    NVEC_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    nvec: bytes
    start: bytes
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., nvec: _Optional[bytes] = ..., start: _Optional[bytes] = ...) -> None: ...

class MultiBinarySpace(_message.Message):
    __slots__ = ("shape", "scalar_n")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SCALAR_N_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    scalar_n: bool
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., scalar_n: bool = ...) -> None: ...

class TextSpace(_message.Message):
    __slots__ = ("min_length", "max_length", "characters", "any")
    MIN_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    ANY_FIELD_NUMBER: _ClassVar[int]
    min_length: int
    max_length: int
    characters: str
    any: bool
    def __init__(self, min_length: _Optional[int] = ..., max_length: _Optional[int] = ..., characters: _Optional[str] = ..., any: bool = ...) -> None: ...

class DictSpace(_message.Message):
    __slots__ = ("keys", "spaces", "sort_keys_off")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    SPACES_FIELD_NUMBER: _ClassVar[int]
    SORT_KEYS_OFF_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Value]
    spaces: _containers.RepeatedCompositeFieldContainer[Space]
    sort_keys_off: bool
    def __init__(self, keys: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., spaces: _Optional[_Iterable[_Union[Space, _Mapping]]] = ..., sort_keys_off: bool = ...) -> None: ...

class TupleSpace(_message.Message):
    __slots__ = ("spaces",)
    SPACES_FIELD_NUMBER: _ClassVar[int]
    spaces: _containers.RepeatedCompositeFieldContainer[Space]
    def __init__(self, spaces: _Optional[_Iterable[_Union[Space, _Mapping]]] = ...) -> None: ...

class SequenceSpace(_message.Message):
    __slots__ = ("space", "stack")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    space: Space
    stack: bool
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., stack: bool = ...) -> None: ...

class GraphSpace(_message.Message):
    __slots__ = ("node_space", "edge_space")
    NODE_SPACE_FIELD_NUMBER: _ClassVar[int]
    EDGE_SPACE_FIELD_NUMBER: _ClassVar[int]
    node_space: Space
    edge_space: Space
    def __init__(self, node_space: _Optional[_Union[Space, _Mapping]] = ..., edge_space: _Optional[_Union[Space, _Mapping]] = ...) -> None: ...

class OneOfSpace(_message.Message):
    __slots__ = ("spaces",)
    SPACES_FIELD_NUMBER: _ClassVar[int]
    spaces: _containers.RepeatedCompositeFieldContainer[Space]
    def __init__(self, spaces: _Optional[_Iterable[_Union[Space, _Mapping]]] = ...) -> None: ...

class ImageSpace(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
