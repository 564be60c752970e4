"""Values, such as an info, an option or a keyword argument, to messages and back."""

from remote_gym.wire.arrays import decode_array, encode_array
from remote_gym.wire.decoding import decode_value
from remote_gym.wire.encoding import encode_value
from remote_gym.wire.named import Member, Record, remote_type
from remote_gym.wire.unencodable import Unencodable

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
