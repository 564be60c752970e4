"""Values, such as an info, an option or a keyword argument, to messages and back."""

from remote_gym.wire.values.arrays import decode_array, encode_array
from remote_gym.wire.values.decoding import decode_value
from remote_gym.wire.values.encoding import encode_value
from remote_gym.wire.values.named import Member, Record, remote_type
from remote_gym.wire.values.unencodable import Unencodable

__all__ = [
    "Member",
    "Record",
    "Unencodable",
    "decode_array",
    "decode_value",
    "encode_array",
    "encode_value",
    "remote_type",
]
